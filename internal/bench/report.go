//go:build linux

package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"
)

// references are the entrants that the others are compared with.
var references = [...]string{"net/rpc", "grpc", "raw", "raw-mux"}

// A column of a table has a cell for each entrant.
type column struct {
	head string
	cell func(res *result, samples []sample, d description) string
}

// columns are what there is to say of each kind of workload.
var columns = map[string][]column{
	callsKind.name: append([]column{
		perSecond("calls/s"), {"spread", spreadCell}, median1("p50", p50), median1("p99", p99),
		each("CPU", nanos, cpuUsed), each("allocations", tenths, allocated), writes,
	}, ratioColumns()...),
	mixedKind.name: {
		perSecond("calls/s"), {"spread", spreadCell}, median1("p50", p50), median1("p99", p99), median1("p99.9", p999),
		median1("longest", func(s *sample) float64 { return float64(s.Latency.Max) }),
		{"p99, min..max", func(_ *result, samples []sample, _ description) string {
			low, high := math.Inf(1), 0.0
			for i := range samples {
				low, high = min(low, p99(&samples[i])), max(high, p99(&samples[i]))
			}
			return nanos(low) + ".." + nanos(high)
		}},
		{"beside", func(_ *result, samples []sample, _ description) string {
			v, _ := figure(samples, func(s *sample) float64 { return float64(s.Transferred) / s.Elapsed.Seconds() })
			if v == 0 {
				return ""
			}
			return size(v) + "/s"
		}},
	},
	streamKind.name: append([]column{
		perSecond("items/s"), {"spread", spreadCell},
		each("CPU", nanos, cpuUsed), each("allocations", tenths, allocated), writes,
		both("memory", size, func(_ *sample, u *usage) float64 { return float64(u.Peak) }),
	}, ratioColumns()...),
	dialKind.name: {
		median1("p50", p50), median1("p99", p99), {"spread", spreadCell},
		each("CPU", nanos, cpuUsed), each("allocations", tenths, allocated), writes,
	},
	idleKind.name: {
		median1("heap", func(s *sample) float64 { return s.Idle.Heap }, size),
		median1("stack", func(s *sample) float64 { return s.Idle.Stack }, size),
		median1("heap + stack", idleMemory, size),
		median1("RSS", func(s *sample) float64 { return s.Idle.RSS }, size),
		median1("goroutines", func(s *sample) float64 { return s.Idle.Goroutines }, tenths),
		median1("first call, p50", p50), median1("first call, p99", p99),
		median1("time to open", func(s *sample) float64 { return float64(s.Elapsed) }),
	},
	overloadKind.name: {
		median1("sustained/s", func(s *sample) float64 { return s.Load.Sustained }, count),
		median1("offered/s", func(s *sample) float64 { return float64(s.Load.Offered) / s.Elapsed.Seconds() }, count),
		perSecond("in time/s"),
		median1("of the sustained", goodput, percent), median1("p50", p50), median1("p99", p99),
		median1("sent away", func(s *sample) float64 { return float64(s.Load.Shed) / float64(max(1, s.Load.Offered)) }, percent),
		median1("late", func(s *sample) float64 { return float64(s.Load.Late) / float64(max(1, s.Load.Offered)) }, percent),
		both("memory", size, func(_ *sample, u *usage) float64 { return float64(u.Peak) }),
	},
	buildKind.name: {
		median1("size", func(s *sample) float64 { return float64(s.Build.Size) }, func(v float64) string { return digits(v/1e6) + " MB" }),
		median1("built from nothing", func(s *sample) float64 { return float64(s.Build.Cold) }),
		median1("built after a change", func(s *sample) float64 { return float64(s.Build.Warm) }),
	},
}

func idleMemory(s *sample) float64 { return s.Idle.Heap + s.Idle.Stack }

// perSecond is a column of rates.
func perSecond(head string) column { return median1(head, rate, count) }

// median1 is a column with a metric's median, a time unless a format is given.
func median1(head string, m metric, format ...func(float64) string) column {
	f := nanos
	if len(format) > 0 {
		f = format[0]
	}
	return column{head, func(_ *result, samples []sample, _ description) string {
		v, _ := figure(samples, m)
		return f(v)
	}}
}

func cpuUsed(u *usage) float64   { return float64(u.CPU) }
func allocated(u *usage) float64 { return float64(u.Allocs) }

// each is a column with what the client's process and the server's use for a call.
func each(head string, format func(float64) string, u func(*usage) float64) column {
	return both(head, format, func(s *sample, of *usage) float64 { return u(of) / float64(max(1, s.Calls)) })
}

// writes is empty where they are not known.
var writes = column{"writes", func(res *result, samples []sample, d description) string {
	if v, _ := figure(samples, func(s *sample) float64 { return float64(s.Client.Writes) }); v == 0 {
		return ""
	}
	return each("", hundredths, func(u *usage) float64 { return float64(u.Writes) }).cell(res, samples, d)
}}

func both(head string, format func(float64) string, u func(*sample, *usage) float64) column {
	return column{head, func(_ *result, samples []sample, d description) string {
		client, _ := figure(samples, func(s *sample) float64 { return u(s, &s.Client) })
		server, _ := figure(samples, func(s *sample) float64 { return u(s, &s.Server) })
		if d.OneProcess {
			return format(client)
		}
		return format(client) + " + " + format(server)
	}}
}

func spreadCell(_ *result, samples []sample, _ description) string {
	return "±" + percent(spread(samples, rate))
}

