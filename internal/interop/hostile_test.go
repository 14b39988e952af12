package interop

import (
	"bytes"
	"encoding/gob"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/jsonrpc"
	"github.com/yonder-rpc/yonder/web"
)

// gobRequest is what a client of net/rpc begins with: the definition of a type, the header of a
// call, and the argument.
func gobRequest() []byte {
	var b bytes.Buffer
	e := gob.NewEncoder(&b)
	e.Encode(struct {
		ServiceMethod string
		Seq           uint64
	}{"HelloService.Hello", 1})
	e.Encode("x")
	return b.Bytes()
}

// sessionRequest is what the article's client begins with.
func sessionRequest() []byte {
	var b bytes.Buffer
	toyWrite(&b, toyMessage{"HelloService.Hello", []any{"x"}})
	return b.Bytes()
}

// upgrade begins a WebSocket at a path.
func upgrade(path string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
}

const (
	preface = "\xd9yonder\x01"
	post    = "POST /jsonrpc HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
	connect = "CONNECT /_goRPC_ HTTP/1.0\r\n\r\n"
	exabyte = "\x7f\xff\xff\xff\xff\xff\xff\xff"
)

// beginnings are how connections of each protocol begin, before they go wrong.
func beginnings() map[string]string {
	request, message := gobRequest(), sessionRequest()
	return map[string]string{
		"nothing":                    "",
		"no protocol":                "\x16\x03\x01",
		"native":                     preface,
		"half a preface":             preface[:4],
		"net/rpc, half a message":    string(request[:10]),
		"net/rpc, a call":            string(request),
		"net/rpc, a giant message":   string(request) + "\xfc\x3f\xff\xff\xff",
		"net/rpc, an absurd message": string(request) + "\xf8" + exabyte,
		"net/rpc over HTTP":          connect,
		"net/rpc over HTTP, giant":   connect + string(request) + "\xfc\x3f\xff\xff\xff",
		"native over HTTP":           connect + preface,
		"HTTP over HTTP":             connect + post,
		"session, half a length":     string(message[:2]),
		"session, half a message":    string(message[:20]),
		"session, a giant message":   "\x03\xff\xff\xff" + string(message[4:20]),
		"session, too large a one":   string(message) + "\xff\xff\xff\xff",
		"JSON, half an object":       `{"jsonrpc":"2.0","method":"`,
		"JSON, deep":                 strings.Repeat(`[{"a":`, 4000),
		"JSON, half a header":        "Content-Le",
		"JSON, a giant header":       "Content-Length: 60000000\r\n\r\n{\"a\":\"",
		"JSON, an absurd header":     "Content-Length: 99999999999999999999\r\n\r\n",
		"HTTP, half a header":        post + "X-Header: ",
		"HTTP, a giant body":         post + "Content-Length: 60000000\r\n\r\n{\"a\":\"",
		"HTTP, an absurd body":       post + "Content-Length: 9000000000000000000\r\n\r\n",
		"HTTP, chunks":               post + "Transfer-Encoding: chunked\r\n\r\n7fffffffffffffff\r\n{\"a\":\"",
		"WebSocket":                  upgrade("/yonder"),
		"WebSocket, giant":           upgrade("/yonder") + "\x82\xff" + exabyte + "mask",
		"JSON over a WebSocket":      upgrade("/jsonrpc"),
		"JSON, giant, WebSocket":     upgrade("/jsonrpc") + "\x81\xff\x00\x00\x00\x00\x03\x00\x00\x00mask{",
	}
}

// Peers that begin in the way of each protocol and then say nonsense, or nothing, or hardly
// anything, cost little, disturb nobody, and are got rid of.
func TestHostile(t *testing.T) {
	const patience = 2 * time.Second // the server's; friends must answer in that time, too
	json := &jsonrpc.Config{BodyTimeout: 3 * patience}
	p := open(t, &web.Config{JSONRPC: json.Handler}, yonder.Limits{FirstByte: patience, KeepAlive: patience})
	friends := make(map[string]hello)
	for _, k := range kinds {
		friends[k.name] = k.dial(t, p.address)
		friends[k.name].check(t, k.name, "before")
	}

	noise := make([]byte, 16<<10) // JSON-RPC is content with 4 KiB a second
	source := rand.NewChaCha8([32]byte{1})
	source.Read(noise)
	then := map[string]func(conn net.Conn){
		"noise":   func(conn net.Conn) { conn.Write(noise) },
		"silence": func(net.Conn) {},
		"slowness": func(conn net.Conn) {
			tick := time.NewTicker(50 * time.Millisecond)
			defer tick.Stop()
			for range tick.C { // until the server hangs up
				if _, err := conn.Write([]byte("a")); err != nil {
					return
				}
			}
		},
	}
	runtime.GC()
	heap := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(heap)
	before := heap[0].Value.Uint64()

	var attacks sync.WaitGroup
	for name, begin := range beginnings() {
		for how, goOn := range then {
			for range 2 {
				attacks.Go(func() {
					conn, err := net.Dial("tcp", p.address)
					if err != nil {
						t.Error(err)
						return
					}
					defer conn.Close()
					began := time.Now()
					conn.SetDeadline(began.Add(15 * patience))
					attacks.Go(func() {
						io.WriteString(conn, begin)
						goOn(conn)
					})
					if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("%s, then %s: the server has not hung up after %v", name, how, time.Since(began))
					} else if took := time.Since(began); took > 3*patience {
						t.Logf("%s, then %s: the server hung up after %v", name, how, took)
					}
				})
			}
		}
	}
	done := make(chan struct{})
	go func() { attacks.Wait(); close(done) }()
	var most uint64
	for over := false; !over; {
		select {
		case <-done:
			over = true
		default:
		}
		for name, h := range friends {
			over = !h.check(t, name, "meanwhile") || over
		}
		metrics.Read(heap)
		most = max(most, heap[0].Value.Uint64())
	}
	<-done
	if most > before+64<<20 {
		t.Errorf("the heap grew from %d to %d bytes", before, most)
	}
	t.Logf("the heap grew from %d to %d bytes", before, most)
	for _, k := range kinds {
		friends[k.name].check(t, k.name, "after")
		k.dial(t, p.address).check(t, k.name, "later")
	}
}
