package scheduler_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler"
	"pgregory.net/rapid"
)

// rough is a play in which not all goes as planned: some of what is decided is refused, queues change, some never end, some must be
// near others or away from them, and at times more wait than room may be kept for.
type rough struct {
	script
	refuses int // each so many placements or evictions; 0 is none
	changes int // queues change before each so many scenes; 0 is never
	heads   int // of queues of their own that ask for all there is
}

func drawRough(t *rapid.T) rough {
	r := rough{script: drawScript(t), refuses: rapid.SampledFrom([]int{0, 2, 3, 5}).Draw(t, "refuses"), changes: rapid.IntRange(0, 3).Draw(t, "changes")}
	if rapid.IntRange(0, 19).Draw(t, "crowded") == 0 {
		r.heads = 70
	}
	for i := range r.queues {
		q := &r.queues[i]
		if rapid.IntRange(0, 4).Draw(t, "by model") == 0 {
			q.Borrow = q.Borrow.With(cluster.ResourceGPUs+"/A100", 1000*rapid.Int64Range(0, 4).Draw(t, "A100s"))
		}
		if rapid.IntRange(0, 4).Draw(t, "strict") == 0 {
			q.Backfill = cluster.BackfillNone
		}
	}
	for i := range r.scenes {
		c := &r.scenes[i]
		c.drain = ""
		c.gang.Labels = map[string]string{"team": rapid.SampledFrom([]string{"a", "b"}).Draw(t, "team")}
		if rapid.IntRange(0, 4).Draw(t, "endless") == 0 {
			c.lasts, c.gang.MaxRuntime, c.gang.Handover = forever, 0, rapid.Bool().Draw(t, "endpoint")
		}
		if rapid.IntRange(0, 4).Draw(t, "social") == 0 {
			c.gang.Roles[0].Affinities = []cluster.Affinity{{Label: "team", Value: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "other"), Anti: rapid.Bool().Draw(t, "anti")}}
		}
	}
	return r
}

// refuse takes what is refused out of a plan, and tells the planner so: of the gangs nothing is as it was but their revision.
func (r rough) refuse(w *world, plan cluster.Plan) cluster.Plan {
	deny := func(id string) bool {
		w.counted["decided"]++
		if r.refuses == 0 || w.counted["decided"]%r.refuses != 0 {
			return false
		}
		w.counted["refused"]++
		w.gangs[id].gang.Revision++
		return true
	}
	var again []*played
	var rooms [][]cluster.Allocation
	plan.Placements = slices.DeleteFunc(plan.Placements, func(p cluster.Placement) bool {
		if !deny(p.Gang) {
			return false
		}
		again, rooms = append(again, w.gangs[p.Gang]), append(rooms, p.Allocations)
		return true
	})
	plan.Evictions = slices.DeleteFunc(plan.Evictions, func(e cluster.Eviction) bool {
		if other := w.gangs[e.For]; !deny(e.Gang) || other == nil {
			return false
		}
		again, rooms = append(again, w.gangs[e.Gang]), append(rooms, nil)
		return true
	})
	w.after = func() {
		for i, p := range again {
			w.tell(p, rooms[i])
		}
	}
	return plan
}

// play plays it, and some hours more.
func (r rough) play(p planner, c *scheduler.Cluster, counted map[string]int) error {
	for i := range r.heads {
		r.queues = append(slices.Clip(r.queues), cluster.Queue{Name: fmt.Sprintf("h%02d", i), Weight: 1})
	}
	w := newWorld(p, r.nodes, r.queues)
	w.counted, w.filter = counted, r.refuse
	for i := range r.heads {
		g := gpuGang(fmt.Sprintf("h%02d", i), fmt.Sprintf("head-%02d", i), int32(len(r.nodes[0].Devices)), 1)
		w.submit(g, time.Minute)
		counted["heads"]++
	}
	for i, s := range r.scenes {
		if r.changes > 0 && i%r.changes == 0 {
			if err := w.reshape(r.queues, i); err != nil {
				return err
			}
		}
		w.submit(s.gang, s.lasts)
		if s.lasts == forever {
			counted["endless"]++
		}
		if err := w.rest(c, w.now+int64(s.wait)); err != nil {
			return err
		}
	}
	w.filter = nil
	if err := w.rest(c, w.now+int64(20*time.Hour)); err != nil {
		return err
	}
	return w.known(c)
}

