package fsm_test

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/fsm"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/smalldisk"
)

// scarce is a disk that is emptied when a write has failed so many times.
type scarce struct {
	tries, failed int
	free          func()
	fits          error
}

func (s *scarce) Starved(err error) bool {
	if !errors.Is(err, syscall.ENOSPC) || s.free == nil {
		return false
	}
	if s.failed++; s.failed == s.tries {
		s.free()
		s.free = nil
	}
	return true
}

func (s *scarce) Fits() error { return s.fits }

// What is applied while the disk is full is what would have been applied anywhere else.
func TestEntriesAreAppliedOnceTheDiskHasRoom(t *testing.T) {
	dir := smalldisk.Mount(t, 32<<20)
	store, err := state.Open(filepath.Join(dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	elsewhere, err := state.Open(filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer elsewhere.Close()
	room := &scarce{tries: 3}
	fatal := func(err error) { t.Fatalf("broke: %v", err) }
	machine, other := fsm.New(store, room, fatal), fsm.New(elsewhere, nil, fatal)
	waited := 0
	for i := range 20 {
		if i%5 == 4 {
			room.failed, room.free = 0, smalldisk.Fill(t, dir)
		}
		var commands []command.Command
		for j := range 50 { // more than the file's free pages
			job := cluster.Job{Name: fmt.Sprintf("job-%d-%d", i, j), Kind: "training", Owner: "ada", Queue: "default", State: cluster.JobQueued, Attempt: 1, Spec: make([]byte, 4000)}
			commands = append(commands, command.Record{Changes: []command.Change{{Job: &job}}})
		}
		raw, err := command.Encode(1, commands...)
		if err != nil {
			t.Fatal(err)
		}
		entry := []*raft.Log{{Type: raft.LogCommand, Index: uint64(i + 1), Data: raw}}
		if got, want := machine.ApplyBatch(entry), other.ApplyBatch(entry); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("answered %v, not %v", got, want)
		}
		waited += room.failed
		if room.free != nil {
			room.free()
			room.free = nil
		}
	}
	if waited < room.tries {
		t.Fatalf("the disk was never full: %d writes failed", waited)
	}
	if dump(t, store) != dump(t, elsewhere) {
		t.Error("the states differ")
	}
}

func TestNoSnapshotIsTakenThatDoesNotFit(t *testing.T) {
	store, err := state.Open(filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	room := &scarce{fits: errors.New("no room")}
	machine := fsm.New(store, room, func(err error) { t.Errorf("broke: %v", err) })
	if _, err := machine.Snapshot(); !errors.Is(err, room.fits) {
		t.Errorf("it is taken: %v", err)
	}
	room.fits = nil
	snapshot, err := machine.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	snapshot.Release()
}

func dump(t *testing.T, store *state.Store) string {
	t.Helper()
	snapshot, err := store.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer snapshot.Close()
	var text bytes.Buffer
	if err := snapshot.Dump(&text); err != nil {
		t.Fatal(err)
	}
	return text.String()
}
