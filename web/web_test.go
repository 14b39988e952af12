package web_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/rpc"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/session"
	"github.com/yonder-rpc/yonder/tlsconn"
	"github.com/yonder-rpc/yonder/web"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func logger(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

// server has functions for these tests, and speaks HTTP as config says.
func server(t *testing.T, config *web.Config) *yonder.Server {
	srv := &yonder.Server{Protocols: []yonder.Protocol{session.Protocol, config.Protocol()}, Logger: logger(t)}
	srv.Register("add", func(a, b int) int { return a + b })
	srv.Register("echo", func(b []byte) []byte { return b })
	srv.Register("count", func(n int) iter.Seq[int] {
		return func(yield func(int) bool) {
			for i := range n {
				if !yield(i) {
					return
				}
			}
		}
	})
	srv.Register("who", func(ctx context.Context) string {
		info, _ := yonder.InfoFrom(ctx)
		state := tlsconn.State(info.Conn)
		if state == nil {
			return info.Protocol + " nobody"
		}
		return info.Protocol + " " + state.PeerCertificates[0].Subject.CommonName
	})
	srv.Register("address", func(ctx context.Context) string {
		info, _ := yonder.InfoFrom(ctx)
		return info.Conn.(net.Conn).RemoteAddr().Network()
	})
	return srv
}

// serveOn has srv serve l until the test ends.
func serveOn(t *testing.T, srv *yonder.Server, l net.Listener) (address string) {
	t.Helper()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }() // ends with Close
	t.Cleanup(func() {
		srv.Close()
		if err := <-served; err != yonder.ErrServerClosed {
			t.Errorf("Serve returned %v, want ErrServerClosed", err)
		}
	})
	return l.Addr().String()
}

func serve(t *testing.T, srv *yonder.Server) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, srv, l)
}

