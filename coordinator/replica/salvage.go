package replica

import (
	"errors"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"

	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/fsm"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/raftlog"
)

// Salvaged is what a replica that does not run had.
type Salvaged struct {
	State   *state.Store // to be closed
	Members []Member     // as its log names them last; nobody leads
	Last    uint64       // its newest entry, which may never have been committed
	At      time.Time    // the leader's clock when that was proposed; zero if no entry says so
}

// Salvage reads all that the folder of a replica has, into a new state at path. The folder is left as it is. What the others
// committed and this one did not get is missing, and what it got last need not have been committed.
func Salvage(dir, path string) (s Salvaged, err error) {
	if s.State, err = state.Open(path); err != nil {
		return s, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.State.Close())
		}
	}()
	files, err := raftlog.Open(filepath.Join(dir, "raft"), raftlog.Options{})
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, files.Close()) }()
	var broken error
	machine := fsm.New(s.State, nil, func(err error) { broken = err })
	members, from, err := newest(files.Snapshots, machine)
	if err != nil {
		return s, err
	}
	s.Last = from
	first, err := files.Log.FirstIndex()
	if err != nil {
		return s, err
	}
	last, err := files.Log.LastIndex()
	if err != nil {
		return s, err
	}
	if first > from+1 {
		return s, fault.New(fault.Internal, "the log begins at entry %d, and the newest snapshot is of entry %d: entries between them are lost", first, from)
	}
	for index := from + 1; index <= last; index++ {
		var entry raft.Log
		if err := files.Log.GetLog(index, &entry); err != nil {
			return s, err
		}
		if entry.Type == raft.LogConfiguration {
			members = raft.DecodeConfiguration(entry.Data)
		}
		machine.Apply(&entry)
		if broken != nil {
			return s, broken
		}
		s.Last = index
		if at := proposed(entry); !at.IsZero() {
			s.At = at
		}
	}
	for _, server := range members.Servers {
		s.Members = append(s.Members, Member{ID: string(server.ID), Address: string(server.Address), Voter: server.Suffrage == raft.Voter})
	}
	if len(s.Members) == 0 {
		return s, fault.New(fault.Invalid, "%s has no log of a cluster", dir)
	}
	return s, nil
}

// newest restores the newest snapshot that can be read, if there is any.
func newest(snapshots raft.SnapshotStore, machine *fsm.FSM) (members raft.Configuration, index uint64, err error) {
	list, err := snapshots.List()
	if err != nil {
		return members, 0, err
	}
	var failed error
	for _, one := range list {
		meta, from, err := snapshots.Open(one.ID)
		if err == nil {
			err = machine.Restore(from)
		}
		if err == nil {
			return meta.Configuration, meta.Index, nil
		}
		failed = errors.Join(failed, err)
	}
	if failed != nil {
		return members, 0, fault.New(fault.Internal, "no snapshot of the log can be read: %w", failed)
	}
	return members, 0, nil
}

// proposed is when the last command of an entry was proposed.
func proposed(entry raft.Log) (at time.Time) {
	if entry.Type != raft.LogCommand {
		return at
	}
	commands, err := command.Decode(entry.Data)
	if err != nil || len(commands) == 0 {
		return at
	}
	return time.Unix(0, commands[len(commands)-1].Now)
}
