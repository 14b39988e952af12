package rpc

import (
	"context"
	"errors"
	"io"
	"log"
	"reflect"
	"sync"
	"time"

	"github.com/yonder-rpc/yonder"
)

// ServerError is an error that a method returned, as its text. If the server said more,
// the error is a [*yonder.Error] that wraps the ServerError.
type ServerError string

func (e ServerError) Error() string { return string(e) }

// Remote tells [yonder.IsRemote] that the server has said so.
func (e ServerError) Remote() bool { return true }

// ErrShutdown is the error of calls on a client that has been closed, or whose connection
// has ended.
var ErrShutdown = errors.New("connection is shut down")

// A Call is a call in flight, or one that has ended.
type Call struct {
	ServiceMethod string     // "Service.Method"
	Args          any        // the argument
	Reply         any        // a pointer for the reply; nil: it is thrown away
	Error         error      // once the call has ended
	Done          chan *Call // receives the Call when it has ended

	request Request      // its header
	with    *callContext // nil: no context is to be heeded
	unsent  bool         // the argument could not be encoded
	unmade  bool         // the connection was not given it, and Error is why
}

// callContext is what a call with a context has besides.
type callContext struct {
	ctx      context.Context
	metadata yonder.Metadata  // of the call
	reply    *yonder.Metadata // where that of the answer goes; nil: nowhere
	fresh    reflect.Value    // what the reply is decoded into, so that the caller may leave
	ext      requestExt       // what its header says beyond the standard package's
	ended    bool             // guarded by Client.mu
	stop     func() bool      // stops waiting for ctx to end; nil: nobody does
}

// done delivers the call, unless its channel is full, as in the standard package.
func (call *Call) done() {
	select {
	case call.Done <- call:
	default:
	}
}

// A Client calls the methods of a server over one connection. Its methods may be used by
// several goroutines at once.
type Client struct {
	codec  ClientCodec
	gob    *gobClientCodec // codec, if it is that
	goesOn bool            // behind a reply that cannot be decoded; the standard client does not
	over   chan struct{}   // closed when nothing more is read

	spare sync.Pool // of *ownCall

	sending  sync.Mutex // makes the calls of codec.WriteRequest follow each other
	response Response   // the reading goroutine's: the last one read

	mu       sync.Mutex // guards what follows
	seq      uint64     // of the next call
	pending  map[uint64]*Call
	left     map[uint64]bool // calls without an answer that their callers have left
	cancels  bool            // the server understands cancelMethod
	closing  bool            // by Close
	shutdown bool            // nothing more is read
}

// NewClient returns a client of the server at the other end of a connection, in gob. It
// owns conn from then on. See [Dialer] for limits.
func NewClient(conn io.ReadWriteCloser) *Client { return new(Dialer).NewClient(conn) }

// NewClientWithCodec is [NewClient] in another encoding. It owns codec from then on.
func NewClientWithCodec(codec ClientCodec) *Client { return newClient(codec, false) }

func newClient(codec ClientCodec, goesOn bool) *Client {
	c := &Client{codec: codec, goesOn: goesOn, over: make(chan struct{}), pending: make(map[uint64]*Call)}
	c.gob, _ = codec.(*gobClientCodec)
	if c.gob != nil {
		c.gob.out.failed = c.failed
	}
	go c.read() // ends with the connection
	return c
}

// Close closes the connection. The calls in flight fail. On a client that was closed
// before it returns [ErrShutdown].
func (client *Client) Close() error {
	client.mu.Lock()
	closing := client.closing
	client.closing = true
	client.mu.Unlock()
	if closing {
		return ErrShutdown
	}
	return client.codec.Close()
}

// Call calls a method, waits for it, and returns its error.
func (client *Client) Call(serviceMethod string, args any, reply any) error {
	if client.gob == nil { // a codec may keep the Call's Request
		call := &Call{ServiceMethod: serviceMethod, Args: args, Reply: reply, Done: make(chan *Call, 1)}
		client.send(call, false)
		return (<-call.Done).Error
	}
	own := client.ownCall()
	own.Call = Call{ServiceMethod: serviceMethod, Args: args, Reply: reply, Done: own.Done}
	client.send(&own.Call, false)
	err := (<-own.Done).Error
	client.free(own)
	return err
}

