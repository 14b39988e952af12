package auth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/internal/layers"
)

// authorization is the key of the metadata that a token is in.
const authorization = "authorization"

// minToken is the shortest token that is accepted, in bytes: what is shorter can be guessed.
const minToken = 16

// Tokens are bearer tokens, and who has them: [Tokens.Identify] is a [Source]. It keeps their
// hashes only. Its methods may be called at any time and by several goroutines.
type Tokens struct {
	valid atomic.Pointer[[]token]
}

type token struct {
	hash     [sha256.Size]byte
	identity Identity
}

// NewTokens returns what [Tokens.Set] has set.
func NewTokens(names map[string]string) *Tokens {
	t := new(Tokens)
	t.Set(names)
	return t
}

// Set makes these tokens the valid ones, from the next call on. names has, by token, whose it is:
// "deploy" becomes the identity "token:deploy". While one is replaced by another, both are there,
// with the same name. It panics if a token is shorter than 16 bytes, or a name is empty.
func (t *Tokens) Set(names map[string]string) {
	list := make([]token, 0, len(names))
	for secret, name := range names {
		switch {
		case len(secret) < minToken:
			panic(fmt.Sprintf("auth: the token of %q is shorter than %d bytes: it can be guessed; make one from random bytes", name, minToken))
		case name == "":
			panic("auth: a token has no name")
		}
		list = append(list, token{sha256.Sum256([]byte(secret)), Identity{Names: []string{"token:" + name}}})
	}
	t.valid.Store(&list)
}

// String says how many tokens there are.
func (t *Tokens) String() string { return fmt.Sprintf("%d tokens", len(*t.valid.Load())) }

// GoString is String: the text has no hash in it, either.
func (t *Tokens) GoString() string { return t.String() }

// Identify is the [Source]. How long it takes does not depend on how much of a token is right, nor
// on which one it is.
func (t *Tokens) Identify(_ context.Context, info yonder.CallInfo) (*Identity, error) {
	secret, ok := Token(info)
	if !ok {
		return nil, nil
	}
	hash := sha256.Sum256([]byte(secret))
	valid := *t.valid.Load()
	found := -1
	for i := range valid {
		found = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(hash[:], valid[i].hash[:]), i, found)
	}
	if found < 0 {
		return nil, errToken
	}
	return &valid[found].identity, nil
}

var errToken = errors.New("auth: the token is not valid")

// Token returns the bearer token that came with a call, or with the HTTP request that its connection
// began as, for sources that ask somebody else whether it is valid.
func Token(info yonder.CallInfo) (secret string, ok bool) {
	text, ok := info.Metadata[authorization]
	if !ok {
		began, over := layers.Find[layers.Began](info.Conn)
		if !over {
			return "", false
		}
		text = began.Authorization()
	}
	scheme, secret, _ := strings.Cut(text, " ")
	secret = strings.TrimSpace(secret)
	if !strings.EqualFold(scheme, "Bearer") || secret == "" {
		return "", false
	}
	return secret, true
}

// Bearer has a client's calls carry a token: it is for [yonder.Dialer.Interceptors]. It is for
// connections that nobody listens in on: TLS, Unix sockets, this machine's loopback.
func Bearer(secret string) yonder.Interceptor {
	return BearerFrom(func(context.Context) (string, error) { return secret, nil })
}

// BearerFrom is Bearer for tokens that change: secret is asked before each call. Its error is the
// call's, and [yonder.Unauthenticated] if it has no code. A call whose metadata has an
// authorization keeps that.
func BearerFrom(secret func(ctx context.Context) (string, error)) yonder.Interceptor {
	return func(next yonder.Handler) yonder.Handler {
		return func(ctx context.Context, call *yonder.Call) error {
			if _, own := call.Metadata[authorization]; own {
				return next(ctx, call)
			}
			text, err := secret(ctx)
			if err != nil {
				code := yonder.Unauthenticated
				if known, ok := errors.AsType[*yonder.Error](err); ok {
					code = known.Code
				}
				return yonder.Errorf(code, "yonder: call %q: there is no token: %w", call.Procedure, err)
			}
			m := make(yonder.Metadata, len(call.Metadata)+1)
			maps.Copy(m, call.Metadata) // it may be shared
			m[authorization] = "Bearer " + text
			call.Metadata = m
			return next(ctx, call)
		}
	}
}
