package clienttest

import (
	"context"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"google.golang.org/grpc"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// Sweep is a sweep of the cluster. What its trials are, the test says; see Cluster.Show.
type Sweep struct {
	cluster.Sweep
	Trials           []cluster.Trial // by number
	Sampler, Stopper string
	TimeLeft         time.Duration
}

// Count sets the counts to what the trials say, and the best to the first complete one that
// no other beats, losses being the first values.
func (s *Sweep) Count() {
	s.Counts, s.Next, s.BestValues = cluster.TrialCounts{}, int64(len(s.Trials)), nil
	for _, trial := range s.Trials {
		*s.Counts.Of(trial.State)++
		s.Order = max(s.Order, trial.Order)
		if trial.State == cluster.TrialComplete && (s.BestValues == nil || trial.Values[0] < s.BestValues[0]) {
			s.Best, s.BestValues, s.BestLimits = trial.Number, trial.Values, trial.Limits
		}
	}
}

// UpdateSweep changes a sweep, and everybody who watches it is told. One that is not there
// is made.
func (c *Cluster) UpdateSweep(name string, change func(*Sweep)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	sweep := c.sweeps[name]
	sweep.Job = name
	sweep.Trials = slices.Clone(sweep.Trials)
	change(&sweep)
	sweep.Count()
	c.sweeps[name] = sweep
	c.tell()
}

// Sweep reads a sweep.
func (c *Cluster) Sweep(name string) (Sweep, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	sweep, found := c.sweeps[name]
	return sweep, found
}

type sweeps struct {
	claryv1.UnimplementedSweepsServer
	c *Cluster
}

// read finds a sweep with its job, and a channel that is closed when anything changes.
func (s *sweeps) read(name string) (cluster.Job, Sweep, <-chan struct{}, error) {
	view, found, changed := s.c.Job(name)
	if !found {
		return cluster.Job{}, Sweep{}, nil, noJob(name)
	}
	if view.Job.Kind != cluster.KindTuning {
		return cluster.Job{}, Sweep{}, nil, fault.New(fault.Invalid, "sweep: job %q is of kind %s: only tuning jobs have trials", name, view.Job.Kind)
	}
	sweep, _ := s.c.Sweep(name)
	return view.Job, sweep, changed, nil
}

func (s *sweeps) trial(job cluster.Job, trial cluster.Trial) *claryv1.TrialView {
	view := &claryv1.TrialView{Trial: wire.TrialToProto(trial), Parameters: map[string]*claryv1.ParameterValue{}}
	if s.c.Show == nil {
		return view
	}
	for name, value := range s.c.Show(job, trial) {
		if converted, err := wire.ParameterToProto(value); err == nil {
			view.Parameters[name] = converted
		}
	}
	return view
}

func (s *sweeps) view(job cluster.Job, sweep Sweep) *claryv1.SweepView {
	view := &claryv1.SweepView{
		Job: wire.JobToProto(job), Sweep: wire.SweepToProto(sweep.Sweep), TimeLeft: int64(sweep.TimeLeft), Sampler: sweep.Sampler, Stopper: sweep.Stopper,
	}
	for _, trial := range sweep.Trials {
		if !trial.State.Ended() {
			view.Live = append(view.Live, s.trial(job, trial))
		}
		if sweep.BestValues != nil && trial.Number == sweep.Best {
			view.Best = append(view.Best, s.trial(job, trial))
		}
	}
	return view
}

func (s *sweeps) Get(_ context.Context, request *claryv1.GetSweepRequest) (*claryv1.SweepView, error) {
	job, sweep, _, err := s.read(request.GetName())
	if err != nil {
		return nil, err
	}
	return s.view(job, sweep), nil
}

func (s *sweeps) Watch(request *claryv1.WatchSweepRequest, stream grpc.ServerStreamingServer[claryv1.SweepView]) error {
	for told := request.GetAfter(); ; {
		job, sweep, changed, err := s.read(request.GetName())
		if err != nil {
			return err
		}
		view := s.view(job, sweep)
		if told == 0 {
			told = sweep.Order
		}
		for _, trial := range sweep.Trials {
			if trial.Order > told {
				view.Changed = append(view.Changed, s.trial(job, trial))
			}
		}
		told = max(told, sweep.Order)
		if err := stream.Send(view); err != nil || job.State.Ended() {
			return err
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func (s *sweeps) Trials(_ context.Context, request *claryv1.ListTrialsRequest) (*claryv1.ListTrialsResponse, error) {
	job, sweep, _, err := s.read(request.GetSweep())
	if err != nil {
		return nil, err
	}
	keys := map[string]func(cluster.Trial) float64{
		"": func(t cluster.Trial) float64 { return float64(t.Number) }, "number": func(t cluster.Trial) float64 { return float64(t.Number) },
		"order": func(t cluster.Trial) float64 { return float64(t.Order) },
		"value": func(t cluster.Trial) float64 {
			if t.State != cluster.TrialComplete {
				return math.NaN()
			}
			return t.Values[0]
		},
	}
	key := keys[request.GetBy()]
	if key == nil {
		return nil, fault.New(fault.Invalid, "by: %q: list trials by number, value or order", request.GetBy())
	}
	trials := slices.DeleteFunc(slices.Clone(sweep.Trials), func(t cluster.Trial) bool {
		return math.IsNaN(key(t)) || len(request.GetStates()) > 0 && !slices.Contains(request.GetStates(), string(t.State)) ||
			len(request.GetNumbers()) > 0 && !slices.Contains(request.GetNumbers(), t.Number)
	})
	slices.SortStableFunc(trials, func(a, b cluster.Trial) int {
		if x, y := key(a), key(b); (x < y) != request.GetReverse() && x != y {
			return -1
		} else if x != y {
			return 1
		}
		return 0
	})
	from, _ := strconv.Atoi(request.GetAfter())
	limit := int(request.GetLimit())
	if limit == 0 {
		limit = 1000
	}
	response := &claryv1.ListTrialsResponse{}
	for i, trial := range trials[min(from, len(trials)):] {
		if i == limit {
			response.Next = strconv.Itoa(from + i)
			break
		}
		response.Trials = append(response.Trials, s.trial(job, trial))
	}
	return response, nil
}

func (s *sweeps) Control(_ context.Context, request *claryv1.ControlSweepRequest) (*claryv1.SweepView, error) {
	job, _, _, err := s.read(request.GetSweep())
	if err != nil {
		return nil, err
	}
	if job.State.Ended() {
		return nil, fault.New(fault.Conflict, "sweep %s has %s: begin another with warm_start: [%s]", job.Name, job.State, job.Name)
	}
	s.c.UpdateSweep(job.Name, func(sweep *Sweep) {
		if request.Pause != nil {
			sweep.Paused = request.GetPause()
		}
		if request.Parallel != nil {
			sweep.Parallel = request.GetParallel()
		}
		if request.Trials != nil {
			sweep.Budget.Trials = request.GetTrials()
		}
		if request.Time != nil {
			sweep.Budget.Time = time.Duration(request.GetTime())
		}
		if request.Cost != nil {
			sweep.Budget.Cost = request.GetCost()
		}
		if request.GetClose() {
			sweep.Closed = "stopped"
		}
	})
	changed, _ := s.c.Sweep(job.Name)
	return s.view(job, changed), nil
}

func (s *sweeps) AddTrial(ctx context.Context, request *claryv1.AddTrialRequest) (*claryv1.TrialView, error) {
	job, _, _, err := s.read(request.GetSweep())
	if err != nil {
		return nil, err
	}
	if s.c.Read == nil {
		return nil, fault.New(fault.Invalid, "the test reads no configurations")
	}
	values := map[string]any{}
	for name, value := range request.GetParameters() {
		values[name] = wire.ParameterFromProto(value)
	}
	config, err := s.c.Read(job, values)
	if err != nil {
		return nil, err
	}
	s.c.mu.Lock()
	caller, _ := s.c.caller(ctx)
	s.c.mu.Unlock()
	trial := cluster.Trial{Sweep: job.Name, Config: config, State: cluster.TrialWaiting, By: caller.Name, Request: request.GetRequestId()}
	s.c.UpdateSweep(job.Name, func(sweep *Sweep) {
		trial.Number = int64(len(sweep.Trials))
		sweep.Trials = append(sweep.Trials, trial)
	})
	return s.trial(job, trial), nil
}

// Ask gives a worker new trials of a study with one parameter, all of the same configuration.
func (s *sweeps) Ask(_ context.Context, request *claryv1.AskRequest) (*claryv1.AskResponse, error) {
	job, _, _, err := s.read(request.GetSweep())
	if err != nil {
		return nil, err
	}
	answer := &claryv1.AskResponse{}
	s.c.UpdateSweep(job.Name, func(sweep *Sweep) {
		for range max(request.GetCount(), 1) {
			trial := cluster.Trial{Sweep: job.Name, Number: int64(len(sweep.Trials)), Config: []float64{0}, State: cluster.TrialRunning, Worker: request.GetWorker()}
			sweep.Trials = append(sweep.Trials, trial)
			answer.Trials = append(answer.Trials, s.trial(job, trial))
		}
	})
	return answer, nil
}

// Tell ends a trial of a study as complete, with all that it is told.
func (s *sweeps) Tell(_ context.Context, request *claryv1.TellRequest) (*claryv1.TellResponse, error) {
	job, sweep, _, err := s.read(request.GetSweep())
	if err != nil {
		return nil, err
	}
	number := request.GetTrial()
	if number < 0 || number >= int64(len(sweep.Trials)) || sweep.Trials[number].Worker != request.GetWorker() {
		return nil, fault.New(fault.Denied, "trial: %d is not of worker %q", number, request.GetWorker())
	}
	answer := &claryv1.TellResponse{}
	s.c.UpdateSweep(job.Name, func(sweep *Sweep) {
		trial := &sweep.Trials[number]
		trial.State, trial.Order = cluster.TrialComplete, sweep.Order+1
		for _, name := range slices.Sorted(maps.Keys(request.GetMetrics())) {
			trial.Values = append(trial.Values, request.GetMetrics()[name])
		}
		answer.Trial = s.trial(job, *trial)
	})
	return answer, nil
}