// An ownCall is a Call that only this package knows, and what belongs to it.
type ownCall struct {
	Call
	context  callContext
	metadata yonder.Metadata // of the answer
}

// ownCall returns an ownCall of which nothing but Done is set.
func (client *Client) ownCall() *ownCall {
	if c, ok := client.spare.Get().(*ownCall); ok {
		return c
	}
	c := new(ownCall)
	c.Done = make(chan *Call, 1)
	return c
}

// free gives back a call that has been delivered, and not left: nobody knows it any more.
func (client *Client) free(c *ownCall) {
	done := c.Done
	*c = ownCall{}
	c.Done = done
	client.spare.Put(c)
}

// Go starts a call and returns it when it has been written, so that Close does not lose it.
// When it has ended, it is sent to done; nil: to a channel that Go makes. Go panics if done
// has no buffer. A call for which the buffer has no room is not delivered.
func (client *Client) Go(serviceMethod string, args any, reply any, done chan *Call) *Call {
	call := newCall(serviceMethod, args, reply, done)
	client.send(call, true)
	return call
}

func newCall(serviceMethod string, args any, reply any, done chan *Call) *Call {
	if done == nil {
		done = make(chan *Call, 10)
	} else if cap(done) == 0 {
		log.Panic("rpc: done channel is unbuffered")
	}
	return &Call{ServiceMethod: serviceMethod, Args: args, Reply: reply, Done: done}
}

// CallContext is [Client.Call] that returns ctx's error when ctx ends; reply is not touched
// after that. With gob, ctx's deadline and the metadata of [yonder.WithMetadata] go to the
// server, where a method that takes a context finds them; when ctx ends, a server of this
// package ends the method's context; and [yonder.CodeOf] knows the code that a server of
// this package gives an error. Stock servers do the call and ignore all that. Where the
// standard client would merge the answer into what reply points to, it is replaced.
//
// A context that has none of these costs nothing: the call is what Call makes of it. With
// other codecs CallContext does not return before the codec's WriteRequest has.
func (client *Client) CallContext(ctx context.Context, serviceMethod string, args any, reply any) error {
	call := &Call{ServiceMethod: serviceMethod, Args: args, Reply: reply, Done: make(chan *Call, 1)}
	if !client.start(ctx, call, false) {
		return call.Error
	}
	if call.with != nil {
		select {
		case <-call.Done:
			return call.Error
		case <-ctx.Done():
			client.leave(call, ctx.Err())
		}
	}
	return (<-call.Done).Error
}

// GoContext is [Client.Go] as [Client.CallContext] is Call. It does not wait for its call to be
// written when ctx has ended.
func (client *Client) GoContext(ctx context.Context, serviceMethod string, args any, reply any, done chan *Call) *Call {
	call := newCall(serviceMethod, args, reply, done)
	if !client.start(ctx, call, true) {
		call.done()
		return call
	}
	if call.with == nil {
		return call
	}
	stop := context.AfterFunc(ctx, func() { client.leave(call, ctx.Err()) })
	client.mu.Lock()
	ended := call.with.ended
	call.with.stop = stop
	client.mu.Unlock()
	if ended {
		stop()
	}
	return call
}

// start sends a call with a context, as send does, unless that has ended.
func (client *Client) start(ctx context.Context, call *Call, wait bool) bool {
	if err := over(ctx); err != nil {
		call.Error = err
		return false
	}
	m, reply := yonder.Outgoing(ctx)
	if ctx.Done() != nil || len(m) > 0 || reply != nil {
		call.with = &callContext{ctx: ctx, metadata: m, reply: reply}
		if v := reflect.ValueOf(call.Reply); v.Kind() == reflect.Pointer && !v.IsNil() {
			call.with.fresh = reflect.New(v.Type().Elem())
		}
	}
	client.send(call, wait)
	return true
}

