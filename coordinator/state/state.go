// Package state keeps what the coordinators have agreed on: jobs, gangs, tasks, nodes,
// queues, tokens, publications, sweeps and their trials, endpoints, models and their versions, and what is
// used of each node.
//
// A Store is one bbolt file that follows the raft log. Commands write through a Tx,
// readers hold a Snapshot, and whoever wants to hear of changes subscribes to the Bus.
// The file is not durable and need not be: a start deletes it and rebuilds it from the
// raft snapshot and the log. See ../DESIGN.md.
package state

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/proto/wire"
	"github.com/clary-ml/clary/storage/kv"
)

// initialMmap is address space, not memory: growing the map would wait for readers.
const initialMmap = 4 << 30

// buckets are the typed tables of the file.
type buckets struct {
	jobs         kv.Bucket[cluster.Job]
	archived     kv.Bucket[cluster.Archived]     // by job
	gangs        kv.Bucket[cluster.Gang]         // by "job/gang"
	tasks        kv.Bucket[cluster.Task]         // by "job/gang/role-index.attempt"
	publications kv.Bucket[cluster.Publication]  // by job
	nodes        kv.Bucket[cluster.Node]         // by id
	queues       kv.Bucket[cluster.Queue]        // by name
	tokens       kv.Bucket[cluster.Token]        // by id
	secrets      kv.Bucket[cluster.Secret]       // by "queue/name"
	deeds        kv.Bucket[cluster.Deed]         // by id, in the order of time
	trust        kv.Bucket[cluster.Trust]        // one row
	sweeps       kv.Bucket[cluster.Sweep]        // by job
	trials       kv.Bucket[cluster.Trial]        // by "job/number"
	live         kv.Bucket[struct{}]             // "job/number" of every trial that has not ended
	children     kv.Bucket[struct{}]             // "parent/job" of every job that another made
	endpoints    kv.Bucket[cluster.Endpoint]     // by job
	models       kv.Bucket[cluster.Model]        // by name
	versions     kv.Bucket[cluster.ModelVersion] // by "model/number"
	uses         kv.Bucket[struct{}]             // "model/number/kind/id" of all that uses a version
	used         kv.Bucket[cluster.Resources]    // by node: the sum over its unended tasks
	placed       kv.Bucket[struct{}]             // "node/task" of every unended task
	usage        kv.Bucket[cluster.QueueUsage]   // by queue: the sum over the unended tasks that are charged to it
	holds        kv.Bucket[int64]                // by "queue/job": how many of these tasks a job has
	line         kv.Bucket[place]                // by job: where each that has not ended stands
	lines        kv.Bucket[line]                 // by queue: how many those are
	crowd        kv.Bucket[line]                 // by owner, and of all together: how many jobs have not ended
	below        kv.Bucket[struct{}]             // "parent/queue" of every queue
	capacity     kv.Bucket[cluster.Amount]       // one row: what the nodes have that are ready
	unready      kv.Bucket[struct{}]             // ids of the nodes that are not
	settings     kv.Bucket[cluster.Settings]     // one row, if anything was set
	format       kv.Bucket[int64]                // one row: what may be in the log; none is 0
	deedCount    kv.Bucket[int64]                // one row: how many deeds there are
	position     kv.Bucket[position]             // one row
}

// position says how far the log was applied.
type position struct {
	revision uint64 // of the last command that changed anything
	index    uint64 // of the last raft entry
}

const (
	positionKey = "position"
	formatKey   = "format"
)

