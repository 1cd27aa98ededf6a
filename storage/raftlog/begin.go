package raftlog

import (
	"errors"
	"io"

	"github.com/hashicorp/raft"

	"github.com/clary-ml/clary/internal/fault"
)

// firstTerm is the term of a log that does not begin with an election. The first election's is the next.
const firstTerm = 1

// Begin makes an empty folder that of a cluster of one server, whose state is what write writes, as of a log entry. It is on the
// disk when Begin returns.
func (s *Store) Begin(server raft.Server, index uint64, write func(io.Writer) error) error {
	existing, err := raft.HasExistingState(s.Log, s.Stable, s.Snapshots)
	if err == nil && existing {
		err = errors.New("it is not empty")
	}
	if err != nil {
		return fault.New(fault.Conflict, "begin a raft log: %w", err)
	}
	server.Suffrage = raft.Voter
	_, encoder := raft.NewInmemTransport("") // which only writes addresses as texts
	defer encoder.Close()
	members := raft.Configuration{Servers: []raft.Server{server}}
	sink, err := s.Snapshots.Create(raft.SnapshotVersionMax, max(index, 1), firstTerm, members, 1, encoder)
	if err != nil {
		return fault.New(fault.Internal, "begin a raft log: %w", err)
	}
	if err := write(sink); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	if err := sink.Close(); err != nil {
		return fault.New(fault.Internal, "begin a raft log: %w", err)
	}
	if err := s.Stable.SetUint64([]byte("CurrentTerm"), firstTerm); err != nil {
		return fault.New(fault.Internal, "begin a raft log: %w", err)
	}
	return nil
}
