package yonder_test

import (
	"io"
	"net"
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
