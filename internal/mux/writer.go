package mux

import (
	"io"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/yonder-rpc/yonder/internal/buffer"
	"github.com/yonder-rpc/yonder/internal/wire"
)

const (
	// maxParts is the number of messages that may be on their way in parts at a
	// time, each direction; the others wait. See SPEC.md, "Messages in parts".
	maxParts = 16
	// partsPerWrite is how many parts one write carries. A small frame waits for one
	// write at most, so this bounds its delay while a large message passes.
	partsPerWrite = 8
	// partSize is the payload of a full part. The last of a message has up to lastPart, so that what
	// is a little more than a number of full ones needs no other.
	partSize = 64<<10 - 1
	lastPart = wire.MaxBody - 1
	// wholeSize is the size of a message, in bytes, from which it is not copied into the
	// buffer of its frame. It is cutSize where other calls are in flight and pieces are gathered, unless
	// the message's memory is much larger, which is not free before the write ends, or frames are kept,
	// for which a copy is made anyway.
	wholeSize = 16 << 10
	cutSize   = 4 << 10
	// maxWrite is the most that one write carries, in bytes, so that the watchdog sees that
	// a slow peer reads.
	maxWrite = 544 << 10
	// maxRounds is how many writes a caller or handler does for the others before a goroutine
	// takes over, so that it can return when its context ends.
	maxRounds = 4
)

// A flushMode says what the goroutine that adds a frame may do.
type flushMode uint8

const (
	mayBlock flushMode = iota // write, and wait until the peer takes it
	noBlock                   // write what goes at once, and leave the rest to a goroutine
	gathered                  // noBlock, and nobody else is about to add anything
	handOver                  // leave it to a goroutine: more is coming; also that goroutine's mode
)

// writer gathers frames and writes them. No goroutine belongs to it: whoever adds
// a frame and finds nobody writing becomes the flusher, lets the others that are
// about to send add theirs, and writes until nothing is left.
type writer struct {
	conn io.WriteCloser
	raw  *rawConn // nil: any write may block
	// written counts bytes, beside other connections'.
	written *atomic.Uint64
	// load is the number of calls in flight on the connection. With one, the
	// flusher waits for nobody.
	load *atomic.Int32
	// failed is called, without locks, after a write has failed.
	failed func(error)
	// writes counts writes that ended, for the watchdog.
	writes atomic.Uint32
	// ends counts the ends of calls that are not written yet: calls that the peer
	// must still take for being in flight.
	ends atomic.Int32
	// received counts what has been read.
	received *atomic.Uint64

	mu       sync.Mutex
	cuts     []cut          // frames to write, and messages that have not been copied into one
	buf      []byte         // frames to write after them
	home     *buffer.Buffer // where buf came from; nil: there is no buffer
	ready    []*SendStream  // those with values to write after what is in buf
	pong     []byte         // the answer to the latest PING, if it is not written yet
	parts    []*part        // messages on their way in parts, served in turn
	waiting  []*part        // those beyond maxParts
	turn     int            // parts of the first of them that were sent in this turn
	after    int            // parts that were sent in the last turn, if the message ended with it
	dropped  int            // of parts: those that nobody wants any more
	pace     pace
	newEnds  int32 // ends in buf
	small    bool  // buf has requests or responses that are complete
	flushing bool
	err      error         // why nothing is written any more
	idle     chan struct{} // made by who waits for the flusher to leave, closed then
	takes    uint64        // how often buf has been taken to be written

	// Of a connection that may be resumed: see session.go.
	keep    *kept  // what may have to be written again; nil: nothing
	unkept  int    // bytes that buf begins with and that have no position: the preface and HELLO
	down    bool   // the transport is lost, and nothing is written
	acks    bool   // the peer wants to know what has arrived
	readAt  uint64 // what had been received when the peer's positions began
	ackSent uint64 // the last position that the peer has been told
	ackDue  bool   // it is to be told, whatever else is written
	unheard int    // times that it was told since it has told us anything

	// What follows belongs to the flusher.
	out      []byte // the buffer that is being written
	outCuts  []cut
	outHome  *buffer.Buffer
	rest     []byte  // what of it is not written yet
	took     bool    // there is something still to be written
	outEnds  int32   // ends in out
	outKept  bool    // what is written now is kept, and so are its messages
	batch    *batch  // parts that go after it; nil: none
	finished []*part // parts whose last bytes are in batch
}

