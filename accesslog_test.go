package yonder_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"net"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/jsonrpc"
	"github.com/yonder-rpc/yonder/net/rpc"
	"github.com/yonder-rpc/yonder/session"
	"github.com/yonder-rpc/yonder/web"
)

// lines returns what has been logged, without what differs from run to run.
func (l *logBuffer) lines() []string {
	text := regexp.MustCompile(`time=\S+ | peer=\S+| took=\S+|msg=|yonder: `).ReplaceAllString(l.String(), "")
	l.reset()
	return strings.Split(strings.TrimSpace(text), "\n")
}

// Both ends log each call once, whatever the protocol, without secrets.
func TestAccessLog(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		var serving, calling logBuffer
		srv := yonder.Server{Interceptors: []yonder.Interceptor{yonder.AccessLog(serving.logger())}}
		srv.Register("greet", func(ctx context.Context, name string) string {
			yonder.SetReply(ctx, "token", "s3cret")
			return "hello, " + name
		})
		srv.Register("fail", func(how int) error {
			switch how {
			case 1:
				return yonder.Errorf(yonder.NotFound, "nothing")
			case 2:
				return errors.New("anything")
			}
			panic("boom")
		})
		srv.Register("long", func() error { return errors.New(strings.Repeat("long ", 300)) })
		c := m.intercepted(t, &srv, yonder.AccessLog(calling.logger()))
		ctx := yonder.WithMetadata(t.Context(), "authorization", "Bearer s3cret", "note", "s3cret")
		yonder.Invoke[string](ctx, c, "greet", "s3cret")
		for i := range 3 {
			c.Call(ctx, yonder.NewCall("fail", i+1))
		}
		c.Call(ctx, yonder.NewCall("no.such"))
		protocol := m.protocol()
		if m == inProcess {
			protocol = "local"
		}
		for side, text := range map[string]string{"server": serving.String(), "client": calling.String()} {
			if strings.Contains(text, "s3cret") {
				t.Errorf("%s: a secret is logged:\n%s", side, text)
			}
			if peer := strings.Contains(text, " peer="); peer != (side == "server" && m != inProcess) {
				t.Errorf("%s: the peer is logged: %v\n%s", side, peer, text)
			}
		}
		want := []string{
			`level=INFO "call served" procedure=greet protocol=` + protocol + ` code=ok`,
			`level=INFO "call served" procedure=fail protocol=` + protocol + ` code=not_found error=nothing`,
			`level=WARN "call served" procedure=fail protocol=` + protocol + ` code=unknown error=anything`,
			`level=ERROR "call served" procedure=fail protocol=` + protocol + ` code=internal error="\"fail\" panicked"`,
		}
		if diff := cmp.Diff(want, serving.lines()); diff != "" {
			t.Error("server:", diff)
		}
		lines := calling.lines()
		for i, want := range []string{
			`level=INFO "call made" procedure=greet code=ok`,
			`level=INFO "call made" procedure=fail code=not_found error=`,
			`level=WARN "call made" procedure=fail code=unknown error=`,
			`level=ERROR "call made" procedure=fail code=internal error=`,
			`level=WARN "call made" procedure=no.such code=unimplemented error=`,
		} {
			if len(lines) != 5 || !strings.HasPrefix(lines[i], want) {
				t.Errorf("client: %q\nwant %s", lines, want)
			}
		}
		c.Call(ctx, yonder.NewCall("long"))
		if n := len(serving.String()); n > 1200 {
			t.Errorf("a line of %d bytes", n)
		}
	})
}

// The line of a stream is written when it ends, with what ended it.
func TestAccessLogOfStreams(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		m.needs(t, streams)
		var serving, calling logBuffer
		srv := yonder.Server{Interceptors: []yonder.Interceptor{yonder.AccessLog(serving.logger())}}
		srv.Register("broken", func() iter.Seq2[int, error] {
			return countTo(3, yonder.Errorf(yonder.DataLoss, "lost"))
		})
		c := m.intercepted(t, &srv, yonder.AccessLog(calling.logger()))
		seq, err := yonder.Invoke[iter.Seq2[int, error]](t.Context(), c, "broken")
		if err != nil || calling.String() != "" {
			t.Fatal(err, calling.String())
		}
		for range seq {
		}
		if lines := calling.lines(); len(lines) != 1 || !strings.HasPrefix(lines[0], `level=ERROR "call made" procedure=broken code=data_loss error=`) {
			t.Errorf("client: %q", lines)
		}
		until(t, "the server's line", func() bool { return serving.String() != "" })
		if lines := serving.lines(); len(lines) != 1 || !strings.HasPrefix(lines[0], `level=ERROR "call served" procedure=broken`) || !strings.HasSuffix(lines[0], ` code=data_loss error=lost`) {
			t.Errorf("server: %q", lines)
		}
	})
}

// What an operator reads of connections: one line of each that the peer broke, of the same form
// whatever the protocol, and nothing of those that end as they should.
func TestConnectionLog(t *testing.T) {
	for _, tt := range []struct{ name, sent, want string }{
		{"no protocol", "\x00\x01\x02", `level=INFO "connection refused" reason=`},
		{"native", "\xd9yonder\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", `level=WARN "connection closed" protocol=yonder reason=`},
		{"jsonrpc", `{"method":"x","id":1}` + "\n{]", `level=WARN "connection closed" protocol=jsonrpc reason=`},
		{"nothing", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var logged logBuffer
			srv := yonder.Server{
				Logger:    logged.logger(),
				Protocols: []yonder.Protocol{rpc.Protocol, jsonrpc.Protocol, session.Protocol, web.Protocol},
			}
			address := overTCP.serve(t, &srv)
			conn, err := net.Dial("tcp", strings.TrimPrefix(address, "tcp://"))
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(conn, tt.sent)
			if tt.name == "no protocol" || tt.name == "nothing" {
				conn.(*net.TCPConn).CloseWrite()
			}
			io.Copy(io.Discard, conn)
			conn.Close()
			srv.Shutdown(t.Context())
			text := logged.String()
			lines := logged.lines()
			if len(lines) != 1 || !strings.HasPrefix(lines[0], tt.want) || tt.want == "" && lines[0] != "" {
				t.Errorf("%q\nwant one line: %s", lines, tt.want)
			}
			if tt.want != "" && !strings.Contains(text, " peer=127.0.0.1:") {
				t.Errorf("no peer: %s", text)
			}
		})
	}
}

// A client says that it has lost its server, once, whatever was in flight.
func TestConnectionLostLog(t *testing.T) {
	var logged logBuffer
	near, far := net.Pipe()
	c := (&yonder.Dialer{Logger: logged.logger()}).NewClient(near)
	defer c.Close()
	go func() { // ends with the pipe
		defer far.Close()
		var got []byte
		for buf := make([]byte, 64); !bytes.Contains(got, []byte("any")); { // before the call it would only have left
			n, err := far.Read(buf)
			if err != nil {
				return
			}
			got = append(got, buf[:n]...)
		}
	}()
	if err := c.Call(t.Context(), yonder.NewCall("any")); !errors.Is(err, yonder.ErrConnectionLost) {
		t.Errorf("%v", err)
	}
	c.Close()
	if lines := logged.lines(); len(lines) != 1 || !strings.HasPrefix(lines[0], `level=INFO "connection lost" protocol=yonder reason=`) {
		t.Errorf("%q", lines)
	}
}
