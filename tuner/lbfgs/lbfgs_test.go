package lbfgs_test

import (
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/tuner/lbfgs"
)

func fill(d int, v float64) []float64 {
	x := make([]float64, d)
	for i := range x {
		x[i] = v
	}
	return x
}

func rosenbrock(x, grad []float64) float64 {
	clear(grad)
	sum := 0.0
	for i := range len(x) - 1 {
		a, b := x[i+1]-x[i]*x[i], 1-x[i]
		sum += 100*a*a + b*b
		grad[i] += -400*a*x[i] - 2*b
		grad[i+1] += 200 * a
	}
	return sum
}

func TestFindsTheBottomOfRosenbrocksValley(t *testing.T) {
	x := fill(6, -1.2)
	value := lbfgs.Minimize(rosenbrock, x, fill(6, -5), fill(6, 5), lbfgs.Options{Evaluations: 400, Decrease: 1e-14})
	if value > 1e-8 {
		t.Fatalf("got %g at %v", value, x)
	}
}

func TestStopsAtTheBoundsThatBind(t *testing.T) {
	// Rosenbrock with x ≤ 0.5: the minimum in the box is at (0.5, 0.25).
	x := fill(2, -1)
	lbfgs.Minimize(rosenbrock, x, fill(2, -2), fill(2, 0.5), lbfgs.Options{Evaluations: 200, Decrease: 1e-14})
	if math.Abs(x[0]-0.5) > 1e-6 || math.Abs(x[1]-0.25) > 1e-4 {
		t.Fatalf("got %v", x)
	}
}

// A convex quadratic in a box has one minimum, at which the projected gradient vanishes.
func TestSolvesConvexQuadraticsInABox(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := rapid.IntRange(1, 8).Draw(t, "d")
		number := rapid.Float64Range(-2, 2)
		curve, centre, x := fill(d, 0), fill(d, 0), fill(d, 0)
		for i := range d {
			curve[i] = math.Exp(3 * number.Draw(t, "curve"))
			centre[i] = number.Draw(t, "centre")
			x[i] = number.Draw(t, "start")
		}
		f := func(x, grad []float64) float64 {
			sum := 0.0
			for i, v := range x {
				sum += curve[i] * (v - centre[i]) * (v - centre[i]) / 2
				grad[i] = curve[i] * (v - centre[i])
			}
			return sum
		}
		lbfgs.Minimize(f, x, fill(d, -1), fill(d, 1), lbfgs.Options{Evaluations: 2000, Decrease: 1e-16, Gradient: 1e-9})
		for i, v := range x {
			if want := math.Min(math.Max(centre[i], -1), 1); math.Abs(v-want) > 1e-3 {
				t.Fatalf("x[%d] = %g, want %g (curves %v)", i, v, want, curve)
			}
		}
	})
}

func TestStepsBackFromWhereTheFunctionIsNotDefined(t *testing.T) {
	f := func(x, grad []float64) float64 { // x - log(x), least at 1
		if x[0] <= 0 {
			grad[0] = math.NaN()
			return math.NaN()
		}
		grad[0] = 1 - 1/x[0]
		return x[0] - math.Log(x[0])
	}
	x := []float64{3}
	lbfgs.Minimize(f, x, []float64{-10}, []float64{10}, lbfgs.Options{Step: 100})
	if math.Abs(x[0]-1) > 1e-3 {
		t.Fatalf("got %v", x)
	}
	x[0] = -1
	if value := lbfgs.Minimize(f, x, []float64{-10}, []float64{10}, lbfgs.Options{}); !math.IsNaN(value) || x[0] != -1 {
		t.Fatalf("a start that is not defined: got %g at %v", value, x)
	}
}

func TestNeverEvaluatesMoreThanItMay(t *testing.T) {
	for budget := 1; budget < 40; budget++ {
		calls := 0
		f := func(x, grad []float64) float64 { calls++; return rosenbrock(x, grad) }
		lbfgs.Minimize(f, fill(4, -1), fill(4, -5), fill(4, 5), lbfgs.Options{Evaluations: budget})
		if calls > budget {
			t.Fatalf("%d evaluations of %d", calls, budget)
		}
	}
}
