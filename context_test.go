package yonder_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/tlsconn"
)

// testKey is a key for a value of a context.
type testKey struct{}

// A deadline travels as the time that remains, and both ends keep to it.
func TestDeadline(t *testing.T) {
	bubbleAll(t, func(t *testing.T, m mode) {
		m.needs(t, deadlines)
		var srv yonder.Server
		type ending struct {
			deadline time.Time
			ok       bool
			err      error
			at       time.Time
		}
		ends := make(chan ending, 1)
		waits := map[string]func(ctx context.Context){
			"Done":    func(ctx context.Context) { <-ctx.Done() },
			"derived": func(ctx context.Context) { ctx, cancel := context.WithCancel(ctx); defer cancel(); <-ctx.Done() },
			"Err": func(ctx context.Context) {
				deadline, _ := ctx.Deadline()
				for ctx.Err() == nil {
					time.Sleep(time.Until(deadline)/2 + 1)
				}
			},
		}
		for how, wait := range waits {
			srv.Register(how, func(ctx context.Context) error {
				deadline, ok := ctx.Deadline()
				wait(ctx)
				ends <- ending{deadline, ok, ctx.Err(), time.Now()}
				return ctx.Err()
			})
		}
		srv.Register("none", func(ctx context.Context) bool { _, ok := ctx.Deadline(); return ok })
		c := m.client(t, &srv)
		for how := range waits {
			for _, d := range []time.Duration{time.Nanosecond, 100 * time.Millisecond, 20 * time.Second, 3 * time.Hour} {
				ctx, cancel := context.WithTimeout(t.Context(), d)
				start := time.Now()
				late := func(t time.Time) time.Duration { return t.Sub(start) - d } // it travels in microseconds
				err := c.Call(ctx, yonder.NewCall(how))
				if took := time.Since(start); took != d || yonder.CodeOf(err) != yonder.DeadlineExceeded || !errors.Is(err, context.DeadlineExceeded) || yonder.IsRemote(err) {
					t.Errorf("%s, %v: after %v: %v (%v)", how, d, took, err, yonder.CodeOf(err))
				}
				if end := <-ends; late(end.deadline) < 0 || late(end.deadline) > time.Microsecond || !end.ok || end.err != context.DeadlineExceeded || late(end.at) < 0 {
					t.Errorf("%s, %v: the handler's deadline is %v, want %v: %v at %v", how, d, end.deadline, start.Add(d), end.err, end.at)
				}
				cancel()
			}
		}
		if ok, err := yonder.Invoke[bool](t.Context(), c, "none"); ok || err != nil {
			t.Errorf("without a deadline: %t, %v", ok, err)
		}
	})
}

// A caller whose context ends returns at once, whatever the handler does, and the handler's
// context tells how.
func TestCancel(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		m.needs(t, cancellation)
		var srv yonder.Server
		type ending struct{ err, cause, derived, derivedCause error }
		ends := make(chan ending)
		began := make(chan bool)
		watch := func(ctx context.Context, wait func(context.Context)) ending {
			derived, cancel := context.WithCancel(context.WithValue(ctx, testKey{}, 1))
			defer cancel()
			wait(ctx)
			<-derived.Done()
			return ending{ctx.Err(), context.Cause(ctx), derived.Err(), context.Cause(derived)}
		}
		srv.Register("waits", func(ctx context.Context) {
			derived, cancel := context.WithCancel(ctx)
			defer cancel()
			began <- true
			ends <- watch(derived, func(ctx context.Context) { <-ctx.Done() })
		})
		srv.Register("polls", func(ctx context.Context) {
			began <- true
			for ctx.Err() == nil { // asks for nothing else, until it has ended
				runtime.Gosched()
			}
			ends <- watch(ctx, func(context.Context) {})
		})
		c := m.client(t, &srv)
		for _, name := range []string{"waits", "polls"} {
			for _, cause := range []error{nil, errSold} {
				ctx, cancel := context.WithCancelCause(t.Context())
				go func() { <-began; cancel(cause) }()
				err := c.Call(ctx, yonder.NewCall(name)) // while the handler is stuck in ends
				if yonder.CodeOf(err) != yonder.Canceled || !errors.Is(err, context.Canceled) || yonder.IsRemote(err) || cause != nil && !errors.Is(err, cause) {
					t.Errorf("%s: the caller got %v (%v)", name, err, yonder.CodeOf(err))
				}
				want := ending{context.Canceled, context.Canceled, context.Canceled, context.Canceled}
				if m == inProcess && cause != nil { // the context itself is passed on
					want.cause, want.derivedCause = cause, cause
				}
				if got := <-ends; got != want {
					t.Errorf("%s: the handler's context ended with %+v, want %+v", name, got, want)
				}
			}
		}
	})
}

