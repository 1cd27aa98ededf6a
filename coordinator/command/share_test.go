package command_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/internal/fault"
)

// sharing is a world in which node a has a GPU of 8 GiB that can be shared, and one that is cut.
func sharing(t *testing.T) *world {
	w := newWorld(t)
	node, _ := w.read().Node("a")
	node.Labels = map[string]string{cluster.LabelRack: "r1"}
	node.Devices = []cluster.Device{
		{UUID: "whole", Kind: cluster.DeviceGPU, Model: "A100", Memory: 8 << 30, Healthy: true},
		{UUID: "cut", Kind: cluster.DeviceGPU, Model: "A100", Memory: 40 << 30, Healthy: true, Partitioned: true, Profiles: []cluster.MIGProfile{
			{Name: "1g.5gb", Slices: 1, Memory: 5 << 30, Starts: []int32{0, 1, 2, 3, 4, 5, 6}},
			{Name: "3g.20gb", Slices: 4, Memory: 20 << 30, Starts: []int32{0, 4}},
		}},
	}
	w.must(command.PutNode{Node: node})
	return w
}

// commit submits a job with one task and commits a plan that gives it the parts; it says why it was refused.
func (w *world) commit(name string, change func(role *cluster.Role), devices []string, parts ...cluster.DeviceShare) string {
	w.Helper()
	r := submission(name)
	role := &r.Changes[1].Gang.Roles[0]
	role.Ask = cluster.Ask{}
	change(role)
	p := cluster.Placement{Gang: name + "/main", Attempt: 1, Revision: w.must(r).Revision, Allocations: []cluster.Allocation{
		{Node: "a", Resources: cluster.Resources{Devices: devices, Shares: parts}},
	}}
	for _, refused := range w.must(command.CommitPlan{Placements: []cluster.Placement{p}}).Refused {
		return refused.Reason
	}
	return ""
}

func TestADeviceIsNeverSharedOutTwice(t *testing.T) {
	w := sharing(t)
	third := func(role *cluster.Role) { role.Ask = cluster.Ask{GPUMilli: 300, GPUMemory: 3 << 30} }
	part := cluster.DeviceShare{UUID: "whole", Milli: 300, Memory: 3 << 30}
	for _, name := range []string{"one", "two"} {
		if why := w.commit(name, third, nil, part); why != "" {
			t.Fatalf("%s: %s", name, why)
		}
	}
	for name, c := range map[string]struct {
		ask    cluster.Ask
		part   cluster.DeviceShare
		reason string
	}{
		"memory":    {cluster.Ask{GPUMilli: 300, GPUMemory: 3 << 30}, part, "2 GiB free"},
		"fraction":  {cluster.Ask{GPUMilli: 500, GPUMemory: 1}, cluster.DeviceShare{UUID: "whole", Milli: 500, Memory: 1}, "400 free"},
		"less":      {cluster.Ask{GPUMilli: 100}, cluster.DeviceShare{UUID: "whole", Milli: 1, Memory: 1}, "it asks for 100"},
		"cut":       {cluster.Ask{GPUMilli: 100}, cluster.DeviceShare{UUID: "cut", Milli: 100, Memory: 4 << 30}, "partitioned"},
		"a slot":    {cluster.Ask{GPUMilli: 100}, cluster.DeviceShare{UUID: "whole", Milli: 100, Memory: 819 << 20, Profile: "1g.5gb"}, "it asks for"},
		"no device": {cluster.Ask{GPUMilli: 100}, cluster.DeviceShare{UUID: "none", Milli: 100, Memory: 1 << 30}, "not there"},
		"negative":  {cluster.Ask{GPUMilli: 100}, cluster.DeviceShare{UUID: "whole", Milli: -100, Memory: -1 << 30}, "it asks for 100"},
	} {
		slug := "bad-" + strings.ReplaceAll(name, " ", "-")
		if why := w.commit(slug, func(role *cluster.Role) { role.Ask = c.ask }, nil, c.part); !strings.Contains(why, c.reason) {
			t.Errorf("%s: refused for %q, want %q", name, why, c.reason)
		}
	}
	if why := w.commit("whole", func(role *cluster.Role) { role.Ask.GPUs = 1 }, []string{"whole"}); !strings.Contains(why, "in use") {
		t.Errorf("a device that others share is given whole: %q", why)
	}
	used := w.used("a").Shares
	if len(used) != 1 || used[0].Milli != 600 || used[0].Memory != 6<<30 {
		t.Errorf("in use is %+v", used)
	}
	w.report("one/main/worker-0.1", cluster.TaskStatus{State: cluster.TaskFailed})
	w.report("two/main/worker-0.1", cluster.TaskStatus{State: cluster.TaskFailed})
	if used := w.used("a").Shares; len(used) != 0 {
		t.Errorf("when all have ended %+v is in use", used)
	}
	if why := w.commit("after", func(role *cluster.Role) { role.Ask.GPUs = 1 }, []string{"whole"}); why != "" {
		t.Errorf("it is free again, and not given: %s", why)
	}
	if why := w.commit("beside", third, nil, part); !strings.Contains(why, "in use") {
		t.Errorf("a device that one has whole is shared: %q", why)
	}
}

