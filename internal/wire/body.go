package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sort"
	"time"
)

// MaxSlots is the number of calls that one direction of a connection can name
// at a time: a call's slot is the low 16 bits of its id.
const MaxSlots = 1 << 16

// Slot returns the slot of a call id. See SPEC.md, "Calls".
func Slot(id uint32) int { return int(id & (MaxSlots - 1)) }

// Greeting is the body of HELLO: what its sender is and accepts. Fields a
// reader does not know are skipped. See SPEC.md, "HELLO".
type Greeting struct {
	Codecs     []string // in order of preference; the dialing side's first is used; 1 to 16 of at most 64 bytes
	MaxMessage uint64   // largest message accepted, in bytes
	MaxCalls   uint64   // calls the sender accepts at a time, 1 to MaxSlots
	MaxNames   uint64   // procedures the other side may name
	MaxMeta    uint64   // largest metadata block accepted, in bytes
	// Compression is the name of the compression that both must announce to use it; empty:
	// none.
	Compression string
	Window      uint64 // initial credit of each stream that the sender consumes, in bytes, MinWindow to MaxWindow
	// Resume is how long the sender keeps what a lost connection had, in milliseconds; zero: it
	// does not. See SPEC.md, "Resumption".
	Resume uint64
	// Session is by what the dialing side resumes the connection: a secret of MinSecret to
	// MaxSecret bytes, which the accepting side makes; nil: none.
	Session []byte
}

// What a session's secret may have, in bytes.
const (
	MinSecret = 16
	MaxSecret = 64
)

// MinMeta is the metadata, in bytes, that every peer accepts.
const MinMeta = 4 << 10

// MinWindow is the credit that every stream has before HELLO has been read, and
// so the least that HELLO may announce.
const MinWindow = 64 << 10

// MaxWindow is the most credit that HELLO may announce, 1 TiB: far from where a
// sum of credits overflows.
const MaxWindow uint64 = 1 << 40

const (
	helloCodec = 1 + iota
	helloMaxMessage
	helloMaxCalls
	helloMaxNames
	helloMaxMeta
	helloWindow
	helloCompression
	helloResume
	helloSession
)

// AppendHello appends the body of a HELLO frame.
func AppendHello(dst []byte, g *Greeting) []byte {
	for _, c := range g.Codecs {
		dst = append(dst, helloCodec)
		dst = AppendBlob(dst, c)
	}
	for i, v := range []uint64{g.MaxMessage, g.MaxCalls, g.MaxNames, g.MaxMeta, g.Window} {
		dst = append(dst, byte(helloMaxMessage+i))
		dst = AppendBlob(dst, binary.AppendUvarint(nil, v))
	}
	if g.Compression != "" {
		dst = AppendBlob(append(dst, helloCompression), g.Compression)
	}
	if g.Resume > 0 {
		dst = AppendBlob(append(dst, helloResume), binary.AppendUvarint(nil, g.Resume))
	}
	if len(g.Session) > 0 {
		dst = AppendBlob(append(dst, helloSession), g.Session)
	}
	return dst
}

