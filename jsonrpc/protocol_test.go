package jsonrpc_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http/httptest"
	"net/rpc"
	stdjson "net/rpc/jsonrpc"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/jsonrpc"
)

// Hello is the service of the article that everybody begins with.
type Hello struct{}

func (Hello) Hello(name string, reply *string) error {
	if name == "" {
		return errors.New("who?")
	}
	*reply = "Hello, " + name
	return nil
}

// oddServer has procedures for what a specification does not mention.
func oddServer() *yonder.Server {
	srv := specServer()
	srv.RegisterService("HelloService", Hello{})
	srv.Register("none", func() {})
	srv.Register("two", func() (int, string) { return 1, "b" })
	srv.Register("optional", func(a int, b *int) string {
		if b == nil {
			return fmt.Sprint(a, " nil")
		}
		return fmt.Sprint(a, " ", *b)
	})
	srv.Register("point", func(p point) string { return fmt.Sprint(p.X, ",", p.Y) })
	srv.Add(yonder.Procedure{Name: "named", Func: func(p point) string { return fmt.Sprint(p.X, ",", p.Y) }, Params: []string{"where"}})
	srv.Add(yonder.Procedure{Name: "join", Func: func(sep string, parts ...string) string { return strings.Join(parts, sep) }, Params: []string{"sep", "parts"}})
	srv.Register("params", func(ctx context.Context, p jsonrpc.Params) string { return string(p) })
	srv.Register("raw", func() jsonrpc.Params { return jsonrpc.Params("{\"a\":\n1}") })
	srv.Register("callback", func(f func() error) bool { return f == nil })
	srv.Register("typed", func(v any) string { return fmt.Sprintf("%T", v) })
	srv.Register("not found", func() error { return yonder.Errorf(yonder.NotFound, "no such thing") })
	srv.Register("own", func() error { return &jsonrpc.Error{Code: 7, Message: "own", Data: map[string]int{"a": 1}} })
	return srv
}

const (
	parseError     = `{"jsonrpc":"2.0","error":{"code":-32700,"message":"Parse error"},"id":null}`
	invalidRequest = `{"jsonrpc":"2.0","error":{"code":-32600,"message":"Invalid Request"},"id":null}`
)

