package raftlog_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/raftlog"
)

var options = raftlog.Options{SegmentSize: 64 << 10}

func open(t *testing.T, dir string) *raftlog.Store {
	t.Helper()
	s, err := raftlog.Open(dir, options)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func data(i uint64) []byte { return bytes.Repeat([]byte(fmt.Sprintf("entry-%06d ", i)), 40) }

func fill(t *testing.T, s *raftlog.Store, from, to uint64) {
	t.Helper()
	for i := from; i <= to; i++ {
		if err := s.Log.StoreLog(&raft.Log{Index: i, Term: 1 + i/100, Type: raft.LogCommand, Data: data(i)}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestEntriesTermAndVoteSurviveReopening(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	fill(t, s, 1, 300) // several segments
	if err := errors.Join(s.Stable.SetUint64([]byte("CurrentTerm"), 7), s.Stable.Set([]byte("LastVoteCand"), []byte("c2"))); err != nil {
		t.Fatal(err)
	}
	if err := s.Log.DeleteRange(1, 50); err != nil {
		t.Fatal(err)
	}
	if err := s.Log.DeleteRange(291, 300); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	defer s.Close()
	if _, err := raftlog.Open(dir, options); !fault.Is(err, fault.Unready) { // another process, say
		t.Errorf("opened twice: %v, want Unready", err)
	}
	first, _ := s.Log.FirstIndex()
	last, _ := s.Log.LastIndex()
	if first != 51 || last != 290 {
		t.Errorf("the log has %d to %d, want 51 to 290", first, last)
	}
	for i := first; i <= last; i++ {
		var got raft.Log
		if err := s.Log.GetLog(i, &got); err != nil || got.Index != i || got.Term != 1+i/100 || !bytes.Equal(got.Data, data(i)) {
			t.Fatalf("entry %d is %d of term %d, %v", i, got.Index, got.Term, err)
		}
	}
	term, err := s.Stable.GetUint64([]byte("CurrentTerm"))
	vote, err2 := s.Stable.Get([]byte("LastVoteCand"))
	if term != 7 || string(vote) != "c2" || err != nil || err2 != nil {
		t.Errorf("term %d, vote %q, %v, %v; want 7 and c2", term, vote, err, err2)
	}
	fill(t, s, 291, 295)
}

// A segment that could not be made, as on a full disk, leaves a file in the way of the next try.
func TestALogThatCannotBeCutSaysSoAndIsWellWhenItIsOpenedAnew(t *testing.T) {
	dir := t.TempDir()
	var told []error
	with := options
	with.Broken = func(err error) { told = append(told, err) }
	s, err := raftlog.Open(dir, with)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, s, 1, 20) // within the first segment
	const cut = 11
	next := filepath.Join(dir, "log", fmt.Sprintf("%020d-%016x.wal", cut, 1))
	if err := os.WriteFile(next, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Log.DeleteRange(cut, 20); err == nil || len(told) != 1 || !errors.Is(told[0], os.ErrExist) {
		names, _ := filepath.Glob(dir + "/log/*")
		t.Fatalf("cut where a file is in the way: %v, told %v; there are %q", err, told, names)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	defer s.Close()
	last, err := s.Log.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	if last >= cut { // whoever leads cuts it again
		if err := s.Log.DeleteRange(cut, last); err != nil {
			t.Fatal(err)
		}
	}
	fill(t, s, cut, 30)
	for i := uint64(1); i <= 30; i++ {
		var got raft.Log
		if err := s.Log.GetLog(i, &got); err != nil || !bytes.Equal(got.Data, data(i)) {
			t.Fatalf("entry %d: %v", i, err)
		}
	}
}

// TestWhatIsAcknowledgedIsOnDisk opens a copy of the folder as a crash would leave it:
// nothing was closed.
func TestWhatIsAcknowledgedIsOnDisk(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	defer s.Close()
	fill(t, s, 1, 30)
	if err := s.Stable.SetUint64([]byte("CurrentTerm"), 9); err != nil {
		t.Fatal(err)
	}
	crashed := t.TempDir()
	if err := os.CopyFS(filepath.Join(crashed, "copy"), os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	again := open(t, filepath.Join(crashed, "copy"))
	defer again.Close()
	last, _ := again.Log.LastIndex()
	term, _ := again.Stable.GetUint64([]byte("CurrentTerm"))
	if last != 30 || term != 9 {
		t.Errorf("the copy has entries to %d and term %d, want 30 and 9", last, term)
	}
}

func TestADamagedLogIsNeverReadAsSomethingElse(t *testing.T) {
	whole := t.TempDir()
	s := open(t, whole)
	fill(t, s, 1, 300)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	segments, err := filepath.Glob(filepath.Join(whole, "log", "*.wal"))
	if err != nil || len(segments) < 3 {
		t.Fatalf("%d segments, %v: want several", len(segments), err)
	}
	sealed, tail := filepath.Base(segments[0]), filepath.Base(segments[len(segments)-1])
	var refused, shortened int
	for _, c := range []struct {
		name, file string
		damage     func(b []byte) []byte
	}{
		{"tail cut", tail, func(b []byte) []byte { return b[:len(b)/8] }},
		{"tail byte flipped", tail, func(b []byte) []byte { b[200] ^= 0xff; return b }},
		{"tail frame header flipped", tail, func(b []byte) []byte { b[32] ^= 0xff; return b }},
		{"tail emptied", tail, func(b []byte) []byte { return nil }},
		{"sealed segment cut", sealed, func(b []byte) []byte { return b[:len(b)/2] }},
		{"sealed segment removed", sealed, nil},
		{"sealed entry flipped", sealed, func(b []byte) []byte { b[2000] ^= 1; return b }},
		{"sealed header flipped", sealed, func(b []byte) []byte { b[8] ^= 0xff; return b }},
	} {
		dir := filepath.Join(t.TempDir(), "copy")
		if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, "log", c.file)
		if c.damage == nil {
			err = os.Remove(file)
		} else if content, readErr := os.ReadFile(file); readErr == nil {
			err = os.WriteFile(file, c.damage(content), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		s, err := raftlog.Open(dir, options)
		if err != nil {
			refused++
			_ = os.Remove(filepath.Join(dir, "acknowledged")) // as a power cut may leave it
			if s, err := raftlog.Open(dir, options); err == nil {
				shortened++
				shorter(t, c.name, s)
			}
			if !fault.Is(err, fault.Internal) || !bytes.Contains([]byte(err.Error()), []byte("join it again")) {
				t.Errorf("%s: %v: want a remedy", c.name, err)
			}
			continue
		}
		s.Close()
		t.Errorf("%s: not noticed", c.name)
	}
	t.Logf("%d refused; without the mark %d of them would be opened shorter", refused, shortened)
	if refused == 0 || shortened == 0 {
		t.Errorf("%d refused, %d shortened: want some of both", refused, shortened)
	}
}

// shorter sees that a log that lost its end, and the mark that would tell, shows at least nothing wrong.
func shorter(t *testing.T, name string, s *raftlog.Store) {
	t.Helper()
	defer s.Close()
	last, _ := s.Log.LastIndex()
	if last >= 300 {
		t.Errorf("%s: not noticed", name)
	}
	for i := uint64(1); i <= last; i++ {
		var got raft.Log
		if err := s.Log.GetLog(i, &got); err != nil || !bytes.Equal(got.Data, data(i)) {
			t.Errorf("%s: entry %d is wrong, %v", name, i, err)
		}
	}
}

// TestALogThatRaftShortensIsWhole: what is deleted on purpose is not missed, nor is what a crash kept from being
// acknowledged.
func TestALogThatRaftShortensIsWhole(t *testing.T) {
	for name, c := range map[string]struct{ first, last, then uint64 }{
		"its end":           {80, 100, 0},
		"its beginning":     {1, 50, 0},
		"all of it":         {1, 100, 0},
		"its end, and more": {80, 100, 90},
	} {
		dir := t.TempDir()
		s := open(t, dir)
		fill(t, s, 1, 100)
		if err := s.Log.DeleteRange(c.first, c.last); err != nil {
			t.Fatal(err)
		}
		if c.then != 0 {
			fill(t, s, c.first, c.then)
		}
		want, _ := s.Log.LastIndex()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s, err := raftlog.Open(dir, options)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if last, _ := s.Log.LastIndex(); last != want {
			t.Errorf("%s: ends at %d, want %d", name, last, want)
		}
		_ = s.Close()
	}
	for name, text := range map[string]string{"empty": "", "cut off": "half", "rubbish": "0123456789ab"} {
		dir := t.TempDir()
		s := open(t, dir)
		fill(t, s, 1, 10)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "acknowledged"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := raftlog.Open(dir, options)
		if err != nil {
			t.Errorf("a mark that is %s: %v", name, err)
			continue
		}
		_ = s.Close()
	}
}

func TestASnapshotIsReadBackOrRefused(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	defer s.Close()
	sink, err := s.Snapshots.Create(raft.SnapshotVersionMax, 10, 2, raft.Configuration{}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sink.Write([]byte("the state")); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	list, err := s.Snapshots.List()
	if err != nil || len(list) != 1 || list[0].Index != 10 {
		t.Fatalf("%+v, %v", list, err)
	}
	_, body, err := s.Snapshots.Open(list[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	content, _ := io.ReadAll(body)
	body.Close()
	if string(content) != "the state" {
		t.Errorf("read %q", content)
	}
	if err := os.WriteFile(filepath.Join(dir, "snapshots", list[0].ID, "state.bin"), []byte("the stale"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Snapshots.Open(list[0].ID); err == nil {
		t.Error("a changed snapshot was accepted")
	}
}
