package fn

import (
	"context"
	"reflect"
)

// Make returns a function of f's type that does what call does. call gets the
// context, nil if the function takes none, and the arguments. It returns one value for each
// of f.Results, or an error. f must be one that [Caller] accepts.
func (f *Func) Make(call func(ctx context.Context, args []reflect.Value) ([]reflect.Value, error)) reflect.Value {
	return reflect.MakeFunc(f.Type, func(in []reflect.Value) []reflect.Value {
		var ctx context.Context
		if f.Context {
			ctx, _ = in[0].Interface().(context.Context)
			copy(in, in[1:]) // not in[1:], so that the results find room there
			in = in[:len(in)-1]
		}
		results, err := call(ctx, in)
		if err != nil {
			return f.failure(err)
		}
		return append(results, noError)
	})
}

var noError = reflect.Zero(errorType)

// failure returns the results of a function of f's type that has failed.
func (f *Func) failure(err error) []reflect.Value {
	results := make([]reflect.Value, 0, len(f.Results)+1)
	for i := range f.Results {
		results = append(results, reflect.Zero(f.Results[i].Type))
	}
	return append(results, reflect.ValueOf(&err).Elem())
}

// NewResults returns a zero value for each of f.Results, and appends pointers to them to
// places. It takes the memory of the arguments that [Func.Make] gave, which must be used up.
func (f *Func) NewResults(args []reflect.Value, places []any) ([]reflect.Value, []any) {
	results := args[:0]
	for i := range f.Results {
		p := reflect.New(f.Results[i].Type)
		results, places = append(results, p.Elem()), append(places, p.Interface())
	}
	return results, places
}
