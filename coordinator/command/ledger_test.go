package command_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/internal/fault"
)

func TestAPlanIsCheckedOnTheStateAsItIs(t *testing.T) {
	give := func(p *cluster.Placement) *cluster.Resources { return &p.Allocations[0].Resources }
	for name, c := range map[string]struct {
		spoil  func(*world, *cluster.Placement)
		reason string
	}{
		"unknown gang":      {func(_ *world, p *cluster.Placement) { p.Gang = "none/main" }, "does not exist"},
		"old attempt":       {func(_ *world, p *cluster.Placement) { p.Attempt = 2 }, "planned for attempt 2"},
		"old revision":      {func(_ *world, p *cluster.Placement) { p.Revision-- }, "planned at revision"},
		"too early":         {func(w *world, _ *cluster.Placement) { w.now = 499 }, "waits for 1ns more"},
		"half a gang":       {func(_ *world, p *cluster.Placement) { p.Allocations = nil }, "0 allocations for 1 tasks"},
		"unknown node":      {func(_ *world, p *cluster.Placement) { p.Allocations[0].Node = "z" }, "the node does not exist"},
		"fewer cores":       {func(_ *world, p *cluster.Placement) { give(p).MilliCPU = 10 }, "it asks for 1 core"},
		"more memory":       {func(_ *world, p *cluster.Placement) { give(p).Memory++ }, "it asks for 1 core and 1 GiB"},
		"no device":         {func(_ *world, p *cluster.Placement) { give(p).Devices = nil }, "given 0 devices, it asks for 1"},
		"unknown device":    {func(_ *world, p *cluster.Placement) { give(p).Devices[0] = "b-g0" }, `"b-g0" is in use, unhealthy or not there`},
		"unhealthy device":  {func(_ *world, p *cluster.Placement) { give(p).Devices[0] = "a-g2" }, `"a-g2" is in use, unhealthy`},
		"wrong model":       {func(_ *world, p *cluster.Placement) { give(p).Devices[0] = "a-g3" }, `is a "T4", it asks for "A100"`},
		"one port":          {func(_ *world, p *cluster.Placement) { give(p).Ports = []int32{100} }, "given 1 ports, it asks for 2"},
		"port out of range": {func(_ *world, p *cluster.Placement) { give(p).Ports[0] = 104 }, "port 104 is not in 100-103"},
		"same port twice":   {func(_ *world, p *cluster.Placement) { give(p).Ports[0] = 100 }, "port 100 is in use"},
		"draining node": {func(w *world, _ *cluster.Placement) {
			w.must(command.SetNodeState{Node: "a", State: cluster.NodeDraining})
		}, "the node is draining"},
		"lost label": {func(w *world, _ *cluster.Placement) {
			node := machine("a")
			node.Labels = nil
			w.must(command.PutNode{Node: node})
		}, "lacks a label"},
		"shrunken node": {func(w *world, _ *cluster.Placement) {
			node := machine("a")
			node.MilliCPU = 999
			w.must(command.PutNode{Node: node})
		}, "1 core asked, 0.999 cores free"},
		"held": {func(w *world, p *cluster.Placement) {
			job, gang := w.job("one"), w.gang("one")
			gang.Held = true
			p.Revision = w.must(record(command.Change{Expect: job.Revision, Job: &job}, command.Change{Expect: gang.Revision, Gang: &gang})).Revision
		}, "it is held"},
		"cancelled": {func(w *world, _ *cluster.Placement) {
			job := w.job("one")
			job.Cancel = true
			w.must(w.putJob(job))
		}, "its job has ended or was cancelled"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.submit("one")
			placement := w.fit("one")
			c.spoil(w, &placement)
			before := w.dump()
			result := w.must(command.CommitPlan{Placements: []cluster.Placement{placement}})
			if len(result.Refused) != 1 || !strings.Contains(result.Refused[0].Reason, c.reason) {
				t.Fatalf("refused %v; want %q", result.Refused, c.reason)
			}
			if before != w.dump() || len(ids(w)) != 0 {
				t.Error("a gang that was left out changed the state")
			}
		})
	}
}

func TestAPlanGivesNothingTwice(t *testing.T) {
	w := newWorld(t)
	w.submit("one")
	w.submit("two")
	w.submit("three")
	good := w.fit("three")
	good.Allocations[0].Resources.Devices = []string{"a-g1"}
	good.Allocations[0].Resources.Ports = []int32{102, 103}
	plan := command.CommitPlan{Placements: []cluster.Placement{w.fit("one"), w.fit("two"), w.fit("one"), good}}
	result := w.must(plan)
	if len(result.Refused) != 2 || result.Refused[0].ID != "two/main" || result.Refused[1].ID != "one/main" {
		t.Fatalf("left out %v; want two/main, whose device is given, and one/main, which is placed", result.Refused)
	}
	if got, want := ids(w), []string{"one/main/worker-0.1", "three/main/worker-0.1"}; !slices.Equal(got, want) {
		t.Errorf("tasks %v; want %v", got, want)
	}
	used := w.used("a")
	want := cluster.Resources{MilliCPU: 2000, Memory: 2 << 30, Devices: []string{"a-g0", "a-g1"}, Ports: []int32{100, 101, 102, 103}}
	if !reflect.DeepEqual(used, want) {
		t.Errorf("used %+v; want %+v", used, want)
	}
	task := w.task("one/main/worker-0.1")
	if task.Status.State != cluster.TaskAssigned || task.Assigned != w.now || !slices.Equal(task.Allocation.Resources.Ports, []int32{100, 101}) {
		t.Errorf("made %+v", task)
	}
}

