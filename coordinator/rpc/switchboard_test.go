package rpc

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/solo"
	"github.com/clary-ml/clary/coordinator/state"
)

// crowd is three nodes, each with a director that hears of everything, and one that hears through
// a switchboard.
type crowd struct {
	*rapid.T
	*solo.Ledger
	events *state.Subscription
	board  *Switchboard
	nodes  []string
	all    map[string]*director
	few    map[string]*director
	lines  map[string]*line

	told, passed, heard int // words that were told, changes that were passed on, and that there were
}

func newCrowd(t *rapid.T, ledger *solo.Ledger) *crowd {
	c := &crowd{T: t, Ledger: ledger, nodes: []string{"n1", "n2", "n3"}, all: map[string]*director{}, few: map[string]*director{}, lines: map[string]*line{}}
	c.events = ledger.Events().Subscribe(func(c state.Change) bool { return c.Kind == state.KindTask || c.Kind == state.KindGang })
	c.board = NewSwitchboard(nil) // it is handed what happens
	for _, id := range c.nodes {
		c.do(command.PutNode{Node: cluster.Node{ID: id, Address: id, State: cluster.NodeReady, MilliCPU: 64000, Memory: 8 << 30}})
		c.all[id], c.few[id], c.lines[id] = newDirector(id), newDirector(id), c.board.connect(id)
	}
	return c
}

func (c *crowd) do(commands ...command.Command) { _, _ = c.Propose(context.Background(), commands...) }

func (c *crowd) look() *state.Snapshot {
	snapshot, err := c.Read(context.Background(), true)
	if err != nil {
		c.Fatal(err)
	}
	return snapshot
}

// compare has every director tell what is new to it.
func (c *crowd) compare() {
	var changes []state.Change
	for more := true; more; {
		select {
		case batch := <-c.events.C:
			changes = append(changes, batch.Changes...)
		default:
			more = false
		}
	}
	c.board.pass(changes)
	snapshot := c.look()
	defer snapshot.Close()
	for _, id := range c.nodes {
		mine, _, _ := c.lines[id].take()
		want, got := text(c.all[id].changed(snapshot, changes)), ""
		if c.few[id].concerned(mine) {
			got = text(c.few[id].changed(snapshot, mine))
		}
		if got != want {
			c.Fatalf("%s is told %q, and would be %q if it heard of everything", id, got, want)
		}
		c.heard += len(changes)
		c.passed += len(mine)
		if want != "" {
			c.told++
		}
	}
}

func (c *crowd) submit(name string) {
	count := rapid.Int32Range(1, 4).Draw(c.T, "tasks")
	program := cluster.Program{Command: []string{"true"}}
	if rapid.Bool().Draw(c.T, "together") {
		program.Framework = cluster.FrameworkHosts
	}
	job := cluster.Job{Name: name, Kind: cluster.KindTraining, Owner: "ada", Queue: cluster.DefaultQueue, State: cluster.JobQueued, Attempt: 1}
	gang := cluster.Gang{
		Job: name, Name: "main", Queue: cluster.DefaultQueue, Owner: "ada", Attempt: 1,
		Roles: []cluster.Role{{Name: "worker", Count: count, Ask: cluster.Ask{MilliCPU: 10}, Program: program}},
	}
	c.do(command.Record{Changes: []command.Change{{Job: &job}, {Gang: &gang}}})
}

func (c *crowd) place(name string) {
	snapshot := c.look()
	gang, exists := snapshot.Gang(name + "/main")
	snapshot.Close()
	if !exists {
		return
	}
	p := cluster.Placement{Gang: gang.ID(), Attempt: gang.Attempt, Revision: gang.Revision}
	for range gang.Size() {
		p.Allocations = append(p.Allocations, cluster.Allocation{Node: rapid.SampledFrom(c.nodes).Draw(c.T, "node"), Resources: cluster.Resources{MilliCPU: 10}})
	}
	c.do(command.CommitPlan{Placements: []cluster.Placement{p}})
}

