package yonder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/yonder-rpc/yonder/internal/fn"
	"github.com/yonder-rpc/yonder/internal/mux"
	"github.com/yonder-rpc/yonder/internal/wire"
)

// A Dialer connects to servers. Its zero value is ready to use. Its fields must not
// be changed once it is used.
type Dialer struct {
	// NetDial makes the connection; nil: a net.Dialer does. A *tls.Dialer's DialContext fits.
	// An address of another scheme than tcp and unix is its business: of "ws://host/yonder"
	// the network is "ws", and the address "host/yonder".
	NetDial func(ctx context.Context, network, address string) (net.Conn, error)
	// DialTimeout bounds one attempt to connect. Zero means 10 seconds.
	DialTimeout time.Duration
	// Timeout bounds the calls of bound functions that take no context and return no
	// stream. Zero: no bound.
	Timeout time.Duration
	// Server has what the other end may call. Nil: nothing.
	Server *Server
	// Codec encodes the values, both ways. Nil means [CBOR]. The server must have it, too:
	// see [Server.Codecs].
	Codec Codec
	// Compression is used with servers that have one of the same name. Nil: none.
	Compression Compression
	// Interceptors wrap every call; the first is the outermost. Nil: none.
	Interceptors []Interceptor
	// Errors lists errors that cross connections; see [Server.Errors].
	Errors map[string]error
	// Logger takes what an operator should know. Nil: slog.Default().
	Logger *slog.Logger
	// Limits bound what the other end may cost.
	Limits Limits
	// Measure has calls counted and timed, for [Client.Stats]; see [Server.Measure].
	Measure bool
	// Resume is how long a connection that [Dialer.Dial] has made may be lost without its calls
	// failing, if the server has a [Server.Resume]; the shorter window counts. The client dials
	// again, at once and then with pauses, and both ends send what the other has not got: calls,
	// streams, readers and callbacks go on, and none runs twice. New calls wait. Zero: calls in
	// flight fail with a lost connection. See [MayHaveRun].
	Resume time.Duration
}

// Dial connects to a server: see [Dialer.Dial].
func Dial(ctx context.Context, address string) (*Client, error) {
	return new(Dialer).Dial(ctx, address)
}

// NewClient returns a client over a connection: see [Dialer.NewClient].
func NewClient(conn io.ReadWriteCloser) *Client { return new(Dialer).NewClient(conn) }

