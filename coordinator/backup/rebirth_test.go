package backup_test

import (
	"bytes"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/backup"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/workload"
)

// former is the state of a cluster that is to be restored.
type former struct {
	*testing.T
	store *state.Store
}

func newFormer(t *testing.T) *former {
	t.Helper()
	store, err := state.Open(filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	f := &former{t, store}
	for _, id := range []string{"n1", "n2"} {
		f.must(command.PutNode{Node: cluster.Node{ID: id, Address: id, MilliCPU: 64_000, Memory: 64 << 30}})
	}
	f.must(command.SetNodeState{Node: "n2", State: cluster.NodeLost, Reason: "fire"})
	return f
}

func (f *former) must(c command.Command) {
	f.Helper()
	err := f.store.Batch(func(w *state.Writer) error {
		w.SetIndex(77)
		result := command.Run(w, c, time.Unix(1000, 0).UnixNano())
		for _, refused := range result.Refused {
			f.Fatal(refused)
		}
		return result.Err
	})
	if err != nil {
		f.Fatalf("%T: %v", c, err)
	}
}

func (f *former) read() *state.Snapshot {
	f.Helper()
	snapshot, err := f.store.Snapshot()
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = snapshot.Close() })
	return snapshot
}

// job makes a job in a state, with one gang of one task. service gives it a role that runs for the other.
func (f *former) job(name string, kind cluster.Kind, st cluster.JobState, service bool) {
	f.Helper()
	job := cluster.Job{Name: name, Kind: kind, Queue: cluster.DefaultQueue, Owner: "ada", Submitted: 1, State: cluster.JobQueued, Attempt: 1, Spec: []byte("{}")}
	ask := cluster.Ask{MilliCPU: 1000, Memory: 1 << 20}
	roles := []cluster.Role{{Name: "worker", Count: 1, Ask: ask, Program: cluster.Program{Command: []string{"true"}}}}
	if service {
		roles = append(roles, cluster.Role{Name: "server", Count: 1, Ask: ask, Program: cluster.Program{Command: []string{"true"}, Service: true}})
	}
	gang := cluster.Gang{Job: name, Name: workload.MainGang, Queue: cluster.DefaultQueue, Owner: "ada", Attempt: 1, Submitted: 1, Roles: roles}
	f.must(command.Record{Changes: []command.Change{{Job: &job}, {Gang: &gang}}})
	if job.State = st; st != cluster.JobQueued {
		job, _ = f.read().Job(name)
		job.State = st
		f.must(command.Record{Changes: []command.Change{{Job: &job, Expect: job.Revision}}})
	}
}

// place gives the tasks of a job's gang a place on n1.
func (f *former) place(name string) {
	f.Helper()
	gang, _ := f.read().Gang(name + "/main")
	p := cluster.Placement{Gang: gang.ID(), Attempt: gang.Attempt, Revision: gang.Revision}
	for range gang.Roles {
		p.Allocations = append(p.Allocations, cluster.Allocation{Node: "n1", Resources: cluster.Resources{MilliCPU: 1000, Memory: 1 << 20}})
	}
	f.must(command.CommitPlan{Placements: []cluster.Placement{p}})
}

func (f *former) report(name, role string, states ...cluster.TaskState) {
	f.Helper()
	for _, st := range states {
		task := fmt.Sprintf("%s/main/%s-0.1", name, role)
		f.must(command.ReportTasks{Node: "n1", Reports: []command.TaskReport{{Task: task, Status: cluster.TaskStatus{State: st}}}})
	}
}

func (f *former) rebirth() backup.Rebirth {
	return backup.Rebirth{Of: header(), Life: "0000000001-x", By: "ada", Now: time.Unix(2000, 0), Random: "abcdef"}
}

func TestWhatHadNotEndedBeginsAgainFarBeyondAllThatWasBegun(t *testing.T) {
	f := newFormer(t)
	run := []cluster.TaskState{cluster.TaskStaging, cluster.TaskRunning}
	train := cluster.KindTraining
	f.job("waits", train, cluster.JobQueued, false)
	f.job("runs", train, cluster.JobRunning, false)
	f.place("runs")
	f.report("runs", "worker", run...)
	f.job("broke", train, cluster.JobRunning, false)
	f.place("broke")
	f.report("broke", "worker", append(run, cluster.TaskFailed)...)
	f.job("done", train, cluster.JobRunning, false)
	f.place("done")
	f.report("done", "worker", append(run, cluster.TaskUploading, cluster.TaskSucceeded)...)
	f.job("served", train, cluster.JobRunning, true)
	f.place("served")
	f.report("served", "worker", append(run, cluster.TaskUploading, cluster.TaskSucceeded)...)
	f.job("stops", train, cluster.JobStopping, false)
	f.job("over", train, cluster.JobCancelled, false)
	told, err := f.rebirth().Begin(f.store)
	if err != nil || told.Again != 3 || told.Nodes != 2 {
		t.Fatalf("%+v, %v", told, err)
	}
	now := f.read()
	for name, c := range map[string]struct {
		attempt int32
		state   cluster.JobState
	}{
		"waits":  {10_001, cluster.JobQueued},
		"runs":   {10_001, cluster.JobQueued},
		"broke":  {10_001, cluster.JobQueued}, // a retry that may have been begun
		"done":   {1, cluster.JobRunning},
		"served": {1, cluster.JobRunning},
		"stops":  {1, cluster.JobStopping},
		"over":   {1, cluster.JobCancelled},
	} {
		gang, _ := now.Gang(name + "/main")
		job, _ := now.Job(name)
		if gang.Attempt != c.attempt || job.Attempt != c.attempt || job.State != c.state {
			t.Errorf("%s: attempts %d and %d, it is %s", name, gang.Attempt, job.Attempt, job.State)
		}
	}
	for task := range now.Tasks() {
		if !task.Status.State.Ended() {
			t.Errorf("task %s is %s", task.ID, task.Status.State)
		}
	}
	for _, node := range []string{"n1", "n2"} {
		at, _ := now.Node(node)
		if used := now.Used(node); at.State != cluster.NodeLost || used.MilliCPU != 0 || used.Memory != 0 {
			t.Errorf("node %s is %s, used %+v", node, at.State, used)
		}
	}
	if now.Index() != 77 {
		t.Errorf("the state is of entry %d", now.Index())
	}
	f.goesOn()
}

