package room

import "slices"

// fan is how many children a node of a tree has: a cache line of scores.
const (
	fanBits = 4
	fan     = 1 << fanBits
)

// tree finds the highest of many scores, and of equal ones the first, in the time that it takes to go down
// from the root. Its leaves are the scores; a node above is the highest of the fan below it.
type tree struct {
	leaves []int32
	above  [][]int32 // from the row over the leaves to the root
}

// grow makes room for n leaves; new ones are NoFit.
func (t *tree) grow(n int) {
	if n <= len(t.leaves) {
		return
	}
	full := (n + fan - 1) &^ (fan - 1)
	old := len(t.leaves)
	t.leaves = slices.Grow(t.leaves, full-old)[:full]
	for i := old; i < full; i++ {
		t.leaves[i] = NoFit
	}
	t.build()
}

// build works out all rows from the leaves.
func (t *tree) build() {
	below := t.leaves
	for level := 0; len(below) > 1; level++ {
		if level == len(t.above) {
			t.above = append(t.above, nil)
		}
		size := (len(below) + fan - 1) / fan
		row := slices.Grow(t.above[level][:0], size)[:size]
		for i := range row {
			row[i] = slices.Max(below[i*fan : min(len(below), (i+1)*fan)])
		}
		t.above[level] = row
		below = row
	}
}

// set changes one score, and as little above it as it can.
func (t *tree) set(i int, score int32) {
	old := t.leaves[i]
	if old == score {
		return
	}
	t.leaves[i] = score
	below := t.leaves
	for _, row := range t.above {
		i >>= fanBits
		top := row[i]
		switch {
		case score > top:
			row[i] = score
		case old == top:
			score = slices.Max(below[i*fan : min(len(below), (i+1)*fan)])
			if score == top {
				return
			}
			row[i] = score
		default:
			return
		}
		old, below = top, row
	}
}

// first is the place of the highest score, or -1 if all are NoFit.
func (t *tree) first() int {
	if len(t.leaves) == 0 {
		return -1
	}
	i, level := 0, len(t.above)-1
	top := t.above[level][0]
	if top == NoFit {
		return -1
	}
	for level--; level >= 0; level-- {
		for i <<= fanBits; t.above[level][i] != top; i++ {
		}
	}
	for i <<= fanBits; t.leaves[i] != top; i++ {
	}
	return i
}
