package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/test/testbed"
)

// goesOn counts to its first argument, four in a second. It keeps its count in its checkpoints, with each
// step or only when it is told to end, as its second says; its third is how long it then takes.
const goesOn = `import os, signal, sys, time
at = "/opt/ml/checkpoints/count"
count = int(open(at).read()) if os.path.exists(at) else 0
print("begins at", count, flush=True)
def save():
    with open(at + ".tmp", "w") as f:
        f.write(str(count))
    os.rename(at + ".tmp", at)
def end(*_):
    time.sleep(float(sys.argv[3]))
    save()
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
while count < int(sys.argv[1]):
    count += 1
    if sys.argv[2] == "each":
        save()
    print("at", count, flush=True)
    time.sleep(0.25)
print("ends at", count, flush=True)
`

// lab is a queue whose jobs are left alone for no longer than two seconds.
func (m *machines) lab() {
	m.queue("lab", func(q *cluster.Queue) { q.MinRuntime = 2 * time.Second })
}

// counts runs goesOn on two cores, and waits until it has begun.
func (m *machines) counts(name, to, when, end string) {
	m.T.Helper()
	m.Exits(0, "run", "--detach", "--name", name, "--queue", "lab", "--cores", "2", "--checkpoints", "--grace", "30s", "--",
		"/usr/bin/python3", "-c", goesOn, to, when, end)
	m.WaitFor(name+" to begin", 30*time.Second, func() bool { out, _ := m.Try("logs", name); return strings.Contains(out, "begins") })
}

// reaches waits until a job that keeps no checkpoints has so much to lose: four in a second.
func (m *machines) reaches(name string, count int) {
	m.T.Helper()
	m.WaitFor(fmt.Sprintf("%s to have come to %d", name, count), time.Minute, func() bool {
		return strings.Contains(m.Exits(0, "logs", name), fmt.Sprintf("at %d\n", count))
	})
}

// keeps waits until a job's checkpoint is in the store.
func (m *machines) keeps(name string) {
	m.T.Helper()
	m.WaitFor("a checkpoint of "+name, 30*time.Second, func() bool {
		job := m.Job(name)
		return slices.ContainsFunc(job.Tasks, func(task testbed.Task) bool { return task.Attempt == job.Attempt && task.Checkpoint != "" })
	})
}

// wentOn checks that a job has made room once, gone on from where it was, and lost no retry.
func (m *machines) wentOn(name, to string) {
	m.T.Helper()
	m.Exits(0, "wait", name, "--timeout", "2m")
	job := m.Job(name)
	if job.Preempted != 1 || job.Attempt != 2 || job.Failures != 0 {
		m.T.Errorf("%s was preempted %d times, and is at attempt %d with %d failures", name, job.Preempted, job.Attempt, job.Failures)
	}
	if out := m.Exits(0, "logs", name, "--attempt", "2"); strings.Contains(out, "begins at 0\n") || !strings.Contains(out, "ends at "+to) {
		m.T.Errorf("%s did not go on from its checkpoint: %s", name, out)
	}
}

func TestAnUrgentGangGetsTheRoomOfThoseWhoLoseLeastAndTheyGoOn(t *testing.T) {
	m := start(t, 1, 2)
	m.lab()
	for _, name := range []string{"dear-1", "dear-2"} {
		m.counts(name, "160", "never", "0")
	}
	for _, name := range []string{"cheap-1", "cheap-2"} {
		m.counts(name, "160", "each", "0")
		m.keeps(name)
	}
	for _, name := range []string{"dear-1", "dear-2"} {
		m.reaches(name, 40)
	}
	m.Exits(0, "run", "--name", "urgent", "--queue", "lab", "--priority", "10", "-n", "2", "--cores", "2", "--", "sleep", "2")
	urgent := m.Job("urgent")
	if urgent.State != "succeeded" || urgent.Attempt != 1 {
		t.Errorf("the urgent one has %s, at attempt %d", urgent.State, urgent.Attempt)
	}
	for _, name := range []string{"cheap-1", "cheap-2"} {
		if reason := m.Job(name).Tasks[0].Reason; !strings.Contains(reason, "preempted by urgent/main") {
			t.Errorf("%s ended its first attempt since %q", name, reason)
		}
		m.wentOn(name, "160")
	}
	for _, name := range []string{"dear-1", "dear-2"} {
		m.Exits(0, "wait", name, "--timeout", "2m")
		if job := m.Job(name); job.Preempted != 0 || job.Attempt != 1 {
			t.Errorf("%s, which had more to lose, was preempted: %s", name, job.Tasks[0].Reason)
		}
	}
}

