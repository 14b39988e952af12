package resilience

import (
	"context"
	"sync"
	"time"

	"github.com/failsafe-go/failsafe-go/adaptivelimiter"
	"golang.org/x/time/rate"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/internal/pattern"
	"github.com/yonder-rpc/yonder/overload"
)

// Adaptive has an [overload.Gate] let as many calls run as do not make each other slow, for its
// field Adaptive. The limiter is failsafe-go's: it compares how long calls take with how long they
// took, and lowers the limit when more calls at a time only take longer.
//
//	gate := &overload.Gate{Adaptive: resilience.Adaptive(adaptivelimiter.NewWithDefaults[any]())}
func Adaptive[R any](limiter adaptivelimiter.AdaptiveLimiter[R]) func() (overload.Permit, bool) {
	return func() (overload.Permit, bool) {
		permit, ok := limiter.TryAcquirePermit()
		return permit, ok
	}
}

// Rates bounds how many calls are made in a second, at the server or at the client: the others fail
// at once, with [yonder.ResourceExhausted] and the time after which to try again. Its fields must
// not be changed once [Rates.Intercept] is used.
type Rates struct {
	// All is for all calls together. Nil: no bound.
	All *rate.Limiter
	// Procedures are limits of their own for some procedures: a call must be within all that are for
	// it. Nil: none.
	Procedures []Rate
	// PerConn and Burst are for the calls of each connection, or whatever Key says: a bucket of Burst
	// calls, which PerConn a second refill. Zero: no bound.
	PerConn rate.Limit
	Burst   int
	// Key tells connections from each other, as [overload.Gate.Key] does. What it returns must be
	// comparable. Nil: a call's connection.
	Key func(ctx context.Context, info yonder.CallInfo) any

	mu      sync.Mutex // guards what follows
	buckets map[any]*rate.Limiter
	purge   int // how many buckets there may be until those that are full go
}

// A Rate bounds how many calls of some procedures, all together, are made in a second.
type Rate struct {
	// Procedures are patterns of names, such as "report.*".
	Procedures []string
	// Limiter says how many.
	Limiter *rate.Limiter
}

// Intercept is the [yonder.Interceptor].
func (r *Rates) Intercept(next yonder.Handler) yonder.Handler {
	return func(ctx context.Context, call *yonder.Call) error {
		now := time.Now()
		var taken []*rate.Reservation
		var after time.Duration
		take := func(l *rate.Limiter) {
			reserved := l.ReserveN(now, 1)
			taken = append(taken, reserved)
			after = max(after, reserved.DelayFrom(now))
		}
		if r.PerConn > 0 {
			take(r.bucket(ctx, call, now))
		}
		for i := range r.Procedures {
			if pattern.Any(r.Procedures[i].Procedures, call.Procedure) {
				take(r.Procedures[i].Limiter)
			}
		}
		if r.All != nil {
			take(r.All)
		}
		if after > 0 {
			for _, reserved := range taken {
				reserved.CancelAt(now)
			}
			return yonder.RetryLater(after, "yonder: call \""+call.Procedure+"\": too many calls in a short time")
		}
		return next(ctx, call)
	}
}

// bucket returns that of a call's connection.
func (r *Rates) bucket(ctx context.Context, call *yonder.Call, now time.Time) *rate.Limiter {
	info := call.Info()
	var key any
	if r.Key != nil {
		key = r.Key(ctx, info)
	} else {
		key = overload.Connection(info)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.buckets[key]; l != nil {
		return l
	}
	if r.buckets == nil {
		r.buckets = make(map[any]*rate.Limiter)
		r.purge = 128
	}
	burst := max(r.Burst, 1)
	if len(r.buckets) >= r.purge {
		for key, l := range r.buckets {
			if l.TokensAt(now) >= float64(burst) { // as good as a new one
				delete(r.buckets, key)
			}
		}
		r.purge = max(128, 2*len(r.buckets))
	}
	l := rate.NewLimiter(r.PerConn, burst)
	r.buckets[key] = l
	return l
}
