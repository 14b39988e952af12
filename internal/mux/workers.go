package mux

import (
	"runtime"
	"sync"
	"time"
)

const (
	// maxIdle is how many workers wait for the next call at a time.
	maxIdle = 256
	// trimPeriod is how long a worker that nobody needs waits, at least.
	trimPeriod = 15 * time.Second
)

// Workers are the goroutines that serve the calls of some connections. One that has
// served a call waits for another, of any of them, because its stack has grown to what a
// call needs: growing a new one costs as much as the call itself (BenchmarkCallers).
// Those that nobody has needed for a while end, and all do with the last connection. The
// zero value is ready to use.
type Workers struct {
	mu    sync.Mutex
	conns int              // that are not over
	idle  []chan *Incoming // one a worker that waits; the last in is the first out
	least int              // of len(idle), since the last trim
	trim  *time.Timer      // nil: no worker waits
}

// join counts a connection.
func (w *Workers) join() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns++
}

// leave counts a connection that is over.
func (w *Workers) leave() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conns--; w.conns == 0 {
		w.endLocked(len(w.idle))
	}
}

// start has a call served by a worker that waits, or by a new one.
func (w *Workers) start(in *Incoming) {
	w.mu.Lock()
	n := len(w.idle) - 1
	if n < 0 {
		w.mu.Unlock()
		go w.work(in) // ends when it is trimmed, or with the last connection
		return
	}
	next := w.idle[n]
	w.idle = w.idle[:n]
	w.least = min(w.least, n)
	w.mu.Unlock()
	next <- in
}

// work serves calls until the worker is not needed any more.
func (w *Workers) work(in *Incoming) {
	// The garbage collector halves stacks of which less than a quarter is in use. A waiting
	// worker's would be, and its next call would pay for growing it again, which was an
	// eighth of a server's CPU time (BenchmarkCallers).
	var room [3 << 10]byte
	defer runtime.KeepAlive(&room)
	next := make(chan *Incoming, 1)
	for in != nil {
		in.conn.serve(in)
		in = nil // what a waiting worker holds should be garbage
		if !w.wait(next) {
			return
		}
		in = <-next
	}
}

// wait puts a worker among those that wait, and reports false if it is not needed.
func (w *Workers) wait(next chan *Incoming) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conns == 0 || len(w.idle) >= maxIdle {
		return false
	}
	w.idle = append(w.idle, next)
	if w.trim == nil {
		w.least = 0
		w.trim = time.AfterFunc(trimPeriod, w.trimIdle)
	}
	return true
}

// trimIdle ends the workers that nobody has needed since the last time.
func (w *Workers) trimIdle() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.trim == nil {
		return // the last connection has ended just now
	}
	w.endLocked(w.least)
	w.least = len(w.idle)
	if w.trim != nil {
		w.trim.Reset(trimPeriod)
	}
}

// endLocked ends those of the waiting workers that have waited longest.
func (w *Workers) endLocked(n int) {
	for _, next := range w.idle[:n] {
		close(next)
	}
	w.idle = append([]chan *Incoming(nil), w.idle[n:]...)
	if len(w.idle) == 0 && w.trim != nil {
		w.trim.Stop()
		w.trim = nil
	}
}
