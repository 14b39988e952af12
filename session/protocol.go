package session

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"reflect"
	"runtime/debug"
	"sync"

	"github.com/yonder-rpc/yonder"
)

// Protocol has a [yonder.Server] answer peers that speak this package's protocol, such as
// [Client]: list it in [yonder.Server.Protocols]. The first request on a connection must be
// shorter than 64 MiB.
//
// Of the server's limits, MaxMessage bounds a request, an answer, and together the requests of
// one connection whose answers are not written; MaxCalls bounds their number. Beyond either
// the server reads no more until answers are written. KeepAlive bounds the pauses within a
// message and of a peer that does not read.
var Protocol yonder.Protocol = protocol{}

type protocol struct{}

func (protocol) Name() string { return "session" }

// Detect looks for a length below 64 MiB and a gob stream that begins with the definition of a
// struct. No gob stream begins with so small a number, and no text does.
func (protocol) Detect(first []byte) yonder.Verdict {
	if first[0] > 3 {
		return yonder.No
	}
	if len(first) <= headerSize {
		return yonder.Maybe
	}
	size := uint64(first[1])<<16 | uint64(first[2])<<8 | uint64(first[3]) | uint64(first[0])<<24
	rest := first[headerSize:]
	n, rest, err := number(rest)
	switch {
	case err == errShort:
		return yonder.Maybe
	case err != nil || n < 4 || n > size:
		return yonder.No
	}
	id, rest, err := number(rest)
	switch {
	case err == errShort || err == nil && len(rest) == 0:
		return yonder.Maybe
	case err != nil || signed(id) >= 0 || rest[0] != byte(structKind)+1:
		return yonder.No
	}
	return yonder.Yes
}

// ServeConn implements [yonder.Protocol].
func (protocol) ServeConn(ctx context.Context, s *yonder.Server, conn net.Conn) error {
	c := &serverConn{Conn: conn, srv: s, limits: s.Limits.WithDefaults()}
	c.changed.L = &c.mu
	stop := context.AfterFunc(ctx, c.drain)
	defer stop()
	calls, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	written := make(chan error, 1)
	go func() { written <- c.writeAnswers() }() // ends with end, or when the connection fails
	err := c.readRequests(calls)
	inFlight := c.end()
	conn.Close()
	drained := <-written
	switch {
	case ctx.Err() != nil:
		cancel(yonder.ErrServerClosed)
		return nil
	case drained != nil:
		err = drained
	case err == io.EOF && !inFlight:
		cancel(yonder.ErrConnectionLost)
		return nil
	}
	cancel(fmt.Errorf("%w: %w", yonder.ErrConnectionLost, err))
	c.logger().Debug("yonder: connection lost", "protocol", "session", "peer", conn.RemoteAddr().String(), "reason", err)
	return err
}

// serverConn is a connection that the server answers on.
type serverConn struct {
	net.Conn
	srv    *yonder.Server
	limits yonder.Limits
	known  decoders

	mu       sync.Mutex
	changed  sync.Cond // when any of the following does
	answers  []*answer // to requests that have been read, in order; the first is not written yet
	held     int       // bytes of those requests, or of their answers when there are some
	draining bool      // no new calls are made, and the connection is closed after the last answer
	over     bool      // nothing is read or written any more
}

// answer is an answer, when its frame is there.
type answer struct {
	frame []byte
	held  int // what it counts for in serverConn.held
}

// drain begins a graceful end.
func (c *serverConn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draining = true
	c.changed.Broadcast()
}

// end ends the connection at once, and reports whether there were calls without an answer.
func (c *serverConn) end() (inFlight bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	c.changed.Broadcast()
	return len(c.answers) > 0
}

