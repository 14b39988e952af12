//go:build linux

package main

import (
	"context"
	"iter"
	"math"
	"net"
	"strconv"

	"github.com/yonder-rpc/yonder"
)

// yonderServer has each function twice: with reflection in the call and without.
func yonderServer(procedures int) *yonder.Server {
	s := &yonder.Server{Limits: yonder.Limits{MaxMessage: math.MaxInt32}}
	var made blobs
	small := func(ctx context.Context, it Item) (Item, error) { return it, nil }
	bytes := func(ctx context.Context, b []byte) ([]byte, error) { return b, nil }
	blob := func(ctx context.Context, n int) ([]byte, error) { return made.get(n), nil }
	for i := range procedures {
		s.Register(smallName("bound", i), small)
		yonder.Handle(s, smallName("generic", i), small)
	}
	s.Register("bound.bytes", bytes)
	s.Register("bound.blob", blob)
	s.Register("up", countItems)
	s.Register("down", someItems)
	yonder.Handle(s, "generic.bytes", bytes)
	yonder.Handle(s, "generic.blob", blob)
	return s
}

func smallName(kind string, i int) string { return kind + ".small." + strconv.Itoa(i) }

func countItems(ctx context.Context, items iter.Seq2[Item, error]) (int, error) {
	n := 0
	for it, err := range items {
		if err := checkItem(&it, err); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

func someItems(ctx context.Context, n int) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		it := anItem()
		for range n {
			if !yield(it, nil) {
				return
			}
		}
	}
}

func serveYonder(l net.Listener, procedures int) error { return yonderServer(procedures).Serve(l) }

// yonderClient calls through func variables, however they came to be.
type yonderClient struct {
	c         *yonder.Client
	item      Item
	callSmall func(context.Context, Item) (Item, error)
	callBytes func(context.Context, []byte) ([]byte, error)
	callBlob  func(context.Context, int) ([]byte, error)
	// another returns callSmall of another procedure.
	another func(i int) func(context.Context, Item) (Item, error)
}

func dialYonder(ctx context.Context, t target) (*yonder.Client, error) {
	d := yonder.Dialer{Timeout: t.timeout, Limits: yonder.Limits{MaxMessage: math.MaxInt32}}
	return d.Dial(ctx, t.addr)
}

func dialBound(ctx context.Context, t target) (client, error) {
	c, err := dialYonder(ctx, t)
	if err != nil {
		return nil, err
	}
	return bind(c), nil
}

func dialGeneric(ctx context.Context, t target) (client, error) {
	c, err := dialYonder(ctx, t)
	if err != nil {
		return nil, err
	}
	return remote(c), nil
}

func localBound(context.Context, target) (client, error) {
	return bind(yonder.Local(yonderServer(1))), nil
}

func localGeneric(context.Context, target) (client, error) {
	return remote(yonder.Local(yonderServer(1))), nil
}

// boundClient has streams, too, which Remote has not.
type boundClient struct {
	yonderClient
	callUp   func(context.Context, iter.Seq2[Item, error]) (int, error)
	callDown func(context.Context, int) (iter.Seq2[Item, error], error)
}

func bind(c *yonder.Client) *boundClient {
	y := &boundClient{yonderClient: yonderClient{c: c, item: anItem()}}
	y.another = func(i int) (f func(context.Context, Item) (Item, error)) {
		c.Bind(smallName("bound", i), &f)
		return f
	}
	y.callSmall = y.another(0)
	c.Bind("bound.bytes", &y.callBytes)
	c.Bind("bound.blob", &y.callBlob)
	c.Bind("up", &y.callUp)
	c.Bind("down", &y.callDown)
	return y
}

func (y *boundClient) up(ctx context.Context, n int) error {
	got, err := y.callUp(ctx, someItems(ctx, n))
	return checkCount(got, n, err)
}

func (y *boundClient) down(ctx context.Context, n int) error {
	items, err := y.callDown(ctx, n)
	if err != nil {
		return err
	}
	got, err := countItems(ctx, items)
	return checkCount(got, n, err)
}

func remote(c *yonder.Client) *yonderClient {
	another := func(i int) func(context.Context, Item) (Item, error) {
		return yonder.Remote[Item, Item](c, smallName("generic", i))
	}
	return &yonderClient{
		c:         c,
		item:      anItem(),
		callSmall: another(0),
		callBytes: yonder.Remote[[]byte, []byte](c, "generic.bytes"),
		callBlob:  yonder.Remote[int, []byte](c, "generic.blob"),
		another:   another,
	}
}

func (y *yonderClient) small(ctx context.Context) error {
	it, err := y.callSmall(ctx, y.item)
	return checkItem(&it, err)
}

func (y *yonderClient) procedure(i int) func(context.Context) error {
	one := *y
	one.callSmall = y.another(i)
	return one.small
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

// timeoutClient calls functions that take no context.
type timeoutClient struct {
	boundClient
	callSmall func(Item) (Item, error)
}

func dialTimeout(ctx context.Context, t target) (client, error) {
	c, err := dialYonder(ctx, t)
	if err != nil {
		return nil, err
	}
	y := &timeoutClient{boundClient: *bind(c)}
	c.Bind(smallName("bound", 0), &y.callSmall)
	return y, nil
}

func (y *timeoutClient) small(context.Context) error {
	it, err := y.callSmall(y.item)
	return checkItem(&it, err)
}
