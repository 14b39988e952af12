//go:build unix

package mux

import (
	"runtime"
	"time"
)

// To sleep until a message comes, and to be woken, takes the processors of both ends longer than a small
// call does. So who leads and is alone asks the socket again for a moment before it waits.

const (
	// spinFor is how long: as long as a peer that sleeps takes to answer a small call, so that one end
	// can begin with it where the other does not.
	spinFor = 20 * time.Microsecond
	// spinRun is for how long it may go on so without waiting, which lets other goroutines run.
	spinRun = time.Millisecond
	// spinTries is how many more times it may have been of no use than of use, before it is left out
	// for as many waits as spinRest says; for twice as many each time, but at most maxSpinRest, until
	// it has been of use as many times more than not.
	spinTries             = 16
	spinRest, maxSpinRest = 64, 1024
)

// spin is when to ask again.
type spin struct {
	began time.Duration // in this wait; 0: not in this one
	run   time.Duration // since when there was no waiting; 0: the last wait was one
	vain  int           // times that it was of no use, less those that it was, within spinTries either way
	rest  int           // waits for which it was last left out; 0: it was of use since
	skip  int           // waits for which to leave it out now
}

// again reports whether to ask the socket again that has nothing to read just now.
func (s *spin) again(l *lead, in *reader) bool {
	if s.began == 0 && !s.may(l, in) {
		s.run = 0
		return false
	}
	now := elapsed()
	if s.began == 0 {
		if s.began = now; s.run == 0 {
			s.run = now
		}
	}
	switch {
	case now-s.run >= spinRun:
	case now-s.began < spinFor && l.reading.last.Load() == l.id:
		return true
	default:
		if s.vain++; s.vain == spinTries {
			s.rest = min(max(2*s.rest, spinRest), maxSpinRest)
			s.vain, s.skip = 0, s.rest
		}
	}
	s.began, s.run = 0, 0
	return false
}

// may reports whether to ask again in this wait.
func (s *spin) may(l *lead, in *reader) bool {
	switch {
	case !l.led() || !l.asks && l.lone < spinAfter: // somebody else may need the processor
		return false
	case l.solo < spinAfter: // so may other connections
		return false
	case !in.empty() || in.narrow: // the rest of a large message takes longer
		return false
	case s.skip > 0:
		s.skip--
		return false
	}
	return runtime.GOMAXPROCS(0) > 1 // or the peer may have to wait for this processor
}

// found takes note that there was something to read.
func (s *spin) found() {
	if s.began != 0 {
		s.began = 0
		if s.vain = max(s.vain-1, -spinTries); s.vain == -spinTries {
			s.rest = 0
		}
	}
}
