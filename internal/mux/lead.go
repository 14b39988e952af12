package mux

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/yonder-rpc/yonder/internal/wire"
)

// To wake another goroutine takes as long as a small call, or several where an idle processor is slow
// to wake. So where calls come one at a time and soon one after the other, or take so little time that
// to hand them over takes more, the read loop steps back, and who waits for the answer reads it, or who
// has served a call reads and serves the next: the pattern that is known as leader/followers. Who reads
// is said to lead. Others lead only for a moment: whatever keeps them, the read loop leads again within
// two ticks, and while it does not, nothing that comes on the connection is begun. See DESIGN.md, "Who
// reads".

const (
	// leadTick is how long a turn in the read loop's place may last until it is looked at, and once more
	// until it is ended.
	leadTick = 2 * time.Millisecond
	// leadGap is how soon one call must follow the other.
	leadGap = time.Millisecond
	// leadAfter is how many calls in a row must be so before the read loop steps back, and leadRest how
	// many more if it has done so and was needed again.
	leadAfter = 16
	leadRest  = 32
	// newAfter is how many calls of a procedure must be so that has not been called before, after the
	// first one, which finds it. Where many procedures are called, few are called often.
	newAfter = 3
	// leadTurned is how many more after a call the other way: what comes from a peer that calls, too,
	// should not have to wait for the read loop often.
	leadTurned = 1024
	// quickServe is how little time a call that is alone may take for who reads to serve it, shortServe
	// one that is not, and slowServe how much shows that others of the procedure may take as much.
	quickServe = 200 * time.Microsecond
	shortServe = 10 * time.Microsecond
	slowServe  = time.Millisecond
	// leadSpan is how much time the calls that have come with one read may take before the others of
	// them are handed over.
	leadSpan = 100 * time.Microsecond
	// rareSlow is how many calls there must be from one slow one to the next: a handler that now and
	// then waits is not to keep the others on the connection waiting often, but one whose processor
	// others had for a moment is as good as before. A procedure that is slow more often than that needs
	// twice as many short calls in a row as the time before, up to leadRest<<maxStrikes.
	rareSlow   = 16 << 10
	maxStrikes = 16
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
	able    bool          // others than the read loop can lead
	load    *atomic.Int32 // the connection's
	reading *reading
	id      uint64 // of the connection, to reading
	// turn is a leader, and above leaderBits a count of the changes.
	turn atomic.Uint64
	back chan struct{} // receives when the read loop leads again
	// kick is set when another is to leave: its read fails.
	kick atomic.Bool

	// Of who leads.
	asks  bool          // it is a caller, who serves nobody
	pause bool          // the read loop should ask itself whether to step back
	call  *Incoming     // to be served by who leads
	err   error         // why the read loop has to go on, and end
	alone int           // calls that were, in a row; negative: of those that do not count
	ours  bool          // the last of them was this side's; before the first one, whether this side dials
	last  time.Time     // when the last of them came
	spent time.Duration // that calls have taken which came with the last read
	lone  uint          // calls that it was to serve, in a row, each of them the only one
	procs int           // processors that the program may use

	// watch ends a turn that takes too long; nil: there was none. Who begins one puts it off, so that it
	// seldom goes off for nothing: that wakes a goroutine.
	watch *time.Timer
	off   time.Duration // when that was last done, by elapsed; of who leads

	mu   sync.Mutex // guards seen
	seen uint64     // turn, when watch last went off
}

// reading says which connection is the only one that is read, of those of the process.
type reading struct {
	ids   atomic.Uint64 // given
	alone atomic.Uint64 // the id of one that wants to know; 0: it is not the only one, or none wants to
}

var processReading reading

// reads takes note that the connection is about to be read.
func (l *lead) reads() {
	if who := l.reading.alone.Load(); who != 0 && who != l.id {
		l.reading.alone.Store(0)
	}
}

// change has another lead if turn still is what was seen of it. It returns the new turn.
func (l *lead) change(seen uint64, to leader) (turn uint64, ok bool) {
	turn = (seen>>leaderBits+1)<<leaderBits | uint64(to)
	return turn, l.turn.CompareAndSwap(seen, turn)
}

// led reports whether another than the read loop leads, or may.
func (l *lead) led() bool { return leaderOf(l.turn.Load()) != loopLeads }

func leaderOf(turn uint64) leader { return leader(turn & (1<<leaderBits - 1)) }

// next counts a call that came alone, or if it is ours was answered, and reports whether the read loop
// should step back.
func (l *lead) next(ours bool) bool {
	now := time.Now()
	if now.Sub(l.last) > leadGap {
		l.alone = min(l.alone, 0)
	}
	l.last = now
	return l.count(ours)
}

// count is next whenever the call came.
func (l *lead) count(ours bool) bool {
	if ours != l.ours {
		l.alone, l.ours = -leadTurned, ours
	}
	l.alone++
	return l.alone > leadAfter
}

