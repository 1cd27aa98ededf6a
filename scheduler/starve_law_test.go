package scheduler_test

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"pgregory.net/rapid"
)

// siege is a cluster in which some gangs never end, queues have limits, of their own and together, and small gangs come without end: each
// queue always has some that wait. Into that come large ones, some of which can never have what they need beside those that do not end.
type siege struct {
	nodes   []cluster.Node
	queues  []cluster.Queue
	servers []scene
	large   []scene
	small   map[string][]scene // by queue, over and over
	crowd   int                // so many small ones of a queue wait
}

func drawSiege(t *rapid.T) siege {
	s := siege{
		nodes: racks(rapid.IntRange(1, 3).Draw(t, "nodes"), rapid.SampledFrom([]int{2, 4}).Draw(t, "gpus")),
		crowd: rapid.IntRange(1, 3).Draw(t, "crowd"), small: map[string][]scene{},
	}
	per := len(s.nodes[0].Devices)
	gpus := int64(len(s.nodes) * per)
	limits := func(q *cluster.Queue) {
		if rapid.IntRange(0, 2).Draw(t, "limited") > 0 {
			q.Borrow = gpuQuota(rapid.Int64Range(1, gpus).Draw(t, "limit"))
		}
		if rapid.IntRange(0, 3).Draw(t, "firm") == 0 {
			q.Unpreemptible = gpuQuota(rapid.Int64Range(1, gpus).Draw(t, "limit of what nobody may preempt"))
		}
	}
	parent := ""
	if rapid.Bool().Draw(t, "together") {
		parent = "lab"
		lab := cluster.Queue{Name: parent, Weight: 1}
		limits(&lab)
		s.queues = append(s.queues, lab)
	}
	var leaves []string
	for i := range rapid.IntRange(1, 4).Draw(t, "queues") {
		q := cluster.Queue{
			Name: fmt.Sprint("q", i), Weight: rapid.Int32Range(1, 2).Draw(t, "weight"),
			Backfill: rapid.SampledFrom([]cluster.Backfill{cluster.BackfillEasy, cluster.BackfillConservative, cluster.BackfillNone}).Draw(t, "backfill"),
		}
		if rapid.Bool().Draw(t, "of the lab") {
			q.Parent = parent
		}
		limits(&q)
		leaves = append(leaves, q.Name)
		s.queues = append(s.queues, q)
	}
	lasts := func(g *cluster.Gang) time.Duration {
		d := time.Duration(rapid.IntRange(5, 40).Draw(t, "lasts")) * time.Minute
		g.NonPreemptible = rapid.IntRange(0, 2).Draw(t, "preemptible") == 0
		if rapid.Bool().Draw(t, "known") {
			g.MaxRuntime = d
		}
		return d
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "servers") {
		g := gpuGang(rapid.SampledFrom(leaves).Draw(t, "server of"), fmt.Sprint("server-", i), 1, rapid.Int32Range(1, int32(per)).Draw(t, "server's"))
		g.Handover, g.NonPreemptible = rapid.Bool().Draw(t, "endpoint"), rapid.IntRange(0, 2).Draw(t, "preemptible") == 0
		s.servers = append(s.servers, scene{gang: g, lasts: forever, wait: time.Duration(rapid.IntRange(0, 90).Draw(t, "wait")) * time.Minute})
	}
	for i := range rapid.IntRange(1, 4).Draw(t, "large") {
		g := gpuGang(
			rapid.SampledFrom(leaves).Draw(t, "of"), fmt.Sprint("large-", i),
			rapid.Int32Range(1, int32(len(s.nodes))).Draw(t, "tasks"), rapid.Int32Range(1, int32(per)).Draw(t, "per task"),
		)
		s.large = append(s.large, scene{gang: g, lasts: lasts(&g), wait: time.Duration(rapid.IntRange(0, 90).Draw(t, "wait")) * time.Minute})
		s.large[i].gang = g
	}
	for _, q := range leaves {
		for range rapid.IntRange(1, 4).Draw(t, "kinds") {
			g := gpuGang(q, "", 1, 1)
			d := lasts(&g)
			s.small[q] = append(s.small[q], scene{gang: g, lasts: d})
		}
	}
	return s
}

