package overload_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/overload"
	"github.com/yonder-rpc/yonder/yondertest"
)

// work is a handler that takes its time, whatever its context says.
func work(d time.Duration) { time.Sleep(d) }

// server returns one with a gate, and what tells how many calls ran at a time at most.
func server(g *overload.Gate) (srv *yonder.Server, most func() int) {
	var running, peak atomic.Int32
	srv = &yonder.Server{Interceptors: []yonder.Interceptor{g.Intercept}}
	f := func(d time.Duration) {
		now := running.Add(1)
		for p := peak.Load(); now > p && !peak.CompareAndSwap(p, now); p = peak.Load() {
		}
		work(d)
		running.Add(-1)
	}
	srv.Register("work", f)
	srv.Register("report.make", f)
	return srv, func() int { return int(peak.Load()) }
}

func call(ctx context.Context, c *yonder.Client, name string, d time.Duration) error {
	return c.Call(ctx, yonder.NewCall(name, d))
}

// together makes n calls at a time, in a known order, and counts how they end.
func together(c *yonder.Client, n int, d time.Duration) map[yonder.Code]int {
	var wg sync.WaitGroup
	var mu sync.Mutex
	ends := make(map[yonder.Code]int)
	for range n {
		wg.Go(func() {
			code := yonder.CodeOf(call(context.Background(), c, "work", d))
			mu.Lock()
			defer mu.Unlock()
			ends[code]++
		})
	}
	wg.Wait()
	return ends
}

func TestRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &overload.Gate{Running: 3, Queue: 5}
		srv, most := server(g)
		c := yondertest.Pair(t, srv)
		want := map[yonder.Code]int{0: 8, yonder.ResourceExhausted: 12}
		if diff := cmp.Diff(want, together(c, 20, 10*time.Millisecond)); diff != "" || most() != 3 {
			t.Errorf("%d at a time, want 3; ends, -want +got:\n%s", most(), diff)
		}
		if diff := cmp.Diff(overload.Stats{Admitted: 8, Queued: 5, Shed: 12}, g.Stats()); diff != "" {
			t.Errorf("stats, -want +got:\n%s", diff)
		}
		if err := call(t.Context(), c, "work", 0); err != nil {
			t.Error("afterwards:", err)
		}
	})
}

// Who is sent away hears when to come back, and has had nothing done.
func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &overload.Gate{Running: 1, Queue: -1}
		srv, _ := server(g)
		c := yondertest.Pair(t, srv)
		call(t.Context(), c, "work", 400*time.Millisecond) // to be known
		go call(context.Background(), c, "work", time.Second)
		synctest.Wait()
		err := call(t.Context(), c, "work", 0)
		after, ok := yonder.RetryAfter(err)
		if yonder.CodeOf(err) != yonder.ResourceExhausted || !yonder.IsRemote(err) || !ok || after < 400*time.Millisecond || after > 600*time.Millisecond {
			t.Errorf("%v, retry after %v, %v", err, after, ok)
		}
		time.Sleep(time.Second)
	})
}

func TestPerConn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &overload.Gate{PerConn: 2, Queue: -1}
		srv, most := server(g)
		for range 2 {
			c := yondertest.Pair(t, srv)
			want := map[yonder.Code]int{0: 2, yonder.ResourceExhausted: 3}
			if diff := cmp.Diff(want, together(c, 5, time.Millisecond)); diff != "" {
				t.Errorf("ends, -want +got:\n%s", diff)
			}
		}
		if most() != 2 {
			t.Errorf("%d at a time", most())
		}
	})
}

// A procedure's limit holds up its own calls only, and theirs no others behind them.
func TestProcedures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &overload.Gate{Running: 10, Wait: time.Minute, Procedures: []overload.Limit{{Procedures: []string{"report.*"}, Running: 1}, {Procedures: []string{"no*"}}}}
		srv, _ := server(g)
		srv.Register("nothing", func() {})
		c := yondertest.Pair(t, srv)
		var done atomic.Int32
		for range 3 {
			go func() {
				call(context.Background(), c, "report.make", time.Second)
				done.Add(1)
			}()
		}
		synctest.Wait()
		begun := time.Now()
		if err := call(t.Context(), c, "work", 0); err != nil || time.Since(begun) > 0 {
			t.Errorf("a call beside waited %v: %v", time.Since(begun), err)
		}
		time.Sleep(2500 * time.Millisecond)
		if done.Load() != 2 {
			t.Errorf("%d are done after 2.5 s, want 2", done.Load())
		}
		time.Sleep(time.Second)
		if err := c.Call(t.Context(), yonder.NewCall("nothing")); yonder.CodeOf(err) != yonder.ResourceExhausted {
			t.Error("of what may not run at all:", err)
		}
	})
}

