// Package resilience has interceptors for clients that live with servers which are slow, busy or
// away, over failsafe-go, and limits for servers that adapt themselves or count calls by the second.
// It is a module of its own, so that programs without them do not carry what it depends on.
//
//	d := yonder.Dialer{Interceptors: []yonder.Interceptor{
//		resilience.Timeout(2 * time.Second),        // of a call, with all attempts
//		(&resilience.Retry{}).Intercept,
//		resilience.Timeout(500 * time.Millisecond), // of an attempt
//		(&resilience.Breaker{}).Intercept,
//		(&resilience.Hedge{}).Intercept,
//	}}
//
// The first interceptor is the outermost, so this is an order that makes sense: what is retried is
// what has failed inside.
//
// # What is made again
//
// A call that has had no effect may be made again whatever it does: the server says so
// ([yonder.RetryAfter]), as package overload has it say, and so does a [Breaker]; and one that has
// not reached the server has had none either ([yonder.MayHaveRun]). Everything else
// only if running it twice is as good as once, which is [yonder.Procedure.Idempotent]: the server
// is asked for its list of procedures once a call has succeeded or that is wanted, and again after a
// minute, unless patterns say it here. Calls
// with streams, readers or functions are made once.
package resilience

import (
	"context"
	"sync"
	"time"

	"github.com/failsafe-go/failsafe-go/budget"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/internal/pattern"
)

// Timeout has calls end after d at the latest, with [yonder.DeadlineExceeded]. The server is told:
// it is a deadline of the context's. Outside a [Retry] it is for all attempts together, inside for
// each. Calls with streams, readers or functions among their arguments or results, which go on
// when they have returned, are left alone: give them a context.
func Timeout(d time.Duration) yonder.Interceptor {
	return func(next yonder.Handler) yonder.Handler {
		return func(ctx context.Context, call *yonder.Call) error {
			if call.Plain() {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, d)
				defer cancel()
			}
			return next(ctx, call)
		}
	}
}

// A Budget bounds how many calls are made again, or made twice, of those in flight: when a server is
// in trouble, that should not be doubled. One Budget may be shared by what all clients of a server
// use.
type Budget = budget.Budget

// NewBudget returns a budget by which at most this part of the calls in flight is made again, such
// as 0.2, and in any case this number.
func NewBudget(part float64, least uint) Budget {
	return budget.NewBuilder().WithMaxRate(part).WithMinConcurrency(least).Build()
}

// defaultBudget is what there is if there is no other.
func defaultBudget(b Budget) Budget {
	if b == nil {
		return NewBudget(0.2, 3)
	}
	return b
}

// idempotence knows which procedures may be run twice.
type idempotence struct {
	patterns []string // nil: the server knows

	mu    sync.Mutex // guards what follows
	asked time.Time  // last
	known map[string]bool
}

const (
	// remembered is how long a list of procedures counts: another version of the server may serve
	// by then.
	remembered = time.Minute
	// patience is how long a call waits for it, at most.
	patience = time.Second
	// askAgain is how long nobody asks a server that did not tell.
	askAgain = time.Second
	// proceduresName is the procedure that lists them.
	proceduresName = "yonder.procedures"
)

// of reports whether a procedure may be run twice, which it may have to ask for by next.
func (k *idempotence) of(ctx context.Context, next yonder.Handler, procedure string) bool {
	if k.patterns != nil {
		return pattern.Any(k.patterns, procedure)
	}
	if procedure == proceduresName {
		return true
	}
	k.learn(ctx, next)
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.known[procedure]
}

// learn asks for the list of procedures, if nobody has lately.
func (k *idempotence) learn(ctx context.Context, next yonder.Handler) {
	if k.patterns != nil {
		return
	}
	k.mu.Lock()
	fresh := remembered
	if k.known == nil {
		fresh = askAgain
	}
	if !k.asked.IsZero() && time.Since(k.asked) < fresh {
		k.mu.Unlock()
		return
	}
	k.asked = time.Now() // by this call; others use what is known meanwhile
	k.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var list []yonder.ProcedureInfo
	err := next(ctx, yonder.NewCall(proceduresName).Into(&list))
	k.mu.Lock()
	defer k.mu.Unlock()
	if err == nil {
		k.known = make(map[string]bool, len(list))
		for _, p := range list {
			if p.Idempotent {
				k.known[p.Name] = true
			}
		}
	}
}

// ended returns the error of a call whose context has ended, after an attempt that failed with last;
// nil: there was none.
func ended(ctx context.Context, call *yonder.Call, last error) error {
	err := context.Cause(ctx)
	if last == nil {
		return yonder.Errorf(yonder.CodeOf(ctx.Err()), "yonder: call %q: %w", call.Procedure, err)
	}
	return yonder.Errorf(yonder.CodeOf(ctx.Err()), "yonder: call %q: %w, after %w", call.Procedure, err, last)
}