func (c *crowd) report() {
	snapshot := c.look()
	tasks := slices.Collect(snapshot.Tasks())
	snapshot.Close()
	for _, task := range tasks {
		if rapid.Bool().Draw(c.T, "reports") {
			to := rapid.SampledFrom([]cluster.TaskState{cluster.TaskReady, cluster.TaskReady, cluster.TaskRunning, cluster.TaskStopped, cluster.TaskFailed}).Draw(c.T, "state")
			c.do(command.ReportTasks{Node: task.Allocation.Node, Reports: []command.TaskReport{{Task: task.ID, Status: cluster.TaskStatus{State: to}}}})
		}
	}
}

// change stops a gang, or has it try again, or ends and deletes its job.
func (c *crowd) change(name string) {
	snapshot := c.look()
	defer snapshot.Close()
	job, exists := snapshot.Job(name)
	gang, _ := snapshot.Gang(name + "/main")
	if !exists {
		return
	}
	expect := job.Revision
	switch rapid.IntRange(0, 3).Draw(c.T, "change") {
	case 0:
		gang.Stop, gang.StopReason = true, "drawn"
	case 1:
		gang.Attempt, job.Attempt, gang.Stop = gang.Attempt+1, job.Attempt+1, false
	case 2:
		job.State = cluster.JobStopping
		c.do(command.Record{Changes: []command.Change{{Expect: expect, Job: &job}}})
		return
	default:
		job.State = cluster.JobCancelled
		c.do(command.Record{Changes: []command.Change{{Expect: expect, Job: &job}}})
		ended := c.look()
		defer ended.Close()
		job, _ = ended.Job(name)
		c.do(command.Record{Changes: []command.Change{{Expect: job.Revision, Delete: &command.Key{Kind: state.KindJob, ID: name}}}})
		return
	}
	c.do(command.Record{Changes: []command.Change{{Expect: expect, Job: &job}, {Expect: gang.Revision, Gang: &gang}}})
}

func TestASwitchboardPassesOnAllThatMatters(t *testing.T) {
	var told, passed, heard, remembered int
	rapid.Check(t, func(rt *rapid.T) {
		dir := t.TempDir()
		ledger, err := solo.Open(filepath.Join(dir, "state.db"))
		if err != nil {
			rt.Fatal(err)
		}
		defer func() { _ = ledger.Close() }()
		c := newCrowd(rt, ledger)
		defer c.events.Close()
		for range rapid.IntRange(1, 14).Draw(rt, "steps") {
			name := fmt.Sprintf("j%d", rapid.IntRange(1, 2).Draw(rt, "job"))
			switch rapid.IntRange(0, 5).Draw(rt, "step") {
			case 0:
				c.submit(name)
			case 1:
				c.submit(name)
				c.place(name)
			case 2:
				c.place(name)
			case 3, 4:
				c.report()
			default:
				c.change(name)
			}
			if rapid.IntRange(0, 2).Draw(rt, "looks") > 0 {
				c.compare()
			}
		}
		c.compare()
		told, passed, heard = told+c.told, passed+c.passed, heard+c.heard
		for _, d := range c.all {
			remembered += len(d.told)
		}
	})
	if told < 100 || remembered < 10 || passed >= heard {
		t.Errorf("%d words were told, of %d changes %d were passed on", told, heard, passed)
	}
}

func TestASwitchboardThatEndsEndsItsLines(t *testing.T) {
	board := NewSwitchboard(nil)
	before := board.connect("n1")
	board.close()
	after := board.connect("n1")
	for _, l := range []*line{before, after} {
		<-l.rung
		if _, _, open := l.take(); open {
			t.Error("a line is open though the board has ended")
		}
		l.close()
	}
}

func TestASlowStreamIsToldToReadAnew(t *testing.T) {
	board := NewSwitchboard(nil)
	l := board.connect("n1")
	for i := range maxPending + 1 {
		board.pass([]state.Change{{Kind: state.KindTask, ID: fmt.Sprintf("j/main/worker-%d.1", i), Node: "n1"}})
	}
	if changes, lost, _ := l.take(); !lost || len(changes) > 0 {
		t.Errorf("%d changes, lost: %v", len(changes), lost)
	}
	board.pass([]state.Change{{Kind: state.KindTask, ID: "j/main/worker-0.1", Node: "n1", Ended: true}})
	if changes, lost, _ := l.take(); lost || len(changes) != 1 {
		t.Errorf("%d changes, lost: %v, after it has read anew", len(changes), lost)
	}
}
