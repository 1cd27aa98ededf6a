package replica

import (
	"context"
	"sync"

	"github.com/hashicorp/raft"
)

// Leader is the ID of the leader as this replica knows it, "" if there is none.
func (r *Replica) Leader() string {
	_, id := r.raft.LeaderWithID()
	return string(id)
}

// Leads reports whether this replica leads and has applied all that came before. It can
// be wrong for as long as a lease: only Read and Propose make sure.
func (r *Replica) Leads() bool { return r.established.Load() != 0 }

// lead follows raft's word on who leads.
func (r *Replica) lead(ctx context.Context) {
	var establishing sync.WaitGroup
	defer establishing.Wait()
	for {
		select {
		case leads := <-r.notify:
			establishing.Wait()
			r.established.Store(0)
			if leads {
				establishing.Go(func() { r.establish(ctx) })
			}
		case <-r.observed:
		case <-ctx.Done():
			r.established.Store(0)
			r.changed.ring()
			return
		}
		r.changed.ring()
	}
}

// establish waits until everything committed before this term is applied here. The empty
// entry that tells it costs one fsync at each change of leadership.
func (r *Replica) establish(ctx context.Context) {
	for ctx.Err() == nil {
		term := r.raft.CurrentTerm()
		err := r.raft.Apply(nil, 0).Error()
		if r.raft.State() != raft.Leader || r.raft.CurrentTerm() != term {
			return // raft tells of what comes next
		}
		if err == nil {
			r.established.Store(term)
			r.changed.ring()
			return
		}
		r.log.Warn("a new leader's first entry failed, once more", "error", err)
	}
}

// RunAsLeader runs fn whenever this replica leads, until ctx ends: from when it has
// applied all entries of earlier leaders, with a context that ends when it leads no more,
// and never twice at once. If fn returns while the replica still leads, so does
// RunAsLeader, with fn's error.
func (r *Replica) RunAsLeader(ctx context.Context, fn func(context.Context) error) error {
	for {
		term, err := r.awaitEstablished(ctx)
		if err != nil {
			return err
		}
		reign, end := context.WithCancel(ctx)
		var watch sync.WaitGroup
		watch.Go(func() {
			defer end()
			for {
				changed := r.changed.wait()
				if r.established.Load() != term {
					return
				}
				select {
				case <-changed:
				case <-reign.Done():
					return
				}
			}
		})
		err = fn(reign)
		ended := reign.Err() != nil || r.raft.State() != raft.Leader
		end()
		watch.Wait()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !ended {
			return err
		}
	}
}

func (r *Replica) awaitEstablished(ctx context.Context) (uint64, error) {
	for {
		changed := r.changed.wait()
		if term := r.established.Load(); term != 0 {
			return term, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}
