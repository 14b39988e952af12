package jsonrpc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A framing is how messages follow each other on a connection.
type framing uint8

const (
	lines   framing = iota // one after another, each answer with a line's end
	header                 // each after a header with its length, as the Language Server Protocol has it
	packets                // the connection itself tells them apart
)

// A textError is text that is not a message.
type textError struct {
	err    error
	framed bool   // where the next message begins is known
	text   []byte // a JSON text, which is not UTF-8 or is nested too deeply; nil: it is none
}

func (e *textError) Error() string { return e.err.Error() }

// errTooLarge is the error of reading a message that is. It has been skipped, with what else
// is known of it.
type errTooLarge struct {
	max   int
	id    []byte // nil: none
	batch bool   // or another array
	head  []byte // how it begins
}

func (e *errTooLarge) Error() string {
	return fmt.Sprintf("the message is larger than the limit of %d bytes", e.max)
}

const (
	minRead   = 4 << 10
	maxRead   = 64 << 10
	maxHeader = 4 << 10
	// minRate is how fast a message must come, in bytes a second, once it has taken longer
	// than the connection may be silent.
	minRate = 4 << 10
)

// A reader reads messages from a stream of bytes.
type reader struct {
	conn    io.Reader
	max     int // size of a message
	scan    scanner
	buf     []byte // read and not used: buf[from:]
	from    int
	scanned int    // of the message, in buf[from:]
	shared  []byte // for the next small messages

	skipped skipper
	framing atomic.Uint32 // of the last message
	slow    slowness
}

// next returns the next message, which is one JSON text and the caller's to keep. The
// error is io.EOF if the connection ended between two messages.
func (r *reader) next() ([]byte, error) {
	defer r.slow.off()
	for {
		r.from = space(r.buf, r.from)
		if r.from < len(r.buf) {
			break
		}
		if err := r.more(); err != nil {
			return nil, err
		}
	}
	if c := r.buf[r.from] | 0x20; c == 'c' {
		return r.framed()
	}
	r.framing.Store(uint32(lines))
	r.scan.reset()
	r.scanned = 0
	for {
		piece := r.buf[r.from+r.scanned:]
		n, done, err := r.scan.scan(piece[:min(len(piece), r.max+1-r.scanned)])
		r.scanned += n
		if err != nil {
			return nil, &textError{err: err}
		}
		if r.scanned > r.max {
			return nil, r.skip(-1)
		}
		if done {
			return r.scan.message(r.take(r.scanned))
		}
		if err := r.more(); err != nil {
			return nil, early(err)
		}
	}
}

// early makes an end amid a message one that is not expected.
func early(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// framed reads a message with a header.
func (r *reader) framed() ([]byte, error) {
	var length int
	for {
		var err error
		var n int
		if length, n, err = parseHeader(r.buf[r.from:]); err != nil {
			return nil, &textError{err: err}
		} else if n > 0 {
			r.from += n
			break
		}
		if err := r.more(); err != nil {
			return nil, early(err)
		}
	}
	r.framing.Store(uint32(header))
	if length > r.max {
		return nil, r.skip(length)
	}
	for len(r.buf)-r.from < length {
		if err := r.more(); err != nil {
			return nil, early(err)
		}
	}
	return r.scan.wellFormed(r.take(length))
}

// skip skips a message that is too large, whose length is known, or less than zero. It returns
// a [*textError] that says so, or why the next message cannot be reached.
func (r *reader) skip(length int) error {
	s := &r.skipped
	*s = skipper{}
	var ended error
	known := length >= 0
	for done := false; !done; {
		piece := r.buf[r.from:]
		if known {
			piece = piece[:min(len(piece), length)]
		}
		n := len(piece)
		if ended == nil {
			var over bool
			var err error
			if n, over, err = s.skip(piece); err != nil {
				ended = &textError{err: err, framed: known}
			} else if over {
				ended = &textError{err: &errTooLarge{r.max, s.id, s.first == '[', s.head}, framed: true}
			}
		}
		if known {
			n = len(piece)
			length -= n
		}
		r.from += n
		if done = known && length == 0 || !known && ended != nil; done {
			break
		}
		r.buf, r.from = r.buf[:0], 0
		if cap(r.buf) > maxRead {
			r.buf = nil
		}
		r.slow.on()
		if err := r.more(); err != nil {
			return early(err)
		}
	}
	if rest := r.buf[r.from:]; cap(r.buf) > 2*maxRead {
		r.buf, r.from = append([]byte(nil), rest...), 0
	}
	if ended == nil {
		return &textError{err: errEarly, framed: true}
	}
	return ended
}

var errEarly = errors.New("it ends too early")

// parseHeader reads a header from the front of b: the length that it gives, and its
// own. n is 0 if it is not complete.
func parseHeader(b []byte) (length, n int, err error) {
	if !couldBeHeader(b) {
		return 0, 0, errors.New("neither JSON nor a Content-Length header")
	}
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		if len(b) > maxHeader+len("\r\n\r") {
			return 0, 0, fmt.Errorf("a header of more than %d bytes", maxHeader)
		}
		return 0, 0, nil
	}
	if end > maxHeader {
		return 0, 0, fmt.Errorf("a header of more than %d bytes", maxHeader)
	}
	length = -1
	for line := range strings.SplitSeq(string(b[:end]), "\r\n") {
		name, value, ok := strings.Cut(line, ":")
		switch name = textproto.CanonicalMIMEHeaderKey(name); {
		case !ok:
			return 0, 0, fmt.Errorf("header line %q has no colon", line)
		case name != "Content-Length":
			continue
		case length >= 0:
			return 0, 0, errors.New("two Content-Length headers")
		}
		u, err := strconv.ParseUint(strings.TrimSpace(value), 10, 31)
		if err != nil {
			return 0, 0, fmt.Errorf("Content-Length %q is not a number of bytes", strings.TrimSpace(value))
		}
		length = int(u)
	}
	if length < 0 {
		return 0, 0, errors.New("no Content-Length header")
	}
	return length, end + 4, nil
}

