package mux

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/yonder-rpc/yonder/internal/wire"
)

// A program is fuzzed bytes, read as operations.
type program struct{ b []byte }

func (p *program) over() bool { return len(p.b) == 0 }

// next returns a number below n, and 0 at the end of the program.
func (p *program) next(n int) int {
	if p.over() {
		return 0
	}
	v := int(p.b[0])
	p.b = p.b[1:]
	return v % n
}

// take returns the next n bytes, or what is left.
func (p *program) take(n int) []byte {
	n = min(n, len(p.b))
	b := p.b[:n]
	p.b = p.b[n:]
	return b
}

// number is one that is likely to be near a limit.
func (p *program) number() uint64 {
	switch p.next(8) {
	case 0:
		return 0
	case 1:
		return uint64(wire.MaxBody + p.next(4) - 2)
	case 2:
		return 1<<20 + uint64(p.next(4)) - 2 // local's MaxMessage
	case 3:
		return 1<<62 + uint64(p.next(4))
	case 4:
		return ^uint64(0)
	}
	return uint64(p.next(256))
}

// perform is a handler that does what the arguments say, in a program of its own.
func perform(ctx context.Context, in *Incoming) {
	p := program{bytes.Clone(in.Body)}
	in.ReleaseBody()
	for !p.over() {
		op, k := p.next(10), p.next(8)
		if in.Flags&wire.OneWay != 0 && op >= 3 && op <= 7 {
			continue // it has no streams, and nobody cancels it
		}
		switch op {
		case 0:
			in.Reply(0, nil, message("answer"), true)
			return
		case 1:
			in.Reply(0, nil, message(string(make([]byte, (k+1)*wire.MaxBody))), true)
			return
		case 2:
			msg := NewMessage()
			msg.Write(wire.AppendError(nil, &wire.Error{Code: 2, Message: "failed"}))
			in.Reply(wire.Failed, map[string]string{"k": "v"}, msg, true)
			return
		case 3, 4: // answers that are streams, of small or of large values
			give(ctx, in, k, op == 4)
			return
		case 5:
			if r, err := in.RecvStream(uint8(k)%3 + 1); err == nil {
				for {
					if _, _, err := r.Items(ctx); err != nil {
						break
					}
				}
			}
		case 6:
			if r, err := in.RecvStream(uint8(k)%3 + 1); err == nil {
				r.Items(ctx)
				r.Stop()
			}
		case 7:
			<-ctx.Done()
		case 8:
			q := &Request{Flags: wire.Callback, Call: in.ID(), Arg: uint8(k), Body: message("\x00\x00")}
			call(ctx, in.Conn(), q)
		case 9:
			time.Sleep(time.Duration(k) * time.Second)
		}
	}
}

// give answers with one or two streams, of values that say which they are. The answer says
// how many there will be.
func give(ctx context.Context, in *Incoming, k int, large bool) {
	var streams []*SendStream
	for i := range k%2 + 1 {
		streams = append(streams, in.SendStream(uint8(i+1)))
	}
	stop := context.AfterFunc(ctx, func() {
		for _, s := range streams {
			s.Stop(context.Cause(ctx))
		}
	})
	defer stop()
	n := 5 * k
	if in.Reply(0, nil, message(fmt.Sprintf("%d %d", len(streams), n)), false) != nil {
		return
	}
	for i, s := range streams {
		var record []byte
		if err := sendItems(s, n, large); err != nil && err != ErrStopped {
			record = wire.AppendError(nil, &wire.Error{Code: 1, Message: "cut short"})
		}
		in.CloseStream(s, record, i == len(streams)-1)
	}
}

func sendItems(s *SendStream, n int, large bool) error {
	for i := range n {
		msg := message(fmt.Sprint(i))
		if large {
			msg.Write(make([]byte, wire.MaxBody*(i%3)))
		}
		err := s.Item(msg)
		msg.Release()
		if err != nil {
			return err
		}
	}
	return nil
}

