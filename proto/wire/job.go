package wire

import (
	"time"

	"github.com/clary-ml/clary/cluster"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
)

// JobToProto converts a job.
func JobToProto(j cluster.Job) *claryv1.Job {
	out := &claryv1.Job{
		Name: j.Name, Kind: string(j.Kind), Owner: j.Owner, Queue: j.Queue, Priority: j.Priority,
		Labels: j.Labels, Spec: j.Spec, RequestId: j.RequestID,
		MaxRuntime: int64(j.MaxRuntime), Held: j.Held, Cancel: j.Cancel,
		State: string(j.State), Reason: j.Reason, Attempt: j.Attempt, Failures: j.Failures,
		Submitted: j.Submitted, Started: j.Started, Ended: j.Ended, Delivered: j.Delivered,
		Revision: j.Revision, Parent: j.Parent, Register: j.Register, Models: list(j.Models, ModelPinToProto),
		Preempted: j.Preempted, Ran: int64(j.Ran), NonPreemptible: j.NonPreemptible,
	}
	if r := j.Retry; r.Limit != 0 || r.Backoff != 0 || len(r.Only) > 0 || len(r.Never) > 0 {
		out.Retry = &claryv1.Retry{Limit: r.Limit, Backoff: int64(r.Backoff), Only: r.Only, Never: r.Never}
	}
	return out
}

// JobFromProto converts a job.
func JobFromProto(j *claryv1.Job) cluster.Job {
	return cluster.Job{
		Name: j.GetName(), Kind: cluster.Kind(j.GetKind()), Owner: j.GetOwner(), Queue: j.GetQueue(),
		Priority: j.GetPriority(), Labels: table(j.GetLabels()), Spec: some(j.GetSpec()),
		RequestID:  j.GetRequestId(),
		MaxRuntime: time.Duration(j.GetMaxRuntime()),
		Retry: cluster.Retry{
			Limit: j.GetRetry().GetLimit(), Backoff: time.Duration(j.GetRetry().GetBackoff()),
			Only: some(j.GetRetry().GetOnly()), Never: some(j.GetRetry().GetNever()),
		},
		Held: j.GetHeld(), Cancel: j.GetCancel(),
		State: cluster.JobState(j.GetState()), Reason: j.GetReason(),
		Attempt: j.GetAttempt(), Failures: j.GetFailures(),
		Submitted: j.GetSubmitted(), Started: j.GetStarted(), Ended: j.GetEnded(),
		Delivered: j.GetDelivered(), Revision: j.GetRevision(), Parent: j.GetParent(),
		Register: j.GetRegister(), Models: list(j.GetModels(), ModelPinFromProto),
		Preempted: j.GetPreempted(), Ran: time.Duration(j.GetRan()), NonPreemptible: j.GetNonPreemptible(),
	}
}

// GangToProto converts a gang.
func GangToProto(g cluster.Gang) *claryv1.Gang {
	return &claryv1.Gang{
		Job: g.Job, Name: g.Name, Queue: g.Queue, Owner: g.Owner, Priority: g.Priority,
		Attempt: g.Attempt, Roles: list(g.Roles, RoleToProto),
		Submitted: g.Submitted, NotBefore: g.NotBefore, MaxRuntime: int64(g.MaxRuntime),
		Held: g.Held, Stop: g.Stop, StopReason: g.StopReason, Moves: g.Moves, Revision: g.Revision, Labels: g.Labels,
		Handover: g.Handover, Failures: g.Failures,
		Granted: g.Granted, ForGang: g.For, Evicted: g.Evicted, Resized: g.Resized, NonPreemptible: g.NonPreemptible, Ran: int64(g.Ran),
	}
}

