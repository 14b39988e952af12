package mux

import (
	"context"
	"io"
	"slices"
	"sync"

	"github.com/yonder-rpc/yonder/internal/buffer"
	"github.com/yonder-rpc/yonder/internal/wire"
)

// streams are those of one side of a call. A stream is named by its channel: one
// more than its position among the arguments, if the caller produces it, or among
// the results, if the callee does. All is guarded by conn.mu.
type streams struct {
	conn   *Conn
	id     uint32
	caller bool // this side is the caller
	recv   []*RecvStream
	send   []*SendStream
	stops  []uint8 // channels that the consumer left before this side began to send
	err    error   // why there will be no more
	over   bool    // the call has ended
}

// streamsLocked returns the streams of a call, made when the first is mentioned: most
// calls have none, and an Incoming is garbage after its call.
func (in *Incoming) streamsLocked() *streams {
	if in.streams == nil {
		in.streams = &streams{conn: in.conn, id: in.id}
		if in.left {
			in.streams.err, in.streams.over = ErrEnded, true
		}
	}
	return in.streams
}

// flag is what the frames that this side sends need.
func (s *streams) flag() wire.Flags {
	if s.caller {
		return 0
	}
	return wire.FromCallee
}

// failLocked ends all streams.
func (s *streams) failLocked(err error) {
	if s.err == nil {
		s.err = err
	}
	for _, r := range s.recv {
		r.fail(err)
	}
	for _, p := range s.send {
		p.Stop(err)
	}
}

// allStopped reports whether the consumers of all streams have left.
func (s *streams) allStopped() bool {
	for _, p := range s.send {
		if p.Err() == nil {
			return false
		}
	}
	return true
}

// creditLocked adds what the peer's HELLO gives beyond the credit that all streams have.
func (s *streams) creditLocked(n uint64) {
	for _, p := range s.send {
		p.credit(n)
	}
}

// find returns a stream that this side produces, or nil.
func (s *streams) find(channel uint8) *SendStream {
	for _, p := range s.send {
		if p.channel == channel {
			return p
		}
	}
	return nil
}

// stopLocked notes that the consumer wants no more of a stream.
func (s *streams) stopLocked(channel uint8) {
	if p := s.find(channel); p != nil {
		p.Stop(ErrStopped)
	} else if !slices.Contains(s.stops, channel) {
		s.stops = append(s.stops, channel)
	}
}

func (s *streams) sendLocked(channel uint8) *SendStream {
	if p := s.find(channel); p != nil {
		return p
	}
	p := &SendStream{conn: s.conn, id: s.id, channel: channel, flag: s.flag(), room: s.conn.windowLocked(), wake: make(chan struct{}, 1)}
	if slices.Contains(s.stops, channel) {
		p.err = ErrStopped
	}
	if s.err != nil {
		p.err = s.err
	}
	s.send = append(s.send, p)
	return p
}

// recvLocked returns the stream that the peer produces on a channel, which begins
// when either side first mentions it.
func (s *streams) recvLocked(channel uint8) (*RecvStream, error) {
	for _, r := range s.recv {
		if r.channel == channel {
			return r, nil
		}
	}
	c := s.conn
	if err, ok := s.err.(*TooManyStreamsError); ok {
		return nil, err
	}
	if c.streams >= c.cfg.MaxStreams && !s.over {
		return nil, &TooManyStreamsError{Limit: c.cfg.MaxStreams}
	}
	window := int64(c.cfg.Local.Window)
	r := &RecvStream{conn: c, id: s.id, channel: channel, flag: s.flag(), window: window, granted: window, wake: make(chan struct{}, 1)}
	if s.err != nil {
		r.err = s.err
	}
	if !s.over {
		c.streams++
	}
	s.recv = append(s.recv, r)
	return r, nil
}

// forgetLocked gives the places of the call's streams to others. What has arrived
// stays for a consumer who comes for it only now.
func (s *streams) forgetLocked() {
	s.over = true
	s.conn.streams -= len(s.recv)
	for _, r := range s.recv {
		if r.arrives != nil {
			r.arrives = nil
			s.conn.parted--
		}
	}
	s.send = nil
}

