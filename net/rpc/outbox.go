package rpc

import (
	"encoding/gob"
	"errors"
	"io"
	"net"
	"runtime"
	"slices"
	"sync"

	"github.com/yonder-rpc/yonder/internal/buffer"
	"github.com/yonder-rpc/yonder/internal/gobvalue"
)

const (
	maxQueued = 1 << 20 // bytes that may wait for a write before senders wait too
	large     = 1 << 15 // a value worth not copying
)

// An outbox encodes messages and writes them. Whoever adds a message and finds nobody
// writing becomes the writer; what others add meanwhile goes out with its next write. So
// one call alone waits for nobody, and many share system calls. Who adds a message and does
// not wait for an answer may wait for the write, so that it is not lost with the connection.
type outbox struct {
	w io.Writer
	// failed is told, without the lock, which messages a failed write has taken along; nil:
	// nobody need know.
	failed func(seqs []uint64, err error)

	mu      sync.Mutex // guards what follows
	enc     *gob.Encoder
	numbers [headerKinds][]byte // of headers' types, which gob has defined; nil: it has not
	full    []*buffer.Buffer    // encoded, to be written
	buf     *buffer.Buffer      // encoded, to be written after them; nil: nothing
	last    int                 // where in buf the encoder's last write begins
	seqs    []uint64            // of the messages in full and buf
	spares  []uint64
	writing bool
	whole   bool          // the value being encoded may go straight to w
	taken   bool          // by such a value, although the lock is free
	wrote   chan struct{} // closed when a write ends; nil: nobody waits for that
	sent    chan struct{} // closed when full and buf have been written; nil: nobody waits for that
	err     error         // nothing can be written any more
}

func newOutbox(w io.Writer, failed func([]uint64, error)) *outbox {
	o := &outbox{w: w, failed: failed}
	o.enc = gob.NewEncoder(encoderOut{o})
	return o
}

// encoderOut is where an outbox's encoder writes, with the lock held. Each message is one
// write: the definitions of types first, if there are new ones, and then the value.
type encoderOut struct{ o *outbox }

func (e encoderOut) Write(p []byte) (int, error) {
	o := e.o
	if o.whole && len(p) >= large && !defines(p) {
		return len(p), o.passLocked(p)
	}
	o.buf.Grow(len(p))
	o.last = len(o.buf.B)
	o.buf.B = append(o.buf.B, p...)
	return len(p), nil
}

// queuedLocked returns how much waits to be written, in bytes.
func (o *outbox) queuedLocked() int {
	n := 0
	for _, b := range o.full {
		n += len(b.B)
	}
	if o.buf != nil {
		n += len(o.buf.B)
	}
	return n
}

// defines reports whether a message is the definition of a type.
func defines(message []byte) bool {
	c := cursor{b: message}
	c.uint()
	return c.int() < 0
}

// passLocked writes buf and a message behind it, unlocking meanwhile. The encoder is in the
// middle of that message, so nobody may use it.
func (o *outbox) passLocked(message []byte) error {
	o.taken = true
	for o.writing {
		o.waitLocked(nil)
	}
	if o.err != nil {
		o.taken = false
		return o.err
	}
	o.writing = true
	o.writeLocked(message)
	o.writing, o.taken = false, false
	return o.err
}

// encodeError is the failure to encode a value, after which the outbox goes on.
type encodeError struct{ err error }

func (e encodeError) Error() string { return e.err.Error() }
func (e encodeError) Unwrap() error { return e.err }

func isEncodeError(err error) bool {
	_, ok := err.(encodeError)
	return ok
}

// How a message is put.
type putting struct {
	done    <-chan struct{} // not nil: another goroutine writes, and nothing waits after done is closed
	crowded bool            // other messages are likely to follow at once
	broken  bool            // if the body cannot be encoded, the header stays, and nothing follows
	wait    bool            // put returns when the message has been written, or done is closed
}

// put encodes a header and a body, and has them written, now or soon. It waits for earlier
// writes if too much is queued. If the body cannot be encoded, the error is an encodeError.
func (o *outbox) put(how putting, seq uint64, header header, body any) error {
	body = gobvalue.Of(body)
	o.mu.Lock()
	for (o.writing && o.queuedLocked() >= maxQueued || o.taken) && o.err == nil {
		if !o.waitLocked(how.done) {
			o.mu.Unlock()
			return errNotSent
		}
	}
	if o.err != nil {
		defer o.mu.Unlock()
		return o.err
	}
	if o.buf != nil && len(o.buf.B) >= buffer.Full {
		o.full, o.buf = append(o.full, o.buf), nil
	}
	if o.buf == nil {
		o.buf = buffer.Get()
	}
	o.whole = how.done == nil
	if err := o.encodeLocked(header, body, how.broken); err != nil {
		defer o.mu.Unlock()
		if o.err != nil {
			return o.err
		}
		if how.broken {
			o.err = errBroken
		}
		if o.buf != nil && len(o.buf.B) == 0 {
			buffer.Put(o.buf)
			o.buf = nil
		}
		return encodeError{gobvalue.Explain(err)}
	}
	if o.queuedLocked() == 0 { // written already
		o.mu.Unlock()
		return nil
	}
	o.seqs = append(o.seqs, seq)
	if o.writing || how.done != nil {
		var sent <-chan struct{}
		if how.wait {
			sent = o.sentLocked()
		}
		if !o.writing {
			o.writing = true
			go o.writeAll() // ends when nothing is left to write, or a write fails
		}
		o.mu.Unlock()
		if how.wait {
			select {
			case <-sent:
			case <-how.done:
			}
		}
		return nil
	}
	o.writing = true
	if how.crowded {
		o.mu.Unlock()
		runtime.Gosched()
		o.mu.Lock()
	}
	o.writeLocked(nil)
	rest := o.queuedLocked() > 0 && o.err == nil
	o.writing = rest
	o.mu.Unlock()
	if rest {
		go o.writeAll() // what others have added is not this caller's to wait for
	}
	return nil
}

