package drainer_test

import (
	"iter"
	"slices"
	"testing"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/drainer"
)

// view is a node's tasks and their gangs.
type view struct {
	tasks []cluster.Task
	gangs map[string]cluster.Gang
}

func (v view) TasksOn(string) iter.Seq[cluster.Task] { return slices.Values(v.tasks) }

func (v view) Gang(id string) (cluster.Gang, bool) {
	gang, ok := v.gangs[id]
	return gang, ok
}

func one(state cluster.TaskState, change func(*cluster.Gang)) view {
	gang := cluster.Gang{Job: "digits", Name: "main", Attempt: 2, Revision: 7, Roles: []cluster.Role{{Name: "worker", Count: 1}}}
	change(&gang)
	task := cluster.Task{ID: "digits/main/worker-0.2", Gang: gang.ID(), Job: "digits", Attempt: 2, Status: cluster.TaskStatus{State: state}}
	return view{tasks: []cluster.Task{task}, gangs: map[string]cluster.Gang{gang.ID(): gang}}
}

func TestWhatLosesNothingLeavesAtOnceAndTheRestAtTheDeadline(t *testing.T) {
	for name, c := range map[string]struct {
		state       cluster.TaskState
		gang        func(*cluster.Gang)
		early, late bool // whether it leaves before and at the deadline
		stops       bool // already before the deadline; at it everything does
	}{
		"without checkpoints":           {cluster.TaskRunning, func(*cluster.Gang) {}, false, true, true},
		"with checkpoints":              {cluster.TaskRunning, func(g *cluster.Gang) { g.Roles[0].Program.Checkpoints = true }, true, true, true},
		"has not begun":                 {cluster.TaskAssigned, func(*cluster.Gang) {}, true, true, true},
		"is handed over":                {cluster.TaskRunning, func(g *cluster.Gang) { g.Handover = true }, true, true, false},
		"may not be preempted":          {cluster.TaskRunning, func(g *cluster.Gang) { g.NonPreemptible, g.Roles[0].Program.Checkpoints = true, true }, false, true, true},
		"a service beside a driver":     {cluster.TaskRunning, func(g *cluster.Gang) { g.Roles[0].Program.Service = true }, true, true, true},
		"brings its outputs already":    {cluster.TaskUploading, func(g *cluster.Gang) { g.Roles[0].Program.Checkpoints = true }, false, true, true},
		"ends already":                  {cluster.TaskRunning, func(g *cluster.Gang) { g.Stop = true }, false, false, false},
		"waits for who takes over":      {cluster.TaskRunning, func(g *cluster.Gang) { g.Handover, g.Moves = true, true }, false, true, false},
		"is a former attempt's":         {cluster.TaskRunning, func(g *cluster.Gang) { g.Attempt = 3 }, false, false, false},
		"has ended":                     {cluster.TaskSucceeded, func(*cluster.Gang) {}, false, false, false},
		"one of two roles without them": {cluster.TaskRunning, func(g *cluster.Gang) { g.Roles = append(g.Roles, g.Roles[0]); g.Roles[0].Program.Checkpoints = true }, false, true, true},
	} {
		v := one(c.state, c.gang)
		node := cluster.Node{ID: "a", Reason: "new disk", State: cluster.NodeDraining, Empties: true, Deadline: 100}
		for now, leaves := range map[int64]bool{99: c.early, 100: c.late} {
			changes := drainer.Step(v, node, now)
			if leaves != (len(changes) == 1) {
				t.Errorf("%s, at %d: %d changes", name, now, len(changes))
			}
			for _, change := range changes {
				if g := change.Gang; !g.Moves || g.Stop != (c.stops || now == 100) || g.StopReason != "node a is drained: new disk" || change.Expect != 7 {
					t.Errorf("%s: %+v", name, change.Gang)
				}
			}
		}
		if node.Deadline = 0; len(drainer.Step(v, node, 1<<60)) == 1 != c.early {
			t.Errorf("%s: without a deadline it does not leave as before one", name)
		}
	}
}
