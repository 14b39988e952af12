//go:build linux

package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A workload is something to do for each entrant, and to measure.
type workload struct {
	// name is a group, which runs on one server and round by round, and what is special.
	name  string
	title string
	needs ability
	// kind says how it is done and what is reported.
	kind *kind
	// rounds is how many there are at most. Zero: no bound.
	rounds int

	callers     int           // calls at a time, each caller one after the other
	connections int           // that callers share evenly; zero: one
	payload     int           // bytes of a []byte that is echoed; 0: an Item
	every       time.Duration // a call begins, whether or not those before have ended; zero: callers call
	pinned      bool          // both processes on one CPU
	deadline    time.Duration // of each call; zero: none
	procedures  int           // of the server, all of them called in turn; zero: one
	transfer    int           // bytes of a result that is on its way all the time, on the same connection
	serves      int           // bytes of that result which the server holds; the same with and without a transfer
	down        bool          // of a stream: to the client
	items       int           // of a stream
	idle        int           // connections
	rest        time.Duration // that they are left alone before they are called again
	factor      float64       // times as many calls as the server can do
}

// A kind is a way of measuring.
type kind struct {
	name    string
	measure func(ctx context.Context, t *trial) (sample, error)
	// takes estimates the time that one entrant takes in one round.
	takes func(cfg *config, w *workload) time.Duration
}

var (
	callsKind = &kind{"calls", measureCalls, func(cfg *config, w *workload) time.Duration {
		drain := time.Duration(w.callers*w.payload) * 4 // nanoseconds, of what is in flight when the time is over
		return cfg.warmup + cfg.duration + 2*drain + 40*time.Millisecond
	}}
	mixedKind  = &kind{"mixed", measureCalls, func(cfg *config, _ *workload) time.Duration { return cfg.warmup + cfg.duration + 300*time.Millisecond }}
	streamKind = &kind{"stream", measureStream, func(_ *config, w *workload) time.Duration {
		return min(time.Duration(w.items)*3*time.Microsecond, streamLongest)
	}}
	dialKind  = &kind{"dial", measureDial, func(cfg *config, _ *workload) time.Duration { return cfg.duration + 40*time.Millisecond }}
	idleKind  = &kind{"idle", measureIdle, func(_ *config, w *workload) time.Duration { return time.Duration(w.idle)*time.Millisecond + w.rest }}
	buildKind = &kind{"build", measureBuild, func(*config, *workload) time.Duration { return 50 * time.Second }}
)

// aDeadline is one that no call reaches.
const aDeadline = time.Minute

// sizes of what can be chosen.
type sizes struct {
	transfer   int // bytes
	items      int // of a stream
	idle       int // connections
	procedures int // of the server that has many
	rest       time.Duration
}

var defaultSizes = sizes{transfer: 64 << 20, items: 1_000_000, idle: 10_000, procedures: 10_000, rest: 2 * time.Second}

func allWorkloads(s sizes) []workload {
	all := []workload{
		{name: "small/1", callers: 1, title: "Small struct, 1 caller"},
		{name: "small/1/pinned", callers: 1, pinned: true, needs: scales, title: "Small struct, 1 caller, both processes on one CPU"},
		{name: "small/16", callers: 16, title: "Small struct, 16 callers on one connection"},
		{name: "small/256", callers: 256, title: "Small struct, 256 callers on one connection"},
		{name: "small/256/deadline", callers: 256, deadline: aDeadline, needs: deadlines, title: "Small struct, 256 callers on one connection, a deadline on every call"},
		{name: "small/256/procedures", callers: 256, procedures: s.procedures, needs: numbered, title: fmt.Sprintf("Small struct, 256 callers on one connection, %s procedures in turn", count(float64(s.procedures)))},
		{name: "small/256/connections", callers: 256, connections: 8, needs: scales, title: "Small struct, 256 callers on eight connections"},
		{name: "small/4096", callers: 4096, needs: scales, title: "Small struct, 4,096 callers on one connection"},
	}
	for _, size := range []struct {
		name, title string
		bytes       int
	}{{"1KiB", "1 KiB", 1 << 10}, {"8KiB", "8 KiB", 8 << 10}, {"64KiB", "64 KiB", 64 << 10}, {"1MiB", "1 MiB", 1 << 20}} {
		for _, callers := range []int{1, 16, 256} {
			w := workload{name: fmt.Sprintf("%s/%d", size.name, callers), callers: callers, payload: size.bytes, needs: payloads}
			w.title = fmt.Sprintf("%s each way, %d callers on one connection", size.title, callers)
			if callers*size.bytes > 64<<20 {
				w.needs |= bulk
				w.rounds = 3
			}
			if callers == 1 {
				w.title = fmt.Sprintf("%s each way, 1 caller", size.title)
			}
			all = append(all, w)
		}
	}
	for i := range all {
		all[i].kind = callsKind
	}
	beside := "while " + size(float64(s.transfer)) + " results arrive on the connection"
	all = append(all,
		workload{name: "stream/up", kind: streamKind, items: s.items, rounds: 3, needs: streams, title: fmt.Sprintf("A stream of %s small structs to the server", count(float64(s.items)))},
		workload{name: "stream/down", kind: streamKind, items: s.items, down: true, rounds: 3, needs: streams, title: fmt.Sprintf("A stream of %s small structs to the client", count(float64(s.items)))},
		workload{name: "mixed/16/alone", kind: mixedKind, callers: 16, serves: s.transfer, needs: transfers, title: "Small struct, 16 callers, to compare with the next"},
		workload{name: "mixed/16", kind: mixedKind, callers: 16, serves: s.transfer, transfer: s.transfer, needs: transfers, title: "Small struct, 16 callers, " + beside},
		workload{name: "mixed/paced/alone", kind: mixedKind, every: time.Millisecond, serves: s.transfer, needs: transfers, title: "Small struct, a call every millisecond, to compare with the next"},
		workload{name: "mixed/paced", kind: mixedKind, every: time.Millisecond, serves: s.transfer, transfer: s.transfer, needs: transfers, title: "Small struct, a call every millisecond, " + beside},
		workload{name: "dial", kind: dialKind, needs: scales, title: "From dialing to the first answer"},
		workload{name: "idle", kind: idleKind, idle: s.idle, rest: s.rest, rounds: 1, needs: scales, title: fmt.Sprintf("%s idle connections", count(float64(s.idle)))},
	)
	all = append(all, overloadWorkloads()...)
	all = append(all,
		workload{name: "build", kind: buildKind, rounds: 1, needs: builds, title: "A hello program"},
	)
	for i, w := range all {
		if w.callers > 1 || w.every > 0 {
			all[i].needs |= concurrent
		}
	}
	return all
}

