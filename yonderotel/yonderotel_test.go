package yonderotel_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/jsonrpc"
	"github.com/yonder-rpc/yonder/net/rpc"
	"github.com/yonder-rpc/yonder/session"
	"github.com/yonder-rpc/yonder/yonderotel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// telemetry keeps what it is told.
type telemetry struct {
	yonderotel.Config
	spans  *tracetest.SpanRecorder
	reader *sdkmetric.ManualReader
}

func newTelemetry() *telemetry {
	t := &telemetry{spans: tracetest.NewSpanRecorder(), reader: sdkmetric.NewManualReader()}
	t.TracerProvider = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(t.spans))
	t.MeterProvider = sdkmetric.NewMeterProvider(sdkmetric.WithReader(t.reader))
	return t
}

// take waits for so many spans that have ended, and returns them as texts, in their order.
func (tel *telemetry) take(t *testing.T, n int) []string {
	t.Helper()
	until(t, fmt.Sprintf("%d spans have ended", n), func() bool { return len(tel.spans.Ended()) >= n })
	var lines []string
	for _, s := range tel.spans.Ended() {
		lines = append(lines, textOf(s))
	}
	tel.spans.Reset()
	if len(lines) != n {
		t.Errorf("%d spans, want %d: %q", len(lines), n, lines)
	}
	return lines
}

func textOf(s sdktrace.ReadOnlySpan) string {
	line := fmt.Sprintf("%v %s", s.SpanKind(), s.Name())
	for _, a := range s.Attributes() {
		if strings.HasPrefix(string(a.Key), "network.") || a.Key == "rpc.method" {
			continue
		}
		line += fmt.Sprintf(" %s=%s", a.Key, a.Value.String())
	}
	if s.Status().Code != codes.Unset {
		line += fmt.Sprintf(" %v: %s", s.Status().Code, s.Status().Description)
	}
	return line
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("it never happened: %s", what)
		}
	}
}

// ways are those to reach a server.
var ways = []struct {
	name, system string
	carries      bool // metadata
	streams      bool
	dial         func(ctx context.Context, d *yonder.Dialer, address string) (*yonder.Client, error)
}{
	{"yonder", "yonder", true, true, func(ctx context.Context, d *yonder.Dialer, address string) (*yonder.Client, error) {
		return d.Dial(ctx, address)
	}},
	{"jsonrpc", "jsonrpc", true, true, func(ctx context.Context, d *yonder.Dialer, address string) (*yonder.Client, error) {
		return (&jsonrpc.Dialer{Client: *d}).Dial(ctx, address)
	}},
	{"netrpc", "netrpc", true, false, func(ctx context.Context, d *yonder.Dialer, address string) (*yonder.Client, error) {
		over, err := new(rpc.Dialer).Transport(ctx, address)
		if err != nil {
			return nil, err
		}
		return d.NewClientOver(over), nil
	}},
	{"session", "session", false, false, func(ctx context.Context, d *yonder.Dialer, address string) (*yonder.Client, error) {
		return (&session.Dialer{Client: *d}).Dial(ctx, address)
	}},
	{"local", "yonder", true, true, nil},
}

// serve has srv listen until the test ends.
func serve(tb testing.TB, srv *yonder.Server) string {
	tb.Helper()
	srv.Protocols = []yonder.Protocol{rpc.Protocol, jsonrpc.Protocol, session.Protocol}
	srv.Logger = slog.New(slog.DiscardHandler)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }() // ends with Close
	tb.Cleanup(func() { srv.Close(); <-served })
	return l.Addr().String()
}

func each(t *testing.T, test func(t *testing.T, w int, tel *telemetry, srv *yonder.Server, client func() *yonder.Client)) {
	for i, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			tel := newTelemetry()
			srv := &yonder.Server{Interceptors: []yonder.Interceptor{tel.Server()}}
			test(t, i, tel, srv, func() *yonder.Client {
				d := &yonder.Dialer{Interceptors: []yonder.Interceptor{tel.Client()}}
				if w.dial == nil {
					return d.Local(srv)
				}
				c, err := w.dial(t.Context(), d, serve(t, srv))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Close() })
				return c
			})
		})
	}
}

