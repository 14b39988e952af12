package rpc

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"reflect"
	"strings"
	"time"

	"github.com/yonder-rpc/yonder"
)

// Protocol has a [yonder.Server] answer clients of net/rpc, the standard package's and this
// one's, over a raw connection: list it in [yonder.Server.Protocols]. Clients that come over
// HTTP are package web's, which hands their connections on.
//
// A procedure's name is the ServiceMethod, whether or not it has a dot. The wire has one
// argument and one reply:
//
//   - A procedure of one argument takes that. One of none takes anything.
//   - One of several takes a struct with the fields Arg1, Arg2 and so on. If the procedure has
//     names for its parameters, these in upper case at the beginning will do, too.
//   - The last argument of a variadic procedure is a slice.
//   - One result is the reply. Several are a struct with the fields Result1, Result2 and so
//     on, and none is an empty struct, for which a client gives no place, or a *struct{}.
//
// As everywhere in gob, structs need not be of one type, nor have all fields; but fields that
// are missing are zero, and so a name that is misspelled goes unnoticed beside one that is
// not. A result must be one that gob can encode, which a nil pointer is not, unless it is one
// of several. Streams, readers and functions cannot cross.
//
// Contexts, metadata and codes cross from and to clients of this package, as its
// documentation describes.
//
// Of the server's limits, MaxMessage bounds an argument, MaxCalls the calls of a connection
// in flight, as [Server.MaxCalls] says, and MaxMetadata that of a call. KeepAlive bounds the
// pauses within a message, and of a peer that does not read its answers; a connection that is
// idle may stay so.
var Protocol yonder.Protocol = protocol{}

type protocol struct{}

const (
	protocolName = "netrpc"
	// maxHeader is the longest header that [Protocol] accepts: one with all metadata that a
	// server may allow, and room to say that it is too much.
	maxHeader = 128 << 10
	// maxMetadata is the most that any server may allow, see [yonder.Limits].
	maxMetadata = 32 << 10
)

func (protocol) Name() string { return protocolName }

// Detect looks for the definition of the struct that is a request's header.
func (protocol) Detect(first []byte) yonder.Verdict {
	c := cursor{b: first}
	length := c.uint()
	if !c.bad && (length < 16 || length > 512) {
		return yonder.No
	}
	id := c.int()
	switch {
	case c.bad && !short(first):
		return yonder.No
	case c.bad:
		return yonder.Maybe
	case id > -gobUser:
		return yonder.No
	}
	verdict := yonder.No
	for _, name := range []string{"Request", "requestHeader"} {
		// wireType's third field is a struct's type; that begins with the CommonType, and that
		// with the name.
		want := "\x03\x01\x01" + string(rune(len(name))) + name
		switch n := min(c.rest(), len(want)); {
		case string(c.b[c.i:c.i+n]) != want[:n]:
		case n == len(want):
			return yonder.Yes
		default:
			verdict = yonder.Maybe
		}
	}
	return verdict
}

// short reports whether two numbers of gob's could be read if there were more bytes.
func short(b []byte) bool {
	for range 2 {
		switch size := -int(int8(b[0])); {
		case b[0] <= 0x7f:
			b = b[1:]
		case size > 8:
			return false
		default:
			b = b[min(1+size, len(b)):]
		}
		if len(b) == 0 {
			return true
		}
	}
	return false
}

// ServeConn implements [yonder.Protocol].
func (protocol) ServeConn(ctx context.Context, srv *yonder.Server, conn net.Conn) error {
	limits := srv.Limits.WithDefaults()
	server := &Server{
		MaxMessage: limits.MaxMessage, MaxCalls: limits.MaxCalls, BadReplyIsError: true, EmptyErrorIsError: true,
	}
	pc := &patientConn{Conn: conn, patience: limits.KeepAlive}
	codec := server.gobCodec(pc)
	codec.maxHeader = maxHeader
	codec.guard.within = &pc.within
	codec.logger = srv.Logger
	if codec.logger == nil {
		codec.logger = slog.Default()
	}
	if len(srv.Interceptors) > 0 {
		codec.late = newLateDecoder(codec.guard, codec.logger) // they may refuse a call, whatever its argument is
	}
	s := server.newSession(codec, conn)
	p := &procedures{srv: srv, session: s, maxMetadata: limits.MaxMetadata, known: make(map[string]*procedure)}
	s.find, s.reuse = p.find, false
	err := s.serve(ctx)
	switch {
	case ctx.Err() != nil:
		return nil
	case err == io.EOF:
		if s.unanswered {
			return yonder.ErrConnectionLost
		}
		return nil
	}
	if !pc.lost {
		codec.logger.Warn("yonder: connection closed", "protocol", protocolName, "peer", conn.RemoteAddr().String(), "reason", err)
	}
	return err
}

