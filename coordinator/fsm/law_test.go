package fsm_test

import (
	"bytes"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/fsm"
	"github.com/clary-ml/clary/coordinator/state"
)

// copyOf is one replica without raft.
type copyOf struct {
	store *state.Store
	*fsm.FSM
}

func newCopy(t *rapid.T, path string) copyOf {
	store, err := state.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return copyOf{store, fsm.New(store, nil, func(err error) { t.Fatalf("broke: %v", err) })}
}

func (c copyOf) read(t *rapid.T) *state.Snapshot {
	snapshot, err := c.store.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	return snapshot
}

func (c copyOf) dump(t *rapid.T) string {
	snapshot := c.read(t)
	defer snapshot.Close()
	var text bytes.Buffer
	if err := snapshot.Dump(&text); err != nil {
		t.Fatal(err)
	}
	return text.String()
}

// through moves a copy's state into a new one by way of a raft snapshot.
func (c copyOf) through(t *rapid.T, path string) copyOf {
	snapshot, err := c.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer snapshot.Release()
	var sink memory
	if err := snapshot.Persist(&sink); err != nil {
		t.Fatal(err)
	}
	next := newCopy(t, path)
	if err := next.Restore(io.NopCloser(&sink.Buffer)); err != nil {
		t.Fatal(err)
	}
	return next
}

type memory struct{ bytes.Buffer }

func (*memory) ID() string    { return "memory" }
func (*memory) Close() error  { return nil }
func (*memory) Cancel() error { return nil }

// tally counts the answers to each type of command.
type tally map[string]int

func (y tally) count(c command.Command, result command.Result) {
	answer := "accepted"
	if result.Err != nil || len(result.Refused) > 0 {
		answer = "refused"
	}
	if plan, ok := c.(command.CommitPlan); ok && len(plan.Placements) == 0 {
		for _, e := range plan.Evictions[:min(1, len(plan.Evictions))] {
			what := "eviction "
			if e.For == e.Gang {
				what = "resize "
			}
			y[what+answer]++
		}
		return
	}
	y[fmt.Sprintf("%T %s", c, answer)]++
}

func TestReplicasOfOneLogAreEqualAndKeepTheLaws(t *testing.T) {
	exercised := equalReplicas(t, drawer.command)
	for _, c := range []command.Command{
		command.Record{},
		command.CommitPlan{},
		command.ReportTasks{},
		command.PutNode{},
		command.SetNodeState{},
		command.RemoveNode{},
		command.Publish{},
	} {
		for _, answer := range []string{"accepted", "refused"} {
			if what := fmt.Sprintf("%T %s", c, answer); exercised[what] == 0 {
				t.Errorf("%s: never", what)
			}
		}
	}
	t.Log(exercised)
}

func TestReplicasAgreeOnWhoMakesRoom(t *testing.T) {
	exercised := equalReplicas(t, drawer.crowd)
	for _, what := range []string{"eviction accepted", "eviction refused", "resize accepted", "resize refused"} {
		if exercised[what] == 0 {
			t.Errorf("%s: never", what)
		}
	}
	t.Log(exercised)
}

// equalReplicas applies commands that are drawn on two stores, one of them through a
// snapshot midway and in other batches, and counts what was exercised.
func equalReplicas(t *testing.T, draw func(drawer) command.Command) tally {
	exercised, dir, runs := tally{}, t.TempDir(), 0
	rapid.Check(t, func(t *rapid.T) {
		runs++
		path := func(name string) string { return filepath.Join(dir, fmt.Sprintf("%d-%s.db", runs, name)) }
		one, two := newCopy(t, path("one")), newCopy(t, path("two"))
		defer func() { _, _ = one.store.Close(), two.store.Close() }()
		entries := rapid.IntRange(10, 60).Draw(t, "entries")
		restoreAt := rapid.IntRange(0, entries-1).Draw(t, "restore at")
		var late []*raft.Log // what the second copy has still to apply
		for i := range entries {
			entry, commands := drawEntry(t, one, uint64(i+1), draw)
			late = append(late, entry)
			for j, result := range one.Apply(entry).([]command.Result) {
				exercised.count(commands[j], result)
				exercised.countSweeps(commands[j], result)
				exercised.countModels(commands[j], result)
				exercised.countEndpoints(commands[j], result)
			}
			checkLaws(t, one)
			if i == restoreAt || rapid.Bool().Draw(t, "catch up") {
				two.ApplyBatch(late)
				late = nil
			}
			if i == restoreAt {
				restored := two.through(t, path("restored"))
				_ = two.store.Close()
				two = restored
			}
		}
		two.ApplyBatch(late)
		if a, b := one.dump(t), two.dump(t); a != b {
			t.Fatalf("one replica has\n%s\nthe other\n%s", a, b)
		}
	})
	return exercised
}

