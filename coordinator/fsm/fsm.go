// Package fsm joins raft to the state: it decodes log entries, has their commands applied,
// one transaction for a batch of entries, and copies the state for raft's snapshots. It
// decides nothing itself.
package fsm

import (
	"io"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
)

// FSM implements raft.BatchingFSM. The response to an entry is a []command.Result, or an
// error once the FSM is broken.
type FSM struct {
	store  *state.Store
	room   Room
	fatal  func(error)
	broken error // raft calls from one goroutine
	since  atomic.Pointer[Since]
	grown  chan struct{}
}

// Room is what a full disk does to the state.
type Room interface {
	// Starved is told of a write that failed, and reports whether to write again.
	Starved(error) bool
	// Fits says why there is no room for a snapshot now; nil: there is.
	Fits() error
}

// endless is a disk that is never full.
type endless struct{}

func (endless) Starved(error) bool { return false }
func (endless) Fits() error        { return nil }

// Since is what was applied since the last snapshot was taken, or restored.
type Since struct{ Entries, Bytes int64 }

// Since tells how far the log has gone beyond the last snapshot.
func (f *FSM) Since() Since { return *f.since.Load() }

// Applied rings when entries have been applied.
func (f *FSM) Applied() <-chan struct{} { return f.grown }

// count notes what was applied.
func (f *FSM) count(entries []*raft.Log) {
	since := f.Since()
	for _, entry := range entries {
		since.Entries++
		since.Bytes += int64(len(entry.Data))
	}
	f.since.Store(&since)
	select {
	case f.grown <- struct{}{}:
	default:
	}
}

// New makes an FSM over a store. fatal is called once, when an entry cannot be decoded or
// the state cannot be written: this replica must stop, for it would differ from the others. What is written again when the
// disk has room is up to room; nil: nothing.
func New(store *state.Store, room Room, fatal func(error)) *FSM {
	if room == nil {
		room = endless{}
	}
	f := &FSM{store: store, room: room, fatal: fatal, grown: make(chan struct{}, 1)}
	f.since.Store(&Since{})
	return f
}

// Apply applies one entry.
func (f *FSM) Apply(entry *raft.Log) any { return f.ApplyBatch([]*raft.Log{entry})[0] }

// ApplyBatch applies entries in one transaction.
func (f *FSM) ApplyBatch(entries []*raft.Log) []any {
	answers := make([]any, len(entries))
	err := f.broken
	for again := err == nil; again; again = err != nil && f.room.Starved(err) {
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
	f.count(entries)
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
	if err := f.room.Fits(); err != nil {
		return nil, err
	}
	snapshot, err := f.store.Snapshot()
	if err != nil {
		return nil, err
	}
	f.since.Store(&Since{})
	return held{snapshot}, nil
}

// Restore replaces the state by a snapshot.
func (f *FSM) Restore(source io.ReadCloser) error {
	defer source.Close()
	f.since.Store(&Since{})
	if err := f.store.Restore(source); err != nil {
		return err
	}
	snapshot, err := f.store.Snapshot()
	if err != nil {
		return err
	}
	defer snapshot.Close()
	if format := snapshot.Format(); format > command.Format && f.broken == nil {
		f.broken = fault.New(fault.Invalid, "the snapshot is of format %d, and this version knows %d: a newer one wrote it; start that one here", format, command.Format)
		f.fatal(f.broken)
	}
	return f.broken
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
