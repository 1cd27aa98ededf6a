package tunertest

import (
	"fmt"
	"testing"

	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/chance"
	"github.com/clary-ml/clary/tuner/expr"
	"github.com/clary-ml/clary/tuner/space"
)

// Latency measures a suggestion after so many results with so many trials pending, in a
// space of six floats, two ints and two categories. The sampler has caught up before.
func Latency(b *testing.B, make tuner.Maker, results, pending int) {
	var spec space.Spec
	for i := range 6 {
		low, high := 1e-5, 1.0
		spec.Parameters = append(spec.Parameters, space.Parameter{Name: fmt.Sprint("float", i), Type: space.Float, Low: &low, High: &high, Scale: space.Log})
	}
	for i := range 2 {
		low, high := 1.0, 512.0
		spec.Parameters = append(
			spec.Parameters,
			space.Parameter{Name: fmt.Sprint("int", i), Type: space.Int, Low: &low, High: &high},
			space.Parameter{Name: fmt.Sprint("choice", i), Type: space.Categorical, Choices: []expr.Value{expr.Str("a"), expr.Str("b"), expr.Str("c")}},
		)
	}
	compiled, err := spec.Compile()
	if err != nil {
		b.Fatal(err)
	}
	problem := tuner.Problem{Space: compiled, Seed: 1, Objectives: []tuner.Objective{{Name: "loss"}}}
	h, err := tuner.NewHistory(problem)
	if err != nil {
		b.Fatal(err)
	}
	sampler, err := make(problem)
	if err != nil {
		b.Fatal(err)
	}
	p := play{h, sampler}
	r := chance.New(5)
	add := func(end bool) {
		c, err := h.Draw(r)
		if err != nil {
			b.Fatal(err)
		}
		number, err := h.Add(c)
		if err != nil {
			b.Fatal(err)
		}
		if end {
			if err := h.End(number, p.score(number)); err != nil {
				b.Fatal(err)
			}
		}
	}
	for range results {
		add(true)
	}
	for range pending {
		add(false)
	}
	if _, err := sampler.Suggest(h); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		add(true) // each suggestion sees one more result
		if _, err := sampler.Suggest(h); err != nil {
			b.Fatal(err)
		}
	}
}
