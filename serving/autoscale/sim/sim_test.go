package sim_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/serving/autoscale"
	"github.com/clary-ml/clary/serving/autoscale/sim"
)

func steady(seconds int, rate float64) []float64 {
	rates := make([]float64, seconds)
	for i := range rates {
		rates[i] = rate
	}
	return rates
}

// watched is a fleet whose measurements are kept.
type watched struct {
	sim.Fleet
	all []autoscale.Measurement
}

func (w *watched) Decide(now time.Time, wanted int, series []autoscale.Measurement) int {
	w.all = append(w.all, series[len(series)-1])
	return w.Fleet.Decide(now, wanted, series)
}

func TestTheModelIsWhatQueueingTheorySays(t *testing.T) {
	// M/M/c would have a formula for its waits; here service is log-normal, so what is compared holds for
	// any: Little's law, throughput, and the share of the replicas that is busy.
	m := sim.Standard()
	const rate, replicas, seconds = 60.0, 8, 8_000
	w := &watched{Fleet: sim.Fixed(replicas)}
	r := m.Play(steady(seconds, rate), 1, replicas, w)
	if math.Abs(float64(r.Requests)/seconds-rate) > 0.5 {
		t.Errorf("%d requests in %d s", r.Requests, seconds)
	}
	concurrency, latency, ended := 0.0, 0.0, 0
	for _, measured := range w.all {
		concurrency += measured.Values[autoscale.Concurrency] / seconds
		ended += int(measured.Latency.N())
	}
	if want := rate * m.Service.Seconds(); math.Abs(concurrency-want)/want > 0.02 {
		t.Errorf("%v requests at a time, want %v", concurrency, want)
	}
	if latency = concurrency / rate; math.Abs(latency-0.25) > 0.01 || ended < r.Requests-100 {
		t.Errorf("a request takes %v s; %d of %d ended", latency, ended, r.Requests)
	}
	if r.Over != (replicas-float64(m.Needed(rate)))*seconds || r.Under != 0 || r.Spent != replicas*seconds {
		t.Errorf("the areas are %+v", r)
	}
}

func TestTooFewReplicasLoseRequestsAndAreShort(t *testing.T) {
	m := sim.Standard()
	r := m.Play(steady(600, 64), 1, 2, sim.Fixed(2)) // which serve half of it
	if share := float64(r.Lost) / float64(r.Requests); share < 0.4 || share > 0.55 || r.Late == 0 {
		t.Errorf("of %d requests %d are lost, %d late", r.Requests, r.Lost, r.Late)
	}
	if r.Under != 4*600 || r.Over != 0 {
		t.Errorf("the areas are %+v", r)
	}
}

func TestANewReplicaIsReadyAfterItsStart(t *testing.T) {
	m := sim.Standard()
	w := &watched{Fleet: sim.Fixed(5)}
	m.Play(steady(30, 10), 1, 1, w)
	for i, measured := range w.all {
		if want := map[bool]int{true: 1, false: 5}[i <= 10]; measured.Ready != want {
			t.Errorf("in second %d %d are ready, want %d", i, measured.Ready, want)
		}
	}
}

func TestTheSameSeedPlaysTheSame(t *testing.T) {
	m, load := sim.Standard(), sim.Loads()[1]
	play := func(seed uint64) sim.Result {
		s, err := autoscale.New(m.Follow(1, 40))
		if err != nil {
			t.Fatal(err)
		}
		return m.Play(load.Draw(seed)[:1800], seed, 1, &sim.Scaled{Scaler: s})
	}
	if play(1) != play(1) || play(1) == play(2) {
		t.Error("a seed does not say what is played")
	}
}

// What docs/performance.md shows must stay so: a change that makes the autoscaler worse fails here.
func TestScalingBeatsTheBestFixedFleet(t *testing.T) {
	m := sim.Standard()
	for _, load := range sim.Loads()[:1] {
		rows, err := m.Compare(load, 1)
		if err != nil {
			t.Fatal(err)
		}
		scaled, fixed := rows[0].Result, rows[len(rows)-2].Result
		if !strings.Contains(rows[len(rows)-2].Fleet, "misses no more") || fixed.Missed() > scaled.Missed() {
			t.Fatalf("%s: %+v is no fair rival of %+v", load.Name, rows[len(rows)-2], scaled)
		}
		if scaled.Lost > 0 || scaled.Over+scaled.Under > 0.7*(fixed.Over+fixed.Under) {
			t.Errorf("%s: %+v, fixed %+v", load.Name, scaled, fixed)
		}
	}
}
