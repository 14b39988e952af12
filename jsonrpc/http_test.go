package jsonrpc_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/jsonrpc"
)

// serveHTTP serves JSON-RPC over HTTP until the test ends, and returns its URL.
func serveHTTP(t testing.TB, srv *yonder.Server, config *jsonrpc.Config) (url string) {
	t.Helper()
	h := httptest.NewServer(config.Handler(srv))
	t.Cleanup(func() {
		srv.Close()
		h.Close()
	})
	return h.URL
}

// An exchange is an HTTP request, and what is to be answered.
type exchange struct {
	name    string
	method  string // "": POST
	header  string // name: value, one a line; the content type is application/json if there is none
	host    string
	body    string
	status  int
	want    string // the body; "": any
	answers string // name: value, one a line, that the answer's header has
}

func (e exchange) run(t *testing.T, url string) {
	t.Helper()
	method := e.method
	if method == "" {
		method = "POST"
	}
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(e.body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	for line := range strings.Lines(e.header) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		r.Header.Set(name, value)
	}
	if e.host != "" {
		r.Host = e.host
	}
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	defer client.CloseIdleConnections()
	a, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	body, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatal(err)
	}
	if a.StatusCode != e.status || e.want != "" && string(body) != e.want {
		t.Errorf("%d %s\nwant %d %s", a.StatusCode, body, e.status, e.want)
	}
	for line := range strings.Lines(e.answers) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if got := strings.Join(a.Header.Values(name), ", "); got != value {
			t.Errorf("header %s is %q, want %q", name, got, value)
		}
	}
}

