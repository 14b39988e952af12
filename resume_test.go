package yonder_test

import (
	"context"
	crand "crypto/rand"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"math"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/internal/wire"
)

var (
	cuts     = flag.Int("cuts", 2000, "how many connections TestResume loses")
	cutsSeed = flag.Uint64("seed", 0, "what TestResume draws from; 0: another one each time")
)

// lossy is a proxy that loses connections: cuts, stalls, half-closes and truncates them, at random
// positions.
type lossy struct {
	listener net.Listener
	to       string
	calm     atomic.Bool // nothing is lost any more
	lost     atomic.Int64
	kinds    [4]atomic.Int64

	mu   sync.Mutex
	rand *rand.Rand
	wg   sync.WaitGroup
	open map[net.Conn]bool
}

// resumable has a server keep lost connections.
func resumable(window time.Duration) *yonder.Resumption {
	return &yonder.Resumption{Window: window, Secret: crand.Text}
}

// A Resumption without a secret, or with one that can be guessed, is an error of Serve.
func TestResumptionSecret(t *testing.T) {
	for name, secret := range map[string]func() string{"needs a Secret": nil, "returns 3 bytes": func() string { return "abc" }} {
		srv := yonder.Server{Resume: &yonder.Resumption{Secret: secret}}
		near, far := net.Pipe()
		defer far.Close()
		if err := srv.ServeConn(near); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if err := srv.Serve(l); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func newLossy(t *testing.T, to string, seed uint64) *lossy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &lossy{listener: l, to: to, rand: rand.New(rand.NewPCG(seed, 1)), open: make(map[net.Conn]bool)}
	p.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.serve(conn.(*net.TCPConn)) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.mu.Lock()
		for c := range p.open {
			c.Close()
		}
		p.mu.Unlock()
		p.wg.Wait()
	})
	return p
}

// budget draws after how many bytes something happens: as likely few as many.
func (p *lossy) budget() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rand.IntN(16) == 0 {
		return p.rand.IntN(128) // in the middle of resuming
	}
	return int(math.Exp2(7 + 10*p.rand.Float64())) // to 128 KiB
}

func (p *lossy) n(n int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rand.IntN(n)
}

func (p *lossy) serve(near *net.TCPConn) {
	conn, err := net.Dial("tcp", p.to)
	if err != nil {
		near.Close()
		return
	}
	far := conn.(*net.TCPConn)
	p.mu.Lock()
	p.open[near], p.open[far] = true, true
	p.mu.Unlock()
	defer func() {
		near.Close()
		far.Close()
		p.mu.Lock()
		delete(p.open, near)
		delete(p.open, far)
		p.mu.Unlock()
	}()
	var once sync.Once
	over := make(chan struct{})
	lose := func(kind int) {
		once.Do(func() {
			p.lost.Add(1)
			p.kinds[kind].Add(1)
			close(over)
		})
		near.Close()
		far.Close()
	}
	pipe := func(to, from *net.TCPConn) {
		left, kind := p.budget(), p.n(4)
		buf := make([]byte, 32<<10)
		for {
			n, err := from.Read(buf)
			if p.calm.Load() {
				left = math.MaxInt
			}
			if n > left {
				switch kind {
				case 0: // cut, without warning
					from.SetLinger(0)
					to.SetLinger(0)
				case 1: // truncate: in order, but in the middle
					to.Write(buf[:left])
				case 2: // half-close: one direction ends, and the other goes on a little
					to.Write(buf[:left])
					to.CloseWrite()
					wait(over, time.Duration(p.n(3000))*time.Microsecond)
				case 3: // stall: nothing arrives, and nobody is told, or a little later
					to.Write(buf[:left])
					wait(over, time.Duration(p.n(60))*time.Millisecond)
				}
				lose(kind)
				return
			}
			left -= n
			if _, e := to.Write(buf[:n]); e != nil || err != nil {
				to.CloseWrite()
				return
			}
		}
	}
	var both sync.WaitGroup
	both.Go(func() { pipe(far, near) })
	pipe(near, far)
	both.Wait()
}

func wait(over <-chan struct{}, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-over:
	case <-t.C:
	}
}

