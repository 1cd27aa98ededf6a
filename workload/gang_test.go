package workload_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/workload"
	"pgregory.net/rapid"
)

// world is a cluster with one job in it, and the rules of the log.
type world struct {
	job   cluster.Job
	view  workload.View
	spec  workload.OneGang
	now   int64
	wake  int64
	steps map[string]int // what was exercised
}

func newWorld(retries int32, backoff, most time.Duration, output string) *world {
	role := cluster.Role{
		Name: "worker", Count: 2, Ask: cluster.Ask{MilliCPU: 1000, Memory: 1 << 20},
		Program: cluster.Program{Command: []string{"true"}},
	}
	return &world{
		job: cluster.Job{
			Name: "digits", Kind: cluster.KindTraining, Owner: "ann", Queue: "default", State: cluster.JobQueued,
			MaxRuntime: most, Retry: cluster.Retry{Limit: retries, Backoff: backoff}, Submitted: 1, Revision: 1,
		},
		spec: workload.OneGang{Roles: []cluster.Role{role}, Output: output},
		now:  int64(time.Hour), steps: map[string]int{},
	}
}

// service is the name of a role whose tasks are for the others.
const service = "server"

// serve adds a service of one task, which has the last place among tasks.
func (w *world) serve() *world {
	w.spec.Roles = append(w.spec.Roles, cluster.Role{
		Name: service, Count: 1, Ask: cluster.Ask{MilliCPU: 1000, Memory: 1 << 20}, Program: cluster.Program{Command: []string{"serve"}, Service: true},
	})
	return w
}

func (w *world) gang() *cluster.Gang {
	if len(w.view.Gangs) == 0 {
		return nil
	}
	return &w.view.Gangs[0]
}

func (w *world) tasks() []*cluster.Task {
	var tasks []*cluster.Task
	for i := range w.view.Tasks {
		if w.gang() != nil && w.view.Tasks[i].Attempt == w.gang().Attempt {
			tasks = append(tasks, &w.view.Tasks[i])
		}
	}
	return tasks
}

func (w *world) allEnded() bool {
	for _, task := range w.tasks() {
		if !task.Status.State.Ended() {
			return false
		}
	}
	return true
}

// reconcile takes one step and applies it as the log would, refusing what the log
// refuses.
func (w *world) reconcile() (changed bool, err error) {
	changes := w.spec.Run(w.view, w.job, w.now)
	w.wake = changes.WakeAt
	if changes.Job != nil {
		if err := w.putJob(*changes.Job); err != nil {
			return false, err
		}
	}
	for _, gang := range changes.Gangs {
		if err := w.putGang(gang); err != nil {
			return false, err
		}
	}
	if p := changes.Publish; p != nil {
		if w.job.State.Ended() || p.Attempt != w.gang().Attempt {
			return false, fmt.Errorf("publishes attempt %d of a job that is %s", p.Attempt, w.job.State)
		}
		for _, task := range w.tasks() {
			if task.Status.State != cluster.TaskSucceeded && (task.Role != service || !task.Status.State.Ended()) {
				return false, fmt.Errorf("publishes while %s is %s", task.ID, task.Status.State)
			}
		}
		w.view.Publication = &cluster.Publication{Job: w.job.Name, Attempt: p.Attempt, Outputs: p.Outputs}
		w.steps["published"]++
	}
	if len(changes.Deliver) > 0 {
		w.job.Delivered = true
		w.steps["delivered"]++
	}
	return !changes.Empty(), nil
}

func (w *world) putJob(job cluster.Job) error {
	if err := job.Validate().Err(); err != nil {
		return err
	}
	if job.State != w.job.State && !w.job.State.CanBecome(job.State) {
		return fmt.Errorf("job goes from %s to %s", w.job.State, job.State)
	}
	if w.job.State.Ended() {
		return fmt.Errorf("a job that %s is changed", w.job.State)
	}
	if job.State.Ended() && !w.allEnded() {
		return fmt.Errorf("job %s while tasks run", job.State)
	}
	if job.State.Ended() && w.gang() != nil && !w.gang().Stop && len(w.tasks()) == 0 {
		return fmt.Errorf("job %s while its gang may yet be placed", job.State)
	}
	w.steps[string(job.State)]++
	w.job = job
	return nil
}

