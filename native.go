package yonder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/yonder-rpc/yonder/internal/fn"
	"github.com/yonder-rpc/yonder/internal/mux"
	"github.com/yonder-rpc/yonder/internal/wire"
)

// link is a connection of the native protocol: it makes frames of calls and calls of
// frames. Both ends have one.
type link struct {
	*linkConfig
	mux   *mux.Conn
	conn  io.ReadWriteCloser // the first; netConn returns the one that counts
	codec Codec              // the dialing side's first; on the other side known once HELLO has come

	failures atomic.Int32 // attempts to resume it in vain, since it has last brought something

	peerOnce   sync.Once
	peerClient *Client
}

// linkConfig is what connections have in common: all of a server's or client's, unless they may be
// resumed. It must not be changed once one has it.
type linkConfig struct {
	dialer      bool
	limits      Limits // with defaults
	local       wire.Greeting
	codecs      []Codec // accepted, in order of preference
	errs        *errorTable
	server      *Server     // what the peer may call; nil: nothing
	client      *Client     // what calls the peer; nil: one is made on demand
	compression Compression // nil: none
	workers     *mux.Workers
	logs        *slog.Logger // nil: the default
	closed      error        // what calls end with when this end closes the connection

	resume   time.Duration // how long it may be lost; zero: it is over then
	lost     func(l *link, progress bool)
	secret   []byte // of a server: by what it is resumed
	identity string // of a server: who may
}

// greet settles what this end announces.
func (cfg *linkConfig) greet() {
	cfg.limits = cfg.limits.WithDefaults()
	cfg.local = cfg.limits.greeting(cfg.codecs)
	if cfg.compression != nil {
		cfg.local.Compression = cfg.compression.Name()
	}
	if cfg.resume > 0 {
		cfg.local.Resume = uint64(max(cfg.resume/time.Millisecond, 1))
		cfg.local.Session = cfg.secret
	}
}

// newLink returns a connection of which read has been read already, and whose bytes are added to
// count.
func newLink(conn io.ReadWriteCloser, read []byte, count *mux.Count, cfg *linkConfig) *link {
	l := &link{linkConfig: cfg, conn: conn}
	if cfg.dialer {
		l.codec = cfg.codecs[0]
	}
	if l.server != nil {
		l.server.prepare()
	}
	var lost func(bool)
	if cfg.resume > 0 {
		lost = func(progress bool) { cfg.lost(l, progress) }
	}
	l.mux = mux.New(conn, read, mux.Config{
		MaxKept:    cfg.limits.MaxKept,
		Lost:       lost,
		Dialer:     cfg.dialer,
		Local:      &cfg.local,
		MaxStreams: cfg.limits.MaxStreams,
		Accept:     l.accept,
		Handler:    l,
		Handshake:  cfg.limits.FirstByte,
		KeepAlive:  cfg.limits.KeepAlive,
		Workers:    cfg.workers,
		Count:      count,
	})
	return l
}

// logger is not inlined so that programs stay small.
//
//go:noinline
func (l *link) logger() *slog.Logger {
	if l.logs != nil {
		return l.logs
	}
	return slog.Default()
}

// accept judges the peer's HELLO: the dialing side's first codec is used.
func (l *link) accept(g *wire.Greeting) error {
	if l.dialer {
		for _, name := range g.Codecs {
			if name == l.codec.Name() {
				return nil
			}
		}
		return fmt.Errorf("codec %q is not accepted by the peer, only %q; list it in the peer's Server.Codecs", l.codec.Name(), g.Codecs)
	}
	codec, err := codecNamed(l.codecs, g.Codecs[0])
	l.codec = codec
	return err
}

// netConn returns what the connection goes over just now.
func (l *link) netConn() io.ReadWriteCloser {
	if l.resume == 0 {
		return l.conn
	}
	return l.mux.NetConn()
}

// run reads the connection, which has begun, until it is over, and returns why.
func (l *link) run() error {
	err := l.mux.Run()
	l.logEnd(err)
	return err
}

