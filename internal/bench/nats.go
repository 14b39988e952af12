//go:build linux

package main

import (
	"context"
	"errors"
	"net"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	"github.com/yonder-rpc/yonder/internal/bench/benchpb"
)

const natsLargest = 8 << 20

// serveNATS runs a NATS server, and answers requests in the same process.
func serveNATS(l net.Listener, _ int) error {
	addr := l.Addr().(*net.TCPAddr)
	if err := l.Close(); err != nil { // the server listens itself
		return err
	}
	s, err := natsserver.NewServer(&natsserver.Options{
		Host: addr.IP.String(), Port: addr.Port,
		MaxPayload: natsLargest, MaxPending: 64 * natsLargest,
		NoSigs: true, NoLog: true,
	})
	if err != nil {
		return err
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		return errors.New("the NATS server has not started")
	}
	conn, err := nats.Connect("", nats.InProcessServer(s))
	if err != nil {
		return err
	}
	var echo pbEcho
	err = errors.Join(
		natsHandle(conn, "bench.small", func() *benchpb.Item { return new(benchpb.Item) }, echo.Small),
		natsHandle(conn, "bench.bytes", func() *benchpb.Data { return new(benchpb.Data) }, echo.Bytes),
		conn.Flush())
	if err != nil {
		return err
	}
	s.WaitForShutdown()
	return net.ErrClosed
}

func natsHandle[Req, Resp proto.Message](conn *nats.Conn, subject string, make func() Req, f func(context.Context, Req) (Resp, error)) error {
	_, err := conn.Subscribe(subject, func(m *nats.Msg) {
		req := make()
		if proto.Unmarshal(m.Data, req) != nil {
			return
		}
		resp, err := f(context.Background(), req)
		if err != nil {
			return
		}
		if b, err := proto.Marshal(resp); err == nil {
			m.Respond(b)
		}
	})
	return err
}

func dialNATS(_ context.Context, t target) (client, error) {
	conn, err := nats.Connect("nats://"+t.addr, nats.NoReconnect())
	if err != nil {
		return nil, err
	}
	return &pbClient{
		item: pbItem(),
		callSmall: func(ctx context.Context, it *benchpb.Item) (*benchpb.Item, error) {
			resp := new(benchpb.Item)
			return resp, natsCall(ctx, conn, "bench.small", it, resp)
		},
		callBytes: func(ctx context.Context, d *benchpb.Data) (*benchpb.Data, error) {
			resp := new(benchpb.Data)
			return resp, natsCall(ctx, conn, "bench.bytes", d, resp)
		},
		shut: func() error {
			conn.Close()
			return nil
		},
	}, nil
}

func natsCall(ctx context.Context, conn *nats.Conn, subject string, req, resp proto.Message) error {
	b, err := proto.Marshal(req)
	if err != nil {
		return err
	}
	m, err := conn.RequestWithContext(ctx, subject, b)
	if err != nil {
		return err
	}
	return proto.Unmarshal(m.Data, resp)
}
