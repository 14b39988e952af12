package interop

import (
	"context"
	"fmt"
	stock "net/rpc"
	stockjson "net/rpc/jsonrpc"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/creachadair/jrpc2"
	"github.com/creachadair/jrpc2/channel"
	"github.com/creachadair/jrpc2/jhttp"
	"github.com/gorilla/websocket"
	"github.com/sourcegraph/jsonrpc2"
	socket "github.com/sourcegraph/jsonrpc2/websocket"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/jsonrpc"
	"github.com/yonder-rpc/yonder/net/rpc"
	"github.com/yonder-rpc/yonder/web"
)

// A hello calls HelloService.Hello.
type hello func(name string) (string, error)

// A kind is a kind of client, with a connection of its own.
type kind struct {
	name string
	dial func(t *testing.T, address string) hello // the connection ends with the test
}

// kinds are all there are, one of each protocol and transport at least.
var kinds = []kind{
	{"yonder", func(t *testing.T, address string) hello {
		return ours(t)(yonder.Dial(t.Context(), address))
	}},
	{"yonder over a WebSocket", func(t *testing.T, address string) hello {
		transport := newHTTP(t)
		d := yonder.Dialer{NetDial: (&web.Dialer{Client: transport}).NetDial}
		return ours(t)(d.Dial(t.Context(), "ws://"+address+"/yonder"))
	}},
	{"yonder's net/rpc", func(t *testing.T, address string) hello {
		return rpcHello(t)(rpc.Dial("tcp", address))
	}},
	{"yonder over net/rpc", func(t *testing.T, address string) hello {
		return ours(t)(rpc.Connect(t.Context(), address))
	}},
	{"net/rpc", func(t *testing.T, address string) hello {
		return rpcHello(t)(stock.Dial("tcp", address))
	}},
	{"net/rpc over HTTP", func(t *testing.T, address string) hello {
		return rpcHello(t)(stock.DialHTTP("tcp", address))
	}},
	{"net/rpc/jsonrpc", func(t *testing.T, address string) hello {
		return rpcHello(t)(stockjson.Dial("tcp", address))
	}},
	{"jrpc2 in lines", func(t *testing.T, address string) hello {
		conn := dial(t, address)
		return jrpc2Hello(t, channel.Line(conn, conn))
	}},
	{"jrpc2 with headers", func(t *testing.T, address string) hello {
		conn := dial(t, address)
		return jrpc2Hello(t, channel.LSP(conn, conn))
	}},
	{"jrpc2 over HTTP", func(t *testing.T, address string) hello {
		return jrpc2Hello(t, jhttp.NewChannel("http://"+address+"/jsonrpc", &jhttp.ChannelOptions{Client: newHTTP(t)}))
	}},
	{"sourcegraph over a WebSocket", func(t *testing.T, address string) hello {
		ws, _, err := new(websocket.Dialer).DialContext(t.Context(), "ws://"+address+"/jsonrpc", nil)
		if err != nil {
			t.Fatal(err)
		}
		c := jsonrpc2.NewConn(context.Background(), socket.NewObjectStream(ws), jsonrpc2.HandlerWithError(nil))
		t.Cleanup(func() { c.Close(); <-c.DisconnectNotify() })
		return func(name string) (reply string, err error) {
			err = c.Call(t.Context(), "HelloService.Hello", []string{name}, &reply)
			return reply, err
		}
	}},
	{"yonder's JSON-RPC", func(t *testing.T, address string) hello {
		return ours(t)(jsonrpc.Dial(t.Context(), "tcp://"+address))
	}},
	{"yonder's JSON-RPC over HTTP", func(t *testing.T, address string) hello {
		return ours(t)(jsonrpc.Dial(t.Context(), "http://"+address+"/jsonrpc"))
	}},
	{"the article's", func(t *testing.T, address string) hello {
		c := toy{dial(t, address)}
		return func(name string) (string, error) {
			results, err := c.call("HelloService.Hello", name)
			if err != nil {
				return "", err
			}
			if len(results) != 2 || results[1] != nil {
				return "", fmt.Errorf("results %v", results)
			}
			return results[0].(string), nil
		}
	}},
}

func ours(t *testing.T) func(*yonder.Client, error) hello {
	return func(c *yonder.Client, err error) hello {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return func(name string) (string, error) {
			return yonder.Invoke[string](t.Context(), c, "HelloService.Hello", name)
		}
	}
}

func rpcHello(t *testing.T) func(caller, error) hello {
	return func(c caller, err error) hello {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return func(name string) (reply string, err error) {
			err = c.Call("HelloService.Hello", name, &reply)
			return reply, err
		}
	}
}

func jrpc2Hello(t *testing.T, ch channel.Channel) hello {
	c := jrpc2.NewClient(ch, nil)
	t.Cleanup(func() { c.Close() })
	return func(name string) (reply string, err error) {
		err = c.CallResult(t.Context(), "HelloService.Hello", []string{name}, &reply)
		return reply, err
	}
}

// check has a client call once.
func (h hello) check(t *testing.T, kind, name string) bool {
	t.Helper()
	if reply, err := h(name); reply != "Hello, "+name || err != nil {
		t.Errorf("%s: %q, %v, want \"Hello, %s\"", kind, reply, err, name)
		return false
	}
	return true
}

// Eight clients of each kind call at once.
func TestTogether(t *testing.T) {
	const clients, while = 8, 2 * time.Second
	p := openPlain(t)
	counts := make([]atomic.Int64, len(kinds))
	begin := make(chan struct{})
	var over time.Time // set before begin is closed
	var wg sync.WaitGroup
	for i, k := range kinds {
		for j := range clients {
			h := k.dial(t, p.address)
			wg.Go(func() {
				<-begin
				for n := 0; n == 0 || time.Now().Before(over); n++ {
					if !h.check(t, k.name, fmt.Sprintf("%s %d %d", k.name, j, n)) {
						return
					}
					counts[i].Add(1)
				}
			})
		}
	}
	over = time.Now().Add(while)
	close(begin)
	wg.Wait()
	for i, k := range kinds {
		n := counts[i].Load()
		t.Logf("%6d calls by %s", n, k.name)
		if n < clients {
			t.Errorf("%s: %d calls", k.name, n)
		}
	}
}
