package resilience_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/failsafe-go/failsafe-go/adaptivelimiter"
	"golang.org/x/time/rate"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/overload"
	"github.com/yonder-rpc/yonder/resilience"
	"github.com/yonder-rpc/yonder/yondertest"
)

// pair returns a client, with interceptors, of a server that has two procedures which do f with the
// number of the call: get, which is idempotent, and put, which is not.
func pair(t *testing.T, f func(ctx context.Context, n int) (int, error), interceptors ...yonder.Interceptor) (c *yonder.Client, calls *atomic.Int32) {
	t.Helper()
	calls = new(atomic.Int32)
	var srv yonder.Server
	g := func(ctx context.Context) (int, error) { return f(ctx, int(calls.Add(1))) }
	srv.Add(yonder.Procedure{Name: "get", Func: g, Idempotent: true})
	srv.Register("put", g)
	srv.Add(yonder.Procedure{Name: "size", Func: func(r io.Reader) (int64, error) {
		calls.Add(1)
		io.Copy(io.Discard, r)
		return 0, yonder.RetryLater(0, "busy")
	}, Idempotent: true})
	return yondertest.PairDialer(t, &srv, &yonder.Dialer{Interceptors: interceptors}), calls
}

func unavailable(until int) func(context.Context, int) (int, error) {
	return func(_ context.Context, n int) (int, error) {
		if n < until {
			return 0, yonder.Errorf(yonder.Unavailable, "attempt %d", n)
		}
		return n, nil
	}
}

func TestRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, calls := pair(t, unavailable(3), (&resilience.Retry{}).Intercept)
		begun := time.Now()
		if n, err := yonder.Invoke[int](t.Context(), c, "get"); n != 3 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		if took := time.Since(begun); took < 60*time.Millisecond || took > 90*time.Millisecond {
			t.Errorf("pauses of 25 and 50 ms, give or take: %v", took)
		}
		calls.Store(0)
		if _, err := yonder.Invoke[int](t.Context(), c, "put"); yonder.CodeOf(err) != yonder.Unavailable || calls.Load() != 1 {
			t.Errorf("not idempotent: %d calls, %v", calls.Load(), err)
		}
	})
}

// What is idempotent is known before the server cannot be asked any more.
func TestRetryDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Int32
		gone := func(next yonder.Handler) yonder.Handler {
			return func(ctx context.Context, call *yonder.Call) error {
				if down.Add(-1) >= 0 {
					return yonder.Errorf(yonder.Unavailable, "nobody is there")
				}
				return next(ctx, call)
			}
		}
		c, calls := pair(t, unavailable(0), (&resilience.Retry{}).Intercept, gone)
		for range 2 {
			if _, err := yonder.Invoke[int](t.Context(), c, "get"); err != nil {
				t.Fatal(err)
			}
			down.Store(2)
		}
		if n, err := yonder.Invoke[int](t.Context(), c, "put"); yonder.CodeOf(err) != yonder.Unavailable || calls.Load() != 2 {
			t.Errorf("%d, %v, %d calls", n, err, calls.Load())
		}
	})
}

