package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// series is one of `clary metrics -o json`.
type series struct {
	Task, Name string
	Attempt    int32
	Count      int64
	Min, Max   float64
	Last       float64
	Points     []struct {
		Epoch int32
		Step  int64
		Value float64
	}
}

func (m *machines) metrics(args ...string) map[string]series {
	m.T.Helper()
	var list []series
	out := m.Clary(append([]string{"metrics", "-o", "json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		m.T.Fatalf("%v: %s", err, out)
	}
	found := map[string]series{}
	for _, s := range list {
		found[s.Task+" "+s.Name] = s
	}
	return found
}

func TestMetricsAreKeptThroughKillsAndAfterTheirNodeIsGone(t *testing.T) {
	m := start(t, 1, 1)
	script := `for i in $(seq 1 30); do echo "step=$i told=$i" >> $CLARY_METRICS; echo "batch $i: loss 0.$i"; sleep 0.1; done`
	m.Clary("run", "-d", "--name", "curves", "--metric", `loss=loss (\S+)`, "--metric", `step=batch (\d+)`, "--", "sh", "-c", script)
	m.WaitFor("some metrics", 20*time.Second, func() bool { return m.metrics("curves")["worker-0 told"].Count > 3 })
	m.Kill("n1")
	m.Again("n1")
	m.Waits(0, "curves")
	check := func(where string) {
		t.Helper()
		found := m.metrics("curves")
		for _, name := range []string{"worker-0 told", "worker-0 loss"} {
			s := found[name]
			if s.Count != 30 || len(s.Points) != 30 {
				t.Errorf("%s: %s has %d points", where, name, s.Count)
				continue
			}
			for i, p := range s.Points {
				if p.Step != int64(i+1) || name == "worker-0 told" && p.Value != float64(i+1) {
					t.Errorf("%s: point %d of %s is %+v", where, i, name, p)
				}
			}
		}
		used := m.metrics("curves", "--usage")
		if s := used["worker-0 usage/cpu_seconds"]; s.Count != 1 || s.Last <= 0 || s.Last > 60 {
			t.Errorf("%s: CPU time is %+v", where, s)
		}
		if s := used["worker-0 usage/cores"]; s.Count == 0 || s.Max > 8 {
			t.Errorf("%s: cores are %+v", where, s)
		}
	}
	check("after the agent was killed")
	m.WaitFor("the metrics to be in the store", 30*time.Second, func() bool {
		kept, err := m.Try("ls", "-r", "s3://clary/jobs/curves/attempts/1/worker-0/metrics/")
		return err == nil && strings.Contains(kept, "complete")
	})
	m.Kill("n1")
	check("without the node")
	m.Again("n1")
	if out := m.Clary("metrics", "curves", "told", "--plot"); !strings.Contains(out, "told over step: worker-0 30 (1 to 30)") || !strings.Contains(out, "┤") {
		t.Errorf("drawn as\n%s", out)
	}
	m.refuses(nil, []string{"metrics", "curves", "["}, `names: "[" is no pattern`)
	m.Clary("delete", "curves")
	m.refuses(nil, []string{"metrics", "curves"}, "there is no job")
	if kept, _ := m.Try("ls", "-r", "s3://clary/jobs/curves/"); strings.Contains(kept, "metrics") {
		t.Errorf("the deleted job left %s", kept)
	}
}

func TestANetworksMetricsGoOnFromTheCheckpointOfALostNode(t *testing.T) {
	m := start(t, 1, 2)
	m.Clary("train", "--data", "../../examples/digits/train.csv.gz", "--scale", "16", "--network", "1024,512", "--epochs", "20", "--seed", "42", "--name", "moved", "--detach")
	m.WaitFor("the second epoch, and a checkpoint in the object store", time.Minute, func() bool {
		kept, err := m.Try("ls", "-r", "s3://clary/jobs/moved/checkpoints/", "-o", "json")
		return m.Epoch("moved") >= 2 && err == nil && strings.Contains(kept, "worker-0")
	})
	lost := m.Job("moved").Tasks[0].Node
	m.Cut(lost)
	m.Waits(0, "moved")
	all, last := m.metrics("moved", "train_loss")["worker-0 train_loss"], m.metrics("moved", "train_loss", "--attempt", "2")["worker-0 train_loss"]
	if last.Attempt != 2 || last.Count == 0 || all.Count < last.Count {
		t.Fatalf("the second attempt has %d points, both have %d", last.Count, all.Count)
	}
	before := int64(0)
	for _, p := range all.Points {
		if p.Step <= before {
			t.Errorf("step %d comes after step %d", p.Step, before)
		}
		before = p.Step
	}
	t.Logf("%d points, of them %d of the second attempt", all.Count, last.Count)
	m.Again(lost) // it is taken back, and what it had is cleaned up
	m.WaitFor("the node's return", 30*time.Second, func() bool { return m.Ready() == 2 })
}