func (w *world) putGang(gang cluster.Gang) error {
	if err := gang.Validate().Err(); err != nil {
		return err
	}
	if old := w.gang(); old == nil {
		w.view.Gangs = []cluster.Gang{gang}
	} else {
		if gang.Attempt != old.Attempt && (gang.Attempt != old.Attempt+1 || !w.allEnded()) {
			return fmt.Errorf("attempt %d follows %d too early", gang.Attempt, old.Attempt)
		}
		*old = gang
	}
	w.gang().Revision++
	return nil
}

func (w *world) settle() error {
	for range 6 {
		changed, err := w.reconcile()
		if err != nil || !changed {
			return err
		}
	}
	return fmt.Errorf("still changes after 6 steps: job %s", w.job.State)
}

// place commits a plan, if the gang may be placed.
func (w *world) place() bool {
	gang := w.gang()
	if gang == nil || gang.Held || gang.Stop || gang.NotBefore > w.now || len(w.tasks()) > 0 || w.job.State.Ended() {
		return false
	}
	for r, role := range gang.Roles {
		for i := range role.Count {
			w.view.Tasks = append(w.view.Tasks, cluster.Task{
				ID: gang.TaskID(role.Name, i), Job: w.job.Name, Gang: gang.ID(), Role: role.Name, Index: i, Attempt: gang.Attempt,
				Allocation: cluster.Allocation{Node: string(rune('a' + 2*int32(r) + i))}, Assigned: w.now, Status: cluster.TaskStatus{State: cluster.TaskAssigned},
			})
		}
	}
	return true
}

func (w *world) report(i int, state cluster.TaskState, code int32, reason string) bool {
	tasks := w.tasks()
	if i >= len(tasks) || !tasks[i].Status.State.CanBecome(state) {
		return false
	}
	status := &tasks[i].Status
	status.State, status.ExitCode, status.Reason = state, code, reason
	if state.Ended() {
		status.Ended = w.now
	}
	if state == cluster.TaskSucceeded && tasks[i].Role != service {
		status.Outputs = []cluster.Output{{Name: "model", URI: fmt.Sprintf("s3://clary/jobs/digits/attempts/1/worker-%d/model.tar.gz", i)}}
	}
	return true
}

func (w *world) must(t *testing.T, state cluster.JobState, reason string) {
	t.Helper()
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	if w.job.State != state || !strings.Contains(w.job.Reason, reason) || reason == "" && w.job.Reason != "" {
		t.Fatalf("job is %s (%q), want %s (%q)", w.job.State, w.job.Reason, state, reason)
	}
}

