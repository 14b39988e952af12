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
)

// Dial connects to a server that speaks this package's protocol, at "host:port",
// "tcp://host:port" or "unix:///path". The client does not connect again when it has lost its
// connection.
func Dial(ctx context.Context, address string) (*yonder.Client, error) {
	network, addr, ok := strings.Cut(address, "://")
	if !ok {
		network, addr = "tcp", address
	}
	if network != "tcp" && network != "unix" {
		return nil, yonder.Errorf(yonder.InvalidArgument, "yonder: address %q: unknown scheme %q; use host:port, tcp://host:port or unix:///path", address, network)
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, yonder.Errorf(yonder.Unavailable, "yonder: cannot connect: %w", err)
	}
	return Over(new(yonder.Dialer), conn), nil
}

// Over returns a client of the server at the other end of conn, which it owns from then on. Of
// d's fields Timeout, Interceptors, Errors and Limits count: MaxMessage bounds an answer,
// MaxCalls is how many calls wait for theirs at a time, and KeepAlive bounds the pauses within
// an answer, and of a server that does not read.
//
// A call whose context ends returns at once, but the server is not told. A call that must not
// wait behind slower ones needs a connection of its own.
func Over(d *yonder.Dialer, conn net.Conn) *yonder.Client {
	return d.NewClientOver(newTransport(d, conn))
}

// transport is a [yonder.Transport] of the protocol.
type transport struct {
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

func newTransport(d *yonder.Dialer, conn net.Conn) *transport {
	t := &transport{dialer: d, conn: conn, limits: d.Limits.WithDefaults(), done: make(chan struct{})}
	t.slots = make(chan struct{}, t.limits.MaxCalls)
	t.changed.L = &t.mu
	t.running.Go(t.readAnswers)   // ends with the connection
	t.running.Go(t.writeRequests) // ends with fail
	return t
}

// Done implements [yonder.Transport].
func (t *transport) Done() <-chan struct{} { return t.done }

// Close implements [yonder.Transport].
func (t *transport) Close() error {
	t.fail(yonder.ErrClientClosed)
	t.running.Wait()
	return nil
}

// fail ends the connection, for the first cause it is given.
func (t *transport) fail(cause error) {
	t.mu.Lock()
	first := t.err == nil
	if first {
		t.err = cause
		close(t.done)
		t.changed.Broadcast()
	}
	t.mu.Unlock()
	if first {
		t.conn.Close()
	}
}

// lost says how the connection was lost.
type lost struct{ how error }

func (e *lost) Error() string        { return "connection lost: " + e.how.Error() }
func (e *lost) Is(target error) bool { return target == yonder.ErrConnectionLost }
func (e *lost) Unwrap() error        { return e.how }

// failure is what a call is told when the connection has ended.
func (t *transport) failure(call *yonder.Call) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return &yonder.Error{
		Code: yonder.Unavailable, Err: t.err,
		Message: fmt.Sprintf("yonder: call %q: %s", call.Procedure, strings.TrimPrefix(t.err.Error(), "yonder: ")),
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

// Call implements [yonder.Transport].
func (t *transport) Call(ctx context.Context, call *yonder.Call) error {
	if ctx.Err() != nil {
		return ended(ctx, call)
	}
	frame, err := encode(RPCData{Func: call.Procedure, Args: append([]any(nil), call.Args()...)})
	if err != nil {
		return yonder.Errorf(yonder.InvalidArgument, "yonder: call %q: the arguments cannot be encoded: %w", call.Procedure, err)
	}
	x := &exchange{oneWay: call.OneWay, done: make(chan struct{})}
	for _, p := range call.Places() {
		x.types = append(x.types, reflect.TypeOf(p).Elem())
	}
	select {
	case t.slots <- struct{}{}:
	case <-t.done:
		return t.failure(call)
	case <-ctx.Done():
		return ended(ctx, call)
	}
	if !t.send(frame, x) {
		return t.failure(call)
	}
	if call.OneWay {
		return nil
	}
	select {
	case <-x.done:
	case <-ctx.Done():
		return ended(ctx, call)
	case <-t.done:
		select {
		case <-x.done: // the answer was the last that came
		default:
			return t.failure(call)
		}
	}
	if x.err != nil {
		return yonder.Errorf(codeOr(x.err, yonder.Internal), "yonder: call %q: %w", call.Procedure, x.err)
	}
	return t.settle(call, x.answer.Args)
}

// send puts a request on its way, unless the connection has ended.
func (t *transport) send(frame []byte, x *exchange) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil {
		return false
	}
	t.out = append(t.out, frame)
	t.waiting = append(t.waiting, x)
	t.changed.Signal()
	return true
}

// writeRequests writes what send gives it.
func (t *transport) writeRequests() {
	w := bufio.NewWriter(&partWriter{t.conn, t.limits.KeepAlive})
	for {
		t.mu.Lock()
		for len(t.out) == 0 && t.err == nil {
			t.changed.Wait()
		}
		out := t.out
		t.out = nil
		over := t.err != nil
		t.mu.Unlock()
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
			t.fail(&lost{err})
			return
		}
	}
}

// readAnswers gives answers to the calls that wait for them.
func (t *transport) readAnswers() {
	m := messageReader{conn: t.conn, r: bufio.NewReader(t.conn), most: t.limits.MaxMessage, patience: t.limits.KeepAlive}
	for {
		data, err := m.read()
		large, isLarge := err.(*tooLarge)
		if err != nil && !isLarge {
			t.fail(&lost{err})
			return
		}
		t.mu.Lock()
		var x *exchange
		if len(t.waiting) > 0 {
			x, t.waiting = t.waiting[0], t.waiting[1:]
		}
		t.mu.Unlock()
		if x == nil {
			t.fail(&lost{errors.New("the server has answered what was not asked")})
			return
		}
		<-t.slots
		switch {
		case isLarge:
			x.err = yonder.Errorf(yonder.ResourceExhausted, "%w", large)
		case !x.oneWay:
			x.answer, x.err = decode(data, func(string) {
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
func (t *transport) settle(call *yonder.Call, results []any) error {
	places := call.Places()
	if n := len(results); n > 0 {
		if e, ok := results[n-1].(wireError); ok {
			return t.remote(e)
		}
		if n == len(places)+1 {
			switch err := results[n-1].(type) {
			case nil:
				results = results[:n-1]
			case error: // of a type that the program has registered
				return t.withType(err)
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
func (t *transport) remote(e wireError) error {
	if len(e.Record) == 0 { // of a peer that has only the text
		e.Record = new(yonder.Server).EncodeError(errors.New(e.Message), yonder.CBOR)
	}
	return t.dialer.DecodeError(e.Record, yonder.CBOR)
}

// withType returns an error of the other end that wraps err, which came as it is.
func (t *transport) withType(err error) error {
	remote := t.dialer.DecodeError(new(yonder.Server).EncodeError(err, yonder.CBOR), yonder.CBOR)
	if e, ok := errors.AsType[*yonder.Error](remote); ok {
		if e.Err == nil {
			e.Err = err
		} else {
			e.Err = errors.Join(err, e.Err)
		}
	}
	return remote
}
