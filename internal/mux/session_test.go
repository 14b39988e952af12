package mux

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/yonder-rpc/yonder/internal/wire"
)

// A net of cut pipes: it connects a dialing side to an accepting one as often as it is asked to, and
// each pipe is cut at a place of its own.
type network struct {
	rand   *rand.Rand
	mu     sync.Mutex
	most   int // bytes that a pipe carries, each way; zero: it is not cut
	server *Conn
	client *Conn
	wg     sync.WaitGroup
	pipes  []net.Conn
	dials  int
}

// cutPipe carries so many bytes each way, and not one more.
type cutPipe struct {
	net.Conn
	mu   sync.Mutex
	left int  // to be written; negative: no bound
	mute bool // what is written gets nowhere
}

func (p *cutPipe) Write(b []byte) (int, error) {
	p.mu.Lock()
	n := len(b)
	if p.mute {
		p.mu.Unlock()
		return n, nil
	}
	if p.left >= 0 {
		n = min(n, p.left)
		p.left -= n
	}
	p.mu.Unlock()
	wrote, err := p.Conn.Write(b[:n])
	if err == nil && n < len(b) {
		p.Conn.Close()
		err = io.ErrClosedPipe
	}
	return wrote, err
}

func (n *network) pipe() (near, far *cutPipe) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dials++
	draw := func() int {
		if n.most == 0 {
			return -1
		}
		return n.rand.IntN(1 + n.rand.IntN(n.most))
	}
	a, b := net.Pipe()
	n.pipes = append(n.pipes, a, b)
	return &cutPipe{Conn: a, left: draw()}, &cutPipe{Conn: b, left: draw()}
}

const testWindow = 10 * time.Second

var testSecret = []byte("0123456789abcdef0123456789abcdef")

// resumable returns both ends of a connection that goes on over other pipes when one is lost.
func resumable(tb testing.TB, n *network, client, server Config) (*Conn, *Conn) {
	tb.Cleanup(n.wg.Wait) // after the ends are closed, which begin some
	near, far := n.pipe()
	lefts := [2]int{near.left, far.left}
	near.left, far.left = -1, -1 // HELLO must pass
	for _, cfg := range []*Config{&client, &server} {
		cfg.Local.Resume = uint64(testWindow / time.Millisecond)
		if cfg.MaxKept == 0 {
			cfg.MaxKept = 1 << 20
		}
		cfg.Handshake = time.Second
	}
	client.Dialer = true
	server.Local.Session = testSecret
	client.Lost = func(bool) { n.wg.Go(n.redial) }
	n.server = start(tb, far, server)
	n.client = start(tb, near, client)
	<-n.client.hello
	<-n.server.hello
	for i, p := range []*cutPipe{near, far} {
		p.mu.Lock()
		p.left = lefts[i]
		p.mu.Unlock()
	}
	return n.client, n.server
}

func (n *network) redial() {
	for {
		near, far := n.pipe()
		n.wg.Go(func() { n.accept(far) })
		err := n.client.Resume(near)
		if err == nil || errors.Is(err, ErrRefused) {
			return
		}
		time.Sleep(time.Millisecond) // in a bubble
	}
}

func (n *network) accept(conn net.Conn) {
	r := reader{conn: conn, onWait: func() {}, onRead: func(int) {}}
	if r.fill(len(wire.Preface)) != nil {
		conn.Close()
		return
	}
	r.next(len(wire.Preface))
	_, size, err := r.peekHeader()
	if err != nil {
		conn.Close()
		return
	}
	body, _, err := r.body(size)
	if err != nil {
		conn.Close()
		return
	}
	resumption, err := wire.ParseResume(body)
	if err == nil {
		_, err = n.server.Accept(conn, &resumption)
	}
	if err != nil {
		refuse := wire.AppendGoAway(nil, wire.CodeUnavailable, "no")
		conn.Write(append(wire.AppendHeader([]byte(wire.Preface), wire.Header{Type: wire.GoAway}, len(refuse)), refuse...))
		conn.Close()
	}
}

// cut loses what the connection goes over just now.
func (n *network) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.pipes {
		p.Close()
	}
	n.pipes = nil
}

