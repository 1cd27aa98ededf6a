package endpoint_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/quantity"
	"github.com/clary-ml/clary/serving/experiment"
	"github.com/clary-ml/clary/workload/endpoint"
	"github.com/clary-ml/clary/workload/hosting"
	"github.com/clary-ml/clary/workload/training"
)

// tested is an endpoint whose variants have the given weights; a shadow of 0 weight gets copies.
func tested(t *testing.T, shadow string, weights map[string]float64) (cluster.Job, cluster.Endpoint) {
	t.Helper()
	var s endpoint.Spec
	for _, name := range []string{"blue", "green", "red"} {
		if w, there := weights[name]; there {
			s.Variants = append(s.Variants, endpoint.Variant{Name: name, Weight: &w, Server: hosting.Server{Program: &training.Program{Command: []string{"serve"}}}})
		}
	}
	if shadow != "" {
		s.Shadow = &endpoint.Shadow{Variant: shadow, Share: quantity.Share(0.5)}
	}
	fleets, err := s.Fleets(1, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range fleets {
		fleets[i].Share = 1
	}
	return cluster.Job{Name: "churn", Kind: cluster.KindEndpoint}, cluster.Endpoint{Job: "churn", Generation: 1, Last: 1, Spec: encoded(t, s), Fleets: fleets}
}

func TestTheVariantsOfAnExperimentAreThoseThatHaveRequests(t *testing.T) {
	latency := experiment.Plan{Metric: experiment.Latency}
	for _, c := range []struct {
		name    string
		shadow  string
		weights map[string]float64
		x       endpoint.Experiment
		kind    fault.Kind
		want    string // "a b", or of the error
	}{
		{"two", "", map[string]float64{"blue": 9, "green": 1}, endpoint.Experiment{Plan: latency}, 0, "blue green"},
		{"named", "", map[string]float64{"blue": 1, "green": 1, "red": 1}, endpoint.Experiment{Plan: latency, A: "red", B: "blue"}, 0, "red blue"},
		{"mirrored", "green", map[string]float64{"blue": 1, "green": 0}, endpoint.Experiment{Plan: latency}, 0, "blue green"},
		{"three", "", map[string]float64{"blue": 1, "green": 1, "red": 1}, endpoint.Experiment{Plan: latency}, fault.Invalid, "between"},
		{"one", "", map[string]float64{"blue": 1}, endpoint.Experiment{Plan: latency}, fault.Invalid, "between"},
		{"itself", "", map[string]float64{"blue": 1}, endpoint.Experiment{Plan: latency, A: "blue", B: "blue"}, fault.Invalid, "two variants"},
		{"unknown", "", map[string]float64{"blue": 1}, endpoint.Experiment{Plan: latency, A: "blue", B: "pink"}, fault.Invalid, `"pink" is no variant`},
		{"no requests", "", map[string]float64{"blue": 1, "green": 0}, endpoint.Experiment{Plan: latency, A: "blue", B: "green"}, fault.Invalid, "weight of 0"},
		{"no requests of a", "", map[string]float64{"blue": 0, "green": 1}, endpoint.Experiment{Plan: latency, A: "blue", B: "green"}, fault.Invalid, "weight of 0"},
		{"rewards of copies", "green", map[string]float64{"blue": 1, "green": 0}, endpoint.Experiment{Plan: experiment.Plan{Metric: experiment.Reward}}, fault.Invalid, "metric"},
		{"copies to promote", "green", map[string]float64{"blue": 1, "green": 0}, endpoint.Experiment{Plan: latency, Promote: true}, fault.Invalid, "promote"},
		{"no metric", "", map[string]float64{"blue": 1, "green": 1}, endpoint.Experiment{}, fault.Invalid, "metric: is missing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			job, e := tested(t, c.shadow, c.weights)
			started, err := endpoint.StartExperiment(job, e, c.x, endpoint.Asked{By: "ann", Now: 5})
			if err != nil {
				if c.kind == 0 || !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%v, want %q", err, c.want)
				}
				return
			}
			x, trial, begun, err := endpoint.Testing(started)
			if c.kind != 0 || err != nil || !begun || x.A+" "+x.B != c.want || trial.Mirrored != (c.shadow != "") || trial.Traffic[0] == 0 || trial.Traffic[1] == 0 {
				t.Errorf("%+v, %+v, %v", x, trial, err)
			}
			if e.Experiment != nil || started.Experiment.Started != 5 || len(started.Notes) != 1 {
				t.Errorf("it became %+v", started)
			}
		})
	}
}

func TestOneExperimentIsInProgressAtATime(t *testing.T) {
	job, e := tested(t, "", map[string]float64{"blue": 1, "green": 1})
	x := endpoint.Experiment{Plan: experiment.Plan{Metric: experiment.Errors}}
	ann := endpoint.Asked{By: "ann", Now: 5}
	if _, err := endpoint.EndExperiment(e, "", ann); !fault.Is(err, fault.Conflict) {
		t.Errorf("none in progress was ended: %v", err)
	}
	e, err := endpoint.StartExperiment(job, e, x, ann)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := endpoint.StartExperiment(job, e, x, ann); !fault.Is(err, fault.Conflict) {
		t.Errorf("a second one began: %v", err)
	}
	if e, err = endpoint.EndExperiment(e, strings.Repeat("x", 5000), ann); err != nil || e.Experiment.Ended != 5 || len(e.Experiment.Verdict) > cluster.MaxEndpointText {
		t.Fatalf("%+v, %v", e.Experiment, err)
	}
	if _, err := endpoint.StartExperiment(job, e, x, ann); err != nil {
		t.Errorf("after the first had ended: %v", err)
	}
	e.Rollout = &cluster.Rollout{From: 1, To: 2}
	if _, err := endpoint.StartExperiment(job, e, x, ann); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "update") {
		t.Errorf("while an update is in progress: %v", err)
	}
	if _, err := endpoint.StartExperiment(cluster.Job{Cancel: true}, e, x, ann); !fault.Is(err, fault.Conflict) {
		t.Errorf("of one that ends: %v", err)
	}
}

func encoded(t *testing.T, s endpoint.Spec) []byte {
	t.Helper()
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
