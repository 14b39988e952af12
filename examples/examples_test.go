// Package examples holds runnable programs, one a folder, each with a server and a
// client. This test runs them.
package examples

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite output.txt of each example")

// timeout bounds one run of an example.
const timeout = time.Minute

// TestExamples runs each example with server and client in one process and in two,
// and compares what the client prints with output.txt.
func TestExamples(t *testing.T) {
	dir := build(t)
	for _, path := range mains(t) {
		name := filepath.Dir(path)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			program := filepath.Join(dir, name)
			if runtime.GOOS == "windows" {
				program += ".exe"
			}
			file := filepath.Join(name, "output.txt")
			both := output(t, program)
			if *update {
				if err := os.WriteFile(file, []byte(both), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want := strings.ReplaceAll(string(text), "\r\n", "\n")
			if diff := cmp.Diff(want, both); diff != "" {
				t.Errorf("one process, -want +got (rewrite %s with -update):\n%s", file, diff)
			}
			address := listen(t, program, name == "hello")
			for _, round := range []string{"first", "second"} { // a server serves more than one client
				if diff := cmp.Diff(want, output(t, program, "-connect", address)); diff != "" {
					t.Errorf("two processes, %s client, -want +got:\n%s", round, diff)
				}
			}
		})
	}
}

// TestMainsAreAlike keeps what the examples are not about the same in all of them but hello,
// which is as small as a program can be, without packages flag and os/signal.
func TestMainsAreAlike(t *testing.T) {
	want := ""
	for _, path := range mains(t) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		doc, body, ok := strings.Cut(string(text), "\npackage main\n")
		if !ok {
			t.Fatalf("%s: no package main", path)
		}
		if dir := filepath.Dir(path); strings.Count(doc, "go run ./examples/"+dir+" ") != 3 {
			t.Errorf("%s: the comment does not show the three ways to run ./examples/%s", path, dir)
		} else if dir == "hello" {
			continue
		}
		if want == "" {
			want = body
		}
		if diff := cmp.Diff(want, body); diff != "" {
			t.Errorf("%s is not like the first example's, -first +this:\n%s", path, diff)
		}
	}
}

// hello reads its arguments by hand.
func TestUsage(t *testing.T) {
	dir := build(t)
	for _, args := range [][]string{{"-h"}, {"-listen"}, {"x", "y"}, {"-connect", "a", "b"}} {
		out, err := exec.CommandContext(t.Context(), filepath.Join(dir, "hello"), args...).CombinedOutput()
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 2 || !strings.HasPrefix(string(out), "usage: ") {
			t.Errorf("hello %q: %v, %s", args, err, out)
		}
	}
}

func mains(t *testing.T) []string {
	paths, err := filepath.Glob("*/main.go")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	return paths
}

// build builds all examples and returns where they are.
func build(t *testing.T) string {
	dir := t.TempDir()
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", dir+string(filepath.Separator), "./...").CombinedOutput()
	if err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return dir
}

// output runs a program to its end and returns what it prints.
func output(t *testing.T, program string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || stderr.Len() > 0 {
		t.Fatalf("%s %v: %v\n%s%s", filepath.Base(program), args, err, out, stderr.Bytes())
	}
	return string(out)
}

// listen runs a program as a server until the test ends, when it must stop in order, or if
// simple be killed by the signal, and returns its address.
func listen(t *testing.T, program string, simple bool) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*timeout)
	cmd := exec.CommandContext(ctx, program, "-listen", "127.0.0.1:0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		defer cancel()
		if runtime.GOOS == "windows" { // which cannot interrupt a process
			cmd.Process.Kill()
			cmd.Wait()
			return
		}
		cmd.Process.Signal(os.Interrupt)
		want := "exit status 0"
		if simple {
			want = "signal: interrupt"
		}
		if cmd.Wait(); cmd.ProcessState.String() != want || stderr.Len() > 0 {
			t.Errorf("the server ended with %v, not %s, and said:\n%s", cmd.ProcessState, want, stderr.Bytes())
		}
	})
	var address string
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if _, scanErr := fmt.Sscanf(line, "listening on %s\n", &address); err != nil || scanErr != nil {
		t.Fatalf("the server began with %q: %v", line, err)
	}
	return address
}
