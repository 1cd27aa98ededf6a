package scheduler_test

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler"
	"github.com/clary-ml/clary/scheduler/room"
	"pgregory.net/rapid"
)

// cell is a drawn cluster with what is used and what waits.
type cell struct {
	nodes []cluster.Node
	used  map[string]cluster.Resources
	gangs []cluster.Gang
	now   int64
	there map[string]map[string]int // by job and node: tasks that a job's are spread with
}

func (c cell) view(order []int) *room.Map {
	view := room.New(nil)
	for _, i := range order {
		view.Set(c.nodes[i], c.used[c.nodes[i].ID])
		for job, on := range c.there {
			view.Count(job, "same", c.nodes[i].ID, on[c.nodes[i].ID])
		}
	}
	return view
}

func (c cell) asks() []scheduler.Ask {
	asks := make([]scheduler.Ask, len(c.gangs))
	for i, gang := range c.gangs {
		asks[i] = scheduler.NewAsk(gang)
	}
	return asks
}

func (c cell) forward() []int {
	order := make([]int, len(c.nodes))
	for i := range order {
		order[i] = i
	}
	return order
}

func drawCell(t *rapid.T) cell {
	c := cell{used: map[string]cluster.Resources{}, now: 100, there: map[string]map[string]int{}}
	for i := range rapid.IntRange(0, 6).Draw(t, "nodes") {
		n := cluster.Node{
			ID: fmt.Sprintf("node-%d", i), Address: "x", State: cluster.NodeReady,
			MilliCPU: rapid.Int64Range(0, 8).Draw(t, "cores") * 500, Memory: rapid.Int64Range(0, 8).Draw(t, "memory"),
			Labels: map[string]string{"zone": rapid.SampledFrom([]string{"a", "b"}).Draw(t, "zone")},
		}
		if rapid.IntRange(0, 5).Draw(t, "ready") == 0 {
			n.State = cluster.NodeDraining
		}
		if ports := rapid.Int32Range(0, 4).Draw(t, "ports"); ports > 0 {
			n.PortFirst, n.PortLast = 7000, 7000+ports-1
		}
		used := cluster.Resources{MilliCPU: rapid.Int64Range(0, 4).Draw(t, "used cores") * 500, Memory: rapid.Int64Range(0, 3).Draw(t, "used memory")}
		for d := range rapid.IntRange(0, 4).Draw(t, "gpus") {
			uuid := fmt.Sprintf("gpu-%d-%d", i, d)
			n.Devices = append(n.Devices, cluster.Device{
				UUID: uuid, Kind: cluster.DeviceGPU, Model: rapid.SampledFrom([]string{"A100", "T4"}).Draw(t, "model"),
				Healthy: rapid.IntRange(0, 5).Draw(t, "healthy") > 0,
			})
			if rapid.IntRange(0, 3).Draw(t, "gpu used") == 0 {
				used.Devices = append(used.Devices, uuid)
			}
		}
		if n.PortFirst > 0 && rapid.Bool().Draw(t, "port used") {
			used.Ports = []int32{n.PortFirst}
		}
		c.nodes, c.used[n.ID] = append(c.nodes, n), used
	}
	for i := range rapid.IntRange(0, 12).Draw(t, "gangs") {
		gang := drawGang(t, i)
		c.gangs = append(c.gangs, gang)
		if gang.Roles[0].Spread != "" {
			c.there[gang.Job] = map[string]int{}
			for _, n := range c.nodes {
				c.there[gang.Job][n.ID] = rapid.IntRange(0, 3).Draw(t, "there")
			}
		}
	}
	return c
}

