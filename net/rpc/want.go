package rpc

import (
	"bytes"
	"encoding/gob"
	"go/token"
	"reflect"
)

// A want is what the decoder will do with a part of a value, as far as the guard can know.
//
// It matters for one thing: gob passes over a nil interface as if more followed it, and so
// comes to understand what follows as something else than the guard has read.
type want struct {
	kind wantKind
	typ  reflect.Type // that it is decoded into, if kind is typed
}

type wantKind uint8

const (
	wanted  wantKind = iota // it is decoded, into a type that is not known
	typed                   // it is decoded, if it fits
	skipped                 // it is passed over with what it is in, by length
	unsure                  // it may be passed over
	ignored                 // it is passed over
)

// wantOf returns what is wanted of a value that is decoded into what a pointer points to.
func wantOf(into any) want {
	if into == nil {
		return want{kind: ignored}
	}
	return want{typed, reflect.TypeOf(into)}
}

// base returns the type without pointers, or nil if that is not known.
func (w want) base() reflect.Type {
	t := w.typ
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}

// elem returns what is wanted of the elements of a collection, and of a map's keys. Of what
// does not fit, gob decodes nothing.
func (w want) elem() (key, elem want) {
	t := w.base()
	if t == nil {
		return w, w
	}
	switch t.Kind() {
	case reflect.Map:
		return want{typed, t.Key()}, want{typed, t.Elem()}
	case reflect.Slice, reflect.Array:
		return want{}, want{typed, t.Elem()}
	}
	return want{kind: ignored}, want{kind: ignored}
}

// wants returns what is wanted of a struct's fields, or nil: of each one what other says.
func (t *wireType) wants(w want) (fields []want, other want) {
	local := w.base()
	switch {
	case w.kind == wanted:
		return nil, want{kind: unsure}
	case local == nil:
		return nil, w
	case local.Kind() != reflect.Struct:
		return nil, want{kind: ignored}
	}
	if t.local != local {
		t.local, t.wanted = local, t.fieldsIn(local)
	}
	return t.wanted, want{}
}

// fieldsIn returns what is wanted of a struct's fields that is decoded into local, another.
func (t *wireType) fieldsIn(local reflect.Type) []want {
	fields := make([]want, len(t.fields))
	for i, name := range t.names {
		fields[i] = want{kind: ignored}
		if f, ok := local.FieldByName(name); ok && token.IsExported(name) {
			fields[i] = want{typed, f.Type}
		}
	}
	return fields
}

// held returns what is wanted of a value of type id in an interface that is decoded, by the
// name that the peer gives the type.
func (g *guard) held(name []byte, id int64) want {
	if t := g.types[id]; t == nil || t.kind != kindStruct {
		return want{}
	}
	local, known := g.locals[string(name)]
	if !known {
		local = registered(name)
		if len(g.locals) >= maxLocals {
			return want{kind: unsure}
		}
		if g.locals == nil {
			g.locals = make(map[string]reflect.Type)
		}
		g.locals[string(name)] = local
	}
	if local == nil {
		return want{} // gob decodes nothing of it
	}
	return want{typed, local}
}

const maxLocals = 1000 // names of types in interfaces, a connection

// registered returns the struct, or pointer to one, that gob knows by a name; nil: there is
// none. gob tells nobody, but decodes a value of that type for who sends one: a struct
// without fields will do.
func registered(name []byte) reflect.Type {
	b := append(appendUint([]byte{gobInterface << 1, 0}, uint64(len(name))), name...)
	b = append(b,
		0xff, 0x81, // what follows defines type 65:
		3, 1, 1, 1, 'S', 1, 0xff, 0x82, 0, 0, 0, // a struct of name S and number 65
		4, 0xff, 0x82, // a length, and type 65:
		1, 0, // one byte, the end of the struct
	)
	var v any
	if gob.NewDecoder(bytes.NewReader(append(appendUint(nil, uint64(len(b))), b...))).Decode(&v) != nil {
		return nil
	}
	return reflect.TypeOf(v)
}
