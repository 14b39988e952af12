package yonder_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/internal/wire"
)

// patience is how long what must happen may take on a busy machine.
const patience = 30 * time.Second

// A watchedLog is a log that one can wait for.
type watchedLog struct {
	mu   sync.Mutex
	text strings.Builder
	more chan struct{} // closed when there is more
}

func newWatchedLog() *watchedLog { return &watchedLog{more: make(chan struct{})} }

func (l *watchedLog) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (l *watchedLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.more)
	l.more = make(chan struct{})
	return l.text.Write(b)
}

// await waits until the log has a text in it.
func (l *watchedLog) await(t *testing.T, text string) {
	t.Helper()
	timeout := time.After(patience)
	for {
		l.mu.Lock()
		have, more := l.text.String(), l.more
		l.mu.Unlock()
		if strings.Contains(have, text) {
			return
		}
		select {
		case <-more:
		case <-timeout:
			t.Errorf("the log does not say %q:\n%s", text, have)
			return
		}
	}
}

// rawPeer is the other end of a connection, made of bytes. Its methods do not fail: the
// connection is closed sooner or later.
type rawPeer struct {
	t       *testing.T
	conn    net.Conn
	greeted bool // the other end's preface has been read
	unread  bool // it reads nothing to the end
}

func (p *rawPeer) write(parts ...string) { io.WriteString(p.conn, strings.Join(parts, "")) }

func (p *rawPeer) send(h wire.Header, body ...byte) {
	p.conn.Write(append(wire.AppendHeader(nil, h, len(body)), body...))
}

// until reads up to a frame of a type, and returns it.
func (p *rawPeer) until(want wire.Type) (h wire.Header, body []byte) {
	p.t.Helper()
	head := make([]byte, wire.HeaderSize)
	if !p.greeted {
		p.greeted = true
		io.ReadFull(p.conn, head[:len(wire.Preface)])
	}
	for {
		n := 0
		_, err := io.ReadFull(p.conn, head)
		if err == nil {
			h, n, err = wire.ParseHeader(head)
		}
		body = make([]byte, n)
		if err == nil {
			_, err = io.ReadFull(p.conn, body)
		}
		if err != nil {
			p.t.Errorf("waiting for %v: %v", want, err)
			return h, nil
		}
		if h.Type == want {
			return h, body
		}
	}
}

// greeting is what a peer says that wants nothing special.
func greeting() wire.Greeting {
	return wire.Greeting{Codecs: []string{"cbor"}, MaxMessage: 1 << 20, MaxCalls: 100, MaxNames: 100, MaxMeta: 16 << 10, Window: 64 << 10}
}

func (p *rawPeer) hello(g wire.Greeting) {
	p.send(wire.Header{Type: wire.Hello}, wire.AppendHello(nil, &g)...)
}

// greet sends the preface and HELLO.
func (p *rawPeer) greet() {
	p.write(wire.Preface)
	p.hello(greeting())
}

// name gives the procedures of the hostile tests their numbers.
func (p *rawPeer) name() {
	for i, name := range []string{"echo", "hold", "give", "large"} {
		p.send(wire.Header{Type: wire.Name, ID: uint32(i)}, wire.AppendName(nil, name, "")...)
	}
}

// The numbers.
const echoes, holds, gives, larges = 0, 1, 2, 3

// request calls procedure number with encoded arguments.
func (p *rawPeer) request(id uint32, number byte, args ...byte) {
	p.send(wire.Header{Type: wire.Request, ID: id}, append([]byte{number}, args...)...)
}

// parts announces a request of total bytes.
func (p *rawPeer) parts(id uint32, total uint64) {
	p.send(wire.Header{Type: wire.Request, Flags: wire.More, ID: id}, wire.AppendTotal([]byte{echoes}, total)...)
}

// id returns the id of the first call in a slot.
func id(slot uint32) uint32 { return 1<<16 | slot }

// hostileServer serves what hostile peers call.
func hostileServer(t *testing.T, log *watchedLog, limits yonder.Limits) *yonder.Server {
	srv := &yonder.Server{Logger: log.logger(), Limits: limits}
	srv.Register("echo", func(n int) int { return n })
	srv.Register("hold", func(ctx context.Context, xs iter.Seq[int]) { <-ctx.Done() })
	srv.Register("give", func() iter.Seq2[int, error] { return countTo(1<<30, nil) })
	srv.Register("large", func() []byte { return make([]byte, 60_000) })
	return srv
}

// exchangeWith connects to srv over TCP, as a hostile peer that does what do says and then
// reads until it is cut off, while a well-behaved client goes on calling. It returns when
// both connections have been served.
func exchangeWith(t *testing.T, srv *yonder.Server, do func(p *rawPeer)) {
	t.Helper()
	l := listenOn(t, "127.0.0.1:0")
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	good := dialTo(t, l.Addr().String())
	works := func(when string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if n, err := yonder.Invoke[int](ctx, good, "echo", 7); n != 7 || err != nil {
			t.Errorf("a well-behaved client, %s: %d, %v", when, n, err)
		}
	}
	works("before")
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	p := &rawPeer{t: t, conn: conn}
	do(p)
	works("meanwhile")
	if !p.unread {
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("the connection is still open")
		}
	}
	works("after")
	good.Close()
	srv.Close()
	<-served
}

