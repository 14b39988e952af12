package yonder

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/yonder-rpc/yonder/internal/mux"
	"github.com/yonder-rpc/yonder/internal/wire"
)

// A connection of the native protocol whose ends have agreed on it goes on over another one below
// it when that is lost: package mux does. Here is who dials again, and which connection of a
// server is meant. See SPEC.md, "Resumption".

// MayHaveRun reports whether the call that err has ended may have run, or run in part. It is false
// only if the call has surely not, as when the connection was lost before it was sent, or the other
// end has refused it because it shuts down: then it may be made again, whatever it does. What is not
// known counts as true.
func MayHaveRun(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return !ok || !e.unrun
}

// NotRun returns err as the error of a call that has surely not run, which [MayHaveRun] then says: for
// a [Transport] that has given nothing of the call to a connection, or an [Interceptor] of a client's
// that has not made it. An [Error] is copied, another error wrapped in one.
func NotRun(err error) error {
	if e, ok := err.(*Error); ok {
		own := *e
		return unrun(&own)
	}
	return &Error{Code: CodeOf(err), Message: err.Error(), Err: err, unrun: true}
}

// unrun notes that the call has not run.
func unrun(err error) error {
	if e, ok := err.(*Error); ok {
		e.unrun = true
	}
	return err
}

// again has a client's connection, which has been lost, go on over another.
func (c *Client) again(l *link, failures int) {
	ctx, cancel := context.WithCancel(c.life)
	defer cancel()
	go func() { // ends with ctx
		select {
		case <-l.mux.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	for ; ; failures++ {
		l.failures.Store(int32(failures))
		t := time.NewTimer(backoff(failures))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
		attempt, done := context.WithTimeout(ctx, c.dialTimeout)
		conn, err := c.dial(attempt)
		done()
		if err == nil {
			if err = l.mux.Resume(conn); err == nil {
				l.logger().Debug("yonder: connection resumed", "peer", addrOf(conn))
				return
			}
		}
		if errors.Is(err, mux.ErrRefused) || ctx.Err() != nil {
			return
		}
	}
}

// resumable settles what a client's connections need for that.
func (c *Client) resumable() {
	if c.resume <= 0 {
		return
	}
	c.config.resume = c.resume
	c.config.lost = func(l *link, progress bool) {
		failures := 0
		if !progress {
			failures = int(l.failures.Load()) + 1
		}
		c.running.Go(func() { c.again(l, failures) }) // ends with the connection, at the latest
	}
}

// A Resumption has a server keep connections of the native protocol that are lost, if their
// clients ask for it: see [Dialer.Resume]. Handlers go on, and what they answer is kept. It is
// for one server, and its fields must not be changed once that serves.
type Resumption struct {
	// Window is how long a connection may be lost before its calls are canceled. Zero means 30
	// seconds.
	Window time.Duration
	// Secret makes a text that nobody can guess, by which a connection is resumed: rand.Text of
	// crypto/rand does. It must be set, or Serve fails.
	Secret func() string
	// Identity says who is at the other end of a connection, a [CallInfo.Conn]: only who gets the
	// same answer may resume it. Package tlsconn's Fingerprint does, by certificates. Nil: whoever
	// has the secret may.
	Identity func(conn any) string
	// MaxConns is how many lost connections are kept at a time; those that have been lost longest
	// are given up first. Zero means 1,000.
	MaxConns int
	// MaxBytes is how much is kept for them together, in bytes, from 1 MiB on: what clients have
	// not acknowledged, and what handlers have answered since. Zero means 256 MiB.
	MaxBytes int

	evicted, refused atomic.Uint64

	mu      sync.Mutex
	links   map[string]*link // by the first half of the secret
	lost    []*link          // those that wait for the other end; the longest first
	janitor *time.Timer      // looks after those
}

// A Resumer is a *[Resumption]. It is an interface because programs that have none should not
// carry what belongs to it.
type Resumer interface {
	check() error
	begin(s *Server, o *other, conn io.ReadWriteCloser, first []byte) (rest []byte, resumed bool, err error)
	configure(cfg *linkConfig, conn any)
	add(l *link)
	remove(l *link)
	failed() (evicted, refused uint64)
}

// keyOf returns the half of a secret that finds the connection. The other half is compared in
// constant time.
func keyOf(secret []byte) string { return string(secret[:len(secret)/2]) }

// add remembers a connection.
func (r *Resumption) add(l *link) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.links == nil {
		r.links = make(map[string]*link)
	}
	r.links[keyOf(l.secret)] = l
}

// remove forgets a connection that is over.
func (r *Resumption) remove(l *link) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.links, keyOf(l.secret))
	r.lost = slices.DeleteFunc(r.lost, func(other *link) bool { return other == l })
}

// find returns the connection of a secret, or nil.
func (r *Resumption) find(secret []byte) *link {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.links[keyOf(secret)]
	if l == nil || subtle.ConstantTimeCompare(l.secret, secret) == 0 {
		return nil
	}
	return l
}

// suspend counts a connection that waits for the other end. If there are too many, or too much is
// kept for them, those that have waited longest are given up.
func (r *Resumption) suspend(l *link) {
	r.mu.Lock()
	if !slices.Contains(r.lost, l) {
		r.lost = append(r.lost, l)
	}
	r.mu.Unlock()
	r.trim()
}

