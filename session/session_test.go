package session_test

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/session"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Account is what the programs below send each other.
type Account struct {
	Owner string
	Cents int
}

func findAccount(id int) (Account, error) {
	accounts := map[int]Account{1: {"ann", 1200}, 2: {"bob", 5}}
	if a, ok := accounts[id]; ok {
		return a, nil
	}
	return Account{}, fmt.Errorf("there is no account %d", id)
}

// A program written against such a package's API runs as it is: one that asks for the data of a
// user by number, say.
func TestProgram(t *testing.T) {
	gob.Register(Account{})
	addr := freeAddress(t)

	srv := session.NewServer()
	srv.Register("findAccount", findAccount)
	go srv.ListenAndServe(addr)
	t.Cleanup(func() { srv.Close() })

	conn, err := dialUntilHeard(addr)
	if err != nil {
		t.Fatal(err)
	}
	cli := session.NewClient(conn)
	t.Cleanup(func() { cli.Close() })
	var find func(int) (Account, error)
	cli.Call("findAccount", &find)

	if a, err := find(1); err != nil || a != (Account{"ann", 1200}) {
		t.Errorf("%v, %v", a, err)
	}
	if _, err := find(7); err == nil || err.Error() != "there is no account 7" {
		t.Errorf("%v", err)
	}
	// The server has yonder's own protocol on the same port.
	native, err := yonder.Dial(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	defer native.Close()
	if a, err := yonder.Invoke[Account](t.Context(), native, "findAccount", 2); err != nil || a.Owner != "bob" {
		t.Errorf("%v, %v", a, err)
	}
}

// freeAddress returns an address that nobody listens on.
func freeAddress(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// dialUntilHeard dials until somebody listens.
func dialUntilHeard(addr string) (conn net.Conn, err error) {
	for range 1000 {
		if conn, err = net.Dial("tcp", addr); err == nil {
			break
		}
		time.Sleep(time.Millisecond) // the API has no way to tell
	}
	return conn, err
}

type place struct{ Lat, Lon float64 }

type celsius float32

var errClosed = errors.New("the shop is closed")

// shop is a server with functions for these tests.
func shop() *yonder.Server {
	srv := &yonder.Server{
		Protocols: []yonder.Protocol{session.Protocol},
		Errors:    map[string]error{"shop.closed": errClosed},
	}
	srv.Register("buy", buy)
	srv.Register("sum", func(n ...int) (total int) {
		for _, n := range n {
			total += n
		}
		return total
	})
	srv.Register("join", func(ctx context.Context, sep string, parts ...string) (string, error) {
		return strings.Join(parts, sep), nil
	})
	srv.Register("move", func(p place, by *place) (*place, error) {
		if by == nil {
			return nil, nil
		}
		return &place{p.Lat + by.Lat, p.Lon + by.Lon}, nil
	})
	srv.Register("swap", func(a int, b string) (string, int) { return b, a })
	srv.Register("small", func(i int8, u uint16, f float32, c celsius) string { return fmt.Sprint(i, u, f, c) })
	srv.Register("nothing", func() {})
	srv.Register("fail", func(how string) (int, error) {
		switch how {
		case "closed":
			return 0, fmt.Errorf("come back tomorrow: %w", errClosed)
		case "code":
			return 0, yonder.Errorf(yonder.NotFound, "nothing there")
		}
		return 0, errors.New(how)
	})
	srv.Register("boom", func() int { panic("boom") })
	srv.Register("big", func(n int) []byte { return make([]byte, n) })
	srv.Register("size", func(b []byte) int { return len(b) })
	srv.Register("prices", func() map[string][]place { return map[string][]place{"a": {{1, 2}}} })
	srv.Register("any", func(v any) any { return v })
	srv.Register("stream", func(r io.Reader) error { return nil })
	srv.Register("info", func(ctx context.Context) string {
		info, _ := yonder.InfoFrom(ctx)
		_, isConn := info.Conn.(net.Conn)
		return fmt.Sprint(info.Procedure, " ", info.Protocol, " ", isConn)
	})
	yonder.Handle(srv, "twice", func(ctx context.Context, n int) (int, error) { return 2 * n, nil })
	srv.RegisterService("Calc", new(calc))
	return srv
}

type calc struct{}

func (*calc) Half(n int, reply *int) error { *reply = n / 2; return nil }

// serve has srv listen, and returns the address.
func serve(t *testing.T, srv *yonder.Server) string {
	t.Helper()
	if srv.Logger == nil {
		srv.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }() // ends with Close
	t.Cleanup(func() {
		srv.Close()
		if err := <-served; err != yonder.ErrServerClosed {
			t.Errorf("Serve returned %v, want ErrServerClosed", err)
		}
	})
	return l.Addr().String()
}

// dial returns a client of srv.
func dial(t *testing.T, srv *yonder.Server) *yonder.Client {
	t.Helper()
	c, err := session.Dial(t.Context(), serve(t, srv))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// dialAPI is dial for a Client of this package.
func dialAPI(t *testing.T, address string) *session.Client {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	c := session.NewClient(conn)
	t.Cleanup(func() { c.Close() })
	return c
}

func panicOf(f func()) (text string) {
	defer func() {
		if r := recover(); r != nil {
			text = fmt.Sprint(r)
		}
	}()
	f()
	return ""
}

func TestCalls(t *testing.T) {
	c := dial(t, shop())
	ctx := t.Context()
	call := func(name string, want any, args ...any) {
		t.Helper()
		got, err := yonder.Invoke[any](ctx, c, name, args...)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s%v: %v\n%s", name, args, err, diff)
		}
	}
	call("join", "a-b", "-", "a", "b")
	call("join", "a-b", "-", []string{"a", "b"})
	call("join", "", "-")
	call("sum", 3, 1, 2)
	call("small", "-1 2 1.5 3", -1, int64(2), 1.5, 3)
	call("small", "1 0 2 0.5", uint8(1), int8(0), 2, float32(0.5))
	call("small", "0 0 0 0", nil, nil, nil, nil)
	call("twice", 8, 4)
	call("twice", 8, 4.0)
	call("Calc.Half", 2, 4)
	call("any", nil, nil)
	call("any", "x", "x")
	call("any", place{1, 2}, place{1, 2})
	call("info", "info session true")
	call("size", 100_000, make([]byte, 100_000))
	call("prices", map[string][]place{"a": {{1, 2}}})

	var move func(context.Context, place, *place) (*place, error)
	c.Bind("move", &move)
	if p, err := move(ctx, place{1, 2}, &place{1, 1}); err != nil || *p != (place{2, 3}) {
		t.Errorf("move: %v, %v", p, err)
	}
	if p, err := move(ctx, place{1, 2}, nil); err != nil || p != nil {
		t.Errorf("move: %v, %v", p, err)
	}
	var swap func(context.Context, int, string) (string, int, error)
	c.Bind("swap", &swap)
	if s, n, err := swap(ctx, 1, "x"); err != nil || s != "x" || n != 1 {
		t.Errorf("swap: %v, %v, %v", s, n, err)
	}
	if err := c.Call(ctx, yonder.NewCall("nothing")); err != nil {
		t.Errorf("nothing: %v", err)
	}
	if n, err := yonder.Remote[int, int](c, "twice")(ctx, 4); n != 8 || err != nil {
		t.Errorf("twice: %d, %v", n, err)
	}
	if list, err := c.Procedures(ctx); err != nil || len(list) == 0 {
		t.Errorf("procedures: %v, %v", list, err)
	}
	if err := c.Notify(ctx, "twice", 4); err != nil {
		t.Errorf("notify: %v", err)
	}
	call("twice", 10, 5) // the answer to the one before is not taken for this one's
}

func TestErrors(t *testing.T) {
	srv := shop()
	conn, err := net.Dial("tcp", serve(t, srv))
	if err != nil {
		t.Fatal(err)
	}
	c := session.Over(&yonder.Dialer{Errors: srv.Errors}, conn)
	defer c.Close()
	for _, e := range []struct {
		name string
		args []any
		code yonder.Code
		want string
	}{
		{"fail", []any{"so"}, yonder.Unknown, "so"},
		{"fail", []any{"code"}, yonder.NotFound, "nothing there"},
		{"fail", []any{"closed"}, yonder.Unknown, "come back tomorrow: the shop is closed"},
		{"boom", nil, yonder.Internal, `yonder: "boom" panicked`},
		{"Twice", []any{1}, yonder.Unimplemented, `yonder: no procedure "Twice"; there is "twice"`},
		{"twice", nil, yonder.InvalidArgument, `yonder: call "twice": it takes 1 argument, not 0`},
		{"twice", []any{1, 2}, yonder.InvalidArgument, `yonder: call "twice": it takes 1 argument, not 2`},
		{"twice", []any{"x"}, yonder.InvalidArgument, `yonder: call "twice": argument 1: string cannot be used as int`},
		{"twice", []any{1.5}, yonder.InvalidArgument, `yonder: call "twice": argument 1: 1.5 does not fit in int`},
		{"small", []any{128, 0, 0, 0}, yonder.InvalidArgument, `yonder: call "small": argument 1: 128 does not fit in int8`},
		{"small", []any{0, -1, 0, 0}, yonder.InvalidArgument, `yonder: call "small": argument 2: -1 does not fit in uint16`},
		{"join", nil, yonder.InvalidArgument, `yonder: call "join": it takes 1 argument or more, not 0`},
		{"join", []any{"-", "a", 1}, yonder.InvalidArgument, `yonder: call "join": argument 3: int cannot be used as string`},
		{"stream", []any{1}, yonder.Unimplemented, `yonder: "stream" has streams, readers or functions, which the session protocol cannot carry; use another`},
	} {
		err := c.Call(t.Context(), yonder.NewCall(e.name, e.args...).Into(new(any)))
		if yonder.CodeOf(err) != e.code || err.Error() != e.want || !yonder.IsRemote(err) {
			t.Errorf("%s%v: %v %v, want %v %v", e.name, e.args, yonder.CodeOf(err), err, e.code, e.want)
		}
		if errors.Is(err, errClosed) != (e.args != nil && e.args[0] == "closed") {
			t.Errorf("%s%v: errors.Is is wrong", e.name, e.args)
		}
	}
	if _, err := yonder.Invoke[order](t.Context(), c, "buy", "coffee", 1); err == nil || !errors.As(err, new(*soldOut)) {
		t.Errorf("buy: %v", err)
	}
	if _, err := yonder.Invoke[order](t.Context(), c, "buy", "nothing", 1); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("buy: %v", err)
	}
	if _, err := yonder.Invoke[string](t.Context(), c, "twice", 1); err == nil || err.Error() != `yonder: call "twice": result 1: int cannot be used as string` {
		t.Errorf("a result of another type: %v", err)
	}
	if err := c.Call(t.Context(), yonder.NewCall("twice", 1)); err == nil || err.Error() != `yonder: call "twice": the answer has 2 results, not 0` {
		t.Errorf("an unwanted result: %v", err)
	}
	type ring struct{ Next *ring }
	r := new(ring)
	r.Next = r
	if _, err := yonder.Invoke[any](t.Context(), c, "any", r); yonder.CodeOf(err) != yonder.InvalidArgument {
		t.Errorf("a ring: %v", err)
	}
	if _, err := yonder.Invoke[any](t.Context(), c, "any", make(chan int)); yonder.CodeOf(err) != yonder.InvalidArgument {
		t.Errorf("a channel: %v", err)
	}
	// What failed has cost nothing else.
	if n, err := yonder.Invoke[int](t.Context(), c, "twice", 1); n != 2 || err != nil {
		t.Errorf("twice: %d, %v", n, err)
	}
}

// Functions without an error result have only panics to fail with.
func TestFunctionsWithoutError(t *testing.T) {
	c := dialAPI(t, serve(t, shop()))
	var sum func(...int) int
	c.Call("sum", &sum)
	if n := sum(1, 2); n != 3 {
		t.Error(n)
	}
	var nothing func()
	c.Call("nothing", &nothing)
	nothing()
	var boom func() int
	c.Call("boom", &boom)
	if got := panicOf(func() { boom() }); got != `session: a call has failed, and the function has no error result to say so: yonder: "boom" panicked` {
		t.Error(got)
	}
	c.Close()
	if got := panicOf(nothing); !strings.Contains(got, "client closed") {
		t.Error(got)
	}
}

func TestUnsuitable(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	c := session.NewClient(near)
	defer c.Close()
	srv := session.NewServer()
	defer srv.Close()
	for _, f := range []struct {
		do   func()
		want string
	}{
		{func() { session.NewClient(nil) }, "session: new client: the connection is nil; see what net.Dial has returned with it"},
		{func() { c.Call("f", 1) }, `session: call "f": int is not a pointer to a func variable; use &f, where f is declared as var f func(...) (..., error)`},
		{func() { c.Call("f", nil) }, `session: call "f": <nil> is not a pointer to a func variable; use &f, where f is declared as var f func(...) (..., error)`},
		{func() { c.Call("f", new(func(chan int))) }, `session: call "f": argument 1: chan int cannot cross a connection; use iter.Seq2[int, error]`},
		{func() { c.Call("f", new(func(io.Reader))) }, `session: call "f": it has streams, readers or functions, which this protocol cannot carry; use yonder's own`},
		{func() { srv.Register("f", 1) }, `session: register "f": int is not a function, or it is nil`},
		{func() { srv.Register("f", nil) }, `session: register "f": <nil> is not a function, or it is nil`},
		{func() { srv.Register("f", func(chan int) {}) }, `session: register "f": argument 1: chan int cannot cross a connection; use iter.Seq2[int, error]`},
		{func() { srv.Register("f", func(func() error) {}) }, `session: register "f": it has streams, readers or functions, which this protocol cannot carry; use yonder's own`},
		{func() { srv.Register("", func() {}) }, `yonder: register "": the name is empty`},
	} {
		if got := panicOf(f.do); got != f.want {
			t.Errorf("%q\nwant %q", got, f.want)
		}
	}
}

// The first function of a name stays.
func TestRegisterTwice(t *testing.T) {
	srv := session.NewServer()
	srv.Register("n", func() int { return 1 })
	srv.Register("n", func() int { return 2 })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(l)
	defer srv.Shutdown(context.Background())
	c := dialAPI(t, l.Addr().String())
	defer c.Close()
	var n func() (int, error)
	c.Call("n", &n)
	if got, err := n(); got != 1 || err != nil {
		t.Error(got, err)
	}
}

func TestConcurrent(t *testing.T) {
	address := serve(t, shop())
	var wg sync.WaitGroup
	for range 8 {
		c := dialAPI(t, address)
		var twice func(context.Context, int) (int, error)
		c.Call("twice", &twice)
		for i := range 10 {
			wg.Go(func() {
				for j := range 10 {
					n := 100*i + j
					if got, err := twice(t.Context(), n); got != 2*n || err != nil {
						t.Errorf("twice(%d): %d, %v", n, got, err)
						return
					}
				}
			})
		}
	}
	wg.Wait()
}

// over returns the ends of a connection in memory that srv serves one of.
func over(t *testing.T, srv *yonder.Server) (far net.Conn, served chan error) {
	near, far := net.Pipe()
	served = make(chan error, 1)
	go func() { served <- srv.ServeConn(near) }() // ends with far
	t.Cleanup(func() { far.Close() })
	return far, served
}

// Calls of a connection run at the same time, and are answered in order.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &yonder.Server{Protocols: []yonder.Protocol{session.Protocol}}
		var mu sync.Mutex
		var ran []int
		srv.Register("sleep", func(n int) int {
			time.Sleep(time.Duration(n) * time.Second)
			mu.Lock()
			defer mu.Unlock()
			ran = append(ran, n)
			return n
		})
		conn, _ := over(t, srv)
		begin := time.Now()
		go func() {
			for n := range 4 {
				foreignWrite(conn, foreign{"sleep", []any{4 - n}})
			}
		}()
		var answers []any
		for range 4 {
			msg, err := foreignRead(conn)
			if err != nil {
				t.Fatal(err)
			}
			answers = append(answers, msg.Args...)
		}
		if diff := cmp.Diff([]any{4, 3, 2, 1}, answers); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]int{1, 2, 3, 4}, ran); diff != "" {
			t.Error(diff)
		}
		if took := time.Since(begin); took != 4*time.Second {
			t.Errorf("it took %v", took)
		}
		conn.Close()
		srv.Close()
	})
}

