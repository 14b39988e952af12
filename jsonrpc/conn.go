package jsonrpc

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"reflect"
	"sync"
	"time"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/internal/fn"
)

// Protocol returns JSON-RPC over a connection, for [yonder.Server.Protocols].
func (c *Config) Protocol() yonder.Protocol { return protocol{c} }

type protocol struct{ config *Config }

func (protocol) Name() string { return protocolName }

// Detect looks at two bytes that are no white space, because those that begin a gob
// stream or a message of the session protocol may look like a bracket: a length of
// 0x7b or 0x5b. What follows there is no ASCII.
func (protocol) Detect(first []byte) yonder.Verdict {
	i := space(first, 0)
	if i == len(first) {
		return yonder.Maybe
	}
	switch c := first[i]; {
	case c == '{' || c == '[':
		switch {
		case i+1 == len(first):
			return yonder.Maybe
		case first[i+1] < 0x7f && first[i+1] >= ' ' || space(first, i+1) > i+1:
			return yonder.Yes
		}
	case couldBeHeader(first[i:]):
		if len(first)-i < len("content-") {
			return yonder.Maybe
		}
		return yonder.Yes
	}
	return yonder.No
}

func (p protocol) ServeConn(ctx context.Context, s *yonder.Server, nc net.Conn) error {
	return serveStream(ctx, s, p.config, nc, nc)
}

// Refuse tells a peer that it is not served: see [yonder.Protocol].
func (protocol) Refuse(conn net.Conn, reason string) {
	var first [1]byte
	if _, err := io.ReadFull(conn, first[:]); err != nil {
		return
	}
	out := newBuffer()
	defer out.release()
	refuseFor(out, ServerError-int(yonder.Unavailable), reason, nil)
	framed := lines
	if first[0] == 'C' || first[0] == 'c' {
		framed = header
	}
	w := newWriter(conn, time.Second, nil)
	w.send = w.pieces(conn)
	w.write(out.Bytes(), framed, false)
	w.drain()
}

// Serve serves one connection of JSON-RPC until it ends, and returns why it did, as
// [yonder.Server.ServeConn] does: but it does not ask which protocol it speaks, and how
// long it takes to begin does not matter. [Stdio] is one to give it.
func Serve(s *yonder.Server, conn io.ReadWriteCloser) error {
	ctx, leave, err := s.Join(conn)
	if err != nil {
		conn.Close()
		return err
	}
	defer leave()
	return serveStream(ctx, s, new(Config), conn, conn)
}

// Stdio returns the process's standard input and output as one connection. Input is
// read from then on, even after the connection is closed, because nothing can interrupt
// that.
func Stdio() io.ReadWriteCloser {
	in, to := io.Pipe()
	go func() { // ends with the input, or when some comes after Close
		_, err := io.Copy(to, os.Stdin)
		to.CloseWithError(err)
	}()
	return stdio{in, os.Stdout}
}

type stdio struct {
	io.ReadCloser
	out io.WriteCloser
}

func (s stdio) Write(b []byte) (int, error) { return s.out.Write(b) }
func (s stdio) Close() error                { return errors.Join(s.ReadCloser.Close(), s.out.Close()) }

// serveStream serves a stream of bytes. seen is what handlers see of it.
func serveStream(stop context.Context, s *yonder.Server, config *Config, rwc io.ReadWriteCloser, seen any) error {
	c := newConn(newService(s, config, seen), rwc)
	r := &reader{conn: rwc, max: c.limits.MaxMessage}
	r.slow.timeout, r.slow.close = c.limits.KeepAlive, func() { rwc.Close() }
	c.next = r.next
	socket := socketOf(rwc)
	c.gone = func() bool {
		if socket == nil {
			return false
		}
		_, err := socket.Write(nil)
		return err != nil
	}
	c.framing = func() framing { return framing(r.framing.Load()) }
	c.w = newWriter(rwc, c.limits.KeepAlive, nil)
	c.w.send = c.w.pieces(rwc)
	return c.serve(stop)
}