func TestHTTP(t *testing.T) {
	noLeaks(t)
	srv := specServer()
	srv.Register("HelloService.Hello", func(name string) string { return "Hello, " + name })
	srv.Register("long", func() string { return strings.Repeat("a", 5000) })
	srv.Register("meta", func(ctx context.Context) string {
		info, _ := yonder.InfoFrom(ctx)
		yonder.SetReply(ctx, "seen", info.Metadata["trace"])
		yonder.SetReply(ctx, "Odd Key", "ü")
		_, isRequest := info.Conn.(*http.Request)
		deadline, ok := ctx.Deadline()
		return fmt.Sprintf("%s %t %t", info.Metadata["trace"], isRequest, ok && time.Until(deadline) < 3*time.Second)
	})
	srv.Limits.MaxMessage = 20_000
	srv.Limits.MaxMetadata = 4096
	url := serveHTTP(t, srv, &jsonrpc.Config{Origins: []string{"https://friend.example"}, Hosts: []string{"my.name"}})
	const sum = `{"jsonrpc":"2.0","method":"sum","params":[1,2],"id":1}`
	const three = `{"jsonrpc":"2.0","result":3,"id":1}` + "\n"
	pack := func(text string) string {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		io.WriteString(z, text)
		z.Close()
		return b.String()
	}
	for _, e := range []exchange{
		{name: "plain", body: sum, status: 200, want: three, answers: "Content-Type: application/json\nX-Content-Type-Options: nosniff\nCache-Control: no-store"},
		{name: "charset", header: "Content-Type: application/json; charset=utf-8", body: sum, status: 200, want: three},
		{name: "curl --data", header: "Content-Type: application/x-www-form-urlencoded", body: `{"method":"HelloService.Hello","params":["world"],"id":0}`,
			status: 200, want: `{"id":0,"result":"Hello, world","error":null}` + "\n"},
		{name: "a form of a page", header: "Content-Type: application/x-www-form-urlencoded\nOrigin: https://friend.example", body: sum, status: 415},
		{name: "a form that says where from", header: "Content-Type: text/plain\nSec-Fetch-Site: cross-site", body: sum, status: 415},
		{name: "another type", header: "Content-Type: text/html", body: sum, status: 415, answers: "Accept-Post: application/json"},
		{name: "GET", method: "GET", status: 405, answers: "Allow: POST"},
		{name: "PUT", method: "PUT", body: sum, status: 405, answers: "Allow: POST"},
		{name: "OPTIONS of no page", method: "OPTIONS", status: 405, answers: "Allow: POST"},
		{name: "preflight", method: "OPTIONS", header: "Origin: https://friend.example\nAccess-Control-Request-Headers: content-type", status: 204,
			answers: "Access-Control-Allow-Origin: https://friend.example\nAccess-Control-Allow-Methods: POST\nAccess-Control-Allow-Headers: content-type\nVary: Origin"},
		{name: "preflight of a stranger", method: "OPTIONS", header: "Origin: https://stranger.example", status: 403, answers: "Access-Control-Allow-Origin: "},
		{name: "a friend's page", header: "Origin: https://friend.example", body: sum, status: 200, want: three, answers: "Access-Control-Allow-Origin: https://friend.example"},
		{name: "a stranger's page", header: "Origin: https://stranger.example", body: sum, status: 403},
		{name: "a page from a file", header: "Origin: null", body: sum, status: 403},
		{name: "its own page", header: "Origin: " + url, body: sum, status: 200, want: three},
		{name: "a name of a stranger's", host: "stranger.example", body: sum, status: 403},
		{name: "a name of its own", host: "my.name:80", body: sum, status: 200, want: three},
		{name: "localhost", host: "localhost:80", body: sum, status: 200, want: three},
		{name: "too large", body: sum + strings.Repeat(" ", 20_000), status: 413},
		{name: "compressed", header: "Content-Encoding: gzip", body: pack(sum), status: 200, want: three},
		{name: "compressed too small", header: "Content-Encoding: gzip", body: pack(sum + strings.Repeat(" ", 20_000)), status: 413},
		{name: "not compressed", header: "Content-Encoding: gzip", body: sum, status: 400},
		{name: "compressed otherwise", header: "Content-Encoding: br", body: sum, status: 415, answers: "Accept-Encoding: gzip"},
		{name: "a compressed answer", header: "Accept-Encoding: br, gzip;q=0.5", body: `{"jsonrpc":"2.0","method":"long","id":1}`, status: 200, answers: "Content-Encoding: gzip\nVary: Origin, Accept-Encoding"},
		{name: "compression refused", header: "Accept-Encoding: gzip; q=0", body: `{"jsonrpc":"2.0","method":"long","id":1}`, status: 200, answers: "Content-Encoding: ",
			want: `{"jsonrpc":"2.0","result":"` + strings.Repeat("a", 5000) + `","id":1}` + "\n"},
		{name: "notification", body: `{"jsonrpc":"2.0","method":"update","params":[1]}`, status: 204},
		{name: "batch of notifications", body: `[{"jsonrpc":"2.0","method":"update","params":[1]}]`, status: 204},
		{name: "a stream's method is not there", body: `{"jsonrpc":"2.0","method":"rpc.cancel","params":{"id":1},"id":1}`, status: 200,
			want: `{"jsonrpc":"2.0","error":{"code":-32601,"message":"Method not found"},"id":1}` + "\n"},
		{name: "empty", body: " ", status: 200, want: `{"jsonrpc":"2.0","error":{"code":-32700,"message":"Parse error"},"id":null}` + "\n"},
		{name: "metadata and deadline", header: "Yonder-Meta-Trace: x7\nYonder-Timeout: 2500", body: `{"jsonrpc":"2.0","method":"meta","id":1}`,
			status: 200, want: `{"jsonrpc":"2.0","result":"x7 true true","id":1,"meta":{"Odd Key":"ü"}}` + "\n", answers: "Yonder-Meta-Seen: x7"},
		{name: "metadata and deadline in the request", body: `{"jsonrpc":"2.0","method":"meta","id":1,"meta":{"trace":"y"},"timeout":2500}`,
			status: 200, want: `{"jsonrpc":"2.0","result":"y true true","id":1,"meta":{"Odd Key":"ü"}}` + "\n", answers: "Yonder-Meta-Seen: y"},
		{name: "no deadline", header: "Yonder-Timeout: soon", body: sum, status: 200, want: `{"jsonrpc":"2.0","error":{"code":-32600,"message":"Invalid Request"},"id":1}` + "\n"},
		{name: "too much metadata", header: "Yonder-Meta-A: " + strings.Repeat("a", 5000), body: sum, status: 200,
			want: `{"jsonrpc":"2.0","error":{"code":-32008,"message":"yonder: call \"sum\": the metadata is larger than 4096 bytes","data":{"code":"resource_exhausted"}},"id":1}` + "\n"},
	} {
		t.Run(e.name, func(t *testing.T) { e.run(t, url) })
	}
	for _, e := range specExamples {
		status, want := 200, compact(t, e.want)+"\n"
		if e.want == "" {
			status, want = 204, ""
		}
		t.Run(e.name, func(t *testing.T) { exchange{body: e.send, status: status, want: want}.run(t, url) })
	}
}

