package room

import (
	"iter"

	"github.com/clary-ml/clary/cluster"
)

// Offer is what one node has for one more task of a role: all that may be looked at to say why it does
// not do.
type Offer struct {
	ID          string
	State       cluster.NodeState
	Labels      map[string]string
	Milli       int64 // free
	Memory      int64
	Ports       int32
	GPUs        int // of the models that are asked for, used by nobody
	HealthyGPUs int // of these models, used or not
}

// Ready reports whether the node takes tasks at all.
func (o *Offer) Ready() bool { return o.State == cluster.NodeReady }

var states = [...]cluster.NodeState{ready: cluster.NodeReady, draining: cluster.NodeDraining, lost: cluster.NodeLost}

// Offers goes over what every node has for one more task of a role, in the order of the nodes' IDs. It reads the map
// only; an offer is good until the next.
func (m *Map) Offers(need *Need) iter.Seq[*Offer] {
	return func(yield func(*Offer) bool) {
		if m.untidy {
			m = m.Clone()
			m.tidy()
		}
		r := need.class.request
		r.Models = m.modelsOf(need.class.models)
		for place := range m.nodes {
			n := &m.nodes[place]
			if n.phase == gone {
				continue
			}
			o := Offer{
				ID: m.fixed.ids[place], State: states[n.phase], Labels: m.fixed.kinds[n.Kind],
				Milli: int64(max(0, n.Milli)), Memory: max(0, n.Memory), Ports: n.Ports,
			}
			if devices := m.devicesOf(n); r.GPUs > 0 {
				o.GPUs = int(countWhole(devices, &r))
				for i := range devices {
					if r.Likes(devices[i].Model) {
						o.HealthyGPUs++
					}
				}
			}
			if !yield(&o) {
				return
			}
		}
	}
}

// CouldHold is how many tasks of a role a node takes if it is healthy and nothing else runs on it; at most
// cluster.MaxTasks.
func (need *Need) CouldHold(n *cluster.Node) int64 {
	if !hasLabels(n.Labels, need.Labels) {
		return 0
	}
	ask := &need.Ask
	most := min(whole(n.MilliCPU, ask.MilliCPU), whole(n.Memory, ask.Memory))
	if ask.Ports > 0 && n.PortFirst > 0 {
		most = min(most, (int64(n.PortLast-n.PortFirst)+1)/int64(ask.Ports))
	} else if ask.Ports > 0 {
		return 0
	}
	if ask.GPUs == 0 || most == 0 {
		return most
	}
	gpus := int64(0)
	for _, d := range n.Devices {
		if d.Kind == cluster.DeviceGPU && (ask.GPUModel == "" || ask.GPUModel == d.Model) {
			gpus++
		}
	}
	return min(most, gpus/int64(ask.GPUs))
}

// whole is how many parts of a size a total holds.
func whole(total, part int64) int64 {
	if part == 0 {
		return cluster.MaxTasks
	}
	return total / part
}
