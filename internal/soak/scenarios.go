//go:build linux

package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/yonder-rpc/yonder"
)

var scenarios = []scenario{
	{"readers", "Clients that do not read", slowReaders},
	{"writers", "Clients that write a byte now and then", slowWriters},
	{"halfopen", "Peers that vanish without a word", halfOpen},
	{"pause", "A server whose process stands still, as its clock jumps then", pause},
	{"clock", "A server whose clock is a week ahead", clock},
	{"ignore", "A handler that ignores its context", ignores},
	{"drop", "Connections opened and dropped", dropped},
	{"idle", "Idle connections", idle},
	{"oneproc", "A server with one processor", oneProcessor},
	{"files", "A server without files left", noFiles},
	{"memory", "A server with little memory", littleMemory},
	{"kill", "A server killed under load", killed},
}

// caller calls all the time, as well-behaved clients do, until stop, which returns an error if a call
// has failed or taken longer than allowed.
func caller(ctx context.Context, address string, allowed time.Duration, t *trial) (stop func() error, err error) {
	c, err := yonder.Dial(ctx, address)
	if err != nil {
		return nil, err
	}
	var over atomic.Bool
	var failed error
	var slowest time.Duration
	calls := 0
	done := make(chan struct{})
	go func() { // ends with stop
		defer close(done)
		for !over.Load() && failed == nil {
			ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
			begun := time.Now()
			_, failed = yonder.Invoke[[]byte](ctx, c, "echo", []byte("are you there?"))
			slowest = max(slowest, time.Since(begun))
			calls++
			cancel()
			time.Sleep(time.Millisecond)
		}
	}()
	return func() error {
		over.Store(true)
		<-done
		c.Close()
		if failed != nil {
			return fmt.Errorf("a well-behaved client: %w", failed)
		}
		t.fact("a well-behaved client made %d calls meanwhile", calls)
		return t.atMost("its slowest call", slowest.Seconds(), allowed.Seconds(), " s")
	}, nil
}

// stuck is a connection that stops reading after a while.
type stuck struct {
	net.Conn
	left   atomic.Int64
	closed chan struct{}
	once   sync.Once
}

func (s *stuck) Read(b []byte) (int, error) {
	if s.left.Load() <= 0 {
		<-s.closed
		return 0, net.ErrClosed
	}
	n, err := s.Conn.Read(b)
	s.left.Add(-int64(n))
	return n, err
}

func (s *stuck) Close() error {
	s.once.Do(func() { close(s.closed) })
	return s.Conn.Close()
}

// dialStuck returns a connection that reads so many bytes.
func dialStuck(ctx context.Context, address string, after int64) (*stuck, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	s := &stuck{Conn: conn, closed: make(chan struct{})}
	s.left.Store(after)
	return s, nil
}

// slowReaders ask for more than they read.
func slowReaders(ctx context.Context, t *trial) (err error) {
	const size, calls = 256 << 10, 20
	s, err := start(ctx, t, nil, "-keepalive", "1s", "-calls", "20")
	if err != nil {
		return err
	}
	defer s.stop()
	stop, err := caller(ctx, s.address, 5*time.Second, t)
	if err != nil {
		return err
	}
	n := t.some(100, 10)
	var wg sync.WaitGroup
	for range n {
		conn, err := dialStuck(ctx, s.address, t.rand.Int64N(size))
		if err != nil {
			return err
		}
		c := (&yonder.Dialer{Limits: yonder.Limits{KeepAlive: -1}}).NewClient(conn)
		for range calls {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
				defer cancel()
				yonder.Invoke[[]byte](ctx, c, "blob", size)
			})
		}
		defer c.Close()
	}
	t.fact("%d clients asked for %d results of 256 KiB each, and stopped reading within the first", n, calls)
	time.Sleep(time.Second)
	now, err := s.stats(ctx)
	if err != nil {
		return err
	}
	// What results are encoded to is kept until it is written, and calls are limited: that is the
	// bound.
	if err := t.atMost("memory of the server", mib(now.Memory), float64(n*calls)*size/(1<<20)*1.2+32, " MiB"); err != nil {
		return err
	}
	wg.Wait()
	return errors.Join(s.quiet(ctx, t, 15*time.Second), stop())
}

// trickle is a connection that writes a byte at a time.
type trickle struct {
	net.Conn
	pause time.Duration
}

func (w *trickle) Write(b []byte) (int, error) {
	for i := range b {
		if _, err := w.Conn.Write(b[i : i+1]); err != nil {
			return i, err
		}
		time.Sleep(w.pause)
	}
	return len(b), nil
}

