//go:build (amd64 || arm64) && !race && !msan

package mux

import (
	"sync"
	"syscall"
	"unsafe"
)

// recvBriefly reads what a socket has, without telling the scheduler: it never waits, even if
// somebody has made the socket a blocking one. See briefly.
func recvBriefly(fd int, b []byte) (int, error) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), syscall.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// sendBriefly writes what a socket takes, likewise.
func sendBriefly(fd int, b []byte) (int, error) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// gathers says that pieces of memory can be written without blocking by one system call.
const gathers = true

// gather writes pieces, none of them empty, as far as the socket takes them at once.
func (r *rawConn) gather(pieces [][]byte) (n int, err error) {
	vec := vectors.Get().(*vector)
	for len(pieces) > 0 && err == nil {
		some := pieces[:min(len(pieces), len(vec))]
		size := 0
		for i, p := range some {
			vec[i].Base = &p[0]
			vec[i].SetLen(len(p))
			size += len(p)
		}
		wrote := 0
		raw := r.conn.Write(func(fd uintptr) bool {
			for {
				if wrote, err = sendGathered(int(fd), vec[:len(some)]); err != syscall.EINTR {
					return true
				}
			}
		})
		if err == nil {
			err = raw
		}
		n += wrote
		clear(vec[:len(some)])
		if wrote < size {
			break
		}
		pieces = pieces[len(some):]
	}
	vectors.Put(vec)
	if err == syscall.EAGAIN {
		err = nil
	}
	return n, err
}

// A vector is what one system call is given at most (IOV_MAX).
type vector [1024]syscall.Iovec

var vectors = sync.Pool{New: func() any { return new(vector) }}

// sendGathered is sendBriefly for pieces, but tells the scheduler.
func sendGathered(fd int, pieces []syscall.Iovec) (int, error) {
	msg := syscall.Msghdr{Iov: &pieces[0], Iovlen: uint64(len(pieces))}
	n, _, errno := syscall.Syscall(syscall.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&msg)), syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// yield lets other threads use the processor that wait for it.
func yield() { syscall.RawSyscall(syscall.SYS_SCHED_YIELD, 0, 0, 0) }
