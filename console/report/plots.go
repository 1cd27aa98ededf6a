package report

import (
	"fmt"
	"html/template"
	"math"
	"strconv"
	"strings"

	"github.com/clary-ml/clary/console/axes"
	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/space"
)

// Sizes of the plots, in pixels of a page of full width.
const (
	wide, half, third = 1140, 560, 366
	left, right, top  = 62, 14, 30
	bottom            = 42
)

// history is the objective of each trial in the order in which they ended, with the best so
// far.
func (f *figures) history(objective int) template.HTML {
	const width, height = 760, 340
	h, o := f.sweep.History, f.problem.Objectives[objective]
	x := axes.OfCounts(1, float64(len(h.Ended())), left, width-right)
	y := axes.OfValues(f.complete(objective), o.Direction, height-bottom-16, top)
	var d drawing
	d.begin(width, height, "history of "+o.Name, "x", f.point("place", x), "y", f.point("h"+strconv.Itoa(objective), y), "shades", strconv.Itoa(objective))
	d.frame(x, axes.Axis{Scale: y.Scale, Low: y.Low, High: y.High, From: height - bottom, To: y.To}, "trials that have ended, in the order of their end", "")
	d.yTicks(x, y, o.Name)
	var stopped, outside, failed strings.Builder
	shaded := make([]strings.Builder, shades)
	for _, ended := range h.Ended() {
		number := int(ended)
		at := x.Place(float64(f.place[number]))
		switch h.State(number) {
		case tuner.Complete:
			value := y.Place(h.Values(number)[objective])
			if shade := f.shade[objective][number]; shade >= 0 {
				dot(&shaded[shade], at, value)
			} else {
				dot(&outside, at, value)
			}
		case tuner.Stopped:
			if last := f.last(number); objective == 0 && !math.IsNaN(last) {
				dot(&stopped, at, y.Place(last))
			}
		case tuner.Failed, tuner.Infeasible:
			fmt.Fprintf(&failed, "M%s %dl5 5m0-5l-5 5", px(at-2.5), height-bottom-9)
		}
	}
	d.open("dots")
	d.path("dot stopped", stopped.String())
	d.path("dot outside", outside.String())
	for shade := range shaded {
		d.path("dot "+shadeClass(shade), shaded[shade].String())
	}
	d.close()
	d.path("failed", failed.String())
	d.bestSoFar(f, objective, x, y)
	return d.end()
}

// yTicks draws the values of an axis that is shorter than its frame.
func (d *drawing) yTicks(x, y axes.Axis, name string) {
	d.open("frame")
	for _, t := range y.Ticks {
		d.line("grid", x.From, y.Place(t.At), x.To, y.Place(t.At))
		d.text("tick y", x.From-8, y.Place(t.At)+3.5, t.Text)
	}
	d.clipped("label y", x.From-8, y.To-12, name, 48)
	d.close()
}

// bestSoFar draws a step at each trial that was the best of all before it.
func (d *drawing) bestSoFar(f *figures, objective int, x, y axes.Axis) {
	h := f.sweep.History
	best, loss := -1, math.Inf(1)
	var path strings.Builder
	for _, ended := range h.Ended() {
		number := int(ended)
		if h.State(number) != tuner.Complete || h.Excess(number) > 0 || h.Loss(number, objective) >= loss {
			continue
		}
		at, value := px(x.Place(float64(f.place[number]))), px(y.Place(h.Values(number)[objective]))
		if best < 0 {
			path.WriteString("M" + at + " " + value)
		} else {
			path.WriteString("H" + at + "V" + value)
		}
		best, loss = number, h.Loss(number, objective)
	}
	if best < 0 {
		d.text("none", (x.From+x.To)/2, (y.From+y.To)/2, "no trial has completed")
		return
	}
	path.WriteString("H" + px(x.To))
	d.path("best", path.String())
	d.circle("bestdot", x.Place(float64(f.place[best])), y.Place(h.Values(best)[objective]), 5.5)
}

// point is what the page's script needs to place trials along an axes.
func (f *figures) point(column string, a axes.Axis) string {
	return asJSON(struct {
		Column string `json:"column"`
		axes.Axis
	}{column, a})
}

