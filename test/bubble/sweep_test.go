package bubble_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
	"github.com/clary-ml/clary/workload/tuning"
)

// The sweeps of one world. Alone runs a trial at a time, so that its results come in the same
// order whatever happens; wide runs three; of told the trials are run by three workers.
const (
	spaceOfRate = `{"parameters": [{"name": "rate", "type": "float", "low": 0, "high": 1}, {"name": "kind", "type": "categorical", "choices": ["a", "b"]}]}`
	alone       = `{"space": ` + spaceOfRate + `, "objectives": [{"name": "loss"}], "seed": 3, "budget": {"trials": 12}, "trial": ` + tryRate + `}`
	wide        = `{"space": ` + spaceOfRate + `, "objectives": [{"name": "loss"}], "seed": 4, "budget": {"trials": 18}, "parallel": 3,
		"fidelity": {"max": 4}, "stopper": {"name": "asha", "eta": 2}, "trial": ` + tryRate + `}`
	told    = `{"space": ` + spaceOfRate + `, "objectives": [{"name": "loss"}], "seed": 5, "budget": {"trials": 24}, "sampler": "tpe"}`
	tryRate = `{"program": {"command": ["try", "${rate}", "4"]}, "resources": {"memory": "256MiB", "cores": 0.5}}`
)

// lives is a world's sweeps when all have ended.
type lives struct {
	jobs   map[string]cluster.Job
	sweeps map[string]cluster.Sweep
	trials map[string][]cluster.Trial
}

func TestSweepsAreTheSameWhoeverLeads(t *testing.T) {
	runs, counts := uint64(2), &tally{}
	if more, err := strconv.ParseUint(os.Getenv("CLARY_BUBBLE_RUNS"), 10, 64); err == nil {
		runs = more
	}
	var calm lives
	t.Run("one leader", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { calm = liveSweeps(t, &tally{}, nil) })
	})
	const most = 10
	missing := func() []string {
		return slices.DeleteFunc([]string{"new leader", "unanswered", "second runs", "told"}, func(what string) bool { return counts.counts[what] > 0 })
	}
	// Some more while something has not happened yet.
	for seed := uint64(1); (seed <= runs || seed <= most && len(missing()) > 0) && !t.Failed(); seed++ {
		t.Run(fmt.Sprintf("many leaders %d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				shaken := liveSweeps(t, counts, rand.New(rand.NewPCG(7, seed)))
				sameTrials(t, shaken, calm)
			})
		})
	}
	if missing := missing(); len(missing) > 0 {
		t.Errorf("never: %v", missing)
	}
	t.Log(counts.counts)
}

// sameTrials compares what does not depend on when trials end.
func sameTrials(t *testing.T, shaken, calm lives) {
	t.Helper()
	for i, trial := range shaken.trials["alone"] {
		want := calm.trials["alone"][i]
		if !slices.Equal(trial.Config, want.Config) || !slices.Equal(trial.Values, want.Values) || trial.State != want.State || trial.Order != want.Order || trial.Since != want.Since {
			t.Errorf("trial %d is %+v, and with one leader %+v", i, trial, want)
		}
	}
	if calm.sweeps["alone"].Best != shaken.sweeps["alone"].Best {
		t.Errorf("the best is %d, and with one leader %d", shaken.sweeps["alone"].Best, calm.sweeps["alone"].Best)
	}
}

