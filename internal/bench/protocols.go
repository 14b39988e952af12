//go:build linux

package main

import (
	"context"
	"net"
	stdrpc "net/rpc"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/jsonrpc"
	"github.com/yonder-rpc/yonder/net/rpc"
)

// yonder's other protocols: package net/rpc as a drop-in, at both ends; the standard
// client of net/rpc with a yonder server; and JSON-RPC.

func serveDropIn(l net.Listener, procedures int) error {
	return acceptNetRPC(rpc.NewServer(), l, procedures)
}

func dialDropIn(ctx context.Context, t target) (client, error) {
	conn, err := t.dial(ctx)
	if err != nil {
		return nil, err
	}
	return &netrpcClient{rpc.NewClient(conn), anItem(), echoMethods}, nil
}

func serveProtocols(l net.Listener, procedures int) error {
	s := yonderServer(procedures)
	s.Protocols = []yonder.Protocol{rpc.Protocol, jsonrpc.Protocol}
	return s.Serve(l)
}

func dialNetRPCOfYonder(ctx context.Context, t target) (client, error) {
	conn, err := t.dial(ctx)
	if err != nil {
		return nil, err
	}
	methods := netrpcMethods{small: "bound.small.0", bytes: "bound.bytes", blob: "bound.blob"}
	return &netrpcClient{stdrpc.NewClient(conn), anItem(), methods}, nil
}

func dialJSON(ctx context.Context, t target) (client, error) {
	conn, err := t.dial(ctx)
	if err != nil {
		return nil, err
	}
	return bind(new(jsonrpc.Dialer).NewClient(conn)), nil
}
