package endpoint_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/workload"
	"github.com/clary-ml/clary/workload/endpoint"
)

func contains(text, part string) bool { return strings.Contains(text, part) }

// two is an endpoint with two variants of a program.
func two(blue, green, rest string) string {
	return `{"variants": [
		{"name": "blue", "program": {"command": ["serve", "1"]}, "weight": 90` + blue + `},
		{"name": "green", "program": {"command": ["serve", "1"]}, "weight": 10` + green + `}
	]` + rest + `}`
}

func one(version int, rest string) string {
	return fmt.Sprintf(`{"variants": [{"program": {"command": ["serve", "%d"]}, "replicas": 2}]%s}`, version, rest)
}

// up is a world whose endpoint answers.
func up(t *testing.T, spec string) *world {
	t.Helper()
	w := newWorld(t.Fatalf, spec, 3, 20)
	w.pass(w.steady)
	return w
}

func (w *world) gangNames() []string {
	var names []string
	for _, g := range w.live() {
		names = append(names, g.Name)
	}
	return names
}

// is holds what runs against what should.
func (w *world) is(t *testing.T, want ...string) {
	t.Helper()
	if got := w.gangNames(); !slices.Equal(got, want) {
		t.Fatalf("there is %v, want %v", got, want)
	}
}

func TestAnEndpointRunsOnceAReplicaAnswers(t *testing.T) {
	w := newWorld(t.Fatalf, one(1, ""), 2, 4)
	if len(w.gangs) != 2 || w.job.State != cluster.JobQueued || w.e.Fleets[0].Share != 1 || w.e.Fleets[0].Next != 2 {
		t.Fatalf("%+v, %+v", w.job, w.e)
	}
	w.place()
	w.settle()
	if w.job.State != cluster.JobQueued {
		t.Errorf("it is %s, and nothing answers", w.job.State)
	}
	w.report(w.gangs["main-1-1"], cluster.TaskRunning, true)
	w.settle()
	if w.job.State != cluster.JobRunning || w.job.Started != w.now {
		t.Errorf("%+v", w.job)
	}
	cold := newWorld(t.Fatalf, `{"variants": [{"program": {"command": ["serve"]}, "replicas": 0}]}`, 1, 1)
	cold.settle()
	if cold.job.State != cluster.JobRunning || len(cold.gangs) != 0 {
		t.Errorf("one that wants no replicas is %s with %v", cold.job.State, cold.gangs)
	}
	if gangs := (endpoint.Kind{}).Foresee(cold.job, 1); len(gangs) != 1 || gangs[0].Validate() != nil {
		t.Errorf("it foresees %+v", gangs)
	}
}

func TestAReplicaThatCrashesStartsAnewAlone(t *testing.T) {
	w := up(t, one(1, ""))
	for n, wait := range []time.Duration{0, time.Second, 2 * time.Second, 4 * time.Second} {
		w.report(w.gangs["main-1-0"], cluster.TaskFailed, false)
		w.settle()
		g := w.gangs["main-1-0"]
		if at := max(0, g.NotBefore-w.now); time.Duration(at) != wait || g.Attempt != int32(n)+2 || w.gangs["main-1-1"].Attempt != 1 {
			t.Fatalf("after %d failures it waits %s: %+v", n+1, time.Duration(at), g)
		}
		if !contains(w.job.Reason, "main-1-0 starts anew: server-0 failed on node") {
			t.Errorf("the job says %q", w.job.Reason)
		}
		w.pass(w.steady)
	}
	if w.job.Reason != "" {
		t.Errorf("all answers, and it says %q", w.job.Reason)
	}
	restarts := 0
	for _, note := range w.e.Notes {
		if note.What == "restarted" {
			restarts++
		}
	}
	if restarts != 1 {
		t.Errorf("%d notes of the same thing", restarts)
	}
	w.now += int64(time.Hour) // it has run well for long
	w.report(w.gangs["main-1-0"], cluster.TaskFailed, false)
	w.settle()
	if g := w.gangs["main-1-0"]; g.Failures != 1 || g.NotBefore > w.now {
		t.Errorf("old failures count: %+v", g)
	}
	failures := w.gangs["main-1-0"].Failures
	w.pass(w.steady)
	w.report(w.gangs["main-1-0"], cluster.TaskLost, false)
	w.settle()
	if g := w.gangs["main-1-0"]; g.Failures != failures || g.NotBefore > w.now || g.Attempt != 7 {
		t.Errorf("a lost node counts: %+v", g)
	}
}

