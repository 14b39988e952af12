package fn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
)

type user struct {
	Name string
	Age  int
}

type (
	selfFunc    func(selfFunc) error
	hidden      struct{ a, b int }
	onlyBlank   struct{ _ struct{} }
	page[T any] struct {
		Items []T
		Next  string
	}
	selfPointer *selfPointer
	withheld    struct {
		A int `json:"-"`
	}
	Same  struct{ E int }
	clash struct {
		Exported
		Same
	}
)

func TestAccepted(t *testing.T) {
	tests := []struct {
		f    any
		want string // the signature
		caps string // context, variadic, error, plain
	}{
		{func() {}, "()", "p"},
		{func(context.Context) error { return nil }, "()", "cep"},
		{func(context.Context, int, string) (user, error) { return user{}, nil }, "(int, string) (fn.user{Name string; Age int})", "cep"},
		{func(int, ...string) {}, "(int, ...string)", "vp"},
		{func(...byte) {}, "(...uint8)", "vp"},
		{func(*int) *user { return nil }, "(*int) (*fn.user{Name string; Age int})", "p"},
		{func(any, *any) any { return nil }, "(any, *any) (any)", "p"},
		{func(iter.Seq[int]) iter.Seq2[user, error] { return nil }, "(stream int) (stream fn.user{Name string; Age int})", ""},
		{func(func(yield func(int) bool)) func(func(int, error) bool) { return nil }, "(stream int) (stream int)", ""},
		{func(io.Reader) (io.ReadCloser, error) { return nil, nil }, "(reader) (reader)", "e"},
		{func(func(context.Context, int) (string, error)) {}, "(func(int) (string))", ""},
		{func(func(iter.Seq[int], io.Reader, func() error) error, int) {}, "(func(stream int, reader, func()), int)", ""},
		{func(struct {
			C chan int
			F func()
		}) {
		}, "({C never; F never})", "p"},
		{func(struct{}, onlyBlank) {}, "({}, fn.onlyBlank{})", "p"},
		{func([]chan int, *time.Time) {}, "([]never, *time)", "p"},
	}
	for _, test := range tests {
		f, err := Callee(reflect.TypeOf(test.f))
		if err != nil {
			t.Errorf("%T: %v", test.f, err)
			continue
		}
		if got := f.Signature().String(); got != test.want {
			t.Errorf("%T: signature %s, want %s", test.f, got, test.want)
		}
		caps := ""
		for c, has := range map[string]bool{"c": f.Context, "v": f.Variadic, "e": f.Error, "p": f.Plain} {
			if has != strings.Contains(test.caps, c) {
				caps += " " + c
			}
		}
		if caps != "" {
			t.Errorf("%T: wrong about%s: %+v", test.f, caps, f.Args)
		}
	}
}

func TestKinds(t *testing.T) {
	f, err := Callee(reflect.TypeOf(func(context.Context, int, iter.Seq[string], iter.Seq2[any, error], io.Reader, io.ReadCloser, func(int) error) {
	}))
	if err != nil {
		t.Fatal(err)
	}
	var got []Kind
	for _, s := range f.Args {
		got = append(got, s.Kind)
	}
	if diff := cmp.Diff([]Kind{Value, Seq, Seq2, Reader, ReadCloser, Callback}, got); diff != "" {
		t.Error(diff)
	}
	if f.Args[1].Elem != reflect.TypeFor[string]() || f.Args[1].Walk || !f.Args[2].Walk {
		t.Errorf("streams: %+v", f.Args[1:3])
	}
	if cb := f.Args[5].Func; cb == nil || !cb.Error || len(cb.Args) != 1 {
		t.Errorf("callback: %+v", cb)
	}
}

