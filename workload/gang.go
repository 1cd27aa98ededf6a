package workload

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/clary-ml/clary/cluster"
)

// MainGang is the name of the gang of a job that has one.
const MainGang = "main"

// maxBackoff is the longest wait before a restart.
const maxBackoff = 10 * time.Minute

// OneGang is a job whose tasks all start together: its roles, and the s3:// prefix that
// its published outputs are copied to ("" for none).
type OneGang struct {
	Roles  []cluster.Role
	Output string
}

// Run is one step in the life of a job with one gang. The step never passes over a
// state, so that each is seen in the log; applying steps until one is empty takes at
// most five.
//
//	queued      the gang waits for room; when its tasks exist the job runs
//	running     a task ended badly: the rest is stopped, and when all have ended the
//	            gang starts anew, unless the retries are used up. A task that was lost
//	            with its node excuses the whole attempt: its peers fail because of it.
//	            A gang that was told to move, to make room or to be of another size ends
//	            in the same way, and is excused too.
//	            When all but its services have succeeded those are stopped; how they end
//	            then is no matter, and that one ends before is a failure
//	publishing  all have succeeded: outputs are committed, then copied and registered
//	stopping    the gang is told to stop and cannot be placed any more; when all its
//	            tasks have ended the job is cancelled, or failed if it ran too long
//
// A cancelled job first stops its gang and ends one step later. In between a plan that
// was on its way is either committed, and its tasks are then seen, or refused.
func (g OneGang) Run(view View, job cluster.Job, now int64) Changes {
	if job.State.Ended() {
		return Changes{}
	}
	s := step{view: view, job: job, now: now, spec: g}
	gang, exists := view.Gang(job.Name + "/" + MainGang)
	if !exists {
		return s.begin()
	}
	s.gang, s.tasks = gang, view.Attempt(gang.ID(), gang.Attempt)
	switch {
	case job.State == cluster.JobStopping:
		return s.stopping()
	case job.Cancel && job.State == cluster.JobPublishing:
		return s.cancelPublishing()
	case job.Cancel:
		return s.stop("cancelled")
	case job.State == cluster.JobPublishing:
		return s.publishing()
	case s.overrun():
		return s.stop("ran longer than its maximum run time of " + job.MaxRuntime.String())
	case job.State == cluster.JobQueued:
		return s.queued()
	}
	return s.running()
}

// Fail ends a job whose spec cannot be understood. Its gang, if there is one, is
// stopped first.
func Fail(view View, job cluster.Job, now int64, reason string) Changes {
	if job.State.Ended() {
		return Changes{}
	}
	s := step{view: view, job: job, now: now}
	gang, exists := view.Gang(job.Name + "/" + MainGang)
	if !exists {
		return s.end(cluster.JobFailed, reason)
	}
	s.gang, s.tasks = gang, view.Attempt(gang.ID(), gang.Attempt)
	if job.State == cluster.JobStopping {
		return s.stopping()
	}
	return s.stop(reason)
}

// step is one step; its job and gang are copies that it may change.
type step struct {
	view  View
	job   cluster.Job
	gang  cluster.Gang
	tasks []cluster.Task // of the gang's attempt
	spec  OneGang
	now   int64
}

// begin makes the gang of a new job.
func (s *step) begin() Changes {
	switch {
	case s.job.Cancel:
		return s.end(cluster.JobCancelled, "cancelled")
	case s.job.State != cluster.JobQueued:
		return s.end(cluster.JobFailed, "its gang is gone")
	}
	job := s.job
	job.Attempt = 1
	return Changes{Job: &job, Gangs: []cluster.Gang{{
		Job: job.Name, Name: MainGang, Queue: job.Queue, Owner: job.Owner, Priority: job.Priority, Attempt: 1,
		Roles: s.spec.Roles, Submitted: job.Submitted, MaxRuntime: job.MaxRuntime, Held: job.Held, Labels: job.Labels,
		NonPreemptible: job.NonPreemptible,
	}}}
}

