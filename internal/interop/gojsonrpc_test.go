package interop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creachadair/jrpc2"
	"github.com/creachadair/jrpc2/channel"
	"github.com/creachadair/jrpc2/handler"
	"github.com/creachadair/jrpc2/jhttp"
	"github.com/gorilla/websocket"
	"github.com/sourcegraph/jsonrpc2"
	socket "github.com/sourcegraph/jsonrpc2/websocket"
	"go.uber.org/goleak"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/jsonrpc"
)

// cancelHook is how a client of jrpc2 tells a server that a call is over: what the library knows
// of that is only its own side's.
func cancelHook(c *jrpc2.Client, r *jrpc2.Response) {
	c.Notify(context.Background(), "rpc.cancel", map[string]json.RawMessage{"id": json.RawMessage(r.ID())})
}

// Clients of github.com/creachadair/jrpc2 call yonder.
func TestJRPC2Clients(t *testing.T) {
	stream := func(framing channel.Framing) func(t *testing.T, address string) channel.Channel {
		return func(t *testing.T, address string) channel.Channel {
			conn := dial(t, address)
			return framing(conn, conn)
		}
	}
	for _, e := range []struct {
		name string
		dial func(t *testing.T, address string) channel.Channel
	}{
		{"lines", stream(channel.Line)},
		{"JSON", stream(channel.RawJSON)},
		{"header", stream(channel.Header(""))},
		{"LSP", stream(channel.LSP)},
		{"HTTP", func(t *testing.T, address string) channel.Channel {
			return jhttp.NewChannel("http://"+address+"/jsonrpc", &jhttp.ChannelOptions{Client: newHTTP(t)})
		}},
	} {
		t.Run(e.name, func(t *testing.T) {
			p := openPlain(t)
			c := jrpc2.NewClient(e.dial(t, p.address), &jrpc2.ClientOptions{OnCancel: cancelHook})
			defer c.Close()
			ctx := t.Context()
			var hello, wire string
			if err := c.CallResult(ctx, "HelloService.Hello", []any{"jrpc2"}, &hello); hello != "Hello, jrpc2" || err != nil {
				t.Errorf("%q, %v", hello, err)
			}
			if err := c.CallResult(ctx, "Wire.Name", []any{0}, &wire); wire != "jsonrpc" || err != nil {
				t.Errorf("it is served as %q, %v", wire, err)
			}
			var difference int
			if err := c.CallResult(ctx, "subtract", map[string]int{"subtrahend": 23, "minuend": 42}, &difference); difference != 19 || err != nil {
				t.Errorf("by name: %d, %v", difference, err)
			}
			// A result that a client reads as lines, and larger than one read.
			text := strings.Repeat("ünïcode\n", 20_000)
			var echo string
			if err := c.CallResult(ctx, "echo", []any{text}, &echo); echo != text || err != nil {
				t.Errorf("a large text: %d bytes, %v", len(echo), err)
			}

			for _, f := range []struct {
				method string
				params any
				code   jrpc2.Code
				text   string
			}{
				{"No.Method", nil, jrpc2.MethodNotFound, "Method not found"},
				{"subtract", []any{"x", 1}, jrpc2.InvalidParams, "subtract"},
				{"Errors.NotFound", []any{"tea"}, jsonrpc.ServerError - jrpc2.Code(yonder.NotFound), "there is no tea"},
				{"Errors.Own", nil, 7, "own"},
				{"Errors.Panic", nil, jrpc2.InternalError, "panic"},
			} {
				_, err := c.Call(ctx, f.method, f.params)
				if known, ok := errors.AsType[*jrpc2.Error](err); !ok || known.Code != f.code || !strings.Contains(known.Message, f.text) {
					t.Errorf("%s: %v, want %d %q", f.method, err, f.code, f.text)
				}
				if known, _ := errors.AsType[*jrpc2.Error](err); f.method == "Errors.Own" && string(known.Data) != `{"a":1}` {
					t.Errorf("data: %s", known.Data)
				}
			}

			if err := c.Notify(ctx, "Notes.Note", []string{"noted"}); err != nil {
				t.Error(err)
			}
			p.wantNotes(t, "noted")
			answers, err := c.Batch(ctx, []jrpc2.Spec{
				{Method: "subtract", Params: []int{5, 3}},
				{Method: "Notes.Note", Params: []string{"in a batch"}, Notify: true},
				{Method: "No.Method"},
				{Method: "HelloService.Hello", Params: []string{"batch"}},
			})
			if err != nil || len(answers) != 3 || answers[0].ResultString() != "2" || answers[1].Error() == nil || answers[2].ResultString() != `"Hello, batch"` {
				t.Errorf("a batch: %v, %v", answers, err)
			}
			p.wantNotes(t, "in a batch")
			p.wantNoNote(t)

			var wg sync.WaitGroup
			for i := range 50 {
				wg.Go(func() {
					var got int
					if err := c.CallResult(ctx, "subtract", []int{2 * i, i}, &got); got != i || err != nil {
						t.Errorf("%d, %v, want %d", got, err, i)
					}
				})
			}
			wg.Wait()

			if e.name == "HTTP" {
				return // the library goes on with the request of a call whose context has ended
			}
			ctx, cancel := context.WithCancel(ctx)
			failed := make(chan error, 1)
			go func() { // ends with cancel
				_, err := c.Call(ctx, "Wait.Wait", []any{0})
				failed <- err
			}()
			p.begun(t, "jsonrpc")
			cancel()
			if err := <-failed; err == nil {
				t.Error("a cancelled call succeeded")
			}
			p.over(t)
		})
	}
}

