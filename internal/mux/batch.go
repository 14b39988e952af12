package mux

import (
	"net"
	"sync"

	"github.com/yonder-rpc/yonder/internal/wire"
)

// batch gathers what is written by few system calls. Its parts go last.
type batch struct {
	vec    net.Buffers // pieces of maxWrite at most
	next   int         // the first of them that is not written
	filled bool        // there is nothing to come into vec
	parts  int
	heads  [partsPerWrite][wire.HeaderSize + 1]byte
	data   [partsPerWrite][]byte
}

var batches = sync.Pool{New: func() any { return new(batch) }}

// add has p written, too. It is not inlined, four times, for the sake of the size of programs.
//
//go:noinline
func (b *batch) add(p []byte) {
	for len(p) > 0 {
		n := min(len(p), maxWrite)
		b.vec = append(b.vec, p[:n])
		p = p[n:]
	}
}

// span returns what the next system call writes.
func (b *batch) span() net.Buffers {
	end, size := b.next, 0
	for end < len(b.vec) && size+len(b.vec[end]) <= maxWrite {
		size += len(b.vec[end])
		end++
	}
	return b.vec[b.next:end]
}

// write writes all.
func (b *batch) write(w *writer) error {
	for b.next < len(b.vec) {
		vec := b.span()
		b.next += len(vec)
		n, err := vec.WriteTo(w.conn)
		w.written.Add(uint64(n))
		if err != nil {
			return err
		}
		w.writes.Add(1)
	}
	return nil
}

// writeNow writes what the transport takes at once, by a few system calls, and reports whether that is
// all.
func (b *batch) writeNow(w *writer) (all bool, err error) {
	for range maxRounds {
		if b.next == len(b.vec) {
			return true, nil
		}
		vec := b.span()
		n, err := w.raw.gather(vec)
		w.written.Add(uint64(n))
		for len(vec) > 0 && n >= len(vec[0]) {
			n -= len(vec[0])
			vec = vec[1:]
			b.next++
		}
		if err != nil || len(vec) > 0 {
			if n > 0 {
				vec[0] = vec[0][n:]
			}
			return false, err
		}
		w.writes.Add(1)
	}
	return b.next == len(b.vec), nil
}

// free gives a batch back that has been written.
func (b *batch) free() {
	clear(b.data[:b.parts])
	if clear(b.vec); cap(b.vec) > 1024 {
		b.vec = nil
	}
	b.vec, b.next, b.filled, b.parts = b.vec[:0], 0, false, 0
	batches.Put(b)
}

// gather returns the batch of all that take took.
func (w *writer) gather() *batch {
	if w.batch == nil {
		w.batch = batches.Get().(*batch)
	}
	b := w.batch
	if b.filled {
		return b
	}
	b.filled = true
	for _, c := range w.outCuts {
		b.add(c.frames)
		if c.msg != nil {
			b.add(c.msg.Bytes())
		}
	}
	b.add(w.rest)
	for i := range b.parts {
		b.add(b.heads[i][:])
		b.add(b.data[i])
	}
	return b
}

// gathered lets go of the batch, which has been written, or will not be.
func (w *writer) gathered(err error) {
	if err == nil {
		w.batch.free()
	}
	w.batch = nil
}
