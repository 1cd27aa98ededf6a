package command

import (
	"fmt"
	"slices"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/state"
)

// Apply implements Command. It never refuses the whole plan: the gangs left out are in
// the result.
func (c CommitPlan) Apply(tx *state.Tx, now int64) (Result, error) {
	var result Result
	rooms := rooms{tx: tx, known: map[string]*room{}}
	tenancy := tenancy{tx: tx, now: now}
	for _, placement := range c.Placements {
		reason := ""
		gang, exists := tx.Gang(placement.Gang)
		if !exists {
			reason = "the gang does not exist"
		} else if reason = unplaceable(tx, gang, placement, now); reason == "" {
			reason = rooms.place(gang.Of(placement), placement)
		}
		var claims []cluster.Claim
		if reason == "" {
			claims = rooms.claims(gang, placement)
			reason = tenancy.admit(gang, claims)
		}
		if reason != "" {
			result.Refused = append(result.Refused, Refusal{ID: placement.Gang, Reason: reason})
			rooms.forget(placement)
			continue
		}
		assign(tx, gang.Of(placement), placement, claims, now)
	}
	for _, eviction := range c.Evictions { // after the placements: who has got a place needs no room
		if reason := evict(tx, eviction, now); reason != "" {
			result.Refused = append(result.Refused, Refusal{ID: eviction.Gang, Reason: reason})
		}
	}
	return result, nil
}

// unplaceable says why the gang must not be placed at all, or nothing.
func unplaceable(tx *state.Tx, gang cluster.Gang, p cluster.Placement, now int64) string {
	switch {
	case gang.Attempt != p.Attempt:
		return fmt.Sprintf("planned for attempt %d, it is at attempt %d", p.Attempt, gang.Attempt)
	case gang.Revision != p.Revision:
		return fmt.Sprintf("planned at revision %d, it is at revision %d", p.Revision, gang.Revision)
	case gang.Held:
		return "it is held"
	case gang.Stop:
		return "it is told to stop"
	case now < gang.NotBefore:
		return fmt.Sprintf("it waits for %s more", time.Duration(gang.NotBefore-now))
	case len(p.Counts) > 0 && gang.CheckCounts(p.Counts) != "":
		return gang.CheckCounts(p.Counts)
	case len(p.Allocations) != gang.Of(p).Size():
		return fmt.Sprintf("%d allocations for %d tasks", len(p.Allocations), gang.Of(p).Size())
	case tx.HasTask(gang.TaskID(gang.Roles[0].Name, 0)):
		return fmt.Sprintf("attempt %d is placed already", gang.Attempt)
	}
	if job, exists := tx.Job(gang.Job); !exists || job.State.Ended() || job.Cancel {
		return "its job has ended or was cancelled"
	}
	return ""
}

// members walks a gang's tasks in the order of its placement's allocations.
func members(gang cluster.Gang, visit func(i int, role cluster.Role, index int32) bool) {
	i := 0
	for r, role := range gang.Roles {
		for index := range gang.Tasks(r) {
			if !visit(i, role, index) {
				return
			}
			i++
		}
	}
}

// assign makes the tasks of a placement that was accepted. Of an elastic gang it is noted how many
// they are.
func assign(tx *state.Tx, gang cluster.Gang, p cluster.Placement, claims []cluster.Claim, now int64) {
	if len(gang.Granted) > 0 {
		tx.PutGang(gang)
	}
	members(gang, func(i int, role cluster.Role, index int32) bool {
		allocation := p.Allocations[i]
		allocation.Resources.Devices = slices.Sorted(slices.Values(allocation.Resources.Devices))
		allocation.Resources.Ports = slices.Sorted(slices.Values(allocation.Resources.Ports))
		allocation.Resources.Shares = slices.SortedFunc(slices.Values(allocation.Resources.Shares), cluster.CompareShares)
		tx.PutTask(cluster.Task{
			ID: gang.TaskID(role.Name, index), Job: gang.Job, Gang: gang.ID(),
			Role: role.Name, Index: index, Attempt: gang.Attempt,
			Allocation: allocation, Claim: claims[i], Assigned: now,
			Status: cluster.TaskStatus{State: cluster.TaskAssigned},
		})
		return true
	})
}

