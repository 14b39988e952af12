package mux

import (
	"time"

	"github.com/yonder-rpc/yonder/internal/wire"
)

// idle is what is needed to end a connection that nobody uses. Conn.mu guards it. Calls are only
// counted, and looked at a few times within the time that they may not be there: no call touches a
// clock.
//
// The peer is told by GOAWAY, and a PING behind it. What it sends before it has read that is behind
// nothing of ours, and so comes before its PONG: those calls are served, and none is lost. After the
// PONG the connection is one that shuts down.
type idle struct {
	begun uint32       // calls, both ways
	seen  uint32       // of them, when somebody last looked
	quiet int          // times in a row that there was nothing to see
	said  *GoAwayError // GOAWAY that has been sent; nil: none
	timer *time.Timer  // looks; nil: nobody does
	every time.Duration
}

// idleLooks is how often a connection must have been found to be quiet.
const idleLooks = 4

// farewell is in the PING behind GOAWAY.
const farewell = "farewell"

// EndIdle has the connection end when there has been no call in flight for a time, or up to a quarter
// longer. It is to be called once at most.
func (c *Conn) EndIdle(after time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.idle.every = after / idleLooks
		c.idle.timer = time.AfterFunc(c.idle.every, c.lookIdle)
	}
}

// lookIdle looks whether the connection is idle, and tells the peer.
func (c *Conn) lookIdle() {
	c.mu.Lock()
	i := &c.idle
	switch {
	case c.err != nil || c.ending != nil || c.refusing != nil || c.gone != nil:
		c.mu.Unlock()
		return
	case i.said != nil: // long ago, and the peer says nothing of it
		c.mu.Unlock()
		c.bidFarewell()
		return
	}
	if i.quiet++; c.incoming+c.outgoing+len(c.waiters) > 0 || i.begun != i.seen || c.peer == nil || c.session.lost != nil {
		i.quiet = 0
	}
	i.seen = i.begun
	if i.quiet < idleLooks {
		i.timer.Reset(i.every)
		c.mu.Unlock()
		return
	}
	i.said = &GoAwayError{Code: wire.CodeUnavailable, Reason: "the connection was idle, and ends"}
	said := i.said
	c.silent = said
	if c.cfg.KeepAlive > 0 {
		i.timer.Reset(2 * c.cfg.KeepAlive)
	}
	c.w.mu.Lock()
	c.endSessionLocked()
	c.mu.Unlock()
	c.w.frameLocked(wire.Header{Type: wire.GoAway}, nil, wire.AppendGoAway(nil, said.Code, said.Reason))
	c.w.frameLocked(wire.Header{Type: wire.Ping}, nil, []byte(farewell))
	c.w.kickAndUnlock(noBlock)
}

// bidFarewell takes the peer's word that it has read GOAWAY.
func (c *Conn) bidFarewell() {
	c.mu.Lock()
	if c.refusing == nil {
		c.refusing = c.idle.said
	}
	c.mu.Unlock()
	c.settle()
}
