package scheduler

import (
	"fmt"
	"slices"
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
