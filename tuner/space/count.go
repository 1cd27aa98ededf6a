package space

import (
	"math"
	"math/bits"
	"slices"
)

// Size is how many configurations there are, before constraints; finite is false if there
// is no end of them, or more than 2^63.
func (s *Space) Size() (size uint64, finite bool) {
	size = 1
	for i := range s.params {
		if s.params[i].parent < 0 {
			size = times(size, s.params[i].count)
		}
	}
	return size, size <= math.MaxInt64
}

// Nth is configuration number n, of Size. Constraints may fail.
func (s *Space) Nth(n uint64) Config {
	c := make(Config, len(s.params))
	for i := range c {
		c[i] = inactive
	}
	for i := range s.params {
		if s.params[i].parent < 0 {
			size := s.params[i].count
			s.pick(i, n%size, c)
			n /= size
		}
	}
	return c
}

// times saturates.
func times(a, b uint64) uint64 {
	high, low := bits.Mul64(a, b)
	if high > 0 || low > math.MaxInt64 {
		return math.MaxUint64
	}
	return low
}

// levels is how many values a parameter has; 0 if there is no end of them.
func (s *Space) levels(i int) int {
	if d := s.params[i].dim; d >= 0 {
		return s.dims[d].Levels
	}
	return 1
}

// forks are the raw values of a parameter under which it has children, sorted.
func (s *Space) forks(i int) []float64 {
	var forks []float64
	for _, child := range s.params[i].children {
		forks = append(forks, s.params[child].when...)
	}
	slices.Sort(forks)
	return slices.Compact(forks)
}

// below counts the configurations of what is active under a value of parameter i.
func (s *Space) below(i int, raw float64) uint64 {
	size := uint64(1)
	for _, child := range s.params[i].children {
		if _, found := slices.BinarySearch(s.params[child].when, raw); found {
			size = times(size, s.params[child].count)
		}
	}
	return size
}

// counted is the number of configurations of a parameter with all that is below it, whose
// counts are known.
func (s *Space) counted(i int) uint64 {
	levels := s.levels(i)
	if levels == 0 {
		return math.MaxUint64
	}
	forks := s.forks(i)
	size := uint64(levels - len(forks))
	for _, raw := range forks {
		below := s.below(i, raw)
		if size += below; below > math.MaxInt64 || size > math.MaxInt64 {
			return math.MaxUint64
		}
	}
	return size
}

// pick sets parameter i and what is below it to number n of its count: first the values
// under which there is nothing, then the forks.
func (s *Space) pick(i int, n uint64, c Config) {
	forks := s.forks(i)
	if plain := uint64(s.levels(i) - len(forks)); n < plain {
		c[i] = s.plain(i, int(n), forks)
		return
	} else {
		n -= plain
	}
	for _, raw := range forks {
		size := s.below(i, raw)
		if n >= size {
			n -= size
			continue
		}
		c[i] = raw
		for _, child := range s.params[i].children {
			if _, found := slices.BinarySearch(s.params[child].when, raw); found {
				size := s.params[child].count
				s.pick(child, n%size, c)
				n /= size
			}
		}
		return
	}
}

// plain is the n-th value of a parameter that is no fork.
func (s *Space) plain(i, n int, forks []float64) float64 {
	q := &s.params[i]
	if q.dim < 0 {
		return q.only()
	}
	axis := s.dims[q.dim].axis
	for _, raw := range forks {
		if axis.levelOf(raw) <= n {
			n++
		}
	}
	return axis.level(n)
}