func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		go io.Copy(io.Discard, far)
		c := session.NewClient(near)
		c.Timeout = time.Minute
		defer c.Close()
		var f func() error
		c.Call("f", &f)
		begin := time.Now()
		err := f()
		if yonder.CodeOf(err) != yonder.DeadlineExceeded || !errors.Is(err, context.DeadlineExceeded) || yonder.IsRemote(err) || time.Since(begin) != time.Minute {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		var g func(context.Context) error
		c.Call("g", &g)
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(errClosed) })
		if err := g(ctx); yonder.CodeOf(err) != yonder.Canceled || !errors.Is(err, errClosed) {
			t.Error(err)
		}
		if err := g(ctx); yonder.CodeOf(err) != yonder.Canceled {
			t.Error(err)
		}
	})
}

// A call that its caller gave up leaves its place in the order.
func TestGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &yonder.Server{Protocols: []yonder.Protocol{session.Protocol}}
		srv.Register("after", func(n int) int { time.Sleep(time.Duration(n) * time.Second); return n })
		conn, _ := over(t, srv)
		c := session.NewClient(conn)
		c.Timeout = 5 * time.Second
		var after func(int) (int, error)
		c.Call("after", &after)
		if n, err := after(8); yonder.CodeOf(err) != yonder.DeadlineExceeded {
			t.Errorf("%d, %v", n, err)
		}
		if n, err := after(1); n != 1 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		c.Close()
		srv.Close()
	})
}

