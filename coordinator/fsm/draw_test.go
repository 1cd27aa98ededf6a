package fsm_test

import (
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/state"
)

// drawer draws commands that often fit the state, and often do not.
type drawer struct {
	*rapid.T
	s *state.Snapshot
}

func (d drawer) one(n int) bool { return rapid.IntRange(1, n).Draw(d.T, "dice") == 1 }

func pick[T any](d drawer, items []T, what string) T {
	return items[rapid.IntRange(0, len(items)-1).Draw(d.T, what)]
}

func (d drawer) command() command.Command {
	if d.s.Index() < 5 { // something to begin with
		return pick(d, []func() command.Command{d.submit, d.putNode}, "first")()
	}
	kinds := []func() command.Command{
		d.submit, d.submit, d.changeJob, d.changeJob, d.changeGang, d.changeGang, d.drop, d.settings,
		d.putNode, d.putNode, d.nodeState, d.removeNode,
		d.commit, d.commit, d.commit, d.evict, d.evict, d.report, d.report, d.report, d.report, d.finish, d.publish, d.publish,
	}
	return pick(d, kinds, "command")()
}

func (d drawer) name(prefix string, n int) string {
	return fmt.Sprintf("%s%d", prefix, rapid.IntRange(1, n).Draw(d.T, "number"))
}

func (d drawer) submit() command.Command {
	name, queue := d.name("job", 5), cluster.DefaultQueue
	if d.one(6) {
		queue = d.name("queue", 3)
	}
	job := cluster.Job{Name: name, Kind: "training", Owner: "ada", Queue: queue, State: cluster.JobQueued, Attempt: 1}
	gang := cluster.Gang{
		Job: name, Name: "main", Queue: queue, Owner: "ada", Attempt: 1, Held: d.one(8),
		NotBefore: int64(rapid.IntRange(0, 20).Draw(d.T, "not before")) * int64(time.Minute),
	}
	for _, role := range []string{"server", "worker"}[:rapid.IntRange(1, 2).Draw(d.T, "roles")] {
		ask := cluster.Ask{
			MilliCPU: int64(rapid.IntRange(0, 2).Draw(d.T, "cores")) * 1000, Memory: 1 << 20,
			GPUs: rapid.Int32Range(0, 1).Draw(d.T, "gpus"), Ports: rapid.Int32Range(0, 2).Draw(d.T, "ports"),
		}
		gang.Roles = append(gang.Roles, cluster.Role{
			Name: role, Count: rapid.Int32Range(1, 2).Draw(d.T, "count"), Ask: ask,
			Program: cluster.Program{Command: []string{"true"}},
		})
		if last := &gang.Roles[len(gang.Roles)-1]; d.one(2) {
			last.Min = rapid.Int32Range(1, last.Count).Draw(d.T, "least")
		}
	}
	return command.Record{Changes: []command.Change{{Job: &job}, {Gang: &gang}}}
}

func (d drawer) someJob() (cluster.Job, bool) {
	jobs := slices.Collect(d.s.Jobs(""))
	if len(jobs) == 0 {
		return cluster.Job{}, false
	}
	return pick(d, jobs, "job"), true
}

func (d drawer) expect(revision uint64) uint64 {
	if d.one(8) {
		return revision + 1
	}
	return revision
}

func (d drawer) changeJob() command.Command {
	job, ok := d.someJob()
	if !ok {
		return d.submit()
	}
	job.State = pick(d, []cluster.JobState{
		cluster.JobQueued, cluster.JobRunning, cluster.JobRunning, cluster.JobPublishing, cluster.JobStopping,
		cluster.JobSucceeded, cluster.JobFailed, cluster.JobCancelled,
	}, "state")
	job.Cancel = job.Cancel || d.one(10)
	return command.Record{Changes: []command.Change{{Expect: d.expect(job.Revision), Job: &job}}}
}

