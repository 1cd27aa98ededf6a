package sweep

import (
	"fmt"
	"html/template"
	"math"
	"strconv"
	"strings"

	"github.com/clary-ml/clary/console/axes"
	"github.com/clary-ml/clary/console/report"
	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/space"
)

// history is the objective of each trial in the order in which they ended, with the best so
// far.
func (f *figures) history(objective int) template.HTML {
	const width, height = 760, 340
	h, o := f.sweep.History, f.problem.Objectives[objective]
	x := axes.OfCounts(1, float64(len(h.Ended())), report.Left, width-report.Right)
	y := axes.OfValues(f.complete(objective), o.Direction, height-report.Bottom-16, report.Top)
	var d report.Drawing
	d.Begin(width, height, "history of "+o.Name, "x", f.point("place", x), "y", f.point("h"+strconv.Itoa(objective), y), "shades", strconv.Itoa(objective))
	d.Frame(x, axes.Axis{Scale: y.Scale, Low: y.Low, High: y.High, From: height - report.Bottom, To: y.To}, "trials that have ended, in the order of their end", "")
	d.YTicks(x, y, o.Name)
	var stopped, outside, failed strings.Builder
	shaded := make([]strings.Builder, shades)
	for _, ended := range h.Ended() {
		number := int(ended)
		at := x.Place(float64(f.place[number]))
		switch h.State(number) {
		case tuner.Complete:
			value := y.Place(h.Values(number)[objective])
			if shade := f.shade[objective][number]; shade >= 0 {
				report.Dot(&shaded[shade], at, value)
			} else {
				report.Dot(&outside, at, value)
			}
		case tuner.Stopped:
			if last := f.last(number); objective == 0 && !math.IsNaN(last) {
				report.Dot(&stopped, at, y.Place(last))
			}
		case tuner.Failed, tuner.Infeasible:
			fmt.Fprintf(&failed, "M%s %dl5 5m0-5l-5 5", report.Px(at-2.5), height-report.Bottom-9)
		}
	}
	d.Open("dots")
	d.Path("dot stopped", stopped.String())
	d.Path("dot outside", outside.String())
	for shade := range shaded {
		d.Path("dot "+shadeClass(shade), shaded[shade].String())
	}
	d.Close()
	d.Path("failed", failed.String())
	f.bestSoFar(&d, objective, x, y)
	return d.End()
}

// bestSoFar draws a step at each trial that was the best of all before it.
func (f *figures) bestSoFar(d *report.Drawing, objective int, x, y axes.Axis) {
	h := f.sweep.History
	best, loss := -1, math.Inf(1)
	var path strings.Builder
	for _, ended := range h.Ended() {
		number := int(ended)
		if h.State(number) != tuner.Complete || h.Excess(number) > 0 || h.Loss(number, objective) >= loss {
			continue
		}
		at, value := report.Px(x.Place(float64(f.place[number]))), report.Px(y.Place(h.Values(number)[objective]))
		if best < 0 {
			path.WriteString("M" + at + " " + value)
		} else {
			path.WriteString("H" + at + "V" + value)
		}
		best, loss = number, h.Loss(number, objective)
	}
	if best < 0 {
		d.Text("none", (x.From+x.To)/2, (y.From+y.To)/2, "no trial has completed")
		return
	}
	path.WriteString("H" + report.Px(x.To))
	d.Path("best", path.String())
	d.Circle("bestdot", x.Place(float64(f.place[best])), y.Place(h.Values(best)[objective]), 5.5)
}

// point is what the page's script needs to place trials along an axes.
func (f *figures) point(column string, a axes.Axis) string {
	return asJSON(struct {
		Column string `json:"column"`
		axes.Axis
	}{column, a})
}

// scatter draws the complete trials by two columns.
func (f *figures) scatter(d *report.Drawing, objective int, at func(number int) (x, y float64)) {
	h := f.sweep.History
	var outside strings.Builder
	shaded := make([]strings.Builder, shades)
	for number := range h.Len() {
		if h.State(number) != tuner.Complete {
			continue
		}
		x, y := at(number)
		if math.IsNaN(x) || math.IsNaN(y) {
			continue
		}
		if shade := f.shade[objective][number]; shade >= 0 {
			report.Dot(&shaded[shade], x, y)
		} else {
			report.Dot(&outside, x, y)
		}
	}
	d.Open("dots")
	d.Path("dot outside", outside.String())
	for shade := range shaded {
		d.Path("dot "+shadeClass(shade), shaded[shade].String())
	}
	d.Close()
}

