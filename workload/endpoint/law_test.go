package endpoint_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/quantity"
	"github.com/clary-ml/clary/serving/autoscale"
	"github.com/clary-ml/clary/workload/endpoint"
	"github.com/clary-ml/clary/workload/hosting"
	"github.com/clary-ml/clary/workload/training"
)

// draw makes up a spec of up to three variants.
func (h history) draw() endpoint.Spec {
	var s endpoint.Spec
	names := pick(h, [][]string{{"blue"}, {"blue", "green"}, {"green"}, {"blue", "green", "dark"}})
	for i, name := range names {
		weight := float64(h.from(0, 3))
		if i == 0 {
			weight++
		}
		replicas := int32(h.from(0, 3))
		version := h.from(1, 3)
		number, scaling := &replicas, (*autoscale.Spec)(nil)
		if h.one(4) {
			number, scaling = nil, &autoscale.Spec{Min: h.from(0, 2), Max: h.from(2, 4)}
		}
		s.Variants = append(s.Variants, endpoint.Variant{
			Name: name, Weight: &weight, Replicas: number, Scaling: scaling,
			Server: hosting.Server{Program: &training.Program{Command: []string{"serve", fmt.Sprint(version)}}},
		})
	}
	u := &s.Update
	u.Strategy = pick(h, []endpoint.Strategy{"", endpoint.AllAtOnce, endpoint.Canary, endpoint.Linear})
	if u.Strategy == endpoint.Canary || u.Strategy == endpoint.Linear {
		u.Step = pick(h, []quantity.Share{0.1, 0.3, 0.5, 1})
	}
	u.Bake = pick(h, []quantity.Duration{0, quantity.Duration(time.Second), quantity.Duration(time.Minute)})
	wait := pick(h, []quantity.Duration{0, quantity.Duration(time.Minute)})
	u.Wait = &wait
	if h.one(3) {
		rate := quantity.Share(0.1)
		u.Alarms = &endpoint.Alarms{ErrorRate: &rate}
	}
	s.Limits.Timeout = pick(h, []quantity.Duration{0, quantity.Duration(10 * time.Second)})
	s.Limits.Drain = pick(h, []quantity.Duration{0, quantity.Duration(10 * time.Second)})
	return s
}

