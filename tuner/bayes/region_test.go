package bayes_test

import (
	"math"
	"testing"

	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/bayes"
)

// TestLooksAroundTheBestWhileNothingImproves has the first trial, in the middle, succeed and
// no other: from the 20th of those on the search is confined to half as much around it after each
// four, until it has nothing to show there either.
func TestLooksAroundTheBestWhileNothingImproves(t *testing.T) {
	h, err := tuner.NewHistory(floats(t, 2))
	if err != nil {
		t.Fatal(err)
	}
	lived, err := bayes.New(h.Problem())
	if err != nil {
		t.Fatal(err)
	}
	var far []float64 // from the middle, as a share of the space
	for len(far) < 60 {
		fresh, err := bayes.New(h.Problem())
		if err != nil {
			t.Fatal(err)
		}
		again, err := fresh.Suggest(h)
		if err != nil {
			t.Fatal(err)
		}
		trial, err := tuner.Ask(lived, h)
		if err != nil {
			t.Fatal(err)
		}
		most, loss := 0.0, 1.0
		for j, v := range h.Config(trial) {
			if v != again[j] {
				t.Fatalf("after %d results a restart changes the suggestion from %v to %v", len(far), h.Config(trial), again)
			}
			most = math.Max(most, math.Abs(v)/10)
		}
		if far = append(far, most); trial == 0 {
			loss = 0
		}
		if err := h.End(trial, complete(loss)); err != nil {
			t.Fatal(err)
		}
	}
	if far[0] != 0 {
		t.Fatalf("the first trial is %g from the middle", far[0])
	}
	farthest := func(from, to int) float64 {
		most := 0.0
		for _, v := range far[from:to] {
			most = math.Max(most, v)
		}
		return most
	}
	for _, c := range []struct {
		from, to    int
		least, most float64
	}{{1, 21, 0.4, 0.5}, {33, 37, 0, 0.1}, {41, 45, 0, 0.025}, {49, 60, 0.2, 0.5}} {
		if got := farthest(c.from, c.to); got < c.least || got > c.most {
			t.Errorf("trials %d to %d go up to %g from the best: they are to go %g to %g: %.3f", c.from, c.to-1, got, c.least, c.most, far)
		}
	}
}
