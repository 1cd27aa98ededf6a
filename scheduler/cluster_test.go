package scheduler_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler"
)

// stage is a world with a Cluster for one test.
type stage struct {
	*world
	t *testing.T
}

func newStage(t *testing.T, nodes []cluster.Node, queues ...cluster.Queue) *stage {
	return &stage{newWorld(scheduler.New(scheduler.Options{}), nodes, queues), t}
}

func racks(nodes, gpus int) []cluster.Node {
	var all []cluster.Node
	for i := range nodes {
		all = append(all, machine(fmt.Sprintf("n%d", i), 64, 256, gpus, "A100"))
	}
	return all
}

// gpuGang has tasks with a number of GPUs each.
func gpuGang(queue, job string, tasks, gpus int32) cluster.Gang {
	g := gang(job, tasks, cluster.Ask{GPUs: gpus})
	g.Queue, g.Owner = queue, "ann"
	return g
}

func with(g cluster.Gang, change func(*cluster.Gang)) cluster.Gang {
	change(&g)
	return g
}

func limit(d time.Duration) func(*cluster.Gang) { return func(g *cluster.Gang) { g.MaxRuntime = d } }

func (s *stage) step() {
	s.t.Helper()
	if err := s.plan(); err != nil {
		s.t.Fatal(err)
	}
}

// after lets time pass, with all that happens meanwhile.
func (s *stage) after(d time.Duration) {
	s.t.Helper()
	until := s.now + int64(d)
	for {
		s.step()
		at, any := s.due()
		if !any || at > until {
			break
		}
		if at == s.now {
			at++
		}
		s.pass(at)
	}
	s.pass(until)
	s.step()
}

// where lists on which nodes a job's tasks are, and "" if it waits.
func (s *stage) where(job string) string {
	p := s.gangs[job+"/main"]
	if p == nil {
		return "done"
	}
	var nodes []string
	for _, a := range p.placed {
		nodes = append(nodes, a.Node)
	}
	slices.Sort(nodes)
	return strings.Join(nodes, " ")
}

func (s *stage) expect(job, where string) {
	s.t.Helper()
	if got := s.where(job); got != where {
		s.t.Fatalf("%s is at %q, want %q", job, got, where)
	}
}

func TestTheQueueWithLessGoesFirst(t *testing.T) {
	s := newStage(t, racks(1, 4), cluster.Queue{Name: "a", Weight: 1}, cluster.Queue{Name: "b", Weight: 1})
	for i := range 4 {
		s.submit(gpuGang("a", fmt.Sprint("a", i), 1, 1), time.Hour)
		s.submit(gpuGang("b", fmt.Sprint("b", i), 1, 1), time.Hour)
	}
	s.step()
	for _, job := range []string{"a0", "a1", "b0", "b1"} {
		s.expect(job, "n0")
	}
	s.expect("a2", "")
}

func TestAnUrgentGangHasTheCheapestOneStop(t *testing.T) {
	s := newStage(t, racks(2, 4), cluster.Queue{Name: "q", Weight: 1})
	s.submit(gpuGang("q", "old", 1, 4), 10*time.Hour)
	s.after(time.Hour)
	s.submit(gpuGang("q", "new", 1, 4), 10*time.Hour)
	s.after(30 * time.Minute)
	s.submit(with(gpuGang("q", "urgent", 1, 4), func(g *cluster.Gang) { g.Priority = 1 }), time.Hour)
	s.step()
	if s.gangs["new/main"].ends == 0 || s.gangs["old/main"].ends > 0 {
		t.Fatal("it is not the younger one that makes room")
	}
	s.submit(gpuGang("q", "thief", 1, 4), time.Minute)
	s.after(11 * time.Second)
	s.expect("urgent", "n1")
	s.expect("thief", "")
	s.expect("new", "")
	s.after(2 * time.Hour)
	s.expect("new", "n1")
}

