package yonder_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/yonder-rpc/yonder"
)

// intercepted returns a client of srv with interceptors of its own.
func (m mode) intercepted(t *testing.T, srv *yonder.Server, interceptors ...yonder.Interceptor) *yonder.Client {
	t.Helper()
	d := &yonder.Dialer{Interceptors: interceptors}
	if m == inProcess {
		serverOf(t, srv)
		return d.Local(srv)
	}
	return m.dialer(t, srv, d)
}

// trace notes what passes its interceptors.
type trace struct {
	mu    sync.Mutex
	lines []string
}

func (tr *trace) add(format string, args ...any) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.lines = append(tr.lines, fmt.Sprintf(format, args...))
}

func (tr *trace) take() []string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	lines := tr.lines
	tr.lines = nil
	return lines
}

// interceptor returns one that notes each call before and after.
func (tr *trace) interceptor(name string) yonder.Interceptor {
	return func(next yonder.Handler) yonder.Handler {
		return func(ctx context.Context, call *yonder.Call) error {
			tr.add("> %s %s", name, call.Procedure)
			err := next(ctx, call)
			tr.add("< %s %s %v", name, call.Procedure, err)
			return err
		}
	}
}

// The same interceptors serve both ends and calls of every kind, the first of them outermost.
func TestInterceptors(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		tr := new(trace)
		srv := yonder.Server{Interceptors: []yonder.Interceptor{tr.interceptor("C"), tr.interceptor("D")}}
		served := make(chan bool, 1)
		srv.Register("add", func(a, b int) int { return a + b })
		srv.Register("fail", func() error { return errZero })
		srv.Register("hear", func(string) error { served <- true; return errZero })
		srv.Register("count", func(n int) iter.Seq2[int, error] { return countTo(n, nil) })
		srv.Register("sum", func(xs iter.Seq[int]) (n int) {
			for x := range xs {
				n += x
			}
			return n
		})
		srv.Register("read", func(r io.Reader) io.Reader { return r })
		srv.Register("walk", walk)
		yonder.Handle(&srv, "double", func(ctx context.Context, n int) (int, error) { return 2 * n, nil })
		c := m.intercepted(t, &srv, tr.interceptor("A"), tr.interceptor("B"))
		var add func(int, int) (int, error)
		c.Bind("add", &add)
		var sum func(iter.Seq[int]) (int, error)
		c.Bind("sum", &sum)
		want := func(kind, procedure string, failure any) {
			t.Helper()
			names := []string{"A", "B", "C", "D"}
			var want []string
			for _, name := range names {
				want = append(want, fmt.Sprintf("> %s %s", name, procedure))
			}
			slices.Reverse(names)
			for _, name := range names {
				want = append(want, fmt.Sprintf("< %s %s %v", name, procedure, failure))
			}
			if diff := cmp.Diff(want, tr.take()); diff != "" {
				t.Errorf("%s: %s", kind, diff)
			}
		}
		if n, err := add(1, 2); n != 3 || err != nil {
			t.Errorf("add: %d, %v", n, err)
		}
		want("a bound function", "add", nil)
		if n, err := yonder.Invoke[int](t.Context(), c, "add", 1, 2); n != 3 || err != nil {
			t.Errorf("Invoke: %d, %v", n, err)
		}
		want("Invoke", "add", nil)
		if n, err := yonder.Remote[int, int](c, "double")(t.Context(), 4); n != 8 || err != nil {
			t.Errorf("Remote: %d, %v", n, err)
		}
		want("Remote and Handle", "double", nil)
		if err := c.Call(t.Context(), yonder.NewCall("fail")); textOf(err) != errZero.Error() {
			t.Errorf("fail: %v", err)
		}
		want("an error", "fail", errZero)
		m.needs(t, streams)
		seq, err := yonder.Invoke[iter.Seq2[int, error]](t.Context(), c, "count", 3)
		if err != nil {
			t.Fatal(err)
		}
		want("a stream of results", "count", nil) // the call has returned, and the stream goes on
		if list, err := collect(seq); len(list) != 3 || err != nil {
			t.Errorf("count: %v, %v", list, err)
		}
		if n, err := sum(slices.Values([]int{1, 2, 3})); n != 6 || err != nil {
			t.Errorf("sum: %d, %v", n, err)
		}
		want("a stream of arguments", "sum", nil)
		r, err := yonder.Invoke[io.Reader](t.Context(), c, "read", strings.NewReader("abc"))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(r); string(b) != "abc" || err != nil {
			t.Errorf("read: %q, %v", b, err)
		}
		want("readers", "read", nil)
		m.needs(t, callbacks)
		if err := c.Call(t.Context(), yonder.NewCall("walk", 1, func(int) error { return nil })); err != nil {
			t.Error(err)
		}
		want("a callback", "walk", nil)
		if err := c.Notify(t.Context(), "hear", "x"); err != nil {
			t.Error(err)
		}
		<-served
	})
}