func newBuckets() *buckets {
	return &buckets{
		jobs:         kv.Bucket[cluster.Job]{Name: "jobs", Codec: wire.JobCodec()},
		archived:     kv.Bucket[cluster.Archived]{Name: "archived", Codec: wire.ArchivedCodec()},
		gangs:        kv.Bucket[cluster.Gang]{Name: "gangs", Codec: wire.GangCodec()},
		tasks:        kv.Bucket[cluster.Task]{Name: "tasks", Codec: wire.TaskCodec()},
		publications: kv.Bucket[cluster.Publication]{Name: "publications", Codec: wire.PublicationCodec()},
		nodes:        kv.Bucket[cluster.Node]{Name: "nodes", Codec: wire.NodeCodec()},
		queues:       kv.Bucket[cluster.Queue]{Name: "queues", Codec: wire.QueueCodec()},
		tokens:       kv.Bucket[cluster.Token]{Name: "tokens", Codec: wire.TokenCodec()},
		secrets:      kv.Bucket[cluster.Secret]{Name: "secrets", Codec: wire.SecretCodec()},
		deeds:        kv.Bucket[cluster.Deed]{Name: "deeds", Codec: wire.DeedCodec()},
		trust:        kv.Bucket[cluster.Trust]{Name: "trust", Codec: wire.TrustCodec()},
		sweeps:       kv.Bucket[cluster.Sweep]{Name: "sweeps", Codec: wire.SweepCodec()},
		trials:       kv.Bucket[cluster.Trial]{Name: "trials", Codec: wire.TrialCodec()},
		live:         kv.Bucket[struct{}]{Name: "live", Codec: markCodec()},
		children:     kv.Bucket[struct{}]{Name: "children", Codec: markCodec()},
		endpoints:    kv.Bucket[cluster.Endpoint]{Name: "endpoints", Codec: wire.EndpointCodec()},
		models:       kv.Bucket[cluster.Model]{Name: "models", Codec: wire.ModelCodec()},
		versions:     kv.Bucket[cluster.ModelVersion]{Name: "versions", Codec: wire.ModelVersionCodec()},
		uses:         kv.Bucket[struct{}]{Name: "uses", Codec: markCodec()},
		used:         kv.Bucket[cluster.Resources]{Name: "used", Codec: wire.ResourcesCodec()},
		placed:       kv.Bucket[struct{}]{Name: "placed", Codec: markCodec()},
		usage:        kv.Bucket[cluster.QueueUsage]{Name: "queue-usage", Codec: wire.QueueUsageCodec()},
		holds:        kv.Bucket[int64]{Name: "holds", Codec: countCodec()},
		line:         kv.Bucket[place]{Name: "line", Codec: placeCodec()},
		lines:        kv.Bucket[line]{Name: "lines", Codec: lineCodec()},
		crowd:        kv.Bucket[line]{Name: "crowd", Codec: lineCodec()},
		below:        kv.Bucket[struct{}]{Name: "below", Codec: markCodec()},
		capacity:     kv.Bucket[cluster.Amount]{Name: "capacity", Codec: wire.AmountCodec()},
		unready:      kv.Bucket[struct{}]{Name: "unready", Codec: markCodec()},
		settings:     kv.Bucket[cluster.Settings]{Name: "settings", Codec: wire.SettingsCodec()},
		format:       kv.Bucket[int64]{Name: "format", Codec: countCodec()},
		deedCount:    kv.Bucket[int64]{Name: "deed-count", Codec: countCodec()},
		position:     kv.Bucket[position]{Name: "position", Codec: positionCodec()},
	}
}

func markCodec() kv.Codec[struct{}] {
	return kv.Codec[struct{}]{
		Encode: func(struct{}) ([]byte, error) { return []byte{}, nil },
		Decode: func([]byte) (struct{}, error) { return struct{}{}, nil },
	}
}

func positionCodec() kv.Codec[position] {
	return kv.Codec[position]{
		Encode: func(p position) ([]byte, error) {
			return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, p.revision), p.index), nil
		},
		Decode: func(raw []byte) (position, error) {
			if len(raw) != 16 {
				return position{}, fmt.Errorf("%d bytes, want 16", len(raw))
			}
			return position{binary.BigEndian.Uint64(raw), binary.BigEndian.Uint64(raw[8:])}, nil
		},
	}
}

// Store is the state of one replica. Reading is for any goroutine; Batch and Restore
// are for the one that applies the log.
type Store struct {
	db      *kv.DB
	buckets *buckets
	bus     *Bus

	mu       sync.Mutex // guards what follows
	at       position
	advanced chan struct{} // closed when at moves, or the store is closed
	closed   bool
}

