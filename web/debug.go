package web

import (
	"crypto/sha256"
	_ "embed" // for the page
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/yonder-rpc/yonder"
)

var (
	//go:embed debug.html
	debugPage string
	//go:embed debug.css
	debugStyle string
	//go:embed debug.js
	debugScript string
)

// Debug returns a page that shows what srv does: its procedures, with their signatures, how often
// they are called, how many calls are in flight and fail, how long they take, and connections.
// It is renewed every second. The address with ?format=json has the same for programs.
//
//	mux := http.NewServeMux()
//	mux.Handle("/debug/yonder", web.Debug(srv))
//
// Nothing mounts it by itself. Whoever can open it sees the names, signatures and documentation of
// all procedures, those that [yonder.Procedure.Protocols] keeps off HTTP and
// [yonder.Server.HideProcedures] hides included, and what [yonder.Server.Ready] says; it shows no
// arguments, results, metadata or peers, and changes nothing. Mount it where operators are: on an
// address of its own, or behind who checks that they are. As everything in this package it refuses
// strangers' pages, and names of a loopback address that are not this machine's.
//
// Counts of calls need [yonder.Server.Measure].
func Debug(srv *yonder.Server) http.Handler { return new(Config).Debug(srv) }

// Debug is the function of the same name, configured.
func (c *Config) Debug(srv *yonder.Server) http.Handler {
	page := strings.NewReplacer("STYLE", debugStyle, "SCRIPT", debugScript).Replace(debugPage)
	// Nothing but this script runs and this style counts, and it talks to nobody else.
	policy := "default-src 'none'; script-src " + hashOf(debugScript) + "; style-src " + hashOf(debugStyle) +
		"; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	began := time.Now()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Content-Security-Policy", policy)
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("Cache-Control", "no-store")
		if why := c.refusal(r); why != "" {
			http.Error(w, why, http.StatusForbidden)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			header.Set("Allow", "GET, HEAD")
			http.Error(w, "this page is to be read only", http.StatusMethodNotAllowed)
			return
		}
		switch format := r.URL.Query().Get("format"); format {
		case "":
			header.Set("Content-Type", "text/html; charset=utf-8")
			io.WriteString(w, page)
		case "json":
			header.Set("Content-Type", "application/json")
			json.NewEncoder(w).Encode(look(r, srv, began))
		default:
			http.Error(w, "there is ?format=json", http.StatusBadRequest)
		}
	})
}

// hashOf is how a policy knows a text.
func hashOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// view is what the page shows.
type view struct {
	Time       int64                  `json:"time"` // in milliseconds, since some moment: a wall clock may jump
	Ready      bool                   `json:"ready"`
	Reason     string                 `json:"reason,omitempty"`
	Measured   bool                   `json:"measured"`
	Resumes    bool                   `json:"resumes"`
	Procedures []yonder.ProcedureInfo `json:"procedures"`
	Stats      yonder.Stats           `json:"stats"`
	Latency    map[string]latency     `json:"latency"`
}

// latency is of one procedure, in seconds.
type latency struct {
	Median float64 `json:"median"`
	P99    float64 `json:"p99"`
	Mean   float64 `json:"mean"`
}

func look(r *http.Request, srv *yonder.Server, since time.Time) view {
	err := srv.Health(r.Context())
	v := view{
		Time: time.Since(since).Milliseconds(), Ready: err == nil, Measured: srv.Measure, Resumes: srv.Resume != nil,
		Procedures: srv.Procedures(), Stats: srv.Stats(), Latency: make(map[string]latency),
	}
	if err != nil {
		v.Reason = err.Error()
	}
	for name, calls := range v.Stats.Calls {
		if h := calls.Latency; h.Count > 0 {
			v.Latency[name] = latency{h.Quantile(0.5), h.Quantile(0.99), h.Sum / float64(h.Count)}
		}
	}
	return v
}