// Without configuration, no page but the server's own may call.
func TestHTTPNoOrigins(t *testing.T) {
	noLeaks(t)
	url := serveHTTP(t, specServer(), new(jsonrpc.Config))
	exchange{method: "OPTIONS", header: "Origin: " + url, status: 405, answers: "Access-Control-Allow-Origin: "}.run(t, url)
	exchange{header: "Origin: https://other.example", body: "{}", status: 403, answers: "Access-Control-Allow-Origin: "}.run(t, url)
}

func TestHTTPStreams(t *testing.T) {
	noLeaks(t)
	srv := new(yonder.Server)
	srv.Register("count", func(n int) iter.Seq2[int, error] {
		return func(yield func(int, error) bool) {
			for i := range n {
				if !yield(i, nil) {
					return
				}
			}
			if n == 4 {
				yield(0, yonder.Errorf(yonder.NotFound, "no more"))
			}
		}
	})
	srv.Register("read", func() io.Reader { return strings.NewReader("hello") })
	srv.Register("sum", func(numbers iter.Seq[int]) (sum int) {
		for n := range numbers {
			sum += n
		}
		return sum
	})
	srv.Register("length", func(r io.Reader) (int, error) {
		b, err := io.ReadAll(r)
		return len(b), err
	})
	url := serveHTTP(t, srv, new(jsonrpc.Config))
	for _, e := range []exchange{
		{name: "an array", body: `{"jsonrpc":"2.0","method":"count","params":[3],"id":1}`, want: `{"jsonrpc":"2.0","result":[0,1,2],"id":1}` + "\n"},
		{name: "an array that fails", body: `{"jsonrpc":"2.0","method":"count","params":[4],"id":1}`,
			want: `{"jsonrpc":"2.0","error":{"code":-32005,"message":"no more","data":{"code":"not_found"}},"id":1}` + "\n"},
		{name: "bytes", body: `{"jsonrpc":"2.0","method":"read","id":1}`, want: `{"jsonrpc":"2.0","result":"aGVsbG8=","id":1}` + "\n"},
		{name: "a stream given", body: `{"jsonrpc":"2.0","method":"sum","params":[[1,2,3]],"id":1}`, want: `{"jsonrpc":"2.0","result":6,"id":1}` + "\n"},
		{name: "a reader given", body: `{"jsonrpc":"2.0","method":"length","params":["aGVsbG8="],"id":1}`, want: `{"jsonrpc":"2.0","result":5,"id":1}` + "\n"},
		{name: "events", header: "Accept: application/json, text/event-stream", body: `{"jsonrpc":"2.0","method":"count","params":[4],"id":1}`,
			answers: "Content-Type: text/event-stream",
			want: `data: {"jsonrpc":"2.0","result":{"subscription":1},"id":1}

data: {"jsonrpc":"2.0","method":"rpc.stream","params":{"subscription":1,"items":[0]}}

data: {"jsonrpc":"2.0","method":"rpc.stream","params":{"subscription":1,"items":[1]}}

data: {"jsonrpc":"2.0","method":"rpc.stream","params":{"subscription":1,"items":[2]}}

data: {"jsonrpc":"2.0","method":"rpc.stream","params":{"subscription":1,"items":[3]}}

data: {"jsonrpc":"2.0","method":"rpc.stream","params":{"subscription":1,"end":true,"error":{"code":-32005,"message":"no more","data":{"code":"not_found"}}}}

`},
		{name: "no events to send", header: "Accept: application/json, text/event-stream", body: `{"jsonrpc":"2.0","method":"sum","params":[[1]],"id":1}`,
			answers: "Content-Type: application/json", want: `{"jsonrpc":"2.0","result":1,"id":1}` + "\n"},
	} {
		e.status = 200
		t.Run(e.name, func(t *testing.T) { e.run(t, url) })
	}
}

