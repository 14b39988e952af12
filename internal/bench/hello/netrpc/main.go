// Netrpc is examples/hello in the manner of net/rpc, to compare what the programs take.
package main

import (
	"errors"
	"fmt"
	"net"
	"net/rpc"
	"os"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// Greeter is the service. It is exported because net/rpc wants that.
type Greeter struct{}

// Hello greets.
func (Greeter) Hello(name string, reply *string) error {
	*reply = "Hello, " + name
	return nil
}

// run serves and calls.
func run() error {
	s := rpc.NewServer()
	if err := s.Register(Greeter{}); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go s.Accept(l) // ends with the listener
	c, err := rpc.Dial("tcp", l.Addr().String())
	if err != nil {
		return err
	}
	var text string
	err = c.Call("Greeter.Hello", "world", &text)
	fmt.Println(text)
	return errors.Join(err, c.Close(), l.Close())
}
