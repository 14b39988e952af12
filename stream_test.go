package yonder_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"runtime"
	"runtime/metrics"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
	"weak"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/yondertest"
)

// countTo yields 0 to n-1, and then err if there is one.
func countTo(n int, err error) iter.Seq2[int, error] {
	return func(yield func(int, error) bool) {
		for i := range n {
			if !yield(i, nil) {
				return
			}
		}
		if err != nil {
			yield(0, err)
		}
	}
}

// forever yields 0, 1, ... and closes stopped when it is told to stop. It counts what it
// has yielded.
func forever(yielded *atomic.Int64, stopped chan<- bool) iter.Seq2[int, error] {
	return func(yield func(int, error) bool) {
		defer close(stopped)
		for i := 0; yield(i, nil); i++ {
			yielded.Add(1)
		}
	}
}

// collect ranges over seq, and returns what it yields before its error.
func collect[T any](seq iter.Seq2[T, error]) (list []T, err error) {
	for v, e := range seq {
		if err != nil {
			return list, fmt.Errorf("the stream goes on after its error: %v", v)
		}
		if e != nil {
			err = e
			continue
		}
		list = append(list, v)
	}
	return list, err
}

func TestStreams(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		m.needs(t, streams)
		var srv yonder.Server
		srv.Register("count", func(ctx context.Context, n int) (iter.Seq2[int, error], error) {
			if n < 0 {
				return nil, yonder.Errorf(yonder.OutOfRange, "count to %d", n)
			}
			return countTo(n, nil), nil
		})
		srv.Register("letters", func() iter.Seq[string] { return slices.Values([]string{"a", "b", "c"}) })
		srv.Register("users", func() iter.Seq2[*User, error] {
			return func(yield func(*User, error) bool) {
				_ = yield(&User{"Foo", 12}, nil) && yield(nil, nil) && yield(&User{"Bar", 13}, nil)
			}
		})
		srv.Register("sum", func(xs iter.Seq2[int, error]) (n int, err error) {
			for x, err := range xs {
				if err != nil {
					return 0, err
				}
				n += x
			}
			return n, nil
		})
		srv.Register("join", func(sep string, words iter.Seq[string]) string {
			return strings.Join(slices.Collect(words), sep)
		})
		srv.Register("two", func(n int) (iter.Seq[int], string, iter.Seq2[string, error]) {
			return slices.Values([]int{n, n + 1}), "between", func(yield func(string, error) bool) { yield("x", nil) }
		})
		c := m.client(t, &srv)

		var count func(ctx context.Context, n int) (iter.Seq2[int, error], error)
		c.Bind("count", &count)
		for _, n := range []int{0, 1, 1000, 100_000} {
			seq, err := count(t.Context(), n)
			if err != nil {
				t.Fatal(err)
			}
			got, err := collect(seq)
			want, _ := collect(countTo(n, nil))
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("count(%d): %v %s", n, err, diff)
			}
		}
		if seq, err := count(t.Context(), -1); seq != nil || yonder.CodeOf(err) != yonder.OutOfRange {
			t.Errorf("count(-1): %v, %v", seq != nil, err)
		}

		letters, err := yonder.Invoke[iter.Seq[string]](t.Context(), c, "letters")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"a", "b", "c"}, slices.Collect(letters)); diff != "" {
			t.Error(diff)
		}
		users, err := yonder.Invoke[iter.Seq2[*User, error]](t.Context(), c, "users")
		if err != nil {
			t.Fatal(err)
		}
		got, err := collect(users)
		if diff := cmp.Diff([]*User{{"Foo", 12}, nil, {"Bar", 13}}, got); diff != "" || err != nil {
			t.Error(err, diff)
		}

		var sum func(iter.Seq2[int, error]) (int, error)
		c.Bind("sum", &sum)
		if n, err := sum(countTo(50_000, nil)); n != 50_000*49_999/2 || err != nil {
			t.Errorf("sum: %d, %v", n, err)
		}
		var join func(string, iter.Seq[string]) (string, error)
		c.Bind("join", &join)
		if s, err := join("-", slices.Values([]string{"a", "b"})); s != "a-b" || err != nil {
			t.Errorf("join: %q, %v", s, err)
		}
		// A Seq at one end may be a Seq2 at the other, with another type of number.
		var sum64 func(iter.Seq[int64]) (int64, error)
		c.Bind("sum", &sum64)
		if n, err := sum64(slices.Values([]int64{1, 2, 3})); n != 6 || err != nil {
			t.Errorf("sum of a Seq: %d, %v", n, err)
		}

		var two func(int) (iter.Seq[int], string, iter.Seq2[string, error], error)
		c.Bind("two", &two)
		ints, s, strs, err := two(5)
		if err != nil {
			t.Fatal(err)
		}
		gotStrs, err := collect(strs) // not in the order of the results
		if diff := cmp.Diff([]string{"x"}, gotStrs); diff != "" || err != nil || s != "between" {
			t.Error(s, err, diff)
		}
		if diff := cmp.Diff([]int{5, 6}, slices.Collect(ints)); diff != "" {
			t.Error(diff)
		}
	})
}

