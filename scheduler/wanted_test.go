package scheduler_test

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler"
	"github.com/clary-ml/clary/scheduler/room"
)

func in(queue string, g cluster.Gang) cluster.Gang {
	return with(g, func(g *cluster.Gang) { g.Queue = queue })
}

// Two nodes that the tightest fit cannot tell apart: without knowing what is asked for, the first is taken.
func TestWhatIsAskedForIsLearned(t *testing.T) {
	nodes := []cluster.Node{machine("a", 16, 64, 4, "A100"), machine("b", 24, 64, 4, "A100")}
	cores := in("q", gang("j", 1, cluster.Ask{MilliCPU: 8000}))
	gpus := func(tasks int32, model string) cluster.Gang {
		return in("q", gang("gpus", tasks, cluster.Ask{MilliCPU: 4000, GPUs: 1, GPUModel: model}))
	}
	for _, test := range []struct {
		claim string
		first []cluster.Gang
		want  string
	}{
		{"nothing is known", nil, "a"},
		{"few tasks say nothing", []cluster.Gang{gpus(62, "")}, "a"},
		{"cores that GPUs need are kept", []cluster.Gang{gpus(64, "")}, "b"},
		{"who wants a model that no node has counts for nothing", []cluster.Gang{gpus(64, "H100")}, "a"},
		{"one of its models will do", []cluster.Gang{gpus(64, "H100,A100")}, "b"},
		{"without GPUs the tightest", []cluster.Gang{in("q", gang("cores", 64, cluster.Ask{MilliCPU: 4000}))}, "a"},
		{"what is asked for later counts", []cluster.Gang{gpus(64, ""), in("q", gang("cores", 5000, cluster.Ask{MilliCPU: 64000}))}, "a"},
	} {
		s := newStage(t, nodes)
		for _, g := range test.first {
			s.submit(g, time.Hour)
			s.step()
		}
		s.submit(cores, time.Hour)
		s.step()
		if placed := s.gangs[cores.ID()].placed; len(placed) != 1 || placed[0].Node != test.want {
			t.Errorf("%s: placed %v, want on %s", test.claim, placed, test.want)
		}
	}
}

func TestAPolicyThatIsGivenStays(t *testing.T) {
	c := scheduler.New(scheduler.Options{Policy: loosest{}})
	for _, n := range []cluster.Node{machine("a", 16, 64, 4, "A100"), machine("b", 32, 64, 4, "A100")} {
		c.SetNode(n, cluster.Resources{})
	}
	c.Wait(scheduler.NewAsk(in("q", gang("many", 100, cluster.Ask{GPUs: 1}))))
	c.Wait(scheduler.NewAsk(in("q", gang("j", 1, cluster.Ask{MilliCPU: 1000}))))
	plan := c.Plan(1)
	if len(plan.Placements) != 1 || plan.Placements[0].Allocations[0].Node != "b" {
		t.Errorf("placed %v, want on b", plan.Placements)
	}
}

// loosest prefers the node with most cores free.
type loosest struct{ room.Tightest }

func (loosest) Score(n *room.State, _ []room.Device, _ *room.Request) int32 { return n.Milli }

// The kinds of a mix lie in a map: whatever order they come out in, the plans are the same.
func TestClustersThatLearnPlanTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var clusters [2]*scheduler.Cluster
		for i := range clusters {
			clusters[i] = scheduler.New(scheduler.Options{})
			for n := range 12 {
				clusters[i].SetNode(machine(fmt.Sprintf("n%02d", n), int64(16+8*(n%4)), 64, n%5, []string{"A100", "T4"}[n%2]), cluster.Resources{})
			}
		}
		placed := 0
		for i := range 40 {
			ask := cluster.Ask{MilliCPU: rapid.Int64Range(0, 8).Draw(t, "cores") * 1000, Memory: rapid.Int64Range(0, 16).Draw(t, "memory") << 30}
			if ask.GPUMilli = rapid.SampledFrom([]int32{0, 160, 470, 810}).Draw(t, "share"); ask.GPUMilli == 0 {
				ask.GPUs = rapid.Int32Range(0, 2).Draw(t, "gpus")
			}
			g := in("q", gang(fmt.Sprintf("j%02d", i), rapid.Int32Range(1, 6).Draw(t, "tasks"), ask))
			var plans [2]cluster.Plan
			for k, c := range clusters {
				c.Wait(scheduler.NewAsk(g))
				plans[k] = c.Plan(int64(i + 1))
			}
			if fmt.Sprint(plans[0]) != fmt.Sprint(plans[1]) {
				t.Fatalf("one plans %v, another %v", plans[0], plans[1])
			}
			placed += len(plans[0].Placements)
		}
		if placed == 0 {
			t.Fatal("nothing was placed")
		}
	})
}
