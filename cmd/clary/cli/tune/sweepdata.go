package tune

import (
	"github.com/clary-ml/clary/tuner"
)

// What -o json and yaml show of plots: the points that they are drawn from.

type historyJSON struct {
	Objective string        `json:"objective"`
	Points    []historyStep `json:"points"` // complete trials in the order of their end
}

type historyStep struct {
	Trial int     `json:"trial"`
	Value float64 `json:"value"`
	Best  float64 `json:"best"` // so far
}

type sliceJSON struct {
	Parameter string       `json:"parameter"`
	Objective string       `json:"objective"`
	Points    []slicePoint `json:"points"`
}

type slicePoint struct {
	Trial int     `json:"trial"`
	X     any     `json:"x"`
	Value float64 `json:"value"`
}

// trialPointJSON is a trial with its parameters and values.
type trialPointJSON struct {
	Trial      int                `json:"trial"`
	Parameters map[string]any     `json:"parameters"`
	Values     map[string]float64 `json:"values"`
}

type curveJSON struct {
	Trial int              `json:"trial"`
	Curve []curvePointJSON `json:"curve"`
}

// plotData is what the plots of those names are drawn from.
func (t *trials) plotData(names []string) map[string]any {
	kinds := map[string]func() any{
		"history":    func() any { return t.historyData() },
		"importance": func() any { return t.importance },
		"slices":     func() any { return t.sliceData() },
		"parallel":   func() any { return t.points(t.ranked()) },
		"pareto":     func() any { return t.points(t.history.Front()) },
		"curves":     func() any { return t.curveData() },
	}
	data := map[string]any{}
	for _, name := range names {
		data[name] = kinds[name]()
	}
	return data
}

func (t *trials) historyData() []historyJSON {
	h := t.history
	var all []historyJSON
	for i, o := range h.Problem().Objectives {
		one := historyJSON{Objective: o.Name, Points: []historyStep{}}
		for _, number := range h.Ended() {
			n := int(number)
			if h.State(n) != tuner.Complete {
				continue
			}
			step := historyStep{Trial: n, Value: h.Values(n)[i]}
			step.Best = step.Value
			if last := len(one.Points) - 1; last >= 0 && o.Loss(one.Points[last].Best) < o.Loss(step.Best) {
				step.Best = one.Points[last].Best
			}
			one.Points = append(one.Points, step)
		}
		all = append(all, one)
	}
	return all
}

func (t *trials) sliceData() []sliceJSON {
	h := t.history
	var all []sliceJSON
	for i, o := range h.Problem().Objectives {
		for _, param := range t.order {
			one := sliceJSON{Parameter: t.params[param].Name, Objective: o.Name, Points: []slicePoint{}}
			for _, number := range t.ranked() {
				if x, active := plainValues(h.Problem().Space.Values(h.Config(number)))[one.Parameter]; active {
					one.Points = append(one.Points, slicePoint{number, x, h.Values(number)[i]})
				}
			}
			all = append(all, one)
		}
	}
	return all
}

func (t *trials) points(numbers []int) []trialPointJSON {
	h := t.history
	points := []trialPointJSON{}
	for _, number := range numbers {
		point := trialPointJSON{Trial: number, Parameters: plainValues(h.Problem().Space.Values(h.Config(number))), Values: map[string]float64{}}
		for i, o := range h.Problem().Objectives {
			point.Values[o.Name] = h.Values(number)[i]
		}
		points = append(points, point)
	}
	return points
}

func (t *trials) curveData() []curveJSON {
	curves := []curveJSON{}
	for number, row := range t.rows {
		if len(row.Curve) == 0 {
			continue
		}
		one := curveJSON{Trial: number}
		for _, p := range row.Curve {
			if isFinite(p.Value) {
				one.Curve = append(one.Curve, curvePointJSON{p.Step, p.Value})
			}
		}
		curves = append(curves, one)
	}
	return curves
}
