package sweeps_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/planner"
	"github.com/clary-ml/clary/coordinator/reconciler"
	"github.com/clary-ml/clary/coordinator/solo"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/coordinator/sweeps"
	"github.com/clary-ml/clary/workload"
	"github.com/clary-ml/clary/workload/training"
	"github.com/clary-ml/clary/workload/tuning"
)

// bench is the leader's loops over a real state, inside a bubble, and a crew that plays
// what trials do.
type bench struct {
	*testing.T
	ledger *solo.Ledger
	desk   *sweeps.Desk

	mu    sync.Mutex
	most  int             // trials' tasks that ran at once
	runs  map[string]bool // tasks that began
	saved map[string]int  // steps that a job's checkpoint has
	steps map[int64]int   // that were run of each trial
}

var kinds = map[cluster.Kind]workload.Kind{cluster.KindTraining: training.Kind{}, cluster.KindTuning: tuning.Kind{}}

func inBubble(t *testing.T, play func(*bench)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state")
	synctest.Test(t, func(t *testing.T) {
		ledger, err := solo.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		b := &bench{T: t, ledger: ledger, runs: map[string]bool{}, saved: map[string]int{}, steps: map[int64]int{}}
		defer ledger.Close()
		b.propose(command.PutNode{Node: cluster.Node{ID: "a", Address: "a", State: cluster.NodeReady, MilliCPU: 64000, Memory: 1 << 40, PortFirst: 1, PortLast: 9}})
		ctx, cancel := context.WithCancel(t.Context())
		var crew sync.WaitGroup
		crew.Go(func() { b.crew(ctx) })
		defer crew.Wait()
		defer cancel()
		play(b)
	})
}

// reign starts the leader's loops; what it returns ends them.
func (b *bench) reign() (stop func()) {
	ctx, cancel := context.WithCancel(b.Context())
	quiet := slog.New(slog.DiscardHandler)
	b.desk = sweeps.New(b.ledger, kinds, quiet)
	loops := []func(context.Context) error{b.desk.Run, reconciler.New(b.ledger, kinds, nil, quiet).Run, planner.New(b.ledger, quiet).Run}
	done := make(chan error, len(loops))
	for _, loop := range loops {
		go func() { done <- loop(ctx) }()
	}
	synctest.Wait()
	return sync.OnceFunc(func() {
		cancel()
		for range loops {
			if err := <-done; !errors.Is(err, context.Canceled) {
				b.Errorf("a loop ended with %v", err)
			}
		}
	})
}

func (b *bench) propose(c ...command.Command) {
	b.Helper()
	if _, err := b.ledger.Propose(b.Context(), c...); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) submit(name, spec string, change func(*cluster.Job)) {
	b.Helper()
	if problems := (tuning.Kind{}).Check([]byte(spec)); problems != nil {
		b.Fatal(problems)
	}
	now := time.Now().UnixNano()
	job := cluster.Job{Name: name, Kind: cluster.KindTuning, Owner: "ann", Queue: "default", Spec: []byte(spec), State: cluster.JobQueued, Submitted: now}
	if change != nil {
		change(&job)
	}
	record, _ := reconciler.First(job, kinds[job.Kind], now)
	b.propose(record)
}

func (b *bench) read(look func(*state.Snapshot)) {
	b.Helper()
	snapshot, err := b.ledger.Read(b.Context(), true)
	if err != nil {
		b.Fatal(err)
	}
	defer snapshot.Close()
	look(snapshot)
}

// crew runs every task that is placed, as its job's hyperparameters say: rate and steps of
// a second each; it says the loss (rate-0.3)^2 + 1/step after each.
func (b *bench) crew(ctx context.Context) {
	events := b.ledger.Events().Subscribe(func(c state.Change) bool { return c.Kind == state.KindTask || c.Kind == state.KindGang })
	defer events.Close()
	var working sync.WaitGroup
	defer working.Wait()
	for {
		b.read(func(s *state.Snapshot) {
			for task := range s.Tasks() {
				b.mu.Lock()
				fresh := !b.runs[task.ID] && task.Status.State == cluster.TaskAssigned
				b.runs[task.ID] = b.runs[task.ID] || fresh
				b.mu.Unlock()
				if fresh {
					job, _ := s.Job(task.Job)
					working.Go(func() { b.run(ctx, task, job) })
				}
			}
		})
		select {
		case <-ctx.Done():
			return
		case _, open := <-events.C:
			if !open {
				return
			}
		}
	}
}

// play is what a trial's job says of itself.
type play struct {
	Restore         string `json:"restore"`
	Hyperparameters struct {
		Rate  float64 `json:"rate"`
		Steps int     `json:"steps"`
		How   string  `json:"how"`
	} `json:"hyperparameters"`
}