// slowWriters hold connections with next to nothing.
func slowWriters(ctx context.Context, t *trial) error {
	s, err := start(ctx, t, nil, "-keepalive", "1s", "-firstbyte", "1s")
	if err != nil {
		return err
	}
	defer s.stop()
	stop, err := caller(ctx, s.address, 5*time.Second, t)
	if err != nil {
		return err
	}
	n := t.some(500, 50)
	var wg sync.WaitGroup
	var thrown, answered atomic.Int32
	begun := time.Now()
	for i := range n {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.address)
		if err != nil {
			return err
		}
		if i%2 == 0 { // its preface takes longer than it may
			wg.Go(func() {
				defer conn.Close()
				conn.SetReadDeadline(time.Now().Add(10 * time.Second))
				go (&trickle{conn, 400 * time.Millisecond}).Write([]byte{0xd9, 'y', 'o', 'n', 'd', 'e', 'r', 1})
				if _, err := io.Copy(io.Discard, conn); !errors.Is(err, os.ErrDeadlineExceeded) {
					thrown.Add(1)
				}
			})
			continue
		}
		// What makes progress is served.
		wg.Go(func() {
			c := new(yonder.Dialer).NewClient(&trickle{conn, time.Millisecond})
			defer c.Close()
			ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
			defer cancel()
			if b, err := yonder.Invoke[[]byte](ctx, c, "echo", make([]byte, 100)); err == nil && len(b) == 100 {
				answered.Add(1)
			}
		})
	}
	wg.Wait()
	took := time.Since(begun)
	t.fact("%d connections sent their preface in more time than they have, of which %d were closed; %d sent a call byte by byte, of which %d were answered", n/2+n%2, thrown.Load(), n/2, answered.Load())
	if int(thrown.Load()) != n/2+n%2 {
		return fmt.Errorf("%d of %d slow connections were closed", thrown.Load(), n/2+n%2)
	}
	// With time to begin in that is short, some of those that are slow may not make it.
	if int(answered.Load()) < n/4 {
		return fmt.Errorf("%d of %d slow calls were answered", answered.Load(), n/2)
	}
	return errors.Join(t.atMost("it took", took.Seconds(), 30, " s"), s.quiet(ctx, t, 15*time.Second), stop())
}

// proxy forwards connections until it is told to lose everything.
type proxy struct {
	l     net.Listener
	to    string
	black atomic.Bool
	mu    sync.Mutex
	conns []net.Conn
}

func newProxy(to string) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{l: l, to: to}
	go func() { // ends with the listener
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to)
			if err != nil {
				near.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, near, far)
			p.mu.Unlock()
			go p.copy(far, near) // ends with the connections
			go p.copy(near, far)
		}
	}()
	return p, nil
}

func (p *proxy) copy(to, from net.Conn) {
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if p.black.Load() {
			return // and nobody hears of it
		}
		if err != nil {
			to.Close()
			return
		}
		if _, err := to.Write(b[:n]); err != nil {
			from.Close()
			return
		}
	}
}

func (p *proxy) close() {
	p.l.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
}

// halfOpen has both ends believe for a while that the other is there.
func halfOpen(ctx context.Context, t *trial) error {
	s, err := start(ctx, t, nil, "-keepalive", "1s")
	if err != nil {
		return err
	}
	defer s.stop()
	p, err := newProxy(s.address)
	if err != nil {
		return err
	}
	defer p.close()
	n := t.some(200, 20)
	d := yonder.Dialer{Limits: yonder.Limits{KeepAlive: time.Second}}
	var clients []*yonder.Client
	for range n {
		c, err := d.Dial(ctx, p.l.Addr().String())
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err := yonder.Invoke[[]byte](ctx, c, "echo", []byte("x")); err != nil {
			return err
		}
		clients = append(clients, c)
	}
	stop, err := caller(ctx, s.address, 5*time.Second, t)
	if err != nil {
		return err
	}
	p.black.Store(true)
	begun := time.Now()
	errs := make(chan error, n)
	for _, c := range clients {
		go func() {
			ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
			defer cancel()
			_, err := yonder.Invoke[[]byte](ctx, c, "echo", []byte("x"))
			errs <- err
		}()
	}
	for range n {
		if err := <-errs; yonder.CodeOf(err) != yonder.Unavailable || !errors.Is(err, yonder.ErrConnectionLost) {
			return fmt.Errorf("a call to nowhere: %v", err)
		}
	}
	t.fact("%d connections were forwarded nowhere; a call on each ended with Unavailable", n)
	if err := t.atMost("the last of them after", time.Since(begun).Seconds(), 6, " s, with a keepalive of 1 s"); err != nil {
		return err
	}
	if err := s.quiet(ctx, t, 15*time.Second); err != nil { // the other side has noticed, too
		return err
	}
	p.black.Store(false)
	for _, c := range clients {
		if _, err := yonder.Invoke[[]byte](ctx, c, "echo", []byte("x")); err != nil {
			return fmt.Errorf("afterwards: %w", err)
		}
	}
	return stop()
}