// A Stream is what an iter.Seq2 is, at either end, as an argument and as a result.
func TestTypedStreams(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		m.needs(t, streams)
		type point struct {
			X    int
			Tags []string
		}
		points := func(n int, end error) yonder.Stream[point] {
			return func(yield func(point, error) bool) {
				for i := range n {
					tag := strings.Repeat(string(rune('a'+i%26)), i%100)
					if !yield(point{X: i, Tags: slices.Repeat([]string{tag}, i%3)}, nil) {
						return
					}
				}
				if end != nil {
					yield(point{X: -1}, end)
				}
			}
		}
		want := func(n int) (list []point) {
			for p := range points(n, nil) {
				list = append(list, p)
			}
			return list
		}
		left := make(chan bool, 1)
		var srv yonder.Server
		srv.Register("typed", func(n int) yonder.Stream[point] { return points(n, nil) })
		srv.Register("plain", func(n int) iter.Seq2[point, error] { return iter.Seq2[point, error](points(n, nil)) })
		srv.Register("fails", func(n int) yonder.Stream[point] { return points(n, yonder.Errorf(yonder.DataLoss, "gone")) })
		srv.Register("none", func() yonder.Stream[point] { return nil })
		srv.Register("endless", func() yonder.Stream[point] {
			return func(yield func(point, error) bool) {
				defer close(left)
				for yield(point{}, nil) {
				}
			}
		})
		sum := func(s yonder.Stream[point]) (total int, err error) {
			for p, err := range s {
				if err != nil {
					return total, err
				}
				total += p.X
			}
			return total, nil
		}
		srv.Register("sum", sum)
		srv.Register("sum plain", func(s iter.Seq2[point, error]) (int, error) { return sum(yonder.Stream[point](s)) })
		c := m.client(t, &srv)

		for _, name := range []string{"typed", "plain"} {
			s, err := yonder.Invoke[yonder.Stream[point]](t.Context(), c, name, 1000)
			if err != nil {
				t.Fatal(err)
			}
			got, err := collect(iter.Seq2[point, error](s))
			if diff := cmp.Diff(want(1000), got, cmpopts.EquateEmpty()); diff != "" || err != nil {
				t.Errorf("%s: %v, -want +got:\n%s", name, err, diff)
			}
			if _, err := collect(iter.Seq2[point, error](s)); yonder.CodeOf(err) != yonder.FailedPrecondition {
				t.Errorf("%s, once more: %v", name, err)
			}
		}
		plain, err := yonder.Invoke[iter.Seq2[point, error]](t.Context(), c, "typed", 10)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := collect(plain); !cmp.Equal(want(10), got, cmpopts.EquateEmpty()) || err != nil {
			t.Errorf("typed as iter.Seq2: %v, %v", got, err)
		}
		failing, err := yonder.Invoke[yonder.Stream[point]](t.Context(), c, "fails", 3)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := collect(iter.Seq2[point, error](failing)); len(got) != 3 || yonder.CodeOf(err) != yonder.DataLoss {
			t.Errorf("fails: %v, %v", got, err)
		}
		none, err := yonder.Invoke[yonder.Stream[point]](t.Context(), c, "none")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := collect(iter.Seq2[point, error](none)); len(got) > 0 || err != nil {
			t.Errorf("none: %v, %v", got, err)
		}
		endless, err := yonder.Invoke[yonder.Stream[point]](t.Context(), c, "endless")
		if err != nil {
			t.Fatal(err)
		}
		for _, err := range endless {
			if err != nil {
				t.Error(err)
			}
			break
		}
		<-left
		for _, name := range []string{"sum", "sum plain"} {
			if got, err := yonder.Invoke[int](t.Context(), c, name, points(100, nil)); got != 4950 || err != nil {
				t.Errorf("%s: %d, %v", name, got, err)
			}
			if got, err := yonder.Invoke[int](t.Context(), c, name, iter.Seq2[point, error](points(100, nil))); got != 4950 || err != nil {
				t.Errorf("%s of an iter.Seq2: %d, %v", name, got, err)
			}
		}
	})
}

// TestPause: what a producer has yielded arrives at once when it yields nothing more for now,
// however many there are.
func TestPause(t *testing.T) {
	bubbleAll(t, func(t *testing.T, m mode) {
		m.needs(t, streams)
		seen := make(chan int, 10_000)
		bursts := func(yield func(int, error) bool) {
			for _, n := range []int{1, 2, 1, 100, 10_000, 1} {
				for i := range n {
					if !yield(i, nil) {
						return
					}
				}
				for i := range n {
					if got := <-seen; got != i {
						t.Errorf("%d has arrived, want %d", got, i)
					}
				}
			}
		}
		look := func(s yonder.Stream[int]) error {
			for i, err := range s {
				if err != nil {
					return err
				}
				seen <- i
			}
			return nil
		}
		var srv yonder.Server
		srv.Register("bursts", func() yonder.Stream[int] { return bursts })
		srv.Register("look", look)
		c := m.client(t, &srv)
		start := time.Now()
		s, err := yonder.Invoke[yonder.Stream[int]](t.Context(), c, "bursts")
		if err == nil {
			err = look(s)
		}
		if err != nil {
			t.Error(err)
		}
		if m.can(t, conversation) {
			var remote func(yonder.Stream[int]) error
			c.Bind("look", &remote)
			if err := remote(bursts); err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(start); took > 0 {
			t.Errorf("it took %v", took)
		}
	})
}

func TestNilStreams(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		m.needs(t, streams)
		var srv yonder.Server
		srv.Register("results", func() (iter.Seq[int], iter.Seq2[User, error], io.Reader, io.ReadCloser) { return nil, nil, nil, nil })
		srv.Register("arguments", func(a iter.Seq[int], b iter.Seq2[User, error], c io.Reader, d io.ReadCloser, e func() error) []bool {
			return []bool{a == nil, b == nil, c == nil, d == nil, e == nil}
		})
		c := m.client(t, &srv)
		var results func() (iter.Seq[int], iter.Seq2[User, error], io.Reader, io.ReadCloser, error)
		c.Bind("results", &results)
		r1, r2, r3, r4, err := results()
		if r3 != nil || r4 != nil || err != nil {
			t.Errorf("results: %v %v, %v", r3, r4, err)
		}
		for range r1 { // which a nil one would panic at
			t.Error("there is an element")
		}
		for range r2 {
			t.Error("there is an element")
		}
		var arguments func(iter.Seq[int], iter.Seq2[User, error], io.Reader, io.ReadCloser, func() error) ([]bool, error)
		c.Bind("arguments", &arguments)
		got, err := arguments(nil, nil, nil, nil, nil)
		if diff := cmp.Diff([]bool{true, true, true, true, true}, got); diff != "" || err != nil {
			t.Error(err, diff)
		}
	})
}

