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
	total int
	// skip is set when the message is not wanted: it is counted and dropped.
	skip bool
	got  int
}

// trusted is how much is allocated on a peer's word alone; beyond it the buffer
// grows with what has arrived.
const trusted = 1 << 20

// room returns the n bytes of the buffer that the next part fills.
func (a *assembly) room(n int) []byte {
	need := a.got + n
	if need > cap(a.buf) {
		size := min(a.total, max(need, 2*cap(a.buf), min(a.total, trusted)))
		grown := make([]byte, a.got, size)
		copy(grown, a.buf)
		a.buf = grown
	}
	a.buf = a.buf[:need]
	return a.buf[a.got:need]
}
