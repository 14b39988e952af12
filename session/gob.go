package session

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"sync"

	"github.com/yonder-rpc/yonder/internal/fn"
)

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
	for i, v := range msg.Args {
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
	}
	frame, err = tryEncode(msg)
	if err != nil {
		for _, v := range msg.Args {
			if _, ok := v.(error); !ok { // which errors are to be told by their types is the program's decision
				register(reflect.TypeOf(v))
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
		return nil, err
	}
	if size := int64(buf.Len() - headerSize); size > math.MaxUint32 {
		return nil, &tooLarge{size, math.MaxUint32}
	}
	return seal(buf.Bytes()), nil
}

// decode reads a message. types, called if it is needed, has the types registered that a message
// with this name may have. With an error, the message has its name, if that much can be read.
func decode(data []byte, types func(name string)) (RPCData, error) {
	c, err := admit(data)
	if err != nil {
		return RPCData{}, err
	}
	msg, err := c.decode(func() { types(c.name) })
	msg.Func = c.name
	return msg, err
}

// checked is a message that [check] has read, and package gob has not.
type checked struct {
	name string
	data []byte
	nils bool
}

// admit checks a message.
func admit(data []byte) (c checked, err error) {
	c.name, c.data, c.nils, err = check(data)
	return c, err
}

// decode decodes the message. types, called if it is needed, has the types in it registered.
func (c *checked) decode(types func()) (RPCData, error) {
	registerOwn()
	var msg RPCData
	if tryDecode(c.data, &msg) != nil {
		types()
		msg = RPCData{}
		if err := tryDecode(c.data, &msg); err != nil {
			return RPCData{}, err
		}
	}
	if c.nils {
		restore(reflect.ValueOf(&msg))
	}
	return msg, nil
}

func tryDecode(data []byte, into any) (err error) {
	defer catch(&err) // of a GobDecode or the like
	err = gob.NewDecoder(bytes.NewReader(data)).Decode(into)
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
	if err := gob.NewEncoder(&buf).EncodeValue(v); err != nil {
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
