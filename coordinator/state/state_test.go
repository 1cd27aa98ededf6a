package state_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/kv"
)

func open(t *testing.T) *state.Store {
	t.Helper()
	s, err := state.Open(filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// do applies commands as one raft entry.
func do(t *testing.T, s *state.Store, index uint64, commands ...func(*state.Tx) error) []uint64 {
	t.Helper()
	var revisions []uint64
	err := s.Batch(func(w *state.Writer) error {
		w.SetIndex(index)
		for _, c := range commands {
			revision, _ := w.Do(c)
			revisions = append(revisions, revision)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return revisions
}

func putJob(name string) func(*state.Tx) error {
	return func(tx *state.Tx) error { tx.PutJob(cluster.Job{Name: name}); return nil }
}

func snapshot(t *testing.T, s *state.Store) *state.Snapshot {
	t.Helper()
	snap, err := s.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = snap.Close() })
	return snap
}

func names(s *state.Snapshot, after string) (list []string) {
	for job := range s.Jobs(after) {
		list = append(list, job.Name)
	}
	return list
}

func TestAStateIsBornWithTheDefaultQueueAndNothingElse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	for range 2 { // the second opening forgets the first
		s, err := state.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		snap := snapshot(t, s)
		if _, ok := snap.Queue(cluster.DefaultQueue); !ok || snap.Index() != 0 || len(names(snap, "")) != 0 {
			t.Errorf("default queue %v, index %d, jobs %v", ok, snap.Index(), names(snap, ""))
		}
		do(t, s, 5, putJob("a"))
		_ = s.Close()
	}
}

func TestRefusedAndEmptyCommandsTakeNoRevision(t *testing.T) {
	s := open(t)
	refuse := func(tx *state.Tx) error { tx.PutJob(cluster.Job{Name: "x"}); return errors.New("no") }
	unwritable := func(tx *state.Tx) error { tx.PutJob(cluster.Job{Name: "y", Owner: "\xff"}); return nil }
	nothing := func(*state.Tx) error { return nil }
	got := do(t, s, 9, putJob("a"), refuse, nothing, unwritable, putJob("b"))
	if want := []uint64{2, 0, 2, 0, 3}; !slices.Equal(got, want) {
		t.Errorf("revisions %v; want %v", got, want)
	}
	snap := snapshot(t, s)
	if got := names(snap, ""); !slices.Equal(got, []string{"a", "b"}) || snap.Revision() != 3 || snap.Index() != 9 {
		t.Errorf("jobs %v at revision %d, index %d", got, snap.Revision(), snap.Index())
	}
}

func TestAPageOfJobsBeginsAfterTheLast(t *testing.T) {
	s := open(t)
	do(t, s, 1, putJob("a"), putJob("a-b"), putJob("ab"), putJob("b"))
	snap := snapshot(t, s)
	for after, want := range map[string]string{"": "a a-b ab b", "a": "a-b ab b", "aa": "ab b", "b": ""} {
		if got := strings.Join(names(snap, after), " "); got != want {
			t.Errorf("after %q come %q; want %q", after, got, want)
		}
	}
	do(t, s, 2, func(tx *state.Tx) error { // a command's own writes are paged alike
		tx.PutJob(cluster.Job{Name: "aa"})
		var got []string
		for job := range tx.Jobs("a-b") {
			got = append(got, job.Name)
		}
		if want := []string{"aa", "ab", "b"}; !slices.Equal(got, want) {
			t.Errorf("a command sees %v; want %v", got, want)
		}
		return nil
	})
}

func TestNothingIsSoldTwiceAndNothingEndsUnfinished(t *testing.T) {
	s := open(t)
	task := func(id string, port int32, is cluster.TaskState) cluster.Task {
		return cluster.Task{
			ID: id, Allocation: cluster.Allocation{Node: "a", Resources: cluster.Resources{Ports: []int32{port}}},
			Status: cluster.TaskStatus{State: is},
		}
	}
	panics := func(what string, fn func(*state.Tx)) {
		defer func() {
			if recover() == nil {
				t.Errorf("%s: no panic", what)
			}
		}()
		_ = s.Batch(func(w *state.Writer) error {
			_, err := w.Do(func(tx *state.Tx) error { fn(tx); return nil })
			return err
		})
	}
	do(t, s, 1, func(tx *state.Tx) error { tx.PutTask(task("t1", 5, cluster.TaskRunning)); return nil })
	panics("the same port", func(tx *state.Tx) { tx.PutTask(task("t2", 5, cluster.TaskRunning)) })
	panics("deleting a running task", func(tx *state.Tx) { tx.DeleteTask("t1") })
	do(t, s, 2, func(tx *state.Tx) error { tx.PutTask(task("t2", 6, cluster.TaskRunning)); return nil })
	if used := snapshot(t, s).Used("a"); !slices.Equal(used.Ports, []int32{5, 6}) {
		t.Errorf("ports %v; want 5 and 6: the panics must leave no trace", used.Ports)
	}
}

func TestEventsComeInOrderAfterTheyCanBeRead(t *testing.T) {
	s := open(t)
	jobs := s.Events().Subscribe(func(c state.Change) bool { return c.Kind == state.KindJob })
	do(t, s, 1, putJob("a"), func(tx *state.Tx) error { tx.PutQueue(cluster.Queue{Name: "q"}); return nil })
	do(t, s, 2, func(tx *state.Tx) error { tx.DeleteJob("a"); return errors.New("no") })
	do(t, s, 3, func(tx *state.Tx) error { tx.DeleteJob("a"); return nil })
	want := []state.Batch{
		{Changes: []state.Change{{Kind: state.KindJob, ID: "a", Revision: 2}}},
		{Changes: []state.Change{{Kind: state.KindJob, ID: "a", Revision: 4, Deleted: true}}},
	}
	for _, w := range want {
		if got := <-jobs.C; fmt.Sprint(got) != fmt.Sprint(w) {
			t.Errorf("got %v; want %v", got, w)
		}
	}
	jobs.Close()
	jobs.Close()
	if _, open := <-jobs.C; open {
		t.Error("a closed subscription has something")
	}
}

func TestASlowSubscriberIsToldThatItLostSomething(t *testing.T) {
	s := open(t)
	slow := s.Events().Subscribe(nil)
	const written = 1000
	for i := range written {
		do(t, s, uint64(i+1), putJob(fmt.Sprintf("j%04d", i)))
	}
	seen, lost := map[string]bool{}, 0
	for len(slow.C) > 0 {
		batch := <-slow.C
		for _, change := range batch.Changes {
			seen[change.ID] = true
		}
		if batch.Lost {
			lost++
			for _, name := range names(snapshot(t, s), "") {
				seen[name] = true
			}
		}
	}
	if lost == 0 || len(seen) != written {
		t.Errorf("told of a loss %d times, knows %d of %d", lost, len(seen), written)
	}
	do(t, s, written+1, putJob("last"))
	if batch := <-slow.C; batch.Lost || batch.Changes[0].ID != "last" {
		t.Errorf("after catching up it got %v", batch)
	}
}

func TestARestoreReplacesTheStateAndTellsSubscribers(t *testing.T) {
	from, to := open(t), open(t)
	do(t, from, 7, putJob("a"))
	do(t, to, 1, putJob("b"))
	events, held := to.Events().Subscribe(nil), snapshot(t, to)
	var backup bytes.Buffer
	if _, err := snapshot(t, from).Backup(&backup); err != nil {
		t.Fatal(err)
	}
	if err := to.Restore(bytes.NewReader(backup.Bytes()[:backup.Len()/2])); err == nil {
		t.Error("half a backup was restored")
	}
	if err := to.Restore(&backup); err != nil {
		t.Fatal(err)
	}
	if got := names(snapshot(t, to), ""); !slices.Equal(got, []string{"a"}) || to.Index() != 7 {
		t.Errorf("jobs %v at index %d", got, to.Index())
	}
	if got := names(held, ""); !slices.Equal(got, []string{"b"}) {
		t.Errorf("a snapshot changed to %v", got)
	}
	if batch := <-events.C; !batch.Lost {
		t.Errorf("subscribers were told %v", batch)
	}
}

func TestWaitReturnsWithTheIndexTheContextOrTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := state.Open(filepath.Join(t.TempDir(), "state.db"))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		reached, cancelled, closed := make(chan error, 1), make(chan error, 1), make(chan error, 1)
		go func() { reached <- s.Wait(t.Context(), 2) }()
		go func() { cancelled <- s.Wait(ctx, 3) }()
		go func() { closed <- s.Wait(t.Context(), 3) }()
		do(t, s, 1, putJob("a"))
		synctest.Wait()
		if len(reached) != 0 {
			t.Error("returned before the index")
		}
		do(t, s, 2, putJob("b"))
		if err := <-reached; err != nil {
			t.Error(err)
		}
		cancel()
		if err := <-cancelled; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		events := s.Events().Subscribe(nil)
		_ = s.Close()
		if err := <-closed; !fault.Is(err, fault.Unready) {
			t.Error(err)
		}
		if _, open := <-events.C; open {
			t.Error("a subscription outlived its store")
		}
		if _, open := <-s.Events().Subscribe(nil).C; open {
			t.Error("a closed store took a subscription")
		}
	})
}

