// Package inference uses a trained model: it scores it on labelled rows and predicts for
// rows without labels. Training measures its validation by the same code.
package inference

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/data"
	"github.com/clary-ml/clary/trainer/evaluation"
	"github.com/clary-ml/clary/trainer/network"
	"github.com/clary-ml/clary/trainer/spec"
	"github.com/clary-ml/clary/trainer/table"
)

// rowsAtOnce is how many rows are computed together.
const rowsAtOnce = 256

// Report is how well a model does while it is trained.
type Report struct {
	Rows int
	// Loss is the mean over the rows.
	Loss float64
	// Accuracy is the share of rows classified right, RMSE the root of the mean squared error
	// of a regression; a model has one of the two.
	Accuracy, RMSE float64

	numbers bool
}

// Metrics are the report's numbers by name, with a prefix before each.
func (r Report) Metrics(prefix string) map[string]float64 {
	m := map[string]float64{prefix + "loss": r.Loss}
	if r.numbers {
		m[prefix+"rmse"] = r.RMSE
	} else {
		m[prefix+"accuracy"] = r.Accuracy
	}
	return m
}

// Scorer computes outputs for any number of rows. It is not safe for two goroutines.
type Scorer struct {
	plan    spec.Plan
	classes []string
	graph   *network.Graph
}

// NewScorer builds a scorer; names are of the classes, and may be nil.
func NewScorer(plan spec.Plan, names []string, b network.BLAS) (*Scorer, error) {
	g, err := network.Inference(plan, rowsAtOnce, b)
	if err != nil {
		return nil, err
	}
	return &Scorer{plan: plan, graph: g, classes: classNames(plan, names)}, nil
}

// Use copies the weights that the next rows are computed with.
func (s *Scorer) Use(weights []float32) { copy(s.graph.Weights, weights) }

// Close frees the graph.
func (s *Scorer) Close() error { return s.graph.Close() }

// each calls f with the outputs of every row in turn.
func (s *Scorer) each(features []float32, rows int, f func(row int, output []float32)) error {
	width := spec.Volume(s.plan.Input)
	for from := 0; from < rows; from += rowsAtOnce {
		to := min(from+rowsAtOnce, rows)
		out, err := s.graph.Forward(features[from*width : to*width])
		if err != nil {
			return err
		}
		for i := range to - from {
			f(from+i, out[i*s.plan.Outputs:(i+1)*s.plan.Outputs])
		}
	}
	return nil
}

// Score measures the model on a table.
func (s *Scorer) Score(t data.Table) (Report, error) {
	r := Report{Rows: t.Rows(), numbers: s.plan.Loss == spec.MeanSquaredError}
	if r.Rows == 0 {
		return r, fault.New(fault.Invalid, "no rows to score the model on")
	}
	right := 0
	err := s.each(t.Features, r.Rows, func(row int, output []float32) {
		label := t.Labels[row]
		r.Loss += network.RowLoss(s.plan.Loss, output, label)
		if !r.numbers && network.Class(s.plan.Loss, output) == int(label) {
			right++
		}
	})
	r.Loss /= float64(r.Rows)
	if r.numbers {
		r.RMSE = math.Sqrt(r.Loss)
	} else {
		r.Accuracy = float64(right) / float64(r.Rows)
	}
	return r, err
}

// Evaluation is what a model's predictions are worth, of classes or of numbers.
type Evaluation struct {
	// Model is what was judged.
	Model string `json:"model,omitempty"`
	Rows  int    `json:"rows"`
	// Loss is the mean of the model's own loss.
	Loss float64 `json:"loss"`
	*evaluation.Classification
	*evaluation.Regression
	Slices []evaluation.Slice `json:"slices,omitempty"`

	rows answers
}

// answers are what was predicted of each row, and what is right: of classes or of numbers.
type answers struct {
	classes          []string
	probabilities    []float64 // so many of each row as there are classes
	class            []int
	found            []bool // whether the class was
	predicted, truth []float64
}

// Metrics are its figures by name.
func (e Evaluation) Metrics() map[string]float64 {
	if c := e.Classification; c != nil {
		return map[string]float64{
			"loss": e.Loss, "accuracy": c.Accuracy, "log_loss": c.LogLoss, "brier": c.Brier, "auc": c.AUC,
			"average_precision": c.AveragePrecision, "calibration_error": c.CalibrationError,
		}
	}
	return map[string]float64{"loss": e.Loss, "rmse": e.RMSE, "mae": e.MAE, "r2": e.R2, "bias": e.Bias}
}

// Difference is how much more of the rows one model finds the class of than another, with the
// standard error of that on these rows (McNemar's: only those count that one finds and the
// other does not). It is 0 where there are no classes.
func (e Evaluation) Difference(other Evaluation) (more, standardError float64) {
	n := float64(len(e.rows.found))
	if len(other.rows.found) != len(e.rows.found) || n == 0 {
		return 0, 0
	}
	gained, lost := 0.0, 0.0
	for row, found := range e.rows.found {
		switch {
		case found && !other.rows.found[row]:
			gained++
		case !found && other.rows.found[row]:
			lost++
		}
	}
	more = (gained - lost) / n
	return more, math.Sqrt(max((gained+lost)/n-more*more, 0) / n)
}

