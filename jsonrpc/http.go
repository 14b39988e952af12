package jsonrpc

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/internal/fn"
	"github.com/yonder-rpc/yonder/internal/layers"
)

// Headers of HTTP requests and answers. A header metaPrefix + "Trace" is the metadata
// "trace". The header Authorization is the metadata "authorization", of every call of the request,
// or of the WebSocket, that does not have its own.
const (
	metaPrefix    = "Yonder-Meta-"
	timeoutHeader = "Yonder-Timeout" // in milliseconds
)

// Handler serves JSON-RPC over HTTP: by POST, and over a WebSocket at the same URL. The
// Conn of [yonder.CallInfo] is the *http.Request.
func Handler(s *yonder.Server) http.Handler { return new(Config).Handler(s) }

// Handler is the function of the same name, configured.
func (c *Config) Handler(s *yonder.Server) http.Handler {
	return &handler{srv: s, config: c, notes: newNotes(s.Limits.WithDefaults().MaxCalls)}
}

type handler struct {
	srv    *yonder.Server
	config *Config
	notes  *notes
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !h.hostFits(r) {
		http.Error(w, fmt.Sprintf("host %q is not a name of this server", r.Host), http.StatusForbidden)
		return
	}
	header := w.Header()
	origin := r.Header.Get("Origin")
	if len(h.config.Origins) > 0 {
		header.Add("Vary", "Origin")
	}
	listed := slices.Contains(h.config.Origins, "*") || slices.Contains(h.config.Origins, origin)
	switch {
	case origin == "":
	case listed:
		header.Set("Access-Control-Allow-Origin", origin)
	case !sameOrigin(origin, r.Host):
		http.Error(w, fmt.Sprintf("origin %q may not call", origin), http.StatusForbidden)
		return
	}
	if len(r.Header.Get("Authorization")) > h.srv.Limits.WithDefaults().MaxMetadata {
		http.Error(w, "the authorization is too large", http.StatusRequestHeaderFieldsTooLarge)
		return
	}
	if r.TLS != nil && !layers.HasUnder(r.Context()) {
		r = r.WithContext(layers.Under(r.Context(), tlsRequest{r.TLS}))
	}
	switch {
	case r.Method == http.MethodPost:
		h.post(w, r)
	case r.Method == http.MethodGet && hasToken(r.Header, "Upgrade", "websocket"):
		h.webSocket(w, r)
	case r.Method == http.MethodOptions && origin != "" && listed:
		header.Set("Access-Control-Allow-Methods", "POST")
		if asked := r.Header.Get("Access-Control-Request-Headers"); asked != "" {
			header.Set("Access-Control-Allow-Headers", asked)
		}
		header.Set("Access-Control-Max-Age", "600")
		w.WriteHeader(http.StatusNoContent)
	default:
		header.Set("Allow", "POST")
		http.Error(w, "JSON-RPC wants POST, or a WebSocket", http.StatusMethodNotAllowed)
	}
}

// tlsRequest is what is known of a request's connection.
type tlsRequest struct{ state *tls.ConnectionState }

// ConnectionState returns what a *tls.Conn's does.
func (t tlsRequest) ConnectionState() tls.ConnectionState { return *t.state }

// hostFits reports whether a request to a loopback address was meant for it.
func (h *handler) hostFits(r *http.Request) bool {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if !ok || !local.IP.IsLoopback() || slices.Contains(h.config.Hosts, "*") {
		return true
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || net.ParseIP(host) != nil ||
		slices.ContainsFunc(h.config.Hosts, func(name string) bool { return strings.EqualFold(name, host) })
}

func sameOrigin(origin, host string) bool {
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, host)
}

// hasToken reports whether a header is a list that has a token.
func hasToken(header http.Header, name, token string) bool {
	for _, value := range header.Values(name) {
		for item := range strings.SplitSeq(value, ",") {
			item, weight, _ := strings.Cut(item, ";")
			if strings.EqualFold(strings.TrimSpace(item), token) && !noWeight(weight) {
				return true
			}
		}
	}
	return false
}

// noWeight reports whether the parameters of a list's item are q=0. RFC 9110, section
// 12.4.2.
func noWeight(params string) bool {
	q, ok := strings.CutPrefix(strings.ToLower(strings.ReplaceAll(params, " ", "")), "q=")
	weight, err := strconv.ParseFloat(q, 64)
	return ok && err == nil && weight == 0
}

// jsonTypes are the media types of requests. Whoever sends another may be a form on a
// foreign page, which is not asked whether it may, unless it is no browser at all.
var jsonTypes = []string{"application/json", "application/json-rpc", "application/jsonrequest"}

