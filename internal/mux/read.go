package mux

import (
	"context"
	"errors"
	"io"
	"strconv"
	"time"

	"github.com/yonder-rpc/yonder/internal/wire"
)

// maxNameBytes is how much the names and signatures that a peer gives may take, in
// bytes, one connection. What is beyond it is not kept, and so not found.
const maxNameBytes = 8 << 20

// read is the read loop. It returns why it ended.
func (c *Conn) read() error {
	if err := c.r.fill(len(wire.Preface)); err != nil {
		if err == io.ErrUnexpectedEOF {
			return violation("the peer ended the connection after %s, which is not this protocol", strconv.Quote(string(c.r.next(c.r.w-c.r.r))))
		}
		return err
	}
	if got := string(c.r.next(len(wire.Preface))); got != wire.Preface {
		return violation("the peer does not speak this protocol: it began with %s", strconv.Quote(got))
	}
	for first := true; ; first = false {
		h, n, err := c.r.peekHeader()
		if err != nil {
			return err
		}
		if first != (h.Type == wire.Hello) {
			return violation("%v where HELLO belongs, or the other way round", h.Type)
		}
		if h.Type == wire.Part {
			c.r.next(wire.HeaderSize)
			if err := c.part(h, n); err != nil {
				return err
			}
			continue
		}
		if err := c.r.fill(wire.HeaderSize + n); err != nil {
			return err
		}
		c.r.next(wire.HeaderSize)
		if err := c.frame(h, c.r.next(n)); err != nil {
			var lost *LostError
			var bad *ProtocolError
			if errors.As(err, &bad) || errors.As(err, &lost) {
				return err
			}
			return &ProtocolError{Reason: err.Error()}
		}
	}
}

// frame takes one frame. The body is valid only until it returns.
func (c *Conn) frame(h wire.Header, body []byte) error {
	switch h.Type {
	case wire.Hello:
		g, err := wire.ParseHello(body)
		if err != nil {
			return err
		}
		return c.greeted(g)
	case wire.Name:
		return c.name(h.ID, body)
	case wire.Request:
		return c.request(h, body)
	case wire.Response:
		return c.response(h, body)
	case wire.Cancel:
		return c.cancel(h.ID, body)
	case wire.Ping:
		if len(body) != 8 {
			return violation("PING of %d bytes", len(body))
		}
		c.w.mu.Lock()
		c.w.pong = append([]byte(nil), body...) // only the latest is answered: a flood costs nothing
		c.w.kickAndUnlock(noBlock)
		return nil
	case wire.Pong:
		return nil
	case wire.GoAway:
		return c.goAway(body)
	}
	return c.stream(h, body)
}