// What a call's arguments and results are, each end sees in its own types, before and after.
func TestInterceptorsSeeValues(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		tr := new(trace)
		list := func(values []any) []any { return append([]any{}, values...) } // none is as good as nil
		see := func(name string) yonder.Interceptor {
			return func(next yonder.Handler) yonder.Handler {
				return func(ctx context.Context, call *yonder.Call) error {
					tr.add("%s %#v", name, list(call.Args()))
					err := next(ctx, call)
					if err == nil && !call.OneWay {
						tr.add("%s %#v -> %#v", name, list(call.Args()), list(call.Results()))
					}
					return err
				}
			}
		}
		late := func(name string) yonder.Interceptor { // one that looks only after
			return func(next yonder.Handler) yonder.Handler {
				return func(ctx context.Context, call *yonder.Call) error {
					err := next(ctx, call)
					tr.add("%s %#v -> %#v", name, list(call.Args()), list(call.Results()))
					return err
				}
			}
		}
		for _, way := range []struct {
			name string
			in   func(string) yonder.Interceptor
			want []string // of the server's, or of the client's
		}{
			{"before and after", see, []string{"%s %s", "%s %s -> %s"}},
			{"after", late, []string{"%s %s -> %s"}},
		} {
			srv := yonder.Server{Interceptors: []yonder.Interceptor{way.in("server")}}
			srv.Register("pair", func(ctx context.Context, a int, s ...string) (string, int, error) { return s[0], a, nil })
			srv.Register("none", func() {})
			yonder.Handle(&srv, "hot", func(ctx context.Context, n int) (string, error) { return fmt.Sprint(n), nil })
			c := m.intercepted(t, &srv, way.in("client"))
			check := func(kind, clientArgs, clientResults, serverArgs, serverResults string) {
				t.Helper()
				var want []string
				line := func(name, args, results, format string) string {
					return fmt.Sprintf(strings.TrimSuffix(format, " -> %s"), name, args) + strings.Repeat(" -> "+results, strings.Count(format, "->"))
				}
				for _, f := range way.want {
					want = append(want, line("server", serverArgs, serverResults, f))
				}
				last := len(way.want) - 1
				for _, f := range way.want[:last] {
					want = slices.Insert(want, 0, line("client", clientArgs, clientResults, f))
				}
				want = append(want, line("client", clientArgs, clientResults, way.want[last]))
				if diff := cmp.Diff(want, tr.take()); diff != "" {
					t.Errorf("%s, %s: %s", way.name, kind, diff)
				}
			}
			var pair func(context.Context, int8, ...string) (string, int64, error)
			c.Bind("pair", &pair)
			for _, ctx := range []context.Context{t.Context(), context.Background()} {
				if s, n, err := pair(ctx, 1, "a", "b"); s != "a" || n != 1 || err != nil {
					t.Errorf("pair: %q, %d, %v", s, n, err)
				}
				check("bound", `[]interface {}{1, []string{"a", "b"}}`, `[]interface {}{"a", 1}`, `[]interface {}{1, []string{"a", "b"}}`, `[]interface {}{"a", 1}`)
				if s, err := yonder.Remote[int16, string](c, "hot")(ctx, 5); s != "5" || err != nil {
					t.Errorf("hot: %q, %v", s, err)
				}
				check("hot", `[]interface {}{5}`, `[]interface {}{"5"}`, `[]interface {}{5}`, `[]interface {}{"5"}`)
				if err := c.Call(ctx, yonder.NewCall("none")); err != nil {
					t.Error(err)
				}
				check("none", `[]interface {}{}`, `[]interface {}{}`, `[]interface {}{}`, `[]interface {}{}`)
			}
		}
	})
}

