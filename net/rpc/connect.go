package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"sync"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/internal/redial"
)

// Connect returns a [yonder.Client] of a net/rpc server, the standard package's, this one's,
// or a [yonder.Server] with [Protocol]: see [Dialer.Connect].
func Connect(ctx context.Context, address string) (*yonder.Client, error) {
	return new(Dialer).Connect(ctx, address)
}

// Connect returns a [yonder.Client] of a net/rpc server at "host:port", "tcp://host:port",
// "unix:///path" or, behind HTTP, "http://host:port/path", without a path at
// [DefaultRPCPath]. A method is bound by its full name:
//
//	var hello func(ctx context.Context, name string) (string, error)
//	client.Bind("HelloService.Hello", &hello)
//
// Several arguments, or results, are sent as [Protocol] takes them. ctx bounds only the first
// attempt to connect, whose failure Connect returns. When the connection is lost later, the
// calls in flight fail with [yonder.Unavailable], and the next call connects again, as one of
// yonder's own clients does. Errors have the codes that a server of this package gives them,
// and [yonder.Unimplemented] if a stock server has no such method. A server that is of neither
// kind goes on with calls whose contexts have ended.
//
// Metadata of a call has at most 32 KiB. For a client with interceptors, or a time limit, give
// what [Dialer.Transport] returns to [yonder.Dialer.NewClientOver].
func (d *Dialer) Connect(ctx context.Context, address string) (*yonder.Client, error) {
	t, err := d.Transport(ctx, address)
	if err != nil {
		return nil, err
	}
	return new(yonder.Dialer).NewClientOver(t), nil
}

// Transport returns what carries the calls of [Dialer.Connect]'s clients. A MaxMessage of zero
// means 64 MiB here.
func (d *Dialer) Transport(ctx context.Context, address string) (yonder.Transport, error) {
	network, addr, ok := strings.Cut(address, "://")
	if !ok {
		network, addr = "tcp", address
	}
	path := ""
	switch network {
	case "tcp", "unix":
	case "http":
		network, path = "tcp", DefaultRPCPath
		if i := strings.IndexByte(addr, '/'); i >= 0 {
			addr, path = addr[:i], addr[i:]
		}
	default:
		return nil, yonder.Errorf(yonder.InvalidArgument, "yonder: address %q: unknown scheme %q; use host:port, tcp://host:port, unix:///path or http://host:port/path", address, network)
	}
	limits := yonder.Limits{MaxMessage: d.MaxMessage}.WithDefaults()
	t := &transport{line: redial.New(func(ctx context.Context) (line, error) {
		conn, err := d.dial(ctx, network, addr)
		if err == nil && path != "" {
			if err = connect(ctx, conn, path); err != nil {
				conn.Close()
			}
		}
		if err != nil {
			return line{}, err
		}
		pc := &patientConn{Conn: conn, patience: limits.KeepAlive}
		codec := newGobClientCodec(pc, limits.MaxMessage)
		codec.guard.within = &pc.within
		return line{newClient(codec, true)}, nil
	}, 0)}
	if _, err := t.connection(ctx); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

// transport is a [yonder.Transport] over clients of this package, of which there is one at a
// time.
type transport struct {
	line  *redial.Line[line]
	nests sync.Map // what mayNest says of types
}

// A line is a client's connection.
type line struct{ *Client }

// Lost implements [redial.Conn].
func (l line) Lost() bool {
	select {
	case <-l.over:
		return true
	default:
		return false
	}
}

// Close implements [redial.Conn].
func (l line) Close() error {
	err := l.Client.Close()
	<-l.over
	l.gob.out.finish() // which waits for who is writing
	return err
}

// connection returns a client whose connection has not been lost yet, as far as is known.
func (t *transport) connection(ctx context.Context) (*Client, error) {
	l, err := t.line.Conn(ctx)
	switch {
	case err == nil:
		return l.Client, nil
	case err == redial.ErrClosed:
		return nil, yonder.Errorf(yonder.Unavailable, "%w", yonder.ErrClientClosed)
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	return nil, yonder.Errorf(yonder.Unavailable, "yonder: cannot connect: %w", err)
}

// Done implements [yonder.Transport].
func (t *transport) Done() <-chan struct{} { return t.line.Done() }

// Close implements [yonder.Transport].
func (t *transport) Close() error {
	t.line.Close()
	return nil
}

// Call implements [yonder.Transport].
func (t *transport) Call(ctx context.Context, call *yonder.Call) error {
	if !call.Plain() {
		return yonder.NotRun(yonder.Errorf(yonder.Unimplemented, "yonder: call %q: net/rpc carries no streams, readers or functions; call it by yonder.Dial, if the server is one of yonder", call.Procedure))
	}
	if err := tooMuch(call.Procedure, call.Metadata, maxMetadata); err != nil {
		return yonder.NotRun(err)
	}
	arg, err := t.argument(call)
	if err != nil {
		return yonder.NotRun(yonder.Errorf(yonder.InvalidArgument, "yonder: call %q: %w", call.Procedure, err))
	}
	places := call.Places()
	var reply any // a pointer
	switch {
	case call.OneWay || len(places) == 0:
	case len(places) == 1:
		reply = places[0]
	default:
		types := make([]reflect.Type, len(places))
		for i, p := range places {
			types[i] = reflect.TypeOf(p).Elem()
		}
		reply = reflect.New(numbered("Result", types)).Interface()
	}
	err = t.exchange(ctx, call, arg, reply)
	if un, ok := err.(unmade); ok {
		return yonder.NotRun(t.failure(ctx, call, un.error))
	}
	if err != nil {
		return t.failure(ctx, call, err)
	}
	if len(places) > 1 && reply != nil {
		for i, p := range places {
			reflect.ValueOf(p).Elem().Set(reflect.ValueOf(reply).Elem().Field(i))
		}
	}
	return nil
}

// argument returns the one argument that goes on the wire.
func (t *transport) argument(call *yonder.Call) (any, error) {
	args, types := call.Args(), call.ArgTypes()
	for i, arg := range args {
		nests, ok := t.nests.Load(types[i])
		if !ok {
			nests = mayNest(types[i])
			t.nests.Store(types[i], nests)
		}
		if nests.(bool) {
			if err := nesting(reflect.ValueOf(arg), maxLevels); err != nil {
				return nil, fmt.Errorf("argument %d: %w", i+1, err)
			}
		}
	}
	switch len(args) {
	case 0:
		return invalidRequest, nil
	case 1:
		return boxed(args[0], types[0]), sendable(args[0], types[0])
	}
	return together(numbered("Arg", types), args), nil
}

// unencodable is the error of an argument that gob cannot encode.
type unencodable struct{ error }

func (e unencodable) Unwrap() error { return e.error }

// unmade is the error of a call of which no connection has been given anything.
type unmade struct{ error }

// exchange sends a call and waits for its answer. A connection that was lost before it could
// send the call is replaced.
func (t *transport) exchange(ctx context.Context, call *yonder.Call, arg, reply any) error {
	for again := 0; ; again++ {
		c, err := t.connection(ctx)
		if err != nil {
			return unmade{err}
		}
		err = exchange(ctx, c, call, arg, reply)
		if un, ok := err.(unmade); !ok || un.error != ErrShutdown || again == 2 {
			return err
		}
		<-c.over // at once: what reads has said so
	}
}

func exchange(ctx context.Context, c *Client, call *yonder.Call, arg, reply any) (err error) {
	own := c.ownCall()
	own.Call = Call{ServiceMethod: call.Procedure, Args: arg, Reply: reply, Done: own.Done, with: &own.context}
	own.context = callContext{ctx: ctx, metadata: call.Metadata, reply: &own.metadata}
	own.metadata = nil
	if reply != nil {
		own.with.fresh = reflect.New(reflect.TypeOf(reply).Elem())
	}
	if err := over(ctx); err != nil {
		return unmade{err}
	}
	if err := c.try(&own.Call); err != nil {
		return unmade{err}
	}
	if call.OneWay {
		select {
		case <-own.Done:
			return own.madeNothing()
		default:
		}
		return nil
	}
	left := false
	select {
	case <-own.Done:
	case <-ctx.Done():
		c.leave(&own.Call, ctx.Err())
		<-own.Done
		left = true
	}
	call.Reply = own.metadata
	err = own.Error
	if un := own.madeNothing(); un != nil {
		err = un
	}
	if !left { // else who reads may still be at it
		c.free(own)
	}
	return err
}

// madeNothing returns why the connection has not been given the call; nil: it has.
func (own *ownCall) madeNothing() error {
	switch {
	case own.unsent:
		return unmade{unencodable{own.Error}}
	case own.unmade:
		return unmade{own.Error}
	}
	return nil
}

// try sends a call. A panic of gob's, or of an argument's own encoding method, is an error.
func (client *Client) try(call *Call) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = unencodable{fmt.Errorf("panic encoding %T: %v", call.Args, v)}
		}
	}()
	client.send(call, false)
	return nil
}

