package scheduler_test

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler"
)

// planner is what decides in a world: a Cluster, or a mutant of one that breaks a law.
type planner interface {
	SetNode(n cluster.Node, used cluster.Resources)
	SetQueues(queues []cluster.Queue) error
	Wait(ask scheduler.Ask)
	Run(r scheduler.Running)
	Drop(id string)
	Plan(now int64) cluster.Plan
	Next() (int64, bool)
}

// world plays gangs that come, run, make room, come back and end, beside a planner, and keeps its own books: it
// believes no plan, and tells the planner what has become of it in the way production does.
type world struct {
	planner planner
	now     int64
	nodes   map[string]cluster.Node
	queues  map[string]cluster.Queue
	gangs   map[string]*played
	counted map[string]int
	lasts   int64 // evictions take so long

	filter func(w *world, plan cluster.Plan) cluster.Plan // refuses some of it, and sets after; nil refuses nothing
	after  func()                                         // tells the planner what was refused
}

// played is a gang in a world.
type played struct {
	gang    cluster.Gang
	lasts   int64 // how long it runs in all
	done    int64 // of it, before this attempt
	placed  []cluster.Allocation
	started int64
	ends    int64 // when it makes room, if it was told to; 0 if it was not
	came    int64
	evicted int
	closes  map[string]bool // queues for whose limits it has waited for long
}

func (p *played) runs() bool { return p.placed != nil }

func newWorld(p planner, nodes []cluster.Node, queues []cluster.Queue) *world {
	w := &world{
		planner: p, now: int64(time.Hour), nodes: map[string]cluster.Node{}, queues: map[string]cluster.Queue{}, gangs: map[string]*played{},
		counted: map[string]int{}, lasts: int64(10 * time.Second),
	}
	for _, n := range nodes {
		w.nodes[n.ID] = n
		p.SetNode(n, cluster.Resources{})
	}
	for _, q := range queues {
		w.queues[q.Name] = q.Effective()
	}
	if err := p.SetQueues(queues); err != nil {
		panic(err)
	}
	return w
}

// submit has a gang come that runs for so long once it is placed.
func (w *world) submit(g cluster.Gang, lasts time.Duration) {
	g.Attempt, g.Revision = 1, 1
	if g.Submitted == 0 {
		g.Submitted = w.now
	}
	w.gangs[g.ID()] = &played{gang: g, lasts: int64(lasts), came: w.now, closes: map[string]bool{}}
	w.planner.Wait(scheduler.NewAsk(g))
}

// used is what all gangs that run hold of a node.
func (w *world) used(node string) cluster.Resources {
	var used cluster.Resources
	for _, p := range w.gangs {
		for _, a := range p.placed {
			if a.Node == node {
				used.MilliCPU += a.Resources.MilliCPU
				used.Memory += a.Resources.Memory
				used.Devices = append(used.Devices, a.Resources.Devices...)
				used.Ports = append(used.Ports, a.Resources.Ports...)
			}
		}
	}
	slices.Sort(used.Devices)
	return used
}

// tell has the planner know what has become of a gang and of the nodes.
func (w *world) tell(p *played, allocations []cluster.Allocation) {
	nodes := map[string]bool{}
	for _, a := range allocations {
		nodes[a.Node] = true
	}
	for _, id := range slices.Sorted(maps.Keys(nodes)) {
		w.planner.SetNode(w.nodes[id], w.used(id))
	}
	switch {
	case p == nil:
	case p.runs():
		r, _ := scheduler.NewRunning(p.gang, w.tasks(p))
		w.planner.Run(r)
	default:
		w.planner.Wait(scheduler.NewAsk(p.gang))
	}
}

func (w *world) tasks(p *played) []cluster.Task {
	var tasks []cluster.Task
	for _, a := range p.placed {
		tasks = append(tasks, cluster.Task{Gang: p.gang.ID(), Attempt: p.gang.Attempt, Allocation: a, Assigned: p.started, Status: cluster.TaskStatus{State: cluster.TaskRunning}})
	}
	return tasks
}

// plan has the planner plan, checks what it says and carries it out.
func (w *world) plan() error {
	plan := w.planner.Plan(w.now)
	w.counted["plans"]++
	if w.after = nil; w.filter != nil {
		plan = w.filter(w, plan)
	}
	for _, p := range plan.Placements {
		if err := w.place(p); err != nil {
			return fmt.Errorf("%s: %w", p.Gang, err)
		}
	}
	for _, e := range plan.Evictions {
		if err := w.evict(e); err != nil {
			return fmt.Errorf("%s for %s: %w", e.Gang, e.For, err)
		}
	}
	for _, p := range plan.Placements {
		w.tell(w.gangs[p.Gang], p.Allocations)
	}
	for _, e := range plan.Evictions {
		w.tell(w.gangs[e.Gang], nil)
	}
	if w.after != nil {
		w.after()
	}
	return nil
}