// TestNilIsSeen is a regression: a nil argument that an interceptor had looked at made a
// function panic that Handle had registered.
func TestNilIsSeen(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		m.needs(t, nils)
		srv := yonder.Server{Interceptors: []yonder.Interceptor{func(next yonder.Handler) yonder.Handler {
			return func(ctx context.Context, call *yonder.Call) error {
				call.Args()
				return next(ctx, call)
			}
		}}}
		yonder.Handle(&srv, "echo", func(ctx context.Context, v any) (any, error) { return v, nil })
		echo := yonder.Remote[any, any](m.client(t, &srv), "echo")
		if v, err := echo(t.Context(), nil); v != nil || err != nil {
			t.Errorf("got %v, %v", v, err)
		}
	})
}

// An interceptor need not call the next handler.
func TestInterceptorReturnsEarly(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		m.needs(t, metadata)
		ran := 0
		refuse := errors.New("refused")
		early := func(where string) yonder.Interceptor {
			return func(next yonder.Handler) yonder.Handler {
				return func(ctx context.Context, call *yonder.Call) error {
					if info := call.Info(); info.Metadata["at"] != where {
						return next(ctx, call)
					}
					if call.Metadata["how"] == "error" {
						return yonder.Errorf(yonder.PermissionDenied, "at the %s: %w", where, refuse)
					}
					return nil
				}
			}
		}
		log := new(logBuffer)
		srv := yonder.Server{Interceptors: []yonder.Interceptor{early("server")}, Logger: log.logger()}
		srv.Register("user", func() (*User, int) { ran++; return &User{"Foo", 1}, 1 })
		srv.Register("count", func() iter.Seq2[int, error] { ran++; return countTo(3, nil) })
		srv.Register("nothing", func() { ran++ })
		yonder.Handle(&srv, "hot", func(context.Context, int) (int, error) { ran++; return 7, nil })
		c := m.intercepted(t, &srv, early("client"))
		var user func(context.Context) (*User, int, error)
		c.Bind("user", &user)
		var count func(context.Context) (iter.Seq2[int, error], error)
		c.Bind("count", &count)
		hot := yonder.Remote[int, int](c, "hot")
		for _, where := range []string{"client", "server"} {
			for _, base := range []context.Context{t.Context(), context.Background()} {
				ctx := yonder.WithMetadata(base, "at", where, "how", "error")
				u, n, err := user(ctx)
				if u != nil || n != 0 || yonder.CodeOf(err) != yonder.PermissionDenied || textOf(err) != "at the "+where+": refused" || yonder.IsRemote(err) != (where == "server") {
					t.Errorf("%s, an error: %v, %d, %v", where, u, n, err)
				}
				// Without an error there must be results, if there are any. At the caller's end
				// they are zero; at the other end there are none to send.
				ctx = yonder.WithMetadata(base, "at", where, "how", "nil")
				want := yonder.Code(0)
				if where == "server" {
					want = yonder.Internal
				}
				u, n, err = user(ctx)
				if u != nil || n != 0 || yonder.CodeOf(err) != want || want != 0 && !strings.Contains(textOf(err), "interceptor") {
					t.Errorf("%s, nil: %v, %d, %v", where, u, n, err)
				}
				if m.can(t, streams) {
					seq, err := count(ctx)
					if seq != nil || yonder.CodeOf(err) != want {
						t.Errorf("%s, nil: a stream: %t, %v", where, seq != nil, err)
					}
				}
				if n, err = hot(ctx, 1); n != 0 || yonder.CodeOf(err) != want {
					t.Errorf("%s, nil: hot: %d, %v", where, n, err)
				}
				if err := c.Call(ctx, yonder.NewCall("nothing")); err != nil {
					t.Errorf("%s, nil: no results: %v", where, err)
				}
			}
		}
		if ran != 0 {
			t.Errorf("%d procedures ran", ran)
		}
		if strings.Contains(log.String(), "panic") {
			t.Errorf("the log has a panic:\n%s", log)
		}
		if u, _, err := user(t.Context()); u == nil || err != nil {
			t.Errorf("the next call: %v, %v", u, err)
		}
	})
}

