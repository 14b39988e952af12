package cborjson

import (
	"encoding/base64"
	"math"
	"math/big"
	"strconv"
	"time"
)

// AppendJSON appends the JSON text of one CBOR item, without white space.
func AppendJSON(dst, src []byte) ([]byte, error) {
	d := &decoder{state{format: "CBOR", src: src, output: dst}}
	d.item(0)
	if d.err == nil && d.at < len(src) {
		d.fail(d.at, "there is more after the item")
	}
	return d.output, d.err
}

type decoder struct{ state }

// next reads the head of an item: its first byte and its argument. RFC 8949, section 3.
func (d *decoder) next() (first byte, n uint64) {
	start := d.at
	if start == len(d.src) {
		d.fail(start, "it ends too early")
		return breakByte, 0
	}
	first = d.src[start]
	d.at++
	size := 0
	switch info := first & 31; {
	case info < 24:
		return first, uint64(info)
	case info < 28:
		size = 1 << (info - 24)
	case info < indefinite, first < bytes, first&^31 == tag:
		d.fail(start, "this is not the head of an item")
	}
	for range size {
		if d.at == len(d.src) {
			d.fail(start, "it ends too early")
			break
		}
		n = n<<8 | uint64(d.src[d.at])
		d.at++
	}
	return first, n
}

func (d *decoder) item(depth int) {
	start := d.at
	first, n := d.next()
	major := first &^ 31
	switch {
	case d.err != nil:
	case depth == maxNesting && array <= major && major <= tag:
		d.fail(start, "it is nested too deeply")
	case major == unsigned:
		d.integer(n, 0)
	case major == negative:
		d.integer(n, -1)
	case major == bytes:
		b := d.whole(first, n)
		d.byte('"')
		d.output = base64.StdEncoding.AppendEncode(d.output, b)
		d.byte('"')
	case major == text:
		d.byte('"')
		d.quote(d.whole(first, n))
		d.byte('"')
	case major == array:
		d.sequence("[]", first, n, depth)
	case major == object:
		d.sequence("{}", first, n, depth)
	case major == tag && n == epochTag:
		d.epoch()
	case major == tag && (n == positiveTag || n == negativeTag):
		d.bignum(n == negativeTag)
	case major == tag:
		d.item(depth + 1)
	case first == falseByte:
		d.string("false")
	case first == trueByte:
		d.string("true")
	case first == nullByte || first == undefinedByte:
		d.string("null")
	case first == float16Byte || first == float32Byte || first == float64Byte:
		d.float(start, float(first, n))
	case first == breakByte:
		d.fail(start, "this is not the head of an item")
	default:
		d.fail(start, "this simple value has no name in JSON")
	}
}

// integer appends n, or if sign is -1, -1 - n.
func (d *decoder) integer(n uint64, sign int) {
	if sign < 0 {
		d.byte('-')
		if n++; n == 0 {
			d.string("18446744073709551616")
			return
		}
	}
	d.output = strconv.AppendUint(d.output, n, 10)
}

func (d *decoder) float(start int, f float64) {
	abs := math.Abs(f)
	if !(abs <= math.MaxFloat64) {
		d.fail(start, strconv.FormatFloat(f, 'g', -1, 64)+" cannot be in JSON")
		return
	}
	format := byte('f') // where encoding/json has it: who takes integers takes no exponents
	if abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	d.output = strconv.AppendFloat(d.output, f, format, -1, 64)
}

// float returns the number whose bits are n, of a size that its first byte tells.
func float(first byte, n uint64) float64 {
	switch first {
	case float64Byte:
		return math.Float64frombits(n)
	case float32Byte:
		return float64(math.Float32frombits(uint32(n)))
	}
	sign, exp, mant := n>>15<<63, n>>10&31, n&1023
	switch exp {
	case 0: // 2^-24 is the least
		f := float64(mant) / (1 << 24)
		return math.Float64frombits(sign | math.Float64bits(f))
	case 31:
		exp = 2047
	default:
		exp += 1023 - 15
	}
	return math.Float64frombits(sign | exp<<52 | mant<<42)
}

// last skips the break that ends something of indefinite length, if it comes next. After an
// error everything ends.
func (d *decoder) last() bool {
	if d.at < len(d.src) && d.src[d.at] == breakByte {
		d.at++
		return true
	}
	return d.err != nil
}

// sequence reads the elements of an array or a map.
func (d *decoder) sequence(brackets string, first byte, n uint64, depth int) {
	d.byte(brackets[0])
	if first&31 == indefinite {
		n = math.MaxUint64
	}
	for i := uint64(0); i < n && d.err == nil; i++ {
		if first&31 == indefinite && d.last() {
			break
		}
		if i > 0 {
			d.byte(',')
		}
		if brackets == "{}" {
			if d.at < len(d.src) && d.src[d.at]&^31 != text {
				d.fail(d.at, "a key that is no text cannot be in JSON")
				return
			}
			d.item(depth + 1)
			d.byte(':')
		}
		d.item(depth + 1)
	}
	d.byte(brackets[1])
}

// whole returns a string of bytes or text whose head has been read. It may alias src.
func (d *decoder) whole(first byte, n uint64) (b output) {
	if first&31 == indefinite {
		for !d.last() {
			start := d.at
			part, n := d.next()
			if d.err == nil && (part&^31 != first&^31 || part&31 == indefinite) {
				d.fail(start, "this is not a part of the string")
			}
			b.bytes(d.whole(part, n))
		}
		return b
	}
	if n > uint64(len(d.src)-d.at) {
		d.fail(d.at, "it ends too early")
		return nil
	}
	b = d.src[d.at:][:n]
	d.at += int(n)
	return b
}

// quote appends what is between the quotes of a string.
func (d *decoder) quote(b []byte) {
	from := 0
	for i, c := range b {
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		d.bytes(b[from:i])
		from = i + 1
		if d.byte('\\'); c < ' ' {
			d.string("u00")
			d.byte('0' + c>>4)
			c = "0123456789abcdef"[c&15]
		}
		d.byte(c)
	}
	d.bytes(b[from:])
}

// bignum appends a number whose tag has been read. RFC 8949, section 3.4.3.
func (d *decoder) bignum(minus bool) {
	start := d.at
	first, n := d.next()
	if d.err == nil && first&^31 != bytes {
		d.fail(start, "a bignum is not a byte string")
	}
	b := d.whole(first, n)
	for len(b) > 0 && b[0] == 0 {
		b = b[1:]
	}
	if len(b) > maxBignum {
		d.fail(start, tooLong)
		return
	}
	number := new(big.Int).SetBytes(b)
	if minus {
		number.Not(number)
	}
	d.output = number.Append(d.output, 10)
}

// epoch appends a time, in seconds since 1970, whose tag has been read. RFC 8949, section 3.4.2.
func (d *decoder) epoch() {
	start := d.at
	first, n := d.next()
	seconds := math.NaN()
	switch major := first &^ 31; {
	case major == unsigned:
		seconds = float64(n)
	case major == negative:
		seconds = -1 - float64(n)
	case first == float16Byte || first == float32Byte || first == float64Byte:
		seconds = float(first, n)
	}
	// The years 0 to 9999, in which all whole seconds are float64s.
	if !(-62167219200 <= seconds && seconds < 253402300800) {
		d.fail(start, "a time is not a number of seconds in the years 0 to 9999")
		return
	}
	whole := int64(seconds)
	t := time.Unix(whole, int64((seconds-float64(whole))*1e9)).UTC()
	d.byte('"')
	d.string(t.Format(time.RFC3339Nano))
	d.byte('"')
}
