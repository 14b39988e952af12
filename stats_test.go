package yonder_test

import (
	"context"
	"encoding/json"
	"errors"
	"expvar"
	"io"
	"iter"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/yondertest"
)

var _ expvar.Var = yonder.Stats{}

// measured returns a client of srv, both of which measure.
func (m mode) measured(t *testing.T, srv *yonder.Server, interceptors ...yonder.Interceptor) *yonder.Client {
	t.Helper()
	srv.Measure = true
	d := &yonder.Dialer{Measure: true, Interceptors: interceptors}
	if m == inProcess {
		serverOf(t, srv)
		return d.Local(srv)
	}
	return m.dialer(t, srv, d)
}

// until waits for what becomes true without the test's doing.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("it never happened: %s", what)
		}
	}
}

// counts is what a test wants of a procedure's calls.
type counts struct {
	Started, Finished, InFlight uint64
	Streams                     int64
	Errors                      map[yonder.Code]uint64
}

func countsOf(s yonder.Stats, name string) counts {
	c := s.Calls[name]
	return counts{c.Started, c.Finished, c.InFlight, c.Streams, c.Errors}
}

func wantCounts(t *testing.T, s yonder.Stats, name string, want counts) {
	t.Helper()
	if diff := cmp.Diff(want, countsOf(s, name)); diff != "" {
		t.Errorf("%s: %s", name, diff)
	}
}

// All protocols are counted alike, at both ends.
func TestStats(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		entered, leave := make(chan bool), make(chan bool)
		srv.Register("double", func(n int) int { return 2 * n })
		yonder.Handle(&srv, "fast", func(ctx context.Context, n int) (int, error) { return n, nil })
		srv.Register("fail", func() error { return yonder.Errorf(yonder.NotFound, "nothing") })
		srv.Register("boom", func() error { panic("boom") })
		srv.Register("wait", func() error { entered <- true; <-leave; return nil })
		srv.Register("never", func() error { return nil })
		c := m.measured(t, &srv)
		ctx := t.Context()
		var double func(int) (int, error)
		c.Bind("double", &double)
		fast := yonder.Remote[int, int](c, "fast")
		for i := range 3 {
			if n, err := double(i); n != 2*i || err != nil {
				t.Fatal(n, err)
			}
			if n, err := fast(ctx, i); n != i || err != nil {
				t.Fatal(n, err)
			}
		}
		c.Call(ctx, yonder.NewCall("fail"))
		c.Call(ctx, yonder.NewCall("boom"))
		if m.protocol() == "yonder" && m != inProcess {
			c.Call(ctx, yonder.NewCall("never", "an argument"))
		}
		c.Call(ctx, yonder.NewCall("no.such"))
		c.Call(ctx, yonder.NewCall("no.such.either"))
		var wg sync.WaitGroup
		wg.Go(func() { c.Call(ctx, yonder.NewCall("wait")) })
		<-entered
		for side, s := range map[string]yonder.Stats{"server": srv.Stats(), "client": c.Stats()} {
			t.Log(side, s)
			wantCounts(t, s, "double", counts{Started: 3, Finished: 3})
			wantCounts(t, s, "fast", counts{Started: 3, Finished: 3})
			wantCounts(t, s, "fail", counts{Started: 1, Finished: 1, Errors: map[yonder.Code]uint64{yonder.NotFound: 1}})
			wantCounts(t, s, "boom", counts{Started: 1, Finished: 1, Errors: map[yonder.Code]uint64{yonder.Internal: 1}})
			wantCounts(t, s, "wait", counts{Started: 1, InFlight: 1})
			if m.protocol() == "yonder" && m != inProcess { // it does not fit
				wantCounts(t, s, "never", counts{Started: 1, Finished: 1, Errors: map[yonder.Code]uint64{yonder.InvalidArgument: 1}})
			} else {
				wantCounts(t, s, "never", counts{})
			}
			if l := s.Calls["double"].Latency; l.Count != 3 || l.Sum <= 0 || l.Buckets[len(l.Buckets)-1].Count != 3 {
				t.Errorf("%s: latency %v", side, l)
			}
			if side == "server" {
				wantCounts(t, s, "yonder.unknown", counts{Started: 2, Finished: 2, Errors: map[yonder.Code]uint64{yonder.Unimplemented: 2}})
				if n := len(s.Calls); n != 8 {
					t.Errorf("%d procedures: %v", n, s)
				}
			}
			if m == inProcess {
				continue
			}
			if protocol := m.protocol(); side == "server" || protocol == "yonder" {
				if have := s.Connections[protocol]; have.Open != 1 || have.Total != 1 || have.BytesRead < 100 || have.BytesWritten < 30 {
					t.Errorf("%s: connections %v", side, s.Connections)
				}
			}
		}
		if call := srv.Stats().Calls["double"]; m.protocol() == "yonder" && m != inProcess && m != inJSON && (call.RequestBytes != 3 || call.ResponseBytes != 3) {
			t.Errorf("bytes: %v", call)
		}
		leave <- true
		wg.Wait()
		wantCounts(t, srv.Stats(), "wait", counts{Started: 1, Finished: 1})
		c.Close()
		if m != inProcess {
			until(t, "the connection has ended", func() bool { return srv.Stats().Connections[m.protocol()].Open == 0 })
		}
	})
}

