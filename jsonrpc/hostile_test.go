package jsonrpc_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/jsonrpc"
)

// What cannot be read is refused with a reason. Where no header says where the next
// message begins, the connection ends.
func TestHostile(t *testing.T) {
	large := `{"jsonrpc":"2.0","error":{"code":-32008,"message":"yonder: the message is larger than the limit of 100000 bytes","data":{"code":"resource_exhausted"}},"id":%s}`
	largeBatch, largeCall := fmt.Sprintf(large, "null"), fmt.Sprintf(large, "7")
	for _, e := range []struct {
		name, send, want string
		goesOn           bool // on a stream, too
	}{
		{"nested arrays", strings.Repeat("[", 100_001) + strings.Repeat("]", 100_001), largeBatch, true},
		{"nested objects", strings.Repeat(`{"id":7,"a":`, 20_001) + "1" + strings.Repeat("}", 20_001), largeCall, true},
		{"a bracket that does not fit, 20,000 deep", strings.Repeat("[", 20_000) + "}", parseError, false},
		{"a huge array", "[" + strings.Repeat("1,", 60_000) + "1]", largeBatch, true},
		{"a huge string", `{"a":"` + strings.Repeat("a", 200_000) + `","id":7}`, largeCall, true},
		{"a huge number", `{"n":` + strings.Repeat("1", 200_000) + `, "id" : 7 , "b":{"id":8}}`, largeCall, true},
		{"a huge name", `{"id":7,"` + strings.Repeat("a", 200_000) + `":[{"id":8}]}`, largeCall, true},
		{"huge, and no JSON", "[" + strings.Repeat("1,", 60_000) + "]", parseError, false},
		{"not UTF-8", "{\"jsonrpc\":\"2.0\",\"method\":\"a\xff\",\"id\":1}", parseError, true},
		{"a surrogate", "{\"jsonrpc\":\"2.0\",\"method\":\"\xed\xa0\x80\",\"id\":1}", parseError, true},
		{"control characters", "{\"a\":\"\x01\"}", parseError, false},
		{"a closing bracket", "{]", parseError, false},
		{"garbage", "{ hello", parseError, false},
		{"half a word", "[nul]", parseError, false},
		{"a leading zero", "[01]", parseError, false},
		{"HTTP in the middle", "{}GET / HTTP/1.1\r\n", invalidRequest, false},
	} {
		t.Run(e.name, func(t *testing.T) {
			noLeaks(t)
			srv := specServer()
			srv.Limits.MaxMessage = 100_000
			address := serve(t, srv)
			p := dialPeer(t, address)
			go io.WriteString(p.conn, e.send) // ends when the server has read or gone
			p.want(e.want)
			if e.goesOn {
				p.send(`{"method":"sum","id":1}`)
				p.want(`{"id":1,"result":0,"error":null}`)
			} else if e.want == invalidRequest {
				p.want(parseError)
			}
			if e.want == invalidRequest {
				return
			}
			if !e.goesOn {
				p.ends()
			}

			p = dialPeer(t, address)
			p.header = true
			p.send(e.send)
			p.want(e.want)
			p.send(`{"method":"sum","id":1}`)
			p.want(`{"id":1,"result":0,"error":null}`)
		})
	}
}

// A notification that is too large is not answered, nor what has two ids, or a huge one.
func TestTooLarge(t *testing.T) {
	noLeaks(t)
	srv := specServer()
	srv.Limits.MaxMessage = 2000
	address := serve(t, srv)
	huge := `"` + strings.Repeat("x", 3000) + `"`
	for _, send := range []string{
		`{"jsonrpc":"2.0","method":"sum","params":[` + huge + `]}`,
		`{"jsonrpc":"2.0","id":1,"method":"sum","params":[` + huge + `],"id":1}`,
		`{"jsonrpc":"2.0","method":"sum","id":` + huge + `}`,
		`{"jsonrpc":"2.0","method":"sum","id":{"a":1},"params":[` + huge + `]}`,
	} {
		for _, header := range []bool{false, true} {
			p := dialPeer(t, address)
			p.header = header
			p.send(send)
			p.send(`{"method":"sum","id":1}`)
			p.want(`{"id":1,"result":0,"error":null}`)
		}
	}
}

