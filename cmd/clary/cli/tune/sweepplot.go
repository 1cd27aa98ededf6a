package tune

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/console/axes"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/space"
)

// trials is all that is known of a sweep, for its plots.
type trials struct {
	history    *tuner.History
	rows       []cluster.Trial // by number
	importance []importanceJSON
	params     []space.Parameter // in the order of a configuration
	order      []int             // parameters that vary, the most important first
}

func newTrials(h *tuner.History, rows []cluster.Trial, importance []importanceJSON) *trials {
	t := &trials{history: h, rows: rows, importance: importance}
	s := h.Problem().Space
	for i, name := range s.Names() {
		spec := s.Spec().Parameters
		q := spec[slices.IndexFunc(spec, func(q space.Parameter) bool { return q.Name == name })]
		t.params = append(t.params, q)
		if a := axes.OfParameter(q, 0, 1); a.Low < a.High {
			t.order = append(t.order, i)
		}
	}
	share := map[string]float64{}
	if len(importance) > 0 {
		for _, one := range importance[0].Shares {
			share[strings.Join(one.Parameters, " ")] = one.Share
		}
	}
	slices.SortStableFunc(t.order, func(a, b int) int { return cmp.Compare(share[t.params[b].Name], share[t.params[a].Name]) })
	return t
}

// plotNames in the order in which they are drawn, with how each is.
var plotNames = []string{"history", "importance", "slices", "parallel", "pareto", "curves"}

// plot draws one kind of plot, of each objective if that makes a difference.
func (t *trials) plot(out io.Writer, name string, width int, color bool) error {
	h := t.history
	if _, any := h.Best(); !any && name != "curves" {
		return fault.New(fault.Conflict, "no trial has completed yet: there is nothing to plot")
	}
	var lines []string
	objectives := len(h.Problem().Objectives)
	switch name {
	case "history":
		for i := range objectives {
			lines = append(lines, t.historyPlot(i, width)...)
		}
	case "importance":
		lines = append(t.importancePlot(width), "")
	case "slices":
		for i := range objectives {
			lines = append(lines, t.slicesPlot(i, width)...)
		}
	case "parallel":
		lines = append(t.parallelPlot(width), "")
	case "pareto":
		if objectives < 2 {
			return fault.New(fault.Conflict, "there is one objective: a Pareto front takes two; see --plot history")
		}
		lines = t.paretoPlot(width)
	case "curves":
		text := t.curvesPlot(width, color)
		if text == "" {
			return fault.New(fault.Conflict, "no trial has reported on its way: there is no curve to plot")
		}
		lines = []string{strings.TrimRight(text, "\n")}
	}
	_, err := fmt.Fprintln(out, strings.Join(lines, "\n"))
	return err
}

// values are those of an objective of all complete trials.
func (t *trials) values(objective int) []float64 {
	var values []float64
	for number := range t.history.Len() {
		if t.history.State(number) == tuner.Complete {
			values = append(values, t.history.Values(number)[objective])
		}
	}
	return values
}

func (t *trials) valueAxis(objective int) axes.Axis {
	return axes.OfValues(t.values(objective), t.history.Problem().Objectives[objective].Direction, 0, 1)
}

const plotLines = 14

// historyPlot draws each trial's value in the order of their end, and the best so far.
func (t *trials) historyPlot(objective, width int) []string {
	h := t.history
	ended := h.Ended()
	best, xs, ys := t.bests(objective)
	title := fmt.Sprintf("%s of each trial in the order of their end, and the best so far: %s (trial %d)", h.Problem().Objectives[objective].Name, digits5(h.Values(best)[objective]), best)
	c := shell.NewChart(title, axes.OfCounts(1, float64(len(ended)), 0, 1), t.valueAxis(objective), min(width, 120), plotLines)
	for i, number := range ended {
		if h.State(int(number)) == tuner.Complete {
			c.Dot(float64(i+1), h.Values(int(number))[objective])
		}
	}
	c.Stairs(append(xs, float64(len(ended))), append(ys, ys[len(ys)-1]))
	c.Mark(xs[len(xs)-1], ys[len(ys)-1], '◆')
	return append(c.Lines(), "")
}

// bests are the trials that were the best when they ended: when, and their values.
func (t *trials) bests(objective int) (best int, at, values []float64) {
	h := t.history
	loss := math.Inf(1)
	best = -1
	for _, strict := range []bool{true, false} { // if none is within the limits, others will do
		for i, number := range h.Ended() {
			n := int(number)
			if h.State(n) == tuner.Complete && h.Loss(n, objective) < loss && (h.Excess(n) <= 0 || !strict) {
				best, loss = n, h.Loss(n, objective)
				at, values = append(at, float64(i+1)), append(values, h.Values(n)[objective])
			}
		}
		if best >= 0 {
			break
		}
	}
	return best, at, values
}

