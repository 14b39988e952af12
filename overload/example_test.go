package overload_test

import (
	"context"
	"fmt"
	"log"
	"net"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/auth"
	"github.com/yonder-rpc/yonder/overload"
)

// Each caller has a share, however many connections it has.
func ExampleGate() {
	tokens := auth.NewTokens(map[string]string{"an-example-of-a-secret": "shop"})
	gate := &overload.Gate{
		Running: 64,
		PerConn: 8,
		Key:     func(ctx context.Context, _ yonder.CallInfo) any { return auth.FromContext(ctx).String() },
	}
	srv := yonder.Server{Interceptors: []yonder.Interceptor{auth.Require(tokens.Identify), gate.Intercept}}
	srv.Register("double", func(n int) int { return 2 * n })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go srv.Serve(l)
	defer srv.Close()

	d := yonder.Dialer{Interceptors: []yonder.Interceptor{auth.Bearer("an-example-of-a-secret")}}
	client, err := d.Dial(context.Background(), l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	fmt.Println(yonder.Invoke[int](context.Background(), client, "double", 21))
	fmt.Println(gate.Stats().Admitted)
	// Output:
	// 42 <nil>
	// 1
}
