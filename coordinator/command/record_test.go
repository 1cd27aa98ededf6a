package command_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
)

func TestARecordIsAllOrNothing(t *testing.T) {
	w := newWorld(t)
	r := submission("one")
	r.Changes[1].Gang.Queue = "nowhere"
	w.refuses(r, fault.Invalid, `queue: "nowhere" does not exist`)
	if job := w.job("one"); job.Revision != 0 {
		t.Error("the job of a refused record exists")
	}
	w.refuses(record(), fault.Invalid, "changes")
	w.refuses(record(submission("one").Changes[0], submission("one").Changes[0]), fault.Invalid, "twice")
	w.refuses(submission("Bad Name"), fault.Invalid, "is not a name")
}

func TestARecordExpectsTheRevisionsItRead(t *testing.T) {
	w := newWorld(t)
	revision := w.must(submission("one")).Revision
	if job := w.job("one"); job.Revision != revision {
		t.Errorf("the job is at %d, its command at %d", job.Revision, revision)
	}
	w.refuses(submission("one"), fault.Conflict, fmt.Sprintf(`job "one" exists already, at revision %d`, revision))
	job := w.job("one")
	job.Priority = 3
	w.must(w.putJob(job))
	w.refuses(w.putJob(job), fault.Conflict, fmt.Sprintf("is at revision %d, not %d", revision+1, revision))
	job.Name = "two"
	w.refuses(w.putJob(job), fault.Conflict, "does not exist; it was expected at revision")
}

func TestAPutThatChangesNothingKeepsTheRevision(t *testing.T) {
	w := newWorld(t)
	w.must(submission("one"))
	job, before := w.job("one"), w.dump()
	w.must(w.putJob(job))
	if w.dump() != before {
		t.Error("something has changed")
	}
	job.Revision++
	w.refuses(w.putJob(job), fault.Conflict, "read it again")
}

func TestJobsFollowTheirDrawingAndKeepWhatWasSubmitted(t *testing.T) {
	states := []cluster.JobState{
		cluster.JobQueued, cluster.JobRunning, cluster.JobPublishing, cluster.JobStopping,
		cluster.JobSucceeded, cluster.JobFailed, cluster.JobCancelled,
	}
	reach := map[cluster.JobState][]cluster.JobState{
		cluster.JobQueued: nil, cluster.JobRunning: states[1:2], cluster.JobPublishing: states[1:3],
		cluster.JobStopping: {cluster.JobStopping}, cluster.JobFailed: {cluster.JobFailed},
		cluster.JobCancelled: {cluster.JobCancelled},
		cluster.JobSucceeded: {cluster.JobRunning, cluster.JobPublishing, cluster.JobSucceeded},
	}
	for _, from := range states {
		for _, to := range states {
			w := newWorld(t)
			w.must(submission("one"))
			w.step("one", reach[from]...)
			job := w.job("one")
			job.State, job.Priority = to, 9
			err := w.run(w.putJob(job)).Err
			allowed := !from.Ended() && (from == to || from.CanBecome(to))
			if allowed != (err == nil) {
				t.Errorf("%s to %s: %v", from, to, err)
			}
		}
	}
	w := newWorld(t)
	r := submission("one")
	r.Changes[0].Job.State = cluster.JobRunning
	w.refuses(r, fault.Invalid, "a new job is queued")
	w.must(submission("one"))
	for field, change := range map[string]func(*cluster.Job){
		"kind": func(j *cluster.Job) { j.Kind = "tuning" }, "owner": func(j *cluster.Job) { j.Owner = "eve" },
		"spec": func(j *cluster.Job) { j.Spec = nil }, "submitted": func(j *cluster.Job) { j.Submitted = 7 },
		"request_id": func(j *cluster.Job) { j.RequestID = "x" },
	} {
		job := w.job("one")
		change(&job)
		w.refuses(w.putJob(job), fault.Invalid, field+": it never changes")
	}
	job := w.job("one")
	job.Cancel = true
	w.must(w.putJob(job))
	job = w.job("one")
	job.Cancel = false
	w.refuses(w.putJob(job), fault.Conflict, "not taken back")
}

