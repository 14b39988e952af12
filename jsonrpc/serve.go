package jsonrpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"reflect"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/internal/fn"
)

// A service does what messages ask for, over whatever they came.
type service struct {
	srv    *yonder.Server
	config Config // with defaults
	limits yonder.Limits
	conn   any // what handlers see

	authorization string // of calls that have none of their own; "": they have none
}

// authorization is the key of the metadata that HTTP has a header of its own for.
const authorization = "authorization"

// metadata returns that of a request, with what came beside the message.
func (s *service) metadata(r *request) yonder.Metadata {
	if _, own := r.meta[authorization]; own || s.authorization == "" {
		return r.meta
	}
	m := make(yonder.Metadata, len(r.meta)+1)
	maps.Copy(m, r.meta)
	m[authorization] = s.authorization
	return m
}

func newService(srv *yonder.Server, config *Config, conn any) service {
	return service{srv: srv, config: config.withDefaults(), limits: srv.Limits.WithDefaults(), conn: conn}
}

func (s *service) logger() *slog.Logger {
	if s.srv.Logger != nil {
		return s.srv.Logger
	}
	return slog.Default()
}

// A caller is who the calls of a message come from.
type caller interface {
	// start begins a call of a batch, so that it can be cancelled, and has it run on a goroutine
	// of its own as soon as it may, or is refused: see [activeCall].
	start(ctx context.Context, r *request, run func(ctx context.Context, a *activeCall))
	// leave lets the next call run. That is when the answer is sent: answers that wait to be
	// are as many as calls, too.
	leave()
	// subscribe has a stream sent apart from the answer, once that is sent, and returns the
	// subscription's number. ok is false if it is to be a part of the answer.
	subscribe(ctx context.Context, a *activeCall, slot *fn.Slot, v reflect.Value) (number uint64, ok bool, err error)
	// control does what a request of the protocol itself asks for. ok is false if it is
	// none.
	control(r *request) (result any, ok bool, err error)
	// reply takes the metadata of an answer, and returns what of it the answer must hold.
	reply(m yonder.Metadata) yonder.Metadata
	// failed is told the error that an answer is to be.
	failed(err error)
	// note is start for a notification of so many bytes, whose end nobody waits for.
	note(r *request, size int, run func(ctx context.Context, a *activeCall))
}

// An activeCall is a call whose handler runs or whose streams are open.
type activeCall struct {
	id      []byte // nil: it cannot be cancelled
	cancel  context.CancelCauseFunc
	stop    context.CancelFunc // of the deadline; nil: there is none
	open    int                // the handler, and the streams; guarded by the caller
	begin   []*subscription    // to run when the answer is sent
	failed  bool               // the answer is an error
	refused error              // why its handler may not run; nil: it may
	timed   bool               // it has a deadline

	prev, next *activeCall // of the owner's; guarded by it
	same       sameID      // guarded by the owner
	owner      *conn       // to be told of its end; nil: nobody is
	entered    caller      // to be left; nil: none is
	task       *task       // it is of; nil: of none
}

// left lets the next call run.
func (a *activeCall) left() {
	if a.entered != nil {
		a.entered.leave()
		a.entered = nil
	}
}

// ended ends the handler's part in the call.
func (a *activeCall) ended() {
	a.left()
	switch {
	case a.owner != nil:
		a.owner.over(a)
	default:
		a.release()
	}
}

// release ends the call's context.
func (a *activeCall) release() {
	if a.stop != nil {
		a.stop()
	}
	a.cancel(context.Canceled)
}

// newActive begins a call.
func newActive(ctx context.Context, r *request) (context.Context, *activeCall) {
	a := &activeCall{open: 1}
	if !r.note {
		a.id = r.id
	}
	ctx, a.cancel = context.WithCancelCause(ctx)
	if r.timeout > 0 {
		ctx, a.stop = context.WithTimeout(ctx, r.timeout)
		a.timed = true
	}
	return ctx, a
}

// controls does what a request of the protocol itself asks for, and appends the answer, unless it is
// a notification. It reports whether it was such a request.
func (s *service) controls(r *request, out *outBuffer, c caller) bool {
	result, ok, err := c.control(r)
	switch {
	case !ok || r.note:
	case err != nil:
		s.fail(r, out, err)
	default:
		s.write(r, out, nil, c, func() error { return out.value(result) })
	}
	return ok
}

