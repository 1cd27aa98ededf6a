package wire

import (
	"github.com/clary-ml/clary/cluster"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
)

// ModelToProto converts a model.
func ModelToProto(m cluster.Model) *claryv1.Model {
	return &claryv1.Model{
		Name: m.Name, Text: m.Text, Owner: m.Owner, Created: m.Created, Next: m.Next, Count: m.Count,
		Aliases: m.Aliases, Deleted: m.Deleted, Revision: m.Revision,
	}
}

// ModelFromProto converts a model.
func ModelFromProto(m *claryv1.Model) cluster.Model {
	return cluster.Model{
		Name: m.GetName(), Text: m.GetText(), Owner: m.GetOwner(), Created: m.GetCreated(), Next: m.GetNext(), Count: m.GetCount(),
		Aliases: table(m.GetAliases()), Deleted: m.GetDeleted(), Revision: m.GetRevision(),
	}
}

// ModelVersionToProto converts a version of a model.
func ModelVersionToProto(v cluster.ModelVersion) *claryv1.ModelVersion {
	out := &claryv1.ModelVersion{
		Model: v.Model, Number: v.Number, Text: v.Text, Owner: v.Owner, Created: v.Created, RequestId: v.RequestID,
		Framework: v.Framework, Format: v.Format, Approval: ApprovalToProto(v.Approval), Lineage: LineageToProto(v.Lineage),
		Evaluations: list(v.Evaluations, EvaluationToProto), Deleting: v.Deleting, Revision: v.Revision,
	}
	if v.Artifact != (cluster.Output{}) {
		out.Artifact = OutputToProto(v.Artifact)
	}
	return out
}

// ModelVersionFromProto converts a version of a model.
func ModelVersionFromProto(v *claryv1.ModelVersion) cluster.ModelVersion {
	return cluster.ModelVersion{
		Model: v.GetModel(), Number: v.GetNumber(), Text: v.GetText(), Owner: v.GetOwner(), Created: v.GetCreated(), RequestID: v.GetRequestId(),
		Artifact: OutputFromProto(v.GetArtifact()), Framework: v.GetFramework(), Format: v.GetFormat(),
		Approval: ApprovalFromProto(v.GetApproval()), Lineage: LineageFromProto(v.GetLineage()),
		Evaluations: list(v.GetEvaluations(), EvaluationFromProto), Deleting: v.GetDeleting(), Revision: v.GetRevision(),
	}
}

// ApprovalToProto converts a decision; none at all is nothing.
func ApprovalToProto(a cluster.Approval) *claryv1.Approval {
	if a == (cluster.Approval{}) {
		return nil
	}
	return &claryv1.Approval{State: string(a.State), By: a.By, At: a.At, Why: a.Why}
}

// ApprovalFromProto converts a decision.
func ApprovalFromProto(a *claryv1.Approval) cluster.Approval {
	return cluster.Approval{State: cluster.ApprovalState(a.GetState()), By: a.GetBy(), At: a.GetAt(), Why: a.GetWhy()}
}

// LineageToProto converts where a version came from.
func LineageToProto(l cluster.Lineage) *claryv1.Lineage {
	out := &claryv1.Lineage{
		Job: l.Job, Kind: string(l.Kind), Submitted: l.Submitted, Attempt: l.Attempt, Output: l.Output, Source: l.Source,
		Data: list(l.Data, DataRefToProto), Models: list(l.Models, ModelPinToProto), Parameters: l.Parameters, Metrics: l.Metrics,
	}
	if l.Code != (cluster.Code{}) {
		out.Code = CodeToProto(l.Code)
	}
	return out
}

// LineageFromProto converts where a version came from.
func LineageFromProto(l *claryv1.Lineage) cluster.Lineage {
	return cluster.Lineage{
		Job: l.GetJob(), Kind: cluster.Kind(l.GetKind()), Submitted: l.GetSubmitted(), Attempt: l.GetAttempt(), Output: l.GetOutput(), Source: l.GetSource(),
		Code: CodeFromProto(l.GetCode()), Data: list(l.GetData(), DataRefFromProto), Models: list(l.GetModels(), ModelPinFromProto),
		Parameters: table(l.GetParameters()), Metrics: table(l.GetMetrics()),
	}
}

// CodeToProto converts what made a model.
func CodeToProto(c cluster.Code) *claryv1.Code {
	return &claryv1.Code{What: c.What, Digest: c.Digest}
}

// CodeFromProto converts what made a model.
func CodeFromProto(c *claryv1.Code) cluster.Code {
	return cluster.Code{What: c.GetWhat(), Digest: c.GetDigest()}
}

// DataRefToProto converts what a job read.
func DataRefToProto(d cluster.DataRef) *claryv1.DataRef {
	return &claryv1.DataRef{Channel: d.Channel, Uri: d.URI, Digest: d.Digest, Objects: d.Objects, Bytes: d.Bytes, Changed: d.Changed}
}

// DataRefFromProto converts what a job read.
func DataRefFromProto(d *claryv1.DataRef) cluster.DataRef {
	return cluster.DataRef{Channel: d.GetChannel(), URI: d.GetUri(), Digest: d.GetDigest(), Objects: d.GetObjects(), Bytes: d.GetBytes(), Changed: d.GetChanged()}
}

// ModelPinToProto converts what a reference meant.
func ModelPinToProto(p cluster.ModelPin) *claryv1.ModelPin {
	return &claryv1.ModelPin{Ref: p.Ref, Model: p.Model, Number: p.Number, Uri: p.URI, Sha256: p.SHA256}
}

// ModelPinFromProto converts what a reference meant.
func ModelPinFromProto(p *claryv1.ModelPin) cluster.ModelPin {
	return cluster.ModelPin{Ref: p.GetRef(), Model: p.GetModel(), Number: p.GetNumber(), URI: p.GetUri(), SHA256: p.GetSha256()}
}

// EvaluationToProto converts a report about a version.
func EvaluationToProto(e cluster.Evaluation) *claryv1.Evaluation {
	return &claryv1.Evaluation{
		Name: e.Name, Metrics: e.Metrics, Rows: e.Rows, Data: e.Data, Digest: e.Digest, Against: e.Against,
		Report: e.Report, Details: e.Details, By: e.By, At: e.At,
	}
}

// EvaluationFromProto converts a report about a version.
func EvaluationFromProto(e *claryv1.Evaluation) cluster.Evaluation {
	return cluster.Evaluation{
		Name: e.GetName(), Metrics: table(e.GetMetrics()), Rows: e.GetRows(), Data: e.GetData(), Digest: e.GetDigest(), Against: e.GetAgainst(),
		Report: e.GetReport(), Details: e.GetDetails(), By: e.GetBy(), At: e.GetAt(),
	}
}
