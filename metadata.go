package yonder

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"strings"
)

// Metadata goes with a call beside its arguments, or with its answer: a trace, a
// token, a hint. Keys are case-sensitive; by convention they are in lower case. The value of
// "authorization", in any case, is a secret, as it is in HTTP: it is not in the text.
type Metadata map[string]string

// String returns m as a map's text, with secrets hidden.
func (m Metadata) String() string {
	shown := make(map[string]string, len(m))
	for key, value := range m {
		if strings.EqualFold(key, "authorization") {
			value = "(hidden)"
		}
		shown[key] = value
	}
	return fmt.Sprint(shown)
}

// GoString is String, for the same reason.
func (m Metadata) GoString() string { return m.String() }

// LogValue implements [slog.LogValuer], so that no handler of logs sees secrets.
func (m Metadata) LogValue() slog.Value { return slog.StringValue(m.String()) }

type (
	outgoingKey struct{} // *Metadata of calls made with the context
	replyKey    struct{} // *Metadata that an answer's are put in
	callKey     struct{} // *Call that a handler's context is of
	foreignKey  struct{} // *foreign that a handler's context is of, if there is no Call
)

// WithMetadata returns a context whose calls carry the pairs, key before value, in
// addition to those that ctx has. It panics if a value is missing.
//
// Metadata is not passed on: a handler's own calls carry what the handler gives.
func WithMetadata(ctx context.Context, pairs ...string) context.Context {
	if len(pairs)%2 != 0 {
		panic("yonder: WithMetadata: key " + pairs[len(pairs)-1] + " has no value")
	}
	old, _ := Outgoing(ctx)
	m := make(Metadata, len(old)+len(pairs)/2)
	maps.Copy(m, old)
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return context.WithValue(ctx, outgoingKey{}, &m)
}

// WithReply returns a context whose calls put the metadata of their answers in
// reply when they return; nil: there is none. Use one context a call where several
// are made at once.
func WithReply(ctx context.Context, reply *Metadata) context.Context {
	return context.WithValue(ctx, replyKey{}, reply)
}

// SetReply adds to the metadata that the answer of a handler's call carries. It must
// be called before the handler returns, with its context or one derived from it, and
// by one goroutine at a time; elsewhere it does nothing.
func SetReply(ctx context.Context, key, value string) {
	if call, ok := ctx.Value(callKey{}).(*Call); ok {
		if call.Reply == nil {
			call.Reply = make(Metadata)
		}
		call.Reply[key] = value
	} else if f, ok := ctx.Value(foreignKey{}).(*foreign); ok && f.reply != nil {
		if *f.reply == nil {
			*f.reply = make(Metadata)
		}
		(*f.reply)[key] = value
	}
}

// A CallInfo tells a handler about the call that it serves.
type CallInfo struct {
	// Procedure is the name that was called.
	Procedure string
	// Metadata came with the call; nil: none. It must not be changed.
	Metadata Metadata
	// Protocol is the name of the protocol that it came over: "yonder" for the native
	// one, "local" in the same process.
	Protocol string
	// Conn is the connection, for what it knows of the peer: a *tls.Conn's certificates,
	// a net.Conn's address. It must not be read, written or closed. Other protocols than the
	// native one, and WebSockets, wrap it in what has a method NetConn() net.Conn, as a
	// *tls.Conn does: look for what is wanted before that (package web's TLS does). Nil: in
	// the same process.
	Conn any
}

// InfoFrom returns what is known of the call whose handler has this context, or one
// that it is derived from, and whether there is one.
func InfoFrom(ctx context.Context) (CallInfo, bool) {
	if call, ok := ctx.Value(callKey{}).(*Call); ok {
		return call.Info(), true
	}
	if f, ok := ctx.Value(foreignKey{}).(*foreign); ok {
		return f.info, true
	}
	return CallInfo{}, false
}

// foreign is a call that no [Server] serves.
type foreign struct {
	info  CallInfo
	reply *Metadata
}

// HandlerContext returns a context for a handler that is not called by a [Server], for
// packages with servers of their own: [InfoFrom] tells info, and [SetReply] adds to reply,
// if that is not nil. The handler's own calls carry none of ctx's metadata.
func HandlerContext(ctx context.Context, info CallInfo, reply *Metadata) context.Context {
	ctx = context.WithValue(ctx, foreignKey{}, &foreign{info, reply})
	if m, _ := Outgoing(ctx); m != nil {
		ctx = context.WithValue(ctx, outgoingKey{}, (*Metadata)(nil))
	}
	return ctx
}

// Outgoing returns what [WithMetadata] and [WithReply] have put into a context, for
// packages with clients of their own. The metadata must not be changed. Nil: nothing.
func Outgoing(ctx context.Context) (m Metadata, reply *Metadata) {
	if out, _ := ctx.Value(outgoingKey{}).(*Metadata); out != nil {
		m = *out
	}
	reply, _ = ctx.Value(replyKey{}).(*Metadata)
	return m, reply
}

// PeerFrom returns a client of the other end of the connection that the handler with
// this context was called over: it calls what that end has registered. It is valid as
// long as the connection is, beyond the call too. It is nil if there is no such end.
func PeerFrom(ctx context.Context) *Client {
	if call, ok := ctx.Value(callKey{}).(*Call); ok && call.link != nil {
		return call.link.peer()
	}
	return nil
}
