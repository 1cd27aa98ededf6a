package rpc_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
	"github.com/clary-ml/clary/workload/tuning"
)

const study = `{"space": {"parameters": [
		{"name": "rate", "type": "float", "low": 0, "high": 1},
		{"name": "net", "type": "categorical", "choices": ["small", "large"]},
		{"name": "deep", "type": "categorical", "choices": [true, false], "when": {"parameter": "net", "in": ["large"]}}]},
	"objectives": [{"name": "loss"}], "limits": [{"name": "size", "max": 0.9}], "sampler": "random", "seed": 3, "budget": {"trials": 30}}`

// desk is a study that is asked through the API.
type desk struct {
	*world
	api  claryv1.SweepsClient
	name string
}

func (w *world) study(spec string, change func(*cluster.Job)) *desk {
	w.Helper()
	_, err := w.submit(cluster.RoleUser, func(job *cluster.Job) {
		job.Name, job.Kind, job.Spec = "study", cluster.KindTuning, []byte(spec)
		if change != nil {
			change(job)
		}
	})
	if err != nil {
		w.Fatal(err)
	}
	d := &desk{w, claryv1.NewSweepsClient(w.as(cluster.RoleUser)), "study"}
	for d.get().GetJob().GetState() == string(cluster.JobQueued) {
		time.Sleep(10 * time.Millisecond)
	}
	return d
}

func (d *desk) get() *claryv1.SweepView {
	d.Helper()
	view, err := d.api.Get(d.Context(), &claryv1.GetSweepRequest{Name: d.name})
	if err != nil {
		d.Fatal(err)
	}
	return view
}

func (d *desk) ask(worker string, count int32) (*claryv1.AskResponse, error) {
	answer, err := d.api.Ask(d.Context(), &claryv1.AskRequest{Sweep: d.name, Worker: worker, Count: count})
	return answer, wire.FromStatus(err)
}

// one is one trial for a worker.
func (d *desk) one(worker string) *claryv1.TrialView {
	d.Helper()
	answer, err := d.ask(worker, 1)
	if err != nil || len(answer.GetTrials()) != 1 {
		d.Fatalf("%v, %v", answer, err)
	}
	return answer.GetTrials()[0]
}

func (d *desk) tell(worker string, trial int64, state string, metrics map[string]float64) (*claryv1.TellResponse, error) {
	answer, err := d.api.Tell(d.Context(), &claryv1.TellRequest{Sweep: d.name, Trial: trial, Worker: worker, State: state, Metrics: metrics, Reason: "so it is"})
	return answer, wire.FromStatus(err)
}

func (d *desk) report(worker string, trial int64, step, value float64) (*claryv1.ReportResponse, error) {
	answer, err := d.api.Report(d.Context(), &claryv1.ReportRequest{Sweep: d.name, Trial: trial, Worker: worker, Step: &step, Value: &value})
	return answer, wire.FromStatus(err)
}

func (d *desk) trials(change func(*claryv1.ListTrialsRequest)) []cluster.Trial {
	d.Helper()
	request := &claryv1.ListTrialsRequest{Sweep: d.name}
	if change != nil {
		change(request)
	}
	answer, err := d.api.Trials(d.Context(), request)
	if err != nil {
		d.Fatal(err)
	}
	var trials []cluster.Trial
	for _, view := range answer.GetTrials() {
		trials = append(trials, wire.TrialFromProto(view.GetTrial()))
	}
	return trials
}

func TestWorkersRunAStudyToItsEnd(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.T
		d := w.study(study, nil)
		best, told := math.Inf(1), 0
		for {
			answer, err := d.ask("worker-a", 4)
			if err != nil {
				t.Fatal(err)
			}
			if answer.GetDone() {
				break
			}
			for _, trial := range answer.GetTrials() {
				p := trial.GetParameters()
				if deep, is := p["deep"]; is != (p["net"].GetText() == "large") {
					t.Errorf("%v is there in %v: %v", deep, p, is)
				}
				value := p["rate"].GetNumber()
				number := trial.GetTrial().GetNumber()
				if advice, err := d.report("worker-a", number, 1, value+1); err != nil || !advice.GetGoOn() {
					t.Errorf("%v, %v", advice, err)
				}
				told, err := d.tell("worker-a", number, "", map[string]float64{"loss": value, "size": 0.5, "more": 1})
				if best = min(best, value); err != nil || told.GetBest() != (value == best) {
					t.Errorf("%v is the best: %v, %v", value, told.GetBest(), err)
				}
			}
			told += len(answer.GetTrials())
		}
		for !cluster.JobState(d.get().GetJob().GetState()).Ended() {
			time.Sleep(10 * time.Millisecond)
		}
		view := d.get()
		if told != 30 || view.GetJob().GetState() != string(cluster.JobSucceeded) || view.GetSweep().GetCounts().GetComplete() != 30 || view.GetBest()[0].GetTrial().GetValues()[0] != best {
			t.Errorf("%d told: %v", told, view)
		}
		if err := tuning.Verify(wire.JobFromProto(view.GetJob()), d.trials(nil), nil); err != nil {
			t.Error(err)
		}
		byValue := d.trials(func(r *claryv1.ListTrialsRequest) { r.By, r.Limit = "value", 5 })
		for i, trial := range byValue {
			if i == 0 && trial.Values[0] != best || i > 0 && trial.Values[0] < byValue[i-1].Values[0] || len(byValue) != 5 {
				t.Errorf("by value %v", byValue)
			}
		}
	})
}