// A client that goes away cancels its call.
func TestHTTPDisconnect(t *testing.T) {
	noLeaks(t)
	srv := new(yonder.Server)
	began, ended := make(chan struct{}), make(chan error, 1)
	srv.Register("hang", func(ctx context.Context) error {
		close(began)
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return ctx.Err()
	})
	url := serveHTTP(t, srv, new(jsonrpc.Config))
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-began
		cancel()
	}()
	r, _ := http.NewRequestWithContext(ctx, "POST", url, strings.NewReader(`{"jsonrpc":"2.0","method":"hang","id":1}`))
	if _, err := http.DefaultClient.Do(r); err == nil {
		t.Error("the request succeeded")
	}
	http.DefaultClient.CloseIdleConnections()
	<-ended
}

// Shutdown waits for calls over HTTP, and Close ends them.
func TestHTTPShutdown(t *testing.T) {
	noLeaks(t)
	srv := new(yonder.Server)
	began, ended := make(chan struct{}, 2), make(chan error, 2)
	srv.Register("hang", func(ctx context.Context) error {
		began <- struct{}{}
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return ctx.Err()
	})
	url := serveHTTP(t, srv, new(jsonrpc.Config))
	for _, body := range []string{`{"jsonrpc":"2.0","method":"hang","id":1}`, `{"jsonrpc":"2.0","method":"hang"}`} {
		go func() { // ends with the server
			a, err := http.Post(url, "application/json", strings.NewReader(body))
			if err == nil {
				a.Body.Close()
			}
		}()
	}
	<-began
	<-began
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := srv.Shutdown(ctx); err != context.Canceled {
		t.Errorf("Shutdown returned %v", err)
	}
	for range 2 {
		if cause := <-ended; cause != yonder.ErrServerClosed {
			t.Errorf("the cause is %v, want ErrServerClosed", cause)
		}
	}
	exchange{body: "{}", status: 503}.run(t, url)
	http.DefaultClient.CloseIdleConnections()
}

// A body that does not come is not waited for for ever.
func TestHTTPSlowBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := specServer()
		near, far := net.Pipe()
		l := &oneListener{conn: make(chan net.Conn, 1), closed: make(chan struct{})}
		l.conn <- far
		h := &http.Server{Handler: jsonrpc.Handler(srv)}
		go h.Serve(l) // ends with Close
		go io.WriteString(near, "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{")
		began := time.Now()
		b, _ := io.ReadAll(near)
		if !bytes.HasPrefix(b, []byte("HTTP/1.1 408 ")) || time.Since(began) < 30*time.Second {
			t.Errorf("after %v: %s", time.Since(began), b)
		}
		near.Close()
		h.Close()
		srv.Close()
	})
}

// A oneListener has one connection.
type oneListener struct {
	conn   chan net.Conn
	closed chan struct{}
}

func (l *oneListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *oneListener) Close() error   { close(l.closed); return nil }
func (l *oneListener) Addr() net.Addr { return &net.UnixAddr{} }
