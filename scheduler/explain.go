package scheduler

import (
	"fmt"
	"slices"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler/room"
)

// Explain says what an ask waits for: for each constraint how many nodes it rules out,
// and how short the nearest of them is.
func Explain(view *room.Map, ask Ask, now int64) cluster.Why {
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
	m := view.Clone()
	shape := ask.ShapeIn(m, ask.Shape)
	if allocations, _ := m.Take(shape); allocations != nil {
		return waits(why, "turn", "there is room for it now: it is placed in a moment")
	}
	return stuck(why, m, shape, "free")
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
	shape := room.NewShape(gang.Job, gang.Roles)
	for i := range shape.Roles {
		need := &shape.Roles[i]
		hold := int64(0)
		for j := 0; j < len(nodes) && hold < int64(need.Count); j++ {
			hold += need.CouldHold(&nodes[j])
		}
		if hold < int64(need.Count) {
			return neverFits(why, nodes, shape.Only(i)), false
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
		if role.Ask.MIG == "" {
			needed.GPUs += role.Count * role.Ask.GPUs
		}
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
func neverFits(why cluster.Why, nodes []cluster.Node, role *room.Shape) cluster.Why {
	m := room.New(nil)
	for _, n := range nodes {
		n.State = cluster.NodeReady
		n.Devices = slices.Clone(n.Devices)
		for i := range n.Devices {
			n.Devices[i].Healthy = true // it may be so again
		}
		n.Revision = 0
		m.Set(n, cluster.Resources{})
	}
	return stuck(why, m, role, "in all")
}

// stuck fills the map with as much of the gang as fits, and says what rules the nodes out for the rest.
func stuck(why cluster.Why, m *room.Map, shape *room.Shape, word string) cluster.Why {
	if why, is := apart(why, m, shape); is {
		return why
	}
	at := m.Fill(shape)
	s := survey{room: m, need: &shape.Roles[at.Role], placed: at.Placed, word: word}
	return s.why(why)
}
