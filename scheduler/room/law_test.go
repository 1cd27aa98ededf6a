package room

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/clary-ml/clary/cluster"
	"pgregory.net/rapid"
)

// world plays a map: it knows what every node has and what really holds room.
type world struct {
	mutant  mutant
	t       *rapid.T
	m       *Map
	nodes   map[string]cluster.Node
	holds   []cluster.Allocation // what has been taken and not given back
	pinned  map[string][]cluster.Allocation
	counts  map[string]int // by group and node
	marks   []remembered
	shapes  []*Shape
	counted map[string]int
}

// mutant is a mistake that the map might have; the zero value is none.
type mutant struct {
	policy func() Policy
	after  func(*Map) // each step
	taken  func([]cluster.Allocation) []cluster.Allocation
}

// remembered is what the world was at a mark.
type remembered struct {
	mark   Mark
	sum    uint64
	holds  []cluster.Allocation
	pinned map[string][]cluster.Allocation
	counts map[string]int
}

func clonePins(of map[string][]cluster.Allocation) map[string][]cluster.Allocation {
	c := map[string][]cluster.Allocation{}
	for id, a := range of {
		c[id] = a
	}
	return c
}

func cloneCounts(of map[string]int) map[string]int {
	c := map[string]int{}
	for key, n := range of {
		c[key] = n
	}
	return c
}

func drawNode(t *rapid.T, id string) cluster.Node {
	n := cluster.Node{
		ID: id, State: cluster.NodeReady, MilliCPU: rapid.Int64Range(0, 8).Draw(t, "cores") * 1000, Memory: rapid.Int64Range(0, 12).Draw(t, "memory"),
		Labels: map[string]string{"zone": rapid.SampledFrom([]string{"a", "b"}).Draw(t, "zone")},
		Disk:   rapid.Int64Range(0, 2).Draw(t, "disk"),
	}
	if rapid.IntRange(0, 7).Draw(t, "not ready") == 0 {
		n.State = rapid.SampledFrom([]cluster.NodeState{cluster.NodeDraining, cluster.NodeLost}).Draw(t, "state")
	}
	if ports := rapid.Int32Range(0, 5).Draw(t, "ports"); ports > 0 {
		n.PortFirst, n.PortLast = 7000, 7000+ports-1
	}
	models := rapid.SampledFrom([][]string{{"A100"}, {"T4"}, {"A100", "T4"}, {"A100", "H100", "T4"}}).Draw(t, "models")
	for d := range rapid.IntRange(0, 5).Draw(t, "gpus") {
		n.Devices = append(n.Devices, cluster.Device{
			UUID: fmt.Sprintf("%s-%d", id, d), Kind: cluster.DeviceGPU, Memory: rapid.SampledFrom([]int64{16 << 30, 16 << 30, 0}).Draw(t, "device memory"),
			Model: rapid.SampledFrom(models).Draw(t, "model"), Healthy: rapid.IntRange(0, 9).Draw(t, "healthy") > 0,
			Link: rapid.SampledFrom([]int32{0, 1, 1, 2}).Draw(t, "link"),
		})
	}
	return n
}

