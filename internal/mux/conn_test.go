package mux

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/yonder-rpc/yonder/internal/wire"
)

func TestCall(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := pair(t, config(nobody), config(echo))
		for _, size := range []int{0, 1, 1000, wire.MaxBody - 2, wire.MaxBody, 3 * wire.MaxBody, 1 << 20} {
			want := strings.Repeat("x", size)
			got, err := call(t.Context(), a, request(want))
			if err != nil || got != want {
				t.Fatalf("%d bytes: got %d, %v", size, len(got), err)
			}
		}
		synctest.Wait()
		checkIdle(t, a, b)
	})
}

// Check stands alone: what else would be asked of the callee makes no sense.
func TestCheckAlone(t *testing.T) {
	for _, with := range []wire.Flags{wire.Callback, wire.OneWay} {
		bubble(t, func(t *testing.T) {
			c, p := against(t, config(echo), true, true)
			p.name()
			p.send(wire.Header{Type: wire.Request, Flags: wire.Check | with, ID: 1 << 16}, make([]byte, 5))
			<-c.Done()
			if err := c.Err(); !isViolation(err) {
				t.Errorf("with %#x: %v", with, err)
			}
		})
	}
}

// TestShortStream is a regression: what had arrived of a stream was forgotten when the
// callee's last frame came before the caller asked for the stream.
func TestShortStream(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := pair(t, config(nobody), config(func(_ context.Context, in *Incoming) {
			s := in.SendStream(1)
			in.Reply(0, nil, message(""), false)
			s.Item(message("one"))
			s.Item(message("two"))
			in.CloseStream(s, nil, true)
		}))
		o, err := a.Start(t.Context(), request(""))
		if err != nil {
			t.Fatal(err)
		}
		if err := o.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if !o.Ended() {
			t.Fatal("the call has not ended")
		}
		r, err := o.RecvStream(1)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"one", "two"}, items(t, r)); diff != "" {
			t.Error(diff)
		}
		checkIdle(t, a, b)
	})
}

// items reads a stream to its end.
func items(t *testing.T, r *RecvStream) (list []string) {
	t.Helper()
	for {
		data, large, err := r.Items(t.Context())
		if err == io.EOF {
			return list
		}
		if err != nil {
			t.Errorf("after %q: %v", list, err)
			return list
		}
		for len(data) > 0 {
			item := data
			data = nil
			if !large {
				if item, data, err = wire.CutItem(item); err != nil {
					t.Fatal(err)
				}
			}
			list = append(list, string(item))
		}
	}
}

// TestPartsOfEndedCall is a regression: a value in parts whose call ended before it was
// complete went on counting, and the 17th closed the connection.
func TestPartsOfEndedCall(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, p := against(t, config(func(ctx context.Context, in *Incoming) {
			in.RecvStream(1)
			time.Sleep(time.Second)
			answer(in, "")
		}), true, true)
		p.name()
		for i := range uint32(2 * maxParts) {
			id := (i + 1) << 16
			p.request(id, 0, 0, "")
			p.send(wire.Header{Type: wire.Item, Flags: wire.More, ID: id}, wire.AppendTotal([]byte{1}, 1000))
			p.send(wire.Header{Type: wire.Part, Flags: wire.More, ID: id}, []byte{1, 'x'})
			time.Sleep(2 * time.Second)
			p.send(wire.Header{Type: wire.Part, Flags: wire.More, ID: id}, []byte{1, 'x'}) // on its way
		}
		synctest.Wait()
		if n := len(p.received(wire.Response)); n != 2*maxParts || c.Err() != nil {
			t.Errorf("%d answers, and the connection: %v", n, c.Err())
		}
		checkIdle(t, c)
	})
}

// TestGreeted is a regression: of a connection that was over right after HELLO it was left to chance
// whether it had been greeted, and why it takes no calls was lost.
func TestGreeted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, p := against(t, config(nobody), true, true)
		p.send(wire.Header{Type: wire.GoAway}, wire.AppendGoAway(nil, wire.CodeUnavailable, "full"))
		<-c.Done()
		for range 20 {
			if err := c.Greeted(); err != nil {
				t.Fatal(err)
			}
		}
		var gone *GoAwayError
		if _, err := c.Start(t.Context(), request("")); !errors.As(err, &gone) || gone.Reason != "full" {
			t.Errorf("a call: %v", err)
		}
		near, far := net.Pipe()
		far.Close()
		if err := start(t, near, config(nobody)).Greeted(); err == nil {
			t.Error("greeted by nobody")
		}
	})
}

