package planner

import (
	"cmp"
	"slices"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/version"
	"github.com/clary-ml/clary/scheduler"
	"github.com/clary-ml/clary/scheduler/past"
)

// memory is what the planner knows: the scheduler's cluster, how long jobs ran before, and which gangs
// wait and run. All of it can be read again.
type memory struct {
	cluster *teller
	book    *past.Book
	waiting map[string]string   // of each gang that waits, by ID, its job
	byJob   map[string][]string // the same by job, sorted
	running map[string]*running // by gang ID: who has tasks that hold something
	counted map[string]bool     // jobs that have ended and are in the book
	before  *memory             // while all is read again: what was known, nil if nothing was
}

// running is a gang with its tasks, as far as the scheduler needs them.
type running struct {
	gang  cluster.Gang
	class past.Class
	tasks []cluster.Task // of the attempt, by ID
	on    []spread
	told  scheduler.Running // to the scheduler
}

// spread is a task that others are kept away from.
type spread struct{ job, by, node string }

func newMemory(record Recorder) *memory {
	return &memory{
		cluster: newTeller(record, version.String()), book: &past.Book{}, waiting: map[string]string{}, byJob: map[string][]string{},
		running: map[string]*running{}, counted: map[string]bool{},
	}
}

// putGang notes a gang as it is now.
func (m *memory) putGang(snapshot *state.Snapshot, gang cluster.Gang) {
	id := gang.ID()
	job, _ := snapshot.Job(gang.Job)
	class := past.ClassOf(job, gang)
	if !placed(snapshot, gang) {
		m.unrun(id)
		m.wait(gang, class)
		return
	}
	m.unwait(id)
	run := &running{gang: gang, class: class}
	for task := range snapshot.TasksOfGang(id) {
		if task.Attempt == gang.Attempt {
			run.tasks = append(run.tasks, lean(task))
		}
	}
	m.run(run)
}

// lean is a task without what the scheduler does not ask for.
func lean(task cluster.Task) cluster.Task {
	return cluster.Task{
		ID: task.ID, Role: task.Role, Attempt: task.Attempt, Allocation: task.Allocation, Assigned: task.Assigned,
		Status: cluster.TaskStatus{
			State: task.Status.State, Started: task.Status.Started, Progress: progress(task.Status.Progress),
		},
	}
}

// progress is what the scheduler reads of it.
func progress(p cluster.Progress) cluster.Progress {
	return cluster.Progress{Step: p.Step, Total: p.Total, Checkpoint: p.Checkpoint}
}

// putTask takes in what has become of a task. It is false if nobody knows the task yet.
func (m *memory) putTask(task cluster.Task) bool {
	run := m.running[task.Gang]
	if run == nil || task.Attempt != run.gang.Attempt {
		return false
	}
	at, found := slices.BinarySearchFunc(run.tasks, task.ID, func(t cluster.Task, id string) int { return cmp.Compare(t.ID, id) })
	if !found {
		return false
	}
	old, now := &run.tasks[at].Status, task.Status
	ended := old.State.Ended() != now.State.Ended()
	news := ended || old.Started != now.Started || old.Progress.Checkpoint != now.Progress.Checkpoint ||
		old.Progress.Step != now.Progress.Step || old.Progress.Total != now.Progress.Total
	run.tasks[at] = lean(task)
	switch {
	case ended: // its room is free
		m.run(run)
	case news:
		run.told.Report(now.Progress)
		run.told.Restart = restart(run.tasks)
		m.cluster.Run(run.gang, run.told)
	}
	return true
}

// run tells the scheduler of a gang that holds room, or that it does no more.
func (m *memory) run(run *running) {
	id := run.gang.ID()
	r, holds := scheduler.NewRunning(run.gang, run.tasks)
	if !holds {
		m.unrun(id)
		m.cluster.Rest(id)
		return
	}
	if old := m.running[id]; old != nil {
		m.spread(old.on, -1)
	}
	m.running[id] = run
	r.Restart = restart(run.tasks)
	r.Until = 0
	if lasts := m.book.Lasts(run.class, run.gang.MaxRuntime, run.gang.Ran); lasts > 0 {
		r.Until = r.Started + int64(lasts)
	}
	run.told = r
	m.cluster.Run(run.gang, r)
	run.on = spreadOf(run.gang, run.tasks)
	m.spread(run.on, 1)
}

func (m *memory) unrun(id string) {
	if old := m.running[id]; old != nil {
		m.spread(old.on, -1)
		delete(m.running, id)
	}
}

func (m *memory) spread(on []spread, tasks int) {
	for _, one := range on {
		m.cluster.count(one, tasks)
	}
}

// restart is how long the attempt took from its place to its work: as long as the next would. It is 0 until
// all of it works.
func restart(tasks []cluster.Task) time.Duration {
	longest := time.Duration(0)
	for i := range tasks {
		started := tasks[i].Status.Started
		if started == 0 {
			return 0
		}
		longest = max(longest, time.Duration(started-tasks[i].Assigned))
	}
	return longest
}

// spreadOf are the tasks that hold something and that others are kept away from.
func spreadOf(gang cluster.Gang, tasks []cluster.Task) []spread {
	var found []spread
	for i := range tasks {
		role, _ := gang.Role(tasks[i].Role)
		if role.Spread != "" && !tasks[i].Status.State.Ended() {
			found = append(found, spread{gang.Job, role.Spread, tasks[i].Allocation.Node})
		}
	}
	return found
}

// wait tells the scheduler of a gang that waits.
func (m *memory) wait(gang cluster.Gang, class past.Class) {
	id := gang.ID()
	m.cluster.Wait(gang, m.book.Lasts(class, gang.MaxRuntime, gang.Ran), m.before.since(gang))
	if _, known := m.waiting[id]; known {
		return
	}
	m.waiting[id] = gang.Job
	gangs := m.byJob[gang.Job]
	at, _ := slices.BinarySearch(gangs, id)
	m.byJob[gang.Job] = slices.Insert(gangs, at, id)
}

// since is since when a gang finds no room: it does not begin to be patient anew because all is read again.
func (m *memory) since(gang cluster.Gang) int64 {
	if m == nil {
		return 0
	}
	if ask, waits := m.cluster.Waiting(gang.ID()); waits && ask.Attempt == gang.Attempt {
		return ask.Since
	}
	return 0
}

func (m *memory) unwait(id string) {
	job, known := m.waiting[id]
	if !known {
		return
	}
	delete(m.waiting, id)
	gangs := m.byJob[job]
	if at, found := slices.BinarySearch(gangs, id); found {
		gangs = slices.Delete(gangs, at, at+1)
	}
	if m.byJob[job] = gangs; len(gangs) == 0 {
		delete(m.byJob, job)
	}
}

// drop forgets a gang that is gone.
func (m *memory) drop(id string) {
	m.unrun(id)
	m.unwait(id)
	m.cluster.Drop(id)
}

// knows reports whether the end of a job was noted before all is read again; it counts once.
func (m *memory) knows(job string) bool {
	if m.before == nil || !m.before.counted[job] {
		return false
	}
	m.counted[job] = true
	return true
}

// putJob notes how long a job ran that has succeeded, once.
func (m *memory) putJob(snapshot *state.Snapshot, job cluster.Job) {
	if !job.State.Ended() || m.counted[job.Name] {
		return
	}
	m.counted[job.Name] = true
	if job.State != cluster.JobSucceeded {
		return // it would have run for longer
	}
	for gang := range snapshot.GangsOf(job.Name) {
		m.book.Add(past.ClassOf(job, gang), job.Ran)
		m.cluster.Succeeded(gang, job.Ran)
		return
	}
}
