package wire

import (
	"bytes"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

// leaf is the shortest error record: a code and nothing else.
const leaf = "00 00 00 00 00 00"

// nested returns an error that wraps others to a depth of n.
func nested(n int) *Error {
	e := &Error{Message: "leaf"}
	for range n - 1 {
		e = &Error{Causes: []*Error{e}}
	}
	return e
}

// wide returns an error that joins others, n nodes in all.
func wide(n int) *Error {
	e := &Error{Message: "joined"}
	for range n - 1 {
		e.Causes = append(e.Causes, &Error{Message: "leaf"})
	}
	return e
}

func TestParseError(t *testing.T) {
	for _, tt := range []struct {
		name string
		e    *Error
	}{
		{"zero", &Error{}},
		{"all", &Error{
			Code: 255, Message: "m", Names: []string{"a", ""}, Type: "T", Value: []byte("v"), Details: []byte("d"),
			Causes: []*Error{{Code: 1, Message: "c1"}, {Code: 2, Causes: []*Error{{Message: "c2"}}}},
		}},
		{"type with an empty value", &Error{Type: "T", Value: []byte{}}},
		{"deepest", nested(MaxErrorDepth)},
		{"most nodes", wide(MaxErrorNodes)},
		{"most names", &Error{Names: strings.Split(strings.Repeat("n", MaxErrorNames), "")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := AppendError(nil, tt.e)
			got, err := ParseError(b)
			if err != nil {
				t.Fatal(err)
			}
			// Not cmp.Diff: its time doubles with each level of one cause.
			if !reflect.DeepEqual(tt.e, got) {
				t.Errorf("got  %s\nwant %s", toJSON(newErrorText(got)), toJSON(newErrorText(tt.e)))
			}
			if again := AppendError(nil, got); !bytes.Equal(again, b) {
				t.Errorf("encodes to %x, then to %x", b, again)
			}
			for i := range b {
				if _, err := ParseError(b[:i]); err == nil {
					t.Errorf("its first %d of %d bytes are an error, too", i, len(b))
				}
			}
		})
	}
}

func TestParseErrorErrors(t *testing.T) {
	const tooMany = "error record: more than 256 errors, or more than 64 levels"
	of := func(e *Error) string { return string(AppendError(nil, e)) }
	in := func(hex string) string { return string(unhex(t, hex)) }
	for _, tt := range []struct{ name, bytes, want string }{
		{"nothing", "", "error record: frame ends early"},
		{"no message", in("00"), "error record: frame ends early"},
		{"message cut off", in("00 02 61"), "error record: frame ends early"},
		{"no names", in("00 00"), "error record: frame ends early"},
		{"name cut off", in("00 00 01 02 61"), "error record: frame ends early"},
		{"no type", in("00 00 00"), "error record: frame ends early"},
		{"type without its value", in("00 00 00 01 54"), "error record: frame ends early"},
		{"no details", in("00 00 00 00"), "error record: frame ends early"},
		{"no causes", in("00 00 00 00 00"), "error record: frame ends early"},
		{"cause missing", in("00 00 00 00 00 01"), "error record: frame ends early"},
		{"cause cut off", in("00 00 00 00 00 01 00 00 00"), "error record: frame ends early"},
		{"message length not shortest", in("00 8000 00 00 00 00"), "error record: number is not in its shortest form"},
		{"number of names too large", in("00 00 ffffffffffffffffff02"), "error record: number has more than 64 bits"},
		{"number of causes not shortest", in("00 00 00 00 00 8000"), "error record: number is not in its shortest form"},
		{"bytes after it", in(leaf + "00"), "error record: bytes after the error"},
		{"too many names", in("00 00 21"), "error record: 33 names are more than 32"},
		{"far too many names", in("00 00 ffffffffffffffffff01"), "error record: 18446744073709551615 names are more than 32"},
		{"too many causes", in("00 00 00 00 00 8102"), "error record: 257 causes are more than 256"},
		{"far too many causes", in("00 00 00 00 00 ffffffffffffffffff01"), "error record: 18446744073709551615 causes are more than 256"},
		{"too many nodes", of(wide(MaxErrorNodes + 1)), tooMany},
		{"too many nodes, nested", of(&Error{Causes: []*Error{wide(100), wide(100), wide(100)}}), tooMany},
		{"too deep", of(nested(MaxErrorDepth + 1)), tooMany},
		{"far too deep", strings.Repeat(in("00 00 00 00 00 01"), 10000), tooMany},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e, err := ParseError([]byte(tt.bytes))
			wantError(t, err, tt.want)
			if e != nil {
				t.Errorf("got %+v with the error", e)
			}
		})
	}
}

// TestParseMemory: a count or length that a peer only announces takes no memory,
// and what it sends takes a small multiple of it.
func TestParseMemory(t *testing.T) {
	const full = MaxBody
	for _, tt := range []struct {
		name  string
		parse func()
		most  uint64
	}{
		{"announced names", func() { ParseError(unhex(t, "00 00 20")) }, 1 << 10},
		{"announced causes", func() { ParseError(unhex(t, "00 00 00 00 00 8002")) }, 1 << 10},
		{"announced message", func() { ParseError(unhex(t, "00 ffffffff07")) }, 1 << 10},
		{"announced metadata", func() { ParseMeta(unhex(t, "ffffffff07"), full) }, 1 << 10},
		{"announced key", func() { ParseMeta(unhex(t, "05 ffffffff07"), full) }, 1 << 10},
		{"announced field", func() { ParseHello(unhex(t, "01 ffffffff07")) }, 1 << 10},
		{"announced name", func() { ParseName(unhex(t, "ffffffff07")) }, 1 << 10},
		{"announced value", func() { CutItem(unhex(t, "ffffffff07")) }, 1 << 10},
		{"codecs", func() { ParseHello(bytes.Repeat([]byte("\x01\x00"), full/2)) }, 1 << 20},
		{"causes", func() { ParseError(bytes.Repeat([]byte{0, 0, 0, 0, 0, 32}, full/6)) }, 1 << 20},
		{"metadata that is skipped", func() { ParseMeta(append([]byte("\xff\xff\x03"), make([]byte, full-1)...), 100) }, 256 << 10},
		{"metadata of one key", func() { ParseMeta(append([]byte("\x80\x80\x04"), make([]byte, full)...), full) }, 256 << 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := allocated(tt.parse); got > tt.most {
				t.Errorf("%d bytes are allocated, want at most %d", got, tt.most)
			}
		})
	}
}

// allocated returns how many bytes f allocates: the least of a few runs, since
// the runtime allocates, too.
func allocated(f func()) uint64 {
	least := ^uint64(0)
	for range 5 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		least = min(least, after.TotalAlloc-before.TotalAlloc)
	}
	return least
}
