package rpc_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	stock "net/rpc"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/net/rpc"
	"github.com/yonder-rpc/yonder/session"
	"github.com/yonder-rpc/yonder/web"
)

// serveProtocol serves srv on a port until the test ends.
func serveProtocol(tb testing.TB, srv *yonder.Server) (address string) {
	tb.Helper()
	srv.Protocols = append(srv.Protocols, rpc.Protocol)
	if srv.Logger == nil {
		srv.Logger = slog.New(slog.NewTextHandler(tb.Output(), nil))
	}
	l := listen(tb)
	served := make(chan struct{})
	go func() { // ends with Close
		defer close(served)
		srv.Serve(l)
	}()
	tb.Cleanup(func() {
		srv.Close()
		<-served
	})
	return l.Addr().String()
}

// User is an argument and a result.
type User struct {
	Name string
	Age  int
}

// Knot may contain itself.
type Knot struct {
	Name string
	Next *Knot
}

// Moody panics when it is encoded.
type Moody struct{ Mood string }

func (Moody) GobEncode() ([]byte, error) { panic("not today") }
func (*Moody) GobDecode([]byte) error    { panic("not today") }

func functions() *yonder.Server {
	srv := new(yonder.Server)
	srv.RegisterService("Math", Math{})
	srv.Register("queryUser", func(id int) (User, error) {
		if id == 0 {
			return User{}, yonder.Errorf(yonder.NotFound, "no user %d", id)
		}
		return User{"Ann", id}, nil
	})
	srv.Register("ping", func() {})
	srv.Register("version", func(context.Context) string { return "v1" })
	srv.Register("pair", func(a int, b string) string { return fmt.Sprint(a, b) })
	srv.Add(yonder.Procedure{
		Name: "named", Params: []string{"from", "to", "arg1", "名", "-"},
		Func: func(from, to string, n, m, o int) string { return fmt.Sprint(from, to, n, m, o) },
	})
	srv.Register("sum", func(xs ...int) (sum int) {
		for _, x := range xs {
			sum += x
		}
		return sum
	})
	srv.Register("join", func(sep string, parts ...string) string { return strings.Join(parts, sep) })
	srv.Register("divmod", func(a, b int) (int, int, error) {
		if b == 0 {
			return 0, 0, errors.New("divide by zero")
		}
		return a / b, a % b, nil
	})
	srv.Register("find", func(name string) (*User, bool) {
		if name == "" {
			return nil, false
		}
		return &User{Name: name}, true
	})
	srv.Register("mayBeNil", func(some bool) *User {
		if some {
			return &User{Name: "some"}
		}
		return nil
	})
	srv.Register("same", func(v any) any { return v })
	srv.Register("knot", func(tie bool) *Knot {
		k := &Knot{Name: "a"}
		if tie {
			k.Next = k
		}
		return k
	})
	srv.Register("moody", func() Moody { return Moody{} })
	srv.Register("takeMoody", func(Moody) {})
	srv.Register("silent", func() error { return errors.New("") })
	srv.Register("boom", func() { panic("boom") })
	srv.Register("exit", func() { runtime.Goexit() })
	srv.Register("stream", func(n int) iter.Seq2[int, error] { return nil })
	yonder.Handle(srv, "shout", func(ctx context.Context, s string) (string, error) { return strings.ToUpper(s), nil })
	return srv
}

