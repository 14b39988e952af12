//go:build unix

package jsonrpc_test

import (
	"context"
	"net"
	"net/rpc"
	stdjson "net/rpc/jsonrpc"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/jsonrpc"
)

// Arith is a service of both.
type Arith struct{}

type Args struct {
	A, B int
	Note string
}

type Reply struct {
	C    int
	Note string
}

func (Arith) Add(args *Args, reply *Reply) error {
	reply.C, reply.Note = args.A+args.B, args.Note
	return nil
}

// BenchmarkCallers makes calls of a struct, small or with a long string, over one TCP connection, by so
// many callers at a time: with Go's net/rpc/jsonrpc at both ends, and with this package.
func BenchmarkCallers(b *testing.B) {
	for _, callers := range []struct {
		name string
		n    int
		size int // of a note, in bytes
	}{{"1", 1, 0}, {"16", 16, 0}, {"256", 256, 0}, {"256/8KiB", 256, 8 << 10}} {
		b.Run("std/"+callers.name, func(b *testing.B) {
			srv := rpc.NewServer()
			srv.RegisterName("Arith", Arith{})
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			go func() { // ends with the listener
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					go srv.ServeCodec(stdjson.NewServerCodec(conn))
				}
			}()
			c, err := stdjson.Dial("tcp", l.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			benchmark(b, callers.n, callers.size, func(args *Args, reply *Reply) error { return c.Call("Arith.Add", args, reply) })
		})
		b.Run("yonder/"+callers.name, func(b *testing.B) {
			srv := new(yonder.Server)
			srv.RegisterService("Arith", Arith{})
			c, err := jsonrpc.Dial(b.Context(), serve(b, srv))
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			add := yonder.Remote[*Args, Reply](c, "Arith.Add")
			benchmark(b, callers.n, callers.size, func(args *Args, reply *Reply) (err error) {
				*reply, err = add(context.Background(), args)
				return err
			})
		})
	}
}

func benchmark(b *testing.B, callers, size int, call func(*Args, *Reply) error) {
	b.ReportAllocs()
	before := cpuTime()
	b.ResetTimer()
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			args := &Args{A: 1, B: 2, Note: "a note of some length" + strings.Repeat("!", size)}
			for left.Add(-1) >= 0 {
				var reply Reply
				if err := call(args, &reply); err != nil || reply.C != 3 {
					b.Error(reply, err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(cpuTime()-before)/float64(b.N), "cpu-ns/op")
}

// cpuTime returns the processor time that the process has taken, which other processes
// on the machine disturb less than they do the time that passes.
func cpuTime() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
