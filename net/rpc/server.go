package rpc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/yonder-rpc/yonder"
)

// A Server has services that clients call. Its zero value is ready to use, and behaves as
// the standard package's, with panics and hostile peers excepted. Fields must not be
// changed once it serves; methods may be called by several goroutines.
type Server struct {
	// MaxMessage is the largest message accepted, in bytes: a header, an argument, or a
	// type's definition. It is compared before memory is taken. Zero means gob's own limit:
	// 8 GiB, or 1 GiB on 32-bit machines. A larger argument fails its call; a larger header
	// or definition ends the connection. Codecs other than gob have limits of their own.
	MaxMessage int
	// MaxCalls is how many calls a connection may have in flight. Zero: any number. When
	// there are so many, nothing more is read until one has ended; but from a client of this
	// package that has used a context, which may cancel one of them, as many again are read
	// and wait for their turn, of MaxMessage bytes together, or 64 MiB if that is zero.
	MaxCalls int
	// BadReplyIsError makes a reply that gob cannot encode an error of its call. Otherwise
	// it ends the connection, as in the standard package.
	BadReplyIsError bool
	// EmptyErrorIsError has an error whose text is empty arrive as an error, with a text that
	// says so. Otherwise it arrives as success, as in the standard package.
	EmptyErrorIsError bool

	registry atomic.Pointer[registry]
	spare    sync.Pool // of *serverCall

	mu        sync.Mutex // guards what follows, and replacing registry
	listeners map[net.Listener]bool
	sessions  map[*session]bool
	serving   sync.WaitGroup // sessions; added to only while closed is false
	closed    bool
}

// NewServer returns a new [Server].
func NewServer() *Server { return new(Server) }

// DefaultServer is the server of the package's functions.
var DefaultServer = NewServer()

// Register calls [Server.Register] of the [DefaultServer].
func Register(rcvr any) error { return DefaultServer.Register(rcvr) }

// RegisterName calls [Server.RegisterName] of the [DefaultServer].
func RegisterName(name string, rcvr any) error { return DefaultServer.RegisterName(name, rcvr) }

// Accept calls [Server.Accept] of the [DefaultServer].
func Accept(lis net.Listener) { DefaultServer.Accept(lis) }

// ServeConn calls [Server.ServeConn] of the [DefaultServer].
func ServeConn(conn io.ReadWriteCloser) { DefaultServer.ServeConn(conn) }

// ServeCodec calls [Server.ServeCodec] of the [DefaultServer].
func ServeCodec(codec ServerCodec) { DefaultServer.ServeCodec(codec) }

// ServeRequest calls [Server.ServeRequest] of the [DefaultServer].
func ServeRequest(codec ServerCodec) error { return DefaultServer.ServeRequest(codec) }

// Accept accepts connections and serves each, until the listener fails, which is logged,
// or [Server.Shutdown] or [Server.Close] closes it.
func (server *Server) Accept(lis net.Listener) {
	if !server.listen(lis) {
		lis.Close()
		return
	}
	defer func() {
		server.mu.Lock()
		delete(server.listeners, lis)
		server.mu.Unlock()
	}()
	for {
		conn, err := lis.Accept()
		if err != nil {
			if !server.isClosed() {
				log.Print("rpc.Serve: accept:", err.Error())
			}
			return
		}
		s := server.newSession(server.gobCodec(conn), conn)
		if !server.track(s) {
			conn.Close()
			return
		}
		go server.run(s) // ends with the connection
	}
}

func (server *Server) listen(lis net.Listener) bool {
	server.mu.Lock()
	defer server.mu.Unlock()
	if server.closed {
		return false
	}
	if server.listeners == nil {
		server.listeners = make(map[net.Listener]bool)
	}
	server.listeners[lis] = true
	return true
}

func (server *Server) isClosed() bool {
	server.mu.Lock()
	defer server.mu.Unlock()
	return server.closed
}

func (server *Server) gobCodec(conn io.ReadWriteCloser) *gobServerCodec {
	return newGobServerCodec(conn, server.MaxMessage, server.BadReplyIsError)
}

// ServeConn serves gob calls on a connection until the client hangs up or the server is
// shut down, and closes it when the calls in flight have been answered.
func (server *Server) ServeConn(conn io.ReadWriteCloser) {
	server.serve(server.gobCodec(conn), conn)
}