// What is sent on one line, and what is answered. They go over one connection.
var transcript = []struct{ send, want string }{
	// Version 1.0, byte for byte as net/rpc/jsonrpc has it.
	{`{"method":"HelloService.Hello","params":["JSON-RPC"],"id":1}`, `{"id":1,"result":"Hello, JSON-RPC","error":null}`},
	{`{"method":"HelloService.Hello","params":[""],"id":"x"}`, `{"id":"x","result":null,"error":"who?"}`},
	{`{"method":"HelloService.Bye","params":[""],"id":2}`, `{"id":2,"result":null,"error":"Method not found"}`},
	{`{"method":"none","params":[],"id":[1, {"a" : 2}]}`, `{"id":[1,{"a":2}],"result":null,"error":null}`},
	{`{"method":"none","params":[],"id":null}`, ``},
	{`{"method":"none","params":[]}`, ``},
	{`{"method":"none"}`, ``},
	{`{"method":"none","params":5,"id":1}`, `{"id":1,"result":null,"error":"Invalid Request: \"params\" must be an array or an object"}`},
	{`{"method":"none","params":5,"id":{"a":[]}}`, `{"id":{"a":[]},"result":null,"error":"Invalid Request: \"params\" must be an array or an object"}`},
	{`{"method":"none","params":5,"id":null}`, ``},
	{`{"method":"none","params":5}`, ``},
	{`{"method":"none","timeout":"x","id":1}`, `{"id":1,"result":null,"error":"Invalid Request: \"timeout\" must be a number of milliseconds, more than 0"}`},
	{`{"method":"none","method":"two","id":1}`, `{"id":1,"result":null,"error":"Invalid Request: member \"method\" is there twice"}`},
	{`{"method":"none","id":1,"id":2}`, `{"id":null,"result":null,"error":"Invalid Request: member \"id\" is there twice"}`},

	// Ids.
	{`{"jsonrpc":"2.0","method":"none","id":1.0}`, `{"jsonrpc":"2.0","result":null,"id":1.0}`},
	{`{"jsonrpc":"2.0","method":"none","id":1e3}`, `{"jsonrpc":"2.0","result":null,"id":1e3}`},
	{`{"jsonrpc":"2.0","method":"none","id":-0}`, `{"jsonrpc":"2.0","result":null,"id":-0}`},
	{`{"jsonrpc":"2.0","method":"none","id":123456789012345678901234567890}`, `{"jsonrpc":"2.0","result":null,"id":123456789012345678901234567890}`},
	{`{"jsonrpc":"2.0","method":"none","id":"\u00e9é\/"}`, `{"jsonrpc":"2.0","result":null,"id":"\u00e9é\/"}`},
	{`{"jsonrpc":"2.0","method":"none","id":""}`, `{"jsonrpc":"2.0","result":null,"id":""}`},
	{`{"jsonrpc":"2.0","method":"none","id":null}`, `{"jsonrpc":"2.0","result":null,"id":null}`},
	{`{"jsonrpc":"2.0","method":"none","id":{}}`, invalidRequest},
	{`{"jsonrpc":"2.0","method":"none","id":[1]}`, invalidRequest},
	{`{"jsonrpc":"2.0","method":"none","id":true}`, invalidRequest},
	{`{"jsonrpc":"2.0","method":"none","id":false}`, invalidRequest},

	// Members.
	{`{"jsonrpc":"2.0","method":"none","id":1,"id":2}`, invalidRequest},
	{`{"jsonrpc":"2.0","method":"none","method":"two","id":1}`, strings.Replace(invalidRequest, "null", "1", 1)},
	{`{"jsonrpc":"2.0","method":"none","method":"two","id":[1]}`, invalidRequest},
	{`{"jsonrpc":"2.0","method":"none","\u006dethod":"two","id":1}`, strings.Replace(invalidRequest, "null", "1", 1)},
	{`{"jsonrpc":"2.0","\u006dethod":"none","i\u0064":1}`, `{"jsonrpc":"2.0","result":null,"id":1}`},
	{`{"jsonrpc":"2.0","method":"none","ID":1}`, ``},
	{`{"jsonrpc":"2.0","method":"none","id":1,"ID":2,"Method":"two","extra":[{}],"extra":3}`, `{"jsonrpc":"2.0","result":null,"id":1}`},
	{`{"jsonrpc":"2.0","Method":"none","id":1}`, strings.Replace(invalidRequest, "null", "1", 1)},
	{`{"jsonrpc":"1.0","method":"none","id":1}`, strings.Replace(invalidRequest, "null", "1", 1)},
	{`{"jsonrpc":2.0,"method":"none","id":1}`, strings.Replace(invalidRequest, "null", "1", 1)},
	{`{"jsonrpc":null,"method":"none","id":1}`, strings.Replace(invalidRequest, "null", "1", 1)},
	{`{"jsonrpc":"\u0032.0","method":"none","id":1}`, `{"jsonrpc":"2.0","result":null,"id":1}`},
	{`{"method":1,"id":1}`, strings.Replace(invalidRequest, "null", "1", 1)},
	{`{"jsonrpc":"2.0","id":1}`, strings.Replace(invalidRequest, "null", "1", 1)},
	{`{"jsonrpc":"2.0","result":1,"id":1}`, strings.Replace(invalidRequest, "null", "1", 1)},
	{`{}`, invalidRequest},
	{`{"jsonrpc":"2.0","method":"none","params":"x","id":1}`, strings.Replace(invalidRequest, "null", "1", 1)},
	{`{"jsonrpc":"2.0","method":"none","params":null,"id":1}`, `{"jsonrpc":"2.0","result":null,"id":1}`},
	{`{"jsonrpc":"2.0","method":"none","timeout":0,"id":1}`, strings.Replace(invalidRequest, "null", "1", 1)},
	{`{"jsonrpc":"2.0","method":"none","timeout":1e400,"id":1}`, strings.Replace(invalidRequest, "null", "1", 1)},
	{`{"jsonrpc":"2.0","method":"none","timeout":1e300,"id":1}`, `{"jsonrpc":"2.0","result":null,"id":1}`},
	{`{"jsonrpc":"2.0","method":"none","meta":{"a":1},"id":1}`, strings.Replace(invalidRequest, "null", "1", 1)},

	// Results.
	{`{"jsonrpc":"2.0","method":"two","id":1}`, `{"jsonrpc":"2.0","result":[1,"b"],"id":1}`},
	{`{"jsonrpc":"2.0","method":"raw","id":1}`, `{"jsonrpc":"2.0","result":{"a":1},"id":1}`},

	// Parameters.
	{`{"jsonrpc":"2.0","method":"optional","params":[1],"id":1}`, `{"jsonrpc":"2.0","result":"1 nil","id":1}`},
	{`{"jsonrpc":"2.0","method":"optional","params":[1,null],"id":1}`, `{"jsonrpc":"2.0","result":"1 nil","id":1}`},
	{`{"jsonrpc":"2.0","method":"optional","params":[1,2],"id":1}`, `{"jsonrpc":"2.0","result":"1 2","id":1}`},
	{`{"jsonrpc":"2.0","method":"optional","params":[],"id":1}`, `{"jsonrpc":"2.0","error":{"code":-32602,"message":"yonder: call \"optional\": parameter 1: it is missing"},"id":1}`},
	{`{"jsonrpc":"2.0","method":"optional","params":[1,2,3],"id":1}`, `{"jsonrpc":"2.0","error":{"code":-32602,"message":"yonder: call \"optional\": there are 3 parameters, but it takes 2"},"id":1}`},
	{`{"jsonrpc":"2.0","method":"optional","params":{"a":1},"id":1}`, `{"jsonrpc":"2.0","error":{"code":-32602,"message":"yonder: call \"optional\": its parameters have no names; give them as an array"},"id":1}`},
	{`{"jsonrpc":"2.0","method":"none","params":[1],"id":1}`, `{"jsonrpc":"2.0","error":{"code":-32602,"message":"yonder: call \"none\": there are 1 parameters, but it takes 0"},"id":1}`},
	{`{"jsonrpc":"2.0","method":"none","params":{},"id":1}`, `{"jsonrpc":"2.0","result":null,"id":1}`},
	{`{"jsonrpc":"2.0","method":"subtract","params":{"minuend":1},"id":1}`, `{"jsonrpc":"2.0","error":{"code":-32602,"message":"yonder: call \"subtract\": parameter 2, \"subtrahend\": it is missing"},"id":1}`},
	{`{"jsonrpc":"2.0","method":"subtract","params":{"minuend":1,"Subtrahend":1},"id":1}`, `{"jsonrpc":"2.0","error":{"code":-32602,"message":"yonder: call \"subtract\": there is no parameter \"Subtrahend\"; there are [\"minuend\" \"subtrahend\"]"},"id":1}`},
	{`{"jsonrpc":"2.0","method":"subtract","params":{"minuend":1,"subtrahend":1,"minuend":2},"id":1}`, `{"jsonrpc":"2.0","error":{"code":-32602,"message":"yonder: call \"subtract\": parameter \"minuend\" is there twice"},"id":1}`},
	{`{"jsonrpc":"2.0","method":"join","params":{"sep":"-","parts":["a","b"]},"id":1}`, `{"jsonrpc":"2.0","result":"a-b","id":1}`},
	{`{"jsonrpc":"2.0","method":"join","params":{"sep":"-"},"id":1}`, `{"jsonrpc":"2.0","result":"","id":1}`},
	{`{"jsonrpc":"2.0","method":"join","params":["-", "a" , "b"],"id":1}`, `{"jsonrpc":"2.0","result":"a-b","id":1}`},
	{`{"jsonrpc":"2.0","method":"join","params":["-"],"id":1}`, `{"jsonrpc":"2.0","result":"","id":1}`},
	{`{"jsonrpc":"2.0","method":"point","params":{"X":1,"y":2},"id":1}`, `{"jsonrpc":"2.0","result":"1,2","id":1}`},
	{`{"jsonrpc":"2.0","method":"point","params":[{"X":1,"Y":2}],"id":1}`, `{"jsonrpc":"2.0","result":"1,2","id":1}`},
	{`{"jsonrpc":"2.0","method":"named","params":{"X":1,"Y":2},"id":1}`, `{"jsonrpc":"2.0","result":"1,2","id":1}`},
	{`{"jsonrpc":"2.0","method":"named","params":{"where":{"X":1,"Y":2}},"id":1}`, `{"jsonrpc":"2.0","result":"1,2","id":1}`},
	{`{"jsonrpc":"2.0","method":"params","params":[1, {"a":2}],"id":1}`, `{"jsonrpc":"2.0","result":"[1, {\"a\":2}]","id":1}`},
	{`{"jsonrpc":"2.0","method":"params","params":{"a" : 1e0},"id":1}`, `{"jsonrpc":"2.0","result":"{\"a\" : 1e0}","id":1}`},
	{`{"jsonrpc":"2.0","method":"params","id":1}`, `{"jsonrpc":"2.0","result":"","id":1}`},
	{`{"jsonrpc":"2.0","method":"callback","params":[null],"id":1}`, `{"jsonrpc":"2.0","result":true,"id":1}`},
	{`{"jsonrpc":"2.0","method":"callback","params":[1],"id":1}`, `{"jsonrpc":"2.0","error":{"code":-32602,"message":"yonder: call \"callback\": parameter 1: a function cannot be given over JSON-RPC; call over yonder's own protocol, or give null"},"id":1}`},
	{`{"jsonrpc":"2.0","method":"typed","params":[9007199254740993],"id":1}`, `{"jsonrpc":"2.0","result":"int64","id":1}`},
	{`{"jsonrpc":"2.0","method":"typed","params":[1.0],"id":1}`, `{"jsonrpc":"2.0","result":"float64","id":1}`},
	{`{"jsonrpc":"2.0","method":"typed","params":[1e999],"id":1}`, `{"jsonrpc":"2.0","error":{"code":-32602,"message":"yonder: call \"typed\": parameter 1: a number that is too large for a float64"},"id":1}`},

	// Errors.
	{`{"jsonrpc":"2.0","method":"not found","id":1}`, `{"jsonrpc":"2.0","error":{"code":-32005,"message":"no such thing","data":{"code":"not_found"}},"id":1}`},
	{`{"jsonrpc":"2.0","method":"own","id":1}`, `{"jsonrpc":"2.0","error":{"code":7,"message":"own","data":{"a":1}},"id":1}`},
	{`{"method":"own","id":1}`, `{"id":1,"result":null,"error":"own"}`},
	{`{"jsonrpc":"2.0","method":"rpc.unknown","id":1}`, `{"jsonrpc":"2.0","error":{"code":-32601,"message":"Method not found"},"id":1}`},
	{`{"jsonrpc":"2.0","method":"rpc.cancel","params":{"id":"nobody"},"id":2}`, `{"jsonrpc":"2.0","result":false,"id":2}`},
	{`{"jsonrpc":"2.0","method":"rpc.cancel","params":[1],"id":2}`, `{"jsonrpc":"2.0","error":{"code":-32602,"message":"yonder: call \"rpc.cancel\": parameters: they must be an object"},"id":2}`},
	{`{"jsonrpc":"2.0","method":"rpc.cancel"}`, ``},
	{`{"jsonrpc":"2.0","method":"subtract","params":["x"]}`, ``},

	// Texts that are no messages.
	{`1`, invalidRequest},
	{`"x"`, invalidRequest},
	{`null`, invalidRequest},
	{`[{}]`, `[` + invalidRequest + `]`},
	{`[[]]`, `[` + invalidRequest + `]`},
	{` [ ] `, invalidRequest},
	{`[{"method":"two","id":1},{"jsonrpc":"2.0","method":"two","id":2}]`, `[{"id":1,"result":[1,"b"],"error":null},{"jsonrpc":"2.0","result":[1,"b"],"id":2}]`},
}

