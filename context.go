package yonder

import (
	"context"
	"sync"
	"time"
)

// lazyContext is a context that costs nothing until somebody asks for Done, or derives a
// context from it: then a standard context is made, which does the rest. So a deadline takes a
// runtime timer only if somebody looks at it.
type lazyContext struct {
	deadline time.Time

	mu       sync.Mutex
	err      error // what Err has returned, or will; nil: it has not ended, unless deadline or standard say so
	cause    error // with err, if there was no standard context then
	standard *standardContext
}

// standardContext is what package context makes of a lazyContext.
type standardContext struct {
	context.Context
	cancel context.CancelCauseFunc
	expire func() // ends it as its deadline would
}

// Deadline returns when the caller stops waiting.
func (c *lazyContext) Deadline() (time.Time, bool) {
	return c.deadline, !c.deadline.IsZero()
}

// Done returns the standard context's channel.
func (c *lazyContext) Done() <-chan struct{} { return c.derive().Done() }

// Err returns context.DeadlineExceeded if the caller's time is up, by this clock or
// by the caller's own.
func (c *lazyContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
	case c.standard != nil:
		c.err = c.standard.Err()
	case !c.deadline.IsZero() && time.Until(c.deadline) <= 0:
		c.err, c.cause = context.DeadlineExceeded, context.DeadlineExceeded
	}
	return c.err
}

// Value knows this package's keys. The others are left to the standard context,
// where package context looks for its own.
func (c *lazyContext) Value(key any) any {
	switch key.(type) {
	case callKey, outgoingKey, replyKey:
		return nil
	}
	return c.derive().Value(key)
}

// bare reports whether nobody waits for its end by a standard context.
func (c *lazyContext) bare() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.standard == nil
}

// callContext is the context of a handler that a connection brought the call to.
type callContext struct {
	lazyContext

	// Guarded by mu.
	call  *Call // nil: it is over, and may be another one by now
	shown bool  // somebody has been given call
	left  leftCall
}

// Value knows the call.
func (c *callContext) Value(key any) any {
	if _, ok := key.(callKey); ok {
		return c.show()
	}
	return c.lazyContext.Value(key)
}

// leftCall is what a context can still tell of its call when that is over.
type leftCall struct {
	res  *resolution
	meta Metadata
}

// show returns the call, or what is left of it.
func (c *callContext) show() *Call {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.call == nil {
		return &Call{Procedure: c.left.res.proc.Name, Metadata: c.left.meta, link: c.left.res.link}
	}
	c.shown = true
	return c.call
}

// leave ends the context, whose call is over. If that is to be used again, it takes it away from the
// context, and reports whether nobody else has it.
func (c *callContext) leave(again bool, left leftCall) (alone bool) {
	c.mu.Lock()
	s := c.endLocked(context.Canceled)
	if alone = again && !c.shown; alone {
		c.call, c.left = nil, left
	}
	c.mu.Unlock()
	s.end(context.Canceled)
	return alone
}

// derive returns the standard context, made when it is first asked for.
func (c *lazyContext) derive() *standardContext {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.standard != nil {
		return c.standard
	}
	root := &expiry{Context: context.Background(), done: make(chan struct{})}
	s := &standardContext{expire: root.end}
	s.Context, s.cancel = context.WithCancelCause(root)
	if !c.deadline.IsZero() {
		outer := s.cancel
		inner, stop := context.WithDeadline(s.Context, c.deadline)
		s.Context = inner
		s.cancel = func(cause error) { outer(cause); stop() }
	}
	if c.err == context.DeadlineExceeded {
		s.expire()
	}
	if c.err != nil {
		s.cancel(c.cause)
	}
	c.standard = s
	return s
}

// end ends the context, for the first cause it is given.
func (c *lazyContext) end(cause error) {
	c.mu.Lock()
	s := c.endLocked(cause)
	c.mu.Unlock()
	s.end(cause)
}

