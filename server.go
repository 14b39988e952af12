package yonder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"reflect"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/yonder-rpc/yonder/internal/fn"
	"github.com/yonder-rpc/yonder/internal/mux"
	"github.com/yonder-rpc/yonder/internal/wire"
)

// A Server has functions that others may call. Its zero value is ready to use.
// Fields must not be changed once it serves; methods may be called at any time and
// by several goroutines.
//
// Register, RegisterService, Add and [Handle] panic if what they are given is
// unsuitable or its name is taken: that is a mistake in the program, found when it
// starts.
type Server struct {
	// Protocols are accepted besides the native one, which is tried first.
	Protocols []Protocol
	// Interceptors wrap every call; the first is the outermost. Nil: none.
	Interceptors []Interceptor
	// Codecs are accepted besides [CBOR], such as [JSON]. The client chooses. Nil: CBOR only.
	Codecs []Codec
	// Compression is used with clients that have one of the same name. Nil: none.
	Compression Compression
	// Errors lists sentinels and error types by a name that clients have too, so that
	// errors.Is and errors.As find them there. A zero value, such as a nil pointer, stands
	// for its type; another error is a sentinel. Nil: only those that [Error] names cross.
	Errors map[string]error
	// Logger takes what an operator should know: panics, connections that broke the
	// protocol. Nil: slog.Default().
	Logger *slog.Logger
	// Limits bound what a peer may cost.
	Limits Limits
	// Conns bounds how many connections there are, and how long they do nothing: a *[ConnLimits].
	// Nil: no bounds.
	Conns ConnLimiter
	// HideProcedures refuses to tell clients which procedures there are.
	HideProcedures bool
	// Measure has calls counted and timed, for [Server.Stats], which costs 0.1 microseconds a
	// call. False: Stats knows of connections only.
	Measure bool
	// Ready says whether the program wants calls, for [Server.Health]: an error says why not.
	// It is called by each who asks, by several at a time, and must end when ctx does. Nil: it
	// does while it serves.
	Ready func(ctx context.Context) error
	// Resume keeps connections of the native protocol that are lost, so that clients can go on
	// where they were: a *[Resumption]. Nil: calls are canceled with the loss of their connection.
	Resume Resumer

	ready   sync.Once
	handler Handler // the interceptors around invoke
	errs    *errorTable
	link    linkConfig
	workers mux.Workers
	pools   pools // of what [Handle] uses again

	refuses atomic.Bool // closed, for calls in the same process

	unknown   tally         // calls of procedures that there are not
	callbacks tally         // of functions among the arguments
	refused   atomic.Uint64 // connections of no protocol, or too many

	mu        sync.Mutex
	procs     map[string]*procedure
	builtin   map[string]*procedure
	traffic   map[string]*traffic // by protocol
	listeners map[net.Listener]bool
	links     map[*link]bool
	others    map[*other]bool    // connections that are not, or not yet, of the native protocol
	serving   sync.WaitGroup     // goroutines of connections
	closed    bool               // no new connections
	base      context.Context    // of other protocols' connections; ends with Shutdown or Close
	stop      context.CancelFunc // of base
}

// Register lets others call f under a name. f is any function of the form that
// [Procedure.Func] gives. When it returns an error, its other results do not reach the
// caller, who has zero values.
func (s *Server) Register(name string, f any) { s.Add(Procedure{Name: name, Func: f}) }

// Add registers p. Its fields are copied.
func (s *Server) Add(p Procedure) {
	p.Params, p.Protocols = slices.Clone(p.Params), slices.Clone(p.Protocols)
	s.add(newProcedure(p))
}

