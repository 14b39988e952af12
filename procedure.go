package yonder

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/yonder-rpc/yonder/internal/fn"
	"github.com/yonder-rpc/yonder/internal/layers"
)

// A Procedure is a function that others may call, and what is known of it.
type Procedure struct {
	// Name is what it is called by. Names that begin with "yonder." are yonder's own.
	Name string
	// Func is any function of the form
	//
	//	func([ctx context.Context,] args...) (results..., [error])
	//
	// See the package's documentation, "Functions".
	Func any
	// Params are the names of its parameters without the context, for people and for
	// callers that give arguments by name. Nil: they have none.
	Params []string
	// Doc says what it does, in Go's style. Empty: nothing is known.
	Doc string
	// Idempotent says that running it twice is as good as once.
	Idempotent bool
	// Lend says that the memory of []byte arguments is only lent to the function: it must not keep them,
	// nor change or send them elsewhere once it has returned. Its results may share it. Later messages
	// have that memory, up to 64 MiB each, which makes large ones twice as fast. What else is among the arguments is the
	// function's, and so is all where interceptors see the call, streams, readers or functions belong to
	// it, or it comes over another protocol than yonder's own.
	Lend bool
	// Protocols are the names of those that it can be called over, as [CallInfo.Protocol] has
	// them, and of HTTP, "http": what comes over HTTP, WebSockets included, needs that beside the
	// name of the protocol that it carries. To all others the procedure does not exist. Nil: all.
	Protocols []string
}

// ProcedureInfo describes a procedure to those who might call it.
type ProcedureInfo struct {
	// Name is what it is called by.
	Name string `json:"name"`
	// Signature describes its type, in the form that SPEC.md gives.
	Signature string `json:"signature"`
	// Go is the same for people: func(uid int) (User, error).
	Go string `json:"go"`
	// Params, Doc and Idempotent are those of the [Procedure].
	Params     []string `json:"params,omitempty"`
	Doc        string   `json:"doc,omitempty"`
	Idempotent bool     `json:"idempotent,omitempty"`
}

// Skipped is a method that RegisterService left out, and why.
type Skipped struct {
	Method string
	Reason string
}

// procedure is a registered Procedure.
type procedure struct {
	// What calls look at is together.
	plan  *fn.Func
	fv    reflect.Value
	tally *tally // nil: of a function among the arguments in the same process
	// run is the procedure without reflection; nil: there is only fv.
	run func(ctx context.Context, call *Call) error

	lends bool // Lend, and there is something to lend

	seen atomic.Pointer[Target] // what protocols see; nil: none has asked
	Procedure
}

// newProcedure checks p. It panics if it is unsuitable.
func newProcedure(p Procedure) *procedure {
	fail := func(format string, args ...any) {
		panic(fmt.Sprintf("yonder: register %q: ", p.Name) + fmt.Sprintf(format, args...))
	}
	fv := reflect.ValueOf(p.Func)
	switch {
	case !fv.IsValid() || fv.Kind() != reflect.Func:
		fail("%T is not a function", p.Func)
	case fv.IsNil():
		fail("the function is nil")
	}
	plan, err := fn.Callee(fv.Type())
	if err != nil {
		fail("%v", err)
	}
	if p.Params != nil && len(p.Params) != len(plan.Args) {
		fail("Params has %d names for %d parameters (the context has none)", len(p.Params), len(plan.Args))
	}
	isBytes := func(s fn.Slot) bool { return s.Type == bytesType }
	return &procedure{Procedure: p, plan: plan, fv: fv, tally: new(tally), lends: p.Lend && slices.ContainsFunc(plan.Args, isBytes)}
}

// exposed reports whether the procedure exists for calls over a protocol and a connection.
func (p *procedure) exposed(protocol string, conn any) bool {
	return p.Protocols == nil || slices.Contains(p.Protocols, protocol) &&
		(slices.Contains(p.Protocols, "http") || !layers.OverHTTP(conn))
}

// maxName is the longest name of a procedure, in bytes.
const maxName = 512

// info describes the procedure.
func (p *procedure) info() ProcedureInfo {
	sig := p.plan.Signature()
	return ProcedureInfo{
		Name: p.Name, Signature: sig.String(), Go: sig.GoNamed(p.Params),
		Params: p.Params, Doc: p.Doc, Idempotent: p.Idempotent,
	}
}

// invoke is the innermost Handler of the callee's side.
func (r *resolution) invoke(ctx context.Context, call *Call) error {
	if r.run != nil {
		return r.run(ctx, call)
	}
	if call.source != nil {
		if err := call.decode(); err != nil {
			return err
		}
	} else if call.in == nil {
		in, err := call.adopts(call, r.plan)
		if err != nil {
			return err
		}
		call.in = in
	}
	var out []reflect.Value
	var err error
	if frame, ok := call.used.(*fn.Frame); ok {
		out, err = frame.Call(r.proc.fv, ctx)
	} else {
		out, err = r.plan.Call(r.proc.fv, ctx, call.in)
	}
	if err != nil {
		return err
	}
	if out == nil {
		out = []reflect.Value{} // Results must not take them for missing
	}
	call.out = out
	return nil
}

// guarded is invoke for what is not called through a server, which sees to panics itself.
func (r *resolution) guarded(ctx context.Context, call *Call, logger *slog.Logger) (err error) {
	done := false
	defer func() {
		if !done { // either a panic, or runtime.Goexit
			err = panicked(logger, call.Procedure, recover())
		}
	}()
	err = r.invoke(ctx, call)
	done = true
	return err
}