// socketOf returns the socket that a connection is, or that is under it; nil: there is none.
//
// A socket that has told of its peer's end reads nothing but that from then on, even after
// what was written was refused. A write of nothing tells: it fails on a Unix socket as soon as
// the peer has closed it, and on a TCP connection when the peer has refused something, such
// as the answer to another call.
func socketOf(conn any) net.Conn {
	for {
		switch c := conn.(type) {
		case *net.TCPConn:
			return c
		case *net.UnixConn:
			return c
		case interface{ NetConn() net.Conn }:
			conn = c.NetConn()
		default:
			return nil
		}
	}
}

// A conn is a connection that both ends may write to at any time: a stream of bytes or
// a WebSocket.
type conn struct {
	service
	closer  io.Closer
	next    func() ([]byte, error) // reads a message, or returns a *textError or another error
	framing func() framing
	w       *writer
	gone    func() bool // reports whether a peer that has ended its side has ended the other, too; nil: it has
	bye     func()      // takes leave of the peer when the server shuts down; nil: there is no way

	ctx     context.Context // of the handlers
	end     context.CancelCauseFunc
	workers workers

	mu       sync.Mutex // guards what follows
	slots    slots      // of calls that run, or whose answers wait to be sent
	batches  slots      // the same for batches
	away     []*task    // that need not be served, but answered
	turning  bool       // somebody answers those
	calls    activeCall // begins the list of them
	byID     idIndex    // those that can be cancelled
	cause    error      // what ended the calls; nil: nothing has
	subs     map[uint64]*subscription
	lastSub  uint64
	messages int // being served
	streams  int
	bytes    int           // of messages that are being served, and what those cost besides
	freed    chan struct{} // the reader waits for it to be closed, when bytes becomes less; nil: it does not wait
	refusing bool          // no new calls
	idle     chan struct{} // closed when messages and streams are 0; nil: nobody waits for that
}

func newConn(s service, closer io.Closer) *conn {
	c := &conn{
		service: s, closer: closer,
		slots: newSlots(s.limits.MaxCalls), batches: newSlots(s.limits.MaxCalls),
	}
	c.ctx, c.end = context.WithCancelCause(context.Background())
	c.calls.next, c.calls.prev = &c.calls, &c.calls
	return c
}

// Costs of what is being served, in bytes, besides its text.
const (
	messageCost = 4 << 10
	itemCost    = 2 << 10 // of a batch
)

var (
	errShutdown = errors.New("yonder: the server is shutting down")
	errStuck    = errors.New("more calls wait than the server keeps, and none has ended for too long")
)

// serve serves the connection until it ends.
func (c *conn) serve(stop context.Context) error {
	c.w.lost = func(err error) { // calls that wait need not begin
		if stop.Err() != nil {
			c.cancelAll(yonder.ErrServerClosed)
		} else {
			c.cancelAll(&lostError{err})
		}
	}
	unhook := context.AfterFunc(stop, func() {
		c.mu.Lock()
		c.refusing = true
		c.mu.Unlock()
		if c.wait(-1, nil) {
			c.w.drain()
			if c.bye != nil {
				c.bye()
			}
			c.closer.Close()
		}
	})
	err := c.read()
	if err == io.EOF && c.gone != nil {
		c.linger()
	}
	cause := yonder.ErrConnectionLost
	switch {
	case stop.Err() != nil:
		cause = yonder.ErrServerClosed
		err = nil
	case err == io.EOF:
		err = nil
	default:
		cause = &lostError{err}
		c.complain(err)
	}
	c.end(cause)
	c.cancelAll(cause)
	c.mu.Lock()
	c.batches.forget()
	c.mu.Unlock()
	c.workers.end()
	c.w.drain()
	c.closer.Close()
	c.w.fail(cause)
	unhook()
	return err
}

