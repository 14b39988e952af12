// Package wire is the native protocol's bytes: frames and their bodies, as
// functions over slices. It has no goroutines, no sockets and no state; what a
// frame means to a connection is package mux's business. SPEC.md is the
// normative description, and the files in testdata are its examples.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Preface is what the dialing side of a connection sends first and the
// accepting side sends back. Its first byte can begin no ASCII text, no TLS
// record, no gob stream and no session frame of less than 2 GiB. See SPEC.md, "Preface".
const Preface = "\xd9yonder\x01"

const (
	// HeaderSize is the size of a frame's header, in bytes.
	HeaderSize = 10
	// MaxBody is the largest body a frame may have, in bytes. What is longer
	// travels in parts.
	MaxBody = 68 << 10
)

// A Type says what a frame is. See SPEC.md, "Frames".
type Type uint8

// The frame types.
const (
	Hello    Type = 1 + iota // who I am and what I accept; the first frame each way
	Name                     // this number stands for this procedure from now on
	Request                  // begins a call
	Response                 // answers a call: its results or its error
	Part                     // continues a message that did not fit one frame
	Cancel                   // the caller gives up
	Item                     // values of a stream
	Data                     // bytes of a reader
	Close                    // the producer of a stream is done
	Stop                     // the consumer of a stream is done
	Credit                   // the consumer has room for so many bytes more
	Ping                     // are you there?
	Pong                     // I am
	GoAway                   // no new calls on this connection, please
	Resume                   // this connection goes on with what was lost; instead of Hello
	Ack                      // so many bytes have arrived
	lastType = Ack
)

var typeNames = [...]string{
	Hello: "HELLO", Name: "NAME", Request: "REQUEST", Response: "RESPONSE",
	Part: "PART", Cancel: "CANCEL", Item: "ITEM", Data: "DATA", Close: "CLOSE",
	Stop: "STOP", Credit: "CREDIT", Ping: "PING", Pong: "PONG", GoAway: "GOAWAY",
	Resume: "RESUME", Ack: "ACK",
}

// String returns the name SPEC.md gives the type.
func (t Type) String() string {
	if int(t) < len(typeNames) && typeNames[t] != "" {
		return typeNames[t]
	}
	return fmt.Sprintf("type %d", uint8(t))
}

// Flags qualify a frame. A flag that a type does not use must be zero.
type Flags uint8

// The flags. Requests and answers share two bits.
const (
	More    Flags = 0x01 // the message goes on in PART frames; its total length stands here
	HasMeta Flags = 0x02 // metadata stands in the head
	Packed  Flags = 0x04 // the arguments or results are compressed
	// FromCallee says, where both sides of a call send the type, that the callee did:
	// the ids of the two directions are independent of each other.
	FromCallee Flags = 0x80

	HasLimit Flags = 0x08 // the remaining time stands in the head
	OneWay   Flags = 0x10 // the caller wants no results, only to know when the call has ended
	Callback Flags = 0x20 // the callee is a function among the arguments of a call the other way
	Check    Flags = 0x40 // resolve the procedure, do not run it

	End    Flags = 0x08 // the callee's last message of this call
	Failed Flags = 0x10 // the body is an error record
)

// allowed holds, for each type, the flags it uses.
var allowed = [lastType + 1]Flags{
	Request:  More | HasMeta | Packed | HasLimit | OneWay | Callback | Check,
	Response: More | HasMeta | Packed | End | Failed,
	Part:     More | FromCallee,
	Item:     More | FromCallee,
	Data:     FromCallee,
	Close:    End | Failed | FromCallee,
	Stop:     FromCallee,
	Credit:   FromCallee,
}

// A Header is what every frame begins with.
type Header struct {
	Type  Type
	Flags Flags
	// ID names the call, chosen by its caller; the procedure's number in NAME; zero
	// in the frames that concern the whole connection.
	ID uint32
}

// ErrShort reports that the bytes end before what they announce.
var ErrShort = errors.New("frame ends early")

// AppendHeader appends a header for a body of n bytes.
func AppendHeader(dst []byte, h Header, n int) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(n+HeaderSize-4))
	dst = append(dst, byte(h.Type), byte(h.Flags))
	return binary.BigEndian.AppendUint32(dst, h.ID)
}

// PutHeader writes a header for a body of n bytes to the first HeaderSize bytes
// of b.
func PutHeader(b []byte, h Header, n int) {
	_ = b[HeaderSize-1]
	binary.BigEndian.PutUint32(b, uint32(n+HeaderSize-4))
	b[4], b[5] = byte(h.Type), byte(h.Flags)
	binary.BigEndian.PutUint32(b[6:], h.ID)
}

// ParseHeader reads the header that b begins with and returns it with the
// length of the body that follows. It returns ErrShort if b has fewer than
// HeaderSize bytes and another error if no frame can begin so.
func ParseHeader(b []byte) (h Header, n int, err error) {
	if len(b) < HeaderSize {
		return h, 0, ErrShort
	}
	length := binary.BigEndian.Uint32(b)
	if length < HeaderSize-4 || length > MaxBody+HeaderSize-4 {
		return h, 0, fmt.Errorf("frame length %d is outside %d to %d", length, HeaderSize-4, MaxBody+HeaderSize-4)
	}
	h = Header{Type: Type(b[4]), Flags: Flags(b[5]), ID: binary.BigEndian.Uint32(b[6:])}
	if h.Type == 0 || h.Type > lastType {
		return h, 0, fmt.Errorf("unknown frame type %d", h.Type)
	}
	if bad := h.Flags &^ allowed[h.Type]; bad != 0 {
		return h, 0, fmt.Errorf("%v frame has flags %#02x that it does not use", h.Type, uint8(bad))
	}
	switch h.Type {
	case Hello, Ping, Pong, GoAway, Resume, Ack:
		if h.ID != 0 {
			return h, 0, fmt.Errorf("%v frame has the id %#x, but concerns the whole connection", h.Type, h.ID)
		}
	}
	return h, int(length) - (HeaderSize - 4), nil
}

// uvarint reads one minimal unsigned varint.
func uvarint(b []byte) (v uint64, rest []byte, err error) {
	v, n := binary.Uvarint(b)
	switch {
	case n == 0:
		return 0, nil, ErrShort
	case n < 0:
		return 0, nil, errors.New("number has more than 64 bits")
	case n > 1 && b[n-1] == 0:
		return 0, nil, errors.New("number is not in its shortest form")
	}
	return v, b[n:], nil
}

// blob reads a length and that many bytes, which alias b.
func blob(b []byte) (v, rest []byte, err error) {
	n, b, err := uvarint(b)
	if err != nil {
		return nil, nil, err
	}
	if n > uint64(len(b)) {
		return nil, nil, ErrShort
	}
	return b[:n:n], b[n:], nil
}

// AppendBlob appends v with its length before it. Inlined, it would add 8 KB to every
// program.
//
//go:noinline
func AppendBlob[T string | []byte](dst []byte, v T) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(v))), v...)
}
