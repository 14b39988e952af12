//go:build linux

package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

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

func (sh *shard) record(took time.Duration) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.h.RecordValue(int64(took))
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

// run has callers call one after the other for a while; callOf returns what a caller
// does. It returns the number of calls, and the time until the last had ended.
func (r *recorder) run(ctx context.Context, callers int, d time.Duration, callOf func(caller int) func(context.Context) error) (int64, time.Duration, error) {
	return r.collect(ctx, d, func(start time.Time, stop *atomic.Bool, failed chan<- error) {
		background := context.Background() // calls are cheapest with it, and ctx is not theirs
		var wg sync.WaitGroup
		for i := range callers {
			sh, call := &r.shards[i%len(r.shards)], callOf(i)
			wg.Go(func() {
				for last, more := start, true; more; more = !stop.Load() { // at least once
					if err := call(background); err != nil {
						fail(failed, err)
						return
					}
					now := time.Now()
					sh.record(now.Sub(last))
					last = now
				}
			})
		}
		wg.Wait()
	})
}

// runPaced has a call begin every so often for a while. One that is late delays no other.
func (r *recorder) runPaced(ctx context.Context, every, d time.Duration, call func(context.Context) error) (int64, time.Duration, error) {
	return r.collect(ctx, d, func(start time.Time, stop *atomic.Bool, failed chan<- error) {
		var wg sync.WaitGroup
		for i := 0; i == 0 || !stop.Load(); i++ {
			wg.Go(func() {
				begun := time.Now()
				if err := call(context.Background()); err != nil {
					fail(failed, err)
					return
				}
				r.shards[i%len(r.shards)].record(time.Since(begun))
			})
			time.Sleep(time.Until(start.Add(time.Duration(i+1) * every)))
		}
		wg.Wait()
	})
}

// fail reports the first failure.
func fail(failed chan<- error, err error) {
	select {
	case failed <- err:
	default:
	}
}

// collect has calls made until stop, which it sets after a while, and puts together what
// has been recorded.
func (r *recorder) collect(ctx context.Context, d time.Duration, calls func(start time.Time, stop *atomic.Bool, failed chan<- error)) (int64, time.Duration, error) {
	r.reset()
	var stop atomic.Bool
	failed := make(chan error, 1)
	done := make(chan struct{})
	start := time.Now()
	go func() { // ends with the calls, those that have failed with their connection
		defer close(done)
		calls(start, &stop, failed)
	}()
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
		return 0, 0, err
	}
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
	r.sum()
	return r.total.TotalCount(), elapsed, nil
}

func (r *recorder) reset() {
	for i := range r.shards {
		r.shards[i].h.Reset()
	}
}

func (r *recorder) sum() {
	r.total.Reset()
	for i := range r.shards {
		r.total.Merge(r.shards[i].h)
	}
}

// latency returns how long the calls of the last run took.
func (r *recorder) latency() latency {
	at := func(percent float64) time.Duration { return time.Duration(r.total.ValueAtQuantile(percent)) }
	return latency{P50: at(50), P90: at(90), P99: at(99), P999: at(99.9), Max: time.Duration(r.total.Max())}
}
