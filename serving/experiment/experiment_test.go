package experiment_test

import (
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/serving/experiment"
	"github.com/clary-ml/clary/serving/route"
)

// moments are those of n values half of which are one deviation above a mean, half below.
func moments(n int64, mean, deviation float64) route.Moments {
	f := float64(n)
	return route.Moments{N: n, Sum: f * mean, Square: f * (mean*mean + deviation*deviation), Cube: f * (mean*mean*mean + 3*mean*deviation*deviation)}
}

// fast is an arm of latencies around a median in seconds.
func fast(name string, n int64, median float64) experiment.Arm {
	return experiment.Arm{Name: name, Requests: n, Logs: moments(n, math.Log(median), 0.6)}
}

func failing(name string, n, errors int64) experiment.Arm {
	return experiment.Arm{Name: name, Requests: n, Errors: errors}
}

func rewarded(name string, n int64, mean float64) experiment.Arm {
	return experiment.Arm{Name: name, Requests: 2 * n, Rewards: moments(n, mean, 1)}
}

func clicked(name string, n, clicks int64) experiment.Arm {
	c := float64(clicks)
	return experiment.Arm{Name: name, Requests: n, Rewards: route.Moments{N: n, Sum: c, Square: c, Cube: c}}
}

func TestTheRecommendationIsInWords(t *testing.T) {
	latency, errors, reward := experiment.Plan{Metric: experiment.Latency}, experiment.Plan{Metric: experiment.Errors}, experiment.Plan{Metric: experiment.Reward}
	close := experiment.Plan{Metric: experiment.Latency, Margin: 0.02}
	safe := experiment.Plan{Metric: experiment.Reward, Guards: []experiment.Guard{{Metric: experiment.Errors}}}
	sure := experiment.Plan{Metric: experiment.Reward, Guards: []experiment.Guard{{Metric: experiment.Errors, Margin: 0.001}}}
	with := func(a experiment.Arm, errors int64) experiment.Arm { a.Errors = errors; return a }
	for _, c := range []struct {
		name string
		plan experiment.Plan
		a, b experiment.Arm
		call experiment.Call
		why  string
	}{
		{"faster", latency, fast("blue", 50_000, 0.1), fast("green", 50_000, 0.085), experiment.Promote, "promote green: its latency is 14 % to 16 % lower"},
		{"slower", latency, fast("blue", 50_000, 0.1), fast("green", 50_000, 0.12), experiment.Keep, "keep blue: green's latency is 19 % to 21 % higher"},
		{"too few", latency, fast("blue", 50_000, 0.1), fast("green", 199, 0.01), experiment.GoOn, "each variant needs at least 200 requests, blue has 50000 and green 199"},
		{"not yet", latency, fast("blue", 500, 0.1), fast("green", 500, 0.095), experiment.GoOn, "requests more if what is seen is right"},
		{"equal, no margin", latency, fast("blue", 5000, 0.1), fast("green", 5000, 0.1), experiment.GoOn, "without a margin equal variants are never told apart"},
		{"equal within a margin", close, fast("blue", 200_000, 0.1), fast("green", 200_000, 0.1005), experiment.Same, "no difference beyond 2 % either way: keep blue"},
		{"better than a margin", close, fast("blue", 200_000, 0.1), fast("green", 200_000, 0.09), experiment.Promote, ""},
		{"fewer errors", errors, failing("blue", 20_000, 200), failing("green", 20_000, 80), experiment.Promote, "promote green: its error rate is 39 % to 75 % lower"},
		{"no errors at all", errors, failing("blue", 5000, 30), failing("green", 5000, 0), experiment.Promote, "lower"},
		{"a handful of errors", errors, failing("blue", 5000, 3), failing("green", 5000, 0), experiment.GoOn, ""},
		{"errors of neither", errors, failing("blue", 5000, 0), failing("green", 5000, 0), experiment.GoOn, "not known"},
		{"errors of neither, within a margin", experiment.Plan{Metric: experiment.Errors, Margin: 0.005}, failing("blue", 5000, 0), failing("green", 5000, 0), experiment.Same, "no difference beyond 0.5 points"},
		{"a small arm that always fails", errors, failing("blue", 20_000, 0), failing("green", 300, 300), experiment.Keep, "keep blue"},
		{"more reward", reward, rewarded("blue", 5000, 1), rewarded("green", 5000, 1.2), experiment.Promote, "promote green: its reward is 0.1"},
		{"less reward", reward, rewarded("blue", 5000, 1), rewarded("green", 5000, 0.8), experiment.Keep, "lower"},
		{"more clicks", experiment.Plan{Metric: experiment.Reward, Binary: true}, clicked("blue", 5000, 100), clicked("green", 5000, 200), experiment.Promote, "higher"},
		{"no binary rewards", experiment.Plan{Metric: experiment.Reward, Binary: true}, rewarded("blue", 5000, 1), rewarded("green", 5000, 2), experiment.GoOn, "other than 0 and 1"},
		{"more reward and more errors", safe, with(rewarded("blue", 5000, 1), 10), with(rewarded("green", 5000, 1.2), 100), experiment.Keep, "but its error rate is"},
		{"more reward, errors alike", safe, with(rewarded("blue", 5000, 1), 10), with(rewarded("green", 5000, 1.2), 11), experiment.Promote, ""},
		{"more reward, errors not known well", sure, with(rewarded("blue", 5000, 1), 10), with(rewarded("green", 5000, 1.2), 11), experiment.GoOn, "worse by less than 0.1 points"},
		{"more reward, errors known well", sure, with(rewarded("blue", 500_000, 1), 10), with(rewarded("green", 500_000, 1.2), 11), experiment.Promote, ""},
		{"no answer", experiment.Plan{Metric: experiment.Latency, Most: 1000}, fast("blue", 500, 0.1), fast("green", 500, 0.1), experiment.Undone, "no answer after 1000 requests"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if problems := c.plan.Validate(); len(problems) > 0 {
				t.Fatal(problems)
			}
			v := c.plan.Judge(c.a, c.b)
			if v.Call != c.call || !strings.Contains(v.Why, c.why) || v.Done() != (c.call != experiment.GoOn) {
				t.Errorf("%s: %q; want %s: %q", v.Call, v.Why, c.call, c.why)
			}
		})
	}
}

