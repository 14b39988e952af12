package yonder

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/yonder-rpc/yonder/internal/mux"
	"github.com/yonder-rpc/yonder/internal/wire"
)

// startsWith is a protocol that is told by how it begins.
type startsWith string

func (p startsWith) Name() string { return string(p) }

func (p startsWith) Detect(first []byte) Verdict {
	n := min(len(first), len(p))
	switch {
	case string(first[:n]) != string(p[:n]):
		return No
	case n < len(p):
		return Maybe
	}
	return Yes
}

func (startsWith) ServeConn(ctx context.Context, s *Server, conn net.Conn) error { return nil }

// chunks is a connection that brings some bytes in pieces, and notes that it was closed.
type chunks struct {
	data []byte
	size int
}

func (c *chunks) Read(b []byte) (int, error) {
	if len(c.data) == 0 {
		return 0, io.EOF
	}
	n := copy(b, c.data[:min(c.size, len(c.data))])
	c.data = c.data[n:]
	return n, nil
}

func (c *chunks) Write(b []byte) (int, error) { return len(b), nil }
func (c *chunks) Close() error                { return nil }

// FuzzDetect: the protocol of a connection does not depend on how its bytes come in, no
// byte is lost, and the native one is found by its preface and nothing else.
func FuzzDetect(f *testing.F) {
	for _, text := range []string{
		"", wire.Preface, wire.Preface + "\x00\x00\x00\x06", wire.Preface[:5], wire.Preface[:7] + "\x02",
		"GET / HTTP/1.1\r\n", "GE", `{"jsonrpc":"2.0"}`, "{", "\x16\x03\x01", string(make([]byte, 100)),
	} {
		f.Add([]byte(text), uint8(1))
		f.Add([]byte(text), uint8(64))
	}
	f.Fuzz(func(t *testing.T, data []byte, size uint8) {
		s := Server{Protocols: []Protocol{startsWith("GET "), startsWith("{"), startsWith("\xd9other"), startsWith(strings.Repeat("\x00", 64))}}
		s.prepare()
		conn := &chunks{data, int(size) + 1}
		p, first, err := s.detect(conn)
		native := bytes.HasPrefix(data, []byte(wire.Preface))
		if got := err == nil && p == nil; got != native {
			t.Fatalf("native: %v, want %v: %v", got, native, err)
		}
		if err != nil {
			for _, p := range s.Protocols {
				if p.Detect(data) == Yes {
					t.Fatalf("it is %q, and refused: %v", p.Name(), err)
				}
			}
			return
		}
		if got := append(bytes.Clone(first), conn.data...); !bytes.Equal(got, data) {
			t.Fatalf("of %q %q is left", data, got)
		}
		if p != nil && p.Detect(data) != Yes {
			t.Fatalf("taken for %q", p.Name())
		}
	})
}

// quota is an error that a fuzzed error record may be of.
type quota struct {
	Limit int
	Next  *quota
	By    map[string]any
}

func (q *quota) Error() string { return fmt.Sprint("quota of ", q.Limit) }

type plainError string

func (e plainError) Error() string { return string(e) }

// FuzzErrorRecord: an error record makes an error that can be asked everything, and
// crosses a connection again as the same text and code.
func FuzzErrorRecord(f *testing.F) {
	sentinel := errors.New("sold out")
	table := newErrorTable(map[string]error{"Quota": (*quota)(nil), "Plain": plainError(""), "ErrSoldOut": sentinel})
	for _, err := range []error{
		io.EOF, sentinel, &quota{Limit: 7}, plainError("plain"), Errorf(NotFound, "no %w", io.EOF), &Error{Code: 99, Details: map[string]any{"a": []int{1}}},
		errors.Join(io.EOF, fmt.Errorf("a: %w", &quota{By: map[string]any{"x": 1}})),
	} {
		f.Add(wire.AppendError(nil, table.record(slog.New(slog.DiscardHandler), "p", err, CBOR)))
	}
	f.Fuzz(func(t *testing.T, record []byte) {
		err := table.decode(record, CBOR)
		if err == nil {
			t.Fatal("no error")
		}
		if CodeOf(err) == 0 || !IsRemote(err) && CodeOf(err) != Internal {
			t.Fatalf("%v: %v", err, CodeOf(err))
		}
		_ = errors.Is(err, io.EOF) || errors.Is(err, sentinel)
		if q, ok := errors.AsType[*quota](err); ok {
			_ = q.Error()
		}
		DetailsAs[map[string]any](err)
		DetailsAs[quota](err)
		again := table.decode(wire.AppendError(nil, table.record(slog.New(slog.DiscardHandler), "p", err, CBOR)), CBOR)
		if again.Error() != err.Error() || CodeOf(again) != CodeOf(err) {
			t.Fatalf("%q (%v) becomes %q (%v)", err, CodeOf(err), again, CodeOf(again))
		}
	})
}

// everything has a field of each kind of type that decodes in its own way.
type everything struct {
	Bool    bool
	Int     int8
	Uint    uint16
	Float   float32
	String  string
	Bytes   []byte
	Array   [3]byte
	Time    time.Time
	Wait    time.Duration
	Big     *big.Int
	Addr    netip.Addr
	Raw     json.RawMessage
	Number  json.Number
	Text    textual
	Binary  binaried
	Tagged  int `json:"tagged,omitempty"`
	Map     map[int]string
	Any     any
	Next    *everything
	Many    []everything
	ByName  map[string]*everything
	Pointer **int
	Embedded
}