// TestProtocol has stock clients call functions, over TCP and through HTTP, on the port that
// serves the native protocol.
func TestProtocol(t *testing.T) {
	noLeaks(t)
	gob.Register(User{})
	srv := functions()
	srv.Protocols = []yonder.Protocol{web.Protocol}
	var mu sync.Mutex
	seen := map[string]int{}
	srv.Interceptors = []yonder.Interceptor{func(next yonder.Handler) yonder.Handler {
		return func(ctx context.Context, call *yonder.Call) error {
			mu.Lock()
			defer mu.Unlock()
			seen[call.Info().Protocol+" "+call.Procedure]++
			return next(ctx, call)
		}
	}}
	address := serveProtocol(t, srv)
	overTCP, err := stock.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer overTCP.Close()
	overHTTP, err := stock.DialHTTP("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer overHTTP.Close()
	anything := any(User{"Ann", 3})
	for _, c := range []*stock.Client{overTCP, overHTTP} {
		for _, call := range []struct {
			method  string
			args    any
			want    any    // a pointer
			failure string // in place of want
		}{
			{method: "Math.Add", args: &Pair{7, 8}, want: new(15)},
			{method: "Math.Div", args: Pair{1, 0}, failure: "divide by zero"},
			{method: "Math.Count", args: map[string][]int{"a": {1, 2}}, want: new(2)},
			{method: "queryUser", args: 3, want: &User{"Ann", 3}},
			{method: "queryUser", args: 0, failure: "no user 0"},
			{method: "queryUser", args: "three", failure: `yonder: call "queryUser": gob: decoding into local type *int, received remote type string`},
			{method: "ping", args: map[string]int{"anything": 1}, want: &struct{}{}},
			{method: "ping", args: struct{}{}},
			{method: "version", args: 1, want: new("v1")},
			{method: "pair", args: struct {
				Arg2  string
				Arg1  int
				Extra bool
			}{"x", 1, true}, want: new("1x")},
			{method: "pair", args: struct{}{}, want: new("0")},
			{method: "pair", args: struct{ Left, Right int }{1, 2}, failure: `yonder: call "pair": gob: type mismatch: no fields matched compiling decoder for `},
			{method: "named", args: struct {
				From, Arg2       string
				Arg3, Arg4, Arg5 int
			}{"a", "b", 3, 4, 5}, want: new("ab3 4 5")},
			{method: "named", args: struct {
				Arg1, To string
			}{"a", "b"}, want: new("ab0 0 0")},
			{method: "sum", args: []int{1, 2, 3}, want: new(6)},
			{method: "sum", args: []int{}, want: new(0)},
			{method: "join", args: struct {
				Arg1 string
				Arg2 []string
			}{"-", []string{"a", "b"}}, want: new("a-b")},
			{method: "divmod", args: struct{ Arg1, Arg2 int }{17, 5}, want: &struct{ Result1, Result2 int }{3, 2}},
			{method: "divmod", args: struct{ Arg1, Arg2 int }{17, 0}, failure: "divide by zero"},
			{method: "find", args: "bob", want: &struct {
				Result1 *User
				Result2 bool
			}{&User{Name: "bob"}, true}},
			{method: "find", args: "", want: &struct {
				Result1 *User
				Result2 bool
			}{}},
			{method: "mayBeNil", args: true, want: &User{Name: "some"}},
			{method: "mayBeNil", args: false, failure: "rpc: reply of mayBeNil: gob cannot encode a nil *rpc_test.User"},
			{method: "same", args: &anything, want: &anything},
			{method: "same", args: 5, failure: `yonder: call "same": gob: local interface type *interface {} can only be decoded from remote interface type`},
			{method: "knot", args: false, want: &Knot{Name: "a"}},
			{method: "knot", args: true, failure: "rpc: reply of knot: result 1: a value that is nested deeper than 10000 levels, or contains itself"},
			{method: "moody", args: 1, failure: "rpc: reply of moody: panic encoding rpc_test.Moody: not today"},
			{method: "silent", args: 1, failure: "rpc: silent failed with an error that has no text"},
			{method: "boom", args: 1, failure: `yonder: "boom" panicked`},
			{method: "exit", args: 1, failure: `rpc: exit panicked`},
			{method: "stream", args: 1, failure: `yonder: "stream" has streams, readers or functions, which net/rpc cannot carry; call it by yonder.Dial`},
			{method: "shout", args: "hello", want: new("HELLO")},
			{method: "shout", args: 1, failure: `yonder: call "shout": gob: `},
			{method: "Math.None", args: 1, failure: "rpc: can't find method Math.None"},
			{method: "math.Add", args: 1, failure: `rpc: can't find service math.Add; there is "Math.Add"`},
			{method: "None.None", args: 1, failure: "rpc: can't find service None.None"},
			{method: "none", args: 1, failure: "rpc: can't find service none"},
			{method: "", args: 1, failure: "rpc: can't find service "},
			{method: "_goRPC_.Cancel", args: 1, failure: "rpc: can't find service _goRPC_.Cancel"},
		} {
			var got any
			if call.want != nil {
				got = reflect.New(reflect.TypeOf(call.want).Elem()).Interface()
			}
			err := c.Call(call.method, call.args, got)
			switch {
			case call.failure != "" && (err == nil || !strings.HasPrefix(err.Error(), call.failure)):
				t.Errorf("%s(%v): %v; want %s", call.method, call.args, err, call.failure)
			case call.failure == "" && err != nil:
				t.Errorf("%s(%v): %v", call.method, call.args, err)
			case call.failure == "":
				if diff := cmp.Diff(call.want, got); diff != "" {
					t.Errorf("%s(%v):\n%s", call.method, call.args, diff)
				}
			}
		}
	}
	native, err := yonder.Dial(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer native.Close()
	if n, err := yonder.Invoke[int](t.Context(), native, "sum", 1, 2, 3); n != 6 || err != nil {
		t.Errorf("the native protocol on the same port: %d, %v", n, err)
	}
	mu.Lock()
	defer mu.Unlock()
	if seen["netrpc Math.Add"] != 2 || seen["netrpc queryUser"] != 6 || seen["yonder sum"] != 1 || seen["netrpc stream"] != 0 {
		t.Errorf("interceptors saw %v", seen)
	}
}

// TestProtocolInterop has many callers at once.
func TestProtocolInterop(t *testing.T) {
	noLeaks(t)
	srv := functions()
	address := serveProtocol(t, srv)
	for range 3 {
		many(t, dialStock(t, address))
		many(t, dial(t, address))
	}
}

// TestProtocolExtension is what clients of this package get: deadlines, cancellation,
// metadata and codes.
func TestProtocolExtension(t *testing.T) {
	noLeaks(t)
	var srv yonder.Server
	began, ended := make(chan struct{}, 1), make(chan error, 1)
	srv.Register("wait", func(ctx context.Context) error {
		began <- struct{}{}
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return ctx.Err()
	})
	srv.Register("info", func(ctx context.Context, key string) string {
		info, _ := yonder.InfoFrom(ctx)
		_, isConn := info.Conn.(net.Conn)
		m, _ := yonder.Outgoing(ctx)
		yonder.SetReply(ctx, "seen", info.Metadata[key])
		return fmt.Sprint(info.Procedure, info.Protocol, info.Metadata[key], isConn, m == nil, yonder.PeerFrom(ctx) == nil)
	})
	srv.Register("missing", func() error { return yonder.Errorf(yonder.NotFound, "gone") })
	srv.Register("nothing", func() *User { return nil })
	address := serveProtocol(t, &srv)
	c := dial(t, address)

	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-began
		cancel()
	}()
	if err := c.CallContext(ctx, "wait", 1, nil); err != context.Canceled {
		t.Errorf("a canceled call: %v", err)
	}
	if cause := <-ended; cause != context.Canceled {
		t.Errorf("the handler's context ended with %v; want context.Canceled", cause)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := c.CallContext(ctx, "wait", 1, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a call whose time was up: %v", err)
	}
	<-began
	if cause := <-ended; cause != context.DeadlineExceeded {
		t.Errorf("the handler's context ended with %v; want context.DeadlineExceeded", cause)
	}
	var m yonder.Metadata
	ctx = yonder.WithReply(yonder.WithMetadata(t.Context(), "k", "v"), &m)
	var got string
	if err := c.CallContext(ctx, "info", "k", &got); err != nil || got != "infonetrpcvtrue true true" || m["seen"] != "v" {
		t.Errorf("info: %q, %v, %v", got, m, err)
	}
	err := c.CallContext(ctx, "missing", 1, nil)
	if yonder.CodeOf(err) != yonder.NotFound || !yonder.IsRemote(err) {
		t.Errorf("missing: %#v", err)
	}
	for method, code := range map[string]yonder.Code{"nothing": yonder.Internal, "none": yonder.Unimplemented} {
		if err := c.CallContext(ctx, method, 1, nil); yonder.CodeOf(err) != code || !yonder.IsRemote(err) {
			t.Errorf("%s: %v, %v; want %v", method, yonder.CodeOf(err), err, code)
		}
	}
	if err := c.CallContext(ctx, "info", 1, &got); yonder.CodeOf(err) != yonder.InvalidArgument {
		t.Errorf("info(1): %v", err)
	}
	err = c.Call("none", 1, nil)
	if _, ok := err.(rpc.ServerError); !ok || !yonder.IsRemote(err) || yonder.CodeOf(err) != yonder.Unknown {
		t.Errorf("a plain call: %#v; want a ServerError", err)
	}
	ctx = yonder.WithMetadata(t.Context(), "large", strings.Repeat("x", 20_000))
	if err := c.CallContext(ctx, "info", "k", &got); yonder.CodeOf(err) != yonder.ResourceExhausted {
		t.Errorf("large metadata: %v", err)
	}
	mustCall(t, c)
}

func mustCall(t *testing.T, c caller) {
	t.Helper()
	var got string
	if err := c.Call("info", "", &got); err != nil {
		t.Fatal(err)
	}
}

// TestProtocolShutdown ends a server in its different ways.
func TestProtocolShutdown(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(t *testing.T, srv *yonder.Server, release chan struct{}, client net.Conn)
		want string // what the call returns; "": nobody hears of it
	}{
		{"shutdown", func(t *testing.T, srv *yonder.Server, release chan struct{}, _ net.Conn) {
			done := make(chan error)
			go func() { done <- srv.Shutdown(t.Context()) }()
			synctest.Wait()
			close(release)
			if err := <-done; err != nil {
				t.Errorf("Shutdown: %v", err)
			}
		}, "released"},
		{"close", func(t *testing.T, srv *yonder.Server, release chan struct{}, _ net.Conn) {
			srv.Close() // the handler ignores it
			synctest.Wait()
			close(release)
		}, "unexpected EOF"},
		{"close after the client has gone", func(t *testing.T, srv *yonder.Server, release chan struct{}, client net.Conn) {
			client.Close()
			synctest.Wait()
			srv.Close()
			close(release)
		}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := &yonder.Server{Protocols: []yonder.Protocol{rpc.Protocol}, Logger: slog.New(slog.DiscardHandler)}
				release := make(chan struct{})
				cause := make(chan error, 1)
				srv.Register("wait", func(ctx context.Context) string {
					stop := context.AfterFunc(ctx, func() { cause <- context.Cause(ctx) })
					defer stop()
					<-release
					return "released"
				})
				near, far := net.Pipe()
				served := make(chan error, 1)
				go func() { served <- srv.ServeConn(far) }()
				c := stock.NewClient(near)
				var got string
				call := c.Go("wait", 1, &got, nil)
				synctest.Wait()
				test.end(t, srv, release, near)
				if err := <-served; test.want != "" && err != nil {
					t.Errorf("ServeConn: %v", err)
				}
				<-call.Done
				if call.Error != nil {
					got = call.Error.Error()
				}
				if test.want != "" && got != test.want {
					t.Errorf("the call: %q; want %q", got, test.want)
				}
				if test.name == "close" {
					if err := <-cause; err != yonder.ErrServerClosed {
						t.Errorf("the handler's context ended with %v; want ErrServerClosed", err)
					}
				}
				c.Close()
			})
		})
	}
}

