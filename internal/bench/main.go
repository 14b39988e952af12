//go:build linux

// Command bench compares yonder with other ways to call a function of another process:
// the same calls of the same values over loopback TCP, client and server in processes of
// their own. From the root of the repository:
//
//	go run ./internal/bench                  # prints Markdown tables
//	go run ./internal/bench -out docs/bench  # writes them, with plots and the raw figures
//
// Entrants take turns, round by round, so that what disturbs the machine disturbs all of
// them; figures are medians over the rounds, and ratios are medians of the ratios of each
// round. It needs Linux.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == serverFlag {
		if err := serverMain(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "bench server:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

const usageText = `Bench compares yonder with other ways to call a function of another process.

	go run ./internal/bench                     everything; the tables go to standard output
	go run ./internal/bench -out docs/bench     the same, with plots and results.json, into a folder
	go run ./internal/bench -quick              the most important, in under two minutes
	go run ./internal/bench -budget             where the time of a call goes
	go run ./internal/bench -gate               whether yonder is far enough ahead of net/rpc, for CI
	go run ./internal/bench -entrants yonder-bound,grpc -workloads small/256,stream

Entrants:  %s.

Workloads: %s.
The first part of a name stands for all of them that begin with it: small, mixed.

Flags:
`

// quickEntrants and quickWorkloads are what -quick is about, unless others are named.
const (
	quickEntrants  = "yonder-bound,yonder-generic,raw,raw-mux,net/rpc,grpc"
	quickWorkloads = "small/1,small/16,small/256,64KiB/16,stream,mixed/16/alone,mixed/16"
)

// run is the command: it takes its arguments and prints a report to out.
func run(ctx context.Context, args []string, out, progress io.Writer) (err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(progress)
	var (
		folder     = flags.String("out", "", "write README.md, results.json and the plots to this `folder`")
		from       = flags.String("from", "", "measure nothing: make the report of this results.json `file` again")
		quick      = flags.Bool("quick", false, "fewer entrants and workloads, fewer and shorter rounds: under two minutes")
		budgeted   = flags.Bool("budget", false, "profile a call instead: what each part of it takes, beside the raw multiplexer; with -out into budget.md")
		gate       = flags.Bool("gate", false, fmt.Sprintf("exit 1 if yonder-generic is below %.1f times net/rpc at small/256; measures nothing else", gateRatio))
		names      = flags.String("entrants", "", "comma-separated `names` (default all)")
		loads      = flags.String("workloads", "", "comma-separated `names` (default all)")
		rounds     = flags.Int("rounds", 0, "`number` of rounds (default 5; 3 with -quick)")
		duration   = flags.Duration("duration", 0, "`time` measured of an entrant in a round (default 400ms; 200ms with -quick)")
		cpuProfile = flags.String("cpuprofile", "", "write the client's CPU profile to this `file`")
		memProfile = flags.String("memprofile", "", "write the client's allocations to this `file`; GODEBUG=memprofilerate=N says how finely, on both sides")
		serverProf = flags.String("serverprofile", "", "write the servers' profiles to `prefix`-ENTRANT.cpu.prof and .mem.prof")
	)
	sizes := defaultSizes
	flags.IntVar(&sizes.idle, "idle", sizes.idle, "`number` of idle connections")
	flags.IntVar(&sizes.items, "items", sizes.items, "`number` of a stream's items")
	flags.IntVar(&sizes.transfer, "transfer", sizes.transfer, "`bytes` of each result that is transferred beside the small calls of mixed")
	flags.Usage = func() {
		fmt.Fprintf(progress, usageText, strings.Join(namesOf(allEntrants()), ", ")+heavyHint, workloadNames(allWorkloads(sizes)))
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("argument %q is unknown; see -help", flags.Arg(0))
	}
	if sizes.idle < 1 || sizes.items < 1 || sizes.transfer < 1 {
		return errors.New("-idle, -items and -transfer need at least 1")
	}
	if *from != "" {
		r, err := readReport(*from)
		if err != nil {
			return err
		}
		return publish(r, *folder, out)
	}

	cfg := config{rounds: 5, duration: 400 * time.Millisecond, serverProfile: *serverProf, progress: progress}
	if *quick {
		cfg.rounds, cfg.duration = 3, 200*time.Millisecond
		*names, *loads = cmp.Or(*names, quickEntrants), cmp.Or(*loads, quickWorkloads)
	}
	if *gate {
		*names, *loads = cmp.Or(*names, gateEntrant+","+gateReference), gateWorkload
		cfg.duration = time.Second
	}
	cfg.rounds = cmp.Or(*rounds, cfg.rounds)
	cfg.duration = cmp.Or(*duration, cfg.duration)
	cfg.warmup = min(cfg.duration/4, 250*time.Millisecond)
	cfg.entrants = allEntrants()
	if *names != "" {
		if cfg.entrants, err = pickEntrants(cfg.entrants, strings.Split(*names, ",")); err != nil {
			return err
		}
	}
	if cfg.workloads, err = pickWorkloads(allWorkloads(sizes), *loads); err != nil {
		return err
	}

	if *budgeted {
		cfg.duration = cmp.Or(*duration, 2*time.Second)
		return budget(ctx, cfg, *folder, strings.Join(args, " "), out)
	}
	if *cpuProfile != "" {
		f, err := os.Create(*cpuProfile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	if *memProfile != "" {
		defer func() { err = errors.Join(err, writeMemProfile(*memProfile)) }()
	}
	r, err := measureReport(ctx, &cfg, args)
	if err != nil {
		return err
	}
	if err := publish(r, *folder, out); err != nil {
		return err
	}
	if *gate {
		err = checkGate(r, progress)
	}
	return errors.Join(err, r.failed())
}

// measureReport runs the workloads.
func measureReport(ctx context.Context, cfg *config, args []string) (*report, error) {
	overhead, err := harnessOverhead(ctx)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	r := &report{
		Machine:  machine(),
		Kernel:   kernel(),
		Date:     start.UTC().Format("2006-01-02 15:04"),
		Tags:     buildTags,
		Command:  strings.Join(args, " "),
		Rounds:   cfg.rounds,
		Duration: cfg.duration,
		Overhead: overhead,
		Modules:  modules(),
	}
	for _, e := range cfg.entrants {
		r.Entrants = append(r.Entrants, description{Name: e.name, About: e.about, Peer: e.peer, OneProcess: e.serve == nil})
	}
	r.Results, err = measureAll(ctx, cfg)
	r.Took = time.Since(start)
	return r, err
}

// publish writes the report to out or, if there is one, to a folder with all that belongs
// to it.
func publish(r *report, folder string, out io.Writer) error {
	if folder == "" {
		return r.write(out, nil)
	}
	if err := os.MkdirAll(folder, 0o777); err != nil {
		return err
	}
	plots := r.plots()
	var text strings.Builder
	if err := r.write(&text, plots); err != nil {
		return err
	}
	figures, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	files := map[string]string{"README.md": text.String(), "results.json": string(figures) + "\n"}
	for _, p := range plots {
		files[p.file] = p.svg
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o666); err != nil {
			return err
		}
	}
	return nil
}

// readReport reads what publish has written.
func readReport(file string) (*report, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	r := new(report)
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return r, nil
}

// The gate of CI: it catches a real loss of speed, and no noise trips it. It does not
// show that a goal is met; the tables do. Whole runs on a quiet machine give about 4, and
// beside programs that take half of it 2.1.
const (
	gateEntrant   = "yonder-generic"
	gateReference = "net/rpc"
	gateWorkload  = "small/256"
	gateRatio     = 1.5
)

func checkGate(r *report, progress io.Writer) error {
	v, ok := middle(versus(gateWorkload, gateEntrant, gateReference, rate)(r))
	switch {
	case !ok:
		return fmt.Errorf("gate: it needs the entrants %s and %s", gateEntrant, gateReference)
	case v < gateRatio:
		return fmt.Errorf("gate: %s is %.2f times %s at %s, below %.1f", gateEntrant, v, gateReference, gateWorkload, gateRatio)
	}
	fmt.Fprintf(progress, "gate: %s is %.2f times %s at %s, %.1f needed\n", gateEntrant, v, gateReference, gateWorkload, gateRatio)
	return nil
}

// writeMemProfile writes the allocations of this process since it began.
func writeMemProfile(file string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	runtime.GC() // the profile is as of the last collection
	return errors.Join(pprof.Lookup("allocs").WriteTo(f, 0), f.Close())
}
