//go:build linux

package main

import (
	"errors"
	"flag"
	"io"
	"maps"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"
	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "rewrite the expected report")

// TestMain lets this binary be the server, as the program does.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == serverFlag {
		if err := serverMain(os.Args[2:]); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// TestEverything shows that each entrant does every workload that it claims to.
func TestEverything(t *testing.T) {
	cfg := config{
		entrants: allEntrants(), rounds: 1, duration: 5 * time.Millisecond, warmup: time.Millisecond,
		progress: testWriter{t},
	}
	for _, w := range allWorkloads(sizes{transfer: 100_000, items: 300, idle: 5, procedures: 3}) {
		if w.kind == buildKind {
			continue // minutes; TestHello builds the programs
		}
		if w.payload > 1<<10 { // for machines with little memory, and the race detector
			w.callers = min(w.callers, 16)
		}
		w.callers = min(w.callers, 300)
		cfg.workloads = append(cfg.workloads, w)
	}
	results, err := measureAll(t.Context(), &cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := (&report{Results: results}).failed(); err != nil {
		t.Error(err)
	}
	for i, res := range results {
		w := &cfg.workloads[i]
		for _, e := range cfg.entrants {
			samples := res.samples(e.name)
			if claims := e.runs(w); claims != (len(samples) == 1) {
				t.Errorf("%s: %d samples of %s, which claims %v", w.name, len(samples), e.name, claims)
			} else if claims && (samples[0].Calls == 0 || samples[0].Elapsed <= 0) {
				t.Errorf("%s: %s has done nothing: %+v", w.name, e.name, samples[0])
			}
		}
	}
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(text []byte) (int, error) {
	w.t.Logf("%s", text)
	return len(text), nil
}

func TestRun(t *testing.T) {
	var out strings.Builder
	err := run(t.Context(), []string{"-entrants", "yonder-bound,raw", "-workloads", "small/16,1KiB", "-rounds", "2", "-duration", "2ms"}, &out, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"small/16", "1KiB/1", "1KiB/16", "1KiB/256"} {
		if !strings.Contains(out.String(), "\n`"+name+"`\n") {
			t.Errorf("no table of %s:\n%s", name, &out)
		}
	}
	if got := strings.Count(out.String(), "\n| raw "); got != 1 {
		t.Errorf("raw is in %d tables, want 1:\n%s", got, &out)
	}
	for _, args := range [][]string{{"-entrants", "none"}, {"-workloads", "none"}, {"none"}, {"-idle", "0"}, {"-from", "none"}} {
		if err := run(t.Context(), args, io.Discard, io.Discard); err == nil {
			t.Errorf("run(%q) succeeded", args)
		}
	}
}

func TestPickWorkloads(t *testing.T) {
	all := allWorkloads(defaultSizes)
	for _, c := range []struct{ list, want string }{
		{"", workloadNames(all)},
		{"small/256", "small/256"},
		{"stream", "stream/up, stream/down"},
		{"mixed/paced,small/1", "small/1, mixed/paced"},
		{"1KiB,idle", "1KiB/1, 1KiB/16, 1KiB/256, idle"},
	} {
		picked, err := pickWorkloads(all, c.list)
		if got := workloadNames(picked); err != nil || got != c.want {
			t.Errorf("%q: %s, %v; want %s", c.list, got, err, c.want)
		}
	}
	for _, list := range []string{quickWorkloads, gateWorkload} {
		if _, err := pickWorkloads(all, list); err != nil {
			t.Error(err)
		}
	}
	if _, err := pickEntrants(allEntrants(), strings.Split(quickEntrants, ",")); err != nil {
		t.Error(err)
	}
}

func TestFailure(t *testing.T) {
	entrants, err := pickEntrants(allEntrants(), []string{"raw", "net/rpc"})
	if err != nil {
		t.Fatal(err)
	}
	entrants[0].name = "nobody" // the server's process does not know it
	cfg := config{entrants: entrants, rounds: 2, duration: time.Millisecond, progress: testWriter{t}}
	if cfg.workloads, err = pickWorkloads(allWorkloads(defaultSizes), "small/1"); err != nil {
		t.Fatal(err)
	}
	results, err := measureAll(t.Context(), &cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := (&report{Results: results}).failed(); err == nil {
		t.Error("an entrant without a server has not failed")
	}
	if got := len(results[0].samples("net/rpc")); got != 2 {
		t.Errorf("%d samples of the other entrant, want 2", got)
	}
}

func TestGate(t *testing.T) {
	round := func(calls int64) sample { return sample{Calls: calls, Elapsed: time.Second} }
	for _, c := range []struct {
		name   string
		calls  []int64 // the reference does 100
		passes bool
	}{
		{"far above", []int64{400, 500, 300}, true},
		{"one bad round", []int64{400, 100, 300}, true},
		{"below", []int64{140, 400, 110}, false},
	} {
		ours, reference := row{Entrant: gateEntrant}, row{Entrant: gateReference}
		for _, n := range c.calls {
			ours.Samples = append(ours.Samples, round(n))
			reference.Samples = append(reference.Samples, round(100))
		}
		r := &report{Results: []result{{Name: gateWorkload, Rows: []row{ours, reference}}}}
		if err := checkGate(r, io.Discard); (err == nil) != c.passes {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if err := checkGate(new(report), io.Discard); err == nil {
		t.Error("a gate that has measured nothing lets everything pass")
	}
}

// TestServerEnds shows that a server does not outlive the client's process, whose end
// closes the pipe.
func TestServerEnds(t *testing.T) {
	for _, e := range allEntrants() {
		if e.serve == nil {
			continue
		}
		s, err := startServer(&e, 1, &config{progress: os.Stderr})
		if err != nil {
			t.Fatal(err)
		}
		c, err := e.dial(t.Context(), target{addr: s.addr})
		if err != nil {
			t.Fatal(errors.Join(err, s.stop()))
		}
		if err := c.small(t.Context()); err != nil {
			t.Errorf("%s: %v", e.name, err)
		}
		if err := s.stop(); err != nil {
			t.Errorf("%s: %v", e.name, err)
		}
		c.close()
	}
}

func TestPin(t *testing.T) {
	affinity := func() (set unix.CPUSet) {
		if err := unix.SchedGetaffinity(0, &set); err != nil {
			t.Fatal(err)
		}
		return set
	}
	before := affinity()
	if err := pin(); err != nil {
		t.Fatal(err)
	}
	pinned := affinity()
	if err := unpin(); err != nil {
		t.Fatal(err)
	}
	if after := affinity(); pinned.Count() != 1 || after != before {
		t.Errorf("CPUs before %v, pinned %v, after %v", before, pinned, after)
	}
}

func TestFormats(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{count(7), "7"},
		{count(1234), "1,234"},
		{count(1234567), "1,234,567"},
		{nanos(7), "7 ns"},
		{nanos(999.4), "999 ns"},
		{nanos(999.9), "1.00 us"},
		{nanos(12345), "12.3 us"},
		{nanos(2e9), "2.00 s"},
		{size(512), "0.5 KiB"},
		{size(1 << 30), "1.00 GiB"},
		{short(20_000), "20k"},
		{short(1_500_000), "1.5M"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

// The budget says where the time goes of which the profiler has samples.
func TestBudget(t *testing.T) {
	sample := func(value int64, stack ...string) *profile.Sample {
		s := &profile.Sample{Value: []int64{1, value}}
		for _, name := range stack {
			s.Location = append(s.Location, &profile.Location{Line: []profile.Line{{Function: &profile.Function{Name: name}}}})
		}
		return s
	}
	const lib = "github.com/yonder-rpc/yonder"
	p := &profile.Profile{Sample: []*profile.Sample{
		sample(10, "runtime.memclrNoHeapPointers", "runtime.mallocgc", lib+"/internal/plain.decode", lib+"/internal/mux.(*Workers).work"),
		sample(20, "reflect.Value.Field", lib+"/internal/plain.decode", lib+".(*serverCall).argument", lib+"/internal/mux.(*Workers).work"),
		sample(30, lib+".(*link).Serve", lib+"/internal/mux.(*Workers).work"),
		sample(40, "runtime.nanotime"),
	}}
	got := make(map[string]float64)
	for i, share := range shares(p) {
		title := budgetRest
		if i < len(budgetLines) {
			title = budgetLines[i].title
		}
		if share > 0 {
			got[title] = math.Round(100 * share)
		}
	}
	want := map[string]float64{"allocating": 10, "decoding": 20, "calls: their objects and contexts, interceptors, the procedure": 30, budgetRest: 40}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	text := budgetText([]side{{"one", "client", 1000, shares(p)}}, "a machine", "a date", "-budget")
	for _, line := range []string{"| | one, client |", "| decoding | 200 |", "| **all** | **1000** |"} {
		if !strings.Contains(text, line) {
			t.Errorf("the page lacks %q:\n%s", line, text)
		}
	}
}
