//go:build linux

package main

import (
	"context"
	"net"

	"storj.io/drpc"
	"storj.io/drpc/drpcconn"
	"storj.io/drpc/drpcmanager"
	"storj.io/drpc/drpcmux"
	"storj.io/drpc/drpcpool"
	"storj.io/drpc/drpcserver"
	"storj.io/drpc/drpcwire"

	"github.com/yonder-rpc/yonder/internal/bench/benchpb"
)

// drpcEcho is the service for drpc.
type drpcEcho struct{ pbEcho }

func (e *drpcEcho) Up(s benchpb.DRPCEcho_UpStream) error {
	n, err := receiveItems(s.Recv)
	if err != nil {
		return err
	}
	return s.SendAndClose(&benchpb.Size{Size: int64(n)})
}

func (e *drpcEcho) Down(n *benchpb.Size, s benchpb.DRPCEcho_DownStream) error {
	return sendItems(int(n.Size), s.Send)
}

// drpcManager lets large messages through.
var drpcManager = drpcmanager.Options{Reader: drpcwire.ReaderOptions{MaximumBufferSize: 1 << 30}}

func serveDRPC(l net.Listener, _ int) error {
	mux := drpcmux.New()
	if err := benchpb.DRPCRegisterEcho(mux, new(drpcEcho)); err != nil {
		return err
	}
	s := drpcserver.NewWithOptions(mux, drpcserver.Options{Manager: drpcManager})
	return s.Serve(context.Background(), l)
}

func dialDRPC(ctx context.Context, t target) (client, error) {
	conn, err := drpcDial(ctx, t)
	if err != nil {
		return nil, err
	}
	return drpcClient(conn), nil
}

func drpcDial(ctx context.Context, t target) (*drpcconn.Conn, error) {
	conn, err := t.dial(ctx)
	if err != nil {
		return nil, err
	}
	return drpcconn.NewWithOptions(conn, drpcconn.Options{Manager: drpcManager}), nil
}

func dialDRPCPool(ctx context.Context, t target) (client, error) {
	pool := drpcpool.New[string, drpcpool.Conn](drpcpool.Options{})
	conn := pool.Get(ctx, t.addr, func(ctx context.Context, _ string) (drpcpool.Conn, error) {
		return drpcDial(ctx, t)
	})
	c := drpcClient(conn)
	c.shut = pool.Close
	return c, nil
}

func drpcClient(conn drpc.Conn) *pbClient {
	c := benchpb.NewDRPCEchoClient(conn)
	return &pbClient{
		item:      pbItem(),
		callSmall: c.Small,
		callBytes: c.Bytes,
		callBlob:  c.Blob,
		openUp:    func(ctx context.Context) (upStream, error) { return c.Up(ctx) },
		openDown: func(ctx context.Context, n *benchpb.Size) (downStream, error) {
			return c.Down(ctx, n)
		},
		shut: conn.Close,
	}
}
