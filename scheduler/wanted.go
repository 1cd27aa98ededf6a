package scheduler

import (
	"slices"
	"strings"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler/room"
	"github.com/clary-ml/clary/scheduler/score"
)

// How the mix of what is asked for is learned. It changes seldom, since with it every node is scored anew: each time
// that what is counted has doubled, until it is all that is remembered.
const (
	wantedFirst = 64      // tasks: what fewer say is chance
	wantedMost  = 1 << 14 // tasks that are remembered: then all count half
)

// wanted is what is asked for: all gangs that the cluster was told of, those of long ago ever less.
type wanted struct {
	demand score.Demand
	tasks  int64 // that are counted,
	fresh  int64 // of them since the policy was made
	mix    score.Mix
}

// note counts a gang that was not known.
func (w *wanted) note(n *Needs) {
	for i := range n.roles {
		tasks := int64(n.roles[i].Count)
		w.demand.Add(n.roles[i].Ask, tasks)
		w.tasks += tasks
		w.fresh += tasks
	}
}

// learn has nodes scored by what is asked for now, if that may have changed.
func (c *Cluster) learn() {
	w := &c.wanted
	if c.opts.Policy != nil || w.fresh < max(wantedFirst, w.tasks/2) {
		return
	}
	if w.tasks > wantedMost {
		w.demand.Fade()
		w.tasks /= 2
	}
	w.fresh = 0
	mix := c.placeable(w.demand.Mix())
	if !slices.ContainsFunc(mix, func(k score.Kind) bool { return k.GPUs > 0 || k.Shares() }) {
		mix = nil
	}
	c.use(mix)
}

// use has nodes scored by a mix; nil is none.
func (c *Cluster) use(mix score.Mix) {
	if c.opts.Policy != nil || slices.Equal(mix, c.wanted.mix) {
		return
	}
	c.wanted.mix = mix
	if mix == nil {
		c.Room.Use(room.Tightest{})
		return
	}
	c.Room.Use(score.New(mix))
}

// placeable names in a mix only models of GPUs that nodes have, and leaves out who wants none of them.
func (c *Cluster) placeable(mix score.Mix) score.Mix {
	var kept score.Mix
	for _, k := range mix {
		if k.GPUModel != "" {
			models := slices.DeleteFunc(k.Models(), func(name string) bool {
				return !slices.ContainsFunc(c.total.Models, func(m cluster.ModelAmount) bool { return m.Model == name && m.Milli > 0 })
			})
			if len(models) == 0 {
				continue
			}
			k.GPUModel = strings.Join(models, ",")
		}
		kept = append(kept, k)
	}
	return kept
}
