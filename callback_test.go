package yonder_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
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
)

// walk calls f with 0 to n-1.
func walk(n int, f func(int) error) error {
	for i := range n {
		if err := f(i); err != nil {
			return err
		}
	}
	return nil
}

func TestCallbacks(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		srv.Register("walk", walk)
		srv.Register("map", func(ctx context.Context, users []User, f func(context.Context, User) (User, error)) ([]User, error) {
			for i := range users {
				var err error
				if users[i], err = f(ctx, users[i]); err != nil {
					return nil, err
				}
			}
			return users, nil
		})
		srv.Register("choose", func(first, second func(string, ...int) (string, int, error), n int) (string, error) {
			f := first
			if n < 0 {
				f = second
			}
			s, sum, err := f("n", n, 2*n)
			return fmt.Sprint(s, sum), err
		})
		srv.Register("nils", func(a func() error, b func(int) (int, error), c func() error) (string, error) {
			n, err := b(1)
			return fmt.Sprint(a == nil, n, c == nil), err
		})
		c := m.client(t, &srv)

		var visit func(int, func(int) error) error
		c.Bind("walk", &visit)
		for _, n := range []int{0, 1, 1000} {
			var got, want []int
			for i := range n {
				want = append(want, i)
			}
			err := visit(n, func(i int) error { got = append(got, i); return nil })
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("walk(%d): %v %s", n, err, diff)
			}
		}
		// The caller's function may have other types that fit.
		var visit64 func(int, func(int64) error) error
		c.Bind("walk", &visit64)
		sum := int64(0)
		if err := visit64(4, func(i int64) error { sum += i; return nil }); sum != 6 || err != nil {
			t.Errorf("walk by int64: %d, %v", sum, err)
		}

		var each func(context.Context, []User, func(context.Context, User) (User, error)) ([]User, error)
		c.Bind("map", &each)
		got, err := each(t.Context(), []User{{"Foo", 1}, {"Bar", 2}}, func(ctx context.Context, u User) (User, error) {
			return User{strings.ToUpper(u.Name), 10 * u.Age}, ctx.Err()
		})
		if diff := cmp.Diff([]User{{"FOO", 10}, {"BAR", 20}}, got); diff != "" || err != nil {
			t.Error(err, diff)
		}

		say := func(s string) func(string, ...int) (string, int, error) {
			return func(name string, xs ...int) (string, int, error) { return s + name, xs[0] + xs[1], nil }
		}
		for n, want := range map[int]string{3: "first n9", -3: "second n-9"} {
			if got, err := yonder.Invoke[string](t.Context(), c, "choose", say("first "), say("second "), n); got != want || err != nil {
				t.Errorf("choose: %q, %v, want %q", got, err, want)
			}
		}
		var nils func(a func() error, b func(int) (int, error), c func() error) (string, error)
		c.Bind("nils", &nils)
		if got, err := nils(nil, func(i int) (int, error) { return i + 1, nil }, nil); got != "true 2 true" || err != nil {
			t.Errorf("nils: %q, %v", got, err)
		}
	})
}

func TestCallbackMismatch(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		srv.Register("walk", func(int, func(int) error) error { t.Error("it ran"); return nil })
		c := m.client(t, &srv)
		err := c.Call(t.Context(), yonder.NewCall("walk", 1, func(string) error { return nil }))
		if yonder.CodeOf(err) != yonder.InvalidArgument || !strings.Contains(textOf(err), "caller: func(int, func(string) error) error\n\tcallee: func(int, func(int) error) error") {
			t.Errorf("got %v", err)
		}
	})
}

