// Package sweep writes what a sweep has found as one HTML file that needs nothing else: no
// network, no other file. Its plots are SVG that stands in the page, with the trials' data
// beside them for the script that points and filters; without scripts they can still be read.
package sweep

import (
	_ "embed" // the page's parts
	"fmt"
	"html/template"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/console/axes"
	"github.com/clary-ml/clary/console/report"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/tuner"
)

// Found is what the page shows.
type Found struct {
	Job              cluster.Job
	Sweep            cluster.Sweep
	Sampler, Stopper string
	// History is the problem with all trials. Trials are the same ones as the cluster keeps
	// them, by number.
	History *tuner.History
	Trials  []cluster.Trial
	// Importance is that of the parameters for each objective, the most important first, and
	// Method how it was found.
	Importance []Importance
	Method     string
	// Made is when the report is.
	Made time.Time
}

// Importance is how much of an objective's variance each parameter explains.
type Importance struct {
	Objective string
	Shares    []Share
}

// Share is the part of one parameter, or of a pair, from 0 to 1, and how far it is uncertain.
type Share struct {
	Parameter    string
	Share, Error float64
}

//go:embed page.html
var pageHTML string

//go:embed page.js
var pageJS string

// maxPanels is of how many objectives there are plots.
const maxPanels = 4

// page is what the template shows.
type page struct {
	report.Head
	State, Reason string
	Best          *bestTrial
	Panels        []panel
	Front         *front
	Curves        template.HTML
	ParallelNote  string
	CurvesNote    string

	Stopped, Outside, Failed bool // what the legend names

	TableNote string
	Heading   []heading
	Rows      [][]string
	Footer    string

	Data template.JS
}

type bestTrial struct {
	Number, Note string
	Parameters   []parameter
	Command      string
}

type parameter struct{ Name, Value string }

type panel struct {
	Index               int
	Objective, Method   string
	History, Importance template.HTML
	Parallel            template.HTML
	Slices              []template.HTML
}

// front is the Pareto front of several objectives.
type front struct {
	Plots   []template.HTML
	Heading []string
	Rows    [][]string
}

type heading struct{ Column, Name string }

// Write writes the report.
func Write(w io.Writer, s Found) error {
	if s.History.Len() != len(s.Trials) {
		return fault.New(fault.Internal, "report: a history of %d trials, and %d trials", s.History.Len(), len(s.Trials))
	}
	f := newFigures(s)
	data, err := f.columns()
	if err != nil {
		return fmt.Errorf("write the trials' data: %w", err)
	}
	p := f.page()
	p.Script, p.Data = template.JS(pageJS), template.JS(data) //nolint:gosec // JSON as encoding/json escapes it
	return report.Write(w, pageHTML, p)
}

func (f *figures) page() page {
	s := f.sweep
	p := page{
		Head:  report.NewHead(s.Job.Name, "sweep", f.facts(), f.tiles()),
		State: string(s.Job.State), Reason: s.Job.Reason, Best: f.bestCard(),
		Curves: f.curves(), Stopped: s.Sweep.Counts.Stopped > 0, Failed: s.Sweep.Counts.Failed+s.Sweep.Counts.Infeasible > 0,
		Footer: fmt.Sprintf("Made by Clary on %s from %d trials.", s.Made.UTC().Format("2 January 2006, 15:04 UTC"), len(s.Trials)),
	}
	if s.Job.State == cluster.JobSucceeded {
		p.Reason = ""
	}
	for number, shade := range f.shade[0] {
		p.Outside = p.Outside || shade < 0 && s.History.State(number) == tuner.Complete
	}
	for i, o := range f.problem.Objectives[:min(len(f.problem.Objectives), maxPanels)] {
		one := panel{Index: i, Objective: o.Name, History: f.history(i), Importance: f.importance(Importance{Objective: o.Name})}
		if i < len(s.Importance) && len(s.Importance[i].Shares) > 0 {
			one.Importance, one.Method = f.importance(s.Importance[i]), s.Method
		}
		if f.best(i) >= 0 && len(f.order) > 0 {
			one.Parallel = f.parallel(i)
			for _, param := range f.order {
				one.Slices = append(one.Slices, f.slice(param, i))
			}
		}
		p.Panels = append(p.Panels, one)
	}
	p.Front = f.frontCard()
	p.ParallelNote, p.CurvesNote = f.notes()
	f.table(&p)
	return p
}

