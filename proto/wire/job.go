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
		Revision: j.Revision,
	}
	if j.Retry != (cluster.Retry{}) {
		out.Retry = &claryv1.Retry{Limit: j.Retry.Limit, Backoff: int64(j.Retry.Backoff)}
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
		},
		Held: j.GetHeld(), Cancel: j.GetCancel(),
		State: cluster.JobState(j.GetState()), Reason: j.GetReason(),
		Attempt: j.GetAttempt(), Failures: j.GetFailures(),
		Submitted: j.GetSubmitted(), Started: j.GetStarted(), Ended: j.GetEnded(),
		Delivered: j.GetDelivered(), Revision: j.GetRevision(),
	}
}

// GangToProto converts a gang.
func GangToProto(g cluster.Gang) *claryv1.Gang {
	return &claryv1.Gang{
		Job: g.Job, Name: g.Name, Queue: g.Queue, Owner: g.Owner, Priority: g.Priority,
		Attempt: g.Attempt, Roles: list(g.Roles, RoleToProto),
		Submitted: g.Submitted, NotBefore: g.NotBefore, MaxRuntime: int64(g.MaxRuntime),
		Held: g.Held, Stop: g.Stop, StopReason: g.StopReason, Revision: g.Revision,
	}
}

// GangFromProto converts a gang.
func GangFromProto(g *claryv1.Gang) cluster.Gang {
	return cluster.Gang{
		Job: g.GetJob(), Name: g.GetName(), Queue: g.GetQueue(), Owner: g.GetOwner(),
		Priority: g.GetPriority(), Attempt: g.GetAttempt(), Roles: list(g.GetRoles(), RoleFromProto),
		Submitted: g.GetSubmitted(), NotBefore: g.GetNotBefore(),
		MaxRuntime: time.Duration(g.GetMaxRuntime()),
		Held:       g.GetHeld(), Stop: g.GetStop(), StopReason: g.GetStopReason(),
		Revision: g.GetRevision(),
	}
}

// RoleToProto converts a role.
func RoleToProto(r cluster.Role) *claryv1.Role {
	return &claryv1.Role{
		Name: r.Name, Count: r.Count, Ask: AskToProto(r.Ask),
		Program: ProgramToProto(r.Program), Labels: r.Labels,
	}
}

// RoleFromProto converts a role.
func RoleFromProto(r *claryv1.Role) cluster.Role {
	return cluster.Role{
		Name: r.GetName(), Count: r.GetCount(), Ask: AskFromProto(r.GetAsk()),
		Program: ProgramFromProto(r.GetProgram()), Labels: table(r.GetLabels()),
	}
}

// ProgramToProto converts a program.
func ProgramToProto(p cluster.Program) *claryv1.Program {
	return &claryv1.Program{
		Command: p.Command, Env: p.Env, Dir: p.Dir, Spec: p.Spec,
		Inputs: list(p.Inputs, InputToProto), Grace: int64(p.Grace),
		Checkpoints: p.Checkpoints, Outputs: p.Outputs, HardCpu: p.HardCPU,
		Exclusive: p.Exclusive, Clary: p.Clary,
	}
}

// ProgramFromProto converts a program.
func ProgramFromProto(p *claryv1.Program) cluster.Program {
	return cluster.Program{
		Command: some(p.GetCommand()), Env: table(p.GetEnv()), Dir: p.GetDir(), Spec: some(p.GetSpec()),
		Inputs: list(p.GetInputs(), InputFromProto), Grace: time.Duration(p.GetGrace()),
		Checkpoints: p.GetCheckpoints(), Outputs: p.GetOutputs(), HardCPU: p.GetHardCpu(),
		Exclusive: p.GetExclusive(), Clary: p.GetClary(),
	}
}

// InputToProto converts an input channel.
func InputToProto(i cluster.Input) *claryv1.Input {
	return &claryv1.Input{Channel: i.Channel, Uri: i.URI}
}

// InputFromProto converts an input channel.
func InputFromProto(i *claryv1.Input) cluster.Input {
	return cluster.Input{Channel: i.GetChannel(), URI: i.GetUri()}
}

// AskToProto converts what a task asks for.
func AskToProto(a cluster.Ask) *claryv1.Ask {
	return &claryv1.Ask{
		MilliCpu: a.MilliCPU, Memory: a.Memory, Gpus: a.GPUs, GpuModel: a.GPUModel, Ports: a.Ports,
	}
}

// AskFromProto converts what a task asks for.
func AskFromProto(a *claryv1.Ask) cluster.Ask {
	return cluster.Ask{
		MilliCPU: a.GetMilliCpu(), Memory: a.GetMemory(), GPUs: a.GetGpus(),
		GPUModel: a.GetGpuModel(), Ports: a.GetPorts(),
	}
}
