package scheduler

import (
	"slices"

	"github.com/clary-ml/clary/cluster"
)

// Schedule places as many of the asks as it can, in the order of Before. A gang is
// placed whole or not at all; one that does not fit is passed over, and a later one
// that fits may take the room (there is no reservation yet). Tasks go to the node that
// is left tightest: the one with the smallest dominant share (Ghodsi et al., NSDI 2011)
// of what remains; of equals the one that comes first by ID. A role that is spread first
// takes the nodes that have fewest of the tasks that it is spread with.
//
// Plan.Whys stays empty: Explain says why one ask waits, when somebody wants to know.
// The view is only read; commit the plan and Set what then is used.
func Schedule(view *View, asks []Ask, now int64) cluster.Plan {
	ready := make([]Ask, 0, len(asks))
	for _, ask := range asks {
		if !ask.Waits(now) {
			ready = append(ready, ask)
		}
	}
	if !slices.IsSortedFunc(ready, Before) {
		slices.SortFunc(ready, Before)
	}
	var plan cluster.Plan
	w := newWork(view)
	failed := map[*Shape]bool{} // room only shrinks: what did not fit will not fit later
	byKey := map[string]bool{}  // for shapes that are equal and not shared
	for _, ask := range ready {
		if failed[ask.Shape] {
			continue
		}
		if byKey[ask.Shape.Key] {
			failed[ask.Shape] = true
			continue
		}
		allocations := w.place(ask.Shape)
		if allocations == nil {
			failed[ask.Shape], byKey[ask.Shape.Key] = true, true
			continue
		}
		plan.Placements = append(plan.Placements, cluster.Placement{
			Gang: ask.ID, Attempt: ask.Attempt, Revision: ask.Revision, Allocations: allocations,
		})
	}
	return plan
}

// Advance remembers which ports a plan took, so that the next plan looks for free ones
// behind them: a port that was freed a moment ago is used again as late as possible.
func (v *View) Advance(plan cluster.Plan) {
	for _, placement := range plan.Placements {
		for _, allocation := range placement.Allocations {
			ports := allocation.Resources.Ports
			if i, found := v.find(allocation.Node); found && len(ports) > 0 {
				v.nodes[i].portNext = following(&v.nodes[i], ports[len(ports)-1])
			}
		}
	}
}

func following(n *node, port int32) int32 {
	if port >= n.portLast {
		return n.portFirst
	}
	return port + 1
}

// work is a copy of a view that placing takes from.
type work struct {
	view   *View
	nodes  []node
	undo   []undone // nodes as they were before the gang that is being placed
	labels map[string][]bool
	spread map[string][]int32 // tasks that are spread together, by node
}

type undone struct {
	index int
	node  node
	tasks []int32 // of a role that is spread: one more was counted
}

func newWork(view *View) *work {
	return &work{view: view, nodes: slices.Clone(view.nodes), labels: map[string][]bool{}, spread: map[string][]int32{}}
}

// stuck says where placing a gang ended.
type stuck struct {
	role   int // which does not fit
	placed int // tasks of that role that did
}

// place takes room for the whole gang, or takes nothing. Roles are tried the hardest
// first and, if that fails, the other way around: packing several sizes at best is hard
// (bin packing), and two orders find nearly all that is possible. For gangs of one role
// it is exact.
func (w *work) place(shape *Shape) []cluster.Allocation {
	allocations, _ := w.try(shape, shape.order)
	if allocations == nil {
		w.rollback()
		if len(shape.order) > 1 && shape.order[0] != shape.reverse[0] {
			if allocations, _ = w.try(shape, shape.reverse); allocations == nil {
				w.rollback()
			}
		}
	}
	return allocations
}

// try takes room for the roles in the given order. If it gets stuck it returns nil, and
// what it took stays taken until rollback.
func (w *work) try(shape *Shape, order []int) ([]cluster.Allocation, stuck) {
	w.undo = w.undo[:0]
	var allocations []cluster.Allocation
	for _, role := range order {
		n := &shape.roles[role]
		counts := w.counts(n)
		for done := 0; done < n.count; {
			best := w.best(n, counts)
			if best < 0 {
				return nil, stuck{role, done}
			}
			if allocations == nil {
				allocations = make([]cluster.Allocation, shape.size)
			}
			w.undo = append(w.undo, undone{best, w.nodes[best], counts})
			if counts != nil { // the next goes to another, if there is one
				counts[best]++
				allocations[n.first+done] = take(&w.nodes[best], n, w.view.models)
				done++
				continue
			}
			// The tightest node stays the tightest when it gives more, until it is full.
			for done < n.count && fits(&w.nodes[best], n, w.view.models) {
				allocations[n.first+done] = take(&w.nodes[best], n, w.view.models)
				done++
			}
		}
	}
	return allocations, stuck{}
}

func (w *work) rollback() {
	for _, old := range slices.Backward(w.undo) {
		w.nodes[old.index] = old.node
		if old.tasks != nil {
			old.tasks[old.index]--
		}
	}
	w.undo = w.undo[:0]
}

