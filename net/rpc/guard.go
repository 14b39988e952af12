package rpc

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
)

// A guard stands between a connection and a gob decoder. The decoder believes what a
// message says of itself: it takes memory for a length before the bytes are there, makes a
// map as large as the peer says it will be, and recurses as deep as values nest. The guard
// reads first. A length beyond the limit is refused when it is seen, memory is taken only
// as bytes arrive, every count within a value must be true, and types may keep gob busy only for
// so long.
//
// gob passes over a nil interface, which it sends as an element of a collection, as if more
// followed it: it would see other counts behind it than the guard does, and other types. So
// where the decoder passes one over it is given another value in its place, and where it may,
// since the guard does not know the type that an interface's value is decoded into, nil is refused.
//
// What is refused is not passed on, but for the definitions of types in it. After a
// *messageError the next message can be read; any other error stays.
type guard struct {
	r      *bufio.Reader
	max    uint64 // largest message
	types  map[int64]*wireType
	want   want                       // what the decoder wants of the next value
	locals map[localName]reflect.Type // types that gob has for the peer's; nil: none
	known  map[string]string          // names of methods
	defs   int                        // bytes of the definitions of types so far
	owed   []byte                     // definitions from a value that was refused, for the decoder to have first
	uses   uses                       // of the value that was admitted last
	work   work

	seen uint64 // bytes of all messages whose lengths have been read
	head []byte // what comes before r's bytes
	left uint64 // bytes of the current message that are still in r
	buf  []byte // of messages that have been read whole

	within *bool // is told whether a message has begun; nil: nobody asks

	err error // nothing more can be read
}

const (
	guardBuffer = 8 << 10  // read at a time
	maxDefs     = 1 << 20  // bytes of definitions of types, a connection; gob keeps them
	defCost     = 64       // bytes that a definition counts for besides its own
	maxNesting  = 50_000   // of values; gob recurses, and a stack that is full ends the process
	maxTrust    = 64 << 10 // bytes of memory for a length alone
	maxUnpaid   = 8        // beyond that, bytes of memory for one that has arrived
	keptHead    = 1 << 17  // bytes of the buffer of a message read whole that stays for the next
	maxGob      = (1 << 30) << (^uint(0) >> 62)
)

func newGuard(r io.Reader, maxMessage int) *guard {
	g := &guard{r: bufio.NewReaderSize(r, guardBuffer), max: maxGob - 1}
	if maxMessage > 0 {
		g.max = min(uint64(maxMessage), g.max)
	}
	return g
}

// messageError is why a message was refused that has been read to its end.
type messageError struct {
	text string
	size bool // it was too large, or nested too deep
}

func (e *messageError) Error() string { return e.text }

// ReadByte makes the decoder read from the guard without a buffer of its own.
func (g *guard) ReadByte() (byte, error) {
	var b [1]byte
	_, err := io.ReadFull(g, b[:])
	return b[0], err
}

// Read returns bytes of the current message, or of the next one if that is over.
func (g *guard) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(g.head) == 0 && g.left == 0 {
		if g.err != nil {
			return 0, g.err
		}
		if err := g.next(); err != nil {
			if _, ok := err.(*messageError); !ok {
				g.err = err
			}
			return 0, err
		}
	}
	if len(g.head) > 0 {
		n := copy(p, g.head)
		if g.head = g.head[n:]; len(g.head) == 0 {
			g.head = nil // it may be large
		}
		return n, nil
	}
	n, err := g.r.Read(p[:min(uint64(len(p)), g.left)])
	g.left -= uint64(n)
	return n, err
}

// next admits the next message: it leaves its length, and as much of the message as has
// been read for it, in head, and the rest in left.
func (g *guard) next() error {
	if cap(g.buf) > keptHead {
		g.buf = nil
	}
	g.buf = g.buf[:0]
	n, err := g.length()
	if err != nil {
		return err
	}
	return g.admit(n)
}

// admit is next for a message whose length has been read.
func (g *guard) admit(n uint64) error {
	g.uses = uses{}
	err := g.judge(n)
	if err == nil && g.owed != nil {
		g.head, g.owed = append(g.owed, g.head...), nil
	}
	return err
}

// judge is admit, but for what is owed.
func (g *guard) judge(n uint64) error {
	if n == 0 {
		g.head = g.buf
		return nil
	}
	first, err := g.peek(int(min(n, 9)))
	if err != nil {
		return err
	}
	c := cursor{b: first}
	id := c.int() // bad if the message is cut; gob says so
	if n > g.max {
		return g.refuse(n, id)
	}
	switch {
	case id < 0 && !c.bad:
		return g.definition(n)
	case c.bad || g.plain(id):
		if !c.bad {
			if err := g.weigh(uses{value: g.want.use(id)}); err != nil {
				return err
			}
		}
		// Nothing in it claims anything; only its length does, until a part of as much has arrived, now
		// or in messages before.
		paid := uint64(0)
		if n > maxTrust {
			paid = n/maxUnpaid - min(n/maxUnpaid, g.seen-n)
		}
		if err := g.read(paid); err != nil {
			return err
		}
		g.head, g.left = g.buf, n-paid
		return nil
	}
	return g.value(n)
}