// ledger counts how often each call has run.
type ledger struct {
	mu   sync.Mutex
	runs map[int64]int
}

func (l *ledger) run(id int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.runs[id]++
}

// pattern returns n bytes that follow from id.
func pattern(id int64, n int) []byte {
	b := make([]byte, n)
	x := uint64(id)*0x9e3779b97f4a7c15 + 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	return b
}

// Calls, streams both ways, readers and callbacks go on over connections that are lost again and
// again: each returns once, with the right value, and has run once.
func TestResume(t *testing.T) {
	noLeak(t)
	seed := *cutsSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-seed %d", seed)
	done := ledger{runs: make(map[int64]int)}
	srv := &yonder.Server{Logger: logger(t), Resume: resumable(time.Minute), Limits: yonder.Limits{KeepAlive: 40 * time.Millisecond}}
	srv.Register("echo", func(ctx context.Context, id int64, b []byte) (int64, []byte, error) {
		done.run(id)
		return id, b, nil
	})
	srv.Register("count", func(ctx context.Context, id int64, n int) iter.Seq2[int, error] {
		done.run(id)
		return func(yield func(int, error) bool) {
			for i := range n {
				if !yield(i, nil) {
					return
				}
			}
		}
	})
	srv.Register("sum", func(ctx context.Context, id int64, list iter.Seq2[int, error]) (sum int, err error) {
		done.run(id)
		for v, err := range list {
			if err != nil {
				return 0, err
			}
			sum += v
		}
		return sum, nil
	})
	srv.Register("hash", func(ctx context.Context, id int64, r io.Reader) ([]byte, error) {
		done.run(id)
		h := sha256.New()
		_, err := io.Copy(h, r)
		return h.Sum(nil), err
	})
	srv.Register("twice", func(ctx context.Context, id int64, f func(context.Context, int) (int, error)) (int, error) {
		done.run(id)
		a, err := f(ctx, 1)
		if err != nil {
			return 0, err
		}
		b, err := f(ctx, a)
		return b, err
	})
	l := listenOn(t, "127.0.0.1:0")
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	defer func() { srv.Close(); <-served }()
	p := newLossy(t, l.Addr().String(), seed)
	d := yonder.Dialer{Resume: time.Minute, Logger: logger(t), Limits: yonder.Limits{KeepAlive: 40 * time.Millisecond}, DialTimeout: time.Second}
	const clients, callers = 12, 4
	var next atomic.Int64
	var total [5]atomic.Int64
	var wg sync.WaitGroup
	for k := range clients {
		var c *yonder.Client
		for {
			var err error
			if c, err = d.Dial(t.Context(), p.listener.Addr().String()); err == nil {
				// Before HELLO has come there is nothing to resume.
				var echo func(context.Context, int64, []byte) (int64, []byte, error)
				c.Bind("echo", &echo)
				if _, _, err = echo(t.Context(), 0, nil); err == nil {
					break
				}
				c.Close()
			}
		}
		defer c.Close()
		var echo func(context.Context, int64, []byte) (int64, []byte, error)
		var count func(context.Context, int64, int) (iter.Seq2[int, error], error)
		var sum func(context.Context, int64, iter.Seq2[int, error]) (int, error)
		var hash func(context.Context, int64, io.Reader) ([]byte, error)
		var twice func(context.Context, int64, func(context.Context, int) (int, error)) (int, error)
		c.Bind("echo", &echo)
		c.Bind("count", &count)
		c.Bind("sum", &sum)
		c.Bind("hash", &hash)
		c.Bind("twice", &twice)
		for j := range callers {
			rnd := rand.New(rand.NewPCG(seed, uint64(100+k*callers+j)))
			wg.Go(func() {
				ctx := t.Context()
				for p.lost.Load() < int64(*cuts) && !t.Failed() {
					id := next.Add(1)
					size := int(math.Exp2(18 * rnd.Float64()))
					kind := rnd.IntN(8)
					var err error
					switch kind {
					case 0:
						n, i := size/64, 0
						var list iter.Seq2[int, error]
						if list, err = count(ctx, id, n); err == nil {
							for v, e := range list {
								if e != nil || v != i {
									err = fmt.Errorf("value %d is %d, %w", i, v, e)
									break
								}
								i++
							}
							if err == nil && i != n {
								err = fmt.Errorf("%d values, want %d", i, n)
							}
						}
					case 1:
						n := size / 64
						var got int
						got, err = sum(ctx, id, func(yield func(int, error) bool) {
							for i := range n {
								if !yield(i, nil) {
									return
								}
							}
						})
						if err == nil && got != n*(n-1)/2 {
							err = fmt.Errorf("the sum to %d is %d", n, got)
						}
					case 2:
						b := pattern(id, size)
						pr, pw := io.Pipe()
						go func() { pw.Write(b); pw.Close() }()
						var got []byte
						got, err = hash(ctx, id, pr)
						pr.Close()
						if want := sha256.Sum256(b); err == nil && string(got) != string(want[:]) {
							err = fmt.Errorf("%d bytes arrive as others", size)
						}
					case 3:
						var ran atomic.Int32
						var got int
						got, err = twice(ctx, id, func(_ context.Context, n int) (int, error) { ran.Add(1); return n + 1, nil })
						if err == nil && (got != 3 || ran.Load() != 2) {
							err = fmt.Errorf("%d after %d callbacks", got, ran.Load())
						}
					default:
						if kind > 5 {
							size %= 64
						}
						b := pattern(id, size)
						var gotID int64
						var got []byte
						gotID, got, err = echo(ctx, id, b)
						if err == nil && (gotID != id || string(got) != string(b)) {
							err = fmt.Errorf("call %d of %d bytes gets another's answer, %d of %d bytes", id, size, gotID, len(got))
						}
					}
					total[min(kind, 4)].Add(1)
					if err != nil {
						t.Errorf("call %d, kind %d, size %d: %v", id, kind, size, err)
						return
					}
				}
			})
		}
	}
	start := time.Now()
	wg.Wait()
	p.calm.Store(true)
	done.mu.Lock()
	defer done.mu.Unlock()
	for id := int64(1); id <= next.Load(); id++ {
		if n := done.runs[id]; n != 1 {
			t.Errorf("call %d ran %d times", id, n)
		}
	}
	t.Logf("%d connections lost (cut %d, truncated %d, half-closed %d, stalled %d) in %v; %d echoes, %d streams here, %d there, %d readers, %d callbacks",
		p.lost.Load(), p.kinds[0].Load(), p.kinds[1].Load(), p.kinds[2].Load(), p.kinds[3].Load(), time.Since(start).Round(time.Millisecond),
		total[4].Load(), total[0].Load(), total[1].Load(), total[2].Load(), total[3].Load())
}