// patientConn is a connection whose peer must send the next part of a message that has begun,
// and take the next part of one, within patience; less than zero: it need not. It is closed
// when it cannot be written to: then nobody can hear of what would be read.
type patientConn struct {
	net.Conn
	patience time.Duration

	// These are the reading goroutine's.
	within bool // a message has begun
	timed  bool // there is a deadline
	lost   bool // reading has failed
}

func (c *patientConn) Read(b []byte) (int, error) {
	switch {
	case c.patience < 0:
	case c.within:
		c.SetReadDeadline(time.Now().Add(c.patience)) // a connection that has no deadlines does without
		c.timed = true
	case c.timed:
		c.SetReadDeadline(time.Time{})
		c.timed = false
	}
	n, err := c.Conn.Read(b)
	c.lost = c.lost || err != nil
	return n, err
}

func (c *patientConn) Write(b []byte) (n int, err error) {
	const part = 64 << 10
	for n < len(b) && err == nil {
		if c.patience >= 0 {
			c.SetWriteDeadline(time.Now().Add(c.patience))
		}
		var m int
		m, err = c.Conn.Write(b[n:min(n+part, len(b))])
		n += m
	}
	if err != nil {
		c.Close()
	}
	return n, err
}

// procedures are those of a server that one connection has called.
type procedures struct {
	srv         *yonder.Server
	session     *session
	maxMetadata int
	known       map[string]*procedure
	services    map[string]bool // what is before the last dot of the server's names; nil: nobody has asked
}

// find returns the procedure of a name, or words like the standard package's for that there is
// none.
func (p *procedures) find(name string) (callee, error) {
	if known := p.known[name]; known != nil {
		return known, nil
	}
	target, err := p.srv.Target(p.info(name))
	if err != nil {
		kind := "service"
		if dot := strings.LastIndexByte(name, '.'); dot >= 0 && p.service(name[:dot]) {
			kind = "method"
		}
		hint, _ := strings.CutPrefix(err.Error(), fmt.Sprintf("yonder: no procedure %q", name))
		return nil, fmt.Errorf("rpc: can't find %s %s%s", kind, name, hint)
	}
	if !target.Plain() {
		return nil, fmt.Errorf("yonder: %q has streams, readers or functions, which net/rpc cannot carry; call it by yonder.Dial", name)
	}
	proc := newProcedure(p, target)
	p.known[name] = proc
	return proc, nil
}

// info is what is known of calls of a procedure on the connection.
func (p *procedures) info(name string) yonder.CallInfo {
	return yonder.CallInfo{Procedure: name, Protocol: protocolName, Conn: p.session.conn}
}

// service reports whether there are procedures of a service, as far as clients may know.
func (p *procedures) service(name string) bool {
	if p.services == nil {
		p.services = make(map[string]bool)
		if !p.srv.HideProcedures {
			for _, info := range p.srv.Exposed(p.info("")) {
				if dot := strings.LastIndexByte(info.Name, '.'); dot >= 0 {
					p.services[info.Name[:dot]] = true
				}
			}
		}
	}
	return p.services[name]
}

// A procedure is one of a [yonder.Server] as this wire carries it.
type procedure struct {
	of     *procedures
	target *yonder.Target
	arg    reflect.Type // what the argument is decoded into; nil: it is thrown away
	fields []argField   // of arg; nil: it is the only argument
	reply  reflect.Type // of several results; nil: there are not several
	nested bool         // a result may contain itself
}

