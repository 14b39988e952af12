//go:build linux

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// A workload is what clients do: some callers, each with one call after the other,
// on one connection.
type workload struct {
	name    string
	callers int
	payload int // bytes of a []byte that is echoed; 0: an Item
}

func allWorkloads() []workload {
	var all []workload
	for _, callers := range []int{1, 16, 256} {
		all = append(all, workload{fmt.Sprintf("small/%d", callers), callers, 0})
	}
	for _, size := range []struct {
		name  string
		bytes int
	}{{"1KiB", 1 << 10}, {"64KiB", 64 << 10}, {"1MiB", 1 << 20}} {
		for _, callers := range []int{1, 16} {
			all = append(all, workload{fmt.Sprintf("%s/%d", size.name, callers), callers, size.bytes})
		}
	}
	return all
}

// pickWorkloads returns the workloads of a comma-separated list of names, or of what
// their names begin with. Empty: all.
func pickWorkloads(all []workload, list string) ([]workload, error) {
	if list == "" {
		return all, nil
	}
	names := strings.Split(list, ",")
	known := func(w workload) []string {
		kind, _, _ := strings.Cut(w.name, "/")
		return []string{w.name, kind}
	}
	for _, name := range names {
		if !slices.ContainsFunc(all, func(w workload) bool { return slices.Contains(known(w), name) }) {
			return nil, fmt.Errorf("no workload %q; there are %v", name, workloadNames(all))
		}
	}
	return slices.DeleteFunc(all, func(w workload) bool {
		return !slices.ContainsFunc(known(w), func(k string) bool { return slices.Contains(names, k) })
	}), nil
}

func workloadNames(all []workload) string {
	var names []string
	for _, w := range all {
		names = append(names, w.name)
	}
	return strings.Join(names, ", ")
}

// title says what the workload is.
func (w workload) title() string {
	kind, _, _ := strings.Cut(w.name, "/")
	if w.payload == 0 {
		kind = "small struct"
	}
	if w.callers == 1 {
		return kind + ", 1 caller"
	}
	return fmt.Sprintf("%s, %d callers on one connection", kind, w.callers)
}

// call returns what each caller does over and over.
func (w workload) call(c client) func(context.Context) error {
	if w.payload == 0 {
		return c.small
	}
	b := slices.Repeat([]byte{0x5a}, w.payload)
	return func(ctx context.Context) error { return c.bytes(ctx, b) }
}
