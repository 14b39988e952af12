package session

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/yonder-rpc/yonder"
)

// hostile has a peer do its worst to a server, in a bubble, while another is served as ever. It
// returns how much memory was taken.
func hostile(t *testing.T, limits yonder.Limits, peer func(t *testing.T, conn net.Conn, served <-chan error)) (bytes uint64) {
	synctest.Test(t, func(t *testing.T) {
		srv := &yonder.Server{Protocols: []yonder.Protocol{Protocol}, Limits: limits}
		srv.Register("big", func(n int) []byte { return make([]byte, n) })
		srv.Register("echo", func(s string) string { return s })
		srv.Register("any", func(any) {})
		srv.Register("f", func(any) {}) // that bombs call
		open := func() (net.Conn, <-chan error) {
			near, far := net.Pipe()
			served := make(chan error, 1)
			go func() { served <- srv.ServeConn(near) }() // ends with far
			return far, served
		}
		friend, _ := open()
		client := NewClient(friend)
		var echo func(string) (string, error)
		client.Call("echo", &echo)
		check := func() {
			t.Helper()
			if s, err := echo("hello"); s != "hello" || err != nil {
				t.Errorf("another connection: %q, %v", s, err)
			}
		}
		check()
		conn, served := open()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		peer(t, conn, served)
		runtime.ReadMemStats(&after)
		bytes = after.TotalAlloc - before.TotalAlloc
		check()
		conn.Close()
		client.Close()
		srv.Close()
		// The bubble ends when no goroutine is left.
	})
	return bytes
}

func frameOf(t testing.TB, name string, args ...any) []byte {
	t.Helper()
	frame, err := encode(RPCData{name, args})
	if err != nil {
		t.Fatal(err)
	}
	return frame
}

// closedAfter checks that the server closes the connection, and when.
func closedAfter(t *testing.T, served <-chan error, want time.Duration) {
	t.Helper()
	begin := time.Now()
	if err := <-served; err == nil {
		t.Error("it ended without an error")
	}
	if took := time.Since(begin); took != want {
		t.Errorf("it was closed after %v, want %v", took, want)
	}
}

