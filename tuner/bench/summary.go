package bench

import (
	"math"
	"slices"
)

// Marks are the counts of completed trials at which regrets are reported.
var marks = []int{10, 25, 50, 100, 200, 500, 1000}

// Point is the mean regret over seeds after so many completed trials.
type Point struct {
	Trials int
	Mean   float64
	Error  float64 // standard error of the mean, 0 for one seed
}

// Summarize averages curves of the same length at 10, 25, 50, 100, 200, 500 and 1000 trials
// as far as they go, and at their end.
func Summarize(curves [][]float64) []Point {
	if len(curves) == 0 {
		return nil
	}
	length := len(curves[0])
	at := slices.DeleteFunc(slices.Clone(marks), func(m int) bool { return m > length })
	if len(at) == 0 || at[len(at)-1] != length {
		at = append(at, length)
	}
	points := make([]Point, len(at))
	for i, trials := range at {
		values := make([]float64, len(curves))
		for j, curve := range curves {
			values[j] = curve[trials-1]
		}
		points[i] = Point{Trials: trials, Mean: mean(values), Error: standardError(values)}
	}
	return points
}

func standardError(values []float64) float64 {
	if len(values) < 2 {
		return 0
	}
	center, sum := mean(values), 0.0
	for _, v := range values {
		sum += (v - center) * (v - center)
	}
	n := float64(len(values))
	return math.Sqrt(sum / (n - 1) / n)
}

// TimeTo is when races first come down to a regret: the geometric mean of the instants. One
// that does not within a time counts as if it did at its end.
func TimeTo(races [][]Fall, regret, within float64) float64 {
	sum := 0.0
	for _, falls := range races {
		at := within
		if i := slices.IndexFunc(falls, func(f Fall) bool { return f.Regret <= regret }); i >= 0 {
			at = min(falls[i].At, within)
		}
		sum += math.Log(at) / float64(len(races))
	}
	return math.Exp(sum)
}
