// Package sim measures by simulation how often an experiment is wrong, and how soon it is right, by the
// very code that judges real ones: every draw is looked at as it comes.
package sim

import (
	"math"
	"math/rand/v2"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/clary-ml/clary/serving/experiment"
	"github.com/clary-ml/clary/serving/route"
)

// Case is two arms to draw from.
type Case struct {
	Name string
	Plan experiment.Plan
	// Share is how many of the requests B gets.
	Share float64
	// Draw makes one observation of an arm: a latency in seconds, 1 for an error or else 0, or a reward.
	Draw func(random *rand.Rand, b bool) float64
}

// Outcome is what a number of experiments came to.
type Outcome struct {
	Experiments int
	// Called is how many called a difference at some time, Naive how many a t-test at 1 - alpha that is
	// repeated at every look would have, Once how many the same t-test at the end alone.
	Called, Naive, Once int
	// Wrong is how many of those called favoured the worse arm, for a case whose arms differ.
	Wrong int
	// At is after how many requests those called did, in order.
	At []int
}

// Share is a number of experiments as a share of all.
func (o Outcome) Share(n int) float64 { return float64(n) / float64(o.Experiments) }

// Median is after how many requests half of those that called a difference had; 0 if none did.
func (o Outcome) Median() int {
	if len(o.At) == 0 {
		return 0
	}
	return o.At[len(o.At)/2]
}

// Mean is after how many requests they did so in the mean.
func (o Outcome) Mean() float64 {
	sum := 0.0
	for _, at := range o.At {
		sum += float64(at)
	}
	return sum / float64(max(len(o.At), 1))
}

// Run makes so many experiments of so many requests each, on all cores. An experiment's draws depend on
// the seed and its number alone.
func (c Case) Run(experiments, requests int, seed uint64) Outcome {
	parts := make([]Outcome, runtime.GOMAXPROCS(0))
	var group errgroup.Group
	for worker := range parts {
		group.Go(func() error {
			for i := worker; i < experiments; i += len(parts) {
				c.one(&parts[worker], requests, rand.New(rand.NewPCG(seed, uint64(i))))
			}
			return nil
		})
	}
	_ = group.Wait() // none of them fails
	sum := Outcome{Experiments: experiments}
	for _, part := range parts {
		sum.Called, sum.Naive, sum.Once, sum.Wrong = sum.Called+part.Called, sum.Naive+part.Naive, sum.Once+part.Once, sum.Wrong+part.Wrong
		sum.At = append(sum.At, part.At...)
	}
	slices.Sort(sum.At)
	return sum
}

// one is one experiment, looked at after every request.
func (c Case) one(out *Outcome, requests int, random *rand.Rand) {
	a, b := experiment.Arm{Name: "a"}, experiment.Arm{Name: "b"}
	bound := -math.Log(alpha(c.Plan))
	called, naive, now := false, false, false
	for i := range requests {
		isB := random.Float64() < c.Share
		arm := &a
		if isB {
			arm = &b
		}
		c.add(arm, c.Draw(random, isB))
		if now = c.naive(a, b); now {
			naive = true
		}
		if !called && c.Plan.LogEvidence(a, b) >= bound {
			called = true
			out.At = append(out.At, i+1)
			if v := c.Plan.Judge(a, b); v.Call == experiment.Keep {
				out.Wrong++
			}
		}
	}
	for _, counted := range []struct {
		yes bool
		n   *int
	}{{called, &out.Called}, {naive, &out.Naive}, {now, &out.Once}} {
		if counted.yes {
			*counted.n++
		}
	}
}

func (c Case) add(arm *experiment.Arm, x float64) {
	arm.Requests++
	switch c.Plan.Metric {
	case experiment.Latency:
		arm.Logs.Add(math.Log(x))
	case experiment.Errors:
		arm.Errors += int64(x)
	default:
		arm.Rewards.Add(x)
	}
}

// naive says that a t-test of the difference of means calls it now.
func (c Case) naive(a, b experiment.Arm) bool {
	if min(a.Requests, b.Requests) < 200 { // as the plan's least
		return false
	}
	of := func(arm experiment.Arm) route.Moments {
		switch c.Plan.Metric {
		case experiment.Latency:
			return arm.Logs
		case experiment.Errors:
			return route.Moments{N: arm.Requests, Sum: float64(arm.Errors), Square: float64(arm.Errors)}
		default:
			return arm.Rewards
		}
	}
	mean := func(m route.Moments) (float64, float64) {
		n := float64(m.N)
		return m.Sum / n, (m.Square/n - m.Sum/n*m.Sum/n) / (n - 1)
	}
	meanA, varianceA := mean(of(a))
	meanB, varianceB := mean(of(b))
	return math.Abs(meanB-meanA) > 1.959964*math.Sqrt(varianceA+varianceB)
}

func alpha(p experiment.Plan) float64 {
	if p.Alpha == 0 {
		return 0.05
	}
	return p.Alpha
}
