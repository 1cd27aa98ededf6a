package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/clary-ml/clary/cluster"
)

// fetched are the files below an s3:// prefix, by name.
func (m *machines) fetched(prefix string) map[string]string {
	m.T.Helper()
	folder, err := os.MkdirTemp(m.Dir, "fetched-*")
	if err != nil {
		m.T.Fatal(err)
	}
	if out, err := m.Try("cp", "-r", prefix, folder); err != nil {
		if strings.Contains(out, "there is nothing below") {
			return map[string]string{}
		}
		m.T.Fatalf("fetch %s: %v: %s", prefix, err, out)
	}
	files := map[string]string{}
	err = filepath.WalkDir(folder, func(path string, item fs.DirEntry, err error) error {
		if err != nil || item.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		name, _ := filepath.Rel(folder, path)
		files[name] = string(text)
		return err
	})
	if err != nil {
		m.T.Fatal(err)
	}
	return files
}

const prepScript = `
import json, os, sys
base = "/opt/ml/processing"
config = json.load(open("/opt/ml/config/processingjobconfig.json"))
hosts = json.load(open("/opt/ml/config/resourceconfig.json"))
print(json.dumps({"config": config, "hosts": hosts, "args": sys.argv[1:], "training": "TRAINING_JOB_NAME" in os.environ, "uid": os.getuid()}))
out = base + "/output/clean"
os.makedirs(out + "/deep/er")
for name in sorted(os.listdir(base + "/input/raw")):
    text = open(base + "/input/raw/" + name).read()
    open(out + "/deep/" + name, "w").write(text.upper())
open(out + "/deep/er/empty", "w")
open(out + "/.hidden", "w").write("seen")
os.symlink("/etc/passwd", out + "/passwd")
os.symlink("deep", out + "/link")
os.mkfifo(out + "/pipe")
open("/opt/ml/output/message", "w").write("3 files\nof " + "é" * 2000)
`

func TestAProcessingScriptLeavesItsFilesWhereTheyWereAskedFor(t *testing.T) {
	m := start(t, 1, 1)
	script := m.File("prep.py", prepScript)
	raw := m.tree("raw", map[string]string{"a.csv": "x,1\n", "b.csv": "y,2\n", "with space.csv": "z\n"})
	m.Exits(0, "process", "--script", script, "--input", "raw="+raw, "--output", "clean=s3://made/clean/", "--output", "none=s3://made/none", "--name", "prep",
		"--max-runtime", "10m", "--env", "MODE=test", "--", "--ratio", "0.2")
	var found struct {
		Config struct {
			ProcessingJobName, ProcessingJobArn string
			Environment                         map[string]string
			ProcessingInputs                    []struct {
				InputName string
				S3Input   struct{ LocalPath, S3Uri, S3DataDistributionType string }
			}
			ProcessingOutputConfig struct {
				Outputs []struct {
					OutputName string
					S3Output   struct{ LocalPath, S3Uri, S3UploadMode string }
				}
			}
			StoppingCondition struct{ MaxRuntimeInSeconds int }
		}
		Hosts struct {
			Current string `json:"current_host"`
			Hosts   []string
		}
		Args     []string
		Training bool
		UID      int
	}
	if said := m.Clary("logs", "prep"); json.Unmarshal([]byte(said), &found) != nil {
		t.Fatalf("it said %s", said)
	}
	config := found.Config
	if config.ProcessingJobName != "prep" || !strings.HasSuffix(config.ProcessingJobArn, ":processing-job/prep") || config.Environment["MODE"] != "test" || config.StoppingCondition.MaxRuntimeInSeconds != 600 {
		t.Errorf("the job's configuration: %+v", config)
	}
	if in := config.ProcessingInputs; len(in) != 1 || in[0].InputName != "raw" || in[0].S3Input.LocalPath != "/opt/ml/processing/input/raw" || in[0].S3Input.S3DataDistributionType != "FullyReplicated" {
		t.Errorf("its inputs: %+v", in)
	}
	if out := config.ProcessingOutputConfig.Outputs; len(out) != 2 || out[0].S3Output.S3Uri != "s3://made/clean/" || out[0].S3Output.S3UploadMode != "EndOfJob" || out[0].S3Output.LocalPath != "/opt/ml/processing/output/clean" {
		t.Errorf("its outputs: %+v", out)
	}
	if strings.Join(found.Args, " ") != "--ratio 0.2" || found.Training || found.UID < 200000 || found.Hosts.Current != "algo-1" || len(found.Hosts.Hosts) != 1 {
		t.Errorf("it found %+v", found)
	}
	want := map[string]string{"deep/a.csv": "X,1\n", "deep/b.csv": "Y,2\n", "deep/with space.csv": "Z\n", "deep/er/empty": "", ".hidden": "seen"}
	if got := m.fetched("s3://made/clean/"); !maps.Equal(got, want) {
		t.Errorf("it left %q, want %q", got, want)
	}
	var view struct {
		Message string `json:"exit_message"`
		Outputs []struct {
			Name  string
			Files int
		}
	}
	m.JSON(&view, "job", "prep", "-o", "json")
	if len(view.Outputs) != 1 || view.Outputs[0].Name != "clean" || view.Outputs[0].Files != 5 {
		t.Errorf("published: %+v", view.Outputs)
	}
	if text := view.Message; !strings.HasPrefix(text, "3 files\nof éé") || len(text) < 1020 || len(text) > 1024 || strings.Contains(text, "?") {
		t.Errorf("its message is %d bytes: %q", len(text), text)
	}
	if shown := m.Clary("job", "prep"); !strings.Contains(shown, "3 files of é") || !strings.Contains(shown, "in 5 files") {
		t.Errorf("people are shown\n%s", shown)
	}
	// What went wrong is said, and nothing is left where it was asked for.
	m.Exits(3, "process", "--input", "raw="+raw, "--output", "s3://made/bad/", "--name", "bad", "--", "sh", "-c",
		"cp /opt/ml/processing/input/raw/a.csv /opt/ml/processing/output/; echo half >/opt/ml/output/message; exit 3")
	if left := m.fetched("s3://made/bad/"); len(left) > 0 {
		t.Errorf("a failed job left %q", left)
	}
	m.JSON(&view, "job", "bad", "-o", "json")
	if view.Message != "half" {
		t.Errorf("a failed job's message is %q", view.Message)
	}
}

