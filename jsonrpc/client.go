package jsonrpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/internal/fn"
)

// A Dialer connects to servers of JSON-RPC 2.0, and of 1.0 if they do not mind a member
// "jsonrpc", as Go's net/rpc/jsonrpc does not. Its zero value is ready to use. Its
// fields must not be changed once it is used.
type Dialer struct {
	// Client is what all clients have: of its fields NetDial, DialTimeout, Timeout,
	// Interceptors, Errors, Logger and Limits count.
	Client yonder.Dialer
	// HTTP makes the requests to http, https, ws and wss URLs. What TLS needs to know is in its
	// Transport's TLSClientConfig; for a stream of bytes, Client.NetDial is a *tls.Dialer's
	// DialContext. Nil: one of this Dialer's own, which connects as Client says, and trusts
	// whom the system does.
	HTTP *http.Client
	// Header goes with each request over HTTP, and with the one that begins a WebSocket.
	Header http.Header
	// ContentLength frames messages as the Language Server Protocol has it, on a stream of
	// bytes, and cancels calls by $/cancelRequest.
	ContentLength bool
	// Strict sends no member that the specification does not name, to servers that refuse
	// those: neither deadlines nor metadata travel, but where headers carry them.
	Strict bool
}

// Dial connects to a server: see [Dialer.Dial].
func Dial(ctx context.Context, url string) (*yonder.Client, error) {
	return new(Dialer).Dial(ctx, url)
}

// Dial returns a client of the server at a URL: "tcp://host:port", "unix:///path",
// "http://...", "https://...", "ws://..." or "wss://...", and "tls://host:port" if
// Client.NetDial is that of a tlsconn.Config. ctx bounds only the attempt to connect, which
// there is none of over HTTP. When a connection is lost, the calls in
// flight fail with [yonder.Unavailable], and the next call connects again.
//
// The client makes the calls of any other, with these differences. Callbacks do not
// cross. A stream or a reader among the arguments is read to its end before the call is
// sent. Over HTTP one stream among the results arrives as it is produced; others, when
// they have ended. A call without a result returns when it is answered, whatever the
// answer is. Check does not work.
func (d *Dialer) Dial(ctx context.Context, url string) (*yonder.Client, error) {
	scheme, rest, ok := strings.Cut(url, "://")
	if !ok {
		scheme, rest = "tcp", url
	}
	var t *duplex
	switch scheme {
	case "http", "https":
		return d.Client.NewClientOver(newPoster(d, url)), nil
	case "tcp", "unix", "tls":
		if scheme == "tls" && d.Client.NetDial == nil {
			return nil, yonder.Errorf(yonder.InvalidArgument, "jsonrpc: address %q: set Client.NetDial to that of a tlsconn.Config", url)
		}
		t = newDuplex(d, func(ctx context.Context) (*link, error) {
			conn, err := d.netDial(ctx, scheme, rest)
			if err != nil {
				return nil, err
			}
			return newStreamLink(d, conn), nil
		})
	case "ws", "wss":
		client := d.HTTP
		if client == nil {
			client = d.newHTTP()
		}
		t = newDuplex(d, func(ctx context.Context) (*link, error) {
			ws, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{HTTPClient: client, HTTPHeader: d.Header})
			if err != nil {
				return nil, err
			}
			return newSocketLink(d, ws), nil
		})
		if d.HTTP == nil {
			t.closed = client.CloseIdleConnections
		}
	default:
		return nil, yonder.Errorf(yonder.InvalidArgument, "jsonrpc: address %q: unknown scheme %q; use tcp, unix, http, https, ws or wss", url, scheme)
	}
	if _, err := t.link(ctx); err != nil {
		t.Close()
		return nil, err
	}
	return d.Client.NewClientOver(t), nil
}

// NewClient returns a client over a stream of bytes whose other end serves it, such as
// a process's standard input and output. It owns conn from then on. It cannot connect
// again.
func (d *Dialer) NewClient(conn io.ReadWriteCloser) *yonder.Client {
	t := newDuplex(d, nil)
	t.attach(newStreamLink(d, conn))
	return d.Client.NewClientOver(t)
}

func (d *Dialer) netDial(ctx context.Context, network, address string) (net.Conn, error) {
	if d.Client.NetDial != nil {
		return d.Client.NetDial(ctx, network, address)
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}

func (d *Dialer) newHTTP() *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: d.netDial, ForceAttemptHTTP2: true,
		MaxIdleConnsPerHost: 100, IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: 10 * time.Second,
	}}
}

