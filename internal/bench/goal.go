//go:build linux

package main

import (
	"fmt"
	"slices"
	"strings"
)

// A goal is something that yonder must reach.
type goal struct {
	what string
	// atLeast or atMost is the bound; the other is zero, and of a limit both are.
	atLeast, atMost float64
	// values are what it is about, of each round; none if that was not measured.
	values func(r *report) []float64
	format func(float64) string
}

// allGoals are what the figures are for. Each is of one run, most of them a ratio of two
// entrants or two workloads of the same round.
func allGoals() []goal {
	const bound, generic = "yonder-bound", "yonder-generic"
	goals := []goal{
		{"small, 256 callers: generic to net/rpc, calls/s", 5, 0, versus("small/256", generic, "net/rpc", rate), hundredths},
		{"small, 256 callers: generic to gRPC, calls/s", 8, 0, versus("small/256", generic, "grpc", rate), hundredths},
		{"small, 256 callers: generic to the raw multiplexer, calls/s", 0.6, 0, versus("small/256", generic, "raw-mux", rate), hundredths},
		{"small, 256 callers: bound to net/rpc, calls/s", 4, 0, versus("small/256", bound, "net/rpc", rate), hundredths},
		{"small, 16 callers: generic to net/rpc, calls/s", 2.2, 0, versus("small/16", generic, "net/rpc", rate), hundredths},
		{"small, 16 callers: generic to the raw multiplexer, calls/s", 0.8, 0, versus("small/16", generic, "raw-mux", rate), hundredths},
		{"small, 16 callers: generic to the best peer, p99", 0, 1, versusPeers("small/16", generic, p99, worstOfLess), hundredths},
		{"small, 1 caller: generic to raw TCP, p50", 0, 1.15, versus("small/1", generic, "raw", p50), hundredths},
		{"small, 1 caller: generic to the best peer, p50", 0, 1, versusPeers("small/1", generic, p50, worstOfLess), hundredths},
		{"small, 1 caller, one CPU: generic to raw TCP, p50", 0, 1.15, versus("small/1/pinned", generic, "raw", p50), hundredths},
		{"small, 1 caller, one CPU: generic to the best peer, p50", 0, 1, versusPeers("small/1/pinned", generic, p50, worstOfLess), hundredths},
	}
	for _, size := range []string{"64KiB", "1MiB"} {
		goals = append(goals, goal{size + ", 1 caller: generic to raw TCP, bytes/s", 0.7, 0, versus(size+"/1", generic, "raw", rate), hundredths})
		goals = append(goals, goal{size + ", 1 caller: in lent memory to raw TCP, bytes/s", 0.7, 0, versus(size+"/1", "yonder-lent", "raw", rate), hundredths})
		for _, callers := range []string{"16", "256"} {
			goals = append(goals, goal{size + ", " + callers + " callers: generic to the raw multiplexer, bytes/s", 1, 0, versus(size+"/"+callers, generic, "raw-mux", rate), hundredths},
				goal{size + ", " + callers + " callers: in lent memory to the raw multiplexer, bytes/s", 1, 0, versus(size+"/"+callers, "yonder-lent", "raw-mux", rate), hundredths})
		}
		for _, callers := range []string{"1", "16", "256"} {
			who := callers + " callers"
			if callers == "1" {
				who = "1 caller"
			}
			goals = append(goals, goal{size + ", " + who + ": generic to the best peer, bytes/s", 1, 0, versusPeers(size+"/"+callers, generic, rate, worstOfMore), hundredths})
		}
	}
	for _, way := range []string{"up", "down"} {
		goals = append(goals,
			goal{"stream " + way + ": to gRPC, items/s", 4, 0, versus("stream/"+way, generic, "grpc", rate), hundredths},
			goal{"stream " + way + ": memory that both processes take for it", 0, 32 << 20, alone("stream/"+way, generic, func(s *sample) float64 {
				return float64(s.Client.Peak + s.Server.Peak)
			}), size})
	}
	return append(goals,
		goal{"overload, 3 times what can be done: calls done in time, of what can be", overloadShare, 0, alone(overloadName(3), "yonder-gate", goodput), percent},
		goal{"overload, 3 times what can be done: p99 of calls done", 0, float64(workDeadline / 2), alone(overloadName(3), "yonder-gate", p99), nanos},
		goal{"mixed, 16 callers: generic beside a transfer to without, p99", 0, 5, between("mixed/16", "mixed/16/alone", generic, p99), hundredths},
		goal{"mixed, 16 callers: bound beside a transfer to without, p99", 0, 5, between("mixed/16", "mixed/16/alone", bound, p99), hundredths},
		goal{"small, 256 callers: generic, allocations of both sides", 0, 14, alone("small/256", generic, allocs), tenths},
		goal{"small, 256 callers: bound, allocations of both sides", 0, 22, alone("small/256", bound, allocs), tenths},
		goal{"256 callers: generic with deadlines to without, calls/s", 0.9, 0, between("small/256/deadline", "small/256", generic, rate), hundredths},
		goal{"256 callers: bound with deadlines to without, calls/s", 0.9, 0, between("small/256/deadline", "small/256", bound, rate), hundredths},
		goal{"256 callers: with the client's Timeout to without, calls/s", 0.9, 0, between("small/256/deadline", "small/256", "yonder-timeout", rate), hundredths},
		goal{"256 callers: with the client's Timeout to with deadlines, calls/s", 1, 0, func(r *report) []float64 {
			return ratios(r.samples("small/256/deadline", "yonder-timeout"), r.samples("small/256/deadline", bound), rate)
		}, hundredths},
		goal{"an idle connection, heap and stack of the server", 0, 8 << 10, alone("idle", generic, idleMemory), size},
		goal{"generic: 4,096 callers to 256, calls/s", 0.85, 0, between("small/4096", "small/256", generic, rate), hundredths},
		goal{"generic: eight connections to one, calls/s", 0.85, 0, between("small/256/connections", "small/256", generic, rate), hundredths},
		goal{"generic: 10,000 procedures to one, calls/s", 0.85, 0, between("small/256/procedures", "small/256", generic, rate), hundredths},
		goal{"in process: bound, a call", 0, 1000, inProcess("local-bound"), nanos},
		goal{"in process: generic, a call", 0, 150, inProcess("local-generic"), nanos},
		goal{"JSON-RPC, 256 callers: to net/rpc/jsonrpc, calls/s", 1.5, 0, versus("small/256", "yonder-jsonrpc", "net/rpc/jsonrpc", rate), hundredths},
	)
}