func TestRefused(t *testing.T) {
	tests := []struct {
		f    any
		want string
	}{
		{1, "int is not a function"},
		{nil, "nil is not a function"},
		{func(context.Context, int, chan int) {}, "argument 2: chan int cannot cross a connection; use iter.Seq2[int, error]"},
		{func() <-chan page[user] { return nil }, "result 1: <-chan fn.page[fn.user] cannot cross a connection; use iter.Seq2[fn.page[fn.user], error]"},
		{func(*chan int) {}, "argument 1: *chan int cannot cross a connection; use iter.Seq2[int, error]"},
		{func() (int, func()) { return 0, nil }, "result 2: func() cannot be a result; a function travels only as an argument"},
		{func(func(int) string) {}, "argument 1: a callback must end in error, because a remote call can fail: func(int) (string, error)"},
		{func(func(...int)) {}, "argument 1: a callback must end in error, because a remote call can fail: func(...int) error"},
		{func(int, func(chan int) error) {}, "argument 2: callback argument 1: chan int cannot cross a connection; use iter.Seq2[int, error]"},
		{func(func() (func(), error)) {}, "argument 1: callback result 1: func() cannot be a result; a function travels only as an argument"},
		{func(selfFunc) {}, "argument 1: callback argument 1: callback fn.selfFunc takes itself as an argument, which cannot be described; use a callback that takes values"},
		{func(uintptr) {}, "argument 1: uintptr cannot cross a connection; use uint64"},
		{func(unsafe.Pointer) {}, "argument 1: unsafe.Pointer cannot cross a connection; send the value it points to"},
		{func(complex128) {}, "argument 1: complex128 cannot cross a connection; use a struct or [2]float64"},
		{func() complex64 { return 0 }, "result 1: complex64 cannot cross a connection; use a struct or [2]float32"},
		{func(int, context.Context) {}, "argument 2: context.Context cannot cross a connection; a context must be the first parameter"},
		{func(error) {}, "argument 1: an error travels only as the last result; use a string or a struct"},
		//lint:ignore ST1008 it is refused
		{func() (error, int) { return nil, 0 }, "result 1: an error travels only as the last result; use a string or a struct"},
		{func(func(func(int, int, int) bool)) {}, "argument 1: callback argument 1: a callback must end in error, because a remote call can fail: func(int, int, int) (bool, error)"},
		{func(fmt.Stringer) {}, "argument 1: fmt.Stringer cannot cross a connection; use a concrete type or any"},
		{func(io.Writer) {}, "argument 1: io.Writer cannot cross a connection; return an io.Reader or take a callback"},
		{func(io.ReadSeeker) {}, "argument 1: io.ReadSeeker cannot cross a connection; use io.Reader or io.ReadCloser"},
		{func(*io.Reader) {}, "argument 1: *io.Reader cannot cross a connection; use io.Reader as an argument or result of its own"},
		{func(withheld) {}, "argument 1: fn.withheld cannot cross a connection; none of its fields is encoded: they are not exported, left out by a tag, or share a name, so nothing would travel; give it exported fields or a MarshalText method"},
		{func(clash) {}, "argument 1: fn.clash cannot cross a connection; none of its fields is encoded: they are not exported, left out by a tag, or share a name, so nothing would travel; give it exported fields or a MarshalText method"},
		{func(*func() error) {}, "argument 1: *func() error cannot cross a connection; a function or an iterator travels as an argument of its own, not within another type"},
		{func(iter.Seq2[string, int]) {}, "argument 1: iter.Seq2[string, int] cannot cross a connection; use iter.Seq2[T, error], with a struct T of both"},
		{func(iter.Seq[chan int]) {}, "argument 1: chan int cannot cross a connection; use iter.Seq2[int, error]"},
		{func(...io.Reader) {}, "argument 1: ...io.Reader cannot cross a connection; only plain values may be variadic"},
		{func(...chan int) {}, "argument 1: chan int cannot cross a connection; use iter.Seq2[int, error]"},
		{func(hidden) {}, "argument 1: fn.hidden cannot cross a connection; none of its fields is exported, so nothing would travel; give it exported fields or a MarshalText method"},
		{func() *os.File { return nil }, "result 1: *os.File cannot cross a connection; none of its fields is exported, so nothing would travel; give it exported fields or a MarshalText method"},
		{func(selfPointer) {}, "argument 1: fn.selfPointer cannot cross a connection; it is a pointer to itself"},
	}
	for _, test := range tests {
		if _, err := Callee(reflect.TypeOf(test.f)); err == nil || err.Error() != test.want {
			t.Errorf("%T:\n got %v\nwant %s", test.f, err, test.want)
		}
	}
}

func TestCallerEndsInError(t *testing.T) {
	if _, err := Caller(reflect.TypeFor[func(int) error]()); err != nil {
		t.Error(err)
	}
	_, err := Caller(reflect.TypeFor[func(context.Context, int, ...page[user]) (user, any)]())
	want := "a bound function must end in error, because a remote call can fail: func(context.Context, int, ...fn.page[fn.user]) (fn.user, any, error)"
	if err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}

