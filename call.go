package yonder

import (
	"context"
	"reflect"
	"sync/atomic"
	"time"

	"github.com/yonder-rpc/yonder/internal/fn"
	"github.com/yonder-rpc/yonder/internal/mux"
	"github.com/yonder-rpc/yonder/internal/plain"
)

// A Handler does a call: it sends it, or serves it. [Client.Call] and [Server.Call]
// are Handlers. The results are in the call when it returns nil; streams among them
// go on after that. A call must not be used by two handlers at once.
type Handler func(ctx context.Context, call *Call) error

// An Interceptor wraps a Handler with what many calls have in common: logging,
// authentication, retries, measuring. The same type serves both ends and calls of
// every kind. Interceptors are set in [Server.Interceptors] and
// [Dialer.Interceptors]; the first one is the outermost.
type Interceptor func(next Handler) Handler

// chain wraps h in interceptors.
func chain(interceptors []Interceptor, h Handler) Handler {
	for i := len(interceptors) - 1; i >= 0; i-- {
		h = interceptors[i](h)
	}
	return h
}

// A Call is a procedure's name, arguments and results on their way.
type Call struct {
	// Procedure is the name. An interceptor of the caller's may change it, and so call another
	// procedure; on the callee's side that changes nothing.
	Procedure string
	// Metadata goes with the call; nil: none. An interceptor of the caller's may replace it
	// and, if it made the map itself, change it.
	Metadata Metadata
	// Reply is the metadata of the answer; nil: none.
	Reply Metadata
	// OneWay says that the caller wants no results and does not wait: on the caller's
	// side the Handler returns when the call is sent, and nobody hears of a failure.
	OneWay bool

	// On the caller's side: how arguments and results travel, and where they are.
	plan     *fn.Func
	ref      *ref
	carried  *Metadata // what of the metadata came with the context
	args     []any     // values, or pointers to them
	indirect bool      // args are pointers
	into     []any     // pointers to where the results go
	fill     bool      // bytes go to memory that is there already

	// On the callee's side: what is called, with what it was given, and the results.
	proc     *procedure
	resolved *resolution
	source   argSource
	in       []reflect.Value
	out      []reflect.Value
	result   any                    // instead of out: a pointer to the only result
	used     interface{ Release() } // what arguments and result are in, to be used again; nil: what is not

	texts plain.Texts // of what is decoded; outlives the call where its memory does

	link     *link  // that it came over; nil: none
	protocol string // of another protocol's
	conn     any    // that it came over, by another protocol

	context *localContext // of the handler, in the same process; nil: it is in another
	// Functions, so that programs that have no use for them are without them: adoptAll, and Server.direct.
	adopts func(*Call, *fn.Func) ([]reflect.Value, error) // nil: the call is not made of values
	direct func(*Server, context.Context, *Call) error    // of NewCall's

	began time.Duration // since epoch; 0: it is not measured
	ends  []func(error) // of OnEnd
	end   *callEnd      // of a call whose streams the connection sees to; nil: there are none
}

// argSource is where the arguments of a call come from on the callee's side, if they
// are not values already.
type argSource interface {
	// arguments decodes what the procedure takes.
	arguments(call *Call) ([]reflect.Value, error)
	// argument decodes the only argument of a procedure that takes one plain value.
	argument(call *Call, into any) error
}

// funcCall is a call of a bound function. Its arrays are large enough for most.
type funcCall struct {
	Call
	argv, intov [2]any
}

// reset makes a call that is over as good as new.
//
//go:noinline
func (f *funcCall) reset() {
	f.Call.reset()
	f.argv, f.intov = [2]any{}, [2]any{}
}

// newFuncCall returns a call with a bound function's arguments, and its results, which it
// fills and which take the memory of args.
func newFuncCall(procedure string, plan *fn.Func, args []reflect.Value) (*Call, []reflect.Value) {
	f := new(funcCall)
	return &f.Call, f.init(procedure, plan, args)
}

func (f *funcCall) init(procedure string, plan *fn.Func, args []reflect.Value) (results []reflect.Value) {
	f.Procedure, f.plan = procedure, plan
	f.args = f.argv[:0]
	for _, v := range args {
		f.args = append(f.args, v.Interface())
	}
	results, f.into = plan.NewResults(args, f.intov[:0])
	return results
}

// NewCall returns a call of a procedure with these arguments, for [Client.Call] and
// [Server.Call]. [Call.Into] says where the results go. Server.Call does without: then
// [Call.Results] has them.
func NewCall(procedure string, args ...any) *Call {
	return &Call{Procedure: procedure, args: args, direct: (*Server).direct}
}

// drop lets go of arguments and results that nobody looks at any more, on the callee's side.
func (c *Call) drop() {
	c.args, c.in, c.out, c.result = nil, nil, nil, nil
	if c.used != nil {
		c.used.Release()
		c.used = nil
	}
}

// reset makes a call that is over as good as new.
//
//go:noinline
func (c *Call) reset() {
	texts := c.texts
	*c = Call{}
	c.texts = texts
}

