package command_test

import (
	"strings"
	"testing"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
)

func TestOneJobMoreThanTheSettingsAllowIsRefusedAndChangesNothing(t *testing.T) {
	for path, limit := range map[string]func(*cluster.Limits){
		"user_queued_jobs": func(l *cluster.Limits) { l.UserQueuedJobs = 2 },
		"user_jobs":        func(l *cluster.Limits) { l.UserJobs = 2 },
		"queued_jobs":      func(l *cluster.Limits) { l.QueuedJobs = 2 },
		"jobs":             func(l *cluster.Limits) { l.Jobs = 2 },
	} {
		w := newWorld(t)
		set := w.read().Settings()
		limit(&set.Limits)
		w.must(record(command.Change{Settings: &set}))
		put := func(name, owner, parent string) command.Record {
			return record(command.Change{Job: &cluster.Job{Name: name, Kind: "training", Owner: owner, Queue: "default", State: cluster.JobQueued, Attempt: 1, Parent: parent}})
		}
		w.must(put("one", "ada", ""))
		w.must(put("two", "ada", ""))
		w.refuses(put("three", "ada", ""), fault.Exhausted, "limits."+path+"=N")
		parent, _ := w.read().Job("one")
		made := put("made", "ada", "one") // by another job: counted, and not refused
		made.Changes = append([]command.Change{{Expect: parent.Revision, Check: &command.Key{Kind: state.KindJob, ID: "one"}}}, made.Changes...)
		w.must(made)
		if unended, waiting := w.read().Crowd("ada"); unended != 3 || waiting != 3 {
			t.Errorf("%s: %d jobs, %d wait", path, unended, waiting)
		}
		ofUser := strings.HasPrefix(path, "user_")
		if ofUser {
			w.must(put("other", "bob", ""))
		} else {
			w.refuses(put("other", "bob", ""), fault.Exhausted, "jobs of all users")
		}
		for i, name := range []string{"two", "made"} {
			w.step(name, cluster.JobRunning, cluster.JobFailed)
			if unended, waiting := w.read().Crowd("ada"); unended != int64(2-i) || waiting != int64(2-i) {
				t.Errorf("%s: after %s ended there are %d jobs, %d wait", path, name, unended, waiting)
			}
		}
		if ofUser { // bob's job is there, too
			w.step("other", cluster.JobRunning, cluster.JobFailed)
		}
		w.must(put("three", "ada", ""))
	}
}