// linger lets the calls in flight of a peer end that has ended its side of the
// connection. It may wait for the answers, as a script does, or be no more.
func (c *conn) linger() {
	over, gone := make(chan struct{}), make(chan struct{})
	go func() { // ends with linger
		t := time.NewTicker(lookEvery)
		defer t.Stop()
		for {
			select {
			case <-over:
				return
			case <-t.C:
			}
			if c.gone() {
				close(gone)
				return
			}
		}
	}()
	c.wait(c.limits.KeepAlive, gone)
	close(over)
}

// lookEvery is how often linger looks whether somebody still waits for answers.
const lookEvery = 50 * time.Millisecond

// complain tells the peer why the connection ends, if it can hear it, and the operator.
func (c *conn) complain(err error) {
	var fault *textError
	switch {
	case errors.As(err, &fault):
		c.refuse(ParseError, "Parse error")
	case err == errStuck:
		c.refuse(ServerError-int(yonder.ResourceExhausted), err.Error())
	default:
		c.logger().Debug("yonder: connection lost", "protocol", protocolName, "peer", c.peer(), "reason", err)
		return
	}
	c.logger().Warn("yonder: connection closed", "protocol", protocolName, "peer", c.peer(), "reason", err)
}

// peer returns what a log says of the other end.
func (c *conn) peer() string {
	if nc, ok := c.service.conn.(net.Conn); ok && nc.RemoteAddr() != nil {
		return nc.RemoteAddr().String()
	}
	return "stream"
}

func (c *conn) refuse(code int, message string) {
	out := newBuffer()
	refuseFor(out, code, message, nil)
	c.send(out)
	out.release()
}

func (c *conn) send(out *outBuffer) error { return c.w.write(out.Bytes(), c.framing(), false) }

// lostError is [yonder.ErrConnectionLost] and how.
type lostError struct{ how error }

func (e *lostError) Error() string        { return yonder.ErrConnectionLost.Error() + ": " + e.how.Error() }
func (e *lostError) Is(target error) bool { return target == yonder.ErrConnectionLost }
func (e *lostError) Unwrap() error        { return e.how }

// read serves messages until no more can be read.
func (c *conn) read() error {
	for {
		text, err := c.next()
		fault, faulty := err.(*textError)
		switch {
		case faulty && fault.isBatch():
			text = fault.text
		case faulty && fault.framed:
			out := newBuffer()
			c.refuseText(out, fault)
			c.finish(out, nil)
			continue
		case err != nil:
			return err
		}
		if text[0] == '[' {
			cost := messageCost + len(text)
			for range elements(text) {
				cost += itemCost
			}
			if err := c.take(cost); err != nil {
				return err
			}
			c.beginBatch(text, cost, faulty)
			continue
		}
		t := &task{conn: c, cost: messageCost + len(text)}
		r := &t.r
		if why := readRequest(text, r, &c.limits); why != "" {
			out := newBuffer()
			c.reject(out, r, why)
			c.finish(out, nil)
			continue
		}
		if isControl(r.method) {
			out := newBuffer()
			c.controls(r, out, c)
			if out.Len() > 0 {
				c.send(out)
			}
			out.release()
			continue
		}
		if err := c.take(t.cost); err != nil {
			return err
		}
		t.begin() // before what cancels it can be read
	}
}

// take waits until a message fits in what may be served at a time.
func (c *conn) take(cost int) error {
	most := c.limits.MaxMessage + c.limits.MaxCalls*messageCost
	var stuck <-chan time.Time
	for {
		c.mu.Lock()
		if c.bytes == 0 || c.bytes+cost <= most {
			c.bytes += cost
			c.messages++
			c.mu.Unlock()
			return nil
		}
		freed := make(chan struct{})
		c.freed = freed
		c.mu.Unlock()
		if c.limits.KeepAlive >= 0 {
			stuck = time.After(c.limits.KeepAlive)
		}
		select {
		case <-freed:
		case <-stuck:
			return errStuck
		}
	}
}

