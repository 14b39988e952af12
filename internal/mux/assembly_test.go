package mux

import (
	"bytes"
	"testing"
)

// TestPieces: messages that are put together of pieces have them to themselves, although the pieces
// are used again.
func TestPieces(t *testing.T) {
	const total = 5*maxPiece + 100
	read := func(value byte) []byte {
		a := &assembly{total: total}
		part := bytes.Repeat([]byte{value}, partSize)
		for a.got < a.total {
			for n := min(partSize, int(a.total-a.got)); n > 0; {
				n -= copy(a.room(n), part)
			}
		}
		if len(a.pieces) < 5 {
			t.Errorf("%d pieces", len(a.pieces))
		}
		return a.bytes()
	}
	messages := [][]byte{read(1), read(2), read(3)}
	for i, m := range messages {
		if n := bytes.Count(m, []byte{byte(i + 1)}); n != total || len(m) != total {
			t.Errorf("message %d has %d bytes, %d of them its own, want %d", i+1, len(m), n, total)
		}
	}
}
