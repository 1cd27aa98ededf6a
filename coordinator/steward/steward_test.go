package steward_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/solo"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/coordinator/steward"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/route"
)

// bench is a steward over a real state, inside a bubble, with routers that a test speaks for.
type bench struct {
	*testing.T
	ledger  *solo.Ledger
	steward *steward.Steward

	mu      sync.Mutex
	live    []string
	routers map[string]*route.Report
	looks   []steward.Input
	step    steward.Step
}

func inBubble(t *testing.T, test func(*bench)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state")
	synctest.Test(t, func(t *testing.T) {
		ledger, err := solo.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer ledger.Close()
		b := &bench{T: t, ledger: ledger, routers: map[string]*route.Report{}}
		b.steward = steward.New(steward.Config{
			Ledger: ledger, Log: slog.New(slog.DiscardHandler), Live: func() []string { b.mu.Lock(); defer b.mu.Unlock(); return slices.Clone(b.live) },
			Table: func() route.Table {
				return route.Table{Endpoints: []route.Endpoint{{Name: "shop", Fleets: []route.Fleet{{Variant: "blue", Generation: 1, Replicas: []route.Replica{{ID: "a"}, {ID: "b", Draining: true}}}}}}}
			},
			Steps: []steward.Step{func(e *cluster.Endpoint, in steward.Input) bool {
				b.mu.Lock()
				b.looks = append(b.looks, in)
				step := b.step
				b.mu.Unlock()
				return step != nil && step(e, in)
			}},
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.steward.Run(ctx) }()
		synctest.Wait()
		time.Sleep(steward.Every / 2) // between two looks
		test(b)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
		if err := b.steward.Report(t.Context(), nil); !fault.Is(err, fault.Unready) {
			t.Errorf("after its reign a report is answered %v", err)
		}
	})
}

// endpoint makes one with a fleet, as edit has it.
func (b *bench) endpoint(edit func(*cluster.Fleet)) {
	b.Helper()
	role := cluster.Role{Name: "server", Count: 1, Ask: cluster.Ask{MilliCPU: 10}, Program: cluster.Program{Command: []string{"true"}}}
	job := cluster.Job{Name: "shop", Kind: cluster.KindEndpoint, Owner: "ann", Queue: "default", State: cluster.JobQueued, Attempt: 1, Submitted: 1}
	fleet := cluster.Fleet{Variant: "blue", Generation: 1, Role: role, Weight: 1, Share: 1, Replicas: 1, Next: 9}
	edit(&fleet)
	if _, err := b.ledger.Propose(b.Context(), command.Record{Changes: []command.Change{
		{Job: &job}, {Endpoint: &cluster.Endpoint{Job: "shop", Generation: 1, Last: 1, Fleets: []cluster.Fleet{fleet}}},
	}}); err != nil {
		b.Fatal(err)
	}
	synctest.Wait()
}

// now is the endpoint's fleet.
func (b *bench) now() (cluster.Endpoint, cluster.Fleet) {
	b.Helper()
	synctest.Wait()
	snapshot, err := b.ledger.Read(b.Context(), true)
	if err != nil {
		b.Fatal(err)
	}
	defer snapshot.Close()
	e, _ := snapshot.Endpoint("shop")
	return e, e.Fleets[0]
}

// tell changes what a router has done, and has it report.
func (b *bench) tell(name string, edit func(*route.Report, *route.FleetReport)) {
	b.Helper()
	r := b.routers[name]
	if r == nil {
		r = &route.Report{Router: name, Boot: "1", Fleets: []route.FleetReport{{Endpoint: "shop", Variant: "blue", Generation: 1}}}
		b.routers[name] = r
	}
	edit(r, &r.Fleets[0])
	r.At = time.Now().UnixNano()
	sent := *r
	sent.Fleets = slices.Clone(r.Fleets)
	sent.Fleets[0].Latency.Counts = slices.Clone(r.Fleets[0].Latency.Counts)
	if err := b.steward.Report(b.Context(), []route.Report{sent}); err != nil {
		b.Fatal(err)
	}
	synctest.Wait()
}

// alive has routers report each second for so long.
func (b *bench) alive(d time.Duration, names ...string) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Second) {
		for _, name := range names {
			b.tell(name, func(*route.Report, *route.FleetReport) {})
		}
	}
}

