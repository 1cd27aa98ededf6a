package evaluation_test

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	page "github.com/clary-ml/clary/console/report/evaluation"
	"github.com/clary-ml/clary/trainer/evaluation"
)

// classes judges k classes by n rows; skill says how good the model is.
func classes(t testing.TB, name string, k, n int, skill float64) page.Model {
	t.Helper()
	var names, plans []string
	for i := range k {
		names = append(names, fmt.Sprintf("class <%d>", i))
	}
	var p []float64
	var right []int
	for row := range n {
		class := row * 7 % k
		weights, sum := make([]float64, k), 0.0
		for i := range weights {
			weights[i] = 1 + math.Abs(math.Sin(float64(row*31+i*17)))*2
			if i == class {
				weights[i] += skill * math.Abs(math.Cos(float64(row)))
			}
			sum += weights[i]
		}
		for _, w := range weights {
			p = append(p, w/sum)
		}
		right, plans = append(right, class), append(plans, []string{"monthly", "yearly", "<b>none</b>"}[row%3])
	}
	c, err := evaluation.Classify(p, right, names)
	if err != nil {
		t.Fatal(err)
	}
	s, err := evaluation.SliceClasses(evaluation.Part{Column: "plan", Texts: plans}, p, right, names)
	if err != nil {
		t.Fatal(err)
	}
	return page.Model{Name: name, Classification: c, Slices: s, Metrics: map[string]float64{
		"accuracy": c.Accuracy, "auc": c.AUC, "average_precision": c.AveragePrecision, "log_loss": c.LogLoss, "calibration_error": c.CalibrationError,
	}}
}

func numbers(t testing.TB, name string, n int, noise float64) page.Model {
	t.Helper()
	var predicted, truth []float64
	var ages []string
	for row := range n {
		v := float64(row%50) * 3
		truth, predicted = append(truth, v), append(predicted, v+noise*math.Sin(float64(row*row)))
		ages = append(ages, fmt.Sprint(row%70))
	}
	r, err := evaluation.Regress(predicted, truth)
	if err != nil {
		t.Fatal(err)
	}
	s, err := evaluation.SliceNumbers(evaluation.Part{Column: "age", Texts: ages}, predicted, truth)
	if err != nil {
		t.Fatal(err)
	}
	return page.Model{Name: name, Regression: r, Slices: s, Metrics: map[string]float64{"rmse": r.RMSE, "mae": r.MAE, "r2": r.R2, "bias": r.Bias}}
}

func write(t testing.TB, name string, models ...page.Model) string {
	t.Helper()
	var b bytes.Buffer
	f := page.Found{Models: models, Data: "test.csv", Verdict: "no difference", Made: time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)}
	if err := page.Write(&b, f); err != nil {
		t.Fatal(err)
	}
	if folder := os.Getenv("CLARY_REPORT_DIR"); folder != "" { // to look at
		if err := os.WriteFile(filepath.Join(folder, name+".html"), b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

func TestThePageIsWholeAndAlone(t *testing.T) {
	for name, c := range map[string]struct {
		models []page.Model
		plots  int
		says   []string
	}{
		"two":     {[]page.Model{classes(t, "new", 2, 500, 4), classes(t, "old", 2, 500, 2)}, 3, []string{"ROC", "Precision and recall", "Calibration", "Confusion", "By plan", "beside old", "accuracy, old", "AUC"}},
		"ten":     {[]page.Model{classes(t, "new", 10, 500, 9)}, 3, []string{"each class against the rest", "Confusion"}},
		"many":    {[]page.Model{classes(t, "new", 60, 900, 90)}, 3, []string{"the 10 with most rows", "the 30 classes with most rows of 60"}},
		"one row": {[]page.Model{classes(t, "new", 2, 1, 4)}, 3, []string{"1 row"}},
		"numbers": {[]page.Model{numbers(t, "new", 500, 5), numbers(t, "old", 500, 25)}, 2, []string{"Residuals", "By age", "over 16 to 34", "RMSE, old"}},
		"a row":   {[]page.Model{numbers(t, "new", 1, 0)}, 2, []string{"Predictions"}},
	} {
		t.Run(name, func(t *testing.T) {
			text := write(t, name, c.models...)
			for _, want := range c.says {
				if !strings.Contains(text, want) {
					t.Errorf("it does not say %q", want)
				}
			}
			if got := strings.Count(text, "<svg"); got != c.plots {
				t.Errorf("%d plots, want %d", got, c.plots)
			}
			if found := regexp.MustCompile(`(?i)<script|(src|href)="?(?:[a-z]+:)?//|url\(|@import|NaN|Inf\b|ZgotmplZ|<b>none|class <\d`).FindString(text); found != "" {
				t.Errorf("there is %q in it", found)
			}
		})
	}
}

// The matrix holds every row once, and only its diagonal is right.
func TestTheMatrixHoldsEveryRow(t *testing.T) {
	m := classes(t, "new", 4, 400, 5)
	text := write(t, "matrix", m)
	sum, right := 0, 0
	for _, found := range regexp.MustCompile(`<td class="(right|wrong)"[^>]*>(\d+)</td>`).FindAllStringSubmatch(text, -1) {
		var n int
		fmt.Sscan(found[2], &n)
		if sum += n; found[1] == "right" {
			right += n
		}
	}
	if sum != 400 || right != int(math.Round(m.Metrics["accuracy"]*400)) {
		t.Errorf("%d rows, %d right; the accuracy is %v", sum, right, m.Metrics["accuracy"])
	}
}

func TestAnEvaluationOfNothingHasNoPage(t *testing.T) {
	if err := page.Write(&bytes.Buffer{}, page.Found{}); err == nil {
		t.Error("it has one")
	}
}

func TestASliceFurtherFromTheWholeThanTwoStandardErrorsIsMarked(t *testing.T) {
	m := classes(t, "new", 2, 500, 4)
	whole := m.Metrics["accuracy"]
	m.Slices = nil
	for value, off := range map[string]float64{"near": -.015, "under": -.025, "over": .025} {
		m.Slices = append(m.Slices, evaluation.Slice{Column: "plan", Value: value, Rows: 100, Error: .01, Metrics: map[string]float64{"accuracy": whole + off}})
	}
	text := write(t, "odd", m)
	for value, want := range map[string]bool{"near": false, "under": true, "over": true} {
		if got := regexp.MustCompile(`<tr class="odd"[^>]*><td>` + value).MatchString(text); got != want {
			t.Errorf("%s is marked: %v", value, got)
		}
	}
}