// reshape gives the queues other weights.
func (w *world) reshape(queues []cluster.Queue, i int) error {
	queues = slices.Clone(queues)
	for j := range queues {
		queues[j].Weight = 1 + (queues[j].Weight+int32(i+j))%3
	}
	w.counted["reshaped"]++
	return w.planner.SetQueues(queues)
}

// rest plays until an instant. Whenever nothing more happens, nothing more is to be planned.
func (w *world) rest(c *scheduler.Cluster, until int64) error {
	for {
		for plans := 0; ; plans++ {
			before := w.counted["decided"] + w.counted["placed"] + w.counted["evicted"]
			if err := w.plan(); err != nil {
				return err
			}
			if err := w.social(); err != nil {
				return err
			}
			if !c.Pending() {
				break
			}
			if w.counted["decided"]+w.counted["placed"]+w.counted["evicted"] == before && plans > 3 {
				return fmt.Errorf("nothing comes of planning, and there is always more to plan")
			}
			if plans > 200 {
				return fmt.Errorf("200 plans at one instant")
			}
		}
		at, any := w.due()
		if !any || at > until {
			w.pass(until)
			return w.plan()
		}
		if !w.pass(at) {
			w.pass(min(until, max(at, w.now+1)))
		}
	}
}

// social checks that who must be away from others is.
func (w *world) social() error {
	for id, p := range w.gangs {
		for _, a := range p.gang.Roles[0].Affinities {
			if !a.Anti || !p.runs() {
				continue
			}
			w.counted["apart"]++
			for other, q := range w.gangs {
				if other != id && a.Matches(q.gang.Job, q.gang.Labels) && together(p.placed, q.placed) {
					return fmt.Errorf("%s runs beside %s, and must be away from it", id, other)
				}
			}
		}
	}
	return nil
}

func together(a, b []cluster.Allocation) bool {
	return slices.ContainsFunc(a, func(x cluster.Allocation) bool {
		return slices.ContainsFunc(b, func(y cluster.Allocation) bool { return x.Node == y.Node })
	})
}

// known is the law that nobody is forgotten: who does not run waits, and is known to.
func (w *world) known(c *scheduler.Cluster) error {
	for id, p := range w.gangs {
		if _, waits := c.Waiting(id); !waits && !p.runs() {
			return fmt.Errorf("%s is forgotten", id)
		}
		if !p.runs() {
			w.counted["left"]++
		}
	}
	return nil
}

func TestARoughWorldComesToRestAndKeepsDistance(t *testing.T) {
	counted := map[string]int{}
	check(t, 1, func(t *rapid.T) error {
		c := scheduler.New(scheduler.Options{})
		return drawRough(t).play(c, c, counted)
	})
	exercised(t, counted, "refused", "reshaped", "endless", "heads", "apart", "left", "evicted", "placed")
}

// deaf does not hear that a gang is at another revision.
type deaf struct{ *scheduler.Cluster }

func (m deaf) Wait(ask scheduler.Ask) { ask.Revision = 1; m.Cluster.Wait(ask) }

// faceless knows nobody's labels.
type faceless struct{ *scheduler.Cluster }

func (m faceless) Wait(ask scheduler.Ask) { ask.Labels = nil; m.Cluster.Wait(ask) }

func (m faceless) Run(r scheduler.Running) { r.Labels = nil; m.Cluster.Run(r) }

// restless has always something to do.
type restless struct{ *scheduler.Cluster }

func (m restless) Plan(now int64) cluster.Plan {
	plan := m.Cluster.Plan(now)
	_ = m.SetQueues(m.Queues.Queues())
	return plan
}

func TestTheRoughWorldCatchesWhoBreaksItsLaws(t *testing.T) {
	draws := rapid.Custom(drawRough)
	for name, mutant := range map[string]func(*scheduler.Cluster) planner{
		"refusals are not heard":   func(c *scheduler.Cluster) planner { return deaf{c} },
		"distance is not kept":     func(c *scheduler.Cluster) planner { return faceless{c} },
		"planning does not end":    func(c *scheduler.Cluster) planner { return restless{c} },
		"who comes is not noticed": func(c *scheduler.Cluster) planner { return &forgets{Cluster: c} },
	} {
		if !caught(func(seed int) error {
			c := scheduler.New(scheduler.Options{})
			return draws.Example(seed).play(mutant(c), c, map[string]int{})
		}) {
			t.Errorf("%s: nobody notices", name)
		}
	}
}
