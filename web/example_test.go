package web_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/web"
)

// One port for yonder's own protocol, as it is and over WebSockets, and for health checks.
func Example() {
	srv := &yonder.Server{Protocols: []yonder.Protocol{web.Protocol}}
	srv.Register("greet", func(name string) string { return "hello, " + name })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go srv.Serve(l)
	defer srv.Shutdown(context.Background())

	ctx := context.Background()
	for _, address := range []string{"tcp://" + l.Addr().String(), "ws://" + l.Addr().String() + "/yonder"} {
		client, err := web.Dial(ctx, address)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(yonder.Invoke[string](ctx, client, "greet", "ann"))
		client.Close()
	}
	resp, err := http.Get("http://" + l.Addr().String() + "/healthz")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	fmt.Printf("%s %s%v\n", resp.Status, text, err)
	http.DefaultClient.CloseIdleConnections()
	// Output:
	// hello, ann <nil>
	// hello, ann <nil>
	// 200 OK ok
	// <nil>
}

// A server that a program has anyway may have a yonder server among its paths.
func ExampleHandler() {
	srv := new(yonder.Server)
	srv.Register("greet", func(name string) string { return "hello, " + name })
	defer srv.Close()
	mux := http.NewServeMux()
	mux.Handle("/rpc/", http.StripPrefix("/rpc", web.Handler(srv)))
	site := httptest.NewServer(mux)
	defer site.Close()

	ctx := context.Background()
	client, err := web.Dial(ctx, strings.Replace(site.URL, "http", "ws", 1)+"/rpc/yonder")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	fmt.Println(yonder.Invoke[string](ctx, client, "greet", "ann"))
	// Output: hello, ann <nil>
}

// Pages of another origin may call if they are listed, and a program may serve its own.
func ExampleConfig() {
	config := &web.Config{
		Origins: []string{"https://app.example"},
		Other:   http.FileServer(http.Dir("page")),
	}
	srv := &yonder.Server{Protocols: []yonder.Protocol{config.Protocol()}}
	fmt.Println(srv.Protocols[0].Name())
	// Output: http
}

// A client that needs more than an address has a Dialer make its connections.
func ExampleDialer() {
	over := &web.Dialer{
		Client: &http.Client{Transport: &http.Transport{TLSClientConfig: new(tls.Config)}},
		Header: http.Header{"Authorization": {"Bearer secret"}},
	}
	d := yonder.Dialer{NetDial: over.NetDial}
	_, err := d.Dial(context.Background(), "wss://127.0.0.1:1/yonder")
	fmt.Println(yonder.CodeOf(err))
	// Output: unavailable
}

// The page for operators is on an address of its own, which only they can reach.
func ExampleDebug() {
	srv := &yonder.Server{Measure: true}
	srv.Register("greet", func(name string) string { return "hello, " + name })
	defer srv.Close()
	mux := http.NewServeMux()
	mux.Handle("/debug/yonder", web.Debug(srv))
	site := httptest.NewServer(mux)
	defer site.Close()

	yonder.Invoke[string](context.Background(), yonder.Local(srv), "greet", "ann")
	resp, err := http.Get(site.URL + "/debug/yonder?format=json")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	var view struct{ Stats yonder.Stats }
	err = json.NewDecoder(resp.Body).Decode(&view)
	fmt.Println(view.Stats.Calls["greet"].Finished, err)
	http.DefaultClient.CloseIdleConnections()
	// Output: 1 <nil>
}
