package command

import (
	"slices"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
)

// trustID names the trust in errors: there is one.
const trustID = "cluster"

// putTrust takes a step of a rotation, or lets one who was revoked in again with another key. Nobody is taken from those
// whom nobody believes, nor put among them: that is Revoke's.
func (w *recording) putTrust(trust cluster.Trust, expected uint64) error {
	old := w.Trust()
	if err := w.expect(state.KindTrust, trustID, expected, old.Revision); err != nil {
		return err
	}
	if err := invalid(state.KindTrust, trustID, trust.Validate()); err != nil {
		return err
	}
	if trust.Generation != old.Generation+1 {
		return fault.New(fault.Conflict, "trust: generation: %d follows %d", old.Generation+1, old.Generation)
	}
	if old.Rotates != "" && trust.Rotates != "" && trust.Rotates != old.Rotates {
		return fault.New(fault.Conflict, "trust: %s is being rotated, in phase %s: %s has to wait for that", old.Rotates, old.Phase, trust.Rotates)
	}
	same := slices.EqualFunc(old.Revoked, trust.Revoked, func(a, b cluster.Revocation) bool {
		return a.Role == b.Role && a.ID == b.ID && a.At == b.At && slices.Equal(a.Keys, b.Keys) && !slices.Contains(a.Keys, b.Admitted)
	})
	if !same {
		return fault.New(fault.Invalid, "trust: revoked: it is changed by revoking, and by joining anew with a key that was not revoked")
	}
	w.PutTrust(trust)
	return nil
}

// revokedKept is how long the revoked are remembered: every certificate that they could show has run out by then, also one of before
// certificates.node was lowered, or that a coordinator made a moment before it heard, by a clock of its own.
const revokedKept = cluster.LongestCertificate + 24*time.Hour

// Apply implements Command.
func (c Revoke) Apply(tx *state.Tx, now int64) (Result, error) {
	revoked := c.Revocation
	node, exists := tx.Node(revoked.ID)
	if revoked.Role == cluster.RoleAgent && !exists {
		return Result{}, noNode(revoked.ID)
	}
	revoked.At = now
	if revoked.Role == cluster.RoleAgent && node.Key != "" && !slices.Contains(revoked.Keys, node.Key) {
		revoked.Keys = append(slices.Clone(revoked.Keys), node.Key)
	}
	old := tx.Trust()
	if before, was := old.Revocation(revoked.Role, revoked.ID); was {
		for _, key := range append(slices.Clone(before.Keys), before.Admitted) {
			if key != "" && !slices.Contains(revoked.Keys, key) {
				revoked.Keys = append(revoked.Keys, key)
			}
		}
	}
	trust := old
	trust.Revoked = slices.DeleteFunc(slices.Clone(old.Revoked), func(r cluster.Revocation) bool { return now-r.At > int64(revokedKept) })
	trust = trust.Revoke(revoked)
	trust.Generation++
	if err := invalid(state.KindTrust, trustID, trust.Validate()); err != nil {
		return Result{}, err
	}
	tx.PutTrust(trust)
	if revoked.Role == cluster.RoleAgent && node.State != cluster.NodeLost {
		node.State, node.Reason = cluster.NodeLost, "revoked: "+revoked.Reason
		tx.PutNode(node)
		loseTasks(tx, node, now)
	}
	return Result{}, nil
}
