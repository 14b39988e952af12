package rpc

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"sync"
	"time"

	"github.com/yonder-rpc/yonder"
)

// Request is the header of a call: with gob it travels before the argument. Codecs read
// and write it; others need not know it.
type Request struct {
	ServiceMethod string // "Service.Method"
	Seq           uint64 // chosen by the client, to tell its calls apart

	// By pointers, so that Requests, and Calls, can be compared.
	ext   *requestExt // beyond what the standard package sends; nil: nothing
	space *requestExt // for ext; nil: it is made
}

// Response is the header of an answer: with gob it travels before the reply.
type Response struct {
	ServiceMethod string // that of the Request
	Seq           uint64 // that of the Request
	Error         string // empty: the call succeeded

	ext *responseExt // beyond what the standard package sends; nil: nothing
}

// A ServerCodec is a server's end of a connection, in some encoding. The server calls
// ReadRequestHeader and ReadRequestBody in turn, from one goroutine; a nil body is to be
// read and thrown away. Calls of WriteResponse do not overlap each other, but do overlap
// reading. Close may be called more than once, and while a read is waiting.
type ServerCodec interface {
	ReadRequestHeader(*Request) error
	ReadRequestBody(any) error
	WriteResponse(*Response, any) error
	Close() error
}

// A ClientCodec is a client's end of a connection, in some encoding. Calls of WriteRequest
// do not overlap each other. The client calls ReadResponseHeader and ReadResponseBody in
// turn, from one goroutine; a nil body is to be read and thrown away. Close is called once,
// and while a read is waiting.
type ClientCodec interface {
	WriteRequest(*Request, any) error
	ReadResponseHeader(*Response) error
	ReadResponseBody(any) error
	Close() error
}

// What a peer of this package understands beyond the standard package.
const featureCancel = 1 << iota // calls of cancelMethod

// cancelMethod ends the context of the call whose Seq is the argument's. A client calls it
// only when the server has said, in a header, that it knows the method.
const cancelMethod = "_goRPC_.Cancel"

// cancelArgs is cancelMethod's argument. The method's reply is a bool, always true.
type cancelArgs struct{ Seq uint64 }

// announceSeq is the Seq of an answer to no call, by which a server says what it
// understands. A client's own numbers begin at zero.
const announceSeq = 1<<64 - 1

// requestExt is what a request says beyond the standard package's.
type requestExt struct {
	timeout  time.Duration // until the caller stops waiting; zero: it does not
	metadata yonder.Metadata
	features uint64
}

// responseExt is what a response says beyond the standard package's.
type responseExt struct {
	code     yonder.Code // zero: success, or not known
	metadata yonder.Metadata
	features uint64
}

// requestHeader is a Request as gob encodes one with an extension. A gob decoder ignores
// fields that it does not know and compiles one program a type of the peer's, so a stock
// server reads both in any order.
type requestHeader struct {
	ServiceMethod string
	Seq           uint64
	Timeout       int64    // nanoseconds
	Metadata      []string // key before value; no map, for which gob takes memory on trust
	Features      uint64
}

// responseHeader is a Response as gob encodes one with an extension.
type responseHeader struct {
	ServiceMethod string
	Seq           uint64
	Error         string
	Code          string // of package yonder, in lower case
	Metadata      []string
	Features      uint64
}

// pairs returns metadata as a header has it.
func pairs(m yonder.Metadata) []string {
	if len(m) == 0 {
		return nil
	}
	list := make([]string, 0, 2*len(m))
	for k, v := range m {
		list = append(list, k, v)
	}
	return list
}

// metadata returns the opposite of pairs.
func metadata(list []string) yonder.Metadata {
	if len(list) < 2 {
		return nil
	}
	m := make(yonder.Metadata, len(list)/2)
	for i := 0; i+1 < len(list); i += 2 {
		m[list[i]] = list[i+1]
	}
	return m
}

// invalidRequest is sent in place of a reply with an error. No client decodes it.
var invalidRequest = struct{}{}

// gobDecoder reads headers and bodies from a guarded stream.
type gobDecoder struct {
	guard  *guard
	dec    *gob.Decoder
	logger *slog.Logger // of panics; nil: package log
}

func newGobDecoder(r io.Reader, maxMessage int) gobDecoder {
	g := newGuard(r, maxMessage)
	return gobDecoder{guard: g, dec: gob.NewDecoder(g)}
}