// ServeCodec is [Server.ServeConn] in another encoding.
func (server *Server) ServeCodec(codec ServerCodec) { server.serve(codec, nil) }

func (server *Server) serve(codec ServerCodec, conn any) {
	s := server.newSession(codec, conn)
	if !server.track(s) {
		codec.Close()
		return
	}
	server.run(s)
}

// run serves a session that is tracked.
func (server *Server) run(s *session) {
	defer server.serving.Done()
	s.serve(context.Background())
	server.mu.Lock()
	defer server.mu.Unlock()
	delete(server.sessions, s)
}

// ServeRequest reads one call, does it, and answers it. It does not close the codec. It
// returns the error of a call that could not be made, which the client has been told, or of
// reading.
func (server *Server) ServeRequest(codec ServerCodec) error {
	s := server.newSession(codec, nil)
	defer s.cancel(context.Canceled)
	c := &serverCall{session: s}
	readable, err := c.read()
	switch {
	case err == nil:
		c.run()
	case readable:
		c.answer(nil, err)
	}
	return err
}

// track has Shutdown wait for a session, unless the server is closed.
func (server *Server) track(s *session) bool {
	server.mu.Lock()
	defer server.mu.Unlock()
	if server.closed {
		return false
	}
	if server.sessions == nil {
		server.sessions = make(map[*session]bool)
	}
	server.sessions[s] = true
	server.serving.Add(1)
	return true
}

// Shutdown closes the listeners, lets the calls in flight end, answers new ones with an
// error, and closes each connection when nothing is in flight there. If ctx ends before
// that, it does as [Server.Close] and returns ctx's error. A server that has been shut down
// cannot serve again.
func (server *Server) Shutdown(ctx context.Context) error {
	for _, s := range server.close() {
		s.drain()
	}
	done := make(chan struct{})
	go func() { // ends when the sessions have, which Close hurries
		server.serving.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		server.Close()
		return ctx.Err()
	}
}

// Close closes the listeners and the connections. The contexts of methods that still run
// end, with [yonder.ErrServerClosed] as the cause; Close does not wait for those methods,
// but for everything else.
func (server *Server) Close() error {
	for _, s := range server.close() {
		s.kill(yonder.ErrServerClosed)
	}
	server.serving.Wait()
	return nil
}

func (server *Server) close() []*session {
	server.mu.Lock()
	defer server.mu.Unlock()
	server.closed = true
	for lis := range server.listeners {
		lis.Close()
	}
	sessions := make([]*session, 0, len(server.sessions))
	for s := range server.sessions {
		sessions = append(sessions, s)
	}
	return sessions
}

// A session is a connection that a server serves.
type session struct {
	server *Server
	find   func(name string) (callee, error)
	reuse  bool // calls, by server.spare
	codec  ServerCodec
	gob    *gobServerCodec // codec, if it is that
	conn   any             // for yonder.CallInfo; nil: the codec has it
	ctx    context.Context // of the methods that take one
	cancel context.CancelCauseFunc
	most   int           // calls in flight; zero: any number
	room   chan struct{} // has a value when a call has ended, or waits no more

	unanswered bool // the peer went while calls were in flight; the serving goroutine's
	announced  bool // the reading goroutine's: the client knows what is understood here

	sending sync.Mutex // makes the calls of codec.WriteResponse follow each other

	mu       sync.Mutex // guards what follows
	inFlight int
	waiting  []*serverCall          // read, and to begin when others have ended
	held     uint64                 // bytes of those, as they came
	calls    map[uint64]*serverCall // those that the client may cancel
	draining bool                   // no new calls; closed when none is in flight
	ended    bool                   // nothing more is read
	idle     chan struct{}          // closed when it has ended and nothing is in flight, or is waited for
}

func (server *Server) newSession(codec ServerCodec, conn any) *session {
	s := &session{server: server, find: server.find, reuse: true, codec: codec, conn: conn, idle: make(chan struct{})}
	s.most, s.room = max(server.MaxCalls, 0), make(chan struct{}, 1)
	s.gob, _ = codec.(*gobServerCodec)
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	return s
}

