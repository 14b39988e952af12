package main

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/yonder-rpc/yonder"
)

func server() *yonder.Server {
	srv := new(yonder.Server)
	srv.RegisterService("Chat", new(room))
	return srv
}

// room is where all clients meet.
type room struct {
	mu      sync.Mutex
	members []member
}

// member is somebody in the room.
type member struct {
	name string
	peer *yonder.Client
	hear func(ctx context.Context, from, text string) error // registered by the client
}

// Join lets the caller in.
func (r *room) Join(ctx context.Context, name string) {
	m := member{name: name, peer: yonder.PeerFrom(ctx)}
	m.peer.Bind("hear", &m.hear)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.members = append(r.members, m)
}

// Say tells the others, and returns when they have heard it.
func (r *room) Say(ctx context.Context, text string) error {
	r.mu.Lock()
	members := slices.Clone(r.members)
	r.mu.Unlock()
	self := slices.IndexFunc(members, func(m member) bool { return m.peer == yonder.PeerFrom(ctx) })
	if self < 0 {
		return yonder.Errorf(yonder.FailedPrecondition, "join before you say something")
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for i, m := range members {
		if i != self && m.hear(ctx, members[self].name, text) != nil {
			r.leave(m) // the connection is lost, or nobody answers
		}
	}
	return nil
}

func (r *room) leave(m member) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.members = slices.DeleteFunc(r.members, func(other member) bool { return other.peer == m.peer })
}
