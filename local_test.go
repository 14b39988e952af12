package yonder_test

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/yonder-rpc/yonder"
)

// loopError wraps itself.
type loopError struct{}

func (loopError) Error() string   { return "loop" }
func (e loopError) Unwrap() error { return e }

// TestEndlessContext: a call whose context cannot end is like any other, though in the same process
// it takes a path of its own.
func TestEndlessContext(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		srv := &yonder.Server{Logger: logger(t)}
		var seen context.Context
		var info yonder.CallInfo
		serve := func(ctx context.Context, what string) (any, error) {
			seen = ctx
			switch what {
			case "info":
				info, _ = yonder.InfoFrom(ctx)
				if again, _ := yonder.InfoFrom(context.WithValue(ctx, loopError{}, 1)); again.Procedure != info.Procedure {
					t.Errorf("%+v in a context derived from that of %+v", again, info)
				}
				if out, reply := yonder.Outgoing(ctx); out != nil || reply != nil {
					t.Errorf("the handler's own calls would carry %v and reply to %p", out, reply)
				}
				yonder.SetReply(ctx, "answer", "metadata")
			case "error":
				yonder.SetReply(ctx, "answer", "of an error")
				return "dropped", yonder.Errorf(yonder.NotFound, "nothing: %w", io.EOF)
			case "loop":
				return "dropped", loopError{}
			case "panic":
				panic("by the handler")
			case "nil":
				return nil, nil
			}
			return what, nil
		}
		yonder.Handle(srv, "generic", serve)
		srv.Register("bound", serve)
		srv.Register("wide", func(n int64) (int64, error) { return n + 1, nil })
		c := m.client(t, srv)
		for _, name := range []string{"generic", "bound"} {
			var bound func(context.Context, string) (any, error)
			c.Bind(name, &bound)
			for kind, f := range map[string]func(context.Context, string) (any, error){"remote": yonder.Remote[string, any](c, name), "bind": bound} {
				kind += " of " + name
				call := func(what string) (any, yonder.Metadata, error) {
					reply := yonder.Metadata{"old": "one"}
					ctx := yonder.WithReply(yonder.WithMetadata(context.Background(), "key", "value"), &reply)
					got, err := f(ctx, what)
					if <-seen.Done(); seen.Err() != context.Canceled {
						t.Errorf("%s %s: the handler's context ended with %v", kind, what, seen.Err())
					}
					if after, ok := yonder.InfoFrom(seen); !ok || after.Procedure != name || after.Metadata["key"] != "value" {
						t.Errorf("%s %s: after the call: %+v, %v", kind, what, after, ok)
					}
					return got, reply, err
				}
				for range 2 { // the first call finds the procedure; the second may have its memory
					if got, reply, err := call("value"); got != "value" || reply != nil || err != nil {
						t.Errorf("%s: %v, %v, %v", kind, got, reply, err)
					}
				}
				if got, _, err := call("nil"); got != nil || err != nil {
					t.Errorf("%s: nil: %v, %v", kind, got, err)
				}
				_, reply, err := call("info")
				if diff := cmp.Diff(yonder.Metadata{"answer": "metadata"}, reply); diff != "" || err != nil {
					t.Errorf("%s: info: %v\n%s", kind, err, diff)
				}
				if diff := cmp.Diff(yonder.Metadata{"key": "value"}, info.Metadata); diff != "" || info.Procedure != name {
					t.Errorf("%s: info: %+v\n%s", kind, info, diff)
				}
				got, reply, err := call("error")
				if got != nil || yonder.CodeOf(err) != yonder.NotFound || !errors.Is(err, io.EOF) || !yonder.IsRemote(err) || reply["answer"] != "of an error" {
					t.Errorf("%s: error: %v, %v, %v", kind, got, reply, err)
				}
				if got, _, err := call("loop"); got != nil || yonder.CodeOf(err) != yonder.Unknown || !yonder.IsRemote(err) {
					t.Errorf("%s: loop: %v, %v", kind, got, err)
				}
				if got, reply, err := call("panic"); got != nil || yonder.CodeOf(err) != yonder.Internal || !yonder.IsRemote(err) || reply != nil {
					t.Errorf("%s: panic: %v, %v, %v", kind, got, reply, err)
				}
			}
		}
		var narrow func(n int) (int, error) // not the procedure's own types
		c.Bind("wide", &narrow)
		for range 2 {
			if got, err := narrow(1); got != 2 || err != nil {
				t.Errorf("adapted: %v, %v", got, err)
			}
		}
	})
}
