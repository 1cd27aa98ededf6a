package decisions

import (
	"bytes"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler"
	"github.com/clary-ml/clary/scheduler/share"
)

func TestWhatAQueueUsedBeforeIsRepeated(t *testing.T) {
	now := int64(1000 * time.Hour)
	c := scheduler.New(scheduler.Options{})
	told := []Told{{Begin: &Begin{At: now}}}
	for _, one := range []Told{
		{Queues: &Queues{[]cluster.Queue{{Name: "a", Weight: 1, HalfLife: time.Hour}, {Name: "b", Weight: 1, HalfLife: time.Hour}}}},
		{Node: &Node{Node: cluster.Node{ID: "n", Address: "n", State: cluster.NodeReady, MilliCPU: 1000, Memory: 1 << 30, Revision: 1}}},
		{Waits: &Wait{Gang: one("a")}},
		{Waits: &Wait{Gang: one("b")}},
		{History: &History{"a", share.History{Mean: cluster.Amount{MilliCPU: 1000 << 20}, At: now}}},
	} {
		one.To(c)
		told = append(told, one)
	}
	plan := c.Plan(now)
	if len(plan.Placements) != 1 || plan.Placements[0].Gang != "job-b/main" {
		t.Fatalf("whose queue used less does not go first: %+v", plan)
	}
	told = append(told, Told{Decided: &Decided{Number: 1, Now: now, Plan: plan}})
	if out, err := Replay(bytes.NewReader(record(t, told)), Until{}); err != nil || out.Differs != "" || out.Decisions != 1 {
		t.Errorf("%+v, %v", out, err)
	}
}

// one is a gang of a task of one core.
func one(queue string) cluster.Gang {
	return cluster.Gang{
		Job: "job-" + queue, Name: "main", Queue: queue, Owner: "ann", Attempt: 1, Revision: 1, Submitted: 1,
		Roles: []cluster.Role{{Name: "worker", Count: 1, Ask: cluster.Ask{MilliCPU: 1000}}},
	}
}
