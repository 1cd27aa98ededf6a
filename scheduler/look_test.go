package scheduler_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler"
)

// why is what is said of a job that waits.
func (s *stage) why(job string) cluster.Why {
	s.t.Helper()
	whys := s.planner.(*scheduler.Cluster).LookAt([]string{job + "/main"}, s.now, nil).Whys()
	if len(whys) != 1 {
		s.t.Fatalf("%d whys of %s, which is at %q", len(whys), job, s.where(job))
	}
	return whys[0]
}

func (s *stage) says(job string, wants ...string) {
	s.t.Helper()
	for _, want := range wants {
		if got := s.why(job).Summary; !strings.Contains(got, want) {
			s.t.Errorf("of %s it says  %s\nwant  %s", job, got, want)
		}
	}
}

// block is the part of a why that a constraint has.
func (s *stage) block(job, constraint string) cluster.Block {
	s.t.Helper()
	for _, b := range s.why(job).Blocks {
		if b.Constraint == constraint {
			return b
		}
	}
	s.t.Errorf("of %s nothing is said about %s: %+v", job, constraint, s.why(job).Blocks)
	return cluster.Block{}
}

func TestSaysItsPlaceInTheQueueAndWhoIsBefore(t *testing.T) {
	s := newStage(t, racks(1, 4), cluster.Queue{Name: "lab", Weight: 1})
	s.submit(gpuGang("lab", "runs", 1, 4), time.Hour)
	s.step()
	for i := range 6 {
		s.submit(gpuGang("lab", fmt.Sprintf("w%d", i), 1, 4), time.Hour)
	}
	s.step()
	s.says("w5", "worker needs 0 cores, 0 B, 4 GPUs on one node: the nearest (n0) has 0 free of the 4 it takes", "it is 6 of 6 in queue lab, behind w0/main, w1/main, w2/main and 2 more")
	if w := s.why("w5"); w.Place != 6 || w.Of != 6 || w.Queue != "lab" {
		t.Errorf("place %d of %d in %q", w.Place, w.Of, w.Queue)
	}
	if b := s.block("w1", "order"); len(b.Gangs) != 1 || b.Gangs[0] != "w0/main" {
		t.Errorf("%+v", b)
	}
	look := s.planner.(*scheduler.Cluster).LookOver("", 4, s.now, nil)
	if whys := look.Whys(); look.Waiting != 6 || len(whys) != 4 || whys[3].Gang != "w3/main" {
		t.Errorf("%d of %d: %+v", len(whys), look.Waiting, whys)
	}
	if look := s.planner.(*scheduler.Cluster).LookOver("none", 4, s.now, nil); look.Waiting != 0 || len(look.Whys()) != 0 {
		t.Error("something waits in a queue that is not there")
	}
}

func TestSaysWhichLimitOfAQueueBlocks(t *testing.T) {
	most := cluster.Quota{{Resource: cluster.ResourceGPUs, Amount: 2000}}
	none := cluster.Quota{{Resource: cluster.ResourceGPUs, Amount: 0}}
	s := newStage(t, racks(2, 4),
		cluster.Queue{Name: "a", Weight: 1, Guarantee: most, Borrow: none}, cluster.Queue{Name: "b", Weight: 1, MaxRunning: 1})
	s.submit(gpuGang("a", "a1", 1, 1), time.Hour)
	s.submit(gpuGang("a", "a2", 1, 2), time.Hour)
	s.submit(gpuGang("b", "b1", 1, 1), time.Hour)
	s.submit(gpuGang("b", "b2", 1, 1), time.Hour)
	s.step()
	s.says("a2", "queue a has 1 GPU taken of the 2 GPUs that it may have", "1 GPU short")
	s.says("b2", "queue b runs 1 jobs, the most that it may (max_running 1)")
	if b := s.block("a2", "borrow"); b.Missing != 1000 {
		t.Errorf("%+v", b)
	}
}

func TestSaysForWhomRoomIsKeptAndUntilWhen(t *testing.T) {
	s := newStage(t, racks(1, 8), cluster.Queue{Name: "q", Weight: 1})
	s.submit(with(gpuGang("q", "first", 1, 4), limit(time.Hour)), time.Hour)
	s.step()
	s.submit(with(gpuGang("q", "big", 1, 8), limit(time.Hour)), time.Hour)
	s.submit(with(gpuGang("q", "long", 1, 4), limit(2*time.Hour)), 2*time.Hour)
	s.step()
	s.says("big", "the nearest (n0) has 4 free of the 8 it takes", "room is kept for it on n0, expected to be free about 02:00 UTC")
	s.says("long", "room on n0 is kept for big/main until about 02:00 UTC", "it is 2 of 2 in queue q, behind big/main")
	if w, b := s.why("big"), s.block("long", "reserved"); w.Expected != int64(2*time.Hour) || b.Until != w.Expected || b.Nodes != 1 || b.Gangs[0] != "big/main" {
		t.Errorf("expected %d; %+v", w.Expected, b)
	}
}

