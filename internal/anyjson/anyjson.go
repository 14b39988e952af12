// Package anyjson has what encoding/json decodes without a type, behind an interface, be the numbers
// that there are in JSON: a float64, which encoding/json makes of all, would lose what an int64 has
// beyond 53 bits. Decode with [json.Decoder.UseNumber] first.
package anyjson

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"reflect"
	"strconv"
	"strings"
	"sync"
)

// Numbers replaces each json.Number behind an interface in v, which can be set or is a pointer, by the
// number it is: an int64, a *big.Int if it is larger than that, or a float64. An integer of more than
// maxDigits is an error: the time that a *big.Int takes grows faster than its length.
func Numbers(v reflect.Value, maxDigits int) error {
	kind := v.Kind()
	if !Holds(v.Type()) || !v.CanSet() && kind != reflect.Pointer && kind != reflect.Struct {
		return nil
	}
	switch kind {
	case reflect.Interface:
		if v.IsNil() {
			return nil
		}
		n, err := plain(v.Elem().Interface(), maxDigits)
		if err == nil {
			v.Set(reflect.ValueOf(n))
		}
		return err
	case reflect.Pointer:
		if !v.IsNil() {
			return Numbers(v.Elem(), maxDigits)
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			if err := Numbers(v.Index(i), maxDigits); err != nil {
				return err
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Field(i)
			if !f.CanSet() && !v.Type().Field(i).Anonymous { // it is not exported
				continue
			}
			if err := Numbers(f, maxDigits); err != nil {
				return err
			}
		}
	case reflect.Map:
		for entries := v.MapRange(); entries.Next(); {
			e := reflect.New(v.Type().Elem()).Elem()
			e.Set(entries.Value())
			if err := Numbers(e, maxDigits); err != nil {
				return err
			}
			v.SetMapIndex(entries.Key(), e)
		}
	}
	return nil
}

// plain is Numbers for what encoding/json makes of a value without a type.
func plain(v any, maxDigits int) (_ any, err error) {
	switch v := v.(type) {
	case json.Number:
		return number(string(v), maxDigits)
	case []any:
		for i, e := range v {
			if v[i], err = plain(e, maxDigits); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for k, e := range v {
			if v[k], err = plain(e, maxDigits); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}

func number(text string, maxDigits int) (any, error) {
	if text != "-0" && !strings.ContainsAny(text, ".eE") { // -0 was written as a float64
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return n, nil
		}
		if len(text) > maxDigits {
			return nil, fmt.Errorf("a number of more than %d digits", maxDigits)
		}
		if n, ok := new(big.Int).SetString(text, 10); ok {
			return n, nil
		}
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsInf(f, 0) {
		return nil, errors.New("a number that is too large for a float64")
	}
	return f, nil
}

// holders has what [Holds] has found out, bool by reflect.Type. The types of a program are few.
var holders sync.Map

// Holds reports whether encoding/json may put a number behind an interface in a value of type t.
func Holds(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Interface, reflect.Struct, reflect.Map, reflect.Slice, reflect.Array, reflect.Pointer:
	default:
		return false
	}
	if known, ok := holders.Load(t); ok {
		return known.(bool)
	}
	holds := find(t, make(map[reflect.Type]bool))
	holders.Store(t, holds)
	return holds
}

var unmarshaler = reflect.TypeFor[json.Unmarshaler]()

func find(t reflect.Type, seen map[reflect.Type]bool) bool {
	if seen[t] || t.Kind() != reflect.Pointer && reflect.PointerTo(t).Implements(unmarshaler) {
		return false
	}
	seen[t] = true
	switch t.Kind() {
	case reflect.Interface:
		return t.NumMethod() == 0
	case reflect.Map, reflect.Slice, reflect.Array, reflect.Pointer:
		return find(t.Elem(), seen)
	case reflect.Struct:
		for i := range t.NumField() {
			if f := t.Field(i); (f.IsExported() || f.Anonymous) && find(f.Type, seen) {
				return true
			}
		}
	}
	return false
}
