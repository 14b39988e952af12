//go:build linux

package main

import (
	"context"
	"math"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/yonder-rpc/yonder/internal/bench/benchpb"
)

// grpcEcho is the service for gRPC.
type grpcEcho struct {
	benchpb.UnimplementedEchoServer
	made blobs
}

func (e *grpcEcho) Small(_ context.Context, it *benchpb.Item) (*benchpb.Item, error) {
	return it, nil
}

func (e *grpcEcho) Bytes(_ context.Context, d *benchpb.Data) (*benchpb.Data, error) {
	return d, nil
}

func (e *grpcEcho) Blob(_ context.Context, n *benchpb.Size) (*benchpb.Data, error) {
	return &benchpb.Data{Data: e.made.get(int(n.Size))}, nil
}

func serveGRPC(l net.Listener) error {
	s := grpc.NewServer(grpc.MaxRecvMsgSize(math.MaxInt32))
	benchpb.RegisterEchoServer(s, new(grpcEcho))
	return s.Serve(l)
}

type grpcClient struct {
	conn *grpc.ClientConn
	c    benchpb.EchoClient
	item *benchpb.Item
}

func dialGRPC(d *dialer) (client, error) {
	conn, err := grpc.NewClient(d.addr,
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return d.dial(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)))
	if err != nil {
		return nil, err
	}
	it := anItem()
	return &grpcClient{conn, benchpb.NewEchoClient(conn),
		&benchpb.Item{Id: it.ID, Name: it.Name, Tags: it.Tags, Score: it.Score}}, nil
}

func (g *grpcClient) small(ctx context.Context) error {
	it, err := g.c.Small(ctx, g.item)
	if err == nil && (it.Id != g.item.Id || len(it.Name) != 16 || len(it.Tags) != 2 || it.Score != 0.25) {
		return errDiffers
	}
	return err
}

func (g *grpcClient) bytes(ctx context.Context, b []byte) error {
	d, err := g.c.Bytes(ctx, &benchpb.Data{Data: b})
	return checkBytes(d.GetData(), b, err)
}

func (g *grpcClient) blob(ctx context.Context, n int) error {
	d, err := g.c.Blob(ctx, &benchpb.Size{Size: int64(n)})
	return checkBlob(d.GetData(), n, err)
}

func (g *grpcClient) close() error { return g.conn.Close() }
