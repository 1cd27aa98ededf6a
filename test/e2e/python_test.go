package e2e

import (
	"bytes"
	"context"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/workload/tuning"
)

// pythonClient installs sdk/python into a virtual environment and returns its interpreter.
func (m *machines) pythonClient() string {
	m.T.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	folder := m.Path("venv")
	if out, err := exec.CommandContext(ctx, "/usr/bin/python3", "-m", "venv", folder).CombinedOutput(); err != nil {
		m.T.Fatalf("%v: %s", err, out)
	}
	// Built from a copy: the build leaves its folders beside the source.
	source := m.Path("python")
	if out, err := exec.CommandContext(ctx, "cp", "-r", filepath.Join("..", "..", "sdk", "python"), source).CombinedOutput(); err != nil {
		m.T.Fatalf("%v: %s", err, out)
	}
	pip := exec.CommandContext(ctx, filepath.Join(folder, "bin", "pip"), "install", "--quiet", "--disable-pip-version-check", source)
	if out, err := pip.CombinedOutput(); err != nil {
		if text := string(out); strings.Contains(text, "No matching distribution") || strings.Contains(text, "connection") {
			m.T.Skipf("skipped: grpcio and protobuf cannot be had here: %s", out)
		}
		m.T.Fatalf("%v: %s", err, out)
	}
	return filepath.Join(folder, "bin", "python")
}

func TestThePythonClientRunsJobsAndStudies(t *testing.T) {
	m := start(t, 3, 1)
	python := m.pythonClient()
	t.Run("tests", m.pythonTests(python))
	t.Run("another leader", m.pythonWorkers(python))
}

func (m *machines) pythonTests(python string) func(*testing.T) {
	return func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		tests := exec.CommandContext(ctx, python, "-m", "unittest", "discover", "-v", "-s", "tests")
		tests.Dir, tests.Env = m.Path("python"), slices.Clone(m.Env)
		out, err := tests.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, name := range []string{"test_a_job_is_submitted_followed_and_waited_for", "test_many_workers_share_a_study", "test_a_model_from_its_job_to_its_deletion", "test_an_endpoint_from_its_making_to_its_end"} {
			if strings.Contains(string(out), "skipped") || !strings.Contains(string(out), name) {
				t.Errorf("not all was tested:\n%s", out)
			}
		}
		t.Logf("%s", out)
	}
}

// pythonWorkers kills the leader while workers ask, report and tell: they go on with the next
// one, and no suggestion differs from what it would have been.
func (m *machines) pythonWorkers(python string) func(*testing.T) {
	return func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		c := m.Client()
		const study = `{"space": {"parameters": [{"name": "lr", "type": "float", "low": 1e-4, "high": 0.1, "scale": "log"}, {"name": "depth", "type": "int", "low": 1, "high": 8}]},
			"objectives": [{"name": "loss"}], "seed": 3, "budget": {"trials": 60}, "parallel": 6}`
		if _, err := c.Submit(ctx, cluster.Job{Name: "study", Kind: cluster.KindTuning, Spec: []byte(study)}); err != nil {
			t.Fatal(err)
		}
		workers := exec.CommandContext(ctx, python, "tests/workers.py", "study", "6")
		workers.Dir = m.Path("python")
		workers.Env = append(slices.Clone(m.Env), "CLARY_ADDRESS="+strings.Join(m.Context().Addresses, ","))
		var said bytes.Buffer
		workers.Stdout, workers.Stderr = &said, &said
		if err := workers.Start(); err != nil {
			t.Fatal(err)
		}
		m.ended(ctx, c, "study", 15)
		m.killLeader()
		m.ended(ctx, c, "study", 30)
		m.killLeader()
		if err := workers.Wait(); err != nil {
			t.Fatalf("%v\n%s", err, said.String())
		}
		view := m.swept(ctx, c, "study")
		if view.Job.State != cluster.JobSucceeded || view.Sweep.Counts != (cluster.TrialCounts{Complete: 60}) {
			t.Fatalf("%s (%s): %+v", view.Job.State, view.Job.Reason, view.Sweep)
		}
		var trials []cluster.Trial
		for trial, err := range c.AllTrials(ctx, "study", client.TrialFilter{}) {
			if err != nil {
				t.Fatal(err)
			}
			trials = append(trials, trial.Trial)
		}
		if err := tuning.Verify(view.Job, trials, nil); err != nil {
			t.Error(err)
		}
	}
}
