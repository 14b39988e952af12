package rpc

import (
	"bytes"
	"encoding/gob"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/internal/buffer"
)

// foreignHeader is a header with fields that are none, in an order of its own.
type foreignHeader struct {
	Extra         float64
	Seq           uint64
	Parts         complex128
	Raw           []byte
	Metadata      []string
	Error         string
	ServiceMethod string
	Timeout       int64
	Note          string
	Code          string
}

// FuzzHeader compares headers with those that gob writes and reads.
func FuzzHeader(f *testing.F) {
	f.Add("Math.Add", uint64(1), "", uint8(0), int64(0), "", "", uint64(0), []byte{0xff, 0x82, 1, 1, 'x', 0})
	f.Add("", uint64(0), "no", uint8(5), int64(-1), "key", "value", uint64(1), []byte{0xff, 0x82, 2, 0xff, 1, 0})
	f.Add(string(make([]byte, 200)), uint64(1<<63), string(make([]byte, 9_000)), uint8(16), int64(1<<62), "k", string(make([]byte, 300)), uint64(1<<40), []byte{0xff, 0x82, 0})
	f.Add("a", uint64(127), "b", uint8(3), int64(1), "", "v", uint64(128), []byte{0xff, 0x82, 7, 1, 'm', 0, 0})
	f.Fuzz(func(t *testing.T, method string, seq uint64, text string, code uint8, timeout int64, key, value string, features uint64, raw []byte) {
		m := yonder.Metadata{key: value}
		if key == "" {
			m = nil
		}
		request := &requestExt{time.Duration(timeout), m, features}
		response := &responseExt{yonder.Code(code % 17), m, features}
		var buf bytes.Buffer
		enc := gob.NewEncoder(&buf)
		o := newOutbox(io.Discard, nil)
		o.buf = new(buffer.Buffer)
		for _, h := range []header{
			&Request{ServiceMethod: method, Seq: seq, ext: nil}, &Request{ServiceMethod: method, Seq: seq, ext: nil}, &Request{ServiceMethod: method, Seq: seq, ext: request}, &Request{ServiceMethod: method, Seq: seq, ext: request}, &Request{ServiceMethod: "", Seq: 0, ext: nil}, &Request{ServiceMethod: "", Seq: 0, ext: new(requestExt)},
			&Response{method, seq, text, nil}, &Response{method, seq, text, nil}, &Response{method, seq, text, response}, &Response{method, seq, text, response}, &Response{"", 0, "", new(responseExt)},
		} {
			if err := enc.Encode(h.wire()); err != nil {
				t.Fatal(err)
			}
			if err := o.headLocked(h); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(buf.Bytes(), o.buf.B); diff != "" {
				t.Fatalf("%#v: %s", h, diff)
			}
		}

		// What is read without gob is what gob reads.
		for _, first := range []any{&Request{}, &requestHeader{}, &Response{}, &responseHeader{}, &foreignHeader{}} {
			var stream bytes.Buffer
			enc := gob.NewEncoder(&stream)
			enc.Encode(first)
			before := stream.Len()
			if own, ok := first.(header); ok {
				first = own.wire()
			}
			switch h := first.(type) {
			case *Request:
				h.ServiceMethod, h.Seq = method, seq
			case *Response:
				h.ServiceMethod, h.Seq, h.Error = method, seq, text
			case *requestHeader:
				*h = requestHeader{method, seq, timeout, []string{key, value}, features}
			case *responseHeader:
				*h = responseHeader{method, seq, text, "not_found", []string{key, value}, features}
			case *foreignHeader:
				*h = foreignHeader{1.5, seq, 2i, raw, []string{key, value}, text, method, timeout, value, key}
			}
			enc.Encode(first)
			number := numberOf(stream.Bytes()[before:])
			for _, message := range [][]byte{nil, raw, append(number, raw...)} {
				all := append(append([]byte(nil), stream.Bytes()...), appendUint(nil, uint64(len(message)))...)
				all = append(all, message...)
				for _, answer := range []bool{false, true} {
					compareHeaders(t, all, answer)
				}
			}
		}
	})
}

