package mux

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/yonder-rpc/yonder/internal/wire"
)

// A Ref is a procedure that this side calls. Each connection gives it a number when
// it is first called there.
type Ref struct {
	Index     uint32 // tells it from the other procedures of this caller; small
	Name      string
	Signature string
}

// A Name is a procedure as the peer has named it.
type Name struct {
	Name      string
	Signature string
	// Excess is set if the peer has given more names than are kept: this one is not.
	Excess bool
	// Resolved is for the handler: what it found under the name, or why a call cannot be.
	Resolved atomic.Value

	// Calls in a row that took little time; negative: after so many more that do they count.
	quick, short atomic.Int32
	sinceSlow    atomic.Int32 // calls since the last slow one; negative: there was none at all
	strikes      atomic.Int32 // slow ones that were not rare
}

// A Request is a call to be made.
type Request struct {
	Ref *Ref // nil for a callback
	// Flags may hold OneWay, Callback, Check and Packed. The others follow from the rest.
	Flags wire.Flags
	Call  uint32 // with Callback
	Arg   uint8  // with Callback
	// Deadline is when the callee should stop; zero: never.
	Deadline time.Time
	// Expire says that the connection ends the call when the deadline has passed, whoever
	// waits for it by whatever context: Wait then returns context.DeadlineExceeded. That
	// takes no timer a call.
	Expire bool
	Meta   map[string]string
	Body   *Message // the arguments; owned by the connection once given
	// Queue says that Start need not wait for the call's turn: Wait will.
	Queue bool
	// Tag is what the callbacks of this call find.
	Tag any
}

// A Response is the answer to a call.
type Response struct {
	Failed bool // Body is an error record
	Packed bool // Body is compressed
	Meta   map[string]string
	Body   []byte
	// Large is set if Body has memory of its own, which FreeBody gives back; otherwise Release does.
	Large bool

	msg *Message
}

// outState says what the caller of a call waits for.
type outState uint8

const (
	awaiting  outState = iota // the response
	answered                  // nothing: it is there
	abandoned                 // nothing: the caller has left
)

// Outgoing is a call that this side has made.
type Outgoing struct {
	Response
	conn  *Conn
	id    uint32
	tag   any
	ready chan struct{} // receives once the response or err is there
	over  bool          // the slot was free again before ready received
	small []byte        // where a response of at most smallBody bytes is put; nil before it is used again

	// Guarded by conn.mu.
	state   outState
	replied bool      // the response is complete
	last    bool      // the response ends the call
	ended   bool      // the slot is free again
	queued  bool      // it has no slot yet
	expires time.Time // zero: never
	unsent  bool      // err came before the peer could hear of the call
	takes   uint64    // the writer's count when it began
	err     error     // why there is no response
	arrives *assembly
	arrived *assembly // the response's body, which who waits for it puts together
	sending *part     // the request, if it is sent in parts
	request Request   // while it is queued
	streams streams
}

// Start makes a call. It waits while the peer takes no more calls at a time, until
// ctx ends, unless the call may be queued. The connection owns the body from now on, whatever
// the outcome.
func (c *Conn) Start(ctx context.Context, q *Request) (*Outgoing, error) {
	c.mu.Lock()
	slot, placed, err := c.placeLocked(ctx, q)
	if err != nil {
		c.mu.Unlock()
		q.Body.Release()
		return nil, err
	}
	o, _ := c.spare.Get().(*Outgoing)
	if o == nil {
		o = &Outgoing{conn: c, ready: make(chan struct{}, 1)}
	}
	if q.Expire {
		o.expires = q.Deadline
		c.expireAtLocked(q.Deadline)
	}
	if !placed {
		o.queued, o.request = true, *q
		c.waiters = append(c.waiters, turn{o: o})
		c.mu.Unlock()
		return o, nil
	}
	c.w.mu.Lock()
	c.beginLocked(o, slot, q)
	c.mu.Unlock()
	c.w.kickAndUnlock(noBlock)
	return o, nil
}