// readRequests reads requests and has them served, until the connection ends.
func (c *serverConn) readRequests(ctx context.Context) error {
	m := messageReader{conn: c.Conn, r: bufio.NewReader(c.Conn), most: c.limits.MaxMessage, patience: c.limits.KeepAlive}
	for {
		data, err := m.read()
		large, isLarge := err.(*tooLarge)
		if err != nil && !isLarge {
			return err
		}
		a, draining := c.await(len(data))
		switch {
		case a == nil:
			return net.ErrClosed
		case isLarge:
			c.finish(a, c.failure("", nil, yonder.Errorf(yonder.ResourceExhausted, "yonder: %w", large)))
		case draining:
			msg, _ := admit(data, &c.known)
			c.finish(a, c.failure(msg.name, nil, yonder.Errorf(yonder.Unavailable, "yonder: the server is shutting down")))
		default:
			c.serve(ctx, a, data)
		}
	}
}

// await makes room for one more request of a size, and returns the place of its answer, or nil
// when the connection is over.
func (c *serverConn) await(size int) (a *answer, draining bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.over && (len(c.answers) >= c.limits.MaxCalls || len(c.answers) > 0 && c.held+size > c.limits.MaxMessage) {
		c.changed.Wait()
	}
	if c.over {
		return nil, false
	}
	a = &answer{held: size}
	c.answers = append(c.answers, a)
	c.held += size
	return a, c.draining
}

// finish gives an answer its frame.
func (c *serverConn) finish(a *answer, frame []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a.frame = frame
	c.held += len(frame) - a.held
	a.held = len(frame)
	c.changed.Broadcast()
}

// writeAnswers writes answers in order, until the connection is over, or drained, and closes it.
func (c *serverConn) writeAnswers() error {
	w := bufio.NewWriter(&partWriter{c.Conn, c.limits.KeepAlive})
	for {
		a, more := c.next()
		if a == nil {
			c.Close() // which ends readRequests
			return nil
		}
		_, err := w.Write(a.frame)
		if err == nil && !more {
			err = w.Flush()
		}
		if err != nil {
			c.end()
			c.Close()
			return err
		}
		c.written(a)
	}
}

// next waits for the next answer, and reports whether there is one after it already. It returns
// nil when there will be none.
func (c *serverConn) next() (a *answer, more bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.over:
			return nil, false
		case len(c.answers) > 0 && c.answers[0].frame != nil:
			return c.answers[0], len(c.answers) > 1 && c.answers[1].frame != nil
		case len(c.answers) == 0 && c.draining:
			return nil, false
		}
		c.changed.Wait()
	}
}

// written forgets an answer.
func (c *serverConn) written(a *answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answers[0] = nil // which it would hold as long as the connection lives
	c.answers = c.answers[1:]
	c.held -= a.held
	c.changed.Broadcast()
}

// serve has the server do a call, on a goroutine of its own.
func (c *serverConn) serve(ctx context.Context, a *answer, data []byte) {
	msg, err := admit(data, &c.known)
	name := msg.name
	target, notFound := c.srv.Target(c.info(name))
	switch {
	case err != nil:
		err = yonder.Errorf(yonder.InvalidArgument, "yonder: call %q: %s: %w", name, cannotDecode, err)
	case notFound != nil:
		err = notFound
	case !target.Plain():
		err = yonder.Errorf(yonder.Unimplemented, "yonder: %q has streams, readers or functions, which the session protocol cannot carry; use another", name)
	}
	if err != nil {
		c.finish(a, c.failure(name, target, err))
		return
	}
	go func() { // ends with the handler
		var frame []byte
		defer func() {
			if r := recover(); r != nil || frame == nil { // of an Error method, or the like; or runtime.Goexit
				c.logger().Error("yonder: an answer could not be made", "procedure", name, "panic", r, "stack", string(debug.Stack()))
				frame = c.failure(name, target, yonder.Errorf(yonder.Internal, "yonder: the answer of %q could not be made", name))
			}
			c.finish(a, frame)
		}()
		frame = c.call(ctx, target, &msg)
	}()
}

const cannotDecode = "the request cannot be decoded"

// info is what is known of a call.
func (c *serverConn) info(name string) yonder.CallInfo {
	return yonder.CallInfo{Procedure: name, Protocol: "session", Conn: c.Conn}
}

