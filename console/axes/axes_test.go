package axes_test

import (
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/console/axes"
	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/space"
)

func texts(ticks []axes.Tick) string {
	var all []string
	for _, t := range ticks {
		all = append(all, t.Text)
	}
	return strings.Join(all, " ")
}

func TestTicksAreRoundAndTellOneFromTheNext(t *testing.T) {
	for _, row := range []struct {
		scale     space.Scale
		low, high float64
		whole     bool
		want      string
	}{
		{space.Linear, 0, 1, false, "0.0 0.2 0.4 0.6 0.8 1.0"},
		{space.Linear, 0, 1, true, "0 1"},
		{space.Linear, 1, 8, true, "1 2 3 4 5 6 7 8"},
		{space.Linear, -3, 40, false, "0 10 20 30 40"},
		{space.Linear, 1000.1, 1000.2, false, "1000.10 1000.12 1000.14 1000.16 1000.18 1000.20"},
		{space.Log, 1e-4, 0.1, false, "1e-4 0.001 0.01 0.1"},
		{space.Log, 1e-9, 1e9, false, "1e-9 1e-6 0.001 1 1000 1e6 1e9"},
		{space.Log, 20, 900, false, "20 50 100 200 500"},
		{space.Log, 3, 4, false, "3.0 3.2 3.4 3.6 3.8 4.0"},
		{space.ReverseLog, 0.5, 0.999, false, "0.5 0.9 0.99 0.999"},
		{space.Logit, 0.01, 0.99, false, "0.01 0.1 0.5 0.9 0.99"},
	} {
		if got := texts(axes.Ticks(row.scale, row.low, row.high, row.whole)); got != row.want {
			t.Errorf("%s from %v to %v: %s, want %s", row.scale, row.low, row.high, got, row.want)
		}
	}
}

func TestTheGoodEndIsOnTheAxisAndFarOutliersAtTheBadEndAreNot(t *testing.T) {
	values := []float64{0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1e9}
	a := axes.OfValues(values, tuner.Minimize, 100, 0)
	if a.Low > 0.1 || a.High > 10 {
		t.Errorf("from %v to %v", a.Low, a.High)
	}
	if a.Place(1e9) != 0 || a.Place(0.1) < 90 {
		t.Error(a.Place(1e9), a.Place(0.1))
	}
	if a = axes.OfValues(values, tuner.Maximize, 100, 0); a.High < 1e9 {
		t.Errorf("to maximise, up to %v", a.High)
	}
}

func TestChoicesHavePlacesOfTheirOwn(t *testing.T) {
	q, err := space.ParseShort("act=relu,tanh,elu")
	if err != nil {
		t.Fatal(err)
	}
	a := axes.OfParameter(q, 0, 30)
	if got := texts(a.Ticks); got != "relu tanh elu" {
		t.Error(got)
	}
	for i, want := range []float64{5, 15, 25} {
		if got := a.Place(float64(i)); math.Abs(got-want) > 1e-9 {
			t.Errorf("choice %d stands at %v", i, got)
		}
	}
}

func TestPlacesLieOnTheAxisAndInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Float64Range(-math.MaxFloat64, math.MaxFloat64), 1, 30).Draw(t, "values")
		direction := rapid.SampledFrom([]tuner.Direction{tuner.Minimize, tuner.Maximize}).Draw(t, "direction")
		a := axes.OfValues(values, direction, 10, 200)
		for _, v := range values {
			at := a.Place(v)
			if !(at >= 10 && at <= 200) {
				t.Fatalf("%v stands at %v on the axis from %v to %v", v, at, a.Low, a.High)
			}
			for _, w := range values {
				if v < w && at > a.Place(w) {
					t.Fatalf("%v stands behind %v", v, w)
				}
			}
		}
		for _, tick := range a.Ticks {
			if at := a.Place(tick.At); !(at >= 10 && at <= 200) || tick.Text == "" {
				t.Fatalf("tick %+v stands at %v", tick, at)
			}
		}
	})
}
