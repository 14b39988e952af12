package jsonrpc

import (
	"io"
	"runtime"
	"strconv"
	"sync"
	"time"
)

// maxQueued is how many bytes wait to be written before who adds more has to wait, too.
const maxQueued = 1 << 20

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
	queued  []byte
	ends    []int
	spare   []byte // what queued was before, to be used again
	spared  []int
	writing bool
	err     error
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
	for len(w.queued) > maxQueued && w.err == nil {
		w.room.Wait()
	}
	if w.err != nil {
		w.mu.Unlock()
		return w.err
	}
	switch framing {
	case header:
		w.queued = append(w.queued, "Content-Length: "...)
		w.queued = strconv.AppendInt(w.queued, int64(len(text)), 10)
		w.queued = append(w.queued, "\r\n\r\n"...)
		w.queued = append(w.queued, text...)
	case lines:
		w.queued = append(append(w.queued, text...), '\n')
	default:
		w.queued = append(w.queued, text...)
		w.ends = append(w.ends, len(w.queued))
	}
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

func (w *writer) flushAll() {
	for w.flush() {
	}
}

// flush writes what is queued. It reports whether there is more, and is to be called
// again then.
func (w *writer) flush() (more bool) {
	w.mu.Lock()
	batch, ends := w.queued, w.ends
	w.queued, w.ends = w.spare[:0], w.spared[:0]
	w.room.Broadcast()
	w.mu.Unlock()
	err := w.send(batch, ends)
	if err != nil && w.lost != nil {
		w.lost(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.spare, w.spared = batch[:0], ends[:0]; cap(batch) > 256<<10 {
		w.spare = nil
	}
	if err != nil && w.err == nil {
		w.err = err
	}
	if w.err == nil && len(w.queued) > 0 {
		return true
	}
	w.writing = false
	w.queued = w.queued[:0]
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
