//go:build linux

package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"

	"connectrpc.com/connect"

	"github.com/yonder-rpc/yonder/internal/bench/benchpb"
	"github.com/yonder-rpc/yonder/internal/bench/benchpb/benchpbconnect"
)

// connectStreams is how many calls share a connection. The default, 250, would have
// 256 callers use two.
const connectStreams = 10_000

// connectEcho is the service for Connect.
type connectEcho struct{ pbEcho }

func (e *connectEcho) Up(_ context.Context, s *connect.ClientStream[benchpb.Item]) (*benchpb.Size, error) {
	n, err := receiveItems(func() (*benchpb.Item, error) { return connectReceive(s) })
	return &benchpb.Size{Size: int64(n)}, err
}

func (e *connectEcho) Down(_ context.Context, n *benchpb.Size, s *connect.ServerStream[benchpb.Item]) error {
	return sendItems(int(n.Size), s.Send)
}

// connectReceive returns the next item of a stream.
func connectReceive(s interface {
	Receive() bool
	Msg() *benchpb.Item
	Err() error
}) (*benchpb.Item, error) {
	switch {
	case s.Receive():
		return s.Msg(), nil
	case s.Err() != nil:
		return nil, s.Err()
	}
	return nil, io.EOF
}

func serveConnect(l net.Listener, _ int) error {
	mux := http.NewServeMux()
	mux.Handle(benchpbconnect.NewEchoHandler(new(connectEcho)))
	s := &http.Server{
		Handler:   mux,
		Protocols: new(http.Protocols),
		HTTP2:     &http.HTTP2Config{MaxConcurrentStreams: connectStreams},
	}
	s.Protocols.SetUnencryptedHTTP2(true)
	return s.Serve(l)
}

func dialConnect(_ context.Context, t target) (client, error) {
	transport := &http.Transport{
		Protocols: new(http.Protocols),
		HTTP2:     &http.HTTP2Config{StrictMaxConcurrentRequests: true},
	}
	transport.Protocols.SetUnencryptedHTTP2(true)
	c := benchpbconnect.NewEchoClient(&http.Client{Transport: transport}, "http://"+t.addr,
		connect.WithAcceptCompression("gzip", nil, nil)) // nobody else compresses
	return &pbClient{
		item:      pbItem(),
		callSmall: c.Small,
		callBytes: c.Bytes,
		callBlob:  c.Blob,
		openUp: func(ctx context.Context) (upStream, error) {
			s, err := c.Up(ctx)
			return connectUp{s}, err
		},
		openDown: func(ctx context.Context, n *benchpb.Size) (downStream, error) {
			s, err := c.Down(ctx, n)
			return connectDown{s}, err
		},
		shut: func() error {
			transport.CloseIdleConnections()
			return nil
		},
	}, nil
}

type connectUp struct {
	*connect.ClientStreamForClientSimple[benchpb.Item, benchpb.Size]
}

func (s connectUp) CloseAndRecv() (*benchpb.Size, error) { return s.CloseAndReceive() }

type connectDown struct {
	*connect.ServerStreamForClient[benchpb.Item]
}

func (s connectDown) Recv() (*benchpb.Item, error) {
	it, err := connectReceive(s)
	if errors.Is(err, io.EOF) {
		err = errors.Join(err, s.Close())
	}
	return it, err
}
