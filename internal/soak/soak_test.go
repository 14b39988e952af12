//go:build linux

package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"math/rand/v2"
)

// TestMain lets this binary be the server, as the program does.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == serverFlag {
		fmt.Fprintln(os.Stderr, "soak server:", serverMain(os.Args[2:]))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// TestScenarios runs the short form of each.
func TestScenarios(t *testing.T) {
	if testing.Short() {
		t.Skip("they take seconds each; run it without -short")
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for i, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			r := (&trial{rand: rand.New(rand.NewPCG(seed, uint64(i))), short: true, log: testWriter{t}}).run(t.Context(), s)
			for _, f := range r.facts {
				t.Log(f)
			}
			if r.err != nil {
				t.Error(r.err)
			}
		})
	}
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(text []byte) (int, error) {
	w.t.Logf("%s", text)
	return len(text), nil
}

// What does not hold is in the report, and in the command's error.
func TestReport(t *testing.T) {
	bad := fmt.Errorf("memory: 12 MiB, more than 10")
	text := report([]result{{scenario{"one", "One", nil}, time.Second, []string{"a fact"}, nil}, {scenario{"two", "Two", nil}, time.Second, nil, bad}}, 7, true, "1, 2, 3", time.Minute)
	for _, want := range []string{"-seed 7 -short`", "## One\n\n`one`, 1s: holds.\n\n* a fact\n", "`two`, 1s: **fails**: memory: 12 MiB, more than 10.", "1, 2, 3 when it began"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in:\n%s", want, text)
		}
	}
	tr := new(trial)
	if err := tr.atMost("x", 2, 1, ""); err == nil || len(tr.facts) != 1 {
		t.Error("a bound was broken and nobody said so")
	}
	if err := run(t.Context(), []string{"-only", "nothing"}, testWriter{t}, testWriter{t}); err == nil {
		t.Error("there is a scenario of that name")
	}
}
