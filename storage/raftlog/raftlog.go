// Package raftlog opens what a raft server must not forget: its log, its term and vote,
// and its snapshots, in one folder.
//
// Log and votes are raft-wal's: each append is fsynced before it is acknowledged, and so
// is each vote (in a bbolt file of its own). Snapshots are files with a checksum.
package raftlog

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/metrics"

	"github.com/clary-ml/clary/internal/fault"
)

// Options say how a folder is opened. The zero value is for production.
type Options struct {
	// SegmentSize is how many bytes each log file has from its start; 0 is 64 MiB.
	SegmentSize int
	// Snapshots is how many are kept; 0 is 2.
	Snapshots int
	// Stored is told how long each append took, its fsync included; nil is nobody.
	Stored func(time.Duration)
	// Broken is told if the log cannot be cut any more: raft-wal, once it has failed to make a segment, fails for ever, and raft
	// itself only notes it. Whoever follows with such a log stays behind until the folder is opened anew. nil is nobody.
	Broken func(error)
	// Starved is told of a write that found no room for what raft cannot go on without, and reports whether to write again. nil: never.
	Starved func(error) bool
	// Log hears what the stores have to say; nil is silent.
	Log *slog.Logger
}

// Store is an open folder. Log and Stable are one raft-wal underneath.
type Store struct {
	Log       raft.LogStore
	Stable    raft.StableStore
	Snapshots raft.SnapshotStore
	close     func() error
}

// Open opens the folder dir, and makes it if there is none. Every entry of the log is
// read once, so that damage is found here and not in the middle of an election.
func Open(dir string, o Options) (*Store, error) {
	if o.SegmentSize == 0 {
		o.SegmentSize = 64 << 20
	}
	if o.Snapshots == 0 {
		o.Snapshots = 2
	}
	logDir := filepath.Join(dir, "log")
	if err := os.MkdirAll(logDir, 0o700); err != nil {
		return nil, fault.New(fault.Internal, "raft log: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	store, err := open(dir, logDir, o)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	closeStores := store.close
	store.close = func() error { return errors.Join(closeStores(), lock.Close()) }
	return store, nil
}

func open(dir, logDir string, o Options) (*Store, error) {
	logger := bridge(o.Log)
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(dir, o.Snapshots, logger)
	if err != nil {
		return nil, fault.New(fault.Internal, "raft snapshots in %s: %w", dir, err)
	}
	meta := &metadb.BoltMetaDB{} // ours, since raft-wal leaves it open and locked when it cannot open the log
	w, err := wal.Open(logDir, wal.WithMetaStore(lasting{meta, o.Starved}), wal.WithSegmentFiler(filer(logDir, o.Starved)),
		wal.WithSegmentSize(o.SegmentSize), wal.WithLogger(logger),
		wal.WithMetricsCollector(&metrics.NoOpCollector{}))
	if err != nil {
		return nil, errors.Join(damaged(logDir, err), meta.Close())
	}
	noted, err := openMark(filepath.Join(dir, "acknowledged"))
	if err != nil {
		return nil, errors.Join(err, w.Close(), meta.Close())
	}
	log := marked{checked{w, o.Stored, o.Broken, o.Starved}, noted}
	closeLog := func() error { return errors.Join(w.Close(), meta.Close(), noted.file.Close()) }
	if err := errors.Join(log.whole(), readAll(log.checked)); err != nil {
		return nil, errors.Join(damaged(logDir, err), closeLog())
	}
	return &Store{Log: log, Stable: w, Snapshots: snapshots, close: closeLog}, nil
}

// lockDir keeps other processes out. raft-wal would wait for them without end.
func lockDir(dir string) (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fault.New(fault.Internal, "raft log: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fault.New(fault.Unready, "raft log in %s: another process has it open; stop that process first", dir), lock.Close())
	}
	return lock, nil
}

// Close waits for running appends.
func (s *Store) Close() error {
	if err := s.close(); err != nil {
		return fault.New(fault.Internal, "close the raft log: %w", err)
	}
	return nil
}

// readAll checks every entry.
func readAll(log checked) error {
	first, err := log.FirstIndex()
	if err != nil {
		return err
	}
	last, err := log.LastIndex()
	if err != nil {
		return err
	}
	for i := first; first > 0 && i <= last; i++ {
		var entry raft.Log
		if err := log.GetLog(i, &entry); err != nil {
			return fault.New(fault.Internal, "entry %d of %d to %d: %w", i, first, last, err)
		}
	}
	return nil
}

// damaged says what to do about a log that cannot be read.
func damaged(dir string, err error) error {
	return fault.New(fault.Internal, "raft log in %s cannot be read: %w; if the other coordinators are well, remove this one from the cluster, "+
		"delete its data folder and join it again; if it is the only one, restore a backup", dir, err)
}

// bridge sends a store's messages to a slog logger.
func bridge(log *slog.Logger) hclog.Logger {
	if log == nil {
		return hclog.NewNullLogger()
	}
	return hclog.FromStandardLogger(slog.NewLogLogger(log.Handler(), slog.LevelInfo), &hclog.LoggerOptions{Level: hclog.Info})
}