func textOf(s endpoint.Spec) string {
	text, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// history is a world to which things happen by chance. The chance is a generator's: rapid's own draws
// prefer what is small, and most of what matters here would hardly ever happen.
type history struct {
	*world
	chance *rand.Rand
}

func (h history) one(n int) bool { return h.chance.IntN(n) == 0 }

// from is a number from least to most.
func (h history) from(least, most int) int { return least + h.chance.IntN(most-least+1) }

func pick[T any](h history, items []T) T { return items[h.chance.IntN(len(items))] }

func (h history) event() {
	events := []func(){
		h.place, h.place, h.progress, h.progress, h.progress, h.behave, h.behave, h.time, h.time,
		h.run, h.run, h.run, h.run, h.strike, h.crash, h.flap, h.loseNode, h.drainNode, h.nodeBack, h.nodeBack, h.sicken, h.steward,
		h.askUpdate, h.askUpdate, h.askRollback, h.askWeights, h.askReplicas, h.askBounds, h.autoscale, h.alarm, h.stale, h.stale,
	}
	pick(h, events)()
}

func (h history) someGang() (cluster.Gang, bool) {
	live := h.live()
	if len(live) == 0 {
		return cluster.Gang{}, false
	}
	return pick(h, live), true
}

// run lets the world behave for a while.
func (h history) run() {
	for range h.from(2, 20) {
		h.settle()
		h.behave()
		if h.now += int64(time.Second); h.wake > h.now && h.one(5) {
			h.now = h.wake
		}
	}
}

// strike has all new replicas of a variant fall silent.
func (h history) strike() {
	if h.e.Rollout == nil {
		return
	}
	to := h.e.Rollout.To
	for _, g := range h.live() {
		if t, _ := h.task(g); t.Status.State == cluster.TaskRunning && contains(g.Name, fmt.Sprintf("blue-%d-", to)) {
			h.report(g, cluster.TaskRunning, false)
		}
	}
}

// progress has one replica come on, or end as it was told.
func (h history) progress() {
	g, ok := h.someGang()
	if !ok {
		return
	}
	fleet, _, _ := cluster.ReplicaOf(g.Name)
	t, _ := h.task(g)
	switch {
	case g.Stop:
		h.report(g, cluster.TaskStopped, false)
	case t.Status.State == cluster.TaskAssigned:
		h.report(g, cluster.TaskStaging, false)
	default:
		h.report(g, cluster.TaskRunning, !h.sick[fleet] && !h.mute[fleet])
	}
}

func (h history) crash() {
	if g, ok := h.someGang(); ok {
		h.done["crash"]++
		h.report(g, pick(h, []cluster.TaskState{cluster.TaskFailed, cluster.TaskSucceeded}), false)
	}
}

func (h history) flap() {
	if g, ok := h.someGang(); ok {
		if t, _ := h.task(g); t.Status.State == cluster.TaskRunning {
			h.done["flap"]++
			h.report(g, cluster.TaskRunning, false)
		}
	}
}

func (h history) someNode() *node { return pick(h, h.nodes) }

func (h history) loseNode() {
	if n := h.someNode(); n.state != cluster.NodeLost {
		h.done["node lost"]++
		h.lose(n)
	}
}

func (h history) drainNode() {
	if n := h.someNode(); n.state == cluster.NodeReady {
		h.done["node drained"]++
		h.evict(n)
	}
}

func (h history) nodeBack() { h.someNode().state = cluster.NodeReady }

// sicken makes a version no good, or good again.
func (h history) sicken() {
	f := pick(h, append(slices.Clone(h.e.Fleets), cluster.Fleet{Variant: "blue", Generation: h.e.Last + 1})).ID()
	which := pick(h, []map[string]bool{h.sick, h.mute})
	which[f] = !which[f]
}

func (h history) time() {
	by := pick(h, []time.Duration{time.Millisecond, time.Second, 30 * time.Second, 5 * time.Minute, time.Hour})
	if h.wake > h.now && h.one(2) {
		h.now = h.wake
		return
	}
	h.now += int64(by)
}

func (h history) steward() { h.idle() }

func (h history) askUpdate() {
	s := h.draw()
	if h.one(3) { // only settings
		s = endpoint.Spec{}
		if err := json.Unmarshal(h.e.Spec, &s); err != nil {
			h.fatal("%v", err)
		}
		s.Limits.Timeout = quantity.Duration(time.Duration(h.from(1, 5)) * time.Second)
	}
	o := endpoint.Options{Replace: h.one(3), Anew: h.one(4)}
	had, rollout := len(h.e.Fleets), h.e.Rollout
	err := h.update(textOf(s), o)
	switch {
	case h.leaving():
		h.refused(err, fault.Conflict)
	case rollout != nil && !o.Replace:
		h.refused(err, fault.Conflict)
	case err != nil:
		h.fatal("%v", err)
	case rollout != nil:
		h.done["replaced"]++
	case len(h.e.Fleets) == had:
		h.done["in place"]++
	}
	if err == nil && h.e.Rollout != nil && h.one(3) { // and it is no good
		which := pick(h, []map[string]bool{h.sick, h.mute})
		for _, f := range h.e.Fleets {
			if f.Generation == h.e.Last {
				which[f.ID()] = true
			}
		}
	}
}

func (h history) refused(err error, kind fault.Kind) {
	if !fault.Is(err, kind) {
		h.fatal("got %v, want a refusal of kind %s", err, kind)
	}
}

// askRollback goes back, and what is then in force is what was.
func (h history) askRollback() {
	before := *h.e
	e, err := endpoint.Rollback(h.job, *h.e, "", h.who())
	err = h.ask("rollback", e, err)
	switch {
	case h.leaving(), before.Rollout == nil && len(before.Previous) == 0:
		h.refused(err, fault.Conflict)
		return
	case err != nil:
		h.fatal("%v", err)
	case before.Rollout == nil:
		if h.e.Rollout == nil || string(h.e.Rollout.Spec) != string(before.Previous) {
			h.fatal("back to %s: %+v", before.Previous, h.e.Rollout)
		}
		return
	}
	h.settle()
	if h.e.Rollout != nil || h.e.Generation != before.Generation || string(h.e.Spec) != string(before.Spec) {
		h.fatal("after a rollback it has generation %d, and a rollout %+v", h.e.Generation, h.e.Rollout)
	}
	for _, f := range before.Fleets {
		if f.Generation != before.Generation || f.Retired {
			continue
		}
		at := h.e.Fleet(f.ID())
		if at < 0 || h.e.Fleets[at].Share != 1 || h.e.Fleets[at].Weight != f.Weight {
			h.fatal("after a rollback %s is not what it was: %+v", f.ID(), h.e.Fleets)
		}
	}
	for _, f := range h.e.Fleets {
		if f.Generation == before.Rollout.To && !f.Retired {
			h.fatal("after a rollback %s stays", f.ID())
		}
	}
	h.done["rolled back by hand"]++
}

func (h history) askWeights() {
	weights := map[string]float64{}
	for _, name := range []string{"blue", "green"} {
		if h.one(2) {
			weights[name] = float64(h.from(-1, 5))
		}
	}
	e, err := endpoint.SetWeights(h.job, *h.e, weights, h.who())
	if h.ask("weights", e, err) != nil {
		return
	}
	for name, w := range weights {
		if f := h.e.Fleets[h.e.Fleet(cluster.FleetID(name, h.e.Generation))]; f.Weight != w {
			h.fatal("%s has weight %v, not %v", name, f.Weight, w)
		}
	}
}

func (h history) askReplicas() {
	name := pick(h, []string{"blue", "green", "nobody"})
	e, err := endpoint.SetReplicas(h.job, *h.e, name, int32(h.from(-1, 4)), h.who())
	_ = h.ask("replicas", e, err)
}

func (h history) askBounds() {
	least, most := int32(h.from(0, 3)), int32(h.from(1, 4))
	e, err := endpoint.SetBounds(h.job, *h.e, pick(h, []string{"blue", "green"}), &least, &most, h.who())
	_ = h.ask("bounds", e, err)
}

func (h history) autoscale() {
	if len(h.e.Fleets) == 0 {
		return
	}
	f := pick(h, h.e.Fleets)
	e, err := endpoint.Scale(*h.e, f.ID(), int32(h.from(0, 4)), []byte("{}"), "load", h.now)
	_ = h.ask("scale", e, err)
}

func (h history) alarm() {
	if h.e.Rollout != nil && h.one(2) {
		_ = h.ask("alarm", endpoint.Alarm(*h.e, "too many errors"), nil)
	}
}

// stale has something happen between a step's look and its record.
func (h history) stale() {
	pick(h, []func(){h.crash, h.autoscale, h.loseNode, h.time, h.steward})()
	changes := endpoint.Kind{}.Reconcile(h.view(), h.job, h.now)
	pick(h, []func(){h.place, h.autoscale, h.drainNode, h.behave})()
	h.raced = true
	if h.apply(changes) != "" {
		h.done["stale"]++
	}
	h.raced = false
}

// live one life of an endpoint by chance, and count what it went through.
func live(fatal func(string, ...any), seed uint64, events int) map[string]int {
	h := history{chance: rand.New(rand.NewPCG(seed, 0))}
	h.world = newWorld(fatal, textOf(h.draw()), h.from(1, 3), h.from(2, 12))
	for range events {
		h.event()
		if h.one(2) {
			h.step()
		} else {
			h.settle()
		}
	}
	h.finish()
	return h.done
}

func TestWhateverHappensAnEndpointKeepsItsLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		live(t.Fatalf, rapid.Uint64().Draw(t, "seed"), rapid.IntRange(1, 100).Draw(t, "events"))
	})
}