// A connection with many calls does not keep one with few from its turn, nor from the queue.
func TestFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &overload.Gate{Running: 1, Queue: 20, Wait: time.Minute}
		srv, _ := server(g)
		greedy, modest := yondertest.Pair(t, srv), yondertest.Pair(t, srv)
		var refused atomic.Int32
		for range 100 {
			go func() {
				if call(context.Background(), greedy, "work", time.Second) != nil {
					refused.Add(1)
				}
			}()
		}
		synctest.Wait()
		if n := refused.Load(); n != 79 {
			t.Errorf("%d calls refused, want 79", n)
		}
		begun := time.Now()
		if err := call(t.Context(), modest, "work", 0); err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took > 2*time.Second {
			t.Errorf("it waited %v behind another connection's calls", took)
		}
		if n := refused.Load(); n != 80 {
			t.Errorf("%d calls refused, want the 80th to have given way", n)
		}
		time.Sleep(30 * time.Second)
	})
}

// What cannot be done in time is not run.
func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &overload.Gate{Running: 1, Wait: time.Minute}
		srv := &yonder.Server{Interceptors: []yonder.Interceptor{g.Intercept}}
		var ran atomic.Int32
		srv.Register("work", func(d time.Duration) { ran.Add(1); time.Sleep(d) })
		c := yondertest.Pair(t, srv)
		for range 200 {
			call(t.Context(), c, "work", 10*time.Millisecond)
		}
		ran.Store(0)
		// Not enough time, though nobody is ahead.
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		defer cancel()
		err := call(ctx, c, "work", 10*time.Millisecond)
		if _, ok := yonder.RetryAfter(err); ran.Load() != 0 || yonder.CodeOf(err) != yonder.ResourceExhausted || !ok {
			t.Errorf("%d have run; %v", ran.Load(), err)
		}
		// Enough, but not once those ahead are done.
		go call(context.Background(), c, "work", 100*time.Millisecond)
		synctest.Wait()
		ctx, cancel = context.WithTimeout(t.Context(), 105*time.Millisecond)
		defer cancel()
		if err := call(ctx, c, "work", 10*time.Millisecond); yonder.CodeOf(err) != yonder.ResourceExhausted || ran.Load() != 1 {
			t.Errorf("%d have run, want the one ahead only; %v", ran.Load(), err)
		}
		// When its caller leaves, its place is free.
		go call(context.Background(), c, "work", 100*time.Millisecond)
		synctest.Wait()
		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(time.Millisecond, cancel)
		call(ctx, c, "work", 0)
		synctest.Wait()
		if s := g.Stats(); s.Waiting != 0 || s.Left != 1 || s.Late != 2 {
			t.Errorf("%+v", s)
		}
		time.Sleep(10 * time.Second)
		// What is known grows old: else calls that have become faster would never be run again.
		ctx, cancel = context.WithTimeout(t.Context(), 5*time.Millisecond)
		defer cancel()
		if err := call(ctx, c, "work", 0); err != nil {
			t.Error("later:", err)
		}
	})
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &overload.Gate{Running: 1, Wait: 50 * time.Millisecond}
		srv, _ := server(g)
		c := yondertest.Pair(t, srv)
		go call(context.Background(), c, "work", time.Second)
		synctest.Wait()
		begun := time.Now()
		err := call(t.Context(), c, "work", 0)
		if took := time.Since(begun); yonder.CodeOf(err) != yonder.ResourceExhausted || took != 50*time.Millisecond {
			t.Errorf("after %v: %v", took, err)
		}
		time.Sleep(time.Second)
	})
}

// A handler that panics, or ends its goroutine, gives back its place; a callback needs none.
func TestEnds(t *testing.T) {
	g := &overload.Gate{Running: 1, Queue: -1}
	srv := &yonder.Server{Interceptors: []yonder.Interceptor{g.Intercept}, Logger: slog.New(slog.DiscardHandler)}
	srv.Register("panic", func() { panic("on purpose") })
	srv.Register("twice", func(f func() error) error { return f() })
	mine := &yonder.Server{Interceptors: []yonder.Interceptor{g.Intercept}} // the very same gate
	c := yondertest.PairDialer(t, srv, &yonder.Dialer{Server: mine})
	for range 3 {
		if err := c.Call(t.Context(), yonder.NewCall("panic")); yonder.CodeOf(err) != yonder.Internal {
			t.Error(err)
		}
	}
	var twice func(context.Context, func() error) error
	c.Bind("twice", &twice)
	if err := twice(t.Context(), func() error { return nil }); err != nil {
		t.Error(err)
	}
}