// begin greets the peer. If that fails, the connection is over, and begin returns why.
func (l *link) begin() error {
	err := l.mux.Begin()
	if err != nil {
		l.logEnd(err)
	}
	return err
}

// logEnd says how the connection ended. Like other functions on the way to the read loop's wait,
// it is not inlined: what it needs of the stack would be an idle connection's for good.
//
//go:noinline
func (l *link) logEnd(err error) {
	if bad, ok := errors.AsType[*mux.ProtocolError](err); ok {
		l.logger().Warn("yonder: connection closed", "protocol", nativeProtocol, "peer", addrOf(l.netConn()), "reason", bad.Reason)
	} else if err != nil {
		level := slog.LevelDebug // clients come and go
		if l.dialer {
			level = slog.LevelInfo
		}
		l.logger().Log(context.Background(), level, "yonder: connection lost", "protocol", nativeProtocol, "peer", addrOf(l.netConn()), "reason", err)
	}
}

// peer returns the client that calls the other end over this very connection.
func (l *link) peer() *Client {
	l.peerOnce.Do(func() {
		if l.peerClient = l.client; l.peerClient == nil {
			l.peerClient = newPeer(l)
		}
	})
	return l.peerClient
}

// failure returns what the caller of a procedure is told of an error that this end
// found. what says which call, or which part of it.
func (l *link) failure(what string, err error) error {
	var code Code
	cause := err
	switch {
	case err == context.Canceled || err == context.DeadlineExceeded:
		code = CodeOf(err)
	case err == mux.ErrClosed:
		code, cause = Unavailable, l.closed
	case err == mux.ErrEnded:
		code = Canceled
	case err == mux.ErrTooManyNames:
		code = ResourceExhausted
	default:
		switch e := err.(type) {
		case *Error:
			return err
		case *mux.LostError, *mux.ProtocolError:
			code, cause = Unavailable, asLost(err)
		case *mux.GoAwayError:
			code = Code(e.Code)
		case *mux.TooLargeError, *mux.TooManyStreamsError:
			code = ResourceExhausted
		case *mux.RemoteError:
			return l.errs.decode(e.Record, l.codec)
		default:
			code = Unknown
		}
	}
	return &Error{Code: code, Message: "yonder: " + what + ": " + trimPrefix(cause), Err: cause}
}

// trimPrefix returns an error's text without this package's name before it.
func trimPrefix(err error) string {
	text := err.Error()
	if after, ok := bytes.CutPrefix([]byte(text), []byte("yonder: ")); ok {
		return string(after)
	}
	return text
}

// lostError is ErrConnectionLost and how.
type lostError struct{ how error }

func (e *lostError) Error() string        { return ErrConnectionLost.Error() + ": " + e.how.Error() }
func (e *lostError) Is(target error) bool { return target == ErrConnectionLost }
func (e *lostError) Unwrap() error        { return e.how }

// asLost returns the error that a connection has ended with as the program knows it.
func asLost(err error) error {
	switch e := err.(type) {
	case *mux.LostError:
		return &lostError{e.Err}
	case *mux.ProtocolError:
		return &lostError{e}
	}
	return err
}

// contextFailure returns what the caller is told when its context has ended.
func contextFailure(ctx context.Context, what string) error {
	return endedFailure(ctx.Err(), context.Cause(ctx), what)
}

func endedFailure(err, cause error, what string) error {
	e := &Error{Code: CodeOf(err), Message: "yonder: " + what + ": " + err.Error(), Err: err}
	if cause != err {
		e.Message += ": " + cause.Error()
		e.Err = errors.Join(err, cause)
	}
	return e
}

// exchange makes a call over the connection. sent is false if the call has surely not run, and
// may be made again.
func (l *link) exchange(ctx context.Context, call *Call) (sent bool, err error) {
	return l.request(ctx, call, mux.Request{Ref: &call.ref.Ref})
}

