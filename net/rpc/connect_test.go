package rpc_test

import (
	"context"
	"errors"
	"io"
	"iter"
	"log"
	"net"
	"net/http"
	stock "net/rpc"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/net/rpc"
	"github.com/yonder-rpc/yonder/web"
)

// Args2 is what a stock service takes for two arguments.
type Args2 struct {
	Arg1 int
	Arg2 string
}

// Results2 is what it returns for two results.
type Results2 struct {
	Result1 string
	Result2 int
}

// Stock is a service for the standard package.
type Stock struct{ began, release chan struct{} }

func newStock() *Stock { return &Stock{make(chan struct{}, 100), make(chan struct{})} }

func (*Stock) Hello(name string, reply *string) error {
	*reply = "Hello, " + name
	return nil
}

func (*Stock) Two(args Args2, reply *Results2) error {
	*reply = Results2{args.Arg2, args.Arg1}
	return nil
}

func (*Stock) Nothing(_ struct{}, _ *struct{}) error { return nil }

func (*Stock) Any(arg any, reply *any) error {
	*reply = arg
	return nil
}

func (s *Stock) Wait(_ int, reply *bool) error {
	s.began <- struct{}{}
	<-s.release
	*reply = true
	return nil
}

// connected returns a client of address that is closed when the test ends.
func connected(t *testing.T, address string) *yonder.Client {
	t.Helper()
	c, err := rpc.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestConnect has a yonder client call stock servers over TCP, a Unix socket and HTTP, and a
// yonder server.
func TestConnect(t *testing.T) {
	noLeaks(t)
	log.SetOutput(io.Discard) // the standard server logs that its listener is closed
	t.Cleanup(func() { log.SetOutput(os.Stderr) })
	service := newStock()
	t.Cleanup(func() { close(service.release) })
	s := stock.NewServer()
	s.Register(service)
	s.Register(Math{})

	overTCP := listen(t)
	dir, err := os.MkdirTemp("", "rpc") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	overUnix, err := net.Listen("unix", filepath.Join(dir, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	overHTTP := listen(t)
	handler := http.NewServeMux()
	handler.Handle("/path", s)
	handler.Handle(rpc.DefaultRPCPath, s)
	behind := &http.Server{Handler: handler}
	var accepting sync.WaitGroup
	accepting.Go(func() { s.Accept(overTCP) })
	accepting.Go(func() { s.Accept(overUnix) })
	accepting.Go(func() { behind.Serve(overHTTP) })
	t.Cleanup(func() {
		overTCP.Close()
		overUnix.Close()
		behind.Close()
		accepting.Wait()
	})
	srv := &yonder.Server{Protocols: []yonder.Protocol{web.Protocol}}
	srv.RegisterService("Stock", service)
	srv.RegisterService("Math", Math{})
	ours := serveProtocol(t, srv)

	for name, address := range map[string]string{
		"host and port":    overTCP.Addr().String(),
		"tcp":              "tcp://" + overTCP.Addr().String(),
		"unix":             "unix://" + overUnix.Addr().String(),
		"http":             "http://" + overHTTP.Addr().String(),
		"http with a path": "http://" + overHTTP.Addr().String() + "/path",
		"yonder":           "tcp://" + ours,
		"yonder over http": "http://" + ours,
	} {
		t.Run(name, func(t *testing.T) { connectedCalls(t, connected(t, address)) })
	}
	for address, code := range map[string]yonder.Code{
		"tcp://127.0.0.1:1": yonder.Unavailable,
		"http://" + overHTTP.Addr().String() + "/nowhere": yonder.Unavailable,
		"ftp://127.0.0.1:1": yonder.InvalidArgument,
	} {
		if _, err := rpc.Connect(t.Context(), address); yonder.CodeOf(err) != code {
			t.Errorf("%s: %v; want %v", address, err, code)
		}
	}
}

func connectedCalls(t *testing.T, c *yonder.Client) {
	var service struct {
		Hello   func(ctx context.Context, name string) (string, error)
		Two     func(n int, s string) (string, int, error)
		Nothing func() error
		Any     func(v any) (any, error)
		Wait    func(ctx context.Context, n int) (bool, error)
		None    func(n int) error
	}
	c.BindService("Stock", &service)
	for range 2 {
		if got, err := service.Hello(t.Context(), "Ann"); got != "Hello, Ann" || err != nil {
			t.Errorf("Hello: %q, %v", got, err)
		}
		if s, n, err := service.Two(7, "x"); s != "x" || n != 7 || err != nil {
			t.Errorf("Two: %q, %d, %v", s, n, err)
		}
		if err := service.Nothing(); err != nil {
			t.Errorf("Nothing: %v", err)
		}
		if v, err := service.Any("text"); v != "text" || err != nil {
			t.Errorf("Any: %v, %v", v, err)
		}
		if n, err := yonder.Remote[map[string][]int, int](c, "Math.Count")(t.Context(), map[string][]int{"a": {1, 2}}); n != 2 || err != nil {
			t.Errorf("Count: %d, %v", n, err)
		}
		if n, err := yonder.Invoke[int](t.Context(), c, "Math.Add", &Pair{1, 2}); n != 3 || err != nil {
			t.Errorf("Add: %d, %v", n, err)
		}

		if err := service.None(1); yonder.CodeOf(err) != yonder.Unimplemented || !yonder.IsRemote(err) || !strings.Contains(err.Error(), "can't find method Stock.None") {
			t.Errorf("a method that is missing: %v, %v", yonder.CodeOf(err), err)
		}
		_, err := yonder.Invoke[int](t.Context(), c, "Math.Div", Pair{1, 0})
		if yonder.CodeOf(err) != yonder.Unknown || !yonder.IsRemote(err) || err.Error() != "divide by zero" || !errors.Is(err, rpc.ServerError("divide by zero")) {
			t.Errorf("Div by zero: %#v", err)
		}
		for name, call := range map[string]*yonder.Call{
			"nil pointer":     yonder.NewCall("Math.Add", (*Pair)(nil)),
			"nil":             yonder.NewCall("Math.Add", nil),
			"unheard of":      yonder.NewCall("Math.Add", Box{unheardOf{1}}),
			"panics":          yonder.NewCall("Math.Add", Moody{}),
			"contains itself": yonder.NewCall("Math.Add", knot()),
		} {
			call.OneWay = name == "unheard of"
			if err := c.Call(t.Context(), call); yonder.CodeOf(err) != yonder.InvalidArgument || yonder.IsRemote(err) {
				t.Errorf("%s: %v, %v; want InvalidArgument", name, yonder.CodeOf(err), err)
			}
		}
		if _, err := yonder.Invoke[iter.Seq2[int, error]](t.Context(), c, "Stock.Hello", "x"); yonder.CodeOf(err) != yonder.Unimplemented || yonder.IsRemote(err) {
			t.Errorf("a stream: %v", err)
		}
		if _, err := yonder.Invoke[int](t.Context(), c, "Stock.Hello", "x"); yonder.CodeOf(err) != yonder.Internal || !strings.Contains(err.Error(), "type mismatch") && !strings.Contains(err.Error(), "decoding into local type") {
			t.Errorf("a reply of another type: %v, %v", yonder.CodeOf(err), err)
		}
		if _, err := yonder.Invoke[string](t.Context(), c, "Stock.Hello", 5); err == nil || !yonder.IsRemote(err) {
			t.Errorf("an argument of another type: %v", err)
		}

		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		_, err = service.Wait(ctx, 1)
		cancel()
		if yonder.CodeOf(err) != yonder.DeadlineExceeded || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a call whose time was up: %v", err)
		}
		ctx, cancel = context.WithCancel(t.Context())
		cancel()
		if _, err := service.Hello(ctx, ""); yonder.CodeOf(err) != yonder.Canceled || !errors.Is(err, context.Canceled) {
			t.Errorf("a canceled call: %v", err)
		}
		if err := c.Notify(t.Context(), "Stock.Hello", "nobody"); err != nil {
			t.Errorf("Notify: %v", err)
		}
		if err := c.Check(t.Context()); yonder.CodeOf(err) != yonder.Unimplemented {
			t.Errorf("Check: %v", err)
		}
	}
}

func knot() *Knot {
	k := new(Knot)
	k.Next = k
	return k
}

// TestConnectFunctions has both ends be yonder's, with this package's wire between them.
func TestConnectFunctions(t *testing.T) {
	noLeaks(t)
	srv := functions()
	began := make(chan struct{}, 1)
	srv.Register("wait", func(ctx context.Context) error {
		began <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	})
	srv.Register("meta", func(ctx context.Context) (string, error) {
		info, _ := yonder.InfoFrom(ctx)
		yonder.SetReply(ctx, "k", "reply")
		return info.Metadata["k"], nil
	})
	d := new(rpc.Dialer)
	transport, err := d.Transport(t.Context(), serveProtocol(t, srv))
	if err != nil {
		t.Fatal(err)
	}
	var seen atomic.Int32
	yd := yonder.Dialer{Timeout: time.Minute, Interceptors: []yonder.Interceptor{func(next yonder.Handler) yonder.Handler {
		return func(ctx context.Context, call *yonder.Call) error {
			seen.Add(1)
			return next(ctx, call)
		}
	}}}
	c := yd.NewClientOver(transport)
	defer c.Close()

	var join func(sep string, parts ...string) (string, error)
	var divmod func(a, b int) (int, int, error)
	var find func(name string) (*User, bool, error)
	c.Bind("join", &join)
	c.Bind("divmod", &divmod)
	c.Bind("find", &find)
	if s, err := join("-", "a", "b", "c"); s != "a-b-c" || err != nil {
		t.Errorf("join: %q, %v", s, err)
	}
	if q, r, err := divmod(17, 5); q != 3 || r != 2 || err != nil {
		t.Errorf("divmod: %d, %d, %v", q, r, err)
	}
	if u, ok, err := find(""); u != nil || ok || err != nil {
		t.Errorf("find: %v, %v, %v", u, ok, err)
	}
	if _, err := yonder.Invoke[User](t.Context(), c, "queryUser", 0); yonder.CodeOf(err) != yonder.NotFound || !yonder.IsRemote(err) {
		t.Errorf("queryUser: %v", err)
	}
	var reply yonder.Metadata
	ctx := yonder.WithReply(yonder.WithMetadata(t.Context(), "k", "v"), &reply)
	if got, err := yonder.Invoke[string](ctx, c, "meta"); got != "v" || err != nil || reply["k"] != "reply" {
		t.Errorf("meta: %q, %v, %v", got, reply, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := c.Call(ctx, yonder.NewCall("wait")); yonder.CodeOf(err) != yonder.DeadlineExceeded {
		t.Errorf("wait: %v", err)
	}
	if list, err := c.Procedures(t.Context()); err != nil || len(list) == 0 {
		t.Errorf("Procedures: %d, %v", len(list), err)
	}
	if n := seen.Load(); n != 7 {
		t.Errorf("the interceptor saw %d calls", n)
	}
	<-began
	waiting := make(chan error)
	go func() { waiting <- c.Call(context.Background(), yonder.NewCall("wait")) }()
	<-began
	c.Close()
	if err := <-waiting; yonder.CodeOf(err) != yonder.Unavailable || !errors.Is(err, yonder.ErrClientClosed) {
		t.Errorf("a call in flight when the client was closed: %v", err)
	}
	if err := c.Call(t.Context(), yonder.NewCall("sum", []int{1})); yonder.CodeOf(err) != yonder.Unavailable || !errors.Is(err, yonder.ErrClientClosed) {
		t.Errorf("a call on a closed client: %v", err)
	}
	<-c.Done()
}

// TestConnectAgain loses connections.
func TestConnectAgain(t *testing.T) {
	noLeaks(t)
	log.SetOutput(io.Discard) // the standard server logs that its listener is closed
	t.Cleanup(func() { log.SetOutput(os.Stderr) })
	service := newStock()
	s := stock.NewServer()
	s.Register(service)
	l := listen(t)
	conns := make(chan net.Conn, 10)
	var serving sync.WaitGroup
	accept := func(l net.Listener) {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conns <- conn
			serving.Go(func() { s.ServeConn(conn) })
		}
	}
	serving.Go(func() { accept(l) })
	c := connected(t, l.Addr().String())
	hello := func() error {
		got, err := yonder.Invoke[string](t.Context(), c, "Stock.Hello", "Ann")
		if diff := cmp.Diff("Hello, Ann", got); err == nil && diff != "" {
			t.Error(diff)
		}
		return err
	}
	if err := hello(); err != nil {
		t.Fatal(err)
	}
	// A call in flight fails, and the next one connects again.
	waiting := make(chan error)
	go func() {
		_, err := yonder.Invoke[bool](t.Context(), c, "Stock.Wait", 1)
		waiting <- err
	}()
	<-service.began
	(<-conns).Close()
	if err := <-waiting; yonder.CodeOf(err) != yonder.Unavailable || !errors.Is(err, yonder.ErrConnectionLost) {
		t.Errorf("a call in flight: %v", err)
	}
	if err := hello(); err != nil {
		t.Errorf("the next call: %v", err)
	}
	close(service.release)
	// Nobody listens, and then somebody does.
	address := l.Addr().String()
	l.Close()
	(<-conns).Close()
	failed := 0
	for hello() != nil {
		if failed++; failed == 2 {
			again, err := net.Listen("tcp", address)
			if err != nil {
				t.Skipf("the port is gone: %v", err)
			}
			defer again.Close()
			serving.Go(func() { accept(again) })
			l = again
		}
		if failed > 10 {
			t.Fatal("it does not connect again")
		}
	}
	if failed == 0 {
		t.Error("calls succeeded without a server")
	}
	c.Close()
	l.Close()
	serving.Wait()
}

// TestMayHaveRun: it is false where nothing of a call has been given to a connection.
func TestMayHaveRun(t *testing.T) {
	noLeaks(t)
	srv := new(yonder.Server)
	began := make(chan struct{}, 1)
	srv.Register("hang", func(ctx context.Context) { began <- struct{}{}; <-ctx.Done() })
	srv.Register("fail", func(any) error { return yonder.Errorf(yonder.Unavailable, "no") })
	c := connected(t, serveProtocol(t, srv))
	is := func(what string, err error, may bool) {
		t.Helper()
		if err == nil || yonder.MayHaveRun(err) != may {
			t.Errorf("%s: %v, may have run: %t", what, err, yonder.MayHaveRun(err))
		}
	}
	is("a handler's error", c.Call(t.Context(), yonder.NewCall("fail", 1)), true)
	is("a bad argument", c.Call(t.Context(), yonder.NewCall("fail", []any{make(chan int)})), false)
	is("a one-way call's", c.Notify(t.Context(), "fail", []any{make(chan int)}), false)
	is("a stream", c.Call(t.Context(), yonder.NewCall("fail", strings.NewReader("x"))), false)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	is("a context that is over", c.Call(ctx, yonder.NewCall("fail", 1)), false)
	failed := make(chan error)
	go func() { failed <- c.Call(t.Context(), yonder.NewCall("hang")) }() // ends with the connection
	<-began
	srv.Close()
	is("a call in flight", <-failed, true)
	is("without a server", c.Call(t.Context(), yonder.NewCall("fail", 1)), false)
	c.Close()
	is("a closed client", c.Call(t.Context(), yonder.NewCall("fail", 1)), false)
}

// TestInFlightClosed: a call in flight when its client is closed may have run.
func TestInFlightClosed(t *testing.T) {
	noLeaks(t)
	srv := new(yonder.Server)
	began := make(chan struct{}, 1)
	srv.Register("hang", func(ctx context.Context) { began <- struct{}{}; <-ctx.Done() })
	c := connected(t, serveProtocol(t, srv))
	failed := make(chan error)
	go func() { failed <- c.Call(context.Background(), yonder.NewCall("hang")) }() // ends with the client
	<-began
	c.Close()
	if err := <-failed; !errors.Is(err, yonder.ErrClientClosed) || !yonder.MayHaveRun(err) {
		t.Errorf("%v, may have run: %t", err, yonder.MayHaveRun(err))
	}
}
