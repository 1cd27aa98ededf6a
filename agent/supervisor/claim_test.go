package supervisor_test

import (
	"testing"
	"time"

	"github.com/clary-ml/clary/agent/ledger"
	"github.com/clary-ml/clary/cluster"
)

func TestATaskWaitsForTheOneThatStillHasItsPortOrDevice(t *testing.T) {
	port := freePort(t)
	for what, has := range map[string]func(*ledger.Assignment){
		"a port of the plan's":    func(a *ledger.Assignment) { a.Task.Allocation.Resources.Ports = []int32{port} },
		"a port of the program's": func(a *ledger.Assignment) { a.Program.Port = port },
		"a port that is either's": func(a *ledger.Assignment) { portEither(a, port) },
		"a device":                func(a *ledger.Assignment) { a.Task.Allocation.Resources.Devices = []string{"GPU-1"} },
	} {
		t.Run(what, func(t *testing.T) { waitsItsTurn(t, has) })
	}
}

// portEither has the port by the plan for the first task, and by the program for all others.
func portEither(a *ledger.Assignment, port int32) {
	if a.Task.ID == "old/main/worker-0.1" {
		a.Task.Allocation.Resources.Ports = []int32{port}
	} else {
		a.Program.Port = port
	}
}

func waitsItsTurn(t *testing.T, has func(*ledger.Assignment)) {
	b := newBench(t, nil)
	taking := func(id, text string) ledger.Assignment {
		return script(text, func(a *ledger.Assignment) {
			a.Task.ID = id
			a.Program.Grace = 400 * time.Millisecond
			has(a)
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

// The port of a container with an address of its own is none of the node's: nobody waits for it.
func TestAPortBehindAnAddressOfItsOwnIsNotWaitedFor(t *testing.T) {
	b, port := newBench(t, nil), freePort(t)
	holder := script("while :; do sleep 0.05; done", func(a *ledger.Assignment) { a.Program.Port = port })
	b.run(holder)
	b.becomes(holder.Task.ID, cluster.TaskRunning)
	own := script("true", func(a *ledger.Assignment) {
		a.Task.ID, a.Program.Port, a.Program.Network = "own/main/worker-0.1", port, cluster.NetworkBridge
	})
	if err := b.agent.Desired(true, []ledger.Assignment{holder, own}, nil); err != nil {
		t.Fatal(err)
	}
	if status := b.ended(own.Task.ID); status.State != cluster.TaskSucceeded {
		t.Errorf("%+v", status)
	}
	b.becomes(holder.Task.ID, cluster.TaskRunning)
}
