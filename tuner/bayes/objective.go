package bayes

import (
	"cmp"
	"math"
	"slices"

	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/acquisition"
	"github.com/clary-ml/clary/tuner/chance"
	"github.com/clary-ml/clary/tuner/gp"
	"github.com/clary-ml/clary/tuner/sobol"
)

// view is what a suggestion is made from.
type view struct {
	sample
	worth   []float64 // of each point: -Inf outside a limit, NaN if it failed
	top     []int     // the best points
	pending [][]float64
}

const topMost = 8

func (s *sampler) view(h *tuner.History) view {
	kept := choose(compared(s.record.pool), modelBest, modelNear, modelMost, uint64(s.record.count))
	v := view{sample: newSample(kept, s.metrics)}
	order := make([]int, len(kept))
	for i, o := range kept {
		order[i] = i
		v.worth = append(v.worth, o.worth)
	}
	slices.SortStableFunc(order, func(a, b int) int { return -cmp.Compare(v.worth[a], v.worth[b]) })
	v.top = order[:min(topMost, len(order))]
	v.pending = s.pending(h)
	return v
}

// pending are trials whose results are to come: those that have told nothing, and the newest, as
// many as there are workers. Of the others what they have told is known, and most wait at a rung.
// Which of them wait must not count: what is stored says what was known when a trial was
// proposed, and not who ran then.
func (s *sampler) pending(h *tuner.History) (points [][]float64) {
	newest := max(h.Problem().Workers, 1)
	for k, number := range slices.Backward(h.Pending()) {
		if len(points) == pendingMost {
			break
		}
		told := s.full > 0 && len(h.Curve(number)) > 0
		if !told || len(h.Pending())-k <= newest {
			points = append(points, s.point(h.Config(number), 0))
		}
	}
	slices.Reverse(points)
	return points
}

// objective is what the trial is to be worth.
func (s *sampler) objective(h *tuner.History, r *chance.Rand, v view) acquisition.Objective {
	p := h.Problem()
	if len(p.Limits) == 0 && len(p.Objectives) == 1 {
		return s.improvement(r, v)
	}
	feasible := &acquisition.Feasible{}
	for i := range p.Limits {
		model, threshold := s.limit(v, len(p.Objectives)+i)
		feasible.Limits = append(feasible.Limits, model)
		feasible.Thresholds = append(feasible.Thresholds, threshold)
	}
	switch any := s.anyFeasible(v); {
	case !any && len(p.Limits) > 0:
	case len(p.Objectives) == 1:
		feasible.Objective = s.improvement(r, v)
	default:
		feasible.Objective = s.hypervolume(r, v, len(p.Objectives))
	}
	if len(feasible.Limits) == 0 {
		return feasible.Objective
	}
	return feasible
}

func (s *sampler) anyFeasible(v view) bool {
	return slices.ContainsFunc(v.worth, func(w float64) bool { return w > math.Inf(-1) })
}

// improvement of a single objective over the best that keeps within the limits.
func (s *sampler) improvement(r *chance.Rand, v view) acquisition.Objective {
	fit := s.fits.metrics[0]
	y, _ := fit.transform.Apply(v.metrics[0])
	top := math.Inf(-1)
	for i, w := range v.worth {
		if w > math.Inf(-1) {
			top = math.Max(top, y[i])
		}
	}
	if math.IsInf(top, -1) {
		top = slices.Max(y)
	}
	draws := normals(r, s.Draws, len(v.pending))
	model := gp.Condition(s.kinds, fit.hyper, v.points, y, len(v.pending))
	return acquisition.NewImprovement(model, top, v.pending, draws)
}

// limit is the model of a limit, with the threshold from which on it is kept.
func (s *sampler) limit(v view, metric int) (*gp.Model, float64) {
	fit := s.fits.metrics[metric]
	y, _ := fit.transform.Apply(append(slices.Clone(v.metrics[metric]), 0))
	n := len(v.points)
	model := gp.Condition(s.kinds, fit.hyper, v.points, y[:n], len(v.pending))
	for _, x := range v.pending {
		model.Append(x)
	}
	return model, y[n]
}

// directions in which the volume of several objectives is measured.
const directions = 16

func (s *sampler) hypervolume(r *chance.Rand, v view, objectives int) acquisition.Objective {
	models := make([]*gp.Model, objectives)
	y := make([][]float64, objectives)
	reference := make([]float64, objectives)
	for j := range models {
		fit := s.fits.metrics[j]
		y[j], _ = fit.transform.Apply(v.metrics[j])
		models[j] = gp.Condition(s.kinds, fit.hyper, v.points, y[j], len(v.pending))
	}
	front := pareto(y, v.worth)
	for j := range models {
		least, most := math.Inf(1), math.Inf(-1)
		for _, i := range front {
			least, most = math.Min(least, y[j][i]), math.Max(most, y[j][i])
		}
		reference[j] = least - math.Max(0.1*(most-least), 0.1)
	}
	rows := make([][]float64, len(front))
	for k, i := range front {
		for j := range models {
			rows[k] = append(rows[k], y[j][i])
		}
	}
	lambdas := normals(r, directions, objectives)
	for _, lambda := range lambdas {
		length := 0.0
		for j, l := range lambda {
			lambda[j] = math.Max(math.Abs(l), 1e-3)
			length += lambda[j] * lambda[j]
		}
		for j := range lambda {
			lambda[j] /= math.Sqrt(length)
		}
	}
	return acquisition.NewHypervolume(models, rows, reference, lambdas, v.pending)
}

// pareto are the points that keep within the limits and that no such other is better than
// in all. If none keeps within them, all points are compared.
func pareto(y [][]float64, worth []float64) []int {
	var front []int
	within := func(i int) bool { return worth[i] > math.Inf(-1) }
	if !slices.ContainsFunc(worth, func(w float64) bool { return w > math.Inf(-1) }) {
		within = func(int) bool { return true }
	}
	for i := range worth {
		if !within(i) {
			continue
		}
		dominated := false
		for k := range worth {
			if k == i || !within(k) {
				continue
			}
			no, better := false, false
			for _, column := range y {
				no = no || column[k] < column[i]
				better = better || column[k] > column[i]
			}
			dominated = dominated || !no && (better || k < i)
		}
		if !dominated {
			front = append(front, i)
		}
	}
	return front
}

// normals are rows of standard normal numbers, evenly spread.
func normals(r *chance.Rand, rows, width int) [][]float64 {
	if width == 0 {
		return nil
	}
	sequence := sobol.New(width, r.Uint64())
	draws := make([][]float64, rows)
	for i := range draws {
		draws[i] = make([]float64, width)
		sequence.At(uint32(i), draws[i])
		for j, u := range draws[i] {
			draws[i][j] = math.Sqrt2 * math.Erfinv(2*u-1)
		}
	}
	return draws
}
