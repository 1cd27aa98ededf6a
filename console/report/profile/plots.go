package profile

import (
	"fmt"
	"html/template"
	"math"
	"strconv"
	"strings"

	"github.com/clary-ml/clary/console/axes"
	"github.com/clary-ml/clary/console/report"
	"github.com/clary-ml/clary/trainer/profile"
	"github.com/clary-ml/clary/trainer/table"
	"github.com/clary-ml/clary/tuner/space"
)

const (
	mostBars = 16
	height   = 200
	gap      = 22
)

// bar is one of a list.
type bar struct {
	name, text string
	size       float64
}

// bars draws lengths beside names, as parts of the most.
func bars(label string, width, most float64, rows []bar) template.HTML {
	var d report.Drawing
	d.Begin(width, float64(len(rows)*gap+8), label)
	from, to := 0.34*width, width-58
	for i, row := range rows {
		y := float64(4 + i*gap)
		d.Clipped("name", from-10, y+12, row.name, int(from/7))
		d.Bar("track", from, y, to-from, 15, "")
		d.Bar("bar", from, y, max((to-from)*row.size/most, 1.5), 15, row.name+": "+row.text)
		d.Text("percent", width-4, y+12, row.text)
	}
	return d.End()
}

// plot shows a column's numbers, or its commonest values.
func plot(c profile.Column) template.HTML {
	if c.Kind == table.Number {
		return histogram(c)
	}
	most := int64(1)
	rows := make([]bar, 0, len(c.Values))
	for _, v := range c.Values {
		most = max(most, v.Count)
		rows = append(rows, bar{name: v.Text, size: float64(v.Count), text: strconv.FormatInt(v.Count, 10)})
	}
	if most == 1 { // none is commoner than another
		return ""
	}
	return bars("values of "+c.Name, report.Third, float64(most), rows)
}

func histogram(c profile.Column) template.HTML {
	if len(c.Histogram) == 0 {
		return ""
	}
	most := int64(1)
	for _, b := range c.Histogram {
		most = max(most, b.Count)
	}
	low, high := c.Histogram[0].From, c.Histogram[len(c.Histogram)-1].To
	if !(high > low) {
		low, high = low-math.Max(math.Abs(low)/2, 1), high+math.Max(math.Abs(high)/2, 1)
	}
	x := axes.Axis{Scale: space.Linear, Low: low, High: high, From: report.Left, To: report.Third - report.Right, Ticks: axes.Ticks(space.Linear, low, high, false)}
	y := axes.Axis{Scale: space.Linear, Low: 0, High: float64(most), From: height - report.Bottom, To: 10, Ticks: axes.Thin(axes.Ticks(space.Linear, 0, float64(most), true), 5)}
	var d report.Drawing
	d.Begin(report.Third, height, "histogram of "+c.Name)
	d.Frame(x, y, "", "")
	for _, b := range c.Histogram {
		if b.Count == 0 {
			continue
		}
		from, to := x.Place(b.From), x.Place(b.To)
		if b.From == b.To {
			from, to = from-12, to+12
		}
		top := y.Place(float64(b.Count))
		d.Bar("bar", from, top, max(to-from-1, 0.5), y.From-top, fmt.Sprintf("%s to %s: %s", axes.Format(b.From), axes.Format(b.To), report.Plural(int(b.Count), "row")))
	}
	return d.End()
}

// byLabel shows the label at the column's values: shares of its classes, or means.
func (f Found) byLabel(c profile.Column) template.HTML {
	groups := c.ByLabel[:min(len(c.ByLabel), mostBars)]
	if len(groups) < 2 || len(c.Values) > 0 && c.Values[0].Count == 1 {
		return ""
	}
	if len(f.Profile.Classes) == 0 {
		return means(c.Name, groups)
	}
	const width, from, to, letters = report.Third, 0.34 * report.Third, report.Third - 58, 17
	var d report.Drawing
	d.Begin(width, float64(len(groups)*gap+8), f.Profile.Label+" by "+c.Name)
	for i, g := range groups {
		y, at := float64(4+i*gap), from
		d.Clipped("name", from-10, y+12, g.Value, letters)
		for class, share := range g.Shares {
			length := (to - from) * share
			if share > 0 {
				d.Block("fill "+f.shade(class), at, y, length, 15, fmt.Sprintf("%s: %s of %s", f.Profile.Classes[class], report.Percent(share), report.Plural(g.Rows, "row")))
			}
			at += length
		}
		d.Text("percent", width-4, y+12, report.Percent(g.Shares[len(g.Shares)-1]))
	}
	return d.End()
}

// means draws dots along one axis.
func means(name string, groups []profile.Group) template.HTML {
	low, high := groups[0].Mean, groups[0].Mean
	for _, g := range groups {
		low, high = min(low, g.Mean), max(high, g.Mean)
	}
	if !(high > low) {
		low, high = low-1, high+1
	}
	const width, from, to, letters = report.Third, 0.34 * report.Third, report.Third - 74, 17
	x := axes.Axis{Scale: space.Linear, Low: low, High: high, From: from + 6, To: to}
	var d report.Drawing
	d.Begin(width, float64(len(groups)*gap+8), "mean by "+name)
	var dots strings.Builder
	for i, g := range groups {
		y := float64(4 + i*gap)
		d.Clipped("name", from-10, y+12, g.Value, letters)
		d.Line("grid", from, y+8, to, y+8)
		report.Dot(&dots, x.Place(g.Mean), y+8)
		d.Text("percent", width-4, y+12, axes.Format(g.Mean))
	}
	d.Path("dot s6", dots.String())
	return d.End()
}