// protocol returns what the mode's calls say that they came over.
func (m mode) protocol() string {
	switch m.wire() {
	case jsonRPC:
		return "jsonrpc"
	case netRPC:
		return "netrpc"
	case overFrames:
		return "session"
	}
	return "yonder"
}

// A call with streams among its results is in flight until they end.
func TestStatsOfStreams(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		m.needs(t, streams)
		var srv yonder.Server
		ended := new(trace)
		srv.Interceptors = []yonder.Interceptor{ended.ends("server")}
		srv.Register("count", func(n int) iter.Seq2[int, error] { return countTo(n, nil) })
		srv.Register("broken", func(n int) yonder.Stream[int] {
			return yonder.Stream[int](countTo(n, yonder.Errorf(yonder.DataLoss, "lost")))
		})
		srv.Register("read", func() io.Reader { return strings.NewReader("text") })
		c := m.measured(t, &srv, ended.ends("client"))
		ctx := t.Context()
		seq, err := yonder.Invoke[iter.Seq2[int, error]](ctx, c, "count", 3)
		if err != nil {
			t.Fatal(err)
		}
		wantCounts(t, c.Stats(), "count", counts{Started: 1, InFlight: 1, Streams: 1})
		n := 0
		for _, err := range seq {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		wantCounts(t, c.Stats(), "count", counts{Started: 1, Finished: 1})
		until(t, "the server's part", func() bool {
			return cmp.Equal(countsOf(srv.Stats(), "count"), counts{Started: 1, Finished: 1})
		})
		seq, err = yonder.Invoke[iter.Seq2[int, error]](ctx, c, "broken", 2)
		if err != nil {
			t.Fatal(err)
		}
		for range seq {
		}
		lost := counts{Started: 1, Finished: 1, Errors: map[yonder.Code]uint64{yonder.DataLoss: 1}}
		wantCounts(t, c.Stats(), "broken", lost)
		until(t, "the server's part", func() bool { return cmp.Equal(countsOf(srv.Stats(), "broken"), lost) })
		r, err := yonder.Invoke[io.Reader](ctx, c, "read")
		if err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(r); string(text) != "text" || err != nil {
			t.Fatal(text, err)
		}
		until(t, "the server's part", func() bool { return countsOf(srv.Stats(), "read").Finished == 1 })
		// A caller that gives up, and one that leaves.
		giving, cancel := context.WithCancel(ctx)
		if _, err = yonder.Invoke[iter.Seq2[int, error]](giving, c, "count", 1<<30); err != nil {
			t.Fatal(err)
		}
		cancel()
		until(t, "both parts", func() bool {
			return countsOf(c.Stats(), "count").Errors[yonder.Canceled] == 1 && countsOf(srv.Stats(), "count").InFlight == 0
		})
		if seq, err = yonder.Invoke[iter.Seq2[int, error]](ctx, c, "count", 1<<30); err != nil {
			t.Fatal(err)
		}
		for range seq {
			break
		}
		until(t, "both parts", func() bool {
			return countsOf(c.Stats(), "count").InFlight == 0 && countsOf(srv.Stats(), "count").InFlight == 0
		})
		if s := countsOf(srv.Stats(), "count").Streams + countsOf(c.Stats(), "count").Streams; s != 0 {
			t.Errorf("%d streams are left", s)
		}
		lines := strings.Join(ended.take(), "\n")
		for _, want := range []string{"client count <nil>", "server count <nil>", "client broken", "server broken lost", "client read <nil>", "server read <nil>"} {
			if !strings.Contains(lines, want) {
				t.Errorf("%q is not in\n%s", want, lines)
			}
		}
	})
}