func TestBidirectional(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		srv.Register("upper", func(words iter.Seq2[string, error]) iter.Seq2[string, error] {
			return func(yield func(string, error) bool) {
				for w, err := range words {
					if err != nil {
						yield("", err)
						return
					}
					if !yield(strings.ToUpper(w), nil) {
						return
					}
				}
			}
		})
		c := m.client(t, &srv)
		var upper func(context.Context, iter.Seq2[string, error]) (iter.Seq2[string, error], error)
		c.Bind("upper", &upper)
		// A conversation: each word is sent when the answer to the one before is there.
		say := make(chan string, 1)
		say <- "one"
		seq, err := upper(t.Context(), func(yield func(string, error) bool) {
			for w := range say {
				if !yield(w, nil) {
					return
				}
			}
			yield("", errZero)
		})
		if err != nil {
			t.Fatal(err)
		}
		var heard []string
		var last error
		for w, err := range seq {
			if err != nil {
				last = err
				continue
			}
			heard = append(heard, w)
			switch len(heard) {
			case 1:
				say <- "two"
			case 2:
				close(say)
			}
		}
		if diff := cmp.Diff([]string{"ONE", "TWO"}, heard); diff != "" {
			t.Error(diff)
		}
		if textOf(last) != errZero.Error() {
			t.Errorf("ended with %v, want the error that went in", last)
		}
	})
}

func TestStreamError(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		m.needs(t, streams, conversation)
		var srv yonder.Server
		srv.Register("count", func(n int) iter.Seq2[int, error] {
			return func(yield func(int, error) bool) {
				for i := range n {
					yield(i, nil)
				}
				yield(-1, yonder.Errorf(yonder.DataLoss, "lost after %d: %w", n, io.ErrUnexpectedEOF))
			}
		})
		got := make(chan error, 1)
		srv.Register("take", func(xs iter.Seq2[int, error]) int {
			list, err := collect(xs)
			got <- err
			return len(list)
		})
		c := m.client(t, &srv)
		seq, err := yonder.Invoke[iter.Seq2[int, error]](t.Context(), c, "count", 3)
		if err != nil {
			t.Fatal(err)
		}
		list, err := collect(seq)
		if diff := cmp.Diff([]int{0, 1, 2}, list); diff != "" {
			t.Error(diff)
		}
		if yonder.CodeOf(err) != yonder.DataLoss || textOf(err) != "lost after 3: unexpected EOF" || !errors.Is(err, io.ErrUnexpectedEOF) || !yonder.IsRemote(err) {
			t.Errorf("from the server: %v (%v)", err, yonder.CodeOf(err))
		}

		var take func(iter.Seq2[int, error]) (int, error)
		c.Bind("take", &take)
		if n, err := take(countTo(2, yonder.Errorf(yonder.Aborted, "no more: %w", io.EOF))); n != 2 || err != nil {
			t.Errorf("take: %d, %v", n, err)
		}
		if err := <-got; yonder.CodeOf(err) != yonder.Aborted || textOf(err) != "no more: EOF" || !errors.Is(err, io.EOF) {
			t.Errorf("to the server: %v (%v)", err, yonder.CodeOf(err))
		}
	})
}

// Leaving the loop stops the producer, within one round trip: nothing else is sent or
// read that could tell it.
func TestBreak(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		var yielded atomic.Int64
		stopped, canceled := make(chan bool), make(chan error, 1)
		srv.Register("forever", func(ctx context.Context) iter.Seq2[int, error] {
			context.AfterFunc(ctx, func() { canceled <- ctx.Err() })
			return forever(&yielded, stopped)
		})
		srv.Register("first", func(xs iter.Seq2[int, error]) int {
			for x := range xs {
				return x
			}
			return -1
		})
		c := m.client(t, &srv)
		seq, err := yonder.Invoke[iter.Seq2[int, error]](t.Context(), c, "forever")
		if err != nil {
			t.Fatal(err)
		}
		for v := range seq {
			if v == 10 {
				break
			}
		}
		<-stopped
		if err := <-canceled; err != context.Canceled {
			t.Errorf("the handler's context: %v", err)
		}

		stopped = make(chan bool)
		var first func(iter.Seq2[int, error]) (int, error)
		c.Bind("first", &first)
		if x, err := first(forever(&yielded, stopped)); x != 0 || err != nil {
			t.Errorf("first: %d, %v", x, err)
		}
		<-stopped
	})
}

