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

// A request goes back when it is known that the response does not share it, and else with that: a peer
// that does not read what it is answered must not keep what it has sent here.
func TestLendBody(t *testing.T) {
	for _, shares := range []bool{false, true} {
		in := &Incoming{Large: true, Body: make([]byte, 1<<20)}
		response := NewMessage()
		if shares {
			response.End(in.Body)
		} else {
			response.Write(in.Body[:50_000])
		}
		in.LendBody(response)
		if in.Body != nil || (response.lent != nil) != shares {
			t.Errorf("shares %v: the response holds %d bytes, the request %d", shares, len(response.lent), len(in.Body))
		}
		if response.Release(); response.lent != nil {
			t.Error("not let go of")
		}
	}
}
