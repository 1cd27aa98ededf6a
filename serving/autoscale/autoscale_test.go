package autoscale_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/internal/quantity"
	"github.com/clary-ml/clary/serving/autoscale"
)

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC) // a Monday

func p[T any](v T) *T { return &v }

func span(d time.Duration) *quantity.Duration { return p(quantity.Duration(d)) }

func scaler(t testing.TB, spec autoscale.Spec) autoscale.Scaler {
	t.Helper()
	s, err := autoscale.New(spec)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// fleet is one that does at once what is decided, asked once a second.
type fleet struct {
	autoscale.Scaler
	now    time.Time
	wanted int
	ready  func(f *fleet) int // by default all that are wanted
	state  autoscale.State
	series []autoscale.Measurement
	last   autoscale.Decision
}

func newFleet(t testing.TB, wanted int, spec autoscale.Spec) *fleet {
	return &fleet{Scaler: scaler(t, spec), now: noon, wanted: wanted}
}

// run measures load's values once a second for a while; nil values are nothing measured.
func (f *fleet) run(d time.Duration, load func(m *autoscale.Measurement) bool) *fleet {
	for end := f.now.Add(d); f.now.Before(end); {
		f.now = f.now.Add(time.Second)
		m := autoscale.Measurement{At: f.now, Ready: f.wanted, Values: map[autoscale.Metric]float64{}}
		if f.ready != nil {
			m.Ready = f.ready(f)
		}
		if load(&m) {
			f.series = append(f.series, m)
		}
		f.last, f.state = f.Decide(f.now, f.wanted, f.series, f.state)
		f.wanted = f.last.Replicas
	}
	return f
}

func total(metric autoscale.Metric, v float64) func(*autoscale.Measurement) bool {
	return func(m *autoscale.Measurement) bool { m.Values[metric] = v; return true }
}

// shared is a load that replicas have in common, of a metric that is a mean of them.
func shared(metric autoscale.Metric, v float64) func(*autoscale.Measurement) bool {
	return func(m *autoscale.Measurement) bool { m.Values[metric] = v / float64(max(m.Ready, 1)); return true }
}

func nothing(*autoscale.Measurement) bool { return false }

func (f *fleet) want(t *testing.T, replicas int, why string) {
	t.Helper()
	if f.wanted != replicas || !strings.Contains(f.last.Why, why) {
		t.Fatalf("%d replicas: %q; want %d, %q", f.wanted, f.last.Why, replicas, why)
	}
}

func track(metric autoscale.Metric, target float64) autoscale.Policy {
	return autoscale.Policy{Metric: metric, Target: target}
}

func TestEachMetricIsBroughtToItsTarget(t *testing.T) {
	for _, c := range []struct {
		name   string
		policy autoscale.Policy
		load   func(*autoscale.Measurement) bool
		want   int
	}{
		{"concurrency", track(autoscale.Concurrency, 10), total(autoscale.Concurrency, 45), 5},
		{"requests", track(autoscale.Requests, 100), total(autoscale.Requests, 1730), 18},
		{"backlog", track(autoscale.Backlog, 3), total(autoscale.Backlog, 20), 7},
		{"gpu", track(autoscale.GPU, 60), shared(autoscale.GPU, 240), 4},
		{"a mean of the user's", track("cache_misses", 5), shared("cache_misses", 41), 9},
		{"a total of the user's", autoscale.Policy{Metric: "queue:length", Target: 50, Total: true}, total("queue:length", 420), 9},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, from := range []int{1, 2, 20} {
				f := newFleet(t, from, autoscale.Spec{Min: 1, Max: 20, Policies: []autoscale.Policy{c.policy}}).run(20*time.Minute, c.load)
				f.want(t, c.want, string(c.policy.Metric))
			}
		})
	}
}

func TestLatencyIsBroughtToItsTarget(t *testing.T) {
	// Each replica answers in 2 ms for each request a second that it has.
	load := func(rate float64) func(*autoscale.Measurement) bool {
		return func(m *autoscale.Measurement) bool {
			for range int(rate) {
				m.Latency.Add(time.Duration(rate / float64(m.Ready) * float64(2*time.Millisecond)))
			}
			m.Values[autoscale.Concurrency] = rate * rate / float64(m.Ready) * 0.002
			return true
		}
	}
	spec := autoscale.Spec{Min: 1, Max: 20, Policies: []autoscale.Policy{track(autoscale.Latency, 0.1)}}
	for _, from := range []int{1, 3, 20} {
		f := newFleet(t, from, spec).run(40*time.Minute, load(200))
		if each := 0.4 / float64(f.wanted); each > 0.11 || each < 0.075 {
			t.Errorf("from %d: %d replicas answer in %v s: %s", from, f.wanted, each, f.last.Why)
		}
		f.run(time.Hour, load(0)).want(t, 1, "few requests")
	}
}

