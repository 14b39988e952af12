package jsonrpc

import (
	"context"
	"sync"
	"time"
)

// A callContext is the context of a handler. It costs nothing until somebody asks for
// Done, or derives a context from it: then a standard context is made, which does the
// rest. So most calls take neither a timer nor a place in their connection's context.
type callContext struct {
	deadline time.Time // zero: none

	mu     sync.Mutex // guards what follows
	err    error      // how it ended; nil: it has not, as far as is known
	cause  error
	inner  context.Context // nil: nobody has asked
	cancel context.CancelCauseFunc
	stop   context.CancelFunc // of the deadline; nil: there is none
}

// Deadline implements [context.Context].
func (c *callContext) Deadline() (time.Time, bool) { return c.deadline, !c.deadline.IsZero() }

// Done implements [context.Context].
func (c *callContext) Done() <-chan struct{} { return c.standard().Done() }

// Err implements [context.Context].
func (c *callContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.inner != nil:
		return c.inner.Err()
	case c.err == nil && !c.deadline.IsZero() && !time.Now().Before(c.deadline):
		c.err, c.cause = context.DeadlineExceeded, context.DeadlineExceeded
	}
	return c.err
}

// Value implements [context.Context]. The standard context is where package context
// looks for its own.
func (c *callContext) Value(key any) any { return c.standard().Value(key) }

func (c *callContext) standard() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inner != nil {
		return c.inner
	}
	c.inner, c.cancel = context.WithCancelCause(context.Background())
	if c.err == context.Canceled {
		c.cancel(c.cause)
	}
	if !c.deadline.IsZero() { // one that is over ends it as it should
		c.inner, c.stop = context.WithDeadline(c.inner, c.deadline)
	}
	return c.inner
}

// end ends the context, for the first cause that it is given.
func (c *callContext) end(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inner == nil {
		if c.err == nil {
			c.err, c.cause = context.Canceled, cause
		}
		return
	}
	c.cancel(cause)
	if c.stop != nil {
		c.stop()
	}
}
