// Package overload keeps a server useful when more is asked of it than it can do: a [Gate] has so
// many calls run at a time, has some wait in a queue that is fair between connections, and sends
// the others away at once, with the time after which to try again.
//
//	gate := &overload.Gate{Running: 64, PerConn: 16, Queue: 256}
//	srv.Interceptors = []yonder.Interceptor{gate.Intercept}
//
// It is an interceptor, so that it counts for every protocol, and before arguments are decoded.
// What it sends away has had no effect: the error is a [yonder.ResourceExhausted] with a
// [yonder.RetryInfo], which [yonder.RetryAfter] finds at the caller's end. The nested module
// resilience has clients that honour it, rate limits, and limits that adapt themselves.
package overload

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/internal/layers"
	"github.com/yonder-rpc/yonder/internal/pattern"
)

// A Gate bounds how many calls of a server run at a time. Its [Gate.Intercept] belongs into
// [yonder.Server.Interceptors], behind what finds out who calls and before what takes time. Its
// fields must not be changed once it is used; one Gate may serve several servers, which share its
// limits then.
//
// A call runs until its handler returns: what a stream among its results does after that is bounded
// by [yonder.Limits.MaxStreams]. A callback belongs to a call that has been admitted, and is not
// held up.
type Gate struct {
	// Running is how many calls run at a time. Zero: as many as want to, unless Adaptive says
	// otherwise.
	Running int
	// PerConn is how many calls of one connection run at a time. Zero: as many as want to.
	PerConn int
	// Procedures are limits of their own for some procedures: a call must be within all that are
	// for it. Nil: none.
	Procedures []Limit
	// Adaptive is asked for a permit before each call runs, beside the other limits, for limits
	// that follow what the server can do. It must not block. Nil: nobody is asked.
	Adaptive func() (Permit, bool)

	// Queue is how many calls wait for their turn. Zero means 1,000; less than zero, none. When
	// it is full, a connection that has more than its share of it gives way to one that has less.
	Queue int
	// Wait is how long a call waits for its turn, at most: with the time that a call takes, it is
	// the bound of what admitted calls take. Zero means 500 milliseconds.
	Wait time.Duration

	// Key tells connections from each other: calls for which it returns the same count as one
	// connection's. What it returns must be comparable, such as the name of who calls, for whom two
	// connections are not two shares then. Nil: [Connection].
	Key func(ctx context.Context, info yonder.CallInfo) any

	mu        sync.Mutex // guards what follows, and all flows and limits
	running   int
	waiting   int
	used      []int // by index of Procedures: calls that run
	flows     map[any]*flow
	ring      []*flow // those with calls that wait, in turn
	next      int     // whose turn it is
	profiles  map[string]*profile
	service   time.Duration // that a call takes, smoothed
	saturated bool          // Adaptive has said no since it last said yes
	stats     Stats
}

// A Limit bounds how many calls of some procedures run at a time, all together.
type Limit struct {
	// Procedures are patterns of names, such as "report.*", in which "*" stands for any
	// characters, or none.
	Procedures []string
	// Running is how many calls run at a time. Zero: none, all are sent away.
	Running int
}

// A Permit is for one call.
type Permit interface {
	// Record is called when the call has ended in its own time.
	Record()
	// Drop is called when it has ended for another reason, such as its caller's leaving, and how
	// long it took says nothing.
	Drop()
}

// Stats are what a [Gate] has done.
type Stats struct {
	Running, Waiting int    // calls, now
	Admitted         uint64 // calls that have run, or run
	Queued           uint64 // of those, that have waited
	Shed             uint64 // calls sent away since the queue was full, or for as long as a call waits
	Late             uint64 // calls not run since they would have been, or were, too late
	Left             uint64 // calls whose callers have left while they waited
}

// profile is what is known of a procedure.
type profile struct {
	limits []int // indices of Procedures that are for it
	// The shortest time that a call took, in this window of calls and in the one before: none is
	// likely to be done sooner.
	fastest, before time.Duration
	calls           int       // of this window
	last            time.Time // that a call was recorded
}

const (
	// window is how many calls a window has.
	window = 128
	// fresh is for how long it counts how long calls have taken. What is older must not refuse
	// calls, for then nobody would ever find out that they take less by now.
	fresh = time.Second
	// maxProfiles bounds how many procedures are told apart.
	maxProfiles = 10_000
)

