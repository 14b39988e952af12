package mux

import (
	"time"

	"github.com/yonder-rpc/yonder/internal/wire"
)

// An Owner is what a Handler's call belongs to.
type Owner interface {
	// Cancel says that the answer is not wanted any more, and why: context.Canceled,
	// context.DeadlineExceeded, or how the connection ended. It may come at any time
	// before the call has ended, more than once, and must not wait.
	Cancel(cause error)
}

// Incoming is a call that the peer has made.
type Incoming struct {
	Owner Owner

	// Set before the call is served.
	Flags wire.Flags
	Head  wire.RequestHead
	Name  *Name // nil for a callback
	// Tag is that of the call whose argument a callback is; nil: the call has ended.
	Tag any
	// Deadline is when the caller stops waiting; zero: never.
	Deadline time.Time
	Body     []byte
	// Large is set if Body has memory of its own, which FreeBody gives back; otherwise ReleaseBody does.
	Large bool

	conn    *Conn
	id      uint32
	msg     *Message
	foreign bool      // Body's memory is not FreeBody's to give back
	small   []byte    // where a request of at most smallBody bytes is put; nil before it is used again
	arrived *assembly // Body, before it is put together
	timed   bool      // how long it takes counts
	// Of who serves it: Reply has taken it out of the table, and nobody had found it there who may
	// still hold it.
	over, alone bool
	turn        uint64        // of who serves it to lead; 0: it does not
	began, took time.Duration // when it was begun, and how long until its answer was queued; 0: it was not, or only in part

	// Guarded by conn.mu.
	arrives  *assembly
	answered bool     // a response is queued
	canceled bool     // the response is not wanted
	ended    bool     // the last message is queued
	left     bool     // the table has it no more
	sending  *part    // the response, if it is sent in parts
	streams  *streams // nil: none has been mentioned
}

// Conn returns the connection that the call came over.
func (in *Incoming) Conn() *Conn { return in.conn }

// ID returns the call's id, by which callbacks name it.
func (in *Incoming) ID() uint32 { return in.id }

// ReleaseBody lets go of the body.
func (in *Incoming) ReleaseBody() {
	in.msg.Release()
	in.msg, in.Body = nil, nil
}

// FreeBody lets go of the body, of which nobody has kept anything.
func (in *Incoming) FreeBody() {
	if in.Large && !in.foreign {
		freeBody(in.Body)
	}
	in.ReleaseBody()
}

// ReplaceBody has the body be what has been made of it, in memory of its own.
func (in *Incoming) ReplaceBody(body []byte) {
	in.FreeBody()
	in.Body, in.Large, in.foreign = body, true, true
}

// LendBody is FreeBody where the response may share the body: if it does, that is let go of with it. Only
// what follows a message's buffer can be shared, and that is larger than a frame, as the body must be.
func (in *Incoming) LendBody(response *Message) {
	if in.Large && !in.foreign && response.tail != nil {
		response.lent, in.Body = in.Body, nil
	}
	in.FreeBody()
}

// Reset makes a call that [Handler.Free] has been given as good as new, but for its Owner.
func (in *Incoming) Reset() {
	in.ReleaseBody()
	owner, small := in.Owner, in.small
	if small == nil {
		small = make([]byte, 0, smallBody)
	}
	*in = Incoming{}
	in.Owner, in.small = owner, small
}

// smallBody is how much memory a call that is used again has for a small message, in bytes: to take
// a [Message] from its pool and to give it back is most of what one costs.
const smallBody = 128