func ratioColumns() (all []column) {
	for _, name := range references {
		all = append(all, column{"x " + name, func(res *result, samples []sample, _ description) string {
			if v, ok := ratio(samples, res.samples(name), rate); ok {
				return hundredths(v)
			}
			return ""
		}})
	}
	return all
}

// write writes the report as Markdown, with links to the plots if they are beside it.
func (r *report) write(out io.Writer, plots []plot) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# Measured\n\n")
	fmt.Fprintf(&b, "On %s, Linux %s, on %s, by `go run %s./internal/bench %s`", r.Machine, r.Kernel, r.Date, r.Tags, r.Command)
	fmt.Fprintf(&b, " in the root of the repository. It took %v.\n\n", r.Took.Round(time.Second))
	fmt.Fprintf(&b, `Client and server are processes of their own, over loopback TCP, on one connection unless it says otherwise. Up to %d
rounds, of %v for calls; the entrants take turns within a round, so that what disturbs the machine disturbs all
of them. Figures are medians over the rounds, and ratios are medians of the ratios of each round. Spread is half of what
lies between the best round and the worst. CPU, allocations (objects) and write system calls are of a call, the client's
process + the server's; where the writes are left out, some are sends, which the system does not count. The harness itself takes %v of a call at the client. Other processes took %s of the CPU time
in the median round, %s in the worst: the more, the less the figures say.
`, r.Rounds, r.Duration, r.Overhead, percent(r.others(0.5)), percent(r.others(1)))
	r.writeGoals(&b)
	for _, p := range plots {
		fmt.Fprintf(&b, "\n![%s](%s)\n", p.title, p.file)
	}
	for i := range r.Results {
		if res := &r.Results[i]; len(res.Rows) > 0 {
			r.table(&b, res)
		}
	}
	fmt.Fprintf(&b, "\n## Entrants\n\n")
	for _, e := range r.Entrants {
		fmt.Fprintf(&b, "* **%s**: %s.\n", e.Name, e.About)
	}
	fmt.Fprintf(&b, "\nVersions: ")
	for i, m := range r.Modules {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s %s", m.Path, m.Version)
	}
	b.WriteString("; everything else is the standard library's.\n")
	_, err := io.WriteString(out, b.String())
	return err
}

func (r *report) table(b *strings.Builder, res *result) {
	fmt.Fprintf(b, "\n## %s\n\n`%s`\n\n", res.Title, res.Name)
	var rows [][]string
	for _, column := range columns[res.Kind] {
		if len(rows) == 0 {
			rows = append(rows, []string{""})
		}
		rows[0] = append(rows[0], column.head)
	}
	for _, row := range res.Rows {
		if len(row.Samples) == 0 {
			continue
		}
		cells := []string{row.Entrant}
		for _, column := range columns[res.Kind] {
			cells = append(cells, column.cell(res, row.Samples, r.entrant(row.Entrant)))
		}
		rows = append(rows, cells)
	}
	dropEmpty(rows)
	writeTable(b, rows)
	for _, row := range res.Rows {
		if row.Failed != "" {
			fmt.Fprintf(b, "\n%s failed: %s\n", row.Entrant, row.Failed)
		}
	}
}

// dropEmpty drops columns without a figure.
func dropEmpty(rows [][]string) {
	for i := len(rows[0]) - 1; i > 0; i-- {
		if !slices.ContainsFunc(rows[1:], func(row []string) bool { return row[i] != "" }) {
			for n := range rows {
				rows[n] = slices.Delete(rows[n], i, i+1)
			}
		}
	}
}

// writeTable writes Markdown, aligned for people too. The first row is the head, and
// all columns but the first are figures.
func writeTable(b *strings.Builder, rows [][]string) {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], len([]rune(cell)), 2)
		}
	}
	for n, row := range rows {
		for i, cell := range row {
			if i == 0 {
				fmt.Fprintf(b, "| %-*s", width[i], cell)
			} else {
				fmt.Fprintf(b, " | %*s", width[i], cell)
			}
		}
		b.WriteString(" |\n")
		if n > 0 {
			continue
		}
		for i := range row {
			if i == 0 {
				b.WriteString("|" + strings.Repeat("-", width[i]+2))
			} else {
				b.WriteString("|" + strings.Repeat("-", width[i]+1) + ":")
			}
		}
		b.WriteString("|\n")
	}
}

// count formats a large number: 12,345.
func count(v float64) string {
	s := fmt.Sprintf("%.0f", v)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// nanos formats a time to three digits.
func nanos(v float64) string {
	for _, u := range []struct {
		size float64
		name string
	}{{1e9, "s"}, {1e6, "ms"}, {1e3, "us"}} {
		if v >= 0.9995*u.size {
			return digits(v/u.size) + " " + u.name
		}
	}
	return fmt.Sprintf("%.0f ns", v)
}

// digits formats a number of at least 1 to three digits.
func digits(v float64) string {
	switch {
	case v >= 99.95:
		return fmt.Sprintf("%.0f", v)
	case v >= 9.995:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func tenths(v float64) string     { return fmt.Sprintf("%.1f", v) }
func hundredths(v float64) string { return fmt.Sprintf("%.2f", v) }

func percent(v float64) string { return fmt.Sprintf("%.0f%%", 100*v) }

// size formats bytes.
func size(v float64) string {
	switch {
	case math.Abs(v) >= 1<<30:
		return digits(v/(1<<30)) + " GiB"
	case math.Abs(v) >= 1<<20:
		return digits(v/(1<<20)) + " MiB"
	}
	return fmt.Sprintf("%.1f KiB", v/(1<<10))
}