// name learns what the peer calls a procedure.
func (c *Conn) name(number uint32, body []byte) error {
	name, signature, err := wire.ParseName(body)
	if err != nil {
		return err
	}
	if uint64(number) >= c.cfg.Local.MaxNames {
		return violation("procedure number %d is beyond the limit of %d", number, c.cfg.Local.MaxNames)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for int(number) >= len(c.names) {
		c.names = append(c.names, nil)
	}
	if c.names[number] != nil {
		return violation("procedure number %d is named twice", number)
	}
	if c.nameSize += len(body) + 64; c.nameSize > maxNameBytes {
		return violation("the names of the procedures take more than %d bytes", maxNameBytes)
	}
	c.names[number] = &Name{Name: name, Signature: signature}
	return nil
}

// request begins a call of the peer's.
func (c *Conn) request(h wire.Header, body []byte) error {
	slot := wire.Slot(h.ID)
	if uint64(slot) >= c.cfg.Local.MaxCalls {
		return violation("call %#x is beyond the limit of %d calls at a time", h.ID, c.cfg.Local.MaxCalls)
	}
	head, args, metaTooLarge, err := wire.ParseRequest(body, h.Flags, int(c.cfg.Local.MaxMeta))
	if err != nil {
		return err
	}
	if h.Flags&wire.Packed != 0 {
		return violation("call %#x is compressed, which was not agreed on", h.ID)
	}
	if ends := int(c.w.ends.Load()); ends > 2*int(c.cfg.Local.MaxCalls)+64 {
		return violation("%d answers wait for a peer that goes on calling without reading them", ends)
	}
	in := c.cfg.Handler.NewCall()
	in.conn, in.id, in.Flags, in.Head = c, h.ID, h.Flags, head
	in.streams = streams{conn: c, id: h.ID}
	if h.Flags&wire.HasLimit != 0 {
		in.Deadline = time.Now().Add(head.Limit)
	}

	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return c.err
	}
	for slot >= len(c.calls) {
		c.calls = append(c.calls, nil)
	}
	if old := c.calls[slot]; old != nil && !old.ended {
		c.mu.Unlock()
		return violation("call %#x begins while call %#x has its slot", h.ID, old.id)
	}
	if h.Flags&wire.Callback != 0 {
		if o := c.outgoingLocked(head.Call); o != nil && o.state != abandoned {
			in.Tag = o.tag
		}
	} else {
		if head.Number < uint64(len(c.names)) {
			in.Name = c.names[head.Number]
		}
		if in.Name == nil {
			c.mu.Unlock()
			return violation("call %#x is of procedure %d, which has no name", h.ID, head.Number)
		}
	}
	parted := h.Flags&wire.More != 0
	if parted && c.parted >= maxParts {
		c.mu.Unlock()
		return violation("more than %d messages in parts at a time", maxParts)
	}
	c.calls[slot] = in
	c.incoming++
	c.load.Add(1)
	refusing := c.refusing
	tooLarge := parted && head.Total > c.cfg.Local.MaxMessage || uint64(len(args)) > c.cfg.Local.MaxMessage
	if parted && refusing == nil && !metaTooLarge && !tooLarge {
		c.parted++
		in.arrives = &assembly{total: int(head.Total)}
		c.mu.Unlock()
		if len(args) > 0 {
			return violation("call %#x: bytes after the total length", h.ID)
		}
		return nil
	}
	c.mu.Unlock()
	switch {
	case refusing != nil:
		c.reject(in, refusing.Code, refusing.Reason)
		return nil
	case metaTooLarge:
		c.reject(in, wire.CodeExhausted, "metadata is larger than the limit of "+strconv.FormatUint(c.cfg.Local.MaxMeta, 10)+" bytes")
		return nil
	case tooLarge:
		c.reject(in, wire.CodeExhausted, (&TooLargeError{What: "request", Size: max(head.Total, uint64(len(args))), Limit: c.cfg.Local.MaxMessage}).Error())
		return nil
	}
	in.msg = NewMessage()
	in.msg.Write(args)
	in.Body = in.msg.Bytes()
	c.start(in)
	return nil
}

// serve has the handler answer a call, and sees to it that it is answered.
func (c *Conn) serve(in *Incoming) {
	defer func() {
		c.mu.Lock()
		forgotten := !in.ended
		c.mu.Unlock()
		if forgotten {
			c.reject(in, wire.CodeInternal, "the call was not answered")
		}
	}()
	c.cfg.Handler.Serve(in)
}

// response takes the answer to a call of ours.
func (c *Conn) response(h wire.Header, body []byte) error {
	head, rest, metaTooLarge, err := wire.ParseResponse(body, h.Flags, int(c.cfg.Local.MaxMeta))
	if err != nil {
		return err
	}
	if h.Flags&wire.Packed != 0 {
		return violation("the answer to call %#x is compressed, which was not agreed on", h.ID)
	}
	c.mu.Lock()
	o := c.outgoingLocked(h.ID)
	if o == nil || o.replied {
		c.mu.Unlock()
		return violation("an answer to call %#x, which waits for none", h.ID)
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
	if refuse != nil && o.state == awaiting {
		o.err = refuse
	}
	if o.state == awaiting {
		o.Response.Failed = h.Flags&wire.Failed != 0
		o.Response.Meta = head.Meta
	}
	switch {
	case parted && c.parted >= maxParts:
		c.mu.Unlock()
		return violation("more than %d messages in parts at a time", maxParts)
	case parted && len(rest) > 0:
		c.mu.Unlock()
		return violation("call %#x: bytes after the total length", h.ID)
	case parted:
		c.parted++
		o.arrives = &assembly{total: int(min(head.Total, 1<<62)), skip: refuse != nil || o.state != awaiting}
		if o.arrives.skip && o.state == awaiting {
			o.answerLocked()
		}
		c.mu.Unlock()
		if refuse != nil {
			c.w.frame(wire.Header{Type: wire.Cancel, ID: h.ID}, []byte{wire.CodeExhausted}, noBlock)
		}
		return nil
	}
	if o.state == awaiting && o.err == nil {
		o.msg = NewMessage()
		o.msg.Write(rest)
		o.Body = o.msg.Bytes()
	}
	c.repliedLocked(o)
	c.mu.Unlock()
	if o.last {
		c.settle()
	}
	return nil
}

// repliedLocked settles a call whose answer is complete.
func (c *Conn) repliedLocked(o *Outgoing) {
	o.replied = true
	last := o.last
	if last {
		c.endLocked(o)
	}
	o.answerLocked() // from here on o may be another call
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
		return &in.streams, nil, in
	}
	return nil, nil, nil
}

