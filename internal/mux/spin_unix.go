//go:build unix

package mux

import "time"

// To sleep until a message comes, and to be woken, takes the processors of both ends longer than a small
// call does. So who leads and is alone asks the socket again for a moment before it waits.

const (
	// spinFor is how long: as long as a peer that sleeps takes to answer a small call, so that one end
	// can begin with it where the other does not. maxPolls bounds it where time stands still.
	spinFor  = 20 * time.Microsecond
	maxPolls = 1000
	// spinRun is for how long it may go on so without waiting, which lets other goroutines run. Before
	// that it yields the processor to other threads, and if they keep it for crowdTime without bringing
	// anything, others need it.
	spinRun   = 400 * time.Microsecond
	crowdTime = 10 * time.Microsecond
	// spinAfter is how many calls in a row must have been alone, and for how many waits no other
	// connection of the process was read.
	spinAfter = 16
	// spinTries is how many more times it may have been of no use than of use, before it is left out
	// for as many waits as spinRest says; for twice as many each time, but at most maxSpinRest, until
	// it has been of use as many times more than not. crowdTries and crowdRest are the same of others
	// that need the processor.
	spinTries, spinRest   = 16, 64
	crowdTries, crowdRest = 2, 1024
	maxSpinRest           = 8192
)

// spin is when to ask again.
type spin struct {
	polls int           // in this read; 0: it did not ask again
	done  bool          // in this read it will not do so, or not any more
	taken bool          // other threads have just had the processor for long
	began time.Duration // when it last began
	run   time.Duration // since when there was no waiting; 0: the last wait was one
	skip  int           // waits for which to leave it out now
	finds merit         // of what it finds
	runs  merit         // of what nobody else misses
}

// merit is whether to go on with something.
type merit struct {
	vain int // times that it was of no use, less those that it was
	rest int // for how long it was last left out; 0: it was of use since
}

// good takes note that it was of use.
func (m *merit) good(tries int) {
	if m.vain = max(m.vain-1, -tries); m.vain == -tries {
		m.rest = 0
	}
}

// bad takes note that it was of none, and returns for how long to leave it out: for rest at first.
func (m *merit) bad(tries, rest int) int {
	if m.vain++; m.vain < tries {
		return 0
	}
	m.vain, m.rest = 0, min(max(2*m.rest, rest), maxSpinRest)
	return m.rest
}

// begin begins a read.
func (s *spin) begin() { s.polls, s.done = 0, false }

// again reports whether to ask the socket again that has nothing to read just now.
func (s *spin) again(l *lead, in *reader) bool {
	if s.done {
		return false
	}
	if s.polls == 0 && !s.may(l, in) {
		s.done, s.run = true, 0
		return false
	}
	now := elapsed()
	if s.polls == 0 {
		if s.run == 0 || now-s.began > 5*spinFor {
			s.run = now
			yield()
			now = elapsed()
			if s.taken = now-s.run > crowdTime; !s.taken {
				s.runs.good(crowdTries)
			}
		}
		s.began = now
	}
	switch s.polls++; {
	case s.taken && s.polls == 1: // by the peer, if something has come
		return true
	case s.taken:
		s.taken, s.skip = false, s.runs.bad(crowdTries, crowdRest)
	case now-s.run >= spinRun:
	case now-s.began < spinFor && s.polls < maxPolls && l.reading.alone.Load() == l.id:
		return true
	default:
		s.skip = s.finds.bad(spinTries, spinRest)
	}
	s.done, s.run = true, 0
	return false
}

// may reports whether to ask again in this wait.
func (s *spin) may(l *lead, in *reader) bool {
	switch {
	case !l.led() || l.procs < 2: // whoever is waited for may need this processor
		return false
	case l.asks && l.load.Load() > 1, !l.asks && (l.load.Load() > 0 || l.lone < spinAfter): // so may others
		return false
	case !in.empty() || in.narrow: // the rest of a large message takes longer
		return false
	case s.skip > 0:
		s.skip--
		return false
	case l.reading.alone.Load() != l.id:
		l.reading.alone.Store(l.id)
		s.skip = spinAfter
		return false
	}
	return true
}

// found takes note that the read has come to something.
func (s *spin) found() {
	if s.polls > 0 && !s.done {
		s.taken = false
		s.finds.good(spinTries)
	}
}
