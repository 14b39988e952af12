package mux

import (
	"fmt"
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

// endSlowLocked ends the calls whose requests come too slowly, and reports whether there were some:
// then it is left to the caller to have the answers written. The watchdog asks. A time in which so
// much came that all could have had their part does not count: not everybody takes turns.
func (c *Conn) endSlowLocked() (some bool) {
	came := c.heard - c.watch.heard
	c.watch.heard = c.heard
	busy := came >= uint64(c.parted)*partSize
	for _, in := range c.calls {
		if in == nil || in.arrives == nil {
			continue
		}
		late := in.arrives.lateLocked(c, busy)
		if in.streams != nil {
			for _, r := range in.streams.recv {
				late = max(late, r.arrives.lateLocked(c, busy))
			}
		}
		if late > 0 {
			some = true
			c.rejectLocked(in, wire.CodeExhausted, fmt.Sprintf("the request came too slowly: of a message in parts there were less than %d bytes in %v", partLeast, late))
			c.w.mu.Unlock()
		}
	}
	return some
}

// lateLocked returns for how long there has been too little of a message, if that is too long, or
// else 0. a may be nil.
func (a *assembly) lateLocked(c *Conn, busy bool) time.Duration {
	if a == nil || a.skip {
		return 0
	}
	if a.heard-a.mark >= partLeast {
		a.mark, a.looks, a.among = a.heard, 0, 0
	} else if !busy {
		a.looks++
	}
	a.among = max(a.among, c.parted)
	turn := time.Duration(a.among) * partSize * time.Second / partRate
	if late := time.Duration(a.looks) * c.cfg.KeepAlive; late >= turn+c.cfg.KeepAlive { // 45 s alone, and 285 s among 16, by the defaults
		return late
	}
	return 0
}