// flow is what calls of one connection share. It is kept while it has any.
type flow struct {
	key     any
	running int
	queue   []*waiter // in the order of arrival
}

// waiter is a call that waits for its turn.
type waiter struct {
	flow     *flow
	profile  *profile
	deadline time.Time     // zero: never
	ready    chan struct{} // closed when it may run, or must not
	permit   Permit
	why      verdict // why it must not
}

// verdict says what becomes of a call.
type verdict uint8

const (
	admitted verdict = iota
	full             // the queue has no room
	late             // it could not be done in time
	patience         // it has waited for as long as calls do
)

// Stats returns what the gate has done since it was made.
func (g *Gate) Stats() Stats {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.stats
	s.Running, s.Waiting = g.running, g.waiting
	return s
}

// Intercept is the [yonder.Interceptor].
func (g *Gate) Intercept(next yonder.Handler) yonder.Handler {
	return func(ctx context.Context, call *yonder.Call) error {
		if isCallback(call.Procedure) {
			return next(ctx, call)
		}
		f, p, permit, err := g.enter(ctx, call)
		if err != nil {
			return err
		}
		begun := time.Now()
		natural := false // even if the handler panics, or ends its goroutine
		defer func() { g.leave(f, p, permit, time.Since(begun), natural) }()
		err = next(ctx, call)
		natural = ctx.Err() == nil
		return err
	}
}

