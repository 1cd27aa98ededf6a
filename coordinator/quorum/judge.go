package quorum

import (
	"fmt"
	"slices"
	"strings"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// Majority is how many of so many voters decide.
func Majority(voters int) int { return voters/2 + 1 }

// find returns the member with an id.
func find(members []Member, id string) (Member, bool) {
	i := slices.IndexFunc(members, func(m Member) bool { return m.ID == id })
	if i < 0 {
		return Member{}, false
	}
	return members[i], true
}

func unknown(members []Member, field, id string) error {
	ids := make([]string, len(members))
	for i, m := range members {
		ids[i] = m.ID
	}
	return fault.New(fault.NotFound, "%s: there is no coordinator %q: there are %s", field, cluster.Clip(id), strings.Join(ids, ", "))
}

// heir decides who leads next: whom the operator names, or of those whose disk has room, if any has, who has applied most.
func heir(members []Member, to string) (Member, error) {
	var best Member
	for _, m := range members {
		if m.Voter && m.Alive && !m.Leader && (best.ID == "" || better(m, best)) {
			best = m
		}
	}
	if to == "" {
		if best.ID == "" {
			return best, fault.New(fault.Conflict, "there is nobody to lead instead: no other coordinator votes and answers; add one with clary cluster add ID")
		}
		return best, nil
	}
	m, known := find(members, to)
	switch {
	case !known:
		return m, unknown(members, "to", to)
	case !m.Voter:
		return m, fault.New(fault.Conflict, "to: coordinator %s does not vote yet: wait until clary cluster members says that it does", to)
	case !m.Alive:
		return m, fault.New(fault.Conflict, "to: coordinator %s does not answer: %s", to, m.Problem)
	}
	return m, nil
}

// better decides which of two should rather lead.
func better(a, b Member) bool {
	if aLow, bLow := a.Disk.Low != "", b.Disk.Low != ""; aLow != bLow {
		return bLow
	}
	return a.Applied > b.Applied
}

// consequences decides whether a coordinator may be removed: what that means which nobody would want unasked, or
// why it cannot be at all.
func consequences(members []Member, id, storeAt string, embedded bool) ([]string, error) {
	gone, known := find(members, id)
	if !known {
		return nil, unknown(members, "id", id)
	}
	var left []Member
	for _, m := range members {
		if m.ID != id && m.Voter {
			left = append(left, m)
		}
	}
	if gone.Voter && len(left) == 0 {
		return nil, fault.New(fault.Conflict, "id: coordinator %s is the only one that votes: add another before, with clary cluster add ID", id)
	}
	var means []string
	alive := 0
	var silent []string
	for _, m := range left {
		if m.Alive {
			alive++
		} else {
			silent = append(silent, m.ID)
		}
	}
	if need := Majority(len(left)); gone.Voter && alive < need {
		means = append(means, fmt.Sprintf("the cluster would stop deciding: of the %d voters left %d must answer, and %s not answer; "+
			"until then no command is accepted, nor can the removal itself be taken back", len(left), need, does(silent)))
	}
	if embedded && (storeAt == id || storeAt == "" && !gone.Alive) {
		means = append(means, fmt.Sprintf("coordinator %s serves the embedded object store: every object in it goes with its folder; "+
			"copy them first, or use an S3 of your own (clary server --object-store)", id))
	}
	return means, nil
}

func does(ids []string) string {
	if len(ids) == 1 {
		return ids[0] + " does"
	}
	return strings.Join(ids, " and ") + " do"
}

// raisable decides which format all coordinators know, and says who holds the newest back.
func raisable(members []Member, newest int) (format int, heldBack string) {
	format = newest
	var reasons []string
	for _, m := range members {
		switch {
		case !m.Alive:
			format = 0
			reasons = append(reasons, fmt.Sprintf("coordinator %s does not answer, so that nobody knows its version: start it, or remove it with clary cluster remove %s", m.ID, m.ID))
		case m.Format < newest:
			format = min(format, m.Format)
			version := m.Version
			if version == "" {
				version = "an earlier version"
			}
			reasons = append(reasons, fmt.Sprintf("coordinator %s is of %s, which knows format %d: upgrade it", m.ID, version, m.Format))
		}
	}
	return format, strings.Join(reasons, "; ")
}

// vouched decides whether a coordinator with a key may be a member under an id. A join token for coordinators vouches for
// the key that it is bound to; removing a coordinator revokes its token. A founder has none, and is known only as long as it
// is a member.
func vouched(tokens []cluster.Token, id, key string, member bool) error {
	named, good := false, false
	for _, token := range tokens {
		if token.Kind != cluster.TokenJoin || token.Role != cluster.RoleCoordinator || token.Revoked || token.BoundKey == "" {
			continue
		}
		named = named || token.Name == id
		good = good || token.BoundKey == key && (token.Name == id || token.Name == "")
	}
	switch {
	case good, member && !named:
		return nil
	case member:
		return fault.New(fault.Denied, "another machine has joined as coordinator %s since: this one was removed; delete its data folder, and join it under an id of its own", id)
	}
	return fault.New(fault.Denied, "coordinator %s was removed from the cluster: delete its data folder, and join it anew with a token from clary cluster add %s", id, id)
}