// An answer that is too large fails its call, and no other.
func TestTooLargeAnswer(t *testing.T) {
	for _, mode := range []string{"tcp", "unix", "header"} {
		t.Run(mode, func(t *testing.T) {
			noLeaks(t)
			srv := new(yonder.Server)
			srv.Register("make", func(n int) string { return strings.Repeat("x", n) })
			finish := make(chan struct{})
			srv.Register("wait", func() { <-finish })
			c := client(t, mode, srv, &jsonrpc.Dialer{Client: yonder.Dialer{Limits: yonder.Limits{MaxMessage: 2000}}})
			waits := make(chan error, 1)
			go func() { waits <- c.Call(t.Context(), yonder.NewCall("wait")) }()
			for _, n := range []int{10, 5_000, 10, 1 << 20, 10} {
				s, err := yonder.Invoke[string](t.Context(), c, "make", n)
				if n == 10 && (len(s) != 10 || err != nil) || n > 10 && yonder.CodeOf(err) != yonder.ResourceExhausted {
					t.Errorf("%d bytes: %d, %v", n, len(s), err)
				}
			}
			close(finish)
			if err := <-waits; err != nil {
				t.Errorf("the call in flight: %v", err)
			}
		})
	}
}

// What is nested too deeply fails the call that it is a part of; all others go on.
func TestTooDeep(t *testing.T) {
	noLeaks(t)
	address := serve(t, specServer())
	deep := strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000)
	for _, e := range []struct{ name, send, want string }{
		{"a parameter", `{"jsonrpc":"2.0","method":"sum","params":[` + deep + `],"id":1}`,
			`{"jsonrpc":"2.0","error":{"code":-32600,"message":"Invalid Request: nested deeper than 10000 levels"},"id":1}`},
		{"named", `{"jsonrpc":"2.0","method":"sum","params":` + strings.Repeat(`{"a":`, 20_000) + "1" + strings.Repeat(`}`, 20_000) + `,"id":"x"}`,
			`{"jsonrpc":"2.0","error":{"code":-32600,"message":"Invalid Request: nested deeper than 10000 levels"},"id":"x"}`},
		{"version 1.0", `{"method":"sum","params":[` + deep + `],"id":1}`,
			`{"id":1,"result":null,"error":"Invalid Request: nested deeper than 10000 levels"}`},
		{"an id of version 1.0", `{"method":"sum","id":` + deep + `}`,
			`{"id":null,"result":null,"error":"Invalid Request: nested deeper than 10000 levels"}`},
		{"an id", `{"jsonrpc":"2.0","method":"sum","id":` + deep + `}`, invalidRequest},
		{"a notification", `{"jsonrpc":"2.0","method":"sum","params":[` + deep + `]}`, ""},
		{"a request in a batch", `[{"jsonrpc":"2.0","method":"sum","params":[1,2],"id":1},{"jsonrpc":"2.0","method":"sum","params":[` + deep + `],"id":2},{"jsonrpc":"2.0","method":"sum","params":[` + deep + `]}]`,
			`[{"jsonrpc":"2.0","result":3,"id":1},{"jsonrpc":"2.0","error":{"code":-32600,"message":"Invalid Request: nested deeper than 10000 levels"},"id":2}]`},
		{"a batch", deep, "[" + invalidRequest + "]"},
	} {
		for _, header := range []bool{false, true} {
			p := dialPeer(t, address)
			p.header = header
			p.send(e.send)
			if e.want != "" {
				p.want(e.want)
			}
			p.send(`{"method":"sum","id":1}`)
			p.want(`{"id":1,"result":0,"error":null}`)
			if t.Failed() {
				t.Fatalf("%s, header %v", e.name, header)
			}
		}
	}
}

