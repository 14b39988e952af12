package mux

import "slices"

// assembly is a message that arrives in parts. It is a list of pieces, so that the read
// loop, which all calls of the connection wait for, never moves what has arrived: who
// wants the message puts the pieces together.
type assembly struct {
	pieces [][]byte // all but the last are full
	most   int      // bytes that the last takes
	total  int64
	got    int64
	// skip is set when the message is not wanted: it is counted and dropped.
	skip bool

	// Of a request, guarded by Conn.mu: see slow.go.
	heard int64 // bytes of the parts that have begun to arrive
	mark  int64 // of them, when enough had come last
	looks int   // times that the watchdog has found too few since
	among int   // the most messages in parts that there were since
}

const (
	// Up to trusted bytes are allocated on a peer's word, if one in trustFactor of them has
	// come: an honest peer's first part is full, and so a message of that size is one piece.
	// Beyond it pieces grow with what has arrived.
	trusted     = 2 << 20
	trustFactor = 32
	// maxPiece is the largest piece of a larger message, in bytes.
	maxPiece = 1 << 20
	// copyStep is how much is copied at a time, in bytes. See appendPiece.
	copyStep = 256 << 10
)

// room returns where the first of the next n bytes go, and counts them.
func (a *assembly) room(n int) []byte {
	last := len(a.pieces) - 1
	if last < 0 || len(a.pieces[last]) == a.most {
		size := max(int64(n), min(a.got, maxPiece))
		if a.got == 0 && a.total <= min(trusted, trustFactor*int64(n)) {
			size = a.total
		}
		a.most = int(min(size, a.total-a.got))
		a.pieces = append(a.pieces, newBody(a.most))
		last++
	}
	p := a.pieces[last]
	from := len(p)
	p = p[:min(from+n, a.most)]
	a.pieces[last] = p
	a.got += int64(len(p) - from)
	return p[from:]
}

// size returns how many bytes have arrived; nil has none.
func (a *assembly) size() int64 {
	if a == nil {
		return 0
	}
	return a.got
}

// bytes returns the message, which must be complete, and forgets it.
func (a *assembly) bytes() []byte {
	if len(a.pieces) == 1 {
		return a.pieces[0]
	}
	whole := newBody(int(a.total))
	for i, p := range a.pieces {
		for part := range slices.Chunk(p, copyStep) {
			whole = appendPiece(whole, part)
		}
		a.pieces[i] = nil
		freeBody(p)
	}
	return whole
}

// appendPiece is a call because that is where the runtime can stop a goroutine: it cannot
// while one copies, and a collection that begins then has all others wait.
//
//go:noinline
func appendPiece(dst, piece []byte) []byte { return append(dst, piece...) }
