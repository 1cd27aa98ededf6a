package scheduler_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler"
	"github.com/clary-ml/clary/scheduler/room"
)

const gib = 1 << 30

func machine(id string, cores, memory int64, gpus int, model string) cluster.Node {
	n := cluster.Node{ID: id, Address: id, State: cluster.NodeReady, MilliCPU: cores * 1000, Memory: memory * gib, PortFirst: 7000, PortLast: 7099}
	for i := range gpus {
		n.Devices = append(n.Devices, cluster.Device{UUID: fmt.Sprintf("%s-%d", id, i), Kind: cluster.DeviceGPU, Model: model, Healthy: true})
	}
	return n
}

func gang(job string, count int32, ask cluster.Ask) cluster.Gang {
	return cluster.Gang{Job: job, Name: "main", Attempt: 1, Roles: []cluster.Role{{Name: "worker", Count: count, Ask: ask}}}
}

func twoRoles(first cluster.Ask, firsts int32, second cluster.Ask, seconds int32) cluster.Gang {
	g := gang("j", firsts, first)
	g.Roles = append(g.Roles, cluster.Role{Name: "server", Count: seconds, Ask: second})
	return g
}

// schedule has a Cluster of which all is in one queue plan what waits, on a copy of a room.
func schedule(m *room.Map, asks []scheduler.Ask, now int64) cluster.Plan {
	c := scheduler.New(scheduler.Options{Policy: room.Tightest{}}) // which does not learn from what is asked for
	c.Room = m.Clone()
	for _, ask := range asks {
		ask.Queue = "q"
		c.Wait(ask)
	}
	return c.Plan(now)
}

func viewOf(used map[string]cluster.Resources, nodes ...cluster.Node) *room.Map {
	view := room.New(nil)
	for _, n := range nodes {
		view.Set(n, used[n.ID])
	}
	return view
}

