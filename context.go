package yonder

import (
	"context"
	"sync"
	"time"
)

// callContext is the context of a handler that a connection brought the call to. It
// costs nothing beyond the call itself until somebody asks for Done, or derives a
// context from it: then a standard context is made, which does the rest. So a
// deadline takes a runtime timer only if a handler looks at it.
type callContext struct {
	base     context.Context // of the server
	call     *Call
	deadline time.Time

	mu     sync.Mutex
	cause  error // why it has ended; nil: it has not, unless deadline or base say so
	inner  context.Context
	cancel context.CancelCauseFunc // of inner
}

// Deadline returns when the caller stops waiting.
func (c *callContext) Deadline() (time.Time, bool) {
	if c.deadline.IsZero() {
		return c.base.Deadline()
	}
	return c.deadline, true
}

// Done returns the standard context's channel.
func (c *callContext) Done() <-chan struct{} { return c.standard().Done() }

// Err returns context.DeadlineExceeded if the caller's time is up, by this clock or
// by the caller's own.
func (c *callContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.cause == context.DeadlineExceeded:
		return c.cause
	case c.cause != nil:
		return context.Canceled
	case c.inner != nil:
		return c.inner.Err()
	case !c.deadline.IsZero() && !time.Now().Before(c.deadline):
		return context.DeadlineExceeded
	}
	return c.base.Err()
}

// Value knows this package's keys. The others are left to the standard context,
// where package context looks for its own.
func (c *callContext) Value(key any) any {
	switch key.(type) {
	case callKey:
		return c.call
	case outgoingKey, replyKey:
		return nil
	}
	return c.standard().Value(key)
}

func (c *callContext) standard() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inner != nil {
		return c.inner
	}
	c.inner, c.cancel = context.WithCancelCause(c.base)
	if !c.deadline.IsZero() {
		outer := c.cancel
		inner, stop := context.WithDeadline(c.inner, c.deadline)
		c.inner = inner
		c.cancel = func(cause error) { outer(cause); stop() }
	}
	if c.cause != nil {
		c.cancel(c.cause)
	}
	return c.inner
}

// end ends the context, for the first cause it is given.
func (c *callContext) end(cause error) {
	c.mu.Lock()
	if c.cause == nil {
		c.cause = cause
	}
	cancel := c.cancel
	c.mu.Unlock()
	if cancel != nil {
		cancel(cause)
	}
}

// localContext is the context of a handler in the same process: the caller's own, and
// the call.
type localContext struct {
	context.Context
	call *Call
}

func (c *localContext) Value(key any) any {
	switch key.(type) {
	case callKey:
		return c.call
	case outgoingKey, replyKey:
		return nil
	}
	return c.Context.Value(key)
}