func open(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func dial(t *testing.T, d *yonder.Dialer, address string) *yonder.Client {
	t.Helper()
	if d.NetDial == nil {
		d.NetDial = web.NetDial
	}
	if d.Logger == nil {
		d.Logger = logger(t)
	}
	c, err := d.Dial(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// ask sends a request as it is, and returns the answer's status and body.
func ask(t *testing.T, conn net.Conn, request string) (status int, body string) {
	t.Helper()
	io.WriteString(conn, request)
	method, _, _ := strings.Cut(request, " ")
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%q: %v", request, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%q: %v", request, err)
	}
	return resp.StatusCode, string(b)
}

func TestRequests(t *testing.T) {
	config := &web.Config{
		Origins: []string{"https://app.example"},
		Hosts:   []string{"proxy.example"},
		JSONRPC: func(s *yonder.Server) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				b, err := io.ReadAll(r.Body)
				fmt.Fprintf(w, "%s %s %v %d", r.Method, b, err, len(s.Procedures()))
			})
		},
		Other: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/panic" {
				panic("boom")
			}
			fmt.Fprintf(w, "other %s", r.URL.Path)
		}),
	}
	address := serve(t, server(t, config))
	for _, c := range []struct {
		request string
		status  int
		body    string
	}{
		{"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 200, "ok\n"},
		{"GET /healthz HTTP/1.0\r\n\r\n", 200, "ok\n"},
		{"HEAD /healthz HTTP/1.1\r\nHost: LocalHost:80\r\n\r\n", 200, ""},
		{"GET /healthz HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 200, "ok\n"},
		{"GET /healthz HTTP/1.1\r\nHost: 127.0.0.2\r\n\r\n", 200, "ok\n"},
		{"GET /healthz HTTP/1.1\r\nHost: app.localhost\r\n\r\n", 200, "ok\n"},
		{"GET /healthz HTTP/1.1\r\nHost: proxy.example\r\n\r\n", 200, "ok\n"},
		{"GET /healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403, "host \"evil.example\" is not a name of this server; its Hosts may be given it\n"},
		{"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1.evil.example:80\r\n\r\n", 403, "host \"127.0.0.1.evil.example:80\" is not a name of this server; its Hosts may be given it\n"},
		{"POST /jsonrpc HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}", 200, "POST {} <nil> 5"},
		{"POST /jsonrpc HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 200, "POST {} <nil> 5"},
		{"POST /jsonrpc HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\nContent-Length: 2\r\n\r\n{}", 200, "POST {} <nil> 5"},
		{"POST /jsonrpc HTTP/1.1\r\nHost: localhost\r\nOrigin: https://app.example\r\nContent-Length: 2\r\n\r\n{}", 200, "POST {} <nil> 5"},
		{"POST /jsonrpc HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\nContent-Length: 2\r\n\r\n{}", 403, "pages from \"https://evil.example\" may not call this server; its Origins may be given it\n"},
		{"POST /jsonrpc HTTP/1.1\r\nHost: localhost\r\nOrigin: null\r\nContent-Length: 2\r\n\r\n{}", 403, "pages from \"null\" may not call this server; its Origins may be given it\n"},
		{"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n", 200, "other /page"},
		{"GET /yonder HTTP/1.1\r\nHost: localhost\r\n\r\n", 426, "WebSocket protocol violation: Connection header \"\" does not contain Upgrade\n"},
		{"GET /yonder HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n\r\n", 403, "pages from \"https://evil.example\" may not call this server; its Origins may be given it\n"},
		{"GET /_goRPC_ HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, "405 must CONNECT\n"},
		{"GET / HTTP/2.0\r\nHost: localhost\r\n\r\n", 505, "505 HTTP Version Not Supported: unsupported protocol version"},
		{"GET / HTTP/1.1\r\n\r\n", 400, "400 Bad Request: missing required Host header"},
		{"GET / nonsense\r\n\r\n", 400, "400 Bad Request"},
		{"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}", 400, "400 Bad Request"},
		{"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + strings.Repeat("x", 100_000) + "\r\n\r\n", 431, "431 Request Header Fields Too Large"},
	} {
		status, body := ask(t, open(t, address), c.request)
		if status != c.status || body != c.body {
			t.Errorf("%.100q: %d %q, want %d %q", c.request, status, body, c.status, c.body)
		}
	}
	// A connection serves many requests, and a handler that panics ends only its own.
	conn := open(t, address)
	for range 3 {
		if status, body := ask(t, conn, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"); status != 200 || body != "ok\n" {
			t.Errorf("%d %q", status, body)
		}
	}
	io.WriteString(conn, "GET /panic HTTP/1.1\r\nHost: localhost\r\n\r\n")
	if b, err := io.ReadAll(conn); len(b) > 0 || err != nil {
		t.Errorf("after a panic: %q, %v", b, err)
	}
	if status, _ := ask(t, open(t, address), "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"); status != 200 {
		t.Error(status)
	}
	// A configuration without more has JSON-RPC, and no more; it can leave that out.
	address = serve(t, server(t, new(web.Config)))
	const call = "POST /jsonrpc HTTP/1.1\r\nHost: localhost\r\nContent-Length: 46\r\n\r\n" + `{"jsonrpc":"2.0","method":"no such","id":true}`
	if status, body := ask(t, open(t, address), call); status != 200 || !strings.Contains(body, "-32600") {
		t.Errorf("JSON-RPC: %d, %s", status, body)
	}
	none := func(*yonder.Server) http.Handler { return http.NotFoundHandler() }
	address = serve(t, server(t, &web.Config{JSONRPC: none}))
	for _, path := range []string{"/jsonrpc", "/", "/healthz/"} {
		if status, _ := ask(t, open(t, address), "GET "+path+" HTTP/1.1\r\nHost: localhost\r\n\r\n"); status != 404 {
			t.Errorf("%s: %d", path, status)
		}
	}
}

// behave has calls made, of the kinds there are.
func behave(t *testing.T, c *yonder.Client) {
	t.Helper()
	ctx := t.Context()
	if n, err := yonder.Invoke[int](ctx, c, "add", 1, 2); n != 3 || err != nil {
		t.Errorf("add: %d, %v", n, err)
	}
	large := bytes.Repeat([]byte("large "), 1_000_000)
	if b, err := yonder.Invoke[[]byte](ctx, c, "echo", large); !bytes.Equal(b, large) || err != nil {
		t.Errorf("echo: %d bytes, %v", len(b), err)
	}
	var count func(ctx context.Context, n int) (iter.Seq2[int, error], error)
	c.Bind("count", &count)
	numbers, err := count(ctx, 5000)
	if err != nil {
		t.Fatal(err)
	}
	next := 0
	for n, err := range numbers {
		if err != nil || n != next {
			t.Fatalf("%d, %v; want %d", n, err, next)
		}
		next++
	}
	if next != 5000 {
		t.Errorf("%d numbers", next)
	}
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			if n, err := yonder.Invoke[int](ctx, c, "add", i, i); n != 2*i || err != nil {
				t.Errorf("add: %d, %v", n, err)
			}
		})
	}
	wg.Wait()
}

func TestWebSocket(t *testing.T) {
	address := serve(t, server(t, new(web.Config)))
	c := dial(t, new(yonder.Dialer), "ws://"+address+"/yonder")
	behave(t, c)
	if got, err := yonder.Invoke[string](t.Context(), c, "address"); got != "tcp" || err != nil {
		t.Errorf("the peer's address is %q, %v", got, err)
	}
	// The others, on the same port.
	behave(t, dial(t, new(yonder.Dialer), address))
	small, err := session.Dial(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer small.Close()
	if n, err := yonder.Invoke[int](t.Context(), small, "add", 1, 2); n != 3 || err != nil {
		t.Errorf("add: %d, %v", n, err)
	}
	plain, err := web.Dial(t.Context(), "ws://"+address+"/yonder")
	if err != nil {
		t.Fatal(err)
	}
	plain.Close()
	for _, bad := range []struct{ address, want string }{
		{"ws://" + address + "/healthz", "yonder: cannot connect: ws://" + address + "/healthz is no WebSocket: 200 OK: ok"},
		{"ws://" + address + "/none", "yonder: cannot connect: ws://" + address + "/none is no WebSocket: 404 Not Found: 404 page not found"},
	} {
		if _, err := web.Dial(t.Context(), bad.address); yonder.CodeOf(err) != yonder.Unavailable || err.Error() != bad.want {
			t.Errorf("%v\nwant %s", err, bad.want)
		}
	}
}

// A client over a WebSocket connects again, as any other.
func TestReconnect(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var conns []net.Conn
	address := serveOn(t, server(t, new(web.Config)), &listener{l, func(c net.Conn) net.Conn {
		mu.Lock()
		defer mu.Unlock()
		conns = append(conns, c)
		return c
	}})
	c := dial(t, new(yonder.Dialer), "ws://"+address+"/yonder")
	for i := range 3 {
		// The call that finds the connection lost may say so; the next one has a new one.
		n, err := yonder.Invoke[int](t.Context(), c, "add", 1, 2)
		if err != nil {
			n, err = yonder.Invoke[int](t.Context(), c, "add", 1, 2)
		}
		if n != 3 || err != nil {
			t.Errorf("connection %d: %d, %v", i, n, err)
		}
		mu.Lock()
		for _, conn := range conns {
			conn.Close()
		}
		mu.Unlock()
	}
	if len(conns) < 3 {
		t.Errorf("there were %d connections", len(conns))
	}
}

type listener struct {
	net.Listener
	wrap func(net.Conn) net.Conn
}

func (l *listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.wrap(conn), nil
}

// certificate returns one for a name, its own authority.
func certificate(t *testing.T, name string) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func pool(certs ...tls.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certs {
		p.AddCert(c.Leaf)
	}
	return p
}

// With TLS in front, all protocols are as without, and handlers know who calls.
func TestTLS(t *testing.T) {
	own, ann := certificate(t, "server"), certificate(t, "ann")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	config := &web.Config{Other: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.TLS.PeerCertificates[0].Subject.CommonName)
	})}
	serverTLS := &tls.Config{Certificates: []tls.Certificate{own}, ClientCAs: pool(ann), ClientAuth: tls.RequireAndVerifyClientCert}
	address := serveOn(t, server(t, config), tls.NewListener(l, serverTLS))
	clientTLS := &tls.Config{Certificates: []tls.Certificate{ann}, RootCAs: pool(own)}
	transport := &http.Transport{TLSClientConfig: clientTLS}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}

	native := dial(t, &yonder.Dialer{NetDial: (&tls.Dialer{Config: clientTLS}).DialContext}, address)
	behave(t, native)
	socket := dial(t, &yonder.Dialer{NetDial: (&web.Dialer{Client: client}).NetDial}, "wss://"+address+"/yonder")
	behave(t, socket)
	conn, err := tls.Dial("tcp", address, clientTLS)
	if err != nil {
		t.Fatal(err)
	}
	small := session.Over(new(yonder.Dialer), conn)
	defer small.Close()
	for want, c := range map[string]*yonder.Client{"yonder ann": native, "session ann": small} {
		if who, err := yonder.Invoke[string](t.Context(), c, "who"); who != want || err != nil {
			t.Errorf("%q, %v; want %q", who, err, want)
		}
	}
	if who, err := yonder.Invoke[string](t.Context(), socket, "who"); who != "yonder ann" || err != nil {
		t.Errorf("over a WebSocket: %q, %v", who, err)
	}
	resp, err := client.Get("https://" + address + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); string(b) != "ann" || err != nil {
		t.Errorf("in a handler of HTTP: %q, %v", b, err)
	}
	if _, err := tls.Dial("tcp", address, &tls.Config{RootCAs: pool(ann)}); err == nil {
		t.Error("a stranger's authority is trusted")
	}
}