// FuzzConn runs bytes as a program against a live connection: a peer sends frames that
// are right, frames that are nearly so, and bytes, reads or does not, and the connection's
// own side makes calls. The connection must go on reading, send only frames, end when its
// peer has gone, and hold nothing then.
func FuzzConn(f *testing.F) {
	for _, seed := range []string{
		"\x00", "\x01", "\x02", "\x03", "\x07",
		// A named procedure, called to answer, to fail, to stream, to read a stream.
		"\x03\x00\x00\x01\x00\x00\x02\x00\x00",
		"\x03\x00\x00\x01\x00\x00\x02\x02\x00\x01\x01\x00\x02\x01\x07",
		"\x03\x00\x00\x01\x00\x00\x02\x03\x05\x01\x01\x00\x02\x04\x03",
		"\x03\x00\x00\x01\x00\x00\x02\x05\x00\x05\x00\x00\x01\x05hello\x05\x02\x00\x01",
		// A request in parts, cancelled.
		"\x03\x00\x00\x02\x00\x05\x64\x03\x00\x00\x00\x04abcd\x04\x00\x01",
		// The connection's own calls, answered.
		"\x02\x0a\x00\x00\x0a\x01\x01\x06\x00\x00\x03abc\x06\x01\x01\x01x",
		// GOAWAY, PING, raw bytes.
		"\x03\x07\x02\x07\x00\x08\x05\xff\xff\xff\xff\xff",
		// A connection that may be resumed, with too much that is not acknowledged.
		"\x0b\x00\x00\x01\x00\x00\x02\x03\x05\x01\x01\x00\x02\x04\x03\x07\x00\x04\x01\x20",
		"\x03\x00\x00\x0b\x00\x01\x00\x00\x02\x00\x00",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 4096 {
			return
		}
		synctest.Test(t, func(t *testing.T) { fuzzConn(t, &program{b}) })
	})
}

func fuzzConn(t *testing.T, p *program) {
	setup := p.next(16)
	near, far := net.Pipe()
	cfg := config(perform)
	cfg.Dialer = setup&1 != 0
	cfg.MaxStreams = 4
	cfg.Local.MaxCalls = 4
	cfg.Handshake, cfg.KeepAlive = 10*time.Second, 15*time.Second
	if setup&8 != 0 {
		cfg.Local.Resume, cfg.Local.Session, cfg.MaxKept = 1000, testSecret, 20_000
	}
	c := New(near, nil, cfg)
	ran := make(chan error, 1)
	go func() { ran <- c.Run() }()

	read := make(chan bool)
	started := false
	go func() { // ends with the connection
		<-read
		readFrames(t, far)
	}()
	if setup&2 != 0 {
		started = true
		close(read)
	}

	w := &fuzzPeer{t: t, conn: far}
	if setup&4 == 0 {
		w.write([]byte(wire.Preface))
		g := local()
		g.MaxCalls, g.Resume, g.Session = 3, 1000, testSecret
		w.send(wire.Header{Type: wire.Hello}, wire.AppendHello(nil, &g))
	}
	ctx, cancel := context.WithCancel(t.Context())
	var calls sync.WaitGroup
	var own []*Outgoing
	for !p.over() && !w.over {
		w.step(p, c)
		switch p.next(12) {
		case 0:
			calls.Go(func() {
				q := request("")
				q.Meta = map[string]string{"k": "v"}
				converse(ctx, c, q, 1)
			})
		case 1:
			if o, err := c.Start(canceled, request(string(make([]byte, p.next(3)*wire.MaxBody)))); err == nil {
				own = append(own, o)
			}
		case 2:
			if len(own) > 0 {
				own[p.next(len(own))].Abandon(context.Canceled, context.Canceled)
			}
		case 3:
			c.Shutdown(&GoAwayError{Code: wire.CodeUnavailable, Reason: "going"})
		case 4:
			time.Sleep(time.Duration(p.next(20)) * time.Second)
		case 5:
			if !started {
				started = true
				close(read)
			}
		case 6:
			synctest.Wait()
		case 7:
			cancel()
		}
	}
	far.Close()
	if !started {
		close(read)
	}
	if err := <-ran; err == nil && c.Err() == nil {
		t.Error("the connection takes calls though it has ended")
	}
	<-c.Done()
	calls.Wait() // all have been told
	cancel()
	synctest.Wait()
	time.Sleep(time.Hour) // what handlers do regardless
	synctest.Wait()
	if left := counts(c); left != (count{}) {
		t.Errorf("the connection has ended, and holds %+v", left)
	}
}

// canceled has ended, for who does not want to wait.
var canceled = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// readFrames reads what the connection sends, which must be frames.
func readFrames(t *testing.T, conn net.Conn) {
	r := reader{conn: conn, onWait: func() {}, onRead: func(int) {}}
	if r.fill(len(wire.Preface)) != nil {
		return
	}
	r.next(len(wire.Preface))
	for {
		h, n, err := r.peekHeader()
		if _, bad := err.(*ProtocolError); bad {
			t.Errorf("it sent what is no frame: %v", err)
		}
		if err == nil {
			_, _, err = r.body(n)
		}
		if err != nil {
			io.Copy(io.Discard, conn)
			return
		}
		if h.Type == wire.Request && n == 0 {
			t.Error("it sent an empty REQUEST")
		}
	}
}

