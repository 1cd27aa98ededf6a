package sim

import (
	"math"
	"slices"
)

// Summary is what is published of a run's completion times (end - submission), in seconds.
type Summary struct {
	Average, P50, P99 float64
	Makespan          int64 // from the first submission to the last end
}

// Summarize reads when jobs came and ended; the two slices are parallel.
func Summarize(submitted, ended []int64) Summary {
	if len(submitted) == 0 {
		return Summary{}
	}
	times := make([]float64, len(submitted))
	sum := 0.0
	for i := range submitted {
		times[i] = float64(ended[i] - submitted[i])
		sum += times[i]
	}
	slices.Sort(times)
	return Summary{
		Average: sum / float64(len(times)), P50: Percentile(times, 50), P99: Percentile(times, 99),
		Makespan: slices.Max(ended) - slices.Min(submitted),
	}
}

// Percentile of sorted values, with linear interpolation between neighbours as numpy
// does (Hyndman and Fan 1996, definition 7).
func Percentile(sorted []float64, percent float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	place := float64(percent / 100 * float64(len(sorted)-1)) // never fused: the same bits on every machine
	below := int(math.Floor(place))
	if below+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[below] + float64((place-float64(below))*(sorted[below+1]-sorted[below]))
}
