package interop

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/web"
)

// browse starts a browser without a window that stays until the test ends. The names resolve to
// this machine.
func browse(t *testing.T, names ...string) context.Context {
	t.Helper()
	path := program(t, "apt-get install chromium", "chromium", "/usr/bin/chromium", "chromium-browser", "google-chrome")
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()),
		chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun,
	}
	for _, flag := range []string{"disable-quic", "disable-background-networking", "disable-component-update", "disable-sync"} {
		options = append(options, chromedp.Flag(flag, true))
	}
	var rules []string
	for _, name := range names {
		rules = append(rules, "MAP "+name+" 127.0.0.1")
	}
	options = append(options, chromedp.Flag("host-resolver-rules", strings.Join(rules, ",")))
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil {
			t.Error(err)
		}
	})
	return ctx
}

// visit has the browser show a page, and returns the status that it came with.
func visit(t *testing.T, browser context.Context, url string) int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(browser, patience)
	defer cancel()
	response, err := chromedp.Run(ctx, chromedp.NavigateResponse(url))
	if err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	return response.Status
}

// eval has the page evaluate a promise, and compares what that becomes.
func eval(t *testing.T, browser context.Context, want, format string, args ...any) {
	t.Helper()
	for i, a := range args {
		text, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		args[i] = string(text)
	}
	script := fmt.Sprintf(format, args...)
	ctx, cancel := context.WithTimeout(browser, patience)
	defer cancel()
	got, err := chromedp.Run(ctx, chromedp.Evaluate[string](script+`.then(v => JSON.stringify(v))`, chromedp.EvalAwaitPromise))
	if err != nil || got != want {
		t.Errorf("%s: %s, %v\nwant %s", script, got, err, want)
	}
}

const (
	// What a page that may call gets.
	served = `{"hello":"Hello, browser","named":19,"error":{"code":7,"message":"own","data":{"a":1}},"batch":[2,-32601],"stream":[0,1,2],"many":true}`
	posted = `{"jsonrpc":"2.0","result":"Hello, fetch","id":1}`
)

func page(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, "testdata/page.html") }

// A page in a browser calls the server that it is from, and others only if they let it.
func TestBrowser(t *testing.T) {
	friend := httptest.NewServer(http.HandlerFunc(page))
	stranger := httptest.NewServer(http.HandlerFunc(page))
	p := open(t, &web.Config{Other: http.HandlerFunc(page), Origins: []string{friend.URL}}, yonder.Limits{})
	t.Cleanup(func() { friend.Close(); stranger.Close() })
	browser := browse(t, "rebound.example")
	p.srv.Register("count", func(n int) func(func(int) bool) {
		return func(yield func(int) bool) {
			for i := range n {
				if !yield(i) {
					return
				}
			}
		}
	})

	_, number, _ := net.SplitHostPort(p.address)
	for _, from := range []string{"http://" + p.address, "http://localhost:" + number, friend.URL} {
		host := strings.TrimPrefix(from, "http://")
		if from == friend.URL {
			host = p.address
		}
		if status := visit(t, browser, from); status != http.StatusOK {
			t.Fatalf("%s: status %d", from, status)
		}
		eval(t, browser, served, `overWebSocket(%s)`, host)
		p.wantNotes(t, "from a page", "in a batch")
		eval(t, browser, posted, `post(%s, "HelloService.Hello", ["fetch"])`, host)
	}

	visit(t, browser, stranger.URL)
	eval(t, browser, `{"failed":"closed: 1006"}`, `overWebSocket(%s)`, p.address)
	eval(t, browser, `{"failed":"TypeError"}`, `post(%s, "Notes.Note", ["asked first"])`, p.address)
	eval(t, browser, `{"failed":"TypeError"}`, `post(%s, "Notes.Note", ["plain"], "text/plain")`, p.address)
	eval(t, browser, `{"failed":"opaque"}`, `postBlindly(%s, "Notes.Note", ["blind"])`, p.address)
	p.wantNoNote(t) // each of those has been answered, and would have been noted

	// Even a page of the server's own may not send what a form could.
	visit(t, browser, "http://"+p.address)
	eval(t, browser, `{"failed":415}`, `post(%s, "Notes.Note", ["plain"], "text/plain")`, p.address)

	// A name of a stranger's that has been made to resolve to this machine.
	if status := visit(t, browser, "http://rebound.example:"+number); status != http.StatusForbidden {
		t.Errorf("the page of a name that is not the server's: status %d", status)
	}
	visit(t, browser, strings.Replace(stranger.URL, "127.0.0.1", "rebound.example", 1))
	eval(t, browser, `{"failed":"closed: 1006"}`, `overWebSocket(%s)`, "rebound.example:"+number)
	eval(t, browser, `{"failed":"opaque"}`, `postBlindly(%s, "Notes.Note", ["rebound"])`, "rebound.example:"+number)
	p.wantNoNote(t)
}
