//go:build unix

package mux

import (
	"bytes"
	"context"
	"math/rand/v2"
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

// TestGather has pieces of memory be written as far as the socket takes them, and go on from there.
func TestGather(t *testing.T) {
	if !gathers {
		t.Skip("pieces are not gathered on this system, nor with the race detector; go test without -race on Linux does")
	}
	from, to := tcp(t)
	from.(*net.TCPConn).SetWriteBuffer(64 << 10)
	to.(*net.TCPConn).SetReadBuffer(64 << 10)
	r := rand.New(rand.NewPCG(3, 4))
	b := new(batch)
	var want []byte
	for range 3000 {
		p := make([]byte, []int{1, 20, 3000}[r.IntN(3)])
		if r.IntN(1000) == 0 {
			p = make([]byte, maxWrite+1)
		}
		for i := range p {
			p[i] = byte(r.Uint32())
		}
		b.add(p)
		want = append(want, p...)
	}
	w := &writer{conn: from, raw: newRawConn(from, new(lead)), written: new(atomic.Uint64)}
	var got []byte
	buf := make([]byte, 300<<10)
	full := 0
	for {
		all, err := b.writeNow(w)
		if err != nil {
			t.Fatal(err)
		}
		if all {
			break
		}
		full++
		for more := true; more && uint64(len(got)) < w.written.Load(); more = r.IntN(3) > 0 {
			n, err := to.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, buf[:n]...)
		}
	}
	for len(got) < len(want) {
		n, err := to.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, buf[:n]...)
	}
	if full == 0 || !bytes.Equal(got, want) || w.written.Load() != uint64(len(want)) {
		t.Errorf("%d bytes came, the socket was full %d times; want the %d as they were, %d counted", len(got), full, len(want), w.written.Load())
	}
	to.Close()
	b.add(make([]byte, 1<<20))
	for begun := time.Now(); ; b.add([]byte{1}) { // the first may still be taken
		if _, err := b.writeNow(w); err != nil {
			break
		}
		if time.Since(begun) > 10*time.Second {
			t.Fatal("what the other end has closed still takes something")
		}
		runtime.Gosched()
	}
}
