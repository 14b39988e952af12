package mux

import (
	"bytes"
	"sync"
)

// A Message is the body of a request, a response or a stream's value: a pooled
// buffer with one owner at a time. Functions that take one own it from then on.
type Message struct {
	bytes.Buffer
}

// maxPooled is the largest buffer that goes back to the pool, in bytes.
const maxPooled = 2 << 20

var messages = sync.Pool{New: func() any { return new(Message) }}

// NewMessage returns an empty message.
func NewMessage() *Message { return messages.Get().(*Message) }

// Release gives the message back. Nothing may alias its bytes any more.
func (m *Message) Release() {
	if m == nil || m.Cap() > maxPooled {
		return
	}
	m.Reset()
	messages.Put(m)
}

// assembly is a message that arrives in parts.
type assembly struct {
	buf   []byte
	total int64
	// skip is set when the message is not wanted: it is counted and dropped.
	skip bool
	got  int64
}

// A buffer grows with what has arrived. Up to trusted bytes are allocated on a peer's
// word, if one in trustFactor of them has come: an honest peer's first part is full,
// and so a message of that size needs one allocation.
const (
	trusted     = 1 << 20
	trustFactor = 16
)

// room returns the n bytes of the buffer that the next part fills.
func (a *assembly) room(n int) []byte {
	got := len(a.buf)
	need := got + n
	if need > cap(a.buf) {
		size := min(int(a.total), max(need, 2*cap(a.buf), min(trustFactor*need, trusted)))
		grown := make([]byte, got, size)
		copy(grown, a.buf)
		a.buf = grown
	}
	a.buf = a.buf[:need]
	return a.buf[got:need]
}
