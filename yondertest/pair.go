// Package yondertest helps to test programs that use yonder.
package yondertest

import (
	"net"
	"testing"

	"github.com/yonder-rpc/yonder"
)

// Pair returns a client of s over a pipe in memory: everything is encoded and framed
// as on a network, without one. It works inside testing/synctest bubbles. The
// connection is closed when the test ends; s may serve others besides.
func Pair(tb testing.TB, s *yonder.Server) *yonder.Client {
	tb.Helper()
	return PairDialer(tb, s, new(yonder.Dialer))
}

// PairDialer is [Pair] with a client made by d, such as one that has procedures of
// its own.
func PairDialer(tb testing.TB, s *yonder.Server, d *yonder.Dialer) *yonder.Client {
	tb.Helper()
	near, far := net.Pipe()
	served := make(chan struct{})
	go func() { // ends with the connection
		defer close(served)
		s.ServeConn(far)
	}()
	c := d.NewClient(near)
	tb.Cleanup(func() {
		c.Close()
		<-served
	})
	return c
}