// compareHeaders reads three headers from a stream, by gob alone and not.
func compareHeaders(t *testing.T, stream []byte, answer bool) {
	by, without := newGobDecoder(bytes.NewReader(stream), 1<<20), newGobDecoder(bytes.NewReader(stream), 1<<20)
	for range 3 {
		want, err := decodeHeader(&by, answer)
		var got headerFields
		read, failed := without.guard.header(&got, answer)
		switch {
		case !read:
			if got, failed = decodeHeader(&without, answer); textOf(failed) != textOf(err) {
				t.Fatalf("got %v, want %v", failed, err)
			}
		case failed == nil && err != nil:
			t.Fatalf("gob does not read this: %v", err)
		case textOf(failed) != textOf(err):
			t.Fatalf("got %v, want %v", failed, err)
		}
		if err != nil || failed != nil {
			return
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(headerFields{})); diff != "" {
			t.Fatal(diff)
		}
	}
}

func decodeHeader(d *gobDecoder, answer bool) (headerFields, error) {
	if answer {
		var h responseHeader
		err := d.decode(&h)
		return headerFields{method: h.ServiceMethod, seq: h.Seq, err: h.Error, code: h.Code, metadata: h.Metadata, features: h.Features}, err
	}
	var h requestHeader
	err := d.decode(&h)
	return headerFields{method: h.ServiceMethod, seq: h.Seq, timeout: time.Duration(h.Timeout), metadata: h.Metadata, features: h.Features}, err
}

func textOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Headers are read without gob from the second one on.
func TestHeaderWithoutGob(t *testing.T) {
	var stream bytes.Buffer
	enc := gob.NewEncoder(&stream)
	for range 3 {
		enc.Encode(&foreignHeader{ServiceMethod: "Math.Add", Seq: 7, Metadata: []string{"k", "v"}, Timeout: 5})
	}
	d := newGobDecoder(&stream, 0)
	if read, err := d.guard.header(new(headerFields), false); read || err != nil {
		t.Fatalf("the first: %t, %v", read, err)
	}
	if _, err := decodeHeader(&d, false); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		var got headerFields
		read, err := d.guard.header(&got, false)
		want := headerFields{method: "Math.Add", seq: 7, metadata: []string{"k", "v"}, timeout: 5}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(headerFields{})); diff != "" || !read || err != nil {
			t.Errorf("%t, %v, %s", read, err, diff)
		}
	}
}

// A header is not judged by what was wanted of the value before it.
func TestHeaderNils(t *testing.T) {
	type header struct {
		ServiceMethod string
		Seq           uint64
		Extra         []any // which gob passes over
	}
	stream := guardStream(t, header{"f", 1, []any{1}}, guardExtra{Extra: []any{1}}, header{"f", 2, []any{nil, 1}})
	d := newGobDecoder(bytes.NewReader(stream), 0)
	if _, err := decodeHeader(&d, false); err != nil {
		t.Fatal(err)
	}
	if err := d.decode(new(guardExtra)); err != nil {
		t.Fatal(err)
	}
	if read, err := d.guard.header(new(headerFields), false); read || err != nil {
		t.Fatalf("%t, %v; want it left to gob", read, err)
	}
	if h, err := decodeHeader(&d, false); err != nil || h.method != "f" || h.seq != 2 {
		t.Errorf("%+v, %v", h, err)
	}
}

// Where arguments are decoded late, headers need no gob from the second one on, either.
func TestHeaderBeforeLateArguments(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	go func() { // ends with near, or when all is written
		enc := gob.NewEncoder(far)
		for i := range 3 {
			enc.Encode(&requestHeader{ServiceMethod: "f", Seq: uint64(i + 1), Metadata: []string{"k", "v"}})
			enc.Encode(guardNames{"one"})
		}
		far.Close()
	}()
	c := newGobServerCodec(near, 0, true)
	c.late = newLateDecoder(c.guard, nil)
	var held []lateValue
	for i := range 3 {
		var r Request
		if err := c.ReadRequestHeader(&r); err != nil || r.ServiceMethod != "f" || r.Seq != uint64(i+1) || r.ext.metadata["k"] != "v" {
			t.Fatalf("%+v, %v", r, err)
		}
		if c.header.Seq != 1 {
			t.Errorf("header %d was read by gob", i+1)
		}
		value, err := c.holdRequestBody(new(guardNames))
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, value)
	}
	for _, value := range slices.Backward(held) {
		var names guardNames
		if err := c.late.decode(value, &names); err != nil || names.Name != "one" {
			t.Errorf("%v, %v", names, err)
		}
	}
}