func TestHostile(t *testing.T) {
	t.Run("half a frame", func(t *testing.T) {
		hostile(t, yonder.Limits{}, func(t *testing.T, conn net.Conn, served <-chan error) {
			frame := frameOf(t, "echo", "x")
			conn.Write(frame[:20])
			closedAfter(t, served, 15*time.Second)
		})
	})
	t.Run("half a length", func(t *testing.T) {
		hostile(t, yonder.Limits{}, func(t *testing.T, conn net.Conn, served <-chan error) {
			conn.Write(frameOf(t, "echo", "x"))
			io.ReadFull(conn, make([]byte, len(frameOf(t, "echo", "x"))))
			conn.Write([]byte{0, 0})
			closedAfter(t, served, 15*time.Second)
		})
	})
	t.Run("a huge length", func(t *testing.T) {
		took := hostile(t, yonder.Limits{}, func(t *testing.T, conn net.Conn, served <-chan error) {
			go io.Copy(io.Discard, conn)
			conn.Write(frameOf(t, "echo", "x"))
			conn.Write([]byte{0x03, 0xff, 0xff, 0xff, 1, 2, 3}) // which would be accepted
			closedAfter(t, served, 15*time.Second)
		})
		if took > 1<<20 {
			t.Errorf("it took %d bytes", took)
		}
	})
	t.Run("a length beyond the limit", func(t *testing.T) {
		took := hostile(t, yonder.Limits{}, func(t *testing.T, conn net.Conn, served <-chan error) {
			go io.Copy(io.Discard, conn)
			conn.Write(frameOf(t, "echo", "x"))
			conn.Write([]byte{0xff, 0xff, 0xff, 0xff})
			for range 100 {
				conn.Write(make([]byte, 1<<20))
			}
			closedAfter(t, served, 15*time.Second)
		})
		if took > 120<<20 { // 100 of them are the peer's own
			t.Errorf("it took %d bytes", took)
		}
	})
	t.Run("bombs", func(t *testing.T) {
		bombs := [][]byte{
			bomb(t, "map[string]int", "ff83 04 01 02 ff84 00 01 0c 01 04 00 00 0c ff84 06 00 fc3b9aca00 00"),
			bomb(t, "[]interface {}", "ff82 06 00 fc3b9aca00 00"),
			bomb(t, "[]int", "ff83 02 01 02 ff84 00 01 04 00 00 0c ff84 06 00 fc3b9aca00 00"),
			[]byte(strings.Repeat("\x00", 1000)),
		}
		took := hostile(t, yonder.Limits{}, func(t *testing.T, conn net.Conn, served <-chan error) {
			conn.Write(frameOf(t, "echo", "x"))
			m := messageReader{conn: conn, r: conn, most: 1 << 20, patience: -1}
			m.read()
			for _, b := range bombs {
				go conn.Write(seal(append(make([]byte, headerSize), b...)))
				data, err := m.read()
				if err != nil {
					t.Fatal(err)
				}
				msg, err := decode(data, nil, func(string) {})
				if e, ok := msg.Args[0].(wireError); err != nil || !ok || !strings.Contains(e.Message, "cannot be decoded") {
					t.Errorf("%#v, %v", msg, err)
				}
			}
		})
		if took > 4<<20 {
			t.Errorf("they took %d bytes", took)
		}
	})
	t.Run("never reading", func(t *testing.T) {
		var sent atomic.Int64
		took := hostile(t, yonder.Limits{MaxMessage: 1 << 20}, func(t *testing.T, conn net.Conn, served <-chan error) {
			go func() { // ends when the server closes the connection
				for frame := frameOf(t, "big", 1<<18); ; sent.Add(1) {
					if _, err := conn.Write(frame); err != nil {
						return
					}
				}
			}()
			closedAfter(t, served, 15*time.Second)
		})
		if n := sent.Load(); n > 1000+100 || took > 1100*4<<18 {
			t.Errorf("the server took %d calls and %d bytes", n, took)
		}
	})
	t.Run("never reading what is large to send", func(t *testing.T) {
		took := hostile(t, yonder.Limits{MaxMessage: 1 << 20}, func(t *testing.T, conn net.Conn, served <-chan error) {
			go func() { // ends when the server closes the connection
				for frame := frameOf(t, "echo", strings.Repeat("x", 1<<19)); ; {
					if _, err := conn.Write(frame); err != nil {
						return
					}
				}
			}()
			closedAfter(t, served, 15*time.Second)
		})
		if took > 64<<20 {
			t.Errorf("it took %d bytes", took)
		}
	})
	t.Run("garbage", func(t *testing.T) {
		hostile(t, yonder.Limits{}, func(t *testing.T, conn net.Conn, served <-chan error) {
			go io.Copy(io.Discard, conn)
			conn.Write(frameOf(t, "echo", "x"))
			for i := range 100 {
				body := bytes.Repeat([]byte{byte(i), byte(i * 7), 0xff}, 20)
				conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...))
			}
		})
	})
}

// A server that answers what nobody asked, or not in gob.
func TestHostileServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		c := NewClient(near)
		var f func(string) (string, error)
		c.Call("f", &f)
		s := NewSession(far)
		answer := func(b []byte) error {
			go func() {
				s.Read()
				s.Write(b)
			}()
			_, err := f("x")
			return err
		}
		if err := answer([]byte("nonsense")); yonder.CodeOf(err) != yonder.Internal || !strings.Contains(err.Error(), "the answer cannot be decoded") {
			t.Error(err)
		}
		if err := answer(bomb(t, "[]interface {}", "ff82 06 00 fc3b9aca00 00")); yonder.CodeOf(err) != yonder.Internal {
			t.Error(err)
		}
		if err := answer(frameOf(t, "f", "y")[headerSize:]); err != nil {
			t.Error(err)
		}
		s.Write(frameOf(t, "f", "y")[headerSize:])
		synctest.Wait()
		if _, err := f("x"); yonder.CodeOf(err) != yonder.Unavailable || !strings.Contains(err.Error(), "the server has answered what was not asked") {
			t.Error(err)
		}
		c.Close()
		far.Close()
	})
}

// An answer that is written is held by nobody, however long the connection stays.
func TestWritten(t *testing.T) {
	c := &serverConn{answers: []*answer{{frame: []byte("1")}, {frame: []byte("2")}}}
	c.changed.L = &c.mu
	all := c.answers
	for a, more := c.next(); ; a, more = c.next() {
		c.written(a)
		if !more {
			break
		}
	}
	if all[0] != nil || all[1] != nil {
		t.Error("answers that have been written are held")
	}
}
