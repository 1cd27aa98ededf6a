package processing_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/trainer/steps"
	"github.com/clary-ml/clary/workload"
	"github.com/clary-ml/clary/workload/processing"
)

const prep = `{
  "script": {"entry": "prep.py", "source": "s3://clary/code.tar.gz", "arguments": ["--ratio", "0.2"]},
  "inputs": {"raw": {"uri": "s3://d/raw/", "sharded": true}, "more": "s3://d/more.csv"},
  "outputs": {"train": "s3://d/train/", "kept": {}, "live": {"uri": "s3://d/live", "path": "/opt/ml/processing/live/", "continuous": true}},
  "instances": 2
}`

func TestASpecBecomesAGangOfItsInstances(t *testing.T) {
	s, problems := processing.Parse([]byte(prep))
	if problems != nil {
		t.Fatal(problems)
	}
	roles, err := s.Roles()
	if err != nil || len(roles) != 1 || roles[0].Count != 2 {
		t.Fatalf("%+v, %v", roles, err)
	}
	program := roles[0].Program
	if !slices.Equal(program.Command, []string{"python3", "prep.py", "--ratio", "0.2"}) || program.Contract != cluster.ContractProcessing || program.Outputs || program.Checkpoints || program.Script != "" {
		t.Errorf("it runs %+v", program)
	}
	if in := program.Inputs; len(in) != 2 || in[0].Channel != "more" || in[0].Folder != "processing/input/more" || in[1].Folder != "processing/input/raw" || !in[1].Sharded || in[0].Sharded {
		t.Errorf("inputs %+v", in)
	}
	want := []cluster.Export{
		{Name: "kept", Folder: "processing/output/kept"},
		{Name: "live", Folder: "processing/live", To: "s3://d/live", Continuous: true},
		{Name: "train", Folder: "processing/output/train", To: "s3://d/train/"},
	}
	if !slices.Equal(program.Exports, want) {
		t.Errorf("outputs %+v", program.Exports)
	}
}

func TestTheOnlyInputAndOutputHaveTheFolderOfAll(t *testing.T) {
	for _, test := range []struct{ text, in, out string }{
		{`{"program": {"command": ["x"]}, "inputs": {"input": "s3://a/b"}, "outputs": {"output": "s3://a/c"}}`, "processing/input", "processing/output"},
		{`{"program": {"command": ["x"]}, "inputs": {"input": "s3://a/b", "a": "s3://a/d"}, "outputs": {"output": "s3://a/c", "a": ""}}`, "processing/input/input", "processing/output/output"},
		{`{"program": {"command": ["x"]}, "inputs": {"raw": "s3://a/b"}, "outputs": {"clean": "s3://a/c"}}`, "processing/input/raw", "processing/output/clean"},
	} {
		s, problems := processing.Parse([]byte(test.text))
		if problems != nil {
			t.Fatalf("%s: %v", test.text, problems)
		}
		roles, _ := s.Roles()
		program := roles[0].Program
		in, out := program.Inputs[len(program.Inputs)-1].Folder, program.Exports[len(program.Exports)-1].Folder
		if in != test.in || out != test.out {
			t.Errorf("%s: %s and %s", test.text, in, out)
		}
	}
}

func TestAnImageIsStartedAsItIsMade(t *testing.T) {
	for _, test := range []struct {
		text       string
		command    []string
		entrypoint []string
	}{
		{`{"image": "team/prep:1"}`, nil, nil},
		{`{"image": "team/prep:1", "program": {"command": ["--day", "3"]}}`, []string{"--day", "3"}, nil},
		{`{"image": "team/prep:1", "entrypoint": ["python3"], "program": {"command": ["a.py"]}}`, []string{"a.py"}, []string{"python3"}},
		{`{"image": "team/prep:1", "script": {"entry": "a.sh", "source": "s3://a/b.tar.gz"}}`, []string{"bash", "a.sh"}, nil},
	} {
		s, problems := processing.Parse([]byte(test.text))
		if problems != nil {
			t.Fatalf("%s: %v", test.text, problems)
		}
		roles, _ := s.Roles()
		if p := roles[0].Program; !slices.Equal(p.Command, test.command) || !slices.Equal(p.Entrypoint, test.entrypoint) || roles[0].Labels[cluster.LabelContainers] != cluster.LabelYes {
			t.Errorf("%s runs %q %q", test.text, p.Entrypoint, p.Command)
		}
	}
}

