package endpoint_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/serving/route"
	"github.com/clary-ml/clary/workload/endpoint"
)

// told is what routers are told: each fleet with its weight and its replicas, with ! those that get
// nothing new.
func (w *world) told(t *testing.T) string {
	t.Helper()
	table, err := endpoint.Table(w.job, *w.e, w.view().Tasks, func(task cluster.Task) (string, bool, bool) {
		return task.Allocation.Node + ":80", true, task.Allocation.Node != "unknown"
	})
	if err != nil {
		t.Fatal(err)
	}
	text := ""
	for _, f := range table.Fleets {
		text += fmt.Sprintf("%s-%d %.3g", f.Variant, f.Generation, f.Weight)
		if f.Cold {
			text += " cold"
		}
		slices.SortFunc(f.Replicas, func(a, b route.Replica) int { return strings.Compare(a.ID, b.ID) })
		for _, r := range f.Replicas {
			text += " " + strings.TrimSuffix(strings.TrimPrefix(r.ID, "churn/"), "/server-0.1")
			if r.Draining {
				text += "!"
			}
			if r.Address != r.Node+":80" || !r.Gateway {
				t.Errorf("%+v", r)
			}
		}
		text += "; "
	}
	return text
}

func TestRoutersAreToldWhoAnswers(t *testing.T) {
	w := up(t, two(`, "replicas": 2`, `, "replicas": 0`, ""))
	for _, want := range []struct {
		text string
		then func()
	}{
		{"blue-1 0.9 blue-1-0 blue-1-1; green-1 0.1 cold; ", func() { w.report(w.gangs["blue-1-0"], cluster.TaskRunning, false) }},
		{"blue-1 0.9 blue-1-0! blue-1-1; green-1 0.1 cold; ", func() {
			w.behave()
			e, err := endpoint.SetReplicas(w.job, *w.e, "blue", 1, w.who())
			_ = w.ask("replicas", e, err)
			w.settle()
		}},
		{"blue-1 0.9 blue-1-0 blue-1-1!; green-1 0.1 cold; ", func() {
			w.pass(w.steady)
			if err := w.update(two(`, "probe": {"failures": 1}`, `, "replicas": 0`, `, "update": {"strategy": "canary", "step": 0.25}`), endpoint.Options{}); err != nil {
				t.Fatal(err)
			}
			w.step()
			w.behave()
		}},
		{"blue-1 0.9 blue-1-0; green-1 0.1 cold; blue-2 0 blue-2-0!; ", w.settle},
		{"blue-1 0.675 blue-1-0; green-1 0.075 cold; blue-2 0.225 blue-2-0; green-2 0.025 cold; ", func() {
			e, err := endpoint.Rollback(w.job, *w.e, "", w.who())
			_ = w.ask("rollback", e, err)
		}},
		{"blue-1 0.9 blue-1-0; green-1 0.1 cold; blue-2 0 blue-2-0!; ", func() { w.job.Cancel = true }},
		{"blue-1 0.9 blue-1-0!; blue-2 0 blue-2-0!; ", func() {}},
	} {
		if got := w.told(t); got != want.text {
			t.Fatalf("they are told\n%s\nwant\n%s", got, want.text)
		}
		want.then()
	}
}

func TestRequestsAreHeldUntilAReplicaAnswers(t *testing.T) {
	w := newWorld(t.Fatalf, `{"variants": [{"program": {"command": ["serve"]}, "replicas": 0}]}`, 1, 1)
	w.settle()
	for _, want := range []struct {
		text string
		then func()
	}{
		{"main-1 1 cold; ", func() { // somebody asked
			e, err := endpoint.SetReplicas(w.job, *w.e, "main", 1, w.who())
			_ = w.ask("replicas", e, err)
			w.settle()
		}},
		{"main-1 1 cold; ", w.place},
		{"main-1 1 cold; ", func() { w.report(w.gangs["main-1-0"], cluster.TaskRunning, false) }},
		{"main-1 1 cold main-1-0!; ", func() { w.report(w.gangs["main-1-0"], cluster.TaskRunning, true) }},
		{"main-1 1 main-1-0; ", func() { w.report(w.gangs["main-1-0"], cluster.TaskRunning, false) }}, // it is busy
		{"main-1 1 cold main-1-0!; ", func() {}},
	} {
		if got := w.told(t); got != want.text {
			t.Fatalf("they are told\n%s\nwant\n%s", got, want.text)
		}
		want.then()
	}
}

func TestAReplicaOnItsWayOutStaysWhileItIsTooBusyToSayThatItIsWell(t *testing.T) {
	w := up(t, one(1, ""))
	e, err := endpoint.SetReplicas(w.job, *w.e, "main", 1, w.who())
	_ = w.ask("replicas", e, err)
	w.settle()
	w.report(w.gangs["main-1-1"], cluster.TaskRunning, false)
	w.settle()
	if got, want := w.told(t), "main-1 1 main-1-0 main-1-1!; "; got != want {
		t.Errorf("they are told\n%s\nwant\n%s", got, want)
	}
}