// A version that knows no crowd may have applied what is in a backup: who has how many jobs is counted anew.
func TestARestoreCountsTheJobsOfEachOwnerAnew(t *testing.T) {
	from, to := open(t), open(t)
	put := func(name, owner string, is cluster.JobState) func(*state.Tx) error {
		return func(tx *state.Tx) error {
			tx.PutJob(cluster.Job{Name: name, Owner: owner, Queue: cluster.DefaultQueue, State: is})
			return nil
		}
	}
	do(t, from, 1, put("a", "ada", cluster.JobQueued), put("b", "ada", cluster.JobRunning), put("c", "bob", cluster.JobQueued), put("d", "bob", cluster.JobFailed))
	do(t, to, 1, put("x", "eve", cluster.JobQueued))
	var backup, before, after bytes.Buffer
	snap := snapshot(t, from)
	if _, err := snap.Backup(&backup); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(to.Restore(older(t, &backup)), snap.Dump(&before), snapshot(t, to).Dump(&after)); err != nil {
		t.Fatal(err)
	}
	if before.String() != after.String() {
		t.Error("the restored state is another")
	}
	for owner, want := range map[string][2]int64{"ada": {2, 1}, "bob": {1, 1}, "eve": {0, 0}, "": {3, 2}} {
		if unended, waiting := snapshot(t, to).Crowd(owner); unended != want[0] || waiting != want[1] {
			t.Errorf("%q has %d jobs, %d wait; not %v", owner, unended, waiting, want)
		}
	}
	do(t, to, 2, func(tx *state.Tx) error { tx.DeleteJob("a"); return nil })
	if unended, waiting := snapshot(t, to).Crowd("ada"); unended != 1 || waiting != 0 {
		t.Errorf("after one went there are %d jobs, %d wait", unended, waiting)
	}
}

// older is a backup as a version writes it that knows no crowd.
func older(t *testing.T, backup io.Reader) io.Reader {
	t.Helper()
	db, err := kv.Open(filepath.Join(t.TempDir(), "older.db"), kv.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	err = errors.Join(db.Restore(backup), db.Update(func(tx *kv.Tx) error {
		crowd := kv.Bucket[struct{}]{Name: "crowd"}
		for _, key := range []string{"all", "of/ada", "of/bob"} {
			if !crowd.Has(tx, key) {
				t.Errorf("there is no row %q of the crowd", key)
			}
			crowd.Delete(tx, key)
		}
		return nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	from, err := db.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = from.Close() }()
	var made bytes.Buffer
	if _, err := from.Backup(&made); err != nil {
		t.Fatal(err)
	}
	return &made
}