// allLimits are figures of the goals' kind for bare code written by hand: what that loses no library can
// win back.
func allLimits() []goal {
	limits := []goal{
		{"small, 1 caller: the raw multiplexer to raw TCP, p50", 0, 0, versus("small/1", "raw-mux", "raw", p50), hundredths},
		{"256 callers: the raw multiplexer with deadlines to without, calls/s", 0, 0, between("small/256/deadline", "small/256", "raw-mux", rate), hundredths},
		{"the raw multiplexer: 4,096 callers to 256, calls/s", 0, 0, between("small/4096", "small/256", "raw-mux", rate), hundredths},
		{"the raw multiplexer: eight connections to one, calls/s", 0, 0, between("small/256/connections", "small/256", "raw-mux", rate), hundredths},
	}
	for _, size := range []string{"64KiB", "1MiB"} {
		limits = append(limits,
			goal{size + ", 1 caller: raw TCP into fresh memory to into the same again, bytes/s", 0, 0, versus(size+"/1", "raw-fresh", "raw", rate), hundredths},
			goal{size + ", 1 caller: generic to raw TCP into fresh memory, bytes/s", 0, 0, versus(size+"/1", "yonder-generic", "raw-fresh", rate), hundredths})
	}
	return limits
}

// versus compares two entrants.
func versus(workload, a, b string, m metric) func(*report) []float64 {
	return func(r *report) []float64 { return ratios(r.samples(workload, a), r.samples(workload, b), m) }
}

// worstOfMore and worstOfLess tell whether one ratio is worse than another, of what should
// be much and of what should be little.
func worstOfMore(x, y float64) bool { return x < y }
func worstOfLess(x, y float64) bool { return x > y }

// versusPeers compares an entrant with the peer that does best, to which its ratio is the
// worst.
func versusPeers(workload, a string, m metric, worse func(x, y float64) bool) func(*report) []float64 {
	return func(r *report) (worst []float64) {
		for _, e := range r.Entrants {
			values := ratios(r.samples(workload, a), r.samples(workload, e.Name), m)
			if e.Peer && len(values) > 0 && (worst == nil || worse(median(values), median(worst))) {
				worst = values
			}
		}
		return worst
	}
}

// between compares two workloads.
func between(a, b, entrant string, m metric) func(*report) []float64 {
	return func(r *report) []float64 { return ratios(r.samples(a, entrant), r.samples(b, entrant), m) }
}

// alone compares nothing.
func alone(workload, entrant string, m metric) func(*report) []float64 {
	return func(r *report) []float64 { return figures(r.samples(workload, entrant), m) }
}

// inProcess returns the time of a call without the harness's.
func inProcess(entrant string) func(*report) []float64 {
	return func(r *report) []float64 {
		return figures(r.samples("small/1", entrant), func(s *sample) float64 {
			return max(0, float64(s.Elapsed)/float64(max(1, s.Calls))-float64(r.Overhead))
		})
	}
}

// writeGoals writes a table of the goals that have been measured.
func (r *report) writeGoals(b *strings.Builder) {
	rows := [][]string{{"", "goal", "measured", "rounds", ""}}
	met := 0
	for _, g := range allGoals() {
		values := g.values(r)
		v, ok := middle(values)
		if !ok {
			continue
		}
		want, reached := "at least "+g.format(g.atLeast), v >= g.atLeast
		if g.atMost > 0 {
			want, reached = "at most "+g.format(g.atMost), v <= g.atMost
		}
		verdict := "**missed**"
		if reached {
			verdict = "met"
			met++
		}
		rows = append(rows, []string{g.what, want, g.format(v), g.spread(values), verdict})
	}
	if len(rows) == 1 {
		return
	}
	fmt.Fprintf(b, "\n## Goals\n\n%d of %d are met, by the median of the rounds.\n\n", met, len(rows)-1)
	writeTable(b, rows)
	rows = [][]string{{"", "measured", "rounds"}}
	for _, g := range allLimits() {
		values := g.values(r)
		if v, ok := middle(values); ok {
			rows = append(rows, []string{g.what, g.format(v), g.spread(values)})
		}
	}
	if len(rows) > 1 {
		b.WriteString("\nThe same for bare code written by hand, whose losses no library can win back:\n\n")
		writeTable(b, rows)
	}
}

// spread says between what the values lie.
func (g *goal) spread(values []float64) string {
	return g.format(slices.Min(values)) + ".." + g.format(slices.Max(values))
}
