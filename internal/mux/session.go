package mux

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/yonder-rpc/yonder/internal/wire"
)

// A connection whose ends have agreed on it outlives its transport: what is below it and is lost.
// All bytes behind HELLO have a position, each way; the writer keeps what it has written until the
// peer has said that it has it, and another transport goes on at the very byte. So nothing above
// the reader and the writer knows of the loss, but for the time that it took: calls, streams,
// slots and deadlines stay. See SPEC.md, "Resumption", and DESIGN.md for the states.

// session is what a connection needs to go on over another transport. Conn.mu guards it.
type session struct {
	agreed  bool // both HELLOs said so
	over    bool // it was, and is no more: the next loss is the end
	window  time.Duration
	secret  []byte
	attempt uint64        // the last one to resume it
	mark    uint64        // what had been received when the transport took over
	moved   bool          // the peer had received more then than when the one before took over
	why     error         // why the transport was given up, which a read will only find closed
	lost    error         // why there is no transport; nil: there is one
	parked  chan struct{} // of this transport: closed when nobody reads or writes it any more
	wake    chan struct{} // closed when the read loop goes on; nil: it does
	timer   *time.Timer   // ends the connection
}

// ErrRefused says that a connection cannot be resumed, and is over.
var ErrRefused = errors.New("the connection cannot be resumed")

// errAttempt says that another attempt is younger, or that this one took too long.
var errAttempt = errors.New("this attempt to resume the connection has been overtaken")

// agreeLocked settles, with the peer's HELLO, whether the connection may be resumed.
func (c *Conn) agreeLocked(g *wire.Greeting) {
	mine := c.cfg.Local
	if mine.Resume == 0 {
		return
	}
	s := &c.session
	s.secret = mine.Session
	if c.cfg.Dialer {
		s.secret = g.Session
	}
	c.w.mu.Lock()
	if s.agreed = g.Resume > 0 && len(s.secret) >= wire.MinSecret; s.agreed {
		s.window = time.Duration(min(mine.Resume, g.Resume, maxWindow)) * time.Millisecond
		s.parked = make(chan struct{})
		c.w.acks = true
		c.w.readAt = c.received.Load() - uint64(c.r.w-c.r.r)
		s.mark = c.received.Load()
		if c.gone != nil || c.refusing != nil || c.ending != nil {
			c.endSessionLocked()
		}
	} else {
		c.w.forgetKeptLocked()
	}
	c.w.kickAndUnlock(handOver)
}

// maxWindow is the longest that counts for a window, in milliseconds: a week.
const maxWindow = 7 * 24 * 3600 * 1000

// endSessionLocked has the next loss end the connection. The writer's lock is held, too, and what
// has been added is to be written: it may have waited for an ACK.
func (c *Conn) endSessionLocked() {
	c.session.over = true
	c.w.forgetKeptLocked()
}

// resumableLocked reports whether the connection goes on without its transport.
func (c *Conn) resumableLocked() bool {
	return c.session.agreed && !c.session.over && c.err == nil && c.ending == nil
}

// Resumable reports whether the connection can outlive its transport, as far as it is known.
func (c *Conn) Resumable() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.resumableLocked()
}

// Session reports whether the connection can outlive its transport, whether it has lost that and
// waits for another, and how many bytes it holds for its peer.
func (c *Conn) Session() (resumable, waits bool, held int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.resumableLocked() {
		return false, false, 0
	}
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	return true, c.session.lost != nil, c.w.heldLocked()
}

// GiveUp ends a connection that has lost its transport and waits for another, and reports whether
// it was one.
func (c *Conn) GiveUp(why error) bool {
	c.mu.Lock()
	waits := c.resumableLocked() && c.session.lost != nil
	if waits {
		c.session.over = true // nobody resumes it meanwhile
	}
	c.mu.Unlock()
	if waits {
		c.end(&LostError{Err: why})
	}
	return waits
}

// giveUp ends a transport that is of no use, and with it the connection unless that can be resumed.
func (c *Conn) giveUp(conn io.ReadWriteCloser, why error) {
	c.mu.Lock()
	resumable := c.resumableLocked()
	if resumable && c.conn == conn {
		c.session.why = why
	}
	c.mu.Unlock()
	if resumable {
		conn.Close() // the read loop finds out
		return
	}
	c.end(&LostError{Err: why})
}

