package yonder_test

import (
	"context"
	"fmt"
	"io"
	"iter"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"
	"weak"

	"github.com/google/go-cmp/cmp"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/yondertest"
)

// exhausted checks that err is of a limit, and says what is said of it.
func exhausted(t *testing.T, what string, err error, text string) {
	t.Helper()
	if yonder.CodeOf(err) != yonder.ResourceExhausted || !strings.Contains(textOf(err), text) {
		t.Errorf("%s: %v (%v), want ResourceExhausted, and %q", what, err, yonder.CodeOf(err), text)
	}
}

// yieldAll returns a stream of values.
func yieldAll[T any](values ...T) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for _, v := range values {
			if !yield(v, nil) {
				return
			}
		}
	}
}

// A message beyond MaxMessage fails its call, whichever end limits it, and nothing else.
func TestMaxMessage(t *testing.T) {
	operations := []struct {
		what   string
		server bool // receives it
		needs  []ability
		do     func(t *testing.T, c *yonder.Client, n int) (int, error)
	}{
		{"arguments", true, nil, func(t *testing.T, c *yonder.Client, n int) (int, error) {
			return yonder.Invoke[int](t.Context(), c, "size", strings.Repeat("x", n))
		}},
		{"results", false, nil, func(t *testing.T, c *yonder.Client, n int) (int, error) {
			s, err := yonder.Invoke[string](t.Context(), c, "make", n)
			return len(s), err
		}},
		{"results beside a stream", false, []ability{streams}, func(t *testing.T, c *yonder.Client, n int) (int, error) {
			var s string
			var xs iter.Seq2[int, error]
			err := c.Call(t.Context(), yonder.NewCall("both", n).Into(&s, &xs))
			if err == nil {
				_, err = collect(xs)
			}
			return len(s), err
		}},
		{"an argument's value", true, []ability{streams, conversation}, func(t *testing.T, c *yonder.Client, n int) (size int, err error) {
			err = c.Call(t.Context(), yonder.NewCall("last", yieldAll("small", strings.Repeat("x", n))).Into(&size))
			return size, err
		}},
		{"a result's value", false, []ability{streams}, func(t *testing.T, c *yonder.Client, n int) (int, error) {
			xs, err := yonder.Invoke[iter.Seq2[string, error]](t.Context(), c, "stream", n)
			if err != nil {
				return 0, err
			}
			list, err := collect(xs)
			if err != nil {
				return 0, err
			}
			return len(list[len(list)-1]), nil
		}},
	}
	for _, size := range []int{10_000, 100_000} {
		for _, end := range []string{"server", "client"} {
			t.Run(fmt.Sprintf("%s of %d bytes", end, size), func(t *testing.T) {
				runAll(t, func(t *testing.T, m mode) {
					m.cannot(t, inProcess, "nothing is limited in the same process")
					var srv yonder.Server
					var d yonder.Dialer
					if end == "server" {
						srv.Limits.MaxMessage = size
					} else {
						d.Limits.MaxMessage = size
					}
					srv.Register("size", func(s string) int { return len(s) })
					srv.Register("make", func(n int) string { return strings.Repeat("x", n) })
					srv.Register("both", func(n int) (string, iter.Seq2[int, error]) {
						return strings.Repeat("x", n), countTo(10_000, nil)
					})
					srv.Register("last", func(xs iter.Seq2[string, error]) (n int, err error) {
						for x, err := range xs {
							if err != nil {
								return 0, err
							}
							n = len(x)
						}
						return n, nil
					})
					srv.Register("stream", func(n int) iter.Seq2[string, error] {
						return yieldAll("small", strings.Repeat("x", n))
					})
					began, release := make(chan bool), make(chan bool)
					srv.Register("wait", func() { close(began); <-release })
					c := m.dialer(t, &srv, &d)
					wait := make(chan error, 1)
					first := true // the client may not know the limit yet
					for range 2 {
						for _, op := range operations {
							if slices.ContainsFunc(op.needs, func(a ability) bool { return !m.can(t, a) }) {
								continue
							}
							n, err := op.do(t, c, size)
							switch {
							case op.server != (end == "server") && !(m == overFrames && end == "server"): // whose limit is for answers, too
								if !m.can(t, uneven) {
									break
								}
								if n != size || err != nil {
									t.Errorf("%s, for the end without the limit: %d, %v", op.what, n, err)
								}
							default:
								exhausted(t, op.what, err, fmt.Sprintf("is larger than the limit of %d", size))
							}
							if n, err := op.do(t, c, size-200); n != size-200 || err != nil {
								t.Errorf("%s that fit: %d, %v", op.what, n, err)
							}
							if first && m.can(t, overtaking) {
								go func() { wait <- c.Call(t.Context(), yonder.NewCall("wait")) }()
								<-began
								first = false
							}
						}
					}
					close(release)
					if first {
						return
					}
					if err := <-wait; err != nil {
						t.Errorf("the call in flight meanwhile: %v", err)
					}
				})
			})
		}
	}
}

