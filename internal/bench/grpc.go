//go:build linux

package main

import (
	"context"
	"math"
	"net"
	"runtime"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/yonder-rpc/yonder/internal/bench/benchpb"
)

// grpcEcho is the service for gRPC.
type grpcEcho struct {
	benchpb.UnimplementedEchoServer
	pb pbEcho
}

func (e *grpcEcho) Small(ctx context.Context, it *benchpb.Item) (*benchpb.Item, error) {
	return e.pb.Small(ctx, it)
}

func (e *grpcEcho) Bytes(ctx context.Context, d *benchpb.Data) (*benchpb.Data, error) {
	return e.pb.Bytes(ctx, d)
}

func (e *grpcEcho) Blob(ctx context.Context, n *benchpb.Size) (*benchpb.Data, error) {
	return e.pb.Blob(ctx, n)
}

func (e *grpcEcho) Up(s grpc.ClientStreamingServer[benchpb.Item, benchpb.Size]) error {
	n, err := receiveItems(s.Recv)
	if err != nil {
		return err
	}
	return s.SendAndClose(&benchpb.Size{Size: int64(n)})
}

func (e *grpcEcho) Down(n *benchpb.Size, s grpc.ServerStreamingServer[benchpb.Item]) error {
	return sendItems(int(n.Size), s.Send)
}

// What is tuned where gRPC is: windows that hold the largest messages of calls, and buffers
// that hold many small ones. Workers a server, instead of a goroutine a call, too.
const (
	grpcWindow = 16 << 20
	grpcBuffer = 256 << 10
)

func serveGRPC(l net.Listener, procedures int) error { return serveGRPCWith(l, procedures) }

func serveGRPCTuned(l net.Listener, procedures int) error {
	return serveGRPCWith(l, procedures,
		grpc.NumStreamWorkers(uint32(runtime.NumCPU())),
		grpc.InitialWindowSize(grpcWindow), grpc.InitialConnWindowSize(grpcWindow),
		grpc.ReadBufferSize(grpcBuffer), grpc.WriteBufferSize(grpcBuffer))
}

func serveGRPCWith(l net.Listener, procedures int, options ...grpc.ServerOption) error {
	s := grpc.NewServer(append(options, grpc.MaxRecvMsgSize(math.MaxInt32))...)
	echo := new(grpcEcho)
	benchpb.RegisterEchoServer(s, echo)
	for i := range procedures {
		desc := benchpb.Echo_ServiceDesc
		desc.ServiceName = grpcServiceName(i)
		s.RegisterService(&desc, echo)
	}
	return s.Serve(l)
}

func grpcServiceName(i int) string { return "yonder.bench.Echo" + strconv.Itoa(i) }

type grpcClient struct {
	pbClient
	conn *grpc.ClientConn
}

func dialGRPC(_ context.Context, t target) (client, error) { return dialGRPCWith(t) }

func dialGRPCTuned(_ context.Context, t target) (client, error) {
	return dialGRPCWith(t,
		grpc.WithInitialWindowSize(grpcWindow), grpc.WithInitialConnWindowSize(grpcWindow),
		grpc.WithReadBufferSize(grpcBuffer), grpc.WithWriteBufferSize(grpcBuffer))
}

func dialGRPCWith(t target, options ...grpc.DialOption) (client, error) {
	conn, err := grpc.NewClient(t.addr, append(options,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)))...)
	if err != nil {
		return nil, err
	}
	c := benchpb.NewEchoClient(conn)
	return &grpcClient{conn: conn, pbClient: pbClient{
		item: pbItem(),
		callSmall: func(ctx context.Context, it *benchpb.Item) (*benchpb.Item, error) {
			return c.Small(ctx, it)
		},
		callBytes: func(ctx context.Context, d *benchpb.Data) (*benchpb.Data, error) {
			return c.Bytes(ctx, d)
		},
		callBlob: func(ctx context.Context, n *benchpb.Size) (*benchpb.Data, error) {
			return c.Blob(ctx, n)
		},
		openUp: func(ctx context.Context) (upStream, error) { return c.Up(ctx) },
		openDown: func(ctx context.Context, n *benchpb.Size) (downStream, error) {
			return c.Down(ctx, n)
		},
		shut: conn.Close,
	}}, nil
}

// procedure calls as the generated code does.
func (g *grpcClient) procedure(i int) func(context.Context) error {
	method := "/" + grpcServiceName(i) + "/Small"
	return func(ctx context.Context) error {
		it := new(benchpb.Item)
		err := g.conn.Invoke(ctx, method, g.item, it, grpc.StaticMethod())
		return checkPBItem(it, err)
	}
}
