package rpc

import (
	"time"

	"github.com/yonder-rpc/yonder"
)

// A header is written and read without gob once gob has done it on the connection: most of what
// a small call costs is headers. The bytes are gob's, which FuzzHeader compares.

// A header goes before an argument or a reply.
type header interface {
	// wire returns what gob is to encode.
	wire() any
	// kind tells apart the types of what wire returns.
	kind() headerKind
	// appendFields appends the fields of what wire returns, as gob encodes a struct's.
	appendFields(b []byte) []byte
}

type headerKind uint8

const (
	plainRequest headerKind = iota
	plainResponse
	extRequest
	extResponse
	headerKinds
)

func (r *Request) kind() headerKind {
	if r.ext == nil {
		return plainRequest
	}
	return extRequest
}

func (r *Request) appendFields(b []byte) []byte {
	s := structWriter{b: b, last: -1}
	s.text(0, r.ServiceMethod)
	s.uint(1, r.Seq)
	if r.ext != nil {
		s.int(2, int64(r.ext.timeout))
		s.pairs(3, r.ext.metadata)
		s.uint(4, r.ext.features)
	}
	return append(s.b, 0)
}

func (r *Response) kind() headerKind {
	if r.ext == nil {
		return plainResponse
	}
	return extResponse
}

func (r *Response) appendFields(b []byte) []byte {
	s := structWriter{b: b, last: -1}
	s.text(0, r.ServiceMethod)
	s.uint(1, r.Seq)
	s.text(2, r.Error)
	if r.ext != nil {
		if r.ext.code != 0 {
			s.text(3, r.ext.code.String())
		}
		s.pairs(4, r.ext.metadata)
		s.uint(5, r.ext.features)
	}
	return append(s.b, 0)
}

// A structWriter appends fields of a struct. Those that are zero are left out.
type structWriter struct {
	b    []byte
	last int // the field before, or -1
}

func (s *structWriter) field(number int) {
	s.b = appendUint(s.b, uint64(number-s.last))
	s.last = number
}

func (s *structWriter) uint(number int, n uint64) {
	if n != 0 {
		s.field(number)
		s.b = appendUint(s.b, n)
	}
}

func (s *structWriter) int(number int, n int64) {
	u := uint64(n) << 1
	if n < 0 {
		u = uint64(^n)<<1 | 1
	}
	s.uint(number, u)
}

func (s *structWriter) text(number int, text string) {
	if text != "" {
		s.field(number)
		s.b = append(appendUint(s.b, uint64(len(text))), text...)
	}
}

// pairs appends metadata, key before value.
func (s *structWriter) pairs(number int, m yonder.Metadata) {
	if len(m) == 0 {
		return
	}
	s.field(number)
	s.b = appendUint(s.b, uint64(2*len(m)))
	for key, value := range m {
		s.b = append(appendUint(s.b, uint64(len(key))), key...)
		s.b = append(appendUint(s.b, uint64(len(value))), value...)
	}
}

// appendHeader appends a message of a header whose type gob has defined on the connection, and
// which it numbers so.
func appendHeader(b, number []byte, h header) []byte {
	begin := len(b)
	b = h.appendFields(append(append(b, 0), number...))
	size := len(b) - begin - 1
	if size <= 0x7f {
		b[begin] = byte(size)
		return b
	}
	var space [9]byte
	length := appendUint(space[:0], uint64(size))
	b = append(b, length[1:]...)
	copy(b[begin+len(length):], b[begin+1:begin+1+size])
	copy(b[begin:], length)
	return b
}

// numberOf returns how a message of gob's begins behind its length: with its type's number.
func numberOf(message []byte) []byte {
	c := cursor{b: message}
	c.uint()
	begin := c.i
	c.int()
	if c.bad {
		return nil
	}
	return append([]byte(nil), message[begin:c.i]...)
}

// headerFields are what headers have.
type headerFields struct {
	method   string
	seq      uint64
	err      string
	code     string
	timeout  time.Duration
	metadata []string
	features uint64
}

// What a field of a peer's header is.
type headerField uint8

const (
	skippedNumber headerField = iota
	skippedBytes
	skippedComplex
	fieldMethod
	fieldSeq
	fieldError
	fieldCode
	fieldTimeout
	fieldMetadata
	fieldFeatures
)

