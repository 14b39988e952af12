package yonder_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"runtime"
	"sync"
	"testing"

	"github.com/yonder-rpc/yonder"
)

// numbered makes bytes that tell which they are.
func numbered(n, size int) []byte {
	number := binary.BigEndian.AppendUint32(nil, uint32(n)<<8|0xa5)
	return bytes.Repeat(number, size/4+1)[:size]
}

// Bytes that are lent are those of the call until its answer is written, whatever their size, and so
// are those that are filled.
func TestLend(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		for name, f := range map[string]any{
			"echo":  func(b []byte) []byte { return b },
			"tail":  func(_ context.Context, n int, b []byte) ([]byte, error) { return b[n:], nil },
			"sizes": func(a, b []byte) (int, int) { return len(a), len(b) },
			"fails": func(b []byte) ([]byte, error) { return b, errors.New(string(b[:5])) },
		} {
			srv.Add(yonder.Procedure{Name: name, Func: f, Lend: true})
		}
		c := m.client(t, &srv)
		var callers sync.WaitGroup
		for k := range 4 {
			callers.Go(func() {
				var got []byte
				for i, size := range []int{5, 100, 200, 5 << 10, 20 << 10, 64<<10 - 30, 64 << 10, 100 << 10, 600 << 10, 70 << 10, 0, 6} {
					sent := numbered(100*k+i, size)
					if err := c.Call(t.Context(), yonder.NewCall("echo", sent).Fill(&got)); err != nil || string(got) != string(sent) {
						t.Errorf("%d bytes: %d have come back, or others; %v", size, len(got), err)
					}
					if err := c.Call(t.Context(), yonder.NewCall("tail", size/2, sent).Fill(&got)); err != nil || string(got) != string(sent[size/2:]) {
						t.Errorf("half of %d bytes: %d have come back, or others; %v", size, len(got), err)
					}
					if size < 5 {
						continue
					}
					var a, b int
					if err := c.Call(t.Context(), yonder.NewCall("sizes", sent, sent[:5]).Fill(&a, &b)); err != nil || a != size || b != 5 {
						t.Errorf("sizes: %d and %d, %v", a, b, err)
					}
					if _, err := yonder.Invoke[[]byte](t.Context(), c, "fails", sent); err == nil {
						t.Error("no error")
					}
				}
			})
		}
		callers.Wait()
	})
}

// Where interceptors see calls, nothing is lent to the function: it may keep what it is given.
func TestLendIntercepted(t *testing.T) {
	srv := yonder.Server{Interceptors: []yonder.Interceptor{func(next yonder.Handler) yonder.Handler { return next }}}
	var mu sync.Mutex
	var kept [][]byte
	srv.Add(yonder.Procedure{Name: "keep", Lend: true, Func: func(b []byte) {
		mu.Lock()
		defer mu.Unlock()
		kept = append(kept, b)
	}})
	c := overTCP.client(t, &srv)
	for i := range 20 {
		if err := c.Call(t.Context(), yonder.NewCall("keep", numbered(i, 100<<10))); err != nil {
			t.Fatal(err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for i, b := range kept {
		if string(b) != string(numbered(i, 100<<10)) {
			t.Errorf("call %d: what was kept has changed", i)
		}
	}
}

// A result is put where there is memory for it.
func TestFill(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		srv.Register("get", func(n int) ([]byte, error) {
			if n < 0 {
				return nil, nil
			}
			return numbered(n, n), nil
		})
		c := m.client(t, &srv)
		got := make([]byte, 0, 200<<10)
		for _, n := range []int{10, 100 << 10, 200 << 10, 0} {
			there := &got[:1][0]
			if err := c.Call(t.Context(), yonder.NewCall("get", n).Fill(&got)); err != nil || string(got) != string(numbered(n, n)) {
				t.Fatalf("%d bytes: %d, or others; %v", n, len(got), err)
			}
			if m.name == overTCP.name && &got[:1][0] != there {
				t.Errorf("%d bytes have memory of their own", n)
			}
			if cap(got) == 0 {
				got = make([]byte, 0, 10)
			}
		}
		if err := c.Call(t.Context(), yonder.NewCall("get", 300<<10).Fill(&got)); err != nil || string(got) != string(numbered(300<<10, 300<<10)) {
			t.Errorf("more than there is room for: %d bytes, or others; %v", len(got), err)
		}
		if err := c.Call(t.Context(), yonder.NewCall("get", -1).Fill(&got)); err != nil || len(got) != 0 {
			t.Errorf("nil: %d bytes, %v", len(got), err)
		}
	})
}

// With both, large bytes need no fresh memory.
func TestLendMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("pools drop much under the race detector")
	}
	var srv yonder.Server
	srv.Add(yonder.Procedure{Name: "echo", Func: func(b []byte) []byte { return b }, Lend: true})
	c := overTCP.client(t, &srv)
	for _, size := range []int{64 << 10, 1 << 20} {
		sent := numbered(1, size)
		var got []byte
		var before, after runtime.MemStats
		const calls = 200
		for i := range 2 * calls {
			if i == calls {
				runtime.ReadMemStats(&before)
			}
			if err := c.Call(t.Context(), yonder.NewCall("echo", sent).Fill(&got)); err != nil {
				t.Fatal(err)
			}
		}
		runtime.ReadMemStats(&after)
		if each := int(after.TotalAlloc-before.TotalAlloc) / calls; each > size/4 {
			t.Errorf("calls of %d bytes each way take %d bytes of memory", size, each)
		}
	}
}
