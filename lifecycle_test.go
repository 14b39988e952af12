package yonder_test

import (
	"context"
	"errors"
	"io"
	"iter"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/yondertest"
)

// noLeak has the test fail if it leaves a goroutine behind.
func noLeak(t *testing.T) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
}

// patient returns a server with a procedure wait(n) that returns n once release is closed,
// or why its context ended. Each call of it sends on began; a context's cause goes to ended.
func patient(t *testing.T) (srv *yonder.Server, began chan int, release chan bool, ended chan error) {
	srv = &yonder.Server{Logger: logger(t)}
	began, release, ended = make(chan int, 100), make(chan bool), make(chan error, 100)
	srv.Register("wait", func(ctx context.Context, n int) (int, error) {
		began <- n
		select {
		case <-release:
			return n, nil
		case <-ctx.Done():
			ended <- context.Cause(ctx)
			return 0, ctx.Err()
		}
	})
	srv.Register("echo", func(n int) int { return n })
	srv.Register("slowly", func(ctx context.Context) iter.Seq2[int, error] {
		return func(yield func(int, error) bool) {
			began <- 0
			if !yield(0, nil) {
				return
			}
			select {
			case <-release:
			case <-ctx.Done():
				return
			}
			for i := 1; i < 1000 && yield(i, nil); i++ {
			}
		}
	})
	return srv, began, release, ended
}

// An outcome is what a call came to.
type outcome struct {
	n   int
	err error
}

// waiting calls wait, and returns where the outcome will be once the handler has begun.
func waiting(ctx context.Context, c *yonder.Client, began <-chan int, n int) <-chan outcome {
	done := make(chan outcome, 1)
	go func() { // ends with the call
		got, err := yonder.Invoke[int](ctx, c, "wait", n)
		done <- outcome{got, err}
	}()
	<-began
	return done
}

// socketDir returns a directory whose path is short enough for a socket.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "yonder")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func listenOn(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := yonder.Listen(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func dialTo(t *testing.T, address string) *yonder.Client {
	t.Helper()
	c, err := (&yonder.Dialer{Logger: logger(t)}).Dial(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// A server serves several listeners at once; Close ends them all, and Serve after that
// accepts nothing.
func TestServe(t *testing.T) {
	noLeak(t)
	srv, _, _, _ := patient(t)
	served := make(chan error, 3)
	var addresses []string
	for range 2 {
		l := listenOn(t, "127.0.0.1:0")
		addresses = append(addresses, l.Addr().String(), "tcp://"+l.Addr().String())
		go func() { served <- srv.Serve(l) }()
	}
	socket := listenOn(t, "unix://"+filepath.Join(socketDir(t), "s"))
	addresses = append(addresses, "unix://"+socket.Addr().String())
	go func() { served <- srv.Serve(socket) }()
	for i, address := range addresses {
		if n, err := yonder.Invoke[int](t.Context(), dialTo(t, address), "echo", i); n != i || err != nil {
			t.Errorf("%s: %d, %v", address, n, err)
		}
	}
	if err := srv.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	for range cap(served) {
		if err := <-served; err != yonder.ErrServerClosed {
			t.Errorf("Serve returned %v", err)
		}
	}
	for _, address := range addresses {
		if _, err := yonder.Dial(t.Context(), address); yonder.CodeOf(err) != yonder.Unavailable {
			t.Errorf("%s can be dialed after Close: %v", address, err)
		}
	}

	l := listenOn(t, "127.0.0.1:0")
	if err := srv.Serve(l); err != yonder.ErrServerClosed {
		t.Errorf("Serve after Close: %v", err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener is not closed: Accept returned %v", err)
	}
	if err := srv.ListenAndServe("127.0.0.1:0"); err != yonder.ErrServerClosed {
		t.Errorf("ListenAndServe after Close: %v", err)
	}
	near, far := net.Pipe()
	if err := srv.ServeConn(far); err != yonder.ErrServerClosed {
		t.Errorf("ServeConn after Close: %v", err)
	}
	if _, err := near.Write([]byte("x")); err != io.ErrClosedPipe {
		t.Errorf("the connection is not closed: Write returned %v", err)
	}
}

// A listener that somebody else closes ends its Serve with the listener's error.
func TestServeListenerClosed(t *testing.T) {
	noLeak(t)
	var srv yonder.Server
	l := listenOn(t, "127.0.0.1:0")
	served := make(chan error)
	go func() { served <- srv.Serve(l) }()
	l.Close()
	if err := <-served; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve returned %v", err)
	}
}

func TestListenAndServe(t *testing.T) {
	dir := socketDir(t)
	fresh, stale := filepath.Join(dir, "fresh"), filepath.Join(dir, "stale")
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false) // as if the process had died
	left.Close()
	if _, err := os.Stat(stale); err != nil {
		t.Fatal(err)
	}
	probe := listenOn(t, "127.0.0.1:0")
	port := probe.Addr().String()
	probe.Close()
	for _, address := range []string{port, "tcp://" + port, "unix://" + fresh, "unix://" + stale} {
		t.Run(address, func(t *testing.T) {
			noLeak(t)
			srv, _, _, _ := patient(t)
			served := make(chan error, 1)
			go func() { served <- srv.ListenAndServe(address) }()
			var c *yonder.Client
			for c == nil { // it listens in a moment
				select {
				case err := <-served:
					t.Fatal(err)
				default:
					runtime.Gosched()
				}
				c, _ = yonder.Dial(t.Context(), address)
			}
			defer c.Close()
			if n, err := yonder.Invoke[int](t.Context(), c, "echo", 7); n != 7 || err != nil {
				t.Errorf("echo: %d, %v", n, err)
			}
			srv.Close()
			if err := <-served; err != yonder.ErrServerClosed {
				t.Errorf("ListenAndServe returned %v", err)
			}
			if path, ok := strings.CutPrefix(address, "unix://"); ok {
				if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("the socket is left behind: %v", err)
				}
			}
		})
	}
}

