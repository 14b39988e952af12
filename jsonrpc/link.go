package jsonrpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/yonder-rpc/yonder"
)

// A duplex is a [yonder.Transport] over connections, one after another, that both ends
// may write to at any time.
type duplex struct {
	dialer  *Dialer
	connect func(ctx context.Context) (*link, error) // nil: there is one link only
	timeout time.Duration                            // of an attempt to connect
	trying  chan struct{}                            // holds one while somebody connects
	running sync.WaitGroup                           // goroutines that read
	life    context.Context                          // ends with Close
	end     context.CancelFunc
	done    chan struct{} // closed when there can be no more calls
	over    sync.Once     // closes done
	closed  func()        // lets go of what connect uses; nil: there is nothing

	mu      sync.Mutex // guards what follows
	current *link
	refuses bool // Close was called
}

func newDuplex(d *Dialer, connect func(ctx context.Context) (*link, error)) *duplex {
	t := &duplex{dialer: d, connect: connect, trying: make(chan struct{}, 1), done: make(chan struct{}), timeout: d.Client.DialTimeout}
	if t.timeout <= 0 {
		t.timeout = 10 * time.Second
	}
	t.life, t.end = context.WithCancel(context.Background())
	return t
}

// link returns a link, and connects if there is none.
func (t *duplex) link(ctx context.Context) (*link, error) {
	if l, err := t.have(); l != nil || err != nil {
		return l, err
	}
	select {
	case t.trying <- struct{}{}:
		defer func() { <-t.trying }()
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-t.life.Done():
		return nil, yonder.ErrClientClosed
	}
	if l, err := t.have(); l != nil || err != nil { // somebody else has connected
		return l, err
	}
	within, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	defer context.AfterFunc(t.life, cancel)()
	l, err := t.connect(within)
	switch {
	case err == nil:
	case t.life.Err() != nil:
		return nil, yonder.ErrClientClosed
	case ctx.Err() != nil:
		return nil, ctx.Err()
	default:
		return nil, yonder.Errorf(yonder.Unavailable, "yonder: cannot connect: %w", err)
	}
	if !t.attach(l) {
		l.close(yonder.ErrClientClosed)
		return nil, yonder.ErrClientClosed
	}
	return l, nil
}

// have returns the link that there is, or why there can be none.
func (t *duplex) have() (*link, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.refuses:
		return nil, yonder.ErrClientClosed
	case t.current == nil:
		return nil, nil
	}
	if err := t.current.lost(); err != nil {
		if t.connect == nil {
			return nil, err
		}
		t.current = nil
	}
	return t.current, nil
}

// attach has calls use a link, unless the transport is closed.
func (t *duplex) attach(l *link) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.refuses {
		return false
	}
	t.current = l
	t.running.Go(func() { // ends with the link
		l.run()
		if t.connect == nil {
			t.over.Do(func() { close(t.done) })
		}
	})
	return true
}

// Call implements [yonder.Transport].
func (t *duplex) Call(ctx context.Context, call *yonder.Call) error {
	if ctx.Err() != nil {
		return yonder.NotRun(ended(ctx, call))
	}
	for again := 0; ; again++ {
		l, err := t.link(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return yonder.NotRun(ended(ctx, call))
			}
			return yonder.NotRun(unavailable(call, err))
		}
		sent, err := l.call(ctx, call)
		switch {
		case sent || err == nil:
			return err
		case t.connect == nil || again == 2 || yonder.CodeOf(err) != yonder.Unavailable:
			return yonder.NotRun(err)
		}
	}
}

// Done implements [yonder.Transport].
func (t *duplex) Done() <-chan struct{} { return t.done }

// Close implements [yonder.Transport].
func (t *duplex) Close() error {
	t.mu.Lock()
	t.refuses = true
	l := t.current
	t.mu.Unlock()
	t.end()
	if l != nil {
		l.close(yonder.ErrClientClosed)
	}
	t.running.Wait()
	if t.closed != nil {
		t.closed()
	}
	t.over.Do(func() { close(t.done) })
	return nil
}

