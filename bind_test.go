package yonder_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/yonder-rpc/yonder"
)

func TestBind(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		srv.Register("queryUser", func(id int) (User, error) {
			if id < 0 {
				return User{"Nobody", id}, yonder.Errorf(yonder.NotFound, "no user %d", id)
			}
			return User{"Foo", id}, nil
		})
		c := m.client(t, &srv)
		var query func(ctx context.Context, id int) (User, error)
		c.Bind("queryUser", &query)
		if u, err := query(t.Context(), 12); u != (User{"Foo", 12}) || err != nil {
			t.Errorf("got %v, %v", u, err)
		}
		// Results do not come beside an error.
		if u, err := query(t.Context(), -1); u != (User{}) || yonder.CodeOf(err) != yonder.NotFound || textOf(err) != "no user -1" {
			t.Errorf("got %v, %v", u, err)
		}
		// Without a context.
		var plain func(id int) (User, error)
		c.Bind("queryUser", &plain)
		if u, err := plain(13); u != (User{"Foo", 13}) || err != nil {
			t.Errorf("got %v, %v", u, err)
		}
		// A context that has ended: the procedure is not run.
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if u, err := query(ended, 12); u != (User{}) || !errors.Is(err, context.Canceled) || yonder.IsRemote(err) {
			t.Errorf("got %v, %v", u, err)
		}
	})
}

func TestBindPanics(t *testing.T) {
	var srv yonder.Server
	c := yonder.Local(&srv)
	var (
		notPointer func() error
		nilPointer *func() error
		number     int
		noError    func(int) int
		variadic   func(context.Context, ...User)
		channel    func(int, chan User) error
		callback   func(func(int)) error
		iface      any
	)
	const use = "; use &f, where f is declared as var f func(...) (..., error)"
	tests := []struct {
		f    any
		want string
	}{
		{notPointer, `yonder: bind "f": func() error is not a pointer to a func variable` + use},
		{nilPointer, `yonder: bind "f": *func() error is not a pointer to a func variable` + use},
		{nil, `yonder: bind "f": <nil> is not a pointer to a func variable` + use},
		{&number, `yonder: bind "f": *int is not a pointer to a func variable` + use},
		{&iface, `yonder: bind "f": *interface {} is not a pointer to a func variable` + use},
		{&noError, `yonder: bind "f": a bound function must end in error, because a remote call can fail: func(int) (int, error)`},
		{&variadic, `yonder: bind "f": a bound function must end in error, because a remote call can fail: func(context.Context, ...yonder_test.User) error`},
		{&channel, `yonder: bind "f": argument 2: chan yonder_test.User cannot cross a connection; use iter.Seq2[yonder_test.User, error]`},
		{&callback, `yonder: bind "f": argument 1: a callback must end in error, because a remote call can fail: func(int) error`},
	}
	for _, test := range tests {
		if got := panicOf(func() { c.Bind("f", test.f) }); got != test.want {
			t.Errorf("%T:\n got %s\nwant %s", test.f, got, test.want)
		}
	}
}

func TestBindService(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		srv.Register("Calc.Add", func(a, b float64) float64 { return a + b })
		srv.Register("Calc.sub", func(a, b float64) float64 { return a - b })
		c := m.client(t, &srv)
		untouched := func() {}
		calc := struct {
			Add      func(ctx context.Context, a, b float64) (float64, error)
			Subtract func(a, b float64) (float64, error) `yonder:"sub"`
			Number   int                                 `yonder:"-"`
			Left     func()                              `yonder:"-"`
			hidden   func()
		}{Number: 7, Left: untouched}
		c.BindService("Calc", &calc)
		if sum, err := calc.Add(t.Context(), 1, 2); sum != 3 || err != nil {
			t.Errorf("Add: %v, %v", sum, err)
		}
		if diff, err := calc.Subtract(1, 2); diff != -1 || err != nil {
			t.Errorf("Subtract: %v, %v", diff, err)
		}
		if calc.Number != 7 || calc.Left == nil || calc.hidden != nil {
			t.Errorf("fields to be left alone were changed: %+v", calc)
		}
	})
}

