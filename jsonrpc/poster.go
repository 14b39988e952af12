package jsonrpc

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/yonder-rpc/yonder"
)

// A poster is a [yonder.Transport] that makes each call by an HTTP request.
type poster struct {
	dialer *Dialer
	url    string
	http   *http.Client
	most   int // of an answer, in bytes
	life   context.Context
	end    context.CancelCauseFunc

	sweeper sweeper

	mu      sync.Mutex // guards running.Add against Close
	running sync.WaitGroup
}

func newPoster(d *Dialer, url string) *poster {
	p := &poster{dialer: d, url: url, http: d.HTTP, most: d.Client.Limits.WithDefaults().MaxMessage}
	if p.http == nil {
		p.http = d.newHTTP()
	}
	p.life, p.end = context.WithCancelCause(context.Background())
	return p
}

// Done implements [yonder.Transport].
func (p *poster) Done() <-chan struct{} { return p.life.Done() }

// Close implements [yonder.Transport].
func (p *poster) Close() error {
	p.mu.Lock()
	p.end(yonder.ErrClientClosed)
	p.mu.Unlock()
	p.running.Wait()
	p.sweeper.end()
	if p.dialer.HTTP == nil {
		p.http.CloseIdleConnections()
	}
	return nil
}

// Call implements [yonder.Transport].
func (p *poster) Call(ctx context.Context, call *yonder.Call) error {
	if ctx.Err() != nil {
		return yonder.NotRun(ended(ctx, call))
	}
	p.mu.Lock()
	if p.life.Err() != nil {
		p.mu.Unlock()
		return yonder.NotRun(unavailable(call, yonder.ErrClientClosed))
	}
	p.running.Add(1)
	p.mu.Unlock()
	defer p.running.Done()
	var sending atomic.Int32
	request, err := p.request(ctx, call, &sending)
	if err != nil {
		return yonder.NotRun(err)
	}
	within, cancel := context.WithCancel(ctx)
	unhook := context.AfterFunc(p.life, cancel)
	over := func() {
		unhook()
		cancel()
	}
	keep := false // the answer's body is read on
	defer func() {
		if !keep {
			over()
		}
	}()
	response, err := p.http.Do(request.WithContext(within))
	if err != nil {
		err = p.failure(ctx, call, err)
		if sending.CompareAndSwap(unsent, withdrawn) {
			err = yonder.NotRun(err)
		}
		return err
	}
	defer func() {
		if !keep {
			response.Body.Close()
		}
	}()
	if call.OneWay && response.StatusCode < 300 {
		return nil
	}
	if kind, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type")); kind == "text/event-stream" {
		e := &events{in: bufio.NewReader(response.Body), most: p.most}
		text, err := e.next()
		if err != nil {
			return p.failure(ctx, call, err)
		}
		a, err := p.answer(call, response, text)
		if err == nil && streamsAmong(call.Places()) != nil && a.result != nil {
			keep = p.follow(ctx, a, e, call, sync.OnceFunc(func() { // with the stream's end
				over()
				response.Body.Close()
			}))
		}
		if err == nil {
			err = p.dialer.settle(ctx, call, a)
		}
		return err
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, int64(p.most)+1))
	if err != nil {
		return p.failure(ctx, call, err)
	}
	if len(text) > p.most {
		return yonder.Errorf(yonder.ResourceExhausted, "yonder: call %q: the answer is larger than %d bytes", call.Procedure, p.most)
	}
	a, err := p.answer(call, response, text)
	if err != nil {
		return err
	}
	return p.dialer.settle(ctx, call, a)
}

// What has become of a request's body.
const (
	unsent    int32 = iota // nobody has read any of it to send it
	sent                   // somebody has
	withdrawn              // nobody has, nor may any more
)

// body is a request's.
type body struct {
	r       bytes.Reader
	sending *atomic.Int32
}

func (b *body) Read(p []byte) (int, error) {
	if !b.sending.CompareAndSwap(unsent, sent) && b.sending.Load() == withdrawn {
		return 0, errors.New("the call has ended")
	}
	return b.r.Read(p)
}