func (d drawer) changeGang() command.Command {
	job, ok := d.someJob()
	gang, exists := d.s.Gang(job.Name + "/main")
	if !ok || !exists {
		return d.submit()
	}
	changes := []command.Change{{Expect: job.Revision, Job: &job}, {Expect: d.expect(gang.Revision), Gang: &gang}}
	switch rapid.IntRange(0, 4).Draw(d.T, "change") {
	case 0:
		gang.Stop, gang.StopReason = true, "drawn"
		changes = changes[1:]
	case 1:
		gang.Held = false
	case 2:
		gang.Roles = gang.Roles[:1]
	default:
		gang.Attempt, gang.Stop, gang.StopReason = gang.Attempt+1, false, ""
		if !d.one(8) {
			gang.Moves, gang.For, gang.Granted = false, "", nil
		}
	}
	return command.Record{Changes: changes}
}

func (d drawer) drop() command.Command {
	job, _ := d.someJob()
	if job.State.Ended() && d.one(3) {
		row := job.Archive(job.Ended + 1)
		old, _ := d.s.Archived(job.Name)
		return command.Record{Changes: []command.Change{{Expect: d.expect(old.Revision), Archived: &row}}}
	}
	if row, is := d.s.Archived(d.name("job", 5)); is {
		return command.Record{Changes: []command.Change{
			{Expect: d.expect(row.Revision), Delete: &command.Key{Kind: state.KindArchived, ID: row.Name}},
		}}
	}
	return command.Record{Changes: []command.Change{
		{Expect: d.expect(job.Revision), Delete: &command.Key{Kind: state.KindJob, ID: job.Name}},
	}}
}

func (d drawer) settings() command.Command {
	queue, _ := d.s.Queue(d.name("queue", 3))
	token, _ := d.s.Token(d.name("token", 2))
	switch rapid.IntRange(0, 3).Draw(d.T, "setting") {
	case 3:
		set := d.s.Settings()
		expect := d.expect(set.Revision)
		set.Backup.Keep = rapid.Int64Range(0, 3).Draw(d.T, "keep")
		return command.Record{Changes: []command.Change{{Expect: expect, Settings: &set}}}
	case 0:
		return command.Record{Changes: []command.Change{
			{Expect: queue.Revision, Delete: &command.Key{Kind: state.KindQueue, ID: queue.Name}},
		}}
	case 1:
		revision := token.Revision
		if revision == 0 {
			token = cluster.Token{ID: d.name("token", 2), Kind: cluster.TokenUser, Name: "ada", Role: cluster.RoleUser, Hash: make([]byte, 32)}
		}
		token.Revoked = d.one(3)
		return command.Record{Changes: []command.Change{{Expect: revision, Token: &token}}}
	}
	revision := queue.Revision
	if revision == 0 {
		queue.Name = d.name("queue", 3)
	}
	queue.Weight = rapid.Int32Range(0, 5).Draw(d.T, "weight")
	if d.one(2) {
		queue.Parent = d.name("queue", 3)
	}
	queue.Guarantee, queue.Borrow, queue.HalfLife = nil, nil, 0
	if d.one(2) {
		queue.Borrow = queue.Borrow.With(cluster.ResourceGPUs, int64(rapid.IntRange(-1, 3).Draw(d.T, "borrow"))*1000)
		queue.Guarantee = queue.Guarantee.With(cluster.ResourceCores, int64(rapid.IntRange(-1, 3).Draw(d.T, "guarantee"))*1000)
		queue.MaxRunning = rapid.Int32Range(0, 2).Draw(d.T, "running")
		queue.MaxWaiting = rapid.Int32Range(0, 2).Draw(d.T, "waiting")
		queue.HalfLife = time.Duration(rapid.IntRange(0, 2).Draw(d.T, "half-life")) * time.Minute
	}
	return command.Record{Changes: []command.Change{{Expect: revision, Queue: &queue}}}
}

