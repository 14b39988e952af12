package auth_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	stdrpc "net/rpc"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/auth"
	"github.com/yonder-rpc/yonder/jsonrpc"
	"github.com/yonder-rpc/yonder/net/rpc"
	"github.com/yonder-rpc/yonder/session"
	"github.com/yonder-rpc/yonder/web"
)

const (
	secret = "correct-horse-battery-staple"
	second = "another-correct-horse-staple"
	wrong  = "wrong-horse-battery-staple-0"
)

func check(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// safeBuffer keeps what is logged.
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

func (s *safeBuffer) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(s, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// serve serves srv at an address until the test ends.
func serve(t *testing.T, srv *yonder.Server, address string) (host string) {
	t.Helper()
	if srv.Logger == nil {
		srv.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	srv.Protocols = []yonder.Protocol{rpc.Protocol, jsonrpc.Protocol, session.Protocol, web.Protocol}
	l, err := yonder.Listen(address)
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

func who(ctx context.Context) string { return auth.FromContext(ctx).String() }

// ways are how a client brings a call, with a token or, if that is "", without.
func ways(t *testing.T, host string, logger *slog.Logger) map[string]func(token string) (string, error) {
	ctx := t.Context()
	interceptors := func(token string) []yonder.Interceptor {
		if token == "" {
			return nil
		}
		return []yonder.Interceptor{auth.Bearer(token)}
	}
	header := func(token string) http.Header {
		if token == "" {
			return nil
		}
		return http.Header{"Authorization": {"bearer " + token}}
	}
	invoke := func(c *yonder.Client, err error) (string, error) {
		if err != nil {
			return "", err
		}
		defer c.Close()
		return yonder.Invoke[string](ctx, c, "who")
	}
	return map[string]func(token string) (string, error){
		"native": func(token string) (string, error) {
			return invoke((&yonder.Dialer{Interceptors: interceptors(token), Logger: logger}).Dial(ctx, host))
		},
		"native over a WebSocket": func(token string) (string, error) {
			return invoke((&yonder.Dialer{Interceptors: interceptors(token), NetDial: web.NetDial, Logger: logger}).Dial(ctx, "ws://"+host+"/yonder"))
		},
		"a WebSocket with a header": func(token string) (string, error) {
			return invoke((&yonder.Dialer{NetDial: (&web.Dialer{Header: header(token)}).NetDial, Logger: logger}).Dial(ctx, "ws://"+host+"/yonder"))
		},
		"JSON-RPC": func(token string) (string, error) {
			return invoke((&jsonrpc.Dialer{Client: yonder.Dialer{Interceptors: interceptors(token)}}).Dial(ctx, host))
		},
		"JSON-RPC over HTTP": func(token string) (string, error) {
			return invoke((&jsonrpc.Dialer{Client: yonder.Dialer{Interceptors: interceptors(token)}}).Dial(ctx, "http://"+host+"/jsonrpc"))
		},
		"JSON-RPC over HTTP with a header": func(token string) (string, error) {
			return invoke((&jsonrpc.Dialer{Header: header(token)}).Dial(ctx, "http://"+host+"/jsonrpc"))
		},
		"JSON-RPC over a WebSocket": func(token string) (string, error) {
			return invoke((&jsonrpc.Dialer{Client: yonder.Dialer{Interceptors: interceptors(token)}}).Dial(ctx, "ws://"+host+"/jsonrpc"))
		},
		"JSON-RPC over a WebSocket with a header": func(token string) (string, error) {
			return invoke((&jsonrpc.Dialer{Header: header(token)}).Dial(ctx, "ws://"+host+"/jsonrpc"))
		},
		"JSON-RPC in a batch": func(token string) (string, error) {
			request, _ := http.NewRequestWithContext(ctx, "POST", "http://"+host+"/jsonrpc", strings.NewReader(`[{"jsonrpc":"2.0","method":"who","id":1}]`))
			request.Header = header(token)
			if request.Header == nil {
				request.Header = make(http.Header)
			}
			request.Header.Set("Content-Type", "application/json")
			resp, err := http.DefaultClient.Do(request)
			if err != nil {
				return "", err
			}
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			if name, ok := strings.CutPrefix(strings.TrimSpace(string(text)), `[{"jsonrpc":"2.0","result":"`); ok {
				return strings.TrimSuffix(name, `","id":1}]`), err
			}
			return "", yonder.Errorf(yonder.Unauthenticated, "%s", text)
		},
		"net/rpc": func(token string) (string, error) {
			over, err := new(rpc.Dialer).Transport(ctx, "tcp://"+host)
			if err != nil {
				return "", err
			}
			return invoke((&yonder.Dialer{Interceptors: interceptors(token)}).NewClientOver(over), nil)
		},
		"net/rpc over HTTP with a header": func(token string) (string, error) {
			conn, err := net.Dial("tcp", host)
			if err != nil {
				return "", err
			}
			fmt.Fprintf(conn, "CONNECT /_goRPC_ HTTP/1.0\r\n")
			if token != "" {
				fmt.Fprintf(conn, "Authorization: Bearer %s\r\n", token)
			}
			fmt.Fprintf(conn, "\r\n")
			r := bufio.NewReader(conn)
			for range 2 { // which have nothing behind them yet
				if _, err := r.ReadString('\n'); err != nil {
					return "", err
				}
			}
			c := stdrpc.NewClient(conn)
			defer c.Close()
			var name string
			if err := c.Call("who", struct{}{}, &name); err != nil {
				return "", yonder.Errorf(yonder.Unauthenticated, "%w", err)
			}
			return name, nil
		},
	}
}

// A token is one over every protocol, several are valid at a time, and what is not is refused with
// the same words whatever is wrong with it.
func TestTokens(t *testing.T) {
	tokens := auth.NewTokens(map[string]string{secret: "deploy", second: "deploy"})
	srv := &yonder.Server{Interceptors: []yonder.Interceptor{auth.Require(tokens.Identify)}}
	srv.Register("who", who)
	all := ways(t, serve(t, srv, "127.0.0.1:0"), nil)
	for name, call := range all {
		t.Run(name, func(t *testing.T) {
			for _, token := range []string{secret, second} {
				if name, err := call(token); name != "token:deploy" || err != nil {
					t.Errorf("%q, %v", name, err)
				}
			}
			_, without := call("")
			for _, token := range []string{wrong, secret[:len(secret)-1], secret + "x", strings.ToUpper(secret), "x"} {
				name, err := call(token)
				if name != "" || yonder.CodeOf(err) != yonder.Unauthenticated || !strings.Contains(err.Error(), "it needs valid credentials") {
					t.Errorf("%q, %v", name, err)
				} else if err.Error() != without.Error() {
					t.Errorf("with a wrong token %q, without one %q", err, without)
				}
			}
		})
	}
	tokens.Set(map[string]string{second: "deploy"})
	for name, call := range all {
		if _, err := call(secret); yonder.CodeOf(err) != yonder.Unauthenticated {
			t.Errorf("%s: with a token that is not valid any more: %v", name, err)
		}
		if _, err := call(second); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// No secret is in what is logged, printed or answered.
func TestSecretsStaySecret(t *testing.T) {
	var log safeBuffer
	var texts strings.Builder
	tokens := auth.NewTokens(map[string]string{secret: "deploy"})
	access := func(next yonder.Handler) yonder.Handler {
		return func(ctx context.Context, call *yonder.Call) error {
			err := next(ctx, call)
			log.logger().Info("access", "procedure", call.Procedure, "metadata", call.Metadata, "info", call.Info(), "identity", auth.FromContext(ctx), "error", err)
			return err
		}
	}
	srv := &yonder.Server{Logger: log.logger(), Interceptors: []yonder.Interceptor{access, auth.Identify(tokens.Identify)}}
	srv.Register("who", func(ctx context.Context) string {
		info, _ := yonder.InfoFrom(ctx)
		panic(fmt.Sprintf("%v %+v", info, info.Metadata))
	})
	host := serve(t, srv, "127.0.0.1:0")
	for _, call := range ways(t, host, log.logger()) {
		for _, token := range []string{secret, wrong, ""} {
			_, err := call(token)
			fmt.Fprintf(&texts, "%v %+v\n", err, err)
		}
	}
	// What nobody serves, and what breaks off.
	for _, begin := range []string{
		"BREW / HTTP/1.1\r\nAuthorization: Bearer " + secret + "\r\n\r\n",
		"GET / HTTP/1.1\r\nAuthorization: Bearer " + secret,
		`{"meta":{"authorization":"Bearer ` + secret + `"},`,
		`{"jsonrpc":"2.0","method":"who","meta":{"authorization":"Bearer ` + secret + `"},"id":{}}`,
		`{"jsonrpc":"2.0","method":"who","meta":{"authorization":["Bearer ` + secret + `"]},"id":1}`,
		"x Bearer " + secret,
	} {
		conn, err := net.Dial("tcp", host)
		check(t, err)
		io.WriteString(conn, begin)
		conn.(*net.TCPConn).CloseWrite()
		conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		answer, _ := io.ReadAll(conn)
		texts.Write(answer)
		conn.Close()
	}
	srv.Close()
	fmt.Fprintf(&texts, "%v %+v %#v %s", tokens, tokens, tokens, tokens)
	for _, text := range []string{log.String(), texts.String()} {
		for _, token := range []string{secret, wrong} {
			if i := strings.Index(text, token[:8]); i >= 0 {
				t.Errorf("a secret: %s", text[max(0, i-300):min(len(text), i+100)])
			}
		}
	}
	if log := log.String(); !strings.Contains(log, "(hidden)") || !strings.Contains(log, "panicked") || !strings.Contains(log, "it began with") {
		t.Errorf("this test cannot fail: it has not logged what it is about\n%s", log)
	}
}

func TestRules(t *testing.T) {
	rules := auth.Rules{
		{Procedures: []string{"admin.stop"}, Deny: true},
		{Procedures: []string{"admin.*", "yonder.*"}, From: []string{"token:ops-*", "uid:0"}},
		{Procedures: []string{"admin.*"}, Deny: true},
		{Procedures: []string{"*.list", "a*b*c"}, From: []string{"*"}},
		{Procedures: []string{"health"}},
		{Procedures: nil, From: nil},
	}
	ops, root, ann := &auth.Identity{Names: []string{"token:ops-1"}}, &auth.Identity{Names: []string{"uid:0", "gid:0"}}, &auth.Identity{Names: []string{"cn:ann"}}
	for _, tt := range []struct {
		procedure string
		want      string // who may: ops, root, ann, nobody
	}{
		{"admin.stop", ""},
		{"admin.start", "ops root"},
		{"admin.list", "ops root"},
		{"users.list", "ops root ann"},
		{"abc", "ops root ann"},
		{"a12b34c", "ops root ann"},
		{"abcd", ""},
		{"ab", ""},
		{"health", "ops root ann nobody"},
		{"healthy", ""},
		{"yonder.procedures", "ops root"},
		{"", ""},
	} {
		var have []string
		for _, id := range []struct {
			name string
			*auth.Identity
		}{{"ops", ops}, {"root", root}, {"ann", ann}, {"nobody", nil}} {
			if rules.Allow(id.Identity, tt.procedure) {
				have = append(have, id.name)
			}
		}
		if got := strings.Join(have, " "); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.procedure, got, tt.want)
		}
	}
	if (auth.Rules)(nil).Allow(ops, "health") {
		t.Error("no rules allow something")
	}
}

// Rules refuse those that are known and those that are not with codes of their own, and a source's
// error reaches a caller only if it has a code.
func TestRefusals(t *testing.T) {
	tokens := auth.NewTokens(map[string]string{secret: "deploy"})
	var failure error
	srv := &yonder.Server{Interceptors: []yonder.Interceptor{
		auth.Identify(func(context.Context, yonder.CallInfo) (*auth.Identity, error) { return nil, failure }, tokens.Identify, auth.Local),
		auth.Rules{{Procedures: []string{"open"}}, {Procedures: []string{"who", "yonder.*"}, From: []string{"token:deploy"}}, {Procedures: []string{"here"}, From: []string{"local"}}}.Intercept,
	}}
	for _, name := range []string{"who", "open", "here", "shut"} {
		srv.Register(name, who)
	}
	host := serve(t, srv, "127.0.0.1:0")
	nobody, err := yonder.Dial(t.Context(), host)
	check(t, err)
	defer nobody.Close()
	deploy, err := (&yonder.Dialer{Interceptors: []yonder.Interceptor{auth.Bearer(secret)}}).Dial(t.Context(), host)
	check(t, err)
	defer deploy.Close()
	local := yonder.Local(srv)
	for _, tt := range []struct {
		client    *yonder.Client
		procedure string
		want      string
		code      yonder.Code
	}{
		{nobody, "open", "anonymous", 0},
		{nobody, "who", "", yonder.Unauthenticated},
		{nobody, "shut", "", yonder.Unauthenticated},
		{deploy, "open", "token:deploy", 0},
		{deploy, "who", "token:deploy", 0},
		{deploy, "shut", "", yonder.PermissionDenied},
		{deploy, "here", "", yonder.PermissionDenied},
		{local, "here", "local", 0},
		{local, "who", "", yonder.PermissionDenied},
	} {
		got, err := yonder.Invoke[string](t.Context(), tt.client, tt.procedure)
		if got != tt.want || yonder.CodeOf(err) != tt.code {
			t.Errorf("%s: %q, %v; want %q, %v", tt.procedure, got, err, tt.want, tt.code)
		}
	}
	if _, err := nobody.Procedures(t.Context()); yonder.CodeOf(err) != yonder.Unauthenticated {
		t.Errorf("Procedures: %v", err)
	}
	if list, err := deploy.Procedures(t.Context()); len(list) != 4 || err != nil {
		t.Errorf("Procedures: %v, %v", list, err)
	}
	failure = errors.New("the database at 10.0.0.7 says no") // no call is in flight
	if _, err := yonder.Invoke[string](t.Context(), deploy, "who"); yonder.CodeOf(err) != yonder.Unauthenticated || strings.Contains(err.Error(), "10.0.0.7") {
		t.Error(err)
	}
	failure = yonder.Errorf(yonder.Unavailable, "ask again later")
	if _, err := yonder.Invoke[string](t.Context(), deploy, "who"); yonder.CodeOf(err) != yonder.Unavailable || !strings.Contains(err.Error(), "ask again later") {
		t.Error(err)
	}
}

func TestBearer(t *testing.T) {
	var seen []yonder.Metadata
	next := func(_ context.Context, call *yonder.Call) error {
		seen = append(seen, call.Metadata)
		return nil
	}
	shared := yonder.Metadata{"k": "v"}
	n := 0
	handler := auth.BearerFrom(func(context.Context) (string, error) {
		n++
		if n > 2 {
			return "", errors.New("the vault is shut")
		}
		return fmt.Sprint("token-", n), nil
	})(next)
	for _, m := range []yonder.Metadata{nil, shared, {"authorization": "Basic mine"}} {
		call := yonder.NewCall("f")
		call.Metadata = m
		check(t, handler(t.Context(), call))
	}
	err := handler(t.Context(), yonder.NewCall("f"))
	if yonder.CodeOf(err) != yonder.Unauthenticated || !strings.Contains(err.Error(), "the vault is shut") {
		t.Error(err)
	}
	want := []yonder.Metadata{{"authorization": "Bearer token-1"}, {"authorization": "Bearer token-2", "k": "v"}, {"authorization": "Basic mine"}}
	if diff := cmp.Diff(want, seen); diff != "" || len(shared) != 1 {
		t.Error(diff, shared)
	}
}

func TestMistakes(t *testing.T) {
	for name, set := range map[string]map[string]string{"shorter": {"short": "ann"}, "no name": {secret: ""}} {
		func() {
			defer func() {
				if text := fmt.Sprint(recover()); !strings.Contains(text, name) || strings.Contains(text, secret) {
					t.Errorf("%q", text)
				}
			}()
			auth.NewTokens(set)
		}()
	}
}

// Over a Unix socket the kernel says who calls, whatever protocol that speaks.
func TestSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "yonder") // t.TempDir may be too long for a socket
	check(t, err)
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "socket")
	srv := &yonder.Server{Interceptors: []yonder.Interceptor{auth.Identify(auth.Socket)}}
	srv.Register("who", who)
	srv.Register("process", func(ctx context.Context) (int, error) {
		info, _ := yonder.InfoFrom(ctx)
		c, err := auth.PeerCredentials(info.Conn)
		return c.PID, err
	})
	serve(t, srv, "unix://"+path)
	want := fmt.Sprint("uid:", os.Getuid())
	if runtime.GOOS != "linux" {
		want = "anonymous"
	}
	overSocket := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	transport := &http.Transport{DialContext: overSocket}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	for name, dial := range map[string]func() (*yonder.Client, error){
		"native":   func() (*yonder.Client, error) { return yonder.Dial(t.Context(), "unix://"+path) },
		"JSON-RPC": func() (*yonder.Client, error) { return jsonrpc.Dial(t.Context(), "unix://"+path) },
		"JSON-RPC over HTTP": func() (*yonder.Client, error) {
			return (&jsonrpc.Dialer{HTTP: client}).Dial(t.Context(), "http://localhost/jsonrpc")
		},
		"a WebSocket": func() (*yonder.Client, error) {
			return (&yonder.Dialer{NetDial: (&web.Dialer{Client: client}).NetDial}).Dial(t.Context(), "ws://localhost/yonder")
		},
	} {
		c, err := dial()
		check(t, err)
		defer c.Close()
		if name2, err := yonder.Invoke[string](t.Context(), c, "who"); name2 != want || err != nil {
			t.Errorf("%s: %q, %v; want %q", name, name2, err, want)
		}
		pid, err := yonder.Invoke[int](t.Context(), c, "process")
		switch {
		case runtime.GOOS == "linux" && (pid != os.Getpid() || err != nil):
			t.Errorf("%s: process %d, %v; this is %d", name, pid, err, os.Getpid())
		case runtime.GOOS != "linux" && !errors.Is(err, errors.ErrUnsupported):
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := auth.PeerCredentials(&net.TCPConn{}); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
}

// Tokens are replaced while calls come.
func TestRotation(t *testing.T) {
	tokens := auth.NewTokens(map[string]string{secret: "deploy"})
	info := yonder.CallInfo{Metadata: yonder.Metadata{"authorization": "Bearer " + secret}}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if id, err := tokens.Identify(t.Context(), info); err != nil || id.String() != "token:deploy" {
					t.Errorf("%v, %v", id, err)
					return
				}
			}
		})
	}
	for i := range 100 {
		tokens.Set(map[string]string{secret: "deploy", fmt.Sprint(second, i): "deploy"})
	}
	close(stop)
	wg.Wait()
}

func BenchmarkTokens(b *testing.B) {
	tokens := auth.NewTokens(map[string]string{secret: "deploy", second: "other"})
	info := yonder.CallInfo{Metadata: yonder.Metadata{"authorization": "Bearer " + secret}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tokens.Identify(b.Context(), info); err != nil {
			b.Fatal(err)
		}
	}
}
