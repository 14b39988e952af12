package jsonrpc

import (
	"bytes"
	"encoding/json"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/yonder-rpc/yonder"
)

// The scanner takes what encoding/json does, wherever the text is cut, and finds the
// members and elements that encoding/json finds.
func FuzzScanner(f *testing.F) {
	for _, text := range []string{
		`{"a":[1,-2.5e+3,"x\"\u00e9",null,true,false],"b":{}}`, `[]`, ` 0 `, `-`, `1e`, `"\u12g4"`, `[01]`, `{"a" 1}`, `[1,]`, `{,}`, `nul`, "\"\x01\"", `{"a":1}{`, `[[[[`, "\"\xff\"", `-0.0E-0`,
	} {
		f.Add([]byte(text), 1)
	}
	f.Fuzz(func(t *testing.T, text []byte, cut int) {
		if bytes.Count(text, []byte{'['})+bytes.Count(text, []byte{'{'}) > 1000 {
			return // encoding/json and this package count differently where it is too much
		}
		var s scanner
		want := json.Valid(text)
		if got := s.check(text); (got == nil) != want {
			t.Fatalf("check: %v, want %v", got, want)
		}
		if cut < 0 || cut > len(text) {
			cut = len(text) / 2
		}
		s.reset()
		n, done, err := s.scan(text[:cut])
		if err == nil && !done {
			var m int
			m, done, err = s.scan(text[cut:])
			n += m
		}
		ok := err == nil && (done && space(text, n) == len(text) || !done && s.done())
		if ok != want {
			t.Fatalf("in two pieces: %v, %v, want %v", done, err, want)
		}
		if !want {
			return
		}
		switch trimmed := bytes.TrimSpace(text); trimmed[0] {
		case '[':
			var list []json.RawMessage
			json.Unmarshal(trimmed, &list)
			var got []json.RawMessage
			for from, to := range elements(trimmed) {
				got = append(got, trimmed[from:to])
			}
			if len(got) != len(list) {
				t.Fatalf("%d elements, want %d", len(got), len(list))
			}
			for i := range got {
				if !bytes.Equal(got[i], list[i]) {
					t.Errorf("element %d is %s, want %s", i, got[i], list[i])
				}
			}
		case '{':
			var object map[string]json.RawMessage
			json.Unmarshal(trimmed, &object)
			got := map[string]json.RawMessage{}
			for name, value := range members(trimmed) {
				got[strings.ToValidUTF8(unquote(name[1:len(name)-1]), "\uFFFD")] = value
			}
			if utf8.Valid(trimmed) && len(got) != len(object) {
				t.Errorf("members %q, want %q", got, object)
			}
		}
	})
}

// A stream of bytes is read as the same messages, whatever pieces it comes in, and any
// stream is read without a panic and without more memory than it has bytes.
func FuzzReader(f *testing.F) {
	for _, text := range []string{
		`{"a":1}{"b":2}`, "[1]\n 2 {", "Content-Length: 2\r\n\r\n{}Content-Length: 3\r\n\r\n[1]", "Content-Length: 9\r\n\r\n{}", "content-type: x\r\nContent-Length: 1\r\n\r\n1", "{]", "[\"\xff\"]{}", "Content-", strings.Repeat("[", 300),
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		read := func(from io.Reader) (messages []string, last string) {
			r := &reader{conn: from, max: 256}
			r.slow.timeout = -1
			for {
				text, err := r.next()
				if fault, ok := err.(*textError); ok && fault.framed {
					messages = append(messages, "fault")
					continue
				}
				if err != nil {
					return messages, err.Error()
				}
				if len(text) == 0 || len(text) > 256 || !json.Valid(text) || !utf8.Valid(text) {
					t.Fatalf("a message is %q", text)
				}
				messages = append(messages, string(text))
			}
		}
		whole, why := read(bytes.NewReader(stream))
		pieces, whyPieces := read(iotest.OneByteReader(bytes.NewReader(stream)))
		if diff := cmp.Diff(whole, pieces); diff != "" || why != whyPieces {
			t.Errorf("in pieces, %q instead of %q:\n%s", whyPieces, why, diff)
		}
	})
}

