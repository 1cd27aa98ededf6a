package endpoint_test

import (
	"encoding/json"
	"slices"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/workload"
	"github.com/clary-ml/clary/workload/endpoint"
)

// serving is how many replicas of a fleet answer and get requests.
func serving(v workload.View, f cluster.Fleet) int32 {
	n := int32(0)
	for _, t := range v.Tasks {
		name := t.Gang[len(t.Job)+1:]
		if fleet, _, _ := cluster.ReplicaOf(name); fleet != f.ID() || t.Status.State != cluster.TaskRunning || t.Status.Healthy == 0 || f.Drains(name) {
			continue
		}
		for _, g := range v.Gangs {
			if g.Name == name && !g.Stop && g.Attempt == t.Attempt {
				n++
			}
		}
	}
	return n
}

// judge holds a step against what no step may do.
func (w *world) judge(before workload.View, c workload.Changes) {
	had, e := before.Endpoint, w.e
	if had == nil || e == nil {
		return
	}
	after := w.view()
	for _, f := range e.Fleets {
		at := had.Fleet(f.ID())
		if at < 0 || f.Retired {
			continue
		}
		// What answers is taken away only where there are more than are wanted.
		if was, is := serving(before, had.Fleets[at]), serving(after, f); is < min(was, f.Replicas) {
			w.fatal("of %s %d answered, now %d, and %d are wanted", f.ID(), was, is, f.Replicas)
		}
	}
	if w.leaving() {
		return
	}
	w.judgeShares(before, after)
	limit := int64(w.settings(*had).Drain())
	for _, g := range c.Gangs {
		at := slices.IndexFunc(before.Gangs, func(o cluster.Gang) bool { return o.Name == g.Name })
		if at < 0 || !g.Stop || before.Gangs[at].Stop {
			continue
		}
		fleet, _, _ := cluster.ReplicaOf(g.Name)
		draining := had.Fleets[had.Fleet(fleet)].Draining
		d := slices.IndexFunc(draining, func(d cluster.DrainingReplica) bool { return d.Gang == g.Name })
		if d < 0 || !draining[d].Idle && w.now < draining[d].Since+limit {
			w.fatal("%s is stopped, and was not idle: %+v", g.Name, draining)
		}
		w.done["stopped"]++
	}
}

// judgeShares: a generation gets more only when enough of it answers and its alarms were watched, and
// where the old one goes the new one is as large.
func (w *world) judgeShares(before, after workload.View) {
	had, e := before.Endpoint, after.Endpoint
	for _, f := range e.Fleets {
		at := had.Fleet(f.ID())
		if at < 0 {
			continue
		}
		old := had.Fleets[at]
		if f.Share > old.Share && had.Rollout != nil && f.Generation == had.Rollout.To {
			w.done["shifted"]++
			if n, need := serving(before, old), w.need(before, f); n < need {
				w.fatal("%s gets %v of the requests, and %d of its %d replicas answer: it takes %d", f.ID(), f.Share, n, f.Replicas, need)
			}
			if _, any := endpoint.Watched(*had); any && had.Rollout.Watched < had.Rollout.Since+int64(had.Rollout.Bake) {
				w.fatal("%s gets %v of the requests, and nobody watched: %+v", f.ID(), f.Share, had.Rollout)
			}
		}
		if !f.Retired || old.Retired {
			continue
		}
		next := e.Fleet(cluster.FleetID(f.Variant, e.Generation))
		if had.Generation == e.Generation || next < 0 {
			continue
		}
		w.done["taken over"]++
		if n := e.Fleets[next]; n.Replicas < old.Replicas || serving(after, n) < w.need(before, n) {
			w.fatal("%s goes with %d replicas, and %d of %d in %s answer", f.ID(), old.Replicas, serving(after, n), n.Replicas, n.ID())
		}
	}
	variants := map[string]map[int64]float64{}
	for _, f := range e.Fleets {
		if variants[f.Variant] == nil {
			variants[f.Variant] = map[int64]float64{}
		}
		variants[f.Variant][f.Generation] = f.Share
	}
	for name, shares := range variants {
		sum, both := 0.0, 0
		for generation, of := range shares {
			if sum += of; generation == e.Generation || e.Rollout != nil && generation == e.Rollout.To {
				both++
			}
		}
		if e.Rollout != nil && both == 2 && (sum < 1-1e-9 || sum > 1+1e-9) {
			w.fatal("the shares of %s make %v", name, sum)
		}
	}
}

// need is how many replicas of a new fleet must answer for it to get more: as an update starts all, later
// as many as answer of the old one, or as its variant began with.
func (w *world) need(before workload.View, f cluster.Fleet) int32 {
	r := before.Endpoint.Rollout
	if r.Phase == cluster.RolloutStarting {
		return f.Replicas
	}
	enough := int32(1)
	if at := before.Endpoint.Fleet(cluster.FleetID(f.Variant, r.From)); at >= 0 {
		enough = max(enough, serving(before, before.Endpoint.Fleets[at]))
	} else {
		var v endpoint.Variant
		if err := json.Unmarshal(f.Spec, &v); err != nil {
			w.fatal("%v", err)
		}
		switch {
		case v.Scaling != nil:
			enough = max(enough, int32(v.Scaling.First()))
		case v.Replicas != nil:
			enough = max(enough, *v.Replicas)
		}
	}
	return min(f.Replicas, enough)
}

// count notes what a step does.
func (w *world) count(c workload.Changes) {
	for _, g := range c.Gangs {
		switch {
		case g.Attempt > 1 && !g.Stop && g.Failures > 0:
			w.done["restarted"]++
		case g.Attempt > 1 && !g.Stop:
			w.done["excused"]++
		}
		if g.NotBefore > w.now {
			w.done["backed off"]++
		}
	}
	for _, g := range c.Delete {
		if g.Moves {
			w.done["moved"]++
		}
	}
	if e := c.Endpoint; e != nil && e.Rollout != nil && e.Rollout.Phase == cluster.RolloutRollingBack {
		for text, what := range map[string]string{"too many errors": "alarm", "times in a row": "crashes", "within": "time", "no replica of": "silence", "nobody watched": "neglect"} {
			if contains(e.Rollout.Reason, text) {
				w.done["rolled back by "+what]++
			}
		}
	}
}
