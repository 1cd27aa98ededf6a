package space

import "slices"

// Kind is what the coordinates of a dimension mean to a model.
type Kind uint8

const (
	// Continuous coordinates are any number of [0,1].
	Continuous Kind = iota
	// Grid coordinates are levels in an order: steps, ints and ordered choices.
	Grid
	// Nominal coordinates are levels in no order: they are equal or not.
	Nominal
)

// Dim is one free parameter as a dimension of the unit cube.
type Dim struct {
	Name   string
	Param  int  // its place in a Config
	Kind   Kind //
	Levels int  // how many coordinates there are; 0 if continuous
	Parent int  // the dimension that decides whether this one is active; -1: it always is

	axis  axis
	under []int // levels of the parent under which it is active, sorted
}

// newDim looks past ancestors that have one value only: what is under them depends on the
// next free ancestor.
func (s *Space) newDim(own int, one param, levels int) Dim {
	d := Dim{Name: one.Name, Param: own, Levels: levels, Parent: -1, axis: one.axis}
	switch {
	case one.Type == Categorical:
		d.Kind = Nominal
	case levels > 0:
		d.Kind = Grid
	}
	if one.choices != nil {
		d.axis = newAxis(0, float64(levels-1), 1, levels, Linear)
	}
	for at := one; at.parent >= 0; {
		parent := s.params[at.parent]
		if parent.dim >= 0 {
			d.Parent = parent.dim
			for _, raw := range at.when {
				d.under = append(d.under, s.dims[parent.dim].LevelOf(raw))
			}
			break
		}
		at = parent
	}
	return d
}

// At is the coordinate of a level.
func (d Dim) At(level int) float64 { return d.axis.unit(d.axis.level(level)) }

// Nearest is the level whose coordinate is nearest to x. The dimension must have levels.
func (d Dim) Nearest(x float64) int { return d.axis.nearest(x) }

// Cell is the part of [0,1] to which a level is the nearest.
func (d Dim) Cell(level int) (from, to float64) {
	at := d.At(level)
	from, to = 0, 1
	if level > 0 {
		from = (d.At(level-1) + at) / 2
	}
	if level < d.Levels-1 {
		to = (at + d.At(level+1)) / 2
	}
	return from, to
}

// Raw is the number of a Config that lies nearest to the coordinate x.
func (d Dim) Raw(x float64) float64 { return d.axis.value(x) }

// LevelOf is the level of a raw number of a Config.
func (d Dim) LevelOf(raw float64) int { return d.axis.levelOf(raw) }

// Snap is the coordinate nearest to x that the dimension has.
func (d Dim) Snap(x float64) float64 {
	if d.Levels == 0 {
		return min(max(x, 0), 1)
	}
	return d.At(d.Nearest(x))
}

// Under reports whether the dimension is active when its parent is and has the level.
func (d Dim) Under(level int) bool {
	_, found := slices.BinarySearch(d.under, level)
	return found
}

// Dims are the free dimensions, parents before children. The caller must not change them.
func (s *Space) Dims() []Dim { return s.dims }

// Active sets the mask of the dimensions that are active at the coordinates x.
func (s *Space) Active(x []float64, active []bool) {
	for i := range s.dims {
		d := &s.dims[i]
		active[i] = d.Parent < 0 || active[d.Parent] && d.Under(s.dims[d.Parent].Nearest(x[d.Parent]))
	}
}

// Encode writes a configuration's coordinates and the mask of the active ones. The
// coordinates of inactive dimensions are 0.5.
func (s *Space) Encode(c Config, x []float64, active []bool) {
	for i := range s.dims {
		d := &s.dims[i]
		raw := c[d.Param]
		active[i] = raw == raw
		x[i] = 0.5
		if active[i] {
			x[i] = d.axis.unit(raw)
		}
	}
}

// Decode makes the configuration whose coordinates are nearest to x. Every x of the cube
// has one; that of an inactive dimension is not read. Constraints may fail (see Admits).
func (s *Space) Decode(x []float64) Config {
	c := make(Config, len(s.params))
	s.DecodeTo(x, c)
	return c
}

// DecodeTo is Decode into a Config that is there already.
func (s *Space) DecodeTo(x []float64, c Config) {
	for i := range s.params {
		q := &s.params[i]
		switch {
		case !s.isActive(c, q):
			c[i] = inactive
		case q.dim >= 0:
			c[i] = s.dims[q.dim].axis.value(x[q.dim])
		case q.choices != nil:
			c[i] = 0
		default:
			c[i] = q.axis.low
		}
	}
}

// isActive expects that the parent's place in c is set.
func (s *Space) isActive(c Config, q *param) bool {
	if q.parent < 0 {
		return true
	}
	_, found := slices.BinarySearch(q.when, c[q.parent])
	return found
}
