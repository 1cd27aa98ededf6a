package client

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"iter"
	"time"

	"google.golang.org/grpc"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// TrialView is a trial with what its configuration says.
type TrialView struct {
	cluster.Trial
	Parameters map[string]any // those that are active: float64, string or bool

	// Of a trial that a job runs now.
	Progress  cluster.Progress
	JobState  cluster.JobState
	JobReason string
}

// SweepView is a summary of a sweep.
type SweepView struct {
	Job     cluster.Job
	Sweep   cluster.Sweep
	Best    []TrialView // the best trial; with several objectives the Pareto front, up to 100
	Live    []TrialView // that wait, run or pause, up to 1,000
	Changed []TrialView // of WatchSweep: that have ended since the view before

	TimeLeft time.Duration // an estimate; negative if it is unknown
	Sampler  string        // what proposes trials
	Stopper  string        // what stops them, if anything does
}

// Sweep reads the summary of a tuning job.
func (c *Client) Sweep(ctx context.Context, name string, options ...ReadOption) (SweepView, error) {
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.SweepView, error) {
		return claryv1.NewSweepsClient(conn).Get(ctx, &claryv1.GetSweepRequest{Name: name, Stale: stale(options)})
	})
	return sweepOf(response), err
}

// WatchSweep yields the summary as it is now, and again after changes, until the sweep has
// ended. Each holds the trials that have ended since the one before: none is missed, also
// when it goes on at another coordinator. An error is the last thing it yields.
func (c *Client) WatchSweep(ctx context.Context, name string) iter.Seq2[SweepView, error] {
	return func(yield func(SweepView, error) bool) {
		after := uint64(0)
		err := c.stream(ctx, func(ctx context.Context, p *peer) (done, heard bool, err error) {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			stream, err := claryv1.NewSweepsClient(p.conn).Watch(ctx, &claryv1.WatchSweepRequest{Name: name, After: after})
			if err != nil {
				return false, false, err
			}
			for {
				response, err := stream.Recv()
				if errors.Is(err, io.EOF) { // the coordinator stops: the sweep had not ended
					return false, heard, fault.New(fault.Unready, "the coordinator ended the watch")
				}
				if err != nil {
					return false, heard, err
				}
				heard = true
				view := sweepOf(response)
				after = max(after, view.Sweep.Order)
				if !yield(view, nil) || view.Job.State.Ended() {
					return true, true, nil
				}
			}
		})
		if err != nil {
			yield(SweepView{}, err)
		}
	}
}

// TrialFilter says which trials to list, and how.
type TrialFilter struct {
	States  []cluster.TrialState // none is all
	Numbers []int64              // only these
	// By is "number", the default; "value", the best complete ones first; or "order", of their end.
	By      string
	Reverse bool
	Limit   int    // of one page; 0 is as many as the server gives
	After   string // the next of the page before
	Stale   bool
}

// Trials lists one page of a sweep's trials; next, if it is not empty, is the After of the
// page that follows.
func (c *Client) Trials(ctx context.Context, sweep string, filter TrialFilter) (trials []TrialView, next string, err error) {
	request := &claryv1.ListTrialsRequest{
		Sweep: sweep, Numbers: filter.Numbers, By: filter.By, Reverse: filter.Reverse,
		Limit: int32(filter.Limit), After: filter.After, Stale: filter.Stale,
	}
	for _, state := range filter.States {
		request.States = append(request.States, string(state))
	}
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.ListTrialsResponse, error) {
		return claryv1.NewSweepsClient(conn).Trials(ctx, request)
	})
	return each(response.GetTrials(), trialOf), response.GetNext(), err
}

// AllTrials goes through all trials that match, page by page.
func (c *Client) AllTrials(ctx context.Context, sweep string, filter TrialFilter) iter.Seq2[TrialView, error] {
	return func(yield func(TrialView, error) bool) {
		for {
			trials, next, err := c.Trials(ctx, sweep, filter)
			if err != nil {
				yield(TrialView{}, err)
				return
			}
			for _, trial := range trials {
				if !yield(trial, nil) {
					return
				}
			}
			if next == "" {
				return
			}
			filter.After = next
		}
	}
}

// SweepControl changes a sweep; what is nil stays as it is. The budget's bounds are new
// ones in all, not added to the old.
type SweepControl struct {
	Pause    *bool // false resumes
	Parallel *int32
	Trials   *int64
	Time     *time.Duration
	Cost     *float64
	Close    bool // begin no new trial any more
}

// ControlSweep pauses, resumes or extends a sweep, or changes how many trials run at once.
func (c *Client) ControlSweep(ctx context.Context, sweep string, change SweepControl) (SweepView, error) {
	request := &claryv1.ControlSweepRequest{Sweep: sweep, Pause: change.Pause, Parallel: change.Parallel, Trials: change.Trials, Cost: change.Cost, Close: change.Close}
	if change.Time != nil {
		nanoseconds := int64(*change.Time)
		request.Time = &nanoseconds
	}
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.SweepView, error) {
		return claryv1.NewSweepsClient(conn).Control(ctx, request)
	})
	return sweepOf(response), err
}