// TestCutValue is a regression: a stream whose call was over in the middle of a value in parts was
// closed without an error, and its consumer took what it had got for all.
func TestCutValue(t *testing.T) {
	for cause, code := range map[error]uint8{context.Canceled: wire.CodeCanceled, context.DeadlineExceeded: wire.CodeDeadline} {
		bubble(t, func(t *testing.T) {
			c, p := against(t, config(func(ctx context.Context, in *Incoming) {
				s := in.SendStream(1)
				in.Reply(0, nil, message(""), false)
				time.AfterFunc(time.Second, func() { s.Stop(cause) })
				if err := s.Item(message(strings.Repeat("x", 3<<20))); err != cause { // the peer takes no more than 1 MiB
					t.Errorf("the value ended with %v", err)
				}
				in.CloseStream(s, nil, true)
			}), true, true)
			p.name()
			p.request(1<<16, 0, 0, "")
			time.Sleep(2 * time.Second)
			closes := p.received(wire.Close)
			if len(closes) == 0 || closes[0].Flags&wire.Failed == 0 {
				t.Fatalf("%v: closed by %+v", cause, closes)
			}
			if e, err := wire.ParseError(closes[0].body[1:]); err != nil || e.Code != code {
				t.Errorf("%v: closed with %+v, %v", cause, e, err)
			}
			checkIdle(t, c)
		})
	}
}

// TestStoppedValue is a regression: a value in parts whose consumer left was dropped
// silently, so that the next message in parts was one too many for the peer.
func TestStoppedValue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		near, far := net.Pipe()
		c := start(t, near, config(func(_ context.Context, in *Incoming) {
			s := in.SendStream(1)
			in.Reply(0, nil, message(""), false)
			err := s.Item(message(strings.Repeat("x", 10*wire.MaxBody)))
			if err != ErrStopped {
				t.Errorf("Item returned %v", err)
			}
			time.Sleep(time.Second) // in the user's iterator
			in.CloseStream(s, nil, true)
		}))
		p := &peer{tb: t, conn: far}
		gate := &gated{Conn: far, open: make(chan struct{}, 100)}
		p.conn = gate
		var wg sync.WaitGroup
		wg.Go(p.read)
		defer wg.Wait()
		defer far.Close()
		gate.open <- struct{}{} // the preface and HELLO
		p.write([]byte(wire.Preface))
		g := local()
		p.send(wire.Header{Type: wire.Hello}, wire.AppendHello(nil, &g))
		p.name()
		p.request(1<<16, 0, 0, "")
		gate.open <- struct{}{} // RESPONSE
		gate.open <- struct{}{} // ITEM
		synctest.Wait()
		p.send(wire.Header{Type: wire.Stop, ID: 1 << 16}, []byte{1})
		synctest.Wait()
		close(gate.open)
		synctest.Wait()
		closes := p.received(wire.Close)
		if len(closes) != 1 || closes[0].Flags != wire.FromCallee {
			t.Errorf("before the iterator has returned: %+v; want one CLOSE, not the end", closes)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if closes := p.received(wire.Close); len(closes) != 2 || closes[1].Flags != wire.FromCallee|wire.End {
			t.Errorf("in the end: %+v", closes)
		}
		if n := len(p.received(wire.Part)); n > 2*partsPerWrite {
			t.Errorf("%d parts were sent", n)
		}
		checkIdle(t, c)
	})
}

// gated is a connection that is read once each time that open receives.
type gated struct {
	net.Conn
	open chan struct{}
}

func (g *gated) Read(b []byte) (int, error) {
	<-g.open
	return g.Conn.Read(b)
}

// TestTooLargeValue is a regression: nobody told the producer of a value beyond the
// limit, which waited for credit for ever.
func TestTooLargeValue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, p := against(t, config(nobody), true, true)
		o, err := c.Start(t.Context(), request(""))
		if err != nil {
			t.Fatal(err)
		}
		p.send(wire.Header{Type: wire.Response, ID: o.ID()}, nil)
		p.send(wire.Header{Type: wire.Item, Flags: wire.More | wire.FromCallee, ID: o.ID()}, wire.AppendTotal([]byte{1}, 1<<40))
		synctest.Wait()
		if stops := p.received(wire.Stop); len(stops) != 1 || stops[0].ID != o.ID() {
			t.Fatalf("STOPs: %+v", stops)
		}
		r, err := o.RecvStream(1)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = r.Items(t.Context())
		if _, ok := errors.AsType[*TooLargeError](err); !ok {
			t.Errorf("the consumer gets %v", err)
		}
		p.send(wire.Header{Type: wire.Close, Flags: wire.End | wire.FromCallee, ID: o.ID()}, []byte{1})
		synctest.Wait()
		checkIdle(t, c)
	})
}

