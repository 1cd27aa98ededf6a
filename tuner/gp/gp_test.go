package gp_test

import (
	"fmt"
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/tuner/gp"
)

// problem draws points of numeric, categorical and conditional dimensions, and results.
type problem struct {
	dims []gp.Dim
	x    [][]float64
	y    []float64
}

func draw(t *rapid.T, least, most int) problem {
	var p problem
	d := rapid.IntRange(1, 5).Draw(t, "d")
	for range d {
		p.dims = append(p.dims, gp.Dim{Categorical: rapid.IntRange(0, 3).Draw(t, "kind") == 0})
	}
	if rapid.IntRange(0, 2).Draw(t, "fidelity") == 0 {
		p.dims = append(p.dims, gp.Dim{Fidelity: true})
	}
	for range rapid.IntRange(least, most).Draw(t, "n") {
		p.x = append(p.x, p.point(t))
		p.y = append(p.y, rapid.Float64Range(-2, 2).Draw(t, "y"))
	}
	return p
}

func (p problem) point(t *rapid.T) []float64 {
	x := make([]float64, len(p.dims))
	for j, dim := range p.dims {
		switch {
		case j > 0 && !dim.Fidelity && rapid.IntRange(0, 4).Draw(t, "applies") == 0:
			x[j] = math.NaN()
		case dim.Categorical:
			x[j] = float64(rapid.IntRange(0, 3).Draw(t, "category"))
		default:
			x[j] = rapid.Float64Range(0.02, 0.98).Draw(t, "x")
		}
	}
	return x
}

func (p problem) hyper(t *rapid.T) gp.Hyper {
	number := func(low, high float64) float64 {
		return math.Exp(rapid.Float64Range(math.Log(low), math.Log(high)).Draw(t, "hyper"))
	}
	h := gp.Hyper{Scale: number(0.3, 3), Noise: number(1e-3, 1), Mean: rapid.Float64Range(-1, 1).Draw(t, "mean")}
	for _, dim := range p.dims {
		if dim.Fidelity {
			h.Rough = number(1e-3, 1)
		}
		h.Length = append(h.Length, number(0.1, 3))
	}
	return h
}

// differs reports whether a and b are further apart than tolerance, relative to the larger or 1.
func differs(a, b, tolerance float64) bool {
	return !(math.Abs(a-b) <= tolerance*math.Max(1, math.Max(math.Abs(a), math.Abs(b))))
}

func TestLogPosteriorsGradientAgreesWithDifferences(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := draw(t, 2, 12)
		l := gp.NewLikelihood(p.dims, gp.DefaultPrior(len(p.dims)), p.x, p.y)
		theta := l.Encode(p.hyper(t))
		grad, scratch := make([]float64, len(theta)), make([]float64, len(theta))
		l.Value(theta, grad)
		for i := range theta {
			const h = 1e-5
			at := theta[i]
			theta[i] = at + h
			high := l.Value(theta, scratch)
			theta[i] = at - h
			low := l.Value(theta, scratch)
			theta[i] = at
			if want := (high - low) / (2 * h); differs(grad[i], want, 1e-4) {
				t.Fatalf("by parameter %d of %d: got %g, want %g", i, len(theta), grad[i], want)
			}
		}
	})
}

func TestPredictionsGradientAgreesWithDifferences(t *testing.T) {
	checked := 0
	rapid.Check(t, func(t *rapid.T) {
		p := draw(t, 1, 10)
		m := gp.Condition(p.dims, p.hyper(t), p.x, p.y, 0)
		for range rapid.IntRange(0, 3).Draw(t, "pending") {
			m.Append(p.point(t))
		}
		byTail := make([]float64, m.Pending())
		for i := range byTail {
			byTail[i] = rapid.Float64Range(-1, 1).Draw(t, "byTail")
		}
		byMean, byVariance := rapid.Float64Range(-1, 1).Draw(t, "byMean"), rapid.Float64Range(-1, 1).Draw(t, "byVariance")
		value := func(x []float64) float64 {
			got := m.At(x)
			sum := byMean*got.Mean + byVariance*got.Variance
			for i, v := range got.Tail {
				sum += byTail[i] * v
			}
			return sum
		}
		x := p.point(t)
		grad := make([]float64, len(x))
		value(x)
		m.Pull(byMean, byVariance, byTail, grad)
		for j := range x {
			if p.dims[j].Categorical || p.dims[j].Fidelity || math.IsNaN(x[j]) {
				if grad[j] != 0 {
					t.Fatalf("dimension %d has a gradient of %g", j, grad[j])
				}
				continue
			}
			const h = 1e-5
			at := x[j]
			x[j] = at + h
			high := value(x)
			x[j] = at - h
			low := value(x)
			x[j] = at
			if want := (high - low) / (2 * h); differs(grad[j], want, 1e-3) {
				t.Fatalf("by dimension %d: got %g, want %g", j, grad[j], want)
			}
			checked++
		}
	})
	if checked == 0 {
		t.Fatal("nothing was checked")
	}
}

