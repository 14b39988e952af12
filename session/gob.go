package session

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
	"sync"

	"github.com/yonder-rpc/yonder/internal/fn"
	"github.com/yonder-rpc/yonder/internal/gobvalue"
)

var errorType = reflect.TypeFor[error]()

// wireError is an error on the wire that the program has not registered itself.
type wireError struct {
	Message string // for who knows only this package
	Record  []byte // as [yonder.Server.EncodeError] makes it
}

// Error makes it an error to peers that pass on what they decode.
func (e wireError) Error() string { return e.Message }

// absent stands for a nil interface, where gob's decoder would not cope with that. It is never
// sent.
type absent bool

const (
	absentName  = "yonder.nil"
	absentValue = "\x0a" + absentName + "\x02\x02\x00\x00" // in gob: the name, type bool, 2 bytes, false
)

// registerOwn makes this package's types known to gob.
var registerOwn = sync.OnceFunc(func() {
	gob.RegisterName("yonder.session.Error", wireError{})
	gob.RegisterName(absentName, absent(false))
})

// restore makes nil interfaces of what is absent in a value that has been decoded.
func restore(v reflect.Value) {
	switch v.Kind() {
	case reflect.Interface:
		if v.IsNil() || !v.CanSet() {
			return
		}
		if v.Elem().Type() == reflect.TypeFor[absent]() {
			v.SetZero()
			return
		}
		if holds(v.Elem().Type()) {
			v.Set(restored(v.Elem()))
		}
	case reflect.Pointer:
		restore(v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			restore(v.Field(i))
		}
	case reflect.Slice, reflect.Array:
		if holds(v.Type().Elem()) {
			for i := range v.Len() {
				restore(v.Index(i))
			}
		}
	case reflect.Map:
		if v.Len() > 0 && v.CanSet() && (holds(v.Type().Elem()) || holds(v.Type().Key())) {
			m := reflect.MakeMapWithSize(v.Type(), v.Len())
			for key, elem := range v.Seq2() {
				m.SetMapIndex(restored(key), restored(elem))
			}
			v.Set(m)
		}
	}
}

// restored returns what restore makes of a copy.
func restored(v reflect.Value) reflect.Value {
	c := reflect.New(v.Type()).Elem()
	c.Set(v)
	restore(c)
	return c
}

// holds reports whether a value of type t may have interfaces in it.
func holds(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Interface, reflect.Pointer, reflect.Struct, reflect.Slice, reflect.Array, reflect.Map:
		return true
	}
	return false
}

// register makes a type known to gob, unless it is, or the program has registered another under
// its name: then values of it cannot be encoded, and gob's error says so.
func register(t reflect.Type) {
	if t == nil || t.Kind() == reflect.Interface || base(t).Kind() == reflect.Interface {
		return
	}
	defer func() { recover() }()
	gob.Register(reflect.Zero(t).Interface())
}

// base returns what a type is without pointers.
func base(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}

// encode returns the frame of a message. Args are changed where they cannot be encoded as they
// are.
func encode(msg RPCData) (frame []byte, err error) {
	registerOwn()
	if frame := encodePlain(msg); frame != nil {
		return frame, nil
	}
	types := make([]reflect.Type, len(msg.Args))
	for i, v := range msg.Args {
		types[i] = reflect.TypeOf(v)
		v := reflect.ValueOf(v)
		if err := fn.Acyclic(v); err != nil {
			return nil, fmt.Errorf("value %d: %w", i+1, err)
		}
		for v.Kind() == reflect.Pointer {
			if v.IsNil() { // gob refuses it
				msg.Args[i] = nil
				break
			}
			v = v.Elem()
		}
		msg.Args[i] = gobvalue.Of(msg.Args[i])
	}
	frame, err = tryEncode(msg)
	if err != nil {
		for _, t := range types {
			if t != nil && !t.Implements(errorType) { // which errors are to be told by their types is the program's decision
				register(t)
			}
		}
		frame, err = tryEncode(msg)
	}
	return frame, err
}

func tryEncode(msg RPCData) (frame []byte, err error) {
	defer catch(&err) // of a GobEncode or the like
	var buf bytes.Buffer
	buf.Write(make([]byte, headerSize))
	if err := gob.NewEncoder(&buf).Encode(msg); err != nil {
		return nil, gobvalue.Explain(err)
	}
	if size := int64(buf.Len() - headerSize); size > math.MaxUint32 {
		return nil, &tooLarge{size, math.MaxUint32}
	}
	return seal(buf.Bytes()), nil
}

// decode reads a message. known is of the connection; nil: there is none. types, called if it is needed, has the types registered that a message
// with this name may have. With an error, the message has its name, if that much can be read.
func decode(data []byte, known *decoders, types func(name string)) (RPCData, error) {
	registerOwn()
	if known != nil {
		if msg, ok := decodePlain(data, known.opening); ok {
			return msg, nil
		}
	}
	name, defs, value, nils, err := check(data)
	if err != nil {
		return RPCData{}, err
	}
	var msg RPCData
	if err = known.decode(defs, value, &msg); err != nil {
		types(name)
		msg = RPCData{}
		if err = known.decode(defs, value, &msg); err != nil {
			return RPCData{Func: name}, err
		}
	}
	if nils {
		restore(reflect.ValueOf(&msg))
	}
	if known != nil && !known.learned && len(defs) <= maxDefs {
		known.opening, known.learned = learn(data), true
	}
	return msg, nil
}