// flaky dials a server over TCP, and can take connections away.
type flaky struct {
	mu      sync.Mutex
	address string
	down    bool
	dials   int
	conns   []net.Conn
}

func (f *flaky) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dials++
	if f.down {
		return nil, errors.New("nobody is there")
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", f.address)
	if err == nil {
		f.conns = append(f.conns, conn)
	}
	return conn, err
}

// cut takes all connections away, and new ones, too, if down is set.
func (f *flaky) cut(down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = down
	for _, c := range f.conns {
		c.Close()
	}
	f.conns = nil
}

func (f *flaky) set(address string, down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.address, f.down = address, down
}

// serveOn serves on a port of its own until the test ends.
func serveOn(t *testing.T, srv *yonder.Server) (address string) {
	l := listenOn(t, "127.0.0.1:0")
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }() // ends with Close
	t.Cleanup(func() { srv.Close(); <-served })
	return l.Addr().String()
}

// A server that is another process knows nothing of what has been lost: the calls in flight fail,
// at once, and may have run. Those that were never sent have not, and so are made there.
func TestResumeElsewhere(t *testing.T) {
	noLeak(t)
	srv, began, _, ended := patient(t)
	srv.Resume = resumable(time.Minute)
	f := &flaky{address: serveOn(t, srv)}
	c, err := (&yonder.Dialer{NetDial: f.dial, Resume: time.Minute, Logger: logger(t)}).Dial(t.Context(), "x:1")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if n, err := yonder.Invoke[int](t.Context(), c, "echo", 1); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	call := waiting(t.Context(), c, began, 1)
	f.cut(true)
	until(t, "the client has found out", func() bool { return c.Stats().Resumption.Suspended == 1 })
	// This one waits.
	second := make(chan error, 1)
	go func() {
		n, err := yonder.Invoke[int](t.Context(), c, "echo", 2)
		if n != 2 && err == nil {
			err = fmt.Errorf("got %d", n)
		}
		second <- err
	}()
	other, _, _, _ := patient(t)
	other.Resume = resumable(time.Minute)
	f.set(serveOn(t, other), false)
	got := <-call
	if yonder.CodeOf(got.err) != yonder.Unavailable || !errors.Is(got.err, yonder.ErrConnectionLost) || !yonder.MayHaveRun(got.err) {
		t.Errorf("the call in flight: %v, may have run: %t", got.err, yonder.MayHaveRun(got.err))
	}
	if err := <-second; err != nil && yonder.MayHaveRun(err) {
		t.Errorf("the call that waited: %v", err)
	}
	select {
	case err := <-ended:
		t.Errorf("the first server's handler ended: %v", err)
	default:
	}
	srv.Close() // does not wait for the window
	if err := <-ended; !errors.Is(err, yonder.ErrServerClosed) {
		t.Errorf("the first server's handler: %v", err)
	}
}