// beginLocked makes a call at a slot, and leaves it to its caller, who holds the writer's lock,
// too, to have it written.
func (c *Conn) beginLocked(o *Outgoing, slot uint16, q *Request) {
	c.gens[slot]++
	o.id = uint32(c.gens[slot])<<16 | uint32(slot)
	o.streams = streams{conn: c, id: o.id, caller: true}
	o.tag = q.Tag
	o.takes = c.w.takes
	c.slots[slot] = o
	c.outgoing++
	c.idle.begun++
	c.load.Add(1)

	var scratch [64]byte
	head := wire.RequestHead{Call: q.Call, Arg: q.Arg, Meta: q.Meta}
	flags := q.Flags
	if !q.Deadline.IsZero() {
		flags |= wire.HasLimit
		head.Limit = max(time.Until(q.Deadline), 0)
	}
	if len(q.Meta) > 0 {
		flags |= wire.HasMeta
	}
	if q.Ref != nil {
		number, known := c.numberLocked(q.Ref)
		if !known {
			c.w.frameLocked(wire.Header{Type: wire.Name, ID: number}, nil, wire.AppendName(nil, q.Ref.Name, q.Ref.Signature))
		}
		head.Number = uint64(number)
	}
	h := wire.Header{Type: wire.Request, Flags: flags, ID: o.id}
	front := wire.AppendRequest(scratch[:0], flags, &head)
	if len(front)+q.Body.Len() <= wire.MaxBody {
		c.w.messageLocked(h, front, q.Body)
		return
	}
	head.Total = uint64(q.Body.Len())
	o.sending = c.w.partsLocked(h, wire.AppendRequest(nil, flags|wire.More, &head), 0, q.Body)
}

// placeLocked takes a slot for a call that may be made. It waits, until ctx ends, for
// HELLO if the call may be beyond the peer's limits, and for its turn, unless the call may be
// queued: then it reports false.
func (c *Conn) placeLocked(ctx context.Context, q *Request) (slot uint16, ok bool, err error) {
	for {
		if err := c.admitLocked(q); err != nil {
			return 0, false, err
		}
		if c.peer == nil && (wire.MetaSize(q.Meta) > wire.MinMeta || c.named > 0 && !c.isNamedLocked(q.Ref)) {
			c.mu.Unlock()
			var err error
			select {
			case <-c.hello:
			case <-c.done:
			case <-ctx.Done():
				err = ctx.Err()
			}
			c.mu.Lock()
			if err != nil {
				return 0, false, err
			}
			continue
		}
		if len(c.waiters) == 0 { // else all slots are taken
			if slot, ok := c.slotLocked(); ok {
				return slot, true, nil
			}
		}
		if q.Queue && c.peer != nil {
			return 0, false, nil
		}
		slot, err := c.waitLocked(ctx, q.Ref == nil)
		if err != nil {
			return 0, false, err
		}
		if c.peer != nil && c.admitLocked(q) == nil {
			return slot, true, nil
		}
		c.freeLocked(slot)
		c.mu.Unlock()
		c.settleDebt()
		c.mu.Lock()
	}
}

// admitLocked returns why a call cannot be made on this connection, ever.
func (c *Conn) admitLocked(q *Request) error {
	if err := c.refusalLocked(q.Ref == nil); err != nil {
		return err
	}
	if c.peer == nil {
		return nil
	}
	if n := uint64(q.Body.Len()); n > c.peer.MaxMessage {
		return &TooLargeError{What: "request", Size: n, Limit: c.peer.MaxMessage}
	}
	if uint64(c.named) >= c.peer.MaxNames && !c.isNamedLocked(q.Ref) {
		return ErrTooManyNames
	}
	maxMeta := min(c.peer.MaxMeta, maxHead)
	if n := uint64(wire.MetaSize(q.Meta)); n > maxMeta {
		return &TooLargeError{What: "metadata", Size: n, Limit: maxMeta}
	}
	return nil
}

const (
	// maxHead is the most that is sent whatever the peer accepts: the head of a message
	// must fit in its first frame.
	maxHead = 32 << 10
)

// isNamedLocked reports whether the peer knows a procedure. A callback needs no name.
func (c *Conn) isNamedLocked(r *Ref) bool {
	return r == nil || int(r.Index) < len(c.numbers) && c.numbers[r.Index] > 0
}

