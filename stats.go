package yonder

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/yonder-rpc/yonder/internal/mux"
)

// Stats is what a [Server] or a [Client] has done since it was made. Counts only grow, but for
// what is in flight or open. It encodes as JSON, with the names in the tags, so
//
//	expvar.Publish("yonder", expvar.Func(func() any { return srv.Stats() }))
//
// has /debug/vars show it.
type Stats struct {
	// Calls are by procedure, if Server.Measure or Dialer.Measure is set. A server has one for
	// each procedure that is registered, for its own once they have been called, and two that no
	// procedure can be: "yonder.unknown" for names that it does not have, and "yonder.callbacks"
	// for functions among arguments. A client has those that were called; after 1,000 different
	// names, "yonder.others" has the rest.
	Calls map[string]CallStats `json:"calls,omitempty"`
	// Connections are by protocol. What comes over HTTP, such as a WebSocket, is there under
	// "http" and, if it is a connection to yonder, under its own protocol, too. Those that others
	// have accepted, for package web's Handler or jsonrpc's Serve, are theirs to count.
	Connections map[string]ConnectionStats `json:"connections"`
	// Refused are connections that spoke no protocol of the server's, or not in time, or were beyond
	// [ConnLimits.Max].
	Refused uint64 `json:"refused"`
	// Resumption is of connections that may be resumed.
	Resumption ResumptionStats `json:"resumption"`
}

// CallStats are the calls of one procedure. A call is counted where interceptors see it, so those
// that they refuse count, and what an answer costs to encode and to send does not; and one over
// yonder's own protocol whose signature does not fit. One with streams or readers among its
// results is in flight, and takes time, until the last one has ended.
type CallStats struct {
	// Started is how many calls have begun, Finished how many of them have ended, and InFlight
	// the others.
	Started  uint64 `json:"started"`
	Finished uint64 `json:"finished"`
	InFlight uint64 `json:"in_flight"`
	// Errors are the calls that failed, by code.
	Errors map[Code]uint64 `json:"errors,omitempty"`
	// Latency is of the calls that have ended, without those that did not fit.
	Latency Histogram `json:"latency"`
	// Streams are the streams and readers of the calls in flight: those that a handler may be
	// given, and those that it has returned.
	Streams int64 `json:"streams"`
	// RequestBytes and ResponseBytes are arguments and results as they travelled, without streams,
	// over yonder's own protocol to a server; of others they are not known.
	RequestBytes  uint64 `json:"request_bytes"`
	ResponseBytes uint64 `json:"response_bytes"`
}

// ConnectionStats are the connections of one protocol.
type ConnectionStats struct {
	// Open is how many there are, and Total how many there have been.
	Open  int64  `json:"open"`
	Total uint64 `json:"total"`
	// BytesRead and BytesWritten are what they have carried, without what a listener may have
	// put around it, such as TLS.
	BytesRead    uint64 `json:"bytes_read"`
	BytesWritten uint64 `json:"bytes_written"`
}

// ResumptionStats are the connections of yonder's own protocol that go on when what they run over
// is lost: see [Dialer.Resume].
type ResumptionStats struct {
	// Open is how many may be resumed, and Suspended how many of them are lost just now.
	Open      int64 `json:"open"`
	Suspended int64 `json:"suspended"`
	// Resumed is how often one has gone on.
	Resumed uint64 `json:"resumed"`
	// Expired are those that were given up because nobody resumed them in time, and Evicted those that a
	// server gave up because of [Resumption.MaxConns] or MaxBytes.
	Expired uint64 `json:"expired"`
	Evicted uint64 `json:"evicted"`
	// Refused is at a server how often somebody wanted to resume what is not there, or not theirs; and
	// at a client how many connections it had to give up because of that.
	Refused uint64 `json:"refused"`
	// KeptBytes is what is held now for the other ends: sent and not acknowledged, or not yet sent.
	KeptBytes int64 `json:"kept_bytes"`
}

// add counts what is open.
func (s *ResumptionStats) add(links []*link) {
	for _, l := range links {
		if resumable, waits, held := l.mux.Session(); resumable {
			s.Open++
			s.KeptBytes += int64(held)
			if waits {
				s.Suspended++
			}
		}
	}
}

// A Histogram says how long calls took.
type Histogram struct {
	// Count is how many calls, Sum how long they took together, in seconds.
	Count uint64  `json:"count"`
	Sum   float64 `json:"sum"`
	// Buckets are for these bounds: 10, 25 and 50 microseconds, and so on in these steps to 10
	// seconds.
	Buckets []Bucket `json:"buckets"`
}

// A Bucket is how many calls took so many seconds at most, those of smaller buckets included, as
// Prometheus has it.
type Bucket struct {
	Seconds float64 `json:"le"`
	Count   uint64  `json:"count"`
}

