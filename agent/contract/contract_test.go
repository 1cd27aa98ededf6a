package contract_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/agent/contract"
	"github.com/clary-ml/clary/agent/ledger"
	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/cluster"
)

var update = flag.Bool("update", false, "write the golden files anew")

// second is the second of two workers of a script job.
func second() contract.Task {
	return contract.Task{
		Assignment: ledger.Assignment{
			Task: cluster.Task{
				ID: "digits/main/worker-1.2", Job: "digits", Gang: "digits/main", Role: "worker", Index: 1, Attempt: 2,
				Allocation: cluster.Allocation{Node: "b", Resources: cluster.Resources{MilliCPU: 1500, Ports: []int32{20001}}},
			},
			Program: cluster.Program{
				Script: "train.py", Source: "s3://clary/sources/x.tar.gz", Framework: cluster.FrameworkTorch,
				Hyperparameters: map[string]string{
					"epochs": "3", "lr": "1e-3", "name": `"net"`, "plain": "text", "flags": `{"b": 1, "a": [true, null]}`, "on": "true", "x": "7",
					"sagemaker_program": `"train.py"`,
				},
				Inputs: []cluster.Input{
					{Channel: "train", URI: "s3://d/train/", ContentType: "text/csv", Sharded: true},
					{Channel: "validation", URI: "s3://d/v/", Mode: cluster.InputFastFile},
				},
				Env: map[string]string{"MINE": "1", "LANG": "de_DE.UTF-8"},
			},
			Hosts: map[string][]string{"worker": {"10.0.0.1:20000", "10.0.0.2:20001"}},
		},
		Place: contract.Place{
			Folders: staging.Folders{Base: contract.Base}, Home: "/tmp", Temp: "/tmp", Metrics: "/opt/ml/output/metrics.jsonl",
			Path: "/usr/bin:/bin", Listen: "10.0.0.2", Interface: "eth1",
		},
	}
}

// golden compares with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not as it was; see with -update and git diff:\n%s", name, got)
	}
}

func TestAScriptFindsWhatTheToolkitWouldTellIt(t *testing.T) {
	task := second()
	golden(t, "environment", strings.Join(task.Environment(), "\n")+"\n")
	var files strings.Builder
	for _, name := range []string{"hyperparameters.json", "inputdataconfig.json", "resourceconfig.json"} {
		files.WriteString(name + "\n" + string(task.Files()[name]) + "\n")
	}
	golden(t, "config", files.String())
	golden(t, "arguments", strings.Join(task.Arguments(), "\n")+"\n")
}

func TestAProcessingTaskFindsTheRequestThatMadeItsJob(t *testing.T) {
	task := second()
	task.MaxRuntime = time.Hour
	task.Program = cluster.Program{
		Image: "team/prep:1", Command: []string{"--day", "3"}, Env: map[string]string{"MINE": "1"}, Contract: cluster.ContractProcessing,
		Inputs: []cluster.Input{
			{Channel: "raw", Folder: "processing/input/raw", URI: "s3://d/raw/", Sharded: true, Gzip: true},
			{Channel: "list", Folder: "processing/list", URI: "s3://d/m", Type: cluster.InputManifest},
		},
		Exports: []cluster.Export{{Name: "train", Folder: "processing/output/train", To: "s3://d/train/"}, {Name: "live", Folder: "processing/live", To: "s3://d/live/", Continuous: true}},
	}
	var files strings.Builder
	for _, name := range []string{"processingjobconfig.json", "resourceconfig.json"} {
		var text bytes.Buffer
		if err := json.Indent(&text, task.JobFiles()[name], "", "  "); err != nil {
			t.Fatal(err)
		}
		files.WriteString(name + "\n" + text.String() + "\n")
	}
	golden(t, "processing", files.String())
	env := "\n" + strings.Join(task.Environment(), "\n") + "\n"
	if strings.Contains(env, "\nTRAINING_JOB") || strings.Contains(env, "\nSM_") || !strings.Contains(env, "\nCLARY_JOB=digits\n") {
		t.Errorf("it is told%s", env)
	}
	if training := second(); training.JobFiles() != nil {
		t.Error("a training has files of a processing job")
	}
}

func TestAServerIsToldItsPortAndNothingOfATraining(t *testing.T) {
	task := second()
	task.Program = cluster.Program{Command: []string{"serve"}, Contract: cluster.ContractServing, Env: map[string]string{"SAGEMAKER_BATCH": "true"}}
	env := "\n" + strings.Join(task.Environment(), "\n") + "\n"
	if !strings.Contains(env, "\nSAGEMAKER_BIND_TO_PORT=20001\n") || !strings.Contains(env, "\nSAGEMAKER_BATCH=true\n") || strings.Contains(env, "\nTRAINING_JOB") {
		t.Errorf("it is told%s", env)
	}
	task.Task.Allocation.Resources.Ports = nil
	if env := strings.Join(task.Environment(), "\n"); strings.Contains(env, "BIND_TO_PORT") {
		t.Errorf("without a port it is told %s", env)
	}
}

func TestATaskWithoutPeersIsItsOwnOnlyHost(t *testing.T) {
	task := second()
	task.Assignment.Hosts, task.Task.Index, task.Program = nil, 0, cluster.Program{Command: []string{"true"}}
	task.Folders.Base = "/data/tasks/x/ml"
	names, addresses := task.Hosts()
	if len(names) != 1 || names[0] != "algo-1" || addresses["algo-1"] != "10.0.0.2" {
		t.Errorf("%v, %v", names, addresses)
	}
	env := strings.Join(task.Environment(), "\n")
	if !strings.Contains(env, "SAGEMAKER_BASE_DIR=/data/tasks/x/ml\n") || strings.Contains(env, "\nSM_") || strings.Contains(env, "MASTER_ADDR") {
		t.Errorf("it is told\n%s", env)
	}
}

func FuzzHyperparameters(f *testing.F) {
	for _, text := range []string{"3", `"a"`, `{"a":`, "nan", "1e999", `[1,2]`, "", "\x00", "null", "1 2"} {
		f.Add("name", text)
	}
	f.Fuzz(func(t *testing.T, name, text string) {
		task := second()
		task.Program.Hyperparameters = map[string]string{name: text}
		var back map[string]string
		if err := json.Unmarshal(task.Files()["hyperparameters.json"], &back); err != nil || len(back) != 1 {
			t.Errorf("hyperparameters.json is %s: %v", task.Files()["hyperparameters.json"], err)
		}
		if arguments := task.Arguments(); len(arguments) != 2 && !strings.HasPrefix(name, "sagemaker_") {
			t.Errorf("arguments are %q", arguments)
		}
		task.Environment()
	})
}
