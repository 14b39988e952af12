//go:build linux

package main

import (
	"cmp"
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
)

// A plot is an SVG file beside the report. It has a light and a dark face, by what its
// reader prefers.
type plot struct {
	file, title string
	svg         string
}

// plots draws what has been measured.
func (r *report) plots() (all []plot) {
	for _, p := range []plot{r.throughputPlot(), r.latencyPlot(), r.cpuPlot(), r.overloadPlot()} {
		if p.svg != "" {
			all = append(all, p)
		}
	}
	return all
}

// The measures of a plot, in pixels.
const (
	plotWidth  = 900
	plotLeft   = 72
	plotTop    = 64
	plotBottom = 48
	labelRoom  = 215 // at the right of lines
	rowHeight  = 30  // of bars
	lineHeight = 15  // between labels
)

// A drawing is an SVG in the making.
type drawing struct {
	strings.Builder
	width, height int
}

const plotStyle = `
  .back { fill: #ffffff; stroke: #d0d7de }
  .title { fill: #1f2328; font-size: 17px; font-weight: 600 }
  .note, .tick { fill: #59636e; font-size: 12px }
  .name { fill: #1f2328; font-size: 13px }
  .grid { stroke: #d8dee4; stroke-width: 1 }
  .line { fill: none; stroke-width: 1.8 }
  .ours { stroke-width: 3.2 }
  .limit { stroke-dasharray: 6 4 }
  .bold { font-weight: 700 }
  .light { opacity: 0.55 }
`

// palette has each series' colour, in light and in dark. Yonder's are first.
var palette = [][2]string{
	{"#0969da", "#58a6ff"}, {"#8250df", "#bc8cff"}, {"#4f46e5", "#a5b4fc"}, // yonder
	{"#6e7781", "#8b949e"}, {"#424a53", "#afb8c1"}, // limits
	{"#bc4c00", "#f0883e"}, {"#1a7f37", "#3fb950"}, {"#cf222e", "#ff7b72"}, {"#9a6700", "#d29922"},
	{"#0e7490", "#39c5cf"}, {"#bf3989", "#f778ba"}, {"#4d7c0f", "#a3c940"}, {"#7d4e3b", "#c69c8b"}, {"#57606a", "#9da7b1"},
}

