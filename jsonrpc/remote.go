package jsonrpc

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/internal/fn"
)

// A remoteStream is a stream, or a reader, that a server sends in pieces.
type remoteStream struct {
	number    uint64
	procedure string
	consumed  func(number uint64, items int)  // asks for more; nil: the connection's own flow control does
	over      func(number uint64, ended bool) // ended: by the server
	pull      func() ([]byte, error)          // reads the next piece; nil: pieces come by themselves
	dialer    *Dialer                         // with pull
	sweeper   *sweeper
	used      atomic.Bool
	unwatch   func() bool // the caller's context; nil: it cannot end
	wake      chan struct{}

	mu     sync.Mutex // guards what follows
	items  [][]byte
	bytes  int   // of items
	done   error // how it ended: io.EOF, or an error; nil: it has not
	eaten  int   // items, since more was asked for
	eatenB int   // and their bytes
	given  bool  // the sweeper counts it
}

func newRemoteStream(procedure string, number uint64, w *sweeper, consumed func(uint64, int), over func(uint64, bool)) *remoteStream {
	return &remoteStream{procedure: procedure, number: number, sweeper: w, consumed: consumed, over: over, wake: make(chan struct{}, 1)}
}

// A sweeper leaves the streams that nobody can read any more, a while after the garbage
// collector has found them, or with the next message: the collector's own goroutine must neither wait, for a connection for example,
// nor use the channels of a bubble of package synctest. It is ready to use.
type sweeper struct {
	due       atomic.Bool // there are forgotten ones
	mu        sync.Mutex  // guards what follows
	given     int         // streams that somebody has and that are not over
	forgotten []*remoteStream
	timer     *time.Timer // nil: it does not run
	over      bool
}

// sweepEvery is how long it may take until the server hears that a stream was forgotten.
const sweepEvery = 5 * time.Second

// add counts streams that are given away, or are over.
func (w *sweeper) add(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.given += n; w.given > 0 && w.timer == nil && !w.over {
		w.timer = time.AfterFunc(sweepEvery, w.sweep)
	}
}

// forget is for the garbage collector.
func (w *sweeper) forget(s *remoteStream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.over { // else the stream has ended
		w.forgotten = append(w.forgotten, s)
		w.due.Store(true)
	}
}

func (w *sweeper) sweep() {
	w.mu.Lock()
	forgotten := w.forgotten
	w.forgotten = nil
	w.due.Store(false)
	w.mu.Unlock()
	for _, s := range forgotten {
		s.leave()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.over:
	case w.given > 0:
		w.timer.Reset(sweepEvery)
	default:
		w.timer = nil
	}
}

// end has no more swept: all streams end.
func (w *sweeper) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over, w.forgotten = true, nil
	if w.timer != nil {
		w.timer.Stop()
	}
}

// piece takes the parameters of a notification. The error ends the link.
func (s *remoteStream) piece(params []byte, d *Dialer) error {
	var items, fault []byte
	end := false
	for name, value := range members(params) {
		switch string(name) {
		case `"items"`:
			items = value
		case `"end"`:
			end = value[0] == 't'
		case `"error"`:
			fault = value
		}
	}
	if items != nil && items[0] != '[' {
		return errors.New("it sent items of a stream that are no array")
	}
	s.mu.Lock()
	if s.done == nil && items != nil {
		for from, to := range elements(items) {
			s.items = append(s.items, items[from:to:to])
			s.bytes += to - from
		}
	}
	tooMany := s.consumed != nil && (len(s.items) > windowItems || s.bytes > windowBytes+d.Client.Limits.WithDefaults().MaxMessage)
	s.mu.Unlock()
	switch {
	case tooMany:
		return errors.New("it sent more of a stream than was asked for")
	case fault != nil && !isNull(fault):
		s.finish(decodeError(fault, s.procedure, &d.Client))
		s.over(s.number, true)
	case end:
		s.finish(io.EOF)
		s.over(s.number, true)
	default:
		s.signal()
	}
	return nil
}

func (s *remoteStream) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// finish says how the stream ended, unless it has. Items that came before are still
// consumed.
func (s *remoteStream) finish(err error) {
	s.mu.Lock()
	if s.done == nil {
		s.done = err
	}
	s.mu.Unlock()
	s.signal()
}

// stop ends the stream: nobody wants more of it.
func (s *remoteStream) stop() { s.fail(errStopped) }

// fail is stop for another reason. What came and was not consumed is dropped.
func (s *remoteStream) fail(err error) {
	s.mu.Lock()
	ended := s.done != nil
	if s.items = nil; s.done == nil {
		s.done = err
	}
	s.mu.Unlock()
	s.signal()
	if !ended {
		s.over(s.number, false)
	}
}

