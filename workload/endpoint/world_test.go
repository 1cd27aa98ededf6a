package endpoint_test

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/workload"
	"github.com/clary-ml/clary/workload/endpoint"
)

// world is a cluster with one endpoint in it, and the rules of the log.
type world struct {
	fatal func(format string, args ...any)
	job   cluster.Job
	e     *cluster.Endpoint
	gangs map[string]cluster.Gang
	tasks map[string]cluster.Task
	nodes []*node
	now   int64
	wake  int64
	clock uint64           // of revisions
	names map[string]bool  // of all gangs that there ever were
	sick  map[string]bool  // fleets whose replicas crash
	mute  map[string]bool  // fleets whose replicas never answer
	done  map[string]int   // what was exercised
	last  workload.Changes // of the last step
	raced bool             // something happens between a step's look and its record
}

type node struct {
	name  string
	state cluster.NodeState
	slots int
}

func newWorld(fatal func(string, ...any), spec string, nodes, slots int) *world {
	w := &world{
		fatal: fatal, now: int64(time.Hour), gangs: map[string]cluster.Gang{}, tasks: map[string]cluster.Task{},
		names: map[string]bool{}, sick: map[string]bool{}, mute: map[string]bool{}, done: map[string]int{},
		job: cluster.Job{Name: "churn", Kind: cluster.KindEndpoint, Owner: "ann", Queue: "default", State: cluster.JobQueued, Attempt: 1, Spec: []byte(spec), Submitted: 1},
	}
	for i := range nodes {
		w.nodes = append(w.nodes, &node{name: string(rune('a' + i)), state: cluster.NodeReady, slots: slots})
	}
	if problems := (endpoint.Kind{}).Check(w.job.Spec); problems != nil {
		fatal("the spec: %s", problems)
	}
	first := endpoint.Kind{}.Reconcile(workload.View{}, w.job, w.now)
	w.job.Revision, w.clock = 1, 1
	w.apply(first)
	return w
}

func (w *world) view() workload.View {
	v := workload.View{}
	if w.e != nil {
		e := *w.e
		v.Endpoint = &e
	}
	for _, name := range slices.Sorted(maps.Keys(w.gangs)) {
		v.Gangs = append(v.Gangs, w.gangs[name])
	}
	for _, id := range slices.Sorted(maps.Keys(w.tasks)) {
		v.Tasks = append(v.Tasks, w.tasks[id])
	}
	return v
}

// task is that of a gang's current attempt.
func (w *world) task(g cluster.Gang) (cluster.Task, bool) {
	t, ok := w.tasks[g.TaskID(endpoint.RoleServer, 0)]
	return t, ok
}

// step asks what should change, twice, and applies it.
func (w *world) step() bool {
	view := w.view()
	changes := endpoint.Kind{}.Reconcile(view, w.job, w.now)
	if again := (endpoint.Kind{}).Reconcile(w.view(), w.job, w.now); !reflect.DeepEqual(changes, again) {
		w.fatal("asked twice, it says\n%+v\nand\n%+v", changes, again)
	}
	if !reflect.DeepEqual(view, w.view()) {
		w.fatal("it changed what it was shown")
	}
	if w.wake = changes.WakeAt; w.wake != 0 && w.wake <= w.now {
		w.fatal("it wants to be woken at %d, and it is %d", w.wake, w.now)
	}
	if why := w.apply(changes); why != "" {
		w.fatal("the log refuses: %s", why)
	}
	return !changes.Empty()
}

// settle steps until nothing is left to do now.
func (w *world) settle() {
	for range 40 {
		if !w.step() {
			return
		}
	}
	w.fatal("still changes after 40 steps: %+v", w.last)
}

func (w *world) leaving() bool { return w.job.Cancel || w.job.State == cluster.JobStopping }

func (w *world) settings(e cluster.Endpoint) endpoint.Spec {
	s, err := endpoint.Settings(e)
	if err != nil {
		w.fatal("settings: %v", err)
	}
	return s
}

// ask puts what a request made of the endpoint.
func (w *world) ask(what string, e cluster.Endpoint, err error) error {
	if err != nil {
		w.done[what+" refused"]++
		return err
	}
	w.clock++
	if why := w.putEndpoint(e); why != "" {
		w.fatal("%s: the log refuses: %s", what, why)
	}
	w.done[what]++
	return nil
}

func (w *world) who() endpoint.Asked { return endpoint.Asked{By: "ann", Now: w.now} }

// update asks for a spec.
func (w *world) update(spec string, o endpoint.Options) error {
	var s endpoint.Spec
	if err := json.Unmarshal([]byte(spec), &s); err != nil {
		w.fatal("%v", err)
	}
	e, err := endpoint.Update(w.job, *w.e, s, nil, o, w.who())
	return w.ask("update", e, err)
}

