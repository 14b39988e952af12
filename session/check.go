package session

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Limits of a message's gob stream, beyond its length. What encodes itself stays far below
// them.
const (
	maxDepth  = 10_000  // values within an argument: a linked list has one a node
	maxTypes  = 4096    // type definitions
	maxFields = 1 << 16 // of all struct types together
	maxNils   = 1 << 16 // nil interfaces within structs
	maxSteps  = 1 << 10 // of gob's, through the types, besides one for each byte
)

// check walks a gob stream of an [RPCData], as package gob's decoder would, and refuses what that
// takes on trust: a map's or slice's claimed count, for which it allocates at once, and values
// nested so deeply that decoding them overflows the stack, and types that would keep the decoder
// busy for longer than their length allows. What it returns decodes, if it does, into memory of
// the order of the stream's length: each element of a slice, entry of a map or node takes a byte
// of it at least. It returns the message's name, too, even of one whose
// arguments do not decode.
//
// defs and value are the same message in another form. In the stream, types may be defined in the midst
// of an interface's value, whose length then counts only up to there: a decoder that skips the
// value, in a struct's field that it has not, believes the length, and one that reads it does
// not, so they see different things. Here all types are defined first, in defs, and lengths are
// right. Neither can the decoder skip a nil interface, so within structs, where those are elements
// of slices, arrays or maps, value has an [absent] instead; then nils is true, and [restore] is
// to undo it.
//
// The format is that of package gob's documentation; where that leaves something open, the
// decoder's code decides.
func check(stream []byte) (name string, defs, value []byte, nils bool, err error) {
	c := &checker{stream: stream, types: make(map[int64]*wireType), most: maxSteps + len(stream)}
	defer func() {
		if r := recover(); r != nil {
			bad, ok := r.(*badStream)
			if !ok {
				panic(r)
			}
			name, defs, value, err = "", nil, nil, bad
		}
	}()
	value = make([]byte, sizeSize, sizeSize+len(stream))
	c.out = &value
	id := c.typeSequence(false)
	name = c.message(id)
	if len(c.buf) > 0 || len(c.stream) > 0 {
		c.fail("%d bytes follow the value", len(c.buf)+len(c.stream))
	}
	c.work(id)
	putSize(value, len(value)-sizeSize)
	return name, c.defs, value, c.nils > 0, nil
}

// sizeSize is how many bytes a length takes that check writes: package gob reads longer forms
// than it writes.
const sizeSize = 5

func putSize(at []byte, size int) {
	at[0] = 0x100 - 4
	binary.BigEndian.PutUint32(at[1:], uint32(size))
}

// badStream is why a gob stream is refused.
type badStream struct{ reason string }

func (e *badStream) Error() string { return "not a gob stream that is accepted here: " + e.reason }

type kind uint8

const (
	arrayKind kind = iota // in the order of gob's wireType
	sliceKind
	structKind
	mapKind
	opaqueKind // it encodes itself: as a GobEncoder, or by MarshalBinary or MarshalText
)

// wireType is a type that the stream defines.
type wireType struct {
	kind   kind
	key    int64
	elem   int64
	length int64   // of an array
	fields []int64 // types of a struct's

	// Numbers of the struct's fields of these names; less than zero: it has none.
	funcField, argsField int

	compiled bool
	passed   int // the last pass that came by
}

// Identities of gob's built-in types.
const (
	boolID      = 1
	intID       = 2
	uintID      = 3
	floatID     = 4
	bytesID     = 5
	stringID    = 6
	complexID   = 7
	interfaceID = 8
	firstUserID = 64
)

// checker is where check stands. Its methods panic with a *badStream.
type checker struct {
	stream []byte // messages that have not been begun
	buf    []byte // what is left of the current one
	types  map[int64]*wireType
	fields int     // of all types
	defs   []byte  // the types' definitions, each a message
	out    *[]byte // where what is read goes: defs, or the value
	within int     // structs that the value is in, but for the message itself
	nils   int     // how many an absent stands for

	held   map[held]bool // what the value has in interfaces
	steps  int
	most   int // steps
	passes int
}

// held is a type in an interface, and the name of the type that it is decoded into.
type held struct {
	name string
	id   int64
}

func (c *checker) fail(format string, args ...any) {
	panic(&badStream{fmt.Sprintf(format, args...)})
}

var errShort = errors.New("it is cut short")

