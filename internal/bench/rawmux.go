//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
)

// The raw multiplexer sends an id of 4 bytes, a length of 4 bytes and opaque bytes, and
// has them sent back by a goroutine a request: what is left of an RPC library when it does
// nothing but bring answers to those who asked. It has no cancellation, no fairness, no
// limits, and a deadline only ends the caller's waiting. The server gives each request bytes of its own, as a handler gets
// them; the client uses its buffers again.

const (
	muxHead   = 8
	muxBuffer = 64 << 10 // of each reader
	muxCopied = 16 << 10 // up to here a message is copied behind the others; larger ones are written from where they are
)

// A muxWriter gathers what is written while a write is under way.
type muxWriter struct {
	conn net.Conn

	mu         sync.Mutex // guards what follows
	small      []byte     // copies, from which parts of queue are taken
	queue      net.Buffers
	begun      int // the part of small that is not in queue yet begins here
	spareSmall []byte
	spareQueue net.Buffers
	flushing   bool // somebody does, and uses the spare ones' contents
	err        error
}

// write queues a message, and writes whatever is queued if nobody else does. It must not
// be changed before it has been answered, or forever.
func (w *muxWriter) write(id uint32, b []byte) error {
	w.mu.Lock()
	w.small = binary.BigEndian.AppendUint32(w.small, id)
	w.small = binary.BigEndian.AppendUint32(w.small, uint32(len(b)))
	if len(b) <= muxCopied {
		w.small = append(w.small, b...)
	} else {
		w.queue = append(w.queue, w.small[w.begun:len(w.small):len(w.small)], b)
		w.begun = len(w.small)
	}
	if w.flushing || w.err != nil {
		defer w.mu.Unlock()
		return w.err
	}
	w.flushing = true
	w.mu.Unlock()
	runtime.Gosched() // those who are ready, too, write first
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.small) > 0 && w.err == nil {
		small, queue := w.small, w.queue
		if w.begun < len(small) {
			queue = append(queue, small[w.begun:])
		}
		w.small, w.queue, w.begun = w.spareSmall[:0], w.spareQueue[:0], 0
		w.mu.Unlock()
		var err error
		if len(queue) == 1 {
			_, err = w.conn.Write(queue[0])
		} else {
			out := queue // WriteTo consumes it
			_, err = out.WriteTo(w.conn)
		}
		clear(queue)
		w.mu.Lock()
		w.spareSmall, w.spareQueue, w.err = small, queue, err
	}
	w.flushing = false
	return w.err
}

// readMuxHead reads what is in front of a message.
func readMuxHead(r *bufio.Reader) (id uint32, n int, err error) {
	head, err := r.Peek(muxHead)
	if err != nil {
		return 0, 0, err
	}
	id, n = binary.BigEndian.Uint32(head), int(binary.BigEndian.Uint32(head[4:]))
	_, err = r.Discard(muxHead)
	return id, n, err
}

func serveMux(l net.Listener, _ int) error {
	return acceptAll(l, func(conn net.Conn) {
		w := &muxWriter{conn: conn}
		r := bufio.NewReaderSize(conn, muxBuffer)
		for {
			id, n, err := readMuxHead(r)
			if err != nil {
				return
			}
			b := make([]byte, n)
			if _, err := io.ReadFull(r, b); err != nil {
				return
			}
			go w.write(id, b) // ends when it is written, or the connection
		}
	})
}

type muxClient struct {
	w    muxWriter
	done chan struct{} // closed when nothing is read any more

	mu    sync.Mutex // guards what follows
	calls []*muxCall // by id
	free  []*muxCall
	err   error
}

// A muxCall is used by one call after the other.
type muxCall struct {
	id       uint32
	in       []byte
	answered chan error
}

func dialMux(ctx context.Context, t target) (client, error) {
	conn, err := t.dial(ctx)
	if err != nil {
		return nil, err
	}
	c := &muxClient{w: muxWriter{conn: conn}, done: make(chan struct{})}
	go c.read() // ends with the connection
	return c, nil
}

func (c *muxClient) read() {
	defer close(c.done)
	r := bufio.NewReaderSize(c.w.conn, muxBuffer)
	var failed error
	for failed == nil {
		id, n, err := readMuxHead(r)
		if err != nil {
			failed = err
			break
		}
		c.mu.Lock()
		call := c.calls[id]
		c.mu.Unlock()
		if cap(call.in) < n {
			call.in = make([]byte, n)
		}
		call.in = call.in[:n]
		if _, failed = io.ReadFull(r, call.in); failed == nil {
			call.answered <- nil
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = failed
	for _, call := range c.calls {
		select {
		case call.answered <- failed:
		default: // answered, and its caller has not seen it yet
		}
	}
}

func (c *muxClient) begin() (*muxCall, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return nil, c.err
	}
	if n := len(c.free); n > 0 {
		call := c.free[n-1]
		c.free = c.free[:n-1]
		return call, nil
	}
	call := &muxCall{id: uint32(len(c.calls)), answered: make(chan error, 1)}
	c.calls = append(c.calls, call)
	return call, nil
}

// exchange makes a call. One whose context ends is left to its answer, and its object with it.
func (c *muxClient) exchange(ctx context.Context, b []byte) error {
	call, err := c.begin()
	if err != nil {
		return err
	}
	if err := c.w.write(call.id, b); err != nil {
		return err
	}
	if done := ctx.Done(); done == nil {
		err = <-call.answered
	} else {
		select {
		case err = <-call.answered:
		case <-done:
			return ctx.Err()
		}
	}
	err = checkBytes(call.in, b, err)
	c.mu.Lock()
	c.free = append(c.free, call)
	c.mu.Unlock()
	return err
}

var rawItemBytes = []byte(rawItem)

func (c *muxClient) small(ctx context.Context) error { return c.exchange(ctx, rawItemBytes) }

func (c *muxClient) bytes(ctx context.Context, b []byte) error { return c.exchange(ctx, b) }

func (c *muxClient) close() error {
	err := c.w.conn.Close()
	<-c.done
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
