package session

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"strings"
	"sync"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/internal/redial"
)

// A Dialer connects to servers that speak this package's protocol. Its zero value is ready to
// use. Its fields must not be changed once it is used.
type Dialer struct {
	// Client is what all clients have: of its fields NetDial, DialTimeout, Timeout,
	// Interceptors, Errors and Limits count, of the latter as [Over] says.
	Client yonder.Dialer
}

// Dial connects to a server: see [Dialer.Dial].
func Dial(ctx context.Context, address string) (*yonder.Client, error) {
	return new(Dialer).Dial(ctx, address)
}

// Dial connects to a server at "host:port", "tcp://host:port" or "unix:///path". ctx bounds only
// the first attempt, whose failure Dial returns. When the connection is lost later, the calls in
// flight fail with [yonder.Unavailable], and the next call connects again, as one of yonder's own
// clients does.
//
// A call whose context ends returns at once, but the server is not told. A call that must not
// wait behind slower ones needs a client of its own.
func (d *Dialer) Dial(ctx context.Context, address string) (*yonder.Client, error) {
	network, addr, ok := strings.Cut(address, "://")
	if !ok {
		network, addr = "tcp", address
	}
	if network != "tcp" && network != "unix" && d.Client.NetDial == nil {
		return nil, yonder.Errorf(yonder.InvalidArgument, "yonder: address %q: unknown scheme %q; use host:port, tcp://host:port or unix:///path", address, network)
	}
	dial := d.Client.NetDial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	t := &transport{line: redial.New(func(ctx context.Context) (*link, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return newLink(&d.Client, conn), nil
	}, d.Client.DialTimeout)}
	if _, err := t.connection(ctx); err != nil {
		t.Close()
		return nil, err
	}
	return d.Client.NewClientOver(t), nil
}

// Over returns a client of the server at the other end of conn, which it owns from then on. Of
// d's fields Timeout, Interceptors, Errors and Limits count: MaxMessage bounds an answer,
// MaxCalls is how many calls wait for theirs at a time, and KeepAlive bounds the pauses within
// an answer, and of a server that does not read.
//
// It cannot connect again when conn is lost, as clients of [Dial] do: later calls fail with an
// error that says so. A call whose context ends returns at once, but the server is not told.
func Over(d *yonder.Dialer, conn net.Conn) *yonder.Client {
	return d.NewClientOver(&transport{only: newLink(d, conn)})
}

// transport is a [yonder.Transport] of the protocol, over a link at a time.
type transport struct {
	only *link               // the link that was given
	line *redial.Line[*link] // if none was
}

// Done implements [yonder.Transport].
func (t *transport) Done() <-chan struct{} {
	if t.only != nil {
		return t.only.done
	}
	return t.line.Done()
}

// Close implements [yonder.Transport].
func (t *transport) Close() error {
	if t.only != nil {
		return t.only.Close()
	}
	t.line.Close()
	return nil
}

// connection returns a link that has not been lost, as far as is known, or the only one.
func (t *transport) connection(ctx context.Context) (*link, error) {
	if t.only != nil {
		return t.only, nil
	}
	l, err := t.line.Conn(ctx)
	switch {
	case err == nil || ctx.Err() != nil:
		return l, err
	case err == redial.ErrClosed:
		return nil, yonder.Errorf(yonder.Unavailable, "%w", yonder.ErrClientClosed)
	}
	return nil, yonder.Errorf(yonder.Unavailable, "yonder: cannot connect: %w", err)
}

// Call implements [yonder.Transport].
func (t *transport) Call(ctx context.Context, call *yonder.Call) error {
	sent, err := t.make(ctx, call)
	if err != nil && !sent {
		return yonder.NotRun(err)
	}
	return err
}

