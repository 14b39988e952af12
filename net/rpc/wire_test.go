package rpc_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	stock "net/rpc"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/yonder-rpc/yonder/net/rpc"
)

// tape is what a pair of peers said, and what came of it.
type tape struct {
	ToServer, ToClient []byte
	Results            []any
}

// TestSameBytes has the standard package and this one do the same calls, in all pairings,
// and compares every byte. gob numbers the types of a process as it meets them, so each
// pairing has a process of its own: this test's binary.
func TestSameBytes(t *testing.T) {
	if pairing := os.Getenv("RPC_TEST_PAIRING"); pairing != "" {
		record(t, pairing)
		return
	}
	for _, transport := range []string{"tcp", "http"} {
		t.Run(transport, func(t *testing.T) {
			want := inProcess(t, transport+" standard standard")
			if len(want.ToServer) < 1000 || len(want.ToClient) < 1000 {
				t.Fatalf("too little was recorded: %d and %d bytes", len(want.ToServer), len(want.ToClient))
			}
			for _, pairing := range []string{"yonder standard", "standard yonder", "yonder yonder"} {
				if diff := cmp.Diff(want, inProcess(t, transport+" "+pairing)); diff != "" {
					t.Errorf("%s (client, server), beside the standard package's:\n%s", pairing, diff)
				}
			}
		})
	}
}

// inProcess records a pairing in a process of its own.
func inProcess(t *testing.T, pairing string) tape {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSameBytes$")
	cmd.Env = append(os.Environ(), "RPC_TEST_PAIRING="+pairing)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", pairing, err, out, &stderr)
	}
	line, _, _ := bytes.Cut(out, []byte("\n"))
	var recorded tape
	if err := json.Unmarshal(line, &recorded); err != nil {
		t.Fatalf("%s: %v\n%s", pairing, err, out)
	}
	return recorded
}

// record makes calls through a relay that keeps what passes, and prints it.
func record(t *testing.T, pairing string) {
	log.SetOutput(io.Discard)
	words := strings.Fields(pairing)
	transport, client, server := words[0], words[1], words[2]
	back := listen(t)
	switch {
	case server == "standard" && transport == "tcp":
		stock.Register(Math{})
		go stock.Accept(back)
	case server == "standard":
		stock.Register(Math{})
		stock.HandleHTTP()
		go http.Serve(back, nil)
	case transport == "tcp":
		rpc.Register(Math{})
		go rpc.Accept(back)
	default:
		rpc.Register(Math{})
		rpc.HandleHTTP()
		go http.Serve(back, nil)
	}
	front := listen(t)
	var toServer, toClient bytes.Buffer
	var relays sync.WaitGroup
	relays.Go(func() {
		near, err := front.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", back.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		relays.Go(func() { io.Copy(io.MultiWriter(far, &toServer), near); far.(*net.TCPConn).CloseWrite() })
		io.Copy(io.MultiWriter(near, &toClient), far)
		near.(*net.TCPConn).CloseWrite()
	})
	var c caller
	var err error
	address := front.Addr().String()
	switch {
	case client == "standard" && transport == "tcp":
		c, err = stock.Dial("tcp", address)
	case client == "standard":
		c, err = stock.DialHTTP("tcp", address)
	case transport == "tcp":
		c, err = rpc.Dial("tcp", address)
	default:
		c, err = rpc.DialHTTP("tcp", address)
	}
	if err != nil {
		t.Fatal(err)
	}
	results := script(c)
	c.Close()
	relays.Wait()
	json.NewEncoder(os.Stdout).Encode(tape{toServer.Bytes(), toClient.Bytes(), results})
}

// script is calls of all kinds, and what came of them.
func script(c caller) []any {
	var results []any
	call := func(method string, args, reply any) {
		err := c.Call(method, args, reply)
		if err != nil {
			results = append(results, method, err.Error())
			return
		}
		results = append(results, method, reply)
	}
	for i := range 3 {
		call("Math.Add", &Pair{7, i}, new(int))
	}
	call("Math.Add", Pair{-1, 1}, new(int))
	call("Math.Div", Pair{1, 0}, new(int))
	call("Math.Div", Pair{9, 2}, new(int))
	call("Math.None", Pair{1, 0}, new(int))
	call("None.None", Pair{1, 0}, new(int))
	call("None", Pair{1, 0}, new(int))
	call("Math.Add", "no pair", new(int))
	call("Math.Echo", []byte("small"), new([]byte))
	call("Math.Echo", bytes.Repeat([]byte("large"), 8_000), new([]byte))
	call("Math.Count", map[string][]int{"one": {1, 2, 3}}, new(int))
	call("Math.Silent", 1, new(int))
	call("Math.Add", &Pair{1, 2}, nil)
	call("Math.Bad", 1, new(Box)) // ends the connection
	return results
}

// TestErrorTypes tells the types of errors, which programs assert, from their texts, which
// TestSameBytes compares.
func TestErrorTypes(t *testing.T) {
	noLeaks(t)
	c := dial(t, serve(t, rpc.NewServer()))
	if err := c.Call("Math.Div", Pair{1, 0}, new(int)); err != rpc.ServerError("divide by zero") {
		t.Errorf("Div by zero: %#v; want the ServerError", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != rpc.ErrShutdown {
		t.Errorf("second Close: %v; want ErrShutdown", err)
	}
	if err := c.Call("Math.Add", Pair{}, new(int)); err != rpc.ErrShutdown {
		t.Errorf("Call after Close: %v; want ErrShutdown", err)
	}
}

// TestArgumentThatCannotBeEncoded is where the standard client leaves a header without an
// argument behind, which breaks the connection.
func TestArgumentThatCannotBeEncoded(t *testing.T) {
	noLeaks(t)
	c := dial(t, serve(t, rpc.NewServer()))
	for range 2 {
		if err := c.Call("Math.Add", Box{unheardOf{1}}, new(int)); err == nil || !strings.Contains(err.Error(), "not registered") {
			t.Fatalf("Add of what gob does not know: %v; want gob's error", err)
		}
		mustAdd(t, c)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("a nil pointer as an argument did not panic, as gob does")
			}
		}()
		c.Call("Math.Add", (*Pair)(nil), new(int))
	}()
	mustAdd(t, c)
}

func mustAdd(t *testing.T, c caller) {
	t.Helper()
	var sum int
	if err := c.Call("Math.Add", Pair{7, 8}, &sum); err != nil || sum != 15 {
		t.Fatalf("Add(7, 8) = %d, %v; want 15", sum, err)
	}
}

// TestMended is what fields of Server change.
func TestMended(t *testing.T) {
	noLeaks(t)
	c := dial(t, serve(t, &rpc.Server{BadReplyIsError: true, EmptyErrorIsError: true}))
	for range 2 {
		var failure rpc.ServerError
		if err := c.Call("Math.Bad", 1, new(Box)); !errors.As(err, &failure) || !strings.Contains(err.Error(), "not registered") {
			t.Errorf("a reply that cannot be encoded: %v; want gob's error, from the server", err)
		}
		if err := c.Call("Math.Silent", 1, new(int)); !errors.As(err, &failure) {
			t.Errorf("an error without a text: %v; want some error", err)
		}
		mustAdd(t, c)
	}
}
