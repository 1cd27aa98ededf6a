package room_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler/room"
)

func in(rack string, n cluster.Node) cluster.Node {
	n.Labels = map[string]string{cluster.LabelRack: rack}
	return n
}

func gang(job string, role cluster.Role) *room.Shape {
	role.Name = "worker"
	return room.NewShape(job, []cluster.Role{role})
}

func on(a []cluster.Allocation) string {
	var nodes []string
	for _, one := range a {
		nodes = append(nodes, one.Node)
	}
	slices.Sort(nodes)
	return strings.Join(nodes, "")
}

func TestAGangGoesIntoTheLowestAndTightestDomain(t *testing.T) {
	nodes := []cluster.Node{in("r1", node("a", 2, 0, "")), in("r1", node("b", 2, 0, "")), in("r1", node("c", 2, 0, "")), in("r2", node("d", 3, 0, "")), in("r2", node("e", 1, 0, "")), node("f", 1, 0, "")}
	for name, c := range map[string]struct {
		count int32
		want  string
	}{
		"one node":                   {3, "ddd"},
		"the tighter rack":           {4, "ddde"},
		"the rack that takes it":     {5, "aabbc"},
		"all of a rack":              {6, "aabbcc"},
		"no rack takes it":           {7, ""},
		"the tightest node, not one": {1, "e"},
	} {
		m := mapOf(nil, nodes...)
		role := cluster.Role{Count: c.count, Ask: cluster.Ask{MilliCPU: 1000}, Topology: cluster.Topology{Level: cluster.LevelRack}}
		if got := on(take(m, gang("job", role))); got != c.want {
			t.Errorf("%s: %d tasks are on %q, want %q", name, c.count, got, c.want)
		}
		role.Topology.Preferred = true
		if got := on(take(m, gang("job", role))); c.want == "" && got != "aabbccf" {
			t.Errorf("preferred, %d tasks are on %q", c.count, got)
		}
	}
}

func TestSmallSlotsLeaveRoomForLargeOnes(t *testing.T) {
	var profiles []cluster.MIGProfile
	for _, p := range []struct {
		name   string
		slices int32
		starts []int32
	}{
		{"1g.5gb", 1, []int32{0, 1, 2, 3, 4, 5, 6}},
		{"2g.10gb", 2, []int32{0, 2, 4}},
		{"3g.20gb", 4, []int32{0, 4}},
		{"4g.20gb", 4, []int32{0}},
		{"7g.40gb", 8, []int32{0}},
	} {
		profiles = append(profiles, cluster.MIGProfile{Name: p.name, Slices: p.slices, Memory: 5 << 30, Starts: p.starts})
	}
	n := node("a", 64, 2, "A100")
	for i := range n.Devices {
		n.Devices[i].Partitioned, n.Devices[i].Profiles = true, profiles
	}
	m := mapOf(nil, n)
	slots := func(profile string, count int32) string {
		a := take(m, shape(1, cluster.Ask{GPUs: count, MIG: profile}))
		if a == nil {
			return "none"
		}
		var at []string
		for _, s := range a[0].Resources.Shares {
			at = append(at, fmt.Sprintf("%s:%d", s.UUID, s.Start))
		}
		return strings.Join(at, " ")
	}
	for i, step := range []struct {
		profile string
		count   int32
		want    string
	}{
		{"1g.5gb", 1, "a-0:6"},
		{"1g.5gb", 2, "a-0:4 a-0:5"},
		{"4g.20gb", 1, "a-0:0"},
		{"7g.40gb", 1, "a-1:0"},
		{"1g.5gb", 1, "none"},
	} {
		if got := slots(step.profile, step.count); got != step.want {
			t.Errorf("step %d: %d slots %s are %q, want %q", i, step.count, step.profile, got, step.want)
		}
	}
	if a := take(m, shape(1, cluster.Ask{GPUs: 1})); a != nil {
		t.Errorf("a GPU that is cut is given whole: %v", a)
	}
}