type permit struct{ recorded, dropped *atomic.Int32 }

func (p permit) Record() { p.recorded.Add(1) }
func (p permit) Drop()   { p.dropped.Add(1) }

func TestAdaptive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var limit, given, recorded, dropped atomic.Int32
		limit.Store(2)
		g := &overload.Gate{Wait: time.Minute, Adaptive: func() (overload.Permit, bool) {
			if given.Load()-recorded.Load()-dropped.Load() >= limit.Load() {
				return nil, false
			}
			given.Add(1)
			return permit{&recorded, &dropped}, true
		}}
		srv, most := server(g)
		c := yondertest.Pair(t, srv)
		if diff := cmp.Diff(map[yonder.Code]int{0: 10}, together(c, 10, time.Millisecond)); diff != "" || most() != 2 {
			t.Errorf("%d at a time; ends, -want +got:\n%s", most(), diff)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		call(ctx, c, "work", 10*time.Millisecond)
		time.Sleep(time.Second)
		if recorded.Load() != 10 || dropped.Load() != 1 {
			t.Errorf("%d recorded, %d dropped", recorded.Load(), dropped.Load())
		}
		limit.Store(0) // now it is shut
		if err := call(t.Context(), c, "work", 0); yonder.CodeOf(err) != yonder.ResourceExhausted {
			t.Error(err)
		}
	})
}

func TestKey(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	if got := overload.Connection(yonder.CallInfo{Conn: near}); got != near {
		t.Error(got)
	}
	if got := overload.Connection(yonder.CallInfo{}); got != nil {
		t.Error(got)
	}
	odd := struct {
		net.Conn
		list []int
	}{near, nil}
	if got := overload.Connection(yonder.CallInfo{Conn: odd}); got == nil {
		t.Error("a connection that cannot be compared is none")
	}
	keys := make(chan any, 1)
	g := &overload.Gate{Key: func(_ context.Context, info yonder.CallInfo) any {
		keys <- info.Metadata["tenant"]
		return info.Metadata["tenant"]
	}}
	srv, _ := server(g)
	c := yondertest.Pair(t, srv)
	if err := call(yonder.WithMetadata(t.Context(), "tenant", "a"), c, "work", 0); err != nil {
		t.Fatal(err)
	}
	if got := <-keys; got != "a" {
		t.Error(got)
	}
}

// Random loads never break the limits, lose a call or leave anything behind.
func TestRandom(t *testing.T) {
	for seed := range 20 {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := &overload.Gate{
					Running: 1 + seed%4, PerConn: 1 + seed%3, Queue: 3 * seed, Wait: time.Duration(1+seed) * time.Millisecond,
					Procedures: []overload.Limit{{Procedures: []string{"report.*"}, Running: 1}},
				}
				srv, most := server(g)
				var wg sync.WaitGroup
				var ok, not atomic.Int64
				for i := range 10 {
					c := yondertest.Pair(t, srv)
					for k := range 40 {
						wg.Go(func() {
							time.Sleep(time.Duration((i*k*7+seed)%50) * time.Millisecond)
							ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+(i*3+k+seed)%20)*time.Millisecond)
							defer cancel()
							name := []string{"work", "report.make"}[(i+k)%2]
							if err := call(ctx, c, name, time.Duration((k+seed)%7)*time.Millisecond); err == nil {
								ok.Add(1)
							} else if code := yonder.CodeOf(err); slices.Contains([]yonder.Code{yonder.ResourceExhausted, yonder.DeadlineExceeded}, code) {
								not.Add(1)
							} else {
								t.Error(err)
							}
						})
					}
				}
				wg.Wait()
				time.Sleep(time.Second)
				if s := g.Stats(); ok.Load()+not.Load() != 400 || ok.Load() == 0 || s.Running != 0 || s.Waiting != 0 || most() > 1+seed%4 {
					t.Errorf("%d done, %d not, %d at a time; %+v", ok.Load(), not.Load(), most(), s)
				}
			})
		})
	}
}

func BenchmarkGate(b *testing.B) {
	g := &overload.Gate{Running: 64, PerConn: 16}
	h := g.Intercept(func(context.Context, *yonder.Call) error { return nil })
	c := yonder.NewCall("work")
	for b.Loop() {
		h(b.Context(), c)
	}
}