// encode appends a call. An id of 0 makes it a notification. inHeaders says that the
// deadline travels elsewhere, and what of the metadata does is left out of meta.
func (d *Dialer) encode(ctx context.Context, call *yonder.Call, id uint64, out *outBuffer, meta yonder.Metadata, inHeaders bool) error {
	out.WriteString(`{"jsonrpc":"2.0","method":`)
	err := out.value(call.Procedure)
	if err == nil {
		err = d.paramsOf(out, call, d.Client.Limits.WithDefaults().MaxMessage)
	}
	if err != nil {
		code := yonder.InvalidArgument
		if known, ok := errors.AsType[*yonder.Error](err); ok {
			code = known.Code
		}
		return yonder.Errorf(code, "yonder: call %q: %w", call.Procedure, err)
	}
	if id != 0 {
		out.WriteString(`,"id":`)
		out.Write(strconv.AppendUint(out.AvailableBuffer(), id, 10))
	}
	if !d.Strict {
		if deadline, ok := ctx.Deadline(); ok && !inHeaders {
			out.WriteString(`,"timeout":`)
			out.Write(appendRemaining(out.AvailableBuffer(), deadline))
		}
		if len(meta) > 0 {
			out.WriteString(`,"meta":`)
			if err := out.value(map[string]string(meta)); err != nil {
				return yonder.Errorf(yonder.InvalidArgument, "yonder: call %q: metadata: %w", call.Procedure, err)
			}
		}
	}
	out.WriteByte('}')
	return nil
}

// paramsOf appends a call's parameters. A panic of a stream or a reader among them is the
// call's error, as it is where they run on a goroutine of their own; one of a value's methods
// is the caller's.
func (d *Dialer) paramsOf(out *outBuffer, call *yonder.Call, max int) (err error) {
	if call.Plain() {
		return out.paramsOf(call, max)
	}
	defer func() {
		if r := recover(); r != nil {
			logger := d.Client.Logger
			if logger == nil {
				logger = slog.Default()
			}
			err = panicked(logger, call.Procedure, r)
		}
	}()
	return out.paramsOf(call, max)
}

// appendRemaining appends the time until a deadline in milliseconds, to the microsecond.
func appendRemaining(b []byte, deadline time.Time) []byte {
	us := max(1, (time.Until(deadline)+time.Microsecond-1)/time.Microsecond)
	return strconv.AppendFloat(b, float64(us)/1000, 'f', -1, 64)
}

// An answer is a response to a call of this end's.
type answer struct {
	envelope
	err     error           // instead: why there is none
	streams []*remoteStream // one a result; nil: it is none that is sent apart
}

// settle stores the results that an answer has in a call's places.
func (d *Dialer) settle(ctx context.Context, call *yonder.Call, a *answer) error {
	err := a.err
	if err == nil {
		err = d.results(ctx, call, a)
	}
	if err != nil {
		for _, s := range a.streams {
			if s != nil {
				s.stop()
			}
		}
	}
	return err
}

func (d *Dialer) results(ctx context.Context, call *yonder.Call, a *answer) error {
	if a.meta != nil {
		var meta yonder.Metadata
		if json.Unmarshal(a.meta, &meta) == nil && len(meta) > 0 {
			maps.Copy(meta, call.Reply)
			call.Reply = meta
		}
	}
	if a.error != nil && !isNull(a.error) {
		return inTime(ctx, call, decodeError(a.error, call.Procedure, &d.Client))
	}
	places := call.Places()
	if len(places) == 0 {
		return nil
	}
	if a.result == nil {
		return yonder.Errorf(yonder.Internal, "yonder: call %q: the answer has neither a result nor an error", call.Procedure)
	}
	if len(places) == 1 {
		if err := d.result(ctx, call, a.result, places[0], a, 0); err != nil {
			return unfit(call, 0, err)
		}
		return nil
	}
	texts, ok := resultsOf(a.result, len(places))
	if !ok {
		return yonder.Errorf(yonder.Internal, "yonder: call %q: the answer is no array of %d results", call.Procedure, len(places))
	}
	for i, place := range places {
		if err := d.result(ctx, call, texts[i], place, a, i); err != nil {
			return unfit(call, i, err)
		}
	}
	return nil
}

