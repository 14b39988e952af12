package session

import (
	"bytes"
	"encoding/gob"
	"math"
	"math/bits"
	"sync"
)

// A message whose values are all of gob's own types is written and read without gob, which takes
// more time for what an RPCData is than for anything else. The bytes are gob's, and so are the
// values, which FuzzPlain and FuzzPlainReader compare.

// An opening is how gob's messages of an RPCData begin: with the definitions of its types, and,
// behind a length, the number of its own.
type opening struct{ defs, number []byte }

// ownOpening is that of this process.
var ownOpening = sync.OnceValue(func() opening {
	var buf bytes.Buffer
	gob.NewEncoder(&buf).Encode(RPCData{Args: []any{nil}})
	return openingOf(buf.Bytes())
})

// openingOf returns the opening of a message; with a nil number: it has none.
func openingOf(stream []byte) opening {
	for rest := stream; len(rest) > 0; {
		size, message, err := number(rest)
		if err != nil || size > uint64(len(message)) {
			break
		}
		id, after, err := number(message[:size])
		if err != nil {
			break
		}
		if signed(id) >= 0 {
			return opening{stream[:len(stream)-len(rest)], message[:int(size)-len(after)]}
		}
		rest = message[size:]
	}
	return opening{}
}

// learn returns the opening of a message that check has accepted, if it is one that openPlain
// can go by. Another process numbers its types its own way.
func learn(stream []byte) opening {
	c := &checker{stream: stream, types: make(map[int64]*wireType), out: new([]byte)}
	t := c.types[c.typeSequence(false)]
	if len(t.fields) != 2 || t.funcField != 0 || t.argsField != 1 {
		return opening{}
	}
	o := openingOf(stream)
	return opening{bytes.Clone(o.defs), bytes.Clone(o.number)}
}

// openPlain reads the name of a message whose opening is known, and returns whether it is one;
// else check and gob are to read it.
func openPlain(stream []byte, o opening) (r plainReader, ok bool) {
	if o.number == nil {
		return r, false
	}
	if r.rest, ok = bytes.CutPrefix(stream, o.defs); !ok || r.uint() != uint64(len(r.rest)) {
		return r, false
	}
	if r.rest, ok = bytes.CutPrefix(r.rest, o.number); !ok {
		return r, false
	}
	if r.next(); r.field == 1 {
		r.name = string(r.bytes())
		r.next()
	}
	return r, !r.bad
}

// args returns the rest of a message if its values are all of gob's own types, and whether they
// are; else check and gob are to read it.
func (r *plainReader) args() (args []any, ok bool) {
	if r.field == 2 {
		n := r.uint()
		if n == 0 || n > uint64(len(r.rest)) {
			return nil, false
		}
		args = make([]any, n)
		for i := range args {
			args[i] = r.value()
		}
		r.next()
	}
	return args, r.field == 0 && !r.bad && r.ended && len(r.rest) == 0
}

// A plainReader reads parts of a message. When it is bad, it returns zeros.
type plainReader struct {
	name  string // that it has read
	field uint64 // what is next; zero: none
	rest  []byte
	bad   bool
	ended bool // the last number was zero
}

// next goes on to the next field.
func (r *plainReader) next() {
	if delta := r.uint(); delta == 0 || delta > 2 {
		r.field = 0
	} else {
		r.field += delta
	}
}

func (r *plainReader) uint() uint64 {
	n, rest, err := number(r.rest)
	if err != nil || r.bad {
		r.bad = true
		return 0
	}
	r.rest, r.ended = rest, n == 0
	return n
}

