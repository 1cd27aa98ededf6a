package sweeps_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/workload/tuning"
)

func TestASweepRunsItsTrialsAFewAtATime(t *testing.T) {
	inBubble(t, func(b *bench) {
		defer b.reign()()
		b.submit("sweep", spec(`"budget": {"trials": 20}, "parallel": 4, "seed": 1`), nil)
		job, sweep, trials := b.ends("sweep", time.Minute)
		if job.State != cluster.JobSucceeded || len(trials) != 20 || sweep.Counts != (cluster.TrialCounts{Complete: 20}) || b.most != 4 {
			t.Fatalf("%s (%s), %d trials at most, %+v\n%s", job.State, job.Reason, b.most, sweep, table(trials))
		}
		best := trials[0]
		for _, trial := range trials {
			if trial.Values[0] < best.Values[0] {
				best = trial
			}
		}
		if sweep.Best != best.Number || sweep.BestValues[0] != best.Values[0] {
			t.Errorf("the best is %+v, not %d (%v)", best, sweep.Best, sweep.BestValues)
		}
		if err := tuning.Verify(job, trials, nil); err != nil {
			t.Error(err)
		}
		if left := b.children("sweep"); len(left) != 0 {
			t.Errorf("%d jobs are left", len(left))
		}
	})
}

func TestFailedTrialsAreRetriedAndCountedAndASweepThatCannotSucceedEnds(t *testing.T) {
	for how, c := range map[string]struct {
		retries  int32
		state    cluster.JobState
		complete int64
		reason   string // of the first trial
	}{
		"fails":      {0, cluster.JobFailed, 0, "exit code 3"},
		"fails once": {1, cluster.JobSucceeded, 6, ""},
		"silent":     {0, cluster.JobFailed, 0, "without a finite value of loss; it told other"},
		"mad":        {0, cluster.JobFailed, 0, "not finite: loss +Inf"},
	} {
		t.Run(how, func(t *testing.T) {
			inBubble(t, func(b *bench) {
				defer b.reign()()
				b.submit("sweep", spec(`"budget": {"trials": 6}`, `"how": "`+how+`"`), func(job *cluster.Job) { job.Retry = cluster.Retry{Limit: c.retries} })
				job, sweep, trials := b.ends("sweep", time.Minute)
				if job.State != c.state || sweep.Counts.Complete != c.complete || !strings.Contains(trials[0].Reason, c.reason) {
					t.Errorf("%s (%s): %+v\n%s", job.State, job.Reason, sweep, table(trials))
				}
				if c.state == cluster.JobFailed && !strings.Contains(job.Reason, c.reason) {
					t.Errorf("the sweep says %s", job.Reason)
				}
				if c.state == cluster.JobFailed && sweep.Counts.Failed != 5 {
					t.Errorf("%d trials failed before it was given up: %s", sweep.Counts.Failed, sweep.Closed)
				}
			})
		})
	}
}

func TestANewLeaderGoesOnAsIfNothingHadHappened(t *testing.T) {
	run := func(kill bool) (cluster.Sweep, []cluster.Trial) {
		var sweep cluster.Sweep
		var trials []cluster.Trial
		inBubble(t, func(b *bench) {
			stop := b.reign()
			b.submit("sweep", spec(`"budget": {"trials": 12}, "seed": 5, "sampler": "quasi"`), nil)
			for kills := 0; kill && kills < 5; kills++ {
				time.Sleep(4700 * time.Millisecond)
				stop()
				time.Sleep(time.Second)
				stop = b.reign()
			}
			defer stop()
			var job cluster.Job
			job, sweep, trials = b.ends("sweep", 2*time.Minute)
			if job.State != cluster.JobSucceeded {
				t.Fatalf("%s: %s", job.State, job.Reason)
			}
			if err := tuning.Verify(job, trials, nil); err != nil {
				t.Error(err)
			}
		})
		return sweep, trials
	}
	calm, undisturbed := run(false)
	shaken, killed := run(true)
	if len(undisturbed) != len(killed) || calm.Best != shaken.Best || calm.BestValues[0] != shaken.BestValues[0] {
		t.Fatalf("%+v\n%+v", calm, shaken)
	}
	for i := range killed {
		a, b := undisturbed[i], killed[i]
		if a.Config[0] != b.Config[0] || a.Values[0] != b.Values[0] || a.Order != b.Order || a.Since != b.Since {
			t.Errorf("trial %d: %+v, and with new leaders %+v", i, a, b)
		}
	}
}

