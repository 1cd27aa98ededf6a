package evaluation_test

import (
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/evaluation"
)

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

// The figures are what their definitions say, counted pair by pair and threshold by threshold.
func TestFiguresAreWhatTheirDefinitionsSay(t *testing.T) {
	ties := 0
	rapid.Check(t, func(t *rapid.T) {
		k := rapid.IntRange(2, 4).Draw(t, "classes")
		n := rapid.IntRange(1, 30).Draw(t, "rows")
		names := []string{"a", "b", "c", "d"}[:k]
		var p []float64
		var right []int
		for range n {
			parts, sum := make([]float64, k), 0.0
			for i := range parts {
				parts[i] = float64(rapid.IntRange(0, 4).Draw(t, "part")) + 0.001
				sum += parts[i]
			}
			for _, v := range parts {
				p = append(p, v/sum)
			}
			right = append(right, rapid.IntRange(0, k-1).Draw(t, "right"))
		}
		c, err := evaluation.Classify(p, right, names)
		if err != nil {
			t.Fatal(err)
		}
		hits, loss, brier := 0, 0.0, 0.0
		for row, class := range right {
			best := 0
			for i := range k {
				if p[row*k+i] > p[row*k+best] {
					best = i
				}
				truth := 0.0
				if i == class {
					truth = 1
				}
				brier += (p[row*k+i] - truth) * (p[row*k+i] - truth)
			}
			if best == class {
				hits++
			}
			loss -= math.Log(p[row*k+class])
		}
		if !near(c.Accuracy, float64(hits)/float64(n)) || !near(c.LogLoss, loss/float64(n)) || !near(c.Brier, brier/float64(n)) {
			t.Fatalf("%+v; want %d of %d, %v, %v", c, hits, n, loss, brier)
		}
		for i, one := range c.Classes {
			pairs, wins := 0.0, 0.0
			for a := range n {
				for b := range n {
					if right[a] != i || right[b] == i {
						continue
					}
					pairs++
					switch x, y := p[a*k+i], p[b*k+i]; {
					case x > y:
						wins++
					case x == y:
						wins += 0.5
						ties++
					}
				}
			}
			if pairs > 0 && !near(one.AUC, wins/pairs) {
				t.Fatalf("class %d: AUC %v, want %v", i, one.AUC, wins/pairs)
			}
			if pairs == 0 {
				continue
			}
			precision, recalled := 0.0, 0.0
			for threshold := 2.0; ; { // from above down, over all scores
				next := -1.0
				for row := range n {
					if s := p[row*k+i]; s < threshold {
						next = math.Max(next, s)
					}
				}
				if next < 0 {
					break
				}
				threshold = next
				above, own, all := 0.0, 0.0, 0.0
				for row := range n {
					if right[row] == i {
						all++
					}
					if p[row*k+i] >= threshold {
						above++
						if right[row] == i {
							own++
						}
					}
				}
				precision += own / above * (own/all - recalled)
				recalled = own / all
			}
			if !near(one.AveragePrecision, precision) {
				t.Fatalf("class %d: average precision %v, want %v", i, one.AveragePrecision, precision)
			}
			last := evaluation.Point{}
			for _, point := range one.ROC {
				if point.X < last.X || point.Y < last.Y {
					t.Fatalf("the curve goes back: %v", one.ROC)
				}
				last = point
			}
			if last != (evaluation.Point{X: 1, Y: 1}) {
				t.Fatalf("the curve ends at %v", last)
			}
		}
	})
	if ties == 0 {
		t.Error("no two scores were equal")
	}
}

func TestASmallExampleByHand(t *testing.T) {
	p := []float64{0.9, 0.1, 0.4, 0.6, 0.65, 0.35, 0.2, 0.8}
	c, err := evaluation.Classify(p, []int{0, 0, 1, 1}, []string{"no", "yes"})
	if err != nil {
		t.Fatal(err)
	}
	// Scores of yes: .1 and .6 for no, .35 and .8 for yes: three of four pairs are right.
	if !near(c.AUC, 0.75) || !near(c.AveragePrecision, (1+2.0/3)/2) || c.Accuracy != 0.5 {
		t.Errorf("%+v", c)
	}
	yes := c.Classes[1]
	if yes.Rows != 2 || !near(yes.Precision, 0.5) || !near(yes.Recall, 0.5) || !near(yes.F1, 0.5) || c.Confusion[0][1] != 1 || c.Confusion[1][0] != 1 {
		t.Errorf("%+v, %v", yes, c.Confusion)
	}
	// Likeliest: .9 right, .6 wrong, .65 wrong, .8 right.
	if want := (0.1 + (0.6+0.65)/2*2 + 0.2) / 4; !near(c.CalibrationError, want) {
		t.Errorf("calibration error %v, want %v", c.CalibrationError, want)
	}
}

func TestNumbersAreJudgedByTheirDistance(t *testing.T) {
	r, err := evaluation.Regress([]float64{1, 2, 6}, []float64{1, 3, 5})
	if err != nil {
		t.Fatal(err)
	}
	if !near(r.RMSE, math.Sqrt(2.0/3)) || !near(r.MAE, 2.0/3) || !near(r.Bias, 0) || !near(r.R2, 1-2.0/8) {
		t.Errorf("%+v", r)
	}
	for i, want := range []float64{-1, -0.9, -0.5, 0, 0.5, 0.9, 1} {
		if !near(r.Residuals[i], want) {
			t.Errorf("residuals %v", r.Residuals)
		}
	}
	if r, err = evaluation.Regress([]float64{1, 2}, []float64{3, 3}); err != nil || r.R2 != 0 {
		t.Errorf("without variance: %+v, %v", r, err)
	}
}

func TestCurvesOfManyRowsAreThinned(t *testing.T) {
	var p []float64
	var right []int
	for i := range 5000 {
		v := float64(i) / 5000
		p, right = append(p, 1-v, v), append(right, (i*i/7)%2)
	}
	c, err := evaluation.Classify(p, right, []string{"a", "b"})
	if err != nil {
		t.Fatal(err)
	}
	roc := c.Classes[1].ROC
	if len(roc) != 200 || roc[0] != (evaluation.Point{}) || roc[199] != (evaluation.Point{X: 1, Y: 1}) {
		t.Errorf("%d points", len(roc))
	}
}

func TestWhatCannotBeJudgedIsRefused(t *testing.T) {
	for name, try := range map[string]func() error{
		"no rows":          func() error { _, err := evaluation.Classify(nil, nil, []string{"a", "b"}); return err },
		"a class too many": func() error { _, err := evaluation.Classify([]float64{1, 0}, []int{2}, []string{"a", "b"}); return err },
		"no probability": func() error {
			_, err := evaluation.Classify([]float64{math.NaN(), 0}, []int{1}, []string{"a", "b"})
			return err
		},
		"no truth":     func() error { _, err := evaluation.Regress(nil, nil); return err },
		"not a number": func() error { _, err := evaluation.Regress([]float64{math.NaN()}, []float64{1}); return err },
	} {
		if err := try(); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