func TestListenErrors(t *testing.T) {
	dir := socketDir(t)
	file, live := filepath.Join(dir, "file"), filepath.Join(dir, "live")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	socket := listenOn(t, "unix://"+live)
	taken := listenOn(t, "127.0.0.1:0")
	for _, test := range []struct {
		address, text string
		code          yonder.Code
	}{
		{"http://localhost:80", `unknown scheme "http"; use host:port, tcp://host:port or unix:///path`, yonder.InvalidArgument},
		{"://x", `unknown scheme ""`, yonder.InvalidArgument},
		{"", "it is empty", yonder.InvalidArgument}, // not any free port
		{"unix://", "it is empty", yonder.InvalidArgument},
		{"127.0.0.1", "missing port", yonder.Unknown},
		{"tcp://127.0.0.1:port", "unknown port", yonder.Unknown},
		{"unix://" + filepath.Join(dir, "no", "such", "folder"), "no such file", yonder.NotFound},
		{taken.Addr().String(), "address already in use", yonder.Unknown},
		{"unix://" + live, "address already in use", yonder.Unknown},
		{"unix://" + file, "address already in use", yonder.Unknown},
	} {
		var srv yonder.Server
		err := srv.ListenAndServe(test.address)
		if !strings.Contains(textOf(err), test.text) || yonder.CodeOf(err) != test.code {
			t.Errorf("%s: %v (%v)", test.address, err, yonder.CodeOf(err))
		}
	}
	if b, err := os.ReadFile(file); string(b) != "precious" {
		t.Errorf("the file that is no socket: %q, %v", b, err)
	}
	conn, err := net.Dial("unix", socket.Addr().String())
	if err != nil {
		t.Fatalf("the socket that somebody listens on was removed: %v", err)
	}
	conn.Close()
}

// refusedAtOnce calls echo, which must be refused without waiting for anybody.
func refusedAtOnce(t *testing.T, c *yonder.Client) {
	t.Helper()
	start := time.Now()
	_, err := yonder.Invoke[int](t.Context(), c, "echo", 1)
	if took := time.Since(start); yonder.CodeOf(err) != yonder.Unavailable || took > 0 {
		t.Errorf("a new call, after %v: %v", took, err)
	}
}

// Shutdown lets calls and streams end, refuses new calls at once, and closes what has
// nothing to do.
func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, began, release, _ := patient(t)
		busy, streaming, idle := yondertest.Pair(t, srv), yondertest.Pair(t, srv), yondertest.Pair(t, srv)
		if _, err := yonder.Invoke[int](t.Context(), idle, "echo", 1); err != nil {
			t.Fatal(err)
		}
		call := waiting(t.Context(), busy, began, 7)
		seq, err := yonder.Invoke[iter.Seq2[int, error]](t.Context(), streaming, "slowly")
		if err != nil {
			t.Fatal(err)
		}
		<-began

		down := make(chan error, 1)
		go func() { down <- srv.Shutdown(t.Context()) }()
		synctest.Wait()
		select {
		case <-idle.Done():
		default:
			t.Error("the idle connection is still there")
		}
		for _, c := range []*yonder.Client{busy, streaming, idle} {
			refusedAtOnce(t, c)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		select {
		case err := <-down:
			t.Fatalf("Shutdown returned %v with calls in flight", err)
		case got := <-call:
			t.Fatalf("the call in flight ended: %v", got)
		default:
		}

		close(release)
		if got := <-call; got.n != 7 || got.err != nil {
			t.Errorf("the call in flight: %v", got)
		}
		if list, err := collect(seq); len(list) != 1000 || err != nil {
			t.Errorf("the stream in flight: %d values, %v", len(list), err)
		}
		start := time.Now()
		if err := <-down; err != nil || time.Since(start) > 2*time.Second {
			t.Errorf("Shutdown returned %v after %v", err, time.Since(start))
		}
		<-busy.Done()
		<-streaming.Done()
	})
}

// A client that has its own address to dial is told the same, when nobody listens there.
func TestShutdownOverSockets(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		m.cannot(t, overFrames, "answers come in order, so a new call waits for the one in flight")
		m.cannot(t, inProcess, "there is no connection to shut down")
		srv, began, release, _ := patient(t)
		c := m.client(t, srv)
		call := waiting(t.Context(), c, began, 7)
		down := make(chan error, 1)
		go func() { down <- srv.Shutdown(t.Context()) }()
		for { // until Shutdown has begun
			_, err := yonder.Invoke[int](t.Context(), c, "echo", 1)
			if err == nil {
				continue
			}
			if yonder.CodeOf(err) != yonder.Unavailable {
				t.Errorf("a new call: %v (%v)", err, yonder.CodeOf(err))
			}
			break
		}
		close(release)
		if got := <-call; got.n != 7 || got.err != nil {
			t.Errorf("the call in flight: %v", got)
		}
		if err := <-down; err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
}