// A peer that breaks the protocol is cut off, with a reason in the log; nobody else
// notices.
func TestHostileClients(t *testing.T) {
	header := func(length uint32, typ, flags byte, id uint32) string {
		b := make([]byte, wire.HeaderSize)
		wire.PutHeader(b, wire.Header{Type: wire.Type(typ), Flags: wire.Flags(flags), ID: id}, int(length)-6)
		return string(b)
	}
	fromCallee := wire.FromCallee
	tests := []struct {
		name   string
		reason string // in the log
		do     func(p *rawPeer)
	}{
		{"another protocol", `it began with \"GET / HTTP/1.1`, func(p *rawPeer) { p.write("GET / HTTP/1.1\r\n\r\n") }},
		{"another version", "speaks no protocol that is served here", func(p *rawPeer) { p.write("\xd9yonder\x02") }},
		{"zeros", "speaks no protocol that is served here", func(p *rawPeer) { p.write(strings.Repeat("\x00", 1000)) }},
		{"half a preface", `it ended after \"\\xd9yon\"`, func(p *rawPeer) { p.write("\xd9yon"); p.conn.(*net.TCPConn).CloseWrite() }},
		{"a length of nothing", "frame length 0", func(p *rawPeer) { p.greet(); p.write(header(0, 12, 0, 0)) }},
		{"a short length", "frame length 5", func(p *rawPeer) { p.greet(); p.write(header(5, 12, 0, 0)) }},
		{"a long length", "frame length 69639", func(p *rawPeer) { p.greet(); p.write(header(69639, 12, 0, 0)) }},
		{"a huge length", "frame length 4294967295", func(p *rawPeer) { p.greet(); p.write(header(1<<32-1, 12, 0, 0)) }},
		{"type 0", "unknown frame type 0", func(p *rawPeer) { p.greet(); p.write(header(6, 0, 0, 0)) }},
		{"type 17", "unknown frame type 17", func(p *rawPeer) { p.greet(); p.write(header(6, 17, 0, 0)) }},
		{"ACK that was not agreed on", "ACK on a connection that cannot be resumed", func(p *rawPeer) { p.greet(); p.send(wire.Header{Type: wire.Ack}, 0) }},
		{"RESUME where there is none", "RESUME before HELLO", func(p *rawPeer) { p.write(wire.Preface); p.send(wire.Header{Type: wire.Resume}, 0, 1, 0) }},
		{"an unknown flag", "PING frame has flags", func(p *rawPeer) { p.greet(); p.write(header(14, 12, 1, 0)) }},
		{"PING of a call", "has the id", func(p *rawPeer) { p.greet(); p.write(header(14, 12, 0, 7)) }},
		{"a frame cut off", "unexpected EOF", func(p *rawPeer) {
			p.greet()
			p.write(header(14, 12, 0, 0), "1234")
			p.conn.(*net.TCPConn).CloseWrite()
		}},

		{"no HELLO", "PING before HELLO", func(p *rawPeer) { p.write(wire.Preface, header(14, 12, 0, 0), "12345678") }},
		{"HELLO twice", "a second HELLO", func(p *rawPeer) { p.greet(); p.hello(greeting()) }},
		{"an empty HELLO", "HELLO: no codec", func(p *rawPeer) { p.write(wire.Preface, header(6, 1, 0, 0)) }},
		{"HELLO with another codec", `codec \"gob\" is not accepted here`, func(p *rawPeer) {
			p.write(wire.Preface)
			g := greeting()
			g.Codecs = []string{"gob"}
			p.hello(g)
		}},
		{"HELLO with a window of nothing", "HELLO: 0 bytes of window", func(p *rawPeer) {
			p.write(wire.Preface)
			g := greeting()
			g.Window = 0
			p.hello(g)
		}},
		{"HELLO cut off", "HELLO: frame ends early", func(p *rawPeer) {
			p.write(wire.Preface)
			p.send(wire.Header{Type: wire.Hello}, 1, 200)
		}},

		{"a name twice", "is named twice", func(p *rawPeer) { p.greet(); p.name(); p.name() }},
		{"a name beyond the limit", "procedure number 50 is beyond the limit of 50", func(p *rawPeer) {
			p.greet()
			p.send(wire.Header{Type: wire.Name, ID: 50}, wire.AppendName(nil, "echo", "")...)
		}},
		{"a name cut off", "NAME: ", func(p *rawPeer) { p.greet(); p.send(wire.Header{Type: wire.Name}, 200, 'x') }},

		{"an unknown procedure", "is of procedure 4, which has no name", func(p *rawPeer) { p.greet(); p.name(); p.request(id(0), 4) }},
		{"a slot beyond the limit", "is beyond the limit of 8 calls", func(p *rawPeer) { p.greet(); p.name(); p.request(id(8), echoes, 1) }},
		{"a slot that is taken", "begins while call", func(p *rawPeer) {
			p.greet()
			p.name()
			p.request(id(0), holds, 1)
			p.request(id(0)+1<<16, echoes, 1)
		}},
		{"a request cut off", "REQUEST: ", func(p *rawPeer) { p.greet(); p.send(wire.Header{Type: wire.Request, ID: id(0)}) }},
		{"a compressed request", "compressed, which was not agreed on", func(p *rawPeer) {
			p.greet()
			p.name()
			p.send(wire.Header{Type: wire.Request, Flags: wire.Packed, ID: id(0)}, echoes, 1)
		}},
		{"a callback to be checked", "makes no sense", func(p *rawPeer) {
			p.greet()
			p.send(wire.Header{Type: wire.Request, Flags: wire.Callback | wire.Check, ID: id(0)}, 0, 0, 0, 0, 0)
		}},
		{"an answer to nothing", "which waits for none", func(p *rawPeer) { p.greet(); p.send(wire.Header{Type: wire.Response, Flags: wire.End, ID: id(0)}) }},
		{"CANCEL of two codes", "CANCEL of 2 bytes", func(p *rawPeer) { p.greet(); p.send(wire.Header{Type: wire.Cancel, ID: id(0)}, 1, 1) }},
		{"PING of seven bytes", "PING of 7 bytes", func(p *rawPeer) { p.greet(); p.send(wire.Header{Type: wire.Ping}, 1, 2, 3, 4, 5, 6, 7) }},
		{"an empty GOAWAY", "GOAWAY: ", func(p *rawPeer) { p.greet(); p.send(wire.Header{Type: wire.GoAway}) }},

		{"parts with too much", "do not make its length", func(p *rawPeer) {
			p.greet()
			p.name()
			p.parts(id(0), 4)
			p.send(wire.Header{Type: wire.Part, ID: id(0)}, 0, 1, 2, 3, 4, 5)
		}},
		{"parts with too little", "do not make its length", func(p *rawPeer) {
			p.greet()
			p.name()
			p.parts(id(0), 4)
			p.send(wire.Header{Type: wire.Part, ID: id(0)}, 0, 1, 2, 3)
		}},
		{"parts that go on", "do not make its length", func(p *rawPeer) {
			p.greet()
			p.name()
			p.parts(id(0), 4)
			p.send(wire.Header{Type: wire.Part, Flags: wire.More, ID: id(0)}, 0, 1, 2, 3, 4)
		}},
		{"a stream before the end of the request", "a stream before the end of the request", func(p *rawPeer) {
			p.greet()
			p.name()
			p.parts(id(0), 4)
			p.send(wire.Header{Type: wire.Part, Flags: wire.More, ID: id(0)}, 0, 1, 2)
			p.send(wire.Header{Type: wire.Item, ID: id(0)}, 1, 1, 1)
		}},
		{"an empty part", "PART of 1 bytes", func(p *rawPeer) {
			p.greet()
			p.name()
			p.parts(id(0), 4)
			p.send(wire.Header{Type: wire.Part, Flags: wire.More, ID: id(0)}, 0)
		}},
		{"a message of no parts", "a message in parts of 0 bytes", func(p *rawPeer) { p.greet(); p.name(); p.parts(id(0), 0) }},
		{"a payload before its parts", "bytes after the total length", func(p *rawPeer) {
			p.greet()
			p.name()
			p.send(wire.Header{Type: wire.Request, Flags: wire.More, ID: id(0)}, echoes, 4, 1, 2, 3, 4)
		}},
		{"17 messages in parts", "more than 16 messages in parts", func(p *rawPeer) {
			p.greet()
			p.name()
			p.request(id(0), holds, 1)
			for channel := range byte(17) {
				p.send(wire.Header{Type: wire.Item, Flags: wire.More, ID: id(0)}, channel+1, 4)
			}
		}},

		{"more than the window", "has no credit left", func(p *rawPeer) {
			p.greet()
			p.name()
			p.request(id(0), holds, 1)
			for range 10 {
				p.send(wire.Header{Type: wire.Item, ID: id(0)}, wire.AppendBlob([]byte{1}, make([]byte, 60_000))...)
			}
		}},
		{"large values beyond the window", "has no credit left", func(p *rawPeer) {
			p.greet()
			p.name()
			p.request(id(0), holds, 1)
			value := make([]byte, 40_000)
			for range 10 {
				p.send(wire.Header{Type: wire.Item, Flags: wire.More, ID: id(0)}, wire.AppendTotal([]byte{1}, 40_000)...)
				p.send(wire.Header{Type: wire.Part, ID: id(0)}, append([]byte{1}, value...)...)
			}
		}},
		{"credit without bound", "CREDIT of ", func(p *rawPeer) {
			p.greet()
			p.name()
			p.request(id(0), gives)
			p.until(wire.Item) // what comes before is ignored
			for range 2 {      // 2^40, the most there may be
				p.send(wire.Header{Type: wire.Credit, ID: id(0)}, 1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20)
			}
		}},
		{"a value cut off", "ITEM: ", func(p *rawPeer) {
			p.greet()
			p.name()
			p.request(id(0), holds, 1)
			p.send(wire.Header{Type: wire.Item, ID: id(0)}, 1, 200)
		}},
		{"a value within another", "a value in parts is not complete", func(p *rawPeer) {
			p.greet()
			p.name()
			p.request(id(0), holds, 1)
			p.send(wire.Header{Type: wire.Item, Flags: wire.More, ID: id(0)}, 1, 4)
			p.send(wire.Header{Type: wire.Item, ID: id(0)}, 1, 1, 1)
		}},
		{"a stream on channel 0", "on channel 0", func(p *rawPeer) {
			p.greet()
			p.name()
			p.request(id(0), holds, 1)
			p.send(wire.Header{Type: wire.Data, ID: id(0)}, 0, 1)
		}},
		{"a stream on no channel", "frame ends early", func(p *rawPeer) { p.greet(); p.send(wire.Header{Type: wire.Stop, ID: id(0)}) }},
		{"CLOSE with more", "more than it needs", func(p *rawPeer) {
			p.greet()
			p.name()
			p.request(id(0), holds, 1)
			p.send(wire.Header{Type: wire.Close, ID: id(0)}, 1, 1)
		}},
		{"the end of a call by its caller", "the end of call", func(p *rawPeer) {
			p.greet()
			p.name()
			p.request(id(0), holds, 1)
			p.send(wire.Header{Type: wire.Close, Flags: wire.End, ID: id(0)}, 1)
		}},
		{"CREDIT with more", "CREDIT: bytes after the number", func(p *rawPeer) {
			p.greet()
			p.send(wire.Header{Type: wire.Credit, Flags: fromCallee, ID: id(0)}, 1, 1, 1)
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			noLeak(t)
			log := newWatchedLog()
			srv := hostileServer(t, log, yonder.Limits{MaxCalls: 8, MaxNames: 50, Window: 64 << 10})
			exchangeWith(t, srv, test.do)
			log.await(t, test.reason)
		})
	}
}

