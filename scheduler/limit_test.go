package scheduler_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
)

func gpuQuota(gpus int64) cluster.Quota {
	return cluster.Quota{{Resource: cluster.ResourceGPUs, Amount: 1000 * gpus}}
}

// limited are queues of which a and b may have 4 GPUs together, by different sorts of limits.
var limited = map[string][]cluster.Queue{
	"the queue's own": {{Name: "a", Weight: 1, Borrow: gpuQuota(4)}, {Name: "b", Weight: 1, Guarantee: gpuQuota(4)}},
	"its parent's": {
		{Name: "lab", Weight: 1, Borrow: gpuQuota(4)}, {Name: "a", Weight: 1, Parent: "lab"}, {Name: "b", Weight: 1, Parent: "lab"},
	},
	"what another withholds": {
		{Name: "a", Weight: 1}, {Name: "b", Weight: 1}, {Name: "keeps", Weight: 1, Guarantee: gpuQuota(4), Lend: gpuQuota(0)},
	},
}

func TestALimitThatAServerHoldsPartOfIsNotShutForEver(t *testing.T) {
	for name, queues := range limited {
		for what, server := range map[string]func(*cluster.Gang){
			"an endpoint":                  func(g *cluster.Gang) { g.Handover = true },
			"a job that does not say when": func(*cluster.Gang) {},
		} {
			s := newStage(t, racks(1, 8), queues...)
			s.submit(with(gpuGang("a", "server", 1, 1), server), forever)
			s.after(time.Hour)
			s.submit(gpuGang("a", "large", 1, 4), time.Hour)
			s.after(10 * time.Minute)
			ended := map[string]int{}
			for i := range 400 {
				for _, queue := range []string{"a", "b"} {
					s.submit(gpuGang(queue, fmt.Sprint(queue, i), 1, 1), 30*time.Minute)
				}
				s.after(30 * time.Minute)
			}
			for _, queue := range []string{"a", "b"} {
				for i := range 400 {
					if s.where(fmt.Sprint(queue, i)) == "done" {
						ended[queue]++
					}
				}
				if ended[queue] < 100 {
					t.Errorf("%s, %s: of 400 jobs of half an hour in queue %s %d are done after 200 hours", name, what, queue, ended[queue])
				}
			}
		}
	}
}

func TestWhoWaitsForALimitBesideAServerIsNotOvertakenForEver(t *testing.T) {
	for name, queues := range limited {
		s := newStage(t, racks(1, 8), queues...)
		s.submit(with(gpuGang("a", "server", 1, 1), func(g *cluster.Gang) { g.Handover = true }), forever)
		s.after(time.Hour)
		s.submit(gpuGang("a", "other", 1, 1), time.Hour)
		s.step()
		s.submit(gpuGang("a", "large", 1, 3), time.Hour)
		s.now++
		if took := s.stream("a", 10*time.Minute, 40*time.Minute, 24*time.Hour, "large"); took > 5*time.Hour {
			t.Errorf("%s: it waits for %s", name, took)
		}
	}
}

func TestWhatIsDoneInTimeMayUseALimitThatIsWaitedFor(t *testing.T) {
	for name, queues := range limited {
		s := newStage(t, racks(1, 8), queues...)
		s.submit(with(gpuGang("a", "first", 1, 2), limit(2*time.Hour)), 2*time.Hour)
		s.step()
		s.submit(with(gpuGang("a", "large", 1, 4), limit(time.Hour)), time.Hour)
		s.after(10 * time.Minute)
		s.submit(with(gpuGang("a", "long", 1, 2), limit(3*time.Hour)), 3*time.Hour)
		s.submit(gpuGang("a", "unknown", 1, 2), 3*time.Hour)
		s.submit(with(gpuGang("a", "short", 1, 1), limit(time.Hour)), time.Hour)
		s.after(time.Minute)
		if s.where("short") == "" || s.where("long") != "" || s.where("unknown") != "" {
			t.Errorf("%s: short at %q, long at %q, unknown at %q", name, s.where("short"), s.where("long"), s.where("unknown"))
		}
		s.after(2 * time.Hour)
		s.expect("large", "n0")
	}
}

func TestWhoALimitDeniesIsNotOvertakenInAStrictQueue(t *testing.T) {
	for name, queues := range limited {
		for i := range queues {
			queues[i].Backfill = cluster.BackfillNone
		}
		s := newStage(t, racks(1, 8), queues...)
		s.submit(gpuGang("a", "first", 1, 2), 2*time.Hour)
		s.step()
		s.submit(gpuGang("a", "large", 1, 3), time.Hour)
		s.submit(gpuGang("a", "small", 1, 1), time.Hour)
		s.step()
		if s.where("small") != "" {
			t.Errorf("%s: it is overtaken at once", name)
		}
		s.submit(gpuGang("a", "late", 1, 1), time.Hour)
		s.step()
		if s.where("late") != "" {
			t.Errorf("%s: it is overtaken by who comes later", name)
		}
		s.after(2 * time.Hour)
		s.expect("large", "n0")
	}
}

