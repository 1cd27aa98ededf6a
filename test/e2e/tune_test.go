package e2e

import (
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// bowl is a training whose loss is least at lr 0.01 and depth 5; a rate above 0.05 breaks it,
// and one named by --nan is no number in its second epoch.
const bowl = `
import argparse, json, math, os, sys, time
p = argparse.ArgumentParser()
p.add_argument("--lr", type=float, required=True)
p.add_argument("--depth", type=int, default=5)
p.add_argument("--pause", type=float, default=0)
p.add_argument("--nan", type=int, default=0)
a = p.parse_args()
if a.lr > 0.05:
    sys.exit(3)
with open(os.environ["CLARY_METRICS"], "a", buffering=1) as out:
    for epoch in range(1, 4):
        time.sleep(a.pause)
        loss = (math.log10(a.lr) + 2) ** 2 + 0.1 * (a.depth - 5) ** 2 + 1 / epoch
        out.write(json.dumps({"epoch": epoch, "metrics": {"val_loss": math.nan if a.nan and epoch > 1 else loss, "memory": 10 * a.depth}}) + "\n")
open(os.path.join(os.environ["SM_MODEL_DIR"], "model.txt"), "w").write(f"{a.lr} {a.depth}")
`

// sweepOf is what clary sweep NAME -o json tells.
type sweepOf struct {
	State, Reason, Sampler, Closed string
	Paused                         bool
	Parallel                       int
	Budget                         struct{ Trials int }
	Counts                         map[string]int
	Best                           []struct {
		Number     int
		Parameters map[string]float64
		Values     map[string]float64
		Model      string
	}
	Importance []struct {
		Method string
		Shares []struct{ Parameters []string }
	}
}

func (m *machines) sweep(name string) sweepOf {
	m.T.Helper()
	var view sweepOf
	m.JSON(&view, "sweep", name, "-o", "json")
	return view
}

func TestASweepFromTheCommandLineFindsAndShowsTheBest(t *testing.T) {
	m := start(t, 1, 1)
	script := m.File("bowl.py", bowl)
	tune := []string{"tune", "--script", script, "--param", "lr=log:1e-4..1e-1", "--param", "depth=1..8", "--objective", "min:val_loss", "--cores", "0.25", "--memory", "128MiB"}
	m.Clary(append(tune, "--limit", "memory<=70", "--trials", "24", "--parallel", "4", "--seed", "1", "--name", "found")...)
	view := m.sweep("found")
	if view.State != "succeeded" || view.Sampler != "auto (bayes)" || view.Counts["complete"] < 12 || view.Counts["complete"]+view.Counts["failed"] != 24 || len(view.Best) != 1 {
		t.Fatalf("%+v", view)
	}
	best := view.Best[0]
	want := math.Pow(math.Log10(best.Parameters["lr"])+2, 2) + 0.1*math.Pow(best.Parameters["depth"]-5, 2) + 1.0/3
	if got := best.Values["val_loss"]; math.Abs(got-want) > 1e-9 || got > 0.45 || best.Values["memory"] != 10*best.Parameters["depth"] {
		t.Errorf("the best is %+v, which comes to %v", best, want)
	}
	if len(view.Importance) != 1 || !strings.HasPrefix(view.Importance[0].Method, "fANOVA (Hutter et al., 2014)") || len(view.Importance[0].Shares) < 2 {
		t.Errorf("importance: %+v", view.Importance)
	}
	plots := m.Clary("sweep", "found", "--plot", "all")
	for _, text := range []string{"val_loss of each trial", "fANOVA", "val_loss by lr", "the best 9 trials by their rank", "val_loss over epoch of the best"} {
		if !strings.Contains(plots, text) {
			t.Errorf("no %q in\n%s", text, plots)
		}
	}
	m.readReport("found", view)
	m.Clary("train", "--best-of", "found", "--name", "again", "--cores", "0.25")
	model, err := m.Try("job", "again", "-o", "json")
	if err != nil || !strings.Contains(model, `"lr": `) {
		t.Errorf("%v: %s", err, model)
	}
	if got := m.Job("again"); got.State != "succeeded" {
		t.Errorf("%+v", got)
	}
	request := m.File("request.json", `{"HyperParameterTuningJobConfig": {"Strategy": "Random", "RandomSeed": 3,
		"HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "val_loss"}, "ResourceLimits": {"MaxNumberOfTrainingJobs": 4, "MaxParallelTrainingJobs": 4},
		"ParameterRanges": {"ContinuousParameterRanges": [{"Name": "lr", "MinValue": "0.0001", "MaxValue": "0.05", "ScalingType": "Logarithmic"}]}}}`)
	m.Clary("tune", "--sagemaker", request, "--script", script, "--name", "sage", "--cores", "0.25")
	if got := m.sweep("sage"); got.State != "succeeded" || got.Sampler != "random" || got.Counts["complete"] != 4 {
		t.Errorf("%+v", got)
	}
	if list := m.Clary("sweeps"); !regexp.MustCompile(`(?m)^found +succeeded +24 of 24 .*\n.*^sage +succeeded`).MatchString(list) {
		t.Error(list)
	}
}

func TestATuningRequestToSageMakerRunsItsImage(t *testing.T) {
	e := engine(t)
	m := start(t, 1, 0)
	m.Agent("n1", "--container-engine", e.Socket)
	m.WaitFor("the agent to be ready", 30*time.Second, func() bool { return m.Ready() == 1 })
	trainImage(t, m.Path("trainer.tar"))
	m.Clary("cp", m.Path("trainer.tar"), "s3://clary/e2e/trainer.tar")
	m.Clary("cp", m.File("rows.csv", "1,2\n3,4\n"), "s3://clary/e2e/data/rows.csv")
	request := m.File("request.json", `{
		"HyperParameterTuningJobName": "auc",
		"HyperParameterTuningJobConfig": {
			"Strategy": "Bayesian", "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "validation:auc"},
			"ResourceLimits": {"MaxNumberOfTrainingJobs": 6, "MaxParallelTrainingJobs": 2},
			"ParameterRanges": {"ContinuousParameterRanges": [{"Name": "eta", "MinValue": "0.1", "MaxValue": "0.9", "ScalingType": "Linear"}]}},
		"TrainingJobDefinition": {
			"StaticHyperParameters": {"num_round": "100"},
			"AlgorithmSpecification": {"TrainingImage": "s3://clary/e2e/trainer.tar", "TrainingInputMode": "File",
				"MetricDefinitions": [{"Name": "validation:auc", "Regex": "validation-auc:([0-9.]+)"}]},
			"RoleArn": "arn:aws:iam::123456789012:role/tuner",
			"InputDataConfig": [{"ChannelName": "train", "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://clary/e2e/data/"}}}],
			"OutputDataConfig": {"S3OutputPath": "s3://clary/e2e/out"},
			"ResourceConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 1},
			"StoppingCondition": {"MaxRuntimeInSeconds": 60}}}`)
	m.Clary("tune", "--sagemaker", request, "--cores", "0.5", "--memory", "128MiB")
	view := m.sweep("auc")
	if view.State != "succeeded" || view.Sampler != "bayes" || view.Counts["complete"] != 6 || len(view.Best) != 1 {
		t.Fatalf("%+v", view)
	}
	best := view.Best[0]
	if math.Abs(best.Values["validation:auc"]-best.Parameters["eta"]) > 1e-6 || best.Parameters["eta"] < 0.7 {
		t.Errorf("the best is %+v", best)
	}
	if left := m.Clary("ls", "-r", "s3://clary/e2e/out"); strings.Count(left, "model.tar.gz") != 6 {
		t.Errorf("in the output: %s", left)
	}
}

// readReport has the report of a sweep written, and looks that all its trials are in it and
// that it asks nobody for anything.
func (m *machines) readReport(name string, view sweepOf) {
	m.T.Helper()
	m.Clary("sweep", name, "--html", m.Path("report.html"))
	text, err := os.ReadFile(m.Path("report.html"))
	if err != nil {
		m.T.Fatal(err)
	}
	page := string(text)
	for _, title := range []string{"Best trial", "Optimization history", "Parameter importance", "Parallel coordinates", "Slices", "Learning curves"} {
		if !strings.Contains(page, title) {
			m.T.Errorf("the report lacks %s", title)
		}
	}
	if outside := regexp.MustCompile(`(src|href)="(https?:)?//|@import|url\(http`).FindString(page); outside != "" {
		m.T.Errorf("the report asks for %s", outside)
	}
	_, rest, _ := strings.Cut(page, `<script type="application/json" id="data">`)
	raw, _, _ := strings.Cut(rest, "</script>")
	var data struct {
		State  string
		Values [][]*float64
	}
	if err := json.Unmarshal([]byte(raw), &data); err != nil {
		m.T.Fatal(err)
	}
	if strings.Count(data.State, "c") != view.Counts["complete"] || strings.Count(data.State, "f") != view.Counts["failed"] ||
		math.Abs(*data.Values[0][view.Best[0].Number]-view.Best[0].Values["val_loss"]) > 1e-5 {
		m.T.Errorf("the report has the states %s", data.State)
	}
}

func TestASweepThatCannotSucceedEndsAndSaysWhy(t *testing.T) {
	m := start(t, 1, 1)
	script := m.File("bowl.py", bowl)
	m.Clary("run", "--detach", "--name", "hog", "--cores", "4", "--", "sleep", "100")
	tune := []string{"tune", "--script", script, "--param", "lr=log:1e-3..1e-2", "--parallel", "4", "--cores", "0.25", "--memory", "128MiB"}
	m.Clary(append(tune, "--trials", "4", "--objective", "min:val_loss", "--name", "waits", "--detach")...)
	m.WaitFor("the reason that trials wait for", 20*time.Second, func() bool {
		return regexp.MustCompile(`(?m)^waits +worker needs 0\.25 cores`).MatchString(m.Clary("sweep", "waits"))
	})
	m.Clary("cancel", "hog")
	m.Waits(0, "waits")
	for name, c := range map[string]struct {
		flags []string
		says  string
	}{
		"typo":     {[]string{"--objective", "min:validation_loss"}, "without a finite value of validation_loss; it told memory, val_loss"},
		"diverged": {[]string{"--objective", "min:val_loss", "--hyperparameter", "nan=1"}, "without a finite value of val_loss; it told memory"},
		"fails":    {[]string{"--objective", "min:val_loss", "--hyperparameter", "depth=deep"}, "worker-0 failed on node n1: exit code 2"},
		"slow":     {[]string{"--objective", "min:val_loss", "--hyperparameter", "pause=100", "--max-time", "2s"}, "none of its 4 trials has come to its end: its time of 2s is up"},
	} {
		out := m.Exits(1, append(append(tune, "--trials", "50", "--name", name), c.flags...)...)
		if !strings.Contains(out, c.says) {
			t.Errorf("%s says\n%s\nwant %s", name, out, c.says)
		}
	}
}

func TestASweepIsPausedChangedAddedToAndStopped(t *testing.T) {
	m := start(t, 1, 1)
	script := m.File("bowl.py", bowl)
	follow := exec.Command(m.Binary, "tune", "--script", script, "--param", "lr=log:1e-4..0.05", "--objective", "min:val_loss", "--hyperparameter", "pause=0.1",
		"--trials", "6", "--parallel", "2", "--cores", "0.25", "--memory", "128MiB", "--name", "s")
	follow.Env = m.Env
	var said strings.Builder
	follow.Stderr = &said
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	m.WaitFor("a trial's end", 20*time.Second, func() bool {
		out, err := m.Try("trials", "s", "--state", "complete", "-o", "json")
		return err == nil && strings.Contains(out, "complete")
	})
	if err := follow.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := follow.Wait(); follow.ProcessState.ExitCode() != 130 || !strings.Contains(said.String(), "s goes on without you: follow it with clary sweep s --watch") {
		t.Errorf("%v: %s", err, said.String())
	}
	m.Clary("sweep", "pause", "s")
	m.WaitFor("its trials' end", 20*time.Second, func() bool { return m.sweep("s").Counts["running"] == 0 })
	paused := m.sweep("s")
	if !paused.Paused || paused.State != "running" || paused.Counts["complete"] > 5 {
		t.Fatalf("%+v", paused)
	}
	m.Clary("sweep", "extend", "s", "--trials", "1000")
	m.Clary("sweep", "parallel", "s", "3")
	added := m.Clary("sweep", "add", "s", "lr=0.01")
	if out, err := m.Try("sweep", "add", "s", "lr=7"); err == nil || !strings.Contains(out, `parameters.lr: "7": give a number from 0.0001 to 0.05`) {
		t.Errorf("%v: %s", err, out)
	}
	m.Clary("sweep", "resume", "s")
	m.WaitFor("three at once", 20*time.Second, func() bool { return m.sweep("s").Counts["running"] == 3 })
	m.WaitFor("more trials than there were to be", 20*time.Second, func() bool { return m.sweep("s").Counts["complete"] > 6 })
	m.Clary("sweep", "stop", "s")
	m.Waits(0, "s")
	end := m.sweep("s")
	if end.State != "succeeded" || end.Reason != "stopped by admin" || end.Budget.Trials != 1000 || end.Parallel != 3 || end.Best[0].Values["val_loss"] > 1.0/3+1e-6 {
		t.Errorf("%+v", end)
	}
	if !strings.HasPrefix(added, "trial ") || !strings.Contains(added, "lr=0.01") {
		t.Error(added)
	}
	if out, err := m.Try("sweep", "resume", "s"); err == nil || !strings.Contains(out, "begin another with warm_start: [s]") {
		t.Errorf("%v: %s", err, out)
	}
	m.Clary("tune", "--script", script, "--param", "lr=log:1e-4..0.05", "--objective", "min:val_loss", "--trials", "2", "--cores", "0.25", "--warm-start", "s", "--name", "after")
	if after := m.sweep("after"); after.State != "succeeded" || after.Best[0].Values["val_loss"] > 0.4 {
		t.Errorf("%+v", after)
	}
	m.Clary("delete", "s", "after")
}