func TestCancellingASweepTakesItsTrialsAlong(t *testing.T) {
	inBubble(t, func(b *bench) {
		defer b.reign()()
		b.submit("sweep", spec(`"parallel": 3`, `"steps": 1000`), nil)
		time.Sleep(10 * time.Second)
		if n := len(b.children("sweep")); n != 3 {
			t.Fatalf("%d jobs run", n)
		}
		b.cancel("sweep")
		job, sweep, trials := b.ends("sweep", 10*time.Second)
		if job.State != cluster.JobCancelled || sweep.Counts != (cluster.TrialCounts{Cancelled: 3}) {
			t.Errorf("%s (%s): %+v\n%s", job.State, job.Reason, sweep, table(trials))
		}
		for _, child := range b.children("sweep") {
			if !child.State.Ended() {
				t.Errorf("%s is %s", child.Name, child.State)
			}
		}
	})
}

func TestABudgetOfTimeOrMoneyAndATargetStopWhatRuns(t *testing.T) {
	for name, c := range map[string]struct {
		rest   string
		reason string
	}{
		"time":   {`"budget": {"time": "30s"}, "parallel": 2`, "its time of 30s is up"},
		"cost":   {`"budget": {"cost": 2}, "prices": {"core_hour": 60}, "parallel": 2`, "its budget of 2 is spent"},
		"target": {`"target": 0.35, "parallel": 2`, "the target is 0.35"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(b *bench) {
				defer b.reign()()
				b.submit("sweep", spec(c.rest), nil)
				began := time.Now()
				job, sweep, trials := b.ends("sweep", 5*time.Minute)
				if job.State != cluster.JobSucceeded || !strings.Contains(job.Reason, c.reason) || sweep.Counts.Live() != 0 || sweep.Counts.Complete == 0 {
					t.Errorf("%s (%s): %+v\n%s", job.State, job.Reason, sweep, table(trials))
				}
				if took := time.Since(began); name == "time" && (took < 30*time.Second || took > 33*time.Second) || name == "cost" && (sweep.Cost < 1.9 || sweep.Cost > 2.1) {
					t.Errorf("after %s, for %v", took, sweep.Cost)
				}
			})
		})
	}
}

func TestAFiniteSpaceEndsWhenAllWasTried(t *testing.T) {
	inBubble(t, func(b *bench) {
		defer b.reign()()
		text := strings.Replace(spec(`"parallel": 3`), `"type": "float", "low": 0, "high": 1`, `"type": "ordered", "choices": [0.1, 0.2, 0.3, 0.4, 0.5]`, 1)
		b.submit("sweep", text, nil)
		job, sweep, trials := b.ends("sweep", time.Minute)
		if job.State != cluster.JobSucceeded || sweep.Counts != (cluster.TrialCounts{Complete: 5}) || !strings.Contains(job.Reason, "every configuration") {
			t.Errorf("%s (%s): %+v\n%s", job.State, job.Reason, sweep, table(trials))
		}
		if values := trials[sweep.Best].Config; values[0] != 2 {
			t.Errorf("the best is %v", values)
		}
	})
}

