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
	drawn bool   // the buffer's memory is newBody's
	tail  []byte // what follows the buffer, in memory that is not the message's
	lent  []byte // a request's memory that the tail may share; it goes back with the message
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

// Memory of bodies is kept for others from minBody bytes on, and up to maxBody and bodyUnit. No collection
// of garbage leaves it there for longer than until the next but one. Nothing else may go there than comes
// from there: a pool that more is put into than is taken from it grows without end, since all that was put
// into it counts for when garbage is collected next (`TestReleaseDrops`).
const (
	minBody = 32 << 10
	maxBody = 64 << 20
	// bodyUnit is what there is room for beside powers of two, in bytes: they are the most common sizes,
	// and something comes with them.
	bodyUnit = 8 << 10
)

// bodies are memory of large bodies that nobody has kept, and of pieces that have been put together: four
// sizes from one power of two to the next, from the one below minBody on. What is fresh is cleared first, and each page of it is a fault:
// 64 MiB results arrived at less than half the speed (`internal/bench -workloads mixed`).
var bodies [(26 - 14) * 4]sync.Pool

// bodyClass returns the pool for a size, and the size of the memory in it.
func bodyClass(size int) (class, whole int) {
	last := max(size-bodyUnit, minBody) - 1
	power := bits.Len(uint(last)) - 1
	step := 1 << (power - 2)
	quarter := last>>(power-2) - 4
	return (power-14)*4 + quarter, 1<<power + (quarter+1)*step + bodyUnit
}

// newBody returns memory for a body of a size, whatever is in it.
func newBody(size int) []byte {
	if size < minBody || size > maxBody+bodyUnit {
		return make([]byte, 0, size)
	}
	class, whole := bodyClass(size)
	if b, _ := bodies[class].Get().(*[]byte); b != nil {
		return (*b)[:0]
	}
	return make([]byte, 0, whole)
}

// freeBody takes memory of a body, which must be newBody's, that nobody uses any more.
func freeBody(b []byte) {
	if cap(b) < minBody || cap(b) > maxBody+bodyUnit {
		return
	}
	if class, whole := bodyClass(cap(b)); whole == cap(b) {
		kept := b // only this allocates
		bodies[class].Put(&kept)
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

// Reserve makes room for n bytes, which is worth something if they are many.
func (m *Message) Reserve(n int) {
	need := m.Buffer.Len() + n
	if need <= m.Cap() || need <= maxPooled {
		return
	}
	memory := append(newBody(need), m.Bytes()...)
	m.freeMemory()
	m.Buffer, m.drawn = *bytes.NewBuffer(memory), true
}

// freeMemory lets go of the buffer's memory.
func (m *Message) freeMemory() {
	if m.drawn {
		m.Buffer.Reset()
		freeBody(m.AvailableBuffer())
	}
	m.Buffer, m.drawn = bytes.Buffer{}, false
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
		m.freeMemory()
	}
	messages.Put(m)
}
