package session

import (
	"context"
	"fmt"
	"net"
	"sync"

	"github.com/yonder-rpc/yonder"
)

// A Server has functions that peers may call. It is a [yonder.Server] that serves this
// package's protocol, and yonder's own, with all defaults; a program that wants to set something
// uses one itself, with [Protocol] among its Protocols. Its methods may be called by several
// goroutines.
type Server struct {
	srv yonder.Server

	mu    sync.Mutex
	names map[string]bool
}

// NewServer returns a server without functions.
func NewServer() *Server {
	s := &Server{names: make(map[string]bool)}
	s.srv.Protocols = []yonder.Protocol{Protocol}
	return s
}

// Register lets others call a function, of the form func([ctx context.Context,] args...)
// (results..., [error]), under a name. If the name is taken, the first function stays. It panics
// if fn is no function, or one whose arguments or results cannot cross a connection.
func (s *Server) Register(name string, fn interface{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.names[name] {
		return
	}
	if _, err := plain(fn); err != nil {
		panic(fmt.Sprintf("session: register %q: %v", name, err))
	}
	s.srv.Register(name, fn)
	s.names[name] = true
}

// ListenAndServe listens on an address, such as "127.0.0.1:1234" or ":1234", and serves until
// Shutdown or Close; then it returns [yonder.ErrServerClosed]. A program that calls it on another
// goroutine and dials at once mostly dials before it listens: have net.Listen make the listener,
// and Serve take it.
func (s *Server) ListenAndServe(addr string) error { return s.srv.ListenAndServe(addr) }

// Serve accepts connections from l and serves them, as ListenAndServe does. It closes l.
func (s *Server) Serve(l net.Listener) error { return s.srv.Serve(l) }

// Shutdown stops accepting connections and calls, lets the calls in flight end, and returns. If
// ctx ends before that, it does what Close does, and returns ctx's error.
func (s *Server) Shutdown(ctx context.Context) error { return s.srv.Shutdown(ctx) }

// Close closes the listeners and all connections at once.
func (s *Server) Close() error { return s.srv.Close() }
