// Package buffer has the memory in which messages gather until they are written.
//
// Where many callers send some KiB each, more gathers than one buffer should hold: to copy it into ever
// larger ones, which are too large to keep, took most of a call's time (`internal/bench
// -workloads 8KiB/256`). So who finds [Full] bytes in one goes on in another.
package buffer

import "sync"

const (
	// Full is how much one buffer holds before another takes what comes, in bytes.
	Full = 64 << 10
	// smallest is how much there is room for at least, in bytes.
	smallest = 4 << 10
	// maxKept is the largest that is kept for others, in bytes: with a message that has just not fitted.
	maxKept = 2 * Full
)

// A Buffer is bytes that its owner adds to.
type Buffer struct{ B []byte }

var buffers = sync.Pool{New: func() any { return &Buffer{make([]byte, 0, smallest)} }}

// Get returns an empty buffer.
func Get() *Buffer { return buffers.Get().(*Buffer) }

// Put takes a buffer, or nil, whose bytes nobody uses any more.
func Put(b *Buffer) {
	if b != nil && cap(b.B) <= maxKept {
		b.B = b.B[:0]
		buffers.Put(b)
	}
}

// Grow makes room for n more bytes: twice as much as there was, or more. Of what is too large to be
// kept it takes no more than it needs.
func (b *Buffer) Grow(n int) {
	need := len(b.B) + n
	if need <= cap(b.B) {
		return
	}
	size := need
	if need <= maxKept {
		size = max(cap(b.B), smallest)
		for size < need {
			size *= 2
		}
	}
	b.B = append(make([]byte, 0, size), b.B...)
}
