package yonder_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/yonder-rpc/yonder"
)

type User struct {
	Name string
	Age  int
}

// callerOf returns the type of a func variable that a client binds to call f.
func callerOf(f any) reflect.Type {
	t := reflect.TypeOf(f)
	in, out := slices.Collect(t.Ins()), slices.Collect(t.Outs())
	if n := len(out); n == 0 || out[n-1] != reflect.TypeFor[error]() {
		out = append(out, reflect.TypeFor[error]())
	}
	return reflect.FuncOf(in, out, t.IsVariadic())
}

func TestRegisterAcceptsEveryForm(t *testing.T) {
	type pair struct {
		A int
		B string
	}
	ran := ""
	tests := []struct {
		f    any
		args []any // without the context
		want []any
	}{
		{func() { ran = "nothing" }, nil, nil},
		{func(context.Context) { ran = "context" }, nil, nil},
		{func() error { ran = "error"; return nil }, nil, nil},
		{func(context.Context) error { ran = "context and error"; return nil }, nil, nil},
		{func() int { return 7 }, nil, []any{7}},
		{func() (int, error) { return 7, nil }, nil, []any{7}},
		{func() (int, string, []bool) { return 7, "a", []bool{true} }, nil, []any{7, "a", []bool{true}}},
		{func(a int) (int, string, error) { return a, "b", nil }, []any{3}, []any{3, "b"}},
		{func(ctx context.Context, a, b int) int { return a - b }, []any{5, 3}, []any{2}},
		{func(a, b, c, d, e, f, g, h, i, j int) []int { return []int{a, b, c, d, e, f, g, h, i, j} },
			[]any{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, []any{[]int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}}},
		{func(a bool, b int8, c uint64, d float32, e string, f []byte) string {
			return fmt.Sprint(a, b, c, d, e, f)
		},
			[]any{true, int8(-3), uint64(1 << 63), float32(0.5), "e", []byte{1}}, []any{"true -3 9223372036854775808 0.5e[1]"}},
		{func(xs ...int) int { return len(xs) }, nil, []any{0}},
		{func(xs ...int) []int { return xs }, []any{1, 2, 3}, []any{[]int{1, 2, 3}}},
		{func(n int, xs ...[]int) string { return fmt.Sprint(n, xs) }, []any{5, []int{1}, []int{}, []int{2, 3}}, []any{"5 [[1] [] [2 3]]"}},
		{func(xs ...[]int) string { return fmt.Sprint(xs) }, []any{[]int{1, 2}}, []any{"[[1 2]]"}},
		{func(ctx context.Context, sep string, parts ...string) (string, error) {
			return strings.Join(parts, sep), nil
		},
			[]any{"-", "a", "b"}, []any{"a-b"}},
		{func(format string, args ...any) string { return fmt.Sprintf(format, args...) }, []any{"%v, %v", "a", true}, []any{"a, true"}},
		{func(b ...byte) string { return string(b) }, []any{byte('h'), byte('i')}, []any{"hi"}},
		{func(p *int, u *User) (*int, *User) { return p, u }, []any{new(3), (*User)(nil)}, []any{new(3), (*User)(nil)}},
		{func(p pair, m map[string]pair, a [2]pair) pair { return pair{p.A + m["x"].A + a[1].A, a[0].B} },
			[]any{pair{1, "a"}, map[string]pair{"x": {2, ""}}, [2]pair{{0, "b"}, {3, ""}}}, []any{pair{6, "b"}}},
		{func(v any) any { return v }, []any{"a"}, []any{"a"}},
		{func(s struct{ X int }) struct{ Y int } { return struct{ Y int }{s.X} }, []any{struct{ X int }{4}}, []any{struct{ Y int }{4}}},
		{strings.ToUpper, []any{"hi"}, []any{"HI"}},
		{(&User{Name: "Foo"}).greet, []any{"Bar"}, []any{"Foo greets Bar"}},
	}
	runAll(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		for i, test := range tests {
			srv.Register(fmt.Sprint(i), test.f)
		}
		c := m.client(t, &srv)
		for i, test := range tests {
			bound := reflect.New(callerOf(test.f))
			c.Bind(fmt.Sprint(i), bound.Interface())
			var in []reflect.Value
			if bound.Type().Elem().NumIn() > 0 && bound.Type().Elem().In(0) == reflect.TypeFor[context.Context]() {
				in = append(in, reflect.ValueOf(t.Context()))
			}
			for _, a := range test.args {
				in = append(in, reflect.ValueOf(a))
			}
			ran = ""
			var got []any
			for _, v := range bound.Elem().Call(in) {
				got = append(got, v.Interface())
			}
			if diff := cmp.Diff(append(slices.Clone(test.want), nil), got); diff != "" {
				t.Errorf("%T: %s", test.f, diff)
			}
			if len(test.want) == 0 && ran == "" {
				t.Errorf("%T was not run", test.f)
			}
		}
	})
}