// Clients of github.com/sourcegraph/jsonrpc2 call yonder.
func TestSourcegraphClients(t *testing.T) {
	for _, e := range []struct {
		name string
		dial func(t *testing.T, address string) jsonrpc2.ObjectStream
	}{
		{"plain", func(t *testing.T, address string) jsonrpc2.ObjectStream {
			return jsonrpc2.NewPlainObjectStream(dial(t, address))
		}},
		{"header", func(t *testing.T, address string) jsonrpc2.ObjectStream {
			return jsonrpc2.NewBufferedStream(dial(t, address), jsonrpc2.VSCodeObjectCodec{})
		}},
		{"WebSocket", func(t *testing.T, address string) jsonrpc2.ObjectStream {
			ws, _, err := new(websocket.Dialer).DialContext(t.Context(), "ws://"+address+"/jsonrpc", nil)
			if err != nil {
				t.Fatal(err)
			}
			return socket.NewObjectStream(ws)
		}},
	} {
		t.Run(e.name, func(t *testing.T) {
			p := openHasty(t)
			none := jsonrpc2.HandlerWithError(func(context.Context, *jsonrpc2.Conn, *jsonrpc2.Request) (any, error) {
				return nil, &jsonrpc2.Error{Code: jsonrpc2.CodeMethodNotFound, Message: "none"}
			})
			ctx := t.Context()
			c := jsonrpc2.NewConn(ctx, e.dial(t, p.address), none)
			defer func() { c.Close(); <-c.DisconnectNotify() }()
			var hello, wire string
			if err := c.Call(ctx, "HelloService.Hello", []any{"sourcegraph"}, &hello); hello != "Hello, sourcegraph" || err != nil {
				t.Errorf("%q, %v", hello, err)
			}
			if err := c.Call(ctx, "Wire.Name", []any{0}, &wire); wire != "jsonrpc" || err != nil {
				t.Errorf("it is served as %q, %v", wire, err)
			}
			var difference int
			if err := c.Call(ctx, "subtract", map[string]int{"subtrahend": 23, "minuend": 42}, &difference, jsonrpc2.StringID()); difference != 19 || err != nil {
				t.Errorf("by name: %d, %v", difference, err)
			}
			// A member of the library's own does no harm.
			if err := c.Call(ctx, "subtract", []int{3, 1}, &difference, jsonrpc2.ExtraField("sessionId", "x")); difference != 2 || err != nil {
				t.Errorf("an extra member: %d, %v", difference, err)
			}
			for method, code := range map[string]int64{
				"No.Method": jsonrpc2.CodeMethodNotFound, "Errors.Own": 7, "subtract": jsonrpc2.CodeInvalidParams, "Errors.Panic": jsonrpc2.CodeInternalError,
			} {
				err := c.Call(ctx, method, nil, new(any))
				if known, ok := errors.AsType[*jsonrpc2.Error](err); !ok || known.Code != code {
					t.Errorf("%s: %v, want %d", method, err, code)
				}
			}
			if err := c.Notify(ctx, "Notes.Note", []string{"noted"}); err != nil {
				t.Error(err)
			}
			p.wantNotes(t, "noted")
			p.wantNoNote(t)

			// The library has the caller cancel.
			id := jsonrpc2.ID{Str: "mine", IsString: true}
			waiter, err := c.DispatchCall(ctx, "Wait.Wait", []any{0}, jsonrpc2.PickID(id))
			if err != nil {
				t.Fatal(err)
			}
			p.begun(t, "jsonrpc")
			if err := c.Notify(ctx, "$/cancelRequest", map[string]any{"id": id}); err != nil {
				t.Error(err)
			}
			if err := waiter.Wait(ctx, new(any)); err == nil {
				t.Error("a cancelled call succeeded")
			}
			p.over(t)
			// One that is in flight when the connection ends.
			if _, err := c.DispatchCall(ctx, "Wait.Wait", []any{0}); err != nil {
				t.Fatal(err)
			}
			p.begun(t, "jsonrpc")
			c.Close()
			p.over(t)
		})
	}
}

