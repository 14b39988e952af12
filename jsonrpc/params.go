package jsonrpc

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/internal/fn"
)

var (
	readerType     = reflect.TypeFor[io.Reader]()
	readCloserType = reflect.TypeFor[io.ReadCloser]()
	paramsType     = reflect.TypeFor[Params]()
)

// fill reads the parameters of a call into what the procedure takes.
func fill(target *yonder.Target, params []byte, into []any) error {
	switch {
	case len(target.Args) == 1 && target.Args[0] == paramsType:
		*into[0].(*Params) = Params(params)
		return nil
	case params == nil:
		return fillByPosition(target, []byte("[]"), into)
	case params[0] == '[':
		return fillByPosition(target, params, into)
	}
	return fillByName(target, params, into)
}

func fillByPosition(target *yonder.Target, params []byte, into []any) error {
	last := len(into) - 1
	i := 0
	for from, to := range elements(params) {
		if i == last && target.Variadic {
			rest := append([]byte{'['}, params[from:]...)
			return argument(target, i, decode(rest, into[i]))
		}
		if i > last {
			i = 0
			for range elements(params) {
				i++
			}
			return fmt.Errorf("there are %d parameters, but it takes %d", i, len(into))
		}
		if err := fillOne(target, i, params[from:to:to], into[i]); err != nil {
			return err
		}
		i++
	}
	for ; i <= last; i++ {
		if err := missing(target, i); err != nil {
			return err
		}
	}
	return nil
}

// missing is what is wrong with a call that lacks a parameter; nil: nothing.
func missing(target *yonder.Target, i int) error {
	if target.Args[i].Kind() == reflect.Pointer || target.Variadic && i == len(target.Args)-1 {
		return nil
	}
	return argument(target, i, errors.New("it is missing"))
}

// argument says which parameter an error is about; nil: there is none.
func argument(target *yonder.Target, i int, err error) error {
	if err == nil {
		return nil
	}
	if i < len(target.Info.Params) {
		return fmt.Errorf("parameter %d, %q: %w", i+1, target.Info.Params[i], err)
	}
	return fmt.Errorf("parameter %d: %w", i+1, err)
}

