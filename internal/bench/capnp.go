//go:build linux

package main

import (
	"context"
	"net"

	"capnproto.org/go/capnp/v3"
	"capnproto.org/go/capnp/v3/rpc"

	"github.com/yonder-rpc/yonder/internal/bench/benchcapnp"
)

// capnpEcho is the service for Cap'n Proto.
type capnpEcho struct{}

func (capnpEcho) Small(_ context.Context, call benchcapnp.Echo_small) error {
	it, err := call.Args().Item()
	if err != nil {
		return err
	}
	results, err := call.AllocResults()
	if err != nil {
		return err
	}
	return results.SetItem(it)
}

func (capnpEcho) Bytes(_ context.Context, call benchcapnp.Echo_bytes) error {
	b, err := call.Args().Data()
	if err != nil {
		return err
	}
	results, err := call.AllocResults()
	if err != nil {
		return err
	}
	return results.SetData(b)
}

func serveCapnp(l net.Listener, _ int) error {
	return rpc.Serve(l, capnp.Client(benchcapnp.Echo_ServerToClient(capnpEcho{})))
}

type capnpClient struct {
	conn *rpc.Conn
	echo benchcapnp.Echo
	item Item
}

func dialCapnp(ctx context.Context, t target) (client, error) {
	conn, err := t.dial(ctx)
	if err != nil {
		return nil, err
	}
	c := rpc.NewConn(rpc.NewStreamTransport(conn), nil)
	return &capnpClient{c, benchcapnp.Echo(c.Bootstrap(context.Background())), anItem()}, nil
}

func (c *capnpClient) small(ctx context.Context) error {
	future, release := c.echo.Small(ctx, func(p benchcapnp.Echo_small_Params) error {
		it, err := p.NewItem()
		if err != nil {
			return err
		}
		it.SetId(c.item.ID)
		it.SetScore(c.item.Score)
		if err := it.SetName(c.item.Name); err != nil {
			return err
		}
		tags, err := it.NewTags(int32(len(c.item.Tags)))
		if err != nil {
			return err
		}
		for i, tag := range c.item.Tags {
			if err := tags.Set(i, tag); err != nil {
				return err
			}
		}
		return nil
	})
	defer release()
	results, err := future.Struct()
	if err != nil {
		return err
	}
	it, err := results.Item()
	if err != nil {
		return err
	}
	got, err := itemOfCapnp(it)
	return checkItem(&got, err)
}

// itemOfCapnp returns what an item in a message says.
func itemOfCapnp(it benchcapnp.Item) (Item, error) {
	name, err := it.Name()
	if err != nil {
		return Item{}, err
	}
	list, err := it.Tags()
	if err != nil {
		return Item{}, err
	}
	tags := make([]string, list.Len())
	for i := range tags {
		if tags[i], err = list.At(i); err != nil {
			return Item{}, err
		}
	}
	return Item{it.Id(), name, tags, it.Score()}, nil
}

func (c *capnpClient) bytes(ctx context.Context, b []byte) error {
	future, release := c.echo.Bytes(ctx, func(p benchcapnp.Echo_bytes_Params) error { return p.SetData(b) })
	defer release()
	results, err := future.Struct()
	if err != nil {
		return err
	}
	got, err := results.Data()
	return checkBytes(got, b, err)
}

func (c *capnpClient) close() error {
	c.echo.Release()
	return c.conn.Close()
}
