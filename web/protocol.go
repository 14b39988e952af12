package web

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/internal/layers"
)

// Protocol has a [yonder.Server] serve HTTP on the port that it has: list it in
// [yonder.Server.Protocols]. It speaks HTTP/1.0 and 1.1. [Config.Protocol] returns one that is
// configured.
//
// Of the server's limits, FirstByte is how long the header of a request may take, and KeepAlive
// bounds the pauses within its body, and of a peer that does not read its answer. A header has 64
// KiB at most, and between two requests a connection may rest for two minutes.
var Protocol = new(Config).Protocol()

const (
	maxHeader   = 64 << 10
	idleTimeout = 2 * time.Minute
)

// Protocol returns a protocol that serves what c's Handler does.
func (c *Config) Protocol() yonder.Protocol { return &protocol{config: c} }

type protocol struct {
	config   *Config
	handlers sync.Map // from *yonder.Server to http.Handler, until the server is shut down
}

func (p *protocol) Name() string { return "http" }

var methods = []string{"GET ", "POST ", "HEAD ", "PUT ", "DELETE ", "OPTIONS ", "PATCH ", "CONNECT ", "TRACE "}

// Detect looks for a method and the space after it.
func (p *protocol) Detect(first []byte) yonder.Verdict {
	for _, m := range methods {
		n := min(len(first), len(m))
		if string(first[:n]) == m[:n] {
			if n == len(m) {
				return yonder.Yes
			}
			return yonder.Maybe
		}
	}
	return yonder.No
}

// Refuse implements what [yonder.Protocol] says of it.
func (p *protocol) Refuse(conn net.Conn, reason string) {
	io.WriteString(conn, "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nRetry-After: 1\r\nConnection: close\r\n"+
		"Content-Length: "+strconv.Itoa(len(reason)+1)+"\r\n\r\n"+reason+"\n")
	if (&patientConn{Conn: conn}).CloseWrite() == nil {
		io.CopyN(io.Discard, conn, maxHeader) // what is unread when it is closed could take the answer away
	}
}

// handler returns what serves the requests for a server: the same for all its connections.
func (p *protocol) handler(ctx context.Context, s *yonder.Server) http.Handler {
	if h, ok := p.handlers.Load(s); ok {
		return h.(http.Handler)
	}
	h, loaded := p.handlers.LoadOrStore(s, p.config.Handler(s))
	if !loaded {
		context.AfterFunc(ctx, func() { p.handlers.Delete(s) })
	}
	return h.(http.Handler)
}

// ServeConn implements [yonder.Protocol].
func (p *protocol) ServeConn(ctx context.Context, s *yonder.Server, conn net.Conn) error {
	if within(conn) {
		conn.Close()
		return errors.New("HTTP within a connection that HTTP has made")
	}
	limits := s.Limits.WithDefaults()
	patient := &patientConn{Conn: conn, patience: limits.KeepAlive}
	c := &connection{Conn: patient, patient: patient, ctx: ctx, handler: p.handler(ctx, s), ended: make(chan struct{})}
	defer c.Close()
	logger := s.Logger
	if logger == nil {
		logger = slog.Default()
	}
	c.srv = &http.Server{
		Handler:           c,
		ReadHeaderTimeout: limits.FirstByte,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ConnState:         c.state,
		ConnContext:       func(ctx context.Context, conn net.Conn) context.Context { return layers.Under(ctx, conn) },
		ErrorLog:          log.New(logWriter{logger}, "", 0),
	}
	stop := context.AfterFunc(ctx, c.drain)
	defer stop()
	c.srv.Serve(c) // returns when the connection has ended
	return nil
}

// within reports whether conn is one that a handler of this package's has made.
func within(conn any) bool {
	for {
		switch c := conn.(type) {
		case *tunnel, *socket:
			return true
		case interface{ NetConn() net.Conn }:
			conn = c.NetConn()
		default:
			return false
		}
	}
}

// connection is one connection, as the listener of an HTTP server that has no other.
type connection struct {
	net.Conn
	patient *patientConn    // the same
	ctx     context.Context // ends with Shutdown
	srv     *http.Server
	handler http.Handler
	ended   chan struct{} // closed when nobody needs the connection any more
	end     sync.Once

	mu       sync.Mutex
	accepted bool
	active   int  // handlers that run: one, or none
	hijacked bool // the HTTP server does not know when it ends
}

// Accept implements [net.Listener].
func (c *connection) Accept() (net.Conn, error) {
	c.mu.Lock()
	first := !c.accepted
	c.accepted = true
	c.mu.Unlock()
	if first {
		return c.Conn, nil
	}
	<-c.ended
	return nil, net.ErrClosed
}

