package acquisition_test

import (
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/tuner/acquisition"
	"github.com/clary-ml/clary/tuner/chance"
	"github.com/clary-ml/clary/tuner/gp"
)

// known draws a model of a few results in d dimensions, the last one categorical.
func known(t *rapid.T, d, least int) (m *gp.Model, y []float64) {
	dims := make([]gp.Dim, d)
	dims[d-1].Categorical = d > 1
	h := gp.Hyper{Scale: rapid.Float64Range(0.5, 2).Draw(t, "scale"), Noise: rapid.Float64Range(1e-3, 0.3).Draw(t, "noise")}
	for range dims {
		h.Length = append(h.Length, rapid.Float64Range(0.2, 2).Draw(t, "length"))
	}
	var x [][]float64
	for range rapid.IntRange(least, 8).Draw(t, "n") {
		x = append(x, somewhere(t, dims))
		y = append(y, rapid.Float64Range(-2, 2).Draw(t, "y"))
	}
	return gp.Condition(dims, h, x, y, 4), y
}

func somewhere(t *rapid.T, dims []gp.Dim) []float64 {
	x := make([]float64, len(dims))
	for j, dim := range dims {
		x[j] = rapid.Float64Range(0.05, 0.95).Draw(t, "x")
		if dim.Categorical {
			x[j] = float64(rapid.IntRange(0, 2).Draw(t, "category"))
		}
	}
	return x
}

// checkGradient compares a gradient with differences, and the value with that of Values.
func checkGradient(t *rapid.T, objective acquisition.Objective, x []float64, smooth int, tolerance float64) {
	grad, scratch := make([]float64, len(x)), make([]float64, len(x))
	value := objective.Gradient(x, grad)
	if got := objective.Values([][]float64{x, x})[1]; math.Abs(got-value) > 1e-6*math.Max(1, math.Abs(value)) {
		t.Fatalf("together %g, alone %g", got, value)
	}
	for j := range smooth {
		const h = 1e-5
		at := x[j]
		x[j] = at + h
		high := objective.Gradient(x, scratch)
		x[j] = at - h
		low := objective.Gradient(x, scratch)
		x[j] = at
		if want := (high - low) / (2 * h); math.Abs(grad[j]-want) > tolerance*math.Max(1, math.Abs(want)) {
			t.Fatalf("by dimension %d: got %g, want %g", j, grad[j], want)
		}
	}
}

func draws(rows, width int) [][]float64 {
	r := chance.New(7)
	out := make([][]float64, rows)
	for i := range out {
		for range width {
			out[i] = append(out[i], r.NormFloat64())
		}
	}
	return out
}

func TestGradientsAgreeWithDifferences(t *testing.T) {
	dims := []gp.Dim{{}, {}, {Categorical: true}}
	pending := func(t *rapid.T) (points [][]float64) {
		for range rapid.IntRange(0, 3).Draw(t, "pending") {
			points = append(points, somewhere(t, dims))
		}
		return points
	}
	t.Run("improvement", rapid.MakeCheck(func(t *rapid.T) {
		m, _ := known(t, 3, 1)
		p := pending(t)
		objective := acquisition.NewImprovement(m, rapid.Float64Range(-1, 3).Draw(t, "best"), p, draws(16, len(p)))
		checkGradient(t, objective, somewhere(t, dims), 2, 1e-3)
	}))
	t.Run("within limits", rapid.MakeCheck(func(t *rapid.T) {
		m, _ := known(t, 3, 1)
		limit, _ := known(t, 3, 1)
		objective := &acquisition.Feasible{
			Objective: acquisition.NewImprovement(m, 1, nil, nil),
			Limits:    []*gp.Model{limit}, Thresholds: []float64{rapid.Float64Range(-3, 3).Draw(t, "threshold")},
		}
		checkGradient(t, objective, somewhere(t, dims), 2, 1e-3)
	}))
	t.Run("hypervolume", rapid.MakeCheck(func(t *rapid.T) {
		a, _ := known(t, 3, 1)
		b, _ := known(t, 3, 1)
		y := [][]float64{{1, -0.5}, {0, 0.3}}
		objective := acquisition.NewHypervolume([]*gp.Model{a, b}, y, []float64{-1, -1}, [][]float64{{0.6, 0.8}, {0.8, 0.6}}, pending(t))
		checkGradient(t, objective, somewhere(t, dims), 2, 1e-3)
	}))
}