// What a client is told when the connection ends.
func TestLost(t *testing.T) {
	for _, how := range []string{"server", "client", "silent server"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				c := session.NewClient(near)
				var f func(string) error
				c.Call("f", &f)
				failed := make(chan error)
				go func() { failed <- f(strings.Repeat("x", 1<<20)) }()
				synctest.Wait()
				want := yonder.ErrConnectionLost
				switch how {
				case "server":
					far.Close()
				case "client":
					c.Close()
					want = yonder.ErrClientClosed
				}
				if err := <-failed; yonder.CodeOf(err) != yonder.Unavailable || !errors.Is(err, want) || yonder.IsRemote(err) {
					t.Errorf("%v", err)
				}
				if err := f(""); yonder.CodeOf(err) != yonder.Unavailable || !errors.Is(err, want) {
					t.Errorf("again: %v", err)
				}
				c.Close()
				far.Close()
			})
		})
	}
}

func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &yonder.Server{Protocols: []yonder.Protocol{session.Protocol}}
		release := make(chan struct{})
		srv.Register("wait", func() string { <-release; return "done" })
		conn, served := over(t, srv)
		c := session.NewClient(conn)
		var wait func() (string, error)
		c.Call("wait", &wait)
		got := make(chan string)
		go func() { s, err := wait(); got <- fmt.Sprint(s, " ", err) }()
		idle, idleServed := over(t, srv)
		foreignWrite(idle, foreign{"none", nil})
		foreignRead(idle)
		synctest.Wait()
		shut := make(chan error)
		go func() { shut <- srv.Shutdown(t.Context()) }()
		if err := <-idleServed; err != nil {
			t.Errorf("the idle connection ended with %v", err)
		}
		synctest.Wait()
		late := make(chan error)
		go func() { _, err := wait(); late <- err }()
		synctest.Wait()
		close(release)
		if got := <-got; got != "done <nil>" {
			t.Error(got)
		}
		if err := <-late; yonder.CodeOf(err) != yonder.Unavailable || !yonder.IsRemote(err) {
			t.Errorf("a call that came too late: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("the connection ended with %v", err)
		}
		if err := <-shut; err != nil {
			t.Error(err)
		}
		c.Close()
	})
}

