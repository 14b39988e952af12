// Package yonderotel traces and measures calls with OpenTelemetry: interceptors for either end,
// and what a server knows of its connections. It is a module of its own, so that programs without
// it do not carry it.
//
//	var telemetry yonderotel.Config // of the global providers
//	srv.Interceptors = []yonder.Interceptor{telemetry.Server()}
//	d := yonder.Dialer{Interceptors: []yonder.Interceptor{telemetry.Client()}}
//
// # Spans
//
// A call is a span of kind client at its caller and one of kind server at its callee, named as the
// procedure is. A call with streams or readers among its results lasts until the last of them has
// ended, with the error that ended it. The context of a trace goes with a call as metadata,
// "traceparent" and "tracestate", as W3C Trace Context has them in HTTP; where a protocol carries
// no metadata, as the session protocol does not and clients of the standard net/rpc do not, the
// server begins a trace of its own. Metadata beside them, arguments and results are in no span.
// The text of errors is: they must have no secrets.
//
// # Metrics
//
// rpc.client.call.duration and rpc.server.call.duration are histograms, in seconds, of the same
// time. Their attributes, and those of the spans, are those of the semantic conventions for RPC,
// 1.43:
//
//	rpc.system.name           the protocol, such as "yonder" or "jsonrpc"; what a client has is [Config.System]
//	rpc.method                the procedure
//	rpc.response.status_code  the code, as [yonder.Code] names it: "ok", "not_found"
//	error.type                the same, of calls that failed
//	server.address, server.port, network.peer.address
//
// [Config.Observe] adds what [yonder.Server.Stats] has: connections, bytes, and calls in flight.
package yonderotel

import (
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/semconv/v1.43.0/rpcconv"
	"go.opentelemetry.io/otel/trace"

	"github.com/yonder-rpc/yonder"
)

// scope is what this package is called in telemetry.
const scope = "github.com/yonder-rpc/yonder/yonderotel"

// A Config says where telemetry goes. Its zero value is ready to use. It must not be changed once
// it is used.
type Config struct {
	// TracerProvider makes spans. Nil: the global one, otel.GetTracerProvider().
	TracerProvider trace.TracerProvider
	// MeterProvider takes metrics. Nil: the global one, otel.GetMeterProvider().
	MeterProvider metric.MeterProvider
	// Propagator writes and reads what of a trace is in the metadata. Nil: W3C Trace Context,
	// without baggage, which whoever is called would read.
	Propagator propagation.TextMapPropagator
	// Public says that a server's callers are strangers: a call begins a trace of its own, which
	// has a link to theirs. Theirs would say what is sampled.
	Public bool
	// System is what a client has for rpc.system.name. Empty: "yonder".
	System string
	// Address is what a client dials, host:port or a path, for server.address and server.port.
	// Empty: they are left out.
	Address string
}

func (c *Config) tracer() trace.Tracer {
	p := c.TracerProvider
	if p == nil {
		p = otel.GetTracerProvider()
	}
	return p.Tracer(scope, trace.WithSchemaURL(semconv.SchemaURL))
}

func (c *Config) meter() metric.Meter {
	p := c.MeterProvider
	if p == nil {
		p = otel.GetMeterProvider()
	}
	return p.Meter(scope, metric.WithSchemaURL(semconv.SchemaURL))
}

func (c *Config) propagator() propagation.TextMapPropagator {
	if c.Propagator == nil {
		return propagation.TraceContext{}
	}
	return c.Propagator
}

// histogram is where durations go.
type histogram interface {
	RecordSet(ctx context.Context, seconds float64, set attribute.Set)
}

// side is what one end's interceptor has.
type side struct {
	tracer   trace.Tracer
	duration histogram
	kind     trace.SpanKind
	common   []attribute.KeyValue // of the client
	known    sync.Map             // from key to *procedure
	kept     atomic.Int32         // of them
}

type key struct{ system, name string }

// procedure is what telemetry says of all calls of one.
type procedure struct {
	name    string
	attrs   []attribute.KeyValue
	options []trace.SpanStartOption
	sets    [yonder.Unauthenticated + 1]atomic.Pointer[attribute.Set] // by code
}