// An answer that cannot be read fails its call, and an item its stream: the connection goes on.
func TestUnreadableAnswer(t *testing.T) {
	deep := strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000)
	for name, bad := range map[string]string{"nested deeper than 10000 levels": deep, "it is not UTF-8": "\"\xff\""} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			near, far := net.Pipe()
			c := new(jsonrpc.Dialer).NewClient(near)
			p := newPeer(t, far)
			ask := json.NewDecoder(p.in)
			served := make(chan struct{})
			go func() { // ends with the last answer
				defer close(served)
				for _, answer := range []string{
					`{"jsonrpc":"2.0","result":` + bad + `,"id":1}`,
					`{"jsonrpc":"2.0","result":{"subscription":7},"id":2}`,
					`{"jsonrpc":"2.0","method":"rpc.stream","params":{"subscription":7,"items":[1]}}{"jsonrpc":"2.0","method":"rpc.stream","params":{"subscription":7,"items":[` + bad + `]}}`,
					`{"jsonrpc":"2.0","result":3,"id":3}`,
				} {
					if answer[:20] != `{"jsonrpc":"2.0","me` {
						var request any
						if err := ask.Decode(&request); err != nil {
							t.Error(err)
						}
					}
					io.WriteString(far, answer)
					if strings.Contains(answer, `"items":[`+bad) {
						var unsubscribe struct{ Method string }
						if ask.Decode(&unsubscribe); unsubscribe.Method != "rpc.unsubscribe" {
							t.Errorf("%+v", unsubscribe)
						}
					}
				}
			}()
			_, err := yonder.Invoke[any](t.Context(), c, "x")
			want := `yonder: call "x": the answer cannot be read: ` + name
			if err == nil || err.Error() != want || yonder.CodeOf(err) != yonder.Internal {
				t.Errorf("got %v\nwant %s", err, want)
			}
			numbers, err := yonder.Invoke[iter.Seq2[int, error]](t.Context(), c, "numbers")
			if err != nil {
				t.Fatal(err)
			}
			got := 0
			for n, why := range numbers {
				got += n
				err = why
			}
			want = `yonder: stream of "numbers": an item cannot be read: ` + name
			if got != 1 || err == nil || err.Error() != want {
				t.Errorf("got %d, %v\nwant %s", got, err, want)
			}
			if n, err := yonder.Invoke[int](t.Context(), c, "x"); n != 3 || err != nil {
				t.Errorf("the next call: %d, %v", n, err)
			}
			<-served
			c.Close()
		})
	}
}

func TestHostileHeaders(t *testing.T) {
	noLeaks(t)
	srv := specServer()
	srv.Limits.MaxMessage = 1000
	address := serve(t, srv)
	for send, want := range map[string]string{
		"Content-Length: 99999999999999999999\r\n\r\n":                 "Parse error",
		"Content-Length: -1\r\n\r\n":                                   "Parse error",
		"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}":             "Parse error",
		"Content-Type: x\r\n\r\n{}":                                    "Parse error",
		"Content-Length\r\n\r\n{}":                                     "Parse error",
		"Content-Length: 1" + strings.Repeat(" ", 5000) + "\r\n\r\n{}": "Parse error",
		"Content-Hello: 1" + strings.Repeat("x", 5000):                 "Parse error",
	} {
		p := dialPeer(t, address)
		io.WriteString(p.conn, send)
		b, _ := io.ReadAll(p.in)
		if !strings.Contains(string(b), want) {
			t.Errorf("%.50q: %q", send, b)
		}
	}
}

// A message that comes too slowly ends its connection; one that takes long, but goes on,
// does not; nor does silence between messages.
func TestSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := specServer()
		srv.Logger = newLogger(t)
		srv.Protocols = []yonder.Protocol{jsonrpc.Protocol}
		p := pipePeer(t, srv)
		p.conn.SetDeadline(time.Time{})
		p.send(`{"method":"sum","id":1}`)
		p.want(`{"id":1,"result":0,"error":null}`)
		time.Sleep(time.Hour)
		p.send(`{"method":"sum","id":2,"x":"`)
		for range 40 {
			p.send(strings.Repeat("x", 8<<10))
			time.Sleep(time.Second)
		}
		p.send(`"}`)
		p.want(`{"id":2,"result":0,"error":null}`)
		began := time.Now()
		for {
			if _, err := p.conn.Write([]byte(" {"[min(1, time.Since(began)/1):][:1])); err != nil {
				break
			}
			time.Sleep(time.Second)
		}
		if took := time.Since(began); took < 15*time.Second || took > 20*time.Second {
			t.Errorf("a slow message was waited for %v", took)
		}
	})
}

// Who does not read its answers is not kept for long, nor at any price.
func TestNeverReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := new(yonder.Server)
		srv.Logger = newLogger(t)
		srv.Protocols = []yonder.Protocol{jsonrpc.Protocol}
		var made atomic.Int32
		srv.Register("large", func() string { made.Add(1); return strings.Repeat("x", 100<<10) })
		srv.Limits.MaxCalls = 10
		srv.Limits.MaxMessage = 1 << 20
		p := pipePeer(t, srv)
		p.conn.SetDeadline(time.Time{})
		began := time.Now()
		sent := 0
		for {
			if _, err := io.WriteString(p.conn, `{"jsonrpc":"2.0","method":"large","id":1}`); err != nil {
				break
			}
			sent++
		}
		if took := time.Since(began); took > time.Minute {
			t.Errorf("it took %v", took)
		}
		if made.Load() > 100 || sent > 1000 {
			t.Errorf("%d answers were made for %d requests", made.Load(), sent)
		}
	})
}

