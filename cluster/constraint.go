package cluster

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Operator compares an attribute of a node with values.
type Operator string

// The operators. Those of order compare numbers.
const (
	OpIn      Operator = "in" // one of the values
	OpNotIn   Operator = "not in"
	OpExists  Operator = "exists"
	OpMissing Operator = "missing"
	OpLess    Operator = "<"
	OpMost    Operator = "<="
	OpMore    Operator = ">"
	OpLeast   Operator = ">="
)

// Attributes of nodes and of their GPUs that constraints can name beside labels. Cores are in cores,
// memory and disk in bytes, speed in multiples of an A100's.
const (
	AttributeNode      = "node"
	AttributeCores     = "cores"
	AttributeMemory    = "memory"
	AttributeDisk      = "disk"
	AttributeGPUs      = "gpus" // how many
	AttributeGPUModel  = "gpu.model"
	AttributeGPUMemory = "gpu.memory"
	AttributeGPUSpeed  = "gpu.speed"
	AttributeRack      = "rack" // the label clary.rack
	AttributeZone      = "zone" // the label clary.zone
)

// numeric are the attributes that are numbers.
var numeric = []string{AttributeCores, AttributeMemory, AttributeDisk, AttributeGPUs, AttributeGPUMemory, AttributeGPUSpeed}

// Constraint is what a node, or of gpu.model, gpu.memory and gpu.speed each GPU that is given, must be
// like; with a weight it is only preferred.
type Constraint struct {
	Attribute string // one of the above, or the key of a label
	Operator  Operator
	Values    []string // of one of these; one for an operator of order
	Weight    int32    // 0: required; 1 to 100: how much it is preferred
}

// MaxPreference is the most that something can be preferred.
const MaxPreference = 100

// OfDevice reports whether the constraint is on GPUs rather than nodes.
func (c Constraint) OfDevice() bool {
	return c.Attribute == AttributeGPUModel || c.Attribute == AttributeGPUMemory || c.Attribute == AttributeGPUSpeed
}

// Traits are what of a node constraints can name.
type Traits struct {
	ID       string
	MilliCPU int64
	Memory   int64
	Disk     int64
	GPUs     int // healthy ones
	Labels   map[string]string
}

// Traits are those of the node.
func (n Node) Traits() Traits {
	t := Traits{ID: n.ID, MilliCPU: n.MilliCPU, Memory: n.Memory, Disk: n.Disk, Labels: n.Labels}
	for _, d := range n.Devices {
		if d.Kind == DeviceGPU && d.Healthy {
			t.GPUs++
		}
	}
	return t
}

// OfLabel reports whether the constraint is on a label.
func (c Constraint) OfLabel() bool {
	switch c.Attribute {
	case AttributeNode, AttributeCores, AttributeMemory, AttributeDisk, AttributeGPUs:
		return false
	}
	return !c.OfDevice()
}

// Allows reports whether a node is as the constraint says. One on devices is kept by every node.
func (c Constraint) Allows(n Traits) bool {
	if c.OfDevice() {
		return true
	}
	text, known := attributeOf(n, c.Attribute)
	return c.holds(text, known)
}

// AllowsDevice reports whether a device is as the constraint says. One on nodes is kept by every device.
func (c Constraint) AllowsDevice(d Device) bool {
	switch c.Attribute {
	case AttributeGPUModel:
		return c.holds(d.Model, d.Model != "")
	case AttributeGPUMemory:
		return c.holds(strconv.FormatInt(d.Memory, 10), true)
	case AttributeGPUSpeed:
		return c.holds(strconv.FormatFloat(float64(d.Speed)/1000, 'f', -1, 64), d.Speed > 0)
	}
	return true
}

func attributeOf(n Traits, name string) (text string, known bool) {
	switch name {
	case AttributeNode:
		return n.ID, true
	case AttributeCores:
		return strconv.FormatFloat(float64(n.MilliCPU)/1000, 'f', -1, 64), true
	case AttributeMemory:
		return strconv.FormatInt(n.Memory, 10), true
	case AttributeDisk:
		return strconv.FormatInt(n.Disk, 10), true
	case AttributeGPUs:
		return strconv.Itoa(n.GPUs), true
	case AttributeRack:
		name = LabelRack
	case AttributeZone:
		name = LabelZone
	}
	text, known = n.Labels[name]
	return text, known
}