// The cause of a handler's context tells a caller that gave up from a connection that was
// lost and from a server that was closed.
func TestCause(t *testing.T) {
	endings := []struct {
		name  string
		end   func(c *yonder.Client, srv *yonder.Server)
		cause error
		code  yonder.Code
		is    error
	}{
		{"the client is closed", func(c *yonder.Client, _ *yonder.Server) { c.Close() }, yonder.ErrConnectionLost, yonder.Unavailable, yonder.ErrClientClosed},
		{"the server is closed", func(_ *yonder.Client, srv *yonder.Server) { srv.Close() }, yonder.ErrServerClosed, yonder.Unavailable, yonder.ErrConnectionLost},
	}
	run(t, func(t *testing.T, m mode) {
		m.cannot(t, inProcess, "there is no connection")
		for _, ending := range endings {
			for _, look := range []string{"before", "after"} {
				var srv yonder.Server
				began, ended, back := make(chan bool), make(chan error, 2), make(chan error, 1)
				srv.Register("wait", func(ctx context.Context, f func(context.Context) error) {
					if look == "before" {
						defer context.AfterFunc(ctx, func() { ended <- context.Cause(ctx) })()
						began <- true
						<-ctx.Done()
					} else {
						began <- true
						for ctx.Err() == nil {
							runtime.Gosched()
						}
						ended <- context.Cause(ctx)
					}
					if ctx.Err() != context.Canceled {
						t.Errorf("%s: the handler's context: %v", ending.name, ctx.Err())
					}
					ended <- context.Cause(ctx)
					back <- f(context.WithoutCancel(ctx))
				})
				c := m.dialer(t, &srv, new(yonder.Dialer))
				failed := make(chan error)
				go func() {
					failed <- c.Call(context.Background(), yonder.NewCall("wait", func(context.Context) error { return nil }))
				}()
				<-began
				ending.end(c, &srv)
				if err := <-failed; yonder.CodeOf(err) != ending.code || !errors.Is(err, ending.is) || yonder.IsRemote(err) {
					t.Errorf("%s: the caller got %v (%v)", ending.name, err, yonder.CodeOf(err))
				}
				for range 2 {
					if cause := <-ended; !errors.Is(cause, ending.cause) {
						t.Errorf("%s: the cause is %v, want %v", ending.name, cause, ending.cause)
					}
				}
				if err := <-back; yonder.CodeOf(err) != yonder.Unavailable || !errors.Is(err, ending.cause) {
					t.Errorf("%s: a callback after that: %v (%v)", ending.name, err, yonder.CodeOf(err))
				}
			}
		}
	})
}

