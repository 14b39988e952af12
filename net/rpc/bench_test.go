package rpc_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	stock "net/rpc"
	"os"
	"runtime"
	"testing"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/net/rpc"
)

// caller is a client of either package.
type caller interface {
	Call(serviceMethod string, args any, reply any) error
	Close() error
}

// entrant is one package at both ends.
type entrant struct {
	name  string
	serve func(tb testing.TB) string // an address
	dial  func(tb testing.TB, address string) caller
}

var entrants = []entrant{
	{"standard", serveStock, dialStock},
	{"yonder", func(tb testing.TB) string { return serve(tb, rpc.NewServer()) }, dialOurs},
}

func serveStock(tb testing.TB) string {
	s := stock.NewServer()
	if err := s.Register(new(Math)); err != nil {
		tb.Fatal(err)
	}
	l := listen(tb)
	go s.Accept(l)
	return l.Addr().String()
}

func dialStock(tb testing.TB, address string) caller {
	c, err := stock.Dial("tcp", address)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func dialOurs(tb testing.TB, address string) caller { return dial(tb, address) }

// BenchmarkCall is one caller, and many on one connection, with small and large arguments,
// of the standard package and of this one.
func BenchmarkCall(b *testing.B) {
	log.SetOutput(io.Discard) // the standard server logs that its listener was closed
	defer log.SetOutput(os.Stderr)
	for _, callers := range []int{1, 16, 256} {
		for _, e := range entrants {
			b.Run(fmt.Sprintf("add/callers=%d/%s", callers, e.name), func(b *testing.B) {
				c := e.dial(b, e.serve(b))
				defer c.Close()
				b.ReportAllocs()
				b.SetParallelism(max(1, callers/runtime.GOMAXPROCS(0)))
				args := &Pair{7, 8}
				work := func() error {
					var sum int
					return c.Call("Math.Add", args, &sum)
				}
				parallel(b, callers, work)
			})
		}
	}
	for _, echo := range []struct{ callers, size int }{{1, 1 << 10}, {1, 64 << 10}, {1, 1 << 20}, {256, 1 << 10}, {256, 8 << 10}} {
		for _, e := range entrants {
			b.Run(fmt.Sprintf("echo/callers=%d/bytes=%d/%s", echo.callers, echo.size, e.name), func(b *testing.B) {
				c := e.dial(b, e.serve(b))
				defer c.Close()
				b.ReportAllocs()
				b.SetParallelism(max(1, echo.callers/runtime.GOMAXPROCS(0)))
				b.SetBytes(int64(echo.size))
				arg := bytes.Repeat([]byte{1}, echo.size)
				parallel(b, echo.callers, func() error {
					var reply []byte
					return c.Call("Math.Echo", arg, &reply)
				})
			})
		}
	}
	for _, e := range entrants {
		b.Run("words/"+e.name, func(b *testing.B) {
			c := e.dial(b, e.serve(b))
			defer c.Close()
			b.ReportAllocs()
			arg := map[string][]int{"one": {1, 2, 3}, "two": {4, 5, 6}, "three": make([]int, 1000)}
			parallel(b, 1, func() error {
				var n int
				return c.Call("Math.Count", arg, &n)
			})
		})
	}
}

// BenchmarkProtocol is the standard package's client with the server of the standard package,
// this one, and package yonder's with [rpc.Protocol], with an interceptor and thus with arguments
// that are decoded late, and without.
func BenchmarkProtocol(b *testing.B) {
	log.SetOutput(io.Discard) // the standard server logs that its listener was closed
	defer log.SetOutput(os.Stderr)
	servers := []entrant{
		{name: "standard", serve: serveStock},
		{name: "drop-in", serve: func(tb testing.TB) string { return serve(tb, rpc.NewServer()) }},
		{name: "yonder", serve: func(tb testing.TB) string {
			srv := new(yonder.Server)
			srv.RegisterService("Math", Math{})
			return serveProtocol(tb, srv)
		}},
		{name: "intercepted", serve: func(tb testing.TB) string {
			srv := &yonder.Server{Interceptors: []yonder.Interceptor{letThrough}}
			srv.RegisterService("Math", Math{})
			return serveProtocol(tb, srv)
		}},
		{name: "handle", serve: func(tb testing.TB) string {
			srv := new(yonder.Server)
			yonder.Handle(srv, "Math.Add", func(_ context.Context, args Pair) (int, error) { return args.A + args.B, nil })
			yonder.Handle(srv, "Math.Echo", func(_ context.Context, b []byte) ([]byte, error) { return b, nil })
			return serveProtocol(tb, srv)
		}},
	}
	for _, callers := range []int{1, 16, 256} {
		for _, s := range servers {
			b.Run(fmt.Sprintf("add/callers=%d/%s", callers, s.name), func(b *testing.B) {
				c := dialStock(b, s.serve(b))
				defer c.Close()
				b.ReportAllocs()
				b.SetParallelism(max(1, callers/runtime.GOMAXPROCS(0)))
				args := &Pair{7, 8}
				parallel(b, callers, func() error {
					var sum int
					return c.Call("Math.Add", args, &sum)
				})
			})
		}
	}
	for _, s := range servers {
		b.Run("echo/bytes=65536/"+s.name, func(b *testing.B) {
			c := dialStock(b, s.serve(b))
			defer c.Close()
			b.ReportAllocs()
			b.SetBytes(64 << 10)
			arg := bytes.Repeat([]byte{1}, 64<<10)
			parallel(b, 1, func() error {
				var reply []byte
				return c.Call("Math.Echo", arg, &reply)
			})
		})
	}
}

func parallel(b *testing.B, callers int, work func() error) {
	if callers == 1 {
		for b.Loop() {
			if err := work(); err != nil {
				b.Fatal(err)
			}
		}
		return
	}
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := work(); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func listen(tb testing.TB) net.Listener {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { l.Close() })
	return l
}

// BenchmarkConnect is package yonder's client and server over net/rpc's wire.
func BenchmarkConnect(b *testing.B) {
	srv := new(yonder.Server)
	yonder.Handle(srv, "Math.Add", func(_ context.Context, args Pair) (int, error) { return args.A + args.B, nil })
	c, err := rpc.Connect(b.Context(), serveProtocol(b, srv))
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	for _, callers := range []int{1, 16} {
		b.Run(fmt.Sprintf("bound/callers=%d", callers), func(b *testing.B) {
			var add func(context.Context, Pair) (int, error)
			c.Bind("Math.Add", &add)
			b.ReportAllocs()
			b.SetParallelism(max(1, callers/runtime.GOMAXPROCS(0)))
			parallel(b, callers, func() error { _, err := add(context.Background(), Pair{7, 8}); return err })
		})
		b.Run(fmt.Sprintf("generic/callers=%d", callers), func(b *testing.B) {
			add := yonder.Remote[Pair, int](c, "Math.Add")
			b.ReportAllocs()
			b.SetParallelism(max(1, callers/runtime.GOMAXPROCS(0)))
			parallel(b, callers, func() error { _, err := add(context.Background(), Pair{7, 8}); return err })
		})
	}
}
