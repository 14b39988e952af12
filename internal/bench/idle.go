//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// idleMode opens connections to each entrant's server, makes one small call on each,
// and prints what the server's process then occupies for each of them.
func idleMode(ctx context.Context, cfg *config, connections int, out io.Writer) error {
	if err := raiseFileLimit(connections + 200); err != nil {
		return err
	}
	rows := [][]string{{"", "heap", "stack", "heap + stack", "RSS", "goroutines", "time to open"}}
	for _, e := range cfg.entrants {
		if e.serve == nil {
			continue
		}
		fmt.Fprintf(cfg.progress, "idle: %d connections of %s\n", connections, e.name)
		row, err := idleConnections(ctx, cfg, e, connections)
		if err != nil {
			return fmt.Errorf("idle: %s: %w", e.name, err)
		}
		rows = append(rows, row)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n### Idle connections\n\n", machine())
	fmt.Fprintf(&b, `What the server's process occupies for each of %s connections that have made one small call, after
garbage collection, less what it occupies without them. RSS does not count what the kernel keeps for sockets.

`, count(float64(connections)))
	writeTable(&b, rows)
	_, err := io.WriteString(out, b.String())
	return err
}

func idleConnections(ctx context.Context, cfg *config, e entrant, connections int) (row []string, err error) {
	srv, err := startServer(e, cfg.serverProfile, cfg.progress)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, srv.stop()) }()
	// One call first, so that what a server makes once is not divided among them.
	first, err := openConnections(ctx, e, srv.addr, 1)
	defer closeConnections(first)
	if err != nil {
		return nil, err
	}
	before, err := srv.memory()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	open, err := openConnections(ctx, e, srv.addr, connections)
	defer closeConnections(open)
	if err != nil {
		return nil, err
	}
	took := time.Since(start)
	after, err := srv.memory()
	if err != nil {
		return nil, err
	}
	each := func(before, after uint64) float64 {
		return (float64(after) - float64(before)) / float64(connections)
	}
	heap, stack := each(before.Heap, after.Heap), each(before.Stack, after.Stack)
	return []string{
		e.name, size(heap), size(stack), size(heap + stack), size(each(before.RSS, after.RSS)),
		fmt.Sprintf("%.1f", float64(after.Goroutines-before.Goroutines)/float64(connections)),
		took.Round(10 * time.Millisecond).String(),
	}, nil
}

// dialers is how many connections are opened at a time; a server that accepts slowly
// must not lose any.
const dialers = 32

// openConnections opens connections and makes one small call on each. Those that it
// has opened are the caller's to close even if it fails.
func openConnections(ctx context.Context, e entrant, addr string, n int) ([]client, error) {
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
				c, err := e.dial(&dialer{addr: addr})
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

func closeConnections(open []client) {
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
