package rpc

import (
	"bytes"
	"encoding/gob"
	"go/token"
	"reflect"
	"slices"
)

// A want is what the decoder will do with a part of a value, as far as the guard can know.
//
// It matters for one thing: gob passes over a nil interface as if more followed it, and so
// comes to understand what follows as something else than the guard has read. Where it passes
// over one, it is given another value instead.
type want struct {
	kind wantKind
	typ  reflect.Type // that it is decoded into, if kind is typed
}

type wantKind uint8

const (
	wanted  wantKind = iota // it is decoded, into a type that is not known
	typed                   // it is decoded, if it fits
	skipped                 // it is passed over with what it is in, by length
	unsure                  // it may be passed over, or decoded
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
	t := g.types[id]
	if t == nil || t.whole {
		return want{}
	}
	local, known := g.locals[localName{string(name), id}]
	if !known && len(g.locals) < maxLocals {
		for _, opaque := range opaques {
			empty, whole := g.shape(id, opaque)
			if whole {
				t.whole = true
				return want{}
			}
			if local = registered(name, empty); local != nil {
				break
			}
		}
		if g.locals == nil {
			g.locals = make(map[localName]reflect.Type)
		}
		g.locals[localName{string(name), id}] = local
	}
	if local == nil {
		return want{} // gob decodes nothing of it
	}
	return want{typed, local}
}

// A localName is a name in an interface, with the number of the peer's type.
type localName struct {
	name string
	id   int64
}

const (
	maxLocals = 1000 // names of types in interfaces, a connection
	maxShape  = 64   // types that one is made of, without the fields of structs
	maxEmpty  = 1024 // bytes of an array's empty value
)

// Where gob's wireType says that a type has an encoding of its own, by GobEncode or MarshalBinary.
var opaques = []byte{5, 6}

// shape returns an empty value of a type with its definitions, as gob has them behind a name in
// an interface; nil: that would take too much. It says no more of the type than gob looks at to
// find its own of that name: structs have no fields. whole says that gob passes over nothing in
// such a value, since the only structs in it are plain.
func (g *guard) shape(id int64, opaque byte) (empty []byte, whole bool) {
	whole = true
	ids := []int64{id}
	for i := 0; i < len(ids); i++ {
		t := g.types[ids[i]]
		if t == nil || i == maxShape {
			return nil, false
		}
		def := appendInt(nil, -ids[i])
		switch t.kind { // a field of wireType, and of that, behind the CommonType, the others
		case kindArray:
			def = appendInt(append(appendInt(append(def, 1, 2), t.elem), 1), int64(t.size))
		case kindSlice:
			def = appendInt(append(def, 2, 2), t.elem)
		case kindStruct:
			def = append(def, 3)
			whole = whole && g.plain(ids[i])
		case kindMap:
			def = appendInt(append(appendInt(append(def, 4, 2), t.key), 1), t.elem)
		default:
			def = append(def, opaque)
		}
		def = append(def, 0, 0)
		if i > 0 {
			empty = appendUint(empty, uint64(len(def)))
		}
		empty = append(empty, def...)
		for _, part := range []int64{t.key, t.elem} {
			if part >= gobUser && !slices.Contains(ids, part) {
				ids = append(ids, part)
			}
		}
	}
	value := g.empty(id, maxShape)
	if value == nil {
		return nil, whole
	}
	if g.types[id].kind != kindStruct {
		value = append([]byte{0}, value...)
	}
	value = append(appendUint(appendInt(nil, id), uint64(len(value))), value...)
	return append(appendUint(empty, uint64(len(value))), value...), whole
}

// empty returns an empty value of a type of shape's; nil: it is too large. An array's has
// elements, and so on, but at most levels.
func (g *guard) empty(id int64, levels int) []byte {
	t := g.types[id]
	if t == nil || t.kind != kindArray {
		return []byte{0}
	}
	if levels == 0 {
		return nil
	}
	elem := g.empty(t.elem, levels-1)
	if elem == nil || t.size > uint64(maxEmpty/len(elem)) {
		return nil
	}
	return append(appendUint(nil, t.size), bytes.Repeat(elem, int(t.size))...)
}

// registered returns the type that gob knows by a name, if a value of a shape fits it; nil: there
// is none. gob tells nobody, but decodes a value of that type for who sends one.
func registered(name, shape []byte) reflect.Type {
	if shape == nil {
		return nil
	}
	b := append(appendUint([]byte{gobInterface << 1, 0}, uint64(len(name))), name...)
	b = append(b, shape...)
	var v any
	if gob.NewDecoder(bytes.NewReader(append(appendUint(nil, uint64(len(b))), b...))).Decode(&v) != nil {
		return nil
	}
	return reflect.TypeOf(v)
}