// jrpc2Methods are what the servers of TestJRPC2Servers have.
func jrpc2Methods(began, over chan string) handler.Map {
	return handler.Map{
		"subtract": handler.NewPos(func(_ context.Context, a, b int) int { return a - b }, "minuend", "subtrahend"),
		"echo":     handler.New(func(_ context.Context, v []any) any { return v[0] }),
		"fail": handler.New(func(context.Context) error {
			return jrpc2.Errorf(7, "own").WithData(map[string]int{"a": 1})
		}),
		"note": handler.New(func(_ context.Context, text []string) error { over <- text[0]; return nil }),
		"wait": handler.New(func(ctx context.Context) error {
			began <- "wait"
			<-ctx.Done()
			over <- "wait"
			return ctx.Err()
		}),
		"rpc.cancel": handler.New(func(ctx context.Context, params struct {
			ID json.RawMessage `json:"id"`
		}) error {
			jrpc2.ServerFromContext(ctx).CancelRequest(string(params.ID))
			return nil
		}),
		"$/cancelRequest": handler.New(func(ctx context.Context, params struct {
			ID json.RawMessage `json:"id"`
		}) error {
			jrpc2.ServerFromContext(ctx).CancelRequest(string(params.ID))
			return nil
		}),
	}
}

// Yonder's clients call servers of github.com/creachadair/jrpc2.
func TestJRPC2Servers(t *testing.T) {
	for _, e := range []struct {
		name    string
		framing channel.Framing // nil: HTTP
		dialer  jsonrpc.Dialer
	}{
		{"lines", channel.Line, jsonrpc.Dialer{Strict: true}},
		{"header", channel.Header(""), jsonrpc.Dialer{Strict: true, ContentLength: true}},
		{"LSP", channel.LSP, jsonrpc.Dialer{Strict: true, ContentLength: true}},
		{"HTTP", nil, jsonrpc.Dialer{Strict: true}},
	} {
		t.Run(e.name, func(t *testing.T) {
			before := goleak.IgnoreCurrent()
			t.Cleanup(func() { goleak.VerifyNone(t, before) })
			began, over := make(chan string, 10), make(chan string, 10)
			options := &jrpc2.ServerOptions{DisableBuiltin: true, Concurrency: 10}
			var url string
			if e.framing == nil {
				bridge := jhttp.NewBridge(jrpc2Methods(began, over), &jhttp.BridgeOptions{Server: options})
				web := httptest.NewServer(bridge)
				t.Cleanup(func() { web.Close(); bridge.Close() })
				url = web.URL
			} else {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				var serving sync.WaitGroup
				serving.Go(func() {
					for {
						conn, err := l.Accept()
						if err != nil {
							return
						}
						srv := jrpc2.NewServer(jrpc2Methods(began, over), options).Start(e.framing(conn, conn))
						serving.Go(func() { srv.Wait() })
					}
				})
				t.Cleanup(func() { l.Close(); serving.Wait() })
				url = "tcp://" + l.Addr().String()
			}
			c, err := e.dialer.Dial(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			var subtract func(ctx context.Context, minuend, subtrahend int) (int, error)
			c.Bind("subtract", &subtract)
			if got, err := subtract(t.Context(), 42, 23); got != 19 || err != nil {
				t.Errorf("%d, %v", got, err)
			}
			if got, err := yonder.Invoke[int](t.Context(), c, "subtract", jsonrpc.Params(`{"subtrahend":23,"minuend":42}`)); got != 19 || err != nil {
				t.Errorf("by name: %d, %v", got, err)
			}
			text := strings.Repeat("ünïcode\n", 20_000)
			if got, err := yonder.Invoke[string](t.Context(), c, "echo", text); got != text || err != nil {
				t.Errorf("a large text: %d bytes, %v", len(got), err)
			}
			_, err = yonder.Invoke[any](t.Context(), c, "fail")
			if own, ok := errors.AsType[*jsonrpc.Error](err); !ok || own.Code != 7 || own.Message != "own" || fmt.Sprintf("%s", own.Data) != `{"a":1}` {
				t.Errorf("an error: %#v", err)
			}
			if _, err := yonder.Invoke[any](t.Context(), c, "none"); yonder.CodeOf(err) != yonder.Unimplemented || !yonder.IsRemote(err) {
				t.Errorf("no such method: %v", err)
			}
			if _, err := yonder.Invoke[int](t.Context(), c, "subtract", "x", 1); yonder.CodeOf(err) != yonder.InvalidArgument {
				t.Errorf("parameters that do not fit: %v", err)
			}
			call := yonder.NewCall("note", "noted")
			call.OneWay = true
			if err := c.Call(t.Context(), call); err != nil {
				t.Error(err)
			}
			if got := <-over; got != "noted" {
				t.Errorf("notified of %q", got)
			}
			var wg sync.WaitGroup
			for i := range 50 {
				wg.Go(func() {
					if got, err := subtract(t.Context(), 2*i, i); got != i || err != nil {
						t.Errorf("%d, %v, want %d", got, err, i)
					}
				})
			}
			wg.Wait()

			ctx, cancel := context.WithCancel(t.Context())
			failed := make(chan error, 1)
			go func() { // ends with cancel
				_, err := yonder.Invoke[any](ctx, c, "wait")
				failed <- err
			}()
			<-began
			cancel()
			if err := <-failed; yonder.CodeOf(err) != yonder.Canceled {
				t.Errorf("a cancelled call: %v", err)
			}
			if e.framing == nil {
				return // the library's bridge does not pass on that a request's connection has ended
			}
			select {
			case <-over:
			case <-time.After(patience):
				t.Error("the handler is not told")
			}
		})
	}
}
