package submit

import (
	"context"
	"encoding/json"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/tuner/expr"
	"github.com/clary-ml/clary/workload/training"
	"github.com/clary-ml/clary/workload/tuning"
)

// trialOf is a trial of a sweep, its best if the number is negative.
func trialOf(ctx context.Context, c *client.Client, sweep string, number int64) (client.SweepView, client.TrialView, error) {
	view, err := c.Sweep(ctx, sweep)
	if err != nil {
		return view, client.TrialView{}, err
	}
	if number >= 0 {
		found, _, err := c.Trials(ctx, sweep, client.TrialFilter{Numbers: []int64{number}})
		if err == nil && len(found) == 0 {
			err = fault.New(fault.NotFound, "--trial: sweep %s has no trial %d: see clary trials %s", sweep, number, sweep)
		}
		if err != nil {
			return view, client.TrialView{}, err
		}
		return view, found[0], nil
	}
	if len(view.Best) == 0 {
		return view, client.TrialView{}, fault.New(fault.Conflict, "--best-of: no trial of %s has completed: see clary trials %s", sweep, sweep)
	}
	spec, err := ReadTuning(view.Job)
	if err != nil {
		return view, client.TrialView{}, err
	}
	if len(spec.Objectives) > 1 && len(view.Best) > 1 {
		return view, client.TrialView{}, fault.New(fault.Invalid, "--best-of: %s has several objectives and %d trials that no other beats: choose one with --trial, see clary sweep %s", sweep, len(view.Best), sweep)
	}
	return view, view.Best[0], nil
}

// bestJob is the training job that a trial of a sweep was, to be submitted again.
func bestJob(ctx context.Context, c *client.Client, sweep string, number int64) (cluster.Job, error) {
	view, trial, err := trialOf(ctx, c, sweep, number)
	if err != nil {
		return cluster.Job{}, err
	}
	values, err := exprValues(trial.Parameters)
	if err != nil {
		return cluster.Job{}, err
	}
	spec, err := tuning.TrainingOf(view.Job.Spec, values)
	if err != nil {
		return cluster.Job{}, fault.New(fault.Invalid, "--best-of: %w", err)
	}
	return cluster.Job{Kind: cluster.KindTraining, Queue: view.Job.Queue, Spec: spec}, nil
}

// takeParameters gives a script the parameters of a trial, but for those that it has.
func takeParameters(ctx context.Context, c *client.Client, s *training.Spec, sweep string, number int64) error {
	_, trial, err := trialOf(ctx, c, sweep, number)
	if err != nil {
		return err
	}
	if s.Hyperparameters == nil {
		s.Hyperparameters = map[string]json.RawMessage{}
	}
	for name, value := range trial.Parameters {
		if _, given := s.Hyperparameters[name]; given {
			continue
		}
		if s.Hyperparameters[name], err = json.Marshal(value); err != nil {
			return fault.New(fault.Invalid, "parameter %s: %w", name, err)
		}
	}
	return nil
}

func exprValues(parameters map[string]any) (map[string]expr.Value, error) {
	values := map[string]expr.Value{}
	for name, value := range parameters {
		switch value := value.(type) {
		case float64:
			values[name] = expr.Num(value)
		case string:
			values[name] = expr.Str(value)
		case bool:
			values[name] = expr.Bool(value)
		default:
			return nil, fault.New(fault.Internal, "parameter %s is a %T", name, value)
		}
	}
	return values, nil
}

// ReadTuning reads the spec of a tuning job that the cluster accepted.
func ReadTuning(job cluster.Job) (tuning.Spec, error) {
	var s tuning.Spec
	if job.Kind != cluster.KindTuning {
		return s, fault.New(fault.Invalid, "%s is a job of kind %s: see clary job %s; clary sweeps lists sweeps", job.Name, job.Kind, job.Name)
	}
	if err := json.Unmarshal(job.Spec, &s); err != nil {
		return s, fault.New(fault.Invalid, "the spec of %s cannot be read: %w", job.Name, err)
	}
	if len(s.Objectives) == 0 {
		return s, fault.New(fault.Invalid, "the spec of %s has no objective: it is of another version", job.Name)
	}
	return s, nil
}