// TestResumeModel runs two ends over pipes that are cut at random places, in many schedules: each
// call is served once, and each answer is its own.
func TestResumeModel(t *testing.T) {
	schedules := 60
	if testing.Short() {
		schedules = 10
	}
	base := rand.Uint64()
	t.Logf("seed %d", base)
	losses := 0
	for i := range schedules {
		bubble(t, func(t *testing.T) {
			n := &network{rand: rand.New(rand.NewPCG(base, uint64(i))), most: []int{150, 1500, 30000, 300000}[i%4]}
			var mu sync.Mutex
			served := make(map[string]int)
			handler := func(_ context.Context, in *Incoming) {
				text := string(in.Body)
				mu.Lock()
				served[text[:min(len(text), 16)]]++
				mu.Unlock()
				answer(in, text)
			}
			client, server := resumable(t, n, config(nobody), config(handler))
			const calls = 40
			rnd := rand.New(rand.NewPCG(base, uint64(i)<<32))
			var wg sync.WaitGroup
			for k := range calls {
				size := rnd.IntN(1 << rnd.IntN(2+4*(i%4+1)))
				pause := time.Duration(rnd.IntN(20)) * time.Millisecond
				wg.Go(func() {
					time.Sleep(pause)
					text := fmt.Sprintf("%016d", k) + strings.Repeat("x", size)
					got, err := call(t.Context(), client, request(text))
					if err != nil || got != text {
						t.Errorf("seed %d, %d: call %d of %d bytes: %d bytes, %v", base, i, k, len(text), len(got), err)
					}
				})
			}
			wg.Wait()
			for k := range calls {
				if times := served[fmt.Sprintf("%016d", k)]; times != 1 {
					t.Errorf("seed %d, %d: call %d was served %d times", base, i, k, times)
				}
			}
			n.mu.Lock()
			losses += n.dials
			n.most = 0
			n.mu.Unlock()
			n.cut()
			synctest.Wait()
			time.Sleep(time.Minute)
			checkIdle(t, client, server)
		})
	}
	t.Logf("%d schedules, %d pipes", schedules, losses)
	if losses < schedules {
		t.Error("hardly a pipe was lost")
	}
}

// A connection that is not resumed in time is over, and so are its calls, on both sides.
func TestWindow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		began, canceled := make(chan bool, 1), make(chan error, 1)
		n := &network{}
		client, server := resumable(t, n, config(nobody), config(func(ctx context.Context, in *Incoming) {
			began <- true
			<-ctx.Done()
			canceled <- context.Cause(ctx)
		}))
		client.cfg.Lost = func(bool) {}
		done := make(chan error)
		go func() {
			_, err := call(t.Context(), client, request("a"))
			done <- err
		}()
		<-began
		start := time.Now()
		n.cut()
		synctest.Wait()
		if _, yes, _ := client.Session(); !yes {
			t.Error("the client does not wait")
		}
		if _, yes, held := server.Session(); !yes || held != 0 {
			t.Errorf("the server waits: %t, and holds %d bytes", yes, held)
		}
		// A call that begins now is never sent.
		o, err := client.Start(t.Context(), request("b"))
		if err != nil {
			t.Fatal(err)
		}
		for _, err := range []error{<-done, <-canceled} {
			if lost, ok := errors.AsType[*LostError](err); !ok || !strings.Contains(err.Error(), "not resumed within 10s") {
				t.Errorf("%v (%T)", err, lost)
			}
		}
		if took := time.Since(start); took != testWindow {
			t.Errorf("it took %v", took)
		}
		if err := o.Wait(t.Context()); err == nil || !o.Unsent() {
			t.Errorf("the second call: %v, unsent %t", err, o.Unsent())
		}
	})
}

// What is sent to a peer that does not say what it has taken is bounded, and goes on when it does;
// ACKs are sent meanwhile.
func TestKeptBound(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cfg := config(echo)
		cfg.Local.Resume, cfg.Local.Session, cfg.MaxKept = 1000, testSecret, 100<<10
		near, far := net.Pipe()
		c := start(t, near, cfg)
		p := &peer{tb: t, conn: far}
		var wg sync.WaitGroup
		wg.Go(p.read)
		t.Cleanup(func() { far.Close(); wg.Wait() })
		p.write([]byte(wire.Preface))
		g := local()
		g.Resume = 1000
		p.send(wire.Header{Type: wire.Hello}, wire.AppendHello(nil, &g))
		p.name()
		body := strings.Repeat("x", 10<<10)
		const calls = 60
		for i := range calls {
			p.request(1<<16|uint32(i), 0, 0, body)
			synctest.Wait() // what gathers for one write may exceed the bound
		}
		got := len(p.received(wire.Response))
		if got < 9 || got > 25 {
			t.Errorf("%d answers of 10 KiB were sent although 100 KiB may be kept", got)
		}
		if acks := p.received(wire.Ack); len(acks) < 2 {
			t.Errorf("%d ACKs for 600 KiB", len(acks))
		}
		seen := uint64(0)
		for len(p.received(wire.Response)) < calls {
			c.w.mu.Lock()
			end := c.w.keep.end
			c.w.mu.Unlock()
			if end == seen {
				t.Fatalf("after ACK of all there are %d answers", len(p.received(wire.Response)))
			}
			seen = end
			p.send(wire.Header{Type: wire.Ack}, wire.AppendAck(nil, end))
			synctest.Wait()
		}
		c.w.mu.Lock()
		end := c.w.keep.end
		c.w.mu.Unlock()
		p.send(wire.Header{Type: wire.Ack}, wire.AppendAck(nil, end+1))
		synctest.Wait()
		if goAway := p.received(wire.GoAway); len(goAway) != 1 || !bytes.Contains(goAway[0].body, []byte("have not been sent")) {
			t.Errorf("after ACK of more than was sent: %+v", goAway)
		}
	})
}

