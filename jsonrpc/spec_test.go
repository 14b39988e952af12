package jsonrpc_test

import (
	"context"
	"strings"
	"testing"

	"github.com/yonder-rpc/yonder"
)

// specServer has the procedures of the specification's examples.
func specServer() *yonder.Server {
	srv := new(yonder.Server)
	srv.Add(yonder.Procedure{
		Name: "subtract", Func: func(minuend, subtrahend int) int { return minuend - subtrahend },
		Params: []string{"minuend", "subtrahend"},
	})
	srv.Register("update", func(ctx context.Context, numbers ...int) {})
	srv.Register("sum", func(numbers ...int) int {
		sum := 0
		for _, n := range numbers {
			sum += n
		}
		return sum
	})
	srv.Register("notify_hello", func(n int) {})
	srv.Register("notify_sum", func(numbers ...int) {})
	srv.Register("get_data", func() []any { return []any{"hello", 5} })
	return srv
}

// specExamples are those of section 7 of the specification of JSON-RPC 2.0, in its
// order. The members of each answer are in the order that this package writes them in.
var specExamples = []struct{ name, send, want string }{
	{"positional parameters", `{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}`, `{"jsonrpc": "2.0", "result": 19, "id": 1}`},
	{"positional parameters, the other way round", `{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}`, `{"jsonrpc": "2.0", "result": -19, "id": 2}`},
	{"named parameters", `{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 3}`, `{"jsonrpc": "2.0", "result": 19, "id": 3}`},
	{"named parameters, the other way round", `{"jsonrpc": "2.0", "method": "subtract", "params": {"minuend": 42, "subtrahend": 23}, "id": 4}`, `{"jsonrpc": "2.0", "result": 19, "id": 4}`},
	{"notification", `{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}`, ``},
	{"notification of no method", `{"jsonrpc": "2.0", "method": "foobar"}`, ``},
	{"no such method", `{"jsonrpc": "2.0", "method": "foobar", "id": "1"}`, `{"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": "1"}`},
	{"invalid JSON", `{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]`, `{"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse error"}, "id": null}`},
	{"invalid request", `{"jsonrpc": "2.0", "method": 1, "params": "bar"}`, `{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}`},
	{"batch of invalid JSON", `[
  {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
  {"jsonrpc": "2.0", "method"
]`, `{"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse error"}, "id": null}`},
	{"empty batch", `[]`, `{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}`},
	{"invalid batch, but not empty", `[1]`, `[
  {"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}
]`},
	{"invalid batch", `[1,2,3]`, `[
  {"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null},
  {"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null},
  {"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}
]`},
	{"batch", `[
        {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
        {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},
        {"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},
        {"foo": "boo"},
        {"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
        {"jsonrpc": "2.0", "method": "get_data", "id": "9"}
    ]`, `[
        {"jsonrpc": "2.0", "result": 7, "id": "1"},
        {"jsonrpc": "2.0", "result": 19, "id": "2"},
        {"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null},
        {"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": "5"},
        {"jsonrpc": "2.0", "result": ["hello", 5], "id": "9"}
    ]`},
	{"batch of notifications", `[
        {"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]},
        {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}
    ]`, ``},
}

// compact is an example's text as a server writes it, without white space outside
// strings.
func compact(t *testing.T, text string) string {
	t.Helper()
	if text == "" {
		return ""
	}
	var b strings.Builder
	inString := false
	for _, c := range text {
		if c == '"' {
			inString = !inString
		}
		if inString || !strings.ContainsRune(" \n", c) {
			b.WriteRune(c)
		}
	}
	return b.String()
}

func TestSpecification(t *testing.T) {
	for _, how := range []string{"stream", "header"} {
		t.Run(how, func(t *testing.T) {
			noLeaks(t)
			address := serve(t, specServer())
			for _, e := range specExamples {
				t.Run(e.name, func(t *testing.T) {
					p := dialPeer(t, address)
					p.header = how == "header"
					p.send(e.send)
					if e.want == "" { // what comes next must be the answer to what is sent next
						p.send(`{"jsonrpc": "2.0", "method": "sum", "id": "next"}`)
						p.want(`{"jsonrpc":"2.0","result":0,"id":"next"}`)
						return
					}
					p.want(compact(t, e.want))
				})
			}
		})
	}
}