// TestRefusedAnswer is a regression: the callee of an answer beyond a limit was not told
// that nobody would read the streams that belong to it.
func TestRefusedAnswer(t *testing.T) {
	for _, parts := range []bool{false, true} {
		bubble(t, func(t *testing.T) {
			cfg := config(nobody)
			cfg.Local.MaxMessage = 1000
			c, p := against(t, cfg, true, true)
			o, err := c.Start(t.Context(), request(""))
			if err != nil {
				t.Fatal(err)
			}
			if parts {
				p.send(wire.Header{Type: wire.Response, Flags: wire.More, ID: o.ID()}, wire.AppendTotal(nil, 1001))
			} else {
				p.send(wire.Header{Type: wire.Response, ID: o.ID()}, make([]byte, 1001))
			}
			err = o.Wait(t.Context())
			if _, ok := errors.AsType[*TooLargeError](err); !ok {
				t.Errorf("the caller gets %v", err)
			}
			synctest.Wait()
			if cancels := p.received(wire.Cancel); len(cancels) != 1 || cancels[0].ID != o.ID() || cancels[0].body[0] != wire.CodeExhausted {
				t.Errorf("in parts: %v: CANCELs: %+v", parts, cancels)
			}
			if parts {
				p.send(wire.Header{Type: wire.Response, Flags: wire.Failed | wire.End, ID: o.ID()}, nil)
			} else {
				p.send(wire.Header{Type: wire.Close, Flags: wire.FromCallee | wire.End, ID: o.ID()}, []byte{1})
			}
			synctest.Wait()
			checkIdle(t, c)
		})
	}
}

// TestTooManyStreams is a regression: a callee whose streams are more than the caller
// reads was not told, and its call stayed for ever.
func TestTooManyStreams(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cfg := config(nobody)
		cfg.MaxStreams = 2
		a, b := pair(t, cfg, config(func(ctx context.Context, in *Incoming) {
			var streams []*SendStream
			for i := range uint8(3) {
				streams = append(streams, in.SendStream(i+1))
			}
			in.Reply(0, nil, message(""), false)
			for i, s := range streams {
				for s.Item(message("x")) == nil {
				}
				in.CloseStream(s, nil, i == 2)
			}
		}))
		o, err := a.Start(t.Context(), request(""))
		if err != nil {
			t.Fatal(err)
		}
		if err := o.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		for i := range uint8(3) {
			if r, err := o.RecvStream(i + 1); err == nil {
				r.Stop()
			} else if _, ok := errors.AsType[*TooManyStreamsError](err); !ok {
				t.Errorf("stream %d: %v", i, err)
			}
		}
		synctest.Wait()
		checkIdle(t, a, b)
	})
}

// TestStopBeforeStream: a consumer may leave before the producer has begun.
func TestStopBeforeStream(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, p := against(t, config(nobody), true, true)
		o, err := c.Start(t.Context(), request(""))
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			for channel := range 255 {
				p.send(wire.Header{Type: wire.Stop, Flags: wire.FromCallee, ID: o.ID()}, []byte{uint8(channel + 1)})
				p.send(wire.Header{Type: wire.Credit, Flags: wire.FromCallee, ID: o.ID()}, wire.AppendCredit(nil, uint8(channel+1), 1))
			}
		}
		synctest.Wait()
		if len(o.streams.send) > 0 || len(o.streams.stops) != 255 {
			t.Errorf("%d streams made, %d stops kept", len(o.streams.send), len(o.streams.stops))
		}
		if err := o.SendStream(7).Item(message("x")); err != ErrStopped {
			t.Errorf("Item returned %v, want ErrStopped", err)
		}
	})
}

// TestShutdownBeforeHello is a regression: HELLO stopped the timer that ends a
// connection whose peer does not close it.
func TestShutdownBeforeHello(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cfg := config(nobody)
		cfg.Handshake = time.Minute
		c, p := against(t, cfg, false, true)
		synctest.Wait()
		c.Shutdown(&GoAwayError{Code: wire.CodeUnavailable, Reason: "going"})
		p.write([]byte(wire.Preface))
		g := local()
		p.send(wire.Header{Type: wire.Hello}, wire.AppendHello(nil, &g))
		time.Sleep(maxLinger)
		synctest.Wait()
		select {
		case <-c.Done():
		default:
			t.Error("the connection is still there")
		}
	})
}

