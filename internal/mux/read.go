package mux

import (
	"context"
	"errors"
	"io"
	"runtime"
	"strconv"
	"time"

	"github.com/yonder-rpc/yonder/internal/wire"
)

// maxNameBytes is how much is kept of the names and signatures that a peer gives, in
// bytes, one connection. Calls of the procedures beyond it fail.
const maxNameBytes = 16 << 20

// maxNameGap is how far beyond the numbers in use the next one of a procedure may be.
const maxNameGap = 1024

// readHello reads the preface and HELLO.
func (c *Conn) readHello() error {
	if err := c.r.fill(len(wire.Preface)); err != nil {
		if err == io.ErrUnexpectedEOF {
			return violation("the peer ended the connection after %s, which is not this protocol", strconv.Quote(string(c.r.next(c.r.w-c.r.r))))
		}
		return err
	}
	if got := string(c.r.next(len(wire.Preface))); got != wire.Preface {
		return violation("the peer does not speak this protocol: it began with %s", strconv.Quote(got))
	}
	h, n, err := c.r.peekHeader()
	if err != nil {
		return err
	}
	if h.Type != wire.Hello {
		return violation("%v before HELLO", h.Type)
	}
	body, msg, err := c.r.body(n)
	if err != nil {
		return err
	}
	g, err := wire.ParseHello(body)
	msg.Release()
	if err == nil {
		err = c.greeted(g)
	}
	if err != nil {
		return asViolation(err)
	}
	return nil
}

// read is the read loop. It returns why it ended.
func (c *Conn) read() error {
	for {
		if c.lead.pause && (c.lead.call != nil || c.r.empty()) {
			if err := c.pause(); err != nil {
				return err
			}
		}
		var err error
		if c.rest.h.Type != 0 {
			err = c.readRest()
		} else {
			var h wire.Header
			var n int
			if h, n, err = c.r.peekHeader(); err == nil {
				c.later.run()
				err = c.readFrame(h, n)
			}
		}
		if err != nil && err != errKicked {
			return err
		}
	}
}

// readFrame reads the rest of a frame and takes it.
func (c *Conn) readFrame(h wire.Header, n int) error {
	if h.Type == wire.Part {
		c.r.next(wire.HeaderSize)
		return c.part(h, n)
	}
	c.r.narrow = false
	if wire.HeaderSize+n > wholeFrame {
		c.rest = rest{h: h, msg: c.r.large(n)}
		return c.readRest()
	}
	body, none, err := c.r.body(n)
	if err != nil {
		return err
	}
	return asViolation(c.frame(h, body, &none))
}

// rest is what is still to be read of a frame. Who reads can leave that to another.
type rest struct {
	h       wire.Header // Type is 0: nothing
	msg     *Message    // of a frame that is not parsed where it was read
	channel uint8       // of a part
	into    *assembly
	left    int // of a part: bytes that have no place yet
	skip    int // of a part that nobody wants
}

// readRest reads the rest of a frame and takes it.
func (c *Conn) readRest() error {
	f := &c.rest
	for f.skip > 0 {
		n, err := c.r.skip(f.skip)
		if err != nil {
			return unexpected(err)
		}
		f.skip -= n
	}
	for {
		if err := c.r.fillInto(); err != nil {
			return err
		}
		if f.left == 0 {
			break
		}
		c.r.into = f.into.room(f.left)
		f.left -= len(c.r.into)
	}
	done := c.rest
	c.rest = rest{}
	if done.msg == nil {
		return c.partRead(&done)
	}
	err := c.frame(done.h, done.msg.Bytes(), &done.msg)
	done.msg.Release()
	return asViolation(err)
}

// asViolation returns the error of a frame as what ends the connection.
func asViolation(err error) error {
	if err == nil {
		return nil // before the pointers, which are allocated
	}
	var lost *LostError
	var bad *ProtocolError
	if errors.As(err, &bad) || errors.As(err, &lost) {
		return err
	}
	return &ProtocolError{Reason: err.Error()}
}

