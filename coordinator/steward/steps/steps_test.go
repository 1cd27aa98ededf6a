package steps_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/solo"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/coordinator/steward"
	"github.com/clary-ml/clary/coordinator/steward/steps"
	"github.com/clary-ml/clary/internal/quantity"
	"github.com/clary-ml/clary/serving/autoscale"
	"github.com/clary-ml/clary/serving/experiment"
	"github.com/clary-ml/clary/serving/route"
	"github.com/clary-ml/clary/workload/endpoint"
)

// shop is an endpoint under a steward with all steps, over a real state, inside a bubble; one router
// tells of it, and its replicas are ready as soon as they are wanted.
type shop struct {
	*testing.T
	ledger *solo.Ledger
	lead   *steward.Steward

	values map[string]map[string]float64 // that replicas themselves tell, by fleet
	room   map[string]int32              // how many replicas of a variant there is room for, if not for all

	mu     sync.Mutex
	live   []string
	table  route.Table
	report route.Report
	cancel context.CancelFunc
	done   chan error
}

// variant is one of the shop's.
func variant(name string, weight float64, scaling *autoscale.Spec) map[string]any {
	v := map[string]any{"name": name, "weight": weight, "program": map[string]any{"command": []string{"serve"}}}
	if scaling != nil {
		v["scaling"] = scaling
	}
	return v
}

func inBubble(t *testing.T, spec map[string]any, test func(*shop)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state")
	synctest.Test(t, func(t *testing.T) {
		ledger, err := solo.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer ledger.Close()
		s := &shop{T: t, ledger: ledger, live: []string{"r"}, report: route.Report{Router: "r", Boot: "1"}}
		s.open(spec)
		s.reign()
		test(s)
		s.cancel()
		if err := <-s.done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	})
}

// reign begins to lead; the leader before has ended.
func (s *shop) reign() {
	if s.cancel != nil {
		s.cancel()
		<-s.done
	}
	s.lead = steward.New(steward.Config{
		Ledger: s.ledger, Log: slog.New(slog.DiscardHandler), Steps: steps.All(slog.New(slog.DiscardHandler)),
		Live: func() []string { s.mu.Lock(); defer s.mu.Unlock(); return s.live },
		Measured: func(context.Context, cluster.Endpoint) map[string]map[string]float64 {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.values
		},
		Table: func() route.Table { s.mu.Lock(); defer s.mu.Unlock(); return s.table },
	})
	ctx, cancel := context.WithCancel(s.Context())
	s.cancel, s.done = cancel, make(chan error, 1)
	go func() { s.done <- s.lead.Run(ctx) }()
	synctest.Wait()
	time.Sleep(steward.Every / 2) // between two looks
}

// open submits the endpoint.
func (s *shop) open(spec map[string]any) {
	s.Helper()
	text, err := json.Marshal(spec)
	if err != nil {
		s.Fatal(err)
	}
	var read endpoint.Spec
	if err := json.Unmarshal(text, &read); err != nil {
		s.Fatal(err)
	}
	fleets, err := read.Fleets(1, nil)
	if err != nil {
		s.Fatal(err)
	}
	for i, v := range spec["variants"].([]map[string]any) {
		fleets[i].Share, fleets[i].Replicas, fleets[i].Next = 1, 1, 9
		if fleets[i].Spec, err = json.Marshal(v); err != nil {
			s.Fatal(err)
		}
	}
	job := cluster.Job{Name: "shop", Kind: cluster.KindEndpoint, Owner: "ann", Queue: "default", State: cluster.JobQueued, Attempt: 1, Submitted: 1, Spec: text}
	if _, err := s.ledger.Propose(s.Context(), command.Record{Changes: []command.Change{
		{Job: &job}, {Endpoint: &cluster.Endpoint{Job: "shop", Generation: 1, Last: 1, Spec: text, Fleets: fleets}},
	}}); err != nil {
		s.Fatal(err)
	}
}

func (s *shop) now() (cluster.Job, cluster.Endpoint) {
	s.Helper()
	synctest.Wait()
	snapshot, err := s.ledger.Read(s.Context(), true)
	if err != nil {
		s.Fatal(err)
	}
	defer snapshot.Close()
	job, _ := snapshot.Job("shop")
	e, _ := snapshot.Endpoint("shop")
	return job, e
}