// fuzzPeer writes to a connection that must not stop reading.
type fuzzPeer struct {
	t    *testing.T
	conn net.Conn
	gen  uint32
	over bool // the connection has ended
}

func (w *fuzzPeer) write(b []byte) {
	w.conn.SetWriteDeadline(time.Now().Add(5 * time.Second)) // more than a connection that is ending takes
	_, err := w.conn.Write(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		w.t.Error("the connection does not read")
	}
	w.over = w.over || err != nil
}

func (w *fuzzPeer) send(h wire.Header, body []byte) {
	w.write(append(wire.AppendHeader(nil, h, len(body)), body...))
}

// step has the peer send what the program says next.
func (w *fuzzPeer) step(p *program, c *Conn) {
	op := p.next(10)
	var h wire.Header
	var body []byte
	id := uint32(p.next(4)) | w.gen<<16
	switch op {
	case 0:
		h = wire.Header{Type: wire.Name, ID: uint32(p.next(4))}
		body = wire.AppendName(nil, "p", "() ()")
	case 1, 2:
		w.gen++
		h = wire.Header{Type: wire.Request, ID: id&0xffff | w.gen<<16}
		head := wire.RequestHead{Number: uint64(p.next(4))}
		if op == 2 {
			h.Flags = wire.More
			head.Total = p.number()
		}
		if extra := p.next(32); extra > 24 {
			h.Flags |= []wire.Flags{wire.OneWay, wire.Callback, wire.Check, wire.HasLimit, wire.HasMeta, wire.Packed, wire.OneWay | wire.Check}[extra-25]
			head.Call, head.Limit, head.Meta = uint32(p.next(256))<<16, time.Duration(p.next(100)), map[string]string{"k": "v"}
		}
		body = wire.AppendRequest(nil, h.Flags, &head)
		if op == 1 {
			body = append(body, p.take(p.next(8))...)
		}
	case 3:
		h = wire.Header{Type: wire.Part, Flags: wire.Flags(p.next(2)) | wire.Flags(p.next(2))<<7, ID: id}
		body = append([]byte{byte(p.next(3))}, make([]byte, p.next(8)*8000)...)
		body = append(body, p.take(p.next(8))...)
	case 4:
		h = wire.Header{Type: wire.Cancel, ID: id}
		body = []byte{byte(p.next(20))}
	case 5:
		types := []wire.Type{wire.Item, wire.Data, wire.Close, wire.Stop, wire.Credit}
		h = wire.Header{Type: types[p.next(len(types))], ID: id, Flags: wire.Flags(p.next(2)) << 7}
		body = []byte{byte(p.next(4))}
		switch h.Type {
		case wire.Item:
			if p.next(3) == 0 {
				h.Flags |= wire.More
				body = wire.AppendTotal(body, p.number())
			} else {
				for range p.next(4) {
					body = wire.AppendBlob(body, make([]byte, p.next(256)*60))
				}
			}
		case wire.Data:
			body = append(body, make([]byte, p.next(256)*250)...)
		case wire.Close:
			if p.next(3) == 0 {
				h.Flags |= wire.Failed
				body = append(body, p.take(p.next(8))...)
			}
			if p.next(2) == 0 {
				h.Flags |= wire.End
			}
		case wire.Credit:
			body = binary.AppendUvarint(body, p.number())
		}
	case 6: // answers, mostly of the ids that calls have
		h = wire.Header{Type: wire.Response, ID: uint32(p.next(3)) | uint32(1+p.next(3))<<16}
		if p.next(2) == 0 {
			h.Flags |= wire.End
		}
		switch p.next(4) {
		case 0:
			h.Flags |= wire.More
			body = wire.AppendTotal(nil, p.number())
		case 1:
			h.Flags |= wire.Failed
			body = wire.AppendError(nil, &wire.Error{Code: 2, Message: "no"})
		default:
			body = p.take(p.next(8))
		}
	case 7:
		switch p.next(5) {
		case 4:
			h, body = wire.Header{Type: wire.Ack}, wire.AppendAck(nil, p.number()%40_000)
		case 0:
			h, body = wire.Header{Type: wire.Ping}, make([]byte, 8)
		case 1:
			h, body = wire.Header{Type: wire.Pong}, make([]byte, 8)
		case 2:
			h, body = wire.Header{Type: wire.GoAway}, wire.AppendGoAway(nil, 14, "going")
		case 3:
			g := local()
			h, body = wire.Header{Type: wire.Hello}, wire.AppendHello(nil, &g)
		}
	case 8:
		w.write(p.take(p.next(64)))
		return
	case 9: // any frame at all
		h = wire.Header{Type: wire.Type(p.next(18)), Flags: wire.Flags(p.next(256)), ID: id}
		body = p.take(p.next(64))
	}
	if len(body) > wire.MaxBody {
		body = body[:wire.MaxBody]
	}
	w.send(h, body)
}

