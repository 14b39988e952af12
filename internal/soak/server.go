//go:build linux

package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/yonder-rpc/yonder"
)

// serverFlag as the first argument makes this program a server.
const serverFlag = "-as-server"

// stats are what the process of a server takes, after a collection of garbage.
type stats struct {
	Goroutines, Files int
	Memory            int // heap and stacks in use, in bytes
	Running           int // handlers of sleep and wait
}

// serverMain serves until standard input ends.
func serverMain(args []string) error {
	flags := flag.NewFlagSet("server", flag.ContinueOnError)
	address := flags.String("address", "127.0.0.1:0", "")
	files := flags.Uint64("files", 0, "how many may be open; 0: as many as may be")
	var limits yonder.Limits
	flags.DurationVar(&limits.KeepAlive, "keepalive", 0, "")
	flags.DurationVar(&limits.FirstByte, "firstbyte", 0, "")
	flags.IntVar(&limits.MaxCalls, "calls", 0, "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *files > 0 {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: *files, Max: *files}); err != nil {
			return err
		}
	}
	var l net.Listener
	var err error
	for range 100 { // the one before has just been killed
		if l, err = net.Listen("tcp", *address); err == nil || !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		return err
	}
	srv := &yonder.Server{Limits: limits}
	running := make(chan struct{}, 1<<20)
	srv.Add(yonder.Procedure{Name: "echo", Func: func(b []byte) []byte { return b }, Idempotent: true})
	srv.Register("blob", func(n int) []byte { return make([]byte, n) })
	srv.Register("sleep", func(d time.Duration) { // whatever its context says
		running <- struct{}{}
		time.Sleep(d)
		<-running
	})
	var begun atomic.Int64
	srv.Register("begun", begun.Load)
	srv.Register("wait", func(ctx context.Context) error { // for as long as somebody else does
		begun.Add(1)
		running <- struct{}{}
		<-ctx.Done()
		<-running
		return ctx.Err()
	})
	srv.Register("count", func(ctx context.Context, n int) iter.Seq2[int, error] {
		return func(yield func(int, error) bool) {
			for i := range n {
				if !yield(i, nil) {
					return
				}
			}
		}
	})
	srv.Register("held", func() int { // what the memory limit is about, garbage included
		var ms runtime.MemStats
		runtime.ReadMemStats(&ms)
		return int(ms.Sys - ms.HeapReleased)
	})
	srv.Register("stats", func() stats {
		s := ownStats()
		s.Running = len(running)
		return s
	})
	go func() { // ends the process when the one that has started it does
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	fmt.Println(l.Addr())
	return srv.Serve(l)
}

func ownStats() stats {
	runtime.GC()
	debug.FreeOSMemory()
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms)
	s := stats{Goroutines: runtime.NumGoroutine(), Memory: int(ms.HeapInuse + ms.StackInuse)}
	if f, err := os.Open("/proc/self/fd"); err == nil { // it may be that no file can be opened
		names, _ := f.Readdirnames(-1)
		s.Files = len(names)
		f.Close()
	}
	return s
}

// A server is the process of one.
type server struct {
	address string
	cmd     *exec.Cmd
	in      io.Closer
	control *yonder.Client // which is well-behaved
	begun   stats          // before anything has happened
}

// start starts a server, with variables of its environment and arguments.
func start(ctx context.Context, t *trial, env []string, args ...string) (*server, error) {
	return startUnder(ctx, t, nil, env, args...)
}

// startUnder is start by another command, which runs what follows its own arguments.
func startUnder(ctx context.Context, t *trial, under, env []string, args ...string) (*server, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	all := slices.Concat(under, []string{exe, serverFlag}, args)
	cmd := exec.Command(all[0], all[1:]...)
	cmd.Env = append(os.Environ(), env...)
	// What it logs is what it should: connections that have been closed, files that are missing.
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{cmd: cmd, in: in}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err == nil {
		s.address = strings.TrimSpace(line)
		s.control, err = yonder.Dial(ctx, s.address)
	}
	if err == nil {
		s.begun, err = s.stats(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the server has not started: %w", err), s.stop())
	}
	return s, nil
}

func (s *server) stats(ctx context.Context) (stats, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return yonder.Invoke[stats](ctx, s.control, "stats")
}

// quiet waits until the server has no more than it began with, but for workers that wait for calls,
// and little more memory.
func (s *server) quiet(ctx context.Context, t *trial, patience time.Duration) error {
	var now stats
	var failed error
	err := settles("handlers, or goroutines and files, of the server", patience, func() (float64, float64) {
		now, failed = s.stats(ctx)
		if failed != nil {
			return 0, 0
		}
		if now.Running > 0 {
			return float64(now.Running), 0
		}
		return float64(now.Goroutines + now.Files), float64(s.begun.Goroutines + s.begun.Files + maxWorkers)
	})
	if err = cmp.Or(failed, err); err != nil {
		return err
	}
	t.fact("in the end the server has %d goroutines and %d files, %d and %d in the beginning", now.Goroutines, now.Files, s.begun.Goroutines, s.begun.Files)
	return t.atMost("memory that the server has kept", mib(now.Memory-s.begun.Memory), 32, " MiB")
}

// maxWorkers is how many goroutines a server keeps for the next calls, for some seconds.
const maxWorkers = 260

func mib(n int) float64 { return float64(n) / (1 << 20) }

// stop ends the process.
func (s *server) stop() error {
	if s.control != nil {
		s.control.Close()
	}
	s.in.Close()
	t := time.AfterFunc(5*time.Second, func() { s.cmd.Process.Kill() })
	defer t.Stop()
	s.cmd.Wait()
	return nil
}

// kill has the process die at once.
func (s *server) kill() {
	s.cmd.Process.Kill()
	s.cmd.Wait()
	s.in.Close()
	if s.control != nil {
		s.control.Close()
	}
}
