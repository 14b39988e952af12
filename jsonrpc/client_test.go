package jsonrpc_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/jsonrpc"
)

// modes are the ways for a client to reach a server.
var modes = []string{"tcp", "unix", "header", "http", "ws"}

// run runs a test in every mode, each as a subtest that must leave no goroutine behind.
func run(t *testing.T, test func(t *testing.T, mode string)) {
	t.Helper()
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			noLeaks(t)
			test(t, mode)
		})
	}
}

// client returns a client of srv, made by d, in a mode. Both are closed when the test
// ends.
func client(t testing.TB, mode string, srv *yonder.Server, d *jsonrpc.Dialer) *yonder.Client {
	t.Helper()
	if srv.Logger == nil {
		srv.Logger = newLogger(t)
	}
	if srv.Protocols == nil {
		srv.Protocols = []yonder.Protocol{jsonrpc.Protocol}
	}
	var url string
	switch mode {
	case "tcp", "header":
		d.ContentLength = mode == "header"
		url = "tcp://" + serve(t, srv)
	case "unix":
		dir, err := os.MkdirTemp("", "yonder") // t.TempDir may be too long for a socket
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		url = "unix://" + filepath.Join(dir, "socket")
		l, err := yonder.Listen(url)
		if err != nil {
			t.Fatal(err)
		}
		go srv.Serve(l) // ends with Close
		t.Cleanup(func() { srv.Close() })
	case "http":
		url = serveHTTP(t, srv, new(jsonrpc.Config))
	case "ws":
		url = "ws" + strings.TrimPrefix(serveHTTP(t, srv, new(jsonrpc.Config)), "http")
	}
	c, err := d.Dial(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

type point struct {
	X, Y int
	Note any `json:"note,omitempty"`
}

var errSold = errors.New("sold out")

type stockError struct{ Left int }

func (e *stockError) Error() string { return fmt.Sprintf("%d left", e.Left) }

func TestValues(t *testing.T) {
	run(t, func(t *testing.T, mode string) {
		srv := new(yonder.Server)
		srv.Register("none", func() {})
		srv.Register("swap", func(a int, b string) (string, int) { return b, a })
		srv.Register("move", func(p point, by ...int) *point {
			for _, n := range by {
				p.X += n
			}
			return &p
		})
		srv.Register("any", func(v any) any { return v })
		srv.Register("typed", func(v any) string { return fmt.Sprintf("%T %v", v, v) })
		srv.Register("bytes", func(b []byte) []byte { return bytes.ToUpper(b) })
		srv.Register("optional", func(a int, b *int) int {
			if b == nil {
				return a
			}
			return a + *b
		})
		srv.Register("params", func(p jsonrpc.Params) string { return string(p) })
		yonder.Handle(srv, "twice", func(ctx context.Context, n int64) (int64, error) { return 2 * n, nil })
		c := client(t, mode, srv, new(jsonrpc.Dialer))
		ctx := t.Context()

		if err := c.Call(ctx, yonder.NewCall("none")); err != nil {
			t.Error(err)
		}
		var swap func(context.Context, int, string) (string, int, error)
		c.Bind("swap", &swap)
		if s, n, err := swap(ctx, 1, "<ü\u2028>"); s != "<ü\u2028>" || n != 1 || err != nil {
			t.Errorf("swap: %q, %d, %v", s, n, err)
		}
		var move func(context.Context, point, ...int) (*point, error)
		c.Bind("move", &move)
		if p, err := move(ctx, point{X: 1, Note: []any{int64(math.MaxInt64)}}); err != nil {
			t.Error(err)
		} else if diff := cmp.Diff(&point{X: 1, Note: []any{int64(math.MaxInt64)}}, p); diff != "" {
			t.Error(diff)
		}
		for _, v := range []any{nil, true, "x", int64(math.MinInt64), 1.5, 1e300, []any{int64(1), "2", nil}, map[string]any{"a": map[string]any{"b": int64(1) << 60}}} {
			got, err := yonder.Invoke[any](ctx, c, "any", v)
			if diff := cmp.Diff(v, got); diff != "" || err != nil {
				t.Errorf("%v: %v\n%s", v, err, diff)
			}
		}
		if s, err := yonder.Invoke[string](ctx, c, "typed", uint64(math.MaxUint64)); s != "*big.Int 18446744073709551615" || err != nil {
			t.Error(s, err)
		}
		if b, err := yonder.Invoke[[]byte](ctx, c, "bytes", []byte("abc")); string(b) != "ABC" || err != nil {
			t.Errorf("%q, %v", b, err)
		}
		two := 2
		for want, args := range map[int][]any{1: {1}, 3: {1, &two}} {
			if n, err := yonder.Invoke[int](ctx, c, "optional", args...); n != want || err != nil {
				t.Errorf("optional: %d, %v, want %d", n, err, want)
			}
		}
		for _, p := range []string{"", `[1,  {"a":2}]`, `{"x":1e3}`} {
			if s, err := yonder.Invoke[string](ctx, c, "params", jsonrpc.Params(p)); s != p || err != nil {
				t.Errorf("params %q: %q, %v", p, s, err)
			}
		}
		if n, err := yonder.Remote[int64, int64](c, "twice")(ctx, math.MaxInt64/2); n != math.MaxInt64-1 || err != nil {
			t.Error(n, err)
		}
		if list, err := c.Procedures(ctx); len(list) != 9 || err != nil {
			t.Errorf("procedures: %d, %v", len(list), err)
		}
		for name, args := range map[string][]any{"swap": {1}, "twice": {"x"}, "none": {1}, "any": {func() error { return nil }}, "bytes": {math.NaN()}} {
			if err := c.Call(ctx, yonder.NewCall(name, args...)); yonder.CodeOf(err) != yonder.InvalidArgument {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := yonder.Invoke[int](ctx, c, "typed", 1); yonder.CodeOf(err) != yonder.Internal {
			t.Errorf("a result of another type: %v", err)
		}
	})
}

func TestErrors(t *testing.T) {
	run(t, func(t *testing.T, mode string) {
		listed := map[string]error{"shop.SoldOut": errSold, "shop.Stock": (*stockError)(nil)}
		srv := &yonder.Server{Errors: listed}
		srv.Register("buy", func(what string) error {
			switch what {
			case "tea":
				return &yonder.Error{Code: yonder.Aborted, Message: "no tea", Details: map[string]any{"n": int64(7)}, Err: errors.Join(errSold, &stockError{3}, fs.ErrNotExist)}
			case "own":
				return fmt.Errorf("wrapped: %w", &jsonrpc.Error{Code: 4001, Message: "mine", Data: []int{1, 2}})
			case "text":
				return errors.New("just a text")
			case "bad text":
				return errors.New("a\xffb")
			case "panic":
				panic("boom")
			}
			return nil
		})
		srv.Register("unfit", func() (float64, error) { return math.Inf(1), nil })
		c := client(t, mode, srv, &jsonrpc.Dialer{Client: yonder.Dialer{Errors: listed}})
		var buy func(ctx context.Context, what string) error
		c.Bind("buy", &buy)

		err := buy(t.Context(), "tea")
		stock, ok := errors.AsType[*stockError](err)
		if yonder.CodeOf(err) != yonder.Aborted || err.Error() != "no tea" || !yonder.IsRemote(err) ||
			!errors.Is(err, errSold) || !errors.Is(err, fs.ErrNotExist) || !ok || stock.Left != 3 {
			t.Errorf("tea: %#v", err)
		}
		if d, ok := yonder.DetailsAs[struct{ N int }](err); !ok || d.N != 7 {
			t.Errorf("details: %v, %v", d, ok)
		}
		if e, ok := errors.AsType[*jsonrpc.Error](err); !ok || e.Code != -32010 {
			t.Errorf("as it was written: %#v", e)
		}
		err = buy(t.Context(), "own")
		if e, ok := errors.AsType[*jsonrpc.Error](err); !ok || e.Code != 4001 || e.Message != "mine" || fmt.Sprintf("%s", e.Data) != "[1,2]" || err.Error() != "mine" {
			t.Errorf("own: %#v", err)
		}
		if d, ok := yonder.DetailsAs[[]int](err); !ok || len(d) != 2 {
			t.Errorf("own details: %v", d)
		}
		for what, want := range map[string]string{"text": "unknown just a text", "bad text": "unknown a\uFFFDb", "panic": `internal yonder: "buy" panicked`, "": "ok"} {
			err := buy(t.Context(), what)
			got := yonder.CodeOf(err).String()
			if err != nil {
				got += " " + err.Error()
			}
			if got != want {
				t.Errorf("%q: %s, want %s", what, got, want)
			}
		}
		if _, err := yonder.Invoke[float64](t.Context(), c, "unfit"); yonder.CodeOf(err) != yonder.Internal || !strings.Contains(err.Error(), "+Inf") {
			t.Errorf("unfit: %v", err)
		}
		if err := c.Call(t.Context(), yonder.NewCall("no")); yonder.CodeOf(err) != yonder.Unimplemented || !strings.Contains(err.Error(), `"no"`) || !yonder.IsRemote(err) {
			t.Errorf("no such procedure: %v", err)
		}
	})
}

func TestContexts(t *testing.T) {
	run(t, func(t *testing.T, mode string) {
		srv := new(yonder.Server)
		ended := make(chan error, 1)
		srv.Register("hang", func(ctx context.Context) error {
			<-ctx.Done()
			ended <- ctx.Err()
			return ctx.Err()
		})
		began := make(chan struct{}, 1)
		srv.Register("began", func(ctx context.Context) error {
			began <- struct{}{}
			<-ctx.Done()
			ended <- ctx.Err()
			return ctx.Err()
		})
		srv.Register("left", func(ctx context.Context) (time.Duration, error) {
			deadline, _ := ctx.Deadline()
			return time.Until(deadline), nil
		})
		srv.Register("meta", func(ctx context.Context) string {
			info, _ := yonder.InfoFrom(ctx)
			yonder.SetReply(ctx, "who", "me")
			yonder.SetReply(ctx, "Not A Header", "ö")
			return fmt.Sprint(info.Protocol, " ", info.Metadata["a"], info.Metadata["Ä"])
		})
		c := client(t, mode, srv, new(jsonrpc.Dialer))

		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if err := c.Call(ctx, yonder.NewCall("hang")); !errors.Is(err, context.DeadlineExceeded) || yonder.CodeOf(err) != yonder.DeadlineExceeded {
			t.Errorf("deadline: %v", err)
		}
		<-ended
		ctx, abort := context.WithCancelCause(t.Context())
		why := errors.New("changed my mind")
		go func() {
			<-began
			abort(why)
		}()
		if err := c.Call(ctx, yonder.NewCall("began")); !errors.Is(err, context.Canceled) || !errors.Is(err, why) || yonder.IsRemote(err) {
			t.Errorf("cancel: %v", err)
		}
		if err := <-ended; err != context.Canceled {
			t.Errorf("the handler's context: %v", err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if left, err := yonder.Invoke[time.Duration](ctx, c, "left"); err != nil || left < 59*time.Minute || left > time.Hour+time.Second {
			t.Errorf("left: %v, %v", left, err)
		}
		var reply yonder.Metadata
		ctx = yonder.WithReply(yonder.WithMetadata(t.Context(), "a", "1", "Ä", "ß"), &reply)
		if s, err := yonder.Invoke[string](ctx, c, "meta"); s != "jsonrpc 1ß" || err != nil || reply["who"] != "me" || reply["Not A Header"] != "ö" {
			t.Errorf("metadata: %q, %v, %v", s, err, reply)
		}
	})
}

// A variadic function's parameters are sent as they were given, and the procedure may be
// variadic, or not.
func TestVariadic(t *testing.T) {
	run(t, func(t *testing.T, mode string) {
		type user struct{ Name string }
		srv := new(yonder.Server)
		srv.Register("params", func(p jsonrpc.Params) string { return string(p) })
		srv.Register("users", func(us ...*user) string {
			text := fmt.Sprint(us == nil, len(us))
			for _, u := range us {
				text += fmt.Sprint(" ", u == nil)
			}
			return text
		})
		srv.Register("pair", func(a, b int) int { return a - b })
		srv.Register("any", func(vs ...any) string { return fmt.Sprintf("%v", vs) })
		srv.Register("bytes", func(b ...byte) string { return string(b) })
		c := client(t, mode, srv, new(jsonrpc.Dialer))
		var params func(a string, slices ...[]int) (string, error)
		c.Bind("params", &params)
		var alone func(...int) (string, error)
		c.Bind("params", &alone)
		var users func(...*user) (string, error)
		c.Bind("users", &users)
		var pair func(...int) (int, error)
		c.Bind("pair", &pair)
		var anything func(...any) (string, error)
		c.Bind("any", &anything)
		var bytes func(...byte) (string, error)
		c.Bind("bytes", &bytes)
		for _, e := range []struct {
			what string
			call func() (any, error)
			want any
		}{
			{"none of two", func() (any, error) { return params("x") }, `["x"]`},
			{"a nil slice", func() (any, error) { return params("x", nil...) }, `["x"]`},
			{"slices", func() (any, error) { return params("x", []int{1, 2}, []int{}, nil) }, `["x",[1,2],[],null]`},
			{"none", func() (any, error) { return alone() }, `[]`},
			{"no users", func() (any, error) { return users() }, "true 0"},
			{"users", func() (any, error) { return users(nil, &user{"Foo"}, nil) }, "false 3 true false true"},
			{"for two", func() (any, error) { return pair(5, 3) }, 2},
			{"any", func() (any, error) { return anything(1, nil, []any{"x"}, true) }, "[1 <nil> [x] true]"},
			{"bytes", func() (any, error) { return bytes([]byte("hi")...) }, "hi"},
		} {
			if got, err := e.call(); got != e.want || err != nil {
				t.Errorf("%s: got %v, %v; want %v", e.what, got, err, e.want)
			}
		}
		if _, err := pair(1, 2, 3); yonder.CodeOf(err) != yonder.InvalidArgument {
			t.Errorf("three for two: %v", err)
		}
		if _, err := anything(1, make(chan int)); yonder.CodeOf(err) != yonder.InvalidArgument || !strings.Contains(err.Error(), "argument 2: ") {
			t.Errorf("a channel: %v", err)
		}
	})
}

func count(n int) iter.Seq2[int, error] {
	return func(yield func(int, error) bool) {
		for i := range n {
			if !yield(i, nil) {
				return
			}
		}
	}
}

func TestStreams(t *testing.T) {
	run(t, func(t *testing.T, mode string) {
		srv := new(yonder.Server)
		srv.Register("count", count)
		stopped := make(chan error, 1)
		srv.Register("forever", func(ctx context.Context) iter.Seq2[string, error] {
			return func(yield func(string, error) bool) {
				defer func() { stopped <- ctx.Err() }()
				for yield("again", nil) {
				}
			}
		})
		srv.Register("fail", func() iter.Seq2[int, error] {
			return func(yield func(int, error) bool) {
				_ = yield(1, nil) && yield(0, yonder.Errorf(yonder.NotFound, "no more: %w", fs.ErrNotExist))
			}
		})
		srv.Register("panic", func() iter.Seq2[int, error] {
			return func(yield func(int, error) bool) {
				yield(1, nil)
				panic("boom")
			}
		})
		srv.Register("sum", func(numbers iter.Seq2[int, error]) (sum int, err error) {
			for n, err := range numbers {
				if err != nil {
					return 0, err
				}
				sum += n
			}
			return sum, nil
		})
		srv.Register("large", func() io.ReadCloser { return io.NopCloser(strings.NewReader(strings.Repeat("0123456789", 100_000))) })
		srv.Register("both", func() (iter.Seq[int], int, io.Reader) {
			return func(yield func(int) bool) { _ = yield(1) && yield(2) }, 3, strings.NewReader("four")
		})
		srv.Register("length", func(r io.Reader) (int64, error) { return io.Copy(io.Discard, r) })
		srv.Register("none", func() (iter.Seq[int], io.Reader) { return nil, nil })
		c := client(t, mode, srv, new(jsonrpc.Dialer))
		ctx := t.Context()

		var counting func(context.Context, int) (iter.Seq2[int, error], error)
		c.Bind("count", &counting)
		for _, n := range []int{0, 1, 2000} {
			numbers, err := counting(ctx, n)
			if err != nil {
				t.Fatal(err)
			}
			next := 0
			for i, err := range numbers {
				if err != nil || i != next {
					t.Fatalf("%d, %v, want %d", i, err, next)
				}
				next++
			}
			if next != n {
				t.Errorf("%d numbers of %d", next, n)
			}
			for _, err := range numbers {
				if yonder.CodeOf(err) != yonder.FailedPrecondition {
					t.Errorf("again: %v", err)
				}
			}
		}

		var forever func(context.Context) (iter.Seq2[string, error], error)
		c.Bind("forever", &forever)
		words, err := forever(ctx)
		if err != nil {
			t.Fatal(err)
		}
		heard := 0
		for range words {
			if heard++; heard == 1000 {
				break
			}
		}
		<-stopped
		within, cancel := context.WithCancel(ctx)
		words, err = forever(within)
		if err != nil {
			t.Fatal(err)
		}
		for _, err := range words {
			if err != nil {
				if !errors.Is(err, context.Canceled) {
					t.Errorf("after cancel: %v", err)
				}
				break
			}
			cancel()
		}
		cancel()
		<-stopped

		for name, want := range map[string]yonder.Code{"fail": yonder.NotFound, "panic": yonder.Internal} {
			numbers, err := yonder.Invoke[iter.Seq2[int, error]](ctx, c, name)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for n, err := range numbers {
				got = append(got, fmt.Sprint(n, yonder.CodeOf(err), yonder.IsRemote(err)))
				if name == "fail" && err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Error(err)
				}
			}
			if diff := cmp.Diff([]string{fmt.Sprint(1, yonder.Code(0), false), fmt.Sprint(0, want, true)}, got); diff != "" {
				t.Error(diff)
			}
		}
		if sum, err := yonder.Invoke[int](ctx, c, "sum", count(100)); sum != 4950 || err != nil {
			t.Error(sum, err)
		}
		r, err := yonder.Invoke[io.ReadCloser](ctx, c, "large")
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(r); len(b) != 1_000_000 || err != nil || !bytes.HasSuffix(b, []byte("0123456789")) {
			t.Errorf("%d bytes, %v", len(b), err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		var both func(context.Context) (iter.Seq[int], int, io.Reader, error)
		c.Bind("both", &both)
		numbers, three, four, err := both(ctx)
		if err != nil || three != 3 {
			t.Fatal(three, err)
		}
		if b, err := io.ReadAll(four); string(b) != "four" || err != nil {
			t.Errorf("%q, %v", b, err)
		}
		sum := 0
		for n := range numbers {
			sum += n
		}
		if sum != 3 {
			t.Errorf("sum is %d", sum)
		}
		if n, err := yonder.Invoke[int64](ctx, c, "length", strings.NewReader(strings.Repeat("x", 1<<20))); n != 1<<20 || err != nil {
			t.Error(n, err)
		}
		var none func(context.Context) (iter.Seq[int], io.Reader, error)
		c.Bind("none", &none)
		empty, nothing, err := none(ctx)
		if nothing != nil || err != nil {
			t.Fatal(nothing, err)
		}
		for n := range empty {
			t.Errorf("a stream that is nil yields %d", n)
		}
	})
}

func TestNotify(t *testing.T) {
	run(t, func(t *testing.T, mode string) {
		srv := new(yonder.Server)
		heard := make(chan string, 1)
		srv.Register("say", func(s string) error { heard <- s; return errors.New("nobody hears this") })
		c := client(t, mode, srv, new(jsonrpc.Dialer))
		if err := c.Notify(t.Context(), "say", "hi"); err != nil {
			t.Error(err)
		}
		if s := <-heard; s != "hi" {
			t.Error(s)
		}
	})
}

// Many calls at once, of all sizes.
func TestManyCalls(t *testing.T) {
	run(t, func(t *testing.T, mode string) {
		srv := new(yonder.Server)
		srv.Register("echo", func(s string) string { return s })
		c := client(t, mode, srv, new(jsonrpc.Dialer))
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				for j := range 20 {
					want := strings.Repeat(fmt.Sprint(i), i*j*20)
					if got, err := yonder.Invoke[string](t.Context(), c, "echo", want); got != want || err != nil {
						t.Errorf("%d: %d bytes of %d, %v", i, len(got), len(want), err)
						return
					}
				}
			})
		}
		wg.Wait()
	})
}

// The end of either side ends calls, and the next call connects again.
func TestEnds(t *testing.T) {
	run(t, func(t *testing.T, mode string) {
		srv := new(yonder.Server)
		began := make(chan struct{}, 1)
		ended := make(chan struct{}, 2)
		srv.Register("hang", func(ctx context.Context) {
			began <- struct{}{}
			<-ctx.Done()
			ended <- struct{}{}
		})
		c := client(t, mode, srv, new(jsonrpc.Dialer))
		failed := make(chan error, 1)
		go func() { failed <- c.Call(context.Background(), yonder.NewCall("hang")) }() // ends with the client
		<-began
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		<-ended
		if err := <-failed; yonder.CodeOf(err) != yonder.Unavailable || !errors.Is(err, yonder.ErrClientClosed) {
			t.Errorf("Close: %v", err)
		}
		<-c.Done()
		if err := c.Call(t.Context(), yonder.NewCall("hang")); yonder.CodeOf(err) != yonder.Unavailable || !errors.Is(err, yonder.ErrClientClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

func TestReconnect(t *testing.T) {
	for _, scheme := range []string{"tcp", "ws"} {
		t.Run(scheme, func(t *testing.T) {
			noLeaks(t)
			var mu sync.Mutex
			var conns []net.Conn
			srv := new(yonder.Server)
			began := make(chan struct{}, 1)
			srv.Register("add", func(a, b int) int { return a + b })
			srv.Register("hang", func(ctx context.Context) {
				began <- struct{}{}
				<-ctx.Done()
			})
			d := &jsonrpc.Dialer{Client: yonder.Dialer{NetDial: func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := new(net.Dialer).DialContext(ctx, network, address)
				mu.Lock()
				defer mu.Unlock()
				conns = append(conns, conn)
				return conn, err
			}}}
			c := client(t, scheme, srv, d)
			for i := range 3 {
				if n, err := yonder.Invoke[int](t.Context(), c, "add", i, 1); n != i+1 || err != nil {
					t.Fatal(n, err)
				}
				failed := make(chan error, 1)
				go func() { failed <- c.Call(t.Context(), yonder.NewCall("hang")) }()
				<-began
				mu.Lock()
				conns[len(conns)-1].Close()
				mu.Unlock()
				if err := <-failed; yonder.CodeOf(err) != yonder.Unavailable || !errors.Is(err, yonder.ErrConnectionLost) {
					t.Errorf("a lost connection: %v", err)
				}
			}
			if len(conns) != 3 {
				t.Errorf("%d connections", len(conns))
			}
		})
	}
}

// MayHaveRun is false where nothing of a call has been given to a connection.
func TestMayHaveRun(t *testing.T) {
	run(t, func(t *testing.T, mode string) {
		srv := new(yonder.Server)
		began := make(chan struct{}, 1)
		srv.Register("hang", func(ctx context.Context) {
			began <- struct{}{}
			<-ctx.Done()
		})
		srv.Register("fail", func(any) error { return yonder.Errorf(yonder.Unavailable, "no") })
		var mu sync.Mutex // guards what follows
		var conns []net.Conn
		away := false
		c := client(t, mode, srv, &jsonrpc.Dialer{Client: yonder.Dialer{NetDial: func(ctx context.Context, network, address string) (net.Conn, error) {
			mu.Lock()
			defer mu.Unlock()
			if away {
				return nil, errors.New("nobody is there")
			}
			conn, err := new(net.Dialer).DialContext(ctx, network, address)
			conns = append(conns, conn)
			return conn, err
		}}})
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
		mu.Lock()
		away = true
		for _, conn := range conns {
			conn.Close()
		}
		mu.Unlock()
		is("a call in flight", <-failed, true)
		is("without a server", c.Call(t.Context(), yonder.NewCall("fail", 1)), false)
		c.Close()
		is("a closed client", c.Call(t.Context(), yonder.NewCall("fail", 1)), false)
	})
}

// Shutdown lets calls and streams in flight end.
func TestShutdown(t *testing.T) {
	run(t, func(t *testing.T, mode string) {
		srv := new(yonder.Server)
		began, finish := make(chan struct{}), make(chan struct{})
		srv.Register("wait", func() string {
			close(began)
			<-finish
			return "done"
		})
		c := client(t, mode, srv, new(jsonrpc.Dialer))
		type result struct {
			s   string
			err error
		}
		results := make(chan result, 1)
		go func() {
			s, err := yonder.Invoke[string](context.Background(), c, "wait")
			results <- result{s, err}
		}()
		<-began
		down := make(chan error, 1)
		go func() { down <- srv.Shutdown(context.Background()) }()
		close(finish)
		if r := <-results; r.s != "done" || r.err != nil {
			t.Errorf("%q, %v", r.s, r.err)
		}
		if err := <-down; err != nil {
			t.Error(err)
		}
		if err := c.Call(t.Context(), yonder.NewCall("wait")); yonder.CodeOf(err) != yonder.Unavailable {
			t.Errorf("after Shutdown: %v", err)
		}
	})
}

// A consumer that does not read holds up its producer, and nothing else.
func TestFlowControl(t *testing.T) {
	for _, size := range []int{1, 100 << 10} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := new(yonder.Server)
				produced := 0
				srv.Register("forever", func(ctx context.Context) iter.Seq2[string, error] {
					return func(yield func(string, error) bool) {
						for yield(strings.Repeat("x", size), nil) {
							produced++
						}
					}
				})
				srv.Register("add", func(a, b int) int { return a + b })
				c := pair(t, srv, new(jsonrpc.Dialer))
				var forever func(context.Context) (iter.Seq2[string, error], error)
				c.Bind("forever", &forever)
				words, err := forever(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				most := min(256, (256<<10)/(size+2)+1)
				if produced != most {
					t.Errorf("%d were produced, want %d", produced, most)
				}
				if n, err := yonder.Invoke[int](t.Context(), c, "add", 1, 2); n != 3 || err != nil {
					t.Error(n, err)
				}
				n := 0
				for range words {
					if n++; n == 2000 {
						break
					}
				}
				if synctest.Wait(); produced < 1999 || produced > 2000+most {
					t.Errorf("%d were produced, %d consumed", produced, n)
				}
			})
		})
	}
}

// pair returns a client of srv over a pipe in memory, which works in bubbles.
func pair(t testing.TB, srv *yonder.Server, d *jsonrpc.Dialer) *yonder.Client {
	t.Helper()
	near, far := net.Pipe()
	served := make(chan struct{})
	go func() { // ends with the connection
		defer close(served)
		jsonrpc.Serve(srv, far)
	}()
	c := d.NewClient(near)
	t.Cleanup(func() {
		c.Close()
		<-served
	})
	return c
}

func TestClientTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := new(yonder.Server)
		srv.Register("hang", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		c := pair(t, srv, &jsonrpc.Dialer{Client: yonder.Dialer{Timeout: time.Minute}})
		var hang func() error
		c.Bind("hang", &hang)
		began := time.Now()
		if err := hang(); yonder.CodeOf(err) != yonder.DeadlineExceeded || time.Since(began) != time.Minute {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}

// What a server that is no JSON-RPC answers over HTTP says what kind of failure it is.
func TestHTTPStatus(t *testing.T) {
	noLeaks(t)
	status, body := 0, ""
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(status)
		io.WriteString(w, body)
	}))
	defer h.Close()
	c, err := jsonrpc.Dial(t.Context(), h.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, e := range []struct {
		status int
		body   string
		want   yonder.Code
	}{
		{401, "who are you", yonder.Unauthenticated},
		{403, "no", yonder.PermissionDenied},
		{404, "<html>", yonder.Unimplemented},
		{413, "", yonder.ResourceExhausted},
		{500, "oops", yonder.Internal},
		{503, "later", yonder.Unavailable},
		{200, "<html>", yonder.Internal},
		{200, `{"jsonrpc":"2.0","id":1}`, yonder.Internal},
		{200, `{"jsonrpc":"2.0","result":"x","id":1}`, yonder.Internal},
		{200, `{"jsonrpc":"2.0","result":1,"result":2,"id":1}`, yonder.Internal},
		{500, `{"jsonrpc":"2.0","error":{"code":-32603,"message":"x"},"id":1}`, yonder.Internal},
		{400, `{"jsonrpc":"2.0","error":{"code":-32602,"message":"x"},"id":1}`, yonder.InvalidArgument},
		{200, `{"jsonrpc":"2.0","result":1,"id":1}`, 0},
		{200, `{"result":1,"error":null,"id":1}`, 0},
		{200, `{"result":null,"error":"text","id":1}`, yonder.Unknown},
	} {
		status, body = e.status, e.body
		if n, err := yonder.Invoke[int](t.Context(), c, "x"); yonder.CodeOf(err) != e.want || err == nil && n != 1 {
			t.Errorf("%d %s: %d, %v", e.status, e.body, n, err)
		}
	}
}

// A client brings its own TLS configuration, in its HTTP client, or for a stream of bytes in
// what connects.
func TestTLS(t *testing.T) {
	for _, mode := range []string{"https", "http2", "wss", "wss beside http2", "tcp"} {
		t.Run(mode, func(t *testing.T) {
			noLeaks(t)
			srv := new(yonder.Server)
			srv.Logger = newLogger(t)
			srv.Register("count", count)
			srv.Register("who", func(ctx context.Context) string {
				info, _ := yonder.InfoFrom(ctx)
				switch conn := info.Conn.(type) {
				case *http.Request:
					return fmt.Sprint(conn.Proto, " ", conn.TLS.ServerName)
				case interface{ NetConn() net.Conn }:
					return "TCP " + conn.NetConn().(*tls.Conn).ConnectionState().ServerName
				}
				return fmt.Sprintf("%T", info.Conn)
			})
			hang := make(chan struct{})
			srv.Register("hang", func(ctx context.Context) { close(hang); <-ctx.Done() })
			h := httptest.NewUnstartedServer(jsonrpc.Handler(srv))
			h.Config.ErrorLog = log.New(io.Discard, "", 0) // who does not trust it
			h.EnableHTTP2 = strings.HasSuffix(mode, "http2")
			h.StartTLS()
			defer h.Close()
			defer srv.Close()
			// The certificate of httptest is for example.com.
			trusting := &tls.Config{RootCAs: h.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, ServerName: "example.com"}
			transport := &http.Transport{TLSClientConfig: trusting, ForceAttemptHTTP2: true}
			defer transport.CloseIdleConnections()
			d := &jsonrpc.Dialer{HTTP: &http.Client{Transport: transport}}
			url := h.URL
			want := "HTTP/1.1 example.com"
			switch {
			case mode == "http2":
				want = "HTTP/2.0 example.com"
			case strings.HasPrefix(mode, "wss"):
				url = "wss" + strings.TrimPrefix(url, "https")
			case mode == "tcp":
				srv.Protocols = []yonder.Protocol{jsonrpc.Protocol}
				l, err := tls.Listen("tcp", "127.0.0.1:0", h.TLS)
				if err != nil {
					t.Fatal(err)
				}
				served := make(chan error, 1)
				go func() { served <- srv.Serve(l) }() // ends with Close
				defer func() { srv.Close(); <-served }()
				url, want = "tcp://"+l.Addr().String(), "TCP example.com"
				d = &jsonrpc.Dialer{Client: yonder.Dialer{NetDial: (&tls.Dialer{Config: trusting}).DialContext}}
			}
			c, err := d.Dial(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if got, err := yonder.Invoke[string](t.Context(), c, "who"); got != want || err != nil {
				t.Errorf("got %s, %v; want %s", got, err, want)
			}
			numbers, err := yonder.Invoke[iter.Seq2[int, error]](t.Context(), c, "count", 500)
			if err != nil {
				t.Fatal(err)
			}
			sum := 0
			for n, err := range numbers {
				if err != nil {
					t.Fatal(err)
				}
				sum += n
			}
			if sum != 499*500/2 {
				t.Errorf("the stream's sum is %d", sum)
			}
			ctx, cancel := context.WithCancel(t.Context())
			go func() { <-hang; cancel() }()
			if err := c.Call(ctx, yonder.NewCall("hang")); yonder.CodeOf(err) != yonder.Canceled {
				t.Errorf("a call that is cancelled: %v", err)
			}

			d = new(jsonrpc.Dialer)
			if mode == "tcp" {
				d.Client.NetDial = new(tls.Dialer).DialContext
			}
			c, err = d.Dial(t.Context(), url)
			if err == nil {
				defer c.Close()
				_, err = yonder.Invoke[string](t.Context(), c, "who")
			}
			var unknown x509.UnknownAuthorityError
			if yonder.CodeOf(err) != yonder.Unavailable || !errors.As(err, &unknown) {
				t.Errorf("a server that is not trusted: %v", err)
			}
		})
	}
}

// What is forgotten in a bubble is left within it: the garbage collector, which is outside,
// must neither use its channels, nor wait for the connection.
func TestForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := new(yonder.Server)
		srv.Logger = newLogger(t)
		stopped := make(chan bool, 2)
		srv.Register("forever", func() iter.Seq[int] {
			return func(yield func(int) bool) {
				for i := 0; yield(i); i++ {
				}
				stopped <- true
			}
		})
		srv.Register("zeros", func() io.ReadCloser { return &closing{Reader: zeros{}, closed: stopped} })
		srv.Register("all", func() io.Reader { return strings.NewReader("all") })
		c := pair(t, srv, new(jsonrpc.Dialer))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		func() {
			if _, err := yonder.Invoke[iter.Seq[int]](ctx, c, "forever"); err != nil {
				t.Fatal(err)
			}
			if _, err := yonder.Invoke[io.ReadCloser](ctx, c, "zeros"); err != nil {
				t.Fatal(err)
			}
			r, err := yonder.Invoke[io.Reader](ctx, c, "all")
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(r); string(b) != "all" || err != nil {
				t.Errorf("read %q, %v", b, err)
			}
		}()
		for open := 2; open > 0; {
			runtime.GC()
			time.Sleep(time.Minute)
			select {
			case <-stopped:
				open--
			default:
			}
		}
	})
}

// closing is a reader that says once that it was closed.
type closing struct {
	io.Reader
	once   sync.Once
	closed chan bool
}

func (c *closing) Close() error {
	c.once.Do(func() { c.closed <- true })
	return nil
}
