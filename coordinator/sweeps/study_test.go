package sweeps_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/workload/tuning"
)

var nan = math.NaN()

// study is a sweep without a trial of its own, with one parameter, an objective and a limit.
func study(rest string) string {
	return `{"space": {"parameters": [{"name": "rate", "type": "float", "low": 0, "high": 1}]}, "objectives": [{"name": "loss"}],
		"limits": [{"name": "size", "max": 1}]` + rest + `}`
}

// ended reads rows as the API does.
func (b *bench) ended(sweep string) func(int64) (cluster.Trial, bool) {
	return func(number int64) (trial cluster.Trial, exists bool) {
		b.read(func(s *state.Snapshot) { trial, exists = s.Trial(cluster.TrialID(sweep, number)) })
		return trial, exists
	}
}

func (b *bench) ask(sweep, worker string, count int) (given tuning.Given) {
	b.Helper()
	b.do(sweep, func(s *tuning.Search, now int64) (err error) {
		given, err = s.Ask(tuning.Ask{Worker: worker, Count: count}, now)
		return err
	})
	return given
}

func (b *bench) tell(sweep string, t tuning.Tell) (told tuning.Told, err error) {
	err = b.desk.Do(b.Context(), sweep, func(s *tuning.Search, now int64) (err error) {
		told, err = s.Tell(t, b.ended(sweep), now)
		return err
	})
	return told, err
}

func (b *bench) report(sweep string, r tuning.Report) (advice tuning.Advice, err error) {
	err = b.desk.Do(b.Context(), sweep, func(s *tuning.Search, now int64) (err error) {
		advice, err = s.Report(r, b.ended(sweep), now)
		return err
	})
	return advice, err
}

func good(loss float64) map[string]float64 { return map[string]float64{"loss": loss, "size": 0.5} }

