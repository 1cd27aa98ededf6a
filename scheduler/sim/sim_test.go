package sim_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/scheduler/sim"
)

func TestEventsComeInOrderOfTimeThenOfBeingAdded(t *testing.T) {
	played := 0
	rapid.Check(t, func(t *rapid.T) {
		type event struct {
			at    int64
			order int
		}
		var events sim.Events[event]
		added := 0
		add := func(least int64) {
			at := rapid.Int64Range(0, 20).Draw(t, "at")
			events.At(at, event{max(at, least), added})
			added++
		}
		for range rapid.IntRange(0, 20).Draw(t, "first") {
			add(0)
		}
		var seen []event
		for {
			now, batch, more := events.Next()
			if !more {
				break
			}
			for _, e := range batch {
				if e.at != now {
					t.Fatalf("an event of %d came at %d", e.at, now)
				}
			}
			seen = append(seen, batch...)
			if added < 60 && rapid.Bool().Draw(t, "more") {
				add(now)
			}
		}
		if len(seen) != added {
			t.Fatalf("%d of %d events came", len(seen), added)
		}
		played += added
		if !slices.IsSortedFunc(seen, func(a, b event) int {
			if a.at != b.at {
				return int(a.at - b.at)
			}
			return a.order - b.order
		}) {
			t.Fatalf("out of order: %v", seen)
		}
	})
	if played == 0 {
		t.Fatal("no event was played")
	}
}

func TestSummaryByHand(t *testing.T) {
	got := sim.Summarize([]int64{0, 10, 20}, []int64{5, 30, 21})
	if want := (sim.Summary{Average: 26.0 / 3, P50: 5, P99: 5 + 0.98*15, Makespan: 30}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := sim.Summarize(nil, nil); got != (sim.Summary{}) {
		t.Errorf("of nothing: %+v", got)
	}
}