// Into has the results stored in what the pointers point to, and returns the call.
// There must be one pointer a result. It panics if one is no pointer, or nil.
func (c *Call) Into(results ...any) *Call {
	for _, r := range results {
		if v := reflect.ValueOf(r); v.Kind() != reflect.Pointer || v.IsNil() {
			panic("yonder: Call.Into: the results' places must be pointers that are not nil")
		}
	}
	c.into, c.fill = results, false
	return c
}

// Fill is [Call.Into] for results of []byte whose memory is to be used again: what a pointer points to
// keeps its memory if that has room for the result, as with a destination of append. So a caller that
// gets large results one after the other, of up to 64 MiB and not compressed, needs memory for one. In
// JSON, in the same process, in a Clone, and where a Transport makes the call, it is Into.
func (c *Call) Fill(results ...any) *Call {
	c.Into(results...)
	c.fill = true
	return c
}

// Clone returns a copy of a call of the caller's side that has places of its own for the results,
// for interceptors that make a call more than once, or several times at once. Only a call whose
// arguments are values can be made more than once: see [Call.Plain].
func (c *Call) Clone() *Call {
	clone := &Call{
		Procedure: c.Procedure, Metadata: c.Metadata, OneWay: c.OneWay,
		plan: c.plan, ref: c.ref, carried: c.carried, args: c.args, indirect: c.indirect, direct: c.direct,
	}
	if c.into != nil {
		clone.into = make([]any, len(c.into))
		for i, p := range c.into {
			clone.into[i] = reflect.New(reflect.TypeOf(p).Elem()).Interface()
		}
	}
	return clone
}

// Take gives c the results and the Reply of another call, which is a [Call.Clone] of it.
func (c *Call) Take(from *Call) {
	c.Reply = from.Reply
	c.ends, from.ends = append(c.ends, from.ends...), nil
	for i, p := range c.into {
		reflect.ValueOf(p).Elem().Set(reflect.ValueOf(from.into[i]).Elem())
	}
}

// Names of protocols that are this package's own.
const (
	nativeProtocol = "yonder"
	localProtocol  = "local"
)

// Info returns what a handler is told about the call.
func (c *Call) Info() CallInfo {
	info := CallInfo{Procedure: c.Procedure, Metadata: c.Metadata, Protocol: localProtocol}
	switch {
	case c.link != nil:
		info.Protocol, info.Conn = nativeProtocol, c.link.netConn()
	case c.protocol != "":
		info.Protocol, info.Conn = c.protocol, c.conn
	}
	return info
}

// Args returns the arguments without the context. On the callee's side they are
// decoded on first use; if they cannot be, it returns nil, and so will the handler
// an error. What is returned must not be changed.
func (c *Call) Args() []any {
	if c.source != nil {
		if err := c.decode(); err != nil {
			return nil
		}
	}
	if c.in != nil {
		return interfaces(c.in)
	}
	if !c.indirect {
		return c.args
	}
	values := make([]any, len(c.args))
	for i, p := range c.args {
		values[i] = reflect.ValueOf(p).Elem().Interface()
	}
	return values
}

// Results returns the results without the error, once a Handler has returned nil.
func (c *Call) Results() []any {
	switch {
	case c.result != nil:
		return []any{reflect.ValueOf(c.result).Elem().Interface()}
	case c.out != nil:
		return interfaces(c.out)
	}
	values := make([]any, len(c.into))
	for i, p := range c.into {
		values[i] = reflect.ValueOf(p).Elem().Interface()
	}
	return values
}

func interfaces(values []reflect.Value) []any {
	list := make([]any, len(values))
	for i, v := range values {
		list[i] = v.Interface()
	}
	return list
}

// decode has the arguments decoded, once.
func (c *Call) decode() error {
	if c.in != nil || c.source == nil {
		return nil
	}
	in, err := c.source.arguments(c)
	if err != nil {
		return err
	}
	c.in, c.source = in, nil
	return nil
}

// describe finds how a call travels that no function describes.
func (c *Call) describe() error {
	if c.plan != nil {
		return nil
	}
	args := make([]reflect.Type, len(c.args))
	for i, a := range c.args {
		args[i] = reflect.TypeOf(a)
	}
	results := make([]reflect.Type, len(c.into))
	for i, p := range c.into {
		results[i] = reflect.TypeOf(p).Elem()
	}
	plan, err := fn.Dynamic(args, results)
	if err != nil {
		return unrun(Errorf(InvalidArgument, "yonder: call %q: %w", c.Procedure, err))
	}
	c.plan = plan
	return nil
}

// plainArgs refuses the arguments of a one-way call that somebody would have to wait for:
// its caller does not stay to send a stream or to be called back.
func (c *Call) plainArgs() error {
	for i := range c.plan.Args {
		if c.plan.Args[i].Kind != fn.Value && marker(reflect.ValueOf(c.args[i])) != nil {
			return unrun(Errorf(InvalidArgument, "yonder: %s: argument %d: a stream, a reader or a function cannot go with a one-way call; use Call", quoted(c), i+1))
		}
	}
	return nil
}

// ref is a procedure as a client knows it: its name, and the signature that the client
// calls it by.
type ref struct {
	mux.Ref
	client   *Client                    // whose it is: another has other numbers
	resolved atomic.Pointer[resolution] // in the same process: what it is
	tally    *tally                     // nil: its calls are not measured
}