// A TooManyStreamsError says that a connection carries as many streams as it may.
type TooManyStreamsError struct{ Limit int }

func (e *TooManyStreamsError) Error() string { return "too many streams on this connection" }

// SendStream is what this side produces. One goroutine at a time may use it.
type SendStream struct {
	conn    *Conn
	id      uint32
	channel uint8
	flag    wire.Flags
	wake    chan struct{} // receives when one of the following has changed

	mu     sync.Mutex
	room   int64          // bytes that may be sent
	err    error          // why nothing more is wanted
	frames []byte         // ITEM frames that the writer has still to take
	home   *buffer.Buffer // where frames came from; nil: there are none
	last   int            // where the last of them begins
	listed bool           // the writer knows that there are some
	full   bool           // the producer waits for the writer
}

// maxGathered is how much of a stream may wait for the writer, in bytes, before its producer does.
const maxGathered = 64 << 10

// Stop ends the stream from outside: Item and Write return err.
func (p *SendStream) Stop(err error) {
	p.mu.Lock()
	if p.err == nil {
		p.err = err
	}
	buffer.Put(p.home)
	p.frames, p.home = nil, nil
	p.mu.Unlock()
	signal(p.wake)
}

// credit adds what the consumer gives. It fails if that is more than any may give.
func (p *SendStream) credit(n uint64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n > wire.MaxWindow || p.room+int64(n) > int64(wire.MaxWindow) {
		return violation("CREDIT of %d bytes for a stream of call %#x that has %d: more than %d", n, p.id, p.room, uint64(wire.MaxWindow))
	}
	p.room += int64(n)
	signal(p.wake)
	return nil
}