// queued follows what the job's owner changes, until the gang's tasks exist.
func (s *step) queued() Changes {
	if len(s.tasks) > 0 {
		s.job.State, s.job.Reason = cluster.JobRunning, ""
		if s.job.Started == 0 {
			s.job.Started = s.placed()
		}
		return s.put(false)
	}
	if s.gang.Held == s.job.Held && s.gang.Priority == s.job.Priority && s.gang.Queue == s.job.Queue {
		return Changes{WakeAt: s.deadline()}
	}
	s.gang.Held, s.gang.Priority, s.gang.Queue = s.job.Held, s.job.Priority, s.job.Queue
	return Changes{Gangs: []cluster.Gang{s.gang}, WakeAt: s.deadline()}
}

func (s *step) running() Changes {
	switch {
	case len(s.tasks) == 0: // the planner waits for a gang that nothing says is placed
		s.job.State = cluster.JobQueued
		return s.put(false)
	case s.succeeded() && s.allEnded():
		s.job.State, s.job.Reason = cluster.JobPublishing, ""
		changes := s.put(false)
		changes.Publish = s.publish()
		return changes
	case s.succeeded() && !s.gang.Stop:
		s.gang.Stop, s.gang.StopReason = true, "what it was started for is done"
		return s.put(true)
	case s.succeeded():
		return Changes{WakeAt: s.deadline()}
	case s.allEnded():
		return s.again()
	}
	worst, bad := s.worst()
	if reason := s.moves(); s.gang.Stop && s.gang.Moves && s.job.Reason != reason {
		s.job.Reason = reason
		return s.put(false)
	}
	if !bad || s.gang.Stop {
		return Changes{WakeAt: s.deadline()}
	}
	s.gang.Stop, s.gang.StopReason = true, Describe(worst)
	s.job.Reason = s.gang.StopReason
	return s.put(true)
}

// moves says why a gang that was told to move does.
func (s *step) moves() string {
	if s.gang.For != "" {
		return s.gang.StopReason // which says whose the room will be
	}
	return "moves: " + s.gang.StopReason
}

// again starts the next attempt, or fails the job. All tasks have ended.
func (s *step) again() Changes {
	worst, _ := s.worst()
	reason := Describe(worst) + s.lastWords(worst)
	if s.gang.Moves {
		reason = s.gang.StopReason
	}
	if s.gang.For != "" && s.gang.For != s.gang.ID() {
		s.job.Preempted++
	}
	s.gang.Ran += s.ran()
	delay := time.Duration(0)
	if worst.Status.State != cluster.TaskLost && !s.gang.Moves {
		s.job.Failures++
		if code := worst.Status.ExitCode; s.job.Retry.Limit > 0 && !s.job.Retry.Again(code) {
			return s.end(cluster.JobFailed, fmt.Sprintf("%s (exit code %d is not tried again)", reason, code))
		}
		if s.job.Failures > s.job.Retry.Limit {
			if s.job.Retry.Limit > 0 {
				reason += fmt.Sprintf(" (attempt %d, no retry is left of %d)", s.gang.Attempt, s.job.Retry.Limit)
			}
			return s.end(cluster.JobFailed, reason)
		}
		delay = Backoff(s.job.Retry.Backoff, s.job.Failures)
	}
	s.gang.Attempt++
	s.gang.Stop, s.gang.StopReason, s.gang.Moves, s.gang.Held = false, "", false, s.job.Held
	s.gang.For, s.gang.Granted = "", nil
	s.gang.NotBefore = 0
	if delay > 0 {
		s.gang.NotBefore = s.now + int64(delay)
	}
	s.job.State, s.job.Attempt, s.job.Reason = cluster.JobQueued, s.gang.Attempt, "restarts: "+reason
	return s.put(true)
}

// publishing commits the outputs, has them copied, and ends the job.
func (s *step) publishing() Changes {
	p := s.view.Publication
	if p == nil || p.Attempt != s.gang.Attempt {
		return Changes{Publish: s.publish()}
	}
	if s.job.Delivered {
		return s.end(cluster.JobSucceeded, s.job.Reason) // what there is to say of the copies
	}
	register := s.job.Register != ""
	if copies := append(Copies(p.Outputs, s.spec.Output), Exports(s.job.Name, p.Outputs, s.gang.Roles)...); len(copies) > 0 || register {
		return Changes{Deliver: copies, Register: register}
	}
	return s.end(cluster.JobSucceeded, "")
}

func (s *step) cancelPublishing() Changes {
	if s.view.Publication != nil {
		return s.end(cluster.JobCancelled, "cancelled while its outputs were copied: they stay published")
	}
	return s.end(cluster.JobCancelled, "cancelled")
}

