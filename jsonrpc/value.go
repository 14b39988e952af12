package jsonrpc

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"reflect"
	"strconv"
	"strings"
	"sync"

	"github.com/yonder-rpc/yonder/internal/fn"
)

// Params are a call's parameters as they are written: an array, an object, or nothing.
// A procedure whose only argument, besides the context, is a Params is given them as
// they came, and a caller whose only argument is one sends it as it is:
//
//	srv.Register("anything", func(ctx context.Context, p jsonrpc.Params) (any, error) { ... })
//	yonder.Invoke[int](ctx, client, "subtract", jsonrpc.Params(`{"subtrahend": 23, "minuend": 42}`))
//
// Over other protocols it is any value, as a json.RawMessage is.
type Params []byte

// MarshalJSON returns p, or null if it is empty.
func (p Params) MarshalJSON() ([]byte, error) {
	if len(p) == 0 {
		return []byte("null"), nil
	}
	return p, nil
}

// UnmarshalJSON copies text to p.
func (p *Params) UnmarshalJSON(text []byte) error {
	*p = append((*p)[:0], text...)
	return nil
}

// An outBuffer is where messages are written.
type outBuffer struct {
	bytes.Buffer
	json *json.Encoder // writes to the buffer
}

var buffers = sync.Pool{New: func() any {
	b := new(outBuffer)
	b.json = json.NewEncoder(&b.Buffer)
	b.json.SetEscapeHTML(false)
	return b
}}

func newBuffer() *outBuffer { return buffers.Get().(*outBuffer) }

// release lets the buffer be used again. A large one is left to the collector.
func (b *outBuffer) release() {
	if b.Cap() <= 64<<10 {
		b.Reset()
		buffers.Put(b)
	}
}

// value appends a value as JSON.
func (b *outBuffer) value(v any) error {
	switch v := v.(type) {
	case nil:
		b.WriteString("null")
		return nil
	case bool:
		b.Write(strconv.AppendBool(b.AvailableBuffer(), v))
		return nil
	case int:
		b.Write(strconv.AppendInt(b.AvailableBuffer(), int64(v), 10))
		return nil
	case int64:
		b.Write(strconv.AppendInt(b.AvailableBuffer(), v, 10))
		return nil
	case string:
		if plain(v) {
			b.WriteByte('"')
			b.WriteString(v)
			b.WriteByte('"')
			return nil
		}
	}
	given := v
	value := reflect.ValueOf(v)
	start := b.Len()
	switch value.Kind() {
	case reflect.Struct, reflect.Slice, reflect.Pointer:
		if p := infoOf(value.Type()).plan; p != nil && p.writes {
			if p.write(b, value, 0) {
				return nil
			}
			b.Truncate(start)
		}
	}
	switch value.Kind() {
	case reflect.Struct, reflect.Array: // methods of the pointer encode, too
		p := reflect.New(value.Type())
		p.Elem().Set(value)
		v = p.Interface()
	}
	err := b.json.Encode(v)
	if err != nil || bytes.Contains(b.Bytes()[start:], replaced) {
		if why := fn.ExplainText(reflect.ValueOf(given)); why != nil {
			err = why
		}
	}
	if err != nil {
		b.Truncate(start)
		return err
	}
	b.Truncate(b.Len() - 1) // the line's end
	return nil
}

// replaced is what encoding/json writes for bytes that are not UTF-8.
var replaced = []byte(`\ufffd`)

// plain reports whether a string is written as it is.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x7f {
			return false
		}
	}
	return true
}

// decode reads a value, whose text is known to be JSON, into what a pointer points to.
func decode(text []byte, into any) error {
	switch p := into.(type) {
	case *string:
		if text[0] == '"' && bytes.IndexByte(text, '\\') < 0 {
			*p = string(text[1 : len(text)-1])
			return nil
		}
	case *int:
		if n, err := strconv.Atoi(string(text)); err == nil {
			*p = n
			return nil
		}
	case *Params:
		*p = Params(text)
		return nil
	case *json.RawMessage:
		*p = json.RawMessage(text)
		return nil
	}
	v := reflect.ValueOf(into).Elem()
	switch v.Kind() {
	case reflect.Struct, reflect.Slice, reflect.Pointer:
		if p := infoOf(v.Type()).plan; p != nil && v.IsZero() && p.decode(text, v) {
			return nil
		}
	}
	if !holdsAny(v.Type()) {
		return json.Unmarshal(text, into)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		return err
	}
	return numbers(v)
}