func TestTranscript(t *testing.T) {
	for _, how := range []string{"stream", "header"} {
		t.Run(how, func(t *testing.T) {
			noLeaks(t)
			p := dialPeer(t, serve(t, oddServer()))
			p.header = how == "header"
			for _, e := range transcript {
				p.send(e.send + " ")
				if e.want == "" { // then the next answer is to what comes next
					p.send(`{"jsonrpc":"2.0","method":"none","id":"next"}`)
					e.want = `{"jsonrpc":"2.0","result":null,"id":"next"}`
				}
				if got := p.read(); got != e.want {
					t.Errorf("--> %s\n<-- %s\nwant %s", e.send, got, e.want)
				}
			}
		})
	}
}

// Messages need nothing between them, and may come in any pieces.
func TestPieces(t *testing.T) {
	noLeaks(t)
	p := dialPeer(t, serve(t, specServer()))
	text := "\n{\"jsonrpc\":\"2.0\",\"method\":\"sum\",\"params\":[1],\"id\":\"}{\\\"\"}"
	p.conn.(*net.TCPConn).SetNoDelay(true)
	for i := range text {
		p.send(text[i : i+1])
	}
	p.want(`{"jsonrpc":"2.0","result":1,"id":"}{\""}`)
	p.send(strings.Repeat(`{"method":"sum","id":1}`, 100))
	for range 100 {
		p.want(`{"id":1,"result":0,"error":null}`)
	}
	p.send("Content-Type: application/vscode-jsonrpc; charset=utf-8\r\ncontent-length: 24\r\n\r\n {\"method\":\"sum\",\"id\":1}")
	p.header = true
	p.want(`{"id":1,"result":0,"error":null}`)
}

