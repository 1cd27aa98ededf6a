package fgd

import (
	"cmp"
	"fmt"
	"math/rand"
	"slices"

	"github.com/clary-ml/clary/internal/fault"
)

// The published experiment's settings.
const (
	load     = 1.3 // of the GPUs of all nodes: until so much was asked for, pods arrive
	watches  = 10  // numbers drawn by the published simulator's own machinery between pods and nodes
	typical  = 95  // percent of the pods that the mix of classes covers
	mostPods = 4_000_000
	Points   = 131 // load points, 0 to 130 percent
	hundred  = 100.0
)

// arrivals are the pods in the order they come. All that is drawn is drawn from rng, in the
// published order: the pods are shuffled, then drawn again until the load is reached, or taken
// away again until it is no longer exceeded.
func arrivals(pods []Pod, capacity int64, rng *rand.Rand) ([]Pod, error) {
	rng.Int() // an argument of a line that the published simulator logs
	order := slices.Clone(pods)
	rng.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	total := sum(pods)
	if total == 0 {
		return nil, fault.New(fault.Invalid, "none of the pods asks for a GPU")
	}
	target := load * float64(capacity)
	tooFew := float64(total) < target
	for float64(total) > target {
		i := rng.Intn(len(order))
		total -= order[i].gpuMilli()
		order = slices.Delete(order, i, i+1)
	}
	for tooFew {
		p := pods[rng.Intn(len(pods))]
		if float64(total+p.Milli) > target {
			break
		}
		if len(order) == mostPods {
			return nil, fault.New(fault.Invalid, "the pods ask for so little that %d of them are not %v times the GPUs of all nodes", mostPods, load)
		}
		total += p.gpuMilli()
		order = append(order, p)
	}
	return order, nil
}

func sum(pods []Pod) (total int64) {
	for _, p := range pods {
		total += p.gpuMilli()
	}
	return total
}

// shuffled are the nodes in the order in which ties are broken: that of the names which the
// published simulator gives them.
func shuffled(nodes []Node, rng *rand.Rand) []Node {
	for range watches {
		rng.Float64()
	}
	type named struct {
		name string
		node Node
	}
	order := make([]named, len(nodes))
	for i, at := range rng.Perm(len(nodes)) {
		order[i] = named{fmt.Sprintf("%04d-%s", at, nodes[i].Name), nodes[i]}
	}
	slices.SortFunc(order, func(a, b named) int { return cmp.Compare(a.name, b.name) })
	sorted := make([]Node, len(nodes))
	for i, n := range order {
		sorted[i] = n.node
	}
	return sorted
}

// kind is what a pod is to the mix: memory does not count.
type kind struct {
	cpu, milli int64
	gpus       int
	spec       string
}

// compare orders kinds as the published simulator does among those that are as frequent.
func (k kind) compare(other kind) int {
	return cmp.Or(cmp.Compare(k.cpu, other.cpu), cmp.Compare(k.milli, other.milli), cmp.Compare(k.gpus, other.gpus), cmp.Compare(k.spec, other.spec))
}

// share is a kind and how much of the workload is of it.
type share struct {
	kind
	weight float64
}

// mix is the most frequent kinds of pods that together are at least 95 percent of the workload,
// with weights that add up to 1.
func mix(pods []Pod) []share {
	counts := map[kind]int{}
	for _, p := range pods {
		counts[kind{p.CPU, p.Milli, p.GPUs, p.Spec}]++
	}
	all := make([]share, 0, len(counts))
	for k, n := range counts {
		all = append(all, share{k, float64(n)})
	}
	slices.SortFunc(all, func(a, b share) int { return cmp.Or(cmp.Compare(b.weight, a.weight), b.compare(a.kind)) })
	total := float64(len(pods))
	covered, n := 0.0, 0
	for ; n < len(all) && covered < typical*total/hundred; n++ {
		covered += all[n].weight
		all[n].weight /= total
	}
	if n < len(all) {
		all = all[:n]
		for i := range all {
			all[i].weight /= covered / total
		}
	}
	return all
}
