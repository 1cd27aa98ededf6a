package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// toolkitScript is what the toolkit starts. It prints which SM_ variables the toolkit set,
// and which of them Clary would have set otherwise: outer.json has those.
const toolkitScript = `
import argparse, json, os, sys
parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int)
parser.add_argument("--lr", type=float)
args = parser.parse_args()
outer = json.load(open("/opt/ml/output/data/outer.json"))
own = {k: v for k, v in os.environ.items() if k.startswith("SM_")}
def read(v):
    try: return json.loads(v)
    except ValueError: return v
differ = {k: [outer.get(k), v] for k, v in own.items() if read(outer.get(k, "")) != read(v)}
json.dump({"args": vars(args), "set": sorted(own), "differ": differ, "rows": open(os.environ["SM_CHANNEL_TRAIN"] + "/rows.csv").read()}, open("/opt/ml/output/data/found.json", "w"))
print("FOUND " + open("/opt/ml/output/data/found.json").read())
open(os.environ["SM_MODEL_DIR"] + "/model.txt", "w").write("weights")
if args.epochs == 13:
    raise ValueError("thirteen is unlucky")
`

// toolkitStart is what an image of SageMaker's has as its entry point.
const toolkitStart = `python3 -c 'import json, os; json.dump(dict(os.environ), open("/opt/ml/output/data/outer.json", "w"))'
exec train
`

func TestThePublicTrainingToolkitFindsAllItNeeds(t *testing.T) {
	m := start(t, 1, 1)
	source := m.tree("source", map[string]string{"user.py": toolkitScript, "start.sh": toolkitStart})
	data := m.tree("data", map[string]string{"rows.csv": "1,2\n"})
	train := func(name, epochs string) []string {
		return []string{
			"train", "--script", "start.sh", "--source", source, "--requirements", m.File("toolkit.txt", "sagemaker-training\n"),
			"--python", "/usr/bin/python3", "--data", data, "--name", name, "--hyperparameter", "sagemaker_program=user.py",
			"--hyperparameter", "sagemaker_submit_directory=/opt/ml/code", "--hyperparameter", "epochs=" + epochs, "--hyperparameter", "lr=0.5",
		}
	}
	began := time.Now()
	out, err := m.Try(train("kit", "3")...)
	if err != nil && strings.Contains(out, "requirements cannot be installed") {
		t.Skipf("skipped: the toolkit cannot be had here: %s", out)
	}
	said := m.Exits(0, "logs", "kit")
	_, text, ok := strings.Cut(said, "FOUND ")
	if err != nil || !ok {
		t.Fatalf("%v: %s\n%s", err, out, said)
	}
	var found struct {
		Args struct {
			Epochs int
			Lr     float64
		}
		Set    []string
		Differ map[string][]any
		Rows   string
	}
	line, _, _ := strings.Cut(text, "\n")
	if err := json.Unmarshal([]byte(line), &found); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	if found.Args.Epochs != 3 || found.Args.Lr != 0.5 || found.Rows != "1,2\n" {
		t.Errorf("it found %+v", found)
	}
	// The entry point is another, and so are the few that speak of it. The toolkit counts
	// the machine's cores, Clary those that the task was given.
	for name, values := range found.Differ {
		switch name {
		case "SM_USER_ENTRY_POINT", "SM_MODULE_NAME", "SM_MODULE_DIR", "SM_TRAINING_ENV", "SM_NUM_CPUS":
		default:
			t.Errorf("%s: Clary has %v, the toolkit %v", name, values[0], values[1])
		}
	}
	if len(found.Set)-len(found.Differ) < 25 {
		t.Errorf("only %v agree", found.Set)
	}
	t.Logf("%d variables agree; with its installation it took %s", len(found.Set)-len(found.Differ), time.Since(began).Round(time.Second))

	// The toolkit's failure file is the job's reason.
	if out := m.Exits(1, train("unlucky", "13")...); !strings.Contains(out, "ExecuteUserScriptError") {
		t.Errorf("it failed with %s", out)
	}
}