// The improvement while results are pending is the mean over what they may turn out to be.
func TestPendingResultsAreAveragedOver(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dims := []gp.Dim{{}, {}}
		h := gp.Hyper{Length: []float64{0.5, 0.7}, Scale: 1, Noise: 0.01}
		x, y := [][]float64{{0.2, 0.3}, {0.8, 0.6}}, []float64{0.3, -0.4}
		pending := [][]float64{somewhere(t, dims), somewhere(t, dims)}
		at, normal := somewhere(t, dims), draws(32, 2)
		got := acquisition.NewImprovement(gp.Condition(dims, h, x, y, 0), 0.3, pending, normal).Values([][]float64{at})[0]

		want := 0.0
		for _, draw := range normal {
			points, results, top := append([][]float64(nil), x...), append([]float64(nil), y...), 0.3
			for k, p := range pending {
				guess := gp.Condition(dims, h, points, results, 0).At(p)
				result := guess.Mean + draw[k]*math.Sqrt(guess.Variance+h.Noise)
				points, results, top = append(points, p), append(results, result), math.Max(top, result)
			}
			one := acquisition.NewImprovement(gp.Condition(dims, h, points, results, 0), top, nil, nil).Values([][]float64{at})[0]
			want += math.Exp(one) / float64(len(normal))
		}
		if math.Abs(got-math.Log(want)) > 1e-6*math.Max(1, math.Abs(got)) {
			t.Fatalf("got %g, want %g", got, math.Log(want))
		}
	})
}

// With one objective, the volume's improvement is the objective's.
func TestHypervolumeOfOneObjectiveIsItsImprovement(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, _ := known(t, 2, 2)
		top := rapid.Float64Range(-1, 4).Draw(t, "best")
		points := [][]float64{somewhere(t, []gp.Dim{{}, {Categorical: true}})}
		want := acquisition.NewImprovement(m, top, nil, nil).Values(points)[0]
		got := acquisition.NewHypervolume([]*gp.Model{m}, [][]float64{{top}}, []float64{-3}, [][]float64{{1}}, nil).Values(points)[0]
		if math.Abs(got-want) > 0.02 {
			t.Fatalf("got %g, want %g", got, want)
		}
	})
}

// With several, it is what simulation says: the volume between the front and the reference
// grows by so much on average.
func TestHypervolumeAgreesWithSimulation(t *testing.T) {
	dims := []gp.Dim{{}}
	h := gp.Hyper{Length: []float64{0.4}, Scale: 1, Noise: 1e-4}
	x := [][]float64{{0.1}, {0.9}}
	models := func() []*gp.Model {
		return []*gp.Model{gp.Condition(dims, h, x, []float64{0.8, -0.5}, 0), gp.Condition(dims, h, x, []float64{-0.6, 0.7}, 0)}
	}
	front, reference := [][]float64{{0.8, -0.6}, {-0.5, 0.7}}, []float64{-1, -1}
	var directions [][]float64
	for i := range 200 {
		angle := math.Pi / 2 * (float64(i) + 0.5) / 200
		directions = append(directions, []float64{math.Cos(angle), math.Sin(angle)})
	}
	volume := func(a, b float64) float64 { // gained by (a, b): cells above the front's steps
		gain := 0.0
		for _, cell := range [][3]float64{{-1, -0.5, 0.7}, {-0.5, 0.8, -0.6}, {0.8, math.Inf(1), -1}} {
			gain += math.Max(0, math.Min(a, cell[1])-cell[0]) * math.Max(0, b-cell[2])
		}
		return gain
	}
	objective := acquisition.NewHypervolume(models(), front, reference, directions, nil)
	scale := math.NaN() // of the scalarization, the same for all points
	for _, at := range []float64{0.3, 0.5, 0.65} {
		m := models()
		a, b := m[0].At([]float64{at}), m[1].At([]float64{at})
		r, want := chance.New(3), 0.0
		const n = 200_000
		for range n {
			want += volume(a.Mean+math.Sqrt(a.Variance)*r.NormFloat64(), b.Mean+math.Sqrt(b.Variance)*r.NormFloat64()) / n
		}
		got := math.Exp(objective.Values([][]float64{{at}})[0])
		if math.IsNaN(scale) {
			scale = want / got
		}
		if math.Abs(got*scale/want-1) > 0.03 {
			t.Errorf("at %g: %g of the simulated", at, got*scale/want)
		}
	}
}