func TestStepsAddToWhatIsReadyAndNotToWhatStarts(t *testing.T) {
	spec := autoscale.Spec{Min: 1, Max: 50, Policies: []autoscale.Policy{{Metric: autoscale.GPU, Steps: []autoscale.Step{
		{Above: p(70.0), Below: p(90.0), Add: 1},
		{Above: p(90.0), Percent: 50},
		{Below: p(20.0), Percent: -25},
	}}}}
	starting := newFleet(t, 4, spec)
	starting.ready = func(*fleet) int { return 4 } // new ones take long
	starting.run(3*time.Minute, total(autoscale.GPU, 95)).want(t, 6, "gpu is 95 for each replica: steps[1] holds")
	newFleet(t, 4, spec).run(time.Second, total(autoscale.GPU, 75)).want(t, 5, "steps[0]")
	newFleet(t, 4, spec).run(10*time.Minute, total(autoscale.GPU, 50)).want(t, 4, "no step holds")
	newFleet(t, 8, spec).run(6*time.Minute, total(autoscale.GPU, 10)).want(t, 6, "")
}

func TestTheLargestWishWinsAndFewerOnlyByAll(t *testing.T) {
	both := func(concurrency, requests float64) func(*autoscale.Measurement) bool {
		return func(m *autoscale.Measurement) bool {
			m.Values[autoscale.Concurrency], m.Values[autoscale.Requests] = concurrency, requests
			return true
		}
	}
	spec := autoscale.Spec{Min: 1, Max: 50, Policies: []autoscale.Policy{track(autoscale.Concurrency, 1), track(autoscale.Requests, 10)}}
	newFleet(t, 5, spec).run(time.Second, both(7, 120)).want(t, 12, "requests")
	newFleet(t, 5, spec).run(20*time.Minute, both(2, 50)).want(t, 5, "requests")
	newFleet(t, 5, spec).run(20*time.Minute, both(2, 30)).want(t, 3, "requests")
	// Steps that only add leave it to others, unless one of them holds.
	spec.Policies[1] = autoscale.Policy{Metric: autoscale.Requests, Steps: []autoscale.Step{{Above: p(20.0), Add: 1}}}
	newFleet(t, 5, spec).run(20*time.Minute, both(2, 30)).want(t, 2, "concurrency")
	high := newFleet(t, 5, spec)
	high.ready = func(*fleet) int { return 2 }
	high.run(20*time.Minute, both(2, 50)).want(t, 5, "steps[0] holds")
}

func TestMissingDataNeverTakesReplicasAway(t *testing.T) {
	spec := autoscale.Spec{Max: 50, Idle: quantity.Duration(time.Minute), Policies: []autoscale.Policy{track(autoscale.Concurrency, 1), track("mine", 1)}}
	newFleet(t, 5, spec).run(time.Hour, nothing).want(t, 5, "was not measured")
	newFleet(t, 5, spec).run(time.Hour, func(m *autoscale.Measurement) bool {
		m.Values[autoscale.Concurrency], m.Values["mine"] = 1, math.NaN()
		return true
	}).want(t, 5, "mine was not measured")
	// Every other twenty seconds nobody measures.
	newFleet(t, 5, spec).run(time.Hour, func(m *autoscale.Measurement) bool {
		m.Values[autoscale.Concurrency], m.Values["mine"] = 1, 1
		return m.At.Second()%40 < 20
	}).want(t, 5, "")
	// But what is measured of them still adds some.
	newFleet(t, 5, spec).run(time.Second, total("mine", 3)).want(t, 15, "mine is 3")
}

