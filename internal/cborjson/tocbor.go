package cborjson

import (
	"encoding/binary"
	"math"
	"math/big"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// AppendCBOR appends the CBOR of a JSON text. It keeps keys that stand twice. Arrays and objects
// of more than 23 elements are of indefinite length: theirs is not known before their end.
func AppendCBOR(dst, src []byte) ([]byte, error) {
	p := &parser{state{format: "JSON", src: src, output: dst}}
	p.value(0)
	if p.space(); p.err == nil && p.at < len(src) {
		p.fail(p.at, "there is more after the value")
	}
	return p.output, p.err
}

type parser struct{ state }

// space skips white space and returns the byte behind it; 0: there is none.
func (p *parser) space() byte {
	for ; p.at < len(p.src); p.at++ {
		switch c := p.src[p.at]; c {
		case ' ', '\t', '\r', '\n':
		default:
			return c
		}
	}
	return 0
}

// skip skips c if it comes next, behind white space.
func (p *parser) skip(c byte) bool {
	if p.space() != c || p.at == len(p.src) {
		return false
	}
	p.at++
	return true
}

func (p *parser) value(depth int) {
	switch c := p.space(); {
	case c == '{':
		p.sequence(object, '}', depth)
	case c == '[':
		p.sequence(array, ']', depth)
	case c == '"':
		p.text()
	case c == '-' || '0' <= c && c <= '9':
		p.number()
	case p.literal("null"):
		p.byte(nullByte)
	case p.literal("true"):
		p.byte(trueByte)
	case p.literal("false"):
		p.byte(falseByte)
	default:
		p.fail(p.at, "a value is expected")
	}
}

func (p *parser) literal(name string) bool {
	if len(p.src)-p.at < len(name) || string(p.src[p.at:p.at+len(name)]) != name {
		return false
	}
	p.at += len(name)
	return true
}

// sequence reads an array or an object, which ends with end.
func (p *parser) sequence(major, end byte, depth int) {
	if depth == maxNesting {
		p.fail(p.at, "it is nested too deeply")
		return
	}
	head := len(p.output)
	p.byte(major)
	p.at++
	n := 0
	for ; !p.skip(end); n++ {
		if n > 0 && !p.skip(',') {
			p.fail(p.at, "a comma or "+string(rune(end))+" is expected")
			return
		}
		if major == object {
			if p.space() != '"' {
				p.fail(p.at, "a key is expected")
				return
			}
			p.text()
			if !p.skip(':') {
				p.fail(p.at, "a colon is expected")
				return
			}
		}
		p.value(depth + 1)
		if p.err != nil {
			return
		}
	}
	if n < 24 {
		p.output[head] |= byte(n)
	} else {
		p.output[head] |= indefinite
		p.byte(breakByte)
	}
}

// text reads a string, whose quote comes next.
func (p *parser) text() {
	from := p.at + 1
	end, escaped := from, false
	for ; ; end++ {
		if end >= len(p.src) {
			p.fail(p.at, "a string does not end")
			return
		}
		c := p.src[end]
		if c == '"' {
			break
		}
		if c < ' ' {
			p.fail(end, "a control character is not escaped")
			return
		}
		if c == '\\' {
			escaped = true
			end++
		}
	}
	head := len(p.output)
	p.head(text, uint64(end-from))
	if p.at = from; !escaped {
		p.bytes(p.src[from:end])
		p.at = end + 1
		return
	}
	body := len(p.output)
	for p.at < end {
		c := p.src[p.at]
		if p.at++; c == '\\' {
			c = p.escape()
		}
		if c != 0 {
			p.byte(c)
		}
	}
	if p.err != nil {
		return
	}
	p.at = end + 1
	// The string is shorter than its text is, and maybe the head, too.
	plain := p.output[body:]
	p.output = p.output[:head]
	p.head(text, uint64(len(plain)))
	p.bytes(plain)
}

// escape reads what is behind a backslash. It returns the byte that this stands for; 0: it is
// appended, or wrong.
func (p *parser) escape() byte {
	c := p.src[p.at] // it is there: the string has an end
	if c == 'u' {
		p.unicode()
		return 0
	}
	for i := 0; i < len(escapes); i += 2 {
		if escapes[i] == c {
			p.at++
			return escapes[i+1]
		}
	}
	p.fail(p.at, "there is no such escape sequence")
	return 0
}

// escapes has each letter that may be behind a backslash, and what the two stand for.
const escapes = "\"\"\\\\//b\bf\fn\nr\rt\t"

// unicode reads u, four digits, and the other half of a surrogate pair.
func (p *parser) unicode() {
	r, ok := p.hex(p.at + 1)
	if !ok {
		p.fail(p.at, "\\u needs four hexadecimal digits")
		return
	}
	p.at += 5
	if utf16.IsSurrogate(r) {
		second := rune(0)
		if p.at+2 <= len(p.src) && string(p.src[p.at:p.at+2]) == `\u` {
			second, _ = p.hex(p.at + 2)
		}
		// Half a pair is what encoding/json makes of it: U+FFFD.
		if r = utf16.DecodeRune(r, second); r != utf8.RuneError {
			p.at += 6
		}
	}
	p.string(string(r))
}

// hex reads four digits.
func (p *parser) hex(at int) (r rune, ok bool) {
	if at+4 > len(p.src) {
		return 0, false
	}
	for _, c := range p.src[at : at+4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

func (p *parser) digits() (n int) {
	for ; p.at < len(p.src) && '0' <= p.src[p.at] && p.src[p.at] <= '9'; p.at++ {
		n++
	}
	return n
}

// one skips a or b, if it comes next.
func (p *parser) one(a, b byte) bool {
	if p.at == len(p.src) || p.src[p.at] != a && p.src[p.at] != b {
		return false
	}
	p.at++
	return true
}

func (p *parser) number() {
	from := p.at
	p.one('-', '-')
	whole := true
	ok := p.one('0', '0') || p.digits() > 0
	if ok && p.one('.', '.') {
		whole = false
		ok = p.digits() > 0
	}
	if ok && p.one('e', 'E') {
		whole = false
		p.one('+', '-')
		ok = p.digits() > 0
	}
	if !ok {
		p.fail(p.at, "a digit is expected")
		return
	}
	s := string(p.src[from:p.at])
	if whole && s != "-0" {
		p.integer(s)
		return
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		p.fail(from, "a number is beyond the range of a float64")
		return
	}
	p.byte(float64Byte)
	p.bytes(binary.BigEndian.AppendUint64(nil, math.Float64bits(f)))
}

// integer appends an integer of any size.
func (p *parser) integer(s string) {
	major, n := byte(unsigned), new(big.Int)
	if len(s) > maxDigits+1 {
		p.fail(p.at-len(s), tooLong)
		return
	}
	if n.SetString(s, 10); n.Sign() < 0 {
		major = negative
		n.Not(n) // what a negative integer is encoded as
	}
	if n.IsUint64() {
		p.head(major, n.Uint64())
		return
	}
	p.byte(tag | positiveTag | major>>5)
	p.head(bytes, uint64((n.BitLen()+7)/8))
	p.bytes(n.Bytes())
}
