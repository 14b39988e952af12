package mux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/yonder-rpc/yonder/internal/wire"
)

// sockets returns both ends of a connection over TCP, which others than the read loops can lead.
func sockets(tb testing.TB, client, server Config) (*Conn, *Conn) {
	tb.Helper()
	near, far := tcp(tb)
	client.Dialer = true
	for _, cfg := range []*Config{&client, &server} {
		if cfg.reading == nil {
			cfg.reading = new(reading) // it is alone, as in a process of its own
		}
	}
	a, b := start(tb, near, client), start(tb, far, server)
	if !a.lead.able || !b.lead.able {
		tb.Skip("sockets cannot be read without blocking on this system")
	}
	return a, b
}

// tcp returns both ends of a TCP connection.
func tcp(tb testing.TB) (near, far net.Conn) {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	if near, err = net.Dial("tcp", l.Addr().String()); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { near.Close() })
	if far, err = l.Accept(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { far.Close() })
	return near, far
}

// echoUnless is echo, but while held is set it waits until the call is over.
func echoUnless(held *atomic.Bool) serve {
	return func(ctx context.Context, in *Incoming) {
		if held.Load() {
			<-ctx.Done()
		}
		echo(ctx, in)
	}
}

func leaderNow(c *Conn) leader { return leaderOf(c.lead.turn.Load()) }

