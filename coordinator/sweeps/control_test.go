package sweeps_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/tuner/expr"
	"github.com/clary-ml/clary/workload/tuning"
)

// cancel asks a job to end.
func (b *bench) cancel(name string) {
	b.Helper()
	for {
		var job cluster.Job
		b.read(func(s *state.Snapshot) { job, _ = s.Job(name) })
		job.Cancel = true
		if _, err := b.ledger.Propose(b.Context(), command.Record{Changes: []command.Change{{Expect: job.Revision, Job: &job}}}); err == nil {
			return
		}
	}
}

// do has an operation done on a sweep, which must succeed.
func (b *bench) do(sweep string, operation func(*tuning.Search, int64) error) {
	b.Helper()
	if err := b.desk.Do(b.Context(), sweep, operation); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) control(sweep string, c tuning.Control) {
	b.Helper()
	b.do(sweep, func(s *tuning.Search, now int64) error { return s.Control(c, now) })
}

// rows are a sweep and its trials.
func (b *bench) rows(name string) (sweep cluster.Sweep, trials []cluster.Trial) {
	b.Helper()
	b.read(func(s *state.Snapshot) {
		sweep, _ = s.Sweep(name)
		trials = slices.Collect(s.TrialsOf(name, 0))
	})
	return sweep, trials
}

func TestAPausedSweepBeginsNothingAndItsTimeStandsStill(t *testing.T) {
	inBubble(t, func(b *bench) {
		stop := b.reign()
		b.submit("sweep", spec(`"budget": {"trials": 8, "time": "20s"}, "parallel": 2, "seed": 1`), nil)
		time.Sleep(4 * time.Second) // two have ended, two run
		b.control("sweep", tuning.Control{Pause: new(true)})
		time.Sleep(10 * time.Minute)
		paused, trials := b.rows("sweep")
		if !paused.Paused || paused.Counts != (cluster.TrialCounts{Complete: 4}) {
			t.Errorf("while it pauses: %+v\n%s", paused, table(trials))
		}
		stop() // a new leader knows that it pauses
		defer b.reign()()
		time.Sleep(time.Minute)
		if still, _ := b.rows("sweep"); still.Next != paused.Next {
			t.Errorf("a new leader has made %d trials while it pauses", still.Next-paused.Next)
		}
		b.control("sweep", tuning.Control{Pause: new(false)})
		job, sweep, trials := b.ends("sweep", time.Minute)
		if job.State != cluster.JobSucceeded || sweep.Counts != (cluster.TrialCounts{Complete: 8}) || sweep.PausedIn < 11*time.Minute {
			t.Errorf("%s (%s): %+v\n%s", job.State, job.Reason, sweep, table(trials))
		}
	})
}

