package wire

import (
	"github.com/clary-ml/clary/cluster"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
)

// AllocationToProto converts an allocation.
func AllocationToProto(a cluster.Allocation) *claryv1.Allocation {
	return &claryv1.Allocation{Node: a.Node, Resources: ResourcesToProto(a.Resources)}
}

// AllocationFromProto converts an allocation.
func AllocationFromProto(a *claryv1.Allocation) cluster.Allocation {
	return cluster.Allocation{Node: a.GetNode(), Resources: ResourcesFromProto(a.GetResources())}
}

// TaskToProto converts a task.
func TaskToProto(t cluster.Task) *claryv1.Task {
	return &claryv1.Task{
		Id: t.ID, Job: t.Job, Gang: t.Gang, Role: t.Role, Index: t.Index, Attempt: t.Attempt,
		Allocation: AllocationToProto(t.Allocation), Status: TaskStatusToProto(t.Status),
		Assigned: t.Assigned, Revision: t.Revision, Claim: ClaimToProto(t.Claim),
	}
}

// TaskFromProto converts a task.
func TaskFromProto(t *claryv1.Task) cluster.Task {
	return cluster.Task{
		ID: t.GetId(), Job: t.GetJob(), Gang: t.GetGang(), Role: t.GetRole(),
		Index: t.GetIndex(), Attempt: t.GetAttempt(),
		Allocation: AllocationFromProto(t.GetAllocation()),
		Status:     TaskStatusFromProto(t.GetStatus()),
		Assigned:   t.GetAssigned(), Revision: t.GetRevision(), Claim: ClaimFromProto(t.GetClaim()),
	}
}

// TaskStatusToProto converts what an agent reports of a task.
func TaskStatusToProto(s cluster.TaskStatus) *claryv1.TaskStatus {
	return &claryv1.TaskStatus{
		State: string(s.State), Reason: s.Reason, ExitCode: s.ExitCode,
		Started: s.Started, Ended: s.Ended,
		Progress: ProgressToProto(s.Progress), Outputs: list(s.Outputs, OutputToProto), Message: s.Message, Healthy: s.Healthy,
	}
}

// TaskStatusFromProto converts what an agent reports of a task.
func TaskStatusFromProto(s *claryv1.TaskStatus) cluster.TaskStatus {
	return cluster.TaskStatus{
		State: cluster.TaskState(s.GetState()), Reason: s.GetReason(), ExitCode: s.GetExitCode(),
		Started: s.GetStarted(), Ended: s.GetEnded(),
		Progress: ProgressFromProto(s.GetProgress()), Outputs: list(s.GetOutputs(), OutputFromProto), Message: s.GetMessage(), Healthy: s.GetHealthy(),
	}
}

// ProgressToProto converts a task's progress.
func ProgressToProto(p cluster.Progress) *claryv1.Progress {
	if p.Epoch == 0 && p.Step == 0 && p.Total == 0 && len(p.Metrics) == 0 && len(p.Curve) == 0 && p.Checkpoint == 0 {
		return nil
	}
	return &claryv1.Progress{Epoch: p.Epoch, Step: p.Step, Total: p.Total, Metrics: p.Metrics, Curve: list(p.Curve, CurvePointToProto), Checkpoint: p.Checkpoint}
}

// ProgressFromProto converts a task's progress.
func ProgressFromProto(p *claryv1.Progress) cluster.Progress {
	return cluster.Progress{
		Epoch: p.GetEpoch(), Step: p.GetStep(), Total: p.GetTotal(), Metrics: table(p.GetMetrics()),
		Curve: list(p.GetCurve(), CurvePointFromProto), Checkpoint: p.GetCheckpoint(),
	}
}

// OutputToProto converts an uploaded object.
func OutputToProto(o cluster.Output) *claryv1.Output {
	return &claryv1.Output{Name: o.Name, Uri: o.URI, Sha256: o.SHA256, Size: o.Size, Files: o.Files}
}

// OutputFromProto converts an uploaded object.
func OutputFromProto(o *claryv1.Output) cluster.Output {
	return cluster.Output{Name: o.GetName(), URI: o.GetUri(), SHA256: o.GetSha256(), Size: o.GetSize(), Files: o.GetFiles()}
}

// PublicationToProto converts a publication.
func PublicationToProto(p cluster.Publication) *claryv1.Publication {
	return &claryv1.Publication{
		Job: p.Job, Attempt: p.Attempt, Outputs: list(p.Outputs, OutputToProto),
		Published: p.Published, Revision: p.Revision,
	}
}

// PublicationFromProto converts a publication.
func PublicationFromProto(p *claryv1.Publication) cluster.Publication {
	return cluster.Publication{
		Job: p.GetJob(), Attempt: p.GetAttempt(), Outputs: list(p.GetOutputs(), OutputFromProto),
		Published: p.GetPublished(), Revision: p.GetRevision(),
	}
}
