package tune

import (
	"time"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/workload/tuning"
)

type sweepJSON struct {
	Name       string           `json:"name"`
	State      cluster.JobState `json:"state"`
	Reason     string           `json:"reason,omitempty"`
	Owner      string           `json:"owner"`
	Sampler    string           `json:"sampler"`
	Stopper    string           `json:"stopper,omitempty"`
	Objectives []objectiveJSON  `json:"objectives"`
	Paused     bool             `json:"paused,omitempty"`
	Closed     string           `json:"closed,omitempty"`
	Parallel   int32            `json:"parallel"`
	Budget     budgetJSON       `json:"budget"`
	Counts     map[string]int64 `json:"counts"` // of trials, by state
	Started    string           `json:"started,omitempty"`
	TimeLeft   string           `json:"time_left,omitempty"` // an estimate
	Cost       float64          `json:"cost,omitempty"`
	Best       []trialJSON      `json:"best"` // of several objectives the Pareto front
	Live       []trialJSON      `json:"live,omitempty"`
	Importance []importanceJSON `json:"importance,omitempty"`
	Plots      map[string]any   `json:"plots,omitempty"`
}

type objectiveJSON struct {
	Name      string `json:"name"`
	Direction string `json:"direction"`
}

type budgetJSON struct {
	Trials int64   `json:"trials,omitempty"`
	Time   string  `json:"time,omitempty"`
	Cost   float64 `json:"cost,omitempty"`
}

type trialJSON struct {
	Number     int64              `json:"number"`
	State      cluster.TrialState `json:"state"`
	Reason     string             `json:"reason,omitempty"`
	Parameters map[string]any     `json:"parameters"`
	Values     map[string]float64 `json:"values,omitempty"` // of objectives and limits, by name
	Curve      []curvePointJSON   `json:"curve,omitempty"`
	Started    string             `json:"started,omitempty"`
	Ended      string             `json:"ended,omitempty"`
	Cost       float64            `json:"cost,omitempty"`
	Runs       int32              `json:"runs,omitempty"`
	Failures   int32              `json:"failures,omitempty"`
	Job        string             `json:"job,omitempty"`
	JobState   cluster.JobState   `json:"job_state,omitempty"`
	Worker     string             `json:"worker,omitempty"`
	Model      string             `json:"model,omitempty"`
	By         string             `json:"by,omitempty"`
}

type curvePointJSON struct {
	Step  float64 `json:"step"`
	Value float64 `json:"value"`
}

// importanceJSON is how much of an objective's variance each parameter explains.
type importanceJSON struct {
	Objective string      `json:"objective"`
	Method    string      `json:"method"`
	Shares    []shareJSON `json:"shares"`
}

type shareJSON struct {
	Parameters []string `json:"parameters"` // one, or a pair beyond what each explains alone
	Share      float64  `json:"share"`
	Deviation  float64  `json:"deviation"` // over the trees of the forest
}

func sweepToJSON(view client.SweepView, spec tuning.Spec) sweepJSON {
	job, sweep := view.Job, view.Sweep
	out := sweepJSON{
		Name: job.Name, State: job.State, Reason: job.Reason, Owner: job.Owner, Sampler: view.Sampler, Stopper: view.Stopper,
		Paused: sweep.Paused, Closed: sweep.Closed, Parallel: sweep.Parallel,
		Budget: budgetJSON{sweep.Budget.Trials, shell.DurationText(sweep.Budget.Time), sweep.Budget.Cost},
		Counts: map[string]int64{}, Started: shell.Moment(sweep.Started), Cost: sweep.Cost, Best: []trialJSON{},
	}
	for _, o := range spec.Objectives {
		direction := "minimize"
		if o.Direction != "" {
			direction = string(o.Direction)
		}
		out.Objectives = append(out.Objectives, objectiveJSON{o.Name, direction})
	}
	for _, state := range trialStates {
		out.Counts[state] = *sweep.Counts.Of(cluster.TrialState(state))
	}
	if view.TimeLeft >= 0 && !job.State.Ended() {
		out.TimeLeft = view.TimeLeft.Round(time.Second).String()
	}
	for _, trial := range view.Best {
		out.Best = append(out.Best, trialToJSON(trial, spec))
	}
	for _, trial := range view.Live {
		out.Live = append(out.Live, trialToJSON(trial, spec))
	}
	return out
}

func trialToJSON(trial client.TrialView, spec tuning.Spec) trialJSON {
	out := trialJSON{
		Number: trial.Number, State: trial.State, Reason: trial.Reason, Parameters: trial.Parameters,
		Started: shell.Moment(trial.Started), Ended: shell.Moment(trial.Ended), Cost: trial.Cost, Runs: trial.Runs, Failures: trial.Failures,
		Job: trial.Job, JobState: trial.JobState, Worker: trial.Worker, Model: trial.Model, By: trial.By,
	}
	set := func(name string, values []float64, at int) {
		if at < len(values) && isFinite(values[at]) {
			if out.Values == nil {
				out.Values = map[string]float64{}
			}
			out.Values[name] = values[at]
		}
	}
	for i, o := range spec.Objectives {
		set(o.Name, trial.Values, i)
	}
	for i, l := range spec.Limits {
		set(l.Name, trial.Limits, i)
	}
	for _, p := range trial.Curve {
		if isFinite(p.Value) {
			out.Curve = append(out.Curve, curvePointJSON{p.Step, p.Value})
		}
	}
	return out
}