// isCallback reports whether the name is that of a function among the arguments: "name#1".
func isCallback(name string) bool {
	i := strings.LastIndexByte(name, '#')
	if i < 0 || i == len(name)-1 {
		return false
	}
	for _, c := range name[i+1:] {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// enter waits until a call may run, or returns why it may not.
func (g *Gate) enter(ctx context.Context, call *yonder.Call) (*flow, *profile, Permit, error) {
	key := g.keyOf(ctx, call)
	deadline, _ := ctx.Deadline()
	g.mu.Lock()
	p := g.profileLocked(call.Procedure)
	f := g.flowLocked(key)
	var left time.Duration
	if !deadline.IsZero() {
		// No call has been done sooner lately: this one would be run for nothing.
		if left = time.Until(deadline); left < p.soonest() {
			return nil, nil, nil, g.refuseAndUnlock(f, call, late, left)
		}
	}
	if g.running == 0 { // Adaptive, which others may share, has changed its mind
		g.dispatchLocked()
	}
	if g.nobodyAheadLocked() {
		if permit, ok := g.admitLocked(f, p); ok {
			g.mu.Unlock()
			return f, p, permit, nil
		}
	}
	if g.neverLocked(p) || !g.roomLocked(f) {
		return nil, nil, nil, g.refuseAndUnlock(f, call, full, left)
	}
	w := &waiter{flow: f, profile: p, deadline: deadline, ready: make(chan struct{})}
	g.pushLocked(w)
	g.mu.Unlock()

	patient := time.NewTimer(g.wait())
	defer patient.Stop()
	var why verdict
	var ended error
	select {
	case <-w.ready:
	case <-ctx.Done():
		ended = ctx.Err()
	case <-patient.C:
		why = patience
	}
	g.mu.Lock()
	select {
	case <-w.ready: // perhaps just now
		if w.why != admitted {
			return nil, nil, nil, g.refuseAndUnlock(f, call, w.why, left)
		}
		g.stats.Queued++
		g.mu.Unlock()
		return f, p, w.permit, nil // its handler sees that its context has ended, if it has
	default:
	}
	g.pullLocked(w)
	if ended != nil {
		g.stats.Left++
		g.forgetLocked(f)
		g.mu.Unlock()
		return nil, nil, nil, yonder.Errorf(yonder.CodeOf(ended), "yonder: call %q: it was over before its turn came: %w", call.Procedure, context.Cause(ctx))
	}
	return nil, nil, nil, g.refuseAndUnlock(f, call, why, left)
}

// leave ends a call, and has others begin.
func (g *Gate) leave(f *flow, p *profile, permit Permit, took time.Duration, natural bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running--
	f.running--
	for _, i := range p.limits {
		g.used[i]--
	}
	if natural {
		p.record(took)
		if g.service == 0 {
			g.service = took
		}
		g.service += (took - g.service) / 16
	}
	if permit != nil {
		if natural {
			permit.Record()
		} else {
			permit.Drop()
		}
	}
	g.dispatchLocked()
	g.forgetLocked(f)
}

// dispatchLocked has calls begin that may. Each connection has one begin, and then the next.
func (g *Gate) dispatchLocked() {
	g.saturated = false // somebody has left: ask again
	for passed := 0; passed < len(g.ring) && g.openLocked(); {
		if g.next >= len(g.ring) {
			g.next = 0
		}
		f := g.ring[g.next]
		began := g.beginLocked(f)
		if g.saturated {
			return
		}
		switch {
		case len(f.queue) == 0:
			g.ring = slices.Delete(g.ring, g.next, g.next+1)
			g.forgetLocked(f)
		case began:
			g.next++
		default:
			g.next++
			passed++
		}
		if began {
			passed = 0
		}
	}
}

// beginLocked has the first of a connection's calls begin that may, and refuses those that it
// finds too late on the way.
func (g *Gate) beginLocked(f *flow) bool {
	now := time.Now()
	for i := 0; i < len(f.queue); {
		w := f.queue[i]
		if !w.deadline.IsZero() && w.deadline.Sub(now) < w.profile.soonest() {
			f.queue = slices.Delete(f.queue, i, i+1)
			g.waiting--
			w.why = late
			close(w.ready)
			continue
		}
		if permit, ok := g.admitLocked(f, w.profile); ok {
			f.queue = slices.Delete(f.queue, i, i+1)
			g.waiting--
			w.permit = permit
			close(w.ready)
			return true
		}
		if g.PerConn > 0 && f.running >= g.PerConn || g.saturated {
			return false // nor may those behind it
		}
		i++
	}
	return false
}

// openLocked reports whether the server has room for a call.
func (g *Gate) openLocked() bool { return g.Running <= 0 || g.running < g.Running }

// nobodyAheadLocked reports whether no call that waits has a better right to what is free: then
// all that wait do so for limits of their connections' or procedures' own.
func (g *Gate) nobodyAheadLocked() bool { return g.openLocked() && (g.waiting == 0 || !g.saturated) }

// admitLocked counts a call in, if all limits let it.
func (g *Gate) admitLocked(f *flow, p *profile) (Permit, bool) {
	if !g.openLocked() || g.PerConn > 0 && f.running >= g.PerConn {
		return nil, false
	}
	for _, i := range p.limits {
		if g.used[i] >= g.Procedures[i].Running {
			return nil, false
		}
	}
	var permit Permit
	if g.Adaptive != nil {
		var ok bool
		if permit, ok = g.Adaptive(); !ok {
			g.saturated = true
			return nil, false
		}
	}
	g.saturated = false
	g.running++
	f.running++
	for _, i := range p.limits {
		g.used[i]++
	}
	g.stats.Admitted++
	return permit, true
}

// neverLocked reports whether a procedure's calls never run, or none runs that could end and let
// this one begin.
func (g *Gate) neverLocked(p *profile) bool {
	for _, i := range p.limits {
		if g.Procedures[i].Running <= 0 {
			return true
		}
	}
	return g.running == 0
}

// roomLocked reports whether a call of f may wait. When the queue is full, the connection of which
// most calls wait gives up its last one, if f has less than its share.
func (g *Gate) roomLocked(f *flow) bool {
	size := g.Queue
	if size == 0 {
		size = 1000
	}
	if g.waiting < size {
		return true
	}
	if size < 0 || len(f.queue)+1 > size/(len(g.ring)+1) {
		return false
	}
	longest := slices.MaxFunc(g.ring, func(a, b *flow) int { return len(a.queue) - len(b.queue) })
	if longest == f || len(longest.queue) <= len(f.queue)+1 {
		return false
	}
	w := longest.queue[len(longest.queue)-1]
	g.pullLocked(w)
	w.why = full
	close(w.ready)
	g.forgetLocked(longest)
	return true
}

func (g *Gate) pushLocked(w *waiter) {
	f := w.flow
	if len(f.queue) == 0 {
		g.ring = append(g.ring, f)
	}
	f.queue = append(f.queue, w)
	g.waiting++
}

// pullLocked takes a call out of the queue that does not wait any more.
func (g *Gate) pullLocked(w *waiter) {
	f := w.flow
	i := slices.Index(f.queue, w)
	f.queue = slices.Delete(f.queue, i, i+1)
	g.waiting--
	if len(f.queue) > 0 {
		return
	}
	at := slices.Index(g.ring, f)
	g.ring = slices.Delete(g.ring, at, at+1)
	if at < g.next {
		g.next--
	}
}

func (g *Gate) wait() time.Duration {
	if g.Wait > 0 {
		return g.Wait
	}
	return 500 * time.Millisecond
}

// refuseAndUnlock returns the error of a call that does not run.
func (g *Gate) refuseAndUnlock(f *flow, call *yonder.Call, why verdict, left time.Duration) error {
	g.forgetLocked(f)
	if why == late {
		g.stats.Late++
		if left <= 0 {
			g.mu.Unlock()
			return yonder.Errorf(yonder.DeadlineExceeded, "yonder: call %q: its time was up before it began", call.Procedure)
		}
	} else {
		g.stats.Shed++
	}
	after := g.drainLocked()
	g.mu.Unlock()
	text := "yonder: call \"" + call.Procedure + "\": "
	switch why {
	case late:
		text += "the server is busy: it would not be done in time"
	case patience:
		text += "the server is busy: its turn has not come"
	default:
		text += "the server is busy: too many calls wait"
	}
	return yonder.RetryLater(after+rand.N(after/2), text)
}

const (
	// minRetry and maxRetry bound what is said of when to try again.
	minRetry = 10 * time.Millisecond
	maxRetry = 10 * time.Second
)

// drainLocked estimates how long those take that wait.
func (g *Gate) drainLocked() time.Duration {
	// In floating point, since many calls that take long are more than a Duration holds.
	d := float64(g.service) * float64(g.waiting+1) / float64(max(1, g.running))
	return time.Duration(min(max(d, float64(minRetry)), float64(maxRetry)))
}

// profileLocked returns what is known of a procedure.
func (g *Gate) profileLocked(name string) *profile {
	if p := g.profiles[name]; p != nil {
		return p
	}
	if g.profiles == nil {
		g.profiles = make(map[string]*profile)
		g.used = make([]int, len(g.Procedures))
	}
	p := new(profile)
	for i := range g.Procedures {
		if pattern.Any(g.Procedures[i].Procedures, name) {
			p.limits = append(p.limits, i)
		}
	}
	if len(g.profiles) < maxProfiles {
		g.profiles[strings.Clone(name)] = p
	}
	return p
}

// record notes how long a call took.
func (p *profile) record(took time.Duration) {
	if p.calls == 0 || took < p.fastest {
		p.fastest = took
	}
	p.last = time.Now()
	if p.calls++; p.calls == window {
		p.before, p.fastest, p.calls = p.fastest, 0, 0
	}
}

// soonest returns the shortest time that a call took lately; zero: too few are known.
func (p *profile) soonest() time.Duration {
	switch {
	case p.before == 0 || time.Since(p.last) > fresh:
		return 0
	case p.calls == 0:
		return p.before
	}
	return min(p.before, p.fastest)
}

// flowLocked returns that of a connection.
func (g *Gate) flowLocked(key any) *flow {
	if f := g.flows[key]; f != nil {
		return f
	}
	if g.flows == nil {
		g.flows = make(map[any]*flow)
	}
	f := &flow{key: key}
	g.flows[key] = f
	return f
}

// forgetLocked lets go of a flow that has no calls.
func (g *Gate) forgetLocked(f *flow) {
	if f.running == 0 && len(f.queue) == 0 {
		delete(g.flows, f.key)
	}
}

// keyOf returns what a call's flow is known by.
func (g *Gate) keyOf(ctx context.Context, call *yonder.Call) any {
	info := call.Info()
	if g.Key != nil {
		return g.Key(ctx, info)
	}
	return Connection(info)
}

// Connection returns what tells the connection that a call came over from others. It is nil for
// calls in the same process, and a request of its own if HTTP does not say what that came over.
func Connection(info yonder.CallInfo) any {
	var last any
	for layer := range layers.All(info.Conn) {
		last = layer
	}
	if last != nil && !reflect.TypeOf(last).Comparable() {
		return fmt.Sprintf("%T", last) // all of them are one
	}
	return last
}