func drawGang(t *rapid.T, i int) cluster.Gang {
	g := cluster.Gang{
		Job: fmt.Sprintf("job-%d", i), Name: "main", Attempt: 1, Revision: uint64(i + 1),
		Priority: rapid.Int32Range(0, 2).Draw(t, "priority"), Submitted: rapid.Int64Range(0, 3).Draw(t, "submitted"),
		Held: rapid.IntRange(0, 9).Draw(t, "held") == 0, NotBefore: rapid.SampledFrom([]int64{0, 0, 0, 100, 101}).Draw(t, "not before"),
	}
	for r := range rapid.IntRange(1, 3).Draw(t, "roles") {
		role := cluster.Role{
			Name: fmt.Sprintf("role-%d", r), Count: rapid.Int32Range(1, 4).Draw(t, "count"),
			Ask: cluster.Ask{
				MilliCPU: rapid.Int64Range(0, 3).Draw(t, "ask cores") * 500, Memory: rapid.Int64Range(0, 3).Draw(t, "ask memory"),
				GPUs: rapid.SampledFrom([]int32{0, 0, 0, 1, 2}).Draw(t, "ask gpus"), Ports: rapid.SampledFrom([]int32{0, 0, 1, 2}).Draw(t, "ask ports"),
			},
		}
		if role.Ask.GPUs > 0 {
			role.Ask.GPUModel = rapid.SampledFrom([]string{"", "A100", "T4", "H100"}).Draw(t, "ask model")
		}
		if rapid.IntRange(0, 3).Draw(t, "labelled") == 0 {
			role.Labels = map[string]string{"zone": rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "ask zone")}
		}
		g.Roles = append(g.Roles, role)
	}
	if len(g.Roles) == 1 && rapid.IntRange(0, 2).Draw(t, "spread") == 0 {
		g.Roles[0].Spread = "same"
	}
	return g
}

// commit checks a plan against the nodes one allocation at a time, as the ledger does,
// and returns what then is used.
func (c cell) commit(plan cluster.Plan) (map[string]cluster.Resources, error) {
	used := map[string]cluster.Resources{}
	for id, u := range c.used {
		used[id] = cluster.Resources{MilliCPU: u.MilliCPU, Memory: u.Memory, Devices: slices.Clone(u.Devices), Ports: slices.Clone(u.Ports)}
	}
	seen := map[string]bool{}
	for _, p := range plan.Placements {
		i := slices.IndexFunc(c.gangs, func(g cluster.Gang) bool { return g.ID() == p.Gang })
		if i < 0 || seen[p.Gang] {
			return nil, fmt.Errorf("%s is placed twice or was never asked for", p.Gang)
		}
		seen[p.Gang] = true
		gang := c.gangs[i]
		if len(p.Allocations) != gang.Size() || p.Revision != gang.Revision || p.Attempt != gang.Attempt {
			return nil, fmt.Errorf("%s: %d allocations for %d tasks", p.Gang, len(p.Allocations), gang.Size())
		}
		if gang.Held || gang.NotBefore > c.now {
			return nil, fmt.Errorf("%s is held or backs off", p.Gang)
		}
		at := 0
		for _, role := range gang.Roles {
			for range role.Count {
				if err := c.take(used, role, p.Allocations[at]); err != nil {
					return nil, fmt.Errorf("%s task %d: %w", p.Gang, at, err)
				}
				at++
			}
		}
	}
	return used, nil
}

func (c cell) take(used map[string]cluster.Resources, role cluster.Role, a cluster.Allocation) error {
	i := slices.IndexFunc(c.nodes, func(n cluster.Node) bool { return n.ID == a.Node })
	if i < 0 {
		return fmt.Errorf("node %q does not exist", a.Node)
	}
	node, u, r := c.nodes[i], used[a.Node], a.Resources
	u.MilliCPU += r.MilliCPU
	u.Memory += r.Memory
	switch {
	case node.State != cluster.NodeReady:
		return fmt.Errorf("node is %s", node.State)
	case r.MilliCPU != role.Ask.MilliCPU || r.Memory != role.Ask.Memory:
		return fmt.Errorf("got %v, asked %v", r, role.Ask)
	case r.MilliCPU > 0 && u.MilliCPU > node.MilliCPU || r.Memory > 0 && u.Memory > node.Memory:
		return fmt.Errorf("node oversold: %v of %v", u, node.Capacity())
	case len(r.Devices) != int(role.Ask.GPUs) || len(r.Ports) != int(role.Ask.Ports):
		return fmt.Errorf("got %v, asked %v", r, role.Ask)
	}
	for key, value := range role.Labels {
		if node.Labels[key] != value {
			return fmt.Errorf("label %s=%s is missing", key, value)
		}
	}
	for _, uuid := range r.Devices {
		d := slices.IndexFunc(node.Devices, func(d cluster.Device) bool { return d.UUID == uuid })
		if d < 0 || !node.Devices[d].Healthy || role.Ask.GPUModel != "" && node.Devices[d].Model != role.Ask.GPUModel || slices.Contains(u.Devices, uuid) {
			return fmt.Errorf("device %s is not to be had", uuid)
		}
		u.Devices = append(u.Devices, uuid)
	}
	for _, port := range r.Ports {
		if port < node.PortFirst || port > node.PortLast || slices.Contains(u.Ports, port) {
			return fmt.Errorf("port %d is not to be had", port)
		}
		u.Ports = append(u.Ports, port)
	}
	used[a.Node] = u
	return nil
}

