package interop

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/jsonrpc"
)

// A script is a program that node runs.
type script struct {
	t     *testing.T
	stdin io.WriteCloser
	lines *bufio.Scanner
	cmd   *exec.Cmd
}

// node runs a program of testdata until the test ends, at the latest.
func node(t *testing.T, name string, args ...string) *script {
	t.Helper()
	path := program(t, "apt-get install nodejs, or see https://nodejs.org", "node")
	for _, file := range []string{"testdata/" + name, "package-lock.json"} { // so that the go command sees if they change
		if _, err := os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat("node_modules/.package-lock.json"); err != nil {
		missing(t, "the JavaScript packages are not installed; in internal/interop: npm ci --ignore-scripts")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	s := &script{t: t, cmd: exec.CommandContext(ctx, path, append([]string{"testdata/" + name}, args...)...)}
	var stderr strings.Builder
	s.cmd.Stderr = &stderr
	stdin, err := s.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.stdin, s.lines = stdin, bufio.NewScanner(stdout)
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		for s.lines.Scan() {
			t.Errorf("node also says %q", s.lines.Text())
		}
		if err := s.cmd.Wait(); err != nil {
			t.Errorf("node %s: %v\n%s", name, err, &stderr)
		}
		cancel()
	})
	return s
}

// line returns the next line that the program prints.
func (s *script) line() string {
	s.t.Helper()
	if !s.lines.Scan() {
		s.t.Fatal("node says no more")
	}
	return s.lines.Text()
}

// want checks what the program prints.
func (s *script) want(lines ...string) {
	s.t.Helper()
	for _, want := range lines {
		if got := s.line(); got != want {
			s.t.Fatalf("node says %q, want %q", got, want)
		}
	}
}

// proceed has a program that waits go on.
func (s *script) proceed() { io.WriteString(s.stdin, "\n") }

// Clients of npm's call yonder.
func TestNodeClients(t *testing.T) {
	t.Run("jayson", func(t *testing.T) {
		p := openPlain(t)
		s := node(t, "jayson.mjs", p.address)
		for _, transport := range []string{"tcp", "http", "websocket"} {
			s.want(transport)
			p.wantNotes(t, transport+" noted", transport+" in a batch")
		}
		p.wantNoNote(t)
	})
	t.Run("rpc-websockets", func(t *testing.T) {
		p := openPlain(t)
		s := node(t, "rpc-websockets.mjs", p.address)
		s.want("rpc-websockets")
		p.wantNotes(t, "rpc-websockets noted")
		p.wantNoNote(t)
		p.begun(t, "jsonrpc")
		s.proceed()
		p.over(t)
	})
	t.Run("vscode-jsonrpc", func(t *testing.T) {
		p := openPlain(t)
		s := node(t, "vscode-jsonrpc.mjs", p.address)
		s.want("waiting")
		p.begun(t, "jsonrpc")
		p.wantNotes(t, "vscode noted")
		p.wantNoNote(t)
		s.proceed()
		s.want("cancelled -32800", "vscode-jsonrpc")
		p.over(t)
	})
}

// Yonder's clients call servers of npm's.
func TestNodeServers(t *testing.T) {
	s := node(t, "servers.mjs")
	var addresses map[string]string
	if err := json.Unmarshal([]byte(s.line()), &addresses); err != nil {
		t.Fatal(err)
	}
	for _, e := range []struct {
		name   string
		scheme string
		dialer jsonrpc.Dialer
	}{
		{"jayson-tcp", "tcp", jsonrpc.Dialer{}},
		{"jayson-http", "http", jsonrpc.Dialer{}},
		{"vscode-jsonrpc", "tcp", jsonrpc.Dialer{ContentLength: true}},
		{"rpc-websockets", "ws", jsonrpc.Dialer{}},
	} {
		t.Run(e.name, func(t *testing.T) {
			c, err := e.dialer.Dial(t.Context(), e.scheme+"://"+addresses[e.name])
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			ctx, cancel := context.WithTimeout(yonder.WithMetadata(t.Context(), "trace", "x"), patience)
			defer cancel()
			if got, err := yonder.Invoke[int](ctx, c, "subtract", 42, 23); got != 19 || err != nil {
				t.Errorf("%d, %v", got, err)
			}
			if got, err := yonder.Invoke[int](ctx, c, "subtract", jsonrpc.Params(`{"subtrahend":23,"minuend":42}`)); got != 19 || err != nil {
				t.Errorf("by name: %d, %v", got, err)
			}
			text := strings.Repeat("ünïcode\n", 10_000)
			if got, err := yonder.Invoke[string](ctx, c, "echo", text); got != text || err != nil {
				t.Errorf("a large text: %d bytes, %v", len(got), err)
			}
			_, err = yonder.Invoke[any](ctx, c, "fail")
			if own, ok := errors.AsType[*jsonrpc.Error](err); !ok || own.Code != 7 || own.Message != "own" {
				t.Errorf("an error: %#v", err)
			}
			if _, err := yonder.Invoke[any](ctx, c, "none"); yonder.CodeOf(err) != yonder.Unimplemented || !yonder.IsRemote(err) {
				t.Errorf("no such method: %v", err)
			}
			note := yonder.NewCall("note", e.name)
			note.OneWay = true
			if err := c.Call(ctx, note); err != nil {
				t.Error(err)
			}
			s.t = t
			s.want("note " + e.name)
			if e.name != "vscode-jsonrpc" {
				return // the others have no way to cancel
			}
			ctx, stop := context.WithCancel(ctx)
			failed := make(chan error, 1)
			go func() { // ends with stop
				_, err := yonder.Invoke[any](ctx, c, "wait", 0)
				failed <- err
			}()
			s.want("note waiting")
			stop()
			if err := <-failed; yonder.CodeOf(err) != yonder.Canceled {
				t.Errorf("a cancelled call: %v", err)
			}
			s.want("note cancelled")
		})
	}
}