func TestWhatItTakesMoreIsAboutRight(t *testing.T) {
	plan := experiment.Plan{Metric: experiment.Latency, Margin: 0.01}
	for _, c := range []struct {
		median float64
		want   experiment.Call
	}{{0.094, experiment.Promote}, {0.1, experiment.Same}} {
		v := plan.Judge(fast("blue", 1000, 0.1), fast("green", 1000, c.median))
		if v.Call != experiment.GoOn || v.More == 0 {
			t.Fatalf("%+v", v)
		}
		for _, share := range []float64{0.8, 1.25} {
			n := 1000 + int64(share*float64(v.More)/2)
			if got := plan.Judge(fast("blue", n, 0.1), fast("green", n, c.median)); (got.Call == c.want) != (share > 1) {
				t.Errorf("median %v: with %v of %d more: %s", c.median, share, v.More, got.Why)
			}
		}
	}
}

func TestPlansWithMistakesNameTheirField(t *testing.T) {
	nan := math.NaN()
	for field, plans := range map[string][]experiment.Plan{
		"metric":           {{}, {Metric: "speed"}},
		"binary":           {{Metric: experiment.Latency, Binary: true}},
		"alpha":            {{Metric: experiment.Errors, Alpha: nan}, {Metric: experiment.Errors, Alpha: 1}, {Metric: experiment.Errors, Alpha: -0.1}},
		"margin":           {{Metric: experiment.Reward, Margin: nan}, {Metric: experiment.Reward, Margin: math.Inf(1)}, {Metric: experiment.Errors, Margin: 1.5}, {Metric: experiment.Latency, Margin: -1}},
		"least":            {{Metric: experiment.Errors, Least: -1}, {Metric: experiment.Errors, Least: 1}},
		"most":             {{Metric: experiment.Errors, Most: 100}, {Metric: experiment.Errors, Most: math.MaxInt64}},
		"expect":           {{Metric: experiment.Errors, Expect: -5}},
		"guards[0].metric": {{Metric: experiment.Errors, Guards: []experiment.Guard{{}}}, {Metric: experiment.Errors, Guards: []experiment.Guard{{Metric: experiment.Errors}}}},
		"guards[1].metric": {{Metric: experiment.Errors, Guards: []experiment.Guard{{Metric: experiment.Latency}, {Metric: experiment.Latency}}}},
		"guards[0].margin": {{Metric: experiment.Errors, Guards: []experiment.Guard{{Metric: experiment.Latency, Margin: nan}}}},
		"guards":           {{Metric: experiment.Errors, Guards: make([]experiment.Guard, 20)}},
	} {
		for i, plan := range plans {
			found := false
			for _, problem := range plan.Validate() {
				found = found || problem.Field == field
			}
			if !found {
				t.Errorf("%s, case %d: %v", field, i, plan.Validate())
			}
		}
	}
}

