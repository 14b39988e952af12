package yonder_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/internal/wire"
	"github.com/yonder-rpc/yonder/web"
)

// overSockets runs a test in all modes that have an address to dial, which serve gives.
func overSockets(t *testing.T, test func(t *testing.T, m mode, serve func(srv *yonder.Server) (dial func() (*yonder.Client, error)))) {
	runAll(t, func(t *testing.T, m mode) {
		m.cannot(t, inProcess, "there are no connections")
		m.cannot(t, overPipe, "nobody can dial a pipe")
		test(t, m, func(srv *yonder.Server) func() (*yonder.Client, error) {
			if srv.Logger == nil {
				srv.Logger = logger(t)
			}
			srv.Protocols = m.protocols()
			if m == inJSON {
				srv.Codecs = []yonder.Codec{yonder.JSON}
			}
			address := m.serve(t, srv)
			return func() (*yonder.Client, error) {
				d := &yonder.Dialer{Logger: logger(t)}
				if m == inJSON {
					d.Codec = yonder.JSON
				}
				c, err := m.dial(t, d, address)
				if err == nil {
					t.Cleanup(func() { c.Close() })
				}
				return c, err
			}
		})
	})
}

// Connections beyond the limit are not served, and told so where the protocol can; who leaves makes
// room. The operator is told once, not once a connection.
func TestConnLimit(t *testing.T) {
	overSockets(t, func(t *testing.T, m mode, serve func(*yonder.Server) func() (*yonder.Client, error)) {
		var log logBuffer
		srv := &yonder.Server{Conns: &yonder.ConnLimits{Max: 2}, Logger: log.logger()}
		srv.Register("echo", func(n int) int { return n })
		dial := serve(srv)
		echo := func(c *yonder.Client, err error) error {
			if err == nil {
				_, err = yonder.Invoke[int](t.Context(), c, "echo", 7)
			}
			return err
		}
		var inside []*yonder.Client
		for range 2 {
			c, err := dial()
			if err := echo(c, err); err != nil {
				t.Fatal(err)
			}
			inside = append(inside, c)
		}
		for range 3 {
			err := echo(dial())
			if err == nil {
				t.Fatal("a third connection is served")
			}
			switch m.protocol() {
			case "yonder":
				if m == overWeb {
					if !strings.Contains(err.Error(), "503") {
						t.Errorf("over HTTP: %v", err)
					}
				} else if yonder.CodeOf(err) != yonder.Unavailable || !strings.Contains(err.Error(), "as many connections as it takes") {
					t.Errorf("natively: %v", err)
				}
			case "jsonrpc":
				if yonder.CodeOf(err) != yonder.Unavailable || !strings.Contains(err.Error(), "as many connections as it takes") {
					t.Errorf("over JSON-RPC: %v", err)
				}
			default:
				t.Log(err)
			}
		}
		for _, c := range inside {
			if err := echo(c, nil); err != nil {
				t.Errorf("one within the limit: %v", err)
			}
		}
		inside[0].Close()
		until(t, "there is room", func() bool { return echo(dial()) == nil })
		if n := strings.Count(log.String(), `msg="yonder: connections refused"`); n != 1 {
			t.Errorf("%d lines in %s", n, log.String())
		}
		if n := srv.Stats().Refused; n < 3 {
			t.Errorf("%d connections were refused", n)
		}
	})
}

