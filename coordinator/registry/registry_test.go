package registry_test

import (
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/registry"
	"github.com/clary-ml/clary/coordinator/registry/registrytest"
	"github.com/clary-ml/clary/internal/fault"
)

var began = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// made is a job of two tasks that ran a script and published a model.
func made(change func(*cluster.Program)) registry.Made {
	program := cluster.Program{
		Command: []string{"python3", "train.py"}, Script: "train.py", Source: "s3://clary/uploads/x/source.tar.gz", Outputs: true,
		Hyperparameters: map[string]string{"lr": "0.1"},
		Inputs: []cluster.Input{
			{Channel: "train", URI: "s3://data/train"}, {Channel: "base", URI: "s3://clary/models/base/k/m", SHA256: strings.Repeat("a", 64)},
		},
	}
	if change != nil {
		change(&program)
	}
	task := func(index int32, metrics map[string]float64) cluster.Task {
		return cluster.Task{Role: "worker", Index: index, Attempt: 2, Status: cluster.TaskStatus{Progress: cluster.Progress{Metrics: metrics}}}
	}
	return registry.Made{
		Job: cluster.Job{
			Name: "churn", Kind: cluster.KindTraining, Owner: "ann", Submitted: 5, Started: began.UnixNano(),
			Models: []cluster.ModelPin{{Ref: "model://base:champion", Model: "base", Number: 2}},
		},
		Gangs: []cluster.Gang{{Roles: []cluster.Role{{Name: "server"}, {Name: "worker", Program: program}}}},
		Tasks: []cluster.Task{
			task(1, map[string]float64{"loss": 9}), task(0, map[string]float64{"loss": 0.5}), {Role: "worker", Attempt: 1, Status: cluster.TaskStatus{Progress: cluster.Progress{Metrics: map[string]float64{"loss": 7}}}},
		},
		Publication: &cluster.Publication{Attempt: 2, Outputs: []cluster.Output{{Name: "model", URI: "s3://clary/jobs/churn/2/model.tar.gz", SHA256: strings.Repeat("b", 64), Size: 7}}},
		Output:      "model",
	}
}

func filled() *registrytest.Store {
	store := registrytest.New()
	store.Write("s3://clary/jobs/churn/2/model.tar.gz", "weights", began)
	store.Write("s3://clary/uploads/x/source.tar.gz", "code", began)
	store.Write("s3://data/train/a.csv", "1", began.Add(-time.Hour))
	store.Write("s3://data/train/b.csv", "22", began.Add(-time.Hour))
	store.Write("s3://data/train-old/c.csv", "333", began.Add(-time.Hour))
	return store
}

func register(t *testing.T, store *registrytest.Store, m registry.Made) cluster.ModelVersion {
	t.Helper()
	version, err := registry.FromJob(t.Context(), store, "net", registry.Key(m.Job), m)
	if err != nil {
		t.Fatal(err)
	}
	return version
}

func TestAVersionKnowsWhereItCameFrom(t *testing.T) {
	store := filled()
	v := register(t, store, made(nil))
	l := v.Lineage
	if v.Owner != "ann" || v.Format != "tar.gz" || v.Artifact.SHA256 != strings.Repeat("b", 64) || len(store.Below(v.Artifact.URI)) != 1 {
		t.Errorf("it is %+v", v)
	}
	if l.Job != "churn" || l.Attempt != 2 || l.Submitted != 5 || l.Metrics["loss"] != 0.5 || l.Parameters["lr"] != "0.1" || len(l.Models) != 1 || l.Models[0].Number != 2 {
		t.Errorf("lineage: %+v", l)
	}
	if l.Code.What != "train.py s3://clary/uploads/x/source.tar.gz" || l.Code.Digest != "sha256:5694d08a2e53ffcae0c3103e5ad6f6076abd960eb1f8a56577040bc1028f702b" {
		t.Errorf("code: %+v", l.Code)
	}
	if len(l.Data) != 1 || l.Data[0].Objects != 2 || l.Data[0].Bytes != 3 || l.Data[0].Changed {
		t.Fatalf("data: %+v", l.Data)
	}

	// Other data has another digest, and what was written since the job began is told.
	store.Write("s3://data/train/b.csv", "23", began.Add(-time.Hour))
	if other := register(t, store, made(nil)).Lineage.Data[0]; other.Digest == l.Data[0].Digest || other.Changed {
		t.Errorf("of other data: %+v", other)
	}
	store.Write("s3://data/train/c.csv", "4", began.Add(time.Hour))
	if other := register(t, store, made(nil)).Lineage.Data[0]; !other.Changed || other.Objects != 3 {
		t.Errorf("of data that has changed: %+v", other)
	}
}