func TestInstancesShareAnInputOutAndAllMustSucceed(t *testing.T) {
	m := start(t, 1, 2)
	files := map[string]string{}
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		files[name+".txt"] = "part " + name + "\n"
	}
	raw := m.tree("raw", files)
	more := m.tree("more", map[string]string{"all.txt": "for everyone\n"})
	process := func(name, script string) []string {
		return []string{
			"process", "--instances", "2", "--cores", "3", "--input", "raw=" + raw, "--input-option", "raw=sharded", "--input", "more=" + more,
			"--output", "s3://shared/" + name + "/", "--name", name, "--", "sh", "-c", script,
		}
	}
	m.Exits(0, process("both", `cd /opt/ml/processing; cp input/raw/* output/; cp input/more/all.txt output/; hostname >output/host; ls input/raw | wc -l >output/$(hostname)`)...)
	nodes := map[string]bool{}
	for _, task := range m.Job("both").Tasks {
		nodes[task.Node] = true
	}
	if len(nodes) != 2 {
		t.Errorf("they ran on %v", nodes)
	}
	got := m.fetched("s3://shared/both/")
	counts := got["algo-1"] + got["algo-2"]
	if counts != "3\n2\n" || got["host"] != "algo-1\n" || got["all.txt"] != "for everyone\n" {
		t.Errorf("they left %q", got)
	}
	for name, text := range files {
		if got[name] != text {
			t.Errorf("%s is %q", name, got[name])
		}
	}
	if reason := m.Job("both").Reason; !strings.Contains(reason, "host of worker-1") || strings.Contains(reason, "all.txt") {
		t.Errorf("of what both wrote is said %q", reason)
	}
	m.Exits(5, process("one", `echo x >/opt/ml/processing/output/x; test $(hostname) = algo-1 || exit 5`)...)
	if left := m.fetched("s3://shared/one/"); len(left) > 0 {
		t.Errorf("with one failed instance it left %q", left)
	}
}

// slowly writes file after file, the last ones when a file says so.
const slowly = `cd /opt/ml/processing; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do sed "s/^/$i /" input/rows.txt >output/part-$i; sleep 0.2; done; echo done >/opt/ml/output/message`

