package interop

import (
	"net/http/httptest"
	"testing"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/web"
)

// The page shows in a browser what the server says, goes on by itself, and takes no text for
// markup.
func TestDebugPage(t *testing.T) {
	const hostile = `<img src=x onerror="window.hacked=true">`
	srv := &yonder.Server{Measure: true}
	srv.Register("greet", func(name string) string { return "hello, " + name })
	srv.Add(yonder.Procedure{Name: hostile, Doc: hostile, Func: func() error { return yonder.Errorf(yonder.Aborted, "no") }})
	t.Cleanup(func() { srv.Close() })
	site := httptest.NewServer(web.Debug(srv))
	t.Cleanup(site.Close)
	c := yonder.Local(srv)
	greet := yonder.Remote[string, string](c, "greet")
	greet(t.Context(), "ann")
	c.Call(t.Context(), yonder.NewCall(hostile))

	browser := browse(t)
	if status := visit(t, browser, site.URL); status != 200 {
		t.Fatalf("status %d", status)
	}
	const row = `(async (name, calls) => {
		for (let i = 0; i < 200; i++) {
			const tr = [...document.querySelectorAll("#calls tbody tr")].find(tr => tr.cells[0].textContent.startsWith(name));
			if (tr && tr.cells[1].textContent === calls) return [tr.cells[0].textContent, tr.cells[5].textContent, tr.cells[6].textContent !== ""];
			await new Promise(done => setTimeout(done, 50));
		}
		return document.body.innerText;
	})(%s, %s)`
	eval(t, browser, `["greetfunc(string) (string, error)","",true]`, row, "greet", "1")
	greet(t.Context(), "ben")
	eval(t, browser, `["greetfunc(string) (string, error)","",true]`, row, "greet", "2")
	eval(t, browser, `["<img src=x onerror=\"window.hacked=true\">func() error","aborted 1",true]`, row, hostile, "1")
	eval(t, browser, `["ready",0,false]`, `Promise.resolve([document.getElementById("state").textContent, document.images.length, "hacked" in window])`)
	eval(t, browser, `"refused"`, `(async () => { const s = document.createElement("script"); s.textContent = "window.hacked = true"; document.body.append(s); return "hacked" in window ? "it ran" : "refused" })()`)
}
