package e2e

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/workload/tuning"
)

// digitsSweep looks for a network that reads digits, 60 trials, four at a time.
const digitsSweep = `{
	"space": {"parameters": [
		{"name": "rate", "type": "float", "low": 1e-4, "high": 0.1, "scale": "log", "path": "optimizer.adam.rate"},
		{"name": "units", "type": "int", "low": 4, "high": 48, "path": "network.layers[0].dense.units"},
		{"name": "activation", "type": "categorical", "choices": ["relu", "tanh"], "path": "network.layers[0].dense.activation"},
		{"name": "batch", "type": "ordered", "choices": [32, 64, 128]}]},
	"objectives": [{"name": "validation_loss"}], "seed": 7, "budget": {"trials": 60}, "parallel": 4,
	"initial": [{"rate": 0.002, "units": 32, "activation": "relu", "batch": 64}],
	"trial": {
		"network": {"input": [64], "layers": [{"dense": {"units": 1}}, {"dense": {"units": 10}}], "loss": "cross_entropy"},
		"optimizer": {"adam": {"rate": 1}}, "data": {"format": "csv", "label": "last", "scale": 16, "validation_fraction": 0.2},
		"epochs": 20, "batch": 1, "seed": 42, "inputs": {"train": "s3://clary/e2e/train.csv.gz"},
		"resources": {"cores": 0.5, "memory": "256MiB"}, "server_resources": {"cores": 0.25, "memory": "128MiB"}}}`

func TestASweepEndsAsItShouldWhateverIsKilledOnTheWay(t *testing.T) {
	m := start(t, 3, 2)
	m.Clary("cp", "../../examples/digits/train.csv.gz", "s3://clary/e2e/train.csv.gz")
	c := m.Client()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	began := time.Now()
	if _, err := c.Submit(ctx, cluster.Job{Name: "digits", Kind: cluster.KindTuning, Spec: []byte(digitsSweep), Retry: cluster.Retry{Limit: 2}}); err != nil {
		t.Fatal(err)
	}
	m.ended(ctx, c, "digits", 8)
	m.killLeader()
	m.ended(ctx, c, "digits", 16)
	m.killLeader()
	m.ended(ctx, c, "digits", 24)
	m.Kill("n1")
	m.ended(ctx, c, "digits", 32)
	m.Again("n1")
	broken := m.breakTrial(ctx, c)

	view := m.swept(ctx, c, "digits")
	t.Logf("60 trials took %s; trial %d was killed", time.Since(began).Round(time.Second), broken)
	if view.Job.State != cluster.JobSucceeded || view.Sweep.Counts != (cluster.TrialCounts{Complete: 60}) {
		t.Fatalf("%s (%s): %+v", view.Job.State, view.Job.Reason, view.Sweep)
	}
	var trials []cluster.Trial
	best := 0
	for trial, err := range c.AllTrials(ctx, "digits", client.TrialFilter{}) {
		if err != nil {
			t.Fatal(err)
		}
		if trials = append(trials, trial.Trial); trial.Values[0] < trials[best].Values[0] {
			best = len(trials) - 1
		}
	}
	if len(trials) != 60 || view.Sweep.Best != int64(best) || view.Best[0].Number != int64(best) || trials[broken].Failures != 1 {
		t.Errorf("%d trials, the best is %d; the sweep says %d, and that trial %d failed %d times", len(trials), best, view.Sweep.Best, broken, trials[broken].Failures)
	}
	if err := tuning.Verify(view.Job, trials, nil); err != nil {
		t.Error(err)
	}
	// A training is the same to the bit: a trial's value is what its job comes to without
	// any trouble.
	show, err := tuning.NewShower(view.Job.Spec)
	if err != nil {
		t.Fatal(err)
	}
	for _, trial := range []cluster.Trial{trials[best], trials[broken]} {
		if got := m.alone(ctx, c, show, trial); got != trial.Values[0] {
			t.Errorf("trial %d has validation loss %v, alone it has %v", trial.Number, trial.Values[0], got)
		}
	}
	if jobs, _, err := c.Jobs(ctx, client.Filter{Parent: "digits"}); err != nil || len(jobs) > 0 {
		t.Errorf("jobs of trials are left: %v, %v", jobs, err)
	}
	m.forget(ctx, c, trials[best].Model)
}

