package gp_test

import (
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/tuner/gp"
)

var transforms = map[string]gp.Transform{
	"standardize": gp.Standardize, "Yeo-Johnson": gp.YeoJohnson, "log gap": gp.LogGap, "fine log gap": gp.LogGapFine, "half rank": gp.HalfRank,
}

func TestTransformsKeepTheOrderAndStandardize(t *testing.T) {
	for name, transform := range transforms {
		t.Run(name, rapid.MakeCheck(func(t *rapid.T) {
			y := rapid.SliceOfN(rapid.Float64Range(-1e6, 1e6), 2, 30).Draw(t, "y")
			out, _ := transform.Apply(y)
			mean, square := 0.0, 0.0
			for i, v := range out {
				mean += v / float64(len(out))
				square += v * v / float64(len(out))
				for j := range out {
					if y[i] > y[j] && v < out[j]-1e-12 {
						t.Fatalf("%g > %g became %g < %g", y[i], y[j], v, out[j])
					}
				}
			}
			if math.Abs(mean) > 1e-6 || square > 1e-20 && math.Abs(square-1) > 1e-6 {
				t.Fatalf("mean %g, mean square %g", mean, square)
			}
		}))
	}
}

func thousandths(n int) float64 { return float64(n) / 1000 }

// Measured in other units, results become the same, and so do their slopes.
func TestTransformsDoNotDependOnUnits(t *testing.T) {
	for name, transform := range transforms {
		t.Run(name, rapid.MakeCheck(func(t *rapid.T) {
			y := rapid.SliceOfNDistinct(rapid.Map(rapid.IntRange(-5000, 5000), thousandths), 3, 30, rapid.ID).Draw(t, "y")
			unit := rapid.SampledFrom([]float64{1e-300, 1e-3, 7, 1e299}).Draw(t, "unit")
			other := make([]float64, len(y))
			for i, v := range y {
				other[i] = v * unit
			}
			a, before := transform.Apply(y)
			b, after := transform.Apply(other)
			for i := range a {
				if differs(a[i], b[i], 1e-4) {
					t.Fatalf("result %d: %g, in other units %g", i, a[i], b[i])
				}
			}
			if differs(before, after, 1e-3) {
				t.Fatalf("log slopes: %g, in other units %g", before, after)
			}
		}))
	}
}

func TestTransformsKnowTheirSlopes(t *testing.T) {
	const n = 2000
	y := make([]float64, n)
	for i := range y {
		y[i] = -math.Exp(3 * float64(n-i) / n)
	}
	for name, transform := range transforms {
		out, got := transform.Apply(y)
		want := 0.0
		for i := range y {
			low, high := max(i-1, 0), min(i+1, n-1)
			want += math.Log((out[high] - out[low]) / (y[high] - y[low]) * (y[n-1] - y[0]))
		}
		if math.Abs(got-want)/n > 0.01 {
			t.Errorf("%s: mean log slope %g, by differences %g", name, got/n, want/n)
		}
	}
}

func TestTransformsSurviveExtremes(t *testing.T) {
	for name, transform := range transforms {
		for _, y := range [][]float64{
			nil,
			{3},
			{1, 1, 1},
			{-math.MaxFloat64, math.MaxFloat64, 0},
			{1e-320, 0, 2e-320},
			{0, 0, 0, 0, 0, 1},
			{1, 1, 1, 1, 1, -1e300},
		} {
			out, _ := transform.Apply(y)
			for _, v := range out {
				if math.IsNaN(v) || math.IsInf(v, 0) {
					t.Errorf("%s of %v: %v", name, y, out)
				}
			}
		}
	}
}
