package jsonrpc

import (
	"io"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/yonder-rpc/yonder/internal/buffer"
)

// maxQueued is how many bytes wait to be written before who adds more has to wait, too.
const maxQueued = 1 << 20

// maxFraming is what a message takes beside its text, in bytes, at most.
const maxFraming = 64

// maxWrite is the largest piece that is written at a time: each must make it within
// the time that a write may take.
const maxWrite = 256 << 10

// A writer writes messages, many at a time: who finds nobody writing does, and takes
// along what others have added in the meantime.
type writer struct {
	conn    io.Closer
	send    func(batch []byte, ends []int) error // ends: where each message does
	timeout time.Duration                        // of a piece; less than zero: none
	lost    func(err error)                      // is told when send fails; nil: nobody is

	mu      sync.Mutex // guards what follows
	room    sync.Cond  // queued or err has changed
	bundles []bundle   // the oldest first; maxQueued keeps them few, a score at most
	queued  int        // bytes of them
	spared  []int      // what ends have been before, to be used again
	writing bool
	err     error
}

// A bundle is messages that one call of send writes.
type bundle struct {
	text *buffer.Buffer
	ends []int
}

// newWriter returns a writer to conn, which send writes to. It is closed when a write
// takes too long.
func newWriter(conn io.Closer, timeout time.Duration, send func(batch []byte, ends []int) error) *writer {
	w := &writer{conn: conn, send: send, timeout: timeout}
	w.room.L = &w.mu
	return w
}

// write has a message written, and returns when it is queued or written. The error says
// that it was neither. crowd says that others are likely to write now, too.
func (w *writer) write(text []byte, framing framing, crowd bool) error {
	w.mu.Lock()
	for w.queued > maxQueued && w.err == nil {
		w.room.Wait()
	}
	if w.err != nil {
		w.mu.Unlock()
		return w.err
	}
	w.addLocked(text, framing)
	if w.writing {
		w.mu.Unlock()
		return nil
	}
	w.writing = true
	w.mu.Unlock()
	if crowd {
		runtime.Gosched()
	}
	if w.flush() {
		go w.flushAll() // ends when nothing is queued, or the connection is closed
	}
	return nil // whatever came of it: the other end may have seen the message
}

// addLocked queues a message.
func (w *writer) addLocked(text []byte, framing framing) {
	last := len(w.bundles) - 1
	if last < 0 || len(w.bundles[last].text.B) >= buffer.Full {
		w.bundles = append(w.bundles, bundle{buffer.Get(), w.spared[:0]})
		w.spared = nil
		last++
	}
	b := &w.bundles[last]
	t := b.text
	before := len(t.B)
	t.Grow(len(text) + maxFraming)
	if framing == header {
		t.B = append(t.B, "Content-Length: "...)
		t.B = strconv.AppendInt(t.B, int64(len(text)), 10)
		t.B = append(t.B, "\r\n\r\n"...)
	}
	t.B = append(t.B, text...)
	switch framing {
	case header:
	case lines:
		t.B = append(t.B, '\n')
	default:
		b.ends = append(b.ends, len(t.B))
	}
	w.queued += len(t.B) - before
}

func (w *writer) flushAll() {
	for w.flush() {
	}
}

// flush writes the oldest of what is queued. It reports whether there is more, and is to be called
// again then.
func (w *writer) flush() (more bool) {
	w.mu.Lock()
	b := w.bundles[0]
	w.bundles = slices.Delete(w.bundles, 0, 1)
	w.queued -= len(b.text.B)
	w.room.Broadcast()
	w.mu.Unlock()
	err := w.send(b.text.B, b.ends)
	if err != nil && w.lost != nil {
		w.lost(err)
	}
	buffer.Put(b.text)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.spared = b.ends
	if err != nil && w.err == nil {
		w.err = err
	}
	if w.err == nil && len(w.bundles) > 0 {
		return true
	}
	w.writing = false
	clear(w.bundles) // there are some after an error
	w.bundles, w.queued = w.bundles[:0], 0
	w.room.Broadcast()
	return false
}

// drain waits until all is written that was queued.
func (w *writer) drain() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.writing {
		w.room.Wait()
	}
}

// fail has writes fail from now on.
func (w *writer) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
	w.room.Broadcast()
}

// pieces is a send for a connection that is a stream of bytes.
func (w *writer) pieces(conn io.Writer) func(batch []byte, ends []int) error {
	var t *time.Timer
	return func(batch []byte, _ []int) error {
		for len(batch) > 0 {
			n := min(len(batch), maxWrite)
			if w.timeout >= 0 {
				if t == nil {
					t = time.AfterFunc(w.timeout, func() { w.conn.Close() })
				} else {
					t.Reset(w.timeout)
				}
			}
			_, err := conn.Write(batch[:n])
			if t != nil {
				t.Stop()
			}
			if err != nil {
				return err
			}
			batch = batch[n:]
		}
		return nil
	}
}
