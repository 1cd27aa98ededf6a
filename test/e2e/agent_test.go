package e2e

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// digits submits a training that is long enough to be disturbed.
func (m *machines) digits(name string, extra ...string) {
	m.T.Helper()
	m.Clary(append([]string{
		"train", "-f", "../../examples/digits/digits.yaml", "--name", name, "--detach", "--workers", "2", "--servers", "1",
	}, extra...)...)
}

// taskPids are the processes of a job's tasks, without the shims above them.
func (m *machines) taskPids(job string) []int {
	return m.PIDs("CLARY_JOB=" + job + "\x00")
}

func TestATrainingGoesOnWhileItsAgentIsKilledAndStartedAgain(t *testing.T) {
	m := start(t, 1, 1)
	m.digits("steady", "--epochs", "200")
	m.WaitFor("the third epoch", time.Minute, func() bool { return m.Epoch("steady") >= 3 })
	before := m.taskPids("steady")
	if len(before) != 3 {
		t.Errorf("%d processes for three tasks", len(before))
	}
	m.Kill("n1")
	if during := m.taskPids("steady"); !slices.Equal(before, during) {
		t.Errorf("without the agent: pids %v, before %v", during, before)
	}
	m.Again("n1")
	at := m.Epoch("steady")
	m.WaitFor("progress told by the new agent", 30*time.Second, func() bool { return m.Epoch("steady") > at+1 })
	if after := m.taskPids("steady"); !slices.Equal(before, after) && m.Job("steady").State == "running" {
		t.Errorf("with the new agent: pids %v, before %v", after, before)
	}
	m.Waits(0, "steady")
	if view := m.Job("steady"); view.State != "succeeded" || view.Attempt != 1 || len(view.Outputs) == 0 {
		t.Errorf("it ended as %+v", view)
	}
}

func TestAnExitCodeIsNotLostWhileTheAgentIsDown(t *testing.T) {
	m := start(t, 1, 1)
	m.Clary("run", "--detach", "--name", "seven", "--", "sh", "-c", "sleep 1; echo bye; exit 7")
	m.WaitFor("the program", 20*time.Second, func() bool { return len(m.taskPids("seven")) > 0 })
	m.Kill("n1")
	m.WaitFor("the program's end", 20*time.Second, func() bool { return len(m.taskPids("seven")) == 0 })
	m.Again("n1")
	m.Waits(7, "seven")
	view := m.Job("seven")
	if view.State != "failed" || view.Attempt != 1 || len(view.Tasks) != 1 || view.Tasks[0].ExitCode == nil || *view.Tasks[0].ExitCode != 7 {
		t.Errorf("it ended as %+v", view)
	}
	if !strings.Contains(view.Reason, "exit code 7") {
		t.Errorf("reason %q", view.Reason)
	}
	if out := m.Clary("logs", "seven"); out != "bye\n" {
		t.Errorf("logs %q", out)
	}
}

func TestACommandExitsAsItsJobDid(t *testing.T) {
	m := start(t, 1, 1)
	if out := m.Exits(0, "run", "--", "echo", "hello"); out != "hello\n" {
		t.Errorf("said %q", out)
	}
	for _, code := range []int{1, 3, 255} {
		m.Exits(code, "run", "--name", fmt.Sprintf("ends-%d", code), "--", "sh", "-c", fmt.Sprintf("exit %d", code))
		m.Waits(code, fmt.Sprintf("ends-%d", code))
	}
	m.Exits(137, "run", "--name", "killed", "--", "sh", "-c", "kill -9 $$")
	m.Exits(1, "run", "--name", "missing", "--", "/no/such/program")
	m.Exits(2, "run")
	m.Clary("run", "--detach", "--name", "long", "--", "sleep", "60")
	m.Exits(124, "wait", "long", "--timeout", "300ms")
	m.Clary("cancel", "long")
	m.Waits(1, "long")
}

var resumption = regexp.MustCompile(`going on from the checkpoint of epoch (\d+)`)

func TestAGangWhoseNodeDiesGoesOnElsewhereFromItsCheckpoint(t *testing.T) {
	m := start(t, 1, 2)
	m.Clary("train", "--data", "../../examples/digits/train.csv.gz", "--scale", "16", "--network", "1024,512", "--epochs", "12", "--seed", "42",
		"--workers", "2", "--name", "moved", "--detach")
	m.WaitFor("the third epoch, and a checkpoint in the object store", time.Minute, func() bool {
		kept, err := m.Try("ls", "-r", "s3://clary/jobs/moved/checkpoints/", "-o", "json")
		return m.Epoch("moved") >= 3 && err == nil && strings.Contains(kept, "worker-0")
	})
	lost := m.Job("moved").Tasks[0].Node
	m.Cut(lost)
	m.Waits(0, "moved")
	view := m.Job("moved")
	if view.State != "succeeded" || view.Attempt != 2 || len(view.Outputs) == 0 {
		t.Errorf("it ended as %+v", view)
	}
	for _, task := range view.Tasks {
		if task.Attempt == 2 && task.Node == lost {
			t.Errorf("%s ran on the lost node", task.ID)
		}
	}
	log := m.Clary("logs", "moved", "worker-0")
	found := resumption.FindStringSubmatch(log)
	if found == nil {
		t.Fatalf("nothing was resumed:\n%s", log[:min(len(log), 2000)])
	}
	if epoch, _ := strconv.Atoi(found[1]); epoch < 1 {
		t.Errorf("resumed at epoch %d", epoch)
	}
	t.Log(found[0])
	test := "../../examples/digits/test.csv.gz"
	if out := m.Clary("evaluate", "moved", test, "--against", "moved", "--fail-under", "accuracy=0.8,loss=1"); !strings.Contains(out, "moved has +0.00 % accuracy") {
		t.Errorf("a model against itself:\n%s", out)
	}
	m.refuses(nil, []string{"evaluate", "moved", test, "--fail-under", "auc=1.1"}, "auc is ", "under 1.1")
	m.Again(lost) // it is taken back, and what it had is cleaned up
	m.WaitFor("the node's return", 30*time.Second, func() bool { return m.Ready() == 2 })
}
