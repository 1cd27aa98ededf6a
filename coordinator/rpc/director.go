package rpc

import (
	"net"
	"slices"
	"strconv"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/state"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// director remembers what one node was told, so that it is told changes only.
type director struct {
	node  string
	told  map[string]told            // by task id
	gangs map[string]map[string]bool // gang id → its tasks that the node was told of
}

// told is what a node was told of one task.
type told struct {
	stop bool // it is to end
	hold bool // it is not to start yet
}

// briefing is a snapshot, and what has been worked out of its gangs while a node is told of them: once for an attempt, not for
// each of its tasks and once more for each that waits.
type briefing struct {
	*state.Snapshot
	attempts map[attempt]*together
}

// attempt is that of a gang.
type attempt struct {
	gang   string
	number int32
}

// together is what the tasks of an attempt have in common.
type together struct {
	hosts   map[string]*claryv1.HostList
	unready bool // one of them is not ready to start
}

func briefingOf(snapshot *state.Snapshot) *briefing {
	return &briefing{snapshot, map[attempt]*together{}}
}

// of is what the tasks of a gang's attempt have in common.
func (b *briefing) of(gang cluster.Gang, number int32) *together {
	key := attempt{gang.ID(), number}
	if b.attempts[key] == nil {
		b.attempts[key] = b.gather(gang, number)
	}
	return b.attempts[key]
}

func newDirector(node string) *director {
	return &director{node: node, told: map[string]told{}, gangs: map[string]map[string]bool{}}
}

// concerned reports, without reading state, whether changes may matter to the node: a gang it
// has tasks of, a task of its own that is new or gone, or any of a gang whose tasks wait for
// one another.
func (d *director) concerned(changes []state.Change) bool {
	return slices.ContainsFunc(changes, func(change state.Change) bool {
		if change.Kind == state.KindGang {
			return d.gangs[change.ID] != nil
		}
		_, known := d.told[change.ID]
		return known && change.Deleted || !known && change.Node == d.node && !change.Ended || d.holding(gangOf(change.ID))
	})
}

// holding reports whether a task of the gang that is on the node waits for others.
func (d *director) holding(gang string) bool {
	for id := range d.gangs[gang] {
		if d.told[id].hold {
			return true
		}
	}
	return false
}

// all is everything that the node should have: what runs, and of what it says it holds
// the tasks that ended but are still on record, for their logs.
func (d *director) all(snapshot *state.Snapshot, held []string) *claryv1.Desired {
	*d = *newDirector(d.node)
	desired, b := &claryv1.Desired{Whole: true}, briefingOf(snapshot)
	for task := range snapshot.TasksOn(d.node) {
		d.assign(b, task, desired)
	}
	for _, id := range held {
		if _, told := d.told[id]; told {
			continue
		}
		if task, onRecord := snapshot.Task(id); onRecord && task.Allocation.Node == d.node {
			d.assign(b, task, desired)
		}
	}
	return desired
}

// changed is what is new to the node; nil if nothing is.
func (d *director) changed(snapshot *state.Snapshot, changes []state.Change) *claryv1.Desired {
	desired, b := &claryv1.Desired{}, briefingOf(snapshot)
	for _, change := range changes {
		if change.Kind == state.KindTask {
			if change.Node == d.node {
				d.update(b, change.ID, desired)
			}
			d.release(b, change.ID, desired)
			continue
		}
		for id := range d.gangs[change.ID] {
			d.update(b, id, desired)
		}
	}
	if len(desired.Assignments) == 0 && len(desired.Gone) == 0 {
		return nil
	}
	return desired
}

// update tells the node of one task, if it is the node's and there is news. A task that
// has ended stays with the node until its record is deleted.
func (d *director) update(b *briefing, id string, desired *claryv1.Desired) {
	task, exists := b.Task(id)
	before, known := d.told[id]
	switch {
	case exists && task.Allocation.Node == d.node:
		gang, _ := b.Gang(task.Gang)
		if !task.Status.State.Ended() && (!known || !before.stop && stops(task, gang) || before.hold && !b.holds(task, gang)) {
			d.assign(b, task, desired)
		}
	case known:
		delete(d.told, id)
		gang := gangOf(id)
		if delete(d.gangs[gang], id); len(d.gangs[gang]) == 0 {
			delete(d.gangs, gang)
		}
		desired.Gone = append(desired.Gone, id)
	}
}

// release lets those of a task's gang start that waited for it.
func (d *director) release(b *briefing, id string, desired *claryv1.Desired) {
	for peer := range d.gangs[gangOf(id)] {
		if peer != id && d.told[peer].hold {
			d.update(b, peer, desired)
		}
	}
}

// holds reports whether a task may get ready but not start: its gang starts together, and
// another is not ready.
func (b *briefing) holds(task cluster.Task, gang cluster.Gang) bool {
	role, _ := gang.Role(task.Role)
	return role.Program.Framework != cluster.FrameworkNone && b.of(gang, task.Attempt).unready
}

// stops reports whether the task should not run: its gang is to end, is on a newer
// attempt, or the ledger has the task down as ended, whatever its node may think.
func stops(task cluster.Task, gang cluster.Gang) bool {
	return gang.Stop || gang.Attempt != task.Attempt || task.Status.State.Ended()
}

func (d *director) assign(b *briefing, task cluster.Task, desired *claryv1.Desired) {
	gang, ok := b.Gang(task.Gang)
	if !ok {
		return // its job is being deleted: the tasks' own deletion follows
	}
	role, _ := gang.Role(task.Role)
	stop, hold := stops(task, gang), b.holds(task, gang)
	d.told[task.ID] = told{stop: stop, hold: hold}
	if d.gangs[task.Gang] == nil {
		d.gangs[task.Gang] = map[string]bool{}
	}
	d.gangs[task.Gang][task.ID] = true
	assignment := &claryv1.Assignment{
		Task: wire.TaskToProto(task), Program: wire.ProgramToProto(role.Program), Hosts: b.of(gang, task.Attempt).hosts,
		Stop: stop, Hold: hold, StopReason: gang.StopReason, MaxRuntime: int64(gang.MaxRuntime), Queue: gang.Queue,
	}
	if role.Program.Checkpoints && task.Attempt > 1 {
		assignment.RestoreFrom, assignment.Elastic = cluster.CheckpointsOf(task.Job), role.Elastic()
	}
	desired.Assignments = append(desired.Assignments, assignment)
}

// gather lists where each task of an attempt is, by role and in the order of indexes: "host:port" with its first port, or the host
// alone; and looks whether all are ready.
func (b *briefing) gather(gang cluster.Gang, number int32) *together {
	t := &together{hosts: map[string]*claryv1.HostList{}}
	for i, role := range gang.Roles {
		t.hosts[role.Name] = &claryv1.HostList{Hosts: make([]string, gang.Tasks(i))}
	}
	addresses := map[string]string{}
	for task := range b.TasksOfGang(gang.ID()) {
		if task.Attempt != number {
			continue
		}
		t.unready = t.unready || task.Status.State == cluster.TaskAssigned || task.Status.State == cluster.TaskStaging
		list := t.hosts[task.Role]
		if list == nil || int(task.Index) >= len(list.Hosts) {
			continue
		}
		id := task.Allocation.Node
		if addresses[id] == "" {
			node, _ := b.Node(id)
			addresses[id] = node.Address
		}
		host := addresses[id]
		if ports := task.Allocation.Resources.Ports; len(ports) > 0 {
			host = net.JoinHostPort(host, strconv.Itoa(int(ports[0])))
		}
		list.Hosts[task.Index] = host
	}
	return t
}