// What is derived from a handler's context behaves as what is derived from any.
func TestDerivedContexts(t *testing.T) {
	type ending struct {
		Err, Cause string
		After      time.Duration
	}
	bubbleAll(t, func(t *testing.T, m mode) {
		m.needs(t, deadlines)
		var srv yonder.Server
		result := make(chan map[string]ending, 1)
		srv.Register("derive", func(ctx context.Context) {
			start := time.Now()
			derived := map[string]context.Context{}
			with := func(name string) func(context.Context, context.CancelFunc) {
				return func(ctx context.Context, cancel context.CancelFunc) {
					derived[name] = ctx
					t.Cleanup(cancel)
				}
			}
			with("cancel")(context.WithCancel(ctx))
			with("short")(context.WithTimeout(ctx, time.Second))
			with("long")(context.WithTimeout(ctx, time.Hour))
			with("cause")(context.WithTimeoutCause(ctx, 2*time.Second, errSold))
			with("value")(context.WithCancel(context.WithValue(derived["cancel"], testKey{}, "v")))
			with("short of long")(context.WithTimeout(derived["long"], 1500*time.Millisecond))
			causing, cancel := context.WithCancelCause(ctx)
			derived["canceled"] = causing
			cancel(errLate)
			ran := make(chan time.Duration, 1)
			context.AfterFunc(ctx, func() { ran <- time.Since(start) })
			if stop := context.AfterFunc(ctx, func() { t.Error("AfterFunc ran, which was stopped") }); !stop() {
				t.Error("AfterFunc could not be stopped")
			}
			if v := derived["value"].Value(testKey{}); v != "v" || ctx.Value(testKey{}) != nil {
				t.Errorf("the value is %v, and in the handler's context it is %v", v, ctx.Value(testKey{}))
			}
			free := context.WithoutCancel(ctx)
			if _, ok := free.Deadline(); ok || free.Done() != nil || free.Err() != nil {
				t.Error("WithoutCancel has a deadline, or can end")
			}
			if info, ok := yonder.InfoFrom(free); !ok || info.Procedure != "derive" {
				t.Errorf("WithoutCancel has lost the call: %+v", info)
			}
			if d, _ := derived["long"].Deadline(); d.Sub(start) != 3*time.Second {
				t.Errorf("the deadline of a longer timeout is in %v", d.Sub(start))
			}
			derived["itself"] = ctx
			ends := map[string]ending{}
			var mu sync.Mutex
			var wg sync.WaitGroup
			for name, d := range derived {
				wg.Go(func() {
					<-d.Done()
					mu.Lock()
					defer mu.Unlock()
					ends[name] = ending{d.Err().Error(), context.Cause(d).Error(), time.Since(start)}
				})
			}
			wg.Wait()
			ends["AfterFunc"] = ending{After: <-ran}
			result <- ends
		})
		c := m.client(t, &srv)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		c.Call(ctx, yonder.NewCall("derive"))
		const canceled, late = "context canceled", "context deadline exceeded"
		want := map[string]ending{
			"itself": {late, late, 3 * time.Second}, "cancel": {late, late, 3 * time.Second},
			"value": {late, late, 3 * time.Second}, "long": {late, late, 3 * time.Second},
			"short": {late, late, time.Second}, "short of long": {late, late, 1500 * time.Millisecond},
			"cause": {late, "sold out", 2 * time.Second}, "canceled": {canceled, "too late", 0},
			"AfterFunc": {"", "", 3 * time.Second},
		}
		if diff := cmp.Diff(want, <-result); diff != "" {
			t.Error(diff)
		}
	})
}

// The context of a handler ends with its call, and not before the streams of its results do.
func TestContextAfterCall(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		kept := make(chan context.Context, 1)
		srv.Register("plain", func(ctx context.Context) { kept <- ctx })
		srv.Register("looked at", func(ctx context.Context) { ctx.Done(); kept <- ctx })
		srv.Register("fails", func(ctx context.Context) error { kept <- ctx; return errZero })
		srv.Register("panics", func(ctx context.Context) { kept <- ctx; panic("boom") })
		srv.Register("exits", func(ctx context.Context) { kept <- ctx; runtime.Goexit() })
		srv.Logger = new(logBuffer).logger()
		yonder.Handle(&srv, "hot", func(ctx context.Context, n int) (int, error) { kept <- ctx; return n, nil })
		srv.Register("stream", func(ctx context.Context) iter.Seq2[int, error] {
			kept <- ctx
			return func(yield func(int, error) bool) { _ = yield(1, ctx.Err()) && yield(2, ctx.Err()) }
		})
		c := m.client(t, &srv)
		over := func(name string) {
			t.Helper()
			ctx := <-kept
			<-ctx.Done()
			if ctx.Err() != context.Canceled || context.Cause(ctx) != context.Canceled {
				t.Errorf("%s: the context ended with %v, %v", name, ctx.Err(), context.Cause(ctx))
			}
		}
		for _, name := range []string{"plain", "looked at", "fails", "panics", "exits"} {
			c.Call(t.Context(), yonder.NewCall(name))
			over(name)
			if err := c.Notify(t.Context(), name); err != nil {
				t.Error(err)
			}
			over(name + ", one-way")
		}
		if _, err := yonder.Remote[int, int](c, "hot")(t.Context(), 1); err != nil {
			t.Error(err)
		}
		over("hot")
		if !m.can(t, streams) {
			return
		}
		seq, err := yonder.Invoke[iter.Seq2[int, error]](t.Context(), c, "stream")
		if err != nil {
			t.Fatal(err)
		}
		if list, err := collect(seq); !slices.Equal(list, []int{1, 2}) || err != nil {
			t.Errorf("stream: %v, %v", list, err)
		}
		over("stream")
	})
}

