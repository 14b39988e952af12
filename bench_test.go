package yonder_test

import (
	"context"
	"iter"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/yondertest"
)

// sample is the message of the benchmarks, here and in internal/bench.
type sample struct {
	ID    int64
	Name  string
	Tags  []string
	Score float64
}

var aSample = sample{1 << 40, "sixteen letters.", []string{"red", "green"}, 0.25}

// blob is the large struct of BenchmarkLarge.
type blob struct {
	ID   int
	Data []byte
}

// benchClient returns a client over TCP of a server that has echo, page, bytes and strings, by Handle,
// bound, by Register, and lent, page in lent memory.
func benchClient(b *testing.B, measure bool) (tcp, local *yonder.Client) {
	srv := yonder.Server{Measure: measure}
	echo := func(ctx context.Context, m sample) (sample, error) { return m, nil }
	yonder.Handle(&srv, "echo", echo)
	yonder.Handle(&srv, "page", func(_ context.Context, v []byte) ([]byte, error) { return v, nil })
	srv.Add(yonder.Procedure{Name: "lent", Func: func(v []byte) []byte { return v }, Lend: true})
	yonder.Handle(&srv, "bytes", func(_ context.Context, v blob) (blob, error) { return v, nil })
	yonder.Handle(&srv, "strings", func(_ context.Context, v []string) ([]string, error) { return v, nil })
	srv.Register("bound", echo)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	d := yonder.Dialer{Measure: measure}
	c, err := d.Dial(b.Context(), l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close(); srv.Close(); <-served })
	return c, d.Local(&srv)
}

// BenchmarkCall is one caller; its allocations are both sides' together.
func BenchmarkCall(b *testing.B) {
	benchCall(b, false)
	b.Run("measured", func(b *testing.B) { benchCall(b, true) })
}

