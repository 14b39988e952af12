package yonder_test

import (
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"iter"
	"math"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/yonder-rpc/yonder"
)

var (
	cuts     = flag.Int("cuts", 2000, "how many connections TestResume loses")
	cutsSeed = flag.Uint64("seed", 0, "what TestResume draws from; 0: another one each time")
)

// lossy is a proxy that loses connections: cuts, stalls, half-closes and truncates them, at random
// positions.
type lossy struct {
	listener net.Listener
	to       string
	calm     atomic.Bool // nothing is lost any more
	lost     atomic.Int64
	kinds    [4]atomic.Int64

	mu   sync.Mutex
	rand *rand.Rand
	wg   sync.WaitGroup
	open map[net.Conn]bool
}

func newLossy(t *testing.T, to string, seed uint64) *lossy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &lossy{listener: l, to: to, rand: rand.New(rand.NewPCG(seed, 1)), open: make(map[net.Conn]bool)}
	p.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.serve(conn.(*net.TCPConn)) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.mu.Lock()
		for c := range p.open {
			c.Close()
		}
		p.mu.Unlock()
		p.wg.Wait()
	})
	return p
}

// budget draws after how many bytes something happens: as likely few as many.
func (p *lossy) budget() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rand.IntN(16) == 0 {
		return p.rand.IntN(128) // in the middle of resuming
	}
	return int(math.Exp2(7 + 10*p.rand.Float64())) // to 128 KiB
}

func (p *lossy) n(n int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rand.IntN(n)
}

func (p *lossy) serve(near *net.TCPConn) {
	conn, err := net.Dial("tcp", p.to)
	if err != nil {
		near.Close()
		return
	}
	far := conn.(*net.TCPConn)
	p.mu.Lock()
	p.open[near], p.open[far] = true, true
	p.mu.Unlock()
	defer func() {
		near.Close()
		far.Close()
		p.mu.Lock()
		delete(p.open, near)
		delete(p.open, far)
		p.mu.Unlock()
	}()
	var once sync.Once
	over := make(chan struct{})
	lose := func(kind int) {
		once.Do(func() {
			p.lost.Add(1)
			p.kinds[kind].Add(1)
			close(over)
		})
		near.Close()
		far.Close()
	}
	pipe := func(to, from *net.TCPConn) {
		left, kind := p.budget(), p.n(4)
		buf := make([]byte, 32<<10)
		for {
			n, err := from.Read(buf)
			if p.calm.Load() {
				left = math.MaxInt
			}
			if n > left {
				switch kind {
				case 0: // cut, without warning
					from.SetLinger(0)
					to.SetLinger(0)
				case 1: // truncate: in order, but in the middle
					to.Write(buf[:left])
				case 2: // half-close: one direction ends, and the other goes on a little
					to.Write(buf[:left])
					to.CloseWrite()
					wait(over, time.Duration(p.n(3000))*time.Microsecond)
				case 3: // stall: nothing arrives, and nobody is told, or a little later
					to.Write(buf[:left])
					wait(over, time.Duration(p.n(60))*time.Millisecond)
				}
				lose(kind)
				return
			}
			left -= n
			if _, e := to.Write(buf[:n]); e != nil || err != nil {
				to.CloseWrite()
				return
			}
		}
	}
	var both sync.WaitGroup
	both.Go(func() { pipe(far, near) })
	pipe(near, far)
	both.Wait()
}

func wait(over <-chan struct{}, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-over:
	case <-t.C:
	}
}

// ledger counts how often each call has run.
type ledger struct {
	mu   sync.Mutex
	runs map[int64]int
}

func (l *ledger) run(id int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.runs[id]++
}

// pattern returns n bytes that follow from id.
func pattern(id int64, n int) []byte {
	b := make([]byte, n)
	x := uint64(id)*0x9e3779b97f4a7c15 + 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	return b
}

