package space

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/tuner/expr"
)

// Config is a point of a Space: for each of its parameters a number. That of a float or
// int is its value, of choices the index, of a constant 0, and NaN where the parameter is
// not active.
type Config []float64

var inactive = math.NaN()

// Key is the same for two configurations of a Space exactly if they are the same.
func (c Config) Key() string {
	key := make([]byte, 0, 8*len(c))
	for _, raw := range c {
		if raw != raw {
			raw = inactive // of all bit patterns this one
		}
		key = binary.LittleEndian.AppendUint64(key, math.Float64bits(raw+0))
	}
	return string(key)
}

// Spec is what the space was made from. The caller must not change it.
func (s *Space) Spec() Spec { return s.spec }

// Names are the parameters in the order of a Config.
func (s *Space) Names() []string {
	names := make([]string, len(s.params))
	for i := range s.params {
		names[i] = s.params[i].Name
	}
	return names
}

// Values are the active parameters of a configuration.
func (s *Space) Values(c Config) map[string]expr.Value {
	values := make(map[string]expr.Value, len(c))
	for i := range s.params {
		if raw := c[i]; raw == raw {
			values[s.params[i].Name] = s.params[i].value(raw)
		}
	}
	return values
}

// Parse makes a configuration from values, or returns every mistake: a parameter that is
// missing or must not be there, a value that it cannot have, a constraint that fails. What
// has one value only may be left out.
func (s *Space) Parse(values map[string]expr.Value) (Config, cluster.Problems) {
	var p cluster.Problems
	for _, name := range sortedKeys(values) {
		if _, known := s.index[name]; !known {
			p.Add(name, "there is no such parameter")
		}
	}
	c := make(Config, len(s.params))
	known := make([]bool, len(s.params))
	for i := range s.params {
		q := &s.params[i]
		v, given := values[q.Name]
		c[i] = inactive
		if q.parent >= 0 && !known[q.parent] && given {
			continue // whether it may be there is unknown: its parent is wrong
		}
		known[i] = true
		switch active := s.isActive(c, q); {
		case !active && given:
			p.Add(q.Name, "is not active with %s as it is: leave it out", s.params[q.parent].Name)
		case !active:
		case given:
			if c[i], known[i] = q.raw(v); !known[i] {
				c[i] = inactive
				p.Add(q.Name, "%q: %s", cluster.Clip(v.String()), q.remedy())
			}
		case q.dim < 0:
			c[i] = q.only()
		default:
			known[i] = false
			p.Add(q.Name, "is missing: %s", q.remedy())
		}
	}
	if len(p) == 0 {
		s.checkConstraints(&p, c)
	}
	return c, p
}

// Check returns every reason why c is no configuration of the space.
func (s *Space) Check(c Config) cluster.Problems {
	var p cluster.Problems
	if len(c) != len(s.params) {
		p.Add("", "%d numbers for %d parameters", len(c), len(s.params))
		return p
	}
	for i := range s.params {
		q := &s.params[i]
		active, set := s.isActive(c, q), c[i] == c[i]
		switch {
		case active && !set:
			p.Add(q.Name, "is missing: %s", q.remedy())
		case !active && set:
			p.Add(q.Name, "is not active with %s as it is: leave it out", s.params[q.parent].Name)
		case active && !q.has(c[i]):
			p.Add(q.Name, "%v: %s", c[i], q.remedy())
		}
	}
	if len(p) == 0 {
		s.checkConstraints(&p, c)
	}
	return p
}

func (s *Space) checkConstraints(p *cluster.Problems, c Config) {
	for _, one := range s.constraints {
		if !s.holds(one, c) {
			p.Add("", "the constraint %s does not hold", one.expr)
		}
	}
}

// Admits reports whether all constraints hold that bind at c, which is otherwise right.
func (s *Space) Admits(c Config) bool {
	return !slices.ContainsFunc(s.constraints, func(one constraint) bool { return !s.holds(one, c) })
}

// Constrained reports that there are constraints at all.
func (s *Space) Constrained() bool { return len(s.constraints) > 0 }

func (s *Space) holds(one constraint, c Config) bool {
	var room [8]expr.Value
	args := room[:0]
	for _, i := range one.params {
		if c[i] != c[i] {
			return true
		}
		args = append(args, s.params[i].value(c[i]))
	}
	return one.expr.Holds(args)
}

// Start is the configuration of the defaults, of the middle where there is none, and of
// the first of choices without an order.
func (s *Space) Start() Config {
	c := make(Config, len(s.params))
	for i := range s.params {
		q := &s.params[i]
		switch {
		case !s.isActive(c, q):
			c[i] = inactive
		case q.fallback == q.fallback:
			c[i] = q.fallback
		case q.dim < 0:
			c[i] = q.only()
		case q.Type == Categorical:
			c[i] = 0
		default:
			c[i] = s.dims[q.dim].axis.value(0.5)
		}
	}
	return c
}

// Translate makes a configuration of s from one of another space, by names. A parameter
// that the other lacked is taken to have been at its default. ok is false if there is none,
// or a value lies outside s: such a point says nothing about s.
func (s *Space) Translate(from *Space, c Config) (translated Config, ok bool) {
	translated = make(Config, len(s.params))
	for i := range s.params {
		q := &s.params[i]
		if !s.isActive(translated, q) {
			translated[i] = inactive
			continue
		}
		raw := q.fallback
		if j, known := from.index[q.Name]; known && c[j] == c[j] {
			if raw, ok = q.raw(from.params[j].value(c[j])); !ok {
				return nil, false
			}
		}
		if raw != raw {
			return nil, false
		}
		translated[i] = raw
	}
	return translated, s.Admits(translated)
}

// only is the raw number of a parameter that has one value.
func (q *param) only() float64 {
	if q.choices != nil {
		return 0
	}
	return q.axis.low
}

// remedy says what the parameter can be.
func (q *param) remedy() string {
	return "give " + q.describe()
}
