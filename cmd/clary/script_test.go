package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/client/clienttest"
	"github.com/clary-ml/clary/client/invoke"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/internal/fault"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"clary": main})
}

// Each script runs the real commands against a cluster of its own, in memory, of two
// coordinators. A job there does what its first word says, see play.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			fake, err := clienttest.Start(2)
			if err != nil {
				return err
			}
			env.Defer(func() {
				if err := fake.Close(); err != nil {
					t.Error(err)
				}
			})
			fake.Run, fake.Queues = play, newQueues()
			fake.Check = check
			fake.Show, fake.Read = showTrial, readTrial
			fake.PutNode(client.NodeView{
				Node: cluster.Node{
					ID: "n1", Address: "10.0.0.1", State: cluster.NodeReady, MilliCPU: 4000, Memory: 8 << 30,
					Devices: []cluster.Device{{UUID: "GPU-1", Model: "A100", Healthy: true}},
				},
				Used: cluster.Resources{MilliCPU: 1500, Memory: 1 << 30}, Tasks: []string{"x/main/worker-0.1"},
			})
			fake.AddRouterAt(invoke.Router{ID: "gone", URL: "https://127.0.0.1:1"})
			if _, err := fake.AddRouter("c1", answer()); err != nil {
				return err
			}
			to := fake.Context()
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("ADDRESSES", strings.Join(to.Addresses, ","))
			env.Setenv("PIN", to.CAPin)
			env.Setenv("CI", "true")
			examples, err := filepath.Abs("../../examples")
			if err != nil {
				return err
			}
			env.Setenv("EXAMPLES", examples)
			if err := os.WriteFile(filepath.Join(env.WorkDir, "ca.crt"), fake.CAPEM(), 0o600); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(env.WorkDir, "admin.token"), []byte(to.Token+"\n"), 0o600)
		},
	})
}

func check(job cluster.Job) error {
	if problems := kinds()[job.Kind].Check(job.Spec); problems != nil {
		return fault.New(fault.Invalid, "%w", problems)
	}
	return nil
}

// play is a job's life, by the first word of its name: fail-..., wait-..., talk-..., any other
// succeeds after a line of log.
func play(ctx context.Context, c *clienttest.Cluster, job cluster.Job) {
	if job.Held {
		return
	}
	switch job.Kind {
	case cluster.KindTuning:
		playSweep(ctx, c, job)
		return
	case cluster.KindEndpoint:
		playEndpoint(ctx, c, job)
		return
	}
	task := cluster.Task{
		ID: job.Name + "/main/worker-0.1", Job: job.Name, Gang: job.Name + "/main", Role: "worker", Attempt: 1,
		Allocation: cluster.Allocation{Node: "n1", Resources: cluster.Resources{MilliCPU: 1000, Memory: 1 << 30}},
		Status:     cluster.TaskStatus{State: cluster.TaskRunning, Started: time.Now().UnixNano()},
	}
	word, _, _ := strings.Cut(job.Name, "-")
	switch word {
	case "stuck":
		return
	case "talk":
		talk(c, job, task)
		return
	}
	c.Update(job.Name, func(v *client.JobView) {
		v.Job.State, v.Job.Started, v.Tasks = cluster.JobRunning, task.Status.Started, []cluster.Task{task}
	})
	c.Log(job.Name, task.ID, "stdout", "out of "+job.Name+"\n")
	c.Log(job.Name, task.ID, "stderr", "err of "+job.Name+"\n")
	c.Update(job.Name, func(v *client.JobView) {
		v.Tasks[0].Status.Progress = cluster.Progress{Epoch: 3, Step: 30, Total: 30, Metrics: map[string]float64{"validation_accuracy": 0.9712}}
	})
	c.SetMetrics(job.Name, said()...)
	for word == "wait" {
		view, _, changed := c.Job(job.Name)
		if view.Job.Cancel {
			break
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
	c.Update(job.Name, func(v *client.JobView) { end(word, v) })
}

// talk is a job of two tasks that wrote in turn, a line a minute, on a day long ago.
func talk(c *clienttest.Cluster, job cluster.Job, first cluster.Task) {
	second := first
	second.ID, second.Index = job.Name+"/main/worker-1.1", 1
	began := time.Date(2026, 1, 2, 10, 0, 0, 0, time.UTC)
	for i, text := range []string{"loss 0.9\n", "loss 0.8\n", "warning: slow\n", "50%", "\r100%\n"} {
		task, stream := []cluster.Task{first, second}[i%2], "stdout"
		if i >= 2 {
			task, stream = first, "stderr"
		}
		c.LogAt(began.Add(time.Duration(i)*time.Minute), job.Name, task.ID, stream, text)
	}
	c.Update(job.Name, func(v *client.JobView) {
		v.Tasks, v.Gangs[0].Roles[0].Count, v.Job.State = []cluster.Task{first, second}, 2, cluster.JobSucceeded
	})
}

// said is a loss that falls over 30 steps, and what the task used meanwhile.
func said() []cluster.Series {
	loss := cluster.Series{Task: "worker-0", Name: "train_loss", Attempt: 1, Count: 30, Min: 1.0 / 30, Max: 1}
	used := cluster.Series{Task: "worker-0", Name: "usage/cores", Attempt: 1, Count: 1, Min: 1.5, Max: 1.5, Points: []cluster.Point{{Time: 1, Value: 1.5}}}
	for step := range int64(30) {
		loss.Points = append(loss.Points, cluster.Point{Time: 1e9 * step, Epoch: int32(step / 10), Step: step + 1, Value: 1 / float64(step+1)})
	}
	return []cluster.Series{loss, used}
}

func end(word string, v *client.JobView) {
	v.Job.Ended = time.Now().UnixNano()
	status := &v.Tasks[0].Status
	switch word {
	case "fail":
		status.State, status.ExitCode, status.Reason = cluster.TaskFailed, 3, "exit code 3"
		v.Job.State, v.Job.Reason = cluster.JobFailed, "worker-0 failed on node n1: exit code 3"
	case "wait":
		status.State = cluster.TaskStopped
		v.Job.State, v.Job.Reason = cluster.JobCancelled, "as asked"
	default:
		status.State, v.Job.State = cluster.TaskSucceeded, cluster.JobSucceeded
		v.Publication = &cluster.Publication{Job: v.Job.Name, Attempt: 1, Outputs: []cluster.Output{{Name: "model", URI: "s3://clary/jobs/" + v.Job.Name + "/model.tar.gz", Size: 2048}}}
	}
}

func TestEveryCommandSaysWhatItDoesWithAnExample(t *testing.T) {
	walk(newRoot(shell.System(kinds())), func(name, short, example string, runs bool) {
		if short == "" || runs && example == "" {
			t.Errorf("%s has no short text or no example", name)
		}
		if strings.HasSuffix(short, ".") || len(short) > 100 {
			t.Errorf("%s: %q is not a short text", name, short)
		}
	})
}

func walk(command *cobra.Command, visit func(name, short, example string, runs bool)) {
	for _, child := range command.Commands() {
		if child.Name() == "help" || child.Name() == "completion" || child.Hidden {
			continue
		}
		visit(child.CommandPath(), child.Short, child.Example, child.Runnable())
		walk(child, visit)
	}
}