// beforeRead is called before each read.
func (c *Conn) beforeRead() {
	c.lead.reads()
	c.settleDebt()
	if c.session.agreed {
		c.sayReceived()
	}
	if c.woke && c.load.Load() <= 1 {
		runtime.Gosched() // who has just been woken, and is alone, goes before a read that will only wait
	}
	c.woke, c.clock, c.lead.spent = false, time.Time{}, 0
}

// frame takes one frame. The body is valid only until it returns, unless the message that it is
// in is taken from there.
func (c *Conn) frame(h wire.Header, body []byte, in **Message) error {
	switch h.Type {
	case wire.Hello:
		return violation("a second HELLO")
	case wire.Name:
		return c.name(h.ID, body)
	case wire.Request:
		return c.request(h, body, in)
	case wire.Response:
		return c.responses(h, body, in)
	case wire.Cancel:
		return c.cancel(h.ID, body)
	case wire.Ping:
		if len(body) != 8 {
			return violationSized("PING", len(body))
		}
		c.w.mu.Lock()
		c.w.pong = append([]byte(nil), body...) // only the latest is answered: a flood costs nothing
		c.w.kickAndUnlock(noBlock)
		return nil
	case wire.Pong:
		if string(body) == farewell {
			c.bidFarewell()
		}
		return nil
	case wire.GoAway:
		return c.goAway(body)
	case wire.Ack:
		return c.ack(body)
	case wire.Resume:
		return violation("RESUME on a connection that goes on already")
	}
	return c.stream(h, body)
}

// own returns a message that part of a frame is in, to be kept: the one that the frame is in, if
// there is one, which is then taken, or a copy. If that has room in small, there is no message.
func own(part []byte, from **Message, small *[]byte) (*Message, []byte) {
	if msg := *from; msg != nil {
		*from = nil
		return msg, part
	}
	if len(part) <= cap(*small) {
		*small = append((*small)[:0], part...)
		return nil, *small
	}
	msg := NewMessage()
	msg.Write(part)
	return msg, msg.Bytes()
}

// name learns what the peer calls a procedure.
func (c *Conn) name(number uint32, body []byte) error {
	name, signature, err := wire.ParseName(body)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.nameableLocked(number); err != nil {
		return err
	}
	if n := int(number) + 1 - len(c.names); n > 0 {
		c.names = append(c.names, make([]*Name, n)...)
	}
	if c.nameSize+len(body) > maxNameBytes {
		c.names[number] = &Name{Excess: true}
		return nil
	}
	c.nameSize += len(body)
	c.names[number] = newName(name, signature)
	return nil
}

// nameableLocked returns why the peer cannot give a procedure this number.
func (c *Conn) nameableLocked(number uint32) error {
	switch {
	case uint64(number) >= c.cfg.Local.MaxNames:
		return violation("procedure number %d is beyond the limit of %d", number, c.cfg.Local.MaxNames)
	case int(number) > len(c.names)+maxNameGap:
		return violation("procedure number %d is far beyond the %d in use", number, len(c.names))
	case int(number) < len(c.names) && c.names[number] != nil:
		return violation("procedure number %d is named twice", number)
	}
	return nil
}

// request begins a call of the peer's.
func (c *Conn) request(h wire.Header, body []byte, from **Message) error {
	in := c.cfg.Handler.NewCall()
	in.conn, in.id, in.Flags = c, h.ID, h.Flags
	refusal, err := c.enter(in, body)
	switch {
	case err != nil:
		return err
	case refusal != nil:
		c.refuse(in, refusal)
		return nil
	case h.Flags&wire.More != 0:
		return nil // the arguments are still to come
	}
	in.msg, in.Body = own(in.Body, from, &in.small)
	c.begin(in)
	return nil
}

// refuse ends a call that has not begun. It is not inlined: see over.
//
//go:noinline
func (c *Conn) refuse(in *Incoming, why *GoAwayError) {
	c.reject(in, unrun(why.Code, why.Reason))
}

// begin has a call served that has come whole.
func (c *Conn) begin(in *Incoming) {
	if c.serves(in) {
		c.lead.call, c.lead.pause = in, true
		return
	}
	c.woke = true
	c.workers.start(in)
}