// TestProtocolRefuses is a call that comes while the server shuts down.
func TestProtocolRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &yonder.Server{Protocols: []yonder.Protocol{rpc.Protocol}}
		release := make(chan struct{})
		srv.Register("wait", func() { <-release })
		near, far := net.Pipe()
		go srv.ServeConn(far)
		c := rpc.NewClient(near)
		defer c.Close()
		first := c.Go("wait", 1, nil, nil)
		synctest.Wait()
		done := make(chan error)
		go func() { done <- srv.Shutdown(t.Context()) }()
		synctest.Wait()
		if err := c.CallContext(t.Context(), "wait", 1, nil); yonder.CodeOf(err) != yonder.Unavailable {
			t.Errorf("a call while the server shuts down: %v", err)
		}
		close(release)
		if err := (<-first.Done).Error; err != nil {
			t.Errorf("the call in flight: %v", err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestProtocolLimits has peers meet the server's limits.
func TestProtocolLimits(t *testing.T) {
	noLeaks(t)
	t.Run("message", func(t *testing.T) {
		srv := functions()
		srv.Limits.MaxMessage = 10_000
		c := dialStock(t, serveProtocol(t, srv))
		defer c.Close()
		for range 2 {
			if err := c.Call("Math.Echo", make([]byte, 20_000), new([]byte)); err == nil || !strings.Contains(err.Error(), "larger than the limit of 10000") {
				t.Errorf("a large argument: %v", err)
			}
			mustAdd(t, c)
		}
	})
	t.Run("header", func(t *testing.T) {
		address := serveProtocol(t, functions())
		c := dialStock(t, address)
		defer c.Close()
		if err := c.Call(strings.Repeat("x", 200_000), 1, nil); err == nil || strings.Contains(err.Error(), "find") {
			t.Errorf("a large header: %v; want the connection lost", err)
		}
		again := dialStock(t, address)
		defer again.Close()
		mustAdd(t, again)
	})
	t.Run("calls", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			srv := &yonder.Server{Protocols: []yonder.Protocol{rpc.Protocol}, Limits: yonder.Limits{MaxCalls: 3}}
			release := make(chan struct{})
			var mu sync.Mutex
			running, most := 0, 0
			srv.Register("wait", func() {
				mu.Lock()
				running++
				most = max(most, running)
				mu.Unlock()
				<-release
				mu.Lock()
				running--
				mu.Unlock()
			})
			near, far := net.Pipe()
			go srv.ServeConn(far)
			c := rpc.NewClient(near)
			var callers sync.WaitGroup
			for range 10 {
				callers.Go(func() {
					if err := c.Call("wait", 1, nil); err != nil {
						t.Error(err)
					}
				})
			}
			synctest.Wait()
			close(release)
			callers.Wait()
			if most != 3 {
				t.Errorf("%d calls ran at once; want 3", most)
			}
			c.Close()
			srv.Close()
		})
	})
	t.Run("close while all slots are taken", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			srv := &yonder.Server{Protocols: []yonder.Protocol{rpc.Protocol}, Limits: yonder.Limits{MaxCalls: 3}}
			release := make(chan struct{})
			srv.Register("wait", func() { <-release })
			near, far := net.Pipe()
			go srv.ServeConn(far)
			c := rpc.NewClient(near)
			var callers sync.WaitGroup
			for range 10 {
				callers.Go(func() { c.Call("wait", 1, nil) })
			}
			synctest.Wait()
			srv.Close()
			callers.Wait()
			close(release)
			c.Close()
		})
	})
	t.Run("a peer that does not read", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			srv := functions()
			srv.Protocols = []yonder.Protocol{rpc.Protocol}
			near, far := net.Pipe()
			served := make(chan error)
			go func() { served <- srv.ServeConn(far) }()
			var b bytes.Buffer
			enc := gob.NewEncoder(&b)
			enc.Encode(&stock.Request{ServiceMethod: "Math.Add", Seq: 1})
			enc.Encode(Pair{1, 2})
			near.Write(b.Bytes())
			began := time.Now()
			<-served
			if waited := time.Since(began); waited != 15*time.Second {
				t.Errorf("it was served for %v; want 15 seconds", waited)
			}
			near.Close()
		})
	})
	t.Run("a peer that stops within a message", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			srv := functions()
			srv.Logger = slog.New(slog.DiscardHandler)
			srv.Protocols = []yonder.Protocol{rpc.Protocol}
			near, far := net.Pipe()
			served := make(chan error)
			go func() { served <- srv.ServeConn(far) }()
			c := stock.NewClient(near)
			mustAdd(t, c)
			time.Sleep(time.Hour) // between messages it may
			mustAdd(t, c)
			near.Write([]byte{0x20, 1, 2, 3})
			began := time.Now()
			<-served
			if waited := time.Since(began); waited != 15*time.Second {
				t.Errorf("it was served for %v; want 15 seconds", waited)
			}
			c.Close()
		})
	})
}

