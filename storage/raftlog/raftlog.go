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
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metrics"
	"github.com/hashicorp/raft-wal/types"

	"github.com/clary-ml/clary/internal/fault"
)

// Options say how a folder is opened. The zero value is for production.
type Options struct {
	// SegmentSize is how many bytes each log file has from its start; 0 is 64 MiB.
	SegmentSize int
	// Snapshots is how many are kept; 0 is 2.
	Snapshots int
	// Log hears what the stores have to say; nil is silent.
	Log *slog.Logger
}

// Store is an open folder. Log and Stable are the same raft-wal.
type Store struct {
	Log       raft.LogStore
	Stable    raft.StableStore
	Snapshots raft.SnapshotStore
	wal       *wal.WAL
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
	logger := bridge(o.Log)
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(dir, o.Snapshots, logger)
	if err != nil {
		return nil, fault.New(fault.Internal, "raft snapshots in %s: %w", dir, err)
	}
	w, err := wal.Open(logDir, wal.WithSegmentSize(o.SegmentSize), wal.WithLogger(logger),
		wal.WithMetricsCollector(&metrics.NoOpCollector{}))
	if err != nil {
		return nil, damaged(logDir, err)
	}
	if err := readAll(w); err != nil {
		return nil, damaged(logDir, errors.Join(err, w.Close()))
	}
	return &Store{Log: w, Stable: w, Snapshots: snapshots, wal: w}, nil
}

// Close waits for running appends.
func (s *Store) Close() error {
	if err := s.wal.Close(); err != nil {
		return fault.New(fault.Internal, "close the raft log: %w", err)
	}
	return nil
}

// readAll decodes every entry, and checks that it is the one that its place says.
func readAll(w *wal.WAL) error {
	first, err := w.FirstIndex()
	if err != nil {
		return err
	}
	last, err := w.LastIndex()
	if err != nil {
		return err
	}
	for i := first; first > 0 && i <= last; i++ {
		var entry raft.Log
		if err := w.GetLog(i, &entry); err != nil {
			return fault.New(fault.Internal, "entry %d of %d to %d: %w", i, first, last, err)
		}
		if entry.Index != i {
			return fault.New(fault.Internal, "entry %d of %d to %d says that it is %d: %w", i, first, last, entry.Index, types.ErrCorrupt)
		}
	}
	return nil
}

// damaged says what to do about a log that cannot be read.
func damaged(dir string, err error) error {
	if strings.Contains(err.Error(), "timeout") {
		return fault.New(fault.Unready, "raft log in %s: another process has it open; stop that process first: %w", dir, err)
	}
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