// The end of the caller's context ends its streams, both ways, and its cause is told.
func TestStreamContext(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		m.needs(t, streams)
		var srv yonder.Server
		var yielded atomic.Int64
		stopped := make(chan bool)
		srv.Register("forever", func() iter.Seq2[int, error] { return forever(&yielded, stopped) })
		c := m.client(t, &srv)
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		seq, err := yonder.Invoke[iter.Seq2[int, error]](ctx, c, "forever")
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		var last error
		for _, err := range seq {
			if n++; n == 5 {
				cancel(errSold)
			}
			last = err
		}
		if yonder.CodeOf(last) != yonder.Canceled || !errors.Is(last, context.Canceled) || !errors.Is(last, errSold) {
			t.Errorf("ended with %v (%v)", last, yonder.CodeOf(last))
		}
		<-stopped
	})
}

func TestStreamDeadline(t *testing.T) {
	bubbleAll(t, func(t *testing.T, m mode) {
		m.needs(t, streams)
		var srv yonder.Server
		srv.Register("tick", func(ctx context.Context) iter.Seq[int] {
			return func(yield func(int) bool) {
				for i := 0; ctx.Err() == nil && yield(i); i++ {
					select {
					case <-time.After(time.Second):
					case <-ctx.Done():
					}
				}
			}
		})
		c := m.client(t, &srv)
		c.Timeout = time.Second // does not bound what has a context
		ctx, cancel := context.WithTimeout(t.Context(), 3500*time.Millisecond)
		defer cancel()
		var tick func(context.Context) (iter.Seq2[int, error], error)
		c.Bind("tick", &tick)
		seq, err := tick(ctx)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		list, err := collect(seq)
		if diff := cmp.Diff([]int{0, 1, 2, 3}, list); diff != "" {
			t.Error(diff)
		}
		if took := time.Since(start); yonder.CodeOf(err) != yonder.DeadlineExceeded || took != 3500*time.Millisecond {
			t.Errorf("after %v: %v", took, err)
		}
	})
}

func TestIteratorPanics(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		m.needs(t, streams)
		log := new(logBuffer)
		srv := yonder.Server{Logger: log.logger()}
		srv.Register("boom", func() iter.Seq2[int, error] {
			return func(yield func(int, error) bool) {
				yield(1, nil)
				panic("boom in an iterator")
			}
		})
		srv.Register("take", func(xs iter.Seq2[int, error]) (int, error) {
			list, err := collect(xs)
			return len(list), err
		})
		c := m.client(t, &srv)
		seq, err := yonder.Invoke[iter.Seq2[int, error]](t.Context(), c, "boom")
		if err != nil {
			t.Fatal(err)
		}
		list, err := collect(seq)
		if diff := cmp.Diff([]int{1}, list); diff != "" || yonder.CodeOf(err) != yonder.Internal || strings.Contains(textOf(err), "boom in") {
			t.Errorf("%v (%v) %s", err, yonder.CodeOf(err), diff)
		}
		if !strings.Contains(log.String(), "boom in an iterator") || !strings.Contains(log.String(), "stream_test.go") {
			t.Errorf("the log has no stack:\n%s", log)
		}
		var take func(iter.Seq2[int, error]) (int, error)
		c.Bind("take", &take)
		_, err = take(func(yield func(int, error) bool) {
			yield(1, nil)
			panic("boom in the caller's iterator")
		})
		if yonder.CodeOf(err) != yonder.Internal {
			t.Errorf("take: %v (%v)", err, yonder.CodeOf(err))
		}
		if n, err := take(countTo(3, nil)); n != 3 || err != nil {
			t.Errorf("the next call: %d, %v", n, err)
		}
	})
}

func TestRangingTwice(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		srv.Register("count", func(n int) iter.Seq2[int, error] { return countTo(n, nil) })
		srv.Register("twice", func(xs iter.Seq2[int, error]) (int, error) {
			collect(xs)
			_, err := collect(xs)
			return 0, err
		})
		c := m.client(t, &srv)
		seq, err := yonder.Invoke[iter.Seq2[int, error]](t.Context(), c, "count", 2)
		if err != nil {
			t.Fatal(err)
		}
		if list, err := collect(seq); len(list) != 2 || err != nil {
			t.Errorf("first: %v, %v", list, err)
		}
		want := `yonder: stream of "count": it has been read already; a stream can be ranged over once`
		if list, err := collect(seq); len(list) != 0 || textOf(err) != want || yonder.CodeOf(err) != yonder.FailedPrecondition {
			t.Errorf("second: %v, %v\nwant %s", list, err, want)
		}
		_, err = yonder.Invoke[int](t.Context(), c, "twice", iter.Seq2[int, error](countTo(2, nil)))
		if want := strings.Replace(want, "count", "twice", 1); textOf(err) != want {
			t.Errorf("at the server: %v\nwant %s", err, want)
		}
	})
}

