package rpc_test

// The code of docs/migration.md is from here: TestMigration checks that.

import (
	"context"
	"fmt"
	"log"
	"net"
	"time"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/net/rpc"
)

// HelloName is what clients call the service.
const HelloName = "HelloService"

// Hello is the service, as both ends see it.
type Hello interface {
	Hello(name string, reply *string) error
}

// RegisterHello lets clients of the default server call hello.
func RegisterHello(hello Hello) error { return rpc.RegisterName(HelloName, hello) }

// HelloService is the service.
type HelloService struct{}

// Hello greets.
func (*HelloService) Hello(name string, reply *string) error {
	*reply = "Hello, " + name
	return nil
}

// HelloClient is the service in another process.
type HelloClient struct{ *rpc.Client }

var _ Hello = HelloClient{}

// DialHello connects to the service.
func DialHello(network, address string) (HelloClient, error) {
	c, err := rpc.Dial(network, address)
	return HelloClient{c}, err
}

// Hello calls the service.
func (c HelloClient) Hello(name string, reply *string) error {
	return c.Call(HelloName+".Hello", name, reply)
}

// Example_dropIn is a program written for net/rpc.
func Example_dropIn() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	if err := RegisterHello(new(HelloService)); err != nil {
		log.Fatal(err)
	}
	go rpc.DefaultServer.Accept(l)
	defer rpc.DefaultServer.Close()

	client, err := DialHello("tcp", l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	var reply string
	if err := client.Hello("world", &reply); err != nil {
		log.Fatal(err)
	}
	fmt.Println(reply)
	// Output: Hello, world
}

// PatientService is HelloService that minds its callers.
type PatientService struct{}

// Hello greets when it is time to.
func (*PatientService) Hello(ctx context.Context, name string, reply *string) error {
	select {
	case <-time.After(time.Hour):
		*reply = "Hello, " + name
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Example_context gives up on a call, at both ends.
func Example_context() {
	s := rpc.NewServer()
	s.RegisterName(HelloName, new(PatientService))
	near, far := net.Pipe()
	go s.ServeConn(far)
	client := rpc.NewClient(near)
	defer client.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	var reply string
	err := client.CallContext(ctx, "HelloService.Hello", "world", &reply)
	fmt.Println(err)
	// Output: context deadline exceeded
}

// Example_protocol has a yonder server answer the clients of net/rpc, and its own.
func Example_protocol() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	srv := &yonder.Server{Protocols: []yonder.Protocol{rpc.Protocol}}
	srv.RegisterService("HelloService", new(HelloService))
	srv.Register("hello", func(ctx context.Context, name string) (string, error) {
		return "Hello, " + name, nil
	})
	go srv.Serve(l)
	defer srv.Close()

	// Clients that have not been moved yet.
	old, err := DialHello("tcp", l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer old.Close()
	var reply string
	if err := old.Hello("old client", &reply); err != nil {
		log.Fatal(err)
	}
	fmt.Println(reply)

	// Clients that have.
	client, err := yonder.Dial(context.Background(), l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	var hello func(ctx context.Context, name string) (string, error)
	client.Bind("HelloService.Hello", &hello)
	greeting, err := hello(context.Background(), "new client")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(greeting)
	// Output:
	// Hello, old client
	// Hello, new client
}

// ExampleConnect has a yonder client call a server of net/rpc.
func ExampleConnect() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	server := rpc.NewServer() // or the standard package's
	server.Register(new(HelloService))
	go server.Accept(l)
	defer server.Close()

	client, err := rpc.Connect(context.Background(), l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	var service struct {
		Hello func(ctx context.Context, name string) (string, error)
	}
	client.BindService("HelloService", &service)
	fmt.Println(service.Hello(context.Background(), "world"))
	// Output: Hello, world <nil>
}

// Example_arguments calls functions of several arguments and results over net/rpc's wire.
func Example_arguments() {
	srv := &yonder.Server{Protocols: []yonder.Protocol{rpc.Protocol}}
	srv.Add(yonder.Procedure{
		Name:   "divide",
		Params: []string{"dividend", "divisor"},
		Func:   func(a, b int) (int, int) { return a / b, a % b },
	})
	near, far := net.Pipe()
	go srv.ServeConn(far)
	defer srv.Close()
	client := rpc.NewClient(near)
	defer client.Close()

	var result struct{ Result1, Result2 int }
	args := struct{ Dividend, Divisor int }{17, 5} // or Arg1 and Arg2
	err := client.Call("divide", args, &result)
	fmt.Println(result.Result1, result.Result2, err)
	// Output: 3 2 <nil>
}