// TestDrain: a connection that drains lets the calls in flight make theirs, refuses
// others at once, and ends with the last.
func TestDrain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		proceed := make(chan struct{})
		var peerErr, callbackErr error
		server := func(ctx context.Context, in *Incoming) {
			<-proceed
			_, peerErr = call(ctx, in.Conn(), request("peer"))
			_, callbackErr = call(ctx, in.Conn(), &Request{Flags: wire.Callback, Call: in.ID(), Body: message("callback")})
			answer(in, "done")
		}
		a, b := pair(t, config(echo), config(server))
		o, err := a.Start(t.Context(), request(""))
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		b.Shutdown(&GoAwayError{Code: wire.CodeUnavailable, Reason: "going"})
		synctest.Wait()
		_, err = call(t.Context(), a, request(""))
		if e, ok := errors.AsType[*GoAwayError](err); !ok || e.Reason != "going" {
			t.Errorf("a new call: %v", err)
		}
		close(proceed)
		if err := o.Wait(t.Context()); err != nil || string(o.Body) != "done" {
			t.Errorf("the call in flight: %q, %v", o.Body, err)
		}
		if peerErr != nil || callbackErr != nil {
			t.Errorf("what its handler called: %v, %v", peerErr, callbackErr)
		}
		<-a.Done()
		<-b.Done()
		if _, err := call(t.Context(), b, request("")); err == nil {
			t.Error("a call on a connection that has drained succeeds")
		}
	})
}

// TestCrossing: what crosses GOAWAY is refused, and the answer says that it has not been run; so does
// one to a request that is too large.
func TestCrossing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		served := 0
		proceed := make(chan struct{})
		cfg := config(func(_ context.Context, in *Incoming) {
			served++
			<-proceed
			answer(in, "done")
		})
		c, p := against(t, cfg, true, true)
		p.send(wire.Header{Type: wire.Name}, wire.AppendName(nil, "x", ""))
		p.send(wire.Header{Type: wire.Request, ID: 0x10000}, wire.AppendRequest(nil, 0, &wire.RequestHead{}))
		p.send(wire.Header{Type: wire.Request, ID: 0x10001, Flags: wire.More}, wire.AppendRequest(nil, wire.More, &wire.RequestHead{Total: cfg.Local.MaxMessage + 1}))
		synctest.Wait()
		c.Shutdown(&GoAwayError{Code: wire.CodeUnavailable, Reason: "going"})
		p.send(wire.Header{Type: wire.Request, ID: 0x10002}, wire.AppendRequest(nil, 0, &wire.RequestHead{}))
		synctest.Wait()
		close(proceed)
		synctest.Wait()
		var got []string
		for _, f := range p.received(wire.Response) {
			text := "done"
			if f.Flags&wire.Failed != 0 {
				e, err := wire.ParseError(f.body)
				if err != nil {
					t.Fatal(err)
				}
				text = fmt.Sprint(e.Code, " ", e.Message, " ", e.Names)
			}
			got = append(got, fmt.Sprintf("%#x %s", f.ID, text))
		}
		want := []string{
			"0x10001 8 request of 4194305 bytes is larger than the limit of 4194304 [yonder.unrun]",
			"0x10002 14 going [yonder.unrun]",
			"0x10000 done",
		}
		if diff := cmp.Diff(want, got); diff != "" || served != 1 {
			t.Errorf("%d served, -want +got:\n%s", served, diff)
		}
	})
}

// TestNumbers is a regression: procedures had the same numbers on every connection, so
// that a client with many could not use a new connection's small ones.
func TestNumbers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var names []string
		server := config(func(_ context.Context, in *Incoming) {
			names = append(names, in.Name.Name)
			answer(in, "")
		})
		server.Local.MaxNames = 2
		a, _ := pair(t, config(nobody), server)
		for _, index := range []uint32{50000, 7, 50000, 7} {
			q := &Request{Ref: &Ref{Index: index, Name: fmt.Sprint(index)}, Body: message("")}
			if _, err := call(t.Context(), a, q); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff([]string{"50000", "7", "50000", "7"}, names); diff != "" {
			t.Error(diff)
		}
		_, err := call(t.Context(), a, &Request{Ref: &Ref{Index: 1, Name: "1"}, Body: message("")})
		if err != ErrTooManyNames {
			t.Errorf("the third procedure: %v", err)
		}
		if _, err := call(t.Context(), a, &Request{Ref: &Ref{Index: 7, Name: "7"}, Body: message("")}); err != nil {
			t.Errorf("after that: %v", err)
		}
	})
}

