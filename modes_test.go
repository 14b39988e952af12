package yonder_test

import (
	"context"
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
	"github.com/yonder-rpc/yonder/jsonrpc"
	"github.com/yonder-rpc/yonder/net/rpc"
	"github.com/yonder-rpc/yonder/session"
	"github.com/yonder-rpc/yonder/web"
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
	overWeb   = mode{"websocket"}

	// Other protocols than yonder's own, over TCP.
	jsonRPC    = mode{"jsonrpc"}
	netRPC     = mode{"netrpc"}
	overFrames = mode{"session"}

	// The same, in memory.
	pipedNetRPC = mode{"netrpc pipe"}
	pipedFrames = mode{"session pipe"}
	pipedJSON   = mode{"jsonrpc pipe"}
)

// wire returns the mode that is m over a socket.
func (m mode) wire() mode {
	switch m {
	case pipedJSON:
		return jsonRPC
	case pipedNetRPC:
		return netRPC
	case pipedFrames:
		return overFrames
	}
	return m
}

// run runs a test in every mode of yonder's own protocol, each as a subtest that must leave no
// goroutine behind.
func run(t *testing.T, test func(t *testing.T, m mode)) {
	t.Helper()
	runIn(t, test, overTCP, overUnix, overPipe, inProcess, inJSON, overWeb)
}

// runAll is run, and the other protocols beside.
func runAll(t *testing.T, test func(t *testing.T, m mode)) {
	t.Helper()
	run(t, test)
	runIn(t, test, jsonRPC, netRPC, overFrames)
}

func runIn(t *testing.T, test func(t *testing.T, m mode), modes ...mode) {
	t.Helper()
	for _, m := range modes {
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
	bubbleIn(t, test, overPipe, inProcess)
}

// bubbleAll is bubble, and the other protocols beside.
func bubbleAll(t *testing.T, test func(t *testing.T, m mode)) {
	t.Helper()
	bubble(t, test)
	bubbleIn(t, test, pipedJSON, pipedNetRPC, pipedFrames)
}

func bubbleIn(t *testing.T, test func(t *testing.T, m mode), modes ...mode) {
	t.Helper()
	for _, m := range modes {
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

// ability is something that yonder's own protocol can do.
type ability string

const (
	streams      ability = "streams"      // results, or arguments that end by themselves; readers, too
	callbacks    ability = "callbacks"    // functions among the arguments
	conversation ability = "conversation" // arguments that go on after the call was sent
	metadata     ability = "metadata"
	cancellation ability = "cancellation"         // the handler hears of it
	deadlines    ability = "deadlines"            // so it does
	overtaking   ability = "overtaking"           // by the answer to a later call
	signatures   ability = "signatures"           // the two ends compare them: Check, and errors that name both
	identity     ability = "identity"             // errors.Is, errors.As and details
	tags         ability = "tags"                 // of fields, that stay at home or have other names
	nils         ability = "nils"                 // as an argument or a result of its own
	oneByOne     ability = "variadics one by one" // by a caller that does not know that they are
	asSlice      ability = "slices for variadics" // likewise
	uneven       ability = "uneven limits"        // an end sends more than it takes
)

// lacks has why a mode cannot do something. What is not in it works.
var lacks = map[mode]map[ability]string{
	jsonRPC: {
		callbacks:    "a request has values only",
		conversation: "a stream among the arguments is read to its end before the call is sent",
		signatures:   "the wire has no signatures",
		asSlice:      "an array among the parameters is one of them",
		uneven:       "nobody says what the other end takes, so each takes that to be what it does itself",
	},
	netRPC: {
		streams:      "a reply is one value",
		callbacks:    "an argument is one value",
		conversation: "an argument is one value",
		signatures:   "the wire has no signatures",
		identity:     "an error is a text and a code",
		nils:         "gob has none",
		tags:         "gob has none",
		oneByOne:     "a variadic argument is a slice",
	},
	overFrames: {
		streams:      "a result is a value of gob's",
		callbacks:    "an argument is a value of gob's",
		conversation: "an argument is a value of gob's",
		metadata:     "a message has no room for it",
		cancellation: "a message has no room for it",
		deadlines:    "a message has no room for it",
		overtaking:   "answers have no numbers, so they come in order",
		signatures:   "the wire has no signatures",
		tags:         "gob has none",
	},
}

// can tells whether a mode has an ability. If it has not, it logs what is left out.
func (m mode) can(t *testing.T, a ability) bool {
	t.Helper()
	reason, not := lacks[m.wire()][a]
	if not {
		t.Logf("%s: left out: no %s on this wire: %s", m.name, a, reason)
	}
	return !not
}

// needs skips the test in a mode that lacks one of the abilities.
func (m mode) needs(t *testing.T, all ...ability) {
	t.Helper()
	for _, a := range all {
		if reason, not := lacks[m.wire()][a]; not {
			t.Skipf("%s: no %s on this wire: %s", m.name, a, reason)
		}
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
	if srv.Protocols == nil { // else it may be serving already
		srv.Protocols = m.protocols()
	}
	address := "in:memory"
	if m.wire() != m {
		d.NetDial = pipes(srv)
	} else {
		address = m.serve(t, srv)
	}
	c, err := m.dial(t, d, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// protocols returns what a server needs beside yonder's own protocol.
func (m mode) protocols() []yonder.Protocol {
	switch m.wire() {
	case overWeb:
		return []yonder.Protocol{web.Protocol}
	case jsonRPC:
		return []yonder.Protocol{jsonrpc.Protocol}
	case netRPC:
		return []yonder.Protocol{rpc.Protocol}
	case overFrames:
		return []yonder.Protocol{session.Protocol}
	}
	return nil
}

// dial makes a client of what listens at an address, as d and the mode have it.
func (m mode) dial(t *testing.T, d *yonder.Dialer, address string) (*yonder.Client, error) {
	switch m.wire() {
	case overWeb:
		d.NetDial = web.NetDial
		return d.Dial(t.Context(), "ws"+strings.TrimPrefix(address, "tcp")+"/yonder")
	case jsonRPC:
		return (&jsonrpc.Dialer{Client: *d}).Dial(t.Context(), address)
	case netRPC:
		over, err := (&rpc.Dialer{MaxMessage: d.Limits.MaxMessage, NetDial: d.NetDial}).Transport(t.Context(), address)
		if err != nil {
			return nil, err
		}
		return d.NewClientOver(over), nil
	case overFrames:
		return (&session.Dialer{Client: *d}).Dial(t.Context(), address)
	}
	return d.Dial(t.Context(), address)
}

// pipes returns a function that dials srv in memory.
func pipes(srv *yonder.Server) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe()
		go srv.ServeConn(far) // ends with the connection
		return near, nil
	}
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
