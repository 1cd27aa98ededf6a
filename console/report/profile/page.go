// Package profile writes what is in a table as one page: a card with a plot for each column, what
// goes with the label, which columns go together, and what looks wrong.
package profile

import (
	_ "embed" // the page
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/clary-ml/clary/console/axes"
	"github.com/clary-ml/clary/console/report"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/profile"
	"github.com/clary-ml/clary/trainer/table"
)

// Found is what the page shows.
type Found struct {
	Name    string // of the table
	Profile *profile.Profile
	Made    time.Time // the page does not tell it if it is zero: two of the same table are then the same
}

//go:embed page.html
var pageHTML string

// mostColumns have a card of their own.
const mostColumns = 200

// page is what the template shows.
type page struct {
	report.Head
	Notes        []profile.Note
	Telling      template.HTML
	Related      *related
	Columns      []card
	ColumnsNote  string
	SampleNote   string
	LabelLegend  []key
	LabelNumbers string
	Footer       string
}

type key struct{ Class, Name string }

// related is the matrix of correlations.
type related struct {
	Names []string
	Rows  []relatedRow
}

type relatedRow struct {
	Name  string
	Cells []relation
}

// relation is a correlation with its size, from 0 to 1.
type relation struct {
	Text, Title string
	Size        float64
	Negative    bool
}

type card struct {
	Name, Kind, Note string
	Facts            [][2]string
	Plot, ByLabel    template.HTML
}

// Write writes the page.
func Write(w io.Writer, f Found) error {
	if f.Profile == nil || len(f.Profile.Columns) == 0 {
		return fault.New(fault.Internal, "a profile of no column")
	}
	p := f.Profile
	out := page{
		Head: report.NewHead(f.Name, "profile", f.facts(), f.tiles()), Notes: p.Notes, Related: f.related(), Telling: f.telling(),
		Footer: "Made by Clary.",
	}
	if !f.Made.IsZero() {
		out.Footer = fmt.Sprintf("Made by Clary on %s.", f.Made.UTC().Format("2 January 2006, 15:04 UTC"))
	}
	if int64(p.Sampled) < p.Rows {
		out.SampleNote = fmt.Sprintf("told from %d rows drawn at random", p.Sampled)
	}
	if p.Label != "" && len(p.Classes) == 0 {
		out.LabelNumbers = "mean of " + p.Label
	}
	for i, class := range p.Classes {
		out.LabelLegend = append(out.LabelLegend, key{f.shade(i), class})
	}
	for _, c := range p.Columns[:min(len(p.Columns), mostColumns)] {
		out.Columns = append(out.Columns, f.card(c))
	}
	if len(p.Columns) > mostColumns {
		out.ColumnsNote = fmt.Sprintf("the first %d of %d", mostColumns, len(p.Columns))
	}
	return report.Write(w, pageHTML, out)
}

// shade is the class of a label's class: light to dark over the shades there are.
func (f Found) shade(class int) string {
	const shades = 10
	n := len(f.Profile.Classes)
	if n == 2 {
		return []string{"s2", "s7"}[class]
	}
	if n <= 1 {
		return "s5"
	}
	return "s" + strconv.Itoa(class*(shades-1)/(n-1))
}

func (f Found) facts() []string {
	p := f.Profile
	facts := []string{report.Plural(int(p.Rows), "row"), report.Plural(len(p.Columns), "column")}
	if p.Label != "" {
		facts = append(facts, "label "+p.Label)
	}
	return facts
}

func (f Found) tiles() []report.Tile {
	p := f.Profile
	numbers, missing := 0, int64(0)
	for _, c := range p.Columns {
		missing += c.Missing
		if c.Kind == table.Number {
			numbers++
		}
	}
	tiles := []report.Tile{
		{Label: "rows", Value: strconv.FormatInt(p.Rows, 10), Class: "lead"},
		{Label: "columns of numbers", Value: strconv.Itoa(numbers)},
		{Label: "columns of text", Value: strconv.Itoa(len(p.Columns) - numbers)},
		{Label: "missing cells", Value: strconv.FormatInt(missing, 10), Note: report.Percent(float64(missing) / float64(p.Rows) / float64(len(p.Columns)))},
		{Label: "to look at", Value: strconv.Itoa(len(p.Notes))},
	}
	if p.Broken > 0 {
		tiles = append(tiles, report.Tile{Label: "broken rows", Value: strconv.FormatInt(p.Broken, 10)})
	}
	return tiles
}

func (f Found) related() *related {
	p := f.Profile
	if len(p.Related) < 2 {
		return nil
	}
	out := &related{Names: p.Related}
	for i, name := range p.Related {
		row := relatedRow{Name: name}
		for j, r := range p.Correlations[i] {
			row.Cells = append(row.Cells, relation{
				Text: strconv.FormatFloat(r, 'f', 2, 64), Title: fmt.Sprintf("%s and %s: %.3f", name, p.Related[j], r), Size: math.Abs(r), Negative: r < 0,
			})
		}
		out.Rows = append(out.Rows, row)
	}
	return out
}

func (f Found) card(c profile.Column) card {
	out := card{Name: c.Name, Kind: string(c.Kind), Plot: plot(c), ByLabel: f.byLabel(c)}
	add := func(name, value string) { out.Facts = append(out.Facts, [2]string{name, value}) }
	add("missing", report.Percent(float64(c.Missing)/float64(f.Profile.Rows)))
	if c.Kind == table.Number {
		if len(c.Quantiles) == 7 {
			add("mean", axes.Format(c.Mean))
			add("deviation", axes.Format(c.Deviation))
			add("least", axes.Format(c.Quantiles[0]))
			add("median", axes.Format(c.Quantiles[3]))
			add("most", axes.Format(c.Quantiles[6]))
		}
	} else {
		more := ""
		if c.More {
			more = " or more"
		}
		add("different", strconv.Itoa(c.Distinct)+more)
	}
	if f.Profile.Label != "" && c.Name != f.Profile.Label {
		add("association", strconv.FormatFloat(c.Association, 'f', 2, 64))
	}
	if c.Name == f.Profile.Label {
		out.Note = "label"
	}
	return out
}

// telling are the columns that go with the label, the closest first.
func (f Found) telling() template.HTML {
	p := f.Profile
	if p.Label == "" {
		return ""
	}
	var columns []profile.Column
	for _, c := range p.Columns {
		if c.Name != p.Label {
			columns = append(columns, c)
		}
	}
	slices.SortStableFunc(columns, func(a, b profile.Column) int {
		switch {
		case a.Association > b.Association:
			return -1
		case a.Association < b.Association:
			return 1
		}
		return 0
	})
	rows := make([]bar, 0, mostBars)
	for _, c := range columns[:min(len(columns), mostBars)] {
		rows = append(rows, bar{name: c.Name, size: c.Association, text: strconv.FormatFloat(c.Association, 'f', 2, 64)})
	}
	return bars("association with "+p.Label, report.Half, 1, rows)
}