func drawRole(t *rapid.T, i int) cluster.Role {
	role := cluster.Role{
		Name: fmt.Sprintf("role-%d", i), Count: rapid.Int32Range(1, 3).Draw(t, "count"),
		Ask: cluster.Ask{
			MilliCPU: rapid.Int64Range(0, 3).Draw(t, "ask cores") * 500, Memory: rapid.Int64Range(0, 2).Draw(t, "ask memory"),
			GPUs: rapid.SampledFrom([]int32{0, 0, 1, 2}).Draw(t, "ask gpus"), Ports: rapid.SampledFrom([]int32{0, 0, 1, 2}).Draw(t, "ask ports"),
		},
	}
	if rapid.IntRange(0, 3).Draw(t, "shares") == 0 {
		role.Ask.GPUs = 0
		role.Ask.GPUMilli = rapid.SampledFrom([]int32{0, 100, 250, 500, 700}).Draw(t, "milli")
		role.Ask.GPUMemory = rapid.SampledFrom([]int64{0, 1, 4 << 30, 16 << 30, 17 << 30}).Draw(t, "gpu memory")
	}
	if role.Ask.GPUs > 0 || role.Ask.Shares() {
		role.Ask.GPUModel = rapid.SampledFrom([]string{"", "A100", "T4", "H100", "A100,H100"}).Draw(t, "ask model")
	}
	if rapid.IntRange(0, 3).Draw(t, "labelled") == 0 {
		role.Labels = map[string]string{"zone": rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "ask zone")}
	}
	if chosen := rapid.SampledFrom([]string{"", "", "", cluster.AttributeDisk, cluster.AttributeGPUs, cluster.AttributeCores}).Draw(t, "chosen by"); chosen != "" {
		role.Constraints = []cluster.Constraint{{
			Attribute: chosen, Operator: rapid.SampledFrom([]cluster.Operator{cluster.OpLeast, cluster.OpMost}).Draw(t, "operator"),
			Values: []string{fmt.Sprint(rapid.IntRange(0, 4).Draw(t, "value"))},
		}}
	}
	if role.Ask.GPUs > 1 && rapid.Bool().Draw(t, "linked") {
		role.Topology.Level = cluster.LevelNVLink
	}
	return role
}

