package shell

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/guptarohit/asciigraph"

	"github.com/clary-ml/clary/cluster"
)

// Axis is what a metric is drawn over.
type Axis string

const (
	ByStep  Axis = "step"
	ByEpoch Axis = "epoch"
	ByTime  Axis = "time"
)

// of is where a point stands on the axis; time counts in seconds.
func (x Axis) of(p cluster.Point) float64 {
	switch x {
	case ByStep:
		return float64(p.Step)
	case ByEpoch:
		return float64(p.Epoch)
	}
	return float64(p.Time) / float64(time.Second)
}

// spread is how far points reach on the axis.
func (x Axis) spread(series []cluster.Series) (least, most float64) {
	least, most = math.Inf(1), math.Inf(-1)
	for _, s := range series {
		for _, p := range s.Points {
			least, most = min(least, x.of(p)), max(most, x.of(p))
		}
	}
	return least, most
}

// natural is the first axis along which the points are not all at one place.
func natural(series []cluster.Series) Axis {
	for _, x := range []Axis{ByStep, ByEpoch} {
		if least, most := x.spread(series); most > least {
			return x
		}
	}
	return ByTime
}

// Sizes of a plot, in characters.
const (
	plotHeight  = 8
	plotMargin  = 14 // for the numbers at the left
	plotLeast   = 20
	plotMost    = 160
	plotTicks   = 5
	PlotLegends = 8
)

var plotColors = []asciigraph.AnsiColor{
	asciigraph.Blue, asciigraph.Orange, asciigraph.Green, asciigraph.Red, asciigraph.Purple, asciigraph.Goldenrod, asciigraph.DeepPink, asciigraph.Teal,
}

// Plot draws the series of one metric, a line for each task.
func Plot(series []cluster.Series, over Axis, width int, color bool) string {
	if over == "" {
		over = natural(series)
	}
	least, most := over.spread(series)
	if math.IsInf(least, 1) {
		return ""
	}
	if most <= least {
		return fmt.Sprintf("%s: %s\n", OneLine(series[0].Name), flat(series))
	}
	columns := min(max(width-plotMargin, plotLeast), plotMost)
	var lines [][]float64
	var legends []string
	for _, s := range series[:min(len(series), PlotLegends)] {
		lines = append(lines, resample(s.Points, over, least, most, columns))
		legends = append(legends, s.Task)
	}
	origin := 0.0
	if over == ByTime {
		origin = least
	}
	options := []asciigraph.Option{
		asciigraph.Height(plotHeight), asciigraph.XAxisRange(least-origin, most-origin), asciigraph.XAxisTickCount(over.ticks(most - least)),
		asciigraph.YAxisValueFormatter(func(v float64) string { return fmt.Sprintf("%9.4g", v) }),
		asciigraph.XAxisValueFormatter(over.label),
	}
	if color {
		options = append(options, asciigraph.SeriesColors(plotColors[:len(lines)]...))
		if len(lines) > 1 {
			options = append(options, asciigraph.SeriesLegends(legends...))
		}
	}
	title := fmt.Sprintf("%s over %s: %s", OneLine(series[0].Name), over, flat(series))
	return title + "\n" + strings.TrimRight(asciigraph.PlotMany(lines, options...), "\n") + "\n"
}

// ticks are as many as can be told apart: steps and epochs are whole.
func (x Axis) ticks(length float64) int {
	if x == ByTime {
		return plotTicks
	}
	for n := plotTicks; n > 2; n-- {
		if math.Mod(length, float64(n-1)) == 0 {
			return n
		}
	}
	return min(plotTicks, int(length)+1)
}

func (x Axis) label(v float64) string {
	if x == ByTime {
		return Span(time.Duration(v * float64(time.Second)))
	}
	return fmt.Sprintf("%.0f", v)
}

// flat is what the series say in words.
func flat(series []cluster.Series) string {
	var texts []string
	for i, s := range series {
		if i == PlotLegends {
			texts = append(texts, fmt.Sprintf("and %d more tasks", len(series)-i))
			break
		}
		if n := len(s.Points); n > 0 {
			texts = append(texts, fmt.Sprintf("%s %s (%s to %s)", s.Task, Number(s.Points[n-1].Value), Number(s.Min), Number(s.Max)))
		}
	}
	return strings.Join(texts, ", ")
}

// resample reads a line at evenly spaced places, between points by the straight line and
// beyond them not at all.
func resample(points []cluster.Point, over Axis, least, most float64, columns int) []float64 {
	values := make([]float64, columns)
	next := 0
	for column := range values {
		x := least + (most-least)*float64(column)/float64(columns-1)
		for next < len(points) && over.of(points[next]) < x {
			next++
		}
		values[column] = between(points, next, over, x, (most-least)/float64(columns-1))
	}
	return values
}

// between is the line's value at x, which lies before the next point; a point beyond an end
// counts within half a column.
func between(points []cluster.Point, next int, over Axis, x, column float64) float64 {
	switch {
	case len(points) == 0:
		return math.NaN()
	case next == 0:
		if over.of(points[0])-x <= column/2 {
			return points[0].Value
		}
		return math.NaN()
	case next == len(points):
		if x-over.of(points[next-1]) <= column/2 {
			return points[next-1].Value
		}
		return math.NaN()
	}
	before, after := points[next-1], points[next]
	length := over.of(after) - over.of(before)
	if length <= 0 {
		return after.Value
	}
	share := (x - over.of(before)) / length
	return before.Value + share*(after.Value-before.Value)
}
