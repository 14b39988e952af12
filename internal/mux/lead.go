package mux

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/yonder-rpc/yonder/internal/wire"
)

// To wake another goroutine takes as long as a small call on machines where an idle processor is slow
// to wake. So where calls come one at a time and soon one after the other, the read loop steps back,
// and who waits for the answer reads it, or who has served a call reads the next: the pattern that is
// known as leader/followers. Who reads is said to lead. Others lead only for a moment: whatever keeps
// them, the read loop leads again within two ticks, and while it does not, nobody else is served on
// the connection. See DESIGN.md, "Who reads".

const (
	// leadTick is how often those who lead in the read loop's place are looked at.
	leadTick = 2 * time.Millisecond
	// leadGap is how soon one call must follow the other.
	leadGap = time.Millisecond
	// leadAfter is how many calls in a row must be so before the read loop steps back, and leadRest how
	// many more if it has done so and was needed again.
	leadAfter = 16
	leadRest  = 32
	// leadTurned is how many more after a call the other way: what comes from a peer that calls, too,
	// should not have to wait for the read loop often.
	leadTurned = 1024
	// quickServe is how little time a call may take for who reads to serve it, and slowServe how much
	// shows that others of the procedure may take as much.
	quickServe = 200 * time.Microsecond
	slowServe  = time.Millisecond
	// alongServe is what is worth waking another goroutine for: two callers whose calls take longer are
	// served by two.
	alongServe = 20 * time.Microsecond
)

// A leader is who reads, or would.
type leader uint8

const (
	loopLeads   leader = iota // the read loop
	nobodyLeads               // the next that waits for an answer may
	otherLeads                // who waits for an answer, or a worker
	otherServes               // a worker leads, and serves a call before it reads on
	leaderBits  = 2
)

// lead is who reads a connection.
type lead struct {
	able bool // others than the read loop can lead
	// turn is a leader, and above leaderBits a count of the changes.
	turn atomic.Uint64
	back chan struct{} // receives when the read loop leads again
	// kick is set when another is to leave: its read fails.
	kick atomic.Bool

	// Of who leads.
	pause bool      // the read loop should ask itself whether to step back
	call  *Incoming // to be served by who leads
	err   error     // why the read loop has to go on, and end
	alone int       // calls that were, in a row; negative: of those that do not count
	ours  bool      // the last of them was this side's; before the first one, whether this side dials
	last  time.Time // when the last of them came

	// Guarded by leads.mu.
	watched bool
	seen    uint64 // turn, at the last tick
}

// change has another lead if turn still is what was seen of it. It returns the new turn.
func (l *lead) change(seen uint64, to leader) (turn uint64, ok bool) {
	turn = (seen>>leaderBits+1)<<leaderBits | uint64(to)
	return turn, l.turn.CompareAndSwap(seen, turn)
}

func leaderOf(turn uint64) leader { return leader(turn & (1<<leaderBits - 1)) }

// next counts a call that came alone, or if it is ours was answered, and reports whether the read loop
// should step back.
func (l *lead) next(ours bool) bool {
	now := time.Now()
	if now.Sub(l.last) > leadGap {
		l.alone = min(l.alone, 0)
	}
	if ours != l.ours {
		l.alone = -leadTurned
	}
	l.last, l.ours = now, ours
	l.alone++
	return l.alone > leadAfter
}

// alone reports whether who has read a call should serve it: it is the only one, so many before it
// were, too, and took little time.
func (c *Conn) alone(in *Incoming) bool {
	l := &c.lead
	switch {
	case !l.able:
		return false
	case c.load.Load() > 1 || !c.r.empty() || in.Flags&(wire.OneWay|wire.Callback|wire.Check) != 0:
		l.alone = min(l.alone, 0)
		return false
	}
	in.timed = true
	return (leaderOf(l.turn.Load()) != loopLeads || l.next(false)) && in.Name.quick.Load() >= leadAfter
}

// took takes note of how long a call took that was alone.
func (n *Name) took(t time.Duration) {
	quick := n.quick.Load()
	switch {
	case t <= quickServe:
		quick = min(quick+1, 2*leadAfter)
	case t < slowServe: // or others had the processor
		quick = max(quick-leadAfter/2, 0)
	default:
		quick = -leadRest
	}
	n.quick.Store(quick)
}

// pause has the read loop step back if it should, until it leads again.
//
//go:noinline
func (c *Conn) pause() error {
	l := &c.lead
	l.pause = false
	turn := l.turn.Load()
	if in := l.call; in != nil {
		l.call = nil
		in.turn, _ = l.change(turn, otherServes)
		c.workers.leads.watch(c)
		c.workers.start(in)
	} else {
		if c.load.Load() > 0 {
			l.alone = min(l.alone, 0)
			return nil
		}
		if !l.next(true) {
			return nil
		}
		c.woke = false
		l.change(turn, nobodyLeads)
		c.workers.leads.watch(c)
		c.neededLead()
	}
	<-l.back
	l.alone = -leadRest
	return l.err
}

