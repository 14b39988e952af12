//go:build linux && peers

package main

import (
	"context"
	"net"

	rpcx "github.com/smallnest/rpcx/client"
	"github.com/smallnest/rpcx/log"
	rpcxserver "github.com/smallnest/rpcx/server"
)

// rpcxEcho is the service for rpcx.
type rpcxEcho struct{ made blobs }

func (e *rpcxEcho) Small(_ context.Context, arg *Item, reply *Item) error {
	*reply = *arg
	return nil
}

func (e *rpcxEcho) Bytes(_ context.Context, arg *[]byte, reply *[]byte) error {
	*reply = *arg
	return nil
}

func (e *rpcxEcho) Blob(_ context.Context, n *int, reply *[]byte) error {
	*reply = e.made.get(*n)
	return nil
}

func init() { log.SetDummyLogger() }

func serveRPCX(l net.Listener, procedures int) error {
	s := rpcxserver.NewServer()
	for i := range procedures {
		if err := s.RegisterName(echoName(i), new(rpcxEcho), ""); err != nil {
			return err
		}
	}
	return s.ServeListener("tcp", l)
}

type rpcxClient struct {
	c    *rpcx.Client
	item Item
}

func dialRPCX(_ context.Context, t target) (client, error) {
	c := rpcx.NewClient(rpcx.DefaultOption)
	if err := c.Connect("tcp", t.addr); err != nil {
		return nil, err
	}
	return &rpcxClient{c, anItem()}, nil
}

func (r *rpcxClient) small(ctx context.Context) error { return r.procedure(0)(ctx) }

func (r *rpcxClient) procedure(i int) func(context.Context) error {
	service := echoName(i)
	return func(ctx context.Context) error {
		var it Item
		err := r.c.Call(ctx, service, "Small", &r.item, &it)
		return checkItem(&it, err)
	}
}

func (r *rpcxClient) bytes(ctx context.Context, b []byte) error {
	var got []byte
	err := r.c.Call(ctx, echoName(0), "Bytes", &b, &got)
	return checkBytes(got, b, err)
}

func (r *rpcxClient) blob(ctx context.Context, n int) error {
	var b []byte
	err := r.c.Call(ctx, echoName(0), "Blob", &n, &b)
	return checkBlob(b, n, err)
}

func (r *rpcxClient) close() error { return r.c.Close() }
