//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
)

// The raw entrant sends a length of 4 bytes and opaque bytes, and has them sent back,
// one call at a time: the floor of what TCP costs.

const rawBuffer = 4 << 10 // for messages that fit; larger ones go past it

func serveRaw(l net.Listener, _ int) error { return serveRawIn(l, false) }

func serveRawFresh(l net.Listener, _ int) error { return serveRawIn(l, true) }

func serveRawIn(l net.Listener, fresh bool) error {
	return acceptAll(l, func(conn net.Conn) {
		r := bufio.NewReaderSize(conn, rawBuffer)
		var msg []byte
		for {
			if fresh {
				msg = nil
			}
			var err error
			if msg, err = readRaw(r, msg); err != nil {
				return
			}
			if _, err := conn.Write(msg); err != nil {
				return
			}
		}
	})
}

// readRaw reads a message with its length into buf, or a larger one.
func readRaw(r *bufio.Reader, buf []byte) ([]byte, error) {
	head, err := r.Peek(4)
	if err != nil {
		return buf, err
	}
	n := 4 + int(binary.BigEndian.Uint32(head))
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	_, err = io.ReadFull(r, buf)
	return buf, err
}

type rawClient struct {
	conn  net.Conn
	fresh bool // each answer has memory of its own

	mu  sync.Mutex // one call at a time
	r   *bufio.Reader
	in  []byte
	out []byte
}

func dialRaw(ctx context.Context, t target) (client, error) { return dialRawIn(ctx, t, false) }

func dialRawFresh(ctx context.Context, t target) (client, error) { return dialRawIn(ctx, t, true) }

func dialRawIn(ctx context.Context, t target, fresh bool) (client, error) {
	conn, err := t.dial(ctx)
	if err != nil {
		return nil, err
	}
	return &rawClient{conn: conn, fresh: fresh, r: bufio.NewReaderSize(conn, rawBuffer)}, nil
}

// rawItem stands for an encoded Item.
const rawItem = "opaque bytes, about as many as an Item takes when encoded"

func (c *rawClient) small(context.Context) error {
	return exchangeRaw(c, rawItem)
}

func (c *rawClient) bytes(_ context.Context, b []byte) error {
	return exchangeRaw(c, b)
}

func exchangeRaw[T string | []byte](c *rawClient, b T) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = binary.BigEndian.AppendUint32(c.out[:0], uint32(len(b)))
	c.out = append(c.out, b...)
	if _, err := c.conn.Write(c.out); err != nil {
		return err
	}
	if c.fresh {
		c.in = nil
	}
	var err error
	c.in, err = readRaw(c.r, c.in)
	return checkBytes(c.in, c.out, err)
}

func (c *rawClient) close() error { return c.conn.Close() }