func TestASweepIsExtendedAndCutShortWhileItRuns(t *testing.T) {
	for name, c := range map[string]struct {
		after    time.Duration
		change   tuning.Control
		complete int64
	}{
		"more trials":                   {7 * time.Second, tuning.Control{Trials: new(int64(9))}, 9},
		"fewer trials":                  {7 * time.Second, tuning.Control{Trials: new(int64(4))}, 4},
		"fewer than were begun":         {7 * time.Second, tuning.Control{Trials: new(int64(1))}, 3}, // what runs goes on
		"more, when none is left to do": {16 * time.Second, tuning.Control{Trials: new(int64(9))}, 9},
		"less time":                     {7 * time.Second, tuning.Control{Time: new(8 * time.Second)}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(b *bench) {
				defer b.reign()()
				b.submit("sweep", spec(`"budget": {"trials": 6}, "seed": 1`), nil) // three seconds each
				time.Sleep(c.after)
				b.control("sweep", c.change)
				job, sweep, trials := b.ends("sweep", time.Minute)
				if job.State != cluster.JobSucceeded || sweep.Counts.Complete != c.complete {
					t.Errorf("%s (%s): %+v\n%s", job.State, job.Reason, sweep, table(trials))
				}
				if err := tuning.Verify(job, trials, nil); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestAsManyTrialsRunAtOnceAsIsAskedForNow(t *testing.T) {
	inBubble(t, func(b *bench) {
		defer b.reign()()
		b.submit("sweep", spec(`"budget": {"trials": 40}, "seed": 1`), nil)
		time.Sleep(time.Second)
		running := func() int64 {
			sweep, _ := b.rows("sweep")
			return sweep.Counts.Running
		}
		for _, parallel := range []int32{1, 5, 2, 8} {
			b.control("sweep", tuning.Control{Parallel: &parallel})
			time.Sleep(3500 * time.Millisecond) // what ran before has ended
			if got := running(); got != int64(parallel) {
				t.Errorf("%d run, of %d that should", got, parallel)
			}
		}
		job, sweep, trials := b.ends("sweep", time.Minute)
		if job.State != cluster.JobSucceeded || sweep.Counts != (cluster.TrialCounts{Complete: 40}) || b.most != 8 {
			t.Errorf("%s (%s), %d at most: %+v\n%s", job.State, job.Reason, b.most, sweep, table(trials))
		}
	})
}

func TestATrialThatIsAddedByHandIsTheNext(t *testing.T) {
	inBubble(t, func(b *bench) {
		defer b.reign()()
		b.submit("sweep", spec(`"budget": {"trials": 6}, "seed": 1`), nil)
		time.Sleep(time.Second)
		var added, again cluster.Trial
		for _, to := range []*cluster.Trial{&added, &again} { // the second is the same request: its answer was lost
			b.do("sweep", func(s *tuning.Search, _ int64) (err error) {
				*to, err = s.Add(map[string]expr.Value{"rate": expr.Num(0.3)}, "ann", "request-1")
				return err
			})
		}
		if again.Number != added.Number || added.Number != 1 || added.State != cluster.TrialWaiting {
			t.Errorf("added %+v, and again %+v", added, again)
		}
		job, sweep, trials := b.ends("sweep", time.Minute)
		if job.State != cluster.JobSucceeded || sweep.Counts != (cluster.TrialCounts{Complete: 6}) || sweep.Best != 1 {
			t.Fatalf("%s (%s): %+v\n%s", job.State, job.Reason, sweep, table(trials))
		}
		if trials[1].By != "ann" || trials[1].Config[0] != 0.3 || trials[1].Started > trials[2].Started {
			t.Errorf("the second is %+v", trials[1])
		}
		if err := tuning.Verify(job, trials, nil); err != nil {
			t.Error(err)
		}
	})
}

func TestASweepLearnsFromAnEarlierOne(t *testing.T) {
	inBubble(t, func(b *bench) {
		stop := b.reign()
		b.submit("first", spec(`"budget": {"trials": 12}, "parallel": 2, "seed": 1`), nil)
		job, _, trials := b.ends("first", time.Minute)
		earlier := []tuning.Earlier{{Job: job, Trials: slices.Values(trials)}}
		wider := strings.Replace(spec(`"budget": {"trials": 4}, "seed": 2, "warm_start": ["first"]`), `"high": 1`, `"high": 2`, 1)
		b.submit("second", wider, nil)
		time.Sleep(5 * time.Second)
		stop() // a new leader reads the earlier sweep again
		defer b.reign()()
		job, sweep, trials := b.ends("second", time.Minute)
		if job.State != cluster.JobSucceeded || len(trials) != 4 {
			t.Fatalf("%s (%s): %+v", job.State, job.Reason, sweep)
		}
		if err := tuning.Verify(job, trials, earlier); err != nil {
			t.Error(err)
		}
		if first := trials[0].Config[0]; first < 0.1 || first > 0.5 {
			t.Errorf("it begins at %v, and the earlier sweep has found 0.3", first)
		}
		if tuning.Verify(job, trials, nil) == nil {
			t.Error("it has learned nothing that it would not know without the earlier sweep")
		}
	})
}

func TestWhatIsRefusedOfASweepChangesNothing(t *testing.T) {
	inBubble(t, func(b *bench) {
		defer b.reign()()
		b.submit("sweep", spec(`"budget": {"trials": 3}, "seed": 1`), nil)
		time.Sleep(1500 * time.Millisecond)
		sweep, trials := b.rows("sweep")
		for name, c := range map[string]struct {
			operation func(*tuning.Search, int64) error
			kind      fault.Kind
			want      string
		}{
			"none at once":     {controlled(tuning.Control{Parallel: new(int32(0))}), fault.Invalid, "parallel: 0 is out of range: from 1"},
			"too many at once": {controlled(tuning.Control{Parallel: new(int32(20000))}), fault.Invalid, "parallel: 20000"},
			"fewer than none":  {controlled(tuning.Control{Trials: new(int64(-1)), Parallel: new(int32(3))}), fault.Invalid, "budget.trials: -1"},
			"no time":          {controlled(tuning.Control{Time: new(-time.Second)}), fault.Invalid, "budget.time: -1s"},
			"no cost":          {controlled(tuning.Control{Cost: new(nan), Pause: new(true)}), fault.Invalid, "budget.cost: NaN"},
			"out of range":     {added(map[string]expr.Value{"rate": expr.Num(7)}), fault.Invalid, `parameters.rate: "7": give a number from 0 to 1`},
			"no number":        {added(map[string]expr.Value{"rate": expr.Num(nan)}), fault.Invalid, "parameters.rate"},
			"a text":           {added(map[string]expr.Value{"rate": expr.Str("fast")}), fault.Invalid, "parameters.rate"},
			"nothing":          {added(nil), fault.Invalid, "parameters.rate"},
			"too much":         {added(map[string]expr.Value{"rate": expr.Num(0.1), "depth": expr.Num(1)}), fault.Invalid, "parameters.depth"},
			"an ask": {func(s *tuning.Search, now int64) error {
				_, err := s.Ask(tuning.Ask{Worker: "ann"}, now)
				return err
			}, fault.Conflict, "runs its trials itself"},
			"a report": {func(s *tuning.Search, now int64) error {
				_, err := s.Report(tuning.Report{Worker: "ann", Point: true, Step: 1}, nil, now)
				return err
			}, fault.Conflict, "runs its trials itself"},
			"a tell": {func(s *tuning.Search, now int64) error {
				_, err := s.Tell(tuning.Tell{Worker: "ann", Metrics: map[string]float64{"loss": 0}}, nil, now)
				return err
			}, fault.Conflict, "runs its trials itself"},
		} {
			err := b.desk.Do(b.Context(), "sweep", c.operation)
			if fault.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v", name, err)
			}
			after, rows := b.rows("sweep")
			if after.Revision != sweep.Revision || !slices.EqualFunc(rows, trials, cluster.Trial.Equal) {
				t.Errorf("%s has changed the sweep: %+v\n%s", name, after, table(rows))
			}
		}
		b.ends("sweep", time.Minute)
		for name, operation := range map[string]func(*tuning.Search, int64) error{
			"control": controlled(tuning.Control{Trials: new(int64(9))}), "add": added(map[string]expr.Value{"rate": expr.Num(0.1)}),
		} {
			if err := b.desk.Do(b.Context(), "sweep", operation); !fault.Is(err, fault.Conflict) {
				t.Errorf("%s of a sweep that has ended: %v", name, err)
			}
		}
		if err := b.desk.Do(b.Context(), "nobody", controlled(tuning.Control{})); !fault.Is(err, fault.NotFound) {
			t.Errorf("control of no sweep: %v", err)
		}
	})
}

func controlled(c tuning.Control) func(*tuning.Search, int64) error {
	return func(s *tuning.Search, now int64) error { return s.Control(c, now) }
}

func added(values map[string]expr.Value) func(*tuning.Search, int64) error {
	return func(s *tuning.Search, _ int64) error {
		_, err := s.Add(values, "ann", "")
		return err
	}
}
