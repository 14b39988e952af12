// Package mux is one connection of the native protocol: calls both ways, their
// streams and credit, cancellation, and the frames that carry them. It deals in
// bytes; what a call means, and how values are encoded, is package yonder's
// business.
//
// All that changes about the calls of a connection is guarded by Conn.mu. Each
// stream has a lock of its own, and the writer has one. They nest in the order
// Conn.mu, stream, writer.
package mux

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/yonder-rpc/yonder/internal/wire"
)

// Config says what a connection accepts and who serves its calls.
type Config struct {
	// Dialer is set on the side that speaks first.
	Dialer bool
	// Local is what this side announces and enforces. It must not be changed.
	Local *wire.Greeting
	// MaxStreams is the number of streams that this side may be consuming at a time.
	MaxStreams int
	// Accept judges the peer's HELLO.
	Accept func(*wire.Greeting) error
	// Handler takes the calls that the peer makes.
	Handler Handler
	// Handshake is how long the peer may take to send HELLO.
	Handshake time.Duration
	// KeepAlive is how long a peer may be silent before it is asked for a sign of
	// life, how long it has to give one, and how long a write may make no progress, or
	// messages in parts; and how long a request in parts, besides its turn. Zero or less: for ever.
	KeepAlive time.Duration
	// Workers serve the calls. Nil: the connection has its own.
	Workers *Workers
	// Count is what the connection adds to, beside others. Nil: nobody counts.
	Count *Count
	// GoneAway is called, once, when the peer wants no new calls.
	GoneAway func()

	// MaxKept is how much is kept of what the peer has not acknowledged, in bytes, if
	// Local.Resume says that the connection may be resumed: see session.go.
	MaxKept int
	// Lost is called, by the read loop, when a connection that may be resumed has lost its
	// transport. progress is false if nothing has arrived over it, either way. It must not wait.
	Lost func(progress bool)

	// reading is whom it shares processors with; nil: the whole process.
	reading *reading
}

// Count counts bytes, and how connections that may be resumed fared.
type Count struct {
	Read, Written atomic.Uint64
	Resumed       atomic.Uint64 // goings on over another transport
	Expired       atomic.Uint64 // connections that nobody resumed within the window
	Refused       atomic.Uint64 // connections of the dialing side that the peer would not resume
}

// A Handler takes the calls that the peer makes.
type Handler interface {
	// NewCall returns the value that a call will be read into, with its Owner set.
	// The read loop calls it, so it must not wait.
	NewCall() *Incoming
	// Serve answers a call, on a goroutine of its own.
	Serve(*Incoming)
	// Free takes a call back that Serve has returned from and nothing refers to any more,
	// for NewCall to return again.
	Free(*Incoming)
}

// Errors of a connection. Those that end calls are wrapped in one of the types
// below.
var (
	// ErrClosed ends what a connection that was closed on this side still had.
	ErrClosed = errors.New("connection closed")
	// ErrTooManyNames refuses a call of one more procedure than the peer can be told of.
	ErrTooManyNames = errors.New("the peer accepts no more procedure names on this connection")
	// ErrStopped ends a stream that its consumer has left.
	ErrStopped = errors.New("the consumer has stopped")
	// ErrEnded ends a stream whose call has ended.
	ErrEnded = errors.New("the call has ended")
)

// A LostError says that the connection was lost, and how.
type LostError struct{ Err error }

func (e *LostError) Error() string { return "connection lost: " + e.Err.Error() }

// Unwrap returns how the connection was lost.
func (e *LostError) Unwrap() error { return e.Err }

// A ProtocolError says what a peer did that the protocol does not allow.
type ProtocolError struct {
	Reason  string
	refused bool // by Config.Accept
}

func (e *ProtocolError) Error() string { return "protocol error: " + e.Reason }

// violation is not inlined so that programs stay small.
//
//go:noinline
func violation(format string, args ...any) error {
	return &ProtocolError{Reason: fmt.Sprintf(format, args...)}
}

// violationOf and violationSized are violation with what many texts have in them. Programs are smaller
// than where each passes that as any.
//
//go:noinline
func violationOf(id uint32, format string) error { return violation(format, id) }

//go:noinline
func violationSized(frame string, size int) error { return violation("%s of %d bytes", frame, size) }

// A GoAwayError refuses a call on a connection that takes no new ones.
type GoAwayError struct {
	Code   uint8
	Reason string
}

func (e *GoAwayError) Error() string { return e.Reason }

// A TooLargeError refuses a message that is larger than the limit, both in bytes.
type TooLargeError struct {
	What        string
	Size, Limit uint64
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("%s of %d bytes is larger than the limit of %d", e.What, e.Size, e.Limit)
}