// What a handler's context tells of its call stays true when the call is over and others
// have come after it, whether or not it was asked before.
func TestKeptContext(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		kept := make(chan context.Context, 2)
		keep := func(ctx context.Context) { kept <- ctx }
		srv.Register("silent", keep)
		srv.Register("asked", func(ctx context.Context) { yonder.InfoFrom(ctx); keep(ctx) })
		yonder.Handle(&srv, "next", func(ctx context.Context, n int) (int, error) { return n + 1, nil })
		c := m.client(t, &srv)
		next := yonder.Remote[int, int](c, "next")
		for _, name := range []string{"silent", "asked"} {
			if err := c.Call(yonder.WithMetadata(t.Context(), "of", name), yonder.NewCall(name)); err != nil {
				t.Fatal(err)
			}
			ctx := <-kept
			var asking sync.WaitGroup
			asking.Go(func() {
				for range 100 {
					info, ok := yonder.InfoFrom(ctx)
					if !ok || info.Procedure != name || info.Metadata["of"] != name {
						t.Errorf("%s: the context tells %+v, %v", name, info, ok)
					}
					if (yonder.PeerFrom(ctx) == nil) != (m == inProcess) {
						t.Errorf("%s: the peer is %v", name, yonder.PeerFrom(ctx))
					}
					yonder.SetReply(ctx, "too", "late")
				}
			})
			for i := range 100 {
				call := yonder.NewCall("next", i)
				var got int
				if err := c.Call(t.Context(), call.Into(&got)); err != nil || got != i+1 || call.Reply != nil {
					t.Errorf("next(%d): %d, %v, %v", i, got, err, call.Reply)
				}
				if got, err := next(t.Context(), i); err != nil || got != i+1 {
					t.Errorf("next(%d): %d, %v", i, got, err)
				}
			}
			asking.Wait()
		}
	})
}

// A call with a context that has ended is not made.
func TestEndedContext(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		srv.Register("f", func(...int) { t.Error("it ran") })
		srv.Register("stream", func(iter.Seq[int]) (iter.Seq2[int, error], error) { t.Error("it ran"); return nil, nil })
		yonder.Handle(&srv, "hot", func(context.Context, int) (int, error) { t.Error("it ran"); return 0, nil })
		c := m.client(t, &srv)
		canceled, cancel := context.WithCancelCause(t.Context())
		cancel(errSold)
		expired, cancel2 := context.WithDeadline(t.Context(), time.Now().Add(-time.Hour))
		defer cancel2()
		hot := yonder.Remote[int, int](c, "hot")
		var stream func(context.Context, iter.Seq[int]) (iter.Seq2[int, error], error)
		c.Bind("stream", &stream)
		for name, call := range map[string]func(ctx context.Context) error{
			"Call":   func(ctx context.Context) error { return c.Call(ctx, yonder.NewCall("f", 1)) },
			"Notify": func(ctx context.Context) error { return c.Notify(ctx, "f") },
			"Remote": func(ctx context.Context) error { _, err := hot(ctx, 1); return err },
			"stream": func(ctx context.Context) error { _, err := stream(ctx, slices.Values([]int{1})); return err },
		} {
			if name == "stream" && !m.can(t, streams) {
				continue
			}
			if err := call(canceled); yonder.CodeOf(err) != yonder.Canceled || !errors.Is(err, context.Canceled) || !errors.Is(err, errSold) || yonder.IsRemote(err) {
				t.Errorf("%s, canceled: %v (%v)", name, err, yonder.CodeOf(err))
			}
			if err := call(expired); yonder.CodeOf(err) != yonder.DeadlineExceeded || !errors.Is(err, context.DeadlineExceeded) || yonder.IsRemote(err) {
				t.Errorf("%s, expired: %v (%v)", name, err, yonder.CodeOf(err))
			}
		}
	})
}

// stuckConn is a connection whose other end stops reading when it is told to.
type stuckConn struct {
	net.Conn
	stuck  atomic.Bool
	closed chan struct{}
	once   sync.Once
}

func (c *stuckConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.stuck.Load() {
		<-c.closed
		return 0, io.ErrClosedPipe
	}
	return n, err
}