// A call that surely has not run is made again whatever it does; one that may have run only if that
// does no harm. Here the connections are lost, and the server is away for a while.
func TestRetryUnrun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var runs, notes atomic.Int32
		var srv yonder.Server
		entered := make(chan bool, 1)
		srv.Register("put", func() int { return int(runs.Add(1)) })
		srv.Register("note", func() { notes.Add(1) })
		srv.Register("hang", func(ctx context.Context) error {
			runs.Add(1)
			entered <- true
			<-ctx.Done()
			return ctx.Err()
		})
		var conn net.Conn // the last one
		away := 0         // so many attempts to connect fail
		d := yonder.Dialer{
			Interceptors: []yonder.Interceptor{(&resilience.Retry{Attempts: 4}).Intercept},
			NetDial: func(context.Context, string, string) (net.Conn, error) {
				if away > 0 {
					away--
					return nil, errors.New("nobody is there")
				}
				var far net.Conn
				conn, far = net.Pipe()
				go srv.ServeConn(far) // ends with the connection
				return conn, nil
			},
		}
		c, err := d.Dial(t.Context(), "x:1")
		if err != nil {
			t.Fatal(err)
		}
		defer srv.Close()
		defer c.Close()
		lose := func(then int) {
			away = then
			conn.Close()
			synctest.Wait()
		}
		lose(3)
		if n, err := yonder.Invoke[int](t.Context(), c, "put"); n != 1 || err != nil {
			t.Errorf("after three attempts to connect: %d, %v", n, err)
		}
		lose(4)
		if _, err := yonder.Invoke[int](t.Context(), c, "put"); yonder.CodeOf(err) != yonder.Unavailable || yonder.MayHaveRun(err) || runs.Load() != 1 || away != 0 {
			t.Errorf("as many as there are: %v, %d runs, %d attempts left", err, runs.Load(), away)
		}
		away = 2
		if err := c.Notify(t.Context(), "note"); err != nil {
			t.Errorf("one-way: %v", err)
		}
		synctest.Wait()
		if notes.Load() != 1 {
			t.Errorf("a one-way call ran %d times", notes.Load())
		}
		runs.Store(0)
		failed := make(chan error)
		go func() { failed <- c.Call(t.Context(), yonder.NewCall("hang")) }()
		<-entered
		lose(0)
		if err := <-failed; yonder.CodeOf(err) != yonder.Unavailable || !yonder.MayHaveRun(err) || runs.Load() != 1 {
			t.Errorf("a call whose handler had begun ran %d times: %v", runs.Load(), err)
		}
		c.Close()
		begun := time.Now()
		if _, err := yonder.Invoke[int](t.Context(), c, "put"); !errors.Is(err, yonder.ErrClientClosed) || time.Since(begun) > 0 {
			t.Errorf("closed: after %v, %v", time.Since(begun), err)
		}
	})
}

// A server is restarted on its port, where meanwhile nobody listens, again and again under calls that
// must not run twice: all of them surely have not run when they fail, and so are made again.
func TestRetryRestart(t *testing.T) {
	const restarts, callers = 20, 8
	var ran, made atomic.Int64
	begin := func(address string) (actual string, end func()) {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		srv := new(yonder.Server)
		srv.Register("put", func() int64 { return ran.Add(1) })
		served := make(chan error, 1)
		go func() { served <- srv.Serve(l) }() // ends with Shutdown
		return l.Addr().String(), func() {
			if err := srv.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			<-served
		}
	}
	address, end := begin("127.0.0.1:0")
	retry := &resilience.Retry{Attempts: 1000, Pause: time.Millisecond, MaxPause: 50 * time.Millisecond, Budget: resilience.NewBudget(1, callers)}
	c, err := (&yonder.Dialer{Interceptors: []yonder.Interceptor{retry.Intercept}}).Dial(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := yonder.Invoke[int64](t.Context(), c, "put"); err != nil {
		t.Fatal(err)
	}
	made.Add(1)
	var stop atomic.Bool
	var running sync.WaitGroup
	for range callers {
		running.Go(func() { // ends with stop
			for !stop.Load() && !t.Failed() {
				if _, err := yonder.Invoke[int64](t.Context(), c, "put"); err != nil {
					t.Errorf("%v, may have run: %t", err, yonder.MayHaveRun(err))
				}
				made.Add(1)
			}
		})
	}
	for range restarts {
		for range 10 {
			if _, err := yonder.Invoke[int64](t.Context(), c, "put"); err != nil {
				t.Error(err)
			}
			made.Add(1)
		}
		end()
		_, end = begin(address)
	}
	stop.Store(true)
	running.Wait()
	end()
	if ran.Load() != made.Load() {
		t.Errorf("%d calls were made, and %d have run", made.Load(), ran.Load())
	}
}

func TestRetryGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, calls := pair(t, unavailable(100), (&resilience.Retry{Attempts: 5, Idempotent: []string{"p*"}}).Intercept)
		_, err := yonder.Invoke[int](t.Context(), c, "put")
		if calls.Load() != 5 || err == nil || !strings.Contains(err.Error(), "attempt 5") {
			t.Errorf("%d calls, %v", calls.Load(), err)
		}
		calls.Store(0)
		if _, err := yonder.Invoke[int](t.Context(), c, "get"); calls.Load() != 1 {
			t.Errorf("of no pattern: %d calls, %v", calls.Load(), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 40*time.Millisecond)
		defer cancel()
		begun := time.Now()
		_, err = yonder.Invoke[int](ctx, c, "put")
		if yonder.CodeOf(err) != yonder.DeadlineExceeded || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "attempt") || time.Since(begun) != 40*time.Millisecond {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
	})
}