// What a peer may send, though it is of no use, changes nothing: its calls go on.
func TestUselessFrames(t *testing.T) {
	noLeak(t)
	log := newWatchedLog()
	srv := hostileServer(t, log, yonder.Limits{})
	exchangeWith(t, srv, func(p *rawPeer) {
		p.write(wire.Preface)
		g := greeting()
		hello := wire.AppendHello([]byte{99, 3, 'n', 'e', 'w'}, &g)
		p.send(wire.Header{Type: wire.Hello}, hello...)
		p.name()
		for _, flags := range []wire.Flags{0, wire.FromCallee} {
			for _, typ := range []wire.Type{wire.Item, wire.Data, wire.Close, wire.Stop} {
				p.send(wire.Header{Type: typ, Flags: flags, ID: id(7)}, 1)
			}
			p.send(wire.Header{Type: wire.Part, Flags: flags, ID: id(7)}, 1, 2, 3)
			p.send(wire.Header{Type: wire.Credit, Flags: flags, ID: id(7)}, 1, 1)
		}
		p.send(wire.Header{Type: wire.Cancel, ID: id(7)}, 1)
		p.send(wire.Header{Type: wire.Pong}, 1, 2, 3, 4, 5, 6, 7, 8)
		// A stream for an argument that is none.
		p.request(id(0), echoes, 7)
		p.send(wire.Header{Type: wire.Item, ID: id(0)}, 1, 1, 1)
		if h, body := p.until(wire.Response); h.ID != id(0) || h.Flags != wire.End || string(body) != "\x07" {
			t.Errorf("the answer: %+v %x", h, body)
		}
		p.request(id(1), echoes, 0xff) // no CBOR
		if h, _ := p.until(wire.Response); h.Flags != wire.End|wire.Failed {
			t.Errorf("the answer to an argument that cannot be read: %+v", h)
		}
		p.send(wire.Header{Type: wire.Request, Flags: wire.Callback, ID: id(2)}, 0, 1, 0, 0, 0)
		if h, _ := p.until(wire.Response); h.Flags != wire.End|wire.Failed {
			t.Errorf("the answer to a callback of no call: %+v", h)
		}
		p.request(id(3), echoes, 7)
		if h, body := p.until(wire.Response); h.ID != id(3) || h.Flags != wire.End || string(body) != "\x07" {
			t.Errorf("the last answer: %+v %x", h, body)
		}
		p.conn.Close()
	})
}

