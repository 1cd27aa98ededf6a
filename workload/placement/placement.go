// Package placement is what a job says of where its tasks run: constraints on nodes and their GPUs,
// affinity to other jobs, tolerated taints, topology, and whether tasks spread or pack. It is text for
// people, read into the nouns that the scheduler knows.
package placement

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/quantity"
)

// Spec is the part of a job file; the zero Spec asks for nothing.
type Spec struct {
	// Constraints are what a node or its GPUs must be like: "rack in (r1, r2)", "gpu.memory >= 40GiB",
	// "cores > 8", "disk-type != hdd", "exists nvme". One that ends with "weight 50" is only preferred.
	Constraints []string `json:"constraints,omitempty"`
	// Affinity draws tasks to where those of another job, or of jobs with a label, run:
	// "job=loader per rack", "team=vision". AntiAffinity keeps them apart. Each is per node if it does
	// not say, and only preferred with a weight.
	Affinity     []string `json:"affinity,omitempty"`
	AntiAffinity []string `json:"anti_affinity,omitempty"`
	// Tolerations are taints that do not keep tasks off a node: "team=vision", "gpu" for any value,
	// "gpu:prefer-not" for one effect, "*" for all.
	Tolerations []string `json:"tolerations,omitempty"`
	// Topology is nvlink or numa for the devices of each task, node, rack or zone for all tasks of a
	// gang; "rack,preferred" does without if there is no such room.
	Topology string `json:"topology,omitempty"`
	// Spread has tasks on nodes, racks or zones with fewest of them; Pack on those with most.
	Spread cluster.Level `json:"spread,omitempty" jsonschema:"enum=node,enum=rack,enum=zone"`
	Pack   cluster.Level `json:"pack,omitempty" jsonschema:"enum=node,enum=rack,enum=zone"`
}

// IsZero reports whether nothing is asked for.
func (s Spec) IsZero() bool {
	return len(s.Constraints)+len(s.Affinity)+len(s.AntiAffinity)+len(s.Tolerations) == 0 && s.Topology == "" && s.Spread == "" && s.Pack == ""
}

// Validate reports every mistake, each with the path of its field.
func (s Spec) Validate() cluster.Problems {
	var p cluster.Problems
	var role cluster.Role
	s.read(&role, &p)
	return p
}

// Apply writes what is asked for into a role; what cannot be read is left out.
func (s Spec) Apply(role *cluster.Role) { s.read(role, &cluster.Problems{}) }

func (s Spec) read(role *cluster.Role, p *cluster.Problems) {
	each(p, "constraints", s.Constraints, ParseConstraint, func(c cluster.Constraint) { role.Constraints = append(role.Constraints, c) })
	each(p, "affinity", s.Affinity, ParseAffinity, func(a cluster.Affinity) { role.Affinities = append(role.Affinities, a) })
	each(p, "anti_affinity", s.AntiAffinity, ParseAffinity, func(a cluster.Affinity) {
		a.Anti = true
		role.Affinities = append(role.Affinities, a)
	})
	each(p, "tolerations", s.Tolerations, ParseToleration, func(t cluster.Toleration) { role.Tolerations = append(role.Tolerations, t) })
	if s.Topology != "" {
		topology, err := ParseTopology(s.Topology)
		if err != nil {
			p.Add("topology", "%s", err)
		}
		role.Topology = topology
	}
	over := s.Spread
	switch {
	case s.Spread != "" && s.Pack != "":
		p.Add("pack", "stands beside spread: remove one of the two")
	case s.Pack != "":
		over, role.Pack = s.Pack, true
	}
	switch over {
	case "":
	case cluster.LevelNode, cluster.LevelRack, cluster.LevelZone:
		if role.Over = over; role.Spread == "" {
			role.Spread = "all"
		}
	default:
		field := map[bool]string{true: "pack", false: "spread"}[role.Pack]
		p.Add(field, "%q is not a place of tasks: node, rack or zone", cluster.Clip(string(over)))
	}
}

func each[T interface{ Validate() cluster.Problems }](p *cluster.Problems, field string, texts []string, parse func(string) (T, error), keep func(T)) {
	if len(texts) > cluster.MaxConstraints {
		p.Add(field, "%d: at most %d", len(texts), cluster.MaxConstraints)
		return
	}
	for i, text := range texts {
		item, err := parse(text)
		if err != nil {
			p.Add(fmt.Sprintf("%s[%d]", field, i), "%s", err)
			continue
		}
		keep(item)
	}
}

const attribute = `([A-Za-z0-9][A-Za-z0-9._/-]{0,127})`

var (
	weighted = regexp.MustCompile(`^(.*\S)\s+weight\s+(\S+)$`)
	there    = regexp.MustCompile(`^(?:exists\s+` + attribute + `|` + attribute + `\s+exists)$`)
	missing  = regexp.MustCompile(`^(?:!\s*` + attribute + `|` + attribute + `\s+missing)$`)
	oneOf    = regexp.MustCompile(`^` + attribute + `\s+(not\s+in|in)\s*\(([^()]*)\)$`)
	compared = regexp.MustCompile(`^` + attribute + `\s*(==|=|!=|<=|>=|<|>)\s*([^()=<>!]+)$`)
)

var operators = map[string]cluster.Operator{
	"=": cluster.OpIn, "==": cluster.OpIn, "!=": cluster.OpNotIn, "<": cluster.OpLess, "<=": cluster.OpMost, ">": cluster.OpMore, ">=": cluster.OpLeast,
}

