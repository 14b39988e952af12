//go:build linux

package main

import (
	"context"
	"iter"
	"math"
	"net"
	"strconv"
	"sync"

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
	s.Register("work", toil)
	s.Register("bound.bytes", bytes)
	s.Register("bound.blob", blob)
	s.Add(yonder.Procedure{Name: "lent.bytes", Func: bytes, Lend: true})
	s.Register("bound.up", countItems)
	s.Register("bound.down", someItems)
	s.Register("generic.up", func(ctx context.Context, items yonder.Stream[Item]) (int, error) {
		return countItems(ctx, iter.Seq2[Item, error](items))
	})
	s.Register("generic.down", func(ctx context.Context, n int) yonder.Stream[Item] {
		return yonder.Stream[Item](someItems(ctx, n))
	})
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
	another  func(i int) func(context.Context, Item) (Item, error)
	callUp   func(context.Context, int) (int, error)
	callDown func(context.Context, int) (iter.Seq2[Item, error], error)
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

func bind(c *yonder.Client) *yonderClient {
	y := &yonderClient{c: c, item: anItem()}
	y.another = func(i int) (f func(context.Context, Item) (Item, error)) {
		c.Bind(smallName("bound", i), &f)
		return f
	}
	y.callSmall = y.another(0)
	c.Bind("bound.bytes", &y.callBytes)
	c.Bind("bound.blob", &y.callBlob)
	var up func(context.Context, iter.Seq2[Item, error]) (int, error)
	c.Bind("bound.up", &up)
	y.callUp = func(ctx context.Context, n int) (int, error) { return up(ctx, someItems(ctx, n)) }
	c.Bind("bound.down", &y.callDown)
	return y
}

func (y *yonderClient) up(ctx context.Context, n int) error {
	got, err := y.callUp(ctx, n)
	return checkCount(got, n, err)
}

func (y *yonderClient) down(ctx context.Context, n int) error {
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
	var up func(context.Context, yonder.Stream[Item]) (int, error)
	c.Bind("generic.up", &up)
	var down func(context.Context, int) (yonder.Stream[Item], error)
	c.Bind("generic.down", &down)
	return &yonderClient{
		c:         c,
		item:      anItem(),
		callSmall: another(0),
		callBytes: yonder.Remote[[]byte, []byte](c, "generic.bytes"),
		callBlob:  yonder.Remote[int, []byte](c, "generic.blob"),
		another:   another,
		callUp: func(ctx context.Context, n int) (int, error) {
			return up(ctx, yonder.Stream[Item](someItems(ctx, n)))
		},
		callDown: func(ctx context.Context, n int) (iter.Seq2[Item, error], error) {
			items, err := down(ctx, n)
			return iter.Seq2[Item, error](items), err
		},
	}
}

func (y *yonderClient) small(ctx context.Context) error {
	it, err := y.callSmall(ctx, y.item)
	return checkItem(&it, err)
}

func (y *yonderClient) procedure(i int) func(context.Context) error {
	call := y.another(i)
	return func(ctx context.Context) error { // little memory: each is out of the cache when it is called
		it, err := call(ctx, y.item)
		return checkItem(&it, err)
	}
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

// lentClient has each answer in memory that was another's.
type lentClient struct {
	yonderClient
	memory sync.Pool
}

func dialLent(ctx context.Context, t target) (client, error) {
	c, err := dialYonder(ctx, t)
	if err != nil {
		return nil, err
	}
	return &lentClient{yonderClient: *remote(c), memory: sync.Pool{New: func() any { return new([]byte) }}}, nil
}

func (y *lentClient) bytes(ctx context.Context, b []byte) error {
	got := y.memory.Get().(*[]byte)
	defer y.memory.Put(got)
	err := y.c.Call(ctx, yonder.NewCall("lent.bytes", b).Fill(got))
	return checkBytes(*got, b, err)
}

// timeoutClient calls functions that take no context.
type timeoutClient struct {
	yonderClient
	callSmall func(Item) (Item, error)
}

func dialTimeout(ctx context.Context, t target) (client, error) {
	c, err := dialYonder(ctx, t)
	if err != nil {
		return nil, err
	}
	y := &timeoutClient{yonderClient: *bind(c)}
	c.Bind(smallName("bound", 0), &y.callSmall)
	return y, nil
}

func (y *timeoutClient) small(context.Context) error {
	it, err := y.callSmall(y.item)
	return checkItem(&it, err)
}