// A call is two spans, the server's a child of the client's, and what the handler calls a child of
// that: over every protocol that carries metadata.
func TestSpans(t *testing.T) {
	each(t, func(t *testing.T, w int, tel *telemetry, srv *yonder.Server, client func() *yonder.Client) {
		srv.Register("inner", func(ctx context.Context) error {
			info, _ := yonder.InfoFrom(ctx)
			if info.Metadata["own"] != "" {
				return errors.New("metadata was passed on")
			}
			return nil
		})
		var c *yonder.Client
		srv.Register("outer", func(ctx context.Context) error { return c.Call(ctx, yonder.NewCall("inner")) })
		c = client()
		ctx := yonder.WithMetadata(t.Context(), "own", "s3cret")
		if !ways[w].carries { // each end has a trace of its own; and answers come in order, so the handler cannot call
			if err := c.Call(ctx, yonder.NewCall("inner")); err != nil {
				t.Fatal(err)
			}
			tel.take(t, 2)
			return
		}
		if err := c.Call(ctx, yonder.NewCall("outer")); err != nil {
			t.Fatal(err)
		}
		until(t, "the spans have ended", func() bool { return len(tel.spans.Ended()) == 4 })
		spans := tel.spans.Ended()
		var chain []string
		for parent := (trace.SpanID{}); len(chain) < 4; {
			i := slices.IndexFunc(spans, func(s sdktrace.ReadOnlySpan) bool {
				return s.Parent().SpanID() == parent && !slices.Contains(chain, textOf(s))
			})
			if i < 0 {
				break
			}
			chain = append(chain, textOf(spans[i]))
			parent = spans[i].SpanContext().SpanID()
			if strings.Contains(fmt.Sprint(spans[i].Attributes()), "s3cret") {
				t.Error("metadata is in a span")
			}
			if spans[i].SpanContext().TraceID() != spans[0].SpanContext().TraceID() {
				t.Error("another trace")
			}
		}
		system := ways[w].system
		want := []string{
			"client outer rpc.system.name=yonder rpc.response.status_code=ok",
			"server outer rpc.system.name=" + system + " rpc.response.status_code=ok",
			"client inner rpc.system.name=yonder rpc.response.status_code=ok",
			"server inner rpc.system.name=" + system + " rpc.response.status_code=ok",
		}
		if diff := cmp.Diff(want, chain); diff != "" {
			t.Error(diff)
		}
	})
}

// Errors have their code, and are the server's fault or not.
func TestErrors(t *testing.T) {
	each(t, func(t *testing.T, w int, tel *telemetry, srv *yonder.Server, client func() *yonder.Client) {
		srv.Register("fail", func(how int) error {
			switch how {
			case 1:
				return yonder.Errorf(yonder.NotFound, "nothing")
			case 2:
				return errors.New("anything")
			}
			panic("boom")
		})
		srv.Logger = slog.New(slog.DiscardHandler)
		c := client()
		system := ways[w].system
		for how, want := range map[int][2]string{
			1: {"client fail rpc.system.name=yonder rpc.response.status_code=not_found error.type=not_found Error: ", "server fail rpc.system.name=" + system + " rpc.response.status_code=not_found error.type=not_found"},
			2: {"client fail rpc.system.name=yonder rpc.response.status_code=unknown error.type=unknown Error: ", "server fail rpc.system.name=" + system + " rpc.response.status_code=unknown error.type=unknown Error: anything"},
			3: {"client fail rpc.system.name=yonder rpc.response.status_code=internal error.type=internal Error: ", "server fail rpc.system.name=" + system + " rpc.response.status_code=internal error.type=internal Error: \"fail\" panicked"},
		} {
			if err := c.Call(t.Context(), yonder.NewCall("fail", how)); err == nil {
				t.Fatal("no error")
			}
			lines := tel.take(t, 2)
			slices.Sort(lines)
			if !strings.HasPrefix(lines[0], want[0]) || lines[1] != want[1] {
				t.Errorf("%q\nwant %q", lines, want)
			}
		}
		c.Call(t.Context(), yonder.NewCall("no.such"))
		if lines := tel.take(t, 1); !strings.HasPrefix(lines[0], "client no.such rpc.system.name=yonder rpc.response.status_code=unimplemented") {
			t.Errorf("%q", lines)
		}
	})
}

