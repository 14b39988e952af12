package yonder_test

import (
	"encoding/json"
	"io"
	"math"
	"math/big"
	"net"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/internal/wire"
	"github.com/yonder-rpc/yonder/yondertest"
)

// A codec that only one end has is an error at both, which says what to do.
func TestCodecNotAccepted(t *testing.T) {
	for _, m := range []mode{overTCP, overPipe} {
		t.Run(m.name, func(t *testing.T) {
			var log logBuffer
			srv := yonder.Server{Logger: log.logger()}
			srv.Register("hello", func() string { return "hello" })
			var c *yonder.Client
			d := yonder.Dialer{Codec: yonder.JSON, Logger: logger(t)}
			if m == overPipe {
				c = yondertest.PairDialer(t, &srv, &d)
			} else {
				c = m.dialer(t, &srv, &d)
			}
			_, err := yonder.Invoke[string](t.Context(), c, "hello")
			if yonder.CodeOf(err) != yonder.Unavailable || !strings.Contains(textOf(err), "Server.Codecs") {
				t.Errorf("the caller is told: %v", err)
			}
			c.Close()
			if err := srv.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			if want := `codec \"json\" is not accepted here, only cbor; list it in Server.Codecs`; !strings.Contains(log.String(), want) {
				t.Errorf("the log is %s; want %s", log.String(), want)
			}
		})
	}
}

// Both ends name what they have, and nobody JSON who has not been told to.
func TestCodecsNamed(t *testing.T) {
	for _, tt := range []struct {
		name      string
		codec     yonder.Codec
		codecs    []yonder.Codec
		near, far []string
	}{
		{"none", nil, nil, []string{"cbor"}, []string{"cbor"}},
		{"CBOR", yonder.CBOR, []yonder.Codec{yonder.JSON}, []string{"cbor"}, []string{"cbor", "json"}},
		{"JSON", yonder.JSON, []yonder.Codec{yonder.JSON}, []string{"json", "cbor"}, []string{"cbor", "json"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			near, far := net.Pipe()
			c := (&yonder.Dialer{Codec: tt.codec, Logger: logger(t)}).NewClient(near)
			defer c.Close()
			first, greeting := hello(t, far)
			far.Close()
			if diff := cmp.Diff(tt.near, greeting.Codecs); diff != "" {
				t.Errorf("the client: %s", diff)
			}

			near, far = net.Pipe()
			srv := yonder.Server{Codecs: tt.codecs, Logger: logger(t)}
			defer srv.Close()
			go srv.ServeConn(far) // ends with Close
			go near.Write(first)
			if _, greeting = hello(t, near); !cmp.Equal(tt.far, greeting.Codecs) {
				t.Errorf("the server: %s", cmp.Diff(tt.far, greeting.Codecs))
			}
			near.Close()
		})
	}
}

// hello reads the preface and HELLO, and returns them.
func hello(t *testing.T, conn io.Reader) ([]byte, *wire.Greeting) {
	t.Helper()
	b := make([]byte, 8+10)
	if _, err := io.ReadFull(conn, b); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, b[11]-6) // less the rest of the header
	if _, err := io.ReadFull(conn, body); err != nil {
		t.Fatal(err)
	}
	g, err := wire.ParseHello(body)
	if err != nil {
		t.Fatal(err)
	}
	return append(b, body...), g
}

type (
	// Loose has numbers behind interfaces, and others.
	Loose struct {
		embedded
		One   any
		List  []any
		Table map[string]any
		Pairs [2]map[string][]any
		Deep  *Loose
		Typed float64
		Text  json.Number
		Own   ownJSON

		hidden any
	}
	embedded struct{ Inner any }
	ownJSON  struct{ V any }
)

func (o *ownJSON) UnmarshalJSON(text []byte) error { o.V = string(text); return nil }

// An integer behind an interface is the one that was sent, as it is in CBOR: a float64 has 53 bits of it.
func TestJSONNumbers(t *testing.T) {
	large, _ := new(big.Int).SetString("123456789012345678901234567890", 10)
	const text = `{"Inner": 1, "One": 9007199254740993, "List": [-9007199254740993, 1.5, -0, 1e3, "7", null, true, [2]],
		"Table": {"a": 123456789012345678901234567890, "b": {"c": 3}}, "Pairs": [{"x": [4]}],
		"Deep": {"One": 5}, "Typed": 6, "Text": 7, "Own": 8} `
	have := Loose{hidden: json.Number("0")}
	rest, err := yonder.JSON.Decode([]byte(text+"9"), &have)
	if err != nil || string(rest) != "9" {
		t.Fatalf("%q is left; %v", rest, err)
	}
	want := Loose{
		embedded: embedded{int64(1)}, One: int64(9007199254740993),
		List:  []any{int64(-9007199254740993), 1.5, math.Copysign(0, -1), 1000.0, "7", nil, true, []any{int64(2)}},
		Table: map[string]any{"a": large, "b": map[string]any{"c": int64(3)}},
		Pairs: [2]map[string][]any{{"x": {int64(4)}}},
		Deep:  &Loose{One: int64(5)}, Typed: 6, Text: "7", Own: ownJSON{"8"}, hidden: json.Number("0"),
	}
	if !reflect.DeepEqual(have, want) {
		t.Errorf("have %+v\nwant %+v", have, want)
	}
	var one any
	if _, err := yonder.JSON.Decode([]byte(`[1e999]`), &one); err == nil {
		t.Errorf("a number beyond a float64 is %v", one)
	}
}