func (c *stuckConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// A caller that gives up returns at once, though nobody reads what it has to say: not
// from the first byte on, or not any more.
func TestNobodyReads(t *testing.T) {
	kinds := map[string]func(ctx context.Context, c *yonder.Client) error{
		"small": func(ctx context.Context, c *yonder.Client) error { return c.Call(ctx, yonder.NewCall("f", 1)) },
		"large": func(ctx context.Context, c *yonder.Client) error {
			return c.Call(ctx, yonder.NewCall("f", strings.Repeat("x", 1<<20)))
		},
		"stream": func(ctx context.Context, c *yonder.Client) error {
			return c.Call(ctx, yonder.NewCall("f", iter.Seq2[string, error](func(yield func(string, error) bool) {
				for yield(strings.Repeat("x", 1000), nil) {
				}
			})))
		},
		"reader": func(ctx context.Context, c *yonder.Client) error {
			return c.Call(ctx, yonder.NewCall("f", io.Reader(endless{})))
		},
		"metadata": func(ctx context.Context, c *yonder.Client) error {
			return c.Call(yonder.WithMetadata(ctx, "k", strings.Repeat("x", 8000)), yonder.NewCall("f"))
		},
		"result stream": func(ctx context.Context, c *yonder.Client) error {
			_, err := yonder.Invoke[iter.Seq2[int, error]](ctx, c, "f")
			return err
		},
		"check": func(ctx context.Context, c *yonder.Client) error {
			var f func() error
			c.Bind("f", &f)
			return c.Check(ctx)
		},
		"by Timeout": func(_ context.Context, c *yonder.Client) error {
			var f func(string) error
			c.Bind("f", &f)
			return f("x")
		},
	}
	for _, greeted := range []bool{false, true} {
		t.Run(fmt.Sprint("greeted ", greeted), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				conn := &stuckConn{Conn: far, closed: make(chan struct{})}
				c := (&yonder.Dialer{Timeout: time.Second, Logger: logger(t)}).NewClient(near)
				if greeted {
					srv := yonder.Server{Logger: logger(t)}
					srv.Register("fine", func() int { return 1 })
					go srv.ServeConn(conn)
					if n, err := yonder.Invoke[int](t.Context(), c, "fine"); n != 1 || err != nil {
						t.Fatal(n, err)
					}
					conn.stuck.Store(true)
				}
				start := time.Now()
				var wg sync.WaitGroup
				for range 20 {
					for name, call := range kinds {
						wg.Go(func() {
							ctx, cancel := context.WithTimeout(t.Context(), time.Second)
							defer cancel()
							err := call(ctx, c)
							if took := time.Since(start); took != time.Second || yonder.CodeOf(err) != yonder.DeadlineExceeded {
								t.Errorf("%s: after %v: %v (%v)", name, took, err, yonder.CodeOf(err))
							}
						})
					}
				}
				wg.Wait()
				canceled, cancel := context.WithCancel(t.Context())
				failed := make(chan error)
				go func() { failed <- kinds["large"](canceled, c) }()
				synctest.Wait()
				cancel()
				synctest.Wait()
				select {
				case err := <-failed:
					if yonder.CodeOf(err) != yonder.Canceled {
						t.Errorf("canceled: %v", err)
					}
				default:
					t.Error("the caller that was canceled still waits")
				}
				c.Close()
				conn.Close()
				if took := time.Since(start); took != time.Second {
					t.Errorf("Close took %v", took-time.Second)
				}
			})
		})
	}
}

// The same over a socket, whose buffer takes some of it.
func TestNobodyReadsSocket(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		if m != overTCP && m != overUnix {
			t.Skipf("%s: it is a test of sockets", m.name)
		}
		l, err := net.Listen(map[mode]string{overTCP: "tcp", overUnix: "unix"}[m], map[mode]string{overTCP: "127.0.0.1:0", overUnix: ""}[m])
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		c, err := yonder.Dial(t.Context(), l.Addr().Network()+"://"+l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			err = c.Call(ctx, yonder.NewCall("f", strings.Repeat("x", 16<<20)))
			if yonder.CodeOf(err) != yonder.DeadlineExceeded {
				t.Errorf("got %v (%v)", err, yonder.CodeOf(err))
			}
			cancel()
		}
		c.Close()
	})
}

