package yonder

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/yonder-rpc/yonder/internal/layers"
	"github.com/yonder-rpc/yonder/internal/mux"
	"github.com/yonder-rpc/yonder/internal/wire"
)

// ConnLimits bound the connections of a server, of all protocols. It is for one server, and its
// fields must not be changed once that serves.
type ConnLimits struct {
	// Max is how many there may be at a time. One that is lost and may be resumed counts, and one
	// within another, such as a WebSocket, does not. Those beyond it are closed; over yonder's own
	// protocol, JSON-RPC and HTTP they are told why, and over the first one may go on there that
	// counts already. Zero: no limit.
	Max int
	// Idle is how long one may have no call in flight: then, or up to a quarter later, it ends. Over
	// yonder's own protocol no call is lost by that: the client is told, calls that cross this are
	// served, and it dials again with its next call. Over the others a call that is on its way just
	// then fails with [Unavailable]. Zero: for ever.
	Idle time.Duration

	mu      sync.Mutex
	counted int           // within Max
	beyond  int           // beyond it, to be told so or to go on
	away    uint64        // turned away since the operator was told
	told    time.Duration // when that was, since epoch; 0: never
}

// A ConnLimiter is a *[ConnLimits]. It is an interface because programs that have none should not
// carry what belongs to it.
type ConnLimiter interface {
	enter(s *Server, o *other) error
	leave(o *other)
	begin(s *Server, o *other, l *link)
	serve(ctx context.Context, s *Server, o *other, conn *prefixConn, p Protocol) error
	join(ctx context.Context, conn any) (while context.Context, stop func())
	occupy(call *Call)
}

// What a connection is counted as.
const (
	nowhere = uint8(iota) // within another one, or there is no limit
	counted
	beyond
)

const (
	// maxBeyond is how many connections beyond the limit are listened to at a time, each for
	// [Limits.FirstByte] and a second at most.
	maxBeyond = 64
	// awayPause is how long the operator is not told again.
	awayPause = 10 * time.Second

	fullText = "the server has as many connections as it takes"
)

// errFull returns what serving a connection beyond the limit comes to.
func errFull() error { return Errorf(Unavailable, "yonder: connection refused: "+fullText) }

// enter counts a connection, unless it is too much even to tell it so.
func (c *ConnLimits) enter(s *Server, o *other) error {
	if c.Max <= 0 {
		return nil
	}
	if _, inner := layers.Find[*prefixConn](o.conn); inner {
		return nil
	}
	c.mu.Lock()
	switch {
	case c.counted < c.Max:
		c.counted++
		o.place = counted
	case c.beyond < maxBeyond:
		c.beyond++
		o.place = beyond
	}
	c.mu.Unlock()
	if o.place == nowhere {
		c.turnedAway(s)
		return errFull()
	}
	return nil
}

// leave has a connection not be counted any more.
func (c *ConnLimits) leave(o *other) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch o.place {
	case counted:
		c.counted--
	case beyond:
		c.beyond--
	}
	o.place = nowhere
}

// turnedAway counts a connection that was beyond the limit, and tells the operator now and then.
func (c *ConnLimits) turnedAway(s *Server) {
	s.refused.Add(1)
	at := now()
	c.mu.Lock()
	c.away++
	n := c.away
	tell := c.told == 0 || at-c.told >= awayPause
	if tell {
		c.told, c.away = at, 0
	}
	c.mu.Unlock()
	if tell {
		s.logger().Warn("yonder: connections refused", "reason", "there are as many as ConnLimits.Max", "max", c.Max, "refused", n)
	}
}

// begin is told of a connection of the native protocol.
func (c *ConnLimits) begin(s *Server, o *other, l *link) {
	switch {
	case o.place == beyond:
		c.turnedAway(s)
		l.mux.Shutdown(&mux.GoAwayError{Code: wire.CodeUnavailable, Reason: fullText})
	case c.Idle > 0:
		l.mux.EndIdle(c.Idle)
	}
}

// serve has a connection of another protocol served.
func (c *ConnLimits) serve(ctx context.Context, s *Server, o *other, conn *prefixConn, p Protocol) error {
	if o.place == beyond {
		c.turnedAway(s)
		if r, ok := p.(refuser); ok {
			t := time.AfterFunc(time.Second, func() { conn.Close() })
			r.Refuse(conn, fullText)
			t.Stop()
		}
		return errFull()
	}
	conn.use = new(use)
	ctx, stop := c.join(ctx, conn.use)
	defer stop()
	return p.ServeConn(ctx, s, conn)
}

// used is a connection that tells whether it is used: see [Server.Join].
type used interface {
	Used() (busy bool, moves uint64)
}

// use is what a connection of another protocol is used for. What comes or goes counts, too, so that
// none ends in the middle of a message.
type use struct {
	calls atomic.Int64  // in flight
	moves atomic.Uint64 // reads and writes, and calls that have ended
}

// Used implements [used].
func (u *use) Used() (busy bool, moves uint64) { return u.calls.Load() > 0, u.moves.Load() }

// moved notes that something has come or gone; u may be nil.
func (u *use) moved() {
	if u != nil {
		u.moves.Add(1)
	}
}

// occupy has the connections that a call came over be used until it is over, its streams included.
func (c *ConnLimits) occupy(call *Call) {
	for layer := range layers.All(call.conn) {
		if pc, ok := layer.(*prefixConn); ok && pc.use != nil && c.Idle > 0 {
			u := pc.use
			u.calls.Add(1)
			call.ends = append(call.ends, func(error) {
				u.moved()
				u.calls.Add(-1)
			})
		}
	}
}

// join returns a context that ends when a connection that tells has not been used for too long:
// had neither calls in flight, nor anything come or gone. stop ends the watch.
func (c *ConnLimits) join(ctx context.Context, conn any) (while context.Context, stop func()) {
	u, ok := conn.(used)
	if !ok || c.Idle <= 0 {
		return ctx, func() {}
	}
	const looks = 4 // within that time
	every := c.Idle / looks
	while, end := context.WithCancel(ctx)
	var mu sync.Mutex // guards what follows
	var timer *time.Timer
	quiet, seen := 0, uint64(0)
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(every, func() {
		mu.Lock()
		defer mu.Unlock()
		busy, moves := u.Used()
		if quiet++; busy || moves != seen {
			quiet = 0
		}
		if seen = moves; quiet == looks {
			end()
		} else if while.Err() == nil {
			timer.Reset(every)
		}
	})
	return while, func() {
		end()
		timer.Stop()
	}
}
