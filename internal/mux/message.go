package mux

import (
	"bytes"
	"math/bits"
	"sync"
)

// A Message is the body of a request, a response or a stream's value: a pooled
// buffer with one owner at a time. Functions that take one own it from then on.
type Message struct {
	bytes.Buffer
	tail []byte // what follows the buffer, in memory that is not the message's
	lent []byte // a request's memory that the tail may share; it goes back with the message
}

// End ends a message that is larger than a frame with bytes of which only those of its first part
// are copied. The others must not change until the message is released.
func (m *Message) End(b []byte) {
	n := max(partSize-m.Buffer.Len(), 0)
	m.Write(b[:n])
	m.tail = b[n:]
}

// Len returns the length in bytes.
func (m *Message) Len() int { return m.Buffer.Len() + len(m.tail) }

// Reset makes the message empty.
func (m *Message) Reset() {
	m.Buffer.Reset()
	m.tail = nil
}

// maxPooled is the largest buffer that stays with its message, in bytes: it may be for a small one next.
const maxPooled = 2 << 20

var messages = sync.Pool{New: func() any { return new(Message) }}

// minBody is the smallest memory of a body that is kept for others, in bytes, and maxBody the largest. No
// collection of garbage leaves it there for longer than until the next but one.
const (
	minBody = 32 << 10
	maxBody = 64 << 20
	// bodyUnit is what the size of memory is a multiple of: sizes that differ by a few bytes share it.
	bodyUnit = 8 << 10
)

// bodies are memory of large bodies that nobody has kept, and of pieces that have been put together, by
// the logarithm of its size. What is fresh is cleared first, and each page of it is a fault: 64 MiB results
// arrived at less than half the speed (`internal/bench -workloads mixed`).
var bodies [27]sync.Pool

// NewBody returns memory for a body of a size, whatever is in it. It is a quarter larger at most.
func NewBody(size int) []byte {
	if size < minBody || size > maxBody {
		return make([]byte, 0, size)
	}
	whole := (size + bodyUnit - 1) &^ (bodyUnit - 1) // as the runtime does
	pool := &bodies[bits.Len(uint(whole))-1]
	if b, _ := pool.Get().(*[]byte); b != nil {
		if more := cap(*b) - whole; more >= 0 && more <= whole/4 {
			return (*b)[:0]
		}
		pool.Put(b)
	}
	return make([]byte, 0, whole)
}

// freeBody takes memory of a body that nobody uses any more.
func freeBody(b []byte) {
	if cap(b) >= minBody && cap(b) <= maxBody {
		kept := b // only this allocates
		bodies[bits.Len(uint(cap(b)))-1].Put(&kept)
	}
}

// NewMessage returns an empty message.
func NewMessage() *Message { return messages.Get().(*Message) }

// Sized returns n bytes for a message to have, whatever is in them.
func (m *Message) Sized(n int) []byte {
	m.Grow(n)
	b := m.AvailableBuffer()[:n]
	m.Buffer = *bytes.NewBuffer(b)
	return b
}

// Release gives the message back. Nothing may alias its bytes any more.
func (m *Message) Release() {
	if m == nil {
		return
	}
	freeBody(m.lent)
	m.lent = nil
	m.Reset()
	if m.Cap() > maxPooled {
		freeBody(m.AvailableBuffer())
		m.Buffer = bytes.Buffer{}
	}
	messages.Put(m)
}