// converse makes a call as package yonder does: it sends streams while it waits for the
// answer, and reads those among the results, some of them not to their end. It returns
// what is wrong with those that end in order.
func converse(ctx context.Context, c *Conn, q *Request, streams int) (wrong error) {
	o, err := c.Start(ctx, q)
	if err != nil {
		return nil
	}
	if q.Flags&wire.OneWay != 0 {
		o.Forget()
		return nil
	}
	var producers sync.WaitGroup
	defer producers.Wait()
	for i := range streams {
		p := o.SendStream(uint8(i + 1))
		producers.Go(func() {
			if o.Sent(p) {
				sendItems(p, 20, i == 1)
				o.CloseStream(p, nil)
			}
		})
	}
	if err := o.Wait(ctx); err != nil {
		return nil
	}
	stop := context.AfterFunc(ctx, func() { o.Abandon(ctx.Err(), ctx.Err()) })
	defer stop()
	var results, n int
	if !o.Failed {
		fmt.Sscan(string(o.Body), &results, &n)
	}
	o.ReleaseBody()
	results = min(results, 2)
	for i := range results {
		r, err := o.RecvStream(uint8(i + 1))
		if err != nil {
			o.Abandon(context.Canceled, context.Canceled)
			break
		}
		if n%4 == 3 { // leaves early
			r.Items(context.Background())
			r.Stop()
			continue
		}
		if err := checkItems(r, n); err != nil {
			wrong = err
		}
	}
	if !o.Ended() && results == 0 {
		o.Abandon(context.Canceled, context.Canceled)
	}
	return wrong
}

// checkItems reads a stream of n values that sendItems sends.
func checkItems(r *RecvStream, n int) error {
	got := 0
	for {
		data, large, err := r.Items(context.Background())
		if err == io.EOF && got != n {
			return fmt.Errorf("a stream of %d values ended in order after %d", n, got)
		}
		if err != nil {
			return nil
		}
		for len(data) > 0 {
			item := data
			data = nil
			if !large {
				if item, data, err = wire.CutItem(item); err != nil {
					return err
				}
			}
			if want := fmt.Sprint(got); !bytes.HasPrefix(item, []byte(want)) {
				return fmt.Errorf("value %d is %.10q", got, item)
			}
			got++
		}
	}
}

// FuzzPair runs bytes as a program of calls between two connections of ours. Neither may
// find fault with the other, streams that end in order must be whole, and when all calls
// have ended, nothing of them may be left.
func FuzzPair(f *testing.F) {
	for _, seed := range []string{
		"\x00\x00\x02\x00\x00", "\x00\x00\x02\x03\x05\x01\x01\x04\x04\x07",
		"\x00\x02\x04\x05\x00\x00\x00\x02\x00\x03\x00", "\x00\x00\x02\x07\x00\x04\x00\x05\x05",
		"\x01\x01\x02\x08\x00\x06\x00\x00\x00\x02\x04\x07\x02\x00",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1024 {
			return
		}
		synctest.Test(t, func(t *testing.T) { fuzzPair(t, &program{b}) })
	})
}