// liveSweeps runs the three sweeps in a world that is disturbed, unless random is nil, and
// sees that each has all the trials that it should, once.
func liveSweeps(t *testing.T, counts *tally, random *rand.Rand) lives {
	w := newWorld(t, counts)
	w.found()
	for name, spec := range map[string]string{"alone": alone, "wide": wide, "told": told} {
		w.submitSweep(name, spec)
	}
	var busy sync.WaitGroup
	workers := make([]*teller, 3)
	for i := range workers {
		workers[i] = &teller{world: w, name: fmt.Sprintf("worker-%d", i), random: rand.New(rand.NewPCG(11, uint64(i))), told: map[int64]float64{}}
		busy.Go(workers[i].work)
	}
	if random != nil {
		w.changeLeaders(random, counts)
	}
	busy.Wait()
	l := lives{jobs: map[string]cluster.Job{}, sweeps: map[string]cluster.Sweep{}, trials: map[string][]cluster.Trial{}}
	for _, name := range []string{"alone", "wide", "told"} {
		view := w.ends(name, 10*time.Minute)
		if view.GetJob().GetState() != string(cluster.JobSucceeded) {
			t.Fatalf("%s is %s (%s)", name, view.GetJob().GetState(), view.GetJob().GetReason())
		}
		w.readSweep(name, &l)
		w.checkSweep(l.jobs[name], l.sweeps[name], l.trials[name])
	}
	for _, trial := range l.trials["told"] {
		owners := 0
		for _, worker := range workers {
			if value, told := worker.told[trial.Number]; told {
				owners++
				if trial.Values[0] != value || trial.Worker != worker.name {
					t.Errorf("%s told %v of trial %d, and it is %+v", worker.name, value, trial.Number, trial)
				}
			}
		}
		if owners != 1 {
			t.Errorf("trial %d was told of by %d workers", trial.Number, owners)
		}
	}
	w.sound()
	for task := range w.floor.started {
		if strings.HasSuffix(task, ".2") {
			counts.add("second runs")
		}
	}
	return l
}

func (w *world) submitSweep(name, spec string) {
	w.Helper()
	_, err := w.jobs("c1").Submit(w.admin(w.Context()), &claryv1.SubmitRequest{Job: wire.JobToProto(cluster.Job{
		Name: name, Kind: cluster.KindTuning, Spec: []byte(spec), RequestID: name,
	})})
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) readSweep(name string, l *lives) {
	w.Helper()
	ctx, client := w.admin(w.Context()), claryv1.NewSweepsClient(w.conn("c1"))
	view, err := client.Get(ctx, &claryv1.GetSweepRequest{Name: name})
	if err != nil {
		w.Fatal(err)
	}
	list, err := client.Trials(ctx, &claryv1.ListTrialsRequest{Sweep: name, Limit: 1000})
	if err != nil {
		w.Fatal(err)
	}
	l.jobs[name], l.sweeps[name] = wire.JobFromProto(view.GetJob()), wire.SweepFromProto(view.GetSweep())
	for _, trial := range list.GetTrials() {
		l.trials[name] = append(l.trials[name], wire.TrialFromProto(trial.GetTrial()))
	}
}

// checkSweep sees that a sweep has as many trials as its budget, each with what it came to, and
// that each was proposed from exactly the results that were known.
func (w *world) checkSweep(job cluster.Job, sweep cluster.Sweep, trials []cluster.Trial) {
	w.Helper()
	var counts cluster.TrialCounts
	for i, trial := range trials {
		*counts.Of(trial.State)++
		want := cluster.TrialComplete
		if trial.Config[1] > trialFails && trial.State != cluster.TrialStopped && trial.Job != "" {
			want = cluster.TrialFailed
		}
		if trial.Number != int64(i) || trial.State != want && trial.State != cluster.TrialStopped {
			w.Errorf("%s: trial %d is %+v", job.Name, i, trial)
		}
		if trial.State == cluster.TrialComplete && trial.Values[0] != trialLoss(trial.Config[1], 4) {
			w.Errorf("%s: trial %d came to %v, its program told %v", job.Name, i, trial.Values[0], trialLoss(trial.Config[1], 4))
		}
	}
	if int64(len(trials)) != sweep.Budget.Trials || counts != sweep.Counts {
		w.Errorf("%s has %d trials of %d: %+v, and counts %+v", job.Name, len(trials), sweep.Budget.Trials, counts, sweep.Counts)
	}
	if err := tuning.Verify(job, trials, nil); err != nil {
		w.Errorf("%s: %v", job.Name, err)
	}
}

