package session

import (
	"bytes"
	"encoding/gob"
	"encoding/hex"
	"fmt"
	"math"
	"math/big"
	"net"
	"reflect"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/yonder-rpc/yonder"
)

type person struct {
	Name   string
	Age    int
	Tags   []string
	Scores map[string]float64
	Boss   *person
	Any    any
	Fixed  [3]uint16
	Born   time.Time
	Big    *big.Int
	Raw    []byte
	Deep   [][]map[int][]person
	Odd    complex128
	Yes    bool
}

type empty struct{ X [0]int }

func samples() []RPCData {
	gob.Register(person{})
	gob.Register([]any{})
	gob.Register(map[string]any{})
	gob.Register(time.Time{})
	gob.Register(&big.Int{})
	gob.Register([]person{})
	gob.Register([]empty{})
	gob.Register([2]any{})
	p := person{
		Name: "ann", Age: -7, Tags: []string{"a", "", "b"}, Scores: map[string]float64{"x": 1.5, "y": math.NaN()},
		Boss: &person{Name: "bob", Any: person{Any: []any{1, "x"}}}, Any: map[string]any{"k": []any{person{Age: 1 << 30}}},
		Fixed: [3]uint16{1, 0, 3}, Born: time.Unix(1e9, 5).UTC(), Big: big.NewInt(1 << 60), Raw: []byte("raw"),
		Deep: [][]map[int][]person{{nil, {1: {{Name: "in"}}}}}, Odd: 1 + 2i, Yes: true,
	}
	return []RPCData{
		{}, {Func: "f"}, {Args: []any{}}, {"f", []any{nil}},
		{"f", []any{1, -1, uint8(255), "text", []byte{1, 2}, 1.5, float32(2), true, nil, 1 + 2i}},
		{"f", []any{p}}, {"f", []any{&p, p, nil, []person{p, {}, p}}},
		{"f", []any{[]any{[]any{[]any{p}}}, map[string]any{"p": p, "q": nil}, [2]any{p, 1}}},
		{"f", []any{time.Now(), big.NewInt(5), []empty{{}, {}, {}}}},
		{strings.Repeat("long ", 1000), []any{make([]int, 1000), make([]string, 1000)}},
	}
}

var pointers = regexp.MustCompile("0x[0-9a-f]{6,}")

// What gob encodes passes, and remains what it was.
func TestCheckAccepts(t *testing.T) {
	for i, msg := range samples() {
		frame, err := tryEncode(msg)
		if err != nil {
			t.Fatal(err)
		}
		stream := frame[headerSize:]
		name, whole, _, err := checked(stream)
		if err != nil {
			t.Errorf("message %d: %v", i, err)
		}
		if _, again, _, err := checked(whole); err != nil || !bytes.Equal(again, whole) {
			t.Errorf("message %d: it is changed again, %v", i, err)
		}
		var want, got RPCData
		if err := tryDecode(stream, &want); err != nil {
			t.Fatal(err)
		}
		if err := tryDecode(whole, &got); err != nil {
			t.Errorf("message %d: %v", i, err)
		}
		if want, got := fmt.Sprintf("%#v", want), fmt.Sprintf("%#v", got); pointers.ReplaceAllString(want, "") != pointers.ReplaceAllString(got, "") {
			t.Errorf("message %d: it is another:\n%s\n%s", i, want, got)
		}
		if name != want.Func {
			t.Errorf("message %d: its name is %q", i, name)
		}
		for n := range stream {
			if _, _, _, err := checked(stream[:n]); err == nil {
				t.Errorf("message %d: the first %d bytes of %d pass", i, n, len(stream))
			}
		}
		if _, _, _, err := checked(append(bytes.Clone(stream), 0)); err == nil {
			t.Errorf("message %d: it passes with a byte more", i)
		}
	}
}