// change puts the endpoint as edit has it.
func (s *shop) change(edit func(cluster.Job, cluster.Endpoint) (cluster.Endpoint, error)) {
	s.Helper()
	job, e := s.now()
	edited, err := edit(job, e)
	if err != nil {
		s.Fatal(err)
	}
	if _, err := s.ledger.Propose(s.Context(), command.Record{Changes: []command.Change{
		{Expect: job.Revision, Check: &command.Key{Kind: state.KindJob, ID: "shop"}}, {Expect: e.Revision, Endpoint: &edited},
	}}); err != nil {
		s.Fatal(err)
	}
	synctest.Wait()
}

// replicas of a variant in the first generation.
func (s *shop) replicas(variant string) int32 {
	_, e := s.now()
	return e.Fleets[e.Fleet(cluster.FleetID(variant, 1))].Replicas
}

// notes are what happened, in one text.
func (s *shop) notes() string {
	_, e := s.now()
	var texts []string
	for _, n := range e.Notes {
		texts = append(texts, n.What+": "+n.Text)
	}
	return strings.Join(texts, "\n")
}

// fleet is the router's own counts of a fleet.
func (s *shop) fleet(variant string, generation int64) *route.FleetReport {
	for i, f := range s.report.Fleets {
		if f.Variant == variant && f.Generation == generation {
			return &s.report.Fleets[i]
		}
	}
	s.report.Fleets = append(s.report.Fleets, route.FleetReport{Endpoint: "shop", Variant: variant, Generation: generation})
	return &s.report.Fleets[len(s.report.Fleets)-1]
}

func (s *shop) ready(f cluster.Fleet) int32 {
	if room, bounded := s.room[f.Variant]; bounded {
		return min(f.Replicas, room)
	}
	return f.Replicas
}

// pass has the router tell each second for a while, after serve has counted a second's requests.
func (s *shop) pass(d time.Duration, serve func()) {
	s.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Second) {
		_, e := s.now()
		serve()
		s.mu.Lock()
		s.table = route.Table{Endpoints: []route.Endpoint{{Name: "shop"}}}
		for _, f := range e.Fleets {
			s.table.Endpoints[0].Fleets = append(s.table.Endpoints[0].Fleets, route.Fleet{Variant: f.Variant, Generation: f.Generation, Replicas: make([]route.Replica, s.ready(f))})
		}
		s.mu.Unlock()
		s.report.At = time.Now().UnixNano()
		text, err := json.Marshal(s.report) // a copy: the report goes on changing
		if err != nil {
			s.Fatal(err)
		}
		var sent route.Report
		if err := json.Unmarshal(text, &sent); err != nil {
			s.Fatal(err)
		}
		if err := s.lead.Report(s.Context(), []route.Report{sent}); err != nil {
			s.Fatal(err)
		}
		synctest.Wait()
	}
}

// serve counts n requests of a fleet that take so long each, of which some fail.
func serve(f *route.FleetReport, n, failed int, each time.Duration) {
	f.Requests, f.Errors, f.Busy = f.Requests+int64(n), f.Errors+int64(failed), f.Busy+float64(n)*each.Seconds()
	for i := range n {
		took := time.Duration(float64(each) * (0.8 + 0.4*float64(i)/float64(max(n-1, 1))))
		f.Latency.Add(took)
		if i >= failed {
			f.Logs.Add(math.Log(took.Seconds()))
		}
	}
}

func blueAndGreen(scaling *autoscale.Spec) map[string]any {
	return map[string]any{"variants": []map[string]any{variant("blue", 3, scaling), variant("green", 1, nil)}}
}

func TestAFleetFollowsItsLoad(t *testing.T) {
	scaling := &autoscale.Spec{Max: 20, Policies: []autoscale.Policy{{Metric: autoscale.Concurrency, Target: 2}}}
	inBubble(t, blueAndGreen(scaling), func(s *shop) {
		s.pass(10*time.Second, func() { serve(s.fleet("blue", 1), 100, 0, 100*time.Millisecond) }) // ten at a time
		if n := s.replicas("blue"); n != 5 || !strings.Contains(s.notes(), "blue-1 from 1 to 3: concurrency is 5 for each replica, the target 2") {
			s.Errorf("%d replicas for ten requests at a time: %s", n, s.notes())
		}
		if n := s.replicas("green"); n != 1 {
			s.Errorf("green, which does not scale, has %d replicas", n)
		}
		less := func() { serve(s.fleet("blue", 1), 30, 0, 100*time.Millisecond) }
		s.pass(4*time.Minute, less)
		if n := s.replicas("blue"); n != 5 {
			s.Errorf("%d replicas a moment after the load fell: %s", n, s.notes())
		}
		s.pass(4*time.Minute, less)
		if n := s.replicas("blue"); n != 2 {
			s.Errorf("%d replicas for three requests at a time: %s", n, s.notes())
		}
		s.pass(20*time.Minute, func() {})
		if n := s.replicas("blue"); n != 0 {
			s.Errorf("%d replicas though nobody asks: %s", n, s.notes())
		}
		s.pass(time.Second, func() { s.fleet("blue", 1).Waiting = 7 })
		s.pass(2*time.Second, func() {})
		if n := s.replicas("blue"); n != 4 {
			s.Errorf("%d replicas for seven that wait: %s", n, s.notes())
		}
	})
}

