package room

import (
	"iter"
	"slices"

	"github.com/clary-ml/clary/cluster"
)

// Offer is what one node has for one more task of a role: all that may be looked at to say why it does
// not do.
type Offer struct {
	ID          string
	State       string // as people read it
	Labels      map[string]string
	Milli       int64 // free
	Memory      int64
	Ports       int32
	GPUs        int // of the models that are asked for, used by nobody or with room for the share that is asked for
	HealthyGPUs int // of these models, used or not
	Parts       Parts
	Unmet       string // a required constraint on nodes that is not met, or a taint that is not tolerated; "" is none
	Tainted     bool   // Unmet is a taint
	Barred      bool   // by a required affinity
}

// Parts are what there is of GPUs that are given in parts.
type Parts struct {
	Milli  int32 // the most that is free on one device that may be shared, in thousandths
	Memory int64 // and in bytes, maybe on another
	Fits   bool  // one of them has both
	Any    bool  // there is such a device at all, or one with slots of the profile that is asked for
	Slots  int   // free ones
}

// Ready reports whether the node takes tasks at all.
func (o *Offer) Ready() bool { return o.State == states[ready] }

var states = [...]string{ready: string(cluster.NodeReady), draining: string(cluster.NodeDraining), lost: string(cluster.NodeLost), cordoned: "cordoned"}

// Offers goes over what every node has for one more task of a role, in the order of the nodes' IDs. It reads the map
// only; an offer is good until the next.
func (m *Map) Offers(need *Need) iter.Seq[*Offer] {
	return func(yield func(*Offer) bool) {
		var barred *look
		if m.untidy {
			m = m.Clone()
			m.tidy()
		}
		if need.guest != nil || need.wish != nil && len(need.wish.affinities) > 0 {
			m = m.Clone()
			barred = m.lookFor(m.classOf(need), need, m.groupOf(need.Spread))
		}
		r := m.requestOf(need)
		for place := range m.nodes {
			n := &m.nodes[place]
			if n.phase == gone {
				continue
			}
			o := Offer{
				ID: m.fixed.ids[place], State: states[n.phase], Labels: m.fixed.kinds[n.Kind].labels,
				Milli: int64(max(0, n.Milli)), Memory: max(0, n.Memory), Ports: n.Ports,
			}
			o.Unmet, o.Tainted = m.unmet(need, int32(place))
			o.Barred = barred != nil && barred.ruledOut(int32(place))
			o.Parts = m.partsOf(n, &r)
			for i, devices := 0, m.devicesOf(n); i < len(devices); i++ {
				d := &devices[i]
				if d.Whole() && r.Likes(d.Model) && !r.shares() || r.shares() && r.FitsShare(d) {
					o.GPUs++
				}
				if r.Likes(d.Model) && d.layout == 0 {
					o.HealthyGPUs++
				}
			}
			if !yield(&o) {
				return
			}
		}
	}
}

// unmet names what a node is not like, or the taint that keeps off.
func (m *Map) unmet(need *Need, place int32) (text string, tainted bool) {
	traits := m.traits(place)
	for _, c := range need.Constraints {
		if c.Weight == 0 && !c.Allows(traits) {
			return c.String(), false
		}
	}
	taints := m.fixed.kinds[m.nodes[place].Kind].taints
	if taint, is := (cluster.Role{Tolerations: need.Tolerations}).Intolerable(taints, cluster.EffectNoPlace); is {
		return taint.String(), true
	}
	return "", false
}

// partsOf looks at a node's devices for a share or a slot.
func (m *Map) partsOf(n *State, r *Request) Parts {
	var p Parts
	if !r.shares() && r.Profile == 0 {
		return p
	}
	p.Slots = int(m.countSlots(n, r))
	for _, d := range m.devicesOf(n) {
		switch {
		case !r.Likes(d.Model):
		case d.layout != 0:
			p.Any = p.Any || r.Profile != 0 && m.fixed.profile(d.layout, r.Profile) != nil
		case r.shares():
			p.Any = true
			p.Milli, p.Memory = max(p.Milli, int32(d.Milli)), max(p.Memory, d.Memory)
			p.Fits = p.Fits || r.FitsShare(&d)
		}
	}
	return p
}

// CouldHold is how many tasks of a role a node takes if it is healthy, nothing else runs on it and nobody has tainted it; at
// most cluster.MaxTasks.
func (need *Need) CouldHold(n *cluster.Node) int64 {
	if !hasLabels(n.Labels, need.Labels) {
		return 0
	}
	node := *n
	node.State, node.Taints, node.Devices = cluster.NodeReady, nil, slices.Clone(n.Devices)
	for i := range node.Devices {
		node.Devices[i].Healthy = true // it may be so again
	}
	m := New(nil)
	m.Set(node, cluster.Resources{})
	c := &class{request: m.requestOf(need), filter: m.filterOf(need)}
	if m.score(0, c) == NoFit {
		return 0
	}
	return int64(m.holds(0, &c.request, cluster.MaxTasks))
}