// make makes a call. sent is false if no connection has been given it.
func (t *transport) make(ctx context.Context, call *yonder.Call) (sent bool, err error) {
	if ctx.Err() != nil {
		return false, ended(ctx, call)
	}
	frame, err := encode(RPCData{Func: call.Procedure, Args: append([]any(nil), call.Args()...)})
	if err != nil {
		return false, yonder.Errorf(yonder.InvalidArgument, "yonder: call %q: the arguments cannot be encoded: %w", call.Procedure, err)
	}
	for again := 0; ; again++ {
		l, err := t.connection(ctx)
		if ctx.Err() != nil {
			return false, ended(ctx, call)
		}
		if err != nil {
			return false, refused(call, err)
		}
		sent, err := l.call(ctx, call, frame)
		switch {
		case sent || err == nil || ctx.Err() != nil:
			return sent, err
		case t.only != nil && !errors.Is(err, yonder.ErrClientClosed):
			return false, refused(call, fmt.Errorf("%w; this client was given its connection and cannot make another, as those of session.Dial do", err))
		case t.only != nil || t.line.Closed() || again == 2:
			return false, refused(call, err)
		}
	}
}

// refused is what a call is told that was not made, because of err.
func refused(call *yonder.Call, err error) error {
	return &yonder.Error{
		Code: yonder.Unavailable, Err: err,
		Message: fmt.Sprintf("yonder: call %q: %s", call.Procedure, strings.TrimPrefix(err.Error(), "yonder: ")),
	}
}

// ended is what a call is told when its context has ended.
func ended(ctx context.Context, call *yonder.Call) error {
	err := ctx.Err()
	if cause := context.Cause(ctx); cause != err {
		err = fmt.Errorf("%w: %w", err, cause)
	}
	return yonder.Errorf(yonder.CodeOf(ctx.Err()), "yonder: call %q: %w", call.Procedure, err)
}

// link is a connection to a server.
type link struct {
	dialer  *yonder.Dialer
	conn    net.Conn
	limits  yonder.Limits
	slots   chan struct{} // one for each call without an answer
	done    chan struct{} // closed when err is set
	running sync.WaitGroup

	mu      sync.Mutex
	changed sync.Cond   // when out or err does
	out     [][]byte    // frames to be written
	waiting []*exchange // for answers, in their order
	err     error       // why no call can be made any more
}

// exchange is a call on its way.
type exchange struct {
	oneWay bool
	types  []reflect.Type // of the results
	done   chan struct{}  // closed when answer or err is set
	answer RPCData
	err    error
}

func newLink(d *yonder.Dialer, conn net.Conn) *link {
	l := &link{dialer: d, conn: conn, limits: d.Limits.WithDefaults(), done: make(chan struct{})}
	l.slots = make(chan struct{}, l.limits.MaxCalls)
	l.changed.L = &l.mu
	l.running.Go(l.readAnswers)   // ends with the connection
	l.running.Go(l.writeRequests) // ends with fail
	return l
}

// Lost implements [redial.Conn].
func (l *link) Lost() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// Close implements [redial.Conn].
func (l *link) Close() error {
	l.fail(yonder.ErrClientClosed)
	l.running.Wait()
	return nil
}

// fail ends the connection, for the first cause it is given.
func (l *link) fail(cause error) {
	l.mu.Lock()
	first := l.err == nil
	if first {
		l.err = cause
		close(l.done)
		l.changed.Broadcast()
	}
	l.mu.Unlock()
	if first {
		l.conn.Close()
	}
}

// lost says how the connection was lost.
type lost struct{ how error }

func (e *lost) Error() string        { return "connection lost: " + e.how.Error() }
func (e *lost) Is(target error) bool { return target == yonder.ErrConnectionLost }
func (e *lost) Unwrap() error        { return e.how }

// failure is why the connection has ended.
func (l *link) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// call sends a call and waits for its answer. It reports whether the call may have been sent;
// if not, err is why the connection has ended, or of ctx.
func (l *link) call(ctx context.Context, call *yonder.Call, frame []byte) (sent bool, err error) {
	x := &exchange{oneWay: call.OneWay, done: make(chan struct{})}
	for _, p := range call.Places() {
		x.types = append(x.types, reflect.TypeOf(p).Elem())
	}
	select {
	case l.slots <- struct{}{}:
	case <-l.done:
		return false, l.failure()
	case <-ctx.Done():
		return false, ended(ctx, call)
	}
	if !l.send(frame, x) {
		return false, l.failure()
	}
	if call.OneWay {
		return true, nil
	}
	select {
	case <-x.done:
	case <-ctx.Done():
		return true, ended(ctx, call)
	case <-l.done:
		select {
		case <-x.done: // the answer was the last that came
		default:
			return true, refused(call, l.failure())
		}
	}
	if x.err != nil {
		return true, yonder.Errorf(codeOr(x.err, yonder.Internal), "yonder: call %q: %w", call.Procedure, x.err)
	}
	return true, l.settle(call, x.answer.Args)
}

