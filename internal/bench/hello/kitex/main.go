//go:build peers

// Kitex is examples/hello in the manner of Kitex, to compare what the programs take.
package main

import (
	"context"
	"fmt"
	"net"
	"os"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/server"

	"github.com/yonder-rpc/yonder/internal/bench/hello/hellothrift/greeter"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type service struct{}

func (*service) Hello(_ context.Context, name string) (string, error) {
	return "Hello, " + name, nil
}

// run serves and calls.
func run(ctx context.Context) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := greeter.NewServer(new(service), server.WithListener(l))
	go s.Run() // ends with Stop
	c, err := greeter.NewClient("greeter", client.WithHostPorts(l.Addr().String()))
	if err != nil {
		return err
	}
	text, err := c.Hello(ctx, "world")
	if err != nil {
		return err
	}
	fmt.Println(text)
	return s.Stop()
}