// fillByName reads parameters by the names that the procedure was registered with. A
// procedure of one argument that is a struct or a map takes the object itself, too.
func fillByName(target *yonder.Target, params []byte, into []any) error {
	names := target.Info.Params
	whole := len(target.Args) == 1 && !target.Variadic && takesObject(target.Args[0])
	given := make([][]byte, len(into))
	for name, value := range members(params) {
		name := unquote(name[1 : len(name)-1])
		i := indexOf(names, name)
		switch {
		case i < 0 && whole:
			return argument(target, 0, decode(params, into[0]))
		case names == nil:
			return errors.New("its parameters have no names; give them as an array")
		case i < 0:
			return fmt.Errorf("there is no parameter %q; there are %q", name, names)
		case given[i] != nil:
			return fmt.Errorf("parameter %q is there twice", name)
		}
		given[i] = value
	}
	if whole && given[0] == nil {
		return argument(target, 0, decode(params, into[0]))
	}
	for i := range into {
		var err error
		if given[i] == nil {
			err = missing(target, i)
		} else {
			err = fillOne(target, i, given[i], into[i])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func indexOf(names []string, name string) int {
	for i := range names {
		if names[i] == name {
			return i
		}
	}
	return -1
}

func takesObject(t reflect.Type) bool {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.Kind() == reflect.Struct || t.Kind() == reflect.Map || t.Kind() == reflect.Interface && t.NumMethod() == 0
}

// fillOne reads one parameter. An iterator is written as an array, a reader as a
// string of base64.
func fillOne(target *yonder.Target, i int, text []byte, into any) error {
	var err error
	switch t := target.Args[i]; {
	case t.Kind() != reflect.Func && t != readerType && t != readCloserType:
		err = decode(text, into)
	case !isNull(text):
		err = stream(text, reflect.ValueOf(into).Elem())
	}
	return argument(target, i, err)
}

// stream makes an iterator or a reader of a value.
func stream(text []byte, into reflect.Value) error {
	slot, err := slotOf(into.Type())
	if err != nil {
		return err
	}
	switch slot.Kind {
	case fn.Callback:
		return errors.New("a function cannot be given over JSON-RPC; call over yonder's own protocol, or give null")
	case fn.Reader, fn.ReadCloser:
		s, ok := stringOf(text)
		if !ok {
			return errors.New("a reader is given as a string of base64")
		}
		r := base64.NewDecoder(base64.StdEncoding, strings.NewReader(s))
		into.Set(reflect.ValueOf(io.NopCloser(r)))
		return nil
	}
	if text[0] != '[' {
		return errors.New("a stream is given as an array")
	}
	into.Set(slot.Iter(func(yield func(reflect.Value) bool) error {
		for from, to := range elements(text) {
			v := reflect.New(slot.Elem)
			if err := decode(text[from:to:to], v.Interface()); err != nil {
				return yonder.Errorf(yonder.InvalidArgument, "yonder: stream: %w", err)
			}
			if !yield(v.Elem()) {
				return nil
			}
		}
		return nil
	}))
	return nil
}

// slotOf describes the type of an argument.
func slotOf(t reflect.Type) (*fn.Slot, error) {
	f, err := fn.Dynamic([]reflect.Type{t}, nil)
	if err != nil {
		return nil, err
	}
	return &f.Args[0], nil
}

// isStream reports whether values of a type are streams or readers, or functions.
func isStream(t reflect.Type) bool {
	return t.Kind() == reflect.Func || t == readerType || t == readCloserType
}

// paramsOf appends the parameters of a call to make, if there are any, as an array. What a
// variadic function was called with are parameters of their own, as they are where it is
// called.
func (b *outBuffer) paramsOf(call *yonder.Call, max int) error {
	args := call.Args()
	if len(args) == 0 {
		return nil
	}
	if p, ok := args[0].(Params); ok && len(args) == 1 && len(p) == 0 {
		return nil
	}
	b.WriteString(`,"params":`)
	if len(args) == 1 {
		if p, ok := args[0].(Params); ok {
			if text := bytes.TrimSpace(p); !json.Valid(p) || text[0] != '[' && text[0] != '{' {
				return errors.New("argument 1: Params must be an array or an object")
			}
			b.Write(bytes.TrimSpace(p))
			return nil
		}
	}
	var types []reflect.Type
	if !call.Plain() {
		types = call.ArgTypes()
	}
	variadic := call.Variadic()
	b.WriteByte('[')
	first := b.Len()
	for i, arg := range args {
		if variadic && i == len(args)-1 {
			if err := b.spread(reflect.ValueOf(arg), i, first); err != nil {
				return err
			}
			break
		}
		b.comma(first)
		var t reflect.Type // of a call that is plain: it does not matter
		if types != nil {
			t = types[i]
		}
		if err := b.argument(arg, t, max); err != nil {
			return fmt.Errorf("argument %d: %w", i+1, err)
		}
	}
	b.WriteByte(']')
	return nil
}

// comma appends a comma, unless nothing is behind first.
func (b *outBuffer) comma(first int) {
	if b.Len() > first {
		b.WriteByte(',')
	}
}

// spread appends what a slice holds as parameters, the first of which is the argument at i.
func (b *outBuffer) spread(slice reflect.Value, i, first int) error {
	for n := range slice.Len() {
		b.comma(first)
		if err := b.value(slice.Index(n).Interface()); err != nil {
			return fmt.Errorf("argument %d: %w", i+1+n, err)
		}
	}
	return nil
}

// argument appends an argument, which the caller has declared as a t. One that streams is
// read to its end.
func (b *outBuffer) argument(arg any, t reflect.Type, max int) error {
	v := reflect.ValueOf(arg)
	if !v.IsValid() || v.Kind() != reflect.Func && !v.Type().Implements(readerType) {
		return b.value(arg)
	}
	slot, err := slotOf(v.Type())
	if t == readCloserType {
		slot = &fn.Slot{Kind: fn.ReadCloser, Type: t} // who reads it closes it
	}
	switch {
	case err != nil:
		return err
	case slot.Kind == fn.Value:
		return b.value(arg)
	case v.Kind() != reflect.Struct && v.IsNil():
		return b.value(nil)
	case slot.Kind == fn.Callback:
		return errors.New("a function cannot be given over JSON-RPC; use yonder's own protocol")
	}
	return b.inline(slot, v, max)
}

// errLarge is why a stream was not written as one value.
var errLarge = yonder.Errorf(yonder.ResourceExhausted, "the stream is larger than a message may be")

// inline appends all that a stream yields, as an array, or what a reader does, as
// base64. The buffer gets no longer than max.
func (b *outBuffer) inline(slot *fn.Slot, v reflect.Value, max int) error {
	if slot.Kind == fn.Reader || slot.Kind == fn.ReadCloser {
		if c, ok := v.Interface().(io.Closer); ok && slot.Kind == fn.ReadCloser {
			defer c.Close()
		}
		b.WriteByte('"')
		to := base64.NewEncoder(base64.StdEncoding, &b.Buffer)
		room := int64(base64.StdEncoding.DecodedLen(max - b.Len()))
		n, err := io.Copy(to, io.LimitReader(v.Interface().(io.Reader), room+1))
		to.Close()
		b.WriteByte('"')
		if err == nil && n > room {
			err = errLarge
		}
		return err
	}
	b.WriteByte('[')
	first := true
	var failed error
	err := slot.Range(v, func(elem reflect.Value) bool {
		if !first {
			b.WriteByte(',')
		}
		first = false
		if failed = b.value(elem.Interface()); failed == nil && b.Len() > max {
			failed = errLarge
		}
		return failed == nil
	})
	b.WriteByte(']')
	if failed != nil {
		return failed
	}
	return err
}
