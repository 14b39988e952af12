//go:build linux

package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/rpc"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/overload"
)

const (
	// workDeadline is how long a caller waits; what comes later is of no use to it.
	workDeadline = 100 * time.Millisecond
	// workConnections are what calls come over.
	workConnections = 8
	// workCallers, one call at a time each, find out how many calls a server can do.
	workCallers = 16
	// overloadShare is how much of that is to be left under any load.
	overloadShare = 0.8
)

// A worker has a server work for about a millisecond, which is the server's CPU time, and says
// whether it has been told to come back later.
type worker interface {
	work(ctx context.Context) (shed bool, err error)
}

// toil is that work: the same on all servers.
func toil() byte {
	var block [64 << 10]byte
	var sum [sha256.Size]byte
	for range 24 {
		sum = sha256.Sum256(block[:])
		copy(block[:], sum[:])
	}
	return sum[0]
}

// loaded is what became of calls that begin whether or not those before them have ended.
type loaded struct {
	Sustained float64 // calls a second that the server does for callers who wait for each other
	Offered   int64   // calls that began
	Shed      int64   // of those, that were sent away
	Late      int64   // of those, whose callers did not wait any longer
}

// goodput is the share of the sustained rate that is left.
func goodput(s *sample) float64 { return rate(s) / max(1, s.Load.Sustained) }

// measureOverload finds out how many calls a second a server can do, and offers it a multiple.
func measureOverload(ctx context.Context, t *trial) (s sample, err error) {
	clients := make([]client, workConnections)
	for i := range clients {
		if clients[i], err = t.dial(ctx); err != nil {
			return s, err
		}
		defer func() { err = errors.Join(err, clients[i].close()) }()
	}
	runtime.GC()
	if err := t.srv.collect(); err != nil {
		return s, err
	}
	sustained, err := t.sustained(ctx, clients)
	if err != nil {
		return s, err
	}
	d := 5 * t.cfg.duration
	s, err = t.watch(func(s *sample) error {
		*s = t.offer(clients, sustained*t.w.factor, d)
		return ctx.Err()
	})
	if err != nil {
		return s, err
	}
	if err := t.calm(ctx, clients[0]); err != nil {
		return s, err
	}
	after, err := t.sustained(ctx, clients)
	s.Load.Sustained = (sustained + after) / 2 // what disturbs the machine comes and goes
	return s, err
}

// sustained returns how many calls a second the server does.
func (t *trial) sustained(ctx context.Context, clients []client) (float64, error) {
	var shed atomic.Int64
	do := func(d time.Duration) (int64, time.Duration, error) {
		shed.Store(0)
		calls, elapsed, err := t.rec.run(ctx, workCallers, d, func(caller int) func(context.Context) error {
			w := clients[caller%len(clients)].(worker)
			return func(ctx context.Context) error {
				away, err := w.work(ctx)
				if away { // the machine has been busy with something else
					shed.Add(1)
					return nil
				}
				return err
			}
		})
		return calls - shed.Load(), elapsed, err
	}
	if _, _, err := do(t.cfg.warmup); err != nil {
		return 0, err
	}
	calls, elapsed, err := do(2 * t.cfg.duration)
	return float64(calls) / elapsed.Seconds(), err
}

// offer has so many calls a second begin for a while, and waits for their callers.
func (t *trial) offer(clients []client, perSecond float64, d time.Duration) sample {
	t.rec.reset()
	var good, shed, late atomic.Int64
	var wg sync.WaitGroup
	s := sample{Load: &loaded{}}
	start := time.Now()
	for elapsed := time.Duration(0); elapsed < d; elapsed = time.Since(start) {
		for due := int64(elapsed.Seconds() * perSecond); s.Load.Offered <= due; s.Load.Offered++ {
			i := int(s.Load.Offered)
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), workDeadline)
				defer cancel()
				begun := time.Now()
				away, err := clients[i%len(clients)].(worker).work(ctx)
				took := time.Since(begun)
				switch {
				case err == nil && took <= workDeadline:
					good.Add(1)
					t.rec.shards[i%len(t.rec.shards)].record(took)
				case away:
					shed.Add(1)
				default:
					late.Add(1)
				}
			})
		}
		time.Sleep(time.Millisecond)
	}
	s.Elapsed = time.Since(start)
	wg.Wait()
	t.rec.sum()
	s.Latency = t.rec.latency()
	s.Calls, s.Load.Shed, s.Load.Late = good.Load(), shed.Load(), late.Load()
	return s
}

