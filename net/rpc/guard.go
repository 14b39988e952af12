package rpc

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"slices"
)

// A guard stands between a connection and a gob decoder. The decoder believes what a
// message says of itself: it takes memory for a length before the bytes are there, makes a
// map as large as the peer says it will be, and recurses as deep as values nest. The guard
// reads first. A length beyond the limit is refused when it is seen, memory is taken only
// as bytes arrive, and every count within a value must be true.
//
// One thing it cannot know is what the decoder wants. gob passes over a collection with a
// nil interface in it as if more followed the nil, and so a peer can hide a count from the
// guard, if the decoder lacks the field and wants a map elsewhere in the value.
//
// What is refused is not passed on. After a *messageError the next message can be read;
// any other error stays.
type guard struct {
	r     *bufio.Reader
	max   uint64 // largest message
	types map[int64]*wireType
	defs  int // bytes of the definitions of types so far

	head []byte // what comes before r's bytes
	left uint64 // bytes of the current message that are still in r
	buf  []byte // of messages that have been read whole

	err error // nothing more can be read
}

const (
	guardBuffer = 8 << 10  // read at a time
	maxDefs     = 1 << 20  // bytes of definitions of types, a connection; gob keeps them
	defCost     = 64       // bytes that a definition counts for besides its own
	maxNesting  = 50_000   // of values; gob's stack grows by some 600 bytes a level
	maxTrust    = 64 << 10 // bytes of memory for a length alone
	maxUnpaid   = 8        // beyond that, bytes of memory for one that has arrived
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
	size bool // it was too large
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
	if cap(g.buf) > keptSpare {
		g.buf = nil
	}
	g.buf = g.buf[:0]
	n, err := g.length()
	if err != nil {
		return err
	}
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
		// Nothing in it claims anything; only its length does, until a part has arrived.
		paid := uint64(0)
		if n > maxTrust {
			paid = n / maxUnpaid
		}
		if err := g.read(paid); err != nil {
			return err
		}
		g.head, g.left = g.buf, n-paid
		return nil
	}
	return g.value(n)
}

