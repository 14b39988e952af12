package rpc

import (
	"cmp"
	"fmt"
	"html"
	"io"
	"log"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// Paths of [HandleHTTP].
const (
	DefaultRPCPath   = "/_goRPC_"
	DefaultDebugPath = "/debug/rpc"
)

// connected is the status of an answer to CONNECT.
const connected = "200 Connected to Go RPC"

// HandleHTTP calls [Server.HandleHTTP] of the [DefaultServer], with [DefaultRPCPath] and
// [DefaultDebugPath].
func HandleHTTP() { DefaultServer.HandleHTTP(DefaultRPCPath, DefaultDebugPath) }

// HandleHTTP has [http.DefaultServeMux] serve calls at rpcPath, and at debugPath a page
// that lists the services. On another mux, mount the server itself, which is a handler.
func (server *Server) HandleHTTP(rpcPath, debugPath string) {
	http.Handle(rpcPath, server)
	http.Handle(debugPath, debugPage{server})
}

// ServeHTTP takes over the connection of a CONNECT request and serves calls on it.
func (server *Server) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.Method != http.MethodConnect {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(http.StatusMethodNotAllowed)
		io.WriteString(w, "405 must CONNECT\n")
		return
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		log.Print("rpc hijacking ", req.RemoteAddr, ": ", err.Error())
		return
	}
	io.WriteString(conn, "HTTP/1.0 "+connected+"\n\n")
	server.ServeConn(conn)
}

// debugPage lists a server's services. It is written by hand, so that programs
// without it do not carry html/template.
type debugPage struct{ server *Server }

func (d debugPage) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	var b strings.Builder
	b.WriteString("<html>\n\t<body>\n\t<title>Services</title>\n\t")
	if r := d.server.registry.Load(); r != nil {
		for _, name := range slices.Sorted(maps.Keys(r.services)) {
			r.services[name].page(&b)
		}
	}
	b.WriteString("\n\t</body>\n\t</html>")
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	io.WriteString(w, b.String())
}

// page appends a service's table.
func (s *service) page(b *strings.Builder) {
	fmt.Fprintf(b, "\n\t<hr>\n\tService %s\n\t<hr>\n\t\t<table>\n"+
		"\t\t<th align=center>Method</th><th align=center>Calls</th>\n\t\t", html.EscapeString(s.name))
	methods := slices.SortedFunc(maps.Values(s.methods), func(a, b *method) int { return cmp.Compare(a.name, b.name) })
	for _, m := range methods {
		params := m.arg.String() + ", " + m.reply.String()
		if m.context {
			params = "context.Context, " + params
		}
		fmt.Fprintf(b, "\n\t\t\t<tr>\n\t\t\t<td align=left font=fixed>%s(%s) error</td>\n"+
			"\t\t\t<td align=center>%d</td>\n\t\t\t</tr>\n\t\t", m.name, html.EscapeString(params), m.calls.Load())
	}
	b.WriteString("\n\t\t</table>\n\t")
}