// When its context ends first, Shutdown closes what is left.
func TestShutdownTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, began, _, ended := patient(t)
		c := yondertest.Pair(t, srv)
		call := waiting(t.Context(), c, began, 7)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		if err := srv.Shutdown(ctx); err != context.DeadlineExceeded || time.Since(start) != 3*time.Second {
			t.Errorf("Shutdown returned %v after %v", err, time.Since(start))
		}
		if cause := <-ended; cause != yonder.ErrServerClosed {
			t.Errorf("the handler's context ended because of: %v", cause)
		}
		if got := <-call; yonder.CodeOf(got.err) != yonder.Unavailable {
			t.Errorf("the call in flight: %v", got)
		}
		if err := srv.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown of a closed server: %v", err)
		}
	})
}

// Close ends everything at once, and tells both ends why.
func TestClose(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		m.needs(t, streams)
		m.cannot(t, inProcess, "there is no connection to close")
		srv, began, _, ended := patient(t)
		c := m.client(t, srv)
		var calls []<-chan outcome
		for i := range 3 {
			calls = append(calls, waiting(t.Context(), c, began, i))
		}
		seq, err := yonder.Invoke[iter.Seq2[int, error]](t.Context(), c, "slowly")
		if err != nil {
			t.Fatal(err)
		}
		<-began
		if err := srv.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		for _, call := range calls {
			got := <-call
			if yonder.CodeOf(got.err) != yonder.Unavailable || !errors.Is(got.err, yonder.ErrConnectionLost) || yonder.IsRemote(got.err) {
				t.Errorf("a call in flight: %v (%v)", got.err, yonder.CodeOf(got.err))
			}
			if cause := <-ended; cause != yonder.ErrServerClosed {
				t.Errorf("a handler's context ended because of: %v", cause)
			}
		}
		if _, err := collect(seq); yonder.CodeOf(err) != yonder.Unavailable || !errors.Is(err, yonder.ErrConnectionLost) {
			t.Errorf("the stream: %v", err)
		}
		if _, err := yonder.Invoke[int](t.Context(), c, "echo", 1); yonder.CodeOf(err) != yonder.Unavailable {
			t.Errorf("a new call: %v (%v)", err, yonder.CodeOf(err))
		}
	})
}

// Close and Shutdown may be called by anybody at any time, handlers included.
func TestCloseTwice(t *testing.T) {
	noLeak(t)
	for range 20 {
		srv, began, _, _ := patient(t)
		srv.Register("close", func() { srv.Close() })
		l := listenOn(t, "127.0.0.1:0")
		served := make(chan error)
		go func() { served <- srv.Serve(l) }()
		c := dialTo(t, l.Addr().String())
		call := waiting(t.Context(), c, began, 1)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if err := srv.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
			})
			wg.Go(func() {
				if err := srv.Close(); err != nil {
					t.Error(err)
				}
			})
			wg.Go(func() { c.Call(t.Context(), yonder.NewCall("close")) })
		}
		wg.Wait()
		if err := <-served; err != yonder.ErrServerClosed {
			t.Errorf("Serve returned %v", err)
		}
		if got := <-call; yonder.CodeOf(got.err) != yonder.Unavailable {
			t.Errorf("the call in flight: %v", got)
		}
		c.Close()
	}
}

// flakyListener fails so often before each connection that it accepts.
type flakyListener struct {
	fail   int
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
	failed int // since the last connection

	mu    sync.Mutex
	tries []time.Time
}

func (l *flakyListener) Accept() (net.Conn, error) {
	l.mu.Lock()
	l.tries = append(l.tries, time.Now())
	l.mu.Unlock()
	if l.failed < l.fail {
		l.failed++
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept", syscall.EMFILE)}
	}
	l.failed = 0
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *flakyListener) tried() []time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.tries)
}

func (l *flakyListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *flakyListener) Addr() net.Addr { return &net.TCPAddr{} }

// TestAcceptIsOver is a regression: Serve went on trying with a listener that says in its own
// words that it is closed, as those in memory and those that share a port do.
func TestAcceptIsOver(t *testing.T) {
	var srv yonder.Server
	defer srv.Close()
	over := errors.New("the listener is closed")
	if err := srv.Serve(endedListener{err: over}); err != over {
		t.Errorf("Serve returned %v", err)
	}
}

type endedListener struct {
	net.Listener
	err error
}

func (l endedListener) Accept() (net.Conn, error) { return nil, l.err }
func (l endedListener) Close() error              { return nil }

// Accept's temporary errors pass: Serve tries again, ever more slowly.
func TestAcceptFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := new(logBuffer)
		srv, _, _, _ := patient(t)
		srv.Logger = log.logger()
		l := &flakyListener{fail: 10, conns: make(chan net.Conn), closed: make(chan struct{})}
		served := make(chan error, 1)
		go func() { served <- srv.Serve(l) }()
		for range 2 {
			near, far := net.Pipe()
			l.conns <- far
			c := yonder.NewClient(near)
			if n, err := yonder.Invoke[int](t.Context(), c, "echo", 7); n != 7 || err != nil {
				t.Errorf("%d, %v", n, err)
			}
			c.Close()
		}
		synctest.Wait()
		tries := l.tried()
		var pauses []time.Duration
		for i := 1; i <= l.fail; i++ {
			pauses = append(pauses, tries[i].Sub(tries[i-1]))
		}
		const ms = time.Millisecond
		want := []time.Duration{5 * ms, 10 * ms, 20 * ms, 40 * ms, 80 * ms, 160 * ms, 320 * ms, 640 * ms, time.Second, time.Second}
		if diff := cmp.Diff(want, pauses); diff != "" {
			t.Error(diff)
		}
		if again := tries[l.fail+2].Sub(tries[l.fail+1]); again != 5*ms {
			t.Errorf("after a success the first pause is %v", again)
		}
		if !strings.Contains(log.String(), "accept failed") || !strings.Contains(log.String(), "too many open files") {
			t.Errorf("the log:\n%s", log)
		}

		// Neither way of ending waits for a pause.
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		start := time.Now()
		srv.Shutdown(t.Context())
		if err := <-served; err != yonder.ErrServerClosed || time.Since(start) > 0 {
			t.Errorf("after %v Serve returned %v", time.Since(start), err)
		}
	})
}

