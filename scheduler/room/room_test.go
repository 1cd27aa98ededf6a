package room_test

import (
	"fmt"
	"reflect"
	"sync"
	"testing"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler/room"
	"pgregory.net/rapid"
)

func node(id string, cores int64, gpus int, model string) cluster.Node {
	n := cluster.Node{ID: id, State: cluster.NodeReady, MilliCPU: cores * 1000, Memory: 1 << 40, PortFirst: 7000, PortLast: 7009}
	for i := range gpus {
		n.Devices = append(n.Devices, cluster.Device{UUID: fmt.Sprintf("%s-%d", id, i), Kind: cluster.DeviceGPU, Model: model, Healthy: true, Memory: 80 << 30})
	}
	return n
}

func shape(count int32, ask cluster.Ask) *room.Shape {
	return room.NewShape("job", []cluster.Role{{Name: "worker", Count: count, Ask: ask}})
}

func mapOf(policy room.Policy, nodes ...cluster.Node) *room.Map {
	m := room.New(policy)
	for _, n := range nodes {
		m.Set(n, cluster.Resources{})
	}
	return m
}

// where lists the nodes of a gang's tasks; "" if it was not placed.
func where(allocations []cluster.Allocation) (nodes string) {
	for _, a := range allocations {
		nodes += a.Node
	}
	return nodes
}

// widest takes the node with the most cores free.
type widest struct{ room.Tightest }

func (widest) Score(n *room.State, _ []room.Device, _ *room.Request) int32 { return n.Milli }

func TestAPolicyDecides(t *testing.T) {
	m := mapOf(nil, node("a", 4, 0, ""), node("b", 8, 0, ""))
	core := shape(1, cluster.Ask{MilliCPU: 1000})
	place := func() string {
		defer m.Rollback(m.Mark())
		a, _ := m.Take(core)
		return where(a)
	}
	if got := place(); got != "a" {
		t.Errorf("the tightest is %q", got)
	}
	m.Use(widest{})
	if got := place(); got != "b" {
		t.Errorf("the widest is %q", got)
	}
	m.Use(room.Tightest{})
	if got := place(); got != "a" {
		t.Errorf("the tightest is %q", got)
	}
}

func TestPinnedRoomIsForNobodyElse(t *testing.T) {
	m := mapOf(nil, node("a", 4, 0, ""))
	all := shape(1, cluster.Ask{MilliCPU: 4000})
	held, _ := m.Take(all)
	m.Pin("big/main", held) // what a victim holds, until it has ended
	a := node("a", 4, 0, "")
	if m.Set(a, cluster.Resources{}); where(take(m, all)) != "" {
		t.Error("what was pinned is given to others once it is free")
	}
	if got := m.Pinned("big/main"); !reflect.DeepEqual(got, held) {
		t.Errorf("pinned are %v", got)
	}
	m.Delete("a")
	if m.Set(a, cluster.Resources{}); where(take(m, all)) != "" {
		t.Error("a pin is gone when its node comes back")
	}
	mark := m.Mark()
	if m.Unpin("big/main"); where(take(m, all)) != "a" {
		t.Error("the gang that it was pinned for finds no room")
	}
	m.Rollback(mark)
	if where(take(m, all)) != "" || m.Pinned("big/main") == nil {
		t.Error("the pin is not back")
	}
}

func take(m *room.Map, s *room.Shape) []cluster.Allocation {
	a, _ := m.Take(s)
	return a
}

func TestACloneIsAWorldOfItsOwn(t *testing.T) {
	m := mapOf(nil, node("b", 1, 1, "T4"))
	m.Count("job", "same", "b", 1)
	before := m.Sum()
	c := m.Clone()
	if where(take(c, shape(1, cluster.Ask{MilliCPU: 1000, GPUs: 1, Ports: 2}))) != "b" {
		t.Fatal("not placed")
	}
	c.Set(node("a", 8, 2, "H100"), cluster.Resources{})
	c.Count("job", "same", "b", 1)
	c.Pin("x/main", []cluster.Allocation{{Node: "b", Resources: cluster.Resources{MilliCPU: 1}}})
	c.Delete("b")
	if m.Sum() != before || m.Len() != 1 {
		t.Error("what was done to a clone is seen in the map")
	}
	m.Set(node("c", 2, 1, "A100"), cluster.Resources{})
	if c.Len() != 1 || c.IDs()[0] != "a" {
		t.Errorf("what was done to the map is seen in a clone: %v", c.IDs())
	}
}

