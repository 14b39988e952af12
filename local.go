package yonder

import (
	"context"
	"io"
	"reflect"
	"sync/atomic"

	"github.com/yonder-rpc/yonder/internal/fn"
	"github.com/yonder-rpc/yonder/internal/mux"
)

// resolveLocal finds what a client of [Local] calls, once.
func (c *Client) resolveLocal(r *ref) (*resolution, error) {
	if res := r.resolved.Load(); res != nil {
		return res, nil
	}
	proc, err := c.local.lookup(r.Name)
	if err != nil {
		return nil, localError(err)
	}
	sig, err := fn.Parse(r.Signature)
	if err != nil {
		return nil, localError(err)
	}
	res, err := proc.resolve(sig)
	if err != nil {
		return nil, localError(err)
	}
	r.resolved.Store(res)
	return res, nil
}

// callLocal is send for a server in the same process.
func (c *Client) callLocal(ctx context.Context, call *Call) error {
	if ctx.Err() != nil {
		return contextFailure(ctx, quoted(call))
	}
	if c.local.refuses.Load() {
		return Errorf(Unavailable, "yonder: %s: %w", quoted(call), ErrServerClosed)
	}
	res, err := c.resolveLocal(call.ref)
	if err != nil {
		return err
	}
	if ctx.Done() == nil && !call.OneWay {
		if err := c.serveLocal(ctx, call, res); err != nil {
			return err
		}
		return call.settle(call)
	}
	// A caller that gives up returns at once, so the handler has a goroutine and a call
	// of its own.
	own := *call
	if call.OneWay {
		go c.serveLocal(context.WithoutCancel(ctx), &own, res) // ends with the handler
		return nil
	}
	done := make(chan error, 1)
	go func() { done <- c.serveLocal(ctx, &own, res) }() // ends with the handler
	select {
	case err = <-done:
	case <-ctx.Done():
		return contextFailure(ctx, quoted(call))
	}
	call.Reply = own.Reply
	if err != nil {
		return err
	}
	return call.settle(&own)
}

// serveLocal has the server do the call.
func (c *Client) serveLocal(ctx context.Context, call *Call, res *resolution) error {
	call.proc, call.resolved = res.proc, res
	call.context = localContext{ctx, call}
	if !call.plan.Plain {
		call.over = new(atomic.Bool)
		if !hasStreams(res.proc.plan.Results) { // else callbacks are good as long as these
			defer call.over.Store(true)
		}
	}
	if err := c.local.Call(&call.context, call); err != nil {
		return localError(err)
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
	if own, ok := err.(*Error); ok {
		e.Details = own.Details
	}
	return e
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
		v, err := served.adapt(from, &served.proc.plan.Results[i], &c.plan.Results[i])
		if err != nil {
			return Errorf(Internal, "yonder: %s: result %d: %w", quoted(c), i+1, err)
		}
		to.Set(v)
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
				v, err := call.adapt(call.arg(j), &call.plan.Args[j], &elem)
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
		v, err := call.adapt(call.arg(i), &call.plan.Args[i], slot)
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
	in, err := adoptAll(call, plan)
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

// adapt returns a value of one end's type as the other end's: itself if the types are
// the same, and otherwise what would have arrived over a connection.
func (c *Call) adapt(v reflect.Value, from, to *fn.Slot) (reflect.Value, error) {
	switch {
	case from.Kind == fn.Value:
		if v.IsValid() && v.Type() == to.Type {
			return v, nil
		}
		return transcode(v, from, to.Type)
	case !v.IsValid() || v.IsNil():
		return reflect.Zero(to.Type), nil
	case from.Kind == fn.Callback:
		return c.adaptCallback(v, from.Func, to.Func), nil
	case from.Kind == fn.Reader || from.Kind == fn.ReadCloser:
		return adaptReader(v, to), nil
	}
	used := new(atomic.Bool)
	elem, into := fn.Slot{Type: from.Elem, Walk: from.Walk}, fn.Slot{Type: to.Elem}
	return to.Iter(func(yield func(reflect.Value) bool) (err error) {
		if used.Swap(true) {
			return errUsed(c.Procedure)
		}
		var failed error
		err = from.Range(v, func(e reflect.Value) bool {
			if err := c.context.Err(); err != nil {
				failed = contextFailure(&c.context, "stream of \""+c.Procedure+"\"")
				return false
			}
			var adapted reflect.Value
			if adapted, failed = c.adapt(e, &elem, &into); failed != nil {
				return false
			}
			return yield(adapted)
		})
		if err != nil {
			return localError(err)
		}
		return failed
	}), nil
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
func (c *Call) adaptCallback(f reflect.Value, from, to *fn.Func) reflect.Value {
	return to.Make(func(ctx context.Context, args, results []reflect.Value) error {
		if c.over.Load() {
			return errOver(c.Procedure)
		}
		if ctx == nil {
			ctx = &c.context
		}
		call := &Call{Procedure: c.Procedure, plan: to, over: c.over, resolved: &resolution{}}
		call.setFunc(args, results)
		call.context = localContext{ctx, call}
		call.proc = &procedure{plan: from, fv: f}
		if err := call.proc.invoke(&call.context, call); err != nil {
			return localError(err)
		}
		return call.settle(call)
	})
}

// adaptReader returns a reader as the type that the other end has for it.
func adaptReader(v reflect.Value, to *fn.Slot) reflect.Value {
	r := v.Interface().(io.Reader)
	if _, ok := r.(io.Closer); !ok && to.Kind == fn.ReadCloser {
		r = io.NopCloser(r)
	}
	return reflect.ValueOf(r)
}
