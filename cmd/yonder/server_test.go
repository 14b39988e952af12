package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/yonder-rpc/yonder"
)

// Everything has a field of every kind.
type Everything struct {
	Flag   bool `json:"flag,omitempty"`
	Small  int8
	Wide   uint64
	Ratio  float32
	Name   string `json:"name"`
	Data   []byte
	Sum    [2]byte
	At     time.Time
	Every  time.Duration
	Big    *big.Int
	Addr   netip.Addr
	Counts map[string]int
	ByID   map[int]Inner
	Any    any
	Next   *Inner
	List   []Inner
}

// Inner is inside Everything.
type Inner struct{ A, B int }

// Tree contains itself.
type Tree struct {
	Value       int
	Left, Right *Tree
}

// Exotic has what reflect cannot build, or another process cannot know.
type Exotic struct {
	Numbered int `cbor:"1,keyasint"`
}

// sampleServer returns a server with functions of every shape. entered gets a value
// whenever the procedure sleep is entered.
func sampleServer(entered chan<- struct{}) *yonder.Server {
	srv := &yonder.Server{Codecs: []yonder.Codec{yonder.JSON}}
	srv.Register("echo", func(e Everything) Everything { return e })
	srv.Register("text", func(s string) string { return s })
	srv.Register("any", func(v any) (string, any) { return fmt.Sprintf("%T", v), v })
	srv.Register("bytes", func(b []byte) (int, []byte) { return len(b), b })
	srv.Register("optional", func(a int, b *int) (int, *int) { return a, b })
	srv.Register("concat", func(sep string, words ...string) string { return strings.Join(words, sep) })
	srv.Register("depth", depth)
	srv.Register("grow", grow)
	srv.Register("exotic", func() Exotic { return Exotic{7} })
	srv.Register("nan", func() []float64 { return []float64{math.NaN(), math.Inf(1), math.Inf(-1), 1.5} })
	srv.Register("keys", func() (map[bool]int, map[any]any) {
		return map[bool]int{true: 1, false: 0}, map[any]any{"a": 1, 2: "b"}
	})
	srv.Register("total", func(xs iter.Seq2[float64, error]) (float64, error) {
		total := 0.0
		for x, err := range xs {
			if err != nil {
				return 0, err
			}
			total += x
		}
		return total, nil
	})
	srv.Register("upper", func(lines iter.Seq[string]) iter.Seq[string] {
		return func(yield func(string) bool) {
			for line := range lines {
				if !yield(strings.ToUpper(line)) {
					return
				}
			}
		}
	})
	srv.Register("broken", func() iter.Seq2[Inner, error] {
		return func(yield func(Inner, error) bool) {
			if yield(Inner{1, 2}, nil) {
				yield(Inner{}, yonder.Errorf(yonder.DataLoss, "the rest is gone"))
			}
		}
	})
	srv.Register("zeros", func(n int64) io.Reader { return io.LimitReader(zeros{}, n) })
	srv.Register("cat", func(r io.Reader) io.Reader { return r })
	srv.Register("visit", func(n int, f func(name string, more ...int) (int, error)) (int, error) {
		sum := 0
		for i := range n {
			v, err := f("x", i, i*i)
			if err != nil {
				return 0, err
			}
			sum += v
		}
		return sum, nil
	})
	srv.Register("parallel", func(n int, f func(int) error) error {
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() { f(i) })
		}
		wg.Wait()
		return nil
	})
	srv.Register("header", func(ctx context.Context, key string) string {
		info, _ := yonder.InfoFrom(ctx)
		return info.Metadata[key]
	})
	srv.Register("sleep", func(ctx context.Context) error {
		entered <- struct{}{}
		<-ctx.Done()
		return context.Cause(ctx)
	})
	srv.Register("fail", func(code yonder.Code) error {
		return &yonder.Error{Code: code, Message: "as asked \x1b[31m", Details: map[string]int{"hint": 1}}
	})
	srv.Register("plainError", func() error { return errors.New("just a text") })
	srv.Register("panics", func() { panic("at the handler") })
	return srv
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func depth(t *Tree) int {
	if t == nil {
		return 0
	}
	return 1 + max(depth(t.Left), depth(t.Right))
}

func grow(n int) *Tree {
	if n == 0 {
		return nil
	}
	return &Tree{n, grow(n - 1), nil}
}

// strangers are servers that are none of yonder's, by a name.
var strangers = map[string]func(net.Conn){
	"http": func(c net.Conn) {
		defer c.Close()
		c.Read(make([]byte, 1))
		io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
	},
	"closing": func(c net.Conn) { c.Close() },
	"silent":  func(c net.Conn) { io.Copy(io.Discard, c); c.Close() },
}
