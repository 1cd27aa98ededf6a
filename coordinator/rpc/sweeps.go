package rpc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
	"github.com/clary-ml/clary/tuner/expr"
	"github.com/clary-ml/clary/workload/tuning"
)

// Desk does operations on the searches of sweeps. It can on the leader only.
type Desk interface {
	Do(ctx context.Context, sweep string, operation func(s *tuning.Search, now int64) error) error
}

// sweeps serves tuning jobs from inside. What changes them is done at the leader.
type sweeps struct {
	claryv1.UnimplementedSweepsServer
	replica Replica
	leader  leaderConns
	desk    Desk
}

// sweepRead is a sweep as one snapshot has it.
type sweepRead struct {
	snapshot *state.Snapshot
	job      cluster.Job
	sweep    cluster.Sweep
	show     tuning.Shower
}

// read finds a sweep. The snapshot is the caller's to close.
func (s *sweeps) read(ctx context.Context, name string, stale bool) (sweepRead, error) {
	snapshot, err := s.replica.Read(ctx, stale)
	if err != nil {
		return sweepRead{}, err
	}
	r := sweepRead{snapshot: snapshot}
	job, exists := snapshot.Job(name)
	sweep, begun := snapshot.Sweep(name)
	_, archived := snapshot.Archived(name)
	switch {
	case !exists && archived:
		err = fault.New(fault.NotFound, "sweep: %q is archived, and its trials with it, a line of JSON each: see clary job %[1]s, and clary cp s3://clary/jobs/%[1]s/record.jsonl.gz .", name)
	case !exists:
		err = fault.New(fault.NotFound, "sweep: there is no job %q: see clary sweeps", cluster.Clip(name))
	case job.Kind != cluster.KindTuning:
		err = fault.New(fault.Invalid, "sweep: job %q is of kind %s: only tuning jobs have trials", name, job.Kind)
	case !begun:
		err = fault.New(fault.NotFound, "sweep: the trials of job %q were deleted: delete it too", name)
	default:
		r.show, err = tuning.NewShower(job.Spec)
	}
	if err != nil {
		return r, joinClose(err, snapshot)
	}
	r.job, r.sweep = job, sweep
	return r, nil
}

func joinClose(err error, snapshot *state.Snapshot) error {
	_ = snapshot.Close() // the error says more
	return err
}

// owned is a sweep that the caller may change.
func (s *sweeps) owned(ctx context.Context, name string) (cluster.Job, error) {
	r, err := s.read(ctx, name, false)
	if err != nil {
		return cluster.Job{}, err
	}
	defer r.snapshot.Close()
	return r.job, caller(ctx).owns(r.job)
}

func (s *sweeps) Get(ctx context.Context, request *claryv1.GetSweepRequest) (*claryv1.SweepView, error) {
	r, err := s.read(ctx, request.GetName(), request.GetStale())
	if err != nil {
		return nil, err
	}
	defer r.snapshot.Close()
	return r.view(), nil
}

const (
	maxLive  = 1000
	maxFront = 100
	// maxScan is how many trials a summary looks through for a Pareto front.
	maxScan = 100_000
)

// view is the summary of a sweep.
func (r sweepRead) view() *claryv1.SweepView {
	now := time.Now().UnixNano()
	view := &claryv1.SweepView{
		Job: wire.JobToProto(r.job), Sweep: wire.SweepToProto(r.sweep), TimeLeft: int64(tuning.TimeLeft(r.job, r.sweep, now)),
		Sampler: r.show.Sampler, Stopper: r.show.Stopper,
	}
	for trial := range r.snapshot.LiveTrialsOf(r.job.Name) {
		if len(view.Live) == maxLive {
			break
		}
		view.Live = append(view.Live, r.trial(trial))
	}
	for _, trial := range r.best() {
		view.Best = append(view.Best, r.trial(trial))
	}
	return view
}

// best is the best trial; with several objectives those that no other beats.
func (r sweepRead) best() []cluster.Trial {
	if len(r.sweep.BestValues) == 0 {
		return nil
	}
	if len(r.sweep.BestValues) > 1 && r.sweep.Next <= maxScan {
		front := r.show.Front(r.snapshot.TrialsOf(r.job.Name, 0))
		return front[:min(len(front), maxFront)]
	}
	trial, _ := r.snapshot.Trial(cluster.TrialID(r.job.Name, r.sweep.Best))
	return []cluster.Trial{trial}
}

// trial is a trial with its parameters, and what its job says now.
func (r sweepRead) trial(t cluster.Trial) *claryv1.TrialView {
	view := &claryv1.TrialView{Trial: wire.TrialToProto(t), Parameters: parameters(r.show.Values(t))}
	if t.Job == "" || t.State.Ended() {
		return view
	}
	job, exists := r.snapshot.Job(t.Job)
	if !exists {
		return view
	}
	view.JobState, view.JobReason = string(job.State), job.Reason
	view.Progress = wire.ProgressToProto(r.show.Progress(slices.Collect(r.snapshot.TasksOf(t.Job))))
	return view
}

