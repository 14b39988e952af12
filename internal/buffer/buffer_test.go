package buffer

import (
	"bytes"
	"testing"
)

func TestGrow(t *testing.T) {
	b := new(Buffer)
	for _, step := range []struct{ n, want int }{
		{1, 4 << 10}, {4 << 10, 8 << 10}, {100, 8 << 10}, {Full, 2 * Full}, {2 * Full, 4<<10 + 101 + 3*Full}, {0, 4<<10 + 101 + 3*Full},
	} {
		before := bytes.Clone(b.B)
		b.Grow(step.n)
		if cap(b.B) != step.want || !bytes.Equal(b.B, before) {
			t.Errorf("room for %d behind %d bytes: %d; want %d, and the bytes as they were", step.n, len(before), cap(b.B), step.want)
		}
		for range step.n {
			b.B = append(b.B, byte(len(b.B)))
		}
	}
	Put(b) // too large
	Put(nil)
	for range 100 {
		b := Get()
		if len(b.B) != 0 || cap(b.B) < smallest || cap(b.B) > maxKept {
			t.Fatalf("%d bytes, and room for %d", len(b.B), cap(b.B))
		}
		b.B = append(b.B, "used"...)
		b.Grow(Full)
		Put(b)
	}
}