// waitLocked waits until a write has ended, unlocking meanwhile, and reports whether done
// was not closed before.
func (o *outbox) waitLocked(done <-chan struct{}) bool {
	if o.wrote == nil {
		o.wrote = make(chan struct{})
	}
	wrote := o.wrote
	o.mu.Unlock()
	defer o.mu.Lock()
	select {
	case <-wrote:
		return true
	case <-done:
		return false
	}
}

// sentLocked returns what is closed when all that waits has been written, or cannot be.
func (o *outbox) sentLocked() <-chan struct{} {
	if o.sent == nil {
		o.sent = make(chan struct{})
	}
	return o.sent
}

var (
	errBroken  = errors.New("rpc: the connection is broken: a reply could not be encoded")
	errNotSent = errors.New("rpc: the call was not sent")
)

// encodeLocked appends a message to buf. If it fails, or gob panics, what stays there are
// definitions of types, which gob counts as sent, and the header if it is to stay.
func (o *outbox) encodeLocked(header header, body any, broken bool) error {
	value, end := len(o.buf.B), len(o.buf.B)
	direct := o.whole
	o.whole = false // not the header
	done := false
	defer func() {
		o.whole = false
		if !done { // a nil pointer, or a type's own method: the caller's panic
			o.buf.B = slices.Delete(o.buf.B, value, end)
			o.mu.Unlock()
		}
	}()
	err := o.headLocked(header)
	if err == nil {
		value, end = o.last, len(o.buf.B)
		o.whole = direct
		err = o.enc.Encode(body)
	}
	if err != nil && !broken && o.err == nil {
		o.buf.B = slices.Delete(o.buf.B, value, end)
	}
	done = true
	return err
}

// headLocked appends a header to buf.
func (o *outbox) headLocked(h header) error {
	kind := h.kind()
	if number := o.numbers[kind]; number != nil {
		o.last = len(o.buf.B)
		o.buf.B = appendHeader(o.buf.B, number, h)
		return nil
	}
	if err := o.enc.Encode(h.wire()); err != nil {
		return err
	}
	o.numbers[kind] = numberOf(o.buf.B[o.last:])
	return nil
}

// writeAll writes until nothing is left.
func (o *outbox) writeAll() {
	for more := true; more; {
		runtime.Gosched() // there are others, who may be about to add something
		o.mu.Lock()
		o.writeLocked(nil)
		more = o.queuedLocked() > 0 && o.err == nil
		o.writing = more
		o.mu.Unlock()
	}
}

// writeLocked writes all that waits, and a message behind it if there is one, unlocking meanwhile.
func (o *outbox) writeLocked(message []byte) {
	full, buf, seqs, sent := o.full, o.buf, o.seqs, o.sent
	o.full, o.buf, o.seqs, o.sent = nil, nil, o.spares[:0], nil
	o.spares = nil
	o.mu.Unlock()
	var err error
	if message == nil && len(full) == 0 {
		_, err = o.w.Write(buf.B)
	} else {
		all := make(net.Buffers, 0, len(full)+2)
		for _, b := range full {
			all = append(all, b.B)
		}
		if buf != nil { // nobody has written the header in the meantime
			all = append(all, buf.B)
		}
		if message != nil {
			all = append(all, message)
		}
		_, err = all.WriteTo(o.w)
	}
	if err != nil && o.failed != nil {
		o.failed(seqs, err)
	}
	o.mu.Lock()
	if err != nil && o.err == nil {
		o.err = err
		if o.failed != nil {
			rest := slices.Clone(o.seqs)
			o.mu.Unlock()
			o.failed(rest, err)
			o.mu.Lock()
		}
	}
	for _, b := range full {
		buffer.Put(b)
	}
	buffer.Put(buf)
	o.spares = seqs
	if sent != nil {
		close(sent)
	}
	if err != nil && o.sent != nil { // for what nobody will write
		close(o.sent)
		o.sent = nil
	}
	if o.wrote != nil {
		close(o.wrote)
		o.wrote = nil
	}
}

// finish writes what is left, although nothing can be put any more.
func (o *outbox) finish() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.writing {
		o.waitLocked(nil)
	}
	if o.queuedLocked() > 0 {
		o.writing = true
		o.writeLocked(nil)
		o.writing = false
	}
}
