package importance_test

import (
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/chance"
	"github.com/clary-ml/clary/tuner/expr"
	"github.com/clary-ml/clary/tuner/importance"
	"github.com/clary-ml/clary/tuner/space"
)

// tried is a search of n random trials.
func tried(t testing.TB, n int, parameters []space.Parameter, loss func(map[string]expr.Value) float64) *tuner.History {
	t.Helper()
	s, err := space.Spec{Parameters: parameters}.Compile()
	if err != nil {
		t.Fatal(err)
	}
	h, err := tuner.NewHistory(tuner.Problem{Space: s, Objectives: []tuner.Objective{{Name: "loss"}}})
	if err != nil {
		t.Fatal(err)
	}
	r := chance.New(3)
	for range n {
		c, err := h.Draw(r)
		if err != nil {
			t.Fatal(err)
		}
		number, err := h.Add(c)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.End(number, tuner.Result{State: tuner.Complete, Values: []float64{loss(s.Values(c))}}); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func float(name string) space.Parameter {
	low, high := 0.0, 1.0
	return space.Parameter{Name: name, Type: space.Float, Low: &low, High: &high}
}

func shares(list []importance.Share) map[string]float64 {
	m := make(map[string]float64)
	for _, s := range list {
		m[strings.Join(s.Names, "*")] = s.Share
	}
	return m
}

func TestSharesOfAKnownFunctionAreFound(t *testing.T) {
	choice := space.Parameter{Name: "c", Type: space.Categorical, Choices: []expr.Value{expr.Str("a"), expr.Str("b"), expr.Str("c"), expr.Str("d")}}
	for name, c := range map[string]struct {
		loss    func(map[string]expr.Value) float64
		singles map[string]float64
	}{
		// Variances 9/12 and 1/12; and of (x-1/2)(y-1/2), 1/144 of the pair alone.
		"sum":     {loss: func(v map[string]expr.Value) float64 { return 3*v["x"].Number() + v["y"].Number() }, singles: map[string]float64{"x": 0.9, "y": 0.1, "z": 0, "c": 0}},
		"product": {loss: func(v map[string]expr.Value) float64 { return (v["x"].Number() - 0.5) * (v["y"].Number() - 0.5) }, singles: map[string]float64{"x": 0, "y": 0, "x*y": 1}},
		// A choice in a pattern that no order shows.
		"choice": {loss: func(v map[string]expr.Value) float64 {
			return map[string]float64{"a": 1, "b": 0, "c": 1, "d": 0}[v["c"].String()] + v["x"].Number()
		}, singles: map[string]float64{"c": 0.75, "x": 0.25, "y": 0}},
	} {
		h := tried(t, 400, []space.Parameter{float("x"), float("y"), float("z"), choice}, c.loss)
		singles, pairs, err := importance.Of(h, 0)
		if err != nil {
			t.Fatal(err)
		}
		got := shares(append(singles, pairs...))
		for key, want := range c.singles {
			value, found := got[key]
			if !found {
				value = got["y*x"]
			}
			if math.Abs(value-want) > 0.12 {
				t.Errorf("%s: %s explains %.3f, want %.3f", name, key, value, want)
			}
		}
		total := 0.0
		for i, s := range singles {
			total += s.Share
			if i > 0 && s.Share > singles[i-1].Share {
				t.Errorf("%s: not sorted: %v", name, singles)
			}
		}
		for _, p := range pairs {
			total += p.Share
		}
		if total > 1+1e-9 {
			t.Errorf("%s: shares add up to %v", name, total)
		}
	}
}

func TestOneTerribleTrialDoesNotHideTheRest(t *testing.T) {
	n := 0
	h := tried(t, 200, []space.Parameter{float("x"), float("y")}, func(v map[string]expr.Value) float64 {
		if n++; n == 77 {
			return 1e300
		}
		return v["x"].Number()
	})
	singles, _, err := importance.Of(h, 0)
	if err != nil {
		t.Fatal(err)
	}
	if singles[0].Names[0] != "x" || singles[0].Share < 0.8 {
		t.Errorf("%+v", singles)
	}
}

func TestTheSameTrialsGiveTheSameShares(t *testing.T) {
	loss := func(v map[string]expr.Value) float64 { return v["x"].Number() * v["y"].Number() }
	a, pairsA, errA := importance.Of(tried(t, 60, []space.Parameter{float("x"), float("y")}, loss), 0)
	b, pairsB, errB := importance.Of(tried(t, 60, []space.Parameter{float("y"), float("x")}, loss), 0)
	if errA != nil || errB != nil || !reflect.DeepEqual(a, b) || !reflect.DeepEqual(pairsA, pairsB) {
		t.Errorf("%v %v, then %v %v", a, pairsA, b, pairsB)
	}
}

func TestTooLittleToSayIsSaid(t *testing.T) {
	x := []space.Parameter{float("x")}
	one := func(map[string]expr.Value) float64 { return 1 }
	value := func(v map[string]expr.Value) float64 { return v["x"].Number() }
	for want, h := range map[string]*tuner.History{
		"9 trials are complete: importance needs 10": tried(t, 9, x, value),
		"all 20 complete trials came out the same":   tried(t, 20, x, one),
		"0 trials are complete: importance needs 10": tried(t, 0, x, value),
	} {
		if _, _, err := importance.Of(h, 0); !fault.Is(err, fault.Unready) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if _, _, err := importance.Of(tried(t, 20, x, value), 1); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

func BenchmarkOf(b *testing.B) {
	var parameters []space.Parameter
	for i := range 10 {
		parameters = append(parameters, float(fmt.Sprint("x", i)))
	}
	for _, n := range []int{100, 2000} {
		h := tried(b, n, parameters, func(v map[string]expr.Value) float64 { return v["x3"].Number() * v["x5"].Number() })
		b.Run(fmt.Sprintf("trials=%d", n), func(b *testing.B) {
			for b.Loop() {
				if _, _, err := importance.Of(h, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