// calm waits until the server has done what it still does for nobody.
func (t *trial) calm(ctx context.Context, c client) error {
	for quick, start := 0, time.Now(); quick < 3; {
		if time.Since(start) > patience {
			return fmt.Errorf("the server is not idle after %v", patience)
		}
		begun := time.Now()
		if away, err := c.(worker).work(ctx); err != nil && !away {
			return err
		}
		if quick++; time.Since(begun) > workDeadline/2 {
			quick = 0
		}
	}
	return nil
}

// serveGate is yonder's server as one that expects overload is set up.
func serveGate(l net.Listener, procedures int) error {
	s := yonderServer(procedures)
	cpus := runtime.GOMAXPROCS(0)
	gate := &overload.Gate{Running: cpus, Queue: 8 * cpus, Wait: workDeadline / 4}
	s.Interceptors = []yonder.Interceptor{gate.Intercept}
	return s.Serve(l)
}

// work implements [worker].
func (y *yonderClient) work(ctx context.Context) (shed bool, err error) {
	_, err = yonder.Invoke[byte](ctx, y.c, "work")
	_, shed = yonder.RetryAfter(err)
	return shed, err
}

// Work is for overload.
func (e *netrpcEcho) Work(_ int, reply *byte) error {
	*reply = toil()
	return nil
}

// work implements [worker]: a caller that does not wait any longer is all that net/rpc has.
func (n *netrpcClient) work(ctx context.Context) (shed bool, err error) {
	c, ok := n.c.(*rpc.Client)
	if !ok {
		return false, errors.ErrUnsupported
	}
	var reply byte
	call := c.Go("Echo0.Work", 0, &reply, make(chan *rpc.Call, 1))
	select {
	case <-call.Done:
		return false, call.Error
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// overloadFactors are how many times what a server can do it is offered.
var overloadFactors = []float64{0.5, 1, 1.5, 2, 3}

func overloadName(factor float64) string { return fmt.Sprintf("overload/%g", factor) }

func overloadWorkloads() (all []workload) {
	for _, f := range overloadFactors {
		all = append(all, workload{
			name: overloadName(f), kind: overloadKind, factor: f, needs: works, rounds: 3,
			title: fmt.Sprintf("Calls that take a millisecond of CPU and are of use for %v, %g times as many as can be done", workDeadline, f),
		})
	}
	return all
}

var overloadKind = &kind{"overload", measureOverload, func(cfg *config, _ *workload) time.Duration {
	return cfg.warmup + 10*cfg.duration + time.Second
}}

// overloadPlot shows what is left of a server's calls under load, and how long they take.
func (r *report) overloadPlot() plot {
	title := "Calls that are done in time, of what the server can do, by load"
	var x []float64
	var workloads, texts []string
	most := slices.Max(overloadFactors)
	for _, f := range overloadFactors {
		x = append(x, f/most)
		workloads = append(workloads, overloadName(f))
		texts = append(texts, fmt.Sprintf("%gx", f))
	}
	all := r.seriesOf(workloads, x, func(s *sample) float64 { return max(goodput(s), 1e-6) })
	if len(all) == 0 {
		return plot{}
	}
	for i, s := range all {
		p99s := r.samples(workloads[len(workloads)-1], s.name)
		if v, ok := figure(p99s, p99); ok && v > 0 {
			all[i].note = "p99 " + nanos(v)
		}
	}
	slices.SortFunc(all, func(a, b series) int { return cmp.Compare(a.name, b.name) })
	note := fmt.Sprintf("More is better. A call is of use for %v. p99: of the calls done in time, at %gx.", workDeadline, most)
	return plot{"overload.svg", title, linear(title, note, all, x, texts, percent)}
}