func TestPointsPredictedTogetherArePredictedAlike(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := draw(t, 0, 10)
		m := gp.Condition(p.dims, p.hyper(t), p.x, p.y, 2)
		for range rapid.IntRange(0, 3).Draw(t, "pending") {
			m.Append(p.point(t))
		}
		var points [][]float64
		for range rapid.SampledFrom([]int{1, 3, 127, 128, 129, 300}).Draw(t, "points") {
			if len(points) < 20 {
				points = append(points, p.point(t))
			} else {
				points = append(points, points[len(points)%20])
			}
		}
		together := m.Predict(points)
		for i, x := range points {
			alone := m.At(x)
			if differs(together.Mean[i], alone.Mean, 1e-9) || differs(together.Variance[i], alone.Variance, 1e-9) {
				t.Fatalf("point %d: %g ± %g, alone %g ± %g", i, together.Mean[i], together.Variance[i], alone.Mean, alone.Variance)
			}
			for k, v := range alone.Tail {
				if differs(together.Tail[i*m.Pending()+k], v, 1e-9) {
					t.Fatalf("point %d: tail %d differs", i, k)
				}
			}
		}
	})
}

// What is appended and then told what it would have been, is as a model made anew: the
// draws that decide pending results move the mean as those results do.
func TestAppendedPointsAgreeWithARefit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := draw(t, 1, 8)
		h := p.hyper(t)
		m := gp.Condition(p.dims, h, p.x, p.y, rapid.IntRange(0, 3).Draw(t, "room"))
		all, results := append([][]float64(nil), p.x...), append([]float64(nil), p.y...)
		var draws []float64
		for range rapid.IntRange(1, 4).Draw(t, "pending") {
			x := p.point(t)
			at := m.At(x)
			mean := at.Mean
			for k, v := range at.Tail {
				mean += v * draws[k]
			}
			z := rapid.Float64Range(-2, 2).Draw(t, "draw")
			results = append(results, mean+z*math.Sqrt(at.Variance+h.NoiseAt(p.dims, x)))
			draws = append(draws, z)
			all = append(all, x)
			m.Append(x)
		}
		refit := gp.Condition(p.dims, h, all, results, 0)
		x := p.point(t)
		want, got := refit.At(x), m.At(x)
		mean := got.Mean
		for k, v := range got.Tail {
			mean += v * draws[k]
		}
		if differs(mean, want.Mean, 1e-6) || differs(got.Variance, want.Variance, 1e-6) {
			t.Fatalf("got %g ± %g, want %g ± %g", mean, got.Variance, want.Mean, want.Variance)
		}
		m.Forget(m.Pending())
		if again, first := m.At(x), gp.Condition(p.dims, h, p.x, p.y, 0).At(x); again.Mean != first.Mean && differs(again.Variance, first.Variance, 1e-12) {
			t.Fatal("forgetting leaves a trace")
		}
	})
}

func TestLeaveOneOutAgreesWithLeavingOneOut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := draw(t, 2, 8)
		h := p.hyper(t)
		mean, variance := gp.Condition(p.dims, h, p.x, p.y, 0).LeaveOneOut(p.y)
		for i := range p.x {
			x := append(append([][]float64(nil), p.x[:i]...), p.x[i+1:]...)
			y := append(append([]float64(nil), p.y[:i]...), p.y[i+1:]...)
			want := gp.Condition(p.dims, h, x, y, 0).At(p.x[i])
			if differs(mean[i], want.Mean, 1e-6) || differs(variance[i], want.Variance+h.NoiseAt(p.dims, p.x[i]), 1e-6) {
				t.Fatalf("result %d: got %g ± %g, want %g ± %g", i, mean[i], variance[i], want.Mean, want.Variance+h.Noise)
			}
		}
	})
}

