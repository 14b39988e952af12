package interop

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/jsonrpc"
	"github.com/yonder-rpc/yonder/net/rpc"
	"github.com/yonder-rpc/yonder/session"
	"github.com/yonder-rpc/yonder/web"
)

// HelloService is the article's.
type HelloService struct{}

func (*HelloService) Hello(request string, reply *string) error {
	if request == "" {
		return errors.New("who?")
	}
	*reply = "Hello, " + request
	return nil
}

// CalcService takes a struct, as the article's second service does.
type CalcService struct{}

// Calc is what CalcService is asked.
type Calc struct {
	Number1, Number2 float64
	Operator         string
}

func (*CalcService) CalcTwoNumber(request Calc, reply *float64) error {
	switch request.Operator {
	case "+":
		*reply = request.Number1 + request.Number2
	case "-":
		*reply = request.Number1 - request.Number2
	default:
		return errors.New("Illegal Operator")
	}
	return nil
}

// A port is a server that speaks every protocol, on one port.
type port struct {
	address string      // host and port
	notes   chan string // what Notes.Note was told
	waiting chan string // the protocol of each call of Wait.Wait that has begun
	ended   chan error  // why the context of each has ended
	srv     *yonder.Server
}

// open serves until the test ends, when no goroutine may be left.
func open(t *testing.T, config *web.Config, limits yonder.Limits) *port {
	t.Helper()
	before := goleak.IgnoreCurrent()
	p := &port{notes: make(chan string, 1000), waiting: make(chan string, 100), ended: make(chan error, 100)}
	p.srv = &yonder.Server{
		Protocols: []yonder.Protocol{rpc.Protocol, jsonrpc.Protocol, session.Protocol, config.Protocol()},
		Logger:    slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{ReplaceAttr: noStacks})),
		Limits:    limits,
	}
	p.srv.RegisterService("HelloService", new(HelloService))
	p.srv.RegisterService("CalcService", new(CalcService))
	// Names with a dot, and methods of one argument, are for all; others for those that can call them.
	p.srv.Register("Wire.Name", func(ctx context.Context, _ int) string {
		info, _ := yonder.InfoFrom(ctx)
		return info.Protocol
	})
	p.srv.Register("Notes.Note", func(text string) { p.notes <- text })
	p.srv.Register("Wait.Wait", func(ctx context.Context, _ int) error {
		info, _ := yonder.InfoFrom(ctx)
		p.waiting <- info.Protocol
		<-ctx.Done()
		p.ended <- context.Cause(ctx)
		return ctx.Err()
	})
	p.srv.Register("Errors.NotFound", func(what string) (int, error) {
		return 0, yonder.Errorf(yonder.NotFound, "there is no %s", what)
	})
	p.srv.Register("Errors.Own", func() error {
		return &jsonrpc.Error{Code: 7, Message: "own", Data: map[string]int{"a": 1}}
	})
	p.srv.Register("Errors.Panic", func() { panic("a test") })
	p.srv.Register("echo", func(v any) any { return v })
	p.srv.Add(yonder.Procedure{
		Name: "subtract", Params: []string{"minuend", "subtrahend"},
		Func: func(minuend, subtrahend int) int { return minuend - subtrahend },
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.address = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- p.srv.Serve(l) }() // ends with Close
	t.Cleanup(func() {
		p.srv.Close()
		if err := <-served; err != yonder.ErrServerClosed {
			t.Errorf("Serve returned %v, want ErrServerClosed", err)
		}
		goleak.VerifyNone(t, before)
	})
	return p
}

// noStacks leaves out the stacks of panics, which the tests provoke.
func noStacks(_ []string, a slog.Attr) slog.Attr {
	if a.Key == "stack" {
		return slog.Attr{}
	}
	return a
}

// openPlain is open where nothing is configured.
func openPlain(t *testing.T) *port {
	t.Helper()
	return open(t, new(web.Config), yonder.Limits{})
}

// openHasty is openPlain for clients of JSON-RPC on a stream that go away with a call in flight.
// They may only have ended their side, and want the answer still: the handler's context ends
// after KeepAlive.
func openHasty(t *testing.T) *port {
	t.Helper()
	return open(t, new(web.Config), yonder.Limits{KeepAlive: time.Second})
}

// wantNotes checks that notifications have arrived, in whatever order.
func (p *port) wantNotes(t *testing.T, want ...string) {
	t.Helper()
	var got []string
	for range want {
		select {
		case note := <-p.notes:
			got = append(got, note)
		case <-time.After(patience):
			t.Fatalf("notified of %q, want %q", got, want)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("notified of %q, want %q", got, want)
	}
}

// wantNoNote checks that no more notifications have arrived than were asked for.
func (p *port) wantNoNote(t *testing.T) {
	t.Helper()
	select {
	case got := <-p.notes:
		t.Errorf("notified of %q", got)
	default:
	}
}

// begun waits for a call of Wait.Wait.
func (p *port) begun(t *testing.T, protocol string) {
	t.Helper()
	select {
	case got := <-p.waiting:
		if got != protocol {
			t.Errorf("the call came over %q, want %q", got, protocol)
		}
	case <-time.After(patience):
		t.Fatal("Wait.Wait does not begin")
	}
}

// over waits for the context of a call of Wait.Wait to end.
func (p *port) over(t *testing.T) {
	t.Helper()
	select {
	case cause := <-p.ended:
		t.Log("the handler's context ended:", cause)
	case <-time.After(patience):
		t.Error("the context of Wait.Wait does not end")
	}
}

// patience is how long what should come at once may take.
const patience = 20 * time.Second

// dial connects to an address until the test ends.
func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(2 * patience))
	return conn
}

// newHTTP returns a client whose connections end with the test.
func newHTTP(t *testing.T) *http.Client {
	transport := new(http.Transport)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// program finds a program, or skips the test.
func program(t *testing.T, how string, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	missing(t, "there is no "+names[0]+"; "+how)
	return ""
}

// missing skips a test, unless this is where all must be there.
func missing(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("YONDER_CI") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}
