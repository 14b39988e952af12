//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime/pprof"
	"slices"
	"strings"
	"time"

	"github.com/google/pprof/profile"
)

// The budget of a call is where its CPU time goes, by the profiles of both processes, beside
// that of the raw multiplexer, which does what any such library must.

const budgetWorkload = "small/256"

var budgetEntrants = [...]string{"yonder-generic", "yonder-bound", "raw-mux"}

// A line of the budget is what the functions are in whose stacks a sample is.
type budgetLine struct {
	title string
	match *regexp.Regexp
}

// budgetLines are in the order in which they count, as far as anywhere goes wherever on the stack
// a function is, and of the rest the one that is nearest to the leaf.
const anywhere = 8

var budgetLines = []budgetLine{
	{"collecting garbage", regexp.MustCompile(`^runtime\.(gcBgMarkWorker|bgsweep|bgscavenge|gcAssistAlloc|gcStart|gcMark|gcDrain|markroot|gcWriteBarrier|wbBufFlush)`)},
	{"allocating", regexp.MustCompile(`^runtime\.(mallocgc|newobject|growslice|makeslice|slicebytetostring|deductAssistCredit)|^reflect\.unsafe_New`)},
	{"system calls that write", regexp.MustCompile(`^syscall\.[wW]rite|mux\.sendBriefly|^internal/poll\.(writev|\(\*FD\)\.Write)`)},
	{"system calls that read", regexp.MustCompile(`^syscall\.[rR]ead|mux\.recvBriefly|^internal/poll\.\(\*FD\)\.Read`)},
	{"waking and switching goroutines", regexp.MustCompile(`^runtime\.(mcall|schedule|park_m|gosched_m|goready|ready|wakep|chansend|chanrecv|send|recv|selectgo|newproc|goexit0|findRunnable|mstart|semacquire|semrelease|futex|sysmon|netpoll|gopark|Gosched|asyncPreempt|newstack|morestack)`)},
	{"encoding", regexp.MustCompile(`yonder/internal/plain\..*[eE]ncode|yonder\.encodeValue|yonder\.cborCodec\.Encode`)},
	{"decoding", regexp.MustCompile(`yonder/internal/plain\..*[dD]ecode|yonder\.decodeValue|yonder\.cborCodec\.Decode`)},
	{"reflection that calls functions", regexp.MustCompile(`^reflect\.(callReflect|Value\.call|Value\.Call|makeFuncStub)`)},
	{"writing frames", regexp.MustCompile(`yonder/internal/mux\.\(\*(writer|batch|pace)\)|main\.\(\*muxWriter\)`)},
	{"reading frames", regexp.MustCompile(`yonder/internal/mux\.\(\*(reader|rawConn)\)|yonder/internal/wire\.|main\.readMuxHead|bufio\.\(\*Reader\)`)},
	{"calls: their table, the queue of workers", regexp.MustCompile(`yonder/internal/mux\.|main\.\(\*muxClient\)|main\.serveMux`)},
	{"calls: their objects and contexts, interceptors, the procedure", regexp.MustCompile(`github\.com/yonder-rpc/yonder\.`)},
	{"the harness, and what reflect does for a bound function before the library has the call", regexp.MustCompile(`^main\.`)},
}

const budgetRest = "the rest of the runtime"

// lineOf returns the index of the line that a sample counts to.
func lineOf(s *profile.Sample) int {
	var stack []string // from the leaf to the root
	for _, at := range s.Location {
		for _, l := range at.Line {
			if l.Function != nil {
				stack = append(stack, l.Function.Name)
			}
		}
	}
	for i, line := range budgetLines[:anywhere] {
		if slices.ContainsFunc(stack, line.match.MatchString) {
			return i
		}
	}
	for _, name := range stack {
		for i, line := range budgetLines[anywhere:] {
			if line.match.MatchString(name) {
				return anywhere + i
			}
		}
	}
	return len(budgetLines)
}

// shares returns which part of a profile's time each line has.
func shares(p *profile.Profile) []float64 {
	sums := make([]float64, len(budgetLines)+1)
	total := 0.0
	for _, s := range p.Sample {
		v := float64(s.Value[len(s.Value)-1])
		sums[lineOf(s)] += v
		total += v
	}
	for i := range sums {
		sums[i] /= max(total, 1)
	}
	return sums
}