// peak is worth most at a point: minus the squared distance, categories counted as 1.
type peak struct {
	at    []float64
	calls *int
}

func (p peak) Values(points [][]float64) []float64 {
	out := make([]float64, len(points))
	for i, x := range points {
		out[i] = p.Gradient(x, make([]float64, len(x)))
	}
	return out
}

func (p peak) Gradient(x, grad []float64) float64 {
	*p.calls++
	value := 0.0
	for j, v := range x {
		t := v - p.at[j]
		value -= t * t
		grad[j] = -2 * t
	}
	return value
}

func axis(levels int, nominal bool) acquisition.Axis {
	return acquisition.Axis{
		Levels: levels, Nominal: nominal,
		At:      func(level int) float64 { return (float64(level) + 0.5) / float64(levels) },
		Nearest: func(x float64) int { return min(levels-1, int(x*float64(levels))) },
	}
}

func TestSearchFindsThePeakOfMixedSpaces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var axes []acquisition.Axis
		p := peak{calls: new(int)}
		var start, want []float64
		for range rapid.IntRange(1, 5).Draw(t, "d") {
			at := rapid.Float64Range(0, 1).Draw(t, "peak")
			a := acquisition.Axis{}
			best := at
			if levels := rapid.SampledFrom([]int{0, 2, 5, 30, 100000}).Draw(t, "levels"); levels > 0 {
				a = axis(levels, levels < 30 && rapid.Bool().Draw(t, "nominal"))
				best = a.At(a.Nearest(at))
			}
			x := rapid.Float64Range(0, 1).Draw(t, "start")
			if a.Levels > 0 {
				x = a.At(a.Nearest(x))
			}
			axes, p.at, start, want = append(axes, a), append(p.at, at), append(start, x), append(want, best)
		}
		domain := acquisition.Domain{
			Axes: axes, Width: len(axes), Canonical: func(x, point []float64) { copy(point, x) },
			Admits: func([]float64) bool { return true },
		}
		lengths := make([]float64, len(axes))
		for j := range lengths {
			lengths[j] = 0.5
		}
		options := acquisition.Options{Starts: 2, Evaluations: 60, Lengths: lengths}
		got, _, ok := acquisition.Maximize(domain, p, [][]float64{start}, func() float64 { return 0.5 }, options)
		if !ok {
			t.Fatal("nothing found")
		}
		for j := range got {
			if math.Abs(got[j]-p.at[j]) > math.Abs(want[j]-p.at[j])+1e-3 {
				t.Fatalf("got %v, want %v", got, want)
			}
		}
	})
}

func TestSearchKeepsToWhatIsAdmitted(t *testing.T) {
	p := peak{at: []float64{0.9, 0.9}, calls: new(int)}
	domain := acquisition.Domain{
		Axes: []acquisition.Axis{{}, axis(10, false)}, Width: 2, Canonical: func(x, point []float64) { copy(point, x) },
		Admits: func(x []float64) bool { return x[0]+x[1] <= 1 },
	}
	options := acquisition.Options{Starts: 4, Evaluations: 60, Lengths: []float64{0.5, 0.5}}
	candidates := [][]float64{{0.1, 0.05}, {0.3, 0.55}, {0.9, 0.95}}
	got, _, ok := acquisition.Maximize(domain, p, candidates, func() float64 { return 0.5 }, options)
	if !ok || !domain.Admits(got) {
		t.Fatalf("got %v, %v", got, ok)
	}
	if _, _, ok := acquisition.Maximize(domain, p, candidates[2:], func() float64 { return 0.5 }, options); ok {
		t.Fatal("no candidate is admitted, and yet something was found")
	}
}