func TestDynamic(t *testing.T) {
	types := []reflect.Type{reflect.TypeOf(1), nil, reflect.TypeFor[*os.File](), reflect.TypeFor[func() error]()}
	f, err := Dynamic(types, []reflect.Type{reflect.TypeFor[iter.Seq[int]]()})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := f.Signature().String(), "(int, any, reader, func()) (stream int)"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	_, err = Dynamic([]reflect.Type{reflect.TypeFor[chan int]()}, nil)
	if want := "argument 1: chan int cannot cross a connection; use iter.Seq2[int, error]"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// call describes f, calls it, and returns its results.
func call(t *testing.T, ctx context.Context, f any, args ...any) ([]any, error) {
	t.Helper()
	desc, err := Callee(reflect.TypeOf(f))
	if err != nil {
		t.Fatal(err)
	}
	return callFunc(desc, ctx, reflect.ValueOf(f), args...)
}

func callFunc(desc *Func, ctx context.Context, fv reflect.Value, args ...any) ([]any, error) {
	var in []reflect.Value
	for _, arg := range args {
		in = append(in, reflect.ValueOf(arg))
	}
	out, err := desc.Call(fv, ctx, in)
	var results []any
	for _, v := range out {
		results = append(results, v.Interface())
	}
	return results, err
}

func TestCall(t *testing.T) {
	type key struct{}
	ctx := context.WithValue(t.Context(), key{}, "value")
	fail := errors.New("fail")

	got, err := call(t, ctx, func(ctx context.Context, a, b int) (int, any, error) { return a - b, ctx.Value(key{}), fail }, 5, 3)
	if diff := cmp.Diff([]any{2, "value"}, got); diff != "" || err != fail {
		t.Error(err, diff)
	}
	got, err = call(t, ctx, func(sep string, parts ...string) string { return strings.Join(parts, sep) }, "-", []string{"a", "b"})
	if diff := cmp.Diff([]any{"a-b"}, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
	got, err = call(t, ctx, func(context.Context) error { return nil })
	if len(got) != 0 || err != nil {
		t.Error(got, err)
	}
	got, err = call(t, ctx, func(a, b, c, d, e, f, g, h, i, j int) int { return a + j }, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
	if diff := cmp.Diff([]any{11}, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
	got, err = call(t, nil, func(ctx context.Context) bool { return ctx == nil })
	if diff := cmp.Diff([]any{true}, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
}

func TestCallPanicPassesThrough(t *testing.T) {
	defer func() {
		if r := recover(); r != "boom" {
			t.Errorf("recovered %v", r)
		}
	}()
	call(t, t.Context(), func(context.Context) { panic("boom") })
}

// A call within a call must not see the other's context: they share a pool.
func TestCallNested(t *testing.T) {
	type key struct{}
	desc, err := Callee(reflect.TypeFor[func(context.Context, int) int]())
	if err != nil {
		t.Fatal(err)
	}
	var f func(ctx context.Context, n int) int
	f = func(ctx context.Context, n int) int {
		if n > 0 {
			inner := context.WithValue(ctx, key{}, n-1)
			if _, err := callFunc(desc, inner, reflect.ValueOf(f), n-1); err != nil {
				t.Error(err)
			}
		}
		if got := ctx.Value(key{}); got != n {
			t.Errorf("context has %v, want %d", got, n)
		}
		return n
	}
	callFunc(desc, context.WithValue(t.Context(), key{}, 3), reflect.ValueOf(f), 3)
}

// What one call has put into a frame the next one must not find there.
func TestFrame(t *testing.T) {
	type key struct{}
	desc, err := Callee(reflect.TypeFor[func(context.Context, []string, int) (int, error)]())
	if err != nil {
		t.Fatal(err)
	}
	var kept []string
	f := reflect.ValueOf(func(ctx context.Context, s []string, n int) (int, error) {
		kept = s
		return n + ctx.Value(key{}).(int), nil
	})
	for i := range 3 {
		frame := desc.NewFrame()
		for j := range frame.Args {
			if place := frame.Place(j).Elem(); frame.Args[j].IsValid() || !place.IsZero() {
				t.Errorf("argument %d: %v, %v", j, frame.Args[j], place)
			} else {
				frame.Args[j] = place
			}
		}
		frame.Args[0].Set(reflect.ValueOf([]string{"a", "b"}))
		frame.Args[1].SetInt(int64(i))
		out, err := frame.Call(f, context.WithValue(t.Context(), key{}, 10))
		frame.Release()
		if err != nil || len(out) != 1 || out[0].Int() != int64(i)+10 || len(kept) != 2 || kept[1] != "b" {
			t.Errorf("%v, %v; kept %q", out, err, kept)
		}
	}
}

func BenchmarkCall(b *testing.B) {
	run := func(name string, f any, args ...any) {
		desc, err := Callee(reflect.TypeOf(f))
		if err != nil {
			b.Fatal(err)
		}
		var in []reflect.Value
		for _, arg := range args {
			in = append(in, reflect.ValueOf(arg))
		}
		fv := reflect.ValueOf(f)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			ctx := b.Context()
			for b.Loop() {
				desc.Call(fv, ctx, in)
			}
		})
	}
	run("empty", func() {})
	run("error", func(context.Context) error { return nil })
	run("ints", func(_ context.Context, a, b int) (int, error) { return a + b, nil }, 1, 2)
	run("struct", func(_ context.Context, u user) (user, error) { return u, nil }, user{"a", 1})
	run("variadic", func(...int) error { return nil }, []int{1, 2})
}