// endLocked ends the context if it has no standard context, and returns that, which is to be ended
// without the lock.
func (c *lazyContext) endLocked(cause error) *standardContext {
	if c.standard == nil && c.err == nil {
		c.err, c.cause = context.Canceled, cause
		if cause == context.DeadlineExceeded {
			c.err = cause
		}
	}
	return c.standard
}

// end ends the context, if there is one.
func (s *standardContext) end(cause error) {
	if s == nil {
		return
	}
	if cause == context.DeadlineExceeded {
		s.expire()
	}
	s.cancel(cause)
}

// expiry is what a handler's standard context is derived from. It ends when the caller
// says that its time is up, which may be before this end's clock does, so that the
// contexts derived from it end with context.DeadlineExceeded too: no function of
// package context gives another error than context.Canceled.
type expiry struct {
	context.Context
	done chan struct{}

	mu    sync.Mutex
	over  bool
	after func() // of the only context that is derived from this one directly
}

func (e *expiry) Done() <-chan struct{} { return e.done }

func (e *expiry) Err() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.over {
		return context.DeadlineExceeded
	}
	return nil
}

// AfterFunc saves package context a goroutine.
func (e *expiry) AfterFunc(f func()) (stop func() bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.after = f
	return func() bool { return true } // f does nothing to a context that has ended
}

func (e *expiry) end() {
	e.mu.Lock()
	first := !e.over
	e.over = true
	f := e.after
	e.mu.Unlock()
	if first {
		close(e.done)
		if f != nil {
			f()
		}
	}
}

// localContext is the context of a handler in the same process: the caller's own, and
// the call. It ends with the call, too, which costs nothing until somebody asks for
// Done or derives a context from it.
type localContext struct {
	context.Context // the caller's
	server          *Server
	proc            *procedure // if there may be no call

	mu   sync.Mutex
	call *Call // nil: nobody has asked for it yet
	// streams is how many among its results are open, beside the handler; less than zero: the call
	// has ended.
	streams int32
	inner   *innerContext // nil: nobody has asked for it yet
}

// innerContext is a standard context that can be ended.
type innerContext struct {
	context.Context
	cancel context.CancelFunc
}

func newLocalContext(ctx context.Context, s *Server, call *Call) *localContext {
	return &localContext{Context: ctx, server: s, call: call}
}

// Done returns the standard context's channel.
func (c *localContext) Done() <-chan struct{} { return c.standard().Done() }

// Err returns context.Canceled once the call has ended.
func (c *localContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.inner != nil:
		return c.inner.Err()
	case c.Context.Err() != nil:
		return c.Context.Err()
	case c.streams < 0:
		return context.Canceled
	}
	return nil
}

// called returns the call.
func (c *localContext) called() *Call {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.call == nil {
		c.call = &Call{Procedure: c.proc.Name, proc: c.proc, context: c}
		c.call.carry(c.Context)
	}
	return c.call
}

// Value knows this package's keys.
func (c *localContext) Value(key any) any {
	switch key.(type) {
	case callKey:
		return c.called()
	case outgoingKey, replyKey:
		return nil
	}
	return c.standard().Value(key)
}

// over reports whether the call has ended, as opposed to its caller's context.
func (c *localContext) over() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.streams < 0
}

func (c *localContext) standard() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inner == nil {
		c.inner = new(innerContext)
		c.inner.Context, c.inner.cancel = context.WithCancel(c.Context)
		if c.streams < 0 {
			c.inner.cancel()
		}
	}
	return c.inner.Context
}

// hold has the call be open until one more has let go of it.
func (c *localContext) hold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.streams++
}

// release ends the context when the last that holds the call open lets go of it. It returns the
// metadata of the answer so far, if anybody has asked for the call.
func (c *localContext) release() (reply Metadata) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.streams--; c.streams < 0 && c.inner != nil {
		c.inner.cancel()
	}
	if c.call != nil {
		reply = c.call.Reply
	}
	return reply
}