// place commits plans for what waits, as long as nodes have room.
func (w *world) place() {
	used := map[string]int{}
	for _, t := range w.tasks {
		if !t.Status.State.Ended() {
			used[t.Allocation.Node]++
		}
	}
	for _, name := range slices.Sorted(maps.Keys(w.gangs)) {
		g := w.gangs[name]
		if _, placed := w.task(g); placed || g.Held || g.Stop || g.NotBefore > w.now || w.job.State.Ended() {
			continue
		}
		for _, n := range w.nodes {
			if n.state == cluster.NodeReady && used[n.name] < n.slots {
				used[n.name]++
				id := g.TaskID(endpoint.RoleServer, 0)
				w.tasks[id] = cluster.Task{
					ID: id, Job: g.Job, Gang: g.ID(), Role: endpoint.RoleServer, Attempt: g.Attempt,
					Allocation: cluster.Allocation{Node: n.name}, Assigned: w.now, Status: cluster.TaskStatus{State: cluster.TaskAssigned},
				}
				break
			}
		}
	}
}

// live gangs have a task that has not ended; in order.
func (w *world) live() []cluster.Gang {
	var live []cluster.Gang
	for _, name := range slices.Sorted(maps.Keys(w.gangs)) {
		if t, placed := w.task(w.gangs[name]); placed && !t.Status.State.Ended() {
			live = append(live, w.gangs[name])
		}
	}
	return live
}

// report has the node of a gang's task tell how it is.
func (w *world) report(g cluster.Gang, state cluster.TaskState, healthy bool) {
	t, _ := w.task(g)
	if t.Status.State != state && !t.Status.State.CanBecome(state) {
		w.fatal("%s goes from %s to %s", t.ID, t.Status.State, state)
	}
	if t.Status.State != state && state == cluster.TaskRunning {
		t.Status.Started = w.now
	}
	t.Status.State, t.Status.Healthy = state, 0
	if healthy {
		t.Status.Healthy = w.now
	}
	if state.Ended() {
		t.Status.Ended = w.now
	}
	w.tasks[t.ID] = t
}

// behave has all nodes do what they are told to: replicas start and answer, or if they are sick end, and
// those that are told to stop do.
func (w *world) behave() {
	w.place()
	for _, g := range w.live() {
		t, _ := w.task(g)
		fleet, _, _ := cluster.ReplicaOf(g.Name)
		switch {
		case g.Stop:
			w.report(g, cluster.TaskStopped, false)
		case t.Status.State == cluster.TaskRunning && w.sick[fleet]:
			w.report(g, cluster.TaskFailed, false)
		default:
			w.report(g, cluster.TaskRunning, !w.mute[fleet] && !w.sick[fleet])
		}
	}
}

// idle has the steward see that nobody asks those on their way out any more, and that no alarm goes off.
func (w *world) idle() {
	if e, noted := endpoint.Quiet(*w.e, w.now); noted {
		_ = w.ask("watched", e, nil)
	}
	names := map[string]bool{}
	for _, f := range w.e.Fleets {
		for _, d := range f.Draining {
			names[d.Gang] = true
		}
	}
	if len(names) > 0 {
		_ = w.ask("idle", endpoint.Idle(*w.e, names), nil)
	}
}

// lose loses a node with all that runs there.
func (w *world) lose(n *node) {
	n.state = cluster.NodeLost
	for _, g := range w.live() {
		if t, _ := w.task(g); t.Allocation.Node == n.name {
			w.report(g, cluster.TaskLost, false)
		}
	}
}

// evict drains a node: what runs there is asked to move.
func (w *world) evict(n *node) {
	n.state = cluster.NodeDraining
	for _, g := range w.live() {
		if t, _ := w.task(g); t.Allocation.Node == n.name && !g.Stop && !g.Moves {
			if !g.Handover {
				w.fatal("%s would be stopped when its node is drained", g.Name)
			}
			g.Moves, g.StopReason = true, "node "+n.name+" is drained"
			w.clock++
			g.Revision = w.clock
			w.gangs[g.Name] = g
		}
	}
}

// pass lets the world behave until nothing but time could change anything, then lets time pass to when
// it wants to be woken, for as long as the endpoint is not as it wants to be.
func (w *world) pass(rested func() bool) {
	for range 2000 {
		w.settle()
		before := w.view()
		w.behave()
		if w.e != nil {
			w.idle()
		}
		if !reflect.DeepEqual(before, w.view()) {
			continue
		}
		if rested() {
			return
		}
		next := w.wake
		for _, g := range w.gangs {
			if _, placed := w.task(g); !placed && g.NotBefore > w.now && (next == 0 || g.NotBefore < next) {
				next = g.NotBefore
			}
		}
		if next == 0 {
			w.fatal("nothing will happen any more: %+v, job %+v", w.e, w.job)
		}
		w.now = next
	}
	w.fatal("it does not come to rest: %+v", w.e)
}

// steady says that all is as it is wanted.
func (w *world) steady() bool {
	if w.job.State.Ended() {
		return true
	}
	if w.e.Rollout != nil {
		return false
	}
	for _, f := range w.e.Fleets {
		if f.Retired || serving(w.view(), f) != f.Replicas {
			return false
		}
	}
	return true
}