// maxKept is how many procedures are remembered. A client may be made to call anything.
const maxKept = 10_000

func (s *side) procedure(system, name string) *procedure {
	k := key{system, name}
	if p, ok := s.known.Load(k); ok {
		return p.(*procedure)
	}
	p := &procedure{name: name}
	p.attrs = append([]attribute.KeyValue{semconv.RPCSystemNameKey.String(system), semconv.RPCMethod(name)}, s.common...)
	p.options = []trace.SpanStartOption{trace.WithSpanKind(s.kind), trace.WithAttributes(p.attrs...)}
	if s.kept.Add(1) <= maxKept {
		s.known.Store(k, p)
	}
	return p
}

// set returns the attributes of a call that has ended.
func (p *procedure) set(code yonder.Code) attribute.Set {
	if int(code) < len(p.sets) {
		if set := p.sets[code].Load(); set != nil {
			return *set
		}
	}
	set := attribute.NewSet(append(slices.Clone(p.attrs), ended(code)...)...)
	if int(code) < len(p.sets) {
		p.sets[code].Store(&set)
	}
	return set
}

// ended returns those that it has at its end.
func ended(code yonder.Code) []attribute.KeyValue {
	attrs := []attribute.KeyValue{semconv.RPCResponseStatusCode(code.String())}
	if code != 0 {
		attrs = append(attrs, semconv.ErrorTypeKey.String(code.String()))
	}
	return attrs
}

// call is one call within its span. It must not refer to the yonder.Call: see its OnEnd.
type call struct {
	side      *side
	procedure *procedure
	ctx       context.Context // with the span, for exemplars
	span      trace.Span
	began     time.Time
}

// over ends the call.
func (c *call) over(err error) {
	code := yonder.CodeOf(err)
	c.side.duration.RecordSet(c.ctx, time.Since(c.began).Seconds(), c.procedure.set(code))
	if c.span.IsRecording() {
		c.span.SetAttributes(ended(code)...)
		if err != nil && (c.side.kind == trace.SpanKindClient || faults(code)) {
			c.span.SetStatus(codes.Error, text(err))
		}
	}
	c.span.End()
}

// maxText is how much of an error's text is in a span, in bytes.
const maxText = 1000

func text(err error) string {
	t := err.Error()
	if len(t) > maxText {
		t = strings.ToValidUTF8(t[:maxText], "") + "..."
	}
	return t
}

// faults reports whether a code says that the server failed, rather than its caller.
func faults(code yonder.Code) bool {
	switch code {
	case yonder.Unknown, yonder.DeadlineExceeded, yonder.Unimplemented, yonder.Internal, yonder.Unavailable, yonder.DataLoss:
		return true
	}
	return false
}

// run does a call within its span.
func (c *call) run(next yonder.Handler, do *yonder.Call) error {
	returned := false
	defer func() {
		if !returned { // a panic, or runtime.Goexit
			c.over(yonder.Errorf(yonder.Internal, "%q panicked", c.procedure.name))
		}
	}()
	err := next(c.ctx, do)
	returned = true
	if err != nil {
		c.over(err)
	} else {
		do.OnEnd(c.over)
	}
	return err
}

// Client returns an interceptor for [yonder.Dialer.Interceptors]. After one that tries again, each
// attempt is a span; before it, all of them are one.
func (c *Config) Client() yonder.Interceptor {
	duration, err := rpcconv.NewClientCallDuration(c.meter())
	if err != nil {
		otel.Handle(err)
	}
	s := &side{tracer: c.tracer(), duration: duration, kind: trace.SpanKindClient}
	propagator, system := c.propagator(), c.System
	if system == "" {
		system = "yonder"
	}
	if host, port, err := net.SplitHostPort(c.Address); err == nil {
		s.common = append(s.common, semconv.ServerAddress(host))
		if n, err := net.LookupPort("tcp", port); err == nil {
			s.common = append(s.common, semconv.ServerPort(n))
		}
	} else if c.Address != "" {
		s.common = append(s.common, semconv.ServerAddress(c.Address))
	}
	return func(next yonder.Handler) yonder.Handler {
		return func(ctx context.Context, do *yonder.Call) error {
			one := call{side: s, procedure: s.procedure(system, do.Procedure), began: time.Now()}
			one.ctx, one.span = s.tracer.Start(ctx, do.Procedure, one.procedure.options...)
			if one.span.SpanContext().IsValid() || c.Propagator != nil {
				carried := make(yonder.Metadata, len(do.Metadata)+2)
				maps.Copy(carried, do.Metadata)
				propagator.Inject(one.ctx, propagation.MapCarrier(carried))
				do.Metadata = carried
			}
			return one.run(next, do)
		}
	}
}

