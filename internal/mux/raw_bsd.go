//go:build unix && !linux

package mux

// vector is empty: a goroutine writes what is not in one piece.
type vector struct{}

func (*rawConn) tryWritev([][]byte) (int, error) { return 0, nil }