func TestSaysWhoHasToStopFirst(t *testing.T) {
	s := newStage(t, racks(1, 4), cluster.Queue{Name: "q", Weight: 1})
	s.submit(gpuGang("q", "one", 1, 2), 10*time.Hour)
	s.submit(gpuGang("q", "two", 1, 2), 10*time.Hour)
	s.after(time.Hour)
	s.submit(with(gpuGang("q", "urgent", 1, 4), func(g *cluster.Gang) { g.Priority = 1 }), time.Hour)
	s.step()
	s.says("urgent", "it waits for 2 others to stop, which make room for it on n0: ", "one/main", "two/main")
	if b := s.block("urgent", "preemption"); len(b.Gangs) != 2 {
		t.Errorf("%+v", b)
	}
}

func TestSaysWhichQueueGoesFirst(t *testing.T) {
	s := newStage(t, racks(1, 8), cluster.Queue{Name: "lab", Weight: 1}, cluster.Queue{Name: "ml", Weight: 1})
	s.submit(gpuGang("lab", "l1", 1, 6), time.Hour)
	s.step()
	s.submit(gpuGang("lab", "l2", 1, 4), time.Hour)
	s.submit(gpuGang("ml", "m1", 1, 4), time.Hour)
	s.step()
	s.says("l2", "queue ml has less than its share and goes first (by weight ml would then have 50.0 % of the cluster, and lab 125.0 %)")
	if got := s.why("m1").Summary; strings.Contains(got, "goes first") {
		t.Errorf("of the queue that goes first it says %s", got)
	}
}

func TestSaysThatNobodyMayOvertake(t *testing.T) {
	s := newStage(t, racks(1, 8), cluster.Queue{Name: "q", Weight: 1, Backfill: cluster.BackfillNone})
	s.submit(gpuGang("q", "first", 1, 4), time.Hour)
	s.step()
	s.submit(gpuGang("q", "big", 1, 8), time.Hour)
	s.submit(gpuGang("q", "small", 1, 1), time.Hour)
	s.step()
	s.says("small", "there is room for it, and queue q lets nobody overtake big/main")
}

// BenchmarkLook is what a question costs the planner, and what it costs whoever asks.
func BenchmarkLook(b *testing.B) {
	for _, nodes := range []int{1000, 10_000, 50_000} {
		c := scheduler.New(scheduler.Options{})
		for i := range nodes {
			c.SetNode(machine(fmt.Sprintf("n%05d", i), 64, 256, 8, "A100"), cluster.Resources{MilliCPU: 63500})
		}
		for i := range 10_000 {
			g := gang(fmt.Sprintf("j%05d", i), 1, cluster.Ask{MilliCPU: int64(1000 + i%50), GPUs: 1})
			g.Queue, g.Revision, g.Submitted = "default", 1, int64(i)
			c.Wait(scheduler.NewAsk(g))
		}
		if plan := c.Plan(1); len(plan.Placements) > 0 {
			b.Fatal("something fits")
		}
		b.Run(fmt.Sprintf("the planner, %d nodes", nodes), func(b *testing.B) {
			for b.Loop() {
				c.LookOver("", 100, 1, nil)
			}
		})
		b.Run(fmt.Sprintf("100 whys of 50 kinds, %d nodes", nodes), func(b *testing.B) {
			look := c.LookOver("", 100, 1, nil)
			for b.Loop() {
				look.Whys()
			}
		})
	}
}

func TestSaysWhoWaitsForTheLimitThatWouldAdmitIt(t *testing.T) {
	s := newStage(t, racks(1, 8), cluster.Queue{Name: "lab", Weight: 1, Borrow: gpuQuota(4)})
	s.submit(gpuGang("lab", "runs", 1, 2), 2*time.Hour)
	s.step()
	s.submit(gpuGang("lab", "large", 1, 4), time.Hour)
	s.after(10 * time.Minute)
	s.submit(gpuGang("lab", "small", 1, 1), time.Hour)
	s.step()
	s.says("small", "there is room for it, and large/main goes first, which has waited for long for what a limit of its queue")
}