func parameters(values map[string]expr.Value) map[string]*claryv1.ParameterValue {
	out := make(map[string]*claryv1.ParameterValue, len(values))
	for name, value := range values {
		switch value.Type() {
		case expr.Number:
			out[name] = &claryv1.ParameterValue{Value: &claryv1.ParameterValue_Number{Number: value.Number()}}
		case expr.Truth:
			out[name] = &claryv1.ParameterValue{Value: &claryv1.ParameterValue_Truth{Truth: value.Truth()}}
		default:
			out[name] = &claryv1.ParameterValue{Value: &claryv1.ParameterValue_Text{Text: value.String()}}
		}
	}
	return out
}

func valuesOf(parameters map[string]*claryv1.ParameterValue) map[string]expr.Value {
	values := make(map[string]expr.Value, len(parameters))
	for name, parameter := range parameters {
		switch value := parameter.GetValue().(type) {
		case *claryv1.ParameterValue_Number:
			values[name] = expr.Num(value.Number)
		case *claryv1.ParameterValue_Truth:
			values[name] = expr.Bool(value.Truth)
		case *claryv1.ParameterValue_Text:
			values[name] = expr.Str(value.Text)
		default:
			values[name] = expr.Value{}
		}
	}
	return values
}

func (s *sweeps) Control(ctx context.Context, request *claryv1.ControlSweepRequest) (*claryv1.SweepView, error) {
	if conn, err := s.leader.elsewhere(); err != nil || conn != nil {
		if err != nil {
			return nil, err
		}
		return claryv1.NewSweepsClient(conn).Control(forwarded(ctx), request)
	}
	name := request.GetSweep()
	if job, err := s.owned(ctx, name); err != nil {
		return nil, err
	} else if job.State.Ended() {
		return nil, ended(job)
	}
	control := tuning.Control{Pause: request.Pause, Parallel: request.Parallel, Trials: request.Trials, Cost: request.Cost}
	if request.Time != nil {
		t := time.Duration(request.GetTime())
		control.Time = &t
	}
	if request.GetClose() {
		control.Close = "stopped by " + caller(ctx).Name
	}
	if err := s.desk.Do(ctx, name, func(search *tuning.Search, now int64) error { return search.Control(control, now) }); err != nil {
		return nil, err
	}
	return s.Get(ctx, &claryv1.GetSweepRequest{Name: name})
}

func ended(job cluster.Job) error {
	return fault.New(fault.Conflict, "sweep %s has %s: begin another with warm_start: [%s]", job.Name, job.State, job.Name)
}

func (s *sweeps) AddTrial(ctx context.Context, request *claryv1.AddTrialRequest) (*claryv1.TrialView, error) {
	if conn, err := s.leader.elsewhere(); err != nil || conn != nil {
		if err != nil {
			return nil, err
		}
		return claryv1.NewSweepsClient(conn).AddTrial(forwarded(ctx), request)
	}
	name := request.GetSweep()
	if job, err := s.owned(ctx, name); err != nil {
		return nil, err
	} else if job.State.Ended() {
		return nil, ended(job)
	}
	var view *claryv1.TrialView
	err := s.desk.Do(ctx, name, func(search *tuning.Search, _ int64) error {
		trial, err := search.Add(valuesOf(request.GetParameters()), caller(ctx).Name, request.GetRequestId())
		if err == nil {
			view = showTrial(search, trial)
		}
		return err
	})
	return view, err
}

// Ask gives a worker trials. It answers when they are in the log: they are the worker's then.
func (s *sweeps) Ask(ctx context.Context, request *claryv1.AskRequest) (*claryv1.AskResponse, error) {
	if conn, err := s.leader.elsewhere(); err != nil || conn != nil {
		if err != nil {
			return nil, err
		}
		return claryv1.NewSweepsClient(conn).Ask(forwarded(ctx), request)
	}
	name := request.GetSweep()
	job, err := s.owned(ctx, name)
	if err != nil {
		return nil, err
	}
	if job.State.Ended() {
		return &claryv1.AskResponse{Done: true, Reason: fmt.Sprintf("the sweep has %s: %s", job.State, job.Reason)}, nil
	}
	ask := tuning.Ask{
		Worker: request.GetWorker(), Request: request.GetRequestId(), Count: int(request.GetCount()), Silence: time.Duration(request.GetLease()),
	}
	var answer *claryv1.AskResponse
	err = s.desk.Do(ctx, name, func(search *tuning.Search, now int64) error {
		given, err := search.Ask(ask, now)
		if err != nil {
			return err
		}
		answer = &claryv1.AskResponse{Reason: given.Reason, Done: given.Done, RetryAfter: int64(given.RetryAfter)}
		for _, trial := range given.Trials {
			answer.Trials = append(answer.Trials, showTrial(search, trial))
		}
		return nil
	})
	if errors.Is(err, tuning.ErrEnded) {
		return s.Ask(ctx, request) // and is told so
	}
	return answer, err
}