func typeFits(r *http.Request) bool {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err == nil && slices.Contains(jsonTypes, kind) {
		return true
	}
	if r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != "" {
		return false
	}
	switch kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind {
	case "", "application/x-www-form-urlencoded", "text/plain": // curl --data says so
		return true
	}
	return false
}

// serviceOf is what does a request's calls.
func (h *handler) serviceOf(r *http.Request) service {
	s := newService(h.srv, h.config, r)
	s.authorization = r.Header.Get("Authorization")
	return s
}

func (h *handler) post(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cache-Control", "no-store")
	if !typeFits(r) {
		header.Set("Accept-Post", "application/json")
		http.Error(w, "the content type must be application/json", http.StatusUnsupportedMediaType)
		return
	}
	c := &httpCaller{handler: h, service: h.serviceOf(r), w: w, r: r}
	text, status, err := c.body()
	if err != nil {
		if status == http.StatusUnsupportedMediaType {
			header.Set("Accept-Encoding", strings.Join(append(c.encodings(), "gzip"), ", "))
		}
		http.Error(w, err.Error(), status)
		return
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	_, leave, err := h.srv.Join(closerFunc(func() { cancel(yonder.ErrServerClosed) }))
	if err != nil {
		header.Set("Retry-After", "1")
		http.Error(w, "the server is shutting down", http.StatusServiceUnavailable)
		return
	}
	defer leave()
	defer context.AfterFunc(ctx, func() {
		if context.Cause(ctx) == yonder.ErrServerClosed {
			leave() // Close does not wait for handlers that ignore their contexts
		}
	})()
	out := newBuffer()
	defer out.release()
	c.serve(ctx, text, out)
}

type closerFunc func()

func (f closerFunc) Close() error { f(); return nil }

// body reads the request's body. If it cannot, status says what to answer.
func (c *httpCaller) body() (text []byte, status int, err error) {
	most := int64(c.limits.MaxMessage)
	tooLarge := fmt.Errorf("the body is larger than %d bytes", most)
	if c.r.ContentLength > most {
		return nil, http.StatusRequestEntityTooLarge, tooLarge
	}
	control := http.NewResponseController(c.w)
	if c.config.BodyTimeout > 0 {
		// What cannot be set is up to the server's own configuration.
		control.SetReadDeadline(time.Now().Add(c.config.BodyTimeout))
		defer func() {
			if err == nil { // else the server reads on, to be rid of the rest
				control.SetReadDeadline(time.Time{})
			}
		}()
	}
	var from io.Reader = http.MaxBytesReader(c.w, c.r.Body, most)
	packed := false
	switch encoding := c.r.Header.Get("Content-Encoding"); {
	case encoding == "" || encoding == "identity":
	case encoding == "gzip" || encoding == "x-gzip":
		if from, err = gzip.NewReader(from); err != nil {
			return nil, http.StatusBadRequest, fmt.Errorf("the body cannot be decompressed: %w", err)
		}
	case slices.Contains(c.encodings(), encoding):
		packed = true
	default:
		return nil, http.StatusUnsupportedMediaType, fmt.Errorf("content encoding %q is not accepted", encoding)
	}
	text, err = io.ReadAll(io.LimitReader(from, most+1))
	_, large := errors.AsType[*http.MaxBytesError](err)
	timeout, _ := errors.AsType[net.Error](err)
	switch {
	case large || int64(len(text)) > most:
		return nil, http.StatusRequestEntityTooLarge, tooLarge
	case timeout != nil && timeout.Timeout():
		c.w.Header().Set("Connection", "close")
		return nil, http.StatusRequestTimeout, errors.New("the body took too long")
	case err != nil:
		return nil, http.StatusBadRequest, fmt.Errorf("the body cannot be read: %w", err)
	}
	if packed {
		if text, err = c.srv.Compression.Decompress(nil, text, int(most)); err != nil {
			return nil, http.StatusBadRequest, fmt.Errorf("the body cannot be decompressed to at most %d bytes: %w", most, err)
		}
	}
	return text, 0, nil
}

// encodings returns the content encodings besides gzip: the server's Compression.
func (c *httpCaller) encodings() []string {
	if c.srv.Compression == nil {
		return nil
	}
	return []string{c.srv.Compression.Name()}
}

// An httpCaller is a POST request.
type httpCaller struct {
	service
	handler *handler
	w       http.ResponseWriter
	r       *http.Request
	slots   chan struct{} // of a batch: holds one a call that runs
	waits   time.Time     // when its notifications wait no longer for places; zero: none has
	dropped int           // notifications

	// Of a single call, whose stream is sent as events.
	events bool
	slot   *fn.Slot
	value  reflect.Value
}

// serve answers.
func (c *httpCaller) serve(ctx context.Context, text []byte, out *outBuffer) {
	var s scanner
	text, err := s.wellFormed(text)
	fault, faulty := err.(*textError)
	switch {
	case faulty && fault.isBatch():
		text = fault.text
	case faulty:
		c.refuseText(out, fault)
		c.send(out)
		return
	}
	if text[0] == '[' {
		c.slots = make(chan struct{}, c.limits.MaxCalls)
		c.batch(ctx, text, faulty, out, c)
		if c.dropped > 0 {
			c.logger().Warn("yonder: notifications dropped: as many run as the server takes of a client",
				"protocol", protocolName, "peer", c.r.RemoteAddr, "dropped", c.dropped)
		}
		c.send(out)
		return
	}
	r := new(request)
	why := readRequest(text, r, &c.limits)
	if why == "" {
		why = c.heed(r)
	}
	switch {
	case why != "":
		c.reject(out, r, why)
		c.send(out)
		return
	case r.note:
		c.note(r, len(text), func(ctx context.Context, a *activeCall) {
			defer a.ended()
			c.answer(ctx, r, nil, c, a)
		})
		if c.dropped > 0 {
			c.w.Header().Set("Retry-After", "1")
			http.Error(c.w, "as many notifications of this client run as the server takes", http.StatusTooManyRequests)
			return
		}
		c.send(out)
		return
	}
	c.events = hasToken(c.r.Header, "Accept", "text/event-stream")
	callCtx, a := newActive(ctx, r)
	defer a.ended()
	apart(func() { c.answer(callCtx, r, out, c, a) })
	switch {
	case c.slot == nil:
		c.send(out)
	case a.failed:
		c.closeStream()
		c.send(out)
	default:
		c.stream(ctx, out)
	}
}

// apart runs f on a goroutine of its own, which f may end: that of the request must go on.
func apart(f func()) {
	done := make(chan struct{})
	go func() { // ends with f
		defer close(done)
		f()
	}()
	<-done
}

// heed takes over what the request's headers say.
func (c *httpCaller) heed(r *request) (why string) {
	if ms := c.r.Header.Get(timeoutHeader); ms != "" {
		timeout, ok := milliseconds(ms)
		if !ok {
			return timeoutHeader + " must be a number of milliseconds, more than 0"
		}
		if r.timeout == 0 || timeout < r.timeout {
			r.timeout = timeout
		}
	}
	var meta yonder.Metadata
	for name, values := range c.r.Header {
		if key, ok := strings.CutPrefix(name, metaPrefix); ok && key != "" {
			if meta == nil {
				meta = make(yonder.Metadata)
			}
			meta[strings.ToLower(key)] = values[0]
		}
	}
	if meta != nil {
		maps.Copy(meta, r.meta)
		r.meta = meta
		if sizeOf(meta) > c.limits.MaxMetadata {
			return metaTooLarge
		}
	}
	return ""
}

// minPacked is the smallest answer that is worth compressing, in bytes.
const minPacked = 1 << 10

// send writes the answer, if there is one.
func (c *httpCaller) send(out *outBuffer) {
	header := c.w.Header()
	if out.Len() == 0 {
		c.w.WriteHeader(http.StatusNoContent)
		return
	}
	out.WriteByte('\n')
	header.Set("Content-Type", "application/json")
	header.Add("Vary", "Accept-Encoding")
	text := out.Bytes()
	if len(text) >= minPacked {
		for _, name := range append(c.encodings(), "gzip") {
			if !hasToken(c.r.Header, "Accept-Encoding", name) {
				continue
			}
			header.Set("Content-Encoding", name)
			if name != "gzip" {
				text = c.srv.Compression.Compress(nil, text)
				break
			}
			packed := newBuffer()
			defer packed.release()
			z := gzip.NewWriter(packed)
			z.Write(text)
			z.Close()
			text = packed.Bytes()
		}
	}
	header.Set("Content-Length", strconv.Itoa(len(text)))
	c.piecemeal(text)
}

// piecemeal writes, in pieces, each of which must make it in the time that a write may
// take.
func (c *httpCaller) piecemeal(text []byte) error {
	control := http.NewResponseController(c.w)
	if c.limits.KeepAlive > 0 && len(text) > maxRead {
		defer control.SetWriteDeadline(time.Time{})
	}
	for len(text) > 0 {
		n := min(len(text), maxWrite)
		if c.limits.KeepAlive > 0 && len(text) > maxRead {
			control.SetWriteDeadline(time.Now().Add(c.limits.KeepAlive))
		}
		if _, err := c.w.Write(text[:n]); err != nil {
			return err
		}
		text = text[n:]
	}
	return nil
}

// stream writes the answer, and what the stream in it yields, as events.
func (c *httpCaller) stream(ctx context.Context, out *outBuffer) {
	defer c.closeStream()
	defer context.AfterFunc(ctx, c.closeStream)()
	c.w.Header().Set("Content-Type", "text/event-stream")
	control := http.NewResponseController(c.w)
	if c.limits.KeepAlive > 0 {
		defer control.SetWriteDeadline(time.Time{})
	}
	send := func() error {
		if c.limits.KeepAlive > 0 {
			control.SetWriteDeadline(time.Now().Add(c.limits.KeepAlive))
		}
		io.WriteString(c.w, "data: ")
		c.w.Write(out.Bytes())
		if _, err := io.WriteString(c.w, "\n\n"); err != nil {
			return err
		}
		return control.Flush()
	}
	if send() != nil {
		return
	}
	err := errExited("stream") // unless items returns
	apart(func() {
		err = c.items(ctx, c.slot, c.value, out, 1, func(int) error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return send()
		})
	})
	if err == nil {
		err = ctx.Err()
	}
	out.Reset()
	writeEnd(&c.service, out, 1, err)
	send()
}

