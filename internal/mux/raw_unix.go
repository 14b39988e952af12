//go:build unix

package mux

import (
	"io"
	"net"
	"syscall"
	"time"
)

// briefly is how many bytes a system call may read or write that the scheduler is not told of.
//
// To be told costs as much as the call does: the scheduler's monitor, a thread that sleeps while nobody
// runs, is woken, and then looks every 20 microseconds whether somebody has to give way. Where others
// than the read loop lead it does not sleep for long anyhow, because they have a timer (leadTick).
// Elsewhere, if it were not told, a handler that computes might run on for as long as it likes.
const briefly = 32 << 10

// rawConn reads and writes a socket without blocking a goroutine where that
// matters: a write that would block is given up instead, so that a caller can
// write for itself and still return the moment its context ends; and a read
// takes a buffer only once there is something to read, so that an idle
// connection holds none.
type rawConn struct {
	conn  syscall.RawConn
	lead  *lead
	limit func(time.Time) error // SetReadDeadline

	// For the one writer at a time.
	out     []byte
	wait    bool
	wrote   int
	werr    error
	writeFn func(fd uintptr) bool

	// For the one reader.
	in     *reader
	got    int
	rerr   error
	readFn func(fd uintptr) bool
	spin   spin
}

// newRawConn returns nil where the transport is not a plain socket.
func newRawConn(conn io.ReadWriteCloser, l *lead) *rawConn {
	var limit func(time.Time) error
	switch c := conn.(type) { // exactly these: a type that wraps them may do more in Read and Write
	case *net.TCPConn:
		limit = c.SetReadDeadline
	case *net.UnixConn:
		limit = c.SetReadDeadline
	default:
		return nil
	}
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil
	}
	r := &rawConn{conn: raw, lead: l, limit: limit}
	r.writeFn, r.readFn = r.writeOnce, r.readOnce
	return r
}

// brief reports whether the scheduler need not be told of a system call for n bytes.
func (r *rawConn) brief(n int) bool { return n <= briefly && r.lead.led() }

// write writes what the socket takes at once, or with wait, all.
func (r *rawConn) write(b []byte, wait bool) (int, error) {
	r.out, r.wait, r.wrote, r.werr = b, wait, 0, nil
	err := r.conn.Write(r.writeFn)
	r.out = nil
	if err == nil {
		err = r.werr
	}
	return r.wrote, err
}

func (r *rawConn) writeOnce(fd uintptr) bool {
	for len(r.out) > 0 {
		var n int
		var err error
		if r.brief(len(r.out)) {
			n, err = sendBriefly(int(fd), r.out)
		} else {
			n, err = syscall.Write(int(fd), r.out)
		}
		if n > 0 {
			r.wrote += n
			r.out = r.out[n:]
		}
		switch err {
		case nil, syscall.EINTR:
		case syscall.EAGAIN:
			return !r.wait
		default:
			r.werr = err
			return true
		}
	}
	return true
}

// read waits until there is something to read and reads it into the reader's
// buffer, which it takes from the pool only then.
func (r *rawConn) read(in *reader) (int, error) {
	r.in, r.got, r.rerr = in, 0, nil
	r.spin.begin()
	err := r.conn.Read(r.readFn)
	r.in = nil
	if err == nil {
		err = r.rerr
	}
	if err == nil && r.got == 0 {
		err = io.EOF
	}
	return r.got, err
}

func (r *rawConn) readOnce(fd uintptr) bool {
	for {
		var n int
		var err error
		if space := r.in.space(); r.brief(len(space)) {
			n, err = recvBriefly(int(fd), space)
		} else {
			n, err = syscall.Read(int(fd), space)
		}
		switch err {
		case nil:
			r.spin.found()
			r.got = n
			return true
		case syscall.EINTR:
		case syscall.EAGAIN:
			r.in.waited = true
			if r.spin.again(r.lead, r.in) {
				continue
			}
			r.in.rest()
			return false
		default:
			r.rerr = err
			return true
		}
	}
}
