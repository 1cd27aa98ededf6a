// Package steward looks after endpoints on the leader: it gathers what routers tell of themselves, and
// once a second, or at once when somebody waits for a fleet without replicas, has steps look at each
// endpoint and say what of it should change.
//
// What routers tell is only in memory: a new leader listens before it judges. See DESIGN.md.
package steward

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/route"
	"github.com/clary-ml/clary/workload/endpoint"
)

const (
	// Every is how often steps look, and how much time a sample is of.
	Every = time.Second
	// tries are how often a change is made anew when somebody else was faster.
	tries = 5
)

// Ledger is what the steward needs of the replicated state.
type Ledger interface {
	Propose(ctx context.Context, commands ...command.Command) ([]command.Result, error)
	Read(ctx context.Context, stale bool) (*state.Snapshot, error)
	Events() *state.Bus
}

// Step changes an endpoint as far as it should be changed, seen from now, and reports whether it did. The
// endpoint is a copy; it may be asked again about the same instant, when somebody else has changed it.
type Step func(e *cluster.Endpoint, in Input) (changed bool)

// Input is what a step knows beside the endpoint. Nothing of it is to be kept: it changes.
type Input struct {
	Job  cluster.Job
	Now  time.Time
	Seen Seen
}

// Config is what the steward works with.
type Config struct {
	Ledger Ledger
	// Live names the routers that there are now, as their reports do.
	Live func() []string
	// Table is the newest table of routes.
	Table func() route.Table
	// Measured are metrics that the replicas of an endpoint themselves tell now, by fleet and name; nil is none.
	Measured func(ctx context.Context, e cluster.Endpoint) map[string]map[string]float64
	// Steps look one after the other, after those of the steward itself.
	Steps []Step
	Log   *slog.Logger
}

// Steward is the loop, and what it has heard.
type Steward struct {
	config Config
	wake   chan struct{}

	mu       sync.Mutex
	heard    *heard // nil while the loop does not run
	draining map[string]uint64
}

// New makes a steward. Until Run runs it hears nothing.
func New(config Config) *Steward { return &Steward{config: config, wake: make(chan struct{}, 1)} }

// Report takes in what routers did. Only the leader does.
func (s *Steward) Report(_ context.Context, reports []route.Report) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.heard == nil {
		return fault.New(fault.Unready, "this coordinator does not lead: tell the leader")
	}
	held := false
	for _, report := range reports {
		held = s.heard.take(report, time.Now()) || held
	}
	if held {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
	return nil
}

// Seen is what routers have told of an endpoint, as far as this coordinator knows.
func (s *Steward) Seen(endpoint string) Seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.heard == nil {
		return Seen{}
	}
	seen := s.heard.seen(endpoint, time.Now(), s.config.Live())
	for key, f := range seen.fleets {
		f.Samples = slices.Clone(f.Samples)
		seen.fleets[key] = f
	}
	return seen
}

// Run looks after endpoints until ctx ends. It runs on the leader only, one at a time.
func (s *Steward) Run(ctx context.Context) error {
	s.mu.Lock()
	s.heard, s.draining = newHeard(time.Now()), map[string]uint64{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.heard = nil
		s.mu.Unlock()
	}()
	events := s.config.Ledger.Events().Subscribe(func(c state.Change) bool { return c.Kind == state.KindEndpoint || c.Kind == state.KindJob })
	defer events.Close()
	r := &reign{Steward: s, all: map[string]charge{}, dirty: map[string]bool{}}
	if err := r.list(ctx); err != nil {
		return err
	}
	tick := time.NewTicker(Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case batch, open := <-events.C:
			if !open {
				return fault.New(fault.Unready, "the state is closed")
			}
			if err := r.note(ctx, batch); err != nil {
				return err
			}
		case now := <-tick.C:
			s.sample(now, r.measure(ctx))
			if err := r.look(ctx, func(charge) bool { return true }); err != nil {
				return err
			}
		case <-s.wake:
			if err := r.look(ctx, charge.cold); err != nil {
				return err
			}
		}
	}
}