// couldBeHeader reports whether b begins as the name of a header does that can be the
// first.
func couldBeHeader(b []byte) bool {
	const begins = "content-"
	n := min(len(b), len(begins))
	return strings.EqualFold(string(b[:n]), begins[:n])
}

// take returns the next n bytes, which are the caller's.
func (r *reader) take(n int) []byte {
	text := r.buf[r.from : r.from+n : r.from+n]
	if rest := r.buf[r.from+n:]; n > maxRead {
		r.buf, r.from = append([]byte(nil), rest...), 0
		return text
	}
	r.from += n
	if n > maxShared {
		return append([]byte(nil), text...)
	}
	if len(r.shared) < n {
		r.shared = make([]byte, sharedSize)
	}
	own := r.shared[:n:n]
	r.shared = r.shared[n:]
	copy(own, text)
	return own
}

// Small messages have an allocation together.
const (
	maxShared  = 512
	sharedSize = 4 << 10
)

// more reads.
func (r *reader) more() error {
	if r.from > 0 {
		r.buf = r.buf[:copy(r.buf, r.buf[r.from:])]
		r.from = 0
	}
	if len(r.buf) > 0 {
		r.slow.on()
	}
	if free := cap(r.buf) - len(r.buf); free == 0 || free < minRead/2 && cap(r.buf) < maxRead {
		grown := make([]byte, len(r.buf), max(minRead, 2*cap(r.buf)))
		copy(grown, r.buf)
		r.buf = grown
	}
	for range 100 {
		n, err := r.conn.Read(r.buf[len(r.buf):cap(r.buf)])
		if r.buf = r.buf[:len(r.buf)+n]; n > 0 {
			r.slow.took(n)
			return nil
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// slowness closes a connection whose peer takes too long for a message.
type slowness struct {
	timeout time.Duration // less than zero: it may take any time
	close   func()
	got     atomic.Int64 // bytes, since it was armed

	armed bool // of the reader's goroutine

	mu    sync.Mutex // guards timer
	timer *time.Timer
}

// on starts to watch, when a message has begun and is not all there.
func (s *slowness) on() {
	if s.armed || s.timeout < 0 {
		return
	}
	s.armed = true
	s.got.Store(0)
	began := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	var t *time.Timer
	t = time.AfterFunc(s.timeout, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case s.timer != t: // it is over
		case float64(s.got.Load()) < time.Since(began).Seconds()*minRate:
			s.close()
		default:
			t.Reset(s.timeout)
		}
	})
	s.timer = t
}

func (s *slowness) took(n int) {
	if s.armed {
		s.got.Add(int64(n))
	}
}

// off ends the watch.
func (s *slowness) off() {
	if !s.armed {
		return
	}
	s.armed = false
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer.Stop()
	s.timer = nil
}