// Quantile estimates how long, in seconds, the share q of calls took at most; 0.5 is for the
// median. Between the bounds of a bucket it is a guess; beyond the largest it is that. 0: there
// were no calls.
func (h Histogram) Quantile(q float64) float64 {
	rank, below, from := q*float64(h.Count), 0.0, 0.0
	for _, b := range h.Buckets {
		if n := float64(b.Count); n >= rank && n > below {
			return from + (b.Seconds-from)*max(rank-below, 0)/(n-below)
		} else {
			below, from = n, b.Seconds
		}
	}
	if h.Count == 0 {
		return 0
	}
	return from
}

// String returns s as JSON: a snapshot is an expvar.Var.
func (s Stats) String() string {
	text, err := json.Marshal(s)
	if err != nil { // which it has no value for
		return "{}"
	}
	return string(text)
}

// bounds are of the buckets.
var bounds = [...]time.Duration{
	10 * time.Microsecond, 25 * time.Microsecond, 50 * time.Microsecond,
	100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

// tally counts the calls of one procedure. How many have ended is the sum of the buckets, and of
// those that were refused.
type tally struct {
	started           atomic.Uint64
	refused           atomic.Uint64 // have not begun
	nanoseconds       atomic.Int64
	buckets           [len(bounds) + 1]atomic.Uint64
	errors            [len(codeNames)]atomic.Uint64 // by code; 0: a code that has no name
	streams           atomic.Int64
	request, response atomic.Uint64
}

// epoch is what the times of calls are since: half the price of time.Now.
var epoch = time.Now()

// now is never 0.
func now() time.Duration { return cmp.Or(time.Since(epoch), 1) }

func (t *tally) start() time.Duration {
	t.started.Add(1)
	return now()
}

func (t *tally) finish(began time.Duration, err error) {
	took := now() - began
	t.nanoseconds.Add(int64(took))
	if err != nil {
		t.fail(CodeOf(err))
	}
	i, _ := slices.BinarySearch(bounds[:], took)
	t.buckets[i].Add(1)
}

func (t *tally) fail(code Code) {
	if int(code) >= len(t.errors) {
		code = 0
	}
	t.errors[code].Add(1)
}

// refuse counts a call that has not begun.
func (t *tally) refuse(code Code) {
	t.started.Add(1)
	t.fail(code)
	t.refused.Add(1)
}

func (t *tally) stats() CallStats {
	var s CallStats
	h := &s.Latency
	h.Buckets = make([]Bucket, len(bounds))
	for i := range t.buckets { // before started: what has finished has been started
		h.Count += t.buckets[i].Load()
		if i < len(bounds) {
			h.Buckets[i] = Bucket{bounds[i].Seconds(), h.Count}
		}
	}
	h.Sum = time.Duration(t.nanoseconds.Load()).Seconds()
	for i := range t.errors {
		if n := t.errors[i].Load(); n > 0 {
			if s.Errors == nil {
				s.Errors = make(map[Code]uint64)
			}
			s.Errors[cmp.Or(Code(i), Unknown)] += n
		}
	}
	s.Finished = h.Count + t.refused.Load()
	s.Started = t.started.Load()
	s.InFlight = s.Started - s.Finished
	s.Streams = max(t.streams.Load(), 0)
	s.RequestBytes, s.ResponseBytes = t.request.Load(), t.response.Load()
	return s
}

// traffic is of the connections of one protocol.
type traffic struct {
	open  atomic.Int64
	total atomic.Uint64
	count mux.Count
}

func (t *traffic) stats() ConnectionStats {
	return ConnectionStats{
		Open: t.open.Load(), Total: t.total.Load(),
		BytesRead: t.count.Read.Load(), BytesWritten: t.count.Written.Load(),
	}
}

// resumption is what the connections have counted of it.
func (t *traffic) resumption() ResumptionStats {
	c := &t.count
	return ResumptionStats{Resumed: c.Resumed.Load(), Expired: c.Expired.Load(), Refused: c.Refused.Load()}
}

// trafficLocked counts a connection that begins.
func (s *Server) trafficLocked(protocol string) *traffic {
	t := s.traffic[protocol]
	if t == nil {
		if s.traffic == nil {
			s.traffic = make(map[string]*traffic)
		}
		t = new(traffic)
		s.traffic[protocol] = t
	}
	t.open.Add(1)
	t.total.Add(1)
	return t
}

// Stats returns what the server has done so far. Its counts are not of one moment: calls go on
// meanwhile.
func (s *Server) Stats() Stats {
	s.prepare()
	stats := Stats{Connections: make(map[string]ConnectionStats), Refused: s.refused.Load()}
	if s.Resume != nil {
		stats.Resumption = s.resumption()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for protocol, t := range s.traffic {
		stats.Connections[protocol] = t.stats()
	}
	if !s.Measure {
		return stats
	}
	stats.Calls = map[string]CallStats{"yonder.unknown": s.unknown.stats(), "yonder.callbacks": s.callbacks.stats()}
	for name, p := range s.builtin {
		if p.tally.started.Load() > 0 {
			stats.Calls[name] = p.tally.stats()
		}
	}
	for name, p := range s.procs {
		stats.Calls[name] = p.tally.stats()
	}
	return stats
}

// resumption returns what there is of connections that may be resumed.
func (s *Server) resumption() ResumptionStats {
	var stats ResumptionStats
	s.mu.Lock()
	if t := s.traffic[nativeProtocol]; t != nil {
		stats = t.resumption()
	}
	links := slices.Collect(maps.Keys(s.links))
	s.mu.Unlock()
	stats.add(links)
	stats.Evicted, stats.Refused = s.Resume.failed()
	return stats
}

// begin has the call measured.
func (c *Call) begin() {
	t := c.proc.tally
	c.began = t.start()
	if !c.proc.plan.Plain {
		t.streams.Add(streamsAmong(c.proc.plan.Args))
	}
}

func (c *Call) measured() bool { return c.began != 0 }

// returned is told how the handlers of a call returned that is measured or watched.
func (c *Call) returned(ctx context.Context, err error) {
	if c.proc != nil && c.proc.plan.Plain && c.ends == nil {
		c.proc.tally.finish(c.began, err)
		return
	}
	end := &callEnd{fire: c.ends}
	c.ends = nil
	if c.began != 0 {
		t, began, streams := c.proc.tally, c.began, streamsAmong(c.proc.plan.Args)
		if err == nil && !c.OneWay {
			n := streamsAmong(c.proc.plan.Results)
			t.streams.Add(n)
			streams += n
		}
		end.fire = append(end.fire, func(err error) {
			t.streams.Add(-streams)
			t.finish(began, err)
		})
	}
	if err != nil || c.OneWay || !c.watch(ctx, end) {
		end.over(err)
	}
}

// tallies are of a client.
type tallies struct {
	mu    sync.RWMutex
	calls map[string]*tally // guarded by mu
}

// maxTallies is of how many procedures a client's calls are told apart.
const maxTallies = 1000

func (t *tallies) of(name string) *tally {
	t.mu.RLock()
	of := t.calls[name]
	t.mu.RUnlock()
	if of != nil {
		return of
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.calls == nil {
		t.calls = make(map[string]*tally)
	}
	if len(t.calls) >= maxTallies {
		name = "yonder.others"
	}
	if t.calls[name] == nil {
		t.calls[name] = new(tally)
	}
	return t.calls[name]
}

// Stats returns what the client has done so far; see [Server.Stats]. Calls are counted as their
// callers see them, interceptors included: what is tried again is one call. Of connections it
// knows those of yonder's own protocol.
func (c *Client) Stats() Stats {
	stats := Stats{Connections: make(map[string]ConnectionStats)}
	if total := c.traffic.total.Load(); total > 0 {
		stats.Connections[nativeProtocol] = c.traffic.stats()
	}
	if c.resume > 0 {
		stats.Resumption = c.traffic.resumption()
		c.mu.Lock()
		links := slices.Collect(maps.Keys(c.links))
		c.mu.Unlock()
		stats.Resumption.add(links)
	}
	if c.calls == nil {
		return stats
	}
	stats.Calls = make(map[string]CallStats)
	c.calls.mu.RLock()
	defer c.calls.mu.RUnlock()
	for name, t := range c.calls.calls {
		stats.Calls[name] = t.stats()
	}
	return stats
}

// measured makes a call that is counted.
func (c *Client) measured(ctx context.Context, call *Call) error {
	var t *tally
	if r := call.ref; r != nil && r.client == c {
		t = r.tally
	} else {
		t = c.calls.of(call.Procedure)
	}
	began := t.start()
	returned := false
	defer func() {
		if !returned { // an interceptor has panicked, or ended the goroutine
			t.finish(began, errPanicked(call.Procedure))
		}
	}()
	err := c.handler(ctx, call)
	returned = true
	call.deliver(ctx)
	if call.ends == nil && (err != nil || call.plan == nil || call.plan.Plain) {
		t.finish(began, err)
		return err
	}
	var streams int64
	if err == nil && !call.OneWay && call.plan != nil {
		streams = streamsAmong(call.plan.Results)
		t.streams.Add(streams)
	}
	call.ends = append(call.ends, func(err error) {
		t.streams.Add(-streams)
		t.finish(began, err)
	})
	call.returned(ctx, err)
	return err
}
