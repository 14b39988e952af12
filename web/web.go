// Package web brings a yonder server to HTTP: to browsers, to proxies that let nothing else
// through, and to load balancers that ask how it is.
//
//	srv := &yonder.Server{Protocols: []yonder.Protocol{web.Protocol}}   // beside the others, on their port
//	http.Handle("/", web.Handler(srv))                                  // or on a server of the program's
//
// What is there:
//
//	/yonder     yonder's own protocol over a WebSocket, for [Dial]
//	/jsonrpc    JSON-RPC, by POST and over WebSockets, of package jsonrpc
//	/_goRPC_    CONNECT, after which the connection is the server's, as package net/rpc's DialHTTP wants it
//	/healthz    200 while the server takes calls, then 503
//	/readyz     200 while the program wants some, too, by [yonder.Server.Ready]; the reason why not
//
// [Debug] is a page for operators, which a program mounts where they are.
//
// # Strangers
//
// A browser shows any page that its user is led to, and that page may send requests to any
// address, those of the user's own machine included. So a request with an Origin header, which
// is one from a page, is refused unless the page came from the same host or [Config.Origins] has
// it. And a request that comes over a loopback address is refused unless its Host header is one
// of this machine's own names, an IP address of loopback or in [Config.Hosts]: a name of a
// stranger's that resolves to the user's machine makes its pages the same origin.
//
// # TLS
//
// It is a listener's business: package tlsconn makes one, and has all protocols over TLS on one
// port, these too. Another's configuration must not offer HTTP/2, which web.Protocol does not
// speak. Package tlsconn finds who the peer of a call is, too.
package web

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/coder/websocket"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/jsonrpc"
)

// Config says how a server is on the web. Its zero value is ready to use. It must not be changed
// once it is used.
type Config struct {
	// JSONRPC makes what serves /jsonrpc. Nil: package jsonrpc does, with Origins and Hosts;
	// to leave it out, give one that returns http.NotFoundHandler().
	JSONRPC func(s *yonder.Server) http.Handler
	// Other serves all other paths, such as the pages of a program that calls the server. It
	// must not keep a connection that it hijacks beyond its return. Nil: nothing does.
	Other http.Handler
	// Origins are those of pages from other hosts that may send requests, such as
	// "https://app.example"; "*" is any. Nil: none.
	Origins []string
	// Hosts are names, without a port, that requests over a loopback address may be for, besides
	// its own; "*" is any. A proxy on the same machine that passes on the Host header needs the
	// names that it has. Nil: no more.
	Hosts []string
}

// Handler returns a handler that has srv on the web. It serves its paths wherever it is mounted;
// http.StripPrefix moves them.
func Handler(srv *yonder.Server) http.Handler { return new(Config).Handler(srv) }

// Handler is the function of the same name, configured.
func (c *Config) Handler(srv *yonder.Server) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) {
		if srv.Serving() {
			answer(w, nil)
		} else {
			answer(w, errDraining)
		}
	})
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, r *http.Request) {
		err := srv.Health(r.Context())
		if !srv.Serving() {
			err = errDraining
		}
		answer(w, err)
	})
	mux.HandleFunc("/yonder", func(w http.ResponseWriter, r *http.Request) { serveWebSocket(w, r, srv) })
	mux.HandleFunc("/_goRPC_", func(w http.ResponseWriter, r *http.Request) { serveConnect(w, r, srv) })
	serveJSON := c.JSONRPC
	if serveJSON == nil {
		serveJSON = (&jsonrpc.Config{Origins: c.Origins, Hosts: c.Hosts}).Handler
	}
	mux.Handle("/jsonrpc", serveJSON(srv))
	if c.Other != nil {
		mux.Handle("/", c.Other)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if why := c.refusal(r); why != "" {
			http.Error(w, why, http.StatusForbidden)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// refusal is why a request is not served; "": it is.
func (c *Config) refusal(r *http.Request) string {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if local != nil && local.IP.IsLoopback() && r.Host != "" && !c.isOwn(r.Host) { // browsers have a Host header, package net/rpc has none
		return fmt.Sprintf("host %q is not a name of this server; its Hosts may be given it", r.Host)
	}
	for _, origin := range r.Header.Values("Origin") {
		u, err := url.Parse(origin)
		same := err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host)
		if !same && !slices.Contains(c.Origins, origin) && !slices.Contains(c.Origins, "*") {
			return fmt.Sprintf("pages from %q may not call this server; its Origins may be given it", origin)
		}
	}
	return ""
}

// isOwn reports whether a Host header names this machine.
func (c *Config) isOwn(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.ToLower(strings.Trim(name, "[]"))
	ip := net.ParseIP(name)
	return name == "localhost" || strings.HasSuffix(name, ".localhost") || ip != nil && ip.IsLoopback() ||
		slices.ContainsFunc(c.Hosts, func(h string) bool { return h == "*" || strings.EqualFold(h, name) })
}

var errDraining = errors.New("shutting down")

// answer answers who asks how the server is.
func answer(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		io.WriteString(w, strings.TrimPrefix(err.Error(), "yonder: ")+"\n")
		return
	}
	io.WriteString(w, "ok\n")
}

// goingAway answers requests for a connection when no new one is served.
func goingAway(w http.ResponseWriter) {
	http.Error(w, "the server is shutting down", http.StatusServiceUnavailable)
}

func serveWebSocket(w http.ResponseWriter, r *http.Request, srv *yonder.Server) {
	if !srv.Serving() {
		goingAway(w)
		return
	}
	taken := &hijacker{ResponseWriter: w}
	ws, err := websocket.Accept(taken, r, &websocket.AcceptOptions{InsecureSkipVerify: true}) // Handler has judged the origin
	if err != nil {
		return // it has answered
	}
	s := newSocket(ws, taken.conn)
	s.authorization = r.Header.Get("Authorization")
	srv.ServeConn(s) // it logs what there is to say
}

// serveConnect hands over the connection as package net/rpc's server does.
func serveConnect(w http.ResponseWriter, r *http.Request, srv *yonder.Server) {
	switch {
	case r.Method != http.MethodConnect:
		w.Header().Set("Allow", http.MethodConnect)
		http.Error(w, "405 must CONNECT", http.StatusMethodNotAllowed)
		return
	case !srv.Serving():
		goingAway(w)
		return
	}
	conn, buffer, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotImplemented)
		return
	}
	t := &tunnel{Conn: conn, authorization: r.Header.Get("Authorization")}
	t.read, _ = buffer.Reader.Peek(buffer.Reader.Buffered())
	if _, err := io.WriteString(conn, "HTTP/1.0 200 Connected to Go RPC\n\n"); err != nil {
		conn.Close()
		return
	}
	srv.ServeConn(t)
}
