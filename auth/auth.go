// Package auth finds out who calls, and decides what they may: interceptors for a
// [yonder.Server], whatever protocols it speaks.
//
//	tokens := auth.NewTokens(map[string]string{os.Getenv("DEPLOY_TOKEN"): "deploy"})
//	srv.Interceptors = []yonder.Interceptor{
//		auth.Require(tokens.Identify, tlsconn.Identify),
//		auth.Rules{{Procedures: []string{"admin.*"}, From: []string{"token:deploy"}}, {Procedures: []string{"*"}}}.Intercept,
//	}
//
// A [Source] finds who calls: [Tokens] by a bearer token, package tlsconn by a certificate,
// [Socket] by the process at the other end of a Unix socket. [FromContext] tells the handler.
// Arguments are decoded only when all interceptors have let a call through.
//
// What a caller is told is the same whatever was wrong: nothing that a token could be guessed by.
// No error, log or text of this package's has a secret in it.
//
// # Where a token comes from
//
// It is the metadata "authorization", "Bearer " and the token, as [Bearer] has a client send it:
// natively, in net/rpc's extension, in JSON-RPC's member "meta". Over HTTP it is the header
// Authorization, also of the request that a WebSocket or net/rpc's CONNECT began with. The session
// protocol and clients of the standard net/rpc have no room for one: they can be known by a
// certificate or a Unix socket, and otherwise are nobody.
package auth

import (
	"context"
	"errors"
	"slices"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/internal/pattern"
)

// An Identity is who calls, as far as it is proven.
type Identity struct {
	// Names are what rules know the caller by, each with how it is proven before it:
	// "token:deploy", "dns:worker.example", "uid:1000". The first is for logs.
	Names []string
	// Detail is what else is known, by the source: a [Credentials], a *tls.ConnectionState. Nil:
	// nothing.
	Detail any
}

// String returns the first name.
func (id *Identity) String() string {
	if id == nil || len(id.Names) == 0 {
		return "anonymous"
	}
	return id.Names[0]
}

// A Source finds who makes a call, from what came with it and what it came over. Nil without an
// error: the call says nothing of the kind that this source knows. An error: what it says is not
// true, and the call is refused. The caller sees the error if it has a code of its own, and
// otherwise not. It runs for every call, on its goroutine.
type Source func(ctx context.Context, info yonder.CallInfo) (*Identity, error)

type identityKey struct{}

// FromContext returns who makes the call whose handler has this context, as [Identify] or
// [Require] have found; nil: nobody knows.
func FromContext(ctx context.Context) *Identity {
	id, _ := ctx.Value(identityKey{}).(*Identity)
	return id
}

// Identify has the first of the sources that knows who calls say so to what follows. A call that
// none knows goes on, as nobody's.
func Identify(sources ...Source) yonder.Interceptor { return identify(false, sources) }

// Require is Identify, and refuses calls that no source knows, with [yonder.Unauthenticated].
func Require(sources ...Source) yonder.Interceptor { return identify(true, sources) }

func identify(required bool, sources []Source) yonder.Interceptor {
	sources = slices.Clone(sources)
	return func(next yonder.Handler) yonder.Handler {
		return func(ctx context.Context, call *yonder.Call) error {
			id, err := first(ctx, call.Info(), sources)
			if err != nil {
				return err
			}
			if id == nil && required {
				return unauthenticated(call.Procedure)
			}
			if id != nil {
				ctx = context.WithValue(ctx, identityKey{}, id)
			}
			return next(ctx, call)
		}
	}
}

func first(ctx context.Context, info yonder.CallInfo, sources []Source) (*Identity, error) {
	for _, source := range sources {
		id, err := source(ctx, info)
		if err != nil {
			if _, coded := errors.AsType[*yonder.Error](err); coded {
				return nil, err
			}
			return nil, unauthenticated(info.Procedure)
		}
		if id != nil {
			return id, nil
		}
	}
	return nil, nil
}

// unauthenticated is the same for all reasons.
func unauthenticated(procedure string) error {
	return yonder.Errorf(yonder.Unauthenticated, "yonder: call %q: it needs valid credentials", procedure)
}

// A Rule says who may call what. In a pattern, "*" stands for any characters, or none.
type Rule struct {
	// Procedures are patterns of names, such as "admin.*". Nil: none.
	Procedures []string
	// From are patterns of the caller's names, such as "token:*". Nil: anybody, also who is not
	// known.
	From []string
	// Deny refuses the calls, instead of allowing them.
	Deny bool
}

// Rules decide which calls go on: the first rule that fits a call does, and a call that none fits
// is refused, with [yonder.PermissionDenied], or [yonder.Unauthenticated] if nobody knows who
// makes it. They must not be changed once they are used.
//
// The list of a server's procedures is a procedure, too: "yonder.procedures"; and so is whether it
// is ready: "yonder.health", which a rule may allow to everybody, after [Identify]. The name of a
// function among the arguments is that of the procedure, "#" and its number.
type Rules []Rule

// Intercept is the [yonder.Interceptor]. It belongs after [Identify] or [Require].
func (r Rules) Intercept(next yonder.Handler) yonder.Handler {
	return func(ctx context.Context, call *yonder.Call) error {
		id := FromContext(ctx)
		if r.Allow(id, call.Procedure) {
			return next(ctx, call)
		}
		if id == nil {
			return unauthenticated(call.Procedure)
		}
		return yonder.Errorf(yonder.PermissionDenied, "yonder: call %q: %s may not call it", call.Procedure, id)
	}
}

// Allow reports whether a caller may call a procedure. Nil is one that nobody knows.
func (r Rules) Allow(id *Identity, procedure string) bool {
	for i := range r {
		if r[i].fits(id, procedure) {
			return !r[i].Deny
		}
	}
	return false
}

func (r *Rule) fits(id *Identity, procedure string) bool {
	if !pattern.Any(r.Procedures, procedure) {
		return false
	}
	if r.From == nil {
		return true
	}
	return id != nil && slices.ContainsFunc(r.From, func(p string) bool {
		return slices.ContainsFunc(id.Names, func(name string) bool { return pattern.Matches(p, name) })
	})
}
