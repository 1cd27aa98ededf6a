// Package fgd replays the placement experiment of Weng et al., "Beware of Fragmentation:
// Scheduling GPU-Sharing Workloads with Fragmentation Gradient Descent" (USENIX ATC 2023): pods of
// a production trace arrive at a cluster of GPU nodes, one after the other, and stay. What counts
// is how much of the GPUs is given out when as much was asked for as there is, and more.
//
// The policies that the paper compares are replayed to the published hundredth of a percent, draw
// for draw; "clary" is what this scheduler does in their place. See DESIGN.md.
package fgd

import (
	"maps"
	"math"
	"math/rand"
	"slices"
	"strconv"
	"strings"

	"github.com/clary-ml/clary/internal/fault"
)

// Result is one replay.
type Result struct {
	Policy string `json:"policy"`
	Seed   int64  `json:"seed"`
	// Allocation is the percentage of all GPUs that is given out when so many percent of them were
	// asked for, 0 to 130; where nothing arrives at a point, that of the point before.
	Allocation []float64 `json:"allocation"`
	// GPUs is what all nodes have.
	GPUs int64 `json:"-"`
}

// placer gives pods room as they come; what one has stays.
type placer interface {
	// place reports whether there was room.
	place(Pod) bool
}

// starts are the policies by name: each makes a cluster of nodes, in the order in which ties are broken, and may know
// the workload, but not its order.
func starts() map[string]func(nodes []Node, workload []Pod) placer {
	all := map[string]func([]Node, []Pod) placer{"clary": newProduction}
	for name, rule := range rules() {
		all[name] = func(nodes []Node, workload []Pod) placer { return newPublished(nodes, rule(mix(workload))) }
	}
	return all
}

// Policies are the names of all policies, sorted.
func Policies() []string { return slices.Sorted(maps.Keys(starts())) }

func unknown(policy string) error {
	return fault.New(fault.Invalid, "policy %q is unknown: there are %s", policy, strings.Join(Policies(), ", "))
}

// Run replays one policy with one seed. Nodes and pods are as the readers give them: sorted by name.
func Run(nodes []Node, pods []Pod, policy string, seed int64) (Result, error) {
	start, known := starts()[policy]
	if !known {
		return Result{}, unknown(policy)
	}
	capacity := int64(0)
	for _, n := range nodes {
		capacity += int64(n.GPUs) * Milli
	}
	if capacity == 0 {
		return Result{}, fault.New(fault.Invalid, "none of the nodes has a GPU")
	}
	rng := rand.New(rand.NewSource(seed))
	order, err := arrivals(pods, capacity, rng)
	if err != nil {
		return Result{}, err
	}
	c := start(shuffled(nodes, rng), pods)
	points := curve{capacity: capacity}
	for _, p := range order {
		points.arrived += p.gpuMilli()
		if c.place(p) {
			points.used += p.gpuMilli()
		}
		points.note()
	}
	return Result{policy, seed, points.allocation(), capacity / Milli}, nil
}

// curve is the allocation as it grows. Figures are rounded and added up as the published analysis
// does, so that a mean which ends in half a hundredth comes out on the same side.
type curve struct {
	capacity, arrived, used int64
	seen                    [Points][]float64 // what was given out after each arrival
}

func (c *curve) note() {
	at := math.RoundToEven(float64(c.arrived) / float64(c.capacity) * hundred)
	if at < Points { // beyond there is only what the last pod asked for too much
		given := float64(c.used) / float64(c.capacity/Milli) / 10
		text := strconv.FormatFloat(given, 'f', 2, 64)
		rounded, _ := strconv.ParseFloat(text, 64)
		c.seen[int(at)] = append(c.seen[int(at)], rounded)
	}
}

func (c *curve) allocation() []float64 {
	allocation := make([]float64, Points)
	for i, seen := range c.seen {
		switch {
		case len(seen) > 0:
			allocation[i] = math.RoundToEven(pairwise(seen)/float64(len(seen))*hundred) / hundred
		case i > 0:
			allocation[i] = allocation[i-1]
		}
	}
	return allocation
}

// pairwise adds up as NumPy does: eight sums at a time, in halves where there are many.
func pairwise(x []float64) float64 {
	switch {
	case len(x) < 8:
		sum := 0.0
		for _, v := range x {
			sum += v
		}
		return sum
	case len(x) > 128:
		half := len(x) / 2
		half -= half % 8
		return pairwise(x[:half]) + pairwise(x[half:])
	}
	var sums [8]float64
	whole := len(x) - len(x)%8
	for i, v := range x[:whole] {
		sums[i%8] += v
	}
	sum := ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]))
	for _, v := range x[whole:] {
		sum += v
	}
	return sum
}