// request makes a call, of a procedure or of a callback.
func (l *link) request(ctx context.Context, call *Call, q mux.Request) (sent bool, err error) {
	if err := ctx.Err(); err != nil {
		return true, unrun(contextFailure(ctx, quoted(call)))
	}
	q.Body = mux.NewMessage()
	if err := l.encodeArgs(call, q.Body); err != nil {
		q.Body.Release()
		return true, unrun(err)
	}
	q.Flags |= l.pack(&q.Body)
	q.Deadline, _ = ctx.Deadline()
	wait := ctx
	if t, ok := ctx.(*lazyContext); ok && call.plan.Plain && t.bare() {
		q.Expire, wait = true, context.Background()
	}
	q.Meta = call.Metadata
	if call.OneWay {
		q.Flags |= wire.OneWay
	}
	if q.Queue = call.plan.Plain && !call.OneWay; !call.plan.Plain {
		q.Tag = &offer{call.Procedure, call.plan.Args, slices.Clone(call.args)}
	}
	o, err := l.mux.Start(ctx, &q)
	if err != nil {
		if ctx.Err() != nil {
			return true, unrun(contextFailure(ctx, quoted(call)))
		}
		return false, unrun(l.failure(quoted(call), err))
	}
	if call.OneWay {
		o.Forget()
		return true, nil
	}
	if !call.plan.Plain {
		err := l.converse(ctx, call, o)
		return err == nil || MayHaveRun(err) || call.produces(), err
	}
	if err := o.Wait(wait); err != nil {
		if ctx.Err() != nil && err == ctx.Err() {
			return true, contextFailure(ctx, quoted(call))
		}
		if o.Unsent() {
			return false, unrun(l.failure(quoted(call), err))
		}
		return true, l.failure(quoted(call), err)
	}
	err = l.answer(call, o, nil)
	o.Release()
	return err == nil || MayHaveRun(err), inTime(ctx, call, err)
}

// produces reports whether there is a stream or a reader among the arguments, of which something
// may have been taken.
func (c *Call) produces() bool {
	for i := range c.plan.Args {
		if k := c.plan.Args[i].Kind; k != fn.Value && k != fn.Callback && !isNil(reflect.ValueOf(c.args[i])) {
			return true
		}
	}
	return false
}

// inTime returns the error of an answer, unless that only says what the caller's own
// context does, or is about to: which of the two clocks was first should not show.
func inTime(ctx context.Context, call *Call, err error) error {
	if err == nil {
		return nil
	}
	ended := ctx.Err()
	if deadline, ok := ctx.Deadline(); ok && ended == nil && !time.Now().Before(deadline) {
		ended = context.DeadlineExceeded
	}
	if ended == nil || CodeOf(err) != CodeOf(ended) {
		return err
	}
	return endedFailure(ended, ended, quoted(call))
}

// offer is what a call's callbacks find their functions in. It is not the call itself,
// nor shares its arguments' array: the connection holds it while streams are open, and a
// stream that the caller forgets must be garbage.
type offer struct {
	procedure string
	slots     []fn.Slot
	args      []any
}

// quoted is how messages name a call. Like other functions of errors, it is not inlined so that
// programs stay small.
//
//go:noinline
func quoted(call *Call) string { return fmt.Sprintf("call %q", call.Procedure) }

// encodeArgs appends the arguments of a call: values as they are, and null or 1 for
// each stream, reader and function.
func (l *link) encodeArgs(call *Call, msg *mux.Message) error {
	for i, arg := range call.args {
		slot := &call.plan.Args[i]
		err := error(nil)
		if slot.Kind == fn.Value {
			err = encodeValue(l.codec, msg, slot, arg)
		} else {
			err = l.codec.Encode(&msg.Buffer, marker(reflect.ValueOf(arg)))
		}
		if err != nil {
			return Errorf(InvalidArgument, "yonder: %s: argument %d: %w", quoted(call), i+1, err)
		}
	}
	return nil
}