func TestBindServicePanics(t *testing.T) {
	var srv yonder.Server
	c := yonder.Local(&srv)
	var nilPointer *struct{ F func() error }
	tests := []struct {
		service any
		want    string
	}{
		{nil, `yonder: bind service "S": <nil> is not a pointer to a struct of funcs`},
		{struct{ F func() error }{}, `yonder: bind service "S": struct { F func() error } is not a pointer to a struct of funcs`},
		{nilPointer, `yonder: bind service "S": *struct { F func() error } is not a pointer to a struct of funcs`},
		{new(int), `yonder: bind service "S": *int is not a pointer to a struct of funcs`},
		{new(struct{ N int }), "yonder: bind service \"S\": field N is int, not a func; tag it `yonder:\"-\"` to leave it alone"},
		{new(struct{ f func() error }), `yonder: bind service "S": *struct { f func() error } has no exported func field`},
		{new(struct{ F func() int }), `yonder: bind service "S": field F: a bound function must end in error, because a remote call can fail: func() (int, error)`},
		{new(struct{ F func(chan int) error }), `yonder: bind service "S": field F: argument 1: chan int cannot cross a connection; use iter.Seq2[int, error]`},
	}
	for _, test := range tests {
		if got := panicOf(func() { c.BindService("S", test.service) }); got != test.want {
			t.Errorf("%T:\n got %s\nwant %s", test.service, got, test.want)
		}
	}
}

func TestTimeoutWithoutContext(t *testing.T) {
	bubbleAll(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		srv.Register("wait", func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		})
		c := m.client(t, &srv)
		c.Timeout = 3 * time.Second
		var wait func() error
		c.Bind("wait", &wait)
		start := time.Now()
		err := wait()
		if took := time.Since(start); took != 3*time.Second || yonder.CodeOf(err) != yonder.DeadlineExceeded {
			t.Errorf("returned after %v: %v", took, err)
		}
	})
}

func TestInvoke(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		srv.Register("sum", func(xs ...int) int { return len(xs) })
		srv.Register("divmod", func(a, b int) (int, int, error) {
			if b == 0 {
				return 0, 0, errZero
			}
			return a / b, a % b, nil
		})
		srv.Register("touch", func(u *User) bool { return u == nil })
		srv.Register("size", func(r io.Reader) (int64, error) { return io.Copy(io.Discard, r) })
		c := m.client(t, &srv)
		if m.can(t, oneByOne) {
			if n, err := yonder.Invoke[int](t.Context(), c, "sum", 1, 2, 3); n != 3 || err != nil {
				t.Errorf("sum: %v, %v", n, err)
			}
		}
		if m.can(t, asSlice) {
			if n, err := yonder.Invoke[int](t.Context(), c, "sum", []int{1, 2}); n != 2 || err != nil {
				t.Errorf("sum of a slice: %v, %v", n, err)
			}
		}
		if m.can(t, nils) {
			if isNil, err := yonder.Invoke[bool](t.Context(), c, "touch", nil); !isNil || err != nil {
				t.Errorf("touch(nil): %v, %v", isNil, err)
			}
		}
		if m.can(t, streams) {
			if n, err := yonder.Invoke[int](t.Context(), c, "size", strings.NewReader("four")); n != 4 || err != nil {
				t.Errorf("size of a reader: %v, %v", n, err)
			}
		}
		var q, r int
		if err := c.Call(t.Context(), yonder.NewCall("divmod", 7, 2).Into(&q, &r)); q != 3 || r != 1 || err != nil {
			t.Errorf("divmod: %d, %d, %v", q, r, err)
		}
		q, err := yonder.Invoke[int](t.Context(), c, "divmod", 7, 2)
		want := "yonder: \"divmod\": the signatures do not fit: results: caller has 1, callee has 2\n" +
			"\tcaller: func(int, int) (int, error)\n\tcallee: func(int, int) (int, int, error)"
		if q != 0 || err == nil || m.can(t, signatures) && textOf(err) != want {
			t.Errorf("got %d, %v\nwant %s", q, err, want)
		}
		_, err = yonder.Invoke[int](t.Context(), c, "sum", make(chan int))
		want = `yonder: call "sum": argument 1: chan int cannot cross a connection; use iter.Seq2[int, error]`
		if textOf(err) != want || yonder.CodeOf(err) != yonder.InvalidArgument || yonder.IsRemote(err) {
			t.Errorf("got %v\nwant %s", err, want)
		}
	})
}

