package session

import (
	"bytes"
	"encoding/gob"
	"math"
	"math/bits"
	"sync"
)

// A message whose values are all of gob's own types is written without gob, which takes more
// time to say what an RPCData is than for anything else. The bytes are gob's, which FuzzPlain
// compares.

// An opening is how gob's messages of an RPCData begin: with the definitions of its types, and,
// behind a length, the number of its own.
type opening struct{ defs, number []byte }

var openingOf = sync.OnceValue(func() (o opening) {
	var buf bytes.Buffer
	if gob.NewEncoder(&buf).Encode(RPCData{Args: []any{nil}}) != nil {
		return o
	}
	for rest := buf.Bytes(); len(rest) > 0; {
		size, message, err := number(rest)
		if err != nil || size > uint64(len(message)) {
			return opening{}
		}
		id, after, err := number(message[:size])
		if err != nil {
			return opening{}
		}
		if signed(id) >= 0 {
			o.number = message[:int(size)-len(after)]
			return o
		}
		o.defs = buf.Bytes()[:buf.Len()-len(message)+int(size)]
		rest = message[size:]
	}
	return opening{}
})

// encodePlain returns the frame of a message, or nil if gob is needed for it.
func encodePlain(msg RPCData) []byte {
	o := openingOf()
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