// TestBeforeHello: calls that may be beyond limits nobody has told yet wait for HELLO;
// the metadata of the first call on a connection was refused.
func TestBeforeHello(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, p := against(t, config(nobody), false, true)
		q := request("")
		q.Meta = map[string]string{"k": strings.Repeat("v", 10<<10)}
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := c.Start(t.Context(), q); err != nil {
				t.Error(err)
			}
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Start(ctx, &Request{Ref: procedure, Meta: q.Meta, Body: message("")}); err != context.DeadlineExceeded {
			t.Errorf("a caller who gives up gets %v", err)
		}
		synctest.Wait()
		if n := len(p.received(wire.Request)); n > 0 {
			t.Fatalf("%d requests before HELLO", n)
		}
		p.write([]byte(wire.Preface))
		g := local()
		p.send(wire.Header{Type: wire.Hello}, wire.AppendHello(nil, &g))
		wg.Wait()
		synctest.Wait()
		if n := len(p.received(wire.Request)); n != 1 {
			t.Errorf("%d requests after HELLO", n)
		}
	})
}

// TestOneCallBeforeHello: the limit on calls is not known yet, but it is at least one.
func TestOneCallBeforeHello(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, p := against(t, config(nobody), false, true)
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() { c.Start(t.Context(), request("")) })
		}
		synctest.Wait()
		if n := len(p.received(wire.Request)); n != 1 {
			t.Errorf("%d requests before HELLO, want 1", n)
		}
		p.write([]byte(wire.Preface))
		g := local()
		g.MaxCalls = 3
		p.send(wire.Header{Type: wire.Hello}, wire.AppendHello(nil, &g))
		synctest.Wait()
		if n := len(p.received(wire.Request)); n != 3 {
			t.Errorf("%d requests after HELLO, want 3", n)
		}
		c.Close()
		wg.Wait()
	})
}

// TestWaitInOrder: calls beyond the peer's limit go out in the order of arrival, and one
// whose caller gives up while it waits leaves no gap.
func TestWaitInOrder(t *testing.T) {
	for _, queue := range []bool{false, true} {
		t.Run(fmt.Sprint("queue ", queue), func(t *testing.T) { testWaitInOrder(t, queue) })
	}
}

func testWaitInOrder(t *testing.T, queue bool) {
	bubble(t, func(t *testing.T) {
		server := config(echo)
		server.Local.MaxCalls = 1
		release := make(chan struct{})
		var order []string
		server.Handler = serve(func(_ context.Context, in *Incoming) {
			order = append(order, string(in.Body))
			<-release
			answer(in, "")
		})
		a, b := pair(t, config(nobody), server)
		var wg sync.WaitGroup
		give, cancel := context.WithCancel(t.Context())
		for i := range 5 {
			ctx := t.Context()
			if i == 2 {
				ctx = give
			}
			wg.Go(func() {
				q := request(fmt.Sprint(i))
				q.Queue = queue
				_, err := call(ctx, a, q)
				if (i == 2) != (err != nil) {
					t.Errorf("call %d: %v", i, err)
				}
			})
			synctest.Wait()
		}
		if got := counts(a).Waiters; got != 4 {
			t.Errorf("%d calls wait, want 4", got)
		}
		cancel()
		synctest.Wait()
		close(release)
		wg.Wait()
		if diff := cmp.Diff([]string{"0", "1", "3", "4"}, order); diff != "" {
			t.Error(diff)
		}
		synctest.Wait()
		checkIdle(t, a, b)
	})
}

