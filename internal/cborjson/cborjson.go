// Package cborjson turns JSON text (RFC 8259) into CBOR (RFC 8949) and back, for types that
// encode themselves as JSON only. Every program has it, so it is small, which encoding/json and
// what it takes to go by way of Go values are not.
//
//	JSON                    CBOR
//	null, true, false       the same; undefined becomes null
//	integer                 an integer, or beyond 64 bits a bignum (tags 2 and 3)
//	other number, -0        a float of 64 bits; floats of all sizes become numbers
//	string                  a text string; a byte string becomes base64, as in encoding/json
//	array, object           an array, and a map whose keys are text strings, in the same order
//
// A number with more digits than a float64 has becomes the nearest one, and one beyond its
// range is an error. So are NaN, infinities, and simple values without a name. A tag is what it
// contains, but for times (tag 1), which become text as RFC 3339 has it. Of strings, whether
// they are UTF-8 is not looked at.
//
// Nothing panics, whatever the bytes are, and what is appended is at most twelve times as long.
package cborjson

import (
	"encoding/binary"
	"errors"
	"strconv"
)

// maxNesting is how deeply arrays, objects and tags may be nested, in levels.
const maxNesting = 10000

// The longest bignums, in decimal digits and in bytes. To convert one takes time that grows
// faster than its length.
const (
	maxDigits = 20_000
	maxBignum = maxDigits*415241/1_000_000 + 2
	tooLong   = "an integer has more than 20000 digits"
)

// Major types and other first bytes. RFC 8949, section 3.
const (
	unsigned = 0 << 5
	negative = 1 << 5
	bytes    = 2 << 5
	text     = 3 << 5
	array    = 4 << 5
	object   = 5 << 5
	tag      = 6 << 5
	simple   = 7 << 5

	indefinite = 31

	falseByte     = simple | 20
	trueByte      = simple | 21
	nullByte      = simple | 22
	undefinedByte = simple | 23
	float16Byte   = simple | 25
	float32Byte   = simple | 26
	float64Byte   = simple | 27
	breakByte     = simple | 31
)

// Tags. RFC 8949, section 3.4.
const (
	epochTag    = 1
	positiveTag = 2
	negativeTag = 3
)

// state is that of AppendCBOR and AppendJSON. After an error nothing is left of src.
type state struct {
	output
	format string // of src
	src    []byte
	at     int // what has been read
	err    error
}

func (s *state) fail(at int, why string) {
	if s.err == nil {
		s.err = errors.New(s.format + " at byte " + strconv.Itoa(at) + ": " + why)
	}
	s.at = len(s.src)
}

// output is what has been appended. Its methods are calls: at each place that appends, the code
// of append would be larger than what it is for.
type output []byte

//go:noinline
func (o *output) byte(b byte) { *o = append(*o, b) }

//go:noinline
func (o *output) string(s string) { *o = append(*o, s...) }

//go:noinline
func (o *output) bytes(b []byte) { *o = append(*o, b...) }

// head appends the head of an item. RFC 8949, section 3.
func (o *output) head(major byte, n uint64) {
	var b [9]byte
	binary.BigEndian.PutUint64(b[1:], n)
	size, info := 8, byte(27)
	for size > 1 && n>>(4*size) == 0 {
		size /= 2
		info--
	}
	if n < 24 {
		size, info = 0, byte(n)
	}
	b[8-size] = major | info
	o.bytes(b[8-size:])
}
