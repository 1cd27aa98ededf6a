package metric

import (
	"slices"

	"github.com/clary-ml/clary/cluster"
)

// newest is how many points of a curve are kept that nobody asked for.
const newest = 16

// Track adds a point to the curve of a task's progress, which the row has advanced, if the
// row tells the metric that is tracked after a step without one. A program that counts no
// epochs is taken to have told the metric once after each.
func (r *Row) Track(p *cluster.Progress, t cluster.Tracking) {
	value, said := r.Values[t.Metric]
	if !said {
		return
	}
	last := 0.0
	if n := len(p.Curve); n > 0 {
		last = p.Curve[n-1].Step
	}
	step := float64(p.Epoch)
	switch {
	case t.ByStep:
		step = float64(p.Step)
	case r.Epoch == nil && p.Epoch == 0:
		step = last + 1
	}
	if step <= last {
		return
	}
	curve := append(slices.Clone(p.Curve), cluster.CurvePoint{Step: step, Value: value}) // what was told before is not changed
	if at, found := surplus(curve, t.Steps); found {
		curve = slices.Delete(curve, at, at+1)
	}
	p.Curve = curve
}

// surplus is the oldest point that nobody asked for, if there are more of them than are kept.
func surplus(curve []cluster.CurvePoint, wanted []float64) (at int, found bool) {
	count, last := 0, 0.0
	for i, point := range curve {
		isWanted := slices.ContainsFunc(wanted, func(step float64) bool { return last < step && step <= point.Step })
		if last = point.Step; isWanted {
			continue
		}
		if count++; count == 1 {
			at = i
		}
	}
	return at, count > newest
}