// stop tells the tasks to end and keeps the gang from being placed.
func (s *step) stop(reason string) Changes {
	s.job.State, s.job.Reason = cluster.JobStopping, reason
	if s.gang.Stop {
		return s.put(false)
	}
	s.gang.Stop, s.gang.StopReason = true, reason
	return s.put(true)
}

// stopping ends the job once nothing of it runs. That the gang is stopped was read, so
// no plan can have been committed since.
func (s *step) stopping() Changes {
	switch {
	case !s.gang.Stop:
		s.gang.Stop, s.gang.StopReason = true, s.job.Reason
		return Changes{Gangs: []cluster.Gang{s.gang}}
	case !s.allEnded():
		return Changes{}
	case s.job.Cancel:
		return s.end(cluster.JobCancelled, "cancelled")
	}
	return s.end(cluster.JobFailed, s.job.Reason)
}

func (s *step) end(state cluster.JobState, reason string) Changes {
	s.job.State, s.job.Reason, s.job.Ended = state, reason, s.now
	s.job.Ran = s.gang.Ran + s.ran()
	return s.put(false)
}

func (s *step) put(gang bool) Changes {
	job := s.job
	changes := Changes{Job: &job}
	if gang {
		changes.Gangs = []cluster.Gang{s.gang}
	}
	if !job.State.Ended() {
		changes.WakeAt = s.deadline()
	}
	return changes
}

// deadline is when the job has run too long, or 0. The time of all attempts counts, and what they
// waited for room does not.
func (s *step) deadline() int64 {
	waits := s.job.State == cluster.JobQueued || s.job.State == cluster.JobRunning
	if s.job.MaxRuntime == 0 || !waits || len(s.tasks) == 0 {
		return 0
	}
	return s.placed() + int64(s.job.MaxRuntime-s.gang.Ran)
}

// ran is how long the attempt has had its room. When tasks ended their nodes say, by clocks of their own: it was not later than now.
func (s *step) ran() time.Duration {
	if len(s.tasks) == 0 {
		return 0
	}
	last := int64(0)
	for _, task := range s.tasks {
		if !task.Status.State.Ended() {
			last = s.now
		}
		last = max(last, task.Status.Ended)
	}
	return max(0, time.Duration(min(last, s.now)-s.placed()))
}

func (s *step) overrun() bool {
	deadline := s.deadline()
	return deadline != 0 && s.now >= deadline && !s.succeeded()
}

// placed is when the plan of this attempt was committed.
func (s *step) placed() int64 {
	first := s.now
	for _, task := range s.tasks {
		if task.Assigned > 0 {
			first = min(first, task.Assigned)
		}
	}
	return first
}

// succeeded reports whether all tasks but services have succeeded: the work is done.
func (s *step) succeeded() bool {
	done := 0
	for _, task := range s.tasks {
		switch {
		case s.service(task):
		case task.Status.State != cluster.TaskSucceeded:
			return false
		default:
			done++
		}
	}
	return done > 0
}

// service reports whether a task runs for the gang's others, and not for itself.
func (s *step) service(task cluster.Task) bool {
	role, _ := s.gang.Role(task.Role)
	return role.Program.Service
}

func (s *step) allEnded() bool {
	for _, task := range s.tasks {
		if !task.Status.State.Ended() {
			return false
		}
	}
	return true
}

// worst is the task that decides how an attempt went: a lost one before a failed one
// before a stopped one, and of those the first that ended. A service that ended by itself
// has failed.
func (s *step) worst() (cluster.Task, bool) {
	rank := map[cluster.TaskState]int{cluster.TaskLost: 3, cluster.TaskFailed: 2, cluster.TaskStopped: 1}
	var worst cluster.Task
	found := false
	for _, task := range s.tasks {
		if task.Status.State == cluster.TaskSucceeded && s.service(task) {
			task.Status.State = cluster.TaskFailed
			task.Status.Reason = "it ended by itself (exit code 0) while it was needed"
		}
		grade, most := rank[task.Status.State], rank[worst.Status.State]
		switch {
		case grade == 0:
		case !found, grade > most, grade == most && earlier(task, worst):
			worst, found = task, true
		}
	}
	return worst, found
}

func earlier(a, b cluster.Task) bool {
	if a.Status.Ended != b.Status.Ended {
		return a.Status.Ended < b.Status.Ended
	}
	return a.ID < b.ID
}

