package rpc

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
	"reflect"
	"slices"
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
	names  []string // of fields
	judged bool
	plain  bool // whether judged, nothing in it needs to be looked at

	headed bool          // whether header says
	header []headerField // what the fields are as a header's; nil: it is none

	local  reflect.Type // that it was last decoded into
	wanted []want       // of fields, then
	whole  bool         // who decodes such a value passes over nothing in it that needs to be looked at

	passed uint64 // the last pass of a weighing that came by; see work
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
					var name string
					for f := c.field(-1, 2); f >= 0; f = c.field(f, 2) {
						if f == 0 {
							n := c.count()
							name = string(c.b[c.i : c.i+n])
							c.i += n
						} else {
							id = c.int()
						}
					}
					t.fields, t.names = append(t.fields, id), append(t.names, name)
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
	g.work.mu.Lock()
	defer g.work.mu.Unlock()
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
// together anew: all definitions first, then one message in which the lengths are true, and in
// the place of a nil interface that is passed over there is another value.
type walk struct {
	cursor
	guard  *guard
	depth  int
	out    []byte // the value as it is put together, up to from; nil: there was no interface
	from   int
	defs   []byte       // messages that define types
	held   map[use]bool // what it has in interfaces
	nils   bool         // there is a nil interface that gob may pass over
	passed int          // nil interfaces that have been replaced
	deep   bool         // it is nested deeper than may be
	err    error        // of the connection
}

// emit moves what has been walked since from to out.
func (w *walk) emit() {
	w.out = append(w.out, w.b[w.from:w.i]...)
	w.from = w.i
}

// typed walks a value that stands on its own: one that is no struct follows a zero.
func (w *walk) typed(id int64, want want) {
	if t := w.guard.types[id]; (t == nil || t.kind != kindStruct) && w.uint() != 0 {
		w.bad = true
	}
	w.value(id, want)
}

// value walks a value of a type.
func (w *walk) value(id int64, want want) {
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
		w.bad, w.deep = true, true
		return
	}
	if id == gobInterface {
		w.iface(want)
	} else {
		w.user(w.guard.types[id], want)
	}
	w.depth--
}

// user walks a value of a type that the peer has defined. Each element takes a byte, so
// counts that are not true end with the bytes.
func (w *walk) user(t *wireType, want want) {
	switch {
	case t == nil:
		w.bad = true
	case t.kind == kindOpaque:
		w.skip()
	case t.kind == kindStruct:
		fields, of := t.wants(want)
		for f := w.field(-1, len(t.fields)); f >= 0; f = w.field(f, len(t.fields)) {
			if fields != nil {
				of = fields[f]
			}
			w.value(t.fields[f], of)
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
		key, elem := want.elem()
		for ; n > 0 && !w.bad; n-- {
			if w.rest() == 0 {
				w.bad = true
				return
			}
			if t.kind == kindMap {
				w.value(t.key, key)
			}
			w.value(t.elem, elem)
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
func (w *walk) iface(outer want) {
	begin := w.i
	n := w.count()
	if n == 0 {
		switch {
		case w.bad:
		case outer.kind == unsure || outer.kind == ignored && w.passed == maxPassed:
			w.nils = true
		case outer.kind == ignored:
			w.passed++
			w.out = append(append(w.out, w.b[w.from:begin]...), passable...)
			w.from = w.i
		}
		return
	}
	name := w.b[w.i : w.i+n]
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
			held := want{kind: skipped}                         // gob passes over an interface by its length
			if outer.kind != ignored && outer.kind != skipped {
				held = w.guard.held(name, id)
				if id >= gobUser {
					if w.held == nil {
						w.held = make(map[use]bool)
					}
					w.held[held.use(id)] = true
				}
			}
			w.typed(id, held)
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

// maxPassed is how many nil interfaces of a value are replaced. Each is a byte that becomes 14.
const maxPassed = 1 << 16

// passable is what gob passes over in an interface: a bool, of a name that it does not look at.
var passable = []byte{1, '-', gobBool << 1, 0xf8, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0}

// more reads the message that the value goes on in.
func (w *walk) more() bool {
	g := w.guard
	n, err := g.length()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err == nil && n > g.max-min(g.max, uint64(len(g.buf))) {
		err = fmt.Errorf("rpc: a message is larger than the limit of %d bytes", g.max)
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

// appendInt appends a number that may be less than zero as gob encodes it.
func appendInt(b []byte, n int64) []byte {
	if n < 0 {
		return appendUint(b, uint64(^n)<<1|1)
	}
	return appendUint(b, uint64(n)<<1)
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
