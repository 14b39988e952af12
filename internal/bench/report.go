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
var references = [...]string{"net/rpc", "grpc"}

// report is what a comparison prints.
type report struct {
	config   *config
	results  []result
	overhead time.Duration
	took     time.Duration
}

func (r *report) write(out io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", machine())
	fmt.Fprintf(&b, `Client and server are processes of their own, over loopback TCP, one connection. %d rounds of %v, entrants in turn;
medians over the rounds, with the lowest and highest round for calls a second. CPU, allocations (objects) and
write system calls are of a call, client's process + server's process. The harness itself takes %v of a call
at the client. Other processes took %s of the machine's CPU time (median round; worst %s). Took %v.
`, r.config.rounds, r.config.duration, r.overhead, percent(r.others(0.5)), percent(r.others(1)), r.took.Round(time.Second))
	for i := range r.results {
		r.table(&b, &r.results[i])
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// others returns what share of the machine other processes used, in the round at
// this place of all when sorted.
func (r *report) others(place float64) float64 {
	var shares []float64
	for _, res := range r.results {
		for _, samples := range res.samples {
			for _, s := range samples {
				all := s.client.CPU + s.server.CPU + s.others
				shares = append(shares, float64(s.others)/float64(max(1, all)))
			}
		}
	}
	slices.Sort(shares)
	return shares[int(place*float64(len(shares)-1))]
}

func (r *report) table(b *strings.Builder, res *result) {
	fmt.Fprintf(b, "\n### %s\n\n", res.workload.title())
	head := []string{"", "calls/s", "min..max", "p50", "p99", "CPU", "allocations", "writes"}
	for _, ref := range references {
		head = append(head, "x "+ref)
	}
	rows := [][]string{head}
	for i, e := range res.entrants {
		samples := res.samples[i]
		get := func(f func(*sample) float64) float64 {
			var values []float64
			for k := range samples {
				values = append(values, f(&samples[k]))
			}
			return median(values)
		}
		of := func(s *sample, v float64) float64 { return v / float64(max(1, s.calls)) }
		both := func(format func(float64) string, f func(usage) float64) string {
			text := format(get(func(s *sample) float64 { return of(s, f(s.client)) }))
			if e.serve != nil {
				text += " + " + format(get(func(s *sample) float64 { return of(s, f(s.server)) }))
			}
			return text
		}
		low, high := math.Inf(1), math.Inf(-1)
		for k := range samples {
			low, high = min(low, samples[k].rate()), max(high, samples[k].rate())
		}
		row := []string{
			e.name,
			count(get((*sample).rate)),
			count(low) + ".." + count(high),
			nanos(get(func(s *sample) float64 { return float64(s.p50) })),
			nanos(get(func(s *sample) float64 { return float64(s.p99) })),
			both(nanos, func(u usage) float64 { return float64(u.CPU) }),
			both(small, func(u usage) float64 { return float64(u.Allocs) }),
			both(fine, func(u usage) float64 { return float64(u.Writes) }),
		}
		for _, ref := range references {
			ratio := ""
			if x, ok := res.ratio(e.name, ref); ok {
				ratio = fmt.Sprintf("%.2f", x)
			}
			row = append(row, ratio)
		}
		rows = append(rows, row)
	}
	writeTable(b, rows)
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

func small(v float64) string { return fmt.Sprintf("%.1f", v) }
func fine(v float64) string  { return fmt.Sprintf("%.2f", v) }

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