// maxLinger is how long a connection that is ending may take to write its last
// frames, and how long the peer of one that has sent GOAWAY may take to close it.
const maxLinger = time.Second

// Conn is one connection.
type Conn struct {
	cfg  Config
	conn io.ReadWriteCloser
	r    reader
	w    writer
	load atomic.Int32 // calls in flight, both ways
	// received counts what has been read, in bytes.
	received atomic.Uint64
	packs    atomic.Bool // both sides know the same compression
	// maxMessage is the peer's, for who does not need mu otherwise; 0: HELLO has not come.
	maxMessage atomic.Uint64
	done       chan struct{} // closed when the connection is over
	hello      chan struct{} // closed when the peer's HELLO has come
	spare      sync.Pool     // *Outgoing, whose channels must not leave the connection
	debt       atomic.Bool   // there is something that nobody has had written: see settleDebt

	workers *Workers
	later   later
	lead    lead
	rest    rest // of who leads

	mu       sync.Mutex
	err      error          // why the connection is over; nil while it is not
	peer     *wire.Greeting // nil until HELLO has come
	gone     *GoAwayError   // the peer wants no new calls
	refusing *GoAwayError   // we want none
	silent   error          // why we begin none, unless we serve some; nil: we do
	ending   error          // why it will soon be over, while the last frames are written
	watchdog *time.Timer
	watch    watch
	session  session
	idle     idle
	expiry   *time.Timer // looks for calls that have expired; nil: none was ever to
	expiring time.Time   // when; zero: never

	// Calls that we make. A slot is free, or taken until the callee has ended its call.
	slots    []*Outgoing
	gens     []uint16
	free     []uint16
	limit    int // slots that the peer lets us use
	outgoing int // slots taken
	waiters  []turn
	numbers  []uint32 // by Ref.Index: one more than the number that the peer knows it by; 0: none
	named    uint32   // numbers given

	// Calls that the peer makes.
	calls    []*Incoming // by slot
	incoming int         // calls not yet ended
	names    []*Name     // by number
	nameSize int         // bytes that names hold
	parted   int         // messages that arrive in parts just now
	heard    uint64      // bytes of them, so far
	woke     bool        // who leads has woken somebody since it last read; its own
	clock    time.Time   // what it has read of the clock since it last read; zero: nothing; its own
	answered []*Outgoing // whose callers are to be woken; of who leads
	unsaid   int         // bytes of them taken without the peer's knowledge; of who leads
	said     uint64      // what had been received when an ACK was last due; of who leads
	streams  int         // streams that we consume, of calls of either direction
}

// watch is what the watchdog has seen when it last looked.
type watch struct {
	writes             uint32
	read, taken, heard uint64
	silent             int // times in a row that nothing had been read
	stuck              int // times in a row that a write had made no progress
	untaken            int // times in a row that the peer had taken nothing of messages in parts
}

// New returns a connection over conn, of which read has been read already. Nothing is sent or read
// before [Conn.Begin] or [Conn.Run].
func New(conn io.ReadWriteCloser, read []byte, cfg Config) *Conn {
	if cfg.Count == nil {
		cfg.Count = new(Count)
	}
	c := &Conn{cfg: cfg, conn: conn, done: make(chan struct{}), hello: make(chan struct{}), limit: 1, workers: cfg.Workers}
	if c.workers == nil {
		c.workers = new(Workers)
	}
	c.workers.join()
	raw := newRawConn(conn, &c.lead)
	count := cfg.Count
	count.Read.Add(uint64(len(read)))
	c.r = reader{conn: conn, raw: raw, onRead: func(n int) { c.received.Add(uint64(n)); count.Read.Add(uint64(n)) }, onWait: c.beforeRead, kicked: c.kicked}
	if n := len(read); n > 0 {
		copy(c.r.space(), read)
		c.r.w = n
		c.received.Store(uint64(n))
	}
	c.w = writer{conn: conn, raw: raw, load: &c.load, received: &c.received, failed: c.lost, written: &count.Written}
	if c.lead.reading = cfg.reading; c.lead.reading == nil {
		c.lead.reading = &processReading
	}
	c.lead.load, c.lead.id = &c.load, c.lead.reading.ids.Add(1)
	if c.lead.able = raw != nil && cfg.Local.Resume == 0; c.lead.able {
		c.lead.back, c.lead.ours = make(chan struct{}, 1), cfg.Dialer
	}
	c.mu.Lock()
	c.greetLocked()
	c.mu.Unlock()
	return c
}