// A handler may call its callbacks from many goroutines, and with one call at a time
// allowed either way this takes longer, and no more.
func TestConcurrentCallbacks(t *testing.T) {
	for _, limit := range []int{0, 1} {
		t.Run(fmt.Sprint("MaxCalls ", limit), func(t *testing.T) {
			run(t, func(t *testing.T, m mode) {
				limits := yonder.Limits{MaxCalls: limit}
				srv := yonder.Server{Limits: limits}
				srv.Register("spread", func(ctx context.Context, n int, f func(context.Context, int) (int, error), g func(int) (int, error)) (int, error) {
					var sum atomic.Int64
					errs := make(chan error, n)
					var wg sync.WaitGroup
					for i := range n {
						wg.Go(func() {
							for j := range 10 {
								a, err := f(ctx, i)
								b, err2 := g(j)
								sum.Add(int64(a + b))
								if err := errors.Join(err, err2); err != nil {
									errs <- err
									return
								}
							}
						})
					}
					wg.Wait()
					close(errs)
					return int(sum.Load()), <-errs
				})
				var c *yonder.Client
				if m == inProcess {
					c = m.client(t, &srv)
				} else {
					c = m.dialer(t, &srv, &yonder.Dialer{Limits: limits})
				}
				var spread func(context.Context, int, func(context.Context, int) (int, error), func(int) (int, error)) (int, error)
				c.Bind("spread", &spread)
				var calls sync.WaitGroup
				for range 3 { // calls, whose callbacks must not be taken for each other's
					calls.Go(func() {
						var ran atomic.Int64
						f := func(ctx context.Context, i int) (int, error) { ran.Add(1); return 2 * i, nil }
						g := func(j int) (int, error) { ran.Add(1); return 3 * j, nil }
						got, err := spread(t.Context(), 20, f, g)
						if want := 10*2*190 + 20*3*45; got != want || err != nil {
							t.Errorf("got %d, %v, want %d", got, err, want)
						}
						if n := ran.Load(); n != 400 {
							t.Errorf("the caller's own functions ran %d times, want 400", n)
						}
					})
				}
				calls.Wait()
			})
		})
	}
}

func TestCallbackErrors(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		srv := yonder.Server{Errors: listedErrors}
		seen := make(chan error, 1)
		srv.Register("ask", func(f func() (int, error)) error {
			n, err := f()
			if n != 0 {
				t.Errorf("a result beside the error: %d", n)
			}
			seen <- err
			return fmt.Errorf("asked: %w", err)
		})
		var c *yonder.Client
		if m == inProcess {
			c = m.client(t, &srv)
		} else {
			c = m.dialer(t, &srv, &yonder.Dialer{Errors: listedErrors})
		}
		var ask func(func() (int, error)) error
		c.Bind("ask", &ask)
		back := ask(func() (int, error) {
			return 1, fmt.Errorf("a: %w", &yonder.Error{
				Code: yonder.OutOfRange, Message: "b", Details: "c",
				Err: errors.Join(errSold, &quotaError{Limit: 3}, io.EOF),
			})
		})
		for where, err := range map[string]error{"the handler": <-seen, "the caller": back} {
			quota, _ := errors.AsType[*quotaError](err)
			details, _ := yonder.DetailsAs[string](err)
			if yonder.CodeOf(err) != yonder.OutOfRange || !yonder.IsRemote(err) || !errors.Is(err, errSold) || !errors.Is(err, io.EOF) ||
				quota == nil || quota.Limit != 3 || details != "c" {
				t.Errorf("%s: got %v (%v), %v, details %q", where, err, yonder.CodeOf(err), quota, details)
			}
		}
		if textOf(back) != "asked: a: b" {
			t.Errorf("got %v", back)
		}
	})
}

// A callback is valid until its call has ended.
func TestCallbackAfterCall(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		type kept struct {
			ctx   context.Context
			plain func() error
			with  func(context.Context) error
		}
		keep := make(chan kept, 1)
		srv.Register("keep", func(ctx context.Context, plain func() error, with func(context.Context) error) {
			keep <- kept{ctx, plain, with}
		})
		c := m.client(t, &srv)
		ran := func() error { t.Error("it ran"); return nil }
		if err := c.Call(t.Context(), yonder.NewCall("keep", ran, func(context.Context) error { return ran() })); err != nil {
			t.Fatal(err)
		}
		k := <-keep
		<-k.ctx.Done()
		for how, f := range map[string]func() error{
			"without a context":         k.plain,
			"with the handler's":        func() error { return k.with(k.ctx) },
			"with one that goes on":     func() error { return k.with(context.WithoutCancel(k.ctx)) },
			"with one of another place": func() error { return k.with(t.Context()) },
		} {
			if err := f(); yonder.CodeOf(err) != yonder.FailedPrecondition || !strings.Contains(textOf(err), "has ended") {
				t.Errorf("%s: %v (%v)", how, err, yonder.CodeOf(err))
			}
		}
	})
}