func TestMayHaveRun(t *testing.T) {
	noLeak(t)
	srv, began, _, _ := patient(t)
	f := &flaky{address: serveOn(t, srv)}
	c, err := (&yonder.Dialer{NetDial: f.dial, Logger: logger(t)}).Dial(t.Context(), "x:1")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	call := waiting(t.Context(), c, began, 1)
	f.cut(true)
	if got := <-call; !yonder.MayHaveRun(got.err) {
		t.Errorf("a call whose handler has begun: %v", got.err)
	}
	_, err = yonder.Invoke[int](t.Context(), c, "echo", 2)
	if err == nil || yonder.MayHaveRun(err) {
		t.Errorf("without a connection: %v", err)
	}
	if wrapped := fmt.Errorf("so: %w", err); yonder.MayHaveRun(wrapped) {
		t.Error("when it is wrapped")
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = yonder.Invoke[int](canceled, c, "echo", 2); yonder.MayHaveRun(err) {
		t.Errorf("with a context that is over: %v", err)
	}
	if !yonder.MayHaveRun(nil) || !yonder.MayHaveRun(errors.New("another")) {
		t.Error("what is not known counts as true")
	}
	plain := errors.New("no line")
	if err := yonder.NotRun(plain); yonder.MayHaveRun(err) || !errors.Is(err, plain) || err.Error() != "no line" || yonder.CodeOf(err) != yonder.Unknown {
		t.Errorf("NotRun of another error: %#v", err)
	}
	coded := yonder.Errorf(yonder.Unavailable, "yonder: %w", plain)
	if err := yonder.NotRun(coded); yonder.MayHaveRun(err) || !errors.Is(err, plain) || yonder.CodeOf(err) != yonder.Unavailable || !yonder.MayHaveRun(coded) {
		t.Errorf("NotRun of an Error: %#v, of which is left %#v", err, coded)
	}
}

// The server ends what waits for its clients beyond its bounds, those that have waited longest
// first; and all when it shuts down.
func TestResumeBounds(t *testing.T) {
	noLeak(t)
	srv, began, release, ended := patient(t)
	srv.Resume, srv.Logger = &yonder.Resumption{Window: time.Minute, Secret: crand.Text, MaxConns: 2}, logger(t)
	address := serveOn(t, srv)
	var calls []<-chan outcome
	for i := range 4 {
		f := &flaky{address: address}
		c, err := (&yonder.Dialer{NetDial: f.dial, Resume: time.Minute, Logger: logger(t)}).Dial(t.Context(), "x:1")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := yonder.Invoke[int](t.Context(), c, "echo", i); err != nil {
			t.Fatal(err)
		}
		calls = append(calls, waiting(t.Context(), c, began, i))
		f.cut(true)
		if i >= 2 { // the one of two before is given up
			if err := <-ended; !errors.Is(err, yonder.ErrConnectionLost) {
				t.Errorf("a handler ended: %v", err)
			}
			defer f.set(address, false)
		}
	}
	_ = release
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	for range 2 {
		if err := <-ended; !errors.Is(err, yonder.ErrServerClosed) {
			t.Errorf("a handler ended: %v", err)
		}
	}
	_ = calls
}

// A peer that opens sessions and leaves them, and one that guesses, cost what the bounds say, and
// nobody else's session.
func TestResumeHostile(t *testing.T) {
	noLeak(t)
	log := newWatchedLog()
	srv := hostileServer(t, log, yonder.Limits{})
	srv.Resume = &yonder.Resumption{Window: time.Hour, Secret: crand.Text, MaxConns: 20}
	f := &flaky{address: serveOn(t, srv)}
	c, err := (&yonder.Dialer{NetDial: f.dial, Resume: time.Hour, Logger: logger(t)}).Dial(t.Context(), "x:1")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	good := func() {
		t.Helper()
		if n, err := yonder.Invoke[int](t.Context(), c, "echo", 7); n != 7 || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
	}
	good()
	before, sessions := runtime.NumGoroutine(), 400
	var secrets [][]byte
	for range sessions {
		conn, err := net.Dial("tcp", f.address)
		if err != nil {
			t.Fatal(err)
		}
		p := &rawPeer{t: t, conn: conn}
		g := greeting()
		g.Resume = 1 << 60
		p.write(wire.Preface)
		p.hello(g)
		_, body := p.until(wire.Hello)
		hello, err := wire.ParseHello(body)
		if err != nil || len(hello.Session) < 16 {
			t.Fatalf("HELLO %+v, %v", hello, err)
		}
		secrets = append(secrets, hello.Session)
		p.name()
		p.request(id(0), echoes, 1)
		p.until(wire.Response)
		conn.Close()
	}
	deadline := time.Now().Add(10 * time.Second)
	for runtime.NumGoroutine() > before+20+10 && time.Now().Before(deadline) {
		runtime.Gosched()
	}
	if n := runtime.NumGoroutine() - before; n > 30 {
		t.Errorf("%d sessions that were left have %d goroutines", sessions, n)
	}
	resume := func(secret []byte, attempt, received uint64) (wire.Type, string) {
		conn, err := net.Dial("tcp", f.address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		p := &rawPeer{t: t, conn: conn}
		b := wire.AppendResume(nil, &wire.Resumption{Session: secret, Attempt: attempt, Received: received})
		p.write(wire.Preface, string(append(wire.AppendHeader(nil, wire.Header{Type: wire.Resume}, len(b)), b...)))
		head := make([]byte, len(wire.Preface)+wire.HeaderSize)
		if _, err := io.ReadFull(conn, head); err != nil {
			return 0, err.Error()
		}
		h, n, _ := wire.ParseHeader(head[len(wire.Preface):])
		body := make([]byte, n)
		io.ReadFull(conn, body)
		return h.Type, string(body)
	}
	var answers []string
	for i := range 300 {
		guess := []byte(fmt.Sprintf("%032d", i))
		if i%3 == 0 { // half of it is right
			copy(guess, secrets[len(secrets)-1][:16])
		}
		if i%7 == 0 {
			guess = guess[:16+i%16]
		}
		typ, body := resume(guess, 1, 0)
		if typ != wire.GoAway {
			t.Fatalf("a guess is answered with %v %q", typ, body)
		}
		answers = append(answers, body)
	}
	last := secrets[len(secrets)-1]
	if typ, body := resume(last, 1, 1<<40); typ != wire.GoAway {
		t.Errorf("more than was sent: %v", typ)
	} else {
		answers = append(answers, body)
	}
	if typ, _ := resume(last, 3, 0); typ != wire.Resume {
		t.Errorf("the right secret is answered with %v", typ)
	}
	typ, body := resume(last, 3, 0) // the same again
	if answers = append(answers, body); typ != wire.GoAway {
		t.Errorf("a replay is answered with %v", typ)
	}
	typ, body = resume(secrets[0], 1, 0) // given up since
	if answers = append(answers, body); typ != wire.GoAway {
		t.Errorf("a session that has been given up is answered with %v", typ)
	}
	for _, a := range answers {
		if a != answers[0] {
			t.Errorf("the refusals tell something: %q, %q", a, answers[0])
		}
	}
	good()
	f.cut(false)
	good()
	if f.dials != 2 {
		t.Errorf("dialed %d times", f.dials)
	}
}

// A deadline that passes while the connection is lost ends the call then, and the handler when it
// hears of it.
func TestResumeDeadline(t *testing.T) {
	noLeak(t)
	srv, began, _, ended := patient(t)
	srv.Resume = resumable(time.Minute)
	f := &flaky{address: serveOn(t, srv)}
	c, err := (&yonder.Dialer{NetDial: f.dial, Resume: time.Minute, Logger: logger(t)}).Dial(t.Context(), "x:1")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := yonder.Invoke[int](t.Context(), c, "echo", 1); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	call := waiting(ctx, c, began, 1)
	f.cut(true)
	cancel()
	if got := <-call; yonder.CodeOf(got.err) != yonder.Canceled {
		t.Errorf("the call: %v", got.err)
	}
	select {
	case err := <-ended:
		t.Errorf("the handler cannot know of it: %v", err)
	default:
	}
	f.set(f.address, false)
	if err := <-ended; err != context.Canceled {
		t.Errorf("the handler: %v", err)
	}
	if n, err := yonder.Invoke[int](t.Context(), c, "echo", 2); n != 2 || err != nil {
		t.Errorf("the next call: %d, %v", n, err)
	}
}

// Whatever a connection runs over can be lost: here its own handler ends it, twice, and answers.
func TestResumeModes(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		m.cannot(t, inProcess, "there is no connection to lose")
		m.cannot(t, overPipe, "nobody can dial a pipe")
		var srv yonder.Server
		srv.Resume = resumable(time.Minute)
		var mu sync.Mutex
		seen := make(map[any]bool)
		srv.Register("cut", func(ctx context.Context, n int) (int, error) {
			info, _ := yonder.InfoFrom(ctx)
			mu.Lock()
			defer mu.Unlock()
			seen[info.Conn] = true
			return n, info.Conn.(io.Closer).Close()
		})
		c := m.dialer(t, &srv, &yonder.Dialer{Resume: time.Minute})
		if _, err := c.Procedures(t.Context()); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			if n, err := yonder.Invoke[int](t.Context(), c, "cut", i); n != i || err != nil {
				t.Errorf("call %d: %d, %v", i, n, err)
			}
		}
		mu.Lock()
		defer mu.Unlock()
		if len(seen) != 3 {
			t.Errorf("three calls that each ended what they came over came over %d", len(seen))
		}
	})
}