func (t *trials) importancePlot(width int) []string {
	var lines []string
	for _, one := range t.importance {
		lines = append(lines, fmt.Sprintf("importance for %s (%s)", one.Objective, one.Method))
		lines = append(lines, importanceBars(one, width)...)
	}
	if lines == nil {
		lines = []string{"there are too few complete trials to tell how important the parameters are"}
	}
	return lines
}

func importanceBars(one importanceJSON, width int) []string {
	var lines []string
	widest, most := 4, 1e-9
	for _, share := range one.Shares {
		widest, most = max(widest, len([]rune(shareName(share)))), max(most, share.Share)
	}
	widest = min(widest, 30)
	room := min(max(width-widest-18, 10), 50)
	rest := 0
	for _, share := range one.Shares {
		if share.Share < leastShare {
			rest++
			continue
		}
		full := int(math.Round(float64(room) * max(share.Share, 0) / most))
		lines = append(lines, fmt.Sprintf("  %-*s %s%s %3.0f %% ± %.0f", widest, shell.Cut(shareName(share), widest), strings.Repeat("█", full), strings.Repeat("░", room-full), 100*share.Share, 100*share.Deviation))
	}
	if rest > 0 {
		lines = append(lines, fmt.Sprintf("  %d more explain less than 1 %% each", rest))
	}
	return lines
}

func shareName(share shareJSON) string { return strings.Join(share.Parameters, " × ") }

// sliceWidth is how wide the plot of one parameter is.
const sliceWidth = 46

func (t *trials) slicesPlot(objective, width int) []string {
	h, o := t.history, t.history.Problem().Objectives[objective]
	best, _, _ := t.bests(objective)
	var plots [][]string
	for _, param := range t.order {
		q := t.params[param]
		c := shell.NewChart(fmt.Sprintf("%s by %s", o.Name, q.Name), axes.OfParameter(q, 0, 1), t.valueAxis(objective), sliceWidth, 12)
		for number := range h.Len() {
			if h.State(number) == tuner.Complete {
				c.Dot(h.Config(number)[param], h.Values(number)[objective])
			}
		}
		c.Mark(h.Config(best)[param], h.Values(best)[objective], '◆')
		plots = append(plots, c.Lines())
	}
	return append(shell.Beside(plots, sliceWidth, width), "")
}

func (t *trials) paretoPlot(width int) []string {
	h, objectives := t.history, t.history.Problem().Objectives
	front := h.Front()
	var lines []string
	for i := range objectives {
		for j := i + 1; j < len(objectives); j++ {
			title := fmt.Sprintf("%s (upwards) by %s: ◆ %d trials that no other beats in every objective", direction(objectives[j]), direction(objectives[i]), len(front))
			c := shell.NewChart(title, t.valueAxis(i), t.valueAxis(j), min(width, 100), 18)
			for number := range h.Len() {
				if h.State(number) == tuner.Complete {
					c.Dot(h.Values(number)[i], h.Values(number)[j])
				}
			}
			for _, number := range front {
				c.Mark(h.Values(number)[i], h.Values(number)[j], '◆')
			}
			lines = append(lines, append(c.Lines(), "")...)
		}
	}
	return lines
}

func direction(o tuner.Objective) string {
	if o.Direction == tuner.Maximize {
		return "max:" + o.Name
	}
	return "min:" + o.Name
}

// shownParallel is how many trials are drawn over all axes, each by its rank.
const shownParallel = 9

