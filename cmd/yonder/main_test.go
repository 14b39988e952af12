package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/auth"
)

func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"yonder": main}) }

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("GORACE", "atexit_sleep_ms=0") // else each command takes a second more
			return nil
		},
		UpdateScripts: os.Getenv("UPDATE") != "",
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"demo": startDemo, "interrupt": interrupt, "hints": runHints,
			"serve": serve, "entered": entered, "status": status, "fill": fill,
		},
	})
}

type (
	demoKey    string // *demoProcess, by script
	enteredKey string // chan struct{}, by script
)

type demoProcess struct {
	cmd *exec.Cmd
	out *bufio.Reader
	err *bufio.Reader
}

// running holds what scripts have started. Scripts run in parallel, each in a directory
// of its own.
var running sync.Map

// start starts the command itself, which is killed in the end at the latest.
func start(ts *testscript.TestScript, args ...string) *demoProcess {
	exe, err := os.Executable()
	ts.Check(err)
	p := &demoProcess{cmd: exec.Command(exe)}
	p.cmd.Args = append([]string{"yonder"}, args...)
	p.cmd.Dir = ts.MkAbs(".")
	out, err := p.cmd.StdoutPipe()
	ts.Check(err)
	stderr, err := p.cmd.StderrPipe()
	ts.Check(err)
	p.out, p.err = bufio.NewReader(out), bufio.NewReader(stderr)
	ts.Check(p.cmd.Start())
	late := time.AfterFunc(patience, func() { p.cmd.Process.Kill() })
	ts.Defer(func() { late.Stop(); p.cmd.Process.Kill(); p.cmd.Wait() })
	return p
}

// startDemo starts the demo and sets ADDR: demo [--listen addr]
func startDemo(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		args = []string{"--listen", "127.0.0.1:0"}
	}
	p := start(ts, append([]string{"demo"}, args...)...)
	line, err := p.out.ReadString('\n')
	addr, ok := strings.CutPrefix(line, "listening on ")
	if !ok {
		ts.Fatalf("demo said %q, %v", line, err)
	}
	ts.Setenv("ADDR", strings.TrimSpace(addr))
	running.Store(demoKey(ts.Getenv("WORK")), p)
}

// interrupt sends the demo a signal as Ctrl-C does, and checks that it says so and exits
// with status 0. With the name of a call to the demo, it makes the call before and sends
// the signal when the call has printed a line: what that prints in all is in the file
// call.out then. With a ! the call is not waited for: the signal is sent again, and the
// demo must exit by that.
func interrupt(ts *testscript.TestScript, neg bool, args []string) {
	v, _ := running.Load(demoKey(ts.Getenv("WORK")))
	p := v.(*demoProcess)
	var call *demoProcess
	first := ""
	if len(args) > 0 {
		call = start(ts, append([]string{"call", ts.Getenv("ADDR")}, args...)...)
		var err error
		first, err = call.out.ReadString('\n')
		ts.Check(err)
	}
	ts.Check(p.cmd.Process.Signal(os.Interrupt))
	line, err := p.err.ReadString('\n')
	if !strings.HasPrefix(line, "stopping: ") {
		ts.Fatalf("demo said %q, %v", line, err)
	}
	if neg { // until it comes after the process has stopped handling it
		again := time.NewTicker(50 * time.Millisecond)
		defer again.Stop()
		go func() { // ends when the process has
			for range again.C {
				if p.cmd.Process.Signal(os.Interrupt) != nil {
					return
				}
			}
		}()
	}
	rest, err := io.ReadAll(p.err)
	ts.Check(err)
	if err := p.cmd.Wait(); (err != nil) != neg || len(rest) > 0 {
		ts.Fatalf("demo ended with %v\n%s", err, rest)
	}
	if call != nil && !neg {
		rest, err := io.ReadAll(call.out)
		ts.Check(err)
		ts.Check(call.cmd.Wait())
		ts.Check(os.WriteFile(ts.MkAbs("call.out"), append([]byte(first), rest...), 0o666))
	}
}

// runHints runs the commands that the demo has written to demo.out, and writes them with
// what they print to the file hints.
func runHints(ts *testscript.TestScript, neg bool, args []string) {
	v, _ := running.Load(demoKey(ts.Getenv("WORK")))
	p := v.(*demoProcess)
	var transcript strings.Builder
	for {
		line, err := p.out.ReadString('\n')
		ts.Check(err)
		if line == "Ctrl-C stops the server.\n" {
			break
		}
		command, ok := strings.CutPrefix(line, "  ")
		if !ok {
			continue
		}
		cmd := exec.Command("sh", "-c", command)
		cmd.Env = append(os.Environ(), "PATH="+ts.Getenv("PATH"), "GORACE="+ts.Getenv("GORACE"))
		out, err := cmd.CombinedOutput()
		fmt.Fprintf(&transcript, "$ %s%s", command, out)
		if err != nil {
			fmt.Fprintf(&transcript, "(%v)\n", err)
		}
	}
	text := strings.ReplaceAll(transcript.String(), ts.Getenv("ADDR"), "ADDR")
	ts.Check(os.WriteFile(ts.MkAbs("hints"), []byte(text), 0o666))
}

// serve serves functions of every shape, or is another server, and sets ADDR:
// serve [hidden | token | http | closing | silent]
func serve(ts *testscript.TestScript, neg bool, args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Setenv("ADDR", l.Addr().String())
	if len(args) > 0 && strangers[args[0]] != nil {
		ts.Defer(func() { l.Close() })
		go func() { // ends with the listener
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				go strangers[args[0]](conn)
			}
		}()
		return
	}
	ch := make(chan struct{}, 1)
	running.Store(enteredKey(ts.Getenv("WORK")), ch)
	srv := sampleServer(ch)
	srv.Logger = slog.New(slog.DiscardHandler)
	srv.HideProcedures = len(args) > 0 && args[0] == "hidden"
	if len(args) > 0 && args[0] == "token" {
		tokens := auth.NewTokens(map[string]string{"a-token-for-this-script": "script"})
		srv.Interceptors = []yonder.Interceptor{auth.Require(tokens.Identify)}
	}
	go srv.Serve(l)
	ts.Defer(func() { srv.Close() })
}

// entered waits until the procedure sleep is running.
func entered(ts *testscript.TestScript, neg bool, args []string) {
	ch, _ := running.Load(enteredKey(ts.Getenv("WORK")))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	select {
	case <-ch.(chan struct{}):
	case <-ctx.Done():
		ts.Fatalf("nobody called sleep")
	}
}

// status runs a command that must exit with a status: status N COMMAND [ARG...]
func status(ts *testscript.TestScript, neg bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	have := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		have = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(have) != args[0] {
		ts.Fatalf("want exit status %s; have %d", args[0], have)
	}
}

// fill makes a file of zeros: fill NAME BYTES
func fill(ts *testscript.TestScript, neg bool, args []string) {
	size, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	f, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Check(f.Truncate(size))
	ts.Check(f.Close())
}