func TestIntoPanics(t *testing.T) {
	want := "yonder: Call.Into: the results' places must be pointers that are not nil"
	for _, place := range []any{nil, 1, (*int)(nil)} {
		if got := panicOf(func() { yonder.NewCall("f").Into(new(int), place) }); got != want {
			t.Errorf("%T: got %s\nwant %s", place, got, want)
		}
	}
}

func TestRemote(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		srv.Register("double", func(s []string) ([]string, error) { return append(s, s...), nil })
		srv.Register("greet", func(ctx context.Context, u *User) string {
			if u == nil {
				return "nobody"
			}
			return u.Name
		})
		c := m.client(t, &srv)
		double := yonder.Remote[[]string, []string](c, "double")
		got, err := double(t.Context(), []string{"a"})
		if diff := cmp.Diff([]string{"a", "a"}, got); diff != "" || err != nil {
			t.Error(err, diff)
		}
		greet := yonder.Remote[*User, string](c, "greet")
		if got, err := greet(t.Context(), &User{Name: "Foo"}); got != "Foo" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		if m.can(t, nils) {
			if got, err := greet(t.Context(), nil); got != "nobody" || err != nil {
				t.Errorf("got %q, %v", got, err)
			}
		}
		wrong := yonder.Remote[int, string](c, "greet")
		if _, err := wrong(t.Context(), 1); yonder.CodeOf(err) != yonder.InvalidArgument || m.can(t, signatures) && !strings.Contains(textOf(err), "the signatures do not fit") {
			t.Errorf("got %v", err)
		}
	})
}

func TestRemotePanics(t *testing.T) {
	var srv yonder.Server
	c := yonder.Local(&srv)
	for want, remote := range map[string]func(){
		`yonder: remote "f": it has streams, readers or functions, which Remote does not take; use Bind`:   func() { yonder.Remote[io.Reader, int](c, "f") },
		`yonder: remote "f": argument 1: chan int cannot cross a connection; use iter.Seq2[int, error]`:    func() { yonder.Remote[chan int, int](c, "f") },
		`yonder: remote "f": result 1: an error travels only as the last result; use a string or a struct`: func() { yonder.Remote[int, error](c, "f") },
	} {
		if got := panicOf(remote); got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
	}
}

func TestNotify(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		heard := make(chan string)
		srv.Register("hear", func(s string) (string, error) {
			heard <- s
			return s, errZero // nobody hears of it
		})
		c := m.client(t, &srv)
		if err := c.Notify(t.Context(), "hear", "a"); err != nil {
			t.Error(err)
		}
		if got := <-heard; got != "a" {
			t.Errorf("heard %q", got)
		}
		// The same call, by one who waits: the results do not fit its own, which are none.
		if !m.can(t, signatures) {
			go func() { <-heard }()
			c.Call(t.Context(), yonder.NewCall("hear", "b"))
		} else if err := c.Call(t.Context(), yonder.NewCall("hear", "b")); !strings.Contains(textOf(err), "results: caller has 0, callee has 1") {
			t.Errorf("got %v", err)
		}
		// Unlike an answer, this failure is this end's own.
		if err := c.Notify(t.Context(), "hear", make(chan int)); yonder.CodeOf(err) != yonder.InvalidArgument {
			t.Errorf("got %v", err)
		}
	})
}

