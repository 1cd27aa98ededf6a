package sweeps_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/tuner/expr"
	"github.com/clary-ml/clary/workload/tuning"
)

// life is a sweep that is drawn, and what happens to it.
type life struct {
	spec     string
	parallel int32
	retries  int32
	events   []string // one every few seconds
	budget   int64    // of trials; 0: as many as the space has
	finite   int      // configurations, 0: no end of them
	stopper  string
}

// choose is one of some, each as likely.
func choose(r *rand.Rand, of ...string) string { return of[r.IntN(len(of))] }

func drawLife(r *rand.Rand) life {
	l := life{parallel: 1 + r.Int32N(5), retries: r.Int32N(3), budget: 1 + r.Int64N(14)}
	space := choose(r, `{"name": "rate", "type": "float", "low": 0, "high": 1}`, `{"name": "rate", "type": "float", "low": 1e-3, "high": 1, "scale": "log"}`,
		`{"name": "rate", "type": "ordered", "choices": [0.1, 0.2, 0.3, 0.7]}`)
	if strings.Contains(space, "choices") {
		l.finite = 4
	}
	var hows []string // one is no choice
	for _, how := range []string{"fails", "fails once", "silent", "mad"} {
		if r.IntN(3) == 0 {
			hows = append(hows, how)
		}
	}
	if len(hows) > 0 {
		hows = append(hows, "well")
		space += fmt.Sprintf(`, {"name": "how", "type": "categorical", "choices": ["%s"]}`, strings.Join(hows, `", "`))
		l.finite *= len(hows)
	}
	if l.finite > 0 && r.IntN(2) == 0 {
		l.budget = 0
	}
	samplers := []string{"quasi", "random", "tpe", "cmaes", "bayes", "auto"}
	if l.finite > 0 {
		samplers = append(samplers, "grid")
	}
	rest := fmt.Sprintf(`"seed": %d, "sampler": %q, "parallel": %d, "budget": {"trials": %d}, "fidelity": {"max": 3}`, r.Uint64N(1000), choose(r, samplers...), l.parallel, l.budget)
	l.stopper = choose(r, "", "", `"median"`, `{"name": "asha", "eta": 2}`, `{"name": "asha", "eta": 2, "promote": true}`, `{"name": "hyperband", "eta": 2, "promote": true}`)
	if l.stopper != "" {
		rest += `, "stopper": ` + l.stopper
	}
	switch r.IntN(8) {
	case 0:
		rest += `, "target": 0.35`
	case 1:
		rest += `, "patience": 3`
	}
	l.spec = strings.Replace(spec(rest), `{"name": "rate", "type": "float", "low": 0, "high": 1}`, space, 1)
	for range r.IntN(6) {
		l.events = append(l.events, choose(r, "pause", "resume", "leader", "extend", "parallel", "add", "cancel", "close", "leader"))
	}
	return l
}

func TestEverySweepEndsWithWhatItShould(t *testing.T) {
	runs, begun, seen := 60, 0, map[string]int{}
	if more, err := strconv.Atoi(os.Getenv("CLARY_SWEEP_RUNS")); err == nil {
		runs = more
	}
	rapid.Check(t, func(rt *rapid.T) {
		if begun++; begun > runs { // each is a sweep's whole life
			return
		}
		seed := rapid.Uint64().Draw(rt, "seed")
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			l := drawLife(r)
			inBubble(t, func(b *bench) { b.live(l, r, seen) })
			if t.Failed() {
				t.Logf("%+v", l)
			}
		})
		if t.Failed() {
			rt.Fatalf("seed %d", seed)
		}
	})
	for _, what := range []string{"succeeded", "failed", "complete", "stopped", "leader", "pause", "add", "extend", "close", "exhausted"} {
		if seen[what] == 0 {
			t.Errorf("never: %s", what)
		}
	}
	t.Log(seen)
}