// AddTrial adds a configuration by hand: values are numbers, texts or truths. It runs
// before what the search proposes.
func (c *Client) AddTrial(ctx context.Context, sweep string, parameters map[string]any) (TrialView, error) {
	request := &claryv1.AddTrialRequest{Sweep: sweep, Parameters: map[string]*claryv1.ParameterValue{}, RequestId: rand.Text()}
	for name, value := range parameters {
		converted, err := wire.ParameterToProto(value)
		if err != nil {
			return TrialView{}, fault.New(fault.Invalid, "parameters.%s: %w", name, err)
		}
		request.Parameters[name] = converted
	}
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.TrialView, error) {
		return claryv1.NewSweepsClient(conn).AddTrial(ctx, request)
	})
	return trialOf(response), err
}

// Asked is the answer to Ask.
type Asked struct {
	Trials []TrialView
	// Of fewer trials than were asked for: why, whether the study is done and will give no
	// more, and when to ask again.
	Reason     string
	Done       bool
	RetryAfter time.Duration
}

// Ask gives a worker trials of a study to run. Its name must be its own: only it may
// report and tell of them. Without a word from it for as long as the lease (0 is ten
// minutes) a trial is given to another.
func (c *Client) Ask(ctx context.Context, sweep, worker string, count int, lease time.Duration) (Asked, error) {
	request := &claryv1.AskRequest{Sweep: sweep, Worker: worker, Count: int32(count), RequestId: rand.Text(), Lease: int64(lease)}
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.AskResponse, error) {
		return claryv1.NewSweepsClient(conn).Ask(ctx, request)
	})
	return Asked{
		Trials: each(response.GetTrials(), trialOf), Reason: response.GetReason(), Done: response.GetDone(),
		RetryAfter: time.Duration(response.GetRetryAfter()),
	}, err
}

// Verdict is the answer to a report.
type Verdict struct {
	GoOn   bool
	Reason string    // why not
	Paused bool      // it may be given out again later: keep a checkpoint
	Lease  time.Time // until when the worker has the trial
}

// Report tells a value of the first objective after a step of the fidelity, and hears
// whether the trial is worth going on with.
func (c *Client) Report(ctx context.Context, sweep string, trial int64, worker string, step, value float64) (Verdict, error) {
	return c.report(ctx, &claryv1.ReportRequest{Sweep: sweep, Trial: trial, Worker: worker, Step: &step, Value: &value})
}

// KeepTrial renews the lease of a trial.
func (c *Client) KeepTrial(ctx context.Context, sweep string, trial int64, worker string) (Verdict, error) {
	return c.report(ctx, &claryv1.ReportRequest{Sweep: sweep, Trial: trial, Worker: worker})
}

func (c *Client) report(ctx context.Context, request *claryv1.ReportRequest) (Verdict, error) {
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.ReportResponse, error) {
		return claryv1.NewSweepsClient(conn).Report(ctx, request)
	})
	return Verdict{
		GoOn: response.GetGoOn(), Reason: response.GetReason(), Paused: response.GetPaused(), Lease: time.Unix(0, response.GetLease()),
	}, err
}

// TrialResult is how a trial ended.
type TrialResult struct {
	State   cluster.TrialState // complete if it is empty; or failed, infeasible, cancelled
	Metrics map[string]float64 // of a complete one: each objective and limit
	Reason  string             // of one that is not complete
	Cost    float64
	Model   string // where what it made is
}

// Told is the answer to Tell.
type Told struct {
	Trial TrialView
	Best  bool // it is the best so far
	Done  bool // the study will give no more trials
}

// Tell ends a trial.
func (c *Client) Tell(ctx context.Context, sweep string, trial int64, worker string, result TrialResult) (Told, error) {
	request := &claryv1.TellRequest{
		Sweep: sweep, Trial: trial, Worker: worker, State: string(result.State), Metrics: result.Metrics, Reason: result.Reason,
		Cost: result.Cost, Model: result.Model,
	}
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.TellResponse, error) {
		return claryv1.NewSweepsClient(conn).Tell(ctx, request)
	})
	return Told{Trial: trialOf(response.GetTrial()), Best: response.GetBest(), Done: response.GetDone()}, err
}

func sweepOf(v *claryv1.SweepView) SweepView {
	return SweepView{
		Job: wire.JobFromProto(v.GetJob()), Sweep: wire.SweepFromProto(v.GetSweep()),
		Best: each(v.GetBest(), trialOf), Live: each(v.GetLive(), trialOf), Changed: each(v.GetChanged(), trialOf),
		TimeLeft: time.Duration(v.GetTimeLeft()), Sampler: v.GetSampler(), Stopper: v.GetStopper(),
	}
}

func trialOf(v *claryv1.TrialView) TrialView {
	view := TrialView{
		Trial: wire.TrialFromProto(v.GetTrial()), Progress: wire.ProgressFromProto(v.GetProgress()),
		JobState: cluster.JobState(v.GetJobState()), JobReason: v.GetJobReason(),
	}
	for name, value := range v.GetParameters() {
		if view.Parameters == nil {
			view.Parameters = map[string]any{}
		}
		view.Parameters[name] = wire.ParameterFromProto(value)
	}
	return view
}
