package yonder

import (
	"context"
	"errors"
	"io"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/yonder-rpc/yonder/internal/fn"
	"github.com/yonder-rpc/yonder/internal/mux"
	"github.com/yonder-rpc/yonder/internal/plain"
	"github.com/yonder-rpc/yonder/internal/wire"
)

// localServer is what a client of [Local] has instead of a connection.
type localServer struct{ server *Server }

// resolve finds what a client calls, once.
func (l *localServer) resolve(r *ref, oneWay bool) (*resolution, error) {
	res := r.resolved.Load()
	if res == nil {
		proc, err := l.server.lookup(r.Name, localProtocol, nil)
		if err != nil {
			return nil, localError(err)
		}
		res = proc.resolve(r.Signature)
		r.resolved.Store(res)
	}
	if err := res.refusal(oneWay); err != nil {
		return nil, localError(err)
	}
	return res, nil
}

// call is send for a server in the same process.
func (l *localServer) call(ctx context.Context, call *Call) error {
	if ctx.Err() != nil {
		return unrun(contextFailure(ctx, quoted(call)))
	}
	if l.server.refuses.Load() {
		return refused(call, Errorf(Unavailable, "%w", ErrServerClosed))
	}
	res, err := l.resolve(call.ref, call.OneWay)
	if err != nil {
		return err
	}
	if ctx.Done() == nil && !call.OneWay {
		own := call.apartFrom() // what the server's interceptors do to the call is not the caller's
		err := l.serve(ctx, &own, res)
		call.Reply = own.Reply
		if err != nil {
			return err
		}
		return call.settle(&own)
	}
	if call.OneWay {
		own := call.apartFrom()
		go l.serveOneWay(ctx, &own, res) // ends with the handler
		return nil
	}
	return call.apart(ctx, func(own *Call) error { return l.serve(ctx, own, res) })
}

// direct returns what a client in the same process calls if nothing can come between the
// caller and the function: no interceptor, no end of ctx, and no refusal. Nil: all other
// calls take the path that deals with these.
func (c *Client) direct(ctx context.Context, r *ref) *resolution {
	if c.local == nil || c.intercepted || ctx.Done() != nil || ctx.Err() != nil || c.life.Err() != nil {
		return nil
	}
	s := c.local.server
	res := r.resolved.Load()
	if res == nil || res.unfit != nil || len(s.Interceptors) > 0 || s.refuses.Load() {
		return nil
	}
	return res
}

// takes reports whether a function that plan describes has the procedure's own types, so that
// nothing must be adapted.
func (r *resolution) takes(plan *fn.Func) bool {
	callee := r.proc.plan
	return plan.Plain && !r.spread && sameTypes(plan.Args, callee.Args) && sameTypes(plan.Results, callee.Results)
}

func sameTypes(a, b []fn.Slot) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Type != b[i].Type {
			return false
		}
	}
	return true
}

// do has f call a procedure that direct has returned, and makes of its panics and errors what
// [Server.Call] does. There is no [Call] unless the handler asks its context for it.
func (l *localServer) do(ctx context.Context, r *ref, p *procedure, f func(ctx context.Context) error) (err error) {
	var called, began time.Duration
	if r.tally != nil {
		called = r.tally.start()
	}
	if l.server.Measure {
		began = p.tally.start()
	}
	own := newLocalContext(ctx, l.server, nil)
	own.proc = p
	done := false
	defer func() {
		if !done { // either a panic, or runtime.Goexit
			err = panicked(l.server.logger(), p.Name, recover())
		}
		if began != 0 {
			p.tally.finish(began, err)
		}
		reply := own.release()
		if into, ok := ctx.Value(replyKey{}).(*Metadata); ok {
			*into = reply
		}
		if err != nil {
			l.server.prepare()
			err = own.localError(err)
		}
		if called != 0 {
			r.tally.finish(called, err)
		}
	}()
	err = f(own)
	done = true
	return err
}

