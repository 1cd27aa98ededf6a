package scheduler_test

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler"
	"pgregory.net/rapid"
)

// script is a drawn play: a cluster, and gangs with the time that passes before each comes.
type script struct {
	nodes  []cluster.Node
	queues []cluster.Queue
	scenes []scene
}

type scene struct {
	gang  cluster.Gang
	lasts time.Duration
	wait  time.Duration
	drain string // a node that is to get nothing new from then on, or, if it drains, is ready again
}

func drawScript(t *rapid.T) script {
	var s script
	gpus := int32(0)
	for i := range rapid.IntRange(1, 4).Draw(t, "nodes") {
		n := machine(fmt.Sprint("n", i), 64, 256, rapid.IntRange(1, 8).Draw(t, "gpus"), rapid.SampledFrom([]string{"A100", "T4"}).Draw(t, "model"))
		n.Revision = uint64(i + 1)
		gpus += int32(len(n.Devices))
		s.nodes = append(s.nodes, n)
	}
	above := rapid.IntRange(0, 2).Draw(t, "above")
	for i := range above {
		q := drawQueue(t, fmt.Sprint("p", i), int64(gpus))
		q.Guarantee = cluster.Quota{{Resource: cluster.ResourceGPUs, Amount: 1000 * rapid.Int64Range(0, int64(gpus)/2).Draw(t, "guarantee above")}}
		s.queues = append(s.queues, q)
	}
	for i := range rapid.IntRange(1, 4).Draw(t, "queues") {
		q := drawQueue(t, fmt.Sprint("q", i), int64(gpus))
		if parent := rapid.IntRange(-1, above-1).Draw(t, "parent"); parent >= 0 {
			q.Parent = fmt.Sprint("p", parent)
			of := &s.queues[parent].Guarantee[0] // covers what those below it are guaranteed
			mine, _ := q.Guarantee.Of(of.Resource)
			of.Amount += mine
		}
		s.queues = append(s.queues, q)
	}
	for i := range rapid.IntRange(1, 14).Draw(t, "scenes") {
		s.scenes = append(s.scenes, drawScene(t, i, s, gpus, s.queues[above:]))
	}
	return s
}

func drawQueue(t *rapid.T, name string, gpus int64) cluster.Queue {
	q := cluster.Queue{
		Name: name, Weight: rapid.Int32Range(1, 3).Draw(t, "weight"),
		Backfill: rapid.SampledFrom([]cluster.Backfill{"", cluster.BackfillConservative}).Draw(t, "backfill"),
		Preempt:  cluster.Preempt{Fair: rapid.SampledFrom([]cluster.PreemptRule{"", cluster.PreemptAny, cluster.PreemptLower}).Draw(t, "fair")},
	}
	if rapid.Bool().Draw(t, "guaranteed") {
		q.Guarantee = q.Guarantee.With(cluster.ResourceGPUs, 1000*rapid.Int64Range(1, max(1, gpus/4)).Draw(t, "guarantee"))
	}
	if rapid.IntRange(0, 3).Draw(t, "limited") == 0 {
		q.Borrow = q.Borrow.With(cluster.ResourceGPUs, 1000*rapid.Int64Range(0, gpus).Draw(t, "borrow"))
	}
	if rapid.IntRange(0, 5).Draw(t, "few") == 0 {
		q.MaxRunning = rapid.Int32Range(1, 3).Draw(t, "max running")
	}
	return q
}

func drawScene(t *rapid.T, i int, s script, gpus int32, queues []cluster.Queue) scene {
	c := scene{
		wait:  time.Duration(rapid.IntRange(0, 20).Draw(t, "wait")) * 20 * time.Second,
		lasts: time.Duration(rapid.IntRange(1, 60).Draw(t, "lasts")) * time.Minute,
	}
	per := rapid.Int32Range(1, 4).Draw(t, "per task")
	g := gpuGang(rapid.SampledFrom(queues).Draw(t, "queue").Name, fmt.Sprintf("job-%02d", i), rapid.Int32Range(1, max(1, min(6, gpus/per))).Draw(t, "tasks"), per)
	g.Priority = rapid.Int32Range(0, 2).Draw(t, "priority")
	g.NonPreemptible = rapid.IntRange(0, 9).Draw(t, "fixed") == 0
	if rapid.Bool().Draw(t, "known") {
		g.MaxRuntime = c.lasts
	}
	g.Roles[0].Program.Checkpoints = rapid.IntRange(0, 3).Draw(t, "resumes") > 0
	if rapid.IntRange(0, 3).Draw(t, "elastic") == 0 {
		g.Roles[0].Min = rapid.Int32Range(1, g.Roles[0].Count).Draw(t, "least")
	}
	if rapid.IntRange(0, 5).Draw(t, "modelled") == 0 {
		g.Roles[0].Ask.GPUModel = rapid.SampledFrom([]string{"A100", "T4"}).Draw(t, "ask model")
	}
	if rapid.IntRange(0, 14).Draw(t, "drains") == 0 {
		c.drain = rapid.SampledFrom(s.nodes).Draw(t, "drained").ID
	}
	c.gang = g
	return c
}