func (d drawer) putNode() command.Command {
	id := d.name("node", 3)
	node := cluster.Node{
		ID: id, Address: id, MilliCPU: int64(rapid.IntRange(1, 4).Draw(d.T, "cores")) * 1000,
		Memory: 1 << 30, PortFirst: 100, PortLast: 103,
	}
	for i := range rapid.IntRange(0, 2).Draw(d.T, "gpus") {
		node.Devices = append(node.Devices, cluster.Device{
			UUID: fmt.Sprintf("%s-gpu%d", id, i), Kind: cluster.DeviceGPU, Healthy: !d.one(6),
		})
	}
	if d.one(10) {
		node.Memory = -1
	}
	return command.PutNode{Node: node}
}

func (d drawer) nodeState() command.Command {
	to := pick(d, []cluster.NodeState{cluster.NodeReady, cluster.NodeDraining, cluster.NodeLost}, "state")
	return command.SetNodeState{Node: d.name("node", 3), State: to, Reason: "drawn"}
}

func (d drawer) removeNode() command.Command {
	for node := range d.s.Nodes() {
		if node.State == cluster.NodeLost {
			return command.RemoveNode{Node: node.ID}
		}
	}
	return command.RemoveNode{Node: d.name("node", 3)}
}

// commit plans a gang or two with what seems free, sometimes wrongly.
func (d drawer) commit() command.Command {
	gangs, nodes := slices.Collect(d.s.Gangs()), slices.Collect(d.s.Nodes())
	plan := command.CommitPlan{}
	for range rapid.IntRange(1, 2).Draw(d.T, "gangs") {
		if len(gangs) == 0 || len(nodes) == 0 {
			break
		}
		gang := pick(d, gangs, "gang")
		placement := cluster.Placement{Gang: gang.ID(), Attempt: gang.Attempt, Revision: d.expect(gang.Revision)}
		taken := map[string]bool{}
		if gang.Elastic() || d.one(20) {
			placement.Counts = d.counts(gang)
		}
		sized := gang.Of(placement)
		for i, role := range gang.Roles {
			for range sized.Tasks(i) {
				placement.Allocations = append(placement.Allocations, d.allocate(pick(d, nodes, "node"), role.Ask, taken))
			}
		}
		plan.Placements = append(plan.Placements, placement)
	}
	return plan
}

// counts are numbers of tasks that a gang may have, but for some.
func (d drawer) counts(gang cluster.Gang) []int32 {
	var counts []int32
	for _, role := range gang.Roles {
		least := role.Least()
		if d.one(20) {
			least = 0
		}
		counts = append(counts, rapid.Int32Range(least, role.Count).Draw(d.T, "granted"))
	}
	return counts
}

// crowd is what happens where many want the same room.
func (d drawer) crowd() command.Command {
	if d.s.Index() < 4 {
		return d.putNode()
	}
	kinds := []func() command.Command{d.plain, d.plain, d.commit, d.commit, d.commit, d.evict, d.evict, d.report, d.changeGang, d.changeJob}
	return pick(d, kinds, "command")()
}

// plain submits a job that may be placed at once, with an elastic role.
func (d drawer) plain() command.Command {
	record := d.submit().(command.Record)
	job, gang := record.Changes[0].Job, record.Changes[1].Gang
	job.Queue, gang.Queue, gang.Held, gang.NotBefore = cluster.DefaultQueue, cluster.DefaultQueue, false, 0
	gang.Roles = gang.Roles[:1]
	gang.Roles[0].Count, gang.Roles[0].Min, gang.Roles[0].Ask = 3, 1, cluster.Ask{MilliCPU: 100}
	return record
}