// Who ends its side of the connection is answered all the same.
func TestHalfClose(t *testing.T) {
	noLeaks(t)
	srv := new(yonder.Server)
	finish := make(chan struct{})
	srv.Register("wait", func() { <-finish })
	p := dialPeer(t, serve(t, srv))
	p.send(`{"method":"wait","id":1}`)
	p.conn.(*net.TCPConn).CloseWrite()
	close(finish)
	p.want(`{"id":1,"result":null,"error":null}`)
	p.ends()
}

func TestDetect(t *testing.T) {
	var stream bytes.Buffer
	gob.NewEncoder(&stream).Encode(struct{ A int }{1})
	// A length of 0x7b or 0x5b before what follows it in a gob stream.
	brace, bracket := append([]byte{'{'}, stream.Bytes()[1:]...), append([]byte{'['}, stream.Bytes()[1:]...)
	for first, want := range map[string]yonder.Verdict{
		"{": yonder.Maybe, "[": yonder.Maybe, " ": yonder.Maybe, "\r\n\t ": yonder.Maybe, " {": yonder.Maybe,
		"{\"": yonder.Yes, "{}": yonder.Yes, "{ ": yonder.Yes, "{\n": yonder.Yes, "[1": yonder.Yes, "[{": yonder.Yes, "\n[\"": yonder.Yes, "{x": yonder.Yes,
		"C": yonder.Maybe, "Content": yonder.Maybe, "Content-Length: 5": yonder.Yes, "content-type": yonder.Yes,
		"CONNECT / HTTP/1.0": yonder.No, "POST / HTTP/1.1": yonder.No, "GET /": yonder.No, "P": yonder.No, "Con nect": yonder.No,
		"\xd9YONDER": yonder.No, "\x16\x03\x01": yonder.No, "\x00\x00\x00\x2a": yonder.No, "a": yonder.No,
		string(brace): yonder.No, string(bracket): yonder.No, "{\x7f": yonder.No, "{\xff": yonder.No, "{\xf8": yonder.No, "[\x00": yonder.No,
	} {
		if got := jsonrpc.Protocol.Detect([]byte(first)); got != want {
			t.Errorf("%q: %v, want %v", first, got, want)
		}
	}
}