// A peer that stops talking, or reading, is given up after a time.
func TestHostileSilence(t *testing.T) {
	tests := []struct {
		name   string
		reason string
		do     func(p *rawPeer)
	}{
		{"never a word", "did not say what protocol it speaks", func(p *rawPeer) {}},
		{"a part of the preface", "did not say what protocol it speaks", func(p *rawPeer) { p.write("\xd9yon") }},
		{"no HELLO", "no HELLO within", func(p *rawPeer) { p.write(wire.Preface) }},
		{"a part of HELLO", "no HELLO within", func(p *rawPeer) { p.write(wire.Preface, "\x00\x00\x00") }},
		{"no PONG", "no sign of life", func(p *rawPeer) { p.greet() }},
		{"a part of a frame", "no sign of life", func(p *rawPeer) { p.greet(); p.write("\x00\x00\x00") }},
		{"a part of a message", "no sign of life", func(p *rawPeer) {
			p.greet()
			p.name()
			p.parts(id(0), 1<<20)
			p.send(wire.Header{Type: wire.Part, Flags: wire.More, ID: id(0)}, 0, 1, 2, 3)
		}},
		{"calls without reading", "connection lost", func(p *rawPeer) {
			p.conn.(*net.TCPConn).SetReadBuffer(4 << 10)
			p.greet()
			p.name()
			for i := range uint32(200) { // 12 MB: more than sockets hold, and little to do
				p.request(id(i), larges)
			}
			p.unread = true
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			noLeak(t)
			log := newWatchedLog()
			const soon = 500 * time.Millisecond
			limits := yonder.Limits{FirstByte: soon, KeepAlive: soon}
			if test.name == "calls without reading" { // on a busy machine the other client would take as long to give a sign of life
				limits.KeepAlive = 2 * time.Second
			}
			srv := hostileServer(t, log, limits)
			reason := test.reason
			exchangeWith(t, srv, func(p *rawPeer) {
				test.do(p)
				if p.unread {
					reason = "peer=" + p.conn.LocalAddr().String() + ` reason="` + reason
					log.await(t, reason)
				}
			})
			log.await(t, reason)
		})
	}
}

