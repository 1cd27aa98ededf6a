// Package profile says what is in a table before anything is learned from it: each column's
// numbers or values, what goes with the label, which columns go together, and what looks wrong.
package profile

import (
	"context"
	"fmt"
	"math"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/evaluation"
	"github.com/clary-ml/clary/trainer/summary"
	"github.com/clary-ml/clary/trainer/table"
)

const (
	bins        = 30
	mostValues  = 10 // of a column of texts that are named
	mostClasses = 20 // that a label of numbers has and is still one of classes
	mostRelated = 30 // columns of numbers that are correlated

	// MaxSample is how many rows, drawn at random, correlations and what goes with the label are
	// told from. All else is told from all rows.
	MaxSample = 50_000
)

// Profile is what there is to say of a table.
type Profile struct {
	Rows    int64    `json:"rows"`
	Broken  int64    `json:"broken,omitempty"`
	Sampled int      `json:"sampled"` // rows behind correlations and groups
	Label   string   `json:"label,omitempty"`
	Columns []Column `json:"columns"`
	// Correlations are Pearson's of each pair of the columns in Related, over the sampled rows that
	// have both; NaN never: a pair that has none counts as 0.
	Related      []string    `json:"related,omitempty"`
	Correlations [][]float64 `json:"correlations,omitempty"`
	// Classes are those of the label, the commonest first; a label of numbers has none.
	Classes []string `json:"classes,omitempty"`
	Notes   []Note   `json:"notes,omitempty"`
}

// Column is one of the table's.
type Column struct {
	Name    string     `json:"name"`
	Kind    table.Kind `json:"kind"`
	Missing int64      `json:"missing"`

	// Of numbers. Quantiles are 0, 5, 25, 50, 75, 95 and 100 %.
	Mean      float64       `json:"mean,omitempty"`
	Deviation float64       `json:"deviation,omitempty"`
	Quantiles []float64     `json:"quantiles,omitempty"`
	Histogram []summary.Bin `json:"histogram,omitempty"`

	// Of texts: how many different ones there are (at least so many, if More), and the commonest.
	Distinct int             `json:"distinct,omitempty"`
	More     bool            `json:"more,omitempty"`
	Values   []summary.Value `json:"values,omitempty"`

	// ByLabel says what the label is at the column's values or ranges, and Association, from 0 to
	// 1, how much they tell of it: Cramér's V of classes (bias-corrected: Bergsma 2013), the
	// correlation ratio of numbers.
	ByLabel     []Group `json:"by_label,omitempty"`
	Association float64 `json:"association,omitempty"`
}

// Group are sampled rows with one value, or in one range, of a column.
type Group struct {
	Value string `json:"value"`
	Rows  int    `json:"rows"`
	// Shares are those of the classes, Mean that of a label of numbers.
	Shares []float64 `json:"shares,omitempty"`
	Mean   float64   `json:"mean,omitempty"`
}

// Note is something to look at.
type Note struct {
	Column string `json:"column,omitempty"`
	Text   string `json:"text"`
}

// Options say what is looked at.
type Options struct {
	Label string
	Text  []string // columns that are text although they look like numbers
	Tell  func(reading int, rows int64)
}

