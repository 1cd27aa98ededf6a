package supervisor_test

import (
	"testing"
	"time"

	"github.com/clary-ml/clary/agent/ledger"
	"github.com/clary-ml/clary/cluster"
)

func TestATaskWaitsForTheOneThatStillHasItsPortAndDevice(t *testing.T) {
	b := newBench(t, nil)
	port := freePort(t)
	taking := func(id, text string) ledger.Assignment {
		return script(text, func(a *ledger.Assignment) {
			a.Task.ID = id
			a.Program.Grace = 400 * time.Millisecond
			a.Task.Allocation.Resources.Ports = []int32{port}
			a.Task.Allocation.Resources.Devices = []string{"GPU-1"}
		})
	}
	stubborn := taking("old/main/worker-0.1", "trap '' TERM; while :; do sleep 0.05; done")
	b.run(stubborn)
	b.becomes(stubborn.Task.ID, cluster.TaskRunning)
	// The cluster has written the old task off and given its place away.
	stubborn.Stop = true
	next := taking("new/main/worker-0.1", "true")
	if err := b.agent.Desired(true, []ledger.Assignment{next, stubborn}, nil); err != nil {
		t.Fatal(err)
	}
	old, fresh := b.ended(stubborn.Task.ID), b.ended(next.Task.ID)
	if fresh.State != cluster.TaskSucceeded || fresh.Started < old.Ended {
		t.Errorf("the new one %+v, the old one %+v", fresh, old)
	}
	// And one that is stopped while it waits never starts.
	again := taking("again/main/worker-0.1", "trap '' TERM; while :; do sleep 0.05; done")
	b.run(again)
	b.becomes(again.Task.ID, cluster.TaskRunning)
	waiting := taking("waiting/main/worker-0.1", "true")
	b.run(waiting)
	waiting.Stop = true
	b.run(waiting)
	if status := b.ended(waiting.Task.ID); status.State != cluster.TaskStopped || status.Started != 0 {
		t.Errorf("stopped while it waited: %+v", status)
	}
}
