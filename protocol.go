package yonder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"github.com/yonder-rpc/yonder/internal/mux"
	"github.com/yonder-rpc/yonder/internal/wire"
)

// A Protocol is one more way to bring calls to a server. It reads them from a
// connection, has [Server.Call] do each ([Server.Target] says what to decode), and writes
// the answers. Protocols share a port: the first bytes of a connection decide which one
// it speaks.
//
// One that has a method Refuse(conn net.Conn, reason string) tells with it, in its own terms, peers
// beyond [ConnLimits.Max] that they are not served. It has a second for that, and need not close the
// connection.
type Protocol interface {
	// Name is what the protocol is called in logs and in [CallInfo].
	Name() string
	// Detect judges the first bytes of a connection, 1 to 64 of them: whether they begin
	// the protocol, or could if there were more.
	Detect(first []byte) Verdict
	// ServeConn serves a connection until it ends, and closes it. When ctx ends, the server
	// is shutting down: it lets calls in flight end, takes no new ones, and returns. When the
	// server closes the connection, it returns too.
	ServeConn(ctx context.Context, s *Server, conn net.Conn) error
}

// refuser is a [Protocol] that tells a peer itself that it is not served.
type refuser interface {
	Refuse(conn net.Conn, reason string)
}

// A Verdict is a [Protocol]'s judgement of a connection's first bytes.
type Verdict int

// The verdicts.
const (
	No    Verdict = iota // not this protocol
	Maybe                // there are too few bytes to tell
	Yes
)

// maxFirst is how many bytes a protocol must be told by.
const maxFirst = 64

// detect reads a connection's first bytes until it is clear which protocol they
// begin; nil is the native one. It returns what it has read.
func (s *Server) detect(conn io.ReadWriteCloser) (Protocol, []byte, error) {
	timeout := s.Limits.WithDefaults().FirstByte
	timer := time.AfterFunc(timeout, func() { conn.Close() })
	var first []byte
	buf := make([]byte, maxFirst)
	for {
		n, err := conn.Read(buf[:maxFirst-len(first)])
		first = append(first, buf[:n]...)
		if n > 0 {
			p, verdict := s.judge(first)
			if verdict == Yes {
				if !timer.Stop() {
					return nil, nil, fmt.Errorf("it took longer than %v to begin", timeout)
				}
				return p, first, nil
			}
			if verdict == No || len(first) == maxFirst {
				timer.Stop()
				return nil, nil, fmt.Errorf("it speaks no protocol that is served here: it began with %q", shown(first))
			}
		}
		if err != nil {
			if !timer.Stop() {
				err = fmt.Errorf("it did not say what protocol it speaks within %v", timeout)
			} else if len(first) > 0 && err == io.EOF {
				err = fmt.Errorf("it ended after %q, which no protocol begins and ends with", shown(first))
			}
			return nil, nil, err
		}
	}
}

// shown returns what of a connection's first bytes may be logged: enough to see what the peer
// speaks, and not yet a password in a header.
func shown(first []byte) []byte { return first[:min(len(first), 16)] }

// judge asks the protocols about a connection's first bytes.
func (s *Server) judge(first []byte) (Protocol, Verdict) {
	if n := min(len(first), len(wire.Preface)); string(first[:n]) == wire.Preface[:n] {
		if n == len(wire.Preface) {
			return nil, Yes
		}
		return nil, Maybe
	}
	verdict := No
	for _, p := range s.Protocols {
		switch p.Detect(first) {
		case Yes:
			return p, Yes
		case Maybe:
			verdict = Maybe
		}
	}
	return nil, verdict
}

// prefixConn is a connection some of whose bytes have been read.
type prefixConn struct {
	net.Conn
	prefix []byte
	count  *mux.Count // of its protocol's bytes
	use    *use       // nil: nobody asks
}

func (c *prefixConn) Read(b []byte) (int, error) {
	if len(c.prefix) > 0 {
		n := copy(b, c.prefix)
		c.prefix = c.prefix[n:]
		return n, nil
	}
	n, err := c.Conn.Read(b)
	c.count.Read.Add(uint64(max(n, 0)))
	c.use.moved()
	return n, err
}

func (c *prefixConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.count.Written.Add(uint64(max(n, 0)))
	c.use.moved()
	return n, err
}

// NetConn returns the connection underneath, as that of package crypto/tls does.
func (c *prefixConn) NetConn() net.Conn { return c.Conn }

// asNetConn makes a net.Conn of conn, without deadlines if it has none.
func asNetConn(conn io.ReadWriteCloser) net.Conn {
	if c, ok := conn.(net.Conn); ok {
		return c
	}
	return plainConn{conn}
}

type plainConn struct{ io.ReadWriteCloser }

type plainAddr struct{}

func (plainAddr) Network() string { return "stream" }
func (plainAddr) String() string  { return "stream" }

func (plainConn) LocalAddr() net.Addr                { return plainAddr{} }
func (plainConn) RemoteAddr() net.Addr               { return plainAddr{} }
func (plainConn) SetDeadline(t time.Time) error      { return errors.ErrUnsupported }
func (plainConn) SetReadDeadline(t time.Time) error  { return errors.ErrUnsupported }
func (plainConn) SetWriteDeadline(t time.Time) error { return errors.ErrUnsupported }

// addrOf returns what a log says of a connection's other end.
func addrOf(conn any) string {
	if c, ok := conn.(net.Conn); ok && c.RemoteAddr() != nil {
		return c.RemoteAddr().String()
	}
	return "stream"
}

// codecNamed finds a codec.
func codecNamed(codecs []Codec, name string) (Codec, error) {
	if i := slices.IndexFunc(codecs, func(c Codec) bool { return c.Name() == name }); i >= 0 {
		return codecs[i], nil
	}
	var have bytes.Buffer
	for i, c := range codecs {
		if i > 0 {
			have.WriteString(", ")
		}
		have.WriteString(c.Name())
	}
	return nil, fmt.Errorf("codec %q is not accepted here, only %s; list it in Server.Codecs", name, have.String())
}
