package inference

import (
	"math"
	"strconv"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/checkpoint"
	"github.com/clary-ml/clary/trainer/network"
	"github.com/clary-ml/clary/trainer/prepare"
	"github.com/clary-ml/clary/trainer/spec"
	"github.com/clary-ml/clary/trainer/table"
)

// Model is a stored model, ready to answer rows. Any number of goroutines may use it at once.
// It computes without a graph; its answers are those of the graph but for the last bits.
type Model struct {
	checkpoint.Model
	forward *network.Forward
	classes []string
}

// Open loads a model that was trained here. A transform that is not its own is refused.
func Open(dir string, b network.BLAS) (*Model, error) {
	stored, err := checkpoint.LoadModel(dir)
	if err != nil {
		return nil, err
	}
	m := &Model{Model: stored, classes: classNames(stored.Plan, stored.Data.Classes)}
	m.forward, err = network.NewForward(stored.Plan, stored.Weights, b)
	return m, err
}

// classNames are the names of the classes, which are numbers where there are no words.
func classNames(plan spec.Plan, names []string) []string {
	if plan.Loss == spec.MeanSquaredError || len(names) > 0 {
		return names
	}
	for i := range max(plan.Outputs, 2) {
		names = append(names, strconv.Itoa(i))
	}
	return names
}

// Learned is the transform that raw rows go through, or nil.
func (m *Model) Learned() *prepare.Transform {
	if m.Manifest.Transform == nil {
		return nil
	}
	return m.Manifest.Transform.Transform
}

// Width is how many numbers a row has for the network.
func (m *Model) Width() int { return spec.Volume(m.Plan.Input) }

// Classes are the names of the classes; a regression has none.
func (m *Model) Classes() []string { return m.classes }

// Scale is what each number is divided by before the network sees it.
func (m *Model) Scale() float32 {
	if m.Data.Scale == 0 {
		return 1
	}
	return float32(m.Data.Scale)
}

// AppendRows puts raw rows through the transform and appends them, row by row, as the network
// takes them. The batch is changed. A cell that is still missing, or no number that the network
// can take, is refused with its row, counted from 1, and column.
func (m *Model) AppendRows(features []float32, b *table.Batch) ([]float32, error) {
	t := m.Learned()
	if t == nil {
		return features, fault.New(fault.Internal, "the model has no transform for raw rows")
	}
	if err := t.Apply(b); err != nil {
		return features, err
	}
	return m.appendPrepared(features, b)
}

// appendPrepared is AppendRows of rows that went through the transform before.
func (m *Model) appendPrepared(features []float32, b *table.Batch) ([]float32, error) {
	columns, at, scale := m.Learned().Output, len(features), 1/m.Scale()
	features = append(features, make([]float32, b.Rows*len(columns))...)
	for i, name := range columns {
		c := b.Column(name)
		if c == nil || c.Kind != table.Number {
			return features[:at], fault.New(fault.Invalid, "column %q is missing, or no numbers", name)
		}
		for row, v := range c.Numbers {
			f := float32(v) * scale
			if f-f != 0 {
				return features[:at], fault.New(fault.Invalid, "row %d, column %q: %s", row+1, name, unusable(v))
			}
			features[at+row*len(columns)+i] = f
		}
	}
	return features, nil
}

func unusable(v float64) string {
	if math.IsNaN(v) {
		return "its value is missing: give one, or prepare the data with clean's fill"
	}
	return strconv.FormatFloat(v, 'g', -1, 64) + " is too large for the network"
}

// Outputs appends the plain outputs of rows of features to out.
func (m *Model) Outputs(features, out []float32) ([]float32, error) {
	at := len(out)
	out, err := m.forward.Run(features, out)
	if err == nil && !network.Finite(out[at:]) {
		err = fault.New(fault.Invalid, "the network's output is not finite: are the numbers of the rows far from those it was trained on?")
	}
	return out, err
}

// Answer is the prediction that one row's outputs mean: the number of a class with a probability
// for each, or, of a regression, -1 and none.
func (m *Model) Answer(output []float32) (class int, probabilities []float64) {
	if m.Plan.Loss == spec.MeanSquaredError {
		return -1, nil
	}
	return network.Class(m.Plan.Loss, output), network.Probabilities(m.Plan.Loss, output)
}
