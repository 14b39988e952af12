package fn

import (
	"iter"
	"reflect"
)

// Range runs v, an iterator of type s.Type that a user made, and hands each element to yield
// until that returns false. A nil iterator is empty. The first error of a Seq2 ends the loop and
// is returned; the element beside it is dropped. An iterator that goes on after it was told to
// stop panics, as it does in a for statement.
func (s *Slot) Range(v reflect.Value, yield func(elem reflect.Value) bool) error {
	if v.IsNil() {
		return nil
	}
	// reflect costs several allocations an element, so common types go without. Each type adds
	// 3 KB to every program.
	switch seq := v.Interface().(type) {
	case iter.Seq2[int, error]:
		return rangeOver(seq, yield)
	case iter.Seq2[int64, error]:
		return rangeOver(seq, yield)
	case iter.Seq2[float64, error]:
		return rangeOver(seq, yield)
	case iter.Seq2[string, error]:
		return rangeOver(seq, yield)
	case iter.Seq2[[]byte, error]:
		return rangeOver(seq, yield)
	case iter.Seq2[any, error]:
		return rangeOver(seq, yield)
	}
	l := &forLoop{yield: yield}
	place := reflect.New(s.Elem).Elem() // what yield is given has an address, as above
	more, enough := []reflect.Value{reflect.ValueOf(true)}, []reflect.Value{reflect.ValueOf(false)}
	v.Call([]reflect.Value{reflect.MakeFunc(v.Type().In(0), func(in []reflect.Value) []reflect.Value {
		var err error
		if len(in) > 1 && !in[1].IsNil() {
			err, _ = in[1].Interface().(error)
		}
		place.Set(in[0])
		again := l.step(place, err)
		place.SetZero()
		if again {
			return more
		}
		return enough
	})})
	return l.end()
}

func rangeOver[T any](seq iter.Seq2[T, error], yield func(reflect.Value) bool) error {
	l := &forLoop{yield: yield}
	seq(func(elem T, err error) bool { return l.step(reflect.ValueOf(&elem).Elem(), err) })
	return l.end()
}

// forLoop is a for statement over an iterator. What the compiler makes of one is larger, and
// there is one for each type.
type forLoop struct {
	yield func(elem reflect.Value) bool
	err   error
	over  bool
}

// step is one round of the loop.
func (l *forLoop) step(elem reflect.Value, err error) bool {
	if l.over {
		panic("yonder: the iterator went on after it was told to stop")
	}
	l.over = true // if yield panics, too
	l.err = err
	l.over = err != nil || !l.yield(elem)
	return !l.over
}

func (l *forLoop) end() error {
	l.over = true
	return l.err
}

// Iter makes an iterator of type s.Type. Each loop over it calls run once, which passes the
// elements, of type s.Elem, to yield until that returns false, as it does from the moment the
// user left the loop. An error of run becomes the last element of a Seq2, beside a zero one,
// unless the user left before; a Seq drops it.
func (s *Slot) Iter(run func(yield func(elem reflect.Value) bool) error) reflect.Value {
	switch s.Type {
	case reflect.TypeFor[iter.Seq2[int, error]]():
		return iterOf[int](s, run)
	case reflect.TypeFor[iter.Seq2[int64, error]]():
		return iterOf[int64](s, run)
	case reflect.TypeFor[iter.Seq2[float64, error]]():
		return iterOf[float64](s, run)
	case reflect.TypeFor[iter.Seq2[string, error]]():
		return iterOf[string](s, run)
	case reflect.TypeFor[iter.Seq2[[]byte, error]]():
		return iterOf[[]byte](s, run)
	case reflect.TypeFor[iter.Seq2[any, error]]():
		return iterOf[any](s, run)
	}
	return reflect.MakeFunc(s.Type, func(in []reflect.Value) []reflect.Value {
		args := []reflect.Value{{}}
		if s.Kind == Seq2 {
			args = append(args, reflect.Zero(errorType))
		}
		s.drive(run, func(elem any, err error) bool {
			args[0] = reflect.ValueOf(elem).Elem()
			if err != nil {
				last := err // in memory of its own only here
				args[1] = reflect.ValueOf(&last).Elem()
			}
			return in[0].Call(args)[0].Bool()
		})
		return nil
	})
}

// drive is one loop over an iterator that Iter made, up to the user's yield, which is given a
// pointer to each element.
func (s *Slot) drive(run func(func(reflect.Value) bool) error, yield func(elem any, err error) bool) {
	broke := false
	err := run(func(v reflect.Value) bool {
		if !broke {
			broke = !yield(pointer(v, s.Elem), nil)
		}
		return !broke
	})
	if err != nil && !broke && s.Kind == Seq2 { // a Seq has no place for the error
		yield(reflect.New(s.Elem).Interface(), err)
	}
}

// pointer returns a pointer to v, or to a copy, as a *t.
func pointer(v reflect.Value, t reflect.Type) any {
	if !v.CanAddr() || v.Type() != t {
		p := reflect.New(t)
		p.Elem().Set(v)
		return p.Interface()
	}
	return v.Addr().Interface()
}

func iterOf[T any](s *Slot, run func(func(reflect.Value) bool) error) reflect.Value {
	return reflect.ValueOf(iter.Seq2[T, error](func(yield func(T, error) bool) {
		s.drive(run, func(elem any, err error) bool { return yield(*elem.(*T), err) })
	}))
}