// A request is one of those that encoding/json would see, were it strict.
func FuzzRequest(f *testing.F) {
	for _, text := range []string{
		`{"jsonrpc":"2.0","method":"a","params":[1],"id":1}`, `{"method":"a","id":null}`, `{"jsonrpc":"2.0","method":"a","id":{}}`, `{"ID":1,"id":2}`, `{"i\u0064":1,"id":2}`,
		`{"jsonrpc":"2.0","method":"a","timeout":1e300,"meta":{"a":"b"}}`, `[]`, `{"jsonrpc":"2.0","method":"\ud800","params":{}}`,
	} {
		f.Add([]byte(text))
	}
	limits := yonder.Limits{}.WithDefaults()
	f.Fuzz(func(t *testing.T, text []byte) {
		var s scanner
		text, err := s.wellFormed(text)
		if err != nil {
			return
		}
		var r request
		if why := readRequest(text, &r, &limits); why != "" {
			if r.id != nil && idOf(r.id) == nil {
				t.Errorf("%s would be answered with the id %s", text, r.id)
			}
			return
		}
		var exact map[string]json.RawMessage // which takes no other case for the same
		if err := json.Unmarshal(text, &exact); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		var method string
		json.Unmarshal(exact["method"], &method)
		if method != r.method {
			t.Errorf("the method is %q, want %q", r.method, method)
		}
		_, hasVersion := exact["jsonrpc"]
		_, hasID := exact["id"]
		if hasVersion == r.legacy || !hasID != r.note && hasVersion {
			t.Errorf("%s: version 1.0 %v, notification %v", text, r.legacy, r.note)
		}
		if !r.note {
			out := newBuffer()
			service := service{srv: new(yonder.Server), limits: limits}
			service.write(&r, out, nil, nil, func() error { return out.value("x") })
			if !json.Valid(out.Bytes()) {
				t.Errorf("the answer is %s", out)
			}
		}
	})
}

// Of a message that is skipped the id is known, wherever it is cut.
func FuzzSkipper(f *testing.F) {
	for _, text := range []string{
		`{"id":1}`, `{"a":{"id":2},"id" : "x" ,"b":"id"}`, `{"id":1,"id":2}`, `{"id":[1,{"id":2}],"idx":3}`, `{"i\u0064":1}`, `[{"id":1}]`, `{"a":"id","b":[1,2],"id":-1.5e3}`, `{}`, `"id"`, `{"ID":1,"":2}`,
	} {
		f.Add([]byte(text), 1)
	}
	f.Fuzz(func(t *testing.T, text []byte, cut int) {
		var scan scanner
		text, err := scan.wellFormed(text)
		if err != nil || text[0] != '{' {
			return
		}
		if cut < 0 || cut > len(text) {
			cut = len(text) / 2
		}
		want := open(text)
		if bytes.Contains(text, []byte(`\u0`)) || len(want.id) > maxID-10 {
			return // a name that is written in another way is not found, nor a long id
		}
		var s skipper
		_, done, err := s.skip(text[:cut])
		if !done && err == nil {
			_, done, err = s.skip(text[cut:])
		}
		if !done || err != nil || string(s.id) != string(want.id) {
			t.Errorf("%s: done %t, %v, id %s; want %s", text, done, err, s.id, want.id)
		}
	})
}

type flatExample struct {
	A int8 `json:"a"`
	B string
	C float32 `json:",omitempty"`
	D bool
	E uint64 `json:"-"`
	F uint   `json:"f,omitempty"`
}

