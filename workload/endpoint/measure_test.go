package endpoint_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/workload/endpoint"
)

func TestAMetricIsTheMeanOfTheReplicasThatAnswer(t *testing.T) {
	const spec = `{"variants": [{"name": "blue", "program": {"command": ["serve"]}, "scaling": {"max": 4, "policies": [{"metric": "depth", "target": 2}]}}, {"name": "green", "program": {"command": ["serve"]}}]}`
	s, problems := endpoint.Parse([]byte(spec))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	fleets, err := s.Fleets(1, nil)
	if err != nil {
		t.Fatal(err)
	}
	fleets[0].Draining = []cluster.DrainingReplica{{Gang: "blue-1-3"}}
	e := cluster.Endpoint{Job: "churn", Generation: 1, Last: 1, Spec: []byte(spec), Fleets: fleets}
	task := func(gang string, healthy int64, state cluster.TaskState, metrics map[string]float64) cluster.Task {
		return cluster.Task{Job: "churn", Gang: "churn/" + gang, Status: cluster.TaskStatus{State: state, Healthy: healthy, Progress: cluster.Progress{Metrics: metrics}}}
	}
	tasks := []cluster.Task{
		task("blue-1-0", 5, cluster.TaskRunning, map[string]float64{"depth": 3, "else": 9}),
		task("blue-1-1", 5, cluster.TaskRunning, map[string]float64{"depth": 5}),
		task("blue-1-2", 5, cluster.TaskRunning, map[string]float64{"else": 1}),
		task("blue-1-3", 5, cluster.TaskRunning, map[string]float64{"depth": 100}), // on its way out
		task("blue-1-4", 0, cluster.TaskRunning, map[string]float64{"depth": 100}), // does not answer
		task("blue-1-5", 5, cluster.TaskFailed, map[string]float64{"depth": 100}),
		task("blue-0-0", 5, cluster.TaskRunning, map[string]float64{"depth": 100}), // of another generation
		task("green-1-0", 5, cluster.TaskRunning, map[string]float64{"depth": 100}),
	}
	got := endpoint.Measured(e, slices.Values(tasks))
	if !endpoint.Told(e) || len(got) != 1 || !maps.Equal(got["blue-1"], map[string]float64{"depth": 4}) {
		t.Errorf("%v", got)
	}
	e.Fleets = e.Fleets[1:]
	if endpoint.Told(e) {
		t.Error("nobody looks at a metric of green")
	}
}

func TestAFleetThatScalesByTheBacklogHasItsShareOfIt(t *testing.T) {
	by := func(metric string) []byte {
		return []byte(`{"name":"v","model":"s3://m/a","scaling":{"max":5,"policies":[{"metric":"` + metric + `","target":10}]}}`)
	}
	e := cluster.Endpoint{Fleets: []cluster.Fleet{
		{Variant: "blue", Generation: 1, Weight: 3, Share: 1, Spec: by("backlog")},
		{Variant: "green", Generation: 1, Weight: 1, Share: 1, Spec: by("requests")},
	}}
	if got := endpoint.Backlogs(e, 80); len(got) != 1 || got["blue-1"] != 60 {
		t.Errorf("%v", got)
	}
}

func TestHowBusyGPUsAreIsLookedAtAsAMetricOfTheReplicasIs(t *testing.T) {
	const spec = `{"name": "v", "model": "s3://m/a", "resources": {"gpus": 1}, "scaling": {"max": 5, "policies": [{"metric": "gpu", "target": 60}]}}`
	if _, problems := endpoint.Parse([]byte(`{"variants": [` + spec + `]}`)); len(problems) > 0 {
		t.Fatal(problems)
	}
	e := cluster.Endpoint{Job: "churn", Fleets: []cluster.Fleet{{Variant: "v", Generation: 1, Weight: 1, Share: 1, Spec: []byte(spec)}}}
	var tasks []cluster.Task
	for i, use := range []float64{80, 40} {
		tasks = append(tasks, cluster.Task{Job: "churn", Gang: "churn/" + e.Fleets[0].GangName(int32(i)), Status: cluster.TaskStatus{
			State: cluster.TaskRunning, Healthy: 5, Progress: cluster.Progress{Metrics: map[string]float64{cluster.GPUUse: use}},
		}})
	}
	if got := endpoint.Measured(e, slices.Values(tasks)); !endpoint.Told(e) || got["v-1"][cluster.GPUUse] != 60 {
		t.Errorf("%v", got)
	}
}