// until waits for something that takes a moment.
func until(tb testing.TB, what string, f func() bool) {
	tb.Helper()
	for range 5000 {
		if f() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	tb.Fatalf("not within 5 s: %s", what)
}

// oneByOne makes calls until neither read loop leads.
func oneByOne(tb testing.TB, a, b *Conn) {
	tb.Helper()
	until(tb, "the read loops step back", func() bool {
		for range 100 {
			if got, err := call(context.Background(), a, request("x")); got != "x" || err != nil {
				tb.Fatalf("%q, %v", got, err)
			}
		}
		return leaderNow(a) == nobodyLeads && leaderNow(b) != loopLeads
	})
}

// within ends the test if f takes longer than it should by far: the read loop leads again within two
// ticks.
func within(tb testing.TB, what string, f func()) {
	tb.Helper()
	began := time.Now()
	f()
	if took := time.Since(began); took > 2*time.Second {
		tb.Errorf("%s took %v", what, took)
	}
}

func TestLead(t *testing.T) {
	a, b := sockets(t, config(nobody), config(echo))
	oneByOne(t, a, b)
	until(t, "the read loops lead again when there are no calls", func() bool {
		return leaderNow(a) == loopLeads && leaderNow(b) == loopLeads
	})
	oneByOne(t, a, b)
	checkIdle(t, a)
}

// A caller that leads leaves when its context ends, like any other.
func TestLeadCanceled(t *testing.T) {
	var held atomic.Bool
	a, b := sockets(t, config(nobody), config(echoUnless(&held)))
	oneByOne(t, a, b)
	held.Store(true)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	within(t, "to be canceled", func() {
		if _, err := call(ctx, a, request("")); err != context.Canceled {
			t.Errorf("canceled: %v", err)
		}
	})
	held.Store(false)
	oneByOne(t, a, b)
	held.Store(true)
	within(t, "to expire", func() {
		q := request("")
		q.Expire, q.Deadline = true, time.Now().Add(20*time.Millisecond)
		if _, err := call(t.Context(), a, q); err != context.DeadlineExceeded {
			t.Errorf("expired: %v", err)
		}
	})
	held.Store(false)
	oneByOne(t, a, b)
}

// So it does while what it reads for others keeps coming.
func TestLeadCanceledAmongOthers(t *testing.T) {
	a, b := sockets(t, config(nobody), config(func(ctx context.Context, in *Incoming) {
		if string(in.Body) == "slow" {
			<-ctx.Done()
		}
		echo(ctx, in)
	}))
	for range 5 {
		oneByOne(t, a, b)
		ctx, cancel := context.WithCancel(t.Context())
		over := make(chan struct{})
		var others sync.WaitGroup
		others.Go(func() {
			time.Sleep(leadTick / 4) // the slow call leads
			for {
				select {
				case <-over:
					return
				default:
					call(t.Context(), a, request("y"))
				}
			}
		})
		time.AfterFunc(20*time.Millisecond, cancel)
		began := time.Now()
		slow := &Request{Ref: &Ref{Index: 1, Name: "slow"}, Body: message("slow")} // who reads does not serve it
		if _, err := call(ctx, a, slow); err != context.Canceled {
			t.Errorf("canceled: %v", err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("to be canceled took %v", took)
		}
		close(over)
		others.Wait()
	}
}

// A handler that takes longer than those before it holds nobody up: not other callers, not who cancels
// its call, and not itself where it calls back.
func TestLeadSlowHandler(t *testing.T) {
	begun := make(chan struct{}, 1)
	var b *Conn
	a, b := sockets(t, config(echo), config(func(ctx context.Context, in *Incoming) {
		switch string(in.Body) {
		case "slow":
			begun <- struct{}{}
			<-ctx.Done()
			answer(in, "slow")
		case "back":
			got, err := call(ctx, b, request("there"))
			answer(in, fmt.Sprint(got, err))
		case "exit":
			runtime.Goexit()
		default:
			echo(ctx, in)
		}
	}))
	oneByOne(t, a, b)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { call(ctx, a, request("slow")) })
	<-begun
	within(t, "another call", func() {
		if got, err := call(t.Context(), a, request("y")); got != "y" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	})
	cancel()
	within(t, "to be canceled", wg.Wait)
	until(t, "the slow call ends", func() bool { return counts(b).Incoming == 0 })

	oneByOne(t, a, b)
	within(t, "to call back", func() {
		if got, err := call(t.Context(), a, request("back")); got != "there<nil>" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	})
	oneByOne(t, a, b)
	within(t, "to exit", func() {
		var failed *failure
		if _, err := call(t.Context(), a, request("exit")); !errors.As(err, &failed) {
			t.Errorf("%v", err)
		}
	})
	oneByOne(t, a, b)
}

// What comes while nobody reads is read soon.
func TestLeadByNobody(t *testing.T) {
	a, b := sockets(t, config(echo), config(echo))
	oneByOne(t, a, b)
	within(t, "a call the other way", func() {
		if got, err := call(t.Context(), b, request("z")); got != "z" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	})
	oneByOne(t, a, b)
	b.Shutdown(&GoAwayError{Reason: "enough"})
	within(t, "GOAWAY", func() { <-a.Done() })
}

// What comes together and takes little time is served by who reads. One call that waits keeps none of
// the others waiting for long, nor the answers to those that were served before it.
func TestLeadTogether(t *testing.T) {
	a, b := sockets(t, config(nobody), config(func(ctx context.Context, in *Incoming) {
		switch string(in.Body) {
		case "held":
			<-ctx.Done()
		case "slow":
			time.Sleep(5 * time.Millisecond)
		}
		echo(ctx, in)
	}))
	var led, calls atomic.Int64
	short := func() { // whatever the machine is doing
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, n := range b.names {
			n.short.Store(2 * leadAfter)
		}
	}
	callers := func(ctx context.Context) *sync.WaitGroup {
		wg := new(sync.WaitGroup)
		for i := range 32 {
			wg.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					want := fmt.Sprint(i, n)
					if (i+n)%200 == 0 {
						want = "slow"
					}
					began := time.Now()
					if got, err := call(t.Context(), a, request(want)); got != want || err != nil {
						t.Errorf("%q, not %q, %v", got, want, err)
						return
					}
					if took := time.Since(began); took > 2*time.Second {
						t.Errorf("a call took %v", took)
					}
					if who := leaderNow(b); (who == otherLeads || who == otherServes) && b.load.Load() > 1 {
						led.Add(1)
					}
					calls.Add(1)
				}
			})
		}
		return wg
	}
	ctx, cancel := context.WithCancel(t.Context())
	wg := callers(ctx)
	until(t, "another than the read loop leads while there are many calls", func() bool {
		short()
		return led.Load() > 200 && calls.Load() > 2000
	})
	heldCtx, release := context.WithCancel(t.Context())
	var held sync.WaitGroup
	for range 4 {
		held.Go(func() { call(heldCtx, a, request("held")) })
	}
	before := calls.Load()
	until(t, "the others go on", func() bool {
		short()
		return calls.Load() > before+300
	})
	release()
	within(t, "to be canceled", held.Wait)
	cancel()
	within(t, "to end", wg.Wait)
	until(t, "all calls end", func() bool { return counts(a) == (count{}) && counts(b) == (count{}) })
	b.Shutdown(&GoAwayError{Reason: "enough"})
	within(t, "GOAWAY", func() { <-a.Done() })
}