// serve reads calls until there are no more, or the peer breaks the protocol, and returns
// why. When ctx ends, it answers those that are in flight, unless the peer is gone.
func (s *session) serve(ctx context.Context) error {
	stop := func() bool { return true }
	drained := make(chan struct{})
	if ctx.Done() != nil {
		stop = context.AfterFunc(ctx, func() { s.drain(); close(drained) })
	}
	err := s.readCalls(ctx)
	cause := yonder.ErrConnectionLost
	if ctx.Err() != nil {
		cause = yonder.ErrServerClosed
	}
	s.cancel(cause)
	// The client may have closed one direction only, and still want the answers.
	s.mu.Lock()
	s.ended = true
	s.unanswered = s.inFlight > 0
	s.idleLocked()
	s.mu.Unlock()
	select {
	case <-s.idle:
	case <-ctx.Done():
	}
	s.hangUp()
	if !stop() {
		<-drained
	}
	return err
}

// readCalls reads calls and has them served, until nothing more can be read.
func (s *session) readCalls(ctx context.Context) error {
	for {
		var c *serverCall
		if s.reuse {
			c, _ = s.server.spare.Get().(*serverCall)
		}
		if c == nil {
			c = new(serverCall)
		}
		c.session = s
		readable, err := c.read()
		if err != nil {
			if !readable {
				return err
			}
			c.answer(nil, err)
			continue
		}
		if c.method == cancelling {
			s.end(c.arg.Interface().(cancelArgs).Seq)
			c.answer(true, nil)
			continue
		}
		s.admit(ctx, c)
	}
}

var errShuttingDown = yonder.Errorf(yonder.Unavailable, "rpc: the server is shutting down")

// maxWaiting is how many bytes the calls that wait may have, if MaxMessage does not say.
const maxWaiting = 64 << 20