// leadFor has the caller of a call lead if nobody does, until it has its answer, or should not lead
// any more. It also sees to it that somebody will read that answer.
func (c *Conn) leadFor(o *Outgoing) {
	l := &c.lead
	turn := l.turn.Load()
	switch leaderOf(turn) {
	case nobodyLeads:
		if _, ok := l.change(turn, otherLeads); !ok {
			return
		}
	case otherServes: // perhaps the very handler that calls
		c.recallLead()
		return
	default:
		return
	}
	for len(o.ready) == 0 {
		if !c.leadFrame() {
			c.returnLead()
			return
		}
	}
	if !c.r.empty() || c.load.Load() > 0 {
		c.returnLead()
		return
	}
	c.woke = false
	l.change(l.turn.Load(), nobodyLeads)
	c.neededLead()
}

// neededLead has the read loop lead if nobody does, but there are calls: who began one while another
// led has left the answer to that one.
func (c *Conn) neededLead() {
	if c.load.Load() > 0 {
		c.recallLead()
	}
}

// leadOn has a worker lead that has served a call as who leads: it reads the next one, and serves it,
// for as long as they come one at a time. turn is its turn, and took how long the call took.
func (c *Conn) leadOn(turn uint64, took time.Duration) {
	l := &c.lead
	for along := 0; ; { // calls in a row that had come while the one before was served
		var ok bool
		if turn, ok = l.change(turn, otherLeads); !ok {
			return // it took too long
		}
		c.r.waited = false
		for l.call == nil {
			if c.load.Load() > 0 || !c.leadFrame() {
				c.returnLead()
				return
			}
		}
		in := l.call
		l.call, l.pause = nil, false
		if along++; c.r.waited || took <= alongServe {
			along = 0
		}
		if along == leadAfter {
			c.workers.start(in)
			c.returnLead()
			return
		}
		turn, _ = l.change(turn, otherServes)
		took = c.serve(in)
	}
}

// leadFrame takes the next frame. It reports false if the read loop must go on: another has waited too
// long for one, or the connection is over. Nothing is lost of a frame that has not come whole.
func (c *Conn) leadFrame() bool {
	err := c.awaitFrame()
	if err == nil {
		c.later.run()
		var h wire.Header
		var n int
		if h, n, err = c.r.peekHeader(); err == nil {
			err = c.readFrame(h, n)
		}
	}
	if err != nil && err != errKicked {
		c.lead.err = err
	}
	return err == nil
}

// awaitFrame reads until so much of a frame is there that readFrame can be kicked without a loss.
func (c *Conn) awaitFrame() error {
	r := &c.r
	for need := wire.HeaderSize; ; {
		if r.w-r.r >= need {
			h, n, err := r.peekHeader()
			switch {
			case err != nil:
				return err
			case h.Type == wire.Part && n > 0:
				need = partHead
			case wire.HeaderSize+n <= wholeFrame:
				need, r.narrow = wire.HeaderSize+n, false
			}
			if r.w-r.r >= need {
				return nil
			}
		}
		if err := r.more(need); err != nil {
			return err
		}
	}
}

// returnLead has the read loop lead again. Who leads calls it.
func (c *Conn) returnLead() {
	c.lead.change(c.lead.turn.Load(), loopLeads)
	c.lead.back <- struct{}{}
}

// recallLead has the read loop lead again if nobody reads. Whoever waits for something of the peer's
// calls it first.
func (c *Conn) recallLead() {
	l := &c.lead
	for {
		turn := l.turn.Load()
		switch leaderOf(turn) {
		case loopLeads, otherLeads:
			return
		}
		if _, ok := l.change(turn, loopLeads); ok {
			l.back <- struct{}{}
			return
		}
	}
}

// kicked reports whether a read has failed only to have who reads look up, and has others succeed.
func (c *Conn) kicked(err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) || !c.lead.kick.Load() {
		return false
	}
	c.r.raw.limit(time.Time{})
	c.lead.kick.Store(false) // last: it may be set again at once
	return true
}

// leads has the connections that are not led by their read loops looked at.
type leads struct {
	mu    sync.Mutex
	conns []*Conn
	timer *time.Timer
}

// watch has a connection looked at until its read loop leads.
func (w *leads) watch(c *Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.lead.watched {
		return
	}
	c.lead.watched = true
	if w.conns = append(w.conns, c); len(w.conns) > 1 {
		return
	}
	if w.timer == nil {
		w.timer = time.AfterFunc(leadTick, w.look)
	} else {
		w.timer.Reset(leadTick)
	}
}

// look ends the turns that have taken too long.
func (w *leads) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	kept := w.conns[:0]
	for _, c := range w.conns {
		l := &c.lead
		turn := l.turn.Load()
		switch who := leaderOf(turn); {
		case who == loopLeads:
			l.watched = false
			continue
		case turn != l.seen:
		case who == otherLeads:
			if !l.kick.Swap(true) {
				c.r.raw.limit(time.Now())
			}
		default:
			if _, ok := l.change(turn, loopLeads); ok {
				l.back <- struct{}{}
			}
		}
		l.seen = turn
		kept = append(kept, c)
	}
	clear(w.conns[len(kept):])
	if w.conns = kept; len(kept) > 0 {
		w.timer.Reset(leadTick)
	}
}