// marker is what stands for a stream, a reader or a function.
func marker(v reflect.Value) any {
	if isNil(v) {
		return nil
	}
	return 1
}

// isNil reports whether there is no stream, reader or function. A reader need not be of a
// type that has a nil.
func isNil(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Invalid:
		return true
	case reflect.Func, reflect.Interface, reflect.Pointer:
		return v.IsNil()
	}
	return false
}

// answer takes the response of a call: its error, or its results. streams, if there
// may be any, makes those.
func (l *link) answer(call *Call, o *mux.Outgoing, streams *conversation) error {
	call.Reply = o.Meta
	if o.Failed {
		return l.errs.decode(bytes.Clone(o.Body), l.codec)
	}
	rest, shares := o.Body, sharesNothing
	if o.Large {
		shares = sharesAll
	}
	if o.Packed {
		var err error
		if rest, err = l.unpack(rest); err != nil {
			return &Error{Code: ResourceExhausted, Message: "yonder: " + quoted(call) + ": the answer cannot be decompressed: " + err.Error(), Err: err}
		}
		shares = sharesAll
	}
	beginTexts(&call.texts, rest, shares)
	for i := range call.plan.Results {
		slot := &call.plan.Results[i]
		var err error
		switch {
		case len(rest) == 0:
			err = errors.New("it is missing from the answer")
		case call.fill && l.fillBytes(&rest, call.into[i]):
		case slot.Kind == fn.Value:
			rest, err = decodeValue(l.codec, slot, rest, shares, call.into[i], &call.texts)
		default:
			var there *int
			if rest, err = l.codec.Decode(rest, &there); err == nil && there != nil {
				err = streams.result(i, slot, call.into[i])
			} else if err == nil {
				rangeable(slot, call.into[i])
			}
		}
		if err != nil {
			return Errorf(codeOr(err, Internal), "yonder: %s: result %d: %w", quoted(call), i+1, err)
		}
	}
	if o.Packed || !call.texts.Kept {
		o.FreeBody()
	}
	return nil
}

// serverCall is a call that the peer has made.
type serverCall struct {
	in   mux.Incoming
	call Call
	ctx  *callContext // apart, because a handler may keep it
	link *link
	over atomic.Bool // callbacks are not valid any more
	free bool        // nobody else has call, and in is all that is left of it
	lent bool        // the results may share the body
}

var serverCalls = sync.Pool{New: func() any { return new(serverCall) }}

// NewCall implements [mux.Handler].
func (l *link) NewCall() *mux.Incoming {
	sc := serverCalls.Get().(*serverCall)
	sc.link = l
	sc.in.Owner = sc
	sc.call.link = l
	sc.ctx = &callContext{call: &sc.call}
	return &sc.in
}

// Free implements [mux.Handler]. What a handler or an interceptor may have kept is left to
// the garbage collector.
func (l *link) Free(in *mux.Incoming) {
	sc := in.Owner.(*serverCall)
	if !sc.free {
		return
	}
	in.Reset()
	sc.call.drop()
	sc.call.reset()
	sc.ctx, sc.link, sc.free, sc.lent = nil, nil, false, false
	sc.over.Store(false)
	serverCalls.Put(sc)
}

// keepsNothing reports whether nobody can keep a call that the peer makes: no interceptor sees it,
// and no streams, readers or functions belong to it.
func (l *link) keepsNothing(plan *fn.Func) bool {
	return plan.Plain && (l.server == nil || len(l.server.Interceptors) == 0)
}

// Cancel implements [mux.Owner].
func (sc *serverCall) Cancel(cause error) {
	if cause = asLost(cause); cause == mux.ErrClosed {
		cause = sc.link.closed
	}
	sc.ctx.end(cause)
}

