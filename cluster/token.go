package cluster

import "slices"

// TokenKind is what a token is for.
type TokenKind string

// The kinds of token.
const (
	TokenUser TokenKind = "user" // a person or a program that calls the API
	TokenJoin TokenKind = "join" // a machine that wants to become a member
)

// The roles that tokens give: of users, and of machines that join.
const (
	RoleViewer      = "viewer"
	RoleInvoker     = "invoker" // asks endpoints, and nothing else
	RoleUser        = "user"
	RoleAdmin       = "admin"
	RoleAgent       = "agent"
	RoleCoordinator = "coordinator"
)

var tokenRoles = map[TokenKind][]string{
	TokenUser: {RoleViewer, RoleInvoker, RoleUser, RoleAdmin},
	TokenJoin: {RoleAgent, RoleCoordinator},
}

// Token is what the cluster keeps of a secret it handed out: never the secret itself.
type Token struct {
	ID       string
	Kind     TokenKind
	Name     string // the user's name; of a join token the id of the machine that it is bound to
	Role     string
	Hash     []byte // SHA-256 of the secret
	Created  int64
	Expires  int64 // 0 is never
	Revoked  bool
	BoundKey string // join tokens: fingerprint of the first key that used it
	By       string // who asked for it; "" if that is not known
	Revision uint64
}

// Revoke is the token when it is good no more. It ends with that, so that it is forgotten as others that have ended are.
func (t Token) Revoke(now int64) Token {
	t.Revoked = true
	if t.Expires == 0 || t.Expires > now {
		t.Expires = now
	}
	return t
}

// Validate reports every mistake in the token.
func (t Token) Validate() Problems {
	var p Problems
	CheckName(&p, "id", t.ID)
	roles, known := tokenRoles[t.Kind]
	if !known {
		p.Add("kind", "%q is unknown: user or join", Clip(string(t.Kind)))
	} else if !slices.Contains(roles, t.Role) {
		p.Add("role", "%q is unknown: one of %v", Clip(t.Role), roles)
	}
	if t.Kind == TokenUser {
		CheckName(&p, "name", t.Name)
	}
	if len(t.Hash) != 32 {
		p.Add("hash", "%d bytes: SHA-256 has 32", len(t.Hash))
	}
	return p
}