func (u *User) greet(name string) string { return u.Name + " greets " + name }

func TestRegisterPanics(t *testing.T) {
	var none func()
	tests := []struct {
		name string
		f    any
		want string
	}{
		{"", func() {}, `yonder: register "": the name is empty`},
		{strings.Repeat("x", 513), func() {}, `yonder: register "` + strings.Repeat("x", 513) + `": the name is longer than 512 bytes`},
		{"yonder.x", func() {}, `yonder: register "yonder.x": names that begin with "yonder." are yonder's own`},
		{"taken", func() {}, `yonder: register "taken": the name is taken`},
		{"f", 1, `yonder: register "f": int is not a function`},
		{"f", nil, `yonder: register "f": <nil> is not a function`},
		{"f", none, `yonder: register "f": the function is nil`},
		{"f", func(int, chan int) {}, `yonder: register "f": argument 2: chan int cannot cross a connection; use iter.Seq2[int, error]`},
		{"f", func() (int, <-chan User) { return 0, nil }, `yonder: register "f": result 2: <-chan yonder_test.User cannot cross a connection; use iter.Seq2[yonder_test.User, error]`},
		{"f", func(context.Context, complex128) {}, `yonder: register "f": argument 1: complex128 cannot cross a connection; use a struct or [2]float64`},
		{"f", func(int, context.Context) {}, `yonder: register "f": argument 2: context.Context cannot cross a connection; a context must be the first parameter`},
		{"f", func(error) {}, `yonder: register "f": argument 1: an error travels only as the last result; use a string or a struct`},
		//lint:ignore ST1008 it is refused
		{"f", func() (error, int) { return nil, 0 }, `yonder: register "f": result 1: an error travels only as the last result; use a string or a struct`},
		{"f", func(io.Writer) {}, `yonder: register "f": argument 1: io.Writer cannot cross a connection; return an io.Reader or take a callback`},
		{"f", func(fmt.Stringer) {}, `yonder: register "f": argument 1: fmt.Stringer cannot cross a connection; use a concrete type or any`},
		{"f", func(func(int) int) {}, `yonder: register "f": argument 1: a callback must end in error, because a remote call can fail: func(int) (int, error)`},
		{"f", func() func() error { return nil }, `yonder: register "f": result 1: func() error cannot be a result; a function travels only as an argument`},
		{"f", func(...io.Reader) {}, `yonder: register "f": argument 1: ...io.Reader cannot cross a connection; only plain values may be variadic`},
		{"f", func(*bytes.Buffer) {}, `yonder: register "f": argument 1: *bytes.Buffer cannot cross a connection; none of its fields is exported, so nothing would travel; give it exported fields or a MarshalText method`},
	}
	var srv yonder.Server
	srv.Register("taken", func() {})
	srv.Register(strings.Repeat("x", 512), func() {})
	for _, test := range tests {
		if got := panicOf(func() { srv.Register(test.name, test.f) }); got != test.want {
			t.Errorf("%T:\n got %s\nwant %s", test.f, got, test.want)
		}
	}
	for _, params := range [][]string{{"a", "a"}, {"", "b"}} {
		want := `yonder: register "f": each of Params must be a name of its own`
		got := panicOf(func() {
			srv.Add(yonder.Procedure{Name: "f", Func: func(context.Context, int, int) {}, Params: params})
		})
		if got != want {
			t.Errorf("%q: got %s\nwant %s", params, got, want)
		}
	}
	want := `yonder: register "f": Params has 1 names for 2 parameters (the context has none)`
	got := panicOf(func() {
		srv.Add(yonder.Procedure{Name: "f", Func: func(context.Context, int, int) {}, Params: []string{"a"}})
	})
	if got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if n := len(srv.Procedures()); n != 2 {
		t.Errorf("%d procedures are registered, want the 2 that did not panic", n)
	}
}

