package resilience

import (
	"context"
	"fmt"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"

	"github.com/yonder-rpc/yonder"
)

// Breaker stops calling a server that does not answer: when too many calls have failed, those that
// follow fail at once, with [yonder.Unavailable] and the time after which to try again, until then
// some are let through to find out. One is for one server. Its fields must not be changed once
// [Breaker.Intercept] is used.
type Breaker struct {
	// Rate is which part of the calls must have failed within Period, of at least Calls. Zero means
	// 0.5.
	Rate float64
	// Calls is how many must have been made. Zero means 20.
	Calls uint
	// Period is what counts. Zero means 10 seconds.
	Period time.Duration
	// Open is how long no call is made then. Zero means 1 second.
	Open time.Duration
	// Failed tells which errors say that the server is in trouble; it is not asked about nil. Nil: the
	// codes Unavailable and DeadlineExceeded. A server that says it is busy is not in trouble: it
	// answers, and says when to come back.
	Failed func(err error) bool
	// Changed, if it is not nil, is told when the breaker opens, half opens and closes.
	Changed func(state string)
}

// Intercept is the [yonder.Interceptor], for a client.
func (b *Breaker) Intercept(next yonder.Handler) yonder.Handler {
	rate, calls, period, open := b.Rate, b.Calls, b.Period, b.Open
	if rate <= 0 || rate > 1 {
		rate = 0.5
	}
	if calls == 0 {
		calls = 20
	}
	if period <= 0 {
		period = 10 * time.Second
	}
	if open <= 0 {
		open = time.Second
	}
	failed := b.Failed
	if failed == nil {
		failed = func(err error) bool {
			switch yonder.CodeOf(err) {
			case yonder.Unavailable, yonder.DeadlineExceeded:
				return true
			}
			return false
		}
	}
	builder := circuitbreaker.NewBuilder[any]().
		WithFailureRateThreshold(rate, calls, period).
		WithSuccessThreshold(1).
		WithDelay(open)
	if b.Changed != nil {
		builder.OnStateChanged(func(e circuitbreaker.StateChangedEvent) { b.Changed(e.NewState.String()) })
	}
	breaker := builder.Build()
	return func(ctx context.Context, call *yonder.Call) error {
		if !breaker.TryAcquirePermit() {
			after := breaker.RemainingDelay()
			return yonder.NotRun(&yonder.Error{
				Code:    yonder.Unavailable,
				Message: fmt.Sprintf("yonder: call %q: it is not made, since too many have failed lately", call.Procedure),
				Details: yonder.RetryInfo{AfterMS: int64((after + time.Millisecond - 1) / time.Millisecond)},
			})
		}
		done := false
		defer func() {
			if !done { // a panic
				breaker.RecordFailure()
			}
		}()
		err := next(ctx, call)
		done = true
		if err != nil && failed(err) {
			breaker.RecordFailure()
		} else {
			breaker.RecordSuccess()
		}
		return err
	}
}