// Beyond what is listened to, connections are closed at once; and those that say nothing make room
// for others to be told.
func TestConnLimitFlood(t *testing.T) {
	noLeak(t)
	var log logBuffer
	srv := &yonder.Server{Conns: &yonder.ConnLimits{Max: 1}, Logger: log.logger()}
	srv.Register("echo", func(n int) int { return n })
	address := serveOn(t, srv)
	c, err := yonder.Dial(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := yonder.Invoke[int](t.Context(), c, "echo", 1); err != nil {
		t.Fatal(err)
	}
	var conns []net.Conn
	for range 300 {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conns = append(conns, conn)
	}
	until(t, "most are closed", func() bool { return srv.Stats().Refused == 300-64 })
	if _, err := yonder.Invoke[int](t.Context(), c, "echo", 1); err != nil {
		t.Error(err)
	}
	for _, conn := range conns {
		conn.Close()
	}
	until(t, "one is told again", func() bool {
		c, err := yonder.Dial(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, err = yonder.Invoke[int](t.Context(), c, "echo", 1)
		return strings.Contains(textOf(err), "as many connections as it takes")
	})
	if n := strings.Count(log.String(), "\n"); n != 1 {
		t.Errorf("%d lines in %s", n, log.String())
	}
}

// Who has lost a connection that counts may resume it though there are as many as there may be.
func TestConnLimitResume(t *testing.T) {
	noLeak(t)
	srv := &yonder.Server{Logger: logger(t), Conns: &yonder.ConnLimits{Max: 1}, Resume: resumable(time.Minute)}
	srv.Register("echo", func(n int) int { return n })
	f := &flaky{address: serveOn(t, srv)}
	c, err := (&yonder.Dialer{NetDial: f.dial, Resume: time.Minute, Logger: logger(t)}).Dial(t.Context(), "x:1")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range 100 { // more than are listened to
		if n, err := yonder.Invoke[int](t.Context(), c, "echo", i); n != i || err != nil {
			t.Fatal(n, err)
		}
		f.cut(false)
	}
	other, err := yonder.Dial(t.Context(), f.address)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := yonder.Invoke[int](t.Context(), other, "echo", 1); yonder.CodeOf(err) != yonder.Unavailable {
		t.Errorf("another connection: %v", err)
	}
	if s := srv.Stats().Resumption; s.Open != 1 || s.Resumed < 99 {
		t.Errorf("%+v", s)
	}
}

// counted counts what a dialer dials.
func counted(d *yonder.Dialer, srv *yonder.Server) *atomic.Int32 {
	dials := new(atomic.Int32)
	dial := pipes(srv)
	d.NetDial = func(ctx context.Context, network, address string) (net.Conn, error) {
		dials.Add(1)
		return dial(ctx, network, address)
	}
	return dials
}

// A connection that has had no call in flight for long enough ends, not before, and the next call
// makes another. Calls and streams in flight keep it, however long they do nothing.
func TestIdle(t *testing.T) {
	bubbleIn(t, func(t *testing.T, m mode) {
		const idle = 4 * time.Minute
		srv := &yonder.Server{Conns: &yonder.ConnLimits{Idle: idle}, Protocols: m.protocols()}
		srv.Register("echo", func(n int) int { return n })
		srv.Register("sleep", func(d time.Duration) { time.Sleep(d) })
		srv.Register("slowly", func(n int) iter.Seq2[int, error] {
			return func(yield func(int, error) bool) {
				for i := range n {
					time.Sleep(5 * idle)
					if !yield(i, nil) {
						return
					}
				}
			}
		})
		serverOf(t, srv)
		d := &yonder.Dialer{Logger: logger(t)}
		dials := counted(d, srv)
		c, err := m.dial(t, d, "in:memory")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		open := func() int64 { return srv.Stats().Connections[m.protocol()].Open }
		want := func(when string, n int32) {
			t.Helper()
			if have := dials.Load(); have != n || n > 0 && open() != 1 {
				t.Errorf("%s: dialed %d times, want %d; %d are open", when, have, n, open())
			}
		}
		call := func() {
			t.Helper()
			if n, err := yonder.Invoke[int](t.Context(), c, "echo", 7); n != 7 || err != nil {
				t.Fatal(n, err)
			}
		}
		call()
		for range 10 {
			time.Sleep(idle - time.Second)
			call()
		}
		want("never idle for long enough", 1)
		time.Sleep(idle * 5 / 4)
		synctest.Wait()
		if n := open(); n != 0 {
			t.Errorf("%d connections are open", n)
		}
		call()
		want("after it was idle", 2)
		if err := c.Call(t.Context(), yonder.NewCall("sleep", 7*idle)); err != nil {
			t.Error(err)
		}
		call()
		want("after a long call", 2)
		if m.can(t, streams) {
			list, err := yonder.Invoke[iter.Seq2[int, error]](t.Context(), c, "slowly", 3)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for v, err := range list {
				if v != n || err != nil {
					t.Error(v, err)
				}
				n++
			}
			call()
			want("after a slow stream", 2)
		}
	}, overPipe, pipedJSON, pipedNetRPC, pipedFrames)
}

// No call is lost to a connection that ends because it was idle, whenever it is made: each runs
// once. Where the protocol cannot tell, one may fail.
func TestIdleRace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const idle = 400 * time.Millisecond
		var runs atomic.Int32
		srv := &yonder.Server{Conns: &yonder.ConnLimits{Idle: idle}}
		srv.Register("run", func() { runs.Add(1) })
		serverOf(t, srv)
		var total, dialed int32
		for i := range 20 {
			d := &yonder.Dialer{Logger: logger(t)}
			dials := counted(d, srv)
			c, err := d.Dial(t.Context(), "in:memory")
			if err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			for j := range uint64(2) {
				rnd := rand.New(rand.NewPCG(uint64(i), j))
				wg.Go(func() {
					for range 50 {
						// At the very moment when the other end looks, as often as not.
						pause := idle/4*time.Duration(rnd.IntN(10)) + time.Duration(rnd.IntN(3)-1)
						time.Sleep(max(pause, 0))
						if err := c.Call(t.Context(), yonder.NewCall("run")); err != nil {
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
			c.Close()
			total += 100
			dialed += dials.Load()
		}
		if runs.Load() != total || dialed < 40 {
			t.Errorf("%d calls ran %d times, over %d connections", total, runs.Load(), dialed)
		}
	})
}

// The same over sockets, whose buffers hold calls.
func TestIdleRaceOverSockets(t *testing.T) {
	run(t, func(t *testing.T, m mode) {
		m.cannot(t, inProcess, "there is no connection")
		m.cannot(t, overPipe, "nobody can dial a pipe")
		var runs, calls atomic.Int32
		srv := &yonder.Server{Conns: &yonder.ConnLimits{Idle: 4 * time.Millisecond}}
		srv.Register("run", func() { runs.Add(1) })
		c := m.dialer(t, srv, new(yonder.Dialer))
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				for range 60 {
					<-time.After(rand.N(8 * time.Millisecond))
					calls.Add(1)
					if err := c.Call(t.Context(), yonder.NewCall("run")); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if calls.Load() != runs.Load() {
			t.Errorf("%d calls ran %d times", calls.Load(), runs.Load())
		}
		until(t, "nothing is open", func() bool {
			for _, of := range srv.Stats().Connections {
				if of.Open > 0 {
					return false
				}
			}
			return true
		})
	})
}

// Connections that may be resumed are, and end when they are idle, as others do.
func TestIdleResume(t *testing.T) {
	noLeak(t)
	srv := &yonder.Server{Logger: logger(t), Conns: &yonder.ConnLimits{Idle: 100 * time.Millisecond}, Resume: resumable(time.Minute)}
	srv.Register("echo", func(n int) int { return n })
	f := &flaky{address: serveOn(t, srv)}
	c, err := (&yonder.Dialer{NetDial: f.dial, Resume: time.Minute, Logger: logger(t)}).Dial(t.Context(), "x:1")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range 20 {
		if n, err := yonder.Invoke[int](t.Context(), c, "echo", i); n != i || err != nil {
			t.Fatal(n, err)
		}
		f.cut(false)
		if i%10 == 9 {
			until(t, "it is idle", func() bool {
				return srv.Stats().Connections["yonder"].Open == 0 && c.Stats().Connections["yonder"].Open == 0
			})
		}
	}
	if s := srv.Stats(); s.Resumption.Expired != 0 || s.Connections["yonder"].Total < 2 {
		t.Errorf("%v", s)
	}
}

// A call that was sent before GOAWAY was read is served; once the peer has answered what is behind
// it, or has not for too long, the connection ends.
func TestIdleCrossing(t *testing.T) {
	for _, answers := range []bool{true, false} {
		t.Run(fmt.Sprint(answers), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := &yonder.Server{Conns: &yonder.ConnLimits{Idle: time.Minute}, Limits: yonder.Limits{KeepAlive: -1}}
				if !answers {
					srv.Limits.KeepAlive = time.Hour
				}
				srv.Register("echo", func(n int) int { return n })
				serverOf(t, srv)
				near, far := net.Pipe()
				served := make(chan error, 1)
				go func() { served <- srv.ServeConn(far) }()
				p := &rawPeer{t: t, conn: near}
				go func() { p.greet() }()
				p.until(wire.Hello)
				began := time.Now()
				if _, body := p.until(wire.GoAway); body[0] != wire.CodeUnavailable || time.Since(began) != time.Minute {
					t.Errorf("GOAWAY %q after %v", body, time.Since(began))
				}
				_, ping := p.until(wire.Ping)
				for i := range uint32(3) { // these have been on their way
					time.Sleep(time.Minute)
					p.send(wire.Header{Type: wire.Name, ID: i}, wire.AppendName(nil, "echo", "")...)
					p.request(i<<16|1<<16, byte(i), 7)
					if h, body := p.until(wire.Response); h.Flags&wire.Failed != 0 || string(body) != "\x07" {
						t.Errorf("a call that crosses GOAWAY: %v %q", h, body)
					}
				}
				began = time.Now()
				var signs sync.WaitGroup
				after := time.Second
				if answers {
					p.send(wire.Header{Type: wire.Pong}, ping...)
				} else {
					after += 2*time.Hour - 3*time.Minute
					signs.Go(func() { // ends with the connection
						sign := append(wire.AppendHeader(nil, wire.Header{Type: wire.Pong}, 8), make([]byte, 8)...)
						for err := error(nil); err == nil; _, err = near.Write(sign) {
							time.Sleep(10 * time.Minute)
						}
					})
				}
				io.Copy(io.Discard, near)
				if took := time.Since(began); took != after {
					t.Errorf("it ended after %v, want %v", took, after)
				}
				near.Close()
				signs.Wait()
				if err := <-served; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// JSON-RPC over a WebSocket, and HTTP that waits for another request, end as others do.
func TestIdleHTTP(t *testing.T) {
	noLeak(t)
	srv := &yonder.Server{Logger: logger(t), Conns: &yonder.ConnLimits{Idle: 50 * time.Millisecond}, Protocols: []yonder.Protocol{web.Protocol}}
	release := make(chan bool)
	srv.Register("wait", func() int { <-release; return 1 })
	address := serveOn(t, srv)
	ws, _, err := websocket.Dial(t.Context(), "ws://"+address+"/jsonrpc", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	if err := ws.Write(t.Context(), websocket.MessageText, []byte(`{"jsonrpc":"2.0","method":"wait","id":1}`)); err != nil {
		t.Fatal(err)
	}
	<-time.After(200 * time.Millisecond)
	release <- true
	if _, text, err := ws.Read(t.Context()); err != nil || !json.Valid(text) || !strings.Contains(string(text), `"result":1`) {
		t.Errorf("%s, %v", text, err)
	}
	if _, _, err := ws.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("it ends with %v", err)
	}
	client := &http.Client{Transport: new(http.Transport)}
	for range 2 {
		resp, err := client.Get("http://" + address + "/healthz")
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		until(t, "it ends", func() bool { return srv.Stats().Connections["http"].Open == 0 })
	}
	if total := srv.Stats().Connections["http"].Total; total != 3 {
		t.Errorf("%d connections", total)
	}
	if err := srv.Shutdown(t.Context()); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
