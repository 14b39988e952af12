//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// An entrant is one way for a process to call functions of another.
type entrant struct {
	name string
	// about says how it is used.
	about string
	// peer says that it is what somebody chooses between, instead of yonder.
	peer bool
	can  ability
	// memory says that it differs from another only in where large messages are put.
	memory bool
	// sends says that it also writes by send, which the kernel does not count.
	sends bool
	// serve serves the connections that l accepts, with each procedure under as many
	// names. It returns only if it fails. Nil: server and client are one process.
	serve func(l net.Listener, procedures int) error
	// dial returns a client. It makes one connection, at once or with the first call.
	dial func(ctx context.Context, t target) (client, error)
	// hello is the package of a program in the manner of examples/hello, seen from the
	// root of the repository. Empty: there is none.
	hello string
}

// An ability is something that a workload needs and not every entrant has.
type ability uint

const (
	concurrent ability = 1 << iota // several calls at a time
	scales                         // many callers and connections, and whatever else is asked of the main entrants only
	payloads                       // client.bytes
	bulk                           // hundreds of MiB in flight
	transfers                      // a transferer: large results
	streams                        // a streamer
	numbered                       // a numberer: many procedures
	deadlines                      // a call's deadline is its context's
	timeouts                       // a call's deadline is target.timeout
	builds                         // a hello program
	works                          // a worker
)

func (e *entrant) runs(w *workload) bool {
	if e.memory && w.payload == 0 {
		return false
	}
	can := e.can
	if can&timeouts != 0 {
		can |= deadlines
	}
	return w.needs&^can == 0
}

// A target is what a client is made for.
type target struct {
	addr    string
	timeout time.Duration // of each call, for those who configure it; zero: none
}

func (t *target) dial(ctx context.Context) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", t.addr)
}

// A client calls an entrant's server. Its methods, but for close, may be used by
// several goroutines at once. Those that call check what comes back.
type client interface {
	// small has anItem returned.
	small(ctx context.Context) error
	// bytes has b returned.
	bytes(ctx context.Context, b []byte) error
	close() error
}

// A transferer has n bytes made for it.
type transferer interface {
	blob(ctx context.Context, n int) error
}

// A streamer sends, and receives, n items.
type streamer interface {
	up(ctx context.Context, n int) error
	down(ctx context.Context, n int) error
}

// A numberer returns what small does, of the procedure of this number.
type numberer interface {
	procedure(i int) func(ctx context.Context) error
}

const everything = concurrent | scales | payloads | bulk | transfers | streams | numbered | deadlines | builds