// length reads a message's length into buf, as it is, and returns it.
func (g *guard) length() (uint64, error) {
	b, err := g.r.ReadByte()
	if err != nil {
		return 0, err
	}
	g.buf = append(g.buf, b)
	if b <= 0x7f {
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
	return n, nil
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
	text := fmt.Sprintf("rpc: a message of %d bytes is larger than the limit, %d", n, g.max)
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
	w.typed(w.int())
	switch {
	case w.err != nil:
		return w.err
	case w.bad && w.defs != nil:
		return errMalformed // the decoder would lack the definitions
	case w.bad:
		return &messageError{errMalformed.Error(), false}
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
	errDefinitions = fmt.Errorf("rpc: the definitions of the peer's types take more than %d bytes", maxDefs)
)

// Types that gob defines itself.
const (
	gobBool = 1 + iota
	gobInt
	gobUint
	gobFloat
	gobBytes
	gobString
	gobComplex
	gobInterface
	gobUser = 64 // the first that a peer may define
)

type wireKind uint8

const (
	kindOpaque wireKind = iota // a type with an encoding of its own: bytes
	kindArray
	kindSlice
	kindStruct
	kindMap
)

// A wireType is a type as a peer has defined it.
type wireType struct {
	kind   wireKind
	key    int64 // of a map
	elem   int64 // of an array, a slice or a map
	size   uint64
	fields []int64
	judged bool
	plain  bool // whether judged, nothing in it needs to be looked at
}

// plain reports whether values of a type are only scalars, strings, bytes and structs of
// those. It says no of a type that is part of itself.
func (g *guard) plain(id int64) bool {
	if id < gobUser {
		return id != gobInterface // gob itself refuses those that it has not defined
	}
	t := g.types[id]
	if t == nil {
		return true // gob refuses it
	}
	if !t.judged {
		t.judged = true
		switch t.kind {
		case kindOpaque:
			t.plain = true
		case kindStruct:
			t.plain = !slices.ContainsFunc(t.fields, func(id int64) bool {
				return id >= gobUser && g.types[id] == nil || !g.plain(id)
			})
		}
	}
	return t.plain
}

// A cursor reads gob's encoding from bytes. Once it finds them malformed, it is bad and
// returns zeros.
type cursor struct {
	b   []byte
	i   int
	bad bool
}

func (c *cursor) rest() int { return len(c.b) - c.i }

func (c *cursor) uint() uint64 {
	if c.bad || c.i >= len(c.b) {
		c.bad = true
		return 0
	}
	b := c.b[c.i]
	c.i++
	if b <= 0x7f {
		return uint64(b)
	}
	size := -int(int8(b))
	if size > 8 || size > c.rest() {
		c.bad = true
		return 0
	}
	n := uint64(0)
	for _, b := range c.b[c.i : c.i+size] {
		n = n<<8 | uint64(b)
	}
	c.i += size
	return n
}

func (c *cursor) int() int64 {
	n := c.uint()
	if n&1 != 0 {
		return ^int64(n >> 1)
	}
	return int64(n >> 1)
}

// count reads the number of things that follow, of at least a byte each.
func (c *cursor) count() int {
	n := c.uint()
	if n > uint64(c.rest()) {
		c.bad = true
		return 0
	}
	return int(n)
}

func (c *cursor) skip() { c.i += c.count() }

// field reads the number of a struct's next field, counted from zero; -1: there is none.
// last is the number of the field before, or -1.
func (c *cursor) field(last, fields int) int {
	if c.bad || c.i >= len(c.b) {
		return -1
	}
	delta := c.uint()
	if delta == 0 {
		return -1
	}
	if delta > uint64(fields-1-last) {
		c.bad = true
		return -1
	}
	return last + int(delta)
}

// define reads the definition of a type: gob's own wireType, whose fields are the kinds of
// types, of which one is set.
func (g *guard) define(c *cursor, id int64) {
	start := c.i
	t := new(wireType)
	set := 0
	for kind := c.field(-1, 7); kind >= 0; kind = c.field(kind, 7) {
		set++
		switch kind {
		case 0: // CommonType, Elem, Len
			t.kind = kindArray
			t.parts(c, func(int) { t.elem = c.int() }, func(int) { t.size = uint64(c.int()) })
		case 1: // CommonType, Elem
			t.kind = kindSlice
			t.parts(c, func(int) { t.elem = c.int() })
		case 2: // CommonType, Field
			t.kind = kindStruct
			t.parts(c, func(int) {
				for range c.count() {
					var id int64 // Name, Id
					for f := c.field(-1, 2); f >= 0; f = c.field(f, 2) {
						if f == 0 {
							c.skip()
						} else {
							id = c.int()
						}
					}
					t.fields = append(t.fields, id)
				}
			})
		case 3: // CommonType, Key, Elem
			t.kind = kindMap
			t.parts(c, func(int) { t.key = c.int() }, func(int) { t.elem = c.int() })
		default: // CommonType
			t.kind = kindOpaque
			t.parts(c)
		}
	}
	g.defs += c.i - start + defCost
	if set != 1 || id < gobUser || g.types[id] != nil || g.defs > maxDefs {
		c.bad = true
	}
	if c.bad {
		return
	}
	if g.types == nil {
		g.types = make(map[int64]*wireType)
	}
	g.types[id] = t
}

// parts reads one of wireType's fields: a CommonType, of Name and Id, and more.
func (t *wireType) parts(c *cursor, more ...func(int)) {
	n := 1 + len(more)
	for f := c.field(-1, n); f >= 0; f = c.field(f, n) {
		if f > 0 {
			more[f-1](f)
			continue
		}
		for f := c.field(-1, 2); f >= 0; f = c.field(f, 2) {
			if f == 0 {
				c.skip()
			} else {
				c.int()
			}
		}
	}
}

// A walk goes through a value as the decoder will, and takes no memory for what it claims.
//
// The first value of its kind in an interface has the definition of its type before it, and
// there the message is cut: it goes on in the next one, or, within another interface, in
// place. A decoder that passes such an interface over goes by its length, one that wants it
// by its contents, and the two can be made to differ. So a value with interfaces is put
// together anew: all definitions first, then one message in which the lengths are true.
type walk struct {
	cursor
	guard *guard
	depth int
	out   []byte // the value as it is put together, up to from; nil: there was no interface
	from  int
	defs  []byte // messages that define types
	err   error  // of the connection
}

// emit moves what has been walked since from to out.
func (w *walk) emit() {
	w.out = append(w.out, w.b[w.from:w.i]...)
	w.from = w.i
}

// typed walks a value that stands on its own: one that is no struct follows a zero.
func (w *walk) typed(id int64) {
	if t := w.guard.types[id]; (t == nil || t.kind != kindStruct) && w.uint() != 0 {
		w.bad = true
	}
	w.value(id)
}

// value walks a value of a type.
func (w *walk) value(id int64) {
	if w.bad {
		return
	}
	switch id {
	case gobBool, gobInt, gobUint, gobFloat:
		w.uint()
		return
	case gobComplex:
		w.uint()
		w.uint()
		return
	case gobBytes, gobString:
		w.skip()
		return
	}
	if w.depth++; w.depth > maxNesting {
		w.bad = true
		return
	}
	if id == gobInterface {
		w.iface()
	} else {
		w.user(w.guard.types[id])
	}
	w.depth--
}

// user walks a value of a type that the peer has defined. Each element takes a byte, so
// counts that are not true end with the bytes.
func (w *walk) user(t *wireType) {
	switch {
	case t == nil:
		w.bad = true
	case t.kind == kindOpaque:
		w.skip()
	case t.kind == kindStruct:
		for f := w.field(-1, len(t.fields)); f >= 0; f = w.field(f, len(t.fields)) {
			w.value(t.fields[f])
		}
	default:
		n := w.uint()
		if t.kind == kindArray && n != t.size {
			w.bad = true
		}
		if t.kind != kindMap && t.elem >= gobBool && t.elem <= gobFloat {
			w.scalars(n)
			return
		}
		for ; n > 0 && !w.bad; n-- {
			if w.rest() == 0 {
				w.bad = true
				return
			}
			if t.kind == kindMap {
				w.value(t.key)
			}
			w.value(t.elem)
		}
	}
}

// scalars walks n numbers.
func (w *walk) scalars(n uint64) {
	for ; n > 0; n-- {
		if w.i >= len(w.b) {
			w.bad = true
			return
		}
		b := w.b[w.i]
		w.i++
		if b > 0x7f {
			w.i += -int(int8(b))
		}
	}
	w.bad = w.bad || w.i > len(w.b)
}

// iface walks an interface's value: a name, definitions, the type, a length, the value.
func (w *walk) iface() {
	n := w.count()
	if n == 0 {
		return
	}
	w.i += n
	w.emit()
	for {
		if w.rest() == 0 && !w.more() {
			return
		}
		at := w.i
		id := w.int()
		if w.bad {
			return
		}
		if id >= 0 {
			w.emit()
			w.uint() // its length, which comes anew
			w.from = w.i
			at := len(w.out)
			w.out = append(w.out, 0xf8, 0, 0, 0, 0, 0, 0, 0, 0) // a number of eight bytes
			w.typed(id)
			w.emit()
			binary.BigEndian.PutUint64(w.out[at+1:], uint64(len(w.out)-at-9))
			return
		}
		if w.guard.define(&w.cursor, -id); w.bad {
			return
		}
		w.defs = append(appendUint(w.defs, uint64(w.i-at)), w.b[at:w.i]...)
		if w.rest() > 0 {
			w.uint() // the length of what comes next
		}
		w.from = w.i
	}
}

// more reads the message that the value goes on in.
func (w *walk) more() bool {
	g := w.guard
	n, err := g.length()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err == nil && n > g.max-min(g.max, uint64(len(g.buf))) {
		err = fmt.Errorf("rpc: a message is larger than the limit, %d bytes", g.max)
	}
	w.i = len(g.buf)
	w.from = w.i
	if err == nil {
		err = g.read(n)
	}
	w.b = g.buf
	if err != nil {
		w.err, w.bad = err, true
	}
	return err == nil
}

// appendUint appends a number as gob encodes it.
func appendUint(b []byte, n uint64) []byte {
	if n <= 0x7f {
		return append(b, byte(n))
	}
	size := (bits.Len64(n) + 7) / 8
	b = append(b, byte(-size))
	for i := size - 1; i >= 0; i-- {
		b = append(b, byte(n>>(8*i)))
	}
	return b
}
