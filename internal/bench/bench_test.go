//go:build linux

package main

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

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

func TestCompare(t *testing.T) {
	var out strings.Builder
	if err := run(t.Context(), []string{"-rounds", "1", "-duration", "5ms"}, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	t.Log(out.String())
	for _, w := range allWorkloads() {
		_, table, _ := strings.Cut(out.String(), "### "+w.title()+"\n")
		table, _, _ = strings.Cut(table, "###")
		for _, e := range allEntrants() {
			if got := strings.Contains(table, "| "+e.name+" "); got != e.runs(w) {
				t.Errorf("%s: a row for %s: %v, want %v", w.name, e.name, got, e.runs(w))
			}
		}
	}
}

func TestPick(t *testing.T) {
	var out strings.Builder
	err := run(t.Context(), []string{"-entrants", "yonder-bound,raw", "-workloads", "small/16,1KiB", "-rounds", "2", "-duration", "2ms"}, &out, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(out.String(), "###"); got != 3 {
		t.Errorf("%d tables, want 3:\n%s", got, &out)
	}
	for _, args := range [][]string{{"-entrants", "none"}, {"-workloads", "none"}, {"none"}, {"-idle", "none"}} {
		if err := run(t.Context(), args, io.Discard, io.Discard); err == nil {
			t.Errorf("run(%q) succeeded", args)
		}
	}
}

func TestGate(t *testing.T) {
	w := workload{name: gateWorkload}
	entrants, err := pickEntrants(allEntrants(), []string{gateEntrant, gateReference})
	if err != nil {
		t.Fatal(err)
	}
	round := func(calls int64) sample { return sample{calls: calls, elapsed: time.Second} }
	for _, c := range []struct {
		name   string
		calls  []int64 // the reference does 100
		passes bool
	}{
		{"far above", []int64{400, 500, 300}, true},
		{"one bad round", []int64{400, 100, 300}, true},
		{"below", []int64{140, 400, 110}, false},
	} {
		r := result{workload: w, entrants: entrants, samples: make([][]sample, 2)}
		for _, n := range c.calls {
			r.samples[0] = append(r.samples[0], round(n))
			r.samples[1] = append(r.samples[1], round(100))
		}
		if err := checkGate([]result{r}, io.Discard); (err == nil) != c.passes {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if err := checkGate(nil, io.Discard); err == nil {
		t.Error("a gate that has measured nothing lets everything pass")
	}
}

func TestIdle(t *testing.T) {
	var out strings.Builder
	if err := run(t.Context(), []string{"-idle", "20"}, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	t.Log(out.String())
}

func TestFair(t *testing.T) {
	var out strings.Builder
	if err := run(t.Context(), []string{"-fair", "-fairsize", "4000000", "-rounds", "1", "-duration", "10ms"}, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	t.Log(out.String())
}

// TestServerEnds shows that a server does not outlive the client's process, whose end
// closes the pipe.
func TestServerEnds(t *testing.T) {
	for _, e := range allEntrants() {
		if e.serve == nil {
			continue
		}
		s, err := startServer(e, "", os.Stderr)
		if err != nil {
			t.Fatal(err)
		}
		c, err := e.dial(&dialer{addr: s.addr})
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
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}
