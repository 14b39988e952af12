// Grpc is examples/hello in the manner of gRPC, to compare what the programs take.
package main

import (
	"context"
	"fmt"
	"net"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/yonder-rpc/yonder/internal/bench/hello/hellopb"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type greeter struct {
	hellopb.UnimplementedGreeterServer
}

func (greeter) Hello(_ context.Context, name *hellopb.Name) (*hellopb.Text, error) {
	return &hellopb.Text{Text: "Hello, " + name.Name}, nil
}

// run serves and calls.
func run(ctx context.Context) error {
	s := grpc.NewServer()
	hellopb.RegisterGreeterServer(s, greeter{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go s.Serve(l) // ends with GracefulStop
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	text, err := hellopb.NewGreeterClient(conn).Hello(ctx, &hellopb.Name{Name: "world"})
	if err != nil {
		return err
	}
	fmt.Println(text.Text)
	if err := conn.Close(); err != nil {
		return err
	}
	s.GracefulStop()
	return nil
}