func (c *httpCaller) closeStream() {
	if c.slot.Kind == fn.ReadCloser {
		closeReader(c.value.Interface())
	}
}

// start implements [caller].
func (c *httpCaller) start(ctx context.Context, r *request, run func(ctx context.Context, a *activeCall)) {
	ctx, a := newActive(ctx, r)
	go func() { // ends with its handler, whose context ends with the batch
		select {
		case c.slots <- struct{}{}:
			a.entered = c
		case <-ctx.Done():
			a.refused = yonder.Errorf(yonder.CodeOf(ctx.Err()), "yonder: the call was over before it began: %w", context.Cause(ctx))
		}
		run(ctx, a)
	}()
}

func (c *httpCaller) leave() { <-c.slots }

// subscribe implements [caller]: one stream is sent as events, if the client takes them.
func (c *httpCaller) subscribe(_ context.Context, _ *activeCall, slot *fn.Slot, v reflect.Value) (uint64, bool, error) {
	if !c.events || c.slot != nil {
		return 0, false, nil
	}
	c.slot, c.value = slot, v
	return 1, true, nil
}

// control implements [caller]: the connection's end cancels.
func (c *httpCaller) control(*request) (any, bool, error) { return nil, false, nil }

// reply implements [caller]: what fits in headers is in headers.
func (c *httpCaller) reply(m yonder.Metadata) yonder.Metadata {
	if c.slots != nil {
		return m
	}
	header := c.w.Header()
	return splitMeta(m, func(name, value string) {
		header.Set(name, value)
		if header.Get("Access-Control-Allow-Origin") != "" {
			header.Add("Access-Control-Expose-Headers", name)
		}
	})
}