// A cut is where frames do not go on in the same memory: because the buffer is full, or because a
// message comes that has not been copied into it.
type cut struct {
	frames []byte
	home   *buffer.Buffer // where their buffer came from; nil: more of it follows
	msg    *Message       // comes after them; nil: nothing
}

// part is a message that is written in parts.
type part struct {
	header  wire.Header // of the frame that announces it
	head    []byte      // the body of that frame
	channel uint8
	flag    wire.Flags // of the parts
	msg     *Message
	data    []byte // what of msg is not written yet, and what comes after that
	tail    []byte
	// done is closed when the message is written, dropped, or never will be.
	done    chan struct{}
	dropped bool // nobody wants the rest, or there is no way to send it; guarded by writer.mu until done is closed
}

// roomLocked sees to it that there is room for n bytes in buf.
func (w *writer) roomLocked(n int) {
	if w.home == nil {
		w.freshLocked()
	}
	if cap(w.buf)-len(w.buf) < n {
		w.growLocked(n)
	}
}

// growLocked is roomLocked where there is too little.
func (w *writer) growLocked(n int) {
	if len(w.buf) > 0 && len(w.buf)+n > buffer.Full || cap(w.buf) < cap(w.home.B) {
		w.cutLocked(nil)
		w.freshLocked()
	}
	w.home.B = w.buf
	w.home.Grow(n)
	w.buf = w.home.B
}

// freshLocked has frames go into another buffer.
func (w *writer) freshLocked() {
	w.home = buffer.Get()
	w.buf = w.home.B
}

// cutLocked has msg come after what is in buf, or if it is nil, another buffer. As with add, inlined it
// makes programs larger.
//
//go:noinline
func (w *writer) cutLocked(msg *Message) {
	c := cut{frames: w.buf, msg: msg}
	if w.buf = w.buf[len(w.buf):]; msg == nil {
		c.home, w.buf, w.home = w.home, nil, nil
	}
	w.cuts = append(w.cuts, c)
}

// frameLocked adds a frame.
func (w *writer) frameLocked(h wire.Header, head, body []byte) {
	if w.err != nil {
		return
	}
	w.roomLocked(wire.HeaderSize + len(head) + len(body))
	w.buf = wire.AppendHeader(w.buf, h, len(head)+len(body))
	w.buf = append(w.buf, head...)
	w.buf = append(w.buf, body...)
	if h.Flags&wire.More == 0 {
		w.small = w.small || h.Type == wire.Request || h.Type == wire.Response
		if ends(h) {
			w.newEnds++
			w.ends.Add(1)
		}
	}
}

// messageLocked adds a frame whose body is head and msg, which it owns from now on. Who calls alone
// writes it for itself: to copy it takes less time than to have a goroutine write it where pieces are not
// gathered, and no more elsewhere.
func (w *writer) messageLocked(h wire.Header, head []byte, msg *Message) {
	n, alone := msg.Len(), w.load.Load() <= 1
	least := cutSize
	if !gathers || w.raw == nil || w.keep != nil || alone || msg.Cap() > 4*n {
		least = wholeSize
	}
	if n < least || alone && h.Type == wire.Request || w.err != nil {
		w.frameLocked(h, head, msg.Bytes())
		msg.Release()
		return
	}
	w.frameLocked(h, head, nil)
	wire.PutHeader(w.buf[len(w.buf)-len(head)-wire.HeaderSize:], h, len(head)+msg.Len())
	w.cutLocked(msg)
}

// ends reports whether a message is the last of its call.
func ends(h wire.Header) bool {
	return h.Flags&wire.End != 0 && (h.Type == wire.Response || h.Type == wire.Close)
}

