package rpc

import (
	"context"
	"encoding/json"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/reconciler"
	"github.com/clary-ml/clary/coordinator/registry"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
	"github.com/clary-ml/clary/workload/endpoint"
)

// errUnchanged is an edit's answer where all is so already.
var errUnchanged = fault.New(fault.Conflict, "it is so already")

// change rewrites an endpoint that the caller owns. When others were faster, it is edited again as they
// left it.
func (s *endpoints) change(ctx context.Context, name string, edit func(*state.Snapshot, endpointRead) (cluster.Endpoint, error)) (*claryv1.EndpointView, error) {
	for try := 1; ; try++ {
		r, edited, err := s.edited(ctx, name, edit)
		if err == errUnchanged {
			return s.after(ctx, name)
		}
		if err != nil {
			return nil, err
		}
		_, err = s.replica.Propose(ctx, command.Record{Changes: []command.Change{
			{Expect: r.job.Revision, Check: &command.Key{Kind: state.KindJob, ID: name}}, {Expect: r.endpoint.Revision, Endpoint: &edited},
		}})
		if err == nil {
			return s.after(ctx, name)
		}
		if !fault.Is(err, fault.Conflict) || !s.moved(ctx, r) || try == changeTries {
			return nil, err
		}
	}
}

// edited is an endpoint as an edit has it.
func (s *endpoints) edited(ctx context.Context, name string, edit func(*state.Snapshot, endpointRead) (cluster.Endpoint, error)) (r endpointRead, edited cluster.Endpoint, err error) {
	snapshot, err := s.replica.Read(ctx, false)
	if err != nil {
		return r, edited, err
	}
	defer snapshot.Close()
	if r, err = readEndpoint(snapshot, name); err != nil {
		return r, edited, err
	}
	if err := caller(ctx).owns(r.job); err != nil {
		return r, edited, err
	}
	if r.job.State.Ended() || r.job.Cancel {
		return r, edited, fault.New(fault.Conflict, "endpoint %s is %s, and answers no more: deploy it anew", name, ending(r.job))
	}
	edited, err = edit(snapshot, r)
	return r, edited, err
}

func ending(job cluster.Job) string {
	if job.State.Ended() {
		return string(job.State)
	}
	return "being cancelled"
}

// moved reports whether an endpoint or its job is not as it was read: then a conflict is no answer yet.
func (s *endpoints) moved(ctx context.Context, r endpointRead) bool {
	snapshot, err := s.replica.Read(ctx, false)
	if err != nil {
		return false
	}
	defer snapshot.Close()
	now, err := readEndpoint(snapshot, r.job.Name)
	return err != nil || now.job.Revision != r.job.Revision || now.endpoint.Revision != r.endpoint.Revision
}

// after is the view of an endpoint that was changed: not older than the change. What only the leader
// knows is not in it.
func (s *endpoints) after(ctx context.Context, name string) (*claryv1.EndpointView, error) {
	return s.view(ctx, name, false)
}

// asked is the caller, now.
func asked(ctx context.Context) endpoint.Asked {
	return endpoint.Asked{By: caller(ctx).Name, Now: time.Now().UnixNano()}
}

// Weights sets how variants share the requests.
func (s *endpoints) Weights(ctx context.Context, request *claryv1.SetWeightsRequest) (*claryv1.EndpointView, error) {
	return s.change(ctx, request.GetName(), func(_ *state.Snapshot, r endpointRead) (cluster.Endpoint, error) {
		return endpoint.SetWeights(r.job, r.endpoint, request.GetWeights(), asked(ctx))
	})
}

// Scale sets how many replicas variants have: of all that are named, or of none.
func (s *endpoints) Scale(ctx context.Context, request *claryv1.ScaleEndpointRequest) (*claryv1.EndpointView, error) {
	if len(request.GetVariants()) == 0 {
		return nil, fault.New(fault.Invalid, "variants: is empty: say how many replicas which variant is to have")
	}
	return s.change(ctx, request.GetName(), func(_ *state.Snapshot, r endpointRead) (cluster.Endpoint, error) {
		e, err := r.endpoint, error(nil)
		for _, scale := range request.GetVariants() {
			bounds := scale.Min != nil || scale.Max != nil
			if bounds == (scale.Replicas != nil) {
				return e, fault.New(fault.Invalid, "variants: %q: give either replicas, or min and max", cluster.Clip(scale.GetVariant()))
			}
			for _, variant := range variantsOf(e, scale.GetVariant()) {
				if bounds {
					e, err = endpoint.SetBounds(r.job, e, variant, scale.Min, scale.Max, asked(ctx))
				} else {
					e, err = endpoint.SetReplicas(r.job, e, variant, scale.GetReplicas(), asked(ctx))
				}
				if err != nil {
					return e, err
				}
			}
		}
		return e, nil
	})
}

// variantsOf is the one that is named, or each.
func variantsOf(e cluster.Endpoint, name string) []string {
	if name != "" {
		return []string{name}
	}
	var names []string
	for _, fleet := range e.Fleets {
		if fleet.Generation == e.Generation && !fleet.Retired {
			names = append(names, fleet.Variant)
		}
	}
	return names
}

