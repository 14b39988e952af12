package auth_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/auth"
)

// Tokens say who calls, and rules who may call what.
func Example() {
	tokens := auth.NewTokens(map[string]string{
		"an-example-of-a-secret": "deploy",
		"another-such-a-secret":  "monitor",
	})
	srv := yonder.Server{Interceptors: []yonder.Interceptor{
		auth.Identify(tokens.Identify),
		auth.Rules{
			{Procedures: []string{"admin.*"}, From: []string{"token:deploy"}},
			{Procedures: []string{"admin.*"}, Deny: true},
			{Procedures: []string{"*"}, From: []string{"*"}},
		}.Intercept,
	}}
	srv.Register("admin.stop", func(ctx context.Context) string { return "stopped by " + auth.FromContext(ctx).String() })
	srv.Register("load", func() int { return 7 })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go srv.Serve(l)
	defer srv.Close()

	for _, token := range []string{"an-example-of-a-secret", "another-such-a-secret", "a-guess"} {
		d := yonder.Dialer{Interceptors: []yonder.Interceptor{auth.Bearer(token)}}
		client, err := d.Dial(context.Background(), l.Addr().String())
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(yonder.Invoke[int](context.Background(), client, "load"))
		fmt.Println(yonder.Invoke[string](context.Background(), client, "admin.stop"))
		client.Close()
	}
	// Output:
	// 7 <nil>
	// stopped by token:deploy <nil>
	// 7 <nil>
	//  yonder: call "admin.stop": token:monitor may not call it
	// 0 yonder: call "load": it needs valid credentials
	//  yonder: call "admin.stop": it needs valid credentials
}

// A source of one's own: tokens that another service knows.
func ExampleSource() {
	verify := func(ctx context.Context, token string) (user string, err error) {
		if token != "signed by the issuer" {
			return "", errors.New("the signature does not fit")
		}
		return "ann", nil
	}
	source := func(ctx context.Context, info yonder.CallInfo) (*auth.Identity, error) {
		token, ok := auth.Token(info)
		if !ok {
			return nil, nil
		}
		user, err := verify(ctx, token)
		if err != nil {
			return nil, err
		}
		return &auth.Identity{Names: []string{"user:" + user}}, nil
	}
	id, err := source(context.Background(), yonder.CallInfo{Metadata: yonder.Metadata{"authorization": "Bearer signed by the issuer"}})
	fmt.Println(id, err)
	// Output: user:ann <nil>
}
