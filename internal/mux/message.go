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

// Sized returns n bytes for a message to have, whatever is in them.
func (m *Message) Sized(n int) []byte {
	m.Grow(n)
	b := m.AvailableBuffer()[:n]
	m.Buffer = *bytes.NewBuffer(b)
	return b
}

// Release gives the message back. Nothing may alias its bytes any more.
func (m *Message) Release() {
	if m == nil || m.Cap() > maxPooled {
		return
	}
	m.Reset()
	messages.Put(m)
}