func TestMismatch(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		var ran atomic.Int32
		var srv yonder.Server
		srv.Add(yonder.Procedure{Name: "queryUser", Params: []string{"uid"}, Func: func(ctx context.Context, uid int) (User, error) {
			ran.Add(1)
			return User{}, nil
		}})
		srv.Register("update", func(User, ...int) {})
		c := m.client(t, &srv)

		var query func(ctx context.Context, name string) (User, error)
		c.Bind("queryUser", &query)
		type user struct{ Name, Age string }
		var update func(u user, xs ...int) error
		c.Bind("update", &update)
		var right func(User, ...int) error
		c.Bind("update", &right)
		var missing func() error
		c.Bind("missing", &missing)

		wantQuery := "yonder: \"queryUser\": the signatures do not fit: argument 1: caller has string, callee has int\n" +
			"\tcaller: func(string) (yonder_test.User, error)\n" +
			"\tcallee: func(uid int) (yonder_test.User, error)"
		wantUpdate := "yonder: \"update\": the signatures do not fit: argument 1, field user.Age: caller has string, callee has int\n" +
			"\tcaller: func(yonder_test.user, ...int) error\n" +
			"\tcallee: func(yonder_test.User, ...int) error"
		wantMissing := `yonder: no procedure "missing"`

		for range 2 { // the first call and any other
			_, err := query(t.Context(), "Foo")
			if diff := cmp.Diff(wantQuery, textOf(err)); diff != "" || yonder.CodeOf(err) != yonder.InvalidArgument || !yonder.IsRemote(err) {
				t.Error(yonder.CodeOf(err), yonder.IsRemote(err), diff)
			}
		}
		if diff := cmp.Diff(wantUpdate, textOf(update(user{}))); diff != "" {
			t.Error(diff)
		}
		if err := right(User{}); err != nil {
			t.Error(err)
		}

		err := c.Check(t.Context())
		if diff := cmp.Diff(strings.Join([]string{wantQuery, wantUpdate, wantMissing}, "\n"), textOf(err)); diff != "" {
			t.Error(diff)
		}
		if n := ran.Load(); n != 0 {
			t.Errorf("queryUser ran %d times", n)
		}
	})
}

func TestCheck(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		var ran atomic.Int32
		var srv yonder.Server
		srv.Register("f", func(int) { ran.Add(1) })
		yonder.Handle(&srv, "g", func(context.Context, int) (int, error) { ran.Add(1); return 0, nil })
		srv.Register("h", func(io.Reader, func() error) { ran.Add(1) })
		c := m.client(t, &srv)
		if err := c.Check(t.Context()); err != nil {
			t.Errorf("with nothing bound: %v", err)
		}
		var f func(int64) error
		c.Bind("f", &f)
		yonder.Remote[int, int](c, "g")
		var h func(io.Reader, func() error) error
		c.Bind("h", &h)
		if err := c.Check(t.Context()); err != nil {
			t.Error(err)
		}
		if n := ran.Load(); n != 0 {
			t.Errorf("%d procedures ran", n)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := c.Check(ended); m != inProcess && !errors.Is(err, context.Canceled) {
			t.Errorf("with a context that has ended: %v", err)
		}
	})
}

// celsius encodes itself as text.
type celsius float64

func (c celsius) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%g°C", float64(c)), nil }
func (c *celsius) UnmarshalText(text []byte) error {
	_, err := fmt.Sscanf(string(text), "%g°C", (*float64)(c))
	return err
}