func TestLifeOfAJob(t *testing.T) {
	const ok, failed, lost, stopped = cluster.TaskSucceeded, cluster.TaskFailed, cluster.TaskLost, cluster.TaskStopped
	tests := []struct {
		claim   string
		retries int32
		most    time.Duration
		output  string
		play    func(t *testing.T, w *world)
	}{
		{"waits, runs, publishes and succeeds", 0, 0, "", func(t *testing.T, w *world) {
			w.must(t, cluster.JobQueued, "")
			w.place()
			w.must(t, cluster.JobRunning, "")
			if w.job.Started != w.now {
				t.Errorf("started %d, was placed at %d", w.job.Started, w.now)
			}
			w.report(0, ok, 0, "")
			w.must(t, cluster.JobRunning, "")
			w.report(1, ok, 0, "")
			w.must(t, cluster.JobSucceeded, "")
			outputs := w.view.Publication.Outputs
			if len(outputs) != 2 || outputs[0].Name != "model" || outputs[1].Name != "worker-1/model" {
				t.Errorf("published %v", outputs)
			}
		}},
		{"succeeds only after its outputs were copied", 0, 0, "s3://ann/models/", func(t *testing.T, w *world) {
			w.must(t, cluster.JobQueued, "")
			w.place()
			w.report(0, ok, 0, "")
			w.report(1, ok, 0, "")
			w.must(t, cluster.JobSucceeded, "")
			if w.steps["delivered"] != 1 {
				t.Errorf("delivered %d times", w.steps["delivered"])
			}
		}},
		{"stops the rest when a task failed, then says which", 0, 0, "", func(t *testing.T, w *world) {
			w.must(t, cluster.JobQueued, "")
			w.place()
			w.must(t, cluster.JobRunning, "")
			w.report(1, failed, 3, "")
			w.must(t, cluster.JobRunning, "worker-1 failed on node b: exit code 3")
			if !w.gang().Stop {
				t.Error("the other task was not stopped")
			}
			w.report(0, stopped, 143, "")
			w.must(t, cluster.JobFailed, "worker-1 failed on node b: exit code 3")
		}},
		{"tries again by exit code", 3, 0, "", func(t *testing.T, w *world) {
			w.job.Retry.Only, w.job.Retry.Never = []int32{3, 4}, []int32{4}
			w.must(t, cluster.JobQueued, "")
			for _, code := range []int32{3, 0} { // 0: it could not be started
				w.place()
				w.report(0, failed, code, "")
				w.report(1, stopped, 143, "")
				if err := w.settle(); err != nil || w.job.State != cluster.JobQueued {
					t.Fatalf("after exit code %d it is %s: %v", code, w.job.State, err)
				}
				w.now = max(w.now, w.gang().NotBefore)
			}
			w.place()
			w.report(0, failed, 4, "")
			w.report(1, stopped, 143, "")
			w.must(t, cluster.JobFailed, "worker-0 failed on node a: exit code 4 (exit code 4 is not tried again)")
		}},
		{"retries with a backoff that doubles", 2, 0, "", func(t *testing.T, w *world) {
			for attempt := int32(1); attempt <= 3; attempt++ {
				if err := w.settle(); err != nil {
					t.Fatal(err)
				}
				w.now = max(w.now, w.gang().NotBefore)
				w.place()
				w.report(0, failed, 1, "")
				w.report(1, failed, 1, "")
				if attempt == 3 {
					break
				}
				w.must(t, cluster.JobQueued, "restarts: worker-0 failed on node a: exit code 1")
				if want := w.now + int64(time.Second)<<(attempt-1); w.gang().NotBefore != want {
					t.Errorf("attempt %d waits %s", attempt, time.Duration(w.gang().NotBefore-w.now))
				}
			}
			w.must(t, cluster.JobFailed, "attempt 3, no retry is left of 2")
		}},
		{"restarts at once and uncounted when a node was lost", 0, 0, "", func(t *testing.T, w *world) {
			w.must(t, cluster.JobQueued, "")
			w.place()
			w.must(t, cluster.JobRunning, "")
			w.report(1, failed, 1, "peer is gone")
			w.must(t, cluster.JobRunning, "worker-1 failed on node b: exit code 1: peer is gone")
			w.report(0, lost, 0, "node a lost")
			w.must(t, cluster.JobQueued, "worker-0 was lost on node a: node a lost")
			if w.job.Failures != 0 || w.gang().NotBefore != 0 || w.gang().Attempt != 2 || w.job.Attempt != 2 {
				t.Errorf("failures %d, not before %d, attempt %d", w.job.Failures, w.gang().NotBefore, w.gang().Attempt)
			}
		}},
		{"moves at once and uncounted when it is told to", 0, 0, "", func(t *testing.T, w *world) {
			w.must(t, cluster.JobQueued, "")
			w.place()
			w.must(t, cluster.JobRunning, "")
			w.gang().Stop, w.gang().StopReason, w.gang().Moves = true, "node a is drained", true
			w.must(t, cluster.JobRunning, "moves: node a is drained")
			w.report(0, stopped, 143, "node a is drained")
			w.must(t, cluster.JobRunning, "moves: node a is drained")
			w.report(1, failed, 1, "peer is gone")
			w.must(t, cluster.JobQueued, "restarts: node a is drained")
			if w.job.Failures != 0 || w.gang().NotBefore != 0 || w.gang().Attempt != 2 || w.gang().Stop || w.gang().Moves {
				t.Errorf("failures %d, gang %+v", w.job.Failures, w.gang())
			}
		}},
		{"is cancelled while it moves", 0, 0, "", func(t *testing.T, w *world) {
			w.must(t, cluster.JobQueued, "")
			w.place()
			w.must(t, cluster.JobRunning, "")
			w.gang().Stop, w.gang().StopReason, w.gang().Moves = true, "node a is drained", true
			w.must(t, cluster.JobRunning, "moves")
			w.job.Cancel = true
			w.must(t, cluster.JobStopping, "cancelled")
			w.report(0, stopped, 143, "")
			w.report(1, stopped, 143, "")
			w.must(t, cluster.JobCancelled, "cancelled")
		}},
		{"succeeds if it has before it could move", 0, 0, "", func(t *testing.T, w *world) {
			w.must(t, cluster.JobQueued, "")
			w.place()
			w.must(t, cluster.JobRunning, "")
			w.gang().Stop, w.gang().StopReason, w.gang().Moves = true, "node a is drained", true
			w.report(0, ok, 0, "")
			w.report(1, ok, 0, "")
			w.must(t, cluster.JobSucceeded, "")
		}},
		{"is cancelled while it waits, in two steps", 0, 0, "", func(t *testing.T, w *world) {
			w.must(t, cluster.JobQueued, "")
			w.job.Cancel = true
			if _, err := w.reconcile(); err != nil || w.job.State != cluster.JobStopping || !w.gang().Stop {
				t.Fatalf("first step: %s, %v", w.job.State, err)
			}
			w.must(t, cluster.JobCancelled, "cancelled")
		}},
		{"is cancelled before it was ever seen", 0, 0, "", func(t *testing.T, w *world) {
			w.job.Cancel = true
			w.must(t, cluster.JobCancelled, "cancelled")
		}},
		{"is cancelled when the plan won the race", 0, 0, "", func(t *testing.T, w *world) {
			w.must(t, cluster.JobQueued, "")
			w.place()
			w.job.Cancel = true
			w.must(t, cluster.JobStopping, "cancelled")
			w.report(0, stopped, 0, "")
			w.must(t, cluster.JobStopping, "cancelled")
			w.report(1, lost, 0, "")
			w.must(t, cluster.JobCancelled, "cancelled")
		}},
		{"is cancelled while its gang already stops for a failure", 9, 0, "", func(t *testing.T, w *world) {
			w.must(t, cluster.JobQueued, "")
			w.place()
			w.report(0, failed, 1, "")
			w.must(t, cluster.JobRunning, "worker-0")
			w.job.Cancel = true
			w.must(t, cluster.JobStopping, "cancelled")
			w.report(1, stopped, 0, "")
			w.must(t, cluster.JobCancelled, "cancelled")
		}},
		{"fails when it ran longer than it may", 5, time.Minute, "", func(t *testing.T, w *world) {
			w.must(t, cluster.JobQueued, "")
			w.place()
			w.must(t, cluster.JobRunning, "")
			if w.wake != w.now+int64(time.Minute) {
				t.Errorf("wakes at %d, placed at %d", w.wake, w.now)
			}
			w.now = w.wake
			w.must(t, cluster.JobStopping, "ran longer than its maximum run time of 1m0s")
			w.report(0, stopped, 0, "")
			w.report(1, stopped, 0, "")
			w.must(t, cluster.JobFailed, "ran longer than its maximum run time of 1m0s")
		}},
		{"counts its run time over restarts", 5, time.Minute, "", func(t *testing.T, w *world) {
			w.must(t, cluster.JobQueued, "")
			w.place()
			started := w.now
			w.must(t, cluster.JobRunning, "")
			w.now += int64(20 * time.Second)
			w.report(0, lost, 0, "")
			w.report(1, lost, 0, "")
			w.must(t, cluster.JobQueued, "restarts")
			w.now += int64(time.Hour) // it waits for room, which is no run time
			w.must(t, cluster.JobQueued, "restarts")
			w.place()
			w.must(t, cluster.JobRunning, "")
			if w.job.Started != started {
				t.Errorf("started %d, and again %d", started, w.job.Started)
			}
			if w.wake != w.now+int64(40*time.Second) {
				t.Errorf("wakes %s after it was placed again; 40s are left of its minute", time.Duration(w.wake-w.now))
			}
			w.now = w.wake
			w.must(t, cluster.JobStopping, "ran longer")
			w.report(0, stopped, 0, "")
			w.report(1, stopped, 0, "")
			w.must(t, cluster.JobFailed, "ran longer")
			if w.job.Ran != time.Minute {
				t.Errorf("it ran for %s in all", w.job.Ran)
			}
		}},
		{"does not believe a node whose clock is ahead", 5, time.Minute, "", func(t *testing.T, w *world) {
			w.must(t, cluster.JobQueued, "")
			w.place()
			w.must(t, cluster.JobRunning, "")
			w.now += int64(20 * time.Second)
			for i := range 2 {
				w.report(i, lost, 0, "")
				w.tasks()[i].Status.Ended = w.now + int64(time.Hour)
			}
			w.must(t, cluster.JobQueued, "restarts")
			w.place()
			w.must(t, cluster.JobRunning, "")
			if w.wake != w.now+int64(40*time.Second) {
				t.Errorf("wakes %s after it was placed again; 40s are left of its minute", time.Duration(w.wake-w.now))
			}
		}},
		{"succeeds though its end is seen after its time", 0, time.Minute, "", func(t *testing.T, w *world) {
			w.must(t, cluster.JobQueued, "")
			w.place()
			w.must(t, cluster.JobRunning, "")
			w.report(0, ok, 0, "")
			w.report(1, ok, 0, "")
			w.now += int64(time.Hour)
			w.must(t, cluster.JobSucceeded, "")
		}},
		{"has its gang stopped, whoever began to stop it", 0, 0, "", func(t *testing.T, w *world) {
			w.must(t, cluster.JobQueued, "")
			w.place()
			w.must(t, cluster.JobRunning, "")
			w.job.State, w.job.Reason = cluster.JobStopping, "by hand"
			w.must(t, cluster.JobStopping, "by hand")
			if !w.gang().Stop || w.gang().StopReason != "by hand" {
				t.Error("the gang was not stopped")
			}
		}},
		{"follows its owner's release", 0, 0, "", func(t *testing.T, w *world) {
			w.job.Held = true
			w.must(t, cluster.JobQueued, "")
			if !w.gang().Held || w.place() {
				t.Fatal("a held gang was placed")
			}
			w.job.Held = false
			w.must(t, cluster.JobQueued, "")
			if w.gang().Held || !w.place() {
				t.Fatal("a released gang is still held")
			}
		}},
		{"fails, counted, when a task was stopped though nobody asked", 0, 0, "", func(t *testing.T, w *world) {
			w.must(t, cluster.JobQueued, "")
			w.place()
			w.report(0, stopped, 0, "evicted")
			w.report(1, ok, 0, "")
			w.must(t, cluster.JobFailed, "worker-0 was stopped on node a: evicted")
		}},
	}
	for _, test := range tests {
		t.Run(test.claim, func(t *testing.T) {
			test.play(t, newWorld(test.retries, time.Second, test.most, test.output))
		})
	}
}