func waits(_ *route.Report, f *route.FleetReport) { f.Waiting = 1 }

func TestAFleetWithoutReplicasGetsOneAtOnceWhenSomebodyAsks(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.endpoint(func(f *cluster.Fleet) { f.Replicas = 0 })
		began := time.Now()
		b.tell("coordinator/a", waits)
		if e, f := b.now(); f.Replicas != 1 || time.Since(began) > 0 || len(e.Notes) != 1 || f.Scaled == 0 {
			b.Errorf("after %s the fleet is %+v, the notes are %+v", time.Since(began), f, e.Notes)
		}
	})
}

func TestWhoWaitedBeforeAFleetCameToHaveNoReplicasGivesItNone(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.endpoint(func(f *cluster.Fleet) { f.Replicas, f.Scaled = 0, time.Now().UnixNano() })
		b.tell("coordinator/a", waits)
		if _, f := b.now(); f.Replicas != 0 {
			b.Errorf("the fleet is %+v", f)
		}
		time.Sleep(time.Second)
		b.tell("coordinator/a", waits)
		if _, f := b.now(); f.Replicas != 1 {
			b.Errorf("somebody still waits, and the fleet is %+v", f)
		}
	})
}

func TestAFleetThatGoesGetsNone(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.endpoint(func(f *cluster.Fleet) { f.Replicas, f.Retired, f.Share = 0, true, 0 })
		b.tell("coordinator/a", waits)
		if _, f := b.now(); f.Replicas != 0 {
			b.Errorf("the fleet is %+v", f)
		}
	})
}

func TestWhatSomebodyElseChangedMeanwhileIsReadAndTheChangeMadeAnew(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.endpoint(func(f *cluster.Fleet) { f.Replicas = 0 })
		b.ledger.Before = func([]command.Command) error { // another is faster, once
			b.ledger.Before = nil
			e, f := b.now0()
			f.Weight = 7
			return b.put(e, f)
		}
		b.tell("coordinator/a", waits)
		if _, f := b.now(); f.Replicas != 1 || f.Weight != 7 {
			b.Errorf("the fleet is %+v", f)
		}
	})
}

// now0 is now, for whoever must not wait.
func (b *bench) now0() (cluster.Endpoint, cluster.Fleet) {
	snapshot, err := b.ledger.Read(b.Context(), true)
	if err != nil {
		b.Fatal(err)
	}
	defer snapshot.Close()
	e, _ := snapshot.Endpoint("shop")
	return e, e.Fleets[0]
}

func (b *bench) put(e cluster.Endpoint, f cluster.Fleet) error {
	snapshot, err := b.ledger.Read(b.Context(), true)
	if err != nil {
		return err
	}
	job, _ := snapshot.Job("shop")
	snapshot.Close()
	expect := e.Revision
	e.Fleets = []cluster.Fleet{f}
	_, err = b.ledger.Propose(b.Context(), command.Record{Changes: []command.Change{
		{Expect: job.Revision, Check: &command.Key{Kind: state.KindJob, ID: "shop"}}, {Expect: expect, Endpoint: &e},
	}})
	return err
}

const leaving = "blue-1-3"

// drain puts a replica on its way out and returns the endpoint's revision.
func (b *bench) drain() uint64 {
	b.Helper()
	e, f := b.now()
	f.Draining = []cluster.DrainingReplica{{Gang: leaving, Since: time.Now().UnixNano()}}
	if err := b.put(e, f); err != nil {
		b.Fatal(err)
	}
	e, _ = b.now()
	return e.Revision
}