func (r *plainReader) bytes() []byte {
	n := r.uint()
	if n > uint64(len(r.rest)) {
		r.bad = true
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

// value reads an interface's value.
func (r *plainReader) value() any {
	name := r.bytes()
	if len(name) == 0 {
		return nil
	}
	id := signed(r.uint())
	size := r.uint()
	after := len(r.rest) - int(min(size, math.MaxInt32))
	if r.uint() != 0 {
		r.bad = true
	}
	v := r.known(string(name), id)
	r.bad = r.bad || v == nil || len(r.rest) != after
	return v
}

// known reads a value of one of gob's types.
func (r *plainReader) known(name string, id int64) any {
	switch {
	case name == "bool" && id == boolID:
		return r.uint() != 0
	case name == "int" && id == intID:
		return signedAs[int](r)
	case name == "int8" && id == intID:
		return signedAs[int8](r)
	case name == "int16" && id == intID:
		return signedAs[int16](r)
	case name == "int32" && id == intID:
		return signedAs[int32](r)
	case name == "int64" && id == intID:
		return signedAs[int64](r)
	case name == "uint" && id == uintID:
		return unsignedAs[uint](r)
	case name == "uint8" && id == uintID:
		return unsignedAs[uint8](r)
	case name == "uint16" && id == uintID:
		return unsignedAs[uint16](r)
	case name == "uint32" && id == uintID:
		return unsignedAs[uint32](r)
	case name == "uint64" && id == uintID:
		return r.uint()
	case name == "float64" && id == floatID:
		return math.Float64frombits(bits.ReverseBytes64(r.uint()))
	case name == "float32" && id == floatID:
		x := math.Float64frombits(bits.ReverseBytes64(r.uint()))
		r.bad = r.bad || math.Abs(x) > math.MaxFloat32 && !math.IsInf(x, 0)
		return float32(x)
	case name == "string" && id == stringID:
		return string(r.bytes())
	case name == "[]uint8" && id == bytesID:
		return append([]byte(nil), r.bytes()...)
	}
	return nil
}

func signedAs[T int | int8 | int16 | int32 | int64](r *plainReader) T {
	n := signed(r.uint())
	r.bad = r.bad || int64(T(n)) != n
	return T(n)
}

func unsignedAs[T uint | uint8 | uint16 | uint32](r *plainReader) T {
	n := r.uint()
	r.bad = r.bad || uint64(T(n)) != n
	return T(n)
}

// encodePlain returns the frame of a message, or nil if gob is needed for it.
func encodePlain(msg RPCData) []byte {
	o := ownOpening()
	if o.number == nil {
		return nil
	}
	size := headerSize + len(o.defs) + 16 + len(msg.Func)
	for _, v := range msg.Args {
		switch v := v.(type) {
		case string:
			size += len(v)
		case []byte:
			size += len(v)
		}
		size += 32
	}
	frame := append(make([]byte, headerSize, size), o.defs...)
	begin := len(frame)
	frame = append(append(frame, 0), o.number...)
	last := uint64(0)
	if msg.Func != "" {
		frame = appendString(append(frame, 1), msg.Func)
		last = 1
	}
	if len(msg.Args) > 0 {
		frame = appendUint(append(frame, byte(2-last)), uint64(len(msg.Args)))
		for _, v := range msg.Args {
			if frame = appendPlain(frame, v); frame == nil {
				return nil
			}
		}
	}
	frame = append(frame, 0)
	length := len(frame) - begin - 1
	if length > 0x7f {
		var space [9]byte
		prefix := appendUint(space[:0], uint64(length))
		frame = append(frame, prefix[1:]...)
		copy(frame[begin+len(prefix):], frame[begin+1:begin+1+length])
		copy(frame[begin:], prefix)
	} else {
		frame[begin] = byte(length)
	}
	if uint64(len(frame)-headerSize) > math.MaxUint32 || length >= maxPlain {
		return nil
	}
	return seal(frame)
}

// maxPlain is the longest message that gob is not asked for: what it says of others is its own.
const maxPlain = 1 << 29

// appendPlain appends an interface's value, or returns nil if gob is needed for it.
func appendPlain(b []byte, value any) []byte {
	switch v := value.(type) {
	case nil:
		return append(b, 0)
	case bool:
		n := uint64(0)
		if v {
			n = 1
		}
		return appendNumber(b, "bool", boolID, n)
	case int:
		return appendNumber(b, "int", intID, unsigned(int64(v)))
	case int8:
		return appendNumber(b, "int8", intID, unsigned(int64(v)))
	case int16:
		return appendNumber(b, "int16", intID, unsigned(int64(v)))
	case int32:
		return appendNumber(b, "int32", intID, unsigned(int64(v)))
	case int64:
		return appendNumber(b, "int64", intID, unsigned(v))
	case uint:
		return appendNumber(b, "uint", uintID, uint64(v))
	case uint8:
		return appendNumber(b, "uint8", uintID, uint64(v))
	case uint16:
		return appendNumber(b, "uint16", uintID, uint64(v))
	case uint32:
		return appendNumber(b, "uint32", uintID, uint64(v))
	case uint64:
		return appendNumber(b, "uint64", uintID, v)
	case float32:
		return appendNumber(b, "float32", floatID, bits.ReverseBytes64(math.Float64bits(float64(v))))
	case float64:
		return appendNumber(b, "float64", floatID, bits.ReverseBytes64(math.Float64bits(v)))
	case string:
		b = appendHead(b, "string", stringID, uintSize(uint64(len(v)))+len(v))
		return appendString(b, v)
	case []byte:
		b = appendHead(b, "[]uint8", bytesID, uintSize(uint64(len(v)))+len(v))
		return append(appendUint(b, uint64(len(v))), v...)
	}
	return nil
}

// appendHead appends what is before a value of one of gob's types in an interface: the name, the
// type, the length, and the zero before a value that is no struct.
func appendHead(b []byte, name string, id, size int) []byte {
	b = append(appendString(b, name), byte(2*id))
	return append(appendUint(b, uint64(1+size)), 0)
}

func appendNumber(b []byte, name string, id int, n uint64) []byte {
	return appendUint(appendHead(b, name, id, uintSize(n)), n)
}

func appendString(b []byte, s string) []byte { return append(appendUint(b, uint64(len(s))), s...) }

// unsigned returns the integer that stands for a signed one.
func unsigned(n int64) uint64 {
	if n < 0 {
		return uint64(^n)<<1 | 1
	}
	return uint64(n) << 1
}

// uintSize returns how many bytes appendUint appends.
func uintSize(n uint64) int {
	if n <= 0x7f {
		return 1
	}
	return 1 + (bits.Len64(n)+7)/8
}

// appendUint appends a number as gob encodes it.
func appendUint(b []byte, n uint64) []byte {
	if n <= 0x7f {
		return append(b, byte(n))
	}
	size := uintSize(n) - 1
	b = append(b, byte(-size))
	for i := size - 1; i >= 0; i-- {
		b = append(b, byte(n>>(8*i)))
	}
	return b
}
