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
	// reflect costs several allocations an element, so common types go without.
	switch seq := v.Interface().(type) {
	case iter.Seq2[int, error]:
		return range2(seq, yield)
	case iter.Seq2[int64, error]:
		return range2(seq, yield)
	case iter.Seq2[float64, error]:
		return range2(seq, yield)
	case iter.Seq2[string, error]:
		return range2(seq, yield)
	case iter.Seq2[[]byte, error]:
		return range2(seq, yield)
	case iter.Seq2[any, error]:
		return range2(seq, yield)
	case iter.Seq[int]:
		return range1(seq, yield)
	case iter.Seq[int64]:
		return range1(seq, yield)
	case iter.Seq[float64]:
		return range1(seq, yield)
	case iter.Seq[string]:
		return range1(seq, yield)
	case iter.Seq[[]byte]:
		return range1(seq, yield)
	case iter.Seq[any]:
		return range1(seq, yield)
	}
	if s.Kind == Seq {
		for elem := range v.Seq() {
			if !yield(elem) {
				break
			}
		}
		return nil
	}
	for elem, e := range v.Seq2() {
		if !e.IsNil() {
			err, _ := reflect.TypeAssert[error](e)
			return err
		}
		if !yield(elem) {
			break
		}
	}
	return nil
}

func range1[T any](seq iter.Seq[T], yield func(reflect.Value) bool) error {
	for elem := range seq {
		if !yield(reflect.ValueOf(&elem).Elem()) {
			break
		}
	}
	return nil
}

func range2[T any](seq iter.Seq2[T, error], yield func(reflect.Value) bool) error {
	for elem, err := range seq {
		if err != nil {
			return err
		}
		if !yield(reflect.ValueOf(&elem).Elem()) {
			break
		}
	}
	return nil
}

// Iter makes an iterator of type s.Type. Each loop over it calls run once, which passes the
// elements, of type s.Elem, to yield until that returns false, as it does from the moment the
// user left the loop. An error of run becomes the last element of a Seq2, beside a zero one,
// unless the user left before; a Seq drops it.
func (s *Slot) Iter(run func(yield func(elem reflect.Value) bool) error) reflect.Value {
	switch s.Type {
	case reflect.TypeFor[iter.Seq2[int, error]]():
		return iter2[int](run)
	case reflect.TypeFor[iter.Seq2[int64, error]]():
		return iter2[int64](run)
	case reflect.TypeFor[iter.Seq2[float64, error]]():
		return iter2[float64](run)
	case reflect.TypeFor[iter.Seq2[string, error]]():
		return iter2[string](run)
	case reflect.TypeFor[iter.Seq2[[]byte, error]]():
		return iter2[[]byte](run)
	case reflect.TypeFor[iter.Seq2[any, error]]():
		return iter2[any](run)
	case reflect.TypeFor[iter.Seq[int]]():
		return iter1[int](run)
	case reflect.TypeFor[iter.Seq[int64]]():
		return iter1[int64](run)
	case reflect.TypeFor[iter.Seq[float64]]():
		return iter1[float64](run)
	case reflect.TypeFor[iter.Seq[string]]():
		return iter1[string](run)
	case reflect.TypeFor[iter.Seq[[]byte]]():
		return iter1[[]byte](run)
	case reflect.TypeFor[iter.Seq[any]]():
		return iter1[any](run)
	}
	return reflect.MakeFunc(s.Type, func(in []reflect.Value) []reflect.Value {
		args := []reflect.Value{{}}
		if s.Kind == Seq2 {
			args = append(args, reflect.Zero(errorType))
		}
		broke := false
		err := run(func(elem reflect.Value) bool {
			if !broke {
				args[0] = elem
				broke = !in[0].Call(args)[0].Bool()
			}
			return !broke
		})
		if err != nil && !broke && s.Kind == Seq2 {
			in[0].Call([]reflect.Value{reflect.Zero(s.Elem), reflect.ValueOf(&err).Elem()})
		}
		return nil
	})
}

func iter1[T any](run func(func(reflect.Value) bool) error) reflect.Value {
	return reflect.ValueOf(iter.Seq[T](func(yield func(T) bool) {
		broke := false
		_ = run(func(v reflect.Value) bool { // a Seq has no place for the error
			if !broke {
				elem, _ := reflect.TypeAssert[T](v)
				broke = !yield(elem)
			}
			return !broke
		})
	}))
}

func iter2[T any](run func(func(reflect.Value) bool) error) reflect.Value {
	return reflect.ValueOf(iter.Seq2[T, error](func(yield func(T, error) bool) {
		broke := false
		err := run(func(v reflect.Value) bool {
			if !broke {
				elem, _ := reflect.TypeAssert[T](v)
				broke = !yield(elem, nil)
			}
			return !broke
		})
		if err != nil && !broke {
			var zero T
			yield(zero, err)
		}
	}))
}
