package raftlog_test

import (
	"errors"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/clary-ml/clary/internal/smalldisk"
	"github.com/clary-ml/clary/storage/raftlog"
)

// On a full disk the log goes on in the file that it has, waits for room for the next one, and loses nothing; a term that must
// be stored is, once there is room.
func TestALogOnAFullDiskWaitsForRoomAndLosesNothing(t *testing.T) {
	dir := smalldisk.Mount(t, 1<<20)
	var free func()
	var waited, broke atomic.Int32
	var starved func(error) bool
	o := options
	o.Starved = func(err error) bool { return starved(err) }
	o.Broken = func(error) { broke.Add(1) }
	s, err := raftlog.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, s, 1, 10)
	free = smalldisk.Fill(t, dir)
	starved = func(err error) bool {
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("it waits for room after %v", err)
			return false
		}
		switch waited.Add(1) {
		case 3:
			free()
		case 4:
			t.Error("there is room, and it waits")
		}
		return true
	}
	for i := uint64(11); i <= 300; i++ { // several files
		entry := &raft.Log{Index: i, Term: 1 + i/100, Type: raft.LogCommand, Data: data(i)}
		for err := s.Log.StoreLog(entry); err != nil; err = s.Log.StoreLog(entry) { // as raft does
			if !errors.Is(err, syscall.ENOSPC) || waited.Load() >= 3 {
				t.Fatalf("entry %d: %v", i, err)
			}
		}
	}
	if waited.Load() != 3 || broke.Load() != 0 {
		t.Errorf("it waited %d times, and broke %d times", waited.Load(), broke.Load())
	}
	free = smalldisk.Fill(t, dir)
	waited.Store(0)
	if err := s.Log.DeleteRange(200, 300); err != nil { // makes a file, too
		t.Error(err)
	}
	if err := s.Stable.SetUint64([]byte("CurrentTerm"), 7); err != nil {
		t.Error(err)
	}
	if waited.Load() != 3 || broke.Load() != 0 {
		t.Errorf("cutting it waited %d times, and broke %d times", waited.Load(), broke.Load())
	}
	fill(t, s, 200, 250)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	defer s.Close()
	last, err := s.Log.LastIndex()
	term, err2 := s.Stable.GetUint64([]byte("CurrentTerm"))
	if last != 250 || term != 7 || err != nil || err2 != nil {
		t.Errorf("opened again it ends at %d, term %d: %v, %v", last, term, err, err2)
	}
	for i := uint64(1); i <= last; i++ {
		var entry raft.Log
		if err := s.Log.GetLog(i, &entry); err != nil {
			t.Fatal(err)
		}
	}
}

func TestALogThatMayNotWaitForRoomIsBrokenByAFullDisk(t *testing.T) {
	dir := smalldisk.Mount(t, 1<<20)
	var broke atomic.Int32
	o := options
	o.Starved = func(error) bool { return false }
	o.Broken = func(error) { broke.Add(1) }
	s, err := raftlog.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	fill(t, s, 1, 10)
	smalldisk.Fill(t, dir)
	if err := s.Log.DeleteRange(5, 10); err == nil || broke.Load() != 1 {
		t.Errorf("cutting it: %v, broke %d times", err, broke.Load())
	}
}