// resolution is what a procedure is to a caller with a certain view of it. Where there are many
// procedures each thing that a call looks at is not in the processor's cache: so all is here, and
// fills a line of it.
type resolution struct {
	proc *procedure
	plan *fn.Func                                    // the procedure's
	run  func(ctx context.Context, call *Call) error // the procedure's
	// link is where the caller comes from; nil: not over the native protocol.
	link *link
	// spread says that the caller passes one by one what the procedure takes as a slice.
	spread bool
	// never says that even a caller that wants no results cannot call it, because of unfit.
	never bool
	// args is how many arguments the caller passes; -1: nobody knows.
	args int
	// unfit is why a caller that wants the results cannot call it; nil: any can.
	unfit *misfit
}

// A misfit is why a caller cannot call a procedure. A peer can name it by tens of thousands of signatures,
// so little is kept of each.
type misfit struct {
	reason string
	caller string // its signature for people, or as it is if nobody can read it
}

// maxReason and maxShown are how much of a reason and of a signature for people an error has, in bytes.
const (
	maxReason = 512
	maxShown  = 2 << 10
)

// resolution returns what p is to a caller of which nothing is known.
func (p *procedure) resolution() *resolution {
	return &resolution{proc: p, plan: p.plan, run: p.run, args: -1}
}

// resolve returns what p is to a caller with this signature.
func (p *procedure) resolve(signature string) *resolution {
	r := p.resolution()
	caller, err := fn.Parse(signature)
	if err != nil {
		r.never, r.unfit = true, &misfit{clip(err.Error(), maxReason), clip(signature, maxShown)}
		return r
	}
	callee := p.plan.Signature()
	if caller != nil {
		r.args = len(caller.Args)
	}
	if r.spread, err = fn.Compatible(caller, callee); err == nil {
		return r
	}
	r.unfit = &misfit{clip(err.Error(), maxReason), clip(caller.Go(), maxShown)}
	r.spread, err = fn.Compatible(&fn.Sig{Args: caller.Args, Variadic: caller.Variadic, Results: callee.Results}, callee)
	r.never = err != nil
	return r
}

// clip returns the beginning of a text for people that a peer may have made long.
//
//go:noinline
func clip(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "..." // a copy
}

// refusal is why a call cannot be made; nil: it can.
func (r *resolution) refusal(oneWay bool) error {
	if r.unfit == nil || oneWay && !r.never {
		return nil
	}
	return r.refuse()
}

// refuse returns the error of a call that does not fit.
//
//go:noinline
func (r *resolution) refuse() error {
	m, p := r.unfit, r.proc
	return Errorf(InvalidArgument, "yonder: %q: the signatures do not fit: %s\n\tcaller: %s\n\tcallee: %s",
		p.Name, m.reason, m.caller, clip(p.plan.Signature().GoNamed(p.Params), maxShown))
}

// pair is the argument and the result of a call, which is used again where nobody can have
// kept it.
type pair[Req, Resp any] struct {
	spare *sync.Pool
	req   Req
	resp  Resp
	args  [1]any
}

// Release lets another call have it.
func (p *pair[Req, Resp]) Release() {
	*p = pair[Req, Resp]{spare: p.spare}
	p.spare.Put(p)
}

// pools has what is used again, by type.
type pools struct {
	mu  sync.Mutex
	all map[reflect.Type]*sync.Pool
}

func (p *pools) of(t reflect.Type) *sync.Pool {
	p.mu.Lock()
	defer p.mu.Unlock()
	pool := p.all[t]
	if pool == nil {
		if p.all == nil {
			p.all = make(map[reflect.Type]*sync.Pool)
		}
		pool = new(sync.Pool)
		p.all[t] = pool
	}
	return pool
}

// Handle registers f under a name, as Register does, on a path that takes no
// reflection to call it. Req and Resp must be plain values, not streams, readers or
// functions. It panics where Register does.
func Handle[Req, Resp any](s *Server, name string, f func(ctx context.Context, req Req) (Resp, error)) {
	p := newProcedure(Procedure{Name: name, Func: f})
	if !p.plan.Plain {
		panic(fmt.Sprintf("yonder: handle %q: %T has streams, readers or functions, which Handle does not take; use Register", name, f))
	}
	spare := s.pools.of(reflect.TypeFor[pair[Req, Resp]]())
	p.run = func(ctx context.Context, call *Call) error {
		v, _ := spare.Get().(*pair[Req, Resp])
		if v == nil {
			v = &pair[Req, Resp]{spare: spare}
		}
		call.used = v
		switch {
		case call.source != nil:
			if err := call.source.argument(call, &v.req); err != nil {
				return err
			}
			// For interceptors that look at it, or call again: it can be decoded once.
			v.args[0] = &v.req
			call.args, call.indirect, call.source = v.args[:], true, nil
		case call.in != nil:
			v.req, _ = call.in[0].Interface().(Req) // nil is of no type, not even of an interface's
		default:
			if err := adopt(call, p.plan, &v.req); err != nil {
				return err
			}
		}
		resp, err := f(ctx, v.req)
		if err != nil {
			return err
		}
		v.resp = resp
		call.result = &v.resp
		return nil
	}
	s.add(p)
}

// unsuitableName says why a procedure cannot have a name; "": it can.
func unsuitableName(name string) string {
	switch {
	case name == "":
		return "the name is empty"
	case len(name) > maxName:
		return fmt.Sprintf("the name is longer than %d bytes", maxName)
	case strings.HasPrefix(name, "yonder."):
		return "names that begin with \"yonder.\" are yonder's own"
	}
	return ""
}