// goesOn checks that the state is one that commands go on from: what waits can be placed.
func (f *former) goesOn() {
	f.Helper()
	f.must(command.PutNode{Node: cluster.Node{ID: "n1", Address: "n1", MilliCPU: 64_000, Memory: 64 << 30}})
	for _, name := range []string{"waits", "runs", "broke"} {
		f.place(name)
		if task, ok := f.read().Task(name + "/main/worker-0.10001"); !ok || task.Allocation.Node != "n1" {
			f.Errorf("%s is not placed: %+v", name, task)
		}
	}
}

func TestAReplicaThatWasOneTooManyDoesNotComeBack(t *testing.T) {
	f := newFormer(t)
	for _, name := range []string{"leaves", "moves"} {
		f.job(name, cluster.KindTraining, cluster.JobRunning, false)
		f.place(name)
		gang, _ := f.read().Gang(name + "/main")
		gang.Stop, gang.StopReason, gang.Moves = true, "scaled in", name == "moves"
		job, _ := f.read().Job(name)
		job.Kind = cluster.KindEndpoint
		err := f.store.Batch(func(w *state.Writer) error {
			_, err := w.Do(func(tx *state.Tx) error { tx.PutJob(job); tx.PutGang(gang); return nil })
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.rebirth().Begin(f.store); err != nil {
		t.Fatal(err)
	}
	leaves, _ := f.read().Gang("leaves/main")
	moves, _ := f.read().Gang("moves/main")
	if !leaves.Stop || leaves.Attempt != 1 || moves.Stop || moves.Attempt != 10_001 {
		t.Errorf("%+v\n%+v", leaves, moves)
	}
}

func TestNobodyJoinsWithATokenOfBeforeAndUsersKeepTheirs(t *testing.T) {
	f := newFormer(t)
	hash := bytes.Repeat([]byte{1}, 32)
	for _, token := range []cluster.Token{
		{ID: "user", Kind: cluster.TokenUser, Name: "ada", Role: cluster.RoleAdmin, Hash: hash},
		{ID: "unused", Kind: cluster.TokenJoin, Role: cluster.RoleAgent, Hash: hash},
		{ID: "bound", Kind: cluster.TokenJoin, Name: "b", Role: cluster.RoleCoordinator, Hash: hash, BoundKey: "sha256:k"},
	} {
		f.must(command.Record{Changes: []command.Change{{Token: &token}}})
	}
	told, err := f.rebirth().Begin(f.store)
	if err != nil || told.Tokens != 2 {
		t.Fatalf("%+v, %v", told, err)
	}
	for id, revoked := range map[string]bool{"user": false, "unused": true, "bound": true} {
		if token, ok := f.read().Token(id); !ok || token.Revoked != revoked {
			t.Errorf("token %s: %+v", id, token)
		}
	}
	var deeds []string
	for deed := range f.read().Deeds("") {
		deeds = append(deeds, deed.User+" "+deed.Action+": "+deed.Detail)
	}
	if len(deeds) != 1 || !strings.HasPrefix(deeds[0], "ada cluster/restore: a snapshot of 2001-09-09") {
		t.Errorf("the audit has %q", deeds)
	}
}

func FuzzASnapshotIsReadWholeOrNotAtAll(f *testing.F) {
	var file bytes.Buffer
	if err := backup.WriteSnapshot(&file, header(), func(w io.Writer) error { _, err := w.Write(state500); return err }); err != nil {
		f.Fatal(err)
	}
	f.Add(file.Bytes())
	f.Add([]byte("clary snapshot 1\n{}\n"))
	f.Add([]byte("age-encryption.org/v1\n"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, given []byte) {
		handed := false
		var got []byte
		_, err := backup.ReadSnapshot(bytes.NewReader(given), dir, func(_ backup.Header, body io.Reader) error {
			handed = true
			var err error
			got, err = io.ReadAll(body)
			return err
		})
		if err == nil && !handed || handed && err == nil && bytes.Equal(given, file.Bytes()) && !bytes.Equal(got, state500) {
			t.Errorf("read %v, %d bytes: %v", handed, len(got), err)
		}
	})
}

var state500 = bytes.Repeat([]byte("agreed "), 70)
