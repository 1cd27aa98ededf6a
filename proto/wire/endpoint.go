package wire

import (
	"time"

	"github.com/clary-ml/clary/cluster"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
)

// EndpointToProto converts what changes of an endpoint.
func EndpointToProto(e cluster.Endpoint) *claryv1.Endpoint {
	out := &claryv1.Endpoint{
		Job: e.Job, Generation: e.Generation, Last: e.Last, Spec: e.Spec, Fleets: list(e.Fleets, FleetToProto),
		Previous: e.Previous, PreviousModels: list(e.PreviousModels, ModelPinToProto), Notes: list(e.Notes, EndpointNoteToProto), Revision: e.Revision,
	}
	if e.Rollout != nil {
		out.Rollout = RolloutToProto(*e.Rollout)
	}
	if e.Experiment != nil {
		out.Experiment = ExperimentToProto(*e.Experiment)
	}
	return out
}

// EndpointFromProto converts what changes of an endpoint.
func EndpointFromProto(e *claryv1.Endpoint) cluster.Endpoint {
	out := cluster.Endpoint{
		Job: e.GetJob(), Generation: e.GetGeneration(), Last: e.GetLast(), Spec: some(e.GetSpec()), Fleets: list(e.GetFleets(), FleetFromProto),
		Previous: some(e.GetPrevious()), PreviousModels: list(e.GetPreviousModels(), ModelPinFromProto),
		Notes: list(e.GetNotes(), EndpointNoteFromProto), Revision: e.GetRevision(),
	}
	if e.GetRollout() != nil {
		rollout := RolloutFromProto(e.GetRollout())
		out.Rollout = &rollout
	}
	if e.GetExperiment() != nil {
		experiment := ExperimentFromProto(e.GetExperiment())
		out.Experiment = &experiment
	}
	return out
}

// FleetToProto converts a fleet.
func FleetToProto(f cluster.Fleet) *claryv1.Fleet {
	return &claryv1.Fleet{
		Variant: f.Variant, Generation: f.Generation, Spec: f.Spec, Role: RoleToProto(f.Role), Models: list(f.Models, ModelPinToProto),
		Weight: f.Weight, Share: f.Share, Replicas: f.Replicas, Next: f.Next, Draining: list(f.Draining, DrainingReplicaToProto),
		Scaled: f.Scaled, Scaler: f.Scaler, Retired: f.Retired, Silent: f.Silent,
	}
}

// FleetFromProto converts a fleet.
func FleetFromProto(f *claryv1.Fleet) cluster.Fleet {
	return cluster.Fleet{
		Variant: f.GetVariant(), Generation: f.GetGeneration(), Spec: some(f.GetSpec()), Role: RoleFromProto(f.GetRole()),
		Models: list(f.GetModels(), ModelPinFromProto), Weight: f.GetWeight(), Share: f.GetShare(), Replicas: f.GetReplicas(), Next: f.GetNext(),
		Draining: list(f.GetDraining(), DrainingReplicaFromProto), Scaled: f.GetScaled(), Scaler: some(f.GetScaler()), Retired: f.GetRetired(), Silent: f.GetSilent(),
	}
}

// DrainingReplicaToProto converts a replica that is on its way out.
func DrainingReplicaToProto(d cluster.DrainingReplica) *claryv1.DrainingReplica {
	return &claryv1.DrainingReplica{Gang: d.Gang, Since: d.Since, Idle: d.Idle}
}

// DrainingReplicaFromProto converts a replica that is on its way out.
func DrainingReplicaFromProto(d *claryv1.DrainingReplica) cluster.DrainingReplica {
	return cluster.DrainingReplica{Gang: d.GetGang(), Since: d.GetSince(), Idle: d.GetIdle()}
}

// RolloutToProto converts an update in progress.
func RolloutToProto(r cluster.Rollout) *claryv1.Rollout {
	return &claryv1.Rollout{
		From: r.From, To: r.To, Spec: r.Spec, Phase: string(r.Phase), Steps: r.Steps, Step: r.Step, Bake: int64(r.Bake), Startup: int64(r.Startup),
		Wait: int64(r.Wait), Started: r.Started, Since: r.Since, By: r.By, Alarm: r.Alarm, Watched: r.Watched, Reason: r.Reason,
	}
}

// RolloutFromProto converts an update in progress.
func RolloutFromProto(r *claryv1.Rollout) cluster.Rollout {
	return cluster.Rollout{
		From: r.GetFrom(), To: r.GetTo(), Spec: some(r.GetSpec()), Phase: cluster.RolloutPhase(r.GetPhase()), Steps: some(r.GetSteps()), Step: r.GetStep(),
		Bake: time.Duration(r.GetBake()), Startup: time.Duration(r.GetStartup()), Wait: time.Duration(r.GetWait()),
		Started: r.GetStarted(), Since: r.GetSince(), By: r.GetBy(), Alarm: r.GetAlarm(), Watched: r.GetWatched(), Reason: r.GetReason(),
	}
}

// ExperimentToProto converts an A/B test.
func ExperimentToProto(x cluster.Experiment) *claryv1.Experiment {
	return &claryv1.Experiment{Spec: x.Spec, State: x.State, By: x.By, Started: x.Started, Ended: x.Ended, Verdict: x.Verdict}
}

// ExperimentFromProto converts an A/B test.
func ExperimentFromProto(x *claryv1.Experiment) cluster.Experiment {
	return cluster.Experiment{
		Spec: some(x.GetSpec()), State: some(x.GetState()), By: x.GetBy(), Started: x.GetStarted(), Ended: x.GetEnded(), Verdict: x.GetVerdict(),
	}
}

// EndpointNoteToProto converts a note.
func EndpointNoteToProto(n cluster.EndpointNote) *claryv1.EndpointNote {
	return &claryv1.EndpointNote{At: n.At, What: n.What, Text: n.Text, By: n.By}
}

// EndpointNoteFromProto converts a note.
func EndpointNoteFromProto(n *claryv1.EndpointNote) cluster.EndpointNote {
	return cluster.EndpointNote{At: n.GetAt(), What: n.GetWhat(), Text: n.GetText(), By: n.GetBy()}
}
