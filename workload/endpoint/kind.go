package endpoint

import (
	"reflect"
	"slices"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/workload"
)

// Kind is the endpoint kind of job.
type Kind struct{}

var (
	_ workload.Kind     = Kind{}
	_ workload.Foreseer = Kind{}
)

// Check reports every mistake in a spec.
func (Kind) Check(data []byte) cluster.Problems {
	_, problems := Parse(data)
	if problems == nil && len(data) > cluster.MaxEndpointSpec {
		problems.Add("", "%d bytes: at most %d", len(data), cluster.MaxEndpointSpec)
	}
	return problems
}

// Foresee makes a gang of each variant that has no replicas yet.
func (Kind) Foresee(job cluster.Job, _ int64) []cluster.Gang {
	s, err := read(job.Spec)
	if err != nil {
		return nil
	}
	fleets, err := s.Fleets(1, job.Models)
	if err != nil {
		return nil
	}
	var gangs []cluster.Gang
	for _, fleet := range fleets {
		if fleet.Replicas == 0 {
			gangs = append(gangs, gang(job, fleet, 0))
		}
	}
	return gangs
}

// Reconcile is one step of an endpoint. Its job waits until the first replica answers, runs until it is
// cancelled, and ends when all that it had has drained. In between replicas are made, started anew and
// drained so that each fleet has as many as it wants, and an update in progress goes on by one edge.
func (Kind) Reconcile(view workload.View, job cluster.Job, now int64) workload.Changes {
	switch {
	case job.State.Ended():
		return workload.Changes{}
	case view.Endpoint == nil:
		return begin(job, now)
	}
	s := look(view, job, now)
	if s.leaves() {
		s.leave()
	} else {
		s.rollout()
	}
	for i := range s.e.Fleets {
		s.tend(&s.e.Fleets[i])
	}
	s.bury()
	s.live()
	return s.changes()
}

// begin makes the endpoint of a new job, and its first replicas.
func begin(job cluster.Job, now int64) workload.Changes {
	end := func(state cluster.JobState, reason string) workload.Changes {
		job.State, job.Reason, job.Ended = state, reason, now
		return workload.Changes{Job: &job}
	}
	switch {
	case job.Cancel:
		return end(cluster.JobCancelled, "cancelled")
	case job.State != cluster.JobQueued:
		return end(cluster.JobFailed, "its endpoint is gone")
	}
	spec, err := read(job.Spec)
	if err != nil {
		return end(cluster.JobFailed, err.Error())
	}
	fleets, err := spec.Fleets(1, job.Models)
	if err != nil {
		return end(cluster.JobFailed, "its replicas cannot be made: "+err.Error())
	}
	for i := range fleets {
		fleets[i].Share = 1
	}
	e := cluster.Endpoint{Job: job.Name, Generation: 1, Last: 1, Spec: job.Spec, Fleets: fleets}
	e.Note(cluster.EndpointNote{At: now, What: "created", Text: "generation 1: " + spec.names(), By: job.Owner})
	job.Models = nil // its fleets use them, and those change
	s := step{job: job, was: job, e: e, now: now, spec: spec, room: stepRoom}
	for i := range s.e.Fleets {
		s.tend(&s.e.Fleets[i])
	}
	return workload.Changes{Job: &job, Endpoint: &s.e, Gangs: s.puts}
}

// stepRoom is how many gangs one step changes: what is left comes with the next.
const stepRoom = 1000

// step is one step; its job and endpoint are copies that it may change.
type step struct {
	job, was cluster.Job
	e, had   cluster.Endpoint
	spec     Spec // in force, for what is the endpoint's
	replicas map[string][]replica
	now      int64

	puts    []cluster.Gang
	deletes []cluster.Gang
	room    int
	wakeAt  int64
	trouble string // why a replica started anew
}

// replica is a gang of one task, as a step finds it.
type replica struct {
	gang   cluster.Gang
	number int32
	task   cluster.Task // of its attempt
	placed bool         // there is such a task
}

// healthy replicas answer, and are not told to end.
func (r replica) healthy() bool {
	return r.placed && r.task.Status.State == cluster.TaskRunning && r.task.Status.Healthy != 0 && !r.gang.Stop
}