func TestNothingIsTakenAwayWhileARouterIsNotHeard(t *testing.T) {
	scaling := &autoscale.Spec{Min: 1, Max: 20, Policies: []autoscale.Policy{{Metric: autoscale.Concurrency, Target: 1}}}
	inBubble(t, blueAndGreen(scaling), func(s *shop) {
		s.live = []string{"r", "silent"}
		s.pass(10*time.Second, func() { serve(s.fleet("blue", 1), 100, 0, 50*time.Millisecond) })
		if n := s.replicas("blue"); n != 5 {
			s.Errorf("%d replicas for five requests at a time: %s", n, s.notes())
		}
		s.pass(20*time.Minute, func() { serve(s.fleet("blue", 1), 1, 0, 50*time.Millisecond) })
		if n := s.replicas("blue"); n != 5 {
			s.Errorf("%d replicas: %s", n, s.notes())
		}
	})
}

func TestANewLeaderKeepsWhatTheFleetsHave(t *testing.T) {
	scaling := &autoscale.Spec{Min: 1, Max: 20, Policies: []autoscale.Policy{{Metric: autoscale.Concurrency, Target: 1}}}
	inBubble(t, blueAndGreen(scaling), func(s *shop) {
		s.pass(10*time.Second, func() { serve(s.fleet("blue", 1), 100, 0, 50*time.Millisecond) })
		s.reign()
		s.pass(5*time.Minute, func() { serve(s.fleet("blue", 1), 1, 0, 50*time.Millisecond) })
		if n := s.replicas("blue"); n != 5 {
			s.Errorf("%d replicas: %s", n, s.notes())
		}
		s.pass(2*time.Minute, func() { serve(s.fleet("blue", 1), 1, 0, 50*time.Millisecond) })
		if n := s.replicas("blue"); n != 1 {
			s.Errorf("%d replicas: %s", n, s.notes())
		}
	})
}

// updating puts a rollout that bakes, with alarms.
func (s *shop) updating(alarms endpoint.Alarms) {
	s.change(func(_ cluster.Job, e cluster.Endpoint) (cluster.Endpoint, error) {
		var spec endpoint.Spec
		if err := json.Unmarshal(e.Spec, &spec); err != nil {
			return e, err
		}
		spec.Update.Alarms = &alarms
		text, err := json.Marshal(spec)
		if err != nil {
			return e, err
		}
		fleets, err := spec.Fleets(2, nil)
		for i := range e.Fleets {
			e.Fleets[i].Share = 0.9
		}
		for i := range fleets {
			fleets[i].Share, fleets[i].Replicas, fleets[i].Next = 0.1, 1, 9
		}
		e.Fleets, e.Last = append(e.Fleets, fleets...), 2
		now := time.Now().UnixNano()
		e.Rollout = &cluster.Rollout{From: 1, To: 2, Spec: text, Phase: cluster.RolloutStarting, Steps: []float64{0.1, 1}, Bake: time.Hour, Startup: time.Hour, Started: now, Since: now}
		return e, err
	})
	s.change(func(_ cluster.Job, e cluster.Endpoint) (cluster.Endpoint, error) {
		baking := *e.Rollout
		baking.Phase = cluster.RolloutBaking
		e.Rollout = &baking
		return e, nil
	})
}

