package mux

import (
	"runtime"
	"testing"
	"unsafe"
)

// TestBodies has memory be used again for about as much, and only for that.
func TestBodies(t *testing.T) {
	for _, test := range []struct {
		name      string
		free, get int
		shared    bool
	}{
		{"the same", 5 << 20, 5 << 20, true},
		{"a few bytes more", 5<<20 - 100, 5<<20 + 9, true},
		{"a little less", 5 << 20, 9 << 19, true},
		{"a fifth less", 5 << 20, 4 << 20, false},
		{"around a power of two", 4<<20 - 5, 4<<20 + 9, true},
		{"more", 5 << 20, 6 << 20, false},
		{"half", 7 << 20, 4 << 20, false},
		{"the smallest", minBody, minBody + bodyUnit, true},
		{"the largest", maxBody - 1, maxBody + bodyUnit, true},
		{"too large", maxBody + bodyUnit + 1, maxBody + bodyUnit + 1, false},
		{"small", minBody - 1, minBody - 1, false},
	} {
		shared := 0
		for range 50 { // a pool may lose something
			b := newBody(test.free)
			freeBody(b)
			c := newBody(test.get)
			if len(c) != 0 || cap(c) < test.get || cap(c) > test.get+test.get/4+bodyUnit {
				t.Fatalf("%s: %d bytes, and room for %d", test.name, len(c), cap(c))
			}
			if unsafe.SliceData(b) == unsafe.SliceData(c) {
				shared++
			}
			if !test.shared || shared > 0 {
				break
			}
		}
		if (shared > 0) != test.shared {
			t.Errorf("%s: shared %d times", test.name, shared)
		}
	}
}

// TestRelease has a small message not have the memory of a large one.
func TestRelease(t *testing.T) {
	reused := 0
	for range 50 {
		m := NewMessage()
		m.Write([]byte("more"))
		m.Reserve(maxPooled)
		m.Reserve(2 * maxPooled) // lets go of what it has had
		m.Write([]byte(" and large"))
		if got := m.String(); got != "more and large" {
			t.Fatalf("%q", got)
		}
		memory := unsafe.SliceData(m.Bytes())
		m.Release()
		if b := newBody(2 * maxPooled); unsafe.SliceData(b) == memory {
			reused++
		}
		small := NewMessage()
		if small.Len() != 0 || small.Cap() > maxPooled {
			t.Fatalf("a message has %d bytes, and room for %d", small.Len(), small.Cap())
		}
		small.Release()
	}
	if reused == 0 {
		t.Error("what a large message had is not used again")
	}
}

// TestReleaseDrops has memory that is not newBody's not gather where that has its own, although it is large.
func TestReleaseDrops(t *testing.T) {
	large := make([]byte, maxPooled+1)
	for range 50 { // a pool may lose something
		m := NewMessage()
		m.Write(large)
		memory := m.Bytes()
		m.Release()
		if b := newBody(len(large)); unsafe.SliceData(b) == unsafe.SliceData(memory) {
			t.Fatal("memory that has not come from newBody went there")
		}
		runtime.KeepAlive(memory) // or it might be there by chance
	}
}