func TestSlotsBeginWhereTheyMayAndNeverOverlap(t *testing.T) {
	w := sharing(t)
	ask := func(profile string) func(*cluster.Role) {
		return func(role *cluster.Role) { role.Ask = cluster.Ask{GPUs: 1, MIG: profile} }
	}
	slot := func(profile string, start int32, memory int64) cluster.DeviceShare {
		return cluster.DeviceShare{UUID: "cut", Profile: profile, Start: start, Memory: memory}
	}
	if why := w.commit("one", ask("1g.5gb"), nil, slot("1g.5gb", 5, 5<<30)); why != "" {
		t.Fatal(why)
	}
	for name, c := range map[string]struct {
		profile string
		part    cluster.DeviceShare
		reason  string
	}{
		"again":     {"1g.5gb", slot("1g.5gb", 5, 5<<30), "in use"},
		"over it":   {"3g.20gb", slot("3g.20gb", 4, 20<<30), "in use"},
		"anywhere":  {"3g.20gb", slot("3g.20gb", 1, 20<<30), "cannot begin"},
		"negative":  {"1g.5gb", slot("1g.5gb", -1, 5<<30), "cannot begin"},
		"other":     {"1g.5gb", slot("3g.20gb", 0, 20<<30), "it asks for"},
		"unknown":   {"7g.40gb", slot("7g.40gb", 0, 40<<30), "no slots"},
		"too small": {"1g.5gb", slot("1g.5gb", 0, 1), "has 5 GiB"},
	} {
		slug := "bad-" + strings.ReplaceAll(name, " ", "-")
		if why := w.commit(slug, ask(c.profile), nil, c.part); !strings.Contains(why, c.reason) {
			t.Errorf("%s: refused for %q, want %q", name, why, c.reason)
		}
	}
	if why := w.commit("whole", func(role *cluster.Role) { role.Ask.GPUs = 1 }, []string{"cut"}); !strings.Contains(why, "partitioned") {
		t.Errorf("a device that is cut is given whole: %q", why)
	}
	if why := w.commit("two", ask("3g.20gb"), nil, slot("3g.20gb", 0, 20<<30)); why != "" {
		t.Error(why)
	}
	twice := func(role *cluster.Role) { role.Ask = cluster.Ask{GPUs: 2, MIG: "1g.5gb"} }
	if why := w.commit("pair", twice, nil, slot("1g.5gb", 6, 5<<30), slot("1g.5gb", 6, 5<<30)); !strings.Contains(why, "in use") {
		t.Errorf("one slot is given twice to one task: %q", why)
	}
	if used := w.used("a").Shares; len(used) != 2 {
		t.Errorf("in use is %+v", used)
	}
}