// pause stops the server's process: to it, clocks jump.
func pause(ctx context.Context, t *trial) error {
	s, err := start(ctx, t, nil)
	if err != nil {
		return err
	}
	defer s.stop()
	c, err := yonder.Dial(ctx, s.address)
	if err != nil {
		return err
	}
	defer c.Close()
	const deadline = 500 * time.Millisecond
	var late time.Duration
	ended := make(map[yonder.Code]int)
	rounds := t.some(8, 2)
	for range rounds {
		s.cmd.Process.Signal(syscall.SIGSTOP)
		var wg sync.WaitGroup
		var mu sync.Mutex
		for range 100 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(ctx, deadline)
				defer cancel()
				begun := time.Now()
				err := c.Call(ctx, yonder.NewCall("wait"))
				mu.Lock()
				defer mu.Unlock()
				late = max(late, time.Since(begun)-deadline)
				ended[yonder.CodeOf(err)]++
			})
		}
		wg.Wait()
		time.Sleep(time.Duration(t.rand.IntN(2000)) * time.Millisecond)
		s.cmd.Process.Signal(syscall.SIGCONT)
		begun := time.Now()
		if _, err := yonder.Invoke[[]byte](ctx, c, "echo", []byte("x")); err != nil {
			return fmt.Errorf("after the pause: %w", err)
		}
		if took := time.Since(begun); took > 5*time.Second {
			return fmt.Errorf("after the pause, a call took %v", took)
		}
	}
	t.fact("calls made while the server stood still ended: %v", ended)
	if len(ended) != 1 || ended[yonder.DeadlineExceeded] == 0 {
		return fmt.Errorf("calls ended with %v, want their deadlines", ended)
	}
	// A call says how much time it has left, and its caller's leaving is the next thing that the
	// server reads: a handler that begins in between hears of it at once.
	begun, err := yonder.Invoke[int64](ctx, s.control, "begun")
	if err != nil {
		return err
	}
	t.fact("of %d handlers, %d began afterwards, until the server had read that their callers had left", 100*rounds, begun)
	var now stats
	err = errors.Join(settles("handlers that run for nobody", 2*time.Second, func() (float64, float64) {
		now, err = s.stats(ctx)
		return float64(now.Running), 0
	}), err)
	return errors.Join(err,
		t.atMost("the latest to return after its deadline", late.Seconds(), 1, " s"),
		t.atMost("handlers that still run", float64(now.Running), 0, ""),
		s.quiet(ctx, t, 15*time.Second))
}

// clock has a server in a time namespace, whose monotonic clock is not the clients': a deadline
// crosses as what is left of it. The wall clock is the machine's, and everybody's, so it is left
// alone: that nothing is timed by it, TestWallClock says.
func clock(ctx context.Context, t *trial) error {
	under := []string{"unshare", "--time", "--fork", "--kill-child", "--monotonic", "604800", "--boottime", "604800"}
	if text, err := exec.CommandContext(ctx, under[0], append(under[1:], "true")...).CombinedOutput(); err != nil {
		t.fact("skipped: here no process can have a clock of its own: %v %s", err, bytes.TrimSpace(text))
		return nil
	}
	s, err := startUnder(ctx, t, under, nil)
	if err != nil {
		return err
	}
	defer s.stop()
	c, err := yonder.Dial(ctx, s.address)
	if err != nil {
		return err
	}
	defer c.Close()
	const deadline = 300 * time.Millisecond
	var wg sync.WaitGroup
	var mu sync.Mutex
	ended := make(map[yonder.Code]int)
	var late time.Duration
	n := t.some(1000, 100)
	for i := range n {
		procedure, left := "wait", deadline
		if i%2 == 0 {
			procedure, left = "echo", 20*time.Second
		}
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, left)
			defer cancel()
			begun := time.Now()
			call := yonder.NewCall(procedure)
			if procedure == "echo" {
				call = yonder.NewCall(procedure, []byte("x")).Into(new([]byte))
			}
			err := c.Call(ctx, call)
			mu.Lock()
			defer mu.Unlock()
			if ended[yonder.CodeOf(err)]++; procedure == "wait" {
				late = max(late, time.Since(begun)-left)
			}
		})
	}
	wg.Wait()
	t.fact("calls ended: %v", ended)
	if ended[0] != n/2 || ended[yonder.DeadlineExceeded] != n/2 {
		return fmt.Errorf("calls ended with %v, want half of %d with their deadlines", ended, n)
	}
	return errors.Join(
		t.atMost("the latest to return after its deadline", late.Seconds(), 2, " s"),
		s.quiet(ctx, t, 15*time.Second))
}

