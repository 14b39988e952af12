// Progress has a function that reports how far it is by calling another, which is
// one of its arguments and runs at the caller's.
//
//	go run ./examples/progress                            # both, in one process
//	go run ./examples/progress -listen 127.0.0.1:1234     # the server alone
//	go run ./examples/progress -connect 127.0.0.1:1234    # the client alone
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
)

func main() {
	listen := flag.String("listen", "", "only serve, on this `address`")
	connect := flag.String("connect", "", "only call, the server at this `address`")
	flag.Parse()
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *listen, *connect); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run serves, or calls, or both.
func run(ctx context.Context, listen, connect string) error {
	if connect != "" {
		return client(ctx, connect)
	}
	l, err := net.Listen("tcp", cmp.Or(listen, "127.0.0.1:0"))
	if err != nil {
		return err
	}
	srv := server()
	go srv.Serve(l) // ends with Shutdown
	if listen != "" {
		fmt.Println("listening on", l.Addr())
		<-ctx.Done()
	} else if err = client(ctx, l.Addr().String()); err != nil {
		return err
	}
	return srv.Shutdown(context.Background())
}
