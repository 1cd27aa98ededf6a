package training_test

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/trainer/spec"
	"github.com/clary-ml/clary/workload"
	"github.com/clary-ml/clary/workload/training"
)

const digits = `{
	"network": {"input": [64], "layers": [{"dense": {"units": 128, "activation": "relu"}}, {"dense": {"units": 10}}], "loss": "cross_entropy"},
	"optimizer": {"adam": {"rate": 0.001}}, "data": {"format": "csv", "scale": 16}, "epochs": 30, "batch": 64, "seed": 42,
	"workers": 2, "servers": 3, "inputs": {"train": "s3://ann/digits/train.csv", "validation": "s3://ann/digits/test.csv"},
	"output": "s3://ann/models", "resources": {"cores": 0.5, "gpus": 1, "gpu_model": "A100"}, "server_resources": {"memory": "256MiB"},
	"labels": {"zone": "x"}, "grace": "30s"}`

func TestNetworkBecomesServersAndWorkers(t *testing.T) {
	s, problems := training.Parse([]byte(digits))
	if problems != nil {
		t.Fatal(problems)
	}
	roles, err := s.Roles()
	if err != nil || len(roles) != 2 {
		t.Fatalf("%d roles, %v", len(roles), err)
	}
	server, worker := roles[0], roles[1]
	if server.Name != "server" || server.Count != 3 || server.Ask != (cluster.Ask{MilliCPU: 250, Memory: 256 << 20, Ports: 1}) ||
		!server.Program.Clary || !slices.Equal(server.Program.Command, []string{"clary", "trainer", "server"}) || server.Program.Outputs {
		t.Errorf("server %+v", server)
	}
	if worker.Name != "worker" || worker.Count != 2 || worker.Ask.MilliCPU != 500 || worker.Ask.GPUs != 1 || worker.Ask.GPUModel != "A100" ||
		worker.Ask.Memory < 512<<20 || worker.Ask.Memory > 1<<30 || worker.Labels["zone"] != "x" {
		t.Errorf("worker %+v", worker)
	}
	p := worker.Program
	if !p.Clary || !p.Outputs || !p.Checkpoints || p.Grace != 30*time.Second || len(p.Inputs) != 2 || p.Inputs[0].Channel != "train" {
		t.Errorf("worker's program %+v", p)
	}
	// What the tasks read is the trainer's part, whole.
	var read spec.Run
	if err := json.Unmarshal(p.Spec, &read); err != nil || !reflect.DeepEqual(read, spec.Run{Training: s.Training, Workers: 2, Servers: 3}) {
		t.Errorf("the tasks read %+v, %v", read, err)
	}
}

func TestAnElasticJobHasARangeOfTasks(t *testing.T) {
	parse := func(text string) training.Spec {
		t.Helper()
		s, problems := training.Parse([]byte(text))
		if problems != nil {
			t.Fatal(problems)
		}
		return s
	}
	s := parse(strings.Replace(digits, `"workers": 2`, `"workers": 8, "min_workers": 2`, 1))
	roles, err := s.Roles()
	if err != nil {
		t.Fatal(err)
	}
	if server, worker := roles[0], roles[1]; server.Elastic() || !worker.Elastic() || worker.Min != 2 || worker.Count != 8 {
		t.Errorf("%d..%d servers and %d..%d workers", server.Min, server.Count, worker.Min, worker.Count)
	}
	// How many workers an attempt has is not in the spec: it is found by where they are.
	var run spec.Run
	if err := json.Unmarshal(roles[1].Program.Spec, &run); err != nil || run.Workers != 0 || !run.Elastic || run.Servers != 3 {
		t.Errorf("the tasks read %+v, %v", run, err)
	}
	rigid := parse(strings.Replace(digits, `"workers": 2`, `"workers": 8, "min_workers": 8`, 1))
	if roles, err = rigid.Roles(); err != nil || roles[1].Elastic() {
		t.Errorf("8 to 8 workers are elastic: %v", err)
	}
	script := parse(`{"script": {"entry": "ddp.py", "source": "s3://c/x.tar.gz"}, "framework": "torch", "instances": 4, "min_instances": 1}`)
	if roles, err = script.Roles(); err != nil || !roles[0].Elastic() || roles[0].Min != 1 {
		t.Errorf("a script of 1 to 4 instances: %+v, %v", roles, err)
	}
}

