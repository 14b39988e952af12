package jsonrpc

import (
	"bytes"
	"fmt"
)

// maxNesting is how deeply the values of a message may be nested, in levels. What is
// nested deeper has an end all the same, which the scanner finds: only its call fails.
const maxNesting = 10000

var errNesting = fmt.Errorf("nested deeper than %d levels", maxNesting)

// A scanner finds the end of a JSON text (RFC 8259), of which it is given one piece
// after another. It accepts what encoding/json does, and texts that are nested deeper.
type scanner struct {
	state state
	key   bool   // the string is a member's name
	hex   int    // digits of a \u that are still to come
	lit   string // what is still to come of null, true or false
	depth int    // brackets that are open
	open  []byte // a bit for each: 1 if it is a {
	deep  bool   // there were more than maxNesting
}

type state uint8

const (
	atValue   state = iota // a value comes
	atElement              // a value or ]
	atMember               // a name or }
	atName                 // a name
	atColon
	atAfter // a comma or a bracket
	inString
	inEscape
	inHex
	inLiteral
	// From here on, the text so far is part of a number.
	afterMinus
	afterPoint
	afterE
	afterSign
	// From here on, the number may end.
	afterZero
	inInteger
	inFraction
	inExponent
)

func (s *scanner) reset() {
	if *s = (scanner{open: s.open[:0]}); cap(s.open) > 2*maxNesting/8 {
		s.open = nil // of a text that was nested too deeply
	}
}

// scan takes the next piece of the text. It returns how many bytes of it are the
// text's, and whether that ended. A number that is a text of its own ends with what is
// no part of it; whether it may end with the last piece, say done.
func (s *scanner) scan(b []byte) (n int, done bool, err error) {
	for i := 0; i < len(b); {
		c := b[i]
		switch s.state {
		case inString:
			for i < len(b) && b[i] >= ' ' && b[i] != '"' && b[i] != '\\' {
				i++
			}
			if i == len(b) {
				return i, false, nil
			}
			switch b[i] {
			case '\\':
				s.state = inEscape
			case '"':
				if s.key {
					s.key, s.state = false, atColon
				} else if s.end() {
					return i + 1, true, nil
				}
			default:
				return i, false, bad(b[i], "in a string")
			}
			i++
			continue
		case inEscape:
			switch c {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
				s.state = inString
			case 'u':
				s.state, s.hex = inHex, 4
			default:
				return i, false, bad(c, "after a backslash")
			}
			i++
			continue
		case inHex:
			if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'f') {
				return i, false, bad(c, "after \\u")
			}
			if s.hex--; s.hex == 0 {
				s.state = inString
			}
			i++
			continue
		case inLiteral:
			if c != s.lit[0] {
				return i, false, bad(c, "in a word that is not null, true or false")
			}
			i++
			if s.lit = s.lit[1:]; s.lit == "" && s.end() {
				return i, true, nil
			}
			continue
		}
		if s.state >= afterMinus {
			more, err := s.number(c)
			if err != nil {
				return i, false, err
			}
			if more {
				i++
			} else if s.end() {
				return i, true, nil
			}
			continue
		}
		i++
		if c == ' ' || c == '\n' || c == '\t' || c == '\r' {
			continue
		}
		done, err := s.structure(c)
		if done || err != nil {
			return i, done, err
		}
	}
	return len(b), false, nil
}

// structure takes a byte that is not in a string, a number or a word, nor white space.
func (s *scanner) structure(c byte) (done bool, err error) {
	switch s.state {
	case atColon:
		if c != ':' {
			return false, bad(c, "after a member's name")
		}
		s.state = atValue
		return false, nil
	case atMember, atName:
		switch {
		case c == '"':
			s.state, s.key = inString, true
			return false, nil
		case c == '}' && s.state == atMember:
			return s.pop(), nil
		}
		return false, bad(c, "where a member's name was expected")
	case atAfter:
		object := s.open[(s.depth-1)/8]&(1<<((s.depth-1)%8)) != 0
		switch {
		case c == ',' && object:
			s.state = atName
		case c == ',':
			s.state = atValue
		case c == '}' && object || c == ']' && !object:
			return s.pop(), nil
		default:
			return false, bad(c, "after a value")
		}
		return false, nil
	}
	switch {
	case c == '"':
		s.state = inString
	case c == '{' || c == '[':
		if s.depth/8 == len(s.open) {
			s.open = append(s.open, 0)
		}
		bit := byte(1) << (s.depth % 8)
		if c == '{' {
			s.open[s.depth/8] |= bit
			s.state = atMember
		} else {
			s.open[s.depth/8] &^= bit
			s.state = atElement
		}
		s.depth++
		s.deep = s.deep || s.depth > maxNesting
	case c == ']' && s.state == atElement:
		return s.pop(), nil
	case c == '-':
		s.state = afterMinus
	case c == '0':
		s.state = afterZero
	case '1' <= c && c <= '9':
		s.state = inInteger
	case c == 'n':
		s.state, s.lit = inLiteral, "ull"
	case c == 't':
		s.state, s.lit = inLiteral, "rue"
	case c == 'f':
		s.state, s.lit = inLiteral, "alse"
	default:
		return false, bad(c, "where a value was expected")
	}
	return false, nil
}