func benchCall(b *testing.B, measure bool) {
	tcp, local := benchClient(b, measure)
	for name, c := range map[string]*yonder.Client{"tcp": tcp, "local": local} {
		remote := yonder.Remote[sample, sample](c, "echo")
		var bound func(context.Context, sample) (sample, error)
		c.Bind("bound", &bound)
		for kind, f := range map[string]func(context.Context, sample) (sample, error){"remote": remote, "bound": bound} {
			b.Run(name+"/"+kind, func(b *testing.B) {
				b.ReportAllocs()
				ctx := context.Background()
				for b.Loop() {
					if _, err := f(ctx, aSample); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkCallers is 256 callers on one connection.
func BenchmarkCallers(b *testing.B) {
	benchCallers(b, false)
	b.Run("measured", func(b *testing.B) { benchCallers(b, true) })
}

func benchCallers(b *testing.B, measure bool) {
	c, _ := benchClient(b, measure)
	remote := yonder.Remote[sample, sample](c, "echo")
	var bound func(context.Context, sample) (sample, error)
	c.Bind("bound", &bound)
	for kind, f := range map[string]func(context.Context, sample) (sample, error){"remote": remote, "bound": bound} {
		b.Run(kind, func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(128)
			b.RunParallel(func(pb *testing.PB) {
				ctx := context.Background()
				for pb.Next() {
					if _, err := f(ctx, aSample); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// BenchmarkResume is what it costs that a connection can be resumed: 256 callers on one, and
// messages of 1 MiB, both ways.
func BenchmarkResume(b *testing.B) {
	for name, window := range map[string]time.Duration{"off": 0, "on": time.Minute} {
		srv := new(yonder.Server)
		if window > 0 {
			srv.Resume = resumable(window)
		}
		yonder.Handle(srv, "echo", func(ctx context.Context, m sample) (sample, error) { return m, nil })
		yonder.Handle(srv, "bytes", func(ctx context.Context, m []byte) ([]byte, error) { return m, nil })
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- srv.Serve(l) }()
		c, err := (&yonder.Dialer{Resume: window}).Dial(b.Context(), l.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { c.Close(); srv.Close(); <-served })
		echo, bytes := yonder.Remote[sample, sample](c, "echo"), yonder.Remote[[]byte, []byte](c, "bytes")
		b.Run("callers/"+name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(128)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := echo(context.Background(), aSample); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
		b.Run("large/"+name, func(b *testing.B) {
			message := make([]byte, 1<<20)
			b.SetBytes(2 << 20)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := bytes(context.Background(), message); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkStream is one value of a stream from the server.
func BenchmarkStream(b *testing.B) {
	var srv yonder.Server
	srv.Register("count", func(n int) iter.Seq2[int, error] {
		return func(yield func(int, error) bool) {
			for i := range n {
				if !yield(i, nil) {
					return
				}
			}
		}
	})
	srv.Register("samples", func(n int) iter.Seq2[sample, error] {
		return func(yield func(sample, error) bool) {
			for range n {
				if !yield(aSample, nil) {
					return
				}
			}
		}
	})
	srv.Register("typed", func(n int) yonder.Stream[sample] {
		return func(yield func(sample, error) bool) {
			for range n {
				if !yield(aSample, nil) {
					return
				}
			}
		}
	})
	c := yondertest.Pair(b, &srv)
	b.Run("int", func(b *testing.B) { benchStream[iter.Seq2[int, error]](b, c, "count") })
	b.Run("struct", func(b *testing.B) { benchStream[iter.Seq2[sample, error]](b, c, "samples") })
	b.Run("Stream", func(b *testing.B) { benchStream[yonder.Stream[sample]](b, c, "typed") })
}

func benchStream[S ~func(func(T, error) bool), T any](b *testing.B, c *yonder.Client, name string) {
	var stream func(n int) (S, error)
	c.Bind(name, &stream)
	b.ReportAllocs()
	items, err := stream(b.N)
	if err != nil {
		b.Fatal(err)
	}
	for _, err := range items {
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLarge is of large values other than a plain []byte, each way, and of those that are larger than
// what internal/bench has.
func BenchmarkLarge(b *testing.B) {
	c, _ := benchClient(b, false)
	benchEcho(b, "page/4MiB", yonder.Remote[[]byte, []byte](c, "page"), make([]byte, 4<<20))
	var result []byte
	benchEcho(b, "lent/4MiB", func(ctx context.Context, v []byte) ([]byte, error) {
		return result, c.Call(ctx, yonder.NewCall("lent", v).Fill(&result))
	}, make([]byte, 4<<20))
	benchEcho(b, "bytes", yonder.Remote[blob, blob](c, "bytes"), blob{1, make([]byte, 1<<20)})
	benchEcho(b, "strings", yonder.Remote[[]string, []string](c, "strings"), slices.Repeat([]string{"one of ten thousand strings of 40 bytes "}, 10_000))
}

func benchEcho[T any](b *testing.B, name string, echo func(context.Context, T) (T, error), v T) {
	b.Run(name, func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := echo(b.Context(), v); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// TestAllocations: what a call over a connection may allocate, both sides together, the decoded
// values' own 2 included: the strings of short ones share their memory.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates, too")
	}
	var srv yonder.Server
	echo := func(ctx context.Context, m sample) (sample, error) { return m, nil }
	yonder.Handle(&srv, "echo", echo)
	srv.Register("bound", echo)
	c := overTCP.client(t, &srv)
	var bound func(context.Context, sample) (sample, error)
	c.Bind("bound", &bound)
	ctx := context.Background()
	for _, call := range []struct {
		kind string
		f    func(context.Context, sample) (sample, error)
		most float64
	}{
		{"Remote and Handle", yonder.Remote[sample, sample](c, "echo"), 4},
		{"Bind and Register", bound, 11},
	} {
		var err error
		got := testing.AllocsPerRun(1000, func() {
			if _, e := call.f(ctx, aSample); e != nil {
				err = e
			}
		})
		if err != nil || got > call.most {
			t.Errorf("%s: %v allocations a call, want %v at most; %v", call.kind, got, call.most, err)
		}
		t.Logf("%s: %v allocations a call", call.kind, got)
	}
}