// live runs a sweep with all that happens to it, and looks at how it ends.
func (b *bench) live(l life, r *rand.Rand, seen map[string]int) {
	stop := b.reign()
	b.submit("sweep", l.spec, func(job *cluster.Job) { job.Retry.Limit = l.retries })
	most := l.parallel
	for _, event := range l.events {
		time.Sleep(time.Duration(r.Int64N(int64(6 * time.Second))))
		sweep, _ := b.rows("sweep")
		var err error
		switch event {
		case "pause", "resume":
			err = b.desk.Do(b.Context(), "sweep", controlled(tuning.Control{Pause: new(event == "pause")}))
		case "leader":
			stop()
			time.Sleep(time.Duration(r.Int64N(int64(4 * time.Second))))
			stop = b.reign()
		case "extend":
			if sweep.Budget.Trials > 0 {
				err = b.desk.Do(b.Context(), "sweep", controlled(tuning.Control{Trials: new(sweep.Budget.Trials + r.Int64N(5))}))
			}
		case "parallel":
			parallel := 1 + r.Int32N(6)
			if err = b.desk.Do(b.Context(), "sweep", controlled(tuning.Control{Parallel: &parallel})); err == nil {
				most = max(most, parallel)
			}
		case "close":
			err = b.desk.Do(b.Context(), "sweep", controlled(tuning.Control{Close: "enough"}))
		case "add":
			values := map[string]expr.Value{"rate": expr.Num(0.3)}
			if strings.Contains(l.spec, `"name": "how"`) {
				values["how"] = expr.Str("well")
			}
			err = b.desk.Do(b.Context(), "sweep", added(values))
		case "cancel":
			if r.IntN(3) == 0 {
				b.cancelIfAlive("sweep")
			}
		}
		if err == nil {
			seen[event]++
		} else if job, _ := b.job("sweep"); !job.State.Ended() && !job.Cancel && job.State == cluster.JobRunning {
			b.Errorf("%s: %v", event, err)
		}
	}
	_ = b.desk.Do(b.Context(), "sweep", controlled(tuning.Control{Pause: new(false)})) // it may have ended
	defer func() { stop() }()
	job, sweep, trials := b.ends("sweep", time.Hour)
	b.law(l, job, sweep, trials)
	if int(b.most) > int(most) {
		b.Errorf("%d trials ran at once, of %d that may", b.most, most)
	}
	seen[string(job.State)]++
	for _, trial := range trials {
		seen[string(trial.State)]++
	}
	if strings.Contains(job.Reason, "every configuration") {
		seen["exhausted"]++
	}
}

// law says how a sweep may have ended.
func (b *bench) law(l life, job cluster.Job, sweep cluster.Sweep, trials []cluster.Trial) {
	b.Helper()
	broken := func(text string, args ...any) {
		b.Helper()
		b.Errorf("%s\n%s (%s): %+v\n%s", fmt.Sprintf(text, args...), job.State, job.Reason, sweep, table(trials))
	}
	var counts cluster.TrialCounts
	orders := map[uint64]bool{}
	best := int64(-1)
	for i, trial := range trials {
		*counts.Of(trial.State)++
		if trial.Number != int64(i) || !l.mayEnd(job, sweep, trial) {
			broken("trial %d", i)
		}
		results := []uint64{trial.Order}
		for _, point := range trial.Curve {
			if point.Order > 0 {
				results = append(results, point.Order)
			}
		}
		for _, order := range results {
			if orders[order] || order == 0 || order > sweep.Order {
				broken("result %d of trial %d", order, i)
			}
			orders[order] = true
		}
		if trial.State == cluster.TrialComplete && (best < 0 || trial.Values[0] < trials[best].Values[0]) {
			best = trial.Number
		}
	}
	if counts != sweep.Counts || counts.Live() != 0 || uint64(len(orders)) != sweep.Order {
		broken("%+v, %d results", counts, len(orders))
	}
	if best >= 0 && trials[sweep.Best].Values[0] != trials[best].Values[0] {
		broken("the best is %d", best)
	}
	if !sweep.Halt && job.State == cluster.JobSucceeded && sweep.Closed == "" && int64(len(trials)) < sweep.Budget.Trials {
		broken("it has ended before its budget was spent")
	}
	found := counts.Complete > 0 || counts.Total() == counts.Cancelled
	if job.State == cluster.JobFailed && found || job.State == cluster.JobSucceeded && !found {
		broken("it has %s", job.State)
	}
	failed := 0
	for _, child := range b.children("sweep") {
		if failed++; !child.State.Ended() || job.State == cluster.JobSucceeded && (child.State != cluster.JobFailed || failed > 8) {
			broken("the job %s is %s", child.Name, child.State)
		}
	}
	if err := tuning.Verify(job, trials, nil); err != nil {
		broken("%v", err)
	}
}

// mayEnd reports whether a trial may have ended as it has: its configuration says how its
// program ends.
func (l life) mayEnd(job cluster.Job, sweep cluster.Sweep, t cluster.Trial) bool {
	show, err := tuning.NewShower(job.Spec)
	if err != nil {
		return false
	}
	values := show.Values(t)
	how := ""
	if value, drawn := values["how"]; drawn {
		how = value.String()
	}
	switch t.State {
	case cluster.TrialComplete:
		right := slices.Equal(t.Values, []float64{loss(values["rate"].Number(), 3)})
		return right && (how == "" || how == "well" || how == "fails once" && l.retries > 0)
	case cluster.TrialFailed:
		return how == "fails" || how == "silent" || how == "mad" || how == "fails once" && l.retries == 0
	case cluster.TrialStopped:
		return l.stopper != "" || sweep.Halt
	case cluster.TrialCancelled:
		return job.Cancel || sweep.Halt
	}
	return false
}

func (b *bench) job(name string) (job cluster.Job, exists bool) {
	b.Helper()
	b.read(func(s *state.Snapshot) { job, exists = s.Job(name) })
	return job, exists
}

func (b *bench) cancelIfAlive(name string) {
	b.Helper()
	if job, _ := b.job(name); !job.State.Ended() {
		b.cancel(name)
	}
}