// decode decodes the next value; into nil, it is thrown away. A panic of gob's, or of a
// type's own decoding method, is an error.
func (d *gobDecoder) decode(into any) error {
	d.guard.want = wantOf(into)
	err := decode(d.dec, into, d.logger)
	if err != nil {
		d.guard.again(d.guard.uses)
	}
	return err
}

func decode(dec *gob.Decoder, into any, logger *slog.Logger) (err error) {
	done := false
	defer func() {
		if done {
			return
		}
		if v := recover(); v != nil && logger != nil {
			logger.Error("yonder: panic while decoding", "protocol", protocolName, "type", fmt.Sprintf("%T", into), "panic", v)
		} else if v != nil {
			log.Printf("rpc: panic decoding %T: %v", into, v)
		}
		err = errDecodePanic
	}()
	err = dec.Decode(into)
	done = true
	return err
}

// A lateDecoder decodes values after those that follow them have been read, or never. A value
// changes nothing in a gob decoder, only definitions of types do: it is given all those that
// were read until then, before the value.
type lateDecoder struct {
	guard  *guard     // through which the values came
	mu     sync.Mutex // guards what follows
	dec    *gob.Decoder
	feed   bytes.Reader // of dec
	defs   []byte       // that dec has not seen
	logger *slog.Logger
}

// A lateValue is a value for a lateDecoder.
type lateValue struct {
	value []byte
	uses  uses
}

func newLateDecoder(g *guard, logger *slog.Logger) *lateDecoder {
	d := &lateDecoder{guard: g, logger: logger}
	d.dec = gob.NewDecoder(&d.feed)
	return d
}

// define takes the definitions that come before a value, the guard's last one, and returns it.
func (d *lateDecoder) define(held []byte, defs int) lateValue {
	if defs > 0 {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.defs = append(d.defs, held[:defs]...)
	}
	return lateValue{held[defs:], d.guard.uses}
}

