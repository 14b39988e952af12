//go:build unix && (!linux || (!amd64 && !arm64) || race || msan)

package mux

import "syscall"

// These tell the scheduler, and the race detector what happens before what.

func recvBriefly(fd int, b []byte) (int, error) { return syscall.Read(fd, b) }

func sendBriefly(fd int, b []byte) (int, error) { return syscall.Write(fd, b) }

const gathers = false

func (*rawConn) gather([][]byte) (int, error) { panic("mux: nothing is gathered here") }

// yield asks nobody here.
func yield() {}