// ignores has callers leave whose handlers do not.
func ignores(ctx context.Context, t *trial) error {
	const slots = 100
	s, err := start(ctx, t, nil, "-calls", fmt.Sprint(slots))
	if err != nil {
		return err
	}
	defer s.stop()
	stop, err := caller(ctx, s.address, 5*time.Second, t)
	if err != nil {
		return err
	}
	c, err := yonder.Dial(ctx, s.address)
	if err != nil {
		return err
	}
	defer c.Close()
	const deadline = 100 * time.Millisecond
	var wg sync.WaitGroup
	var mu sync.Mutex
	var late time.Duration
	n := t.some(5000, 500)
	for range n {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, deadline)
			defer cancel()
			begun := time.Now()
			c.Call(ctx, yonder.NewCall("sleep", 3*time.Second))
			mu.Lock()
			defer mu.Unlock()
			late = max(late, time.Since(begun)-deadline)
		})
	}
	wg.Wait()
	now, err := s.stats(ctx)
	if err != nil {
		return err
	}
	t.fact("%d calls with a deadline of %v of a handler that sleeps for 3 s", n, deadline)
	return errors.Join(
		t.atMost("the latest to return after its deadline", late.Seconds(), 2, " s"),
		t.atMost("handlers running then, of a connection that may have 100 calls", float64(now.Running), slots, ""),
		s.quiet(ctx, t, 15*time.Second), stop())
}

// dropped opens connections and leaves them in all kinds of ways.
func dropped(ctx context.Context, t *trial) error {
	s, err := start(ctx, t, nil, "-firstbyte", "2s")
	if err != nil {
		return err
	}
	defer s.stop()
	stop, err := caller(ctx, s.address, 5*time.Second, t)
	if err != nil {
		return err
	}
	n := t.some(10_000, 500)
	ways := make([]int, n)
	for i := range ways {
		ways[i] = t.rand.IntN(5)
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make(chan error, 64)
	for range 64 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := dropOne(ctx, s.address, ways[i]); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		return err
	default:
	}
	now, err := s.stats(ctx)
	if err != nil {
		return err
	}
	t.fact("%d connections were opened and dropped: at once, reset, within the preface, in a call, after one", n)
	return errors.Join(t.atMost("memory of the server", mib(now.Memory), 64, " MiB"), s.quiet(ctx, t, 20*time.Second), stop())
}

func dropOne(ctx context.Context, address string, way int) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.(*net.TCPConn).SetLinger(0) // a reset; or else ports run out
	switch way {
	case 0:
	case 1:
		conn.Write([]byte("GET / HTTP/1.1\r\n"))
	case 2:
		conn.Write([]byte{0xd9, 'y'})
	case 3, 4:
		c := new(yonder.Dialer).NewClient(conn)
		defer c.Close()
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		if way == 3 {
			return c.Notify(ctx, "sleep", 10*time.Millisecond)
		}
		_, err := yonder.Invoke[[]byte](ctx, c, "echo", []byte("x"))
		return err
	}
	return nil
}

