package session_test

import (
	"context"
	"encoding/gob"
	"fmt"
	"log"
	"net"
	"time"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/session"
)

// Reading is what a thermometer shows.
type Reading struct {
	Room    string
	Celsius float64
}

func readingOf(room string) (Reading, error) {
	if room != "kitchen" {
		return Reading{}, fmt.Errorf("there is no room %q", room)
	}
	return Reading{room, 21.5}, nil
}

func Example() {
	gob.Register(Reading{}) // as in programs that do not leave it to the package

	srv := session.NewServer()
	srv.Register("reading", readingOf)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go srv.Serve(l)
	defer srv.Shutdown(context.Background())

	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	client := session.NewClient(conn)
	defer client.Close()
	var reading func(string) (Reading, error)
	client.Call("reading", &reading)

	fmt.Println(reading("kitchen"))
	fmt.Println(reading("attic"))
	// Output:
	// {kitchen 21.5} <nil>
	// { 0} there is no room "attic"
}

// A yonder.Server answers peers that speak this protocol, beside others.
func ExampleProtocol() {
	srv := &yonder.Server{Protocols: []yonder.Protocol{session.Protocol}}
	srv.Register("reading", readingOf)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go srv.Serve(l)
	defer srv.Shutdown(context.Background())

	ctx := context.Background()
	client, err := session.Dial(ctx, l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	fmt.Println(yonder.Invoke[Reading](ctx, client, "reading", "kitchen"))
	// Output: {kitchen 21.5} <nil>
}

// A Dialer's clients have what it has, and connect again when a connection is lost.
func ExampleDialer() {
	srv := &yonder.Server{Protocols: []yonder.Protocol{session.Protocol}}
	srv.Register("reading", readingOf)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go srv.Serve(l)
	defer srv.Shutdown(context.Background())

	d := session.Dialer{Client: yonder.Dialer{Timeout: 10 * time.Second}}
	client, err := d.Dial(context.Background(), l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	var reading func(string) (Reading, error)
	client.Bind("reading", &reading)
	fmt.Println(reading("kitchen"))
	// Output: {kitchen 21.5} <nil>
}

// Messages of any kind go through a Session.
func ExampleSession() {
	near, far := net.Pipe()
	go session.NewSession(near).Write([]byte("hello"))
	message, err := session.NewSession(far).Read()
	fmt.Printf("%s %v\n", message, err)
	// Output: hello <nil>
}
