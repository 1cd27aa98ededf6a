package evict

import (
	"math"
	"time"

	"github.com/clary-ml/clary/cluster"
)

// CoresPerGPU is what a gang weighs that has no GPUs: a core is a sixteenth of a GPU, about what a GPU's machine has
// for each.
const CoresPerGPU = 16

// most is the time after which more lost work makes no difference. It keeps products far from overflow.
const most = 90 * 24 * time.Hour

// Weight is how much of the cluster allocations hold, in thousandths of a GPU, at least 1.
func Weight(allocations []cluster.Allocation) int64 {
	weight := int64(0)
	for _, a := range allocations {
		weight += int64(len(a.Resources.Devices))*1000 + a.Resources.MilliCPU/CoresPerGPU
		for _, s := range a.Resources.Shares {
			weight += s.MilliGPU()
		}
	}
	return max(1, weight)
}

// Cost is what stopping a gang loses, in thousandths of a GPU times milliseconds: the time since safe, the
// instant from which it would go on (its last checkpoint, or its start), and the time that it takes to start
// again, both for all that it holds.
func Cost(weight, safe, now int64, restart time.Duration) int64 {
	lost := min(max(0, time.Duration(now-safe)), most) + min(max(0, restart), most)
	ms := int64(lost / time.Millisecond)
	if ms > 0 && weight > math.MaxInt64/ms {
		return math.MaxInt64
	}
	return weight * ms
}

// Sum is what stopping all of them loses.
func Sum(victims []*Candidate) int64 {
	sum := int64(0)
	for _, v := range victims {
		sum = add(sum, v.Cost)
	}
	return sum
}

func add(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}
