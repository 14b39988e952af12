//go:build linux && peers

package main

import (
	"context"
	"net"

	kclient "github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/pkg/klog"
	"github.com/cloudwego/kitex/pkg/remote/trans/netpollmux"
	kserver "github.com/cloudwego/kitex/server"
	"github.com/cloudwego/kitex/transport"

	"github.com/yonder-rpc/yonder/internal/bench/benchthrift"
	"github.com/yonder-rpc/yonder/internal/bench/benchthrift/echo"
)

// kitexEcho is the service for Kitex.
type kitexEcho struct{ made blobs }

func (e *kitexEcho) Small(_ context.Context, it *benchthrift.Item) (*benchthrift.Item, error) {
	return it, nil
}

func (e *kitexEcho) Bytes(_ context.Context, b []byte) ([]byte, error) { return b, nil }

func (e *kitexEcho) Blob(_ context.Context, n int64) ([]byte, error) {
	return e.made.get(int(n)), nil
}

func init() { klog.SetLevel(klog.LevelError) }

func serveKitex(l net.Listener, _ int) error {
	return echo.NewServer(new(kitexEcho), kserver.WithListener(l), kserver.WithMuxTransport()).Run()
}

type kitexClient struct {
	c    echo.Client
	pool *netpollmux.MuxPool
	item *benchthrift.Item
}

func dialKitex(_ context.Context, t target) (client, error) {
	pool := netpollmux.NewMuxConnPool(1)
	c, err := echo.NewClient("echo", kclient.WithHostPorts(t.addr),
		// As WithMuxConnection(1), whose connection nobody can close.
		kclient.WithConnPool(pool), kclient.WithTransHandlerFactory(netpollmux.NewCliTransHandlerFactory()), kclient.WithTransportProtocol(transport.TTHeader))
	if err != nil {
		return nil, err
	}
	it := anItem()
	return &kitexClient{c, pool, &benchthrift.Item{Id: it.ID, Name: it.Name, Tags: it.Tags, Score: it.Score}}, nil
}

func (k *kitexClient) small(ctx context.Context) error {
	it, err := k.c.Small(ctx, k.item)
	if err != nil {
		return err
	}
	return checkItem(&Item{it.Id, it.Name, it.Tags, it.Score}, nil)
}

func (k *kitexClient) bytes(ctx context.Context, b []byte) error {
	got, err := k.c.Bytes(ctx, b)
	return checkBytes(got, b, err)
}

func (k *kitexClient) blob(ctx context.Context, n int) error {
	b, err := k.c.Blob(ctx, int64(n))
	return checkBlob(b, n, err)
}

func (k *kitexClient) close() error { return k.pool.Close() }