// greetLocked queues the preface and HELLO, which go out with the first write.
func (c *Conn) greetLocked() {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.w.freshLocked()
	c.w.buf = append(c.w.buf, wire.Preface...)
	c.w.frameLocked(wire.Header{Type: wire.Hello}, nil, wire.AppendHello(nil, c.cfg.Local))
	if c.cfg.Local.Resume > 0 {
		c.r.again = c.again
		c.w.keep, c.w.unkept = &kept{limit: uint64(c.cfg.MaxKept)}, len(c.w.buf)
	}
}

// Begin sends HELLO and waits for the peer's. If that fails, the connection is over, and Begin
// returns why. It takes more of the stack than reading does, which a goroutine never gives back:
// so who has many connections has another one call [Conn.Run].
func (c *Conn) Begin() error {
	if c.cfg.Handshake > 0 {
		c.mu.Lock()
		if c.err == nil {
			c.watchdog = time.AfterFunc(c.cfg.Handshake, c.tick)
		}
		c.mu.Unlock()
	}
	c.w.mu.Lock()
	c.w.kickAndUnlock(noBlock)
	if err := c.readHello(); err != nil {
		return c.over(err)
	}
	return nil
}

// Run reads the connection until it is over, and returns why: nil if it ended in
// order, that is, was closed here, or by a peer that had no calls in flight. It begins one that
// has not begun.
func (c *Conn) Run() error {
	if c.Peer() == nil {
		if err := c.Begin(); err != nil {
			return err
		}
	}
	return c.over(c.read())
}

// over ends the connection, which cannot be read any more because of err, and returns why it is
// over. It is not inlined, and neither are others that the read loop calls now and then: what they
// need of the stack would be an idle connection's for good.
//
//go:noinline
func (c *Conn) over(err error) error {
	c.r.rest()
	var bad *ProtocolError
	if errors.As(err, &bad) {
		c.abort(bad)
		if bad.refused && !c.cfg.Dialer {
			// Not io.Copy, which adds 65 KB to every program: what it can do with sockets.
			buf := make([]byte, 4096)
			for err = nil; err == nil; {
				_, err = c.r.conn.Read(buf)
			}
			c.end(bad)
		}
	} else {
		c.lost(err)
	}
	<-c.done
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == ErrClosed || c.err == errLeft {
		return nil
	}
	return c.err
}

// Greeted waits for the peer's HELLO. The error is why the connection was over before.
func (c *Conn) Greeted() error {
	select {
	case <-c.hello:
	case <-c.done:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.peer != nil { // it may be over since, and what it has said of that counts
		return nil
	}
	return c.err
}

// Done returns a channel that is closed when the connection is over.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err returns why the connection takes no calls, or nil if it takes some.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refusalLocked(false)
}

// Peer returns the peer's HELLO, or nil if it has not come yet.
func (c *Conn) Peer() *wire.Greeting {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.peer
}

// Local returns what this side has announced. It must not be changed.
func (c *Conn) Local() *wire.Greeting { return c.cfg.Local }

// Packs returns the largest message that the peer accepts, in bytes, if messages may
// be compressed, and otherwise 0.
func (c *Conn) Packs() uint64 {
	if !c.packs.Load() {
		return 0
	}
	return c.Peer().MaxMessage
}

// NetConn returns the connection underneath.
func (c *Conn) NetConn() io.ReadWriteCloser {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conn
}

// refusalLocked returns why no call can begin. While a connection drains, the calls
// in flight may still make theirs: callbacks either way, and here what the handlers
// call at the other end.
func (c *Conn) refusalLocked(callback bool) error {
	switch {
	case c.gone != nil && !callback:
		return c.gone
	case c.err != nil:
		return c.err
	case c.ending != nil:
		return c.ending
	case c.silent != nil && c.incoming == 0:
		return c.silent
	}
	return nil
}

// Close ends the connection at once. Calls in flight end with ErrClosed.
func (c *Conn) Close() {
	c.sayGoodbye()
	c.end(ErrClosed)
}

// Shutdown tells the peer that no new calls are taken, lets those in flight end,
// and then closes the connection. It does not wait; [Conn.Done] tells.
func (c *Conn) Shutdown(reason *GoAwayError) {
	c.mu.Lock()
	if c.refusing != nil || c.err != nil {
		c.mu.Unlock()
		return
	}
	c.refusing, c.silent = reason, ErrClosed
	if c.session.lost != nil { // nobody would hear of it
		c.mu.Unlock()
		c.end(ErrClosed)
		return
	}
	c.w.mu.Lock()
	c.endSessionLocked()
	c.mu.Unlock()
	c.w.goAwayLocked(reason.Code, reason.Reason)
	c.w.kickAndUnlock(noBlock)
	c.settle()
}

