package scheduler

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/clary-ml/clary/cluster"
)

// Explain says what an ask waits for: for each constraint how many nodes it rules out,
// and how short the nearest of them is.
func Explain(view *View, ask Ask, now int64) cluster.Why {
	why := cluster.Why{Gang: ask.ID}
	switch {
	case ask.Stop:
		return waits(why, "stop", "it is being stopped and will not be placed")
	case ask.Held:
		return waits(why, "held", "it is held until it is released")
	case ask.NotBefore > now:
		until := time.Unix(0, ask.NotBefore).UTC().Format(time.RFC3339)
		return waits(why, "backoff", "it restarts in "+short(time.Duration(ask.NotBefore-now))+", at "+until)
	case view.Len() == 0:
		return waits(why, "nodes", "no node has joined the cluster yet")
	}
	w := newWork(view)
	if w.place(ask.Shape) != nil {
		return waits(why, "turn", "there is room for it now: it is placed in a moment")
	}
	_, at := w.try(ask.Shape, ask.Shape.order)
	s := survey{nodes: w.nodes, models: view.models, need: &ask.Shape.roles[at.role], placed: at.placed, word: "free"}
	return s.why(why)
}

// short rounds a wait for people.
func short(d time.Duration) string {
	if d < time.Minute {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

func waits(why cluster.Why, constraint, text string) cluster.Why {
	why.Summary = text
	why.Blocks = []cluster.Block{{Constraint: constraint, Text: text}}
	return why
}

// CouldEverFit reports whether a gang could be placed if nothing else ran and every node
// were ready. It says no only if that is certain: if some role alone, or the sum of all,
// is too much for all nodes together. Without nodes it says yes, since nodes may yet
// join.
func CouldEverFit(nodes []cluster.Node, gang cluster.Gang) (cluster.Why, bool) {
	why := cluster.Why{Gang: gang.ID()}
	if len(nodes) == 0 {
		return why, true
	}
	shape := newShape(gang.Job, gang.Roles)
	for i := range shape.roles {
		need := &shape.roles[i]
		room := int64(0)
		for j := 0; j < len(nodes) && room < int64(need.count); j++ {
			room += holds(&nodes[j], need)
		}
		if room < int64(need.count) {
			return neverFits(why, nodes, need), false
		}
	}
	return tooMuchInAll(why, nodes, gang)
}

// tooMuchInAll compares what all tasks of a gang need together with what all nodes have.
func tooMuchInAll(why cluster.Why, nodes []cluster.Node, gang cluster.Gang) (cluster.Why, bool) {
	var needed, had cluster.Ask
	for _, role := range gang.Roles {
		needed.MilliCPU += int64(role.Count) * role.Ask.MilliCPU
		needed.Memory += int64(role.Count) * role.Ask.Memory
		needed.GPUs += role.Count * role.Ask.GPUs
	}
	for _, node := range nodes {
		had.MilliCPU += node.MilliCPU
		had.Memory += node.Memory
		had.GPUs += int32(len(node.Devices))
	}
	for _, resource := range []struct {
		constraint  string
		needed, had int64
		format      func(int64) string
	}{
		{"cores", needed.MilliCPU, had.MilliCPU, cluster.FormatCores},
		{"memory", needed.Memory, had.Memory, cluster.FormatBytes},
		{"gpus", int64(needed.GPUs), int64(had.GPUs), func(n int64) string { return fmt.Sprintf("%d GPUs", n) }},
	} {
		if resource.needed > resource.had {
			text := fmt.Sprintf("its tasks need %s together, all nodes together have %s", resource.format(resource.needed), resource.format(resource.had))
			why = waits(why, resource.constraint, text)
			why.Blocks[0].Nodes, why.Blocks[0].Missing = int32(len(nodes)), resource.needed-resource.had
			return why, false
		}
	}
	return why, true
}

// neverFits says what is short for a role that the empty nodes cannot hold.
func neverFits(why cluster.Why, nodes []cluster.Node, role *need) cluster.Why {
	view := NewView()
	for _, n := range nodes {
		n.State = cluster.NodeReady
		n.Devices = slices.Clone(n.Devices)
		for i := range n.Devices {
			n.Devices[i].Healthy = true // it may be so again
		}
		view.Set(n, cluster.Resources{})
	}
	alone := *role
	alone.first = 0
	shape := &Shape{roles: []need{alone}, order: []int{0}, size: alone.count}
	w := newWork(view)
	_, at := w.try(shape, shape.order)
	s := survey{nodes: w.nodes, models: view.models, need: &alone, placed: at.placed, word: "in all"}
	return s.why(why)
}

// holds is how many tasks of a role the node takes if nothing else runs.
func holds(n *cluster.Node, need *need) int64 {
	for _, l := range need.labels {
		if value, ok := n.Labels[l.key]; !ok || value != l.value {
			return 0
		}
	}
	most := min(whole(n.MilliCPU, need.ask.MilliCPU), whole(n.Memory, need.ask.Memory))
	if need.ask.Ports > 0 && n.PortFirst > 0 {
		most = min(most, (int64(n.PortLast-n.PortFirst)+1)/int64(need.ask.Ports))
	} else if need.ask.Ports > 0 {
		return 0
	}
	if need.ask.GPUs == 0 || most == 0 {
		return most
	}
	gpus := int64(0)
	for _, d := range n.Devices {
		if d.Kind == cluster.DeviceGPU && (need.ask.GPUModel == "" || need.ask.GPUModel == d.Model) {
			gpus++
		}
	}
	return min(most, gpus/int64(need.ask.GPUs))
}

// whole is how many parts of a size a total holds.
func whole(total, part int64) int64 {
	if part == 0 {
		return cluster.MaxTasks
	}
	return total / part
}

// survey counts what rules the nodes out for one more task of a role.
type survey struct {
	nodes  []node
	models names
	need   *need
	placed int    // tasks of the role that found room
	word   string // what an amount of a node is: free, or in all
	counts [kinds]count
}

// The constraints, in the order in which they are told.
const (
	byState = iota
	byLabels
	byGPUs
	byMemory
	byCores
	byPorts
	kinds
)

var constraints = [kinds]string{"state", "labels", "gpus", "memory", "cores", "ports"}

// count is what one constraint does to the nodes.
type count struct {
	nodes   int32
	none    int32 // of them, nodes that have nothing of the kind at all
	missing int64
	nearest int // index of the node that misses the least; -1 for none
}

func (c *count) add(index int, missing int64, none bool) {
	if c.nodes == 0 || missing < c.missing {
		c.missing, c.nearest = missing, index
	}
	c.nodes++
	if none {
		c.none++
	}
}

func (s *survey) why(why cluster.Why) cluster.Why {
	for i := range s.nodes {
		s.look(i)
	}
	var texts []string
	if s.placed > 0 {
		text := fmt.Sprintf("there is room for %d of the %d together", s.placed, s.need.count)
		why.Blocks = append(why.Blocks, cluster.Block{
			Constraint: "gang", Nodes: int32(len(s.nodes)), Missing: int64(s.need.count - s.placed), Text: text,
		})
		texts = append(texts, text)
	}
	for kind := range s.counts {
		c := &s.counts[kind]
		if c.nodes == 0 {
			continue
		}
		block := cluster.Block{Constraint: constraints[kind], Nodes: c.nodes, Missing: c.missing, Text: s.text(kind, c)}
		if kind != byState && kind != byLabels {
			block.Nearest = s.nodes[c.nearest].id
		}
		why.Blocks = append(why.Blocks, block)
		texts = append(texts, block.Text)
	}
	why.Summary = s.needs() + ": " + strings.Join(texts, "; ")
	return why
}

// look counts what rules out one node. A node that is not ready, or lacks a label, is
// not asked for more.
func (s *survey) look(i int) {
	n, ask := &s.nodes[i], s.need.ask
	switch {
	case !n.ready:
		s.counts[byState].add(i, 0, false)
		return
	case !hasLabels(n, s.need):
		s.counts[byLabels].add(i, 0, false)
		return
	}
	if ask.GPUs > 0 {
		free := matching(n.devices, ask.GPUModel, s.models)
		if missing := int64(ask.GPUs) - int64(free); missing > 0 {
			s.counts[byGPUs].add(i, missing, matching(n.capDevices, ask.GPUModel, s.models) == 0)
		}
	}
	if missing := ask.Memory - n.memory; missing > 0 {
		s.counts[byMemory].add(i, missing, false)
	}
	if missing := ask.MilliCPU - n.milli; missing > 0 {
		s.counts[byCores].add(i, missing, false)
	}
	if missing := int64(ask.Ports - n.portsFree); missing > 0 {
		s.counts[byPorts].add(i, missing, false)
	}
}

// needs reads like "worker needs 8 cores, 32 GiB, 4 GPUs (A100) on one node".
func (s *survey) needs() string {
	if s.need.count == 1 {
		return fmt.Sprintf("%s needs %s on one node", s.need.name, s.need.ask)
	}
	return fmt.Sprintf("each of %d %ss needs %s on one node", s.need.count, s.need.name, s.need.ask)
}

func (s *survey) text(kind int, c *count) string {
	all, ask := len(s.nodes), s.need.ask
	gone := int(s.counts[byState].nodes)
	of := func(n int32, verb string) string { return ofNodes(int(n), all, gone, verb) }
	near := &s.nodes[c.nearest]
	switch kind {
	case byState:
		return ofNodes(gone, all, 0, "is|are") + " not ready (" + s.states() + ")"
	case byLabels:
		var labels []string
		for _, l := range s.need.labels {
			labels = append(labels, l.key+"="+l.value)
		}
		return of(c.nodes, "has|have") + " not the labels " + strings.Join(labels, ", ")
	case byGPUs:
		if c.none == c.nodes {
			return of(c.none, "has|have") + " no such GPU"
		}
		text := ""
		if c.none > 0 {
			text = of(c.none, "has|have") + " no such GPU, "
		}
		return text + fmt.Sprintf("the nearest (%s) has %d %s of the %d it takes", near.id, int64(ask.GPUs)-c.missing, s.word, ask.GPUs)
	case byMemory:
		return of(c.nodes, "has|have") + fmt.Sprintf(" too little memory, the nearest (%s) has %s %s", near.id, cluster.FormatBytes(near.memory), s.word)
	case byCores:
		return of(c.nodes, "has|have") + fmt.Sprintf(" too few cores, the nearest (%s) has %s %s", near.id, cluster.FormatCores(near.milli), s.word)
	}
	return of(c.nodes, "has|have") + fmt.Sprintf(" too few ports, the nearest (%s) has %d %s", near.id, near.portsFree, s.word)
}

func (s *survey) states() string {
	counts := map[cluster.NodeState]int{}
	for i := range s.nodes {
		counts[s.nodes[i].state]++
	}
	var parts []string
	for _, state := range []cluster.NodeState{cluster.NodeDraining, cluster.NodeLost} {
		if counts[state] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[state], state))
		}
	}
	return strings.Join(parts, ", ")
}

// ofNodes reads like "3 of 5 nodes have" or "the only node has"; verb is "has|have".
// Those that are gone were told of before.
func ofNodes(n, all, gone int, verb string) string {
	one, many, _ := strings.Cut(verb, "|")
	switch {
	case all == 1:
		return "the only node " + one
	case n == all:
		return fmt.Sprintf("all %d nodes %s", all, many)
	case gone > 0 && n == all-gone && n > 1:
		return fmt.Sprintf("all other %d nodes %s", n, many)
	case n == 1:
		return fmt.Sprintf("1 of %d nodes %s", all, one)
	}
	return fmt.Sprintf("%d of %d nodes %s", n, all, many)
}
