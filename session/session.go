// Package session speaks a small protocol that many a Go program has for its own: a 4-byte
// length, and after it an [RPCData] in gob, which names a function and has its arguments, or
// its results.
//
// It comes in two forms. [Server], [Client] and [Session] have the API that such programs are
// written against:
//
//	srv := session.NewServer()
//	srv.Register("queryUser", queryUser)
//	go srv.ListenAndServe("127.0.0.1:1234")
//
//	conn, err := net.Dial("tcp", "127.0.0.1:1234")
//	client := session.NewClient(conn)
//	var query func(int) (User, error)
//	client.Call("queryUser", &query)
//	user, err := query(1)
//
// And [Protocol] has a yonder.Server answer the same peers beside all others, on the same port;
// [Dial] and [Over] return a yonder.Client that calls them.
//
// # The wire
//
// A message is its length, in 4 bytes with the highest first, and that many bytes: one gob
// stream, complete in itself, of one RPCData. A request has the function's name and the
// arguments. Its answer has the same name, and the results in order, the error last if the
// function returns one. Messages have no numbers: the first answer on a connection is that of
// the first request, and so on. A server may run the calls of a connection at the same time, and
// this one does, but it answers in order; so a slow call delays the answers to later ones, and
// who wants them sooner opens a second connection.
//
// Arguments and results cross as the values of interfaces: gob wants their types, if they are
// not basic ones, to be registered at both ends under one name, which gob.Register makes of the
// package's path and the type's name. This package registers the types in the functions'
// signatures when they are first needed, unless the program has done so; what is within an
// interface within those is the program's to register. A program's own calls of gob.Register
// belong before its first call of a function: gob panics where a type is registered under a
// second name, as T and *T are. A nil pointer crosses as a nil interface, and arrives as the
// zero value. Where a number arrives as another type than the function takes, it is converted if
// that loses nothing.
//
// Messages are checked before they are decoded, because gob's decoder takes a peer's word for how
// much memory a value needs. What is refused besides lies are values nested more than 10,000 deep,
// more than 65,536 nil interfaces among the elements within structs, and more types than anybody
// has.
//
// Streams, readers, functions and complex numbers cannot cross, nor can metadata, deadlines and
// cancellation: the protocol has no room for them.
//
// # Errors
//
// A nil error is a nil interface. Another crosses as it is if the program has registered its
// type with gob, so that peers of any kind can have it. Any other crosses as a struct that this
// package registers as "yonder.session.Error", with the fields Message, a string, and Record, the
// bytes that yonder.Server.EncodeError makes: at the other end it is an error with a code, and
// errors.Is finds what it finds over yonder's own protocol. A peer without this package does not
// know that name, and its decoder says so; a type of its own, with a field Message and a method
// Error, registered by that name, makes it an error there too.
//
// A call that fails before its function runs, because there is none of that name, or its
// arguments do not fit, is answered the same way, with the error after the results, which are
// nil; so is a panic, and any failure of a function that returns no error. A message larger than
// the limit, or one that is no RPCData, is answered with the error alone and no name.
package session

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"time"

	"github.com/yonder-rpc/yonder"
)

// RPCData is a message: a request to call Func with Args, or its answer, whose Args are the
// results.
type RPCData struct {
	Func string
	Args []interface{}
}

// A Session reads and writes messages, whatever is in them. One goroutine may read while
// another writes.
type Session struct {
	// MaxMessage is the largest message that Read accepts, in bytes. Zero means 64 MiB. It must
	// not be changed once Read is called.
	MaxMessage int

	conn net.Conn
}

// NewSession returns a session over conn.
func NewSession(conn net.Conn) *Session { return &Session{conn: conn} }

// Read reads a message. It takes memory for what has arrived, not for what the peer says will.
// The error is io.EOF if the connection has ended between two messages.
func (s *Session) Read() ([]byte, error) {
	limits := yonder.Limits{MaxMessage: s.MaxMessage}.WithDefaults()
	m := messageReader{conn: s.conn, r: s.conn, most: limits.MaxMessage, patience: -1}
	return m.read()
}

// Write writes a message.
func (s *Session) Write(data []byte) error {
	if uint64(len(data)) > math.MaxUint32 {
		return fmt.Errorf("session: a message of %d bytes is too large", len(data))
	}
	frame := make([]byte, headerSize, headerSize+len(data))
	_, err := s.conn.Write(seal(append(frame, data...)))
	return err
}

const headerSize = 4

// seal fills in the header of a frame.
func seal(frame []byte) []byte {
	binary.BigEndian.PutUint32(frame, uint32(len(frame)-headerSize))
	return frame
}

// tooLarge is a message that has been skipped.
type tooLarge struct{ size, most int64 }

func (e *tooLarge) Error() string {
	return fmt.Sprintf("a message of %d bytes is larger than the limit of %d", e.size, e.most)
}

// messageReader reads messages from a connection.
type messageReader struct {
	conn     net.Conn
	r        io.Reader     // conn, or a buffer of it
	most     int           // bytes of a message
	patience time.Duration // how long the next part of a message that has begun may take; less than zero: for ever
	timed    bool          // conn has a deadline
}

// read reads a message. Of one that is too large it drops the bytes, and returns a *tooLarge.
func (m *messageReader) read() ([]byte, error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(m.r, header[:1]); err != nil {
		return nil, err
	}
	defer func() {
		if m.timed {
			m.conn.SetReadDeadline(time.Time{})
			m.timed = false
		}
	}()
	if err := m.part(header[1:]); err != nil {
		return nil, err
	}
	long := int64(binary.BigEndian.Uint32(header[:]))
	if long > int64(m.most) {
		part := make([]byte, min(long, partSize))
		for left := long; left > 0; left -= int64(len(part)) {
			part = part[:min(left, int64(len(part)))]
			if err := m.part(part); err != nil {
				return nil, err
			}
		}
		return nil, &tooLarge{long, int64(m.most)}
	}
	size := int(long)
	data := make([]byte, 0, min(size, partSize))
	for len(data) < size {
		if len(data) == cap(data) {
			grown := make([]byte, len(data), min(2*cap(data), size))
			copy(grown, data)
			data = grown
		}
		begin := len(data)
		data = data[:min(cap(data), begin+partSize)]
		if err := m.part(data[begin:]); err != nil {
			return nil, err
		}
	}
	return data, nil
}

// part reads the next part of a message.
func (m *messageReader) part(b []byte) error {
	if buffer, ok := m.r.(*bufio.Reader); m.patience >= 0 && !(ok && buffer.Buffered() >= len(b)) {
		m.conn.SetReadDeadline(time.Now().Add(m.patience)) // a connection that has no deadlines does without
		m.timed = true
	}
	_, err := io.ReadFull(m.r, b)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// partSize is how much is read or written at once.
const partSize = 64 << 10

// partWriter writes to a connection in parts, each of which must be taken within patience; less
// than zero: it need not.
type partWriter struct {
	conn     net.Conn
	patience time.Duration
}

func (w *partWriter) Write(b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		if w.patience >= 0 {
			w.conn.SetWriteDeadline(time.Now().Add(w.patience))
		}
		var m int
		m, err = w.conn.Write(b[n:min(n+partSize, len(b))])
		n += m
	}
	return n, err
}