// queue is a procedure whose calls begin in an order that is kept, and end one by one.
type queue struct {
	mu      sync.Mutex
	began   []int
	running int
	most    int
	release chan bool
}

func (q *queue) wait(n int) {
	q.mu.Lock()
	q.began = append(q.began, n)
	q.running++
	q.most = max(q.most, q.running)
	q.mu.Unlock()
	<-q.release
	q.mu.Lock()
	q.running--
	q.mu.Unlock()
}

// Calls beyond MaxCalls wait in the caller, in order, each until its context ends; they
// are not refused. It is so for either end's calls.
func TestMaxCalls(t *testing.T) {
	for _, end := range []string{"server", "client"} {
		t.Run(end, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const limit, callers = 3, 10
				q := &queue{release: make(chan bool)}
				var srv, mine yonder.Server
				called := &srv
				if end == "client" {
					called = &mine
				}
				called.Register("wait", q.wait)
				limits := yonder.Limits{MaxCalls: limit}
				peer := make(chan *yonder.Client, 1)
				srv.Register("hello", func(ctx context.Context) { peer <- yonder.PeerFrom(ctx) })
				d := yonder.Dialer{Server: &mine}
				if end == "server" {
					srv.Limits = limits
				} else {
					d.Limits = limits
				}
				c := yondertest.PairDialer(t, &srv, &d)
				if err := c.Call(t.Context(), yonder.NewCall("hello")); err != nil {
					t.Fatal(err)
				}
				if end == "client" {
					c = <-peer
				}
				impatient, cancel := context.WithCancel(t.Context())
				errs := make([]error, callers)
				var wg sync.WaitGroup
				for i := range callers {
					ctx := t.Context()
					switch i {
					case 5:
						ctx = impatient
					case 6:
						var cancel context.CancelFunc
						ctx, cancel = context.WithTimeout(ctx, time.Second)
						defer cancel()
					}
					wg.Go(func() { errs[i] = c.Call(ctx, yonder.NewCall("wait", i)) })
					synctest.Wait()
				}
				cancel()
				synctest.Wait()
				if yonder.CodeOf(errs[5]) != yonder.Canceled {
					t.Errorf("the caller who gave up while it waited: %v", errs[5])
				}
				time.Sleep(time.Second)
				synctest.Wait()
				if yonder.CodeOf(errs[6]) != yonder.DeadlineExceeded {
					t.Errorf("the caller whose time is up: %v", errs[6])
				}
				errs[5], errs[6] = nil, nil
				for range callers - 2 {
					q.release <- true
					synctest.Wait()
				}
				wg.Wait()
				if diff := cmp.Diff([]int{0, 1, 2, 3, 4, 7, 8, 9}, q.began); diff != "" || q.most != limit {
					t.Errorf("%d ran at a time; the order: %s", q.most, diff)
				}
				for i, err := range errs {
					if err != nil {
						t.Errorf("call %d: %v", i, err)
					}
				}
			})
		})
	}
}