// failed implements [caller]: when to call again is in a header, in whole seconds. RFC 9110,
// section 10.2.3.
func (c *httpCaller) failed(err error) {
	if c.slots != nil {
		return
	}
	// By way of its record, for an error's own methods may panic, or go round in circles.
	err = new(yonder.Dialer).DecodeError(c.srv.EncodeError(err, yonder.JSON), yonder.JSON)
	if after, ok := yonder.RetryAfter(err); ok {
		c.w.Header().Set("Retry-After", strconv.FormatInt(int64((after+time.Second-1)/time.Second), 10))
	}
}

// splitMeta hands the metadata that a header can carry to set, and returns the rest.
func splitMeta(m yonder.Metadata, set func(name, value string)) (rest yonder.Metadata) {
	for key, value := range m {
		if isToken(key) && isVisible(value) {
			set(http.CanonicalHeaderKey(metaPrefix+key), value)
			continue
		}
		if rest == nil {
			rest = make(yonder.Metadata)
		}
		rest[key] = value
	}
	return rest
}

// isToken reports whether a header's name can end in key, and gives it back.
func isToken(key string) bool {
	for _, c := range []byte(key) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return key != ""
}

func isVisible(value string) bool {
	for _, c := range []byte(value) {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return strings.TrimSpace(value) == value
}
