package yonder_test

import (
	"errors"
	"net"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/internal/wire"
)

// hookedConn calls functions before it does what it is told.
type hookedConn struct {
	net.Conn
	onRead, onClose func()
}

func (c *hookedConn) Read(b []byte) (int, error) {
	if c.onRead != nil {
		c.onRead()
		return copy(b, wire.Preface), nil
	}
	return c.Conn.Read(b)
}

func (c *hookedConn) Close() error {
	c.onClose()
	return c.Conn.Close()
}

// A connection that has shown its protocol when the server has just been closed is none
// that the server's goroutines wait for.
func TestCloseDuringDetection(t *testing.T) {
	before := goleak.IgnoreCurrent()
	srv := yonder.Server{Logger: new(logBuffer).logger()}
	srv.Register("f", func() {})
	near, far := net.Pipe()
	refused := make(chan struct{})
	var served sync.WaitGroup
	served.Go(func() { srv.ServeConn(&hookedConn{Conn: far, onClose: func() { <-refused }}) })
	c := yonder.NewClient(near)
	if err := c.Call(t.Context(), yonder.NewCall("f")); err != nil {
		t.Fatal(err)
	}
	near2, far2 := net.Pipe()
	late := &hookedConn{Conn: far2, onClose: func() {}, onRead: func() {
		served.Go(func() { srv.Close() }) // which is held up by the first connection
		gone, other := net.Pipe()
		other.Close()
		for !errors.Is(srv.ServeConn(gone), yonder.ErrServerClosed) {
		}
	}}
	if err := srv.ServeConn(late); err != yonder.ErrServerClosed {
		t.Errorf("ServeConn: %v, want ErrServerClosed", err)
	}
	close(refused)
	c.Close()
	near2.Close()
	served.Wait()
	goleak.VerifyNone(t, before)
}