func TestACancelledJobGetsNoNewWork(t *testing.T) {
	w := newWorld(t)
	w.submit("one")
	job := w.job("one")
	job.Cancel = true
	w.must(w.putJob(job))
	w.refuses(w.nextAttempt("one"), fault.Conflict, "its job is to end")
	gang := w.gang("one")
	gang.Priority = 5
	w.refuses(record(command.Change{Expect: gang.Revision, Gang: &gang}), fault.Conflict, "its job is to end")
	gang = w.gang("one")
	gang.Stop, gang.StopReason = true, "cancelled"
	w.must(record(command.Change{Expect: gang.Revision, Gang: &gang}))
	if refused := w.must(command.CommitPlan{Placements: []cluster.Placement{w.fit("one")}}).Refused; len(refused) != 1 {
		t.Error("a stopped gang of a cancelled job was placed")
	}
}

func TestAGangNeedsItsJobInTheRecord(t *testing.T) {
	w := newWorld(t)
	w.refuses(record(submission("one").Changes[1]), fault.Conflict, "its job does not exist")
	w.submit("one")
	gang := w.gang("one")
	gang.Held = true
	w.refuses(record(command.Change{Expect: gang.Revision, Gang: &gang}), fault.Invalid, "must put its job too")
	job := w.job("one")
	w.must(record(command.Change{Expect: job.Revision, Job: &job}, command.Change{Expect: gang.Revision, Gang: &gang}))
	if after := w.job("one"); after.Revision != job.Revision {
		t.Error("a job that was only expected has a new revision")
	}
}

func TestAnAttemptBeginsWhenTheOneBeforeHasEnded(t *testing.T) {
	w := newWorld(t)
	w.submit("one")
	w.place("one")
	w.refuses(w.nextAttempt("one"), fault.Conflict, "task one/main/worker-0.1 is assigned")
	for attempt := 1; attempt <= 5; attempt++ {
		w.report(fmt.Sprintf("one/main/worker-0.%d", attempt), cluster.TaskStatus{State: cluster.TaskFailed})
		w.must(w.nextAttempt("one"))
		w.place("one")
	}
	if got, want := ids(w), []string{"one/main/worker-0.4", "one/main/worker-0.5", "one/main/worker-0.6"}; !slices.Equal(got, want) {
		t.Errorf("kept %v; want %v", got, want)
	}
	job, gang := w.job("one"), w.gang("one")
	put := func(change func(*cluster.Gang)) command.Record {
		changed := gang
		changed.Roles = slices.Clone(gang.Roles)
		change(&changed)
		return record(command.Change{Expect: job.Revision, Job: &job}, command.Change{Expect: gang.Revision, Gang: &changed})
	}
	w.refuses(put(func(g *cluster.Gang) { g.Attempt += 2 }), fault.Conflict, "after 6 comes 7, not 8")
	w.refuses(put(func(g *cluster.Gang) { g.Attempt-- }), fault.Conflict, "after 6 comes 7, not 5")
	w.refuses(put(func(g *cluster.Gang) { g.Roles[0].Ask.MilliCPU = 9 }), fault.Conflict, "attempt 6 is placed")
	w.refuses(put(func(g *cluster.Gang) { g.Owner = "eve" }), fault.Invalid, "never change")
	w.must(put(func(g *cluster.Gang) { g.Stop = true }))
	job, gang = w.job("one"), w.gang("one")
	w.refuses(put(func(g *cluster.Gang) { g.Stop = false }), fault.Conflict, "told to end")
	fresh := submission("two")
	fresh.Changes[1].Gang.Attempt = 2
	w.refuses(fresh, fault.Invalid, "begins with 1, not 2")
}

