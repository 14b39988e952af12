//go:build linux

package main

import (
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// A report is everything that a run has found out, as it is kept in results.json. What is
// printed and drawn comes from it alone.
type report struct {
	Machine  string        // its CPUs, the Go version and the platform
	Kernel   string        // the system's release
	Date     string        // of the start, UTC
	Tags     string        // what the go command is to be told, too
	Command  string        // the arguments
	Rounds   int           // at most
	Duration time.Duration // measured of each entrant in each round, of calls
	Overhead time.Duration // what the harness itself takes of a call
	Took     time.Duration
	Modules  []module // that entrants are made of
	Entrants []description
	Results  []result
}

type module struct{ Path, Version string }

// A description says who an entrant is.
type description struct {
	Name, About string
	Peer        bool `json:",omitempty"`
	OneProcess  bool `json:",omitempty"` // server and client are one
}

// A result is all rounds of one workload.
type result struct {
	Name, Title, Kind string
	Rows              []row
}

// A row is all rounds of one entrant.
type row struct {
	Entrant string
	Samples []sample // by round
	// Failed says why there are no more. Empty: there are all.
	Failed string `json:",omitempty"`
}

// A sample is what one entrant did in one round of a workload.
type sample struct {
	Calls   int64 // or items, or connections
	Elapsed time.Duration
	Latency latency `json:",omitzero"`
	Client  usage   // of the client's process, with the harness
	Server  usage
	// Others is the CPU time that all but these two processes used.
	Others time.Duration
	// Transferred is how many bytes were beside the calls.
	Transferred int64     `json:",omitempty"`
	Idle        *occupied `json:",omitempty"`
	Build       *built    `json:",omitempty"`
	Load        *loaded   `json:",omitempty"`
}

type latency struct{ P50, P90, P99, P999, Max time.Duration }

// occupied is what the server's process occupies for a connection.
type occupied struct{ Heap, Stack, RSS, Goroutines float64 }

// built is a program: its size in bytes, and how long it took to build.
type built struct {
	Size       int64
	Cold, Warm time.Duration
}

// A metric is a figure of a sample.
type metric func(*sample) float64

func rate(s *sample) float64 { return float64(s.Calls) / s.Elapsed.Seconds() }
func p50(s *sample) float64  { return float64(s.Latency.P50) }
func p90(s *sample) float64  { return float64(s.Latency.P90) }
func p99(s *sample) float64  { return float64(s.Latency.P99) }
func p999(s *sample) float64 { return float64(s.Latency.P999) }

// eachCall returns a metric for what u has of both processes.
func eachCall(u func(*usage) float64) metric {
	return func(s *sample) float64 { return (u(&s.Client) + u(&s.Server)) / float64(max(1, s.Calls)) }
}

var (
	cpu    = eachCall(func(u *usage) float64 { return float64(u.CPU) })
	allocs = eachCall(func(u *usage) float64 { return float64(u.Allocs) })
)

// samples returns those of an entrant, nil if there are none.
func (r *report) samples(workload, entrant string) []sample {
	i := slices.IndexFunc(r.Results, func(res result) bool { return res.Name == workload })
	if i < 0 {
		return nil
	}
	return r.Results[i].samples(entrant)
}

func (res *result) samples(entrant string) []sample {
	for _, row := range res.Rows {
		if row.Entrant == entrant {
			return row.Samples
		}
	}
	return nil
}

func (r *report) entrant(name string) description {
	for _, e := range r.Entrants {
		if e.Name == name {
			return e
		}
	}
	return description{Name: name}
}

// failed returns what has failed.
func (r *report) failed() (err error) {
	for _, res := range r.Results {
		for _, row := range res.Rows {
			if row.Failed != "" {
				err = errors.Join(err, fmt.Errorf("%s: %s: %s", row.Entrant, res.Name, row.Failed))
			}
		}
	}
	return err
}

// figure returns the median of a metric over the rounds.
func figure(samples []sample, m metric) (float64, bool) {
	return middle(figures(samples, m))
}

// figures returns a metric of each round.
func figures(samples []sample, m metric) (values []float64) {
	for i := range samples {
		values = append(values, m(&samples[i]))
	}
	return values
}

// ratio returns the median, over the rounds, of how many times as much one has as the
// other has.
func ratio(a, b []sample, m metric) (float64, bool) {
	return middle(ratios(a, b, m))
}

// ratios returns how many times as much one has as the other has, in each round.
func ratios(a, b []sample, m metric) (values []float64) {
	for i := range min(len(a), len(b)) {
		if below := m(&b[i]); below > 0 {
			values = append(values, m(&a[i])/below)
		}
	}
	return values
}

// middle returns the median, if there are values.
func middle(values []float64) (float64, bool) {
	if len(values) == 0 {
		return 0, false
	}
	return median(values), true
}

// spread returns half of what lies between the best and the worst round, as a part of
// the median.
func spread(samples []sample, m metric) float64 {
	values := figures(samples, m)
	return (slices.Max(values) - slices.Min(values)) / 2 / max(median(values), 1e-9)
}

// median returns the middle value, or the lower one of two.
func median[T int64 | float64 | time.Duration](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[(len(sorted)-1)/2]
}

// others returns what share of the machine other processes used, in the round at
// this place of all when sorted.
func (r *report) others(place float64) float64 {
	var shares []float64
	for _, res := range r.Results {
		for _, row := range res.Rows {
			for _, s := range row.Samples {
				all := s.Client.CPU + s.Server.CPU + s.Others
				shares = append(shares, float64(s.Others)/float64(max(1, all)))
			}
		}
	}
	if len(shares) == 0 {
		return 0
	}
	slices.Sort(shares)
	return shares[int(place*float64(len(shares)-1))]
}

// modules returns the versions of the libraries that entrants are.
func modules() (found []module) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return nil
	}
	for _, prefix := range []string{
		"google.golang.org/grpc", "google.golang.org/protobuf", "connectrpc.com/connect", "storj.io/drpc",
		"github.com/containerd/ttrpc", "github.com/smallnest/rpcx", "github.com/cloudwego/kitex", "github.com/nats-io/nats-server/", "github.com/nats-io/nats.go",
		"capnproto.org/go/capnp/", "github.com/fxamacker/cbor/",
	} {
		for _, dep := range info.Deps {
			if dep.Path == prefix || strings.HasSuffix(prefix, "/") && strings.HasPrefix(dep.Path, prefix) {
				found = append(found, module{dep.Path, dep.Version})
			}
		}
	}
	return found
}