// Addr implements [net.Listener].
func (c *connection) Addr() net.Addr { return c.LocalAddr() }

// Close implements [net.Listener]. The connection is done with when the HTTP server says so.
func (c *connection) Close() error {
	c.over()
	return c.Conn.Close()
}

func (c *connection) over() { c.end.Do(func() { close(c.ended) }) }

// state is told what becomes of the connection.
func (c *connection) state(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateHijacked:
		c.mu.Lock()
		c.hijacked = true
		c.mu.Unlock()
	case http.StateClosed:
		c.over()
	}
}

// drain has the request that is served be the last one.
func (c *connection) drain() {
	c.srv.SetKeepAlivesEnabled(false)
	c.mu.Lock()
	idle := c.active == 0
	c.mu.Unlock()
	if idle {
		c.Conn.Close()
	}
}

// ServeHTTP serves a request.
func (c *connection) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	c.active++
	c.mu.Unlock()
	// A handler that goes on though its peer is gone does not keep the server from ending.
	stop := context.AfterFunc(r.Context(), func() {
		select {
		case <-c.ctx.Done():
			c.over()
		case <-c.ended:
		}
	})
	defer func() {
		stop()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.active--
		if c.hijacked {
			c.over()
		}
	}()
	if r.TLS == nil {
		if conn, ok := layers.Find[interface{ ConnectionState() tls.ConnectionState }](c.Conn); ok {
			state := conn.ConnectionState()
			r.TLS = &state
		}
	}
	if r.Body != http.NoBody && c.patient.patience >= 0 {
		c.patient.hurry() // the HTTP server reads what the handler leaves
		r.Body = &patientBody{r.Body, c.patient}
	}
	c.handler.ServeHTTP(w, r)
}

// patientConn is a connection whose peer must take something within patience; less than zero: it
// need not.
type patientConn struct {
	net.Conn
	patience time.Duration

	mu    sync.Mutex // guards until, and makes what is set of it last
	until time.Time  // the deadline of reads that the HTTP server or a handler has set; zero: none
}

// SetReadDeadline implements [net.Conn].
func (c *patientConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.until = t
	return c.Conn.SetReadDeadline(t)
}

// hurry has the next read end within patience, or earlier if that has been set.
func (c *patientConn) hurry() {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := time.Now().Add(c.patience)
	if !c.until.IsZero() && c.until.Before(t) {
		t = c.until
	}
	c.Conn.SetReadDeadline(t)
}

// rest undoes hurry.
func (c *patientConn) rest() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Conn.SetReadDeadline(c.until)
}

func (c *patientConn) Write(b []byte) (n int, err error) {
	const part = 64 << 10
	for n < len(b) && err == nil {
		if c.patience >= 0 {
			c.SetWriteDeadline(time.Now().Add(c.patience)) // a connection that has no deadlines does without
		}
		var m int
		m, err = c.Conn.Write(b[n:min(n+part, len(b))])
		n += m
	}
	return n, err
}

// NetConn returns the connection underneath.
func (c *patientConn) NetConn() net.Conn { return c.Conn }

// CloseWrite has the peer read to the end what was written, though it was not all read that the
// peer has sent: package net/http calls it then.
func (c *patientConn) CloseWrite() error {
	var conn any = c.Conn
	for {
		switch under := conn.(type) {
		case interface{ CloseWrite() error }:
			return under.CloseWrite()
		case interface{ NetConn() net.Conn }:
			conn = under.NetConn()
		default:
			return errors.ErrUnsupported
		}
	}
}

// patientBody is the body of a request whose next part must come within patience.
type patientBody struct {
	io.ReadCloser
	conn *patientConn
}

func (b *patientBody) Read(p []byte) (int, error) {
	b.conn.hurry()
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.conn.rest() // the HTTP server goes on reading, to see the peer go
	}
	return n, err
}

// logWriter takes what an HTTP server has to say, a line a call.
type logWriter struct{ logger *slog.Logger }

func (w logWriter) Write(b []byte) (int, error) {
	text := strings.TrimSpace(string(b))
	level := slog.LevelWarn
	if strings.HasPrefix(text, "http: panic serving") {
		level = slog.LevelError
	}
	text, stack, _ := strings.Cut(text, "\n")
	if stack == "" {
		w.logger.Log(context.Background(), level, "yonder: "+text, "protocol", "http")
	} else {
		w.logger.Log(context.Background(), level, "yonder: "+text, "protocol", "http", "stack", stack)
	}
	return len(b), nil
}