// TestShutdownDuringPause is a regression: Serve went on waiting for its next try.
func TestShutdownDuringPause(t *testing.T) {
	for name, end := range map[string]func(*yonder.Server){
		"Shutdown": func(srv *yonder.Server) { srv.Shutdown(context.Background()) },
		"Close":    func(srv *yonder.Server) { srv.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := yonder.Server{Logger: logger(t)}
				l := &flakyListener{fail: 1000, closed: make(chan struct{})}
				served := make(chan error, 1)
				go func() { served <- srv.Serve(l) }()
				time.Sleep(time.Minute + time.Millisecond)
				start := time.Now()
				end(&srv)
				if err := <-served; err != yonder.ErrServerClosed || time.Since(start) > 0 {
					t.Errorf("after %v Serve returned %v", time.Since(start), err)
				}
			})
		})
	}
}

func TestDialErrors(t *testing.T) {
	noLeak(t)
	nobody := listenOn(t, "127.0.0.1:0")
	nobody.Close()
	for _, test := range []struct {
		address, text string
		code          yonder.Code
	}{
		{"http://localhost:80", `yonder: address "http://localhost:80": unknown scheme "http"; use host:port, tcp://host:port or unix:///path`, yonder.InvalidArgument},
		{"://", `unknown scheme ""`, yonder.InvalidArgument},
		{"", `yonder: address "": it is empty; use host:port, tcp://host:port or unix:///path`, yonder.InvalidArgument},
		{"127.0.0.1", "missing port", yonder.Unavailable},
		{"unix:///no/such/socket", "no such file", yonder.Unavailable},
		{"tcp://" + nobody.Addr().String(), "connection refused", yonder.Unavailable},
	} {
		c, err := yonder.Dial(t.Context(), test.address)
		if c != nil || !strings.Contains(textOf(err), test.text) || yonder.CodeOf(err) != test.code {
			t.Errorf("%s: %v, %v (%v)", test.address, c != nil, err, yonder.CodeOf(err))
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := yonder.Dial(ctx, nobody.Addr().String()); yonder.CodeOf(err) != yonder.Canceled {
		t.Errorf("with a context that has ended: %v", err)
	}
}

// Dial gives up with its context, or after DialTimeout.
func TestDialTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := 0
		d := yonder.Dialer{DialTimeout: 5 * time.Second, NetDial: func(ctx context.Context, network, address string) (net.Conn, error) {
			<-ctx.Done()
			ended++
			return nil, ctx.Err()
		}}
		start := time.Now()
		_, err := d.Dial(t.Context(), "far.example:1")
		if took := time.Since(start); took != 5*time.Second || yonder.CodeOf(err) != yonder.Unavailable || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after %v: %v (%v)", took, err, yonder.CodeOf(err))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start = time.Now()
		_, err = d.Dial(ctx, "far.example:1")
		if took := time.Since(start); took != time.Second || yonder.CodeOf(err) != yonder.DeadlineExceeded {
			t.Errorf("after %v: %v (%v)", took, err, yonder.CodeOf(err))
		}
		if ended != 2 {
			t.Errorf("%d of 2 attempts have ended", ended)
		}
	})
}

// duplex makes a connection of two pipes, with nothing of a net.Conn.
type duplex struct {
	io.Reader
	io.Writer
	closers []io.Closer
}

func (d duplex) Close() error {
	for _, c := range d.closers {
		c.Close()
	}
	return nil
}

func duplexes() (a, b duplex) {
	r1, w1 := io.Pipe()
	r2, w2 := io.Pipe()
	return duplex{r1, w2, []io.Closer{r1, w2}}, duplex{r2, w1, []io.Closer{r2, w1}}
}

// Any connection will do, and either end may close it.
func TestOverPipes(t *testing.T) {
	for _, closer := range []string{"client", "server"} {
		t.Run(closer, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv, began, _, ended := patient(t)
				near, far := duplexes()
				served := make(chan error, 1)
				go func() { served <- srv.ServeConn(far) }()
				c := (&yonder.Dialer{Logger: logger(t)}).NewClient(near)
				text := strings.Repeat("x", 1<<20)
				srv.Register("upper", strings.ToUpper)
				if got, err := yonder.Invoke[string](t.Context(), c, "upper", text); got != strings.ToUpper(text) || err != nil {
					t.Errorf("%d bytes, %v", len(got), err)
				}
				call := waiting(t.Context(), c, began, 1)
				if closer == "client" {
					c.Close()
					if got := <-call; yonder.CodeOf(got.err) != yonder.Unavailable || !errors.Is(got.err, yonder.ErrClientClosed) {
						t.Errorf("the call in flight: %v", got.err)
					}
					if err := <-served; err == nil {
						t.Error("ServeConn returned nil, though a call was in flight")
					}
					if cause := <-ended; !errors.Is(cause, yonder.ErrConnectionLost) {
						t.Errorf("the handler's context ended because of: %v", cause)
					}
				} else {
					srv.Close()
					if got := <-call; yonder.CodeOf(got.err) != yonder.Unavailable || !errors.Is(got.err, yonder.ErrConnectionLost) {
						t.Errorf("the call in flight: %v", got.err)
					}
					if err := <-served; err != nil {
						t.Errorf("ServeConn returned %v", err)
					}
					<-ended
				}
				<-c.Done()
				if _, err := yonder.Invoke[int](t.Context(), c, "echo", 1); yonder.CodeOf(err) != yonder.Unavailable {
					t.Errorf("a call after that: %v", err)
				}
				c.Close()
			})
		})
	}
}

