//go:build linux

package main

import (
	"context"
	"net"

	"github.com/containerd/ttrpc"

	"github.com/yonder-rpc/yonder/internal/bench/benchpb"
)

// ttrpcEcho is the service for ttrpc.
type ttrpcEcho struct{ pbEcho }

func (e *ttrpcEcho) Up(_ context.Context, s benchpb.TTRPCEcho_UpServer) (*benchpb.Size, error) {
	n, err := receiveItems(s.Recv)
	return &benchpb.Size{Size: int64(n)}, err
}

func (e *ttrpcEcho) Down(_ context.Context, n *benchpb.Size, s benchpb.TTRPCEcho_DownServer) error {
	return sendItems(int(n.Size), s.Send)
}

func serveTTRPC(l net.Listener, _ int) error {
	s, err := ttrpc.NewServer()
	if err != nil {
		return err
	}
	benchpb.RegisterTTRPCEchoService(s, new(ttrpcEcho))
	return s.Serve(context.Background(), l)
}

func dialTTRPC(ctx context.Context, t target) (client, error) {
	conn, err := t.dial(ctx)
	if err != nil {
		return nil, err
	}
	tc := ttrpc.NewClient(conn)
	c := benchpb.NewTTRPCEchoClient(tc)
	return &pbClient{
		item:      pbItem(),
		callSmall: c.Small,
		callBytes: c.Bytes,
		callBlob:  c.Blob,
		openUp:    func(ctx context.Context) (upStream, error) { return c.Up(ctx) },
		openDown: func(ctx context.Context, n *benchpb.Size) (downStream, error) {
			return c.Down(ctx, n)
		},
		shut: tc.Close,
	}, nil
}