func showTrial(search *tuning.Search, trial cluster.Trial) *claryv1.TrialView {
	return &claryv1.TrialView{Trial: wire.TrialToProto(trial), Parameters: parameters(search.Values(trial))}
}

// trialReader reads rows of trials that have ended.
func (s *sweeps) trialReader(ctx context.Context, sweep string) func(int64) (cluster.Trial, bool) {
	return func(number int64) (cluster.Trial, bool) {
		snapshot, err := s.replica.Read(ctx, true)
		if err != nil {
			return cluster.Trial{}, false
		}
		defer snapshot.Close()
		return snapshot.Trial(cluster.TrialID(sweep, number))
	}
}

func (s *sweeps) Report(ctx context.Context, request *claryv1.ReportRequest) (*claryv1.ReportResponse, error) {
	if conn, err := s.leader.elsewhere(); err != nil || conn != nil {
		if err != nil {
			return nil, err
		}
		return claryv1.NewSweepsClient(conn).Report(forwarded(ctx), request)
	}
	name := request.GetSweep()
	job, err := s.owned(ctx, name)
	if err != nil {
		return nil, err
	}
	if job.State.Ended() {
		return &claryv1.ReportResponse{Reason: fmt.Sprintf("the sweep has %s: %s", job.State, job.Reason)}, nil
	}
	report := tuning.Report{
		Number: request.GetTrial(), Worker: request.GetWorker(), Point: request.Step != nil || request.Value != nil,
		Step: request.GetStep(), Value: request.GetValue(),
	}
	if report.Point && (request.Step == nil || request.Value == nil) {
		return nil, fault.New(fault.Invalid, "step, value: give both, or neither to renew the lease only")
	}
	var answer *claryv1.ReportResponse
	err = s.desk.Do(ctx, name, func(search *tuning.Search, now int64) error {
		advice, err := search.Report(report, s.trialReader(ctx, name), now)
		answer = &claryv1.ReportResponse{GoOn: advice.GoOn, Reason: advice.Reason, Paused: advice.Paused, Lease: advice.Lease}
		return err
	})
	if errors.Is(err, tuning.ErrEnded) {
		return s.Report(ctx, request)
	}
	return answer, err
}

func (s *sweeps) Tell(ctx context.Context, request *claryv1.TellRequest) (*claryv1.TellResponse, error) {
	if conn, err := s.leader.elsewhere(); err != nil || conn != nil {
		if err != nil {
			return nil, err
		}
		return claryv1.NewSweepsClient(conn).Tell(forwarded(ctx), request)
	}
	name := request.GetSweep()
	job, err := s.owned(ctx, name)
	if err != nil {
		return nil, err
	}
	tell := tuning.Tell{
		Number: request.GetTrial(), Worker: request.GetWorker(), State: cluster.TrialState(request.GetState()), Metrics: request.GetMetrics(),
		Reason: request.GetReason(), Cost: request.GetCost(), Model: request.GetModel(),
	}
	if job.State.Ended() {
		return s.toldBefore(ctx, job, tell)
	}
	var answer *claryv1.TellResponse
	err = s.desk.Do(ctx, name, func(search *tuning.Search, now int64) error {
		told, err := search.Tell(tell, s.trialReader(ctx, name), now)
		if err == nil {
			answer = &claryv1.TellResponse{Trial: showTrial(search, told.Trial), Best: told.Best, Done: told.Done}
		}
		return err
	})
	if errors.Is(err, tuning.ErrEnded) {
		return s.Tell(ctx, request)
	}
	return answer, err
}

// toldBefore answers a worker that tells once more what ended the sweep: its answer was lost.
func (s *sweeps) toldBefore(ctx context.Context, job cluster.Job, tell tuning.Tell) (*claryv1.TellResponse, error) {
	r, err := s.read(ctx, job.Name, false)
	if err != nil {
		return nil, err
	}
	defer r.snapshot.Close()
	trial, exists := r.snapshot.Trial(cluster.TrialID(job.Name, tell.Number))
	if !exists || trial.Worker != tell.Worker || !r.show.Same(trial, tell) {
		return nil, ended(job)
	}
	return &claryv1.TellResponse{Trial: r.trial(trial), Best: len(r.sweep.BestValues) > 0 && r.sweep.Best == trial.Number, Done: true}, nil
}
