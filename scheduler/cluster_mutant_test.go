package scheduler_test

import (
	"slices"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler"
	"pgregory.net/rapid"
)

// The mutants: each is a Cluster with one thing broken, and a law that must notice.

// halves places all of a gang but its last task.
type halves struct{ *scheduler.Cluster }

func (m halves) Plan(now int64) cluster.Plan {
	plan := m.Cluster.Plan(now)
	for i, p := range plan.Placements {
		if n := len(p.Allocations); n > 1 {
			plan.Placements[i].Allocations = p.Allocations[:n-1]
		}
	}
	return plan
}

// sells gives everybody the first device of the node.
type sells struct{ *scheduler.Cluster }

func (m sells) Plan(now int64) cluster.Plan {
	plan := m.Cluster.Plan(now)
	for _, p := range plan.Placements {
		for i := range p.Allocations {
			p.Allocations[i].Resources.Devices = []string{p.Allocations[i].Node + "-0"}
		}
	}
	return plan
}

// spends knows of no limits.
type spends struct{ *scheduler.Cluster }

func (m spends) SetQueues(queues []cluster.Queue) error {
	queues = slices.Clone(queues)
	for i := range queues {
		queues[i].Borrow, queues[i].MaxRunning = nil, 0
	}
	return m.Cluster.SetQueues(queues)
}

// forgets every second gang that comes.
type forgets struct {
	*scheduler.Cluster
	came int
}

func (m *forgets) Wait(ask scheduler.Ask) {
	if m.came++; m.came%2 == 1 {
		m.Cluster.Wait(ask)
	}
}

// hurries stops what began a moment ago.
type hurries struct{ *scheduler.Cluster }

func (m hurries) Run(r scheduler.Running) {
	r.Started -= int64(time.Hour)
	m.Cluster.Run(r)
}

// moody places the last first, every third time.
type moody struct {
	*scheduler.Cluster
	plans int
}

func (m *moody) Plan(now int64) cluster.Plan {
	plan := m.Cluster.Plan(now)
	if m.plans++; m.plans%3 == 0 {
		slices.Reverse(plan.Placements)
	}
	return plan
}

// grudge has who was evicted come back with a higher priority.
type grudge struct{ *scheduler.Cluster }

func (m grudge) Wait(ask scheduler.Ask) {
	ask.Priority += 10 * ask.Attempt
	m.Cluster.Wait(ask)
}

func (m grudge) Run(r scheduler.Running) {
	r.Priority += 10 * r.Attempt
	m.Cluster.Run(r)
}

func TestTheLawsCatchWhoBreaksThem(t *testing.T) {
	plain := func() *scheduler.Cluster { return scheduler.New(scheduler.Options{}) }
	soundness := func(mutant func(*scheduler.Cluster) planner) func(script) error {
		return func(s script) error {
			c := plain()
			return sound(s, mutant(c), c, map[string]int{})
		}
	}
	scripts, floods, sieges := rapid.Custom(drawScript), rapid.Custom(drawFlood), rapid.Custom(drawSiege)
	for name, law := range map[string]func(script) error{
		"half a gang":         soundness(func(c *scheduler.Cluster) planner { return halves{c} }),
		"a device sold twice": soundness(func(c *scheduler.Cluster) planner { return sells{c} }),
		"a quota broken":      soundness(func(c *scheduler.Cluster) planner { return spends{c} }),
		"work not conserved":  soundness(func(c *scheduler.Cluster) planner { return &forgets{Cluster: c} }),
		"no time to work":     soundness(func(c *scheduler.Cluster) planner { return hurries{c} }),
		"moods": func(s script) error {
			return same(s, &moody{Cluster: plain()}, plain(), map[string]int{})
		},
		"circles": func(s script) error { return settles(endless(s), grudge{plain()}, map[string]int{}) },
	} {
		if !caught(func(seed int) error { return law(scripts.Example(seed)) }) {
			t.Errorf("%s: nobody notices", name)
		}
	}
	if !caught(func(seed int) error {
		return floods.Example(seed).starves(scheduler.New(scheduler.Options{Patience: 1e6 * time.Hour}), map[string]int{})
	}) {
		t.Error("starvation: nobody notices")
	}
	if !caught(func(seed int) error {
		return sieges.Example(seed).endures(scheduler.New(scheduler.Options{Patience: 1e6 * time.Hour}), map[string]int{})
	}) {
		t.Error("starvation beside what never ends: nobody notices")
	}
}

func caught(law func(seed int) error) bool {
	for seed := range 1000 {
		if law(seed) != nil {
			return true
		}
	}
	return false
}
