package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// fails expects a job to end as failed for a reason.
func (m *machines) fails(name, reason string) {
	m.T.Helper()
	view := m.Job(name)
	told := view.Reason
	for _, task := range view.Tasks {
		told += "\n" + task.Reason
	}
	if view.State != "failed" || !strings.Contains(told, reason) {
		m.T.Errorf("%s is %s: %q does not say %q", name, view.State, told, reason)
	}
}

func TestLimitsEndTasksByName(t *testing.T) {
	m := start(t, 1, 1)
	m.Exits(137, "run", "--name", "hog", "--memory", "64MiB", "--", "python3", "-c", "x = bytearray(400 << 20)\nfor i in range(0, len(x), 4096): x[i] = 1")
	m.fails("hog", "out of memory (limit 64 MiB)")
	m.refuses(nil, []string{"run", "--name", "slow", "--max-runtime", "1s", "--", "sleep", "60"}, "ran longer than its maximum run time")
	m.fails("slow", "ran longer than its maximum run time")

	began := time.Now()
	m.Clary("submit", "-f", m.File("stubborn.json", `{"name":"stubborn","spec":{"grace":"1s","program":{"command":["sh","-c","trap '' TERM; while :; do sleep 0.1; done"]}}}`))
	m.WaitFor("the stubborn program", 20*time.Second, func() bool { return len(m.taskPids("stubborn")) > 0 })
	m.Clary("cancel", "stubborn", "--reason", "enough")
	m.Waits(1, "stubborn")
	if view := m.Job("stubborn"); view.State != "cancelled" {
		t.Errorf("it is %s: %s", view.State, view.Reason)
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("it took %s", took)
	}
	if left := m.taskPids("stubborn"); len(left) > 0 {
		t.Errorf("%v still run", left)
	}
}

func TestAJobThatCannotRunIsRefusedAndOneThatWaitsSaysWhy(t *testing.T) {
	m := start(t, 1, 1) // of 4 cores
	m.refuses(nil, []string{"run", "--name", "huge", "--cores", "64", "--", "true"}, "could never run", "core")
	m.refuses(nil, []string{"run", "--name", "fast", "--gpus", "1", "--", "true"}, "could never run", "GPU")
	m.refuses(nil, []string{"job", "huge"}, "there is no job")

	m.Clary("run", "-d", "--name", "filler", "--cores", "3", "--", "sleep", "60")
	m.WaitFor("the filler", 20*time.Second, func() bool { return m.Job("filler").State == "running" })
	m.Clary("run", "-d", "--name", "waiter", "--cores", "2", "--", "true")
	var whys []struct {
		Summary string
		Blocks  []struct {
			Constraint, Nearest, Text string
			Missing                   int64
		}
	}
	m.WaitFor("a why", 20*time.Second, func() bool {
		m.JSON(&whys, "why", "waiter", "-o", "json")
		return len(whys) == 1 && len(whys[0].Blocks) > 0
	})
	block := whys[0].Blocks[0]
	if !strings.Contains(block.Constraint, "cores") || block.Missing == 0 || block.Nearest != "n1" {
		t.Errorf("why: %+v", whys)
	}
	t.Log(whys[0].Summary)
	m.Clary("cancel", "filler")
	m.Waits(0, "waiter")
}

func TestTheQueueGoesByPriority(t *testing.T) {
	m := start(t, 1, 1)
	m.Clary("run", "-d", "--name", "first", "--cores", "4", "--", "sleep", "60")
	m.WaitFor("the first job", 20*time.Second, func() bool { return m.Job("first").State == "running" })
	for name, priority := range map[string]string{"low": "-5", "middle": "0", "high": "7"} {
		m.Clary("run", "-d", "--name", name, "--cores", "4", "--priority", priority, "--", "sleep", "0.2")
	}
	m.Clary("cancel", "first")
	started := map[string]string{}
	for _, name := range []string{"high", "middle", "low"} {
		m.Waits(0, name)
		started[name] = m.Job(name).Started
	}
	order := []string{"low", "middle", "high"}
	slices.SortFunc(order, func(a, b string) int { return strings.Compare(started[a], started[b]) })
	if !slices.Equal(order, []string{"high", "middle", "low"}) {
		t.Errorf("they ran as %v: %v", order, started)
	}
}