func TestNothingIsStoppedThatStartedAMomentAgo(t *testing.T) {
	s := newStage(t, racks(1, 4), cluster.Queue{Name: "q", Weight: 1})
	s.submit(gpuGang("q", "young", 1, 4), 10*time.Hour)
	s.step()
	s.submit(with(gpuGang("q", "urgent", 1, 4), func(g *cluster.Gang) { g.Priority = 1 }), time.Hour)
	s.after(cluster.DefaultMinRuntime - time.Second)
	if s.gangs["young/main"].ends > 0 {
		t.Fatal("it is told to stop after less than a minute")
	}
	s.after(20 * time.Second) // without an event: the Cluster asks to be called
	s.expect("urgent", "n0")
}

func TestAQueueGetsItsGuaranteeBack(t *testing.T) {
	half := cluster.Quota{{Resource: cluster.ResourceGPUs, Amount: 4000}}
	s := newStage(t, racks(2, 4), cluster.Queue{Name: "a", Weight: 1, Guarantee: half}, cluster.Queue{Name: "b", Weight: 1, Guarantee: half})
	for i := range 8 {
		s.submit(gpuGang("b", fmt.Sprint("b", i), 1, 1), 10*time.Hour)
	}
	s.after(time.Hour)
	s.submit(gpuGang("a", "mine", 1, 3), time.Hour)
	s.submit(gpuGang("a", "more", 1, 2), time.Hour)
	s.after(time.Minute)
	if got := s.counted["evicted"]; got != 3 {
		t.Fatalf("%d gangs make room for one with 3 GPUs", got)
	}
	if s.where("mine") == "" || s.where("more") != "" {
		t.Errorf("mine is at %q, more at %q: it has 4 GPUs guaranteed", s.where("mine"), s.where("more"))
	}
}

// What a guarantee does not name, the cores and memory of a GPU job, takes nothing of it away.
func TestAGuaranteeOfGPUsIsForJobsThatTakeCoresToo(t *testing.T) {
	half := cluster.Quota{{Resource: cluster.ResourceGPUs, Amount: 4000}}
	s := newStage(t, racks(1, 8), cluster.Queue{Name: "a", Weight: 1, Guarantee: half}, cluster.Queue{Name: "b", Weight: 1, Guarantee: half})
	cores := func(g cluster.Gang) cluster.Gang {
		g.Roles[0].Ask.MilliCPU, g.Roles[0].Ask.Memory = 100, 1<<20
		return g
	}
	for i := range 4 {
		s.submit(cores(gpuGang("b", fmt.Sprint("b", i), 1, 2)), 10*time.Hour)
	}
	s.after(time.Hour)
	s.submit(cores(gpuGang("a", "mine", 1, 4)), time.Hour)
	s.after(time.Minute)
	if got := s.counted["evicted"]; got != 2 || s.where("mine") == "" {
		t.Errorf("%d gangs made room, and it is at %q", got, s.where("mine"))
	}
}

// The heads want more than is guaranteed, so they have nobody stop. That does not use up what the queue may have others do.
func TestHeadsThatMayStopNobodyLeaveTheRightToThoseBehind(t *testing.T) {
	half := cluster.Quota{{Resource: cluster.ResourceGPUs, Amount: 4000}}
	s := newStage(t, racks(1, 8), cluster.Queue{Name: "a", Weight: 1, Guarantee: half}, cluster.Queue{Name: "b", Weight: 1})
	for i := range 8 {
		s.submit(gpuGang("b", fmt.Sprint("b", i), 1, 1), 1000*time.Hour)
	}
	s.after(time.Hour)
	for i := range int32(8) {
		s.submit(gpuGang("a", fmt.Sprint("head", i), 1, 5+i%4), time.Hour)
	}
	s.now++
	s.submit(gpuGang("a", "entitled", 1, 4), time.Hour)
	s.after(time.Minute)
	s.expect("entitled", "n0")
}