func TestAdd(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		params := []string{"uid"}
		srv.Add(yonder.Procedure{
			Name: "queryUser", Func: func(ctx context.Context, uid int) (User, error) { return User{}, nil }, Params: params,
			Doc: "QueryUser finds a user.", Idempotent: true,
		})
		params[0] = "changed"
		srv.Register("count", func(n int, every ...string) iter.Seq2[int, error] { return nil })
		c := m.client(t, &srv)
		got, err := c.Procedures(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := []yonder.ProcedureInfo{
			{Name: "count", Signature: "(int, ...string) (stream int)", Go: "func(int, ...string) (iter.Seq2[int, error], error)"},
			{
				Name: "queryUser", Signature: "(int) (yonder_test.User{Name string; Age int})", Go: "func(uid int) (yonder_test.User, error)",
				Params: []string{"uid"}, Doc: "QueryUser finds a user.", Idempotent: true,
			},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestHideProcedures(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		srv := yonder.Server{HideProcedures: true}
		srv.Register("Secret", func() {})
		c := m.client(t, &srv)
		if _, err := c.Procedures(t.Context()); yonder.CodeOf(err) != yonder.Unimplemented {
			t.Errorf("Procedures: %v, want Unimplemented", err)
		}
		err := c.Call(t.Context(), yonder.NewCall("secret"))
		if want := `yonder: no procedure "secret"`; textOf(err) != want {
			t.Errorf("got %v\nwant %s", err, want)
		}
	})
}

func TestUnknownProcedure(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		srv.Register("queryUser", func() {})
		c := m.client(t, &srv)
		for name, want := range map[string]string{
			"QueryUser": `yonder: no procedure "QueryUser"; there is "queryUser"`,
			"other":     `yonder: no procedure "other"`,
		} {
			err := c.Call(t.Context(), yonder.NewCall(name))
			if m != jsonRPC && m != netRPC && textOf(err) != want || // these have texts of their own
				yonder.CodeOf(err) != yonder.Unimplemented || !yonder.IsRemote(err) {
				t.Errorf("got %v (%v, remote %t)\nwant %s", err, yonder.CodeOf(err), yonder.IsRemote(err), want)
			}
		}
		// What was not there a moment ago may be now.
		srv.Register("other", func() {})
		if err := c.Call(t.Context(), yonder.NewCall("other")); err != nil {
			t.Error(err)
		}
	})
}

// A Calc has methods of every kind.
type Calc struct{ calls int }

type Args struct{ A, B int }

var errZero = errors.New("divide by zero")

func (c *Calc) Add(ctx context.Context, a, b int) (int, error) { c.calls++; return a + b, nil }
func (c *Calc) Sum(xs ...int) (n int) {
	for _, x := range xs {
		n += x
	}
	return n
}

// The net/rpc shape.
func (c *Calc) Multiply(a Args, reply *int) error { *reply = a.A * a.B; return nil }
func (c *Calc) Divide(a *Args, reply *Args) error {
	if a.B == 0 {
		return errZero
	}
	reply.A, reply.B = a.A/a.B, a.A%a.B
	return nil
}
func (c *Calc) Count(ctx context.Context, words []string, reply *map[string]int) error {
	for _, w := range words {
		(*reply)[w]++ // net/rpc makes the map
	}
	return nil
}

// Unsuitable ones.
func (c *Calc) Watch(results chan int)     {}
func (c *Calc) Each(n int, f func(int))    {}
func (c *Calc) ServeJSON(io.Writer, *User) {}

//lint:ignore U1000 it is not exported, so nothing is said of it
func (c *Calc) hidden(unexported chan string) {}

func TestRegisterService(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		calc := new(Calc)
		skipped := srv.RegisterService("Calc", calc)
		want := []yonder.Skipped{
			{Method: "Each", Reason: "argument 2: a callback must end in error, because a remote call can fail: func(int) error"},
			{Method: "ServeJSON", Reason: "argument 1: io.Writer cannot cross a connection; return an io.Reader or take a callback"},
			{Method: "Watch", Reason: "argument 1: chan int cannot cross a connection; use iter.Seq2[int, error]"},
		}
		if diff := cmp.Diff(want, skipped); diff != "" {
			t.Error(diff)
		}
		c := m.client(t, &srv)
		var names []string
		for _, p := range srv.Procedures() {
			names = append(names, p.Name+p.Signature)
		}
		wantNames := []string{
			"Calc.Add(int, int) (int)",
			"Calc.Count([]string) (map[string]int)",
			"Calc.Divide(*yonder_test.Args{A int; B int}) (yonder_test.Args{A int; B int})",
			"Calc.Multiply(yonder_test.Args{A int; B int}) (int)",
			"Calc.Sum(...int) (int)",
		}
		if diff := cmp.Diff(wantNames, names); diff != "" {
			t.Error(diff)
		}

		if sum, err := yonder.Invoke[int](t.Context(), c, "Calc.Add", 1, 2); sum != 3 || err != nil {
			t.Errorf("Add: %d, %v", sum, err)
		}
		if calc.calls != 1 {
			t.Errorf("Add ran %d times on its receiver, want 1", calc.calls)
		}
		if m.can(t, oneByOne) {
			if sum, err := yonder.Invoke[int](t.Context(), c, "Calc.Sum", 1, 2, 3); sum != 6 || err != nil {
				t.Errorf("Sum: %d, %v", sum, err)
			}
		}
		if product, err := yonder.Invoke[int](t.Context(), c, "Calc.Multiply", Args{6, 7}); product != 42 || err != nil {
			t.Errorf("Multiply: %d, %v", product, err)
		}
		if q, err := yonder.Invoke[Args](t.Context(), c, "Calc.Divide", &Args{7, 2}); q != (Args{3, 1}) || err != nil {
			t.Errorf("Divide: %v, %v", q, err)
		}
		if q, err := yonder.Invoke[Args](t.Context(), c, "Calc.Divide", Args{7, 0}); q != (Args{}) || textOf(err) != "divide by zero" {
			t.Errorf("Divide by zero: %v, %v", q, err)
		}
		count, err := yonder.Invoke[map[string]int](t.Context(), c, "Calc.Count", []string{"a", "b", "a"})
		if diff := cmp.Diff(map[string]int{"a": 2, "b": 1}, count); diff != "" || err != nil {
			t.Error(err, diff)
		}
	})
}