// call does a call and returns its answer.
func (c *serverConn) call(ctx context.Context, target *yonder.Target, msg *admitted) []byte {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // a handler's context ends with its call
	name := msg.name
	call := target.NewCall(c.info(name), func(into []any) error {
		args, err := msg.decode(func() {
			for _, t := range target.Args {
				register(t)
			}
		})
		if err != nil {
			return fmt.Errorf("%s: %w", cannotDecode, err)
		}
		return setArgs(target, into, args.Args)
	})
	if err := c.srv.Call(ctx, call); err != nil {
		return c.failure(name, target, err)
	}
	reply := RPCData{Func: name, Args: append([]any(nil), call.Results()...)}
	if target.Error {
		reply.Args = append(reply.Args, nil)
	}
	frame, err := c.encode(reply)
	if err != nil {
		return c.failure(name, target, yonder.Errorf(codeOr(err, yonder.Internal), "yonder: %q: the results cannot be encoded: %w", name, err))
	}
	return frame
}

func (c *serverConn) logger() *slog.Logger {
	if c.srv.Logger != nil {
		return c.srv.Logger
	}
	return slog.Default()
}

// codeOr returns the code of an error, or another if it has none.
func codeOr(err error, code yonder.Code) yonder.Code {
	if e, ok := errors.AsType[*yonder.Error](err); ok {
		return e.Code
	}
	return code
}

// failure returns the answer that says that a call has failed. target is nil if there is no
// such procedure.
func (c *serverConn) failure(name string, target *yonder.Target, err error) []byte {
	reply := RPCData{Func: name}
	if target != nil {
		reply.Args = make([]any, len(target.Results))
	}
	if target != nil && target.Error {
		// The program may have registered the error's type, for peers of any kind.
		own := reply
		own.Args = append(reply.Args[:len(reply.Args):len(reply.Args)], err)
		if frame, failed := c.encode(own); failed == nil && own.Args[len(reply.Args)] != nil { // else it is a nil pointer
			return frame
		}
	}
	reply.Args = append(reply.Args, wireError{err.Error(), c.srv.EncodeError(err, yonder.CBOR)})
	frame, failed := c.encode(reply)
	if failed != nil { // a name or a text too long
		failed = yonder.Errorf(codeOr(failed, yonder.Internal), "yonder: the error of the call cannot be sent: %w", failed)
		frame, _ = encode(RPCData{Args: []any{wireError{failed.Error(), c.srv.EncodeError(failed, yonder.CBOR)}}})
	}
	return frame
}

// encode returns the frame of an answer, unless it is larger than one may be.
func (c *serverConn) encode(reply RPCData) ([]byte, error) {
	frame, err := encode(reply)
	if size := len(frame) - headerSize; err == nil && size > c.limits.MaxMessage {
		return nil, yonder.Errorf(yonder.ResourceExhausted, "an answer of %d bytes is larger than the limit of %d", size, c.limits.MaxMessage)
	}
	return frame, err
}

// setArgs stores the arguments of a request in what into points to.
func setArgs(target *yonder.Target, into, args []any) error {
	fixed := len(into)
	if target.Variadic {
		fixed--
		last := target.Args[fixed]
		// A caller may pass the last arguments one by one, or as the slice that they are.
		if len(args) != len(into) || reflect.TypeOf(args[fixed]) != last {
			if len(args) < fixed {
				return fmt.Errorf("it takes %s or more, not %d", arguments(fixed), len(args))
			}
			rest := reflect.MakeSlice(last, len(args)-fixed, len(args)-fixed)
			for i, arg := range args[fixed:] {
				if err := assign(rest.Index(i), arg); err != nil {
					return fmt.Errorf("argument %d: %w", fixed+i+1, err)
				}
			}
			reflect.ValueOf(into[fixed]).Elem().Set(rest)
			args, into = args[:fixed], into[:fixed]
		}
	}
	if len(args) != len(into) {
		return fmt.Errorf("it takes %s, not %d", arguments(len(into)), len(args))
	}
	for i, arg := range args {
		if err := assign(reflect.ValueOf(into[i]).Elem(), arg); err != nil {
			return fmt.Errorf("argument %d: %w", i+1, err)
		}
	}
	return nil
}

// arguments says how many arguments there are.
func arguments(n int) string {
	if n == 1 {
		return "1 argument"
	}
	return fmt.Sprintf("%d arguments", n)
}
