package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"connectrpc.com/connect"
)

// Token lets a client in. Only its hash is known.
type Token struct {
	// Name of the actor in the audit log.
	Name string
	// SHA256 of the token's text, in hex.
	SHA256 string
	// Roles: read, operate (which includes read), publish, subscribe:NAME.
	Roles []string
}

// need is what a route asks of an actor.
type need uint8

const (
	needNothing   need = iota // open, also without a token
	needToken                 // any token
	needRead                  // read or operate
	needView                  // read, operate, or subscribe:NAME with the {name} of the path
	needOperate               // operate
	needSubscribe             // subscribe:NAME with the subscription that the messages name
)

// actor is who calls.
type actor struct {
	name          string
	all           bool // no tokens are configured
	read, operate bool
	subscribe     map[string]bool
}

// may reports whether a may use a route that needs n; name is the {name} of its path.
func (a *actor) may(n need, name string) bool {
	switch {
	case n == needNothing, n == needToken, a.all:
		return true
	case n == needRead:
		return a.read
	case n == needView:
		return a.read || a.subscribe[name]
	case n == needOperate:
		return a.operate
	case n == needSubscribe:
		return len(a.subscribe) > 0 // which one is checked with each message
	}
	return false
}

// covers reports whether a may do all that b may; a nil one may nothing.
func (a *actor) covers(b *actor) bool {
	if b.name == "" || a != nil && a.all {
		return true // it needed no token
	}
	if a == nil || b.all || b.read && !a.read || b.operate && !a.operate {
		return false
	}
	for name := range b.subscribe {
		if !a.subscribe[name] {
			return false
		}
	}
	return true
}

// guard is what the server checks callers against; immutable.
type guard struct {
	tokens []guarded
}

type guarded struct {
	hash  [sha256.Size]byte
	actor *actor
}

var loopback = &actor{name: "loopback", all: true}

func newGuard(tokens []Token) (*guard, error) {
	g := &guard{}
	for _, t := range tokens {
		sum, err := hex.DecodeString(t.SHA256)
		if err != nil || len(sum) != sha256.Size {
			return nil, fmt.Errorf("token %q: sha256 is not 64 hexadecimal digits", t.Name)
		}
		a := &actor{name: t.Name, subscribe: map[string]bool{}}
		for _, r := range t.Roles {
			switch sub, is := strings.CutPrefix(r, "subscribe:"); {
			case is && sub != "":
				a.subscribe[sub] = true
			case r == "read":
				a.read = true
			case r == "operate":
				a.read, a.operate = true, true
			case r == "publish": // nothing of this version asks for it
			default:
				return nil, fmt.Errorf("token %q: role %q is none of read, operate, publish, subscribe:NAME", t.Name, r)
			}
		}
		g.tokens = append(g.tokens, guarded{[sha256.Size]byte(sum), a})
	}
	return g, nil
}

// actor returns who a request comes from, nil when its token is missing or wrong. The time it takes tells
// nothing about which hashes are near.
func (g *guard) actor(h http.Header) *actor {
	if len(g.tokens) == 0 {
		return loopback
	}
	scheme, token, _ := strings.Cut(h.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return nil
	}
	sum := sha256.Sum256([]byte(strings.TrimSpace(token)))
	var found *actor
	for i := range g.tokens {
		if subtle.ConstantTimeCompare(sum[:], g.tokens[i].hash[:]) == 1 {
			found = g.tokens[i].actor
		}
	}
	return found
}

type actorKey struct{}

func actorOf(ctx context.Context) *actor {
	a, _ := ctx.Value(actorKey{}).(*actor)
	return a
}

// Actor is who makes the call that ctx belongs to: the name of a token, or "loopback".
func Actor(ctx context.Context) string {
	if a := actorOf(ctx); a != nil {
		return a.name
	}
	return ""
}

var (
	errNoToken = connect.NewError(connect.CodeUnauthenticated, errors.New("a valid token is needed: Authorization: Bearer TOKEN"))
	errNoRole  = connect.NewError(connect.CodePermissionDenied, errors.New("the token's roles do not allow this"))
)

// MaySubscribe checks that the caller that ctx belongs to may use the subscription; a *connect.Error
// otherwise. A context that did not come through the server may not.
func MaySubscribe(ctx context.Context, subscription string) error {
	a := actorOf(ctx)
	if a == nil {
		return errNoToken
	}
	if !a.all && !a.subscribe[subscription] {
		return errNoRole
	}
	return nil
}