func TestReportsMoveTasksForwardAndFreeTheirNodeOnce(t *testing.T) {
	w := newWorld(t)
	w.submit("one")
	w.place("one")
	const id = "one/main/worker-0.1"
	w.report(id, cluster.TaskStatus{State: cluster.TaskRunning, Started: 7, Progress: cluster.Progress{Step: 3}})
	w.report(id, cluster.TaskStatus{State: cluster.TaskRunning, Started: 8})
	if status := w.task(id).Status; status.Started != 7 || status.Progress.Step != 3 {
		t.Errorf("the start or the progress was lost: %+v", status)
	}
	if refused := w.report(id, cluster.TaskStatus{State: cluster.TaskStaging}).Refused; len(refused) != 1 {
		t.Error("a running task went back to staging")
	}
	if used := w.used("a"); used.MilliCPU != 1000 {
		t.Errorf("used %+v while it runs", used)
	}
	w.now = 2000
	w.report(id, cluster.TaskStatus{State: cluster.TaskFailed, ExitCode: 3, Reason: strings.Repeat("é", 3000)})
	ended := w.task(id).Status
	if ended.Ended != 2000 || ended.ExitCode != 3 || len(ended.Reason) > command.MaxReason {
		t.Errorf("ended as %d at %d with a reason of %d bytes", ended.ExitCode, ended.Ended, len(ended.Reason))
	}
	before := w.dump()
	w.report(id, cluster.TaskStatus{State: cluster.TaskFailed})
	if refused := w.report(id, cluster.TaskStatus{State: cluster.TaskSucceeded}).Refused; len(refused) != 1 || refused[0].Reason != "the task has failed already" {
		t.Error("a failed task succeeded", refused)
	}
	if w.dump() != before || !reflect.DeepEqual(w.used("a"), cluster.Resources{}) {
		t.Errorf("used %+v after the end", w.used("a"))
	}
	result := w.must(command.ReportTasks{Node: "a", Reports: []command.TaskReport{{Task: "none"}, {Task: id, Status: cluster.TaskStatus{State: "odd"}}}})
	if len(result.Refused) != 2 {
		t.Errorf("rubbish was taken: %v", result.Refused)
	}
	w.must(command.PutNode{Node: machine("b")})
	if refused := w.must(command.ReportTasks{Node: "b", Reports: []command.TaskReport{{Task: id}}}).Refused; len(refused) != 1 {
		t.Error("another node spoke for the task")
	}
	w.refuses(command.ReportTasks{Node: "z"}, fault.NotFound, "introduce itself")
}

func TestALostNodeLosesItsTasksAndComesBackWithoutThem(t *testing.T) {
	w := newWorld(t)
	w.submit("one")
	w.place("one")
	node, _ := w.read().Node("a")
	w.refuses(command.SetNodeState{Node: "a", State: cluster.NodeLost, Expect: node.Revision + 1}, fault.Conflict, "read it again")
	w.refuses(command.RemoveNode{Node: "a"}, fault.Conflict, "is ready")
	w.must(command.SetNodeState{Node: "a", State: cluster.NodeLost, Reason: "no word", Expect: node.Revision})
	task := w.task("one/main/worker-0.1")
	if task.Status.State != cluster.TaskLost || task.Status.Ended != w.now || !strings.Contains(task.Status.Reason, "no word") {
		t.Errorf("its task is %+v", task.Status)
	}
	if used := w.used("a"); !reflect.DeepEqual(used, cluster.Resources{}) {
		t.Errorf("used %+v", used)
	}
	w.refuses(command.SetNodeState{Node: "a", State: cluster.NodeReady}, fault.Conflict, "when its agent does")
	w.must(command.PutNode{Node: machine("a")})
	if back, _ := w.read().Node("a"); back.State != cluster.NodeReady || back.Joined != 1000 {
		t.Errorf("it came back as %+v", back)
	}
	if refused := w.report(task.ID, cluster.TaskStatus{State: cluster.TaskRunning}).Refused; len(refused) != 1 {
		t.Error("a lost task runs again")
	}
	w.must(command.SetNodeState{Node: "a", State: cluster.NodeLost})
	w.must(command.RemoveNode{Node: "a"})
	w.refuses(command.RemoveNode{Node: "a"}, fault.NotFound, "does not exist")
}