func TestDeletingAJobTakesAllOfItAlong(t *testing.T) {
	w := newWorld(t)
	w.submit("one")
	w.submit("one2") // a name that begins alike
	w.place("one")
	drop := func() command.Record {
		return record(command.Change{Expect: w.job("one").Revision, Delete: &command.Key{Kind: state.KindJob, ID: "one"}})
	}
	w.refuses(drop(), fault.Conflict, "is queued: cancel it")
	w.step("one", cluster.JobFailed)
	w.refuses(drop(), fault.Conflict, "its task one/main/worker-0.1 is assigned")
	w.report("one/main/worker-0.1", cluster.TaskStatus{State: cluster.TaskFailed})
	w.must(drop())
	s := w.read()
	_, job := s.Job("one")
	_, gang := s.Gang("one/main")
	_, other := s.Gang("one2/main")
	if job || gang || len(ids(w)) != 0 || !other {
		t.Errorf("job %v, gang %v, tasks %v, the other's gang %v", job, gang, ids(w), other)
	}
	w.refuses(record(command.Change{Delete: &command.Key{Kind: state.KindJob, ID: "one"}}), fault.NotFound, "does not exist")
	w.refuses(record(command.Change{Delete: &command.Key{Kind: state.KindTask, ID: "x"}}), fault.Invalid, "sweeps, trials, models and versions only")
	gangKey := &command.Key{Kind: state.KindGang, ID: "one2/main"}
	w.refuses(record(command.Change{Expect: w.gang("one2").Revision, Delete: gangKey}), fault.Conflict, "only gangs of ended jobs")
}

func TestQueuesMakeATreeAndAreNotDeletedInUse(t *testing.T) {
	w := newWorld(t)
	queue := func(name, parent string) command.Change {
		old, _ := w.read().Queue(name)
		return command.Change{Expect: old.Revision, Queue: &cluster.Queue{Name: name, Parent: parent, Weight: 1}}
	}
	drop := func(name string) command.Record {
		old, _ := w.read().Queue(name)
		return record(command.Change{Expect: old.Revision, Delete: &command.Key{Kind: state.KindQueue, ID: name}})
	}
	w.refuses(record(queue("child", "top")), fault.Invalid, `"top" does not exist`)
	w.must(record(queue("top", ""), queue("child", "top")))
	w.refuses(record(queue("top", "child")), fault.Invalid, "below itself")
	w.refuses(record(queue("child", "child")), fault.Invalid, "below itself")
	w.refuses(drop("top"), fault.Conflict, `"child" is below it`)
	w.refuses(drop(cluster.DefaultQueue), fault.Invalid, "cannot be deleted")
	r := submission("one")
	r.Changes[0].Job.Queue = "child"
	w.must(r)
	w.refuses(drop("child"), fault.Conflict, `job "one" is in it`)
	job := w.job("one")
	job.Queue = "top"
	w.refuses(w.putJob(job), fault.Invalid, `"top" has others below it and takes no jobs: there is child`)
	w.refuses(record(queue("under", "child")), fault.Conflict, `1 jobs of queue "child" have not ended`)
	job.Queue = "default"
	w.must(w.putJob(job))
	w.must(record(queue("under", "child")))
	w.must(drop("under"))
	w.must(drop("child"))
	w.refuses(record(queue("under", "default")), fault.Invalid, "cannot have others below it")
}

func TestATokenIsNeverUnrevokedOrGivenToAnotherKey(t *testing.T) {
	w := newWorld(t)
	token := cluster.Token{ID: "t", Kind: cluster.TokenJoin, Role: cluster.RoleAgent, Hash: make([]byte, 32)}
	put := func(change func(*cluster.Token)) command.Record {
		next := token
		change(&next)
		old, _ := w.read().Token("t")
		return record(command.Change{Expect: old.Revision, Token: &next})
	}
	w.must(put(func(*cluster.Token) {}))
	token.BoundKey = "k1"
	w.must(put(func(*cluster.Token) {}))
	w.refuses(put(func(x *cluster.Token) { x.BoundKey = "k2" }), fault.Denied, "another key")
	w.refuses(put(func(x *cluster.Token) { x.Role = cluster.RoleCoordinator }), fault.Invalid, "never change")
	token.Revoked = true
	w.must(put(func(*cluster.Token) {}))
	w.refuses(put(func(x *cluster.Token) { x.Revoked = false }), fault.Conflict, "not taken back")
}