func fuzzPair(t *testing.T, p *program) {
	near, far := net.Pipe()
	cfg := config(perform)
	cfg.MaxStreams = 20
	cfg.Local.MaxCalls = 5
	cfg.Handshake, cfg.KeepAlive = 10*time.Second, 15*time.Second
	var conns [2]*Conn
	var errs [2]error
	var running sync.WaitGroup
	for i, conn := range []net.Conn{near, far} {
		cfg.Dialer = i == 0
		conns[i] = New(conn, nil, cfg)
		running.Go(func() { errs[i] = conns[i].Run() })
	}
	var calls sync.WaitGroup
	var cancels []context.CancelFunc
	over := false // of one side's own will
	for !p.over() {
		c := conns[p.next(2)]
		switch p.next(8) {
		case 0, 1, 2:
			k := p.next(4)
			q := request(string(p.take(2 * p.next(8))))
			if k == 3 {
				q.Body.Write(make([]byte, 2*wire.MaxBody)) // answers "answer", if nothing else is said
			}
			if p.next(16) == 0 {
				q.Flags, k = wire.OneWay, 0
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancels = append(cancels, cancel)
			calls.Go(func() {
				if err := converse(ctx, c, q, k%3); err != nil {
					t.Error(err)
				}
			})
		case 3:
			if len(cancels) > 0 {
				cancels[p.next(len(cancels))]()
			}
		case 4:
			time.Sleep(time.Duration(p.next(8)) * time.Second)
		case 5:
			synctest.Wait()
		case 6:
			if p.next(8) == 0 {
				over = true
				c.Shutdown(&GoAwayError{Code: wire.CodeUnavailable, Reason: "going"})
			}
		case 7:
			if p.next(32) == 0 {
				over = true
				c.Close()
			}
		}
	}
	time.Sleep(time.Hour)
	for _, cancel := range cancels {
		cancel()
	}
	calls.Wait()
	time.Sleep(time.Hour)
	synctest.Wait()
	checkIdle(t, conns[:]...)
	for i, c := range conns {
		if err := c.Err(); err != nil && !over {
			t.Errorf("connection %d ended: %v", i, err)
		}
	}
	conns[0].Close()
	conns[1].Close()
	running.Wait()
	for i, err := range errs {
		if isViolation(err) {
			t.Errorf("connection %d: %v", i, err)
		}
	}
}

// FuzzResume is FuzzPair over a connection whose transports are lost where the input says: nothing
// that is above them may show that.
func FuzzResume(f *testing.F) {
	for _, seed := range []string{
		"\x00\x00\x00\x02\x00\x00", "\x20\x00\x00\x02\x03\x05\x01\x01\x04\x04\x07\x30\x05",
		"\x05\x00\x02\x04\x05\x00\x00\x00\x02\x00\x03\x00", "\x80\x00\x00\x02\x07\x00\x04\x00\x05\x05",
		"\xff\x01\x01\x02\x08\x00\x06\x00\x00\x00\x02\x04\x07\x02\x00",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1024 {
			return
		}
		synctest.Test(t, func(t *testing.T) { fuzzResume(t, &program{b}) })
	})
}

func fuzzResume(t *testing.T, p *program) {
	n := &network{rand: rand.New(rand.NewPCG(uint64(p.next(256)), 1)), most: 100 << p.next(11)}
	cfg := config(perform)
	cfg.MaxStreams = 20
	cfg.Local.MaxCalls = 5
	cfg.MaxKept = 1 << (12 + p.next(8))
	cfg.KeepAlive = 15 * time.Second
	client, server := resumable(t, n, cfg, cfg)
	conns := [2]*Conn{client, server}
	var calls sync.WaitGroup
	var cancels []context.CancelFunc
	for !p.over() {
		c := conns[p.next(2)]
		switch p.next(7) {
		case 0, 1, 2:
			k := p.next(4)
			q := request(string(p.take(2 * p.next(8))))
			if k == 3 {
				q.Body.Write(make([]byte, 2*wire.MaxBody))
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancels = append(cancels, cancel)
			calls.Go(func() {
				if err := converse(ctx, c, q, k%3); err != nil {
					t.Error(err)
				}
			})
		case 3:
			if len(cancels) > 0 {
				cancels[p.next(len(cancels))]()
			}
		case 4:
			time.Sleep(time.Duration(p.next(8)) * time.Millisecond)
		case 5:
			synctest.Wait()
		case 6:
			n.cut()
		}
	}
	time.Sleep(time.Second)
	n.mu.Lock()
	n.most = 0 // from now on none is lost
	n.mu.Unlock()
	n.cut()
	time.Sleep(time.Hour)
	for _, cancel := range cancels {
		cancel()
	}
	calls.Wait()
	time.Sleep(time.Hour)
	synctest.Wait()
	checkIdle(t, conns[:]...)
	for i, c := range conns {
		if err := c.Err(); err != nil {
			t.Errorf("connection %d ended: %v", i, err)
		}
	}
}