// What has had no effect is made again whatever it does, but not before the time.
func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		busy := func(_ context.Context, n int) (int, error) {
			if n == 1 {
				return 0, yonder.RetryLater(300*time.Millisecond, "busy")
			}
			return n, nil
		}
		c, calls := pair(t, busy, (&resilience.Retry{}).Intercept)
		begun := time.Now()
		n, err := yonder.Invoke[int](t.Context(), c, "put")
		if took := time.Since(begun); n != 2 || err != nil || took < 300*time.Millisecond || took > 320*time.Millisecond {
			t.Errorf("%d after %v, %v", n, took, err)
		}
		// Who has not that much time hears it at once.
		calls.Store(0)
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		begun = time.Now()
		if _, err := yonder.Invoke[int](ctx, c, "put"); yonder.CodeOf(err) != yonder.ResourceExhausted || time.Since(begun) > 0 {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
		// A reader can be read once only.
		calls.Store(0)
		var size func(context.Context, io.Reader) (int64, error)
		c.Bind("size", &size)
		if _, err := size(t.Context(), strings.NewReader("x")); yonder.CodeOf(err) != yonder.ResourceExhausted || calls.Load() != 1 {
			t.Errorf("%d calls, %v", calls.Load(), err)
		}
	})
}

func TestRetryBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(_ context.Context, n int) (int, error) {
			time.Sleep(time.Second)
			return 0, yonder.Errorf(yonder.Unavailable, "attempt %d", n)
		}
		c, calls := pair(t, slow, (&resilience.Retry{Attempts: 2, Budget: resilience.NewBudget(0.1, 1)}).Intercept)
		done := make(chan error)
		for range 100 {
			go func() {
				_, err := yonder.Invoke[int](t.Context(), c, "get")
				done <- err
			}()
		}
		for range 100 {
			if err := <-done; yonder.CodeOf(err) != yonder.Unavailable {
				t.Error(err)
			}
		}
		if n := calls.Load(); n <= 100 || n > 120 {
			t.Errorf("%d calls for 100, want a tenth more", n)
		}
	})
}

func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(ctx context.Context, n int) (int, error) {
			if n == 1 {
				<-ctx.Done()
				return 0, ctx.Err()
			}
			if _, ok := ctx.Deadline(); !ok {
				t.Error("the server knows no deadline")
			}
			return n, nil
		}
		c, calls := pair(t, slow, resilience.Timeout(time.Second), (&resilience.Retry{Idempotent: []string{"get"}}).Intercept, resilience.Timeout(100*time.Millisecond))
		if n, err := yonder.Invoke[int](t.Context(), c, "get"); n != 2 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		calls.Store(0)
		if _, err := yonder.Invoke[int](t.Context(), c, "put"); yonder.CodeOf(err) != yonder.DeadlineExceeded {
			t.Error(err)
		}
	})
}

