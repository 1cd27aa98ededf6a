package importance

import (
	"cmp"
	"math"
	"slices"

	"github.com/clary-ml/clary/tuner/chance"
	"github.com/clary-ml/clary/tuner/space"
)

// sample is what a forest learns from: points of the unit cube with their losses.
type sample struct {
	dims   []space.Dim
	points [][]float64
	losses []float64
}

// Settings of the forest. Each tree sees a bootstrap of the points, and each split a random
// share of the dimensions.
const (
	trees     = 64
	leastLeaf = 3
	deepest   = 32
	tried     = 5.0 / 6
)

// leaf is a box of the cube with the mean loss in it.
type leaf struct {
	loss  float64
	boxes []extent // of each dimension
}

// extent is how far a leaf reaches in one dimension: an interval, or a set of levels.
type extent struct {
	from, to float64
	levels   []bool // of choices without an order; nil otherwise
}

// share is the part of the dimension that the extent covers.
func (e extent) share() float64 {
	if e.levels == nil {
		return e.to - e.from
	}
	n := 0
	for _, in := range e.levels {
		if in {
			n++
		}
	}
	return float64(n) / float64(len(e.levels))
}

// grow makes a regression tree: L. Breiman, "Random Forests", Machine Learning 45 (2001).
func (s sample) grow(r *chance.Rand) []leaf {
	bag := make([]int, len(s.points))
	for i := range bag {
		bag[i] = r.IntN(len(s.points))
	}
	whole := make([]extent, len(s.dims))
	for i, d := range s.dims {
		whole[i] = extent{to: 1}
		if d.Kind == space.Nominal {
			whole[i].levels = slices.Repeat([]bool{true}, d.Levels)
		}
	}
	var leaves []leaf
	s.divide(r, bag, whole, 0, &leaves)
	return leaves
}

// divide splits a box where it pays most, down to leaves.
func (s sample) divide(r *chance.Rand, bag []int, box []extent, depth int, leaves *[]leaf) {
	best := split{gain: 1e-12}
	if depth < deepest && len(bag) >= 2*leastLeaf {
		order := r.Perm(len(s.dims))
		for _, dim := range order[:int(math.Ceil(tried*float64(len(order))))] {
			if one := s.bestSplit(bag, dim); one.gain > best.gain {
				best = one
			}
		}
	}
	if best.left == nil {
		sum := 0.0
		for _, i := range bag {
			sum += s.losses[i] / float64(len(bag))
		}
		*leaves = append(*leaves, leaf{loss: sum, boxes: box})
		return
	}
	left, right := slices.Clone(box), slices.Clone(box)
	if levels := box[best.dim].levels; levels != nil {
		left[best.dim].levels, right[best.dim].levels = slices.Clone(levels), slices.Clone(levels)
		for level := range levels {
			side, seen := best.sides[level]
			if !seen { // no point of the bag has it: it goes with the many
				side = len(best.left) > len(best.right)
			}
			left[best.dim].levels[level] = levels[level] && side
			right[best.dim].levels[level] = levels[level] && !side
		}
	} else {
		left[best.dim].to, right[best.dim].from = best.at, best.at
	}
	s.divide(r, best.left, left, depth+1, leaves)
	s.divide(r, best.right, right, depth+1, leaves)
}

// split divides a bag along one dimension.
type split struct {
	gain        float64 // by how much the sum of squares falls, in shares of it
	dim         int
	at          float64      // of intervals
	sides       map[int]bool // of levels: true is left
	left, right []int
}

// bestSplit goes along the dimension. Levels without an order are put in that of their mean
// losses, in which the best division of all lies: Fisher, JASA 53 (1958).
func (s sample) bestSplit(bag []int, dim int) split {
	key := func(i int) float64 { return s.points[i][dim] }
	d := s.dims[dim]
	if d.Kind == space.Nominal {
		sums, counts := make(map[int]float64), make(map[int]float64)
		for _, i := range bag {
			level := d.Nearest(s.points[i][dim])
			sums[level] += s.losses[i]
			counts[level]++
		}
		key = func(i int) float64 {
			level := d.Nearest(s.points[i][dim])
			return sums[level] / counts[level]
		}
	}
	sorted := slices.Clone(bag)
	slices.SortFunc(sorted, func(a, b int) int { return cmp.Or(cmp.Compare(key(a), key(b)), cmp.Compare(a, b)) })
	total, squares := 0.0, 0.0
	for _, i := range sorted {
		total += s.losses[i]
		squares += s.losses[i] * s.losses[i]
	}
	n := float64(len(sorted))
	spread := squares - total*total/n
	best, cut := 0.0, 0
	before := 0.0
	for k := range len(sorted) - 1 {
		before += s.losses[sorted[k]]
		left := float64(k + 1)
		if k+1 < leastLeaf || len(sorted)-k-1 < leastLeaf || key(sorted[k]) == key(sorted[k+1]) {
			continue
		}
		if gain := before*before/left + (total-before)*(total-before)/(n-left) - total*total/n; gain > best {
			best, cut = gain, k+1
		}
	}
	if cut == 0 || spread <= 0 {
		return split{}
	}
	one := split{gain: best / spread, dim: dim, left: sorted[:cut], right: sorted[cut:]}
	if d.Kind != space.Nominal {
		one.at = (key(sorted[cut-1]) + key(sorted[cut])) / 2
		return one
	}
	one.sides = make(map[int]bool)
	for k, i := range sorted {
		one.sides[d.Nearest(s.points[i][dim])] = k < cut
	}
	return one
}
