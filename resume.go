package yonder

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/yonder-rpc/yonder/internal/layers"
	"github.com/yonder-rpc/yonder/internal/mux"
	"github.com/yonder-rpc/yonder/internal/wire"
)

// A connection of the native protocol whose ends have agreed on it goes on over another one below
// it when that is lost: package mux does. Here is who dials again, and which connection of a
// server is meant. See SPEC.md, "Resumption".

// MayHaveRun reports whether the call that err has ended may have run, or run in part. It is false
// only if the other end has surely not got the call, as when the connection was lost before
// it was sent: then it may be made again, whatever it does. What is not known counts as true.
func MayHaveRun(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return !ok || !e.unrun
}

// unrun notes that the call has not reached the other end.
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
				l.logger.Debug("yonder: connection resumed", "peer", addrOf(conn))
				return
			}
		}
		if errors.Is(err, mux.ErrRefused) || ctx.Err() != nil {
			return
		}
	}
}

// resumable settles what a client's connection needs for that.
func (c *Client) resumable(cfg *linkConfig) {
	if c.dial == nil || c.resume <= 0 {
		return
	}
	cfg.resume = c.resume
	cfg.lost = func(l *link, progress bool) {
		failures := 0
		if !progress {
			failures = int(l.failures.Load()) + 1
		}
		c.running.Go(func() { c.again(l, failures) }) // ends with the connection, at the latest
	}
}

// sessions are the connections of a server that may be resumed.
type sessions struct {
	mu      sync.Mutex
	links   map[string]*link // by the first half of the secret
	lost    []*link          // those that wait for the other end; the longest first
	janitor *time.Timer      // looks after those
}

// secretSize is what the secret of a connection has, in bytes: half of it finds the connection,
// and the other is compared in constant time.
const secretSize = 32

// add remembers a connection.
func (s *sessions) add(l *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.links == nil {
		s.links = make(map[string]*link)
	}
	s.links[string(l.secret[:secretSize/2])] = l
}

// remove forgets a connection that is over.
func (s *sessions) remove(l *link) {
	if l.secret == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.links, string(l.secret[:secretSize/2]))
	s.lost = slices.DeleteFunc(s.lost, func(other *link) bool { return other == l })
}

// find returns the connection of a secret, or nil.
func (s *sessions) find(secret []byte) *link {
	if len(secret) != secretSize {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.links[string(secret[:secretSize/2])]
	if l == nil || subtle.ConstantTimeCompare(l.secret, secret) == 0 {
		return nil
	}
	return l
}

// suspend counts a connection that waits for the other end. If there are too many, or too much is
// kept for them, those that have waited longest are given up.
func (s *Server) suspend(l *link) {
	s.sessions.mu.Lock()
	if !slices.Contains(s.sessions.lost, l) {
		s.sessions.lost = append(s.sessions.lost, l)
	}
	s.sessions.mu.Unlock()
	s.trimSessions()
}

// trimSessions gives up what is too much, now and then as long as some wait.
func (s *Server) trimSessions() {
	most, memory := orDefault(s.MaxSuspended, 1000, 1, 1<<30), orDefault(s.MaxSuspendedBytes, 256<<20, 1<<20, math.MaxInt)
	ss := &s.sessions
	ss.mu.Lock()
	var excess []*link
	waiting, held := 0, 0
	for i := len(ss.lost) - 1; i >= 0; i-- { // the youngest first
		l := ss.lost[i]
		waits, n := l.mux.Suspended()
		if waits && (waiting == most || held+n > memory) {
			excess = append(excess, l)
		}
		if waits && len(excess) == 0 {
			waiting, held = waiting+1, held+n
			continue
		}
		ss.lost = slices.Delete(ss.lost, i, i+1)
	}
	if len(ss.lost) > 0 { // what handlers answer is kept, too
		if ss.janitor == nil {
			ss.janitor = time.AfterFunc(time.Second, s.trimSessions)
		} else {
			ss.janitor.Reset(time.Second)
		}
	}
	ss.mu.Unlock()
	for _, l := range excess {
		l.mux.GiveUp(errors.New("too much is kept for lost connections"))
	}
}

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
	if len(first) > head+n {
		return nil, nil, errors.New("more than RESUME before the answer")
	}
	resumption, err := wire.ParseResume(first[head:])
	return &resumption, nil, err
}

// maxResume is the largest body that RESUME can have, in bytes.
const maxResume = 1 + wire.MaxSecret + 10 + 10

// resume has the connection that r names go on over conn, and returns when it does no more.
func (s *Server) resume(o *other, conn io.ReadWriteCloser, r *wire.Resumption) error {
	var done <-chan struct{}
	err := error(mux.ErrRefused)
	l := s.sessions.find(r.Session)
	if l != nil && l.identity == identityOf(conn) {
		done, err = l.mux.Accept(conn, r)
	}
	if err != nil && !errors.Is(err, mux.ErrRefused) { // another attempt may do
		conn.Close()
		return err
	}
	if err != nil {
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

// newSecret returns what a connection is resumed by.
func newSecret() []byte {
	b := make([]byte, secretSize)
	rand.Read(b) // which cannot fail
	return b
}

// identityOf returns by what TLS knows the other end, so that nobody else can resume its
// connection; "" without TLS. The state of a TLS connection is looked at from outside, because
// crypto/tls is no dependency of this package.
func identityOf(conn any) string {
	for layer := range layers.All(conn) {
		state := reflect.ValueOf(layer).MethodByName("ConnectionState")
		if !state.IsValid() || state.Type().NumIn() != 0 || state.Type().NumOut() != 1 || state.Type().Out(0).Kind() != reflect.Struct {
			continue
		}
		certs := state.Call(nil)[0].FieldByName("PeerCertificates")
		if certs.Kind() != reflect.Slice || certs.Len() == 0 {
			return "tls:"
		}
		if leaf := reflect.Indirect(certs.Index(0)); leaf.Kind() == reflect.Struct {
			if raw := leaf.FieldByName("Raw"); raw.IsValid() && raw.Type() == reflect.TypeFor[[]byte]() {
				return "tls:" + string(raw.Bytes())
			}
		}
	}
	return ""
}
