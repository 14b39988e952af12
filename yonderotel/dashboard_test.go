package yonderotel_test

import (
	"crypto/rand"
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/yonderotel"
)

// The dashboard asks for what is exported, by the names and labels that it is exported with.
func TestDashboard(t *testing.T) {
	registry := prometheus.NewRegistry()
	exporter, err := otelprom.New(otelprom.WithRegisterer(registry))
	if err != nil {
		t.Fatal(err)
	}
	tel := &yonderotel.Config{MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter))}
	srv := &yonder.Server{Measure: true, Resume: &yonder.Resumption{Secret: rand.Text}, Interceptors: []yonder.Interceptor{tel.Server()}}
	srv.Register("fail", func() error { return yonder.Errorf(yonder.Aborted, "no") })
	stop, err := tel.Observe(srv)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	d := yonder.Dialer{Interceptors: []yonder.Interceptor{tel.Client()}}
	c, err := d.Dial(t.Context(), serve(t, srv))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Call(t.Context(), yonder.NewCall("fail"))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	labels := make(map[string][]string) // by metric
	for _, f := range families {
		names := []string{"job", "le"} // of the scraper's, and of buckets
		for _, l := range f.GetMetric()[0].GetLabel() {
			names = append(names, l.GetName())
		}
		for _, suffix := range []string{"", "_count", "_bucket"} {
			labels[f.GetName()+suffix] = names
		}
	}

	text, err := os.ReadFile("grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	metric := regexp.MustCompile(`\b(?:rpc|yonder)_[a-z_]*?_(?:seconds|server|total|open|flight|streams|suspended|bytes)[a-z_]*\{([^}]*)\}`)
	asked := make(map[string]bool)
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			found := metric.FindAllStringSubmatch(target.Expr, -1)
			if len(found) == 0 {
				t.Errorf("%s: no metric in %s", p.Title, target.Expr)
			}
			for _, m := range found {
				name, _, _ := strings.Cut(m[0], "{")
				have, ok := labels[name]
				if !ok {
					t.Errorf("%s: there is no metric %s", p.Title, name)
				}
				asked[name] = true
				for _, l := range regexp.MustCompile(`(\w+)(?:=|!)`).FindAllStringSubmatch(m[1], -1) {
					if !slices.Contains(have, l[1]) {
						t.Errorf("%s: %s has no label %s, only %q", p.Title, name, l[1], have)
					}
				}
			}
		}
	}
	for _, f := range families {
		if name := f.GetName(); name != "target_info" && !asked[name] && !asked[name+"_count"] {
			t.Errorf("the dashboard does not show %s", name)
		}
	}
}