// TestQueued: a call that waits in the queue when the peer wants no more has not been heard of,
// and a deadline goes on while a call waits.
func TestQueued(t *testing.T) {
	bubble(t, func(t *testing.T) {
		server := config(nobody)
		server.Local.MaxCalls = 1
		release := make(chan struct{})
		server.Handler = serve(func(ctx context.Context, in *Incoming) {
			<-release
			answer(in, fmt.Sprint(string(in.Body), " ", time.Until(in.Deadline)))
		})
		a, b := pair(t, config(nobody), server)
		start := func(text string) *Outgoing {
			q := request(text)
			q.Queue, q.Deadline = true, time.Now().Add(time.Minute)
			o, err := a.Start(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			return o
		}
		first := start("first")
		synctest.Wait()
		second, third := start("second"), start("third")
		time.Sleep(time.Second)
		release <- struct{}{}
		if err := first.Wait(t.Context()); err != nil {
			t.Error(err)
		}
		release <- struct{}{}
		if err := second.Wait(t.Context()); err != nil || string(second.Body) != "second 59s" {
			t.Errorf("the second call: %q, %v", second.Body, err)
		}
		synctest.Wait()
		fourth := start("fourth")
		b.Shutdown(&GoAwayError{Code: wire.CodeUnavailable, Reason: "going"})
		synctest.Wait()
		if err := fourth.Wait(t.Context()); err == nil || !fourth.Unsent() {
			t.Errorf("the fourth call: %v, unsent: %v", err, fourth.Unsent())
		}
		release <- struct{}{}
		if err := third.Wait(t.Context()); err != nil || third.Unsent() {
			t.Errorf("the third call: %v, unsent: %v", err, third.Unsent())
		}
	})
}

// TestReplyReturns is a regression: a handler that had become the flusher wrote for the
// others as long as there was something to write, and its own streams waited.
func TestReplyReturns(t *testing.T) {
	bubble(t, func(t *testing.T) {
		near, far := net.Pipe()
		replied := make(chan struct{})
		busy := &busyConn{Conn: near}
		c := New(busy, nil, config(func(_ context.Context, in *Incoming) {
			busy.on.Store(true)
			answer(in, "")
			close(replied)
		}))
		busy.c = c
		var wg sync.WaitGroup
		wg.Go(func() { c.Run() })
		wg.Go(func() { io.Copy(io.Discard, far) })
		p := &peer{tb: t, conn: far}
		p.write([]byte(wire.Preface))
		g := local()
		p.send(wire.Header{Type: wire.Hello}, wire.AppendHello(nil, &g))
		p.name()
		synctest.Wait()
		p.request(1<<16, 0, 0, "")
		select {
		case <-replied:
		case <-time.After(time.Second): // each write takes a millisecond
			t.Error("Reply goes on writing for others")
		}
		busy.on.Store(false)
		c.Close()
		far.Close()
		wg.Wait()
		time.Sleep(time.Millisecond) // the last write
	})
}

// TestSlowPeer is a regression: a peer that reads, but slowly, was taken for dead while
// one large write was under way.
func TestSlowPeer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cfg := config(nobody)
		cfg.KeepAlive = 15 * time.Second
		cfg.Handshake = cfg.KeepAlive
		c, p := against(t, cfg, true, false)
		c.w.mu.Lock()
		for range 100 {
			c.w.frameLocked(wire.Header{Type: wire.Response, ID: 1}, nil, make([]byte, wire.MaxBody))
		}
		c.w.mu.Unlock()
		buf := make([]byte, 16<<10)
		left := 100 * wire.MaxBody
		for left > 0 {
			time.Sleep(500 * time.Millisecond)
			n, err := io.ReadFull(p.conn, buf)
			left -= n
			if err != nil {
				t.Fatalf("with %d bytes left: %v, %v", left, err, c.Err())
			}
		}
		if c.Err() != nil {
			t.Error(c.Err())
		}
	})
}

// TestStuckPeer: one that does not read at all is given up.
func TestStuckPeer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cfg := config(nobody)
		cfg.KeepAlive = 15 * time.Second
		cfg.Handshake = cfg.KeepAlive
		c, p := against(t, cfg, true, false)
		var err error
		for range 10 { // it talks
			time.Sleep(5 * time.Second)
			if err = p.send(wire.Header{Type: wire.Pong}, make([]byte, 8)); err != nil {
				break
			}
		}
		if _, ok := errors.AsType[*LostError](c.Err()); !ok || err == nil {
			t.Errorf("the connection: %v; the peer's write: %v", c.Err(), err)
		}
	})
}

// TestUnreadAnswers: a peer that goes on calling without reading the answers is cut off
// when the bound on them is reached, and not before.
func TestUnreadAnswers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cfg := config(echo)
		cfg.Local.MaxCalls = 8
		c, p := against(t, cfg, true, false)
		p.name()
		most := 2*int(cfg.Local.MaxCalls) + 64
		for i := range uint32(1000) {
			p.request(i<<16, 0, 0, "x") // in the same slot: the call before it has ended, but for its answer
			synctest.Wait()
			if n := counts(c).Ends; n > most+1 {
				t.Fatalf("%d answers wait to be read", n)
			}
			if c.Err() != nil {
				if int(i) < most {
					t.Errorf("cut off after %d calls", i)
				}
				break
			}
		}
		time.Sleep(time.Second) // in which GOAWAY might be read
		synctest.Wait()
		if err := c.Err(); !isViolation(err) || !strings.Contains(err.Error(), "without reading them") {
			t.Errorf("the connection: %v", err)
		}
	})
}

