//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// config says what to measure, and how.
type config struct {
	entrants  []entrant
	workloads []workload
	rounds    int
	// duration is measured of each entrant in each round, after warmup.
	duration, warmup time.Duration
	// serverProfile is what the names of the servers' profiles begin with. Empty: no
	// profiles.
	serverProfile string
	progress      io.Writer
}

// A trial is one round of a workload for one entrant.
type trial struct {
	cfg *config
	e   *entrant
	w   *workload
	srv *server
	rec *recorder
}

func (t *trial) dial(ctx context.Context) (client, error) {
	to := target{addr: t.srv.addr}
	if t.e.can&timeouts != 0 {
		to.timeout = t.w.deadline
	}
	return t.e.dial(ctx, to)
}

// measureAll runs all workloads.
func measureAll(ctx context.Context, cfg *config) (results []result, err error) {
	start := time.Now()
	estimate := cfg.estimate().Round(time.Second)
	fmt.Fprintf(cfg.progress, "about %v\n", estimate)
	progress := func(w *workload, round int) {
		fmt.Fprintf(cfg.progress, "%v of about %v: %s, round %d of %d\n", time.Since(start).Round(time.Second), estimate, w.name, round+1, cfg.roundsOf(w))
	}
	for _, w := range cfg.workloads {
		// Connections of all kinds, of many callers with one each, and some for the rest.
		if err := raiseFileLimit(max(w.idle, w.callers) + 200); err != nil {
			return nil, err
		}
	}
	rec := newRecorder()
	for rest := cfg.workloads; len(rest) > 0; {
		n := 1
		for n < len(rest) && rest[n].group() == rest[0].group() {
			n++
		}
		group, err := measureGroup(ctx, cfg, rec, rest[:n], progress)
		if err != nil {
			return nil, err
		}
		results, rest = append(results, group...), rest[n:]
	}
	return results, nil
}

// measureGroup runs workloads that share servers: round by round, so that workloads are
// compared with one another as entrants are.
func measureGroup(ctx context.Context, cfg *config, rec *recorder, workloads []workload, progress func(*workload, int)) (results []result, err error) {
	servers := make(map[string]*server)
	defer func() {
		for _, s := range servers {
			err = errors.Join(err, s.stop())
		}
		release()
	}()
	for _, w := range workloads {
		r := result{Name: w.name, Title: w.title, Kind: w.kind.name}
		for _, e := range cfg.entrants {
			if e.runs(&w) {
				r.Rows = append(r.Rows, row{Entrant: e.name})
			}
		}
		results = append(results, r)
	}
	for round := range cfg.rounds {
		for i := range workloads {
			w, rows := &workloads[i], results[i].Rows
			if round >= cfg.roundsOf(w) || len(rows) == 0 {
				continue
			}
			progress(w, round)
			for k := range rows {
				row := &rows[(k+round)%len(rows)] // nobody is always first
				if row.Failed != "" {
					continue
				}
				e := &cfg.entrants[slices.IndexFunc(cfg.entrants, func(e entrant) bool { return e.name == row.Entrant })]
				s, err := measureOne(ctx, trial{cfg: cfg, e: e, w: w, rec: rec}, servers)
				switch {
				case ctx.Err() != nil:
					return nil, ctx.Err()
				case err != nil: // the others go on
					fmt.Fprintf(cfg.progress, "%s: %s: %v\n", e.name, w.name, err)
					row.Failed = err.Error()
				default:
					row.Samples = append(row.Samples, s)
				}
			}
		}
	}
	return results, nil
}

// measureOne does a trial, with a server that it starts if servers has not got it. One
// that something has failed with serves no longer.
func measureOne(ctx context.Context, t trial, servers map[string]*server) (s sample, err error) {
	procedures := max(1, t.w.procedures)
	key := fmt.Sprint(t.e.name, " ", procedures)
	if t.srv = servers[key]; t.srv == nil {
		if t.srv, err = startServer(t.e, procedures, t.cfg); err != nil {
			return s, err
		}
		servers[key] = t.srv
	}
	if s, err = t.w.kind.measure(ctx, &t); err != nil {
		delete(servers, key)
		err = errors.Join(err, t.srv.stop())
	}
	return s, err
}