// give ends what take began.
func (c *conn) give(cost int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bytes -= cost
	if c.freed != nil {
		close(c.freed)
		c.freed = nil
	}
	c.messages--
	c.idleLocked()
}

func (c *conn) idleLocked() {
	if c.idle != nil && c.messages == 0 && c.streams == 0 {
		close(c.idle)
		c.idle = nil
	}
}

// wait waits until the calls in flight have ended, or for some time, if it is not
// negative, or until it is enough. It reports whether they have ended.
func (c *conn) wait(most time.Duration, enough <-chan struct{}) bool {
	c.mu.Lock()
	if c.messages == 0 && c.streams == 0 {
		c.mu.Unlock()
		return true
	}
	if c.idle == nil {
		c.idle = make(chan struct{})
	}
	idle := c.idle
	c.mu.Unlock()
	var late <-chan time.Time
	if most >= 0 {
		t := time.NewTimer(most)
		defer t.Stop()
		late = t.C
	}
	select {
	case <-idle:
		return true
	case <-late:
	case <-enough:
	case <-c.ctx.Done():
	}
	return false
}

// serveOne serves a message that is one request.
func (c *conn) serveOne(t *task) {
	defer c.give(t.cost)
	out := newBuffer()
	defer c.finish(out, &t.call)
	t.call.refuseOver(&t.ctx)
	c.answer(&t.ctx, &t.r, out, c, &t.call)
}

// beginBatch has a message that is a batch served when there is a slot for it.
func (c *conn) beginBatch(text []byte, cost int, deep bool) {
	w := &waiter{start: func() { go c.serveBatch(text, cost, deep) }} // ends when all is answered
	c.mu.Lock()
	now := c.batches.enter(w)
	c.mu.Unlock()
	if now {
		w.start()
	}
}

// serveBatch serves a message that is a batch.
func (c *conn) serveBatch(text []byte, cost int, deep bool) {
	b := &connBatch{c, cost}
	defer func() {
		c.mu.Lock()
		next := c.batches.leave()
		c.mu.Unlock()
		if next != nil {
			next.start()
		}
		c.give(b.cost)
	}()
	out := newBuffer()
	c.batch(c.ctx, text, deep, out, b)
	c.finish(out, nil)
}

func (c *conn) finish(out *outBuffer, a *activeCall) {
	if out.Len() > 0 {
		c.mu.Lock()
		crowd := c.messages > 1
		c.mu.Unlock()
		c.w.write(out.Bytes(), c.framing(), crowd)
	}
	out.release()
	if a != nil {
		a.left()
		for _, s := range a.begin {
			if a.failed {
				s.over()
			} else {
				go s.run() // ends with the stream, at the latest when the user's iterator next yields after its call was cancelled
			}
		}
		a.ended()
	}
}

// refuseOver has a call not begin whose context has ended.
func (a *activeCall) refuseOver(ctx context.Context) {
	if err := ctx.Err(); err != nil && a.refused == nil {
		a.refused = errUnbegun(err)
	}
}

// leave implements [caller].
func (c *conn) leave() {
	c.mu.Lock()
	next := c.slots.leave()
	c.mu.Unlock()
	if next != nil {
		next.start()
	}
}

