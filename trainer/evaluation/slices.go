package evaluation

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/clary-ml/clary/internal/fault"
)

const (
	maxSlices = 20 // of one column; those with the fewest rows are put together
	quarters  = 4  // ranges of a column of many numbers
)

// Slice says how good predictions are on the rows that have one value of a column, or a number
// in one range.
type Slice struct {
	Column string `json:"column"`
	Value  string `json:"value"`
	Rows   int    `json:"rows"`
	// Metrics are those of the rows by name: accuracy, log_loss and auc of classes (auc is left
	// out where all rows are of one class), rmse, mae and bias of numbers.
	Metrics map[string]float64 `json:"metrics"`
	// Error is the standard error of the accuracy, as if two more rows were right and two wrong, so
	// that few rows are not taken for certain (Agresti and Coull 1998); or that of the bias.
	Error float64 `json:"standard_error"`
}

// Part is a column to judge by, with the text that each row has in it.
type Part struct {
	Column string
	Texts  []string
}

// Group is some rows under one name.
type Group struct {
	Value string
	Rows  []int
}

// Groups are the rows by value, those with most rows first. Of more than 20 values that are all
// numbers, ranges that hold a quarter of the rows each; of other ones the rarest together.
func (p Part) Groups() []Group {
	at := map[string]int{}
	var out []Group
	for row, text := range p.Texts {
		i, known := at[text]
		if !known {
			i = len(out)
			at[text] = i
			out = append(out, Group{Value: text})
		}
		out[i].Rows = append(out[i].Rows, row)
	}
	if len(out) > maxSlices {
		if ranges := p.ranges(); ranges != nil {
			return ranges
		}
	}
	slices.SortStableFunc(out, func(a, b Group) int {
		return cmp.Or(cmp.Compare(len(b.Rows), len(a.Rows)), cmp.Compare(a.Value, b.Value))
	})
	if len(out) > maxSlices {
		rest := Group{Value: fmt.Sprintf("(%d others)", len(out)-maxSlices+1)}
		for _, g := range out[maxSlices-1:] {
			rest.Rows = append(rest.Rows, g.Rows...)
		}
		slices.Sort(rest.Rows)
		out = append(out[:maxSlices-1], rest)
	}
	for i := range out {
		if out[i].Value == "" {
			out[i].Value = "(empty)"
		}
	}
	return out
}

// ranges are quarters of the rows by number, and those that have none; nil if some text is
// neither empty nor a number.
func (p Part) ranges() []Group {
	numbers, sorted := make([]float64, len(p.Texts)), make([]float64, 0, len(p.Texts))
	for row, text := range p.Texts {
		if text == "" {
			numbers[row] = math.NaN()
			continue
		}
		v, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(v) {
			return nil
		}
		numbers[row] = v
		sorted = append(sorted, v)
	}
	slices.Sort(sorted)
	var bounds []float64
	for q := 1; q <= quarters; q++ {
		if b := sorted[q*len(sorted)/quarters-1]; len(bounds) == 0 || b > bounds[len(bounds)-1] {
			bounds = append(bounds, b)
		}
	}
	out := make([]Group, len(bounds)+1)
	for i, b := range bounds {
		out[i].Value = "to " + short(b)
		if i > 0 {
			out[i].Value = "over " + short(bounds[i-1]) + " to " + short(b)
		}
	}
	out[len(bounds)].Value = "(empty)"
	for row, v := range numbers {
		i := len(bounds)
		if !math.IsNaN(v) {
			i, _ = slices.BinarySearch(bounds, v)
		}
		out[i].Rows = append(out[i].Rows, row)
	}
	return slices.DeleteFunc(out, func(g Group) bool { return len(g.Rows) == 0 })
}

func short(v float64) string { return strconv.FormatFloat(v, 'g', 6, 64) }

func (p Part) check(rows int) error {
	if len(p.Texts) != rows {
		return fault.New(fault.Internal, "column %q has %d rows of %d", p.Column, len(p.Texts), rows)
	}
	return nil
}

// SliceClasses judges probabilities, as for Classify, on the rows of each value of a column.
func SliceClasses(part Part, probabilities []float64, right []int, classes []string) ([]Slice, error) {
	if err := part.check(len(right)); err != nil {
		return nil, err
	}
	k := len(classes)
	var out []Slice
	for _, g := range part.Groups() {
		var p []float64
		var r []int
		own := map[int]bool{}
		for _, row := range g.Rows {
			p, r = append(p, probabilities[row*k:(row+1)*k]...), append(r, right[row])
			own[right[row]] = true
		}
		c, err := Classify(p, r, classes)
		if err != nil {
			return nil, err
		}
		n := float64(c.Rows) + 4
		share := (c.Accuracy*float64(c.Rows) + 2) / n
		one := Slice{
			Column: part.Column, Value: g.Value, Rows: c.Rows, Error: math.Sqrt(share * (1 - share) / n),
			Metrics: map[string]float64{"accuracy": c.Accuracy, "log_loss": c.LogLoss},
		}
		if len(own) > 1 {
			one.Metrics["auc"] = c.AUC
		}
		out = append(out, one)
	}
	return out, nil
}

// SliceNumbers judges predictions, as for Regress, on the rows of each value of a column.
func SliceNumbers(part Part, predicted, truth []float64) ([]Slice, error) {
	if err := part.check(len(truth)); err != nil {
		return nil, err
	}
	var out []Slice
	for _, g := range part.Groups() {
		var p, t []float64
		for _, row := range g.Rows {
			p, t = append(p, predicted[row]), append(t, truth[row])
		}
		r, err := Regress(p, t)
		if err != nil {
			return nil, err
		}
		out = append(out, Slice{
			Column: part.Column, Value: g.Value, Rows: r.Rows, Error: math.Sqrt(max(r.RMSE*r.RMSE-r.Bias*r.Bias, 0) / float64(r.Rows)),
			Metrics: map[string]float64{"rmse": r.RMSE, "mae": r.MAE, "bias": r.Bias},
		})
	}
	return out, nil
}
