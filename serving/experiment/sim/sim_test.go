package sim_test

import (
	"testing"

	"github.com/clary-ml/clary/serving/experiment/sim"
)

// Of 200 experiments at 0.05 more than 20 wrong ones come by chance less than once in 10^3; the seed is
// fixed, so that what passes passes again.
func TestLookingAfterEveryRequestIsRarelyWrong(t *testing.T) {
	peeked := 0
	for _, d := range sim.Distributions() {
		for _, share := range []float64{0.5, 0.1} {
			o := d.Case(share, 1).Run(200, 2000, 7)
			if o.Called > 20 {
				t.Errorf("%s, share %v: %d of %d called a difference where there is none", d.Name, share, o.Called, o.Experiments)
			}
			peeked += o.Naive
		}
	}
	// The t-test shows that the draws could have fooled one.
	if peeked < 400 {
		t.Errorf("a repeated t-test was wrong only %d times in 4000", peeked)
	}
}

func TestADifferenceIsFoundTheRightWayRound(t *testing.T) {
	d := sim.Distributions()
	for _, c := range []struct {
		of     int
		effect float64
		least  float64
	}{{0, 0.9, 0.99}, {2, 0.8, 0.95}, {4, 0.25, 0.95}, {8, 0.5, 0.95}} {
		o := d[c.of].Case(0.5, c.effect).Run(100, 20_000, 7)
		better := d[c.of].Name[:6] != "reward" // here B is less of it
		wrong := o.Wrong
		if !better {
			wrong = o.Called - o.Wrong
		}
		if o.Share(o.Called) < c.least || o.Share(wrong) > 0.02 || o.Median() == 0 || o.Mean() < float64(o.At[0]) {
			t.Errorf("%s times %v: %d of %d found it, %d the wrong way round", d[c.of].Name, c.effect, o.Called, o.Experiments, wrong)
		}
	}
}