// An interceptor may call the next handler again: at either end that makes another attempt.
func TestInterceptorRetries(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		m.needs(t, metadata)
		attempts := func(next yonder.Handler) yonder.Handler {
			return func(ctx context.Context, call *yonder.Call) (err error) {
				given := call.Metadata
				for i := range 3 {
					call.Metadata = yonder.Metadata{"attempt": fmt.Sprint(i), "for": given["for"]}
					if err = next(ctx, call); yonder.CodeOf(err) != yonder.Unavailable {
						return err
					}
				}
				return err
			}
		}
		for _, end := range []string{"client", "server"} {
			var srv yonder.Server
			if end == "server" {
				srv.Interceptors = []yonder.Interceptor{attempts}
			}
			var mu sync.Mutex
			ran := 0
			attempt := func(ctx context.Context) error {
				mu.Lock()
				defer mu.Unlock()
				ran++
				info, _ := yonder.InfoFrom(ctx)
				if got := info.Metadata["attempt"]; got != fmt.Sprint(ran-1) || info.Metadata["for"] != "Foo" {
					t.Errorf("%s: attempt %d has the metadata %v", end, ran, info.Metadata)
				}
				if ran < 3 {
					yonder.SetReply(ctx, "failed", "true")
					return yonder.Errorf(yonder.Unavailable, "not yet")
				}
				ran = 0
				yonder.SetReply(ctx, "done", "true")
				return nil
			}
			srv.Register("f", func(ctx context.Context, u User, xs ...int) (User, int, error) { return u, len(xs), attempt(ctx) })
			yonder.Handle(&srv, "hot", func(ctx context.Context, u User) (User, error) { return u, attempt(ctx) })
			c := m.intercepted(t, &srv)
			if end == "client" {
				c = m.intercepted(t, &srv, attempts)
			}
			var f func(context.Context, User, ...int) (User, int, error)
			c.Bind("f", &f)
			hot := yonder.Remote[User, User](c, "hot")
			for _, base := range []context.Context{t.Context(), context.Background()} {
				ctx := yonder.WithMetadata(base, "for", "Foo")
				if u, n, err := f(ctx, User{"Foo", 1}, 2, 3); u.Name != "Foo" || n != 2 || err != nil {
					t.Errorf("%s: %v, %d, %v", end, u, n, err)
				}
				if u, err := hot(ctx, User{"Bar", 1}); u.Name != "Bar" || err != nil {
					t.Errorf("%s: hot: %v, %v", end, u, err)
				}
			}
		}
	})
}

// What an interceptor puts into the metadata and the context goes on.
func TestInterceptorsChangeMetadata(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		m.needs(t, metadata)
		front := func(next yonder.Handler) yonder.Handler {
			return func(ctx context.Context, call *yonder.Call) error {
				given := call.Metadata
				call.Metadata = yonder.Metadata{"user": given["user"]}
				err := next(yonder.WithMetadata(ctx, "token", "secret"), call)
				if call.Reply["seen"] != "by the server" {
					t.Errorf("the answer's metadata: %v", call.Reply)
				}
				call.Reply = yonder.Metadata{"from": call.Reply["from"], "seen": "by both"}
				return err
			}
		}
		back := func(next yonder.Handler) yonder.Handler {
			return func(ctx context.Context, call *yonder.Call) error {
				if call.Metadata["token"] != "secret" {
					return yonder.Errorf(yonder.Unauthenticated, "no token")
				}
				call.Metadata = yonder.Metadata{"user": strings.ToUpper(call.Metadata["user"])}
				err := next(context.WithValue(ctx, testKey{}, "from the interceptor"), call)
				yonder.SetReply(ctx, "seen", "by the server")
				return err
			}
		}
		srv := yonder.Server{Interceptors: []yonder.Interceptor{back}}
		srv.Register("who", func(ctx context.Context) (string, error) {
			info, _ := yonder.InfoFrom(ctx)
			yonder.SetReply(ctx, "from", "the handler")
			if v := ctx.Value(testKey{}); v != "from the interceptor" {
				t.Errorf("the context's value is %v", v)
			}
			return fmt.Sprint(info.Metadata), nil
		})
		c := m.intercepted(t, &srv, front)
		want := yonder.Metadata{"from": "the handler", "seen": "by both"}
		for _, base := range []context.Context{t.Context(), context.Background()} {
			sent := yonder.Metadata{"user": "foo"}
			var reply yonder.Metadata
			call := yonder.NewCall("who")
			call.Metadata = sent
			var who string
			ctx := yonder.WithMetadata(yonder.WithReply(base, &reply), "user", "the call's own counts")
			if err := c.Call(ctx, call.Into(&who)); who != "map[user:FOO]" || err != nil {
				t.Errorf("got %q, %v", who, err)
			}
			if diff := cmp.Diff(want, reply); diff != "" {
				t.Errorf("the answer's metadata: %s", diff)
			}
			if diff := cmp.Diff(yonder.Metadata{"user": "foo"}, sent); diff != "" {
				t.Errorf("the caller's own map: %s", diff)
			}
			if m == inProcess && call.Metadata["user"] != "foo" {
				t.Errorf("the caller's call has the metadata %v, which are the other end's", call.Metadata)
			}
		}
	})
}