func TestAnUpdateWhoseAlarmGoesOffIsRolledBack(t *testing.T) {
	share := quantity.Share(0.02)
	for _, c := range []struct {
		name   string
		alarms endpoint.Alarms
		load   func(old, fresh *route.FleetReport)
		want   string
	}{
		{"errors", endpoint.Alarms{ErrorRate: &share}, func(old, fresh *route.FleetReport) {
			serve(old, 90, 0, time.Millisecond)
			serve(fresh, 10, 1, time.Millisecond)
		}, "blue-2: 10 % of 20 requests in"},
		{"errors of the old", endpoint.Alarms{ErrorRate: &share}, func(old, fresh *route.FleetReport) {
			serve(old, 90, 9, time.Millisecond)
			serve(fresh, 10, 0, time.Millisecond)
		}, ""},
		{"too few requests", endpoint.Alarms{ErrorRate: &share, MinRequests: 1000}, func(_, fresh *route.FleetReport) { serve(fresh, 10, 10, time.Millisecond) }, ""},
		{"slow", endpoint.Alarms{LatencyP99: quantity.Duration(100 * time.Millisecond)}, func(_, fresh *route.FleetReport) { serve(fresh, 10, 0, 200*time.Millisecond) }, "all but a hundredth of 20 requests"},
		{"half of it slow", endpoint.Alarms{LatencyP50: quantity.Duration(100 * time.Millisecond)}, func(_, fresh *route.FleetReport) { serve(fresh, 10, 0, 200*time.Millisecond) }, "half of 20 requests"},
		{"no answer", endpoint.Alarms{LatencyP99: quantity.Duration(100 * time.Millisecond)}, func(_, fresh *route.FleetReport) {
			fresh.Requests, fresh.Errors, fresh.Busy = fresh.Requests+10, fresh.Errors+10, fresh.Busy+10
		}, "all but a hundredth of 20 requests in 2s were to be answered within 100ms, and 100 % had no answer"},
		{"one in twenty without an answer, of half", endpoint.Alarms{LatencyP50: quantity.Duration(100 * time.Millisecond)}, func(_, fresh *route.FleetReport) {
			serve(fresh, 19, 0, time.Millisecond)
			fresh.Requests, fresh.Errors = fresh.Requests+1, fresh.Errors+1
		}, ""},
		{"at the bound", endpoint.Alarms{LatencyP50: quantity.Duration(200 * time.Millisecond)}, func(_, fresh *route.FleetReport) { serve(fresh, 10, 0, 200*time.Millisecond) }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, blueAndGreen(nil), func(s *shop) {
				s.pass(5*time.Second, func() {})
				s.updating(c.alarms)
				s.pass(30*time.Second, func() { c.load(s.fleet("blue", 1), s.fleet("blue", 2)) })
				_, e := s.now()
				if got := e.Rollout.Alarm; (c.want == "") != (got == "") || !strings.HasPrefix(strings.TrimPrefix(got, "blue-2: "), strings.TrimPrefix(c.want, "blue-2: ")) {
					s.Errorf("the alarm is %q, want %q", got, c.want)
				}
			})
		})
	}
}

func (s *shop) start(x endpoint.Experiment) {
	s.Helper()
	s.change(func(job cluster.Job, e cluster.Endpoint) (cluster.Endpoint, error) {
		return endpoint.StartExperiment(job, e, x, endpoint.Asked{By: "ann", Now: time.Now().UnixNano()})
	})
}

// experiment is the one in progress or the last, and what was counted.
func (s *shop) experiment() (cluster.Experiment, endpoint.Trial) {
	s.Helper()
	_, e := s.now()
	_, t, begun, err := endpoint.Testing(e)
	if !begun || err != nil {
		s.Fatalf("there is no experiment: %v", err)
	}
	return *e.Experiment, t
}

// both has blue and green answer in so much time.
func (s *shop) both(blue, green time.Duration) func() {
	return func() {
		serve(s.fleet("blue", 1), 75, 0, blue)
		serve(s.fleet("green", 1), 25, 0, green)
	}
}

func TestAnExperimentEndsWithItsAnswer(t *testing.T) {
	inBubble(t, blueAndGreen(nil), func(s *shop) {
		s.pass(10*time.Second, s.both(50*time.Millisecond, 10*time.Millisecond)) // before it begins counts for nothing
		s.start(endpoint.Experiment{Plan: experiment.Plan{Metric: experiment.Latency}})
		s.pass(7*time.Second, s.both(50*time.Millisecond, 40*time.Millisecond))
		if x, trial := s.experiment(); x.Ended != 0 || trial.A.Requests == 0 || trial.A.Requests > 700 {
			s.Errorf("after 7 s: %+v, %+v", x, trial)
		}
		s.pass(10*time.Second, s.both(50*time.Millisecond, 40*time.Millisecond))
		x, trial := s.experiment()
		if x.Ended == 0 || !strings.Contains(x.Verdict, "promote green: its latency is") || trial.Call != experiment.Promote {
			s.Errorf("%+v, %+v", x, trial)
		}
		if _, e := s.now(); e.Traffic()[0] != 0.75 {
			s.Errorf("without being asked to it was promoted: %v", e.Traffic())
		}
	})
}

