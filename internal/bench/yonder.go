//go:build linux

package main

import (
	"context"
	"math"
	"net"

	"github.com/yonder-rpc/yonder"
)

// yonderServer has each function twice: with reflection in the call and without.
func yonderServer() *yonder.Server {
	s := &yonder.Server{Limits: yonder.Limits{MaxMessage: math.MaxInt32}}
	var made blobs
	small := func(ctx context.Context, it Item) (Item, error) { return it, nil }
	bytes := func(ctx context.Context, b []byte) ([]byte, error) { return b, nil }
	blob := func(ctx context.Context, n int) ([]byte, error) { return made.get(n), nil }
	s.Register("bound.small", small)
	s.Register("bound.bytes", bytes)
	s.Register("bound.blob", blob)
	yonder.Handle(s, "generic.small", small)
	yonder.Handle(s, "generic.bytes", bytes)
	yonder.Handle(s, "generic.blob", blob)
	return s
}

func serveYonder(l net.Listener) error { return yonderServer().Serve(l) }

// yonderClient calls through func variables, however they came to be.
type yonderClient struct {
	c         *yonder.Client
	item      Item
	callSmall func(context.Context, Item) (Item, error)
	callBytes func(context.Context, []byte) ([]byte, error)
	callBlob  func(context.Context, int) ([]byte, error)
}

func dialYonder(d *dialer) (*yonder.Client, error) {
	own := yonder.Dialer{
		NetDial: func(ctx context.Context, _, _ string) (net.Conn, error) { return d.dial(ctx) },
		Limits:  yonder.Limits{MaxMessage: math.MaxInt32},
	}
	return own.Dial(context.Background(), d.addr)
}

func dialBound(d *dialer) (client, error) {
	c, err := dialYonder(d)
	if err != nil {
		return nil, err
	}
	return bind(c), nil
}

func dialGeneric(d *dialer) (client, error) {
	c, err := dialYonder(d)
	if err != nil {
		return nil, err
	}
	return remote(c), nil
}

func localBound(*dialer) (client, error)   { return bind(yonder.Local(yonderServer())), nil }
func localGeneric(*dialer) (client, error) { return remote(yonder.Local(yonderServer())), nil }

func bind(c *yonder.Client) *yonderClient {
	y := &yonderClient{c: c, item: anItem()}
	c.Bind("bound.small", &y.callSmall)
	c.Bind("bound.bytes", &y.callBytes)
	c.Bind("bound.blob", &y.callBlob)
	return y
}

func remote(c *yonder.Client) *yonderClient {
	return &yonderClient{
		c:         c,
		item:      anItem(),
		callSmall: yonder.Remote[Item, Item](c, "generic.small"),
		callBytes: yonder.Remote[[]byte, []byte](c, "generic.bytes"),
		callBlob:  yonder.Remote[int, []byte](c, "generic.blob"),
	}
}

func (y *yonderClient) small(ctx context.Context) error {
	it, err := y.callSmall(ctx, y.item)
	return checkItem(&it, err)
}

func (y *yonderClient) bytes(ctx context.Context, b []byte) error {
	got, err := y.callBytes(ctx, b)
	return checkBytes(got, b, err)
}

func (y *yonderClient) blob(ctx context.Context, n int) error {
	got, err := y.callBlob(ctx, n)
	return checkBlob(got, n, err)
}

func (y *yonderClient) close() error { return y.c.Close() }
