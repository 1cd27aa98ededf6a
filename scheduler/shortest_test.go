package scheduler_test

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler"
)

// shop is a cluster of one GPU with one queue; what makes room does so at once.
type shop struct {
	*scheduler.Cluster
	now   int64
	gangs map[string]*cluster.Gang
	since map[string]int64 // those that run
}

func newShop(order cluster.QueueOrder, within cluster.PreemptRule) *shop {
	s := &shop{Cluster: scheduler.New(scheduler.Options{}), now: int64(time.Hour), gangs: map[string]*cluster.Gang{}, since: map[string]int64{}}
	s.SetNode(cluster.Node{ID: "n", State: cluster.NodeReady, MilliCPU: 8000, Devices: []cluster.Device{{UUID: "g", Kind: cluster.DeviceGPU, Model: "A100", Healthy: true}}}, cluster.Resources{})
	if err := s.SetQueues([]cluster.Queue{{Name: "q", Weight: 1, Order: order, Preempt: cluster.Preempt{Within: within}, MinRuntime: 1}}); err != nil {
		panic(err)
	}
	return s
}

func (s *shop) submit(job string) {
	g := &cluster.Gang{
		Job: job, Name: "main", Queue: "q", Owner: "ann", Attempt: 1, Revision: 1, Submitted: s.now,
		Roles: []cluster.Role{{Name: "w", Count: 1, Ask: cluster.Ask{GPUs: 1}}},
	}
	s.gangs[g.ID()] = g
	s.Wait(scheduler.NewAsk(*g))
}

// plan does what the scheduler says, until it says nothing.
func (s *shop) plan() {
	for {
		plan := s.Plan(s.now)
		if len(plan.Placements)+len(plan.Evictions) == 0 {
			return
		}
		for _, p := range plan.Placements {
			s.since[p.Gang] = s.now
		}
		for _, e := range plan.Evictions {
			g := s.gangs[e.Gang]
			g.Ran += time.Duration(s.now - s.since[e.Gang])
			g.Attempt, g.Revision = g.Attempt+1, g.Revision+1
			delete(s.since, e.Gang)
			s.End(e.Gang)
			s.Wait(scheduler.NewAsk(*g))
		}
	}
}

func (s *shop) runs(job string) bool { _, yes := s.since[job+"/main"]; return yes }

func (s *shop) pass(d time.Duration) {
	s.now += int64(d)
	s.plan()
}

func (s *shop) succeed(job string) {
	id := job + "/main"
	s.Succeeded(*s.gangs[id], s.gangs[id].Ran+time.Duration(s.now-s.since[id]))
	s.End(id)
	s.Drop(id)
	delete(s.since, id)
	s.plan()
}

// learn has the shop see jobs of a kind that last so long.
func (s *shop) learn(kind string, lasts time.Duration) {
	for i := range 5 {
		job := fmt.Sprintf("%s-%d", kind, i)
		s.submit(job)
		s.plan()
		for ran := time.Duration(0); ran < lasts; ran += time.Minute {
			s.pass(time.Minute)
		}
		s.succeed(job)
	}
}

func TestWhoIsDoneSoonestGoesFirst(t *testing.T) {
	for order, first := range map[cluster.QueueOrder]string{cluster.OrderFIFO: "long-9", cluster.OrderShortest: "short-9"} {
		s := newShop(order, cluster.PreemptLower)
		s.learn("short", 2*time.Minute)
		s.learn("long", 5*time.Hour)
		s.submit("busy")
		s.pass(time.Minute)
		s.submit("long-9")
		s.pass(time.Minute)
		s.submit("short-9")
		s.pass(time.Minute)
		s.succeed("busy")
		if !s.runs(first) {
			t.Errorf("order %s: %s is not first", order, first)
		}
	}
}

func TestWhatLastsLongerMakesRoomWhereTheQueueSaysSo(t *testing.T) {
	for within, evicts := range map[cluster.PreemptRule]bool{cluster.PreemptLower: false, cluster.PreemptNever: false, cluster.PreemptLonger: true} {
		s := newShop(cluster.OrderShortest, within)
		s.learn("short", 2*time.Minute)
		s.learn("long", 5*time.Hour)
		s.submit("long-9")
		s.pass(10 * time.Minute)
		s.submit("long-10")
		s.pass(10 * time.Minute)
		if !s.runs("long-9") {
			t.Fatalf("%s: a job makes room for one that is as long", within)
		}
		s.submit("short-9")
		s.pass(time.Minute)
		if s.runs("short-9") != evicts {
			t.Errorf("%s: the short one runs: %v", within, s.runs("short-9"))
		}
	}
}

// Where shorter jobs never cease to come, a long one still gets its turn, and keeps it.
func TestNoGangStarvesWhereTheShortestGoFirst(t *testing.T) {
	const limit = 2 * time.Hour
	waited := 0
	rapid.Check(t, func(t *rapid.T) {
		within := rapid.SampledFrom([]cluster.PreemptRule{cluster.PreemptLower, cluster.PreemptLonger}).Draw(t, "within")
		lasts := time.Duration(rapid.IntRange(5, 50).Draw(t, "lasts")) * time.Minute
		s := newShop(cluster.OrderShortest, within)
		s.learn("short", lasts)
		s.learn("long", limit)
		s.submit("short-start")
		s.plan()
		s.gangs["long/main"] = &cluster.Gang{
			Job: "long", Name: "main", Queue: "q", Owner: "ann", Attempt: 1, Revision: 1, Submitted: s.now, MaxRuntime: limit,
			Roles: []cluster.Role{{Name: "w", Count: 1, Ask: cluster.Ask{GPUs: 1}}},
		}
		s.Wait(scheduler.NewAsk(*s.gangs["long/main"]))
		came, current := s.now, "short-start"
		for i := 0; !s.runs("long"); i++ {
			if s.now-came > int64(24*time.Hour+33*limit) {
				t.Fatal("it has not run although it is due")
			}
			s.submit(fmt.Sprintf("short-%d", 100+i))
			s.pass(lasts)
			s.succeed(current)
			for job := range s.since { // one at most
				current = s.gangs[job].Job
			}
		}
		if s.now-came > int64(24*time.Hour) {
			waited++
			for i := range 10 {
				s.submit(fmt.Sprintf("short-late-%d", i))
				s.pass(5 * time.Minute)
			}
			if !s.runs("long") {
				t.Fatal("it was due, ran, and had to make room")
			}
		}
	})
	if waited == 0 {
		t.Error("it never had to wait for a day: the short ones did not press")
	}
}

func TestAQueueThatSaysLongerGoesByTheShortest(t *testing.T) {
	q := cluster.Queue{Name: "q", Weight: 1, Preempt: cluster.Preempt{Within: cluster.PreemptLonger}}
	if problems := q.Validate(); len(problems) == 0 {
		t.Error("longer is allowed in a queue that is first in, first out")
	}
	q.Order = cluster.OrderShortest
	if problems := q.Validate(); len(problems) != 0 {
		t.Errorf("%v", problems)
	}
}
