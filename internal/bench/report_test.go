//go:build linux

package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// madeUp returns a report of two rounds that nobody has measured, with each kind of
// workload.
func madeUp() *report {
	r := &report{
		Machine: "2 x CPU, go1.26 linux/amd64", Kernel: "6.1", Date: "2026-01-02 03:04", Command: "-out docs/bench",
		Rounds: 2, Duration: time.Second, Overhead: 50, Took: time.Hour,
		Modules: []module{{"example.org/rpc", "v1.2.3"}},
	}
	all := allEntrants()
	all = all[:len(all)-len(heavyEntrants())] // the expected report is without them
	for _, e := range all {
		r.Entrants = append(r.Entrants, description{e.name, e.about, e.peer, e.serve == nil})
	}
	for i, w := range allWorkloads(defaultSizes) {
		res := result{Name: w.name, Title: w.title, Kind: w.kind.name}
		for k, e := range all {
			if !e.runs(&w) {
				continue
			}
			row := row{Entrant: e.name}
			for round := range 2 {
				calls := int64(1_000_000/(k+1) + 10_000*round + 1000*i)
				took := time.Second / time.Duration(calls)
				s := sample{
					Calls: calls, Elapsed: time.Second,
					Latency: latency{took * 10, took * 20, took * 30, took * 40, took * 100},
					Client:  usage{CPU: time.Duration(calls) * took, Allocs: uint64(calls) * 5, Writes: uint64(calls) / 2, Peak: 1 << 20},
					Server:  usage{CPU: time.Duration(calls) * took / 2, Allocs: uint64(calls) * 6, Writes: uint64(calls) / 3, Peak: 1 << 20},
					Others:  time.Second / 50,
				}
				switch {
				case w.transfer > 0:
					s.Transferred = 1 << 30
				case w.kind == idleKind:
					s.Idle = &occupied{Heap: 4096 * float64(k+1), Stack: 2048, RSS: 9000, Goroutines: 1}
				case w.kind == overloadKind:
					s.Load = &loaded{Sustained: float64(calls) / 2, Offered: 2 * calls, Shed: calls / 2, Late: calls / 2}
				case w.kind == buildKind:
					s.Build = &built{Size: int64(4_000_000 * (k + 1)), Cold: 30 * time.Second, Warm: time.Second}
				}
				row.Samples = append(row.Samples, s)
			}
			res.Rows = append(res.Rows, row)
		}
		r.Results = append(r.Results, res)
	}
	last := &r.Results[len(r.Results)-1]
	last.Rows = append(last.Rows, row{Entrant: "raw", Failed: "there is no such program"})
	return r
}

// TestReport shows that the report comes from its JSON alone, and is the expected one.
func TestReport(t *testing.T) {
	first, again := t.TempDir(), t.TempDir()
	if err := publish(madeUp(), first, io.Discard); err != nil {
		t.Fatal(err)
	}
	figures := filepath.Join(first, "results.json")
	if err := run(t.Context(), []string{"-from", figures, "-out", again}, io.Discard, io.Discard); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(first)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
		want, err := os.ReadFile(filepath.Join(first, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(again, entry.Name()))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s differs when it is made from results.json: %v", entry.Name(), err)
		}
	}
	if want := []string{"README.md", "cpu.svg", "latency.svg", "overload.svg", "results.json", "throughput.svg"}; !slices.Equal(names, want) {
		t.Errorf("files %q, want %q", names, want)
	}
	got, err := os.ReadFile(filepath.Join(first, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/report.md"
	if *update {
		if err := os.WriteFile(golden, got, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the report is not %s; -update rewrites it. Got:\n%s", golden, got)
	}
}

func TestPlots(t *testing.T) {
	plots := madeUp().plots()
	if len(plots) != 4 {
		t.Errorf("%d plots, want 4", len(plots))
	}
	for _, p := range plots {
		d := xml.NewDecoder(strings.NewReader(p.svg))
		texts := make(map[string]bool)
		for {
			token, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", p.file, err)
			}
			if text, ok := token.(xml.CharData); ok {
				first, _, _ := strings.Cut(string(text), "  ")
				texts[first] = true
			}
		}
		entrants := []string{"yonder-generic", "raw-mux", "grpc", "capnp"}
		if p.file == "overload.svg" {
			entrants = []string{"yonder-gate", "yonder-bound", "net/rpc"}
		}
		for _, name := range append(entrants, p.title) {
			if !texts[name] {
				t.Errorf("%s does not name %q", p.file, name)
			}
		}
		if !strings.Contains(p.svg, "prefers-color-scheme: dark") || strings.Contains(p.svg, "NaN") {
			t.Errorf("%s has no dark face, or a figure that is none:\n%s", p.file, p.svg)
		}
	}
	if got := new(report).plots(); len(got) != 0 {
		t.Errorf("%d plots of nothing", len(got))
	}
}

// TestGoals shows that each goal finds its figures in a run of everything.
func TestGoals(t *testing.T) {
	r := madeUp()
	for _, g := range allGoals() {
		if v, ok := middle(g.values(r)); !ok || v <= 0 {
			t.Errorf("%s: %v, %v", g.what, v, ok)
		}
		if (g.atLeast > 0) == (g.atMost > 0) {
			t.Errorf("%s: it needs one bound", g.what)
		}
	}
	// The best peer is the fastest, not the first or the last.
	few := &report{Entrants: []description{{Name: "us"}, {Name: "slow", Peer: true}, {Name: "fast", Peer: true}, {Name: "no peer"}}}
	res := result{Name: "w"}
	for i, e := range few.Entrants {
		calls := []int64{100, 10, 50, 1000}[i]
		s := sample{Calls: calls, Elapsed: time.Second, Latency: latency{P99: time.Second / time.Duration(calls)}}
		res.Rows = append(res.Rows, row{Entrant: e.Name, Samples: []sample{s}})
	}
	few.Results = []result{res}
	if v, _ := middle(versusPeers("w", "us", rate, worstOfMore)(few)); v != 2 {
		t.Errorf("calls/s to the best peer: %v, want 2", v)
	}
	if v, _ := middle(versusPeers("w", "us", p99, worstOfLess)(few)); v != 0.5 {
		t.Errorf("p99 to the best peer: %v, want 0.5", v)
	}
}

// TestHello shows that the programs that build compares do the same.
func TestHello(t *testing.T) {
	root, err := workspace(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range allEntrants() {
		if (e.can&builds != 0) != (e.hello != "") {
			t.Errorf("%s: has a program %q, but says otherwise", e.name, e.hello)
		}
		if e.hello == "" {
			continue
		}
		cmd := exec.CommandContext(t.Context(), "go", "run", "-tags", "peers", e.hello)
		cmd.Dir = root
		out, err := cmd.Output() // net/rpc logs that its listener is closed
		if got := string(out); err != nil || got != "Hello, world\n" {
			t.Errorf("%s: %q, %v", e.hello, got, err)
		}
	}
}