func where(plan cluster.Plan) string {
	var parts []string
	for _, p := range plan.Placements {
		text := strings.TrimSuffix(p.Gang, "/main") + ":"
		for _, a := range p.Allocations {
			text += " " + a.Node
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", ")
}

func TestPlacesOnTheTightestNode(t *testing.T) {
	core := cluster.Ask{MilliCPU: 1000, Memory: gib}
	gpu := cluster.Ask{MilliCPU: 1000, Memory: gib, GPUs: 1}
	a, b, g := machine("a", 8, 8, 0, ""), machine("b", 4, 4, 0, ""), machine("g", 2, 2, 4, "T4")
	tests := []struct {
		claim string
		used  map[string]cluster.Resources
		gangs []cluster.Gang
		want  string
	}{
		{"the smallest node without GPUs takes a task without GPUs", nil, []cluster.Gang{gang("j", 1, core)}, "j: b"},
		{"a used node before an empty one", map[string]cluster.Resources{"a": {MilliCPU: 6000, Memory: 6 * gib}}, []cluster.Gang{gang("j", 1, core)}, "j: a"},
		{"a gang fills one node and goes on to the next", nil, []cluster.Gang{gang("j", 6, core)}, "j: b b b b a a"},
		{"GPUs are where they are", nil, []cluster.Gang{gang("j", 2, gpu)}, "j: g g"},
		{"a gang that does not fit is passed over", nil, []cluster.Gang{gang("a-big", 15, core), gang("b-small", 1, core)}, "b-small: b"},
		{"half a gang is never placed", nil, []cluster.Gang{gang("j", 3, gpu)}, ""},
	}
	for _, test := range tests {
		t.Run(test.claim, func(t *testing.T) {
			var asks []scheduler.Ask
			for _, gang := range test.gangs {
				asks = append(asks, scheduler.NewAsk(gang))
			}
			if got := where(schedule(viewOf(test.used, a, b, g), asks, 0)); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestTakesPortsThatWereFreedLongestAgo(t *testing.T) {
	n := machine("a", 64, 64, 0, "")
	n.PortLast = 7003
	view := viewOf(nil, n)
	var got []int32
	for i := range 6 {
		plan := schedule(view, []scheduler.Ask{scheduler.NewAsk(gang(fmt.Sprintf("j%d", i), 1, cluster.Ask{Ports: 1}))}, 0)
		got = append(got, plan.Placements[0].Allocations[0].Resources.Ports...)
		view.Advance(plan)
		view.Set(n, cluster.Resources{}) // the task has ended already
	}
	if want := "[7000 7001 7002 7003 7000 7001]"; fmt.Sprint(got) != want {
		t.Errorf("ports %v, want %s", got, want)
	}
}

func TestACordonedNodeIsNotSaidToBeDrained(t *testing.T) {
	cordoned, drained := machine("node-a", 8, 8, 0, ""), machine("node-b", 8, 8, 0, "")
	cordoned.State, drained.State, drained.Empties = cluster.NodeDraining, cluster.NodeDraining, true
	why := scheduler.Explain(viewOf(nil, cordoned, drained), scheduler.NewAsk(gang("j", 1, cluster.Ask{MilliCPU: 1000})), 0)
	if want := "(1 cordoned, 1 draining)"; !strings.Contains(why.Summary, want) {
		t.Errorf("said  %s\nwant  %s", why.Summary, want)
	}
}

func TestSaysWhy(t *testing.T) {
	nodes := []cluster.Node{
		machine("node-a", 8, 8, 4, "A100"), machine("node-b", 8, 8, 4, "A100"),
		machine("node-c", 2, 2, 0, ""), machine("node-d", 2, 2, 2, "T4"), machine("node-e", 2, 2, 0, ""),
	}
	nodes[4].State, nodes[4].Empties = cluster.NodeDraining, true
	used := map[string]cluster.Resources{
		"node-a": {Devices: []string{"node-a-0", "node-a-1", "node-a-2"}, MilliCPU: 7000},
		"node-b": {Devices: []string{"node-b-0", "node-b-1"}, MilliCPU: 5500},
	}
	labelled := gang("j", 1, cluster.Ask{MilliCPU: 1000})
	labelled.Roles[0].Labels = map[string]string{"zone": "x"}
	held, backoff := gang("j", 1, cluster.Ask{}), gang("j", 1, cluster.Ask{})
	held.Held, backoff.NotBefore = true, 90e9
	tests := []struct {
		gang cluster.Gang
		want string
	}{
		{
			gang("j", 1, cluster.Ask{MilliCPU: 1000, Memory: gib, GPUs: 4, GPUModel: "A100"}),
			"worker needs 1 core, 1 GiB, 4 GPUs (A100) on one node: 1 of 5 nodes is not ready (1 draining); 2 of 5 nodes have no such GPU, the nearest (node-b) has 2 free of the 4 it takes",
		},
		{
			gang("j", 1, cluster.Ask{MilliCPU: 4000, Memory: gib}),
			"worker needs 4 cores, 1 GiB on one node: 1 of 5 nodes is not ready (1 draining); all other 4 nodes have too few cores, the nearest (node-b) has 2.5 cores free",
		},
		{
			gang("j", 9, cluster.Ask{MilliCPU: 1000}),
			"each of 9 workers needs 1 core, 0 B on one node: there is room for 7 of the 9 together; 1 of 5 nodes is not ready (1 draining); all other 4 nodes have too few cores",
		},
		{labelled, "not the labels zone=x"},
		{held, "it is held until it is released"},
		{backoff, "it restarts in 1m30s, at 1970-01-01T00:01:30Z"},
		{gang("j", 1, cluster.Ask{}), "there is room for it now"},
	}
	view := viewOf(used, nodes...)
	for _, test := range tests {
		if why := scheduler.Explain(view, scheduler.NewAsk(test.gang), 0); !strings.Contains(why.Summary, test.want) {
			t.Errorf("said  %s\nwant  %s", why.Summary, test.want)
		}
	}
	if why := scheduler.Explain(viewOf(nil), scheduler.NewAsk(gang("j", 1, cluster.Ask{})), 0); why.Summary != "no node has joined the cluster yet" {
		t.Error(why.Summary)
	}
}

func TestCountsTheNodesThatOnlyOneThingRulesOut(t *testing.T) {
	view := viewOf(nil, machine("a", 1, 1, 0, ""), machine("b", 1, 8, 0, ""), machine("c", 2, 8, 0, ""), machine("d", 8, 3, 0, ""))
	why := scheduler.Explain(view, scheduler.NewAsk(gang("j", 1, cluster.Ask{MilliCPU: 4000, Memory: 4 * gib})), 0)
	want := []cluster.Block{
		{Constraint: "memory", Nodes: 2, Only: 1, Missing: gib, Nearest: "d"},
		{Constraint: "cores", Nodes: 3, Only: 2, Missing: 2000, Nearest: "c"},
	}
	for i := range why.Blocks {
		why.Blocks[i].Text = ""
	}
	if !reflect.DeepEqual(why.Blocks, want) {
		t.Errorf("got %+v\nwant %+v", why.Blocks, want)
	}
}

func TestRefusesOnlyWhatCouldNeverFit(t *testing.T) {
	nodes := []cluster.Node{machine("a", 4, 8, 2, "T4"), machine("b", 8, 4, 0, "")}
	nodes[0].State, nodes[0].Devices[0].Healthy = cluster.NodeLost, false
	tests := []struct {
		gang cluster.Gang
		want string // "" if it could
	}{
		{gang("j", 1, cluster.Ask{MilliCPU: 8000, Memory: 4 * gib}), ""},
		{gang("j", 2, cluster.Ask{GPUs: 1}), ""},
		{gang("j", 1, cluster.Ask{MilliCPU: 9000}), "all 2 nodes have too few cores, the nearest (b) has 8 cores in all"},
		{gang("j", 3, cluster.Ask{MilliCPU: 1000, Memory: 4 * gib}), ""},
		{gang("j", 4, cluster.Ask{MilliCPU: 1000, Memory: 4 * gib}), "there is room for 3 of the 4 together"},
		{gang("j", 1, cluster.Ask{GPUs: 1, GPUModel: "A100"}), "all 2 nodes have no such GPU"},
		{twoRoles(cluster.Ask{MilliCPU: 2000}, 4, cluster.Ask{MilliCPU: 1000}, 4), ""},
		{twoRoles(cluster.Ask{MilliCPU: 2000}, 5, cluster.Ask{MilliCPU: 1000}, 3), "its tasks need 13 cores together, all nodes together have 12 cores"},
		{twoRoles(cluster.Ask{GPUs: 1}, 2, cluster.Ask{GPUs: 1}, 1), "its tasks need 3 GPUs together"},
	}
	for _, test := range tests {
		why, could := scheduler.CouldEverFit(nodes, test.gang)
		if could != (test.want == "") || !strings.Contains(why.Summary, test.want) {
			t.Errorf("%v: could %v, %q, want %q", test.gang.Roles[0].Ask, could, why.Summary, test.want)
		}
	}
	if _, could := scheduler.CouldEverFit(nil, gang("j", 1, cluster.Ask{MilliCPU: 1 << 20})); !could {
		t.Error("refused though nodes may yet join")
	}
}

func TestGivesEveryPortOfTheRangeOnce(t *testing.T) {
	n := machine("a", 64, 64, 0, "")
	n.PortLast = 7004
	view := viewOf(nil, n)
	view.Advance(schedule(view, []scheduler.Ask{scheduler.NewAsk(gang("j", 3, cluster.Ask{Ports: 1}))}, 0))
	view.Set(n, cluster.Resources{Ports: []int32{7001}}) // the search goes on behind 7002
	var asks []scheduler.Ask
	for i := range 3 {
		asks = append(asks, scheduler.NewAsk(gang(fmt.Sprintf("j%d", i), 2, cluster.Ask{Ports: 1})))
	}
	plan := schedule(view, asks, 0)
	var got []int32
	for _, p := range plan.Placements {
		for _, a := range p.Allocations {
			got = append(got, a.Resources.Ports...)
		}
	}
	if want := "[7003 7004 7000 7002]"; fmt.Sprint(got) != want {
		t.Errorf("ports %v, want %s", got, want)
	}
}

func TestSetSaysWhetherMoreMayFit(t *testing.T) {
	base, half := machine("a", 4, 4, 2, "T4"), cluster.Resources{MilliCPU: 2000, Memory: 2 * gib, Devices: []string{"a-0"}, Ports: []int32{7000}}
	tests := []struct {
		claim string
		node  func(*cluster.Node)
		used  func(*cluster.Resources)
		want  bool
	}{
		{"the same", nil, nil, false},
		{"more cores", nil, func(u *cluster.Resources) { u.MilliCPU = 1000 }, true},
		{"more memory", nil, func(u *cluster.Resources) { u.Memory = gib }, true},
		{"another device", nil, func(u *cluster.Resources) { u.Devices = []string{"a-1"} }, true},
		{"more ports", nil, func(u *cluster.Resources) { u.Ports = nil }, true},
		{"a label", func(n *cluster.Node) { n.Labels = map[string]string{"zone": "x"} }, nil, true},
		{"more disk, which constraints may ask for", func(n *cluster.Node) { n.Disk = gib }, nil, true},
		{"fewer devices, which constraints may ask for", func(n *cluster.Node) { n.Devices = n.Devices[:1] }, nil, true},
		{"more cores in all, none of them free", func(n *cluster.Node) { n.MilliCPU += 1000 }, func(u *cluster.Resources) { u.MilliCPU += 1000 }, true},
		{"NVLink between its devices", func(n *cluster.Node) {
			n.Devices = slices.Clone(n.Devices)
			for i := range n.Devices {
				n.Devices[i].Link = 1
			}
		}, nil, true},
		{"another NUMA node of a device", func(n *cluster.Node) {
			n.Devices = slices.Clone(n.Devices)
			n.Devices[1].NUMA = 2
		}, nil, true},
		{"less of everything", nil, func(u *cluster.Resources) {
			*u = cluster.Resources{MilliCPU: 3000, Memory: 3 * gib, Devices: []string{"a-0", "a-1"}, Ports: []int32{7000, 7001}}
		}, false},
		{"drained, with more cores", func(n *cluster.Node) { n.State = cluster.NodeDraining }, func(u *cluster.Resources) { u.MilliCPU = 0 }, false},
	}
	for _, test := range tests {
		view, n, used := viewOf(map[string]cluster.Resources{"a": half}, base), base, half
		if test.node != nil {
			test.node(&n)
		}
		if test.used != nil {
			test.used(&used)
		}
		if got := view.Set(n, used); got != test.want {
			t.Errorf("%s: %v", test.claim, got)
		}
	}
	drained := base
	drained.State = cluster.NodeDraining
	if view := viewOf(nil, drained); !view.Set(base, cluster.Resources{}) {
		t.Error("a node that is ready again gains nothing")
	}
	view := viewOf(nil, base)
	view.Delete("a")
	if view.Delete("b"); view.Len() != 0 {
		t.Errorf("%d nodes are left", view.Len())
	}
}

func TestWhatNeedsNothingFitsWhereMoreIsUsedThanThereIs(t *testing.T) {
	n := cluster.Node{ID: "a", State: cluster.NodeReady, MilliCPU: 500}
	view := viewOf(map[string]cluster.Resources{"a": {MilliCPU: 1000}}, n)
	if plan := schedule(view, []scheduler.Ask{scheduler.NewAsk(gang("j", 1, cluster.Ask{}))}, 0); len(plan.Placements) != 1 {
		t.Error("it waits")
	}
}
