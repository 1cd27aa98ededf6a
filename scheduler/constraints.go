package scheduler

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler/room"
)

// constraint is one thing that can rule a node out. A new one is a new row of constraints:
// nothing else of Explain needs to know it.
type constraint struct {
	name string
	// final: a node that it rules out is not asked for anything further, since no amount of
	// anything else would help.
	final bool
	// short says how much a node lacks, in the constraint's own unit: 0 is enough. With none
	// the node has nothing of the kind at all, however long one waits.
	short func(o *room.Offer, want *room.Need) (missing int64, none bool)
	// says tells what it does to the nodes, as the end of "worker needs 1 core on one node: ".
	says func(s *survey, c *count) string
}

// constraints are told in this order, and a node is asked in this order.
var constraints = []constraint{
	{"state", true, shortState, (*survey).saysState},
	{"labels", true, shortLabels, (*survey).saysLabels},
	{"constraints", true, shortConstraints, (*survey).saysConstraints},
	{"taints", true, shortTaints, (*survey).saysTaints},
	{"affinity", true, shortAffinity, (*survey).saysAffinity},
	{"gpus", false, shortGPUs, (*survey).saysGPUs},
	{"shares", false, shortShares, (*survey).saysShares},
	{"slots", false, shortSlots, (*survey).saysSlots},
	{"memory", false, shortMemory, (*survey).saysMemory},
	{"cores", false, shortCores, (*survey).saysCores},
	{"ports", false, shortPorts, (*survey).saysPorts},
}

func shortState(o *room.Offer, _ *room.Need) (int64, bool) { return one(!o.Ready()), false }

func (s *survey) saysState(c *count) string {
	states := map[string]int{}
	for o := range s.room.Offers(s.need) {
		states[o.State]++
	}
	var parts []string
	for _, state := range slices.Sorted(maps.Keys(states)) {
		if state != string(cluster.NodeReady) {
			parts = append(parts, fmt.Sprintf("%d %s", states[state], state))
		}
	}
	return ofNodes(int(c.nodes), s.room.Len(), 0, "is|are") + " not ready (" + strings.Join(parts, ", ") + ")"
}

// shortLabels counts the labels that a node has not, or has with another value.
func shortLabels(o *room.Offer, want *room.Need) (missing int64, none bool) {
	for _, l := range want.Labels {
		if value, ok := o.Labels[l.Key]; !ok || value != l.Value {
			missing++
		}
	}
	return missing, false
}

func (s *survey) saysLabels(c *count) string {
	var labels []string
	for _, l := range s.need.Labels {
		labels = append(labels, l.Key+"="+l.Value)
	}
	return s.of(c.nodes, "has|have") + " not the labels " + strings.Join(labels, ", ")
}

func shortGPUs(o *room.Offer, want *room.Need) (int64, bool) {
	if want.Ask.MIG != "" {
		return 0, false
	}
	return int64(want.Ask.GPUs) - int64(o.GPUs), o.HealthyGPUs == 0
}

func (s *survey) saysGPUs(c *count) string {
	if c.none == c.nodes {
		return s.of(c.none, "has|have") + " no such GPU"
	}
	text := ""
	if c.none > 0 {
		text = s.of(c.none, "has|have") + " no such GPU, "
	}
	return text + fmt.Sprintf("the nearest (%s) has %d %s of the %d it takes", c.nearest.ID, c.nearest.GPUs, s.word, s.need.Ask.GPUs)
}

func shortMemory(o *room.Offer, want *room.Need) (int64, bool) {
	return want.Ask.Memory - o.Memory, false
}

func (s *survey) saysMemory(c *count) string {
	return s.tooFew(c, "too little memory", cluster.FormatBytes(c.nearest.Memory))
}

func shortCores(o *room.Offer, want *room.Need) (int64, bool) {
	return want.Ask.MilliCPU - o.Milli, false
}

func (s *survey) saysCores(c *count) string {
	return s.tooFew(c, "too few cores", cluster.FormatCores(c.nearest.Milli))
}

func shortPorts(o *room.Offer, want *room.Need) (int64, bool) {
	return int64(want.Ask.Ports - o.Ports), false
}

func (s *survey) saysPorts(c *count) string {
	return s.tooFew(c, "too few ports", fmt.Sprint(c.nearest.Ports))
}

// tooFew reads like "2 of 5 nodes have too few cores, the nearest (n3) has 1 core free".
func (s *survey) tooFew(c *count, what, has string) string {
	return s.of(c.nodes, "has|have") + fmt.Sprintf(" %s, the nearest (%s) has %s %s", what, c.nearest.ID, has, s.word)
}

func one(yes bool) int64 {
	if yes {
		return 1
	}
	return 0
}