// Dial connects to a server at "host:port", "tcp://host:port" or "unix:///path". ctx
// bounds only the first attempt, whose failure Dial returns. When the connection is
// lost later, and not resumed, the calls in flight fail with [Unavailable], and the next call connects
// again: at once after a loss, and after a failed attempt not before a pause of 20
// milliseconds to 2 seconds, growing and random. A call fails when one attempt has
// failed while it waited. One that has surely not run, since it was not sent, or the server
// shuts down, is made again on another connection, twice at most. See [MayHaveRun].
func (d *Dialer) Dial(ctx context.Context, address string) (*Client, error) {
	network, addr, err := splitAddress(address)
	if err != nil && d.NetDial == nil {
		return nil, err
	}
	c := d.client()
	c.dial = func(ctx context.Context) (io.ReadWriteCloser, error) {
		if d.NetDial != nil {
			return d.NetDial(ctx, network, addr)
		}
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	c.resumable()
	c.config.greet()
	if _, err := c.connect(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// NewClient returns a client over any connection whose other end serves it, such as
// one end of a pipe. It owns conn from then on. It cannot connect again. It panics if conn is nil, as what
// came with an error of net.Dial's is.
func (d *Dialer) NewClient(conn io.ReadWriteCloser) *Client {
	if conn == nil {
		panic("yonder: new client: the connection is nil")
	}
	c := d.client()
	c.config.greet()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.only = c.attachLocked(conn)
	c.useLocked(c.only)
	return c
}

func (d *Dialer) client() *Client {
	c := newClient(d)
	c.config = linkConfig{
		dialer: true, limits: d.Limits, codecs: []Codec{CBOR}, client: c,
		errs: newErrorTable(d.Errors), server: d.Server, logs: d.Logger, closed: ErrClientClosed,
		compression: d.Compression, workers: new(mux.Workers),
	}
	if d.Codec != nil {
		c.config.codecs[0] = d.Codec // which is used
		if d.Codec.Name() != CBOR.Name() {
			c.config.codecs = append(c.config.codecs, CBOR)
		}
	}
	c.resume = d.Resume
	c.dialTimeout = orDefault(d.DialTimeout, 10*time.Second, time.Millisecond, 1<<62)
	return c
}

func newClient(d *Dialer) *Client {
	c := &Client{refs: make(map[refKey]*ref), links: make(map[*link]bool), Timeout: d.Timeout}
	c.handler = chain(d.Interceptors, c.send)
	c.intercepted = len(d.Interceptors) > 0
	if d.Measure {
		c.calls = new(tallies)
	}
	c.life, c.end = context.WithCancel(context.Background())
	return c
}

// newPeer returns the client that calls the other end of an accepted connection.
func newPeer(l *link) *Client {
	c := newClient(new(Dialer))
	c.borrowed = true
	c.only = l
	c.current = l
	c.live.Store(l)
	return c
}

// Local returns a client of a server in the same process: see [Dialer.Local].
func Local(s *Server) *Client { return new(Dialer).Local(s) }

// Local returns a client of a server in the same process. Its calls encode nothing:
// arguments and results are passed on as they are, and what they point to is shared.
// All else is as over a connection: interceptors, contexts, streams, panics,
// and a caller that gives up returns at once. An error has the code and the text that it would have there,
// and beside what [Dialer.Errors] and [Server.Errors] name, errors.As finds all that it wraps, which a
// connection does not carry. There is no connection to close:
// calls in flight end by themselves, whoever closes or shuts down the client or s. Of the
// Dialer's fields Timeout and Interceptors count.
func (d *Dialer) Local(s *Server) *Client {
	c := newClient(d)
	c.local = &localServer{s}
	c.localCall = c.local.call
	return c
}

// A Client calls the procedures of another process. Its methods may be used by
// several goroutines at once; so may the functions it has bound.
type Client struct {
	// Timeout bounds the calls of bound functions that take no context and return no
	// stream. Zero: no bound. It must not be changed once functions are called.
	Timeout time.Duration

	handler     Handler      // the interceptors around send
	intercepted bool         // there are some
	local       *localServer // of Local
	localCall   Handler      // of local; a function, so that programs that have no use for it are without it
	transport   Transport
	borrowed    bool // the connection is not the client's to close
	config      linkConfig
	dial        func(ctx context.Context) (io.ReadWriteCloser, error) // nil: there is one connection only
	dialTimeout time.Duration
	resume      time.Duration   // how long a connection may be lost; zero: it is over then
	life        context.Context // ends with Close
	end         context.CancelFunc
	live        atomic.Pointer[link] // current, for calls that need no lock
	running     sync.WaitGroup       // goroutines
	spare       sync.Pool            // of *funcCall, those of bound functions
	calls       *tallies             // nil: they are not measured
	traffic     traffic
	pools       pools // of what [Remote] uses again

	only *link // if dial is nil: the connection

	mu       sync.Mutex
	current  *link
	links    map[*link]bool // current, and others until their calls have ended
	attempt  *attempt       // to connect; nil: none is under way
	failures int            // attempts that failed since the last that did not
	closed   bool
	refs     map[refKey]*ref
	bound    []*ref // what Check checks
}

type refKey struct{ name, signature string }

// attempt is an attempt to connect.
type attempt struct {
	done chan struct{} // closed when link or err is set
	link *link
	err  error
}

// Call makes a call: it is the [Handler] that bound functions use.
func (c *Client) Call(ctx context.Context, call *Call) error {
	call.carry(ctx)
	if c.calls != nil {
		return c.measured(ctx, call)
	}
	err := c.handler(ctx, call)
	call.deliver(ctx)
	if call.ends != nil {
		call.returned(ctx, err)
	}
	return err
}

// carry adds the context's metadata to the call's own, which counts where both have a
// key. When it is called again, because an interceptor may have passed on a context with
// more of it, it adds what is new there.
func (c *Call) carry(ctx context.Context) {
	m, _ := ctx.Value(outgoingKey{}).(*Metadata)
	if m == nil || m == c.carried {
		return
	}
	before := c.carried
	c.carried = m
	if len(c.Metadata) == 0 && before == nil {
		c.Metadata = *m
		return
	}
	all := make(Metadata, len(c.Metadata)+len(*m))
	maps.Copy(all, c.Metadata)
	for key, value := range *m {
		_, own := all[key]
		if before == nil && own {
			continue
		}
		if before != nil {
			if old, ok := (*before)[key]; ok && old == value {
				continue
			}
		}
		all[key] = value
	}
	c.Metadata = all
}

// deliver puts the metadata of the answer where [WithReply] wants it.
func (c *Call) deliver(ctx context.Context) {
	if into, ok := ctx.Value(replyKey{}).(*Metadata); ok {
		*into = c.Reply
	}
}

// send is the innermost Handler of the caller's side.
func (c *Client) send(ctx context.Context, call *Call) error {
	if c.intercepted {
		call.carry(ctx)
	}
	if call.proc != nil {
		return refused(call, Errorf(InvalidArgument, "it is being served; make another with NewCall"))
	}
	if c.transport != nil {
		if err := call.describe(); err != nil {
			return err
		}
		err := c.transport.Call(ctx, call)
		if err == nil && !call.plan.Plain {
			for i, p := range call.into {
				rangeable(&call.plan.Results[i], p)
			}
		}
		return err
	}
	if r := call.ref; r == nil || r.client != c || r.Name != call.Procedure { // an interceptor may have changed that
		if err := call.describe(); err != nil {
			return err
		}
		var err error
		if call.ref, err = c.ref(call.Procedure, call.plan); err != nil {
			return err
		}
	}
	if call.OneWay {
		if err := call.plainArgs(); err != nil {
			return err
		}
	}
	if c.local != nil {
		if c.life.Err() != nil {
			return refused(call, errClientClosed)
		}
		return c.localCall(ctx, call)
	}
	for again := 0; ; again++ {
		l := c.live.Load()
		if l == nil {
			var err error
			if l, err = c.connect(ctx); err != nil {
				if ctx.Err() != nil {
					return unrun(contextFailure(ctx, quoted(call)))
				}
				return refused(call, err)
			}
		}
		sent, err := l.exchange(ctx, call)
		if sent || err == nil || c.dial == nil || again == 2 || CodeOf(err) != Unavailable {
			return err
		}
		c.detach(l) // it was lost just now, or the peer goes, and has not run the call
	}
}

// refused returns the error of a call that cannot be made because of err.
func refused(call *Call, err error) error {
	return &Error{Code: CodeOf(err), Message: "yonder: " + quoted(call) + ": " + trimPrefix(err), Err: err, unrun: true}
}

// connect returns a connection, making one if there is none.
func (c *Client) connect(ctx context.Context) (*link, error) {
	for {
		c.mu.Lock()
		if c.closed {
			c.mu.Unlock()
			return nil, errClientClosed
		}
		if l := c.current; l != nil && (l.mux.Err() == nil || c.dial == nil) {
			c.mu.Unlock()
			return l, nil
		}
		a := c.attempt
		if a == nil {
			a = &attempt{done: make(chan struct{})}
			c.attempt = a
			pause := backoff(c.failures)
			c.running.Go(func() { c.try(a, pause) }) // ends with the attempt, which Close ends
		}
		c.mu.Unlock()
		select {
		case <-a.done:
			if a.err != nil {
				return nil, a.err
			}
			return a.link, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// backoff returns how long to wait after so many failed attempts.
func backoff(failures int) time.Duration {
	if failures == 0 {
		return 0
	}
	most := min(20*time.Millisecond<<min(failures-1, 10), 2*time.Second)
	return most/2 + rand.N(most/2)
}

// try makes one attempt to connect.
func (c *Client) try(a *attempt, pause time.Duration) {
	l, err := c.open(pause)
	for again := 0; again < 2; again++ {
		if _, lost := err.(*mux.LostError); !lost {
			break
		}
		l, err = c.open(backoff(again)) // the server was on its way out, and another may be there
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.attempt = nil
	switch {
	case c.closed:
		a.err = errClientClosed
	case err != nil:
		c.failures++
		err = asLost(err)
		a.err = &Error{Code: Unavailable, Message: "yonder: cannot connect: " + trimPrefix(err), Err: err}
	default:
		c.failures = 0
		a.link = l
		c.useLocked(l)
	}
	close(a.done)
}

// open makes a connection, after a pause. If it is not the client's first, it waits until the other
// end has greeted: a server that goes may have been connected to and yet never have looked, and of
// a call that was sent with the greeting nobody could tell whether it has run.
func (c *Client) open(pause time.Duration) (*link, error) {
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.life.Done():
		return nil, c.life.Err()
	}
	ctx, cancel := context.WithTimeout(c.life, c.dialTimeout)
	conn, err := c.dial(ctx)
	cancel()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		conn.Close()
		return nil, errClientClosed
	}
	first := c.current == nil
	l := c.attachLocked(conn)
	c.mu.Unlock()
	if first {
		return l, nil
	}
	return l, l.mux.Greeted()
}

// useLocked makes l the connection that calls use.
func (c *Client) useLocked(l *link) {
	c.current = l
	c.live.Store(l)
}

// attachLocked makes a connection of the client's of conn.
func (c *Client) attachLocked(conn io.ReadWriteCloser) *link {
	l := newLink(conn, nil, &c.traffic.count, &c.config)
	c.traffic.total.Add(1)
	c.traffic.open.Add(1)
	c.links[l] = true
	c.running.Go(func() { // ends when the peer has greeted; another one needs less of the stack
		err := l.begin()
		c.running.Go(func() { // ends with the connection
			if err == nil {
				l.run()
			}
			c.over(l)
		})
	})
	return l
}

// over forgets a connection that is over.
func (c *Client) over(l *link) {
	c.traffic.open.Add(-1)
	c.mu.Lock()
	delete(c.links, l)
	c.mu.Unlock()
	if c.dial != nil {
		c.detach(l)
	}
}

// detach has the next call connect again.
func (c *Client) detach(l *link) { c.live.CompareAndSwap(l, nil) }

// Close closes the connection. Calls in flight fail with [Unavailable] and
// [ErrClientClosed]. It waits for the client's goroutines. Closing the client of
// [PeerFrom] does nothing: its connection is another's.
func (c *Client) Close() error {
	if c.borrowed {
		return nil
	}
	c.mu.Lock()
	c.closed = true
	links := slices.Collect(maps.Keys(c.links))
	c.mu.Unlock()
	c.end()
	if c.transport != nil {
		return c.transport.Close()
	}
	for _, l := range links {
		l.mux.Close()
	}
	c.running.Wait()
	return nil
}

// Done returns a channel that is closed when no call can be made any more: the client
// has been closed, or has lost the only connection it can have.
func (c *Client) Done() <-chan struct{} {
	switch {
	case c.transport != nil:
		return c.transport.Done()
	case c.only != nil:
		return c.only.mux.Done()
	}
	return c.life.Done()
}

// ref returns the procedure of this name, called by this signature.
func (c *Client) ref(name string, plan *fn.Func) (*ref, error) {
	key := refKey{name, plan.Signature().String()}
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.refs[key]; r != nil {
		return r, nil
	}
	if len(c.refs) >= maxRefs {
		return nil, unrun(Errorf(ResourceExhausted, "yonder: call %q: this client has called %d procedures by different names or signatures, which is the limit", name, maxRefs))
	}
	r := &ref{Ref: mux.Ref{Index: uint32(len(c.refs)), Name: name, Signature: key.signature}, client: c}
	if c.calls != nil {
		r.tally = c.calls.of(name)
	}
	c.refs[key] = r
	return r, nil
}

// errClientClosed is [ErrClientClosed] with its code.
var errClientClosed = Errorf(Unavailable, "%w", ErrClientClosed)

// maxRefs is how many procedures, told apart by name and signature, a client calls.
const maxRefs = 1 << 20

// Bind makes the func variable that f points to call a procedure. The function's last
// result must be an error; arguments and results must fit the procedure's, which the
// first call finds out, or Check. Bind panics if f is not a pointer to such a
// variable: a mistake in the program. The network is only ever an error of a call.
func (c *Client) Bind(name string, f any) {
	v := reflect.ValueOf(f)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Func {
		panic(fmt.Sprintf("yonder: bind %q: %T is not a pointer to a func variable; use &f, where f is declared as var f func(...) (..., error)", name, f))
	}
	bound, err := c.bind(name, v.Elem().Type())
	if err != nil {
		panic(fmt.Sprintf("yonder: bind %q: %v", name, err))
	}
	v.Elem().Set(bound)
}

// BindService binds each exported field of the struct that service points to, which
// must be a func, to the procedure "name.Field". A tag `yonder:"x"` makes that
// "name.x"; the tag "-" leaves the field alone. It panics where Bind does.
func (c *Client) BindService(name string, service any) {
	v := reflect.ValueOf(service)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
		panic(fmt.Sprintf("yonder: bind service %q: %T is not a pointer to a struct of funcs", name, service))
	}
	v = v.Elem()
	found := false
	for i := range v.NumField() {
		field := v.Type().Field(i)
		method := field.Name
		if tag := field.Tag.Get("yonder"); tag != "" {
			method = tag
		}
		if !field.IsExported() || method == "-" {
			continue
		}
		if field.Type.Kind() != reflect.Func {
			panic(fmt.Sprintf("yonder: bind service %q: field %s is %v, not a func; tag it `yonder:\"-\"` to leave it alone", name, field.Name, field.Type))
		}
		bound, err := c.bind(name+"."+method, field.Type)
		if err != nil {
			panic(fmt.Sprintf("yonder: bind service %q: field %s: %v", name, field.Name, err))
		}
		v.Field(i).Set(bound)
		found = true
	}
	if !found {
		panic(fmt.Sprintf("yonder: bind service %q: %T has no exported func field", name, service))
	}
}

// bind returns a function of type t that calls a procedure.
func (c *Client) bind(name string, t reflect.Type) (reflect.Value, error) {
	plan, err := fn.Caller(t)
	if err != nil {
		return reflect.Value{}, err
	}
	r, err := c.boundRef(name, plan)
	if err != nil {
		return reflect.Value{}, err
	}
	streams := hasStreams(plan.Results)
	return plan.Make(func(ctx context.Context, args []reflect.Value) ([]reflect.Value, error) {
		if ctx == nil {
			ctx = context.Background()
			if c.Timeout > 0 && !streams {
				t := &lazyContext{deadline: time.Now().Add(c.Timeout)}
				defer t.end(context.Canceled)
				if c.intercepted { // what an interceptor leaves behind ends with this function, not when time is up
					t.derive()
				}
				ctx = t
			}
		}
		if res := c.direct(ctx, r); res != nil && res.takes(plan) {
			var results []reflect.Value
			err := c.local.do(ctx, r, res.proc, func(ctx context.Context) (err error) {
				results, err = res.proc.plan.Call(res.proc.fv, ctx, args)
				return err
			})
			return results, err
		}
		f, _ := c.spare.Get().(*funcCall)
		if f == nil {
			f = new(funcCall)
		}
		results := f.init(name, plan, args)
		f.ref = r
		err := c.Call(ctx, &f.Call)
		if c.keepsNothing(&f.Call) {
			f.reset()
			c.spare.Put(f)
		}
		return results, err
	}), nil
}

// keepsNothing reports whether nobody can have kept a call that is over: no interceptor or
// transport has seen it, and no streams, readers or functions belong to it.
func (c *Client) keepsNothing(call *Call) bool {
	return !c.intercepted && c.transport == nil && c.local == nil && call.plan.Plain
}

// boundRef is ref, and has Check check it.
func (c *Client) boundRef(name string, plan *fn.Func) (*ref, error) {
	r, err := c.ref(name, plan)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Contains(c.bound, r) {
		c.bound = append(c.bound, r)
	}
	return r, nil
}

// Check asks the other end whether it has all that has been bound, with signatures
// that fit, and returns what is wrong, joined. Nothing is run.
func (c *Client) Check(ctx context.Context) error {
	c.mu.Lock()
	bound := slices.Clone(c.bound)
	c.mu.Unlock()
	var errs []error
	for _, r := range bound {
		if len(errs) > 0 && ctx.Err() != nil {
			break
		}
		errs = append(errs, c.check(ctx, r))
	}
	return errors.Join(errs...)
}

func (c *Client) check(ctx context.Context, r *ref) error {
	if c.transport != nil {
		return errNoSignatures
	}
	if c.local != nil {
		if c.life.Err() != nil {
			return errClientClosed
		}
		_, err := c.local.resolve(r, false)
		return err
	}
	l, err := c.connect(ctx)
	if err != nil {
		return err
	}
	call := &Call{Procedure: r.Name, plan: &fn.Func{Plain: true}, ref: r}
	_, err = l.request(ctx, call, mux.Request{Ref: &r.Ref, Flags: wire.Check})
	return err
}

// Procedures lists what the other end has registered, unless it hides that.
func (c *Client) Procedures(ctx context.Context) ([]ProcedureInfo, error) {
	return Invoke[[]ProcedureInfo](ctx, c, proceduresName)
}

// Health asks whether the other end wants calls: see [Server.Health].
func (c *Client) Health(ctx context.Context) error { return c.Call(ctx, NewCall(healthName)) }

// Notify calls a procedure without waiting for it: it returns when the call is on its
// way. Nobody hears whether it succeeds.
func (c *Client) Notify(ctx context.Context, name string, args ...any) error {
	call := NewCall(name, args...)
	call.OneWay = true
	return c.Call(ctx, call)
}

// Invoke calls a procedure that has one result, once. The types of args are what the
// caller's view of its signature is made of. A procedure without a result is called
// by c.Call(ctx, NewCall(name, args...)).
func Invoke[T any](ctx context.Context, c *Client, name string, args ...any) (T, error) {
	var result T
	err := c.Call(ctx, NewCall(name, args...).Into(&result))
	if err != nil {
		result = *new(T)
	}
	return result, err
}

// Remote returns a function that calls a procedure of one argument and one result,
// on a path that takes no reflection in the call. Req and Resp must be plain values.
// It panics where [Client.Bind] does.
func Remote[Req, Resp any](c *Client, name string) func(ctx context.Context, req Req) (Resp, error) {
	plan, err := fn.Caller(reflect.TypeFor[func(context.Context, Req) (Resp, error)]())
	if err == nil && !plan.Plain {
		err = errors.New("it has streams, readers or functions, which Remote does not take; use Bind")
	}
	var r *ref
	if err == nil {
		r, err = c.boundRef(name, plan)
	}
	if err != nil {
		panic(fmt.Sprintf("yonder: remote %q: %v", name, err))
	}
	spare := c.pools.of(reflect.TypeFor[remoteCall[Req, Resp]]())
	return func(ctx context.Context, req Req) (Resp, error) {
		if res := c.direct(ctx, r); res != nil {
			if f, ok := res.proc.Func.(func(context.Context, Req) (Resp, error)); ok {
				var resp Resp
				err := c.local.do(ctx, r, res.proc, func(ctx context.Context) (err error) {
					resp, err = f(ctx, req)
					return err
				})
				if err != nil {
					return *new(Resp), err
				}
				return resp, nil
			}
		}
		v, _ := spare.Get().(*remoteCall[Req, Resp])
		if v == nil {
			v = new(remoteCall[Req, Resp])
		}
		v.req = req
		reusable, err := c.callRemote(ctx, &v.funcCall, plan, r, &v.req, &v.resp)
		resp := v.resp
		if reusable {
			v.req, v.resp = *new(Req), *new(Resp)
			spare.Put(v)
		}
		if err != nil {
			return *new(Resp), err
		}
		return resp, nil
	}
}

// remoteCall is a call of a function that [Remote] has made, which is used again where nobody can
// have kept it.
type remoteCall[Req, Resp any] struct {
	funcCall
	req  Req
	resp Resp
}

// callRemote makes such a call, and reports whether nobody can have kept it.
func (c *Client) callRemote(ctx context.Context, f *funcCall, plan *fn.Func, r *ref, req, resp any) (reusable bool, err error) {
	f.Procedure, f.plan, f.ref, f.indirect = r.Name, plan, r, true
	f.args, f.into = append(f.argv[:0], req), append(f.intov[:0], resp)
	err = c.Call(ctx, &f.Call)
	if reusable = c.keepsNothing(&f.Call); reusable {
		f.reset()
	}
	return reusable, err
}