// next waits for the next item, or returns how the stream ended: io.EOF, or an error.
func (s *remoteStream) next() ([]byte, error) {
	for {
		s.mu.Lock()
		if len(s.items) > 0 {
			item := s.items[0]
			s.items[0] = nil
			s.items = s.items[1:]
			s.bytes -= len(item)
			s.eaten++
			s.eatenB += len(item)
			more := 0
			if s.done == nil && (s.eaten >= windowItems/4 || s.eatenB >= windowBytes/4) {
				more, s.eaten, s.eatenB = s.eaten, 0, 0
			}
			s.mu.Unlock()
			if more > 0 && s.consumed != nil {
				s.consumed(s.number, more)
			}
			return item, nil
		}
		done := s.done
		s.mu.Unlock()
		switch {
		case done != nil:
			return nil, done
		case s.pull == nil:
			<-s.wake
			continue
		}
		params, err := s.pull()
		if err == nil {
			err = s.piece(params, s.dialer)
		}
		if err != nil {
			s.fail(err)
		}
	}
}

// value returns the stream as the iterator or reader that its slot says. It ends with
// ctx. When it is forgotten before its end, the server is told.
func (s *remoteStream) value(ctx context.Context, slot *fn.Slot) reflect.Value {
	s.mu.Lock()
	s.given = true
	s.mu.Unlock()
	s.sweeper.add(1)
	if ctx.Done() != nil {
		s.unwatch = context.AfterFunc(ctx, func() {
			s.fail(endedBy(ctx.Err(), context.Cause(ctx), fmt.Sprintf("stream of %q", s.procedure)))
		})
	}
	if slot.Kind == fn.Reader || slot.Kind == fn.ReadCloser {
		r := &remoteReader{s: s}
		runtime.AddCleanup(r, func(s *remoteStream) { s.forget() }, s)
		return reflect.ValueOf(r)
	}
	holder := &struct{ s *remoteStream }{s}
	runtime.AddCleanup(holder, func(s *remoteStream) {
		if !s.used.Swap(true) {
			s.forget()
		}
	}, s)
	return slot.Iter(func(yield func(reflect.Value) bool) error {
		defer runtime.KeepAlive(holder)
		return holder.s.each(slot, yield)
	})
}

// leave is for the consumer, when it is done with the stream.
func (s *remoteStream) leave() {
	s.stop()
	if s.unwatch != nil {
		s.unwatch()
	}
	s.mu.Lock()
	given := s.given
	s.given = false
	s.mu.Unlock()
	if given {
		s.sweeper.add(-1)
	}
}

// forget is leave for the garbage collector.
func (s *remoteStream) forget() {
	s.mu.Lock()
	given := s.given
	s.mu.Unlock()
	if given {
		s.sweeper.forget(s)
	}
}

// each reads the stream, once.
func (s *remoteStream) each(slot *fn.Slot, yield func(reflect.Value) bool) error {
	if s.used.Swap(true) {
		return yonder.Errorf(yonder.FailedPrecondition, "yonder: stream of %q: it has been read already; a stream can be ranged over once", s.procedure)
	}
	defer s.leave()
	for {
		item, err := s.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		v := reflect.New(slot.Elem)
		if err := decode(item, v.Interface()); err != nil {
			return yonder.Errorf(yonder.InvalidArgument, "yonder: stream of %q: %w", s.procedure, err)
		}
		if !yield(v.Elem()) {
			return nil
		}
	}
}

// A remoteReader reads what a server's reader does.
type remoteReader struct {
	s      *remoteStream
	rest   []byte
	err    error
	closed atomic.Bool
}

func (r *remoteReader) Read(b []byte) (int, error) {
	for len(r.rest) == 0 && r.err == nil && len(b) > 0 && !r.closed.Load() {
		item, err := r.s.next()
		if err == nil {
			text, ok := stringOf(item)
			if r.rest, err = base64.StdEncoding.DecodeString(text); err == nil && !ok {
				err = errors.New("an item is no string")
			}
			if err != nil {
				err = yonder.Errorf(yonder.InvalidArgument, "yonder: reader of %q: %w", r.s.procedure, err)
				r.s.fail(err)
			}
		}
		r.err = err
	}
	if r.closed.Load() {
		return 0, io.ErrClosedPipe
	}
	n := copy(b, r.rest)
	if r.rest = r.rest[n:]; n > 0 {
		return n, nil
	}
	return 0, r.err
}

// Close tells the server that no more is wanted.
func (r *remoteReader) Close() error {
	r.closed.Store(true)
	r.s.leave()
	return nil
}