// over returns why a context has ended, or is about to, since its time is up; nil: it has not.
func over(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return nil
}

// extension returns what a request says beyond the standard package's.
func (with *callContext) extension() *requestExt {
	with.ext = requestExt{metadata: with.metadata, features: featureCancel}
	if deadline, ok := with.ctx.Deadline(); ok {
		with.ext.timeout = max(time.Until(deadline), 1)
	}
	return &with.ext
}

// send sends a call, or ends it with an error. If wait is set, it returns when the call has been
// written, or its context has ended.
func (client *Client) send(call *Call, wait bool) {
	if client.gob == nil {
		client.sending.Lock()
		defer client.sending.Unlock()
	}
	client.mu.Lock()
	if client.shutdown || client.closing {
		client.mu.Unlock()
		call.unmade = true
		client.end(call, ErrShutdown)
		return
	}
	call.request = Request{ServiceMethod: call.ServiceMethod, Seq: client.seq}
	client.seq++
	client.pending[call.request.Seq] = call
	crowded := len(client.pending) > 1
	client.mu.Unlock()
	sent := false
	defer func() {
		if !sent { // a panic of gob's, for a nil pointer, or of the argument's own
			client.take(call.request.Seq)
		}
	}()
	err := client.write(call, crowded, wait)
	sent = true
	if err != nil && client.take(call.request.Seq) != nil {
		client.end(call, err)
	}
}

func (client *Client) write(call *Call, crowded, wait bool) error {
	r := &call.request
	if client.gob == nil {
		return client.codec.WriteRequest(r, call.Args)
	}
	how := putting{crowded: crowded, wait: wait}
	if call.with != nil {
		r.ext = call.with.extension()
		how.done = call.with.ctx.Done()
	}
	err := client.gob.out.put(how, r.Seq, r, call.Args)
	if e, ok := err.(encodeError); ok {
		call.unsent = true
		return e.err
	}
	if err == errNotSent {
		call.unmade = true
		return call.with.ctx.Err()
	}
	return err
}

// take removes a call from those that wait for an answer.
func (client *Client) take(seq uint64) *Call {
	client.mu.Lock()
	defer client.mu.Unlock()
	call := client.pending[seq]
	delete(client.pending, seq)
	delete(client.left, seq)
	return call
}

// end ends a call that has been taken, unless its caller has left.
func (client *Client) end(call *Call, err error) {
	if with := call.with; with != nil {
		client.mu.Lock()
		ended := with.ended
		with.ended = true
		stop := with.stop
		client.mu.Unlock()
		if stop != nil {
			stop()
		}
		if ended {
			return
		}
		if err == nil && with.fresh.IsValid() {
			reflect.ValueOf(call.Reply).Elem().Set(with.fresh.Elem())
		}
	}
	call.Error = err
	call.done()
}

// leave ends a call whose context has ended, and has the server told.
func (client *Client) leave(call *Call, err error) {
	client.mu.Lock()
	if call.with.ended {
		client.mu.Unlock()
		return
	}
	call.with.ended = true
	_, waiting := client.pending[call.request.Seq]
	_, timed := call.with.ctx.Deadline()
	told := timed && err == context.DeadlineExceeded // when it was called
	tell := waiting && client.cancels && !told
	if waiting {
		delete(client.pending, call.request.Seq)
		if client.gob != nil && !told {
			if client.left == nil {
				client.left = make(map[uint64]bool)
			}
			client.left[call.request.Seq] = true
		}
	}
	client.mu.Unlock()
	call.Error = err
	call.done()
	if tell {
		go client.cancel(call.request.Seq) // ends when it is written, or the connection is closed
	}
}

// cancel has the server end the context of a call. Nobody waits for the answer.
func (client *Client) cancel(seq uint64) {
	client.mu.Lock()
	own := client.seq
	client.seq++
	client.mu.Unlock()
	r := Request{ServiceMethod: cancelMethod, Seq: own}
	client.gob.out.put(putting{}, r.Seq, &r, &cancelArgs{seq})
}

