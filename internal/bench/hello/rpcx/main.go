//go:build peers

// Rpcx is examples/hello in the manner of rpcx, to compare what the programs take.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/smallnest/rpcx/client"
	"github.com/smallnest/rpcx/log"
	"github.com/smallnest/rpcx/server"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// Greeter is the service. It is exported because rpcx wants that.
type Greeter struct{}

// Hello greets.
func (Greeter) Hello(_ context.Context, name *string, reply *string) error {
	*reply = "Hello, " + *name
	return nil
}

// run serves and calls.
func run(ctx context.Context) error {
	log.SetDummyLogger() // it writes to the standard output that the listener is closed
	s := server.NewServer()
	if err := s.Register(Greeter{}, ""); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go s.ServeListener("tcp", l) // ends with Shutdown
	c := client.NewClient(client.DefaultOption)
	if err := c.Connect("tcp", l.Addr().String()); err != nil {
		return err
	}
	name, text := "world", ""
	err = c.Call(ctx, "Greeter", "Hello", &name, &text)
	fmt.Println(text)
	return errors.Join(err, c.Close(), s.Shutdown(ctx))
}