func allEntrants() []entrant {
	return append([]entrant{
		{name: "yonder-bound", sends: true, can: everything | works, serve: serveYonder, dial: dialBound, hello: "./examples/hello",
			about: "`Register` and `Bind`: any function; for streams, `iter.Seq2`"},
		{name: "yonder-generic", sends: true, can: everything &^ builds, serve: serveYonder, dial: dialGeneric,
			about: "`Handle` and `Remote`: one argument, one result, no reflection in the call; for streams, `Stream`"},
		{name: "yonder-lent", sends: true, memory: true, can: concurrent | payloads | bulk, serve: serveYonder, dial: dialLent,
			about: "`Procedure.Lend` and `Call.Fill`: large bytes are read into memory that has been used before, as raw's are"},
		{name: "yonder-timeout", sends: true, can: concurrent | timeouts, serve: serveYonder, dial: dialTimeout,
			about: "`Bind` of functions without a context; their deadline is the client's `Timeout`"},
		{name: "yonder-gate", sends: true, can: works, serve: serveGate, dial: dialBound,
			about: "`overload.Gate`: a call a CPU runs at a time, 8 a CPU wait, for 25 ms at most"},
		{name: "raw", can: scales | payloads | bulk, serve: serveRaw, dial: dialRaw,
			about: "a bare TCP connection: 4 bytes of length, opaque bytes, one call at a time; the limit of latency"},
		{name: "raw-fresh", memory: true, can: payloads | bulk, serve: serveRawFresh, dial: dialRawFresh,
			about: "the same, and each message is read into memory of its own, as who may keep it needs"},
		{name: "raw-mux", can: concurrent | scales | payloads | bulk | deadlines, serve: serveMux, dial: dialMux,
			about: "a bare multiplexer: an id and a length, opaque bytes, writes gathered, a goroutine a request; the limit of throughput"},
		{name: "net/rpc", peer: true, can: everything&^(streams|deadlines) | works, serve: serveNetRPC, dial: dialNetRPC, hello: "./internal/bench/hello/netrpc",
			about: "the standard library's, gob"},
		{name: "grpc", peer: true, can: everything, serve: serveGRPC, dial: dialGRPC, hello: "./internal/bench/hello/grpc",
			about: "generated code"},
		{name: "grpc-tuned", peer: true, can: concurrent | payloads | bulk | streams | transfers, serve: serveGRPCTuned, dial: dialGRPCTuned,
			about: "tuned: as many stream workers as CPUs, windows of 16 MiB, buffers of 256 KiB"},
		{name: "connect", peer: true, can: everything &^ (numbered | builds), serve: serveConnect, dial: dialConnect,
			about: "Connect's protocol over h2c by net/http, generated code; tuned: 10,000 concurrent streams on one connection, no gzip"},
		{name: "drpc", peer: true, can: everything &^ (numbered | builds), serve: serveDRPC, dial: dialDRPC,
			about: "generated code; calls on one connection take turns"},
		{name: "drpc-pool", can: concurrent | payloads | bulk | deadlines, serve: serveDRPC, dial: dialDRPCPool,
			about: "tuned: `drpcpool`, a connection for each call in flight"},
		{name: "ttrpc", peer: true, can: concurrent | scales | payloads | bulk | streams | deadlines, serve: serveTTRPC, dial: dialTTRPC,
			about: "generated code; messages of at most 4 MiB"},
		{name: "nats", peer: true, can: concurrent | scales | payloads | deadlines, serve: serveNATS, dial: dialNATS,
			about: "request and reply by an embedded server, whose process answers; Protocol Buffers; tuned: messages of up to 8 MiB; drops answers when more than 64 MiB of them wait"},
		{name: "capnp", peer: true, can: concurrent | scales | payloads | bulk | deadlines, serve: serveCapnp, dial: dialCapnp,
			about: "generated code; values are read from the message"},
		{name: "net/rpc drop-in", can: concurrent | payloads, serve: serveDropIn, dial: dialDropIn,
			about: "yonder's package net/rpc at both ends"},
		{name: "net/rpc to yonder", can: concurrent, serve: serveProtocols, dial: dialNetRPCOfYonder,
			about: "the standard library's client, a yonder server"},
		{name: "yonder-jsonrpc", can: concurrent | payloads, serve: serveProtocols, dial: dialJSON,
			about: "yonder's package jsonrpc at both ends, over TCP"},
		{name: "net/rpc/jsonrpc", peer: true, can: concurrent | payloads, serve: serveNetRPCJSON, dial: dialNetRPCJSON,
			about: "the standard library's"},
		{name: "local-bound", can: concurrent, dial: localBound,
			about: "`Local`: server and client in one process"},
		{name: "local-generic", can: concurrent, dial: localGeneric,
			about: "`Local`, `Handle` and `Remote`"},
	}, heavyEntrants()...)
}

func namesOf(entrants []entrant) []string {
	var names []string
	for _, e := range entrants {
		names = append(names, e.name)
	}
	return names
}

// pickEntrants returns the entrants of these names.
func pickEntrants(all []entrant, names []string) ([]entrant, error) {
	var picked []entrant
	for _, name := range names {
		i := slices.IndexFunc(all, func(e entrant) bool { return e.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no entrant %q; there are %s", name, strings.Join(namesOf(all), ", ")+heavyHint)
		}
		picked = append(picked, all[i])
	}
	return picked, nil
}

// Item is the small struct. It is exported because net/rpc wants that.
type Item struct {
	ID    int64
	Name  string
	Tags  []string
	Score float64
}

// anItem returns what small calls send.
func anItem() Item {
	return Item{1 << 40, "sixteen letters.", []string{"red", "green"}, 0.25}
}

var errDiffers = errors.New("what came back is not what was sent")

// checkItem checks what is quick to check, and would be missing first.
func checkItem(it *Item, err error) error {
	if err == nil && (it.ID != 1<<40 || len(it.Name) != 16 || len(it.Tags) != 2 || it.Score != 0.25) {
		return errDiffers
	}
	return err
}

// checkBytes checks the length and the ends.
func checkBytes(got, want []byte, err error) error {
	if err == nil && (len(got) != len(want) || len(got) > 0 && (got[0] != want[0] || got[len(got)-1] != want[len(want)-1])) {
		return errDiffers
	}
	return err
}

// checkBlob checks what [blobs] has made.
func checkBlob(got []byte, n int, err error) error {
	if err == nil && (len(got) != n || n > 0 && got[n-1] != blobByte) {
		return errDiffers
	}
	return err
}

// checkCount checks how many items of a stream have arrived.
func checkCount(got, want int, err error) error {
	if err == nil && got != want {
		return fmt.Errorf("%d items of %d have arrived", got, want)
	}
	return err
}

// blobs makes large results, and keeps the last for the next call: making it is not
// what is measured. Its zero value is ready to use.
type blobs struct {
	mu   sync.Mutex // guards last
	last []byte
}

const blobByte = 0xa5

func (b *blobs) get(n int) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.last) != n {
		b.last = slices.Repeat([]byte{blobByte}, n)
	}
	return b.last
}

// acceptAll has each connection that l accepts served by a goroutine, which ends with it.
func acceptAll(l net.Listener, serve func(net.Conn)) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			serve(conn)
		}()
	}
}
