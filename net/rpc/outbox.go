package rpc

import (
	"encoding/gob"
	"errors"
	"io"
	"slices"
	"sync"
)

const (
	maxQueued = 1 << 20 // bytes that may wait for a write before senders wait too
	keptSpare = 1 << 16 // capacity of a buffer worth keeping for the next batch
)

// An outbox encodes messages and writes them. Whoever adds a message and finds nobody
// writing becomes the writer; what others add meanwhile goes out with its next write. So
// one call alone waits for nobody, and many share system calls.
type outbox struct {
	w io.Writer
	// failed is told, without the lock, which messages a failed write has taken along; nil:
	// nobody need know.
	failed func(seqs []uint64, err error)

	mu      sync.Mutex // guards what follows
	enc     *gob.Encoder
	buf     []byte   // encoded, to be written
	last    int      // where in buf the encoder's last write begins
	seqs    []uint64 // of the messages in buf
	spare   []byte
	spares  []uint64
	writing bool
	wrote   chan struct{} // closed when a write ends; nil: nobody waits for that
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
	e.o.last = len(e.o.buf)
	e.o.buf = append(e.o.buf, p...)
	return len(p), nil
}

// encodeError is the failure to encode a value, after which the outbox goes on.
type encodeError struct{ err error }

func (e encodeError) Error() string { return e.err.Error() }
func (e encodeError) Unwrap() error { return e.err }

func isEncodeError(err error) bool {
	_, ok := err.(encodeError)
	return ok
}

// put encodes a header and a body, and has them written: by itself, or, if done is not
// nil, by another goroutine. It waits for earlier writes if too much is queued, until done
// is closed. If the body cannot be encoded, nothing is sent, or, without whole, the header
// alone; then nothing can be put any more.
func (o *outbox) put(done <-chan struct{}, seq uint64, header, body any, whole bool) error {
	o.mu.Lock()
	for len(o.buf) >= maxQueued && o.writing && o.err == nil {
		wrote := o.wroteLocked()
		o.mu.Unlock()
		select {
		case <-wrote:
		case <-done:
			return errNotSent
		}
		o.mu.Lock()
	}
	return o.putLocked(done != nil, seq, header, body, whole)
}

// add is put for what must not wait.
func (o *outbox) add(seq uint64, header, body any) error {
	o.mu.Lock()
	return o.putLocked(true, seq, header, body, true)
}

func (o *outbox) putLocked(aside bool, seq uint64, header, body any, whole bool) error {
	if o.err != nil {
		defer o.mu.Unlock()
		return o.err
	}
	if err := o.encodeLocked(header, body, whole); err != nil {
		if !whole {
			o.err = errBroken
		}
		o.mu.Unlock()
		return encodeError{err}
	}
	o.seqs = append(o.seqs, seq)
	if o.writing {
		o.mu.Unlock()
		return nil
	}
	o.writing = true
	if aside {
		o.mu.Unlock()
		go o.writeAll() // ends when nothing is left to write, or a write fails
		return nil
	}
	o.writeLocked()
	rest := len(o.buf) > 0 && o.err == nil
	o.writing = rest
	o.mu.Unlock()
	if rest {
		go o.writeAll() // what others have added is not this caller's to wait for
	}
	return nil
}

var (
	errBroken  = errors.New("rpc: the connection is broken: a reply could not be encoded")
	errNotSent = errors.New("rpc: the call was not sent")
)

// encodeLocked appends a message to buf. If it fails, or gob panics, what stays there are
// definitions of types, which gob counts as sent, and without whole the header.
func (o *outbox) encodeLocked(header, body any, whole bool) error {
	value, end := len(o.buf), len(o.buf)
	done := false
	defer func() {
		if !done { // a nil pointer, or a type's own method: the caller's panic
			o.buf = slices.Delete(o.buf, value, end)
			o.mu.Unlock()
		}
	}()
	err := o.enc.Encode(header)
	if err == nil {
		value, end = o.last, len(o.buf)
		err = o.enc.Encode(body)
	}
	if err != nil && whole {
		o.buf = slices.Delete(o.buf, value, end)
	}
	done = true
	return err
}

// writeAll writes until nothing is left.
func (o *outbox) writeAll() {
	o.mu.Lock()
	for len(o.buf) > 0 && o.err == nil {
		o.writeLocked()
	}
	o.writing = false
	o.mu.Unlock()
}

// writeLocked writes what buf has, unlocking meanwhile.
func (o *outbox) writeLocked() {
	buf, seqs := o.buf, o.seqs
	o.buf, o.seqs = o.spare[:0], o.spares[:0]
	o.spare, o.spares = nil, nil
	o.mu.Unlock()
	_, err := o.w.Write(buf)
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
	if cap(buf) <= keptSpare {
		o.spare = buf
	}
	o.spares = seqs
	if o.wrote != nil {
		close(o.wrote)
		o.wrote = nil
	}
}

func (o *outbox) wroteLocked() <-chan struct{} {
	if o.wrote == nil {
		o.wrote = make(chan struct{})
	}
	return o.wrote
}

// finish writes what is left, although nothing can be put any more.
func (o *outbox) finish() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.writing {
		wrote := o.wroteLocked()
		o.mu.Unlock()
		<-wrote
		o.mu.Lock()
	}
	if len(o.buf) > 0 {
		o.writing = true
		o.writeLocked()
		o.writing = false
	}
}
