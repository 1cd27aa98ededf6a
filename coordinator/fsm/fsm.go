// Package fsm joins raft to the state: it decodes log entries, has their commands applied,
// one transaction for a batch of entries, and copies the state for raft's snapshots. It
// decides nothing itself.
package fsm

import (
	"io"

	"github.com/hashicorp/raft"

	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
)

// FSM implements raft.BatchingFSM. The response to an entry is a []command.Result, or an
// error once the FSM is broken.
type FSM struct {
	store  *state.Store
	fatal  func(error)
	broken error // raft calls from one goroutine
}

// New makes an FSM over a store. fatal is called once, when an entry cannot be decoded or
// the state cannot be written: this replica must stop, for it would differ from the others.
func New(store *state.Store, fatal func(error)) *FSM { return &FSM{store: store, fatal: fatal} }

// Apply applies one entry.
func (f *FSM) Apply(entry *raft.Log) any { return f.ApplyBatch([]*raft.Log{entry})[0] }

// ApplyBatch applies entries in one transaction.
func (f *FSM) ApplyBatch(entries []*raft.Log) []any {
	answers := make([]any, len(entries))
	err := f.broken
	if err == nil {
		err = f.store.Batch(func(w *state.Writer) error { return apply(w, entries, answers) })
	}
	if err != nil {
		if f.broken == nil {
			f.broken = err
			f.fatal(err)
		}
		for i := range answers {
			answers[i] = err
		}
	}
	return answers
}

func apply(w *state.Writer, entries []*raft.Log, answers []any) error {
	for i, entry := range entries {
		w.SetIndex(entry.Index)
		if entry.Type != raft.LogCommand {
			continue // raft's own: a new configuration
		}
		commands, err := command.Decode(entry.Data)
		if err != nil {
			return fault.New(fault.Internal, "log entry %d: %w", entry.Index, err)
		}
		results := make([]command.Result, len(commands))
		for j, c := range commands {
			results[j] = command.Run(w, c.Command, c.Now)
		}
		answers[i] = results
	}
	return nil
}

// Snapshot holds the state as it is. A broken FSM gives none: raft would take it for the
// state at an index that was never applied.
func (f *FSM) Snapshot() (raft.FSMSnapshot, error) {
	if f.broken != nil {
		return nil, f.broken
	}
	snapshot, err := f.store.Snapshot()
	if err != nil {
		return nil, err
	}
	return held{snapshot}, nil
}

// Restore replaces the state by a snapshot.
func (f *FSM) Restore(source io.ReadCloser) error {
	defer source.Close()
	return f.store.Restore(source)
}

type held struct{ *state.Snapshot }

// Persist copies the state, while later entries are being applied.
func (h held) Persist(sink raft.SnapshotSink) error {
	if _, err := h.Backup(sink); err != nil {
		_ = sink.Cancel() // the copy's error says more
		return err
	}
	return sink.Close()
}

// Release gives the held state back.
func (h held) Release() { _ = h.Close() }