// The handler on an HTTP server of the program's, as it is, and with TLS.
func TestHandler(t *testing.T) {
	srv := server(t, new(web.Config))
	defer srv.Close()
	mux := http.NewServeMux()
	mux.Handle("/rpc/", http.StripPrefix("/rpc", web.Handler(srv)))
	plain := httptest.NewServer(mux)
	defer plain.Close()
	c := dial(t, new(yonder.Dialer), "ws"+strings.TrimPrefix(plain.URL, "http")+"/rpc/yonder")
	behave(t, c)
	if who, err := yonder.Invoke[string](t.Context(), c, "who"); who != "yonder nobody" || err != nil {
		t.Errorf("%q, %v", who, err)
	}

	ann := certificate(t, "ann")
	secure := httptest.NewUnstartedServer(mux)
	secure.TLS = &tls.Config{ClientCAs: pool(ann), ClientAuth: tls.RequireAndVerifyClientCert}
	secure.StartTLS()
	defer secure.Close()
	client := secure.Client()
	client.Transport.(*http.Transport).TLSClientConfig.Certificates = []tls.Certificate{ann}
	d := &yonder.Dialer{NetDial: (&web.Dialer{Client: client, Header: http.Header{"X-Test": {"1"}}}).NetDial}
	c = dial(t, d, "wss"+strings.TrimPrefix(secure.URL, "https")+"/rpc/yonder")
	behave(t, c)
	if who, err := yonder.Invoke[string](t.Context(), c, "who"); who != "yonder ann" || err != nil {
		t.Errorf("%q, %v", who, err)
	}

	get := func(path string) int {
		t.Helper()
		resp, err := plain.Client().Get(plain.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	connect := func() int {
		t.Helper()
		conn := open(t, plain.Listener.Addr().String())
		io.WriteString(conn, "CONNECT /rpc/_goRPC_ HTTP/1.0\n\n")
		resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: "CONNECT"})
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		return resp.StatusCode
	}
	if got := get("/rpc/healthz"); got != 200 {
		t.Errorf("serving: %d", got)
	}
	if got := connect(); got != 200 {
		t.Errorf("CONNECT: %d", got)
	}
	if err := srv.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if got := get("/rpc/healthz"); got != 503 {
		t.Errorf("shut down: %d", got)
	}
	if got := get("/rpc/yonder"); got != 503 {
		t.Errorf("a WebSocket after Shutdown: %d", got)
	}
	if got := connect(); got != 503 {
		t.Errorf("CONNECT after Shutdown: %d", got)
	}
	if _, err := yonder.Invoke[int](t.Context(), c, "add", 1, 2); yonder.CodeOf(err) != yonder.Unavailable {
		t.Errorf("after Shutdown: %v", err)
	}
}

