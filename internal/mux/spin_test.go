//go:build unix

package mux

import (
	"runtime"
	"testing"
	"time"
)

// spinner returns what asks again whenever it is asked, on two processors.
func spinner(t *testing.T) (*spin, *lead, *reader) {
	before := runtime.GOMAXPROCS(2)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
	l := &lead{reading: new(reading), id: 1, asks: true, solo: spinAfter}
	l.reading.last.Store(1)
	l.turn.Store(uint64(otherLeads))
	return new(spin), l, new(reader)
}

func TestSpinWhen(t *testing.T) {
	for what, change := range map[string]func(*lead, *reader){
		"the read loop leads":             func(l *lead, _ *reader) { l.turn.Store(uint64(loopLeads)) },
		"it serves, and not one at time":  func(l *lead, _ *reader) { l.asks = false },
		"other connections are read, too": func(l *lead, _ *reader) { l.solo = spinAfter - 1 },
		"part of a frame is there":        func(_ *lead, r *reader) { r.w = 1 },
		"a part of a message is to come":  func(_ *lead, r *reader) { r.narrow = true },
		"there is one processor":          func(*lead, *reader) { runtime.GOMAXPROCS(1) },
	} {
		s, l, r := spinner(t)
		if !s.again(l, r) {
			t.Fatal("it waits")
		}
		s.found()
		if change(l, r); s.again(l, r) || s.run != 0 {
			t.Errorf("it asks again although %s", what)
		}
	}
	s, l, r := spinner(t)
	l.asks, l.lone = false, spinAfter
	if !s.again(l, r) {
		t.Error("it waits although it serves one at a time")
	}
}

// It stops when another connection is read, or soon, or when it has not waited for long.
func TestSpinEnds(t *testing.T) {
	s, l, r := spinner(t)
	s.again(l, r)
	l.reading.last.Store(2)
	if s.again(l, r) {
		t.Error("it asks again after another connection was read")
	}
	l.reading.last.Store(1)
	s.again(l, r)
	time.Sleep(2 * spinFor)
	if s.again(l, r) {
		t.Errorf("it asks again after %v", 2*spinFor)
	}
	s.again(l, r)
	s.found()
	time.Sleep(2 * spinRun)
	vain := s.vain
	if s.again(l, r) || s.vain != vain {
		t.Errorf("it asks again after %v without waiting", 2*spinRun)
	}
	if !s.again(l, r) {
		t.Error("it waits although it just has")
	}
}

// It leaves what is of no use, for longer each time, until it was of use again.
func TestSpinLearns(t *testing.T) {
	s, l, r := spinner(t)
	useless := func(times int) {
		t.Helper()
		for times > 0 {
			vain := s.vain
			if !s.again(l, r) {
				t.Fatal("it waits")
			}
			for s.again(l, r) {
			}
			if s.vain != vain { // or this took longer than spinRun
				times--
			}
		}
	}
	waits := func(times int) {
		t.Helper()
		for range times {
			if s.again(l, r) {
				t.Fatal("it asks again")
			}
		}
	}
	for rest := spinRest; rest < 4*maxSpinRest; rest *= 2 {
		useless(spinTries)
		waits(min(rest, maxSpinRest))
	}
	for s.vain > -spinTries {
		s.again(l, r)
		s.found()
	}
	useless(2 * spinTries)
	waits(spinRest)
}

// A caller that is alone asks again.
func TestSpin(t *testing.T) {
	if before := runtime.GOMAXPROCS(0); before < 2 {
		runtime.GOMAXPROCS(2)
		defer runtime.GOMAXPROCS(before)
	}
	a, b := sockets(t, config(nobody), config(echo))
	until(t, "it asks again", func() bool {
		oneByOne(t, a, b)
		turn := a.lead.turn.Load()
		if leaderOf(turn) != nobodyLeads {
			return false
		}
		turn, ok := a.lead.change(turn, otherLeads)
		if !ok {
			return false
		}
		s := a.r.raw.spin
		a.lead.change(turn, nobodyLeads)
		a.neededLead()
		return s != spin{}
	})
}
