//go:build linux

// Command bench compares yonder with net/rpc and gRPC: the same calls of the same
// values over loopback TCP, client and server in processes of their own. From the
// root of the repository:
//
//	go run ./internal/bench
//
// prints Markdown tables. Entrants take turns, round by round, so that what
// disturbs the machine disturbs all of them; figures are medians over the rounds,
// and ratios are medians of the ratios of each round. It needs Linux.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/pprof"
	"strconv"
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

// config says what to measure, and how.
type config struct {
	entrants  []entrant
	workloads []workload
	rounds    int
	// duration is measured of each entrant in each round, after warmup.
	duration, warmup time.Duration
	// serverProfile is what the names of the servers' profiles begin with. Empty: no
	// profiles.
	serverProfile string
	progress      io.Writer
}

// run is the command: it takes its arguments and prints a report to out.
func run(ctx context.Context, args []string, out, progress io.Writer) (err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(progress)
	var (
		quick      = flags.Bool("quick", false, "fewer and shorter rounds: well under two minutes")
		rounds     = flags.Int("rounds", 0, "`number` of rounds (default 5; 3 with -quick)")
		duration   = flags.Duration("duration", 0, "`time` measured of an entrant in a round (default 1s; 300ms with -quick)")
		names      = flags.String("entrants", "", "comma-separated `names` (default: all that the mode is for): "+strings.Join(namesOf(allEntrants()), ", "))
		loads      = flags.String("workloads", "", "comma-separated `names`, such as small/256 or all of small (default: all)")
		idle       = flags.Bool("idle", false, "measure idle connections instead; an argument is their number (default 10000)")
		fair       = flags.Bool("fair", false, "measure small calls beside a large message instead")
		fairSize   = flags.Int("fairsize", 1<<30, "with -fair: the large message, in `bytes`")
		gate       = flags.Bool("gate", false, fmt.Sprintf("exit 1 if yonder-generic is below %.1f times net/rpc at small/256; measures nothing else", gateRatio))
		cpuProfile = flags.String("cpuprofile", "", "write the client's CPU profile to this `file`")
		memProfile = flags.String("memprofile", "", "write the client's allocations to this `file`; GODEBUG=memprofilerate=N says how finely, on both sides")
		serverProf = flags.String("serverprofile", "", "write the servers' profiles to `prefix`-ENTRANT.cpu.prof and .mem.prof")
	)
	if err := flags.Parse(args); err != nil {
		return err
	}
	connections := 10_000
	if *idle && flags.NArg() > 0 {
		if connections, err = strconv.Atoi(flags.Arg(0)); err != nil || connections < 1 {
			return fmt.Errorf("%q is not a number of idle connections", flags.Arg(0))
		}
		if err := flags.Parse(flags.Args()[1:]); err != nil {
			return err
		}
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("argument %q is unknown; see -help", flags.Arg(0))
	}

	cfg := config{rounds: 5, duration: time.Second, serverProfile: *serverProf, progress: progress}
	if *quick {
		cfg.rounds, cfg.duration = 3, 300*time.Millisecond
	}
	if *rounds > 0 {
		cfg.rounds = *rounds
	}
	if *duration > 0 {
		cfg.duration = *duration
	}
	cfg.warmup = min(cfg.duration/4, 250*time.Millisecond)
	switch all := allEntrants(); {
	case *names != "":
		cfg.entrants, err = pickEntrants(all, strings.Split(*names, ","))
	case *gate:
		cfg.entrants, err = pickEntrants(all, []string{gateEntrant, gateReference})
	case *idle:
		cfg.entrants, err = pickEntrants(all, []string{"yonder-generic", "net/rpc", "grpc", "raw"})
	case *fair:
		cfg.entrants, err = pickEntrants(all, []string{"yonder-generic", "net/rpc", "grpc"})
	default:
		cfg.entrants = all
	}
	if err != nil {
		return err
	}
	if *gate {
		*loads = gateWorkload
	}
	if cfg.workloads, err = pickWorkloads(allWorkloads(), *loads); err != nil {
		return err
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
	switch {
	case *idle:
		return idleMode(ctx, &cfg, connections, out)
	case *fair:
		return fairMode(ctx, &cfg, *fairSize, out)
	}
	return compareMode(ctx, &cfg, *gate, out)
}

// compareMode runs the workloads and prints a table for each.
func compareMode(ctx context.Context, cfg *config, gate bool, out io.Writer) error {
	overhead, err := harnessOverhead(ctx)
	if err != nil {
		return err
	}
	start := time.Now()
	results, err := measureAll(ctx, cfg)
	if err != nil {
		return err
	}
	report := report{config: cfg, results: results, overhead: overhead, took: time.Since(start)}
	if err := report.write(out); err != nil {
		return err
	}
	if gate {
		return checkGate(results, cfg.progress)
	}
	return nil
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

func checkGate(results []result, progress io.Writer) error {
	for _, r := range results {
		ratio, ok := r.ratio(gateEntrant, gateReference)
		if r.workload.name != gateWorkload || !ok {
			continue
		}
		if ratio < gateRatio {
			return fmt.Errorf("gate: %s is %.2f times %s at %s, below %.1f", gateEntrant, ratio, gateReference, gateWorkload, gateRatio)
		}
		fmt.Fprintf(progress, "gate: %s is %.2f times %s at %s, %.1f needed\n", gateEntrant, ratio, gateReference, gateWorkload, gateRatio)
		return nil
	}
	return fmt.Errorf("gate: it needs the entrants %s and %s", gateEntrant, gateReference)
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