// notes say what of very many trials is drawn.
func (f *figures) notes() (parallel, curves string) {
	complete, curved := 0, 0
	for number := range f.sweep.History.Len() {
		if f.shade[0][number] >= 0 {
			complete++
		}
		if len(f.sweep.Trials[number].Curve) > 1 {
			curved++
		}
	}
	parallel = fmt.Sprintf("The %d complete trials; the best is marked.", complete)
	if complete > maxParallel {
		parallel = fmt.Sprintf("The best %d of %d complete trials, and %d of the others; a filter draws up to 600 of those that it lets through.", maxParallel/4, complete, maxParallel-maxParallel/4)
	}
	if hidden := len(f.order) + min(len(f.problem.Objectives), 3) - maxAxes; hidden > 0 {
		parallel += fmt.Sprintf(" The %d least important parameters are left out.", hidden)
	}
	curves = fmt.Sprintf("Of the %d trials that reported on their way; grey ones did not complete.", curved)
	if curved > maxCurves {
		curves = fmt.Sprintf("Of %d trials that reported on their way the best, and some of the others; grey ones did not complete.", curved)
	}
	return parallel, curves
}

func (f *figures) facts() []string {
	s := f.sweep
	facts := []string{"sampler " + s.Sampler}
	if s.Stopper != "" {
		facts = append(facts, "stopper "+s.Stopper)
	}
	facts = append(facts, report.Plural(len(f.params), "parameter"))
	if s.Job.Owner != "" {
		facts = append(facts, "by "+s.Job.Owner)
	}
	if s.Sweep.Started > 0 {
		facts = append(facts, "since "+time.Unix(0, s.Sweep.Started).UTC().Format("2 January 2006, 15:04 UTC"))
	}
	return facts
}

func (f *figures) tiles() []report.Tile {
	s, counts := f.sweep, f.sweep.Sweep.Counts
	var tiles []report.Tile
	if len(f.problem.Objectives) == 1 {
		o := f.problem.Objectives[0]
		if best := f.best(0); best >= 0 {
			tiles = append(tiles, report.Tile{Label: "best " + o.Name, Value: report.Number5(s.History.Values(best)[0]), Note: "trial " + strconv.Itoa(best), Class: "lead"})
		} else {
			tiles = append(tiles, report.Tile{Label: "best " + o.Name, Value: "–", Note: "no trial has completed", Class: "lead"})
		}
	} else {
		tiles = append(tiles, report.Tile{Label: "on the Pareto front", Value: strconv.Itoa(len(f.front)), Note: report.Plural(len(f.problem.Objectives), "objective"), Class: "lead"})
	}
	of := ""
	if s.Sweep.Budget.Trials > 0 {
		of = "of at most " + strconv.FormatInt(s.Sweep.Budget.Trials, 10)
	}
	tiles = append(tiles, report.Tile{Label: "trials", Value: strconv.FormatInt(counts.Total(), 10), Note: of})
	for _, one := range []struct {
		label string
		n     int64
	}{
		{"running", counts.Running},
		{"waiting", counts.Waiting + counts.Paused},
		{"complete", counts.Complete},
		{"stopped early", counts.Stopped},
		{"failed", counts.Failed + counts.Infeasible},
		{"cancelled", counts.Cancelled},
	} {
		if one.n > 0 {
			tiles = append(tiles, report.Tile{Label: one.label, Value: strconv.FormatInt(one.n, 10), Note: share(one.n, counts.Total())})
		}
	}
	if ran := f.ran(); ran > 0 {
		tiles = append(tiles, report.Tile{Label: "time", Value: span(ran)})
	}
	if s.Sweep.Cost > 0 {
		tiles = append(tiles, report.Tile{Label: "cost", Value: axes.Format(s.Sweep.Cost)})
	}
	return tiles
}

func share(n, of int64) string { return fmt.Sprintf("%.0f %%", 100*float64(n)/float64(of)) }

// ran is from the first trial's begin to the last one's end, or until now.
func (f *figures) ran() time.Duration {
	s := f.sweep
	if s.Sweep.Started == 0 {
		return 0
	}
	until := s.Made.UnixNano()
	if s.Job.Ended > 0 {
		until = s.Job.Ended
	}
	return time.Duration(until-s.Sweep.Started) - s.Sweep.PausedIn
}