// parallelPlot draws the best trials as lines over all parameters and objectives.
func (t *trials) parallelPlot(width int) []string {
	h, objectives := t.history, t.history.Problem().Objectives
	ranked := t.ranked()
	ranked = ranked[:min(len(ranked), shownParallel)]
	const space = 12
	params := t.order[:min(len(t.order), max((width-shell.Margin)/space-len(objectives), 1))]
	columns := len(params) + len(objectives)
	const height = 15
	c := shell.NewChart("", axes.Axis{High: 1}, axes.Axis{High: 1}, shell.Margin+2+space*(columns-1)+1, height+3)
	places := make([]axes.Axis, columns)
	value := func(number, column int) float64 {
		if column < len(params) {
			return h.Config(number)[params[column]]
		}
		return h.Values(number)[column-len(params)]
	}
	names := make([]string, columns)
	for i := range places {
		if i < len(params) {
			places[i], names[i] = axes.OfParameter(t.params[params[i]], height-1, 0), t.params[params[i]].Name
			continue
		}
		places[i], names[i] = t.valueAxis(i-len(params)), objectives[i-len(params)].Name
		places[i].From, places[i].To = height-1, 0
	}
	for i := range columns {
		c.Stroke(i*space, i*space, 0, 0, '│')
		for line := range height {
			c.Cells[line][i*space] = '│'
		}
	}
	for rank := len(ranked) - 1; rank >= 0; rank-- {
		last := -1
		for i, place := range places {
			v := value(ranked[rank], i)
			if math.IsNaN(v) { // it lacks the parameter: the line goes on behind it
				continue
			}
			sign := rune('1' + rank)
			if last >= 0 {
				c.Stroke(last*space+1, i*space-1, places[last].Place(value(ranked[rank], last)), place.Place(v), sign)
			}
			c.Cells[int(math.Round(place.Place(v)))][i*space] = sign
			last = i
		}
	}
	lines := []string{fmt.Sprintf("the best %d trials by their rank, 1 to %d: %s", len(ranked), len(ranked), numbersText(ranked))}
	lines = append(lines, centred(names, space), centred(ends(places, func(a axes.Axis) float64 { return a.High }), space))
	for _, cells := range c.Cells {
		lines = append(lines, strings.TrimRight(strings.Repeat(" ", space/2)+string(cells), " "))
	}
	return append(lines, centred(ends(places, func(a axes.Axis) float64 { return a.Low }), space))
}

// ends are the texts of one end of each axis; of choices the last or the first.
func ends(places []axes.Axis, end func(axes.Axis) float64) []string {
	texts := make([]string, len(places))
	for i, a := range places {
		texts[i] = axes.Format(end(a))
		if n := len(a.Ticks); n > 0 && a.Low == -0.5 { // places of choices
			texts[i] = a.Ticks[0].Text
			if end(a) == a.High {
				texts[i] = a.Ticks[n-1].Text
			}
		}
	}
	return texts
}

func centred(texts []string, space int) string {
	var b strings.Builder
	for _, text := range texts {
		text = shell.Cut(text, space-1)
		before := (space + 1 - len([]rune(text))) / 2
		fmt.Fprintf(&b, "%*s%s%*s", before, "", text, space-before-len([]rune(text)), "")
	}
	return strings.TrimRight(b.String(), " ")
}

func numbersText(numbers []int) string {
	texts := make([]string, len(numbers))
	for i, number := range numbers {
		texts[i] = "#" + strconv.Itoa(number)
	}
	return strings.Join(texts, " ")
}

// ranked are the complete trials, the best first.
func (t *trials) ranked() []int {
	var numbers []int
	for number := range t.history.Len() {
		if t.history.State(number) == tuner.Complete {
			numbers = append(numbers, number)
		}
	}
	slices.SortStableFunc(numbers, func(a, b int) int {
		return cmp.Or(cmp.Compare(t.history.Excess(a), t.history.Excess(b)), cmp.Compare(t.history.Loss(a, 0), t.history.Loss(b, 0)))
	})
	return numbers
}

// curvesPlot draws the first objective on the way of the best trials, or of the last ones if
// none has completed.
func (t *trials) curvesPlot(width int, color bool) string {
	numbers, which := t.ranked(), "the best"
	if len(numbers) == 0 {
		which = "the last"
		for number := range t.rows {
			numbers = append([]int{number}, numbers...)
		}
	}
	over := shell.ByEpoch
	if strings.HasPrefix(t.history.Problem().Fidelity.Name, "step") {
		over = shell.ByStep
	}
	var best []cluster.Series
	var shown []int
	for _, number := range numbers {
		curve := t.rows[number].Curve
		if len(curve) < 2 || len(best) == shell.PlotLegends {
			continue
		}
		one := cluster.Series{Name: t.history.Problem().Objectives[0].Name, Task: fmt.Sprintf("trial %d", number), Min: math.Inf(1), Max: math.Inf(-1)}
		for _, p := range curve {
			one.Points = append(one.Points, cluster.Point{Epoch: int32(p.Step), Step: int64(p.Step), Value: p.Value})
			one.Min, one.Max = min(one.Min, p.Value), max(one.Max, p.Value)
		}
		best, shown = append(best, one), append(shown, number)
	}
	if best == nil {
		return ""
	}
	_, lines, _ := strings.Cut(shell.Plot(best, over, width, color), "\n")
	return fmt.Sprintf("%s over %s of %s: %s\n%s", best[0].Name, over, which, numbersText(shown), lines)
}