// ParseHello reads the body of a HELLO frame. Of a number that stands twice, the
// last counts.
func ParseHello(b []byte) (*Greeting, error) {
	g := new(Greeting)
	for len(b) > 0 {
		key, rest, err := uvarint(b)
		var value []byte
		if err == nil {
			value, b, err = blob(rest)
		}
		if err != nil {
			return nil, fmt.Errorf("HELLO: %w", err)
		}
		var into *uint64
		switch key {
		case helloCodec:
			if len(g.Codecs) == 16 || len(value) > 64 {
				return nil, errors.New("HELLO: more than 16 codecs, or a name of more than 64 bytes")
			}
			g.Codecs = append(g.Codecs, string(value))
			continue
		case helloCompression:
			if len(value) > 64 {
				return nil, errors.New("HELLO: a compression's name of more than 64 bytes")
			}
			g.Compression = string(value)
			continue
		case helloSession:
			if len(value) < MinSecret || len(value) > MaxSecret {
				return nil, fmt.Errorf("HELLO: a session's secret of %d bytes is outside %d to %d", len(value), MinSecret, MaxSecret)
			}
			g.Session = append([]byte(nil), value...)
			continue
		case helloResume:
			into = &g.Resume
		case helloMaxMessage:
			into = &g.MaxMessage
		case helloMaxCalls:
			into = &g.MaxCalls
		case helloMaxNames:
			into = &g.MaxNames
		case helloMaxMeta:
			into = &g.MaxMeta
		case helloWindow:
			into = &g.Window
		default:
			continue
		}
		v, tail, err := uvarint(value)
		if err != nil || len(tail) > 0 {
			return nil, fmt.Errorf("HELLO: field %d is not one number", key)
		}
		*into = v
	}
	if len(g.Codecs) == 0 {
		return nil, errors.New("HELLO: no codec")
	}
	for _, number := range [...]struct {
		what            string
		is, least, most uint64
	}{
		{"calls at a time", g.MaxCalls, 1, MaxSlots},
		{"bytes of a message", g.MaxMessage, 1, math.MaxUint64},
		{"names", g.MaxNames, 1, math.MaxUint64},
		{"bytes of metadata", g.MaxMeta, MinMeta, math.MaxUint64},
		{"bytes of window", g.Window, MinWindow, MaxWindow},
	} {
		if number.is < number.least || number.is > number.most {
			return nil, fmt.Errorf("HELLO: %d %s is outside %d to %d", number.is, number.what, number.least, number.most)
		}
	}
	return g, nil
}

// AppendName appends the body of a NAME frame: the procedure's name and the
// sender's view of its signature.
func AppendName(dst []byte, name, signature string) []byte {
	return append(AppendBlob(dst, name), signature...)
}

// ParseName reads the body of a NAME frame.
func ParseName(b []byte) (name, signature string, err error) {
	n, sig, err := blob(b)
	if err != nil {
		return "", "", fmt.Errorf("NAME: %w", err)
	}
	return string(n), string(sig), nil
}

// RequestHead is what stands in a REQUEST before the arguments.
type RequestHead struct {
	Number uint64 // the procedure's, of 32 bits; without [Callback]
	Call   uint32 // with [Callback]: the call whose argument is called
	Arg    uint8  // with [Callback]: the position of that argument
	Limit  time.Duration
	Meta   map[string]string
	Total  uint64 // with [More]: the length of the arguments, in bytes
}

// AppendRequest appends the head of a REQUEST with these flags.
func AppendRequest(dst []byte, f Flags, r *RequestHead) []byte {
	if f&Callback != 0 {
		dst = binary.BigEndian.AppendUint32(dst, r.Call)
		dst = append(dst, r.Arg)
	} else {
		dst = binary.AppendUvarint(dst, r.Number)
	}
	if f&HasLimit != 0 {
		// Rounded up, so that a deadline is never reached early; unsigned, so that
		// rounding the longest Duration does not overflow.
		const unit = uint64(time.Microsecond)
		dst = binary.AppendUvarint(dst, min((uint64(max(r.Limit, 0))+unit-1)/unit, maxLimit))
	}
	if f&HasMeta != 0 {
		dst = AppendMeta(dst, r.Meta)
	}
	if f&More != 0 {
		dst = binary.AppendUvarint(dst, r.Total)
	}
	return dst
}

// maxLimit is the longest remaining time that counts: about 146 years.
const maxLimit = uint64(1<<62) / uint64(time.Microsecond)

