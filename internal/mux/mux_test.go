package mux

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/yonder-rpc/yonder/internal/wire"
)

// serve is a Handler that gives each call a context.
type serve func(ctx context.Context, in *Incoming)

type owner struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
}

func (o *owner) Cancel(cause error) { o.cancel(cause) }

func (f serve) NewCall() *Incoming {
	o := new(owner)
	o.ctx, o.cancel = context.WithCancelCause(context.Background())
	return &Incoming{Owner: o}
}

func (f serve) Free(in *Incoming) {}

func (f serve) Serve(in *Incoming) {
	o := in.Owner.(*owner)
	defer o.cancel(nil)
	f(o.ctx, in)
}

// nobody serves no call.
func nobody(context.Context, *Incoming) {}

// echo answers with the arguments.
func echo(_ context.Context, in *Incoming) { answer(in, string(in.Body)) }

func answer(in *Incoming, text string) error {
	return in.Reply(0, nil, message(text), true)
}

func message(text string) *Message {
	m := NewMessage()
	m.WriteString(text)
	return m
}

// local is what the ends of the tests announce, unless they say otherwise.
func local() wire.Greeting {
	return wire.Greeting{
		Codecs: []string{"cbor"}, MaxMessage: 4 << 20, MaxCalls: 100, MaxNames: 100, MaxMeta: 16 << 10, Window: 128 << 10,
	}
}

func config(f serve) Config {
	greeting := local()
	return Config{Local: &greeting, MaxStreams: 100, Handler: f}
}

// start runs a connection, which must have forgotten all calls when it is drained at
// the end of the test.
func start(tb testing.TB, conn io.ReadWriteCloser, cfg Config) *Conn {
	c := New(conn, nil, cfg)
	var wg sync.WaitGroup
	wg.Go(func() { c.Run() })
	tb.Cleanup(func() {
		c.Close()
		wg.Wait()
	})
	return c
}

// pair returns both ends of a connection in memory.
func pair(tb testing.TB, client, server Config) (*Conn, *Conn) {
	near, far := net.Pipe()
	client.Dialer = true
	return start(tb, near, client), start(tb, far, server)
}

// A count is what a connection holds for calls.
type count struct{ Outgoing, Incoming, Streams, Parted, Waiters, Load, Ends int }

func counts(c *Conn) count {
	c.mu.Lock()
	defer c.mu.Unlock()
	return count{c.outgoing, c.incoming, c.streams, c.parted, len(c.waiters), int(c.load.Load()), int(c.w.ends.Load())}
}

func checkIdle(tb testing.TB, conns ...*Conn) {
	tb.Helper()
	for i, c := range conns {
		if got := counts(c); got != (count{}) {
			tb.Errorf("connection %d holds %+v, though no call is in flight", i, got)
		}
	}
}

// call makes a call and waits for its answer.
func call(ctx context.Context, c *Conn, q *Request) (string, error) {
	o, err := c.Start(ctx, q)
	if err != nil {
		return "", err
	}
	if err := o.Wait(ctx); err != nil {
		return "", err
	}
	text := string(o.Body)
	if o.Failed {
		e, err := wire.ParseError(o.Body)
		if err != nil {
			return "", err
		}
		o.Release()
		return "", &failure{e}
	}
	o.Release()
	return text, nil
}

// failure is an error that the callee answered with.
type failure struct{ record *wire.Error }

func (f *failure) Error() string { return f.record.Message }

var procedure = &Ref{Name: "p", Signature: "() ()"}

func request(text string) *Request { return &Request{Ref: procedure, Body: message(text)} }

// A frame is what a peer has received.
type frame struct {
	wire.Header
	body []byte
}

// A peer is the other end of a connection, made of bytes.
type peer struct {
	tb   testing.TB
	conn net.Conn

	mu     sync.Mutex
	frames []frame
}

// against runs a connection against a peer that has sent its preface, and HELLO if
// greet says so, and that reads all it is sent if it reads.
func against(tb testing.TB, cfg Config, greet, reads bool) (*Conn, *peer) {
	near, far := net.Pipe()
	c := start(tb, near, cfg)
	p := &peer{tb: tb, conn: far}
	if reads {
		var wg sync.WaitGroup
		wg.Go(func() { p.read() })
		tb.Cleanup(func() {
			far.Close()
			wg.Wait()
		})
	} else {
		tb.Cleanup(func() { far.Close() })
	}
	if greet {
		p.write([]byte(wire.Preface))
		g := local()
		p.send(wire.Header{Type: wire.Hello}, wire.AppendHello(nil, &g))
	}
	return c, p
}

func (p *peer) read() {
	r := reader{conn: p.conn, onWait: func() {}, onRead: func(int) {}}
	if r.fill(len(wire.Preface)) != nil {
		return
	}
	r.next(len(wire.Preface))
	for {
		h, n, err := r.peekHeader()
		if err != nil {
			return
		}
		body, _, err := r.body(n)
		if err != nil {
			return
		}
		p.mu.Lock()
		p.frames = append(p.frames, frame{h, bytes.Clone(body)})
		p.mu.Unlock()
	}
}

// received returns the frames of a type.
func (p *peer) received(t wire.Type) []frame {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []frame
	for _, f := range p.frames {
		if f.Type == t {
			list = append(list, f)
		}
	}
	return list
}

func (p *peer) write(b []byte) error {
	_, err := p.conn.Write(b)
	return err
}

func (p *peer) send(h wire.Header, body []byte) error {
	return p.write(append(wire.AppendHeader(nil, h, len(body)), body...))
}

// name names procedure number 0, and request calls it.
func (p *peer) name() { p.send(wire.Header{Type: wire.Name}, wire.AppendName(nil, "p", "() ()")) }

func (p *peer) request(id uint32, flags wire.Flags, total uint64, args string) {
	head := wire.AppendRequest(nil, flags, &wire.RequestHead{Total: total})
	p.send(wire.Header{Type: wire.Request, Flags: flags, ID: id}, append(head, args...))
}

// bubble runs a test in which time and scheduling are the test's.
func bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}

func isViolation(err error) bool {
	_, ok := errors.AsType[*ProtocolError](err)
	return ok
}
