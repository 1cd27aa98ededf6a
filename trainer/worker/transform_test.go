package worker_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clary-ml/clary/trainer/inference"
	"github.com/clary-ml/clary/trainer/network"
	"github.com/clary-ml/clary/trainer/prepare"
	"github.com/clary-ml/clary/trainer/spec"
	"github.com/clary-ml/clary/trainer/steps"
	"github.com/clary-ml/clary/trainer/worker"
)

// people writes a table whose label hangs on age and city, and prepares it.
func people(t *testing.T) (raw, prepared string) {
	t.Helper()
	dir := t.TempDir()
	text := "age,city,bought\n"
	for i := range 400 {
		age, city := 20+i%50, []string{"Oslo", "Rome", "Bonn"}[i%3]
		cell := fmt.Sprint(age)
		if i%10 == 9 {
			cell = ""
		}
		text += fmt.Sprintf("%s,%s,%v\n", cell, city, map[bool]string{true: "yes", false: "no"}[city == "Rome" || city == "Oslo" && age > 45])
	}
	raw, prepared = filepath.Join(dir, "people.csv"), filepath.Join(dir, "prepared")
	for _, err := range []error{os.WriteFile(raw, []byte(text), 0o600), os.Mkdir(prepared, 0o700)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	plan := steps.Plan{Label: "bought", Steps: []steps.Step{
		{Split: &steps.Split{Test: 0.25, Stratify: "bought", Seed: 1}}, {Clean: &steps.Clean{}}, {Scale: &steps.Scale{Standardize: true}}, {OneHot: &steps.OneHot{}},
	}}
	if _, err := (prepare.Run{Plan: plan, Inputs: map[string]string{prepare.MainInput: raw}, Output: prepared}).Do(t.Context()); err != nil {
		t.Fatal(err)
	}
	return raw, prepared
}

// on sets a run up for the prepared people.
func on(t *testing.T, prepared string) worker.Options {
	t.Helper()
	o := options(t, 1, 1, 30)
	o.Train, o.Transform = filepath.Join(prepared, "train"), filepath.Join(prepared, prepare.TransformFolder)
	o.Network.Input, o.Network.Layers = []int{4}, []spec.Layer{{Dense: &spec.Dense{Units: 16, Activation: spec.ReLU}}, {Dense: &spec.Dense{Units: 2}}}
	o.Data = spec.Data{Format: spec.FormatCSV, Header: true, Classes: []string{"no", "yes"}}
	return o
}

// A model takes raw rows, and also rows that its transform made.
func TestAModelWithItsTransformTakesRawRows(t *testing.T) {
	_, prepared := people(t)
	o := on(t, prepared)
	if err := run(t.Context(), t, o); err != nil {
		t.Fatal(err)
	}
	rawFile := filepath.Join(t.TempDir(), "raw.csv")
	raw := "age,city,bought\n33,Rome,yes\n61,Oslo,yes\n25,Oslo,no\n,Bonn,no\n25,Bonn,no\n"
	prepd := filepath.Join(t.TempDir(), "rows.csv")
	learned, err := prepare.Load(filepath.Join(o.Transform, prepare.TransformFile))
	if err != nil {
		t.Fatal(err)
	}
	header := strings.Join(learned.Output, ",") + ",bought\n"
	text, err := os.ReadFile(filepath.Join(prepared, "test", "test.csv"))
	if err != nil || !strings.HasPrefix(string(text), header) {
		t.Fatalf("%.60q does not begin with %q (%v)", text, header, err)
	}
	for name, body := range map[string]string{rawFile: raw, prepd: string(text)} {
		if err := os.WriteFile(name, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	all, err := inference.Evaluate(t.Context(), o.Model, prepd, inference.RowsUnsaid, network.Gonum())
	if err != nil || all.Rows != 100 || all.Accuracy < 0.9 {
		t.Fatalf("prepared rows: %d, accuracy %v, %v", all.Rows, all.Accuracy, err)
	}
	few, err := inference.Evaluate(t.Context(), o.Model, rawFile, inference.RowsUnsaid, network.Gonum())
	if err != nil || few.Rows != 5 || few.Accuracy != 1 {
		t.Fatalf("raw rows: %+v, %v", few.Classification, err)
	}
	var labels []string
	err = inference.Predict(t.Context(), o.Model, strings.NewReader("city,age\nRome,33\nBonn,\nOslo,61\n"), network.Gonum(), func(p inference.Prediction) error {
		labels = append(labels, p.Label)
		return nil
	})
	if err != nil || fmt.Sprint(labels) != "[yes no yes]" {
		t.Errorf("%v, %v", labels, err)
	}
	err = inference.Predict(t.Context(), o.Model, strings.NewReader("33,Rome\nold,Rome\n"), network.Gonum(), func(inference.Prediction) error { return nil })
	if err == nil || !strings.Contains(err.Error(), `line 2: column age: "old" is not a finite number`) {
		t.Errorf("a word for an age: %v", err)
	}
}

func TestATransformOfOtherDataEndsTheTraining(t *testing.T) {
	_, prepared := people(t)
	file := filepath.Join(prepared, prepare.TransformFolder, prepare.TransformFile)
	learned, err := prepare.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	cities := learned.Steps[len(learned.Steps)-1].OneHot[0].Values
	cities[0], cities[1] = cities[1], cities[0]
	learned.Output[1], learned.Output[2] = learned.Output[2], learned.Output[1]
	if err := learned.Save(file); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), t, on(t, prepared)); err == nil || !strings.Contains(err.Error(), "prepared with") {
		t.Errorf("columns in another order: %v", err)
	}
	if err := os.WriteFile(file, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), t, on(t, prepared)); err == nil || !strings.Contains(err.Error(), "is a transform of") {
		t.Errorf("rubbish: %v", err)
	}
}
