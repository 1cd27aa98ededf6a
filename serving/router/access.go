package router

import (
	"bytes"
	"crypto/subtle"
	"hash/maphash"
	"strings"
	"sync/atomic"
	"time"

	"github.com/clary-ml/clary/auth"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/serving/route"
	"github.com/clary-ml/clary/serving/router/h1"
)

// guests knows the tokens of one table, and remembers whom it has let in.
type guests struct {
	byID map[string]*route.Token
	seed maphash.Seed
	seen [1024]atomic.Pointer[guest]
}

// guest is a token that was shown and found good: its text need not be hashed again.
type guest struct {
	text  []byte
	token *route.Token
}

func newGuests(tokens []route.Token) *guests {
	g := &guests{byID: make(map[string]*route.Token, len(tokens)), seed: maphash.MakeSeed()}
	for i := range tokens {
		g.byID[tokens[i].ID] = &tokens[i]
	}
	return g
}

// check finds whose token the Authorization field has, and whether it may do it.
func (g *guests) check(field []byte, action auth.Action) (*route.Token, *refusal) {
	const scheme = "bearer "
	if len(field) == 0 {
		return nil, refuse(401, "there is no Authorization header: send \"Authorization: Bearer TOKEN\" with a token of this cluster (clary token create --role invoker)")
	}
	if len(field) < len(scheme) || !h1.Is(field[:len(scheme)], scheme) {
		return nil, refuse(401, "Authorization is not \"Bearer TOKEN\": send it like that")
	}
	text := bytes.TrimSpace(field[len(scheme):])
	slot := &g.seen[maphash.Bytes(g.seed, text)%uint64(len(g.seen))]
	if known := slot.Load(); known != nil && known.token.Expires == 0 && subtle.ConstantTimeCompare(known.text, text) == 1 {
		return known.token, allowed(known.token, action)
	}
	token, refused := g.look(string(text))
	if refused != nil {
		return nil, refused
	}
	slot.Store(&guest{bytes.Clone(text), token})
	return token, allowed(token, action)
}

func allowed(t *route.Token, action auth.Action) *refusal {
	if auth.Allow(t.Role, action) {
		return nil
	}
	return refuse(403, "%s", auth.Authorize(t.Role, action))
}

func (g *guests) look(text string) (*route.Token, *refusal) {
	shown, err := auth.ParseToken(strings.TrimSpace(text))
	if err != nil {
		return nil, refuse(401, "%s", err)
	}
	stored, token := cluster.Token{}, g.byID[shown.ID]
	if token != nil {
		stored = cluster.Token{ID: token.ID, Kind: cluster.TokenUser, Name: token.Name, Role: token.Role, Hash: token.Hash, Expires: token.Expires}
	}
	if err := auth.Check(stored, shown, time.Now()); err != nil {
		return nil, refuse(401, "%s", err)
	}
	return token, nil
}
