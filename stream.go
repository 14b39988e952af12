package yonder

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"reflect"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/yonder-rpc/yonder/internal/fn"
	"github.com/yonder-rpc/yonder/internal/mux"
	"github.com/yonder-rpc/yonder/internal/plain"
	"github.com/yonder-rpc/yonder/internal/wire"
)

// A Stream is an iterator that crosses connections as iter.Seq2[T, error] does, and is used
// like one: each end may declare either. Its elements need no reflection on their way, which
// for structs is a multiple as fast: see BenchmarkStream.
type Stream[T any] func(yield func(T, error) bool)

// typedStream is a *Stream, whatever its elements are.
type typedStream interface {
	// each is [fn.Slot.Range]. All elements are in the same place.
	each(yield func(elem reflect.Value) bool) error
	// set is [fn.Slot.Iter].
	set(run streamed)
}

// streamed runs a stream once: it puts each element where place points to, which is zero, and calls
// yield until that returns false.
type streamed func(place reflect.Value, yield func() bool) error

func (s *Stream[T]) each(yield func(elem reflect.Value) bool) error {
	cell, zero := new(T), *new(T)
	place := reflect.ValueOf(cell).Elem()
	for elem, err := range *s {
		if err != nil {
			return err
		}
		*cell = elem
		more := yield(place)
		*cell = zero // the next one may be long in coming
		if !more {
			break
		}
	}
	return nil
}

func (s *Stream[T]) set(run streamed) {
	*s = func(yield func(T, error) bool) {
		cell, zero := new(T), *new(T)
		broke := false
		err := run(reflect.ValueOf(cell), func() bool {
			elem := *cell
			*cell = zero // likewise
			broke = broke || !yield(elem, nil)
			return !broke
		})
		if err != nil && !broke {
			yield(zero, err)
		}
	}
}

// rangeOver hands each element of an iterator to yield until that returns false, and returns
// the error that ended it.
func rangeOver(slot *fn.Slot, v reflect.Value, yield func(elem reflect.Value) bool) error {
	if !v.CanAddr() && slot.Kind == fn.Seq2 && !v.IsNil() {
		own := reflect.New(v.Type())
		own.Elem().Set(v)
		if s, ok := own.Interface().(typedStream); ok {
			return s.each(yield)
		}
	}
	return slot.Range(v, yield)
}

// iteratorOf returns an iterator of the slot's type. Each loop over it calls run.
func iteratorOf(slot *fn.Slot, run streamed) reflect.Value {
	v := reflect.New(slot.Type)
	if s, ok := v.Interface().(typedStream); ok {
		s.set(run)
		return v.Elem()
	}
	return slot.Iter(func(yield func(reflect.Value) bool) error {
		place := reflect.New(slot.Elem)
		elem := place.Elem()
		return run(place, func() bool {
			more := yield(elem)
			elem.SetZero()
			return more
		})
	})
}

// rangeable makes a result that is an iterator and nil one that yields nothing: its caller ranges over it,
// and the other end, which says that there is none, should not thereby end the program.
func rangeable(slot *fn.Slot, into any) {
	if slot.Kind != fn.Seq && slot.Kind != fn.Seq2 {
		return
	}
	if v := reflect.ValueOf(into).Elem(); v.IsZero() {
		v.Set(iteratorOf(slot, func(reflect.Value, func() bool) error { return nil }))
	}
}

// outStream is an iterator or a reader of this end's, and where it goes.
type outStream struct {
	slot  *fn.Slot
	value reflect.Value
	to    *mux.SendStream
}

// readerChunks are what readers are read into.
var readerChunks = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// produce sends what a stream yields until it ends, or its consumer does. It returns
// the error that ended it, and its record, or nil.
func (l *link) produce(procedure string, s outStream) (record []byte, err error) {
	var failed error
	defer func() {
		if r := recover(); r != nil {
			// An iterator that goes on after yield has said no panics, too: what made it say no
			// is what the consumer should hear.
			if err = panicked(l.logger(), procedure, r); failed != nil {
				err = failed
			}
		}
		if err != nil && s.to.Err() == nil {
			record = l.closing(procedure, err)
		} else {
			err = nil // the consumer has left, or the connection is lost
		}
	}()
	if s.slot.Kind == fn.Reader || s.slot.Kind == fn.ReadCloser {
		err = copyReader(s)
		return nil, err
	}
	msg := mux.NewMessage()
	defer msg.Release()
	elem := fn.Slot{Kind: fn.Value, Type: s.slot.Elem, Walk: s.slot.Walk}
	plan := l.planOf(s.slot.Elem)
	err = rangeOver(s.slot, s.value, func(v reflect.Value) bool {
		msg.Reset()
		if plan == nil || !plan.Encode(&msg.Buffer, v) {
			failed = encodeValue(l.codec, msg, &elem, v.Interface())
		}
		if failed == nil {
			failed = s.to.Item(msg)
		}
		return failed == nil
	})
	if err == nil {
		err = failed
	}
	return nil, err
}