type (
	noMethods    struct{}
	noneSuitable struct{}
)

func (noneSuitable) Watch(chan int) {}

func TestRegisterServicePanics(t *testing.T) {
	var srv yonder.Server
	srv.RegisterService("Taken", new(Calc))
	tests := []struct {
		name    string
		service any
		want    string
	}{
		{"S", nil, `yonder: register service "S": it is nil`},
		{"S", noMethods{}, `yonder: register service "S": yonder_test.noMethods has no suitable method; methods must be exported, and those of *T need a pointer`},
		{"S", Calc{}, `yonder: register service "S": yonder_test.Calc has no suitable method; methods must be exported, and those of *T need a pointer`},
		{"S", noneSuitable{}, "yonder: register service \"S\": yonder_test.noneSuitable has no suitable method\n\t" +
			"Watch: argument 1: chan int cannot cross a connection; use iter.Seq2[int, error]"},
		{"Taken", new(Calc), `yonder: register "Taken.Add": the name is taken`},
		{"yonder", new(Calc), `yonder: register "yonder.Add": names that begin with "yonder." are yonder's own`},
		{"", new(Calc), `yonder: register service "": the name is empty`},
		{strings.Repeat("x", 510), new(Calc), `yonder: register "` + strings.Repeat("x", 510) + `.Add": the name is longer than 512 bytes`},
	}
	for _, test := range tests {
		if got := panicOf(func() { srv.RegisterService(test.name, test.service) }); got != test.want {
			t.Errorf("%T:\n got %s\nwant %s", test.service, got, test.want)
		}
	}
}

func TestHandle(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		yonder.Handle(&srv, "older", func(ctx context.Context, u User) (User, error) {
			if u.Age < 0 {
				return u, yonder.Errorf(yonder.OutOfRange, "age %d", u.Age)
			}
			u.Age++
			return u, nil
		})
		c := m.client(t, &srv)

		older := yonder.Remote[User, User](c, "older")
		if u, err := older(t.Context(), User{"Foo", 12}); u != (User{"Foo", 13}) || err != nil {
			t.Errorf("Remote: %v, %v", u, err)
		}
		if u, err := older(t.Context(), User{"Foo", -1}); u != (User{}) || yonder.CodeOf(err) != yonder.OutOfRange || textOf(err) != "age -1" {
			t.Errorf("Remote: %v, %v", u, err)
		}
		var bound func(User) (User, error)
		c.Bind("older", &bound)
		if u, err := bound(User{"Foo", 12}); u != (User{"Foo", 13}) || err != nil {
			t.Errorf("Bind: %v, %v", u, err)
		}
		// A caller with another view of the types.
		type person struct {
			Name string
			Age  int64
			Town string
		}
		if p, err := yonder.Invoke[person](t.Context(), c, "older", person{"Foo", 12, "Oslo"}); p != (person{"Foo", 13, ""}) || err != nil {
			t.Errorf("Invoke: %v, %v", p, err)
		}
	})
}

func TestHandlePanics(t *testing.T) {
	var srv yonder.Server
	srv.Register("taken", func() {})
	for want, handle := range map[string]func(){
		`yonder: register "taken": the name is taken`: func() {
			yonder.Handle(&srv, "taken", func(context.Context, int) (int, error) { return 0, nil })
		},
		`yonder: register "f": the function is nil`: func() {
			yonder.Handle[int, int](&srv, "f", nil)
		},
		`yonder: register "f": argument 1: chan int cannot cross a connection; use iter.Seq2[int, error]`: func() {
			yonder.Handle(&srv, "f", func(context.Context, chan int) (int, error) { return 0, nil })
		},
		`yonder: handle "f": func(context.Context, io.Reader) (int, error) has streams, readers or functions, which Handle does not take; use Register`: func() {
			yonder.Handle(&srv, "f", func(context.Context, io.Reader) (int, error) { return 0, nil })
		},
	} {
		if got := panicOf(handle); got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
	}
}