func TestCallbackPanics(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		log := new(logBuffer)
		var srv yonder.Server
		seen := make(chan error, 1)
		srv.Register("ask", func(f func() error) string {
			seen <- f()
			return "going on"
		})
		var c *yonder.Client
		if m == inProcess {
			srv.Logger = log.logger()
			c = m.client(t, &srv)
		} else {
			c = m.dialer(t, &srv, &yonder.Dialer{Logger: log.logger()})
		}
		for how, f := range map[string]func() error{
			"boom":   func() error { panic("boom in the callback") },
			"Goexit": func() error { runtime.Goexit(); return nil },
			"Error":  func() error { return &crashError{"Error"} },
		} {
			log.reset()
			if s, err := yonder.Invoke[string](t.Context(), c, "ask", f); s != "going on" || err != nil {
				t.Errorf("%s: %q, %v", how, s, err)
			}
			if err := <-seen; yonder.CodeOf(err) != yonder.Internal || !yonder.IsRemote(err) || strings.Contains(textOf(err), "boom") {
				t.Errorf("%s: the handler got %v (%v)", how, err, yonder.CodeOf(err))
			}
			if !strings.Contains(log.String(), how) || !strings.Contains(log.String(), "_test.go") {
				t.Errorf("%s: the log has no stack:\n%s", how, log)
			}
		}
	})
}

// A callback may call the server, whose procedure may call back, and so on.
func TestNestedCallbacks(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		srv.Register("down", func(ctx context.Context, depth int, f func(context.Context, int) (int, error)) (int, error) {
			n, err := f(ctx, depth-1)
			return n + 1, err
		})
		srv.Register("twice", func(f func(g func(int) (int, error)) (int, error)) (int, error) {
			return f(func(i int) (int, error) { return 2 * i, nil })
		})
		c := m.client(t, &srv)
		var down func(context.Context, int, func(context.Context, int) (int, error)) (int, error)
		c.Bind("down", &down)
		var f func(context.Context, int) (int, error)
		f = func(ctx context.Context, depth int) (int, error) {
			if depth == 0 {
				return 0, nil
			}
			if m != inProcess && yonder.PeerFrom(ctx) != c {
				t.Error("PeerFrom in a callback is not the client that it was given to")
			}
			return down(ctx, depth, f)
		}
		if n, err := down(t.Context(), 20, f); n != 20 || err != nil {
			t.Errorf("down: %d, %v", n, err)
		}
		var twice func(func(func(int) (int, error)) (int, error)) (int, error)
		c.Bind("twice", &twice)
		n, err := twice(func(g func(int) (int, error)) (int, error) {
			a, err := g(3)
			if err != nil {
				return 0, err
			}
			return g(a)
		})
		if n != 12 || err != nil {
			t.Errorf("a callback of a callback: %d, %v", n, err)
		}
	})
}

// A callback is a call like any other: it may have streams and readers.
func TestCallbackStreams(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		srv.Register("filter", func(f func(context.Context, iter.Seq2[int, error]) (iter.Seq2[string, error], error)) ([]string, error) {
			seq, err := f(context.Background(), countTo(1000, nil))
			if err != nil {
				return nil, err
			}
			return collect(seq)
		})
		srv.Register("read", func(ctx context.Context, f func(io.Reader) (io.ReadCloser, error)) (string, error) {
			r, err := f(strings.NewReader("abc"))
			if err != nil {
				return "", err
			}
			defer r.Close()
			b, err := io.ReadAll(r)
			return string(b), err
		})
		c := m.client(t, &srv)
		var filter func(func(context.Context, iter.Seq2[int, error]) (iter.Seq2[string, error], error)) ([]string, error)
		c.Bind("filter", &filter)
		got, err := filter(func(ctx context.Context, xs iter.Seq2[int, error]) (iter.Seq2[string, error], error) {
			return func(yield func(string, error) bool) {
				for x, err := range xs {
					if x%100 == 0 && !yield(fmt.Sprint(x), err) {
						return
					}
				}
				yield("", errZero)
			}, nil
		})
		if textOf(err) != errZero.Error() || got != nil {
			t.Errorf("filter: %v, %v", got, err)
		}
		closed := make(chan bool, 1)
		var read func(context.Context, func(io.Reader) (io.ReadCloser, error)) (string, error)
		c.Bind("read", &read)
		text, err := read(t.Context(), func(r io.Reader) (io.ReadCloser, error) {
			return &notingCloser{Reader: io.MultiReader(strings.NewReader("<"), r, strings.NewReader(">")), closed: closed}, nil
		})
		if text != "<abc>" || err != nil {
			t.Errorf("read: %q, %v", text, err)
		}
		<-closed
	})
}