// TestEveryHistoryEnds draws what may happen to a job in any order. No step is ever
// illegal, an ended job never changes, steps come to rest, and once the world behaves
// the job ends.
func TestEveryHistoryEnds(t *testing.T) {
	exercised := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		most := time.Duration(rapid.SampledFrom([]int{0, 0, 40}).Draw(t, "most")) * time.Second
		output := rapid.SampledFrom([]string{"", "s3://b/p"}).Draw(t, "output")
		w := newWorld(rapid.SampledFrom([]int32{0, 0, 0, 1, 3}).Draw(t, "retries"), time.Second, most, output)
		w.job.Held = rapid.Bool().Draw(t, "held")
		highest := 1 // index of the last task
		if rapid.Bool().Draw(t, "service") {
			highest = 2
			w.serve()
		}
		for range rapid.IntRange(10, 40).Draw(t, "events") {
			event := rapid.SampledFrom([]string{"step", "settle", "settle", "place", "place", "report", "report", "report", "report", "lose", "time", "release", "move", "cancel?"}).Draw(t, "event")
			before, err := w.job, error(nil)
			switch event {
			case "step":
				_, err = w.reconcile()
			case "settle":
				err = w.settle()
			case "place":
				w.place()
			case "report":
				states := []cluster.TaskState{
					cluster.TaskRunning, cluster.TaskSucceeded, cluster.TaskSucceeded, cluster.TaskSucceeded, cluster.TaskFailed, cluster.TaskStopped,
				}
				w.report(rapid.IntRange(0, highest).Draw(t, "task"), rapid.SampledFrom(states).Draw(t, "state"), 1, "")
			case "lose":
				w.report(rapid.IntRange(0, highest).Draw(t, "task"), cluster.TaskLost, 0, "lost")
			case "move":
				if gang := w.gang(); gang != nil && !gang.Stop && len(w.tasks()) > 0 {
					gang.Stop, gang.StopReason, gang.Moves = true, "moved", true
					w.steps["moved"]++
				}
			case "time":
				w.now += int64(time.Second) * rapid.Int64Range(1, 20).Draw(t, "seconds")
			case "release":
				w.job.Held = w.job.Held && w.job.State.Ended()
			case "cancel?":
				w.job.Cancel = w.job.Cancel || !w.job.State.Ended() && rapid.IntRange(0, 3).Draw(t, "cancel") == 0
			}
			if err != nil {
				t.Fatalf("%s: %v", event, err)
			}
			if before.State.Ended() && (before.State != w.job.State || before.Reason != w.job.Reason) {
				t.Fatalf("job was %s, is %s", before.State, w.job.State)
			}
		}
		w.job.Held = w.job.Held && w.job.State.Ended()
		last := rapid.SampledFrom([]cluster.TaskState{cluster.TaskSucceeded, cluster.TaskSucceeded, cluster.TaskFailed}).Draw(t, "last")
		for round := 0; !w.job.State.Ended(); round++ {
			if err := w.settle(); err != nil {
				t.Fatal(err)
			}
			if round > 10 {
				t.Fatalf("never ends: %s %q", w.job.State, w.job.Reason)
			}
			w.now += int64(11 * time.Minute)
			w.place()
			for i := range w.tasks() {
				w.report(i, last, 0, "")
			}
		}
		if changes := w.spec.Run(w.view, w.job, w.now+int64(time.Hour)); !changes.Empty() || changes.WakeAt != 0 {
			t.Fatalf("an ended job wants %+v", changes)
		}
		if highest == 2 && w.job.State == cluster.JobSucceeded {
			w.steps["served"]++
		}
		for what, n := range w.steps {
			exercised[what] += n
		}
	})
	for _, what := range []string{"running", "queued", "publishing", "stopping", "succeeded", "failed", "cancelled", "published", "delivered", "moved", "served"} {
		if exercised[what] == 0 {
			t.Errorf("%s was never exercised: %v", what, exercised)
		}
	}
	t.Log(exercised)
}
