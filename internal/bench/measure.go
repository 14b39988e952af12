//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// A sample is what one entrant did in one round of a workload.
type sample struct {
	calls    int64
	elapsed  time.Duration
	p50, p99 time.Duration
	client   usage // of the client's process, with the harness
	server   usage
	// others is the CPU time that all but these two processes used.
	others time.Duration
}

// rate returns calls a second.
func (s *sample) rate() float64 { return float64(s.calls) / s.elapsed.Seconds() }

// A result is all rounds of one workload.
type result struct {
	workload workload
	entrants []entrant  // those that the workload suits
	samples  [][]sample // by entrant, then by round
}

// ratio returns the median, over the rounds, of how many times as many calls a
// second one entrant did as another.
func (r *result) ratio(name, reference string) (float64, bool) {
	index := func(name string) int {
		return slices.IndexFunc(r.entrants, func(e entrant) bool { return e.name == name })
	}
	i, j := index(name), index(reference)
	if i < 0 || j < 0 {
		return 0, false
	}
	var ratios []float64
	for round := range r.samples[i] {
		ratios = append(ratios, r.samples[i][round].rate()/r.samples[j][round].rate())
	}
	return median(ratios), true
}

// median returns the middle value, or the lower one of two.
func median[T int64 | float64 | time.Duration](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[(len(sorted)-1)/2]
}

// measureAll runs all workloads.
func measureAll(ctx context.Context, cfg *config) (results []result, err error) {
	servers := make(map[string]*server)
	defer func() {
		for _, s := range servers {
			err = errors.Join(err, s.stop())
		}
	}()
	for _, e := range cfg.entrants {
		s, err := startServer(e, cfg.serverProfile, cfg.progress)
		if err != nil {
			return nil, err
		}
		servers[e.name] = s
	}
	rec := newRecorder()
	for _, w := range cfg.workloads {
		r := result{workload: w}
		for _, e := range cfg.entrants {
			if e.runs(w) {
				r.entrants = append(r.entrants, e)
			}
		}
		r.samples = make([][]sample, len(r.entrants))
		for round := range cfg.rounds {
			fmt.Fprintf(cfg.progress, "%s: round %d of %d\n", w.name, round+1, cfg.rounds)
			for k := range r.entrants {
				i := (k + round) % len(r.entrants) // nobody is always first
				e := r.entrants[i]
				s, err := measure(ctx, cfg, rec, e, servers[e.name], w)
				if err != nil {
					return nil, fmt.Errorf("%s: %s: %w", e.name, w.name, err)
				}
				r.samples[i] = append(r.samples[i], s)
			}
		}
		results = append(results, r)
	}
	return results, nil
}

// measure runs a workload once, on a connection of its own.
func measure(ctx context.Context, cfg *config, rec *recorder, e entrant, srv *server, w workload) (s sample, err error) {
	c, err := e.dial(&dialer{addr: srv.addr})
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	call := w.call(c)
	runtime.GC()
	if err := srv.collect(); err != nil {
		return s, err
	}
	if _, _, err := rec.run(ctx, w.callers, cfg.warmup, call); err != nil {
		return s, err
	}
	serverBefore, err := srv.usage()
	if err != nil {
		return s, err
	}
	machineBefore := machineCPU()
	clientBefore := ownUsage()
	s.calls, s.elapsed, err = rec.run(ctx, w.callers, cfg.duration, call)
	if err != nil {
		return s, err
	}
	s.client = ownUsage().since(clientBefore)
	busy := machineCPU() - machineBefore
	serverAfter, err := srv.usage()
	if err != nil {
		return s, err
	}
	s.server = serverAfter.since(serverBefore)
	s.others = max(0, busy-s.client.CPU-s.server.CPU)
	s.p50, s.p99 = rec.quantile(50), rec.quantile(99)
	return s, nil
}

// harnessOverhead returns what the harness itself takes of a call.
func harnessOverhead(ctx context.Context) (time.Duration, error) {
	calls, elapsed, err := newRecorder().run(ctx, 1, 20*time.Millisecond, func(context.Context) error { return nil })
	return elapsed / time.Duration(max(1, calls)), err
}

// recorder runs callers and records how long their calls take. Its memory is small
// and does not grow with their number, as garbage is collected less often in a larger
// heap.
type recorder struct {
	shards [4]shard
	total  *hdrhistogram.Histogram
}

type shard struct {
	mu sync.Mutex // guards h
	h  *hdrhistogram.Histogram
}

// newHistogram returns a histogram of nanoseconds, good to three digits.
func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, int64(5*time.Minute), 3)
}

func newRecorder() *recorder {
	r := &recorder{total: newHistogram()}
	for i := range r.shards {
		r.shards[i].h = newHistogram()
	}
	return r
}

// patience is how long calls may take to end when the time is over.
const patience = time.Minute

// run has callers call one after the other for a while. It returns the number of
// calls, and the time until the last had ended.
func (r *recorder) run(ctx context.Context, callers int, d time.Duration, call func(context.Context) error) (int64, time.Duration, error) {
	for i := range r.shards {
		r.shards[i].h.Reset()
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	failed := make(chan error, callers)
	background := context.Background() // calls are cheapest with it, and ctx is not theirs
	start := time.Now()
	for i := range callers {
		sh := &r.shards[i%len(r.shards)]
		wg.Go(func() {
			for last := start; !stop.Load(); {
				if err := call(background); err != nil {
					failed <- err
					return
				}
				now := time.Now()
				sh.mu.Lock()
				sh.h.RecordValue(int64(now.Sub(last)))
				sh.mu.Unlock()
				last = now
			}
		})
	}
	var err error
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case err = <-failed:
	case <-ctx.Done():
		err = ctx.Err()
	}
	stop.Store(true)
	if err != nil {
		return 0, 0, err // the other callers end with their connection
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }() // ends with the calls
	select {
	case <-done:
	case <-time.After(patience):
		return 0, 0, fmt.Errorf("calls have not ended after %v", patience)
	}
	elapsed := time.Since(start)
	select {
	case err := <-failed:
		return 0, 0, err
	default:
	}
	r.total.Reset()
	for i := range r.shards {
		r.total.Merge(r.shards[i].h)
	}
	return r.total.TotalCount(), elapsed, nil
}

// quantile returns a percentile of the last run.
func (r *recorder) quantile(percent float64) time.Duration {
	return time.Duration(r.total.ValueAtQuantile(percent))
}
