// Hello is a server with one function, and a client that calls it.
//
//	go run ./examples/hello                            # both, in one process
//	go run ./examples/hello -listen 127.0.0.1:1234     # the server alone
//	go run ./examples/hello -connect 127.0.0.1:1234    # the client alone
//
// It is also what the size of a program is measured by, so it does without the packages
// flag and os/signal, which the other examples use.
package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
)

func main() {
	var listen, connect string
	switch args := os.Args[1:]; {
	case len(args) == 0:
	case len(args) == 2 && args[0] == "-listen":
		listen = args[1]
	case len(args) == 2 && args[0] == "-connect":
		connect = args[1]
	default:
		fmt.Fprintln(os.Stderr, "usage: hello [-listen address | -connect address]")
		os.Exit(2)
	}
	if err := run(context.Background(), listen, connect); err != nil {
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
	if listen != "" {
		fmt.Println("listening on", l.Addr())
		return srv.Serve(l) // until the process is killed
	}
	go srv.Serve(l) // ends with Shutdown
	if err := client(ctx, l.Addr().String()); err != nil {
		return err
	}
	return srv.Shutdown(ctx)
}