// apart has serve do a call of its own in the place of this one, on a goroutine of its
// own: a caller that gives up returns at once.
func (c *Call) apart(ctx context.Context, serve func(own *Call) error) error {
	own := c.apartFrom()
	done := make(chan error)
	go func() { // ends with the handler
		var err error
		returned := false
		defer func() {
			if !returned { // runtime.Goexit, which has been logged
				err = localError(errPanicked(own.Procedure))
			}
			select {
			case done <- err:
			case <-ctx.Done():
				own.discard(err)
			}
		}()
		err = serve(&own)
		returned = true
	}()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		return contextFailure(ctx, quoted(c))
	}
	c.Reply = own.Reply
	if err != nil {
		return inTime(ctx, c, err)
	}
	return c.settle(&own)
}

// apartFrom returns the call as its callee has it: who watches the caller's watches that alone.
func (c *Call) apartFrom() Call {
	own := *c
	own.began, own.ends, own.end = 0, nil, nil
	own.texts, own.adopts = plain.Texts{}, adoptAll
	return own
}

// serveOneWay has the server do a call that its caller does not wait for.
func (l *localServer) serveOneWay(ctx context.Context, call *Call, res *resolution) {
	deadline, ok := ctx.Deadline()
	ctx = context.WithoutCancel(ctx)
	if ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	call.discard(l.serve(ctx, call, res))
}

// discard lets go of results that nobody wants, if there are any.
func (c *Call) discard(err error) {
	if err != nil {
		return
	}
	for i := range c.proc.plan.Results {
		discard(&c.proc.plan.Results[i], c, i)
	}
}

// serve has the server do the call, which ends with its results' streams.
func (l *localServer) serve(ctx context.Context, call *Call, res *resolution) error {
	call.proc, call.resolved = res.proc, res
	call.context = newLocalContext(ctx, l.server, call)
	returned := false
	defer func() {
		if !returned { // runtime.Goexit
			call.context.release()
		}
	}()
	err := l.server.Call(call.context, call)
	returned = true
	return call.served(err)
}

// served ends the handler's context, unless there are streams to go on, and returns the
// error as its caller sees it.
func (c *Call) served(err error) error {
	if err != nil || !hasStreams(c.proc.plan.Results) {
		c.context.release()
	}
	if err != nil {
		return c.context.localError(err)
	}
	return nil
}

func hasStreams(slots []fn.Slot) bool {
	for i := range slots {
		if slots[i].Kind != fn.Value {
			return true
		}
	}
	return false
}

// localError returns an error of the server's as a caller over a connection would see
// it.
func localError(err error) error {
	e := &Error{Code: CodeOf(err), Message: err.Error(), Err: err, remote: true}
	if first, ok := errors.AsType[*Error](err); ok {
		e.Details = first.Details
	}
	return e
}

// localError is localError for what the procedure returned: its methods may panic, and it
// may wrap itself.
func (c *localContext) localError(err error) (e error) {
	s := c.server
	defer func() {
		if r := recover(); r != nil {
			e = localError(panicked(s.logger(), c.called().Procedure, r))
		}
	}()
	if !bounded(err) {
		record := s.errs.record(s.logger(), c.called().Procedure, err, CBOR)
		return s.errs.decode(wire.AppendError(nil, record), CBOR)
	}
	return localError(err)
}

// settle stores the results that served has where the caller wants them.
func (c *Call) settle(served *Call) error {
	for i := range c.into {
		to := reflect.ValueOf(c.into[i]).Elem()
		var from reflect.Value
		if served.result != nil {
			from = reflect.ValueOf(served.result).Elem()
		} else {
			from = served.out[i]
		}
		slot := &served.proc.plan.Results[i]
		over := func() {}
		if slot.Kind != fn.Value && !from.IsNil() {
			served.context.hold()
			over = sync.OnceFunc(func() { served.context.release() })
		}
		v, err := served.adapt(from, slot, &c.plan.Results[i], over)
		if err != nil {
			return Errorf(Internal, "yonder: %s: result %d: %w", quoted(c), i+1, err)
		}
		to.Set(v)
		rangeable(&c.plan.Results[i], c.into[i])
	}
	if hasStreams(served.proc.plan.Results) {
		served.context.release()
	}
	return nil
}