// A stream that nobody ranges over ends with its call's context, or when it is garbage.
func TestForgottenStream(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		m.needs(t, streams)
		m.cannot(t, inProcess, "an iterator that is not ranged over does not begin")
		var srv yonder.Server
		closed := make(chan bool, 2)
		srv.Register("read", func() io.ReadCloser { return &notingCloser{Reader: endless{}, closed: closed} })
		var yielded atomic.Int64
		stopped := make(chan bool)
		srv.Register("forever", func() iter.Seq2[int, error] { return forever(&yielded, stopped) })
		srv.Register("nothing", func() {})
		c := m.client(t, &srv)
		forget := func() {
			if _, err := yonder.Invoke[io.ReadCloser](t.Context(), c, "read"); err != nil {
				t.Fatal(err)
			}
			if _, err := yonder.Invoke[iter.Seq2[int, error]](t.Context(), c, "forever"); err != nil {
				t.Fatal(err)
			}
		}
		forget()
		for range 2 {
			for done := false; !done; {
				runtime.GC()
				select {
				case <-closed:
					done = true
				case <-stopped:
					stopped, done = nil, true
				default:
					// With the next frame, or the watchdog, the other end is told.
					if err := c.Call(t.Context(), yonder.NewCall("nothing")); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		r, err := yonder.Invoke[io.ReadCloser](ctx, c, "read")
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		<-closed
		runtime.KeepAlive(r)
	})
}

// TestForgottenWithinBubble is a regression: the garbage collector's goroutine, which is in no
// bubble, used the channels of streams that were, which ends the process.
func TestForgottenWithinBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var srv yonder.Server
		var yielded atomic.Int64
		closed, stopped := make(chan bool, 1), make(chan bool)
		srv.Register("read", func() io.ReadCloser { return &notingCloser{Reader: endless{}, closed: closed} })
		srv.Register("all", func() io.Reader { return strings.NewReader("all") })
		srv.Register("forever", func() iter.Seq2[int, error] { return forever(&yielded, stopped) })
		srv.Register("ignore", func(io.Reader, iter.Seq2[int, error]) {})
		c := yondertest.Pair(t, &srv)
		forget := func() {
			if _, err := yonder.Invoke[io.ReadCloser](t.Context(), c, "read"); err != nil {
				t.Fatal(err)
			}
			if _, err := yonder.Invoke[iter.Seq2[int, error]](t.Context(), c, "forever"); err != nil {
				t.Fatal(err)
			}
			r, err := yonder.Invoke[io.Reader](t.Context(), c, "all")
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(r); string(b) != "all" || err != nil {
				t.Errorf("read %q, %v", b, err)
			}
			var ignore func(io.Reader, iter.Seq2[int, error]) error
			c.Bind("ignore", &ignore)
			if err := ignore(strings.NewReader("x"), countTo(3, nil)); err != nil {
				t.Error(err)
			}
		}
		forget()
		for open := 2; open > 0; {
			runtime.GC()
			time.Sleep(time.Minute) // the watchdog looks
			synctest.Wait()
			select {
			case <-closed:
				open--
			case <-stopped:
				stopped = nil
				open--
			default:
			}
		}
	})
}

// What is left of a bubble may be garbage when the bubble is gone: collecting it must not
// reach into that.
func TestForgottenInBubble(t *testing.T) {
	bubbleAll(t, func(t *testing.T, m mode) {
		m.needs(t, streams)
		var srv yonder.Server
		srv.Register("take", func(io.Reader, iter.Seq[int]) {}) // leaves them alone
		srv.Register("give", func() (io.Reader, iter.Seq2[int, error]) { return strings.NewReader("x"), countTo(1, nil) })
		c := m.client(t, &srv)
		var take func(io.Reader, iter.Seq[int]) error
		c.Bind("take", &take)
		if err := take(strings.NewReader("x"), slices.Values([]int{1})); err != nil {
			t.Error(err)
		}
		var give func() (io.Reader, iter.Seq2[int, error], error)
		c.Bind("give", &give)
		r, seq, err := give()
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(r); string(b) != "x" || err != nil {
			t.Errorf("got %q, %v", b, err)
		}
		if list, err := collect(seq); len(list) != 1 || err != nil {
			t.Errorf("got %v, %v", list, err)
		}
	})
	for range 3 { // what one collection finds, the next one has done with
		collected := make(chan bool)
		func() { runtime.AddCleanup(new([64]byte), func(ch chan bool) { close(ch) }, collected) }()
		for done := false; !done; {
			runtime.GC()
			select {
			case <-collected:
				done = true
			default:
				runtime.Gosched()
			}
		}
	}
}

// endless reads zeros.
type endless struct{}

func (endless) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// notingCloser notes that it was closed.
type notingCloser struct {
	io.Reader
	closed chan<- bool
	once   sync.Once
}

func (c *notingCloser) Close() error {
	c.once.Do(func() { c.closed <- true })
	return nil
}

// A consumer that stops reading stops its producer after a window's worth, and nobody else.
func TestSlowConsumer(t *testing.T) {
	bubbleAll(t, func(t *testing.T, m mode) {
		m.needs(t, streams)
		var srv yonder.Server
		var yielded atomic.Int64
		stopped := make(chan bool)
		block := strings.Repeat("x", 1000)
		srv.Register("flood", func() iter.Seq2[string, error] {
			return func(yield func(string, error) bool) {
				defer close(stopped)
				for yield(block, nil) {
					yielded.Add(1)
				}
			}
		})
		read := make(chan bool)
		srv.Register("drip", func(xs iter.Seq2[string, error]) (n int, err error) {
			for _, err := range xs {
				if err != nil {
					return n, err
				}
				<-read
				if n++; n == 3 {
					break
				}
			}
			return n, nil
		})
		srv.Register("add", func(a, b int) int { return a + b })
		c := m.client(t, &srv)
		others := func() {
			t.Helper()
			for range 100 {
				if n, err := yonder.Invoke[int](t.Context(), c, "add", 1, 2); n != 3 || err != nil {
					t.Fatalf("another call: %d, %v", n, err)
				}
			}
		}
		const window = 256 << 10

		seq, err := yonder.Invoke[iter.Seq2[string, error]](t.Context(), c, "flood")
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for range seq {
			if n++; n == 1000 {
				synctest.Wait() // until nothing moves
				others()
				synctest.Wait()
				if most := int64(1000 + 2*window/1000); yielded.Load() > most {
					t.Errorf("after 1000 values were read, %d were produced; want %d at most", yielded.Load(), most)
				}
				break
			}
		}
		<-stopped

		if !m.can(t, conversation) {
			return
		}
		yielded.Store(0)
		stopped = make(chan bool)
		result := make(chan error, 1)
		go func() {
			n, err := yonder.Invoke[int](t.Context(), c, "drip", iter.Seq2[string, error](func(yield func(string, error) bool) {
				defer close(stopped)
				for yield(block, nil) {
					yielded.Add(1)
				}
			}))
			if n != 3 && err == nil {
				err = fmt.Errorf("%d were read, want 3", n)
			}
			result <- err
		}()
		read <- true
		synctest.Wait()
		others()
		synctest.Wait()
		if most := int64(1 + 2*window/1000); yielded.Load() > most {
			t.Errorf("after 1 value was read, %d were produced; want %d at most", yielded.Load(), most)
		}
		read <- true
		read <- true
		if err := <-result; err != nil {
			t.Error(err)
		}
		<-stopped
	})
}

