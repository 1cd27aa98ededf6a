package wire

import (
	"time"

	"github.com/clary-ml/clary/cluster"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
)

// TrialToProto converts a trial.
func TrialToProto(t cluster.Trial) *claryv1.Trial {
	return &claryv1.Trial{
		Sweep: t.Sweep, Number: t.Number, Config: t.Config, State: string(t.State), Reason: t.Reason,
		Values: t.Values, Limits: t.Limits, Curve: list(t.Curve, CurvePointToProto), Order: t.Order,
		Started: t.Started, Ended: t.Ended, Cost: t.Cost, By: t.By,
		Runs: t.Runs, Failures: t.Failures, Job: t.Job, Worker: t.Worker, Request: t.Request,
		Lease: t.Lease, Since: t.Since, Silence: int64(t.Silence), Model: t.Model, Checkpoints: t.Checkpoints, Revision: t.Revision,
	}
}

// TrialFromProto converts a trial.
func TrialFromProto(t *claryv1.Trial) cluster.Trial {
	return cluster.Trial{
		Sweep: t.GetSweep(), Number: t.GetNumber(), Config: some(t.GetConfig()), State: cluster.TrialState(t.GetState()), Reason: t.GetReason(),
		Values: some(t.GetValues()), Limits: some(t.GetLimits()), Curve: list(t.GetCurve(), CurvePointFromProto), Order: t.GetOrder(),
		Started: t.GetStarted(), Ended: t.GetEnded(), Cost: t.GetCost(), By: t.GetBy(),
		Runs: t.GetRuns(), Failures: t.GetFailures(), Job: t.GetJob(), Worker: t.GetWorker(), Request: t.GetRequest(),
		Lease: t.GetLease(), Since: t.GetSince(), Silence: time.Duration(t.GetSilence()), Model: t.GetModel(), Checkpoints: t.GetCheckpoints(), Revision: t.GetRevision(),
	}
}

// CurvePointToProto converts a point of a learning curve.
func CurvePointToProto(p cluster.CurvePoint) *claryv1.CurvePoint {
	return &claryv1.CurvePoint{Step: p.Step, Value: p.Value, Order: p.Order}
}

// CurvePointFromProto converts a point of a learning curve.
func CurvePointFromProto(p *claryv1.CurvePoint) cluster.CurvePoint {
	return cluster.CurvePoint{Step: p.GetStep(), Value: p.GetValue(), Order: p.GetOrder()}
}

// SweepToProto converts what changes of a tuning job.
func SweepToProto(s cluster.Sweep) *claryv1.Sweep {
	return &claryv1.Sweep{
		Job: s.Job, Paused: s.Paused, Closed: s.Closed, Halt: s.Halt, Parallel: s.Parallel, Budget: BudgetToProto(s.Budget),
		Next: s.Next, Order: s.Order, Counts: TrialCountsToProto(s.Counts),
		Best: s.Best, BestValues: s.BestValues, BestLimits: s.BestLimits,
		Started: s.Started, PausedAt: s.PausedAt, PausedIn: int64(s.PausedIn), Cost: s.Cost, Revision: s.Revision,
	}
}

// SweepFromProto converts what changes of a tuning job.
func SweepFromProto(s *claryv1.Sweep) cluster.Sweep {
	return cluster.Sweep{
		Job: s.GetJob(), Paused: s.GetPaused(), Closed: s.GetClosed(), Halt: s.GetHalt(), Parallel: s.GetParallel(), Budget: BudgetFromProto(s.GetBudget()),
		Next: s.GetNext(), Order: s.GetOrder(), Counts: TrialCountsFromProto(s.GetCounts()),
		Best: s.GetBest(), BestValues: some(s.GetBestValues()), BestLimits: some(s.GetBestLimits()),
		Started: s.GetStarted(), PausedAt: s.GetPausedAt(), PausedIn: time.Duration(s.GetPausedIn()), Cost: s.GetCost(), Revision: s.GetRevision(),
	}
}

// BudgetToProto converts what a sweep may use; no bound at all is nothing.
func BudgetToProto(b cluster.Budget) *claryv1.Budget {
	if b == (cluster.Budget{}) {
		return nil
	}
	return &claryv1.Budget{Trials: b.Trials, Time: int64(b.Time), Cost: b.Cost}
}

// BudgetFromProto converts what a sweep may use.
func BudgetFromProto(b *claryv1.Budget) cluster.Budget {
	return cluster.Budget{Trials: b.GetTrials(), Time: time.Duration(b.GetTime()), Cost: b.GetCost()}
}

// TrialCountsToProto converts how many trials are in each state; none at all is nothing.
func TrialCountsToProto(c cluster.TrialCounts) *claryv1.TrialCounts {
	if c == (cluster.TrialCounts{}) {
		return nil
	}
	return &claryv1.TrialCounts{
		Waiting: c.Waiting, Running: c.Running, Paused: c.Paused, Complete: c.Complete,
		Stopped: c.Stopped, Failed: c.Failed, Infeasible: c.Infeasible, Cancelled: c.Cancelled,
	}
}

// TrialCountsFromProto converts how many trials are in each state.
func TrialCountsFromProto(c *claryv1.TrialCounts) cluster.TrialCounts {
	return cluster.TrialCounts{
		Waiting: c.GetWaiting(), Running: c.GetRunning(), Paused: c.GetPaused(), Complete: c.GetComplete(),
		Stopped: c.GetStopped(), Failed: c.GetFailed(), Infeasible: c.GetInfeasible(), Cancelled: c.GetCancelled(),
	}
}
