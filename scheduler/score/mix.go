package score

import (
	"cmp"
	"slices"

	"github.com/clary-ml/clary/cluster"
)

// Kind is a kind of task and how often it is asked for, in any unit.
type Kind struct {
	cluster.Ask
	Weight int64
}

// Mix is what is asked for, the most frequent first.
type Mix []Kind

// Of a mix, the most frequent kinds count: so many that they are 95 percent of all tasks, but no more than fit
// a score's time.
const (
	covered  = 95 // percent
	maxKinds = 64
)

// Demand counts what was asked for. Its zero value is ready. It is not safe for concurrent use.
type Demand struct {
	kinds map[cluster.Ask]*count
}

// count is of tasks that differ in their memory alone.
type count struct {
	tasks, mebibytes int64
}

// maxCount bounds what one kind may count, so that no sum overflows.
const maxCount = 1 << 30

// Add notes so many tasks. Those that want slots of GPUs are not counted: a slot is not a share.
func (d *Demand) Add(ask cluster.Ask, tasks int64) {
	if tasks <= 0 || ask.MIG != "" {
		return
	}
	mebibytes := min(max(0, ask.Memory)>>20, maxCount)
	ask.Memory, ask.Ports = 0, 0
	c := d.kinds[ask]
	if c == nil {
		if d.kinds == nil {
			d.kinds = map[cluster.Ask]*count{}
		}
		c = &count{}
		d.kinds[ask] = c
	}
	tasks = min(tasks, maxCount-c.tasks)
	c.tasks += tasks
	c.mebibytes += mebibytes * tasks
}

// Count is how many tasks of a kind were asked for, and their memory together.
type Count struct {
	Ask              cluster.Ask
	Tasks, Mebibytes int64
}

// Counts are all that was counted, in an order of their own.
func (d *Demand) Counts() []Count {
	counts := make([]Count, 0, len(d.kinds))
	for ask, c := range d.kinds {
		counts = append(counts, Count{ask, c.tasks, c.mebibytes})
	}
	slices.SortFunc(counts, func(a, b Count) int { return compare(a.Ask, b.Ask) })
	return counts
}

// Put says what was counted of a kind, in place of what is known of it.
func (d *Demand) Put(c Count) {
	if c.Tasks <= 0 {
		return
	}
	if d.kinds == nil {
		d.kinds = map[cluster.Ask]*count{}
	}
	d.kinds[c.Ask] = &count{min(c.Tasks, maxCount), max(0, c.Mebibytes)}
}

// Fade halves what was counted: what was asked for long ago counts less and less, and is forgotten at last.
func (d *Demand) Fade() {
	for ask, c := range d.kinds { // each on its own: the order decides nothing
		if c.tasks, c.mebibytes = c.tasks/2, c.mebibytes/2; c.tasks == 0 {
			delete(d.kinds, ask)
		}
	}
}

// Mix is what was counted: the most frequent kinds, each with the mean of its tasks' memory.
func (d *Demand) Mix() Mix {
	all, total := make(Mix, 0, len(d.kinds)), int64(0)
	for ask, c := range d.kinds {
		ask.Memory = c.mebibytes / c.tasks << 20
		all = append(all, Kind{ask, c.tasks})
		total += c.tasks
	}
	slices.SortFunc(all, func(a, b Kind) int { return cmp.Or(cmp.Compare(b.Weight, a.Weight), compare(b.Ask, a.Ask)) })
	sum := int64(0)
	for i, k := range all {
		if i == maxKinds || sum*100 >= covered*total {
			return all[:i]
		}
		sum += k.Weight
	}
	return all
}

func compare(a, b cluster.Ask) int {
	return cmp.Or(
		cmp.Compare(a.MilliCPU, b.MilliCPU), cmp.Compare(a.GPUMilli, b.GPUMilli), cmp.Compare(a.GPUs, b.GPUs),
		cmp.Compare(a.GPUModel, b.GPUModel), cmp.Compare(a.GPUMemory, b.GPUMemory),
	)
}