// A link is a connection of a client's.
type link struct {
	dialer  *Dialer
	closer  io.Closer
	next    func() ([]byte, error)
	framing framing
	w       *writer
	ended   func() // waits for what else the link has running; nil: nothing
	end     context.CancelFunc
	lastID  atomic.Uint64
	flying  atomic.Int32 // calls
	sweeper sweeper
	spare   sync.Pool // of *pendingCall, for their channels, which must not leave a bubble of package synctest

	mu      sync.Mutex // guards what follows
	pending map[uint64]*pendingCall
	streams map[uint64]*remoteStream
	fault   string // what the server said of no call in particular
	err     error  // why the link is over; nil: it is not
}

type pendingCall struct {
	procedure string
	among     []bool // which results are streams; nil: none
	answer    chan answer
}

func newLink(d *Dialer, closer io.Closer) *link {
	l := &link{dialer: d, closer: closer, pending: make(map[uint64]*pendingCall), streams: make(map[uint64]*remoteStream)}
	l.spare.New = func() any { return &pendingCall{answer: make(chan answer, 1)} }
	return l
}

// newStreamLink returns a link over a stream of bytes.
func newStreamLink(d *Dialer, conn io.ReadWriteCloser) *link {
	limits := d.Client.Limits.WithDefaults()
	l := newLink(d, conn)
	r := &reader{conn: conn, max: limits.MaxMessage}
	r.slow.timeout, r.slow.close = limits.KeepAlive, func() { conn.Close() }
	l.next = r.next
	if d.ContentLength {
		l.framing = header
	}
	l.w = newWriter(conn, limits.KeepAlive, nil)
	l.w.send = l.w.pieces(conn)
	return l
}

// newSocketLink returns a link over a WebSocket.
func newSocketLink(d *Dialer, ws *websocket.Conn) *link {
	limits := d.Client.Limits.WithDefaults()
	s := &socket{ws: ws}
	l := newLink(d, s)
	ctx, cancel := context.WithCancel(context.Background())
	s.start(ctx, limits.MaxMessage, limits.KeepAlive)
	l.next, l.framing, l.end, l.ended = s.next, packets, cancel, s.wait
	l.w = newWriter(s, limits.KeepAlive, s.send)
	return l
}

// lost returns why the link is over; nil: it is not.
func (l *link) lost() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// run reads the link until it is over.
func (l *link) run() {
	for {
		text, err := l.next()
		if err == nil {
			err = l.message(text)
		} else if fault, ok := err.(*textError); ok {
			err = l.unreadable(fault)
		}
		if err != nil {
			l.close(&lostError{err})
			break
		}
		if l.sweeper.due.Load() {
			go l.sweeper.sweep() // ends when the server is told, or cannot be
		}
	}
	if l.ended != nil {
		l.ended()
	}
	l.w.drain()
}

// close ends the link, and its calls and streams with err, unless it is over already.
func (l *link) close(err error) {
	l.mu.Lock()
	if l.err != nil {
		l.mu.Unlock()
		return
	}
	byUs := err == yonder.ErrClientClosed
	if l.fault != "" {
		err = fmt.Errorf("%w: the server said: %s", err, l.fault)
	}
	l.err = err
	pending, streams := l.pending, l.streams
	l.pending, l.streams = nil, nil
	l.mu.Unlock()
	if byUs && len(pending)+len(streams) > 0 {
		l.cancelAll(pending, streams)
	}
	l.closer.Close()
	if l.end != nil {
		l.end()
	}
	l.w.fail(err)
	l.sweeper.end()
	for _, p := range pending {
		p.answer <- answer{err: err}
	}
	for _, s := range streams {
		s.finish(yonder.Errorf(yonder.Unavailable, "yonder: stream of %q: %w", s.procedure, trimmed{err}))
	}
}

// cancelAll tells the server that nobody waits any more, as far as that takes no time:
// the connection's end alone may be one that waits for answers.
func (l *link) cancelAll(pending map[uint64]*pendingCall, streams map[uint64]*remoteStream) {
	t := time.AfterFunc(closeTime, func() { l.closer.Close() })
	defer t.Stop()
	for id := range pending {
		l.cancel(id, false)
	}
	for number := range streams {
		l.notify("rpc.unsubscribe", `"subscription":`+strconv.FormatUint(number, 10))
	}
	l.w.drain()
}