// side is one process of an entrant: the CPU time of a call, and how it is shared out.
type side struct {
	entrant, process string
	perCall          float64 // ns
	shares           []float64
}

// budget measures and writes the table, to a file in the folder if there is one.
func budget(ctx context.Context, cfg config, folder, command string, out io.Writer) error {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var sides []side
	for _, name := range budgetEntrants {
		one := cfg
		if one.entrants, err = pickEntrants(allEntrants(), []string{name}); err != nil {
			return err
		}
		if one.workloads, err = pickWorkloads(allWorkloads(defaultSizes), budgetWorkload); err != nil {
			return err
		}
		one.workloads = slices.DeleteFunc(one.workloads, func(w workload) bool { return w.name != budgetWorkload })
		one.serverProfile = filepath.Join(dir, "server")
		both, err := profiled(ctx, &one, name)
		if err != nil {
			return err
		}
		sides = append(sides, both...)
	}
	text := budgetText(sides, machine(), time.Now().UTC().Format("2006-01-02 15:04"), command)
	if folder == "" {
		_, err = io.WriteString(out, text)
		return err
	}
	if err := os.MkdirAll(folder, 0o777); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(folder, "budget.md"), []byte(text), 0o666)
}

// profiled runs the workload for one entrant and returns its sides.
func profiled(ctx context.Context, cfg *config, entrant string) ([]side, error) {
	var client bytes.Buffer
	if err := pprof.StartCPUProfile(&client); err != nil {
		return nil, err
	}
	results, err := measureAll(ctx, cfg)
	pprof.StopCPUProfile()
	if err != nil {
		return nil, err
	}
	row := results[0].Rows[0]
	if row.Failed != "" {
		return nil, fmt.Errorf("%s: %s", entrant, row.Failed)
	}
	served, err := os.ReadFile(cfg.serverProfile + "-" + entrant + ".cpu.prof")
	if err != nil {
		return nil, err
	}
	var sides []side
	for _, s := range []struct {
		process string
		profile []byte
		of      func(*sample) usage
	}{
		{"client", client.Bytes(), func(s *sample) usage { return s.Client }},
		{"server", served, func(s *sample) usage { return s.Server }},
	} {
		p, err := profile.ParseData(s.profile)
		if err != nil {
			return nil, err
		}
		v, _ := figure(row.Samples, func(sm *sample) float64 {
			u := s.of(sm)
			return cpuUsed(&u) / float64(sm.Calls)
		})
		sides = append(sides, side{entrant, s.process, v, shares(p)})
	}
	return sides, nil
}

// budgetText is the page.
func budgetText(sides []side, machine, date, command string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# The budget of a call\n\n")
	fmt.Fprintf(&b, "Where the CPU time of a call of a small struct goes, 256 callers on one connection, in nanoseconds,\nbeside the raw multiplexer, which encodes nothing and has no contexts, limits, errors or streams.\nOn %s, on %s, by `go run ./internal/bench %s`.\n\n", machine, date, command)
	fmt.Fprintf(&b, "A sample of the CPU profile counts to the first line that one of the functions on its stack belongs to, so\nthat allocating is a line of its own wherever it is done. The profile gives the shares, the kernel's count of\nCPU time the sums.\n\n|")
	for _, s := range sides {
		fmt.Fprintf(&b, " | %s, %s", s.entrant, s.process)
	}
	fmt.Fprintf(&b, " |\n|---|%s\n", strings.Repeat("---:|", len(sides)))
	for i := range len(budgetLines) + 1 {
		title := budgetRest
		if i < len(budgetLines) {
			title = budgetLines[i].title
		}
		fmt.Fprintf(&b, "| %s", title)
		for _, s := range sides {
			fmt.Fprintf(&b, " | %.0f", s.shares[i]*s.perCall)
		}
		fmt.Fprintf(&b, " |\n")
	}
	fmt.Fprintf(&b, "| **all**")
	for _, s := range sides {
		fmt.Fprintf(&b, " | **%.0f**", s.perCall)
	}
	fmt.Fprintf(&b, " |\n")
	return b.String()
}