// TestMemoryOfParts: announcing large messages takes no memory, and sending a little of
// them little.
func TestMemoryOfParts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, p := against(t, config(nobody), true, true)
		p.name()
		for i := range uint32(maxParts) {
			id := 1<<16 + i
			p.request(id, wire.More, 1<<20, "")
			p.send(wire.Header{Type: wire.Part, Flags: wire.More, ID: id}, []byte{0, 'x'})
		}
		synctest.Wait()
		c.mu.Lock()
		defer c.mu.Unlock()
		held := 0
		for _, in := range c.calls {
			for _, p := range in.arrives.pieces {
				held += cap(p)
			}
		}
		if held > 16*maxParts {
			t.Errorf("%d bytes are held for %d that have come", held, maxParts)
		}
	})
}

// TestGoexit is a regression: a handler that ended its goroutine between the answer and
// the end of its streams made a second answer, for which the caller closed the
// connection.
func TestGoexit(t *testing.T) {
	for _, when := range []string{"before the answer", "before the end"} {
		t.Run(when, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				a, b := pair(t, config(nobody), config(func(_ context.Context, in *Incoming) {
					if when == "before the end" {
						in.SendStream(3)
						in.Reply(0, nil, message(""), false)
					}
					runtime.Goexit()
				}))
				o, err := a.Start(t.Context(), request(""))
				if err != nil {
					t.Fatal(err)
				}
				if err := o.Wait(t.Context()); err != nil {
					t.Fatal(err)
				}
				if o.Failed != (when == "before the answer") {
					t.Errorf("Failed is %v", o.Failed)
				}
				synctest.Wait()
				if !o.Ended() || a.Err() != nil {
					t.Errorf("ended: %v, connection: %v", o.Ended(), a.Err())
				}
				checkIdle(t, a, b)
			})
		})
	}
}

// TestNoneWaits: calls that come together are all served, although each handler waits for
// all others; and those that come while the handlers wait, too.
func TestNoneWaits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const n = 50
		var begun sync.WaitGroup
		begun.Add(2 * n)
		c, p := against(t, config(func(ctx context.Context, in *Incoming) {
			begun.Done()
			begun.Wait()
			echo(ctx, in)
		}), true, true)
		p.name()
		for i := range uint32(2 * n) {
			if i == n {
				synctest.Wait()
			}
			p.request(1<<16|i, 0, 0, "")
		}
		synctest.Wait()
		if got := len(p.received(wire.Response)); got != 2*n {
			t.Errorf("%d answers, want %d", got, 2*n)
		}
		if got := len(c.workers.idle); got > 2*n {
			t.Errorf("%d workers for %d calls", got, 2*n)
		}
	})
}

// TestTrimAfterEnd is a regression: the watchdog's look at a connection that had just
// ended was out of range.
func TestTrimAfterEnd(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := pair(t, config(nobody), config(echo))
		if _, err := call(t.Context(), a, request("")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		b.workers.trimIdle()
		b.Close()
		b.workers.trimIdle()
	})
}

// TestAbandonUnheard: a caller that gives up before the peer has heard of its call gives
// its slot back at once.
func TestAbandonUnheard(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, p := against(t, config(nobody), true, false)
		synctest.Wait()
		large := strings.Repeat("x", 3*wire.MaxBody)
		var calls []*Outgoing
		for range 2 * maxParts {
			o, err := c.Start(t.Context(), request(large))
			if err != nil {
				t.Fatal(err)
			}
			calls = append(calls, o)
		}
		synctest.Wait() // the preface is stuck
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for _, o := range calls {
			if err := o.Wait(ctx); err != context.Canceled {
				t.Error(err)
			}
		}
		if n := counts(c).Outgoing; n > maxParts {
			t.Errorf("%d slots are still taken, by more than may be on their way", n)
		}
		go p.read()
		synctest.Wait()
		requests, cancels := p.received(wire.Request), p.received(wire.Cancel)
		if len(requests) > maxParts || len(cancels) != len(requests) {
			t.Errorf("%d requests were sent, and %d canceled", len(requests), len(cancels))
		}
		if n := len(p.received(wire.Part)); n > 2*partsPerWrite {
			t.Errorf("%d parts were sent", n)
		}
	})
}