func (r replica) ended() bool { return r.placed && r.task.Status.State.Ended() }

// early replicas have not begun to run: nobody can have asked them anything.
func (r replica) early() bool {
	switch r.task.Status.State {
	case cluster.TaskAssigned, cluster.TaskStaging, cluster.TaskReady:
		return true
	}
	return false
}

func look(view workload.View, job cluster.Job, now int64) *step {
	s := &step{job: job, was: job, e: *view.Endpoint, had: *view.Endpoint, now: now, room: stepRoom, replicas: map[string][]replica{}}
	s.e.Fleets = slices.Clone(s.e.Fleets)
	if s.e.Rollout != nil {
		rollout := *s.e.Rollout
		s.e.Rollout = &rollout
	}
	s.spec, _ = Settings(s.e) // one that cannot be read has the defaults
	tasks := make(map[string]cluster.Task, len(view.Tasks))
	for _, task := range view.Tasks {
		tasks[task.ID] = task
	}
	for _, gang := range view.Gangs {
		fleet, number, ok := cluster.ReplicaOf(gang.Name)
		if !ok || len(gang.Roles) == 0 {
			continue
		}
		r := replica{gang: gang, number: number}
		r.task, r.placed = tasks[gang.TaskID(gang.Roles[0].Name, 0)]
		s.replicas[fleet] = append(s.replicas[fleet], r)
	}
	return s
}

// serving is how many replicas of a fleet answer and get requests.
func (s *step) serving(f cluster.Fleet) int32 {
	n := int32(0)
	for _, r := range s.replicas[f.ID()] {
		if r.healthy() && !f.Drains(r.gang.Name) {
			n++
		}
	}
	return n
}

func (s *step) put(gang cluster.Gang) {
	s.puts = append(s.puts, gang)
	s.room--
}

func (s *step) wake(at int64) {
	if at = max(at, s.now+1); s.wakeAt == 0 || at < s.wakeAt {
		s.wakeAt = at
	}
}

func (s *step) note(what, text string) {
	s.e.Note(cluster.EndpointNote{At: s.now, What: what, Text: text})
}

// leaves says that the endpoint is to end.
func (s *step) leaves() bool { return s.job.Cancel || s.job.State == cluster.JobStopping }

// leave retires all that there is.
func (s *step) leave() {
	s.e.Rollout = nil
	for i := range s.e.Fleets {
		s.e.Fleets[i].Retired, s.e.Fleets[i].Share = true, 0
	}
}

// bury takes away the fleets that are to go, and of which nothing is left.
func (s *step) bury() {
	gone := map[string]bool{}
	for _, gang := range s.deletes {
		gone[gang.Name] = true
	}
	s.e.Fleets = slices.DeleteFunc(s.e.Fleets, func(f cluster.Fleet) bool {
		return f.Retired && !slices.ContainsFunc(s.replicas[f.ID()], func(r replica) bool { return !gone[r.gang.Name] })
	})
}

// live is the life of the job.
func (s *step) live() {
	if s.leaves() {
		switch {
		case s.job.State != cluster.JobStopping:
			s.job.State, s.job.Reason = cluster.JobStopping, "cancelled"
		case len(s.had.Fleets) == 0:
			s.job.State, s.job.Reason, s.job.Ended = cluster.JobCancelled, "cancelled", s.now
		}
		return
	}
	served, whole := false, true
	for _, f := range s.e.Fleets {
		if !f.Retired {
			n := s.serving(f)
			served, whole = served || n > 0 || f.Replicas == 0, whole && n >= f.Replicas
		}
	}
	if s.job.State == cluster.JobQueued && served {
		s.job.State, s.job.Started = cluster.JobRunning, s.now
	}
	switch {
	case s.trouble != "":
		s.job.Reason = s.trouble
	case whole:
		s.job.Reason = ""
	}
}

func (s *step) changes() workload.Changes {
	changes := workload.Changes{Gangs: s.puts, Delete: s.deletes, WakeAt: s.wakeAt}
	if !reflect.DeepEqual(s.job, s.was) {
		changes.Job = &s.job
	}
	if !reflect.DeepEqual(s.e, s.had) {
		changes.Endpoint = &s.e
	}
	if s.job.State.Ended() {
		changes.WakeAt = 0
	}
	return changes
}
