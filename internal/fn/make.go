package fn

import (
	"context"
	"reflect"
)

// Make returns a function of f's type that does what call does. call gets the
// context, nil if the function takes none, the arguments, and the results to set,
// without the error. f must be one that [Caller] accepts.
func (f *Func) Make(call func(ctx context.Context, args, results []reflect.Value) error) reflect.Value {
	return reflect.MakeFunc(f.Type, func(in []reflect.Value) []reflect.Value {
		var ctx context.Context
		if f.Context {
			ctx, _ = in[0].Interface().(context.Context)
			in = in[1:]
		}
		n := len(f.Results)
		out := make([]reflect.Value, n+1)
		for i := range n {
			out[i] = reflect.New(f.Results[i].Type).Elem()
		}
		if err := call(ctx, in, out[:n]); err != nil {
			for i := range n {
				out[i].SetZero() // it may have been set before the error was found
			}
			out[n] = reflect.ValueOf(&err).Elem()
		} else {
			out[n] = noError
		}
		return out
	})
}

var noError = reflect.Zero(reflect.TypeFor[error]())