// room counts how many tasks of a role the ready nodes take, by dividing.
func (c cell) room(used map[string]cluster.Resources, role cluster.Role) int64 {
	total := int64(0)
	for _, n := range c.nodes {
		if n.State != cluster.NodeReady || role.Labels["zone"] != "" && n.Labels["zone"] != role.Labels["zone"] {
			continue
		}
		u, fit := used[n.ID], int64(1<<20)
		divide := func(free, part int64) {
			if part > 0 {
				fit = min(fit, max(free, 0)/part)
			}
		}
		divide(n.MilliCPU-u.MilliCPU, role.Ask.MilliCPU)
		divide(n.Memory-u.Memory, role.Ask.Memory)
		gpus, ports := int64(0), int64(0)
		for _, d := range n.Devices {
			if d.Healthy && !slices.Contains(u.Devices, d.UUID) && (role.Ask.GPUModel == "" || role.Ask.GPUModel == d.Model) {
				gpus++
			}
		}
		for port := n.PortFirst; n.PortFirst > 0 && port <= n.PortLast; port++ {
			if !slices.Contains(u.Ports, port) {
				ports++
			}
		}
		divide(gpus, int64(role.Ask.GPUs))
		divide(ports, int64(role.Ask.Ports))
		total += fit
	}
	return total
}

func TestLaws(t *testing.T) {
	counted := map[string]int{}
	law := func(t *rapid.T) {
		c := drawCell(t)
		plan := schedule(c.view(c.forward()), c.asks(), c.now)

		used, err := c.commit(plan)
		if err != nil {
			t.Fatal("oversells: ", err)
		}
		counted["placed"] += len(plan.Placements)
		for _, p := range plan.Placements {
			for _, a := range p.Allocations {
				counted["device"] += len(a.Resources.Devices)
				counted["port"] += len(a.Resources.Ports)
			}
		}

		asks := c.asks()
		order := c.forward()
		slices.Reverse(order)
		for i := range c.nodes {
			slices.Reverse(c.nodes[i].Devices)
		}
		slices.Reverse(asks)
		if again := schedule(c.view(order), asks, c.now); !reflect.DeepEqual(plan, again) {
			t.Fatalf("the same question got another plan:\n%v\n%v", plan, again)
		}

		c.conserves(t, plan, used, counted)
		c.spreads(t, plan, counted)
		c.firstComesFirst(t, plan, counted)
	}
	for range 10 { // a hundred clusters are too few to meet every tie
		rapid.Check(t, law)
	}
	for _, what := range []string{"placed", "device", "port", "waits", "explained", "never", "passed over", "first", "spread"} {
		if counted[what] == 0 {
			t.Errorf("%s was never exercised: %v", what, counted)
		}
	}
	t.Log(counted)
}