// A client finds a server again that has been started anew on its address, with the next
// call; those in flight are told that they were lost.
func TestReconnect(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		m.cannot(t, inProcess, "there is no connection to lose")
		m.cannot(t, overPipe, "nobody can dial a pipe")
		start := func(address string) (srv *yonder.Server, began chan int, actual string) {
			srv, began, _, _ = patient(t)
			srv.Codecs, srv.Protocols = []yonder.Codec{yonder.JSON}, m.protocols()
			l := listenOn(t, address)
			served := make(chan error, 1)
			go func() { served <- srv.Serve(l) }()
			t.Cleanup(func() {
				srv.Close()
				<-served
			})
			return srv, began, l.Addr().Network() + "://" + l.Addr().String()
		}
		address := "127.0.0.1:0"
		if m == overUnix {
			address = "unix://" + filepath.Join(socketDir(t), "s")
		}
		srv, began, address := start(address)
		d := yonder.Dialer{Logger: logger(t)}
		if m == inJSON {
			d.Codec = yonder.JSON
		}
		c, err := m.dial(t, &d, address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var echo func(context.Context, int) (int, error)
		c.Bind("echo", &echo)
		for i := range 5 {
			if n, err := echo(t.Context(), i); n != i || err != nil {
				t.Fatalf("server %d: %d, %v", i, n, err)
			}
			call := waiting(t.Context(), c, began, i)
			srv.Close()
			if got := <-call; yonder.CodeOf(got.err) != yonder.Unavailable || !errors.Is(got.err, yonder.ErrConnectionLost) {
				t.Errorf("the call in flight: %v (%v)", got.err, yonder.CodeOf(got.err))
			}
			if i == 2 { // nobody there
				if _, err := echo(t.Context(), i); yonder.CodeOf(err) != yonder.Unavailable {
					t.Errorf("without a server: %v", err)
				}
			}
			srv, began, _ = start(address)
		}
		if n, err := echo(t.Context(), 9); n != 9 || err != nil {
			t.Errorf("the last server: %d, %v", n, err)
		}
	})
}

// A server that goes may have accepted a connection, and close it unread. So a client that connects
// again sends no call before it has been greeted, and connects once more.
func TestReconnectUnread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var servers [2]*yonder.Server
		ran := 0
		for i := range servers {
			servers[i] = &yonder.Server{Logger: logger(t)}
			servers[i].Register("count", func() int { ran++; return i })
		}
		dials := 0
		d := yonder.Dialer{Logger: logger(t), NetDial: func(context.Context, string, string) (net.Conn, error) {
			near, far := net.Pipe()
			switch dials++; dials {
			case 1:
				go servers[0].ServeConn(far) // ends with the connection
			case 2, 3:
				go io.Copy(io.Discard, far) // ends with the connection
				time.AfterFunc(time.Second, func() { far.Close() })
			default:
				go servers[1].ServeConn(far) // ends with the connection
			}
			return near, nil
		}}
		c, err := d.Dial(t.Context(), "x:1")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for i := range servers {
			if got, err := yonder.Invoke[int](t.Context(), c, "count"); got != i || err != nil {
				t.Errorf("server %d: %d, %v, may have run: %t", i, got, err, yonder.MayHaveRun(err))
			}
			servers[i].Shutdown(t.Context())
		}
		if ran != 2 || dials != 4 {
			t.Errorf("%d calls have run, and the client has dialed %d times", ran, dials)
		}
		if _, err := yonder.Invoke[int](t.Context(), c, "count"); yonder.CodeOf(err) != yonder.Unavailable || yonder.MayHaveRun(err) {
			t.Errorf("without a server: %v, may have run: %t", err, yonder.MayHaveRun(err))
		}
	})
}

// Who connects again to what closes the connection, or is no server, has lost it: a program tells that
// from nobody's being there.
func TestReconnectStranger(t *testing.T) {
	for what, greeting := range map[string]string{"closes": "", "another": "220 smtp.example.com ready\r\n"} {
		synctest.Test(t, func(t *testing.T) {
			srv := &yonder.Server{Logger: logger(t)}
			dials := 0
			d := yonder.Dialer{Logger: logger(t), NetDial: func(context.Context, string, string) (net.Conn, error) {
				near, far := net.Pipe()
				if dials++; dials == 1 {
					go srv.ServeConn(far) // ends with the connection
					return near, nil
				}
				go func() { // ends with the connection
					go io.Copy(io.Discard, far)
					io.WriteString(far, greeting)
					far.Close()
				}()
				return near, nil
			}}
			c, err := d.Dial(t.Context(), "x:1")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			srv.Close()
			synctest.Wait()
			_, err = yonder.Invoke[int](t.Context(), c, "count")
			if !errors.Is(err, yonder.ErrConnectionLost) || yonder.CodeOf(err) != yonder.Unavailable || yonder.MayHaveRun(err) {
				t.Errorf("%s: %v, may have run: %t", what, err, yonder.MayHaveRun(err))
			}
		})
	}
}

// fakeNet dials a server in memory, or fails.
type fakeNet struct {
	srv  *yonder.Server
	down atomic.Bool

	mu    sync.Mutex
	tries []time.Time
	conns []net.Conn
}

