package inference_test

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/checkpoint"
	"github.com/clary-ml/clary/trainer/inference"
	"github.com/clary-ml/clary/trainer/network"
	"github.com/clary-ml/clary/trainer/spec"
)

// model is one dense layer with these weights, [2, units] and a bias for each.
func model(t *testing.T, loss string, units int, classes []string, weights ...float32) string {
	t.Helper()
	dir := t.TempDir()
	m := checkpoint.Manifest{
		Network: spec.Network{Input: []int{2}, Layers: []spec.Layer{{Dense: &spec.Dense{Units: units}}}, Loss: loss},
		Data:    spec.Data{Format: spec.FormatCSV, Scale: 2, Classes: classes},
	}
	if err := checkpoint.SaveModel(dir, m, weights); err != nil {
		t.Fatal(err)
	}
	return dir
}

func predict(t *testing.T, dir, rows string) (labels []string, first []float64, err error) {
	t.Helper()
	err = inference.Predict(t.Context(), dir, strings.NewReader(rows), network.Gonum(), func(p inference.Prediction) error {
		if labels == nil {
			first = p.Probabilities
		}
		labels = append(labels, p.Label)
		return nil
	})
	return labels, first, err
}

func TestEvaluateCountsByClass(t *testing.T) {
	dir := model(t, spec.CrossEntropy, 2, []string{"left", "right"}, 1, 0, 0, 1, 0, 0)
	path := filepath.Join(t.TempDir(), "rows.csv")
	if err := os.WriteFile(path, []byte("2,0,left\n2,0,right\n0,2,right\n0,4,right\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := inference.Evaluate(t.Context(), dir, path, inference.RowsUnsaid, network.Gonum())
	if err != nil {
		t.Fatal(err)
	}
	if r.Classification == nil || r.Rows != 4 || r.Accuracy != 0.75 || fmt.Sprint(r.Confusion) != "[[1 0] [1 2]]" || r.Classes[1].Name != "right" {
		t.Errorf("%+v", r)
	}
	e := math.E
	want := (2*math.Log(1+1/e) + math.Log(1+e) + math.Log(1+1/(e*e))) / 4
	if math.Abs(r.Loss-want) > 1e-6 {
		t.Errorf("loss %v, want %v", r.Loss, want)
	}
}

func TestPredictionsByKindOfLoss(t *testing.T) {
	labels, p, err := predict(t, model(t, spec.CrossEntropy, 2, []string{"left", "right"}, 1, 0, 0, 1, 0, 0), "2,0\n0,2\n")
	if err != nil || fmt.Sprint(labels) != "[left right]" || math.Abs(p[0]-math.E/(1+math.E)) > 1e-6 {
		t.Errorf("%v, %v, %v", labels, p, err)
	}
	labels, p, err = predict(t, model(t, spec.BinaryCrossEntropy, 1, nil, 1, -1, 0), "2,0\n0,2\n")
	if err != nil || fmt.Sprint(labels) != "[1 0]" || math.Abs(p[1]-math.E/(1+math.E)) > 1e-6 {
		t.Errorf("%v, %v, %v", labels, p, err)
	}
	labels, p, err = predict(t, model(t, spec.MeanSquaredError, 1, nil, 1, 1, 0.5), "2,1\n")
	if err != nil || fmt.Sprint(labels) != "[2]" || p != nil {
		t.Errorf("%v, %v, %v", labels, p, err)
	}
}

// More rows than are computed at once come out in order, and each once.
func TestManyRowsKeepTheirOrder(t *testing.T) {
	var rows strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&rows, "%d,0\n", 2*i)
	}
	labels, _, err := predict(t, model(t, spec.MeanSquaredError, 1, nil, 1, 1, 0), rows.String())
	if err != nil || len(labels) != 1000 {
		t.Fatalf("%d rows, %v", len(labels), err)
	}
	for i, l := range labels {
		if l != fmt.Sprint(i) {
			t.Fatalf("row %d: %s", i, l)
		}
	}
}

func TestBadRowsAndBrokenReadersEndIt(t *testing.T) {
	dir := model(t, spec.MeanSquaredError, 1, nil, 1, 1, 0)
	if _, _, err := predict(t, dir, "1,2\n1,2,3\n"); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "line 2 has 3 columns") {
		t.Errorf("a row with a label: %v", err)
	}
	stop := errors.New("enough")
	err := inference.Predict(t.Context(), dir, strings.NewReader("1,2\n3,4\n"), network.Gonum(), func(inference.Prediction) error { return stop })
	if !errors.Is(err, stop) {
		t.Errorf("the caller's error: %v", err)
	}
}

func TestTwoModelsAreComparedRowByRow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rows.csv")
	if err := os.WriteFile(path, []byte("2,0,left\n2,0,right\n0,2,right\n0,4,right\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	judge := func(weights ...float32) inference.Evaluation {
		e, err := inference.Evaluate(t.Context(), model(t, spec.CrossEntropy, 2, []string{"left", "right"}, weights...), path, inference.RowsUnsaid, network.Gonum())
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	good, contrary := judge(1, 0, 0, 1, 0, 0), judge(0, 1, 1, 0, 0, 0)
	// Three rows only the first finds, one only the second: McNemar's error of (3-1)/4.
	more, se := good.Difference(contrary)
	if want := math.Sqrt((1 - 0.25) / 4); more != 0.5 || math.Abs(se-want) > 1e-12 {
		t.Errorf("%v ± %v, want 0.5 ± %v", more, se, want)
	}
	if more, se := good.Difference(good); more != 0 || se != 0 {
		t.Errorf("beside itself: %v ± %v", more, se)
	}
}