func TestWhoWaitsBehindAnothersLimitIsNotOvertakenInAStrictQueue(t *testing.T) {
	s := newStage(
		t, racks(1, 8), cluster.Queue{Name: "lab", Weight: 1, Borrow: gpuQuota(4)},
		cluster.Queue{Name: "a", Weight: 1, Parent: "lab"}, cluster.Queue{Name: "strict", Weight: 1, Parent: "lab", Backfill: cluster.BackfillNone},
	)
	s.submit(with(gpuGang("a", "runs", 1, 2), limit(2*time.Hour)), 2*time.Hour)
	s.step()
	s.submit(gpuGang("a", "large", 1, 4), time.Hour)
	s.after(10 * time.Minute)
	s.submit(gpuGang("strict", "first", 1, 1), time.Hour)
	s.submit(with(gpuGang("strict", "second", 1, 1), limit(time.Hour)), time.Hour)
	s.after(time.Minute)
	if s.where("first") != "" || s.where("second") != "" {
		t.Errorf("the first at %q, the second at %q", s.where("first"), s.where("second"))
	}
	s.after(3 * time.Hour)
	s.expect("first", "n0")
}

// What a user may hold keeps only that user's jobs back.
func TestAUsersLimitClosesNoStrictQueue(t *testing.T) {
	s := newStage(t, racks(1, 8), cluster.Queue{Name: "q", Weight: 1, Backfill: cluster.BackfillNone, User: cluster.UserLimit{Most: gpuQuota(2)}})
	s.submit(gpuGang("q", "first", 1, 2), time.Hour)
	s.submit(gpuGang("q", "second", 1, 1), time.Hour)
	s.submit(with(gpuGang("q", "others", 1, 1), func(g *cluster.Gang) { g.Owner = "bob" }), time.Hour)
	s.step()
	s.expect("second", "")
	s.expect("others", "n0")
}

// Of what nobody may preempt small jobs would take what is left each time, and a large one would never have all of it at once.
func TestWhoWaitsForWhatNobodyMayPreemptIsNotOvertakenForEver(t *testing.T) {
	firm := func(g *cluster.Gang) { g.NonPreemptible = true }
	for name, queues := range map[string][]cluster.Queue{
		"the queue's own":  {{Name: "a", Weight: 1, Unpreemptible: gpuQuota(4)}},
		"its parent's":     {{Name: "lab", Weight: 1, Unpreemptible: gpuQuota(4)}, {Name: "a", Weight: 1, Parent: "lab"}, {Name: "b", Weight: 1, Parent: "lab"}},
		"a strict queue's": {{Name: "a", Weight: 1, Unpreemptible: gpuQuota(4), Backfill: cluster.BackfillNone}},
	} {
		s := newStage(t, racks(1, 8), queues...)
		s.submit(with(gpuGang("a", "first", 1, 1), firm), time.Hour)
		s.step()
		s.submit(with(gpuGang("a", "large", 1, 4), firm), time.Hour)
		came, beside := s.now, 0
		for i := 0; s.where("large") == "" && s.now-came < int64(24*time.Hour); i++ {
			s.submit(with(gpuGang(queues[len(queues)-1].Name, fmt.Sprint("small", i), 1, 1), firm), 40*time.Minute)
			s.submit(gpuGang("a", fmt.Sprint("soft", i), 1, 1), 5*time.Minute)
			s.after(10 * time.Minute)
			if s.where(fmt.Sprint("soft", i)) == "done" {
				beside++
			}
		}
		if took := time.Duration(s.now - came); took > 5*time.Hour || beside < 6 {
			t.Errorf("%s: it waits for %s, and %d that may be preempted ran meanwhile", name, took, beside)
		}
	}
}

// A server that nobody may preempt holds a part of the limit for ever: the rest of it is not kept for ever, either.
func TestWhatIsLeftOfWhatNobodyMayPreemptDoesNotLieIdleForEver(t *testing.T) {
	firm := func(g *cluster.Gang) { g.NonPreemptible = true }
	s := newStage(t, racks(1, 8), cluster.Queue{Name: "a", Weight: 1, Unpreemptible: gpuQuota(4)})
	s.submit(with(gpuGang("a", "server", 1, 1), firm), forever)
	s.after(time.Hour)
	s.submit(with(gpuGang("a", "large", 1, 4), firm), time.Hour)
	done := 0
	for i := range 400 {
		s.submit(with(gpuGang("a", fmt.Sprint("small", i), 1, 3), firm), 30*time.Minute)
		s.after(30 * time.Minute)
	}
	for i := range 400 {
		if s.where(fmt.Sprint("small", i)) == "done" {
			done++
		}
	}
	if done < 100 {
		t.Errorf("of 400 jobs of half an hour %d are done after 200 hours", done)
	}
}