// ParseRequest reads the head of a REQUEST with these flags and returns the
// arguments, which alias b. Metadata of more than maxMeta bytes is skipped and
// reported by tooBig.
func ParseRequest(b []byte, f Flags, maxMeta int) (r RequestHead, args []byte, tooBig bool, err error) {
	if f&Callback != 0 {
		if len(b) < 5 {
			return r, nil, false, fmt.Errorf("REQUEST: %w", ErrShort)
		}
		r.Call, r.Arg, b = binary.BigEndian.Uint32(b), b[4], b[5:]
	} else if r.Number, b, err = uvarint(b); err != nil {
		return r, nil, false, fmt.Errorf("REQUEST: %w", err)
	} else if r.Number > math.MaxUint32 {
		return r, nil, false, fmt.Errorf("REQUEST: procedure number %d has more than 32 bits, which no NAME can give", r.Number)
	}
	if f&HasLimit != 0 {
		var us uint64
		if us, b, err = uvarint(b); err != nil {
			return r, nil, false, fmt.Errorf("REQUEST: remaining time: %w", err)
		}
		r.Limit = time.Duration(min(us, maxLimit)) * time.Microsecond
	}
	if f&HasMeta != 0 {
		if r.Meta, b, tooBig, err = ParseMeta(b, maxMeta); err != nil {
			return r, nil, false, fmt.Errorf("REQUEST: %w", err)
		}
	}
	if f&More != 0 {
		if r.Total, b, err = uvarint(b); err != nil {
			return r, nil, false, fmt.Errorf("REQUEST: total length: %w", err)
		}
	}
	return r, b, tooBig, nil
}

// ResponseHead is what stands in a RESPONSE before the results or the error.
type ResponseHead struct {
	Meta  map[string]string
	Total uint64 // with [More]: the length of what follows, in bytes
}

// AppendResponse appends the head of a RESPONSE with these flags.
func AppendResponse(dst []byte, f Flags, r *ResponseHead) []byte {
	if f&HasMeta != 0 {
		dst = AppendMeta(dst, r.Meta)
	}
	if f&More != 0 {
		dst = binary.AppendUvarint(dst, r.Total)
	}
	return dst
}

// ParseResponse reads the head of a RESPONSE with these flags and returns the
// rest, which aliases b.
func ParseResponse(b []byte, f Flags, maxMeta int) (r ResponseHead, rest []byte, tooBig bool, err error) {
	if f&HasMeta != 0 {
		if r.Meta, b, tooBig, err = ParseMeta(b, maxMeta); err != nil {
			return r, nil, false, fmt.Errorf("RESPONSE: %w", err)
		}
	}
	if f&More != 0 {
		if r.Total, b, err = uvarint(b); err != nil {
			return r, nil, false, fmt.Errorf("RESPONSE: total length: %w", err)
		}
	}
	return r, b, tooBig, nil
}

// AppendMeta appends a metadata block: its length, then keys and values in the
// order of the keys.
func AppendMeta(dst []byte, m map[string]string) []byte {
	keys := make([]string, 0, 8)
	size := 0
	for k, v := range m {
		keys = append(keys, k)
		size += BlobSize(len(k)) + BlobSize(len(v))
	}
	//lint:ignore S1032 sort.Strings is slices.Sort, and its copy for strings adds 12 KB to every program
	sort.Sort(sort.StringSlice(keys))
	dst = binary.AppendUvarint(dst, uint64(size))
	for _, k := range keys {
		dst = AppendBlob(AppendBlob(dst, k), m[k])
	}
	return dst
}

// MetaSize returns the number of bytes that AppendMeta appends after the length:
// what [Greeting.MaxMeta] limits.
func MetaSize(m map[string]string) int {
	size := 0
	for k, v := range m {
		size += BlobSize(len(k)) + BlobSize(len(v))
	}
	return size
}

// BlobSize returns how many bytes [AppendBlob] appends for n bytes.
func BlobSize(n int) int {
	size := n + 1
	for ; n >= 0x80; n >>= 7 {
		size++
	}
	return size
}

// ParseMeta reads a metadata block of at most limit bytes. A larger one is
// skipped and reported by tooBig. Of a key that stands twice, the last counts.
func ParseMeta(b []byte, limit int) (m map[string]string, rest []byte, tooBig bool, err error) {
	block, rest, err := blob(b)
	if err != nil {
		return nil, nil, false, fmt.Errorf("metadata: %w", err)
	}
	if len(block) > limit {
		return nil, rest, true, nil
	}
	m = make(map[string]string)
	for len(block) > 0 {
		var k, v []byte
		if k, block, err = blob(block); err == nil {
			v, block, err = blob(block)
		}
		if err != nil {
			return nil, nil, false, fmt.Errorf("metadata: %w", err)
		}
		m[string(k)] = string(v)
	}
	return m, rest, false, nil
}