// ends returns an interceptor that notes how calls end.
func (tr *trace) ends(name string) yonder.Interceptor {
	return func(next yonder.Handler) yonder.Handler {
		return func(ctx context.Context, call *yonder.Call) error {
			err := next(ctx, call)
			if procedure := call.Procedure; err == nil {
				call.OnEnd(func(err error) { tr.add("%s %s %v", name, procedure, err) })
			}
			return err
		}
	}
}

// OnEnd is over once, when the last interceptor has returned, of calls that have no streams.
func TestOnEnd(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		tr := new(trace)
		failing := func(next yonder.Handler) yonder.Handler {
			return func(ctx context.Context, call *yonder.Call) error {
				if err := next(ctx, call); err != nil || call.Procedure == "one" {
					return err
				}
				return yonder.Errorf(yonder.Aborted, "after all")
			}
		}
		srv := yonder.Server{Interceptors: []yonder.Interceptor{failing, tr.ends("server")}}
		srv.Register("one", func() int { return 1 })
		srv.Register("other", func() int { return 1 })
		c := m.intercepted(t, &srv, tr.ends("client"))
		for _, name := range []string{"one", "other"} {
			yonder.Invoke[int](t.Context(), c, name)
		}
		want := []string{"server one <nil>", "client one <nil>", "server other after all"}
		if diff := cmp.Diff(want, tr.take()); diff != "" {
			t.Error(diff)
		}
	})
}

// A stream that its caller forgets ends the call for those who watch it, too.
func TestOnEndForgotten(t *testing.T) {
	tr := new(trace)
	var srv yonder.Server
	srv.Register("count", func(n int) iter.Seq2[int, error] { return countTo(n, nil) })
	c := overTCP.intercepted(t, &srv, tr.ends("client"))
	if _, err := yonder.Invoke[iter.Seq2[int, error]](t.Context(), c, "count", 1<<30); err != nil {
		t.Fatal(err)
	}
	until(t, "the end", func() bool { runtime.GC(); return len(tr.take()) == 1 })
}

// Callbacks are counted where they are served, and unmeasured servers count connections only.
func TestStatsOfCallbacks(t *testing.T) {
	var srv, mine yonder.Server
	mine.Measure = true
	srv.Register("walk", walk)
	c := yondertest.PairDialer(t, &srv, &yonder.Dialer{Server: &mine})
	var visit func(n int, visit func(int) error) error
	srv.Register("visit", func(n int, visit func(int) error) error {
		for i := range n {
			if err := visit(i); err != nil {
				return err
			}
		}
		return nil
	})
	c.Bind("visit", &visit)
	if err := visit(3, func(int) error { return nil }); err != nil {
		t.Fatal(err)
	}
	wantCounts(t, mine.Stats(), "yonder.callbacks", counts{Started: 3, Finished: 3})
	s := srv.Stats()
	if s.Calls != nil || s.Connections["yonder"].Open != 1 || s.Connections["yonder"].BytesRead == 0 {
		t.Errorf("%v", s)
	}
}

