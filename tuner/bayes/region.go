package bayes

import "math"

// Results without an improvement after which a search is confined, and what they do to the
// region then (Eriksson et al. 2019, TuRBO-1, but with the one model of all results).
const (
	stallLeast  = 20        // results, or twice the dimensions
	lengthFirst = 0.8       // of a side, on average
	lengthLeast = 1.0 / 128 // below, the search is everywhere again
	growAfter   = 3         // improvements in a row
	shrinkLeast = 4         // results in a row that do not improve, or the dimensions
)

// region is where the search goes once results have stopped improving: a box around the
// best, that doubles as they improve and halves as they do not. It is a fold over the
// results in their order.
type region struct {
	centre     []float64 // the best result's point; nil: there is none within the limits
	best       float64
	length     float64 // of a side, on average; 0: the search is everywhere
	good, poor int     // results in a row
}

// result changes the region of d dimensions to what it is after one more.
func (r *region) result(o observation, d int) {
	r.poor++
	if o.worth > math.Inf(-1) && (r.centre == nil || o.worth > r.best) {
		r.centre, r.best = o.point, o.worth
		r.good, r.poor = r.good+1, 0
	} else {
		r.good = 0
	}
	switch {
	case r.length == 0:
		if r.centre != nil && r.poor >= max(stallLeast, 2*d) {
			r.length, r.good, r.poor = lengthFirst, 0, 0
		}
	case r.good == growAfter:
		if r.length, r.good = 2*r.length, 0; r.length > lengthFirst {
			r.length, r.poor = 0, 0
		}
	case r.poor == max(shrinkLeast, d):
		if r.length, r.poor = r.length/2, 0; r.length < lengthLeast {
			r.length = 0
		}
	}
}

// box is the region with sides in proportion to the model's lengthscales. What stands in no
// order, or does not apply to the centre, is free.
func (r *region) box(e *encoding, lengths []float64) (lower, upper []float64) {
	d := len(e.dims)
	logs := 0.0
	for _, v := range lengths[:d] {
		logs += math.Log(v)
	}
	scale := r.length / 2 / math.Exp(logs/float64(d))
	lower, upper = make([]float64, d), make([]float64, d)
	for j := range d {
		if v := r.centre[j]; v != v || e.axes[j].Nominal {
			upper[j] = 1
		} else {
			lower[j], upper[j] = math.Max(0, v-scale*lengths[j]), math.Min(1, v+scale*lengths[j])
		}
	}
	return lower, upper
}

// confine moves candidates into a box: those that are spread evenly are so in it then.
func (e *encoding) confine(even, perturbed [][]float64, lower, upper []float64) {
	for _, x := range even {
		for j, u := range x {
			x[j] = e.snap(j, lower[j]+u*(upper[j]-lower[j]))
		}
	}
	for _, x := range perturbed {
		for j, u := range x {
			x[j] = e.snap(j, math.Min(math.Max(u, lower[j]), upper[j]))
		}
	}
}