// A handler that ignores its context holds up nobody.
func TestStuckHandler(t *testing.T) {
	bubbleAll(t, func(t *testing.T, m mode) {
		m.needs(t, streams)
		var srv yonder.Server
		release := make(chan bool)
		srv.Register("stuck", func(in io.Reader) (int, error) { <-release; return 1, nil })
		c := m.client(t, &srv)
		var stuck func(context.Context, io.Reader) (int, error)
		c.Bind("stuck", &stuck)
		for name, in := range map[string]io.Reader{"without a reader": nil, "with a reader": endless{}} {
			if in != nil && !m.can(t, conversation) {
				continue
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			start := time.Now()
			n, err := stuck(ctx, in)
			if took := time.Since(start); took != time.Second || n != 0 || yonder.CodeOf(err) != yonder.DeadlineExceeded {
				t.Errorf("%s: after %v: %d, %v", name, took, n, err)
			}
			cancel()
		}
		close(release)
		synctest.Wait()
	})
}

func TestTimeout(t *testing.T) {
	bubbleAll(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		srv.Register("after", func(ctx context.Context, d time.Duration) (string, error) {
			select {
			case <-time.After(d):
				return "done", nil
			case <-ctx.Done():
				return "", ctx.Err()
			}
		})
		srv.Register("ticks", func(d time.Duration) iter.Seq2[int, error] {
			return func(yield func(int, error) bool) {
				for i := range 3 {
					time.Sleep(d)
					if !yield(i, nil) {
						return
					}
				}
			}
		})
		srv.Register("read", func(d time.Duration) io.Reader {
			r, w := io.Pipe()
			go func() { time.Sleep(d); io.WriteString(w, "late"); w.Close() }()
			return r
		})
		c := m.client(t, &srv)
		c.Timeout = 2 * time.Second
		var plain func(time.Duration) (string, error)
		c.Bind("after", &plain)
		var with func(context.Context, time.Duration) (string, error)
		c.Bind("after", &with)
		var ticks func(time.Duration) (iter.Seq2[int, error], error)
		c.Bind("ticks", &ticks)
		var read func(time.Duration) (io.Reader, error)
		c.Bind("read", &read)

		start := time.Now()
		if s, err := plain(time.Second); s != "done" || err != nil {
			t.Errorf("in time: %q, %v", s, err)
		}
		if s, err := plain(3 * time.Second); s != "" || !errors.Is(err, context.DeadlineExceeded) || yonder.IsRemote(err) {
			t.Errorf("too late: %q, %v", s, err)
		}
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("took %v, want 3s", took)
		}
		if s, err := with(context.Background(), time.Hour); s != "done" || err != nil {
			t.Errorf("with a context: %q, %v", s, err)
		}
		if m.can(t, streams) {
			seq, err := ticks(time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			if list, err := collect(seq); len(list) != 3 || err != nil {
				t.Errorf("a stream: %v, %v", list, err)
			}
			r, err := read(time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(r); string(b) != "late" || err != nil {
				t.Errorf("a reader: %q, %v", b, err)
			}
		}
		unbounded := m.client(t, &srv)
		unbounded.Bind("after", &plain)
		if s, err := plain(10 * time.Hour); s != "done" || err != nil {
			t.Errorf("no timeout: %q, %v", s, err)
		}
	})
}

// TestTimeoutLeft is a regression: what an interceptor had left behind when it returned went on
// until the Timeout, and the handler heard of nothing.
func TestTimeoutLeft(t *testing.T) {
	bubble(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		heard := make(chan error, 1)
		srv.Register("wait", func(ctx context.Context) {
			<-ctx.Done()
			heard <- ctx.Err()
		})
		left := make(chan error, 1)
		d := &yonder.Dialer{Timeout: time.Hour, Interceptors: []yonder.Interceptor{func(next yonder.Handler) yonder.Handler {
			return func(ctx context.Context, call *yonder.Call) error {
				go func() { left <- next(ctx, call) }()
				time.Sleep(time.Second)
				return errors.New("it takes too long")
			}
		}}}
		var c *yonder.Client
		if m == inProcess {
			c = d.Local(&srv)
		} else {
			c = m.dialer(t, &srv, d)
		}
		var wait func() error
		c.Bind("wait", &wait)
		start := time.Now()
		if err := wait(); textOf(err) != "it takes too long" {
			t.Error(err)
		}
		if err := <-left; yonder.CodeOf(err) != yonder.Canceled {
			t.Errorf("the call that was left: %v", err)
		}
		if err := <-heard; err != context.Canceled {
			t.Errorf("the handler: %v", err)
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("all ended after %v, want 1s", took)
		}
	})
}