// scatterOf draws trials over a parameter, or over another objective.
func (f *figures) slice(param, objective int) template.HTML {
	const width, height = report.Third, 240
	q, o := f.params[param], f.problem.Objectives[objective]
	x := axes.OfParameter(q, report.Left-6, width-report.Right)
	y := axes.OfValues(f.complete(objective), o.Direction, height-report.Bottom, report.Top-8)
	var d report.Drawing
	d.Begin(width, height, o.Name+" by "+q.Name, "x", f.point("p"+strconv.Itoa(param), x), "y", f.point("v"+strconv.Itoa(objective), y), "shades", strconv.Itoa(objective))
	d.Frame(x, y, q.Name, "")
	h := f.sweep.History
	f.scatter(&d, objective, func(number int) (float64, float64) {
		return x.Place(spread(q, number, h.Config(number)[param])), y.Place(h.Values(number)[objective])
	})
	f.bestMark(&d, objective, func(best int) (float64, float64) {
		return x.Place(spread(q, best, h.Config(best)[param])), y.Place(h.Values(best)[objective])
	})
	return d.End()
}

// bestMark rings the best trial of an objective.
func (f *figures) bestMark(d *report.Drawing, objective int, at func(number int) (x, y float64)) {
	if best := f.best(objective); best >= 0 {
		if x, y := at(best); !math.IsNaN(x) {
			d.Circle("bestdot", x, y, 5.5)
		}
	}
}

// best is the best trial of an objective, -1 if there is none.
func (f *figures) best(objective int) int {
	best := -1
	for number, shade := range f.shade[objective] {
		if shade < 0 {
			continue
		}
		if best < 0 || f.sweep.History.Loss(number, objective) < f.sweep.History.Loss(best, objective) {
			best = number
		}
	}
	return best
}

// spread moves trials of one choice apart, each always to the same place. The page's script
// does the same.
func spread(q space.Parameter, number int, raw float64) float64 {
	if len(q.Choices) < 2 {
		return raw
	}
	_, share := math.Modf(float64(number) * 0.6180339887498949)
	return raw + (share-0.5)*0.6
}

// pareto draws two objectives against each other, with their front.
func (f *figures) pareto(first, second int) template.HTML {
	const width, height = report.Half, 400
	one, two := f.problem.Objectives[first], f.problem.Objectives[second]
	x := axes.OfValues(f.complete(first), one.Direction, report.Left, width-report.Right)
	y := axes.OfValues(f.complete(second), two.Direction, height-report.Bottom, report.Top)
	var d report.Drawing
	d.Begin(width, height, two.Name+" by "+one.Name, "x", f.point("v"+strconv.Itoa(first), x), "y", f.point("v"+strconv.Itoa(second), y), "shades", strconv.Itoa(first))
	d.Frame(x, y, arrow(one), arrow(two))
	h := f.sweep.History
	at := func(number int) (float64, float64) {
		values := h.Values(number)
		return x.Place(values[first]), y.Place(values[second])
	}
	f.scatter(&d, first, at)
	if len(f.problem.Objectives) == 2 {
		d.Path("best", f.staircase(at))
	}
	for _, number := range f.front {
		x, y := at(number)
		d.Circle("bestdot", x, y, 4.5)
	}
	return d.End()
}

// arrow names an objective with the direction in which it is better.
func arrow(o tuner.Objective) string {
	if o.Direction == tuner.Maximize {
		return o.Name + " (more is better)"
	}
	return o.Name + " (less is better)"
}

// staircase is the border of what the front of two objectives dominates.
func (f *figures) staircase(at func(int) (x, y float64)) string {
	h := f.sweep.History
	sorted := sortedBy(f.front, func(number int) float64 { return h.Loss(number, 0) })
	var path strings.Builder
	for i, number := range sorted {
		x, y := at(number)
		if i == 0 {
			path.WriteString("M" + report.Px(x) + " " + report.Px(y))
		} else {
			path.WriteString("H" + report.Px(x) + "V" + report.Px(y))
		}
	}
	return path.String()
}

// importance draws how much of the variance of an objective each parameter explains.
func (f *figures) importance(one Importance) template.HTML {
	const width, height, gap = report.Third, 340, 27
	shown := one.Shares[:min(len(one.Shares), (height-report.Top-10)/gap)]
	var d report.Drawing
	d.Begin(width, height, "importance of parameters for "+one.Objective)
	most := 1e-9
	for _, share := range shown {
		most = max(most, share.Share+share.Error)
	}
	const from, to = 128, width - 54
	for i, share := range shown {
		y := float64(report.Top + i*gap)
		length := (to - from) * max(share.Share, 0) / most
		d.Clipped("name", from-10, y+13, share.Parameter, 18)
		d.Bar("track", from, y, to-from, 16, "")
		d.Bar("bar", from, y, max(length, 1.5), 16, "")
		if share.Error > 0 {
			begin, end := from+(to-from)*max(share.Share-share.Error, 0)/most, from+(to-from)*(share.Share+share.Error)/most
			d.Line("error", begin, y+8, end, y+8)
		}
		d.Text("percent", width-6, y+13, report.Percent(share.Share))
	}
	if len(shown) == 0 {
		d.Text("none", width/2, height/2, "too few trials to tell")
	}
	return d.End()
}