// After CONNECT, the connection is the server's, as package net/rpc wants it.
func TestConnect(t *testing.T) {
	address := serve(t, server(t, new(web.Config)))
	connect := func() net.Conn {
		conn := open(t, address)
		io.WriteString(conn, "CONNECT /_goRPC_ HTTP/1.0\n\n")
		r := bufio.NewReader(conn)
		resp, err := http.ReadResponse(r, &http.Request{Method: "CONNECT"})
		if err != nil || resp.Status != "200 Connected to Go RPC" || r.Buffered() > 0 {
			t.Fatalf("%v, %v", resp, err)
		}
		return conn
	}
	c := (&yonder.Dialer{Logger: logger(t)}).NewClient(connect())
	defer c.Close()
	behave(t, c)
	// What the peer has sent too early is not lost.
	conn := open(t, address)
	io.WriteString(conn, "CONNECT /_goRPC_ HTTP/1.0\n\n\x00\x00\x00\x02\x10")
	if b, err := io.ReadAll(conn); string(b) != "HTTP/1.0 200 Connected to Go RPC\n\n" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	// There is no way deeper.
	conn = connect()
	io.WriteString(conn, "CONNECT /_goRPC_ HTTP/1.0\n\n")
	if b, err := io.ReadAll(conn); len(b) > 0 || err != nil {
		t.Errorf("HTTP in HTTP: %q, %v", b, err)
	}
}

