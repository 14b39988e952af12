//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// usage is what a process has used since it began.
type usage struct {
	CPU    time.Duration // of all threads, in user and system mode
	Allocs uint64        // objects
	Writes uint64        // system calls
}

func (u usage) since(before usage) usage {
	return usage{u.CPU - before.CPU, u.Allocs - before.Allocs, u.Writes - before.Writes}
}

// ownUsage returns what this process has used. Figures that the system does not give
// are 0.
func ownUsage() usage {
	var u usage
	var ru syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &ru) == nil {
		u.CPU = time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
	}
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms) // package metrics would leave out what is still counted elsewhere
	u.Allocs = ms.Mallocs
	io, _ := os.ReadFile("/proc/self/io")
	for line := range strings.Lines(string(io)) {
		if n, ok := strings.CutPrefix(line, "syscw: "); ok {
			u.Writes, _ = strconv.ParseUint(strings.TrimSpace(n), 10, 64)
		}
	}
	return u
}

// memory is what a process occupies, in bytes.
type memory struct {
	Heap, Stack uint64 // spans in use
	RSS         uint64 // 0: unknown
	Goroutines  int
}

// ownMemory releases what is free and returns what is left.
func ownMemory() memory {
	release()
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms)
	m := memory{Heap: ms.HeapInuse, Stack: ms.StackInuse, Goroutines: runtime.NumGoroutine()}
	statm, _ := os.ReadFile("/proc/self/statm")
	if f := bytes.Fields(statm); len(f) > 1 {
		pages, _ := strconv.ParseUint(string(f[1]), 10, 64)
		m.RSS = pages * uint64(os.Getpagesize())
	}
	return m
}

// machineCPU returns the CPU time that all processes of the machine have used, and
// what others took from the machine if it is virtual. 0: unknown.
func machineCPU() time.Duration {
	stat, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(stat), "\n")
	var busy time.Duration
	for i, f := range strings.Fields(line) {
		// cpu user nice system idle iowait irq softirq steal ...
		switch i {
		case 1, 2, 3, 8:
			n, _ := strconv.ParseInt(f, 10, 64)
			busy += time.Duration(n) * 10 * time.Millisecond // USER_HZ is 100
		}
	}
	return busy
}

// machine describes where this runs.
func machine() string {
	model := "CPUs"
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			model = "x " + strings.TrimSpace(value)
			break
		}
	}
	return fmt.Sprintf("%d %s, %s %s/%s", runtime.NumCPU(), model, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// raiseFileLimit makes sure that this process and the servers it starts may have n
// files open.
func raiseFileLimit(n int) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	need := uint64(n)
	if limit.Cur >= need {
		return nil
	}
	want := syscall.Rlimit{Cur: need, Max: max(limit.Max, need)}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &want); err != nil {
		return fmt.Errorf("%d open files are needed, and %d allowed: %w; raise the limit with ulimit -n", need, limit.Max, err)
	}
	return nil
}