// A handler is told when its connection ends, and why.
func TestHandlerContext(t *testing.T) {
	for _, how := range []struct {
		name string
		end  func(srv *yonder.Server, conn net.Conn)
		want error
	}{
		{"peer", func(srv *yonder.Server, conn net.Conn) { conn.Close() }, yonder.ErrConnectionLost},
		{"server", func(srv *yonder.Server, conn net.Conn) { srv.Close() }, yonder.ErrServerClosed},
	} {
		t.Run(how.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := &yonder.Server{Protocols: []yonder.Protocol{session.Protocol}}
				cause := make(chan error, 1)
				srv.Register("wait", func(ctx context.Context) { <-ctx.Done(); cause <- context.Cause(ctx) })
				conn, served := over(t, srv)
				foreignWrite(conn, foreign{"wait", nil})
				synctest.Wait()
				how.end(srv, conn)
				if err := <-cause; !errors.Is(err, how.want) {
					t.Errorf("%v, want %v", err, how.want)
				}
				<-served
				srv.Close()
			})
		})
	}
}

func TestLimits(t *testing.T) {
	srv := shop()
	srv.Limits.MaxMessage = 10_000
	conn, err := net.Dial("tcp", serve(t, srv))
	if err != nil {
		t.Fatal(err)
	}
	c := session.Over(new(yonder.Dialer), conn)
	defer c.Close()
	if _, err := yonder.Invoke[int](t.Context(), c, "size", make([]byte, 5_000_000)); yonder.CodeOf(err) != yonder.ResourceExhausted || !yonder.IsRemote(err) {
		t.Errorf("a large request: %v", err)
	}
	if _, err := yonder.Invoke[[]byte](t.Context(), c, "big", 10_001); yonder.CodeOf(err) != yonder.ResourceExhausted || !yonder.IsRemote(err) {
		t.Errorf("a large result: %v", err)
	}
	if n, err := yonder.Invoke[int](t.Context(), c, "size", make([]byte, 9_000)); n != 9_000 || err != nil {
		t.Errorf("size: %d, %v", n, err)
	}

	if err := c.Call(t.Context(), yonder.NewCall("fail", strings.Repeat("x", 8_000))); yonder.CodeOf(err) != yonder.ResourceExhausted || !strings.HasPrefix(err.Error(), "yonder: the error of the call cannot be sent: an answer of ") {
		t.Errorf("a large error: %.100v", err)
	}

	conn, err = net.Dial("tcp", serve(t, shop()))
	if err != nil {
		t.Fatal(err)
	}
	c = session.Over(&yonder.Dialer{Limits: yonder.Limits{MaxMessage: 10_000}}, conn)
	defer c.Close()
	if _, err := yonder.Invoke[[]byte](t.Context(), c, "big", 1_000_000); yonder.CodeOf(err) != yonder.ResourceExhausted || yonder.IsRemote(err) {
		t.Errorf("a large answer: %v", err)
	}
	if b, err := yonder.Invoke[[]byte](t.Context(), c, "big", 9_000); len(b) != 9_000 || err != nil {
		t.Errorf("big: %d, %v", len(b), err)
	}
}

