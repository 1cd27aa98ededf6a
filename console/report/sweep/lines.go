package sweep

import (
	"cmp"
	"encoding/json"
	"html/template"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/console/axes"
	"github.com/clary-ml/clary/console/report"
)

// Bounds on what is drawn of very many trials: the best, and some of the rest.
const (
	maxParallel = 400 // lines of parallel coordinates
	maxAxes     = 14
	maxCurves   = 300
	maxCurve    = 100 // points of one curve
)

// vertical is one axis of the parallel coordinates.
type vertical struct {
	Column string  `json:"column"`
	X      float64 `json:"x"`
	axes.Axis

	name    string
	lacking bool // some trials do not have it
	value   func(number int) float64
}

// noValue is where lines of trials pass that lack the parameter, below the sides.
const noValue = 20

// parallel draws each complete trial as a line over all parameters and objectives.
func (f *figures) parallel(objective int) template.HTML {
	const width, height, under = report.Wide, 390, 34
	sides := f.verticals(height-under, report.Top+16)
	for i := range sides {
		sides[i].X = 60 + float64(i)*(width-140)/float64(max(len(sides)-1, 1))
	}
	var d report.Drawing
	d.Begin(width, height, "parallel coordinates", "axes", asJSON(sides), "shades", strconv.Itoa(objective))
	lines := make([]strings.Builder, shades)
	for _, number := range f.some(objective, maxParallel) {
		shade := f.shade[objective][number]
		for i, a := range sides {
			command := "L"
			if i == 0 {
				command = "M"
			}
			lines[shade].WriteString(command + report.Px(a.X) + " " + report.Px(a.place(number)))
		}
	}
	d.Open("lines")
	for shade := range lines {
		d.Path(shadeClass(shade), lines[shade].String())
	}
	d.Close()
	d.Path("bestline", f.bestLine(sides, objective))
	room, stagger := int((width-140)/7/float64(max(len(sides)-1, 1))), 0
	if slices.ContainsFunc(sides, func(a vertical) bool { return len([]rune(a.name)) > room }) {
		room, stagger = 2*room, 1
	}
	d.Open("frame")
	for i, a := range sides {
		if a.lacking {
			d.Text("tick y halo", a.X-7, a.From+noValue+3.5, "off")
		}
		d.Line("axis", a.X, a.From, a.X, a.To)
		d.Clipped("label x", a.X, a.To-18-15*float64(i%2*stagger), a.name, room)
		for _, t := range axes.Thin(a.Ticks, 9) {
			d.Line("axis", a.X-4, a.Place(t.At), a.X, a.Place(t.At))
			d.Text("tick y halo", a.X-7, a.Place(t.At)+3.5, t.Text)
		}
	}
	d.Close()
	return d.End()
}

func (a vertical) place(number int) float64 {
	v := a.value(number)
	if math.IsNaN(v) {
		return a.From + noValue
	}
	return a.Place(v)
}

func (f *figures) bestLine(sides []vertical, objective int) string {
	best := f.best(objective)
	if best < 0 {
		return ""
	}
	var path strings.Builder
	for i, a := range sides {
		command := "L"
		if i == 0 {
			command = "M"
		}
		path.WriteString(command + report.Px(a.X) + " " + report.Px(a.place(best)))
	}
	return path.String()
}

// verticals are the parameters that vary, the most important ones if there are many, and
// the objectives.
func (f *figures) verticals(from, to float64) []vertical {
	h := f.sweep.History
	var sides []vertical
	for _, param := range f.order[:min(len(f.order), maxAxes-min(len(f.problem.Objectives), 3))] {
		q := f.params[param]
		sides = append(sides, vertical{
			Column: "p" + strconv.Itoa(param), Axis: axes.OfParameter(q, from, to), name: q.Name, lacking: q.When != nil,
			value: func(number int) float64 { return spread(q, number, h.Config(number)[param]) },
		})
	}
	for i, o := range f.problem.Objectives[:min(len(f.problem.Objectives), 3)] {
		sides = append(sides, vertical{
			Column: "v" + strconv.Itoa(i), Axis: axes.OfValues(f.complete(i), o.Direction, from, to), name: o.Name,
			value: func(number int) float64 { return h.Values(number)[i] },
		})
	}
	return sides
}