// Serve implements [mux.Handler].
func (l *link) Serve(in *mux.Incoming) {
	sc := in.Owner.(*serverCall)
	defer func() { // even if the handler ends its goroutine
		sc.over.Store(true)
		again := sc.call.resolved != nil && in.Name != nil && l.keepsNothing(sc.call.resolved.plan)
		sc.free = sc.ctx.leave(again, leftCall{sc.call.resolved, sc.call.Metadata})
	}()
	sc.ctx.deadline = in.Deadline
	sc.call.Metadata = in.Head.Meta
	sc.call.OneWay = in.Flags&wire.OneWay != 0
	var err error
	switch {
	case sc.ctx.Err() != nil:
		err = Errorf(CodeOf(sc.ctx.Err()), "yonder: the call was over before it began: %w", sc.ctx.Err())
	case in.Flags&wire.Callback != 0:
		err = sc.callback()
	default:
		err = sc.procedure()
	}
	if err == nil && in.Flags&wire.Check == 0 {
		err = sc.succeed()
	} else if err == nil {
		err = in.Reply(0, nil, mux.NewMessage(), true)
	}
	if err != nil {
		sc.fail(err)
	}
	if sc.call.end != nil {
		sc.call.end.over(err)
	}
}

// procedure runs the procedure that is called.
func (sc *serverCall) procedure() error {
	name := sc.in.Name
	if name.Excess {
		return Errorf(ResourceExhausted, "yonder: the names and signatures of the procedures called on this connection take more than is kept of them")
	}
	sc.call.Procedure = name.Name
	res, _ := name.Resolved.Load().(*resolution)
	if res == nil {
		if sc.link.server == nil {
			return Errorf(Unimplemented, "yonder: no procedure %q: this end of the connection serves none", name.Name)
		}
		proc, err := sc.link.server.lookup(name.Name, nativeProtocol, sc.link.netConn())
		if err != nil {
			return err
		}
		res = proc.resolve(name.Signature)
		res.link = sc.link
		name.Resolved.Store(res)
	}
	if err := res.refusal(sc.call.OneWay); err != nil {
		return sc.refuse(res.proc, err)
	}
	if sc.in.Flags&wire.Check != 0 {
		return nil
	}
	sc.call.proc, sc.call.resolved, sc.call.source = res.proc, res, sc
	if sc.link.server.Measure {
		res.proc.tally.request.Add(uint64(len(sc.in.Body)))
	}
	return sc.link.server.Call(sc.ctx, &sc.call)
}

// refuse counts a call that does not fit the procedure, and returns why.
func (sc *serverCall) refuse(p *procedure, err error) error {
	if sc.in.Flags&wire.Check == 0 && sc.link.server.Measure {
		p.tally.refuse(CodeOf(err))
	}
	return err
}

// callback runs a function among the arguments of a call that this end has made.
func (sc *serverCall) callback() error {
	call, _ := sc.in.Tag.(*offer)
	arg := int(sc.in.Head.Arg)
	if call == nil || arg >= len(call.args) || call.slots[arg].Kind != fn.Callback {
		return Errorf(FailedPrecondition, "yonder: callback: the call that it belongs to has ended")
	}
	f := reflect.ValueOf(call.args[arg])
	if f.IsNil() {
		return Errorf(FailedPrecondition, "yonder: callback: the function is nil")
	}
	sc.call.Procedure = callbackName(call.procedure, arg)
	sc.call.proc = &procedure{plan: call.slots[arg].Func, fv: f}
	sc.call.resolved = sc.call.proc.resolution()
	sc.call.source = sc
	if s := sc.link.server; s != nil {
		sc.call.proc.tally = &s.callbacks
		return s.Call(sc.ctx, &sc.call)
	}
	return sc.call.resolved.guarded(sc.ctx, &sc.call, sc.link.logger())
}

// callbackName is what interceptors see as the name of a function among the arguments.
func callbackName(procedure string, arg int) string {
	return fmt.Sprintf("%s#%d", procedure, arg+1)
}

