package yonder_test

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/gob"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/auth"
	"github.com/yonder-rpc/yonder/internal/wire"
	"github.com/yonder-rpc/yonder/jsonrpc"
	"github.com/yonder-rpc/yonder/net/rpc"
	"github.com/yonder-rpc/yonder/session"
	"github.com/yonder-rpc/yonder/tlsconn"
	"github.com/yonder-rpc/yonder/web"
)

// A strangeness is something that a peer without credentials can do with a connection, and keep it
// open.
type strangeness struct {
	name string
	n    int // connections
	do   func(p *rawPeer)
	over *tlsconn.Config // nil: no TLS
}

// half is how much of a message of 60 MiB has been sent when it stops.
const half = 1 << 20

// strangers are the rows of the table in SECURITY.md.
func strangers(secure *tlsconn.Config) []strangeness {
	gobOf := func(values ...any) string {
		var b bytes.Buffer
		enc := gob.NewEncoder(&b)
		for _, v := range values {
			enc.Encode(v)
		}
		return b.String()
	}
	type RPCData struct {
		Func string
		Args []any
	}
	call := `{"jsonrpc":"2.0","method":"secret","params":["x"],"id":1}` + "\n"
	post := fmt.Sprintf("POST /jsonrpc HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(call), call)
	filler := strings.Repeat("a", half)
	frames := func(message string, size int) string {
		return string([]byte{byte(size >> 24), byte(size >> 16), byte(size >> 8), byte(size)}) + message
	}
	big := gobOf(RPCData{"secret", []any{strings.Repeat("a", 60<<20)}})
	netrpcBig := func() string {
		whole := gobOf(Request{"secret", 1}, strings.Repeat("a", 60<<20))
		return whole[:len(whole)-60<<20]
	}()
	return []strangeness{
		{name: "says nothing", n: 100, do: func(p *rawPeer) {}},
		{"TLS: half a record", 100, func(p *rawPeer) { p.write("\x16\x03\x01\x40\x00\x01") }, secure},
		{"TLS, native: has greeted", 100, func(p *rawPeer) {
			p.conn = tls.Client(p.conn, &tls.Config{InsecureSkipVerify: true})
			p.greet()
			p.until(wire.Hello)
		}, secure},
		{name: "native: has greeted", n: 100, do: func(p *rawPeer) { p.greet(); p.until(wire.Hello) }},
		{name: "native: 100 calls were refused", n: 100, do: func(p *rawPeer) {
			p.greet()
			p.send(wire.Header{Type: wire.Name, ID: 0}, wire.AppendName(nil, "secret", "(string)")...)
			for i := range uint32(100) {
				p.send(wire.Header{Type: wire.Request, ID: i<<16 | 1}, 0, 0x61, 'x')
				p.until(wire.Response)
			}
		}},
		{name: "native: 1 MiB of a call of 60 MiB", n: 10, do: func(p *rawPeer) {
			p.greet()
			p.send(wire.Header{Type: wire.Name, ID: 0}, wire.AppendName(nil, "secret", "(string)")...)
			p.send(wire.Header{Type: wire.Request, Flags: wire.More, ID: 1}, wire.AppendTotal([]byte{0}, 60<<20)...)
			for range half / (60 << 10) {
				p.send(wire.Header{Type: wire.Part, Flags: wire.More, ID: 1}, append([]byte{0}, filler[:60<<10]...)...)
			}
		}},
		{name: "native: names and signatures until no more are kept", n: 2, do: func(p *rawPeer) {
			p.greet()
			for i := range 600 { // of 30 KiB each
				p.send(wire.Header{Type: wire.Name, ID: uint32(i)}, wire.AppendName(nil, "p", strings.Repeat("x", 30<<10))...)
			}
			p.send(wire.Header{Type: wire.Ping}, make([]byte, 8)...)
			p.until(wire.Pong)
		}},
		{name: "JSON-RPC: a call was refused", n: 100, do: func(p *rawPeer) { p.write(call); bufio.NewReader(p.conn).ReadString('\n') }},
		{name: "JSON-RPC: 1 MiB of a call that does not end", n: 10, do: func(p *rawPeer) {
			p.write(call[:len(call)-12], filler)
		}},
		{name: "HTTP: a call was refused", n: 100, do: func(p *rawPeer) {
			p.write(post)
			r := bufio.NewReader(p.conn)
			for line := ""; !strings.HasPrefix(line, "{"); {
				var err error
				if line, err = r.ReadString('\n'); err != nil {
					p.t.Error(err)
					return
				}
			}
		}},
		{name: "HTTP: half a header", n: 100, do: func(p *rawPeer) { p.write(post[:60]) }},
		{name: "HTTP: 1 MiB of a body of 60 MiB", n: 10, do: func(p *rawPeer) {
			p.write("POST /jsonrpc HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 62914560\r\n\r\n", filler)
		}},
		{name: "WebSocket: is open", n: 100, do: func(p *rawPeer) {
			p.write("GET /yonder HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
			bufio.NewReaderSize(p.conn, 16).ReadString('\n')
		}},
		{name: "net/rpc: a call was refused", n: 100, do: func(p *rawPeer) {
			p.write(gobOf(Request{"secret", 1}, "x"))
			io.ReadFull(p.conn, make([]byte, 40))
		}},
		{name: "net/rpc: 1 MiB of a call of 60 MiB", n: 10, do: func(p *rawPeer) { p.write(netrpcBig, filler) }},
		{name: "session: a call was refused", n: 100, do: func(p *rawPeer) {
			message := gobOf(RPCData{"secret", []any{"x"}})
			p.write(frames(message, len(message)))
			io.ReadFull(p.conn, make([]byte, 40))
		}},
		{name: "session: 1 MiB of a call of 60 MiB", n: 10, do: func(p *rawPeer) { p.write(frames(big[:half], len(big))) }},
	}
}

// Request is net/rpc's header, by its name.
type Request struct {
	ServiceMethod string
	Seq           uint64
}

// What a connection costs a server whose calls all need credentials, by a peer that has none, is
// at most what SECURITY.md says: goroutines, and memory, of which a little is this end's.
func TestStrangers(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector's memory is counted, too")
	}
	text, err := os.ReadFile("SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	type bound struct{ goroutines, kib float64 }
	bounds := make(map[string]bound)
	for _, row := range regexp.MustCompile(`(?m)^\| ([^|]+) \| (\d+) \| ([\d,]+) KiB \|`).FindAllStringSubmatch(string(text), -1) {
		goroutines, _ := strconv.ParseFloat(row[2], 64)
		kib, _ := strconv.ParseFloat(strings.ReplaceAll(row[3], ",", ""), 64)
		bounds[row[1]] = bound{goroutines, kib}
	}
	cert := selfSigned(t)
	for _, s := range strangers(&tlsconn.Config{Own: &cert}) {
		t.Run(s.name, func(t *testing.T) {
			tokens := auth.NewTokens(map[string]string{"a-secret-of-the-server": "it"})
			srv := &yonder.Server{
				Protocols:    []yonder.Protocol{rpc.Protocol, jsonrpc.Protocol, session.Protocol, web.Protocol},
				Interceptors: []yonder.Interceptor{auth.Require(tokens.Identify)},
				Limits:       yonder.Limits{FirstByte: time.Minute, KeepAlive: time.Minute}, // not while this measures
				Logger:       slog.New(slog.DiscardHandler),
			}
			srv.Register("secret", func(string) { t.Error("it was called") })
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			host := l.Addr().String()
			if s.over != nil {
				config, err := s.over.Server()
				if err != nil {
					t.Fatal(err)
				}
				l = tls.NewListener(l, config)
			}
			served := make(chan error, 1)
			go func() { served <- srv.Serve(l) }() // ends with Close
			defer func() {
				srv.Close()
				<-served
			}()
			open := func(n int) (conns []net.Conn) {
				for range n {
					conn, err := net.Dial("tcp", host)
					if err != nil {
						t.Fatal(err)
					}
					conns = append(conns, conn)
					s.do(&rawPeer{t: t, conn: conn})
				}
				return conns
			}
			first := open(1) // what a server has once
			goroutines, memory := settled()
			conns := open(s.n)
			g, m := settled()
			bound, ok := bounds[s.name]
			have := strangerCost(g-goroutines, m-memory, s.n)
			if !ok {
				t.Errorf("SECURITY.md does not say; it is %v", have)
			} else if have.goroutines > bound.goroutines+0.1 || have.kib > bound.kib || bound.kib > 64 && have.kib < bound.kib/8 {
				t.Errorf("it is %v, and SECURITY.md says at most %v", have, bound)
			}
			t.Logf("a connection: %.1f goroutines, %.1f KiB", have.goroutines, have.kib)
			for _, conn := range append(conns, first...) {
				conn.Close()
			}
		})
	}
}

// selfSigned returns a certificate.
func selfSigned(tb testing.TB) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		tb.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// BenchmarkRefused is what it takes to say no to a stranger, both ends together.
func BenchmarkRefused(b *testing.B) {
	tokens := auth.NewTokens(map[string]string{"a-secret-of-the-server": "it"})
	srv := &yonder.Server{
		Protocols:    []yonder.Protocol{rpc.Protocol, jsonrpc.Protocol, session.Protocol},
		Interceptors: []yonder.Interceptor{auth.Require(tokens.Identify)},
		Logger:       slog.New(slog.DiscardHandler),
	}
	srv.Register("secret", func(string) {})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go srv.Serve(l) // ends with Close
	defer srv.Close()
	guess := yonder.Dialer{Interceptors: []yonder.Interceptor{auth.Bearer("a-guess-of-the-client-s")}}
	for _, bb := range []struct {
		name string
		dial func() (*yonder.Client, error)
	}{
		{"native", func() (*yonder.Client, error) { return guess.Dial(b.Context(), l.Addr().String()) }},
		{"jsonrpc", func() (*yonder.Client, error) {
			return (&jsonrpc.Dialer{Client: guess}).Dial(b.Context(), l.Addr().String())
		}},
		{"netrpc", func() (*yonder.Client, error) {
			over, err := new(rpc.Dialer).Transport(b.Context(), "tcp://"+l.Addr().String())
			if err != nil {
				return nil, err
			}
			return guess.NewClientOver(over), nil
		}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			c, err := bb.dial()
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			b.ReportAllocs()
			for b.Loop() {
				if err := c.Call(b.Context(), yonder.NewCall("secret", "x")); yonder.CodeOf(err) != yonder.Unauthenticated {
					b.Fatal(err)
				}
			}
		})
	}
}

func strangerCost(goroutines, memory, n int) struct{ goroutines, kib float64 } {
	return struct{ goroutines, kib float64 }{float64(goroutines) / float64(n), float64(memory) / float64(n) / 1024}
}

// settled waits until neither goroutines nor memory change, and returns how much of them there is.
func settled() (goroutines, memory int) {
	same := 0
	for deadline := time.Now().Add(patience); same < 3 && time.Now().Before(deadline); {
		<-time.After(20 * time.Millisecond)
		runtime.GC()
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		g, m := runtime.NumGoroutine(), int(stats.HeapAlloc+stats.StackInuse)
		if g == goroutines && max(m-memory, memory-m) < 64<<10 {
			same++
		} else {
			same = 0
		}
		goroutines, memory = g, m
	}
	return goroutines, memory
}