// enter puts a call of the peer's, whose frame is body, into the table, and returns why it is
// refused, if it is.
func (c *Conn) enter(in *Incoming, body []byte) (refusal *GoAwayError, err error) {
	if err := c.judge(in); err != nil {
		return nil, err
	}
	var metaTooLarge bool
	in.Head, in.Body, metaTooLarge, err = wire.ParseRequest(body, in.Flags, int(c.cfg.Local.MaxMeta))
	if err != nil {
		return nil, err
	}
	if in.Flags&wire.HasLimit != 0 {
		if c.clock.IsZero() {
			c.clock = time.Now()
		}
		in.Deadline = c.clock.Add(in.Head.Limit)
	}
	parted := in.Flags&wire.More != 0
	c.mu.Lock()
	defer c.mu.Unlock()
	for wire.Slot(in.id) >= len(c.calls) { // not in enterLocked: to grow takes much of the stack
		c.calls = append(c.calls, nil)
	}
	if err := c.enterLocked(in); err != nil {
		return nil, err
	}
	if err := c.partedLocked(parted, in.Head.Total, in.Body); err != nil {
		return nil, err
	}
	c.calls[wire.Slot(in.id)] = in
	c.incoming++
	c.idle.begun++
	c.load.Add(1)
	size := max(in.Head.Total, uint64(len(in.Body)))
	switch {
	case c.refusing != nil && in.Flags&wire.Callback == 0: // a callback belongs to a call in flight
		return c.refusing, nil
	case metaTooLarge || size > c.cfg.Local.MaxMessage:
		return c.excess(metaTooLarge, size), nil
	case parted:
		c.parted++
		in.arrives = &assembly{total: int64(in.Head.Total)}
	}
	return nil, nil
}

// enterLocked checks that a call's slot is free, and finds what it is a call of.
func (c *Conn) enterLocked(in *Incoming) error {
	if c.err != nil {
		return c.err
	}
	if old := c.calls[wire.Slot(in.id)]; old != nil && !old.ended {
		return violation("call %#x begins while call %#x has its slot", in.id, old.id)
	}
	if in.Flags&wire.Callback != 0 {
		if o := c.outgoingLocked(in.Head.Call); o != nil && o.state != abandoned {
			in.Tag = o.tag
		}
		return nil
	}
	if in.Head.Number < uint64(len(c.names)) {
		in.Name = c.names[in.Head.Number]
	}
	if in.Name == nil {
		return violation("call %#x is of procedure %d, which has no name", in.id, in.Head.Number)
	}
	return nil
}

// excess refuses a call for its metadata, or else for its size in bytes.
//
//go:noinline
func (c *Conn) excess(meta bool, size uint64) *GoAwayError {
	if meta {
		return &GoAwayError{wire.CodeExhausted, "metadata is larger than the limit of " + strconv.FormatUint(c.cfg.Local.MaxMeta, 10) + " bytes"}
	}
	return &GoAwayError{wire.CodeExhausted, (&TooLargeError{What: "request", Size: size, Limit: c.cfg.Local.MaxMessage}).Error()}
}

// judge returns what is wrong with a call whatever else there is on the connection.
func (c *Conn) judge(in *Incoming) error {
	if uint64(wire.Slot(in.id)) >= c.cfg.Local.MaxCalls {
		return violation("call %#x is beyond the limit of %d calls at a time", in.id, c.cfg.Local.MaxCalls)
	}
	if in.Flags&wire.Check != 0 && in.Flags&(wire.Callback|wire.OneWay) != 0 {
		return violationOf(in.id, "call %#x is a callback, or one-way, to be checked, which makes no sense")
	}
	if in.Flags&wire.Packed != 0 && !c.packs.Load() {
		return violationOf(in.id, "call %#x is compressed, which was not agreed on")
	}
	if ends := int(c.w.ends.Load()); ends > 2*int(c.cfg.Local.MaxCalls)+64 {
		return violation("%d answers wait for a peer that goes on calling without reading them", ends)
	}
	return nil
}

