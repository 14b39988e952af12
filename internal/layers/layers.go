// Package layers goes down through what a connection is made of: a protocol's wrapping, TLS, a
// socket.
package layers

import (
	"context"
	"iter"
	"net"
)

type key struct{}

// Under returns a context of a request that says what it came over, for requests that
// do not say it themselves, as those of package net/http do not.
func Under(ctx context.Context, conn any) context.Context {
	return context.WithValue(ctx, key{}, conn)
}

// HasUnder reports whether ctx says so already.
func HasUnder(ctx context.Context) bool { return ctx.Value(key{}) != nil }

// All yields conn and what is under it, the outermost first: of a connection what its method
// NetConn() net.Conn returns, of a request what [Under] has put in its context.
func All(conn any) iter.Seq[any] {
	return func(yield func(any) bool) {
		for conn != nil && yield(conn) {
			switch c := conn.(type) {
			case interface{ NetConn() net.Conn }:
				conn = c.NetConn()
			case interface{ Context() context.Context }:
				conn = c.Context().Value(key{})
			default:
				return
			}
		}
	}
}

// Find returns the outermost layer that is a T, and whether there is one.
func Find[T any](conn any) (T, bool) {
	for layer := range All(conn) {
		if t, ok := layer.(T); ok {
			return t, true
		}
	}
	return *new(T), false
}

// Began is a connection that began as an HTTP request, such as a WebSocket.
type Began interface {
	// Authorization is the request's header of that name; "": it had none.
	Authorization() string
}

// OverHTTP reports whether what came over conn came over HTTP: in a request, or on a connection
// that began as one.
func OverHTTP(conn any) bool {
	for layer := range All(conn) {
		switch layer.(type) {
		case Began, interface{ ProtoAtLeast(major, minor int) bool }: // the latter is an *http.Request
			return true
		}
	}
	return false
}