// heap returns the bytes that the process holds.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// However much a peer sends that needs no answer, or whose answers it does not read, it
// costs a bounded amount of memory.
func TestFloods(t *testing.T) {
	var frame []byte
	of := func(h wire.Header, body ...byte) []byte {
		return append(wire.AppendHeader(frame[:0:0], h, len(body)), body...)
	}
	tests := []struct {
		name  string
		n     int    // of frames; a tenth with the race detector
		limit uint64 // of bytes held
		frame func(i int) []byte
	}{
		{"PING", 300_000, 4 << 20, func(int) []byte { return of(wire.Header{Type: wire.Ping}, make([]byte, 8)...) }},
		{"PONG", 300_000, 4 << 20, func(int) []byte { return of(wire.Header{Type: wire.Pong}, make([]byte, 8)...) }},
		{"CANCEL of nothing", 300_000, 4 << 20, func(i int) []byte { return of(wire.Header{Type: wire.Cancel, ID: uint32(i)}, 1) }},
		{"CANCEL of a call", 300_000, 4 << 20, func(i int) []byte { return of(wire.Header{Type: wire.Cancel, ID: id(0)}, 1) }},
		{"STOP of nothing", 300_000, 4 << 20, func(i int) []byte { return of(wire.Header{Type: wire.Stop, ID: uint32(i)}, byte(i|1)) }},
		{"STOP of a call", 300_000, 4 << 20, func(i int) []byte { return of(wire.Header{Type: wire.Stop, ID: id(0)}, byte(i|1)) }},
		{"CREDIT of a call", 300_000, 4 << 20, func(i int) []byte { return of(wire.Header{Type: wire.Credit, ID: id(0)}, byte(i|1), 1) }},
		{"empty ITEMs", 300_000, 4 << 20, func(i int) []byte { return of(wire.Header{Type: wire.Item, ID: id(0)}, 1) }},
		{"empty DATA", 300_000, 4 << 20, func(i int) []byte { return of(wire.Header{Type: wire.Data, ID: id(0)}, 1) }},
		{"CLOSE", 300_000, 4 << 20, func(i int) []byte { return of(wire.Header{Type: wire.Close, ID: id(0)}, 1) }},
		{"CLOSE with errors", 3_000, 4 << 20, func(i int) []byte {
			return of(wire.Header{Type: wire.Close, Flags: wire.Failed, ID: id(0)}, append([]byte{1}, make([]byte, 60_000)...)...)
		}},
		{"GOAWAY", 300_000, 4 << 20, func(i int) []byte { return of(wire.Header{Type: wire.GoAway}, wire.AppendGoAway(nil, 14, "x")...) }},
		{"values beyond the limit", 30_000, 4 << 20, func(i int) []byte {
			return append(of(wire.Header{Type: wire.Item, Flags: wire.More, ID: id(0)}, wire.AppendTotal([]byte{1}, 1<<40)...),
				of(wire.Header{Type: wire.Close, ID: id(0)}, 1)...)
		}},
		{"small values in parts", 100_000, 2 << 20, func(i int) []byte {
			return append(of(wire.Header{Type: wire.Item, Flags: wire.More, ID: id(0)}, 1, 1),
				of(wire.Header{Type: wire.Part, ID: id(0)}, 1, 1)...)
		}},
		{"names", 3_000, 24 << 20, func(i int) []byte {
			return of(wire.Header{Type: wire.Name, ID: uint32(100 + i)}, wire.AppendName(nil, "p", strings.Repeat("x", 60_000))...)
		}},
		{"streams", 10_000, 8 << 20, func(i int) []byte {
			return of(wire.Header{Type: wire.Item, ID: id(uint32(1 + i%10))}, byte(1+i/10%255), 2, 1, 1)
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			noLeak(t)
			srv := hostileServer(t, newWatchedLog(), yonder.Limits{})
			reached := make(chan bool)
			srv.Register("reached", func() { reached <- true })
			exchangeWith(t, srv, func(p *rawPeer) {
				p.greet()
				p.name()
				p.send(wire.Header{Type: wire.Name, ID: 50}, wire.AppendName(nil, "reached", "")...)
				for slot := range uint32(11) {
					p.request(id(slot), holds, 1)
				}
				p.request(id(20), 50)
				<-reached
				n := test.n
				if raceEnabled {
					n /= 10
				}
				before := heap()
				var batch []byte
				for i := range n {
					if batch = append(batch, test.frame(i)...); len(batch) > 64<<10 {
						p.conn.Write(batch)
						batch = batch[:0]
					}
				}
				p.conn.Write(batch)
				p.request(id(21), 50)
				select {
				case <-reached:
				case <-time.After(patience):
					t.Error("the server does not read any more")
				}
				if after := heap(); after > before+test.limit {
					t.Errorf("%d frames cost %d KiB", n, (after-before)>>10)
				}
				p.conn.Close()
			})
		})
	}
}