func TestAWorkerSpeaksForItsOwnTrialsOnly(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.T
		d := w.study(study, nil)
		a, b := d.one("a").GetTrial().GetNumber(), d.one("b").GetTrial().GetNumber()
		metrics := map[string]float64{"loss": 1, "size": 1}
		_, crossed := d.tell("a", b, "", metrics)
		_, also := d.report("b", a, 1, 1)
		_, nobody := d.tell("", a, "", metrics)
		_, none := d.tell("a", 99, "", metrics)
		_, missing := d.tell("a", a, "", map[string]float64{"loss": 1})
		_, odd := d.tell("a", a, "stopped", nil)
		_, back := d.api.Report(t.Context(), &claryv1.ReportRequest{Sweep: d.name, Trial: a, Worker: "a", Step: new(float64), Value: new(float64)})
		_, half := d.api.Report(t.Context(), &claryv1.ReportRequest{Sweep: d.name, Trial: a, Worker: "a", Step: new(float64)})
		_, many := d.ask("a", 100_000)
		_, unknown := claryv1.NewSweepsClient(w.as(cluster.RoleUser)).Ask(t.Context(), &claryv1.AskRequest{Sweep: "nothing", Worker: "a"})
		_, other := claryv1.NewSweepsClient(w.as(w.user("eve", cluster.RoleUser))).Ask(t.Context(), &claryv1.AskRequest{Sweep: d.name, Worker: "a"})
		for i, c := range []struct {
			err  error
			kind fault.Kind
			want string
		}{
			{crossed, fault.Denied, `trial: 1 belongs to worker "b": "a" may not speak for it`},
			{also, fault.Denied, `trial: 0 belongs to worker "a": "b" may not speak for it`},
			{nobody, fault.Invalid, "worker:"},
			{none, fault.NotFound, "no trial 99: it has 2"},
			{missing, fault.Invalid, "metrics.size: is missing"},
			{odd, fault.Invalid, `state: "stopped"`},
			{wire.FromStatus(back), fault.Invalid, "step: 0"},
			{wire.FromStatus(half), fault.Invalid, "give both"},
			{many, fault.Invalid, "count: 100000"},
			{wire.FromStatus(unknown), fault.NotFound, `no job "nothing"`},
			{wire.FromStatus(other), fault.Denied, "belongs to"},
		} {
			if c.err == nil || !fault.Is(c.err, c.kind) || !strings.Contains(c.err.Error(), c.want) {
				t.Errorf("%d: %v; want %s: %s", i, c.err, c.kind, c.want)
			}
		}
		if counts := d.get().GetSweep().GetCounts(); counts.GetRunning() != 2 {
			t.Errorf("%v", counts)
		}
	})
}

func TestTheSameRequestAgainIsOne(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.T
		d := w.study(study, nil)
		request := &claryv1.AskRequest{Sweep: d.name, Worker: "a", Count: 3, RequestId: "once"}
		first, err1 := d.api.Ask(t.Context(), request)
		again, err2 := d.api.Ask(t.Context(), request)
		if err1 != nil || err2 != nil || len(first.GetTrials()) != 3 || len(again.GetTrials()) != 3 || d.get().GetSweep().GetNext() != 3 {
			t.Fatalf("%v, %v, %v, %v", first, again, err1, err2)
		}
		for range 2 {
			if advice, err := d.report("a", 0, 2, 0.5); err != nil || !advice.GetGoOn() {
				t.Errorf("%v, %v", advice, err)
			}
		}
		for range 2 {
			if _, err := d.tell("a", 0, "", map[string]float64{"loss": 0.25, "size": 0.5}); err != nil {
				t.Error(err)
			}
			if _, err := d.tell("a", 1, "infeasible", nil); err != nil {
				t.Error(err)
			}
		}
		if _, err := d.tell("a", 0, "", map[string]float64{"loss": 0.75, "size": 0.5}); !fault.Is(err, fault.Conflict) {
			t.Errorf("another result is %v", err)
		}
		add := &claryv1.AddTrialRequest{Sweep: d.name, RequestId: "own", Parameters: map[string]*claryv1.ParameterValue{
			"rate": {Value: &claryv1.ParameterValue_Number{Number: 0.125}}, "net": {Value: &claryv1.ParameterValue_Text{Text: "small"}},
		}}
		for range 2 {
			if added, err := d.api.AddTrial(t.Context(), add); err != nil || added.GetTrial().GetNumber() != 3 || added.GetTrial().GetBy() != "the-user" {
				t.Errorf("%v, %v", added, err)
			}
		}
		if next := d.one("b"); next.GetTrial().GetNumber() != 3 || next.GetParameters()["rate"].GetNumber() != 0.125 {
			t.Errorf("the trial that was added is not given next: %v", next)
		}
		counts := d.get().GetSweep().GetCounts()
		if counts.GetComplete() != 1 || counts.GetInfeasible() != 1 || counts.GetRunning() != 2 {
			t.Errorf("%v", counts)
		}
	})
}