// Who dials knows better whether a transport lives. An attempt that is not younger than the last
// one is refused, and so are positions that cannot be.
func TestAccept(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := &network{}
		release := make(chan bool)
		client, server := resumable(t, n, config(nobody), config(func(ctx context.Context, in *Incoming) {
			select {
			case <-release:
			case <-ctx.Done():
			}
			echo(ctx, in)
		}))
		done := make(chan string)
		go func() {
			got, err := call(t.Context(), client, request("a"))
			done <- fmt.Sprint(got, err)
		}()
		synctest.Wait()
		client.NetConn().Close() // the server's end does not know: it is replaced by a new one
		old := server.NetConn()
		synctest.Wait()
		if server.NetConn() == old {
			t.Fatal("the server has the transport that it had")
		}
		release <- true
		if got := <-done; got != "a<nil>" {
			t.Errorf("got %s", got)
		}
		synctest.Wait()
		live := server.NetConn()
		for _, attempt := range []uint64{0, 1} {
			near, far := net.Pipe()
			if _, err := server.Accept(far, &wire.Resumption{Session: testSecret, Attempt: attempt}); !errors.Is(err, ErrRefused) {
				t.Errorf("attempt %d again: %v", attempt, err)
			}
			near.Close()
			far.Close()
		}
		if server.NetConn() != live {
			t.Error("an attempt that was refused has cost a transport")
		}
		near, far := net.Pipe()
		defer near.Close()
		defer far.Close()
		if _, err := server.Accept(far, &wire.Resumption{Session: testSecret, Attempt: 1 << 40, Received: 1 << 50}); !errors.Is(err, ErrRefused) {
			t.Errorf("more than has been sent: %v", err)
		}
	})
}

// Without the other's consent all is as before.
func TestNoResumption(t *testing.T) {
	for _, side := range []string{"client", "server"} {
		t.Run(side, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				a, b := config(nobody), config(func(ctx context.Context, in *Incoming) { <-ctx.Done() })
				one := &b
				if side == "client" {
					one = &a
				}
				one.Local.Resume, one.Local.Session, one.MaxKept = 1000, testSecret, 1<<20
				client, server := pair(t, a, b)
				done := make(chan error)
				go func() {
					_, err := call(t.Context(), client, request("a"))
					done <- err
				}()
				synctest.Wait()
				if client.w.keep != nil || server.w.keep != nil {
					t.Error("something is kept")
				}
				server.NetConn().Close()
				if _, ok := errors.AsType[*LostError](<-done); !ok {
					t.Error("the call is not lost")
				}
			})
		})
	}
}

// Who closes a connection says so: the other does not wait for it.
func TestGoodbye(t *testing.T) {
	for _, end := range []string{"close", "shutdown"} {
		for k, side := range []string{"client", "server"} {
			t.Run(end+" "+side, func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					client, server := resumable(t, &network{}, config(nobody), config(echo))
					if _, err := call(t.Context(), client, request("a")); err != nil {
						t.Fatal(err)
					}
					start := time.Now()
					c := []*Conn{client, server}[k]
					if end == "close" {
						c.Close()
					} else {
						c.Shutdown(&GoAwayError{Code: wire.CodeUnavailable, Reason: "enough"})
					}
					<-client.Done()
					<-server.Done()
					if took := time.Since(start); took > 0 {
						t.Errorf("it took %v", took)
					}
				})
			})
		}
	}
}

// A transport on which nothing arrives is given up for another, which has as long to show that it
// lives; and then the connection is idle, as any.
func TestMute(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := &network{}
		a, b := config(nobody), config(echo)
		a.KeepAlive, b.KeepAlive = 15*time.Second, 40*time.Second
		client, server := resumable(t, n, a, b)
		if _, err := call(t.Context(), client, request("a")); err != nil {
			t.Fatal(err)
		}
		mute := func() {
			for _, c := range []*Conn{client, server} {
				p := c.NetConn().(*cutPipe)
				p.mu.Lock()
				p.mute = true
				p.mu.Unlock()
			}
		}
		mute()
		start := time.Now()
		if got, err := call(t.Context(), client, request("b")); got != "b" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		if took := time.Since(start); took < 15*time.Second || took > 45*time.Second {
			t.Errorf("it took %v", took)
		}
		mute() // with nothing to do
		time.Sleep(time.Hour)
		if n.mu.Lock(); n.dials != 3 {
			t.Errorf("%d pipes, want two after the first", n.dials)
		}
		n.mu.Unlock()
		client.w.mu.Lock()
		if held := client.w.keep.end - client.w.keep.acked; held > 1024 {
			t.Errorf("an idle connection keeps %d bytes", held)
		}
		client.w.mu.Unlock()
	})
}