// frame adds a frame and has it written.
func (w *writer) frame(h wire.Header, body []byte, mode flushMode) {
	w.mu.Lock()
	w.frameLocked(h, nil, body)
	w.kickAndUnlock(mode)
}

// goAwayLocked adds GOAWAY. It is not inlined so that programs stay small.
//
//go:noinline
func (w *writer) goAwayLocked(code uint8, reason string) {
	w.frameLocked(wire.Header{Type: wire.GoAway}, nil, wire.AppendGoAway(nil, code, reason))
}

// framesLocked adds frames of a stream, whose buffer it owns from now on: many are not copied, nor any
// where there is nothing else to write.
func (w *writer) framesLocked(frames []byte, home *buffer.Buffer) {
	home.B = frames
	switch {
	case w.err != nil:
	case w.emptyLocked():
		w.buf, w.home, home = frames, home, w.home
	case len(frames) >= cutSize:
		w.cutLocked(nil)
		w.buf, w.home = frames, home
		return
	default:
		w.roomLocked(len(frames))
		w.buf = append(w.buf, frames...)
	}
	buffer.Put(home)
}

// emptyLocked reports whether there are no frames to write.
func (w *writer) emptyLocked() bool { return len(w.buf) == 0 && len(w.cuts) == 0 }

// partsLocked has msg written in parts after a frame that announces it. The
// writer owns msg from now on.
func (w *writer) partsLocked(h wire.Header, head []byte, channel uint8, msg *Message) *part {
	h.Flags |= wire.More
	flag := h.Flags & wire.FromCallee
	if h.Type == wire.Response {
		flag = wire.FromCallee
	}
	p := &part{flag: flag, header: h, head: head, channel: channel, msg: msg, data: msg.Bytes(), tail: msg.tail, done: make(chan struct{})}
	if w.err != nil {
		p.dropped = true
		close(p.done)
	} else {
		if ends(h) {
			w.ends.Add(1)
		}
		if len(w.parts) < maxParts {
			w.announceLocked(p)
		} else {
			w.waiting = append(w.waiting, p)
		}
	}
	return p
}

// announceLocked begins a message in parts.
func (w *writer) announceLocked(p *part) {
	w.frameLocked(p.header, p.head, nil)
	w.parts = append(w.parts, p)
}

// progress says how far a message in parts has come.
type progress uint8

const (
	unheard  progress = iota // the peer does not know of it
	underway                 // a part is missing
	complete                 // the last part is written, or being written
)

// dropLocked stops a message that nobody wants any more, and reports how far it
// has come.
func (w *writer) dropLocked(p *part) progress {
	if i := slices.Index(w.waiting, p); i >= 0 {
		w.waiting = slices.Delete(w.waiting, i, i+1)
		p.dropped = true
		w.finish(p)
		return unheard
	}
	if slices.Contains(w.parts, p) {
		if !p.dropped {
			p.dropped = true
			w.dropped++
		}
		return underway
	}
	return complete
}

// unheardLocked reports whether a call that we make has surely not reached the peer whole:
// something of it has not been given to the transport.
func (w *writer) unheardLocked(o *Outgoing) bool {
	if p := o.sending; p != nil && (slices.Contains(w.waiting, p) || slices.Contains(w.parts, p)) {
		return true
	}
	return o.takes == w.takes
}

// kickAndUnlock sees to it that what has been added is written.
func (w *writer) kickAndUnlock(mode flushMode) {
	if w.flushing || w.err != nil || !w.pendingLocked() {
		w.mu.Unlock()
		return
	}
	w.flushing = true
	w.mu.Unlock()
	if mode == mayBlock || mode != handOver && w.raw != nil {
		w.flush(mode)
	} else {
		go w.flush(handOver) // ends when nothing is left to write
	}
}

// pendingLocked reports whether there is something that may be written now.
func (w *writer) pendingLocked() bool {
	switch {
	case w.down:
		return false
	case w.ackDue:
		return true
	case w.keep != nil && w.keep.full():
		return false
	}
	return !w.emptyLocked() || len(w.ready) > 0 || w.pong != nil || w.dropped > 0 ||
		len(w.waiting) > 0 && len(w.parts) < maxParts || len(w.parts) > 0 && w.pace.room()
}

