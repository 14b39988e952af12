package mux

import (
	"slices"
	"sync"
)

// kept is what has been written and is not acknowledged: what is written again when the
// connection goes on over another transport. Bytes are told by their position, counted from the
// end of HELLO. The writer's lock guards it.
type kept struct {
	pieces  []piece // the oldest first
	start   uint64  // position of the first piece
	end     uint64  // position behind the last
	acked   uint64  // the peer has all before this
	written uint64  // no write that goes on uses anything before this
	limit   uint64  // the most that may be kept before writing waits, in bytes
}

// A piece is some bytes that are kept: a copy, in a chunk of its own that what follows joins, or
// a message's own.
type piece struct {
	data  []byte
	msg   *Message // released with the piece; nil: none
	chunk bool     // data is a copy, with room behind it
}

const (
	// smallChunk is what a connection keeps at least once it has said something, in bytes, and
	// largeChunk what is taken when more is kept.
	smallChunk = 512
	largeChunk = 32 << 10
)

var chunks = sync.Pool{New: func() any { return new([largeChunk]byte) }}

// copy keeps a copy of b.
func (k *kept) copy(b []byte) {
	k.end += uint64(len(b))
	for len(b) > 0 {
		last := len(k.pieces) - 1
		if last < 0 || !k.pieces[last].chunk || len(k.pieces[last].data) == cap(k.pieces[last].data) {
			p := piece{chunk: true}
			if last < 0 && len(b) <= smallChunk {
				p.data = make([]byte, 0, smallChunk)
			} else {
				p.data = chunks.Get().(*[largeChunk]byte)[:0]
			}
			k.pieces = append(k.pieces, p)
			last++
		}
		p := &k.pieces[last]
		n := min(len(b), cap(p.data)-len(p.data))
		p.data = append(p.data, b[:n]...)
		b = b[n:]
	}
}

// hold keeps b, which must not change before msg, if there is one, is released with it.
func (k *kept) hold(b []byte, msg *Message) {
	k.end += uint64(len(b))
	k.pieces = append(k.pieces, piece{data: b, msg: msg})
}

// release has msg released once all that is kept now may be forgotten.
func (k *kept) release(msg *Message) {
	if msg == nil {
		return
	}
	k.pieces = append(k.pieces, piece{msg: msg})
	k.forget()
}

// full reports whether no more may be kept.
func (k *kept) full() bool { return k.end-k.acked >= k.limit }

// ack takes the peer's word that it has all before a position, and reports whether it can.
// One that is older than the last says nothing new.
func (k *kept) ack(position uint64) bool {
	if position > k.end {
		return false
	}
	if position > k.acked {
		k.acked = position
		k.forget()
	}
	return true
}

// wrote counts what is kept as written.
func (k *kept) wrote() {
	k.written = k.end
	k.forget()
}

// forget lets go of what the peer has, and no write uses.
func (k *kept) forget() {
	n := 0
	for ; n < len(k.pieces); n++ {
		p := &k.pieces[n]
		if k.start+uint64(len(p.data)) > min(k.acked, k.written) {
			break
		}
		k.start += uint64(len(p.data))
		p.msg.Release()
		if p.chunk && cap(p.data) == largeChunk {
			chunks.Put((*[largeChunk]byte)(p.data[:largeChunk]))
		}
	}
	k.pieces = slices.Delete(k.pieces, 0, n)
	if len(k.pieces) == 0 && cap(k.pieces) > 1024 {
		k.pieces = nil
	}
}

// since returns what is kept from a position on, which must not be before what is acknowledged.
func (k *kept) since(position uint64) (list [][]byte) {
	at := k.start
	for _, p := range k.pieces {
		next := at + uint64(len(p.data))
		if next > position {
			list = append(list, p.data[max(at, position)-at:])
		}
		at = next
	}
	return list
}