// admit has a call served as soon as there are less in flight than may be. It returns when
// the call has begun or waits, or has been refused.
func (s *session) admit(ctx context.Context, c *serverCall) {
	for {
		s.mu.Lock()
		switch {
		case s.draining:
			s.mu.Unlock()
			c.answer(nil, errShuttingDown)
			return
		case s.most == 0 || s.inFlight < s.most:
			s.noteLocked(c)
			s.beginLocked(c)
			s.mu.Unlock()
			return
		case s.mayWaitLocked(c):
			s.noteLocked(c)
			s.waiting = append(s.waiting, c)
			s.held += c.size
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		select {
		case <-s.room:
		case <-s.ctx.Done(): // killed
		case <-ctx.Done():
			c.answer(nil, errShuttingDown)
			return
		}
	}
}

// mayWaitLocked reports whether more may be read behind a call that cannot begin yet: only a
// client that may cancel others needs that.
func (s *session) mayWaitLocked(c *serverCall) bool {
	if !s.announced || len(s.waiting) >= s.most {
		return false
	}
	most := uint64(maxWaiting)
	if s.server.MaxMessage > 0 {
		most = uint64(s.server.MaxMessage)
	}
	return len(s.waiting) == 0 || s.held+c.size <= most
}

// noteLocked remembers a call that the client may cancel.
func (s *session) noteLocked(c *serverCall) {
	if c.cancel == nil {
		return
	}
	if s.calls == nil {
		s.calls = make(map[uint64]*serverCall)
	}
	s.calls[c.request.Seq] = c
}

// beginLocked begins a call.
func (s *session) beginLocked(c *serverCall) {
	s.inFlight++
	c.crowded = s.inFlight > 1
	go c.serve() // ends when the method has returned and the answer is on its way
}

// finish uncounts a call, and begins one that waits.
func (s *session) finish(c *serverCall) {
	if c.cancel != nil {
		c.cancel(context.Canceled)
	}
	s.mu.Lock()
	s.inFlight--
	if s.calls[c.request.Seq] == c {
		delete(s.calls, c.request.Seq)
	}
	for len(s.waiting) > 0 && s.inFlight < s.most {
		next := s.waiting[0]
		s.leaveLocked(0)
		if err := s.late(next.ctx); err != nil { // nobody waits for it any more
			s.inFlight++
			go next.refuse(next.coded(yonder.CodeOf(err), err)) // ends when the answer is on its way
			continue
		}
		s.beginLocked(next)
	}
	last := s.draining && s.inFlight == 0
	s.idleLocked()
	s.mu.Unlock()
	if s.most > 0 {
		s.roomy()
	}
	if last {
		s.hangUp()
	}
}

// late returns why a call's context has ended, or is about to; nil: it has not. When the session's
// ends, that of a call which runs may end, and the call, before that of one which waits.
func (s *session) late(ctx context.Context) error {
	if ctx == nil {
		return nil
	}
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return cmp.Or(ctx.Err(), s.ctx.Err())
}

// leaveLocked removes a call from those that wait.
func (s *session) leaveLocked(i int) {
	s.held -= s.waiting[i].size
	s.waiting = slices.Delete(s.waiting, i, i+1)
}

// roomy has the reading goroutine look again whether there is room.
func (s *session) roomy() {
	select {
	case s.room <- struct{}{}:
	default:
	}
}

// hangUp closes the connection when the answers have been written.
func (s *session) hangUp() {
	if s.gob != nil {
		s.gob.out.finish()
	}
	s.codec.Close()
}

func (s *session) idleLocked() {
	if s.ended && s.inFlight == 0 {
		s.unblockLocked()
	}
}

func (s *session) unblockLocked() {
	select {
	case <-s.idle:
	default:
		close(s.idle)
	}
}

// end ends the context of a call, if it is in flight. One that waits does not begin.
func (s *session) end(seq uint64) {
	s.mu.Lock()
	c := s.calls[seq]
	i := slices.Index(s.waiting, c)
	if i >= 0 {
		s.leaveLocked(i)
		s.inFlight++ // until it is answered
	}
	s.mu.Unlock()
	switch {
	case i >= 0:
		c.refuse(c.coded(yonder.Canceled, context.Canceled))
	case c != nil:
		c.cancel(context.Canceled)
	}
}

// drain refuses new calls, and those that wait, and closes the connection when none is in
// flight.
func (s *session) drain() {
	s.mu.Lock()
	s.draining = true
	waiting := s.waiting
	s.waiting, s.held = nil, 0
	s.inFlight += len(waiting) // until they are answered
	last := s.inFlight == 0
	s.mu.Unlock()
	if last {
		s.hangUp()
	}
	if len(waiting) > 0 {
		go func() { // ends when the answers are on their way, or the connection is closed
			for _, c := range waiting {
				c.refuse(errShuttingDown)
			}
		}()
	}
}

// kill closes the connection and waits for nothing.
func (s *session) kill(cause error) {
	s.mu.Lock()
	s.draining = true
	for _, c := range s.waiting {
		delete(s.calls, c.request.Seq)
		if c.cancel != nil {
			c.cancel(cause)
		}
	}
	s.waiting, s.held = nil, 0
	s.mu.Unlock()
	s.cancel(cause)
	s.codec.Close()
	s.mu.Lock()
	s.unblockLocked()
	s.mu.Unlock()
}

// A serverCall is a call that a session has read.
type serverCall struct {
	session  *session
	request  Request
	ext      requestExt // of request
	response Response
	method   callee
	arg      reflect.Value
	size     uint64                  // bytes of the request, as they came
	unread   error                   // why the argument could not be decoded, for a procedure
	held     lateValue               // the argument, not decoded
	into     any                     // what it is decoded into; nil: nothing
	ctx      context.Context         // nil: the method takes none
	cancel   context.CancelCauseFunc // of ctx
	metadata yonder.Metadata         // of the answer
	crowded  bool                    // other calls are in flight
}

// cancelling is what cancelMethod is, unless the user has registered one of its name.
var cancelling = &method{name: "Cancel", arg: reflect.TypeFor[cancelArgs]()}

// read reads a call. If it fails, readable says that the next one can still be read, and
// this one's caller told of the error.
func (c *serverCall) read() (readable bool, err error) {
	s := c.session
	before := uint64(0)
	if s.gob != nil {
		before = s.gob.guard.seen
		c.request.space = &c.ext
	}
	if err := s.codec.ReadRequestHeader(&c.request); err != nil {
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return false, err
		}
		return false, errors.New("rpc: server cannot decode request: " + err.Error())
	}
	if ext := c.request.ext; ext != nil && !s.announced {
		s.announced = true
		if ext.features&featureCancel != 0 {
			s.gob.WriteResponse(&Response{Seq: announceSeq, ext: &responseExt{features: featureCancel}}, invalidRequest)
		}
	}
	m, err := s.find(c.request.ServiceMethod)
	if err != nil {
		if c.request.ServiceMethod == cancelMethod && s.announced {
			m, err = cancelling, nil
		}
	}
	if err != nil {
		s.codec.ReadRequestBody(nil)
		return true, c.coded(yonder.Unimplemented, err)
	}
	c.method = m
	into, arg := m.newArg()
	if s.gob != nil && s.gob.late != nil && m != cancelling {
		c.held, err = s.gob.holdRequestBody(into)
		c.into = into
	} else {
		err = s.codec.ReadRequestBody(into)
	}
	if err != nil {
		code := yonder.InvalidArgument
		if e, ok := err.(*messageError); ok && e.size {
			code = yonder.ResourceExhausted
		}
		if readable, err := m.undecoded(c, c.coded(code, err)); err != nil {
			return readable, err
		}
	}
	c.arg = arg
	if s.gob != nil {
		c.size = s.gob.guard.seen - before
	}
	m.prepare(c)
	return true, nil
}

