package jsonrpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/jsonrpc"
)

// A server speaks JSON-RPC beside yonder's own protocol, on one port.
func Example() {
	var srv yonder.Server
	srv.Protocols = []yonder.Protocol{jsonrpc.Protocol}
	srv.Register("HelloService.Hello", func(name string) string { return "Hello, " + name })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go srv.Serve(l)
	defer srv.Close()

	client, err := jsonrpc.Dial(context.Background(), "tcp://"+l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	var hello func(ctx context.Context, name string) (string, error)
	client.Bind("HelloService.Hello", &hello)
	text, err := hello(context.Background(), "JSON-RPC")
	fmt.Println(text, err)
	// Output: Hello, JSON-RPC <nil>
}

func ExampleHandler() {
	var srv yonder.Server
	srv.Add(yonder.Procedure{
		Name: "subtract", Func: func(minuend, subtrahend int) int { return minuend - subtrahend },
		Params: []string{"minuend", "subtrahend"},
	})
	mux := http.NewServeMux()
	mux.Handle("/jsonrpc", jsonrpc.Handler(&srv))
	h := httptest.NewServer(mux)
	defer h.Close()

	body := `{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 3}`
	answer, err := http.Post(h.URL+"/jsonrpc", "application/json", strings.NewReader(body))
	if err != nil {
		log.Fatal(err)
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(answer.Body)
	fmt.Printf("%s", text)
	// Output: {"jsonrpc":"2.0","result":19,"id":3}
}

// Any stream of bytes can be served: a child process's, for one, by [jsonrpc.Stdio].
func ExampleServe() {
	var srv yonder.Server
	srv.Register("count", func(n int) iter.Seq2[int, error] {
		return func(yield func(int, error) bool) {
			for i := 0; i < n && yield(i, nil); i++ {
			}
		}
	})
	near, far := net.Pipe()
	go jsonrpc.Serve(&srv, far)
	defer srv.Close()

	client := new(jsonrpc.Dialer).NewClient(near)
	defer client.Close()
	numbers, err := yonder.Invoke[iter.Seq2[int, error]](context.Background(), client, "count", 3)
	if err != nil {
		log.Fatal(err)
	}
	for n, err := range numbers {
		fmt.Println(n, err)
	}
	// Output:
	// 0 <nil>
	// 1 <nil>
	// 2 <nil>
}

// A procedure that takes anything.
func ExampleParams() {
	var srv yonder.Server
	srv.Register("log", func(p jsonrpc.Params) string { return "got " + string(p) })
	near, far := net.Pipe()
	go jsonrpc.Serve(&srv, far)
	defer srv.Close()

	client := new(jsonrpc.Dialer).NewClient(near)
	defer client.Close()
	text, err := yonder.Invoke[string](context.Background(), client, "log", jsonrpc.Params(`{"level": "info"}`))
	fmt.Println(text, err)
	// Output: got {"level": "info"} <nil>
}

// A handler may choose its own code.
func ExampleError() {
	var srv yonder.Server
	srv.Register("pay", func() error {
		return &jsonrpc.Error{Code: 402, Message: "too little", Data: map[string]int{"short": 5}}
	})
	near, far := net.Pipe()
	go jsonrpc.Serve(&srv, far)
	defer srv.Close()

	client := new(jsonrpc.Dialer).NewClient(near)
	defer client.Close()
	err := client.Call(context.Background(), yonder.NewCall("pay"))
	if e, ok := errors.AsType[*jsonrpc.Error](err); ok {
		fmt.Printf("%d %s %s\n", e.Code, e.Message, e.Data)
	}
	// Output: 402 too little {"short":5}
}

// Metadata and deadlines travel over HTTP, too.
func ExampleDialer() {
	var srv yonder.Server
	srv.Register("whoami", func(ctx context.Context) string {
		info, _ := yonder.InfoFrom(ctx)
		return info.Metadata["user"] + " by " + info.Protocol
	})
	h := httptest.NewServer(jsonrpc.Handler(&srv))
	defer h.Close()

	d := jsonrpc.Dialer{Header: http.Header{"Authorization": {"Bearer secret"}}}
	client, err := d.Dial(context.Background(), h.URL)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	ctx := yonder.WithMetadata(context.Background(), "user", "ann")
	text, err := yonder.Invoke[string](ctx, client, "whoami")
	fmt.Println(text, err)
	// Output: ann by jsonrpc <nil>
}

// Pages of another origin may call.
func ExampleConfig() {
	var srv yonder.Server
	config := jsonrpc.Config{Origins: []string{"https://app.example"}, MaxBatch: 20}
	h := httptest.NewServer(config.Handler(&srv))
	defer h.Close()

	ask, _ := http.NewRequest("OPTIONS", h.URL, nil)
	ask.Header.Set("Origin", "https://app.example")
	answer, err := http.DefaultClient.Do(ask)
	if err != nil {
		log.Fatal(err)
	}
	defer answer.Body.Close()
	fmt.Println(answer.Status, answer.Header.Get("Access-Control-Allow-Methods"))
	// Output: 204 No Content POST
}