// answer serves a call, which is the caller's to end, and appends the answer, unless it is a
// notification.
//
// It does not return if the user's code ends the goroutine by runtime.Goexit. The answer is an
// error then.
func (s *service) answer(ctx context.Context, r *request, out *outBuffer, c caller, a *activeCall) {
	info := yonder.CallInfo{Procedure: r.method, Metadata: s.metadata(r), Protocol: protocolName, Conn: s.conn}
	target, err := s.srv.Target(info)
	switch {
	case err != nil:
		err = errMethod
	case a.refused != nil:
		err = ofCall(ctx, a.refused)
	}
	if err != nil {
		if !r.note {
			s.fail(r, out, err)
		}
		return
	}
	returned := false
	defer func() {
		if returned {
			return
		}
		a.failed = true
		if !r.note {
			out.Reset()
			s.fail(r, out, errExited(r.method))
		}
	}()
	call := target.NewCall(info, func(into []any) error { return fill(target, r.params, into) })
	call.OneWay = r.note
	err = s.srv.Call(ctx, call)
	switch {
	case r.note && err == nil:
		discard(target, call)
	case r.note:
	default:
		a.failed = s.write(r, out, call, c, func() error {
			if err == nil {
				err = s.results(ctx, target, call, out, c, a)
			}
			return ofCall(ctx, err)
		})
	}
	returned = true
}

// isUnknown reports whether a request's procedure is none of those that it may call.
func (s *service) isUnknown(r *request) bool {
	_, err := s.srv.Target(yonder.CallInfo{Procedure: r.method, Protocol: protocolName, Conn: s.conn})
	return err != nil
}

// errUnbegun is the error of a call whose context has ended, with err, before its handler began.
func errUnbegun(err error) error {
	return yonder.Errorf(yonder.CodeOf(err), "yonder: the call was over before it began: %w", err)
}

// errExited is the error of a call or stream whose code has called runtime.Goexit, which has
// been logged.
func errExited(procedure string) error {
	return yonder.Errorf(yonder.Internal, "yonder: %q did not return", procedure)
}

// fail appends an answer that is an error.
func (s *service) fail(r *request, out *outBuffer, err error) {
	s.write(r, out, nil, nil, func() error { return err })
}

// write appends an answer whose result is what value appends, or the error that it
// returns: then failed is true.
func (s *service) write(r *request, out *outBuffer, call *yonder.Call, c caller, value func() error) (failed bool) {
	start := out.Len()
	if r.legacy {
		out.WriteString(`{"id":`)
		out.Write(idOrNull(r.id))
		out.WriteString(`,"result":`)
	} else {
		out.WriteString(`{"jsonrpc":"2.0","result":`)
	}
	err := value()
	if err == nil && out.Len()-start > s.limits.MaxMessage {
		err = yonder.Errorf(yonder.ResourceExhausted, "yonder: call %q: the result is larger than %d bytes", r.method, s.limits.MaxMessage)
	}
	meta := call != nil && call.Reply != nil
	if meta && sizeOf(call.Reply) > s.limits.MaxMetadata {
		meta = false
		if err == nil {
			err = yonder.Errorf(yonder.ResourceExhausted, "yonder: call %q: the metadata of the answer is larger than %d bytes", r.method, s.limits.MaxMetadata)
		}
	}
	if err != nil && c != nil {
		c.failed(err)
	}
	switch {
	case err != nil && r.legacy:
		out.Truncate(start)
		out.WriteString(`{"id":`)
		out.Write(idOrNull(r.id))
		out.WriteString(`,"result":null,"error":`)
		out.text(textOf(s.srv, err))
	case err != nil:
		out.Truncate(start)
		out.WriteString(`{"jsonrpc":"2.0","error":`)
		out.fault(s.srv, err)
	case r.legacy:
		out.WriteString(`,"error":null`)
	}
	if !r.legacy {
		out.WriteString(`,"id":`)
		out.Write(idOrNull(r.id))
	}
	if meta {
		if meta := c.reply(call.Reply); len(meta) > 0 {
			end := out.Len()
			out.WriteString(`,"meta":`)
			if out.value(map[string]string(meta)) != nil {
				out.Truncate(end)
			}
		}
	}
	out.WriteByte('}')
	return err != nil
}

func idOrNull(id []byte) []byte {
	if id == nil {
		return []byte("null")
	}
	return id
}

// refuse appends the answer to what is no request.
func refuse(out *outBuffer, code int, id []byte) {
	message := "Invalid Request"
	if code == ParseError {
		message = "Parse error"
	}
	refuseFor(out, code, message, id)
}

func refuseFor(out *outBuffer, code int, message string, id []byte) {
	out.WriteString(`{"jsonrpc":"2.0","error":`)
	out.object(code, message, nil)
	out.WriteString(`,"id":`)
	out.Write(idOrNull(id))
	out.WriteByte('}')
}

// refuseText appends the answer to a text that is no message. One that is only nested too
// deeply fails the call that it is.
func (s *service) refuseText(out *outBuffer, fault *textError) {
	if large, ok := fault.err.(*errTooLarge); ok {
		if id := idOf(large.id); id != nil || large.batch {
			s.fail(&request{id: id}, out, yonder.Errorf(yonder.ResourceExhausted, "yonder: %w", large))
		}
		return
	}
	if fault.err != errNesting {
		refuse(out, ParseError, nil)
		return
	}
	r := new(request)
	if why := readRequest(fault.text, r, &s.limits); why != "" {
		s.reject(out, r, why)
	} else if !r.note {
		s.fail(r, out, errTooDeep)
	}
}

