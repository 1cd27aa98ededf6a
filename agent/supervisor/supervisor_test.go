package supervisor_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/agent/ledger"
	"github.com/clary-ml/clary/agent/runtime/cgroup"
	"github.com/clary-ml/clary/agent/runtime/shim"
	"github.com/clary-ml/clary/agent/staging/stagingtest"
	"github.com/clary-ml/clary/agent/supervisor"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

const worker = "digits/main/worker-0.1"

func TestATaskEndsAsItsProcessDoes(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		change func(*ledger.Assignment)
		state  cluster.TaskState
		code   int32
		reason string
	}{
		"success":            {"exit 0", nil, cluster.TaskSucceeded, 0, ""},
		"exit code":          {"exit 3", nil, cluster.TaskFailed, 3, "exit code 3"},
		"signal":             {"kill -9 $$", nil, cluster.TaskFailed, 137, "signal 9 (killed)"},
		"its own words":      {`printf 'no data\n' > $SAGEMAKER_BASE_DIR/output/failure; exit 1`, nil, cluster.TaskFailed, 1, "no data"},
		"many words":         {`printf '%02000d' 0 > $SAGEMAKER_BASE_DIR/output/failure; exit 1`, nil, cluster.TaskFailed, 1, strings.Repeat("0", 1024)},
		"failure but exit 0": {`echo hm > $SAGEMAKER_BASE_DIR/output/failure`, nil, cluster.TaskSucceeded, 0, ""},
		"out of memory": {
			`x=aaaaaaaaaaaaaaaa; while :; do x="$x$x"; done`,
			func(a *ledger.Assignment) { a.Task.Allocation.Resources.Memory = 32 << 20 },
			cluster.TaskFailed, 137, "killed: out of memory (limit 32 MiB)",
		},
		"too long": {
			"sleep 60", func(a *ledger.Assignment) { a.MaxRuntime = 100 * time.Millisecond },
			cluster.TaskFailed, 143, "ran longer than its maximum run time 100ms",
		},
		"no such program": {
			"", func(a *ledger.Assignment) { a.Program.Command = []string{"no-such-program"} },
			cluster.TaskFailed, 0, "no-such-program",
		},
		"no such input": {
			"exit 0", func(a *ledger.Assignment) {
				a.Program.Inputs = []cluster.Input{{Channel: "train", URI: "s3://data/none"}}
			},
			cluster.TaskFailed, 0, "input train: s3://data/none: there is no object at or below it",
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, nil)
			if name == "out of memory" && len(b.host.Lacks()) > 0 {
				t.Skip("memory is not limited here")
			}
			a := script(c.script)
			if c.change != nil {
				c.change(&a)
			}
			b.run(a)
			status := b.ended(worker)
			if status.State != c.state || status.ExitCode != c.code || !strings.Contains(status.Reason, c.reason) || len(status.Reason) > 1100 {
				t.Errorf("it ended as %+v", status)
			}
			if c.reason == "" && status.Reason != "" {
				t.Errorf("a success has the reason %q", status.Reason)
			}
		})
	}
}