func (f *fakeNet) dial(ctx context.Context, network, address string) (net.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tries = append(f.tries, time.Now())
	if f.down.Load() {
		return nil, errors.New("nobody is there")
	}
	near, far := net.Pipe()
	f.conns = append(f.conns, near)
	go f.srv.ServeConn(far) // ends with the connection
	return near, nil
}

func (f *fakeNet) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.conns {
		c.Close()
	}
}

// After a failed attempt the next one waits, longer each time and never as long as the
// other clients. Calls fail when the attempt that they waited for has.
func TestReconnectPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, _, _, _ := patient(t)
		f := &fakeNet{srv: srv}
		c, err := (&yonder.Dialer{NetDial: f.dial, Logger: logger(t)}).Dial(t.Context(), "x:1")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		echo := func() error {
			_, err := yonder.Invoke[int](t.Context(), c, "echo", 1)
			return err
		}
		if err := echo(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		f.cut()
		synctest.Wait()
		start := time.Now()
		if err := echo(); err != nil || time.Since(start) > 0 {
			t.Errorf("after a loss: %v after %v", err, time.Since(start))
		}
		if len(f.tries) != 2 {
			t.Fatalf("dialed %d times, want 2", len(f.tries))
		}

		f.down.Store(true)
		f.cut()
		synctest.Wait()
		f.tries = nil
		const attempts = 14
		for range attempts {
			if err := echo(); yonder.CodeOf(err) != yonder.Unavailable || !strings.Contains(textOf(err), "nobody is there") {
				t.Fatal(err)
			}
		}
		if len(f.tries) != attempts {
			t.Fatalf("%d calls dialed %d times", attempts, len(f.tries))
		}
		inside := 0 // of the jitter
		for i := 1; i < attempts; i++ {
			pause, most := f.tries[i].Sub(f.tries[i-1]), min(20*time.Millisecond<<(i-1), 2*time.Second)
			if pause < most/2 || pause > most {
				t.Errorf("pause %d is %v, want %v to %v", i, pause, most/2, most)
			}
			if pause > most/2 {
				inside++
			}
		}
		if inside < attempts/2 {
			t.Errorf("only %d of %d pauses are random", inside, attempts-1)
		}

		// Those that wait at the same time wait for the same attempt, and a caller who gives up
		// does not wait for it.
		f.tries = nil
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if err := echo(); yonder.CodeOf(err) != yonder.Unavailable {
					t.Error(err)
				}
			})
		}
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			start := time.Now()
			_, err := yonder.Invoke[int](ctx, c, "echo", 1)
			if took := time.Since(start); took != time.Millisecond || yonder.CodeOf(err) != yonder.DeadlineExceeded {
				t.Errorf("after %v: %v", took, err)
			}
		})
		wg.Wait()
		if len(f.tries) != 1 {
			t.Errorf("50 calls dialed %d times", len(f.tries))
		}

		// It is not counted for ever.
		f.down.Store(false)
		if err := echo(); err != nil {
			t.Fatal(err)
		}
		f.cut()
		synctest.Wait()
		start = time.Now()
		if err := echo(); err != nil || time.Since(start) > 0 {
			t.Errorf("after the next loss: %v after %v", err, time.Since(start))
		}
	})
}

// Close ends an attempt to connect, and the calls that wait for it.
func TestCloseDuringDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, _, _, _ := patient(t)
		f := &fakeNet{srv: srv}
		hang := false
		d := yonder.Dialer{Logger: logger(t), NetDial: func(ctx context.Context, network, address string) (net.Conn, error) {
			if hang {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return f.dial(ctx, network, address)
		}}
		c, err := d.Dial(t.Context(), "x:1")
		if err != nil {
			t.Fatal(err)
		}
		hang = true
		f.cut()
		synctest.Wait()
		done := make(chan error)
		for range 3 {
			go func() {
				_, err := yonder.Invoke[int](t.Context(), c, "echo", 1)
				done <- err
			}()
		}
		synctest.Wait()
		start := time.Now()
		c.Close()
		for range 3 {
			if err := <-done; yonder.CodeOf(err) != yonder.Unavailable || !errors.Is(err, yonder.ErrClientClosed) {
				t.Errorf("a call that waited: %v", err)
			}
		}
		if took := time.Since(start); took > 0 {
			t.Errorf("Close took %v", took)
		}
	})
}

// A connection that is made in the moment of Close is closed, too.
func TestCloseAsDialed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, _, _, _ := patient(t)
		f := &fakeNet{srv: srv}
		d := yonder.Dialer{Logger: logger(t), NetDial: func(ctx context.Context, network, address string) (net.Conn, error) {
			if len(f.tries) > 0 {
				<-ctx.Done() // and succeeds nevertheless
			}
			return f.dial(ctx, network, address)
		}}
		c, err := d.Dial(t.Context(), "x:1")
		if err != nil {
			t.Fatal(err)
		}
		f.cut()
		synctest.Wait()
		done := make(chan error)
		go func() {
			_, err := yonder.Invoke[int](t.Context(), c, "echo", 1)
			done <- err
		}()
		synctest.Wait()
		c.Close()
		if err := <-done; !errors.Is(err, yonder.ErrClientClosed) {
			t.Errorf("the call that waited: %v", err)
		}
		if _, err := f.conns[1].Write([]byte("x")); err != io.ErrClosedPipe {
			t.Errorf("the connection is left open: %v", err)
		}
	})
}