func drawArm(t *rapid.T, name string) experiment.Arm {
	n := rapid.SampledFrom([]int64{0, 1, 2, 50, 200, 5000, 5000, 5000, 1_000_000, 1_000_000}).Draw(t, "n")
	m := func(what string) route.Moments {
		return moments(n, rapid.SampledFrom([]float64{0, 0.01, 1, 1, -5, 1e9}).Draw(t, what), rapid.SampledFrom([]float64{1, 1, 0.1, 0, 1e-9, 1e3}).Draw(t, what+" deviation"))
	}
	return experiment.Arm{Name: name, Requests: n, Errors: rapid.Int64Range(0, n).Draw(t, "errors"), Logs: m("logs"), Rewards: m("rewards")}
}

func drawPlan(t *rapid.T) experiment.Plan {
	plan := experiment.Plan{
		Metric: rapid.SampledFrom([]experiment.Metric{experiment.Latency, experiment.Errors, experiment.Reward}).Draw(t, "metric"),
		Margin: rapid.SampledFrom([]float64{0, 0.01, 1}).Draw(t, "margin"), Alpha: rapid.SampledFrom([]float64{0, 0.01, 0.2}).Draw(t, "alpha"),
	}
	for _, metric := range []experiment.Metric{experiment.Latency, experiment.Errors, experiment.Reward} {
		if metric != plan.Metric && rapid.Bool().Draw(t, "guarded") {
			plan.Guards = append(plan.Guards, experiment.Guard{Metric: metric, Margin: rapid.SampledFrom([]float64{0, 0.01}).Draw(t, "guard")})
		}
	}
	return plan
}

func TestAVerdictIsConsistentInItself(t *testing.T) {
	calls := map[experiment.Call]int{}
	rapid.Check(t, func(t *rapid.T) {
		plan, a, b := drawPlan(t), drawArm(t, "a"), drawArm(t, "b")
		v := plan.Judge(a, b)
		calls[v.Call]++
		alpha := plan.Alpha
		if alpha == 0 {
			alpha = 0.05
		}
		excludes := v.Low != nil && *v.Low > 0 || v.High != nil && *v.High < 0
		if known := v.P < alpha*(1-1e-6); known != excludes && math.Abs(v.P-alpha) > alpha*1e-6 {
			t.Fatalf("p is %v, the interval excludes 0: %v: %+v", v.P, excludes, v)
		}
		if v.Low != nil && v.High != nil && (*v.Low > *v.High || v.Estimate != nil && (*v.Estimate < *v.Low-1e-9 || *v.Estimate > *v.High+1e-9)) {
			t.Fatalf("the estimate is outside of its interval: %+v", v)
		}
		if v.Call == experiment.Promote && !excludes || v.Why == "" || math.IsNaN(v.P) || math.IsNaN(v.Evidence) || strings.Contains(v.Why, "NaN") {
			t.Fatalf("%+v", v)
		}
		for _, g := range v.Guards {
			if g.Harmed && v.Call == experiment.Promote {
				t.Fatalf("promoted in spite of harm: %+v", v)
			}
		}
		// Who is called A and who B makes no difference to what is known.
		if other := plan.Judge(b, a); math.Abs(other.P-v.P) > 1e-6 {
			t.Fatalf("p is %v one way and %v the other", v.P, other.P)
		}
	})
	for _, call := range []experiment.Call{experiment.GoOn, experiment.Promote, experiment.Keep, experiment.Same} {
		if calls[call] == 0 {
			t.Errorf("no draw came to %q: %v", call, calls)
		}
	}
}

func TestMoreOfTheSameIsMoreEvidence(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		share := rapid.Float64Range(0.01, 0.3).Draw(t, "share")
		other := share * rapid.Float64Range(1.5, 3).Draw(t, "times")
		plan, last := experiment.Plan{Metric: experiment.Errors}, 2.0
		for n := int64(1000); n < 1_000_000; n *= 4 {
			v := plan.Judge(failing("a", n, int64(share*float64(n))), failing("b", n, int64(other*float64(n))))
			if v.P > last+1e-9 {
				t.Fatalf("with %d requests p is %v, before it was %v", n, v.P, last)
			}
			last = v.P
		}
		if last > 1e-6 {
			t.Fatalf("p is still %v", last)
		}
	})
}
