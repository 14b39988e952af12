package jsonrpc_test

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/jsonrpc"
)

// noLeaks fails the test if it leaves goroutines behind.
func noLeaks(t *testing.T) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
}

// serve serves JSON-RPC on a TCP port until the test ends, and returns its address.
func serve(t testing.TB, srv *yonder.Server) (address string) {
	t.Helper()
	if srv.Protocols == nil {
		srv.Protocols = []yonder.Protocol{jsonrpc.Protocol}
	}
	if srv.Logger == nil {
		srv.Logger = newLogger(t)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }() // ends with Close
	t.Cleanup(func() {
		srv.Close()
		if err := <-served; err != yonder.ErrServerClosed {
			t.Errorf("Serve returned %v, want ErrServerClosed", err)
		}
	})
	return l.Addr().String()
}

// A peer is the other end of a connection, which says what the test has it say.
type peer struct {
	t      *testing.T
	conn   net.Conn
	in     *bufio.Reader
	header bool // frames with Content-Length
}

func dialPeer(t *testing.T, address string) *peer {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return newPeer(t, conn)
}

func newPeer(t *testing.T, conn net.Conn) *peer {
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return &peer{t: t, conn: conn, in: bufio.NewReader(conn)}
}

func (p *peer) send(text string) {
	p.t.Helper()
	if p.header {
		text = fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(text), text)
	}
	if _, err := io.WriteString(p.conn, text); err != nil {
		p.t.Fatal(err)
	}
}

// read returns the next message.
func (p *peer) read() string {
	p.t.Helper()
	if p.header {
		var n int
		line, err := p.in.ReadString('\n')
		if err != nil {
			p.t.Fatal(err)
		}
		if _, err := fmt.Sscanf(line, "Content-Length: %d\r\n", &n); err != nil {
			p.t.Fatalf("%q: %v", line, err)
		}
		b := make([]byte, 2+n)
		if _, err := io.ReadFull(p.in, b); err != nil {
			p.t.Fatal(err)
		}
		return string(b[2:])
	}
	line, err := p.in.ReadString('\n')
	if err != nil {
		p.t.Fatalf("%v after %q", err, line)
	}
	return strings.TrimSuffix(line, "\n")
}

func (p *peer) want(text string) {
	p.t.Helper()
	if got := p.read(); got != text {
		p.t.Errorf("got  %s\nwant %s", got, text)
	}
}

// ends has the server close the connection.
func (p *peer) ends() {
	p.t.Helper()
	if rest, err := io.ReadAll(p.in); len(rest) > 0 || err != nil {
		p.t.Errorf("the connection went on with %q, %v", rest, err)
	}
}

func newLogger(t testing.TB) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }
