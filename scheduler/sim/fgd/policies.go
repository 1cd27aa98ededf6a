package fgd

import (
	"math"
	"slices"
)

// What the published policies take for the largest node.
const (
	largestCPU  = 128_000
	largestGPUs = 8 * Milli
)

// rules are the published policies by name, as functions of the workload's mix.
func rules() map[string]func([]share) policy {
	same := func(score func(*node, *class) int64) func([]share) policy {
		return func([]share) policy { return policy{score, tightest} }
	}
	return map[string]func([]share) policy{
		"fgd":        func(mix []share) policy { return newGradient(mix).policy() },
		"bestfit":    same(bestFit),
		"dotprod":    same(dotProduct),
		"packing":    same(packing),
		"clustering": same(clustering),
	}
}

// tightest puts a share on the GPU with least room.
func tightest(n *node, cl *class) int { return n.tightest(cl)[0] }

// bestFit takes the node with the least left of cores and GPUs, weighed alike.
//
// Products are converted before they are added, here and below, so that no processor fuses the two:
// what is cut to a whole number afterwards must be the same everywhere.
func bestFit(n *node, cl *class) int64 {
	left := float64(float64(n.cpu-cl.cpu)/largestCPU*0.5) + float64(float64(n.total-cl.milli*int64(cl.gpus))/largestGPUs*0.5)
	return int64((1 - left) * 100)
}

// dotProduct takes the node whose free room is least like the request (Grandl et al.,
// "Multi-resource packing for cluster schedulers", SIGCOMM 2014).
func dotProduct(n *node, cl *class) int64 {
	cpu := float64(float64(n.cpu) / largestCPU * (float64(cl.cpu) / largestCPU))
	gpu := float64(float64(n.total) / largestGPUs * (float64(cl.milli*int64(cl.gpus)) / largestGPUs))
	return int64(100 * (1 - (cpu+gpu)/2))
}

// packing prefers GPUs that are in use, then nodes that are in use (Xiao et al., "AntMan", OSDI 2020).
func packing(n *node, cl *class) int64 {
	if cl.gpus == 0 {
		return 0
	}
	whole := int64(0)
	for _, free := range n.free {
		if free == Milli {
			whole++
		}
	}
	if int(whole) == len(n.free) {
		return max(33-whole, whole)
	}
	whole, left := 0, int64(0)
	for _, i := range n.tightest(cl) {
		if n.free[i] == Milli {
			whole++
		}
		left += n.free[i] * 100 / Milli
	}
	if whole > 0 {
		return max(50-whole, 33)
	}
	return max(100-left/10, 50)
}

// clustering keeps pods of one size together (Xiao et al., "Gandiva", OSDI 2018).
func clustering(n *node, cl *class) int64 {
	if cl.gpus == 0 {
		return 0
	}
	size := cl.gpus
	if cl.shared() {
		size = 0
	}
	base := int64(0)
	switch same := slices.Contains(n.held, size); {
	case same && len(n.held) == 1:
		base = 75
	case same:
		base = 50
	case len(n.held) == 0:
		base = 25
	}
	return base + 25*(largestGPUs-n.total)/largestGPUs
}

// gradient is Fragmentation Gradient Descent (Weng et al., section 4): a pod goes where it makes the
// expected room that the next pod cannot use grow least.
type gradient struct {
	mix      []share
	admitted map[string][]bool // by model, of each of the mix
	after    []int64
}

func newGradient(mix []share) *gradient { return &gradient{mix: mix, admitted: map[string][]bool{}} }

func (g *gradient) policy() policy {
	return policy{
		score: func(n *node, cl *class) int64 {
			score, _ := g.best(n, cl)
			return score
		},
		device: func(n *node, cl *class) int {
			_, device := g.best(n, cl)
			return device
		},
	}
}

// best is the node's score for a class and, for a share, the GPU with which it has it.
func (g *gradient) best(n *node, cl *class) (score int64, device int) {
	before := g.fragmentation(n.model, n.cpu, n.free, n.total)
	rise := func() int64 {
		after := g.fragmentation(n.model, n.cpu-cl.cpu, g.after, n.total-cl.milli*int64(cl.gpus))
		return int64(1 / (1 + math.Exp(-(before-after)/1000)) * 100)
	}
	g.after = append(g.after[:0], n.free...)
	if !cl.shared() {
		for _, i := range n.tightest(cl) {
			g.after[i] -= cl.milli
		}
		return rise(), -1
	}
	score, device = -1, -1
	for i, free := range n.free {
		if free < cl.milli || slices.Contains(n.free[:i], free) { // an equal one was tried
			continue
		}
		g.after[i] -= cl.milli
		if s := rise(); s > score {
			score, device = s, i
		}
		g.after[i] = free
	}
	return score, device
}

// The sorts of fragments, in the order in which the published simulator adds them up. What is cut to
// a whole number depends on it.
const (
	lacksBoth = iota
	lacksGPU
	lacksCPU
	noGPUWanted
	noCPUForNoGPU
	wrongModel
	sorts
)

// fragmentation is how many thousandths of GPUs on the node the next pod can not use, as expected
// from the mix.
func (g *gradient) fragmentation(model string, cpu int64, free []int64, total int64) float64 {
	admitted, known := g.admitted[model]
	if !known {
		for _, s := range g.mix {
			admitted = append(admitted, admits(s.spec, model))
		}
		g.admitted[model] = admitted
	}
	var of [sorts]float64
	for i := range g.mix {
		s := &g.mix[i]
		sort, lost := noGPUWanted, total
		switch {
		case s.gpus == 0:
			if cpu < s.cpu {
				sort = noCPUForNoGPU
			}
		case !admitted[i]:
			sort = wrongModel
		default:
			enough, unusable := 0, int64(0)
			for _, f := range free {
				if f >= s.milli {
					enough++
				} else {
					unusable += f
				}
			}
			switch fits := enough >= s.gpus; {
			case fits && cpu >= s.cpu:
				sort, lost = lacksGPU, unusable
			case fits:
				sort = lacksCPU
			case cpu >= s.cpu:
				sort = lacksGPU
			default:
				sort = lacksBoth
			}
		}
		of[sort] += float64(s.weight * float64(lost))
	}
	var all float64
	for _, amount := range of {
		all += amount
	}
	return all
}
