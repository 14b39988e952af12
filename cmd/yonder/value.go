package main

import (
	"bytes"
	"cmp"
	"encoding"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/big"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// parse returns the value of type t that a text on the command line stands for.
func parse(t reflect.Type, text string) (reflect.Value, error) {
	v := reflect.New(t).Elem()
	x, err := decode(text)
	if err != nil {
		x = text // a bare word
	}
	base := t
	for base.Kind() == reflect.Pointer && x != nil {
		base = base.Elem()
	}
	_, quoted := x.(string)
	switch {
	case base.Kind() == reflect.String && !quoted:
		x = text // a name may look like a number
	case base == bytesType && (err != nil || !quoted):
		return v, setBytes(v, []byte(text))
	}
	return v, assign(v, x)
}

// setBytes sets a []byte, or what points to one.
func setBytes(v reflect.Value, b []byte) error {
	for v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	v.SetBytes(b)
	return nil
}

// decode decodes JSON without a loss of digits.
func decode(text string) (any, error) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var x any
	if err := d.Decode(&x); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("more than one JSON value")
	}
	return x, nil
}

// misfit is a value that is not of the type it should be of.
type misfit struct {
	path string // from the argument on: .Tags[3]
	want string
	have string
}

func (e *misfit) Error() string {
	at := ""
	if e.path != "" {
		at = strings.TrimPrefix(e.path, ".") + ": "
	}
	return fmt.Sprintf("%swant %s; have %s", at, e.want, e.have)
}

// within adds a step before the path of a misfit.
func within(step string, err error) error {
	if e, ok := err.(*misfit); ok {
		e.path = step + e.path
	}
	return err
}

// assign sets v to what the JSON value x says.
func assign(v reflect.Value, x any) error {
	bad := &misfit{want: wants(v.Type()), have: brief(x)}
	number, isNumber := x.(json.Number)
	text, isText := x.(string)
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok && v.Kind() != reflect.Pointer {
		if isNumber {
			text = number.String()
		}
		if !isText && !isNumber || u.UnmarshalText([]byte(text)) != nil {
			return bad
		}
		return nil
	}
	switch v.Kind() {
	case reflect.Interface:
		if p := plain(x); p != nil {
			v.Set(reflect.ValueOf(p))
		}
		return nil
	case reflect.Pointer:
		if x == nil {
			return nil
		}
		v.Set(reflect.New(v.Type().Elem()))
		return assign(v.Elem(), x)
	case reflect.Bool:
		b, ok := x.(bool)
		if !ok {
			return bad
		}
		v.SetBool(b)
		return nil
	case reflect.String:
		if !isText {
			return bad
		}
		v.SetString(text)
		return nil
	case reflect.Float32, reflect.Float64:
		f, err := strconv.ParseFloat(cmp.Or(number.String(), text), v.Type().Bits())
		if err != nil || isText && !math.IsNaN(f) && !math.IsInf(f, 0) || !isText && !isNumber {
			return bad
		}
		v.SetFloat(f)
		return nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		i, err := strconv.ParseInt(number.String(), 10, v.Type().Bits())
		if v.Type() == durationType && isText {
			var d time.Duration
			d, err = time.ParseDuration(text)
			i = int64(d)
		}
		if err != nil {
			return bad
		}
		v.SetInt(i)
		return nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		u, err := strconv.ParseUint(number.String(), 10, v.Type().Bits())
		if err != nil {
			return bad
		}
		v.SetUint(u)
		return nil
	case reflect.Slice, reflect.Array:
		return assignList(v, x, bad)
	case reflect.Map:
		return assignMap(v, x, bad)
	case reflect.Struct:
		return assignStruct(v, x, bad)
	}
	return bad
}

func assignList(v reflect.Value, x any, bad error) error {
	if text, ok := x.(string); ok && v.Type() == bytesType {
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return bad
		}
		v.SetBytes(b)
		return nil
	}
	list, ok := x.([]any)
	switch {
	case v.Kind() == reflect.Slice && x == nil:
		return nil
	case !ok || v.Kind() == reflect.Array && len(list) != v.Len():
		return bad
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), len(list), len(list)))
	}
	for i, elem := range list {
		if err := assign(v.Index(i), elem); err != nil {
			return within(fmt.Sprintf("[%d]", i), err)
		}
	}
	return nil
}

func assignMap(v reflect.Value, x any, bad error) error {
	object, ok := x.(map[string]any)
	if x == nil {
		return nil
	} else if !ok {
		return bad
	}
	v.Set(reflect.MakeMap(v.Type()))
	for name, elem := range object {
		step := fmt.Sprintf("[%q]", name)
		key, err := reflect.ValueOf(name), error(nil)
		if v.Type().Key() != key.Type() && v.Type().Key() != anyType {
			key, err = parse(v.Type().Key(), name)
		}
		value := reflect.New(v.Type().Elem()).Elem()
		if err == nil {
			err = assign(value, elem)
		}
		if err != nil {
			return within(step, err)
		}
		v.SetMapIndex(key, value)
	}
	return nil
}