func span(d time.Duration) string {
	switch {
	case d < time.Minute:
		return strconv.FormatFloat(d.Round(100*time.Millisecond).Seconds(), 'f', -1, 64) + " s"
	case d < time.Hour:
		return fmt.Sprintf("%d m %d s", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %d m", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d d %d h", int(d.Hours())/24, int(d.Hours())%24)
}

func (f *figures) bestCard() *bestTrial {
	best := f.best(0)
	if best < 0 || len(f.problem.Objectives) > 1 {
		return nil
	}
	card := &bestTrial{Number: "number " + strconv.Itoa(best), Command: "clary train --best-of " + f.sweep.Job.Name}
	var notes []string
	for i, v := range f.sweep.History.Limits(best) {
		notes = append(notes, f.problem.Limits[i].Name+" "+report.Number5(v))
	}
	if ran := took(f.sweep.Trials[best], f.sweep.Made); ran > 0 {
		notes = append(notes, "took "+span(ran))
	}
	card.Note = strings.Join(notes, " · ")
	for i, q := range f.params {
		if raw := f.sweep.History.Config(best)[i]; raw == raw {
			card.Parameters = append(card.Parameters, parameter{q.Name, f.value(i, raw)})
		}
	}
	return card
}

// maxFront rows of the front stand beside its plot.
const maxFront = 14

func (f *figures) frontCard() *front {
	if len(f.front) == 0 {
		return nil
	}
	card := &front{Heading: []string{"trial"}}
	for i, o := range f.problem.Objectives {
		card.Heading = append(card.Heading, o.Name)
		for j := i + 1; j < min(len(f.problem.Objectives), 3); j++ {
			card.Plots = append(card.Plots, f.pareto(i, j))
		}
	}
	sorted := sortedBy(f.front, func(number int) float64 { return f.sweep.History.Loss(number, 0) })
	for i := range min(len(sorted), maxFront) {
		number := sorted[i*len(sorted)/min(len(sorted), maxFront)]
		row := []string{strconv.Itoa(number)}
		for _, v := range f.sweep.History.Values(number) {
			row = append(row, report.Number5(v))
		}
		card.Rows = append(card.Rows, row)
	}
	return card
}

// value is what a number of a configuration stands for.
func (f *figures) value(param int, raw float64) string {
	if raw != raw {
		return "–"
	}
	if names := axes.Choices(f.params[param]); names != nil {
		return names[int(raw)]
	}
	return report.Number5(raw)
}

// maxRows stand in the table before the page's script has looked at it.
const maxRows = 25

func (f *figures) table(p *page) {
	p.Heading = []heading{{"number", "trial"}, {"state", "state"}}
	for i, o := range f.problem.Objectives {
		p.Heading = append(p.Heading, heading{"v" + strconv.Itoa(i), o.Name})
	}
	for i, l := range f.problem.Limits {
		p.Heading = append(p.Heading, heading{"v" + strconv.Itoa(len(f.problem.Objectives)+i), l.Name})
	}
	for i, q := range f.params {
		p.Heading = append(p.Heading, heading{"p" + strconv.Itoa(i), q.Name})
	}
	p.Heading = append(p.Heading, heading{"seconds", "took"})
	numbers := sortedBy(f.some(0, len(f.sweep.Trials)+1), func(number int) float64 { return f.sweep.History.Loss(number, 0) })
	for _, number := range numbers[:min(len(numbers), maxRows)] {
		row := []string{strconv.Itoa(number), string(f.sweep.Trials[number].State)}
		for _, v := range f.sweep.History.Values(number) {
			row = append(row, report.Number5(v))
		}
		for _, v := range f.sweep.History.Limits(number) {
			row = append(row, report.Number5(v))
		}
		for i, raw := range f.sweep.History.Config(number) {
			row = append(row, f.value(i, raw))
		}
		p.Rows = append(p.Rows, append(row, span(took(f.sweep.Trials[number], f.sweep.Made))))
	}
	p.TableNote = fmt.Sprintf("the best %d of %d", len(p.Rows), len(f.sweep.Trials))
}
