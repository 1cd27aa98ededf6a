// Package evaluation writes what a model's predictions are worth as one page: its figures, beside
// those of another model if there is one, curves, calibration, confusion or residuals, and slices.
package evaluation

import (
	_ "embed" // the page
	"fmt"
	"html/template"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/clary-ml/clary/console/report"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/evaluation"
)

// Found is what the page shows.
type Found struct {
	// Models are the one that was judged and, behind it, those that it is compared with, all by
	// the same rows.
	Models []Model
	// Data is what they were judged by.
	Data string
	// Verdict compares the first with the second in a sentence; "" if there is nothing to say.
	Verdict string
	Made    time.Time
}

// Model is one that was judged: of classes or of numbers.
type Model struct {
	Name           string
	Classification *evaluation.Classification
	Regression     *evaluation.Regression
	Metrics        map[string]float64
	Slices         []evaluation.Slice
}

//go:embed page.html
var pageHTML string

const (
	mostClasses = 30 // in the matrix of confusion
	mostCurves  = 10 // of a model's classes, those with most rows
)

// page is what the template shows.
type page struct {
	report.Head
	Verdict  string
	Names    []string
	Figures  [][]string
	ROC, PR  template.HTML
	Legend   []key
	Curved   string
	Reliable template.HTML
	Matrix   *matrix
	Classes  [][]string
	Truths   template.HTML
	Residual template.HTML
	Spread   [][]string
	Slices   []sliced
	Footer   string
}

type key struct{ Class, Name string }

type matrix struct {
	Names []string
	Rows  []matrixRow
	Note  string
}

type matrixRow struct {
	Name  string
	Cells []cell
}

// cell is a count with its share of the row, from 0 to 1.
type cell struct {
	Count string
	Share float64
	Right bool
	Title string
}

type sliced struct {
	Column  string
	Heading []string
	Rows    []sliceRow
}

type sliceRow struct {
	Value string
	Cells []string
	Odd   bool // further from the whole than two standard errors
}

// Write writes the page.
func Write(w io.Writer, f Found) error {
	if len(f.Models) == 0 {
		return fault.New(fault.Internal, "an evaluation of no model")
	}
	p := page{
		Head:    report.NewHead(f.Models[0].Name, "evaluation", f.facts(), f.tiles()),
		Verdict: f.Verdict, Figures: f.figures(), Slices: f.slices(),
		Footer: fmt.Sprintf("Made by Clary on %s.", f.Made.UTC().Format("2 January 2006, 15:04 UTC")),
	}
	for _, m := range f.Models {
		p.Names = append(p.Names, m.Name)
	}
	if c := f.Models[0].Classification; c != nil {
		p.ROC, p.PR, p.Legend, p.Curved = f.curves()
		p.Reliable, p.Matrix, p.Classes = f.reliability(), confusion(c), classes(c)
	} else {
		p.Truths, p.Residual, p.Spread, p.Legend = f.truths(), f.residuals(), f.spread(), f.pair()
	}
	return report.Write(w, pageHTML, p)
}

func (f Found) rows() int {
	if c := f.Models[0].Classification; c != nil {
		return c.Rows
	}
	return f.Models[0].Regression.Rows
}

func (f Found) facts() []string {
	facts := []string{report.Plural(f.rows(), "row"), "judged by " + f.Data}
	if len(f.Models) > 1 {
		facts = append(facts, "beside "+f.Models[1].Name)
	}
	return facts
}

// leading are the figures that stand in large letters, the first of them leading.
func (m Model) leading() []string {
	if m.Classification != nil {
		return []string{"accuracy", "auc", "average_precision", "log_loss", "calibration_error"}
	}
	return []string{"rmse", "mae", "r2", "bias"}
}

func (f Found) tiles() []report.Tile {
	var tiles []report.Tile
	for i, name := range f.Models[0].leading() {
		value := f.Models[0].Metrics[name]
		tile := report.Tile{Label: words(name), Value: figure(name, value)}
		if i == 0 {
			tile.Class = "lead"
		}
		if len(f.Models) > 1 {
			tile.Note = f.Models[1].Name + " " + figure(name, f.Models[1].Metrics[name])
		}
		tiles = append(tiles, tile)
	}
	return append(tiles, report.Tile{Label: "rows", Value: strconv.Itoa(f.rows())})
}

// words names a figure.
func words(name string) string {
	switch name {
	case "auc", "rmse", "mae":
		return strings.ToUpper(name)
	case "r2":
		return "R²"
	}
	return strings.ReplaceAll(name, "_", " ")
}

