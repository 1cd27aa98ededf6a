package scheduler_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
)

const forever = 1e5 * time.Hour

// stream has a gang of one GPU come every so often, for so long in all, until a job runs. It returns how long it took.
func (s *stage) stream(queue string, every, lasts, most time.Duration, job string) time.Duration {
	s.t.Helper()
	came := s.now
	for i := 0; s.where(job) == "" && s.now-came < int64(most); i++ {
		s.submit(gpuGang(queue, fmt.Sprintf("%s-%d-%d", job, came, i), 1, 1), lasts)
		s.after(every)
	}
	return time.Duration(s.now - came)
}

// The oldest of all that runs is a server; small jobs go round it.
func TestNoRoomIsKeptBelowAServerWhileThereIsOtherRoom(t *testing.T) {
	for name, server := range map[string]func(*cluster.Gang){
		"an endpoint":                  func(g *cluster.Gang) { g.Handover = true },
		"a job that nobody may stop":   func(g *cluster.Gang) { g.NonPreemptible = true },
		"a job that does not say when": func(*cluster.Gang) {},
	} {
		for at := range 6 {
			gpus, ran := int32(1+at%2*3), []time.Duration{0, 10 * time.Minute, 100 * time.Hour}[at/2]
			s := newStage(t, racks(2, 4), cluster.Queue{Name: "q", Weight: 1})
			s.submit(with(gpuGang("q", "server", 1, gpus), server), forever)
			s.after(ran)
			for i := range 8 - gpus {
				s.submit(gpuGang("q", fmt.Sprint("first", i), 1, 1), time.Duration(10+12*i)*time.Minute)
			}
			s.after(time.Minute)
			s.submit(gpuGang("q", "large", 1, 4), time.Hour)
			took := s.stream("q", 5*time.Minute, 40*time.Minute, 24*time.Hour, "large")
			if took > 5*time.Hour {
				t.Errorf("%s that had run for %s: a gang for which there would be room on the other node waited for %s", name, ran, took)
			}
		}
	}
}

// Each node has a server. What is beside them does not lie idle for ever.
func TestWhatIsBesideServersIsNotKeptForEverForWhoNeedsAllOfIt(t *testing.T) {
	for name, server := range map[string]func(*cluster.Gang){
		"endpoints":                 func(g *cluster.Gang) { g.Handover = true },
		"jobs that do not say when": func(*cluster.Gang) {},
	} {
		s := newStage(t, racks(1, 4), cluster.Queue{Name: "q", Weight: 1})
		s.submit(with(gpuGang("q", "server", 1, 1), server), forever)
		s.after(time.Hour)
		s.submit(gpuGang("q", "large", 1, 4), time.Hour)
		s.after(10 * time.Minute)
		from := s.now
		for i := 0; s.now-from < int64(400*time.Hour); i++ {
			s.submit(gpuGang("q", fmt.Sprint("small", i), 1, 3), 30*time.Minute)
			s.after(30 * time.Minute)
		}
		ended := time.Duration(s.counted["ended"]) * 30 * time.Minute
		if all := time.Duration(s.now - from); ended < all/3 {
			t.Errorf("%s: jobs ran for %s of %s", name, ended, all)
		}
	}
}

// Several queues' firsts wait for what never ends. They do not take turns in keeping the rest.
func TestWhatIsBesideServersIsNotKeptInTurns(t *testing.T) {
	queues := []cluster.Queue{{Name: "q", Weight: 1}}
	for i := range 6 {
		queues = append(queues, cluster.Queue{Name: fmt.Sprint("q", i), Weight: 1})
	}
	s := newStage(t, racks(1, 4), queues...)
	s.submit(with(gpuGang("q", "server", 1, 1), func(g *cluster.Gang) { g.Handover = true }), forever)
	s.after(time.Hour)
	for i := range 6 {
		s.submit(gpuGang(fmt.Sprint("q", i), fmt.Sprint("large", i), 1, 4), time.Hour)
	}
	for i := range 400 {
		s.submit(gpuGang("q", fmt.Sprint("small", i), 1, 3), 30*time.Minute)
		s.after(30 * time.Minute)
	}
	if n := s.counted["ended"]; n < 100 {
		t.Errorf("%d of 400 jobs of half an hour ended in 200 hours", n)
	}
}

func TestRoomThatIsKeptOnANodeThatShrinksIsKeptElsewhere(t *testing.T) {
	s := newStage(t, racks(2, 4), cluster.Queue{Name: "q", Weight: 1})
	s.submit(gpuGang("q", "short", 1, 3), 30*time.Minute)
	s.step()
	s.now++
	s.submit(gpuGang("q", "long", 1, 4), 10*time.Hour)
	s.step()
	s.expect("short", "n0")
	s.submit(gpuGang("q", "large", 1, 4), time.Hour)
	s.after(20 * time.Minute) // room is kept for it on n0
	n := s.nodes["n0"]
	n.Devices = n.Devices[:3]
	n.Revision++
	s.nodes["n0"] = n
	s.planner.SetNode(n, s.used("n0"))
	s.after(15 * time.Minute)
	s.expect("short", "done")
	s.submit(gpuGang("q", "late", 1, 3), time.Hour)
	s.step()
	s.expect("late", "n0")
}