func assignStruct(v reflect.Value, x any, bad error) error {
	object, ok := x.(map[string]any)
	if !ok {
		return bad
	}
	t := v.Type()
	var names []string
	for f := range t.Fields() {
		names = append(names, fieldName(f))
	}
	for _, name := range slices.Sorted(maps.Keys(object)) {
		i := slices.Index(names, name)
		if i < 0 {
			i = slices.IndexFunc(names, func(n string) bool { return strings.EqualFold(n, name) })
		}
		if i < 0 {
			return &misfit{want: "the fields " + strings.Join(names, ", "), have: "a field " + strconv.Quote(name)}
		}
		if err := assign(v.Field(i), object[name]); err != nil {
			return within("."+names[i], err)
		}
	}
	return nil
}

// plain returns a JSON value whose numbers are as small a type as holds them.
func plain(x any) any {
	switch x := x.(type) {
	case json.Number:
		if i, err := x.Int64(); err == nil {
			return i
		}
		if i, ok := new(big.Int).SetString(x.String(), 10); ok {
			return i
		}
		f, err := x.Float64()
		if err != nil {
			return x.String()
		}
		return f
	case []any:
		for i := range x {
			x[i] = plain(x[i])
		}
	case map[string]any:
		for k := range x {
			x[k] = plain(x[k])
		}
	}
	return x
}

// brief shows a JSON value in an error.
func brief(x any) string {
	const most = 60
	text := jsonText(x)
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	return text
}

// jsonText returns a value as JSON in a line, by the rules of encoding/json. Beyond
// those, NaN and the infinities are strings, and a map may have any keys.
func jsonText(v any) string { return string(appendJSON(nil, reflect.ValueOf(v))) }

func appendJSON(b []byte, v reflect.Value) []byte {
	if !v.IsValid() {
		return append(b, "null"...)
	}
	switch v.Kind() {
	case reflect.Interface, reflect.Pointer:
		if v.IsNil() {
			return append(b, "null"...)
		}
		return appendJSON(b, v.Elem())
	case reflect.Chan, reflect.Func:
		return append(b, "null"...)
	}
	if text, ok := marshal(v); ok {
		return append(b, text...)
	}
	switch v.Kind() {
	case reflect.Float32, reflect.Float64:
		return strconv.AppendQuote(b, strconv.FormatFloat(v.Float(), 'g', -1, 64))
	case reflect.Slice, reflect.Array:
		b = append(b, '[')
		for i := range v.Len() {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendJSON(b, v.Index(i))
		}
		return append(b, ']')
	case reflect.Map:
		return appendMap(b, v)
	case reflect.Struct:
		b = append(b, '{')
		for f, fv := range v.Fields() {
			if !f.IsExported() {
				continue
			}
			if b[len(b)-1] != '{' {
				b = append(b, ',')
			}
			b = append(appendJSON(b, reflect.ValueOf(fieldName(f))), ':')
			b = appendJSON(b, fv)
		}
		return append(b, '}')
	}
	return strconv.AppendQuote(b, fmt.Sprint(v))
}

// marshal is json.Marshal for what that can do by itself: scalars, bytes, nil, and types
// that encode themselves.
func marshal(v reflect.Value) ([]byte, bool) {
	p := reflect.New(v.Type()) // the methods may be the pointer's
	p.Elem().Set(v)
	_, asJSON := p.Interface().(json.Marshaler)
	_, asText := p.Interface().(encoding.TextMarshaler)
	if !asJSON && !asText {
		switch v.Kind() {
		case reflect.Struct, reflect.Array:
			return nil, false
		case reflect.Slice, reflect.Map:
			if !v.IsNil() && v.Type().Elem().Kind() != reflect.Uint8 {
				return nil, false
			}
			if v.Kind() == reflect.Map && !v.IsNil() {
				return nil, false
			}
		}
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if enc.Encode(p.Interface()) != nil {
		return nil, false
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), true
}

func appendMap(b []byte, v reflect.Value) []byte {
	type entry struct {
		key   string
		value reflect.Value
	}
	var entries []entry
	for it := v.MapRange(); it.Next(); {
		key := it.Key()
		for key.Kind() == reflect.Interface && !key.IsNil() {
			key = key.Elem()
		}
		text := string(appendJSON(nil, key))
		if s, err := decode(text); err == nil {
			if s, ok := s.(string); ok {
				text = s
			}
		}
		entries = append(entries, entry{text, it.Value()})
	}
	slices.SortFunc(entries, func(x, y entry) int { return cmp.Compare(x.key, y.key) })
	b = append(b, '{')
	for i, e := range entries {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendJSON(b, reflect.ValueOf(e.key)), ':')
		b = appendJSON(b, e.value)
	}
	return append(b, '}')
}
