package yonder_test

import (
	"bufio"
	"bytes"
	"compress/flate"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"expvar"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	stdrpc "net/rpc"
	"os"
	"strings"
	"time"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/auth"
	"github.com/yonder-rpc/yonder/jsonrpc"
	"github.com/yonder-rpc/yonder/net/rpc"
	"github.com/yonder-rpc/yonder/overload"
	"github.com/yonder-rpc/yonder/session"
	"github.com/yonder-rpc/yonder/tlsconn"
	"github.com/yonder-rpc/yonder/web"
)

type Account struct {
	Name string
	Age  int
}

// serve has a server listen on a port of its own and returns a client of it. The
// examples use it so that they can be run; a program calls ListenAndServe and Dial.
func serve(srv *yonder.Server, d yonder.Dialer) *yonder.Client {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go srv.Serve(l)
	client, err := d.Dial(context.Background(), l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	return client
}

// A function on one side, a variable of the same type on the other.
func Example() {
	var srv yonder.Server
	srv.Register("queryUser", func(ctx context.Context, id int) (Account, error) {
		users := []Account{{"Foo", 12}, {"Bar", 13}, {"Joe", 14}}
		if id < 0 || id >= len(users) {
			return Account{}, yonder.Errorf(yonder.NotFound, "user with id %d does not exist", id)
		}
		return users[id], nil
	})
	client := serve(&srv, yonder.Dialer{})
	defer client.Close()

	var query func(ctx context.Context, id int) (Account, error)
	client.Bind("queryUser", &query)

	user, err := query(context.Background(), 1)
	fmt.Println(user, err)
	_, err = query(context.Background(), 7)
	fmt.Println(err, yonder.CodeOf(err) == yonder.NotFound)
	// Output:
	// {Bar 13} <nil>
	// user with id 7 does not exist true
}

type Calculator struct{}

func (Calculator) Add(a, b float64) float64 { return a + b }

func (Calculator) Div(ctx context.Context, a, b float64) (float64, error) {
	if b == 0 {
		return 0, errors.New("division by zero")
	}
	return a / b, nil
}

// The shape that net/rpc wants is fine too: it is Neg(float64) float64 to callers.
func (Calculator) Neg(a float64, reply *float64) error {
	*reply = -a
	return nil
}

func (Calculator) Watch(c chan int) {}

// A whole service: the methods of a value, and a struct of funcs.
func ExampleServer_RegisterService() {
	var srv yonder.Server
	for _, left := range srv.RegisterService("Calc", Calculator{}) {
		fmt.Println(left.Method, "is left out:", left.Reason)
	}
	client := serve(&srv, yonder.Dialer{})
	defer client.Close()

	var calc struct {
		Add    func(ctx context.Context, a, b float64) (float64, error)
		Div    func(ctx context.Context, a, b float64) (float64, error)
		Negate func(ctx context.Context, a float64) (float64, error) `yonder:"Neg"`
	}
	client.BindService("Calc", &calc)

	ctx := context.Background()
	fmt.Println(calc.Add(ctx, 1, 2))
	fmt.Println(calc.Div(ctx, 1, 0))
	fmt.Println(calc.Negate(ctx, 3))
	// Output:
	// Watch is left out: argument 1: chan int cannot cross a connection; use iter.Seq2[int, error]
	// 3 <nil>
	// 0 division by zero
	// -3 <nil>
}

// What is known of a procedure beyond its type.
func ExampleServer_Add() {
	var srv yonder.Server
	srv.Add(yonder.Procedure{
		Name: "subtract", Func: func(a, b int) int { return a - b },
		Params: []string{"minuend", "subtrahend"},
		Doc:    "Subtract returns minuend - subtrahend.",
	})
	client := serve(&srv, yonder.Dialer{})
	defer client.Close()

	list, err := client.Procedures(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	for _, p := range list {
		fmt.Println(p.Name, p.Go)
	}
	// Output: subtract func(minuend int, subtrahend int) (int, error)
}

// A call of a procedure that nothing is bound to.
func ExampleInvoke() {
	var srv yonder.Server
	srv.Register("sum", func(numbers ...int) (total int) {
		for _, n := range numbers {
			total += n
		}
		return total
	})
	client := serve(&srv, yonder.Dialer{})
	defer client.Close()

	fmt.Println(yonder.Invoke[int](context.Background(), client, "sum", 1, 2, 4))
	// Output: 7 <nil>
}

// The path without reflection in the call.
func ExampleHandle() {
	var srv yonder.Server
	yonder.Handle(&srv, "shout", func(ctx context.Context, text string) (string, error) {
		return strings.ToUpper(text), nil
	})
	client := serve(&srv, yonder.Dialer{})
	defer client.Close()

	shout := yonder.Remote[string, string](client, "shout")
	fmt.Println(shout(context.Background(), "hello"))
	// Output: HELLO <nil>
}

// An iterator among the results is a stream. Leaving the loop ends it on the other
// side.
func ExampleClient_Bind_stream() {
	var srv yonder.Server
	srv.Register("count", func(ctx context.Context, from int) iter.Seq2[int, error] {
		return func(yield func(int, error) bool) {
			for n := from; ctx.Err() == nil && yield(n, nil); n++ {
			}
		}
	})
	client := serve(&srv, yonder.Dialer{})
	defer client.Close()

	var count func(ctx context.Context, from int) (iter.Seq2[int, error], error)
	client.Bind("count", &count)

	numbers, err := count(context.Background(), 40)
	if err != nil {
		log.Fatal(err)
	}
	for n, err := range numbers {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(n)
		if n == 42 {
			break
		}
	}
	// Output:
	// 40
	// 41
	// 42
}

// A Stream is an iter.Seq2 that needs no reflection. The other end may have either.
func ExampleStream() {
	type Sample struct {
		At    time.Duration
		Value float64
	}
	var srv yonder.Server
	srv.Register("samples", func(n int) yonder.Stream[Sample] {
		return func(yield func(Sample, error) bool) {
			for i := range n {
				if !yield(Sample{time.Duration(i) * time.Second, float64(i) / 2}, nil) {
					return
				}
			}
		}
	})
	client := serve(&srv, yonder.Dialer{})
	defer client.Close()

	var samples func(ctx context.Context, n int) (yonder.Stream[Sample], error)
	client.Bind("samples", &samples)

	all, err := samples(context.Background(), 3)
	if err != nil {
		log.Fatal(err)
	}
	for s, err := range all {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(s.At, s.Value)
	}
	// Output:
	// 0s 0
	// 1s 0.5
	// 2s 1
}

// A reader is a stream of bytes, in either direction, in constant memory.
func ExampleClient_Bind_reader() {
	var srv yonder.Server
	srv.Register("size", func(r io.Reader) (int64, error) { return io.Copy(io.Discard, r) })
	client := serve(&srv, yonder.Dialer{})
	defer client.Close()

	var size func(ctx context.Context, r io.Reader) (int64, error)
	client.Bind("size", &size)

	fmt.Println(size(context.Background(), strings.NewReader("a long file")))
	// Output: 11 <nil>
}

// Large bytes, one after the other, in memory that is used again: the server lends the function what
// has come, and the caller says where the result goes.
func ExampleCall_Fill() {
	var srv yonder.Server
	srv.Add(yonder.Procedure{Name: "upper", Lend: true, Func: func(page []byte) []byte {
		return bytes.ToUpper(page)
	}})
	client := serve(&srv, yonder.Dialer{})
	defer client.Close()

	var page []byte
	for n := range 3 {
		call := yonder.NewCall("upper", fmt.Appendf(nil, "page %d", n))
		if err := client.Call(context.Background(), call.Fill(&page)); err != nil {
			fmt.Println(err)
		}
		fmt.Printf("%s\n", page)
	}
	// Output:
	// PAGE 0
	// PAGE 1
	// PAGE 2
}

// A function among the arguments is called back while the call goes on.
func ExampleClient_Bind_callback() {
	var srv yonder.Server
	srv.Register("copy", func(ctx context.Context, files int, progress func(done int) error) error {
		for i := range files {
			if err := progress(i + 1); err != nil {
				return err
			}
		}
		return nil
	})
	client := serve(&srv, yonder.Dialer{})
	defer client.Close()

	var copyFiles func(ctx context.Context, files int, progress func(done int) error) error
	client.Bind("copy", &copyFiles)

	err := copyFiles(context.Background(), 2, func(done int) error {
		fmt.Println("copied", done)
		return nil
	})
	fmt.Println(err)
	// Output:
	// copied 1
	// copied 2
	// <nil>
}

// Both ends of a connection are equal: a handler calls what the client has registered.
func ExamplePeerFrom() {
	var srv yonder.Server
	srv.Register("join", func(ctx context.Context, name string) error {
		_, err := yonder.Invoke[string](ctx, yonder.PeerFrom(ctx), "say", "welcome, "+name)
		return err
	})

	var mine yonder.Server
	mine.Register("say", func(text string) string {
		fmt.Println(text)
		return "heard"
	})
	client := serve(&srv, yonder.Dialer{Server: &mine})
	defer client.Close()

	var join func(ctx context.Context, name string) error
	client.Bind("join", &join)
	fmt.Println(join(context.Background(), "Ann"))
	// Output:
	// welcome, Ann
	// <nil>
}

var ErrSoldOut = errors.New("sold out")

// ShortError is an error type of the program's own.
type ShortError struct{ Have, Want int }

func (e *ShortError) Error() string { return fmt.Sprintf("%d of %d", e.Have, e.Want) }

// Errors keep their identity: codes and wrapped chains, what package io and the like
// have, and what both ends list.
func ExampleError() {
	listed := map[string]error{
		"shop.SoldOut": ErrSoldOut,
		"shop.Short":   (*ShortError)(nil),
	}
	srv := yonder.Server{Errors: listed}
	srv.Register("buy", func(what string, n int) error {
		switch what {
		case "tea":
			return fmt.Errorf("tea: %w", ErrSoldOut)
		case "milk":
			return fmt.Errorf("milk: %w", &ShortError{1, n})
		}
		return fmt.Errorf("%s: %w", what, fs.ErrNotExist)
	})
	client := serve(&srv, yonder.Dialer{Errors: listed})
	defer client.Close()

	var buy func(ctx context.Context, what string, n int) error
	client.Bind("buy", &buy)

	ctx := context.Background()
	err := buy(ctx, "tea", 1)
	fmt.Println(err, errors.Is(err, ErrSoldOut))
	err = buy(ctx, "milk", 3)
	short, ok := errors.AsType[*ShortError](err)
	fmt.Println(err, ok, short.Want-short.Have)
	err = buy(ctx, "gold", 1)
	fmt.Println(err, errors.Is(err, fs.ErrNotExist), yonder.CodeOf(err), yonder.IsRemote(err))
	// Output:
	// tea: sold out true
	// milk: 1 of 3 true 2
	// gold: file does not exist true not_found true
}

// A deadline, or giving up, ends the handler's context too.
func ExampleClient_Call() {
	var srv yonder.Server
	ended := make(chan error, 1)
	srv.Register("wait", func(ctx context.Context) error {
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return ctx.Err()
	})
	client := serve(&srv, yonder.Dialer{})
	defer client.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	err := client.Call(ctx, yonder.NewCall("wait"))
	fmt.Println(err, yonder.IsRemote(err))
	fmt.Println("the handler:", <-ended)
	// Output:
	// yonder: call "wait": context deadline exceeded false
	// the handler: context deadline exceeded
}

// One type of interceptor, for both ends and every kind of call.
func ExampleInterceptor() {
	logged := func(side string) yonder.Interceptor {
		return func(next yonder.Handler) yonder.Handler {
			return func(ctx context.Context, call *yonder.Call) error {
				err := next(ctx, call)
				fmt.Println(side, call.Procedure, call.Args(), err)
				return err
			}
		}
	}
	srv := yonder.Server{Interceptors: []yonder.Interceptor{logged("server")}}
	srv.Register("add", func(a, b int) int { return a + b })
	client := serve(&srv, yonder.Dialer{Interceptors: []yonder.Interceptor{logged("client")}})
	defer client.Close()

	fmt.Println(yonder.Invoke[int](context.Background(), client, "add", 1, 2))
	// Output:
	// server add [1 2] <nil>
	// client add [1 2] <nil>
	// 3 <nil>
}

// Metadata goes with the call and comes with its answer.
func ExampleWithMetadata() {
	var srv yonder.Server
	srv.Register("whoami", func(ctx context.Context) string {
		info, _ := yonder.InfoFrom(ctx)
		yonder.SetReply(ctx, "served-by", "node 7")
		return info.Metadata["user"]
	})
	client := serve(&srv, yonder.Dialer{})
	defer client.Close()

	var reply yonder.Metadata
	ctx := yonder.WithMetadata(context.Background(), "user", "ann")
	ctx = yonder.WithReply(ctx, &reply)
	fmt.Println(yonder.Invoke[string](ctx, client, "whoami"))
	fmt.Println(reply["served-by"])
	// Output:
	// ann <nil>
	// node 7
}

// Signatures that do not fit are found before anything is run, with both of them.
func ExampleClient_Check() {
	var srv yonder.Server
	srv.Register("queryUser", func(id int) (Account, error) { return Account{}, nil })
	client := serve(&srv, yonder.Dialer{})
	defer client.Close()

	var query func(ctx context.Context, name string) (Account, error)
	client.Bind("queryUser", &query)
	fmt.Println(client.Check(context.Background()))
	// Output:
	// yonder: "queryUser": the signatures do not fit: argument 1: caller has string, callee has int
	// 	caller: func(string) (yonder_test.Account, error)
	// 	callee: func(int) (yonder_test.Account, error)
}

// A server in the same process, without encoding.
func ExampleLocal() {
	var srv yonder.Server
	srv.Register("add", func(a, b int) int { return a + b })

	client := yonder.Local(&srv)
	var add func(a, b int) (int, error)
	client.Bind("add", &add)
	fmt.Println(add(1, 2))
	// Output: 3 <nil>
}

// The end of a server: calls in flight end in order.
func ExampleServer_Shutdown() {
	var srv yonder.Server
	started := make(chan bool)
	srv.Register("work", func() string {
		close(started)
		return "done"
	})
	client := serve(&srv, yonder.Dialer{})
	defer client.Close()

	over := make(chan error)
	go func() {
		<-started
		over <- srv.Shutdown(context.Background())
	}()
	fmt.Println(yonder.Invoke[string](context.Background(), client, "work"))
	fmt.Println(<-over)
	_, err := yonder.Invoke[string](context.Background(), client, "work")
	fmt.Println(yonder.CodeOf(err))
	// Output:
	// done <nil>
	// <nil>
	// unavailable
}

// A stream goes on although its connection is lost in the middle.
func ExampleDialer_resume() {
	srv := yonder.Server{Resume: &yonder.Resumption{Window: 30 * time.Second, Secret: rand.Text}} // crypto/rand
	d := yonder.Dialer{Resume: 30 * time.Second}
	srv.Register("count", func(n int) iter.Seq2[int, error] {
		return func(yield func(int, error) bool) {
			for i := 0; i < n && yield(i, nil); i++ {
			}
		}
	})
	l, err := yonder.Listen("127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go srv.Serve(l)
	defer srv.Close()

	dialed := make(chan net.Conn, 2)
	d.NetDial = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		dialed <- conn
		return conn, err
	}
	client, err := d.Dial(context.Background(), l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	var count func(n int) (iter.Seq2[int, error], error)
	client.Bind("count", &count)
	items, err := count(50_000)
	if err != nil {
		log.Fatal(err)
	}
	sum := 0
	for i, err := range items {
		if err != nil {
			log.Fatal(err)
		}
		if sum += i; i == 1000 {
			(<-dialed).Close() // as a network does
		}
	}
	fmt.Println(sum)
	// Output: 1249975000
}

// A call that has surely not reached the server may be made again, whatever it does.
func ExampleMayHaveRun() {
	var srv yonder.Server
	client := serve(&srv, yonder.Dialer{})
	client.Close()

	_, err := yonder.Invoke[int](context.Background(), client, "pay", 100)
	fmt.Println(yonder.CodeOf(err), yonder.MayHaveRun(err))
	// Output: unavailable false
}

func ExampleCodec() {
	srv := yonder.Server{Codecs: []yonder.Codec{yonder.JSON}}
	srv.Register("older", func(a Account) Account { a.Age++; return a })
	client := serve(&srv, yonder.Dialer{Codec: yonder.JSON})
	defer client.Close()

	fmt.Println(yonder.Invoke[Account](context.Background(), client, "older", Account{"Ann", 41}))
	// Output: {Ann 42} <nil>
}

// A value for programs beside an error's text.
func ExampleDetailsAs() {
	var srv yonder.Server
	srv.Register("reserve", func(seats int) error {
		return &yonder.Error{Code: yonder.ResourceExhausted, Message: "sold out", Details: ShortError{1, seats}}
	})
	client := serve(&srv, yonder.Dialer{})
	defer client.Close()

	err := client.Call(context.Background(), yonder.NewCall("reserve", 3))
	short, ok := yonder.DetailsAs[ShortError](err)
	fmt.Println(err, ok, short.Want, short.Have)
	// Output: sold out true 3 1
}

// What a peer may cost, for a server that does not trust its own.
func ExampleLimits() {
	srv := yonder.Server{Limits: yonder.Limits{
		MaxMessage: 1 << 20, // 1 MiB
		MaxCalls:   10,      // at a time, each connection
		MaxStreams: 10,
	}}
	srv.Register("size", func(b []byte) int { return len(b) })
	client := serve(&srv, yonder.Dialer{})
	defer client.Close()

	size := yonder.Remote[[]byte, int](client, "size")
	fmt.Println(size(context.Background(), make([]byte, 1000)))
	_, err := size(context.Background(), make([]byte, 2<<20))
	fmt.Println(yonder.CodeOf(err), yonder.IsRemote(err))
	// Output:
	// 1000 <nil>
	// resource_exhausted false
}

// A server has so many connections, and ends those that do nothing for too long.
func ExampleConnLimits() {
	srv := yonder.Server{Conns: &yonder.ConnLimits{Max: 1, Idle: 10 * time.Minute}}
	srv.Register("double", func(n int) int { return 2 * n })
	first := serve(&srv, yonder.Dialer{})
	defer first.Close()
	fmt.Println(yonder.Invoke[int](context.Background(), first, "double", 21))

	second := serve(&srv, yonder.Dialer{})
	defer second.Close()
	_, err := yonder.Invoke[int](context.Background(), second, "double", 21)
	fmt.Println(yonder.CodeOf(err))
	// Output:
	// 42 <nil>
	// unavailable
}

// flateCompression is DEFLATE, which the standard library has.
type flateCompression struct{}

func (flateCompression) Name() string { return "deflate" }

func (flateCompression) Compress(dst, src []byte) []byte {
	out := bytes.NewBuffer(dst)
	w, _ := flate.NewWriter(out, flate.BestSpeed) // the level is valid, and out takes everything
	w.Write(src)
	w.Close()
	return out.Bytes()
}

func (flateCompression) Decompress(dst, src []byte, limit int) ([]byte, error) {
	out := bytes.NewBuffer(dst)
	n, err := io.Copy(out, io.LimitReader(flate.NewReader(bytes.NewReader(src)), int64(limit)+1))
	if err == nil && n > int64(limit) {
		err = errors.New("too large")
	}
	return out.Bytes(), err
}

// Package zstd has a faster one; any will do that both ends have.
func ExampleCompression() {
	srv := yonder.Server{Compression: flateCompression{}}
	srv.Register("count", func(text string) int { return strings.Count(text, "far") })
	client := serve(&srv, yonder.Dialer{Compression: flateCompression{}})
	defer client.Close()

	text := strings.Repeat("far, far away ", 10_000)
	fmt.Println(yonder.Invoke[int](context.Background(), client, "count", text))
	// Output: 20000 <nil>
}

// lineProtocol is one line a call: "CALL name argument", with the argument in JSON.
type lineProtocol struct{}

func (lineProtocol) Name() string { return "line" }

func (lineProtocol) Detect(first []byte) yonder.Verdict {
	const begin = "CALL "
	switch {
	case strings.HasPrefix(string(first), begin):
		return yonder.Yes
	case strings.HasPrefix(begin, string(first)):
		return yonder.Maybe
	}
	return yonder.No
}

func (lineProtocol) ServeConn(ctx context.Context, s *yonder.Server, conn net.Conn) error {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Now()) }) // the call in flight ends
	defer stop()
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		_, line, _ := strings.Cut(lines.Text(), " ")
		name, argument, _ := strings.Cut(line, " ")
		info := yonder.CallInfo{Procedure: name, Protocol: "line", Conn: conn}
		target, err := s.Target(info)
		if err == nil {
			call := target.NewCall(info, func(args []any) error {
				if len(args) != 1 {
					return errors.New("only procedures of one argument can be called")
				}
				return json.Unmarshal([]byte(argument), args[0])
			})
			if err = s.Call(context.WithoutCancel(ctx), call); err == nil {
				fmt.Fprintln(conn, call.Results()...)
			}
		}
		if err != nil {
			fmt.Fprintln(conn, yonder.CodeOf(err), err)
		}
	}
	return nil
}