// TestProtocolHostile sends what no client would.
func TestProtocolHostile(t *testing.T) {
	noLeaks(t)
	t.Run("decoded at once", func(t *testing.T) { testHostile(t) })
	t.Run("decoded late", func(t *testing.T) { testHostile(t, letThrough) })
}

func testHostile(t *testing.T, interceptors ...yonder.Interceptor) {
	srv := functions()
	srv.Interceptors = interceptors
	srv.Limits.MaxMessage = 1 << 20
	srv.Logger = slog.New(slog.DiscardHandler)
	address := serveProtocol(t, srv)
	header := func(method string) []byte {
		var b bytes.Buffer
		gob.NewEncoder(&b).Encode(&rpc.Request{ServiceMethod: method, Seq: 1})
		return b.Bytes()
	}
	both := func(method string, arg any) []byte {
		var b bytes.Buffer
		enc := gob.NewEncoder(&b)
		enc.Encode(&rpc.Request{ServiceMethod: method, Seq: 1})
		enc.Encode(arg)
		return b.Bytes()
	}
	for name, message := range map[string][]byte{
		"half a header":   header("Math.Add")[:20],
		"no argument":     header("Math.Add"),
		"huge argument":   append(header("Math.Add"), 0xfc, 0x3f, 0xff, 0xff, 0xff, 2, 0),
		"zeros":           append(header("Math.Add"), make([]byte, 1<<16)...),
		"no such service": append(header("None.None"), 0xfc, 0x3f, 0xff, 0xff, 0xff, 2, 0),
		"skipped":         append(header("ping"), 0xfc, 0x3f, 0xff, 0xff, 0xff, 2, 0),
		"decoder panics":  both("takeMoody", struct{ X int }{1}),
		"many calls":      bytes.Repeat(both("Math.Add", Pair{1, 2}), 100), // the second defines types again
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range 10 {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			conn.Write(message)
			conn.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, conn) // until the server closes
			conn.Close()
		}
		runtime.ReadMemStats(&after)
		if spent := after.TotalAlloc - before.TotalAlloc; spent > 32<<20 {
			t.Errorf("%s: it cost %d bytes of memory", name, spent)
		}
	}
	c := dialStock(t, address)
	defer c.Close()
	mustAdd(t, c)
}