// taken counts what the peer has taken of messages in parts, and goes on with them. It
// reports false if that cannot be.
func (w *writer) taken(n uint64) bool {
	w.mu.Lock()
	ok := w.pace.take(n)
	w.kickAndUnlock(handOver)
	return ok
}

// flush writes until nothing is left. The goroutine that set flushing calls it.
func (w *writer) flush(mode flushMode) {
	if mode != gathered && w.load.Load() > 1 {
		runtime.Gosched() // those that were woken together send together
	}
	for round := 0; ; round++ {
		if !w.took && !w.take() {
			return
		}
		var err error
		switch mode {
		case noBlock, gathered:
			all := false
			if round < maxRounds && (mode == noBlock || w.batch == nil) { // who reads has more to do
				all, err = w.writeNow()
			}
			if err == nil && !all {
				go w.flush(handOver) // goes on where this one stopped
				return
			}
		case mayBlock:
			if round >= maxRounds {
				go w.flush(handOver) // as above: a handler has its streams to send
				return
			}
			err = w.write()
		default:
			err = w.write()
		}
		if err != nil {
			w.fail(err)
			return
		}
		w.wrote()
	}
}

// plain reports whether what take took is in one buffer.
func (w *writer) plain() bool { return w.batch == nil && len(w.outCuts) == 0 }

// writeNow writes what take took, as far as the transport takes it at once, and reports whether that is
// all.
func (w *writer) writeNow() (all bool, err error) {
	if w.plain() {
		n, err := w.raw.write(w.rest, false)
		w.written.Add(uint64(n))
		w.rest = w.rest[n:]
		return len(w.rest) == 0, err
	}
	if !gathers {
		return false, nil
	}
	all, err = w.gather().writeNow(w)
	if all || err != nil {
		w.gathered(err)
	}
	return all, err
}

// write writes what take took, at most maxWrite at a time.
func (w *writer) write() error {
	if !w.plain() {
		err := w.gather().write(w)
		w.gathered(err)
		return err
	}
	for len(w.rest) > 0 {
		n := min(len(w.rest), maxWrite)
		var err error
		if w.raw != nil && w.raw.brief(n) {
			n, err = w.raw.write(w.rest[:n], true)
		} else {
			n, err = w.conn.Write(w.rest[:n])
		}
		w.written.Add(uint64(n))
		if err != nil {
			return err
		}
		w.rest = w.rest[n:]
		w.writes.Add(1)
	}
	return nil
}

// take makes the next write of what has gathered: all frames, and a few parts. It
// reports false, and ends this flusher's term, if there is nothing.
func (w *writer) take() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil || w.down {
		w.leaveLocked()
		return false
	}
	if w.acks && w.ackLocked() {
		return true
	}
	if w.keep != nil && w.keep.full() {
		w.leaveLocked() // until the peer's next ACK
		return false
	}
	if w.pong != nil {
		w.frameLocked(wire.Header{Type: wire.Pong}, nil, w.pong)
		w.pong = nil
	}
	for len(w.waiting) > 0 && len(w.parts) < maxParts {
		p := w.waiting[0]
		w.waiting = slices.Delete(w.waiting, 0, 1)
		w.announceLocked(p)
	}
	for i, p := range w.ready {
		p.drainLocked()
		w.ready[i] = nil
	}
	w.ready = w.ready[:0]
	w.takePartsLocked()
	if w.emptyLocked() && w.batch == nil {
		buffer.Put(w.outHome)
		buffer.Put(w.home)
		w.out, w.outHome, w.buf, w.home = nil, nil, nil, nil
		w.cuts, w.outCuts = nil, nil
		w.keepFinishedLocked()
		w.leaveLocked()
		return false
	}
	w.takes++
	w.out, w.buf = w.buf, nil
	w.outCuts, w.cuts = w.cuts, w.outCuts[:0]
	if w.outHome, w.home = w.home, w.outHome; w.home != nil {
		w.buf = w.home.B[:0]
	}
	w.rest, w.took = w.out, true
	w.outEnds, w.newEnds = w.newEnds, 0
	if w.keep != nil {
		w.keepLocked()
	}
	return true
}