// numberLocked returns a procedure's number, and whether the peer knows it already.
func (c *Conn) numberLocked(r *Ref) (number uint32, known bool) {
	if c.isNamedLocked(r) {
		return c.numbers[r.Index] - 1, true
	}
	if n := int(r.Index) + 1 - len(c.numbers); n > 0 {
		c.numbers = append(c.numbers, make([]uint32, n)...)
	}
	number = c.named
	c.named++
	c.numbers[r.Index] = c.named
	return number, false
}

// slotLocked takes a slot if one is free.
func (c *Conn) slotLocked() (uint16, bool) {
	if n := len(c.free); n > 0 && c.outgoing < c.limit {
		slot := c.free[n-1]
		c.free = c.free[:n-1]
		return slot, true
	}
	if n := len(c.slots); n < c.limit {
		c.slots = append(c.slots, nil)
		c.gens = append(c.gens, 0)
		return uint16(n), true
	}
	return 0, false
}

// A turn is what waits for a slot: a call, or its caller.
type turn struct {
	o *Outgoing
	w *waiter
}

// isCallback reports whether it is a callback that waits.
func (t turn) isCallback() bool {
	if t.o != nil {
		return t.o.request.Ref == nil
	}
	return t.w.callback
}

// waiter is a caller that waits for a slot.
type waiter struct {
	slot     uint16
	ready    chan struct{} // closed when the slot is granted, or the call cannot begin any more
	granted  bool
	refused  bool
	callback bool
}

// waitLocked waits for a slot, in the order of arrival.
func (c *Conn) waitLocked(ctx context.Context, callback bool) (uint16, error) {
	w := &waiter{ready: make(chan struct{}), callback: callback}
	c.waiters = append(c.waiters, turn{w: w})
	c.mu.Unlock()
	c.recallLead()
	var err error
	select {
	case <-w.ready:
	case <-ctx.Done():
		err = ctx.Err()
	}
	c.mu.Lock()
	switch {
	case w.refused:
		return 0, c.refusalLocked(callback)
	case err == nil:
		return w.slot, nil
	case w.granted:
		c.freeLocked(w.slot)
		c.mu.Unlock()
		c.settleDebt()
		c.mu.Lock()
	default:
		c.giveUpLocked(turn{w: w})
	}
	return 0, err
}

// giveUpLocked takes what does not wait any more out of the queue.
func (c *Conn) giveUpLocked(t turn) {
	i := slices.Index(c.waiters, t)
	c.waiters = slices.Delete(c.waiters, i, i+1)
}

// freeLocked gives a slot back, or to what has waited longest for one. A call that begins
// then is to be written: see settleDebt.
func (c *Conn) freeLocked(slot uint16) {
	for len(c.waiters) > 0 {
		t := c.waiters[0]
		c.waiters[0] = turn{}
		c.waiters = c.waiters[1:]
		if t.w != nil {
			t.w.slot, t.w.granted = slot, true
			close(t.w.ready)
			return
		}
		q := &t.o.request
		if err := c.admitLocked(q); err != nil {
			c.refuseLocked(t.o, err)
			continue
		}
		t.o.queued = false
		c.w.mu.Lock()
		c.beginLocked(t.o, slot, q)
		c.w.mu.Unlock()
		t.o.request = Request{}
		c.debt.Store(true)
		return
	}
	c.free = append(c.free, slot)
}

// settleDebt has written what others have left to be: the calls that have begun when others ended, and
// the answers to calls that who leads has served. Who has freed slots calls it, without locks; who
// leads, before it waits, so that all that comes of one read is written at once.
func (c *Conn) settleDebt() {
	if c.debt.Load() && c.debt.Swap(false) {
		c.w.mu.Lock()
		c.w.kickAndUnlock(gathered)
	}
}

// oweWrite leaves it to who leads to have something written that who has had this turn has added. It
// has that done if the turn is over: then who leads may not have seen it.
func (c *Conn) oweWrite(turn uint64) {
	c.debt.Store(true)
	if c.lead.turn.Load() != turn {
		c.settleDebt()
	}
}