// changeLeaders takes the leader away again and again, in one way and another, and now and
// then a node, until all sweeps have ended.
func (w *world) changeLeaders(random *rand.Rand, counts *tally) {
	pause := func(least, most time.Duration) { time.Sleep(least + time.Duration(random.Int64N(int64(most)))) }
	for round := 0; !w.allEnded() && round < 40; round++ {
		pause(time.Second, 5*time.Second)
		leader := w.leader()
		switch round % 4 {
		case 0:
			w.partition(leader)
			pause(2*time.Second, 4*time.Second)
		case 1:
			w.stop(leader)
			pause(time.Second, 4*time.Second)
			w.coordinator(leader)
		case 2:
			w.partition("n1", leader)
			pause(2*time.Second, 25*time.Second) // longer than a node's lease, or not
		case 3:
			w.stop("n2")
			w.drivers["n2"].crash()
			pause(time.Second, 5*time.Second)
			w.agent("n2")
		}
		w.partition()
		if now := w.leader(); now != leader {
			counts.add("new leader")
		}
	}
}

// leader is the coordinator that leads, once there is one that all of a majority know.
func (w *world) leader() (leader string) {
	w.Helper()
	w.until("somebody leads", time.Minute, func() error {
		for _, id := range coordinators {
			ctx, cancel := context.WithTimeout(w.admin(w.Context()), 2*time.Second)
			info, err := claryv1.NewAdminClient(w.conn(id)).Info(ctx, &claryv1.InfoRequest{})
			cancel()
			if err == nil && info.GetLeader() != "" {
				leader = info.GetLeader()
				return nil
			}
		}
		return fmt.Errorf("nobody does")
	})
	return leader
}

func (w *world) allEnded() bool {
	for _, name := range []string{"alone", "wide", "told"} {
		view, err := w.look(w.leader(), name)
		if err != nil || !cluster.JobState(view.GetJob().GetState()).Ended() {
			return false
		}
	}
	return true
}

// teller is a worker of a study. It asks any coordinator, and again until it is answered.
type teller struct {
	*world
	name   string
	random *rand.Rand
	told   map[int64]float64
}

func (r *teller) work() {
	for request := 0; ; request++ {
		var answer *claryv1.AskResponse
		r.again(func(ctx context.Context, client claryv1.SweepsClient) (err error) {
			answer, err = client.Ask(ctx, &claryv1.AskRequest{Sweep: "told", Worker: r.name, RequestId: fmt.Sprint(request), Count: 1})
			return err
		})
		for _, trial := range answer.GetTrials() {
			time.Sleep(time.Duration(r.random.Int64N(int64(6 * time.Second))))
			number := trial.GetTrial().GetNumber()
			loss := trialLoss(trial.GetParameters()["rate"].GetNumber(), 4)
			if _, twice := r.told[number]; twice {
				r.Errorf("%s was given trial %d again", r.name, number)
			}
			r.again(func(ctx context.Context, client claryv1.SweepsClient) error {
				_, err := client.Tell(ctx, &claryv1.TellRequest{Sweep: "told", Trial: number, Worker: r.name, Metrics: map[string]float64{"loss": loss}})
				return err
			})
			r.told[number] = loss
		}
		if answer.GetDone() {
			return
		}
		time.Sleep(time.Duration(answer.GetRetryAfter()))
	}
}

// again calls coordinators until one answers.
func (r *teller) again(call func(context.Context, claryv1.SweepsClient) error) {
	for try := 0; ; try++ {
		ctx, cancel := context.WithTimeout(r.admin(r.Context()), 8*time.Second)
		err := call(ctx, claryv1.NewSweepsClient(r.conn(coordinators[r.random.IntN(3)])))
		cancel()
		if err == nil {
			return
		}
		if kind := fault.KindOf(wire.FromStatus(err)); kind != fault.Unready && ctx.Err() == nil || try == 200 {
			r.Errorf("%s: %v", r.name, err)
			return
		}
		r.floor.counts.add("unanswered")
		time.Sleep(300 * time.Millisecond)
	}
}
