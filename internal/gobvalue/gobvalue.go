// Package gobvalue readies values for encoding/gob, which cannot encode all that it can decode.
//
// Where a type's GobEncode or MarshalBinary is its pointer's, as big.Int's and url.URL's are, gob
// wants a value of it to be addressable. It is in what a pointer points to, and in a slice, but
// not as an argument of its own, and not in an interface. On the wire it is the same.
package gobvalue

import (
	"encoding"
	"encoding/gob"
	"fmt"
	"reflect"
	"strings"
	"sync"
)

// Of returns what gob is to encode in place of v: v itself, a pointer to a copy of it, or a copy
// in which the values in interfaces are such pointers. It does not change v. What maps hold
// otherwise than in interfaces stays as it is: gob cannot encode a map[string]big.Int.
//
// A value that contains itself would keep Of busy without end, as it would gob.
func Of(v any) any {
	t := reflect.TypeOf(v)
	if t == nil || simple(t.Kind()) {
		return v
	}
	p := planOf(t)
	if p == 0 {
		return v
	}
	r := reflect.ValueOf(v)
	if p&boxes != 0 {
		r, _ = unboxed(r)
	}
	if p&address != 0 {
		r = pointer(r)
	}
	return r.Interface()
}

// Explain returns an error of gob's, with what to do about it if it is of a value in a map.
func Explain(err error) error {
	if err != nil && strings.HasPrefix(err.Error(), "gob: unaddressable value of type ") {
		return fmt.Errorf("%w in a map, where gob cannot reach its method; make it a map of pointers", err)
	}
	return err
}

// A plan is what values of a type need.
type plan uint8

const (
	address plan = 1 << iota // they must be addressable
	boxes                    // they may have interfaces in them
)

var plans sync.Map // of plan, by reflect.Type

func planOf(t reflect.Type) plan {
	if p, ok := plans.Load(t); ok {
		return p.(plan)
	}
	var p plan
	if wantsAddress(t) {
		p |= address
	}
	if hasBoxes(t, make(map[reflect.Type]bool)) {
		p |= boxes
	}
	plans.Store(t, p)
	return p
}

func simple(k reflect.Kind) bool {
	return k <= reflect.Complex128 || k == reflect.String || k > reflect.Struct
}

// Interfaces that types encode themselves by, in gob's order.
var (
	gobEncoder      = reflect.TypeFor[gob.GobEncoder]()
	binaryMarshaler = reflect.TypeFor[encoding.BinaryMarshaler]()
)

// encodesItself reports whether gob leaves values of a type to a method of theirs, and whether
// that is the pointer's.
func encodesItself(t reflect.Type) (itself, byPointer bool) {
	for _, i := range []reflect.Type{gobEncoder, binaryMarshaler} {
		if t.Implements(i) {
			return true, false
		}
		if t.Kind() != reflect.Pointer && reflect.PointerTo(t).Implements(i) {
			return true, true
		}
	}
	return false, false
}

// wantsAddress reports whether a value of a type has to be addressable.
func wantsAddress(t reflect.Type) bool {
	if itself, byPointer := encodesItself(t); itself {
		return byPointer
	}
	switch t.Kind() {
	case reflect.Array:
		return wantsAddress(t.Elem())
	case reflect.Struct:
		for f := range t.Fields() {
			if f.IsExported() && wantsAddress(f.Type) {
				return true
			}
		}
	}
	return false
}

// hasBoxes reports whether values of a type may have interfaces in them that gob encodes.
func hasBoxes(t reflect.Type, seen map[reflect.Type]bool) bool {
	if seen[t] {
		return false
	}
	seen[t] = true
	if t.Kind() == reflect.Interface {
		return true
	}
	if itself, _ := encodesItself(t); itself {
		return false
	}
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array:
		return hasBoxes(t.Elem(), seen)
	case reflect.Map:
		return hasBoxes(t.Key(), seen) || hasBoxes(t.Elem(), seen)
	case reflect.Struct:
		for f := range t.Fields() {
			if f.IsExported() && hasBoxes(f.Type, seen) {
				return true
			}
		}
	}
	return false
}

// pointer returns a pointer to a copy of v.
func pointer(v reflect.Value) reflect.Value {
	p := reflect.New(v.Type())
	p.Elem().Set(v)
	return p
}

// unboxed returns v, or a copy in which the values in interfaces are pointers where gob wants
// that, and reports whether it is a copy.
func unboxed(v reflect.Value) (_ reflect.Value, changed bool) {
	if !v.IsValid() || simple(v.Kind()) || v.Kind() != reflect.Interface && planOf(v.Type())&boxes == 0 {
		return v, false
	}
	// edit returns a copy of v, for the first part that changes.
	edit := func() reflect.Value {
		if !changed {
			changed = true
			v = pointer(v).Elem()
		}
		return v
	}
	switch v.Kind() {
	case reflect.Interface:
		if v.IsNil() {
			return v, false
		}
		inner, replaced := unboxed(v.Elem())
		if !simple(inner.Kind()) && planOf(inner.Type())&address != 0 {
			if p := pointer(inner); p.Type().Implements(v.Type()) {
				inner, replaced = p, true
			}
		}
		if replaced {
			edit().Set(inner)
		}
	case reflect.Pointer:
		if inner, replaced := unboxed(v.Elem()); replaced {
			p := reflect.New(v.Type().Elem())
			p.Elem().Set(inner)
			edit().Set(p.Convert(v.Type()))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if !v.Type().Field(i).IsExported() {
				continue
			}
			if inner, replaced := unboxed(v.Field(i)); replaced {
				edit().Field(i).Set(inner)
			}
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			inner, replaced := unboxed(v.Index(i))
			if replaced && v.Kind() == reflect.Slice && !changed {
				changed = true
				s := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
				reflect.Copy(s, v)
				v = s
			}
			if replaced {
				edit().Index(i).Set(inner)
			}
		}
	case reflect.Map:
		m := reflect.MakeMapWithSize(v.Type(), v.Len())
		for key, elem := range v.Seq2() {
			k, first := unboxed(key)
			e, second := unboxed(elem)
			changed = changed || first || second
			m.SetMapIndex(k, e)
		}
		if changed {
			v = m
		}
	}
	return v, changed
}