// rooms are the nodes that a plan has looked at, with what it took of them.
type rooms struct {
	tx    *state.Tx
	known map[string]*room
}

// room is what is free on one node.
type room struct {
	node      cluster.Node
	exists    bool
	milli     int64
	memory    int64
	devices   map[string]cluster.Device // healthy, and none of it is used
	shared    map[string]*shared        // healthy, and cut or shared, or free to be
	usedPorts map[int32]bool
}

func (r rooms) on(id string) *room {
	if known := r.known[id]; known != nil {
		return known
	}
	node, exists := r.tx.Node(id)
	used := r.tx.Used(id)
	free := &room{
		node: node, exists: exists,
		milli: max(0, node.MilliCPU-used.MilliCPU), memory: max(0, node.Memory-used.Memory),
		devices: map[string]cluster.Device{}, shared: map[string]*shared{}, usedPorts: make(map[int32]bool, len(used.Ports)),
	}
	for _, device := range node.Devices {
		if _, taken := slices.BinarySearch(used.Devices, device.UUID); device.Healthy && !taken {
			free.offer(device, used.Shares)
		}
	}
	for _, port := range used.Ports {
		free.usedPorts[port] = true
	}
	r.known[id] = free
	return free
}

// forget drops what a refused placement took; the nodes are looked at anew if needed.
func (r rooms) forget(p cluster.Placement) {
	for _, allocation := range p.Allocations {
		delete(r.known, allocation.Node)
	}
}

// place takes room for every task of the gang, or says why one does not fit.
func (r rooms) place(gang cluster.Gang, p cluster.Placement) string {
	reason := ""
	members(gang, func(i int, role cluster.Role, index int32) bool {
		allocation := p.Allocations[i]
		if why := r.on(allocation.Node).take(role, allocation.Resources); why != "" {
			reason = fmt.Sprintf("%s-%d on node %q: %s", role.Name, index, cluster.Clip(allocation.Node), why)
		}
		return reason == ""
	})
	return reason
}

// take checks one task's allocation against its ask and the node, and takes it.
func (r *room) take(role cluster.Role, give cluster.Resources) string {
	ask := role.Ask
	switch {
	case !r.exists:
		return "the node does not exist"
	case r.node.State != cluster.NodeReady:
		return "the node is " + string(r.node.State)
	case give.MilliCPU != ask.MilliCPU || give.Memory != ask.Memory:
		return fmt.Sprintf("given %s and %s, it asks for %s and %s",
			cluster.FormatCores(give.MilliCPU), cluster.FormatBytes(give.Memory),
			cluster.FormatCores(ask.MilliCPU), cluster.FormatBytes(ask.Memory))
	case len(give.Ports) != int(ask.Ports):
		return fmt.Sprintf("given %d ports, it asks for %d", len(give.Ports), ask.Ports)
	case ask.MilliCPU > r.milli:
		return fmt.Sprintf("%s asked, %s free", cluster.FormatCores(ask.MilliCPU), cluster.FormatCores(r.milli))
	case ask.Memory > r.memory:
		return fmt.Sprintf("%s asked, %s free", cluster.FormatBytes(ask.Memory), cluster.FormatBytes(r.memory))
	}
	if unmet := role.Unmet(r.node); unmet != "" {
		return unmet
	}
	r.milli -= ask.MilliCPU
	r.memory -= ask.Memory
	if why := r.takeDevices(role, give); why != "" {
		return why
	}
	return r.takePorts(give.Ports)
}

func (r *room) takePorts(ports []int32) string {
	for _, port := range ports {
		if port < r.node.PortFirst || port > r.node.PortLast || port < 1 {
			return fmt.Sprintf("port %d is not in %d-%d", port, r.node.PortFirst, r.node.PortLast)
		}
		if r.usedPorts[port] {
			return fmt.Sprintf("port %d is in use", port)
		}
		r.usedPorts[port] = true
	}
	return ""
}