// keepLocked keeps what is about to be written.
func (w *writer) keepLocked() {
	w.outKept = true
	for _, c := range w.outCuts {
		w.keep.copy(w.positioned(c.frames))
		if c.msg != nil {
			w.keep.hold(c.msg.Bytes(), c.msg)
		}
	}
	w.keep.copy(w.positioned(w.out))
	if b := w.batch; b != nil {
		for i := range b.parts {
			w.keep.copy(b.heads[i][:])
			w.keep.hold(b.data[i], nil)
		}
	}
	w.keepFinishedLocked()
}

// positioned returns what of frames has a position.
func (w *writer) positioned(frames []byte) []byte {
	n := min(w.unkept, len(frames))
	w.unkept -= n
	return frames[n:]
}

// keepFinishedLocked has messages that have been written in parts released only when no part may
// have to be written again.
func (w *writer) keepFinishedLocked() {
	if w.keep == nil {
		return
	}
	for _, p := range w.finished {
		w.keep.release(p.msg)
		p.msg = nil
	}
}

// leaveLocked ends the flusher's term.
func (w *writer) leaveLocked() {
	w.settle()
	if w.err != nil {
		w.forgetPartsLocked()
	}
	w.flushing = false
	if w.idle != nil {
		close(w.idle)
		w.idle = nil
	}
}

// forgetPartsLocked lets go of the messages that will never be complete.
func (w *writer) forgetPartsLocked() {
	for _, p := range w.parts {
		p.dropped = true
		w.forget(p)
	}
	w.parts = nil
}

// turnLocked ends the turn of the first message in parts, of which more is to be sent, unless it goes on.
// Where many messages of about a MiB take turns of one part, all of them are in memory at both ends at a
// time, which is fresh memory, a page fault every 4 KiB (`internal/bench -workloads 1MiB/16`), and all come
// late. So a turn goes on if the end of the message comes with it. What is larger has the others wait for
// one part, but after a turn that went on, for as many.
func (w *writer) turnLocked() {
	p := w.parts[0]
	w.turn++
	missing := len(p.data) + len(p.tail) + (w.turn-1)*partSize // after the first part of the turn
	switch short := missing <= turnSize; {
	case w.pace.slow:
		w.after = 0
	case short:
		return
	case w.turn < w.after:
		return
	default:
		w.after = 0
	}
	copy(w.parts, w.parts[1:])
	w.parts[len(w.parts)-1] = p
	w.turn = 0
}

// takePartsLocked takes the next parts, those of different messages in turn.
func (w *writer) takePartsLocked() {
	if w.dropped > 0 {
		w.dropped = 0
		if len(w.parts) > 0 && w.parts[0].dropped {
			w.turn = 0
		}
		w.parts = slices.DeleteFunc(w.parts, func(p *part) bool {
			if p.dropped {
				w.finished = append(w.finished, p)
			}
			return p.dropped
		})
	}
	most := w.pace.write(w.small)
	w.small = false
	for n := 0; n < most && len(w.parts) > 0 && w.pace.room(); n++ {
		p := w.parts[0]
		size := partSize
		if len(p.tail) == 0 && len(p.data) <= lastPart {
			size = len(p.data)
		}
		chunk := p.data[:min(len(p.data), size)]
		if p.data = p.data[len(chunk):]; len(p.data) == 0 {
			p.data, p.tail = p.tail, nil
		}
		w.pace.send(len(chunk))
		h := wire.Header{Type: wire.Part, Flags: p.flag, ID: p.header.ID}
		if len(p.data) > 0 {
			h.Flags |= wire.More
			w.turnLocked()
		} else {
			w.parts = slices.Delete(w.parts, 0, 1)
			w.after, w.turn = w.turn+1, 0
			p.data = nil // what holds the part need not hold the message
			w.finished = append(w.finished, p)
		}
		if n == 0 {
			w.batch = batches.Get().(*batch)
		}
		wire.PutHeader(w.batch.heads[n][:], h, 1+len(chunk))
		w.batch.heads[n][wire.HeaderSize] = p.channel
		w.batch.data[n] = chunk
		w.batch.parts = n + 1
	}
}

