package interop

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	stock "net/rpc"
	stockjson "net/rpc/jsonrpc"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/jsonrpc"
	"github.com/yonder-rpc/yonder/net/rpc"
	rpcjson "github.com/yonder-rpc/yonder/net/rpc/jsonrpc"
)

// A caller is a client of net/rpc, the standard package's or yonder's.
type caller interface {
	Call(method string, args, reply any) error
	Close() error
}

// callServices has a client call what the article's server has.
func callServices(t *testing.T, c caller) {
	t.Helper()
	var hello string
	if err := c.Call("HelloService.Hello", "world", &hello); hello != "Hello, world" || err != nil {
		t.Errorf("Hello: %q, %v", hello, err)
	}
	var sum float64
	if err := c.Call("CalcService.CalcTwoNumber", Calc{2, 3.5, "+"}, &sum); sum != 5.5 || err != nil {
		t.Errorf("CalcTwoNumber: %v, %v", sum, err)
	}
	if err := c.Call("HelloService.Hello", "", &hello); err == nil || err.Error() != "who?" {
		t.Errorf("an error: %v", err)
	}
	for _, name := range []string{"HelloService.Bye", "No.Service"} {
		if err := c.Call(name, "", &hello); err == nil {
			t.Errorf("%s succeeded", name)
		}
	}
	// The connection is as good as before.
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			name, reply := fmt.Sprint(i), ""
			if err := c.Call("HelloService.Hello", name, &reply); reply != "Hello, "+name || err != nil {
				t.Errorf("Hello %s: %q, %v", name, reply, err)
			}
		})
	}
	wg.Wait()
}

// The standard library's clients call yonder.
func TestStockClients(t *testing.T) {
	for _, e := range []struct {
		name, wire string
		dial       func(address string) (*stock.Client, error)
	}{
		{"net/rpc", "netrpc", func(a string) (*stock.Client, error) { return stock.Dial("tcp", a) }},
		{"net/rpc over HTTP", "netrpc", func(a string) (*stock.Client, error) { return stock.DialHTTP("tcp", a) }},
		{"net/rpc/jsonrpc", "jsonrpc", func(a string) (*stock.Client, error) { return stockjson.Dial("tcp", a) }},
	} {
		t.Run(e.name, func(t *testing.T) {
			p := openHasty(t)
			c, err := e.dial(p.address)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			callServices(t, c)
			var wire string
			if err := c.Call("Wire.Name", 0, &wire); wire != e.wire || err != nil {
				t.Errorf("it is served as %q, %v", wire, err)
			}
			if err := c.Call("Errors.NotFound", "tea", new(int)); err != stock.ServerError("there is no tea") {
				t.Errorf("an error with a code: %v", err)
			}
			if err := c.Call("Errors.Panic", 0, new(any)); err == nil {
				t.Error("a panic succeeded")
			}
			// A call whose caller goes away is told so.
			c.Go("Wait.Wait", 0, new(any), nil)
			p.begun(t, e.wire)
			c.Close()
			p.over(t)
		})
	}
}

// Yonder's clients call the standard library's servers.
func TestStockServers(t *testing.T) {
	before := goleak.IgnoreCurrent()
	srv := stock.NewServer()
	srv.Register(new(HelloService))
	srv.Register(new(CalcService))
	var serving sync.WaitGroup
	// accept has each connection to a new port served.
	accept := func(serve func(net.Conn)) (address string) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		serving.Go(func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				serving.Go(func() { serve(conn) })
			}
		})
		t.Cleanup(func() { l.Close() })
		return l.Addr().String()
	}
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	t.Cleanup(serving.Wait)
	gob := accept(func(c net.Conn) { srv.ServeConn(c) })
	json := accept(func(c net.Conn) { srv.ServeCodec(stockjson.NewServerCodec(c)) })
	mux := http.NewServeMux()
	mux.Handle(stock.DefaultRPCPath, srv)
	web := httptest.NewServer(mux)
	t.Cleanup(web.Close)

	for _, e := range []struct {
		name string
		dial func() (*rpc.Client, error)
	}{
		{"net/rpc", func() (*rpc.Client, error) { return rpc.Dial("tcp", gob) }},
		{"net/rpc over HTTP", func() (*rpc.Client, error) { return rpc.DialHTTP("tcp", web.Listener.Addr().String()) }},
		{"net/rpc/jsonrpc", func() (*rpc.Client, error) { return rpcjson.Dial("tcp", json) }},
	} {
		t.Run(e.name, func(t *testing.T) {
			c, err := e.dial()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			callServices(t, c)
			// Context and metadata do no harm.
			ctx, cancel := context.WithTimeout(yonder.WithMetadata(t.Context(), "trace", "x"), patience)
			defer cancel()
			var hello string
			if err := c.CallContext(ctx, "HelloService.Hello", "context", &hello); hello != "Hello, context" || err != nil {
				t.Errorf("%q, %v", hello, err)
			}
		})
	}
	for _, e := range []struct {
		name, address string
		dial          func(ctx context.Context, address string) (*yonder.Client, error)
	}{
		{"yonder, net/rpc", gob, rpc.Connect},
		{"yonder, net/rpc over HTTP", web.URL, rpc.Connect},
		{"yonder, jsonrpc", "tcp://" + json, jsonrpc.Dial},
	} {
		t.Run(e.name, func(t *testing.T) {
			c, err := e.dial(t.Context(), e.address)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			callServices(t, yonderCaller{c, t.Context()})
			var calc func(ctx context.Context, c Calc) (float64, error)
			c.Bind("CalcService.CalcTwoNumber", &calc)
			if got, err := calc(t.Context(), Calc{5, 3, "-"}); got != 2 || err != nil {
				t.Errorf("a bound function: %v, %v", got, err)
			}
			if _, err := calc(t.Context(), Calc{5, 3, "?"}); err == nil || err.Error() != "Illegal Operator" || !yonder.IsRemote(err) {
				t.Errorf("its error: %v", err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := calc(ctx, Calc{}); yonder.CodeOf(err) != yonder.Canceled {
				t.Errorf("a cancelled call: %v", err)
			}
		})
	}
}

// A yonderCaller is a client of yonder's as a caller.
type yonderCaller struct {
	*yonder.Client
	ctx context.Context
}

func (c yonderCaller) Call(method string, args, reply any) error {
	return c.Client.Call(c.ctx, yonder.NewCall(method, args).Into(reply))
}
