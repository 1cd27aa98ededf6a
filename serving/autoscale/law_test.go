package autoscale_test

import (
	"math"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/internal/quantity"
	"github.com/clary-ml/clary/serving/autoscale"
)

// drawSpec draws any spec without mistakes whose policies follow the load.
func drawSpec(t *rapid.T) autoscale.Spec {
	duration := func(name string, least, most time.Duration) quantity.Duration {
		return quantity.Duration(time.Duration(rapid.Int64Range(int64(least/time.Second), int64(most/time.Second)).Draw(t, name)) * time.Second)
	}
	pace := func(name string) autoscale.Pace {
		p := autoscale.Pace{MaxStep: rapid.SampledFrom([]int{0, 0, 1, 5}).Draw(t, name+" step"), MaxPercent: rapid.SampledFrom([]float64{0, 0, 50, 100}).Draw(t, name+" percent")}
		if rapid.Bool().Draw(t, name+" cools down") {
			d := duration(name+" cooldown", 0, 90*time.Second)
			p.Cooldown = &d
		}
		if rapid.Bool().Draw(t, name+" stabilizes") {
			d := duration(name+" stabilization", 0, 2*time.Minute)
			p.Stabilization = &d
		}
		return p
	}
	spec := autoscale.Spec{
		Min: rapid.IntRange(0, 5).Draw(t, "min"), Idle: duration("idle", time.Second, 3*time.Minute),
		Window: duration("window", 5*time.Second, time.Minute), Tolerance: p(rapid.SampledFrom([]float64{0, 0.1, 0.3}).Draw(t, "tolerance")),
		Burst: autoscale.Burst{Off: rapid.Bool().Draw(t, "no burst")}, ScaleOut: pace("out"), ScaleIn: pace("in"),
	}
	spec.Max = rapid.IntRange(max(spec.Min, 1), 30).Draw(t, "max")
	for _, metric := range rapid.SliceOfNDistinct(rapid.SampledFrom([]autoscale.Metric{autoscale.Concurrency, autoscale.Requests, autoscale.Backlog}), 1, 3, rapid.ID).Draw(t, "metrics") {
		spec.Policies = append(spec.Policies, track(metric, rapid.Float64Range(0.5, 20).Draw(t, "target")))
	}
	return spec
}

// load is what is measured of each metric, some of it not.
type load struct {
	values  map[autoscale.Metric]float64
	waiting float64
	ready   int // less than wanted
	ended   int
}

func drawLoad(t *rapid.T) load {
	l := load{values: map[autoscale.Metric]float64{}, waiting: rapid.SampledFrom([]float64{0, 0, 0, 3}).Draw(t, "waiting"), ready: rapid.IntRange(0, 3).Draw(t, "starting")}
	l.ended = rapid.SampledFrom([]int{0, 0, 1, 10}).Draw(t, "ended")
	for _, metric := range []autoscale.Metric{autoscale.Concurrency, autoscale.Requests, autoscale.Backlog} {
		if rapid.IntRange(0, 9).Draw(t, "measured") > 0 {
			l.values[metric] = rapid.SampledFrom([]float64{0, 1, 7, 40, 300, 1e300, math.Inf(1), math.NaN()}).Draw(t, string(metric))
		}
	}
	return l
}

func (l load) measure(m *autoscale.Measurement) bool {
	m.Ready, m.Waiting = max(m.Ready-l.ready, 0), l.waiting
	for metric, v := range l.values {
		m.Values[metric] = v
	}
	for range l.ended {
		m.Latency.Add(100 * time.Millisecond)
	}
	return true
}

func drawFleet(t *rapid.T) *fleet {
	spec := drawSpec(t)
	f := &fleet{Scaler: scalerOf(t, spec), now: noon, wanted: rapid.IntRange(0, 32).Draw(t, "wanted")}
	for range rapid.IntRange(0, 6).Draw(t, "phases") {
		f.run(time.Duration(rapid.IntRange(1, 100).Draw(t, "seconds"))*time.Second, drawLoad(t).measure)
		if rapid.IntRange(0, 4).Draw(t, "silence") == 0 {
			f.now = f.now.Add(time.Duration(rapid.IntRange(1, 100).Draw(t, "of")) * time.Second)
		}
	}
	return f
}

