package mux

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/yonder-rpc/yonder/internal/buffer"
	"github.com/yonder-rpc/yonder/internal/wire"
)

// record is a transport that keeps what is written.
type record struct{ bytes.Buffer }

func (*record) Close() error { return nil }

// TestWriteOrder has frames of all sizes gather, which are copied and not, and be written in their order,
// and kept in it: what a connection that may be resumed writes again.
func TestWriteOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	near, _ := tcp(t) // never written to
	raw := newRawConn(near, new(lead))
	cuts := 0
	pattern := make([]byte, 256<<10)
	for i := range pattern {
		pattern[i] = byte(r.Uint32())
	}
	for range 50 {
		var conn record
		var load atomic.Int32
		w := writer{conn: &conn, written: new(atomic.Uint64), received: new(atomic.Uint64), load: &load, failed: func(err error) { t.Error(err) }}
		load.Store(int32(r.IntN(3)))
		if gathers && r.IntN(2) == 0 { // smaller messages are not copied, either
			w.raw = raw
		}
		var want []byte
		body := func(most int) []byte {
			n := r.IntN(most)
			return pattern[r.IntN(len(pattern)-n):][:n]
		}
		keeps := r.IntN(2) == 0
		w.mu.Lock()
		w.freshLocked()
		w.buf = append(w.buf, "the preface"...)
		want = append(want, w.buf...)
		if keeps {
			w.keep, w.unkept = &kept{limit: 1 << 30}, len(w.buf)
		}
		first := len(want)
		for range 1 + r.IntN(3) { // writes
			held := len(w.buf)
			if keeps {
				held += int(w.keep.end)
			}
			before := len(want)
			for range r.IntN(100) {
				h := wire.Header{Type: wire.Response, ID: r.Uint32()}
				head := body(100)
				switch r.IntN(4) {
				case 0:
					b := body([]int{100, 2 * cutSize, lastPart}[r.IntN(3)])
					w.frameLocked(h, head, b)
					want = append(append(wire.AppendHeader(want, h, len(head)+len(b)), head...), b...)
				case 1, 2:
					b := body([]int{100, 2 * cutSize, 2 * wholeSize}[r.IntN(3)])
					msg := new(Message) // whose memory is about as large
					if r.IntN(2) == 0 {
						msg.Grow(1 << 17)
					}
					msg.Write(b)
					w.messageLocked(h, head, msg)
					want = append(append(wire.AppendHeader(want, h, len(head)+len(b)), head...), b...)
				default:
					home := buffer.Get()
					frames := append(home.B, body(2*cutSize)...)
					w.framesLocked(frames, home)
					want = append(want, frames...)
				}
			}
			if n := w.heldLocked(); n != held+len(want)-before {
				t.Fatalf("%d bytes are held; want %d", n, held+len(want)-before)
			}
			for _, c := range w.cuts {
				if c.msg != nil && c.msg.Len() < wholeSize {
					cuts++
				}
				if cap(c.frames) > 2*buffer.Full {
					t.Fatalf("a buffer has %d bytes", cap(c.frames))
				}
			}
			w.kickAndUnlock(mayBlock)
			<-w.idleC()
			if !bytes.Equal(conn.Bytes(), want) {
				t.Fatalf("%d bytes were written, not the %d as they were", conn.Len(), len(want))
			}
			w.mu.Lock()
		}
		if keeps {
			if got := slices.Concat(w.keep.since(0)...); !bytes.Equal(got, want[first:]) {
				t.Fatalf("%d bytes are kept, not the %d behind the preface as they were", len(got), len(want)-first)
			}
		}
		w.mu.Unlock()
	}
	if (cuts > 0) != gathers {
		t.Errorf("%d messages below %d bytes were not copied; pieces are gathered: %v", cuts, wholeSize, gathers)
	}
}
