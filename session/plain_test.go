package session

import (
	"bytes"
	"math"
	"testing"
)

// FuzzPlain compares messages with gob's.
func FuzzPlain(f *testing.F) {
	f.Add("add", int64(7), uint64(8), 1.5, true, "text", []byte("bytes"))
	f.Add("", int64(math.MinInt64), uint64(math.MaxUint64), math.Inf(1), false, "", []byte(nil))
	f.Add("f", int64(-1), uint64(127), math.SmallestNonzeroFloat64, true, string(make([]byte, 128)), make([]byte, 70_000))
	registerOwn()
	f.Fuzz(func(t *testing.T, name string, i int64, u uint64, x float64, yes bool, s string, b []byte) {
		values := []any{nil, i, int(i), int8(i), int16(i), int32(i), u, uint(u), uint8(u), uint16(u), uint32(u), x, float32(x), yes, s, b}
		messages := []RPCData{{name, nil}, {name, []any{}}, {"", []any{nil}}, {name, values}}
		for _, v := range values {
			messages = append(messages, RPCData{name, []any{v}})
		}
		for _, msg := range messages {
			want, err := tryEncode(msg)
			if err != nil {
				t.Fatal(err)
			}
			if got := encodePlain(msg); !bytes.Equal(got, want) {
				t.Fatalf("%#v: got\n%x\nwant\n%x", msg, got, want)
			}
		}
	})
}

type own int

// What is not of gob's own types needs gob.
func TestNotPlain(t *testing.T) {
	for _, v := range []any{own(1), []int{1}, new(int), struct{}{}, complex(1, 2), wireError{}, map[string]int{}, [1]byte{}, uintptr(1)} {
		if encodePlain(RPCData{"f", []any{1, v}}) != nil {
			t.Errorf("%T needs no gob", v)
		}
	}
	n := testing.AllocsPerRun(100, func() { encodePlain(RPCData{"add", []any{7, "text"}}) })
	if n > 1 {
		t.Errorf("%v allocations; want 1", n)
	}
}