// endures is the law that no gang starves, whatever comes later: who is the first of its queue and would be admitted and find room if all had
// ended that ever ends starts within a bound, counted from when it was the first and the last one that never ends had begun: in twice the time that
// the world is old, 16 hours until what does not say when it ends is taken for what never does, and as many for it and each that can never start, since in turn
// things are kept for those, too, in longer and longer spells.
func (s siege) endures(p planner, counted map[string]int) error {
	w := newWorld(p, s.nodes, s.queues)
	w.counted = counted
	came, firsts, endless := map[string]int{}, map[string]turn{}, 0
	last, late := w.now, w.now // when the last came that is not small, and when somebody was late
	for scenes := slices.Concat(s.servers, s.large); len(scenes) > 0 || w.now < min(late+int64(6*time.Hour), last+int64(200*time.Hour)); {
		next := w.now + int64(time.Hour)
		if len(scenes) > 0 {
			last, next = w.now, w.now+int64(scenes[0].wait)
			late = last
		}
		for {
			if err := w.plan(); err != nil {
				return err
			}
			for s.arrive(w, came) {
				if err := w.plan(); err != nil {
					return err
				}
			}
			if n := w.endless(); n != endless {
				endless = n
				clear(firsts)
			}
			if waits, err := s.look(w, firsts); err != nil {
				return err
			} else if waits {
				late = w.now
			}
			at, any := w.due()
			if !any || at >= next {
				w.pass(next)
				break
			}
			if !w.pass(at) {
				w.pass(min(next, max(at, w.now+int64(time.Second))))
			}
		}
		if len(scenes) > 0 {
			w.submit(scenes[0].gang, scenes[0].lasts)
			scenes = scenes[1:]
		}
	}
	if endless > 0 {
		counted["beside servers"]++
	}
	return nil
}

// turn is since when a gang is the first of its queue.
type turn struct {
	id    string
	since int64
}

// arrive has so many small ones of each queue come that enough wait. It reports whether any came.
func (s siege) arrive(w *world, came map[string]int) (any bool) {
	for _, q := range slices.Sorted(maps.Keys(s.small)) {
		for n := len(w.line(q)); n < s.crowd; n++ {
			kind := s.small[q][came[q]%len(s.small[q])]
			g := kind.gang
			g.Job = fmt.Sprintf("%s-%05d", q, came[q])
			came[q]++
			w.submit(g, kind.lasts)
			any = true
		}
	}
	return any
}

// look checks that no first of a queue waits for longer than it may. It reports whether one does for long that can start.
func (s siege) look(w *world, firsts map[string]turn) (late bool, err error) {
	for _, q := range slices.Sorted(maps.Keys(s.small)) {
		id, old := w.line(q)[0], firsts[q]
		if old.id != id {
			if p := w.gangs[old.id]; p != nil && p.runs() && w.now-old.since > int64(2*time.Hour) {
				w.counted["late"]++
			}
			firsts[q] = turn{id, w.now}
			continue
		}
		waited := time.Duration(w.now - old.since)
		if waited < 2*time.Hour {
			continue
		}
		if !s.possible(w, w.gangs[id].gang) {
			w.counted["impossible"]++
			continue
		}
		late = true
		never := 2
		for _, other := range w.waits() {
			if !s.possible(w, w.gangs[other].gang) {
				never++
			}
		}
		bound := 2*time.Duration(old.since-int64(time.Hour)) + 16*time.Hour*time.Duration(never)
		if waited > bound {
			return true, fmt.Errorf("%s is the first of %s, would be admitted and find room, and has waited for %s, beside %d that never start", id, q, waited, never-2)
		}
	}
	return late, nil
}

// line is who waits in a queue, in their order.
func (w *world) line(queue string) []string {
	ids := slices.DeleteFunc(w.waits(), func(id string) bool { return w.gangs[id].gang.Queue != queue })
	slices.SortStableFunc(ids, func(a, b string) int { return cmp.Compare(w.gangs[a].came, w.gangs[b].came) })
	return ids
}

// endless is how many run that never end.
func (w *world) endless() int {
	n := 0
	for _, p := range w.gangs {
		if p.runs() && p.lasts == int64(forever) {
			n++
		}
	}
	return n
}

// possible reports whether a gang of tasks that are all alike would be admitted by its queues' limits and find room beside those that
// never end.
func (s siege) possible(w *world, g cluster.Gang) bool {
	used := map[string]int64{}                           // by node
	held, firm := map[string]int64{}, map[string]int64{} // by queue, in milli-GPUs
	for _, p := range w.gangs {
		if !p.runs() || p.lasts != int64(forever) {
			continue
		}
		for _, a := range p.placed {
			used[a.Node] += int64(len(a.Resources.Devices))
			for q := p.gang.Queue; q != ""; q = w.queues[q].Parent {
				milli := 1000 * int64(len(a.Resources.Devices))
				if held[q] += milli; p.gang.NonPreemptible {
					firm[q] += milli
				}
			}
		}
	}
	role := g.Roles[0]
	tasks, per := int64(role.Count), int64(role.Ask.GPUs)
	for q := g.Queue; q != ""; q = w.queues[q].Parent {
		if most, limited := w.queues[q].Borrow.Of(cluster.ResourceGPUs); limited && held[q]+1000*tasks*per > most {
			return false
		}
		if most, limited := w.queues[q].Unpreemptible.Of(cluster.ResourceGPUs); g.NonPreemptible && limited && firm[q]+1000*tasks*per > most {
			return false
		}
	}
	for _, n := range s.nodes {
		tasks -= (int64(len(n.Devices)) - used[n.ID]) / per
	}
	return tasks <= 0
}

