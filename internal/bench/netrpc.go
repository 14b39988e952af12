//go:build linux

package main

import (
	"context"
	"net"
	"net/rpc"
)

// netrpcEcho is the service for net/rpc.
type netrpcEcho struct{ made blobs }

func (e *netrpcEcho) Small(arg *Item, reply *Item) error {
	*reply = *arg
	return nil
}

func (e *netrpcEcho) Bytes(arg []byte, reply *[]byte) error {
	*reply = arg
	return nil
}

func (e *netrpcEcho) Blob(n int, reply *[]byte) error {
	*reply = e.made.get(n)
	return nil
}

func serveNetRPC(l net.Listener) error {
	s := rpc.NewServer()
	if err := s.RegisterName("Echo", new(netrpcEcho)); err != nil {
		return err
	}
	s.Accept(l)
	return net.ErrClosed
}

// rpcCaller is a client of net/rpc's, or of a package with the same API.
type rpcCaller interface {
	Call(method string, args, reply any) error
	Close() error
}

type netrpcClient struct {
	c       rpcCaller
	item    Item
	methods rpcMethods
}

type rpcMethods struct{ small, bytes, blob string }

// echoMethods are netrpcEcho's.
var echoMethods = rpcMethods{"Echo.Small", "Echo.Bytes", "Echo.Blob"}

func dialNetRPC(d *dialer) (client, error) {
	conn, err := d.dial(context.Background())
	if err != nil {
		return nil, err
	}
	return &netrpcClient{rpc.NewClient(conn), anItem(), echoMethods}, nil
}

func (n *netrpcClient) small(context.Context) error {
	var it Item
	err := n.c.Call(n.methods.small, &n.item, &it)
	return checkItem(&it, err)
}

func (n *netrpcClient) bytes(_ context.Context, b []byte) error {
	var got []byte
	err := n.c.Call(n.methods.bytes, b, &got)
	return checkBytes(got, b, err)
}

func (n *netrpcClient) blob(_ context.Context, size int) error {
	var got []byte
	err := n.c.Call(n.methods.blob, size, &got)
	return checkBlob(got, size, err)
}

func (n *netrpcClient) close() error { return n.c.Close() }
