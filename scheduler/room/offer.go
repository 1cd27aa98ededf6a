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
	GPUs        int // of the models that are asked for, used by nobody or with room for the share that is asked for
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
			for i, devices := 0, m.devicesOf(n); i < len(devices); i++ {
				d := &devices[i]
				if d.Whole() && r.Likes(d.Model) && !r.shares() || r.shares() && r.FitsShare(d) {
					o.GPUs++
				}
				if r.Likes(d.Model) {
					o.HealthyGPUs++
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
	if ask.GPUs == 0 && !ask.Shares() || most == 0 {
		return most
	}
	gpus := int64(0) // or places for shares
	for _, d := range n.Devices {
		switch share, fits := ask.ShareOf(d); {
		case d.Kind != cluster.DeviceGPU || d.Partitioned || !ask.Likes(d):
		case !ask.Shares():
			gpus++
		case fits:
			gpus += min(whole(cluster.WholeGPU, int64(share.Milli)), whole(d.Memory, share.Memory))
		}
	}
	return min(most, gpus/int64(max(1, ask.GPUs)))
}

// whole is how many parts of a size a total holds.
func whole(total, part int64) int64 {
	if part == 0 {
		return cluster.MaxTasks
	}
	return total / part
}
