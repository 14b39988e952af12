package rpc_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	stock "net/rpc"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/net/rpc"
)

// TestInterop has many callers at once between the packages, over TCP and over HTTP.
// TestSameBytes compares one call at a time.
func TestInterop(t *testing.T) {
	noLeaks(t)
	ours, theirs := rpc.NewServer(), stock.NewServer()
	ours.Register(Math{})
	theirs.Register(Math{})
	log.SetOutput(io.Discard) // the standard server logs that its listener is closed
	defer log.SetOutput(os.Stderr)
	for _, server := range []struct {
		name    string
		accept  func(net.Listener)
		handler http.Handler
	}{{"yonder", ours.Accept, ours}, {"standard", theirs.Accept, theirs}} {
		for _, client := range []struct {
			name     string
			dial     func(network, address string) (caller, error)
			dialHTTP func(network, address, path string) (caller, error)
		}{
			{
				name:     "yonder",
				dial:     func(n, a string) (caller, error) { return rpc.Dial(n, a) },
				dialHTTP: func(n, a, p string) (caller, error) { return rpc.DialHTTPPath(n, a, p) },
			},
			{
				name:     "standard",
				dial:     func(n, a string) (caller, error) { return stock.Dial(n, a) },
				dialHTTP: func(n, a, p string) (caller, error) { return stock.DialHTTPPath(n, a, p) },
			},
		} {
			t.Run(client.name+" to "+server.name, func(t *testing.T) {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				var accepting sync.WaitGroup
				accepting.Go(func() { server.accept(l) })
				c, err := client.dial("tcp", l.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				many(t, c)
				l.Close()
				accepting.Wait()

				mux := http.NewServeMux()
				mux.Handle("/path", server.handler)
				web := httptest.NewServer(mux)
				defer web.Close()
				address := web.Listener.Addr().String()
				c, err = client.dialHTTP("tcp", address, "/path")
				if err != nil {
					t.Fatal(err)
				}
				many(t, c)
				if _, err := client.dialHTTP("tcp", address, "/other"); err == nil || !strings.HasPrefix(err.Error(), "dial-http tcp "+address) ||
					!strings.HasSuffix(err.Error(), "unexpected HTTP response: 404 Not Found") {
					t.Errorf("a path that nobody serves: %v", err)
				}
				resp, err := http.Get(web.URL + "/path")
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				body, _ := io.ReadAll(resp.Body)
				if resp.StatusCode != http.StatusMethodNotAllowed || string(body) != "405 must CONNECT\n" {
					t.Errorf("GET: %s %q", resp.Status, body)
				}
				http.DefaultClient.CloseIdleConnections()
			})
		}
	}
	ours.Close()
}

// many makes calls from many goroutines, some of them large, and closes c.
func many(t *testing.T, c caller) {
	t.Helper()
	var callers sync.WaitGroup
	for i := range 20 {
		callers.Go(func() {
			for j := range 30 {
				var sum int
				if err := c.Call("Math.Add", &Pair{i, j}, &sum); err != nil || sum != i+j {
					t.Errorf("Add(%d, %d) = %d, %v", i, j, sum, err)
				}
				want := bytes.Repeat([]byte{byte(j)}, 1+(i*j*97)%100_000)
				var got []byte
				if err := c.Call("Math.Echo", want, &got); err != nil || !bytes.Equal(want, got) {
					t.Errorf("Echo of %d bytes: %d, %v", len(want), len(got), err)
				}
			}
		})
	}
	callers.Wait()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// TestDebugPage compares the page with the standard package's.
func TestDebugPage(t *testing.T) {
	mux := http.DefaultServeMux
	http.DefaultServeMux = http.NewServeMux() // so that the test can run twice
	defer func() { http.DefaultServeMux = mux }()
	ours, theirs := rpc.NewServer(), stock.NewServer()
	for _, name := range []string{"B", "A", "x<y>&\"'z"} {
		ours.RegisterName(name, Math{})
		theirs.RegisterName(name, Math{})
	}
	ours.HandleHTTP("/ours", "/ours/debug")
	theirs.HandleHTTP("/theirs", "/theirs/debug")
	web := httptest.NewServer(nil)
	defer web.Close()
	for _, path := range []string{"/ours", "/theirs"} {
		c, err := rpc.DialHTTPPath("tcp", web.Listener.Addr().String(), path)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if err := c.Call("A.Add", Pair{1, 2}, nil); err != nil {
				t.Fatal(err)
			}
		}
		c.Close()
	}
	page := func(path string) string {
		resp, err := http.Get(web.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.Header.Get("Content-Type") + "\n" + string(body)
	}
	want := page("/theirs/debug")
	if !strings.Contains(want, "Add(*rpc_test.Pair, *int) error") || !strings.Contains(want, ">3<") {
		t.Fatalf("the standard page is not as expected:\n%s", want)
	}
	if diff := cmp.Diff(want, page("/ours/debug")); diff != "" {
		t.Error(diff)
	}
}

// TestDependencies keeps templates out of programs that use the package.
func TestDependencies(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	if len(out) == 0 {
		t.Fatal("go list lists nothing")
	}
	for line := range strings.Lines(string(out)) {
		switch strings.TrimSpace(line) {
		case "html/template", "text/template", "net/rpc", "net/rpc/jsonrpc":
			t.Errorf("the package depends on %s", line)
		}
	}
}

// TestHostile sends what no client would, on connections of their own, and then calls.
func TestHostile(t *testing.T) {
	noLeaks(t)
	s := &rpc.Server{MaxMessage: 1 << 20}
	address := serve(t, s, newCtx())
	header := func(method string) []byte {
		var b bytes.Buffer
		gob.NewEncoder(&b).Encode(&rpc.Request{ServiceMethod: method, Seq: 1})
		return b.Bytes()
	}
	noise := make([]byte, 1<<16)
	rand.Read(noise)
	for name, message := range map[string][]byte{
		"nothing":         {},
		"half a length":   {0xfc, 1},
		"huge length":     {0xfc, 0x3f, 0xff, 0xff, 0xff, 1, 2, 3},
		"absurd length":   {0xf8, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"noise":           noise,
		"text":            []byte("GET / HTTP/1.1\r\n\r\n"),
		"zeros":           make([]byte, 1<<16),
		"half a header":   header("Math.Add")[:20],
		"no argument":     header("Math.Add"),
		"huge argument":   append(header("Math.Add"), 0xfc, 0x3f, 0xff, 0xff, 0xff, 2, 0),
		"noise argument":  append(header("Math.Count"), noise...),
		"no such service": append(header("None.None"), 0xfc, 0x3f, 0xff, 0xff, 0xff, 2, 0),
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range 10 {
				conn, err := net.Dial("tcp", address)
				if err != nil {
					t.Fatal(err)
				}
				conn.Write(message)
				conn.(*net.TCPConn).CloseWrite()
				io.Copy(io.Discard, conn) // until the server closes
				conn.Close()
			}
			runtime.ReadMemStats(&after)
			if spent := after.TotalAlloc - before.TotalAlloc; spent > 16<<20 {
				t.Errorf("it cost %d bytes of memory", spent)
			}
		})
	}
	mustAdd(t, dial(t, address))
}

// TestHostileServer answers a client with what no server would.
func TestHostileServer(t *testing.T) {
	noLeaks(t)
	for name, message := range map[string][]byte{
		"nothing":       {},
		"huge length":   {0xfc, 0x3f, 0xff, 0xff, 0xff, 1, 2, 3},
		"absurd length": {0xf8, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"text":          []byte("HTTP/1.1 400 Bad Request\r\n\r\n"),
	} {
		near, far := net.Pipe()
		go func() {
			far.Read(make([]byte, 1<<16))
			far.Write(message)
			far.Close()
		}()
		c := rpc.NewClient(near)
		if err := c.CallContext(t.Context(), "Math.Add", Pair{}, new(int)); err == nil {
			t.Errorf("%s: the call succeeded", name)
		}
		c.Close()
	}
}

// TestMaxMessage has a limit at each end: the call fails, and the next one does not.
func TestMaxMessage(t *testing.T) {
	noLeaks(t)
	large, small := bytes.Repeat([]byte{1}, 100_000), []byte("small")
	expect := func(c *rpc.Client, how string) {
		t.Helper()
		for range 2 {
			err := c.CallContext(t.Context(), "Math.Echo", large, new([]byte))
			if yonder.CodeOf(err) != yonder.ResourceExhausted || !strings.Contains(err.Error(), "larger than the limit of 10000") {
				t.Errorf("%s: %v; want ResourceExhausted", how, err)
			}
			var got []byte
			if err := c.Call("Math.Echo", small, &got); err != nil || !bytes.Equal(got, small) {
				t.Errorf("%s, a small message after that: %q, %v", how, got, err)
			}
		}
	}
	expect(dial(t, serve(t, &rpc.Server{MaxMessage: 10_000})), "the server's limit")
	c, err := (&rpc.Dialer{MaxMessage: 10_000}).Dial(t.Context(), "tcp", serve(t, rpc.NewServer()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	expect(c, "the client's limit")
}

// A Row is one of a table, in which nil is a value as any other.
type Row struct{ Cols []any }

// Table is a service of values in interfaces.
type Table struct{}

func (Table) Echo(arg map[string]any, reply *map[string]any) error {
	*reply = arg
	return nil
}

// Narrow takes a part of what is sent, and passes over the rest.
func (Table) Narrow(arg struct{ Name string }, reply *struct{ Name string }) error {
	reply.Name = arg.Name
	return nil
}

// TestNilInterfaces has nil in interfaces cross in both directions and between the packages.
func TestNilInterfaces(t *testing.T) {
	for _, v := range []any{Row{}, []Row{}, []*Row{}, map[string]Row{}, map[string]any{}} {
		gob.Register(v)
	}
	log.SetOutput(io.Discard) // the standard server logs that its listener was closed
	defer log.SetOutput(os.Stderr)
	theirs := stock.NewServer()
	theirs.Register(Table{})
	theirs.Register(Math{})
	l := listen(t)
	go theirs.Accept(l) // ends with the test, which closes the listener
	ours := serve(t, rpc.NewServer(), Table{})
	row := Row{[]any{1, nil, map[string]any{"nil": nil}}}
	want := map[string]any{
		"nil": nil, "row": row, "rows": []Row{row, {}, row}, "pointers": []*Row{&row}, "map": map[string]Row{"row": row},
	}
	for name, c := range map[string]caller{
		"yonder to yonder": dialOurs(t, ours), "yonder to standard": dialOurs(t, l.Addr().String()), "standard to yonder": dialStock(t, ours),
	} {
		for range 2 {
			var got map[string]any
			if err := c.Call("Table.Echo", want, &got); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s:\n%s", name, diff)
			}
		}
		c.Close()
	}
	c := dialOurs(t, ours)
	wide := struct {
		Extra []any
		Name  string
	}{[]any{nil, []Row{row}, nil}, "name"}
	var narrow struct{ Name string }
	if err := c.Call("Table.Narrow", wide, &narrow); err != nil || narrow.Name != "name" {
		t.Errorf("a field that the method does not have: %q, %v", narrow.Name, err)
	}
	if err := c.Call("Table.None", want, nil); err == nil || !strings.Contains(err.Error(), "can't find method") {
		t.Errorf("an argument that is thrown away: %v", err)
	}
	if err := c.Call("Table.Echo", want, nil); err != nil {
		t.Errorf("a reply that is thrown away: %v", err)
	}
	mustAdd(t, c)
}

// lines is a codec of JSON values, written as for the standard package.
type lines struct {
	io.Closer
	enc *json.Encoder
	dec *json.Decoder
}

func newLines(conn io.ReadWriteCloser) *lines {
	return &lines{conn, json.NewEncoder(conn), json.NewDecoder(conn)}
}

func (l *lines) body(into any) error {
	if into == nil {
		into = new(any)
	}
	return l.dec.Decode(into)
}

func (l *lines) both(header, body any) error {
	return errors.Join(l.enc.Encode(header), l.enc.Encode(body))
}

func (l *lines) ReadRequestHeader(r *rpc.Request) error        { return l.dec.Decode(r) }
func (l *lines) ReadRequestBody(into any) error                { return l.body(into) }
func (l *lines) WriteResponse(r *rpc.Response, body any) error { return l.both(r, body) }
func (l *lines) WriteRequest(r *rpc.Request, body any) error   { return l.both(r, body) }
func (l *lines) ReadResponseHeader(r *rpc.Response) error      { return l.dec.Decode(r) }
func (l *lines) ReadResponseBody(into any) error               { return l.body(into) }

// TestCodec serves and calls in another encoding, contexts and Shutdown included.
func TestCodec(t *testing.T) {
	noLeaks(t)
	s := rpc.NewServer()
	s.Register(Math{})
	s.Register(Fail{})
	near, far := net.Pipe()
	served := make(chan struct{})
	go func() {
		defer close(served)
		s.ServeCodec(newLines(far))
	}()
	c := rpc.NewClientWithCodec(newLines(near))
	defer c.Close()
	var callers sync.WaitGroup
	for i := range 10 {
		callers.Go(func() {
			var sum int
			if err := c.CallContext(t.Context(), "Math.Add", Pair{i, 1}, &sum); err != nil || sum != i+1 {
				t.Errorf("Add(%d, 1) = %d, %v", i, sum, err)
			}
		})
	}
	callers.Wait()
	if err := c.Call("Fail.Coded", "gone", new(int)); err != rpc.ServerError("gone") {
		t.Errorf("Coded: %#v; want the ServerError", err)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	<-served
}

func ExampleClient_CallContext() {
	s := rpc.NewServer()
	s.Register(Math{})
	near, far := net.Pipe()
	go s.ServeConn(far)
	client := rpc.NewClient(near)
	defer client.Close()

	ctx := yonder.WithMetadata(context.Background(), "trace", "1234")
	var sum int
	err := client.CallContext(ctx, "Math.Add", Pair{7, 8}, &sum)
	fmt.Println(sum, err)
	// Output: 15 <nil>
}
