package session

import (
	"bytes"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
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

// FuzzPlainReader compares what is read without gob with what gob reads.
func FuzzPlainReader(f *testing.F) {
	frame, err := tryEncode(RPCData{"add", []any{nil, 7, int8(-8), uint16(9), 1.5, float32(2.5), true, "text", []byte("bytes")}})
	if err != nil {
		f.Fatal(err)
	}
	registerOwn()
	o := openingOf(frame[headerSize:])
	start := headerSize + len(o.defs)
	f.Add(frame[start+3+len(o.number):], true) // behind the length
	f.Add([]byte{1, 1, 'f', 1, 1, 0, 0}, true)
	f.Add([]byte{1, 1, 'f', 1, 1, 4, 'i', 'n', 't', '8', 4, 4, 0, 0xfe, 1, 0, 0}, true)
	f.Add([]byte{1, 1, 'f', 1, 1, 0, 0}, false)
	f.Fuzz(func(t *testing.T, value []byte, measured bool) {
		stream := bytes.Clone(o.defs)
		if measured { // else it measures itself
			value = append(bytes.Clone(o.number), value...)
			stream = appendUint(stream, uint64(len(value)))
		}
		stream = append(stream, value...)
		got, ok := decodePlain(stream, o)
		if !ok {
			return
		}
		want, err := decode(stream, nil, func(string) {})
		if diff := cmp.Diff(want, got, cmpopts.EquateNaNs()); diff != "" || err != nil {
			t.Errorf("%x: %v, %s", stream, err, diff)
		}
	})
}

// What is written without gob is read without, once gob has read a message of the peer's.
func TestPlainReader(t *testing.T) {
	var known decoders
	msg := RPCData{"add", []any{7, "text", nil, []byte{1}, []byte(nil), float32(math.Inf(1))}}
	frame := encodePlain(msg)
	for i := range 3 {
		got, err := decode(frame[headerSize:], &known, func(string) {})
		if diff := cmp.Diff(msg, got); diff != "" || err != nil {
			t.Errorf("%v, %s", err, diff)
		}
		if _, ok := decodePlain(frame[headerSize:], known.opening); !ok {
			t.Errorf("after %d messages gob is needed", i+1)
		}
	}
}

// decodePlain decodes a message by a plainReader alone.
func decodePlain(stream []byte, o opening) (msg RPCData, ok bool) {
	r, ok := openPlain(stream, o)
	if !ok {
		return msg, false
	}
	args, ok := r.args()
	return RPCData{r.name, args}, ok
}