// idle leaves connections alone.
func idle(ctx context.Context, t *trial) error {
	s, err := start(ctx, t, nil)
	if err != nil {
		return err
	}
	defer s.stop()
	stop, err := caller(ctx, s.address, 5*time.Second, t)
	if err != nil {
		return err
	}
	n := t.some(10_000, 500)
	clients := make([]*yonder.Client, n)
	defer func() {
		for _, c := range clients {
			if c != nil {
				c.Close()
			}
		}
	}()
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make(chan error, 32)
	for range 32 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				c, err := yonder.Dial(ctx, s.address)
				if err == nil {
					clients[i] = c
					_, err = yonder.Invoke[[]byte](ctx, c, "echo", []byte("x"))
				}
				if err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		return err
	default:
	}
	time.Sleep(time.Duration(t.some(5000, 500)) * time.Millisecond)
	now, err := s.stats(ctx)
	if err != nil {
		return err
	}
	t.fact("%d connections did nothing", n)
	if err := errors.Join(
		t.atMost("memory of the server for each", float64(now.Memory-s.begun.Memory)/float64(n)/1024, float64(t.some(16, 64)), " KiB"),
		t.atMost("goroutines of the server for each", float64(now.Goroutines-s.begun.Goroutines-maxWorkers)/float64(n), 1.01, "")); err != nil {
		return err
	}
	for _, i := range t.rand.Perm(n)[:100] {
		if _, err := yonder.Invoke[[]byte](ctx, clients[i], "echo", []byte("x")); err != nil {
			return fmt.Errorf("one of them, afterwards: %w", err)
		}
	}
	for i, c := range clients {
		c.Close()
		clients[i] = nil
	}
	return errors.Join(s.quiet(ctx, t, 20*time.Second), stop())
}

// mixture makes calls of all kinds for a while, and returns how many.
func mixture(ctx context.Context, t *trial, address string, connections, callers, size int, d time.Duration) (int64, error) {
	var calls atomic.Int64
	var wg sync.WaitGroup
	errs := make(chan error, connections*callers)
	until := time.Now().Add(d)
	for range connections {
		c, err := yonder.Dial(ctx, address)
		if err != nil {
			return 0, err
		}
		defer c.Close()
		var count func(context.Context, int) (yonder.Stream[int], error)
		c.Bind("count", &count)
		for i := range callers {
			kind := t.rand.IntN(3)
			wg.Go(func() {
				payload := make([]byte, size)
				for time.Now().Before(until) {
					ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
					var err error
					switch (kind + i) % 3 {
					case 0:
						_, err = yonder.Invoke[[]byte](ctx, c, "echo", payload[:min(64, size)])
					case 1:
						var b []byte
						if b, err = yonder.Invoke[[]byte](ctx, c, "echo", payload); err == nil && len(b) != size {
							err = fmt.Errorf("%d bytes came back, want %d", len(b), size)
						}
					case 2:
						var numbers yonder.Stream[int]
						n := 0
						if numbers, err = count(ctx, 1000); err == nil {
							for k, e := range numbers {
								if err = e; err != nil || k != n {
									break
								}
								n++
							}
							if err == nil && n != 1000 {
								err = fmt.Errorf("%d items, want 1000", n)
							}
						}
					}
					cancel()
					if err != nil {
						errs <- err
						return
					}
					calls.Add(1)
				}
			})
		}
	}
	wg.Wait()
	select {
	case err := <-errs:
		return calls.Load(), err
	default:
		return calls.Load(), nil
	}
}

// oneProcessor has everything take turns.
func oneProcessor(ctx context.Context, t *trial) error {
	s, err := start(ctx, t, []string{"GOMAXPROCS=1"})
	if err != nil {
		return err
	}
	defer s.stop()
	stop, err := caller(ctx, s.address, 5*time.Second, t)
	if err != nil {
		return err
	}
	n, err := mixture(ctx, t, s.address, 10, 20, 256<<10, time.Duration(t.some(10_000, 1000))*time.Millisecond)
	t.fact("200 callers on 10 connections made %d calls of all kinds", n)
	if err != nil {
		return err
	}
	return errors.Join(s.quiet(ctx, t, 15*time.Second), stop())
}

// noFiles has a server that cannot accept.
func noFiles(ctx context.Context, t *trial) error {
	const files = 64
	s, err := start(ctx, t, nil, "-files", fmt.Sprint(files))
	if err != nil {
		return err
	}
	defer s.stop()
	stop, err := caller(ctx, s.address, 5*time.Second, t)
	if err != nil {
		return err
	}
	for range t.some(5, 1) {
		var conns []net.Conn
		for range 3 * files {
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.address)
			if err != nil {
				return err
			}
			conns = append(conns, conn)
		}
		time.Sleep(500 * time.Millisecond)
		for _, conn := range conns {
			conn.Close()
		}
		begun := time.Now()
		c, err := yonder.Dial(ctx, s.address)
		if err == nil {
			_, err = yonder.Invoke[[]byte](ctx, c, "echo", []byte("x"))
			c.Close()
		}
		if err != nil {
			return fmt.Errorf("a new connection afterwards: %w", err)
		}
		if err := t.atMost("the first new connection was answered after", time.Since(begun).Seconds(), 5, " s"); err != nil {
			return err
		}
	}
	t.fact("with %d files, %d connections came at a time; those that were there were served", files, 3*files)
	return errors.Join(s.quiet(ctx, t, 15*time.Second), stop())
}

