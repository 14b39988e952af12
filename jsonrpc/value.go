package jsonrpc

import (
	"bytes"
	"encoding"
	"encoding/json"
	"reflect"
	"strconv"
	"sync"

	"github.com/yonder-rpc/yonder/internal/anyjson"
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
	if !anyjson.Holds(v.Type()) {
		return json.Unmarshal(text, into)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		return err
	}
	return anyjson.Numbers(v, maxDigits)
}

var (
	unmarshaler     = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// maxDigits is the length of the longest number that becomes a *big.Int: the time that
// takes grows faster than the number's length.
const maxDigits = 4096