func TestWhatIsRefusedOfAStudyChangesNothing(t *testing.T) {
	inBubble(t, func(b *bench) {
		defer b.reign()()
		b.submit("study", study(`, "budget": {"trials": 5}, "seed": 1, "fidelity": {"max": 9}, "stopper": "median"`), nil)
		time.Sleep(time.Second)
		// Ann has trials 0 and 1, and has told of 0; Bob has 2, and has lost 3 by his silence.
		b.ask("study", "ann", 2)
		b.ask("study", "bob", 1)
		if _, err := b.tell("study", tuning.Tell{Number: 0, Worker: "ann", Metrics: good(1)}); err != nil {
			t.Fatal(err)
		}
		if _, err := b.report("study", tuning.Report{Number: 1, Worker: "ann", Point: true, Step: 4, Value: 2}); err != nil {
			t.Fatal(err)
		}
		sweep, trials := b.rows("study")
		tells := map[string]struct {
			tell tuning.Tell
			kind fault.Kind
			want string
		}{
			"of another's trial":   {tuning.Tell{Number: 2, Worker: "ann", Metrics: good(1)}, fault.Denied, `trial: 2 belongs to worker "bob": "ann" may not speak for it`},
			"and the other way":    {tuning.Tell{Number: 1, Worker: "bob", Metrics: good(1)}, fault.Denied, `trial: 1 belongs to worker "ann"`},
			"of no trial":          {tuning.Tell{Number: 99, Worker: "ann", Metrics: good(1)}, fault.NotFound, "no trial 99: it has 3, from 0"},
			"of a trial below all": {tuning.Tell{Number: -1, Worker: "ann", Metrics: good(1)}, fault.NotFound, "no trial -1"},
			"by nobody":            {tuning.Tell{Number: 1, Metrics: good(1)}, fault.Invalid, "worker"},
			"without the metric":   {tuning.Tell{Number: 1, Worker: "ann", Metrics: map[string]float64{"size": 1, "Loss": 2}}, fault.Invalid, "metrics.loss: is missing"},
			"without the limit":    {tuning.Tell{Number: 1, Worker: "ann", Metrics: map[string]float64{"loss": 1}}, fault.Invalid, "metrics.size: is missing"},
			"in no state":          {tuning.Tell{Number: 1, Worker: "ann", State: "great"}, fault.Invalid, `state: "great"`},
			"of a running end":     {tuning.Tell{Number: 1, Worker: "ann", State: cluster.TrialRunning}, fault.Invalid, "state"},
			"of a negative cost":   {tuning.Tell{Number: 1, Worker: "ann", Metrics: good(1), Cost: -1}, fault.Invalid, "cost: -1"},
			"of no cost":           {tuning.Tell{Number: 1, Worker: "ann", Metrics: good(1), Cost: nan}, fault.Invalid, "cost: NaN"},
			"otherwise, later":     {tuning.Tell{Number: 0, Worker: "ann", Metrics: good(2)}, fault.Conflict, "trial: 0 is complete already"},
			"of its failure then":  {tuning.Tell{Number: 0, Worker: "ann", State: cluster.TrialFailed}, fault.Conflict, "trial: 0 is complete already"},
		}
		reports := map[string]struct {
			report tuning.Report
			kind   fault.Kind
			want   string
		}{
			"of another's trial":  {tuning.Report{Number: 2, Worker: "ann", Point: true, Step: 5, Value: 1}, fault.Denied, "belongs to worker"},
			"of a step before":    {tuning.Report{Number: 1, Worker: "ann", Point: true, Step: 3, Value: 1}, fault.Invalid, "step: 3: trial 1 has reported step 4"},
			"of a step once more": {tuning.Report{Number: 1, Worker: "ann", Point: true, Step: 4, Value: 1}, fault.Invalid, "steps ascend"},
			"of step NaN":         {tuning.Report{Number: 1, Worker: "ann", Point: true, Step: nan, Value: 1}, fault.Invalid, "step: NaN"},
			"of step 0":           {tuning.Report{Number: 1, Worker: "ann", Point: true, Step: 0, Value: 1}, fault.Invalid, "step: 0"},
			"of no trial":         {tuning.Report{Number: 3, Worker: "ann", Point: true, Step: 5, Value: 1}, fault.NotFound, "no trial 3"},
		}
		unchanged := func(what string, err error, kind fault.Kind, want string) {
			t.Helper()
			if err == nil || fault.KindOf(err) != kind || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v", what, err)
			}
			after, rows := b.rows("study")
			if after.Revision != sweep.Revision || !slices.EqualFunc(rows, trials, cluster.Trial.Equal) {
				t.Fatalf("%s has changed the study: %+v\n%s", what, after, table(rows))
			}
		}
		for name, c := range tells {
			_, err := b.tell("study", c.tell)
			unchanged("a tell "+name, err, c.kind, c.want)
		}
		for name, c := range reports {
			_, err := b.report("study", c.report)
			unchanged("a report "+name, err, c.kind, c.want)
		}
		for name, a := range map[string]tuning.Ask{
			"worker": {Worker: strings.Repeat("w", 999)}, "count": {Worker: "ann", Count: -1}, "lease": {Worker: "ann", Silence: time.Millisecond}, "request_id": {Worker: "ann", Request: strings.Repeat("r", 999)},
		} {
			err := b.desk.Do(b.Context(), "study", func(s *tuning.Search, now int64) error {
				_, err := s.Ask(a, now)
				return err
			})
			unchanged("an ask", err, fault.Invalid, name+": ")
		}
	})
}