// A panic in an interceptor is one of the procedure at the callee's end. At the caller's it
// is the caller's own.
func TestInterceptorPanics(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		m.needs(t, metadata)
		boom := func(where string) yonder.Interceptor {
			return func(next yonder.Handler) yonder.Handler {
				return func(ctx context.Context, call *yonder.Call) error {
					switch call.Metadata["boom"] {
					case where + " before":
						panic("boom at the " + where)
					case where + " after":
						next(ctx, call)
						panic("boom at the " + where)
					}
					return next(ctx, call)
				}
			}
		}
		log := new(logBuffer)
		srv := yonder.Server{Interceptors: []yonder.Interceptor{boom("server")}, Logger: log.logger()}
		srv.Register("f", func(ctx context.Context) int { return 1 })
		c := m.intercepted(t, &srv, boom("client"))
		for _, when := range []string{" before", " after"} {
			log.reset()
			_, err := yonder.Invoke[int](yonder.WithMetadata(t.Context(), "boom", "server"+when), c, "f")
			if yonder.CodeOf(err) != yonder.Internal || !yonder.IsRemote(err) || strings.Contains(textOf(err), "boom") {
				t.Errorf("at the server, %s: %v (%v)", when, err, yonder.CodeOf(err))
			}
			if !strings.Contains(log.String(), "boom at the server") || !strings.Contains(log.String(), "interceptor_test.go") {
				t.Errorf("the log has no stack:\n%s", log)
			}
			got := panicOf(func() {
				yonder.Invoke[int](yonder.WithMetadata(t.Context(), "boom", "client"+when), c, "f")
			})
			if got != "boom at the client" {
				t.Errorf("at the client, %s: %q", when, got)
			}
			if n, err := yonder.Invoke[int](t.Context(), c, "f"); n != 1 || err != nil {
				t.Errorf("the next call: %d, %v", n, err)
			}
		}
	})
}

// Callbacks, and what the server calls at the client's, are served by what the client serves
// with. Its own interceptors are for what it calls itself, from a handler of its own, too.
func TestInterceptorsOfCallbacks(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		m.cannot(t, inProcess, noPeer)
		tr := new(trace)
		mine := yonder.Server{Interceptors: []yonder.Interceptor{tr.interceptor("mine")}, Logger: logger(t)}
		var c *yonder.Client
		mine.Register("back", func(ctx context.Context) error {
			if yonder.PeerFrom(ctx) != c {
				t.Error("the peer of a client's handler is another client")
			}
			return yonder.PeerFrom(ctx).Call(ctx, yonder.NewCall("end"))
		})
		var srv yonder.Server
		srv.Register("end", func() {})
		srv.Register("walk", walk)
		srv.Register("there", func(ctx context.Context) error {
			return yonder.PeerFrom(ctx).Call(ctx, yonder.NewCall("back"))
		})
		c = m.dialer(t, &srv, &yonder.Dialer{Server: &mine, Interceptors: []yonder.Interceptor{tr.interceptor("client")}})
		if err := c.Call(t.Context(), yonder.NewCall("walk", 1, func(int) error { return errZero })); textOf(err) != errZero.Error() {
			t.Error(err)
		}
		want := []string{"> client walk", "> mine walk#2", "< mine walk#2 divide by zero", "< client walk divide by zero"}
		if diff := cmp.Diff(want, tr.take()); diff != "" {
			t.Error(diff)
		}
		if err := c.Call(t.Context(), yonder.NewCall("there")); err != nil {
			t.Error(err)
		}
		want = []string{"> client there", "> mine back", "> client end", "< client end <nil>", "< mine back <nil>", "< client there <nil>"}
		if diff := cmp.Diff(want, tr.take()); diff != "" {
			t.Error(diff)
		}
	})
}