// measureCalls has callers call, on connections of their own.
func measureCalls(ctx context.Context, t *trial) (s sample, err error) {
	w := t.w
	clients := make([]client, max(1, w.connections))
	for i := range clients {
		if clients[i], err = t.dial(ctx); err != nil {
			return s, err
		}
		defer func() { err = errors.Join(err, clients[i].close()) }()
	}
	if w.pinned {
		if err := errors.Join(pin(), t.srv.pin()); err != nil {
			return s, errors.Join(err, unpin(), t.srv.unpin())
		}
		defer func() { err = errors.Join(err, unpin(), t.srv.unpin()) }()
	}
	callOf := w.callsOf(t.e, clients)
	run := func(d time.Duration) (int64, time.Duration, error) {
		if w.every > 0 {
			return t.rec.runPaced(ctx, w.every, d, callOf(0))
		}
		return t.rec.run(ctx, w.callers, d, callOf)
	}
	if w.serves > 0 { // now, for it is not what is measured
		if err := clients[0].(transferer).blob(ctx, w.serves); err != nil {
			return s, err
		}
	}
	if w.procedures > 1 { // so that none is called for the first time while it is measured
		call := callOf(0)
		for range w.procedures {
			if err := call(ctx); err != nil {
				return s, err
			}
		}
	}
	runtime.GC()
	if err := t.srv.collect(); err != nil {
		return s, err
	}
	if _, _, err := run(t.cfg.warmup); err != nil {
		return s, err
	}
	return t.watch(func(s *sample) error {
		stop := func() (int, error) { return 0, nil }
		if w.transfer > 0 {
			stop = transferAll(clients[0].(transferer), w.transfer)
		}
		s.Calls, s.Elapsed, err = run(t.cfg.duration)
		s.Latency = t.rec.latency()
		n, failed := stop()
		s.Transferred = int64(n)
		return errors.Join(err, failed)
	})
}

// transferAll transfers over and over, until it is stopped: stop waits for the last
// one and returns how many bytes there were.
func transferAll(c transferer, n int) (stop func() (int, error)) {
	var stopped atomic.Bool
	var failed error
	var all int
	var wg sync.WaitGroup
	wg.Go(func() {
		for failed == nil && !stopped.Load() {
			failed = c.blob(context.Background(), n)
			all += n
		}
	})
	return func() (int, error) {
		stopped.Store(true)
		wg.Wait()
		return all, failed
	}
}

// watch returns the sample that do makes, with what both processes use meanwhile.
func (t *trial) watch(do func(*sample) error) (s sample, err error) {
	serverBefore, err := t.srv.usage()
	if err != nil {
		return s, err
	}
	machineBefore := machineCPU()
	resetPeak()
	clientBefore := ownUsage()
	if err := do(&s); err != nil {
		return s, err
	}
	s.Client = ownUsage().since(clientBefore)
	busy := machineCPU() - machineBefore
	serverAfter, err := t.srv.usage()
	if err != nil {
		return s, err
	}
	s.Server = serverAfter.since(serverBefore)
	if t.e.sends {
		s.Client.Writes, s.Server.Writes = 0, 0
	}
	s.Others = max(0, busy-s.Client.CPU-s.Server.CPU)
	return s, nil
}

// streamLongest is how long a stream may take. Who is too slow for all items has fewer.
const streamLongest = 4 * time.Second

// measureStream streams, in one call.
func measureStream(ctx context.Context, t *trial) (s sample, err error) {
	c, err := t.dial(ctx)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	stream := c.(streamer).up
	if t.w.down {
		stream = c.(streamer).down
	}
	items := t.w.items
	some := max(1, items/50)
	start := time.Now()
	if err := stream(ctx, some); err != nil { // to warm up, and to see how long it takes
		return s, err
	}
	if took := time.Since(start) * time.Duration(items/some); took > streamLongest {
		items = int(float64(items) * float64(streamLongest) / float64(took))
	}
	release()
	if err := t.srv.collect(); err != nil {
		return s, err
	}
	return t.watch(func(s *sample) error {
		start := time.Now()
		err := stream(ctx, items)
		s.Calls, s.Elapsed = int64(items), time.Since(start)
		return err
	})
}

// dialsPerRound bounds how many ports a round takes.
const dialsPerRound = 1000

// measureDial connects, calls and closes, over and over.
func measureDial(ctx context.Context, t *trial) (s sample, err error) {
	runtime.GC()
	if err := t.srv.collect(); err != nil {
		return s, err
	}
	return t.watch(func(s *sample) error {
		t.rec.reset()
		for s.Calls < dialsPerRound && s.Elapsed < t.cfg.duration {
			start := time.Now()
			c, err := t.dial(ctx)
			if err != nil {
				return err
			}
			err = c.small(ctx)
			took := time.Since(start)
			if err := errors.Join(err, c.close()); err != nil {
				return err
			}
			t.rec.shards[0].record(took)
			s.Calls++
			s.Elapsed += took
		}
		t.rec.sum()
		s.Latency = t.rec.latency()
		return nil
	})
}

// harnessOverhead returns what the harness itself takes of a call.
func harnessOverhead(ctx context.Context) (time.Duration, error) {
	nothing := func(context.Context) error { return nil }
	calls, elapsed, err := newRecorder().run(ctx, 1, 20*time.Millisecond, func(int) func(context.Context) error { return nothing })
	return elapsed / time.Duration(max(1, calls)), err
}