// number takes a byte after a part of a number, and reports whether it is another.
func (s *scanner) number(c byte) (more bool, err error) {
	digit := '0' <= c && c <= '9'
	switch s.state {
	case afterMinus:
		switch {
		case c == '0':
			s.state = afterZero
		case digit:
			s.state = inInteger
		default:
			return false, bad(c, "in a number")
		}
		return true, nil
	case afterPoint, afterE, afterSign:
		switch {
		case digit && s.state == afterPoint:
			s.state = inFraction
		case digit:
			s.state = inExponent
		case s.state == afterE && (c == '+' || c == '-'):
			s.state = afterSign
		default:
			return false, bad(c, "in a number")
		}
		return true, nil
	}
	switch {
	case digit && s.state != afterZero:
	case c == '.' && s.state <= inInteger:
		s.state = afterPoint
	case c|0x20 == 'e' && s.state != inExponent:
		s.state = afterE
	default:
		return false, nil
	}
	return true, nil
}

// pop takes a closing bracket, and reports whether the text ended.
func (s *scanner) pop() bool {
	s.depth--
	return s.end()
}

// end ends a value, and reports whether it was the text.
func (s *scanner) end() bool {
	s.state = atAfter
	return s.depth == 0
}

// done reports whether a text that ends here is complete.
func (s *scanner) done() bool { return s.state >= afterZero && s.depth == 0 }

func bad(c byte, where string) error { return fmt.Errorf("%q %s", c, where) }

// check reports why text is not one JSON text; nil: it is one.
func (s *scanner) check(text []byte) error {
	s.reset()
	n, done, err := s.scan(text)
	switch {
	case err != nil:
		return err
	case !done && !s.done():
		return errEarly
	case !done:
		return nil
	}
	if n = space(text, n); n < len(text) {
		return bad(text[n], "after the text")
	}
	return nil
}

// space returns where the white space at text[i:] ends.
func space(text []byte, i int) int {
	for i < len(text) && (text[i] == ' ' || text[i] == '\n' || text[i] == '\t' || text[i] == '\r') {
		i++
	}
	return i
}

// tooDeep reports whether the value that text is, which is known to be one, is nested too
// deeply.
func tooDeep(text []byte) bool {
	var s scanner
	s.check(text)
	return s.deep
}

// skip returns where the value at text[i:], which is known to be one, ends.
func skip(text []byte, i int) int {
	depth := 0
	for {
		switch text[i] {
		case '"':
			i++
			if end := bytes.IndexByte(text[i:], '"'); bytes.IndexByte(text[i:i+end], '\\') < 0 {
				i += end
			}
			for ; text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
			i++
		case '{', '[':
			depth++
			i++
		case '}', ']':
			depth--
			i++
		case ' ', '\n', '\t', '\r', ',', ':':
			i++
			continue
		default:
			for i < len(text) && !ends(text[i]) {
				i++
			}
		}
		if depth == 0 {
			return i
		}
	}
}

// ends reports whether c ends a number or a word.
func ends(c byte) bool {
	switch c {
	case ',', '}', ']', ' ', '\n', '\t', '\r', ':', '"', '{', '[':
		return true
	}
	return false
}

// members goes through an object, which is known to be one: each member's name as it
// is written, in quotes, and its value.
func members(text []byte) func(yield func(name, value []byte) bool) {
	return func(yield func(name, value []byte) bool) {
		for i := space(text, 1); text[i] != '}'; {
			end := skip(text, i)
			name := text[i:end]
			i = space(text, space(text, end)+1)
			end = skip(text, i)
			if !yield(name, text[i:end:end]) {
				return
			}
			if i = space(text, end); text[i] == ',' {
				i = space(text, i+1)
			}
		}
	}
}

// elements goes through an array, which is known to be one: where each element begins
// and ends.
func elements(text []byte) func(yield func(from, to int) bool) {
	return func(yield func(from, to int) bool) {
		for i := space(text, 1); text[i] != ']'; {
			end := skip(text, i)
			if !yield(i, end) {
				return
			}
			if i = space(text, end); text[i] == ',' {
				i = space(text, i+1)
			}
		}
	}
}