func TestAWorkerThatHasLostItsTrialGetsItBackOnlyWithARightReport(t *testing.T) {
	inBubble(t, func(b *bench) {
		defer b.reign()()
		b.submit("study", study(`, "fidelity": {"max": 9}, "stopper": "median"`), func(job *cluster.Job) { job.Retry.Limit = 3 })
		time.Sleep(time.Second)
		b.ask("study", "ann", 1)
		if _, err := b.report("study", tuning.Report{Worker: "ann", Point: true, Step: 4, Value: 2}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(tuning.DefaultSilence + time.Second)
		_, lost := b.rows("study")
		if lost[0].State != cluster.TrialWaiting {
			t.Fatalf("the silent worker's trial is %+v", lost[0])
		}
		if _, err := b.report("study", tuning.Report{Worker: "ann", Point: true, Step: 3, Value: 2}); !fault.Is(err, fault.Invalid) {
			t.Errorf("a step before the last: %v", err)
		}
		if _, rows := b.rows("study"); !rows[0].Equal(lost[0]) {
			t.Errorf("a report that was refused has made it %+v", rows[0])
		}
		advice, err := b.report("study", tuning.Report{Worker: "ann", Point: true, Step: 5, Value: 2})
		if _, rows := b.rows("study"); err != nil || !advice.GoOn || rows[0].State != cluster.TrialRunning || rows[0].Runs != 1 {
			t.Errorf("%+v, %v: %+v", advice, err, rows[0])
		}
	})
}

func TestAStudyOfRubbishEnds(t *testing.T) {
	for name, c := range map[string]struct {
		rest  string
		tell  tuning.Tell
		state cluster.JobState
		want  string // of the job's reason
		row   string // of the trials' reasons
	}{
		"values that are not finite":   {``, tuning.Tell{Metrics: map[string]float64{"loss": nan, "size": 1}}, cluster.JobFailed, "none of its 5 trials has succeeded", "a metric is not finite: loss NaN"},
		"limits that are not finite":   {``, tuning.Tell{Metrics: map[string]float64{"loss": 1, "size": math.Inf(1)}}, cluster.JobFailed, "none of its 5 trials", "size +Inf"},
		"values as large as they come": {`, "budget": {"trials": 12}`, tuning.Tell{Metrics: map[string]float64{"loss": math.MaxFloat64, "size": -math.MaxFloat64}}, cluster.JobSucceeded, "all 12 trials", ""},
		"the same value always":        {`, "budget": {"trials": 12}`, tuning.Tell{Metrics: good(1)}, cluster.JobSucceeded, "all 12 trials", ""},
		"all outside the limit":        {`, "budget": {"trials": 12}`, tuning.Tell{Metrics: map[string]float64{"loss": 1, "size": 2}}, cluster.JobSucceeded, "all 12 trials", ""},
		"nothing but failures":         {`, "max_failed": 3`, tuning.Tell{State: cluster.TrialFailed, Reason: "out of memory"}, cluster.JobFailed, "none of its 3 trials", "out of memory"},
		"nothing but infeasible ones":  {``, tuning.Tell{State: cluster.TrialInfeasible}, cluster.JobFailed, "none of its 5 trials", "its worker said so"},
		"workers that give up":         {`, "budget": {"trials": 12}`, tuning.Tell{State: cluster.TrialCancelled}, cluster.JobSucceeded, "all 12 trials", "its worker said so"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(b *bench) {
				defer b.reign()()
				b.submit("study", study(`, "seed": 1`+c.rest), nil)
				time.Sleep(time.Second)
				for asked := 0; ; asked++ {
					var given tuning.Given
					err := b.desk.Do(b.Context(), "study", func(s *tuning.Search, now int64) (err error) {
						given, err = s.Ask(tuning.Ask{Worker: "ann"}, now)
						return err
					})
					if fault.Is(err, fault.Conflict) || given.Done { // it has ended
						break
					}
					if err != nil || len(given.Trials) != 1 || asked > 20 {
						t.Fatalf("ask %d: %v, %+v", asked, err, given)
					}
					tell := c.tell
					tell.Number, tell.Worker = given.Trials[0].Number, "ann"
					if _, err := b.tell("study", tell); err != nil {
						t.Fatal(err)
					}
				}
				job, sweep, trials := b.ends("study", time.Minute)
				if job.State != c.state || !strings.Contains(job.Reason, c.want) || !strings.Contains(trials[0].Reason, c.row) {
					t.Errorf("%s (%s): %+v\n%s", job.State, job.Reason, sweep, table(trials))
				}
				if err := tuning.Verify(job, trials, nil); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestAStudyEndsThoughItsWorkersAreGone(t *testing.T) {
	inBubble(t, func(b *bench) {
		defer b.reign()()
		b.submit("study", study(`, "budget": {"trials": 4}`), nil)
		time.Sleep(time.Second)
		for i := range 4 {
			b.ask("study", fmt.Sprint("worker-", i), 1)
		}
		if _, err := b.tell("study", tuning.Tell{Number: 2, Worker: "worker-2", Metrics: good(1)}); err != nil {
			t.Fatal(err)
		}
		job, sweep, trials := b.ends("study", tuning.DefaultSilence+time.Minute)
		if job.State != cluster.JobSucceeded || sweep.Counts != (cluster.TrialCounts{Complete: 1, Failed: 3}) || !strings.Contains(trials[0].Reason, "worker worker-0 was silent for 10m0s") {
			t.Errorf("%s (%s): %+v\n%s", job.State, job.Reason, sweep, table(trials))
		}
	})
}
