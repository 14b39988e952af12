//go:build linux

// Command soak is unkind to a server and to its clients: peers that do not read, do not write, or
// have vanished, handlers that do not return, connections by the thousand, no memory, no files, no
// process any more. Each scenario asserts that calls end when they should, that others do not
// notice, and that memory and goroutines are bounded and given back. From the root of the repository:
//
//	go run ./internal/soak                    # some minutes; the report goes to standard output
//	go run ./internal/soak -out docs/soak.md  # writes it
//	go run ./internal/soak -only kill -seed 7
//
// Servers are processes of their own. It needs Linux, and 10,000 connections need as many files open
// in each process.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == serverFlag {
		fmt.Fprintln(os.Stderr, "soak server:", serverMain(os.Args[2:]))
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

// A trial is one run of a scenario.
type trial struct {
	rand  *rand.Rand
	short bool // seconds instead of minutes
	log   io.Writer
	facts []string
}

// fact adds something to the report.
func (t *trial) fact(format string, args ...any) {
	t.facts = append(t.facts, fmt.Sprintf(format, args...))
}

// some returns n, or few of a short run.
func (t *trial) some(n, few int) int {
	if t.short {
		return few
	}
	return n
}

// atMost returns an error if something is more than its bound, and adds it to the report.
func (t *trial) atMost(what string, got, bound float64, unit string) error {
	t.fact("%s: %.4g%s, at most %.4g", what, got, unit, bound)
	if got > bound {
		return fmt.Errorf("%s: %.4g%s, more than %.4g", what, got, unit, bound)
	}
	return nil
}

// A scenario is one unkindness.
type scenario struct {
	name, title string
	do          func(ctx context.Context, t *trial) error
}

// longest is how long a scenario may take.
const longest = 90 * time.Second

// A result is what has become of one.
type result struct {
	scenario
	took  time.Duration
	facts []string
	err   error
}

func run(ctx context.Context, args []string, out, progress io.Writer) error {
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	flags.SetOutput(progress)
	seed := flags.Uint64("seed", uint64(time.Now().UnixNano()), "of what is left to chance; the report says which it was")
	only := flags.String("only", "", "comma-separated `names` of scenarios (default all)")
	short := flags.Bool("short", false, "seconds each, as the tests run them")
	file := flags.String("out", "", "write the report to this `file`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	picked := scenarios
	if *only != "" {
		names := strings.Split(*only, ",")
		picked = slices.DeleteFunc(slices.Clone(scenarios), func(s scenario) bool { return !slices.Contains(names, s.name) })
		if len(picked) != len(names) {
			var all []string
			for _, s := range scenarios {
				all = append(all, s.name)
			}
			return fmt.Errorf("-only %s: there are %s", *only, strings.Join(all, ", "))
		}
	}
	fmt.Fprintf(progress, "seed %d\n", *seed)
	before := load()
	start := time.Now()
	var results []result
	for i, s := range picked {
		fmt.Fprintf(progress, "%v: %s\n", time.Since(start).Round(time.Second), s.name)
		t := &trial{rand: rand.New(rand.NewPCG(*seed, uint64(i))), short: *short, log: progress}
		r := t.run(ctx, s)
		if r.err != nil {
			fmt.Fprintf(progress, "%s: %v\n", s.name, r.err)
		}
		results = append(results, r)
	}
	text := report(results, *seed, *short, before, time.Since(start))
	if *file != "" {
		if err := os.WriteFile(*file, []byte(text), 0o666); err != nil {
			return err
		}
	} else if _, err := io.WriteString(out, text); err != nil {
		return err
	}
	var errs []error
	for _, r := range results {
		if r.err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", r.name, r.err))
		}
	}
	return errors.Join(errs...)
}

// run runs a scenario. One that takes too long has failed, and what it has left running does not
// matter any more.
func (t *trial) run(ctx context.Context, s scenario) result {
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	begun := time.Now()
	goroutines := runtime.NumGoroutine()
	err := s.do(ctx, t)
	if err == nil {
		err = settles("goroutines of the clients' process", 5*time.Second, func() (float64, float64) {
			return float64(runtime.NumGoroutine()), float64(goroutines + 5)
		})
	}
	return result{s, time.Since(begun), t.facts, err}
}

// settles waits until what get returns is at most its bound.
func settles(what string, patience time.Duration, get func() (value, bound float64)) error {
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		value, bound := get()
		if value <= bound {
			return nil
		}
		if time.Since(start) > patience {
			return fmt.Errorf("%s: %.4g after %v, want at most %.4g", what, value, patience, bound)
		}
	}
}

// report is the Markdown.
func report(results []result, seed uint64, short bool, before string, took time.Duration) string {
	var b strings.Builder
	b.WriteString("# Soak\n\n")
	fmt.Fprintf(&b, "By `go run ./internal/soak -seed %d", seed)
	if short {
		b.WriteString(" -short")
	}
	fmt.Fprintf(&b, "` on %s, with %d CPUs, %s; it took %v.\n", time.Now().UTC().Format("2006-01-02"), runtime.NumCPU(), runtime.Version(), took.Round(time.Second))
	fmt.Fprintf(&b, "Load averages of the machine were %s when it began and %s when it ended: bounds are asserted, times are no benchmark.\n", before, load())
	b.WriteString("Servers and clients are processes of their own on loopback TCP. Each scenario asserts the bounds that are given, that what a well-behaved client does meanwhile succeeds, and that goroutines and connections are gone in the end.\n")
	for _, r := range results {
		verdict := "holds"
		if r.err != nil {
			verdict = "**fails**: " + strings.ReplaceAll(r.err.Error(), "\n", "; ")
		}
		fmt.Fprintf(&b, "\n## %s\n\n`%s`, %v: %s.\n\n", r.title, r.name, r.took.Round(100*time.Millisecond), verdict)
		for _, f := range r.facts {
			fmt.Fprintf(&b, "* %s\n", f)
		}
	}
	return b.String()
}

// load returns the load averages.
func load() string {
	text, _ := os.ReadFile("/proc/loadavg")
	f := strings.Fields(string(text))
	if len(f) < 3 {
		return "unknown"
	}
	return strings.Join(f[:3], ", ")
}