// begin registers the task's call, and has it served when there is a slot for it.
func (t *task) begin() {
	a, c := &t.call, t.conn
	a.open = 1
	a.cancel = t.ctx.end
	a.task = t
	if !t.r.note {
		a.id = t.r.id
	}
	if t.r.timeout > 0 {
		t.ctx.deadline = time.Now().Add(t.r.timeout)
		a.timed = true
	}
	c.mu.Lock()
	refused, cause := c.registerLocked(a)
	if refused == nil && c.slots.enter(&t.turn) {
		c.mu.Unlock()
		a.entered = c
		c.workers.start(t)
		return
	}
	if refused != nil {
		c.turnAwayLocked(t, refused)
	} else {
		t.turn.start = func() {
			a.entered = c
			c.workers.start(t)
		}
		if a.timed {
			late := time.AfterFunc(t.r.timeout, func() { c.giveUp(t, errUnbegun(context.DeadlineExceeded)) })
			a.stop = func() { late.Stop() }
		}
	}
	c.mu.Unlock()
	if cause != nil {
		a.cancel(cause)
	}
	if refused == nil && c.isUnknown(&t.r) {
		c.giveUp(t, errMethod)
	}
}

// giveUp has a call that waits for a slot wait no longer, but be answered by an error.
func (c *conn) giveUp(t *task, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.slots.remove(&t.turn) {
		c.turnAwayLocked(t, err)
	}
}

// turnAwayLocked has a call without a slot answered by an error. One goroutine does that for all:
// there may be many, and a peer that does not read its answers.
func (c *conn) turnAwayLocked(t *task, err error) {
	t.call.refused = err
	c.away = append(c.away, t)
	if !c.turning {
		c.turning = true
		go c.turnAway() // ends when nobody is left
	}
}

