package yonder

import (
	"context"
	"fmt"
	"io"
	"reflect"
	"sync"

	"github.com/yonder-rpc/yonder/internal/wire"
)

// A Target is a procedure as a [Protocol] sees it: it says what a call's arguments are to
// be decoded into. It must not be changed.
type Target struct {
	// Info describes the procedure.
	Info ProcedureInfo
	// Args are the types of the parameters without the context. The last one of a variadic
	// procedure is a slice. The last parameter of a method of net/rpc's shape is a result.
	Args     []reflect.Type
	Variadic bool
	// Results are the types of the results without the error.
	Results []reflect.Type
	// Error says that the procedure returns an error after them.
	Error bool

	resolved *resolution
}

// Target finds the procedure that is called. Of info its name, the protocol and the connection
// count: procedures that are not for them do not exist. The error, an [Unimplemented] one, says if
// there is another of nearly that name.
func (s *Server) Target(info CallInfo) (*Target, error) {
	p, err := s.lookup(info.Procedure, info.Protocol, info.Conn)
	if err != nil {
		return nil, err
	}
	return p.target(), nil
}

// target returns the procedure as protocols see it, made when one first asks.
func (p *procedure) target() *Target {
	if t := p.seen.Load(); t != nil {
		return t
	}
	t := &Target{Info: p.info(), Variadic: p.plan.Variadic, Error: p.plan.Error, resolved: p.resolution()}
	for i := range p.plan.Args {
		t.Args = append(t.Args, p.plan.Args[i].Type)
	}
	for i := range p.plan.Results {
		t.Results = append(t.Results, p.plan.Results[i].Type)
	}
	p.seen.Store(t)
	return t
}

// Plain reports whether all arguments and results are values: whether none is a stream, a
// reader or a function.
func (t *Target) Plain() bool { return t.resolved.plan.Plain }

// NewCall returns a call of the procedure, for [Server.Call]; after that, [Call.Results]
// are what it returned. info tells the handler where the call came from; its Procedure
// is set here. decode fills in the arguments when they are first wanted, if they are: it
// is given a pointer to a zero value for each of Args. An error that it returns is the
// call's, and [InvalidArgument] if it has no code. A stream is given as an iterator, and a
// reader as such.
func (t *Target) NewCall(info CallInfo, decode func(args []any) error) *Call {
	call := &Call{
		Procedure: t.Info.Name, Metadata: info.Metadata, protocol: info.Protocol, conn: info.Conn,
		proc: t.resolved.proc, resolved: t.resolved,
	}
	call.source = decodeFunc(decode)
	return call
}

// decodeFunc is an [argSource] of a protocol's.
type decodeFunc func(args []any) error

func (d decodeFunc) arguments(call *Call) ([]reflect.Value, error) {
	slots := call.proc.plan.Args
	values := make([]reflect.Value, len(slots))
	into := make([]any, len(slots))
	for i := range slots {
		p := reflect.New(slots[i].Type)
		values[i], into[i] = p.Elem(), p.Interface()
	}
	return values, d.decode(call, into)
}

func (d decodeFunc) argument(call *Call, into any) error { return d.decode(call, []any{into}) }

func (d decodeFunc) decode(call *Call, into []any) error {
	if err := d(into); err != nil {
		return Errorf(codeOr(err, InvalidArgument), "yonder: %s: %w", quoted(call), err)
	}
	return nil
}

// EncodeError returns an error as SPEC.md describes its record, with its code, what it
// wraps, and what of that s.Errors lists. Values in it are encoded by the codec.
func (s *Server) EncodeError(err error, codec Codec) []byte {
	s.prepare()
	return wire.AppendError(nil, s.errs.record(s.logger(), fmt.Sprintf("%T", err), err, codec))
}

// DecodeError returns the error that [Server.EncodeError] made a record of, as one of the
// other end. d.Errors are known to it.
func (d *Dialer) DecodeError(record []byte, codec Codec) error {
	return newErrorTable(d.Errors).decode(record, codec)
}

// A Transport brings a client's calls to servers that do not speak the native protocol.
type Transport interface {
	// Call makes a call: it sends [Call.Args], stores the results in [Call.Places], and
	// returns when ctx ends, at the latest. It is the innermost [Handler]. The error of a call that
	// has surely not run, since it was not sent, is one of [NotRun].
	Call(ctx context.Context, call *Call) error
	// Done returns a channel that is closed when no call can be made any more.
	Done() <-chan struct{}
	// Close ends the calls in flight with [Unavailable] and [ErrClientClosed], and waits
	// for what the transport has running.
	Close() error
}

// NewClientOver returns a client whose calls t makes. It owns t from then on. Of the
// Dialer's fields Timeout and Interceptors count; the others are t's business.
func (d *Dialer) NewClientOver(t Transport) *Client {
	c := newClient(d)
	c.transport = t
	return c
}

// ArgTypes returns the types of a call's arguments as the caller has declared them, for a
// [Transport]: of an interface its own, not that of what it holds.
func (c *Call) ArgTypes() []reflect.Type {
	types := make([]reflect.Type, len(c.plan.Args))
	for i := range types {
		types[i] = c.plan.Args[i].Type
	}
	return types
}

// Variadic reports whether the last argument of a call is the slice of a variadic function's
// parameter, for a [Transport].
func (c *Call) Variadic() bool { return c.plan.Variadic }

// Plain reports whether all arguments and results of a call are values: whether none is a
// stream, a reader or a function. On the caller's side, a call that cannot be made, since its
// arguments cannot cross a connection, is not.
func (c *Call) Plain() bool {
	if c.proc != nil {
		return c.proc.plan.Plain
	}
	return c.describe() == nil && c.plan.Plain
}

// Places returns pointers to where the results of a call go, for a [Transport].
func (c *Call) Places() []any { return c.into }

// errNoSignatures is what Check says over other protocols.
var errNoSignatures = Errorf(Unimplemented, "yonder: check: only the native protocol tells signatures")

// Join has [Server.Shutdown] and [Server.Close] count in a connection that s does not
// serve itself, such as one that an HTTP server has accepted. ctx ends when no new calls
// are to be taken; leave, which must be called, says that the calls in flight have
// ended. Close closes conn. The error is [ErrServerClosed].
//
// [ConnLimits.Idle] is for connections that have a method Used() (busy bool, moves uint64), too:
// whether calls are in flight, and how much has come or gone, by any count.
func (s *Server) Join(conn io.Closer) (ctx context.Context, leave func(), err error) {
	s.prepare()
	o := &other{conn: conn}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, ErrServerClosed
	}
	if s.others == nil {
		s.others = make(map[*other]bool)
	}
	s.others[o] = true
	s.serving.Add(1)
	ctx, stop := s.base, func() {}
	if s.Conns != nil {
		ctx, stop = s.Conns.join(ctx, conn)
	}
	return ctx, sync.OnceFunc(func() {
		stop()
		s.untrack(o)
		s.serving.Done()
	}), nil
}
