package submit

import (
	"testing"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
)

func TestTheLineOfAJobSaysWhereItStands(t *testing.T) {
	worker := cluster.Task{
		ID: "digits/main/worker-0.2", Role: "worker", Attempt: 2,
		Status: cluster.TaskStatus{Progress: cluster.Progress{Epoch: 9, Step: 45, Total: 100, Metrics: map[string]float64{"validation_accuracy": 0.95123, "train_loss": 0.1, "rate": 0.001}}},
	}
	older := cluster.Task{ID: "digits/main/worker-0.1", Role: "worker", Attempt: 1, Status: cluster.TaskStatus{Progress: cluster.Progress{Epoch: 99}}}
	server := cluster.Task{ID: "digits/main/server-0.2", Role: "server", Attempt: 2}
	tasks := []cluster.Task{older, server, worker}
	for _, row := range []struct {
		name       string
		view       client.JobView
		waits      string
		line, news string
	}{
		{
			"waiting",
			client.JobView{Job: cluster.Job{Name: "digits", State: cluster.JobQueued, Attempt: 1}},
			"needs 4 GPUs",
			"digits  queued  needs 4 GPUs", "digits  queued  needs 4 GPUs",
		},
		{
			"held",
			client.JobView{Job: cluster.Job{Name: "digits", State: cluster.JobQueued, Held: true}},
			"",
			"digits  queued (held)", "digits  queued (held)",
		},
		{
			"running, by the worker of the newest attempt",
			client.JobView{Job: cluster.Job{Name: "digits", State: cluster.JobRunning, Attempt: 2}, Tasks: tasks},
			"",
			"digits  running  attempt 2  █████████░░░░░░░░░░░ 45%  epoch 9  validation accuracy 0.9512  train loss 0.1000  rate 0.001",
			"digits  running  attempt 2  epoch 9  validation accuracy 0.9512  train loss 0.1000  rate 0.001",
		},
		{
			"failed",
			client.JobView{Job: cluster.Job{Name: "digits", State: cluster.JobFailed, Reason: "exit\ncode 3\x1b[2J"}},
			"",
			"digits  failed  exit code 3 [2J", "digits  failed  exit code 3 [2J",
		},
	} {
		if line, news := JobLine(row.view, row.waits); line != row.line || news != row.news {
			t.Errorf("%s:\n%q\n%q", row.name, line, news)
		}
	}
}