// scatter draws the complete trials by two columns.
func (d *drawing) scatter(f *figures, objective int, at func(number int) (x, y float64)) {
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
			dot(&shaded[shade], x, y)
		} else {
			dot(&outside, x, y)
		}
	}
	d.open("dots")
	d.path("dot outside", outside.String())
	for shade := range shaded {
		d.path("dot "+shadeClass(shade), shaded[shade].String())
	}
	d.close()
}

// scatterOf draws trials over a parameter, or over another objective.
func (f *figures) slice(param, objective int) template.HTML {
	const width, height = third, 240
	q, o := f.params[param], f.problem.Objectives[objective]
	x := axes.OfParameter(q, left-6, width-right)
	y := axes.OfValues(f.complete(objective), o.Direction, height-bottom, top-8)
	var d drawing
	d.begin(width, height, o.Name+" by "+q.Name, "x", f.point("p"+strconv.Itoa(param), x), "y", f.point("v"+strconv.Itoa(objective), y), "shades", strconv.Itoa(objective))
	d.frame(x, y, q.Name, "")
	h := f.sweep.History
	d.scatter(f, objective, func(number int) (float64, float64) {
		return x.Place(spread(q, number, h.Config(number)[param])), y.Place(h.Values(number)[objective])
	})
	d.bestMark(f, objective, func(best int) (float64, float64) {
		return x.Place(spread(q, best, h.Config(best)[param])), y.Place(h.Values(best)[objective])
	})
	return d.end()
}

// bestMark rings the best trial of an objective.
func (d *drawing) bestMark(f *figures, objective int, at func(number int) (x, y float64)) {
	if best := f.best(objective); best >= 0 {
		if x, y := at(best); !math.IsNaN(x) {
			d.circle("bestdot", x, y, 5.5)
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
	const width, height = half, 400
	one, two := f.problem.Objectives[first], f.problem.Objectives[second]
	x := axes.OfValues(f.complete(first), one.Direction, left, width-right)
	y := axes.OfValues(f.complete(second), two.Direction, height-bottom, top)
	var d drawing
	d.begin(width, height, two.Name+" by "+one.Name, "x", f.point("v"+strconv.Itoa(first), x), "y", f.point("v"+strconv.Itoa(second), y), "shades", strconv.Itoa(first))
	d.frame(x, y, arrow(one), arrow(two))
	h := f.sweep.History
	at := func(number int) (float64, float64) {
		values := h.Values(number)
		return x.Place(values[first]), y.Place(values[second])
	}
	d.scatter(f, first, at)
	if len(f.problem.Objectives) == 2 {
		d.path("best", f.staircase(at))
	}
	for _, number := range f.front {
		x, y := at(number)
		d.circle("bestdot", x, y, 4.5)
	}
	return d.end()
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
			path.WriteString("M" + px(x) + " " + px(y))
		} else {
			path.WriteString("H" + px(x) + "V" + px(y))
		}
	}
	return path.String()
}

// importance draws how much of the variance of an objective each parameter explains.
func (f *figures) importance(one Importance) template.HTML {
	const width, height, gap = third, 340, 27
	shown := one.Shares[:min(len(one.Shares), (height-top-10)/gap)]
	var d drawing
	d.begin(width, height, "importance of parameters for "+one.Objective)
	most := 1e-9
	for _, share := range shown {
		most = max(most, share.Share+share.Error)
	}
	const from, to = 128, width - 54
	for i, share := range shown {
		y := float64(top + i*gap)
		length := (to - from) * max(share.Share, 0) / most
		d.clipped("name", from-10, y+13, share.Parameter, 18)
		fmt.Fprintf(&d.b, `<rect class="track" x="%d" y="%s" width="%d" height="16" rx="3"/>`, from, px(y), to-from)
		fmt.Fprintf(&d.b, `<rect class="bar" x="%d" y="%s" width="%s" height="16" rx="3"/>`, from, px(y), px(max(length, 1.5)))
		if share.Error > 0 {
			begin, end := from+(to-from)*max(share.Share-share.Error, 0)/most, from+(to-from)*(share.Share+share.Error)/most
			d.line("error", begin, y+8, end, y+8)
		}
		d.text("percent", width-6, y+13, percent(share.Share))
	}
	if len(shown) == 0 {
		d.text("none", width/2, height/2, "too few trials to tell")
	}
	return d.end()
}

func percent(share float64) string {
	if share > 0 && share < 0.01 {
		return "<1 %"
	}
	return fmt.Sprintf("%.0f %%", 100*share)
}