// A span lasts as long as the call's streams.
func TestStreams(t *testing.T) {
	each(t, func(t *testing.T, w int, tel *telemetry, srv *yonder.Server, client func() *yonder.Client) {
		if !ways[w].streams {
			t.Skip("a reply is one value")
		}
		srv.Register("count", func(n int) iter.Seq2[int, error] {
			return func(yield func(int, error) bool) {
				for i := range n {
					if !yield(i, nil) {
						return
					}
				}
				yield(0, yonder.Errorf(yonder.DataLoss, "lost"))
			}
		})
		c := client()
		for _, leave := range []bool{false, true} {
			seq, err := yonder.Invoke[iter.Seq2[int, error]](t.Context(), c, "count", 300_000)
			if err != nil {
				t.Fatal(err)
			}
			if n := len(tel.spans.Ended()); n != 0 {
				t.Errorf("%d spans have ended before the stream", n)
			}
			for range seq {
				if leave {
					break
				}
			}
			for _, line := range tel.take(t, 2) {
				if leave != strings.Contains(line, "status_code=ok") || leave == strings.Contains(line, "error.type=data_loss Error: ") {
					t.Errorf("left %v: %s", leave, line)
				}
			}
		}
	})
}

// What a stranger says of its trace decides nothing, if that is wanted, and is nothing if it is
// not in order.
func TestStrangers(t *testing.T) {
	const theirs = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for _, tt := range []struct {
		public bool
		parent string
		child  bool
		links  int
	}{
		{false, theirs, true, 0},
		{true, theirs, false, 1},
		{false, "00-" + strings.Repeat("f", 1<<10), false, 0},
		{false, "", false, 0},
	} {
		tel := newTelemetry()
		tel.Public = tt.public
		srv := &yonder.Server{Interceptors: []yonder.Interceptor{tel.Server()}}
		srv.Register("one", func() int { return 1 })
		ctx := yonder.WithMetadata(t.Context(), "traceparent", tt.parent)
		if n, err := yonder.Invoke[int](ctx, yonder.Local(srv), "one"); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		s := tel.spans.Ended()[0]
		if child := s.Parent().IsValid(); child != tt.child || len(s.Links()) != tt.links {
			t.Errorf("%+v: child %v, links %v", tt, child, s.Links())
		}
	}
}

// metrics returns what has been measured: the number of each histogram's values and the value of
// the others, by name and attributes.
func (tel *telemetry) metrics(t *testing.T) map[string]int64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := tel.reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	got := make(map[string]int64)
	put := func(name string, set attribute.Set, n int64) {
		got[name+"{"+set.Encoded(attribute.DefaultEncoder())+"}"] = n
	}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch data := m.Data.(type) {
			case metricdata.Histogram[float64]:
				for _, p := range data.DataPoints {
					put(m.Name, p.Attributes, int64(p.Count))
					if m.Unit != "s" || p.Sum <= 0 || p.Sum > 100 {
						t.Errorf("%s: %v %s", m.Name, p.Sum, m.Unit)
					}
				}
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					put(m.Name, p.Attributes, p.Value)
				}
			default:
				t.Errorf("%s: %T", m.Name, m.Data)
			}
		}
	}
	return got
}