// argField is where one of several arguments is: gob leaves fields out that are zero.
type argField struct {
	number int // of the field by its number
	name   int // of that by the parameter's name; -1: there is none
}

func newProcedure(of *procedures, target *yonder.Target) *procedure {
	p := &procedure{of: of, target: target}
	switch len(target.Args) {
	case 0:
	case 1:
		p.arg = target.Args[0]
	default:
		p.arg, p.fields = argStruct(target.Args, target.Info.Params)
	}
	if len(target.Results) > 1 {
		p.reply = numbered("Result", target.Results)
	}
	for _, t := range target.Results {
		p.nested = p.nested || mayNest(t)
	}
	return p
}

func (p *procedure) newArg() (any, reflect.Value) {
	if p.arg == nil {
		return nil, reflect.Value{}
	}
	v := reflect.New(p.arg)
	return v.Interface(), v.Elem()
}

func (p *procedure) prepare(c *serverCall) { c.context(c.session.ctx) }

// undecoded leaves it to the server to fail the call, so that its interceptors see it.
func (p *procedure) undecoded(c *serverCall, err error) (bool, error) {
	if broken := c.session.gob.guard.err; broken != nil {
		return false, broken
	}
	if p.arg != nil {
		c.unread = err
	}
	return true, nil
}

func (p *procedure) call(c *serverCall) (any, error) {
	info := c.info()
	if err := tooMuch(info.Procedure, info.Metadata, p.of.maxMetadata); err != nil {
		return nil, err
	}
	call := p.target.NewCall(info, func(into []any) error {
		if c.unread != nil {
			return c.unread
		}
		if late := c.session.gob.late; late != nil && c.into != nil {
			if err := late.decode(c.held, c.into); err != nil {
				return err
			}
			c.held = lateValue{}
		}
		p.fill(into, c.arg)
		return nil
	})
	err := p.of.srv.Call(c.ctx, call)
	c.metadata = call.Reply
	if tooMuch := tooMuch(info.Procedure, call.Reply, p.of.maxMetadata); tooMuch != nil {
		c.metadata = nil
		if err == nil {
			err = tooMuch
		}
	}
	if err != nil {
		return nil, sound(err, func(*string, any) error { // EncodeError logs it, and makes an error of it
			return new(yonder.Dialer).DecodeError(p.of.srv.EncodeError(err, yonder.JSON), yonder.JSON)
		})
	}
	return p.result(call.Results())
}

// tooMuch returns an error if metadata of a call, or of its answer, is larger than most bytes.
func tooMuch(procedure string, m yonder.Metadata, most int) error {
	size := 0
	for key, value := range m {
		size += len(key) + len(value)
	}
	if size > most {
		return yonder.Errorf(yonder.ResourceExhausted, "yonder: call %q: metadata of %d bytes is larger than the limit of %d", procedure, size, most)
	}
	return nil
}

// fill gives the procedure its arguments.
func (p *procedure) fill(into []any, arg reflect.Value) {
	if p.fields == nil && len(into) > 0 {
		reflect.ValueOf(into[0]).Elem().Set(arg)
		return
	}
	for i, f := range p.fields {
		v := arg.Field(f.number)
		if f.name >= 0 && v.IsZero() {
			v = arg.Field(f.name)
		}
		reflect.ValueOf(into[i]).Elem().Set(v)
	}
}

// result returns what of the results goes on the wire.
func (p *procedure) result(results []any) (any, error) {
	if p.nested {
		for i, r := range results {
			if err := nesting(reflect.ValueOf(r), maxLevels); err != nil {
				return nil, yonder.Errorf(yonder.Internal, "rpc: reply of %s: result %d: %w", p.target.Info.Name, i+1, err)
			}
		}
	}
	switch len(results) {
	case 0:
		return invalidRequest, nil
	case 1:
		if err := sendable(results[0], p.target.Results[0]); err != nil {
			return nil, yonder.Errorf(yonder.Internal, "rpc: reply of %s: %w", p.target.Info.Name, err)
		}
		return boxed(results[0], p.target.Results[0]), nil
	}
	return together(p.reply, results), nil
}
