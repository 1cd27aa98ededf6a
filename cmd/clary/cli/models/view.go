package models

import (
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
)

type modelJSON struct {
	Name     string           `json:"name"`
	Text     string           `json:"text,omitempty"`
	Owner    string           `json:"owner"`
	Created  string           `json:"created"`
	Versions int64            `json:"versions"`
	Next     int64            `json:"next"`
	Aliases  map[string]int64 `json:"aliases,omitempty"`
	Revision uint64           `json:"revision"`
}

func modelToJSON(m cluster.Model) modelJSON {
	return modelJSON{
		Name: m.Name, Text: m.Text, Owner: m.Owner, Created: shell.Moment(m.Created), Versions: m.Count, Next: m.Next, Aliases: m.Aliases, Revision: m.Revision,
	}
}

type versionJSON struct {
	Model       string           `json:"model"`
	Version     int64            `json:"version"`
	Text        string           `json:"text,omitempty"`
	Owner       string           `json:"owner"`
	Created     string           `json:"created"`
	Artifact    shell.OutputJSON `json:"artifact"`
	Framework   string           `json:"framework,omitempty"`
	Format      string           `json:"format,omitempty"`
	Approval    approvalJSON     `json:"approval"`
	Aliases     []string         `json:"aliases,omitempty"`
	UsedBy      []string         `json:"used_by,omitempty"`
	Lineage     lineageJSON      `json:"lineage"`
	Evaluations []evaluationJSON `json:"evaluations,omitempty"`
	Deleting    bool             `json:"deleting,omitempty"`
	Revision    uint64           `json:"revision"`
}

type approvalJSON struct {
	State cluster.ApprovalState `json:"state"`
	By    string                `json:"by,omitempty"`
	At    string                `json:"at,omitempty"`
	Why   string                `json:"why,omitempty"`
}

type lineageJSON struct {
	Job        string             `json:"job,omitempty"`
	Kind       cluster.Kind       `json:"kind,omitempty"`
	Attempt    int32              `json:"attempt,omitempty"`
	Output     string             `json:"output,omitempty"`
	Source     string             `json:"source,omitempty"`
	Code       string             `json:"code,omitempty"`
	CodeDigest string             `json:"code_digest,omitempty"`
	Data       []dataJSON         `json:"data,omitempty"`
	Models     []shell.PinJSON    `json:"models,omitempty"`
	Parameters map[string]string  `json:"parameters,omitempty"`
	Metrics    map[string]float64 `json:"metrics,omitempty"`
}

type dataJSON struct {
	Channel string `json:"channel"`
	URI     string `json:"uri"`
	Digest  string `json:"digest"`
	Objects int64  `json:"objects"`
	Bytes   int64  `json:"bytes"`
	Changed bool   `json:"changed,omitempty"`
}

type evaluationJSON struct {
	Name    string             `json:"name"`
	Metrics map[string]float64 `json:"metrics"`
	Rows    int64              `json:"rows,omitempty"`
	Data    string             `json:"data,omitempty"`
	Digest  string             `json:"digest,omitempty"`
	Against string             `json:"against,omitempty"`
	Report  string             `json:"report,omitempty"`
	Details string             `json:"details,omitempty"`
	By      string             `json:"by"`
	At      string             `json:"at"`
}

func versionToJSON(v cluster.ModelVersion, aliases, users []string) versionJSON {
	l := v.Lineage
	out := versionJSON{
		Model: v.Model, Version: v.Number, Text: v.Text, Owner: v.Owner, Created: shell.Moment(v.Created),
		Artifact:  shell.OutputJSON{Name: v.Artifact.Name, URI: v.Artifact.URI, SHA256: v.Artifact.SHA256, Size: v.Artifact.Size},
		Framework: v.Framework, Format: v.Format, Aliases: aliases, UsedBy: users, Deleting: v.Deleting, Revision: v.Revision,
		Approval: approvalJSON{State: v.Approval.State, By: v.Approval.By, At: shell.Moment(v.Approval.At), Why: v.Approval.Why},
		Lineage: lineageJSON{
			Job: l.Job, Kind: l.Kind, Attempt: l.Attempt, Output: l.Output, Source: l.Source, Code: l.Code.What, CodeDigest: l.Code.Digest,
			Models: shell.PinsToJSON(l.Models), Parameters: l.Parameters, Metrics: l.Metrics,
		},
	}
	for _, d := range l.Data {
		out.Lineage.Data = append(out.Lineage.Data, dataJSON(d))
	}
	for _, e := range v.Evaluations {
		out.Evaluations = append(out.Evaluations, evaluationJSON{
			Name: e.Name, Metrics: e.Metrics, Rows: e.Rows, Data: e.Data, Digest: e.Digest, Against: e.Against, Report: e.Report, Details: e.Details, By: e.By, At: shell.Moment(e.At),
		})
	}
	return out
}
