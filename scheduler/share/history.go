package share

import (
	"math/bits"
	"slices"
	"time"

	"github.com/clary-ml/clary/cluster"
)

// History is what a queue has held of late: the mean over the past in which what was held one half-life
// ago counts half. Cores and GPUs are in parts of 2^-20 of a thousandth, so that short uses are not
// lost; memory is in bytes.
type History struct {
	Mean cluster.Amount
	At   int64 // the instant it is of, a whole second; 0 is none yet
}

const second = int64(time.Second)

// Later is the history at a later instant, when the amount was held since. It goes on in whole
// seconds, and what is left of the last counts to the next change: the same history and instants give
// the same numbers on every machine, since only integers are used. A clock that went back changes
// nothing, and without a half-life nothing is remembered.
func (h History) Later(used cluster.Amount, now int64, halfLife time.Duration) History {
	keep, at := step(h.At, now, int64(halfLife/time.Second))
	next := History{At: at}
	if halfLife <= 0 {
		return next
	}
	next.Mean = cluster.Amount{
		MilliCPU: blend(h.Mean.MilliCPU, used.MilliCPU, keep, fraction(cores)),
		Memory:   blend(h.Mean.Memory, used.Memory, keep, fraction(memory)),
		MilliGPU: blend(h.Mean.MilliGPU, used.MilliGPU, keep, fraction(gpus)),
	}
	for _, m := range h.Mean.Plus(used, 1).Models { // all that either names
		resource := cluster.ResourceGPUs + "/" + m.Model
		if mean := blend(h.Mean.Of(resource), used.Of(resource), keep, fraction(firstModel)); mean > 0 {
			next.Mean.Models = append(next.Mean.Models, cluster.ModelAmount{Model: m.Model, Milli: mean})
		}
	}
	return next
}

// remember brings a leaf's history to the tree's now.
func (t *Tree) remember(i int32) {
	n := &t.nodes[i]
	if len(n.children) > 0 {
		return
	}
	keep, at := step(n.at, t.now, n.half)
	if n.at = at; keep == one {
		return
	}
	for r := range n.history {
		n.history[r] = blend(n.history[r], n.used[r], keep, fraction(r))
		if n.half == 0 {
			n.history[r] = 0
		}
	}
	t.recall(i)
}

// Remember replaces what is remembered of a queue. What it holds since then is taken to be what it holds
// now.
func (t *Tree) Remember(queue string, h History) {
	t.learn(h.Mean)
	i, known := t.byName[queue]
	if !known || len(t.nodes[i].children) > 0 {
		return
	}
	n := &t.nodes[i]
	var room buffer
	n.history, n.at = slices.Clone(t.vec(h.Mean, &room)), h.At
	t.recall(i)
	t.remember(i)
	t.touch(i)
}

// recall tells all above a leaf what its history is now.
func (t *Tree) recall(i int32) {
	n := &t.nodes[i]
	for r := range n.history {
		change := n.history[r]>>fraction(r) - n.mean[r]
		for up := i; change != 0 && up >= 0; up = t.nodes[up].parent {
			t.nodes[up].mean[r] += change
		}
	}
}

// fraction is how many binary digits a history has behind the point.
func fraction(resource int) uint {
	if resource == memory {
		return 0
	}
	return 20
}

// step is what part of the mean at an instant counts at a later one, and which instant that is.
func step(at, now, halfLife int64) (keep uint64, next int64) {
	switch whole := now - now%second; {
	case halfLife <= 0:
		return 0, max(at, whole)
	case at == 0:
		return one, whole
	case whole <= at:
		return one, at
	default:
		return decay((whole-at)/second, halfLife), whole
	}
}

// one is 1 as a fixed-point number.
const one = uint64(1) << 62

// roots are 2^-(1/2), 2^-(1/4), 2^-(1/8), ... as parts of one.
var roots = [40]uint64{
	0x2d413cccfe779921, 0x35d13f32b5a75abd, 0x3ab031b9f7490e4c, 0x3d495f454921b30b,
	0x3ea0ecb6dc8a80cf, 0x3f4f83033d21b05d, 0x3fa784571ee3e213, 0x3fd3b2d65447b229,
	0x3fe9d59487236bb4, 0x3ff4e9d4703df843, 0x3ffa74acbdf6c9d5, 0x3ffd3a46ffc6e30f,
	0x3ffe9d1fa8010199, 0x3fff4e8ede053ad5, 0x3fffa747318376ac, 0x3fffd3a38961e6ff,
	0x3fffe9d1c0d8fd14, 0x3ffff4e8df7680c5, 0x3ffffa746f7dc0ec, 0x3ffffd3a37af8098,
	0x3ffffe9d1bd3e854, 0x3fffff4e8de8fe2c, 0x3fffffa746f44197, 0x3fffffd3a37a116b,
	0x3fffffe9d1bd04de, 0x3ffffff4e8de8179, 0x3ffffffa746f407f, 0x3ffffffd3a37a030,
	0x3ffffffe9d1bd014, 0x3fffffff4e8de809, 0x3fffffffa746f404, 0x3fffffffd3a37a02,
	0x3fffffffe9d1bd01, 0x3ffffffff4e8de81, 0x3ffffffffa746f40, 0x3ffffffffd3a37a0,
	0x3ffffffffe9d1bd0, 0x3fffffffff4e8de8, 0x3fffffffffa746f4, 0x3fffffffffd3a37a,
}

// decay is 2^-(seconds/halfLife), as a part of one.
func decay(seconds, halfLife int64) uint64 {
	halfLife = max(halfLife, 1)
	whole := seconds / halfLife
	if whole >= 62 {
		return 0
	}
	// The fraction in binary: each digit that is set is one more square root of one half.
	keep := one
	rest, part := uint64(seconds%halfLife), uint64(halfLife)
	for _, root := range roots {
		rest *= 2
		if rest >= part {
			rest -= part
			keep = times(keep, root)
		}
		if rest == 0 {
			break
		}
	}
	return keep >> whole
}

// times multiplies two parts of one.
func times(a, b uint64) uint64 {
	high, low := bits.Mul64(a, b)
	return high<<2 | low>>62
}

// blend is mean*keep + used*(1-keep), rounded to the nearest; the mean has so many binary digits behind
// the point.
func blend(mean, used int64, keep uint64, digits uint) int64 {
	if keep == one {
		return mean
	}
	used = max(0, min(used, unlimited>>digits))
	high, low := bits.Mul64(uint64(max(0, mean)), keep)
	high2, low2 := bits.Mul64(uint64(used)<<digits, one-keep)
	low, carry := bits.Add64(low, low2, 0)
	high, _ = bits.Add64(high, high2, carry)
	low, carry = bits.Add64(low, one/2, 0)
	high += carry
	return int64(high<<2 | low>>62)
}