// sdkWheel is the part of the SDK's third version that has what runs inside a container.
const sdkWheel = "sagemaker-train"

// sdkScript makes sm_train.sh as the SDK's ModelTrainer does, from its own template.
const sdkScript = `
import importlib.util, pathlib, sys
root = pathlib.Path(sys.argv[1])
spec = importlib.util.spec_from_file_location("templates", root / "templates.py")
templates = importlib.util.module_from_spec(spec)
spec.loader.exec_module(templates)
print(templates.TRAIN_SCRIPT_TEMPLATE.format(
    working_dir="cd /opt/ml/input/data/code", install_requirements="", execute_driver=templates.EXECUTE_BASIC_SCRIPT_DRIVER,
))
`

func TestTheNewerSDKsDriversRunWithoutAToolkit(t *testing.T) {
	beside(t)
	wheels := t.TempDir()
	if out, err := exec.Command("/usr/bin/python3", "-m", "venv", wheels+"/venv").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	python := wheels + "/venv/bin/python"
	if out, err := exec.Command(python, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", wheels, sdkWheel).CombinedOutput(); err != nil {
		t.Skipf("skipped: the SDK cannot be had here: %v: %s", err, out)
	}
	found, err := filepath.Glob(wheels + "/*.whl")
	if err != nil || len(found) != 1 {
		t.Fatalf("%v, %v", found, err)
	}
	if out, err := exec.Command(python, "-m", "zipfile", "-e", found[0], wheels+"/sdk").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	sdk := wheels + "/sdk/sagemaker/train"
	script, err := exec.Command(python, "-c", sdkScript, sdk).Output()
	if err != nil {
		t.Fatalf("the SDK's template is another: %v", err)
	}
	drivers := sdk + "/container_drivers"
	for name, text := range map[string]string{
		"sm_train.sh": strings.TrimSpace(string(script)) + "\n", "sourcecode.json": `{"source_dir": "x", "entry_script": "run.sh"}`, "distributed.json": "{}",
	} {
		if err := os.WriteFile(filepath.Join(drivers, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m := start(t, 1, 1)
	// A .sh as entry point is made executable by the SDK's driver, in the channel itself.
	code := m.tree("code", map[string]string{"run.sh": "#!/bin/bash\necho \"GOT $* $SM_HP_EPOCHS $SM_CURRENT_HOST $SM_HOST_COUNT\"\ncat $SM_CHANNEL_TRAIN/rows.csv\necho weights >$SM_MODEL_DIR/model.txt\ntest -z \"$SM_HP_FAIL\"\n"})
	data := m.tree("data", map[string]string{"rows.csv": "1,2\n"})
	begin := m.tree("begin", map[string]string{"start.sh": `exec /bin/bash -c "chmod +x /opt/ml/input/data/sm_drivers/sm_train.sh && /opt/ml/input/data/sm_drivers/sm_train.sh"`})
	train := func(name string, more ...string) []string {
		return append([]string{
			"train", "--script", "start.sh", "--source", begin, "--requirements", m.File("pip.txt", "pip\n"), "--python", "/usr/bin/python3", "--data", data,
			"--channel", "code=" + code, "--channel", "sm_drivers=" + drivers, "--name", name, "--hyperparameter", "epochs=3",
		}, more...)
	}
	m.Exits(0, train("sdk")...)
	if said := m.Clary("logs", "sdk"); !strings.Contains(said, "GOT --epochs 3 3 algo-1 1\n") || !strings.Contains(said, "1,2\n") {
		t.Errorf("it said %s", said)
	}
	// The same objects serve the next job as they were: nothing that the first did to its
	// files was done to the node's.
	m.Exits(0, train("again")...)
	if out := m.Exits(1, train("fails", "--hyperparameter", "fail=yes")...); !strings.Contains(out, "Execution failed") && !strings.Contains(out, "exit code 1") {
		t.Errorf("it failed with %s", out)
	}
}
