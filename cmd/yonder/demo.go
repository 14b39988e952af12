package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/jsonrpc"
	"github.com/yonder-rpc/yonder/net/rpc"
	"github.com/yonder-rpc/yonder/session"
	"github.com/yonder-rpc/yonder/tlsconn"
	"github.com/yonder-rpc/yonder/web"
)

// drainTime is how long calls in flight may go on once the demo is told to stop.
const drainTime = 10 * time.Second

func demoCommand() *cobra.Command {
	var o demoOptions
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Serve example functions to try things on",
		Long: `Demo serves a dozen example functions, and says how to call them: over yonder's
own protocol, and on the same port over net/rpc, JSON-RPC, HTTP, WebSockets and
the small session protocol. When it is ready it prints "listening on ADDR".

With --tls all that is over TLS, with a certificate that is made for this run and
kept in memory; what clients need to believe it is in the commands that the demo
prints.

Ctrl-C stops it: calls in flight have 10 seconds to end, and the exit status is
0. A second Ctrl-C stops it at once.`,
		Example: `  yonder demo
  yonder demo --listen 127.0.0.1:0           any free port
  yonder demo --listen unix:///tmp/yonder    a Unix socket
  yonder demo --tls                          over TLS, all protocols`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return demo(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), o)
		},
	}
	cmd.Flags().BoolVar(&o.tls, "tls", false, "serve over TLS, with a certificate made for this run")
	cmd.Flags().StringVar(&o.certificate, "tls-cert", "", "serve over TLS, and write the certificate to this `file`, for clients that want one")
	cmd.Flags().StringVar(&o.address, "listen", "127.0.0.1:1234", "`address` to listen on: host:port or unix:///path; port 0 is any free one")
	return cmd
}

// demoOptions are what the command line says.
type demoOptions struct {
	address     string
	tls         bool
	certificate string // file to write it to; it means tls
}

// demo serves until ctx ends.
func demo(ctx context.Context, stdout, stderr io.Writer, o demoOptions) error {
	if address, ok := strings.CutPrefix(o.address, "tls://"); ok {
		o.address, o.tls = address, true
	}
	l, err := listen(o.address)
	if err != nil {
		return err
	}
	var pin string
	if o.tls || o.certificate != "" {
		if l, pin, err = secure(l, o); err != nil {
			return err
		}
	}
	pages := http.NewServeMux()
	overHTTP := web.Config{Other: pages}
	srv := yonder.Server{
		Codecs:    []yonder.Codec{yonder.JSON},
		Logger:    slog.New(slog.NewTextHandler(stderr, nil)),
		Protocols: []yonder.Protocol{rpc.Protocol, jsonrpc.Protocol, session.Protocol, overHTTP.Protocol()},
		Measure:   true,
	}
	pages.Handle("/debug/yonder", overHTTP.Debug(&srv))
	for _, p := range demoProcedures() {
		srv.Add(p)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }() // ends with Shutdown
	addr := l.Addr().String()
	more, target := others(addr), addr
	switch {
	case pin != "":
		flag := "--pin " + pin
		if o.certificate != "" {
			file := o.certificate
			if whole, err := filepath.Abs(file); err == nil {
				file = whole // another terminal may be elsewhere
			}
			flag, o.certificate = "--ca "+quote(file), file
		}
		more, addr = othersTLS(addr, pin, o.certificate), "tls://"+addr
		target = flag + " " + addr
	case l.Addr().Network() == "unix":
		addr, more = "unix://"+addr, ""
		target = addr
	}
	fmt.Fprintf(stdout, "listening on %s\n", addr)
	if pin != "" {
		fmt.Fprintf(stdout, "\nThe certificate was made for this run. The pin of its key is\n%s\n", pin)
	}
	fmt.Fprintf(stdout, "%s%s\nCtrl-C stops the server.\n", hints(self(), target), more)
	select {
	case err := <-served:
		return fmt.Errorf("serving ended: %w", err)
	case <-ctx.Done():
	}
	fmt.Fprintf(stderr, "stopping: calls in flight have %v to end; Ctrl-C again stops at once\n", drainTime)
	drain, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	if err := srv.Shutdown(drain); err != nil {
		fmt.Fprintf(stderr, "calls that were still running after %v were cut off\n", drainTime)
	}
	<-served
	return nil
}

// listen listens on an address as clients give it.
func listen(address string) (net.Listener, error) {
	network, addr := "tcp", strings.TrimPrefix(address, "tcp://")
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		network, addr = "unix", path
	} else if _, _, err := net.SplitHostPort(addr); err != nil {
		return nil, usageError{fmt.Sprintf("--listen %q is not an address: use host:port, such as 127.0.0.1:1234, or unix:///path", address), ""}
	}
	l, err := net.Listen(network, addr)
	if errors.Is(err, syscall.EADDRINUSE) && network == "unix" {
		return nil, fmt.Errorf("cannot listen on %s: there is a socket already; if nobody listens on it any more, remove the file", address)
	} else if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("cannot listen on %s: another program does already; stop it, or have any free port with --listen 127.0.0.1:0", address)
	} else if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", address, err)
	}
	return l, nil
}