func TestReadyMadeStepsAreTheNodesOwnClary(t *testing.T) {
	s, problems := processing.Parse([]byte(`{"steps": {"label": "y", "steps": [{"join": {"with": "more", "on": "id"}}, {"clean": {}}]}, "profile": true,
		"inputs": {"input": "s3://a/b", "more": "s3://a/c"}, "outputs": {"output": "s3://a/d/"}, "resources": {"cores": 3}}`))
	if problems != nil {
		t.Fatal(problems)
	}
	roles, err := s.Roles()
	if err != nil || len(roles) != 1 {
		t.Fatal(err)
	}
	program := roles[0].Program
	if !program.Clary || !slices.Equal(program.Command, []string{"clary", "steps"}) || program.Contract != cluster.ContractProcessing || roles[0].Ask.Memory != 2<<30 || roles[0].Ask.MilliCPU != 3000 {
		t.Errorf("it runs %+v", roles[0])
	}
	var task steps.Task
	if err := json.Unmarshal(program.Spec, &task); err != nil {
		t.Fatal(err)
	}
	if task.Inputs["input"] != "processing/input/input" || task.Inputs["more"] != "processing/input/more" || task.Output != "processing/output" || task.Workers != 3 || !task.Profile || len(task.Plan.Steps) != 2 {
		t.Errorf("it is told %s", program.Spec)
	}
}

func TestTheInstancesBecomeAnEnginesCluster(t *testing.T) {
	const starter = `exec python3 "$SAGEMAKER_BASE_DIR/config/engines.py" "$@"`
	for _, test := range []struct {
		text, start         string
		command, entrypoint []string
	}{
		{`{"cluster": "ray", "script": {"entry": "etl.py", "source": "s3://a/b", "requirements": "ray", "arguments": ["x"]}, "instances": 3}`, starter, []string{"sh", "-c", "", "engines", "ray", "python3", "etl.py", "x"}, nil},
		{`{"cluster": "dask", "script": {"entry": "etl.py", "source": "s3://a/b", "python": "/opt/it's/python"}}`, `exec '/opt/it'\''s/python" "$SAGEMAKER`, []string{"sh", "-c", "", "engines", "dask", "/opt/it's/python", "etl.py"}, nil},
		{`{"cluster": "spark", "image": "team/spark:4", "entrypoint": ["python3"], "program": {"command": ["etl.py"]}}`, starter, []string{"-c", "", "engines", "spark", "python3", "etl.py"}, []string{"sh"}},
	} {
		s, problems := processing.Parse([]byte(test.text))
		if problems != nil {
			t.Fatalf("%s: %v", test.text, problems)
		}
		roles, _ := s.Roles()
		role, program := roles[0], roles[0].Program
		at := slices.Index(program.Command, "-c") + 1
		if prefix, _, _ := strings.Cut(test.start, `"`); !strings.HasPrefix(program.Command[at], prefix) {
			t.Errorf("%s is started by %s", test.text, program.Command[at])
		}
		program.Command[at] = ""
		if !slices.Equal(program.Command, test.command) || !slices.Equal(program.Entrypoint, test.entrypoint) {
			t.Errorf("%s runs %q %q", test.text, program.Entrypoint, program.Command)
		}
		if role.Ask.Ports != cluster.EnginePorts || program.Framework != cluster.FrameworkHosts || program.Cluster != s.Cluster || role.Ask.Memory != 4<<30 {
			t.Errorf("%s becomes %+v", test.text, role)
		}
	}
}

