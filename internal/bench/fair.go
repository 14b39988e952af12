//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"
)

// A phase is what happens to a large message while a small call begins. Where the
// connection is idle, other things than the connection delay small calls: a server or
// a client that is short of memory, or collects garbage.
type phase int

const (
	alone    phase = iota // there is no large message
	encoding              // the client's system has nothing of it
	onWire                // the client's system has some of it
	decoding              // the client's system has all of it
	phases
)

func (p phase) String() string {
	return [...]string{"alone", "while it is encoded", "while it arrives", "while it is decoded"}[p]
}

// A fairSample is how small calls did in a phase.
type fairSample struct {
	lasted        time.Duration
	calls         int64
	p50, p99, max time.Duration
}

// fairMode prints how a large message delays the small calls on its connection.
func fairMode(ctx context.Context, cfg *config, bytes int, out io.Writer) error {
	samples := make([][phases][]fairSample, len(cfg.entrants))
	for round := range cfg.rounds {
		fmt.Fprintf(cfg.progress, "fair: round %d of %d\n", round+1, cfg.rounds)
		for i, e := range cfg.entrants {
			round, err := fairness(ctx, cfg, e, bytes)
			if err != nil {
				return fmt.Errorf("fair: %s: %w", e.name, err)
			}
			for p, s := range round {
				samples[i][p] = append(samples[i][p], s)
			}
		}
	}
	rows := [][]string{{"", "time", "calls", "p50", "p99", "p99, min..max", "longest"}}
	for i, e := range cfg.entrants {
		for p := range phases {
			rows = append(rows, fairRow(e.name+", "+p.String(), samples[i][p]))
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n### Small calls beside a message of %s\n\n", machine(), size(float64(bytes)))
	fmt.Fprintf(&b, `A small call begins every %v, whether or not those before have ended, on the connection that brings the large
result. Calls count where they begin: without the large message, for %v; from the beginning of the large call
until the client's kernel has some of the message; until it has all of it; and until the large call has ended.
%d rounds, entrants in turn; medians of the rounds in which calls began in the phase.

`, fairEvery, cfg.duration, cfg.rounds)
	writeTable(&b, rows)
	_, err := io.WriteString(out, b.String())
	return err
}

func fairRow(name string, samples []fairSample) []string {
	var lasted, p50, p99, longest []time.Duration
	var calls []int64
	low, high := math.Inf(1), math.Inf(-1)
	for _, s := range samples {
		lasted, calls = append(lasted, s.lasted), append(calls, s.calls)
		if s.calls == 0 {
			continue
		}
		p50, p99, longest = append(p50, s.p50), append(p99, s.p99), append(longest, s.max)
		low, high = min(low, float64(s.p99)), max(high, float64(s.p99))
	}
	row := []string{name, nanos(float64(median(lasted))), count(float64(median(calls)))}
	if len(p50) == 0 {
		return append(row, "", "", "", "")
	}
	return append(row, nanos(float64(median(p50))), nanos(float64(median(p99))), nanos(low)+".."+nanos(high), nanos(float64(median(longest))))
}

// fairEvery is the time between two small calls.
const fairEvery = time.Millisecond

// fairness measures one entrant once. Its server is a new one: a large message leaves
// a large heap.
func fairness(ctx context.Context, cfg *config, e entrant, bytes int) (samples [phases]fairSample, err error) {
	srv, err := startServer(e, cfg.serverProfile, cfg.progress)
	if err != nil {
		return samples, err
	}
	defer func() { err = errors.Join(err, srv.stop()) }()
	defer release()
	// The server makes the large result now, for another connection than the measured one.
	first, err := e.dial(&dialer{addr: srv.addr})
	if err != nil {
		return samples, err
	}
	if err := errors.Join(first.blob(context.Background(), bytes), first.close()); err != nil {
		return samples, err
	}
	release()
	if err := srv.collect(); err != nil {
		return samples, err
	}

	d := &dialer{addr: srv.addr}
	c, err := e.dial(d)
	if err != nil {
		return samples, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	quiet := func() (phase, error) { return alone, nil }
	if _, err := steadyCalls(ctx, c, after(cfg.warmup), quiet); err != nil {
		return samples, err
	}
	runtime.GC()
	if samples, err = steadyCalls(ctx, c, after(cfg.duration), quiet); err != nil {
		return samples, err
	}
	before, err := received(d.conn)
	if err != nil {
		return samples, err
	}
	done := make(chan struct{})
	var large error
	go func() { // ends with the large call
		defer close(done)
		large = c.blob(context.Background(), bytes)
	}()
	beside, err := steadyCalls(ctx, c, done, func() (phase, error) {
		now, err := received(d.conn)
		switch n := now - before; {
		case n < uint64(bytes/100): // small results are among it
			return encoding, err
		case n < uint64(bytes):
			return onWire, err
		}
		return decoding, err
	})
	if err != nil {
		return samples, err
	}
	<-done
	copy(samples[encoding:], beside[encoding:])
	return samples, large
}

// after returns a channel that is closed after a while.
func after(d time.Duration) <-chan struct{} {
	c := make(chan struct{})
	time.AfterFunc(d, func() { close(c) })
	return c
}

// received returns how many bytes the system has received for a connection, whether
// or not they have been read.
func received(conn net.Conn) (uint64, error) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return 0, fmt.Errorf("%T has no file descriptor", conn)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0, err
	}
	var info *unix.TCPInfo
	var failed error
	err = raw.Control(func(fd uintptr) {
		info, failed = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	})
	if err := errors.Join(err, failed); err != nil {
		return 0, err
	}
	return info.Bytes_received, nil
}

// steadyCalls begins a small call every fairEvery until stop is closed, and returns how
// long they took, by the phase in which they began. A call that is late delays no other.
func steadyCalls(ctx context.Context, c client, stop <-chan struct{}, current func() (phase, error)) (samples [phases]fairSample, err error) {
	var (
		mu     sync.Mutex // guards what follows
		hists  [phases]*hdrhistogram.Histogram
		failed error
	)
	for p := range hists {
		hists[p] = newHistogram()
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	last := time.Now()
	next := last
	for running := true; running; {
		p, err := current()
		if err != nil {
			return samples, err
		}
		now := time.Now()
		samples[p].lasted += now.Sub(last)
		last = now
		wg.Go(func() {
			start := time.Now()
			err := c.small(context.Background())
			took := time.Since(start)
			mu.Lock()
			defer mu.Unlock()
			hists[p].RecordValue(int64(took))
			if failed == nil {
				failed = err
			}
		})
		next = next.Add(fairEvery)
		select {
		case <-stop:
			running = false
		case <-ctx.Done():
			return samples, ctx.Err()
		case <-time.After(time.Until(next)):
		}
	}
	wg.Wait()
	for p, h := range hists {
		s := &samples[p]
		s.calls, s.max = h.TotalCount(), time.Duration(h.Max())
		s.p50, s.p99 = time.Duration(h.ValueAtQuantile(50)), time.Duration(h.ValueAtQuantile(99))
	}
	return samples, failed
}