// adoptAll returns the arguments of a call that is made of values as the procedure
// takes them.
func adoptAll(call *Call, plan *fn.Func) ([]reflect.Value, error) {
	in := make([]reflect.Value, len(plan.Args))
	for i := range plan.Args {
		slot := &plan.Args[i]
		if i == len(plan.Args)-1 && call.resolved.spread {
			in[i] = reflect.MakeSlice(slot.Type, 0, len(call.args)-i)
			elem := fn.Slot{Type: slot.Type.Elem()}
			for j := i; j < len(call.args); j++ {
				v, err := call.adapt(call.arg(j), &call.plan.Args[j], &elem, nil)
				if err != nil {
					return nil, badArgument(call, j, err)
				}
				in[i] = reflect.Append(in[i], v)
			}
			break
		}
		if i >= len(call.args) {
			in[i] = reflect.Zero(slot.Type)
			continue
		}
		var v reflect.Value
		var err error
		if slot.Kind == fn.Callback && !call.arg(i).IsNil() {
			v = call.adaptCallback(call.arg(i), callbackName(call.Procedure, i), call.plan.Args[i].Func, slot.Func)
		} else {
			v, err = call.adapt(call.arg(i), &call.plan.Args[i], slot, func() {})
		}
		if err != nil {
			return nil, badArgument(call, i, err)
		}
		in[i] = v
	}
	return in, nil
}

// adopt stores the only argument of a call that is made of values in into.
func adopt[T any](call *Call, plan *fn.Func, into *T) error {
	if len(call.args) == 1 {
		if call.indirect {
			if p, ok := call.args[0].(*T); ok {
				*into = *p
				return nil
			}
		} else if v, ok := call.args[0].(T); ok {
			*into = v
			return nil
		}
	}
	in, err := call.adopts(call, plan)
	if err != nil {
		return err
	}
	reflect.ValueOf(into).Elem().Set(in[0])
	return nil
}

// arg returns an argument of a call that is made of values.
func (c *Call) arg(i int) reflect.Value {
	v := reflect.ValueOf(c.args[i])
	if c.indirect {
		return v.Elem()
	}
	return v
}

// adapt returns a value of one end's type as the other end's: itself if it can be
// assigned to that, and otherwise what would have arrived over a connection. over is
// called when the consumer of a stream is done with it.
func (c *Call) adapt(v reflect.Value, from, to *fn.Slot, over func()) (reflect.Value, error) {
	switch {
	case from.Kind == fn.Value:
		if v.IsValid() && v.Type().AssignableTo(to.Type) {
			return v.Convert(to.Type), nil
		}
		return transcode(v, from, to.Type)
	case isNil(v):
		return reflect.Zero(to.Type), nil
	case from.Kind == fn.Reader || from.Kind == fn.ReadCloser:
		return c.adaptReader(v, from, over), nil
	}
	used := new(atomic.Bool)
	elem, into := fn.Slot{Type: from.Elem, Walk: from.Walk}, fn.Slot{Type: to.Elem}
	return iteratorOf(to, func(place reflect.Value, yield func() bool) (err error) {
		if used.Swap(true) {
			return errUsed(c.Procedure)
		}
		defer over()
		producing, left := true, false
		defer func() {
			if producing { // else it is the consumer who panics
				if r := recover(); r != nil {
					err = localError(panicked(c.context.server.logger(), c.Procedure, r))
				}
			}
		}()
		var failed error
		err = rangeOver(from, v, func(e reflect.Value) bool {
			if failed = c.ended(); failed != nil {
				return false
			}
			var adapted reflect.Value
			if adapted, failed = c.adapt(e, &elem, &into, nil); failed != nil {
				return false
			}
			place.Elem().Set(adapted)
			producing = false
			more := yield()
			producing, left = true, !more
			return more
		})
		if err == nil && failed == nil && !left {
			failed = c.ended() // cut short: the consumer must not take it for complete
		}
		if err != nil {
			return c.context.localError(err)
		}
		return failed
	}), nil
}