func TestFewerReplicasLeaveOutTheUnhealthyThenTheNewest(t *testing.T) {
	w := up(t, strings.Replace(one(1, ""), `"replicas": 2`, `"replicas": 5`, 1))
	w.report(w.gangs["main-1-1"], cluster.TaskRunning, false)
	e, err := endpoint.SetReplicas(w.job, *w.e, "main", 2, w.who())
	if w.ask("replicas", e, err) != nil {
		t.Fatal(err)
	}
	w.settle()
	var going []string
	for _, d := range w.e.Fleets[0].Draining {
		going = append(going, d.Gang)
	}
	if want := []string{"main-1-1", "main-1-4", "main-1-3"}; !slices.Equal(going, want) {
		t.Errorf("%v go, want %v", going, want)
	}
	w.is(t, "main-1-0", "main-1-1", "main-1-2", "main-1-3", "main-1-4") // they finish what they have
	if w.wake != w.now+int64(15*time.Minute) {
		t.Errorf("it is woken after %s", time.Duration(w.wake-w.now))
	}
	before := w.now
	w.pass(w.steady)
	w.is(t, "main-1-0", "main-1-2")
	if w.now != before {
		t.Errorf("idle ones are stopped after %s", time.Duration(w.now-before))
	}
}

func TestWhatIsNotIdleHasItsTime(t *testing.T) {
	for limits, want := range map[string]time.Duration{
		`{"drain": "10s"}`: 10 * time.Second, `{"timeout": "10s"}`: 15 * time.Minute, `{"timeout": "40m"}`: 40 * time.Minute, `{"timeout": "40m", "drain": "1m"}`: time.Minute,
	} {
		if s, problems := endpoint.Parse([]byte(one(1, `, "limits": `+limits))); problems != nil || s.Drain() != want {
			t.Errorf("with %s it is %s, want %s: %v", limits, s.Drain(), want, problems)
		}
	}
	w := up(t, one(1, `, "limits": {"drain": "10s"}`))
	e, err := endpoint.SetReplicas(w.job, *w.e, "main", 0, w.who())
	if w.ask("replicas", e, err) != nil {
		t.Fatal(err)
	}
	w.settle()
	w.now += int64(10*time.Second) - 1
	w.settle()
	if g := w.gangs["main-1-0"]; g.Stop {
		t.Fatal("stopped before its time")
	}
	w.now++
	w.settle()
	if g := w.gangs["main-1-0"]; !g.Stop || g.StopReason == "" {
		t.Fatalf("not stopped in its time: %+v", g)
	}
}

func TestAReplicaMovesWhenAnotherHasTakenItsPlace(t *testing.T) {
	w := up(t, one(1, ""))
	task, _ := w.task(w.gangs["main-1-0"])
	for _, n := range w.nodes {
		if n.name == task.Allocation.Node {
			w.evict(n)
		}
	}
	w.settle()
	for _, g := range w.live() {
		if g.Stop || w.e.Fleets[0].Drains(g.Name) {
			t.Fatalf("%s goes before another answers", g.Name)
		}
	}
	if w.e.Fleets[0].Next != 4 { // both were there
		t.Fatalf("%+v", w.e.Fleets)
	}
	w.pass(w.steady)
	w.is(t, "main-1-2", "main-1-3")
}

