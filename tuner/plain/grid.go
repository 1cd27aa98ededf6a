package plain

import (
	"fmt"
	"math"
	"slices"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/chance"
	"github.com/clary-ml/clary/tuner/expr"
	"github.com/clary-ml/clary/tuner/space"
)

// Limits on what Grid makes of a range.
const (
	// wholeLevels is up to how many levels a range is walked through whole; others, and
	// continuous ones, get points at even distances on their scale.
	wholeLevels = 32
	// defaultPoints are those of such a range if the budget is unknown.
	defaultPoints = 5
	maxPoints     = 100
)

// Grid tries all combinations, in a random order, so that a search that is cut short has
// been everywhere. A range without levels, or with more than 32, gets as many points as the
// budget has room for: at least 2, or 5 if there is no budget. Then it is exhausted.
func Grid(p tuner.Problem) (tuner.Sampler, error) {
	points := defaultPoints
	if p.Budget > 0 {
		points = 2
		for points < maxPoints && gridSize(p.Space, points+1) <= uint64(p.Budget) {
			points++
		}
	}
	grid, err := thinned(p.Space, points)
	if err != nil {
		return nil, err
	}
	size, finite := grid.Size()
	if !finite {
		return nil, fault.New(fault.Invalid, "the grid has more than 2^63 points: take fewer parameters, or another sampler")
	}
	return &gridWalk{grid: grid, order: chance.NewOrder(size, p.Seed, 'g', 'r', 'i', 'd')}, nil
}

func gridSize(s *space.Space, points int) uint64 {
	grid, err := thinned(s, points)
	if err != nil {
		return math.MaxUint64
	}
	size, _ := grid.Size()
	return size
}

// thinned is the space with so many points in place of each long range. Ranges that
// conditions hang on stay whole.
func thinned(s *space.Space, points int) (*space.Space, error) {
	spec := s.Spec()
	spec.Parameters = append([]space.Parameter(nil), spec.Parameters...)
	parents := make(map[string]bool)
	for _, q := range spec.Parameters {
		if q.When != nil {
			parents[q.When.Parameter] = true
		}
	}
	dims := make(map[string]space.Dim)
	for _, d := range s.Dims() {
		dims[d.Name] = d
	}
	for i, q := range spec.Parameters {
		d, free := dims[q.Name]
		numeric := q.Type == space.Float || q.Type == space.Int
		if !free || !numeric || parents[q.Name] || d.Levels > 0 && d.Levels <= max(wholeLevels, points) {
			continue
		}
		choices := make([]expr.Value, points)
		for k := range choices {
			choices[k] = expr.Num(d.Raw(float64(k) / float64(points-1)))
		}
		// Near the lower end of a log scale several points may be the same int.
		spec.Parameters[i] = space.Parameter{Name: q.Name, Type: space.Ordered, Choices: slices.Compact(choices), When: q.When}
	}
	grid, err := spec.Compile()
	if err != nil {
		return nil, fmt.Errorf("the grid of the space: %w", err)
	}
	return grid, nil
}

// gridWalk suggests the first point of its order that is fresh.
type gridWalk struct {
	grid  *space.Space
	order chance.Order
	next  uint64
	of    *tuner.History
}

func (g *gridWalk) Suggest(h *tuner.History) (space.Config, error) {
	if g.of != h {
		g.of, g.next = h, 0
	}
	for ; g.next < g.order.Size; g.next++ {
		c, ok := h.Problem().Space.Translate(g.grid, g.grid.Nth(g.order.At(g.next)))
		if ok && !h.Seen(c) {
			return c, nil
		}
	}
	return nil, tuner.ErrExhausted
}
