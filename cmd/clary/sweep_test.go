package main

import (
	"context"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/client/clienttest"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/expr"
	"github.com/clary-ml/clary/tuner/plain"
	"github.com/clary-ml/clary/workload/tuning"
)

// playSweep is a tuning job's life in the cluster in memory: trials end one after another
// with values that their configurations decide, every seventh fails and every fifth is
// stopped. One whose name begins with wait stands still after half of its budget, until it
// is cancelled or closed. One whose budget has no end is left to its workers.
func playSweep(ctx context.Context, c *clienttest.Cluster, job cluster.Job) {
	spec, problems := tuning.Parse(job.Spec)
	if problems != nil {
		panic(problems)
	}
	h, err := tuning.HistoryOf(job.Spec, slices.Values([]cluster.Trial(nil)))
	if err != nil {
		panic(err)
	}
	c.UpdateSweep(job.Name, func(s *clienttest.Sweep) {
		s.Sampler, s.Parallel, s.TimeLeft = "random", max(spec.Parallel, 1), time.Minute
		s.Budget, s.Started = cluster.Budget{Trials: spec.Budget.Trials, Time: spec.Budget.Time.Std()}, time.Now().UnixNano()
	})
	c.Update(job.Name, func(v *client.JobView) { v.Job.State, v.Job.Started = cluster.JobRunning, time.Now().UnixNano() })
	if spec.Budget.Trials == cluster.MaxTrials {
		untilCancelled(ctx, c, job.Name)
		c.Update(job.Name, func(v *client.JobView) { v.Job.State, v.Job.Ended = cluster.JobCancelled, time.Now().UnixNano() })
		return
	}
	sampler, _ := plain.Random(h.Problem())
	waits := strings.HasPrefix(job.Name, "wait")
	for range spec.Budget.Trials {
		number, err := tuner.Ask(sampler, h)
		if err != nil {
			break
		}
		trial := playTrial(h, number)
		trial.Sweep = job.Name
		c.UpdateSweep(job.Name, func(s *clienttest.Sweep) {
			if waits && int64(number) == spec.Budget.Trials/2 {
				trial.State, trial.Order, trial.Ended, trial.Values = cluster.TrialRunning, 0, 0, nil
			}
			s.Trials = append(s.Trials, trial)
		})
		if trial.State == cluster.TrialRunning {
			standStill(ctx, c, job.Name)
			break
		}
	}
	c.Update(job.Name, func(v *client.JobView) {
		v.Job.State, v.Job.Reason, v.Job.Ended = cluster.JobSucceeded, "all trials of its budget were made", time.Now().UnixNano()
		if v.Job.Cancel {
			v.Job.State, v.Job.Reason = cluster.JobCancelled, "as asked"
		}
	})
}

func untilCancelled(ctx context.Context, c *clienttest.Cluster, name string) {
	for {
		view, _, changed := c.Job(name)
		if view.Job.Cancel {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// standStill waits until nobody wants more of a sweep, and ends its last trial.
func standStill(ctx context.Context, c *clienttest.Cluster, name string) {
	for {
		view, _, changed := c.Job(name)
		sweep, _ := c.Sweep(name)
		if view.Job.Cancel || sweep.Closed != "" {
			break
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
	c.UpdateSweep(name, func(s *clienttest.Sweep) {
		for i := range s.Trials {
			if !s.Trials[i].State.Ended() {
				s.Trials[i].State, s.Trials[i].Order, s.Trials[i].Request = cluster.TrialCancelled, s.Order+1, ""
				s.Order++
			}
		}
	})
}

func playTrial(h *tuner.History, number int) cluster.Trial {
	trial := cluster.Trial{
		Number: int64(number), Config: h.Config(number), State: cluster.TrialComplete,
		Started: time.Now().UnixNano(), Ended: time.Now().Add(time.Second).UnixNano(),
	}
	dims := h.Problem().Space.Dims()
	x, active := make([]float64, len(dims)), make([]bool, len(dims))
	h.Problem().Space.Encode(trial.Config, x, active)
	loss := 0.05
	for i, v := range x {
		loss += math.Pow(0.3, float64(i)) * (v - 0.4) * (v - 0.4)
	}
	for i := range h.Problem().Objectives {
		trial.Values = append(trial.Values, []float64{loss, x[0] - loss, loss * loss}[i])
	}
	for range h.Problem().Limits {
		trial.Limits = append(trial.Limits, x[0])
	}
	for epoch := 1.0; epoch < 6; epoch++ {
		trial.Curve = append(trial.Curve, cluster.CurvePoint{Step: epoch, Value: loss + 1/epoch})
	}
	switch {
	case number%7 == 6:
		trial.State, trial.Reason, trial.Values, trial.Limits = cluster.TrialFailed, "exit code 3", nil, nil
	case number%5 == 4:
		trial.State, trial.Reason = cluster.TrialStopped, "not worth going on with after step 5"
	}
	result := tuner.Result{State: map[cluster.TrialState]tuner.State{cluster.TrialComplete: tuner.Complete, cluster.TrialFailed: tuner.Failed, cluster.TrialStopped: tuner.Stopped}[trial.State]}
	if result.State == tuner.Complete {
		result.Values, result.Limits = trial.Values, trial.Limits
	}
	if err := h.End(number, result); err != nil {
		panic(err)
	}
	trial.Order = h.Trial(number).Order
	return trial
}

func showTrial(job cluster.Job, trial cluster.Trial) map[string]any {
	show, err := tuning.NewShower(job.Spec)
	if err != nil {
		return nil
	}
	values := map[string]any{}
	for name, value := range show.Values(trial) {
		switch value.Type() {
		case expr.Number:
			values[name] = value.Number()
		case expr.Truth:
			values[name] = value.Truth()
		default:
			values[name] = value.String()
		}
	}
	return values
}

func readTrial(job cluster.Job, parameters map[string]any) ([]float64, error) {
	h, err := tuning.HistoryOf(job.Spec, slices.Values([]cluster.Trial(nil)))
	if err != nil {
		return nil, err
	}
	values := map[string]expr.Value{}
	for name, value := range parameters {
		switch value := value.(type) {
		case float64:
			values[name] = expr.Num(value)
		case bool:
			values[name] = expr.Bool(value)
		case string:
			values[name] = expr.Str(value)
		}
	}
	config, problems := h.Problem().Space.Parse(values)
	if problems != nil {
		return nil, fault.New(fault.Invalid, "%w", problems)
	}
	return config, nil
}
