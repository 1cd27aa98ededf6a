package bench

import (
	"fmt"
	"math"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/chance"
	"github.com/clary-ml/clary/tuner/space"
)

// Hartmann is the Hartmann function in 3 or 6 dimensions with a fidelity: K. Kandasamy, G.
// Dasarathy, J. Schneider and B. Poczos, "Multi-fidelity Bayesian Optimisation with
// Continuous Approximations", ICML 2017, with the fidelity on a log scale as in N. Mallik
// and others, "PriorBand", NeurIPS 2023. A trial reports a loss at each of Steps; the last
// one is the function itself. At a step s the heights of the four hills are lower by Bias
// times (1 - log s / log Steps), and noise of that share of Noise is added.
type Hartmann struct {
	Dims  int // 3 or 6
	Steps int
	Bias  float64
	Noise float64
	space *space.Space
}

var heights = [4]float64{1, 1.2, 3, 3.2}

// hills are the shapes and places of the four hills, by dimensions.
var hills = map[int]struct {
	shapes, places [4][]float64
	least          float64
}{
	3: {
		shapes: [4][]float64{{3, 10, 30}, {0.1, 10, 35}, {3, 10, 30}, {0.1, 10, 35}},
		places: [4][]float64{{0.3689, 0.1170, 0.2673}, {0.4699, 0.4387, 0.7470}, {0.1091, 0.8732, 0.5547}, {0.0381, 0.5743, 0.8828}},
		least:  -3.86278,
	},
	6: {
		shapes: [4][]float64{{10, 3, 17, 3.5, 1.7, 8}, {0.05, 10, 17, 0.1, 8, 14}, {3, 3.5, 1.7, 10, 17, 8}, {17, 8, 0.05, 10, 0.1, 14}},
		places: [4][]float64{
			{0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886},
			{0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991},
			{0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650},
			{0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381},
		},
		least: -3.32237,
	},
}

// NewHartmann makes the task.
func NewHartmann(dims, steps int, bias, noise float64) (*Hartmann, error) {
	if _, known := hills[dims]; !known || steps < 2 {
		return nil, fault.New(fault.Invalid, "%d dimensions and %d steps: give 3 or 6, and 2 or more", dims, steps)
	}
	h := &Hartmann{Dims: dims, Steps: steps, Bias: bias, Noise: noise}
	var spec space.Spec
	for i := range dims {
		low, high := 0.0, 1.0
		spec.Parameters = append(spec.Parameters, space.Parameter{Name: fmt.Sprint("x", i), Type: space.Float, Low: &low, High: &high})
	}
	var err error
	h.space, err = spec.Compile()
	return h, err
}

// Name is "hartmann3" or "hartmann6".
func (h *Hartmann) Name() string { return fmt.Sprint("hartmann", h.Dims) }

// Instance is the function: it has only one.
func (h *Hartmann) Instance(uint64) Instance { return h }

// Problem is to minimise the function.
func (h *Hartmann) Problem() tuner.Problem {
	return tuner.Problem{
		Space: h.space, Objectives: []tuner.Objective{{Name: "value"}}, Fidelity: tuner.Fidelity{Name: "step", Max: float64(h.Steps)},
	}
}

// At is the loss that a trial reports at a step.
func (h *Hartmann) At(c space.Config, step int, r *chance.Rand) float64 {
	missing := 1 - math.Log(float64(step))/math.Log(float64(h.Steps))
	sum := 0.0
	for i, height := range heights {
		distance := 0.0
		for j, x := range c {
			off := x - hills[h.Dims].places[i][j]
			distance += hills[h.Dims].shapes[i][j] * off * off
		}
		sum += (height - h.Bias*missing) * math.Exp(-distance)
	}
	return -sum + h.Noise*missing*r.NormFloat64()
}

// Observe is the function.
func (h *Hartmann) Observe(c space.Config, r *chance.Rand) float64 { return h.At(c, h.Steps, r) }

// Regret is the distance to the least value, in shares of it.
func (h *Hartmann) Regret(c space.Config) float64 {
	least := hills[h.Dims].least
	return (h.At(c, h.Steps, chance.New(0)) - least) / -least
}