// Streams beyond MaxStreams fail their calls; the streams of others go on, and their
// places are used again.
func TestMaxStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := yonder.Limits{MaxStreams: 2}
		srv := yonder.Server{Limits: limits}
		type seq = iter.Seq2[int, error]
		var open chan bool // what all streams wait for
		gated := func(yield func(int, error) bool) {
			<-open
			countTo(10, nil)(yield)
		}
		srv.Register("take", func(a, b, c seq) (n int, err error) {
			for _, s := range []seq{a, b, c} {
				if s != nil {
					list, err := collect(s)
					if err != nil {
						return 0, err
					}
					n += len(list)
				}
			}
			return n, nil
		})
		srv.Register("give", func(k int) (a, b, c seq) {
			s := [3]seq{}
			for i := range k {
				s[i] = gated
			}
			return s[0], s[1], s[2]
		})
		c := yondertest.PairDialer(t, &srv, &yonder.Dialer{Limits: limits})
		var take func(ctx context.Context, a, b, c seq) (int, error)
		var give func(ctx context.Context, k int) (seq, seq, seq, error)
		c.Bind("take", &take)
		c.Bind("give", &give)
		for range 3 {
			open = make(chan bool)
			_, err := take(t.Context(), gated, gated, gated)
			exhausted(t, "three arguments", err, "too many streams")
			done := make(chan outcome, 1)
			go func() {
				n, err := take(t.Context(), gated, nil, gated)
				done <- outcome{n, err}
			}()
			synctest.Wait()
			_, err = take(t.Context(), nil, gated, nil)
			exhausted(t, "another call's argument", err, "too many streams")
			if _, err := take(t.Context(), nil, nil, nil); err != nil {
				t.Errorf("no argument: %v", err)
			}

			s1, s2, none, err := give(t.Context(), 2)
			if err != nil {
				t.Fatalf("two results: %v", err)
			}
			if list, err := collect(none); len(list) > 0 || err != nil {
				t.Errorf("a nil result: %v, %v", list, err)
			}
			_, _, _, err = give(t.Context(), 1)
			exhausted(t, "another call's result", err, "too many streams")
			close(open)
			for _, s := range []seq{s2, s1} {
				if list, err := collect(s); len(list) != 10 || err != nil {
					t.Errorf("a result within the limit: %v, %v", list, err)
				}
			}
			if got := <-done; got.n != 20 || got.err != nil {
				t.Errorf("arguments within the limit: %v", got)
			}
			synctest.Wait() // even a stream that nobody reads looks at open
			open = make(chan bool)
			_, _, _, err = give(t.Context(), 3)
			exhausted(t, "three results", err, "too many streams")
			close(open)
			synctest.Wait()
		}
	})
}

// Metadata beyond MaxMetadata fails its call, on its way there or back.
func TestMaxMetadata(t *testing.T) {
	for _, test := range []struct{ limit, fits, large int }{
		{0, 16_000, 17_000},
		{1, 4_000, 5_000}, // at least 4 KiB
		{8 << 10, 8_000, 9_000},
		{1 << 20, 32_000, 33_000}, // at most 32 KiB
	} {
		t.Run(fmt.Sprint(test.limit), func(t *testing.T) {
			runAll(t, func(t *testing.T, m mode) {
				m.needs(t, metadata)
				m.cannot(t, inProcess, "nothing is limited in the same process")
				limits := yonder.Limits{MaxMetadata: test.limit}
				srv := yonder.Server{Limits: limits}
				srv.Register("size", func(ctx context.Context, back int) int {
					yonder.SetReply(ctx, "k", strings.Repeat("v", back))
					info, _ := yonder.InfoFrom(ctx)
					return len(info.Metadata["k"])
				})
				c := m.dialer(t, &srv, &yonder.Dialer{Limits: limits})
				call := func(there, back int) (n int, reply yonder.Metadata, err error) {
					ctx := yonder.WithReply(yonder.WithMetadata(t.Context(), "k", strings.Repeat("v", there)), &reply)
					n, err = yonder.Invoke[int](ctx, c, "size", back)
					return n, reply, err
				}
				for range 2 {
					_, _, err := call(test.large, 0)
					exhausted(t, "the call's", err, "metadata")
					_, _, err = call(0, test.large)
					exhausted(t, "the answer's", err, "metadata")
					n, reply, err := call(test.fits, test.fits)
					if n != test.fits || len(reply["k"]) != test.fits || err != nil {
						t.Errorf("what fits: %d, %d, %v", n, len(reply["k"]), err)
					}
				}
			})
		})
	}
}

// Procedures beyond MaxNames cannot be called; the others can.
func TestMaxNames(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		m.cannot(t, inProcess, "nothing is limited in the same process")
		srv := yonder.Server{Limits: yonder.Limits{MaxNames: 3}}
		for i := range 5 {
			srv.Register(fmt.Sprint("p", i), func(n int) int { return n + i })
		}
		c := m.dialer(t, &srv, new(yonder.Dialer))
		for range 2 {
			for i := range 5 {
				n, err := yonder.Invoke[int](t.Context(), c, fmt.Sprint("p", i), 10)
				if i >= 3 {
					exhausted(t, fmt.Sprint("procedure ", i), err, "names")
				} else if n != 10+i || err != nil {
					t.Errorf("procedure %d: %d, %v", i, n, err)
				}
			}
		}
		// One more signature is one more name.
		_, err := yonder.Invoke[int64](t.Context(), c, "p0", 10)
		exhausted(t, "another signature", err, "names")
	})
}

