package fn

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Explain says why a codec cannot encode v and where: field Job.Items[3].Count: uintptr cannot cross
// a connection; use uint64. It is for after the codec refused a value, whose own message names no
// field, and costs more than encoding. It returns nil if it finds nothing, and does not look into
// types that encode themselves.
func Explain(v reflect.Value) error { return explain(v, false) }

// ExplainText is Explain for codecs that cannot encode NaN, infinities and strings that are not
// UTF-8 either.
func ExplainText(v reflect.Value) error { return explain(v, true) }

func explain(v reflect.Value, text bool) error {
	if !v.IsValid() {
		return nil
	}
	e := explainer{text: text, seen: map[visit]bool{}, types: map[reflect.Type]bool{}}
	if err := e.value(v, 0); err != nil {
		return e.error(v.Type(), err)
	}
	return nil
}

type explainer struct {
	path
	text  bool                  // the codec writes text
	seen  map[visit]bool        // pointers, slices and maps; true while inside
	types map[reflect.Type]bool // of which a zero value was looked at
}

func (e *explainer) value(v reflect.Value, depth int) error {
	t := v.Type()
	if depth > maxLevels {
		return fmt.Errorf("nested deeper than %d levels", maxLevels)
	}
	if never(t) {
		return unsuitable(t)
	}
	if marshaler(t) != "" {
		return nil
	}
	switch v.Kind() {
	case reflect.Interface:
		if v.IsNil() {
			return nil
		}
		if err := e.value(v.Elem(), depth+1); err != nil {
			return err
		}
		if t.NumMethod() > 0 {
			return unsuitable(t)
		}
	case reflect.Struct:
		for _, f := range fieldsOf(t) {
			fv := f.value(v)
			if !fv.IsValid() {
				fv = reflect.Zero(f.typ)
			}
			if err := e.value(fv, depth+1); err != nil {
				return e.at(err, fieldOf(f.goName))
			}
		}
	case reflect.String:
		if e.text && !utf8.ValidString(v.String()) {
			return errors.New("a string that is not UTF-8 cannot be encoded")
		}
	case reflect.Float32, reflect.Float64:
		if f := v.Float(); e.text && (math.IsNaN(f) || math.IsInf(f, 0)) {
			return fmt.Errorf("%v cannot be encoded", f)
		}
	case reflect.Array:
		return e.elems(v, depth)
	case reflect.Slice, reflect.Map, reflect.Pointer:
		key := visit{p: v.UnsafePointer(), t: t}
		if v.Kind() != reflect.Pointer {
			key.len = v.Len()
		}
		if key.p == nil || v.Kind() != reflect.Pointer && key.len == 0 {
			return e.zero(t, depth)
		}
		if inside, ok := e.seen[key]; inside {
			return cyclic(v.Kind())
		} else if ok {
			return nil
		}
		e.seen[key] = true
		defer func() { e.seen[key] = false }()
		return e.elems(v, depth)
	}
	return nil
}

// elems looks at what v, which is not empty, holds.
func (e *explainer) elems(v reflect.Value, depth int) error {
	switch v.Kind() {
	case reflect.Pointer:
		return e.value(v.Elem(), depth)
	case reflect.Map:
		for entries := v.MapRange(); entries.Next(); {
			err := e.value(entries.Key(), depth+1)
			if err == nil {
				err = e.value(entries.Value(), depth+1)
			}
			if err != nil {
				return e.at(err, keyOf(entries.Key()))
			}
		}
		return nil
	}
	if elem := v.Type().Elem(); isScalar(elem.Kind()) && !never(elem) && !(e.text && elem.Kind() >= reflect.Float32) {
		return nil
	}
	for i := range v.Len() {
		if err := e.value(v.Index(i), depth+1); err != nil {
			return e.at(err, indexOf(i))
		}
	}
	return nil
}

// zero looks at what a t that is empty could hold: a codec refuses the type.
func (e *explainer) zero(t reflect.Type, depth int) error {
	if e.types[t] {
		return nil
	}
	e.types[t] = true
	if t.Kind() == reflect.Map {
		if err := e.value(reflect.Zero(t.Key()), depth+1); err != nil {
			return e.at(err, "[key]")
		}
	}
	err := e.value(reflect.Zero(t.Elem()), depth+1)
	if err != nil && t.Kind() != reflect.Pointer {
		return e.at(err, "[]")
	}
	return err
}

// path collects where in a value an error is, from the inside out.
type path struct{ steps []string }

func (p *path) at(err error, step string) error {
	if err != errUnnoted {
		p.steps = append(p.steps, step)
	}
	return err
}

// error returns err with the place it was found at in a value of type t.
func (p *path) error(t reflect.Type, err error) error {
	if len(p.steps) == 0 {
		return err
	}
	for t.Kind() == reflect.Pointer && t.Name() == "" {
		t = t.Elem()
	}
	word := "field "
	if !slices.ContainsFunc(p.steps, func(s string) bool { return s[0] == '.' }) {
		word = "element "
	}
	root := ""
	if t.Name() != "" {
		root = shortName(nameOf(t))
	}
	return errors.New(word + joinPath(root, p.steps) + ": " + err.Error())
}

// shortName returns the name of a type without its package.
func shortName(name string) string { return name[strings.IndexByte(name, '.')+1:] }

func fieldOf(name string) string { return "." + name }
func indexOf(i int) string       { return "[" + strconv.Itoa(i) + "]" }

func keyOf(v reflect.Value) string {
	for v.Kind() == reflect.Interface && !v.IsNil() {
		v = v.Elem()
	}
	switch {
	case v.Kind() == reflect.String:
		return "[" + strconv.Quote(v.String()) + "]"
	case isScalar(v.Kind()):
		return fmt.Sprintf("[%v]", v)
	}
	return "[" + nameOf(v.Type()) + "]"
}

// joinPath returns the path from root through steps, innermost first, cut in the middle if long.
func joinPath(root string, steps []string) string {
	const most = 200
	slices.Reverse(steps)
	text := strings.TrimPrefix(root+strings.Join(steps, ""), ".")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most/2]+"..."+text[len(text)-most/2:], "")
	}
	return text
}