// Calls are measured by the conventions' names, and connections beside them.
func TestMetrics(t *testing.T) {
	each(t, func(t *testing.T, w int, tel *telemetry, srv *yonder.Server, client func() *yonder.Client) {
		srv.Measure = true
		stop, err := tel.Observe(srv)
		if err != nil {
			t.Fatal(err)
		}
		tel.Address = "db.example:5432"
		srv.Register("fail", func(n int) error {
			if n > 1 {
				return yonder.Errorf(yonder.Aborted, "no")
			}
			return nil
		})
		c := client()
		for i := range 5 {
			c.Call(t.Context(), yonder.NewCall("fail", i))
		}
		c.Call(t.Context(), yonder.NewCall("no.such"))
		got := tel.metrics(t)
		system, address := ways[w].system, "server.address=db.example,server.port=5432"
		want := map[string]int64{
			"rpc.client.call.duration{rpc.method=fail,rpc.response.status_code=ok,rpc.system.name=yonder," + address + "}":                                        2,
			"rpc.client.call.duration{error.type=aborted,rpc.method=fail,rpc.response.status_code=aborted,rpc.system.name=yonder," + address + "}":                3,
			"rpc.client.call.duration{error.type=unimplemented,rpc.method=no.such,rpc.response.status_code=unimplemented,rpc.system.name=yonder," + address + "}": 1,
			"rpc.server.call.duration{rpc.method=fail,rpc.response.status_code=ok,rpc.system.name=" + system + "}":                                                2,
			"rpc.server.call.duration{error.type=aborted,rpc.method=fail,rpc.response.status_code=aborted,rpc.system.name=" + system + "}":                        3,
			"yonder.server.call.in_flight{rpc.method=fail}":             0,
			"yonder.server.call.in_flight{rpc.method=yonder.callbacks}": 0,
			"yonder.server.call.streams{rpc.method=fail}":               0,
			"yonder.server.call.streams{rpc.method=yonder.callbacks}":   0,
			"yonder.server.call.unknown{}":                              1,
			"yonder.server.connection.refused{}":                        0,
		}
		if ways[w].dial != nil {
			protocol := "{network.protocol.name=" + system + "}"
			want["yonder.server.connection.open"+protocol] = 1
			want["yonder.server.connection.accepted"+protocol] = 1
			for _, direction := range []string{"receive", "transmit"} {
				name := "yonder.server.connection.io{network.io.direction=" + direction + ",network.protocol.name=" + system + "}"
				if got[name] < 50 {
					t.Errorf("%s: %d", name, got[name])
				}
				delete(got, name)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if n := len(tel.metrics(t)); n != 5 {
			t.Errorf("%d metrics after stop", n)
		}
	})
}

// Connections that may be resumed are told of where there can be some.
func TestMetricsOfResumption(t *testing.T) {
	tel := newTelemetry()
	srv := &yonder.Server{Resume: &yonder.Resumption{Secret: rand.Text}}
	srv.Register("one", func() int { return 1 })
	stop, err := tel.Observe(srv)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	d := yonder.Dialer{Resume: time.Minute}
	c, err := d.Dial(t.Context(), serve(t, srv))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := yonder.Invoke[int](t.Context(), c, "one"); err != nil {
		t.Fatal(err)
	}
	got := make(map[string]int64)
	for name, n := range tel.metrics(t) {
		if after, ok := strings.CutPrefix(name, "yonder.server.resumption."); ok {
			got[after] = n
		}
	}
	if got["kept{}"] <= 0 {
		t.Errorf("%d bytes are kept", got["kept{}"])
	}
	delete(got, "kept{}")
	want := map[string]int64{
		"open{}": 1, "suspended{}": 0, "resumed{}": 0,
		"failed{error.type=expired}": 0, "failed{error.type=evicted}": 0, "failed{error.type=refused}": 0,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Nothing is configured, and nothing happens.
func TestNoProviders(t *testing.T) {
	var c yonderotel.Config
	srv := &yonder.Server{Interceptors: []yonder.Interceptor{c.Server()}}
	srv.Register("who", func(ctx context.Context) int {
		info, _ := yonder.InfoFrom(ctx)
		return len(info.Metadata)
	})
	d := yonder.Dialer{Interceptors: []yonder.Interceptor{c.Client()}}
	if n, err := yonder.Invoke[int](t.Context(), d.Local(srv), "who"); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}