// evict has gangs make room for others, or be resized, sometimes wrongly.
func (d drawer) evict() command.Command {
	gangs := slices.Collect(d.s.Gangs())
	if len(gangs) == 0 {
		return d.commit()
	}
	plan, running := command.CommitPlan{}, []cluster.Gang{}
	for _, gang := range gangs {
		if task, placed := d.s.Task(gang.TaskID(gang.Roles[0].Name, 0)); placed && !task.Status.State.Ended() {
			running = append(running, gang)
		}
	}
	if len(running) == 0 || d.one(8) {
		running = gangs
	}
	for range rapid.IntRange(1, 2).Draw(d.T, "victims") {
		victim, other := pick(d, running, "victim"), pick(d, gangs, "preemptor")
		if victim.Elastic() && d.one(2) {
			other = victim
		}
		e := cluster.Eviction{Gang: victim.ID(), Attempt: victim.Attempt, Revision: d.expect(victim.Revision), For: other.ID(), Reason: "preempted"}
		if victim.Elastic() && (other.ID() == victim.ID() || d.one(2)) {
			e.Counts = d.counts(victim)
		}
		plan.Evictions = append(plan.Evictions, e)
	}
	return plan
}

func (d drawer) allocate(node cluster.Node, ask cluster.Ask, taken map[string]bool) cluster.Allocation {
	used := d.s.Used(node.ID)
	free := func(key string) bool { return d.one(8) || !taken[node.ID+key] }
	give := cluster.Resources{MilliCPU: ask.MilliCPU, Memory: ask.Memory}
	for _, device := range node.Devices {
		if len(give.Devices) < int(ask.GPUs) && !slices.Contains(used.Devices, device.UUID) && free(device.UUID) {
			give.Devices = append(give.Devices, device.UUID)
			taken[node.ID+device.UUID] = true
		}
	}
	for port := node.PortLast; port >= node.PortFirst; port-- {
		if len(give.Ports) < int(ask.Ports) && !slices.Contains(used.Ports, port) && free(fmt.Sprint(port)) {
			give.Ports = append(give.Ports, port)
			taken[node.ID+fmt.Sprint(port)] = true
		}
	}
	return cluster.Allocation{Node: node.ID, Resources: give}
}

func (d drawer) report() command.Command {
	tasks := slices.Collect(d.s.Tasks())
	if len(tasks) == 0 {
		return command.ReportTasks{Node: d.name("node", 3), Reports: []command.TaskReport{{Task: "none/main/worker-0.1"}}}
	}
	task := pick(d, tasks, "task")
	status := cluster.TaskStatus{State: pick(d, []cluster.TaskState{
		cluster.TaskAssigned, cluster.TaskStaging, cluster.TaskRunning, cluster.TaskUploading,
		cluster.TaskSucceeded, cluster.TaskFailed, cluster.TaskStopped,
	}, "state")}
	status.Started = int64(rapid.IntRange(0, 9).Draw(d.T, "started"))
	node := task.Allocation.Node
	if d.one(8) {
		node = d.name("node", 3)
	}
	return command.ReportTasks{Node: node, Reports: []command.TaskReport{{Task: task.ID, Status: status}}}
}

// finish lets every task on a node succeed, so that there is something to publish.
func (d drawer) finish() command.Command {
	report := command.ReportTasks{Node: d.name("node", 3)}
	for node := range d.s.Nodes() {
		if used := d.s.Used(node.ID); used.Memory > 0 {
			report.Node = node.ID
		}
	}
	for task := range d.s.TasksOn(report.Node) {
		output := cluster.Output{Name: "model", URI: "s3://clary/" + task.ID, SHA256: "00", Size: 7}
		status := cluster.TaskStatus{State: cluster.TaskSucceeded, Outputs: []cluster.Output{output}}
		report.Reports = append(report.Reports, command.TaskReport{Task: task.ID, Status: status})
	}
	return report
}

func (d drawer) publish() command.Command {
	var done []cluster.Task
	for task := range d.s.Tasks() {
		if task.Status.State == cluster.TaskSucceeded {
			done = append(done, task)
		}
	}
	if len(done) == 0 {
		return command.Publish{Job: d.name("job", 5), Gang: "none/main", Attempt: 1}
	}
	task := pick(d, done, "task")
	return command.Publish{Job: task.Job, Gang: task.Gang, Attempt: task.Attempt, Outputs: task.Status.Outputs}
}