func TestLargeStreamValues(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		m.needs(t, streams)
		var srv yonder.Server
		sizes := []int{1, 64 << 10, 100_000, 0, 3 << 20, 64<<10 - 20, 5}
		srv.Register("blocks", func() iter.Seq[[]byte] {
			return func(yield func([]byte) bool) {
				for i, n := range sizes {
					if !yield(bytes.Repeat([]byte{byte(i)}, n)) {
						return
					}
				}
			}
		})
		srv.Register("sizes", func(blocks iter.Seq2[string, error]) (list []int, err error) {
			for b, err := range blocks {
				if err != nil {
					return nil, err
				}
				list = append(list, len(b))
			}
			return list, nil
		})
		c := m.client(t, &srv)
		blocks, err := yonder.Invoke[iter.Seq2[[]byte, error]](t.Context(), c, "blocks")
		if err != nil {
			t.Fatal(err)
		}
		i := 0
		for b, err := range blocks {
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(b, bytes.Repeat([]byte{byte(i)}, sizes[i])) {
				t.Errorf("block %d has %d bytes, or others than it should: want %d", i, len(b), sizes[i])
			}
			i++
		}
		got, err := yonder.Invoke[[]int](t.Context(), c, "sizes", iter.Seq2[string, error](func(yield func(string, error) bool) {
			for _, n := range sizes {
				if !yield(strings.Repeat("x", n), nil) {
					return
				}
			}
		}))
		if diff := cmp.Diff(sizes, got); diff != "" || err != nil {
			t.Error(err, diff)
		}
	})
}

// A value that cannot be encoded, or is too large, ends its stream with an error.
func TestUnencodableStreamValue(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		m.cannot(t, inProcess, "nothing is encoded")
		srv := yonder.Server{Limits: yonder.Limits{MaxMessage: 1 << 20}}
		srv.Register("give", func() iter.Seq2[any, error] {
			return func(yield func(any, error) bool) {
				yield("fine", nil)
				yield(Task{make(chan int)}, nil)
				yield("never sent", nil)
			}
		})
		srv.Register("take", func(xs iter.Seq2[string, error]) (int, error) {
			list, err := collect(xs)
			return len(list), err
		})
		c := m.client(t, &srv)
		seq, err := yonder.Invoke[iter.Seq2[any, error]](t.Context(), c, "give")
		if err != nil {
			t.Fatal(err)
		}
		list, err := collect(seq)
		if len(list) != 1 || !strings.Contains(textOf(err), "field Task.Extra: chan int cannot cross a connection; use iter.Seq2[int, error]") {
			t.Errorf("got %v, %v", list, err)
		}
		n, err := yonder.Invoke[int](t.Context(), c, "take", iter.Seq2[string, error](func(yield func(string, error) bool) {
			_ = yield("fine", nil) && yield(strings.Repeat("x", 2<<20), nil)
		}))
		if n != 0 || yonder.CodeOf(err) != yonder.ResourceExhausted {
			t.Errorf("too large: %d, %v (%v)", n, err, yonder.CodeOf(err))
		}
		if n, err := yonder.Invoke[int](t.Context(), c, "take", iter.Seq2[string, error](func(yield func(string, error) bool) { yield("", nil) })); n != 1 || err != nil {
			t.Errorf("the next call: %d, %v", n, err)
		}
	})
}

