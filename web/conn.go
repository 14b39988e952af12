package web

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// hijacker remembers the connection that is taken from an HTTP server.
type hijacker struct {
	http.ResponseWriter
	conn net.Conn
}

// Hijack implements [http.Hijacker].
func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffer, err := http.NewResponseController(h.ResponseWriter).Hijack()
	h.conn = conn
	return conn, buffer, err
}

// tunnel is a connection that was HTTP and is not any more.
type tunnel struct {
	net.Conn
	read          []byte // what has been read of it
	authorization string
}

// Authorization implements [layers.Began].
func (t *tunnel) Authorization() string { return t.authorization }

func (t *tunnel) Read(b []byte) (int, error) {
	if len(t.read) > 0 {
		n := copy(b, t.read)
		t.read = t.read[n:]
		return n, nil
	}
	return t.Conn.Read(b)
}

// NetConn returns the connection underneath.
func (t *tunnel) NetConn() net.Conn { return t.Conn }

// socket is a connection over a WebSocket: a stream of bytes, in binary messages that begin and
// end anywhere. Its Close waits for nobody, unlike that of websocket.NetConn, and so does it when
// a deadline has passed.
type socket struct {
	ws    *websocket.Conn
	under net.Conn  // the server's side; nil: the client's, which does not know it
	rest  io.Reader // of the current message; nil: there is none

	authorization string // of the request that it began as

	close sync.Once

	mu          sync.Mutex
	read, write *time.Timer // deadlines; nil: none was set. Guarded by mu
}

func newSocket(ws *websocket.Conn, under net.Conn) *socket {
	ws.SetReadLimit(-1) // no message is held as a whole
	return &socket{ws: ws, under: under}
}

func (s *socket) Read(b []byte) (int, error) {
	for {
		if s.rest == nil {
			kind, r, err := s.ws.Reader(context.Background())
			if err != nil {
				return 0, readError(err)
			}
			if kind != websocket.MessageBinary {
				s.Close()
				return 0, errors.New("a text message where binary ones are due")
			}
			s.rest = r
		}
		n, err := s.rest.Read(b)
		if err == io.EOF {
			s.rest, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, readError(err)
		}
	}
}

// readError returns io.EOF if the other end has closed the connection, in whatever way.
func readError(err error) error {
	switch status := websocket.CloseStatus(err); {
	case status == websocket.StatusNormalClosure, status == websocket.StatusGoingAway,
		status == websocket.StatusNoStatusRcvd, errors.Is(err, io.EOF):
		return io.EOF
	}
	return err
}

func (s *socket) Write(b []byte) (int, error) {
	if err := s.ws.Write(context.Background(), websocket.MessageBinary, b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Authorization implements [layers.Began].
func (s *socket) Authorization() string { return s.authorization }

// closing is a Close frame, status 1000.
var closing = []byte{0x88, 2, 0x03, 0xe8}

// Close closes the connection. The other end may be told, but its answer is not waited for.
func (s *socket) Close() error {
	err := net.ErrClosed
	s.close.Do(func() {
		under := s.under
		if p, ok := under.(*patientConn); ok {
			under = p.Conn // here is no patience
		}
		if under != nil {
			under.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
			under.Write(closing)
		}
		err = s.ws.CloseNow()
		s.SetDeadline(time.Time{})
	})
	return err
}

// NetConn returns the connection underneath; nil: it is not known.
func (s *socket) NetConn() net.Conn { return s.under }

type addr struct{}

func (addr) Network() string { return "websocket" }
func (addr) String() string  { return "websocket" }

func (s *socket) LocalAddr() net.Addr {
	if s.under == nil {
		return addr{}
	}
	return s.under.LocalAddr()
}

func (s *socket) RemoteAddr() net.Addr {
	if s.under == nil {
		return addr{}
	}
	return s.under.RemoteAddr()
}

func (s *socket) SetDeadline(t time.Time) error {
	s.SetReadDeadline(t)
	return s.SetWriteDeadline(t)
}

func (s *socket) SetReadDeadline(t time.Time) error  { return s.set(&s.read, t) }
func (s *socket) SetWriteDeadline(t time.Time) error { return s.set(&s.write, t) }

// set has the connection closed at a time, instead of the one set before.
func (s *socket) set(timer **time.Timer, t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if *timer != nil {
		(*timer).Stop()
		*timer = nil
	}
	if !t.IsZero() {
		*timer = time.AfterFunc(time.Until(t), func() { s.Close() })
	}
	return nil
}