// Another protocol on the same port.
func ExampleProtocol() {
	srv := yonder.Server{Protocols: []yonder.Protocol{lineProtocol{}}}
	srv.Register("shout", strings.ToUpper)
	l, err := yonder.Listen("127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go srv.Serve(l)
	defer srv.Shutdown(context.Background())

	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Fprintln(conn, `CALL shout "hello"`)
	fmt.Fprintln(conn, `CALL shout 5`)
	conn.(*net.TCPConn).CloseWrite()
	answers, err := io.ReadAll(conn)
	fmt.Print(string(answers), err)
	// Output:
	// HELLO
	// invalid_argument yonder: call "shout": json: cannot unmarshal number into Go value of type string
	// <nil>
}

// One port, every protocol: each caller uses its own.
func ExampleServer_protocols() {
	srv := yonder.Server{
		Protocols: []yonder.Protocol{rpc.Protocol, jsonrpc.Protocol, session.Protocol, web.Protocol},
	}
	srv.Add(yonder.Procedure{
		Name: "HelloService.Hello", Params: []string{"name"},
		Func: func(name string) string { return "Hello, " + name },
	})
	l, err := yonder.Listen("127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go srv.Serve(l)
	defer srv.Close()

	client, err := stdrpc.Dial("tcp", l.Addr().String()) // of Go's net/rpc
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	var reply string
	err = client.Call("HelloService.Hello", "world", &reply)
	fmt.Println(reply, err)

	body := `{"jsonrpc":"2.0","method":"HelloService.Hello","params":{"name":"JSON-RPC"},"id":1}`
	resp, err := http.Post("http://"+l.Addr().String()+"/jsonrpc", "application/json", strings.NewReader(body))
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	fmt.Println(strings.TrimSpace(string(answer)), err)
	// Output:
	// Hello, world <nil>
	// {"jsonrpc":"2.0","result":"Hello, JSON-RPC","id":1} <nil>
}

// Interceptors find out who calls, whatever protocol brought the call, and decide what they may.
func Example_authentication() {
	const secret = "an-example-of-32-random-bytes"
	stop := func(ctx context.Context) string { return "stopped for " + auth.FromContext(ctx).String() }

	tokens := auth.NewTokens(map[string]string{secret: "deploy"})
	srv := yonder.Server{Interceptors: []yonder.Interceptor{
		auth.Require(tokens.Identify, tlsconn.Identify, auth.Socket),
		auth.Rules{
			{Procedures: []string{"admin.*"}, From: []string{"token:deploy", "dns:*.ops.example", "uid:0"}},
			{Procedures: []string{"admin.*"}, Deny: true},
			{Procedures: []string{"*"}},
		}.Intercept,
	}}
	srv.Add(yonder.Procedure{Name: "admin.stop", Func: stop, Protocols: []string{"yonder"}})

	d := yonder.Dialer{Interceptors: []yonder.Interceptor{auth.Bearer(secret)}}
	client := serve(&srv, d)
	defer client.Close()
	fmt.Println(yonder.Invoke[string](context.Background(), client, "admin.stop"))

	stranger := serve(&srv, yonder.Dialer{})
	defer stranger.Close()
	_, err := yonder.Invoke[string](context.Background(), stranger, "admin.stop")
	fmt.Println(yonder.CodeOf(err), err)
	// Output:
	// stopped for token:deploy <nil>
	// unauthenticated yonder: call "admin.stop": it needs valid credentials
}

// A server runs as many calls as it can, has some wait, and sends the others away at once.
func Example_overload() {
	gate := &overload.Gate{
		Running: 64,  // calls at a time
		PerConn: 16,  // of one connection
		Queue:   256, // wait for their turn, for half a second at most
		Procedures: []overload.Limit{
			{Procedures: []string{"report.*"}, Running: 1},
		},
	}
	srv := yonder.Server{Interceptors: []yonder.Interceptor{gate.Intercept}}
	begun, done := make(chan bool), make(chan bool)
	srv.Register("report.year", func() { close(begun); <-done })
	srv.Register("report.day", func() {})
	client := serve(&srv, yonder.Dialer{Timeout: 50 * time.Millisecond})
	defer client.Close()

	go client.Call(context.Background(), yonder.NewCall("report.year"))
	<-begun
	defer close(done)
	err := client.Call(context.Background(), yonder.NewCall("report.day"))
	if after, ok := yonder.RetryAfter(err); ok {
		fmt.Println(yonder.CodeOf(err), after > 0)
	}
	// Output: resource_exhausted true
}

// What an operator wants to know of a server.
func Example_watching() {
	cacheIsWarm := func(ctx context.Context) error { return nil }
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == "took" || a.Key == "peer" {
			return slog.Attr{} // they differ from run to run
		}
		return a
	}}))

	srv := yonder.Server{
		Measure:      true,        // count and time calls
		Ready:        cacheIsWarm, // an error says why there should be no calls
		Interceptors: []yonder.Interceptor{yonder.AccessLog(logger)},
	}
	srv.Register("greet", func(name string) (string, error) {
		if name == "" {
			return "", yonder.Errorf(yonder.InvalidArgument, "nobody to greet")
		}
		return "hello, " + name, nil
	})
	client := serve(&srv, yonder.Dialer{})
	defer client.Close()
	ctx := context.Background()
	yonder.Invoke[string](ctx, client, "greet", "ann")
	yonder.Invoke[string](ctx, client, "greet", "")

	admin := http.NewServeMux() // where only operators are
	admin.Handle("/debug/yonder", web.Debug(&srv))
	admin.Handle("/debug/vars", expvar.Handler())
	if expvar.Get("yonder") == nil { // else this runs again
		expvar.Publish("yonder", expvar.Func(func() any { return srv.Stats() }))
	}

	stats := srv.Stats()
	calls := stats.Calls["greet"]
	fmt.Println(calls.Finished, calls.InFlight, calls.Errors, calls.Latency.Quantile(0.99) < 1)
	fmt.Println(stats.Connections["yonder"].Open)

	err := client.Health(ctx)
	fmt.Println(err)
	// Output:
	// level=INFO msg="yonder: call served" procedure=greet protocol=yonder code=ok
	// level=INFO msg="yonder: call served" procedure=greet protocol=yonder code=invalid_argument error="nobody to greet"
	// 2 0 map[invalid_argument:1] true
	// 1
	// level=INFO msg="yonder: call served" procedure=yonder.health protocol=yonder code=ok
	// <nil>
}

