package resilience

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/budget"
	"github.com/failsafe-go/failsafe-go/retrypolicy"

	"github.com/yonder-rpc/yonder"
)

// Retry makes calls again that have failed in a way that may pass: those that have had no effect,
// after the time that the server has said; and after a pause that grows those that ended with
// [yonder.Unavailable], or [yonder.DeadlineExceeded] of an attempt, if they surely have not run
// ([yonder.MayHaveRun]), whatever they do, or else if the procedure is idempotent. The context's
// end ends it, and a pause that would be longer than what is left of the context is not begun: the
// caller hears of the last failure at once. Its fields must not be changed once [Retry.Intercept]
// is used.
type Retry struct {
	// Attempts is how many there are, with the first. Zero means 3.
	Attempts int
	// Pause is the first, between attempts, of which each is twice as long as the one before, give or
	// take a fifth. Zero means 25 milliseconds.
	Pause time.Duration
	// MaxPause bounds what the pauses grow to. Zero means 2 seconds.
	MaxPause time.Duration
	// Budget bounds how many calls are in another than their first attempt. Nil: at most a fifth of
	// those in flight, and 3 in any case.
	Budget Budget
	// Idempotent are patterns of the procedures that may be run twice, such as "get*". Nil: those that
	// the server says it of.
	Idempotent []string
}

// retried is a call on its way through the policy.
type retried struct {
	ctx   context.Context
	call  *yonder.Call
	next  yonder.Handler
	known *idempotence
	made  int
	last  error
	again bool // last may pass
}

// Intercept is the [yonder.Interceptor], for a client.
func (r *Retry) Intercept(next yonder.Handler) yonder.Handler {
	known := &idempotence{patterns: r.Idempotent}
	attempts := r.Attempts
	if attempts <= 0 {
		attempts = 3
	}
	first, most := r.Pause, r.MaxPause
	if first <= 0 {
		first = 25 * time.Millisecond
	}
	if most <= 0 {
		most = 2 * time.Second
	}
	most = max(most, first)
	pause := func(retries int) time.Duration {
		p := min(float64(first)*math.Pow(2, float64(retries)), float64(most))
		return time.Duration(p * (0.8 + 0.4*rand.Float64()))
	}
	policy := retrypolicy.NewBuilder[*retried]().
		WithMaxAttempts(attempts).
		ReturnLastFailure().
		WithBudget(defaultBudget(r.Budget)).
		HandleIf(func(c *retried, err error) bool { return err != nil && c.again }).
		WithDelayFunc(func(exec failsafe.ExecutionAttempt[*retried]) time.Duration {
			p := pause(exec.Attempts() - 1)
			if after, ok := yonder.RetryAfter(exec.LastError()); ok {
				p = after + p/2 // not before, and not all at once
			}
			return p
		}).Build()
	return func(ctx context.Context, call *yonder.Call) error {
		if !call.Plain() {
			return next(ctx, call)
		}
		c := &retried{ctx: ctx, call: call, next: next, known: known}
		_, err := failsafe.With(policy).WithContext(ctx).GetWithExecution(func(failsafe.Execution[*retried]) (*retried, error) {
			return c, c.attempt(attempts)
		})
		switch {
		case err == nil:
			known.learn(ctx, next) // for when the server cannot be asked
			return nil
		case errors.Is(err, budget.ErrExceeded):
			return c.last
		case ctx.Err() != nil && err != c.last:
			return ended(ctx, call, c.last)
		}
		return err
	}
}

// attempt makes the call.
func (c *retried) attempt(attempts int) error {
	call := c.call
	if c.made > 0 {
		call = c.call.Clone() // what an attempt has left in the results' places is not in the way
	}
	c.made++
	c.last = c.next(c.ctx, call)
	if call != c.call {
		if c.last == nil {
			c.call.Take(call)
		} else {
			c.call.Reply = call.Reply
		}
	}
	c.again = c.last != nil && c.made < attempts && c.mayPass()
	return c.last
}

// mayPass reports whether it makes sense to try again.
func (c *retried) mayPass() bool {
	if c.ctx.Err() != nil {
		return false
	}
	if after, ok := yonder.RetryAfter(c.last); ok {
		deadline, bounded := c.ctx.Deadline()
		return !bounded || time.Until(deadline) > after
	}
	switch yonder.CodeOf(c.last) {
	case yonder.Unavailable, yonder.DeadlineExceeded:
		switch {
		case errors.Is(c.last, yonder.ErrClientClosed):
			return false
		case !yonder.MayHaveRun(c.last):
			return true // so does the client itself, twice, when a connection is lost before the call is sent
		}
		return !c.call.OneWay && c.known.of(c.ctx, c.next, c.call.Procedure)
	}
	return false
}
