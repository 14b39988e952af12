package tlsconn_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/auth"
	"github.com/yonder-rpc/yonder/tlsconn"
)

// Both ends show a certificate, and handlers know who calls.
func Example() {
	dir, err := os.MkdirTemp("", "yonder")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	writeCertificates(dir) // ca.pem, server.pem, server.key, ann.pem, ann.key
	file := func(name string) string { return filepath.Join(dir, name) }

	srv := yonder.Server{Interceptors: []yonder.Interceptor{auth.Require(tlsconn.Identify)}}
	srv.Register("whoami", func(ctx context.Context) string { return auth.FromContext(ctx).String() })
	server := tlsconn.Config{Certificate: file("server.pem"), Key: file("server.key"), CA: file("ca.pem")}
	l, err := server.Listen("127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go srv.Serve(l)
	defer srv.Close()

	config := tlsconn.Config{Certificate: file("ann.pem"), Key: file("ann.key"), CA: file("ca.pem")}
	d := yonder.Dialer{NetDial: config.NetDial}
	client, err := d.Dial(context.Background(), "tls://"+l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	fmt.Println(yonder.Invoke[string](context.Background(), client, "whoami"))
	// Output: uri:spiffe://example/ann <nil>
}

// A handler may look at all that is known of the connection, whatever protocol the call came over.
func ExampleState() {
	whoami := func(ctx context.Context) (string, error) {
		info, _ := yonder.InfoFrom(ctx)
		state := tlsconn.State(info.Conn)
		if state == nil || len(state.VerifiedChains) == 0 {
			return "", yonder.Errorf(yonder.Unauthenticated, "who are you?")
		}
		return state.PeerCertificates[0].Subject.CommonName, nil
	}
	var srv yonder.Server
	srv.Register("whoami", whoami)
	_, err := yonder.Invoke[string](context.Background(), yonder.Local(&srv), "whoami")
	fmt.Println(err)
	// Output: who are you?
}

// A certificate that no authority has signed is believed by what tells its key from any other.
func ExampleConfig_pins() {
	config := tlsconn.Config{Pins: []string{"sha256//FTHkdP9ZdFYcPFmnw3bDLK8Q2GzEBQS3ZFXkhw9m0DQ="}}
	d := yonder.Dialer{NetDial: config.NetDial}
	_, err := d.Dial(context.Background(), "tls://127.0.0.1:1")
	fmt.Println(yonder.CodeOf(err))
	// Output: unavailable
}