func (s *Server) add(p *procedure) {
	why := unsuitableName(p.Name)
	for i, param := range p.Params {
		if param == "" || slices.Contains(p.Params[:i], param) {
			why = "each of Params must be a name of its own"
		}
	}
	if why != "" {
		panic(fmt.Sprintf("yonder: register %q: %s", p.Name, why))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.procs[p.Name] != nil {
		panic(fmt.Sprintf("yonder: register %q: the name is taken", p.Name))
	}
	if s.procs == nil {
		s.procs = make(map[string]*procedure)
	}
	s.procs[p.Name] = p
}

// RegisterService registers the methods of service that are suitable, each as
// "name.Method", and returns the exported ones it left out. Methods of the shape that
// net/rpc wants, func(arg A, reply *R) error, count as A -> R. It panics if none is
// suitable.
func (s *Server) RegisterService(name string, service any) []Skipped {
	switch {
	case service == nil:
		panic(fmt.Sprintf("yonder: register service %q: it is nil", name))
	case name == "":
		panic("yonder: register service \"\": the name is empty")
	}
	suitable, left := fn.Methods(reflect.ValueOf(service))
	skipped := make([]Skipped, len(left))
	var why strings.Builder
	for i, m := range left {
		skipped[i] = Skipped{Method: m.Name, Reason: m.Reason}
		fmt.Fprintf(&why, "\n\t%s: %s", m.Name, m.Reason)
	}
	if len(suitable) == 0 {
		if len(left) == 0 {
			why.WriteString("; methods must be exported, and those of *T need a pointer")
		}
		panic(fmt.Sprintf("yonder: register service %q: %T has no suitable method%s", name, service, why.String()))
	}
	for _, m := range suitable {
		s.add(&procedure{
			Procedure: Procedure{Name: name + "." + m.Name},
			plan:      m.Func,
			fv:        m.Value,
			tally:     new(tally),
		})
	}
	return skipped
}

// Procedures describes what is registered, in the order of the names.
func (s *Server) Procedures() []ProcedureInfo {
	return s.describe(func(*procedure) bool { return true })
}

// Exposed is Procedures without those that do not exist for calls that come as info says, by its
// Protocol and Conn: see [Procedure.Protocols].
func (s *Server) Exposed(info CallInfo) []ProcedureInfo {
	return s.describe(func(p *procedure) bool { return p.exposed(info.Protocol, info.Conn) })
}

func (s *Server) describe(which func(*procedure) bool) []ProcedureInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]ProcedureInfo, 0, len(s.procs))
	for _, name := range s.namesLocked() {
		if p := s.procs[name]; which(p) {
			list = append(list, p.info())
		}
	}
	return list
}

// namesLocked returns the names of what is registered, in order.
func (s *Server) namesLocked() []string {
	names := slices.Collect(maps.Keys(s.procs))
	//lint:ignore S1032 as in wire.AppendMeta
	sort.Sort(sort.StringSlice(names))
	return names
}

// Names of the built-in procedures, which [Client.Procedures] and [Client.Health] call.
const (
	proceduresName = "yonder.procedures"
	healthName     = "yonder.health"
)

// builtins returns the procedures that every server has.
func (s *Server) builtins() map[string]*procedure {
	all := map[string]*procedure{healthName: newProcedure(Procedure{Name: healthName, Func: s.Health, Idempotent: true})}
	if !s.HideProcedures {
		all[proceduresName] = newProcedure(Procedure{Name: proceduresName, Idempotent: true, Func: func(ctx context.Context) []ProcedureInfo {
			info, _ := InfoFrom(ctx)
			return s.Exposed(info)
		}})
	}
	return all
}

// lookup finds a procedure for calls over a protocol and a connection.
func (s *Server) lookup(name, protocol string, conn any) (*procedure, error) {
	s.mu.Lock()
	p := s.procs[name]
	s.mu.Unlock()
	if p != nil && p.exposed(protocol, conn) {
		return p, nil
	}
	s.prepare()
	if p := s.builtin[name]; p != nil {
		return p, nil
	}
	if s.Measure {
		s.unknown.refuse(Unimplemented)
	}
	return nil, Errorf(Unimplemented, "yonder: no procedure %q%s", name, s.nearest(name, protocol, conn))
}

