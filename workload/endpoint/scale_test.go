package endpoint_test

import (
	"slices"
	"testing"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/workload/endpoint"
)

const scaled = `{"variants": [{"program": {"command": ["serve", "1"]}, "scaling": {"min": 0, "max": 4, "policies": [{"metric": "concurrency", "target": 2}]}}]}`

func TestAVariantThatScalesBeginsWithOneAndKeepsItsBounds(t *testing.T) {
	w := up(t, scaled)
	if f := w.e.Fleets[0]; f.Replicas != 1 {
		t.Errorf("%+v", f)
	}
	if s, does, err := endpoint.Scaling(w.e.Fleets[0]); err != nil || !does || s.Max != 4 || len(s.Policies) != 1 {
		t.Errorf("%+v %v %v", s, does, err)
	}
	before := string(w.e.Spec)
	e, err := endpoint.SetReplicas(w.job, *w.e, "main", 3, w.who())
	if w.ask("replicas", e, err) != nil || w.e.Fleets[0].Replicas != 3 || w.e.Fleets[0].Scaled != w.now || !sameSpec(t, before, string(w.e.Spec)) {
		t.Errorf("%v, %+v", err, w.e)
	}
	if _, err := endpoint.SetReplicas(w.job, *w.e, "main", 5, w.who()); !fault.Is(err, fault.Invalid) || !contains(err.Error(), "scales by itself from 0 to 4") {
		t.Errorf("%v", err)
	}
	e, err = endpoint.Scale(*w.e, "main-1", 0, []byte(`{"idle": true}`), "nobody asks", w.now)
	if w.ask("scale", e, err) != nil || string(w.e.Fleets[0].Scaler) != `{"idle": true}` {
		t.Errorf("%v, %+v", err, w.e)
	}
	w.pass(w.steady)
	w.is(t)
	if table, err := endpoint.Table(w.job, *w.e, nil, nil); err != nil || !table.Fleets[0].Cold {
		t.Errorf("%+v, %v", table, err)
	}
	// A new version proves that it starts, though the old one sleeps.
	s, _ := endpoint.Parse([]byte(scaled))
	s.Variants[0].Program.Command = []string{"serve", "2"}
	e, err = endpoint.Update(w.job, *w.e, s, nil, endpoint.Options{}, w.who())
	if w.ask("update", e, err) != nil {
		t.Fatal(err)
	}
	w.pass(w.steady)
	w.is(t, "main-2-0")
}

// sameSpec compares what two texts mean.
func sameSpec(t *testing.T, a, b string) bool {
	t.Helper()
	one, problems := endpoint.Parse([]byte(a))
	two, more := endpoint.Parse([]byte(b))
	if problems != nil || more != nil {
		t.Fatal(problems, more)
	}
	return textOf(one) == textOf(two)
}

func TestBoundsAreChangedInPlace(t *testing.T) {
	w := up(t, scaled)
	n := func(n int32) *int32 { return &n }
	for _, test := range []struct {
		variant     string
		least, most *int32
		want        string
	}{
		{"main", nil, nil, "min: is missing, and max too"},
		{"nobody", n(1), nil, `variant: "nobody" is none: there is main`},
		{"main", n(5), nil, "scaling.min: 5 is more than max, which is 4"},
		{"main", n(-1), nil, "scaling.min"},
		{"main", nil, n(5000), "scaling.max: 5000 is out of range"},
	} {
		if _, err := endpoint.SetBounds(w.job, *w.e, test.variant, test.least, test.most, w.who()); !fault.Is(err, fault.Invalid) || !contains(err.Error(), test.want) {
			t.Errorf("got %v, want %q", err, test.want)
		}
	}
	e, err := endpoint.SetBounds(w.job, *w.e, "main", n(2), n(8), w.who())
	if w.ask("bounds", e, err) != nil {
		t.Fatal(err)
	}
	if s, _, _ := endpoint.Scaling(w.e.Fleets[0]); s.Min != 2 || s.Max != 8 || w.e.Fleets[0].Replicas != 2 || w.e.Rollout != nil {
		t.Errorf("%+v, %+v", s, w.e.Fleets)
	}
	w.pass(w.steady)
	w.is(t, "main-1-0", "main-1-1")
	fixed := up(t, one(1, ""))
	if _, err := endpoint.SetBounds(fixed.job, *fixed.e, "main", n(1), nil, fixed.who()); !fault.Is(err, fault.Invalid) || !contains(err.Error(), "does not scale by itself") {
		t.Errorf("%v", err)
	}
}

func TestOtherScalingTakesNoNewReplicas(t *testing.T) {
	w := up(t, scaled)
	e, err := endpoint.Scale(*w.e, "main-1", 3, nil, "load", w.now)
	if w.ask("scale", e, err) != nil {
		t.Fatal(err)
	}
	w.pass(w.steady)
	for _, test := range []struct {
		spec string
		want []string
	}{
		{`{"variants": [{"program": {"command": ["serve", "1"]}, "scaling": {"min": 1, "max": 9}}]}`, []string{"main-1-0", "main-1-1", "main-1-2"}}, // as many as the load made
		{`{"variants": [{"program": {"command": ["serve", "1"]}, "replicas": 2}]}`, []string{"main-1-0", "main-1-1"}},
		{`{"variants": [{"program": {"command": ["serve", "1"]}, "scaling": {"min": 1, "max": 9}}]}`, []string{"main-1-0", "main-1-1"}},
	} {
		if err := w.update(test.spec, endpoint.Options{}); err != nil || w.e.Rollout != nil {
			t.Fatalf("%v %+v", err, w.e.Rollout)
		}
		w.pass(w.steady)
		if got := w.gangNames(); !slices.Equal(got, test.want) {
			t.Errorf("%s: there is %v, want %v", test.spec, got, test.want)
		}
	}
}