// unfit is the error of a result that the caller cannot take.
func unfit(call *yonder.Call, i int, err error) error {
	code := yonder.Internal
	if known, ok := errors.AsType[*yonder.Error](err); ok {
		code = known.Code
	}
	return yonder.Errorf(code, "yonder: call %q: result %d: %w", call.Procedure, i+1, err)
}

// unreadable is the error of a call whose answer is a JSON text, but no message.
func unreadable(call *yonder.Call, fault *textError) error {
	return yonder.Errorf(fault.code(), "yonder: call %q: the answer cannot be read: %w", call.Procedure, fault.err)
}

func (e *textError) code() yonder.Code {
	if _, ok := e.err.(*errTooLarge); ok {
		return yonder.ResourceExhausted
	}
	return yonder.Internal
}

// resultsOf takes apart the result of a call that has n results, or reports that it
// cannot be.
func resultsOf(text []byte, n int) ([][]byte, bool) {
	if n <= 1 {
		return [][]byte{text}, true
	}
	if text[0] != '[' {
		return nil, false
	}
	var list [][]byte
	for from, to := range elements(text) {
		if len(list) == n {
			return nil, false
		}
		list = append(list, text[from:to:to])
	}
	return list, len(list) == n
}

func (d *Dialer) result(ctx context.Context, call *yonder.Call, text []byte, place any, a *answer, i int) error {
	v := reflect.ValueOf(place).Elem()
	switch {
	case i < len(a.streams) && a.streams[i] != nil:
		slots, err := fn.Dynamic(nil, []reflect.Type{v.Type()})
		if err != nil {
			return err
		}
		v.Set(a.streams[i].value(ctx, &slots.Results[0]))
		return nil
	case !isStream(v.Type()):
		return decode(text, place)
	case isNull(text):
		return nil
	}
	return stream(text, v)
}

// subscriptionOf returns the number in the result of a stream that is sent apart, and
// whether it is one.
func subscriptionOf(text []byte) (uint64, bool) {
	if len(text) == 0 || text[0] != '{' {
		return 0, false
	}
	for name, value := range members(text) {
		if string(name) == `"subscription"` {
			n, err := strconv.ParseUint(string(value), 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}

// streamsAmong reports which of a call's places are for streams; nil: none is.
func streamsAmong(places []any) []bool {
	var among []bool
	for i, p := range places {
		if t := reflect.TypeOf(p).Elem(); isStream(t) {
			if among == nil {
				among = make([]bool, len(places))
			}
			among[i] = true
		}
	}
	return among
}

// ended returns what the caller is told when its context has ended.
func ended(ctx context.Context, call *yonder.Call) error {
	return endedBy(ctx.Err(), context.Cause(ctx), fmt.Sprintf("call %q", call.Procedure))
}

func endedBy(err, cause error, what string) error {
	e := &yonder.Error{Code: yonder.CodeOf(err), Message: "yonder: " + what + ": " + err.Error(), Err: err}
	if cause != err {
		e.Message += ": " + cause.Error()
		e.Err = errors.Join(err, cause)
	}
	return e
}

// inTime returns the error of an answer, unless that only says what the caller's own
// context does, or is about to: which of the two clocks was first should not show.
func inTime(ctx context.Context, call *yonder.Call, err error) error {
	over := ctx.Err()
	if deadline, ok := ctx.Deadline(); ok && over == nil && !time.Now().Before(deadline) {
		over = context.DeadlineExceeded
	}
	if over == nil || yonder.CodeOf(err) != yonder.CodeOf(over) {
		return err
	}
	return endedBy(over, over, fmt.Sprintf("call %q", call.Procedure))
}

// unavailable returns what the caller is told when there is no connection.
func unavailable(call *yonder.Call, err error) error {
	if known, ok := err.(*yonder.Error); ok {
		return yonder.Errorf(known.Code, "yonder: call %q: %w", call.Procedure, trimmed{err})
	}
	return yonder.Errorf(yonder.Unavailable, "yonder: call %q: %w", call.Procedure, trimmed{err})
}

// trimmed is an error without this module's name before it.
type trimmed struct{ error }

func (t trimmed) Error() string { return strings.TrimPrefix(t.error.Error(), "yonder: ") }
func (t trimmed) Unwrap() error { return t.error }