// wrote settles a write that went well.
func (w *writer) wrote() {
	w.writes.Add(1)
	if w.outKept {
		w.mu.Lock()
		if w.keep != nil {
			w.keep.wrote()
		}
		w.mu.Unlock()
	}
	w.done()
}

// done lets go of a write that has ended.
func (w *writer) done() {
	w.ends.Add(-w.outEnds)
	w.outEnds = 0
	w.took = false
	for _, c := range w.outCuts {
		buffer.Put(c.home)
		if !w.outKept {
			c.msg.Release()
		}
	}
	w.outKept = false
	clear(w.outCuts)
	w.outCuts = w.outCuts[:0]
	w.settle()
}

// settle lets go of the messages that are finished.
func (w *writer) settle() {
	for i, p := range w.finished {
		w.finish(p)
		w.finished[i] = nil
	}
	w.finished = w.finished[:0]
}

// finish lets go of one message.
func (w *writer) finish(p *part) {
	p.msg.Release()
	w.forget(p)
}

// forget is finish where the message may still be being written: the garbage collector has it.
func (w *writer) forget(p *part) {
	if ends(p.header) {
		w.ends.Add(-1)
	}
	close(p.done)
}

// fail ends the flusher's term, and with it all writing, or if what has been written is kept,
// writing over this transport.
func (w *writer) fail(err error) {
	w.mu.Lock()
	if w.keep != nil {
		w.down = true
		w.done()
		conn := w.conn // another takes its place once the flusher has left
		w.leaveLocked()
		w.mu.Unlock()
		conn.Close() // which ends the read loop's part in it
		return
	}
	w.mu.Unlock()
	w.close(err)
	w.mu.Lock()
	w.ends.Add(-w.outEnds)
	w.outEnds, w.took = 0, false
	w.leaveLocked()
	w.mu.Unlock()
	w.failed(err)
}

// close refuses all further frames.
func (w *writer) close(err error) {
	w.mu.Lock()
	if w.err == nil {
		w.err = err
	}
	w.buf, w.cuts, w.home, w.pong, w.keep, w.ready = nil, nil, nil, nil, nil, nil
	w.ends.Add(-w.newEnds)
	w.newEnds = 0
	for _, p := range w.waiting {
		p.dropped = true
		w.forget(p)
	}
	w.waiting = nil
	if !w.flushing { // they wait for the peer's word; else the flusher sees to them
		w.forgetPartsLocked()
	}
	w.mu.Unlock()
}

// idleC returns a channel that is closed once nothing is left to write.
func (w *writer) idleC() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.flushing {
		c := make(chan struct{})
		close(c)
		return c
	}
	if w.idle == nil {
		w.idle = make(chan struct{})
	}
	return w.idle
}

// busy reports whether something is being written.
func (w *writer) busy() bool {
	w.mu.Lock()
	busy := w.flushing || w.keep != nil && w.keep.full()
	w.mu.Unlock()
	return busy
}

// parted returns how much the peer has taken of messages in parts, in bytes, and whether
// there is more that waits for that.
func (w *writer) parted() (taken uint64, held bool) {
	w.mu.Lock()
	taken, held = w.pace.taken, len(w.parts) > 0 && !w.pace.room()
	w.mu.Unlock()
	return taken, held
}

const (
	// ackStep is how much a side takes before it says so, whatever else there is to say, in
	// bytes; and ackJoin what is worth saying beside something else.
	ackStep = 256 << 10
	ackJoin = 16 << 10
	// idleAck is how much is worth saying to a peer with which nothing else goes on.
	idleAck = 256
	// maxUnheard is how often a peer that does not say what it has taken is told what has been
	// taken of its own: so that it cannot make this side keep ever more.
	maxUnheard = 1024
)