// some are trials within the limits, the worst first: all, or a quarter of them the best and
// the others evenly from the rest.
func (f *figures) some(objective, most int) []int {
	var numbers []int
	for number, shade := range f.shade[objective] {
		if shade >= 0 {
			numbers = append(numbers, number)
		}
	}
	numbers = sortedBy(numbers, func(number int) float64 { return -f.sweep.History.Loss(number, objective) })
	return sample(numbers, most)
}

// sample keeps the last ones, a quarter of what is wanted, and evenly of those before.
func sample(numbers []int, most int) []int {
	if len(numbers) <= most {
		return numbers
	}
	rest, best := numbers[:len(numbers)-most/4], numbers[len(numbers)-most/4:]
	var kept []int
	for i := range most - most/4 {
		kept = append(kept, rest[i*len(rest)/(most-most/4)])
	}
	return append(kept, best...)
}

func sortedBy(numbers []int, key func(int) float64) []int {
	sorted := slices.Clone(numbers)
	slices.SortStableFunc(sorted, func(a, b int) int { return cmp.Compare(key(a), key(b)) })
	return sorted
}

// curves draws the first objective on the way; "" if no trial reported any.
func (f *figures) curves() template.HTML {
	const width, height = report.Wide, 340
	h := f.sweep.History
	var complete, others []int
	var ends []float64
	first, last, whole := math.Inf(1), 0.0, true
	for number := range h.Len() {
		curve := f.sweep.Trials[number].Curve
		if len(curve) < 2 {
			continue
		}
		first, last = min(first, curve[0].Step), max(last, curve[len(curve)-1].Step)
		for _, p := range curve {
			whole = whole && p.Step == math.Trunc(p.Step)
		}
		for _, p := range curve[len(curve)/4:] { // where most begin is seldom of interest
			ends = append(ends, p.Value)
		}
		if f.shade[0][number] >= 0 {
			complete = append(complete, number)
		} else {
			others = append(others, number)
		}
	}
	if len(ends) == 0 {
		return ""
	}
	o := f.problem.Objectives[0]
	x := axes.Axis{Scale: "linear", Low: first, High: max(last, first+1e-9), From: report.Left, To: width - report.Right}
	x.Ticks = axes.Ticks(x.Scale, x.Low, x.High, whole)
	y := axes.OfValues(ends, o.Direction, height-report.Bottom, report.Top)
	var d report.Drawing
	d.Begin(width, height, "learning curves of "+o.Name)
	name := f.problem.Fidelity.Name
	if name == "" {
		name = "epoch"
	}
	d.Frame(x, y, name, o.Name)
	d.Open("curves")
	var stopped strings.Builder
	for _, number := range sample(others, maxCurves/2) {
		curve(&stopped, f.sweep.Trials[number].Curve, x, y)
	}
	d.Path("stopped", stopped.String())
	complete = sample(sortedBy(complete, func(number int) float64 { return -h.Loss(number, 0) }), maxCurves/2)
	lines := make([]strings.Builder, shades)
	for _, number := range complete {
		curve(&lines[f.shade[0][number]], f.sweep.Trials[number].Curve, x, y)
	}
	for shade := range lines {
		d.Path(shadeClass(shade), lines[shade].String())
	}
	d.Close()
	if best := f.best(0); best >= 0 {
		var line strings.Builder
		curve(&line, f.sweep.Trials[best].Curve, x, y)
		d.Path("bestline", line.String())
	}
	return d.End()
}

func curve(b *strings.Builder, points []cluster.CurvePoint, x, y axes.Axis) {
	for i, every := 0, max(len(points)/maxCurve, 1); i < len(points); i++ {
		if i%every != 0 && i != len(points)-1 {
			continue
		}
		command := "L"
		if i == 0 {
			command = "M"
		}
		b.WriteString(command + report.Px(x.Place(points[i].Step)) + " " + report.Px(y.Place(points[i].Value)))
	}
}

func asJSON(v any) string {
	text, err := json.Marshal(v)
	if err != nil { // no figure of an axis is infinite
		panic(err)
	}
	return string(text)
}

// shadeClass is the class of a shade.
func shadeClass(shade int) string { return "s" + strconv.Itoa(shade) }