// conserves: whatever is left waiting does not fit into what remains, and is told why.
func (c cell) conserves(t *rapid.T, plan cluster.Plan, used map[string]cluster.Resources, counted map[string]int) {
	after := cell{nodes: c.nodes, used: used, now: c.now}
	view := after.view(after.forward())
	for _, gang := range c.gangs {
		placed := slices.ContainsFunc(plan.Placements, func(p cluster.Placement) bool { return p.Gang == gang.ID() })
		if placed {
			continue
		}
		ask := scheduler.NewAsk(gang)
		why := scheduler.Explain(view, ask, c.now)
		if why.Summary == "" || len(why.Blocks) == 0 {
			t.Fatalf("%s waits and nobody says why", gang.ID())
		}
		counted["explained"]++
		if ask.Waits(c.now) {
			continue
		}
		counted["waits"]++
		if more := schedule(view, []scheduler.Ask{ask}, c.now); len(more.Placements) > 0 {
			t.Fatalf("%s waits though it fits: %v", gang.ID(), more)
		}
		if len(gang.Roles) == 1 && after.room(used, gang.Roles[0]) >= int64(gang.Roles[0].Count) {
			t.Fatalf("%s waits though there is room for %d of its %d", gang.ID(), after.room(used, gang.Roles[0]), gang.Roles[0].Count)
		}
		empty := cell{nodes: slices.Clone(c.nodes)}
		for i := range empty.nodes {
			empty.nodes[i].State = cluster.NodeReady
			empty.nodes[i].Devices = slices.Clone(empty.nodes[i].Devices)
			for d := range empty.nodes[i].Devices {
				empty.nodes[i].Devices[d].Healthy = true
			}
		}
		fits := true
		for _, role := range gang.Roles {
			fits = fits && empty.room(nil, role) >= int64(role.Count)
		}
		fits = fits && empty.sumHolds(gang)
		why, could := scheduler.CouldEverFit(c.nodes, gang)
		if could != (fits || len(c.nodes) == 0) {
			t.Fatalf("%s could ever fit: %v, by division %v", gang.ID(), could, fits)
		}
		if !could {
			counted["never"]++
			if why.Summary == "" || len(why.Blocks) == 0 {
				t.Fatal("refused without a reason")
			}
		}
	}
}

// spreads: no task of a role that is spread went where more of its kind are than on another node that
// still has room for it.
func (c cell) spreads(t *rapid.T, plan cluster.Plan, counted map[string]int) {
	for _, p := range plan.Placements {
		gang := c.gangs[slices.IndexFunc(c.gangs, func(g cluster.Gang) bool { return g.ID() == p.Gang })]
		role := gang.Roles[0]
		if role.Spread == "" {
			continue
		}
		alone := schedule(c.view(c.forward()), []scheduler.Ask{scheduler.NewAsk(gang)}, c.now)
		only := cell{nodes: c.nodes, used: c.used, now: c.now, gangs: []cluster.Gang{gang}}
		used, err := only.commit(alone)
		if err != nil {
			t.Fatal("oversells: ", err)
		}
		counts, took := map[string]int{}, map[string]bool{}
		for _, n := range c.nodes {
			counts[n.ID] = c.there[gang.Job][n.ID]
		}
		for _, a := range alone.Placements[0].Allocations {
			counts[a.Node]++
			took[a.Node] = true
		}
		for _, n := range c.nodes {
			if one := (cell{nodes: []cluster.Node{n}, used: used}); one.room(used, role) == 0 {
				continue
			}
			for id := range took {
				counted["spread"]++
				if counts[id]-1 > counts[n.ID] {
					t.Fatalf("%s has %d tasks, the last of them placed while %s had room and %d: %v", id, counts[id], n.ID, counts[n.ID], alone)
				}
			}
		}
	}
}

// sumHolds reports whether all nodes together have what all tasks of the gang need.
func (c cell) sumHolds(gang cluster.Gang) bool {
	var cores, memory, gpus int64
	for _, n := range c.nodes {
		cores, memory, gpus = cores+n.MilliCPU, memory+n.Memory, gpus+int64(len(n.Devices))
	}
	for _, role := range gang.Roles {
		count := int64(role.Count)
		cores, memory, gpus = cores-count*role.Ask.MilliCPU, memory-count*role.Ask.Memory, gpus-count*int64(role.Ask.GPUs)
	}
	return cores >= 0 && memory >= 0 && gpus >= 0
}

// firstComesFirst: what comes later never changes what an earlier gang gets.
func (c cell) firstComesFirst(t *rapid.T, plan cluster.Plan, counted map[string]int) {
	asks := c.asks()
	slices.SortFunc(asks, scheduler.Before)
	view := c.view(c.forward())
	for i := range asks {
		part := schedule(view, asks[:i], c.now)
		if len(part.Placements) == 0 {
			continue
		}
		counted["first"]++
		if !reflect.DeepEqual(part.Placements, plan.Placements[:len(part.Placements)]) {
			t.Fatalf("with later asks the earlier ones get something else:\n%v\n%v", part, plan)
		}
	}
	last := ""
	for _, ask := range asks {
		if slices.ContainsFunc(plan.Placements, func(p cluster.Placement) bool { return p.Gang == ask.ID }) {
			if last != "" {
				counted["passed over"]++
			}
		} else if !ask.Waits(c.now) {
			last = ask.ID
		}
	}
}