// failure is what a caller of package yonder's is told.
func (t *transport) failure(ctx context.Context, call *yonder.Call, err error) error {
	ended := over(ctx)
	if ended != nil && yonder.CodeOf(err) == yonder.CodeOf(ended) {
		err := ended
		if cause := context.Cause(ctx); cause != nil && cause != ended {
			err = fmt.Errorf("%w: %w", ended, cause)
		}
		return failed(call, yonder.CodeOf(ended), err)
	}
	if e, ok := errors.AsType[*yonder.Error](err); ok {
		if e.Remote() {
			return err
		}
		return failed(call, e.Code, err)
	}
	if text, ok := err.(ServerError); ok {
		return yonder.FromPeer(yonder.Error{Code: codeOf(text, call.Procedure), Message: string(text), Err: text})
	}
	if bad, ok := err.(unencodable); ok {
		return yonder.Errorf(yonder.InvalidArgument, "yonder: call %q: the argument cannot be encoded: %w", call.Procedure, bad.error)
	}
	if t.line.Closed() {
		return failed(call, yonder.Unavailable, yonder.ErrClientClosed)
	}
	if err == io.ErrUnexpectedEOF || err == ErrShutdown {
		return failed(call, yonder.Unavailable, yonder.ErrConnectionLost)
	}
	return failed(call, yonder.Unavailable, fmt.Errorf("%w: %w", yonder.ErrConnectionLost, err))
}

// failed returns the error of a call that failed because of err, with the package's name once.
func failed(call *yonder.Call, code yonder.Code, err error) error {
	return &yonder.Error{
		Code: code, Err: err,
		Message: fmt.Sprintf("yonder: call %q: %s", call.Procedure, strings.TrimPrefix(err.Error(), "yonder: ")),
	}
}

// codeOf returns the code of an error that came without one.
func codeOf(text ServerError, method string) yonder.Code {
	switch string(text) {
	case "rpc: can't find service " + method, "rpc: can't find method " + method, "rpc: service/method request ill-formed: " + method:
		return yonder.Unimplemented
	}
	return yonder.Unknown
}
