package jsonrpc

import (
	"context"
	"encoding/base64"
	"io"
	"reflect"
	"strconv"
	"sync"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/internal/fn"
)

// What may be sent of a stream before the peer asks for more: so many items, and so
// many bytes of them, which one item may go beyond.
const (
	windowItems = 256
	windowBytes = 256 << 10
)

// chunk is how many bytes of a reader are an item.
const chunk = 24 << 10

// A subscription is a stream, or a reader, among the results of a call, that is sent
// in notifications.
type subscription struct {
	conn   *conn
	ctx    context.Context // of the handler
	call   *activeCall
	number uint64
	slot   *fn.Slot
	value  reflect.Value
	wake   chan struct{} // has one when credit was given, or the end was

	mu      sync.Mutex // guards what follows
	sizes   []int      // of the items that were sent and not asked for, oldest first
	bytes   int        // their sum
	extra   int64      // items that were asked for and not sent
	stopped bool       // the peer wants no more
}

// credit lets a subscription send more, and reports whether there is such a one.
func (c *conn) credit(number uint64, items int64) bool {
	return c.with(number, func(s *subscription) {
		items = min(max(items, 0), 1<<53)
		n := min(items, int64(len(s.sizes)))
		for _, size := range s.sizes[:n] {
			s.bytes -= size
		}
		s.sizes = append(s.sizes[:0], s.sizes[n:]...)
		s.extra = min(s.extra+items-n, 1<<53)
	})
}

// unsubscribe ends a subscription, and reports whether there was such a one.
func (c *conn) unsubscribe(number uint64) bool {
	return c.with(number, func(s *subscription) { s.stopped = true })
}

func (c *conn) with(number uint64, f func(s *subscription)) bool {
	c.mu.Lock()
	s := c.subs[number]
	c.mu.Unlock()
	if s == nil {
		return false
	}
	s.mu.Lock()
	f(s)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return true
}

// over ends the subscription's part in its call.
func (s *subscription) over() {
	c := s.conn
	s.close()
	c.mu.Lock()
	delete(c.subs, s.number)
	c.streams--
	c.idleLocked()
	c.mu.Unlock()
	c.over(s.call)
}

// close closes a reader that is the consumer's to close.
func (s *subscription) close() {
	if s.slot.Kind == fn.ReadCloser {
		closeReader(s.value.Interface())
	}
}

// run sends what the stream yields.
func (s *subscription) run() {
	defer s.over()
	defer context.AfterFunc(s.ctx, s.close)()
	out := newBuffer()
	defer out.release()
	err := errExited("stream") // unless produce returns
	defer func() { s.end(out, err) }()
	err = s.produce(out)
	if err == nil && s.ctx.Err() != nil {
		err = s.ctx.Err() // cut short: it must not be taken for complete
	}
}

// end sends the last notification.
func (s *subscription) end(out *outBuffer, err error) {
	s.mu.Lock()
	stopped := s.stopped
	s.mu.Unlock()
	if stopped || s.conn.ctx.Err() != nil {
		return
	}
	out.Reset()
	writeEnd(&s.conn.service, out, s.number, ofCall(s.ctx, err))
	s.conn.w.write(out.Bytes(), s.conn.framing(), false)
}

// writeEnd appends the last notification of a subscription.
func writeEnd(s *service, out *outBuffer, number uint64, err error) {
	writeHead(out, number)
	out.WriteString(`,"end":true`)
	if err != nil {
		out.WriteString(`,"error":`)
		out.fault(s.srv, err)
	}
	out.WriteString(`}}`)
}

const streamHead = `{"jsonrpc":"2.0","method":"rpc.stream","params":{"subscription":`

func writeHead(out *outBuffer, number uint64) {
	out.WriteString(streamHead)
	out.Write(strconv.AppendUint(out.AvailableBuffer(), number, 10))
}

// produce sends the items, and returns what ended the stream but the consumer.
func (s *subscription) produce(out *outBuffer) error {
	return s.conn.items(s.ctx, s.slot, s.value, out, s.number, func(size int) error {
		if err := s.take(size); err != nil {
			return err
		}
		return s.conn.w.write(out.Bytes(), s.conn.framing(), false)
	})
}

// take waits until an item of this size may be sent.
func (s *subscription) take(size int) error {
	for {
		s.mu.Lock()
		fits := len(s.sizes) < windowItems && s.bytes < windowBytes
		switch {
		case s.stopped:
			s.mu.Unlock()
			return errStopped
		case s.extra > 0:
			s.extra--
			s.mu.Unlock()
			return s.ctx.Err()
		case fits:
			s.sizes = append(s.sizes, size)
			s.bytes += size
			s.mu.Unlock()
			return s.ctx.Err()
		}
		s.mu.Unlock()
		select {
		case <-s.wake:
		case <-s.ctx.Done():
			return s.ctx.Err()
		}
	}
}

var errStopped = yonder.Errorf(yonder.Canceled, "yonder: the consumer wants no more of the stream")

// items writes one notification after another to out, each of one item, and has send
// send it.
func (s *service) items(ctx context.Context, slot *fn.Slot, v reflect.Value, out *outBuffer, number uint64, send func(size int) error) (err error) {
	var failed error
	returned := false
	defer func() {
		if !returned {
			// An iterator that goes on after yield has said no panics, too: what made it say no
			// is what the consumer should hear.
			if err = s.panicked("stream", recover()); failed != nil {
				err = failed
			}
		}
	}()
	err = s.itemsOf(slot, v, func(item any) bool {
		out.Reset()
		writeHead(out, number)
		out.WriteString(`,"items":[`)
		before := out.Len()
		failed = out.value(item)
		size := out.Len() - before
		out.WriteString(`]}}`)
		switch {
		case failed != nil:
		case out.Len() > s.limits.MaxMessage:
			failed = errLarge
		default:
			failed = send(size)
		}
		return failed == nil
	})
	returned = true
	if err == nil {
		err = failed
	}
	return err
}

// itemsOf has one take what a stream or a reader yields, one after another, until it does not
// want more.
func (s *service) itemsOf(slot *fn.Slot, v reflect.Value, one func(item any) bool) error {
	if slot.Kind == fn.Reader || slot.Kind == fn.ReadCloser {
		buf := make([]byte, chunk)
		r := v.Interface().(io.Reader)
		for {
			n, err := r.Read(buf)
			if n > 0 && !one(base64.StdEncoding.EncodeToString(buf[:n])) {
				return nil
			}
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
		}
	}
	return slot.Range(v, func(elem reflect.Value) bool { return one(elem.Interface()) })
}