// closedAfter checks that a connection that is served ends at a time, with an error that
// says why.
func closedAfter(t *testing.T, want time.Duration, text string, srv *yonder.Server, peer func(conn net.Conn)) {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	start := time.Now()
	go peer(near)
	err := srv.ServeConn(far)
	if took := time.Since(start); took != want || !strings.Contains(textOf(err), text) {
		t.Errorf("after %v: %v; want %q after %v", took, err, text, want)
	}
	synctest.Wait()
}

// FirstByte bounds how long a connection may take to say what it is, at either end.
func TestFirstByte(t *testing.T) {
	const preface = "\xd9yonder\x01"
	for _, test := range []struct{ limit, want time.Duration }{{0, 10 * time.Second}, {3 * time.Second, 3 * time.Second}} {
		t.Run(fmt.Sprint(test.limit), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				limits := yonder.Limits{FirstByte: test.limit}
				srv := &yonder.Server{Logger: logger(t), Limits: limits}
				closedAfter(t, test.want, "did not say what protocol it speaks", srv, func(conn net.Conn) {})
				closedAfter(t, test.want, "did not say what protocol it speaks", srv, func(conn net.Conn) {
					for _, b := range []byte(preface) { // never complete
						time.Sleep(test.want / 7)
						if _, err := conn.Write([]byte{b}); err != nil {
							return
						}
					}
				})
				// Then HELLO has as long.
				closedAfter(t, test.want+time.Second, "no HELLO within", srv, func(conn net.Conn) {
					time.Sleep(time.Second)
					io.WriteString(conn, preface)
					io.Copy(io.Discard, conn)
				})
				closedAfter(t, test.want, "no HELLO within", srv, func(conn net.Conn) {
					go io.Copy(io.Discard, conn)
					io.WriteString(conn, preface)
					for _, b := range []byte("\x00\x00\x00\x2a\x01\x00\x00\x00\x00\x00\x01\x04cbor") {
						if _, err := conn.Write([]byte{b}); err != nil {
							return
						}
						time.Sleep(test.want / 10)
					}
				})

				for _, says := range []string{"", preface} {
					near, far := net.Pipe()
					defer far.Close()
					go io.Copy(io.Discard, far)
					go io.WriteString(far, says)
					c := (&yonder.Dialer{Logger: logger(t), Limits: limits}).NewClient(near)
					start := time.Now()
					_, err := yonder.Invoke[int](t.Context(), c, "x")
					if took := time.Since(start); took != test.want || yonder.CodeOf(err) != yonder.Unavailable || !strings.Contains(textOf(err), "no HELLO within") {
						t.Errorf("a server that says %q: after %v: %v", says, took, err)
					}
					c.Close()
				}
			})
		})
	}
}

// KeepAlive is how soon a dead peer is found, and less than zero is never.
func TestKeepAliveLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, keepAlive := range []time.Duration{time.Second, time.Minute, -1} {
			srv, began, release, _ := patient(t)
			limits := yonder.Limits{KeepAlive: keepAlive}
			srv.Limits = limits
			near, far := net.Pipe()
			dead := &swallowing{Conn: near}
			go srv.ServeConn(far)
			c := (&yonder.Dialer{Logger: logger(t), Limits: limits}).NewClient(dead)
			if _, err := yonder.Invoke[int](t.Context(), c, "echo", 1); err != nil {
				t.Fatal(err)
			}
			call := waiting(t.Context(), c, began, 1)
			dead.dead.Store(true)
			start := time.Now()
			select {
			case got := <-call:
				if took := time.Since(start); keepAlive < 0 || took < keepAlive || took > 3*keepAlive || yonder.CodeOf(got.err) != yonder.Unavailable {
					t.Errorf("KeepAlive %v: after %v %v", keepAlive, took, got.err)
				}
			case <-time.After(24 * time.Hour):
				if keepAlive > 0 {
					t.Errorf("KeepAlive %v: a dead peer is not found", keepAlive)
				}
			}
			close(release)
			c.Close()
			srv.Close()
		}
	})
}

