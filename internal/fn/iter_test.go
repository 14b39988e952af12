package fn

import (
	"errors"
	"iter"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var errLast = errors.New("last")

// slotOf returns the slot of an iterator.
func slotOf(t testing.TB, seq any) *Slot {
	s, err := newSlot(reflect.TypeOf(seq), false, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &s
}

// rangeAll returns up to most elements of seq and the error.
func rangeAll(t testing.TB, seq any, most int) ([]any, error) {
	var got []any
	err := slotOf(t, seq).Range(reflect.ValueOf(seq), func(elem reflect.Value) bool {
		if want := slotOf(t, seq).Elem; elem.Type() != want {
			t.Errorf("%T: element of type %v", seq, elem.Type())
		}
		got = append(got, elem.Interface())
		return len(got) < most
	})
	return got, err
}

// seqs returns three elements as each kind of iterator: fast and by reflection.
func seqs[T any](a, b, c T, err error) []any {
	seq := slices.Values([]T{a, b, c})
	seq2 := func(yield func(T, error) bool) {
		for v := range seq {
			if !yield(v, nil) {
				return
			}
		}
		if err != nil {
			yield(a, err)
		}
	}
	type named iter.Seq2[T, error]
	return []any{seq, (func(func(T) bool))(seq), iter.Seq2[T, error](seq2), seq2, named(seq2)}
}

func TestRange(t *testing.T) {
	for _, test := range []struct {
		seqs []any
		want []any
	}{
		{seqs(1, 2, 3, errLast), []any{1, 2, 3}},
		{seqs[int64](1, 2, 3, errLast), []any{int64(1), int64(2), int64(3)}},
		{seqs(1.5, 2, 3, errLast), []any{1.5, 2.0, 3.0}},
		{seqs("a", "b", "c", errLast), []any{"a", "b", "c"}},
		{seqs([]byte("a"), nil, []byte("c"), errLast), []any{[]byte("a"), []byte(nil), []byte("c")}},
		{seqs[any](1, nil, "c", errLast), []any{1, nil, "c"}},
		{seqs(user{"a", 1}, user{}, user{"c", 3}, errLast), []any{user{"a", 1}, user{}, user{"c", 3}}},
	} {
		for _, seq := range test.seqs {
			got, err := rangeAll(t, seq, 10)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("%T: %s", seq, diff)
			}
			if isSeq2 := slotOf(t, seq).Kind == Seq2; isSeq2 != (err == errLast) {
				t.Errorf("%T: error %v", seq, err)
			}
			got, err = rangeAll(t, seq, 2)
			if diff := cmp.Diff(test.want[:2], got); diff != "" || err != nil {
				t.Errorf("%T: after break: %v %s", seq, err, diff)
			}
			null := reflect.Zero(reflect.TypeOf(seq)).Interface()
			if got, err := rangeAll(t, null, 2); len(got) != 0 || err != nil {
				t.Errorf("nil %T: %v, %v", seq, got, err)
			}
		}
	}
}

func TestRangeStopsAtFirstError(t *testing.T) {
	for _, seq := range []any{
		iter.Seq2[int, error](func(yield func(int, error) bool) { _ = yield(1, nil) && yield(2, errLast) && yield(3, nil) }),
		func(yield func(int, error) bool) { _ = yield(1, nil) && yield(2, errLast) && yield(3, nil) },
	} {
		got, err := rangeAll(t, seq, 10)
		if diff := cmp.Diff([]any{1}, got); diff != "" || err != errLast {
			t.Errorf("%T: %v %s", seq, err, diff)
		}
	}
}

// counted makes an iterator of the type of seq of n elements made by elem, which then fails. It
// reports how many elements run was asked for, and checks that run is told of a break.
func counted(t testing.TB, seq any, elems []any, err error) (made reflect.Value, asked *int) {
	s := slotOf(t, seq)
	asked = new(int)
	return s.Iter(func(yield func(reflect.Value) bool) error {
		for i, e := range elems {
			*asked++
			v := reflect.New(s.Elem).Elem()
			if e != nil {
				v.Set(reflect.ValueOf(e))
			}
			if !yield(v) {
				for range 2 {
					if yield(v) {
						t.Errorf("%T: yield returned true after break at %d", seq, i)
					}
				}
				break
			}
		}
		return err
	}), asked
}

func TestIter(t *testing.T) {
	for _, test := range []struct {
		seqs  []any
		elems []any
	}{
		{seqs(0, 0, 0, nil), []any{1, 2, 3}},
		{seqs[int64](0, 0, 0, nil), []any{int64(1), int64(2)}},
		{seqs(0.5, 0, 0, nil), []any{1.5}},
		{seqs("", "", "", nil), []any{"a", "b", "c"}},
		{seqs([]byte{}, nil, nil, nil), []any{[]byte("a"), []byte("c")}},
		{seqs[any](nil, nil, nil, nil), []any{1, nil, "c"}},
		{seqs(user{}, user{}, user{}, nil), []any{user{"a", 1}, user{"b", 2}}},
		{seqs(0, 0, 0, nil), nil},
	} {
		for _, seq := range test.seqs {
			made, asked := counted(t, seq, test.elems, errLast)
			if made.Type() != reflect.TypeOf(seq) {
				t.Errorf("%T: made a %v", seq, made.Type())
			}
			for range 2 { // each loop is a run
				got, err := rangeAll(t, made.Interface(), 10)
				if diff := cmp.Diff(test.elems, got); diff != "" {
					t.Errorf("%T: %s", seq, diff)
				}
				if isSeq2 := slotOf(t, seq).Kind == Seq2; isSeq2 != (err == errLast) {
					t.Errorf("%T: error %v", seq, err)
				}
			}
			if *asked != 2*len(test.elems) {
				t.Errorf("%T: asked for %d elements", seq, *asked)
			}
			if len(test.elems) == 0 {
				continue
			}
			*asked = 0
			got, err := rangeAll(t, made.Interface(), 1)
			if len(got) != 1 || err != nil || *asked != 1 {
				t.Errorf("%T: after break: %v, %v, asked %d", seq, got, err, *asked)
			}
		}
	}
}

// The error of a Seq2 comes beside a zero element, and not at all to who left the loop.
func TestIterError(t *testing.T) {
	for _, seq := range seqs(0, 0, 0, nil)[2:] {
		made, _ := counted(t, seq, []any{1, 2}, errLast)
		var elems []int
		var errs []error
		for e, err := range made.Seq2() {
			elems = append(elems, int(e.Int()))
			last, _ := err.Interface().(error)
			errs = append(errs, last)
		}
		if diff := cmp.Diff([]int{1, 2, 0}, elems); diff != "" || !slices.Equal(errs, []error{nil, nil, errLast}) {
			t.Errorf("%T: %v %s", seq, errs, diff)
		}
		n := 0
		for range made.Seq2() { // panics if it were called again
			if n++; n == 2 {
				break
			}
		}
	}
}

// What goes in by Range comes out by Iter.
func TestRangeToIter(t *testing.T) {
	for _, seq := range slices.Concat(seqs(1, 2, 3, errLast), seqs(user{"a", 1}, user{}, user{"c", 3}, errLast)) {
		s := slotOf(t, seq)
		piped := s.Iter(func(yield func(reflect.Value) bool) error { return s.Range(reflect.ValueOf(seq), yield) })
		for _, most := range []int{1, 3, 10} {
			want, wantErr := rangeAll(t, seq, most)
			got, err := rangeAll(t, piped.Interface(), most)
			if diff := cmp.Diff(want, got); diff != "" || err != wantErr {
				t.Errorf("%T, %d: %v %s", seq, most, err, diff)
			}
		}
	}
}

// An iterator that goes on after it was told to stop, or after it ended, panics, and whoever made
// it is not asked for more.
func TestRangeGoesOn(t *testing.T) {
	type named func(yield func(int, error) bool)
	for name, wrap := range map[string]func(iter.Seq2[int, error]) any{
		"fast":    func(seq iter.Seq2[int, error]) any { return seq },
		"reflect": func(seq iter.Seq2[int, error]) any { return named(seq) },
	} {
		var kept func(int, error) bool
		for what, seq := range map[string]iter.Seq2[int, error]{
			"after a break": func(yield func(int, error) bool) {
				yield(1, nil)
				yield(2, nil)
			},
			"after an error": func(yield func(int, error) bool) {
				yield(1, errors.New("failed"))
				yield(2, nil)
			},
			"after its end": func(yield func(int, error) bool) { kept = yield },
		} {
			panicked, calls := false, 0
			func() {
				defer func() { panicked = recover() != nil }()
				v := wrap(seq)
				slotOf(t, v).Range(reflect.ValueOf(v), func(reflect.Value) bool { calls++; return false })
				if what == "after its end" {
					kept(1, nil)
				}
			}()
			if !panicked || calls > 1 {
				t.Errorf("%s, %s: panicked: %t, after %d elements", name, what, panicked, calls)
			}
		}
	}
}

func BenchmarkRange(b *testing.B) {
	for name, seq := range map[string]any{
		"fast": iter.Seq2[int, error](func(yield func(int, error) bool) {
			for yield(1, nil) {
			}
		}),
		"reflect": func(yield func(int, error) bool) {
			for yield(1, nil) {
			}
		},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			_ = slotOf(b, seq).Range(reflect.ValueOf(seq), func(reflect.Value) bool { return b.Loop() })
		})
	}
}

func BenchmarkIter(b *testing.B) {
	one := reflect.New(reflect.TypeFor[int]()).Elem() // as what has been decoded is
	run := func(yield func(reflect.Value) bool) error {
		for yield(one) {
		}
		return nil
	}
	type named iter.Seq2[int, error]
	b.Run("fast", func(b *testing.B) {
		b.ReportAllocs()
		for range slotOf(b, iter.Seq2[int, error](nil)).Iter(run).Interface().(iter.Seq2[int, error]) {
			if !b.Loop() {
				break
			}
		}
	})
	b.Run("reflect", func(b *testing.B) {
		b.ReportAllocs()
		for range slotOf(b, named(nil)).Iter(run).Interface().(named) {
			if !b.Loop() {
				break
			}
		}
	})
}
