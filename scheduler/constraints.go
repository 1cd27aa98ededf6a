package scheduler

import (
	"fmt"
	"strings"

	"github.com/clary-ml/clary/cluster"
)

// offer is what one node has for one more task of a role: all that the table of
// constraints may look at.
type offer struct {
	id          string
	state       cluster.NodeState
	ready       bool
	labels      map[string]string
	milli       int64
	memory      int64
	ports       int32
	gpus        int // of the model that is asked for, free
	healthyGPUs int // of that model, free or not
}

// offerOf reads a node for a role.
func offerOf(n *node, want *need, models names) offer {
	o := offer{id: n.id, state: n.state, ready: n.ready, labels: n.labels, milli: n.milli, memory: n.memory, ports: n.portsFree}
	if want.ask.GPUs > 0 {
		o.gpus = matching(n.devices, want.ask.GPUModel, models)
		o.healthyGPUs = matching(n.capDevices, want.ask.GPUModel, models)
	}
	return o
}

// constraint is one thing that can rule a node out. A new one is a new row of constraints:
// nothing else of Explain needs to know it.
type constraint struct {
	name string
	// final: a node that it rules out is not asked for anything further, since no amount of
	// anything else would help.
	final bool
	// short says how much a node lacks, in the constraint's own unit: 0 is enough. With none
	// the node has nothing of the kind at all, however long one waits.
	short func(o *offer, want *need) (missing int64, none bool)
	// says tells what it does to the nodes, as the end of "worker needs 1 core on one node: ".
	says func(s *survey, c *count) string
}

// constraints are told in this order, and a node is asked in this order.
var constraints = []constraint{
	{"state", true, shortState, (*survey).saysState},
	{"labels", true, shortLabels, (*survey).saysLabels},
	{"gpus", false, shortGPUs, (*survey).saysGPUs},
	{"memory", false, shortMemory, (*survey).saysMemory},
	{"cores", false, shortCores, (*survey).saysCores},
	{"ports", false, shortPorts, (*survey).saysPorts},
}

func shortState(o *offer, _ *need) (int64, bool) { return one(!o.ready), false }

func (s *survey) saysState(c *count) string {
	states := map[cluster.NodeState]int{}
	for i := range s.nodes {
		states[s.nodes[i].state]++
	}
	var parts []string
	for _, state := range []cluster.NodeState{cluster.NodeDraining, cluster.NodeLost} {
		if states[state] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", states[state], state))
		}
	}
	return ofNodes(int(c.nodes), len(s.nodes), 0, "is|are") + " not ready (" + strings.Join(parts, ", ") + ")"
}

// shortLabels counts the labels that a node has not, or has with another value.
func shortLabels(o *offer, want *need) (missing int64, none bool) {
	for _, l := range want.labels {
		if value, ok := o.labels[l.key]; !ok || value != l.value {
			missing++
		}
	}
	return missing, false
}

func (s *survey) saysLabels(c *count) string {
	var labels []string
	for _, l := range s.need.labels {
		labels = append(labels, l.key+"="+l.value)
	}
	return s.of(c.nodes, "has|have") + " not the labels " + strings.Join(labels, ", ")
}

func shortGPUs(o *offer, want *need) (int64, bool) {
	return int64(want.ask.GPUs) - int64(o.gpus), o.healthyGPUs == 0
}

func (s *survey) saysGPUs(c *count) string {
	if c.none == c.nodes {
		return s.of(c.none, "has|have") + " no such GPU"
	}
	text := ""
	if c.none > 0 {
		text = s.of(c.none, "has|have") + " no such GPU, "
	}
	return text + fmt.Sprintf("the nearest (%s) has %d %s of the %d it takes", c.nearest.id, c.nearest.gpus, s.word, s.need.ask.GPUs)
}

func shortMemory(o *offer, want *need) (int64, bool) { return want.ask.Memory - o.memory, false }

func (s *survey) saysMemory(c *count) string {
	return s.tooFew(c, "too little memory", cluster.FormatBytes(c.nearest.memory))
}

func shortCores(o *offer, want *need) (int64, bool) { return want.ask.MilliCPU - o.milli, false }

func (s *survey) saysCores(c *count) string {
	return s.tooFew(c, "too few cores", cluster.FormatCores(c.nearest.milli))
}

func shortPorts(o *offer, want *need) (int64, bool) { return int64(want.ask.Ports - o.ports), false }

func (s *survey) saysPorts(c *count) string {
	return s.tooFew(c, "too few ports", fmt.Sprint(c.nearest.ports))
}

// tooFew reads like "2 of 5 nodes have too few cores, the nearest (n3) has 1 core free".
func (s *survey) tooFew(c *count, what, has string) string {
	return s.of(c.nodes, "has|have") + fmt.Sprintf(" %s, the nearest (%s) has %s %s", what, c.nearest.id, has, s.word)
}

func one(yes bool) int64 {
	if yes {
		return 1
	}
	return 0
}