// serve has the handler answer a call, and sees to it that it is answered. It returns how long that
// took if the call is timed.
func (c *Conn) serve(in *Incoming) (took time.Duration) {
	returned := false
	defer func() {
		forgotten, alone := false, in.alone
		if !in.over {
			c.mu.Lock()
			forgotten = !in.ended
			// Who has found it in the table before it left may still hold it.
			alone = in.left && !in.canceled && in.streams == nil && c.err == nil
			c.mu.Unlock()
		}
		switch {
		case forgotten:
			c.reject(in, &wire.Error{Code: wire.CodeInternal, Message: "the call was not answered"})
		case alone && returned:
			c.cfg.Handler.Free(in)
		}
	}()
	if in.arrived != nil {
		in.Body, in.arrived = in.arrived.bytes(), nil
	}
	if in.timed {
		in.began = elapsed()
		c.cfg.Handler.Serve(in)
		if took = in.took; took == 0 { // it was answered in parts, has streams, or is not answered
			took = elapsed() - in.began
		}
		in.Name.took(took)
	} else {
		c.cfg.Handler.Serve(in)
	}
	returned = true
	return took
}

// partedLocked judges the frame that announces a message in parts, if it is one.
func (c *Conn) partedLocked(parted bool, total uint64, rest []byte) error {
	switch {
	case !parted:
		return nil
	case len(rest) > 0:
		return violation("bytes after the total length of a message in parts")
	case total == 0:
		return violation("a message in parts of 0 bytes")
	case c.parted >= maxParts:
		return violation("more than %d messages in parts at a time", maxParts)
	}
	return nil
}

// maxTotal is the largest total length that counts: far from overflow.
const maxTotal = 1 << 62

// after is what is to be done after an answer, without c.mu.
type after uint8

const (
	nothing after = iota
	doSettle
	doCancel // what is still to come
)

// maxTogether is how many answers are taken under one lock.
const maxTogether = 64

// responses takes the answer to a call of ours, and those that have come whole with it: so c.mu is
// locked once for all of them, and their callers are woken without it, which they want next.
func (c *Conn) responses(h wire.Header, body []byte, from **Message) error {
	c.mu.Lock()
	then, err := c.responseLocked(h, body, from)
	for n := 1; err == nil && then == nothing && n < maxTogether; n++ {
		var ok bool
		if h, body, ok = c.r.another(wire.Response); !ok {
			break
		}
		var none *Message
		then, err = c.responseLocked(h, body, &none)
	}
	c.mu.Unlock()
	for i, o := range c.answered {
		c.answered[i] = nil
		o.ready <- struct{}{}
	}
	c.answered = c.answered[:0]
	switch then {
	case doSettle:
		c.settle()
	case doCancel:
		c.w.frame(wire.Header{Type: wire.Cancel, ID: h.ID}, []byte{wire.CodeExhausted}, noBlock)
	}
	return err
}

