//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// usage is what a process has used since it began.
type usage struct {
	CPU    time.Duration // of all threads, in user and system mode
	Allocs uint64        // objects
	Writes uint64        // system calls; 0: unknown
	// Peak is the largest resident memory since resetPeak, in bytes; of a difference, how
	// much larger it is than what was resident before. 0: unknown.
	Peak     uint64
	Resident uint64 `json:",omitzero"` // now
}

func (u usage) since(before usage) usage {
	return usage{
		CPU:    u.CPU - before.CPU,
		Allocs: u.Allocs - before.Allocs,
		Writes: u.Writes - before.Writes,
		Peak:   u.Peak - min(u.Peak, before.Resident),
	}
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
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		kib, _ := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		switch key {
		case "VmHWM":
			u.Peak = kib << 10
		case "VmRSS":
			u.Resident = kib << 10
		}
	}
	return u
}

// resetPeak has usage.Peak begin anew. Where the system does not allow it, peaks are
// larger than they should be.
func resetPeak() { os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) }

// pin has this process run on one CPU, the last that it may use.
func pin() error {
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return err
	}
	for cpu, left := 0, all.Count(); left > 0; cpu++ {
		if !all.IsSet(cpu) {
			continue
		}
		if left--; left == 0 {
			one.Set(cpu)
		}
	}
	pinned.before, pinned.procs = all, runtime.GOMAXPROCS(1)
	return setAffinity(&one)
}

// unpin undoes pin.
func unpin() error {
	if pinned.procs == 0 {
		return nil
	}
	runtime.GOMAXPROCS(pinned.procs)
	pinned.procs = 0
	return setAffinity(&pinned.before)
}

// pinned is what unpin restores. Only one goroutine pins.
var pinned struct {
	before unix.CPUSet
	procs  int // 0: not pinned
}

// setAffinity is for all threads of this process; those made later inherit it.
func setAffinity(set *unix.CPUSet) error {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(id, set); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
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

// kernel returns the system's release.
func kernel() string {
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return strings.TrimSpace(string(release))
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
