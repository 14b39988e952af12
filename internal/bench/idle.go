//go:build linux

package main

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// idleCalled is how many of the connections are called again.
	idleCalled = 1000
	// dialers is how many connections are opened at a time; a server that accepts slowly
	// must not lose any.
	dialers = 32
)

// measureIdle opens connections, makes a small call on each, and has the server, which
// nobody has used before, tell what it then occupies for each of them.
func measureIdle(ctx context.Context, t *trial) (s sample, err error) {
	// One call first, so that what a server makes once is not divided among them.
	first, err := t.open(ctx, 1)
	defer closeAll(first)
	if err != nil {
		return s, err
	}
	before, err := t.srv.memory()
	if err != nil {
		return s, err
	}
	start := time.Now()
	open, err := t.open(ctx, t.w.idle)
	defer closeAll(open)
	if err != nil {
		return s, err
	}
	s.Elapsed = time.Since(start)
	release()
	after, err := t.srv.memory()
	if err != nil {
		return s, err
	}
	each := func(before, after uint64) float64 {
		return (float64(after) - float64(before)) / float64(t.w.idle)
	}
	s.Idle = &occupied{
		Heap:       each(before.Heap, after.Heap),
		Stack:      each(before.Stack, after.Stack),
		RSS:        each(before.RSS, after.RSS),
		Goroutines: float64(after.Goroutines-before.Goroutines) / float64(t.w.idle),
	}
	select {
	case <-time.After(t.w.rest):
	case <-ctx.Done():
		return s, ctx.Err()
	}
	t.rec.reset()
	for i := range min(idleCalled, len(open)) {
		start := time.Now()
		if err := open[i].small(ctx); err != nil {
			return s, err
		}
		t.rec.shards[0].record(time.Since(start))
		s.Calls++
	}
	t.rec.sum()
	s.Latency = t.rec.latency()
	return s, nil
}

// open opens connections and makes one small call on each. Those that it has opened are
// the caller's to close even if it fails.
func (t *trial) open(ctx context.Context, n int) ([]client, error) {
	var (
		mu   sync.Mutex // guards what follows
		open []client
		errs error
		left = n
	)
	var wg sync.WaitGroup
	for range min(n, dialers) {
		wg.Go(func() {
			for {
				mu.Lock()
				more := left > 0 && errs == nil && ctx.Err() == nil
				left--
				mu.Unlock()
				if !more {
					return
				}
				c, err := t.dial(ctx)
				if err == nil {
					err = c.small(context.Background())
				}
				mu.Lock()
				if c != nil {
					open = append(open, c)
				}
				errs = errors.Join(errs, err)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return open, errors.Join(errs, ctx.Err())
}

func closeAll(open []client) {
	var wg sync.WaitGroup
	for part := range dialers {
		wg.Go(func() {
			for i := part; i < len(open); i += dialers {
				open[i].close()
			}
		})
	}
	wg.Wait()
}