// holdsAny reports whether values of a type may hold a number behind an interface.
func holdsAny(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Interface:
		return true
	case reflect.Struct, reflect.Map, reflect.Slice, reflect.Array, reflect.Pointer:
		return infoOf(t).any
	}
	return false
}

var (
	unmarshaler     = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

func findAny(t reflect.Type, seen map[reflect.Type]bool) bool {
	if seen[t] || reflect.PointerTo(t).Implements(unmarshaler) {
		return false
	}
	seen[t] = true
	switch t.Kind() {
	case reflect.Interface:
		return true
	case reflect.Map, reflect.Slice, reflect.Array, reflect.Pointer:
		return findAny(t.Elem(), seen)
	case reflect.Struct:
		for i := range t.NumField() {
			if f := t.Field(i); (f.IsExported() || f.Anonymous) && findAny(f.Type, seen) {
				return true
			}
		}
	}
	return false
}

// numbers replaces each json.Number behind an interface by the number it is: an int64,
// a *big.Int if it is larger than that, or a float64. A float64 would lose what an
// int64 has beyond 53 bits.
func numbers(v reflect.Value) error {
	switch v.Kind() {
	case reflect.Interface:
		if v.IsNil() {
			return nil
		}
		switch e := v.Elem().Interface().(type) {
		case json.Number:
			n, err := number(string(e))
			if err == nil && v.CanSet() {
				v.Set(reflect.ValueOf(n))
			}
			return err
		case []any:
			return plainNumbers(e)
		case map[string]any:
			return plainNumbers(e)
		}
	case reflect.Pointer:
		if !v.IsNil() && holdsAny(v.Type()) {
			return numbers(v.Elem())
		}
	case reflect.Slice, reflect.Array:
		if !holdsAny(v.Type()) {
			return nil
		}
		for i := range v.Len() {
			if err := numbers(v.Index(i)); err != nil {
				return err
			}
		}
	case reflect.Struct:
		if !holdsAny(v.Type()) {
			return nil
		}
		for i := range v.NumField() {
			if f := v.Field(i); f.CanSet() || v.Type().Field(i).Anonymous {
				if err := numbers(f); err != nil {
					return err
				}
			}
		}
	case reflect.Map:
		if !holdsAny(v.Type()) {
			return nil
		}
		for entries := v.MapRange(); entries.Next(); {
			e := reflect.New(v.Type().Elem()).Elem()
			e.Set(entries.Value())
			if err := numbers(e); err != nil {
				return err
			}
			v.SetMapIndex(entries.Key(), e)
		}
	}
	return nil
}

// plainNumbers is numbers for what encoding/json makes of arrays and objects.
func plainNumbers(v any) (err error) {
	one := func(e any) any {
		switch e := e.(type) {
		case json.Number:
			n, why := number(string(e))
			if why != nil {
				err = why
			}
			return n
		case []any, map[string]any:
			if why := plainNumbers(e); why != nil {
				err = why
			}
		}
		return e
	}
	switch v := v.(type) {
	case []any:
		for i, e := range v {
			v[i] = one(e)
		}
	case map[string]any:
		for k, e := range v {
			v[k] = one(e)
		}
	}
	return err
}

// maxDigits is the length of the longest number that becomes a *big.Int: the time that
// takes grows faster than the number's length.
const maxDigits = 4096

func number(text string) (any, error) {
	if text == "-0" { // a float64, as which it was written
		return math.Copysign(0, -1), nil
	}
	if !strings.ContainsAny(text, ".eE") {
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
