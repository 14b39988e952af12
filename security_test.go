package yonder_test

import (
	"context"
	"encoding/gob"
	"fmt"
	"log/slog"
	"net/http"
	stdrpc "net/rpc"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/jsonrpc"
	"github.com/yonder-rpc/yonder/net/rpc"
	"github.com/yonder-rpc/yonder/session"
	"github.com/yonder-rpc/yonder/web"
)

// Sealed counts how often one of it is decoded.
type Sealed struct{ text string }

var unsealed atomic.Int32

func (s Sealed) MarshalText() ([]byte, error) { return []byte(s.text), nil }

func (s *Sealed) UnmarshalText(text []byte) error {
	unsealed.Add(1)
	s.text = string(text)
	return nil
}

// For package gob, which does not ask for text.
func (s Sealed) GobEncode() ([]byte, error)      { return s.MarshalText() }
func (s *Sealed) GobDecode(encoded []byte) error { return s.UnmarshalText(encoded) }

// What an interceptor refuses has not been decoded, whatever protocol brought it, so a
// stranger's bytes do not reach a type's own decoding methods.
func TestInterceptorsBeforeArguments(t *testing.T) {
	gob.Register(Sealed{})
	runAll(t, func(t *testing.T, m mode) {
		m.cannot(t, inProcess, "nothing is encoded")
		refuses := true
		srv := &yonder.Server{Interceptors: []yonder.Interceptor{func(next yonder.Handler) yonder.Handler {
			return func(ctx context.Context, call *yonder.Call) error {
				if refuses {
					return yonder.Errorf(yonder.PermissionDenied, "not today")
				}
				return next(ctx, call)
			}
		}}}
		srv.Register("open", func(s Sealed) string { return s.text })
		client := m.client(t, srv)
		var open func(ctx context.Context, s Sealed) (string, error)
		client.Bind("open", &open)
		unsealed.Store(0)
		for range 3 {
			if _, err := open(t.Context(), Sealed{"letter"}); err == nil || !strings.Contains(err.Error(), "not today") {
				t.Errorf("a refused call returned %v", err)
			}
		}
		if n := unsealed.Load(); n != 0 {
			t.Errorf("the argument of a call that was refused has been decoded %d times", n)
		}
		refuses = false // no call is in flight
		if text, err := open(t.Context(), Sealed{"letter"}); text != "letter" || err != nil {
			t.Errorf("%q, %v", text, err)
		}
		if n := unsealed.Load(); n == 0 {
			t.Error("this test cannot fail: the type's own method does not decode it")
		}
	})
}