// responseLocked takes an answer. Callers that waited for it go to c.answered.
func (c *Conn) responseLocked(h wire.Header, body []byte, from **Message) (then after, err error) {
	head, rest, metaTooLarge, err := wire.ParseResponse(body, h.Flags, int(c.cfg.Local.MaxMeta))
	if err != nil {
		return nothing, err
	}
	if h.Flags&wire.Failed != 0 && h.Flags&wire.End == 0 {
		return nothing, violationOf(h.ID, "call %#x has failed, but does not end")
	}
	if h.Flags&wire.Packed != 0 && !c.packs.Load() {
		return nothing, violationOf(h.ID, "the answer to call %#x is compressed, which was not agreed on")
	}
	o := c.outgoingLocked(h.ID)
	if o == nil || o.replied {
		return nothing, violationOf(h.ID, "an answer to call %#x, which waits for none")
	}
	if o.arrives != nil { // the callee has thought better of it
		o.arrives = nil
		c.parted--
	}
	o.last = h.Flags&wire.End != 0
	parted := h.Flags&wire.More != 0
	var refuse error
	switch {
	case metaTooLarge:
		refuse = &TooLargeError{What: "response metadata", Size: uint64(len(body) - len(rest)), Limit: c.cfg.Local.MaxMeta}
	case parted && head.Total > c.cfg.Local.MaxMessage || uint64(len(rest)) > c.cfg.Local.MaxMessage:
		refuse = &TooLargeError{What: "response", Size: max(head.Total, uint64(len(rest))), Limit: c.cfg.Local.MaxMessage}
	}
	first := o.state == awaiting
	if first {
		o.err = refuse
		o.Response.Failed = h.Flags&wire.Failed != 0
		o.Response.Packed = h.Flags&wire.Packed != 0
		o.Response.Meta = head.Meta
	}
	if err := c.partedLocked(parted, head.Total, rest); err != nil {
		return nothing, err
	}
	if parted {
		c.parted++
		o.arrives = &assembly{total: int64(min(head.Total, maxTotal)), skip: refuse != nil || !first}
		if o.arrives.skip && o.answerLocked() {
			c.answered = append(c.answered, o)
		}
		if refuse != nil && first {
			return doCancel, nil
		}
		return nothing, nil
	}
	if first && refuse == nil {
		o.msg, o.Body = own(rest, from, &o.small)
	}
	last := o.last
	if c.repliedLocked(o) {
		c.answered = append(c.answered, o)
	}
	c.woke = true
	c.lead.pause = c.lead.able
	switch {
	case last && c.drainsLocked():
		return doSettle, nil
	case !last && refuse != nil && first: // nobody will read its streams
		return doCancel, nil
	}
	return nothing, nil
}

// repliedLocked settles a call whose answer is complete. It reports whether its caller waits, for
// whom ready is to receive: from then on it may be another call.
func (c *Conn) repliedLocked(o *Outgoing) (waits bool) {
	o.replied = true
	if o.last {
		c.endLocked(o)
	}
	return o.answerLocked()
}

func (c *Conn) outgoingLocked(id uint32) *Outgoing {
	if slot := wire.Slot(id); slot < len(c.slots) {
		if o := c.slots[slot]; o != nil && o.id == id {
			return o
		}
	}
	return nil
}

func (c *Conn) incomingLocked(id uint32) *Incoming {
	if slot := wire.Slot(id); slot < len(c.calls) {
		if in := c.calls[slot]; in != nil && in.id == id {
			return in
		}
	}
	return nil
}

// sideLocked returns the streams that a frame of the peer's concerns, and the call
// they belong to; nil if that call has ended, which the peer need not know yet.
func (c *Conn) sideLocked(h wire.Header) (*streams, *Outgoing, *Incoming) {
	if h.Flags&wire.FromCallee != 0 {
		if o := c.outgoingLocked(h.ID); o != nil {
			return &o.streams, o, nil
		}
	} else if in := c.incomingLocked(h.ID); in != nil {
		return in.streamsLocked(), nil, in
	}
	return nil, nil, nil
}

// cancel takes the peer's word that it does not wait for an answer any more.
func (c *Conn) cancel(id uint32, body []byte) error {
	if len(body) != 1 {
		return violationSized("CANCEL", len(body))
	}
	cause := context.Canceled
	if body[0] == wire.CodeDeadline {
		cause = context.DeadlineExceeded
	}
	c.mu.Lock()
	in := c.incomingLocked(id)
	if in == nil {
		c.mu.Unlock()
		return nil // it has ended just now
	}
	in.canceled = true
	in.streamsLocked().failLocked(cause)
	if in.arrives != nil {
		c.mu.Unlock()
		c.reject(in, &wire.Error{Code: body[0]})
		return nil
	}
	if in.sending != nil {
		c.w.mu.Lock()
		drop := c.w.dropLocked(in.sending) != complete
		if drop {
			record := wire.AppendError(nil, &wire.Error{Code: body[0]})
			c.leaveLocked(in)
			c.w.frameLocked(wire.Header{Type: wire.Response, Flags: wire.Failed | wire.End, ID: id}, nil, record)
		}
		c.mu.Unlock()
		c.w.kickAndUnlock(noBlock)
	} else {
		c.mu.Unlock()
	}
	in.Owner.Cancel(cause)
	return nil
}

