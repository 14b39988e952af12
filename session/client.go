package session

import (
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"time"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/internal/fn"
)

// A Client calls the functions of the server at the other end of a connection. Its methods may
// be used by several goroutines at once, and so may the functions that Call has bound: their
// calls are on the connection at the same time, and are answered in order.
type Client struct {
	// Timeout bounds a call whose function takes no context. Zero: no bound. It must not be
	// changed once functions are called.
	//
	// Some servers answer one request on a connection and neither read another nor close it.
	// Only a Timeout, or a context, ends a second call there.
	Timeout time.Duration

	client *yonder.Client
}

// NewClient returns a client over conn, which it owns from then on. It panics if conn is nil, as
// what net.Dial returns with an error is. It cannot connect again when conn is lost: calls return
// an error that says so. [Dial] makes clients that can.
func NewClient(conn net.Conn) *Client {
	if conn == nil {
		panic("session: new client: the connection is nil; see what net.Dial has returned with it")
	}
	return &Client{client: Over(new(yonder.Dialer), conn)}
}

// Close closes the connection. Calls in flight fail.
func (c *Client) Close() error { return c.client.Close() }

// Call makes the func variable that funcPtr points to call a function of the server's. It makes
// no call itself. A first parameter that is a context is not sent, but ends the call for the
// caller.
//
// If the function's last result is an error, it is whatever makes a call fail, the server's
// error or the connection's. If it is none, a call that fails panics with an error that says so:
// there is no other way to tell the caller. Call panics if funcPtr is not a pointer to a func
// variable, or to one whose arguments or results cannot cross a connection.
func (c *Client) Call(name string, funcPtr interface{}) {
	v := reflect.ValueOf(funcPtr)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Func {
		panic(fmt.Sprintf("session: call %q: %T is not a pointer to a func variable; use &f, where f is declared as var f func(...) (..., error)", name, funcPtr))
	}
	t := v.Elem().Type()
	plan, err := plainType(t)
	if err != nil {
		panic(fmt.Sprintf("session: call %q: %v", name, err))
	}
	v.Elem().Set(reflect.MakeFunc(t, func(args []reflect.Value) []reflect.Value {
		ctx := context.Background()
		if plan.Context {
			if given, ok := args[0].Interface().(context.Context); ok {
				ctx = given
			}
			args = args[1:]
		} else if c.Timeout > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, c.Timeout)
			defer cancel()
		}
		results, err := c.call(ctx, name, plan, args)
		switch {
		case plan.Error && err != nil:
			results = append(results, reflect.ValueOf(&err).Elem())
		case plan.Error:
			results = append(results, reflect.Zero(t.Out(t.NumOut()-1)))
		case err != nil:
			panic(fmt.Errorf("session: a call has failed, and the function has no error result to say so: %w", err))
		}
		return results
	}))
}

// call makes a call. With an error, the results are zero values.
func (c *Client) call(ctx context.Context, name string, plan *fn.Func, args []reflect.Value) ([]reflect.Value, error) {
	var values []any
	for i, arg := range args {
		if plan.Variadic && i == len(args)-1 {
			for j := range arg.Len() {
				values = append(values, arg.Index(j).Interface())
			}
			break
		}
		values = append(values, arg.Interface())
	}
	results := make([]reflect.Value, len(plan.Results))
	places := make([]any, len(results))
	for i := range results {
		p := reflect.New(plan.Results[i].Type)
		results[i], places[i] = p.Elem(), p.Interface()
	}
	err := c.client.Call(ctx, yonder.NewCall(name, values...).Into(places...))
	if err != nil {
		for _, r := range results {
			r.SetZero()
		}
	}
	return results, err
}

// plain checks that f is a function that this protocol can carry.
func plain(f any) (*fn.Func, error) {
	if v := reflect.ValueOf(f); v.Kind() != reflect.Func || v.IsNil() {
		return nil, fmt.Errorf("%T is not a function, or it is nil", f)
	}
	return plainType(reflect.TypeOf(f))
}

func plainType(t reflect.Type) (*fn.Func, error) {
	plan, err := fn.Callee(t)
	if err == nil && !plan.Plain {
		err = errors.New("it has streams, readers or functions, which this protocol cannot carry; use yonder's own")
	}
	return plan, err
}
