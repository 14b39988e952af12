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

// decode reads a message. known is of the connection; nil: there is none. types, called if it is
// needed, has the types registered that a message with this name may have. With an error, the
// message has its name, if that much can be read.
func decode(data []byte, known *decoders, types func(name string)) (RPCData, error) {
	c, err := admit(data, known)
	if err != nil {
		return RPCData{}, err
	}
	msg, err := c.decode(func() { types(c.name) })
	msg.Func = c.name
	return msg, err
}

// An admitted message is one whose name has been read, and whose values have not been decoded.
type admitted struct {
	name  string
	data  []byte
	known *decoders
	begun bool        // plain has read the name, and [check] nothing
	plain plainReader // of the rest

	// Otherwise, what check has returned.
	defs, value []byte
	nils        bool
}

// admit reads a message's name, and checks the message if that takes a check. known is of the
// connection; nil: there is none.
func admit(data []byte, known *decoders) (a admitted, err error) {
	a.data, a.known = data, known
	if a.plain, a.begun = openPlain(data, known.peerOpening()); a.begun {
		a.name = a.plain.name
		return a, nil
	}
	return a, a.check()
}

func (a *admitted) check() (err error) {
	a.name, a.defs, a.value, a.nils, err = check(a.data)
	return err
}

// decode decodes the message. types, called if it is needed, has the types in it registered.
func (a *admitted) decode(types func()) (RPCData, error) {
	registerOwn()
	if a.begun {
		if args, ok := a.plain.args(); ok {
			return RPCData{a.name, args}, nil
		}
		if err := a.check(); err != nil {
			return RPCData{}, err
		}
	}
	var msg RPCData
	if a.known.decode(a.defs, a.value, &msg) != nil {
		types()
		msg = RPCData{}
		if err := a.known.decode(a.defs, a.value, &msg); err != nil {
			return RPCData{}, err
		}
	}
	if a.nils {
		restore(reflect.ValueOf(&msg))
	}
	a.known.learn(a.defs, a.data)
	return msg, nil
}

// decoders are gob's decoders that have read the definitions of types already: most messages of
// a connection have the same, and they are most of what a small message costs. A nil *decoders
// keeps none.
type decoders struct {
	mu      sync.Mutex          // guards what follows, and a decoder while it decodes
	known   map[string]*decoder // by definitions
	opening opening             // of the peer's messages
	learned bool                // it is known, or that it will not do
}

// decoder is a decoder, and what it reads from.
type decoder struct {
	defs string
	in   bytes.Reader
	gob  *gob.Decoder
}

// peerOpening returns the opening of the peer's messages, as far as it is known.
func (d *decoders) peerOpening() opening {
	if d == nil {
		return opening{}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.opening
}

// learn learns the opening from a message that has been decoded, and its definitions.
func (d *decoders) learn(defs, data []byte) {
	if d == nil || len(defs) > maxDefs {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.learned {
		d.opening, d.learned = learn(data), true
	}
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
	d.mu.Lock()
	defer d.mu.Unlock()
	known := d.known[string(defs)]
	if known != nil {
		delete(d.known, known.defs) // unless it decodes to the end, nobody knows what it is in the middle of
		known.in.Reset(value)
	} else {
		known = &decoder{defs: string(defs)}
		known.in.Reset(slices.Concat(defs, value))
		known.gob = gob.NewDecoder(&known.in)
	}
	err := decodeBy(known.gob, msg)
	if err == nil && known.in.Len() == 0 && len(d.known) < maxDecoders {
		if d.known == nil {
			d.known = make(map[string]*decoder)
		}
		d.known[known.defs] = known
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
