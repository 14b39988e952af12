package main

import (
	"context"
	"iter"
	"sync"

	"github.com/yonder-rpc/yonder"
)

func server() *yonder.Server {
	srv := new(yonder.Server)
	srv.RegisterService("Log", &log{appended: make(chan struct{})})
	return srv
}

// log is lines that are appended and never change.
type log struct {
	mu       sync.Mutex
	lines    []string
	appended chan struct{} // closed, and replaced, when there are more lines
}

// Append adds a line.
func (l *log) Append(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	close(l.appended)
	l.appended = make(chan struct{})
}

// Tail yields the lines that are appended from now on, until the caller has enough
// of them, which ends ctx.
func (l *log) Tail(ctx context.Context) iter.Seq[string] {
	lines, _ := l.from(0)
	next := len(lines)
	return func(yield func(string) bool) {
		for {
			lines, appended := l.from(next)
			for _, line := range lines {
				if !yield(line) {
					return
				}
			}
			next += len(lines)
			select {
			case <-appended:
			case <-ctx.Done():
				return
			}
		}
	}
}

// from returns the lines behind the first n, and what is closed when there are more.
func (l *log) from(n int) ([]string, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines[n:], l.appended
}
