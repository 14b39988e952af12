package tlsconn_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	stdrpc "net/rpc"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/auth"
	"github.com/yonder-rpc/yonder/jsonrpc"
	"github.com/yonder-rpc/yonder/net/rpc"
	"github.com/yonder-rpc/yonder/session"
	"github.com/yonder-rpc/yonder/tlsconn"
	"github.com/yonder-rpc/yonder/web"
)

// authority makes certificates.
type authority struct {
	tb   testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(tb testing.TB) *authority {
	a := &authority{tb: tb}
	a.key = newKey(tb)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	check(tb, err)
	a.cert, err = x509.ParseCertificate(der)
	check(tb, err)
	return a
}

func newKey(tb testing.TB) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(tb, err)
	return key
}

// issue returns a certificate and its key in PEM.
func (a *authority) issue(name string) (cert, key []byte) {
	a.tb.Helper()
	k := newKey(a.tb)
	id, _ := url.Parse("spiffe://example/" + name)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{name + ".example", "localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		URIs: []*url.URL{id}, EmailAddresses: []string{name + "@example"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &k.PublicKey, a.key)
	check(a.tb, err)
	secret, err := x509.MarshalPKCS8PrivateKey(k)
	check(a.tb, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

func check(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// dir is a directory with certificates.
type dir struct {
	tb   testing.TB
	path string
}

func newDir(tb testing.TB) dir { return dir{tb, tb.TempDir()} }

func (d dir) file(name string) string { return filepath.Join(d.path, name) }

func (d dir) write(name string, text []byte) string {
	d.tb.Helper()
	check(d.tb, os.WriteFile(d.file(name), text, 0o600))
	return d.file(name)
}

// issue writes name.pem and name.key.
func (d dir) issue(a *authority, name string) {
	cert, key := a.issue(name)
	d.write(name+".pem", cert)
	d.write(name+".key", key)
}

// writeCertificates is for the example.
func writeCertificates(path string) {
	d := dir{new(exampleTB), path}
	a := newAuthority(d.tb)
	d.write("ca.pem", a.pem())
	d.issue(a, "server")
	d.issue(a, "ann")
}

type exampleTB struct{ testing.TB }

func (*exampleTB) Helper() {}

func (*exampleTB) Fatal(args ...any) { panic(args) }

func serve(t *testing.T, srv *yonder.Server, c *tlsconn.Config) (host string) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before, goleak.IgnoreTopFunction("net/http.(*persistConn).writeLoop")) })
	if srv.Logger == nil {
		srv.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	l, err := c.Listen("tls://127.0.0.1:0")
	check(t, err)
	served := make(chan struct{})
	go func() { // ends with Close
		defer close(served)
		srv.Serve(l)
	}()
	t.Cleanup(func() {
		srv.Close()
		<-served
	})
	return l.Addr().String()
}

// whoServer has a procedure that tells who calls it.
func whoServer() *yonder.Server {
	srv := &yonder.Server{
		Protocols:    []yonder.Protocol{rpc.Protocol, jsonrpc.Protocol, session.Protocol, web.Protocol},
		Interceptors: []yonder.Interceptor{auth.Identify(tlsconn.Identify)},
	}
	srv.Register("who", func(ctx context.Context) string {
		if id := auth.FromContext(ctx); id != nil {
			return strings.Join(id.Names, " ")
		}
		info, _ := yonder.InfoFrom(ctx)
		if s := tlsconn.State(info.Conn); s != nil {
			return "nobody, over " + tls.VersionName(s.Version) + s.NegotiatedProtocol
		}
		return "nobody"
	})
	return srv
}

// All protocols are served over TLS on one port, and know who calls by the certificate.
func TestProtocols(t *testing.T) {
	d, a := newDir(t), newAuthority(t)
	d.issue(a, "server")
	d.issue(a, "ann")
	ca := d.write("ca.pem", a.pem())
	host := serve(t, whoServer(), &tlsconn.Config{Certificate: d.file("server.pem"), Key: d.file("server.key"), CA: ca})
	config := &tlsconn.Config{Certificate: d.file("ann.pem"), Key: d.file("ann.key"), CA: ca}
	ctx := t.Context()
	client, err := config.Client("127.0.0.1")
	check(t, err)
	client.NextProtos = nil // as most clients
	transport := &http.Transport{TLSClientConfig: client}
	defer transport.CloseIdleConnections()
	over := &http.Client{Transport: transport}
	conn := func() net.Conn {
		c, err := tls.Dial("tcp", host, client)
		check(t, err)
		return c
	}
	clients := map[string]func() (*yonder.Client, error){
		"native": func() (*yonder.Client, error) {
			return (&yonder.Dialer{NetDial: config.NetDial}).Dial(ctx, "tls://"+host)
		},
		"native over a WebSocket": func() (*yonder.Client, error) {
			return (&yonder.Dialer{NetDial: (&web.Dialer{Client: over}).NetDial}).Dial(ctx, "wss://"+host+"/yonder")
		},
		"JSON-RPC": func() (*yonder.Client, error) {
			return (&jsonrpc.Dialer{Client: yonder.Dialer{NetDial: config.NetDial}}).Dial(ctx, "tls://"+host)
		},
		"JSON-RPC over HTTP": func() (*yonder.Client, error) {
			return (&jsonrpc.Dialer{HTTP: over}).Dial(ctx, "https://"+host+"/jsonrpc")
		},
		"JSON-RPC over a WebSocket": func() (*yonder.Client, error) {
			return (&jsonrpc.Dialer{HTTP: over}).Dial(ctx, "wss://"+host+"/jsonrpc")
		},
		"session": func() (*yonder.Client, error) { return session.Over(new(yonder.Dialer), conn()), nil },
	}
	const want = "uri:spiffe://example/ann dns:ann.example dns:localhost email:ann@example ip:127.0.0.1 cn:ann"
	for name, dial := range clients {
		t.Run(name, func(t *testing.T) {
			c, err := dial()
			check(t, err)
			defer c.Close()
			if who, err := yonder.Invoke[string](ctx, c, "who"); who != want || err != nil {
				t.Errorf("%q, %v", who, err)
			}
		})
	}
	t.Run("net/rpc", func(t *testing.T) {
		c := stdrpc.NewClient(conn())
		defer c.Close()
		var who string
		if err := c.Call("who", struct{}{}, &who); who != want || err != nil {
			t.Errorf("%q, %v", who, err)
		}
	})
	t.Run("a handler on another HTTP server", func(t *testing.T) {
		srv := whoServer()
		server := &http.Server{Handler: web.Handler(srv)}
		l, err := (&tlsconn.Config{Certificate: d.file("server.pem"), Key: d.file("server.key"), CA: ca}).Listen("127.0.0.1:0")
		check(t, err)
		go server.Serve(l) // ends with Close
		defer server.Close()
		for _, scheme := range []string{"https", "wss"} {
			c, err := (&jsonrpc.Dialer{HTTP: over}).Dial(ctx, scheme+"://"+l.Addr().String()+"/jsonrpc")
			check(t, err)
			if who, err := yonder.Invoke[string](ctx, c, "who"); who != want || err != nil {
				t.Errorf("%s: %q, %v", scheme, who, err)
			}
			c.Close()
		}
	})
	t.Run("without a certificate", func(t *testing.T) {
		told := false
		for range 20 { // what the server says is lost where the client writes after the server has closed
			c, err := (&yonder.Dialer{NetDial: (&tlsconn.Config{CA: ca}).NetDial}).Dial(ctx, "tls://"+host)
			if err == nil { // the client's handshake ends before the server has judged it
				_, err = yonder.Invoke[string](ctx, c, "who")
				c.Close()
			}
			if yonder.CodeOf(err) != yonder.Unavailable {
				t.Fatal(err)
			}
			told = told || strings.Contains(err.Error(), "certificate required")
		}
		if !told {
			t.Error("the client never heard why")
		}
	})
	t.Run("of another authority", func(t *testing.T) {
		other := newAuthority(t)
		d.issue(other, "eve")
		c, err := (&yonder.Dialer{NetDial: (&tlsconn.Config{Certificate: d.file("eve.pem"), Key: d.file("eve.key"), CA: ca}).NetDial}).Dial(ctx, "tls://"+host)
		if err == nil {
			defer c.Close()
			_, err = yonder.Invoke[string](ctx, c, "who")
		}
		if yonder.CodeOf(err) != yonder.Unavailable {
			t.Error(err)
		}
	})
	t.Run("without TLS", func(t *testing.T) {
		c, err := yonder.Dial(ctx, host)
		if err == nil {
			defer c.Close()
			_, err = yonder.Invoke[string](ctx, c, "who")
		}
		if yonder.CodeOf(err) != yonder.Unavailable {
			t.Error(err)
		}
	})
}

// A certificate that nobody has verified proves nothing.
func TestOptional(t *testing.T) {
	d, a := newDir(t), newAuthority(t)
	d.issue(a, "server")
	d.issue(a, "ann")
	ca := d.write("ca.pem", a.pem())
	for _, tt := range []struct {
		server, client *tlsconn.Config
		want           string
	}{
		{&tlsconn.Config{CA: ca, Optional: true}, &tlsconn.Config{CA: ca}, "nobody, over TLS 1.3yonder"},
		{&tlsconn.Config{CA: ca, Optional: true}, &tlsconn.Config{CA: ca, Certificate: d.file("ann.pem"), Key: d.file("ann.key")}, "uri:spiffe://example/ann"},
		{&tlsconn.Config{}, &tlsconn.Config{CA: ca, Certificate: d.file("ann.pem"), Key: d.file("ann.key")}, "nobody, over TLS 1.3yonder"},
	} {
		tt.server.Certificate, tt.server.Key = d.file("server.pem"), d.file("server.key")
		host := serve(t, whoServer(), tt.server)
		c, err := (&yonder.Dialer{NetDial: tt.client.NetDial}).Dial(t.Context(), "tls://"+host)
		check(t, err)
		defer c.Close()
		if who, err := yonder.Invoke[string](t.Context(), c, "who"); !strings.HasPrefix(who, tt.want) || err != nil {
			t.Errorf("%q, %v; want %q", who, err, tt.want)
		}
	}
}

// connect makes a connection, and says whether its session was resumed and which certificate the
// server has shown.
func connect(t *testing.T, host string, config *tlsconn.Config) (resumed bool, pin string, err error) {
	t.Helper()
	conn, err := config.NetDial(t.Context(), "tls", host)
	if err != nil {
		return false, "", err
	}
	defer conn.Close()
	c := yonder.NewClient(conn)
	defer c.Close()
	if _, err := yonder.Invoke[string](t.Context(), c, "who"); err != nil { // and reads the session's ticket
		return false, "", err
	}
	s := tlsconn.State(conn)
	return s.DidResume, tlsconn.Pin(s.PeerCertificates[0]), nil
}

// Sessions are resumed, and files read again, without a restart of either end.
func TestReload(t *testing.T) {
	d, a := newDir(t), newAuthority(t)
	d.issue(a, "server")
	d.issue(a, "ann")
	ca, roots := d.write("ca.pem", a.pem()), d.write("roots.pem", a.pem())
	var log safeBuffer
	server := &tlsconn.Config{
		Certificate: d.file("server.pem"), Key: d.file("server.key"), CA: ca, Reload: time.Nanosecond,
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
	}
	host := serve(t, whoServer(), server)
	client := &tlsconn.Config{Certificate: d.file("ann.pem"), Key: d.file("ann.key"), CA: roots, Reload: time.Nanosecond}
	resumed, first, err := connect(t, host, client)
	if resumed || err != nil {
		t.Fatal(resumed, err)
	}
	if resumed, pin, err := connect(t, host, client); !resumed || pin != first || err != nil {
		t.Errorf("a second connection: resumed %v, %v", resumed, err)
	}

	// Half of a new pair is there: the old one remains, and the operator hears of it.
	cert, key := a.issue("server")
	d.write("server.pem", cert)
	if _, pin, err := connect(t, host, &tlsconn.Config{Certificate: d.file("ann.pem"), Key: d.file("ann.key"), CA: roots}); pin != first || err != nil {
		t.Errorf("with half of a new pair: %v", err)
	}
	if !strings.Contains(log.String(), "the ones from before remain") || strings.Contains(log.String(), "PRIVATE") {
		t.Error(log.String())
	}
	d.write("server.key", key)
	if _, pin, err := connect(t, host, &tlsconn.Config{Certificate: d.file("ann.pem"), Key: d.file("ann.key"), CA: roots}); pin == first || err != nil {
		t.Errorf("with a new pair: %v", err)
	}

	// The server believes another authority now: sessions of the former one are not resumed.
	other := newAuthority(t)
	d.write("ca.pem", other.pem())
	if resumed, _, err := connect(t, host, client); err == nil {
		t.Errorf("a client of an authority that is not believed any more has come in, resumed %v", resumed)
	}
	d.issue(other, "ann")
	if resumed, _, err := connect(t, host, client); resumed || err != nil {
		t.Errorf("with a certificate of the new authority: resumed %v, %v", resumed, err)
	}

	// So does the client.
	d.write("roots.pem", other.pem())
	if _, _, err := connect(t, host, client); err == nil || !strings.Contains(err.Error(), "set CA") {
		t.Errorf("a server of an authority that is not believed any more: %v", err)
	}
	d.issue(other, "server")
	if resumed, _, err := connect(t, host, client); resumed || err != nil {
		t.Errorf("of the new one: resumed %v, %v", resumed, err)
	}
}

func TestPins(t *testing.T) {
	d, a := newDir(t), newAuthority(t)
	cert, key := a.issue("server")
	own, err := tls.X509KeyPair(cert, key)
	check(t, err)
	host := serve(t, whoServer(), &tlsconn.Config{Own: &own})
	pin := tlsconn.Pin(own.Leaf)
	if _, _, err := connect(t, host, &tlsconn.Config{Pins: []string{"sha256//none", pin}}); err != nil {
		t.Error(err)
	}
	if _, _, err := connect(t, host, &tlsconn.Config{Pins: []string{"sha256//none"}}); err == nil || !strings.Contains(err.Error(), pin) {
		t.Error(err)
	}
	if _, _, err := connect(t, host, &tlsconn.Config{}); err == nil || !strings.Contains(err.Error(), "set CA, or Pins") {
		t.Error(err)
	}
	if _, _, err := connect(t, host, &tlsconn.Config{CA: d.write("ca.pem", a.pem()), ServerName: "elsewhere.example"}); err == nil || !strings.Contains(err.Error(), "elsewhere.example") {
		t.Error(err)
	}
	if c, err := tlsconn.Dial(t.Context(), "tls://"+host); err == nil {
		c.Close()
		t.Error("the system believes an authority that was made for this test")
	}
}

// An older TLS, and a protocol that is not served, are refused in the handshake.
func TestHandshake(t *testing.T) {
	cert, key := newAuthority(t).issue("server")
	own, err := tls.X509KeyPair(cert, key)
	check(t, err)
	host := serve(t, whoServer(), &tlsconn.Config{Own: &own})
	for _, tt := range []struct {
		config *tls.Config
		want   string // a part of the error; "": there is none
		alpn   string
	}{
		{&tls.Config{MaxVersion: tls.VersionTLS12}, "protocol version", ""},
		{&tls.Config{NextProtos: []string{"h2"}}, "no application protocol", ""},
		{&tls.Config{NextProtos: []string{"h2", "http/1.1"}}, "", "http/1.1"},
		{&tls.Config{NextProtos: []string{"yonder"}}, "", "yonder"},
		{&tls.Config{}, "", ""},
	} {
		tt.config.InsecureSkipVerify = true
		conn, err := tls.Dial("tcp", host, tt.config)
		if err == nil {
			if got := conn.ConnectionState().NegotiatedProtocol; got != tt.alpn {
				t.Errorf("%q, want %q", got, tt.alpn)
			}
			conn.Close()
		}
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v, want %q", err, tt.want)
		}
	}
}