func TestDial(t *testing.T) {
	if _, err := session.Dial(t.Context(), "http://x"); yonder.CodeOf(err) != yonder.InvalidArgument {
		t.Error(err)
	}
	if _, err := session.Dial(t.Context(), "tcp://"+freeAddress(t)); yonder.CodeOf(err) != yonder.Unavailable {
		t.Error(err)
	}
}

// A client that was given its connection cannot connect again, and says what can.
func TestConnectionLost(t *testing.T) {
	near, far := net.Pipe()
	c := session.Over(new(yonder.Dialer), near)
	defer c.Close()
	far.Close()
	<-c.Done()
	err := c.Call(t.Context(), yonder.NewCall("twice", 1))
	want := `yonder: call "twice": connection lost: EOF; this client was given its connection and cannot make another, as those of session.Dial do`
	if !errors.Is(err, yonder.ErrConnectionLost) || yonder.CodeOf(err) != yonder.Unavailable || err.Error() != want || yonder.MayHaveRun(err) {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// MayHaveRun is false where nothing of a call has been given to a connection.
func TestMayHaveRun(t *testing.T) {
	srv := &yonder.Server{Protocols: []yonder.Protocol{session.Protocol}}
	began := make(chan struct{}, 1)
	release := make(chan struct{})
	defer close(release)
	srv.Register("hang", func() { began <- struct{}{}; <-release })
	srv.Register("fail", func(any) error { return yonder.Errorf(yonder.Unavailable, "no") })
	address := serve(t, srv)
	var conn net.Conn // the last one
	away := false
	d := session.Dialer{Client: yonder.Dialer{NetDial: func(ctx context.Context, network, _ string) (c net.Conn, err error) {
		if away {
			return nil, errors.New("nobody is there")
		}
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return conn, err
	}}}
	c, err := d.Dial(t.Context(), "tcp://x:1")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	is := func(what string, err error, may bool) {
		t.Helper()
		if err == nil || yonder.MayHaveRun(err) != may {
			t.Errorf("%s: %v, may have run: %t", what, err, yonder.MayHaveRun(err))
		}
	}
	is("a handler's error", c.Call(t.Context(), yonder.NewCall("fail", 1)), true)
	is("a bad argument", c.Call(t.Context(), yonder.NewCall("fail", []any{make(chan int)})), false)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	is("a context that is over", c.Call(ctx, yonder.NewCall("fail", 1)), false)
	failed := make(chan error)
	go func() { failed <- c.Call(t.Context(), yonder.NewCall("hang")) }() // ends with the connection
	<-began
	away = true
	conn.Close()
	is("a call in flight", <-failed, true)
	is("without a server", c.Call(t.Context(), yonder.NewCall("fail", 1)), false)
	c.Close()
	is("a closed client", c.Call(t.Context(), yonder.NewCall("fail", 1)), false)
}

// What connects again is made as the Dialer says.
func TestDialer(t *testing.T) {
	srv := shop()
	address := serve(t, srv)
	var conns []net.Conn
	calls := 0
	d := session.Dialer{Client: yonder.Dialer{
		NetDial: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, address)
			conns = append(conns, conn)
			return conn, err
		},
		Interceptors: []yonder.Interceptor{func(next yonder.Handler) yonder.Handler {
			return func(ctx context.Context, call *yonder.Call) error { calls++; return next(ctx, call) }
		}},
	}}
	c, err := d.Dial(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range 3 {
		for { // until the loss is known, a call may be lost with it
			n, err := yonder.Invoke[int](t.Context(), c, "twice", i)
			if err == nil && n == 2*i {
				break
			}
			if !errors.Is(err, yonder.ErrConnectionLost) {
				t.Fatalf("%d, %v", n, err)
			}
		}
		conns[i].Close()
	}
	if len(conns) != 3 || calls < 3 {
		t.Errorf("%d connections, %d calls", len(conns), calls)
	}
}

func TestSession(t *testing.T) {
	near, far := net.Pipe()
	a, b := session.NewSession(near), session.NewSession(far)
	for _, size := range []int{0, 1, 70_000, 1_000_000} {
		sent := []byte(strings.Repeat("x", size))
		go a.Write(sent)
		if got, err := b.Read(); string(got) != string(sent) || err != nil {
			t.Errorf("%d bytes, %v; want %d", len(got), err, size)
		}
	}
	b.MaxMessage = 2000
	go a.Write(make([]byte, 2001))
	if _, err := b.Read(); err == nil || err.Error() != "a message of 2001 bytes is larger than the limit of 2000" {
		t.Error(err)
	}
	go func() {
		near.Write([]byte{0, 0, 0, 9, 1})
		near.Close()
	}()
	if _, err := b.Read(); err != io.ErrUnexpectedEOF {
		t.Error(err)
	}
	if _, err := b.Read(); err != io.EOF {
		t.Error(err)
	}
}
