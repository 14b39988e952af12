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
)

// An entrant is one way for a process to call functions of another.
type entrant struct {
	name string
	// serve serves the connections that l accepts. It returns only if it fails. Nil:
	// server and client are one process.
	serve func(l net.Listener) error
	// dial returns a client with the one connection that it has d make.
	dial func(d *dialer) (client, error)
	// runs reports whether a workload suits the entrant.
	runs func(w workload) bool
}

// A client calls an entrant's server. Its methods, but for close, may be used by
// several goroutines at once. Those that call check what comes back.
type client interface {
	// small has anItem returned.
	small(ctx context.Context) error
	// bytes has b returned.
	bytes(ctx context.Context, b []byte) error
	// blob has n bytes made.
	blob(ctx context.Context, n int) error
	close() error
}

func allEntrants() []entrant {
	return []entrant{
		{"yonder-bound", serveYonder, dialBound, always},
		{"yonder-generic", serveYonder, dialGeneric, always},
		{"net/rpc", serveNetRPC, dialNetRPC, always},
		{"grpc", serveGRPC, dialGRPC, always},
		{"raw", serveRaw, dialRaw, func(w workload) bool { return w.callers == 1 }},
		{"net/rpc drop-in", serveDropIn, dialDropIn, smallOnly},
		{"net/rpc to yonder", serveProtocols, dialNetRPCOfYonder, smallOnly},
		{"yonder-jsonrpc", serveProtocols, dialJSON, smallOnly},
		{"net/rpc/jsonrpc", serveNetRPCJSON, dialNetRPCJSON, smallOnly},
		{"local-bound", nil, localBound, smallOnly},
		{"local-generic", nil, localGeneric, smallOnly},
	}
}

// A dialer connects to a server.
type dialer struct {
	addr string
	conn net.Conn // the connection; nil before dial
}

func (d *dialer) dial(ctx context.Context) (conn net.Conn, err error) {
	conn, err = new(net.Dialer).DialContext(ctx, "tcp", d.addr)
	d.conn = conn
	return conn, err
}

func always(workload) bool { return true }

func smallOnly(w workload) bool { return w.payload == 0 }

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
			return nil, fmt.Errorf("no entrant %q; there are %s", name, strings.Join(namesOf(all), ", "))
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

// blobs makes large results, and keeps the last for the next call: making it is not
// what is measured. Its zero value is ready to use.
type blobs struct {
	mu   sync.Mutex
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