// Calls beyond the limit wait, and can be cancelled while they do.
func TestMaxCalls(t *testing.T) {
	noLeaks(t)
	srv := new(yonder.Server)
	srv.Limits.MaxCalls = 2
	running := make(chan struct{}, 10)
	srv.Register("hang", func(ctx context.Context) error {
		running <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	})
	p := dialPeer(t, serve(t, srv))
	for i := range 3 {
		p.send(fmt.Sprintf(`{"jsonrpc":"2.0","method":"hang","id":%d}`, i))
		if i < 2 {
			<-running
		}
	}
	p.send(`{"jsonrpc":"2.0","method":"rpc.cancel","params":{"id":2}}`)
	p.want(`{"jsonrpc":"2.0","error":{"code":-32001,"message":"yonder: the call was over before it began: context canceled","data":{"code":"canceled","causes":[{"message":"context canceled","is":["context.Canceled"]}]}},"id":2}`)
	p.send(`{"jsonrpc":"2.0","method":"rpc.cancel","params":{"id":1}}`)
	if got := p.read(); !strings.HasSuffix(got, `"id":1}`) {
		t.Error(got)
	}
	select {
	case <-running:
		t.Error("three calls ran at a time")
	default:
	}
}

// Calls that wait have no goroutines, in whatever form they come, and begin in the order in which
// they came. Those that are cancelled, late or unknown do not wait any longer.
func TestWaiting(t *testing.T) {
	call := func(n int, more string) string {
		return fmt.Sprintf(`{"jsonrpc":"2.0","method":"hang","params":[%d]%s}`, n, more)
	}
	over := func(code int, id string) string {
		words := map[int][2]string{-32001: {"canceled", "context canceled"}, -32004: {"deadline_exceeded", "context deadline exceeded"}}[code]
		name := map[int]string{-32001: "context.Canceled", -32004: "context.DeadlineExceeded"}[code]
		return fmt.Sprintf(`{"jsonrpc":"2.0","error":{"code":%d,"message":"yonder: the call was over before it began: %s","data":{"code":"%s","causes":[{"message":"%s","is":["%s"]}]}},"id":%s}`,
			code, words[1], words[0], words[1], name, id)
	}
	for name, many := range map[string]func(n int) string{
		"calls":         func(n int) string { return call(n, `,"id":"many"`) },
		"notifications": func(n int) string { return call(n, "") },
		"batches":       func(n int) string { return "[" + call(n, `,"id":"many"`) + "]" },
		"a batch": func(n int) string {
			return "[" + strings.Repeat(call(n, `,"id":"many"`)+",", 99) + call(n, `,"id":"many"`) + "]"
		},
		"batches of notifications": func(n int) string {
			return "[" + strings.Repeat(call(n, "")+",", 99) + call(n, "") + "]"
		},
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			srv := new(yonder.Server)
			srv.Limits.MaxCalls = 2
			running := make(chan int)
			srv.Register("hang", func(ctx context.Context, n int) error {
				select {
				case running <- n:
				case <-ctx.Done():
					return ctx.Err()
				}
				<-ctx.Done()
				return ctx.Err()
			})
			p := dialPeer(t, serve(t, srv))
			p.send(call(1, `,"id":1`) + call(2, `,"id":2`))
			if a, b := <-running, <-running; a+b != 3 {
				t.Errorf("%d and %d run", a, b)
			}
			before := runtime.NumGoroutine()
			p.send(call(3, `,"id":3`) + call(4, `,"id":4`) + call(5, `,"id":5,"timeout":100`) + call(6, `,"id":6`) + `{"jsonrpc":"2.0","method":"none","id":7}`)
			for range 5 {
				p.send(strings.Repeat(many(8), 100/max(1, strings.Count(many(8), "hang"))))
			}
			got := map[string]bool{p.read(): true, p.read(): true}
			for _, want := range []string{`{"jsonrpc":"2.0","error":{"code":-32601,"message":"Method not found"},"id":7}`, over(-32004, "5")} {
				if !got[want] {
					t.Errorf("%s is not among %v", want, got)
				}
			}
			cancel := func(id int) {
				p.send(fmt.Sprintf(`{"jsonrpc":"2.0","method":"rpc.cancel","params":{"id":%d}}`, id))
			}
			cancel(4)
			p.want(over(-32001, "4")) // all of the above has been read
			if n := runtime.NumGoroutine() - before; n > 20 {
				t.Errorf("%d goroutines for what waits", n)
			}
			for _, next := range []int{3, 6, 8} {
				cancel(map[int]int{3: 1, 6: 2, 8: 3}[next])
				if got := <-running; got != next {
					t.Errorf("%d runs, want %d", got, next)
				}
				if got := p.read(); !strings.Contains(got, `"context canceled"`) || strings.Contains(got, "before it began") {
					t.Error(got)
				}
			}
		})
	}
}