func TestASilentWorkerLosesItsTrial(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.T
		d := w.study(study, func(job *cluster.Job) { job.Retry.Limit = 1 })
		ask := &claryv1.AskRequest{Sweep: d.name, Worker: "a", Lease: int64(time.Minute)}
		if _, err := d.api.Ask(t.Context(), ask); err != nil {
			t.Fatal(err)
		}
		for range 5 { // words keep it
			time.Sleep(40 * time.Second)
			if answer, err := d.api.Report(t.Context(), &claryv1.ReportRequest{Sweep: d.name, Worker: "a"}); err != nil || !answer.GetGoOn() {
				t.Fatalf("%v, %v", answer, err)
			}
		}
		time.Sleep(2 * time.Minute)
		if trial := d.trials(nil)[0]; trial.State != cluster.TrialWaiting || !strings.Contains(trial.Reason, "worker a was silent for 1m0s") {
			t.Fatalf("%+v", trial)
		}
		ask.Worker = "b"
		given, err := d.api.Ask(t.Context(), ask)
		if err != nil || len(given.GetTrials()) != 1 || given.GetTrials()[0].GetTrial().GetNumber() != 0 {
			t.Fatalf("%v, %v", given, err)
		}
		if _, err := d.report("a", 0, 1, 1); !fault.Is(err, fault.Denied) || !strings.Contains(err.Error(), `belongs to worker "b"`) {
			t.Errorf("the first worker is told %v", err)
		}
		time.Sleep(2 * time.Minute)
		if trial := d.trials(nil)[0]; trial.State != cluster.TrialFailed || !strings.Contains(trial.Reason, "worker b was silent") {
			t.Errorf("%+v", trial)
		}
		if answer, err := d.report("b", 0, 3, 1); err != nil || answer.GetGoOn() || !strings.Contains(answer.GetReason(), "failed") {
			t.Errorf("%v, %v", answer, err)
		}
	})
}

func TestASweepIsPausedExtendedAndWatched(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.T
		d := w.study(strings.Replace(study, `"trials": 30`, `"trials": 2`, 1), nil)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		watch, err := claryv1.NewSweepsClient(w.as(cluster.RoleViewer)).Watch(ctx, &claryv1.WatchSweepRequest{Name: d.name})
		if err != nil {
			t.Fatal(err)
		}
		yes, no, four, one := true, false, int64(4), int32(1)
		control := func(request *claryv1.ControlSweepRequest) *claryv1.SweepView {
			t.Helper()
			request.Sweep = d.name
			view, err := d.api.Control(t.Context(), request)
			if err != nil {
				t.Fatal(err)
			}
			return view
		}
		control(&claryv1.ControlSweepRequest{Pause: &yes, Trials: &four, Parallel: &one})
		if answer, err := d.ask("a", 1); err != nil || len(answer.GetTrials()) != 0 || answer.GetReason() != "the sweep pauses" || answer.GetRetryAfter() == 0 {
			t.Errorf("%v, %v", answer, err)
		}
		time.Sleep(time.Hour)
		view := control(&claryv1.ControlSweepRequest{Pause: &no})
		if paused := time.Duration(view.GetSweep().GetPausedIn()); paused < time.Hour || paused > time.Hour+time.Minute {
			t.Errorf("it paused for %s", paused)
		}
		if answer, err := d.ask("a", 3); err != nil || len(answer.GetTrials()) != 1 || !strings.Contains(answer.GetReason(), "as many as may") {
			t.Errorf("%v, %v", answer, err)
		}
		for i := range int64(4) {
			if _, err := d.tell("a", i, "", map[string]float64{"loss": float64(i), "size": float64(i)}); err != nil {
				t.Fatal(err)
			}
			if i < 3 {
				d.one("a")
			}
		}
		var changed []string
		for {
			view, err := watch.Recv()
			if err != nil {
				t.Fatal(err)
			}
			for _, trial := range view.GetChanged() {
				changed = append(changed, fmt.Sprint(trial.GetTrial().GetNumber(), trial.GetTrial().GetState()))
			}
			if cluster.JobState(view.GetJob().GetState()).Ended() {
				if best := view.GetBest(); len(best) != 1 || best[0].GetTrial().GetNumber() != 0 {
					t.Errorf("best %v", best)
				}
				break
			}
		}
		if got := strings.Join(changed, ", "); got != "0complete, 1complete, 2complete, 3complete" && got != "0 complete, 1 complete, 2 complete, 3 complete" {
			t.Errorf("watched %s", got)
		}
		if answer, err := d.ask("a", 1); err != nil || !answer.GetDone() {
			t.Errorf("%v, %v", answer, err)
		}
		if _, err := d.api.Control(t.Context(), &claryv1.ControlSweepRequest{Sweep: d.name, Pause: &yes}); !fault.Is(wire.FromStatus(err), fault.Conflict) || !strings.Contains(err.Error(), "warm_start: [study]") {
			t.Errorf("%v", err)
		}
	})
}