// While a large gang waits patiently others overtake it, and one of them never ends: what is kept for the large one rests all the same.
func TestWhoCameLaterAndNeverEndsHasNothingKeptForEver(t *testing.T) {
	for name, c := range map[string]struct {
		queue                cluster.Queue
		nodes, large, server int32 // of 4 GPUs, on each of them; how many it needs and who overtakes it
	}{
		"nodes":   {cluster.Queue{Name: "q", Weight: 1}, 2, 2, 4},
		"a limit": {cluster.Queue{Name: "q", Weight: 1, Borrow: gpuQuota(8)}, 3, 2, 1},
	} {
		s := newStage(t, racks(int(c.nodes), 4), c.queue)
		s.submit(gpuGang("q", "short", 1, 4), 2*time.Minute)
		s.submit(gpuGang("q", "longer", 1, 4), 9*time.Minute)
		s.after(time.Minute)
		s.submit(gpuGang("q", "large", c.large, 4), time.Hour)
		s.after(2 * time.Minute)
		s.submit(gpuGang("q", "server", 1, c.server), forever)
		s.after(time.Minute)
		if s.where("server") == "" || s.where("large") != "" {
			t.Fatalf("%s: the server at %q, the large one at %q", name, s.where("server"), s.where("large"))
		}
		s.after(time.Hour)
		done := 0
		for i := range 400 {
			s.submit(gpuGang("q", fmt.Sprint("small", i), 1, 4), 30*time.Minute)
			s.after(30 * time.Minute)
		}
		for i := range 400 {
			if s.where(fmt.Sprint("small", i)) == "done" {
				done++
			}
		}
		if done < 100 {
			t.Errorf("%s: %d of 400 jobs of half an hour are done after 200 hours", name, done)
		}
	}
}

// More wait before it for what they can never have than may have room kept for them, and since different instants.
func TestWhoFitsBesideServersStartsBehindMoreThanMayHaveRoomKept(t *testing.T) {
	queues := []cluster.Queue{{Name: "q", Weight: 1}, {Name: "small", Weight: 2}}
	for i := range 70 {
		queues = append(queues, cluster.Queue{Name: fmt.Sprintf("h%02d", i), Weight: 1})
	}
	s := newStage(t, racks(4, 4), queues...)
	for i := range 4 {
		s.submit(gpuGang("q", fmt.Sprint("server", i), 1, 3), forever)
	}
	s.after(time.Minute)
	for i := range 70 {
		s.submit(gpuGang(fmt.Sprintf("h%02d", i), fmt.Sprint("large", i), 1+int32(i%4), 4), time.Hour)
		s.submit(gpuGang("small", fmt.Sprint("before", i), 1, 1), 40*time.Minute)
		s.after(7 * time.Minute)
	}
	s.submit(gpuGang("q", "fits", 4, 1), time.Hour)
	if took := s.stream("small", 5*time.Minute, 40*time.Minute, 200*time.Hour, "fits"); took > 40*time.Hour {
		t.Errorf("it waits for %s", took)
	}
}

// What runs ends late, each time, and so looks as if it never did: only a long spell of its own gets it what it needs, of which
// who can never start keeps a part in spells that it leads.
func TestWhoNeedsALongSpellHasItsTurnBesideWhoNeverStarts(t *testing.T) {
	s := newStage(t, racks(1, 4), cluster.Queue{Name: "q", Weight: 1}, cluster.Queue{Name: "other", Weight: 1}, cluster.Queue{Name: "small", Weight: 2})
	s.submit(with(gpuGang("q", "server", 1, 1), func(g *cluster.Gang) { g.Handover = true }), forever)
	s.after(time.Minute)
	s.submit(gpuGang("other", "never", 1, 4), time.Hour)
	s.after(time.Minute)
	s.submit(gpuGang("q", "large", 1, 3), time.Hour)
	if took := s.stream("small", 5*time.Hour, 20*time.Hour, 1000*time.Hour, "large"); took > 240*time.Hour { // each leads for 1, 2, 4, 8 and 16 hours, rests for as long, and then for 32
		t.Errorf("it waits for %s", took)
	}
}

// Jobs that nobody may stop are not all expected to end last, the server first since it is the oldest: what they leave is kept for who waits.
func TestNoRoomIsKeptBelowAServerBesideJobsThatNobodyMayStop(t *testing.T) {
	firm := func(g *cluster.Gang) { g.NonPreemptible = true }
	for name, server := range map[string]func(*cluster.Gang){"may be stopped": func(*cluster.Gang) {}, "nobody may stop": firm} {
		s := newStage(t, racks(1, 4), cluster.Queue{Name: "q", Weight: 1}, cluster.Queue{Name: "small", Weight: 1})
		s.submit(with(gpuGang("q", "server", 1, 2), server), forever)
		s.after(20 * time.Hour)
		for i := range 2 {
			s.submit(with(gpuGang("small", fmt.Sprint("before", i), 1, 1), firm), 40*time.Minute)
			s.after(20 * time.Minute)
		}
		s.submit(gpuGang("q", "large", 1, 2), time.Hour)
		came := s.now
		for i := 0; s.where("large") == "" && s.now-came < int64(40*time.Hour); i++ {
			s.submit(with(gpuGang("small", fmt.Sprint("small", i), 1, 1), firm), 40*time.Minute)
			s.after(10 * time.Minute)
		}
		if took := time.Duration(s.now - came); took > 5*time.Hour {
			t.Errorf("beside a server that %s it waits for %s", name, took)
		}
	}
}