func (b *body) Close() error { return nil }

// request returns the request that makes a call.
func (p *poster) request(ctx context.Context, call *yonder.Call, sending *atomic.Int32) (*http.Request, error) {
	r, err := http.NewRequest(http.MethodPost, p.url, nil)
	if err != nil {
		return nil, yonder.Errorf(yonder.InvalidArgument, "yonder: call %q: %w", call.Procedure, err)
	}
	for name, values := range p.dialer.Header {
		r.Header[name] = values
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json")
	if among := streamsAmong(call.Places()); among != nil {
		r.Header.Set("Accept", "application/json, text/event-stream")
	}
	if deadline, ok := ctx.Deadline(); ok {
		r.Header.Set(timeoutHeader, string(appendRemaining(nil, deadline)))
	}
	rest := splitMeta(call.Metadata, func(name, value string) {
		if name == metaPrefix+"Authorization" {
			name = "Authorization" // which proxies know for a secret, and redirects do not carry elsewhere
		}
		r.Header.Set(name, value)
	})
	id := uint64(1)
	if call.OneWay {
		id = 0
	}
	out := newBuffer()
	defer out.release()
	if err := p.dialer.encode(ctx, call, id, out, rest, true); err != nil {
		return nil, err
	}
	text := bytes.Clone(out.Bytes())
	r.ContentLength = int64(len(text))
	r.GetBody = func() (io.ReadCloser, error) { return &body{*bytes.NewReader(text), sending}, nil }
	r.Body, _ = r.GetBody()
	return r, nil
}

// failure returns what the caller is told of an exchange that did not succeed.
func (p *poster) failure(ctx context.Context, call *yonder.Call, err error) error {
	switch {
	case ctx.Err() != nil:
		return ended(ctx, call)
	case p.life.Err() != nil:
		return unavailable(call, yonder.ErrClientClosed)
	case errors.Is(err, errEvent):
		return yonder.Errorf(yonder.Internal, "yonder: call %q: %w", call.Procedure, err)
	}
	return unavailable(call, &lostError{err})
}

// answer reads a response.
func (p *poster) answer(call *yonder.Call, response *http.Response, text []byte) (*answer, error) {
	var s scanner
	message, err := s.wellFormed(text)
	if fault, ok := err.(*textError); ok && fault.text != nil {
		return nil, unreadable(call, fault)
	}
	if err != nil || message[0] != '{' {
		text = bytes.TrimSpace(text)
		if response.StatusCode < 300 {
			return nil, yonder.Errorf(yonder.Internal, "yonder: call %q: the answer is no JSON-RPC: %.100q", call.Procedure, text)
		}
		return nil, statusError(response, fmt.Sprintf("yonder: call %q: HTTP status %s: %.200s", call.Procedure, response.Status, text))
	}
	a := &answer{envelope: open(message)}
	if a.twice != "" {
		return nil, yonder.Errorf(yonder.Internal, "yonder: call %q: the answer has two members %q", call.Procedure, a.twice)
	}
	for name, values := range response.Header {
		if key, ok := strings.CutPrefix(name, metaPrefix); ok {
			if call.Reply == nil {
				call.Reply = make(yonder.Metadata)
			}
			call.Reply[strings.ToLower(key)] = values[0]
		}
	}
	if response.StatusCode >= 300 && a.result == nil && a.error == nil {
		return nil, statusError(response, fmt.Sprintf("yonder: call %q: HTTP status %s", call.Procedure, response.Status))
	}
	return a, nil
}

// statusError returns what an HTTP status says of a call. Too many requests say that nothing has been
// done, and when to try again, RFC 6585, section 4; 503 Service Unavailable says only the latter.
func statusError(response *http.Response, message string) error {
	e := &yonder.Error{Code: codeOfStatus(response.StatusCode), Message: message}
	if response.StatusCode != http.StatusTooManyRequests {
		return e
	}
	// RFC 9110, section 10.2.3: seconds, or a date.
	text := response.Header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		e.Details = yonder.RetryInfo{AfterMS: 1000 * int64(seconds)}
	} else if date, err := http.ParseTime(text); err == nil {
		e.Details = yonder.RetryInfo{AfterMS: max(time.Until(date).Milliseconds(), 0)}
	}
	return e
}