func TestReaders(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		m.needs(t, streams)
		var srv yonder.Server
		srv.Register("sha256", func(r io.Reader) (string, error) {
			h := sha256.New()
			_, err := io.Copy(h, r)
			return hex.EncodeToString(h.Sum(nil)), err
		})
		srv.Register("repeat", func(s string, n int) io.Reader { return strings.NewReader(strings.Repeat(s, n)) })
		srv.Register("rot", func(r io.ReadCloser) io.ReadCloser { return &rot{r} })
		srv.Register("fail", func() (io.Reader, error) { return nil, yonder.Errorf(yonder.NotFound, "no file") })
		srv.Register("head", func(r io.Reader) (string, error) {
			b := make([]byte, 3)
			_, err := io.ReadFull(r, b)
			return string(b), err
		})
		c := m.client(t, &srv)

		for _, n := range []int{0, 1, 1 << 20} {
			data := bytes.Repeat([]byte("yonder"), n)
			sum := sha256.Sum256(data)
			got, err := yonder.Invoke[string](t.Context(), c, "sha256", io.Reader(bytes.NewReader(data)))
			if got != hex.EncodeToString(sum[:]) || err != nil {
				t.Errorf("sha256 of %d bytes: %s, %v", len(data), got, err)
			}
			r, err := yonder.Invoke[io.Reader](t.Context(), c, "repeat", "yonder", n)
			if err != nil {
				t.Fatal(err)
			}
			if err := iotest.TestReader(r, data); n < 1<<20 && err != nil {
				t.Error(err)
			} else if n == 1<<20 {
				if got, err := io.ReadAll(r); !bytes.Equal(got, data) && len(got) > 0 || err != nil {
					t.Errorf("repeat: %d bytes, %v", len(got), err)
				}
			}
		}

		closed := make(chan bool, 1)
		in := &notingCloser{Reader: iotest.OneByteReader(strings.NewReader("Hello")), closed: closed}
		var rotate func(io.ReadCloser) (io.ReadCloser, error)
		c.Bind("rot", &rotate)
		out, err := rotate(in)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(out); string(got) != "Uryyb" || err != nil {
			t.Errorf("rot: %q, %v", got, err)
		}
		if err := out.Close(); err != nil {
			t.Error(err)
		}
		<-closed

		m.needs(t, conversation) // head takes the beginning of what has no end
		// A reader need not be a pointer.
		var head func(io.Reader) (string, error)
		c.Bind("head", &head)
		if got, err := head(endless{}); got != "\x00\x00\x00" || err != nil {
			t.Errorf("head: %q, %v", got, err)
		}
		if got, err := yonder.Invoke[string](t.Context(), c, "head", endless{}); got != "\x00\x00\x00" || err != nil {
			t.Errorf("head: %q, %v", got, err)
		}

		if r, err := yonder.Invoke[io.Reader](t.Context(), c, "fail"); r != nil || yonder.CodeOf(err) != yonder.NotFound {
			t.Errorf("fail: %v, %v", r, err)
		}
	})
}

// rot rotates letters.
type rot struct{ io.ReadCloser }

func (r *rot) Read(b []byte) (int, error) {
	n, err := r.ReadCloser.Read(b)
	for i, c := range b[:n] {
		switch l := c | 0x20; {
		case 'a' <= l && l <= 'm':
			b[i] += 13
		case 'n' <= l && l <= 'z':
			b[i] -= 13
		}
	}
	return n, err
}

func TestReaderErrors(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		m.needs(t, streams, conversation)
		var srv yonder.Server
		bad := func(err error) io.Reader {
			return io.MultiReader(strings.NewReader("some"), iotest.ErrReader(err))
		}
		srv.Register("give", func() io.Reader { return bad(yonder.Errorf(yonder.DataLoss, "bad disk: %w", io.ErrUnexpectedEOF)) })
		got := make(chan error, 1)
		srv.Register("take", func(r io.Reader) string {
			b, err := io.ReadAll(r)
			got <- err
			return string(b)
		})
		c := m.client(t, &srv)
		r, err := yonder.Invoke[io.Reader](t.Context(), c, "give")
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if string(b) != "some" || yonder.CodeOf(err) != yonder.DataLoss || textOf(err) != "bad disk: unexpected EOF" || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("from the server: %q, %v (%v)", b, err, yonder.CodeOf(err))
		}
		if _, again := r.Read(make([]byte, 1)); textOf(again) != textOf(err) {
			t.Errorf("the next Read: %v", again)
		}
		s, err := yonder.Invoke[string](t.Context(), c, "take", bad(yonder.Errorf(yonder.Aborted, "gone")))
		if s != "some" || err != nil {
			t.Errorf("take: %q, %v", s, err)
		}
		if err := <-got; yonder.CodeOf(err) != yonder.Aborted || textOf(err) != "gone" {
			t.Errorf("to the server: %v (%v)", err, yonder.CodeOf(err))
		}
	})
}

// Who closes a reader early stops the other end's, which is closed in turn.
func TestReaderClosedEarly(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		closed := make(chan bool, 1)
		srv.Register("zeros", func() io.ReadCloser { return &notingCloser{Reader: endless{}, closed: closed} })
		srv.Register("some", func(r io.ReadCloser) (int, error) {
			n, err := io.ReadFull(r, make([]byte, 10))
			r.Close()
			return n, err
		})
		srv.Register("none", func(r io.ReadCloser) {}) // neither reads nor closes
		c := m.client(t, &srv)
		r, err := yonder.Invoke[io.ReadCloser](t.Context(), c, "zeros")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(r, make([]byte, 1<<20)); err != nil {
			t.Error(err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		<-closed
		if m != inProcess { // there it is the handler's own reader
			if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.ErrClosedPipe) {
				t.Errorf("Read after Close: %d, %v", n, err)
			}
		}
		var some func(io.ReadCloser) (int, error)
		c.Bind("some", &some)
		if n, err := some(&notingCloser{Reader: endless{}, closed: closed}); n != 10 || err != nil {
			t.Errorf("some: %d, %v", n, err)
		}
		<-closed
		var none func(io.ReadCloser) error
		c.Bind("none", &none)
		if err := none(&notingCloser{Reader: endless{}, closed: closed}); err != nil {
			t.Error(err)
		}
		<-closed
	})
}

// A reader of any size takes constant memory.
// haltingConn can be read only so far.
type haltingConn struct {
	net.Conn
	left int
	gate chan bool
}

func (c *haltingConn) Read(b []byte) (int, error) {
	if c.left == 0 {
		<-c.gate
		return 0, io.EOF
	}
	n, err := c.Conn.Read(b[:min(len(b), c.left)])
	c.left -= n
	return n, err
}

