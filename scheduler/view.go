// Package scheduler decides which waiting gangs are placed, and where. It is pure: the
// same view and the same asks always give the same plan, so that production and the
// simulator run the same code. See DESIGN.md.
package scheduler

import (
	"cmp"
	"maps"
	"slices"

	"github.com/clary-ml/clary/cluster"
)

// View is what the scheduler knows of the nodes: what each has and what is free. Set and
// Delete keep it up to date; Schedule and Explain only read it, so several may run at
// once between two changes.
type View struct {
	nodes  []node                      // sorted by id
	models names                       // of devices
	spread map[string]map[string]int32 // tasks that are spread together, by what and by node
}

// node is compact, so that looking at a thousand of them stays within the cache. The
// slices are never changed in place: a plan that takes from them makes new ones.
type node struct {
	id     string
	labels map[string]string
	ready  bool
	state  cluster.NodeState

	milli, memory       int64 // free
	capMilli, capMemory int64
	perMilli, perMemory float64 // 1 / capacity, 0 for none
	perDevice           float64

	devices    []device // free and healthy, in the order they are given out
	capDevices []device // healthy

	portFirst, portLast int32
	portsFree           int32
	portNext            int32   // where the search for a free port begins
	portsUsed           []int32 // sorted
}

type device struct {
	uuid  string
	model int32
}

// names gives texts small numbers, from 1.
type names map[string]int32

func (n names) intern(text string) int32 {
	number, known := n[text]
	if !known {
		number = int32(len(n) + 1)
		n[text] = number
	}
	return number
}

// NewView returns a view without nodes.
func NewView() *View { return &View{models: names{}, spread: map[string]map[string]int32{}} }

// Len is the number of nodes.
func (v *View) Len() int { return len(v.nodes) }

// Set adds a node or replaces what was known of it. What is used may be more than the
// node has (its agent may have come back with less): then nothing of that is free. Set
// reports whether something may fit now that did not before.
func (v *View) Set(n cluster.Node, used cluster.Resources) (gained bool) {
	made := v.make(n, used)
	i, found := v.find(n.ID)
	if !found {
		v.nodes = slices.Insert(v.nodes, i, made)
		return made.ready
	}
	old := v.nodes[i]
	made.portNext = old.portNext
	v.nodes[i] = made
	return made.gains(&old)
}

// gains reports whether the node offers anything that it did not.
func (n *node) gains(old *node) bool {
	if !n.ready {
		return false
	}
	for _, d := range n.devices {
		if !slices.Contains(old.devices, d) {
			return true
		}
	}
	return !old.ready || n.milli > old.milli || n.memory > old.memory || n.portsFree > old.portsFree || !maps.Equal(n.labels, old.labels)
}

// Delete forgets a node.
func (v *View) Delete(id string) {
	if i, found := v.find(id); found {
		v.nodes = slices.Delete(v.nodes, i, i+1)
	}
}

// Count notes that so many tasks more, or fewer, which are spread together are on a node.
func (v *View) Count(job, spread, node string, tasks int) {
	group := spreadOf(job, spread)
	if group == "" {
		return
	}
	counts := v.spread[group]
	if counts == nil {
		counts = map[string]int32{}
		v.spread[group] = counts
	}
	if counts[node] += int32(tasks); counts[node] == 0 {
		delete(counts, node)
	}
	if len(counts) == 0 {
		delete(v.spread, group)
	}
}

func (v *View) find(id string) (int, bool) {
	return slices.BinarySearchFunc(v.nodes, id, func(n node, id string) int { return cmp.Compare(n.id, id) })
}

func (v *View) make(n cluster.Node, used cluster.Resources) node {
	made := node{
		id: n.ID, labels: n.Labels, ready: n.State == cluster.NodeReady, state: n.State,
		milli: max(0, n.MilliCPU-used.MilliCPU), memory: max(0, n.Memory-used.Memory),
		capMilli: n.MilliCPU, capMemory: n.Memory,
		portFirst: n.PortFirst, portLast: n.PortLast, portNext: n.PortFirst,
	}
	for _, d := range byModel(n.Devices) {
		if d.Kind != cluster.DeviceGPU || !d.Healthy {
			continue
		}
		item := device{d.UUID, v.models.intern(d.Model)}
		made.capDevices = append(made.capDevices, item)
		if !slices.Contains(used.Devices, d.UUID) {
			made.devices = append(made.devices, item)
		}
	}
	made.perMilli, made.perMemory = inverse(n.MilliCPU), inverse(n.Memory)
	made.perDevice = inverse(int64(len(made.capDevices)))
	if n.PortFirst > 0 {
		made.portsFree = n.PortLast - n.PortFirst + 1
		for _, port := range used.Ports {
			if port >= n.PortFirst && port <= n.PortLast {
				made.portsUsed = append(made.portsUsed, port)
			}
		}
		slices.Sort(made.portsUsed)
		made.portsUsed = slices.Compact(made.portsUsed)
		made.portsFree -= int32(len(made.portsUsed))
	}
	return made
}

func inverse(n int64) float64 {
	if n <= 0 {
		return 0
	}
	return 1 / float64(n)
}

// byModel brings devices of one model together, so that a task that takes any model
// gets one kind if it can.
func byModel(devices []cluster.Device) []cluster.Device {
	return slices.SortedFunc(slices.Values(devices), func(a, b cluster.Device) int {
		return cmp.Or(cmp.Compare(a.Model, b.Model), cmp.Compare(a.UUID, b.UUID))
	})
}