// headerNames has the fields of headers, and the types that gob wants them to have.
var headerNames = map[string]struct {
	is              headerField
	id              int64
	request, answer bool // which headers have it
}{
	"ServiceMethod": {fieldMethod, gobString, true, true},
	"Seq":           {fieldSeq, gobUint, true, true},
	"Error":         {fieldError, gobString, false, true},
	"Code":          {fieldCode, gobString, false, true},
	"Timeout":       {fieldTimeout, gobInt, true, false},
	"Metadata":      {fieldMetadata, 0, true, true},
	"Features":      {fieldFeatures, gobUint, true, true},
}

// headerPlan returns what the fields of a struct of the peer's are as a header's; nil: gob is to
// say what is wrong with it, or it has what only gob passes over.
func (g *guard) headerPlan(t *wireType, answer bool) []headerField {
	if t.kind != kindStruct {
		return nil
	}
	plan := make([]headerField, len(t.fields))
	for i, id := range t.fields {
		known, ok := headerNames[t.names[i]]
		if ok && (answer && known.answer || !answer && known.request) {
			if known.is == fieldMetadata {
				list := g.types[id]
				ok = list != nil && list.kind == kindSlice && list.elem == gobString
			} else {
				ok = id == known.id
			}
			if !ok {
				return nil
			}
			plan[i] = known.is
			continue
		}
		switch id {
		case gobBool, gobInt, gobUint, gobFloat:
			plan[i] = skippedNumber
		case gobBytes, gobString:
			plan[i] = skippedBytes
		case gobComplex:
			plan[i] = skippedComplex
		default:
			return nil
		}
	}
	return plan
}

// header reads a header if the next message is one that needs no gob, and reports whether it
// was: otherwise gob is to read it. answer says which kind of header it is.
func (g *guard) header(into *headerFields, answer bool) (read bool, err error) {
	if len(g.head) > 0 || g.left > 0 || g.err != nil {
		return false, nil
	}
	g.buf = g.buf[:0]
	n, err := g.length()
	if err == nil && n > 0 && n <= min(guardBuffer, g.max) {
		var b []byte
		if b, err = g.peek(int(n)); err == nil && g.parseHeader(b, into, answer) {
			g.r.Discard(int(n))
			return true, nil
		}
	}
	if err == nil {
		if g.want = wantOf((*requestHeader)(nil)); answer {
			g.want = wantOf((*responseHeader)(nil))
		}
		err = g.admit(n)
	}
	if err == nil {
		return false, nil
	}
	if _, ok := err.(*messageError); !ok {
		g.err = err
	}
	return true, err
}

// parseHeader reads a header from a message, and reports whether it could.
func (g *guard) parseHeader(b []byte, into *headerFields, answer bool) bool {
	c := cursor{b: b}
	t := g.types[c.int()]
	if c.bad || t == nil {
		return false
	}
	if !t.headed {
		t.headed = true
		t.header = g.headerPlan(t, answer)
	}
	if t.header == nil {
		return false
	}
	*into = headerFields{}
	for f := c.field(-1, len(t.header)); f >= 0; f = c.field(f, len(t.header)) {
		switch t.header[f] {
		case skippedNumber:
			c.uint()
		case skippedBytes:
			c.skip()
		case skippedComplex:
			c.uint()
			c.uint()
		case fieldMethod:
			into.method = g.name(c.bytes())
		case fieldSeq:
			into.seq = c.uint()
		case fieldError:
			into.err = string(c.bytes())
		case fieldCode:
			into.code = string(c.bytes())
		case fieldTimeout:
			into.timeout = time.Duration(c.int())
		case fieldMetadata:
			if n := c.count(); n > 0 { // else gob leaves it nil
				into.metadata = make([]string, n)
			}
			for i := range into.metadata {
				into.metadata[i] = string(c.bytes())
			}
		case fieldFeatures:
			into.features = c.uint()
		}
	}
	return !c.bad && c.rest() == 0
}

// bytes reads a counted string.
func (c *cursor) bytes() []byte {
	n := c.count()
	c.i += n
	return c.b[c.i-n : c.i]
}

const (
	maxKnown  = 100 // names of methods that are kept, a connection
	longKnown = 100 // bytes of one
)

// name returns a method's name, the same string each time if it is one that is called often.
func (g *guard) name(b []byte) string {
	if name, ok := g.known[string(b)]; ok {
		return name
	}
	name := string(b)
	if len(g.known) < maxKnown && len(b) <= longKnown {
		if g.known == nil {
			g.known = make(map[string]string)
		}
		g.known[name] = name
	}
	return name
}