// The context of a callback has the deadline of the handler's, which has the caller's, and
// the metadata that the handler gives; the answer's goes back.
func TestCallbackContext(t *testing.T) {
	bubble(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		srv.Register("ask", func(ctx context.Context, f func(context.Context) error) error {
			time.Sleep(time.Second)
			var reply yonder.Metadata
			err := f(yonder.WithReply(yonder.WithMetadata(ctx, "key", "value"), &reply))
			if diff := cmp.Diff(yonder.Metadata{"answer": "42"}, reply); diff != "" {
				t.Errorf("the answer's metadata: %s", diff)
			}
			return err
		})
		c := m.client(t, &srv)
		ctx, cancel := context.WithTimeout(yonder.WithMetadata(t.Context(), "caller", "secret"), time.Minute)
		defer cancel()
		want, _ := ctx.Deadline()
		err := c.Call(ctx, yonder.NewCall("ask", func(ctx context.Context) error {
			if got, ok := ctx.Deadline(); !ok || !got.Equal(want) {
				t.Errorf("the deadline is %v, want %v", got, want)
			}
			info, ok := yonder.InfoFrom(ctx)
			if diff := cmp.Diff(yonder.Metadata{"key": "value"}, info.Metadata); diff != "" || !ok || info.Procedure != "ask#1" {
				t.Errorf("%q, %t %s", info.Procedure, ok, diff)
			}
			yonder.SetReply(ctx, "answer", "42")
			return nil
		}))
		if err != nil {
			t.Error(err)
		}
	})
}

// Who cancels a call ends its callbacks, one that runs included.
func TestCancelInCallback(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		seen := make(chan error, 3)
		srv.Register("ask", func(ctx context.Context, f func(context.Context) error, g func() error) error {
			seen <- f(ctx)
			seen <- f(ctx)
			seen <- g()
			return nil
		})
		c := m.client(t, &srv)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		ran := 0
		err := c.Call(ctx, yonder.NewCall("ask", func(ctx context.Context) error {
			ran++
			cancel()
			<-ctx.Done()
			ended <- context.Cause(ctx)
			return ctx.Err()
		}, func() error { ran++; return nil }))
		if yonder.CodeOf(err) != yonder.Canceled || yonder.IsRemote(err) {
			t.Errorf("the caller got %v (%v)", err, yonder.CodeOf(err))
		}
		if err := <-ended; err != context.Canceled {
			t.Errorf("the callback's context ended with %v", err)
		}
		for i := range 3 {
			if err := <-seen; yonder.CodeOf(err) != yonder.Canceled || !errors.Is(err, context.Canceled) {
				t.Errorf("the handler's callback %d: %v (%v)", i+1, err, yonder.CodeOf(err))
			}
		}
		if ran != 1 {
			t.Errorf("%d callbacks ran, want 1", ran)
		}
	})
}

// A handler gives up on a callback as a caller does on a call: at once.
func TestCallbackTimeout(t *testing.T) {
	bubble(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		srv.Register("ask", func(ctx context.Context, f func(context.Context) error) error {
			ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
			defer cancel()
			return f(ctx)
		})
		c := m.client(t, &srv)
		stuck, ended := make(chan bool), make(chan error, 1)
		start := time.Now()
		err := c.Call(t.Context(), yonder.NewCall("ask", func(ctx context.Context) error {
			<-ctx.Done()
			ended <- ctx.Err()
			<-stuck // it ignores its context
			return nil
		}))
		if took := time.Since(start); took != 3*time.Second || yonder.CodeOf(err) != yonder.DeadlineExceeded {
			t.Errorf("after %v: %v (%v)", took, err, yonder.CodeOf(err))
		}
		if err := <-ended; err != context.DeadlineExceeded {
			t.Errorf("the callback's context ended with %v", err)
		}
		close(stuck)
		synctest.Wait()
	})
}

// Nobody waits for a call that is one-way, so nothing of its caller's can go with it.
func TestNotifyWithStreams(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		srv.Register("callback", func(f func() error) { t.Error("callback ran") })
		srv.Register("stream", func(xs iter.Seq[int]) { t.Error("stream ran") })
		srv.Register("reader", func(r io.Reader) { t.Error("reader ran") })
		ran := make(chan bool, 3)
		srv.Register("nils", func(f func() error, xs iter.Seq[int], r io.Reader) { ran <- f == nil && xs == nil && r == nil })
		c := m.client(t, &srv)
		for name, arg := range map[string]any{
			"callback": func() error { return nil }, "stream": slices.Values([]int{1}), "reader": strings.NewReader("x"),
		} {
			err := c.Notify(t.Context(), name, arg)
			if yonder.CodeOf(err) != yonder.InvalidArgument || yonder.IsRemote(err) || !strings.Contains(textOf(err), "argument 1") {
				t.Errorf("%s: %v (%v)", name, err, yonder.CodeOf(err))
			}
		}
		if err := c.Notify(t.Context(), "nils", (func() error)(nil), iter.Seq[int](nil), io.Reader((*strings.Reader)(nil))); err != nil {
			t.Error(err)
		} else if !<-ran {
			t.Error("nil did not stay nil")
		}
	})
}
