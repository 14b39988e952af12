package mux

import (
	"time"

	"github.com/yonder-rpc/yonder/internal/wire"
)

// A request that arrives in parts takes memory before anybody has judged it, so its parts must come.
// Who sends takes turns with other messages, and nothing holds it up: what has arrived is taken, and
// so it has credit. At partRate, all of them together, each has a part in a turn.
const (
	partRate = 4 << 10 // bytes a second
	// partLeast is how much of one must come in a turn: a part may be smaller than a full one.
	partLeast = 16 << 10
)

// endSlowLocked ends the calls whose requests come too slowly, and reports whether there were some.
// It is left to the caller to have the answers written. The watchdog asks. A time in which so
// much came that all could have had their part does not count: not everybody takes turns.
func (c *Conn) endSlowLocked() (some bool) {
	came := c.heard - c.watch.heard
	c.watch.heard = c.heard
	busy := came >= uint64(c.parted)*partSize
	for _, in := range c.calls {
		if in == nil || in.arrives == nil {
			continue
		}
		if in.arrives.lateLocked(c, busy) {
			some = true
			c.rejectLocked(in, unrun(wire.CodeExhausted, "the request came too slowly"))
			c.w.mu.Unlock()
		}
	}
	return some
}

// lateLocked reports whether there has been too little of a message for too long: 45 s alone, and 285 s
// among 16, by the defaults.
func (a *assembly) lateLocked(c *Conn, busy bool) bool {
	switch {
	case a.skip:
		return false
	case a.heard-a.mark >= partLeast:
		a.mark, a.looks, a.among = a.heard, 0, 0
	case !busy:
		a.looks++
	}
	a.among = max(a.among, c.parted)
	turn := time.Duration(a.among) * partSize * (time.Second / partRate)
	return time.Duration(a.looks)*c.cfg.KeepAlive >= turn+c.cfg.KeepAlive
}
