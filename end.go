package yonder

import (
	"context"
	"io"
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/yonder-rpc/yonder/internal/fn"
)

// OnEnd has f called, once, when the call is over: at once, with nil, if there are no streams and
// readers among its results, and otherwise when the last of them has been read, left or lost, with
// the first error that ended one. It is for interceptors, after the next handler has returned nil;
// with an error the call is over then.
//
// f is called on whatever goroutine sees the end, and must not wait for anything. At the caller's
// end it must not refer to the call: a stream that nobody has any more ends by that, and f would
// have it.
func (c *Call) OnEnd(f func(err error)) {
	plan := c.plan
	if c.proc != nil {
		plan = c.proc.plan
	}
	if c.OneWay || plan == nil || plan.Plain || !hasStreams(plan.Results) {
		f(nil)
		return
	}
	c.ends = append(c.ends, f)
}

// callEnd is the end of a call that goes on in its streams. It refers to nothing of theirs.
type callEnd struct {
	mu   sync.Mutex // guards what follows
	open int
	err  error         // the first
	fire []func(error) // nil: it is over
	stop func() bool   // the watch on the context
}

// over ends the call.
func (e *callEnd) over(err error) {
	e.mu.Lock()
	fire, stop := e.fire, e.stop
	e.fire = nil
	if e.err != nil {
		err = e.err
	}
	e.mu.Unlock()
	if stop != nil {
		stop()
	}
	for _, f := range fire {
		f(err)
	}
}

// streamOver ends one stream.
func (e *callEnd) streamOver(err error) {
	e.mu.Lock()
	e.open--
	last := e.open == 0
	if e.err == nil {
		e.err = err
	}
	e.mu.Unlock()
	if last {
		e.over(nil)
	}
}

func streamsAmong(slots []fn.Slot) (n int64) {
	for i := range slots {
		if slots[i].Kind != fn.Value && slots[i].Kind != fn.Callback {
			n++
		}
	}
	return n
}

// watch has end told when the streams among the results have ended, and reports whether there are
// some. A connection of the native protocol sees to those that it sends.
func (c *Call) watch(ctx context.Context, end *callEnd) bool {
	plan := c.plan
	if c.proc != nil {
		plan = c.proc.plan
	}
	if plan == nil || plan.Plain {
		return false
	}
	result := func(i int) reflect.Value {
		if c.proc != nil {
			return c.out[i]
		}
		return reflect.ValueOf(c.into[i]).Elem()
	}
	for i := range plan.Results {
		if plan.Results[i].Kind != fn.Value && !isNil(result(i)) {
			end.open++
		}
	}
	if end.open == 0 {
		return false
	}
	if c.proc != nil && c.link != nil {
		c.end = end
		return true
	}
	what := streamOf(c.Procedure)
	end.mu.Lock()
	end.stop = context.AfterFunc(ctx, func() { end.over(contextFailure(ctx, what)) })
	end.mu.Unlock()
	for i := range plan.Results {
		if slot := &plan.Results[i]; slot.Kind == fn.Value || isNil(result(i)) {
			continue
		} else if v := watched(slot, result(i), end); c.proc != nil {
			c.out[i] = v
		} else {
			result(i).Set(v)
		}
	}
	return true
}

// watchedStream tells a call's end of one stream's.
type watchedStream struct {
	end  *callEnd
	over atomic.Bool
}

func (w *watchedStream) ended(err error) {
	if !w.over.Swap(true) {
		w.end.streamOver(err)
	}
}

// watched returns a stream or a reader whose end is told. One that nobody has any more has ended.
func watched(slot *fn.Slot, v reflect.Value, end *callEnd) reflect.Value {
	w := &watchedStream{end: end}
	held := newGrip(func() {
		if !w.over.Load() {
			go w.ended(nil) // the collector is not to wait
		}
	})
	if slot.Kind == fn.Reader || slot.Kind == fn.ReadCloser {
		return reflect.ValueOf(&watchedReader{Reader: v.Interface().(io.Reader), stream: w, grip: held})
	}
	inner := reflect.New(slot.Type).Elem() // v may be where the watched one goes
	inner.Set(v)
	return iteratorOf(slot, func(place reflect.Value, yield func() bool) (err error) {
		defer runtime.KeepAlive(held)
		defer func() { w.ended(err) }() // also of a yield that panics, with nil
		return rangeOver(slot, inner, func(elem reflect.Value) bool {
			place.Elem().Set(elem)
			return yield()
		})
	})
}

// watchedReader is a reader that tells of its end.
type watchedReader struct {
	io.Reader
	stream *watchedStream
	grip   *grip
}

func (r *watchedReader) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	if err == io.EOF {
		r.stream.ended(nil)
	} else if err != nil {
		r.stream.ended(err)
	}
	return n, err
}

// Close closes the reader, if it can be.
func (r *watchedReader) Close() (err error) {
	if c, ok := r.Reader.(io.Closer); ok {
		err = c.Close()
	}
	r.stream.ended(nil)
	return err
}
