package e2e

import (
	"strings"
	"testing"
	"time"
)

// resumes counts, keeps its count in its checkpoints, and saves once more when it is told to
// end, as its deadline says it may.
const resumes = `import os, signal, sys, time
at = "/opt/ml/checkpoints/count"
count = int(open(at).read()) if os.path.exists(at) else 0
print("begins at", count, flush=True)
def save():
    with open(at + ".tmp", "w") as f:
        f.write(str(count))
    os.rename(at + ".tmp", at)
def end(*_):
    global count
    left = os.path.exists(os.environ["CLARY_PREEMPT_AT"]) and open(os.environ["CLARY_PREEMPT_AT"]).read().strip()
    count += 1000
    save()
    print("saves until", left, flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
while True:
    count += 1
    save()
    time.sleep(0.2)
`

func TestADrainedNodesTasksGoOnElsewhere(t *testing.T) {
	m := start(t, 1, 2)
	m.Exits(0, "run", "--detach", "--name", "counts", "--checkpoints", "--grace", "20s", "--", "/usr/bin/python3", "-c", resumes)
	m.WaitFor("it to run", 30*time.Second, func() bool { out, _ := m.Try("logs", "counts"); return strings.Contains(out, "begins") })
	from := m.Job("counts").Tasks[0].Node

	// A cordon keeps new tasks away, and what runs goes on.
	m.Exits(0, "nodes", "cordon", from)
	if task := m.Job("counts").Tasks[0]; task.State != "running" {
		t.Errorf("it is %s", task.State)
	}
	m.Exits(0, "nodes", "drain", from, "--reason", "new disk")
	m.WaitFor("it to go on elsewhere", 30*time.Second, func() bool {
		view := m.Job("counts")
		last := view.Tasks[len(view.Tasks)-1]
		return view.Attempt == 2 && last.State == "running" && last.Node != from
	})
	view := m.Job("counts")
	if task := view.Tasks[0]; task.State != "stopped" || !strings.Contains(task.Reason, "node "+from+" is drained: new disk") {
		t.Errorf("where it was it is %s: %s", task.State, task.Reason)
	}
	if out := m.Exits(0, "logs", "counts", "--attempt", "1"); !strings.Contains(out, "saves until 2") {
		t.Errorf("it was not told its deadline: %s", out)
	}
	m.WaitFor("it to speak", 30*time.Second, func() bool { out, _ := m.Try("logs", "counts"); return strings.Contains(out, "begins") })
	if out := m.Exits(0, "logs", "counts"); !strings.Contains(out, "begins at 1") || len(strings.Fields(out)[2]) != 4 {
		t.Errorf("it did not go on from what it saved last: %s", out)
	}
	m.Exits(0, "nodes", "uncordon", from)
	m.Exits(0, "cancel", "counts")
	m.Waits(1, "counts")
}
