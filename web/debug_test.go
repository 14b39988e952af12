package web_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/web"
)

// get makes a request of a handler, as it would come over a loopback address.
func get(t *testing.T, h http.Handler, method, target string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, target, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// The page stands alone, and lets nothing into it or out of it.
func TestDebug(t *testing.T) {
	const hostile = "</script><img src=x onerror=alert(1)>"
	srv := &yonder.Server{Measure: true, HideProcedures: true, Resume: &yonder.Resumption{Secret: rand.Text}}
	srv.Add(yonder.Procedure{Name: hostile, Doc: hostile, Func: func() error { return yonder.Errorf(yonder.Aborted, "%s", hostile) }})
	srv.Add(yonder.Procedure{Name: "admin", Func: func(n int) error { return nil }, Protocols: []string{"yonder"}})
	yonder.Local(srv).Call(t.Context(), yonder.NewCall(hostile))
	h := web.Debug(srv)
	w := get(t, h, "GET", "/debug/yonder")
	page, policy := w.Body.String(), w.Header().Get("Content-Security-Policy")
	if w.Code != 200 || w.Header().Get("Content-Type") != "text/html; charset=utf-8" || w.Header().Get("X-Content-Type-Options") != "nosniff" {
		t.Fatal(w.Code, w.Header())
	}
	if !strings.HasPrefix(policy, "default-src 'none'; script-src 'sha256-") || strings.Contains(policy, "unsafe") {
		t.Errorf("policy %q", policy)
	}
	if found := regexp.MustCompile(`https?:|//[a-z]+\.|src=|href=|innerHTML|\son[a-z]+=|STYLE|SCRIPT`).FindString(page); found != "" {
		t.Errorf("the page has %q", found)
	}
	w = get(t, h, "GET", "/debug/yonder?format=json")
	if text := w.Body.String(); strings.ContainsAny(text, "<>") || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("markup in %s", text)
	}
	var got struct {
		Ready, Measured, Resumes bool
		Procedures               []yonder.ProcedureInfo
		Stats                    yonder.Stats
		Latency                  map[string]struct{ Mean float64 }
	}
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if !got.Ready || !got.Measured || !got.Resumes || len(got.Procedures) != 2 || got.Procedures[1].Go != "func(int) error" ||
		got.Stats.Calls[hostile].Errors[yonder.Aborted] != 1 || got.Latency[hostile].Mean <= 0 {
		t.Errorf("%+v", got)
	}
	for _, tt := range []struct {
		method, target string
		header         []string
		status         int
	}{
		{"HEAD", "/debug/yonder", nil, 200},
		{"POST", "/debug/yonder", nil, 405},
		{"GET", "/debug/yonder?format=xml", nil, 400},
		{"GET", "/debug/yonder?format=json", []string{"Origin", "http://evil.example"}, 403},
		{"GET", "/debug/yonder?format=json", []string{"Origin", "http://example.com"}, 200}, // the same as the host's
	} {
		if w := get(t, h, tt.method, tt.target, tt.header...); w.Code != tt.status {
			t.Errorf("%v: %d", tt, w.Code)
		}
	}
	// Over a loopback address, a name of a stranger's is refused here as well.
	site := httptest.NewServer(h)
	defer site.Close()
	defer http.DefaultClient.CloseIdleConnections()
	r, err := http.NewRequestWithContext(t.Context(), "GET", site.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "evil.example"
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 403 {
		t.Errorf("rebound: %s", resp.Status)
	}
}

// Alive is what serves, ready what the program wants calls for.
func TestReady(t *testing.T) {
	var reason atomic.Pointer[error]
	srv := &yonder.Server{Ready: func(ctx context.Context) error {
		if p := reason.Load(); p != nil {
			return *p
		}
		return nil
	}}
	h := web.Handler(srv)
	want := func(path string, status int, text string) {
		t.Helper()
		if w := get(t, h, "GET", path); w.Code != status || w.Body.String() != text {
			t.Errorf("%s: %d %q, want %d %q", path, w.Code, w.Body, status, text)
		}
	}
	want("/healthz", 200, "ok\n")
	want("/readyz", 200, "ok\n")
	cold := errors.New("the cache is cold")
	reason.Store(&cold)
	want("/healthz", 200, "ok\n")
	want("/readyz", 503, "not ready: the cache is cold\n")
	reason.Store(nil)
	want("/readyz", 200, "ok\n")

	// It turns off when Shutdown begins, while a call goes on.
	entered, leave := make(chan bool), make(chan bool)
	srv.Register("wait", func() { entered <- true; <-leave })
	srv.Logger = logger(t)
	c := dial(t, new(yonder.Dialer), serve(t, srv))
	var wg sync.WaitGroup
	wg.Go(func() { c.Call(t.Context(), yonder.NewCall("wait")) })
	<-entered
	wg.Go(func() { srv.Shutdown(t.Context()) })
	for srv.Serving() {
	}
	want("/readyz", 503, "shutting down\n")
	want("/healthz", 503, "shutting down\n")
	leave <- true
	wg.Wait()
}

// A handler of the program's that panics is an error in the log, in one line.
func TestPanicLog(t *testing.T) {
	var mu sync.Mutex
	var logged strings.Builder
	srv := server(t, &web.Config{Other: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("boom") })})
	srv.Logger = slog.New(slog.NewTextHandler(writerFunc(func(b []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return logged.Write(b)
	}), nil))
	conn := open(t, serve(t, srv))
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
	io.Copy(io.Discard, conn)
	srv.Close()
	mu.Lock()
	defer mu.Unlock()
	if text := logged.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, " level=ERROR ") || !strings.Contains(text, ": boom") || !strings.Contains(text, " protocol=http stack=") {
		t.Errorf("%s", text)
	}
}

type writerFunc func(b []byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