// An interceptor that is to know how a call ended, its streams included.
func ExampleCall_OnEnd() {
	timed := func(next yonder.Handler) yonder.Handler {
		return func(ctx context.Context, call *yonder.Call) error {
			name := call.Procedure // f must not refer to the call
			err := next(ctx, call)
			if err != nil {
				fmt.Println(name, "failed:", err)
			} else {
				call.OnEnd(func(err error) { fmt.Println(name, "ended:", err) })
			}
			return err
		}
	}
	var srv yonder.Server
	srv.Register("count", func(n int) iter.Seq2[int, error] {
		return func(yield func(int, error) bool) {
			for i := 0; i < n && yield(i, nil); i++ {
			}
		}
	})
	d := yonder.Dialer{Interceptors: []yonder.Interceptor{timed}}
	numbers, err := yonder.Invoke[iter.Seq2[int, error]](context.Background(), d.Local(&srv), "count", 2)
	if err != nil {
		log.Fatal(err)
	}
	for n, err := range numbers {
		fmt.Println(n, err)
	}
	// Output:
	// 0 <nil>
	// 1 <nil>
	// count ended: <nil>
}

// Certificates of both ends, in files that are read again when they change.
func Example_tls() {
	defer inCertificates()()
	srv := yonder.Server{Interceptors: []yonder.Interceptor{auth.Require(tlsconn.Identify)}}
	srv.Register("whoami", func(ctx context.Context) string { return auth.FromContext(ctx).String() })

	config := tlsconn.Config{Certificate: "server.pem", Key: "server.key", CA: "clients.pem"}
	l, err := config.Listen("127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go srv.Serve(l)
	defer srv.Close()
	address := "tls://" + l.Addr().String()

	mine := tlsconn.Config{Certificate: "ann.pem", Key: "ann.key", CA: "server.pem"}
	d := yonder.Dialer{NetDial: mine.NetDial}
	client, err := d.Dial(context.Background(), address)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	fmt.Println(yonder.Invoke[string](context.Background(), client, "whoami"))
	// Output: dns:ann.example <nil>
}

// inCertificates goes to a directory with certificates, each of which is its own authority, and
// returns what goes back.
func inCertificates() (back func()) {
	must := func(err error) {
		if err != nil {
			log.Fatal(err)
		}
	}
	home, err := os.Getwd()
	must(err)
	dir, err := os.MkdirTemp("", "yonder")
	must(err)
	must(os.Chdir(dir))
	for name, host := range map[string]string{"server": "127.0.0.1", "ann": "ann.example"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(err)
		template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = []net.IP{ip}
		} else {
			template.DNSNames = []string{host}
		}
		cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
		must(err)
		secret, err := x509.MarshalPKCS8PrivateKey(key)
		must(err)
		must(os.WriteFile(name+".pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600))
		must(os.WriteFile(name+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
	}
	must(os.Link("ann.pem", "clients.pem"))
	return func() {
		os.Chdir(home)
		os.RemoveAll(dir)
	}
}
