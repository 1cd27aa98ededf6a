package command_test

import (
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/internal/fault"
)

func TestARevokedNodeLosesItsTasksAndStaysOutWithEveryKeyItHad(t *testing.T) {
	w := newWorld(t)
	node := machine("a")
	node.Key = "sha256:old"
	w.must(command.PutNode{Node: node})
	w.submit("one")
	w.place("one")
	id := ids(w)[0]
	revoke := command.Revoke{Revocation: cluster.Revocation{Role: cluster.RoleAgent, ID: "a", Reason: "stolen", By: "ada"}}
	w.must(revoke)
	if got, _ := w.read().Node("a"); got.State != cluster.NodeLost || got.Reason != "revoked: stolen" {
		t.Errorf("the node is %s: %s", got.State, got.Reason)
	}
	if got := w.task(id); got.Status.State != cluster.TaskLost || !strings.Contains(got.Status.Reason, "revoked: stolen") {
		t.Errorf("its task is %s: %s", got.Status.State, got.Status.Reason)
	}
	w.refuses(command.PutNode{Node: node}, fault.Denied, "was revoked by ada: stolen")
	w.refuses(command.Revoke{Revocation: cluster.Revocation{Role: cluster.RoleAgent, ID: "b", Reason: "x", By: "ada"}}, fault.NotFound, `node "b"`)

	// It joins anew with another key, and only with that.
	trust := w.read().Trust()
	admit := func(key string) command.Record {
		next := trust
		next.Revoked = []cluster.Revocation{trust.Revoked[0]}
		next.Revoked[0].Admitted = key
		next.Generation++
		return record(command.Change{Expect: trust.Revision, Trust: &next})
	}
	w.refuses(admit("sha256:old"), fault.Invalid, "a key that was not revoked")
	w.must(admit("sha256:new"))
	w.refuses(command.PutNode{Node: node}, fault.Denied, "was revoked")
	node.Key = "sha256:new"
	w.must(command.PutNode{Node: node})

	// Revoked again, neither of its keys ever comes back.
	w.must(revoke)
	got := w.read().Trust()
	if len(got.Revoked) != 1 || strings.Join(got.Revoked[0].Keys, " ") != "sha256:new sha256:old" || got.Revoked[0].Admitted != "" || got.Generation != 3 {
		t.Errorf("the trust is %+v", got)
	}
}

func TestTheTrustChangesStepByStepAndForgetsNobody(t *testing.T) {
	w := newWorld(t)
	put := func(change func(*cluster.Trust)) command.Record {
		old := w.read().Trust()
		next := old
		next.Generation++
		change(&next)
		return record(command.Change{Expect: old.Revision, Trust: &next})
	}
	w.must(put(func(t *cluster.Trust) { t.Keyring, t.Rotates, t.Phase = "aa", cluster.RotateCA, cluster.PhaseAdd }))
	w.refuses(put(func(t *cluster.Trust) { t.Generation++ }), fault.Conflict, "generation: 2 follows 1")
	w.refuses(put(func(t *cluster.Trust) { t.Rotates = cluster.RotateGossip }), fault.Conflict, "ca is being rotated")
	w.refuses(put(func(t *cluster.Trust) { t.Phase = "half" }), fault.Invalid, "phase")
	w.refuses(put(func(t *cluster.Trust) { t.Revoked = []cluster.Revocation{{Role: "agent", ID: "a"}} }), fault.Invalid, "changed by revoking")
	stale := put(func(t *cluster.Trust) { t.Phase = cluster.PhaseUse })
	w.must(command.Revoke{Revocation: cluster.Revocation{Role: cluster.RoleAgent, ID: "a", Reason: "x", By: "ada"}})
	w.refuses(stale, fault.Conflict, "read it again")
	w.refuses(put(func(t *cluster.Trust) { t.Revoked = nil }), fault.Invalid, "changed by revoking")
	w.must(put(func(t *cluster.Trust) { t.Rotates, t.Phase = "", "" }))
}

// A certificate may have been made a moment before its holder was revoked, and for as long as can be set.
func TestTheRevokedAreRememberedUntilTheLongestCertificateThatCanBeSetHasEnded(t *testing.T) {
	w := newWorld(t)
	revoke := func(id string) {
		w.must(command.PutNode{Node: machine(id)})
		w.must(command.Revoke{Revocation: cluster.Revocation{Role: cluster.RoleAgent, ID: id, Reason: "x", By: "ada"}})
	}
	revoke("a")
	row, known := cluster.FindSetting("certificates.node")
	if !known {
		t.Fatal("certificates.node cannot be set any more")
	}
	w.now += row.Most
	revoke("b")
	if got := w.read().Trust().Revoked; len(got) != 2 {
		t.Errorf("a certificate of a's may be good still, and a is forgotten: %+v", got)
	}
	w.now += int64(2 * 24 * time.Hour)
	revoke("c")
	if got := w.read().Trust().Revoked; len(got) != 2 || got[0].ID != "b" {
		t.Errorf("whose certificates have all run out is still remembered: %+v", got)
	}
}
