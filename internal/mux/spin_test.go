//go:build unix

package mux

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// spinner returns what asks again whenever it is asked.
func spinner() (*spin, *lead, *reader) {
	l := &lead{reading: new(reading), load: new(atomic.Int32), id: 1, asks: true, procs: 2}
	l.reading.alone.Store(1)
	l.turn.Store(uint64(otherLeads))
	return new(spin), l, new(reader)
}

// asks reports whether it asks again in a read of its own.
func (s *spin) asks(l *lead, r *reader) bool {
	s.begin()
	return s.again(l, r)
}

func TestSpinWhen(t *testing.T) {
	for what, change := range map[string]func(*lead, *reader){
		"the read loop leads":            func(l *lead, _ *reader) { l.turn.Store(uint64(loopLeads)) },
		"there is one processor":         func(l *lead, _ *reader) { l.procs = 1 },
		"others wait for answers, too":   func(l *lead, _ *reader) { l.load.Store(2) },
		"it serves, and not one by one":  func(l *lead, _ *reader) { l.asks = false },
		"a call is served":               func(l *lead, _ *reader) { l.asks, l.lone = false, spinAfter; l.load.Store(1) },
		"another connection is read":     func(l *lead, _ *reader) { (&lead{reading: l.reading, id: 2}).reads() },
		"part of a frame is there":       func(_ *lead, r *reader) { r.w = 1 },
		"a part of a message is to come": func(_ *lead, r *reader) { r.narrow = true },
	} {
		s, l, r := spinner()
		if !s.asks(l, r) {
			t.Fatal("it waits")
		}
		s.found()
		if change(l, r); s.asks(l, r) || s.run != 0 {
			t.Errorf("it asks again although %s", what)
		}
	}
	s, l, r := spinner()
	l.asks, l.lone = false, spinAfter
	if !s.asks(l, r) {
		t.Error("it waits although it serves calls one by one")
	}
}

// It ends when another connection is read, or soon, or when nobody has waited for long; and then this
// read waits.
func TestSpinEnds(t *testing.T) {
	s, l, r := spinner()
	other := &lead{reading: l.reading, id: 2}
	if s.asks(l, r); s.polls == 0 {
		t.Fatal("it waits")
	}
	if other.reads(); s.again(l, r) {
		t.Error("it asks again after another connection was read")
	}
	for range spinAfter + 1 {
		if l.reads(); s.asks(l, r) {
			t.Error("it asks again soon after another connection was read")
		}
	}
	if !s.asks(l, r) {
		t.Error("it waits although no other connection was read for long")
	}
	for began := elapsed(); s.again(l, r); {
		if elapsed()-began > time.Second {
			t.Fatal("it goes on")
		}
	}
	if s.again(l, r) {
		t.Error("it asks again in the same read")
	}
	for began := elapsed(); s.asks(l, r); s.found() {
		if elapsed()-began > time.Second {
			t.Fatal("it goes on for ever where it always finds something")
		}
	}
	if s.again(l, r) {
		t.Error("it asks again in the same read")
	}
}

// It leaves what is of no use, for longer each time, until it was of use again.
func TestSpinLearns(t *testing.T) {
	s, l, r := spinner()
	useless := func(times int) {
		t.Helper()
		for times > 0 {
			vain := s.finds.vain
			s.begin()
			s.runs = merit{} // others may need this processor in fact
			for s.again(l, r) {
			}
			if s.polls == 0 {
				t.Fatal("it waits")
			}
			if s.finds.vain != vain { // or this took longer than spinRun
				times--
			}
		}
	}
	waits := func(times int) {
		t.Helper()
		for range times {
			if s.asks(l, r) {
				t.Fatal("it asks again")
			}
		}
	}
	for rest := spinRest; rest < 4*maxSpinRest; rest *= 2 {
		useless(spinTries)
		waits(min(rest, maxSpinRest))
	}
	for s.finds.vain > -spinTries {
		if s.asks(l, r) {
			s.found()
		}
	}
	useless(2 * spinTries)
	waits(spinRest)
}

