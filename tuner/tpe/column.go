package tpe

import (
	"cmp"
	"math"
	"slices"

	"github.com/clary-ml/clary/tuner/chance"
	"github.com/clary-ml/clary/tuner/space"
)

// column is one dimension of all kernels of a mixture. A kernel is a normal, cut off at the
// ends of [0,1]; on a grid its mass in the cell of each level; for choices without an order
// a weight on the same one. Kernels of trials in which the dimension was not active are as
// wide as the prior.
type column struct {
	dim    space.Dim
	x      []float64 // of each kernel; the prior's comes last
	levels []int     // of choices without an order, none if not active; of others none or 0

	sigma, inverse, norm []float64   // of normals; norm is what each is divided by, as a logarithm
	masses               [][]float64 // of grids: the log of the mass, by level and kernel
	same, other, any     float64     // of choices: the logs of the weights on a kernel's own, each other, and of the prior
}

// fewLevels is up to how many levels masses are worked out. With more of them the density
// at a level stands for its mass: the widths of cells cancel between mixtures.
const fewLevels = 64

func newColumn(dim space.Dim, room int) column {
	return column{dim: dim, x: make([]float64, 0, room), levels: make([]int, 0, room)}
}

func (c *column) add(x float64, active bool) {
	level := 0
	switch {
	case !active:
		x, level = 0.5, none
	case c.dim.Kind == space.Nominal:
		level = c.dim.Nearest(x)
	}
	c.x = append(c.x, x)
	c.levels = append(c.levels, level)
}

// finish adds the prior and works out the kernels, on a grid with Scott's bandwidth.
func (c *column) finish(scott, least float64) {
	c.add(0, false)
	n := len(c.x)
	if c.dim.Kind == space.Nominal {
		share, total := 1/float64(n), 1+float64(c.dim.Levels)/float64(n)
		c.same, c.other, c.any = math.Log((1+share)/total), math.Log(share/total), -math.Log(float64(c.dim.Levels))
		return
	}
	c.sigma = make([]float64, n)
	for k := range c.sigma {
		if c.sigma[k] = 1; c.levels[k] != none {
			c.sigma[k] = min(scott, 1)
		}
	}
	if c.dim.Kind == space.Continuous {
		c.spread(least)
	}
	if c.dim.Levels > 0 && c.dim.Levels <= fewLevels {
		c.weigh()
		return
	}
	c.inverse, c.norm = make([]float64, n), make([]float64, n)
	for k := range c.norm {
		c.inverse[k] = 1 / c.sigma[k]
		c.norm[k] = math.Log(c.sigma[k] * math.Sqrt(2*math.Pi) * between(c.x[k], c.sigma[k], 0, 1))
	}
}

// spread sets each kernel's sigma to the distance of the farther of its neighbours, but to
// no less than the least. On a grid that would say nothing: neighbours share a level.
func (c *column) spread(least float64) {
	var order []int
	for k, level := range c.levels {
		if level != none {
			order = append(order, k)
		}
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Or(cmp.Compare(c.x[a], c.x[b]), cmp.Compare(a, b)) })
	for at, k := range order {
		distance := 0.0
		if at > 0 {
			distance = c.x[k] - c.x[order[at-1]]
		}
		if at < len(order)-1 {
			distance = max(distance, c.x[order[at+1]]-c.x[k])
		}
		if len(order) == 1 {
			distance = max(c.x[k], 1-c.x[k])
		}
		c.sigma[k] = min(max(distance, least), 1)
	}
}

// weigh works out the masses. Kernels on the same level share them.
func (c *column) weigh() {
	type normal struct{ mu, sigma float64 }
	known := make(map[normal][]float64)
	c.masses = make([][]float64, c.dim.Levels)
	for level := range c.masses {
		c.masses[level] = make([]float64, len(c.x))
	}
	for k, mu := range c.x {
		of := normal{mu, c.sigma[k]}
		row, found := known[of]
		if !found {
			row = make([]float64, c.dim.Levels)
			for level := range row {
				from, to := c.dim.Cell(level)
				row[level] = math.Log(max(between(mu, of.sigma, from, to), 1e-300)) - math.Log(between(mu, of.sigma, 0, 1))
			}
			known[of] = row
		}
		for level, mass := range row {
			c.masses[level][k] = mass
		}
	}
}

// between is the probability of [from, to] under a normal.
func between(mu, sigma, from, to float64) float64 {
	a, b := (from-mu)/(sigma*math.Sqrt2), (to-mu)/(sigma*math.Sqrt2)
	if a > 0 { // in the upper tail, where 1 - Phi keeps its digits
		return (math.Erfc(a) - math.Erfc(b)) / 2
	}
	return (math.Erfc(-b) - math.Erfc(-a)) / 2
}

// score adds each kernel's logarithm at coordinate x.
func (c *column) score(x float64, scores []float64) {
	switch {
	case c.dim.Kind == space.Nominal:
		level := c.dim.Nearest(x)
		for k, own := range c.levels {
			switch own {
			case level:
				scores[k] += c.same
			case none:
				scores[k] += c.any
			default:
				scores[k] += c.other
			}
		}
	case c.masses != nil:
		for k, mass := range c.masses[c.dim.Nearest(x)] {
			scores[k] += mass
		}
	default:
		for k, mu := range c.x {
			z := (x - mu) * c.inverse[k]
			scores[k] -= z*z/2 + c.norm[k]
		}
	}
}

// draw is a random coordinate of kernel k.
func (c *column) draw(r *chance.Rand, k int) float64 {
	u := r.Float64()
	if c.dim.Kind == space.Nominal {
		if c.levels[k] == none || r.Float64() >= math.Exp(c.same)-math.Exp(c.other) {
			return c.dim.Snap(u)
		}
		return c.x[k]
	}
	mu, sigma := c.x[k], c.sigma[k]
	low := 0.5 * math.Erfc(mu/sigma/math.Sqrt2)
	high := 0.5 * math.Erfc((mu-1)/sigma/math.Sqrt2)
	return c.dim.Snap(mu + sigma*math.Sqrt2*math.Erfinv(2*(low+u*(high-low))-1))
}