// Server returns an interceptor for [yonder.Server.Interceptors]. As the first one it sees what
// others refuse, too.
func (c *Config) Server() yonder.Interceptor {
	duration, err := rpcconv.NewServerCallDuration(c.meter())
	if err != nil {
		otel.Handle(err)
	}
	s := &side{tracer: c.tracer(), duration: duration, kind: trace.SpanKindServer}
	propagator := c.propagator()
	return func(next yonder.Handler) yonder.Handler {
		return func(ctx context.Context, do *yonder.Call) error {
			info := do.Info()
			system := info.Protocol
			if system == "local" {
				system = "yonder"
			}
			one := call{side: s, procedure: s.procedure(system, do.Procedure), began: time.Now()}
			options := one.procedure.options
			if len(info.Metadata) > 0 {
				ctx = propagator.Extract(ctx, propagation.MapCarrier(info.Metadata))
			}
			if c.Public {
				options = append(slices.Clip(options), trace.WithNewRoot())
				if theirs := trace.SpanContextFromContext(ctx); theirs.IsValid() {
					options = append(options, trace.WithLinks(trace.Link{SpanContext: theirs}))
				}
			}
			one.ctx, one.span = s.tracer.Start(ctx, do.Procedure, options...)
			if one.span.IsRecording() {
				if conn, ok := info.Conn.(net.Conn); ok && conn.RemoteAddr() != nil {
					one.span.SetAttributes(peer(conn.RemoteAddr())...)
				}
			}
			return one.run(next, do)
		}
	}
}

// peer returns the attributes of the other end's address.
func peer(addr net.Addr) []attribute.KeyValue {
	if tcp, ok := addr.(*net.TCPAddr); ok {
		return []attribute.KeyValue{semconv.NetworkPeerAddress(tcp.IP.String()), semconv.NetworkPeerPort(tcp.Port)}
	}
	if text := addr.String(); text != "" {
		return []attribute.KeyValue{semconv.NetworkPeerAddress(text)}
	}
	return nil
}