func signal(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// spend waits for credit and uses it: up to most bytes of it, or cost, for which any is enough.
func (p *SendStream) spend(cost, most int) (int, error) {
	for {
		p.mu.Lock()
		if p.err != nil {
			defer p.mu.Unlock()
			return 0, p.err
		}
		if p.room > 0 {
			if most > 0 {
				cost = int(min(p.room, int64(most)))
			}
			p.room -= int64(cost)
			p.mu.Unlock()
			return cost, nil
		}
		p.mu.Unlock()
		p.conn.recallLead()
		<-p.wake
	}
}

// Item sends one value. It waits while the consumer has no room, and returns
// ErrStopped once the consumer has left, or why the call has ended.
func (p *SendStream) Item(value *Message) error {
	c := p.conn
	size := value.Len()
	if limit := c.maxMessage.Load(); uint64(size) > limit && limit > 0 {
		if err := p.Err(); err != nil {
			return err
		}
		return &TooLargeError{What: "stream value", Size: uint64(size), Limit: limit}
	}
	if 1+wire.BlobSize(size) <= wire.MaxBody {
		return p.gather(value.Bytes())
	}
	if _, err := p.spend(size, 0); err != nil {
		return err
	}
	own := NewMessage()
	own.Write(value.Bytes())
	h := wire.Header{Type: wire.Item, Flags: p.flag, ID: p.id}
	head := wire.AppendTotal([]byte{p.channel}, uint64(own.Len()))
	c.w.mu.Lock()
	p.drainLocked()
	sending := c.w.partsLocked(h, head, p.channel, own)
	c.w.kickAndUnlock(handOver)
	c.recallLead()
	for {
		select {
		case <-sending.done:
			return nil
		case <-p.wake:
		}
		p.mu.Lock()
		err := p.err
		p.mu.Unlock()
		if err != nil {
			c.w.mu.Lock()
			if c.w.dropLocked(sending) == underway && err != ErrEnded {
				// The peer must not take the rest for still to come when the next message in
				// parts begins in this one's place, nor what it has got for all.
				p.closeLocked(cutShort(err), 0)
			}
			c.w.kickAndUnlock(handOver)
			return err
		}
	}
}

// cutShort returns the record of the error that ended a stream in the middle of a value, unless it was
// that nobody wants more.
func cutShort(err error) []byte {
	if err == ErrStopped {
		return nil
	}
	e := &wire.Error{Code: wire.CodeCanceled, Message: "the stream was cut short: " + err.Error()}
	if err == context.DeadlineExceeded {
		e.Code = wire.CodeDeadline
	}
	return wire.AppendError(nil, e)
}

// gather adds a value to those that the writer takes next, and tells it of the first.
func (p *SendStream) gather(value []byte) error {
	cost := wire.BlobSize(len(value))
	p.mu.Lock()
	for p.err == nil && (p.room <= 0 || len(p.frames) >= maxGathered) {
		p.full = len(p.frames) >= maxGathered
		p.mu.Unlock()
		p.conn.recallLead()
		<-p.wake
		p.mu.Lock()
	}
	if err := p.err; err != nil {
		p.mu.Unlock()
		return err
	}
	p.room -= int64(cost)
	h := wire.Header{Type: wire.Item, Flags: p.flag, ID: p.id}
	if p.home == nil {
		p.home = buffer.Get()
		p.frames = p.home.B
	}
	if len(p.frames) == 0 || len(p.frames)-p.last-wire.HeaderSize+cost > wire.MaxBody {
		p.last = len(p.frames)
		p.frames = append(wire.AppendHeader(p.frames, h, 0), p.channel)
	}
	p.frames = wire.AppendBlob(p.frames, value)
	wire.PutHeader(p.frames[p.last:], h, len(p.frames)-p.last-wire.HeaderSize)
	first := !p.listed
	p.listed = true
	p.mu.Unlock()
	if first {
		w := &p.conn.w
		w.mu.Lock()
		w.ready = append(w.ready, p)
		w.kickAndUnlock(handOver)
	}
	return nil
}

// drainLocked gives the writer, whose lock is held, the values that have gathered.
func (p *SendStream) drainLocked() {
	p.mu.Lock()
	if p.home != nil {
		p.conn.w.framesLocked(p.frames, p.home)
		p.frames, p.home = nil, nil
	}
	p.listed = false
	full := p.full
	p.full = false
	p.mu.Unlock()
	if full {
		signal(p.wake)
	}
}

// Write sends bytes of a reader, with the same waits and errors as Item.
func (p *SendStream) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		k, err := p.spend(0, min(len(b), wire.MaxBody-1))
		if err != nil {
			return n, err
		}
		w := &p.conn.w
		w.mu.Lock()
		w.frameLocked(wire.Header{Type: wire.Data, Flags: p.flag, ID: p.id}, []byte{p.channel}, b[:k])
		w.kickAndUnlock(handOver)
		n += k
		b = b[k:]
	}
	return n, nil
}

// Err returns why nothing more is wanted, or nil.
func (p *SendStream) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// closeLocked ends the stream with an error record, or without one.
func (p *SendStream) closeLocked(record []byte, flags wire.Flags) {
	p.drainLocked()
	if len(record) > 0 {
		flags |= wire.Failed
		if len(record) > wire.MaxBody-1 {
			record = wire.AppendError(nil, &wire.Error{Code: wire.CodeInternal, Message: "the error that ended the stream is too large to be sent"})
		}
	}
	p.conn.w.frameLocked(wire.Header{Type: wire.Close, Flags: flags | p.flag, ID: p.id}, []byte{p.channel}, record)
}

// SendStream returns the stream that this side produces on a channel of the call.
func (o *Outgoing) SendStream(channel uint8) *SendStream {
	o.conn.mu.Lock()
	defer o.conn.mu.Unlock()
	return o.streams.sendLocked(channel)
}

// CloseStream ends a stream that the caller produces, with an error record if there
// was an error.
func (o *Outgoing) CloseStream(p *SendStream, record []byte) {
	c := o.conn
	c.mu.Lock()
	if o.ended {
		c.mu.Unlock()
		return
	}
	c.w.mu.Lock()
	c.mu.Unlock()
	p.closeLocked(record, 0)
	c.w.kickAndUnlock(handOver)
}