func TestTheBetterVariantTakesTheRequestsWhenItIsLargeEnough(t *testing.T) {
	inBubble(t, blueAndGreen(nil), func(s *shop) {
		s.change(func(_ cluster.Job, e cluster.Endpoint) (cluster.Endpoint, error) {
			e.Fleets[0].Replicas = 4
			return e, nil
		})
		s.start(endpoint.Experiment{Plan: experiment.Plan{Metric: experiment.Latency}, Promote: true})
		s.pass(20*time.Second, s.both(50*time.Millisecond, 30*time.Millisecond))
		x, _ := s.experiment()
		if _, e := s.now(); x.Ended == 0 || e.Fleets[0].Weight != 0 || e.Fleets[1].Weight != 4 || e.Fleets[1].Replicas != 4 {
			s.Errorf("%+v: %+v", x, e.Fleets)
		}
		if notes := s.notes(); strings.Index(notes, "green-1 from 1 to 4") > strings.Index(notes, "weights: ") {
			s.Errorf("it got the requests before the replicas: %s", notes)
		}
	})
}

func TestAPromotionThatCannotBeMadeEnds(t *testing.T) {
	for _, c := range []struct {
		name    string
		prepare func(*shop)
		want    string
	}{
		{"no room", func(*shop) {}, "green is better, but 1 of its 4 replicas answer after"},
		{"other weights", func(s *shop) {
			s.change(func(job cluster.Job, e cluster.Endpoint) (cluster.Endpoint, error) {
				return endpoint.SetWeights(job, e, map[string]float64{"green": 9}, endpoint.Asked{By: "ann"})
			})
		}, "green is better, but the variants' weights have changed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, blueAndGreen(nil), func(s *shop) {
				s.change(func(_ cluster.Job, e cluster.Endpoint) (cluster.Endpoint, error) {
					e.Fleets[0].Replicas = 4
					return e, nil
				})
				s.room = map[string]int32{"green": 1}
				s.start(endpoint.Experiment{Plan: experiment.Plan{Metric: experiment.Latency}, Promote: true})
				s.pass(20*time.Second, s.both(50*time.Millisecond, 30*time.Millisecond))
				if x, trial := s.experiment(); x.Ended != 0 || !trial.Promoting {
					s.Fatalf("%s, %+v", x.Verdict, trial)
				}
				c.prepare(s)
				_, before := s.now()
				s.pass(time.Hour, s.both(50*time.Millisecond, 30*time.Millisecond))
				x, _ := s.experiment()
				if _, e := s.now(); !strings.HasPrefix(x.Verdict, c.want) || e.Traffic()[0] != before.Traffic()[0] {
					s.Errorf("%q, want %q; traffic is %v and was %v", x.Verdict, c.want, e.Traffic(), before.Traffic())
				}
			})
		})
	}
}

func TestAnAnswerOfHalfTheRoutersIsNotActedOn(t *testing.T) {
	inBubble(t, blueAndGreen(nil), func(s *shop) {
		s.live = []string{"r", "silent"}
		s.start(endpoint.Experiment{Plan: experiment.Plan{Metric: experiment.Latency}, Promote: true})
		s.pass(time.Minute, s.both(50*time.Millisecond, 30*time.Millisecond))
		x, trial := s.experiment()
		if _, e := s.now(); x.Ended != 0 || trial.A.Requests < 1000 || e.Traffic()[0] != 0.75 {
			s.Errorf("%s, %+v: %v", x.Verdict, trial, e.Traffic())
		}
		s.mu.Lock()
		s.live = s.live[:1]
		s.mu.Unlock()
		s.pass(5*time.Second, s.both(50*time.Millisecond, 30*time.Millisecond))
		x, trial = s.experiment()
		if _, e := s.now(); x.Ended == 0 || e.Traffic()[1] != 1 {
			s.Errorf("%s, %+v: %v", x.Verdict, trial, e.Traffic())
		}
	})
}

