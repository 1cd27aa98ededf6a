package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
)

// roundWait bounds one round of finding the read index.
const roundWait = 2 * time.Second

// errNotLed is for a round that may be tried again.
var errNotLed = errors.New("no leader could be asked")

// reading is one caller who wants to know how far to wait before it reads.
type reading struct {
	local bool // came from a follower: it is not sent on a second time
	done  chan readIndex
}

type readIndex struct {
	index uint64
	err   error
}

// Read returns a snapshot that shows every command that any replica answered before the
// call. A stale one shows what this replica has: at once, even without a leader. Close it.
func (r *Replica) Read(ctx context.Context, stale bool) (*state.Snapshot, error) {
	if stale {
		return r.snapshot(ctx)
	}
	if err := r.room.Waits(); err != nil {
		return nil, err // it would wait, and another need not
	}
	index, err := r.readIndex(ctx, false)
	if err != nil {
		return nil, err
	}
	if err := r.store.Wait(ctx, index); err != nil {
		return nil, err
	}
	return r.snapshot(ctx)
}

// snapshot says of a state that was closed since the caller is to end that the caller is to end: it is no failure of its own.
func (r *Replica) snapshot(ctx context.Context) (*state.Snapshot, error) {
	snapshot, err := r.store.Snapshot()
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return snapshot, err
}

// HandleReadIndex answers a follower's Forwarder: whoever has applied the entry at the
// index reads linearizably.
func (r *Replica) HandleReadIndex(ctx context.Context) (uint64, error) {
	return r.readIndex(ctx, true)
}

func (r *Replica) readIndex(ctx context.Context, local bool) (uint64, error) {
	if err := r.enter(); err != nil {
		return 0, err
	}
	defer r.callers.Done()
	wait, cancel := context.WithTimeout(ctx, leaderWait)
	defer cancel()
	for {
		if !local {
			if err := r.awaitLeader(ctx, wait); err != nil {
				return 0, err
			}
		}
		asked := &reading{local: local, done: make(chan readIndex, 1)}
		select {
		case r.reads <- asked:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		select {
		case got := <-asked.done:
			if got.err == nil {
				return got.index, nil
			}
			if local {
				return 0, fault.New(fault.Unready, "%w", got.err)
			}
			if err := r.pause(ctx, wait); err != nil {
				return 0, fmt.Errorf("%w (%w)", err, got.err)
			}
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// read answers readers in rounds. A round serves those who had asked when it began, and
// nobody else: what was written later may be after its index.
func (r *Replica) read(ctx context.Context) {
	for {
		var round []*reading
		select {
		case first := <-r.reads:
			round = append(round, first)
		case <-ctx.Done():
			return
		}
		for more := true; more; {
			select {
			case next := <-r.reads:
				round = append(round, next)
			default:
				more = false
			}
		}
		r.serve(ctx, round)
	}
}

func (r *Replica) serve(ctx context.Context, round []*reading) {
	leads := r.raft.State() == raft.Leader
	var got readIndex
	if leads {
		got.index, got.err = r.leaderIndex()
	}
	asked := leads
	for _, reading := range round {
		switch {
		case leads:
			reading.done <- got
		case reading.local:
			reading.done <- readIndex{err: errNotLed}
		default:
			if !asked {
				got.index, got.err = r.askLeader(ctx)
				asked = true
			}
			reading.done <- got
		}
	}
}

// leaderIndex returns the commit index, if this replica leads now and has applied all that
// was committed before its term (Ongaro, "Consensus: Bridging Theory and Practice", 6.4).
//
// The entry that established the leader reached the state machine, and so does every entry
// after it, so that a replica can tell by its state that it has applied the index: raft's
// own entries at the begin of a term never show there.
func (r *Replica) leaderIndex() (uint64, error) {
	term := r.raft.CurrentTerm()
	if r.established.Load() != term {
		return 0, fmt.Errorf("%w: the leader is still catching up", errNotLed)
	}
	index := r.raft.CommitIndex()
	if err := r.raft.VerifyLeader().Error(); err != nil {
		return 0, fmt.Errorf("%w: %w", errNotLed, err)
	}
	if r.raft.CurrentTerm() != term {
		return 0, errNotLed // it led in one term and was confirmed in another
	}
	return index, nil
}

func (r *Replica) askLeader(ctx context.Context) (uint64, error) {
	leader := r.Leader()
	if leader == "" || leader == r.id {
		return 0, errNotLed
	}
	ctx, cancel := context.WithTimeout(ctx, roundWait)
	defer cancel()
	index, err := r.peers.ReadIndex(ctx, raft.ServerID(leader))
	if err != nil {
		return 0, fmt.Errorf("%w: leader %s: %w", errNotLed, leader, err)
	}
	return index, nil
}