// decode decodes a value.
func (d *lateDecoder) decode(v lateValue, into any) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.guard.spent() {
		return errSteps
	}
	value := v.value
	if len(d.defs) > 0 {
		value = append(d.defs, value...)
		d.defs = nil
	}
	d.feed.Reset(value)
	err := decode(d.dec, into, d.logger)
	d.feed.Reset(nil)
	if err != nil {
		d.guard.again(v.uses)
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

var errDecodePanic = errors.New("rpc: panic while decoding")

// gobServerCodec is the gob wire at a server's end. Unlike other codecs its WriteResponse
// may be called by several goroutines at once.
type gobServerCodec struct {
	gobDecoder
	out  *outbox
	conn io.Closer
	mend bool // see Server.BadReplyIsError
	// maxHeader is the longest header; zero: it is as long as any message may be.
	maxHeader uint64
	late      *lateDecoder // nil: values are decoded when they are read
	header    requestHeader
	fields    headerFields
	once      sync.Once
	closed    error
}

// newGobServerCodec returns a server's end of conn. maxMessage is as in [Server].
func newGobServerCodec(conn io.ReadWriteCloser, maxMessage int, badReplyIsError bool) *gobServerCodec {
	return &gobServerCodec{
		gobDecoder: newGobDecoder(conn, maxMessage),
		out:        newOutbox(conn, nil),
		conn:       conn,
		mend:       badReplyIsError,
	}
}

func (c *gobServerCodec) ReadRequestHeader(r *Request) error {
	f := &c.fields
	most := c.guard.max
	if c.maxHeader > 0 {
		c.guard.max = c.maxHeader
	}
	read, err := c.guard.header(f, false)
	if !read && err == nil {
		h := &c.header
		*h = requestHeader{}
		err = c.ReadRequestBody(h)
		*f = headerFields{method: h.ServiceMethod, seq: h.Seq, timeout: time.Duration(h.Timeout), metadata: h.Metadata, features: h.Features}
	}
	c.guard.max = most
	if err != nil {
		return err
	}
	r.ServiceMethod, r.Seq = f.method, f.seq
	if f.timeout != 0 || f.metadata != nil || f.features != 0 {
		if r.space == nil {
			r.space = new(requestExt)
		}
		*r.space = requestExt{f.timeout, metadata(f.metadata), f.features}
		r.ext = r.space
	}
	return nil
}

func (c *gobServerCodec) ReadRequestBody(body any) error {
	if c.late == nil {
		return c.decode(body)
	}
	value, err := c.holdRequestBody(body)
	if err != nil || body == nil {
		return err
	}
	return c.late.decode(value, body)
}

// holdRequestBody reads an argument that [lateDecoder.decode] may decode into body.
func (c *gobServerCodec) holdRequestBody(body any) (value lateValue, err error) {
	c.guard.want = wantOf(body)
	held, defs, err := c.guard.hold()
	return c.late.define(held, defs), err
}

func (c *gobServerCodec) WriteResponse(r *Response, body any) error {
	return c.write(r, body, false)
}

// write is WriteResponse that knows whether other answers are likely to follow at once.
func (c *gobServerCodec) write(r *Response, body any, crowded bool) error {
	err := c.put(putting{crowded: crowded, broken: !c.mend}, r, body)
	if !isEncodeError(err) || c.mend {
		return err
	}
	// As the standard package: the header is sent, so there is no way back.
	log.Println("rpc: gob error encoding body:", err)
	c.out.finish()
	c.Close()
	return err
}

// put is the outbox's. A panic of gob's, for a nil pointer, or of the reply's own encoding
// method, is an encodeError.
func (c *gobServerCodec) put(how putting, r *Response, body any) (err error) {
	done := false
	defer func() {
		if done {
			return
		}
		err = encodeError{fmt.Errorf("panic encoding %T: %v", body, recover())}
	}()
	err = c.out.put(how, r.Seq, r, body)
	done = true
	return err
}

// wire returns what gob is to encode.
func (r *Response) wire() any {
	if r.ext == nil {
		return r
	}
	h := &responseHeader{
		ServiceMethod: r.ServiceMethod, Seq: r.Seq, Error: r.Error,
		Metadata: pairs(r.ext.metadata), Features: r.ext.features,
	}
	if r.ext.code != 0 {
		h.Code = r.ext.code.String()
	}
	return h
}

// Close closes the connection.
func (c *gobServerCodec) Close() error {
	c.once.Do(func() { c.closed = c.conn.Close() })
	return c.closed
}

// gobClientCodec is the gob wire at a client's end. Unlike other codecs its WriteRequest
// may be called by several goroutines at once.
type gobClientCodec struct {
	gobDecoder
	out    *outbox
	conn   io.Closer
	header responseHeader
	fields headerFields
}

func newGobClientCodec(conn io.ReadWriteCloser, maxMessage int) *gobClientCodec {
	return &gobClientCodec{
		gobDecoder: newGobDecoder(conn, maxMessage),
		out:        newOutbox(conn, nil),
		conn:       conn,
	}
}

func (c *gobClientCodec) WriteRequest(r *Request, body any) error {
	return c.out.put(putting{}, r.Seq, r, body)
}

// wire returns what gob is to encode.
func (r *Request) wire() any {
	if r.ext == nil {
		return r
	}
	return &requestHeader{
		ServiceMethod: r.ServiceMethod, Seq: r.Seq, Timeout: int64(r.ext.timeout),
		Metadata: pairs(r.ext.metadata), Features: r.ext.features,
	}
}

func (c *gobClientCodec) ReadResponseHeader(r *Response) error {
	f := &c.fields
	read, err := c.guard.header(f, true)
	if !read && err == nil {
		h := &c.header
		*h = responseHeader{}
		err = c.decode(h)
		*f = headerFields{method: h.ServiceMethod, seq: h.Seq, err: h.Error, code: h.Code, metadata: h.Metadata, features: h.Features}
	}
	if err != nil {
		return err
	}
	r.ServiceMethod, r.Seq, r.Error = f.method, f.seq, f.err
	if f.code != "" || f.metadata != nil || f.features != 0 {
		r.ext = &responseExt{metadata: metadata(f.metadata), features: f.features}
		if f.code != "" && r.ext.code.UnmarshalText([]byte(f.code)) != nil {
			r.ext.code = yonder.Unknown // of a later version
		}
	}
	return nil
}

func (c *gobClientCodec) ReadResponseBody(body any) error { return c.decode(body) }

func (c *gobClientCodec) Close() error { return c.conn.Close() }