// drainsLocked reports whether settle may be needed when a call ends.
func (c *Conn) drainsLocked() bool { return c.gone != nil || c.refusing != nil }

// settle ends a connection that has nothing more to do: one side wants no new
// calls and none is in flight. The side that was told closes it, and the side
// that told waits for that a little, so that no call crosses the closing.
func (c *Conn) settle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil || c.ending != nil || c.incoming > 0 || c.outgoing > 0 {
		return
	}
	switch {
	case c.gone != nil:
		c.endAfterWritesLocked(ErrClosed, maxLinger)
	case c.refusing != nil:
		if c.watchdog != nil {
			c.watchdog.Stop()
		}
		c.watchdog = time.AfterFunc(maxLinger, c.Close)
		c.ending = ErrClosed
	}
}

// endAfterWritesLocked ends the connection when all frames are written, or after a
// while.
func (c *Conn) endAfterWritesLocked(err error, linger time.Duration) {
	if c.ending != nil || c.err != nil {
		return
	}
	c.ending = err
	idle := c.w.idleC()
	go func() { // ends after linger at the latest
		t := time.NewTimer(linger)
		defer t.Stop()
		select {
		case <-idle:
		case <-t.C:
		case <-c.done:
		}
		c.end(err)
	}()
}

// abort ends the connection because of what the peer did, and tells it. A dialing side whose
// HELLO is refused finds out why by itself, if it can read ours: so it is left to close the
// connection. To close it with something unread could take from it what it has not read.
func (c *Conn) abort(why *ProtocolError) {
	c.mu.Lock()
	c.w.mu.Lock()
	c.endSessionLocked()
	c.w.goAwayLocked(wire.CodeInternal, why.Error())
	c.w.kickAndUnlock(handOver)
	if why.refused && !c.cfg.Dialer {
		c.ending = why
		time.AfterFunc(maxLinger/4, func() { c.end(why) })
	} else {
		c.endAfterWritesLocked(why, maxLinger/4)
	}
	c.mu.Unlock()
}

// errLeft is how a connection ends whose peer closed it with no call in flight.
var errLeft error = &LostError{Err: errors.New("the other end has closed it")}

// lost ends the connection because reading or writing failed.
func (c *Conn) lost(err error) {
	if errors.Is(err, io.EOF) {
		c.mu.Lock()
		orderly := c.incoming == 0 && c.outgoing == 0
		c.mu.Unlock()
		if orderly {
			c.end(errLeft)
			return
		}
	}
	c.mu.Lock()
	if c.gone != nil {
		err = errors.New("the peer closed it: " + c.gone.Reason)
	}
	c.mu.Unlock()
	c.end(&LostError{Err: err})
}

// end ends the connection: closes it, and fails all that is in flight.
func (c *Conn) end(err error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	if c.ending != nil {
		err = c.ending // whatever has hurried it
	}
	c.err = err
	if c.watchdog != nil {
		c.watchdog.Stop()
	}
	if c.session.timer != nil {
		c.session.timer.Stop()
	}
	if c.idle.timer != nil {
		c.idle.timer.Stop()
	}
	conn := c.conn
	if c.expiry != nil {
		c.expiry.Stop()
	}
	c.failWaitersLocked(true)
	var lost []*Outgoing
	var canceled []*Incoming
	for _, o := range c.slots {
		if o != nil {
			lost = append(lost, o)
		}
	}
	for _, in := range c.calls {
		if in != nil && !in.ended {
			canceled = append(canceled, in)
		}
	}
	c.w.mu.Lock()
	if c.w.err == nil {
		c.w.err = err // so that what has not been sent never will be
	}
	for _, o := range lost {
		o.unsent = c.w.unheardLocked(o)
	}
	c.w.mu.Unlock()
	for _, o := range lost {
		c.failLocked(o, err)
		o.streams.failLocked(err)
		c.endLocked(o)
	}
	for _, in := range canceled {
		in.streamsLocked().failLocked(err)
		if in.arrives != nil { // nobody serves it, nor will
			c.leaveLocked(in)
		}
	}
	c.mu.Unlock()
	c.w.close(err)
	conn.Close()
	c.recallLead()
	c.workers.leave()
	c.later.run()
	for _, in := range canceled {
		in.Owner.Cancel(err)
	}
	close(c.done)
}

