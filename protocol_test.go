package yonder_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/yonder-rpc/yonder"
)

// lines is the smallest protocol there is: a call is a line that begins with "call", a
// procedure's name and a JSON array of arguments, and its answer a line of JSON.
type lines struct{}

func (lines) Name() string { return "lines" }

func (lines) Detect(first []byte) yonder.Verdict {
	const begins = "call "
	switch n := min(len(first), len(begins)); {
	case string(first[:n]) != begins[:n]:
		return yonder.No
	case n < len(begins):
		return yonder.Maybe
	}
	return yonder.Yes
}

func (l lines) ServeConn(ctx context.Context, s *yonder.Server, conn net.Conn) error {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	for in := bufio.NewScanner(conn); in.Scan(); {
		fields := strings.SplitN(in.Text(), " ", 3)
		results, err := l.call(ctx, s, conn, fields[1], []byte(fields[2]))
		if err != nil {
			fmt.Fprintf(conn, "%v %v\n", yonder.CodeOf(err), err)
			continue
		}
		text, err := json.Marshal(results)
		if err != nil {
			return err
		}
		fmt.Fprintf(conn, "%s\n", text)
	}
	return nil
}

func (l lines) call(ctx context.Context, s *yonder.Server, conn net.Conn, name string, params []byte) ([]any, error) {
	info := yonder.CallInfo{Procedure: name, Protocol: l.Name(), Conn: conn, Metadata: yonder.Metadata{"via": "lines"}}
	target, err := s.Target(info)
	if err != nil {
		return nil, err
	}
	call := target.NewCall(info, func(args []any) error { return json.Unmarshal(params, &args) })
	if err := s.Call(ctx, call); err != nil {
		return nil, err
	}
	return call.Results(), nil
}

