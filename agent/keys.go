package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/clary-ml/clary/auth/member"
	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/atomicfile"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// keysFile is what this agent was told of the cluster's keys last; whom it trusts is in its TLS folder.
const keysFile = "keys.json"

type keys struct {
	Generation uint64   `json:"generation"`
	GossipKeys [][]byte `json:"gossip_keys"` // the first is spoken
	// Former says that they are those of the former life of the cluster: whatever the one of today says counts.
	Former bool `json:"former,omitempty"`
}

// loadKeys reads the file, which may not be there yet.
func loadKeys(c Config) (keys, error) {
	var k keys
	text, err := os.ReadFile(c.path(keysFile))
	if errors.Is(err, fs.ErrNotExist) {
		return k, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &k)
	}
	if err != nil {
		return k, fault.New(fault.Invalid, "%s is damaged: %w", c.path(keysFile), err)
	}
	return k, nil
}

func (k keys) save(c Config) error {
	text, err := json.Marshal(k)
	if err != nil {
		return err
	}
	return atomicfile.Write(c.path(keysFile), text, 0o600)
}

// learn takes what the cluster has agreed on of its keys. What is older than what is known is left: a coordinator may be
// behind. Whoever is not believed any more is hung up on.
func (a *agent) learn(bundle *claryv1.TrustBundle) error {
	a.learning.Lock()
	defer a.learning.Unlock()
	if known := a.self.keys; bundle == nil || bundle.GetGeneration() <= known.Generation && !known.Former {
		return nil
	}
	trust, err := pki.NewTrust(bundle.GetCas(), bundle.GetLinks(), wire.Revocations(bundle.GetRevoked()))
	if err != nil {
		return err
	}
	learned := keys{Generation: bundle.GetGeneration(), GossipKeys: bundle.GetGossipKeys()}
	if err := a.gossip.SetKeys(learned.GossipKeys); err != nil {
		return err
	}
	before := a.self.credentials.Get().CAs()
	err = a.self.credentials.Update(func(now pki.Credentials) (pki.Credentials, error) {
		now.Trust = trust
		return now, now.Save(a.config.path(tlsFolder))
	})
	if err != nil {
		return err
	}
	if err := learned.save(a.config); err != nil { // last: it says that the rest is done
		return err
	}
	a.self.keys = learned
	a.heed(trust)
	if pki.Drops(before, trust.CAs) {
		select {
		case a.dropped <- struct{}{}:
		default: // it has not begun to wait for the one before: once is enough
		}
	}
	a.log.Info("the cluster's keys have changed", "generation", learned.Generation, "cas", len(trust.CAs), "revoked", len(trust.Revoked))
	return nil
}

// unlearn has the next that is told of keys count, whatever was known: another life of the cluster counts anew, and is at 0 where
// it began before any change.
func (a *agent) unlearn() error {
	a.learning.Lock()
	defer a.learning.Unlock()
	former := a.self.keys
	former.Former = true
	if err := former.save(a.config); err != nil {
		return err
	}
	a.self.keys = former
	return nil
}

// heed ends what stands with those who are not believed any more.
func (a *agent) heed(trust pki.Trust) {
	a.gossip.Refuse(cluster.Trust{Revoked: trust.Revoked}.Out) // also if nobody is: who was until now may come back
	if len(trust.Revoked) == 0 {
		return
	}
	a.port.HangUp(trust.Admits)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.link != nil && trust.Admits(a.link.with) != nil {
		a.link.hangUp()
	}
	if a.routes != nil {
		a.routes.hangUp()
	}
}

// hangUpDropped closes what stands under CAs that were dropped, until ctx ends. What is under way has a moment.
func (a *agent) hangUpDropped(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.dropped:
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pki.DropTime):
		}
		now := a.self.credentials.Get()
		a.port.HangUp(now.Vouches)
		a.mu.Lock()
		if a.link != nil && now.Vouches(a.link.with) != nil {
			a.link.hangUp()
		}
		if a.routes != nil {
			a.routes.hangUp()
		}
		a.mu.Unlock()
	}
}

// agentKeys serves coordinators.
type agentKeys struct {
	claryv1.UnimplementedAgentKeysServer
	agent *agent
}

// Learn takes what the cluster has agreed on, and tells which keys this agent goes by.
func (s *agentKeys) Learn(ctx context.Context, bundle *claryv1.TrustBundle) (*claryv1.KeyStatusResponse, error) {
	if said, mine := member.CallersLife(ctx), s.agent.life.is(); said != mine {
		return nil, wire.ToStatus(fault.New(fault.Unready, "this node is of %s, the coordinator of %s", cluster.LifeText(mine), cluster.LifeText(said)))
	}
	if err := s.agent.learn(bundle); err != nil {
		return nil, wire.ToStatus(err)
	}
	now := s.agent.self.credentials.Get()
	s.agent.learning.Lock()
	defer s.agent.learning.Unlock()
	return &claryv1.KeyStatusResponse{
		Generation: s.agent.self.keys.Generation, CaPin: pki.PinOf(now.CA), NotAfter: now.Cert.NotAfter.UnixNano(), Key: pki.PinOf(now.Cert),
		TasksBehind: int32(s.agent.tasks.Outdated()),
	}, nil
}