// Both protocols share a port.
func TestSharedPort(t *testing.T) {
	noLeaks(t)
	address := serve(t, specServer())
	native, err := yonder.Dial(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer native.Close()
	if n, err := yonder.Invoke[int](t.Context(), native, "sum", 1, 2); n != 3 || err != nil {
		t.Error(n, err)
	}
	p := dialPeer(t, address)
	p.send("hello")
	p.ends()
}

// Go's own peers, at either end.
func TestNetRPC(t *testing.T) {
	noLeaks(t)
	srv := new(yonder.Server)
	srv.RegisterService("HelloService", Hello{})
	c, err := stdjson.Dial("tcp", serve(t, srv))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var reply string
	if err := c.Call("HelloService.Hello", "Go", &reply); reply != "Hello, Go" || err != nil {
		t.Error(reply, err)
	}
	if err := c.Call("HelloService.Hello", "", &reply); err != rpc.ServerError("who?") {
		t.Error(err)
	}

	std := rpc.NewServer()
	std.RegisterName("HelloService", Hello{})
	near, far := net.Pipe()
	go std.ServeCodec(stdjson.NewServerCodec(far)) // ends with the connection
	client := new(jsonrpc.Dialer).NewClient(near)
	defer client.Close()
	if s, err := yonder.Invoke[string](t.Context(), client, "HelloService.Hello", "Go"); s != "Hello, Go" || err != nil {
		t.Error(s, err)
	}
	if _, err := yonder.Invoke[string](t.Context(), client, "HelloService.Hello", ""); yonder.CodeOf(err) != yonder.Unknown || err.Error() != "who?" {
		t.Error(err)
	}
}

// Params and errors of this package make sense over the native protocol, too.
func TestNative(t *testing.T) {
	noLeaks(t)
	srv := oddServer()
	srv.Register("known", func() error { return &jsonrpc.Error{Code: jsonrpc.InvalidParams, Message: "bad"} })
	c, err := yonder.Dial(t.Context(), serve(t, srv))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, p := range []string{`[1,{"a":2}]`, `{"a":1}`, `null`} {
		if s, err := yonder.Invoke[string](t.Context(), c, "params", jsonrpc.Params(p)); s != p || err != nil {
			t.Errorf("%s: %q, %v", p, s, err)
		}
	}
	if p, err := yonder.Invoke[jsonrpc.Params](t.Context(), c, "raw"); string(p) != `{"a":1}` || err != nil {
		t.Errorf("%q, %v", p, err)
	}
	if err := c.Call(t.Context(), yonder.NewCall("own")); yonder.CodeOf(err) != yonder.Unknown || err.Error() != "own" {
		t.Error(err)
	}
	if err := c.Call(t.Context(), yonder.NewCall("known")); yonder.CodeOf(err) != yonder.InvalidArgument {
		t.Error(err)
	}
}

// Who cancels by the Language Server Protocol's name is answered by its code.
func TestCancel(t *testing.T) {
	for method, code := range map[string]string{"rpc.cancel": "-32001", "$/cancelRequest": "-32800"} {
		t.Run(method, func(t *testing.T) {
			noLeaks(t)
			srv := new(yonder.Server)
			srv.Limits.MaxCalls = 1
			began := make(chan struct{}, 1)
			hang := func(ctx context.Context) {
				began <- struct{}{}
				<-ctx.Done()
			}
			srv.Register("hang", func(ctx context.Context) error { hang(ctx); return ctx.Err() })
			srv.Register("cause", func(ctx context.Context) error { hang(ctx); return context.Cause(ctx) })
			srv.Register("other", func(ctx context.Context) error { hang(ctx); return yonder.Errorf(yonder.NotFound, "gone") })
			srv.Register("done", func(ctx context.Context) int { hang(ctx); return 1 })
			srv.Register("panics", func(ctx context.Context) error { hang(ctx); return panicking{} })
			srv.Register("stream", func(ctx context.Context) iter.Seq2[int, error] {
				return func(yield func(int, error) bool) { hang(ctx); yield(0, ctx.Err()) }
			})
			p := dialPeer(t, serve(t, srv))
			cancel := func(id string) {
				p.send(`{"jsonrpc":"2.0","method":"` + method + `","params":{"id":` + id + `}}`)
			}
			canceled := `"error":{"code":` + code + `,"message":"context canceled","data":{"code":"canceled","is":["context.Canceled"]}}`
			for procedure, want := range map[string]string{
				"hang":   canceled,
				"other":  `"error":{"code":-32005,"message":"gone","data":{"code":"not_found"}}`,
				"done":   `"result":1`,
				"panics": `"error":{"code":-32603,"message":"yonder: \"jsonrpc_test.panicking\" panicked"}`,
			} {
				p.send(`{"jsonrpc":"2.0","method":"` + procedure + `","id":"a b"}`)
				<-began
				cancel(`"other"`)
				cancel(`"a b"`)
				p.want(`{"jsonrpc":"2.0",` + want + `,"id":"a b"}`)
			}

			p.send(`{"jsonrpc":"2.0","method":"cause","id":1}`)
			<-began
			p.send(`{"jsonrpc":"2.0","method":"hang","id":2}`) // waits for the first
			cancel("2")
			if got := p.read(); !strings.Contains(got, `"code":`+code) || !strings.Contains(got, "before it began") || !strings.HasSuffix(got, `"id":2}`) {
				t.Error(got)
			}
			cancel("1")
			if got := p.read(); !strings.Contains(got, `"code":`+code) || !strings.HasSuffix(got, `"id":1}`) {
				t.Error(got)
			}
			p.send(`[{"jsonrpc":"2.0","method":"hang","id":3}]`)
			<-began
			cancel("3")
			p.want(`[{"jsonrpc":"2.0",` + canceled + `,"id":3}]`)
			p.send(`{"jsonrpc":"2.0","method":"stream","id":4}`)
			p.want(`{"jsonrpc":"2.0","result":{"subscription":1},"id":4}`)
			<-began
			cancel("4")
			p.want(`{"jsonrpc":"2.0","method":"rpc.stream","params":{"subscription":1,"end":true,` + canceled + `}}`)
		})
	}
}

// panicking is an error whose methods do.
type panicking struct{}

func (panicking) Error() string { panic("Error") }
func (panicking) As(any) bool   { panic("As") }

// A server of the Language Server Protocol says so, too.
func TestRequestCancelled(t *testing.T) {
	near, far := net.Pipe()
	c := (&jsonrpc.Dialer{ContentLength: true}).NewClient(near)
	defer c.Close()
	p := newPeer(t, far)
	p.header = true
	go func() { // ends with the answer
		p.in.ReadString('}')
		p.send(`{"jsonrpc":"2.0","error":{"code":-32800,"message":"request cancelled"},"id":1}`)
	}()
	if err := c.Call(t.Context(), yonder.NewCall("x")); yonder.CodeOf(err) != yonder.Canceled || !yonder.IsRemote(err) {
		t.Error(err)
	}
}

// The subscription's format, as README.md has it.
func TestSubscription(t *testing.T) {
	noLeaks(t)
	srv := new(yonder.Server)
	srv.Register("count", count)
	stopped := make(chan struct{})
	srv.Register("forever", func() iter.Seq[int] {
		return func(yield func(int) bool) {
			for i := 0; yield(i); i++ {
			}
			close(stopped)
		}
	})
	srv.Register("read", func() (string, io.Reader) { return "x", strings.NewReader("hello") })
	p := dialPeer(t, serve(t, srv))
	p.send(`{"jsonrpc":"2.0","method":"count","params":[2],"id":1}`)
	p.want(`{"jsonrpc":"2.0","result":{"subscription":1},"id":1}`)
	p.want(`{"jsonrpc":"2.0","method":"rpc.stream","params":{"subscription":1,"items":[0]}}`)
	p.want(`{"jsonrpc":"2.0","method":"rpc.stream","params":{"subscription":1,"items":[1]}}`)
	p.want(`{"jsonrpc":"2.0","method":"rpc.stream","params":{"subscription":1,"end":true}}`)
	p.send(`{"jsonrpc":"2.0","method":"read","id":2}`)
	p.want(`{"jsonrpc":"2.0","result":["x",{"subscription":2}],"id":2}`)
	p.want(`{"jsonrpc":"2.0","method":"rpc.stream","params":{"subscription":2,"items":["aGVsbG8="]}}`)
	p.want(`{"jsonrpc":"2.0","method":"rpc.stream","params":{"subscription":2,"end":true}}`)
	p.send(`{"jsonrpc":"2.0","method":"forever","id":3}`)
	p.want(`{"jsonrpc":"2.0","result":{"subscription":3},"id":3}`)
	item := func(i int) {
		t.Helper()
		p.want(fmt.Sprintf(`{"jsonrpc":"2.0","method":"rpc.stream","params":{"subscription":3,"items":[%d]}}`, i))
	}
	for i := range 256 {
		item(i)
	}
	p.send(`{"jsonrpc":"2.0","method":"rpc.credit","params":{"subscription":3,"items":2},"id":4}`)
	for want := 256; want < 258; { // the answer may come before the items or after
		if got := p.read(); got == `{"jsonrpc":"2.0","result":true,"id":4}` {
			continue
		} else if got != fmt.Sprintf(`{"jsonrpc":"2.0","method":"rpc.stream","params":{"subscription":3,"items":[%d]}}`, want) {
			t.Fatal(got)
		}
		want++
	}
	p.send(`{"jsonrpc":"2.0","method":"rpc.unsubscribe","params":{"subscription":3}}`)
	<-stopped
	p.send(`[{"jsonrpc":"2.0","method":"count","params":[2],"id":5}]`)
	got := p.read()
	if got == `{"jsonrpc":"2.0","result":true,"id":4}` {
		got = p.read()
	}
	if got != `[{"jsonrpc":"2.0","result":[0,1],"id":5}]` {
		t.Error(got)
	}
}

// A batch runs at the same time, as far as the limits go, and not for ever.
func TestBatchLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &yonder.Server{Logger: newLogger(t)}
		srv.Limits.MaxCalls = 3
		srv.Limits.MaxMessage = 4000
		srv.Protocols = []yonder.Protocol{(&jsonrpc.Config{MaxBatch: 10, BatchTimeout: 5 * time.Second}).Protocol()}
		srv.Register("sleep", func(ctx context.Context, seconds int) error {
			select {
			case <-time.After(time.Duration(seconds) * time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		srv.Register("deaf", func() { time.Sleep(time.Hour) })
		srv.Register("long", func() string { return strings.Repeat("x", 1500) })
		p := pipePeer(t, srv)
		sleep := func(n, id int) string {
			return fmt.Sprintf(`{"jsonrpc":"2.0","method":"sleep","params":[%d],"id":%d}`, n, id)
		}
		began := time.Now()
		p.send("[" + strings.Join([]string{sleep(1, 1), sleep(1, 2), sleep(1, 3), sleep(1, 4)}, ",") + "]")
		p.want(`[{"jsonrpc":"2.0","result":null,"id":1},{"jsonrpc":"2.0","result":null,"id":2},{"jsonrpc":"2.0","result":null,"id":3},{"jsonrpc":"2.0","result":null,"id":4}]`)
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("four calls, three at a time, took %v", took)
		}
		began = time.Now()
		p.send("[" + sleep(100, 1) + `,{"jsonrpc":"2.0","method":"deaf","id":2},` + sleep(1, 3) + "]")
		p.want(`[{"jsonrpc":"2.0","error":{"code":-32004,"message":"context deadline exceeded","data":{"code":"deadline_exceeded","is":["context.DeadlineExceeded"]}},"id":1},` +
			`{"jsonrpc":"2.0","error":{"code":-32004,"message":"yonder: call \"deaf\": the batch took too long","data":{"code":"deadline_exceeded"}},"id":2},` +
			`{"jsonrpc":"2.0","result":null,"id":3}]`)
		if took := time.Since(began); took > 6*time.Second {
			t.Errorf("it took %v", took)
		}
		p.send("[" + strings.Repeat("1,", 10) + "1]")
		p.want(`{"jsonrpc":"2.0","error":{"code":-32600,"message":"Invalid Request: a batch of 11 requests is larger than 10"},"id":null}`)
		p.send(`[` + strings.Repeat(`{"jsonrpc":"2.0","method":"long","id":1},`, 2) + `{"jsonrpc":"2.0","method":"long","id":1}]`)
		if got := p.read(); strings.Count(got, `"result"`) != 2 || strings.Count(got, `"code":-32008`) != 1 {
			t.Errorf("answers that are too large: %s", got)
		}
		time.Sleep(2 * time.Hour) // for deaf
	})
}

// pipePeer returns the other end of a connection in memory, which works in bubbles.
func pipePeer(t *testing.T, srv *yonder.Server) *peer {
	near, far := net.Pipe()
	served := make(chan struct{})
	go func() { // ends with the connection
		defer close(served)
		srv.ServeConn(far)
	}()
	t.Cleanup(func() {
		near.Close()
		srv.Close()
		<-served
	})
	return newPeer(t, near)
}

// Who has ended its side waits for answers, unless it is gone altogether: then its calls are
// cancelled, as soon as the system tells, however long they may take.
func TestGone(t *testing.T) {
	for _, network := range []string{"tcp", "unix", "tls"} {
		t.Run(network, func(t *testing.T) {
			noLeaks(t)
			srv := new(yonder.Server)
			srv.Limits.KeepAlive = -1 // for ever
			srv.Logger = newLogger(t)
			srv.Protocols = []yonder.Protocol{jsonrpc.Protocol}
			finish, running, ended := make(chan struct{}), make(chan struct{}), make(chan error)
			srv.Register("wait", func() { <-finish })
			srv.Register("hang", func(ctx context.Context) {
				running <- struct{}{}
				<-ctx.Done()
				ended <- context.Cause(ctx)
			})
			dir, err := os.MkdirTemp("", "yonder") // t.TempDir may be too long for a socket
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			address := map[string]string{"unix": filepath.Join(dir, "socket")}[network]
			l, err := net.Listen(map[string]string{"unix": "unix", "tcp": "tcp", "tls": "tcp"}[network], cmp.Or(address, "127.0.0.1:0"))
			if err != nil {
				t.Fatal(err)
			}
			listen, dial := l, func() (net.Conn, error) { return net.Dial(l.Addr().Network(), l.Addr().String()) }
			if network == "tls" {
				h := httptest.NewUnstartedServer(nil)
				h.StartTLS() // for its certificate
				defer h.Close()
				listen = tls.NewListener(l, h.TLS)
				dial = func() (net.Conn, error) {
					return tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true})
				}
			}
			served := make(chan error, 1)
			go func() { served <- srv.Serve(listen) }() // ends with Close
			defer func() { srv.Close(); <-served }()

			conn, err := dial()
			if err != nil {
				t.Fatal(err)
			}
			p := newPeer(t, conn)
			p.send(`{"method":"hang","id":1}{"method":"wait","id":2}{"method":"wait","id":3}`)
			<-running
			if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			finish <- struct{}{}
			if got := p.read(); !strings.HasSuffix(got, `"result":null,"error":null}`) {
				t.Error(got)
			}
			select {
			case err := <-ended:
				t.Errorf("the call was cancelled before its caller had gone: %v", err)
			default:
			}
			conn.Close()
			if network != "unix" {
				finish <- struct{}{} // the answer is refused
			}
			if err := <-ended; !errors.Is(err, yonder.ErrConnectionLost) {
				t.Errorf("the cause is %v", err)
			}
			close(finish)
		})
	}
}
