package raftlog

import (
	"os"
	"testing"

	"github.com/hashicorp/raft"
)

func TestALogWhoseMarkCannotBeWrittenIsGivenUp(t *testing.T) {
	dir := t.TempDir()
	var told []error
	s, err := Open(dir, Options{Broken: func(err error) { told = append(told, err) }})
	if err != nil {
		t.Fatal(err)
	}
	entry := func(index uint64) []*raft.Log { return []*raft.Log{{Index: index, Term: 1, Data: []byte("x")}} }
	if err := s.Log.StoreLogs(entry(1)); err != nil || len(told) > 0 {
		t.Fatal(err, told)
	}
	log := s.Log.(marked)
	read, err := os.Open(log.mark.file.Name()) // as a disk that takes nothing more
	if err != nil {
		t.Fatal(err)
	}
	log.mark.file.Close()
	*log.mark.file = *read
	if err := s.Log.StoreLogs(entry(2)); err == nil || len(told) != 1 {
		t.Errorf("stored without a mark: %v, told %v", err, told)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(dir, Options{}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if last, err := s.Log.LastIndex(); err != nil || last != 2 {
		t.Errorf("opened anew it ends at %d: %v", last, err)
	}
	if err := s.Log.StoreLogs(entry(3)); err != nil {
		t.Errorf("it does not go on: %v", err)
	}
}
