package evaluation_test

import (
	"fmt"
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/trainer/evaluation"
)

// Whatever the column holds, each row is in one slice, and the slices add up to the whole.
func TestSlicesAddUpToTheWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 200).Draw(t, "rows")
		kinds := rapid.IntRange(1, 60).Draw(t, "values")
		form := rapid.SampledFrom([]string{"%d", "v%d", "%d.5", "-%de3"}).Draw(t, "form")
		part := evaluation.Part{Column: "c"}
		var p, predicted, truth []float64
		var right []int
		for range n {
			text := ""
			if v := rapid.IntRange(0, kinds).Draw(t, "value"); v > 0 {
				text = fmt.Sprintf(form, v)
			}
			yes := rapid.Float64Range(0, 1).Draw(t, "yes")
			part.Texts = append(part.Texts, text)
			p, right = append(p, 1-yes, yes), append(right, rapid.IntRange(0, 1).Draw(t, "right"))
			predicted, truth = append(predicted, yes*10), append(truth, rapid.Float64Range(-5, 5).Draw(t, "truth"))
		}
		classes, err := evaluation.SliceClasses(part, p, right, []string{"no", "yes"})
		if err != nil {
			t.Fatal(err)
		}
		whole, err := evaluation.Classify(p, right, []string{"no", "yes"})
		if err != nil {
			t.Fatal(err)
		}
		numbers, err := evaluation.SliceNumbers(part, predicted, truth)
		if err != nil {
			t.Fatal(err)
		}
		all, err := evaluation.Regress(predicted, truth)
		if err != nil {
			t.Fatal(err)
		}
		rows, accuracy, squares := 0, 0.0, 0.0
		names := map[string]bool{}
		for i, s := range classes {
			if s.Rows == 0 || names[s.Value] || numbers[i].Value != s.Value || numbers[i].Rows != s.Rows {
				t.Fatalf("slice %q has %d rows; numbers: %q, %d", s.Value, s.Rows, numbers[i].Value, numbers[i].Rows)
			}
			names[s.Value] = true
			rows += s.Rows
			accuracy += s.Metrics["accuracy"] * float64(s.Rows) / float64(n)
			squares += numbers[i].Metrics["rmse"] * numbers[i].Metrics["rmse"] * float64(s.Rows) / float64(n)
		}
		if rows != n || len(classes) > 20 || !near(accuracy, whole.Accuracy) || math.Abs(math.Sqrt(squares)-all.RMSE) > 1e-6 {
			t.Fatalf("%d rows of %d in %d slices, accuracy %v of %v, rmse %v of %v", rows, n, len(classes), accuracy, whole.Accuracy, math.Sqrt(squares), all.RMSE)
		}
	})
}

func TestManyNumbersAreSlicedIntoQuarters(t *testing.T) {
	part := evaluation.Part{Column: "age"}
	var predicted, truth []float64
	for i := range 101 {
		text := fmt.Sprint(i)
		if i == 100 {
			text = ""
		}
		part.Texts = append(part.Texts, text)
		predicted, truth = append(predicted, float64(i)), append(truth, 0)
	}
	got, err := evaluation.SliceNumbers(part, predicted, truth)
	if err != nil {
		t.Fatal(err)
	}
	want := []struct {
		value string
		rows  int
		bias  float64
	}{{"to 24", 25, 12}, {"over 24 to 49", 25, 37}, {"over 49 to 74", 25, 62}, {"over 74 to 99", 25, 87}, {"(empty)", 1, 100}}
	for i, w := range want {
		if len(got) != len(want) || got[i].Value != w.value || got[i].Rows != w.rows || !near(got[i].Metrics["bias"], w.bias) {
			t.Fatalf("%+v, want %+v", got, want)
		}
	}
}

func TestOneClassAloneHasNoAreaUnderTheCurve(t *testing.T) {
	part := evaluation.Part{Column: "c", Texts: []string{"a", "a", "b"}}
	got, err := evaluation.SliceClasses(part, []float64{.2, .8, .7, .3, .6, .4}, []int{1, 0, 0}, []string{"no", "yes"})
	if err != nil || len(got) != 2 || got[0].Metrics["auc"] != 1 || !near(got[0].Metrics["accuracy"], 1) || !near(got[0].Error, math.Sqrt(2.0/3*1/3/6)) {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, has := got[1].Metrics["auc"]; has {
		t.Errorf("%+v", got[1])
	}
	if _, err := evaluation.SliceClasses(evaluation.Part{Column: "c", Texts: []string{"a"}}, []float64{.2, .8, .7, .3}, []int{1, 0}, []string{"no", "yes"}); err == nil {
		t.Error("rows without a text are judged")
	}
}