// closeTime is how long Close tries to tell the server.
const closeTime = 100 * time.Millisecond

// call makes a call. sent is false if the server cannot have seen it.
func (l *link) call(ctx context.Context, call *yonder.Call) (sent bool, err error) {
	out := newBuffer()
	defer out.release()
	id := uint64(0)
	if !call.OneWay {
		id = l.lastID.Add(1)
	}
	if err := l.dialer.encode(ctx, call, id, out, call.Metadata, false); err != nil {
		return true, yonder.NotRun(err)
	}
	if call.OneWay {
		if err := l.w.write(out.Bytes(), l.framing, false); err != nil {
			return false, unavailable(call, err)
		}
		return true, nil
	}
	p := l.spare.Get().(*pendingCall)
	p.procedure, p.among = call.Procedure, streamsAmong(call.Places())
	l.mu.Lock()
	if err := l.err; err != nil {
		l.mu.Unlock()
		return false, unavailable(call, err)
	}
	l.pending[id] = p
	l.mu.Unlock()
	crowd := l.flying.Add(1) > 1
	defer l.flying.Add(-1)
	if err := l.w.write(out.Bytes(), l.framing, crowd); err != nil {
		l.forget(id, p)
		return false, unavailable(call, err)
	}
	select {
	case a := <-p.answer:
		l.spare.Put(p) // nobody else has it any more
		return true, l.settle(ctx, call, &a)
	case <-ctx.Done():
	}
	if l.forget(id, p) {
		l.cancel(id, ctx.Err() == context.DeadlineExceeded && !l.dialer.Strict)
	}
	return true, ended(ctx, call)
}

func (l *link) settle(ctx context.Context, call *yonder.Call, a *answer) error {
	if fault, ok := a.err.(*textError); ok {
		return unreadable(call, fault)
	}
	if a.err != nil {
		return unavailable(call, a.err)
	}
	return l.dialer.settle(ctx, call, a)
}

// forget drops a call, and reports whether it was not answered yet.
func (l *link) forget(id uint64, p *pendingCall) bool {
	l.mu.Lock()
	_, there := l.pending[id]
	delete(l.pending, id)
	l.mu.Unlock()
	if there {
		return true
	}
	select {
	case a := <-p.answer:
		for _, s := range a.streams {
			if s != nil {
				s.stop()
			}
		}
	default: // close has taken it, and will answer
	}
	return false
}

// cancel tells the server that nobody waits for a call. late says that this is because of its
// deadline.
func (l *link) cancel(id uint64, late bool) {
	method := "rpc.cancel"
	if l.framing == header {
		method = "$/cancelRequest"
	}
	params := `"id":` + strconv.FormatUint(id, 10)
	if late {
		params += `,"code":"deadline_exceeded"`
	}
	l.notify(method, params)
}

// notify sends a notification of the protocol's own.
func (l *link) notify(method, params string) {
	l.w.write([]byte(`{"jsonrpc":"2.0","method":"`+method+`","params":{`+params+`}}`), l.framing, false)
}

// message takes a message, or a batch. The error ends the link.
func (l *link) message(text []byte) error {
	switch text[0] {
	case '{':
		return l.one(text)
	case '[':
		for from, to := range elements(text) {
			if text[from] != '{' {
				return errors.New("it sent what is no message")
			}
			if err := l.one(text[from:to:to]); err != nil {
				return err
			}
		}
		return nil
	}
	return errors.New("it sent what is no message")
}

// unreadable takes a text that is no message, but tells whose answer it is, or which
// stream's piece: that call or stream fails. The error ends the link.
func (l *link) unreadable(fault *textError) error {
	var e envelope
	var number uint64
	item := false
	if large, ok := fault.err.(*errTooLarge); ok {
		e.id = large.id
		number, item = streamOf(large.head)
	} else if fault.text != nil && fault.text[0] == '{' {
		e = open(fault.text)
		number, item = subscriptionOf(e.params)
		item = item && string(e.method) == `"rpc.stream"`
	}
	if item {
		l.mu.Lock()
		s := l.streams[number]
		l.mu.Unlock()
		if s != nil {
			l.unsubscribe(number, false)
			s.finish(yonder.Errorf(fault.code(), "yonder: stream of %q: an item cannot be read: %w", s.procedure, fault.err))
		}
		return nil
	}
	if e.method != nil || e.twice != "" {
		return fault
	}
	return l.answerTo(e.id, fault)
}

