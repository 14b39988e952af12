//go:build unix

package mux

import (
	"context"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Who leads never waits in a system call that the scheduler is not told of, even if somebody has made
// the socket a blocking one: all goroutines would stand still.
func TestLeadBlockingSocket(t *testing.T) {
	begun, end := make(chan struct{}), make(chan struct{})
	a, b := sockets(t, config(nobody), config(func(ctx context.Context, in *Incoming) {
		if string(in.Body) == "slow" {
			close(begun)
			<-end
		}
		echo(ctx, in)
	}))
	oneByOne(t, a, b)
	f, err := a.conn.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.SetNonblock(int(f.Fd()), false); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if got, err := call(context.Background(), a, request("slow")); got != "slow" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	})
	<-begun
	within(t, "to collect garbage", runtime.GC)
	close(end)
	wg.Wait()
	b.Close() // which ends a's read: a blocking one cannot be ended otherwise
	<-a.Done()
}

// A handler that computes has to give way while others than the read loop lead, too.
func TestLeadComputes(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	a, b := sockets(t, config(nobody), config(func(ctx context.Context, in *Incoming) {
		if string(in.Body) == "compute" {
			var other atomic.Bool
			go other.Store(true)
			for begun := time.Now(); !other.Load(); {
				if time.Since(begun) > 5*time.Second {
					t.Error("another goroutine does not run")
					break
				}
			}
		}
		echo(ctx, in)
	}))
	for range 20 {
		oneByOne(t, a, b)
		if got, err := call(t.Context(), a, request("compute")); got != "compute" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
	}
}