// ackLocked sees to it that the peer is told what has arrived, if it is time to. ACK goes with what
// is written next; but where nothing may be because the peer has not said what it has taken, it
// goes alone, lest both wait for each other: then ackLocked reports true, and there is a write.
func (w *writer) ackLocked() bool {
	received := w.received.Load() - w.readAt
	full := w.keep != nil && w.keep.full()
	some := !full && received-w.ackSent >= ackJoin && (!w.emptyLocked() || len(w.parts) > 0)
	due := w.ackDue || some
	w.ackDue = false
	if !due || received == w.ackSent || full && w.unheard >= maxUnheard {
		return false
	}
	w.ackSent = received
	w.unheard++
	var body [16]byte
	ack := wire.AppendAck(body[:0], received)
	if !full {
		w.frameLocked(wire.Header{Type: wire.Ack}, nil, ack)
		return false
	}
	w.out = append(wire.AppendHeader(w.out[:0], wire.Header{Type: wire.Ack}, len(ack)), ack...)
	w.keep.copy(w.out)
	w.rest, w.took, w.outKept = w.out, true, true
	return true
}

// ack has the peer told what has arrived if that is least bytes more than it knows of.
func (w *writer) ack(least uint64) {
	w.mu.Lock()
	if w.acks && w.received.Load()-w.readAt-w.ackSent >= least {
		w.ackDue = true
	}
	w.kickAndUnlock(noBlock)
}

// acked takes the peer's word for what it has taken, and goes on with what waits for that. It
// reports false if that cannot be.
func (w *writer) acked(position uint64) bool {
	w.mu.Lock()
	w.unheard = 0
	ok := w.keep == nil || w.keep.ack(position)
	w.kickAndUnlock(handOver)
	return ok
}

// stop has nothing written any more, and waits until nobody writes: the transport must have been
// closed, or the peer reads.
func (w *writer) stop() {
	w.mu.Lock()
	w.down = true
	w.mu.Unlock()
	<-w.idleC()
}

// resume goes on over another transport: with first, and with what the peer has not received.
// moved is whether the peer has received more than was known, and ok false if that cannot be.
func (w *writer) resume(conn io.WriteCloser, raw *rawConn, first []byte, peerHas uint64, told uint64) (moved, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	k := w.keep
	if k == nil || w.err != nil || peerHas < k.acked || peerHas > k.end {
		return false, false
	}
	moved = peerHas > k.acked
	k.written = k.end // nobody writes
	k.ack(peerHas)
	k.written = peerHas
	again := k.since(peerHas)
	w.conn, w.raw = conn, raw
	w.ackSent, w.ackDue, w.unheard = told, false, 0
	w.down, w.flushing = false, true
	go w.again(first, again) // ends with the transport, or when nothing is left to write
	return moved, true
}

// again writes what may have been lost, and then what has gathered since.
func (w *writer) again(first []byte, lost [][]byte) {
	b := batches.Get().(*batch)
	b.add(first)
	for _, p := range lost {
		b.add(p)
	}
	if err := b.write(w); err != nil {
		w.fail(err)
		return
	}
	b.free()
	w.mu.Lock()
	if w.keep != nil {
		w.keep.wrote()
	}
	w.mu.Unlock()
	w.flush(handOver)
}

// heldLocked returns how many bytes wait for the peer: to be acknowledged, or to be written.
func (w *writer) heldLocked() int {
	n := len(w.buf)
	if w.keep != nil {
		n += int(w.keep.end - w.keep.acked)
	}
	for _, c := range w.cuts {
		if n += len(c.frames); c.msg != nil {
			n += c.msg.Len()
		}
	}
	for _, p := range w.ready {
		p.mu.Lock()
		n += len(p.frames)
		p.mu.Unlock()
	}
	for _, list := range [][]*part{w.parts, w.waiting} {
		for _, p := range list {
			n += len(p.data)
		}
	}
	return n
}

// forgetKeptLocked has nothing kept any more. What is kept is left to the garbage collector: it
// may be being written.
func (w *writer) forgetKeptLocked() { w.keep, w.unkept = nil, 0 }
