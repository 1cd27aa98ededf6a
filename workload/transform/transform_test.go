package transform_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/serving/batch"
	"github.com/clary-ml/clary/serving/batch/driver"
	"github.com/clary-ml/clary/serving/batch/record"
	"github.com/clary-ml/clary/workload"
	"github.com/clary-ml/clary/workload/transform"
)

const scorer = `{
  "model": "s3://m/model.tar.gz", "program": {"command": ["python3", "serve.py"], "env": {"A": "1", "SAGEMAKER_BATCH": "maybe"}},
  "input": "s3://d/rows/", "output": "s3://d/scored/", "split": "line", "content_type": "text/csv", "join": "input",
  "input_filter": "$[1:]", "output_filter": "$[0,-1]", "strategy": "multi", "max_payload": "2MiB", "max_concurrent": 4, "instances": 3,
  "resources": {"cores": 2, "gpus": 1}, "labels": {"zone": "x"}, "invocation_timeout": "30s"}`

func rolesOf(t *testing.T, text string) (feeder, server cluster.Role) {
	t.Helper()
	s, problems := transform.Parse([]byte(text))
	if problems != nil {
		t.Fatalf("%s: %v", text, problems)
	}
	roles, err := s.Roles()
	if err != nil || len(roles) != 2 || roles[0].Name != "driver" || roles[1].Name != "server" {
		t.Fatalf("%+v, %v", roles, err)
	}
	return roles[0], roles[1]
}

func TestASpecBecomesServersAndTheirDrivers(t *testing.T) {
	feeder, server := rolesOf(t, scorer)
	p := server.Program
	if server.Count != 3 || server.Ask.MilliCPU != 2000 || server.Ask.GPUs != 1 || server.Ask.Ports != 1 || server.Labels["zone"] != "x" {
		t.Errorf("server %+v", server)
	}
	if !p.Service || p.Contract != cluster.ContractServing || p.Outputs || p.Checkpoints || p.Clary || !slices.Equal(p.Command, []string{"python3", "serve.py"}) ||
		!slices.Equal(slices.Collect(modelsOf(p.Inputs)), []string{"s3://m/model.tar.gz"}) {
		t.Errorf("the server runs %+v", p)
	}
	want := map[string]string{
		"A": "1", "SAGEMAKER_BATCH": "maybe", "SAGEMAKER_MAX_PAYLOAD_IN_MB": "2", "SAGEMAKER_BATCH_STRATEGY": "MULTI_RECORD", "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "4",
	}
	if !maps.Equal(p.Env, want) {
		t.Errorf("its environment is %v", p.Env)
	}
	p = feeder.Program
	if feeder.Count != 3 || feeder.Ask.GPUs != 0 || !p.Clary || p.Service || !p.Checkpoints || p.Framework != cluster.FrameworkHosts || server.Program.Framework != p.Framework {
		t.Errorf("driver %+v", feeder)
	}
	if in := p.Inputs; len(in) != 1 || in[0].URI != "s3://d/rows/" || !in[0].Sharded || in[0].Folder != driver.Inputs {
		t.Errorf("it reads %+v", p.Inputs)
	}
	if out := p.Exports; len(out) != 1 || out[0].To != "s3://d/scored/" || out[0].Folder != driver.Outputs {
		t.Errorf("it leaves %+v", p.Exports)
	}
	var read driver.Spec
	if err := json.Unmarshal(p.Spec, &read); err != nil {
		t.Fatal(err)
	}
	if read.Shape != (batch.Shape{Split: record.Line, ContentType: "text/csv", Join: true, InputFilter: "$[1:]", OutputFilter: "$[0,-1]"}) ||
		read.Limits != (batch.Limits{Concurrent: 4, Strategy: batch.Multi, Payload: 2 << 20}) || read.Tries != 3 || read.Timeout.Std() != 30*time.Second || read.Startup.Std() != 4*time.Minute {
		t.Errorf("it is told %+v", read)
	}
	if read.Memory < 10*3*2<<20 || feeder.Ask.Memory < read.Memory+driver.Overhead {
		t.Errorf("it has %d bytes for 4 requests at a time of 2 MiB, which may take %d", feeder.Ask.Memory, read.Memory)
	}
}

func modelsOf(inputs []cluster.Input) func(func(string) bool) {
	return func(yield func(string) bool) {
		for _, input := range inputs {
			if input.Model && !yield(input.URI) {
				return
			}
		}
	}
}

// What the user did not set is not told: the server may have its own.
func TestAServerIsToldOnlyTheLimitsThatWereSet(t *testing.T) {
	feeder, server := rolesOf(t, `{"image": "team/serve:1", "input": "s3://d/a", "output": "s3://d/b", "invocation_retries": 0}`)
	if !maps.Equal(server.Program.Env, map[string]string{"SAGEMAKER_BATCH": "true"}) || len(server.Program.Inputs) != 0 {
		t.Errorf("%+v", server.Program)
	}
	var read driver.Spec
	if err := json.Unmarshal(feeder.Program.Spec, &read); err != nil || read.Limits != (batch.Limits{}) || read.Tries != 0 {
		t.Errorf("%+v, %v", read, err)
	}
	if feeder.Program.Inputs[0].Sharded {
		t.Error("one instance gets a share")
	}
}