// Evaluate judges a stored model by a file or a folder of labelled rows. A model with a transform
// takes raw rows, and also rows that the same transform made before: those that may be either are
// refused unless said tells.
func Evaluate(ctx context.Context, modelDir, path string, said Rows, b network.BLAS) (e Evaluation, err error) {
	m, s, err := open(modelDir, b)
	if err != nil {
		return e, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	raw, err := m.takesRaw(path, said)
	if err != nil {
		return e, err
	}
	var rows data.Table
	if raw {
		rows, err = m.readRaw(ctx, path)
	} else {
		rows, err = data.ReadTable(ctx, path, data.LayoutFor(m.Data, m.Plan))
	}
	if err != nil {
		return e, err
	}
	return s.judge(rows)
}

// judge goes through all rows.
func (s *Scorer) judge(t data.Table) (e Evaluation, err error) {
	e.Rows = t.Rows()
	e.rows.classes = s.classes
	err = s.each(t.Features, e.Rows, func(row int, output []float32) {
		label, r := t.Labels[row], &e.rows
		e.Loss += network.RowLoss(s.plan.Loss, output, label) / float64(e.Rows)
		if s.plan.Loss == spec.MeanSquaredError {
			r.predicted, r.truth = append(r.predicted, float64(output[0])), append(r.truth, float64(label))
			return
		}
		r.probabilities = append(r.probabilities, network.Probabilities(s.plan.Loss, output)...)
		r.class = append(r.class, int(label))
		r.found = append(r.found, network.Class(s.plan.Loss, output) == int(label))
	})
	if err != nil {
		return e, err
	}
	if s.plan.Loss == spec.MeanSquaredError {
		e.Regression, err = evaluation.Regress(e.rows.predicted, e.rows.truth)
	} else {
		e.Classification, err = evaluation.Classify(e.rows.probabilities, e.rows.class, s.classes)
	}
	return e, err
}

// Slice judges the rows of each value of a column by themselves, and adds that to Slices.
func (e *Evaluation) Slice(part evaluation.Part) error {
	var slices []evaluation.Slice
	var err error
	if e.Regression != nil {
		slices, err = evaluation.SliceNumbers(part, e.rows.predicted, e.rows.truth)
	} else {
		slices, err = evaluation.SliceClasses(part, e.rows.probabilities, e.rows.class, e.rows.classes)
	}
	e.Slices = append(e.Slices, slices...)
	return err
}

func open(dir string, b network.BLAS) (*Model, *Scorer, error) {
	m, err := Open(dir, b)
	if err != nil {
		return nil, nil, err
	}
	s, err := NewScorer(m.Plan, m.Data.Classes, b)
	if err != nil {
		return m, nil, err
	}
	s.Use(m.Weights)
	return m, s, nil
}

// Prediction is a model's answer to one row.
type Prediction struct {
	// Label is the class, or the value of a regression.
	Label string `json:"label"`
	// Probabilities has one entry for each class; a regression has none.
	Probabilities []float64 `json:"probabilities,omitempty"`
}

// Predict reads CSV rows of features, without a label, and calls f with the answer to
// each in order. A line that cannot be read ends it with that line's number. A model with a
// transform takes raw rows.
func Predict(ctx context.Context, modelDir string, rows io.Reader, b network.BLAS, f func(Prediction) error) (err error) {
	m, s, err := open(modelDir, b)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	p := predictor{model: m, scorer: s, f: f}
	if m.Learned() != nil {
		err = p.raw(ctx, rows)
	} else {
		err = p.plain(ctx, rows)
	}
	if err != nil {
		return fmt.Errorf("predict: %w", err)
	}
	return nil
}

// predictor answers rows some at a time.
type predictor struct {
	model    *Model
	scorer   *Scorer
	f        func(Prediction) error
	features []float32
	rows     int
}

func (p *predictor) plain(ctx context.Context, rows io.Reader) error {
	layout := data.LayoutFor(p.model.Data, p.model.Plan)
	layout.Unlabelled, layout.Header = true, false
	err := data.ReadCSV(rows, layout, func(_ int, features []float32, _ float32) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		p.features = append(p.features, features...)
		if p.rows++; p.rows < rowsAtOnce {
			return nil
		}
		return p.flush()
	})
	return errors.Join(err, p.flush())
}

func (p *predictor) raw(ctx context.Context, rows io.Reader) error {
	t := p.model.Learned()
	return table.ParseStream(ctx, table.CSV, rows, t.Input, t.Missing, func(b table.Batch, broken []table.Broken) error {
		if len(broken) > 0 {
			return fault.New(fault.Invalid, "line %d: %s", broken[0].Line, broken[0].Reason)
		}
		var err error
		p.rows = b.Rows
		if p.features, err = p.model.AppendRows(p.features, &b); err != nil {
			return err
		}
		return p.flush()
	})
}

func (p *predictor) flush() error {
	var failed error
	err := p.scorer.each(p.features, p.rows, func(_ int, output []float32) {
		if failed == nil {
			failed = p.f(p.scorer.predict(output))
		}
	})
	p.features, p.rows = p.features[:0], 0
	return errors.Join(err, failed)
}

func (s *Scorer) predict(output []float32) Prediction {
	if s.plan.Loss == spec.MeanSquaredError {
		return Prediction{Label: strconv.FormatFloat(float64(output[0]), 'g', -1, 32)}
	}
	return Prediction{Label: s.classes[network.Class(s.plan.Loss, output)], Probabilities: network.Probabilities(s.plan.Loss, output)}
}