// argument implements [argSource].
func (sc *serverCall) argument(call *Call, into any) error {
	rest, err := sc.body()
	if err != nil {
		return err
	}
	if len(rest) == 0 {
		err = errors.New("it is missing")
	} else {
		rest, err = decodeValue(sc.link.codec, &call.resolved.plan.Args[0], rest, sc.sharing(), into, &call.texts)
	}
	if err != nil {
		return badArgument(call, 0, err)
	}
	if len(rest) > 0 {
		return badArgument(call, 1, errTooMany)
	}
	sc.freeBody()
	return nil
}

// lends reports whether bytes among the arguments are lent.
func (sc *serverCall) lends() bool {
	p := sc.call.proc
	return p.lends && sc.link.keepsNothing(p.plan)
}

// sharing is what of the arguments may share the message that they come in.
func (sc *serverCall) sharing() sharing {
	switch {
	case sc.lends():
		return sharesBytes
	case sc.in.Large:
		return sharesAll
	}
	return sharesNothing
}

// freeBody lets go of the encoded arguments, once they are decoded.
func (sc *serverCall) freeBody() {
	switch {
	case !sc.call.texts.Kept:
		sc.in.FreeBody()
	case sc.lends():
		sc.lent = true
	default:
		sc.in.ReleaseBody()
	}
}

var errTooMany = errors.New("the procedure does not take so many")

func badArgument(call *Call, i int, err error) error {
	return Errorf(codeOr(err, InvalidArgument), "yonder: %s: argument %d: %w", quoted(call), i+1, err)
}

// codeOr returns the code that err has, if it has one, or else another.
func codeOr(err error, other Code) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return other
}

// arguments implements [argSource].
func (sc *serverCall) arguments(call *Call) ([]reflect.Value, error) {
	plan := call.resolved.plan
	var args []reflect.Value
	var place func(i int) reflect.Value
	if sc.link.keepsNothing(plan) {
		frame := plan.NewFrame()
		args, place, call.used = frame.Args, frame.Place, frame
	} else {
		args = make([]reflect.Value, len(plan.Args))
		place = func(i int) reflect.Value { return reflect.New(plan.Args[i].Type) }
	}
	rest, err := sc.body()
	if err != nil {
		return nil, err
	}
	for i := range plan.Args {
		slot := &plan.Args[i]
		var err error
		last := i == len(plan.Args)-1
		switch {
		case last && call.resolved.spread:
			args[i] = reflect.MakeSlice(slot.Type, 0, max(call.resolved.args-i, 0))
			for len(rest) > 0 && err == nil {
				v := reflect.New(slot.Type.Elem())
				rest, err = sc.link.codec.Decode(rest, v.Interface())
				args[i] = reflect.Append(args[i], v.Elem())
			}
		case len(rest) == 0:
			args[i] = reflect.Zero(slot.Type)
			if slot.Type.Kind() != reflect.Pointer && !(last && plan.Variadic) {
				err = errors.New("it is missing")
			}
		case slot.Kind == fn.Value:
			v := place(i)
			rest, err = decodeValue(sc.link.codec, slot, rest, sc.sharing(), v.Interface(), &call.texts)
			args[i] = v.Elem()
		default:
			var there *int
			args[i] = reflect.Zero(slot.Type)
			if rest, err = sc.link.codec.Decode(rest, &there); err == nil && there != nil {
				args[i], err = sc.stream(i, slot)
			}
		}
		if err != nil {
			return nil, badArgument(call, i, err)
		}
	}
	if len(rest) > 0 {
		return nil, badArgument(call, len(plan.Args), errTooMany)
	}
	sc.freeBody()
	return args, nil
}