// Both ends know how many connections may be resumed, are lost, went on, and were given up.
func TestStatsOfResumption(t *testing.T) {
	noLeak(t)
	srv, began, release, _ := patient(t)
	srv.Resume = &yonder.Resumption{Window: time.Minute, Secret: crand.Text, MaxConns: 1}
	address := serveOn(t, srv)
	client := func(window time.Duration) (*yonder.Client, *flaky) {
		t.Helper()
		f := &flaky{address: address}
		c, err := (&yonder.Dialer{NetDial: f.dial, Resume: window, Logger: logger(t)}).Dial(t.Context(), "x:1")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if n, err := yonder.Invoke[int](t.Context(), c, "echo", 1); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		return c, f
	}
	want := func(what string, stats func() yonder.Stats, want yonder.ResumptionStats) {
		t.Helper()
		until(t, what, func() bool {
			have := stats().Resumption
			if have.Open > 0 { // for a while
				have.KeptBytes = 0
			}
			return have == want
		})
	}
	if s := new(yonder.Server).Stats().Resumption; s != (yonder.ResumptionStats{}) {
		t.Errorf("of none: %+v", s)
	}
	c, f := client(time.Minute)
	want("open at the client", c.Stats, yonder.ResumptionStats{Open: 1})
	want("open at the server", srv.Stats, yonder.ResumptionStats{Open: 1})
	call := waiting(t.Context(), c, began, 1)
	f.cut(true)
	want("lost at the client", c.Stats, yonder.ResumptionStats{Open: 1, Suspended: 1})
	want("lost at the server", srv.Stats, yonder.ResumptionStats{Open: 1, Suspended: 1})
	release <- true
	until(t, "the answer is kept", func() bool { return srv.Stats().Resumption.KeptBytes > 0 })
	f.set(address, false)
	if got := <-call; got.err != nil {
		t.Error(got.err)
	}
	want("resumed at the client", c.Stats, yonder.ResumptionStats{Open: 1, Resumed: 1})
	want("resumed at the server", srv.Stats, yonder.ResumptionStats{Open: 1, Resumed: 1})

	// One is given up since there is no room, and its client is refused.
	f.cut(true)
	want("lost again", srv.Stats, yonder.ResumptionStats{Open: 1, Suspended: 1, Resumed: 1})
	second, g := client(5 * time.Millisecond)
	g.cut(true)
	want("one is evicted", srv.Stats, yonder.ResumptionStats{Resumed: 1, Evicted: 1, Expired: 1})
	want("the other one has expired", second.Stats, yonder.ResumptionStats{Expired: 1})
	f.set(address, false)
	want("refused at the client", c.Stats, yonder.ResumptionStats{Resumed: 1, Refused: 1})
	want("refused at the server", srv.Stats, yonder.ResumptionStats{Resumed: 1, Evicted: 1, Expired: 1, Refused: 1})
}