func TestHalvingStopsTrialsAndFreesTheirPlacesAtOnce(t *testing.T) {
	inBubble(t, func(b *bench) {
		defer b.reign()()
		b.submit("sweep", spec(`"budget": {"trials": 30}, "parallel": 3, "seed": 2, "sampler": "random", "fidelity": {"max": 9}, "stopper": "asha"`, `"steps": 9`), nil)
		began := time.Now()
		job, sweep, trials := b.ends("sweep", 5*time.Minute)
		if job.State != cluster.JobSucceeded || sweep.Counts.Stopped < 10 || sweep.Counts.Stopped+sweep.Counts.Complete != 30 || b.most > 3 {
			t.Errorf("%s (%s), %d at most: %+v\n%s", job.State, job.Reason, b.most, sweep, table(trials))
		}
		if took := time.Since(began); took > 75*time.Second { // ten rounds of nine steps without any stop
			t.Errorf("it took %s", took)
		}
		for _, trial := range trials {
			if counted := points(trial); trial.State == cluster.TrialStopped && counted != 1 && counted != 2 || trial.State == cluster.TrialComplete && counted != 2 {
				t.Errorf("trial %d is %s with %d points that count, of rungs 1 and 3: %v", trial.Number, trial.State, counted, trial.Curve)
			}
		}
		if err := tuning.Verify(job, trials, nil); err != nil {
			t.Error(err)
		}
	})
}

// points is how many points of a trial's curve the search has learned from.
func points(t cluster.Trial) int {
	n := 0
	for _, point := range t.Curve {
		if point.Order > 0 {
			n++
		}
	}
	return n
}

func TestPromotedTrialsGoOnFromTheirCheckpoints(t *testing.T) {
	inBubble(t, func(b *bench) {
		stop := b.reign()
		b.submit("sweep", spec(`"budget": {"trials": 27}, "parallel": 3, "seed": 2, "sampler": "random", "fidelity": {"max": 9}, "stopper": {"name": "asha", "promote": true}`,
			`"steps": 9`), nil)
		time.Sleep(20 * time.Second)
		stop()
		defer b.reign()()
		job, sweep, trials := b.ends("sweep", 5*time.Minute)
		counts := sweep.Counts
		if job.State != cluster.JobSucceeded || counts.Complete < 2 || counts.Complete > 8 || counts.Complete+counts.Stopped != 27 || b.most > 3 {
			t.Errorf("%s (%s): %+v\n%s", job.State, job.Reason, sweep, table(trials))
		}
		for _, trial := range trials {
			if trial.State == cluster.TrialComplete && (trial.Runs != 3 || b.steps[trial.Number] != 9) {
				t.Errorf("trial %d ran %d times, %d steps", trial.Number, trial.Runs, b.steps[trial.Number])
			}
			if trial.State == cluster.TrialStopped && b.steps[trial.Number] > 5 {
				t.Errorf("trial %d has stopped (%s) after %d steps", trial.Number, trial.Reason, b.steps[trial.Number])
			}
		}
		if err := tuning.Verify(job, trials, nil); err != nil {
			t.Error(err)
		}
	})
}

func TestTrialsDoNotWriteOverOneAnother(t *testing.T) {
	inBubble(t, func(b *bench) {
		defer b.reign()()
		text := strings.Replace(spec(`"budget": {"trials": 3}, "parallel": 3`, `"steps": 1000`), `"checkpoints": true`, `"checkpoints": true, "output": "s3://models/digits/"`, 1)
		b.submit("sweep", text, nil)
		time.Sleep(5 * time.Second)
		places := map[string]bool{}
		for _, child := range b.children("sweep") {
			var filled struct{ Output string }
			if err := json.Unmarshal(child.Spec, &filled); err != nil {
				t.Fatal(err)
			}
			if want := "s3://models/digits/" + child.Name + "/"; filled.Output != want {
				t.Errorf("%s writes to %q, want %q", child.Name, filled.Output, want)
			}
			places[filled.Output] = true
		}
		if len(places) != 3 {
			t.Errorf("three trials write to %v", places)
		}
	})
}
