package plain_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/plain"
	"github.com/clary-ml/clary/tuner/space"
	"github.com/clary-ml/clary/tuner/tunertest"
)

func TestRandomKeepsTheLaws(t *testing.T) { tunertest.Run(t, tunertest.Suite{Make: plain.Random}) }
func TestQuasiKeepsTheLaws(t *testing.T)  { tunertest.Run(t, tunertest.Suite{Make: plain.Quasi}) }
func TestGridKeepsTheLaws(t *testing.T) {
	tunertest.Run(t, tunertest.Suite{Make: plain.Grid, OneSeed: true})
}

func number(v float64) *float64 { return &v }

func all(t *testing.T, budget int, parameters ...space.Parameter) []string {
	t.Helper()
	s, err := space.Spec{Parameters: parameters}.Compile()
	if err != nil {
		t.Fatal(err)
	}
	p := tuner.Problem{Space: s, Objectives: []tuner.Objective{{Name: "loss"}}, Budget: budget}
	sampler, err := plain.Grid(p)
	if err != nil {
		t.Fatal(err)
	}
	h, err := tuner.NewHistory(p)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for {
		n, err := tuner.Ask(sampler, h)
		if errors.Is(err, tuner.ErrExhausted) {
			slices.Sort(got)
			return got
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprint(s.Values(h.Config(n))))
	}
}

func TestGridGivesARangeWhatTheBudgetHasRoomFor(t *testing.T) {
	lr := space.Parameter{Name: "lr", Type: space.Float, Low: number(0.001), High: number(1), Scale: space.Log}
	depth := space.Parameter{Name: "depth", Type: space.Int, Low: number(1), High: number(2)}
	if got, want := fmt.Sprint(all(t, 9, lr, depth)), "[map[depth:1 lr:0.001] map[depth:1 lr:0.01] map[depth:1 lr:0.1] map[depth:1 lr:1] map[depth:2 lr:0.001] map[depth:2 lr:0.01] map[depth:2 lr:0.1] map[depth:2 lr:1]]"; got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if got := all(t, 1, lr, depth); len(got) != 4 {
		t.Errorf("two points at least: %v", got)
	}
	if got := all(t, 0, lr); len(got) != 5 {
		t.Errorf("without a budget: %v", got)
	}
	long := space.Parameter{Name: "n", Type: space.Int, Low: number(1), High: number(1000), Scale: space.Log}
	if got := all(t, 40, long); len(got) < 30 || len(got) > 40 {
		t.Errorf("a thinned log range has %d points", len(got))
	}
	if got := all(t, 3, space.Parameter{Name: "n", Type: space.Int, Low: number(1), High: number(32)}); len(got) != 32 {
		t.Errorf("a short range has %d points", len(got))
	}
}

func TestAGridThatNobodyCouldFinishIsRefused(t *testing.T) {
	var parameters []space.Parameter
	for i := range 70 {
		parameters = append(parameters, space.Parameter{Name: fmt.Sprint("x", i), Type: space.Float, Low: number(0), High: number(1)})
	}
	s, err := space.Spec{Parameters: parameters}.Compile()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := plain.Grid(tuner.Problem{Space: s}); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
}