func TestTheOrderInWhichNodesCameDecidesNothing(t *testing.T) {
	placed, refused := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		var nodes []cluster.Node
		for i := range rapid.IntRange(1, 40).Draw(t, "nodes") {
			n := node(fmt.Sprintf("n%02d", i), rapid.Int64Range(0, 8).Draw(t, "cores"), rapid.IntRange(0, 4).Draw(t, "gpus"), rapid.SampledFrom([]string{"T4", "A100"}).Draw(t, "model"))
			if i := len(n.Devices) - 1; i >= 0 && rapid.Bool().Draw(t, "mixed") {
				n.Devices[i].Model = "H100"
			}
			nodes = append(nodes, n)
		}
		one, other := mapOf(nil, nodes...), mapOf(nil, rapid.Permutation(nodes).Draw(t, "order")...)
		for range rapid.IntRange(1, 20).Draw(t, "gangs") {
			s := shape(rapid.Int32Range(1, 4).Draw(t, "tasks"), cluster.Ask{
				MilliCPU: rapid.Int64Range(0, 3).Draw(t, "ask") * 1000, GPUs: rapid.Int32Range(0, 2).Draw(t, "ask gpus"), Ports: rapid.Int32Range(0, 2).Draw(t, "ask ports"),
			})
			got, want := take(one, s), take(other, s)
			if !reflect.DeepEqual(got, want) || one.Sum() != other.Sum() {
				t.Fatalf("%v, in another order %v", got, want)
			}
			if got == nil {
				refused++
			} else {
				placed++
			}
		}
	})
	if placed == 0 || refused == 0 {
		t.Errorf("%d placed, %d refused", placed, refused)
	}
}

func TestManyMayCloneAtOnce(t *testing.T) {
	m := mapOf(nil, node("b", 4, 1, "T4"), node("a", 4, 0, ""))
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			if got := where(take(m.Clone(), shape(2, cluster.Ask{MilliCPU: 4000}))); got != "ab" {
				t.Errorf("a clone places on %q", got)
			}
			for o := range m.Offers(&shape(1, cluster.Ask{GPUs: 1}).Roles[0]) {
				if o.GPUs != o.HealthyGPUs {
					t.Errorf("%+v", o)
				}
			}
		})
	}
	readers.Wait()
}

func TestRollbackBehindSettleIsRefused(t *testing.T) {
	m := mapOf(nil, node("a", 4, 0, ""))
	mark := m.Mark()
	take(m, shape(1, cluster.Ask{MilliCPU: 1000}))
	m.Settle()
	defer func() {
		if recover() == nil {
			t.Error("rolled back what was settled")
		}
	}()
	m.Rollback(mark)
}

func TestAModelThatJoinsLaterIsFound(t *testing.T) {
	m := mapOf(nil, node("a", 4, 2, "T4"))
	want := shape(1, cluster.Ask{GPUs: 1, GPUModel: "H100"})
	if where(take(m, want)) != "" {
		t.Fatal("placed on another model")
	}
	if m.Set(node("b", 4, 1, "H100"), cluster.Resources{}); where(take(m, want)) != "b" {
		t.Error("not placed on the new node")
	}
	if either := shape(1, cluster.Ask{GPUs: 1, GPUModel: "H100,T4"}); where(take(m, either)) != "a" {
		t.Error("one of two models is not found")
	}
}

func TestThereMayBeMoreModelsThanNumbers(t *testing.T) {
	m := room.New(nil)
	for i := range room.MaxModels + 3 {
		m.Set(node(fmt.Sprintf("n%02d", i), 1, 1, fmt.Sprintf("model-%02d", i)), cluster.Resources{})
	}
	for i := range room.MaxModels {
		if got := where(take(m, shape(1, cluster.Ask{GPUs: 1, GPUModel: fmt.Sprintf("model-%02d", i)}))); got != fmt.Sprintf("n%02d", i) {
			t.Errorf("model %d is on %q", i, got)
		}
	}
	if got := where(take(m, shape(1, cluster.Ask{GPUs: 1, GPUModel: "model-65"}))); got != "" {
		t.Errorf("a model without a number is on %q", got)
	}
	if got := where(take(m, shape(3, cluster.Ask{GPUs: 1}))); got != "n63n64n65" {
		t.Errorf("those who take any are on %q", got)
	}
}

func TestAbsurdAmountsNeitherFitNorWrapAround(t *testing.T) {
	huge := int64(1) << 62
	for _, ask := range []cluster.Ask{{MilliCPU: huge}, {Memory: huge}, {MilliCPU: 1 << 33}, {GPUs: 1 << 30}, {Ports: 1 << 30}} {
		m := mapOf(nil, node("a", 4, 1, "T4"))
		if got := where(take(m, shape(1, ask))); got != "" {
			t.Errorf("%v is on %q", ask, got)
		}
	}
	m := mapOf(nil, node("a", 4, 1, "T4"))
	m.Set(node("a", 4, 1, "T4"), cluster.Resources{MilliCPU: huge, Memory: huge, Devices: []string{"nobody's"}, Ports: []int32{-1, 70_000}})
	if got := where(take(m, shape(1, cluster.Ask{MilliCPU: 1}))); got != "" {
		t.Errorf("more than all is used, and a task is on %q", got)
	}
	m.Set(node("a", 4, 1, "T4"), cluster.Resources{MilliCPU: -huge, Memory: -huge})
	if got := where(take(m, shape(1, cluster.Ask{MilliCPU: 5000}))); got != "" {
		t.Errorf("less than nothing is used, and a task that is too large is on %q", got)
	}
}