// A caller that leads serves nobody: what the peer calls meanwhile is handed over.
func TestLeadAsks(t *testing.T) {
	var held atomic.Bool
	a, b := sockets(t, config(echo), config(echoUnless(&held)))
	for range 5 {
		oneByOne(t, a, b)
		if got, err := call(t.Context(), b, request("name")); got != "name" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
		oneByOne(t, a, b)
		held.Store(true)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { call(ctx, a, request("held")) })
		until(t, "the call begins", func() bool { return counts(b).Incoming == 1 })
		a.mu.Lock()
		for _, n := range a.names {
			n.short.Store(2 * leadAfter)
		}
		a.mu.Unlock()
		var calls sync.WaitGroup
		within(t, "calls the other way", func() {
			for i := range 16 {
				calls.Go(func() {
					if got, err := call(t.Context(), b, request(fmt.Sprint(i))); got != fmt.Sprint(i) || err != nil {
						t.Errorf("%q, %v", got, err)
					}
				})
			}
			calls.Wait()
		})
		held.Store(false)
		cancel()
		wg.Wait()
	}
}

// How short and how slow calls count.
func TestTook(t *testing.T) {
	n := newName("p", "")
	many := func(calls int, took time.Duration) {
		for range calls {
			n.took(took)
		}
	}
	check := func(what string, short bool, strikes int32) {
		t.Helper()
		if got := n.short.Load() >= leadAfter; got != short || n.strikes.Load() != strikes {
			t.Errorf("%s: short %v, %d strikes, not %v, %d", what, got, n.strikes.Load(), short, strikes)
		}
	}
	n.took(2 * slowServe) // the first
	many(newAfter-1, shortServe)
	check("few", false, 0)
	many(1, shortServe)
	check("enough", true, 0)
	many(rareSlow, shortServe)
	n.took(slowServe)
	check("slow for once", false, 0)
	many(leadRest+leadAfter, shortServe)
	check("short again", true, 0)
	for range 3 {
		n.took(slowServe)
	}
	check("slow again and again", false, 3)
	many(leadRest<<3, shortServe)
	check("not yet", false, 3)
	many(leadAfter, shortServe)
	check("after the rest", true, 3)
	many(3*rareSlow, shortServe)
	check("forgiven", true, 0)
	many(8, shortServe+1)
	check("not so short", false, 0)
	many(100, slowServe)
	check("always slow", false, maxStrikes)
	if n.short.Load() > -leadRest<<maxStrikes {
		t.Error("a slow procedure rests for too short")
	}
}

// A call takes as long as its streams do.
func TestTookStreams(t *testing.T) {
	a, b := sockets(t, config(nobody), config(func(ctx context.Context, in *Incoming) {
		in.Reply(0, nil, NewMessage(), false)
		p := in.SendStream(1)
		time.Sleep(2 * slowServe)
		in.CloseStream(p, nil, true)
	}))
	for range 3 {
		if _, err := call(t.Context(), a, request("")); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "all calls end", func() bool { return counts(b) == (count{}) })
	until(t, "it counts as slow", func() bool { return b.names[0].short.Load() < 0 })
}

// The end of the connection, from either side, ends the turn of whoever leads.
func TestLeadEnd(t *testing.T) {
	for _, near := range []bool{true, false} {
		for _, calls := range []bool{true, false} {
			var held atomic.Bool
			a, b := sockets(t, config(nobody), config(echoUnless(&held)))
			oneByOne(t, a, b)
			held.Store(true)
			var wg sync.WaitGroup
			if calls {
				wg.Go(func() {
					var lost *LostError
					if _, err := call(t.Context(), a, request("")); !errors.As(err, &lost) && err != ErrClosed {
						t.Errorf("near %v: %v", near, err)
					}
				})
				until(t, "the call begins", func() bool { return counts(b).Incoming == 1 })
			}
			within(t, "to end", func() {
				if near {
					a.Close()
				} else {
					b.Close()
				}
				<-a.Done()
				<-b.Done()
				wg.Wait()
			})
		}
	}
}