// number reads gob's unsigned integer from the head of b.
func number(b []byte) (n uint64, rest []byte, err error) {
	if len(b) == 0 {
		return 0, nil, errShort
	}
	if b[0] <= 0x7f {
		return uint64(b[0]), b[1:], nil
	}
	size := -int(int8(b[0]))
	if size > 8 {
		return 0, nil, errors.New("an integer has more than 8 bytes")
	}
	if len(b) <= size {
		return 0, nil, errShort
	}
	for _, d := range b[1 : 1+size] {
		n = n<<8 | uint64(d)
	}
	return n, b[1+size:], nil
}

// signed returns the integer that an unsigned one stands for.
func signed(n uint64) int64 {
	if n&1 != 0 {
		return ^int64(n >> 1)
	}
	return int64(n >> 1)
}

// drop reads an unsigned integer that is not for c.out.
func (c *checker) drop() uint64 {
	n, rest, err := number(c.buf)
	if err != nil {
		c.fail("%v", err)
	}
	c.buf = rest
	return n
}

// copy sends what has been read since before on to c.out.
func (c *checker) copy(before []byte) {
	*c.out = append(*c.out, before[:len(before)-len(c.buf)]...)
}

func (c *checker) uint() uint64 {
	before := c.buf
	n := c.drop()
	c.copy(before)
	return n
}

func (c *checker) int() int64 { return signed(c.uint()) }

// bytes reads a counted string, which is valid until the stream changes.
func (c *checker) bytes() []byte {
	before := c.buf
	n := c.drop()
	if n > uint64(len(c.buf)) {
		c.fail("a string of %d bytes has %d", n, len(c.buf))
	}
	text := c.buf[:n]
	c.buf = c.buf[n:]
	c.copy(before)
	return text
}

// count reads the number of elements that follow, each of which takes size bytes at least.
func (c *checker) count(what string, size uint64) int {
	n := c.uint()
	if n > uint64(len(c.buf))/size {
		c.fail("a %s claims %d elements, and %d bytes follow", what, n, len(c.buf))
	}
	return int(n)
}

// typeSequence reads type definitions, and returns the type of the value after them.
func (c *checker) typeSequence(inInterface bool) int64 {
	for {
		if len(c.buf) == 0 {
			n, rest, err := number(c.stream)
			if err != nil {
				c.fail("%v", err)
			}
			if n > uint64(len(rest)) {
				c.fail("a part of %d bytes has %d", n, len(rest))
			}
			c.buf, c.stream = rest[:n], rest[n:]
		}
		before := c.buf
		id := signed(c.drop())
		if id >= 0 {
			c.copy(before)
			return id
		}
		out, begin := c.out, len(c.defs)
		c.defs = append(c.defs, make([]byte, sizeSize)...)
		c.out = &c.defs
		c.copy(before)
		c.define(-id)
		putSize(c.defs[begin:], len(c.defs)-begin-sizeSize)
		c.out = out
		if len(c.buf) > 0 {
			if !inInterface {
				c.fail("%d bytes follow a type definition", len(c.buf))
			}
			c.drop() // the length of what follows, as far as it is known here
		}
	}
}

// structure reads a struct's fields: it calls field with the number of each one that is there.
func (c *checker) structure(field func(n uint64)) {
	next := uint64(0)
	for {
		delta := c.uint()
		if delta == 0 {
			return
		}
		if delta > maxFields || next+delta > maxFields {
			c.fail("a struct has a field number beyond %d", maxFields)
		}
		next += delta
		field(next - 1)
	}
}

// define reads the definition of a type.
func (c *checker) define(id int64) {
	switch {
	case id < firstUserID || c.types[id] != nil:
		c.fail("type %d is defined twice", id)
	case len(c.types) == maxTypes:
		c.fail("it defines more than %d types", maxTypes)
	}
	t := &wireType{funcField: -1, argsField: -1}
	variants := 0
	c.structure(func(n uint64) {
		variants++
		t.kind = kind(min(n, uint64(opaqueKind)))
		if n > 6 {
			c.fail("type %d is of an unknown kind", id)
		}
		c.structure(func(n uint64) {
			switch {
			case n == 0: // the name and the number, once more
				c.nameAndID()
			case n == 1 && t.kind == structKind:
				for range c.count("struct type", 1) {
					if c.fields++; c.fields > maxFields {
						c.fail("its types have more than %d fields", maxFields)
					}
					name, id := c.nameAndID()
					switch string(name) {
					case "Func":
						t.funcField = len(t.fields)
					case "Args":
						t.argsField = len(t.fields)
					}
					t.fields = append(t.fields, id)
				}
			case n == 1 && t.kind == mapKind:
				t.key = c.int()
			case n == 1 && t.kind != opaqueKind, n == 2 && t.kind == mapKind:
				t.elem = c.int()
			case n == 2 && t.kind == arrayKind:
				t.length = c.int()
			default:
				c.fail("type %d is defined by a field %d", id, n)
			}
		})
	})
	if variants != 1 {
		c.fail("type %d has %d definitions", id, variants)
	}
	c.types[id] = t
}