func TestTaintsAndConstraintsAreCheckedOnTheNodeAsItIs(t *testing.T) {
	w := sharing(t)
	taint := cluster.Taint{Key: "team", Value: "vision", Effect: cluster.EffectNoPlace}
	w.must(command.SetNodeTaints{Node: "a", Taints: []cluster.Taint{taint}})
	tolerant := []cluster.Toleration{{Key: "team", Value: "vision"}}
	for name, c := range map[string]struct {
		change func(*cluster.Role)
		reason string
	}{
		"tainted":    {func(*cluster.Role) {}, "taint team=vision:no-place"},
		"other-team": {func(r *cluster.Role) { r.Tolerations = []cluster.Toleration{{Key: "team", Value: "speech"}} }, "taint"},
		"tolerated":  {func(r *cluster.Role) { r.Tolerations = tolerant }, ""},
		"wrong-rack": {func(r *cluster.Role) {
			r.Tolerations = tolerant
			r.Constraints = []cluster.Constraint{{Attribute: "rack", Operator: cluster.OpIn, Values: []string{"r2"}}}
		}, "rack = r2"},
		"preferred": {func(r *cluster.Role) {
			r.Tolerations = tolerant
			r.Constraints = []cluster.Constraint{{Attribute: "rack", Operator: cluster.OpIn, Values: []string{"r2"}, Weight: 10}}
		}, ""},
	} {
		why := w.commit(name, c.change, nil)
		if c.reason == "" && why != "" || !strings.Contains(why, c.reason) {
			t.Errorf("%s: refused for %q, want %q", name, why, c.reason)
		}
	}
	gpu := func(r *cluster.Role) {
		r.Ask.GPUs, r.Tolerations = 1, tolerant
		r.Constraints = []cluster.Constraint{{Attribute: cluster.AttributeGPUMemory, Operator: cluster.OpLeast, Values: []string{"8589934593"}}}
	}
	if why := w.commit("small", gpu, []string{"whole"}); !strings.Contains(why, "not as demanded: gpu.memory") {
		t.Errorf("a GPU that is too small is given: %q", why)
	}
}

func TestWhatANodeTellsOfItsCacheChangesNothingElse(t *testing.T) {
	w := sharing(t)
	w.must(command.SetNodeState{Node: "a", State: cluster.NodeLost, Reason: "gone"})
	before, _ := w.read().Node("a")
	w.must(command.SetNodeCached{Node: "a", Cached: []uint32{3, 9}})
	after, _ := w.read().Node("a")
	if !slices.Equal(after.Cached, []uint32{3, 9}) || after.Revision == before.Revision {
		t.Errorf("it has %v at revision %d", after.Cached, after.Revision)
	}
	again := after
	again.Cached, again.Revision = nil, before.Revision
	if !reflect.DeepEqual(again, before) {
		t.Errorf("it was %+v and is %+v", before, again)
	}
	w.must(command.SetNodeCached{Node: "a", Cached: []uint32{3, 9}})
	if same, _ := w.read().Node("a"); same.Revision != after.Revision {
		t.Error("the same again is a change")
	}
	w.refuses(command.SetNodeCached{Node: "nobody"}, fault.NotFound, "does not exist")
	w.refuses(command.SetNodeCached{Node: "a", Cached: []uint32{9, 3}}, fault.Invalid, "cached: 00000003 comes after 00000009")
	w.refuses(command.SetNodeCached{Node: "a", Cached: make([]uint32, cluster.MaxCached+1)}, fault.Invalid, "513 inputs: at most 512")
	w.must(command.SetNodeCached{Node: "a"})
	if none, _ := w.read().Node("a"); len(none.Cached) > 0 {
		t.Errorf("%v is left", none.Cached)
	}
}

func TestAnAgentThatComesBackKeepsItsTaints(t *testing.T) {
	w := sharing(t)
	taints := []cluster.Taint{{Key: "z", Effect: cluster.EffectPreferNot}, {Key: "a", Effect: cluster.EffectNoPlace}}
	w.must(command.SetNodeTaints{Node: "a", Taints: taints})
	node, _ := w.read().Node("a")
	again := node
	again.Taints = []cluster.Taint{{Key: "own", Effect: cluster.EffectNoPlace}}
	w.must(command.PutNode{Node: again})
	if back, _ := w.read().Node("a"); !slices.Equal(back.Taints, node.Taints) || back.Taints[0].Key != "a" {
		t.Errorf("it comes back with %v", back.Taints)
	}
	w.refuses(command.SetNodeTaints{Node: "nobody"}, fault.NotFound, "does not exist")
	w.refuses(command.SetNodeTaints{Node: "a", Expect: 1}, fault.Conflict, "read it again")
	w.refuses(command.SetNodeTaints{Node: "a", Taints: []cluster.Taint{{Key: "k", Effect: "never"}}}, fault.Invalid, "no-place or prefer-not")
	w.refuses(command.SetNodeTaints{Node: "a", Taints: append(taints, taints...)}, fault.Invalid, "a node has one")
	w.must(command.SetNodeTaints{Node: "a"})
	if back, _ := w.read().Node("a"); len(back.Taints) != 0 {
		t.Errorf("%v is left", back.Taints)
	}
}