// Open makes a new, nearly empty state at path, and deletes what was there: the
// default queue exists from birth, at revision 1.
func Open(path string) (*Store, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.Internal, "delete the old state: %w", err)
	}
	db, err := kv.Open(path, kv.Options{InitialMmap: initialMmap, NoSync: true})
	if err != nil {
		return nil, err
	}
	s := &Store{db: db, buckets: newBuckets(), bus: newBus(), advanced: make(chan struct{})}
	birth := position{revision: 1}
	err = db.Update(func(tx *kv.Tx) error {
		queue := cluster.Queue{Name: cluster.DefaultQueue, Weight: 1, Revision: birth.revision}
		return errors.Join(
			s.buckets.queues.Put(tx, queue.Name, queue),
			s.buckets.below.Put(tx, "/"+queue.Name, struct{}{}),
			s.buckets.position.Put(tx, positionKey, birth))
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	s.at = birth
	return s, nil
}

// Close closes the file and every subscription. Open snapshots stay readable.
func (s *Store) Close() error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.advanced)
	}
	s.mu.Unlock()
	s.bus.close()
	return s.db.Close()
}

// Events is where changes are published, after they can be read.
func (s *Store) Events() *Bus { return s.bus }

// Index is the raft index of the last entry that was applied.
func (s *Store) Index() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at.index
}

// Wait returns once the entry at index has been applied.
func (s *Store) Wait(ctx context.Context, index uint64) error {
	for {
		s.mu.Lock()
		reached, closed, advanced := s.at.index >= index, s.closed, s.advanced
		s.mu.Unlock()
		switch {
		case reached:
			return nil
		case closed:
			return fault.New(fault.Unready, "this coordinator is stopping: ask another")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-advanced:
		}
	}
}

// moveTo tells whoever waits how far the log was applied.
func (s *Store) moveTo(at position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = at
	if !s.closed {
		close(s.advanced)
		s.advanced = make(chan struct{})
	}
}

// Batch calls fn, which runs commands, and writes all that they changed in one
// transaction, together with the index of the last raft entry among them. Only then are
// the changes published. An error means that nothing was written.
func (s *Store) Batch(fn func(*Writer) error) error {
	w := &Writer{buckets: s.buckets}
	s.mu.Lock()
	w.at = s.at
	s.mu.Unlock()
	err := s.db.Batch(func(batch *kv.Batch) error {
		w.batch = batch
		if err := fn(w); err != nil {
			return err
		}
		return batch.Do(func(tx *kv.Tx) error { return s.buckets.position.Put(tx, positionKey, w.at) })
	})
	if err != nil {
		return err
	}
	s.moveTo(w.at)
	s.bus.publish(w.changes)
	return nil
}

// Restore replaces the state by a backup that Snapshot.Backup wrote. Every subscriber
// is told to read anew.
func (s *Store) Restore(backup io.Reader) error {
	if err := s.db.Restore(backup); err != nil {
		return err
	}
	if err := s.recount(); err != nil {
		return err
	}
	snapshot, err := s.Snapshot()
	if err != nil {
		return err
	}
	defer snapshot.Close()
	s.moveTo(snapshot.at)
	s.bus.lose()
	return nil
}

// Snapshot returns the state after the last batch. Close it soon: while it is open the
// file cannot use its freed pages again.
func (s *Store) Snapshot() (*Snapshot, error) {
	from, err := s.db.Snapshot()
	if err != nil {
		return nil, err
	}
	snapshot := &Snapshot{reader: reader{from, s.buckets}, from: from}
	at, ok, err := s.buckets.position.Get(from, positionKey)
	if err != nil || !ok {
		return nil, errors.Join(fault.New(fault.Internal, "the state does not say how far the log was applied: %w", err), from.Close())
	}
	snapshot.at = at
	return snapshot, nil
}

// Snapshot is the state after some batch. It never changes. It may be read from several
// goroutines at once, until it is closed.
type Snapshot struct {
	reader
	from *kv.Snapshot
	at   position
}

// Close gives the snapshot back. A second Close does nothing.
func (s *Snapshot) Close() error { return s.from.Close() }

// Revision is that of the last command that changed anything.
func (s *Snapshot) Revision() uint64 { return s.at.revision }

// Index is the raft index of the last entry that was applied.
func (s *Snapshot) Index() uint64 { return s.at.index }

// Backup writes the whole state for Store.Restore, and returns its length in bytes.
func (s *Snapshot) Backup(w io.Writer) (int64, error) { return s.from.Backup(w) }

// Dump writes the state as text: equal states give equal dumps.
func (s *Snapshot) Dump(w io.Writer) error { return s.from.Dump(w) }