// killLeader kills the leader, and starts it again when there is another.
func (m *machines) killLeader() {
	m.T.Helper()
	leader := m.Leader()
	m.Kill(leader)
	m.WaitFor("another leader", 15*time.Second, func() bool { return m.Leader() != leader })
	m.Again(leader)
}

// ended waits until so many trials of the sweep have ended.
func (m *machines) ended(ctx context.Context, c *client.Client, sweep string, many int64) {
	m.T.Helper()
	for view, err := range c.WatchSweep(ctx, sweep) {
		if err != nil {
			m.T.Fatal(err)
		}
		if counts := view.Sweep.Counts; counts.Total()-counts.Live() >= many || view.Job.State.Ended() {
			return
		}
	}
}

// swept waits for the sweep's end.
func (m *machines) swept(ctx context.Context, c *client.Client, sweep string) (last client.SweepView) {
	m.T.Helper()
	for view, err := range c.WatchSweep(ctx, sweep) {
		if err != nil {
			m.T.Fatalf("%v; it was %+v with %d alive", err, last.Sweep, len(last.Live))
		}
		last = view
	}
	return last
}

// breakTrial kills the processes of a trial that runs.
func (m *machines) breakTrial(ctx context.Context, c *client.Client) int64 {
	m.T.Helper()
	number := int64(-1)
	m.WaitFor("a trial that could be killed", time.Minute, func() bool {
		view, err := c.Sweep(ctx, "digits")
		if err != nil {
			return false
		}
		for _, trial := range slices.Backward(view.Live) {
			for _, pid := range m.taskPids(trial.Job) {
				if syscall.Kill(pid, syscall.SIGKILL) == nil {
					number = trial.Number
				}
			}
			if number >= 0 {
				return true
			}
		}
		return false
	})
	return number
}

// alone runs a trial's training as a job of its own, and returns its loss.
func (m *machines) alone(ctx context.Context, c *client.Client, show tuning.Shower, trial cluster.Trial) float64 {
	m.T.Helper()
	spec, err := show.TrialSpec(trial)
	if err != nil {
		m.T.Fatal(err)
	}
	done, err := c.Submit(ctx, cluster.Job{Kind: cluster.KindTraining, Spec: spec})
	if err != nil {
		m.T.Fatal(err)
	}
	m.Waits(0, done.Job.Name)
	view, err := c.Job(ctx, done.Job.Name)
	if err != nil {
		m.T.Fatal(err)
	}
	for _, task := range view.Tasks {
		if loss, said := task.Status.Progress.Metrics["validation_loss"]; said {
			return loss
		}
	}
	text, _ := json.Marshal(view.Tasks)
	m.T.Fatalf("no loss: %s", text)
	return 0
}

// forget sees that the best model is there though its job is gone, deletes the sweep, and sees
// that nothing of it is left.
func (m *machines) forget(ctx context.Context, c *client.Client, model string) {
	m.T.Helper()
	if left := m.Clary("ls", "-r", "s3://clary/jobs/"); model == "" || !strings.Contains(left, strings.TrimPrefix(model, "s3://clary/")) {
		m.T.Errorf("the best model is %q, and there are %s", model, left)
	}
	if err := c.Delete(ctx, "digits"); err != nil {
		m.T.Error(err)
	}
	if _, err := c.Sweep(ctx, "digits"); err == nil {
		m.T.Error("a deleted sweep is there")
	}
	if left := m.Clary("ls", "-r", "s3://clary/jobs/"); strings.Contains(left, "digits-t") {
		m.T.Errorf("left in the store: %s", left)
	}
}
