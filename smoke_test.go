package yonder_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"net"
	"testing"
	"time"

	"github.com/yonder-rpc/yonder"
)

func TestSmoke(t *testing.T) {
	var srv yonder.Server
	srv.Register("queryUser", func(id int) (User, error) {
		if id == 9 {
			return User{}, yonder.Errorf(yonder.NotFound, "no user %d: %w", id, io.EOF)
		}
		return User{"Foo", id}, nil
	})
	srv.Register("sum", func(xs ...int) int {
		n := 0
		for _, x := range xs {
			n += x
		}
		return n
	})
	srv.Register("count", func(ctx context.Context, n int) iter.Seq2[int, error] {
		return func(yield func(int, error) bool) {
			for i := range n {
				if !yield(i, nil) {
					return
				}
			}
			yield(0, errors.New("done"))
		}
	})
	srv.Register("total", func(xs iter.Seq2[int, error]) (int, error) {
		n := 0
		for x, err := range xs {
			if err != nil {
				return 0, err
			}
			n += x
		}
		return n, nil
	})
	srv.Register("size", func(r io.Reader) (int64, error) { return io.Copy(io.Discard, r) })
	srv.Register("read", func(n int) io.Reader { return bytes.NewReader(make([]byte, n)) })
	srv.Register("walk", func(n int, f func(int) (int, error)) (int, error) {
		t := 0
		for i := range n {
			v, err := f(i)
			if err != nil {
				return 0, err
			}
			t += v
		}
		return t, nil
	})
	srv.Register("boom", func() { panic("boom") })
	srv.Register("sleep", func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) })
	srv.Register("big", func(b []byte) []byte { return b })
	yonder.Handle(&srv, "echo", func(ctx context.Context, u User) (User, error) { return u, nil })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(l)
	c, err := yonder.Dial(t.Context(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]*yonder.Client{"tcp": c, "local": yonder.Local(&srv)} {
		t.Run(name, func(t *testing.T) { smoke(t, c) })
	}
	c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
}

func smoke(t *testing.T, c *yonder.Client) {
	var query func(context.Context, int) (User, error)
	c.Bind("queryUser", &query)
	u, err := query(t.Context(), 3)
	t.Log(u, err)
	_, err = query(t.Context(), 9)
	t.Log(err, yonder.CodeOf(err), errors.Is(err, io.EOF), yonder.IsRemote(err))
	t.Log(yonder.Invoke[int](t.Context(), c, "sum", 1, 2, 3))
	t.Log(yonder.Invoke[int](t.Context(), c, "nope", 1, 2, 3))
	t.Log(yonder.Invoke[int](t.Context(), c, "sum", "x"))
	var count func(context.Context, int) (iter.Seq2[int, error], error)
	c.Bind("count", &count)
	seq, err := count(t.Context(), 5)
	if err != nil {
		t.Fatal(err)
	}
	for v, err := range seq {
		t.Log(v, err)
	}
	var total func(xs iter.Seq2[int, error]) (int, error)
	c.Bind("total", &total)
	t.Log(total(func(yield func(int, error) bool) {
		for i := range 100000 {
			if !yield(i, nil) {
				return
			}
		}
	}))
	var size func(io.Reader) (int64, error)
	c.Bind("size", &size)
	t.Log(size(bytes.NewReader(make([]byte, 10<<20))))
	var read func(n int) (io.Reader, error)
	c.Bind("read", &read)
	r, err := read(5 << 20)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(io.Copy(io.Discard, r))
	var walk func(n int, f func(int) (int, error)) (int, error)
	c.Bind("walk", &walk)
	t.Log(walk(10, func(i int) (int, error) { return i * i, nil }))
	t.Log(c.Call(t.Context(), yonder.NewCall("boom")))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	t.Log(c.Call(ctx, yonder.NewCall("sleep")))
	var big func([]byte) ([]byte, error)
	c.Bind("big", &big)
	b, err := big(make([]byte, 3<<20))
	t.Log(len(b), err)
	echo := yonder.Remote[User, User](c, "echo")
	t.Log(echo(t.Context(), User{"x", 1}))
	t.Log(c.Check(t.Context()))
}