// refuseLocked ends a call that has not begun.
func (c *Conn) refuseLocked(o *Outgoing, err error) {
	o.unqueueLocked()
	o.unsent = true
	c.failLocked(o, err)
}

// failWaitersLocked sends the calls that wait for a slot away; callbacks only if all
// must go.
func (c *Conn) failWaitersLocked(all bool) {
	c.waiters = slices.DeleteFunc(c.waiters, func(t turn) bool {
		if t.isCallback() && !all {
			return false
		}
		if t.o != nil {
			c.refuseLocked(t.o, c.refusalLocked(t.isCallback()))
		} else {
			t.w.refused = true
			close(t.w.ready)
		}
		return true
	})
}

// Wait waits for the response, until ctx ends; then the callee is told to stop,
// and the call is over for its caller. The response is valid if the error is nil.
func (o *Outgoing) Wait(ctx context.Context) error {
	o.conn.leadFor(o)
	if done := ctx.Done(); done == nil {
		<-o.ready
	} else {
		select {
		case <-o.ready:
		case <-done:
			if o.Abandon(ctx.Err(), ctx.Err()) {
				return ctx.Err()
			}
			<-o.ready
		}
	}
	if o.arrived != nil {
		o.Body, o.arrived = o.arrived.bytes(), nil
	}
	return o.err
}

// Abandon tells the callee that nobody waits for its answer, which is err of a context, and
// ends the streams of the call with cause. It reports whether the response had not come yet.
func (o *Outgoing) Abandon(err, cause error) bool {
	c := o.conn
	c.mu.Lock()
	first := o.state == awaiting
	o.abandonLocked(err, cause)
	c.mu.Unlock()
	c.tell()
	return first
}

// tell has written what calls have left that were given up, and ends what has waited for their end.
func (c *Conn) tell() {
	c.w.mu.Lock()
	c.w.kickAndUnlock(noBlock)
	c.settleDebt()
	c.settle()
}

// abandonLocked is Abandon, and leaves it to its caller to have written what that tells.
func (o *Outgoing) abandonLocked(err, cause error) {
	c := o.conn
	if o.state == awaiting {
		o.state = abandoned
	}
	if o.queued {
		c.giveUpLocked(turn{o: o})
		o.unqueueLocked()
		return
	}
	o.streams.failLocked(cause)
	if o.ended || c.err != nil {
		return
	}
	code := byte(wire.CodeCanceled)
	if err == context.DeadlineExceeded {
		code = wire.CodeDeadline
	}
	c.w.mu.Lock()
	if o.sending != nil && c.w.dropLocked(o.sending) == unheard {
		// The peer has not heard of the call, and never will.
		c.w.mu.Unlock()
		c.endLocked(o)
		return
	}
	c.w.frameLocked(wire.Header{Type: wire.Cancel, ID: o.id}, nil, []byte{code})
	c.w.mu.Unlock()
}

// expireAtLocked sees to it that calls are looked at when one of them expires.
func (c *Conn) expireAtLocked(t time.Time) {
	switch {
	case c.expiry == nil:
		c.expiry = time.AfterFunc(time.Until(t), c.expire)
	case c.expiring.IsZero() || t.Before(c.expiring):
		c.expiry.Reset(time.Until(t))
	default:
		return
	}
	c.expiring = t
}

// expireRest is how much longer than looking at the calls took the next look waits, at least: where
// tens of thousands expire one after the other, each would be a look at all of them.
const expireRest = 8

// expire ends the calls that have expired.
func (c *Conn) expire() {
	c.mu.Lock()
	now := time.Now()
	c.expiring = time.Time{}
	var next time.Time // when another one expires; zero: never
	expired := func(o *Outgoing) bool {
		if o == nil || o.expires.IsZero() || o.state != awaiting {
			return false
		}
		if now.Before(o.expires) {
			if next.IsZero() || o.expires.Before(next) {
				next = o.expires
			}
			return false
		}
		o.err = context.DeadlineExceeded
		return true
	}
	if c.err == nil {
		// Those that wait first: one may begin at a slot that has been looked at.
		c.waiters = slices.DeleteFunc(c.waiters, func(t turn) bool {
			if !expired(t.o) {
				return false
			}
			t.o.state = abandoned
			t.o.unqueueLocked()
			t.o.ready <- struct{}{}
			return true
		})
		for _, o := range c.slots {
			if expired(o) {
				o.abandonLocked(o.err, o.err)
				o.ready <- struct{}{}
			}
		}
		if soonest := now.Add(expireRest * time.Since(now)); !next.IsZero() && next.Before(soonest) {
			next = soonest
		}
		if !next.IsZero() {
			c.expireAtLocked(next)
		}
	}
	c.mu.Unlock()
	c.tell()
}