// sayReceived has the peer told what has arrived, if that is much.
func (c *Conn) sayReceived() {
	if n := c.received.Load(); n-c.said >= ackStep {
		c.said = n
		c.w.ack(ackStep)
	}
}

// ack takes the peer's word for what it has received.
func (c *Conn) ack(body []byte) error {
	position, err := wire.ParseAck(body)
	if err != nil {
		return err
	}
	if !c.session.agreed {
		return violation("ACK on a connection that cannot be resumed")
	}
	if !c.w.acked(position) {
		return violation("ACK of %d bytes, which have not been sent", position)
	}
	return nil
}

// again has the read loop wait, after a read that failed, for another transport, and reports
// whether there is one.
func (c *Conn) again(err error) bool {
	c.mu.Lock()
	if !c.resumableLocked() {
		c.mu.Unlock()
		return false
	}
	s := &c.session
	if s.why != nil {
		err, s.why = s.why, nil
	}
	s.lost, s.wake = err, make(chan struct{})
	wake, parked, conn := s.wake, s.parked, c.conn
	progress := s.moved || c.received.Load() != s.mark
	s.timer = time.AfterFunc(s.window, func() {
		if c.GiveUp(fmt.Errorf("it was not resumed within %v: %w", s.window, err)) {
			c.cfg.Count.Expired.Add(1)
		}
	})
	c.mu.Unlock()
	conn.Close()
	c.w.stop()
	close(parked)
	if c.cfg.Lost != nil {
		c.cfg.Lost(progress)
	}
	select {
	case <-wake:
	case <-c.done:
		return false
	}
	conn = c.NetConn()
	c.r.conn, c.r.raw = conn, newRawConn(conn, &c.lead)
	return true
}

// Resume has the dialing side's connection, which has lost its transport, go on over conn, which
// it owns from then on. After ErrRefused the connection is over; after another error conn is
// closed, and another may do.
func (c *Conn) Resume(conn io.ReadWriteCloser) error {
	c.mu.Lock()
	s := &c.session
	if c.err != nil || s.over || s.lost == nil {
		c.mu.Unlock()
		conn.Close()
		return ErrRefused
	}
	s.attempt++
	r := wire.Resumption{Session: s.secret, Attempt: s.attempt, Received: c.received.Load() - c.w.readAt}
	c.mu.Unlock()
	answer, err := c.ask(conn, &r)
	if err == nil && answer.Attempt != r.Attempt {
		err = errAttempt
	}
	if err == nil {
		c.mu.Lock()
		err = c.goOnLocked(conn, nil, answer.Received, r.Received)
		c.mu.Unlock()
	}
	if err == nil {
		return nil
	}
	conn.Close()
	var refused *GoAwayError
	if errors.As(err, &refused) {
		err = fmt.Errorf("%w: %w", ErrRefused, refused)
	}
	if errors.Is(err, ErrRefused) && c.GiveUp(err) {
		c.cfg.Count.Refused.Add(1)
	}
	return err
}