func newDrawing(height int, title, note string) *drawing {
	d := &drawing{width: plotWidth, height: height}
	fmt.Fprintf(d, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img" aria-label="%s" font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif">`+"\n<style>", d.width, d.height, d.width, d.height, html.EscapeString(title))
	d.WriteString(plotStyle)
	for i, c := range palette {
		fmt.Fprintf(d, "  .s%d { stroke: %s } .f%d { fill: %s }\n", i, c[0], i, c[0])
	}
	d.WriteString("  @media (prefers-color-scheme: dark) {\n    .back { fill: #0d1117; stroke: #30363d }\n    .title, .name { fill: #e6edf3 }\n    .note, .tick { fill: #9198a1 }\n    .grid { stroke: #30363d }\n")
	for i, c := range palette {
		fmt.Fprintf(d, "    .s%d { stroke: %s } .f%d { fill: %s }\n", i, c[1], i, c[1])
	}
	d.WriteString("  }\n</style>\n")
	fmt.Fprintf(d, `<rect class="back" x="0.5" y="0.5" width="%d" height="%d" rx="6"/>`+"\n", d.width-1, d.height-1)
	d.text(20, 28, "title", "start", title)
	d.text(20, 47, "note", "start", note)
	return d
}

func (d *drawing) text(x, y float64, class, anchor, text string) {
	fmt.Fprintf(d, `<text class="%s" x="%.1f" y="%.1f" text-anchor="%s">%s</text>`+"\n", class, x, y, anchor, html.EscapeString(text))
}

func (d *drawing) line(class string, x1, y1, x2, y2 float64) {
	fmt.Fprintf(d, `<line class="%s" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`+"\n", class, x1, y1, x2, y2)
}

func (d *drawing) done() string {
	d.WriteString("</svg>\n")
	return d.String()
}

// A series is an entrant's points.
type series struct {
	name   string
	note   string // behind the name; empty: the last point's y
	colour int
	points []point
}

type point struct{ x, y float64 }

// isOurs and isLimit tell yonder's and the raw entrants.
func isOurs(name string) bool  { return strings.HasPrefix(name, "yonder") }
func isLimit(name string) bool { return strings.HasPrefix(name, "raw") }

// inPlots tells which entrants are drawn: the main ones, each once.
func inPlots(name string) bool {
	return !slices.Contains([]string{"yonder-timeout", "grpc-tuned", "net/rpc drop-in", "net/rpc to yonder", "local-bound", "local-generic"}, name)
}

// colours gives each entrant that is drawn a colour, the same in every plot.
func (r *report) colours() map[string]int {
	all := map[string]int{"yonder-generic": 0, "yonder-gate": 0, "yonder-bound": 1, "yonder-jsonrpc": 2, "raw": 3, "raw-mux": 4}
	const own = 5
	next := own
	for _, e := range r.Entrants {
		if _, ok := all[e.Name]; !ok && inPlots(e.Name) {
			all[e.Name] = own + (next-own)%(len(palette)-own)
			next++
		}
	}
	return all
}

// seriesOf returns, for each entrant that is drawn, what y makes of its samples of the
// workloads, which are at the places x.
func (r *report) seriesOf(workloads []string, x []float64, y metric) (all []series) {
	colours := r.colours()
	for _, e := range r.Entrants {
		s := series{name: e.Name, colour: colours[e.Name]}
		for i, w := range workloads {
			if v, ok := figure(r.samples(w, e.Name), y); ok && v > 0 && inPlots(e.Name) {
				s.points = append(s.points, point{x[i], v})
			}
		}
		if len(s.points) > 0 {
			all = append(all, s)
		}
	}
	return all
}

// lines draws series over a logarithmic y; x are places from 0 to 1 with a text each.
func lines(title, note string, all []series, x []float64, xTexts []string, format func(float64) string) string {
	low, high := extent(all)
	low, high = low/1.15, high*1.15
	place := func(y float64) float64 { return math.Log(y/low) / math.Log(high/low) }
	return curves(title, note, all, x, xTexts, format, place, ticks(low, high))
}

// linear is lines over a y that begins at 0 and goes to 1 at least.
func linear(title, note string, all []series, x []float64, xTexts []string, format func(float64) string) string {
	_, high := extent(all)
	high = max(high, 1) * 1.1
	return curves(title, note, all, x, xTexts, format, func(y float64) float64 { return y / high }, []float64{0, 0.2, 0.4, 0.6, 0.8, 1})
}

// extent returns the lowest and the highest y.
func extent(all []series) (low, high float64) {
	low = math.Inf(1)
	for _, s := range all {
		for _, p := range s.points {
			low, high = min(low, p.y), max(high, p.y)
		}
	}
	return low, high
}

// curves draws series; place says where a y is, from 0 to 1.
func curves(title, note string, all []series, x []float64, xTexts []string, format func(float64) string, place func(y float64) float64, ticks []float64) string {
	if len(all) == 0 {
		return ""
	}
	const height = 480
	d := newDrawing(height, title, note)
	right := float64(plotWidth - labelRoom)
	bottom := float64(height - plotBottom)
	px := func(x float64) float64 { return plotLeft + 12 + x*(right-plotLeft-24) }
	py := func(y float64) float64 {
		return bottom - place(y)*(bottom-plotTop)
	}
	for _, v := range ticks {
		d.line("grid", plotLeft, py(v), right, py(v))
		d.text(plotLeft-8, py(v)+4, "tick", "end", format(v))
	}
	for i, text := range xTexts {
		d.text(px(x[i]), bottom+20, "tick", "middle", text)
	}
	// Yonder last, on top.
	slices.SortStableFunc(all, func(a, b series) int { return cmp.Compare(btoi(isOurs(a.name)), btoi(isOurs(b.name))) })
	for _, s := range all {
		class := fmt.Sprintf("line s%d", s.colour)
		switch {
		case isOurs(s.name):
			class += " ours"
		case isLimit(s.name):
			class += " limit"
		}
		var path []string
		for _, p := range s.points {
			path = append(path, fmt.Sprintf("%.1f,%.1f", px(p.x), py(p.y)))
			fmt.Fprintf(d, `<circle class="f%d" cx="%.1f" cy="%.1f" r="3"/>`+"\n", s.colour, px(p.x), py(p.y))
		}
		fmt.Fprintf(d, `<polyline class="%s" points="%s"/>`+"\n", class, strings.Join(path, " "))
	}
	// Names stand at the right, from top to bottom, not on one another.
	last := func(s series) point { return s.points[len(s.points)-1] }
	slices.SortStableFunc(all, func(a, b series) int { return cmp.Compare(py(last(a).y), py(last(b).y)) })
	at := make([]float64, len(all))
	for i, s := range all {
		at[i] = py(last(s).y)
		if i > 0 {
			at[i] = max(at[i], at[i-1]+lineHeight)
		}
	}
	for i := len(at) - 1; i >= 0; i-- {
		limit := bottom
		if i < len(at)-1 {
			limit = at[i+1] - lineHeight
		}
		at[i] = min(at[i], limit)
	}
	for i, s := range all {
		class := fmt.Sprintf("name f%d", s.colour)
		if isOurs(s.name) {
			class += " bold"
		}
		p := last(s)
		fmt.Fprintf(d, `<polyline class="line s%d light" stroke-dasharray="1 3" points="%.1f,%.1f %.1f,%.1f"/>`+"\n", s.colour, px(p.x)+4, py(p.y), right+6, at[i])
		d.text(right+10, at[i]+4, class, "start", s.name+"  "+cmp.Or(s.note, format(p.y)))
	}
	return d.done()
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// ticks returns round numbers from low to high for a logarithmic scale.
func ticks(low, high float64) (all []float64) {
	steps := []float64{1, 2, 5}
	if high/low > 2000 {
		steps = []float64{1}
	}
	for decade := math.Pow(10, math.Floor(math.Log10(low))); decade <= high; decade *= 10 {
		for _, m := range steps {
			if v := m * decade; v >= low && v <= high {
				all = append(all, v)
			}
		}
	}
	return all
}

// throughputPlot shows calls a second against callers.
func (r *report) throughputPlot() plot {
	workloads := []string{"small/1", "small/16", "small/256", "small/4096"}
	x := []float64{0, 1. / 3, 2. / 3, 1}
	title := "Calls a second of a small struct, by callers on one connection"
	all := r.seriesOf(workloads, x, rate)
	return plot{"throughput.svg", title, lines(title, "More is better. Logarithmic. Medians. Dashed: opaque bytes over bare TCP.", all, x,
		[]string{"1 caller", "16 callers", "256 callers", "4,096 callers"}, short)}
}

// latencyPlot shows percentiles of 16 callers.
func (r *report) latencyPlot() plot {
	title := "Latency of a small struct, 16 callers on one connection"
	x := []float64{0, 1. / 3, 2. / 3, 1}
	var all []series
	for i, m := range []metric{p50, p90, p99, p999} {
		for _, s := range r.seriesOf([]string{"small/16"}, x[i:], m) {
			k := slices.IndexFunc(all, func(o series) bool { return o.name == s.name })
			if k < 0 {
				all = append(all, s)
			} else {
				all[k].points = append(all[k].points, s.points...)
			}
		}
	}
	return plot{"latency.svg", title, lines(title, "Less is better. Logarithmic. Medians of the rounds' percentiles. Dashed: opaque bytes over bare TCP.", all, x,
		[]string{"p50", "p90", "p99", "p99.9"}, nanos)}
}

// cpuPlot shows the CPU time of a call of 256 callers, of both processes.
func (r *report) cpuPlot() plot {
	const workload = "small/256"
	title := "CPU time of a call of a small struct, 256 callers on one connection"
	all := r.seriesOf([]string{workload}, []float64{0}, cpu)
	if len(all) == 0 {
		return plot{}
	}
	slices.SortStableFunc(all, func(a, b series) int { return cmp.Compare(a.points[0].y, b.points[0].y) })
	const left, room = 140.0, 145.0
	d := newDrawing(plotTop+rowHeight*len(all)+20, title, "Less is better. The client's process, and paler the server's.")
	scale := (plotWidth - left - room) / all[len(all)-1].points[0].y
	for i, s := range all {
		y := float64(plotTop + rowHeight*i)
		samples := r.samples(workload, s.name)
		part := func(u func(*sample) *usage) float64 {
			v, _ := figure(samples, func(s *sample) float64 { return float64(u(s).CPU) / float64(max(1, s.Calls)) })
			return v
		}
		client, server := part(func(s *sample) *usage { return &s.Client }), part(func(s *sample) *usage { return &s.Server })
		class := "name"
		if isOurs(s.name) {
			class += " bold"
		}
		d.text(left-10, y+rowHeight/2+1, class, "end", s.name)
		fmt.Fprintf(d, `<rect class="f%d" x="%.1f" y="%.1f" width="%.1f" height="%d"/>`+"\n", s.colour, left, y+2, client*scale, rowHeight-10)
		fmt.Fprintf(d, `<rect class="f%d light" x="%.1f" y="%.1f" width="%.1f" height="%d"/>`+"\n", s.colour, left+client*scale, y+2, server*scale, rowHeight-10)
		d.text(left+(client+server)*scale+8, y+rowHeight/2+1, "tick", "start", nanos(client)+" + "+nanos(server))
	}
	return plot{"cpu.svg", title, d.done()}
}

// short formats a large number for an axis: 20k.
func short(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%.3gM", v/1e6)
	case v >= 1e3:
		return fmt.Sprintf("%.3gk", v/1e3)
	}
	return fmt.Sprintf("%.3g", v)
}