// nearest suggests what a caller may have meant by a name.
func (s *Server) nearest(name, protocol string, conn any) string {
	if s.HideProcedures {
		return ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, have := range s.namesLocked() {
		if strings.EqualFold(have, name) && s.procs[have].exposed(protocol, conn) {
			return fmt.Sprintf("; there is %q", have)
		}
	}
	return ""
}

// prepare settles what follows from the fields.
func (s *Server) prepare() {
	s.ready.Do(func() {
		s.handler = chain(s.Interceptors, func(ctx context.Context, call *Call) error {
			return call.resolved.invoke(ctx, call)
		})
		s.errs = newErrorTable(s.Errors)
		s.builtin = s.builtins()
		s.link = linkConfig{
			limits: s.Limits, codecs: append([]Codec{CBOR}, s.Codecs...), errs: s.errs, server: s, logs: s.Logger,
			closed: ErrServerClosed, compression: s.Compression, workers: &s.workers,
		}
		s.link.greet()
		s.mu.Lock()
		s.base, s.stop = context.WithCancel(context.Background())
		s.mu.Unlock()
	})
}

// logger is not inlined so that programs stay small.
//
//go:noinline
func (s *Server) logger() *slog.Logger {
	if s.Logger != nil {
		return s.Logger
	}
	return slog.Default()
}

// Call serves a call: it is the [Handler] that every protocol brings calls to. A
// panic of the procedure is an [Internal] error. A call that [NewCall] made is served as
// the client that [Local] returns has it served.
func (s *Server) Call(ctx context.Context, call *Call) (err error) {
	s.prepare()
	if call.proc == nil && call.direct == nil {
		return Errorf(InvalidArgument, "yonder: Server.Call: %s is to be made by NewCall", quoted(call))
	} else if call.proc == nil {
		return call.direct(s, ctx, call)
	}
	if call.link == nil && call.context == nil { // else the context is of a kind that knows the call
		ctx = context.WithValue(ctx, callKey{}, call)
	}
	if s.Measure {
		call.begin()
	}
	if s.Conns != nil && call.conn != nil {
		s.Conns.occupy(call)
	}
	done := false
	defer func() {
		if !done {
			// Either a panic, or runtime.Goexit, for which recover returns nil.
			err = panicked(s.logger(), call.Procedure, recover())
		}
		if call.began != 0 || call.ends != nil {
			call.returned(ctx, err)
		}
	}()
	err = s.handler(ctx, call)
	done = true
	if err == nil && call.out == nil && call.result == nil && len(call.proc.plan.Results) > 0 {
		return Errorf(Internal, "yonder: %s: there are no results: an interceptor has returned nil although the next handler was not called, or failed", quoted(call))
	}
	return err
}

// direct serves a call that is made of values: as a client in the same process has it served.
func (s *Server) direct(ctx context.Context, call *Call) error {
	if call.into == nil { // for Results
		proc, err := s.lookup(call.Procedure, localProtocol, nil)
		if err != nil {
			return localError(err)
		}
		for i := range proc.plan.Results {
			call.into = append(call.into, reflect.New(proc.plan.Results[i].Type).Interface())
		}
	}
	return Local(s).Call(ctx, call)
}

// ListenAndServe listens on an address and serves until Shutdown or Close. The address
// is "host:port", "tcp://host:port" or "unix:///path". A socket file that nobody
// listens on any more is replaced.
func (s *Server) ListenAndServe(address string) error {
	l, err := Listen(address)
	if err != nil {
		return err
	}
	return s.Serve(l)
}

// Listen listens on an address of the form that [Server.ListenAndServe] takes, for
// who wants to know the port that ":0" has become.
func Listen(address string) (net.Listener, error) {
	network, addr, err := splitAddress(address)
	if err != nil {
		return nil, err
	}
	if network == "unix" {
		removeStale(addr)
	}
	return net.Listen(network, addr)
}

// removeStale removes a socket that a process left behind when it died.
func removeStale(path string) {
	info, err := os.Stat(path)
	if err != nil || info.Mode()&os.ModeSocket == 0 {
		return
	}
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
	} else if errors.Is(err, syscall.ECONNREFUSED) {
		os.Remove(path)
	}
}

// splitAddress returns what package net calls a network and an address. With an error,
// they are the scheme and what follows it.
func splitAddress(address string) (network, addr string, err error) {
	const forms = "use host:port, tcp://host:port or unix:///path"
	network, addr, ok := strings.Cut(address, "://")
	switch {
	case !ok:
		network, addr = "tcp", address
	case network != "tcp" && network != "unix":
		return network, addr, Errorf(InvalidArgument, "yonder: address %q: unknown scheme %q; %s", address, network, forms)
	}
	if addr == "" { // package net would listen anywhere
		return network, addr, Errorf(InvalidArgument, "yonder: address %q: it is empty; %s", address, forms)
	}
	return network, addr, nil
}