func TestNoFirstOfAQueueStarvesBesideWhatNeverEnds(t *testing.T) {
	counted := map[string]int{}
	check(t, 1, func(t *rapid.T) error { return drawSiege(t).endures(newCluster(), counted) })
	exercised(t, counted, "late", "impossible", "beside servers", "placed")
}

// brief are kinds of gangs of one GPU, known to last so many minutes.
func brief(queue string, minutes ...time.Duration) (kinds []scene) {
	for _, m := range minutes {
		kinds = append(kinds, scene{gang: with(gpuGang(queue, "", 1, 1), limit(m*time.Minute)), lasts: m * time.Minute})
	}
	return kinds
}

// Two limits deny it at once: neither would admit it though all had ended that holds of that one.
func TestWhoTwoLimitsDenyIsNotOvertakenForEver(t *testing.T) {
	s := siege{
		nodes: racks(3, 4), crowd: 3,
		queues: []cluster.Queue{
			{Name: "lab", Weight: 1, Borrow: gpuQuota(11)},
			{Name: "a", Weight: 2, Parent: "lab", Borrow: gpuQuota(7), Backfill: cluster.BackfillConservative},
			{Name: "b", Weight: 2, Parent: "lab", Backfill: cluster.BackfillConservative},
		},
		servers: []scene{{gang: with(gpuGang("b", "server", 1, 1), func(g *cluster.Gang) { g.Handover = true }), lasts: forever, wait: 6 * time.Minute}},
		large: []scene{
			{gang: gpuGang("b", "first", 1, 4), lasts: 7 * time.Minute},
			{gang: with(gpuGang("a", "second", 3, 2), limit(21*time.Minute)), lasts: 21 * time.Minute, wait: 3 * time.Minute},
		},
		small: map[string][]scene{"a": brief("a", 32, 35), "b": brief("b", 7, 5, 5)},
	}
	if err := s.endures(newCluster(), map[string]int{}); err != nil {
		t.Error(err)
	}
}

// What it needs is kept in the spell that it leads, though two of another queue have waited for longer, of whom the second calls for the same only
// when the first does not.
func TestWhoLeadsASpellHasWhatItNeeds(t *testing.T) {
	endpoint, firm := func(g *cluster.Gang) { g.Handover = true }, func(g *cluster.Gang) { g.NonPreemptible = true }
	unsaid := func(queue string, minutes time.Duration) scene {
		return scene{gang: with(gpuGang(queue, "", 1, 1), firm), lasts: minutes * time.Minute}
	}
	s := siege{
		nodes: racks(2, 4), crowd: 2,
		queues: []cluster.Queue{
			{Name: "lab", Weight: 1, Borrow: gpuQuota(3)},
			{Name: "q0", Weight: 1, Parent: "lab", Borrow: gpuQuota(3), Backfill: cluster.BackfillNone},
			{Name: "q1", Weight: 2, Borrow: gpuQuota(2), Backfill: cluster.BackfillNone},
			{Name: "q2", Weight: 1, Parent: "lab", Borrow: gpuQuota(6)},
			{Name: "q3", Weight: 2, Parent: "lab", Borrow: gpuQuota(4), Backfill: cluster.BackfillConservative},
		},
		servers: []scene{
			{gang: with(gpuGang("q0", "server-0", 1, 2), endpoint), lasts: forever, wait: 72 * time.Minute},
			{gang: gpuGang("q1", "server-1", 1, 1), lasts: forever, wait: 45 * time.Minute},
			{gang: with(gpuGang("q2", "server-2", 1, 2), func(g *cluster.Gang) { g.Handover, g.NonPreemptible = true, true }), lasts: forever, wait: 73 * time.Minute},
		},
		large: []scene{
			{gang: gpuGang("q3", "large-0", 1, 2), lasts: 8 * time.Minute, wait: 47 * time.Minute},
			{gang: gpuGang("q3", "large-1", 1, 3), lasts: 29 * time.Minute},
			{gang: with(gpuGang("q3", "large-2", 1, 1), firm), lasts: 32 * time.Minute, wait: 8 * time.Minute},
			{gang: with(gpuGang("q1", "large-3", 2, 4), limit(12*time.Minute)), lasts: 12 * time.Minute, wait: 12 * time.Minute},
		},
		small: map[string][]scene{
			"q0": append([]scene{unsaid("q0", 40)}, brief("q0", 17, 6)...), "q1": append(brief("q1", 16, 5, 6), unsaid("q1", 7)), "q2": {unsaid("q2", 22)}, "q3": {unsaid("q3", 11)},
		},
	}
	if err := s.endures(newCluster(), map[string]int{}); err != nil {
		t.Error(err)
	}
}