func TestAnImageIsStartedToServe(t *testing.T) {
	for _, test := range []struct {
		text       string
		command    []string
		entrypoint []string
		ports      int32
	}{
		{`"image": "team/serve:1"`, []string{"serve"}, nil, 1},
		{`"image": "team/serve:1", "program": {"command": ["--fast"]}`, []string{"--fast"}, nil, 1},
		{`"image": "team/serve:1", "entrypoint": ["tini", "run"]`, nil, []string{"tini", "run"}, 1},
		{`"image": "team/serve:1", "script": {"entry": "a.sh", "source": "s3://a/b.tar.gz"}`, []string{"bash", "a.sh"}, nil, 1},
		{`"image": "team/serve:1", "port": 8080`, []string{"serve"}, nil, 0},
	} {
		feeder, server := rolesOf(t, `{`+test.text+`, "input": "s3://d/a", "output": "s3://d/b"}`)
		if p := server.Program; !slices.Equal(p.Command, test.command) || !slices.Equal(p.Entrypoint, test.entrypoint) || server.Labels[cluster.LabelContainers] != cluster.LabelYes || server.Ask.Ports != test.ports {
			t.Errorf("%s runs %q %q: %+v", test.text, p.Entrypoint, p.Command, server)
		}
		if server.Program.Port != 8080*(1-test.ports) {
			t.Errorf("%s: nobody keeps others from its port: %+v", test.text, server.Program)
		}
		if feeder.Program.Image != "" || feeder.Labels[cluster.LabelContainers] != "" {
			t.Errorf("%s: the driver %+v", test.text, feeder)
		}
	}
}

func TestWithoutAServerOfItsOwnAModelIsServedByClary(t *testing.T) {
	_, server := rolesOf(t, `{"model": "model://digits@3", "input": "s3://d/a", "output": "s3://d/b"}`)
	if p := server.Program; !p.Clary || !slices.Equal(p.Command, []string{"clary", "serve"}) || !p.Service || p.Inputs[0].URI != "model://digits@3" || !p.Inputs[0].Model {
		t.Errorf("%+v", p)
	}
}