// exchangeWithClient has a hostile server say what do says to a client, which makes a call
// of each kind, and more until its connection is closed or do has returned.
func exchangeWithClient(t *testing.T, log *watchedLog, do func(p *rawPeer)) (plain, stream error) {
	t.Helper()
	l := listenOn(t, "127.0.0.1:0")
	served := make(chan bool)
	go func() { // ends with do, and the connection
		defer close(served)
		conn, err := l.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		do(&rawPeer{t: t, conn: conn})
		io.Copy(io.Discard, conn)
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d := yonder.Dialer{Logger: log.logger(), Limits: yonder.Limits{MaxMessage: 1 << 20}}
	c := d.NewClient(conn)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, plain = yonder.Invoke[int](ctx, c, "echo", 7) // has id(0), the next ones other generations or slots
	var both func(context.Context, iter.Seq2[int, error]) (iter.Seq2[int, error], error)
	c.Bind("both", &both)
	xs, stream := both(ctx, countTo(1000, nil))
	if stream == nil {
		_, stream = collect(xs)
	}
	if ctx.Err() != nil {
		t.Errorf("the client hangs: %v, %v", plain, stream)
	}
	c.Close()
	<-served
	return plain, stream
}

// Whatever a server does to a client, its calls return errors that say what happened, and
// nothing hangs.
func TestHostileServers(t *testing.T) {
	answer := func(flags wire.Flags, body ...byte) func(p *rawPeer) {
		return func(p *rawPeer) {
			p.greet()
			h, _ := p.until(wire.Request)
			p.send(wire.Header{Type: wire.Response, Flags: flags, ID: h.ID}, body...)
		}
	}
	// cut ends the connection after do, so that the other call ends, too.
	cut := func(do func(p *rawPeer)) func(p *rawPeer) {
		return func(p *rawPeer) {
			do(p)
			p.until(wire.Request)
			p.conn.Close()
		}
	}
	// streams answers the first call, and what do says to the second, with a stream.
	streams := func(do func(p *rawPeer, id uint32)) func(p *rawPeer) {
		return func(p *rawPeer) {
			answer(wire.End, 7)(p)
			h, _ := p.until(wire.Request)
			p.send(wire.Header{Type: wire.Response, ID: h.ID}, 1)
			do(p, h.ID)
		}
	}
	const ok = yonder.Code(0)
	tests := []struct {
		name          string
		reason        string // in the log; "": the connection lives on
		plain, stream yonder.Code
		text          string // of the first error
		do            func(p *rawPeer)
	}{
		{"another protocol", `it began with \"HTTP/1.1`, yonder.Unavailable, yonder.Unavailable, "does not speak this protocol",
			func(p *rawPeer) { p.write("HTTP/1.1 400 Bad Request\r\n\r\n") }},
		{"closed at once", "", yonder.Unavailable, yonder.Unavailable, "connection lost",
			func(p *rawPeer) { p.conn.Close() }},
		{"half a preface", `the peer ended the connection after \"\\xd9yon\"`, yonder.Unavailable, yonder.Unavailable, "is not this protocol",
			func(p *rawPeer) { p.write("\xd9yon"); p.conn.(*net.TCPConn).CloseWrite() }},
		{"HELLO without our codec", `codec \"cbor\" is not accepted by the peer`, yonder.Unavailable, yonder.Unavailable, "is not accepted by the peer",
			func(p *rawPeer) {
				p.write(wire.Preface)
				g := greeting()
				g.Codecs = []string{"gob"}
				p.hello(g)
			}},
		{"HELLO twice", "a second HELLO", yonder.Unavailable, yonder.Unavailable, "a second HELLO",
			func(p *rawPeer) { p.greet(); p.hello(greeting()) }},
		{"limits of nothing", "", yonder.ResourceExhausted, yonder.ResourceExhausted, "is larger than the limit of 1",
			func(p *rawPeer) {
				p.until(wire.Request)
				p.write(wire.Preface)
				g := greeting()
				g.MaxMessage, g.MaxCalls, g.MaxNames = 1, 1, 1
				p.hello(g)
				msg := wire.AppendError(nil, &wire.Error{Code: 8, Message: "is larger than the limit of 1"})
				p.send(wire.Header{Type: wire.Response, Flags: wire.Failed | wire.End, ID: id(0)}, msg...)
			}},
		{"GOAWAY at once", "", yonder.Unavailable, yonder.Unavailable, "go away",
			func(p *rawPeer) {
				p.greet()
				p.until(wire.Request)
				p.send(wire.Header{Type: wire.GoAway}, wire.AppendGoAway(nil, 14, "go away")...)
				p.conn.Close()
			}},
		{"a wrong length", "frame length 1 is outside", yonder.Unavailable, yonder.Unavailable, "frame length",
			func(p *rawPeer) { p.greet(); p.write("\x00\x00\x00\x01\x0c\x00\x00\x00\x00\x00") }},
		{"an answer to nothing", "which waits for none", yonder.Unavailable, yonder.Unavailable, "waits for none",
			func(p *rawPeer) {
				p.greet()
				p.send(wire.Header{Type: wire.Response, Flags: wire.End, ID: id(77)})
			}},
		{"two answers", "which waits for none", ok, yonder.Unavailable, "waits for none",
			func(p *rawPeer) {
				answer(wire.End, 7)(p)
				p.send(wire.Header{Type: wire.Response, Flags: wire.End, ID: id(0)}, 7)
			}},
		{"a failure that goes on", "has failed, but does not end", yonder.Unavailable, yonder.Unavailable, "has failed",
			answer(wire.Failed, 1)},
		{"an error that cannot be read", "", yonder.Internal, yonder.Unavailable, "an error that cannot be read",
			cut(answer(wire.Failed|wire.End, 1, 200))},
		{"no result", "", yonder.Internal, yonder.Unavailable, "result 1: it is missing from the answer",
			cut(answer(wire.End))},
		{"a result of another type", "", yonder.Internal, yonder.Unavailable, "result 1",
			cut(answer(wire.End, 0x61, 'x'))},
		{"a result that is no CBOR", "", yonder.Internal, yonder.Unavailable, "result 1",
			cut(answer(wire.End, 0xff))},
		{"a result that goes on for ever", "", yonder.Internal, yonder.Unavailable, "result 1",
			cut(answer(wire.End, bytes.Repeat([]byte{0x81}, 60_000)...))},
		{"a huge result", "", yonder.ResourceExhausted, yonder.Unavailable, "response of 1099511627776 bytes is larger than the limit of 1048576",
			cut(answer(wire.More|wire.End, wire.AppendTotal(nil, 1<<40)...))},
		{"huge metadata", "", yonder.ResourceExhausted, yonder.Unavailable, "response metadata",
			cut(answer(wire.HasMeta|wire.End, wire.AppendBlob(nil, make([]byte, 40_000))...))},
		{"a result cut off", "", yonder.Unavailable, yonder.Unavailable, "connection lost",
			func(p *rawPeer) {
				answer(wire.More|wire.End, wire.AppendTotal(nil, 1000)...)(p)
				p.send(wire.Header{Type: wire.Part, Flags: wire.More | wire.FromCallee, ID: id(0)}, 0, 1, 2, 3)
				p.conn.Close()
			}},
		{"a compressed result", "compressed, which was not agreed on", yonder.Unavailable, yonder.Unavailable, "not agreed on",
			answer(wire.Packed|wire.End, 7)},
		{"an end before the answer", "before its answer", yonder.Unavailable, yonder.Unavailable, "before its answer",
			func(p *rawPeer) {
				p.greet()
				h, _ := p.until(wire.Request)
				p.send(wire.Header{Type: wire.Close, Flags: wire.FromCallee | wire.End, ID: h.ID}, 1)
			}},
		{"a call of what it has not named", "which has no name", yonder.Unavailable, yonder.Unavailable, "which has no name",
			func(p *rawPeer) { p.greet(); p.request(id(0), 7) }},
		{"calls of what is not there", "", ok, yonder.Unavailable, "connection lost",
			func(p *rawPeer) {
				p.greet()
				p.until(wire.Request) // which is answered at the end
				p.name()
				p.request(id(0), echoes, 7)
				p.send(wire.Header{Type: wire.Request, Flags: wire.Callback, ID: id(1)}, 0, 1, 0, 0, 0)
				for range 2 {
					if h, _ := p.until(wire.Response); h.Flags != wire.End|wire.Failed {
						p.t.Errorf("the client answered: %+v", h)
					}
				}
				p.send(wire.Header{Type: wire.Response, Flags: wire.End, ID: id(0)}, 7)
				p.until(wire.Request)
				p.conn.Close()
			}},

		{"a stream cut off", "", ok, yonder.Unavailable, "connection lost",
			streams(func(p *rawPeer, id uint32) {
				p.send(wire.Header{Type: wire.Item, Flags: wire.FromCallee, ID: id}, 1, 1, 0, 1, 1)
				p.conn.Close()
			})},
		{"a value of another type", "", ok, yonder.InvalidArgument, "stream of",
			streams(func(p *rawPeer, id uint32) {
				p.send(wire.Header{Type: wire.Item, Flags: wire.FromCallee, ID: id}, 1, 1, 0xff)
			})},
		{"a value beyond the limit", "", ok, yonder.ResourceExhausted, "stream value of 1099511627776 bytes",
			streams(func(p *rawPeer, id uint32) {
				p.send(wire.Header{Type: wire.Item, Flags: wire.FromCallee | wire.More, ID: id}, wire.AppendTotal([]byte{1}, 1<<40)...)
			})},
		{"values beyond the window", "has no credit left", ok, yonder.Unavailable, "has no credit left",
			streams(func(p *rawPeer, id uint32) {
				// One that nobody reads: the client's stream is at position 1.
				for range 10 {
					p.send(wire.Header{Type: wire.Item, Flags: wire.FromCallee, ID: id}, wire.AppendBlob([]byte{2}, make([]byte, 60_000))...)
				}
			})},
		{"a stream that ends in nonsense", "", ok, yonder.Internal, "cannot be read",
			streams(func(p *rawPeer, id uint32) {
				p.send(wire.Header{Type: wire.Close, Flags: wire.FromCallee | wire.End | wire.Failed, ID: id}, 1, 1, 200)
			})},
		{"the end of a call in its stream", "", ok, ok, "",
			streams(func(p *rawPeer, id uint32) {
				p.send(wire.Header{Type: wire.Close, Flags: wire.FromCallee | wire.End, ID: id}, 1)
			})},
		{"credit without bound", "CREDIT of", ok, yonder.Unavailable, "CREDIT of",
			streams(func(p *rawPeer, id uint32) {
				p.until(wire.Item)
				for range 2 {
					p.send(wire.Header{Type: wire.Credit, Flags: wire.FromCallee, ID: id}, 1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20)
				}
			})},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			noLeak(t)
			log := newWatchedLog()
			plain, stream := exchangeWithClient(t, log, test.do)
			if yonder.CodeOf(plain) != test.plain || yonder.CodeOf(stream) != test.stream {
				t.Errorf("a plain call: %v (%v), want %v; one with streams: %v (%v), want %v", plain, yonder.CodeOf(plain), test.plain, stream, yonder.CodeOf(stream), test.stream)
			}
			first := plain
			if first == nil {
				first = stream
			}
			if !strings.Contains(textOf(first), test.text) {
				t.Errorf("the error %q does not say %q", textOf(first), test.text)
			}
			if test.reason != "" {
				log.await(t, test.reason)
			}
		})
	}
}

