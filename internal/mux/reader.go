package mux

import (
	"errors"
	"io"
	"sync"

	"github.com/yonder-rpc/yonder/internal/wire"
)

const (
	// readSize is the size of a read buffer, in bytes: hundreds of small frames.
	readSize = 32 << 10
	// wholeFrame is the largest frame that is parsed where it was read. The body of a larger
	// one is read into memory of its own.
	wholeFrame = 16 << 10
	// partHead is what is in front of a part's payload: the frame's header, and the channel.
	partHead = wire.HeaderSize + 1
)

var readBuffers = sync.Pool{New: func() any { return new([readSize]byte) }}

// reader buffers what comes from the connection, so that frames can be parsed in
// place. It is used by the connection's read loop alone. While it waits for a
// peer that says nothing it holds no buffer, if the transport can tell.
type reader struct {
	conn   io.Reader
	raw    *rawConn
	buf    *[readSize]byte // nil: none is held
	r, w   int             // buf[r:w] is unread
	into   []byte          // what is to be read past the buffer
	waited bool            // a read has found nothing at first, if the transport can tell
	// narrow says that the next frame is likely to be a part: no more than its head is read into
	// the buffer, so that the rest is read to where it belongs.
	narrow bool
	// onWait is called before each read, onRead after each that brought something, with how
	// much. kicked and again, unless they are nil, are called after one that failed: kicked reports
	// whether it did only because who reads should leave that to another, again whether to go on,
	// over another connection.
	onWait func()
	onRead func(n int)
	kicked func(error) bool
	again  func(error) bool
}

// space returns where the next bytes go. There is always some.
func (r *reader) space() []byte {
	if r.buf == nil {
		r.buf = readBuffers.Get().(*[readSize]byte)
	}
	if r.narrow {
		return r.buf[r.w:min(r.w+partHead, readSize)]
	}
	return r.buf[r.w:]
}

// rest gives the buffer back if it holds nothing.
func (r *reader) rest() {
	if r.buf != nil && r.r == r.w {
		readBuffers.Put(r.buf)
		r.buf, r.r, r.w = nil, 0, 0
	}
}

// fill reads until n bytes, at most wholeFrame, are buffered. It returns io.EOF if
// the connection ends where it could, io.ErrUnexpectedEOF if it ends elsewhere.
func (r *reader) fill(n int) error {
	for r.w-r.r < n {
		if err := r.more(n); err != nil && err != errKicked {
			return err
		}
	}
	return nil
}

// errKicked says that who reads should leave that to another.
var errKicked = errors.New("kicked")

// more reads once, to have n bytes buffered in the end. Its errors are those of fill, and errKicked.
func (r *reader) more(n int) error {
	if r.r == r.w {
		r.r, r.w = 0, 0
	} else if r.r+n > readSize {
		r.w = copy(r.buf[:], r.buf[r.r:r.w])
		r.r = 0
	}
	r.onWait()
	var got int
	var err error
	if r.raw != nil {
		got, err = r.raw.read(r)
	} else {
		got, err = r.conn.Read(r.space())
	}
	r.w += got
	switch {
	case got > 0:
		r.onRead(got)
		return nil // an error stays for the next read
	case err == nil:
		return nil
	case r.kicked != nil && r.kicked(err):
		return errKicked
	case r.again != nil && r.again(err):
		return nil
	case err == io.EOF && r.w > r.r:
		return io.ErrUnexpectedEOF
	}
	return err
}

// empty reports whether there is nothing in the buffer.
func (r *reader) empty() bool { return r.r == r.w }

// next returns n buffered bytes and moves past them. They are valid until the
// next fill.
func (r *reader) next(n int) []byte {
	b := r.buf[r.r : r.r+n : r.r+n]
	r.r += n
	return b
}

// body moves past a header that has been looked at and returns the n bytes after it, which are
// valid until the next fill; those of a large frame in a message.
func (r *reader) body(n int) ([]byte, *Message, error) {
	if size := wire.HeaderSize + n; size <= wholeFrame {
		if err := r.fill(size); err != nil {
			return nil, nil, err
		}
		return r.next(size)[wire.HeaderSize:], nil, nil
	}
	msg := r.large(n)
	if err := r.fillInto(); err != nil {
		return nil, nil, err
	}
	return msg.Bytes(), msg, nil
}

// large moves past a header and returns a message that fillInto reads the n bytes after it into.
func (r *reader) large(n int) *Message {
	r.next(wire.HeaderSize)
	msg := NewMessage()
	r.into = msg.Sized(n)
	return msg
}

// fillInto fills into, from the buffer first and then past it, so that a large message is not
// copied twice. After errKicked it can be called again.
func (r *reader) fillInto() error {
	if !r.empty() {
		n := copy(r.into, r.buf[r.r:r.w])
		r.r += n
		r.into = r.into[n:]
	}
	for len(r.into) > 0 {
		r.onWait()
		n, err := r.conn.Read(r.into)
		switch {
		case n > 0:
			r.onRead(n)
			r.into = r.into[n:]
		case err == nil:
		case r.kicked != nil && r.kicked(err):
			return errKicked
		case r.again != nil && r.again(err):
		case err == io.EOF:
			return io.ErrUnexpectedEOF
		default:
			return err
		}
	}
	r.into = nil // an empty slice holds what it is of
	return nil
}

// skip moves past up to n bytes, reading once if there are none, and returns past how many. Its errors
// are those of more.
func (r *reader) skip(n int) (int, error) {
	if r.empty() {
		r.narrow = false
		if err := r.more(1); err != nil {
			return 0, err
		}
	}
	n = min(n, r.w-r.r)
	r.r += n
	return n, nil
}

// another returns the next frame, and moves past it, if it is of a type and is in the buffer whole.
func (r *reader) another(t wire.Type) (h wire.Header, body []byte, ok bool) {
	if r.w-r.r < wire.HeaderSize {
		return h, nil, false
	}
	h, n, err := wire.ParseHeader(r.buf[r.r:r.w])
	if err != nil || h.Type != t || r.w-r.r < wire.HeaderSize+n || wire.HeaderSize+n > wholeFrame {
		return h, nil, false
	}
	return h, r.next(wire.HeaderSize + n)[wire.HeaderSize:], true
}

// peekHeader reads the header of the next frame without moving past it.
func (r *reader) peekHeader() (wire.Header, int, error) {
	if err := r.fill(wire.HeaderSize); err != nil {
		return wire.Header{}, 0, err
	}
	h, n, err := wire.ParseHeader(r.buf[r.r:r.w])
	if err != nil {
		return h, 0, &ProtocolError{Reason: err.Error()}
	}
	return h, n, nil
}