// Window is how far a producer gets ahead of a consumer that does not read, but for one
// value.
func TestWindow(t *testing.T) {
	const value = 1000
	for _, test := range []struct{ limit, want int }{{0, 256 << 10}, {1, 64 << 10}, {1 << 20, 1 << 20}} {
		t.Run(fmt.Sprint(test.limit), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				limits := yonder.Limits{Window: test.limit}
				srv := yonder.Server{Limits: limits, Logger: logger(t)}
				values := func(sent *atomic.Int64) iter.Seq2[string, error] {
					return func(yield func(string, error) bool) {
						s := strings.Repeat("x", value)
						for yield(s, nil) {
							sent.Add(value)
						}
					}
				}
				var there, back atomic.Int64
				go_, took := make(chan bool), make(chan int, 1)
				srv.Register("take", func(xs iter.Seq2[string, error]) {
					<-go_
					n := 0
					for range xs {
						if n += value; n > 3*test.want {
							break
						}
					}
					took <- n
				})
				srv.Register("give", func() iter.Seq2[string, error] { return values(&back) })
				c := yondertest.PairDialer(t, &srv, &yonder.Dialer{Limits: limits})
				done := make(chan error)
				go func() { done <- c.Call(t.Context(), yonder.NewCall("take", values(&there))) }()
				seq, err := yonder.Invoke[iter.Seq2[string, error]](t.Context(), c, "give")
				if err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				for what, sent := range map[string]int64{"there": there.Load(), "back": back.Load()} {
					if sent < int64(test.want)*9/10 || sent > int64(test.want)+value {
						t.Errorf("%s: %d bytes were sent to a window of %d", what, sent, test.want)
					}
				}
				close(go_)
				if n := <-took; n <= 3*test.want {
					t.Errorf("then %d bytes came", n)
				}
				if err := <-done; err != nil {
					t.Error(err)
				}
				n := 0
				for _, err := range seq {
					if err != nil {
						t.Fatal(err)
					}
					if n += value; n > 3*test.want {
						break
					}
				}
			})
		})
	}
}

// A result whose answer waits to be written, for a peer does not read, is not kept beside what it
// is encoded to.
func TestUnreadResult(t *testing.T) {
	srv := &yonder.Server{Limits: yonder.Limits{KeepAlive: -1}, Logger: logger(t)}
	const size = 300 << 10 // more than a frame
	made := make(chan [2]weak.Pointer[byte], 1)
	make2 := func(arg []byte) []string {
		parts := []string{strings.Repeat("x", size)}
		made <- [2]weak.Pointer[byte]{weak.Make(unsafe.StringData(parts[0])), weak.Make(&arg[0])}
		return parts
	}
	srv.Register("bound", make2)
	yonder.Handle(srv, "generic", func(_ context.Context, arg []byte) ([]string, error) { return make2(arg), nil })
	srv.Register("now", func() {})
	for _, name := range []string{"bound", "generic"} {
		near, far := net.Pipe()
		served := make(chan error, 1)
		go func() { served <- srv.ServeConn(far) }()
		var unread atomic.Bool
		conn := &unreadConn{Conn: near, unread: &unread, closed: make(chan struct{})}
		c := (&yonder.Dialer{Limits: yonder.Limits{KeepAlive: -1}}).NewClient(conn)
		if err := c.Call(t.Context(), yonder.NewCall("now")); err != nil {
			t.Fatal(err)
		}
		unread.Store(true)
		ctx, cancel := context.WithCancel(t.Context())
		returned := make(chan error, 1)
		go func() {
			_, err := yonder.Invoke[[]string](ctx, c, name, make([]byte, 100<<10))
			returned <- err
		}()
		kept := <-made
		for i, what := range []string{"result", "argument"} {
			for start := time.Now(); kept[i].Value() != nil; runtime.GC() {
				if time.Since(start) > 10*time.Second {
					t.Errorf("%s: the %s is still there", name, what)
					break
				}
			}
		}
		cancel()
		<-returned
		c.Close()
		<-served
	}
}

// unreadConn is a connection that its owner does not read any more when it says so.
type unreadConn struct {
	net.Conn
	unread *atomic.Bool
	once   sync.Once
	closed chan struct{}
}

func (u *unreadConn) Read(b []byte) (int, error) {
	n, err := u.Conn.Read(b)
	if u.unread.Load() {
		<-u.closed
		return 0, net.ErrClosed
	}
	return n, err
}

func (u *unreadConn) Close() error {
	u.once.Do(func() { close(u.closed) })
	return u.Conn.Close()
}