// It leaves it for long where other threads take the processor and nothing comes meanwhile.
func TestSpinCrowded(t *testing.T) {
	s, l, r := spinner()
	begins := func(taken bool) {
		t.Helper()
		vain := s.runs.vain
		s.run = 0
		if !s.asks(l, r) {
			t.Fatal("it waits")
		}
		if taken {
			s.taken, s.runs.vain = true, vain
		}
	}
	for range crowdTries {
		begins(true)
		s.found() // so it was the peer that took it
	}
	if s.runs.vain != 0 {
		t.Error("what the peer does counts as what others do")
	}
	for range crowdTries {
		begins(true)
		if s.again(l, r) {
			t.Error("it asks again")
		}
	}
	for range crowdRest {
		if s.asks(l, r) {
			t.Fatal("it asks again soon")
		}
	}
	begins(false)
}

// A read that has asked again has waited: what it brings did not come while something else was done.
func TestSpinWaits(t *testing.T) {
	processors(t)
	near, far := tcp(t)
	_, l, in := spinner()
	r := newRawConn(near, l)
	var write, over atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() { // on a processor of its own
		for !over.Load() {
			if write.CompareAndSwap(true, false) {
				for began := elapsed(); elapsed()-began < spinFor/4; {
				}
				far.Write([]byte("x"))
			}
		}
	})
	defer wg.Wait()
	defer over.Store(true)
	until(t, "something comes while it asks again", func() bool {
		r.spin, in.waited = spin{}, false
		write.Store(true)
		if n, err := r.read(in); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		in.r, in.w = 0, 0
		found := r.spin.polls > 0 && !r.spin.done
		if found && !in.waited {
			t.Error("it has not waited")
		}
		return found
	})
}

// processors has the program use two processors at least.
func processors(t *testing.T) {
	if before := runtime.GOMAXPROCS(0); before < 2 {
		runtime.GOMAXPROCS(2)
		t.Cleanup(func() { runtime.GOMAXPROCS(before) })
	}
}

// spun reports whether who calls has asked again, if nobody leads just now.
func spun(c *Conn) (spun, ok bool) {
	turn := c.lead.turn.Load()
	if leaderOf(turn) != nobodyLeads {
		return false, false
	}
	if turn, ok = c.lead.change(turn, otherLeads); !ok {
		return false, false
	}
	spun = c.r.raw.spin.began != 0
	c.lead.change(turn, nobodyLeads)
	c.neededLead()
	return spun, true
}

// Where calls come one at a time, both ends ask again.
func TestSpin(t *testing.T) {
	processors(t)
	var served atomic.Bool
	a, b := sockets(t, config(nobody), config(func(ctx context.Context, in *Incoming) {
		if leaderNow(in.conn) == otherServes && in.conn.r.raw.spin.began != 0 {
			served.Store(true)
		}
		echo(ctx, in)
	}))
	until(t, "both ends ask again", func() bool {
		oneByOne(t, a, b)
		called, ok := spun(a)
		return ok && called && served.Load()
	})
}

// They do not where two connections of a process take turns.
func TestSpinInTurn(t *testing.T) {
	processors(t)
	client, server := config(nobody), config(echo)
	client.reading, server.reading = new(reading), new(reading)
	a, _ := sockets(t, client, server)
	b, _ := sockets(t, client, server)
	looked := 0
	until(t, "nobody leads", func() bool {
		for range 100 {
			for _, c := range []*Conn{a, b} {
				if got, err := call(t.Context(), c, request("x")); got != "x" || err != nil {
					t.Fatalf("%q, %v", got, err)
				}
			}
		}
		for _, c := range []*Conn{a, b} {
			called, ok := spun(c)
			if called {
				t.Fatal("it asks again")
			}
			if ok {
				looked++
			}
		}
		return looked > 20
	})
}