func TestAnAgentKilledAndStartedAgainKeepsTaskAndExitCode(t *testing.T) {
	b := newBench(t, nil)
	if err := b.agent.close(); err != nil {
		t.Fatal(err)
	}
	said := filepath.Join(t.TempDir(), "pid")
	goOn := filepath.Join(t.TempDir(), "go")
	child := b.spawn(script("echo $$ > " + said + "; while [ ! -e " + goOn + " ]; do sleep 0.01; done; echo $$ >> " + said + "; exit 42"))
	before := awaitFile(t, said)
	kill(t, child)

	b.open(nil)
	b.becomes(worker, cluster.TaskRunning)
	if err := os.WriteFile(goOn, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if status := b.ended(worker); status.State != cluster.TaskFailed || status.ExitCode != 42 || status.Started == 0 || status.Ended < status.Started {
		t.Errorf("it ended as %+v", status)
	}
	if pids := strings.Fields(awaitFile(t, said)); len(pids) != 2 || pids[1] != before {
		t.Errorf("the task noticed: its pids are %v", pids)
	}
}

func TestAnExitWhileNoAgentWasThereIsNotLost(t *testing.T) {
	b := newBench(t, nil)
	if err := b.agent.close(); err != nil {
		t.Fatal(err)
	}
	said := filepath.Join(t.TempDir(), "pid")
	child := b.spawn(script("echo $$ > "+said+"; sleep 0.1; mkdir -p $SAGEMAKER_BASE_DIR/model; echo w > $SAGEMAKER_BASE_DIR/model/w",
		func(a *ledger.Assignment) { a.Program.Outputs = true }))
	awaitFile(t, said)
	kill(t, child)
	awaitFile(t, filepath.Join(b.dir, "tasks", "digits~main~worker-0.1", shim.ExitFile))
	b.open(nil)
	if status := b.ended(worker); status.State != cluster.TaskSucceeded || len(status.Outputs) != 1 {
		t.Errorf("it ended as %+v", status)
	}
}

func TestAgentsKilledAtAnyInstantNeverRunATaskTwice(t *testing.T) {
	b := newBench(t, nil)
	if err := b.agent.close(); err != nil {
		t.Fatal(err)
	}
	ran := filepath.Join(t.TempDir(), "ran")
	task := script("echo once >> " + ran + "; sleep 0.3; exit 5")
	for i := range 8 {
		child := b.spawn(task)
		time.Sleep(time.Duration(i*12) * time.Millisecond) // the instant is what is tried here
		kill(t, child)
	}
	b.open(nil)
	b.run(task)
	if status := b.ended(worker); status.ExitCode != 5 || status.State != cluster.TaskFailed {
		t.Errorf("it ended as %+v", status)
	}
	if text := awaitFile(t, ran); text != "once" {
		t.Errorf("it ran %d times", strings.Count(text, "once"))
	}
}

func TestATaskWhoseShimIsKilledIsLost(t *testing.T) {
	b := newBench(t, nil)
	b.run(script("sleep 1000"))
	b.becomes(worker, cluster.TaskRunning)
	var start shim.Start
	if err := shim.ReadJSON(filepath.Join(b.dir, "tasks", "digits~main~worker-0.1"), shim.StartFile, &start); err != nil {
		t.Fatal(err)
	}
	if process, err := os.FindProcess(start.Shim); err != nil || process.Kill() != nil {
		t.Fatal(err)
	}
	if status := b.ended(worker); status.State != cluster.TaskLost || !strings.Contains(status.Reason, "nobody knows") {
		t.Errorf("it ended as %+v", status)
	}
	if start.Alive() {
		t.Error("its process lives on")
	}
}

func TestAStoppedTaskKeepsItsOutputsAndReason(t *testing.T) {
	b := newBench(t, nil)
	a := script(`trap 'echo late > $SAGEMAKER_BASE_DIR/model/w; exit 0' TERM; touch $SAGEMAKER_BASE_DIR/ready; while :; do sleep 0.01; done`,
		func(a *ledger.Assignment) { a.Program.Outputs = true })
	b.run(a)
	b.becomes(worker, cluster.TaskRunning)
	ready := filepath.Join(b.dir, "tasks", "digits~main~worker-0.1", "ml", "ready")
	for _, err := os.Stat(ready); err != nil; _, err = os.Stat(ready) {
		time.Sleep(time.Millisecond)
	}
	a.Stop, a.StopReason = true, "preempted by job big"
	b.run(a)
	if status := b.ended(worker); status.State != cluster.TaskStopped || status.Reason != "preempted by job big" || len(status.Outputs) != 1 {
		t.Errorf("it ended as %+v", status)
	}
}

func TestATaskStoppedBeforeItStartsNeverRuns(t *testing.T) {
	b := newBench(t, nil)
	ran := filepath.Join(t.TempDir(), "ran")
	b.run(script("touch "+ran, func(a *ledger.Assignment) { a.Stop, a.StopReason = true, "cancelled" }))
	if status := b.ended(worker); status.State != cluster.TaskStopped || status.Reason != "cancelled" {
		t.Errorf("it ended as %+v", status)
	}
}

func TestAForgottenTaskIsEndedAndClearedAway(t *testing.T) {
	b := newBench(t, nil)
	b.run(script(`trap "" TERM; sleep 1000`, func(a *ledger.Assignment) { a.Program.Grace = 50 * time.Millisecond }))
	b.becomes(worker, cluster.TaskRunning)
	if err := b.agent.Desired(false, nil, []string{worker, "unknown/main/x-0.1"}); err != nil {
		t.Fatal(err)
	}
	b.until("it is forgotten", func(held map[string]cluster.TaskStatus) bool { return len(held) == 0 })
	if all, err := b.agent.ledger.All(); err != nil || len(all) != 0 {
		t.Errorf("the ledger still holds %+v, %v", all, err)
	}
	if _, err := b.agent.driver.Wait(t.Context(), worker); !fault.Is(err, fault.NotFound) {
		t.Errorf("the driver still knows it: %v", err)
	}
}

func TestATaskSeesItsContract(t *testing.T) {
	b := newBench(t, func(c *supervisor.Config) {
		c.Certify = func(_ context.Context, task string, csr []byte) ([]byte, []byte, error) {
			return []byte("certificate for " + task), []byte("ca"), nil
		}
	})
	store := stagingtest.Store{Dir: filepath.Join(b.dir, "store")}
	for key, text := range map[string]string{"set/a.csv": "1,2\n", "set/deep/b.csv": "3,4\n"} {
		if err := store.Put(t.Context(), "data", key, strings.NewReader(text), int64(len(text))); err != nil {
			t.Fatal(err)
		}
	}
	b.run(script(`set -e; cd "$SAGEMAKER_BASE_DIR"
		echo "$CLARY_JOB $CLARY_TASK $CLARY_ROLE $CLARY_INDEX $CLARY_ATTEMPT"
		echo "$CLARY_HOSTS_WORKER $CLARY_HOSTS_SERVER $CLARY_PORTS $CLARY_LISTEN"
		cat "$CLARY_SPEC"; echo; cat input/data/train/a.csv input/data/train/deep/b.csv
		cat "$CLARY_TLS_DIR/cert.pem"; echo; test -s "$CLARY_TLS_DIR/key.pem"
		echo "$CUDA_VISIBLE_DEVICES $MINE"; ls -d checkpoints model output/data input/config
		echo '{"epoch":1,"step":10,"total":40,"metrics":{"train_loss":0.5}}' >> "$CLARY_METRICS"
		echo 'rubbish' >> "$CLARY_METRICS"
		echo '{"epoch":2,"step":20,"metrics":{"validation_accuracy":0.9}}' >> "$CLARY_METRICS"
		echo weights > model/w; echo table > output/data/t; echo state > checkpoints/c1`,
		func(a *ledger.Assignment) {
			a.Program.Spec = []byte(`{"epochs":3}`)
			a.Program.Inputs = []cluster.Input{{Channel: "train", URI: "s3://data/set/"}}
			a.Program.Env = map[string]string{"MINE": "mine"}
			a.Program.Outputs, a.Program.Checkpoints = true, true
			a.Task.Allocation.Resources.Ports = []int32{freePort(t)}
			a.Task.Allocation.Resources.Devices = []string{"GPU-1", "GPU-2"}
			a.Hosts = map[string][]string{"worker": {"10.0.0.1:7"}, "server": {"10.0.0.2:8", "10.0.0.3:9"}}
		}))
	status := b.ended(worker)
	log := b.wrote(worker)
	if status.State != cluster.TaskSucceeded {
		t.Fatalf("it ended as %+v, saying %s", status, log)
	}
	for _, want := range []string{
		"digits digits/main/worker-0.1 worker 0 1\n", "10.0.0.1:7 10.0.0.2:8,10.0.0.3:9 ", " 127.0.0.1\n", `{"epochs":3}`,
		"1,2\n3,4\n", "certificate for digits/main/worker-0.1", "GPU-1,GPU-2 mine\n",
	} {
		if !strings.Contains(log, want) {
			t.Errorf("it does not see %q; it sees\n%s", want, log)
		}
	}
	p := status.Progress
	if p.Epoch != 2 || p.Step != 20 || p.Total != 40 || p.Metrics["train_loss"] != 0.5 || p.Metrics["validation_accuracy"] != 0.9 {
		t.Errorf("its progress is %+v", p)
	}
	if len(status.Outputs) != 2 || status.Outputs[0].URI != "s3://clary/jobs/digits/attempts/1/worker-0/model.tar.gz" {
		t.Errorf("its outputs are %+v", status.Outputs)
	}
	objects, err := store.List(t.Context(), "clary", "jobs/digits/checkpoints/1/worker-0/")
	if err != nil || len(objects) != 1 {
		t.Errorf("its checkpoints are %+v, %v", objects, err)
	}
}

func freePort(t *testing.T) int32 {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() //nolint:errcheck // only its number is wanted
	return int32(listener.Addr().(*net.TCPAddr).Port)
}

func TestATakenPortFailsTheTaskWithItsNumber(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() //nolint:errcheck // the test is over
	port := int32(listener.Addr().(*net.TCPAddr).Port)
	for whose, has := range map[string]func(*ledger.Assignment){
		"the plan's":    func(a *ledger.Assignment) { a.Task.Allocation.Resources.Ports = []int32{port} },
		"the program's": func(a *ledger.Assignment) { a.Program.Port = port },
	} {
		b := newBench(t, nil)
		b.run(script("true", has))
		if status := b.ended(worker); status.State != cluster.TaskFailed || !strings.Contains(status.Reason, fmt.Sprintf("port %d cannot be bound", port)) {
			t.Errorf("%s: it ended as %+v", whose, status)
		}
	}
}

func TestALaterAttemptContinuesFromTheCheckpoints(t *testing.T) {
	b := newBench(t, nil)
	attempt := func(n int32, text string) ledger.Assignment {
		return script(text, func(a *ledger.Assignment) {
			a.Task.ID, a.Task.Attempt = strings.TrimSuffix(worker, "1")+string(rune('0'+n)), n
			a.Program.Checkpoints = true
			a.RestoreFrom = "s3://clary/jobs/digits/checkpoints/"
		})
	}
	b.run(attempt(1, "echo 7 > $SAGEMAKER_BASE_DIR/checkpoints/epoch; exit 1"))
	b.ended("digits/main/worker-0.1")
	b.run(attempt(2, `[ "$(cat $SAGEMAKER_BASE_DIR/checkpoints/epoch)" = 7 ]`))
	if status := b.ended("digits/main/worker-0.2"); status.State != cluster.TaskSucceeded {
		t.Errorf("the second attempt ended as %+v", status)
	}
}

func TestATaskTellsSinceWhenItsNewestCheckpointIsInTheStore(t *testing.T) {
	b := newBench(t, nil)
	before := time.Now().UnixNano()
	b.run(script("cd $SAGEMAKER_BASE_DIR/checkpoints; echo 1 > one; trap 'echo 2 > two; exit 0' TERM; sleep 60 & wait", func(a *ledger.Assignment) {
		a.Program.Checkpoints = true
	}))
	var first, last int64
	b.until("a checkpoint is in the store", func(held map[string]cluster.TaskStatus) bool {
		first = held[worker].Progress.Checkpoint
		return first > 0
	})
	if first < before || first > time.Now().UnixNano() {
		t.Errorf("it was written at %d; the task began after %d", first, before)
	}
	b.run(script("", func(a *ledger.Assignment) { a.Stop = true }))
	if last = b.ended(worker).Progress.Checkpoint; last <= first {
		t.Errorf("what it wrote when it was told to end does not count: %d after %d", last, first)
	}
}

func TestAJobGoesOnFromAnothersCheckpointsUntilItHasItsOwn(t *testing.T) {
	b := newBench(t, nil)
	job := func(name string, attempt int32, text string) ledger.Assignment {
		return script(text, func(a *ledger.Assignment) {
			a.Task.ID, a.Task.Job, a.Task.Attempt = fmt.Sprintf("%s/main/worker-0.%d", name, attempt), name, attempt
			if a.Program.Checkpoints = true; name != "first" {
				a.Program.Restore = cluster.CheckpointsOf("first")
			}
			if attempt > 1 {
				a.RestoreFrom = cluster.CheckpointsOf(name)
			}
		})
	}
	for _, c := range []struct {
		job     string
		attempt int32
		text    string
	}{
		{"first", 1, "echo 3 > epoch"},
		{"second", 1, `[ "$(cat epoch)" = 3 ] && rm epoch`}, // and fails before it has made one
		{"second", 2, `[ "$(cat epoch)" = 3 ] && echo 9 > epoch`},
		{"second", 3, `[ "$(cat epoch)" = 9 ]`},
	} {
		a := job(c.job, c.attempt, "cd $SAGEMAKER_BASE_DIR/checkpoints && "+c.text)
		b.run(a)
		if status := b.ended(a.Task.ID); status.State != cluster.TaskSucceeded {
			t.Errorf("%s ended as %+v", a.Task.ID, status)
		}
	}
}

func TestAnIDThatIsNoFolderIsRefused(t *testing.T) {
	b := newBench(t, nil)
	bad := script("true", func(a *ledger.Assignment) { a.Task.ID = "../x" })
	if err := b.agent.Desired(false, []ledger.Assignment{bad}, nil); !fault.Is(err, fault.Invalid) {
		t.Errorf("error %v", err)
	}
}

// From being told of a task to telling that it runs, with the ledger's syncs.
func BenchmarkDesiredToRunning(b *testing.B) {
	group := cgroup.OpenSelf("clary-bench-" + strconv.Itoa(os.Getpid()))
	defer group.Close() //nolint:errcheck // the benchmark is over
	a, err := openAgent(b.TempDir(), group, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer a.close() //nolint:errcheck // the benchmark is over
	until := func(what func([]supervisor.Held) bool) {
		for held, version := a.Held(); !what(held); held, version = a.Held() {
			<-a.Changed(version)
		}
	}
	var total time.Duration
	for range b.N {
		began := time.Now()
		if err := a.Desired(true, []ledger.Assignment{script("exec sleep 100")}, nil); err != nil {
			b.Fatal(err)
		}
		until(func(held []supervisor.Held) bool { return held[0].Status.State == cluster.TaskRunning })
		total += time.Since(began)
		if err := a.Desired(true, nil, nil); err != nil {
			b.Fatal(err)
		}
		until(func(held []supervisor.Held) bool { return len(held) == 0 })
	}
	b.ReportMetric(float64(total.Microseconds())/1000/float64(b.N), "ms/start")
}