func scalerOf(t *rapid.T, spec autoscale.Spec) autoscale.Scaler {
	s, err := autoscale.New(spec)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestItStaysWithinBoundsAndSaysWhy(t *testing.T) {
	changed := 0
	rapid.Check(t, func(t *rapid.T) {
		f := drawFleet(t)
		for range 30 {
			before := f.wanted
			f.run(time.Second, drawLoad(t).measure)
			if f.wanted < f.Spec().Min || f.wanted > f.Spec().Max || f.last.Why == "" {
				t.Fatalf("%d replicas, of %d to %d: %q", f.wanted, f.Spec().Min, f.Spec().Max, f.last.Why)
			}
			if f.wanted != before {
				changed++
			}
		}
	})
	if changed == 0 {
		t.Error("nothing ever changed")
	}
}

func TestAskedAgainAtTheSameInstantItDecidesTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFleet(t)
		f.run(time.Second, drawLoad(t).measure)
		given := f.state
		again, state := f.Decide(f.now, f.wanted, f.series, f.state)
		if !reflect.DeepEqual(again, f.last) || !reflect.DeepEqual(state, given) {
			t.Fatalf("%+v became %+v", f.last, again)
		}
		// And what it was given it leaves as it was: the same question has the same answer.
		now := f.now.Add(time.Second)
		one, first := f.Decide(now, f.wanted, f.series, given)
		f.Decide(now.Add(time.Second), one.Replicas, f.series, first)
		if other, second := f.Decide(now, f.wanted, f.series, given); !reflect.DeepEqual(one, other) || !reflect.DeepEqual(first, second) {
			t.Fatalf("%+v became %+v", one, other)
		}
	})
}

func TestMoreLoadNeverMeansFewerReplicas(t *testing.T) {
	more := 0
	rapid.Check(t, func(t *rapid.T) {
		f := drawFleet(t)
		low := f.series
		var high []autoscale.Measurement
		for _, m := range low {
			times := func() float64 { return rapid.SampledFrom([]float64{1, 1.05, 1.5, 10}).Draw(t, "times") }
			m.Values = map[autoscale.Metric]float64{}
			for metric, v := range low[len(high)].Values {
				m.Values[metric] = v * times()
			}
			m.Waiting *= times()
			high = append(high, m)
		}
		now := f.now.Add(time.Second)
		few, _ := f.Decide(now, f.wanted, low, f.state)
		many, _ := f.Decide(now, f.wanted, high, f.state)
		if many.Replicas < few.Replicas {
			t.Fatalf("%d replicas for more, %d for less: %s; %s", many.Replicas, few.Replicas, many.Why, few.Why)
		}
		if many.Replicas > few.Replicas {
			more++
		}
	})
	if more == 0 {
		t.Error("more load never meant more replicas")
	}
}

func TestConstantLoadIsBroughtToItsTargetAndStaysThere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFleet(t)
		spec := f.Spec()
		l := load{values: map[autoscale.Metric]float64{}}
		right := max(spec.Min, 1)
		least := right
		for _, policy := range spec.Policies {
			v := rapid.Float64Range(0.1, 400).Draw(t, "load")
			l.values[policy.Metric] = v
			right = max(right, int(math.Ceil(v/policy.Target-1e-9)))
			// Within the tolerance fewer are right too.
			least = max(least, int(math.Ceil(v/policy.Target/(1+*spec.Tolerance)-1e-9)))
		}
		right, least = min(right, spec.Max), min(least, spec.Max)
		most := max(right, min(spec.Max, int(float64(right)/(1-*spec.Tolerance))+1))
		f.run(10*time.Minute+32*90*time.Second, l.measure) // a replica at a time, with the longest cooldown
		settled := f.wanted
		if settled < least || settled > most {
			t.Fatalf("%d replicas, of %d to %d that are right: %s", settled, least, most, f.last.Why)
		}
		for range 300 {
			if f.run(time.Second, l.measure); f.wanted != settled {
				t.Fatalf("%d replicas became %d: %s", settled, f.wanted, f.last.Why)
			}
		}
	})
}

func TestReplicasAreTakenAwayOnlyAfterTheCooldown(t *testing.T) {
	taken := 0
	rapid.Check(t, func(t *rapid.T) {
		f := drawFleet(t)
		cooldown := time.Minute
		if c := f.Spec().ScaleIn.Cooldown; c != nil {
			cooldown = c.Std()
		}
		var changed time.Time
		for range 5 {
			l := drawLoad(t)
			for range rapid.IntRange(1, 100).Draw(t, "seconds") {
				before := f.wanted
				f.run(time.Second, l.measure)
				if f.wanted < before && f.wanted > 0 && !changed.IsZero() {
					taken++
					if after := f.now.Sub(changed); after < cooldown {
						t.Fatalf("%d became %d %s after a change, before the cooldown of %s: %s", before, f.wanted, after, cooldown, f.last.Why)
					}
				}
				if f.wanted != before {
					changed = f.now
				}
			}
		}
	})
	if taken == 0 {
		t.Error("no replica was ever taken away")
	}
}