// reject appends the answer to what is no request, or one that has too much metadata. A
// notification of version 1.0 has none: who called first might take one without an id for its own.
func (s *service) reject(out *outBuffer, r *request, why string) {
	switch {
	case why != metaTooLarge && !r.legacy:
		refuse(out, InvalidRequest, r.id)
	case r.note:
	case why != metaTooLarge:
		s.fail(r, out, &Error{Code: InvalidRequest, Message: "Invalid Request: " + why})
	default:
		s.fail(r, out, yonder.Errorf(yonder.ResourceExhausted, "yonder: call %q: the metadata is larger than %d bytes", r.method, s.limits.MaxMetadata))
	}
}

var errTooDeep error = &Error{Code: InvalidRequest, Message: "Invalid Request: " + errNesting.Error()}

// isBatch reports whether the text is a batch, whose requests are answered one by one.
func (e *textError) isBatch() bool { return e.err == errNesting && e.text[0] == '[' }

// results appends the results of a call: null, or the only one, or an array of them.
func (s *service) results(ctx context.Context, target *yonder.Target, call *yonder.Call, out *outBuffer, c caller, a *activeCall) (err error) {
	returned := false
	defer func() {
		if !returned { // a MarshalText or the like, or an iterator
			err = s.panicked(call.Procedure, recover())
		}
	}()
	err = s.writeResults(ctx, target, call, out, c, a)
	returned = true
	return err
}

// writeResults is results for code that does not panic.
func (s *service) writeResults(ctx context.Context, target *yonder.Target, call *yonder.Call, out *outBuffer, c caller, a *activeCall) (err error) {
	results := call.Results()
	if len(results) == 0 {
		return out.value(nil)
	}
	for i, result := range results {
		if len(results) > 1 {
			if i == 0 {
				out.WriteByte('[')
			} else {
				out.WriteByte(',')
			}
		}
		err := s.result(ctx, target.Results[i], result, out, c, a)
		if err == nil {
			continue
		}
		for j := i + 1; j < len(results); j++ {
			if target.Results[j] == readCloserType {
				closeReader(results[j])
			}
		}
		if code := yonder.CodeOf(err); code != yonder.Unknown || isStream(target.Results[i]) {
			return err
		}
		return yonder.Errorf(yonder.Internal, "yonder: call %q: result %d: %w", call.Procedure, i+1, err)
	}
	if len(results) > 1 {
		out.WriteByte(']')
	}
	return nil
}

// result appends one result.
func (s *service) result(ctx context.Context, t reflect.Type, result any, out *outBuffer, c caller, a *activeCall) error {
	if !isStream(t) {
		return out.value(result)
	}
	v := reflect.New(t).Elem()
	if result != nil {
		v.Set(reflect.ValueOf(result))
	}
	if v.IsNil() {
		return out.value(nil)
	}
	slots, err := fn.Dynamic(nil, []reflect.Type{t})
	if err != nil {
		return err
	}
	slot := &slots.Results[0]
	number, ok, err := c.subscribe(ctx, a, slot, v)
	switch {
	case err != nil:
		if slot.Kind == fn.ReadCloser {
			closeReader(result)
		}
		return err
	case ok:
		out.WriteString(`{"subscription":`)
		out.Write(strconv.AppendUint(out.AvailableBuffer(), number, 10))
		out.WriteByte('}')
		return nil
	}
	if err := out.inline(slot, v, s.limits.MaxMessage); err != nil {
		return err
	}
	return ctx.Err() // it may have been cut short
}

func closeReader(v any) {
	if c, ok := v.(io.ReadCloser); ok {
		c.Close()
	}
}

// discard lets go of results that nobody wants.
func discard(target *yonder.Target, call *yonder.Call) {
	for i, result := range call.Results() {
		if target.Results[i] == readCloserType {
			closeReader(result)
		}
	}
}

// panicked tells the operator of a panic in the user's code, or, if value is nil, of
// runtime.Goexit, and returns what the peer is told.
func (s *service) panicked(procedure string, value any) error {
	if value == nil {
		value = "runtime.Goexit was called"
	}
	return panicked(s.logger(), procedure, value)
}

func panicked(logger *slog.Logger, procedure string, value any) error {
	logger.Error("yonder: procedure panicked", "procedure", procedure, "panic", value, "stack", string(debug.Stack()))
	return yonder.Errorf(yonder.Internal, "yonder: %q panicked", procedure)
}