// codeOfStatus returns what an HTTP status says of a call.
func codeOfStatus(status int) yonder.Code {
	switch status {
	case http.StatusUnauthorized:
		return yonder.Unauthenticated
	case http.StatusForbidden:
		return yonder.PermissionDenied
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return yonder.Unimplemented
	case http.StatusRequestEntityTooLarge, http.StatusTooManyRequests:
		return yonder.ResourceExhausted
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return yonder.Unavailable
	case http.StatusRequestTimeout:
		return yonder.DeadlineExceeded
	}
	if status >= 500 {
		return yonder.Internal
	}
	return yonder.Unknown
}

// follow makes the stream of an answer, whose events are read when the consumer wants
// them. It reports whether there is one; over is called when it is over.
func (p *poster) follow(ctx context.Context, a *answer, e *events, call *yonder.Call, over func()) bool {
	among := streamsAmong(call.Places())
	texts, ok := resultsOf(a.result, len(among))
	if !ok {
		return false
	}
	for i, text := range texts {
		number, ok := subscriptionOf(text)
		if !ok || !among[i] {
			continue
		}
		s := newRemoteStream(call.Procedure, number, &p.sweeper, nil, func(uint64, bool) { over() })
		s.dialer = p.dialer
		s.pull = func() ([]byte, error) {
			text, err := e.next()
			if err == nil {
				if text, err = streamParams(text); err == nil {
					return text, nil
				}
			}
			cause := error(&lostError{err})
			switch {
			case ctx.Err() != nil:
				return nil, endedBy(ctx.Err(), context.Cause(ctx), fmt.Sprintf("stream of %q", call.Procedure))
			case p.life.Err() != nil:
				cause = yonder.ErrClientClosed
			}
			return nil, yonder.Errorf(yonder.Unavailable, "yonder: stream of %q: %w", call.Procedure, trimmed{cause})
		}
		a.streams = make([]*remoteStream, len(among))
		a.streams[i] = s
		return true
	}
	return false
}

// streamParams returns the parameters of a notification of a stream's.
func streamParams(text []byte) ([]byte, error) {
	if text[0] == '{' {
		if e := open(text); string(e.method) == `"rpc.stream"` && len(e.params) > 0 && e.params[0] == '{' {
			return e.params, nil
		}
	}
	return nil, fmt.Errorf("%w: no piece of a stream: %.100q", errEvent, text)
}

var errEvent = errors.New("an event that is no message")

// events reads server-sent events, whose data are messages.
type events struct {
	in   *bufio.Reader
	most int
	scan scanner
}

// next returns the data of the next event that has any.
func (e *events) next() ([]byte, error) {
	var data []byte
	for {
		line, err := e.line()
		if err != nil {
			return nil, err
		}
		if len(line) == 0 {
			if data == nil {
				continue
			}
			if data, err = e.scan.wellFormed(data); err != nil {
				return nil, fmt.Errorf("%w: %w", errEvent, err)
			}
			return data, nil
		}
		if value, ok := bytes.CutPrefix(line, []byte("data:")); ok {
			if len(data)+len(value) > e.most {
				return nil, yonder.Errorf(yonder.ResourceExhausted, "yonder: an event is larger than %d bytes", e.most)
			}
			data = append(append(data, bytes.TrimPrefix(value, []byte(" "))...), '\n')
		}
	}
}

func (e *events) line() ([]byte, error) {
	var line []byte
	for {
		part, err := e.in.ReadSlice('\n')
		if line = append(line, part...); err == nil {
			return bytes.TrimRight(line, "\r\n"), nil
		}
		if err != bufio.ErrBufferFull {
			return nil, early(err)
		}
		if len(line) > e.most+maxHeader {
			return nil, yonder.Errorf(yonder.ResourceExhausted, "yonder: an event is larger than %d bytes", e.most)
		}
	}
}
