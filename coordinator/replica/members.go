package replica

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/raft"

	"github.com/clary-ml/clary/internal/fault"
)

// Member is one coordinator of the cluster's configuration.
type Member struct {
	ID      string
	Address string // raft's, as it was when the member was added
	Voter   bool
	Leader  bool
}

// Members lists the coordinators as this replica knows them, in the order they were added.
func (r *Replica) Members() ([]Member, error) {
	future := r.raft.GetConfiguration()
	if err := future.Error(); err != nil {
		return nil, fault.New(fault.Unready, "read the members: %w", err)
	}
	leader := r.Leader()
	var members []Member
	for _, server := range future.Configuration().Servers {
		members = append(members, Member{
			ID: string(server.ID), Address: string(server.Address),
			Voter: server.Suffrage == raft.Voter, Leader: string(server.ID) == leader,
		})
	}
	return members, nil
}

// AddVoter makes a coordinator a member, or gives a member another address. Only the
// leader can.
func (r *Replica) AddVoter(ctx context.Context, id, address string) error {
	return r.change(ctx, "add coordinator "+id, func(limit time.Duration) raft.Future {
		return r.raft.AddVoter(raft.ServerID(id), raft.ServerAddress(address), 0, limit)
	})
}

// AddNonvoter makes a coordinator a member that gets the log and does not vote. Only the leader can.
func (r *Replica) AddNonvoter(ctx context.Context, id, address string) error {
	return r.change(ctx, "add coordinator "+id, func(limit time.Duration) raft.Future {
		return r.raft.AddNonvoter(raft.ServerID(id), raft.ServerAddress(address), 0, limit)
	})
}

// RemoveServer takes a coordinator out of the cluster. Only the leader can.
func (r *Replica) RemoveServer(ctx context.Context, id string) error {
	return r.change(ctx, "remove coordinator "+id, func(limit time.Duration) raft.Future {
		return r.raft.RemoveServer(raft.ServerID(id), 0, limit)
	})
}

// Transfer hands leadership to another member, or to whichever has most of the log if none is named, so that this one
// can stop without a gap. The other has won its election by then, and may still be applying what came before.
func (r *Replica) Transfer(ctx context.Context, to Member) error {
	return r.change(ctx, "transfer leadership", func(time.Duration) raft.Future {
		if to.ID == "" {
			return r.raft.LeadershipTransfer()
		}
		return r.raft.LeadershipTransferToServer(raft.ServerID(to.ID), raft.ServerAddress(to.Address))
	})
}

func (r *Replica) change(ctx context.Context, what string, start func(time.Duration) raft.Future) error {
	if err := r.enter(); err != nil {
		return err
	}
	defer r.callers.Done()
	if err := ctx.Err(); err != nil {
		return err
	}
	limit := sendWait
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(deadline))
	}
	err := start(limit).Error()
	if errors.Is(err, raft.ErrNotLeader) {
		return fault.New(fault.Unready, "%s: only the leader can, which is %q", what, r.Leader())
	}
	if err != nil {
		return fault.New(fault.Unready, "%s: %w", what, err)
	}
	return nil
}

// Stats is how this replica is doing.
type Stats struct {
	State     string // leader, follower, candidate or shutdown
	Leader    string
	Term      uint64
	Last      uint64 // newest entry in its log
	Committed uint64 // newest entry known to be in a majority's
	Applied   uint64 // newest entry in its state
}

// Stats returns how this replica is doing now.
func (r *Replica) Stats() Stats {
	return Stats{
		State: r.raft.State().String(), Leader: r.Leader(), Term: r.raft.CurrentTerm(),
		Last: r.raft.LastIndex(), Committed: r.raft.CommitIndex(), Applied: r.store.Index(),
	}
}