// Reply answers the call, once; flags may hold Failed and Packed. With last set that ends it; otherwise its streams
// follow, and the last of them does. The connection owns body from now on. Reply
// returns when the answer is queued or, if it is larger than a frame, written.
func (in *Incoming) Reply(flags wire.Flags, meta map[string]string, body *Message, last bool) error {
	c := in.conn
	c.mu.Lock()
	if in.answered || in.ended || c.err != nil {
		err := c.err
		c.mu.Unlock()
		body.Release()
		return err
	}
	if err := in.tooLargeLocked(meta, body); err != nil {
		c.mu.Unlock()
		body.Release()
		return err
	}
	in.answered = true
	if in.canceled {
		flags, last, meta = wire.Failed, true, nil
		body.Reset()
		body.Write(wire.AppendError(nil, &wire.Error{Code: wire.CodeCanceled}))
	} else if in.Flags&wire.OneWay != 0 && last {
		flags, meta = 0, nil
		body.Reset()
	}
	if last {
		flags |= wire.End
	}
	if len(meta) > 0 {
		flags |= wire.HasMeta
	}
	h := wire.Header{Type: wire.Response, Flags: flags, ID: in.id}
	head := wire.ResponseHead{Meta: meta}
	var scratch [64]byte
	front := wire.AppendResponse(scratch[:0], flags, &head)
	drains := c.drainsLocked()
	if len(front)+body.Len() <= wire.MaxBody {
		if last {
			c.leaveLocked(in)
			in.over, in.alone = true, !in.canceled && in.streams == nil
		}
		together := in.turn != 0 && last && !drains && body.Len() < wholeSize
		c.w.mu.Lock()
		c.w.messageLocked(h, front, body)
		c.mu.Unlock()
		if in.timed && last {
			in.took = elapsed() - in.began // without the writing
		}
		if together {
			c.w.mu.Unlock()
			c.oweWrite(in.turn)
		} else {
			c.w.kickAndUnlock(mayBlock)
		}
	} else {
		head.Total = uint64(body.Len())
		in.ended = last
		c.w.mu.Lock()
		in.sending = c.w.partsLocked(h, wire.AppendResponse(nil, flags|wire.More, &head), 0, body)
		p := in.sending
		c.mu.Unlock()
		c.w.kickAndUnlock(mayBlock)
		select {
		case <-p.done:
		default:
			c.recallLead()
			<-p.done
		}
		c.mu.Lock()
		in.sending = nil
		if last {
			c.leaveLocked(in)
		}
		drains = c.drainsLocked()
		c.mu.Unlock()
	}
	if last && drains {
		c.settle()
	}
	return nil
}

// tooLargeLocked returns why the peer would refuse the response.
func (in *Incoming) tooLargeLocked(meta map[string]string, body *Message) error {
	c := in.conn
	if c.peer == nil {
		return nil
	}
	if n := uint64(body.Len()); n > c.peer.MaxMessage {
		return &TooLargeError{What: "response", Size: n, Limit: c.peer.MaxMessage}
	}
	if n, limit := uint64(wire.MetaSize(meta)), min(c.peer.MaxMeta, maxHead); n > limit {
		return &TooLargeError{What: "response metadata", Size: n, Limit: limit}
	}
	return nil
}

// leaveLocked takes a call that has ended out of the table.
func (c *Conn) leaveLocked(in *Incoming) {
	slot := wire.Slot(in.id)
	in.ended = true
	if in.left {
		return
	}
	in.left = true
	if c.calls[slot] == in {
		c.calls[slot] = nil
	}
	if in.arrives != nil {
		in.arrives = nil
		c.parted--
	}
	if in.streams != nil {
		in.streams.failLocked(ErrEnded)
		in.streams.forgetLocked()
	}
	c.incoming--
	c.load.Add(-1)
}

// unrun returns the error of a call that nobody has served, nor will.
func unrun(code uint8, text string) *wire.Error {
	return &wire.Error{Code: code, Message: text, Names: []string{wire.Unrun}}
}

// reject ends a call that nobody serves, or goes on serving.
func (c *Conn) reject(in *Incoming, why *wire.Error) {
	c.mu.Lock()
	c.rejectLocked(in, why)
	c.mu.Unlock()
	c.w.kickAndUnlock(noBlock)
	c.settle()
}

// rejectLocked is reject, and locks the writer, which it leaves to its caller to have written.
func (c *Conn) rejectLocked(in *Incoming, why *wire.Error) {
	record := wire.AppendError(nil, why)
	h := wire.Header{Type: wire.Response, Flags: wire.Failed | wire.End, ID: in.id}
	var head []byte
	if in.answered { // one of the streams ends it then
		h.Type, head = wire.Close, []byte{1}
		h.Flags |= wire.FromCallee
		if in.streams != nil && len(in.streams.send) > 0 {
			head[0] = in.streams.send[0].channel
		}
	}
	c.leaveLocked(in)
	c.w.mu.Lock()
	c.w.frameLocked(h, head, record)
}