// Requests in parts that do not come end, and what has come of them goes; who sends slowly, but takes
// turns, or sends one after another, is not in that. Nobody waits for an answer here.
func TestSlowParts(t *testing.T) {
	const total = 1 << 20
	text := make([]byte, total)
	copy(text, []byte{0x5a, 0, 0x0f, 0xff, 0xfb}) // a byte string of CBOR, of five bytes less
	for _, tt := range []struct {
		name string
		n    int           // messages
		part int           // bytes at a time
		rest time.Duration // between parts
		most int           // bytes of each message; then nothing but signs of life
		turn bool          // they take turns, and do not go one after another
		fail bool
	}{
		{"one stands still", 1, 60 << 10, time.Second, 600 << 10, true, true},
		{"sixteen stand still", 16, 60 << 10, time.Second, 60 << 10, true, true},
		{"sixteen trickle", 16, 1, time.Second, total, true, true},
		{"one is slow", 1, 4 << 10, 900 * time.Millisecond, total, true, false},
		{"sixteen are slow, in turns", 16, 60 << 10, 14 * time.Second, total, true, false},
		{"sixteen are fast, one after another", 16, 60 << 10, 500 * time.Millisecond, total, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var srv yonder.Server
				srv.Register("size", func(b []byte) int { return len(b) })
				serverOf(t, &srv)
				near, far := net.Pipe()
				served := make(chan error, 1)
				go func() { served <- srv.ServeConn(far) }() // ends with the connection
				var mu sync.Mutex                            // of the writing end
				p := &rawPeer{t: t, conn: near}
				send := func(h wire.Header, body ...byte) {
					mu.Lock()
					defer mu.Unlock()
					p.send(h, body...)
				}
				failed, answered := make(chan string, 100), make(chan bool, 100)
				go func() { // ends with the connection
					head := make([]byte, wire.HeaderSize)
					for _, err := io.ReadFull(near, make([]byte, len(wire.Preface))); err == nil; {
						if _, err = io.ReadFull(near, head); err != nil {
							return
						}
						h, n, _ := wire.ParseHeader(head)
						body := make([]byte, n)
						if _, err = io.ReadFull(near, body); err != nil {
							return
						}
						switch {
						case h.Type == wire.Ping:
							go send(wire.Header{Type: wire.Pong}, body...)
						case h.Type == wire.Response && h.Flags&wire.Failed != 0:
							failed <- string(body)
						case h.Type == wire.Response:
							answered <- true
						}
					}
				}()
				p.greet()
				send(wire.Header{Type: wire.Name, ID: 0}, wire.AppendName(nil, "size", "(bytes) (int)")...)
				begin := func(i int) {
					send(wire.Header{Type: wire.Request, Flags: wire.More, ID: id(uint32(i))}, wire.AppendTotal([]byte{0}, total)...)
				}
				// part sends the next one of a message, and reports whether that was the last.
				sent := make([]int, tt.n)
				part := func(i int) bool {
					n := min(tt.part, tt.most-sent[i])
					if n == 0 {
						return true
					}
					h := wire.Header{Type: wire.Part, Flags: wire.More, ID: id(uint32(i))}
					if sent[i]+n == total {
						h.Flags = 0
					}
					send(h, append([]byte{0}, text[sent[i]:sent[i]+n]...)...)
					sent[i] += n
					time.Sleep(tt.rest)
					return sent[i] == tt.most
				}
				began := time.Now()
				for i := range tt.n {
					begin(i)
				}
				over := 0
				for i := 0; over < tt.n && len(failed) == 0; {
					if sent[i] < tt.most && part(i) {
						over++
					}
					if tt.turn || sent[i] == tt.most {
						i = (i + 1) % tt.n
					}
				}
				if !tt.fail {
					for range tt.n {
						select {
						case text := <-failed:
							t.Fatalf("after %v: %q", time.Since(began), text)
						case <-answered:
						}
					}
				} else {
					stopped := time.Now()
					for range tt.n {
						select {
						case text := <-failed:
							if text[0] != wire.CodeExhausted || !strings.Contains(text, "came too slowly") {
								t.Errorf("%q", text)
							}
						case <-time.After(6 * time.Minute):
							t.Fatal("nothing has ended")
						}
					}
					t.Logf("all have ended %v after the last part", time.Since(stopped))
					if took := time.Since(stopped); tt.n == 1 && took > time.Minute {
						t.Errorf("it took %v", took)
					}
					// There is room for as many again.
					for i := range tt.n {
						send(wire.Header{Type: wire.Request, Flags: wire.More, ID: id(uint32(i)) + 1<<16}, wire.AppendTotal([]byte{0}, total)...)
					}
					send(wire.Header{Type: wire.Request, ID: id(99)}, 0, 0x41, 7)
					<-answered
				}
				near.Close()
				<-served
			})
		})
	}
}

