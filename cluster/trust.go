package cluster

import "slices"

// Rotation is a sort of key that the cluster can replace while it runs.
type Rotation string

// What can be rotated.
const (
	RotateCA     Rotation = "ca"     // what certificates are signed with
	RotateGossip Rotation = "gossip" // what members speak to find one another
	RotateData   Rotation = "data"   // what secrets are sealed with
)

// Phase is how far a rotation is. Each is entered only when all members are through with the one before, so that no
// two of them ever have no key in common.
//
//	"" ── add ──▶ add ── use ──▶ use ── drop ──▶ ""
//	               └── cancel ──▶ ""
type Phase string

// The phases of a rotation, and the steps that lead to them.
const (
	PhaseAdd  Phase = "add"  // everybody knows both keys; the old one is used
	PhaseUse  Phase = "use"  // the new one is used; the old one is still good
	StepDrop  Phase = "drop" // the old one is good no more
	StepAbort Phase = "cancel"
)

// After is the phase that a step leads to from this one.
func (p Phase) After(step Phase) (Phase, bool) {
	switch {
	case p == "" && step == PhaseAdd, p == PhaseAdd && step == PhaseUse:
		return step, true
	case p == PhaseUse && step == StepDrop, p == PhaseAdd && step == StepAbort:
		return "", true
	}
	return p, false
}

// Trust is what the cluster has agreed on of its keys: which are in force, and whom nobody believes any more. There is
// one, and none as long as nothing was ever changed. It holds no secret: those are in the coordinators' keyrings.
type Trust struct {
	Generation uint64   // counts the changes
	Keyring    string   // ID of the keyring in force; "" is the one of the cluster's first day
	Rotates    Rotation // "" between rotations
	Phase      Phase
	CAs        [][]byte // certificates, DER, the one that signs first; none: the first day's
	Links      [][]byte // CAs as others of them certify them
	Changed    int64
	By         string
	Revoked    []Revocation // in the order of time
	Revision   uint64
}

// Revocation is a member that nobody believes any more, whatever certificate it shows.
type Revocation struct {
	Role   string // agent or coordinator
	ID     string
	Reason string
	By     string
	At     int64
	Keys   []string // fingerprints that it is known to have had: none of them ever joins again under this ID
	// Admitted is the key with which a machine joined anew under this ID since; "" is none.
	Admitted string
}

// Refuses reports whether a key is one that is not believed.
func (r Revocation) Refuses(key string) bool { return r.Admitted == "" || r.Admitted != key }

// Limits on what is remembered of the revoked.
const (
	MaxRevoked       = 4096
	MaxRevokedReason = 256
	maxTrusted       = 8
)

// Revocation returns that of a member, if there is one.
func (t Trust) Revocation(role, id string) (Revocation, bool) {
	at := slices.IndexFunc(t.Revoked, func(r Revocation) bool { return r.Role == role && r.ID == id })
	if at < 0 {
		return Revocation{}, false
	}
	return t.Revoked[at], true
}

// Out reports whether a member is not believed any more, and nobody has joined anew in its place.
func (t Trust) Out(role, id string) bool {
	r, revoked := t.Revocation(role, id)
	return revoked && r.Admitted == ""
}

// Revoke returns the trust with one more whom nobody believes, in place of an older word of it.
func (t Trust) Revoke(r Revocation) Trust {
	kept := slices.DeleteFunc(slices.Clone(t.Revoked), func(old Revocation) bool { return old.Role == r.Role && old.ID == r.ID })
	t.Revoked = append(kept, r)
	return t
}

// Validate reports every mistake in the trust.
func (t Trust) Validate() Problems {
	var p Problems
	if t.Rotates != "" && t.Rotates != RotateCA && t.Rotates != RotateGossip && t.Rotates != RotateData {
		p.Add("rotates", "%q is unknown: ca, gossip or data", Clip(string(t.Rotates)))
	}
	if (t.Rotates == "") != (t.Phase == "") || t.Phase != "" && t.Phase != PhaseAdd && t.Phase != PhaseUse {
		p.Add("phase", "%q of %q: add or use of what is rotated", Clip(string(t.Phase)), Clip(string(t.Rotates)))
	}
	if len(t.CAs) > maxTrusted || len(t.Links) > maxTrusted {
		p.Add("cas", "%d, and %d links: at most %d", len(t.CAs), len(t.Links), maxTrusted)
	}
	if len(t.Revoked) > MaxRevoked {
		p.Add("revoked", "%d: at most %d", len(t.Revoked), MaxRevoked)
	}
	for _, r := range t.Revoked {
		if r.Role != RoleAgent && r.Role != RoleCoordinator {
			p.Add("revoked.role", "%q: agent or coordinator", Clip(r.Role))
		}
		CheckName(&p, "revoked.id", r.ID)
		if len(r.Reason) > MaxRevokedReason {
			p.Add("revoked.reason", "%d bytes: at most %d", len(r.Reason), MaxRevokedReason)
		}
	}
	return p
}
