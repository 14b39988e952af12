package yonder_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/jsonrpc"
	"github.com/yonder-rpc/yonder/overload"
	"github.com/yonder-rpc/yonder/web"
)

// When to try again crosses every protocol that has room for it.
func TestRetryAfter(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		m.cannot(t, overFrames, "an error is a text there")
		m.cannot(t, netRPC, "an error has a code there, and no details")
		var srv yonder.Server
		srv.Register("busy", func(context.Context) error {
			return fmt.Errorf("today: %w", yonder.RetryLater(1500*time.Microsecond, "too much to do"))
		})
		srv.Register("other", func() error {
			return &yonder.Error{Code: yonder.ResourceExhausted, Details: map[string]int{"quota": 7}}
		})
		c := m.client(t, &srv)
		err := c.Call(t.Context(), yonder.NewCall("busy"))
		if after, ok := yonder.RetryAfter(err); !ok || after != 2*time.Millisecond || yonder.CodeOf(err) != yonder.ResourceExhausted {
			t.Errorf("%v, %v, %v", after, ok, err)
		}
		if _, ok := yonder.RetryAfter(c.Call(t.Context(), yonder.NewCall("other"))); ok {
			t.Error("other details say when to try again")
		}
	})
	for _, tt := range []struct {
		err  error
		want time.Duration
		ok   bool
	}{
		{nil, 0, false},
		{errors.New("x"), 0, false},
		{&yonder.Error{Code: yonder.Unavailable}, 0, false},
		{yonder.RetryLater(-1, "at once"), 0, true},
		{&yonder.Error{Details: yonder.RetryInfo{AfterMS: 1 << 62}}, 9223372036854 * time.Millisecond, true},
		{&yonder.Error{Details: yonder.RetryInfo{AfterMS: -5}}, 0, true},
	} {
		if after, ok := yonder.RetryAfter(tt.err); after != tt.want || ok != tt.ok {
			t.Errorf("%v: %v, %v", tt.err, after, ok)
		}
	}
}

func TestRetryAfterHTTP(t *testing.T) {
	var srv yonder.Server
	srv.Register("busy", func() error { return yonder.RetryLater(1200*time.Millisecond, "too much to do") })
	ts := httptest.NewServer(jsonrpc.Handler(&srv))
	defer ts.Close()
	for body, want := range map[string]string{
		`{"jsonrpc":"2.0","id":1,"method":"busy"}`:   "2",
		`{"id":1,"method":"busy","params":[]}`:       "2",
		`{"jsonrpc":"2.0","id":1,"method":"nobody"}`: "",
		`[{"jsonrpc":"2.0","id":1,"method":"busy"}]`: "",
	} {
		resp, err := http.Post(ts.URL, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if got := resp.Header.Get("Retry-After"); got != want {
			t.Errorf("%s: Retry-After %q, want %q; %s", body, got, want, text)
		}
	}
}

// An interceptor may make a call several times at once.
func TestClone(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		srv.Register("sum", func(ctx context.Context, a, b int) (int, map[string]int) {
			yonder.SetReply(ctx, "sum", "yes")
			return a + b, map[string]int{"n": a}
		})
		srv.Register("read", func(r io.Reader) {})
		twice := func(next yonder.Handler) yonder.Handler {
			return func(ctx context.Context, call *yonder.Call) error {
				if !call.Plain() {
					return next(ctx, call)
				}
				clones, errs := make([]*yonder.Call, 3), make(chan error)
				for i := range clones {
					clones[i] = call.Clone()
					go func() { errs <- next(ctx, clones[i]) }()
				}
				err := errors.Join(<-errs, <-errs, <-errs)
				call.Take(clones[1])
				return err
			}
		}
		c := m.intercepted(t, &srv, twice)
		var sum func(ctx context.Context, a, b int) (int, map[string]int, error)
		c.Bind("sum", &sum)
		var reply yonder.Metadata
		n, byName, err := sum(yonder.WithReply(t.Context(), &reply), 3, 4)
		if n != 7 || byName["n"] != 3 || err != nil || reply["sum"] != "yes" {
			t.Errorf("%d, %v, %v, %v", n, byName, err, reply)
		}
		var x int
		var y map[string]int
		if err := c.Call(t.Context(), yonder.NewCall("sum", 1, 2).Into(&x, &y)); err != nil || x != 3 {
			t.Errorf("%d, %v", x, err)
		}
		var read func(context.Context, io.Reader) error
		c.Bind("read", &read)
		if err := read(t.Context(), strings.NewReader("x")); err != nil {
			t.Error(err)
		}
	})
}