// netRPC serves what package net/rpc's clients send, by that package itself.
type netRPC struct{ srv *rpc.Server }

func (netRPC) Name() string { return "net/rpc" }

func (netRPC) Detect(first []byte) yonder.Verdict {
	switch {
	case first[0] < 0x20 || first[0] > 0x7f:
		return yonder.No
	case len(first) == 1:
		return yonder.Maybe
	case first[1] == 0x7f || first[1] >= 0xf8:
		return yonder.Yes
	}
	return yonder.No
}

func (p netRPC) ServeConn(ctx context.Context, s *yonder.Server, conn net.Conn) error {
	p.srv.ServeConn(conn)
	return nil
}

type Arith struct{}

func (Arith) Double(n int, reply *int) error { *reply = 2 * n; return nil }

// The standard library's own client connects.
func TestNetRPC(t *testing.T) {
	p := netRPC{rpc.NewServer()}
	if err := p.srv.Register(Arith{}); err != nil {
		t.Fatal(err)
	}
	srv := server(t, new(web.Config))
	srv.Protocols = append(srv.Protocols, p)
	c, err := rpc.DialHTTP("tcp", serve(t, srv))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var n int
	if err := c.Call("Arith.Double", 21, &n); n != 42 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

// What a WebSocket's peer may do wrong.
func TestWebSocketHostile(t *testing.T) {
	srv := server(t, new(web.Config))
	address := serve(t, srv)
	socket := func() *websocket.Conn {
		ws, _, err := websocket.Dial(t.Context(), "ws://"+address+"/yonder", nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ws.CloseNow() })
		return ws
	}
	friend := dial(t, new(yonder.Dialer), "ws://"+address+"/yonder")
	for name, do := range map[string]func(ws *websocket.Conn){
		"text":     func(ws *websocket.Conn) { ws.Write(t.Context(), websocket.MessageText, []byte("hello")) },
		"stranger": func(ws *websocket.Conn) { ws.Write(t.Context(), websocket.MessageBinary, []byte("hello")) },
		"http": func(ws *websocket.Conn) {
			ws.Write(t.Context(), websocket.MessageBinary, []byte("GET /healthz HTTP/1.0\r\n\r\n"))
		},
		"goodbye": func(ws *websocket.Conn) { ws.Close(websocket.StatusNormalClosure, "") },
		"garbage after the greeting": func(ws *websocket.Conn) {
			ws.Write(t.Context(), websocket.MessageBinary, append([]byte("\xd9yonder"), make([]byte, 1000)...))
		},
	} {
		ws := socket()
		do(ws)
		for {
			_, b, err := ws.Read(t.Context())
			if err != nil {
				break // it is closed
			}
			if bytes.Contains(b, []byte("HTTP")) {
				t.Errorf("%s: %q", name, b)
			}
		}
	}
	behave(t, friend)
}