// streamOf returns the number of the stream whose piece begins with head, as a server of
// yonder's writes it, and whether it is one.
func streamOf(head []byte) (uint64, bool) {
	rest, ok := bytes.CutPrefix(head, []byte(streamHead))
	if !ok {
		return 0, false
	}
	digits, _, _ := bytes.Cut(rest, []byte{','})
	n, err := strconv.ParseUint(string(digits), 10, 64)
	return n, err == nil
}

// answerTo fails the call with an id. The error ends the link: there can be no such call.
func (l *link) answerTo(text []byte, fault *textError) error {
	id, err := strconv.ParseUint(string(text), 10, 64)
	if err != nil {
		return fault
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.pending[id]; p != nil {
		delete(l.pending, id)
		p.answer <- answer{err: fault}
	}
	return nil
}

// one takes one message.
func (l *link) one(text []byte) error {
	e := open(text)
	if e.twice != "" {
		return fmt.Errorf("it sent a message with two members %q", e.twice)
	}
	if e.method != nil {
		return l.asked(&e)
	}
	if e.id == nil || isNull(e.id) {
		l.mu.Lock()
		l.fault = string(e.error[:min(len(e.error), 500)])
		l.mu.Unlock()
		return nil
	}
	id, err := strconv.ParseUint(string(e.id), 10, 64)
	if err != nil {
		return fmt.Errorf("it answered a call %.50q that nobody made", e.id)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.pending[id]
	if p == nil {
		return nil // somebody gave up
	}
	delete(l.pending, id)
	a := answer{envelope: e}
	if p.among != nil && e.result != nil {
		a.streams = l.subscribeLocked(p, e.result)
	}
	p.answer <- a
	return nil
}

// subscribeLocked registers the streams among results, before what they yield is read.
func (l *link) subscribeLocked(p *pendingCall, result []byte) []*remoteStream {
	texts, ok := resultsOf(result, len(p.among))
	if !ok {
		return nil
	}
	streams := make([]*remoteStream, len(p.among))
	for i, text := range texts {
		if number, ok := subscriptionOf(text); ok && p.among[i] && l.streams[number] == nil {
			streams[i] = newRemoteStream(p.procedure, number, &l.sweeper, l.consumed, l.unsubscribe)
			l.streams[number] = streams[i]
		}
	}
	return streams
}

// consumed asks for more of a stream.
func (l *link) consumed(number uint64, items int) {
	l.notify("rpc.credit", `"subscription":`+strconv.FormatUint(number, 10)+`,"items":`+strconv.Itoa(items))
}

// unsubscribe ends a stream.
func (l *link) unsubscribe(number uint64, over bool) {
	l.mu.Lock()
	_, there := l.streams[number]
	delete(l.streams, number)
	l.mu.Unlock()
	if there && !over {
		l.notify("rpc.unsubscribe", `"subscription":`+strconv.FormatUint(number, 10))
	}
}

// asked takes a notification or a request of the server's.
func (l *link) asked(e *envelope) error {
	method, _ := stringOf(e.method)
	if method == "rpc.stream" {
		return l.streamed(e.params)
	}
	if e.id != nil {
		out := newBuffer()
		defer out.release()
		refuseFor(out, MethodNotFound, errMethod.Error(), idOf(e.id))
		l.w.write(out.Bytes(), l.framing, false)
	}
	return nil
}

// streamed takes a piece of a stream.
func (l *link) streamed(params []byte) error {
	if len(params) == 0 || params[0] != '{' {
		return errors.New("it sent a piece of a stream that cannot be read")
	}
	number, ok := subscriptionOf(params)
	if !ok {
		return errors.New("it sent a piece of no stream")
	}
	l.mu.Lock()
	s := l.streams[number]
	l.mu.Unlock()
	if s == nil {
		return nil // nobody wants it any more
	}
	return s.piece(params, l.dialer)
}