func TestAFleetThatNobodyAsksHasNoReplicasUntilSomeoneDoes(t *testing.T) {
	spec := autoscale.Spec{Max: 10, Policies: []autoscale.Policy{track(autoscale.Concurrency, 2)}}
	f := newFleet(t, 4, spec).run(14*time.Minute, total(autoscale.Concurrency, 0))
	f.want(t, 1, "concurrency is 0")
	f.run(time.Minute+time.Second, total(autoscale.Concurrency, 0)).want(t, 0, "nothing was asked for 15m")
	f.run(time.Hour, nothing).want(t, 0, "nobody has asked")
	f.ready = func(*fleet) int { return 0 }
	held := func(n float64) func(m *autoscale.Measurement) bool {
		return func(m *autoscale.Measurement) bool { m.Waiting, m.Values[autoscale.Concurrency] = n, 0; return true }
	}
	f.run(time.Second, held(1)).want(t, 1, "requests wait for the first replica: 1")
	f.run(14*time.Minute, total(autoscale.Concurrency, 0)).want(t, 1, "")
	f.run(2*time.Minute, total(autoscale.Concurrency, 0)).want(t, 0, "")
	f.run(time.Second, held(9)).want(t, 5, "requests wait for the first replica: 9")
	f = newFleet(t, 0, spec).run(time.Second, total(autoscale.Backlog, 2))
	f.want(t, 1, "asynchronous requests wait for the first replica: 2")
}

func TestASuddenLoadIsAnsweredWithinSeconds(t *testing.T) {
	for _, off := range []bool{false, true} {
		spec := autoscale.Spec{Min: 1, Max: 50, Burst: autoscale.Burst{Off: off}, Policies: []autoscale.Policy{track(autoscale.Concurrency, 1)}}
		f := newFleet(t, 2, spec).run(2*time.Minute, total(autoscale.Concurrency, 2)).run(6*time.Second, total(autoscale.Concurrency, 30))
		if off && f.wanted > 6 || !off && f.wanted != 30 {
			t.Errorf("burst off is %v: %d replicas after 6 s: %s", off, f.wanted, f.last.Why)
		}
	}
}

func TestCooldownsAndGreatestStepsHoldChangesBack(t *testing.T) {
	spec := autoscale.Spec{
		Min: 1, Max: 50, Policies: []autoscale.Policy{track(autoscale.Concurrency, 1)}, Burst: autoscale.Burst{Off: true},
		ScaleOut: autoscale.Pace{Cooldown: span(30 * time.Second), MaxStep: 4},
		ScaleIn:  autoscale.Pace{Cooldown: span(2 * time.Minute), MaxPercent: 50, Stabilization: span(0)},
	}
	f := newFleet(t, 2, spec).run(time.Second, total(autoscale.Concurrency, 20))
	f.want(t, 6, "20 wanted, 4 is the most of one step")
	f.run(29*time.Second, total(autoscale.Concurrency, 20)).want(t, 6, "20 wanted, but the last change was less than 30s ago")
	f.run(time.Second, total(autoscale.Concurrency, 20)).want(t, 10, "")
	f.run(5*time.Minute, total(autoscale.Concurrency, 20)).want(t, 20, "")
	var changes []time.Duration
	for second := range 600 {
		before := f.wanted
		if f.run(time.Second, total(autoscale.Concurrency, 1)); f.wanted == before {
			continue
		}
		changes = append(changes, time.Duration(second)*time.Second)
		if 2*f.wanted < before {
			t.Errorf("%d became %d at once", before, f.wanted)
		}
	}
	for i := 1; i < len(changes); i++ {
		if after := changes[i] - changes[i-1]; after != 2*time.Minute {
			t.Errorf("replicas were taken away %s after others were", after)
		}
	}
	if len(changes) < 4 {
		t.Errorf("there are still %d replicas: %s", f.wanted, f.last.Why)
	}
}

func TestWhatWasWantedInTheStabilizationWindowIsKept(t *testing.T) {
	spec := autoscale.Spec{
		Min: 1, Max: 50, Policies: []autoscale.Policy{track(autoscale.Concurrency, 1)}, Burst: autoscale.Burst{Off: true}, Window: quantity.Duration(5 * time.Second),
		ScaleOut: autoscale.Pace{Stabilization: span(time.Minute)},
	}
	f := newFleet(t, 8, spec).run(10*time.Minute, total(autoscale.Concurrency, 8))
	f.run(59*time.Second, total(autoscale.Concurrency, 20)).want(t, 8, "20 wanted, but not for 1m yet")
	f.run(10*time.Second, total(autoscale.Concurrency, 20)).want(t, 20, "")
	f.run(4*time.Minute, total(autoscale.Concurrency, 2)).want(t, 20, "2 wanted, but not for 5m yet")
	f.run(30*time.Second, total(autoscale.Concurrency, 9)).run(4*time.Minute+50*time.Second, total(autoscale.Concurrency, 2)).want(t, 9, "2 wanted")
	f.run(2*time.Minute, total(autoscale.Concurrency, 2)).want(t, 2, "")
}

