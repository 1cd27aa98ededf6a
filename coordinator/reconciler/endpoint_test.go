package reconciler_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/reconciler"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/workload/endpoint"
)

const served = `{"variants": [{"program": {"command": ["serve", "1"]}, "replicas": 2, "resources": {"cores": 0.1, "memory": "1MiB"}}], "limits": {"drain": "5s"}}`

func (b *bench) deploy(name, spec string) {
	b.t.Helper()
	now := time.Now().UnixNano()
	job := cluster.Job{Name: name, Kind: cluster.KindEndpoint, Owner: "ann", Queue: "default", Spec: []byte(spec), State: cluster.JobQueued, Submitted: now}
	record, _ := reconciler.First(job, kinds[job.Kind], now)
	b.propose(record)
}

// agents have every node do what it is told, until nothing changes.
func (b *bench) agents(name string) []string {
	b.t.Helper()
	for range 100 {
		_, tasks := b.job(name)
		snapshot, err := b.ledger.Read(b.t.Context(), true)
		if err != nil {
			b.t.Fatal(err)
		}
		var names []string
		changed := false
		for _, task := range tasks {
			gang, _ := snapshot.Gang(task.Gang)
			status := cluster.TaskStatus{State: cluster.TaskRunning, Started: task.Status.Started, Healthy: 1}
			if status.Started == 0 {
				status.Started = time.Now().UnixNano()
			}
			if gang.Stop {
				status = cluster.TaskStatus{State: cluster.TaskStopped}
			}
			names = append(names, gang.Name+"@"+task.Allocation.Node)
			if task.Status.State != status.State || task.Status.Healthy == 0 {
				changed = true
				b.propose(command.ReportTasks{Node: task.Allocation.Node, Reports: []command.TaskReport{{Task: task.ID, Status: status}}})
			}
		}
		snapshot.Close()
		if !changed {
			return names
		}
	}
	b.t.Fatal("the agents do not come to rest")
	return nil
}

// ask changes an endpoint as its owner may.
func (b *bench) ask(name string, change func(cluster.Job, cluster.Endpoint) (cluster.Endpoint, error)) {
	b.t.Helper()
	synctest.Wait()
	snapshot, err := b.ledger.Read(b.t.Context(), true)
	if err != nil {
		b.t.Fatal(err)
	}
	defer snapshot.Close()
	job, _ := snapshot.Job(name)
	e, _ := snapshot.Endpoint(name)
	next, err := change(job, e)
	if err != nil {
		b.t.Fatal(err)
	}
	b.propose(command.Record{Changes: []command.Change{
		{Expect: job.Revision, Check: &command.Key{Kind: state.KindJob, ID: name}}, {Expect: e.Revision, Endpoint: &next},
	}})
}

// are holds what runs, by the names of gangs and nodes, against what should.
func (b *bench) are(got []string, want ...string) {
	b.t.Helper()
	if !slices.Equal(got, want) {
		b.t.Fatalf("there is %v, want %v", got, want)
	}
}

func TestAnEndpointLivesByTheLogsRules(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		b.deploy("churn", served)
		b.must("churn", cluster.JobQueued, "", 2)
		b.are(b.agents("churn"), "main-1-0@a", "main-1-1@a")
		b.must("churn", cluster.JobRunning, "", 2)

		b.report("churn", cluster.TaskFailed, 9)
		b.must("churn", cluster.JobRunning, "main-1-0 starts anew: server-0 failed on node a: exit code 9", 2)
		b.agents("churn")
		b.must("churn", cluster.JobRunning, "", 2)

		// The node is drained: replicas move before they stop.
		b.propose(command.PutNode{Node: cluster.Node{
			ID: "b", Address: "b", State: cluster.NodeReady, MilliCPU: 4000, Memory: 1 << 34, PortFirst: 7000, PortLast: 7099,
		}})
		b.propose(command.SetNodeState{Node: "a", State: cluster.NodeDraining})
		b.move("churn")
		b.must("churn", cluster.JobRunning, "", 4)
		b.are(b.agents("churn"), "main-1-0@a", "main-1-1@a", "main-1-2@b", "main-1-3@b") // they finish what they have
		time.Sleep(5 * time.Second)
		b.are(b.agents("churn"), "main-1-2@b", "main-1-3@b")

		s, problems := endpoint.Parse([]byte(strings.Replace(served, `"1"`, `"2"`, 1)))
		if problems != nil {
			t.Fatal(problems)
		}
		b.ask("churn", func(job cluster.Job, e cluster.Endpoint) (cluster.Endpoint, error) {
			return endpoint.Update(job, e, s, nil, endpoint.Options{}, endpoint.Asked{By: "ann", Now: time.Now().UnixNano()})
		})
		b.are(b.agents("churn"), "main-1-2@b", "main-1-3@b", "main-2-0@b", "main-2-1@b")
		time.Sleep(time.Minute + 5*time.Second)
		b.are(b.agents("churn"), "main-2-0@b", "main-2-1@b")
		b.ask("churn", func(job cluster.Job, e cluster.Endpoint) (cluster.Endpoint, error) {
			return endpoint.SetReplicas(job, e, "main", 3, endpoint.Asked{By: "ann", Now: time.Now().UnixNano()})
		})
		b.are(b.agents("churn"), "main-2-0@b", "main-2-1@b", "main-2-2@b")

		b.cancel("churn")
		b.must("churn", cluster.JobStopping, "cancelled", 3)
		time.Sleep(5 * time.Second)
		b.agents("churn")
		b.must("churn", cluster.JobCancelled, "cancelled", 0)
		snapshot, err := b.ledger.Read(t.Context(), true)
		if err != nil {
			t.Fatal(err)
		}
		defer snapshot.Close()
		e, _ := snapshot.Endpoint("churn")
		for gang := range snapshot.GangsOf("churn") {
			t.Errorf("%s is left", gang.ID())
		}
		if len(e.Fleets) > 0 || e.Generation != 2 || e.Rollout != nil {
			t.Errorf("%+v", e)
		}
	})
}

// move asks all replicas on draining nodes to move, as whoever drains a node does.
func (b *bench) move(name string) {
	b.t.Helper()
	snapshot, err := b.ledger.Read(b.t.Context(), true)
	if err != nil {
		b.t.Fatal(err)
	}
	defer snapshot.Close()
	var changes []command.Change
	for gang := range snapshot.GangsOf(name) {
		if !gang.Handover {
			b.t.Fatalf("%s would be stopped", gang.ID())
		}
		gang.Moves, gang.StopReason = true, fmt.Sprintf("%s moves", gang.Name)
		changes = append(changes, command.Change{Expect: gang.Revision, Gang: &gang})
	}
	b.propose(command.Record{Changes: changes})
}
