package network

import (
	"math"
	"math/rand/v2"

	"github.com/clary-ml/clary/trainer/spec"
)

// Key names one dropout mask: the same key always gives the same mask.
type Key struct {
	Seed   int64
	Step   int64
	Worker int
	Layer  int
}

// fill draws the mask: 0 with the layer's rate, else what keeps the mean as it was.
func (k Key) fill(m mask) {
	r := rand.NewPCG(uint64(k.Seed), uint64(k.Step)<<24^uint64(k.Worker)<<8^uint64(k.Layer))
	limit := uint32(m.rate * (1 << 32))
	keep := float32(1 / (1 - m.rate))
	for i := 0; i < len(m.values); i += 2 {
		u := r.Uint64()
		m.values[i] = pick(uint32(u), limit, keep)
		if i+1 < len(m.values) {
			m.values[i+1] = pick(uint32(u>>32), limit, keep)
		}
	}
}

func pick(u, limit uint32, keep float32) float32 {
	if u < limit {
		return 0
	}
	return keep
}

// Initialize fills an arena with a new network's weights: uniform with He's variance
// before relu (Delving Deep into Rectifiers, ICCV 2015, section 2.2), else with Glorot's
// (Understanding the difficulty of training deep feedforward neural networks, AISTATS
// 2010, section 4.2). Biases are 0.
func Initialize(plan spec.Plan, seed int64, weights []float32) {
	r := rand.New(rand.NewPCG(uint64(seed), 0x696e6974))
	clear(weights)
	for _, s := range plan.Stages {
		if s.Weights.Len() == 0 {
			continue
		}
		in, out := spec.Volume(s.In), spec.Volume(s.Out)
		if c := s.Layer.Conv2D; c != nil {
			in, out = s.In[0]*c.Kernel*c.Kernel, c.Filters*c.Kernel*c.Kernel
		}
		limit := math.Sqrt(6 / float64(in+out))
		if s.Layer.ActivationOf() == spec.ReLU {
			limit = math.Sqrt(6 / float64(in))
		}
		for i := s.Weights.From; i < s.Weights.To; i++ {
			u := float64(r.Uint64()>>11) / (1 << 53)
			weights[i] = float32((2*u - 1) * limit)
		}
	}
}