func TestNamesEveryMistake(t *testing.T) {
	with := func(rest string) string {
		return `{"program": {"command": ["x"]}, "input": "s3://d/a", "output": "s3://d/b", ` + rest + `}`
	}
	for _, test := range []struct{ claim, text, want string }{
		{"nothing", `{}`, "model: is missing: name a model that Clary serves, or an image, a program or a script"},
		{"no input", `{"program": {"command": ["x"]}}`, `input.uri: "" is not s3://bucket/key`},
		{"no output", `{"program": {"command": ["x"]}, "input": "s3://d/a"}`, `output: "" is not s3://bucket/key`},
		{"another job's folder", `{"program": {"command": ["x"]}, "input": "s3://d/a", "output": "s3://clary/jobs/other/"}`, `output: "s3://clary/jobs/other/" is below s3://clary/jobs/`},
		{"a slip", with(`"splits": "line"`), `splits: unknown field: did you mean "split"?`},
		{"a slip in the input", `{"program": {"command": ["x"]}, "input": {"uri": "s3://a/b", "modes": "x"}, "output": "s3://d/b"}`, "modes: unknown field"},
		{"a model elsewhere", with(`"model": "/tmp/model"`), `model: "/tmp/model" is not s3://bucket/key`},
		{"a split", with(`"split": "lines"`), `split: "lines" is unknown: none, line, record_io or tf_record`},
		{"a strategy", with(`"strategy": "many"`), `strategy: "many" is unknown: single or multi`},
		{"too many at a time", with(`"max_concurrent": 5000`), "max_concurrent: 5000 is out of range"},
		{"too large", with(`"max_payload": "2GiB"`), "max_payload: 2147483648 bytes is out of range"},
		{"a join", with(`"join": "output"`), `join: "output" is unknown: input`},
		{"a join of what cannot be read", with(`"join": "input"`), "join: is for CSV and JSON"},
		{"a filter", with(`"content_type": "text/csv", "input_filter": "$.a"`), "input_filter: columns of CSV have numbers"},
		{"an output filter", with(`"content_type": "text/csv", "output_filter": "[0]"`), `output_filter: "[0]" at byte 0: a path begins with $`},
		{"an answer that cannot be joined", with(`"content_type": "text/csv", "accept": "application/json", "join": "input"`), "accept: "},
		{"a pipe", `{"program": {"command": ["x"]}, "input": {"uri": "s3://a/b", "mode": "pipe"}, "output": "s3://d/b"}`, `input.mode: "pipe" is for training`},
		{"a mode", `{"program": {"command": ["x"]}, "input": {"uri": "s3://a/b", "mode": "fast"}, "output": "s3://d/b"}`, `input.mode: "fast" is unknown`},
		{"a timeout", with(`"invocation_timeout": "1ms"`), "invocation_timeout: 1ms is out of range"},
		{"a startup", with(`"startup_timeout": "2d"`), "startup_timeout: 48h0m0s is out of range"},
		{"retries", with(`"invocation_retries": -1`), "invocation_retries: -1 is out of range"},
		{"a port", with(`"port": 70000`), "port: 70000 is out of range"},
		{"a port of two", with(`"port": 8080, "instances": 2`), "port: 8080 is for one instance: two servers on a node would both want it; use 1 instance"},
		{"instances", with(`"instances": 5000`), "instances: 5000 is out of range"},
		{"two servers", with(`"script": {"entry": "a.py", "source": "s3://a/b"}`), "script: stands beside program"},
	} {
		t.Run(test.claim, func(t *testing.T) {
			if got := (transform.Kind{}).Check([]byte(test.text)).Error(); !strings.Contains(got, test.want) {
				t.Errorf("said %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestASpecIsWrittenAsItIsRead(t *testing.T) {
	s, _ := transform.Parse([]byte(scorer))
	text, err := json.Marshal(s)
	if err != nil || !strings.Contains(string(text), `"input":"s3://d/rows/"`) {
		t.Fatalf("%s, %v", text, err)
	}
	if again, problems := transform.Parse(text); problems != nil || again.Input != s.Input || again.MaxPayload != s.MaxPayload {
		t.Errorf("%s: %v", text, problems)
	}
}

// An object without an output makes the job failed, once the others are where they were asked for.
func TestObjectsWithoutAnOutputFailTheJobThatPublishedTheOthers(t *testing.T) {
	job := cluster.Job{Name: "score", Kind: cluster.KindTransform, Owner: "ann", Queue: "default", Spec: []byte(scorer), State: cluster.JobQueued}
	first := transform.Kind{}.Reconcile(workload.View{}, job, 1)
	if first.Job == nil || len(first.Gangs) != 1 || first.Gangs[0].Validate() != nil {
		t.Fatalf("%+v", first)
	}
	job, gang := *first.Job, first.Gangs[0]
	job.State = cluster.JobPublishing
	task := func(role string, index int32, message string) cluster.Task {
		return cluster.Task{Job: "score", Gang: gang.ID(), Role: role, Index: index, Attempt: 1, Status: cluster.TaskStatus{State: cluster.TaskSucceeded, Message: message}}
	}
	view := workload.View{
		Gangs: []cluster.Gang{gang}, Tasks: []cluster.Task{task("driver", 0, ""), task("driver", 1, "1 of 3 objects have no output; b: record 7: bad row"), task("server", 0, "ready")},
		Publication: &cluster.Publication{Job: "score", Attempt: 1, Outputs: []cluster.Output{{Name: "output", URI: "s3://clary/x", Files: 2}}},
	}
	deliver := transform.Kind{}.Reconcile(view, job, 2)
	if len(deliver.Deliver) != 1 || deliver.Deliver[0].To != "s3://d/scored/" || deliver.Job != nil {
		t.Fatalf("first its outputs are delivered: %+v", deliver)
	}
	job.Delivered = true
	end := transform.Kind{}.Reconcile(view, job, 3)
	if end.Job == nil || end.Job.State != cluster.JobFailed || !strings.Contains(end.Job.Reason, "driver-1: 1 of 3 objects have no output; b: record 7: bad row; all other outputs are there") || strings.Contains(end.Job.Reason, "ready") {
		t.Errorf("%+v", end.Job)
	}
	view.Tasks[1].Status.Message = ""
	if end := (transform.Kind{}).Reconcile(view, job, 3); end.Job == nil || end.Job.State != cluster.JobSucceeded {
		t.Errorf("%+v", end.Job)
	}
	job.State, job.Spec = cluster.JobQueued, []byte(`{"input": 3}`)
	if end := (transform.Kind{}).Reconcile(workload.View{}, job, 3); end.Job == nil || end.Job.State != cluster.JobFailed || !strings.Contains(end.Job.Reason, "its spec cannot be read: input") {
		t.Errorf("%+v", end.Job)
	}
}

func FuzzCheck(f *testing.F) {
	f.Add([]byte(scorer))
	f.Add([]byte(`{"image": "x", "input": {"uri": "s3://a/b", "type": "manifest"}, "output": "s3://a/c", "port": 8080, "split": "tf_record"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if (transform.Kind{}).Check(data) != nil {
			return
		}
		job := cluster.Job{Name: "x", Queue: "default", Owner: "ann", Spec: data, State: cluster.JobQueued}
		changes := transform.Kind{}.Reconcile(workload.View{}, job, 1)
		if len(changes.Gangs) != 1 || changes.Gangs[0].Validate() != nil {
			t.Fatalf("%q passes the check and makes %+v", data, changes)
		}
		var spec driver.Spec
		if err := json.Unmarshal(changes.Gangs[0].Roles[0].Program.Spec, &spec); err != nil || spec.Validate() != nil {
			t.Fatalf("%q gives the driver %+v, %v", data, spec, err)
		}
	})
}