// Who has more calls wait than the server keeps, none of which ends, is sent away.
func TestStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := new(yonder.Server)
		srv.Logger = newLogger(t)
		srv.Protocols = []yonder.Protocol{jsonrpc.Protocol}
		srv.Limits.MaxCalls = 2
		srv.Limits.MaxMessage = 20_000
		var ran atomic.Int32
		srv.Register("hang", func(ctx context.Context) {
			ran.Add(1)
			<-ctx.Done()
		})
		p := pipePeer(t, srv)
		p.conn.SetDeadline(time.Time{})
		began, sent := time.Now(), 0
		go func() { // ends with the connection
			for {
				if _, err := io.WriteString(p.conn, `{"jsonrpc":"2.0","method":"hang","id":1}`); err != nil {
					return
				}
				sent++
			}
		}()
		p.want(`{"jsonrpc":"2.0","error":{"code":-32008,"message":"more calls wait than the server keeps, and none has ended for too long"},"id":null}`)
		io.Copy(io.Discard, p.in)
		synctest.Wait()
		if took := time.Since(began); took != 15*time.Second {
			t.Errorf("it took %v", took)
		}
		if sent > 20 || ran.Load() != 2 {
			t.Errorf("%d calls were taken, and %d ran", sent, ran.Load())
		}
	})
}

// Streams are counted, and end with their connection.
func TestMaxStreams(t *testing.T) {
	noLeaks(t)
	srv := new(yonder.Server)
	srv.Limits.MaxStreams = 2
	srv.Register("count", count)
	closed := make(chan struct{}, 10)
	srv.Register("read", func() io.ReadCloser { return blockedReader{make(chan struct{}), closed} })
	p := dialPeer(t, serve(t, srv))
	for i := range 2 {
		p.send(`{"jsonrpc":"2.0","method":"read","id":1}`)
		p.want(fmt.Sprintf(`{"jsonrpc":"2.0","result":{"subscription":%d},"id":1}`, i+1))
	}
	p.send(`{"jsonrpc":"2.0","method":"read","id":1}`)
	p.want(`{"jsonrpc":"2.0","error":{"code":-32008,"message":"yonder: more than 2 streams on a connection","data":{"code":"resource_exhausted"}},"id":1}`)
	<-closed
	p.conn.(*net.TCPConn).SetLinger(0) // a reset
	p.conn.Close()
	<-closed
	<-closed
}

// A blockedReader has nothing to read until it is closed.
type blockedReader struct {
	done   chan struct{}
	closed chan struct{}
}

func (r blockedReader) Read([]byte) (int, error) {
	<-r.done
	return 0, errors.New("closed")
}

func (r blockedReader) Close() error {
	select {
	case <-r.done:
	default:
		close(r.done)
		r.closed <- struct{}{}
	}
	return nil
}

