package evaluation

import (
	"fmt"
	"html/template"
	"strings"

	"github.com/clary-ml/clary/console/axes"
	"github.com/clary-ml/clary/console/report"
	"github.com/clary-ml/clary/trainer/evaluation"
	"github.com/clary-ml/clary/tuner/space"
)

// Sizes of the plots, square ones and those beside each other.
const (
	side   = 380
	height = 340
)

// along is an axis from low to high.
func along(low, high, from, to float64) axes.Axis {
	return axes.Axis{Scale: space.Linear, Low: low, High: high, From: from, To: to, Ticks: axes.Ticks(space.Linear, low, high, false)}
}

// unit are the axes of two shares.
func unit() (x, y axes.Axis) {
	return along(0, 1, report.Left, side-report.Right), along(0, 1, side-report.Bottom, report.Top)
}

func line(points []evaluation.Point, x, y axes.Axis) string {
	xs, ys := make([]float64, len(points)), make([]float64, len(points))
	for i, p := range points {
		xs[i], ys[i] = x.Place(p.X), y.Place(p.Y)
	}
	return report.Polyline(xs, ys)
}

// curve is a class of a model that is drawn.
type curve struct {
	key
	class evaluation.Class
}

// pair are the first model and the one that it is compared with.
func (f Found) pair() []key {
	keys := []key{{"first", f.Models[0].Name}}
	if len(f.Models) > 1 {
		keys = append(keys, key{"second", f.Models[1].Name})
	}
	return keys
}

// chosen are the curves: of two classes the second one of each model, of more those of the first
// model that have most rows.
func (f Found) chosen() (curves []curve, note string) {
	first := f.Models[0].Classification
	if len(first.Classes) == 2 {
		for i, k := range f.pair() {
			curves = append(curves, curve{k, f.Models[i].Classification.Classes[1]})
		}
		return curves, "class " + first.Classes[1].Name + " against " + first.Classes[0].Name
	}
	for n, i := range largest(first, mostCurves) {
		curves = append(curves, curve{key{fmt.Sprintf("s%d", n), first.Classes[i].Name}, first.Classes[i]})
	}
	note = "each class against the rest"
	if len(first.Classes) > mostCurves {
		note = fmt.Sprintf("each class against the rest, the %d with most rows", mostCurves)
	}
	return curves, note
}

// curves draws ROC and precision over recall.
func (f Found) curves() (roc, pr template.HTML, legend []key, note string) {
	curves, note := f.chosen()
	x, y := unit()
	var first, second report.Drawing
	first.Begin(side, side, "ROC curve")
	first.Frame(x, y, "others that are taken for the class", "rows of the class that are found")
	first.Line("chance", x.From, y.From, x.To, y.To)
	second.Begin(side, side, "precision over recall")
	second.Frame(x, y, "recall: rows of the class that are found", "precision: of those taken for it")
	for _, c := range curves {
		legend = append(legend, c.key)
		first.Path("curve "+c.Class, line(c.class.ROC, x, y))
		second.Path("curve "+c.Class, line(c.class.PR, x, y))
	}
	return first.End(), second.End(), legend, note
}

// reliability draws how often the class was right at each probability, with the number of rows
// at it below.
func (f Found) reliability() template.HTML {
	curves, _ := f.chosen()
	x, y := unit()
	var d report.Drawing
	d.Begin(side, side, "calibration")
	d.Frame(x, y, "probability that the model gives", "share that is of the class")
	d.Line("chance", x.From, y.From, x.To, y.To)
	most := 1
	for _, b := range curves[0].class.Calibration {
		most = max(most, b.Rows)
	}
	if len(f.Models[0].Classification.Classes) == 2 {
		for _, b := range curves[0].class.Calibration {
			height := 60 * float64(b.Rows) / float64(most)
			d.Bar("track", x.Place(b.Predicted)-9, y.From-height, 18, height, report.Plural(b.Rows, "row"))
		}
	}
	for _, c := range curves {
		var points []evaluation.Point
		var dots strings.Builder
		for _, b := range c.class.Calibration {
			points = append(points, evaluation.Point{X: b.Predicted, Y: b.Observed})
			report.Dot(&dots, x.Place(b.Predicted), y.Place(b.Observed))
		}
		d.Path("curve "+c.Class, line(points, x, y))
		d.Path("dot "+c.Class, dots.String())
	}
	return d.End()
}

// extent is the range of both coordinates of the models' samples.
func (f Found) extent() (truths, predicted, residuals [2]float64) {
	begun := false
	grow := func(at *[2]float64, v float64) {
		if !begun {
			*at = [2]float64{v, v}
		}
		at[0], at[1] = min(at[0], v), max(at[1], v)
	}
	for _, m := range f.Models {
		for _, p := range m.Regression.Sample {
			grow(&truths, p.X)
			grow(&predicted, p.Y)
			grow(&residuals, p.Y-p.X)
			begun = true
		}
	}
	for _, at := range []*[2]float64{&truths, &predicted, &residuals} {
		if at[0] == at[1] {
			at[0], at[1] = at[0]-1, at[1]+1
		}
	}
	return truths, predicted, residuals
}

// scatter draws some rows of each model.
func (f Found) scatter(d *report.Drawing, x, y axes.Axis, at func(evaluation.Point) float64) {
	for i, k := range f.pair() {
		var dots strings.Builder
		for _, p := range f.Models[i].Regression.Sample {
			report.Dot(&dots, x.Place(p.X), y.Place(at(p)))
		}
		d.Path("dot "+k.Class, dots.String())
	}
}

// truths draws predictions over what is right.
func (f Found) truths() template.HTML {
	truths, predicted, _ := f.extent()
	low, high := min(truths[0], predicted[0]), max(truths[1], predicted[1])
	x, y := along(low, high, report.Left, report.Half-report.Right), along(low, high, height-report.Bottom, report.Top)
	var d report.Drawing
	d.Begin(report.Half, height, "predictions over what is right")
	d.Frame(x, y, "what is right", "predicted")
	d.Line("chance", x.From, y.From, x.To, y.To)
	f.scatter(&d, x, y, func(p evaluation.Point) float64 { return p.Y })
	return d.End()
}

// residuals draws by how much predictions are off.
func (f Found) residuals() template.HTML {
	truths, _, residuals := f.extent()
	x, y := along(truths[0], truths[1], report.Left, report.Half-report.Right), along(min(residuals[0], 0), max(residuals[1], 0), height-report.Bottom, report.Top)
	var d report.Drawing
	d.Begin(report.Half, height, "residuals")
	d.Frame(x, y, "what is right", "predicted less what is right")
	d.Line("chance", x.From, y.Place(0), x.To, y.Place(0))
	f.scatter(&d, x, y, func(p evaluation.Point) float64 { return p.Y - p.X })
	return d.End()
}