// transcript is what a rollout looks like from outside: phase, share and how long it lasted.
func (w *world) transcript(t *testing.T) []string {
	t.Helper()
	var lines []string
	since, last := w.now, ""
	for range 300 {
		line := "none"
		if r := w.e.Rollout; r != nil {
			line = string(r.Phase)
			for _, f := range w.e.Fleets {
				if f.Generation == r.To {
					line += fmt.Sprintf(" %s=%.3g", f.Variant, f.Share)
				}
			}
		}
		if line != last {
			if last != "" {
				lines = append(lines, fmt.Sprintf("%s for %s", last, time.Duration(w.now-since)))
			}
			last, since = line, w.now
		}
		if w.e.Rollout == nil {
			return lines
		}
		if w.step() {
			continue
		}
		before := len(w.live())
		w.behave()
		w.idle()
		if w.step() || len(w.live()) != before {
			continue
		}
		w.now = w.wake
	}
	t.Fatalf("it does not end: %v", lines)
	return nil
}

func TestAnUpdateGoesOverStepByStep(t *testing.T) {
	for _, test := range []struct{ claim, update, want string }{
		{"at once, and nothing said", ``, "starting main=0 for 0s; baking main=1 for 0s; retiring main=1 for 1m0s"},
		{"at once, watched", `, "update": {"alarms": {"error_rate": 0.1}, "wait": 0}`, "starting main=0 for 0s; baking main=1 for 5m0s; retiring main=1 for 0s"},
		{"canary", `, "update": {"strategy": "canary", "step": "10%", "bake": "2m"}`, "starting main=0 for 0s; baking main=0.1 for 2m0s; baking main=1 for 2m0s; retiring main=1 for 1m0s"},
		{"linear", `, "update": {"strategy": "linear", "step": "30%", "bake": "1m", "wait": "3m"}`, "starting main=0 for 0s; baking main=0.3 for 1m0s; baking main=0.6 for 1m0s; baking main=0.9 for 1m0s; baking main=1 for 1m0s; retiring main=1 for 3m0s"},
		{"linear in tenths", `, "update": {"strategy": "linear", "step": 0.5, "bake": "1s"}`, "starting main=0 for 0s; baking main=0.5 for 1s; baking main=1 for 1s; retiring main=1 for 1m0s"},
	} {
		t.Run(test.claim, func(t *testing.T) {
			w := up(t, one(1, ""))
			if err := w.update(one(2, test.update), endpoint.Options{}); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(w.transcript(t), "; "); got != test.want {
				t.Errorf("it went\n%s\nwant\n%s", got, test.want)
			}
			w.pass(w.steady)
			w.is(t, "main-2-0", "main-2-1")
			if w.e.Generation != 2 || !contains(string(w.e.Spec), `"2"`) || !contains(string(w.e.Previous), `"1"`) {
				t.Errorf("%+v", w.e)
			}
		})
	}
}

func TestAnUpdateThatIsNoGoodIsRolledBack(t *testing.T) {
	for _, test := range []struct {
		claim, want string
		spoil       func(*world)
	}{
		{"new replicas crash", "the new replica main-2-0 failed 3 times in a row: main-2-0 starts anew: server-0 failed", func(w *world) { w.sick["main-2"] = true }},
		{"new replicas never answer", "not all new replicas answered within 14m0s: 0 of 2 of main", func(w *world) { w.mute["main-2"] = true }},
		{"there is no room", "not all new replicas answered within 14m0s: 0 of 2 of main", func(w *world) {
			for _, n := range w.nodes {
				n.state = cluster.NodeDraining
			}
		}},
		{"an alarm", "12 % errors", func(w *world) {
			for w.e.Rollout.Phase != cluster.RolloutBaking {
				w.behave()
				w.settle()
			}
			_ = w.ask("alarm", endpoint.Alarm(*w.e, "12 % errors"), nil)
		}},
		{"all new replicas fall silent", "no replica of main has answered in generation 2 for 5m0s", func(w *world) {
			for w.e.Rollout.Phase != cluster.RolloutBaking {
				w.behave()
				w.settle()
			}
			w.mute["main-2"] = true
		}},
	} {
		t.Run(test.claim, func(t *testing.T) {
			w := up(t, one(1, ""))
			if err := w.update(one(2, `, "update": {"strategy": "canary", "step": 0.2, "alarms": {"error_rate": 0.1}}`), endpoint.Options{}); err != nil {
				t.Fatal(err)
			}
			test.spoil(w)
			w.pass(w.steady)
			w.is(t, "main-1-0", "main-1-1")
			if w.e.Generation != 1 || w.e.Last != 2 || len(w.e.Previous) != 0 || w.e.Fleets[0].Share != 1 {
				t.Errorf("%+v", w.e)
			}
			said := false
			for _, note := range w.e.Notes {
				said = said || note.What == "rolled-back" && contains(note.Text, test.want)
			}
			if !said {
				t.Errorf("nothing says %q: %+v", test.want, w.e.Notes)
			}
		})
	}
}

