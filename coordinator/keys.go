package coordinator

import (
	"context"
	"time"

	"github.com/clary-ml/clary/auth/keyring"
	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/warden"
)

// openWarden makes what keeps this coordinator's keys.
func (n *coordinator) openWarden() {
	c := n.config
	n.warden = warden.New(warden.Config{
		ID: c.ID, Dir: c.Data, TLS: c.path(tlsFolder), Keyring: n.self.keyring, Credentials: n.self.credentials, Replica: n.replica,
		Coordinators: n.quorum, Quorum: n.voting, Peers: n.peers, Agents: n.agents, Applied: n.keysApplied, Log: c.Log,
	})
}

// quorum names all coordinators of the cluster.
func (n *coordinator) quorum() ([]string, error) {
	known, err := n.replica.Members()
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(known))
	for i, member := range known {
		ids[i] = member.ID
	}
	return ids, nil
}

// lives are how long certificates last that are made now, as far as this coordinator knows.
func (n *coordinator) lives() cluster.Certificates {
	snapshot, err := n.replica.Read(context.Background(), true)
	if err != nil {
		return cluster.DefaultSettings().Certificates
	}
	defer snapshot.Close()
	return snapshot.Settings().Certificates
}

// keysApplied passes on which keys are in force: to gossip, to the object store, and to what stands with those who are
// not believed any more.
func (n *coordinator) keysApplied(trust cluster.Trust, believed pki.Trust, keys *keyring.Keyring) {
	if err := n.gossip.SetKeys(keys.GossipKeys); err != nil {
		n.log.Error("gossip's keys are not those of today", "error", err)
	}
	n.reloadStore()            // it shows what vouches for its CA
	n.gossip.Refuse(trust.Out) // also if nobody is out: who was until now may come back
	if pki.Drops(n.cas, believed.CAs) {
		n.part()
	}
	n.cas = believed.CAs
	if len(trust.Revoked) == 0 {
		return
	}
	if revoked, out := trust.Revocation(pki.Coordinator, n.config.ID); out && revoked.Refuses(pki.PinOf(n.self.credentials.Get().Cert)) {
		select {
		case n.out <- pki.Revoked(revoked):
		default: // it is told already
		}
	}
	n.mux.HangUp(believed.Admits)
	for _, revoked := range trust.Revoked {
		if revoked.Admitted != "" {
			continue
		}
		if revoked.Role == pki.Coordinator {
			n.peers.Drop(revoked.ID)
			n.raft.CloseStreams()
		} else {
			n.agents.Drop(revoked.ID)
		}
	}
}

// part has what stands under a CA that was dropped end. All members have certificates of another by then, so whatever begins
// now goes over connections of today; what is under way has a moment.
func (n *coordinator) part() {
	n.peers.Renew()
	n.agents.Renew()
	n.raft.CloseStreams()
	select {
	case n.dropped <- struct{}{}:
	default: // it has not begun to wait for the one before: once is enough
	}
}

// hangUpDropped closes what stands under CAs that were dropped, until ctx ends.
func (n *coordinator) hangUpDropped(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-n.dropped:
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pki.DropTime):
		}
		n.peers.CloseFormer()
		n.agents.CloseFormer()
		n.mux.HangUp(n.self.credentials.Get().Vouches)
	}
}

// reloadStore has the embedded store read its certificate again.
func (n *coordinator) reloadStore() {
	select {
	case n.reload <- struct{}{}:
	default: // it has not taken up the one before: once is enough
	}
}
