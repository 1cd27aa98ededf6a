package room

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/clary-ml/clary/cluster"
)

// Shape is what a gang needs. Gangs that need the same share a shape's Key, and where a Shapes made
// them the shape itself: what does not fit for one does not fit for all. A shape never changes.
type Shape struct {
	Key   string
	Roles []Need // in the order of the gang's roles
	Size  int    // tasks of all roles

	// Topology is what the tasks of those roles have in common that are Bound; its level is node, rack or zone, or
	// "" for nothing.
	Topology cluster.Topology

	order, reverse []int // of roles: the hardest to place first, and last
}

// Need is one role.
type Need struct {
	Name   string
	Count  int
	First  int // place of its first task among the gang's
	Ask    cluster.Ask
	Labels []Label // sorted; a node must have all
	Spread string  // names the tasks that it keeps away from; "" if it keeps away from none
	Bound  bool    // by the shape's topology

	Constraints []cluster.Constraint
	Tolerations []cluster.Toleration

	wish  *wish  // what is asked for beyond a class; nil for most
	guest *Guest // for whom it is placed; nil if nobody keeps it away

	class   key
	without []string // models that it is not to have, of those that would do
}

// Label is a label that a node must have.
type Label struct{ Key, Value string }

// key identifies a class of requests in any Map: Request.Models is left out and named.
type key struct {
	request Request
	models  string
	filter  string
	devices string // constraints on devices
	profile string // of slots
	without string // Need.without
}

// NewShape reads what the roles of a job's gang need.
func NewShape(job string, roles []cluster.Role) *Shape {
	shape := &Shape{}
	var text strings.Builder
	for i, role := range roles {
		n := Need{
			Name: role.Name, Count: int(role.Count), First: shape.Size, Ask: role.Ask, Spread: spreadOf(job, role.Spread),
			Constraints: role.Constraints, Tolerations: role.Tolerations,
		}
		for k, v := range role.Labels {
			n.Labels = append(n.Labels, Label{k, v})
		}
		slices.SortFunc(n.Labels, func(a, b Label) int { return cmp.Compare(a.Key, b.Key) })
		n.class = keyOf(&n)
		n.class.request.near = nearOf(role.Topology)
		n.wish = wishOf(job, &role)
		if level := role.Topology.Level; level == cluster.LevelNode || level == cluster.LevelRack || level == cluster.LevelZone {
			n.Bound, shape.Topology = true, role.Topology
		}
		fmt.Fprintf(&text, "%s %d %d %d %d %q %d %q;", role.Name, role.Count, role.Ask.MilliCPU, role.Ask.Memory, role.Ask.GPUs, role.Ask.GPUModel, role.Ask.Ports, n.Labels)
		if role.Ask.Shares() {
			fmt.Fprintf(&text, "share %d %d;", role.Ask.GPUMilli, role.Ask.GPUMemory)
		}
		if n.Spread != "" {
			fmt.Fprintf(&text, "%q;", n.Spread)
		}
		placeKey(&text, job, &role)
		shape.Roles = append(shape.Roles, n)
		shape.order = append(shape.order, i)
		shape.Size += n.Count
	}
	shape.Key = text.String()
	// GPUs are the scarcest, then memory, then cores. The order is part of the policy.
	slices.SortStableFunc(shape.order, func(i, j int) int {
		a, b := shape.Roles[i].Ask, shape.Roles[j].Ask
		return cmp.Or(cmp.Compare(b.GPUs, a.GPUs), cmp.Compare(b.GPUMilli, a.GPUMilli), cmp.Compare(b.GPUMemory, a.GPUMemory), cmp.Compare(b.Memory, a.Memory), cmp.Compare(b.MilliCPU, a.MilliCPU))
	})
	shape.reverse = slices.Clone(shape.order)
	slices.Reverse(shape.reverse)
	return shape
}

// Only is the shape of one of the roles alone.
func (s *Shape) Only(role int) *Shape {
	need := s.Roles[role]
	need.First = 0
	return &Shape{
		Topology: s.Topology,
		Key:      fmt.Sprintf("%d of %s", role, s.Key), Roles: []Need{need}, Size: need.Count, order: []int{0}, reverse: []int{0},
	}
}

// Without is the shape with these models of GPU left out by the roles for which another model would do.
func (s *Shape) Without(models []string) *Shape {
	other := *s
	other.Key = fmt.Sprintf("%swithout %q;", s.Key, models)
	other.Roles = slices.Clone(s.Roles)
	for i := range other.Roles {
		if n := &other.Roles[i]; len(n.Ask.Models()) != 1 {
			n.without, n.class.without = models, strings.Join(models, ",")
		}
	}
	return &other
}

// keyOf says what one task of a role needs. What no node has, a negative or overflowing amount, stays
// out of reach and never wraps around.
func keyOf(n *Need) key {
	k := key{models: n.Ask.GPUModel, filter: filterKey(n), devices: deviceKey(n.Constraints), profile: n.Ask.MIG}
	k.request = Request{
		Memory: max(0, n.Ask.Memory), Milli: int32(min(max(0, n.Ask.MilliCPU), math.MaxInt32)),
		Ports: max(0, n.Ask.Ports), GPUs: max(0, n.Ask.GPUs), GPUMilli: max(0, n.Ask.GPUMilli), GPUMemory: max(0, n.Ask.GPUMemory),
	}
	if n.Ask.Shares() && (n.Ask.GPUs > 0 || n.Ask.MIG != "") {
		k.request.GPUs = math.MaxInt32 // nowhere
	}
	return k
}

// spreadOf names the tasks of a job that are spread together.
func spreadOf(job, spread string) string {
	if spread == "" {
		return ""
	}
	return job + "/" + spread
}