// A client that is closed refuses calls, again and again.
func TestClosedClient(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		srv, began, _, _ := patient(t)
		c := m.client(t, srv)
		var echo func(context.Context, int) (int, error)
		c.Bind("echo", &echo)
		if _, err := echo(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		select {
		case <-c.Done():
			t.Error("Done before Close")
		default:
		}
		if m != inProcess {
			call := waiting(t.Context(), c, began, 1)
			defer func() {
				if got := <-call; yonder.CodeOf(got.err) != yonder.Unavailable || !errors.Is(got.err, yonder.ErrClientClosed) {
					t.Errorf("the call in flight: %v (%v)", got.err, yonder.CodeOf(got.err))
				}
			}()
		}
		for range 2 {
			if err := c.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			<-c.Done()
			if _, err := echo(t.Context(), 1); yonder.CodeOf(err) != yonder.Unavailable || !errors.Is(err, yonder.ErrClientClosed) || yonder.IsRemote(err) || textOf(err) != `yonder: call "echo": client closed` {
				t.Errorf("a bound function: %v (%v)", err, yonder.CodeOf(err))
			}
			if err := c.Notify(t.Context(), "echo", 1); !errors.Is(err, yonder.ErrClientClosed) {
				t.Errorf("Notify: %v", err)
			}
			if !m.can(t, signatures) {
				continue
			}
			if err := c.Check(t.Context()); !errors.Is(err, yonder.ErrClientClosed) {
				t.Errorf("Check: %v", err)
			}
			if text := textOf(c.Check(t.Context())); strings.Count(text, "yonder:") != 1 {
				t.Errorf("the package's name stands more than once in %q", text)
			}
		}
	})
}

// Done tells when the only connection is lost; a client that can dial is never done
// before Close.
func TestDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, _, _, _ := patient(t)
		only := yondertest.Pair(t, srv)
		f := &fakeNet{srv: srv}
		dials, err := (&yonder.Dialer{NetDial: f.dial, Logger: logger(t)}).Dial(t.Context(), "x:1")
		if err != nil {
			t.Fatal(err)
		}
		defer dials.Close()
		srv.Close()
		<-only.Done()
		synctest.Wait()
		select {
		case <-dials.Done():
			t.Error("a client that can dial again is done")
		default:
		}
		dials.Close()
		<-dials.Done()
	})
}

// swallowing is a connection whose other end takes everything and never says a word more.
type swallowing struct {
	net.Conn
	dead atomic.Bool
}

func (s *swallowing) Read(b []byte) (int, error) {
	for {
		n, err := s.Conn.Read(b)
		if err != nil || !s.dead.Load() {
			return n, err
		}
	}
}

// A peer that has died without closing the connection is found by either end.
func TestKeepAlive(t *testing.T) {
	const keepAlive = 15 * time.Second
	for _, end := range []string{"client", "server"} {
		t.Run(end, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv, began, _, ended := patient(t)
				var d yonder.Dialer
				never := yonder.Limits{KeepAlive: -1} // of the other end, which would find out at the same time
				if d.Logger = logger(t); end == "client" {
					srv.Limits = never
				} else {
					d.Limits = never
				}
				near, far := net.Pipe()
				mine, theirs := &swallowing{Conn: near}, &swallowing{Conn: far}
				served := make(chan error, 1)
				go func() { served <- srv.ServeConn(theirs) }()
				c := d.NewClient(mine)
				defer c.Close()
				call := waiting(t.Context(), c, began, 1)
				time.Sleep(time.Hour) // in which PINGs are answered
				dead := mine
				if end == "server" {
					dead = theirs
				}
				dead.dead.Store(true)
				start := time.Now()
				if end == "server" {
					if err := <-served; !strings.Contains(textOf(err), "no sign of life") {
						t.Errorf("ServeConn returned %v", err)
					}
					if cause := <-ended; !errors.Is(cause, yonder.ErrConnectionLost) {
						t.Errorf("the handler's context ended because of: %v", cause)
					}
				}
				got := <-call
				if yonder.CodeOf(got.err) != yonder.Unavailable || !errors.Is(got.err, yonder.ErrConnectionLost) {
					t.Errorf("the call in flight: %v", got.err)
				}
				if took := time.Since(start); took < keepAlive || took > 3*keepAlive {
					t.Errorf("found after %v", took)
				}
			})
		})
	}
}

// A peer that has nothing to say, or takes its time, is not taken for dead.
func TestKeepAliveSpares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var srv yonder.Server
		srv.Register("sleep", func(d time.Duration) { time.Sleep(d) })
		srv.Register("drip", func() iter.Seq[int] {
			return func(yield func(int) bool) {
				for i := range 3 {
					time.Sleep(time.Hour)
					if !yield(i) {
						return
					}
				}
			}
		})
		c := yondertest.Pair(t, &srv)
		if err := c.Call(t.Context(), yonder.NewCall("sleep", 24*time.Hour)); err != nil {
			t.Errorf("a slow handler: %v", err)
		}
		seq, err := yonder.Invoke[iter.Seq2[int, error]](t.Context(), c, "drip")
		if err != nil {
			t.Fatal(err)
		}
		if list, err := collect(seq); len(list) != 3 || err != nil {
			t.Errorf("a slow stream: %v, %v", list, err)
		}
		seq, err = yonder.Invoke[iter.Seq2[int, error]](t.Context(), c, "drip")
		if err != nil {
			t.Fatal(err)
		}
		for _, err := range seq { // a slow consumer
			if err != nil {
				t.Error(err)
			}
			time.Sleep(time.Hour)
		}
		time.Sleep(24 * time.Hour) // nobody says anything
		if err := c.Call(t.Context(), yonder.NewCall("sleep", time.Second)); err != nil {
			t.Errorf("after a day: %v", err)
		}
	})
}

