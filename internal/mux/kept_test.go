package mux

import (
	"bytes"
	"testing"
)

// FuzzKept takes its input as a program of what happens to what is kept, and compares that with all
// that has been sent.
func FuzzKept(f *testing.F) {
	f.Add([]byte{0, 10, 0, 200, 3, 2, 5, 1, 30, 3, 2, 20, 4, 7})
	f.Add([]byte{1, 10, 0, 1, 20, 0, 3, 0, 2, 2, 5, 0})
	f.Add(bytes.Repeat([]byte{0, 255, 3, 2, 90, 1, 100, 4, 40}, 60))
	f.Fuzz(func(t *testing.T, program []byte) {
		if len(program) > 300 { // what is compared grows with the square
			return
		}
		p := &program
		next := func() int {
			if len(*p) == 0 {
				return 0
			}
			b := (*p)[0]
			*p = (*p)[1:]
			return int(b)
		}
		k := kept{limit: 1 << 20}
		var sent []byte
		stamp := byte(0)
		some := func(n int) []byte {
			b := make([]byte, n)
			for i := range b {
				stamp += 7
				b[i] = stamp
			}
			return b
		}
		for len(*p) > 0 {
			switch next() % 5 {
			case 0:
				b := some(next() * next())
				k.copy(b)
				sent = append(sent, b...)
			case 1:
				msg := NewMessage()
				msg.Write(some(next()))
				sent = append(sent, msg.Bytes()...)
				k.hold(msg.Bytes(), msg)
			case 2:
				to := k.acked + uint64(next()*next())
				if ok := k.ack(to); ok != (to <= uint64(len(sent))) {
					t.Fatalf("ACK of %d of %d: %t", to, len(sent), ok)
				}
			case 3:
				k.wrote()
			case 4:
				k.release(NewMessage())
			}
			if k.end != uint64(len(sent)) || k.start > min(k.acked, k.written) {
				t.Fatalf("start %d, acked %d, written %d, end %d, sent %d", k.start, k.acked, k.written, k.end, len(sent))
			}
			for _, gone := range k.pieces[len(k.pieces):cap(k.pieces)] {
				if gone.data != nil || gone.msg != nil {
					t.Fatalf("%d bytes are held that the peer has", len(gone.data))
				}
			}
			from := k.acked + uint64(next())%(k.end-k.acked+1)
			if got := bytes.Join(k.since(from), nil); !bytes.Equal(got, sent[from:]) {
				t.Fatalf("%d bytes are kept from %d on, want %d", len(got), from, len(sent)-int(from))
			}
		}
		k.wrote()
		if k.ack(k.end); len(k.pieces) > 0 {
			t.Fatalf("%d pieces are kept that the peer has", len(k.pieces))
		}
	})
}