func TestMemoryGrowsWithTheNetwork(t *testing.T) {
	memory := func(units int) int64 {
		s, problems := training.Parse([]byte(digits))
		if problems != nil {
			t.Fatal(problems)
		}
		s.Network.Layers = []spec.Layer{{Dense: &spec.Dense{Units: units}}, {Dense: &spec.Dense{Units: 10}}}
		roles, err := s.Roles()
		if err != nil {
			t.Fatal(err)
		}
		return roles[1].Ask.Memory
	}
	small, large := memory(128), memory(1<<20)
	if least := int64(64<<20) * 4 * 3; large-small < least {
		t.Errorf("64 Mi parameters raise the memory from %d to %d: weights, gradients and a copy alone are %d", small, large, least)
	}
}

func TestProgramBecomesInstances(t *testing.T) {
	for _, test := range []struct {
		text  string
		count int32
		ports int32
		saves bool
	}{
		{`{"program": {"command": ["python3", "train.py"], "env": {"A": "1"}}}`, 1, 0, false},
		{`{"program": {"command": ["torchrun"]}, "instances": 4, "checkpoints": true, "exclusive": true}`, 4, 1, true},
	} {
		s, problems := training.Parse([]byte(test.text))
		if problems != nil {
			t.Fatal(problems)
		}
		roles, err := s.Roles()
		if err != nil || len(roles) != 1 {
			t.Fatalf("%v, %v", roles, err)
		}
		r := roles[0]
		if r.Name != "worker" || r.Count != test.count || r.Ask.Ports != test.ports || r.Ask.Memory != 1<<30 || r.Program.Checkpoints != test.saves ||
			r.Program.Clary || r.Program.Exclusive != test.saves || !r.Program.Outputs || r.Program.Grace != 2*time.Minute {
			t.Errorf("%s becomes %+v", test.text, r)
		}
	}
}

