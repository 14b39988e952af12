package yonder_test

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/yondertest"
)

// mode is one way for a client to reach a server.
type mode struct{ name string }

var (
	overTCP   = mode{"tcp"}
	overUnix  = mode{"unix"}
	overPipe  = mode{"pipe"}  // in memory, encoded
	inProcess = mode{"local"} // [yonder.Local]: nothing is encoded
	inJSON    = mode{"json"}  // over TCP
)

// run runs a test in every mode, each as a subtest that must leave no goroutine behind.
func run(t *testing.T, test func(t *testing.T, m mode)) {
	t.Helper()
	for _, m := range []mode{overTCP, overUnix, overPipe, inProcess, inJSON} {
		t.Run(m.name, func(t *testing.T) {
			before := goleak.IgnoreCurrent()
			t.Cleanup(func() { goleak.VerifyNone(t, before) }) // after the cleanups of what the test makes
			test(t, m)
		})
	}
}

// bubble runs a test in the modes that need no sockets, each inside a bubble of package
// synctest, which must be empty in the end.
func bubble(t *testing.T, test func(t *testing.T, m mode)) {
	t.Helper()
	for _, m := range []mode{overPipe, inProcess} {
		t.Run(m.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, m) })
		})
	}
}

// cannot skips the test in this mode if it is other, for a reason.
func (m mode) cannot(t *testing.T, other mode, reason string) {
	t.Helper()
	if m == other {
		t.Skipf("%s: %s", m.name, reason)
	}
}

// client returns a client of srv. Both are closed when the test ends.
func (m mode) client(t *testing.T, srv *yonder.Server) *yonder.Client {
	t.Helper()
	if m == inProcess {
		serverOf(t, srv)
		return yonder.Local(srv)
	}
	return m.dialer(t, srv, new(yonder.Dialer))
}

// dialer is client for one that d makes. It skips the test in process, where nobody dials.
func (m mode) dialer(t *testing.T, srv *yonder.Server, d *yonder.Dialer) *yonder.Client {
	t.Helper()
	m.cannot(t, inProcess, "a client in the same process is not made by a Dialer")
	serverOf(t, srv)
	if d.Logger == nil {
		d.Logger = logger(t)
	}
	switch m {
	case overPipe:
		return yondertest.PairDialer(t, srv, d)
	case inJSON:
		d.Codec = yonder.JSON
		if srv.Codecs == nil { // else it may be serving already
			srv.Codecs = []yonder.Codec{yonder.JSON}
		}
	}
	c, err := d.Dial(t.Context(), m.serve(t, srv))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// serve has srv listen in a socket mode, and returns the address to dial.
func (m mode) serve(t *testing.T, srv *yonder.Server) (address string) {
	t.Helper()
	network, addr := "tcp", "127.0.0.1:0"
	if m == overUnix {
		dir, err := os.MkdirTemp("", "yonder") // t.TempDir may be too long for a socket
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		network, addr = "unix", filepath.Join(dir, "socket")
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }() // ends with Close
	t.Cleanup(func() {
		srv.Close()
		if err := <-served; err != yonder.ErrServerClosed {
			t.Errorf("Serve returned %v, want ErrServerClosed", err)
		}
	})
	return network + "://" + l.Addr().String()
}

// serverOf has srv closed when the test ends, and log to the test.
func serverOf(t *testing.T, srv *yonder.Server) {
	t.Helper()
	if srv.Logger == nil {
		srv.Logger = logger(t)
	}
	t.Cleanup(func() { srv.Close() })
}

func logger(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

// panicOf returns what f panics with; "": it does not.
func panicOf(f func()) (text string) {
	defer func() {
		if r := recover(); r != nil {
			text = fmt.Sprint(r)
		}
	}()
	f()
	return ""
}

// textOf returns an error's text; "": there is no error.
func textOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// logBuffer keeps what is logged.
type logBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBuffer) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.Reset()
}
