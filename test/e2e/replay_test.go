package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
)

// repeated is what `clary replay` says.
type repeated struct {
	Equal                     bool
	Segments, Placed, Evicted int
	Decisions                 int64
	Differs                   string
	Whys                      []struct{ Summary string }
}

// replay repeats a record, which has to be equal.
func (m *machines) replay(what string, args ...string) (r repeated) {
	m.T.Helper()
	out, err := m.Try(append([]string{"replay", "-o", "json"}, args...)...)
	if err != nil {
		m.T.Errorf("%s: %v: %s", what, err, out)
		return r
	}
	m.JSON(&r, append([]string{"replay", "-o", "json"}, args...)...)
	if !r.Equal || r.Decisions == 0 || r.Placed == 0 {
		m.T.Errorf("%s: %+v", what, r)
	}
	return r
}

// work has the scheduler decide on all kinds of things: cached inputs, GPUs and shares of them, an elastic gang that makes room,
// preemption, queues in another order, and gangs that find no room.
func (m *machines) work(round string) {
	m.T.Helper()
	run := func(name, queue string, flags ...string) {
		program := []string{"--", "sleep", "0.2"}
		if at := len(flags) - 1; flags[at] == "long" {
			flags, program = flags[:at], []string{"--", "sleep", "600"}
		}
		m.Clary(append(append([]string{"run", "-d", "--name", name + round, "--queue", queue, "--cores", "0.1"}, flags...), program...)...)
	}
	run("wide", "lab", "--checkpoints", "-n", "1..6", "--gpus", "1", "long")
	m.WaitFor("wide"+round+" to run", 30*time.Second, func() bool { return m.Job("wide"+round).State == "running" })
	for i := range 4 {
		run(fmt.Sprintf("reads-%d-", i), "own", "--input", "train=s3://data/set/")
		run(fmt.Sprintf("part-%d-", i), "lab", "--gpus", "0.25", "--constraint", "gpu.memory >= 1GiB")
	}
	run("urgent", "lab", "--priority", "10", "-n", "2", "--gpus", "2", "--spread", "node", "long")
	run("huge", "own", "-n", "2", "--gpus", "4", "long")
	m.WaitFor("urgent"+round+" to run", 30*time.Second, func() bool { return m.Job("urgent"+round).State == "running" })
	m.Clary("cancel", "urgent"+round)
	m.Waits(1, "urgent"+round)
	m.WaitFor("what is small to be done", 30*time.Second, func() bool {
		for i := range 4 {
			for _, name := range []string{"reads", "part"} {
				if m.Job(fmt.Sprintf("%s-%d-%s", name, i, round)).State != "succeeded" {
					return false
				}
			}
		}
		return true
	})
}

func TestWhatALeaderDecidedIsRepeatedBitForBitAlsoByTheNext(t *testing.T) {
	m := start(t, 3, 0)
	m.Agent("g1", "--simulate-gpus", "4xA100-40GB")
	m.Agent("g2", "--simulate-gpus", "4xT4")
	m.WaitFor("the agents", 30*time.Second, func() bool { return m.Ready() == 2 })
	m.queue("lab", func(q *cluster.Queue) {
		q.Order, q.HalfLife, q.MinRuntime = cluster.OrderShortest, time.Hour, time.Second
	})
	m.queue("own", func(q *cluster.Queue) { q.HalfLife = time.Minute })
	m.Clary("cp", m.File("rows", "1,2,3\n"), "s3://data/set/rows")
	first := m.Leader()
	m.work("1")
	saved := m.Path("record")
	all := m.replay("the leader", "--from-cluster", "--save", saved)
	if all.Evicted == 0 {
		t.Errorf("nobody made room: %+v", all)
	}
	if why := m.replay("why", saved, "--explain", "huge1"); len(why.Whys) != 1 || !strings.Contains(why.Whys[0].Summary, "GPUs") {
		t.Errorf("why huge1 waited: %+v", why.Whys)
	}

	next := "s1"
	if first == next {
		next = "s2"
	}
	m.Kill(first)
	m.Login(next)
	m.WaitFor("another leader", 30*time.Second, func() bool {
		out, err := m.Try("cluster", "-o", "json")
		return err == nil && strings.Contains(out, `"leader": "s`) && !strings.Contains(out, `"leader": "`+first+`"`)
	})
	m.Again(first) // what it served beside, such as the objects, is needed
	m.work("2")
	if all := m.replay("the next leader", "--from-cluster"); all.Evicted == 0 {
		t.Errorf("under the next leader nobody made room: %+v", all)
	}
	if why := m.replay("why", "--from-cluster", "--last", "--explain", "huge1"); len(why.Whys) != 1 {
		t.Errorf("of who waits since the leader before it says %+v", why.Whys)
	}
	if again := m.replay("the first leader's folder", m.Path(first+"/decisions")); again.Decisions < all.Decisions {
		t.Errorf("its own disk has %+v, it was asked when it had %+v", again, all)
	}
	long := []string{"wide1", "huge1", "wide2", "huge2"}
	m.Clary(append([]string{"cancel"}, long...)...)
	for _, name := range long {
		m.Waits(1, name)
	}
}
