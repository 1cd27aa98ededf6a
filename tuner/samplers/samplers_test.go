package samplers_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/expr"
	"github.com/clary-ml/clary/tuner/samplers"
	"github.com/clary-ml/clary/tuner/space"
)

func TestAutoChoosesByTheProblem(t *testing.T) {
	auto, err := samplers.Named("auto")
	if err != nil {
		t.Fatal(err)
	}
	low, high := 0.0, 1.0
	number := space.Parameter{Name: "x", Type: space.Float, Low: &low, High: &high}
	choice := space.Parameter{Name: "c", Type: space.Categorical, Choices: []expr.Value{expr.Str("a"), expr.Str("b")}}
	one, two := []tuner.Objective{{Name: "a"}}, []tuner.Objective{{Name: "a"}, {Name: "b"}}
	for _, c := range []struct {
		parameters []space.Parameter
		objectives []tuner.Objective
		budget     int
		want       string
	}{
		{[]space.Parameter{number}, one, 0, "*bayes.sampler"},
		{[]space.Parameter{number}, one, 100, "*bayes.sampler"},
		{[]space.Parameter{number}, one, 5000, "*cmaes.sampler"},
		{[]space.Parameter{number}, two, 5000, "*bayes.sampler"},
		{[]space.Parameter{number, choice}, one, 5000, "*bayes.sampler"},
	} {
		compiled, err := space.Spec{Parameters: c.parameters}.Compile()
		if err != nil {
			t.Fatal(err)
		}
		s, err := auto(tuner.Problem{Space: compiled, Objectives: c.objectives, Budget: c.budget})
		if got := fmt.Sprintf("%T", s); err != nil || got != c.want {
			t.Errorf("%d parameters, %d objectives, budget %d: %s (%v), want %s", len(c.parameters), len(c.objectives), c.budget, got, err, c.want)
		}
	}
}

func TestASamplerThatIsNotThereIsRefusedWithTheNames(t *testing.T) {
	_, err := samplers.Named("genetic")
	if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), `there is no sampler "genetic": there are auto, bayes, cmaes, grid, quasi, random, tpe`) {
		t.Error(err)
	}
}