// smooth is a function with one dimension that matters and one that does not.
func smooth(n int) problem {
	p := problem{dims: make([]gp.Dim, 2)}
	for i := range n {
		x := []float64{math.Mod(float64(i)*0.6180339887, 1), math.Mod(float64(i)*0.7548776662, 1)}
		p.x = append(p.x, x)
		p.y = append(p.y, math.Sin(6*x[0]))
	}
	return p
}

func TestFitLearnsWhatMatters(t *testing.T) {
	p := smooth(30)
	l := gp.NewLikelihood(p.dims, gp.DefaultPrior(2), p.x, p.y)
	h, _ := l.Fit(gp.DefaultHyper(2), 100)
	if h.Length[0] > 2 || h.Length[1] < 3*h.Length[0] {
		t.Fatalf("lengthscales %v: only the first dimension matters", h.Length)
	}
	if h.Noise > 1e-3 {
		t.Fatalf("noise %g: there is none", h.Noise)
	}
	m := gp.Condition(p.dims, h, p.x, p.y, 0)
	for i := range 20 {
		x := []float64{(float64(i) + 0.5) / 20, 0.3}
		if got := m.At(x); differs(got.Mean, math.Sin(6*x[0]), 0.05) {
			t.Fatalf("at %v: got %g, want %g", x, got.Mean, math.Sin(6*x[0]))
		}
	}
}

func TestRubbishIsSurvived(t *testing.T) {
	same := make([][]float64, 20)
	constant, wild := make([]float64, 20), make([]float64, 20)
	for i := range same {
		same[i] = []float64{0.5, 0.5}
		constant[i] = 1
		wild[i] = float64(i%2)*2 - 1
	}
	for name, y := range map[string][]float64{"constant": constant, "contradictory": wild} {
		for _, n := range []int{0, 1, 2, 20} {
			l := gp.NewLikelihood(make([]gp.Dim, 2), gp.DefaultPrior(2), same[:n], y[:n])
			h, value := l.Fit(gp.DefaultHyper(2), 60)
			m := gp.Condition(make([]gp.Dim, 2), h, same[:n], y[:n], 0)
			for range 3 {
				m.Append(same[0])
			}
			got := m.At([]float64{0.2, 0.9})
			if math.IsNaN(value) || math.IsNaN(got.Mean) || !(got.Variance > 0) {
				t.Fatalf("%d %s results: %g, %+v", n, name, value, got)
			}
		}
	}
}

func BenchmarkLikelihood(b *testing.B) {
	for _, n := range []int{10, 25, 50, 100, 200, 400} {
		p := six(n)
		l := gp.NewLikelihood(p.dims, gp.DefaultPrior(6), p.x, p.y)
		theta := l.Encode(gp.DefaultHyper(6))
		grad := make([]float64, len(theta))
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				l.Value(theta, grad)
			}
		})
	}
}

func BenchmarkPredict(b *testing.B) {
	for _, n := range []int{10, 25, 50, 100, 200, 400} {
		p := six(n)
		m := gp.Condition(p.dims, gp.DefaultHyper(6), p.x, p.y, 0)
		points := six(1024).x
		b.Run(fmt.Sprint("1024at", n), func(b *testing.B) {
			for b.Loop() {
				m.Predict(points)
			}
		})
		grad := make([]float64, 6)
		b.Run(fmt.Sprint("gradient", n), func(b *testing.B) {
			for b.Loop() {
				m.At(points[7])
				m.Pull(1, 1, nil, grad)
			}
		})
	}
}

func six(n int) problem {
	p := problem{dims: make([]gp.Dim, 6)}
	for i := range n {
		x := make([]float64, 6)
		for j := range x {
			x[j] = math.Mod(float64(i+1)*math.Sqrt(float64(2+3*j)), 1)
		}
		p.x = append(p.x, x)
		p.y = append(p.y, math.Sin(6*x[0])+x[1]*x[2])
	}
	return p
}