func TestAStoppedSweepBeginsNothingAndEndsWithWhatItHas(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.T
		d := w.study(study, nil)
		d.one("a")
		d.one("a")
		yes := true
		if _, err := d.api.Control(t.Context(), &claryv1.ControlSweepRequest{Sweep: d.name, Pause: &yes}); err != nil {
			t.Fatal(err)
		}
		view, err := d.api.Control(t.Context(), &claryv1.ControlSweepRequest{Sweep: d.name, Close: true})
		if err != nil || !strings.HasPrefix(view.GetSweep().GetClosed(), "stopped by ") || view.GetSweep().GetPaused() || view.GetSweep().GetBudget().GetTrials() != 30 {
			t.Fatalf("%+v, %v", view.GetSweep(), err)
		}
		if answer, err := d.ask("a", 1); err != nil || len(answer.GetTrials()) != 0 || answer.GetDone() || !strings.HasPrefix(answer.GetReason(), "stopped by ") {
			t.Errorf("%v, %v", answer, err)
		}
		for number := range int64(2) {
			if _, err := d.tell("a", number, "", map[string]float64{"loss": 1, "size": 1}); err != nil {
				t.Fatal(err)
			}
		}
		watch, err := claryv1.NewSweepsClient(w.as(cluster.RoleViewer)).Watch(t.Context(), &claryv1.WatchSweepRequest{Name: d.name})
		for err == nil && !cluster.JobState(view.GetJob().GetState()).Ended() {
			view, err = watch.Recv()
		}
		if job := view.GetJob(); err != nil || job.GetState() != string(cluster.JobSucceeded) || !strings.HasPrefix(job.GetReason(), "stopped by ") {
			t.Errorf("%s: %s, %v", job.GetState(), job.GetReason(), err)
		}
	})
}

func TestTheNameOfATrialsJobIsItsOwnForAsLongAsTheSweepIs(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.T
		jobs := claryv1.NewJobsClient(w.as(cluster.RoleUser))
		d := w.study(`{"space": {"parameters": [{"name": "rate", "type": "float", "low": 0, "high": 1}]}, "objectives": [{"name": "loss"}], "budget": {"trials": 3},
			"trial": {"program": {"command": ["true"]}, "resources": {"memory": "1MiB"}}}`, nil)
		for d.get().GetSweep().GetNext() == 0 {
			time.Sleep(10 * time.Millisecond)
		}
		if _, err := jobs.Cancel(t.Context(), &claryv1.CancelJobRequest{Name: d.name}); err != nil {
			t.Fatal(err)
		}
		for !cluster.JobState(d.get().GetJob().GetState()).Ended() {
			time.Sleep(10 * time.Millisecond)
		}
		if _, err := jobs.Get(t.Context(), &claryv1.GetJobRequest{Name: "study-t0"}); !fault.Is(wire.FromStatus(err), fault.NotFound) {
			t.Errorf("the trial's job is there: %v", err)
		}
		for name, free := range map[string]bool{"study-t0": false, "study-t1": true, "study-t0-2": true, "study-t00": true, "other-t0": true} {
			_, err := w.submit(cluster.RoleUser, func(job *cluster.Job) { job.Name = name })
			if err = wire.FromStatus(err); free && err != nil || !free && (!fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "was the job of trial 0 of sweep study")) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}