// Differences that are compatible: the two ends are of different age.
func TestCompatible(t *testing.T) {
	type older struct{ Name string }
	type newer struct {
		Name string
		Age  int
		Tags []string
	}
	type renamed struct {
		Full string `json:"Name"`
		Age  int32
	}
	rows := []struct {
		name   string
		callee any
		call   func(t *testing.T, c *yonder.Client, name string) (got any, err error)
		want   any
	}{
		{"a field the caller does not know", func(u newer) newer { u.Age++; return u },
			func(t *testing.T, c *yonder.Client, name string) (any, error) {
				var f func(older) (older, error)
				c.Bind(name, &f)
				return f(older{"Foo"})
			}, older{"Foo"}},
		{"a field the callee does not know", func(u older) older { return u },
			func(t *testing.T, c *yonder.Client, name string) (any, error) {
				var f func(newer) (newer, error)
				c.Bind(name, &f)
				return f(newer{"Foo", 12, []string{"a"}})
			}, newer{Name: "Foo"}},
		{"other names of types and fields", func(u newer) newer { return u },
			func(t *testing.T, c *yonder.Client, name string) (any, error) {
				var f func(renamed) (*renamed, error)
				c.Bind(name, &f)
				return f(renamed{"Foo", 12})
			}, &renamed{"Foo", 12}},
		{"int64 for int, int for int8", func(a int, b int8) (int, int8) { return a + 1, b + 1 },
			func(t *testing.T, c *yonder.Client, name string) (any, error) {
				var f func(int64, int) (int64, int, error)
				c.Bind(name, &f)
				a, b, err := f(1, 2)
				return []int64{a, int64(b)}, err
			}, []int64{2, 3}},
		{"int for float", func(x float64) float64 { return x / 2 },
			func(t *testing.T, c *yonder.Client, name string) (any, error) {
				var f func(int) (float32, error)
				c.Bind(name, &f)
				return f(3)
			}, float32(1.5)},
		{"int for Duration", func(d time.Duration) time.Duration { return 2 * d },
			func(t *testing.T, c *yonder.Client, name string) (any, error) {
				var f func(int64) (time.Duration, error)
				c.Bind(name, &f)
				return f(int64(time.Second))
			}, 2 * time.Second},
		{"string for a type that encodes itself as text", func(d celsius) celsius { return d + 1 },
			func(t *testing.T, c *yonder.Client, name string) (any, error) {
				var f func(string) (string, error)
				c.Bind(name, &f)
				return f("20.5°C")
			}, "21.5°C"},
		{"a map for a struct", func(u newer) map[string]any { return map[string]any{"Name": u.Name + "!", "Age": u.Age} },
			func(t *testing.T, c *yonder.Client, name string) (any, error) {
				var f func(map[string]any) (newer, error)
				c.Bind(name, &f)
				return f(map[string]any{"Name": "Foo", "Age": 12})
			}, newer{Name: "Foo!", Age: 12}},
		{"an array for a slice", func(xs []int) [2]int { return [2]int{xs[0], len(xs)} },
			func(t *testing.T, c *yonder.Client, name string) (any, error) {
				var f func([3]int8) ([]int, error)
				c.Bind(name, &f)
				return f([3]int8{7, 8, 9})
			}, []int{7, 3}},
		{"any for int", func(n int) any { return n },
			func(t *testing.T, c *yonder.Client, name string) (any, error) {
				var f func(any) (int, error)
				c.Bind(name, &f)
				return f(3)
			}, 3},
		{"a value for a pointer", func(p *User) *User { return p },
			func(t *testing.T, c *yonder.Client, name string) (any, error) {
				var f func(User) (User, error)
				c.Bind(name, &f)
				return f(User{"Foo", 1})
			}, User{"Foo", 1}},
		{"a new pointer argument", func(a int, p *string) bool { return p == nil },
			func(t *testing.T, c *yonder.Client, name string) (any, error) {
				var f func(int) (bool, error)
				c.Bind(name, &f)
				return f(1)
			}, true},
		{"a new variadic argument", func(a int, rest ...string) int { return a + len(rest) },
			func(t *testing.T, c *yonder.Client, name string) (any, error) {
				var f func(int) (int, error)
				c.Bind(name, &f)
				return f(1)
			}, 1},
		{"arguments one by one for a variadic one", func(a int, rest ...int) []int { return append(rest, a) },
			func(t *testing.T, c *yonder.Client, name string) (any, error) {
				var f func(int, int8, int64) ([]int, error)
				c.Bind(name, &f)
				return f(1, 2, 3)
			}, []int{2, 3, 1}},
		{"one argument for a variadic one", func(rest ...User) int { return rest[0].Age },
			func(t *testing.T, c *yonder.Client, name string) (any, error) {
				var f func(newer) (int, error)
				c.Bind(name, &f)
				return f(newer{Age: 4})
			}, 4},
		{"a slice for a variadic argument", func(rest ...int) int { return len(rest) },
			func(t *testing.T, c *yonder.Client, name string) (any, error) {
				var f func([]int) (int, error)
				c.Bind(name, &f)
				return f([]int{1, 2})
			}, 2},
		{"a variadic argument for a slice", func(xs []int) int { return len(xs) },
			func(t *testing.T, c *yonder.Client, name string) (any, error) {
				var f func(...int) (int, error)
				c.Bind(name, &f)
				return f(1, 2, 3)
			}, 3},
	}
	run(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		for _, row := range rows {
			srv.Register(row.name, row.callee)
		}
		c := m.client(t, &srv)
		for _, row := range rows {
			got, err := row.call(t, c, row.name)
			if err != nil {
				t.Errorf("%s: %v", row.name, err)
			} else if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("%s: %s", row.name, diff)
			}
		}
		if err := c.Check(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// What net.Dial has returned with an error is no connection: better said where it is given than by a
// goroutine that ends the program.
func TestNewClientOfNil(t *testing.T) {
	text := panicOf(func() { yonder.NewClient(nil) })
	if text != "yonder: new client: the connection is nil" {
		t.Error(text)
	}
}
