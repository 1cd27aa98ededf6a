package coordinator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/quorum"
	"github.com/clary-ml/clary/internal/atomicfile"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/gossip"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// admitTime bounds one request to become a member.
const admitTime = 10 * time.Second

// becomeVoter asks the leader to make this coordinator a member, or to note where it is
// now. It succeeds when this coordinator votes; Denied is that it was removed.
func (n *coordinator) becomeVoter(ctx context.Context) error {
	a, err := n.applicant()
	if err != nil {
		return err
	}
	if n.replica.Leads() {
		_, _, err := n.voting.Admit(ctx, a)
		return err
	}
	last := fault.New(fault.Unready, "no leader among the members seen so far")
	for _, candidate := range n.gossip.Members() {
		if candidate.Role != gossip.Coordinator || candidate.ID == n.config.ID {
			continue
		}
		voter, behind, err := n.apply(ctx, candidate.ID, a)
		switch {
		case err == nil && (voter || n.votes()):
			n.log.Info("this coordinator votes")
			return nil
		case err == nil:
			return fault.New(fault.Unready, "%d log entries are to be caught up with", behind)
		case fault.Is(err, fault.Denied), fault.Is(err, fault.Invalid): // the leader's word: only it gets so far
			return err
		}
		last = err
	}
	return last
}

// apply asks one coordinator, which must lead.
func (n *coordinator) apply(ctx context.Context, at string, a quorum.Applicant) (voter bool, behind uint64, err error) {
	conn, err := n.peers.Conn(at)
	if err != nil {
		return false, 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, admitTime)
	defer cancel()
	answer, err := claryv1.NewPeerClient(conn).AddMember(ctx, &claryv1.AddMemberRequest{
		Id: a.ID, Address: a.Address, Staged: a.Staged, Format: int32(a.Format), Version: a.Version, Applied: a.Applied,
	})
	return answer.GetVoter(), answer.GetBehind(), wire.FromStatus(err)
}

func (n *coordinator) applicant() (quorum.Applicant, error) {
	key, err := pki.Fingerprint(n.self.credentials.Get().Key.Public())
	return quorum.Applicant{
		ID: n.config.ID, Address: n.config.advertised(), Key: key, Format: command.Format, Version: n.config.Version, Staged: true, Applied: n.replica.Stats().Applied,
	}, err
}

// votes reports whether this coordinator votes, as far as its own log says.
func (n *coordinator) votes() bool {
	known, err := n.replica.Members()
	for _, member := range known {
		if member.ID == n.config.ID {
			return err == nil && member.Voter
		}
	}
	return false
}

// stayEvery is how often a coordinator looks whether it is still a member.
const stayEvery = time.Second

// stay asks to be a member again whenever the log says that this coordinator is none, since only the leader's word
// counts: a log that is being caught up with tells of what was. Who was removed is told so, and stops.
func (n *coordinator) stay(ctx context.Context) error {
	clock := time.NewTicker(stayEvery)
	defer clock.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-clock.C:
		}
		if n.votes() {
			continue
		}
		if err := n.retry(ctx, "stay a voting member", n.becomeVoter); err != nil {
			return n.noteRemoval(err)
		}
	}
}

// noteRemoval leaves word in the data folder if a coordinator was removed, so that it does not come back with it.
func (n *coordinator) noteRemoval(err error) error {
	if !fault.Is(err, fault.Denied) {
		return err
	}
	if said := (*fault.Error)(nil); errors.As(err, &said) { // without what was being done when it was said
		err = said
	}
	if noted := atomicfile.Write(n.config.path(removedFile), []byte(err.Error()+"\n"), 0o600); noted != nil {
		n.log.Error("the removal cannot be noted", "error", noted)
	}
	return fmt.Errorf("this coordinator stops: %w", err)
}

// storeAt is who serves the embedded object store, and whether there is one.
func (n *coordinator) storeAt() (id string, embedded bool) {
	if n.self.notes.Store.Endpoint != "" {
		return "", false
	}
	for _, member := range n.gossip.Members() {
		if member.Store != "" {
			return member.ID, true
		}
	}
	return "", true
}
