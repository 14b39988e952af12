//go:build linux

package main

import (
	"context"
	"net"
	"net/rpc"
	"net/rpc/jsonrpc"
	"strconv"
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

// netrpcServer is a server of net/rpc's, or of a package with the same API.
type netrpcServer interface {
	RegisterName(name string, rcvr any) error
	Accept(l net.Listener)
}

func acceptNetRPC(s netrpcServer, l net.Listener, procedures int) error {
	if err := registerEchoes(s, procedures); err != nil {
		return err
	}
	s.Accept(l)
	return net.ErrClosed
}

func registerEchoes(s netrpcServer, procedures int) error {
	for i := range procedures {
		if err := s.RegisterName(echoName(i), new(netrpcEcho)); err != nil {
			return err
		}
	}
	return nil
}

func echoName(i int) string { return "Echo" + strconv.Itoa(i) }

func serveNetRPC(l net.Listener, procedures int) error {
	return acceptNetRPC(rpc.NewServer(), l, procedures)
}

func serveNetRPCJSON(l net.Listener, procedures int) error {
	s := rpc.NewServer()
	if err := registerEchoes(s, procedures); err != nil {
		return err
	}
	return acceptAll(l, func(conn net.Conn) { s.ServeCodec(jsonrpc.NewServerCodec(conn)) })
}

// netrpcCaller is a client of net/rpc's, or of a package with the same API.
type netrpcCaller interface {
	Call(method string, args, reply any) error
	Close() error
}

type netrpcClient struct {
	c       netrpcCaller
	item    Item
	methods netrpcMethods
}

type netrpcMethods struct{ small, bytes, blob string }

// echoMethods are netrpcEcho's.
var echoMethods = netrpcMethods{"Echo0.Small", "Echo0.Bytes", "Echo0.Blob"}

func dialNetRPC(ctx context.Context, t target) (client, error) {
	conn, err := t.dial(ctx)
	if err != nil {
		return nil, err
	}
	return &netrpcClient{rpc.NewClient(conn), anItem(), echoMethods}, nil
}

func dialNetRPCJSON(ctx context.Context, t target) (client, error) {
	conn, err := t.dial(ctx)
	if err != nil {
		return nil, err
	}
	return &netrpcClient{jsonrpc.NewClient(conn), anItem(), echoMethods}, nil
}

func (n *netrpcClient) small(context.Context) error {
	var it Item
	err := n.c.Call(n.methods.small, &n.item, &it)
	return checkItem(&it, err)
}

func (n *netrpcClient) procedure(i int) func(context.Context) error {
	method := echoName(i) + ".Small"
	return func(context.Context) error { // as yonderClient's
		var it Item
		err := n.c.Call(method, &n.item, &it)
		return checkItem(&it, err)
	}
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
