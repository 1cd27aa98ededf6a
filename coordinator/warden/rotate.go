package warden

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/clary-ml/clary/auth/keyring"
	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// askAtOnce is how many members are asked at a time.
const askAtOnce = 64

// Member is which keys a member goes by.
type Member struct {
	Role, ID  string
	Status    *claryv1.KeyStatusResponse // nil if it cannot be asked
	Problem   string                     // why not
	Confirmed bool                       // it is through with the phase that the cluster is in
}

// Show tells which keys are in force, and which each member goes by: every coordinator, and every agent that was not
// removed. Agents are told of the newest on the way. It is the leader's to answer.
func (w *Warden) Show(ctx context.Context) (cluster.Trust, []Member, error) {
	snapshot, err := w.config.Replica.Read(ctx, false)
	if err != nil {
		return cluster.Trust{}, nil, err
	}
	trust := snapshot.Trust()
	var members []Member
	for node := range snapshot.Nodes() {
		if !trust.Out(cluster.RoleAgent, node.ID) {
			members = append(members, Member{Role: cluster.RoleAgent, ID: node.ID})
		}
	}
	_ = snapshot.Close() // only read from
	coordinators, err := w.config.Coordinators()
	if err != nil {
		return trust, nil, err
	}
	for _, id := range coordinators {
		if !trust.Out(cluster.RoleCoordinator, id) {
			members = append(members, Member{Role: cluster.RoleCoordinator, ID: id})
		}
	}
	if err := w.await(ctx, trust.Generation); err != nil {
		return trust, nil, err
	}
	w.askAll(ctx, trust, members)
	slices.SortStableFunc(members, func(a, b Member) int { return cmp.Or(-strings.Compare(a.Role, b.Role), strings.Compare(a.ID, b.ID)) })
	return trust, members, nil
}

// await waits until this coordinator goes by what is agreed on itself.
func (w *Warden) await(ctx context.Context, generation uint64) error {
	for {
		w.mu.Lock()
		reached, told := w.applied && w.trust.Generation >= generation, w.told
		w.mu.Unlock()
		if reached {
			return nil
		}
		select {
		case <-ctx.Done():
			return fault.New(fault.Unready, "coordinator %s has not the keys of generation %d yet: see its log", w.config.ID, generation)
		case <-told:
		}
	}
}

func (w *Warden) askAll(ctx context.Context, trust cluster.Trust, members []Member) {
	var asking sync.WaitGroup
	slots := make(chan struct{}, askAtOnce)
	bundle, signer := w.Bundle(), w.config.Keyring.Get().Authority.Pin()
	for i := range members {
		slots <- struct{}{}
		asking.Go(func() {
			defer func() { <-slots }()
			m := &members[i]
			var err error
			if m.Status, err = w.status(ctx, *m, bundle); err != nil {
				m.Problem = err.Error()
				return
			}
			m.Confirmed = m.Status.GetGeneration() >= trust.Generation && m.Status.GetCaPin() == signer && m.Status.GetTasksBehind() == 0 && (m.Role == cluster.RoleAgent || m.Status.GetKeyring() == trust.Keyring)
		})
	}
	asking.Wait()
}