func TestADrainingNodeStaysDrainingWhenItsAgentRestarts(t *testing.T) {
	w := newWorld(t)
	w.must(command.SetNodeState{Node: "a", State: cluster.NodeDraining, Reason: "disk"})
	w.must(command.PutNode{Node: machine("a")})
	if node, _ := w.read().Node("a"); node.State != cluster.NodeDraining || node.Reason != "disk" {
		t.Errorf("it is %s (%s)", node.State, node.Reason)
	}
	w.must(command.SetNodeState{Node: "a", State: cluster.NodeReady})
	bad := machine("a")
	bad.Memory = -1
	w.refuses(command.PutNode{Node: bad}, fault.Invalid, "memory: -1")
	w.refuses(command.SetNodeState{Node: "a", State: "odd"}, fault.Conflict, `cannot become "odd"`)
}

func TestANodeThatShrinksKeepsItsTasks(t *testing.T) {
	w := newWorld(t)
	w.submit("one")
	w.place("one")
	small := machine("a")
	small.MilliCPU, small.Memory, small.Devices = 10, 10, nil
	w.must(command.PutNode{Node: small})
	if task := w.task("one/main/worker-0.1"); task.Status.State != cluster.TaskAssigned {
		t.Errorf("its task is %s", task.Status.State)
	}
	w.report("one/main/worker-0.1", cluster.TaskStatus{State: cluster.TaskSucceeded})
	if used := w.used("a"); !reflect.DeepEqual(used, cluster.Resources{}) {
		t.Errorf("used %+v", used)
	}
}

func TestAServiceNeedNotSucceedButEndBeforeItsGangPublishes(t *testing.T) {
	w := newWorld(t)
	r := submission("one")
	gang := r.Changes[1].Gang
	server := gang.Roles[0]
	server.Name, server.Program.Service = "server", true
	gang.Roles = append(gang.Roles, server)
	w.must(r)
	placed := w.gang("one")
	one := cluster.Allocation{Node: "a", Resources: cluster.Resources{MilliCPU: server.Ask.MilliCPU, Memory: server.Ask.Memory}}
	plan := command.CommitPlan{Placements: []cluster.Placement{{Gang: placed.ID(), Attempt: 1, Revision: placed.Revision, Allocations: []cluster.Allocation{one, one}}}}
	if refused := w.must(plan).Refused; len(refused) > 0 {
		t.Fatal(refused)
	}
	publish := command.Publish{Job: "one", Gang: "one/main", Attempt: 1}
	w.report("one/main/server-0.1", cluster.TaskStatus{State: cluster.TaskStopped})
	w.refuses(publish, fault.Conflict, "worker-0.1 is assigned")
	w.report("one/main/worker-0.1", cluster.TaskStatus{State: cluster.TaskSucceeded})
	w.must(publish)

	w = newWorld(t)
	w.must(r)
	placed = w.gang("one")
	plan.Placements[0].Revision = placed.Revision
	w.must(plan)
	w.report("one/main/worker-0.1", cluster.TaskStatus{State: cluster.TaskSucceeded})
	w.refuses(publish, fault.Conflict, "server-0.1 is assigned")
	w.report("one/main/server-0.1", cluster.TaskStatus{State: cluster.TaskFailed})
	w.must(publish)
}

func TestOnlyTheCurrentAttemptPublishesWhatItUploadedOnce(t *testing.T) {
	w := newWorld(t)
	w.submit("one")
	model := cluster.Output{Name: "model", URI: "s3://clary/m", SHA256: "00", Size: 1}
	publish := func(attempt int32, outputs ...cluster.Output) command.Publish {
		return command.Publish{Job: "one", Gang: "one/main", Attempt: attempt, Outputs: outputs}
	}
	w.refuses(publish(1, model), fault.Conflict, "was never placed")
	w.place("one")
	w.refuses(publish(1, model), fault.Conflict, "is assigned")
	w.report("one/main/worker-0.1", cluster.TaskStatus{State: cluster.TaskFailed, Outputs: []cluster.Output{model}})
	w.refuses(publish(1, model), fault.Conflict, "is failed")
	w.must(w.nextAttempt("one"))
	w.refuses(publish(1, model), fault.Conflict, "is at attempt 2: attempt 1 may not publish")
	w.place("one")
	w.report("one/main/worker-0.2", cluster.TaskStatus{State: cluster.TaskSucceeded, Outputs: []cluster.Output{model}})
	forged := model
	forged.Size = 2
	w.refuses(publish(2, forged), fault.Invalid, "was uploaded by no task")
	w.refuses(publish(2, model, model), fault.Invalid, "there twice")
	w.refuses(command.Publish{Job: "none"}, fault.NotFound, "does not exist")
	w.refuses(command.Publish{Job: "one", Gang: "none/main"}, fault.NotFound, "is none of job")
	w.must(publish(2, model))
	before := w.dump()
	w.must(publish(2, model))
	w.refuses(publish(2), fault.Conflict, "has published its outputs already")
	if got, _ := w.read().Publication("one"); got.Attempt != 2 || got.Published != w.now || w.dump() != before {
		t.Errorf("published %+v", got)
	}
	w.submit("two")
	w.step("two", cluster.JobStopping)
	w.refuses(command.Publish{Job: "two", Gang: "two/main", Attempt: 1}, fault.Conflict, "is stopping")
}