// RecvStream returns the stream that the callee produces on a channel of the call.
func (o *Outgoing) RecvStream(channel uint8) (*RecvStream, error) {
	o.conn.mu.Lock()
	defer o.conn.mu.Unlock()
	return o.streams.recvLocked(channel)
}

// SendStream returns the stream that this side produces on a channel of the call.
func (in *Incoming) SendStream(channel uint8) *SendStream {
	in.conn.mu.Lock()
	defer in.conn.mu.Unlock()
	return in.streamsLocked().sendLocked(channel)
}

// CloseStream ends a stream that the callee produces, with an error record if there
// was an error, and with last set the call.
func (in *Incoming) CloseStream(p *SendStream, record []byte, last bool) {
	c := in.conn
	c.mu.Lock()
	if in.ended {
		c.mu.Unlock()
		return
	}
	flags := wire.Flags(0)
	if last {
		flags = wire.End
	}
	c.w.mu.Lock()
	p.closeLocked(record, flags)
	if last {
		c.leaveLocked(in)
	}
	c.mu.Unlock()
	c.w.kickAndUnlock(noBlock)
	if last {
		c.settle()
	}
}

// RecvStream returns the stream that the caller produces on a channel of the call.
func (in *Incoming) RecvStream(channel uint8) (*RecvStream, error) {
	in.conn.mu.Lock()
	defer in.conn.mu.Unlock()
	return in.streamsLocked().recvLocked(channel)
}

// A segment is a piece of what has arrived: one large value, or the values of some
// ITEM frames, or bytes.
type segment struct {
	data  []byte
	whole *assembly // instead of data: a large value
	cost  int       // in credit
}

// maxJoined is the largest value that came in parts and joins the small ones, in bytes. An
// honest peer sends none in parts, and for itself one would take many times its size.
const maxJoined = 4 << 10

// A RemoteError is an error record that the peer ended a stream with.
type RemoteError struct{ Record []byte }

func (e *RemoteError) Error() string { return "the peer ended the stream with an error" }

// RecvStream is what this side consumes. One goroutine at a time may use it, except
// that Stop may be called at any time.
type RecvStream struct {
	conn    *Conn
	id      uint32
	channel uint8
	flag    wire.Flags
	window  int64
	wake    chan struct{} // receives when one of the following has changed

	mu       sync.Mutex
	queue    []segment
	first    int   // of queue: those before it the consumer has had
	granted  int64 // credit given since the stream began
	received int64 // of it, used by the peer
	held     int64 // received and not yet granted again
	err      error // how the stream ended: io.EOF in order
	stopped  bool
	current  []byte    // of the segment that the consumer has
	spare    []byte    // to be used again
	arrives  *assembly // guarded by conn.mu

	reading []byte // of a reader: what is left of the segment being read
}

// fail ends the stream from outside, and reports whether it had not ended before.
// What has arrived can still be read only if the end is in order.
func (r *RecvStream) fail(err error) (first bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if first = r.err == nil && !r.stopped; first {
		r.err = err
		r.queue, r.first = nil, 0
	}
	signal(r.wake)
	return first
}

// finish takes the producer's CLOSE.
func (r *RecvStream) finish(err error) {
	r.mu.Lock()
	if r.err == nil {
		r.err = err
	}
	r.mu.Unlock()
	signal(r.wake)
}

// take receives a copy of what a frame brought.
func (r *RecvStream) take(data []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped || r.err != nil {
		return nil // it was on its way when the stream ended
	}
	if err := r.chargeLocked(len(data)); err != nil {
		return err
	}
	s := r.joinedLocked(len(data))
	s.data = append(s.data, data...)
	signal(r.wake)
	return nil
}

