// Package solo is a ledger of one replica without a log: commands are applied at once,
// to a real state, by the real rules. The tests of the loops that run on the leader use
// it in place of a cluster.
package solo

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/state"
)

// Ledger applies what is proposed to its state.
type Ledger struct {
	store *state.Store

	// Before, if set, is asked before commands are applied, and may itself propose others;
	// its error is the answer. Set it before the ledger is used.
	Before func(commands []command.Command) error

	mu sync.Mutex // held while commands are applied
}

// Open makes a new state in a file at path.
func Open(path string) (*Ledger, error) {
	store, err := state.Open(path)
	if err != nil {
		return nil, err
	}
	l := &Ledger{store: store}
	// There is nobody of an earlier build.
	if _, err := l.Propose(context.Background(), command.RaiseFormat{To: command.Format}); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return l, nil
}

// Close closes the state.
func (l *Ledger) Close() error { return l.store.Close() }

// Propose applies commands, stamped with the clock. As a replica does, it answers with
// the results of all and the error of the first that was refused.
func (l *Ledger) Propose(ctx context.Context, commands ...command.Command) ([]command.Result, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if l.Before != nil {
		if err := l.Before(commands); err != nil {
			return nil, err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var results []command.Result
	err := l.store.Batch(func(w *state.Writer) error {
		for _, c := range commands {
			results = append(results, command.Run(w, c, time.Now().UnixNano()))
		}
		return nil
	})
	for _, result := range results {
		if err == nil {
			err = result.Err
		}
	}
	return results, err
}

// Read returns a snapshot of all that was applied.
func (l *Ledger) Read(context.Context, bool) (*state.Snapshot, error) { return l.store.Snapshot() }

// Events is where changes are published.
func (l *Ledger) Events() *state.Bus { return l.store.Events() }