func TestAReplicaOnItsWayOutIsIdleWhenEveryRouterKnowsAndHasNoRequestThere(t *testing.T) {
	at := func(version uint64, flying int64) func(*route.Report, *route.FleetReport) {
		return func(r *route.Report, f *route.FleetReport) {
			r.Version, f.Replicas = version, []route.ReplicaReport{{ID: "shop/" + leaving + "/server-0.1", InFlight: flying}}
		}
	}
	both := []string{"coordinator/a", "agent/n1"}
	for claim, c := range map[string]struct {
		live []string
		a, n func(revision uint64) func(*route.Report, *route.FleetReport)
		tell []string
		idle bool
	}{
		"both know, and have none":                   {both, func(r uint64) func(*route.Report, *route.FleetReport) { return at(r, 0) }, func(r uint64) func(*route.Report, *route.FleetReport) { return at(r+5, 0) }, both, true},
		"one has a request":                          {both, func(r uint64) func(*route.Report, *route.FleetReport) { return at(r, 0) }, func(r uint64) func(*route.Report, *route.FleetReport) { return at(r, 1) }, both, false},
		"one has an older table":                     {both, func(r uint64) func(*route.Report, *route.FleetReport) { return at(r, 0) }, func(r uint64) func(*route.Report, *route.FleetReport) { return at(r-1, 0) }, both, false},
		"one is there, and silent":                   {both, func(r uint64) func(*route.Report, *route.FleetReport) { return at(r, 0) }, nil, both[:1], false},
		"one was there, and nobody sees it any more": {both[:1], func(r uint64) func(*route.Report, *route.FleetReport) { return at(r, 0) }, func(r uint64) func(*route.Report, *route.FleetReport) { return at(r-1, 0) }, both[:1], false},
		"there are no routers":                       {nil, nil, nil, nil, true},
	} {
		t.Run(claim, func(t *testing.T) {
			inBubble(t, func(b *bench) {
				b.mu.Lock()
				b.live = c.live
				b.mu.Unlock()
				b.endpoint(func(*cluster.Fleet) {})
				b.alive(5*time.Second, c.live...)
				revision := b.drain()
				if c.a != nil {
					b.tell(both[0], c.a(revision))
				}
				if c.n != nil {
					b.tell(both[1], c.n(revision))
				}
				if len(c.tell) == 1 && c.n != nil {
					time.Sleep(5 * time.Second) // it is silent by now
				}
				b.alive(10*time.Second, c.tell...)
				time.Sleep(time.Second)
				if _, f := b.now(); len(f.Draining) != 1 || f.Draining[0].Idle != c.idle {
					b.Errorf("draining: %+v, want idle %v", f.Draining, c.idle)
				}
			})
		})
	}
}

func TestARouterThatIsGoneIsWaitedForAMinute(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.endpoint(func(*cluster.Fleet) {})
		b.tell("agent/n1", func(r *route.Report, _ *route.FleetReport) { r.Version = 1 })
		b.drain()
		time.Sleep(50 * time.Second)
		if _, f := b.now(); f.Draining[0].Idle {
			b.Error("a router that may route on is taken for gone after 50 s")
		}
		time.Sleep(15 * time.Second)
		if _, f := b.now(); !f.Draining[0].Idle {
			b.Error("it is waited for after 65 s")
		}
	})
}

func TestANewLeaderBelievesNothingBeforeItHasListened(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.endpoint(func(*cluster.Fleet) {})
		b.drain()
		if seen := b.steward.Seen("shop"); seen.Known {
			b.Error("it knows all from the first instant")
		}
		time.Sleep(2 * time.Second)
		if _, f := b.now(); f.Draining[0].Idle {
			b.Error("a replica is idle before anybody could have told")
		}
		time.Sleep(2 * time.Second)
		if _, f := b.now(); !f.Draining[0].Idle {
			b.Error("a replica is not idle though there are no routers")
		}
	})
}

func TestFiguresAreOfAllRoutersOverTime(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.endpoint(func(*cluster.Fleet) {})
		asks := func(requests, errors int64) func(*route.Report, *route.FleetReport) {
			return func(_ *route.Report, f *route.FleetReport) {
				f.Requests += requests
				f.Errors += errors
				f.Busy += float64(requests) / 10
				for range requests {
					f.Latency.Add(100 * time.Millisecond)
				}
				f.InFlight = 2
			}
		}
		b.tell("agent/n1", asks(1000, 1000)) // before anybody listened
		for range 30 {
			b.tell("coordinator/a", asks(10, 1))
			b.tell("agent/n1", asks(30, 0))
			time.Sleep(time.Second)
		}
		w := b.steward.Seen("shop").Fleet("blue", 1).Window(20 * time.Second)
		if w.Span != 20*time.Second || w.Requests != 800 || w.Errors != 20 || w.Rate() != 40 || w.Concurrency() < 3.9 || w.Concurrency() > 4.1 {
			b.Errorf("the window is %+v: %v requests a second, %v at a time", w, w.Rate(), w.Concurrency())
		}
		if n := w.Latency.N(); n != 800 || w.InFlight != 4 || w.Ready != 1 {
			b.Errorf("%d latencies, %d in flight, %d ready", n, w.InFlight, w.Ready)
		}
		b.tell("agent/n1", func(r *route.Report, f *route.FleetReport) { // it was killed, and counts from nothing
			r.Boot, *f = "2", route.FleetReport{Endpoint: "shop", Variant: "blue", Generation: 1}
		})
		for range 5 {
			b.tell("agent/n1", asks(30, 0))
			time.Sleep(time.Second)
		}
		if w := b.steward.Seen("shop").Fleet("blue", 1).Window(5 * time.Second); w.Requests != 150 || w.Errors != 0 {
			b.Errorf("after it was started again: %+v", w)
		}
	})
}