// What an answer says of whether the call has run is the word of the other end's yonder alone: it is
// one name at one place, which no error of a procedure's has.
func TestUnrunAnswer(t *testing.T) {
	noLeak(t)
	const reason = "the server is shutting down"
	mark := []string{"yonder.unrun"}
	near, far := net.Pipe()
	p := &rawPeer{t: t, conn: far}
	c := (&yonder.Dialer{Logger: logger(t)}).NewClient(near)
	defer c.Close()
	greeted := make(chan bool)
	go func() { p.greet(); close(greeted) }() // ends when the client reads
	for _, test := range []struct {
		record wire.Error
		may    bool
	}{
		{wire.Error{Code: 14, Message: reason}, true},
		{wire.Error{Code: 14, Message: reason, Names: mark}, false},
		{wire.Error{Code: 5, Message: "not found", Names: mark}, false},
		{wire.Error{Code: 14, Message: reason, Causes: []*wire.Error{{Code: 14, Message: reason, Names: mark}}}, true},
		{wire.Error{Code: 14, Message: reason, Type: "yonder.unrun"}, true},
	} {
		failed := make(chan error)
		go func() { failed <- c.Call(t.Context(), yonder.NewCall("echo", 1)) }() // ends with the answer
		h, _ := p.until(wire.Request)
		<-greeted
		p.send(wire.Header{Type: wire.Response, Flags: wire.Failed | wire.End, ID: h.ID}, wire.AppendError(nil, &test.record)...)
		if err := <-failed; yonder.MayHaveRun(err) != test.may || !yonder.IsRemote(err) || err.Error() != test.record.Message {
			t.Errorf("%+v: %v, may have run: %t", test.record, err, yonder.MayHaveRun(err))
		}
	}

	runAll(t, func(t *testing.T, m mode) {
		closed := yonder.NewClient(near)
		closed.Close()
		var srv yonder.Server
		srv.Register("pass", func(ctx context.Context) (int, error) {
			n, err := yonder.Invoke[int](ctx, closed, "echo", 1)
			if yonder.MayHaveRun(err) {
				t.Errorf("a call of a closed client: %v", err)
			}
			return n, err
		})
		if _, err := yonder.Invoke[int](t.Context(), m.client(t, &srv), "pass"); yonder.CodeOf(err) != yonder.Unavailable || !yonder.MayHaveRun(err) {
			t.Errorf("a handler that passes on why its own call has not run: %v, may have run: %t", err, yonder.MayHaveRun(err))
		}
	})
}
