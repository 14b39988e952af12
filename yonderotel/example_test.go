package yonderotel_test

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/yonderotel"
)

// Both ends are traced. A program sends spans with an exporter such as otlptracegrpc instead of
// this one, which keeps them.
func Example() {
	kept := tracetest.NewInMemoryExporter()
	traces := sdktrace.NewTracerProvider(sdktrace.WithSyncer(kept))
	telemetry := &yonderotel.Config{TracerProvider: traces}

	srv := &yonder.Server{Interceptors: []yonder.Interceptor{telemetry.Server()}}
	srv.Register("greet", func(name string) string { return "hello, " + name })
	d := yonder.Dialer{Interceptors: []yonder.Interceptor{telemetry.Client()}}
	fmt.Println(yonder.Invoke[string](context.Background(), d.Local(srv), "greet", "ann"))

	for _, s := range kept.GetSpans() {
		fmt.Println(s.SpanKind, s.Name, s.Parent.IsValid())
	}
	// Output:
	// hello, ann <nil>
	// server greet true
	// client greet false
}

// Prometheus scrapes what the OpenTelemetry exporter for it has registered. The buckets of the
// conventions begin at 5 milliseconds; a view has some for calls that take less.
func ExampleConfig_prometheus() {
	registry := prometheus.NewRegistry()
	exporter, err := otelprom.New(otelprom.WithRegisterer(registry))
	if err != nil {
		log.Fatal(err)
	}
	buckets := sdkmetric.NewView(
		sdkmetric.Instrument{Name: "rpc.*.call.duration"},
		sdkmetric.Stream{Aggregation: sdkmetric.AggregationExplicitBucketHistogram{
			Boundaries: []float64{0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10},
		}},
	)
	metrics := sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter), sdkmetric.WithView(buckets))
	telemetry := &yonderotel.Config{MeterProvider: metrics}

	srv := &yonder.Server{Measure: true, Interceptors: []yonder.Interceptor{telemetry.Server()}}
	srv.Register("greet", func(name string) string { return "hello, " + name })
	stop, err := telemetry.Observe(srv)
	if err != nil {
		log.Fatal(err)
	}
	defer stop()
	d := yonder.Dialer{Interceptors: []yonder.Interceptor{telemetry.Client()}}
	yonder.Invoke[string](context.Background(), d.Local(srv), "greet", "ann")

	admin := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	defer admin.Close()
	resp, err := http.Get(admin.URL + "/metrics")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if line := lines.Text(); strings.Contains(line, "_duration_seconds_count") {
			name, _, _ := strings.Cut(line, "{")
			fmt.Println(name, line[len(line)-1:])
		}
	}
	// Output:
	// rpc_client_call_duration_seconds_count 1
	// rpc_server_call_duration_seconds_count 1
}