// littleMemory asks for much of it.
func littleMemory(ctx context.Context, t *trial) error {
	const limit = 64 << 20
	s, err := start(ctx, t, []string{fmt.Sprintf("GOMEMLIMIT=%d", limit)}, "-calls", "4")
	if err != nil {
		return err
	}
	defer s.stop()
	stop, err := caller(ctx, s.address, 10*time.Second, t)
	if err != nil {
		return err
	}
	var most int
	watched := make(chan error)
	over := make(chan struct{})
	go func() { // ends when over is closed
		for {
			select {
			case <-over:
				watched <- nil
				return
			case <-time.After(20 * time.Millisecond):
			}
			now, err := yonder.Invoke[int](ctx, s.control, "held")
			if err != nil {
				watched <- err
				return
			}
			most = max(most, now)
		}
	}()
	n, err := mixture(ctx, t, s.address, 8, 16, 1<<20, time.Duration(t.some(10_000, 1500))*time.Millisecond)
	close(over)
	if err := cmp.Or(err, <-watched); err != nil {
		return err
	}
	t.fact("128 callers on 8 connections, which may have 4 calls each at a time, made %d calls of up to 1 MiB each way, with GOMEMLIMIT=64MiB", n)
	return errors.Join(
		t.atMost("the most that the server held, garbage included", mib(most), 128, " MiB"),
		s.quiet(ctx, t, 15*time.Second), stop())
}

// killed has servers die, again and again.
func killed(ctx context.Context, t *trial) error {
	s, err := start(ctx, t, nil)
	if err != nil {
		return err
	}
	defer func() { s.kill() }()
	address := s.address
	const deadline, callers = 2 * time.Second, 64
	var clients []*yonder.Client
	for range 4 {
		c, err := yonder.Dial(ctx, address)
		if err != nil {
			return err
		}
		defer c.Close()
		clients = append(clients, c)
	}
	var mu sync.Mutex // guards what follows
	ended := make(map[yonder.Code]int)
	var late time.Duration
	var wrong error
	var good atomic.Int64
	var over atomic.Bool
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for k := 0; !over.Load(); k++ {
				callCtx, cancel := context.WithTimeout(ctx, deadline)
				begun := time.Now()
				sent := fmt.Sprint(i, " ", k)
				got, err := yonder.Invoke[[]byte](callCtx, clients[i%len(clients)], "echo", []byte(sent))
				took := time.Since(begun)
				cancel()
				mu.Lock()
				ended[yonder.CodeOf(err)]++
				late = max(late, took-deadline)
				if err == nil && string(got) != sent {
					wrong = fmt.Errorf("%q came back for %q", got, sent)
				}
				mu.Unlock()
				if err == nil {
					good.Add(1)
				} else {
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	kills := t.some(20, 3)
	var slowest time.Duration
	for range kills {
		time.Sleep(time.Duration(100+t.rand.IntN(400)) * time.Millisecond)
		s.kill()
		time.Sleep(time.Duration(t.rand.IntN(800)) * time.Millisecond)
		next, err := start(ctx, t, nil, "-address", address)
		if err != nil {
			over.Store(true)
			wg.Wait()
			return err
		}
		s = next
		begun, before := time.Now(), good.Load()
		for good.Load() < before+callers && time.Since(begun) < 10*time.Second {
			time.Sleep(5 * time.Millisecond)
		}
		slowest = max(slowest, time.Since(begun))
	}
	over.Store(true)
	wg.Wait()
	t.fact("the server was killed and started again %d times, with %d callers; calls ended: %v", kills, callers, ended)
	var others []yonder.Code
	for code := range ended {
		if !slices.Contains([]yonder.Code{0, yonder.Unavailable, yonder.DeadlineExceeded}, code) {
			others = append(others, code)
		}
	}
	if len(others) > 0 {
		return fmt.Errorf("calls ended with %v", others)
	}
	return errors.Join(wrong,
		t.atMost("the latest call to end after its deadline", late.Seconds(), 1, " s"),
		t.atMost("clients were served again, once the server was back, after", slowest.Seconds(), 5, " s"))
}