func TestALargeGangIsNotStarvedBySmallOnes(t *testing.T) {
	for _, known := range []bool{true, false} {
		s := newStage(t, racks(4, 8), cluster.Queue{Name: "q", Weight: 1})
		small := func(i int) cluster.Gang {
			g := gpuGang("q", fmt.Sprint("s", i), 1, 1)
			if known {
				g.MaxRuntime = 20 * time.Minute
			}
			return g
		}
		for i := range 32 {
			s.submit(small(i), 20*time.Minute)
		}
		s.after(time.Minute)
		s.submit(gpuGang("q", "big", 4, 8), time.Hour)
		for i := range 40 { // one more every half minute
			s.submit(small(100+i), 20*time.Minute)
			s.after(30 * time.Second)
		}
		if want := "n0 n1 n2 n3"; s.where("big") != want {
			t.Errorf("limits known: %v: after 20 minutes it is at %q", known, s.where("big"))
		}
	}
}

func TestShortJobsGoAroundTheRoomThatIsKept(t *testing.T) {
	s := newStage(t, racks(2, 8), cluster.Queue{Name: "q", Weight: 1})
	s.submit(with(gpuGang("q", "first", 1, 8), limit(time.Hour)), time.Hour)
	s.submit(with(gpuGang("q", "other", 1, 4), limit(10*time.Hour)), 10*time.Hour)
	s.step()
	s.submit(with(gpuGang("q", "big", 1, 8), limit(time.Hour)), time.Hour) // can start when first ends
	s.submit(with(gpuGang("q", "beside", 1, 4), limit(5*time.Hour)), 5*time.Hour)
	s.step()
	s.expect("first", "n0")
	s.expect("beside", "n1") // on a node that big does not wait for
	s.after(time.Hour + time.Second)
	s.expect("big", "n0")
}

func TestWhatIsDoneInTimeMayUseRoomThatIsKept(t *testing.T) {
	s := newStage(t, racks(1, 8), cluster.Queue{Name: "q", Weight: 1})
	s.submit(with(gpuGang("q", "first", 1, 4), limit(time.Hour)), time.Hour)
	s.step()
	s.submit(with(gpuGang("q", "big", 1, 8), limit(time.Hour)), time.Hour)
	s.submit(with(gpuGang("q", "long", 1, 4), limit(2*time.Hour)), 2*time.Hour)
	s.submit(with(gpuGang("q", "short", 1, 2), limit(59*time.Minute)), 59*time.Minute)
	s.submit(gpuGang("q", "unknown", 1, 2), time.Minute)
	s.step()
	s.expect("short", "n0")
	s.expect("long", "")
	s.expect("unknown", "")
	s.after(time.Hour + time.Second)
	s.expect("big", "n0")
}

func TestNothingOvertakesWhereAQueueSaysSo(t *testing.T) {
	s := newStage(t, racks(1, 8), cluster.Queue{Name: "q", Weight: 1, Backfill: cluster.BackfillNone}, cluster.Queue{Name: "other", Weight: 1})
	s.submit(gpuGang("q", "first", 1, 4), time.Hour)
	s.step()
	s.submit(gpuGang("q", "big", 1, 8), time.Hour)
	s.submit(gpuGang("q", "small", 1, 1), time.Hour)
	s.submit(gpuGang("other", "others", 1, 1), time.Hour)
	s.step()
	s.expect("small", "")
	s.expect("others", "n0")
}

func TestConservativeBackfillKeepsRoomForMoreThanTheFirst(t *testing.T) {
	for _, mode := range []cluster.Backfill{cluster.BackfillEasy, cluster.BackfillConservative} {
		s := newStage(t, racks(2, 8), cluster.Queue{Name: "q", Weight: 1, Backfill: mode})
		s.submit(with(gpuGang("q", "one", 1, 8), limit(time.Hour)), time.Hour)
		s.submit(with(gpuGang("q", "two", 1, 6), limit(2*time.Hour)), 2*time.Hour)
		s.step()
		s.submit(with(gpuGang("q", "big1", 1, 8), limit(5*time.Hour)), 5*time.Hour) // on n0 in an hour
		s.submit(with(gpuGang("q", "big2", 1, 8), limit(5*time.Hour)), 5*time.Hour) // on n1 in two
		s.submit(with(gpuGang("q", "late", 1, 2), limit(3*time.Hour)), 3*time.Hour) // would delay big2
		s.step()
		if got, want := s.where("late"), map[cluster.Backfill]string{cluster.BackfillEasy: "n1"}[mode]; got != want {
			t.Errorf("%s: late is at %q, want %q", mode, got, want)
		}
	}
}

