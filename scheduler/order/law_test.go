package order_test

import (
	"cmp"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/scheduler/order"
)

// machine serves one job at a time, as an order says; a step is a minute.
type machine struct {
	history *order.History
	rank    func(h *order.History, j order.Job, now int64) order.Rank
	worth   func(waiting, running order.Rank, cost int64) bool
	now     int64
	jobs    []*work
	runs    *work
	swaps   int // how often a running job was stopped
}

type work struct {
	order.Job
	id      int
	lasts   int64
	reports bool
	track   order.Track
	stopped int
}

func (m *machine) submit(j *work) {
	j.Submitted, j.Weight = m.now, 1000
	j.track.Classes = j.Classes
	m.jobs = append(m.jobs, j)
}

// step plans and works for a minute; it returns who ended.
func (m *machine) step() (ended *work) {
	rank := func(j *work) order.Rank { return m.rank(m.history, j.Job, m.now) }
	if len(m.jobs) > 0 {
		first := slices.MinFunc(m.jobs, func(a, b *work) int { return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.id, b.id)) })
		switch {
		case m.runs == nil:
			m.runs = first
		case m.runs != first && m.worth(rank(first), rank(m.runs), 0):
			m.runs.stopped++
			m.swaps++
			m.runs = first
		}
	}
	m.now += minute
	j := m.runs
	if j == nil {
		return nil
	}
	j.Ran += minute
	if j.reports {
		j.Done, j.Total = j.Ran/minute, j.lasts/minute
	}
	if j.Ran < j.lasts {
		m.history.Note(&j.track, j.Ran, j.Done, j.Total)
		return nil
	}
	m.history.End(&j.track, j.Ran)
	m.jobs = slices.DeleteFunc(m.jobs, func(other *work) bool { return other == j })
	m.runs = nil
	return j
}

// starve drowns one job in shorter ones, as many as the machine can serve and never an end of them. It says how long it
// took until that one was done, or that it was not before the time that is promised.
func starve(t *rapid.T, rank func(*order.History, order.Job, int64) order.Rank) (took, promised int64, done bool) {
	m := &machine{history: order.NewHistory(), rank: rank, worth: order.Worth}
	type kind struct {
		lasts   int64
		reports bool
	}
	var kinds []kind
	for range rapid.IntRange(1, 4).Draw(t, "kinds") {
		kinds = append(kinds, kind{rapid.Int64Range(5, 60).Draw(t, "lasts"), rapid.Bool().Draw(t, "reports")})
	}
	add := func(id int, k kind, class string) *work {
		j := &work{id: id, lasts: k.lasts * minute, reports: k.reports}
		j.Classes = classes(class, 1)
		m.submit(j)
		return j
	}
	for i := range rapid.IntRange(0, 20).Draw(t, "before") {
		live(m.history, classes(fmt.Sprint("kind", i%len(kinds)), 1), kinds[i%len(kinds)].lasts*minute)
	}
	limit := rapid.Int64Range(60, 120).Draw(t, "limit")
	victim := add(0, kind{lasts: limit, reports: rapid.Bool().Draw(t, "says")}, "victim")
	victim.Limit = limit * minute
	// Due at the latest, then its own time; before it goes what is due already, no more than has piled up.
	promised = day + (32+2)*victim.Limit + hour
	left := int64(0) // until the next one comes: when the one before can be done
	for i := 1; m.now < promised; i++ {
		if left == 0 {
			left = kinds[i%len(kinds)].lasts
			add(i, kinds[i%len(kinds)], fmt.Sprint("kind", i%len(kinds)))
		}
		left--
		if m.step() == victim {
			return m.now, promised, true
		}
	}
	return m.now, promised, false
}

// No job starves: even if there is always a shorter one, a job is done soon after it became due.
func TestNoJobStarvesUnderAnyArrivals(t *testing.T) {
	late := 0
	rapid.Check(t, func(t *rapid.T) {
		took, promised, done := starve(t, order.Shortest)
		if !done {
			t.Fatalf("after %d hours it is not done", promised/hour)
		}
		if took > day {
			late++
		}
	})
	if late == 0 {
		t.Error("no job ever waited for a day: the arrivals did not press")
	}
}

// The law catches an order without a due time.
func TestTheLawOfStarvationCatchesAnOrderThatForgets(t *testing.T) {
	starved := 0
	rapid.Check(t, func(t *rapid.T) {
		_, _, done := starve(t, func(h *order.History, j order.Job, now int64) order.Rank {
			j.Submitted = now // it always has just come
			return order.Shortest(h, j, now)
		})
		if !done {
			starved++
		}
	})
	if starved == 0 {
		t.Error("nothing starved, though nothing was ever due")
	}
}

// play runs jobs that all come at once to their end and says how often the one that was stopped most was.
func play(t *rapid.T, worth func(waiting, running order.Rank, cost int64) bool) (most, swaps int) {
	m := &machine{history: order.NewHistory(), rank: order.Shortest, worth: worth}
	var all []*work
	for i := range rapid.IntRange(2, 6).Draw(t, "jobs") {
		j := &work{id: i, lasts: rapid.Int64Range(1, 600).Draw(t, "lasts") * minute, reports: rapid.Bool().Draw(t, "reports")}
		j.Classes = classes(fmt.Sprint("kind", rapid.IntRange(0, 2).Draw(t, "kind")), 1)
		m.submit(j)
		all = append(all, j)
	}
	for ended := 0; ended < len(all); {
		if m.step() != nil {
			ended++
		}
		if m.now > 100*day {
			t.Fatalf("%d of %d jobs are not done after 100 days", len(all)-ended, len(all))
		}
	}
	for _, j := range all {
		most = max(most, j.stopped)
	}
	return most, m.swaps
}

// maxStops is how often one of six jobs of ten hours may be stopped: what is left must halve in between.
const maxStops = 8

// Preemption never cycles: jobs that want one machine do not take turns without end.
func TestJobsDoNotTakeTurns(t *testing.T) {
	swaps := 0
	rapid.Check(t, func(t *rapid.T) {
		most, n := play(t, order.Worth)
		if most > maxStops {
			t.Fatalf("a job was stopped %d times", most)
		}
		swaps += n
	})
	if swaps == 0 {
		t.Error("nothing was ever stopped")
	}
}

// The law catches a rule that takes turns.
func TestTheLawOfTurnsCatchesOneThatTakesThem(t *testing.T) {
	caught := false
	rapid.Check(t, func(t *rapid.T) {
		most, _ := play(t, func(waiting, running order.Rank, _ int64) bool { return waiting <= running })
		caught = caught || most > maxStops
	})
	if !caught {
		t.Error("a rule that stops for nothing was not caught")
	}
}
