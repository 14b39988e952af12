//go:build !unix

package mux

import (
	"io"
	"time"
)

// rawConn is for sockets that can be read and written without blocking; on this
// system there are none, and reads and writes go through the connection.
type rawConn struct{}

func newRawConn(io.ReadWriteCloser, *lead) *rawConn { return nil }

func (*rawConn) write([]byte, bool) (int, error) { panic("mux: no raw connections here") }

const gathers = false

func (*rawConn) gather([][]byte) (int, error) { panic("mux: no raw connections here") }

func (*rawConn) brief(int) bool { panic("mux: no raw connections here") }

func (*rawConn) limit(time.Time) error { panic("mux: no raw connections here") }

func (*rawConn) read(*reader) (int, error) { panic("mux: no raw connections here") }
