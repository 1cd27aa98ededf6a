package command_test

import (
	"slices"
	"testing"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
)

func serverRole() cluster.Role {
	return cluster.Role{Name: "server", Count: 1, Ask: cluster.Ask{MilliCPU: 100, Ports: 1}, Program: cluster.Program{Command: []string{"serve"}}}
}

func fleet(variant string, generation int64, next int32) cluster.Fleet {
	return cluster.Fleet{Variant: variant, Generation: generation, Role: serverRole(), Weight: 1, Share: 1, Replicas: 1, Next: next}
}

func replica(name string) cluster.Gang {
	return cluster.Gang{Job: "e", Name: name, Queue: cluster.DefaultQueue, Owner: "ada", Attempt: 1, Roles: []cluster.Role{serverRole()}, Handover: true}
}

func (w *world) endpoint() cluster.Endpoint { e, _ := w.read().Endpoint("e"); return e }

// put is a record that changes the endpoint, checks its job, and makes gangs.
func (w *world) put(edit func(*cluster.Endpoint), gangs ...cluster.Gang) command.Record {
	e, job := w.endpoint(), w.job("e")
	expect := e.Revision
	e.Fleets = slices.Clone(e.Fleets)
	if e.Rollout != nil {
		rollout := *e.Rollout
		e.Rollout = &rollout
	}
	edit(&e)
	changes := []command.Change{{Expect: job.Revision, Check: key(state.KindJob, "e")}, {Expect: expect, Endpoint: &e}}
	for _, gang := range gangs {
		changes = append(changes, command.Change{Expect: gang.Revision, Gang: &gang})
	}
	return record(changes...)
}

// serving makes a running endpoint with one replica.
func (w *world) serving() {
	w.Helper()
	job := cluster.Job{Name: "e", Kind: cluster.KindEndpoint, Owner: "ada", Queue: cluster.DefaultQueue, State: cluster.JobQueued}
	gang := replica("blue-1-0")
	w.must(record(
		command.Change{Job: &job}, command.Change{Endpoint: &cluster.Endpoint{Job: "e", Generation: 1, Last: 1, Fleets: []cluster.Fleet{fleet("blue", 1, 1)}}},
		command.Change{Gang: &gang},
	))
	w.step("e", cluster.JobRunning)
}

func TestAReplicaIsCountedByItsFleetAndNeverMadeAnew(t *testing.T) {
	w := newWorld(t)
	w.serving()
	same := func(*cluster.Endpoint) {}
	counted := func(e *cluster.Endpoint) { e.Fleets[0].Next = 2 }
	w.refuses(record(command.Change{Expect: w.job("e").Revision, Job: ptr(w.job("e"))}, command.Change{Gang: ptr(replica("blue-1-1"))}), fault.Conflict, "must put its endpoint too")
	w.refuses(w.put(same, replica("blue-1-1")), fault.Conflict, "the next replica has number 1")
	w.refuses(w.put(counted, replica("blue-1-2")), fault.Conflict, "the next replica has number 2")
	w.refuses(w.put(counted, replica("green-1-1")), fault.Conflict, "no fleet green-1")
	w.refuses(w.put(counted, replica("main")), fault.Conflict, "no fleet")
	other := replica("blue-1-1")
	other.Roles = []cluster.Role{serverRole()}
	other.Roles[0].Program.Command = []string{"mine"}
	w.refuses(w.put(counted, other), fault.Invalid, "a replica is what its fleet says")
	w.must(w.put(counted, replica("blue-1-1")))

	gang, _ := w.read().Gang("e/blue-1-1")
	w.must(record(command.Change{Expect: gang.Revision, Delete: key(state.KindGang, "e/blue-1-1")}))
	w.refuses(w.put(same, replica("blue-1-1")), fault.Conflict, "the next replica has number 2")
	w.refuses(w.put(func(e *cluster.Endpoint) { e.Fleets[0].Next = 1 }), fault.Invalid, "next: 1 comes before 2")
}

func ptr[T any](v T) *T { return &v }

func TestAReplicaIsAskedToMoveAndGoesWhenItsTaskHasEnded(t *testing.T) {
	w := newWorld(t)
	w.serving()
	gang, _ := w.read().Gang("e/blue-1-0")
	w.must(command.CommitPlan{Placements: []cluster.Placement{{
		Gang: gang.ID(), Attempt: 1, Revision: gang.Revision,
		Allocations: []cluster.Allocation{{Node: "a", Resources: cluster.Resources{MilliCPU: 100, Ports: []int32{100}}}},
	}}})
	gang, _ = w.read().Gang("e/blue-1-0")
	expect := gang.Revision
	gang.Moves, gang.StopReason = true, "the node is drained"
	w.must(record(command.Change{Expect: expect, Gang: &gang})) // nobody's job is needed for that
	gang, _ = w.read().Gang("e/blue-1-0")
	drop := record(command.Change{Expect: gang.Revision, Delete: key(state.KindGang, gang.ID())})
	w.refuses(drop, fault.Conflict, "can be deleted when all have ended")
	w.must(command.ReportTasks{Node: "a", Reports: []command.TaskReport{{Task: gang.TaskID("server", 0), Status: cluster.TaskStatus{State: cluster.TaskStopped}}}})
	w.must(drop)
	for range w.read().TasksOf("e") {
		t.Error("a task outlives its replica")
	}
}

