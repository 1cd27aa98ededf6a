package pki

import (
	"net/url"
	"strconv"
	"strings"

	"github.com/clary-ml/clary/internal/fault"
)

const scheme = "clary"

// The roles of a Node.
const (
	Coordinator = "coordinator"
	Agent       = "agent"
)

// Identity is who a certificate speaks for: a Node or a Task.
type Identity interface {
	// URI is the identity as its certificate carries it.
	URI() string
	valid() error
}

// Node is a member of the cluster.
type Node struct {
	Role string // Coordinator or Agent
	ID   string
}

// Task is one process of a gang's attempt.
type Task struct {
	Job     string
	Gang    string
	Attempt int // from 1
	Role    string
	Index   int // from 0
}

// URI returns clary://node/ROLE/ID.
func (n Node) URI() string { return scheme + "://node/" + n.Role + "/" + n.ID }

// URI returns clary://task/JOB/GANG/ATTEMPT/ROLE/INDEX.
func (t Task) URI() string {
	return scheme + "://task/" + strings.Join([]string{
		t.Job, t.Gang, strconv.Itoa(t.Attempt), t.Role, strconv.Itoa(t.Index),
	}, "/")
}

// SameAttempt reports whether two tasks belong to the same attempt of one gang.
func (t Task) SameAttempt(u Task) bool {
	return t.Job == u.Job && t.Gang == u.Gang && t.Attempt == u.Attempt
}

func (n Node) valid() error {
	if n.Role != Coordinator && n.Role != Agent {
		return fault.New(fault.Invalid, "node role %q: it must be coordinator or agent", n.Role)
	}
	return validName("node id", n.ID)
}

func (t Task) valid() error {
	for _, f := range [...]struct{ what, value string }{
		{"job", t.Job}, {"gang", t.Gang}, {"role", t.Role},
	} {
		if err := validName(f.what, f.value); err != nil {
			return err
		}
	}
	if t.Attempt < 1 || t.Index < 0 {
		return fault.New(fault.Invalid, "attempt %d, index %d: attempts count from 1 and indexes from 0", t.Attempt, t.Index)
	}
	return nil
}

// maxName is the longest part of an identity.
const maxName = 128

// validName keeps each part free of everything that a URI would escape or read otherwise.
func validName(what, s string) error {
	ok := s != "" && s != "." && s != ".." && len(s) <= maxName
	for _, c := range []byte(s) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("._-", c) >= 0)
	}
	if !ok {
		return fault.New(fault.Invalid, "%s %q: it must be 1 to %d letters, digits, dots, dashes or underscores", what, s, maxName)
	}
	return nil
}

// ParseIdentity reads what Identity.URI wrote, and refuses every other spelling.
func ParseIdentity(uri string) (Identity, error) {
	rest, ok := strings.CutPrefix(uri, scheme+"://")
	parts := strings.Split(rest, "/")
	var id Identity
	switch {
	case ok && parts[0] == "node" && len(parts) == 3:
		id = Node{Role: parts[1], ID: parts[2]}
	case ok && parts[0] == "task" && len(parts) == 6:
		attempt, err1 := strconv.Atoi(parts[3])
		index, err2 := strconv.Atoi(parts[5])
		if err1 != nil || err2 != nil {
			return nil, fault.New(fault.Invalid, "identity %q: attempt and index must be numbers", uri)
		}
		id = Task{Job: parts[1], Gang: parts[2], Attempt: attempt, Role: parts[4], Index: index}
	default:
		return nil, fault.New(fault.Invalid,
			"identity %q: it must be clary://node/ROLE/ID or clary://task/JOB/GANG/ATTEMPT/ROLE/INDEX", uri)
	}
	if err := id.valid(); err != nil {
		return nil, fault.New(fault.Invalid, "identity %q: %w", uri, err)
	}
	if id.URI() != uri {
		return nil, fault.New(fault.Invalid, "identity %q: it must be spelled %s", uri, id.URI())
	}
	return id, nil
}

func uriOf(id Identity) (*url.URL, error) {
	if err := id.valid(); err != nil {
		return nil, err
	}
	return url.Parse(id.URI())
}
