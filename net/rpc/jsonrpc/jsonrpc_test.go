package jsonrpc_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	stockrpc "net/rpc"
	stock "net/rpc/jsonrpc"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/yonder-rpc/yonder/net/rpc"
	"github.com/yonder-rpc/yonder/net/rpc/jsonrpc"
)

// Pair is an argument.
type Pair struct{ A, B int }

// Math is a service that both packages take.
type Math struct{}

func (Math) Add(args *Pair, sum *int) error {
	*sum = args.A + args.B
	return nil
}

func (Math) Fail(text string, _ *int) error { return errors.New(text) }

func (Math) Names(n int, reply *map[string][]string) error {
	if n > 0 {
		*reply = map[string][]string{"<b>": {"x", "é"}}
	}
	return nil
}

// caller is a client of either package.
type caller interface {
	Call(serviceMethod string, args any, reply any) error
	Close() error
}

type tape struct {
	ToServer, ToClient string
	Results            []any
}

// TestSameBytes has the standard package and this one do the same calls, in all pairings,
// and compares every byte.
func TestSameBytes(t *testing.T) {
	before := goleak.IgnoreCurrent()
	defer goleak.VerifyNone(t, before)
	want := record(t, true, true)
	if !strings.HasPrefix(want.ToServer, `{"method":"Math.Add","params":[{"A":7,"B":8}],"id":0}`+"\n") {
		t.Fatalf("the standard package's requests are not as expected: %s", want.ToServer)
	}
	for _, pairing := range [][2]bool{{false, true}, {true, false}, {false, false}} {
		if diff := cmp.Diff(want, record(t, pairing[0], pairing[1])); diff != "" {
			t.Errorf("standard client %v, standard server %v:\n%s", pairing[0], pairing[1], diff)
		}
	}
}

// record makes calls and keeps what passes.
func record(t *testing.T, stockClient, stockServer bool) tape {
	t.Helper()
	near, far := net.Pipe()
	served := make(chan struct{})
	go func() { // ends when the client has closed the connection
		defer close(served)
		if stockServer {
			s := stockrpc.NewServer()
			s.Register(Math{})
			s.ServeCodec(stock.NewServerCodec(far))
			return
		}
		s := rpc.NewServer()
		s.Register(Math{})
		s.ServeCodec(jsonrpc.NewServerCodec(far))
	}()
	conn := &taped{ReadWriteCloser: near}
	var c caller
	if stockClient {
		c = stock.NewClient(conn)
	} else {
		c = jsonrpc.NewClient(conn)
	}
	results := script(c)
	c.Close()
	<-served
	return tape{conn.written.String(), conn.read.String(), results}
}

// script is calls of all kinds, and what came of them.
func script(c caller) []any {
	var results []any
	call := func(method string, args, reply any) {
		err := c.Call(method, args, reply)
		if err != nil {
			results = append(results, method, err.Error())
			return
		}
		results = append(results, method, reply)
	}
	call("Math.Add", Pair{7, 8}, new(int))
	call("Math.Fail", "no <reason>", new(int))
	call("Math.Names", 1, new(map[string][]string))
	call("Math.Names", 0, new(map[string][]string))
	call("Math.None", 1, new(int))
	call("None.None", 1, new(int))
	call("None", 1, new(int))
	call("Math.Add", "no pair", new(int))
	call("Math.Add", nil, new(int))
	call("Math.Add", make(chan int), new(int))
	call("Math.Add", Pair{1, 1}, new(string)) // ends the connection
	return results
}

// taped keeps what a client writes and reads.
type taped struct {
	io.ReadWriteCloser
	mu            sync.Mutex // guards what follows
	written, read bytes.Buffer
}

func (c *taped) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.written.Write(p)
	c.mu.Unlock()
	return c.ReadWriteCloser.Write(p)
}

func (c *taped) Read(p []byte) (int, error) {
	n, err := c.ReadWriteCloser.Read(p)
	c.mu.Lock()
	c.read.Write(p[:n])
	c.mu.Unlock()
	return n, err
}

// TestServerAnswers is requests as others write them.
func TestServerAnswers(t *testing.T) {
	for _, test := range []struct{ request, want string }{
		{`{"method":"Math.Add","params":[{"A":1,"B":2}],"id":"any value"}`, `{"id":"any value","result":3,"error":null}`},
		{`{"method":"Math.Add","params":[{"A":1,"B":2}],"id":[1]}`, `{"id":[1],"result":3,"error":null}`},
		{`{"method":"Math.Add","params":[{"A":1,"B":2}]}`, `{"id":null,"result":3,"error":null}`},
		{`{"method":"Math.Add","id":1}`, `{"id":1,"result":null,"error":"jsonrpc: request body missing params"}`},
		{`{}`, `{"id":null,"result":null,"error":"rpc: service/method request ill-formed: "}`},
	} {
		s := rpc.NewServer()
		s.Register(Math{})
		var out bytes.Buffer
		s.ServeCodec(jsonrpc.NewServerCodec(struct {
			io.Reader
			io.Writer
			io.Closer
		}{strings.NewReader(test.request), &out, io.NopCloser(nil)}))
		if got := out.String(); got != test.want+"\n" {
			t.Errorf("%s: %s; want %s", test.request, got, test.want)
		}
	}
}

