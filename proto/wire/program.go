package wire

import (
	"time"

	"github.com/clary-ml/clary/cluster"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
)

// ProgramToProto converts a program.
func ProgramToProto(p cluster.Program) *claryv1.Program {
	return &claryv1.Program{
		Image: p.Image, Entrypoint: p.Entrypoint, Command: p.Command, Env: p.Env, Dir: p.Dir,
		Spec: p.Spec, Hyperparameters: p.Hyperparameters, Inputs: list(p.Inputs, InputToProto),
		Source: p.Source, Script: p.Script, Python: pythonToProto(p.Python),
		Secrets: list(p.Secrets, secretRefToProto), Metrics: list(p.Metrics, metricToProto),
		Framework: string(p.Framework), Network: string(p.Network), Grace: int64(p.Grace),
		Checkpoints: p.Checkpoints, Outputs: p.Outputs, HardCpu: p.HardCPU,
		Exclusive: p.Exclusive, Clary: p.Clary, Disk: p.Disk, ReadOnly: p.ReadOnly, Restore: p.Restore, Track: trackingToProto(p.Track),
		Contract: string(p.Contract), Cluster: string(p.Cluster), Exports: list(p.Exports, ExportToProto),
		Service: p.Service, Port: p.Port, Probe: probeToProto(p.Probe),
	}
}

// ProgramFromProto converts a program.
func ProgramFromProto(p *claryv1.Program) cluster.Program {
	return cluster.Program{
		Image: p.GetImage(), Entrypoint: some(p.GetEntrypoint()),
		Command: some(p.GetCommand()), Env: table(p.GetEnv()), Dir: p.GetDir(),
		Spec: some(p.GetSpec()), Hyperparameters: table(p.GetHyperparameters()), Inputs: list(p.GetInputs(), InputFromProto),
		Source: p.GetSource(), Script: p.GetScript(), Python: pythonFromProto(p.GetPython()),
		Secrets: list(p.GetSecrets(), secretRefFromProto), Metrics: list(p.GetMetrics(), metricFromProto),
		Framework: cluster.Framework(p.GetFramework()), Network: cluster.Network(p.GetNetwork()),
		Grace:       time.Duration(p.GetGrace()),
		Checkpoints: p.GetCheckpoints(), Outputs: p.GetOutputs(), HardCPU: p.GetHardCpu(),
		Exclusive: p.GetExclusive(), Clary: p.GetClary(), Disk: p.GetDisk(), ReadOnly: p.GetReadOnly(), Restore: p.GetRestore(), Track: trackingFromProto(p.GetTrack()),
		Contract: cluster.Contract(p.GetContract()), Cluster: cluster.Engine(p.GetCluster()), Exports: list(p.GetExports(), ExportFromProto),
		Service: p.GetService(), Port: p.GetPort(), Probe: probeFromProto(p.GetProbe()),
	}
}

// InputToProto converts an input channel.
func InputToProto(i cluster.Input) *claryv1.Input {
	return &claryv1.Input{
		Channel: i.Channel, Uri: i.URI, Mode: string(i.Mode), Type: string(i.Type), Attributes: i.Attributes,
		ContentType: i.ContentType, Sharded: i.Sharded, Gzip: i.Gzip, RecordIo: i.RecordIO, Folder: i.Folder, Sha256: i.SHA256,
		Model: i.Model,
	}
}

// InputFromProto converts an input channel.
func InputFromProto(i *claryv1.Input) cluster.Input {
	return cluster.Input{
		Channel: i.GetChannel(), URI: i.GetUri(), Mode: cluster.InputMode(i.GetMode()),
		Type: cluster.InputType(i.GetType()), Attributes: some(i.GetAttributes()),
		ContentType: i.GetContentType(), Sharded: i.GetSharded(), Gzip: i.GetGzip(), RecordIO: i.GetRecordIo(), Folder: i.GetFolder(), SHA256: i.GetSha256(),
		Model: i.GetModel(),
	}
}

// ExportToProto converts a folder that is brought to the store.
func ExportToProto(r cluster.Export) *claryv1.Export {
	return &claryv1.Export{Name: r.Name, Folder: r.Folder, To: r.To, Continuous: r.Continuous}
}

// ExportFromProto converts a folder that is brought to the store.
func ExportFromProto(r *claryv1.Export) cluster.Export {
	return cluster.Export{Name: r.GetName(), Folder: r.GetFolder(), To: r.GetTo(), Continuous: r.GetContinuous()}
}

func pythonToProto(y *cluster.Python) *claryv1.Python {
	if y == nil {
		return nil
	}
	return &claryv1.Python{Interpreter: y.Interpreter, Requirements: y.Requirements}
}

func pythonFromProto(y *claryv1.Python) *cluster.Python {
	if y == nil {
		return nil
	}
	return &cluster.Python{Interpreter: y.GetInterpreter(), Requirements: y.GetRequirements()}
}

func secretRefToProto(s cluster.SecretRef) *claryv1.SecretRef {
	return &claryv1.SecretRef{Name: s.Name, Env: s.Env, File: s.File}
}

func secretRefFromProto(s *claryv1.SecretRef) cluster.SecretRef {
	return cluster.SecretRef{Name: s.GetName(), Env: s.GetEnv(), File: s.GetFile()}
}

func metricToProto(m cluster.MetricDefinition) *claryv1.MetricDefinition {
	return &claryv1.MetricDefinition{Name: m.Name, Regex: m.Regex}
}

func metricFromProto(m *claryv1.MetricDefinition) cluster.MetricDefinition {
	return cluster.MetricDefinition{Name: m.GetName(), Regex: m.GetRegex()}
}

// trackingToProto converts what is tracked of a task.
func trackingToProto(t *cluster.Tracking) *claryv1.Tracking {
	if t == nil {
		return nil
	}
	return &claryv1.Tracking{Metric: t.Metric, Steps: t.Steps, ByStep: t.ByStep}
}

// trackingFromProto converts what is tracked of a task.
func trackingFromProto(t *claryv1.Tracking) *cluster.Tracking {
	if t == nil {
		return nil
	}
	return &cluster.Tracking{Metric: t.GetMetric(), Steps: some(t.GetSteps()), ByStep: t.GetByStep()}
}

func probeToProto(b *cluster.Probe) *claryv1.Probe {
	if b == nil {
		return nil
	}
	return &claryv1.Probe{Path: b.Path, Startup: int64(b.Startup), Every: int64(b.Every), Timeout: int64(b.Timeout), Failures: b.Failures}
}

func probeFromProto(b *claryv1.Probe) *cluster.Probe {
	if b == nil {
		return nil
	}
	return &cluster.Probe{
		Path: b.GetPath(), Startup: time.Duration(b.GetStartup()), Every: time.Duration(b.GetEvery()), Timeout: time.Duration(b.GetTimeout()), Failures: b.GetFailures(),
	}
}