// secure puts TLS over a listener, with a certificate of its own, and returns the pin of its key.
func secure(l net.Listener, o demoOptions) (over net.Listener, pin string, err error) {
	defer func() {
		if err != nil {
			l.Close()
		}
	}()
	if l.Addr().Network() != "tcp" {
		return nil, "", usageError{"--tls is for TCP; a Unix socket is protected by the permissions of its file", ""}
	}
	host, _, _ := net.SplitHostPort(l.Addr().String())
	cert, err := newCertificate(host)
	if err != nil {
		return nil, "", err
	}
	if o.certificate != "" {
		if err := writeCertificate(o.certificate, cert); err != nil {
			return nil, "", fmt.Errorf("the certificate cannot be written: %w", err)
		}
	}
	config, err := (&tlsconn.Config{Own: cert}).Server()
	if err != nil {
		return nil, "", err
	}
	return tls.NewListener(l, config), tlsconn.Pin(cert.Leaf), nil
}

// quote returns a word as a shell reads it.
func quote(word string) string {
	if !strings.ContainsFunc(word, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("/._-+=:,@", r)
	}) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// hints says what to try on a demo at addr, as commands to copy.
func hints(yonder, addr string) string {
	const text = `
In another terminal, see what there is:

  yonder ls ADDR

Call a function. Arguments are JSON; a bare word is a string:

  yonder call ADDR HelloService.Hello World
  yonder call ADDR CalcService.CalcTwoNumber '{"Number1": 6, "Number2": 7, "Operator": "*"}'
  yonder call ADDR queryUser 1
  yonder call ADDR sum 1 2 4

Have an error, with its code and an exit status of its own:

  yonder call ADDR queryUser 7

Read a stream as it comes, send one, be called back:

  yonder call ADDR countdown 3 500ms
  echo hello | yonder call ADDR sha256 -
  yonder call ADDR walk .

Ask whether the server is ready:

  yonder call ADDR yonder.health
`
	return strings.ReplaceAll(strings.ReplaceAll(text, "yonder ", yonder+" "), "ADDR", addr)
}

// others says how to call a demo at the TCP address addr without yonder.
func others(addr string) string {
	const text = `
Programs that know nothing of yonder call the same functions on the same port.

JSON-RPC, 1.0 or 2.0, over TCP, HTTP and WebSockets:

	echo '{"method":"HelloService.Hello","params":["JSON-RPC"],"id":1}' | nc -w 1 HOST PORT
	curl -X POST http://ADDR/jsonrpc --data '{"method":"HelloService.Hello","params":["world"],"id":0}'
	echo '{"jsonrpc":"2.0","method":"subtract","params":{"minuend":42,"subtrahend":23},"id":3}' | websocat ws://ADDR/jsonrpc

Go's net/rpc (or rpc.DialHTTP, or package net/rpc/jsonrpc):

	client, err := rpc.Dial("tcp", "ADDR")
	var reply string
	err = client.Call("HelloService.Hello", "world", &reply)

The session protocol, by package session or the program it comes from:

	conn, err := net.Dial("tcp", "ADDR")
	var query func(int) (User, error)
	session.NewClient(conn).Call("queryUser", &query)
	user, err := query(1)

Health, and what the server does, live:

	curl http://ADDR/healthz
	curl http://ADDR/readyz
	open http://ADDR/debug/yonder in a browser
`
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return ""
	}
	return strings.NewReplacer("ADDR", addr, "HOST", host, "PORT", port).Replace(text)
}

// othersTLS is others over TLS. pin is of the server's key, and file, if it is not "", has its
// certificate.
func othersTLS(addr, pin, file string) string {
	const text = `
Programs that know nothing of yonder call the same functions on the same port.

JSON-RPC, 1.0 or 2.0, over HTTP and TCP:

	curl CURL https://ADDR/jsonrpc --data '{"method":"HelloService.Hello","params":["world"],"id":0}'
	(echo '{"method":"HelloService.Hello","params":["JSON-RPC"],"id":1}'; sleep 1) | openssl s_client OPENSSL -quiet -no_ign_eof -connect ADDR 2>/dev/null

Go's net/rpc, over a *tls.Conn:

	conn, err := tls.Dial("tcp", "ADDR", config)
	err = rpc.NewClient(conn).Call("HelloService.Hello", "world", &reply)

Health, and what the server does, live:

	curl CURL https://ADDR/healthz
	curl CURL https://ADDR/readyz
	open https://ADDR/debug/yonder in a browser
`
	curl, openssl := "--insecure --pinnedpubkey "+pin, ""
	if file != "" {
		curl, openssl = "--cacert "+quote(file), "-verify_return_error -CAfile "+quote(file)
	}
	shown := strings.NewReplacer("ADDR", addr, "CURL", curl, "OPENSSL", openssl).Replace(text)
	return strings.ReplaceAll(shown, "s_client  ", "s_client ")
}

// self returns the command that runs this program: it is in no directory of the
// PATH if it was started by go run.
func self() string {
	exe, err := os.Executable()
	if err != nil || !strings.Contains(exe, "go-build") {
		return "yonder"
	}
	if _, err := os.Stat(filepath.Join("cmd", "yonder", "main.go")); err != nil {
		return "yonder"
	}
	return "go run ./cmd/yonder"
}