// A protocol that knows nothing of yonder's insides serves every plain procedure, beside the
// native one on the same port.
func TestProtocol(t *testing.T) {
	var mu sync.Mutex
	var seen []string
	srv := &yonder.Server{
		Protocols: []yonder.Protocol{lines{}},
		Logger:    logger(t),
		Interceptors: []yonder.Interceptor{func(next yonder.Handler) yonder.Handler {
			return func(ctx context.Context, call *yonder.Call) error {
				err := next(ctx, call)
				mu.Lock()
				defer mu.Unlock()
				seen = append(seen, fmt.Sprint(call.Procedure, call.Args()))
				return err
			}
		}},
	}
	srv.Register("join", func(ctx context.Context, sep string, parts ...string) string { return strings.Join(parts, sep) })
	srv.Register("swap", func(a int, b string) (string, int) { return b, a })
	srv.Register("fail", func() error { return yonder.Errorf(yonder.NotFound, "nothing there") })
	srv.Register("boom", func() { panic("boom") })
	srv.Register("info", func(ctx context.Context) string {
		info, ok := yonder.InfoFrom(ctx)
		_, isConn := info.Conn.(net.Conn)
		return fmt.Sprintf("%v %s %s %v %v %v", ok, info.Procedure, info.Protocol, info.Metadata, isConn, yonder.PeerFrom(ctx) == nil)
	})
	yonder.Handle(srv, "shout", func(ctx context.Context, s string) (string, error) { return strings.ToUpper(s), nil })
	srv.RegisterService("Calc", new(netRPCCalc))
	address := overTCP.serve(t, srv)

	conn, err := net.Dial("tcp", strings.TrimPrefix(address, "tcp://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answers := bufio.NewReader(conn)
	for _, c := range []struct{ call, want string }{
		{`join ["-", ["a", "b"]]`, `["a-b"]`},
		{`swap [1, "x"]`, `["x",1]`},
		{`swap ["x", 1]`, `invalid_argument yonder: call "swap": json: cannot unmarshal string into Go value of type int`},
		{`fail []`, `not_found nothing there`},
		{`boom []`, `internal yonder: "boom" panicked`},
		{`info []`, `["true info lines map[via:lines] true true"]`},
		{`shout ["hello"]`, `["HELLO"]`},
		{`shout [1]`, `invalid_argument yonder: call "shout": json: cannot unmarshal number into Go value of type string`},
		{`Calc.Twice [21]`, `[42]`},
		{`Join []`, `unimplemented yonder: no procedure "Join"; there is "join"`},
	} {
		fmt.Fprintf(conn, "call %s\n", c.call)
		got, err := answers.ReadString('\n')
		if err != nil {
			t.Fatalf("%s: %v", c.call, err)
		}
		if diff := cmp.Diff(c.want, strings.TrimSuffix(got, "\n")); diff != "" {
			t.Errorf("%s:\n%s", c.call, diff)
		}
	}
	mu.Lock()
	if want := "join[- [a b]]"; seen[0] != want {
		t.Errorf("the interceptor saw %q first, want %q", seen[0], want)
	}
	mu.Unlock()

	native, err := yonder.Dial(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer native.Close()
	if got, err := yonder.Invoke[string](t.Context(), native, "join", "+", "a", "b"); got != "a+b" || err != nil {
		t.Errorf("the native protocol on the same port: %q, %v", got, err)
	}
	stranger, err := net.Dial("tcp", strings.TrimPrefix(address, "tcp://"))
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	fmt.Fprint(stranger, "cell")
	if b, err := io.ReadAll(stranger); len(b) > 0 || err != nil {
		t.Errorf("a stranger was answered %q, %v", b, err)
	}
}

type netRPCCalc struct{}

func (*netRPCCalc) Twice(n int, reply *int) error { *reply = 2 * n; return nil }

func TestTarget(t *testing.T) {
	var srv yonder.Server
	srv.Add(yonder.Procedure{Name: "f", Func: func(context.Context, int, ...string) (bool, error) { return false, nil }, Params: []string{"n", "rest"}})
	srv.Register("stream", func(io.Reader) {})
	target, err := srv.Target(yonder.CallInfo{Procedure: "f"})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(target.Info.Params, target.Args, target.Variadic, target.Results, target.Error, target.Plain()); got != "[n rest] [int []string] true [bool] true true" {
		t.Error(got)
	}
	if again, _ := srv.Target(yonder.CallInfo{Procedure: "f"}); again != target {
		t.Error("it is made anew each time")
	}
	if target, err := srv.Target(yonder.CallInfo{Procedure: "stream"}); err != nil || target.Plain() || target.Error {
		t.Errorf("a reader is plain, or it returns an error, %v", err)
	}
	if _, err := srv.Target(yonder.CallInfo{Procedure: "g"}); yonder.CodeOf(err) != yonder.Unimplemented {
		t.Error(err)
	}
}

// An error crosses any protocol that carries its record.
func TestErrorRecord(t *testing.T) {
	sold := errors.New("sold out")
	srv := yonder.Server{Errors: map[string]error{"shop.SoldOut": sold}}
	d := yonder.Dialer{Errors: srv.Errors}
	for _, codec := range []yonder.Codec{yonder.CBOR, yonder.JSON} {
		sent := &yonder.Error{Code: yonder.Aborted, Message: "no tea", Details: 7, Err: errors.Join(sold, fs.ErrNotExist)}
		err := d.DecodeError(srv.EncodeError(fmt.Errorf("buy: %w", sent), codec), codec)
		if yonder.CodeOf(err) != yonder.Aborted || err.Error() != "buy: no tea" || !yonder.IsRemote(err) ||
			!errors.Is(err, sold) || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %#v", codec.Name(), err)
		}
	}
	if err := d.DecodeError([]byte{1}, yonder.CBOR); yonder.CodeOf(err) != yonder.Internal {
		t.Error(err)
	}
}

// memoryTransport is a protocol without a wire: a call is a function's call.
type memoryTransport struct {
	srv    *yonder.Server
	closed chan struct{}
}

func (m *memoryTransport) Call(ctx context.Context, call *yonder.Call) error {
	target, err := m.srv.Target(yonder.CallInfo{Procedure: call.Procedure})
	if err != nil {
		return err
	}
	var args [][]byte
	for _, arg := range call.Args() {
		var buf bytes.Buffer
		if err := yonder.CBOR.Encode(&buf, arg); err != nil {
			return err
		}
		args = append(args, buf.Bytes())
	}
	served := target.NewCall(yonder.CallInfo{Protocol: "memory", Metadata: call.Metadata}, func(into []any) error {
		for i, text := range args {
			if _, err := yonder.CBOR.Decode(text, into[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err := m.srv.Call(ctx, served); err != nil {
		return new(yonder.Dialer).DecodeError(m.srv.EncodeError(err, yonder.CBOR), yonder.CBOR)
	}
	for i, result := range served.Results() {
		var buf bytes.Buffer
		if err := yonder.CBOR.Encode(&buf, result); err != nil {
			return err
		}
		if _, err := yonder.CBOR.Decode(buf.Bytes(), call.Places()[i]); err != nil {
			return err
		}
	}
	call.Reply = served.Reply
	return nil
}

func (m *memoryTransport) Done() <-chan struct{} { return m.closed }
func (m *memoryTransport) Close() error          { close(m.closed); return nil }

// TestServerCall is a regression: a server could not serve a call with a stream, a reader or
// a function that nobody had brought to it, wanted places for the results, and left those
// empty.
func TestServerCall(t *testing.T) {
	var srv yonder.Server
	serverOf(t, &srv)
	srv.Register("sum", func(xs iter.Seq[int], r io.Reader, f func(int) (int, error)) (int, string, error) {
		n := 0
		for x := range xs {
			n += x
		}
		text, _ := io.ReadAll(r)
		n, err := f(n)
		return n, string(text), err
	})
	srv.Register("nothing", func() {})
	sum := func() *yonder.Call {
		return yonder.NewCall("sum", slices.Values([]int{1, 2}), strings.NewReader("abc"), func(n int) (int, error) { return 2 * n, nil })
	}
	call := sum()
	err := srv.Call(t.Context(), call)
	if diff := cmp.Diff([]any{6, "abc"}, call.Results()); diff != "" || err != nil {
		t.Errorf("without places: %v %s", err, diff)
	}
	var n int64
	var text string
	if err := srv.Call(t.Context(), sum().Into(&n, &text)); n != 6 || text != "abc" || err != nil {
		t.Errorf("with places: %d, %q, %v", n, text, err)
	}
	if err := srv.Call(t.Context(), yonder.NewCall("nothing")); err != nil {
		t.Error(err)
	}
	if err := srv.Call(t.Context(), yonder.NewCall("missing")); yonder.CodeOf(err) != yonder.Unimplemented {
		t.Errorf("no such procedure: %v", err)
	}
	if err := srv.Call(t.Context(), yonder.NewCall("nothing", 1)); yonder.CodeOf(err) != yonder.InvalidArgument {
		t.Errorf("no such signature: %v", err)
	}
}

// lookingTransport makes no calls, but looks at them.
type lookingTransport struct {
	yonder.Transport
	calls []string
}

func (l *lookingTransport) Call(_ context.Context, call *yonder.Call) error {
	l.calls = append(l.calls, fmt.Sprint(call.Procedure, " ", call.ArgTypes(), " ", call.Variadic(), " ", call.Plain()))
	return nil
}

// Packages with clients of their own say which errors the other side has reported.
func TestFromPeer(t *testing.T) {
	gone := yonder.Error{Code: yonder.NotFound, Message: "gone", Err: fs.ErrNotExist}
	if yonder.IsRemote(&gone) {
		t.Error("an error of this side is remote")
	}
	err := yonder.FromPeer(gone)
	if !yonder.IsRemote(fmt.Errorf("wrapped: %w", err)) || yonder.CodeOf(err) != yonder.NotFound || err.Error() != "gone" || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%#v", err)
	}
	if yonder.IsRemote(yonder.Errorf(yonder.Internal, "asking another: %w", err)) {
		t.Error("an error of this side that wraps a remote one is remote")
	}
	if !yonder.IsRemote(fmt.Errorf("wrapped: %w", peerText("gone"))) {
		t.Error("an error whose method says that it is remote is not")
	}
}

type peerText string

func (e peerText) Error() string { return string(e) }
func (e peerText) Remote() bool  { return true }

// A client over another protocol is like any other.
func TestTransport(t *testing.T) {
	var srv yonder.Server
	srv.Register("add", func(ctx context.Context, a, b int) (int, error) {
		info, _ := yonder.InfoFrom(ctx)
		yonder.SetReply(ctx, "who", info.Metadata["who"]+" by "+info.Protocol)
		if b == 0 {
			return 0, yonder.Errorf(yonder.OutOfRange, "nothing to add")
		}
		return a + b, nil
	})
	yonder.Handle(&srv, "twice", func(ctx context.Context, n int) (int, error) { return 2 * n, nil })
	var calls []string
	d := yonder.Dialer{Interceptors: []yonder.Interceptor{func(next yonder.Handler) yonder.Handler {
		return func(ctx context.Context, call *yonder.Call) error {
			calls = append(calls, call.Procedure)
			return next(ctx, call)
		}
	}}}
	transport := &memoryTransport{srv: &srv, closed: make(chan struct{})}
	c := d.NewClientOver(transport)

	var add func(ctx context.Context, a, b int) (int, error)
	c.Bind("add", &add)
	var reply yonder.Metadata
	ctx := yonder.WithReply(yonder.WithMetadata(t.Context(), "who", "ann"), &reply)
	if n, err := add(ctx, 2, 3); n != 5 || err != nil || reply["who"] != "ann by memory" {
		t.Errorf("add: %d, %v, %v", n, err, reply)
	}
	if _, err := add(ctx, 2, 0); yonder.CodeOf(err) != yonder.OutOfRange || !yonder.IsRemote(err) {
		t.Errorf("add: %v", err)
	}
	if n, err := yonder.Remote[int, int](c, "twice")(t.Context(), 4); n != 8 || err != nil {
		t.Errorf("twice: %d, %v", n, err)
	}
	if n, err := yonder.Invoke[int](t.Context(), c, "add", 1, 1); n != 2 || err != nil {
		t.Errorf("add: %d, %v", n, err)
	}
	seen := &lookingTransport{Transport: transport}
	looking := new(yonder.Dialer).NewClientOver(seen)
	var stream func(name any, r io.Reader) error
	looking.Bind("stream", &stream)
	stream(1, strings.NewReader("x"))
	looking.Call(t.Context(), yonder.NewCall("plain", 1, nil))
	var many func(...string) error
	looking.Bind("many", &many)
	many("x")
	if err := looking.Call(t.Context(), yonder.NewCall("chan", make(chan int))); yonder.CodeOf(err) != yonder.InvalidArgument {
		t.Errorf("a channel: %v", err)
	}
	if diff := cmp.Diff([]string{"stream [interface {} io.Reader] false false", "plain [int interface {}] false true", "many [[]string] true true"}, seen.calls); diff != "" {
		t.Error(diff)
	}

	if list, err := c.Procedures(t.Context()); len(list) != 2 || err != nil {
		t.Errorf("procedures: %v, %v", list, err)
	}
	if err := c.Check(t.Context()); yonder.CodeOf(err) != yonder.Unimplemented {
		t.Errorf("check: %v", err)
	}
	if diff := cmp.Diff([]string{"add", "add", "twice", "add", "yonder.procedures"}, calls); diff != "" {
		t.Error(diff)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	<-c.Done()
}

func TestServing(t *testing.T) {
	var srv yonder.Server
	if !srv.Serving() {
		t.Error("a new server does not serve")
	}
	srv.Shutdown(t.Context())
	if srv.Serving() {
		t.Error("it serves after Shutdown")
	}
}

func TestDialOtherScheme(t *testing.T) {
	var srv yonder.Server
	srv.Register("one", func() int { return 1 })
	address := overTCP.serve(t, &srv)
	var asked string
	d := yonder.Dialer{NetDial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		asked = network + " " + addr
		return net.Dial("tcp", strings.TrimPrefix(address, "tcp://"))
	}}
	c, err := d.Dial(t.Context(), "ws://host/path?x=://")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if n, err := yonder.Invoke[int](t.Context(), c, "one"); n != 1 || err != nil || asked != "ws host/path?x=://" {
		t.Errorf("%d, %v; NetDial was asked for %q", n, err, asked)
	}
	if _, err := yonder.Dial(t.Context(), "ws://host/path"); yonder.CodeOf(err) != yonder.InvalidArgument {
		t.Errorf("without NetDial: %v", err)
	}
}
