package rpc

import (
	"cmp"
	"slices"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/state"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
)

// Traffic is what this coordinator knows of routers. What they have seen it knows on the leader only.
type Traffic interface {
	// Routers are all that gossip tells of.
	Routers() []Router
	// Seen is what passed through them on its way to an endpoint.
	Seen(endpoint string) Seen
}

// Router is where requests for answers go.
type Router struct {
	ID      string // of its node
	URL     string
	Ingress bool // on an agent
}

// Seen is what all routers together have seen of an endpoint lately.
type Seen struct {
	Known    bool // all have told of it
	Fleets   []FleetSeen
	Replicas map[string]ReplicaSeen // by task
}

// FleetSeen is what passed through routers to a fleet: rates are a second, over Window.
type FleetSeen struct {
	Variant                   string
	Generation                int64
	Window                    time.Duration
	Requests, Errors, Refused float64
	Concurrency               float64 // mean
	InFlight, Waiting         int64   // now
	P50, P99                  time.Duration
	Total, TotalErrors        int64
	Rewards                   int64
	Reward                    float64    // mean
	Shadow                    *FleetSeen // of mirrored requests
}

// ReplicaSeen is a replica as routers see it now.
type ReplicaSeen struct {
	InFlight int64
	Ejected  bool
	Why      string
}

// noTraffic is where there are no routers.
type noTraffic struct{}

func (noTraffic) Routers() []Router { return nil }
func (noTraffic) Seen(string) Seen  { return Seen{} }

func figures(seen Seen) []*claryv1.FleetFigures {
	var all []*claryv1.FleetFigures
	for _, fleet := range seen.Fleets {
		all = append(all, fleetFigures(fleet))
	}
	return all
}

func fleetFigures(f FleetSeen) *claryv1.FleetFigures {
	answer := &claryv1.FleetFigures{
		Variant: f.Variant, Generation: f.Generation, Window: int64(f.Window), Requests: f.Requests, Errors: f.Errors, Refused: f.Refused,
		MeanConcurrency: f.Concurrency, InFlight: f.InFlight, Waiting: f.Waiting, P50: int64(f.P50), P99: int64(f.P99),
		Total: f.Total, TotalErrors: f.TotalErrors, Rewards: f.Rewards, Reward: f.Reward,
	}
	if f.Shadow != nil {
		answer.Shadow = fleetFigures(*f.Shadow)
	}
	return answer
}

// The states of a replica, for people.
const (
	replicaWaiting   = "waiting"   // for room
	replicaStarting  = "starting"  // its program is brought there, or does not answer yet
	replicaHealthy   = "healthy"   // it gets requests
	replicaUnhealthy = "unhealthy" // it did answer its probe, and does not any more
	replicaDraining  = "draining"  // it finishes what it has
	replicaFailed    = "failed"    // it is started again later
)

// attempts are what is known of a replica's tasks.
type attempts struct {
	newest, failed cluster.Task // by their attempts; the zero Task if there is none
}

func (a attempts) with(task cluster.Task) attempts {
	if task.Attempt >= a.newest.Attempt {
		a.newest = task
	}
	if task.Status.State == cluster.TaskFailed && task.Attempt >= a.failed.Attempt {
		a.failed = task
	}
	return a
}

// replicas are all that an endpoint has, in the order of its fleets.
func replicas(snapshot *state.Snapshot, endpoint cluster.Endpoint, seen Seen, now int64) []*claryv1.ReplicaView {
	tasks := map[string]attempts{} // by gang
	for task := range snapshot.TasksOf(endpoint.Job) {
		tasks[task.Gang] = tasks[task.Gang].with(task)
	}
	var all []*claryv1.ReplicaView
	for gang := range snapshot.GangsOf(endpoint.Job) {
		name, number, ok := cluster.ReplicaOf(gang.Name)
		at := endpoint.Fleet(name)
		if !ok || at < 0 {
			continue
		}
		all = append(all, replicaView(endpoint.Fleets[at], gang, number, tasks[gang.ID()], seen.Replicas, now))
	}
	slices.SortFunc(all, func(a, b *claryv1.ReplicaView) int {
		order := endpoint.Fleet(cluster.FleetID(a.GetVariant(), a.GetGeneration())) - endpoint.Fleet(cluster.FleetID(b.GetVariant(), b.GetGeneration()))
		return cmp.Or(order, cmp.Compare(a.GetNumber(), b.GetNumber()))
	})
	return all
}

// replicaView is one replica.
func replicaView(fleet cluster.Fleet, gang cluster.Gang, number int32, tasks attempts, seen map[string]ReplicaSeen, now int64) *claryv1.ReplicaView {
	view := &claryv1.ReplicaView{
		Variant: fleet.Variant, Generation: fleet.Generation, Number: number, Gang: gang.Name, Attempt: gang.Attempt, Failures: gang.Failures,
		State: replicaWaiting, FailedTask: tasks.failed.ID, Failure: tasks.failed.Status.Reason,
	}
	if gang.NotBefore > now {
		view.State, view.NotBefore = replicaFailed, gang.NotBefore
	}
	if task := tasks.newest; task.ID != "" && task.Attempt == gang.Attempt {
		view.Task, view.Node, view.Since, view.Healthy = task.ID, task.Allocation.Node, task.Status.Started, task.Status.Healthy
		view.State = taskState(gang, task.Status, now)
		sees := seen[task.ID]
		view.InFlight, view.Ejected, view.EjectedWhy = sees.InFlight, sees.Ejected, sees.Why
	}
	if fleet.Retired || gang.Stop || fleet.Drains(gang.Name) {
		view.State = replicaDraining
	}
	return view
}

// taskState is the state of a replica that has a task.
func taskState(gang cluster.Gang, status cluster.TaskStatus, now int64) string {
	switch {
	case status.State.Ended():
		return replicaFailed
	case status.Healthy > 0:
		return replicaHealthy
	case status.State != cluster.TaskRunning || len(gang.Roles) == 0 || gang.Roles[0].Program.Probe == nil:
		return replicaStarting
	case now-status.Started > int64(gang.Roles[0].Program.Probe.WithDefaults().Startup):
		return replicaUnhealthy // one that never was would have failed by now
	}
	return replicaStarting
}