func TestNamesEveryMistake(t *testing.T) {
	with := func(rest string) string { return `{"program": {"command": ["x"]}, ` + rest + `}` }
	for _, test := range []struct{ claim, text, want string }{
		{"nothing to run", `{}`, "there is nothing to run: name a program, a script or an image"},
		{"a slip", with(`"imputs": {}`), `imputs: unknown field: did you mean "inputs"?`},
		{"a slip in an input", with(`"inputs": {"a": {"uri": "s3://a/b", "shard": true}}`), `shard: unknown field`},
		{"an address that is none", with(`"inputs": {"a": "/data"}`), `inputs.a.uri: "/data" is not s3://bucket/key`},
		{"no address", with(`"inputs": {"a": {}}`), `inputs.a.uri: "" is not s3://bucket/key`},
		{"an output's address", with(`"outputs": {"a": "http://x"}`), `outputs.a.uri: "http://x" is not s3://bucket/key`},
		{"a channel's name", with(`"inputs": {"../a": "s3://a/b"}`), "inputs.../a.channel: "},
		{"a model's folder", with(`"outputs": {"a": {"uri": "s3://clary/models/digits/", "continuous": true}}`), `outputs.a.uri: "s3://clary/models/digits/" is below s3://clary/models/`},
		{"an output's name", with(`"outputs": {"a/b": "s3://a/b"}`), "outputs.a/b.name: "},
		{"a path outside", with(`"inputs": {"a": {"uri": "s3://a/b", "path": "/etc"}}`), `inputs.a.path: "/etc" is not a folder below /opt/ml/processing`},
		{"a path that climbs", with(`"outputs": {"a": {"path": "/opt/ml/processing/../x"}}`), `outputs.a.path: `},
		{"the root itself", with(`"outputs": {"a": {"path": "/opt/ml/processing"}}`), `outputs.a.path: `},
		{"one folder for two", with(`"inputs": {"a": {"uri": "s3://a/b", "path": "/opt/ml/processing/x"}}, "outputs": {"b": {"path": "/opt/ml/processing/x/"}}`), "outputs.b.path: /opt/ml/processing/x is that of inputs.a.path too"},
		{"folders in one another", with(`"inputs": {"a": {"uri": "s3://a/b", "path": "/opt/ml/processing/x"}, "b": {"uri": "s3://a/b", "path": "/opt/ml/processing/x/y"}}`), "lie in one another"},
		{"one address for two", with(`"outputs": {"a": "s3://d/x", "b": "s3://d/x/"}`), `outputs.b.uri: "s3://d/x/" is that of outputs.a.uri too`},
		{"addresses in one another", with(`"outputs": {"a": "s3://d/x/y", "b": "s3://d//x"}`), `outputs.b.uri: "s3://d//x" and "s3://d/x/y" of outputs.a.uri lie in one another`},
		{"an address and its bucket", with(`"outputs": {"a": "s3://d", "b": {"uri": "s3://d/x", "continuous": true}}`), "outputs.b.uri: "},
		{"a pipe", with(`"inputs": {"a": {"uri": "s3://a/b", "mode": "pipe"}}`), `inputs.a.mode: "pipe" is for training`},
		{"an augmented manifest", with(`"inputs": {"a": {"uri": "s3://a/b", "type": "augmented_manifest"}}`), `inputs.a.type: "augmented_manifest" is for training`},
		{"continuous to nowhere", with(`"outputs": {"a": {"continuous": true}}`), "outputs.a.continuous: is for an output that goes somewhere"},
		{"no command", `{"program": {"command": []}}`, "program.command: is empty"},
		{"two things to run", `{"program": {"command": ["x"]}, "script": {"entry": "a.py", "source": "s3://a/b"}}`, "script: stands beside program"},
		{"too many", with(`"instances": 5000`), "instances: 5000 is out of range"},
		{"a bridge without a container", with(`"container_network": "bridge"`), "container_network: is for a container"},
		{"steps and code", `{"steps": {"steps": [{"clean": {}}]}, "program": {"command": ["x"]}, "inputs": {"input": "s3://a/b"}, "outputs": {"o": "s3://a/b"}}`, "program: is for code of your own"},
		{"steps of nothing", `{"steps": {"steps": []}, "outputs": {"o": "s3://a/b"}}`, "inputs.input: is missing: name the table"},
		{"steps to nowhere", `{"profile": true, "inputs": {"input": "s3://a/b"}}`, "outputs: 0: steps write to exactly one"},
		{"a slip in a plan", `{"steps": {"step": []}, "inputs": {"input": "s3://a/b"}, "outputs": {"o": ""}}`, "steps.step: unknown field"},
		{"a mistake in a plan", `{"steps": {"steps": [{"clean": {}}, {"split": {"test": 2}}]}, "inputs": {"input": "s3://a/b"}, "outputs": {"o": ""}}`, "steps.steps[1].split.test: 2: takes a share"},
		{"a table that is not there", `{"steps": {"steps": [{"join": {"with": "c", "on": "id"}}]}, "inputs": {"input": "s3://a/b"}, "outputs": {"o": ""}}`, `steps.steps[0].join.with: there is no input "c"`},
		{"steps on many", `{"profile": true, "instances": 2, "inputs": {"input": "s3://a/b"}, "outputs": {"o": ""}}`, "instances: 2: steps run on one"},
		{"steps of too many cores", `{"profile": true, "resources": {"cores": 1e7}, "inputs": {"input": "s3://a/b"}, "outputs": {"o": ""}}`, "resources.cores: "},
		{"an engine that is none", with(`"cluster": "storm"`), `cluster: "storm" is unknown: ray, dask or spark`},
		{"an engine and a framework", with(`"cluster": "ray", "framework": "torch"`), "framework: stands beside cluster"},
		{"an engine and nothing to run", `{"image": "x", "cluster": "ray"}`, "cluster: needs something to run against it"},
		{"an engine behind a bridge", `{"image": "x", "program": {"command": ["x"]}, "cluster": "ray", "container_network": "bridge"}`, "keeps the engine's parts from each other"},
		{"an engine for steps", `{"profile": true, "cluster": "ray", "inputs": {"input": "s3://a/b"}, "outputs": {"o": ""}}`, "cluster: is for code of your own"},
		{"cores", with(`"resources": {"cores": -1}`), "resources.cores: "},
	} {
		t.Run(test.claim, func(t *testing.T) {
			if got := (processing.Kind{}).Check([]byte(test.text)).Error(); !strings.Contains(got, test.want) {
				t.Errorf("said %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestOutputsNextToEachOtherAreNoMistake(t *testing.T) {
	const text = `{"program": {"command": ["x"]}, "outputs": {"a": "s3://d/x", "b": "s3://d/xy", "c": "s3://d/x.y/", "d": "s3://e/x", "e": "", "f": ""}}`
	if problems := (processing.Kind{}).Check([]byte(text)); problems != nil {
		t.Error(problems)
	}
}

func TestASpecIsWrittenAsItIsRead(t *testing.T) {
	s, _ := processing.Parse([]byte(prep))
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	again, problems := processing.Parse(text)
	if problems != nil || len(again.Outputs) != 3 || again.Outputs["live"] != s.Outputs["live"] || again.Inputs["raw"] != s.Inputs["raw"] {
		t.Errorf("%s: %v", text, problems)
	}
}

// A job's outputs go where its gang says, whatever its spec says by then.
func TestOutputsOfAllInstancesGoWhereTheyShould(t *testing.T) {
	job := cluster.Job{Name: "prep", Kind: cluster.KindProcessing, Owner: "ann", Queue: "default", Spec: []byte(prep), State: cluster.JobQueued}
	first := processing.Kind{}.Reconcile(workload.View{}, job, 1)
	if first.Job == nil || len(first.Gangs) != 1 || first.Gangs[0].Validate() != nil {
		t.Fatalf("%+v", first)
	}
	job, gang := *first.Job, first.Gangs[0]
	job.State, job.Spec = cluster.JobPublishing, []byte("{}")
	view := workload.View{Gangs: []cluster.Gang{gang}, Publication: &cluster.Publication{Job: "prep", Attempt: 1, Outputs: []cluster.Output{
		{Name: "kept", URI: "s3://clary/jobs/prep/attempts/1/worker-0/outputs/kept.jsonl", Files: 1},
		{Name: "train", URI: "s3://clary/jobs/prep/attempts/1/worker-0/outputs/train.jsonl", Files: 2},
		{Name: "worker-1/train", URI: "s3://clary/jobs/prep/attempts/1/worker-1/outputs/train.jsonl", Files: 3},
	}}}
	changes := processing.Kind{}.Reconcile(view, job, 2)
	if len(changes.Deliver) != 2 {
		t.Fatalf("it copies %+v", changes.Deliver)
	}
	live, train := changes.Deliver[0], changes.Deliver[1]
	if live.To != "s3://d/live/" || live.Live != "s3://clary/jobs/prep/attempts/" || len(live.From) != 0 || live.Output != "live" {
		t.Errorf("what may have been left while it ran: %+v", live)
	}
	if train.To != "s3://d/train/" || !train.Listed || train.Live != "" || len(train.From) != 2 || !strings.Contains(train.From[1], "worker-1") {
		t.Errorf("the files: %+v", train)
	}
	job.Delivered = true
	if end := (processing.Kind{}).Reconcile(view, job, 3); end.Job == nil || end.Job.State != cluster.JobSucceeded {
		t.Errorf("then %+v", end)
	}
	job.Delivered, job.State, job.Spec = false, cluster.JobQueued, []byte(`{"inputs": 3}`)
	if end := (processing.Kind{}).Reconcile(workload.View{}, job, 3); end.Job == nil || end.Job.State != cluster.JobFailed || !strings.Contains(end.Job.Reason, "its spec cannot be read: inputs") {
		t.Errorf("a spec that cannot be read: %+v", end.Job)
	}
}

func FuzzCheck(f *testing.F) {
	f.Add([]byte(prep))
	f.Add([]byte(`{"steps": {"label": "y", "steps": [{"clean": {}}]}, "profile": true, "inputs": {"input": "s3://a/b"}, "outputs": {"o": "s3://a/c"}}`))
	f.Add([]byte(`{"cluster": "dask", "image": "x", "program": {"command": ["etl.py"]}, "instances": 2}`))
	f.Add([]byte(`{"image": "x", "inputs": {"input": "s3://a/b"}, "outputs": {"output": {"path": "/opt/ml/processing/o"}}}`))
	f.Add([]byte(`{"program": {"command": ["x"]}, "inputs": {"a": "s3://a/b", "": {"uri": ""}}, "outputs": {"a": null}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if (processing.Kind{}).Check(data) != nil {
			return
		}
		job := cluster.Job{Name: "x", Queue: "default", Owner: "ann", Spec: data, State: cluster.JobQueued}
		changes := processing.Kind{}.Reconcile(workload.View{}, job, 1)
		if len(changes.Gangs) != 1 || changes.Gangs[0].Validate() != nil {
			t.Fatalf("%q passes the check and makes %+v", data, changes)
		}
		seen := map[string]bool{}
		for _, export := range changes.Gangs[0].Roles[0].Program.Exports {
			if seen[export.Folder] || !strings.HasPrefix(export.Folder, "processing/") {
				t.Fatalf("%q has an output in %q", data, export.Folder)
			}
			seen[export.Folder] = true
		}
	})
}
