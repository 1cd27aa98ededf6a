package checkpoint_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/checkpoint"
	"github.com/clary-ml/clary/trainer/prepare"
	"github.com/clary-ml/clary/trainer/table"
)

// transform turns an age and a city into three columns.
func transform(cities ...string) *prepare.Transform {
	t := &prepare.Transform{
		Version: "clary-transform/1", Label: "bought",
		Input: []table.Field{{Name: "age", Kind: table.Number}, {Name: "city", Kind: table.Text}},
		Steps: []prepare.Learned{
			{Fill: &prepare.LearnedFill{Numbers: map[string]float64{"age": 40}}},
			{Scale: &prepare.LearnedScale{Columns: []string{"age"}, Offset: []float64{20}, Factor: []float64{0.05}}},
			{OneHot: []prepare.LearnedOneHot{{Column: "city", Values: cities}}},
		},
		Output: []string{"age"},
	}
	for _, city := range cities {
		t.Output = append(t.Output, "city="+city)
	}
	return t
}

func TestAModelKeepsItsTransform(t *testing.T) {
	dir := t.TempDir()
	m := checkpoint.Manifest{Network: network, Transform: &checkpoint.Transformed{Transform: transform("Oslo", "Rome")}}
	if err := checkpoint.SaveModel(dir, m, make([]float32, 8)); err != nil {
		t.Fatal(err)
	}
	got, err := checkpoint.LoadModel(dir)
	if err != nil || got.Transform == nil || strings.Join(got.Transform.Transform.Output, " ") != "age city=Oslo city=Rome" {
		t.Fatalf("%+v, %v", got.Transform, err)
	}
	if got.Framework == checkpoint.Framework {
		t.Error("a program that knows no transforms would take the model")
	}
	if got.Transform.Inputs != checkpoint.SchemaDigest(transform("Oslo").Input) {
		t.Error("the digest of the raw columns is another's")
	}
}

func TestATransformThatIsNotTheModelsIsRefused(t *testing.T) {
	dir := t.TempDir()
	m := checkpoint.Manifest{Network: network, Transform: &checkpoint.Transformed{Transform: transform("Oslo", "Rome")}}
	if err := checkpoint.SaveModel(dir, m, make([]float32, 8)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, prepare.TransformFile)
	for _, c := range []struct {
		name, says string
		change     func() error
	}{
		{"of other data", "is not the one it was trained with", func() error { return transform("Rome", "Oslo").Save(file) }},
		{"of other columns", "is not the one it was trained with", func() error { return transform("Rome").Save(file) }},
		{"cut short", "is not the one it was trained with", func() error { return os.Truncate(file, 100) }},
		{"gone", "read the model's transform", func() error { return os.Remove(file) }},
	} {
		if err := c.change(); err != nil {
			t.Fatal(err)
		}
		if _, err := checkpoint.LoadModel(dir); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	// One that has the right digest and is wrong for the network: three inputs, and it makes two.
	m.Transform = &checkpoint.Transformed{Transform: transform("Oslo")}
	if err := checkpoint.SaveModel(dir, m, make([]float32, 8)); err != nil {
		t.Fatal(err)
	}
	if _, err := checkpoint.LoadModel(dir); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "makes 2 columns, and the network's input is [3]") {
		t.Errorf("two columns for three inputs: %v", err)
	}
}

func TestATransformThatLeavesTextIsRefused(t *testing.T) {
	left := transform("Oslo")
	left.Steps, left.Output = left.Steps[:2], []string{"age", "city"}
	plan, _ := network.Plan()
	plan.Input = []int{2}
	if err := checkpoint.CheckTransform(left, plan); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), `column "city" as text`) {
		t.Errorf("text for a network: %v", err)
	}
}