// unqueueLocked lets go of what a call that has no slot, and gets none, was to send.
func (o *Outgoing) unqueueLocked() {
	o.request.Body.Release()
	o.queued, o.request = false, Request{}
}

// ReleaseBody lets go of the response's body.
func (o *Outgoing) ReleaseBody() {
	o.msg.Release()
	o.msg, o.Body = nil, nil
}

// FreeBody lets go of the body, of which nobody has kept anything.
func (o *Outgoing) FreeBody() {
	if o.Large {
		freeBody(o.Body)
	}
	o.ReleaseBody()
}

// Sent waits until the whole call has been sent, before which none of its streams may be, and reports
// whether it has. It does not wait for a stream that has been stopped. Only the call's caller may ask.
func (o *Outgoing) Sent(s *SendStream) bool {
	p := o.sending
	if p == nil {
		return true
	}
	for {
		select {
		case <-p.done:
			return !p.dropped
		case <-s.wake:
			if s.Err() != nil {
				return false
			}
		}
	}
}

// Forget lets the call go on without its caller, who wants no response.
func (o *Outgoing) Forget() {
	o.conn.mu.Lock()
	defer o.conn.mu.Unlock()
	if o.state == awaiting {
		o.state = abandoned
	}
}

// Release lets go of the response and of a call that has no streams. Only the
// caller may use it, after Wait has returned nil or the error of the connection, and
// nothing of the call after.
func (o *Outgoing) Release() {
	o.ReleaseBody()
	if o.over {
		o.Response = Response{}
		o.state, o.replied, o.last, o.ended, o.over, o.unsent = awaiting, false, false, false, false, false
		o.err, o.arrives, o.arrived, o.sending, o.tag = nil, nil, nil, nil, nil
		o.expires = time.Time{}
		if o.small == nil {
			o.small = make([]byte, 0, smallBody)
		}
		o.conn.spare.Put(o)
	}
}

// Unsent reports, after Wait has returned an error, whether the peer cannot have heard of the
// call: another connection may make it.
func (o *Outgoing) Unsent() bool { return o.unsent }

// Ended reports whether the callee has nothing more to send.
func (o *Outgoing) Ended() bool {
	o.conn.mu.Lock()
	defer o.conn.mu.Unlock()
	return o.ended
}

// ID returns the call's id, by which callbacks name it.
func (o *Outgoing) ID() uint32 { return o.id }

// answerLocked settles that the caller gets the response, and reports whether it still waits: then
// ready is to receive, and until it has, the call is nobody else's.
func (o *Outgoing) answerLocked() (waits bool) {
	if o.state != awaiting {
		return false
	}
	o.state = answered
	o.over = o.ended
	return true
}

// failLocked ends a call without a response.
func (c *Conn) failLocked(o *Outgoing, err error) {
	if o.state == awaiting {
		o.err = err
	}
	if o.arrives != nil {
		o.arrives = nil
		c.parted--
	}
	if o.answerLocked() {
		o.ready <- struct{}{}
	}
}

// endLocked frees the slot of a call that the callee has ended.
func (c *Conn) endLocked(o *Outgoing) {
	slot := wire.Slot(o.id)
	if c.slots[slot] != o {
		return
	}
	c.slots[slot] = nil
	o.ended = true
	if o.arrives != nil {
		o.arrives = nil
		c.parted--
	}
	if o.sending != nil {
		c.w.mu.Lock()
		c.w.dropLocked(o.sending)
		c.w.mu.Unlock()
	}
	o.streams.failLocked(ErrEnded)
	o.streams.forgetLocked()
	c.outgoing--
	c.load.Add(-1)
	c.freeLocked(uint16(slot))
}