// group returns the first part of the workload's name.
func (w *workload) group() string {
	group, _, _ := strings.Cut(w.name, "/")
	return group
}

// roundsOf returns how many rounds of a workload there are.
func (cfg *config) roundsOf(w *workload) int {
	if w.rounds > 0 {
		return min(w.rounds, cfg.rounds)
	}
	return cfg.rounds
}

// estimate returns about how long everything takes.
func (cfg *config) estimate() (all time.Duration) {
	for _, w := range cfg.workloads {
		for _, e := range cfg.entrants {
			if e.runs(&w) {
				all += time.Duration(cfg.roundsOf(&w)) * w.kind.takes(cfg, &w)
			}
		}
	}
	return all
}

// pickWorkloads returns the workloads of a comma-separated list of names, or of what
// their names begin with: small is all that is called small/something. Empty: all.
func pickWorkloads(all []workload, list string) ([]workload, error) {
	if list == "" {
		return all, nil
	}
	names := strings.Split(list, ",")
	is := func(w workload, name string) bool { return w.name == name || strings.HasPrefix(w.name, name+"/") }
	for _, name := range names {
		if !slices.ContainsFunc(all, func(w workload) bool { return is(w, name) }) {
			return nil, fmt.Errorf("no workload %q; there are %s", name, workloadNames(all))
		}
	}
	// What has a workload of exactly its name is that one only: small/1 is not small/1/pinned.
	exact := func(name string) bool {
		return slices.ContainsFunc(all, func(w workload) bool { return w.name == name })
	}
	return slices.DeleteFunc(slices.Clone(all), func(w workload) bool {
		return !slices.ContainsFunc(names, func(name string) bool {
			return w.name == name || !exact(name) && is(w, name)
		})
	}), nil
}

func workloadNames(all []workload) string {
	var names []string
	for _, w := range all {
		names = append(names, w.name)
	}
	return strings.Join(names, ", ")
}

// callsOf returns what each caller does over and over, for each of the clients.
func (w *workload) callsOf(e *entrant, clients []client) func(caller int) func(context.Context) error {
	b := slices.Repeat([]byte{0x5a}, w.payload)
	byClient := make([][]func(context.Context) error, len(clients))
	for i, c := range clients {
		switch {
		case w.procedures > 1:
			for k := range w.procedures {
				byClient[i] = append(byClient[i], c.(numberer).procedure(k))
			}
		case w.payload > 0:
			byClient[i] = append(byClient[i], func(ctx context.Context) error { return c.bytes(ctx, b) })
		default:
			byClient[i] = append(byClient[i], c.small)
		}
	}
	return func(caller int) func(context.Context) error {
		all := byClient[caller%len(byClient)]
		call := all[0]
		if len(all) > 1 {
			next := caller * len(all) / cmp.Or(w.callers, 1) // callers begin all over the place
			call = func(ctx context.Context) error {
				next++
				return all[next%len(all)](ctx)
			}
		}
		if w.deadline == 0 || e.can&timeouts != 0 {
			return call
		}
		return func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, w.deadline)
			defer cancel()
			return call(ctx)
		}
	}
}