func TestCodeIsWhateverRan(t *testing.T) {
	for name, c := range map[string]struct {
		change                  func(*cluster.Program)
		what, digest, framework string
	}{
		"a command":       {func(p *cluster.Program) { p.Source, p.Script = "", "" }, "python3 train.py", "", ""},
		"an image":        {func(p *cluster.Program) { p.Source, p.Image = "", "reg/train:3" }, "reg/train:3", "", ""},
		"a pinned image":  {func(p *cluster.Program) { p.Source, p.Image = "", "reg/train@sha256:77" }, "reg/train@sha256:77", "sha256:77", ""},
		"code that went":  {func(p *cluster.Program) { p.Source = "s3://clary/uploads/none/source.tar.gz" }, "train.py s3://clary/uploads/none/source.tar.gz", "", ""},
		"torch":           {func(p *cluster.Program) { p.Source, p.Framework = "", cluster.FrameworkTorch }, "python3 train.py", "", "torch"},
		"Clary's network": {func(p *cluster.Program) { p.Source, p.Clary, p.Spec = "", true, []byte(`{}`) }, "python3 train.py", "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a", "clary"},
	} {
		v := register(t, filled(), made(c.change))
		if v.Lineage.Code.What != c.what || v.Lineage.Code.Digest != c.digest || v.Framework != c.framework {
			t.Errorf("%s: %+v of %q", name, v.Lineage.Code, v.Framework)
		}
	}
}

func TestParametersOfANetworkAreItsSpecAndAreBounded(t *testing.T) {
	spec := `{"network": {"input": [1, 28], "layers": [{"dense": {"units": 128}}, {"dense": {"units": 10}}]}, "epochs": 20, "seed": null, "name": "` + strings.Repeat("x", 5000) + `"}`
	p := register(t, filled(), made(func(p *cluster.Program) { p.Spec = []byte(spec) })).Lineage.Parameters
	for key, want := range map[string]string{"network.input": "[1,28]", "network.layers[1].dense.units": "10", "epochs": "20", "lr": "0.1", "seed": "null"} {
		if p[key] != want {
			t.Errorf("%s is %q, want %q", key, p[key], want)
		}
	}
	if len(p["name"]) > 1024 {
		t.Errorf("a value has %d bytes", len(p["name"]))
	}
	many := map[string]string{"\xff": "odd"}
	for i := range 2000 {
		many[strings.Repeat("k", i%250+1)+string(rune('a'+i/250))] = strings.Repeat("v", 900)
	}
	v := register(t, filled(), made(func(p *cluster.Program) { p.Hyperparameters = many }))
	v.Number, v.Approval.State, v.Lineage.Models = 1, cluster.ApprovalPending, nil
	if p := v.Validate(); p != nil || len(v.Lineage.Parameters) == 0 {
		t.Errorf("%d parameters: %v", len(v.Lineage.Parameters), p)
	}
}

func TestWhatWasNotPublishedIsNoVersion(t *testing.T) {
	m := made(nil)
	m.Output = "plan"
	if _, err := registry.FromJob(t.Context(), filled(), "net", "k", m); !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), `no "plan"`) {
		t.Error(err)
	}
	m = made(nil)
	m.Publication = nil
	if _, err := registry.FromJob(t.Context(), filled(), "net", "k", m); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	m = made(nil)
	m.Publication.Outputs[0].Files = 3
	if _, err := registry.FromJob(t.Context(), filled(), "net", "k", m); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "is 3 files") {
		t.Error(err)
	}
	if _, err := registry.FromJob(t.Context(), registrytest.New(), "net", "k", made(nil)); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
}

func TestAnObjectIsReadForItsDigest(t *testing.T) {
	store := filled()
	const sum = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08" // of "test"
	store.Write("s3://lab/m.onnx", "test", began)
	told := int64(0)
	got, err := registry.FromObject(t.Context(), store, "net", "k", registry.Given{URI: "s3://lab/m.onnx", SHA256: sum}, func(done, total int64) { told = done * 100 / total })
	want := cluster.Output{Name: "m.onnx", URI: "s3://clary/models/net/k/m.onnx", SHA256: sum, Size: 4}
	if err != nil || got != want || told != 100 || len(store.Below(want.URI)) != 1 {
		t.Errorf("%+v, %v, told %d %%", got, err, told)
	}
	// What its owner put into a folder of the model's is taken as it is.
	store.Write("s3://clary/models/net/up/m.onnx", "test", began)
	got, err = registry.FromObject(t.Context(), store, "net", "other", registry.Given{URI: "s3://clary/models/net/up/m.onnx"}, nil)
	if err != nil || got.URI != "s3://clary/models/net/up/m.onnx" || got.SHA256 != sum || len(store.Below("s3://clary/models/net/other/")) != 0 {
		t.Errorf("in place: %+v, %v", got, err)
	}
	for _, uri := range []string{"lab/m.onnx", "s3://lab", "s3://lab/", "s3://lab/folder/", "http://lab/m", ""} {
		if _, err := registry.FromObject(t.Context(), store, "net", "k", registry.Given{URI: uri}, nil); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", uri, err)
		}
	}
}
