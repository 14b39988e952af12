package main

import (
	"bufio"
	"context"
	"encoding/gob"
	"fmt"
	"io"
	"net"
	"net/http"
	stdrpc "net/rpc"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/yonder-rpc/yonder/jsonrpc"
	"github.com/yonder-rpc/yonder/session"
)

// With TLS the demo is called by the commands that it prints, of other programs too.
func TestOthersTLS(t *testing.T) {
	for _, file := range []string{"", filepath.Join(t.TempDir(), "a file.pem")} {
		ctx, stop := context.WithCancel(t.Context())
		out, in := io.Pipe()
		ended := make(chan error, 1)
		go func() {
			ended <- demo(ctx, in, io.Discard, demoOptions{address: "tls://127.0.0.1:0", certificate: file})
		}()
		commands := 0
		lines := bufio.NewScanner(out)
		for lines.Scan() && !strings.HasPrefix(lines.Text(), "Ctrl-C") {
			command, ok := strings.CutPrefix(lines.Text(), "\t")
			program := "curl"
			if strings.HasPrefix(command, "(echo") {
				program = "openssl"
			}
			if !ok || !strings.HasPrefix(command, "curl") && program == "curl" {
				continue
			}
			commands++
			if _, err := exec.LookPath(program); err != nil {
				t.Logf("%s is not tried: %v", program, err)
				continue
			}
			answer, err := exec.CommandContext(ctx, "sh", "-c", command).Output()
			want := `"result":"Hello, `
			if strings.HasSuffix(command, "z") { // /healthz, /readyz
				want = "ok\n"
			}
			if !strings.Contains(string(answer), want) || err != nil {
				t.Errorf("%s\n%s%v", command, answer, err)
			}
		}
		go io.Copy(io.Discard, out) // ends when out is closed
		stop()
		if err := <-ended; err != nil || commands != 4 {
			t.Errorf("%d commands, %v", commands, err)
		}
		out.Close()
	}
}

// The demo answers what others says, on the port it listens on, to programs that do not know
// yonder. Real ones are in internal/interop.
func TestOthers(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- demo(ctx, in, io.Discard, demoOptions{address: "127.0.0.1:0"}) }()
	t.Cleanup(func() {
		stop()
		out.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	lines := bufio.NewReader(out)
	line, err := lines.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	addr := strings.TrimSpace(strings.TrimPrefix(line, "listening on "))
	go io.Copy(io.Discard, lines) // ends when out is closed
	shown := others(addr)

	// quoted returns the request that the only line with the word begins or ends with.
	quoted := func(word string) string {
		for l := range strings.Lines(shown) {
			if strings.Contains(l, word) {
				return strings.Split(l, "'")[1]
			}
		}
		t.Fatalf("%s: the demo does not say how", word)
		return ""
	}
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintln(conn, quoted("nc -w"))
	if got, err := bufio.NewReader(conn).ReadString('\n'); got != `{"id":1,"result":"Hello, JSON-RPC","error":null}`+"\n" || err != nil {
		t.Errorf("JSON-RPC over TCP: %q, %v", got, err)
	}
	resp, err := http.Post("http://"+addr+"/jsonrpc", "application/x-www-form-urlencoded", strings.NewReader(quoted("curl")))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if got := strings.TrimSpace(string(body)); got != `{"id":0,"result":"Hello, world","error":null}` || err != nil {
		t.Errorf("JSON-RPC over HTTP: %q, %v", got, err)
	}
	for path, want := range map[string]string{"/healthz": "ok\n", "/readyz": "ok\n", "/debug/yonder": "<h1>yonder ", "/debug/yonder?format=json": `"HelloService.Hello":{"started":2,`} {
		if !strings.Contains(shown, "http://"+addr+strings.TrimSuffix(path, "?format=json")) {
			t.Errorf("the demo does not say where %s is", path)
		}
		resp, err := http.Get("http://" + addr + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if !strings.Contains(string(body), want) || err != nil {
			t.Errorf("%s: %s, %v", path, body, err)
		}
	}
	if q := quoted("websocat"); !strings.Contains(q, `"method":"subtract"`) {
		t.Error(q)
	}
	ws, err := jsonrpc.Dial(ctx, "ws://"+addr+"/jsonrpc")
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	var subtract func(minuend, subtrahend int) (int, error)
	ws.Bind("subtract", &subtract)
	if n, err := subtract(42, 23); n != 19 || err != nil {
		t.Errorf("JSON-RPC over a WebSocket: %d, %v", n, err)
	}

	for _, dial := range []func(network, address string) (*stdrpc.Client, error){stdrpc.Dial, stdrpc.DialHTTP} {
		client, err := dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		var reply string
		if err := client.Call("HelloService.Hello", "world", &reply); reply != "Hello, world" || err != nil {
			t.Errorf("net/rpc: %q, %v", reply, err)
		}
		var result float64
		if err := client.Call("CalcService.CalcTwoNumber", Calc{1, 2, "?"}, &result); err == nil || err.Error() != "Illegal Operator" {
			t.Errorf("net/rpc: %v", err)
		}
		var operators []string
		if err := client.Call("CalcService.GetOperators", struct{}{}, &operators); fmt.Sprint(operators) != "[* + - /]" || err != nil {
			t.Errorf("net/rpc: %q, %v", operators, err)
		}
	}

	gob.Register(User{})
	conn, err = net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var query func(int) (User, error)
	session.NewClient(conn).Call("queryUser", &query)
	if user, err := query(1); user != (User{"Bar", 13}) || err != nil {
		t.Errorf("session: %v, %v", user, err)
	}
	if user, err := query(7); err == nil || err.Error() != "user with id 7 does not exist" {
		t.Errorf("session: %v, %v", user, err)
	}
}