func (b *bench) run(ctx context.Context, task cluster.Task, job cluster.Job) {
	var p play
	if err := json.Unmarshal(job.Spec, &p); err != nil {
		b.Error(err)
	}
	h := p.Hyperparameters
	report := func(status cluster.TaskStatus) {
		// What is refused was said of a task that is gone, or has ended: both may be.
		_, _ = b.ledger.Propose(ctx, command.ReportTasks{Node: task.Allocation.Node, Reports: []command.TaskReport{{Task: task.ID, Status: status}}})
	}
	b.count()
	status := cluster.TaskStatus{State: cluster.TaskRunning, Started: time.Now().UnixNano()}
	for step := b.checkpoint(p.Restore); step < max(h.Steps, 1); step++ {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
		var gone, stop bool
		b.read(func(s *state.Snapshot) {
			gang, exists := s.Gang(task.Gang)
			gone, stop = !exists, gang.Stop
		})
		if gone {
			return
		}
		if stop {
			b.save(job, step)
			status.State = cluster.TaskStopped
			report(status)
			return
		}
		point := cluster.CurvePoint{Step: float64(step + 1), Value: loss(h.Rate, step+1)}
		status.Progress = cluster.Progress{
			Epoch: int32(step + 1), Metrics: map[string]float64{"loss": point.Value, "size": h.Rate}, Curve: append(slices.Clone(status.Progress.Curve), point),
		}
		b.save(job, step+1)
		switch {
		case h.How == "silent":
			status.Progress.Metrics = map[string]float64{"other": 1}
		case h.How == "mad":
			status.Progress.Metrics["loss"] = math.Inf(1)
		}
		report(status)
	}
	status.State = cluster.TaskSucceeded
	if h.How == "fails" || h.How == "fails once" && strings.HasSuffix(task.ID, ".1") {
		status.State, status.ExitCode, status.Reason = cluster.TaskFailed, 3, "exit code 3"
	}
	report(status)
}

// checkpoint is how many steps were done by the job whose checkpoints are below a prefix.
func (b *bench) checkpoint(prefix string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	for job, step := range b.saved {
		if cluster.CheckpointsOf(job) == prefix {
			return step
		}
	}
	return 0
}

// save notes the steps that a job has done.
func (b *bench) save(job cluster.Job, step int) {
	trial, err := strconv.ParseInt(job.Labels[tuning.LabelTrial], 10, 64)
	if err != nil {
		b.Error(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if step > b.saved[job.Name] {
		b.saved[job.Name] = step
		b.steps[trial] = max(b.steps[trial], step)
	}
}

func loss(rate float64, step int) float64 { return (rate-0.3)*(rate-0.3) + 1/float64(step) }

// count notes how many trials run at once.
func (b *bench) count() {
	b.read(func(s *state.Snapshot) {
		running := 0
		for task := range s.Tasks() {
			if !task.Status.State.Ended() {
				running++
			}
		}
		b.mu.Lock()
		b.most = max(b.most, running)
		b.mu.Unlock()
	})
}

// ends waits for a sweep's end, and reads its rows.
func (b *bench) ends(name string, within time.Duration) (cluster.Job, cluster.Sweep, []cluster.Trial) {
	b.Helper()
	deadline := time.Now().Add(within)
	for {
		var job cluster.Job
		var sweep cluster.Sweep
		var trials []cluster.Trial
		b.read(func(s *state.Snapshot) {
			job, _ = s.Job(name)
			sweep, _ = s.Sweep(name)
			trials = slices.Collect(s.TrialsOf(name, 0))
		})
		if job.State.Ended() {
			return job, sweep, trials
		}
		if time.Now().After(deadline) {
			for _, child := range b.children(name) {
				b.Logf("%s is %s (%s)", child.Name, child.State, child.Reason)
			}
			b.Fatalf("%s is %s (%s) after %s: %+v\n%s", name, job.State, job.Reason, within, sweep, table(trials))
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// children are the jobs that a sweep has made and that still are.
func (b *bench) children(sweep string) []cluster.Job {
	var jobs []cluster.Job
	b.read(func(s *state.Snapshot) { jobs = slices.Collect(s.ChildrenOf(sweep)) })
	return jobs
}

func table(trials []cluster.Trial) string {
	var text strings.Builder
	for _, t := range trials {
		fmt.Fprintf(&text, "%d %v %s %v order %d since %d curve %v by %q %s\n", t.Number, t.Config, t.State, t.Values, t.Order, t.Since, t.Curve, t.By, t.Reason)
	}
	return text.String()
}

// spec is a sweep of the crew's program.
func spec(rest string, extra ...string) string {
	hyper := extra
	if !strings.Contains(strings.Join(extra, ""), "steps") {
		hyper = append(hyper, `"steps": 3`)
	}
	return `{"space": {"parameters": [{"name": "rate", "type": "float", "low": 0, "high": 1}]}, "objectives": [{"name": "loss"}], ` + rest +
		`, "trial": {"program": {"command": ["train"]}, "checkpoints": true, "hyperparameters": {` + strings.Join(hyper, ", ") + `}, "resources": {"memory": "1GiB"}}}`
}