// joinedLocked returns the segment that what has just arrived joins, with its cost added.
func (r *RecvStream) joinedLocked(cost int) *segment {
	n := len(r.queue)
	if n == 0 || r.queue[n-1].whole != nil {
		r.queue = append(r.queue, segment{data: r.spare})
		r.spare = nil
		n++
	}
	s := &r.queue[n-1]
	s.cost += cost
	return s
}

// deliver receives a large value, which has been charged.
func (r *RecvStream) deliver(whole *assembly) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped || r.err != nil {
		return
	}
	if size := whole.size(); size <= maxJoined {
		s := r.joinedLocked(int(size))
		s.data = wire.AppendBlob(s.data, whole.bytes())
	} else {
		r.queue = append(r.queue, segment{whole: whole, cost: int(size)})
	}
	signal(r.wake)
}

// charge counts a large value that is about to arrive.
func (r *RecvStream) charge(cost int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped || r.err != nil {
		return nil
	}
	return r.chargeLocked(cost)
}

// chargeLocked counts what the peer sends against its credit. It may begin a value
// while it has any.
func (r *RecvStream) chargeLocked(cost int) error {
	if r.received >= r.granted {
		return violationOf(r.id, "a stream of call %#x has no credit left")
	}
	r.received += int64(cost)
	return nil
}

// next waits for a segment. The one before it is done with.
func (r *RecvStream) next(ctx context.Context) (segment, error) {
	for {
		r.mu.Lock()
		grant := int64(0)
		if r.held >= r.window/2 || r.held > 0 && len(r.queue) == 0 && r.received >= r.granted {
			grant, r.held = r.held, 0
			r.granted += grant
		}
		var s segment
		ok := len(r.queue) > 0
		if ok {
			s, r.queue[r.first] = r.queue[r.first], segment{}
			if r.first++; 2*r.first >= len(r.queue) { // so that what waits is seldom moved, however much it is
				r.queue, r.first = slices.Delete(r.queue, 0, r.first), 0
			}
			if r.current != nil {
				r.spare = r.current[:0]
			}
			r.current = s.data
			r.held += int64(s.cost)
		}
		err := r.err
		if r.stopped && err == nil {
			err = ErrStopped
		}
		r.mu.Unlock()
		if grant > 0 && err == nil {
			r.send(wire.Credit, wire.AppendCredit(nil, r.channel, int(grant)))
		}
		if ok {
			return s, nil
		}
		if err != nil {
			return segment{}, err
		}
		r.conn.recallLead()
		select {
		case <-r.wake:
		case <-ctx.Done():
			return segment{}, context.Cause(ctx)
		}
	}
}

// Items waits for values and returns some, valid until the next call, encoded one after the other with their
// lengths, for [wire.CutItem]; or one large value, which is the caller's own. At the
// end of the stream it returns io.EOF, a *RemoteError, or why the call has ended.
func (r *RecvStream) Items(ctx context.Context) (data []byte, large bool, err error) {
	s, err := r.next(ctx)
	if s.whole != nil {
		return s.whole.bytes(), true, err
	}
	return s.data, false, err
}

// Read implements io.Reader over the bytes of a reader.
func (r *RecvStream) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	for len(r.reading) == 0 {
		s, err := r.next(context.Background())
		if err != nil {
			return 0, err
		}
		r.reading = s.data
	}
	n := copy(b, r.reading)
	r.reading = r.reading[n:]
	return n, nil
}

// Stop tells the producer that nothing more is wanted. Of a stream that has ended it
// touches no channel: then it may be called from outside the bubble of package synctest
// that the connection is in, as the garbage collector does.
func (r *RecvStream) Stop() {
	r.mu.Lock()
	tell := !r.stopped && r.err == nil
	r.stopped = true
	r.queue, r.first = nil, 0
	r.mu.Unlock()
	if tell {
		signal(r.wake)
		r.send(wire.Stop, []byte{r.channel})
	}
}

func (r *RecvStream) send(t wire.Type, body []byte) {
	r.conn.w.frame(wire.Header{Type: t, Flags: r.flag, ID: r.id}, body, noBlock)
}

var _ io.Reader = (*RecvStream)(nil)
