// Package score says how good a node is for a task: the policy by which a room.Map places what the
// scheduler of Clary places. It is pure, and counts in whole numbers: the same node and the same request
// have the same score on every machine. See DESIGN.md.
package score

import (
	"math"
	"slices"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler/room"
)

// Gradient prefers the node where a task makes least of the GPUs' room useless for what else is asked for. Of
// nodes that are alike in that a Map takes the first, so that they fill up one after the other; those without
// GPUs are taken before those with, and among themselves as room.Tightest takes them.
//
// It is Fragmentation Gradient Descent (Weng et al., "Beware of Fragmentation", USENIX ATC 2023, section 4) with
// two changes, each of which places more on the paper's workloads. Room that tasks of a kind could fill but for
// which the cores would run out on the way counts as partly useless already, not only when the next task finds no
// core at all. And memory limits as cores do. As there, what differs little is alike.
//
// Without kinds that want GPUs it is room.Tightest.
type Gradient struct {
	kinds []kind
	names [][]string // of the models of each kind
	steps []int64
}

// kind is a Kind as it is counted.
type kind struct {
	room.Request
	weight int64 // of unit
	milli  int64 // of GPUs that one takes, where that is the same on all
}

// The figures were chosen on the paper's workloads and variations of them, the same for all; a plateau surrounds them.
const (
	unit     = 1 << 16 // all weights together
	depth    = 10      // one part in so many of what only cores or memory make useless counts
	levels   = 100     // of changes of what is useless that are told apart
	softness = 1000    // thousandths of a GPU: changes far beyond are told apart less and less
)

// New returns the policy for a mix of what is asked for. One policy belongs to one room.Map and its clones.
func New(mix Mix) *Gradient {
	g := &Gradient{}
	total := int64(0)
	for _, k := range mix {
		total += max(0, k.Weight)
	}
	gpus := false
	for _, k := range mix {
		weight := share(k.Weight, total)
		if weight == 0 {
			continue
		}
		milli := int64(k.GPUs)*cluster.WholeGPU + int64(k.GPUMilli)
		g.kinds = append(g.kinds, kind{room.Request{
			Memory: k.Memory, Milli: int32(min(k.MilliCPU, math.MaxInt32)), GPUs: k.GPUs, GPUMilli: k.GPUMilli, GPUMemory: k.GPUMemory,
		}, weight, milli})
		g.names = append(g.names, k.Models())
		gpus = gpus || k.GPUs > 0 || k.Shares()
	}
	if !gpus {
		g.kinds, g.names = nil, nil
	}
	// A fall x is of level n if n <= levels*sigmoid(x/softness) < n+1, as in the paper's implementation.
	for n := 1; n < levels; n++ {
		x := softness * math.Log(float64(n)/float64(levels-n))
		g.steps = append(g.steps, int64(math.Round(x))*unit*depth)
	}
	return g
}

// share is a weight as a part of unit.
func share(weight, total int64) int64 {
	if weight <= 0 {
		return 0
	}
	return int64(math.Round(float64(weight) / float64(total) * unit))
}

// Bind learns the numbers of models.
func (g *Gradient) Bind(model func(string) int16) {
	for i, names := range g.names {
		g.kinds[i].Models = 0
		for _, name := range names {
			number := model(name)
			if number < 0 {
				number = room.MaxModels
			}
			g.kinds[i].Models |= 1 << uint(number)
		}
	}
}

// A score is the level of what becomes useless, over how tight a node without GPUs is left.
const (
	tightBits    = 20
	tightestBits = 30 // of a score of room.Tightest
)

// Score is how good a node is for one more task.
func (g *Gradient) Score(n *room.State, devices []room.Device, r *room.Request) int32 {
	if len(g.kinds) == 0 {
		return room.Tightest{}.Score(n, devices, r)
	}
	if len(devices) == 0 {
		return levels/2<<tightBits | room.Tightest{}.Score(n, devices, r)>>(tightestBits-tightBits+1)
	}
	level, _ := g.best(n, devices, r)
	return level << tightBits
}

// Pick is the device for a share: the one with which the node has its score, the first of equals.
func (g *Gradient) Pick(n *room.State, devices []room.Device, r *room.Request) int {
	if len(g.kinds) == 0 {
		return room.Tightest{}.Pick(n, devices, r)
	}
	_, picked := g.best(n, devices, r)
	return picked
}