func TestMetadata(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		m.needs(t, metadata)
		var srv yonder.Server
		echo := func(ctx context.Context) yonder.Metadata {
			info, ok := yonder.InfoFrom(context.WithValue(ctx, testKey{}, 1))
			if !ok {
				t.Error("no call in the handler's context")
			}
			for _, key := range slices.Sorted(maps.Keys(info.Metadata)) {
				yonder.SetReply(ctx, "re-"+key, info.Metadata[key])
			}
			return info.Metadata
		}
		heard := make(chan yonder.Metadata, 1)
		srv.Register("echo", echo)
		srv.Register("hear", func(ctx context.Context) { heard <- echo(ctx) })
		srv.Register("fail", func(ctx context.Context) error { echo(ctx); return errZero })
		srv.Register("stream", func(ctx context.Context) iter.Seq[string] { return maps.Values(echo(ctx)) })
		yonder.Handle(&srv, "hot", func(ctx context.Context, n int) (yonder.Metadata, error) { return echo(ctx), nil })
		c := m.client(t, &srv)
		long := strings.Repeat("v", 3000)
		var reply yonder.Metadata
		replying := yonder.WithReply(t.Context(), &reply)
		base := yonder.WithMetadata(replying, "a", "1", "b", "2")
		for _, row := range []struct {
			name string
			ctx  context.Context
			want yonder.Metadata
		}{
			{"none", replying, nil},
			{"some", base, yonder.Metadata{"a": "1", "b": "2"}},
			{"more", yonder.WithMetadata(base, "b", "3", "c", "4"), yonder.Metadata{"a": "1", "b": "3", "c": "4"}},
			{"as before", base, yonder.Metadata{"a": "1", "b": "2"}},
			{"the later of two", yonder.WithMetadata(replying, "k", "1", "k", "2"), yonder.Metadata{"k": "2"}},
			{"any text", yonder.WithMetadata(replying, "", "empty", "ключ", "\x00\n", "Case", "", "case", long), yonder.Metadata{"": "empty", "ключ": "\x00\n", "Case": "", "case": long}},
			{"none again", replying, nil},
		} {
			var back yonder.Metadata
			for key, value := range row.want {
				if back == nil {
					back = yonder.Metadata{}
				}
				back["re-"+key] = value
			}
			check := func(kind string, got yonder.Metadata, err error) {
				t.Helper()
				if len(got) == 0 && !m.can(t, nils) {
					got = nil
				}
				if diff := cmp.Diff(row.want, got); diff != "" || err != nil {
					t.Errorf("%s, %s: %v %s", row.name, kind, err, diff)
				}
				if diff := cmp.Diff(back, reply); diff != "" {
					t.Errorf("%s, %s: the answer's: %s", row.name, kind, diff)
				}
			}
			got, err := yonder.Invoke[yonder.Metadata](row.ctx, c, "echo")
			check("a call", got, err)
			got, err = yonder.Remote[int, yonder.Metadata](c, "hot")(row.ctx, 1)
			check("hot", got, err)
			if err := c.Call(row.ctx, yonder.NewCall("fail")); textOf(err) != errZero.Error() {
				t.Errorf("%s: %v", row.name, err)
			}
			check("an error", row.want, nil)
			if m.can(t, streams) {
				seq, err := yonder.Invoke[iter.Seq[string]](row.ctx, c, "stream")
				if err != nil {
					t.Fatal(err)
				}
				if n := len(slices.Collect(seq)); n != len(row.want) {
					t.Errorf("%s: a stream of %d values, want %d", row.name, n, len(row.want))
				}
				check("a stream", row.want, nil)
			}
			if err := c.Notify(row.ctx, "hear"); err != nil {
				t.Error(err)
			}
			back = nil // nobody waits for the answer
			check("one-way", <-heard, nil)
		}
		want := "yonder: WithMetadata: key b has no value"
		odd := []string{"a", "1", "b"}
		if got := panicOf(func() { yonder.WithMetadata(t.Context(), odd...) }); got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
		if info, ok := yonder.InfoFrom(t.Context()); ok {
			t.Errorf("a call where there is none: %+v", info)
		}
		yonder.SetReply(t.Context(), "nobody", "hears") // does nothing
	})
}

// What came with a call does not go with the handler's own.
func TestMetadataIsNotPassedOn(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		m.needs(t, metadata)
		var back, front yonder.Server
		back.Register("echo", func(ctx context.Context) yonder.Metadata {
			info, _ := yonder.InfoFrom(ctx)
			yonder.SetReply(ctx, "from", "back")
			return info.Metadata
		})
		behind := m.client(t, &back)
		front.Register("relay", func(ctx context.Context, add bool) (yonder.Metadata, error) {
			if add {
				ctx = yonder.WithMetadata(ctx, "mine", "1")
			}
			return yonder.Invoke[yonder.Metadata](ctx, behind, "echo")
		})
		c := m.client(t, &front)
		var reply yonder.Metadata
		ctx := yonder.WithReply(yonder.WithMetadata(t.Context(), "token", "secret"), &reply)
		for add, want := range map[bool]yonder.Metadata{false: nil, true: {"mine": "1"}} {
			got, err := yonder.Invoke[yonder.Metadata](ctx, c, "relay", add)
			if len(got) == 0 && !m.can(t, nils) {
				got = nil
			}
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("adding: %t: %v %s", add, err, diff)
			}
			if reply != nil {
				t.Errorf("the answer's metadata of another call: %v", reply)
			}
		}
	})
}