// hold reads the messages of the next value whole, as they are for a decoder: first the
// definitions of types, of so many bytes.
func (g *guard) hold() (held []byte, defs int, err error) {
	for {
		if g.err != nil {
			return nil, 0, g.err
		}
		var err error
		if len(g.head) == 0 && g.left == 0 { // else header has admitted it
			err = g.next()
		}
		if err == nil && g.left > 0 {
			g.buf = g.head
			err = g.read(g.left)
			g.head, g.left = g.buf, 0
		}
		if err != nil {
			if _, ok := err.(*messageError); !ok {
				g.err = err
			}
			g.head = nil
			return held, len(held), err // what was defined before the value is defined
		}
		held = append(held, g.head...)
		g.head = nil
		// Of what next has admitted, the last message is the value, if it is one.
		for defs < len(held) {
			c := cursor{b: held, i: defs}
			n := c.uint()
			from := c.i
			if id := c.int(); c.bad || id >= 0 || n > uint64(len(held)-from) {
				return held, defs, nil
			}
			defs = from + int(n)
		}
	}
}

// length reads a message's length into buf, as it is, and returns it.
func (g *guard) length() (uint64, error) {
	g.begun(false)
	b, err := g.r.ReadByte()
	if err != nil {
		return 0, err
	}
	g.begun(true)
	g.buf = append(g.buf, b)
	if b <= 0x7f {
		g.seen += uint64(b)
		return uint64(b), nil
	}
	size := -int(int8(b))
	if size > 8 {
		return 0, errors.New("rpc: what was received is not gob: a length of more than eight bytes")
	}
	more, err := g.peek(size)
	if err != nil {
		return 0, err
	}
	n := uint64(0)
	for _, b := range more {
		n = n<<8 | uint64(b)
	}
	g.buf = append(g.buf, more...)
	g.r.Discard(size)
	g.seen += n
	return n, nil
}

func (g *guard) begun(begun bool) {
	if g.within != nil {
		*g.within = begun
	}
}

// peek returns the next n bytes, few, without reading them.
func (g *guard) peek(n int) ([]byte, error) {
	b, err := g.r.Peek(n)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return b, err
}

// read reads n bytes into buf, taking memory as they arrive.
func (g *guard) read(n uint64) error {
	for n > 0 {
		step := int(min(n, uint64(max(guardBuffer, len(g.buf)))))
		at := len(g.buf)
		g.buf = slices.Grow(g.buf, step)[:at+step]
		if _, err := io.ReadFull(g.r, g.buf[at:]); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		n -= uint64(step)
	}
	return nil
}

// refuse passes over a message that is too large. If it defined a type, what comes next
// could not be told from it, and the connection is of no more use.
func (g *guard) refuse(n uint64, id int64) error {
	text := fmt.Sprintf("rpc: a message of %d bytes is larger than the limit of %d", n, g.max)
	if id < 0 || n >= maxGob {
		return errors.New(text)
	}
	for n > 0 {
		step := int(min(n, math.MaxInt32))
		if _, err := g.r.Discard(step); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		n -= uint64(step)
	}
	return &messageError{text, true}
}

// definition admits the definition of a type.
func (g *guard) definition(n uint64) error {
	if n > uint64(maxDefs-min(g.defs, maxDefs)) {
		return errDefinitions
	}
	prefix := len(g.buf)
	if err := g.read(n); err != nil {
		return err
	}
	c := cursor{b: g.buf[prefix:]}
	if g.define(&c, -c.int()); c.bad {
		if g.defs > maxDefs {
			return errDefinitions
		}
		return errMalformed
	}
	g.head = g.buf
	return nil
}

// value admits a value in which something may claim what is not true.
func (g *guard) value(n uint64) error {
	prefix := len(g.buf)
	if err := g.read(n); err != nil {
		return err
	}
	w := walk{guard: g, cursor: cursor{b: g.buf, i: prefix}, from: prefix}
	id := w.int()
	w.typed(id, g.want)
	if !w.bad {
		// All that it defines is defined by now.
		w.err = g.weigh(uses{g.want.use(id), w.held})
	}
	switch {
	case w.err != nil:
		return w.err
	case w.deep:
		g.owed = append(g.owed, w.defs...)
		return &messageError{errNested.Error(), true}
	case w.bad && w.defs != nil:
		return errMalformed // where the value ends nobody knows, and the decoder would lack the definitions
	case w.bad:
		return &messageError{errMalformed.Error(), false}
	case w.nils:
		g.owed = append(g.owed, w.defs...)
		return &messageError{errNil.Error(), false}
	case w.out != nil:
		w.emit()
		g.head = append(appendUint(w.defs, uint64(len(w.out))), w.out...)
	default:
		g.head = g.buf
	}
	return nil
}

var (
	errMalformed   = errors.New("rpc: what was received is not gob: a count or a type in it is not true")
	errNil         = fmt.Errorf("rpc: a nil interface is in a struct whose type is not known here, or more than %d are passed over, where gob may lose its place; have gob.Register the type, or send something else than nil", maxPassed)
	errNested      = fmt.Errorf("rpc: a value is nested deeper than %d levels", maxNesting)
	errDefinitions = fmt.Errorf("rpc: the definitions of the peer's types take more than %d bytes", maxDefs)
)
