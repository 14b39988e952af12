package yonder

import (
	"encoding/binary"
	"fmt"
)

// maxBignum is the largest bigint that is decoded, in bytes. What decimals take grows with
// the square of their length, and package cbor writes them even for an error that a number
// does not fit: 1 MiB of one took 45 seconds. In text it is maxDigits. See SPEC.md, "Limits".
const (
	maxBignum = 4 << 10
	maxDigits = 10_000
)

// maxTags is how many tags one value may have: package cbor looks through all that are left at each
// of them, which took 0.2 seconds for 10,000. See SPEC.md, "Limits".
const maxTags = 16

// checkCBOR returns an error if the CBOR value that data begins with has a bigint that
// is too large, or too many tags. What is not well-formed is left to the decoder to refuse.
func checkCBOR(data []byte) error {
	var open []uint64               // for each level, how many values are still to come
	tags := 0                       // of the value that comes
	bignum, sum := false, uint64(0) // of the string that comes
	chunked := false                // it comes in chunks
	for left := uint64(1); ; {
		for left == 0 {
			if len(open) == 0 {
				return nil
			}
			left, open = open[len(open)-1], open[:len(open)-1]
		}
		if len(data) == 0 {
			return nil
		}
		const indefinite = 1 << 63 // beyond what there are bytes for
		major, info := data[0]>>5, data[0]&31
		n := uint64(info)
		data = data[1:]
		switch {
		case info < 24:
		case info < 28:
			size := 1 << (info - 24)
			if len(data) < size {
				return nil
			}
			var b [8]byte
			copy(b[8-size:], data[:size])
			n, data = binary.BigEndian.Uint64(b[:]), data[size:]
		case info < 31:
			return nil
		default:
			n = indefinite
		}
		if left < indefinite {
			left--
		}
		if major != 6 {
			tags = 0
		}
		switch major {
		case 2, 3:
			if n == indefinite { // its chunks follow like the values of an array
				open, left, chunked = append(open, left), indefinite, true
				continue
			}
			if bignum {
				if sum += n; sum > maxBignum {
					return fmt.Errorf("a bigint of %d bytes or more is larger than the limit of %d", sum, maxBignum)
				}
			}
			if n > uint64(len(data)) {
				return nil
			}
			data = data[n:]
			if chunked {
				continue
			}
		case 4, 5:
			if len(open) > maxNesting {
				return nil
			}
			if n != indefinite && n > uint64(len(data)) {
				return nil
			}
			if major == 5 && n != indefinite {
				n *= 2
			}
			open, left = append(open, left), n
		case 6:
			if tags++; tags > maxTags {
				return fmt.Errorf("a value with more than %d tags", maxTags)
			}
			bignum, sum = n == 2 || n == 3, 0
			if left < indefinite {
				left++ // the value is still to come
			}
			continue
		case 7:
			if info == 31 { // the end of what is indefinite
				left, chunked = 0, false
			}
		}
		bignum, sum = false, 0
	}
}

// checkDigits returns an error if JSON text has a number with too many digits.
func checkDigits(text []byte) error {
	run, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			quoted = !quoted
		case quoted && c == '\\':
			i++
		case c >= '0' && c <= '9' && !quoted:
			if run++; run > maxDigits {
				return fmt.Errorf("a number of more than %d digits", maxDigits)
			}
			continue
		}
		run = 0
	}
	return nil
}
