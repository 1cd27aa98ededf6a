package workload_test

import (
	"testing"

	"github.com/clary-ml/clary/cluster"
)

// The tasks of these worlds are two workers, and behind them the service that they need.
func TestLifeOfAGangWithAService(t *testing.T) {
	const ok, failed, lost, stopped = cluster.TaskSucceeded, cluster.TaskFailed, cluster.TaskLost, cluster.TaskStopped
	for _, test := range []struct {
		claim   string
		retries int32
		play    func(t *testing.T, w *world)
	}{
		{"stops the service when the work is done, and publishes then", 0, func(t *testing.T, w *world) {
			w.report(0, ok, 0, "")
			w.must(t, cluster.JobRunning, "")
			w.report(1, ok, 0, "")
			w.must(t, cluster.JobRunning, "")
			if !w.gang().Stop || w.view.Publication != nil {
				t.Fatalf("the gang: %+v, published %v", w.gang(), w.view.Publication)
			}
			w.report(2, stopped, 143, "")
			w.must(t, cluster.JobSucceeded, "")
			if w.view.Publication == nil || len(w.view.Publication.Outputs) != 2 {
				t.Errorf("published %+v", w.view.Publication)
			}
		}},
		{"does not mind how a service ends that is no longer needed", 0, func(t *testing.T, w *world) {
			w.report(0, ok, 0, "")
			w.report(1, ok, 0, "")
			w.must(t, cluster.JobRunning, "")
			w.report(2, failed, 1, "was killed")
			w.must(t, cluster.JobSucceeded, "")
		}},
		{"nor one whose node is lost by then", 0, func(t *testing.T, w *world) {
			w.report(0, ok, 0, "")
			w.report(1, ok, 0, "")
			w.report(2, lost, 0, "")
			w.must(t, cluster.JobSucceeded, "")
		}},
		{"fails when the service does", 0, func(t *testing.T, w *world) {
			w.report(2, failed, 3, "no model")
			w.must(t, cluster.JobRunning, "server-0 failed on node c: exit code 3: no model")
			w.report(0, stopped, 143, "")
			w.report(1, stopped, 143, "")
			w.must(t, cluster.JobFailed, "server-0 failed on node c: exit code 3: no model")
		}},
		{"fails when the service ends by itself too early, though without an error", 0, func(t *testing.T, w *world) {
			w.report(0, ok, 0, "")
			w.report(2, ok, 0, "")
			w.must(t, cluster.JobRunning, "server-0 failed on node c: it ended by itself (exit code 0) while it was needed")
			w.report(1, stopped, 143, "")
			w.must(t, cluster.JobFailed, "it ended by itself")
		}},
		{"restarts both when the service was killed", 1, func(t *testing.T, w *world) {
			w.report(2, failed, 137, "")
			w.must(t, cluster.JobRunning, "server-0 failed")
			w.report(0, stopped, 143, "")
			w.report(1, stopped, 143, "")
			w.must(t, cluster.JobQueued, "restarts")
			w.now = w.gang().NotBefore
			w.place()
			w.must(t, cluster.JobRunning, "")
			w.report(0, ok, 0, "")
			w.report(1, ok, 0, "")
			w.must(t, cluster.JobRunning, "")
			w.report(2, stopped, 0, "")
			w.must(t, cluster.JobSucceeded, "")
		}},
		{"is cancelled while its service is stopped", 0, func(t *testing.T, w *world) {
			w.report(0, ok, 0, "")
			w.report(1, ok, 0, "")
			w.must(t, cluster.JobRunning, "")
			w.job.Cancel = true
			w.must(t, cluster.JobStopping, "cancelled")
			w.report(2, stopped, 0, "")
			w.must(t, cluster.JobCancelled, "cancelled")
		}},
	} {
		t.Run(test.claim, func(t *testing.T) {
			w := newWorld(test.retries, 1, 0, "").serve()
			w.must(t, cluster.JobQueued, "")
			w.place()
			w.must(t, cluster.JobRunning, "")
			test.play(t, w)
		})
	}
}