// play draws a world and what happens in it, and returns the first law that was broken. A mutant breaks some.
func play(t *rapid.T, policy Policy, broken mutant, counted map[string]int) error {
	w := &world{
		t: t, mutant: broken, m: New(policy), nodes: map[string]cluster.Node{}, pinned: map[string][]cluster.Allocation{},
		counts: map[string]int{}, counted: counted,
	}
	for i := range rapid.IntRange(1, 24).Draw(t, "shapes") {
		roles := []cluster.Role{drawRole(t, 0)}
		for r := range rapid.SampledFrom([]int{0, 0, 1, 2}).Draw(t, "more roles") {
			roles = append(roles, drawRole(t, r+1))
		}
		if len(roles) == 1 && rapid.IntRange(0, 3).Draw(t, "spread") == 0 {
			roles[0].Spread = "same"
		}
		w.shapes = append(w.shapes, NewShape(fmt.Sprintf("job-%d", i%3), roles))
	}
	for i := range rapid.IntRange(2, 6).Draw(t, "nodes") {
		id := fmt.Sprintf("n%d", i)
		w.nodes[id] = drawNode(t, id)
		w.m.Set(w.nodes[id], cluster.Resources{})
	}
	for range rapid.IntRange(20, 60).Draw(t, "steps") {
		if err := w.step(); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) step() error {
	steps := []func() error{
		w.take, w.take, w.take, w.take, w.take, w.give, w.mark, w.mark, w.mark, w.rollback, w.rollback, w.pin, w.unpin, w.set, w.set, w.delete, w.settle, w.count, w.fill,
	}
	before := w.m.version
	if err := rapid.SampledFrom(steps).Draw(w.t, "step")(); err != nil {
		return err
	}
	if w.mutant.after != nil {
		w.mutant.after(w.m)
	}
	if w.m.version > before && len(w.m.classes) > 0 {
		w.counted["stale"]++
	}
	return w.check()
}

func (w *world) id() string { return fmt.Sprintf("n%d", rapid.IntRange(0, 7).Draw(w.t, "node")) }

func (w *world) set() error {
	id := w.id()
	n, known := w.nodes[id]
	if !known || rapid.IntRange(0, 2).Draw(w.t, "redraw") == 0 {
		n = drawNode(w.t, id)
		n.Revision = n.Revision + uint64(rapid.IntRange(0, 1).Draw(w.t, "revision"))*w.m.version
		w.nodes[id] = n
	} else if rapid.Bool().Draw(w.t, "looks again") { // its agent finds what it did not
		n.Devices, n.Revision = slices.Clone(n.Devices), 0
		n.Disk = rapid.Int64Range(0, 4).Draw(w.t, "disk")
		for i := range n.Devices {
			n.Devices[i].Link = 1
		}
		w.nodes[id] = n
	}
	best := map[*class]bool{}
	for _, c := range w.m.classes {
		best[c] = w.scan(w.m, c, nil) >= 0
	}
	gained := w.m.Set(n, w.used(id))
	w.marks = nil
	for _, c := range w.m.classes {
		if fit := w.scan(w.m, c, nil) >= 0; fit && !best[c] && !gained {
			return fmt.Errorf("%v fits since Set, which says that nothing was gained", c.request)
		}
	}
	w.counted["set"]++
	return nil
}

func (w *world) delete() error {
	id := w.id()
	if _, known := w.nodes[id]; known {
		w.counted["delete"]++
	}
	delete(w.nodes, id)
	w.holds = slices.DeleteFunc(slices.Clone(w.holds), func(a cluster.Allocation) bool { return a.Node == id })
	w.m.Delete(id)
	w.marks = nil
	return nil
}

// used is the sum of what is held on a node.
func (w *world) used(id string) cluster.Resources {
	var sum cluster.Resources
	for _, a := range w.holds {
		if a.Node == id {
			sum.MilliCPU += a.Resources.MilliCPU
			sum.Memory += a.Resources.Memory
			sum.Devices = append(sum.Devices, a.Resources.Devices...)
			sum.Ports = append(sum.Ports, a.Resources.Ports...)
			sum.Shares, _ = cluster.AddShares(sum.Shares, a.Resources.Shares)
		}
	}
	return sum
}

func (w *world) take() error {
	s := rapid.SampledFrom(w.shapes).Draw(w.t, "shape")
	reference := w.m.Clone()
	want := w.scanTake(reference, s)
	got, stuck := w.m.Take(s)
	if w.mutant.taken != nil {
		got = w.mutant.taken(got)
	}
	if got != nil && len(got) != s.Size {
		return fmt.Errorf("half a gang: %d allocations of %d", len(got), s.Size)
	}
	if !reflect.DeepEqual(got, want) {
		return fmt.Errorf("took %v, a scan of all nodes takes %v", got, want)
	}
	if got == nil {
		w.counted["stuck"]++
		if stuck.Placed > 0 {
			w.counted["half"]++
		}
		return nil
	}
	w.counted["taken"]++
	w.holds = append(slices.Clone(w.holds), got...)
	for _, role := range s.Roles {
		if role.Spread != "" {
			w.counted["spread"]++
			for _, a := range got[role.First : role.First+role.Count] {
				w.counts[role.Spread+" "+a.Node]++
			}
		}
		for _, a := range got[role.First : role.First+role.Count] {
			if err := w.within(a, &role); err != nil {
				return err
			}
		}
	}
	return nil
}

// within checks one allocation against its node, knowing nothing of how it was found.
func (w *world) within(a cluster.Allocation, role *Need) error {
	n, r, used := w.nodes[a.Node], a.Resources, w.used(a.Node)
	switch {
	case n.State != cluster.NodeReady:
		return fmt.Errorf("%s is %q", a.Node, n.State)
	case r.MilliCPU != role.Ask.MilliCPU || r.Memory != role.Ask.Memory || len(r.Ports) != int(role.Ask.Ports) || len(r.Devices) != int(role.Ask.GPUs):
		return fmt.Errorf("%v was given for %v", r, role.Ask)
	case r.MilliCPU > 0 && used.MilliCPU > n.MilliCPU || r.Memory > 0 && used.Memory > n.Memory:
		return fmt.Errorf("%s is oversold: %v of %v", a.Node, used, n.Capacity())
	}
	for _, uuid := range r.Devices {
		at := slices.IndexFunc(n.Devices, func(d cluster.Device) bool { return d.UUID == uuid })
		if at < 0 || !n.Devices[at].Healthy || count(used.Devices, uuid) != 1 {
			return fmt.Errorf("device %s is not to be had: %v", uuid, used)
		}
		w.counted["device"]++
	}
	if (len(r.Shares) == 1) != role.Ask.Shares() {
		return fmt.Errorf("%v was given for %v", r, role.Ask)
	}
	for _, share := range r.Shares {
		at := slices.IndexFunc(n.Devices, func(d cluster.Device) bool { return d.UUID == share.UUID })
		if at < 0 || !n.Devices[at].Healthy || count(used.Devices, share.UUID) != 0 {
			return fmt.Errorf("device %s is not to be shared: %v", share.UUID, used)
		}
		if want, ok := role.Ask.ShareOf(n.Devices[at]); !ok || want != share {
			return fmt.Errorf("share %v is not %v", share, want)
		}
		for _, held := range used.Shares {
			if held.Milli > cluster.WholeGPU || held.Memory > n.Devices[at].Memory && held.UUID == share.UUID {
				return fmt.Errorf("device is oversold: %v", held)
			}
			w.counted["share"]++
		}
	}
	for _, port := range r.Ports {
		if port < n.PortFirst || port > n.PortLast || count(used.Ports, port) != 1 {
			return fmt.Errorf("port %d is not to be had: %v", port, used)
		}
		w.counted["port"]++
	}
	for _, l := range role.Labels {
		w.counted["label"]++
		if n.Labels[l.Key] != l.Value {
			return fmt.Errorf("%s has not the label %v", a.Node, l)
		}
	}
	return nil
}

func count[T comparable](list []T, item T) int {
	n := 0
	for _, one := range list {
		if one == item {
			n++
		}
	}
	return n
}

func (w *world) fill() error {
	s := rapid.SampledFrom(w.shapes).Draw(w.t, "shape")
	before := w.m.Sum()
	mark := w.m.Mark()
	w.m.Fill(s)
	w.m.Rollback(mark)
	if w.m.Sum() != before {
		return fmt.Errorf("undoing a part of a gang left something")
	}
	return nil
}

func (w *world) give() error {
	if len(w.holds) == 0 {
		return nil
	}
	i := rapid.IntRange(0, len(w.holds)-1).Draw(w.t, "given")
	w.m.Give(w.holds[i : i+1])
	w.holds = slices.Delete(slices.Clone(w.holds), i, i+1)
	w.counted["given"]++
	return nil
}

func (w *world) pin() error {
	id := rapid.SampledFrom([]string{"p", "q"}).Draw(w.t, "pin")
	mark := w.m.Mark()
	a, _ := w.m.Take(rapid.SampledFrom(w.shapes).Draw(w.t, "shape"))
	w.m.Rollback(mark)
	if len(w.holds) > 0 && rapid.Bool().Draw(w.t, "what others hold") {
		a = w.holds[:1]
		w.counted["pinned what others hold"]++
	}
	w.m.Pin(id, a)
	delete(w.pinned, id)
	if len(a) > 0 {
		w.pinned[id] = a
		w.counted["pinned"]++
	}
	return nil
}

func (w *world) unpin() error {
	id := rapid.SampledFrom([]string{"p", "q"}).Draw(w.t, "pin")
	if len(w.pinned[id]) > 0 {
		w.counted["unpinned"]++
	}
	w.m.Unpin(id)
	delete(w.pinned, id)
	return nil
}

func (w *world) mark() error {
	w.marks = append(w.marks, remembered{w.m.Mark(), w.m.Sum(), slices.Clone(w.holds), clonePins(w.pinned), cloneCounts(w.counts)})
	return nil
}

func (w *world) rollback() error {
	if len(w.marks) == 0 {
		return nil
	}
	i := rapid.IntRange(0, len(w.marks)-1).Draw(w.t, "mark")
	to := w.marks[i]
	if i < len(w.marks)-1 {
		w.counted["nested"]++
	}
	w.marks = w.marks[:i]
	w.m.Rollback(to.mark)
	w.holds, w.pinned, w.counts = to.holds, to.pinned, to.counts
	w.counted["rolled back"]++
	if sum := w.m.Sum(); sum != to.sum {
		return fmt.Errorf("rolled back to %x, it was %x", sum, to.sum)
	}
	return nil
}

func (w *world) settle() error {
	w.m.Settle()
	w.marks = nil
	return nil
}

func (w *world) count() error {
	job, node := fmt.Sprintf("job-%d", rapid.IntRange(0, 2).Draw(w.t, "job")), w.id()
	w.m.Settle()
	w.marks = nil
	w.m.Count(job, "same", node, 1)
	w.counts[job+"/same "+node]++
	return nil
}
