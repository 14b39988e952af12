package fn

import (
	"errors"
	"fmt"
	"reflect"

	"github.com/yonder-rpc/yonder/internal/plain"
)

// Kind says how an argument or a result travels.
type Kind uint8

const (
	Value      Kind = iota // encoded by a codec
	Seq                    // iter.Seq[T]: a stream that cannot report an error
	Seq2                   // iter.Seq2[T, error]: a stream
	Reader                 // io.Reader: a stream of bytes
	ReadCloser             // io.ReadCloser: the same, closed by who reads it
	Callback               // an argument that is called in the other direction
)

// Slot is one argument or result.
type Slot struct {
	Type reflect.Type
	Kind Kind
	Elem reflect.Type // what a Seq or Seq2 yields, else nil
	Func *Func        // how a Callback is called, else nil

	// Plan is how a Value of Type goes in CBOR, so that no call looks for it; nil: as the codec says.
	Plan *plain.Plan

	// Walk says that Type, or Elem of a stream, is recursive or holds interfaces, so that a value
	// may contain itself: it must pass [Acyclic] before it is encoded.
	Walk bool
}

// newSlot describes an argument or result of type t, inside callbacks of the types outer.
func newSlot(t reflect.Type, variadic bool, outer []reflect.Type) (Slot, error) {
	s := Slot{Type: t}
	if variadic {
		if k := t.Elem().Kind(); k == reflect.Func || t.Elem() == readerType || t.Elem() == readCloserType {
			return s, fmt.Errorf("...%s cannot cross a connection; only plain values may be variadic", nameOf(t.Elem()))
		}
		s.describeValue()
		return s, unsuitable(t.Elem())
	}
	switch t {
	case readerType:
		s.Kind = Reader
		return s, nil
	case readCloserType:
		s.Kind = ReadCloser
		return s, nil
	}
	if t.Kind() != reflect.Func {
		s.describeValue()
		return s, unsuitable(t)
	}
	if elem, second, ok := iterator(t); ok {
		s.Kind, s.Elem, s.Walk = Seq, elem, mayCycle(elem)
		if second != nil {
			s.Kind = Seq2
			if second != errorType {
				return s, fmt.Errorf("iter.Seq2[%s, %s] cannot cross a connection; use iter.Seq2[T, error], with a struct T of both",
					nameOf(elem), nameOf(second))
			}
		}
		return s, unsuitable(elem)
	}
	f, err := newFunc(t, false, outer)
	if err != nil {
		return s, fmt.Errorf("callback %w", err)
	}
	s.Kind, s.Func = Callback, f
	return s, nil
}

// describeValue describes one that travels as a value.
func (s *Slot) describeValue() {
	s.Walk = mayCycle(s.Type)
	if s.Type != bytesType { // of which codecs have large ones go a way of their own
		s.Plan = plain.Of(s.Type)
	}
}

// iterator reports whether t is iter.Seq, or iter.Seq2 if second is not nil, or has the shape of one.
func iterator(t reflect.Type) (elem, second reflect.Type, ok bool) {
	if t.Kind() != reflect.Func || t.NumIn() != 1 || t.NumOut() != 0 || t.IsVariadic() {
		return nil, nil, false
	}
	yield := t.In(0)
	if yield.Kind() != reflect.Func || yield.IsVariadic() || yield.NumOut() != 1 || yield.Out(0) != boolType {
		return nil, nil, false
	}
	switch yield.NumIn() {
	case 1:
		return yield.In(0), nil, true
	case 2:
		return yield.In(0), yield.In(1), true
	}
	return nil, nil, false
}

// unsuitable says why no value of type t can be carried and what to use instead. It looks at t
// itself and at what it points to. What is wrong inside a value is found by [Explain].
func unsuitable(t reflect.Type) error {
	base := t
	for range maxDepth {
		if base.Kind() != reflect.Pointer {
			break
		}
		base = base.Elem()
	}
	if base.Kind() == reflect.Interface {
		return unsuitableInterface(t, base)
	}
	if marshaler(base) != "" {
		return nil
	}
	use := ""
	switch base.Kind() {
	case reflect.Chan:
		use = "use iter.Seq2[" + nameOf(base.Elem()) + ", error]"
	case reflect.Func:
		use = "a function or an iterator travels as an argument of its own, not within another type"
	case reflect.Complex64:
		use = "use a struct or [2]float32"
	case reflect.Complex128:
		use = "use a struct or [2]float64"
	case reflect.Uintptr:
		use = "use uint64"
	case reflect.UnsafePointer:
		use = "send the value it points to"
	case reflect.Pointer:
		use = "it is a pointer to itself"
	case reflect.Struct:
		if why := emptiness(base); why != "" {
			use = why + ", so nothing would travel; give it exported fields or a MarshalText method"
		}
	}
	if use == "" {
		return nil
	}
	return cannotCross(nameOf(t), use)
}

// cannotCross is not inlined so that programs stay small.
//
//go:noinline
func cannotCross(name, use string) error {
	return errors.New(name + " cannot cross a connection; " + use)
}

// unsuitableInterface is unsuitable for t that is, or points to, the interface type base.
func unsuitableInterface(t, base reflect.Type) error {
	use := "use a concrete type or any"
	switch {
	case base.NumMethod() == 0:
		return nil
	case base == contextType:
		use = "a context must be the first parameter"
	case base == errorType:
		return errors.New("an error travels only as the last result; use a string or a struct")
	case base == readerType || base == readCloserType:
		use = "use " + nameOf(base) + " as an argument or result of its own"
	case base.Implements(writerType):
		use = "return an io.Reader or take a callback"
	case base.Implements(readerType):
		use = "use io.Reader or io.ReadCloser"
	}
	return cannotCross(nameOf(t), use)
}