// A procedure exists for the protocols that it is for, and for others not even in what is said of
// procedures that there are not.
func TestExposure(t *testing.T) {
	srv := &yonder.Server{
		Protocols: []yonder.Protocol{rpc.Protocol, jsonrpc.Protocol, session.Protocol, web.Protocol},
		Logger:    logger(t),
	}
	for name, protocols := range map[string][]string{
		"all": nil, "none": {}, "native": {"yonder"}, "nativeWeb": {"yonder", "http"},
		"lines": {"jsonrpc"}, "posts": {"jsonrpc", "http"}, "gob": {"netrpc"}, "gobWeb": {"netrpc", "http"},
		"frames": {"session"}, "here": {"local"}, "web": {"http"},
	} {
		srv.Add(yonder.Procedure{Name: name, Func: func() string { return "called" }, Protocols: protocols})
	}
	address := overTCP.serve(t, srv)
	host := strings.TrimPrefix(address, "tcp://")
	ctx := t.Context()
	closed := func(c *yonder.Client, err error) *yonder.Client {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	stock := func(dial func(network, address string) (*stdrpc.Client, error)) func(name string) error {
		c, err := dial("tcp", host)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return func(name string) error { return c.Call(name, struct{}{}, new(string)) }
	}
	calls := func(c *yonder.Client) func(name string) error {
		return func(name string) error {
			_, err := yonder.Invoke[string](ctx, c, name)
			return err
		}
	}
	native, local := closed(yonder.Dial(ctx, address)), yonder.Local(srv)
	socket := closed(web.Dial(ctx, "ws://"+host+"/yonder"))
	frames := func(name string) error {
		_, err := yonder.Invoke[string](ctx, closed(overFrames.dial(t, new(yonder.Dialer), address)), name)
		return err
	}
	for _, tt := range []struct {
		over string
		call func(name string) error
		want string // what there is besides all
	}{
		{"native", calls(native), "native nativeWeb"},
		{"native over a WebSocket", calls(socket), "nativeWeb"},
		{"in the same process", calls(local), "here"},
		{"JSON-RPC over TCP", calls(closed(jsonrpc.Dial(ctx, address))), "lines posts"},
		{"JSON-RPC over HTTP", calls(closed(jsonrpc.Dial(ctx, "http://"+host+"/jsonrpc"))), "posts"},
		{"JSON-RPC over a WebSocket", calls(closed(jsonrpc.Dial(ctx, "ws://"+host+"/jsonrpc"))), "posts"},
		{"net/rpc over TCP", stock(stdrpc.Dial), "gob gobWeb"},
		{"net/rpc over HTTP", stock(stdrpc.DialHTTP), "gobWeb"},
		{"session", frames, "frames"},
	} {
		var have []string
		for _, p := range srv.Procedures() {
			err := tt.call(p.Name)
			if err == nil {
				have = append(have, p.Name)
				continue
			}
			// As it is for a name that there is not, in any case.
			stranger := tt.call("X" + p.Name[1:])
			if want := strings.ReplaceAll(textOf(stranger), "X"+p.Name[1:], p.Name); textOf(err) != want {
				t.Errorf("%s: %s: %q, and of one that there is not %q", tt.over, p.Name, err, want)
			}
			if hint := tt.call(strings.ToUpper(p.Name)); strings.Contains(textOf(hint), `there is "`+p.Name) {
				t.Errorf("%s: %v", tt.over, hint)
			}
		}
		if diff := cmp.Diff(strings.Fields("all "+tt.want), have); diff != "" {
			t.Errorf("%s: -want +got\n%s", tt.over, diff)
		}
	}
	for _, tt := range []struct {
		over string
		c    *yonder.Client
		want string
	}{{"native", native, "all native nativeWeb"}, {"WebSocket", socket, "all nativeWeb"}, {"local", local, "all here"}} {
		list, err := tt.c.Procedures(ctx)
		var have []string
		for _, p := range list {
			have = append(have, p.Name)
		}
		if diff := cmp.Diff(strings.Fields(tt.want), have); diff != "" || err != nil {
			t.Errorf("%s: Procedures: %v, -want +got\n%s", tt.over, err, diff)
		}
	}
	var gone func(ctx context.Context) (string, error)
	native.Bind("frames", &gone)
	if err := native.Check(ctx); yonder.CodeOf(err) != yonder.Unimplemented || strings.Contains(err.Error(), "signatures") {
		t.Errorf("Check: %v", err)
	}
}

// Metadata that is printed or logged shows no secret.
func TestMetadataHidesSecrets(t *testing.T) {
	info := yonder.CallInfo{Metadata: yonder.Metadata{"Authorization": "Bearer s3cret", "user": "ann"}}
	var log logBuffer
	log.logger().Info("call", "info", info, "metadata", info.Metadata, "group", slog.GroupValue(slog.Any("m", info.Metadata)))
	text := fmt.Sprintf("%v %+v %#v %s", info, info, info, info.Metadata) + log.String()
	if strings.Contains(text, "s3cret") || strings.Count(text, "user:ann") != 7 {
		t.Error(text)
	}
}

// What a connection that nobody serves began with may be a request's header.
func TestFirstBytesHideSecrets(t *testing.T) {
	var log logBuffer
	srv := &yonder.Server{Logger: log.logger()}
	host := strings.TrimPrefix(overTCP.serve(t, srv), "tcp://")
	request, _ := http.NewRequestWithContext(t.Context(), "GET", "http://"+host+"/", nil)
	request.Header.Set("Authorization", "Bearer s3cret")
	request.Header["User-Agent"] = nil
	if _, err := http.DefaultClient.Do(request); err == nil {
		t.Fatal("it was served")
	}
	srv.Close()
	if text := log.String(); strings.Contains(text, "s3cret") || !strings.Contains(text, "it began with") {
		t.Error(text)
	}
}

// countedCompression counts what is decompressed.
type countedCompression struct {
	flateCompression
	n *atomic.Int32
}

func (c countedCompression) Decompress(dst, src []byte, limit int) ([]byte, error) {
	c.n.Add(1)
	return c.flateCompression.Decompress(dst, src, limit)
}

// A call that is refused has not been decompressed, either: a few bytes may become many.
func TestInterceptorsBeforeDecompression(t *testing.T) {
	for _, handle := range []bool{false, true} {
		var refuses atomic.Bool
		counted := countedCompression{n: new(atomic.Int32)}
		srv := &yonder.Server{Compression: counted, Interceptors: []yonder.Interceptor{func(next yonder.Handler) yonder.Handler {
			return func(ctx context.Context, call *yonder.Call) error {
				if refuses.Load() {
					return yonder.Errorf(yonder.PermissionDenied, "not today")
				}
				return next(ctx, call)
			}
		}}}
		if handle {
			yonder.Handle(srv, "length", func(_ context.Context, s string) (int, error) { return len(s), nil })
		} else {
			srv.Register("length", func(s string) int { return len(s) })
		}
		client := overTCP.dialer(t, srv, &yonder.Dialer{Compression: flateCompression{}})
		large := strings.Repeat("large ", 10_000)
		for range 2 { // the first may be sent before the server has said what it can decompress
			if n, err := yonder.Invoke[int](t.Context(), client, "length", large); n != len(large) || err != nil {
				t.Errorf("%d, %v", n, err)
			}
		}
		before := counted.n.Load()
		if before == 0 {
			t.Error("this test cannot fail: nothing was compressed")
		}
		refuses.Store(true)
		if _, err := yonder.Invoke[int](t.Context(), client, "length", large); yonder.CodeOf(err) != yonder.PermissionDenied {
			t.Error(err)
		}
		if counted.n.Load() != before {
			t.Error("the arguments of a call that was refused have been decompressed")
		}
	}
}