// sample closes the time since the last one.
func (s *Steward) sample(now time.Time, values map[fleetKey]map[string]float64) {
	ready := map[fleetKey]int{}
	for _, endpoint := range s.config.Table().Endpoints {
		for _, fleet := range endpoint.Fleets {
			for _, replica := range fleet.Replicas {
				if !replica.Draining {
					ready[fleetKey{endpoint.Name, fleet.Variant, fleet.Generation}]++
				}
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard.sample(now, ready, values)
}

// measure asks what replicas themselves tell.
func (r *reign) measure(ctx context.Context) map[fleetKey]map[string]float64 {
	values := map[fleetKey]map[string]float64{}
	if r.config.Measured == nil {
		return values
	}
	for name, c := range r.all {
		measured := r.config.Measured(ctx, c.endpoint)
		for _, f := range c.endpoint.Fleets {
			if told := measured[f.ID()]; len(told) > 0 {
				values[fleetKey{name, f.Variant, f.Generation}] = told
			}
		}
	}
	return values
}

// reign is what one run of the loop remembers.
type reign struct {
	*Steward
	all   map[string]charge // endpoints that have not ended
	dirty map[string]bool   // to be read again
}

// charge is one endpoint that is looked after.
type charge struct {
	job      cluster.Job
	endpoint cluster.Endpoint
}

// cold reports whether some fleet has no replicas, and could have.
func (c charge) cold() bool {
	return slices.ContainsFunc(c.endpoint.Fleets, func(f cluster.Fleet) bool { return f.Replicas == 0 && !f.Retired })
}

// list marks all endpoints.
func (r *reign) list(ctx context.Context) error {
	snapshot, err := r.config.Ledger.Read(ctx, true)
	if err != nil {
		return err
	}
	defer snapshot.Close()
	for endpoint := range snapshot.Endpoints() {
		r.dirty[endpoint.Job] = true
	}
	for name := range r.all {
		r.dirty[name] = true
	}
	return nil
}

func (r *reign) note(ctx context.Context, batch state.Batch) error {
	if batch.Lost {
		return r.list(ctx)
	}
	for _, change := range batch.Changes {
		if _, known := r.all[change.ID]; known || change.Kind == state.KindEndpoint {
			r.dirty[change.ID] = true
		}
	}
	return nil
}

// read brings the copies up to date.
func (r *reign) read(ctx context.Context) error {
	if len(r.dirty) == 0 {
		return nil
	}
	snapshot, err := r.config.Ledger.Read(ctx, true)
	if err != nil {
		return err
	}
	defer snapshot.Close()
	for name := range r.dirty {
		job, known := snapshot.Job(name)
		endpoint, exists := snapshot.Endpoint(name)
		if !known || !exists || job.State.Ended() {
			delete(r.all, name)
			continue
		}
		r.all[name] = charge{job, endpoint}
	}
	clear(r.dirty)
	return nil
}

// look asks the steps about endpoints, and proposes what they want.
func (r *reign) look(ctx context.Context, which func(charge) bool) error {
	var again map[string]bool // whom somebody else has changed meanwhile
	for try := 0; try < tries; try++ {
		if err := r.read(ctx); err != nil {
			return err
		}
		r.forget()
		var names []string
		for _, name := range slices.Sorted(maps.Keys(r.all)) {
			if again[name] || again == nil && which(r.all[name]) {
				names = append(names, name)
			}
		}
		var commands []command.Command
		var proposed []string
		for _, name := range names {
			if c := r.ask(r.all[name]); c != nil {
				commands, proposed = append(commands, c), append(proposed, name)
			}
		}
		var err error
		if again, err = r.propose(ctx, commands, proposed); err != nil || len(again) == 0 {
			return err
		}
	}
	return nil
}

// propose proposes each alone, and returns those that are to be looked at again at once.
func (r *reign) propose(ctx context.Context, commands []command.Command, names []string) (again map[string]bool, err error) {
	if len(commands) == 0 {
		return nil, nil
	}
	results, err := r.config.Ledger.Propose(ctx, commands...)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	for i, name := range names {
		r.dirty[name] = true
		failed := err
		if len(results) == len(names) {
			failed = results[i].Err
		}
		switch {
		case failed == nil:
		case fault.Is(failed, fault.Conflict):
			if again == nil {
				again = map[string]bool{}
			}
			again[name] = true
		default:
			r.config.Log.Warn("an endpoint's next step was refused, will look again", "endpoint", name, "error", failed)
		}
	}
	return again, nil
}

// ask has every step look at an endpoint; nil is that nothing is to change.
func (r *reign) ask(c charge) command.Command {
	if c.job.Cancel || c.job.State == cluster.JobStopping {
		return r.record(c, []Step{r.drained})
	}
	return r.record(c, append([]Step{r.drained, warm}, r.config.Steps...))
}

func (r *reign) record(c charge, steps []Step) command.Command {
	r.mu.Lock()
	now := time.Now()
	in := Input{Job: c.job, Now: now, Seen: r.heard.seen(c.job.Name, now, r.config.Live())}
	r.mu.Unlock()
	next, changed := clone(c.endpoint), false
	for _, step := range steps {
		changed = step(&next, in) || changed
	}
	if !changed {
		return nil
	}
	return command.Record{Changes: []command.Change{
		{Expect: c.job.Revision, Check: &command.Key{Kind: state.KindJob, ID: c.job.Name}},
		{Expect: c.endpoint.Revision, Endpoint: &next},
	}}
}

// clone is a copy that steps may change.
func clone(e cluster.Endpoint) cluster.Endpoint {
	e.Fleets = slices.Clone(e.Fleets)
	for i := range e.Fleets {
		e.Fleets[i].Draining = slices.Clone(e.Fleets[i].Draining)
	}
	if e.Rollout != nil {
		rollout := *e.Rollout
		e.Rollout = &rollout
	}
	if e.Experiment != nil {
		experiment := *e.Experiment
		e.Experiment = &experiment
	}
	e.Notes = slices.Clone(e.Notes)
	return e
}

// warm gives a fleet without replicas one, when somebody asks for it. Who waited before it came to
// have none may have been answered since: the next report tells.
func warm(e *cluster.Endpoint, in Input) (changed bool) {
	for _, f := range e.Fleets {
		seen := in.Seen.Fleet(f.Variant, f.Generation)
		if f.Replicas > 0 || f.Retired || seen.Waiting == 0 || seen.Asked.UnixNano() <= f.Scaled {
			continue
		}
		if next, err := endpoint.Scale(*e, f.ID(), 1, f.Scaler, "somebody asks", in.Now.UnixNano()); err == nil {
			*e, changed = next, true
		}
	}
	return changed
}

// drained notes of which replicas on their way out no router has a request any more. Routers must have
// heard that they are: their tables are as new as the endpoint was when this was first seen.
func (r *reign) drained(e *cluster.Endpoint, in Input) bool {
	idle := map[string]bool{}
	for _, f := range e.Fleets {
		for _, d := range f.Draining {
			gang := e.Job + "/" + d.Gang
			since, known := r.draining[gang]
			if !known {
				since = r.all[e.Job].endpoint.Revision
				r.draining[gang] = since
			}
			if !d.Idle && in.Seen.idle(gang, since) {
				idle[d.Gang] = true
			}
		}
	}
	if len(idle) > 0 {
		*e = endpoint.Idle(*e, idle)
	}
	return len(idle) > 0
}

// forget lets go of replicas that are gone.
func (r *reign) forget() {
	for gang := range r.draining {
		job, name, _ := strings.Cut(gang, "/")
		fleet, _, _ := cluster.ReplicaOf(name)
		c, there := r.all[job]
		if at := c.endpoint.Fleet(fleet); !there || at < 0 || !c.endpoint.Fleets[at].Drains(name) {
			delete(r.draining, gang)
		}
	}
}

type fleetKey struct {
	endpoint, variant string
	generation        int64
}

func (k fleetKey) compare(o fleetKey) int {
	return cmp.Or(cmp.Compare(k.endpoint, o.endpoint), cmp.Compare(k.variant, o.variant), cmp.Compare(k.generation, o.generation))
}