func TestMistakes(t *testing.T) {
	d, a := newDir(t), newAuthority(t)
	d.issue(a, "server")
	d.issue(a, "other")
	cert, key := a.issue("own")
	own, err := tls.X509KeyPair(cert, key)
	check(t, err)
	for _, tt := range []struct {
		config *tlsconn.Config
		want   string
	}{
		{&tlsconn.Config{}, "a server needs a certificate"},
		{&tlsconn.Config{Certificate: d.file("none.pem"), Key: d.file("server.key")}, "none.pem"},
		{&tlsconn.Config{Certificate: d.file("server.pem"), Key: d.file("other.key")}, "does not match"},
		{&tlsconn.Config{Certificate: d.file("server.pem"), Key: d.file("server.key"), Own: &own}, "two certificates"},
		{&tlsconn.Config{Own: &own, CA: d.file("server.key")}, "no certificate in PEM"},
	} {
		if _, err := tt.config.Listen("127.0.0.1:0"); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v; want %q", err, tt.want)
		}
	}
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer plain.Close()
	go func() { // ends with the listener
		for {
			conn, err := plain.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, "hello, I am not what you take me for\n")
			conn.Close()
		}
	}()
	if _, err := tlsconn.Dial(t.Context(), "tls://"+plain.Addr().String()); err == nil || !strings.Contains(err.Error(), "does not speak TLS") {
		t.Error(err)
	}
	if _, err := tlsconn.Dial(t.Context(), "tls://nowhere"); err == nil || !strings.Contains(err.Error(), "use tls://host:port") {
		t.Error(err)
	}
	if _, err := tlsconn.NetDial(t.Context(), "tcp", plain.Addr().String()); err != nil {
		t.Error(err)
	}
}