// Calls, streams both ways, readers and callbacks go on over connections that are lost again and
// again: each returns once, with the right value, and has run once.
func TestResume(t *testing.T) {
	noLeak(t)
	seed := *cutsSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-seed %d", seed)
	done := ledger{runs: make(map[int64]int)}
	srv := &yonder.Server{Logger: logger(t), ResumeWindow: time.Minute, Limits: yonder.Limits{KeepAlive: 40 * time.Millisecond}}
	srv.Register("echo", func(ctx context.Context, id int64, b []byte) (int64, []byte, error) {
		done.run(id)
		return id, b, nil
	})
	srv.Register("count", func(ctx context.Context, id int64, n int) iter.Seq2[int, error] {
		done.run(id)
		return func(yield func(int, error) bool) {
			for i := range n {
				if !yield(i, nil) {
					return
				}
			}
		}
	})
	srv.Register("sum", func(ctx context.Context, id int64, list iter.Seq2[int, error]) (sum int, err error) {
		done.run(id)
		for v, err := range list {
			if err != nil {
				return 0, err
			}
			sum += v
		}
		return sum, nil
	})
	srv.Register("hash", func(ctx context.Context, id int64, r io.Reader) ([]byte, error) {
		done.run(id)
		h := sha256.New()
		_, err := io.Copy(h, r)
		return h.Sum(nil), err
	})
	srv.Register("twice", func(ctx context.Context, id int64, f func(context.Context, int) (int, error)) (int, error) {
		done.run(id)
		a, err := f(ctx, 1)
		if err != nil {
			return 0, err
		}
		b, err := f(ctx, a)
		return b, err
	})
	l := listenOn(t, "127.0.0.1:0")
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	defer func() { srv.Close(); <-served }()
	p := newLossy(t, l.Addr().String(), seed)
	d := yonder.Dialer{Resume: time.Minute, Logger: logger(t), Limits: yonder.Limits{KeepAlive: 40 * time.Millisecond}, DialTimeout: time.Second}
	const clients, callers = 12, 4
	var next atomic.Int64
	var total [5]atomic.Int64
	var wg sync.WaitGroup
	for k := range clients {
		var c *yonder.Client
		for {
			var err error
			if c, err = d.Dial(t.Context(), p.listener.Addr().String()); err == nil {
				// Before HELLO has come there is nothing to resume.
				var echo func(context.Context, int64, []byte) (int64, []byte, error)
				c.Bind("echo", &echo)
				if _, _, err = echo(t.Context(), 0, nil); err == nil {
					break
				}
				c.Close()
			}
		}
		defer c.Close()
		var echo func(context.Context, int64, []byte) (int64, []byte, error)
		var count func(context.Context, int64, int) (iter.Seq2[int, error], error)
		var sum func(context.Context, int64, iter.Seq2[int, error]) (int, error)
		var hash func(context.Context, int64, io.Reader) ([]byte, error)
		var twice func(context.Context, int64, func(context.Context, int) (int, error)) (int, error)
		c.Bind("echo", &echo)
		c.Bind("count", &count)
		c.Bind("sum", &sum)
		c.Bind("hash", &hash)
		c.Bind("twice", &twice)
		for j := range callers {
			rnd := rand.New(rand.NewPCG(seed, uint64(100+k*callers+j)))
			wg.Go(func() {
				ctx := t.Context()
				for p.lost.Load() < int64(*cuts) && !t.Failed() {
					id := next.Add(1)
					size := int(math.Exp2(18 * rnd.Float64()))
					kind := rnd.IntN(8)
					var err error
					switch kind {
					case 0:
						n, i := size/64, 0
						var list iter.Seq2[int, error]
						if list, err = count(ctx, id, n); err == nil {
							for v, e := range list {
								if e != nil || v != i {
									err = fmt.Errorf("value %d is %d, %w", i, v, e)
									break
								}
								i++
							}
							if err == nil && i != n {
								err = fmt.Errorf("%d values, want %d", i, n)
							}
						}
					case 1:
						n := size / 64
						var got int
						got, err = sum(ctx, id, func(yield func(int, error) bool) {
							for i := range n {
								if !yield(i, nil) {
									return
								}
							}
						})
						if err == nil && got != n*(n-1)/2 {
							err = fmt.Errorf("the sum to %d is %d", n, got)
						}
					case 2:
						b := pattern(id, size)
						pr, pw := io.Pipe()
						go func() { pw.Write(b); pw.Close() }()
						var got []byte
						got, err = hash(ctx, id, pr)
						pr.Close()
						if want := sha256.Sum256(b); err == nil && string(got) != string(want[:]) {
							err = fmt.Errorf("%d bytes arrive as others", size)
						}
					case 3:
						var ran atomic.Int32
						var got int
						got, err = twice(ctx, id, func(_ context.Context, n int) (int, error) { ran.Add(1); return n + 1, nil })
						if err == nil && (got != 3 || ran.Load() != 2) {
							err = fmt.Errorf("%d after %d callbacks", got, ran.Load())
						}
					default:
						if kind > 5 {
							size %= 64
						}
						b := pattern(id, size)
						var gotID int64
						var got []byte
						gotID, got, err = echo(ctx, id, b)
						if err == nil && (gotID != id || string(got) != string(b)) {
							err = fmt.Errorf("call %d of %d bytes gets another's answer, %d of %d bytes", id, size, gotID, len(got))
						}
					}
					total[min(kind, 4)].Add(1)
					if err != nil {
						t.Errorf("call %d, kind %d, size %d: %v", id, kind, size, err)
						return
					}
				}
			})
		}
	}
	start := time.Now()
	wg.Wait()
	p.calm.Store(true)
	done.mu.Lock()
	defer done.mu.Unlock()
	for id := int64(1); id <= next.Load(); id++ {
		if n := done.runs[id]; n != 1 {
			t.Errorf("call %d ran %d times", id, n)
		}
	}
	t.Logf("%d connections lost (cut %d, truncated %d, half-closed %d, stalled %d) in %v; %d echoes, %d streams here, %d there, %d readers, %d callbacks",
		p.lost.Load(), p.kinds[0].Load(), p.kinds[1].Load(), p.kinds[2].Load(), p.kinds[3].Load(), time.Since(start).Round(time.Millisecond),
		total[4].Load(), total[0].Load(), total[1].Load(), total[2].Load(), total[3].Load())
}