func TestANewLeaderTakesNothingAwayBeforeItHasSeenEnough(t *testing.T) {
	spec := autoscale.Spec{Max: 50, Idle: quantity.Duration(2 * time.Minute), Policies: []autoscale.Policy{track(autoscale.Concurrency, 1)}}
	f := newFleet(t, 8, spec).run(5*time.Minute-2*time.Second, total(autoscale.Concurrency, 3))
	text, err := json.Marshal(f.state)
	if err != nil {
		t.Fatal(err)
	}
	f.state, f.series = autoscale.State{}, nil
	if err := json.Unmarshal(text, &f.state); err != nil {
		t.Fatal(err)
	}
	f.run(5*time.Minute-2*time.Second, total(autoscale.Concurrency, 3)).want(t, 8, "not for 5m yet")
	f.run(time.Minute, total(autoscale.Concurrency, 3)).want(t, 3, "")

	idle := newFleet(t, 1, spec).run(time.Minute, total(autoscale.Concurrency, 0))
	idle.state, idle.series = autoscale.State{}, nil
	idle.run(119*time.Second, total(autoscale.Concurrency, 0)).want(t, 1, "")
	idle.run(2*time.Second, total(autoscale.Concurrency, 0)).want(t, 0, "")
}

func TestWithoutPoliciesTheNumberStaysWithinBounds(t *testing.T) {
	spec := autoscale.Spec{Min: 2, Max: 5}
	for wanted, want := range map[int]int{0: 2, 1: 2, 3: 3, 9: 5} {
		if f := newFleet(t, wanted, spec).run(10*time.Minute, nothing); f.wanted != want {
			t.Errorf("%d became %d: %s", wanted, f.wanted, f.last.Why)
		}
	}
	if got := (autoscale.Spec{Min: 3}).First(); got != 3 {
		t.Errorf("a fleet of at least 3 begins with %d", got)
	}
	if got := (autoscale.Spec{Max: 3}).First(); got != 1 {
		t.Errorf("a fleet of at most 3 begins with %d", got)
	}
}

func TestLatencyOfTooFewRequestsThatRunLongIsNotKnown(t *testing.T) {
	spec := autoscale.Spec{Min: 1, Max: 9, Policies: []autoscale.Policy{track(autoscale.Latency, 1)}}
	f := newFleet(t, 4, spec).run(20*time.Minute, total(autoscale.Concurrency, 3)) // none has ended
	f.want(t, 4, "was not measured")
}

func TestWhatSomebodyElseChangedIsLeftForAWhile(t *testing.T) {
	spec := autoscale.Spec{Min: 1, Max: 50, Policies: []autoscale.Policy{track(autoscale.Concurrency, 1)}}
	f := newFleet(t, 2, spec).run(20*time.Minute, total(autoscale.Concurrency, 2))
	f.wanted = 9
	f.run(5*time.Minute, total(autoscale.Concurrency, 2)).want(t, 9, "2 wanted, but not for 5m yet")
	f.run(2*time.Second, total(autoscale.Concurrency, 2)).want(t, 2, "")
}

func TestAFleetThatIsWokenByHandStaysAwake(t *testing.T) {
	spec := autoscale.Spec{Max: 10, Policies: []autoscale.Policy{track(autoscale.Concurrency, 2)}}
	f := newFleet(t, 1, spec).run(16*time.Minute, total(autoscale.Concurrency, 0))
	f.want(t, 0, "")
	f.wanted = 1
	f.ready = func(*fleet) int { return 0 }
	f.run(14*time.Minute, total(autoscale.Concurrency, 0)).want(t, 1, "")
	f.run(time.Second, func(m *autoscale.Measurement) bool { m.Waiting = 9; return true }).want(t, 5, "requests wait for the first replica: 9")
}