// The server's goodbye reaches a peer that knows WebSockets only.
func TestWebSocketGoodbye(t *testing.T) {
	srv := server(t, new(web.Config))
	address := serve(t, srv)
	ws, _, err := websocket.Dial(t.Context(), "ws://"+address+"/yonder", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	if err := ws.Write(t.Context(), websocket.MessageText, nil); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ws.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusNormalClosure {
		t.Errorf("%v", err)
	}
}

// inMemory has srv serve one end of a pipe, in a bubble.
func inMemory(srv *yonder.Server) (conn net.Conn, served chan error) {
	near, far := net.Pipe()
	served = make(chan error, 1)
	go func() { served <- srv.ServeConn(near) }() // ends with far
	return far, served
}

func TestSlow(t *testing.T) {
	post := "POST /jsonrpc HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"
	for _, c := range []struct {
		name string
		do   func(conn net.Conn)
		want time.Duration
	}{
		{"header", func(conn net.Conn) {
			io.WriteString(conn, "GET /healthz HTTP/1.1\r\n")
			for {
				time.Sleep(time.Second)
				if _, err := io.WriteString(conn, "X: y\r\n"); err != nil {
					return
				}
			}
		}, 10 * time.Second},
		{"nothing after a request", func(conn net.Conn) {
			go io.Copy(io.Discard, conn)
			io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
		}, 2 * time.Minute},
		{"body", func(conn net.Conn) {
			go io.Copy(io.Discard, conn)
			io.WriteString(conn, post+"{")
		}, 15 * time.Second},
		{"body that nobody wants", func(conn net.Conn) {
			go io.Copy(io.Discard, conn)
			io.WriteString(conn, strings.Replace(post, "jsonrpc", "healthz", 1)+"{")
		}, 15 * time.Second},
		{"never reading", func(conn net.Conn) {
			io.WriteString(conn, "GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
		}, 15 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				failed := make(chan error, 1)
				srv := server(t, &web.Config{
					JSONRPC: func(*yonder.Server) http.Handler {
						return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })
					},
					Other: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						_, err := w.Write(make([]byte, 10<<20))
						failed <- err
					}),
				})
				conn, served := inMemory(srv)
				begin := time.Now()
				done := make(chan struct{})
				go func() { c.do(conn); close(done) }()
				<-served
				if took := time.Since(begin); took != c.want {
					t.Errorf("it took %v, want %v", took, c.want)
				}
				if c.name == "never reading" && <-failed == nil {
					t.Error("the handler was told of no error")
				}
				conn.Close()
				<-done
				srv.Close()
			})
		})
	}
}

// A slow body is read as long as something comes, and a handler may take its time.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := server(t, &web.Config{Other: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, err := io.ReadAll(r.Body)
			time.Sleep(time.Hour)
			fmt.Fprintf(w, "%d %v %v", len(b), err, r.Context().Err())
		})})
		conn, _ := inMemory(srv)
		go func() {
			io.WriteString(conn, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n")
			for range 10 {
				time.Sleep(10 * time.Second)
				io.WriteString(conn, "x")
			}
		}()
		if status, body := ask(t, conn, ""); status != 200 || body != "10 <nil> <nil>" {
			t.Errorf("%d %q", status, body)
		}
		conn.Close()
		srv.Close()
	})
}

