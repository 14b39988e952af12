package yonder_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/yonder-rpc/yonder"
)

const noPeer = "the other end is this one: PeerFrom is nil"

// peers returns a client of srv that others may call too: mine has what they may.
func (m mode) peers(t *testing.T, srv, mine *yonder.Server) *yonder.Client {
	t.Helper()
	m.cannot(t, inProcess, noPeer)
	if mine.Logger == nil {
		mine.Logger = logger(t)
	}
	return m.dialer(t, srv, &yonder.Dialer{Server: mine, Errors: mine.Errors})
}

func TestPeer(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		mine := yonder.Server{Errors: listedErrors}
		mine.Register("me.name", func() string { return "Foo" })
		mine.Register("greet", func(ctx context.Context, u *User) (string, error) {
			if u == nil {
				return "", fmt.Errorf("nobody: %w", &quotaError{Limit: 1})
			}
			return "Hello, " + u.Name, nil
		})
		mine.Register("count", func(n int) iter.Seq2[int, error] { return countTo(n, errSold) })
		mine.Register("size", func(r io.Reader) (int64, error) { return io.Copy(io.Discard, r) })
		mine.Register("walk", walk)
		yonder.Handle(&mine, "double", func(ctx context.Context, n int) (int, error) { return 2 * n, nil })
		srv := yonder.Server{Errors: listedErrors}
		again := 0
		srv.Register("look", func(ctx context.Context) error {
			peer := yonder.PeerFrom(ctx)
			if peer == nil || peer != yonder.PeerFrom(context.WithValue(ctx, testKey{}, 1)) {
				return errors.New("a derived context has another peer")
			}
			var greet func(context.Context, *User) (string, error)
			peer.Bind("greet", &greet)
			if s, err := greet(ctx, &User{Name: "Foo"}); s != "Hello, Foo" || err != nil {
				t.Errorf("greet: %q, %v", s, err)
			}
			_, err := greet(ctx, nil)
			if quota, ok := errors.AsType[*quotaError](err); !ok || quota.Limit != 1 || textOf(err) != "nobody: quota of 1 exceeded" || !yonder.IsRemote(err) {
				t.Errorf("greet(nil): %v", err)
			}
			var me struct {
				Name func() (string, error) `yonder:"name"`
			}
			peer.BindService("me", &me)
			if s, err := me.Name(); s != "Foo" || err != nil {
				t.Errorf("me.name: %q, %v", s, err)
			}
			seq, err := yonder.Invoke[iter.Seq2[int, error]](ctx, peer, "count", 3)
			if err != nil {
				return err
			}
			list, err := collect(seq)
			if diff := cmp.Diff([]int{0, 1, 2}, list); diff != "" || !errors.Is(err, errSold) {
				t.Errorf("count: %v %s", err, diff)
			}
			if n, err := yonder.Invoke[int64](ctx, peer, "size", strings.NewReader("four")); n != 4 || err != nil {
				t.Errorf("size: %d, %v", n, err)
			}
			ran := 0
			if err := peer.Call(ctx, yonder.NewCall("walk", 3, func(int) error { ran++; return nil })); err != nil || ran != 3 {
				t.Errorf("walk: %v after %d", err, ran)
			}
			if n, err := yonder.Remote[int, int](peer, "double")(ctx, 4); n != 8 || err != nil {
				t.Errorf("double: %d, %v", n, err)
			}
			infos, err := peer.Procedures(ctx)
			if len(infos) != 6 || err != nil {
				t.Errorf("procedures: %v, %v", infos, err)
			}
			if err := peer.Check(ctx); err != nil && again == 0 {
				t.Errorf("check: %v", err)
			}
			again++
			var wrong func(context.Context, int) (string, error)
			peer.Bind("greet", &wrong) // in the next call it is the same peer
			if err := peer.Check(ctx); !strings.Contains(textOf(err), "the signatures do not fit") {
				t.Errorf("check: %v", err)
			}
			if err := peer.Close(); err != nil { // does nothing: the connection is not its own
				t.Error(err)
			}
			select {
			case <-peer.Done():
				t.Error("Done, while the connection lives")
			default:
			}
			return peer.Call(ctx, yonder.NewCall("missing"))
		})
		c := m.peers(t, &srv, &mine)
		for range 2 {
			err := c.Call(t.Context(), yonder.NewCall("look"))
			if yonder.CodeOf(err) != yonder.Unimplemented || textOf(err) != `yonder: no procedure "missing"` {
				t.Errorf("got %v (%v)", err, yonder.CodeOf(err))
			}
		}
	})
}

func TestPeersConcurrently(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		var srv, mine yonder.Server
		mine.Register("half", func(n int) int { return n / 2 })
		srv.Register("quarter", func(ctx context.Context, n int) (int, error) {
			var half func(context.Context, int) (int, error)
			yonder.PeerFrom(ctx).Bind("half", &half) // each call its own: binding again costs no name
			n, err := half(ctx, n)
			if err != nil {
				return 0, err
			}
			return half(ctx, n)
		})
		clients := []*yonder.Client{m.peers(t, &srv, &mine), m.peers(t, &srv, &mine)}
		var wg sync.WaitGroup
		for i := range 40 {
			wg.Go(func() {
				for range 25 {
					if n, err := yonder.Invoke[int](t.Context(), clients[i%2], "quarter", 4*i); n != i || err != nil {
						t.Errorf("a quarter of %d: %d, %v", 4*i, n, err)
						return
					}
				}
			})
		}
		wg.Wait()
	})
}