// tick is the watchdog: it ends a connection whose peer has died, or does not
// read.
func (c *Conn) tick() {
	c.mu.Lock()
	if c.err != nil || c.ending != nil {
		c.mu.Unlock()
		return
	}
	if c.peer == nil {
		c.mu.Unlock()
		c.abort(&ProtocolError{Reason: fmt.Sprintf("no HELLO within %v", c.cfg.Handshake)})
		return
	}
	w := &c.watch
	if c.session.lost != nil { // another timer sees to it
		*w = watch{}
		c.watchdog.Reset(c.cfg.KeepAlive)
		c.mu.Unlock()
		c.later.run()
		return
	}
	conn := c.conn
	read, writes := c.received.Load(), c.w.writes.Load()
	wrote, busy := writes != w.writes, c.w.busy()
	if w.silent++; read != w.read || wrote && busy { // it reads what has piled up, and a PING is behind that
		w.silent = 0
	}
	if w.stuck++; wrote || !busy {
		w.stuck = 0
	}
	taken, held := c.w.parted()
	if w.untaken++; taken != w.taken || !held {
		w.untaken = 0
	}
	w.read, w.writes, w.taken = read, writes, taken
	silent, stuck, untaken := w.silent, w.stuck, w.untaken
	slow := c.parted > 0 && c.endSlowLocked()
	ping := make([]byte, 8)
	if c.idle.said != nil { // its PONG may answer both
		copy(ping, farewell)
	}
	c.watchdog.Reset(c.cfg.KeepAlive)
	c.mu.Unlock()
	c.later.run()
	switch {
	case silent >= 2:
		c.giveUp(conn, fmt.Errorf("no sign of life from the peer for %v", c.cfg.KeepAlive))
	case stuck >= 2:
		c.giveUp(conn, fmt.Errorf("the peer has read nothing for %v", c.cfg.KeepAlive))
	case untaken >= 2:
		c.giveUp(conn, fmt.Errorf("the peer has taken nothing of a message in parts for %v", c.cfg.KeepAlive))
	case silent == 1:
		c.w.frame(wire.Header{Type: wire.Ping}, ping, noBlock)
	}
	c.w.ack(idleAck)
	if slow {
		c.settle()
	}
}

// Later has f called by one of the connection's goroutines: the read loop, with the next
// frame, or else the watchdog. f must not wait. Later itself neither sends, wakes anybody
// nor waits, so the garbage collector's cleanups may call it, whose goroutine is outside
// of the bubble of package synctest that the connection may be in: there it is fatal to
// touch a channel. It reports false if the connection is over, and does nothing then.
func (c *Conn) Later(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return false
	}
	c.later.add(f)
	return true
}

// later is what waits to be done by a goroutine of the connection's.
type later struct {
	some atomic.Bool // there may be something in list
	mu   sync.Mutex
	list []func()
}

func (l *later) add(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, f)
	l.some.Store(true)
}

func (l *later) run() {
	if !l.some.Load() {
		return
	}
	l.mu.Lock()
	list := l.list
	l.list = nil
	l.some.Store(false)
	l.mu.Unlock()
	for _, f := range list {
		f()
	}
}

// greeted takes the peer's HELLO.
func (c *Conn) greeted(g *wire.Greeting) error {
	if c.cfg.Accept != nil {
		if err := c.cfg.Accept(g); err != nil {
			return &ProtocolError{Reason: err.Error(), refused: true}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.peer != nil {
		return violation("a second HELLO")
	}
	c.peer = g
	c.agreeLocked(g)
	c.maxMessage.Store(g.MaxMessage)
	c.packs.Store(g.Compression != "" && g.Compression == c.cfg.Local.Compression)
	close(c.hello)
	c.limit = int(g.MaxCalls)
	for len(c.waiters) > 0 {
		slot, ok := c.slotLocked()
		if !ok {
			break
		}
		c.freeLocked(slot)
	}
	more := g.Window - wire.MinWindow
	for _, o := range c.slots {
		if o != nil {
			o.streams.creditLocked(more)
		}
	}
	for _, in := range c.calls {
		if in != nil && in.streams != nil {
			in.streams.creditLocked(more)
		}
	}
	switch {
	case c.watchdog == nil || c.err != nil || c.ending != nil: // it sees to the end
	case c.cfg.KeepAlive > 0:
		c.watchdog.Reset(c.cfg.KeepAlive)
	default:
		c.watchdog.Stop()
	}
	return nil
}

// windowLocked returns the credit that a stream to the peer begins with.
func (c *Conn) windowLocked() int64 {
	if c.peer == nil {
		return wire.MinWindow
	}
	return int64(c.peer.Window)
}

// Addr returns the peer's address, or "" if the transport has none.
func (c *Conn) Addr() string {
	if nc, ok := c.NetConn().(net.Conn); ok && nc.RemoteAddr() != nil {
		return nc.RemoteAddr().String()
	}
	return ""
}
