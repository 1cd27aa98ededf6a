package raftlog

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	walfs "github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// A full disk is survived where raft and raft-wal would not: raft panics if it cannot store its term or vote, and raft-wal that has
// once failed to make its next file fails for ever. What these write is written again for as long as Options.Starved says so.

// again writes, and again while a full disk is why it could not.
func again(starved func(error) bool, write func() error) error {
	for {
		err := write()
		if err == nil || starved == nil || !starved(err) {
			return err
		}
	}
}

// roomy makes the log's files.
type roomy struct {
	*walfs.FS
	starved func(error) bool
}

// filer is raft-wal's own, with files that wait for room.
func filer(dir string, starved func(error) bool) *segment.Filer {
	return segment.NewFiler(dir, roomy{walfs.New(), starved})
}

// Create makes a file of some size. One that found no room leaves none.
func (r roomy) Create(dir, name string, size uint64) (file types.WritableFile, err error) {
	err = again(r.starved, func() error {
		if file, err = r.FS.Create(dir, name, size); err == nil || errors.Is(err, fs.ErrExist) {
			return err
		}
		return errors.Join(err, os.Remove(filepath.Join(dir, name)))
	})
	return file, err
}

// lasting keeps what raft-wal and raft must not forget beside the entries.
type lasting struct {
	types.MetaStore
	starved func(error) bool
}

// CommitState is of types.MetaStore.
func (l lasting) CommitState(state types.PersistentState) error {
	return again(l.starved, func() error { return l.MetaStore.CommitState(state) })
}

// SetStable is of types.MetaStore.
func (l lasting) SetStable(key, value []byte) error {
	return again(l.starved, func() error { return l.MetaStore.SetStable(key, value) })
}