// Rollback goes back, from an update in progress or to what was before.
func (s *endpoints) Rollback(ctx context.Context, request *claryv1.RollbackEndpointRequest) (*claryv1.EndpointView, error) {
	who := asked(ctx)
	return s.change(ctx, request.GetName(), func(_ *state.Snapshot, r endpointRead) (cluster.Endpoint, error) {
		e, expect := r.endpoint, request.GetExpect()
		ended := request.GetUpdating() && e.Last == expect && e.Rollout == nil && e.Generation != expect
		begun := !request.GetUpdating() && e.Last == expect+1 && e.Rollout != nil && e.Rollout.By == who.By && string(e.Rollout.Spec) == string(e.Previous)
		switch {
		case expect != 0 && (ended || begun):
			return e, errUnchanged // it was asked for before, and the answer was lost
		case expect != 0 && e.Last != expect:
			return e, newer(e, expect)
		}
		return endpoint.Rollback(r.job, e, request.GetReason(), who)
	})
}

// Experiment begins to compare two variants, or ends what is in progress. The same again is one.
func (s *endpoints) Experiment(ctx context.Context, request *claryv1.ExperimentRequest) (*claryv1.EndpointView, error) {
	who := asked(ctx)
	if len(request.GetSpec()) == 0 {
		return s.change(ctx, request.GetName(), func(_ *state.Snapshot, r endpointRead) (cluster.Endpoint, error) {
			why := "stopped by " + who.By
			if request.GetReason() != "" {
				why += ": " + request.GetReason()
			}
			if endpoint.Stopped(r.endpoint, why, who) {
				return r.endpoint, errUnchanged
			}
			return endpoint.EndExperiment(r.endpoint, why, who)
		})
	}
	x, problems := endpoint.ParseExperiment(request.GetSpec())
	if len(problems) > 0 {
		return nil, fault.New(fault.Invalid, "experiment: %w", problems)
	}
	return s.change(ctx, request.GetName(), func(_ *state.Snapshot, r endpointRead) (cluster.Endpoint, error) {
		if endpoint.Comparing(r.endpoint, x, who) {
			return r.endpoint, errUnchanged
		}
		return endpoint.StartExperiment(r.job, r.endpoint, x, who)
	})
}

func newer(e cluster.Endpoint, expect int64) error {
	return fault.New(fault.Conflict, "expect: generation %d is not the newest of endpoint %s, %d is: see clary endpoint status %s, then decide", expect, e.Job, e.Last, e.Job)
}

// likeNew are the gangs that an endpoint would have if it was submitted with a spec.
func (s *endpoints) likeNew(job cluster.Job, spec []byte) []cluster.Gang {
	fresh := cluster.Job{
		Name: job.Name, Kind: job.Kind, Owner: job.Owner, Queue: job.Queue, Priority: job.Priority, Spec: spec, State: cluster.JobQueued, Attempt: 1,
		Submitted: job.Submitted,
	}
	_, gangs := reconciler.First(fresh, s.jobs.kinds[job.Kind], job.Submitted)
	return append(gangs, s.jobs.foresee(fresh)...)
}

// Update begins to replace what runs. What is checked of a submission is checked of it, and references
// to models are pinned as they are now.
func (s *endpoints) Update(ctx context.Context, request *claryv1.UpdateEndpointRequest) (*claryv1.EndpointView, error) {
	spec, problems := endpoint.Parse(request.GetSpec())
	if len(problems) > 0 {
		var p cluster.Problems
		p.Under("spec", problems)
		return nil, fault.New(fault.Invalid, "%w", p)
	}
	text, err := json.Marshal(spec)
	if err != nil {
		return nil, fault.New(fault.Invalid, "spec: %w", err)
	}
	edit := func(snapshot *state.Snapshot, r endpointRead) (cluster.Endpoint, error) {
		e, expect := r.endpoint, request.GetExpect()
		if expect != 0 && e.Last != expect {
			if e.Last == expect+1 && (string(e.Spec) == string(text) || e.Rollout != nil && string(e.Rollout.Spec) == string(text)) {
				return e, errUnchanged // it was asked for before, and the answer was lost
			}
			return e, newer(e, expect)
		}
		gangs := s.likeNew(r.job, text)
		if err := s.jobs.couldFit(gangs); err != nil {
			return e, err
		}
		if err := missingSecret(snapshot, gangs); err != nil {
			return e, err
		}
		pins, err := registry.Pin(snapshot, cluster.ModelRefs(gangs))
		if err != nil {
			return e, err
		}
		options := endpoint.Options{Replace: request.GetReplace(), Anew: request.GetAnew()}
		return endpoint.Update(r.job, e, spec, pins, options, asked(ctx))
	}
	if !request.GetDryRun() {
		return s.change(ctx, request.GetName(), edit)
	}
	r, edited, err := s.edited(ctx, request.GetName(), edit)
	if err != nil && err != errUnchanged {
		return nil, err
	}
	return &claryv1.EndpointView{Job: wire.JobToProto(r.job), Endpoint: wire.EndpointToProto(edited)}, nil
}