func TestPreferencesComeBeforeTightness(t *testing.T) {
	a, b, c := node("a", 2, 0, ""), node("b", 4, 0, ""), node("c", 8, 0, "")
	a.Taints = []cluster.Taint{{Key: "flaky", Effect: cluster.EffectPreferNot}}
	b.Labels = map[string]string{"nvme": "yes"}
	c.Cached = []uint32{cluster.InputDigest("s3://data/x")}
	core := cluster.Ask{MilliCPU: 1000}
	for name, one := range map[string]struct {
		role cluster.Role
		want string
	}{
		"a node that is a last resort": {cluster.Role{Count: 1, Ask: core}, "b"},
		"one that tolerates that":      {cluster.Role{Count: 1, Ask: core, Tolerations: []cluster.Toleration{{Key: "flaky", Any: true}}}, "a"},
		"all but the last resort full": {cluster.Role{Count: 14, Ask: core}, "aabbbbcccccccc"},
		"a label that is preferred": {cluster.Role{Count: 1, Ask: core, Tolerations: []cluster.Toleration{{Any: true}}, Constraints: []cluster.Constraint{
			{Attribute: "nvme", Operator: cluster.OpExists, Weight: 10},
		}}, "b"},
		"a size that is demanded": {cluster.Role{Count: 1, Ask: core, Constraints: []cluster.Constraint{
			{Attribute: "cores", Operator: cluster.OpMore, Values: []string{"4"}},
		}}, "c"},
		"inputs that are there": {cluster.Role{Count: 1, Ask: core, Program: cluster.Program{Inputs: []cluster.Input{{URI: "s3://data/x"}}}}, "c"},
		"inputs that are not":   {cluster.Role{Count: 1, Ask: core, Program: cluster.Program{Inputs: []cluster.Input{{URI: "s3://data/y"}}}}, "b"},
	} {
		if got := on(take(mapOf(nil, a, b, c), gang("job", one.role))); got != one.want {
			t.Errorf("%s: on %q, want %q", name, got, one.want)
		}
	}
}

func TestAnInputThatHasComeIntoACacheMakesNoRoom(t *testing.T) {
	a, b := node("a", 2, 0, ""), node("b", 8, 0, "")
	b.Revision = 3
	m := mapOf(nil, a, b)
	role := cluster.Role{Count: 1, Ask: cluster.Ask{MilliCPU: 1000}, Program: cluster.Program{Inputs: []cluster.Input{{URI: "s3://data/x"}}}}
	if got := on(take(m, gang("first", role))); got != "a" {
		t.Errorf("before it is on %q", got)
	}
	b.Cached, b.Revision = []uint32{cluster.InputDigest("s3://data/x")}, 4
	if m.Set(b, cluster.Resources{}) {
		t.Error("gangs that do not fit are tried again for it")
	}
	if got := on(take(m, gang("second", role))); got != "b" {
		t.Errorf("then it is on %q", got)
	}
}

func TestTasksSpreadOverRacksOrPackIntoThem(t *testing.T) {
	nodes := []cluster.Node{in("r1", node("a", 4, 0, "")), in("r1", node("b", 4, 0, "")), in("r2", node("c", 4, 0, ""))}
	role := cluster.Role{Count: 4, Ask: cluster.Ask{MilliCPU: 1000}, Spread: "all", Over: cluster.LevelRack}
	if got := on(take(mapOf(nil, nodes...), gang("job", role))); strings.Count(got, "c") != 2 {
		t.Errorf("spread over racks they are on %q", got)
	}
	role.Pack = true
	m := mapOf(nil, nodes...)
	m.Count("job", "all", "c", 1)
	if got := on(take(m, gang("job", role))); got != "cccc" {
		t.Errorf("packed they are on %q", got)
	}
}

func TestGPUsOfOneTaskAreOfOneIsland(t *testing.T) {
	n := node("a", 64, 8, "H100")
	for i := range n.Devices {
		n.Devices[i].Link = int32(i/4 + 1)
	}
	m := mapOf(nil, n)
	if one := take(m, shape(1, cluster.Ask{GPUs: 3})); fmt.Sprint(one[0].Resources.Devices) != "[a-0 a-1 a-2]" {
		t.Errorf("three are %v", one)
	}
	if two := take(m, shape(1, cluster.Ask{GPUs: 2})); fmt.Sprint(two[0].Resources.Devices) != "[a-4 a-5]" {
		t.Errorf("two are %v: the first island has one left", two)
	}
	must := cluster.Role{Count: 1, Ask: cluster.Ask{GPUs: 3}, Topology: cluster.Topology{Level: cluster.LevelNVLink}}
	if across := take(m, gang("job", must)); across != nil {
		t.Errorf("three that must be of one island are %v", across)
	}
	must.Topology.Preferred = true
	if across := take(m, gang("job", must)); len(across) != 1 {
		t.Error("three that should be of one island are not placed at all")
	}
}

func TestModelsThatDifferInMemoryAreToldApart(t *testing.T) {
	small, large := node("a", 4, 1, "A100"), node("b", 4, 1, "A100")
	small.Devices[0].Memory = 40 << 30
	m := mapOf(nil, small, large)
	role := cluster.Role{Count: 1, Ask: cluster.Ask{GPUs: 1}, Constraints: []cluster.Constraint{
		{Attribute: cluster.AttributeGPUMemory, Operator: cluster.OpMore, Values: []string{fmt.Sprint(int64(41) << 30)}},
	}}
	if got := on(take(m, gang("job", role))); got != "b" {
		t.Errorf("one with more than 41 GiB is on %q", got)
	}
	role.Count = 2
	role.Constraints = nil
	role.Ask.GPUModel = "H100, A100"
	m = mapOf(nil, small, large)
	if got := on(take(m, gang("job", role))); got != "ab" {
		t.Errorf("two of either model are on %q", got)
	}
}
