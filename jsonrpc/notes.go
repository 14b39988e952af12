package jsonrpc

import (
	"container/list"
	"context"
	"errors"
	"reflect"
	"sync"
	"time"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/internal/layers"
)

// Notes are the notifications over HTTP that run. The end of their requests does not end them, so
// they are counted: each client's, for which it has to wait alone, and all.
type notes struct {
	most int // that one client may have

	mu      sync.Mutex // guards what follows
	clients map[any]*noteClient
	running list.List // of context.CancelCauseFunc, the oldest first
}

// A noteClient is whose notifications are counted together.
type noteClient struct {
	places chan struct{} // holds one a notification that runs
	users  int           // of this, guarded by notes.mu: notifications that run or wait
}

const (
	// noteWait is how long a request waits for its client's notifications, together.
	noteWait = 10 * time.Second
	// noteClients is for how many clients, with as many notifications as one may have, there is room.
	// Beyond that the one that has run longest is cancelled: who sends some that do not end must not
	// keep out others', which may be short.
	noteClients = 8
)

var (
	errNoteTime  = errors.New("the notification took too long")
	errNoteCrowd = errors.New("the notification has run longest of more than the server takes")
)

func newNotes(most int) *notes { return &notes{most: most, clients: make(map[any]*noteClient)} }

// clientOf returns what tells a request's client from others: its connection, where it is known, or
// the request.
func (c *httpCaller) clientOf() any {
	var last any
	for layer := range layers.All(c.r) {
		last = layer
	}
	if !reflect.ValueOf(last).Comparable() {
		return c.r
	}
	return last
}

// client returns a client, to be left.
func (n *notes) client(key any) *noteClient {
	n.mu.Lock()
	defer n.mu.Unlock()
	client := n.clients[key]
	if client == nil {
		client = &noteClient{places: make(chan struct{}, n.most)}
		n.clients[key] = client
	}
	client.users++
	return client
}

func (n *notes) leave(key any, client *noteClient) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if client.users--; client.users == 0 {
		delete(n.clients, key)
	}
}

// add adds a notification that begins to run.
func (n *notes) add(cancel context.CancelCauseFunc) *list.Element {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.running.Len() >= noteClients*n.most {
		n.running.Remove(n.running.Front()).(context.CancelCauseFunc)(errNoteCrowd)
	}
	return n.running.PushBack(cancel)
}

// remove removes one that has ended.
func (n *notes) remove(e *list.Element) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.running.Remove(e) // or add has
}

// note implements [caller]: the handler goes on when the request is answered. A notification for
// which there is no place in time is dropped.
func (c *httpCaller) note(r *request, _ int, run func(ctx context.Context, a *activeCall)) {
	all, key := c.handler.notes, c.clientOf()
	client := all.client(key)
	if !c.place(client) {
		all.leave(key, client)
		c.dropped++
		return
	}
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(c.r.Context()))
	over := func() {
		cancel(nil)
		<-client.places
		all.leave(key, client)
	}
	_, leave, err := c.srv.Join(closerFunc(func() { cancel(yonder.ErrServerClosed) }))
	if err != nil {
		over()
		return
	}
	context.AfterFunc(ctx, func() {
		if context.Cause(ctx) == yonder.ErrServerClosed {
			leave() // Close does not wait for handlers that ignore their contexts
		}
	})
	within, stop := ctx, context.CancelFunc(func() {})
	if c.config.BatchTimeout > 0 {
		within, stop = context.WithTimeoutCause(ctx, c.config.BatchTimeout, errNoteTime)
	}
	e := all.add(cancel)
	go func() { // ends with the handler
		defer func() {
			all.remove(e)
			stop()
			over()
			leave()
		}()
		run(newActive(within, r))
	}()
}

// place takes one of a client's places, and reports whether there was one in time.
func (c *httpCaller) place(client *noteClient) bool {
	select {
	case client.places <- struct{}{}:
		return true
	default:
	}
	if c.waits.IsZero() {
		c.waits = time.Now().Add(noteWait)
	}
	t := time.NewTimer(time.Until(c.waits))
	defer t.Stop()
	select {
	case client.places <- struct{}{}:
		return true
	case <-t.C:
	case <-c.r.Context().Done():
	}
	return false
}