// Of reads a table twice as a stream.
func Of(ctx context.Context, s *table.Source, o Options) (*Profile, error) {
	if o.Tell == nil {
		o.Tell = func(int, int64) {}
	}
	if _, err := s.Infer(ctx, o.Text...); err != nil {
		return nil, err
	}
	at := -1
	for i, f := range s.Fields {
		if f.Name == o.Label {
			at = i
		}
	}
	if o.Label != "" && at < 0 {
		return nil, fault.New(fault.Invalid, "label %q: there is no such column; there are %s", o.Label, names(s.Fields))
	}
	total, rows := summary.New(s.Fields), newSample(s.Fields)
	type part struct {
		summary *summary.Table
		batch   table.Batch
	}
	var read int64
	count, err := table.Map(ctx, s, func(b table.Batch) (part, error) {
		p := part{summary.New(s.Fields), b}
		return p, p.summary.Add(b)
	}, func(p part) error {
		total.Merge(p.summary)
		rows.take(p.batch)
		read += int64(p.batch.Rows)
		o.Tell(2, read)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if count.Rows == 0 {
		return nil, fault.New(fault.Invalid, "there are no rows to profile")
	}
	p := &Profile{Rows: count.Rows, Broken: count.Broken, Sampled: rows.batch.Rows, Label: o.Label}
	for i := range total.Columns {
		p.Columns = append(p.Columns, describe(&total.Columns[i]))
	}
	if at >= 0 {
		p.relate(rows.batch, at)
	}
	p.correlate(rows.batch)
	p.remark()
	return p, nil
}

func names(fields []table.Field) string {
	text := ""
	for i, f := range fields {
		if i == 12 {
			return text + ", …"
		}
		if i > 0 {
			text += ", "
		}
		text += f.Name
	}
	return text
}

func describe(s *summary.Column) Column {
	c := Column{Name: s.Name, Kind: s.Kind, Missing: s.Missing}
	if s.Kind == table.Number {
		c.Mean, c.Deviation, c.Histogram = s.Mean, min(s.Deviation(), math.MaxFloat64), s.Histogram(bins)
		for _, q := range []float64{0, .05, .25, .5, .75, .95, 1} {
			if v := s.Quantile(q); !math.IsNaN(v) {
				c.Quantiles = append(c.Quantiles, v)
			}
		}
		return c
	}
	values := s.Values()
	c.Distinct, c.More, c.Values = len(values), s.Others > 0, values[:min(len(values), mostValues)]
	return c
}

// relate says what the label is at each column's values.
func (p *Profile) relate(b table.Batch, label int) {
	classes := map[string]int{}
	texts := textsOf(&b.Columns[label])
	groups := evaluation.Part{Texts: texts}.Groups()
	if b.Columns[label].Kind == table.Text || !ranged(&b.Columns[label], groups) {
		for i, g := range groups {
			classes[g.Value] = i
			p.Classes = append(p.Classes, g.Value)
		}
	}
	class := make([]int, b.Rows)
	for i, g := range groups {
		for _, row := range g.Rows {
			class[row] = i
		}
	}
	for i := range b.Columns {
		if i == label {
			continue
		}
		parts := evaluation.Part{Texts: textsOf(&b.Columns[i])}.Groups()
		if len(classes) > 0 {
			p.Columns[i].ByLabel, p.Columns[i].Association = byClass(parts, class, len(classes), b.Rows)
		} else {
			p.Columns[i].ByLabel, p.Columns[i].Association = byNumber(parts, b.Columns[label].Numbers)
		}
	}
}

// ranged reports whether a column of numbers has too many different ones to be classes.
func ranged(c *table.Column, groups []evaluation.Group) bool {
	different := map[float64]bool{}
	for _, v := range c.Numbers {
		if different[v] = true; len(different) > mostClasses {
			return true
		}
	}
	return len(groups) > mostClasses
}

func byClass(parts []evaluation.Group, class []int, classes, rows int) ([]Group, float64) {
	whole := make([]float64, classes)
	for _, c := range class {
		whole[c]++
	}
	out := make([]Group, len(parts))
	chi := 0.0
	for i, part := range parts {
		counts := make([]float64, classes)
		for _, row := range part.Rows {
			counts[class[row]]++
		}
		n := float64(len(part.Rows))
		for c, count := range counts {
			if expected := n * whole[c] / float64(rows); expected > 0 {
				chi += (count - expected) * (count - expected) / expected
			}
			counts[c] = count / n
		}
		out[i] = Group{Value: part.Value, Rows: len(part.Rows), Shares: counts}
	}
	n, r, k := float64(rows), float64(len(parts)), float64(classes)
	if n < 2 || r < 2 || k < 2 {
		return out, 0
	}
	phi := max(0, chi/n-(k-1)*(r-1)/(n-1))
	r, k = r-(r-1)*(r-1)/(n-1), k-(k-1)*(k-1)/(n-1)
	if least := min(r, k) - 1; least > 0 {
		return out, math.Min(1, math.Sqrt(phi/least))
	}
	return out, 0
}

func byNumber(parts []evaluation.Group, label []float64) ([]Group, float64) {
	mean, n := 0.0, 0.0
	for _, v := range label {
		if !math.IsNaN(v) {
			n++
			mean += (v - mean) / n
		}
	}
	total := 0.0
	for _, v := range label {
		if !math.IsNaN(v) {
			total += (v - mean) * (v - mean)
		}
	}
	between := 0.0
	out := make([]Group, 0, len(parts))
	for _, part := range parts {
		g, seen := Group{Value: part.Value, Rows: len(part.Rows)}, 0.0
		for _, row := range part.Rows {
			if v := label[row]; !math.IsNaN(v) {
				seen++
				g.Mean += (v - g.Mean) / seen
			}
		}
		between += seen * (g.Mean - mean) * (g.Mean - mean)
		out = append(out, g)
	}
	if !(total > 0) {
		return out, 0
	}
	return out, math.Min(1, math.Sqrt(between/total))
}

// correlate fills Pearson's correlations.
func (p *Profile) correlate(b table.Batch) {
	var columns [][]float64
	for i := range b.Columns {
		c := &b.Columns[i]
		if q := p.Columns[i].Quantiles; c.Kind == table.Number && len(q) > 0 && q[0] < q[len(q)-1] && len(columns) < mostRelated {
			columns, p.Related = append(columns, c.Numbers), append(p.Related, c.Name)
		}
	}
	for i := range columns {
		row := make([]float64, len(columns))
		for j := range columns {
			switch {
			case j < i:
				row[j] = p.Correlations[j][i]
			case j == i:
				row[j] = 1
			default:
				row[j] = pearson(columns[i], columns[j])
			}
		}
		p.Correlations = append(p.Correlations, row)
	}
}

func pearson(x, y []float64) float64 {
	var n, mx, my, xx, yy, xy float64
	for i := range x {
		if math.IsNaN(x[i]) || math.IsNaN(y[i]) {
			continue
		}
		n++
		dx, dy := x[i]-mx, y[i]-my
		mx += dx / n
		my += dy / n
		xx += dx * (x[i] - mx)
		yy += dy * (y[i] - my)
		xy += dx * (y[i] - my)
	}
	r := xy / math.Sqrt(xx) / math.Sqrt(yy)
	if math.IsNaN(r) || math.IsInf(r, 0) {
		return 0
	}
	return max(-1, min(r, 1))
}

// remark notes what looks wrong.
func (p *Profile) remark() {
	note := func(column, format string, args ...any) {
		p.Notes = append(p.Notes, Note{column, fmt.Sprintf(format, args...)})
	}
	for _, c := range p.Columns {
		there := p.Rows - c.Missing
		switch {
		case there == 0:
			note(c.Name, "is empty")
			continue
		case c.Missing*2 > p.Rows:
			note(c.Name, "is missing in %.0f %% of the rows", 100*float64(c.Missing)/float64(p.Rows))
		case c.Missing > 0 && c.Name == p.Label:
			note(c.Name, "is the label and missing in %d rows", c.Missing)
		}
		switch {
		case c.Kind == table.Text && c.Distinct == 1 && !c.More, len(c.Quantiles) > 0 && c.Quantiles[0] == c.Quantiles[len(c.Quantiles)-1]:
			note(c.Name, "has one value only")
		case c.Kind == table.Text && c.Distinct > 20 && float64(c.Distinct) > 0.9*float64(there), c.More && c.Values[0].Count == 1:
			note(c.Name, "is different in nearly every row: an identifier?")
		}
		if c.Name != p.Label && c.Association > 0.95 {
			note(c.Name, "tells the label almost alone (association %.2f): is it known before the label is?", c.Association)
		}
	}
	for i, row := range p.Correlations {
		for j := i + 1; j < len(row); j++ {
			if math.Abs(row[j]) > 0.95 {
				note(p.Related[i], "and %s have a correlation of %.3f", p.Related[j], row[j])
			}
		}
	}
}