func drawEntry(t *rapid.T, from copyOf, index uint64, draw func(drawer) command.Command) (*raft.Log, []command.Command) {
	snapshot := from.read(t)
	defer snapshot.Close()
	var commands []command.Command
	for range rapid.IntRange(1, 3).Draw(t, "commands") {
		commands = append(commands, draw(drawer{t, snapshot}))
	}
	raw, err := command.Encode(int64(index)*int64(time.Minute), commands...)
	if err != nil {
		t.Fatal(err)
	}
	return &raft.Log{Type: raft.LogCommand, Index: index, Data: raw}, commands
}

// checkLaws: usage is the sum of what unended tasks hold, nothing is held twice, and a
// gang has all of its tasks or none.
func checkLaws(t *rapid.T, c copyOf) {
	s := c.read(t)
	defer s.Close()
	checkSweeps(t, s)
	checkModels(t, s)
	checkEndpoints(t, s)
	checkQueues(t, s)
	used := map[string]cluster.Resources{}
	attempts := map[string]int{}
	for task := range s.Tasks() {
		attempts[fmt.Sprint(task.Gang, task.Attempt)]++
		if task.Status.State.Ended() {
			continue
		}
		held, sum := task.Allocation.Resources, used[task.Allocation.Node]
		sum.MilliCPU += held.MilliCPU
		sum.Memory += held.Memory
		sum.Devices = append(sum.Devices, held.Devices...)
		sum.Ports = append(sum.Ports, held.Ports...)
		used[task.Allocation.Node] = sum
	}
	for node, sum := range used {
		slices.Sort(sum.Devices)
		slices.Sort(sum.Ports)
		if len(slices.Compact(slices.Clone(sum.Devices))) != len(sum.Devices) || len(slices.Compact(slices.Clone(sum.Ports))) != len(sum.Ports) {
			t.Fatalf("node %s gave something twice: %+v", node, sum)
		}
	}
	for node := range s.Nodes() {
		if kept, sum := s.Used(node.ID), used[node.ID]; fmt.Sprint(kept) != fmt.Sprint(sum) {
			t.Fatalf("node %s: the ledger says %+v is used, its tasks hold %+v", node.ID, kept, sum)
		}
		on := 0
		for task := range s.TasksOn(node.ID) {
			on++
			if task.Allocation.Node != node.ID || task.Status.State.Ended() {
				t.Fatalf("the index has %s on %s: %+v", task.ID, node.ID, task)
			}
		}
	}
	for gang := range s.Gangs() {
		if gang.For != "" && (!gang.Stop || !gang.Moves) || len(gang.Resized) > cluster.MaxResizes {
			t.Fatalf("gang %s makes room for %q: %+v", gang.ID(), gang.For, gang)
		}
		if n := attempts[fmt.Sprint(gang.ID(), gang.Attempt)]; n != 0 && n != gang.Size() {
			t.Fatalf("gang %s has %d of %d tasks", gang.ID(), n, gang.Size())
		}
	}
}

func TestAnUndecodableEntryStopsTheReplicaAndChangesNothing(t *testing.T) {
	store, err := state.Open(filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	var told []error
	machine := fsm.New(store, nil, func(err error) { told = append(told, err) })
	good, err := command.Encode(1, command.PutNode{Node: cluster.Node{ID: "a", Address: "a"}})
	if err != nil {
		t.Fatal(err)
	}
	answers := machine.ApplyBatch([]*raft.Log{
		{Type: raft.LogCommand, Index: 1, Data: good},
		{Type: raft.LogCommand, Index: 2, Data: []byte("rubbish")},
	})
	if _, isError := answers[0].(error); !isError || len(told) != 1 {
		t.Fatalf("answers %v, told %v", answers, told)
	}
	if _, isError := machine.Apply(&raft.Log{Type: raft.LogCommand, Index: 3, Data: good}).(error); !isError || len(told) != 1 {
		t.Fatal("a broken replica went on")
	}
	if _, err := machine.Snapshot(); err == nil {
		t.Fatal("a broken replica gave a snapshot")
	}
	snapshot, err := store.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer snapshot.Close()
	if _, there := snapshot.Node("a"); there || snapshot.Index() != 0 {
		t.Fatalf("something of the entries stayed, at index %d", snapshot.Index())
	}
}
