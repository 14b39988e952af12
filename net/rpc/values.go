package rpc

import (
	"encoding"
	"encoding/gob"
	"fmt"
	"go/token"
	"reflect"
	"slices"
	"unicode"
	"unicode/utf8"
)

// The wire has one argument and one reply a call. Where a function of package yonder has
// several, they are the fields of a struct, by number or, of arguments, by name.

// numbered returns a struct with the fields prefix1, prefix2 and so on.
func numbered(prefix string, types []reflect.Type) reflect.Type {
	fields := make([]reflect.StructField, len(types))
	for i, t := range types {
		fields[i] = reflect.StructField{Name: fmt.Sprint(prefix, i+1), Type: t}
	}
	return reflect.StructOf(fields)
}

// argStruct returns a struct that several arguments are decoded into, and where each is.
func argStruct(types []reflect.Type, names []string) (reflect.Type, []argField) {
	var fields []reflect.StructField
	places := make([]argField, len(types))
	taken := func(name string) bool {
		return slices.ContainsFunc(fields, func(f reflect.StructField) bool { return f.Name == name })
	}
	for i, t := range types {
		places[i] = argField{number: i, name: -1}
		fields = append(fields, reflect.StructField{Name: fmt.Sprint("Arg", i+1), Type: t})
	}
	for i, name := range names {
		name = exported(name)
		if !token.IsIdentifier(name) || !token.IsExported(name) || taken(name) {
			continue // it goes by its number only
		}
		places[i].name = len(fields)
		fields = append(fields, reflect.StructField{Name: name, Type: types[i]})
	}
	return reflect.StructOf(fields), places
}

// exported returns a name with its first letter in upper case.
func exported(name string) string {
	first, size := utf8.DecodeRuneInString(name)
	return string(unicode.ToUpper(first)) + name[size:]
}

// together returns a struct with values as its fields.
func together(t reflect.Type, values []any) any {
	s := reflect.New(t)
	for i, v := range values {
		if v != nil {
			s.Elem().Field(i).Set(reflect.ValueOf(v))
		}
	}
	return s.Interface()
}

// boxed returns a value so that gob encodes it as one of type t, which matters if that is an
// interface.
func boxed(v any, t reflect.Type) any {
	if t.Kind() != reflect.Interface || v == nil {
		return v
	}
	p := reflect.New(t)
	p.Elem().Set(reflect.ValueOf(v))
	return p.Interface()
}

// gob recurses into a value, and one that contains itself would end the process.

// maxLevels is how deep a value may be nested, as gob does it: a pointer is no level of its
// own, so a linked list has one a node.
const maxLevels = 10_000

// mayNest reports whether values of a type may be nested without end, as far as gob encodes
// them.
func mayNest(t reflect.Type) bool { return within(t, nil) }

func within(t reflect.Type, outer []reflect.Type) bool {
	if slices.Contains(outer, t) || t.Kind() == reflect.Interface {
		return true
	}
	if encodesItself(t) {
		return false
	}
	outer = append(outer[:len(outer):len(outer)], t)
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array:
		return within(t.Elem(), outer)
	case reflect.Map:
		return within(t.Key(), outer) || within(t.Elem(), outer)
	case reflect.Struct:
		for f := range t.Fields() {
			if f.IsExported() && within(f.Type, outer) {
				return true
			}
		}
	}
	return false
}

var (
	gobEncoderType      = reflect.TypeFor[gob.GobEncoder]()
	binaryMarshalerType = reflect.TypeFor[encoding.BinaryMarshaler]()
)

func encodesItself(t reflect.Type) bool {
	if t.Implements(gobEncoderType) || t.Implements(binaryMarshalerType) {
		return true
	}
	p := reflect.PointerTo(t)
	return p.Implements(gobEncoderType) || p.Implements(binaryMarshalerType)
}

// nesting returns an error if a value is nested deeper than levels. What it looks at gob will
// encode, once for each way there, so it need not remember where it was.
func nesting(v reflect.Value, levels int) error {
	if !v.IsValid() || encodesItself(v.Type()) {
		return nil
	}
	if levels < 0 {
		return fmt.Errorf("a value that is nested deeper than %d levels, or contains itself, cannot be encoded", maxLevels)
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.Type().Elem().Kind() == reflect.Pointer { // of a type P *P there is no end
			levels--
		}
		return nesting(v.Elem(), levels)
	case reflect.Interface:
		return nesting(v.Elem(), levels-1)
	case reflect.Slice, reflect.Array:
		if !mayHold(v.Type().Elem()) {
			return nil
		}
		for i := range v.Len() {
			if err := nesting(v.Index(i), levels-1); err != nil {
				return err
			}
		}
	case reflect.Map:
		for key, elem := range v.Seq2() {
			if err := nesting(key, levels-1); err != nil {
				return err
			}
			if err := nesting(elem, levels-1); err != nil {
				return err
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); !f.IsExported() || !mayHold(f.Type) {
				continue
			}
			if err := nesting(v.Field(i), levels-1); err != nil {
				return err
			}
		}
	}
	return nil
}

// mayHold reports whether a value of a type may hold others.
func mayHold(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Pointer, reflect.Interface, reflect.Slice, reflect.Array, reflect.Map, reflect.Struct:
		return true
	}
	return false
}

// sendable refuses what gob has no encoding for on its own.
func sendable(v any, t reflect.Type) error {
	r := reflect.ValueOf(v)
	for r.Kind() == reflect.Pointer {
		if r.IsNil() {
			return fmt.Errorf("gob cannot encode a nil %v", t)
		}
		r = r.Elem()
	}
	return nil
}
