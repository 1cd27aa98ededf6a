package cluster

import (
	"cmp"
	"slices"
)

// Effect is what a taint does to tasks that do not tolerate it.
type Effect string

// The effects of taints. What runs already stays.
const (
	EffectNoPlace   Effect = "no-place"   // none are placed there
	EffectPreferNot Effect = "prefer-not" // they are placed there last
)

// Taint keeps tasks off a node, for now or for those that are not meant for it.
type Taint struct {
	Key    string
	Value  string
	Effect Effect
}

// MaxTaints is how many taints a node may have.
const MaxTaints = 16

// Validate reports every mistake in the taint.
func (t Taint) Validate() Problems {
	var p Problems
	checkWord(&p, "key", t.Key, 1, 128)
	checkWord(&p, "value", t.Value, 0, 256)
	if t.Effect != EffectNoPlace && t.Effect != EffectPreferNot {
		p.Add("effect", "%q is unknown: no-place or prefer-not", Clip(string(t.Effect)))
	}
	return p
}

// String reads like "team=vision:no-place".
func (t Taint) String() string {
	text := t.Key
	if t.Value != "" {
		text += "=" + t.Value
	}
	return text + ":" + string(t.Effect)
}

// CompareTaints orders taints by key and effect: a node has one of each.
func CompareTaints(a, b Taint) int {
	return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Effect, b.Effect))
}

// ChangeTaints takes back all taints of the keys in remove, and then puts others in the place of those of
// their key and effect.
func ChangeTaints(taints, put []Taint, remove []string) []Taint {
	left := slices.DeleteFunc(slices.Clone(taints), func(t Taint) bool {
		replaced := func(other Taint) bool { return CompareTaints(t, other) == 0 }
		return slices.Contains(remove, t.Key) || slices.ContainsFunc(put, replaced)
	})
	left = append(left, put...)
	slices.SortStableFunc(left, CompareTaints)
	if len(left) == 0 {
		return nil
	}
	return left
}

// Toleration says which taints do not keep a task off.
type Toleration struct {
	Key    string // "" is all
	Value  string // if it is not Any
	Any    bool   // whatever the value
	Effect Effect // "" is both
}

// Tolerates reports whether the taint is one of those.
func (t Toleration) Tolerates(taint Taint) bool {
	return (t.Key == "" || t.Key == taint.Key) && (t.Any || t.Value == taint.Value) && (t.Effect == "" || t.Effect == taint.Effect)
}

// Validate reports every mistake in the toleration.
func (t Toleration) Validate() Problems {
	var p Problems
	checkWord(&p, "key", t.Key, 0, 128)
	checkWord(&p, "value", t.Value, 0, 256)
	if t.Any && t.Value != "" {
		p.Add("value", "%q beside any value: remove one of the two", Clip(t.Value))
	}
	if t.Effect != "" && t.Effect != EffectNoPlace && t.Effect != EffectPreferNot {
		p.Add("effect", "%q is unknown: no-place or prefer-not", Clip(string(t.Effect)))
	}
	return p
}