func TestNamesEveryMistake(t *testing.T) {
	change := func(old, text string) string {
		changed := strings.Replace(digits, old, text, 1)
		if changed == digits {
			t.Fatalf("%q is not in the sample", old)
		}
		return changed
	}
	tests := []struct{ claim, text, want string }{
		{"nothing", `{}`, "network: is missing: declare a network, or name a program, a script or an image to run"},
		{"a slip", change(`"workers"`, `"wrokers"`), `wrokers: unknown field: did you mean "workers"?`},
		{"a slip inside the network", change(`"activation"`, `"activaton"`), `network.layers[0].dense.activaton: unknown field: did you mean "activation"?`},
		{"a layer of no size", change(`{"units": 10}`, `{"units": 0}`), "network.layers[1].dense.units: 0"},
		{"no training data", change(`"train":`, `"trian":`), "inputs.train: is missing"},
		{"an address that is none", change(`"s3://ann/models"`, `"/tmp/models"`), `output: "/tmp/models" is not s3://bucket/key`},
		{"another job's folder", change(`"s3://ann/models"`, `"s3://clary/jobs/other"`), `output: "s3://clary/jobs/other" is below s3://clary/jobs/`},
		{"too many cores", change(`0.5`, `1e6`), "resources.cores: 1e+06 cores is out of range"},
		{"a model of no GPUs", change(`"gpus": 1, `, ``), `resources.gpu_model: "A100" without gpus`},
		{"negative workers", change(`"workers": 2`, `"workers": -1`), "workers: -1 is out of range: from 1 to 1024"},
		{"fewer rows than workers", change(`"batch": 64`, `"batch": 1`), "batch: 1 rows for 2 workers"},
		{"more workers at the least than at the most", change(`"workers": 2`, `"workers": 2, "min_workers": 3`), "min_workers: 3 is out of range: from 1 to workers, which is 2"},
		{"instances at the least, of a network", change(`"workers": 2`, `"workers": 2, "min_instances": 1`), "min_instances: is for a program"},
		{"workers at the least, of a program", `{"program": {"command": ["x"]}, "min_workers": 1}`, "min_workers: is for a declared network"},
		{"instances of a network", change(`"workers": 2`, `"instances": 2`), "instances: is for a program"},
		{"a network and a program", `{"program": {"command": ["x"]}, "epochs": 3, "workers": 2}`, "epochs: is for a declared network, and program is set"},
		{"no command", `{"program": {"command": []}}`, "program.command: is empty"},
		{"a variable that is none", `{"program": {"command": ["x"], "env": {"A=B": "1"}}}`, `env: "A=B" is not a variable's name`},
		{"a channel's name", `{"program": {"command": ["x"]}, "inputs": {"tr ain": "s3://a/b"}}`, "inputs.tr ain.channel: "},
		{"a bridge without a container", `{"program": {"command": ["x"]}, "container_network": "bridge"}`, "container_network: is for a container"},
		{"a bridge between two", `{"image": "x", "instances": 2, "container_network": "bridge"}`, "is for one instance alone"},
		{"a network that is none", `{"image": "x", "container_network": "none"}`, `"none" is unknown: bridge, or nothing; see network_isolation`},
		{"an exclusive container", `{"image": "x", "exclusive": true}`, "exclusive: is for a process"},
		{"an exclusive network", change(`"workers": 2`, `"workers": 2, "exclusive": true`), "exclusive: is for a program"},
		{"a channel that hides", `{"program": {"command": ["x"]}, "inputs": {"..": "s3://a/b"}}`, "not beginning with '.'"},
		{"a folder where a pipe stands", `{"program": {"command": ["x"]}, "inputs": {"a": {"uri": "s3://a/b", "mode": "pipe"}, "a_0": "s3://a/c"}}`, `channel "a_0" would stand where a pipe of channel "a" does`},
		{"too long a grace", change(`"30s"`, `"2d"`), "grace: 48h0m0s is out of range"},
	}
	for _, test := range tests {
		t.Run(test.claim, func(t *testing.T) {
			if got := (training.Kind{}).Check([]byte(test.text)).Error(); !strings.Contains(got, test.want) {
				t.Errorf("said %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestReconcileMakesTheGang(t *testing.T) {
	job := cluster.Job{Name: "digits", Kind: cluster.KindTraining, Owner: "ann", Queue: "default", Spec: []byte(digits), State: cluster.JobQueued, Priority: 3, Held: true, Submitted: 5}
	changes := training.Kind{}.Reconcile(workload.View{}, job, 7)
	if changes.Job == nil || changes.Job.Attempt != 1 || len(changes.Gangs) != 1 {
		t.Fatalf("%+v", changes)
	}
	gang := changes.Gangs[0]
	if gang.ID() != "digits/main" || gang.Size() != 5 || gang.Priority != 3 || !gang.Held || gang.Submitted != 5 || gang.Validate() != nil {
		t.Errorf("%+v", gang)
	}
	job.Spec = []byte(`{"epochs": "many"}`)
	if changes := (training.Kind{}).Reconcile(workload.View{}, job, 7); changes.Job == nil || changes.Job.State != cluster.JobFailed ||
		!strings.Contains(changes.Job.Reason, "its spec cannot be read: epochs: takes a whole number") {
		t.Errorf("%+v", changes.Job)
	}
}

func FuzzCheck(f *testing.F) {
	f.Add([]byte(digits))
	f.Add([]byte(`{"program": {"command": ["x"]}, "instances": 3}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if (training.Kind{}).Check(data) != nil {
			return
		}
		job := cluster.Job{Name: "x", Queue: "default", Owner: "ann", Spec: data, State: cluster.JobQueued}
		changes := training.Kind{}.Reconcile(workload.View{}, job, 1)
		if len(changes.Gangs) != 1 || changes.Gangs[0].Validate() != nil {
			t.Fatalf("%q passes the check and makes %+v", data, changes)
		}
	})
}
