package spec_test

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/spec"
)

const good = `{
	"network": {"input": [1, 8, 8], "loss": "cross_entropy", "layers": [
		{"conv2d": {"filters": 8, "kernel": 3, "padding": "same", "activation": "relu"}},
		{"pool": {"kind": "max", "size": 2}},
		{"conv2d": {"filters": 4, "kernel": 3, "stride": 2}},
		{"flatten": {}}, {"dropout": {"rate": 0.2}}, {"dense": {"units": 10}}]},
	"optimizer": {"adam": {"rate": 0.001}}, "data": {"format": "csv", "label": 64, "scale": 16},
	"epochs": 3, "batch": 32}`

func parse(t testing.TB, text string) spec.Training {
	t.Helper()
	var s spec.Training
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestShapesAreInferredThroughTheLayers(t *testing.T) {
	s := parse(t, good)
	if p := s.Validate(); len(p) > 0 {
		t.Fatal(p)
	}
	plan, _ := s.Network.Plan()
	var shapes []string
	for _, stage := range plan.Stages {
		shapes = append(shapes, fmt.Sprint(stage.Out))
	}
	want := []string{"[8 8 8]", "[8 4 4]", "[4 1 1]", "[4]", "[4]", "[10]"}
	if !slices.Equal(shapes, want) {
		t.Errorf("shapes %v, want %v", shapes, want)
	}
	if want := 8*9 + 8 + 4*8*9 + 4 + 4*10 + 10; plan.Parameters != want {
		t.Errorf("%d parameters, want %d", plan.Parameters, want)
	}
	worker, servers := s.Footprint(plan, 32, 2)
	if worker < int64(4*plan.Parameters) || servers < int64(4*4*plan.Parameters) {
		t.Errorf("footprint %d and %d", worker, servers)
	}
}

func TestTheExampleIsGood(t *testing.T) {
	text, err := os.ReadFile("../../examples/digits/training.json")
	if err != nil {
		t.Fatal(err)
	}
	if p := parse(t, string(text)).Validate(); len(p) > 0 {
		t.Error(p)
	}
}

// Each row breaks the good spec in one place; the mistake is found at that path.
func TestEachMistakeIsNamedByItsPath(t *testing.T) {
	for _, row := range []struct{ from, to, path string }{
		{`[1, 8, 8]`, `[]`, "network.input"},
		{`[1, 8, 8]`, `[1, 8]`, "network.input"},
		{`[1, 8, 8]`, `[1, 0, 8]`, "network.input[1]"},
		{`[1, 8, 8]`, `[1048576, 1048576, 1048576]`, "network.input"},
		{`cross_entropy`, `hinge`, "network.loss"},
		{`cross_entropy`, `mse`, "network.loss"},
		{`"units": 10`, `"units": 1`, "network.loss"},
		{`"units": 10`, `"units": -1`, "network.layers[5].dense.units"},
		{`"units": 10`, `"units": 10, "activation": "swish"`, "network.layers[5].dense.activation"},
		{`"rate": 0.2`, `"rate": 1`, "network.layers[4].dropout.rate"},
		{`{"flatten": {}}, `, ``, "network.layers[4].dense"},
		{`"kind": "max"`, `"kind": "min"`, "network.layers[1].pool.kind"},
		{`"size": 2`, `"size": 9`, "network.layers[1].pool.size"},
		{`"kernel": 3, "stride": 2`, `"kernel": 5, "stride": 2`, "network.layers[2].conv2d.kernel"},
		{`"padding": "same"`, `"padding": "half"`, "network.layers[0].conv2d.padding"},
		{`"stride": 2`, `"stride": -2`, "network.layers[2].conv2d.stride"},
		{`{"flatten": {}}`, `{}`, "network.layers[3]"},
		{`{"flatten": {}}`, `{"flatten": {}, "dense": {"units": 3}}`, "network.layers[3]"},
		{`"units": 10`, `"units": 1048576`, ""},
		{`{"adam": {"rate": 0.001}}`, `{}`, "optimizer"},
		{`{"adam": {"rate": 0.001}}`, `{"sgd": {"rate": 1}, "adam": {"rate": 1}}`, "optimizer"},
		{`"rate": 0.001`, `"rate": 0`, "optimizer.adam.rate"},
		{`"rate": 0.001`, `"rate": 1, "beta1": 1`, "optimizer.adam.beta1"},
		{`"csv"`, `"parquet"`, "data.format"},
		{`"label": 64`, `"label": "digit"`, "data.label"},
		{`"label": 64`, `"label": -1`, "data.label"},
		{`"scale": 16`, `"validation_fraction": 1`, "data.validation_fraction"},
		{`"scale": 16`, `"scale": 1e-40`, "data.scale"},
		{`"scale": 16`, `"classes": ["a", "b"]`, "data.classes"},
		{`"epochs": 3`, `"epochs": 0`, "epochs"},
		{`"batch": 32`, `"batch": 0`, "batch"},
		{`"batch": 32`, `"batch": 1, "checkpoint_every": -1`, "checkpoint_every"},
		{`"batch": 32`, `"batch": 1, "target_accuracy": 2`, "target_accuracy"},
	} {
		text := strings.Replace(good, row.from, row.to, 1)
		if text == good {
			t.Fatalf("%s is not in the spec", row.from)
		}
		problems := parse(t, text).Validate()
		if row.path == "" && len(problems) == 0 {
			continue // large, and still allowed
		}
		if len(problems) != 1 || problems[0].Path != row.path {
			t.Errorf("%s: %v, want one problem at %s", row.to, problems, row.path)
		}
		if !fault.Is(problems.Err(), fault.Invalid) {
			t.Errorf("%s: the error is not of kind invalid", row.to)
		}
	}
}

func TestAllMistakesAreReportedAtOnce(t *testing.T) {
	text := strings.NewReplacer(`"kind": "max"`, `"kind": "min"`, `"rate": 0.2`, `"rate": 7`, `"epochs": 3`, `"epochs": -3`, `"csv"`, `"tsv"`).Replace(good)
	if p := parse(t, text).Validate(); len(p) != 4 {
		t.Errorf("%d problems, want 4:\n%v", len(p), p)
	}
}

// What changes the weights changes the digest; how long to train does not.
func TestDigest(t *testing.T) {
	s := parse(t, good)
	longer, other := s, s
	longer.Epochs, longer.CheckpointEvery = 90, 7
	other.Seed = 1
	if s.Digest(2) != longer.Digest(2) || s.Digest(2) == other.Digest(2) || s.Digest(2) == s.Digest(3) {
		t.Error("the digest follows the wrong fields")
	}
}

func TestLabelColumns(t *testing.T) {
	for text, want := range map[string]int{`"last"`: 3, `"first"`: 0, `2`: 2, `"b"`: 1, `4`: -1, `-1`: -1, `"z"`: -1} {
		var c spec.Column
		if err := json.Unmarshal([]byte(text), &c); err != nil {
			t.Fatal(err)
		}
		got, err := c.Resolve(4, []string{"a", "b", "c", "d"})
		if (err != nil) != (want < 0) || (err == nil && got != want) {
			t.Errorf("%s: column %d, %v, want %d", text, got, err, want)
		}
		if again, err := json.Marshal(c); err != nil || string(again) != text {
			t.Errorf("%s is written as %s, %v", text, again, err)
		}
	}
}

// Whatever the layers are, a plan is sound: parameters follow one another without a gap,
// and each layer takes what the one before gives.
func TestPlansAreSound(t *testing.T) {
	planned := 0
	rapid.Check(t, func(t *rapid.T) {
		n := spec.Network{Input: []int{rapid.IntRange(1, 3).Draw(t, "c"), rapid.IntRange(1, 9).Draw(t, "h"), rapid.IntRange(1, 9).Draw(t, "w")}, Loss: spec.CrossEntropy}
		for range rapid.IntRange(0, 4).Draw(t, "layers") {
			if rapid.Bool().Draw(t, "conv") {
				n.Layers = append(n.Layers, spec.Layer{Conv2D: &spec.Conv2D{
					Filters: rapid.IntRange(1, 4).Draw(t, "filters"), Kernel: rapid.IntRange(1, 4).Draw(t, "kernel"),
					Stride: rapid.IntRange(0, 3).Draw(t, "stride"), Padding: rapid.SampledFrom([]string{"", "same", "valid"}).Draw(t, "padding"),
				}})
			} else {
				n.Layers = append(n.Layers, spec.Layer{Pool: &spec.Pool{Kind: "max", Size: rapid.IntRange(1, 3).Draw(t, "size"), Stride: rapid.IntRange(0, 3).Draw(t, "stride")}})
			}
		}
		n.Layers = append(n.Layers, spec.Layer{Flatten: &spec.Flatten{}}, spec.Layer{Dense: &spec.Dense{Units: 3}})
		plan, problems := n.Plan()
		if len(problems) > 0 {
			return
		}
		planned++
		at, shape := 0, n.Input
		for i, s := range plan.Stages {
			if !slices.Equal(s.In, shape) || spec.Volume(s.Out) < 1 {
				t.Fatalf("layer %d: %v to %v after %v", i, s.In, s.Out, shape)
			}
			shape = s.Out
			if s.Bias.Len() > 0 {
				if s.Weights.From != at || s.Bias.From != s.Weights.To {
					t.Fatalf("layer %d: parameters %v %v after %d", i, s.Weights, s.Bias, at)
				}
				at = s.Bias.To
			}
		}
		if at != plan.Parameters {
			t.Fatalf("%d parameters, the layers have %d", plan.Parameters, at)
		}
	})
	if planned < 5 {
		t.Errorf("only %d networks were planned", planned)
	}
}