// planOf returns how elements of a type go without a look at each one's type; nil: they do not.
func (l *link) planOf(elem reflect.Type) *plain.Plan {
	if l.codec != CBOR {
		return nil
	}
	return plain.Of(elem)
}

// closing returns the record of an error that ends a stream. It must fit in a frame: of
// one that does not, the code crosses and the text, or how it begins.
func (l *link) closing(procedure string, err error) []byte {
	e := l.record(procedure, err)
	record := wire.AppendError(nil, e)
	if len(record) < wire.MaxBody {
		return record
	}
	text := strings.ToValidUTF8(e.Message[:min(len(e.Message), wire.MaxBody/2)], "")
	return wire.AppendError(nil, &wire.Error{Code: e.Code, Message: text})
}

// copyReader sends a reader's bytes. One that can be closed is closed at the end.
func copyReader(s outStream) error {
	r := s.value.Interface().(io.Reader)
	if c, ok := r.(io.Closer); ok && s.slot.Kind == fn.ReadCloser {
		defer c.Close()
	}
	buf := readerChunks.Get().(*[32 << 10]byte)
	defer readerChunks.Put(buf)
	for {
		if err := s.to.Err(); err != nil {
			return err
		}
		n, err := r.Read(buf[:])
		if n > 0 {
			if _, err := s.to.Write(buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// discard lets go of a result that nobody wants.
func discard(slot *fn.Slot, call *Call, i int) {
	if slot.Kind == fn.ReadCloser && call.out != nil && !call.out[i].IsNil() {
		call.out[i].Interface().(io.Closer).Close()
	}
}

// inStream is a stream that the other end produces.
type inStream struct {
	link *link
	name string // of the procedure
	from *mux.RecvStream
	slot *fn.Slot
	used atomic.Bool // it has been ranged over
	// finished is set when nothing is left to be told to the other end.
	finished atomic.Bool
	// over is called when the consumer is done with it.
	over func()
}

// value returns the stream as the iterator or reader that its slot says. When that is
// forgotten before its end, the other end is told.
func (s *inStream) value() reflect.Value {
	held := newGrip(s.forget)
	if s.slot.Kind == fn.Reader || s.slot.Kind == fn.ReadCloser {
		return reflect.ValueOf(&remoteReader{s: s, grip: held})
	}
	return iteratorOf(s.slot, func(place reflect.Value, yield func() bool) error {
		defer runtime.KeepAlive(held)
		return s.each(place, yield)
	})
}

// A grip is what those have who may still use a stream. It is one type for all of them because each type
// adds a copy of AddCleanup to every program, and has a pointer because small values without one share
// memory.
type grip struct{ _ *grip }

// newGrip returns a grip, and has the garbage collector call f, which must not wait, when nobody has it
// any more.
func newGrip(f func()) *grip {
	g := new(grip)
	runtime.AddCleanup(g, func(f func()) { f() }, f)
	return g
}

// each reads the stream, once. It is a [streamed].
func (s *inStream) each(place reflect.Value, yield func() bool) error {
	if s.used.Swap(true) {
		return errUsed(s.name)
	}
	defer s.finish()
	plan := s.link.planOf(s.slot.Elem)
	var texts plain.Texts
	var unplanned fn.Slot
	for {
		data, large, err := s.from.Items(context.Background())
		if err != nil {
			return s.error(err)
		}
		shares := sharesNothing
		if large {
			shares = sharesAll
		}
		for len(data) > 0 {
			item := data
			data = nil
			if !large {
				if item, data, err = wire.CutItem(item); err != nil {
					return s.error(err)
				}
			}
			beginTexts(&texts, item, shares)
			decoded := false
			if plan != nil && !large {
				_, decoded = plan.Decode(item, place, &texts)
			}
			if !decoded {
				if _, err := decodeValue(s.link.codec, &unplanned, item, shares, place.Interface(), &texts); err != nil {
					return Errorf(InvalidArgument, "yonder: stream of %q: %w", s.name, err)
				}
			}
			if !yield() {
				return nil
			}
		}
	}
}

// forget ends a stream that nobody can read any more. The garbage collector calls it.
func (s *inStream) forget() {
	if s.finished.Load() {
		return
	}
	if !s.link.mux.Later(s.finish) && s.over != nil {
		s.over()
	}
}

// finish ends the stream, if the other end has not.
func (s *inStream) finish() {
	s.finished.Store(true)
	s.from.Stop()
	if s.over != nil {
		s.over()
	}
}

// error returns what the consumer is told of how the stream ended.
func (s *inStream) error(err error) error {
	if err == io.EOF {
		return nil
	}
	return s.link.failure(streamOf(s.name), err)
}

// remoteReader reads what the other end's reader does.
type remoteReader struct {
	s      *inStream
	grip   *grip
	closed atomic.Bool
}

func (r *remoteReader) Read(b []byte) (int, error) {
	if r.closed.Load() {
		return 0, io.ErrClosedPipe
	}
	n, err := r.s.from.Read(b)
	switch {
	case err == nil || err == io.EOF:
	case err == mux.ErrStopped:
		err = io.ErrClosedPipe
	default:
		err = r.s.error(err)
	}
	return n, err
}

// Close tells the other end that no more is wanted.
func (r *remoteReader) Close() error {
	r.closed.Store(true)
	r.s.finish()
	return nil
}

// stream makes what the procedure takes of a stream or function among the arguments.
func (sc *serverCall) stream(i int, slot *fn.Slot) (reflect.Value, error) {
	if slot.Kind == fn.Callback {
		return sc.callbackTo(i, slot.Func), nil
	}
	from, err := sc.in.RecvStream(uint8(i + 1))
	if err != nil {
		return reflect.Value{}, sc.link.failure("stream", err)
	}
	s := &inStream{link: sc.link, name: sc.call.Procedure, from: from, slot: slot}
	return s.value(), nil
}

// callbackTo returns a function that calls the caller's function at an argument.
func (sc *serverCall) callbackTo(i int, plan *fn.Func) reflect.Value {
	q := mux.Request{Flags: wire.Callback, Call: sc.in.ID(), Arg: uint8(i)}
	name := callbackName(sc.call.Procedure, i)
	return plan.Make(func(ctx context.Context, args []reflect.Value) ([]reflect.Value, error) {
		if ctx == nil {
			ctx = sc.ctx
		}
		if sc.over.Load() {
			return nil, errOver(name)
		}
		call, results := newFuncCall(name, plan, args)
		call.carry(ctx)
		_, err := sc.link.request(ctx, call, q)
		call.deliver(ctx)
		return results, err
	})
}

// conversation is the caller's side of a call with streams, readers or functions. It
// holds nothing that leads to the call's results: a stream that the caller forgets must
// be garbage.
type conversation struct {
	link *link
	name string // of the procedure
	out  *mux.Outgoing
	open atomic.Int32 // results still to be read
	stop func() bool  // the watch on the caller's context
}

// converse sends the streams among the arguments while it waits for the answer, and
// makes those among the results.
func (l *link) converse(ctx context.Context, call *Call, o *mux.Outgoing) error {
	name := call.Procedure
	for i := range call.plan.Args {
		slot := &call.plan.Args[i]
		v := reflect.ValueOf(call.args[i])
		if slot.Kind == fn.Value || slot.Kind == fn.Callback || isNil(v) {
			continue
		}
		s := outStream{slot, v, o.SendStream(uint8(i + 1))}
		go func() { // ends with the call, at the latest when the user's iterator next yields
			if !o.Sent(s.to) && slot.Kind != fn.ReadCloser { // that is closed, as by who has read it
				return
			}
			record, _ := l.produce(name, s)
			o.CloseStream(s.to, record)
		}()
	}
	if err := o.Wait(ctx); err != nil {
		if ctx.Err() != nil && err == ctx.Err() {
			return contextFailure(ctx, quoted(call))
		}
		if o.Unsent() {
			return unrun(l.failure(quoted(call), err))
		}
		return l.failure(quoted(call), err)
	}
	c := &conversation{link: l, name: name, out: o}
	c.open.Store(1) // for the answer itself
	c.stop = context.AfterFunc(ctx, func() { o.Abandon(ctx.Err(), contextFailure(ctx, streamOf(name))) })
	err := l.answer(call, o, c)
	o.ReleaseBody()
	if err != nil && !o.Ended() {
		o.Abandon(context.Canceled, context.Canceled)
	}
	c.done()
	return inTime(ctx, call, err)
}

// done counts down what is still to be read.
func (c *conversation) done() {
	if c.open.Add(-1) == 0 {
		c.stop()
	}
}

// result makes the stream at a result.
func (c *conversation) result(i int, slot *fn.Slot, into any) error {
	from, err := c.out.RecvStream(uint8(i + 1))
	if err != nil {
		return c.link.failure("stream", err)
	}
	c.open.Add(1)
	s := &inStream{link: c.link, name: c.name, from: from, slot: slot, over: sync.OnceFunc(c.done)}
	reflect.ValueOf(into).Elem().Set(s.value())
	return nil
}

// logPanic tells the operator of a panic in the user's code.
func logPanic(logger *slog.Logger, name string, value any) {
	if value == nil {
		value = errors.New("runtime.Goexit was called")
	}
	logger.LogAttrs(context.Background(), slog.LevelError, "yonder: procedure panicked",
		slog.String("procedure", name), slog.Any("panic", value), slog.String("stack", string(debug.Stack())))
}

// panicked logs a panic of the user's code and returns what the other end is told.
func panicked(logger *slog.Logger, name string, value any) error {
	logPanic(logger, name, value)
	return errPanicked(name)
}

func errPanicked(name string) error { return Errorf(Internal, "yonder: %q panicked", name) }

func streamOf(procedure string) string { return `stream of "` + procedure + `"` }

func errUsed(procedure string) error {
	return Errorf(FailedPrecondition, "yonder: stream of %q: it has been read already; a stream can be ranged over once", procedure)
}

func errOver(procedure string) error {
	return Errorf(FailedPrecondition, "yonder: callback of %q: the call that it belongs to has ended", procedure)
}