type Embedded struct{ Inner string }

type textual struct{ s string }

func (v textual) MarshalText() ([]byte, error)  { return []byte(v.s), nil }
func (v *textual) UnmarshalText(b []byte) error { v.s = string(b); return nil }

type binaried struct{ b []byte }

func (v binaried) MarshalBinary() ([]byte, error)  { return v.b, nil }
func (v *binaried) UnmarshalBinary(b []byte) error { v.b = bytes.Clone(b); return nil }

// decoded are the types that the codecs are tried with.
var decoded = []reflect.Type{
	reflect.TypeFor[any](), reflect.TypeFor[everything](), reflect.TypeFor[*everything](), reflect.TypeFor[[]byte](), reflect.TypeFor[string](),
	reflect.TypeFor[int](), reflect.TypeFor[float64](), reflect.TypeFor[map[string]any](), reflect.TypeFor[map[any]any](), reflect.TypeFor[[]any](),
	reflect.TypeFor[time.Time](), reflect.TypeFor[*big.Int](), reflect.TypeFor[json.RawMessage](), reflect.TypeFor[textual](), reflect.TypeFor[binaried](),
	reflect.TypeFor[*int](), reflect.TypeFor[[2]everything](), reflect.TypeFor[struct{}](),
}

// fuzzCodec: whatever the bytes, a codec returns a value or an error, and what is left is
// the end of what it was given. What it has decoded it can encode, or says why not, and
// what it has encoded it can decode.
func fuzzCodec(t *testing.T, codec Codec, data []byte) {
	if len(data) > 1<<16 {
		return
	}
	for _, typ := range decoded {
		v := reflect.New(typ)
		given := bytes.Clone(data)
		rest, err := codec.Decode(given, v.Interface())
		if !bytes.Equal(given, data) {
			t.Fatalf("%v: Decode has changed its bytes", typ)
		}
		if err != nil {
			continue
		}
		if len(rest) >= len(data) || !bytes.HasSuffix(data, rest) {
			t.Fatalf("%v: of %x %x is left", typ, data, rest)
		}
		msg := mux.NewMessage()
		if codec.Encode(&msg.Buffer, v.Elem().Interface()) == nil {
			tail, err := codec.Decode(msg.Bytes(), reflect.New(typ).Interface())
			if strings.Contains(textOf(err), "parsing time") {
				err, tail = nil, nil // a year beyond 9999 is no text of RFC 3339: see ROUGH_EDGES.md
			}
			if err != nil || len(tail) > 0 {
				t.Fatalf("%v: %x encodes to %x, of which %x is left: %v", typ, data, msg.Bytes(), tail, err)
			}
		}
		msg.Release()
	}
}

func textOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func FuzzCBOR(f *testing.F) {
	for _, v := range []any{
		nil, 1, -1, "text", []byte{1, 2}, 1.5, []any{1, "a", nil}, map[string]any{"a": 1}, map[any]any{1: "a"}, time.Unix(1, 2).UTC(),
		new(big.Int).Lsh(big.NewInt(1), 70), everything{Any: []int{1}, Next: new(everything), Map: map[int]string{1: "a"}},
	} {
		var buf bytes.Buffer
		if err := CBOR.Encode(&buf, v); err != nil {
			f.Fatal(err)
		}
		f.Add(buf.Bytes())
	}
	f.Add([]byte("\x9f\x01\xff"))                                     // indefinite
	f.Add([]byte("\x5b\xff\xff\xff\xff\xff\xff\xff\xff"))             // 2^64-1 bytes
	f.Add([]byte("\x9b\x00\x00\x00\x7f\xff\xff\xff\xff"))             // as many elements
	f.Add(bytes.Repeat([]byte{0x81}, 10_100))                         // depth
	f.Add([]byte("\xc1\xfb\x7e\x37\xe4\x3c\x88\x00\x75\x9c"))         // a far time
	f.Add(append([]byte("\xc2\x59\x10\x00"), make([]byte, 1<<12)...)) // a long bigint
	f.Fuzz(func(t *testing.T, data []byte) {
		fuzzCodec(t, CBOR, data)
		cut, rest, ok := CBOR.(bytesCutter).cutBytes(data)
		var b []byte
		left, err := CBOR.Decode(data, &b)
		if ok && (err != nil || !bytes.Equal(b, cut) || !bytes.Equal(left, rest)) {
			t.Fatalf("%x: cut to %x and %x, decoded to %x and %x: %v", data, cut, rest, b, left, err)
		}
	})
}

func FuzzJSON(f *testing.F) {
	for _, text := range []string{
		"null\n", "1 2", `"text"`, `"aGk="`, "[1,2,3]", `{"a":1}{"b":2}`, `{"Any":[1.5],"Next":{"Time":"2026-01-02T03:04:05Z"},"Big":123456789012345678901234567890}`,
		`{"Addr":"::1","Text":"x","Map":{"1":"a"},"Pointer":7}`, "1e400", `"\ud800"`, "\xff", " \t\r\n1 \n",
	} {
		f.Add([]byte(text))
	}
	f.Add(bytes.Repeat([]byte("["), 10_100))
	f.Fuzz(func(t *testing.T, data []byte) { fuzzCodec(t, JSON, data) })
}