func TestKillsLeaveTheBytesOfAnUndisturbedRun(t *testing.T) {
	m := start(t, 3, 1)
	rows := m.tree("rows", map[string]string{"rows.txt": strings.Repeat("some row of text\n", 20_000)})
	process := func(name string, more ...string) []string {
		return append([]string{"process", "--input", rows, "--output", "s3://killed/" + name + "/", "--name", name, "--retries", "0", "--detach"}, append(more, "--", "sh", "-c", slowly)...)
	}
	run := func(name string, disturb func(name string)) map[string]string {
		m.Clary(process(name)...)
		m.WaitFor("the program of "+name, 30*time.Second, func() bool { return len(m.taskPids(name)) > 0 })
		disturb(name)
		m.Waits(0, name)
		return m.fetched("s3://killed/" + name + "/")
	}
	want := run("undisturbed", func(string) {})
	if len(want) != 20 {
		t.Fatalf("undisturbed it leaves %d files", len(want))
	}
	judge := func(t *testing.T, name string, got map[string]string, attempts int) {
		t.Helper()
		if !maps.Equal(got, want) {
			t.Errorf("%s left %d files, or other bytes", name, len(got))
		}
		if attempt := m.Job(name).Attempt; attempt != attempts {
			t.Errorf("%s took %d attempts, want %d", name, attempt, attempts)
		}
	}
	for _, test := range []struct {
		name     string
		disturb  func(name string)
		attempts int
	}{
		{"agent", func(name string) { m.Kill("n1"); m.Again("n1") }, 1},
		{"agent-at-end", func(name string) {
			hold, goOn := m.storeSwitch()
			hold() // so that its files are still to be brought there when it has ended
			defer goOn()
			m.WaitFor("its end", 30*time.Second, func() bool { return len(m.taskPids(name)) == 0 })
			if state := m.Job(name).State; state != "running" {
				t.Fatalf("it is %s when its agent is killed", state)
			}
			m.Kill("n1")
			goOn()
			m.Again("n1")
		}, 1},
		{"shim", func(name string) {
			for _, pid := range m.PIDs("clary-shim") {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}, 2},
		{"leader", func(string) { leader := m.Leader(); m.Kill(leader); m.Again(leader) }, 1},
	} {
		t.Run(test.name, func(t *testing.T) { judge(t, test.name, run(test.name, test.disturb), test.attempts) })
	}
	t.Run("leader-at-end", func(t *testing.T) {
		// The instant is short: one that was over is no kill, and is looked for once more.
		for try, hit := 1, false; !hit; try++ {
			if try > 5 {
				t.Skip("five times all was published before the leader could be killed")
			}
			name := fmt.Sprintf("leader-at-end-%d", try)
			judge(t, name, run(name, func(name string) { hit = m.killsWhilePublishing(name) }), 1)
		}
	})
}

// storeSwitch holds all that goes to the object store and comes from it, and lets it go on.
func (m *machines) storeSwitch() (hold, goOn func()) {
	m.T.Helper()
	store := m.PIDs("\x00objectstore\x00")
	if len(store) == 0 {
		m.T.Fatal("there is no object store")
	}
	tell := func(signal syscall.Signal) func() {
		return func() {
			for _, pid := range store {
				_ = syscall.Kill(pid, signal) // it may have ended with its coordinator
			}
		}
	}
	return tell(syscall.SIGSTOP), tell(syscall.SIGCONT)
}

// killsWhilePublishing kills the leader while a job's outputs are on their way to where they were
// asked for, which is held meanwhile; false if they had arrived already.
func (m *machines) killsWhilePublishing(name string) bool {
	m.T.Helper()
	c, leader := m.Client(), m.Leader()
	hold, goOn := m.storeSwitch()
	defer goOn()
	ctx, cancel := context.WithTimeout(m.T.Context(), time.Minute)
	defer cancel()
	for state := cluster.JobState(""); state != cluster.JobPublishing; {
		view, err := c.Job(ctx, name)
		if err != nil {
			m.T.Fatal(err)
		}
		if state = view.Job.State; state.Ended() {
			return false
		}
	}
	hold()
	if m.Job(name).State != "publishing" {
		return false
	}
	m.Kill(leader)
	m.Again(leader)
	return true
}

// drips writes a file of its attempt's own, another one, and waits for a third that the test brings.
const drips = `cd /opt/ml/processing/output; echo $CLARY_ATTEMPT >attempt-$CLARY_ATTEMPT; echo same >same; echo part >part.tmp
while ! test -e $HOME/go; do sleep 0.05; done; rm same; echo last >last; mv part.tmp part`

func TestContinuousOutputsAreThereWhileTheJobRunsAndExactWhenItEnds(t *testing.T) {
	m := start(t, 1, 1)
	m.Clary("cp", m.File("mine.txt", "was there before\n"), "s3://dripped/live/mine.txt")
	m.Clary("process", "--output", "s3://dripped/live/", "--continuous", "--name", "drip", "--detach", "--", "sh", "-c", drips)
	first := map[string]string{"attempt-1": "1\n", "same": "same\n", "mine.txt": "was there before\n"}
	m.WaitFor("the first files", 30*time.Second, func() bool { return maps.Equal(m.fetched("s3://dripped/live/"), first) })
	m.Kill("n1")
	m.Again("n1") // the next agent goes on with it
	if view := m.Job("drip"); view.State != "running" || view.Attempt != 1 {
		t.Fatalf("it is %+v", view)
	}
	for _, pid := range m.PIDs("clary-shim") {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	m.WaitFor("the second attempt's file", 30*time.Second, func() bool { return m.fetched("s3://dripped/live/")["attempt-2"] == "2\n" })
	m.Clary("exec", "drip", "--", "sh", "-c", "touch $HOME/go")
	m.Waits(0, "drip")
	want := map[string]string{"attempt-2": "2\n", "last": "last\n", "part": "part\n", "mine.txt": "was there before\n"}
	if got := m.fetched("s3://dripped/live/"); !maps.Equal(got, want) {
		t.Errorf("in the end there is %q, want %q", got, want)
	}
}

func TestReadyMadeStepsRunAsAJobAndJoinWhatTheyAreGiven(t *testing.T) {
	m := start(t, 1, 1)
	orders, customers := "id,amount,bought\n", "id,city\n"
	for i := range 1000 {
		orders += fmt.Sprintf("%d,%d,%s\n", i%50, i, []string{"yes", "no"}[i%3%2])
	}
	for i := range 50 {
		customers += fmt.Sprintf("%d,%s\n", i, []string{"Rome", "Oslo"}[i%2])
	}
	plan := m.File("plan.yaml", "label: bought\nsteps:\n- join: {with: customers, on: id}\n- drop: {columns: [id]}\n- split: {test: 0.2, stratify: bought, seed: 3}\n- clean: {}\n- scale: {}\n- one_hot: {}\n")
	m.Exits(0, "process", "--steps", plan, "--profile", "--input", m.File("orders.csv", orders), "--input", "customers="+m.File("customers.csv", customers),
		"--output", "s3://made/ready/", "--name", "ready")
	got := m.fetched("s3://made/ready/")
	local := m.Path("local")
	m.Clary("prepare", "-f", plan, "--input", m.Path("orders.csv"), "--input", "customers="+m.Path("customers.csv"), "--to", local)
	for _, name := range []string{"train/train.csv", "test/test.csv", "transform/transform.json", "report.json"} {
		want, err := os.ReadFile(filepath.Join(local, name))
		if err != nil || got[name] != string(want) || len(want) == 0 {
			t.Errorf("%s is not as on this machine: %d bytes and %d, %v", name, len(got[name]), len(want), err)
		}
	}
	if !strings.Contains(got["profile.html"], "<svg") {
		t.Errorf("the page is %d bytes", len(got["profile.html"]))
	}
	var view struct {
		Message string `json:"exit_message"`
		Reason  string
	}
	m.JSON(&view, "job", "ready", "-o", "json")
	if view.Message != "1000 rows: test 200, train 800" {
		t.Errorf("it says %q", view.Message)
	}
	broken := m.File("broken.csv", "id,amount,bought\n1,2,yes\n1,2\n")
	m.Exits(1, "process", "--steps", m.File("one.yaml", "label: bought\nsteps:\n- clean: {}\n"), "--input", broken, "--output", "s3://made/broken/", "--name", "broken")
	m.JSON(&view, "job", "broken", "-o", "json")
	if !strings.Contains(view.Reason, "line 3") {
		t.Errorf("of a broken line it says %q", view.Reason)
	}
}

func TestAProcessingContainerFindsItsContractAndIsStartedAsItIsMade(t *testing.T) {
	e := engine(t)
	m := start(t, 1, 1) // n1 has no engine
	m.Agent("n2", "--container-engine", e.Socket)
	m.WaitFor("both agents to be ready", 30*time.Second, func() bool { return m.Ready() == 2 })
	image := m.Path("prep.tar")
	trainImage(t, image, func(c *v1.Config) {
		c.Entrypoint = []string{"sh", "-c", `cd /opt/ml/processing; sed "s/^/$0 /" input/rows.txt >output/rows; cat /opt/ml/config/resourceconfig.json; ln -s /etc/passwd output/link; echo fine >/opt/ml/output/message`}
		c.Cmd = []string{"default"}
	})
	rows := m.tree("rows", map[string]string{"rows.txt": "a\nb\n"})
	process := func(name string, more ...string) []string {
		return append([]string{"process", "--image", image, "--input", rows, "--output", "s3://contained/" + name + "/", "--name", name}, more...)
	}
	m.Exits(0, process("plain")...)
	m.Exits(0, process("told", "--", "other")...)
	for name, want := range map[string]string{"plain": "default a\ndefault b\n", "told": "other a\nother b\n"} {
		if got := m.fetched("s3://contained/" + name + "/"); len(got) != 1 || got["rows"] != want {
			t.Errorf("%s left %q", name, got)
		}
	}
	if said := m.Clary("logs", "plain"); !strings.Contains(said, `"current_host":"algo-1"`) {
		t.Errorf("it found %s", said)
	}
	if shown := m.Clary("job", "plain"); !strings.Contains(shown, "fine") {
		t.Errorf("its message is not in\n%s", shown)
	}
	m.Exits(4, process("fails", "--entrypoint", "sh", "--", "-c", "exit 4")...)
	m.Exits(0, "delete", "plain", "told", "fails")
}