// A reader of a call that is given up while its request is still being sent is closed, as one is that
// has been read, and nobody waits for the peer to take the rest.
func TestReaderOfUnsentCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var srv yonder.Server
		srv.Register("store", func([]byte, io.ReadCloser) {})
		near, far := net.Pipe()
		stuck := &haltingConn{Conn: far, left: 100 << 10, gate: make(chan bool)}
		served := make(chan error, 1)
		go func() { served <- srv.ServeConn(stuck) }() // ends with the connection
		c := yonder.NewClient(near)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		closed := make(chan bool, 1)
		var store func(context.Context, []byte, io.ReadCloser) error
		c.Bind("store", &store)
		err := store(ctx, make([]byte, 4<<20), &notingCloser{Reader: endless{}, closed: closed})
		if yonder.CodeOf(err) != yonder.DeadlineExceeded {
			t.Error(err)
		}
		synctest.Wait()
		select {
		case <-closed:
		default:
			t.Error("the reader is open")
		}
		close(stuck.gate)
		c.Close()
		srv.Close()
		<-served
	})
}

func TestReaderMemory(t *testing.T) {
	const chunk = 1 << 20
	total := int64(1 << 30)
	if testing.Short() || raceEnabled {
		total = 64 << 20
	}
	run(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		srv.Register("size", func(r io.Reader) (int64, error) { return io.Copy(io.Discard, onlyReader{r}) })
		srv.Register("zeros", func(n int64) io.Reader { return io.LimitReader(endless{}, n) })
		c := m.client(t, &srv)
		size := total
		if m != overTCP {
			size = min(total, 64<<20)
		}
		before := heapBytes()
		most := uint64(0)
		watch := &watchedReader{Reader: io.LimitReader(endless{}, size), every: 16 * chunk, do: func() { most = max(most, heapBytes()) }}
		n, err := yonder.Invoke[int64](t.Context(), c, "size", io.Reader(watch))
		if n != size || err != nil {
			t.Errorf("size: %d, %v", n, err)
		}
		r, err := yonder.Invoke[io.Reader](t.Context(), c, "zeros", size)
		if err != nil {
			t.Fatal(err)
		}
		watch = &watchedReader{Reader: r, every: 16 * chunk, do: func() { most = max(most, heapBytes()) }}
		if n, err = io.Copy(io.Discard, onlyReader{watch}); n != size || err != nil {
			t.Errorf("zeros: %d, %v", n, err)
		}
		if grown := int64(most) - int64(before); grown > 16<<20 {
			t.Errorf("%d MiB took %d MiB of memory", size>>20, grown>>20)
		}
	})
}

// heapBytes returns the memory that live objects take, after a collection.
func heapBytes() uint64 {
	runtime.GC()
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

type onlyReader struct{ io.Reader }

// watchedReader calls do every so many bytes.
type watchedReader struct {
	io.Reader
	every, n int
	do       func()
}

func (w *watchedReader) Read(b []byte) (int, error) {
	n, err := w.Reader.Read(b)
	if w.n += n; w.n >= w.every {
		w.n = 0
		w.do()
	}
	return n, err
}

// Neither end of a stream keeps a value that has gone through it.
func TestStreamsKeepNothing(t *testing.T) {
	bubble(t, func(t *testing.T, m mode) {
		collected := func(p weak.Pointer[byte]) bool {
			for range 5 {
				if runtime.GC(); p.Value() == nil {
					return true
				}
			}
			return false
		}
		consumed := make(chan weak.Pointer[byte], 1)
		gives := func(yield func([]byte, error) bool) {
			b := make([]byte, 1<<20)
			produced := weak.Make(&b[0])
			if !yield(b, nil) {
				return
			}
			received := <-consumed
			synctest.Wait() // until the consumer waits for the next one
			if !collected(produced) {
				t.Error("the producing end keeps a value")
			}
			if !collected(received) {
				t.Error("the consuming end keeps a value")
			}
			yield([]byte{1}, nil)
		}
		var srv yonder.Server
		srv.Register("typed", func() yonder.Stream[[]byte] { return gives })
		srv.Register("plain", func() iter.Seq2[[]byte, error] { return gives })
		c := m.client(t, &srv)
		for _, name := range []string{"typed", "plain"} {
			typed, err := yonder.Invoke[yonder.Stream[[]byte]](t.Context(), c, name)
			if err != nil {
				t.Fatal(err)
			}
			for b, err := range typed {
				if err != nil {
					t.Fatal(err)
				}
				if len(b) > 1 {
					consumed <- weak.Make(&b[0])
				}
			}
			plain, err := yonder.Invoke[iter.Seq2[[]byte, error]](t.Context(), c, name)
			if err != nil {
				t.Fatal(err)
			}
			for b, err := range plain {
				if err != nil {
					t.Fatal(err)
				}
				if len(b) > 1 {
					consumed <- weak.Make(&b[0])
				}
			}
		}
	})
}

// Streams among the results that end at the same time end one after the other, the last of them
// with the call.
func TestResultsEndTogether(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(8)) // with few, their order is the same nearly always
	run(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		type seq = iter.Seq2[int, error]
		srv.Register("four", func() (a, b, c, d seq) {
			return countTo(1, nil), countTo(1, nil), countTo(1, nil), countTo(1, nil)
		})
		c := m.client(t, &srv)
		var four func() (a, b, c, d seq, err error)
		c.Bind("four", &four)
		for range 500 {
			a, b, c, d, err := four()
			if err != nil {
				t.Fatal(err)
			}
			for i, s := range []seq{a, b, c, d} {
				if list, err := collect(s); len(list) != 1 || err != nil {
					t.Fatalf("stream %d: %v, %v", i+1, list, err)
				}
			}
		}
	})
}
