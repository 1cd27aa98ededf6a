package bench_test

import (
	"math"
	"testing"

	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/bayes"
	"github.com/clary-ml/clary/tuner/bench"
	"github.com/clary-ml/clary/tuner/chance"
	"github.com/clary-ml/clary/tuner/cmaes"
	"github.com/clary-ml/clary/tuner/plain"
	"github.com/clary-ml/clary/tuner/space"
	"github.com/clary-ml/clary/tuner/stop"
	"github.com/clary-ml/clary/tuner/tpe"
)

func TestHartmannIsThePublishedFunctionAtItsLastStep(t *testing.T) {
	for dims, at := range map[int]space.Config{
		3: {0.114614, 0.555649, 0.852547},
		6: {0.20169, 0.150011, 0.476874, 0.275332, 0.311652, 0.6573},
	} {
		h, err := bench.NewHartmann(dims, 81, 1, 1)
		if err != nil {
			t.Fatal(err)
		}
		if got := h.Regret(at); math.Abs(got) > 1e-5 {
			t.Errorf("%s: regret %v at the optimum", h.Name(), got)
		}
		if low, high := h.At(at, 1, chance.New(1)), h.At(at, 80, chance.New(1)); low <= high {
			t.Errorf("%s: %v after the first step, %v before the last", h.Name(), low, high)
		}
	}
	if _, err := bench.NewHartmann(4, 81, 0, 0); err == nil {
		t.Error("there is no Hartmann function of four dimensions")
	}
}

// after is the mean regret of so many seeds at a time.
func after(t *testing.T, make tuner.Maker, stopper func(tuner.Fidelity) (stop.Stopper, error), time, seeds int) float64 {
	t.Helper()
	task, err := bench.NewHartmann(3, 81, 0.3, 0.1)
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for seed := range uint64(seeds) {
		curve, _, err := bench.Race{Make: make, Stopper: stopper, Time: float64(time), Workers: 4, Seed: seed}.Run(task)
		if err != nil || len(curve) != time {
			t.Fatal(curve, err)
		}
		sum += curve[time-1] / float64(seeds)
	}
	return sum
}

func stoppers() map[string]func(tuner.Fidelity) (stop.Stopper, error) {
	return map[string]func(tuner.Fidelity) (stop.Stopper, error){
		"none":      nil,
		"asha":      func(f tuner.Fidelity) (stop.Stopper, error) { return stop.ASHA(stop.Halving{}, f) },
		"promoting": func(f tuner.Fidelity) (stop.Stopper, error) { return stop.PromotingASHA(stop.Halving{}, f) },
		"hyperband": func(f tuner.Fidelity) (stop.Stopper, error) { return stop.ASHA(stop.Halving{Brackets: 3}, f) },
		"median":    func(tuner.Fidelity) (stop.Stopper, error) { return stop.Median{}, nil },
	}
}

func TestStoppingEarlyBeatsRunningEveryTrialToItsEnd(t *testing.T) {
	whole := after(t, plain.Random, nil, 15, 20)
	for name, stopper := range stoppers() {
		if stopper == nil {
			continue
		}
		got := after(t, plain.Random, stopper, 15, 20)
		if got >= whole {
			t.Errorf("%s: regret %.3f, without stopping %.3f", name, got, whole)
		}
		t.Logf("%s: %.3f, whole: %.3f", name, got, whole)
	}
}

func TestSamplersLearnFromTrialsOnTheirWay(t *testing.T) {
	for _, stopper := range []string{"asha", "promoting"} {
		random := after(t, plain.Random, stoppers()[stopper], 10, 20)
		for _, c := range []struct {
			name        string
			make        tuner.Maker
			time, seeds int
		}{{"bayes", bayes.New, 4, 5}, {"tpe", tpe.New, 8, 5}, {"cmaes", cmaes.New, 10, 20}} {
			if c.name == "cmaes" && stopper == "asha" {
				continue // here it is not faster than random search
			}
			got := after(t, c.make, stoppers()[stopper], c.time, c.seeds)
			if got >= random {
				t.Errorf("%s and %s: regret %.4f at %d, random search has %.4f at 10", c.name, stopper, got, c.time, random)
			}
			t.Logf("%s and %s: regret %.4f at %d, random search has %.4f at 10", c.name, stopper, got, c.time, random)
		}
	}
}
