package tuner_test

import (
	"math"
	"slices"
	"testing"

	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/space"
)

func TestMeritPutsWhatIsKnownToBeGoodFirst(t *testing.T) {
	h := begin(t, tuner.Problem{
		Space: ints(t, 99), Objectives: []tuner.Objective{{Name: "accuracy", Direction: tuner.Maximize}},
		Limits: []tuner.Limit{{Name: "memory", Max: number(10)}}, Fidelity: tuner.Fidelity{Max: 9},
	})
	var want []string
	names := make(map[int]string)
	add := func(name string, curve []float64, end *tuner.Result) {
		t.Helper()
		n, err := h.Add(space.Config{float64(h.Len()), 0})
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range curve {
			if err := h.Report(n, float64(i+1), v); err != nil {
				t.Fatal(err)
			}
		}
		if end != nil {
			if err := h.End(n, *end); err != nil {
				t.Fatal(err)
			}
		}
		names[n] = name
		want = append(want, name)
	}
	complete := func(value, memory float64) *tuner.Result {
		return &tuner.Result{State: tuner.Complete, Values: []float64{value}, Limits: []float64{memory}}
	}
	add("best", nil, complete(0.9, 10))
	add("running, with a good point", []float64{0.1, 0.85}, nil)
	add("good", nil, complete(0.8, 1))
	add("as good, later", nil, complete(0.8, 1))
	add("stopped", []float64{0.95, 0.7}, &tuner.Result{State: tuner.Stopped})
	add("bad", nil, complete(-1e300, 1))
	add("a little outside", nil, complete(0.99, 11))
	add("far outside", nil, complete(0.999, 12))
	add("stopped without a point", nil, &tuner.Result{State: tuner.Stopped})
	add("not a number", nil, complete(math.NaN(), 1))
	add("failed later", []float64{0.99}, &tuner.Result{State: tuner.Failed})
	known := len(want)
	add("pending", nil, nil)
	add("cancelled", []float64{1}, &tuner.Result{State: tuner.Cancelled})

	var merits []tuner.Merit
	for n := range h.Len() {
		if m, ok := h.MeritOf(n); ok {
			merits = append(merits, m)
			if measured := n < 8; m.Measured() != measured {
				t.Errorf("%s: measured is %v", names[n], m.Measured())
			}
		}
	}
	slices.Reverse(merits)
	slices.SortFunc(merits, tuner.Merit.Compare)
	var got []string
	for _, m := range merits {
		got = append(got, names[m.Number()])
	}
	if !slices.Equal(got, want[:known]) {
		t.Errorf("%q\nwant\n%q", got, want[:known])
	}
}

func TestTheFrontHoldsWhatNothingDominates(t *testing.T) {
	h := begin(t, tuner.Problem{Space: ints(t, 99), Objectives: []tuner.Objective{{Name: "a"}, {Name: "b", Direction: tuner.Maximize}}, Limits: []tuner.Limit{{Name: "c", Min: number(0)}}})
	for i, v := range [][3]float64{{5, 5, 0}, {6, 4, 0}, {4, 4, 0}, {5, 5, 0}, {1, 9, -1}, {9, 9, 0}, {3, 4.5, 0}, {math.NaN(), 99, 0}} {
		if _, err := h.Add(space.Config{float64(i), 0}); err != nil {
			t.Fatal(err)
		}
		if err := h.End(i, tuner.Result{State: tuner.Complete, Values: v[:2], Limits: v[2:]}); err != nil {
			t.Fatal(err)
		}
	}
	if got := h.Front(); !slices.Equal(got, []int{0, 5, 6}) {
		t.Errorf("the front is %v", got)
	}
	all := []int{0, 1, 2, 3, 4, 5, 6}
	// Of the first layer {0, 3, 5, 6} the ends are loneliest, then the second layer, then
	// what is outside.
	if got := h.Foremost(all, 7); !slices.Equal(got[len(got)-1:], []int{4}) || !slices.Contains(got[:4], 3) || !slices.Contains(got[4:6], 2) {
		t.Errorf("in order: %v", got)
	}
	if got := h.Foremost(all, 2); !slices.Equal(got, []int{5, 6}) {
		t.Errorf("the two loneliest of the front: %v", got)
	}
}
