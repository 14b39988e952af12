// Package redial keeps a way to a server: a connection at a time, and after a loss another.
package redial

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

// A Conn is a connection that may be lost.
type Conn interface {
	// Lost reports whether it has ended, as far as is known. It must not block.
	Lost() bool
	// Close ends it, and waits until it has ended.
	Close() error
}

// A Line is a way to a server. The first call of Conn connects, and the next one after a loss
// does so again: at once, and after a failed attempt not before a pause of 20 milliseconds to 2
// seconds, growing and random. Its methods may be called by several goroutines.
type Line[C Conn] struct {
	dial    func(ctx context.Context) (C, error)
	timeout time.Duration
	life    context.Context // ends with Close
	end     context.CancelFunc
	running sync.WaitGroup // attempts

	mu       sync.Mutex // guards what follows
	conn     C
	is       bool        // there is a conn
	attempt  *attempt[C] // nil: none is under way
	failures int         // attempts that failed since the last that did not
	closed   bool
}

// attempt is an attempt to connect.
type attempt[C Conn] struct {
	done chan struct{} // closed when conn or err is set
	conn C
	err  error
}

// ErrClosed is what Conn returns after Close.
var ErrClosed = errors.New("closed")

// New returns a Line over what dial makes, each attempt of which has so much time; zero means
// 10 seconds. An error of Conn's is dial's, or the context's.
func New[C Conn](dial func(ctx context.Context) (C, error), timeout time.Duration) *Line[C] {
	if timeout <= 0 {
		timeout = 10 * time.Second
	}
	l := &Line[C]{dial: dial, timeout: timeout}
	l.life, l.end = context.WithCancel(context.Background())
	return l
}

// Conn returns a connection that has not been lost, as far as is known. It waits for one
// attempt, or until ctx ends, which does not end the attempt.
func (l *Line[C]) Conn(ctx context.Context) (C, error) {
	var none C
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return none, ErrClosed
	}
	if l.is && !l.conn.Lost() {
		defer l.mu.Unlock()
		return l.conn, nil
	}
	a := l.attempt
	if a == nil {
		a = &attempt[C]{done: make(chan struct{})}
		l.attempt = a
		pause := backoff(l.failures)
		l.running.Go(func() { l.try(a, pause) }) // ends with the attempt, which Close ends
	}
	l.mu.Unlock()
	select {
	case <-a.done:
		return a.conn, a.err
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// backoff returns how long to wait after so many failed attempts.
func backoff(failures int) time.Duration {
	if failures == 0 {
		return 0
	}
	most := min(20*time.Millisecond<<min(failures-1, 10), 2*time.Second)
	return most/2 + rand.N(most/2)
}

// try makes one attempt to connect.
func (l *Line[C]) try(a *attempt[C], pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	var c C
	var err error
	select {
	case <-timer.C:
		ctx, cancel := context.WithTimeout(l.life, l.timeout)
		c, err = l.dial(ctx)
		cancel()
	case <-l.life.Done():
		err = l.life.Err()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.attempt = nil
	switch {
	case l.closed:
		if err == nil {
			c.Close()
		}
		a.err = ErrClosed
	case err != nil:
		l.failures++
		a.err = err
	default:
		l.failures = 0
		l.conn, l.is, a.conn = c, true, c
	}
	close(a.done)
}

// Closed reports whether Close has been called.
func (l *Line[C]) Closed() bool { return l.life.Err() != nil }

// Done returns a channel that is closed by Close.
func (l *Line[C]) Done() <-chan struct{} { return l.life.Done() }

// Close closes the connection and waits for it and for an attempt that is under way.
func (l *Line[C]) Close() {
	l.mu.Lock()
	l.closed = true
	c, is := l.conn, l.is
	l.mu.Unlock()
	l.end()
	l.running.Wait()
	if is {
		c.Close()
	}
}