// fail answers with an error.
func (sc *serverCall) fail(err error) {
	l := sc.link
	send := func(e *wire.Error) error {
		msg := mux.NewMessage()
		msg.Write(wire.AppendError(msg.AvailableBuffer(), e))
		return sc.in.Reply(wire.Failed, Metadata(sc.call.Reply), msg, true)
	}
	e := l.record(sc.call.Procedure, err)
	failed := send(e)
	if _, ok := failed.(*mux.TooLargeError); ok && sc.call.Reply != nil {
		sc.call.Reply = nil // the error matters more
		failed = send(e)
	}
	if tooLarge, ok := failed.(*mux.TooLargeError); ok {
		send(&wire.Error{Code: e.Code, Message: "yonder: the error cannot be sent: " + tooLarge.Error()})
	}
}

// record returns an error of a procedure's, or of package mux's, as it crosses the
// connection.
func (l *link) record(procedure string, err error) *wire.Error {
	if _, ok := err.(*mux.TooLargeError); ok {
		err = l.failure(fmt.Sprintf("call %q", procedure), err)
	}
	return l.errs.record(l.logger(), procedure, err, l.codec)
}

// succeed answers with the results, and sends the streams among them.
func (sc *serverCall) succeed() (err error) {
	l, call := sc.link, &sc.call
	defer func() {
		if r := recover(); r != nil { // of a MarshalText or the like
			err = panicked(l.logger(), call.Procedure, r)
		}
	}()
	msg := mux.NewMessage()
	var streams []outStream
	plan := call.resolved.plan
	for i := range plan.Results {
		slot := &plan.Results[i]
		var err error
		switch {
		case call.OneWay:
			discard(slot, call, i)
		case i == len(plan.Results)-1 && l.endWithBytes(msg, call):
		case call.result != nil:
			err = encodeValue(l.codec, msg, slot, call.result)
		case slot.Kind == fn.Value:
			err = encodeValue(l.codec, msg, slot, call.out[i].Interface())
		default:
			err = l.codec.Encode(&msg.Buffer, marker(call.out[i]))
			if !call.out[i].IsNil() {
				streams = append(streams, outStream{slot, call.out[i], sc.in.SendStream(uint8(i + 1))})
			}
		}
		if err != nil {
			msg.Release()
			return Errorf(Internal, "yonder: %s: result %d: %w", quoted(call), i+1, err)
		}
	}
	if l.keepsNothing(plan) {
		// Nobody looks at them any more, and a peer that does not read keeps the call here.
		call.drop()
	}
	flags := l.pack(&msg)
	if call.measured() {
		call.proc.tally.response.Add(uint64(msg.Len()))
	}
	if sc.lent {
		sc.in.LendBody(msg)
	}
	if err := sc.in.Reply(flags, call.Reply, msg, len(streams) == 0); err != nil {
		if _, ok := err.(*mux.TooLargeError); ok {
			return err
		}
		return nil // the connection is over
	}
	if len(streams) > 0 {
		if err := sc.produceAll(streams); sc.call.end != nil {
			sc.call.end.err = err
		}
	}
	return nil
}

// produceAll sends the streams among the results; the last to end ends the call. It returns the
// first error that ended one.
func (sc *serverCall) produceAll(streams []outStream) (first error) {
	stop := context.AfterFunc(sc.ctx, func() {
		for _, s := range streams {
			s.to.Stop(context.Cause(sc.ctx))
		}
	})
	defer stop()
	var mu sync.Mutex // guards left and first, and keeps the order: nothing may follow what ends the call
	left := len(streams)
	one := func(s outStream) {
		record, err := sc.link.produce(sc.call.Procedure, s)
		if record == nil && sc.ctx.Err() != nil && s.to.Err() != mux.ErrStopped {
			// Cut short: the consumer must not take it for complete.
			err = contextFailure(sc.ctx, streamOf(sc.call.Procedure))
			record = sc.link.closing(sc.call.Procedure, err)
		}
		mu.Lock()
		defer mu.Unlock()
		if left--; first == nil {
			first = err
		}
		sc.in.CloseStream(s.to, record, left == 0)
	}
	var others sync.WaitGroup
	for _, s := range streams[1:] {
		others.Go(func() { one(s) })
	}
	one(streams[0])
	others.Wait()
	return first
}
