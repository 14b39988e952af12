package interop

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"

	rpcjson "github.com/yonder-rpc/yonder/net/rpc/jsonrpc"
)

// bash runs a command as the article has it, for a while at most, and returns what it prints.
// all says that it is to end by itself; else one line is read, and the shell is killed: what it
// runs ends with the server.
func bash(t *testing.T, all bool, command string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program(t, "", "bash"), "-c", command)
	var stderr bytes.Buffer
	if all {
		cmd.Stderr = &stderr // which is waited for
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(out)
	line, _ := in.ReadString('\n')
	if !all {
		cancel()
		cmd.Wait()
		return line
	}
	rest, _ := io.ReadAll(in)
	if err := cmd.Wait(); err != nil {
		t.Errorf("%s: %v\n%s", command, err, &stderr)
	}
	return line + string(rest)
}

// The article's commands, byte for byte, and what they print.
func TestCurl(t *testing.T) {
	program(t, "apt-get install curl", "curl")
	p := openPlain(t)
	_, port, _ := net.SplitHostPort(p.address)
	for _, e := range []struct{ command, want string }{
		{
			`curl -X POST http://localhost:PORT/jsonrpc  --data '{"method":"HelloService.Hello","params":["world"],"id":0}'`,
			`{"id":0,"result":"Hello, world","error":null}` + "\n",
		},
		{
			`curl -X POST http://localhost:PORT/jsonrpc  --data '{"method":"HelloService.Hello","params":[""],"id":0}'`,
			`{"id":0,"result":null,"error":"who?"}` + "\n",
		},
		{
			`curl --json '{"jsonrpc":"2.0","method":"subtract","params":{"subtrahend":23,"minuend":42},"id":"x"}' http://localhost:PORT/jsonrpc`,
			`{"jsonrpc":"2.0","result":19,"id":"x"}` + "\n",
		},
		{`curl -w '%{http_code}' --json '{"jsonrpc":"2.0","method":"Notes.Note","params":["curl"]}' http://localhost:PORT/jsonrpc`, `204`},
		{`curl http://localhost:PORT/healthz`, "ok\n"},
	} {
		if got := bash(t, true, strings.Replace(e.command, "PORT", port, 1)); got != e.want {
			t.Errorf("$ %s\n%s\nwant\n%s", e.command, got, e.want)
		}
	}
	p.wantNotes(t, "curl")
}

func TestNetcat(t *testing.T) {
	program(t, "apt-get install netcat-openbsd", "nc")
	p := openPlain(t)
	_, port, _ := net.SplitHostPort(p.address)
	for _, e := range []struct {
		command string
		all     bool
		want    string
	}{
		{ // which waits for the server to hang up, or for control-C
			`echo -e '{"method":"HelloService.Hello","params":["JSON-RPC"],"id":1}' | nc localhost PORT`, false,
			`{"id":1,"result":"Hello, JSON-RPC","error":null}` + "\n",
		},
		{
			`echo -e '{"method":"HelloService.Hello","params":["JSON-RPC"],"id":1}' | nc -N localhost PORT`, true,
			`{"id":1,"result":"Hello, JSON-RPC","error":null}` + "\n",
		},
		{
			`echo '{"jsonrpc":"2.0","method":"No.Method","id":1}' | nc -N localhost PORT`, true,
			`{"jsonrpc":"2.0","error":{"code":-32601,"message":"Method not found"},"id":1}` + "\n",
		},
	} {
		if got := bash(t, e.all, strings.Replace(e.command, "PORT", port, 1)); got != e.want {
			t.Errorf("$ %s\n%s\nwant\n%s", e.command, got, e.want)
		}
	}
}

// What a client sends to `nc -l`, and that it can be answered there by hand.
func TestNetcatListens(t *testing.T) {
	path := program(t, "apt-get install netcat-openbsd", "nc")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "-lvn", "127.0.0.1", "0")
	says, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(says).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var port int
	if _, err := fmt.Sscanf(line, "Listening on 127.0.0.1 %d", &port); err != nil {
		t.Fatalf("nc says %q: %v", line, err)
	}
	c, err := rpcjson.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	var hello string
	call := c.Go("HelloService.Hello", "world", &hello, nil)
	got, _ := bufio.NewReader(stdout).ReadString('\n')
	if want := `{"method":"HelloService.Hello","params":["world"],"id":0}` + "\n"; got != want {
		t.Errorf("nc prints %q, want %q", got, want)
	}
	io.WriteString(stdin, `{"id":0,"result":"Hello, world","error":null}`+"\n")
	if <-call.Done; hello != "Hello, world" || call.Error != nil {
		t.Errorf("%q, %v", hello, call.Error)
	}
	c.Close()
	stdin.Close()
	cmd.Wait() // it ends with its peer
}