// play plays a script until nothing happens any more, at most so many steps, with a look after every plan.
func play(s script, p planner, counted map[string]int, look func(*world) error) (*world, error) {
	w := newWorld(p, s.nodes, s.queues)
	w.counted = counted
	step := func() error {
		if err := w.plan(); err != nil {
			return err
		}
		return look(w)
	}
	until := func(instant int64) error {
		for steps := 0; ; steps++ {
			if err := step(); err != nil {
				return err
			}
			at, any := w.due()
			if !any || at > instant {
				return nil
			}
			if steps > 3000 {
				return fmt.Errorf("after %d steps it is not done: %d gangs are left", steps, len(w.gangs))
			}
			if at == w.now && !w.pass(at) {
				at++
			}
			w.pass(at)
		}
	}
	for _, c := range s.scenes {
		if err := until(w.now + int64(c.wait)); err != nil {
			return w, err
		}
		w.pass(w.now + int64(c.wait))
		if n, any := w.nodes[c.drain]; any {
			if n.State = cluster.NodeDraining; w.nodes[c.drain].State == cluster.NodeDraining {
				n.State = cluster.NodeReady
			}
			w.nodes[c.drain] = n
			p.SetNode(n, w.used(c.drain))
		}
		w.submit(c.gang, c.lasts)
	}
	return w, until(math.MaxInt64)
}

func newCluster() planner { return scheduler.New(scheduler.Options{}) }

// sound is the law that nothing is sold twice, no gang is placed by halves and no quota is broken: the world's books
// refuse all of these. And work is conserved: whoever waits and is admitted finds no room.
func sound(s script, p planner, c *scheduler.Cluster, counted map[string]int) error {
	_, err := play(s, p, counted, func(w *world) error { return conserved(w, c) })
	return err
}

func conserved(w *world, c *scheduler.Cluster) error {
	var asks []scheduler.Ask
	for _, id := range w.waits() {
		asks = append(asks, scheduler.NewAsk(w.gangs[id].gang))
	}
	closed := map[string]bool{} // who has waited for long for a limit keeps others from what it waits for, until it has room, too
	denied := map[string]bool{}
	for _, ask := range asks {
		if block, ok := c.Queues.Admit(c.Claim(ask, ask.Needs().Least())); !ok {
			w.counted["denied"]++
			denied[ask.ID] = true
			if p := w.gangs[ask.ID]; block.Asked <= block.Most && w.now-p.came >= int64(scheduler.DefaultPatience) {
				p.closes[block.Queue] = true
			}
		}
		maps.Copy(closed, w.gangs[ask.ID].closes)
	}
	for _, ask := range asks {
		id, size := ask.ID, ask.Needs().Least()
		if denied[id] {
			continue
		}
		if slices.ContainsFunc(slices.Collect(maps.Values(w.gangs)), func(p *played) bool { return p.ends > 0 && p.gang.For == id }) {
			w.counted["awaits"]++
			continue // others are about to make room for it, or to leave it what its queue may hold
		}
		if closed[""] || slices.ContainsFunc(slices.Collect(maps.Keys(closed)), func(name string) bool { return w.below(ask.Queue, name) }) {
			w.counted["closed"]++
			continue
		}
		m := c.Room.Clone() // what is kept for others is not free
		m.Unpin(id)
		if allocations, _ := m.Take(size.Shape); allocations != nil && c.Allows(ask, allocations) {
			return fmt.Errorf("%s waits, though it finds room: %v", id, allocations)
		}
		w.counted["no room"]++
	}
	return nil
}