// The same lives each time, so that what they went through is known.
func TestTheLawsHoldInAllThatCanHappen(t *testing.T) {
	total := map[string]int{}
	for seed := range uint64(400) {
		for what, n := range live(t.Fatalf, seed, 60) {
			total[what] += n
		}
	}
	t.Log(total)
	for _, what := range []string{
		"crash", "flap", "node lost", "node drained", "stale", "update", "update refused", "replaced", "in place", "rollback", "rollback refused", "rolled back by hand",
		"weights", "weights refused", "replicas", "replicas refused", "bounds", "bounds refused", "scale", "scale refused", "alarm", "shifted", "taken over", "stopped", "idle",
		"restarted", "excused", "backed off", "rolled back by alarm", "rolled back by crashes", "rolled back by time", "rolled back by silence", "rolled back by neglect", "watched", "moved", "cancelled",
		"ended in a bad world", "steady",
	} {
		if total[what] < 5 {
			t.Errorf("%s: %d times", what, total[what])
		}
	}
}

// finish lets the world behave, or lets nothing start any more, and sees that it comes to rest: every
// update ends, and after a cancel nothing is left.
func (h history) finish() {
	switch h.from(0, 3) {
	case 0:
		h.job.Cancel = true
		h.clock++
		h.job.Revision = h.clock
		h.pass(h.steady)
		if h.job.State != cluster.JobCancelled || len(h.gangs) > 0 || len(h.tasks) > 0 || len(h.e.Fleets) > 0 || h.e.Rollout != nil {
			h.fatal("after a cancel the job is %s, and there is %v, %v, %+v", h.job.State, slices.Sorted(maps.Keys(h.gangs)), slices.Sorted(maps.Keys(h.tasks)), h.e.Fleets)
		}
		h.done["cancelled"]++
		return
	case 1: // nothing new ever answers
		for _, n := range h.nodes {
			n.state = cluster.NodeDraining
		}
		h.pass(func() bool { return h.e.Rollout == nil })
		h.done["ended in a bad world"]++
		return
	}
	for _, n := range h.nodes {
		n.state, n.slots = cluster.NodeReady, 100
	}
	clear(h.sick)
	clear(h.mute)
	h.pass(h.steady)
	if changes := (endpoint.Kind{}).Reconcile(h.view(), h.job, h.now); !changes.Empty() {
		h.fatal("at rest it wants %+v", changes)
	}
	if h.job.State != cluster.JobRunning || h.job.Reason != "" {
		h.fatal("all answers, and the job is %s: %s", h.job.State, h.job.Reason)
	}
	var s endpoint.Spec
	if err := json.Unmarshal(h.e.Spec, &s); err != nil || len(s.Variants) != len(h.e.Fleets) {
		h.fatal("%s, and there is %+v", h.e.Spec, h.e.Fleets)
	}
	for i, v := range s.Variants {
		at := h.e.Fleet(cluster.FleetID(v.ID(), h.e.Generation))
		if at < 0 || h.e.Fleets[at].Weight != *s.Variants[i].Weight || !reflect.DeepEqual(h.e.Fleets[at].Role.Program.Command, v.Program.Command) {
			h.fatal("%s, and there is %+v", h.e.Spec, h.e.Fleets)
		}
	}
	h.done["steady"]++
}