// What a signature of the largest size costs, the one frame costs that brings it, and not each call by it;
// nor does it cost anything by a name that nobody serves. A thousand calls of 12 bytes took seconds.
func TestLargeSignature(t *testing.T) {
	var text strings.Builder
	for text.WriteString("({N string"); text.Len() < 32<<10-100; {
		fmt.Fprintf(&text, "; F%d int", text.Len())
	}
	text.WriteString("}, string)")
	for _, name := range []string{"echo", "nobody serves it"} {
		t.Run(name, func(t *testing.T) {
			exchangeWith(t, hostileServer(t, newWatchedLog(), yonder.Limits{}), func(p *rawPeer) {
				p.greet()
				p.send(wire.Header{Type: wire.Name}, wire.AppendName(nil, name, text.String())...)
				calls := 1000
				if raceEnabled {
					calls = 100
				}
				began := time.Now()
				for i := range calls {
					p.request(uint32(i+1)<<16, echoes, 1)
					if h, body := p.until(wire.Response); h.Flags&wire.Failed == 0 || len(body) > 8<<10 {
						t.Fatalf("answered with flags %v, %d bytes", h.Flags, len(body))
					}
				}
				if took := time.Since(began); took > time.Second {
					t.Errorf("%d calls took %v", calls, took)
				}
				p.conn.(*net.TCPConn).CloseWrite()
			})
		})
	}
}