// best is the level of what a task makes useless and, for a share, the device with which it is best.
func (g *Gradient) best(n *room.State, devices []room.Device, r *room.Request) (level int32, picked int) {
	var memory [16]room.Device
	after := append(memory[:0], devices...)
	before := g.useless(n, n.Milli, n.Memory, devices)
	milli, bytes := n.Milli-r.Milli, n.Memory-r.Memory
	if r.GPUMilli == 0 && r.GPUMemory == 0 {
		take(after, r)
		return g.level(before - g.useless(n, milli, bytes, after)), -1
	}
	level, picked = -1, -1
	for i := range devices {
		d := devices[i]
		if !r.FitsShare(&d) || slices.Contains(devices[:i], d) { // an equal one was tried
			continue
		}
		thousandths, share, _ := r.ShareOf(&d)
		after[i].Milli -= int16(thousandths)
		after[i].Memory -= share
		if l := g.level(before - g.useless(n, milli, bytes, after)); l > level {
			level, picked = l, i
		}
		after[i] = d
	}
	return level, picked
}

// take gives whole devices that will do, the first.
func take(devices []room.Device, r *room.Request) {
	for i, wanted := 0, r.GPUs; i < len(devices) && wanted > 0; i++ {
		if d := &devices[i]; d.Whole() && r.Likes(d.Model) {
			d.Milli, d.Memory = 0, 0
			wanted--
		}
	}
}

// level is which step a fall of what is useless reaches, 0 to levels-1; half of levels is no change.
func (g *Gradient) level(fall int64) int32 {
	n, _ := slices.BinarySearch(g.steps, fall+1)
	return int32(n)
}

// useless is the expected room on a node's GPUs that the next task cannot use, in thousandths, times unit and depth.
func (g *Gradient) useless(n *room.State, milli int32, memory int64, devices []room.Device) int64 {
	total, whole := int64(0), int64(0)
	for i := range devices {
		d := &devices[i]
		total += int64(max(0, d.Milli))
		if d.Whole() {
			whole++
		}
	}
	if total == 0 {
		return 0
	}
	sum := int64(0)
	for i := range g.kinds {
		sum += g.kinds[i].weight * g.kinds[i].useless(n, milli, memory, devices, total, whole)
	}
	return sum
}

// useless is the room that a task of the kind cannot use, in thousandths, times depth.
func (k *kind) useless(n *room.State, milli int32, memory int64, devices []room.Device, total, whole int64) int64 {
	if milli < k.Milli || memory < k.Memory || n.Model != room.Mixed && !k.Likes(n.Model) {
		return total * depth
	}
	usable, tasks, each := int64(0), int64(0), k.milli
	switch {
	case k.GPUs > 0:
		if n.Model == room.Mixed && k.Models != 0 {
			whole = wholeOf(devices, k)
		}
		if tasks = whole / int64(k.GPUs); tasks > 0 {
			usable = whole * cluster.WholeGPU
		}
	case k.GPUMilli > 0 || k.GPUMemory > 0:
		for i := range devices {
			d := &devices[i]
			if thousandths, fit := k.fits(d); fit {
				usable += int64(d.Milli)
				tasks += int64(d.Milli) / thousandths
				each = thousandths
			}
		}
	}
	return (total-usable)*depth + (tasks-k.last(tasks, milli, memory))*each
}

func wholeOf(devices []room.Device, k *kind) int64 {
	whole := int64(0)
	for i := range devices {
		if devices[i].Whole() && k.Likes(devices[i].Model) {
			whole++
		}
	}
	return whole
}

// fits is whether a device has room for the kind's share, and how many thousandths of that device it is.
func (k *kind) fits(d *room.Device) (thousandths int64, fit bool) {
	if k.GPUMemory == 0 && k.Models == 0 {
		return k.milli, int64(d.Milli) >= k.milli
	}
	if !k.FitsShare(d) {
		return 1, false
	}
	milli, _, _ := k.ShareOf(d)
	return int64(max(1, milli)), true
}

// last is for how many of so many tasks cores and memory last.
func (k *kind) last(tasks int64, milli int32, memory int64) int64 {
	if k.Milli > 0 {
		tasks = min(tasks, int64(milli)/int64(k.Milli))
	}
	if k.Memory > 0 {
		tasks = min(tasks, memory/k.Memory)
	}
	return tasks
}