func (c *conn) turnAway() {
	for {
		c.mu.Lock()
		away, lost := c.away, c.cause != nil
		c.away = nil
		if len(away) == 0 {
			c.turning = false
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		for i, t := range away {
			away[i] = nil // it counts no longer when it is answered
			if lost {     // nobody waits for answers
				t.call.ended()
				c.give(t.cost)
				continue
			}
			c.serveOne(t)
		}
	}
}

// start implements [caller].
func (c *conn) start(ctx context.Context, r *request, run func(ctx context.Context, a *activeCall)) {
	ctx, a := newActive(ctx, r)
	stop := func() bool { return true }
	w := &waiter{start: func() {
		stop()
		a.entered = c
		a.refuseOver(ctx)
		go run(ctx, a) // ends with its handler
	}}
	c.mu.Lock()
	refused, cause := c.registerLocked(a)
	now := refused == nil && c.slots.enter(w)
	giveUp := func(err error) {
		c.mu.Lock()
		waited := c.slots.remove(w)
		c.mu.Unlock()
		if waited {
			a.refused = err
			run(ctx, a)
		}
	}
	if refused == nil && !now {
		stop = context.AfterFunc(ctx, func() { giveUp(errUnbegun(ctx.Err())) })
	}
	c.mu.Unlock()
	if cause != nil {
		a.cancel(cause)
	}
	switch {
	case now:
		w.start()
	case refused != nil:
		a.refused = refused
		go run(ctx, a) // ends when the error is written to the batch
	case c.isUnknown(r):
		go giveUp(errMethod) // the same
	}
}

// registerLocked registers a call. It returns why it is not to begin, and what its context is to be
// ended by; nil: nothing.
func (c *conn) registerLocked(a *activeCall) (refused, cause error) {
	a.owner = c
	a.prev, a.next = &c.calls, c.calls.next
	a.prev.next, a.next.prev = a, a
	c.byID.add(a)
	switch {
	case c.refusing:
		refused = yonder.Errorf(yonder.Unavailable, "%w", errShutdown)
	case c.cause != nil:
		refused = errUnbegun(context.Canceled)
	}
	return refused, c.cause
}

// cancelAll ends the contexts of all calls.
func (c *conn) cancelAll(cause error) {
	c.mu.Lock()
	c.cause = cause
	var calls []*activeCall
	for a := c.calls.next; a != &c.calls; a = a.next {
		calls = append(calls, a)
	}
	c.mu.Unlock()
	c.cancel(calls, cause)
}

// cancel ends the contexts of calls. Those that wait need not begin.
func (c *conn) cancel(calls []*activeCall, cause error) {
	for _, a := range calls {
		a.cancel(cause)
		if a.task != nil {
			c.giveUp(a.task, errUnbegun(context.Canceled))
		}
	}
}

// over counts down what holds a call open.
func (c *conn) over(a *activeCall) {
	c.mu.Lock()
	a.open--
	last := a.open == 0
	if last {
		a.prev.next, a.next.prev = a.next, a.prev
		c.byID.remove(a)
	}
	c.mu.Unlock()
	if last {
		a.release()
	}
}

func (c *conn) reply(m yonder.Metadata) yonder.Metadata { return m }

func (c *conn) failed(error) {}

// note implements [caller].
func (c *conn) note(r *request, _ int, run func(ctx context.Context, a *activeCall)) {
	c.start(c.ctx, r, run)
}

// A connBatch is who the calls of a batch come from.
type connBatch struct {
	*conn
	cost int // of it, as far as it is served
}

// note implements [caller]. The notification takes its part of the batch's cost along.
func (b *connBatch) note(r *request, size int, run func(ctx context.Context, a *activeCall)) {
	c, cost := b.conn, size+itemCost
	b.cost -= cost
	c.mu.Lock()
	c.messages++
	c.mu.Unlock()
	c.note(r, size, func(ctx context.Context, a *activeCall) {
		defer c.give(cost)
		run(ctx, a)
	})
}

// isControl reports whether a method is the protocol's own.
func isControl(method string) bool {
	switch method {
	case "rpc.cancel", "$/cancelRequest", "rpc.credit", "rpc.unsubscribe":
		return true
	}
	return false
}

// control implements [caller].
func (c *conn) control(r *request) (result any, ok bool, err error) {
	if !isControl(r.method) {
		return nil, false, nil
	}
	var p struct {
		ID           json.RawMessage `json:"id"`
		Subscription uint64          `json:"subscription"`
		Items        int64           `json:"items"`
		Code         string          `json:"code"`
	}
	if len(r.params) == 0 || r.params[0] != '{' {
		err = errors.New("they must be an object")
	} else {
		err = json.Unmarshal(r.params, &p)
	}
	if err != nil {
		return nil, true, yonder.Errorf(yonder.InvalidArgument, "yonder: call %q: parameters: %w", r.method, err)
	}
	switch r.method {
	case "rpc.credit":
		return c.credit(p.Subscription, p.Items), true, nil
	case "rpc.unsubscribe":
		return c.unsubscribe(p.Subscription), true, nil
	}
	cause := context.Canceled
	if r.method == "$/cancelRequest" {
		cause = errCancelRequest
	}
	return c.cancelCall(p.ID, cause, p.Code == lateCode), true, nil
}

// lateCode is why a call is cancelled whose deadline has come: if this end knows of that, it has
// come here, too, or is about to.
var lateCode = yonder.DeadlineExceeded.String()

// cancelCall ends the contexts of the calls with an id, for a cause, and reports whether
// there were any. late says that their deadlines have come.
func (c *conn) cancelCall(id []byte, cause error, late bool) bool {
	c.mu.Lock()
	calls, found := c.byID.cancelling(id, late)
	c.mu.Unlock()
	c.cancel(calls, cause)
	return found
}

// subscribe implements [caller].
func (c *conn) subscribe(ctx context.Context, a *activeCall, slot *fn.Slot, v reflect.Value) (uint64, bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.streams >= c.limits.MaxStreams {
		return 0, false, yonder.Errorf(yonder.ResourceExhausted, "yonder: more than %d streams on a connection", c.limits.MaxStreams)
	}
	c.lastSub++
	s := &subscription{conn: c, call: a, number: c.lastSub, slot: slot, value: v, wake: make(chan struct{}, 1)}
	if c.subs == nil {
		c.subs = make(map[uint64]*subscription)
	}
	c.subs[s.number] = s
	c.streams++
	a.open++
	s.ctx = ctx
	a.begin = append(a.begin, s)
	return s.number, true, nil
}
