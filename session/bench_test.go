package session_test

import (
	"context"
	"encoding/gob"
	"fmt"
	"net"
	"runtime"
	"testing"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/session"
)

// BenchmarkCall is one caller, and many on one connection, with numbers and with structs.
func BenchmarkCall(b *testing.B) {
	gob.Register(Account{})
	srv := &yonder.Server{Protocols: []yonder.Protocol{session.Protocol}}
	srv.Register("add", func(x, y int) int { return x + y })
	srv.Register("pay", func(a Account, cents int) (Account, error) { a.Cents -= cents; return a, nil })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go srv.Serve(l) // ends with Close
	defer srv.Close()
	c, err := session.Dial(b.Context(), l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	var add func(context.Context, int, int) (int, error)
	c.Bind("add", &add)
	var pay func(context.Context, Account, int) (Account, error)
	c.Bind("pay", &pay)
	for _, callers := range []int{1, 16} {
		for _, call := range []struct {
			name string
			do   func() error
		}{
			{"add", func() error { _, err := add(b.Context(), 7, 8); return err }},
			{"pay", func() error { _, err := pay(b.Context(), Account{"ann", 100}, 8); return err }},
		} {
			b.Run(fmt.Sprintf("%s/callers=%d", call.name, callers), func(b *testing.B) {
				b.ReportAllocs()
				b.SetParallelism(max(1, callers/runtime.GOMAXPROCS(0)))
				if callers == 1 {
					for b.Loop() {
						if err := call.do(); err != nil {
							b.Fatal(err)
						}
					}
					return
				}
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if err := call.do(); err != nil {
							b.Error(err)
							return
						}
					}
				})
			})
		}
	}
}
