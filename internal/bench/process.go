//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"
)

// serverFlag as the first argument makes this program a server: it is followed by an
// entrant's name, the number of procedures and, if there are to be profiles, what their
// names begin with.
const serverFlag = "-as-server"

// The requests that a server answers on its standard input and output, each with a
// line of JSON.
const (
	askCollect = "collect" // null, after collecting garbage
	askUsage   = "usage"   // a usage
	askMemory  = "memory"  // a memory, after returning all that is free
	askPin     = "pin"     // null, on one CPU from now on
	askUnpin   = "unpin"   // null, on all CPUs again
)

// serverMain serves until its standard input ends, as it does when the client's
// process does, however it ends.
func serverMain(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("%s needs an entrant and a number of procedures", serverFlag)
	}
	procedures, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	picked, err := pickEntrants(allEntrants(), args[:1])
	if err != nil {
		return err
	}
	e := picked[0]
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() { failed <- e.serve(l, procedures) }() // ends with the process
	if len(args) > 2 {
		prefix := args[2] + "-" + strings.ReplaceAll(e.name, "/", "")
		f, err := os.Create(prefix + ".cpu.prof")
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer writeMemProfile(prefix + ".mem.prof")
		defer pprof.StopCPUProfile()
	}
	fmt.Println(l.Addr())
	done := make(chan error, 1)
	go func() { done <- answer(os.Stdin, os.Stdout) }() // ends with standard input
	select {
	case err := <-failed:
		return err
	case err := <-done:
		return err
	}
}

// answer answers requests until there are no more.
func answer(in io.Reader, out io.Writer) error {
	requests := bufio.NewScanner(in)
	answers := json.NewEncoder(out)
	for requests.Scan() {
		var a any
		switch requests.Text() {
		case askCollect:
			runtime.GC()
			resetPeak()
		case askUsage:
			a = ownUsage()
		case askMemory:
			a = ownMemory()
		case askPin:
			if err := pin(); err != nil {
				return err
			}
		case askUnpin:
			if err := unpin(); err != nil {
				return err
			}
		default:
			return fmt.Errorf("unknown request %q", requests.Text())
		}
		if err := answers.Encode(a); err != nil {
			return err
		}
	}
	return requests.Err()
}

// A server is the process of an entrant's server.
type server struct {
	addr    string
	cmd     *exec.Cmd
	in      io.Closer
	ask     io.Writer
	answers *bufio.Reader
}

// startServer starts this program as a server of e. The server of an entrant without
// one has no process.
func startServer(e *entrant, procedures int, cfg *config) (*server, error) {
	if e.serve == nil {
		return new(server), nil
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(exe, serverFlag, e.name, strconv.Itoa(procedures))
	if cfg.serverProfile != "" {
		cmd.Args = append(cmd.Args, cfg.serverProfile)
	}
	cmd.Stderr = cfg.progress
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
	s := &server{cmd: cmd, in: in, ask: in, answers: bufio.NewReader(out)}
	line, err := s.answers.ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the server of %s has not started: %w", e.name, err), s.stop())
	}
	s.addr = strings.TrimSpace(line)
	if err := awaitAnswer(e, target{addr: s.addr}); err != nil {
		return nil, errors.Join(fmt.Errorf("the server of %s does not answer: %w", e.name, err), s.stop())
	}
	return s, nil
}

// awaitAnswer calls a server until it answers: not all of them do as soon as they have an
// address.
func awaitAnswer(e *entrant, t target) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for {
		c, err := e.dial(ctx, t)
		if err == nil {
			err = errors.Join(c.small(ctx), c.close())
		}
		if err == nil || ctx.Err() != nil {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// request has the server answer.
func (s *server) request(what string, into any) error {
	if _, err := fmt.Fprintln(s.ask, what); err != nil {
		return err
	}
	line, err := s.answers.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("the server has ended: %w", err)
	}
	return json.Unmarshal(line, into)
}

// do has the server do something, if it has a process.
func (s *server) do(what string) error {
	if s.cmd == nil {
		return nil
	}
	return s.request(what, new(any))
}

// collect has the server collect garbage.
func (s *server) collect() error { return s.do(askCollect) }

// pin has the server run on the same CPU as this process when that is pinned.
func (s *server) pin() error { return s.do(askPin) }

// unpin undoes pin.
func (s *server) unpin() error { return s.do(askUnpin) }

// usage returns what the server has used; nothing if it has no process.
func (s *server) usage() (u usage, err error) {
	if s.cmd != nil {
		err = s.request(askUsage, &u)
	}
	return u, err
}

// memory returns what the server occupies.
func (s *server) memory() (m memory, err error) {
	if s.cmd != nil {
		err = s.request(askMemory, &m)
	}
	return m, err
}

// stop ends the process and waits for it.
func (s *server) stop() error {
	if s.cmd == nil {
		return nil
	}
	s.in.Close()
	t := time.AfterFunc(10*time.Second, func() { s.cmd.Process.Kill() })
	defer t.Stop()
	return s.cmd.Wait()
}

// release collects garbage, what pools hold included, and returns what is free to the
// system.
func release() {
	runtime.GC() // the victims of pools go with the second
	runtime.GC()
	debug.FreeOSMemory()
}