func TestHedge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var canceled atomic.Int32
		slowFirst := func(ctx context.Context, n int) (int, error) {
			if n%2 == 1 {
				select {
				case <-ctx.Done():
					canceled.Add(1)
					return 0, ctx.Err()
				case <-time.After(time.Second):
				}
			}
			return n, nil
		}
		c, calls := pair(t, slowFirst, (&resilience.Hedge{After: 10 * time.Millisecond}).Intercept)
		begun := time.Now()
		n, err := yonder.Invoke[int](t.Context(), c, "get")
		if took := time.Since(begun); n != 2 || err != nil || took != 10*time.Millisecond {
			t.Errorf("%d after %v, %v", n, took, err)
		}
		synctest.Wait()
		if canceled.Load() != 1 {
			t.Error("the other one was not cancelled")
		}
		calls.Store(0)
		begun = time.Now()
		if n, err := yonder.Invoke[int](t.Context(), c, "put"); n != 1 || err != nil || time.Since(begun) != time.Second {
			t.Errorf("not idempotent: %d after %v, %v", n, time.Since(begun), err)
		}
		calls.Store(0)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		defer cancel()
		if _, err := yonder.Invoke[int](ctx, c, "get"); yonder.CodeOf(err) != yonder.DeadlineExceeded {
			t.Error(err)
		}
	})
}

// One that fails at once does not keep the other from its answer, and what cannot pass is told.
func TestHedgeFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := func(_ context.Context, n int) (int, error) {
			switch n {
			case 1:
				time.Sleep(20 * time.Millisecond)
				return n, nil
			case 2:
				return 0, yonder.Errorf(yonder.Unavailable, "down")
			}
			return 0, yonder.Errorf(yonder.NotFound, "not here")
		}
		c, _ := pair(t, f, (&resilience.Hedge{After: 10 * time.Millisecond, Idempotent: []string{"*"}}).Intercept)
		if n, err := yonder.Invoke[int](t.Context(), c, "put"); n != 1 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		if _, err := yonder.Invoke[int](t.Context(), c, "put"); yonder.CodeOf(err) != yonder.NotFound || !yonder.IsRemote(err) {
			t.Error(err)
		}
	})
}

func TestHedgeQuantile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := func(ctx context.Context, n int) (int, error) {
			d := time.Millisecond
			if n == 51 {
				d = time.Second
			}
			select {
			case <-time.After(d):
			case <-ctx.Done():
			}
			return n, nil
		}
		c, calls := pair(t, f, (&resilience.Hedge{}).Intercept)
		for range 50 {
			if _, err := yonder.Invoke[int](t.Context(), c, "get"); err != nil {
				t.Fatal(err)
			}
		}
		calls.Store(50)
		begun := time.Now()
		if n, err := yonder.Invoke[int](t.Context(), c, "get"); n != 52 || err != nil || time.Since(begun) > 20*time.Millisecond {
			t.Errorf("%d after %v, %v", n, time.Since(begun), err)
		}
	})
}

func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var states []string
		var down atomic.Bool
		f := func(_ context.Context, n int) (int, error) {
			if down.Load() {
				return 0, yonder.Errorf(yonder.Unavailable, "down")
			}
			return 0, yonder.Errorf(yonder.NotFound, "not here")
		}
		b := &resilience.Breaker{Changed: func(s string) { states = append(states, s) }}
		c, calls := pair(t, f, b.Intercept)
		for range 50 {
			if _, err := yonder.Invoke[int](t.Context(), c, "get"); yonder.CodeOf(err) != yonder.NotFound {
				t.Fatal(err)
			}
		}
		down.Store(true)
		for range 100 {
			yonder.Invoke[int](t.Context(), c, "get")
		}
		if n := calls.Load(); n > 110 {
			t.Errorf("%d of 150 calls were made", n)
		}
		calls.Store(0)
		_, err := yonder.Invoke[int](t.Context(), c, "get")
		if after, ok := yonder.RetryAfter(err); calls.Load() != 0 || yonder.CodeOf(err) != yonder.Unavailable || !ok || after > time.Second || after < 900*time.Millisecond {
			t.Errorf("%d calls, %v, %v, %v", calls.Load(), err, after, ok)
		}
		time.Sleep(1100 * time.Millisecond)
		yonder.Invoke[int](t.Context(), c, "get") // still down
		down.Store(false)
		time.Sleep(1100 * time.Millisecond)
		for range 5 {
			if _, err := yonder.Invoke[int](t.Context(), c, "get"); yonder.CodeOf(err) != yonder.NotFound {
				t.Error(err)
			}
		}
		if got := strings.Join(states, " "); got != "open half-open open half-open closed" {
			t.Error(got)
		}
	})
}

func TestRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &resilience.Rates{
			All: rate.NewLimiter(100, 20), PerConn: 10, Burst: 5,
			Procedures: []resilience.Rate{{Procedures: []string{"rep*"}, Limiter: rate.NewLimiter(1, 1)}},
		}
		srv := &yonder.Server{Interceptors: []yonder.Interceptor{r.Intercept}}
		srv.Register("get", func() {})
		srv.Register("report", func() {})
		count := func(c *yonder.Client, name string) (ok int, last error) {
			for range 10 {
				if err := c.Call(t.Context(), yonder.NewCall(name)); err == nil {
					ok++
				} else {
					last = err
				}
			}
			return ok, last
		}
		c := yondertest.Pair(t, srv)
		n, err := count(c, "get")
		if after, ok := yonder.RetryAfter(err); n != 5 || !ok || after != 100*time.Millisecond || yonder.CodeOf(err) != yonder.ResourceExhausted {
			t.Errorf("%d, %v, %v", n, err, after)
		}
		time.Sleep(200 * time.Millisecond)
		if n, _ := count(c, "get"); n != 2 {
			t.Errorf("%d after a while, want 2", n)
		}
		other := yondertest.Pair(t, srv)
		if n, err := count(other, "report"); n != 1 {
			t.Errorf("%d, %v", n, err)
		}
		if n, _ := count(other, "get"); n != 4 { // what was refused has cost nothing
			t.Errorf("%d, want 4", n)
		}
		all := 0
		for range 10 {
			n, _ := count(yondertest.Pair(t, srv), "get")
			all += n
		}
		if all < 8 || all > 20 {
			t.Errorf("%d calls of new connections, want what is left for all", all)
		}
	})
}

// Buckets of connections that are gone do not stay.
func TestBuckets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := 0
		r := &resilience.Rates{PerConn: 1000, Burst: 10, Key: func(context.Context, yonder.CallInfo) any { keys++; return keys }}
		h := r.Intercept(func(context.Context, *yonder.Call) error { return nil })
		most := 0
		for range 10_000 {
			if err := h(t.Context(), yonder.NewCall("x")); err != nil {
				t.Fatal(err)
			}
			most = max(most, resilience.Buckets(r))
			time.Sleep(time.Millisecond)
		}
		if most > 200 {
			t.Errorf("%d buckets", most)
		}
	})
}

// The limit follows what the server can do: more calls at a time than its workers take turns.
func TestAdaptive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limiter := adaptivelimiter.NewBuilder[any]().WithLimits(1, 100, 10).Build()
		gate := &overload.Gate{Adaptive: resilience.Adaptive(limiter), Queue: 50}
		srv := &yonder.Server{Interceptors: []yonder.Interceptor{gate.Intercept}}
		workers := make(chan struct{}, 4)
		srv.Register("get", func() {
			workers <- struct{}{}
			time.Sleep(10 * time.Millisecond)
			<-workers
		})
		c := yondertest.Pair(t, srv)
		stop := time.Now().Add(time.Minute)
		var done, shed atomic.Int32
		finished := make(chan struct{})
		for range 200 {
			go func() {
				for time.Now().Before(stop) {
					err := c.Call(context.Background(), yonder.NewCall("get"))
					if after, ok := yonder.RetryAfter(err); ok {
						shed.Add(1)
						time.Sleep(after)
					} else if err != nil {
						t.Error(err)
					} else {
						done.Add(1)
					}
				}
				finished <- struct{}{}
			}()
		}
		for range 200 {
			<-finished
		}
		if n := done.Load(); n < 20_000 { // 400 a second can be done
			t.Errorf("%d calls were done in a minute, want most of 24,000", n)
		}
		t.Logf("limit %d, %d done, %d sent away", limiter.Limit(), done.Load(), shed.Load())
		if limiter.Limit() > 60 || shed.Load() == 0 {
			t.Errorf("the limit is %d, for 4 workers; %d sent away", limiter.Limit(), shed.Load())
		}
	})
}