// place is the ledger: it checks that nothing is sold twice and that the gang is whole.
func (w *world) place(placement cluster.Placement) error {
	p := w.gangs[placement.Gang]
	if p == nil || p.runs() {
		return fmt.Errorf("placed, though it does not wait")
	}
	if placement.Attempt != p.gang.Attempt || placement.Revision != p.gang.Revision {
		return fmt.Errorf("placed as attempt %d at revision %d, it is at %d and %d", placement.Attempt, placement.Revision, p.gang.Attempt, p.gang.Revision)
	}
	if p.gang.Elastic() {
		if reason := p.gang.CheckCounts(placement.Counts); reason != "" {
			return fmt.Errorf("%s", reason)
		}
		w.counted["elastic"]++
		if placement.Counts[0] < p.gang.Roles[0].Count {
			w.counted["smaller"]++
		}
	}
	gang := p.gang.Of(placement)
	if len(placement.Allocations) != gang.Size() {
		return fmt.Errorf("%d allocations for %d tasks: half a gang", len(placement.Allocations), gang.Size())
	}
	c := cell{used: map[string]cluster.Resources{}}
	for _, id := range slices.Sorted(maps.Keys(w.nodes)) {
		c.nodes = append(c.nodes, w.nodes[id])
		c.used[id] = w.used(id)
	}
	at := 0
	for i, role := range gang.Roles {
		for range gang.Tasks(i) {
			if err := c.take(c.used, role, placement.Allocations[at]); err != nil {
				return err
			}
			at++
		}
	}
	clear(p.closes)
	p.gang, p.placed, p.started = gang, placement.Allocations, w.now
	w.counted["placed"]++
	return w.quotas()
}

// quotas checks every limit that a queue names by adding up what its gangs hold.
func (w *world) quotas() error {
	for _, name := range slices.Sorted(maps.Keys(w.queues)) {
		q := w.queues[name]
		held, running := int64(0), map[string]bool{}
		for _, p := range w.gangs {
			if !p.runs() || !w.below(p.gang.Queue, name) {
				continue
			}
			running[p.gang.Job] = true
			for _, a := range p.placed {
				held += 1000 * int64(len(a.Resources.Devices))
			}
		}
		guarantee, _ := q.Guarantee.Of(cluster.ResourceGPUs)
		if borrow, limited := q.Borrow.Of(cluster.ResourceGPUs); limited {
			w.counted["limited"]++
			if held > guarantee+borrow {
				return fmt.Errorf("queue %s holds %d milli-GPUs of at most %d", name, held, guarantee+borrow)
			}
		}
		if q.MaxRunning > 0 && len(running) > int(q.MaxRunning) {
			return fmt.Errorf("queue %s runs %d jobs of at most %d", name, len(running), q.MaxRunning)
		}
	}
	return nil
}

// below reports whether a queue is another or under it.
func (w *world) below(queue, other string) bool {
	for queue != other && queue != "" {
		queue = w.queues[queue].Parent
	}
	return queue == other
}

func (w *world) evict(e cluster.Eviction) error {
	victim, other := w.gangs[e.Gang], w.gangs[e.For]
	switch {
	case victim == nil || !victim.runs() || victim.ends > 0:
		return fmt.Errorf("told to make room, though it does not run or is on its way")
	case other == nil || e.For != e.Gang && other.runs():
		return fmt.Errorf("it is to make room for who does not wait")
	case w.now-victim.started < int64(cluster.DefaultMinRuntime):
		return fmt.Errorf("it has run for %s only", time.Duration(w.now-victim.started))
	case victim.gang.NonPreemptible:
		return fmt.Errorf("it must not be")
	case e.For != e.Gang && victim.gang.Queue == other.gang.Queue && victim.gang.Priority >= other.gang.Priority:
		return fmt.Errorf("its priority is not lower")
	}
	if e.Resizes() {
		w.counted["resized"]++
		victim.gang.Resized = append(victim.gang.Resized, w.now)
		if reason := victim.gang.CheckCounts(e.Counts); reason != "" {
			return fmt.Errorf("%s", reason)
		}
	}
	w.counted["evicted"]++
	victim.evicted++
	victim.gang.Stop, victim.gang.Moves, victim.gang.For = true, true, e.For
	victim.gang.Revision++
	victim.ends = w.now + w.lasts
	return nil
}

// due is when something happens next: a gang ends or makes room, or the planner asks to be called.
func (w *world) due() (int64, bool) {
	at, any := w.planner.Next()
	for _, p := range w.gangs {
		if !p.runs() {
			continue
		}
		end := p.started + p.lasts - p.done
		if p.ends > 0 {
			end = min(end, p.ends)
		}
		if !any || end < at {
			at, any = end, true
		}
	}
	return max(at, w.now), any
}

// pass lets time pass until an instant, and ends who ends by then. It reports whether anybody did.
func (w *world) pass(until int64) bool {
	w.now = max(w.now, until)
	any := false
	for _, id := range slices.Sorted(maps.Keys(w.gangs)) {
		p := w.gangs[id]
		switch {
		case !p.runs():
		case p.started+p.lasts-p.done <= w.now:
			any = true
			held := p.placed
			delete(w.gangs, id)
			w.planner.Drop(id)
			w.tell(nil, held)
			w.counted["ended"]++
		case p.ends > 0 && p.ends <= w.now:
			any = true
			held := p.placed
			p.done += w.now - p.started
			p.placed, p.ends = nil, 0
			p.gang.Stop, p.gang.Moves, p.gang.For, p.gang.Granted = false, false, "", nil
			p.gang.Attempt++
			p.gang.Revision++
			w.tell(p, held)
			w.counted["came back"]++
		}
	}
	return any
}

// waits lists who waits, by ID.
func (w *world) waits() []string {
	var ids []string
	for _, id := range slices.Sorted(maps.Keys(w.gangs)) {
		if !w.gangs[id].runs() {
			ids = append(ids, id)
		}
	}
	return ids
}