func TestAReportThatIsLostOrToldTwiceDoesNoHarm(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.endpoint(func(*cluster.Fleet) {})
		b.tell("agent/n1", func(*route.Report, *route.FleetReport) {})
		b.routers["agent/n1"].Fleets[0].Requests += 7 // and its report was lost
		time.Sleep(time.Second)
		b.tell("agent/n1", func(_ *route.Report, f *route.FleetReport) { f.Requests += 5 })
		b.tell("agent/n1", func(*route.Report, *route.FleetReport) {})
		time.Sleep(time.Second)
		if w := b.steward.Seen("shop").Fleet("blue", 1).Window(time.Minute); w.Requests != 12 {
			b.Errorf("%d requests are known of 12", w.Requests)
		}
	})
}

func TestOldTimesAreKeptCoarselyAndThenForgotten(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.endpoint(func(*cluster.Fleet) {})
		for range 2400 {
			b.tell("agent/n1", func(_ *route.Report, f *route.FleetReport) { f.Requests++ })
			time.Sleep(time.Second)
		}
		f := b.steward.Seen("shop").Fleet("blue", 1)
		if len(f.Samples) > 260 {
			b.Errorf("%d samples are kept of half an hour", len(f.Samples))
		}
		for span, slack := range map[time.Duration]int64{time.Minute: 0, 10 * time.Minute: 15, 29 * time.Minute: 15} {
			if got, want := f.Window(span).Requests, int64(span.Seconds()); got < want-slack || got > want+slack {
				b.Errorf("%d requests in %s, want %d", got, span, want)
			}
		}
		if all := f.Window(10 * time.Hour); all.Span > 31*time.Minute {
			b.Errorf("%s are kept", all.Span)
		}
	})
}

func TestStepsLookEverySecondAndWhatTheyChangeIsKept(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.endpoint(func(*cluster.Fleet) {})
		b.mu.Lock()
		b.step = func(e *cluster.Endpoint, _ steward.Input) bool {
			if e.Fleets[0].Replicas < 4 {
				e.Fleets[0].Replicas++
				return true
			}
			return false
		}
		b.mu.Unlock()
		time.Sleep(10 * time.Second)
		if _, f := b.now(); f.Replicas != 4 {
			b.Errorf("the fleet is %+v", f)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.looks) < 9 || len(b.looks) > 11 {
			b.Errorf("%d looks in 10 s", len(b.looks))
		}
	})
}

func TestAnEndpointThatEndsIsOnlyDrained(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.endpoint(func(f *cluster.Fleet) { f.Replicas = 0 })
		snapshot, err := b.ledger.Read(b.Context(), true)
		if err != nil {
			b.Fatal(err)
		}
		job, _ := snapshot.Job("shop")
		snapshot.Close()
		expect := job.Revision
		job.Cancel = true
		if _, err := b.ledger.Propose(b.Context(), command.Record{Changes: []command.Change{{Expect: expect, Job: &job}}}); err != nil {
			b.Fatal(err)
		}
		b.drain()
		b.tell("agent/n1", func(r *route.Report, f *route.FleetReport) { r.Version, f.Waiting = 1<<40, 1 })
		b.alive(10*time.Second, "agent/n1")
		if _, f := b.now(); f.Replicas != 0 || !f.Draining[0].Idle {
			b.Errorf("the fleet is %+v", f)
		}
	})
}
