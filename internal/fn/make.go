package fn

import (
	"context"
	"reflect"
)

// Make returns a function of f's type that does what call does. call gets the
// context, nil if the function takes none, the arguments, and for each result a
// pointer to where it goes. f must be one that [Caller] accepts.
func (f *Func) Make(call func(ctx context.Context, args, results []any) error) reflect.Value {
	return reflect.MakeFunc(f.Type, func(in []reflect.Value) []reflect.Value {
		var ctx context.Context
		if f.Context {
			ctx, _ = in[0].Interface().(context.Context)
			in = in[1:]
		}
		n := len(f.Results)
		places := make([]any, len(in)+n)
		args, results := places[:len(in):len(in)], places[len(in):]
		for i, v := range in {
			args[i] = v.Interface()
		}
		out := make([]reflect.Value, n+1)
		for i := range f.Results {
			v := reflect.New(f.Results[i].Type)
			results[i] = v.Interface()
			out[i] = v.Elem()
		}
		if err := call(ctx, args, results); err != nil {
			for i := range f.Results {
				out[i].SetZero() // a result may have been decoded before the error was found
			}
			out[n] = reflect.ValueOf(&err).Elem()
		} else {
			out[n] = noError
		}
		return out
	})
}

var noError = reflect.Zero(reflect.TypeFor[error]())