// holds compares. What is not known is like nothing that is asked for: only missing and not in hold.
func (c Constraint) holds(text string, known bool) bool {
	switch c.Operator {
	case OpExists:
		return known
	case OpMissing:
		return !known
	case OpIn:
		return known && c.isOne(text)
	case OpNotIn:
		return !known || !c.isOne(text)
	}
	have, ok := number(text)
	if !known || !ok || len(c.Values) != 1 {
		return false
	}
	want, ok := number(c.Values[0])
	if !ok {
		return false
	}
	switch c.Operator {
	case OpLess:
		return have < want
	case OpMost:
		return have <= want
	case OpMore:
		return have > want
	case OpLeast:
		return have >= want
	}
	return false
}

func (c Constraint) isOne(text string) bool {
	if !slices.Contains(numeric, c.Attribute) {
		return slices.Contains(c.Values, text)
	}
	have, _ := number(text)
	return slices.ContainsFunc(c.Values, func(value string) bool {
		want, ok := number(value)
		return ok && want == have
	})
}

// number reads a finite decimal number.
func number(text string) (float64, bool) {
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(n) || math.IsInf(n, 0) || strings.ContainsAny(text, "xXpP_") {
		return 0, false
	}
	return n, true
}

// Validate reports every mistake in the constraint.
func (c Constraint) Validate() Problems {
	var p Problems
	checkWord(&p, "attribute", c.Attribute, 1, 128)
	ordered := false
	switch c.Operator {
	case OpIn, OpNotIn:
		if len(c.Values) == 0 || len(c.Values) > 64 {
			p.Add("values", "%d values: from 1 to 64", len(c.Values))
		}
	case OpExists, OpMissing:
		if len(c.Values) > 0 {
			p.Add("values", "%s takes none", c.Operator)
		}
	case OpLess, OpMost, OpMore, OpLeast:
		if ordered = len(c.Values) == 1; !ordered {
			p.Add("values", "%s takes one number", c.Operator)
		}
	default:
		p.Add("operator", "%q is unknown: in, not in, exists, missing, <, <=, > or >=", Clip(string(c.Operator)))
	}
	for _, value := range c.Values {
		checkWord(&p, "values", value, 0, 256)
		if _, ok := number(value); !ok && (ordered || slices.Contains(numeric, c.Attribute)) {
			p.Add("values", "%q is not a number", Clip(value))
		}
	}
	checkRange(&p, "weight", int64(c.Weight), 0, MaxPreference)
	return p
}

func checkWord(p *Problems, field, text string, least, most int) {
	if len(text) < least || len(text) > most || !utf8.ValidString(text) {
		p.Add(field, "%q takes %d to %d bytes of text", Clip(text), least, most)
	}
}

// String reads like "rack in (r1, r2)" or "gpu.memory >= 40 GiB".
func (c Constraint) String() string {
	show := func(value string) string {
		if n, ok := number(value); ok && strings.HasSuffix(c.Attribute, "memory") || ok && c.Attribute == AttributeDisk {
			return FormatBytes(int64(min(n, MaxMemory<<6)))
		}
		return value
	}
	values := make([]string, len(c.Values))
	for i, value := range c.Values {
		values[i] = show(value)
	}
	text := ""
	switch {
	case c.Operator == OpExists || c.Operator == OpMissing:
		text = c.Attribute + " " + string(c.Operator)
	case c.Operator == OpIn && len(values) == 1:
		text = c.Attribute + " = " + values[0]
	case c.Operator == OpNotIn && len(values) == 1:
		text = c.Attribute + " != " + values[0]
	case len(values) == 1:
		text = fmt.Sprintf("%s %s %s", c.Attribute, c.Operator, values[0])
	default:
		text = fmt.Sprintf("%s %s (%s)", c.Attribute, c.Operator, strings.Join(values, ", "))
	}
	return text
}