// ParseConstraint reads "rack in (r1, r2)", "gpu.memory >= 40GiB", "exists nvme", "!nvme", each perhaps
// with "weight 1" to "weight 100" at its end.
func ParseConstraint(text string) (cluster.Constraint, error) {
	const remedy = `%q is not a constraint: write it like "rack in (r1, r2)", "gpu.memory >= 40GiB", "disk-type != hdd", "exists nvme" or "!nvme"`
	var c cluster.Constraint
	rest, err := cutWeight(text, &c.Weight)
	if err != nil {
		return c, err
	}
	if m := there.FindStringSubmatch(rest); m != nil {
		c.Attribute, c.Operator = m[1]+m[2], cluster.OpExists
	} else if m := missing.FindStringSubmatch(rest); m != nil {
		c.Attribute, c.Operator = m[1]+m[2], cluster.OpMissing
	} else if m := oneOf.FindStringSubmatch(rest); m != nil {
		c.Attribute, c.Operator = m[1], cluster.OpIn
		if m[2] != "in" {
			c.Operator = cluster.OpNotIn
		}
		for _, value := range strings.Split(m[3], ",") {
			c.Values = append(c.Values, strings.TrimSpace(value))
		}
	} else if m := compared.FindStringSubmatch(rest); m != nil {
		c.Attribute, c.Operator, c.Values = m[1], operators[m[2]], []string{strings.TrimSpace(m[3])}
	} else {
		return c, fmt.Errorf(remedy, cluster.Clip(text))
	}
	for i, value := range c.Values {
		if c.Attribute != cluster.AttributeMemory && c.Attribute != cluster.AttributeDisk && c.Attribute != cluster.AttributeGPUMemory {
			break
		}
		bytes, err := quantity.ParseBytes(value)
		if err != nil {
			return c, err
		}
		c.Values[i] = strconv.FormatInt(int64(bytes), 10)
	}
	return c, valid(text, c.Validate())
}

// cutWeight reads the weight at the end, if there is one.
func cutWeight(text string, weight *int32) (rest string, err error) {
	rest = strings.TrimSpace(text)
	m := weighted.FindStringSubmatch(rest)
	if m == nil {
		return rest, nil
	}
	n, err := strconv.ParseInt(m[2], 10, 32)
	if err != nil || n < 1 || n > cluster.MaxPreference {
		return "", fmt.Errorf("weight %q is out of range: a whole number from 1 to %d", cluster.Clip(m[2]), cluster.MaxPreference)
	}
	*weight = int32(n)
	return strings.TrimSpace(m[1]), nil
}

func valid(text string, problems cluster.Problems) error {
	if len(problems) == 0 {
		return nil
	}
	return fmt.Errorf("%q: %s", cluster.Clip(text), problems[0])
}

// ParseAffinity reads "job=NAME" or "LABEL=VALUE" (a label of jobs), perhaps followed by "per node",
// "per rack" or "per zone", and by a weight.
func ParseAffinity(text string) (cluster.Affinity, error) {
	a := cluster.Affinity{Over: cluster.LevelNode}
	rest, err := cutWeight(text, &a.Weight)
	if err != nil {
		return a, err
	}
	if fields := strings.Fields(rest); len(fields) >= 3 && fields[len(fields)-2] == "per" {
		a.Over = cluster.Level(fields[len(fields)-1])
		rest = strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(strings.TrimSuffix(rest, fields[len(fields)-1])), "per"))
	}
	key, value, given := strings.Cut(rest, "=")
	switch key, value = strings.TrimSpace(key), strings.TrimSpace(value); {
	case !given || key == "" || value == "":
		return a, fmt.Errorf("%q names nobody: write job=NAME or LABEL=VALUE, then perhaps per node, rack or zone", cluster.Clip(text))
	case key == "job":
		a.Job = value
	default:
		a.Label, a.Value = key, value
	}
	return a, valid(text, a.Validate())
}

// ParseTaint reads "KEY=VALUE:EFFECT"; the effect is no-place if it is left out, and the value may be.
func ParseTaint(text string) (cluster.Taint, error) {
	pair, effect, given := strings.Cut(strings.TrimSpace(text), ":")
	if !given {
		effect = string(cluster.EffectNoPlace)
	}
	key, value, _ := strings.Cut(pair, "=")
	t := cluster.Taint{Key: key, Value: value, Effect: cluster.Effect(effect)}
	return t, valid(text, t.Validate())
}

// ParseToleration reads "KEY=VALUE", "KEY" for any value, or "*" for every taint; each perhaps with
// ":EFFECT".
func ParseToleration(text string) (cluster.Toleration, error) {
	pair, effect, given := strings.Cut(strings.TrimSpace(text), ":")
	if pair == "" || given && effect == "" {
		return cluster.Toleration{}, fmt.Errorf("%q names no taint: write KEY=VALUE, KEY for any value, or * for all", cluster.Clip(text))
	}
	t := cluster.Toleration{Effect: cluster.Effect(effect)}
	if pair == "*" {
		t.Any = true
		return t, valid(text, t.Validate())
	}
	key, value, exact := strings.Cut(pair, "=")
	if key == "" {
		return t, fmt.Errorf("%q names no taint: write KEY=VALUE, KEY for any value, or * for all", cluster.Clip(text))
	}
	t.Key, t.Value, t.Any = key, value, !exact
	return t, valid(text, t.Validate())
}

// ParseTopology reads "rack" or "rack,preferred".
func ParseTopology(text string) (cluster.Topology, error) {
	level, word, given := strings.Cut(text, ",")
	t := cluster.Topology{Level: cluster.Level(strings.TrimSpace(level)), Preferred: strings.TrimSpace(word) == "preferred"}
	if given && !t.Preferred || t.Level == "" || len(t.Validate()) > 0 {
		return cluster.Topology{}, fmt.Errorf("%q is not a topology: nvlink, numa, node, rack or zone, perhaps with \",preferred\"", cluster.Clip(text))
	}
	return t, nil
}