// TestExpireLater is a regression: a queued call that began because another one expired was
// not looked at any more, and outlived its own deadline.
func TestExpireLater(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, _ := against(t, config(nobody), true, false)
		synctest.Wait()
		begin := func(body string, limit time.Duration) *Outgoing {
			q := request(body)
			q.Queue, q.Expire, q.Deadline = true, limit > 0, time.Now().Add(limit)
			o, err := c.Start(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			return o
		}
		large := strings.Repeat("x", 3*wire.MaxBody)
		for range maxParts { // the preface is stuck, and so are these
			begin(large, 0)
		}
		var unheard []*Outgoing
		for range int(local().MaxCalls) - maxParts {
			unheard = append(unheard, begin(large, time.Second))
		}
		queued := begin("", 2*time.Second)
		var err error
		go func() { err = queued.Wait(context.Background()) }()
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if err != context.DeadlineExceeded {
			t.Errorf("a second after its deadline the queued call has ended with %v", err)
		}
		for _, o := range unheard {
			if err := o.Wait(t.Context()); err != context.DeadlineExceeded {
				t.Error(err)
			}
		}
	})
}

// TestLost: how a connection ended is what its calls are told.
func TestLost(t *testing.T) {
	bubble(t, func(t *testing.T) {
		causes := make(chan error, 1)
		a, b := pair(t, config(nobody), config(func(ctx context.Context, in *Incoming) {
			<-ctx.Done()
			causes <- context.Cause(ctx)
		}))
		o, err := a.Start(t.Context(), request(""))
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		a.Close()
		if err := o.Wait(t.Context()); err != ErrClosed {
			t.Errorf("the side that closed: %v", err)
		}
		if _, ok := errors.AsType[*LostError](<-causes); !ok {
			t.Error("the other side's handler is not told that the connection is lost")
		}
		<-b.Done()
	})
}

// TestLeft is a regression: calls after the peer had closed an idle connection were told
// that this side had.
func TestLeft(t *testing.T) {
	bubble(t, func(t *testing.T) {
		near, far := net.Pipe()
		c := New(near, nil, config(nobody))
		ran := make(chan error, 1)
		go func() { ran <- c.Run() }()
		p := &peer{tb: t, conn: far}
		go p.read()
		p.write([]byte(wire.Preface))
		g := local()
		p.send(wire.Header{Type: wire.Hello}, wire.AppendHello(nil, &g))
		synctest.Wait()
		far.Close()
		if err := <-ran; err != nil {
			t.Errorf("Run returned %v", err)
		}
		_, err := call(t.Context(), c, request(""))
		if _, ok := errors.AsType[*LostError](err); !ok {
			t.Errorf("a call after that: %v", err)
		}
	})
}

// TestReason is a regression: calls that came while GOAWAY was written to a peer that had
// broken the protocol, and Run if somebody closed the connection meanwhile, were told that
// this side had closed it.
func TestReason(t *testing.T) {
	for _, how := range []string{"closed here", "closed there", "let be"} {
		bubble(t, func(t *testing.T) {
			near, far := net.Pipe()
			c := New(near, nil, config(nobody))
			ran := make(chan error, 1)
			go func() { ran <- c.Run() }()
			p := &peer{tb: t, conn: far} // which does not read, so that GOAWAY takes its time
			p.write([]byte(wire.Preface))
			p.send(wire.Header{Type: wire.Ping}, make([]byte, 8))
			synctest.Wait()
			if _, err := call(t.Context(), c, request("")); !isViolation(err) {
				t.Errorf("%s: a call meanwhile: %v", how, err)
			}
			switch how {
			case "closed here":
				c.Close()
			case "closed there":
				far.Close()
			}
			if err := <-ran; !isViolation(err) {
				t.Errorf("%s: Run returned %v", how, err)
			}
			far.Close()
		})
	}
}

// busyConn is a connection for which there is always more to write.
type busyConn struct {
	net.Conn
	c  *Conn
	on atomic.Bool
}

func (b *busyConn) Write(p []byte) (int, error) {
	if b.on.Load() {
		time.Sleep(time.Millisecond)
		b.c.w.frame(wire.Header{Type: wire.Pong}, make([]byte, 8), handOver)
	}
	return b.Conn.Write(p)
}

// A consumer that comes late takes what waits at a cost that does not grow with the square of it.
func TestLateConsumer(t *testing.T) {
	const n = 100_000
	r := &RecvStream{window: 1 << 40, granted: 1 << 40}
	for i := range n {
		r.queue = append(r.queue, segment{data: binary.BigEndian.AppendUint32(nil, uint32(i)), cost: 4})
	}
	began := time.Now()
	for i := range n {
		if data, _, err := r.Items(t.Context()); err != nil || binary.BigEndian.Uint32(data) != uint32(i) {
			t.Fatalf("segment %d: %v, %v", i, data, err)
		}
	}
	if took := time.Since(began); len(r.queue) > 0 || took > 2*time.Second {
		t.Errorf("%v; %d are left", took, len(r.queue))
	}
}