func (w *Warden) status(ctx context.Context, m Member, bundle *claryv1.TrustBundle) (*claryv1.KeyStatusResponse, error) {
	if m.Role == cluster.RoleCoordinator && m.ID == w.config.ID {
		return w.Status(), nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	conns := w.config.Peers
	if m.Role == cluster.RoleAgent {
		conns = w.config.Agents
	}
	conn, err := conns.Conn(m.ID)
	if err != nil {
		return nil, err
	}
	var answer *claryv1.KeyStatusResponse
	if m.Role == cluster.RoleAgent {
		answer, err = claryv1.NewAgentKeysClient(conn).Learn(ctx, bundle)
	} else {
		answer, err = claryv1.NewPeerClient(conn).KeyStatus(ctx, &claryv1.KeyStatusRequest{})
	}
	return answer, wire.FromStatus(err)
}

// Rotate takes one step of a rotation. What comes after the first is taken only if every member is through with the one
// before, unless force says that those who are not may be cut off.
func (w *Warden) Rotate(ctx context.Context, what cluster.Rotation, step cluster.Phase, by string, force bool) error {
	trust, members, err := w.Show(ctx)
	if err != nil {
		return err
	}
	phase, err := next(trust, what, step)
	if err != nil {
		return err
	}
	if late := behind(members); len(late) > 0 && !force {
		return fault.New(fault.Conflict, "%s %s: not all members are through with what was before: %s: see clary keys show; start them, or remove them from the cluster, or say --force: those who are behind then may have to join anew",
			what, step, strings.Join(late, "; "))
	}
	if what == cluster.RotateData && step == cluster.StepDrop {
		if err := w.reseal(ctx); err != nil {
			return err
		}
	}
	keys, err := w.config.Keyring.Get().Step(what, step, time.Now())
	if err != nil {
		return err
	}
	if err := w.handOver(ctx, keys, members, force); err != nil {
		return err
	}
	expect := trust.Revision
	trust = keys.Tell(trust)
	trust.Generation++
	trust.Rotates, trust.Phase, trust.By, trust.Changed = what, phase, by, time.Now().UnixNano()
	if phase == "" {
		trust.Rotates = ""
	}
	if _, err := w.config.Replica.Propose(ctx, command.Record{Changes: []command.Change{{Expect: expect, Trust: &trust}}}); err != nil {
		return err
	}
	if err := w.await(ctx, trust.Generation); err != nil {
		return err
	}
	if what == cluster.RotateData && step == cluster.PhaseUse {
		return w.reseal(ctx)
	}
	return nil
}

// next is the phase that a step leads to.
func next(trust cluster.Trust, what cluster.Rotation, step cluster.Phase) (cluster.Phase, error) {
	if trust.Rotates != "" && trust.Rotates != what {
		return "", fault.New(fault.Conflict, "%s is being rotated, in the phase %s: go on with that first: clary keys rotate %s", trust.Rotates, trust.Phase, trust.Rotates)
	}
	phase, ok := trust.Phase.After(step)
	if !ok {
		now := "no rotation of it goes on"
		if trust.Phase != "" {
			now = "its rotation is in the phase " + string(trust.Phase)
		}
		return "", fault.New(fault.Conflict, "%s: --phase %s: %s; the steps are add, use and drop, or cancel after add", what, cluster.Clip(string(step)), now)
	}
	return phase, nil
}

// behind names the members that are not through, with what is known of why.
func behind(members []Member) []string {
	var late []string
	for _, m := range members {
		switch {
		case m.Confirmed:
		case m.Problem != "":
			late = append(late, m.Role+" "+m.ID+" cannot be asked ("+m.Problem+")")
		case m.Status.GetTasksBehind() > 0:
			late = append(late, fmt.Sprintf("%d tasks of %s %s have certificates from before", m.Status.GetTasksBehind(), m.Role, m.ID))
		default:
			late = append(late, m.Role+" "+m.ID+" is behind")
		}
	}
	return late
}

// handOver gives every coordinator the keyring before the cluster agrees on it. With force a majority has to do: the
// others fetch it when they come back.
func (w *Warden) handOver(ctx context.Context, keys *keyring.Keyring, members []Member, force bool) error {
	text, err := keys.Marshal()
	if err != nil {
		return err
	}
	if err := w.Stage(text); err != nil {
		return err
	}
	have, all := 1, 1
	var failed error
	for _, m := range members {
		if m.Role != cluster.RoleCoordinator || m.ID == w.config.ID {
			continue
		}
		all++
		if err := w.hand(ctx, m.ID, text); err != nil {
			failed = fault.New(fault.Unready, "coordinator %s did not take the new keyring: %w", m.ID, err)
			continue
		}
		have++
	}
	if failed != nil && (!force || have <= all/2) {
		return failed
	}
	return nil
}

func (w *Warden) hand(ctx context.Context, id string, text []byte) error {
	conn, err := w.config.Peers.Conn(id)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	_, err = claryv1.NewPeerClient(conn).StageKeyring(ctx, &claryv1.StageKeyringRequest{Keyring: text})
	return wire.FromStatus(err)
}

// Revoke has nobody believe a member any more. A coordinator leaves the quorum with it: what that means is weighed before, and it leaves when nobody
// believes it, so that what was cut off in between can be done again. One that was removed before can be revoked still.
func (w *Warden) Revoke(ctx context.Context, r cluster.Revocation, force bool) (agreed cluster.Revocation, err error) {
	voter := false
	if r.Role == cluster.RoleCoordinator {
		if r.Keys, voter, err = w.leaves(ctx, r.ID, force); err != nil {
			return r, err
		}
	}
	if _, err := w.config.Replica.Propose(ctx, command.Revoke{Revocation: r}); err != nil {
		return r, err
	}
	snapshot, err := w.config.Replica.Read(ctx, false)
	if err != nil {
		return r, err
	}
	defer snapshot.Close()
	agreed, _ = snapshot.Trust().Revocation(r.Role, r.ID)
	if voter {
		if _, _, err := w.config.Quorum.Remove(ctx, r.ID, true); err != nil && !fault.Is(err, fault.NotFound) {
			return agreed, err
		}
	}
	if err := w.await(ctx, snapshot.Trust().Generation); err != nil {
		return agreed, err
	}
	_, _, err = w.Show(ctx) // tells agents, whichever coordinator they are with
	return agreed, err
}

// leaves are the keys that a coordinator is known to have had, so that none of them joins again, and whether it is one still.
func (w *Warden) leaves(ctx context.Context, id string, force bool) (keys []string, voter bool, err error) {
	if id == w.config.ID {
		return nil, false, fault.New(fault.Conflict, "coordinator %s leads: have another lead first, with clary cluster transfer", id)
	}
	_, gone := w.config.Quorum.Weigh(ctx, id, force)
	if gone != nil && !fault.Is(gone, fault.NotFound) {
		return nil, false, gone
	}
	snapshot, err := w.config.Replica.Read(ctx, false)
	if err != nil {
		return nil, false, err
	}
	defer snapshot.Close()
	for token := range snapshot.Tokens() {
		if token.Kind == cluster.TokenJoin && token.Role == cluster.RoleCoordinator && token.Name == id && token.BoundKey != "" && !slices.Contains(keys, token.BoundKey) {
			keys = append(keys, token.BoundKey)
		}
	}
	if gone != nil && len(keys) == 0 {
		return nil, false, gone
	}
	if answer, err := w.status(ctx, Member{Role: cluster.RoleCoordinator, ID: id}, nil); err == nil && !slices.Contains(keys, answer.GetKey()) {
		keys = append(keys, answer.GetKey())
	}
	return keys, gone == nil, nil
}

// CAs describes the CAs that are trusted now.
func (w *Warden) CAs() []*claryv1.TrustedCA {
	var list []*claryv1.TrustedCA
	for i, cert := range w.config.Keyring.Get().CAs() {
		list = append(list, &claryv1.TrustedCA{Pin: pki.PinOf(cert), NotBefore: cert.NotBefore.UnixNano(), NotAfter: cert.NotAfter.UnixNano(), Signs: i == 0})
	}
	return list
}