// TestProtocolHalfClosed answers a peer that has closed its direction.
func TestProtocolHalfClosed(t *testing.T) {
	noLeaks(t)
	conn, err := net.Dial("tcp", serveProtocol(t, functions()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	enc := gob.NewEncoder(conn)
	enc.Encode(&stock.Request{ServiceMethod: "Math.Add", Seq: 1})
	enc.Encode(Pair{1, 2})
	conn.(*net.TCPConn).CloseWrite()
	dec := gob.NewDecoder(conn)
	var response stock.Response
	var sum int
	if err := errors.Join(dec.Decode(&response), dec.Decode(&sum)); err != nil || sum != 3 {
		t.Errorf("%v, %d, %v", response, sum, err)
	}
	if err := dec.Decode(&sum); err != io.EOF {
		t.Errorf("after that: %v; want EOF", err)
	}
}

// firstBytes returns what a client sends first in a process of its own that has told gob of so
// many types before: this test's binary.
func firstBytes(t *testing.T, types int, client string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestDetect$")
	cmd.Env = append(os.Environ(), "RPC_TEST_FIRST="+strconv.Itoa(types), "RPC_TEST_CLIENT="+client)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	line, _, _ := bytes.Cut(out, []byte("\n"))
	var first []byte
	if err := json.Unmarshal(line, &first); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return first
}

// sendFirst is what firstBytes runs.
func sendFirst(t *testing.T) {
	types, err := strconv.Atoi(os.Getenv("RPC_TEST_FIRST"))
	if err != nil {
		t.Fatal(err)
	}
	enc := gob.NewEncoder(io.Discard)
	for i := range types {
		v := reflect.New(reflect.StructOf([]reflect.StructField{{Name: fmt.Sprint("F", i), Type: reflect.TypeFor[int]()}}))
		if err := enc.EncodeValue(v); err != nil {
			t.Fatal(err)
		}
	}
	near, far := net.Pipe()
	go func() {
		switch os.Getenv("RPC_TEST_CLIENT") {
		case "standard":
			stock.NewClient(near).Go("Math.Add", Pair{1, 2}, nil, nil)
		case "plain":
			rpc.NewClient(near).Go("Math.Add", Pair{1, 2}, nil, nil)
		default:
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			rpc.NewClient(near).CallContext(ctx, "Math.Add", Pair{1, 2}, nil)
		}
	}()
	first := make([]byte, 64)
	if _, err := io.ReadFull(far, first); err != nil {
		t.Fatal(err)
	}
	json.NewEncoder(os.Stdout).Encode(first)
}

// TestDetect has the protocol told from others by what real peers begin with.
func TestDetect(t *testing.T) {
	if os.Getenv("RPC_TEST_FIRST") != "" {
		sendFirst(t)
		return
	}
	for _, client := range []string{"standard", "plain", "context"} {
		for _, types := range []int{0, 1, 100, 1000} {
			first := firstBytes(t, types, client)
			decided := yonder.Maybe
			for n := 1; n <= len(first); n++ {
				verdict := rpc.Protocol.Detect(first[:n])
				if verdict == yonder.No || decided == yonder.Yes && verdict != yonder.Yes {
					t.Fatalf("%s client after %d types: verdict %v of % x", client, types, verdict, first[:n])
				}
				decided = verdict
			}
			if decided != yonder.Yes {
				t.Errorf("%s client after %d types: verdict %v of % x", client, types, decided, first)
			}
			if session.Protocol.Detect(first) != yonder.No {
				t.Errorf("the session protocol claims % x", first)
			}
			if web.Protocol.Detect(first) != yonder.No {
				t.Errorf("HTTP claims % x", first)
			}
		}
	}
	if v := rpc.Protocol.Detect([]byte("\x30\xfd\x02\x22\xe1\x03\x01\x01\x07Request")); v != yonder.Yes {
		t.Errorf("verdict %v of a type's number of three bytes", v)
	}
	var others [][]byte
	for _, text := range []string{
		`{"method":"Math.Add","params":[1],"id":1}`, `{ "jsonrpc": "2.0"}`, "{\n\t\"id\"", "{\"\u00e9\":1}", "[{}]", " {}", "\r\n{",
		"GET / HTTP/1.1\r\n", "POST /jsonrpc HTTP/1.1\r\n", "CONNECT /_goRPC_ HTTP/1.0\n\n", "PRI * HTTP/2.0\r\n", "SSH-2.0-Go", "EHLO x\r\n", "\x00\x00",
		"Request", "\xd9YND\x01", "\xd9\x7f\x03\x01\x01\x07Request",
	} {
		others = append(others, []byte(text))
	}
	for size := 1; size <= 16<<20; size = size*5/4 + 1 {
		var body bytes.Buffer
		gob.NewEncoder(&body).Encode(session.RPCData{Func: "f", Args: []any{strings.Repeat("x", size)}})
		frame := binary.BigEndian.AppendUint32(nil, uint32(body.Len()))
		others = append(others, append(frame, body.Bytes()[:60]...))
		var frames bytes.Buffer
		binary.Write(&frames, binary.BigEndian, uint32(size))
		others = append(others, append(frames.Bytes(), "\x2e\x7f\x03\x01\x01\x07Request"...))
	}
	others = append(others, tlsHello(t))
	for _, first := range others {
		for n := 2; n <= min(len(first), 64); n++ {
			if v := rpc.Protocol.Detect(first[:n]); v == yonder.Yes || v == yonder.Maybe && n > 2 {
				t.Errorf("verdict %v of %q", v, first[:n])
			}
		}
	}
}

// tlsHello returns how a TLS client begins.
func tlsHello(t *testing.T) []byte {
	near, far := net.Pipe()
	defer far.Close()
	go tls.Client(near, &tls.Config{ServerName: "example.com"}).HandshakeContext(t.Context())
	first := make([]byte, 64)
	if _, err := io.ReadFull(far, first); err != nil {
		t.Fatal(err)
	}
	return first
}

// FuzzProtocol checks that nothing a peer sends panics a server, or keeps it, and that what is
// detected is so however much of it has come.
func FuzzProtocol(f *testing.F) {
	var b bytes.Buffer
	enc := gob.NewEncoder(&b)
	enc.Encode(&stock.Request{ServiceMethod: "Math.Add", Seq: 1})
	enc.Encode(Pair{1, 2})
	enc.Encode(&stock.Request{ServiceMethod: "pair", Seq: 2})
	enc.Encode(struct{ Arg1 int }{1})
	f.Add(b.Bytes())
	// With interceptors, arguments are decoded when these have let the call through.
	servers := []*yonder.Server{functions(), functions(), functions()}
	for i, intercept := range []yonder.Interceptor{nil, letThrough, refuse} {
		servers[i].Logger = slog.New(slog.DiscardHandler)
		servers[i].Limits.MaxMessage = 1 << 16
		if intercept != nil {
			servers[i].Interceptors = []yonder.Interceptor{intercept}
		}
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		before := yonder.Maybe
		for n := 1; n <= min(len(input), 64); n++ {
			v := rpc.Protocol.Detect(input[:n])
			if before != yonder.Maybe && v != before {
				t.Fatalf("verdict %v of % x, but %v of one byte more", before, input[:n-1], v)
			}
			before = v
		}
		for _, srv := range servers {
			near, far := net.Pipe()
			served := make(chan struct{})
			go func() {
				defer close(served)
				rpc.Protocol.ServeConn(t.Context(), srv, far)
			}()
			go io.Copy(io.Discard, near)
			near.Write(input)
			near.Close()
			<-served
		}
	})
}

func letThrough(next yonder.Handler) yonder.Handler { return next }

func refuse(yonder.Handler) yonder.Handler {
	return func(context.Context, *yonder.Call) error {
		return yonder.Errorf(yonder.PermissionDenied, "not today")
	}
}