func TestWhatIsNotBetterIsNotPromoted(t *testing.T) {
	inBubble(t, blueAndGreen(nil), func(s *shop) {
		s.start(endpoint.Experiment{Plan: experiment.Plan{Metric: experiment.Latency, Margin: 0.05}, Promote: true})
		s.pass(2*time.Minute, s.both(50*time.Millisecond, 50*time.Millisecond))
		x, _ := s.experiment()
		if _, e := s.now(); x.Ended == 0 || !strings.Contains(x.Verdict, "keep blue") || e.Traffic()[0] != 0.75 {
			s.Errorf("%+v: %v", x, e.Traffic())
		}
	})
}

func TestWhoFailsFastIsNotPromotedForIt(t *testing.T) {
	inBubble(t, blueAndGreen(nil), func(s *shop) {
		s.start(endpoint.Experiment{Plan: experiment.Plan{Metric: experiment.Latency}, Promote: true})
		s.pass(time.Minute, func() {
			serve(s.fleet("blue", 1), 75, 0, 50*time.Millisecond)
			serve(s.fleet("green", 1), 25, 15, time.Millisecond)
		})
		x, trial := s.experiment()
		if _, e := s.now(); x.Ended == 0 || trial.Call != experiment.Keep || !strings.Contains(x.Verdict, "keep blue: green's error rate is") || e.Traffic()[0] != 0.75 {
			s.Errorf("%s, %+v: %v", x.Verdict, trial, e.Traffic())
		}
	})
}

func TestANewLeaderGoesOnWithWhatWasCounted(t *testing.T) {
	inBubble(t, blueAndGreen(nil), func(s *shop) {
		s.start(endpoint.Experiment{Plan: experiment.Plan{Metric: experiment.Errors}})
		s.pass(12*time.Second, s.both(time.Millisecond, time.Millisecond))
		_, before := s.experiment()
		s.reign()
		s.pass(12*time.Second, s.both(time.Millisecond, time.Millisecond))
		_, after := s.experiment()
		if before.A.Requests < 500 || after.A.Requests < before.A.Requests+400 || after.A.Requests > 75*24 {
			s.Errorf("%+v, then %+v", before, after)
		}
	})
}

func TestCountsBeginAnewWhenWeightsChangeAndEndWithAnUpdate(t *testing.T) {
	inBubble(t, blueAndGreen(nil), func(s *shop) {
		s.start(endpoint.Experiment{Plan: experiment.Plan{Metric: experiment.Errors}})
		s.pass(12*time.Second, s.both(time.Millisecond, time.Millisecond))
		s.change(func(job cluster.Job, e cluster.Endpoint) (cluster.Endpoint, error) {
			return endpoint.SetWeights(job, e, map[string]float64{"green": 3}, endpoint.Asked{By: "ann"})
		})
		s.pass(3*time.Second, s.both(time.Millisecond, time.Millisecond))
		if x, trial := s.experiment(); x.Ended != 0 || trial.A.Requests > 0 || trial.Traffic != [2]float64{0.5, 0.5} {
			s.Errorf("%+v, %+v", x, trial)
		}
		s.updating(endpoint.Alarms{})
		s.pass(3*time.Second, s.both(time.Millisecond, time.Millisecond))
		if x, _ := s.experiment(); x.Ended == 0 || !strings.Contains(x.Verdict, "an update has begun") {
			s.Errorf("%+v", x)
		}
	})
}

func TestCopiesAreComparedWithWhatWasAnswered(t *testing.T) {
	spec := map[string]any{"variants": []map[string]any{variant("blue", 1, nil), variant("green", 0, nil)}, "shadow": map[string]any{"variant": "green", "share": 0.5}}
	inBubble(t, spec, func(s *shop) {
		s.start(endpoint.Experiment{Plan: experiment.Plan{Metric: experiment.Errors}})
		s.pass(time.Minute, func() {
			serve(s.fleet("blue", 1), 100, 0, time.Millisecond)
			green := s.fleet("green", 1)
			if green.Shadow == nil {
				green.Shadow = &route.ShadowReport{}
			}
			green.Shadow.Requests, green.Shadow.Errors = green.Shadow.Requests+50, green.Shadow.Errors+2
		})
		if x, trial := s.experiment(); x.Ended == 0 || trial.Call != experiment.Keep || !strings.Contains(x.Verdict, "keep blue: green's error rate") {
			s.Errorf("%+v, %+v", x, trial)
		}
	})
}
