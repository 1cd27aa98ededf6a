package cluster

import (
	"fmt"
	"slices"
)

// Level is how close things are: inside a node, or by what nodes stand in.
type Level string

// The levels, the closest first. Devices of one island reach one another over NVLink, and those of
// one NUMA node without crossing processors; racks and zones are the nodes' labels.
const (
	LevelNVLink Level = "nvlink" // the devices of each task
	LevelNUMA   Level = "numa"   // the devices of each task
	LevelNode   Level = "node"
	LevelRack   Level = "rack"
	LevelZone   Level = "zone"
)

// Levels are all of them, the closest first.
var Levels = [...]Level{LevelNVLink, LevelNUMA, LevelNode, LevelRack, LevelZone}

// Labels that say where a node stands, given by whoever runs it.
const (
	LabelRack = "clary.rack"
	LabelZone = "clary.zone"
)

// Topology wants what belongs together close together: the devices of each task (nvlink, numa), or
// all tasks of the gang's roles that say so (node, rack, zone).
type Topology struct {
	Level     Level // "" asks for nothing
	Preferred bool  // it may be otherwise, if there is no such room
}

// Validate reports an unknown level.
func (t Topology) Validate() Problems {
	var p Problems
	if t.Level == "" && !t.Preferred || slices.Contains(Levels[:], t.Level) {
		return p
	}
	p.Add("", "%q is not a level of topology: nvlink, numa, node, rack or zone", Clip(string(t.Level)))
	return p
}

// Affinity draws tasks to where those of other jobs run, or keeps them away from there.
type Affinity struct {
	Job    string // tasks of this job; or
	Label  string // of jobs that have this label
	Value  string // in this value
	Over   Level  // node, rack or zone: what is one place
	Anti   bool   // away from there, and they from here
	Weight int32  // 0: required; 1 to 100: how much it is preferred
}

// Validate reports every mistake in the affinity.
func (a Affinity) Validate() Problems {
	var p Problems
	if (a.Job == "") == (a.Label == "") {
		p.Add("", "names a job or a label of jobs, and not both")
	}
	if a.Job != "" {
		CheckName(&p, "job", a.Job)
	}
	checkWord(&p, "label", a.Label, 0, 128)
	checkWord(&p, "value", a.Value, 0, 256)
	if a.Over != LevelNode && a.Over != LevelRack && a.Over != LevelZone {
		p.Add("over", "%q is not a place of tasks: node, rack or zone", Clip(string(a.Over)))
	}
	checkRange(&p, "weight", int64(a.Weight), 0, MaxPreference)
	return p
}

// Matches reports whether the tasks of a job with these labels are those that the affinity names.
func (a Affinity) Matches(job string, labels map[string]string) bool {
	if a.Job != "" {
		return a.Job == job
	}
	value, has := labels[a.Label]
	return has && value == a.Value
}

// String reads like "job=web per node".
func (a Affinity) String() string {
	text := a.Label + "=" + a.Value
	if a.Job != "" {
		text = "job=" + a.Job
	}
	return text + " per " + string(a.Over)
}

// Intolerable is the first taint with the effect that the role does not tolerate; ok is false for none.
func (r Role) Intolerable(taints []Taint, effect Effect) (taint Taint, ok bool) {
	for _, taint := range taints {
		tolerated := func(t Toleration) bool { return t.Tolerates(taint) }
		if taint.Effect == effect && !slices.ContainsFunc(r.Tolerations, tolerated) {
			return taint, true
		}
	}
	return Taint{}, false
}

// Unmet says which of the role's labels, required constraints and taints rules the node out, in words;
// "" is none.
func (r Role) Unmet(n Node) string {
	for _, key := range sortedKeys(r.Labels) {
		if has, ok := n.Labels[key]; !ok || has != r.Labels[key] {
			return "the node lacks a label that the role demands"
		}
	}
	traits := n.Traits()
	for _, c := range r.Constraints {
		if c.Weight == 0 && !c.Allows(traits) {
			return "the node is not as demanded: " + c.String()
		}
	}
	if taint, tainted := r.Intolerable(n.Taints, EffectNoPlace); tainted {
		return "the node has the taint " + taint.String()
	}
	return ""
}

// validatePlace reports every mistake in where the role's tasks may be.
func (r Role) validatePlace() Problems {
	var p Problems
	for _, list := range []struct {
		field string
		count int
		check func(i int) Problems
	}{
		{"constraints", len(r.Constraints), func(i int) Problems { return r.Constraints[i].Validate() }},
		{"affinities", len(r.Affinities), func(i int) Problems { return r.Affinities[i].Validate() }},
		{"tolerations", len(r.Tolerations), func(i int) Problems { return r.Tolerations[i].Validate() }},
	} {
		if list.count > MaxConstraints {
			p.Add(list.field, "%d: at most %d", list.count, MaxConstraints)
			continue
		}
		for i := range list.count {
			p.Under(fmt.Sprintf("%s[%d]", list.field, i), list.check(i))
		}
	}
	p.Under("topology", r.Topology.Validate())
	if r.Over != "" && r.Over != LevelNode && r.Over != LevelRack && r.Over != LevelZone {
		p.Add("over", "%q is not a place of tasks: node, rack or zone", Clip(string(r.Over)))
	}
	if (r.Over != "" || r.Pack) && r.Spread == "" {
		p.Add("spread", "says which tasks are spread or packed together, and is missing")
	}
	return p
}

// MaxConstraints is how many constraints, affinities or tolerations a role may have of each.
const MaxConstraints = 32
