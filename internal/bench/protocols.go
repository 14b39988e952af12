//go:build linux

package main

import (
	"context"
	"net"
	stdrpc "net/rpc"
	stdjson "net/rpc/jsonrpc"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/jsonrpc"
	"github.com/yonder-rpc/yonder/net/rpc"
)

// The other protocols, each beside its stock counterpart: package net/rpc as a drop-in, at
// both ends; the standard client of net/rpc with a yonder server; and JSON-RPC.

func serveDropIn(l net.Listener) error {
	s := rpc.NewServer()
	if err := s.RegisterName("Echo", new(netrpcEcho)); err != nil {
		return err
	}
	s.Accept(l)
	return net.ErrClosed
}

func dialDropIn(d *dialer) (client, error) {
	conn, err := d.dial(context.Background())
	if err != nil {
		return nil, err
	}
	return &netrpcClient{rpc.NewClient(conn), anItem(), echoMethods}, nil
}

func serveProtocols(l net.Listener) error {
	s := yonderServer()
	s.Protocols = []yonder.Protocol{rpc.Protocol, jsonrpc.Protocol}
	return s.Serve(l)
}

func dialNetRPCOfYonder(d *dialer) (client, error) {
	conn, err := d.dial(context.Background())
	if err != nil {
		return nil, err
	}
	methods := rpcMethods{"bound.small", "bound.bytes", "bound.blob"}
	return &netrpcClient{stdrpc.NewClient(conn), anItem(), methods}, nil
}

func dialJSON(d *dialer) (client, error) {
	conn, err := d.dial(context.Background())
	if err != nil {
		return nil, err
	}
	return bind(new(jsonrpc.Dialer).NewClient(conn)), nil
}

func serveNetRPCJSON(l net.Listener) error {
	s := stdrpc.NewServer()
	if err := s.RegisterName("Echo", new(netrpcEcho)); err != nil {
		return err
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go s.ServeCodec(stdjson.NewServerCodec(conn)) // ends with the connection
	}
}

func dialNetRPCJSON(d *dialer) (client, error) {
	conn, err := d.dial(context.Background())
	if err != nil {
		return nil, err
	}
	return &netrpcClient{stdjson.NewClient(conn), anItem(), echoMethods}, nil
}
