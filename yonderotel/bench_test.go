package yonderotel_test

import (
	"context"
	"testing"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/yonderotel"
)

// discard takes spans and forgets them: what is measured is making them, not sending them.
type discard struct{}

func (discard) OnStart(context.Context, sdktrace.ReadWriteSpan) {}
func (discard) OnEnd(sdktrace.ReadOnlySpan)                     {}
func (discard) Shutdown(context.Context) error                  { return nil }
func (discard) ForceFlush(context.Context) error                { return nil }

// BenchmarkCall is one caller over TCP, without telemetry and with more and more of it at both
// ends.
func BenchmarkCall(b *testing.B) { bench(b, false) }

// BenchmarkCallers is 256 callers on one connection.
func BenchmarkCallers(b *testing.B) { bench(b, true) }

func bench(b *testing.B, many bool) {
	metrics := sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader()))
	tracer := func(sampler sdktrace.Sampler) *sdktrace.TracerProvider {
		return sdktrace.NewTracerProvider(sdktrace.WithSampler(sampler), sdktrace.WithSpanProcessor(discard{}))
	}
	for _, tt := range []struct {
		name   string
		config *yonderotel.Config
	}{
		{"off", nil},
		{"metrics", &yonderotel.Config{MeterProvider: metrics, TracerProvider: tracenoop.NewTracerProvider()}},
		{"one in a hundred", &yonderotel.Config{MeterProvider: metrics, TracerProvider: tracer(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(0.01)))}},
		{"all traces", &yonderotel.Config{MeterProvider: noop.NewMeterProvider(), TracerProvider: tracer(sdktrace.AlwaysSample())}},
		{"all", &yonderotel.Config{MeterProvider: metrics, TracerProvider: tracer(sdktrace.AlwaysSample())}},
	} {
		b.Run(tt.name, func(b *testing.B) {
			var srv yonder.Server
			var d yonder.Dialer
			if tt.config != nil {
				srv.Interceptors = []yonder.Interceptor{tt.config.Server()}
				d.Interceptors = []yonder.Interceptor{tt.config.Client()}
			}
			yonder.Handle(&srv, "double", func(ctx context.Context, n int) (int, error) { return 2 * n, nil })
			c, err := d.Dial(b.Context(), serve(b, &srv))
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			double := yonder.Remote[int, int](c, "double")
			ctx := context.Background()
			b.ReportAllocs()
			if !many {
				for b.Loop() {
					if _, err := double(ctx, 1); err != nil {
						b.Fatal(err)
					}
				}
				return
			}
			b.SetParallelism(128)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := double(ctx, 1); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
