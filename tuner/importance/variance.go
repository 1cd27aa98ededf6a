package importance

import (
	"slices"

	"github.com/clary-ml/clary/tuner/space"
)

// tree is a regression tree as boxes, with the pieces that its borders cut each dimension
// into: intervals, or levels.
type tree struct {
	leaves   []leaf
	pieces   [][]float64 // of each dimension the shares of its pieces
	borders  [][]float64 // of dimensions with an order: where each piece begins, and the end
	volumes  []float64   // of leaves
	mean     float64
	variance float64
}

func newTree(s sample, leaves []leaf) tree {
	t := tree{leaves: leaves, pieces: make([][]float64, len(s.dims)), borders: make([][]float64, len(s.dims))}
	for dim, d := range s.dims {
		if d.Kind == space.Nominal {
			t.pieces[dim] = slices.Repeat([]float64{1 / float64(d.Levels)}, d.Levels)
			continue
		}
		borders := []float64{0, 1}
		for _, l := range leaves {
			borders = append(borders, l.boxes[dim].from)
		}
		slices.Sort(borders)
		borders = slices.Compact(borders)
		t.borders[dim] = borders
		for i := range len(borders) - 1 {
			t.pieces[dim] = append(t.pieces[dim], borders[i+1]-borders[i])
		}
	}
	for _, l := range leaves {
		volume := 1.0
		for _, e := range l.boxes {
			volume *= e.share()
		}
		t.volumes = append(t.volumes, volume)
		t.mean += volume * l.loss
	}
	for i, l := range leaves {
		t.variance += t.volumes[i] * (l.loss - t.mean) * (l.loss - t.mean)
	}
	return t
}

// run is a range of pieces.
type run struct{ from, to int }

// runs are the pieces of a dimension that a leaf covers.
func (t tree) runs(l leaf, dim int) []run {
	e := l.boxes[dim]
	if e.levels == nil {
		from, _ := slices.BinarySearch(t.borders[dim], e.from)
		to, _ := slices.BinarySearch(t.borders[dim], e.to)
		return []run{{from, to}}
	}
	var runs []run
	for level, in := range e.levels {
		switch {
		case !in:
		case len(runs) > 0 && runs[len(runs)-1].to == level:
			runs[len(runs)-1].to++
		default:
			runs = append(runs, run{level, level + 1})
		}
	}
	return runs
}

// single is the variance of the mean over all other dimensions.
func (t tree) single(dim int) float64 {
	steps := make([]float64, len(t.pieces[dim])+1)
	for i, l := range t.leaves {
		share := l.boxes[dim].share()
		if share == 0 {
			continue
		}
		value := (l.loss - t.mean) * t.volumes[i] / share
		for _, r := range t.runs(l, dim) {
			steps[r.from] += value
			steps[r.to] -= value
		}
	}
	variance, value := 0.0, 0.0
	for piece, share := range t.pieces[dim] {
		value += steps[piece]
		variance += share * value * value
	}
	return variance
}

// pair is the variance of the mean over all dimensions but two.
func (t tree) pair(a, b int) float64 {
	width := len(t.pieces[b]) + 1
	steps := make([]float64, (len(t.pieces[a])+1)*width)
	for i, l := range t.leaves {
		share := l.boxes[a].share() * l.boxes[b].share()
		if share == 0 {
			continue
		}
		value := (l.loss - t.mean) * t.volumes[i] / share
		for _, p := range t.runs(l, a) {
			for _, q := range t.runs(l, b) {
				steps[p.from*width+q.from] += value
				steps[p.from*width+q.to] -= value
				steps[p.to*width+q.from] -= value
				steps[p.to*width+q.to] += value
			}
		}
	}
	variance := 0.0
	above := make([]float64, width) // sums of steps down each column
	for p, shareA := range t.pieces[a] {
		value := 0.0
		for q, shareB := range t.pieces[b] {
			above[q] += steps[p*width+q]
			value += above[q]
			variance += shareA * shareB * value * value
		}
	}
	return variance
}