// cancel takes the peer's word that it does not wait for an answer any more.
func (c *Conn) cancel(id uint32, body []byte) error {
	if len(body) != 1 {
		return violation("CANCEL of %d bytes", len(body))
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
	in.streams.failLocked(cause)
	if in.arrives != nil {
		c.mu.Unlock()
		c.reject(in, body[0], "")
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
		c.w.kickAndUnlock(noBlock)
	}
	c.mu.Unlock()
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
	first := c.gone == nil
	if first {
		c.gone = &GoAwayError{Code: code, Reason: reason}
		c.failWaitersLocked()
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
		return violation("%v on channel 0", h.Type)
	}
	if h.Flags&wire.Packed != 0 {
		return violation("a value of call %#x is compressed, which was not agreed on", h.ID)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s, o, in := c.sideLocked(h)
	if s == nil {
		return nil // what was on its way when the call ended
	}
	switch h.Type {
	case wire.Credit:
		if credit > uint64(1)<<40 {
			return violation("CREDIT of %d bytes", credit)
		}
		s.sendLocked(channel).credit(int64(credit))
		return nil
	case wire.Stop:
		s.sendLocked(channel).Stop(ErrStopped)
		if in != nil && in.answered && s.allStopped() {
			in.Owner.Cancel(context.Canceled)
		}
		return nil
	}
	r, err := s.recvLocked(channel)
	if err != nil {
		s.failLocked(err)
		if in != nil {
			in.Owner.Cancel(err)
		}
		return nil
	}
	if r.arrives != nil && h.Type == wire.Item {
		return violation("call %#x: a value in parts is not complete", h.ID)
	}
	switch h.Type {
	case wire.Item:
		if h.Flags&wire.More == 0 {
			for rest := body; len(rest) > 0; {
				if _, rest, err = wire.CutItem(rest); err != nil {
					return err
				}
			}
			return r.take(body)
		}
		total, rest, err := wire.ParseTotal(body)
		if err != nil {
			return err
		}
		switch {
		case len(rest) > 0:
			return violation("call %#x: bytes after the total length", h.ID)
		case c.parted >= maxParts:
			return violation("more than %d messages in parts at a time", maxParts)
		}
		tooLarge := total > c.cfg.Local.MaxMessage
		if tooLarge {
			r.fail(&TooLargeError{What: "stream value", Size: total, Limit: c.cfg.Local.MaxMessage})
		} else if err := r.charge(int(total)); err != nil {
			return err
		}
		c.parted++
		r.arrives = &assembly{total: int(min(total, 1<<62)), skip: tooLarge}
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
		if h.Flags&wire.End != 0 {
			if o == nil || !o.replied {
				return violation("the end of call %#x before its answer", h.ID)
			}
			c.endLocked(o)
			go c.settle() // c.mu is held here
		}
	}
	return nil
}

// part takes the next piece of a message, straight into its buffer.
func (c *Conn) part(h wire.Header, n int) error {
	if n < 2 {
		return violation("PART of %d bytes", n)
	}
	if err := c.r.fill(1); err != nil {
		return unexpected(err)
	}
	channel := c.r.next(1)[0]
	n--
	c.mu.Lock()
	a, deliver := c.assemblyLocked(h, channel)
	c.mu.Unlock()
	if a == nil {
		return unexpected(c.r.skip(n)) // of a call, or a stream, that has ended
	}
	if a.got+n > a.total || (h.Flags&wire.More == 0) != (a.got+n == a.total) {
		return violation("the parts of a message of call %#x do not make its length of %d bytes", h.ID, a.total)
	}
	if a.skip {
		if err := c.r.skip(n); err != nil {
			return unexpected(err)
		}
	} else if err := c.r.readFull(a.room(n)); err != nil {
		return err
	}
	a.got += n
	if a.got < a.total {
		return nil
	}
	c.mu.Lock()
	// While it was read, the call may have ended and let go of it.
	if again, _ := c.assemblyLocked(h, channel); again != a {
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
			in.Body, in.Large = a.buf, true
			c.start(in)
			return nil
		}
	case channel == 0:
		return o.arrives, func(a *assembly) error {
			o.arrives = nil
			if o.state == awaiting && o.err == nil {
				o.Body, o.Large = a.buf, true
			}
			last := o.last
			c.repliedLocked(o)
			c.mu.Unlock()
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
					r.deliver(a.buf)
				}
				return nil
			}
		}
	}
	return nil, nil
}
