package resilience

import (
	"context"
	"sync"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/hedgepolicy"

	"github.com/yonder-rpc/yonder"
)

// Hedge makes a call of an idempotent procedure a second time when the first takes longer than most
// do, and takes the answer that comes first: the other is cancelled. It cuts off the slowest calls
// for the price of some more, and needs a server, or several behind one address, that does not make
// both wait for the same. Its fields must not be changed once [Hedge.Intercept] is used.
type Hedge struct {
	// After is how long the first may take until there is a second. Zero: as long as Quantile of the
	// calls took lately, once 20 are known.
	After time.Duration
	// Quantile is more than 0 and less than 1. Zero means 0.95.
	Quantile float64
	// Most is how many calls there are besides the first, each After later than the one before. Zero
	// means 1.
	Most int
	// Budget bounds how many calls are made twice. Nil: at most a fifth of those in flight, and 3 in
	// any case.
	Budget Budget
	// Idempotent are patterns of the procedures that may be run twice. Nil: those that the server
	// says it of.
	Idempotent []string
}

// Intercept is the [yonder.Interceptor], for a client.
func (h *Hedge) Intercept(next yonder.Handler) yonder.Handler {
	known := &idempotence{patterns: h.Idempotent}
	var b hedgepolicy.Builder[*yonder.Call]
	if h.After > 0 {
		b = hedgepolicy.NewBuilderWithDelay[*yonder.Call](h.After)
	} else {
		q := h.Quantile
		if q <= 0 || q >= 1 {
			q = 0.95
		}
		b = hedgepolicy.NewBuilderWithDelayQuantile[*yonder.Call](q, 100, 20)
	}
	policy := b.WithMaxHedges(max(h.Most, 1)).
		WithBudget(defaultBudget(h.Budget)).
		CancelIf(func(_ *yonder.Call, err error) bool { return err == nil || !passes(err) }).
		Build()
	return func(ctx context.Context, call *yonder.Call) error {
		if call.OneWay || !call.Plain() || !known.of(ctx, next, call.Procedure) {
			return next(ctx, call)
		}
		// The arguments are the caller's again when this returns, so all attempts must have.
		var wg sync.WaitGroup
		defer wg.Wait()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		var mu sync.Mutex
		over := false // no attempt begins any more
		won, err := failsafe.With(policy).WithContext(ctx).GetWithExecution(func(exec failsafe.Execution[*yonder.Call]) (*yonder.Call, error) {
			mu.Lock()
			if over {
				mu.Unlock()
				return nil, context.Canceled
			}
			wg.Add(1)
			mu.Unlock()
			defer wg.Done()
			mine := call.Clone()
			return mine, next(exec.Context(), mine)
		})
		mu.Lock()
		over = true
		mu.Unlock()
		switch {
		case ctx.Err() != nil:
			return ended(ctx, call, nil)
		case won == nil:
			return err
		case err != nil:
			call.Reply = won.Reply
			return err
		}
		call.Take(won)
		return nil
	}
}

// passes reports whether an attempt has failed in a way that another one need not.
func passes(err error) bool {
	switch yonder.CodeOf(err) {
	case yonder.Unavailable, yonder.ResourceExhausted:
		return true
	}
	return false
}