func TestAnEndpointChangesByItsRules(t *testing.T) {
	w := newWorld(t)
	w.serving()
	alone := w.put(func(*cluster.Endpoint) {})
	w.refuses(record(alone.Changes[1]), fault.Invalid, "must put or check its job too")
	update := func(e *cluster.Endpoint) {
		next := fleet("blue", 2, 0)
		next.Share = 0
		e.Fleets, e.Last = append(e.Fleets, next), 2
		e.Rollout = &cluster.Rollout{From: 1, To: 2, Phase: cluster.RolloutStarting, Steps: []float64{1}}
	}
	for _, c := range []struct {
		edit func(*cluster.Endpoint)
		kind fault.Kind
		text string
	}{
		{func(e *cluster.Endpoint) { e.Fleets[0].Weight = 0 }, fault.Invalid, "weights of generation 1 are all 0"},
		{func(e *cluster.Endpoint) { e.Fleets[0].Role.Ask.MilliCPU = 1 }, fault.Invalid, "role and models never change"},
		{func(e *cluster.Endpoint) { e.Fleets = append(e.Fleets, fleet("green", 1, 0)) }, fault.Conflict, "generation 1 was given before: the next is 2"},
		{func(e *cluster.Endpoint) { e.Fleets = nil }, fault.Conflict, "its replica blue-1-0 is still there"},
		{func(e *cluster.Endpoint) { update(e); e.Rollout.Phase = cluster.RolloutBaking }, fault.Conflict, "a new one is starting"},
		{func(e *cluster.Endpoint) { update(e); e.Fleets[1].Models = []cluster.ModelPin{registeredPin()} }, fault.Conflict, "version 1 of model net is not there any more"},
	} {
		w.refuses(w.put(c.edit), c.kind, c.text)
	}
	w.must(w.put(update))
	w.refuses(w.put(func(e *cluster.Endpoint) { e.Rollout.Phase = cluster.RolloutRetiring }), fault.Conflict, "starting cannot become retiring")
	w.refuses(w.put(func(e *cluster.Endpoint) { e.Rollout.Started++ }), fault.Invalid, "from and started never change")
	w.must(w.put(func(e *cluster.Endpoint) { e.Rollout.Phase = cluster.RolloutRollingBack }))
	w.must(w.put(func(e *cluster.Endpoint) { e.Rollout, e.Fleets[1].Retired = nil, true }))
	w.refuses(w.put(func(e *cluster.Endpoint) { e.Fleets[1].Retired = false }), fault.Conflict, "that is not taken back")
	w.refuses(w.put(func(e *cluster.Endpoint) { e.Last = 1; e.Fleets = e.Fleets[:1] }), fault.Invalid, "last: 1 comes before 2")
	w.must(w.put(func(e *cluster.Endpoint) { e.Fleets = e.Fleets[:1] }))
	w.refuses(w.put(update), fault.Conflict, "with a generation after 2")
}

func registeredPin() cluster.ModelPin { return registered(1).Pin("model://net@1") }

func TestAModelThatAFleetServesCannotBeDeleted(t *testing.T) {
	w := newWorld(t)
	one := registered(1)
	w.must(record(command.Change{Model: &cluster.Model{Name: "net", Owner: "ann", Next: 2, Count: 1}}, command.Change{Version: &one}))
	w.serving()
	w.must(w.put(func(e *cluster.Endpoint) {
		next := fleet("blue", 2, 0)
		next.Share, next.Models = 0, []cluster.ModelPin{registeredPin()}
		e.Fleets, e.Last = append(e.Fleets, next), 2
		e.Rollout = &cluster.Rollout{From: 1, To: 2, Phase: cluster.RolloutStarting, Steps: []float64{1}}
	}))
	w.must(w.put(func(e *cluster.Endpoint) { e.Rollout.Reason = "it stays used" }))
	gone := func() command.Record {
		return w.change(1, func(v *cluster.ModelVersion) { v.Deleting = true })
	}
	w.refuses(gone(), fault.Conflict, "used by endpoint e/blue-2")
	w.must(w.put(func(e *cluster.Endpoint) { e.Rollout, e.Fleets = nil, e.Fleets[:1] }))
	w.must(gone())
}

func TestTheJobOfAnEndpointEndsAfterItsFleetsAndTakesItAlong(t *testing.T) {
	w := newWorld(t)
	w.serving()
	ended := w.job("e")
	ended.State, ended.Cancel = cluster.JobCancelled, true
	w.refuses(w.putJob(ended), fault.Conflict, "its endpoint has 1 fleets: they go first")
	gang, _ := w.read().Gang("e/blue-1-0")
	last := w.put(func(e *cluster.Endpoint) { e.Fleets = nil })
	last.Changes = append(last.Changes, command.Change{Expect: gang.Revision, Delete: key(state.KindGang, gang.ID())})
	w.must(last)
	ended = w.job("e")
	ended.State, ended.Cancel = cluster.JobCancelled, true
	w.must(w.putJob(ended))
	w.refuses(w.put(func(e *cluster.Endpoint) { e.Last++; e.Fleets = []cluster.Fleet{fleet("blue", 2, 0)} }), fault.Conflict, "its job has cancelled")
	w.must(record(command.Change{Expect: w.job("e").Revision, Delete: key(state.KindJob, "e")}))
	if _, exists := w.read().Endpoint("e"); exists {
		t.Error("the endpoint outlives its job")
	}
	w.serving() // the name is free
}

func TestOnlyAnEndpointsJobHasAnEndpoint(t *testing.T) {
	w := newWorld(t)
	e := cluster.Endpoint{Job: "one", Generation: 1, Last: 1}
	r := submission("one")
	w.refuses(record(append(r.Changes, command.Change{Endpoint: &e})...), fault.Invalid, "its job is of kind training")
	w.refuses(record(command.Change{Endpoint: &e}), fault.Conflict, "its job does not exist")
	r.Changes[0].Job.Kind = cluster.KindEndpoint
	w.refuses(r, fault.Conflict, "its endpoint has no fleet")
}
