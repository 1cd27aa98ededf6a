package sim

import (
	"math"
	"math/rand/v2"

	"github.com/clary-ml/clary/serving/experiment"
)

// Distribution draws one observation; effect is by which factor B differs.
type Distribution struct {
	Name   string
	Metric experiment.Metric
	Binary bool
	Draw   func(random *rand.Rand, effect float64) float64
}

func lognormal(median, sigma float64) func(*rand.Rand, float64) float64 {
	return func(random *rand.Rand, effect float64) float64 {
		return effect * median * math.Exp(sigma*random.NormFloat64())
	}
}

func yes(share float64) func(*rand.Rand, float64) float64 {
	return func(random *rand.Rand, effect float64) float64 {
		if random.Float64() < share*effect {
			return 1
		}
		return 0
	}
}

// Distributions are what is drawn from: latencies with light and heavy tails, errors from one in a
// thousand on, and rewards from clicks to revenue that most never bring.
func Distributions() []Distribution {
	return []Distribution{
		{"latency, log-normal (sigma 0.6)", experiment.Latency, false, lognormal(0.05, 0.6)},
		{"latency, Pareto (alpha 1.2, no variance)", experiment.Latency, false, func(random *rand.Rand, effect float64) float64 {
			return effect * 0.01 * math.Exp(random.ExpFloat64()/1.2)
		}},
		{"latency, 1 in 100 takes 100 times as long", experiment.Latency, false, func(random *rand.Rand, effect float64) float64 {
			slow := 1.0
			if random.Float64() < 0.01 {
				slow = 100
			}
			return effect * slow * 0.02 * math.Exp(0.3*random.NormFloat64())
		}},
		{"errors, 1 in 1,000", experiment.Errors, false, yes(0.001)},
		{"errors, 1 in 100", experiment.Errors, false, yes(0.01)},
		{"errors, 1 in 3", experiment.Errors, false, yes(1. / 3)},
		{"reward, normal", experiment.Reward, false, func(random *rand.Rand, effect float64) float64 { return effect + random.NormFloat64() }},
		{"reward, yes or no, 5 in 100, as a mean", experiment.Reward, false, yes(0.05)},
		{"reward, yes or no, 5 in 100, as binary", experiment.Reward, true, yes(0.05)},
		{"reward, 5 in 100 bring a log-normal (sigma 1)", experiment.Reward, false, func(random *rand.Rand, effect float64) float64 {
			if random.Float64() > 0.05 {
				return 0
			}
			return effect * 20 * math.Exp(random.NormFloat64())
		}},
	}
}

// Case is a distribution whose B differs by a factor; 1 is no difference.
func (d Distribution) Case(share, effect float64) Case {
	return Case{
		Name: d.Name, Plan: experiment.Plan{Metric: d.Metric, Binary: d.Binary}, Share: share,
		Draw: func(random *rand.Rand, b bool) float64 {
			if b {
				return d.Draw(random, effect)
			}
			return d.Draw(random, 1)
		},
	}
}