// Serve accepts connections and serves them, each on goroutines of its own, until
// Shutdown or Close; then it returns [ErrServerClosed]. It closes l. An error of l's that
// is not temporary, as too many open files is, ends it, too.
func (s *Server) Serve(l net.Listener) error {
	s.prepare()
	defer l.Close()
	if s.Resume != nil {
		if err := s.Resume.check(); err != nil {
			return err
		}
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrServerClosed
	}
	if s.listeners == nil {
		s.listeners = make(map[net.Listener]bool)
	}
	s.listeners[l] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
	}()
	pause := time.Duration(0)
	for {
		conn, err := l.Accept()
		if err == nil {
			pause = 0
			s.mu.Lock()
			if s.closed {
				s.mu.Unlock()
				conn.Close()
				return ErrServerClosed
			}
			s.serving.Go(func() { // ends when it is clear what the connection is
				if serve, err := s.open(conn); err == nil {
					s.serving.Go(func() { serve() }) // ends with the connection
				}
			})
			s.mu.Unlock()
			continue
		}
		s.mu.Lock()
		closed := s.closed
		s.mu.Unlock()
		if closed {
			return ErrServerClosed
		}
		// Too many open files, most likely, passes; a listener that has been closed does not, and
		// not all say so by net.ErrClosed.
		var e interface{ Temporary() bool }
		if !errors.As(err, &e) || !e.Temporary() {
			return err
		}
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		s.logger().Warn("yonder: accept failed; trying again", "error", err, "pause", pause)
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-s.base.Done():
		}
		t.Stop()
	}
}

// ServeConn serves one connection until it ends, and returns why it did: nil if the
// peer closed it with no call in flight, or the server was closed.
func (s *Server) ServeConn(conn io.ReadWriteCloser) error {
	s.prepare()
	if s.Resume != nil {
		if err := s.Resume.check(); err != nil {
			conn.Close()
			return err
		}
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		conn.Close()
		return ErrServerClosed
	}
	s.serving.Add(1)
	s.mu.Unlock()
	defer s.serving.Done()
	serve, err := s.open(conn)
	if err != nil {
		return err
	}
	return serve()
}

// open detects a connection's protocol and returns what serves the connection until it ends: to be
// called by another goroutine, where there are many, since that needs less of the stack, and what a
// goroutine has once needed it never gives back.
func (s *Server) open(conn io.ReadWriteCloser) (serve func() error, err error) {
	o := &other{conn: conn, undecided: true}
	defer func() {
		if err != nil {
			s.untrack(o)
		}
	}()
	if err := s.track(o); err != nil {
		conn.Close()
		return nil, err
	}
	p, first, err := s.detect(conn)
	if err != nil {
		s.refuse(conn, err)
		return nil, err
	}
	if p == nil {
		return s.openNative(o, conn, first)
	}
	s.mu.Lock()
	o.undecided = false
	t := s.trafficLocked(p.Name())
	s.mu.Unlock()
	t.count.Read.Add(uint64(len(first)))
	c := &prefixConn{Conn: asNetConn(conn), prefix: first, count: &t.count}
	return func() error {
		defer s.untrack(o)
		defer t.open.Add(-1)
		defer conn.Close()
		if s.Conns != nil {
			return s.Conns.serve(s.base, s, o, c, p)
		}
		return p.ServeConn(s.base, s, c)
	}, nil
}

// refuse closes a connection that no protocol has claimed.
//
//go:noinline
func (s *Server) refuse(conn io.ReadWriteCloser, err error) {
	conn.Close()
	if !errors.Is(err, io.EOF) {
		s.refused.Add(1)
		s.logger().Info("yonder: connection refused", "peer", addrOf(conn), "reason", err)
	}
}