// An infinite stream is no answer over HTTP, and takes no memory beyond the limit.
func TestInfiniteArray(t *testing.T) {
	noLeaks(t)
	srv := new(yonder.Server)
	srv.Limits.MaxMessage = 10_000
	srv.Register("forever", func() func(yield func(int) bool) {
		return func(yield func(int) bool) {
			for yield(1) {
			}
		}
	})
	srv.Register("zeros", func() io.Reader { return zeros{} })
	url := serveHTTP(t, srv, new(jsonrpc.Config))
	for _, method := range []string{"forever", "zeros"} {
		exchange{
			body:   `{"jsonrpc":"2.0","method":"` + method + `","id":1}`,
			status: 200, want: `{"jsonrpc":"2.0","error":{"code":-32008,"message":"the stream is larger than a message may be","data":{"code":"resource_exhausted"}},"id":1}` + "\n",
		}.run(t, url)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

// A client that claims a large message has no memory taken for it.
func TestClaim(t *testing.T) {
	noLeaks(t)
	address := serve(t, specServer())
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var peers []*peer
	for range 50 {
		p := dialPeer(t, address)
		io.WriteString(p.conn, "Content-Length: 60000000\r\n\r\n{")
		peers = append(peers, p)
	}
	for _, p := range peers { // each is being served
		p.conn.(*net.TCPConn).CloseWrite()
		p.ends()
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 20<<20 {
		t.Errorf("%d bytes were allocated", took)
	}
}

// A WebSocket is refused to the pages of strangers, keeps to the limits, and goes on
// after what is no JSON.
func TestWebSocket(t *testing.T) {
	noLeaks(t)
	srv := specServer()
	srv.Limits.MaxMessage = 1000
	url := serveHTTP(t, srv, &jsonrpc.Config{Origins: []string{"https://friend.example"}})
	for origin, want := range map[string]bool{"": true, url: true, "https://friend.example": true, "https://stranger.example": false, "null": false} {
		options := &websocket.DialOptions{HTTPHeader: map[string][]string{}}
		if origin != "" {
			options.HTTPHeader.Set("Origin", origin)
		}
		ws, _, err := websocket.Dial(t.Context(), url, options)
		if (err == nil) != want {
			t.Errorf("origin %q: %v", origin, err)
		}
		if err == nil {
			ws.CloseNow()
		}
	}
	ws, _, err := websocket.Dial(t.Context(), url, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	for _, e := range append(specExamples, struct{ name, send, want string }{"not UTF-8", "[\"\xff\"]", parseError}, struct{ name, send, want string }{"empty", "", parseError}) {
		if err := ws.Write(t.Context(), websocket.MessageText, []byte(e.send)); err != nil {
			t.Fatal(err)
		}
		if e.want == "" {
			continue
		}
		_, got, err := ws.Read(t.Context())
		if err != nil || string(got) != compact(t, e.want) {
			t.Errorf("%s: %s, %v", e.name, got, err)
		}
	}
	ws.Write(t.Context(), websocket.MessageText, []byte(`{"a":"`+strings.Repeat("a", 2000)+`"}`))
	for err == nil {
		_, _, err = ws.Read(t.Context())
	}
	if websocket.CloseStatus(err) != websocket.StatusMessageTooBig {
		t.Error(err)
	}
}

// A server that says nonsense ends the connection, not the process.
func TestHostileServer(t *testing.T) {
	for name, says := range map[string]string{
		"no JSON":              `hello`,
		"a scalar":             `1 `,
		"two results":          `{"jsonrpc":"2.0","result":1,"result":2,"id":1}`,
		"another's id":         `{"jsonrpc":"2.0","result":1,"id":"x"}`,
		"batch of nonsense":    `[1]`,
		"no stream":            `{"jsonrpc":"2.0","method":"rpc.stream","params":{"items":[1]}}`,
		"stream without":       `{"jsonrpc":"2.0","method":"rpc.stream"}`,
		"an error and the end": `{"jsonrpc":"2.0","error":{"code":-32700,"message":"Parse error"},"id":null}`,
		"too much of a stream": `{"jsonrpc":"2.0","result":{"subscription":1},"id":1}{"jsonrpc":"2.0","method":"rpc.stream","params":{"subscription":1,"items":[` + strings.Repeat("1,", 300) + `1]}}`,
		"items of no kind":     `{"jsonrpc":"2.0","result":{"subscription":1},"id":1}{"jsonrpc":"2.0","method":"rpc.stream","params":{"subscription":1,"items":1}}`,
		"an item of no kind":   `{"jsonrpc":"2.0","result":{"subscription":1},"id":1}{"jsonrpc":"2.0","method":"rpc.stream","params":{"subscription":1,"items":["x"]}}`,
		"nesting":              strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000),
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			near, far := net.Pipe()
			go func() { // ends with the client
				b := make([]byte, 1000)
				far.Read(b)
				io.WriteString(far, says)
				far.Close()
			}()
			c := new(jsonrpc.Dialer).NewClient(near)
			defer c.Close()
			numbers, err := yonder.Invoke[func(func(int, error) bool)](t.Context(), c, "x")
			if err == nil {
				for _, err = range numbers {
					if err != nil {
						break
					}
				}
			}
			if err == nil {
				t.Error("it succeeded")
			}
			<-c.Done()
		})
	}
}

// exits is a value that ends the goroutine that encodes it.
type exits struct{}

func (exits) MarshalJSON() ([]byte, error) { runtime.Goexit(); return nil, nil }

// Code that ends its goroutine, wherever it runs, fails its call, and nothing else.
func TestGoexit(t *testing.T) {
	run(t, func(t *testing.T, mode string) {
		srv := new(yonder.Server)
		srv.Limits.MaxCalls = 2 // whose slots must come back
		srv.Logger = slog.New(slog.DiscardHandler)
		srv.Register("exit", func() { runtime.Goexit() })
		srv.Register("value", func() exits { return exits{} })
		stream := func() iter.Seq2[int, error] {
			return func(yield func(int, error) bool) {
				yield(1, nil)
				runtime.Goexit()
			}
		}
		srv.Register("stream", stream)
		srv.Register("both", func() (iter.Seq2[int, error], exits) { return stream(), exits{} })
		srv.Register("fine", func() int { return 1 })
		c := client(t, mode, srv, new(jsonrpc.Dialer))
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		for range 3 {
			c.Notify(ctx, "exit")
			c.Notify(ctx, "value")
			for _, name := range []string{"exit", "value"} {
				if _, err := yonder.Invoke[any](ctx, c, name); yonder.CodeOf(err) != yonder.Internal || !yonder.IsRemote(err) {
					t.Errorf("%s: got %v (%v)", name, err, yonder.CodeOf(err))
				}
			}
			var both iter.Seq2[int, error]
			if err := c.Call(ctx, yonder.NewCall("both").Into(&both, new(any))); yonder.CodeOf(err) != yonder.Internal || !yonder.IsRemote(err) {
				t.Errorf("both: got %v", err)
			}
			numbers, err := yonder.Invoke[iter.Seq2[int, error]](ctx, c, "stream")
			if err != nil {
				t.Fatal(err)
			}
			sum := 0
			for n, why := range numbers {
				sum, err = sum+n, why
			}
			if sum != 1 || yonder.CodeOf(err) != yonder.Internal || !yonder.IsRemote(err) {
				t.Errorf("stream: got %d, %v (%v)", sum, err, yonder.CodeOf(err))
			}
			if n, err := yonder.Invoke[int](ctx, c, "fine"); n != 1 || err != nil {
				t.Errorf("the next call: %d, %v", n, err)
			}
		}
	})
}

func TestGoexitInBatch(t *testing.T) {
	const batch = `[{"jsonrpc":"2.0","method":"exit","id":1},{"jsonrpc":"2.0","method":"fine","id":2},{"jsonrpc":"2.0","method":"exit"},` +
		`{"jsonrpc":"2.0","method":"value","id":3},{"jsonrpc":"2.0","method":"stream","id":4},{"jsonrpc":"2.0","method":"exit"},{"jsonrpc":"2.0","method":"fine","id":5}]`
	const fails = `{"jsonrpc":"2.0","error":{"code":-32603,"message":"yonder: \"%s\" did not return"},"id":%d}`
	want := "[" + fmt.Sprintf(fails, "exit", 1) + `,{"jsonrpc":"2.0","result":1,"id":2},` +
		fmt.Sprintf(fails, "value", 3) + "," + fmt.Sprintf(fails, "stream", 4) + `,{"jsonrpc":"2.0","result":1,"id":5}]`
	noLeaks(t)
	srv := new(yonder.Server)
	srv.Limits.MaxCalls = 2
	srv.Logger = slog.New(slog.DiscardHandler)
	srv.Register("exit", func() { runtime.Goexit() })
	srv.Register("value", func() exits { return exits{} })
	srv.Register("stream", func() iter.Seq[int] { return func(func(int) bool) { runtime.Goexit() } })
	srv.Register("fine", func() int { return 1 })
	p := dialPeer(t, serve(t, srv))
	for range 3 {
		p.send(batch)
		p.want(want)
	}
	url := serveHTTP(t, srv, new(jsonrpc.Config))
	for range 3 {
		exchange{body: batch, status: 200, want: want + "\n"}.run(t, url)
		exchange{body: `{"jsonrpc":"2.0","method":"exit"}`, status: 204}.run(t, url)
	}
}
