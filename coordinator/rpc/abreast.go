package rpc

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// behindAfter is how long a coordinator may go without having all that the leader has. It is less than a lease, so that an
// agent that is sent on comes to another coordinator before its node counts as lost.
const behindAfter = cluster.LeaseTime / 2

var errBehind = fault.New(fault.Unready, "this coordinator does not keep up with the leader, or cannot reach it: ask another")

// Abreast knows whether this coordinator keeps up with the leader: now and then it reads what only a coordinator can that
// reaches a leader with a majority, and has applied all that this one had. One that cannot (it is cut off, stands still, or
// its log does not go on) would have those who follow its state wait for ever for what it never hears. So their streams
// end, and none begins, until it can again.
type Abreast struct {
	replica Replica
	log     *slog.Logger

	mu      sync.Mutex
	behind  bool
	streams map[*context.CancelCauseFunc]bool
}

// NewAbreast makes one that takes the coordinator to keep up; Run has it look.
func NewAbreast(replica Replica, log *slog.Logger) *Abreast {
	return &Abreast{replica: replica, log: log, streams: map[*context.CancelCauseFunc]bool{}}
}

// Run looks until ctx ends.
func (a *Abreast) Run(ctx context.Context) error {
	for was := time.Now(); ; {
		began, most := time.Now(), behindAfter-time.Since(was)
		if most <= 0 {
			most = behindAfter
		}
		err := a.look(ctx, most)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			was = began
			a.note(false, nil)
		case time.Since(was) >= behindAfter:
			a.note(true, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(BeatEvery - min(time.Since(began), BeatEvery)):
		}
	}
}

// look waits at most so long to have what the leader has now.
func (a *Abreast) look(ctx context.Context, most time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	snapshot, err := a.replica.Read(ctx, false)
	if err != nil {
		return err
	}
	return snapshot.Close()
}

func (a *Abreast) note(behind bool, why error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if behind != a.behind && behind {
		a.log.Warn("this coordinator does not keep up: whoever follows its state is sent to another", "streams", len(a.streams), "error", why)
	} else if behind != a.behind {
		a.log.Info("this coordinator keeps up again")
	}
	if a.behind = behind; !behind {
		return
	}
	for end := range a.streams {
		(*end)(errBehind)
	}
}

// follow is the context of a stream that ends, with errBehind as its cause, once this coordinator is behind. Call done when
// the stream has ended.
func (a *Abreast) follow(ctx context.Context) (_ context.Context, done func(), err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.behind {
		return nil, nil, errBehind
	}
	ctx, end := context.WithCancelCause(ctx)
	a.streams[&end] = true
	return ctx, func() {
		end(nil)
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.streams, &end)
	}, nil
}