// Describe reads like "worker-1 failed on node b: exit code 3: out of memory".
func Describe(task cluster.Task) string {
	verb := map[cluster.TaskState]string{
		cluster.TaskFailed: "failed", cluster.TaskLost: "was lost", cluster.TaskStopped: "was stopped",
	}[task.Status.State]
	text := fmt.Sprintf("%s-%d %s on node %s", task.Role, task.Index, verb, task.Allocation.Node)
	reason := task.Status.Reason
	code := fmt.Sprintf("exit code %d", task.Status.ExitCode)
	if task.Status.State == cluster.TaskFailed && task.Status.ExitCode != 0 && !strings.Contains(reason, code) {
		text += ": " + code
	}
	if reason != "" {
		text += ": " + reason
	}
	return text
}

// lastWords are how the log of the service ends that failed, or that the failed task had to do
// with: the one of its number.
func (s *step) lastWords(worst cluster.Task) string {
	for _, task := range s.tasks {
		if task.Status.Message == "" || !s.service(task) || task.Index != worst.Index {
			continue
		}
		if s.service(worst) && task.ID != worst.ID {
			continue
		}
		said := strings.ReplaceAll(task.Status.Message, "\n", " | ")
		return fmt.Sprintf("; the log of %s-%d ends: %s", task.Role, task.Index, said)
	}
	return ""
}

// Backoff is the wait before restart number failures: it doubles each time, up to 10 minutes.
func Backoff(first time.Duration, failures int32) time.Duration {
	delay := first
	for i := int32(1); i < failures && delay < maxBackoff; i++ {
		delay *= 2
	}
	return min(delay, maxBackoff)
}

// publish gathers what the attempt's tasks uploaded. Roles come in the gang's order. An
// output's plain name belongs to the first task that has one of that name; those of
// later tasks are named "worker-1/model".
func (s *step) publish() *Publish {
	order := map[string]int{}
	for i, role := range s.gang.Roles {
		order[role.Name] = i
	}
	tasks := slices.Clone(s.tasks)
	slices.SortFunc(tasks, func(a, b cluster.Task) int {
		if a.Role != b.Role {
			return order[a.Role] - order[b.Role]
		}
		return int(a.Index - b.Index)
	})
	publish := &Publish{Gang: s.gang.ID(), Attempt: s.gang.Attempt}
	taken := map[string]bool{}
	for _, task := range tasks {
		for _, output := range task.Status.Outputs {
			if taken[output.Name] {
				output.Name = fmt.Sprintf("%s-%d/%s", task.Role, task.Index, output.Name)
			}
			taken[output.Name] = true
			publish.Outputs = append(publish.Outputs, output)
		}
	}
	return publish
}

// Copies says what to copy to bring outputs below an s3:// prefix: each keeps its file
// name, and those of one name that several tasks have become one, as SageMaker does it with
// the models of several hosts.
func Copies(outputs []cluster.Output, prefix string) []Copy {
	if prefix == "" {
		return nil
	}
	var copies []Copy
	at := map[string]int{}
	for _, output := range outputs {
		name := path.Base(output.Name)
		if output.Files > 0 {
			continue
		}
		if i, known := at[name]; known {
			copies[i].From = append(copies[i].From, output.URI)
			continue
		}
		at[name] = len(copies)
		copies = append(copies, Copy{From: []string{output.URI}, To: strings.TrimRight(prefix, "/") + "/" + path.Base(output.URI)})
	}
	return copies
}

// Exports says what to copy to bring the files that listings name to where the roles' exports go.
// Files of one export that several tasks have come together below its address.
func Exports(job string, outputs []cluster.Output, roles []cluster.Role) []Copy {
	var copies []Copy
	for _, role := range roles {
		for _, export := range role.Program.Exports {
			c := Copy{To: strings.TrimRight(export.To, "/") + "/", Listed: true, Output: export.Name}
			if export.Continuous {
				c.Live = cluster.AttemptsOf(job)
			}
			for _, output := range outputs {
				if output.Files > 0 && path.Base(output.Name) == export.Name {
					c.From = append(c.From, output.URI)
				}
			}
			if export.To != "" && (len(c.From) > 0 || c.Live != "") {
				copies = append(copies, c)
			}
		}
	}
	return copies
}