// send puts a request on its way, unless the connection has ended.
func (l *link) send(frame []byte, x *exchange) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return false
	}
	l.out = append(l.out, frame)
	l.waiting = append(l.waiting, x)
	l.changed.Signal()
	return true
}

// writeRequests writes what send gives it.
func (l *link) writeRequests() {
	w := bufio.NewWriter(&partWriter{l.conn, l.limits.KeepAlive})
	for {
		l.mu.Lock()
		for len(l.out) == 0 && l.err == nil {
			l.changed.Wait()
		}
		out := l.out
		l.out = nil
		over := l.err != nil
		l.mu.Unlock()
		if over {
			return
		}
		var err error
		for _, frame := range out {
			if _, err = w.Write(frame); err != nil {
				break
			}
		}
		if err == nil {
			err = w.Flush()
		}
		if err != nil {
			l.fail(&lost{err})
			return
		}
	}
}

// readAnswers gives answers to the calls that wait for them.
func (l *link) readAnswers() {
	m := messageReader{conn: l.conn, r: bufio.NewReader(l.conn), most: l.limits.MaxMessage, patience: l.limits.KeepAlive}
	var known decoders
	for {
		data, err := m.read()
		large, isLarge := err.(*tooLarge)
		if err != nil && !isLarge {
			l.fail(&lost{err})
			return
		}
		l.mu.Lock()
		var x *exchange
		if len(l.waiting) > 0 {
			x, l.waiting[0] = l.waiting[0], nil
			l.waiting = l.waiting[1:]
		}
		l.mu.Unlock()
		if x == nil {
			l.fail(&lost{errors.New("the server has answered what was not asked")})
			return
		}
		<-l.slots
		switch {
		case isLarge:
			x.err = yonder.Errorf(yonder.ResourceExhausted, "%w", large)
		case !x.oneWay:
			x.answer, x.err = decode(data, &known, func(string) {
				for _, typ := range x.types {
					register(typ)
				}
			})
			if x.err != nil {
				x.err = fmt.Errorf("the answer cannot be decoded: %w", x.err)
			}
		}
		close(x.done)
	}
}

// settle stores the results of a call, or returns its error.
func (l *link) settle(call *yonder.Call, results []any) error {
	places := call.Places()
	if n := len(results); n > 0 {
		if e, ok := results[n-1].(wireError); ok {
			return l.remote(e)
		}
		if n == len(places)+1 {
			switch err := results[n-1].(type) {
			case nil:
				results = results[:n-1]
			case error: // of a type that the program has registered
				return l.withType(err)
			}
		}
	}
	if len(results) != len(places) {
		return yonder.Errorf(yonder.Internal, "yonder: call %q: the answer has %d results, not %d", call.Procedure, len(results), len(places))
	}
	for i, result := range results {
		if err := assign(reflect.ValueOf(places[i]).Elem(), result); err != nil {
			return yonder.Errorf(yonder.Internal, "yonder: call %q: result %d: %w", call.Procedure, i+1, err)
		}
	}
	return nil
}

// remote returns the error that an answer has.
func (l *link) remote(e wireError) error {
	if len(e.Record) == 0 { // of a peer that has only the text
		e.Record = new(yonder.Server).EncodeError(errors.New(e.Message), yonder.CBOR)
	}
	return l.dialer.DecodeError(e.Record, yonder.CBOR)
}

// withType returns an error of the other end that wraps err, which came as it is.
func (l *link) withType(err error) error {
	remote := l.dialer.DecodeError(new(yonder.Server).EncodeError(err, yonder.CBOR), yonder.CBOR)
	if e, ok := errors.AsType[*yonder.Error](remote); ok {
		if e.Err == nil {
			e.Err = err
		} else {
			e.Err = errors.Join(err, e.Err)
		}
	}
	return remote
}