func TestWhatAnsweredBeforeAnswersUntilTheNewVersionHasAll(t *testing.T) {
	w := up(t, one(1, ""))
	e, err := endpoint.Scale(*w.e, "main-1", 5, []byte(`{"load": 5}`), "load", w.now)
	if w.ask("scale", e, err) != nil {
		t.Fatal(err)
	}
	w.pass(w.steady)
	if err := w.update(one(2, ""), endpoint.Options{}); err != nil {
		t.Fatal(err)
	}
	if at := w.e.Fleet("main-2"); w.e.Fleets[at].Replicas != 5 {
		t.Errorf("five answer, and the new version begins with %d", w.e.Fleets[at].Replicas)
	}
	if _, err := endpoint.Scale(*w.e, "main-1", 4, nil, "less load", w.now); !fault.Is(err, fault.Conflict) {
		t.Errorf("scaled down in the middle of an update: %v", err)
	}
	e, err = endpoint.Scale(*w.e, "main-1", 6, nil, "more load", w.now)
	if w.ask("scale", e, err) != nil {
		t.Fatal(err)
	}
	w.pass(w.steady)
	w.is(t, "main-2-0", "main-2-1", "main-2-2", "main-2-3", "main-2-4", "main-2-5")
}

func TestARollbackAfterAnUpdateStartsWhatWasBefore(t *testing.T) {
	w := up(t, one(1, ""))
	if _, err := endpoint.Rollback(w.job, *w.e, "", w.who()); !fault.Is(err, fault.Conflict) || !contains(err.Error(), "nothing to go back to") {
		t.Errorf("%v", err)
	}
	before := string(w.e.Spec)
	if err := w.update(one(2, ""), endpoint.Options{}); err != nil {
		t.Fatal(err)
	}
	w.pass(w.steady)
	e, err := endpoint.Rollback(w.job, *w.e, "worse answers", w.who())
	if w.ask("rollback", e, err) != nil {
		t.Fatal(err)
	}
	w.pass(w.steady)
	w.is(t, "main-3-0", "main-3-1")
	if string(w.e.Spec) != before || w.e.Generation != 3 || !contains(string(w.e.Previous), `"2"`) {
		t.Errorf("%+v", w.e)
	}
}

func TestWhatPinsMeantIsServedAgainAfterARollback(t *testing.T) {
	pin := func(n int64) []cluster.ModelPin {
		return []cluster.ModelPin{{Ref: "model://net:best", Model: "net", Number: n, URI: fmt.Sprintf("s3://clary/models/net/%d/m", n), SHA256: strings.Repeat("a", 64)}}
	}
	spec := `{"variants": [{"model": "model://net:best"}]}`
	w := up(t, spec)
	s, _ := endpoint.Parse([]byte(spec))
	if refs := s.Refs(); !slices.Equal(refs, []string{"model://net:best"}) {
		t.Errorf("its references are %v", refs)
	}
	for n := int64(1); n <= 2; n++ { // the same spec, and the alias has moved
		e, err := endpoint.Update(w.job, *w.e, s, pin(n), endpoint.Options{}, w.who())
		if w.ask("update", e, err) != nil {
			t.Fatal(err)
		}
		w.pass(w.steady)
		if f := w.e.Fleets[0]; f.Models[0].Number != n || f.Role.Program.Inputs[0].URI != pin(n)[0].URI {
			t.Fatalf("%+v", f)
		}
	}
	e, err := endpoint.Update(w.job, *w.e, s, pin(2), endpoint.Options{}, w.who())
	if w.ask("update", e, err) != nil || w.e.Rollout != nil {
		t.Errorf("nothing is different, and %+v begins", w.e.Rollout)
	}
	e, err = endpoint.Rollback(w.job, *w.e, "", w.who())
	if w.ask("rollback", e, err) != nil {
		t.Fatal(err)
	}
	w.pass(w.steady)
	if f := w.e.Fleets[0]; f.Models[0].Number != 1 || f.Role.Program.Inputs[0].URI != pin(1)[0].URI {
		t.Errorf("%+v", f)
	}
}