// decoders are gob's decoders that have read the definitions of types already: most messages of
// a connection have the same, and they are most of what a small message costs. One goroutine at
// a time uses them. A nil *decoders keeps none.
type decoders struct {
	known   map[string]*decoder // by definitions
	opening opening             // of the peer's messages
	learned bool                // it is known, or that it will not do
}

// decoder is a decoder, and what it reads from.
type decoder struct {
	in  bytes.Reader
	gob *gob.Decoder
}

// What is kept for a connection: gob takes some fifty times what definitions take, and the
// largest message.
const (
	maxDecoders = 8
	maxDefs     = 2 << 10 // bytes
	maxKept     = 8 << 10 // bytes of a message
)

// decode decodes a message, as check returns it.
func (d *decoders) decode(defs, value []byte, msg *RPCData) error {
	if d == nil || len(defs) > maxDefs || len(value) > maxKept {
		return tryDecode(slices.Concat(defs, value), msg)
	}
	known := d.known[string(defs)]
	if known != nil {
		known.in.Reset(value)
	} else {
		known = new(decoder)
		known.in.Reset(slices.Concat(defs, value))
		known.gob = gob.NewDecoder(&known.in)
	}
	err := decodeBy(known.gob, msg)
	switch {
	case err != nil || known.in.Len() > 0: // nobody knows what it is in the middle of
		delete(d.known, string(defs))
	case len(d.known) < maxDecoders:
		if d.known == nil {
			d.known = make(map[string]*decoder)
		}
		d.known[string(defs)] = known
	}
	return err
}

func tryDecode(data []byte, into any) error {
	return decodeBy(gob.NewDecoder(bytes.NewReader(data)), into)
}

func decodeBy(dec *gob.Decoder, into any) (err error) {
	defer catch(&err) // of a GobDecode or the like
	err = dec.Decode(into)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// catch makes an error of a panic.
func catch(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("panic: %v", r)
	}
}

// assign stores a value that has arrived in to, converted if that loses nothing.
func assign(to reflect.Value, value any) error {
	v := reflect.ValueOf(value)
	switch {
	case !v.IsValid():
		to.SetZero()
		return nil
	case v.Type().AssignableTo(to.Type()):
		to.Set(v)
		return nil
	case to.Kind() == reflect.Pointer:
		p := reflect.New(to.Type().Elem())
		if err := assign(p.Elem(), value); err != nil {
			return err
		}
		to.Set(p)
		return nil
	case v.Kind() == reflect.Pointer && !v.IsNil():
		return assign(to, v.Elem().Interface())
	}
	switch {
	case isNumber(v.Kind()) && isNumber(to.Kind()):
		if convertNumber(to, v) {
			return nil
		}
		return fmt.Errorf("%v does not fit in %v", value, to.Type())
	case v.Kind() == to.Kind() && v.Type().ConvertibleTo(to.Type()):
		to.Set(v.Convert(to.Type()))
		return nil
	case v.Kind() != to.Kind():
		return fmt.Errorf("%v cannot be used as %v", v.Type(), to.Type())
	}
	// Two types with the same parts: what would have come had each end registered its own.
	var buf bytes.Buffer
	if err := gob.NewEncoder(&buf).Encode(gobvalue.Of(value)); err != nil {
		return err
	}
	if err := gob.NewDecoder(&buf).DecodeValue(to.Addr()); err != nil {
		return fmt.Errorf("%v cannot be used as %v: %w", v.Type(), to.Type(), err)
	}
	return nil
}

func isNumber(k reflect.Kind) bool {
	return k >= reflect.Int && k <= reflect.Float64 && k != reflect.Uintptr
}

// convertNumber stores a number in one of another type, if that can hold it.
func convertNumber(to, v reflect.Value) bool {
	if !v.CanConvert(to.Type()) {
		return false
	}
	c := v.Convert(to.Type())
	if v.CanFloat() && to.CanFloat() {
		if to.OverflowFloat(v.Float()) {
			return false
		}
		to.Set(c) // rounding is what a float is for
		return true
	}
	// Out of range, a conversion between floats and integers gives what the machine likes: the
	// way back tells.
	if v.CanFloat() && (v.Float() != math.Trunc(v.Float()) || math.Abs(v.Float()) > 1<<53) ||
		to.CanFloat() && !withinFloat(v) ||
		!c.Convert(v.Type()).Equal(v) || negative(c) != negative(v) {
		return false
	}
	to.Set(c)
	return true
}

// withinFloat reports whether any float64 can hold an integer exactly.
func withinFloat(v reflect.Value) bool {
	const most = 1 << 53
	if v.CanUint() {
		return v.Uint() <= most
	}
	return v.Int() >= -most && v.Int() <= most
}

func negative(v reflect.Value) bool {
	switch {
	case v.CanInt():
		return v.Int() < 0
	case v.CanFloat():
		return v.Float() < 0
	}
	return false
}