// bomb returns a request whose only argument is a value of which gob's description is given: the
// name of the type, and what follows it.
func bomb(t testing.TB, name string, rest string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(
		"27 7f 03 01 01 07 52504344617461 01 ff80 00 01 02 01 04 46756e63 01 0c 00 01 04 41726773 01 ff82 00 00 00"+
			" 1c ff81 02 01 01 0e 5b5d696e74657266616365207b7d 01 ff82 00 01 10 00 00", " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	tail, err := hex.DecodeString(strings.ReplaceAll(rest, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	value := []byte{0xff, 0x80, 1, 1, 'f', 1, 1, byte(len(name))}
	value = append(append(value, name...), tail...)
	if len(value) < 128 {
		return append(append(b, byte(len(value))), value...)
	}
	size := len(value)
	b = append(b, 0xfc, byte(size>>24), byte(size>>16), byte(size>>8), byte(size))
	return append(b, value...)
}

func TestCheckRefuses(t *testing.T) {
	gob.Register(map[string]int{})
	gob.Register([]any{})
	type node struct{ Next *node }
	gob.RegisterName("node", node{})
	deep := func(levels int) string {
		n := strings.Repeat("01", levels) + strings.Repeat("00", levels+1)
		return fmt.Sprintf("ff83 03 01 01 04 6e6f6465 01 ff84 00 01 01 01 04 4e657874 01 ff84 00 00 00 fc7fffffff ff84 fc%08x %s 00", len(n)/2, n)
	}
	for _, c := range []struct {
		name, bytes, want string
		stream            []byte
	}{
		{name: "map of a billion", stream: bomb(t, "map[string]int", "ff83 04 01 02 ff84 00 01 0c 01 04 00 00 0c ff84 06 00 fc3b9aca00 00"), want: "a map claims 1000000000 elements, and 1 bytes follow"},
		{name: "slice of a billion", stream: bomb(t, "[]interface {}", "ff82 06 00 fc3b9aca00 00"), want: "a slice or array claims 1000000000 elements, and 1 bytes follow"},
		{name: "a list too long", stream: bomb(t, "node", deep(maxDepth+1)), want: "values are nested more than 10000 deep"},
		{name: "type 1000", stream: bomb(t, "int", "fe07d0 02 00 02 00"), want: "type 1000 is not defined"},
		{name: "nothing", want: "it is cut short"},
		{name: "long integer", bytes: "f0", want: "an integer has more than 8 bytes"},
		{name: "part too long", bytes: "05 00", want: "a part of 5 bytes has 1"},
		{name: "built-in type", bytes: "02 01 00", want: "type 1 is defined twice"},
		{name: "field number", bytes: "0c 7f 03 02 f8ffffffffffffffff 00", want: "a struct type claims 18446744073709551615 elements, and 0 bytes follow"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.stream == nil {
				c.stream, _ = hex.DecodeString(strings.ReplaceAll(c.bytes, " ", ""))
			}
			_, _, _, err := checked(c.stream)
			if diff := cmp.Diff("not a gob stream that is accepted here: "+c.want, fmt.Sprint(err)); diff != "" {
				t.Error(diff)
			}
		})
	}
	// The bombs are what they seem: a list that is not too long decodes.
	var msg RPCData
	list := bomb(t, "node", deep(maxDepth-10))
	_, list, _, err := checked(list)
	if err != nil {
		t.Error(err)
	}
	if err := tryDecode(list, &msg); err != nil {
		t.Error(err)
	}
}