// Observe has metrics tell what srv.Stats knows, until stop is called:
//
//	yonder.server.connection.open      open connections, by network.protocol.name
//	yonder.server.connection.accepted  all that there have been, likewise
//	yonder.server.connection.io        bytes, by network.protocol.name and network.io.direction
//	yonder.server.connection.refused   connections that spoke no protocol of the server's
//	yonder.server.call.in_flight       by rpc.method, if [yonder.Server.Measure] is set
//	yonder.server.call.streams         open streams and readers, likewise
//	yonder.server.call.unknown         calls of procedures that there are not, likewise
//
// and, if [yonder.Server.Resume] is set,
//
//	yonder.server.resumption.open       connections that may be resumed
//	yonder.server.resumption.suspended  those that are lost just now
//	yonder.server.resumption.kept       bytes held for the other ends
//	yonder.server.resumption.resumed    how often one has gone on
//	yonder.server.resumption.failed     those that were given up, and attempts that were refused: by
//	                                    error.type expired, evicted and refused
func (c *Config) Observe(srv *yonder.Server) (stop func() error, err error) {
	m := c.meter()
	open, err0 := m.Int64ObservableUpDownCounter("yonder.server.connection.open",
		metric.WithUnit("{connection}"), metric.WithDescription("Open connections."))
	total, err1 := m.Int64ObservableCounter("yonder.server.connection.accepted",
		metric.WithUnit("{connection}"), metric.WithDescription("Connections that there have been."))
	io, err2 := m.Int64ObservableCounter("yonder.server.connection.io",
		metric.WithUnit("By"), metric.WithDescription("Bytes that connections have carried."))
	inFlight, err3 := m.Int64ObservableUpDownCounter("yonder.server.call.in_flight",
		metric.WithUnit("{call}"), metric.WithDescription("Calls in flight."))
	streams, err4 := m.Int64ObservableUpDownCounter("yonder.server.call.streams",
		metric.WithUnit("{stream}"), metric.WithDescription("Streams and readers of calls in flight."))
	refused, err5 := m.Int64ObservableCounter("yonder.server.connection.refused",
		metric.WithUnit("{connection}"), metric.WithDescription("Connections that spoke no protocol of the server's."))
	unknown, err6 := m.Int64ObservableCounter("yonder.server.call.unknown",
		metric.WithUnit("{call}"), metric.WithDescription("Calls of procedures that there are not."))
	resumable, err7 := m.Int64ObservableUpDownCounter("yonder.server.resumption.open",
		metric.WithUnit("{connection}"), metric.WithDescription("Connections that may be resumed."))
	suspended, err8 := m.Int64ObservableUpDownCounter("yonder.server.resumption.suspended",
		metric.WithUnit("{connection}"), metric.WithDescription("Connections that are lost and may be resumed."))
	kept, err9 := m.Int64ObservableUpDownCounter("yonder.server.resumption.kept",
		metric.WithUnit("By"), metric.WithDescription("Bytes held for the other ends of connections that may be resumed."))
	resumed, err10 := m.Int64ObservableCounter("yonder.server.resumption.resumed",
		metric.WithUnit("{resumption}"), metric.WithDescription("How often a connection has gone on."))
	failed, err11 := m.Int64ObservableCounter("yonder.server.resumption.failed",
		metric.WithUnit("{resumption}"), metric.WithDescription("Connections that were given up, and attempts to resume one that were refused."))
	if err := errors.Join(err0, err1, err2, err3, err4, err5, err6, err7, err8, err9, err10, err11); err != nil {
		return nil, err
	}
	r, err := m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		stats := srv.Stats()
		for protocol, of := range stats.Connections {
			name := semconv.NetworkProtocolName(protocol)
			o.ObserveInt64(open, of.Open, metric.WithAttributes(name))
			o.ObserveInt64(total, int64(of.Total), metric.WithAttributes(name))
			o.ObserveInt64(io, int64(of.BytesRead), metric.WithAttributes(name, semconv.NetworkIODirectionReceive))
			o.ObserveInt64(io, int64(of.BytesWritten), metric.WithAttributes(name, semconv.NetworkIODirectionTransmit))
		}
		o.ObserveInt64(refused, int64(stats.Refused))
		if of := stats.Resumption; srv.Resume != nil {
			o.ObserveInt64(resumable, of.Open)
			o.ObserveInt64(suspended, of.Suspended)
			o.ObserveInt64(kept, of.KeptBytes)
			o.ObserveInt64(resumed, int64(of.Resumed))
			o.ObserveInt64(failed, int64(of.Expired), metric.WithAttributes(semconv.ErrorTypeKey.String("expired")))
			o.ObserveInt64(failed, int64(of.Evicted), metric.WithAttributes(semconv.ErrorTypeKey.String("evicted")))
			o.ObserveInt64(failed, int64(of.Refused), metric.WithAttributes(semconv.ErrorTypeKey.String("refused")))
		}
		for procedure, of := range stats.Calls {
			if procedure == "yonder.unknown" {
				o.ObserveInt64(unknown, int64(of.Finished))
				continue
			}
			method := metric.WithAttributes(semconv.RPCMethod(procedure))
			o.ObserveInt64(inFlight, int64(of.InFlight), method)
			o.ObserveInt64(streams, of.Streams, method)
		}
		return nil
	}, open, total, io, inFlight, streams, refused, unknown, resumable, suspended, kept, resumed, failed)
	if err != nil {
		return nil, err
	}
	return r.Unregister, nil
}