func figure(name string, v float64) string {
	if name == "accuracy" {
		return strconv.FormatFloat(100*v, 'f', 2, 64) + " %"
	}
	return report.Number5(v)
}

func (f Found) figures() (rows [][]string) {
	for _, name := range slices.Sorted(maps.Keys(f.Models[0].Metrics)) {
		row := []string{words(name)}
		for _, m := range f.Models {
			row = append(row, figure(name, m.Metrics[name]))
		}
		rows = append(rows, row)
	}
	return rows
}

// confusion is the matrix of the classes, of the largest ones if there are many.
func confusion(c *evaluation.Classification) *matrix {
	shown := largest(c, mostClasses)
	m := &matrix{Note: "rows are what is right, columns what was taken for it"}
	if len(shown) < len(c.Classes) {
		m.Note += fmt.Sprintf("; the %d classes with most rows of %d", len(shown), len(c.Classes))
	}
	for _, i := range shown {
		m.Names = append(m.Names, c.Classes[i].Name)
		row := matrixRow{Name: c.Classes[i].Name}
		for _, j := range shown {
			count := c.Confusion[i][j]
			one := cell{Right: i == j, Title: fmt.Sprintf("%d of %d rows of %s taken for %s", count, c.Classes[i].Rows, c.Classes[i].Name, c.Classes[j].Name)}
			if count > 0 {
				one.Count, one.Share = strconv.Itoa(count), float64(count)/float64(c.Classes[i].Rows)
			}
			row.Cells = append(row.Cells, one)
		}
		m.Rows = append(m.Rows, row)
	}
	return m
}

// largest are the classes with most rows, at most so many, in their own order.
func largest(c *evaluation.Classification, most int) []int {
	order := make([]int, len(c.Classes))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return c.Classes[b].Rows - c.Classes[a].Rows })
	order = order[:min(most, len(order))]
	slices.Sort(order)
	return order
}

func classes(c *evaluation.Classification) (rows [][]string) {
	for _, i := range largest(c, mostClasses) {
		one := c.Classes[i]
		rows = append(rows, []string{
			one.Name, strconv.Itoa(one.Rows), report.Number5(one.Precision), report.Number5(one.Recall), report.Number5(one.F1),
			report.Number5(one.AUC), report.Number5(one.AveragePrecision),
		})
	}
	return rows
}

// spread are the quantiles of each model's residuals.
func (f Found) spread() (rows [][]string) {
	for _, m := range f.Models {
		row := []string{m.Name}
		for _, q := range m.Regression.Residuals {
			row = append(row, report.Number5(q))
		}
		rows = append(rows, row)
	}
	return rows
}

// slices are tables by column; of two models the first figure of both.
func (f Found) slices() (out []sliced) {
	names := []string{"accuracy", "auc", "log_loss"}
	if f.Models[0].Classification == nil {
		names = []string{"rmse", "mae", "bias"}
	}
	for i, s := range f.Models[0].Slices {
		if len(out) == 0 || out[len(out)-1].Column != s.Column {
			one := sliced{Column: s.Column, Heading: []string{s.Column, "rows"}}
			for _, name := range names {
				one.Heading = append(one.Heading, words(name))
			}
			one.Heading = append(one.Heading, "standard error")
			for _, m := range f.Models[1:] {
				one.Heading = append(one.Heading, words(names[0])+", "+m.Name)
			}
			out = append(out, one)
		}
		row := sliceRow{Value: s.Value, Cells: []string{strconv.Itoa(s.Rows)}}
		for _, name := range names {
			row.Cells = append(row.Cells, of(s, name))
		}
		row.Cells = append(row.Cells, strings.TrimSuffix(figure(names[0], s.Error), " %"))
		for _, m := range f.Models[1:] {
			row.Cells = append(row.Cells, of(m.Slices[i], names[0]))
		}
		whole, one := f.Models[0].Metrics["accuracy"], s.Metrics["accuracy"]
		if f.Models[0].Classification == nil {
			whole, one = f.Models[0].Metrics["bias"], s.Metrics["bias"]
		}
		row.Odd = math.Abs(one-whole) > 2*s.Error
		out[len(out)-1].Rows = append(out[len(out)-1].Rows, row)
	}
	return out
}

func of(s evaluation.Slice, name string) string {
	v, known := s.Metrics[name]
	if !known {
		return "–"
	}
	return figure(name, v)
}
