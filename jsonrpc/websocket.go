package jsonrpc

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

// webSocket serves a WebSocket, each of whose messages is a message or a batch.
func (h *handler) webSocket(w http.ResponseWriter, r *http.Request) {
	// The origin has been checked.
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return // it has answered
	}
	defer ws.CloseNow()
	s := &socket{ws: ws}
	c := newConn(h.serviceOf(r), s)
	stop, leave, err := h.srv.Join(usedSocket{s, c})
	if err != nil {
		c.end(err)
		ws.Close(websocket.StatusGoingAway, "the server is shutting down")
		return
	}
	defer leave()
	s.start(c.ctx, c.limits.MaxMessage, c.limits.KeepAlive)
	c.next = s.next
	c.framing = func() framing { return packets }
	c.w = newWriter(s, c.limits.KeepAlive, s.send)
	c.bye = func() { ws.Close(websocket.StatusGoingAway, "no more calls are taken") }
	c.serve(stop)
	s.wait()
}

// usedSocket is a WebSocket of a server's, of which [yonder.Server.Join] asks whether it is used.
type usedSocket struct {
	*socket
	conn *conn
}

func (u usedSocket) Used() (busy bool, moves uint64) {
	c := u.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.messages+c.streams > 0, u.read.Load()
}

// A socket is a WebSocket, of either end's.
type socket struct {
	read    atomic.Uint64 // pieces of messages, so far
	ws      *websocket.Conn
	scan    scanner
	slow    slowness
	timeout time.Duration // less than zero: none
	pinging chan struct{} // closed when the pings have ended; nil: there are none
}

// start sets the limits, and has the other end asked for signs of life until ctx ends.
func (s *socket) start(ctx context.Context, most int, keepAlive time.Duration) {
	s.ws.SetReadLimit(int64(most))
	s.timeout = keepAlive
	s.slow.timeout, s.slow.close = keepAlive, func() { s.Close() }
	if keepAlive < 0 {
		return
	}
	s.pinging = make(chan struct{})
	go func() { // ends with ctx, or the connection
		defer close(s.pinging)
		t := time.NewTicker(keepAlive)
		defer t.Stop()
		for {
			select {
			case <-t.C:
			case <-ctx.Done():
				return
			}
			ping, cancel := context.WithTimeout(ctx, keepAlive)
			err := s.ws.Ping(ping)
			cancel()
			if err != nil {
				s.Close()
				return
			}
		}
	}()
}

// wait waits for what start began.
func (s *socket) wait() {
	if s.pinging != nil {
		<-s.pinging
	}
}

func (s *socket) Close() error { return s.ws.CloseNow() }

// next returns the next message.
func (s *socket) next() ([]byte, error) {
	_, r, err := s.ws.Reader(context.Background())
	if err == nil {
		s.slow.on()
		defer s.slow.off()
		var text []byte
		if text, err = io.ReadAll(counted{r, s}); err == nil {
			return s.scan.wellFormed(text)
		}
	}
	switch {
	case errors.Is(err, websocket.ErrMessageTooBig):
		return nil, err
	case websocket.CloseStatus(err) == websocket.StatusNormalClosure || websocket.CloseStatus(err) == websocket.StatusGoingAway:
		return nil, io.EOF
	}
	return nil, err
}

// counted counts what is read.
type counted struct {
	io.Reader
	socket *socket
}

func (c counted) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.socket.slow.took(n)
	c.socket.read.Add(1)
	return n, err
}

// send writes messages, one after another.
func (s *socket) send(batch []byte, ends []int) error {
	from := 0
	for _, end := range ends {
		text := batch[from:end]
		from = end
		var t *time.Timer
		if s.timeout >= 0 {
			t = time.AfterFunc(s.timeout+time.Duration(len(text)/minRate)*time.Second, func() { s.Close() })
		}
		err := s.ws.Write(context.Background(), websocket.MessageText, text)
		if t != nil {
			t.Stop()
		}
		if err != nil {
			return err
		}
	}
	return nil
}