// batch answers an array of requests, which is known to be one. What it appends is the
// answer, or nothing if there is none to give. The calls run at the same time, as many
// as the caller lets. Nobody waits for notifications. deep says that something in the array is nested
// too deeply.
func (s *service) batch(ctx context.Context, text []byte, deep bool, out *outBuffer, c caller) {
	count := 0
	for range elements(text) {
		count++
	}
	switch {
	case count == 0:
		refuse(out, InvalidRequest, nil)
		return
	case count > s.config.MaxBatch:
		refuseFor(out, InvalidRequest, fmt.Sprintf("Invalid Request: a batch of %d requests is larger than %d", count, s.config.MaxBatch), nil)
		return
	}
	if s.config.BatchTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, s.config.BatchTimeout, errBatchTime)
		defer cancel()
	}
	b := &batch{service: s, room: s.limits.MaxMessage, done: make(chan struct{}), left: 1}
	c = batched{c}
	for from, to := range elements(text) {
		r := new(request)
		if why := readRequest(text[from:to:to], r, &s.limits); why != "" {
			item := newBuffer()
			if s.reject(item, r, why); item.Len() > 0 {
				b.add(item)
			}
			continue
		}
		if deep && tooDeep(text[from:to]) {
			if !r.note {
				item := newBuffer()
				s.fail(r, item, errTooDeep)
				b.add(item)
			}
			continue
		}
		if isControl(r.method) {
			item := newBuffer()
			if s.controls(r, item, c) {
				if item.Len() > 0 {
					b.add(item)
				}
				continue
			}
		}
		if r.note {
			c.note(r, to-from, func(ctx context.Context, a *activeCall) {
				defer a.ended()
				s.answer(ctx, r, nil, c, a)
			})
			continue
		}
		item := &batchItem{r: r}
		b.mu.Lock()
		b.items = append(b.items, item)
		b.left++
		b.mu.Unlock()
		c.start(ctx, r, func(ctx context.Context, a *activeCall) {
			out := newBuffer()
			defer b.finish(item, out)
			defer a.ended()
			s.answer(ctx, r, out, c, a)
		})
	}
	b.wait(ctx, out)
}

var errBatchTime = errors.New("the batch took too long")

// readRequest reads a request, or says what is wrong with it.
func readRequest(text []byte, r *request, limits *yonder.Limits) (why string) {
	if text[0] != '{' {
		return "a request must be an object"
	}
	e := open(text)
	return r.read(&e, limits)
}

// batched is who the calls of a batch come from: their streams are a part of the answer.
type batched struct{ caller }

func (batched) subscribe(context.Context, *activeCall, *fn.Slot, reflect.Value) (uint64, bool, error) {
	return 0, false, nil
}

// A batch collects the answers of its requests.
type batch struct {
	*service
	done chan struct{} // closed when left is 0

	mu    sync.Mutex // guards what follows
	items []*batchItem
	room  int // for answers, in bytes
	left  int // requests without an answer, and one for whoever adds them
	over  bool
}

type batchItem struct {
	r   *request
	out *outBuffer // the answer; nil: there is none yet
}

// add takes the answer to what no call is made of.
func (b *batch) add(out *outBuffer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.items = append(b.items, &batchItem{out: out})
	b.room -= out.Len()
}

// finish takes the answer of a request.
func (b *batch) finish(item *batchItem, out *outBuffer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		out.release()
		return
	}
	if b.room -= out.Len(); b.room < 0 {
		out.Reset()
		b.fail(item.r, out, yonder.Errorf(yonder.ResourceExhausted,
			"yonder: call %q: the answers of the batch are larger than %d bytes", item.r.method, b.limits.MaxMessage))
	}
	item.out = out
	b.lessLocked()
}

func (b *batch) lessLocked() {
	if b.left--; b.left == 0 {
		close(b.done)
	}
}

// wait appends the answers when all are there, or when the time is up: then those that
// are missing are errors.
func (b *batch) wait(ctx context.Context, out *outBuffer) {
	b.mu.Lock()
	b.lessLocked()
	b.mu.Unlock()
	select {
	case <-b.done:
	case <-ctx.Done():
		// Handlers that heed their context answer themselves, for which they have a moment.
		t := time.NewTimer(batchGrace)
		select {
		case <-b.done:
		case <-t.C:
		}
		t.Stop()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
	for i, item := range b.items {
		if i == 0 {
			out.WriteByte('[')
		} else {
			out.WriteByte(',')
		}
		if item.out == nil {
			b.fail(item.r, out, yonder.Errorf(yonder.CodeOf(ctx.Err()), "yonder: call %q: %w", item.r.method, context.Cause(ctx)))
			continue
		}
		out.Write(item.out.Bytes())
		item.out.release()
	}
	if len(b.items) > 0 {
		out.WriteByte(']')
	}
}

// batchGrace is how long after a batch's time the handlers may take to say so.
const batchGrace = 50 * time.Millisecond