// writtenExample is written by a plan: no field is left out where it is zero.
type writtenExample struct {
	At    time.Time
	Bytes []byte
	Name  *string `json:"n"`
	Sum   float32
	Mean  float64
	Count []uint16
	Yes   bool
	Next  []*writtenExample
}

type planExample struct {
	Flat  *flatExample
	List  []flatExample `json:"l"`
	Names []string
	Bytes []byte
	At    time.Time
	Next  *planExample
	Deep  [][]*int
}

// A value is decoded as encoding/json does it.
func FuzzDecode(f *testing.F) {
	for _, text := range []string{
		`{"a":1,"B":"x","C":1.5,"D":true,"f":3}`, `{"a":300}`, `{"A":1}`, `{"b":"x"}`, `{"a":null}`, `{"B":"\u00e9"}`, `{"a":1.0}`, `{"a":1e2}`, `{"C":1e300}`, `{"f":-1}`, `{"a":1,"a":2}`, `{"x":1}`, `[1]`, `{"D":1}`, `{"C":"1"}`, `{"C":null}`, `{"E":1,"-":2}`, `{"a":-0}`, `"x"`,
		`{"Flat":{"a":1},"l":[{"B":"x"},null,{"a":2}],"Names":["a","\u00e9",null],"Bytes":"aGk=","At":"2020-01-02T03:04:05Z","Next":{"Next":null},"Deep":[[1,null],[],null]}`,
		`{"l":[{"a":1,"f":2}],"l":[{"a":3}]}`, `{"l":[{"a":1,"f":2}],"L":[{"a":3}]}`, `{"Bytes":[1,2]}`, `{"Bytes":"?"}`, `{"At":1}`, `{"Names":[]}`, `{"At":"2020-01-02T03:04:05.6+07:00","Bytes":"aGk=","n":"<\u2028\"é","Sum":1e-7,"Mean":1e21,"Count":[1,2],"Yes":true,"Next":[{"Sum":0.1,"Mean":-0.0},null]}`, `{"Names":{}}`, `[ { "Names" : [ "a" , "b" ] } , { } ]`, `[[1]]`, `"aGk="`, `"a\nGk="`, `null`, `[null]`, `12`, `1.5`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var s scanner
		text, err := s.wellFormed(text)
		if err != nil {
			return
		}
		for _, example := range []any{flatExample{}, (*flatExample)(nil), planExample{}, writtenExample{}, []planExample(nil), []int(nil), []byte(nil), "", 0, map[string]int(nil)} {
			got, want := reflect.New(reflect.TypeOf(example)), reflect.New(reflect.TypeOf(example))
			err, wantErr := decode(text, got.Interface()), json.Unmarshal(text, want.Interface())
			if (err == nil) != (wantErr == nil) {
				t.Fatalf("%T: %v, want %v", example, err, wantErr)
			}
			if diff := cmp.Diff(want.Interface(), got.Interface()); diff != "" && err == nil {
				t.Errorf("%T: %s", example, diff)
			}
			// And encoded.
			var text bytes.Buffer
			e := json.NewEncoder(&text)
			e.SetEscapeHTML(false)
			if out := newBuffer(); err == nil && e.Encode(want.Interface()) == nil {
				if err := out.value(got.Elem().Interface()); err != nil || out.String()+"\n" != text.String() {
					t.Errorf("%T is written as %s, %v; want %s", example, out, err, text.String())
				}
			}
		}
		var v any
		if decode(text, &v) != nil {
			return
		}
		out := newBuffer()
		if err := out.value(v); err != nil {
			t.Fatalf("%#v: %v", v, err)
		}
		var again any
		if err := decode(out.Bytes(), &again); err != nil {
			t.Fatalf("%s became %s: %v", text, out, err)
		}
		// 1.0 is written as 1, which is another number to Go.
		if second := newBuffer(); second.value(again) != nil || second.String() != out.String() {
			t.Errorf("%s became %s and then %s", text, out, second)
		}
	})
}