// A handler that sets a deadline for the body has it kept, however steadily the body trickles.
func TestBodyDeadline(t *testing.T) {
	for _, c := range []struct {
		name   string
		config web.Config
		want   int
	}{
		{"a handler's own", web.Config{Other: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.NewResponseController(w).SetReadDeadline(time.Now().Add(30 * time.Second))
			if _, err := io.ReadAll(r.Body); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("reading the body: %v", err)
			}
			w.WriteHeader(http.StatusRequestTimeout)
		})}, http.StatusRequestTimeout},
		{"JSON-RPC's BodyTimeout", web.Config{}, http.StatusRequestTimeout},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := server(t, &c.config)
				conn, _ := inMemory(srv)
				path := "/"
				if c.config.Other == nil {
					path = "/jsonrpc"
				}
				begin := time.Now()
				done := make(chan struct{})
				go func() { // ends when the connection does
					defer close(done)
					_, err := io.WriteString(conn, "POST "+path+" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000\r\n\r\n")
					for err == nil {
						time.Sleep(time.Second)
						_, err = io.WriteString(conn, " ")
					}
				}()
				if status, body := ask(t, conn, ""); status != c.want {
					t.Errorf("%d %q, want %d", status, body, c.want)
				}
				if took := time.Since(begin); took != 30*time.Second {
					t.Errorf("it took %v, want 30s", took)
				}
				conn.Close()
				<-done
				srv.Close()
			})
		})
	}
}

func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		srv := server(t, &web.Config{Other: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			<-release
			fmt.Fprint(w, r.Context().Err())
		})})
		srv.Register("wait", func() string { <-release; return "done" })
		half, halfServed := inMemory(srv)
		io.WriteString(half, "GET /healthz HTTP/1.1\r\n")
		idle, idleServed := inMemory(srv)
		ask(t, idle, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
		busy, busyServed := inMemory(srv)
		answer := make(chan string, 1)
		go func() {
			status, body := ask(t, busy, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
			answer <- fmt.Sprint(status, " ", body)
		}()
		d := yonder.Dialer{NetDial: (&web.Dialer{Client: &http.Client{Transport: &http.Transport{
			DialContext: func(context.Context, string, string) (net.Conn, error) { conn, _ := inMemory(srv); return conn, nil },
		}}}).NetDial, Logger: logger(t)}
		c, err := d.Dial(t.Context(), "ws://memory/yonder")
		if err != nil {
			t.Fatal(err)
		}
		waited := make(chan string, 1)
		go func() { s, err := yonder.Invoke[string](t.Context(), c, "wait"); waited <- fmt.Sprint(s, " ", err) }()
		synctest.Wait()
		shut := make(chan error, 1)
		go func() { shut <- srv.Shutdown(t.Context()) }()
		<-halfServed
		<-idleServed
		synctest.Wait()
		select {
		case err := <-shut:
			t.Errorf("Shutdown did not wait: %v", err)
		default:
		}
		close(release)
		if diff := cmp.Diff("200 <nil>", <-answer); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff("done <nil>", <-waited); diff != "" {
			t.Error(diff)
		}
		<-busyServed
		if err := <-shut; err != nil {
			t.Error(err)
		}
		c.Close()
		for _, conn := range []net.Conn{half, idle, busy} {
			conn.Close()
		}
	})
}

// Close waits for no handler that ignores its context.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		srv := server(t, &web.Config{Other: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-release })})
		conn, served := inMemory(srv)
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		if err := srv.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		<-served
		close(release)
		conn.Close()
	})
}

func TestDetect(t *testing.T) {
	for first, want := range map[string]yonder.Verdict{
		"G": yonder.Maybe, "GET": yonder.Maybe, "GET ": yonder.Yes, "GET / HTTP/1.1\r\n": yonder.Yes,
		"P": yonder.Maybe, "POST /": yonder.Yes, "CONNECT /_goRPC_ ": yonder.Yes, "OPTIONS * ": yonder.Yes,
		"get ": yonder.No, "GETS": yonder.No, "PRI * HTTP/2.0": yonder.No, "{": yonder.No, "\xd9yonder": yonder.No, "\x00": yonder.No,
		"\x16\x03\x01": yonder.No,
	} {
		if got := web.Protocol.Detect([]byte(first)); got != want {
			t.Errorf("%q: %d, want %d", first, got, want)
		}
	}
}