func TestStatsRefused(t *testing.T) {
	srv := yonder.Server{Logger: logger(t)}
	near, far := net.Pipe()
	go func() { near.Write([]byte("what is this?\n")); near.Close() }()
	if srv.ServeConn(far) == nil || srv.Stats().Refused != 1 {
		t.Errorf("%v", srv.Stats())
	}
}

// A client's names are its program's, and so not without number here.
func TestStatsOfManyNames(t *testing.T) {
	var srv yonder.Server
	c := (&yonder.Dialer{Measure: true}).Local(&srv)
	for i := range 1100 {
		c.Call(t.Context(), yonder.NewCall("no."+strings.Repeat("x", i)))
	}
	if s := c.Stats(); len(s.Calls) != 1001 || s.Calls["yonder.others"].Started != 100 {
		t.Errorf("%d names, %d others", len(s.Calls), s.Calls["yonder.others"].Started)
	}
}

func TestLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := yonder.Server{Measure: true}
		srv.Register("sleep", func(d time.Duration) { time.Sleep(d) })
		c := yonder.Local(&srv)
		for _, d := range []time.Duration{20 * time.Millisecond, 20 * time.Millisecond, 30 * time.Millisecond, time.Minute} {
			c.Call(t.Context(), yonder.NewCall("sleep", d))
		}
		h := srv.Stats().Calls["sleep"].Latency
		at := make(map[float64]uint64)
		for _, b := range h.Buckets {
			at[b.Seconds] = b.Count
		}
		if h.Count != 4 || h.Sum < 60.07 || h.Sum > 60.08 || at[0.01] != 0 || at[0.025] != 2 || at[0.05] != 3 || at[10] != 3 {
			t.Errorf("%v", h)
		}
		if q := h.Quantile(0.5); q < 0.02 || q > 0.025 {
			t.Errorf("median %v", q)
		}
		if q := h.Quantile(0.99); q != 10 {
			t.Errorf("p99 %v, beyond what is told apart", q)
		}
	})
	if q := (yonder.Histogram{}).Quantile(0.5); q != 0 {
		t.Errorf("of nothing: %v", q)
	}
}

func TestStatsJSON(t *testing.T) {
	srv := yonder.Server{Measure: true}
	srv.Register("fail", func() error { return errors.New("no") })
	yonder.Local(&srv).Call(t.Context(), yonder.NewCall("fail"))
	var back yonder.Stats
	text := expvar.Func(func() any { return srv.Stats() }).String()
	if err := json.Unmarshal([]byte(text), &back); err != nil || text != srv.Stats().String() {
		t.Fatal(err, text)
	}
	if diff := cmp.Diff(srv.Stats(), back); diff != "" || !strings.Contains(text, `"errors":{"unknown":1}`) {
		t.Error(diff, text)
	}
}

// Health is what the server and the program say, over every protocol.
func TestHealth(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		var mu sync.Mutex
		var reason error
		srv := yonder.Server{HideProcedures: true, Ready: func(ctx context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			return reason
		}}
		c := m.client(t, &srv)
		if err := c.Health(t.Context()); err != nil {
			t.Errorf("ready: %v", err)
		}
		for _, why := range []error{errors.New("the cache is cold"), yonder.Errorf(yonder.FailedPrecondition, "no leader")} {
			mu.Lock()
			reason = why
			mu.Unlock()
			want := yonder.Unavailable
			if yonder.CodeOf(why) != yonder.Unknown {
				want = yonder.CodeOf(why)
			}
			if err := c.Health(t.Context()); yonder.CodeOf(err) != want || !strings.Contains(textOf(err), why.Error()) {
				t.Errorf("%v: %v", why, err)
			}
		}
		mu.Lock()
		reason = nil
		mu.Unlock()
		if m == inProcess {
			srv.Shutdown(t.Context())
			if err := srv.Health(t.Context()); !errors.Is(err, yonder.ErrServerClosed) || yonder.CodeOf(err) != yonder.Unavailable {
				t.Errorf("shut down: %v", err)
			}
		}
	})
}
