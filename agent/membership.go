package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/clary-ml/clary/auth/member"
	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/internal/atomicfile"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/gossip"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// membership is what makes this process a member: its certificate, and where it last
// heard of coordinators.
type membership struct {
	credentials *pki.Current
	notes       notes
	keys        keys
}

// notes is the file that tells an agent on its next start what it was.
type notes struct {
	ID           string   `json:"id"`
	GossipKey    []byte   `json:"gossip_key"`
	Gossip       []string `json:"gossip"`       // addresses to look for members at
	Coordinators []string `json:"coordinators"` // RPC addresses
}

const (
	notesFile = "member.json"
	tlsFolder = "tls"
)

// enter makes this process a member: one that was here before, or one that joins with a
// token.
func enter(ctx context.Context, c Config) (membership, error) {
	if err := os.MkdirAll(c.path(tlsFolder), 0o700); err != nil {
		return membership{}, fmt.Errorf("--data: %w", err)
	}
	known, err := comeBack(c)
	if err == nil && known.expired() && c.Join != "" && c.Token != "" {
		return join(ctx, c)
	}
	if err == nil && known.expired() {
		return known, fault.New(fault.Denied, "the certificate in %s ended at %s while the agent was away: join again, with --join and a new token from clary token create --join agent",
			c.path(tlsFolder), known.credentials.Get().Cert.NotAfter.Format(time.RFC3339))
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return known, err
	}
	if c.Join == "" {
		return known, fault.New(fault.Invalid, "--join: is empty, and %s has joined no cluster yet: name a coordinator's address, and a token from clary token create --join agent", c.Data)
	}
	return join(ctx, c)
}

func comeBack(c Config) (membership, error) {
	text, err := os.ReadFile(c.path(notesFile))
	if err != nil {
		return membership{}, err
	}
	var m membership
	if err := json.Unmarshal(text, &m.notes); err != nil {
		return m, fault.New(fault.Invalid, "%s is damaged: %w", c.path(notesFile), err)
	}
	if m.notes.ID != c.ID {
		return m, fault.New(fault.Invalid, "--id: %q, but the folder %s belongs to node %q", c.ID, c.Data, m.notes.ID)
	}
	if m.keys, err = loadKeys(c); err != nil {
		return m, err
	}
	if len(m.keys.GossipKeys) == 0 {
		m.keys.GossipKeys = [][]byte{m.notes.GossipKey}
	}
	saved, err := pki.LoadCredentials(c.path(tlsFolder))
	m.credentials = pki.NewCurrent(saved)
	return m, err
}

// expired reports whether no coordinator accepts this member's certificate any more.
func (m membership) expired() bool { return time.Now().After(m.credentials.Get().Cert.NotAfter) }

func join(ctx context.Context, c Config) (membership, error) {
	key, err := member.JoiningKey(c.path(tlsFolder, "joining.pem"))
	if err != nil {
		return membership{}, err
	}
	answer, err := member.Join(ctx, c.network(), c.Join, c.Token, key, &claryv1.JoinRequest{
		Id: c.ID, Role: pki.Agent, Address: c.Address, Version: c.Version,
	})
	if err != nil {
		return membership{}, err
	}
	m := membership{notes: notes{
		ID: c.ID, GossipKey: answer.GetGossipKey(), Gossip: answer.GetGossip(), Coordinators: append(answer.GetCoordinators(), c.Join),
	}}
	credentials, err := member.Credentials(answer.GetCertificatePem(), key, answer.GetCaPem())
	if err != nil {
		return m, err
	}
	m.keys.GossipKeys = [][]byte{m.notes.GossipKey}
	if bundle := answer.GetTrust(); bundle != nil {
		m.keys = keys{Generation: bundle.GetGeneration(), GossipKeys: bundle.GetGossipKeys()}
		if credentials.Trust, err = pki.NewTrust(bundle.GetCas(), bundle.GetLinks(), wire.Revocations(bundle.GetRevoked())); err != nil {
			return m, err
		}
	}
	if err := errors.Join(m.keys.save(c), credentials.Save(c.path(tlsFolder))); err != nil {
		return m, err
	}
	m.credentials = pki.NewCurrent(credentials)
	return m, m.notes.save(c)
}

func (n notes) save(c Config) error {
	text, err := json.MarshalIndent(n, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(c.path(notesFile), text, 0o600)
}

// remember notes where coordinators are, for the next start.
func (a *agent) remember(ctx context.Context) error {
	noted := a.self.notes
	return a.gossip.Remember(ctx, func(coordinators []gossip.Member) error {
		now := noted
		now.Gossip = gossip.Note(noted.Gossip, coordinators, func(m gossip.Member) string { return m.Gossip })
		now.Coordinators = gossip.Note(noted.Coordinators, coordinators, func(m gossip.Member) string { return m.RPC })
		if slices.Equal(now.Gossip, noted.Gossip) && slices.Equal(now.Coordinators, noted.Coordinators) {
			return nil
		}
		noted = now
		return noted.save(a.config)
	})
}
