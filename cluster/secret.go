package cluster

import (
	"fmt"
	"strings"
)

// Limits on secrets.
const (
	MaxSecretValue  = 64 << 10 // bytes, in the clear
	maxSealed       = MaxSecretValue + 64
	MaxQueueSecrets = 1000
)

// Secret is a value that tasks of a queue may be given. The cluster keeps it sealed, and
// shows its value to nobody but a task that asks for it.
type Secret struct {
	Queue    string
	Name     string
	Sealed   []byte // by the keyring's data key: see auth/keyring
	Owner    string // who set it last
	Created  int64
	Updated  int64
	Version  int64 // how often it was set
	Revision uint64
}

// ID is "queue/name".
func (s Secret) ID() string { return s.Queue + "/" + s.Name }

// SealContext is what a sealed value is bound to: it opens as this version of this secret and as nothing else.
func (s Secret) SealContext() string { return fmt.Sprintf("%s@%d", s.ID(), s.Version) }

// Validate reports every mistake in the secret.
func (s Secret) Validate() Problems {
	var p Problems
	CheckName(&p, "queue", s.Queue)
	CheckName(&p, "name", s.Name)
	if len(s.Sealed) == 0 || len(s.Sealed) > maxSealed {
		p.Add("sealed", "%d bytes: a sealed value has 1 to %d", len(s.Sealed), maxSealed)
	}
	if s.Owner == "" {
		p.Add("owner", "is empty")
	}
	if s.Version < 1 {
		p.Add("version", "%d: the first is 1", s.Version)
	}
	return p
}

// Deed is an entry of the audit: a request that changed something, or was refused, or a use of a task by
// a person. It says what was asked for, of what and by whom, and nothing of what was in the request.
type Deed struct {
	ID       string // in the order of time: see NewDeedID
	Time     int64
	Ended    int64 // 0 while it goes on
	User     string
	Action   string // exec, cp, port-forward, or what was asked for, like nodes/drain
	Object   string // what it was asked for of: a job, a node, a URI
	From     string // the address that it came from
	Request  string // the request's id
	Outcome  string // OutcomeOK, or the kind of the refusal
	Task     string // of a use of a task
	Node     string
	Detail   string // the command line, port or path
	Result   string // how it ended
	Revision uint64
}

// OutcomeOK is that of a request that was done.
const OutcomeOK = "ok"

// Limits on deeds.
const (
	MaxDeedDetail = 1024 // bytes of Detail and of Result
	MaxDeedText   = 256  // bytes of every other text
)

// NewDeedID names a deed so that IDs sort by time.
func NewDeedID(now int64, random string) string { return fmt.Sprintf("%019d-%s", now, random) }

// Job is whose task it was, or the job that was asked for; "" if it was about something else.
func (d Deed) Job() string {
	if d.Task == "" && strings.HasPrefix(d.Action, "jobs/") {
		return d.Object
	}
	job, _, _ := strings.Cut(d.Task, "/")
	return job
}

// Validate reports every mistake in the deed.
func (d Deed) Validate() Problems {
	var p Problems
	if len(d.ID) < 21 || len(d.ID) > 64 || d.ID[19] != '-' {
		p.Add("id", "%q is not made of a time and a random text", Clip(d.ID))
	}
	for field, text := range map[string]string{"user": d.User, "action": d.Action} {
		if text == "" || len(text) > MaxDeedText {
			p.Add(field, "has %d bytes: from 1 to %d", len(text), MaxDeedText)
		}
	}
	for field, text := range map[string]string{"task": d.Task, "node": d.Node, "object": d.Object, "from": d.From, "request": d.Request, "outcome": d.Outcome} {
		if len(text) > MaxDeedText {
			p.Add(field, "has %d bytes: at most %d", len(text), MaxDeedText)
		}
	}
	if len(d.Detail) > MaxDeedDetail || len(d.Result) > MaxDeedDetail {
		p.Add("detail, result", "are longer than %d bytes", MaxDeedDetail)
	}
	return p
}