func TestAnUpdateDuringAnotherIsRefusedOrReplacesIt(t *testing.T) {
	w := up(t, one(1, ""))
	if err := w.update(one(2, `, "update": {"strategy": "canary", "step": 0.5}`), endpoint.Options{}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		w.settle()
		w.behave()
	}
	w.settle()
	if err := w.update(one(3, ""), endpoint.Options{}); !fault.Is(err, fault.Conflict) || !contains(err.Error(), "an update to generation 2 is in progress (baking, since") {
		t.Errorf("%v", err)
	}
	if _, err := endpoint.SetWeights(w.job, *w.e, map[string]float64{"main": 2}, w.who()); !fault.Is(err, fault.Conflict) {
		t.Errorf("%v", err)
	}
	if err := w.update(one(3, ""), endpoint.Options{Replace: true}); err != nil {
		t.Fatal(err)
	}
	if w.e.Rollout.From != 1 || w.e.Rollout.To != 3 || w.e.Fleets[w.e.Fleet("main-1")].Share != 1 || !w.e.Fleets[w.e.Fleet("main-2")].Retired {
		t.Errorf("%+v", w.e)
	}
	w.pass(w.steady)
	w.is(t, "main-3-0", "main-3-1")
}

func TestSettingsChangeWithoutNewReplicas(t *testing.T) {
	w := up(t, two(`, "replicas": 2`, "", ""))
	if err := w.update(two(`, "replicas": 3`, "", `, "limits": {"rate": 5}, "sticky": {"cookie": "sid"}, "shadow": {"variant": "green", "share": 0.1}, "public": true`), endpoint.Options{}); err != nil {
		t.Fatal(err)
	}
	if w.e.Rollout != nil || w.e.Generation != 1 || w.e.Fleets[0].Replicas != 3 {
		t.Fatalf("%+v", w.e)
	}
	table, err := endpoint.Table(w.job, *w.e, nil, nil)
	if err != nil || table.Limits.Rate != 5 || table.Sticky.Cookie != "sid" || table.Shadow.Variant != "green" || !table.Public {
		t.Errorf("%+v, %v", table, err)
	}
	w.pass(w.steady)
	if err := w.update(string(w.e.Spec), endpoint.Options{}); err != nil || w.e.Rollout != nil {
		t.Errorf("the same again: %v, %+v", err, w.e.Rollout)
	}
	if err := w.update(string(w.e.Spec), endpoint.Options{Anew: true}); err != nil || w.e.Rollout == nil {
		t.Errorf("the same anew: %v, %+v", err, w.e.Rollout)
	}
}

func TestWeightsAreChangedByName(t *testing.T) {
	w := up(t, two("", "", ""))
	for _, test := range []struct {
		weights map[string]float64
		want    string
	}{
		{nil, "weights: name at least one of blue, green"},
		{map[string]float64{"red": 1}, `"red" is no variant: there is blue, green`},
		{map[string]float64{"blue": -1}, "blue: -1 is out of range"},
		{map[string]float64{"blue": math.NaN()}, "blue: NaN is out of range"},
		{map[string]float64{"blue": math.Inf(1)}, "blue: +Inf is out of range"},
		{map[string]float64{"blue": 0, "green": 0}, "they would all be 0"},
	} {
		if _, err := endpoint.SetWeights(w.job, *w.e, test.weights, w.who()); !fault.Is(err, fault.Invalid) || !contains(err.Error(), test.want) {
			t.Errorf("%v: %v, want %q", test.weights, err, test.want)
		}
	}
	e, err := endpoint.SetWeights(w.job, *w.e, map[string]float64{"blue": 30}, w.who())
	if w.ask("weights", e, err) != nil {
		t.Fatal(err)
	}
	if got := w.e.Traffic(); !slices.Equal(got, []float64{0.75, 0.25}) || !contains(string(w.e.Spec), `"weight":30`) {
		t.Errorf("%v, %s", got, w.e.Spec)
	}
}