// Nil interfaces within structs arrive, in whatever holds them, and can be skipped.
func TestNils(t *testing.T) {
	type inner struct{ List []any }
	type outer struct {
		List  []any
		Array [2]any
		Map   map[string]any
		Keys  map[any]string
		Any   any
		Ptr   *inner
		Deep  map[string][]inner
		Time  time.Time
	}
	gob.RegisterName("nils.outer", outer{})
	gob.RegisterName("nils.inner", &inner{})
	gob.Register([]any{})
	gob.Register(map[string]any{})
	in := func() inner { return inner{[]any{nil, 1, []any{nil, "x"}}} }
	p := in()
	sent := outer{
		List: []any{1, nil, outer{List: []any{nil}}, &p}, Array: [2]any{nil, true}, Map: map[string]any{"a": nil, "b": 2},
		Keys: map[any]string{nil: "none", 1: "one", math.NaN(): "nan"}, Any: []any{nil}, Ptr: &p,
		Deep: map[string][]inner{"x": {in(), in()}}, Time: time.Unix(1e9, 0).UTC(),
	}
	frame, err := tryEncode(RPCData{"f", []any{nil, sent, []any{nil}, map[string]any{"k": nil}}})
	if err != nil {
		t.Fatal(err)
	}
	msg, err := decode(frame[headerSize:], nil, func(string) {})
	got := msg.Args[1].(outer)
	if len(got.Keys) != 3 || got.Keys[nil] != "none" || got.Keys[1] != "one" {
		t.Errorf("%v", got.Keys)
	}
	sent.Keys, got.Keys = nil, nil // in which cmp cannot compare NaN
	msg.Args[1] = got
	if diff := cmp.Diff(RPCData{"f", []any{nil, sent, []any{nil}, map[string]any{"k": nil}}}, msg); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	// A struct's field that the receiver has not is skipped, whatever it holds.
	type wide struct {
		A    int
		List []any
		Any  any
		Z    string
	}
	type narrow struct {
		A int
		Z string
	}
	var b bytes.Buffer
	gob.RegisterName("nils.wide", wide{})
	if err := gob.NewEncoder(&b).Encode(RPCData{"f", []any{wide{1, []any{nil, outer{List: []any{nil}}, nil}, outer{Any: []any{nil, 2}}, "z"}}}); err != nil {
		t.Fatal(err)
	}
	gob.RegisterName("nils.wid2", narrow{})
	msg, err = decode(bytes.ReplaceAll(b.Bytes(), []byte("nils.wide"), []byte("nils.wid2")), nil, func(string) {})
	if diff := cmp.Diff(RPCData{"f", []any{narrow{1, "z"}}}, msg); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	many, err := tryEncode(RPCData{"f", []any{outer{List: make([]any, maxNils+1)}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decode(many[headerSize:], nil, func(string) {}); err == nil || !strings.Contains(err.Error(), "more than 65536 nil interfaces") {
		t.Error(err)
	}
	forged := bomb(t, absentName, "02 02 00 00 00")
	if _, err := decode(forged, nil, func(string) {}); err == nil || !strings.Contains(err.Error(), "a name that nothing is sent by") {
		t.Error(err)
	}
}

func TestConvert(t *testing.T) {
	for _, c := range []struct {
		from any
		to   func() (any, func() any)
		want any
	}{
		{int64(math.MaxInt64), into[int8], nil},
		{int64(-128), into[int8], int8(-128)},
		{int64(-129), into[int8], nil},
		{uint64(math.MaxUint64), into[int64], nil},
		{uint64(math.MaxInt64), into[int64], int64(math.MaxInt64)},
		{int64(-1), into[uint64], nil},
		{int64(1 << 53), into[float64], float64(1 << 53)},
		{int64(1<<53 + 1), into[float64], nil},
		{1<<24 + 1, into[float32], nil},
		{1 << 24, into[float32], float32(1 << 24)},
		{1e300, into[float32], nil},
		{0.1, into[float32], float32(0.1)},
		{math.Inf(1), into[float32], float32(math.Inf(1))},
		{2.0, into[uint8], uint8(2)},
		{256.0, into[uint8], nil},
		{-1.0, into[uint8], nil},
		{2.5, into[int], nil},
		{math.NaN(), into[int], nil},
		{1e19, into[int64], nil},
		{math.Inf(-1), into[int64], nil},
		{"x", into[int], nil},
		{1, into[string], nil},
		{1, into[bool], nil},
		{[]byte("x"), into[string], nil},
		{nil, into[int], 0},
		{[]int{1}, into[[]int64], []int64{1}},
		{person{Name: "x"}, into[struct{ Name string }], struct{ Name string }{"x"}},
		{person{Name: "x"}, into[struct{ Name int }], nil},
	} {
		p, value := c.to()
		err := assign(reflectElem(p), c.from)
		if c.want == nil {
			if err == nil {
				t.Errorf("%T(%v) became %T(%v)", c.from, c.from, value(), value())
			}
			continue
		}
		if diff := cmp.Diff(c.want, value()); err != nil || diff != "" {
			t.Errorf("%T(%v): %v %s", c.from, c.from, err, diff)
		}
	}
}

func TestDetect(t *testing.T) {
	for i, msg := range samples() {
		frame, err := tryEncode(msg)
		if err != nil {
			t.Fatal(err)
		}
		for n := 1; n <= min(len(frame), 64); n++ {
			want := yonder.Maybe
			if n >= 7 {
				want = yonder.Yes
			}
			if got := Protocol.Detect(frame[:n]); got != want && !(n == 7 && got == yonder.Maybe || n == 8 && got == yonder.Yes) {
				t.Errorf("message %d: the first %d bytes are %d, want %d", i, n, got, want)
			}
		}
	}
	var netRPC bytes.Buffer
	gob.NewEncoder(&netRPC).Encode(struct {
		ServiceMethod string
		Seq           uint64
	}{"A.B", 1})
	for _, first := range []string{
		netRPC.String(), "\x2e\x7f\x03\x01\x01\x07Request", "\x30\xff\x81\x03\x01\x01\x07Request",
		"\xd9yonder", "\x16\x03\x01\x00\xa5\x01", "GET / HTTP/1.1\r\n", "CONNECT /_goRPC_ HTTP/1.0\n\n",
		`{"jsonrpc":"2.0"}`, `[{}]`, "\n{}", " {}", "\x00\x00\x00\x08\x04\xd2\x16\x2f", "\x00\x00\x00\x00\x00\x00\x00\x00",
		"\x00\x00\x01\x00{\"a\":1}", "\x00\x00\x00\x02\x27\x7f\x03", "\x04\x00\x00\x00\x27\x7f\x03",
	} {
		got := yonder.Maybe
		for n := 1; n <= len(first) && got == yonder.Maybe; n++ {
			got = Protocol.Detect([]byte(first)[:n])
		}
		if got != yonder.No {
			t.Errorf("%q is %d", first, got)
		}
	}
}

// What passes check decodes without a panic, in memory of the order of its length; what gob
// would decode passes, unless it is of a kind that check is there to refuse.
func FuzzMessage(f *testing.F) {
	for _, msg := range samples() {
		frame, err := tryEncode(msg)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(frame)
	}
	for _, s := range [][]byte{
		bomb(f, "map[string]int", "ff83 04 01 02 ff84 00 01 0c 01 04 00 00 0c ff84 06 00 fc3b9aca00 00"),
		bomb(f, "[]interface {}", "ff82 06 00 fc3b9aca00 00"),
		bomb(f, "int", "04 09 00 02 00"),
		nil,
	} {
		f.Add(seal(append(make([]byte, headerSize), s...)))
	}
	registerOwn()
	f.Fuzz(func(t *testing.T, stream []byte) {
		conn := &bytesConn{Reader: bytes.NewReader(stream)}
		m := messageReader{conn: conn, r: conn, most: 1 << 16, patience: -1}
		var known decoders
		for {
			var before, after runtime.MemStats
			data, err := m.read()
			if _, ok := err.(*tooLarge); ok {
				continue
			}
			if err != nil {
				return
			}
			runtime.ReadMemStats(&before)
			msg, err := decode(data, nil, func(string) {})
			runtime.ReadMemStats(&after)
			if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20+4000*uint64(len(data)) {
				t.Errorf("%d bytes took %d", len(data), took)
			}
			for range 3 { // by a decoder that has read others before
				same, failed := decode(data, &known, func(string) {})
				if fmt.Sprint(failed) != fmt.Sprint(err) || !reflect.DeepEqual(same, msg) && !strings.Contains(fmt.Sprint(msg), "NaN") {
					t.Errorf("got %v, %v; want %v, %v", same, failed, msg, err)
				}
			}
			if err != nil {
				continue
			}
			again, err := encode(RPCData{msg.Func, append([]any(nil), msg.Args...)})
			if err != nil {
				return // of a value that gob decodes and does not encode, a nil pointer within
			}
			if _, err := decode(again[headerSize:], nil, func(string) {}); err != nil {
				t.Errorf("it does not decode again: %v", err)
			}
		}
	})
}
func into[T any]() (any, func() any) {
	p := new(T)
	return p, func() any { return *p }
}

func reflectElem(p any) reflect.Value { return reflect.ValueOf(p).Elem() }

// bytesConn is a connection that has only bytes to read.
type bytesConn struct {
	net.Conn
	*bytes.Reader
}

func (c *bytesConn) Read(b []byte) (int, error) { return c.Reader.Read(b) }

// checked returns what check makes of a stream, in one.
func checked(stream []byte) (name string, whole []byte, nils bool, err error) {
	name, defs, value, nils, err := check(stream)
	return name, append(defs, value...), nils, err
}
