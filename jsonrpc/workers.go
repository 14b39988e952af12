package jsonrpc

import (
	"sync"
	"time"
)

// Workers are the goroutines that serve a connection's calls. One that has served a
// call waits for another, because its stack has grown to what a call needs: growing a
// new one costs a good part of a call. Those that nobody has needed for a while end.
type workers struct {
	mu    sync.Mutex // guards what follows
	idle  []chan *task
	least int         // of len(idle), since the last trim
	trims *time.Timer // nil: nobody is idle
	over  bool
}

// A task is a request to serve.
type task struct {
	conn *conn
	cost int
	r    request
	call activeCall
	ctx  callContext
	turn waiter // for a slot
}

const (
	maxIdle   = 256
	trimEvery = 10 * time.Second
)

// start has a task done by a worker that waits, or by a new one.
func (w *workers) start(t *task) {
	w.mu.Lock()
	n := len(w.idle) - 1
	if n < 0 {
		w.mu.Unlock()
		go w.work(t) // ends when the workers are trimmed, or with the connection
		return
	}
	next := w.idle[n]
	w.idle = w.idle[:n]
	w.least = min(w.least, n)
	w.mu.Unlock()
	next <- t
}

func (w *workers) work(t *task) {
	next := make(chan *task, 1)
	for t != nil {
		t.conn.serveOne(t)
		t = nil // what a waiting worker holds should be garbage
		w.mu.Lock()
		if w.over || len(w.idle) >= maxIdle {
			w.mu.Unlock()
			return
		}
		w.idle = append(w.idle, next)
		if w.trims == nil {
			w.least = 0
			w.trims = time.AfterFunc(trimEvery, w.trim)
		}
		w.mu.Unlock()
		t = <-next
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
	w.idle = append([]chan *task(nil), w.idle[w.least:]...)
	if w.least = len(w.idle); w.least == 0 {
		w.trims = nil
		return
	}
	w.trims.Reset(trimEvery)
}

// end ends all workers: those that wait now, the others after their calls.
func (w *workers) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	if w.trims != nil {
		w.trims.Stop()
	}
	for _, next := range w.idle {
		close(next)
	}
	w.idle = nil
}
