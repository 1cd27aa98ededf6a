package device

import (
	"context"
	"crypto/sha256"
	"fmt"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// Slotter is implemented by sources whose devices may be cut into slots (MIG).
type Slotter interface {
	// Slot is the name by which programs use a slot that a task was given.
	Slot(ctx context.Context, share cluster.DeviceShare) (string, error)
}

// profile is a size of slots as NVIDIA's MIG User Guide has it ("Supported MIG Profiles"): sevenths (of an A30 quarters)
// that compute, gigabytes, memory slices, and where it may begin ("MIG placement").
type profile struct {
	compute, memory, slices int32
	starts                  []int32
}

var (
	everywhere = []int32{0, 1, 2, 3, 4, 5, 6}
	pairs      = []int32{0, 2, 4, 6}
	three      = []int32{0, 2, 4}
	halves     = []int32{0, 4}
	first      = []int32{0}
)

// sevenths are the profiles of a GPU with seven compute and eight memory slices, by what one, two, four and eight
// memory slices have of its memory.
func sevenths(one, two, four, eight int32) []profile {
	return []profile{
		{1, one, 1, everywhere},
		{1, two, 2, pairs},
		{2, two, 2, three},
		{3, four, 4, halves},
		{4, four, 4, first},
		{7, eight, 8, first},
	}
}

// partitions are the models that can be simulated as partitioned.
var partitions = map[string][]profile{
	"A100": sevenths(10, 20, 40, 80), "A100-80GB": sevenths(10, 20, 40, 80), "A100-40GB": sevenths(5, 10, 20, 40),
	"H100": sevenths(10, 20, 40, 80), "H100-80GB": sevenths(10, 20, 40, 80),
	"H200": sevenths(18, 35, 71, 141), "B200": sevenths(23, 45, 90, 180),
	"A30": {{1, 6, 1, []int32{0, 1, 2, 3}}, {2, 12, 2, []int32{0, 2}}, {4, 24, 4, first}},
}

// partition are the profiles of a simulated model; none if it cannot be cut.
func partition(model string) []cluster.MIGProfile {
	var profiles []cluster.MIGProfile
	for _, p := range partitions[model] {
		profiles = append(profiles, cluster.MIGProfile{
			Name: fmt.Sprintf("%dg.%dgb", p.compute, p.memory), Slices: p.slices, Memory: int64(p.memory) * gib, Starts: p.starts,
		})
	}
	return profiles
}

// Slot names a pretended slot: the same one has the same name for every task.
func (s *Simulated) Slot(_ context.Context, share cluster.DeviceShare) (string, error) {
	for _, d := range s.devices {
		if p, known := d.Profile(share.Profile); d.UUID == share.UUID && known && p.MayBegin(share.Start) {
			sum := sha256.Sum256(fmt.Appendf(nil, "%s %s %d", share.UUID, share.Profile, share.Start))
			return fmt.Sprintf("MIG-%x-%x-%x-%x-%x", sum[0:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16]), nil
		}
	}
	return "", fault.New(fault.Invalid, "device %s has no slot %s at slice %d", share.UUID, share.Profile, share.Start)
}