func check(t *testing.T, times int, law func(t *rapid.T) error) {
	t.Helper()
	for range times {
		rapid.Check(t, func(t *rapid.T) {
			if err := law(t); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func exercised(t *testing.T, counted map[string]int, things ...string) {
	t.Helper()
	for _, thing := range things {
		if counted[thing] == 0 {
			t.Errorf("%q was never exercised: %v", thing, counted)
		}
	}
	t.Log(counted)
}

func TestClusterSellsNothingTwiceAndKeepsWorkAndQuotas(t *testing.T) {
	counted := map[string]int{}
	check(t, 12, func(t *rapid.T) error {
		c := scheduler.New(scheduler.Options{})
		return sound(drawScript(t), c, c, counted)
	})
	exercised(t, counted, "placed", "evicted", "came back", "ended", "limited", "denied", "no room", "elastic", "smaller", "resized")
}

func TestClusterGivesTheSameQuestionTheSamePlan(t *testing.T) {
	counted := map[string]int{}
	check(t, 10, func(t *rapid.T) error {
		return same(drawScript(t), newCluster(), newCluster(), counted)
	})
	exercised(t, counted, "placed", "evicted", "resized")
}

// same is the law that two planners who are told the same say the same.
func same(s script, one, two planner, counted map[string]int) error {
	_, err := play(s, &twins{planner: one, other: two}, counted, func(w *world) error {
		return w.planner.(*twins).err
	})
	return err
}

// twins ask two planners everything, the second of them in another order where that must not matter.
type twins struct {
	planner
	other planner
	err   error
}

func (t *twins) SetNode(n cluster.Node, used cluster.Resources) {
	t.planner.SetNode(n, used)
	n.Devices = slices.Clone(n.Devices)
	slices.Reverse(n.Devices)
	n.Revision = 0
	t.other.SetNode(n, used)
}

func (t *twins) SetQueues(queues []cluster.Queue) error {
	reversed := slices.Clone(queues)
	slices.Reverse(reversed)
	_ = t.other.SetQueues(reversed)
	return t.planner.SetQueues(queues)
}

func (t *twins) Wait(ask scheduler.Ask)  { t.planner.Wait(ask); t.other.Wait(ask) }
func (t *twins) Run(r scheduler.Running) { t.planner.Run(r); t.other.Run(r) }
func (t *twins) Drop(id string)          { t.planner.Drop(id); t.other.Drop(id) }

func (t *twins) Plan(now int64) cluster.Plan {
	plan, again := t.planner.Plan(now), t.other.Plan(now)
	if fmt.Sprint(plan) != fmt.Sprint(again) {
		t.err = fmt.Errorf("the same question got two plans:\n%v\n%v", plan, again)
	}
	return plan
}

// endless is a script whose gangs never end by themselves.
func endless(s script) script {
	s.scenes = slices.Clone(s.scenes)
	for i := range s.scenes {
		s.scenes[i].lasts, s.scenes[i].gang.MaxRuntime = 1e6*time.Hour, 0
		s.scenes[i].drain = ""
	}
	return s
}

// settles is the law that preemption never goes in circles: when nobody comes and nobody ends, those who were
// stopped for others and come back do not have others stopped in turn forever, and it comes to rest what is kept for whom. All is quiet after no more evictions than
// there are gangs, squared, and in the second half of 1,000 hours: what is kept below what never ends rests now and then, for twice as long
// each time, and what went in circles with that would still do so in the longest of these rests.
func settles(s script, p planner, counted map[string]int) error {
	w := newWorld(p, s.nodes, s.queues)
	w.counted = counted
	for _, c := range s.scenes {
		if err := w.plan(); err != nil {
			return err
		}
		w.submit(c.gang, c.lasts)
		w.pass(w.now + int64(c.wait))
	}
	evicted, quiet, plans := counted["evicted"], w.now, counted["plans"]
	before := evicted
	for horizon := w.now + int64(1000*time.Hour); w.now < horizon; {
		if err := w.plan(); err != nil {
			return err
		}
		if n := counted["evicted"] - evicted; n > len(s.scenes)*len(s.scenes) {
			return fmt.Errorf("%d gangs, %d evictions, and no end of it", len(s.scenes), n)
		} else if counted["plans"]-plans > 5_000 {
			return fmt.Errorf("by %s it has planned 5,000 times", time.Duration(w.now))
		} else if counted["evicted"] > before {
			before, quiet = counted["evicted"], w.now
		}
		at, any := w.due()
		if !any || at > horizon {
			break
		}
		if !w.pass(at) {
			w.pass(w.now + int64(time.Second))
		}
	}
	if quiet > int64(500*time.Hour) {
		return fmt.Errorf("after %s it still goes on", time.Duration(quiet))
	}
	if counted["evicted"] > evicted {
		counted["settled"]++
	}
	return nil
}

func TestPreemptionNeverGoesInCircles(t *testing.T) {
	counted := map[string]int{}
	check(t, 10, func(t *rapid.T) error { return settles(endless(drawScript(t)), newCluster(), counted) })
	exercised(t, counted, "evicted", "came back", "settled", "resized")
}

// drawFlood draws a cluster that is full of small gangs, of one queue or several, and keeps being so: the next comes before the
// last one ends. Into that comes one large one.
type flood struct {
	nodes    []cluster.Node
	queues   []cluster.Queue
	small    []scene
	large    cluster.Gang
	at       int // it comes after so many
	longest  time.Duration
	patience time.Duration
}

func drawFlood(t *rapid.T) flood {
	f := flood{nodes: racks(rapid.IntRange(1, 3).Draw(t, "nodes"), rapid.SampledFrom([]int{2, 4}).Draw(t, "gpus")), patience: scheduler.DefaultPatience}
	for i := range rapid.IntRange(1, 3).Draw(t, "queues") {
		f.queues = append(f.queues, cluster.Queue{
			Name: fmt.Sprint("q", i), Weight: rapid.Int32Range(1, 2).Draw(t, "weight"),
			Backfill: rapid.SampledFrom([]cluster.Backfill{cluster.BackfillEasy, cluster.BackfillConservative, cluster.BackfillNone}).Draw(t, "backfill"),
		})
	}
	known := rapid.SampledFrom([]int{0, 1, 2}).Draw(t, "limits known") // of none, some, all
	gpus := len(f.nodes) * len(f.nodes[0].Devices)
	for i := range 12 * gpus {
		lasts := time.Duration(rapid.IntRange(1, 20).Draw(t, "lasts")) * time.Minute
		g := gpuGang(rapid.SampledFrom(f.queues).Draw(t, "queue").Name, fmt.Sprintf("s%03d", i), 1, 1)
		if known == 2 || known == 1 && rapid.Bool().Draw(t, "known") {
			g.MaxRuntime = lasts
		}
		f.longest = max(f.longest, lasts)
		f.small = append(f.small, scene{gang: g, lasts: lasts, wait: lasts / time.Duration(gpus+1)})
	}
	f.at = rapid.IntRange(0, gpus).Draw(t, "after")
	f.large = gpuGang(rapid.SampledFrom(f.queues).Draw(t, "of").Name, "large", int32(len(f.nodes)), int32(len(f.nodes[0].Devices)))
	return f
}

// starves is the law that a gang that fits the empty cluster starts after so many have ended that came before it or
// that had begun when room began to be kept for it, whatever comes after it: here within its patience and two times the longest of
// the others, and what those take that came before it.
func (f flood) starves(p planner, counted map[string]int) error {
	w := newWorld(p, f.nodes, f.queues)
	w.counted = counted
	came, promised := int64(0), f.patience+3*f.longest
	for i, c := range f.small {
		if i == f.at {
			for _, id := range w.waits() { // they go first
				promised += time.Duration(w.gangs[id].lasts)
			}
			came = w.now
			w.submit(f.large, time.Hour)
		}
		w.submit(c.gang, c.lasts)
		for until := w.now + int64(c.wait); ; {
			if err := w.plan(); err != nil {
				return err
			}
			if large := w.gangs["large/main"]; large != nil && large.runs() {
				counted["started"]++
				if large.started > came+int64(f.patience) {
					counted["late"]++
				}
				return nil
			}
			at, any := w.due()
			if !any || at >= until {
				w.pass(until)
				break
			}
			if !w.pass(at) {
				w.pass(min(until, w.now+1))
			}
		}
		if came > 0 && w.now > came+int64(promised) {
			return fmt.Errorf("it waits for %s, %s were promised", time.Duration(w.now-came), promised)
		}
	}
	counted["too short"]++
	return nil
}

func TestNoGangStarvesUnderAnyArrivals(t *testing.T) {
	counted := map[string]int{}
	check(t, 3, func(t *rapid.T) error { return drawFlood(t).starves(newCluster(), counted) })
	exercised(t, counted, "started", "late")
	if counted["too short"] > counted["started"] {
		t.Errorf("most plays end before the promise does: %v", counted)
	}
}