func TestNothingIsLeftAfterACancelAndNothingChangesIt(t *testing.T) {
	w := up(t, one(1, ""))
	if err := w.update(one(2, ""), endpoint.Options{}); err != nil {
		t.Fatal(err)
	}
	w.settle()
	w.behave()
	w.job.Cancel = true
	w.settle()
	if w.job.State != cluster.JobStopping || w.e.Rollout != nil {
		t.Fatalf("%+v %+v", w.job, w.e.Rollout)
	}
	s, _ := endpoint.Parse(w.e.Spec)
	_, update := endpoint.Update(w.job, *w.e, s, nil, endpoint.Options{}, w.who())
	_, back := endpoint.Rollback(w.job, *w.e, "", w.who())
	_, weights := endpoint.SetWeights(w.job, *w.e, map[string]float64{"main": 1}, w.who())
	_, replicas := endpoint.SetReplicas(w.job, *w.e, "main", 1, w.who())
	for _, err := range []error{update, back, weights, replicas} {
		if !fault.Is(err, fault.Conflict) || !contains(err.Error(), "is to end") {
			t.Errorf("%v", err)
		}
	}
	w.pass(w.steady)
	if w.job.State != cluster.JobCancelled || len(w.gangs) > 0 || len(w.tasks) > 0 || len(w.e.Fleets) > 0 {
		t.Errorf("%s, %v %v", w.job.State, w.gangs, w.e.Fleets)
	}
}

func TestASpecThatCannotBeReadFailsTheJob(t *testing.T) {
	job := cluster.Job{Name: "x", Kind: cluster.KindEndpoint, State: cluster.JobQueued, Spec: []byte(`{"variants": 3}`)}
	if c := (endpoint.Kind{}).Reconcile(workload.View{}, job, 5); c.Job == nil || c.Job.State != cluster.JobFailed || !contains(c.Job.Reason, "spec cannot be read") {
		t.Errorf("%+v", c.Job)
	}
	job.Cancel = true
	if c := (endpoint.Kind{}).Reconcile(workload.View{}, job, 5); c.Job == nil || c.Job.State != cluster.JobCancelled {
		t.Errorf("%+v", c.Job)
	}
	job.State, job.Cancel = cluster.JobRunning, false
	if c := (endpoint.Kind{}).Reconcile(workload.View{}, job, 5); c.Job == nil || c.Job.State != cluster.JobFailed || c.Job.Reason != "its endpoint is gone" {
		t.Errorf("%+v", c.Job)
	}
}

func TestAlarmsAreWatchedWhileTheNewVersionIsAsked(t *testing.T) {
	w := up(t, one(1, ""))
	if _, any := endpoint.Watched(*w.e); any {
		t.Error("nothing is to be watched")
	}
	if err := w.update(one(2, `, "update": {"alarms": {"error_rate": "5%"}}`), endpoint.Options{}); err != nil {
		t.Fatal(err)
	}
	if _, any := endpoint.Watched(*w.e); any {
		t.Error("nobody asks it yet")
	}
	for w.e.Rollout.Phase != cluster.RolloutBaking {
		w.behave()
		w.settle()
	}
	a, any := endpoint.Watched(*w.e)
	if !any || *a.ErrorRate != 0.05 || a.Window.Std() != time.Minute || a.MinRequests == 0 {
		t.Errorf("%+v %v", a, any)
	}
	if _, any := endpoint.Watched(endpoint.Alarm(*w.e, "bad")); any {
		t.Error("it is decided")
	}
}