// serves reports whether who has read a call should serve it: it takes little time, by those of its
// procedure before it, and as many before it were the only ones, or took less than to hand them over.
func (c *Conn) serves(in *Incoming) bool {
	l := &c.lead
	lone := l.lone
	l.lone = 0
	switch {
	case !l.able || l.asks:
		return false
	case in.Flags&(wire.OneWay|wire.Callback|wire.Check) != 0:
		l.alone = min(l.alone, 0)
		return false
	}
	in.timed = true
	loop := leaderOf(l.turn.Load()) == loopLeads
	switch {
	case c.load.Load() <= 1 && c.r.empty():
		if loop && !l.next(false) || in.Name.quick.Load() < leadAfter {
			return false
		}
		l.lone = lone + 1
		return true
	case in.Name.short.Load() < leadAfter:
		l.alone = min(l.alone, 0)
		return false
	case loop:
		return l.count(false)
	}
	return l.spent < leadSpan
}

// programStart is what elapsed counts from.
var programStart = time.Now()

// elapsed returns how long the program has run, by the monotonic clock alone.
func elapsed() time.Duration { return time.Since(programStart) }

// newName returns a procedure that has not been called.
func newName(name, signature string) *Name {
	n := &Name{Name: name, Signature: signature}
	n.quick.Store(leadAfter - newAfter)
	n.short.Store(leadAfter - newAfter)
	n.sinceSlow.Store(-1)
	return n
}

// took takes note of how long a call took.
func (n *Name) took(t time.Duration) {
	since, strikes := n.sinceSlow.Load(), n.strikes.Load()
	switch {
	case since < 0:
		n.sinceSlow.Store(0)
		return
	case t >= slowServe:
		if since < rareSlow {
			strikes = min(strikes+1, maxStrikes)
			n.strikes.Store(strikes)
		}
		n.sinceSlow.Store(0)
	case since < rareSlow:
		n.sinceSlow.Store(since + 1)
		if since+1 == rareSlow && strikes > 0 {
			n.strikes.Store(strikes - 1)
			n.sinceSlow.Store(0)
		}
	}
	note(&n.quick, t, quickServe, leadRest)
	note(&n.short, t, shortServe, leadRest<<strikes)
}

// note counts a call that took so long, where those of at most limit count, and after a slow one they
// do not until there were rest.
func note(count *atomic.Int32, t, limit time.Duration, rest int32) {
	before := count.Load()
	now := before
	switch {
	case t <= limit:
		now = min(before+1, 2*leadAfter)
	case t >= slowServe:
		now = -rest
	case before > 0: // or others had the processor
		now = max(before-leadAfter/2, 0)
	}
	if now != before {
		count.Store(now)
	}
}

// pause has the read loop step back if it should, until it leads again.
//
//go:noinline
func (c *Conn) pause() error {
	l := &c.lead
	l.pause, l.procs = false, runtime.GOMAXPROCS(0)
	if l.watch == nil {
		l.watch = time.AfterFunc(leadTick, c.lookLead)
	}
	turn := l.turn.Load()
	if in := l.call; in != nil {
		l.call = nil
		in.turn, _ = l.change(turn, otherServes)
		l.watch.Reset(leadTick)
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
		l.watch.Reset(leadTick)
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
	l.putOff()
	l.asks = true
	for len(o.ready) == 0 {
		if !c.leadFrame() {
			l.asks = false
			c.returnLead()
			return
		}
	}
	l.asks = false
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

// leadOn has a worker lead that has served a call as who leads: it reads on, and serves what it
// should. turn is its turn, and took how long the call took.
func (c *Conn) leadOn(turn uint64, took time.Duration) {
	l := &c.lead
	for along := 0; ; { // calls in a row that had come while the one before was served
		var ok bool
		if turn, ok = l.change(turn, otherLeads); !ok {
			return // it took too long
		}
		if c.r.empty() {
			l.putOff()
		}
		l.spent += took
		c.r.waited = false
		for l.call == nil {
			if !c.leadFrame() {
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
		in.turn = turn
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

// putOff has watch go off later, if it was not put off just now.
func (l *lead) putOff() {
	if now := elapsed(); now-l.off >= leadTick/2 {
		l.off = now
		l.watch.Reset(leadTick)
	}
}

// lookLead ends a turn that has lasted since watch last went off.
func (c *Conn) lookLead() {
	l := &c.lead
	l.mu.Lock()
	defer l.mu.Unlock()
	turn := l.turn.Load()
	switch who := leaderOf(turn); {
	case who == loopLeads:
		return
	case turn != l.seen:
	case who == otherLeads:
		if !l.kick.Swap(true) {
			c.r.raw.limit(time.Now())
		}
	default:
		if _, ok := l.change(turn, loopLeads); ok {
			l.back <- struct{}{}
			return
		}
	}
	l.seen = turn
	l.watch.Reset(leadTick)
}