// goAway takes the peer's word that it wants no new calls.
func (c *Conn) goAway(body []byte) error {
	code, reason, err := wire.ParseGoAway(body)
	if err != nil {
		return err
	}
	c.mu.Lock()
	if code == wire.CodeCanceled && c.session.agreed { // it is about to be closed
		c.w.mu.Lock()
		c.endSessionLocked()
		c.mu.Unlock()
		c.w.kickAndUnlock(handOver)
		return nil
	}
	first := c.gone == nil
	if first {
		c.gone = &GoAwayError{Code: code, Reason: reason}
		c.failWaitersLocked(false)
		c.w.mu.Lock()
		c.endSessionLocked()
		c.w.kickAndUnlock(handOver)
	}
	c.mu.Unlock()
	if first && c.cfg.GoneAway != nil {
		c.cfg.GoneAway()
	}
	c.settle()
	return nil
}

// stream takes a frame that concerns a stream.
func (c *Conn) stream(h wire.Header, body []byte) error {
	var channel uint8
	var credit uint64
	var err error
	if h.Type == wire.Credit {
		channel, credit, err = wire.ParseCredit(body)
	} else {
		channel, body, err = wire.ParseChannel(h.Type, body)
	}
	if err != nil {
		return err
	}
	if channel == 0 {
		if h.Type != wire.Credit || h.ID != 0 || h.Flags != 0 {
			return violation("%v on channel 0", h.Type)
		}
		if !c.w.taken(credit) {
			return violation("CREDIT of %d bytes for parts that have not been sent", credit)
		}
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s, o, in := c.sideLocked(h)
	if s == nil {
		return nil // what was on its way when the call ended
	}
	switch h.Type {
	case wire.Credit:
		p := s.find(channel)
		if p == nil {
			return nil // nothing has been sent that it could be for
		}
		return p.credit(credit)
	case wire.Stop:
		s.stopLocked(channel)
		if in != nil && in.answered && s.allStopped() {
			in.Owner.Cancel(context.Canceled)
		}
		return nil
	}
	if in != nil && in.arrives != nil {
		return violationOf(h.ID, "call %#x: a stream before the end of the request")
	}
	r, err := s.recvLocked(channel)
	if err != nil {
		if s.err == nil && o != nil { // once
			c.w.frame(wire.Header{Type: wire.Cancel, ID: h.ID}, []byte{wire.CodeExhausted}, handOver)
		}
		s.failLocked(err)
		return c.closeLocked(h, o)
	}
	if r.arrives != nil && h.Type == wire.Item {
		return violationOf(h.ID, "call %#x: a value in parts is not complete")
	}
	switch h.Type {
	case wire.Item:
		if h.Flags&wire.More == 0 {
			largest := 0
			for rest := body; len(rest) > 0; {
				var item []byte
				if item, rest, err = wire.CutItem(rest); err != nil {
					return err
				}
				largest = max(largest, len(item))
			}
			if uint64(largest) > c.cfg.Local.MaxMessage {
				c.refuseValue(r, uint64(largest))
			}
			return r.take(body)
		}
		total, rest, err := wire.ParseTotal(body)
		if err != nil {
			return err
		}
		if err := c.partedLocked(true, total, rest); err != nil {
			return err
		}
		tooLarge := total > c.cfg.Local.MaxMessage
		if tooLarge {
			c.refuseValue(r, total)
		} else if err := r.charge(int(total)); err != nil {
			return err
		}
		c.parted++
		r.arrives = &assembly{total: int64(min(total, maxTotal)), skip: tooLarge}
	case wire.Data:
		return r.take(body)
	case wire.Close:
		if r.arrives != nil {
			r.arrives = nil
			c.parted--
		}
		end := io.EOF
		if h.Flags&wire.Failed != 0 {
			end = &RemoteError{Record: append([]byte(nil), body...)}
		} else if len(body) > 0 {
			return violation("CLOSE with %d bytes more than it needs", len(body))
		}
		r.finish(end)
		return c.closeLocked(h, o)
	}
	return nil
}

// refuseValue ends a stream that brings a value beyond the limit, and tells the producer.
func (c *Conn) refuseValue(r *RecvStream, size uint64) {
	if r.fail(&TooLargeError{What: "stream value", Size: size, Limit: c.cfg.Local.MaxMessage}) {
		c.w.frame(wire.Header{Type: wire.Stop, Flags: r.flag, ID: r.id}, []byte{r.channel}, handOver)
	}
}

// closeLocked ends a call of ours if the frame is a CLOSE that does.
func (c *Conn) closeLocked(h wire.Header, o *Outgoing) error {
	if h.Type != wire.Close || h.Flags&wire.End == 0 {
		return nil
	}
	if o == nil || !o.replied {
		return violationOf(h.ID, "the end of call %#x before its answer")
	}
	c.endLocked(o)
	go c.settle() // c.mu is held here
	return nil
}

// part takes the next piece of a message, straight into its buffer.
func (c *Conn) part(h wire.Header, n int) error {
	if n < 2 {
		return violationSized("PART", n)
	}
	if err := c.r.fill(1); err != nil {
		return unexpected(err)
	}
	channel := c.r.next(1)[0]
	n--
	if c.unsaid += n; c.unsaid >= takenStep {
		c.w.frame(wire.Header{Type: wire.Credit}, wire.AppendCredit(nil, 0, c.unsaid), noBlock)
		c.unsaid = 0
	}
	c.mu.Lock()
	a, _ := c.assemblyLocked(h, channel)
	if a != nil && !a.skip {
		a.heard += int64(n)
		c.heard += uint64(n)
	}
	c.mu.Unlock()
	c.rest = rest{h: h, channel: channel, into: a}
	f := &c.rest
	switch {
	case a == nil: // of a call, or a stream, that has ended
		f.skip = n
		return c.readRest()
	case a.got+int64(n) > a.total || (h.Flags&wire.More == 0) != (a.got+int64(n) == a.total):
		return violation("the parts of a message of call %#x do not make its length of %d bytes", h.ID, a.total)
	case a.skip:
		a.got += int64(n)
		f.skip = n
	default:
		f.left = n
	}
	return c.readRest()
}

// partRead takes a part that has been read.
func (c *Conn) partRead(f *rest) error {
	a := f.into
	if c.r.narrow = a != nil && a.got < a.total && !a.skip; a == nil || a.got < a.total {
		return nil
	}
	c.mu.Lock()
	// While it was read, the call may have ended and let go of it.
	again, deliver := c.assemblyLocked(f.h, f.channel)
	if again != a {
		c.mu.Unlock()
		return nil
	}
	c.parted--
	return deliver(a)
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// assemblyLocked finds the message that a part belongs to, and what to do when it
// is complete, which unlocks c.mu.
func (c *Conn) assemblyLocked(h wire.Header, channel uint8) (*assembly, func(*assembly) error) {
	s, o, in := c.sideLocked(h)
	switch {
	case s == nil:
		return nil, nil
	case channel == 0 && in != nil:
		return in.arrives, func(a *assembly) error {
			in.arrives = nil
			c.mu.Unlock()
			in.arrived, in.Large = a, true
			c.begin(in)
			return nil
		}
	case channel == 0:
		return o.arrives, func(a *assembly) error {
			o.arrives = nil
			if o.state == awaiting && o.err == nil {
				o.arrived, o.Large = a, true
			}
			last := o.last
			waits := c.repliedLocked(o)
			c.mu.Unlock()
			if waits {
				o.ready <- struct{}{}
			}
			c.lead.pause = c.lead.able
			if last {
				c.settle()
			}
			return nil
		}
	}
	for _, r := range s.recv {
		if r.channel == channel {
			return r.arrives, func(a *assembly) error {
				r.arrives = nil
				c.mu.Unlock()
				if !a.skip {
					r.deliver(a)
				}
				return nil
			}
		}
	}
	return nil, nil
}