// A server has many clients at once, and Close ends them all.
func TestManyConnections(t *testing.T) {
	noLeak(t)
	const n = 500
	srv, _, _, _ := patient(t)
	l := listenOn(t, "127.0.0.1:0")
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	clients := make([]*yonder.Client, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			c, err := yonder.Dial(t.Context(), l.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			clients[i] = c
			if got, err := yonder.Invoke[int](t.Context(), c, "echo", i); got != i || err != nil {
				t.Errorf("client %d: %d, %v", i, got, err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	for i, c := range slices.Backward(clients) { // all are still there
		if got, err := yonder.Invoke[int](t.Context(), c, "echo", i); got != i || err != nil {
			t.Errorf("client %d again: %d, %v", i, got, err)
		}
	}
	srv.Close()
	<-served
	for _, c := range clients {
		wg.Go(func() { c.Close() })
	}
	wg.Wait()
}

// Pair works in a bubble, with as many clients as one likes, and each end of it may call.
func TestPair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var srv, mine yonder.Server
		mine.Register("name", func() string { return "the caller" })
		srv.Register("greet", func(ctx context.Context) (string, error) {
			time.Sleep(time.Second)
			name, err := yonder.Invoke[string](ctx, yonder.PeerFrom(ctx), "name")
			return "Hello, " + name, err
		})
		start := time.Now()
		var wg sync.WaitGroup
		for range 10 {
			c := yondertest.PairDialer(t, &srv, &yonder.Dialer{Server: &mine})
			wg.Go(func() {
				got, err := yonder.Invoke[string](t.Context(), c, "greet")
				if got != "Hello, the caller" || err != nil {
					t.Errorf("%q, %v", got, err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(start); took != time.Second {
			t.Errorf("took %v of the bubble's time", took)
		}
		silent := yondertest.Pair(t, &srv)
		if _, err := yonder.Invoke[string](t.Context(), silent, "greet"); yonder.CodeOf(err) != yonder.Unimplemented {
			t.Errorf("a client without procedures: %v", err)
		}
	})
}

// Servers take each other's place while clients go on calling, and no call is lost or run twice:
// those that cross a shutdown are made again at the next server, which has the same listening socket,
// as after a restart that passes it on. So are those whose connection the old one has accepted, but
// not looked at any more.
func TestRollingRestart(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a listening socket cannot be passed on by its file there")
	}
	noLeak(t)
	const restarts, clients, callers = 20, 2, 8
	var mu sync.Mutex
	ran := make(map[int64]int)
	count := func(id int64) int64 {
		mu.Lock()
		defer mu.Unlock()
		ran[id]++
		return id
	}
	begin := func(l net.Listener) (end func()) {
		srv := &yonder.Server{Logger: logger(t)}
		srv.Register("plain", count)
		srv.Register("parts", func(id int64, _ []byte) int64 { return count(id) })
		srv.Register("callback", func(id int64, f func() (int64, error)) (int64, error) {
			count(id)
			return f()
		})
		srv.Register("stream", func(id int64) iter.Seq2[int64, error] {
			count(id)
			return func(yield func(int64, error) bool) { yield(id, nil) }
		})
		served := make(chan error, 1)
		go func() { served <- srv.Serve(l) }() // ends with Shutdown
		return func() {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if err := srv.Shutdown(ctx); err != nil {
				t.Error(err)
			}
			<-served
		}
	}
	l := listenOn(t, "127.0.0.1:0")
	address := l.Addr().String()
	end := begin(l)
	var ids atomic.Int64
	var stop atomic.Bool
	var running sync.WaitGroup
	var c *yonder.Client
	for range clients {
		c = dialTo(t, address)
		if _, err := yonder.Invoke[int64](t.Context(), c, "plain", ids.Add(1)); err != nil {
			t.Fatal(err)
		}
		c := c
		for i := range callers {
			running.Go(func() { // ends with stop
				ctx := t.Context()
				large := make([]byte, 100<<10)
				for !stop.Load() && !t.Failed() {
					id := ids.Add(1)
					var got int64
					var err error
					switch i {
					case 0:
						got, err = yonder.Invoke[int64](ctx, c, "parts", id, large)
					case 1:
						got, err = yonder.Invoke[int64](ctx, c, "callback", id, func() (int64, error) { return id, nil })
					case 2:
						var seq iter.Seq2[int64, error]
						if seq, err = yonder.Invoke[iter.Seq2[int64, error]](ctx, c, "stream", id); err == nil {
							for got, err = range seq {
							}
						}
					default:
						got, err = yonder.Invoke[int64](ctx, c, "plain", id)
					}
					if got != id || err != nil {
						t.Errorf("call %d of kind %d: %d, %v, may have run: %t", id, i, got, err, yonder.MayHaveRun(err))
					}
				}
			})
		}
	}
	for range restarts {
		for range 10 {
			if _, err := yonder.Invoke[int64](t.Context(), c, "plain", ids.Add(1)); err != nil {
				t.Error(err)
			}
		}
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		if l, err = net.FileListener(f); err != nil {
			t.Fatal(err)
		}
		f.Close()
		next := begin(l)
		end()
		end = next
	}
	stop.Store(true)
	running.Wait()
	end()
	if int64(len(ran)) != ids.Load() {
		t.Errorf("%d calls were made, and %d have run", ids.Load(), len(ran))
	}
	for id, n := range ran {
		if n != 1 {
			t.Errorf("call %d ran %d times", id, n)
		}
	}
}