// A call may go to and fro as often as it likes, over the one connection.
func TestPeersNested(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		var srv, mine yonder.Server
		step := func(ctx context.Context, n int) (string, error) {
			if n == 0 {
				return "", nil
			}
			s, err := yonder.Invoke[string](ctx, yonder.PeerFrom(ctx), "step", n-1)
			return fmt.Sprint(n, s), err
		}
		srv.Register("step", step)
		mine.Register("step", step)
		c := m.peers(t, &srv, &mine)
		if s, err := yonder.Invoke[string](t.Context(), c, "step", 9); s != "987654321" || err != nil {
			t.Errorf("got %q, %v", s, err)
		}
		// The end of the outermost call's context ends them all.
		reached, ends := make(chan bool), make(chan error, 4)
		wait := func(ctx context.Context, n int) error {
			defer func() { <-ctx.Done(); ends <- context.Cause(ctx) }()
			if n == 0 {
				close(reached)
				<-ctx.Done()
				return ctx.Err()
			}
			return yonder.PeerFrom(ctx).Call(ctx, yonder.NewCall("wait", n-1))
		}
		srv.Register("wait", wait)
		mine.Register("wait", wait)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-reached; cancel() }()
		if err := c.Call(ctx, yonder.NewCall("wait", 3)); yonder.CodeOf(err) != yonder.Canceled {
			t.Errorf("got %v", err)
		}
		for range 4 {
			if cause := <-ends; cause != context.Canceled {
				t.Errorf("a handler's context ended with %v", cause)
			}
		}
	})
}

// The peer can be called as long as the connection lives, and is told when that is over.
func TestPeerOutlivesItsCall(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		var srv, mine yonder.Server
		mine.Register("echo", func(s string) string { return s })
		keep := make(chan *yonder.Client, 2)
		srv.Register("join", func(ctx context.Context) { keep <- yonder.PeerFrom(ctx) })
		c := m.peers(t, &srv, &mine)
		for range 2 {
			if err := c.Call(t.Context(), yonder.NewCall("join")); err != nil {
				t.Fatal(err)
			}
		}
		peer := <-keep
		if other := <-keep; other != peer {
			t.Error("two calls over a connection have two peers")
		}
		var echo func(context.Context, string) (string, error)
		peer.Bind("echo", &echo)
		if s, err := echo(t.Context(), "a"); s != "a" || err != nil {
			t.Errorf("got %q, %v", s, err)
		}
		c.Close()
		<-peer.Done()
		_, err := echo(t.Context(), "b")
		if yonder.CodeOf(err) != yonder.Unavailable || !errors.Is(err, yonder.ErrConnectionLost) || yonder.IsRemote(err) {
			t.Errorf("after the end: %v (%v)", err, yonder.CodeOf(err))
		}
	})
}

func TestPeerWithoutServer(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		srv.Register("call", func(ctx context.Context) (bool, error) {
			peer := yonder.PeerFrom(ctx)
			if peer == nil {
				return true, nil
			}
			return false, peer.Call(ctx, yonder.NewCall("anything"))
		})
		c := m.client(t, &srv)
		none, err := yonder.Invoke[bool](t.Context(), c, "call")
		if m == inProcess {
			if !none || err != nil {
				t.Errorf("there is a peer in the same process: %t, %v", none, err)
			}
			return
		}
		if yonder.CodeOf(err) != yonder.Unimplemented || !strings.Contains(textOf(err), "serves none") {
			t.Errorf("got %t, %v (%v)", none, err, yonder.CodeOf(err))
		}
	})
	if peer := yonder.PeerFrom(t.Context()); peer != nil {
		t.Error("there is a peer where there is no call")
	}
}

// What either end limits holds for the other.
func TestPeersWithOneCallEach(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		m.cannot(t, inProcess, noPeer)
		limits := yonder.Limits{MaxCalls: 1}
		srv := yonder.Server{Limits: limits}
		var mine yonder.Server
		mine.Register("add", func(a, b int) int { return a + b })
		srv.Register("sum", func(ctx context.Context, n int) (sum int, err error) {
			var wg sync.WaitGroup
			results := make(chan int, n)
			for i := range n {
				wg.Go(func() {
					got, err := yonder.Invoke[int](ctx, yonder.PeerFrom(ctx), "add", i, 1)
					if err != nil {
						t.Error(err)
					}
					results <- got
				})
			}
			wg.Wait()
			close(results)
			for got := range results {
				sum += got
			}
			return sum, nil
		})
		c := m.dialer(t, &srv, &yonder.Dialer{Server: &mine, Limits: limits})
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if n, err := yonder.Invoke[int](t.Context(), c, "sum", 20); n != 210 || err != nil {
					t.Errorf("got %d, %v", n, err)
				}
			})
		}
		wg.Wait()
	})
}