// TestLeadRandom has callers come and go, so that the lead changes all the time, and checks that each
// gets its own answer, in time.
func TestLeadRandom(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var calls, led atomic.Int64
	for round := range uint64(8) {
		leadRandom(t, seed+round, round%2 == 1, &calls, &led)
	}
	if led.Load() == 0 {
		t.Errorf("of %d calls none was led by another than the read loop", calls.Load())
	}
}

// leadRandom is a round of TestLeadRandom, over a connection that is led by others at first, with one
// of the callers at the other end or not. It counts the calls, and those after which others led.
func leadRandom(t *testing.T, seed uint64, bothWays bool, calls, led *atomic.Int64) {
	a, b := sockets(t, config(echo), config(func(ctx context.Context, in *Incoming) {
		if len(in.Body) > 0 && in.Body[0]%16 == 0 {
			time.Sleep(time.Duration(in.Body[0]) * 20 * time.Microsecond)
		}
		echo(ctx, in)
	}))
	oneByOne(t, a, b)
	end := time.Now().Add(250 * time.Millisecond)
	var wg sync.WaitGroup
	for i := range 4 {
		from := a
		if i == 3 && bothWays {
			from = b
		}
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			for time.Now().Before(end) {
				for n := range r.IntN(200) {
					want := fmt.Sprint(byte(r.Uint32()), i, n)
					ctx, cancel := t.Context(), context.CancelFunc(func() {})
					if r.IntN(50) == 0 {
						ctx, cancel = context.WithTimeout(ctx, time.Duration(r.IntN(3))*time.Millisecond)
					}
					if r.IntN(100) == 0 {
						want += string(make([]byte, r.IntN(200_000)))
					}
					began := time.Now()
					got, err := call(ctx, from, request(want))
					if took := time.Since(began); took > 2*time.Second {
						t.Errorf("a call took %v", took)
					}
					if err == nil && got != want || err != nil && ctx.Err() == nil {
						t.Errorf("%q is answered by %q, %v", want, got, err)
					}
					cancel()
					calls.Add(1)
					if leaderNow(a) == nobodyLeads || leaderNow(b) == otherLeads {
						led.Add(1)
					}
				}
				time.Sleep(time.Duration(r.IntN(40)) * time.Millisecond)
			}
		})
	}
	wg.Wait()
	until(t, "all calls end", func() bool { return counts(a) == (count{}) && counts(b) == (count{}) })
}

// TestLeadWaits has whoever waits for the peer, as who leads or while nobody does, see to it that what
// comes is read, without the timer.
func TestLeadWaits(t *testing.T) {
	var b *Conn
	a, b := sockets(t, config(echo), config(func(ctx context.Context, in *Incoming) {
		switch string(in.Body) {
		case "large":
			answer(in, string(make([]byte, 3<<20)))
		case "send", "items", "value":
			in.Reply(0, nil, NewMessage(), false)
			p := in.SendStream(1)
			switch string(in.Body) {
			case "send":
				p.Write(make([]byte, 500_000))
			case "items":
				for range 500 {
					p.Item(message(string(make([]byte, 1000))))
				}
			case "value":
				p.Item(message(string(make([]byte, 3<<20))))
			}
			in.CloseStream(p, nil, true)
		case "receive":
			r, err := in.RecvStream(1)
			if err == nil {
				_, err = io.ReadAll(r)
			}
			answer(in, fmt.Sprint(err))
		default:
			echo(ctx, in)
		}
	}))
	// held calls f while c's read loop does not lead and the timer does not look.
	held := func(c *Conn, f func(ctx context.Context)) {
		for {
			oneByOne(t, a, b)
			c.lead.mu.Lock()
			if leaderNow(c) != loopLeads {
				break
			}
			c.lead.mu.Unlock()
		}
		defer c.lead.mu.Unlock()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		f(ctx)
	}
	held(b, func(ctx context.Context) {
		if got, err := call(ctx, a, request("large")); len(got) != 3<<20 || err != nil {
			t.Errorf("a large answer: %d bytes, %v", len(got), err)
		}
	})
	for _, what := range []string{"send", "items", "value", "receive"} {
		held(b, func(ctx context.Context) {
			o, err := a.Start(ctx, request(what))
			if err != nil {
				t.Fatal(err)
			}
			if what == "receive" {
				time.AfterFunc(20*time.Millisecond, func() {
					p := o.SendStream(1)
					p.Write([]byte("x"))
					o.CloseStream(p, nil)
				})
			}
			if err := o.Wait(ctx); err != nil {
				t.Errorf("%s: %v", what, err)
				return
			}
			if what == "receive" {
				return
			}
			r, err := o.RecvStream(1)
			for err == nil {
				if what == "send" {
					_, err = r.next(ctx)
				} else {
					_, _, err = r.Items(ctx)
				}
			}
			if err != io.EOF {
				t.Errorf("%s: %v", what, err)
			}
		})
	}
	held(a, func(ctx context.Context) {
		for i := range 300 { // of 100 at a time
			q := request("y")
			q.Flags = wire.OneWay
			o, err := a.Start(ctx, q)
			if err != nil {
				t.Errorf("one-way call %d: %v", i, err)
				return
			}
			o.Forget()
		}
	})
}