func TestALeaderThatDiesBetweenEvictionAndPlacementLosesNothing(t *testing.T) {
	m := start(t, 3, 1)
	m.lab()
	m.counts("dear", "200", "never", "0")
	m.counts("cheap", "120", "each", "8") // and takes its time to end
	m.keeps("cheap")
	m.reaches("dear", 32)
	m.Exits(0, "run", "--detach", "--name", "urgent", "--queue", "lab", "--priority", "10", "--cores", "2", "--", "true")
	m.WaitFor("the cheap one to be told to make room", 20*time.Second, func() bool {
		return strings.Contains(m.Job("cheap").Reason, "preempted by urgent/main")
	})
	leader := m.Leader()
	m.Kill(leader)
	next := "s1"
	if leader == next {
		next = "s2"
	}
	m.Login(next)
	m.WaitFor("another leader", 30*time.Second, func() bool {
		out, err := m.Try("cluster", "-o", "json")
		return err == nil && strings.Contains(out, `"leader": "s`) && !strings.Contains(out, `"leader": "`+leader+`"`)
	})
	m.Again(leader) // what it served beside, such as the objects, is needed
	m.WaitFor("the urgent one to get its room", time.Minute, func() bool {
		out, err := m.Try("job", "urgent", "-o", "json")
		return err == nil && strings.Contains(out, `"state": "succeeded"`)
	})
	m.wentOn("cheap", "120")
	if job := m.Job("dear"); job.Preempted != 0 || job.Attempt != 1 {
		t.Errorf("the next leader had another make room too: %s", job.Reason)
	}
	m.Exits(0, "cancel", "dear")
	m.Waits(1, "dear")
}

func TestAnElasticTrainingShrinksForAnotherAndGrowsBack(t *testing.T) {
	m := start(t, 1, 2)
	m.lab()
	m.digits("wide", "--queue", "lab", "--workers", "1..4", "--cores", "2", "--epochs", "100000")
	workers := func() int {
		job, count := m.Job("wide"), 0
		for _, task := range job.Tasks {
			if task.Attempt == job.Attempt && task.Role == "worker" && task.State == "running" {
				count++
			}
		}
		return count
	}
	m.WaitFor("as many workers as there is room for", 30*time.Second, func() bool { return workers() == 3 })
	m.keeps("wide")
	before := m.Epoch("wide")
	m.Exits(0, "run", "--name", "urgent", "--queue", "lab", "--priority", "10", "--cores", "2", "--", "sleep", "3")
	shrunk := m.Job("wide")
	if shrunk.Attempt < 2 || !strings.Contains(shrunk.Tasks[0].Reason, "shrinks to ") {
		t.Errorf("it is at attempt %d; its first ended since %q", shrunk.Attempt, shrunk.Tasks[0].Reason)
	}
	m.WaitFor("it to grow back", time.Minute, func() bool { return m.Job("wide").Attempt == 3 && workers() == 3 })
	for _, grown := range []struct{ attempt, said string }{{"2", "going on with 2 workers: there were 3"}, {"3", "going on with 3 workers: there were 2"}} {
		m.WaitFor("attempt "+grown.attempt+" to go on", 30*time.Second, func() bool {
			out, _ := m.Try("logs", "wide", "--attempt", grown.attempt)
			return strings.Contains(out, grown.said)
		})
	}
	m.WaitFor("it to get on", 30*time.Second, func() bool { return m.Epoch("wide") > before })
	if job := m.Job("wide"); job.Preempted != 1 || job.Failures != 0 {
		t.Errorf("it was preempted %d times and failed %d times", job.Preempted, job.Failures)
	}
	m.Exits(0, "cancel", "wide")
	m.Waits(1, "wide")
}

func TestNoJobMakesRoomWithinItsQueuesMinimumRuntime(t *testing.T) {
	m := start(t, 1, 1)
	const least = 12 * time.Second
	m.queue("calm", func(q *cluster.Queue) { q.MinRuntime = least })
	m.Exits(0, "run", "--detach", "--name", "young", "--queue", "calm", "--cores", "4", "--", "sleep", "600")
	m.WaitFor("it to run", 30*time.Second, func() bool { return m.Job("young").State == "running" })
	began := time.Now()
	m.Exits(0, "run", "--detach", "--name", "urgent", "--queue", "calm", "--priority", "10", "--cores", "4", "--", "true")
	m.Waits(0, "urgent")
	if waited := time.Since(began); waited < least-3*time.Second { // it was placed a moment before it was seen to run
		t.Errorf("it had to make room after %s", waited)
	}
	if job := m.Job("young"); job.Preempted != 1 {
		t.Errorf("it was preempted %d times: %s", job.Preempted, fmt.Sprint(job.Reason))
	}
	m.Exits(0, "cancel", "young")
	m.Waits(1, "young")
}