// ended returns what the consumer of a stream is told if its call has ended.
func (c *Call) ended() error {
	if c.context.Err() == nil {
		return nil
	}
	return contextFailure(c.context, streamOf(c.Procedure))
}

// transcode takes v through the codec to become a value of another type.
func transcode(v reflect.Value, from *fn.Slot, to reflect.Type) (reflect.Value, error) {
	into := reflect.New(to)
	if !v.IsValid() {
		return into.Elem(), nil
	}
	msg := mux.NewMessage()
	defer msg.Release()
	if err := encodeValue(CBOR, msg, from, v.Interface()); err != nil {
		return reflect.Value{}, err
	}
	_, err := CBOR.Decode(msg.Bytes(), into.Interface())
	return into.Elem(), err
}

// adaptCallback wraps a function of the caller's so that it ends with the call.
func (c *Call) adaptCallback(f reflect.Value, name string, from, to *fn.Func) reflect.Value {
	res := (&procedure{plan: from, fv: f}).resolution()
	return to.Make(func(ctx context.Context, args []reflect.Value) ([]reflect.Value, error) {
		if ctx == nil {
			ctx = c.context
		}
		call, results := newFuncCall(name, to, args)
		call.proc, call.resolved = res.proc, res
		switch {
		case c.context.over():
			return nil, errOver(name)
		case ctx.Err() != nil:
			return nil, contextFailure(ctx, quoted(call))
		case c.context.Err() != nil: // the caller has given up
			return nil, errOver(name)
		}
		call.carry(ctx)
		err := call.apart(ctx, func(own *Call) error { return own.serveCallback(ctx, c.context.server) })
		call.deliver(ctx)
		return results, err
	})
}

// serveCallback runs a function of the caller's.
func (c *Call) serveCallback(ctx context.Context, s *Server) error {
	c.context = newLocalContext(ctx, s, c)
	return c.served(c.resolved.guarded(c.context, c, s.logger()))
}

// localReader reads what the other end's reader does.
type localReader struct {
	io.Reader
	call   *Call
	finish func()
	closed atomic.Bool
	err    error // that ended it; whoever reads on gets it again
}

func (c *Call) adaptReader(v reflect.Value, from *fn.Slot, over func()) reflect.Value {
	r := &localReader{Reader: v.Interface().(io.Reader), call: c}
	r.finish = sync.OnceFunc(func() {
		if from.Kind == fn.ReadCloser {
			r.Reader.(io.Closer).Close()
		}
		over()
	})
	if from.Kind == fn.ReadCloser {
		context.AfterFunc(c.context, r.finish)
	}
	return reflect.ValueOf(r)
}

func (r *localReader) Read(b []byte) (n int, err error) {
	if r.closed.Load() {
		return 0, io.ErrClosedPipe
	}
	if r.err != nil {
		return 0, r.err
	}
	if err := r.call.ended(); err != nil {
		return 0, err
	}
	defer func() {
		if v := recover(); v != nil {
			err = localError(panicked(r.call.context.server.logger(), r.call.Procedure, v))
		}
		if err != nil {
			r.err = err
			r.finish()
		}
	}()
	if n, err = r.Reader.Read(b); err != nil && err != io.EOF {
		err = r.call.context.localError(err)
	}
	return n, err
}

// Close ends the other end's reader.
func (r *localReader) Close() error {
	r.closed.Store(true)
	r.finish()
	return nil
}
