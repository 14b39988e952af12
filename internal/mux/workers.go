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
// served a call takes the next, of any of them: what hands a call to a goroutine of its own
// costs as much as a small call, and so does the growing of a fresh stack
// (BenchmarkCallers).
//
// No call waits for another one's handler, other than for a moment where who reads serves
// (lead.go): a worker that takes a call and leaves others sees to it, before it serves its
// own, that somebody has been woken for them. Only one is woken at a time, and wakes the
// next, so that calls that are done sooner than a goroutine is woken take none.
//
// Workers that nobody has needed for a while end, and all do with the last connection. The
// zero value is ready to use.
type Workers struct {
	mu    sync.Mutex
	conns int             // that are not over
	queue fifo            // calls that no worker has taken
	waked bool            // a worker has been woken and has not looked at the queue yet
	idle  []chan struct{} // one a worker that waits; the last in is the first out
	least int             // of len(idle), since the last trim
	trim  *time.Timer     // nil: no worker waits
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

// start has a call served.
func (w *Workers) start(in *Incoming) {
	w.mu.Lock()
	w.queue.push(in)
	w.wakeAndUnlock()
}

// wakeAndUnlock sees to it that somebody will look at the queue, if there is something in it.
func (w *Workers) wakeAndUnlock() {
	if w.waked || w.queue.len() == 0 {
		w.mu.Unlock()
		return
	}
	w.waked = true
	n := len(w.idle) - 1
	if n < 0 {
		w.mu.Unlock()
		go w.work() // ends when it is trimmed, or with the last connection
		return
	}
	next := w.idle[n]
	w.idle = w.idle[:n]
	w.least = min(w.least, n)
	w.mu.Unlock()
	next <- struct{}{}
}

// work serves calls until the worker is not needed any more.
func (w *Workers) work() {
	// The garbage collector halves stacks of which less than a quarter is in use. A waiting
	// worker's would be, and its next call would pay for growing it again, which was an
	// eighth of a server's CPU time (BenchmarkCallers).
	var room [3 << 10]byte
	defer runtime.KeepAlive(&room)
	for woken := make(chan struct{}, 1); ; {
		w.mu.Lock()
		w.waked = false
		for w.queue.len() > 0 {
			in := w.queue.pop()
			w.wakeAndUnlock()
			c, turn := in.conn, in.turn
			took := c.serve(in)
			if turn != 0 {
				c.leadOn(turn, took)
			}
			w.mu.Lock()
		}
		if w.conns == 0 || len(w.idle) >= maxIdle {
			w.mu.Unlock()
			return
		}
		w.waitLocked(woken)
		w.mu.Unlock()
		if _, ok := <-woken; !ok {
			return
		}
	}
}

// waitLocked puts a worker among those that wait.
func (w *Workers) waitLocked(woken chan struct{}) {
	w.idle = append(w.idle, woken)
	if w.trim == nil {
		w.least = 0
		w.trim = time.AfterFunc(trimPeriod, w.trimIdle)
	}
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
	for _, woken := range w.idle[:n] {
		close(woken)
	}
	w.idle = append([]chan struct{}(nil), w.idle[n:]...)
	if len(w.idle) == 0 && w.trim != nil {
		w.trim.Stop()
		w.trim = nil
	}
}

// fifo is a queue of calls, whose memory is used again.
type fifo struct {
	calls []*Incoming // a ring; its length is zero or a power of two
	head  int
	n     int
}

func (q *fifo) len() int { return q.n }

func (q *fifo) push(in *Incoming) {
	if q.n == len(q.calls) {
		grown := make([]*Incoming, max(2*q.n, 16))
		copy(grown[copy(grown, q.calls[q.head:]):], q.calls[:q.head])
		q.calls, q.head = grown, 0
	}
	q.calls[(q.head+q.n)&(len(q.calls)-1)] = in
	q.n++
}

func (q *fifo) pop() *Incoming {
	in := q.calls[q.head]
	q.calls[q.head] = nil // what a waiting worker holds should be garbage
	q.head = (q.head + 1) & (len(q.calls) - 1)
	q.n--
	return in
}
