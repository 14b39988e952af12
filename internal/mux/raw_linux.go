package mux

import (
	"syscall"
	"unsafe"
)

// vector is what tryWritev writes.
type vector struct {
	list  []syscall.Iovec
	wrote int
	err   error
	fn    func(fd uintptr) bool
}

// maxVector is the longest vector, in slices: no more than the system takes.
const maxVector = 64

// tryWritev writes what the socket takes at once of the slices, none of which is empty.
func (r *rawConn) tryWritev(slices [][]byte) (int, error) {
	v := &r.vec
	if v.fn == nil {
		v.fn = v.once
	}
	if len(slices) > maxVector {
		slices = slices[:maxVector]
	}
	for _, b := range slices {
		item := syscall.Iovec{Base: &b[0]}
		item.SetLen(len(b))
		v.list = append(v.list, item)
	}
	v.wrote, v.err = 0, nil
	err := r.conn.Write(v.fn)
	clear(v.list)
	v.list = v.list[:0]
	if err == nil {
		err = v.err
	}
	return v.wrote, err
}

func (v *vector) once(fd uintptr) bool {
	for {
		n, _, err := syscall.Syscall(syscall.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&v.list[0])), uintptr(len(v.list)))
		switch err {
		case 0:
			v.wrote = int(n)
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
		default:
			v.err = err
		}
		return true
	}
}
