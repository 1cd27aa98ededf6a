package auth

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// Why a token is refused. Each is in the chain of a Denied error.
var (
	// ErrUnknown is also the answer to a wrong secret: a guesser learns nothing.
	ErrUnknown = errors.New("the token is not known here")
	ErrExpired = errors.New("the token has expired")
	ErrRevoked = errors.New("the token was revoked")
	// ErrReused means that another machine has joined with the token.
	ErrReused = errors.New("the token was already used by another machine")
)

// EndsSoon reports whether whoever shows a user's token is told of its end: in its last quarter, of a long one in its last
// two weeks.
func EndsSoon(t cluster.Token, now time.Time) bool {
	left := time.Unix(0, t.Expires).Sub(now)
	return t.Expires != 0 && left < min(14*24*time.Hour, time.Duration(t.Expires-t.Created)/4)
}

const (
	userPrefix  = "clary_u"
	joinPrefix  = "clary_j"
	pinPrefix   = "sha256:"
	idBytes     = 8
	secretBytes = 32
)

// Presented is a token as its holder shows it. Printing it does not show the secret.
type Presented struct {
	Kind cluster.TokenKind
	ID   string
	// Pin is the CA's, of a join token only: whom the machine may trust.
	Pin    string
	secret string
}

// String hides the secret from logs.
func (p Presented) String() string { return string(p.Kind) + " token " + p.ID }

// GoString hides the secret from %#v too.
func (p Presented) GoString() string { return p.String() }

// Mentioned reports whether text has something of a token's form in it: that is the cluster's secret, and
// for nobody whom the cluster only runs.
func Mentioned(text []byte) bool {
	return bytes.Contains(text, []byte(userPrefix+"_")) || bytes.Contains(text, []byte(joinPrefix+"_"))
}

// NewUserToken makes a token for a user: what to store, and the text for the user,
// which is shown once. A validity of 0 is forever.
func NewUserToken(name, role string, validity time.Duration, now time.Time) (cluster.Token, string, error) {
	t := cluster.Token{Kind: cluster.TokenUser, Name: name, Role: role}
	secret, err := complete(&t, validity, now)
	if err != nil {
		return cluster.Token{}, "", err
	}
	return t, strings.Join([]string{userPrefix, t.ID, secret}, "_"), nil
}

// NewJoinToken makes a token with which one machine may join as an agent or a
// coordinator. It must expire, and carries the CA's pin (see pki.PinnedTLS).
func NewJoinToken(role, pin string, validity time.Duration, now time.Time) (cluster.Token, string, error) {
	if validity == 0 {
		return cluster.Token{}, "", fault.New(fault.Invalid, "validity 0: a join token must expire; an hour is usual")
	}
	pinHex, ok := strings.CutPrefix(pin, pinPrefix)
	if !ok || !isHex(pinHex, sha256.Size) {
		return cluster.Token{}, "", fault.New(fault.Invalid, "pin %q: it must be sha256: and 64 hexadecimal digits", cluster.Clip(pin))
	}
	t := cluster.Token{Kind: cluster.TokenJoin, Role: role}
	secret, err := complete(&t, validity, now)
	if err != nil {
		return cluster.Token{}, "", err
	}
	return t, strings.Join([]string{joinPrefix, t.ID, secret, pinHex}, "_"), nil
}

// complete draws id and secret, and checks the token.
func complete(t *cluster.Token, validity time.Duration, now time.Time) (secret string, err error) {
	if validity < 0 {
		return "", fault.New(fault.Invalid, "validity %v: it must not be negative", validity)
	}
	t.ID, secret = random(idBytes), random(secretBytes)
	t.Hash = hash(secret)
	t.Created = now.UnixNano()
	if validity > 0 {
		t.Expires = now.Add(validity).UnixNano()
	}
	if problems := t.Validate(); len(problems) > 0 {
		return "", fault.New(fault.Invalid, "token: %w", problems)
	}
	return secret, nil
}

func random(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails: it ends the process if the kernel has no randomness
	return hex.EncodeToString(b)
}

// hash is fast on purpose: the secret has 256 random bits, so there is nothing to guess.
func hash(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}

// ParseToken reads a token's text. Its errors never repeat the text.
func ParseToken(text string) (Presented, error) {
	parts := strings.Split(strings.TrimSpace(text), "_")
	if len(parts) < 2 || parts[0] != "clary" {
		return Presented{}, malformed()
	}
	switch prefix := parts[0] + "_" + parts[1]; {
	case prefix == userPrefix && len(parts) == 4:
	case prefix == joinPrefix && len(parts) == 5 && isHex(parts[4], sha256.Size):
	default:
		return Presented{}, malformed()
	}
	if !isHex(parts[2], idBytes) || !isHex(parts[3], secretBytes) {
		return Presented{}, malformed()
	}
	p := Presented{Kind: cluster.TokenUser, ID: parts[2], secret: parts[3]}
	if len(parts) == 5 {
		p.Kind, p.Pin = cluster.TokenJoin, pinPrefix+parts[4]
	}
	return p, nil
}

func malformed() error {
	return fault.New(fault.Invalid, "this is not a whole token: user tokens look like clary_u_ID_SECRET and join tokens like clary_j_ID_SECRET_PIN; copy it again, with its end")
}

// isHex reports whether s is n bytes in lower-case hexadecimal.
func isHex(s string, n int) bool {
	return len(s) == 2*n && !strings.ContainsFunc(s, func(c rune) bool { return !strings.ContainsRune("0123456789abcdef", c) })
}

// Check decides whether a presented token is the stored one and still good. The zero
// Token stands for one that was not found.
func Check(stored cluster.Token, p Presented, now time.Time) error {
	same := subtle.ConstantTimeCompare(stored.Hash, hash(p.secret)) == 1
	if !same || stored.ID != p.ID || stored.Kind != p.Kind {
		return fault.New(fault.Denied, "%v: %w; ask an admin for a new one", p, ErrUnknown)
	}
	if stored.Revoked {
		return fault.New(fault.Denied, "%v: %w; ask an admin for a new one", p, ErrRevoked)
	}
	if stored.Expires != 0 && now.UnixNano() >= stored.Expires {
		return fault.New(fault.Denied, "%v: %w at %s; ask an admin for a new one", p, ErrExpired,
			time.Unix(0, stored.Expires).UTC().Format(time.RFC3339))
	}
	return nil
}

// CheckJoin is Check for a machine that wants to join with a key of the given
// fingerprint (see pki.Fingerprint). It returns the token as it is to be stored: bound
// to that key from now on. The same machine may try again; another is refused.
func CheckJoin(stored cluster.Token, p Presented, key string, now time.Time) (cluster.Token, error) {
	if p.Kind != cluster.TokenJoin {
		return cluster.Token{}, fault.New(fault.Denied, "%v: a machine joins with a join token, not with a user's; make one with clary token join", p)
	}
	if key == "" {
		return cluster.Token{}, fault.New(fault.Invalid, "%v: the fingerprint of the machine's key is empty", p)
	}
	if err := Check(stored, p, now); err != nil {
		return cluster.Token{}, err
	}
	if stored.BoundKey != "" && stored.BoundKey != key {
		return cluster.Token{}, fault.New(fault.Denied, "%v: %w; each machine needs its own, so ask an admin for another", p, ErrReused)
	}
	stored.Hash = slices.Clone(stored.Hash)
	stored.BoundKey = key
	return stored, nil
}
