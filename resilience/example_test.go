package resilience_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"sync/atomic"
	"time"

	"github.com/failsafe-go/failsafe-go/adaptivelimiter"
	"golang.org/x/time/rate"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/overload"
	"github.com/yonder-rpc/yonder/resilience"
)

// serve serves on a port of this machine, and returns a client that d makes.
func serve(srv *yonder.Server, d yonder.Dialer) *yonder.Client {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go srv.Serve(l)
	client, err := d.Dial(context.Background(), l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	return client
}

// A client that waits when it is told to, and does not ask a server that is down.
func Example() {
	var asked atomic.Int32
	var srv yonder.Server
	srv.Register("price", func(item string) (int, error) {
		if asked.Add(1) == 1 {
			return 0, yonder.RetryLater(5*time.Millisecond, "one moment, please")
		}
		return 7, nil
	})
	defer srv.Close()

	client := serve(&srv, yonder.Dialer{Interceptors: []yonder.Interceptor{
		resilience.Timeout(10 * time.Second), // of a call, with all attempts
		(&resilience.Retry{}).Intercept,
		resilience.Timeout(5 * time.Second), // of an attempt
		(&resilience.Breaker{}).Intercept,
	}})
	defer client.Close()
	price, err := yonder.Invoke[int](context.Background(), client, "price", "tea")
	fmt.Println(price, err, asked.Load())
	// Output: 7 <nil> 2
}

// A procedure that may be run twice is, if its answer is late: the first of both counts.
func ExampleHedge() {
	var asked atomic.Int32
	var srv yonder.Server
	srv.Add(yonder.Procedure{Name: "price", Idempotent: true, Func: func(ctx context.Context, item string) int {
		if asked.Add(1) == 1 {
			<-ctx.Done() // somebody else's disk is slow today
		}
		return 7
	}})
	defer srv.Close()

	hedge := &resilience.Hedge{After: 5 * time.Millisecond}
	client := serve(&srv, yonder.Dialer{Interceptors: []yonder.Interceptor{hedge.Intercept}})
	defer client.Close()
	fmt.Println(yonder.Invoke[int](context.Background(), client, "price", "tea"))
	// Output: 7 <nil>
}

// A server finds out by itself how many calls it can run at a time.
func ExampleAdaptive() {
	limiter := adaptivelimiter.NewBuilder[any]().WithLimits(1, 200, 20).Build()
	gate := &overload.Gate{Adaptive: resilience.Adaptive(limiter)}
	srv := yonder.Server{Interceptors: []yonder.Interceptor{gate.Intercept}}
	srv.Register("double", func(n int) int { return 2 * n })
	defer srv.Close()

	client := serve(&srv, yonder.Dialer{})
	defer client.Close()
	fmt.Println(yonder.Invoke[int](context.Background(), client, "double", 21))
	// Output: 42 <nil>
}

// Each connection may make so many calls a second, and reports are few for all of them.
func ExampleRates() {
	rates := &resilience.Rates{
		PerConn: 100, Burst: 20,
		Procedures: []resilience.Rate{{Procedures: []string{"report.*"}, Limiter: rate.NewLimiter(rate.Every(time.Hour), 1)}},
	}
	srv := yonder.Server{Interceptors: []yonder.Interceptor{rates.Intercept}}
	srv.Register("report.make", func() string { return "all is well" })
	defer srv.Close()

	client := serve(&srv, yonder.Dialer{})
	defer client.Close()
	for range 2 {
		fmt.Println(yonder.Invoke[string](context.Background(), client, "report.make"))
	}
	// Output:
	// all is well <nil>
	//  yonder: call "report.make": too many calls in a short time
}