// A small frame between the parts of a message is not read by the few bytes.
func TestLeadSmallBetweenParts(t *testing.T) {
	near, far := tcp(t)
	c := New(near, nil, config(nobody))
	defer c.Close()
	frame := append(wire.AppendHeader(nil, wire.Header{Type: wire.Ping}, 8000), make([]byte, 8000)...)
	if _, err := far.Write(frame); err != nil {
		t.Fatal(err)
	}
	reads := 0
	c.r.onRead = func(int) { reads++ }
	c.r.narrow = true
	if err := c.awaitFrame(); err != nil || reads > 10 {
		t.Errorf("%d reads of a frame, %v", reads, err)
	}
}

// Where both sides call, what the other calls is read at once.
func TestLeadBothWays(t *testing.T) {
	a, b := sockets(t, config(echo), config(echo))
	for n := range 500 {
		for _, c := range []*Conn{a, b} {
			if got, err := call(t.Context(), c, request("x")); got != "x" || err != nil {
				t.Fatalf("%q, %v", got, err)
			}
		}
		if leaderNow(a) != loopLeads || leaderNow(b) != loopLeads {
			t.Fatalf("after %d calls each way, a read loop has stepped back", n+1)
		}
	}
}

// How the connection ends does not depend on who finds out.
func TestLeadEndReason(t *testing.T) {
	big := wire.AppendHeader(nil, wire.Header{Type: wire.Response}, 60_000)
	for name, bytes := range map[string][]byte{
		"violation": wire.AppendHeader(nil, wire.Header{Type: wire.Hello}, 0),
		"end":       nil,
		"cut small": wire.AppendHeader(nil, wire.Header{Type: wire.Response}, 100),
		"cut large": append(big, make([]byte, 20_000)...),
	} {
		t.Run(name, func(t *testing.T) {
			ends := func(led bool) (called, over string) {
				a, b := sockets(t, config(nobody), config(func(ctx context.Context, in *Incoming) {
					if string(in.Body) != "bad" {
						echo(ctx, in)
						return
					}
					raw := in.conn.conn.(*net.TCPConn)
					raw.Write(bytes)
					raw.CloseWrite()
					<-ctx.Done()
				}))
				for led {
					oneByOne(t, a, b)
					a.lead.mu.Lock()
					if leaderNow(a) == nobodyLeads {
						defer a.lead.mu.Unlock()
						break
					}
					a.lead.mu.Unlock()
				}
				_, err := call(t.Context(), a, request("bad"))
				<-a.Done()
				b.Close()
				return fmt.Sprint(err), fmt.Sprint(a.Err())
			}
			calledLoop, overLoop := ends(false)
			called, over := ends(true)
			if called != calledLoop || over != overLoop {
				t.Errorf("who leads: %q, %q; the read loop: %q, %q", called, over, calledLoop, overLoop)
			}
			t.Log(called)
		})
	}
}
