package mux

import "time"

// pace bounds how much of the messages in parts is on its way: sent, and not yet taken by
// the peer, which says so with CREDIT on channel 0. All that the peer has still to take
// is in front of the next small frame, so this is what a small call beside a large message
// waits for. Sockets would take some MiB.
//
// The bound is small, and grows only where it would hold up a long path: as long as the
// peer's word comes after little more than the time that the path needs, it is doubled. When
// it comes after a multiple of that, what is on its way only waits, and it is halved.
type pace struct {
	sent, taken uint64 // bytes since the connection began
	window      uint64 // the most that may be on its way, in bytes
	full        bool   // there was more to send than the window let
	// crowd is how many writes without a small message make it calm again; 0: it is. While it
	// is not, small messages want to go past, and less is on its way.
	crowd int

	// slow says that the last stretch, so much as may be sent in one turn, took longer than a turn may.
	slow    bool
	stretch uint64        // sent when it began
	begun   time.Duration // when, by elapsed
	last    time.Duration // when something was sent last

	// One measurement at a time: from the sending of a byte to the peer's word that it has
	// taken that.
	measuring bool
	mark      uint64
	since     time.Time
	least     time.Duration // of those made since there was last next to nothing on its way
}

const (
	// takenStep is how much of messages in parts a side takes before it says so, in bytes: four
	// full parts. See SPEC.md, "Messages in parts".
	takenStep = 4 * partSize
	minPace   = 8 * partSize
	calmPace  = 16 * partSize
	maxPace   = 16 << 20
	// turnSize is how much of a message may be sent in one turn, in bytes, and turnTime how long that may
	// take: over a path on which it takes longer a turn is one part.
	turnSize = 1 << 20
	turnTime = 10 * time.Millisecond
	// crowdWrites is how long small messages are remembered, in writes.
	crowdWrites = 16
	// shortPath is what takes no more than that for a part to be taken, such as a local
	// network: there the smallest bound fills it.
	shortPath = time.Millisecond
)

// room reports whether a part may be sent.
func (p *pace) room() bool {
	least := uint64(calmPace)
	if p.crowd > 0 {
		least = minPace
	}
	if p.sent-p.taken < max(p.window, least) {
		return true
	}
	p.full = true
	return false
}

// write counts a write, with small messages or without, and returns how many parts it may
// carry.
func (p *pace) write(small bool) int {
	if small {
		p.crowd = crowdWrites
	}
	if p.crowd > 0 {
		p.crowd--
		return partsPerWrite / 2
	}
	return partsPerWrite
}

// send counts what is about to be sent.
func (p *pace) send(n int) {
	if p.sent-p.taken < takenStep { // the peer may have taken all: it need not say so of less
		p.least, p.measuring = 0, false
	}
	now := elapsed()
	if idle := now-p.last > turnTime && p.sent-p.taken < takenStep; idle || p.last == 0 {
		p.stretch, p.begun = p.sent, now
	}
	p.last = now
	p.sent += uint64(n)
	if p.sent-p.stretch > turnSize {
		p.slow = now-p.begun > turnTime
		p.stretch, p.begun = p.sent, now
	}
	if !p.measuring {
		p.measuring, p.mark, p.since, p.full = true, p.sent, time.Now(), false
	}
}

// take counts what the peer has taken, and reports whether it can have.
func (p *pace) take(n uint64) bool {
	if n > p.sent-p.taken {
		return false
	}
	p.taken += n
	if !p.measuring || p.taken < p.mark {
		return true
	}
	p.measuring = false
	took := time.Since(p.since)
	if p.least == 0 || took < p.least {
		p.least = took
	}
	p.window = max(p.window, minPace)
	switch {
	case p.full && p.least > shortPath && 2*took < 3*p.least:
		p.window = min(2*p.window, maxPace)
	case took > 3*p.least:
		p.window = max(p.window/2, minPace)
	}
	return true
}