// A peer that does not finish its handshake is closed when its time is up.
func TestSilentHandshake(t *testing.T) {
	cert, key := newAuthority(t).issue("server")
	own, err := tls.X509KeyPair(cert, key)
	check(t, err)
	srv := whoServer()
	srv.Limits.FirstByte = 50 * time.Millisecond
	host := serve(t, srv, &tlsconn.Config{Own: &own})
	conn, err := net.Dial("tcp", host)
	check(t, err)
	defer conn.Close()
	conn.Write([]byte{0x16, 3, 1}) // of a record
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := conn.Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d, %v", n, err)
	}
}

func TestState(t *testing.T) {
	for _, conn := range []any{nil, &net.TCPConn{}, new(http.Request), struct{}{}} {
		if s := tlsconn.State(conn); s != nil {
			t.Errorf("%T: %v", conn, s)
		}
	}
	if diff := cmp.Diff((*auth.Identity)(nil), must(tlsconn.Identify(t.Context(), yonder.CallInfo{}))); diff != "" {
		t.Error(diff)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// BenchmarkHandshake is what a connection costs both ends together, with its first call.
func BenchmarkHandshake(b *testing.B) {
	cert, key := newAuthority(b).issue("server")
	own, err := tls.X509KeyPair(cert, key)
	check(b, err)
	srv := whoServer()
	srv.Logger = slog.New(slog.DiscardHandler)
	l, err := (&tlsconn.Config{Own: &own}).Listen("127.0.0.1:0")
	check(b, err)
	go srv.Serve(l) // ends with Close
	defer srv.Close()
	pins := []string{tlsconn.Pin(own.Leaf)}
	for _, again := range []bool{false, true} {
		b.Run(map[bool]string{false: "whole", true: "resumed"}[again], func(b *testing.B) {
			config := &tlsconn.Config{Pins: pins}
			for b.Loop() {
				if !again {
					config = &tlsconn.Config{Pins: pins}
				}
				conn, err := config.NetDial(b.Context(), "tls", l.Addr().String())
				check(b, err)
				c := yonder.NewClient(conn)
				_, err = yonder.Invoke[string](b.Context(), c, "who")
				check(b, err)
				c.Close()
			}
		})
	}
}

// A connection that was lost goes on only for who had it: with the certificate that was shown then,
// and over TLS.
func TestResume(t *testing.T) {
	d, a := newDir(t), newAuthority(t)
	for _, name := range []string{"server", "ann", "bob"} {
		d.issue(a, name)
	}
	ca := d.write("ca.pem", a.pem())
	as := func(name string) *tlsconn.Config {
		if name == "" {
			return &tlsconn.Config{CA: ca}
		}
		return &tlsconn.Config{CA: ca, Certificate: d.file(name + ".pem"), Key: d.file(name + ".key")}
	}
	for _, tt := range []struct {
		first, then string
		same        bool
	}{{"ann", "ann", true}, {"", "", true}, {"ann", "bob", false}, {"ann", "", false}, {"", "ann", false}} {
		t.Run(tt.first+" then "+tt.then, func(t *testing.T) {
			srv := whoServer()
			srv.Resume = &yonder.Resumption{Window: time.Minute, Secret: rand.Text, Identity: tlsconn.Fingerprint}
			began, release := make(chan bool, 1), make(chan bool)
			srv.Register("wait", func(ctx context.Context) error {
				began <- true
				select {
				case <-release:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
			host := serve(t, srv, &tlsconn.Config{CA: ca, Optional: true, Certificate: d.file("server.pem"), Key: d.file("server.key")})
			var mu sync.Mutex
			var conns []net.Conn
			dial := func(ctx context.Context, network, address string) (net.Conn, error) {
				mu.Lock()
				defer mu.Unlock()
				who := tt.first
				if len(conns) > 0 {
					who = tt.then
				}
				conn, err := as(who).NetDial(ctx, network, address)
				conns = append(conns, conn)
				return conn, err
			}
			c, err := (&yonder.Dialer{NetDial: dial, Resume: time.Minute}).Dial(t.Context(), "tls://"+host)
			check(t, err)
			defer c.Close()
			who, err := yonder.Invoke[string](t.Context(), c, "who")
			check(t, err)
			done := make(chan error)
			go func() { done <- c.Call(t.Context(), yonder.NewCall("wait")) }()
			<-began
			mu.Lock()
			conns[0].(interface{ NetConn() net.Conn }).NetConn().Close()
			mu.Unlock()
			if !tt.same {
				if err := <-done; yonder.CodeOf(err) != yonder.Unavailable || !strings.Contains(err.Error(), "nothing to resume") || !yonder.MayHaveRun(err) {
					t.Errorf("the call: %v", err)
				}
				return
			}
			again, err := yonder.Invoke[string](t.Context(), c, "who")
			if again != who || err != nil {
				t.Errorf("%q is %q now, %v", who, again, err)
			}
			close(release)
			if err := <-done; err != nil {
				t.Errorf("the call: %v", err)
			}
		})
	}
}