// ask sends RESUME and waits for the answer, until the handshake's time is up or the connection
// is over.
func (c *Conn) ask(conn io.ReadWriteCloser, r *wire.Resumption) (wire.Resumption, error) {
	stop := c.bound(conn)
	defer stop()
	if _, err := conn.Write(resumeFrame(r)); err != nil {
		return wire.Resumption{}, err
	}
	head := make([]byte, len(wire.Preface)+wire.HeaderSize)
	if _, err := io.ReadFull(conn, head); err != nil {
		return wire.Resumption{}, err
	}
	if string(head[:len(wire.Preface)]) != wire.Preface {
		return wire.Resumption{}, fmt.Errorf("%w: the peer does not speak this protocol", ErrRefused)
	}
	h, n, err := wire.ParseHeader(head[len(wire.Preface):])
	if err != nil {
		return wire.Resumption{}, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(conn, body); err != nil {
		return wire.Resumption{}, err
	}
	var answer wire.Resumption
	switch h.Type {
	case wire.Resume:
		answer, err = wire.ParseResume(body)
	case wire.GoAway:
		var code uint8
		var reason string
		if code, reason, err = wire.ParseGoAway(body); err == nil {
			return answer, &GoAwayError{Code: code, Reason: reason}
		}
	default: // such as HELLO, of one that knows nothing of this
		err = fmt.Errorf("the peer answered with %v", h.Type)
	}
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return answer, err
}

func resumeFrame(r *wire.Resumption) []byte {
	body := wire.AppendResume(nil, r)
	b := wire.AppendHeader([]byte(wire.Preface), wire.Header{Type: wire.Resume}, len(body))
	return append(b, body...)
}

// bound closes conn when the handshake's time is up or the connection is over, unless what it
// returns is called before.
func (c *Conn) bound(conn io.Closer) (stop func()) {
	stopped := make(chan struct{})
	var timeout <-chan time.Time
	t := time.NewTimer(time.Hour)
	if c.cfg.Handshake > 0 {
		t.Reset(c.cfg.Handshake)
		timeout = t.C
	}
	go func() { // ends when stop is called, at the latest
		defer t.Stop()
		select {
		case <-timeout:
			conn.Close()
		case <-c.done:
			conn.Close()
		case <-stopped:
		}
	}()
	return func() { close(stopped) }
}

// Accept has the accepting side's connection go on over conn, as a RESUME asks that names its
// secret. It takes conn from the transport that it has, if that still lives: who dials knows
// better. The channel that it returns is closed when conn is in use no more. After an error conn
// is the caller's still.
func (c *Conn) Accept(conn io.ReadWriteCloser, r *wire.Resumption) (<-chan struct{}, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &c.session
	if !c.resumableLocked() || r.Attempt <= s.attempt {
		return nil, ErrRefused
	}
	s.attempt = r.Attempt
	t := time.NewTimer(maxLinger) // closing it ends what goes on at once, or never
	defer t.Stop()
	for s.lost == nil || !isClosed(s.parked) {
		old, parked := c.conn, s.parked
		c.mu.Unlock()
		old.Close()
		var err error
		select {
		case <-parked:
		case <-c.done:
			err = ErrRefused
		case <-t.C:
			err = errAttempt
		}
		c.mu.Lock()
		if err != nil {
			return nil, err
		}
		if s.attempt != r.Attempt {
			return nil, errAttempt
		}
	}
	if !c.resumableLocked() {
		return nil, ErrRefused
	}
	received := c.received.Load() - c.w.readAt
	if err := c.goOnLocked(conn, resumeFrame(&wire.Resumption{Attempt: r.Attempt, Received: received}), r.Received, received); err != nil {
		return nil, err
	}
	return s.parked, nil
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// goOnLocked goes on over conn, with first, and what the peer has not received. told is what the
// peer is told to have been received.
func (c *Conn) goOnLocked(conn io.ReadWriteCloser, first []byte, peerHas, told uint64) error {
	s := &c.session
	if !c.resumableLocked() || s.lost == nil {
		return ErrRefused
	}
	moved, ok := c.w.resume(conn, newRawConn(conn, &c.lead), first, peerHas, told)
	if !ok {
		return fmt.Errorf("%w: what the peer lacks is not kept", ErrRefused)
	}
	s.timer.Stop()
	s.moved = moved
	s.lost, s.parked, s.mark = nil, make(chan struct{}), c.received.Load()
	c.watch = watch{} // whatever the last one was found to be
	c.conn = conn
	close(s.wake)
	c.cfg.Count.Resumed.Add(1)
	return nil
}

// sayGoodbye tells the peer of a connection that is about to be closed that there is nothing to
// wait for. It waits a moment at most.
func (c *Conn) sayGoodbye() {
	c.mu.Lock()
	if !c.resumableLocked() || c.session.lost != nil {
		c.mu.Unlock()
		return
	}
	c.ending = ErrClosed // whatever comes between
	c.w.mu.Lock()
	c.endSessionLocked()
	c.mu.Unlock()
	c.w.goAwayLocked(wire.CodeCanceled, "it is closed")
	c.w.kickAndUnlock(noBlock)
	t := time.NewTimer(maxGoodbye)
	defer t.Stop()
	select {
	case <-c.w.idleC():
	case <-t.C:
	}
}

// maxGoodbye is how long a connection that is closed may take to say so.
const maxGoodbye = 50 * time.Millisecond