// Metadata beyond the limit fails its call, and the connection lives on.
func TestMetadataLimit(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		m.needs(t, metadata)
		m.cannot(t, inProcess, "nothing is sent")
		var srv yonder.Server
		srv.Register("echo", func(ctx context.Context, n int, err bool) (int, error) {
			info, _ := yonder.InfoFrom(ctx)
			if n > 0 {
				yonder.SetReply(ctx, "k", strings.Repeat("x", n))
			}
			if err {
				return 0, yonder.Errorf(yonder.NotFound, "not here")
			}
			return len(info.Metadata["k"]), nil
		})
		const most = 16<<10 - 100                              // less what the key and lengths take
		for _, first := range []int{1 << 20, most, 17 << 10} { // before the server's limit is known
			c := m.dialer(t, &srv, new(yonder.Dialer))
			for _, n := range []int{first, 10, most, 17 << 10, 64 << 10, 1 << 20, 10} {
				got, err := yonder.Invoke[int](yonder.WithMetadata(t.Context(), "k", strings.Repeat("x", n)), c, "echo", 0, false)
				if n <= most && (got != n || err != nil) {
					t.Errorf("%d bytes: %d, %v", n, got, err)
				}
				if n > most && (yonder.CodeOf(err) != yonder.ResourceExhausted || !strings.Contains(textOf(err), "metadata")) {
					t.Errorf("%d bytes: %v (%v)", n, err, yonder.CodeOf(err))
				}
			}
			for _, n := range []int{10, most, 17 << 10, 1 << 20, 10} {
				var reply yonder.Metadata
				ctx := yonder.WithReply(t.Context(), &reply)
				_, err := yonder.Invoke[int](ctx, c, "echo", n, false)
				if n <= most && (len(reply["k"]) != n || err != nil) {
					t.Errorf("%d bytes back: %d, %v", n, len(reply["k"]), err)
				}
				if n > most && (yonder.CodeOf(err) != yonder.ResourceExhausted || !strings.Contains(textOf(err), "metadata")) {
					t.Errorf("%d bytes back: %v (%v)", n, err, yonder.CodeOf(err))
				}
				_, err = yonder.Invoke[int](ctx, c, "echo", n, true)
				if yonder.CodeOf(err) != yonder.NotFound || n > most && len(reply) > 0 {
					t.Errorf("%d bytes back beside an error: %v (%v)", n, err, yonder.CodeOf(err))
				}
			}
		}
		// Each end sets its own limit.
		larger := yonder.Server{Limits: yonder.Limits{MaxMetadata: 32 << 10}}
		larger.Register("size", func(ctx context.Context) int {
			info, _ := yonder.InfoFrom(ctx)
			return len(info.Metadata["k"])
		})
		c := m.dialer(t, &larger, new(yonder.Dialer))
		if got, err := yonder.Invoke[int](yonder.WithMetadata(t.Context(), "k", strings.Repeat("x", 30<<10)), c, "size"); got != 30<<10 || err != nil {
			t.Errorf("with a larger limit: %d, %v", got, err)
		}
	})
}

func TestInfo(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		srv.Register("who", func(ctx context.Context) error {
			info, ok := yonder.InfoFrom(ctx)
			protocol, network := "yonder", map[mode]string{overUnix: "unix", overPipe: "pipe"}[m]
			if network == "" {
				network = "tcp"
			}
			switch m {
			case inProcess, jsonRPC, netRPC, overFrames:
				protocol = m.name
			}
			if !ok || info.Procedure != "who" || info.Protocol != protocol || info.Metadata != nil {
				t.Errorf("got %+v, %t", info, ok)
			}
			conn, _ := info.Conn.(net.Conn)
			if m == inProcess {
				if info.Conn != nil {
					t.Errorf("there is a connection: %T", info.Conn)
				}
			} else if m == overWeb {
				if conn == nil || tlsconn.State(info.Conn) != nil {
					t.Errorf("the connection is a %T", info.Conn)
				}
			} else if conn == nil || conn.RemoteAddr().Network() != network {
				t.Errorf("the connection is a %T", info.Conn)
			}
			return nil
		})
		c := m.client(t, &srv)
		if err := c.Call(t.Context(), yonder.NewCall("who")); err != nil {
			t.Error(err)
		}
	})
}