// Odd is a service whose replies JSON cannot encode.
type Odd struct{}

func (Odd) Divide(args *Pair, reply *float64) error {
	*reply = float64(args.A) / float64(args.B)
	return nil
}

func (Odd) Any(_ int, reply *any) error {
	*reply = make(chan int)
	return nil
}

// TestBadReply has a reply that JSON cannot encode fail its call, and no other.
func TestBadReply(t *testing.T) {
	before := goleak.IgnoreCurrent()
	defer goleak.VerifyNone(t, before)
	for _, mend := range []bool{false, true} {
		s := rpc.NewServer()
		s.BadReplyIsError = mend
		s.Register(Odd{})
		near, far := net.Pipe()
		go s.ServeCodec(jsonrpc.NewServerCodec(far)) // ends with the connection
		c := stock.NewClient(near)
		for range 2 {
			var f float64
			call := c.Go("Odd.Divide", Pair{1, 0}, &f, nil)
			select {
			case <-call.Done:
			case <-time.After(20 * time.Second):
				t.Fatal("1/0: no answer")
			}
			if err := call.Error; err == nil || err.Error() != "json: unsupported value: +Inf" {
				t.Errorf("1/0: %v", err)
			}
			if err := c.Call("Odd.Any", 1, new(any)); err == nil || err.Error() != "json: unsupported type: chan int" {
				t.Errorf("a channel: %v", err)
			}
			if err := c.Call("Odd.Divide", Pair{1, 2}, &f); err != nil || f != 0.5 {
				t.Errorf("1/2 = %v, %v", f, err)
			}
		}
		c.Close()
	}
}

// Wait is a service whose method waits.
type Wait struct{ release chan struct{} }

func (w *Wait) Wait(_ int, _ *int) error {
	<-w.release
	return nil
}

// TestContext ends a call at the caller's end: the wire has no cancellation.
func TestContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := rpc.NewServer()
		wait := &Wait{make(chan struct{})}
		s.Register(wait)
		s.Register(Math{})
		near, far := net.Pipe()
		go s.ServeCodec(jsonrpc.NewServerCodec(far))
		c := jsonrpc.NewClient(near)
		defer c.Close()
		ctx, cancel := context.WithCancel(t.Context())
		call := c.GoContext(ctx, "Wait.Wait", 1, new(int), nil)
		synctest.Wait()
		cancel()
		if err := (<-call.Done).Error; err != context.Canceled {
			t.Errorf("GoContext: %v; want context.Canceled", err)
		}
		close(wait.release)
		var sum int
		if err := c.CallContext(t.Context(), "Math.Add", Pair{1, 2}, &sum); err != nil || sum != 3 {
			t.Errorf("Add(1, 2) = %d, %v", sum, err)
		}
	})
}

// endless is a message that does not end.
type endless struct {
	io.Writer
	io.Closer
	read int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, `{"method":"`)
	if e.read > 0 {
		n = copy(p, bytes.Repeat([]byte("x"), len(p)))
	}
	e.read += n
	return n, nil
}

// TestLimits ends connections whose messages are too large, at either end, and no others.
func TestLimits(t *testing.T) {
	before := goleak.IgnoreCurrent()
	defer goleak.VerifyNone(t, before)
	for limit, want := range map[jsonrpc.Limits]int{{}: 64 << 20, {MaxMessage: 1000}: 1000} {
		s := rpc.NewServer()
		e := &endless{Writer: io.Discard, Closer: io.NopCloser(nil)}
		s.ServeCodec(limit.NewServerCodec(e))
		if e.read != want {
			t.Errorf("%+v: %d bytes were read; want %d", limit, e.read, want)
		}
	}
	s := rpc.NewServer()
	s.Register(Math{})
	near, far := net.Pipe()
	served := make(chan struct{})
	go func() {
		defer close(served)
		s.ServeCodec(jsonrpc.Limits{MaxMessage: 200}.NewServerCodec(far))
	}()
	c := rpc.NewClientWithCodec(jsonrpc.Limits{MaxMessage: 200}.NewClientCodec(near))
	for i := range 100 { // more than the limit together
		var sum int
		if err := c.Call("Math.Add", Pair{i, 1}, &sum); err != nil || sum != i+1 {
			t.Fatalf("Add(%d, 1) = %d, %v", i, sum, err)
		}
	}
	if err := c.Call("Math.Fail", strings.Repeat("x", 300), new(int)); err == nil {
		t.Error("a message of 300 bytes was accepted")
	}
	c.Close()
	<-served
}

// FuzzServer checks that nothing a client sends panics a server or keeps it.
func FuzzServer(f *testing.F) {
	f.Add([]byte(`{"method":"Math.Add","params":[{"A":1,"B":2}],"id":1}{"method":"Math.Names","params":[1],"id":null}`))
	f.Add([]byte(`{"method":"Math.Add","params":{},"id":{}}[]`))
	s := rpc.NewServer()
	s.Register(Math{})
	f.Fuzz(func(t *testing.T, request []byte) {
		s.ServeCodec(jsonrpc.NewServerCodec(struct {
			io.Reader
			io.Writer
			io.Closer
		}{bytes.NewReader(request), io.Discard, io.NopCloser(nil)}))
	})
}
