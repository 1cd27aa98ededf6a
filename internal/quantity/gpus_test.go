package quantity_test

import (
	"encoding/json"
	"testing"

	"github.com/clary-ml/clary/internal/quantity"
)

func TestGPUsAreWholeOnesOrAShareOfOne(t *testing.T) {
	for text, want := range map[string][2]int64{"0": {0, 0}, "1": {1, 0}, "8": {8, 0}, "0.25": {0, 250}, ".5": {0, 500}, "0.001": {0, 1}, "1e1": {10, 0}} {
		got, err := quantity.ParseGPUs(text)
		whole, milli := got.Split()
		if err != nil || whole != want[0] || milli != want[1] {
			t.Errorf("%q is %d and %d thousandths, %v", text, whole, milli, err)
		}
	}
	for _, text := range []string{"", "one", "-1", "-0.5", "1.5", "NaN", "Inf", "-Inf", "1e300", "0x1", "0.0001", "0.9999", "1_0", "2.0001"} {
		if got, err := quantity.ParseGPUs(text); err == nil {
			t.Errorf("%q is %d", text, got)
		}
	}
}

func TestGPUsInJSONAreNumbers(t *testing.T) {
	for _, text := range []string{"2", "0.25"} {
		var g quantity.GPUs
		if err := json.Unmarshal([]byte(text), &g); err != nil {
			t.Fatal(err)
		}
		if back, err := json.Marshal(g); err != nil || string(back) != text {
			t.Errorf("%s becomes %s, %v", text, back, err)
		}
	}
}