// A gate admits calls of every protocol, and knows their connections.
func TestGate(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		gate := &overload.Gate{PerConn: 1, Running: 2, Queue: -1}
		srv := &yonder.Server{Interceptors: []yonder.Interceptor{gate.Intercept}}
		began, end := make(chan any), make(chan struct{})
		srv.Register("wait", func(ctx context.Context, n int) int {
			info, _ := yonder.InfoFrom(ctx)
			began <- overload.Connection(info)
			<-end
			return n
		})
		srv.Register("now", func(n int) int { return n })
		first, second, third := m.client(t, srv), m.client(t, srv), m.client(t, srv)
		errs := make(chan error, 2)
		keys := make([]any, 2)
		for i, c := range []*yonder.Client{first, second} {
			if m == inProcess && i > 0 {
				continue // there is one connection, as it were
			}
			go func() {
				_, err := yonder.Invoke[int](t.Context(), c, "wait", 1)
				errs <- err
			}()
			keys[i] = <-began
		}
		if keys[0] == keys[1] && m != inProcess {
			t.Errorf("two connections are one: %v", keys[0])
		}
		if m != overFrames { // which answers in order
			if _, err := yonder.Invoke[int](t.Context(), first, "now", 1); yonder.CodeOf(err) != yonder.ResourceExhausted {
				t.Errorf("a second call of a connection: %v", err)
			}
		}
		if _, err := yonder.Invoke[int](t.Context(), third, "now", 1); err == nil {
			t.Error("a third call of the server's was let in")
		}
		close(end)
		for range map[bool]int{true: 1, false: 2}[m == inProcess] {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		if _, err := yonder.Invoke[int](t.Context(), first, "now", 1); err != nil {
			t.Error("afterwards:", err)
		}
	})
}

// Requests that come over one connection of HTTP's are one connection's.
func TestConnectionHTTP(t *testing.T) {
	srv := &yonder.Server{Protocols: []yonder.Protocol{web.Protocol}}
	var keys []any
	srv.Register("key", func(ctx context.Context) {
		info, _ := yonder.InfoFrom(ctx)
		keys = append(keys, overload.Connection(info))
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	defer func() { srv.Close(); <-served }()
	for i := range 3 {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: i == 2}}
		if i < 2 {
			client = http.DefaultClient
		}
		resp, err := client.Post("http://"+l.Addr().String()+"/jsonrpc", "application/json", strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"key"}`))
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	if len(keys) != 3 || keys[0] == nil || keys[0] != keys[1] || keys[1] == keys[2] {
		t.Errorf("keys %v, want the first two to be the same", keys)
	}
	http.DefaultClient.CloseIdleConnections()
}

// What stands before a server, and sends calls away, is heard, too.
func TestTooManyRequests(t *testing.T) {
	for _, tt := range []struct {
		status int
		header string
		want   time.Duration
		ok     bool
	}{
		{http.StatusTooManyRequests, "7", 7 * time.Second, true},
		{http.StatusTooManyRequests, "Sun, 06 Nov 1994 08:49:37 GMT", 0, true},
		{http.StatusTooManyRequests, "", 0, false},
		{http.StatusTooManyRequests, "-1", 0, false},
		{http.StatusServiceUnavailable, "7", 0, false}, // it may have been done
	} {
		ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", tt.header)
			http.Error(w, "slowly", tt.status)
		}))
		c, err := jsonrpc.Dial(t.Context(), ts.URL)
		if err != nil {
			t.Fatal(err)
		}
		_, err = yonder.Invoke[int](t.Context(), c, "f")
		if after, ok := yonder.RetryAfter(err); after != tt.want || ok != tt.ok || err == nil {
			t.Errorf("%d %q: %v, %v, %v", tt.status, tt.header, after, ok, err)
		}
		c.Close()
		ts.Close()
	}
}