// AppendCredit appends the body of a CREDIT frame: n bytes more for a channel.
func AppendCredit(dst []byte, channel uint8, n int) []byte {
	return binary.AppendUvarint(append(dst, channel), uint64(n))
}

// ParseCredit reads the body of a CREDIT frame.
func ParseCredit(b []byte) (channel uint8, n uint64, err error) {
	if len(b) == 0 {
		return 0, 0, fmt.Errorf("CREDIT: %w", ErrShort)
	}
	n, rest, err := uvarint(b[1:])
	if err != nil {
		return 0, 0, fmt.Errorf("CREDIT: %w", err)
	}
	if len(rest) > 0 {
		return 0, 0, errors.New("CREDIT: bytes after the number")
	}
	return b[0], n, nil
}

// ParseChannel reads the channel that the bodies of PART, ITEM, DATA, CLOSE and
// STOP begin with, and returns what follows.
func ParseChannel(t Type, b []byte) (channel uint8, rest []byte, err error) {
	if len(b) == 0 {
		return 0, nil, fmt.Errorf("%v: %w", t, ErrShort)
	}
	return b[0], b[1:], nil
}

// AppendTotal appends the total length of a message in parts.
func AppendTotal(dst []byte, total uint64) []byte { return binary.AppendUvarint(dst, total) }

// ParseTotal reads the total length that the first frame of a message in parts
// has after its channel.
func ParseTotal(b []byte) (total uint64, rest []byte, err error) {
	if total, rest, err = uvarint(b); err != nil {
		return 0, nil, fmt.Errorf("total length: %w", err)
	}
	return total, rest, nil
}

// CutItem reads the first of the values that an ITEM frame holds.
func CutItem(b []byte) (item, rest []byte, err error) {
	if item, rest, err = blob(b); err != nil {
		return nil, nil, fmt.Errorf("ITEM: %w", err)
	}
	return item, rest, nil
}

// AppendGoAway appends the body of a GOAWAY frame: a code and why, for people.
func AppendGoAway(dst []byte, code uint8, reason string) []byte {
	return append(append(dst, code), reason[:min(len(reason), 1024)]...)
}

// ParseGoAway reads the body of a GOAWAY frame.
func ParseGoAway(b []byte) (code uint8, reason string, err error) {
	if len(b) == 0 {
		return 0, "", fmt.Errorf("GOAWAY: %w", ErrShort)
	}
	return b[0], string(b[1:min(len(b), 1025)]), nil
}

// Resumption is the body of RESUME: what goes on, and from where. See SPEC.md, "Resumption".
type Resumption struct {
	Session  []byte // the secret; empty in the answer
	Attempt  uint64 // counts the attempts to resume the session, from 1; the answer repeats it
	Received uint64 // the bytes of the session that the sender has received
}

// AppendResume appends the body of a RESUME frame.
func AppendResume(dst []byte, r *Resumption) []byte {
	dst = AppendBlob(dst, r.Session)
	return binary.AppendUvarint(binary.AppendUvarint(dst, r.Attempt), r.Received)
}

// ParseResume reads the body of a RESUME frame. The secret aliases b.
func ParseResume(b []byte) (r Resumption, err error) {
	if r.Session, b, err = blob(b); err == nil {
		if r.Attempt, b, err = uvarint(b); err == nil {
			r.Received, b, err = uvarint(b)
		}
	}
	switch {
	case err != nil:
		return r, fmt.Errorf("RESUME: %w", err)
	case len(b) > 0:
		return r, errors.New("RESUME: bytes after the number")
	case len(r.Session) > MaxSecret:
		return r, fmt.Errorf("RESUME: a secret of %d bytes is longer than %d", len(r.Session), MaxSecret)
	}
	return r, nil
}

// ParseAck reads the body of an ACK frame, which is a number alone.
func ParseAck(b []byte) (received uint64, err error) {
	received, rest, err := uvarint(b)
	if err == nil && len(rest) > 0 {
		err = errors.New("bytes after the number")
	}
	if err != nil {
		return 0, fmt.Errorf("ACK: %w", err)
	}
	return received, nil
}

// AppendAck appends the body of an ACK frame.
func AppendAck(dst []byte, received uint64) []byte { return binary.AppendUvarint(dst, received) }