// nameAndID reads a struct of a name and a type's number.
func (c *checker) nameAndID() (name []byte, id int64) {
	c.structure(func(n uint64) {
		switch n {
		case 0:
			name = c.bytes()
		case 1:
			id = c.int()
		default:
			c.fail("a field of a type has a part %d", n)
		}
	})
	return name, id
}

// message reads the message, a struct of a name and arguments, and returns the name.
func (c *checker) message(id int64) (name string) {
	t := c.types[id]
	if t == nil || t.kind != structKind || t.funcField < 0 && t.argsField < 0 {
		c.fail("it is not a struct with fields Func and Args")
	}
	c.structure(func(n uint64) {
		switch {
		case n == uint64(t.funcField) && t.fields[n] == stringID:
			name = string(c.bytes())
		case n == uint64(t.argsField):
			args := c.types[t.fields[n]]
			if args == nil || args.kind != sliceKind || args.elem != interfaceID {
				c.fail("Args is not a slice of interfaces")
			}
			c.value(t.fields[n], -2, false) // the slice, and the interface, are none of the argument's
		default:
			c.fail("it has a field beside Func and Args, or Func is no string")
		}
	})
	return name
}

// value reads a value. On its own, one that is no struct has a zero byte before it.
func (c *checker) value(id int64, depth int, alone bool) {
	if depth > maxDepth {
		c.fail("values are nested more than %d deep", maxDepth)
	}
	t := c.types[id]
	if alone && (t == nil || t.kind != structKind) && c.uint() != 0 {
		c.fail("a value begins with a field's number")
	}
	if t == nil {
		switch id {
		case boolID, intID, uintID, floatID:
			c.uint()
		case bytesID, stringID:
			c.bytes()
		case complexID:
			c.uint()
			c.uint()
		case interfaceID:
			c.dynamic(depth)
		default:
			c.fail("type %d is not defined", id)
		}
		return
	}
	switch t.kind {
	case structKind:
		c.within++
		defer func() { c.within-- }()
		c.structure(func(n uint64) {
			if n >= uint64(len(t.fields)) {
				c.fail("a struct of %d fields has a field %d", len(t.fields), n)
			}
			c.value(t.fields[n], depth+1, false)
		})
	case sliceKind, arrayKind:
		n := c.count("slice or array", 1)
		if t.kind == arrayKind && int64(n) != t.length {
			c.fail("an array of %d elements has %d", t.length, n)
		}
		for range n {
			c.value(t.elem, depth+1, false)
		}
	case mapKind:
		for range c.count("map", 2) {
			c.value(t.key, depth+1, false)
			c.value(t.elem, depth+1, false)
		}
	default:
		c.bytes()
	}
}

// dynamic reads an interface value.
func (c *checker) dynamic(depth int) {
	begin := len(*c.out)
	name := c.bytes()
	switch string(name) {
	case "": // nil has no name
		if c.within > 0 {
			if c.nils++; c.nils > maxNils {
				c.fail("there are more than %d nil interfaces within structs", maxNils)
			}
			*c.out = append((*c.out)[:begin], absentValue...)
		}
		return
	case absentName:
		c.fail("a name that nothing is sent by")
	}
	id := c.typeSequence(true)
	if c.types[id] != nil && !c.held[held{string(name), id}] {
		if c.held == nil {
			c.held = make(map[held]bool)
		}
		c.held[held{string(name), id}] = true
	}
	c.drop() // the value's length, or a part of it
	begin = len(*c.out)
	*c.out = append(*c.out, make([]byte, sizeSize)...)
	c.value(id, depth+1, true)
	putSize((*c.out)[begin:], len(*c.out)-begin-sizeSize)
}