// GangFromProto converts a gang.
func GangFromProto(g *claryv1.Gang) cluster.Gang {
	return cluster.Gang{
		Job: g.GetJob(), Name: g.GetName(), Queue: g.GetQueue(), Owner: g.GetOwner(),
		Priority: g.GetPriority(), Attempt: g.GetAttempt(), Roles: list(g.GetRoles(), RoleFromProto),
		Submitted: g.GetSubmitted(), NotBefore: g.GetNotBefore(),
		MaxRuntime: time.Duration(g.GetMaxRuntime()),
		Held:       g.GetHeld(), Stop: g.GetStop(), StopReason: g.GetStopReason(), Moves: g.GetMoves(),
		Handover: g.GetHandover(), Failures: g.GetFailures(), Revision: g.GetRevision(), Labels: table(g.GetLabels()),
		Granted: some(g.GetGranted()), For: g.GetForGang(), Evicted: g.GetEvicted(), Resized: some(g.GetResized()),
		NonPreemptible: g.GetNonPreemptible(), Ran: time.Duration(g.GetRan()),
	}
}

// RoleToProto converts a role.
func RoleToProto(r cluster.Role) *claryv1.Role {
	return &claryv1.Role{
		Name: r.Name, Count: r.Count, Ask: AskToProto(r.Ask),
		Program: ProgramToProto(r.Program), Labels: r.Labels, Spread: r.Spread, Min: r.Min,
		Over: string(r.Over), Pack: r.Pack, Constraints: list(r.Constraints, ConstraintToProto), Affinities: list(r.Affinities, AffinityToProto),
		Tolerations: list(r.Tolerations, TolerationToProto), Topology: TopologyToProto(r.Topology),
	}
}

// RoleFromProto converts a role.
func RoleFromProto(r *claryv1.Role) cluster.Role {
	return cluster.Role{
		Name: r.GetName(), Count: r.GetCount(), Ask: AskFromProto(r.GetAsk()),
		Program: ProgramFromProto(r.GetProgram()), Labels: table(r.GetLabels()), Spread: r.GetSpread(), Min: r.GetMin(),
		Over: cluster.Level(r.GetOver()), Pack: r.GetPack(), Constraints: list(r.GetConstraints(), ConstraintFromProto),
		Affinities: list(r.GetAffinities(), AffinityFromProto), Tolerations: list(r.GetTolerations(), TolerationFromProto),
		Topology: TopologyFromProto(r.GetTopology()),
	}
}

// AskToProto converts what a task asks for.
func AskToProto(a cluster.Ask) *claryv1.Ask {
	return &claryv1.Ask{
		MilliCpu: a.MilliCPU, Memory: a.Memory, Gpus: a.GPUs, GpuModel: a.GPUModel, Ports: a.Ports,
		GpuMilli: a.GPUMilli, GpuMemory: a.GPUMemory, Mig: a.MIG,
	}
}

// AskFromProto converts what a task asks for.
func AskFromProto(a *claryv1.Ask) cluster.Ask {
	return cluster.Ask{
		MilliCPU: a.GetMilliCpu(), Memory: a.GetMemory(), GPUs: a.GetGpus(),
		GPUModel: a.GetGpuModel(), Ports: a.GetPorts(),
		GPUMilli: a.GetGpuMilli(), GPUMemory: a.GetGpuMemory(), MIG: a.GetMig(),
	}
}

// ArchivedToProto converts what stays of an archived job.
func ArchivedToProto(a cluster.Archived) *claryv1.ArchivedJob {
	return &claryv1.ArchivedJob{
		Name: a.Name, Kind: string(a.Kind), Owner: a.Owner, Queue: a.Queue, State: string(a.State),
		Submitted: a.Submitted, Started: a.Started, Ended: a.Ended, At: a.At, Revision: a.Revision,
	}
}

// ArchivedFromProto converts what stays of an archived job.
func ArchivedFromProto(a *claryv1.ArchivedJob) cluster.Archived {
	return cluster.Archived{
		Name: a.GetName(), Kind: cluster.Kind(a.GetKind()), Owner: a.GetOwner(), Queue: a.GetQueue(), State: cluster.JobState(a.GetState()),
		Submitted: a.GetSubmitted(), Started: a.GetStarted(), Ended: a.GetEnded(), At: a.GetAt(), Revision: a.GetRevision(),
	}
}
