package mux

import (
	"runtime"
	"sync"
)

// maxIdle is how many goroutines a connection keeps for its next calls.
const maxIdle = 256

// workers are the goroutines that serve a connection's calls. One that has served a
// call waits for another, because its stack has grown to what a call needs: growing
// a new one costs as much as the call itself (BenchmarkCallers). Those that nobody has
// needed between two looks of the watchdog end, so an idle connection has none.
type workers struct {
	mu    sync.Mutex
	idle  []chan *Incoming // one a worker that waits; the last in is the first out
	least int              // of len(idle), since the last trim
	over  bool
}

// start has a call served by a worker that waits, or by a new one.
func (c *Conn) start(in *Incoming) {
	w := &c.workers
	w.mu.Lock()
	n := len(w.idle) - 1
	if n < 0 {
		w.mu.Unlock()
		go c.work(in) // ends when the workers are trimmed, or with the connection
		return
	}
	next := w.idle[n]
	w.idle = w.idle[:n]
	w.least = min(w.least, n)
	w.mu.Unlock()
	next <- in
}

// work serves calls until the worker is not needed any more.
func (c *Conn) work(in *Incoming) {
	// The garbage collector halves stacks of which less than a quarter is in use. A waiting
	// worker's would be, and its next call would pay for growing it again, which was an
	// eighth of a server's CPU time (BenchmarkCallers).
	var room [3 << 10]byte
	defer runtime.KeepAlive(&room)
	next := make(chan *Incoming, 1)
	for in != nil {
		c.serve(in)
		in = nil // what a waiting worker holds should be garbage
		w := &c.workers
		w.mu.Lock()
		if w.over || len(w.idle) >= maxIdle {
			w.mu.Unlock()
			return
		}
		w.idle = append(w.idle, next)
		w.mu.Unlock()
		in = <-next
	}
}

// trim ends the workers that nobody has needed since the last time.
func (w *workers) trim() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return
	}
	for _, next := range w.idle[:w.least] {
		close(next)
	}
	w.idle = append([]chan *Incoming(nil), w.idle[w.least:]...)
	w.least = len(w.idle)
}

// end ends all workers: those that wait now, the others after their calls.
func (w *workers) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	for _, next := range w.idle {
		close(next)
	}
	w.idle = nil
}