// counts says how many tasks that the role is spread with each node has, nil if it is with none.
func (w *work) counts(n *need) []int32 {
	if n.spread == "" {
		return nil
	}
	counts, known := w.spread[n.spread]
	if !known {
		counts = make([]int32, len(w.nodes))
		for id, tasks := range w.view.spread[n.spread] { // in any order: each has a place of its own
			if i, found := w.view.find(id); found {
				counts[i] = tasks
			}
		}
		w.spread[n.spread] = counts
	}
	return counts
}

// best is the index of the node that one task of the role fits tightest, or -1. With counts only
// nodes are looked at that have the least.
func (w *work) best(n *need, counts []int32) int {
	allowed := w.allowed(n)
	best, least := -1, 0.0
	for i := range w.nodes {
		candidate := &w.nodes[i]
		if candidate.milli < n.ask.MilliCPU || candidate.memory < n.ask.Memory || !fits(candidate, n, w.view.models) {
			continue
		}
		if allowed != nil && !allowed[i] {
			continue
		}
		if counts != nil && best >= 0 && counts[i] != counts[best] {
			if counts[i] > counts[best] {
				continue
			}
			best = -1
		}
		if share := remaining(candidate, n); best < 0 || share < least {
			best, least = i, share
		}
	}
	return best
}

// allowed says which nodes have the role's labels; nil is all of them. The answer is
// kept, since many gangs ask for the same.
func (w *work) allowed(n *need) []bool {
	if len(n.labels) == 0 {
		return nil
	}
	key := ""
	for _, l := range n.labels {
		key += l.key + "\x00" + l.value + "\x00"
	}
	allowed, known := w.labels[key]
	if !known {
		allowed = make([]bool, len(w.nodes))
		for i := range w.nodes {
			allowed[i] = hasLabels(&w.nodes[i], n)
		}
		w.labels[key] = allowed
	}
	return allowed
}

func hasLabels(n *node, want *need) bool {
	for _, l := range want.labels {
		if value, ok := n.labels[l.key]; !ok || value != l.value {
			return false
		}
	}
	return true
}

// fits reports whether one task of the role has room on the node, labels aside.
func fits(n *node, want *need, models names) bool {
	return n.ready && n.milli >= want.ask.MilliCPU && n.memory >= want.ask.Memory && n.portsFree >= want.ask.Ports &&
		(want.ask.GPUs == 0 || matching(n.devices, want.ask.GPUModel, models) >= int(want.ask.GPUs))
}

// matching counts the devices of a model, of any if it is "".
func matching(devices []device, model string, models names) int {
	if model == "" {
		return len(devices)
	}
	number, known := models[model]
	if !known {
		return 0
	}
	count := 0
	for _, d := range devices {
		if d.model == number {
			count++
		}
	}
	return count
}

// remaining is the dominant share of what is left of a node after one task: the largest
// part of any of its resources. Products are rounded one by one (no fused operations),
// so that every machine finds the same.
func remaining(n *node, want *need) float64 {
	share := max(
		float64(float64(n.milli-want.ask.MilliCPU)*n.perMilli),
		float64(float64(n.memory-want.ask.Memory)*n.perMemory),
	)
	if len(n.capDevices) > 0 {
		share = max(share, float64(float64(len(n.devices)-int(want.ask.GPUs))*n.perDevice))
	}
	return share
}

// take gives one task of the role its room on the node.
func take(n *node, want *need, models names) cluster.Allocation {
	n.milli -= want.ask.MilliCPU
	n.memory -= want.ask.Memory
	return cluster.Allocation{Node: n.id, Resources: cluster.Resources{
		MilliCPU: want.ask.MilliCPU, Memory: want.ask.Memory,
		Devices: takeDevices(n, int(want.ask.GPUs), want.ask.GPUModel, models),
		Ports:   takePorts(n, int(want.ask.Ports)),
	}}
}

func takeDevices(n *node, count int, model string, models names) []string {
	if count == 0 {
		return nil
	}
	number := models[model]
	if model == "" {
		number = tightestModel(n.devices, count)
	}
	var taken []string
	left := make([]device, 0, len(n.devices))
	for _, d := range n.devices {
		if len(taken) < count && (number == 0 || d.model == number) {
			taken = append(taken, d.uuid)
		} else {
			left = append(left, d)
		}
	}
	n.devices = left
	slices.Sort(taken)
	return taken
}

// tightestModel is the model with the fewest free devices that are still enough, or 0
// if only a mixture is.
func tightestModel(devices []device, count int) int32 {
	best, least := int32(0), 0
	for i := 0; i < len(devices); {
		j := i
		for j < len(devices) && devices[j].model == devices[i].model {
			j++
		}
		if free := j - i; free >= count && (best == 0 || free < least) {
			best, least = devices[i].model, free
		}
		i = j
	}
	return best
}

// takePorts takes the next free ports of the node's range, going around at its end. Those
// it takes need not be noted as used: the search goes on behind them, and portsFree runs
// out before it comes back to them.
func takePorts(n *node, count int) []int32 {
	if count == 0 {
		return nil
	}
	taken := make([]int32, 0, count)
	port := n.portNext
	if port < n.portFirst || port > n.portLast {
		port = n.portFirst
	}
	for len(taken) < count {
		if _, isUsed := slices.BinarySearch(n.portsUsed, port); !isUsed {
			taken = append(taken, port)
		}
		port = following(n, port)
	}
	n.portNext = port
	n.portsFree -= int32(count)
	slices.Sort(taken)
	return taken
}