func elastic(g cluster.Gang, least int32) cluster.Gang {
	g.Roles[0].Min, g.Roles[0].Program.Checkpoints = least, true
	return g
}

func TestAnElasticGangTakesWhatThereIs(t *testing.T) {
	s := newStage(t, racks(1, 8), cluster.Queue{Name: "q", Weight: 1})
	s.submit(gpuGang("q", "first", 1, 3), time.Hour)
	s.step()
	s.submit(elastic(gpuGang("q", "e", 8, 1), 2), 10*time.Hour)
	s.step()
	s.expect("e", strings.TrimSpace(strings.Repeat("n0 ", 5)))
	s.after(50 * time.Minute) // it has no checkpoint: growing loses more than it brings
	s.expect("e", strings.TrimSpace(strings.Repeat("n0 ", 5)))
}

func TestAnElasticGangShrinksBeforeOthersStop(t *testing.T) {
	s := newStage(t, racks(2, 8), cluster.Queue{Name: "q", Weight: 1})
	s.submit(elastic(gpuGang("q", "e", 8, 1), 2), 10*time.Hour)
	s.submit(gpuGang("q", "fixed", 1, 8), 10*time.Hour)
	s.after(time.Hour)
	s.submit(with(gpuGang("q", "urgent", 1, 4), func(g *cluster.Gang) { g.Priority = 1 }), time.Hour)
	s.after(15 * time.Second)
	if s.where("urgent") == "" || s.where("e") == "" || s.where("fixed") == "" {
		t.Fatalf("urgent at %q, e at %q, fixed at %q", s.where("urgent"), s.where("e"), s.where("fixed"))
	}
	if got := len(s.gangs["e/main"].placed); got != 4 || s.counted["resized"] != 1 {
		t.Errorf("it goes on with %d tasks, %d resizes: 4 have room", got, s.counted["resized"])
	}
}

func TestAnElasticGangGrowsIntoAPartOfWhatItMayHave(t *testing.T) {
	s := newStage(t, racks(1, 8), cluster.Queue{Name: "q", Weight: 1})
	s.submit(gpuGang("q", "fixed", 1, 5), 3*time.Minute)
	s.step()
	s.submit(elastic(gpuGang("q", "wide", 16, 1), 2), 10*time.Hour)
	s.after(time.Hour)
	if n := len(s.gangs["wide/main"].placed); n != 8 {
		t.Errorf("it has %d tasks of 2 to 16, and 8 GPUs are idle", n)
	}
}

func TestAnElasticGangGrowsIntoWhatIsIdle(t *testing.T) {
	s := newStage(t, racks(1, 8), cluster.Queue{Name: "q", Weight: 1})
	s.submit(gpuGang("q", "first", 1, 6), 2*time.Minute)
	s.step()
	s.submit(elastic(gpuGang("q", "e", 8, 1), 2), 10*time.Hour)
	s.after(time.Minute)
	if got := len(s.gangs["e/main"].placed); got != 2 {
		t.Fatalf("it has %d tasks beside first", got)
	}
	s.after(2 * time.Minute)
	if got := len(s.gangs["e/main"].placed); got != 8 {
		t.Errorf("it has %d tasks of 8, with all else idle", got)
	}
}

func TestAnEventWithNothingToDoPlansNothing(t *testing.T) {
	c := scheduler.New(scheduler.Options{})
	for _, n := range racks(2, 8) {
		c.SetNode(n, cluster.Resources{})
	}
	c.Plan(1)
	if c.Pending() {
		t.Error("there is something to plan")
	}
	if _, any := c.Next(); any {
		t.Error("it asks to be called for nothing")
	}
	held := gpuGang("q", "held", 1, 1)
	held.Held, held.Revision = true, 1
	c.Wait(scheduler.NewAsk(held))
	if c.Pending() {
		t.Error("a held gang is to be planned")
	}
}