// understood notes what the server has said that it understands, and cancels what was left
// before that.
func (client *Client) understood(features uint64) {
	if features&featureCancel == 0 || client.gob == nil {
		return
	}
	client.mu.Lock()
	client.cancels = true
	left := make([]uint64, 0, len(client.left))
	for seq := range client.left {
		left = append(left, seq)
	}
	client.mu.Unlock()
	if len(left) == 0 {
		return
	}
	go func() { // ends when all is written, or the connection is closed
		for _, seq := range left {
			client.cancel(seq)
		}
	}()
}

// failed ends calls that could not be written, after those that wrote them have returned.
func (client *Client) failed(seqs []uint64, err error) {
	for _, seq := range seqs {
		if call := client.take(seq); call != nil {
			client.end(call, err)
		}
	}
}

// read reads answers until there are no more.
func (client *Client) read() {
	defer close(client.over)
	var err error
	for err == nil {
		err = client.readAnswer()
	}
	client.mu.Lock()
	client.shutdown = true
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
		if client.closing {
			err = ErrShutdown
		}
	}
	pending := client.pending
	client.pending, client.left = make(map[uint64]*Call), nil
	client.mu.Unlock()
	for _, call := range pending {
		client.end(call, err)
	}
}

// readAnswer reads an answer and ends its call. It returns an error if no other can be read.
func (client *Client) readAnswer() error {
	r := &client.response
	*r = Response{}
	if err := client.codec.ReadResponseHeader(r); err != nil {
		return err
	}
	call := client.take(r.Seq)
	if r.ext != nil {
		client.understood(r.ext.features)
	}
	if call == nil || r.Error != "" {
		err := client.codec.ReadResponseBody(nil)
		if call != nil {
			client.answered(call, r)
			client.end(call, r.err())
		}
		if err != nil {
			return refused(errors.New("reading error body: "+err.Error()), err)
		}
		return nil
	}
	into := call.Reply
	if call.with != nil && call.with.fresh.IsValid() {
		into = call.with.fresh.Interface()
	}
	err := client.codec.ReadResponseBody(into)
	if err != nil {
		text := errors.New("reading body " + err.Error())
		if refused(err, err) == nil {
			code := yonder.Internal
			if e, ok := errors.AsType[*messageError](err); ok && e.size {
				code = yonder.ResourceExhausted
			}
			client.end(call, yonder.Errorf(code, "%w", text))
			return nil
		}
		if client.goesOn && client.gob != nil && client.gob.guard.err == nil {
			client.end(call, yonder.Errorf(yonder.Internal, "%w", text))
			return nil
		}
		client.end(call, text)
		return err
	}
	client.answered(call, r)
	client.end(call, nil)
	return nil
}

// refused returns err, or nil if cause is that a message was refused whose end is known.
func refused(err, cause error) error {
	if _, ok := errors.AsType[*messageError](cause); ok {
		return nil
	}
	return err
}

// answered gives a caller the metadata of an answer.
func (client *Client) answered(call *Call, r *Response) {
	if call.with == nil || call.with.reply == nil {
		return
	}
	client.mu.Lock()
	defer client.mu.Unlock()
	if call.with.ended {
		return
	}
	*call.with.reply = nil
	if r.ext != nil {
		*call.with.reply = r.ext.metadata
	}
}

// err returns the error that a response is.
func (r *Response) err() error {
	text := ServerError(r.Error)
	if r.ext == nil || r.ext.code == 0 {
		return text
	}
	e := yonder.FromPeer(yonder.Error{Code: r.ext.code, Message: r.Error, Err: text})
	// The server's clock may be ahead of the client's: the caller should not see a difference.
	switch e.Code {
	case yonder.Canceled:
		e.Err = errors.Join(text, context.Canceled)
	case yonder.DeadlineExceeded:
		e.Err = errors.Join(text, context.DeadlineExceeded)
	}
	return e
}