// openNative is open for a connection of the native protocol.
func (s *Server) openNative(o *other, conn io.ReadWriteCloser, first []byte) (serve func() error, err error) {
	if s.Resume != nil {
		rest, resumed, err := s.Resume.begin(s, o, conn, first)
		if err != nil || resumed {
			return func() error { s.untrack(o); return nil }, err
		}
		first = rest
	}
	s.mu.Lock()
	t := s.trafficLocked(nativeProtocol)
	s.mu.Unlock()
	cfg := &s.link
	if s.Resume != nil {
		own := s.link
		s.Resume.configure(&own, conn)
		own.greet()
		cfg = &own
	}
	l := newLink(conn, first, &t.count, cfg)
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		t.open.Add(-1)
		l.mux.Close() // which lets go of the server's workers, too
		return nil, ErrServerClosed
	}
	if s.links == nil {
		s.links = make(map[*link]bool)
	}
	s.links[l] = true
	delete(s.others, o)
	s.mu.Unlock()
	if s.Resume != nil {
		s.Resume.add(l)
	}
	if s.Conns != nil {
		s.Conns.begin(s, o, l)
	}
	over := func() {
		if s.Resume != nil {
			s.Resume.remove(l)
		}
		s.mu.Lock()
		delete(s.links, l)
		s.mu.Unlock()
		t.open.Add(-1)
	}
	if err := l.begin(); err != nil {
		over()
		return nil, err
	}
	return func() error {
		err := l.run()
		over()
		s.untrack(o)
		return err
	}, nil
}

// other is a connection that Close must close.
type other struct {
	conn      io.Closer
	undecided bool  // of no protocol yet; guarded by Server.mu
	place     uint8 // what it is counted as: see [ConnLimits]
}

// track remembers a connection, unless the server is closed or has by far too many.
func (s *Server) track(o *other) error {
	if s.Conns != nil {
		if err := s.Conns.enter(s, o); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.others == nil {
		s.others = make(map[*other]bool)
	}
	if s.others[o] = true; s.closed {
		return ErrServerClosed
	}
	return nil
}

func (s *Server) untrack(o *other) {
	if s.Conns != nil {
		s.Conns.leave(o)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.others, o)
}

// Shutdown stops accepting connections and calls, lets the calls in flight end, and
// closes the connections. New calls get [Unavailable] at once, and clients that can dial make them again
// on another connection. Connections that are lost and
// wait to be resumed are closed, too. If ctx ends before
// that, it closes what is left as Close does, and returns ctx's error.
func (s *Server) Shutdown(ctx context.Context) error {
	s.prepare()
	s.mu.Lock()
	s.closed = true
	s.refuses.Store(true)
	s.closeListenersLocked()
	links := slices.Collect(maps.Keys(s.links))
	s.stop()
	for o := range s.others {
		if o.undecided {
			o.conn.Close()
		}
	}
	s.mu.Unlock()
	for _, l := range links {
		l.mux.Shutdown(&mux.GoAwayError{Code: wire.CodeUnavailable, Reason: "the server is shutting down"})
	}
	done := make(chan struct{})
	go func() { // ends when the connections have, which Close hurries
		s.serving.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		s.Close()
		return ctx.Err()
	}
}

// Close closes the listeners and all connections at once. Handlers that still run have
// their contexts end, with [ErrServerClosed] as the cause. It waits for the goroutines
// of the connections, but not for handlers that ignore their contexts.
func (s *Server) Close() error {
	s.prepare()
	s.mu.Lock()
	s.closed = true
	s.refuses.Store(true)
	s.closeListenersLocked()
	links := slices.Collect(maps.Keys(s.links))
	others := slices.Collect(maps.Keys(s.others))
	s.stop()
	s.mu.Unlock()
	var told sync.WaitGroup
	for _, l := range links {
		if l.mux.Resumable() {
			told.Go(l.mux.Close) // it tells the other end, which may take a moment
		} else {
			l.mux.Close()
		}
	}
	told.Wait()
	for _, o := range others {
		o.conn.Close()
	}
	s.serving.Wait()
	return nil
}

// Serving reports whether the server takes connections and calls: until Shutdown or Close
// it does.
func (s *Server) Serving() bool { return !s.refuses.Load() }

// Health returns nil if the server takes calls and the program wants them, by [Server.Ready]. The
// error is [Unavailable], or has the code that Ready's has. Load balancers ask by the procedure
// "yonder.health", which every server has, or package web's /readyz.
func (s *Server) Health(ctx context.Context) error {
	if !s.Serving() {
		return Errorf(Unavailable, "%w", ErrServerClosed)
	}
	if s.Ready == nil {
		return nil
	}
	if err := s.Ready(ctx); err != nil {
		return Errorf(codeOr(err, Unavailable), "yonder: not ready: %w", err)
	}
	return nil
}

func (s *Server) closeListenersLocked() {
	for l := range s.listeners {
		l.Close()
	}
}