// An interceptor may do a call by other calls, and look at a call that never gets there.
func TestInterceptorMakesItsOwnCalls(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		srv.Register("new", func(n int) int { return n + 1 })
		var failures []string
		c := m.intercepted(t, &srv, func(next yonder.Handler) yonder.Handler {
			return func(ctx context.Context, call *yonder.Call) error {
				err := next(ctx, call)
				if err == nil {
					return nil
				}
				failures = append(failures, fmt.Sprint(call.Procedure, len(call.Args()), yonder.CodeOf(err)))
				if call.Procedure != "old" {
					return err
				}
				var n int
				if err := next(ctx, yonder.NewCall("new", call.Args()...).Into(&n)); n != 4 || err != nil {
					t.Errorf("the other call: %d, %v", n, err)
				}
				return err
			}
		})
		if _, err := yonder.Invoke[int](t.Context(), c, "old", 3); yonder.CodeOf(err) != yonder.Unimplemented {
			t.Errorf("got %v", err)
		}
		if _, err := yonder.Invoke[int](t.Context(), c, "new", "x"); yonder.CodeOf(err) != yonder.InvalidArgument {
			t.Errorf("got %v", err)
		}
		if _, err := yonder.Invoke[int](t.Context(), c, "new", make(chan int)); yonder.CodeOf(err) != yonder.InvalidArgument {
			t.Errorf("got %v", err)
		}
		if diff := cmp.Diff([]string{"old1 unimplemented", "new1 invalid_argument", "new1 invalid_argument"}, failures); diff != "" {
			t.Errorf("the interceptor saw %s", diff)
		}
	})
}

// A call that has been made by one client can be made by another: to each of them procedures have numbers
// of their own.
func TestCallOfAnotherClient(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		serve := func(name string) *yonder.Server {
			srv := new(yonder.Server)
			for _, p := range []string{"read", "delete"} {
				srv.Register(p, func() string { return name + ": " + p })
			}
			return srv
		}
		a, b := m.client(t, serve("a")), m.client(t, serve("b"))
		if got, err := yonder.Invoke[string](t.Context(), b, "delete"); got != "b: delete" || err != nil { // its number 0
			t.Fatal(got, err)
		}
		var got string
		call := yonder.NewCall("read").Into(&got)
		for _, tt := range []struct {
			client *yonder.Client
			call   *yonder.Call
			want   string
		}{{a, call, "a: read"}, {b, call, "b: read"}, {b, call.Clone(), "b: read"}, {a, call, "a: read"}} {
			err := tt.client.Call(t.Context(), tt.call)
			if tt.call != call {
				call.Take(tt.call)
			}
			if got != tt.want || err != nil {
				t.Errorf("%q, %v; want %q", got, err, tt.want)
			}
		}
		call.Procedure = "delete"
		if err := a.Call(t.Context(), call); got != "a: delete" || err != nil {
			t.Errorf("by another name: %q, %v", got, err)
		}
		through := m.intercepted(t, serve("c"), func(yonder.Handler) yonder.Handler { return b.Call })
		var read func() (string, error)
		through.Bind("read", &read)
		if got, err := read(); got != "b: read" || err != nil {
			t.Errorf("by an interceptor that has another client: %q, %v", got, err)
		}
	})
}

// An interceptor may have another procedure called than the one that is bound.
func TestInterceptorRenames(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		srv.Register("old", func(n int) int { return n })
		srv.Register("new", func(n int) int { return n + 1 })
		c := m.intercepted(t, &srv, func(next yonder.Handler) yonder.Handler {
			return func(ctx context.Context, call *yonder.Call) error {
				call.Procedure = "new"
				return next(ctx, call)
			}
		})
		var bound func(n int) (int, error)
		c.Bind("old", &bound)
		remote := yonder.Remote[int, int](c, "old")
		for range 2 {
			if n, err := bound(1); n != 2 || err != nil {
				t.Errorf("bound: %d, %v", n, err)
			}
			if n, err := remote(t.Context(), 1); n != 2 || err != nil {
				t.Errorf("remote: %d, %v", n, err)
			}
			if n, err := yonder.Invoke[int](t.Context(), c, "old", 1); n != 2 || err != nil {
				t.Errorf("Invoke: %d, %v", n, err)
			}
		}
	})
}

// A call that is being served has no places for results, and its arguments may not be decoded: a client
// says so instead of making it without them.
func TestServedCallOfClient(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		back := new(yonder.Server)
		back.Register("log", func(lines ...string) { t.Errorf("called with %d lines", len(lines)) })
		backend := m.client(t, back)
		front := &yonder.Server{Interceptors: []yonder.Interceptor{func(yonder.Handler) yonder.Handler { return backend.Call }}}
		front.Register("log", func(lines ...string) {})
		c := m.client(t, front)
		err := c.Call(t.Context(), yonder.NewCall("log", "a", "b"))
		if yonder.CodeOf(err) != yonder.InvalidArgument || !strings.Contains(err.Error(), "make another with NewCall") {
			t.Error(err)
		}
	})
}