// coded gives an error a code, if the client asked for more than the standard package sends.
func (c *serverCall) coded(code yonder.Code, err error) error {
	if c.request.ext == nil {
		return err
	}
	return yonder.Errorf(code, "%w", err)
}

// info is what a handler is told about the call.
func (c *serverCall) info() yonder.CallInfo {
	info := yonder.CallInfo{Procedure: c.request.ServiceMethod, Protocol: protocolName, Conn: c.session.conn}
	if ext := c.request.ext; ext != nil {
		info.Metadata = ext.metadata
	}
	return info
}

// context gives the call a context that ends with the caller's deadline, with the caller's
// own, and with ctx.
func (c *serverCall) context(ctx context.Context) {
	ctx, c.cancel = context.WithCancelCause(ctx)
	if ext := c.request.ext; ext != nil && ext.timeout != 0 {
		outer := c.cancel
		var stop context.CancelFunc
		ctx, stop = context.WithDeadline(ctx, time.Now().Add(ext.timeout))
		c.cancel = func(cause error) { outer(cause); stop() }
	}
	c.ctx = ctx
}

// refuse answers a call that has been counted, but has not begun.
func (c *serverCall) refuse(err error) {
	defer c.session.finish(c)
	c.answer(nil, err)
}

// serve runs a call and answers it. c is not to be used after that.
func (c *serverCall) serve() {
	defer func() {
		s := c.session
		s.finish(c)
		if c.cancel == nil { // else session.end may still hold it
			*c = serverCall{}
			s.server.spare.Put(c)
		}
	}()
	c.run()
}

func (c *serverCall) run() {
	returned := false
	defer func() {
		if !returned { // runtime.Goexit; a panic is an error by now, but for a codec's
			c.answer(nil, panicked(c.request.ServiceMethod))
		}
	}()
	reply, err := c.method.call(c)
	c.answer(reply, err)
	returned = true
}

// answer sends a reply or an error. That it cannot be sent nobody need be told: the
// connection is lost, and reading will say so.
func (c *serverCall) answer(reply any, err error) {
	s := c.session
	r := &c.response
	r.ServiceMethod, r.Seq = c.request.ServiceMethod, c.request.Seq
	if err != nil {
		r.Error = err.Error()
		if r.Error == "" && s.server.EmptyErrorIsError {
			r.Error = "rpc: " + r.ServiceMethod + " failed with an error that has no text"
		}
	}
	if r.Error != "" {
		reply = invalidRequest
	}
	if s.gob != nil {
		r.ext = c.extension(err)
		bad := s.gob.write(r, reply, c.crowded)
		if isEncodeError(bad) && s.server.BadReplyIsError && r.Error == "" {
			c.answer(nil, c.coded(yonder.Internal, fmt.Errorf("rpc: reply of %s: %w", r.ServiceMethod, bad)))
		}
		return
	}
	s.sending.Lock()
	defer s.sending.Unlock()
	s.codec.WriteResponse(r, reply)
}

// extension returns what the answer says beyond the standard package's: a code if the
// client asked for more than that package sends, or the method chose one, and metadata.
func (c *serverCall) extension(err error) *responseExt {
	var code yonder.Code
	if err != nil && c.response.Error != "" {
		code = yonder.CodeOf(err)
		if c.request.ext == nil {
			if _, chosen := errors.AsType[*yonder.Error](err); !chosen {
				code = 0
			}
		}
		if code == yonder.Unknown {
			code = 0 // what the client takes it for anyway
		}
	}
	if code == 0 && c.metadata == nil {
		return nil
	}
	return &responseExt{code: code, metadata: c.metadata}
}