// trim gives up what is too much, now and then as long as some wait.
func (r *Resumption) trim() {
	most, memory := orDefault(r.MaxConns, 1000, 1, 1<<30), orDefault(r.MaxBytes, 256<<20, 1<<20, math.MaxInt)
	r.mu.Lock()
	var excess []*link
	waiting, held := 0, 0
	for i := len(r.lost) - 1; i >= 0; i-- { // the youngest first
		l := r.lost[i]
		_, waits, n := l.mux.Session()
		if waits && (waiting == most || held+n > memory) {
			excess = append(excess, l)
		}
		if waits && len(excess) == 0 {
			waiting, held = waiting+1, held+n
			continue
		}
		r.lost = slices.Delete(r.lost, i, i+1)
	}
	if len(r.lost) > 0 { // what handlers answer is kept, too
		if r.janitor == nil {
			r.janitor = time.AfterFunc(time.Second, r.trim)
		} else {
			r.janitor.Reset(time.Second)
		}
	}
	r.mu.Unlock()
	for _, l := range excess {
		if l.mux.GiveUp(errors.New("too much is kept for lost connections")) {
			r.evicted.Add(1)
		}
	}
}

// failed returns how many connections it has given up, and how many attempts it has refused.
func (r *Resumption) failed() (evicted, refused uint64) { return r.evicted.Load(), r.refused.Load() }

// readResume reads what a new connection begins with, of which first is there already, until it
// is clear whether it resumes another one, and if not, returns all that it has read.
func readResume(conn io.ReadWriteCloser, first []byte, timeout time.Duration) (r *wire.Resumption, all []byte, err error) {
	timer := time.AfterFunc(timeout, func() { conn.Close() })
	defer func() {
		if !timer.Stop() && err != nil {
			err = fmt.Errorf("no HELLO within %v", timeout)
		}
	}()
	fill := func(n int) error {
		have := len(first)
		if have >= n {
			return nil
		}
		first = append(first, make([]byte, n-have)...)
		got, err := io.ReadFull(conn, first[have:])
		first = first[:have+got]
		return err
	}
	const head = len(wire.Preface) + wire.HeaderSize
	if err := fill(head); err != nil { // who wants to resume must not be greeted instead
		return nil, nil, err
	}
	h, n, err := wire.ParseHeader(first[len(wire.Preface):])
	if err != nil || h.Type != wire.Resume {
		return nil, first, nil
	}
	if n > maxResume {
		return nil, nil, fmt.Errorf("RESUME of %d bytes", n)
	}
	if err := fill(head + n); err != nil {
		return nil, nil, err
	}
	resumption, err := wire.ParseResume(first[head:])
	return &resumption, nil, err
}

// maxResume is the largest body that RESUME can have, in bytes.
const maxResume = 1 + wire.MaxSecret + 10 + 10

// begin reads how a connection begins. If it resumes another one, begin returns when that does
// not go on over it any more, and otherwise what it has read.
func (r *Resumption) begin(s *Server, o *other, conn io.ReadWriteCloser, first []byte) (rest []byte, resumed bool, err error) {
	asked, rest, err := readResume(conn, first, s.Limits.WithDefaults().FirstByte)
	if err != nil {
		conn.Close()
		s.logger().Info("yonder: connection refused", "protocol", nativeProtocol, "peer", addrOf(conn), "reason", err)
		return nil, false, err
	}
	if asked == nil {
		return rest, false, nil
	}
	return nil, true, r.resume(s, o, conn, asked)
}

// configure has a connection be one that can be resumed.
func (r *Resumption) configure(cfg *linkConfig, conn any) {
	cfg.resume = orDefault(r.Window, 30*time.Second, time.Millisecond, 1<<62)
	cfg.secret, cfg.identity = []byte(r.Secret()+r.Secret()), r.identity(conn) // to find it, and to prove that it is meant
	cfg.lost = func(l *link, _ bool) { r.suspend(l) }
}

// resume has the connection that is asked for go on over conn, and returns when it does no more.
func (r *Resumption) resume(s *Server, o *other, conn io.ReadWriteCloser, asked *wire.Resumption) error {
	var done <-chan struct{}
	err := error(mux.ErrRefused)
	l := r.find(asked.Session)
	if l != nil && l.identity == r.identity(conn) {
		done, err = l.mux.Accept(conn, asked)
	}
	if err != nil && !errors.Is(err, mux.ErrRefused) { // another attempt may do
		conn.Close()
		return err
	}
	if err != nil {
		r.refused.Add(1)
		s.logger().Info("yonder: resumption refused", "peer", addrOf(conn))
		refuse := wire.AppendGoAway(nil, wire.CodeUnavailable, "there is nothing to resume")
		b := wire.AppendHeader([]byte(wire.Preface), wire.Header{Type: wire.GoAway}, len(refuse))
		timer := time.AfterFunc(time.Second, func() { conn.Close() })
		conn.Write(append(b, refuse...))
		timer.Stop()
		conn.Close()
		return Errorf(Unavailable, "yonder: resumption refused")
	}
	s.untrack(o) // the connection that it belongs to is tracked
	select {
	case <-done:
	case <-l.mux.Done():
	}
	return nil
}

// check says what is wrong with the fields, or nil.
func (r *Resumption) check() error {
	if r.Secret == nil {
		return errors.New("yonder: a Resumption needs a Secret; set it to rand.Text of crypto/rand")
	}
	if n := len(r.Secret()); n < wire.MinSecret || 2*n > wire.MaxSecret {
		return fmt.Errorf("yonder: the Secret of a Resumption returns %d bytes; rand.Text of crypto/rand returns as many as are wanted", n)
	}
	return nil
}

// identity returns who is at the other end, as far as the program wants to know.
func (r *Resumption) identity(conn any) string {
	if r.Identity == nil {
		return ""
	}
	return r.Identity(conn)
}
