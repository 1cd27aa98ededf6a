package spec

import "fmt"

// MaxParameters bounds a network: 2^28 parameters are one GiB of weights.
const MaxParameters = 1 << 28

// maxDimension bounds every size in a network, so that products of three fit an int64.
const maxDimension = 1 << 20

// maxActivations bounds one row's output of a layer.
const maxActivations = 1 << 26

const maxLayers = 256

// Plan is a network with its shapes worked out.
type Plan struct {
	Input  []int
	Stages []Stage
	// Parameters is the length of the flat arena.
	Parameters int
	// Outputs is the width of the last layer.
	Outputs int
	Loss    string
}

// Stage is a layer with its place in the chain and in the arena. Weights of a dense
// layer are [inputs, units]; of a convolution [filters, channels, kernel, kernel].
type Stage struct {
	Layer   Layer
	In, Out []int
	Weights Range
	Bias    Range
	// PadTop and PadLeft are the zeros that a convolution adds before each side.
	PadTop, PadLeft int
}

// Range is the half-open interval [From, To) of the arena.
type Range struct{ From, To int }

// Len is the number of parameters in the range.
func (r Range) Len() int { return r.To - r.From }

// Volume is the product of a shape's sizes.
func Volume(shape []int) int {
	v := 1
	for _, d := range shape {
		v *= d
	}
	return v
}

// Plan infers every shape, or says what is wrong with the network.
func (n Network) Plan() (Plan, Problems) {
	b := planner{plan: Plan{Input: n.Input, Loss: n.Loss}, path: "network"}
	if !b.checkInput(n.Input) {
		return Plan{}, b.problems
	}
	if len(n.Layers) == 0 || len(n.Layers) > maxLayers {
		b.addf("layers", "%d layers: give 1 to %d", len(n.Layers), maxLayers)
		return Plan{}, b.problems
	}
	shape := n.Input
	known := true
	for i, layer := range n.Layers {
		b.path = fmt.Sprintf("network.layers[%d]", i)
		stage, ok := b.stage(layer, shape, known)
		known = known && ok
		shape = stage.Out
		b.plan.Stages = append(b.plan.Stages, stage)
	}
	b.path = "network"
	if known {
		b.plan.Outputs = Volume(shape)
		b.checkLoss(n.Loss)
	} else {
		b.checkLossName(n.Loss)
	}
	if len(b.problems) > 0 {
		return Plan{}, b.problems
	}
	return b.plan, nil
}

// planner walks the layers; after a mistake it goes on checking what does not depend on
// the shape that is then unknown.
type planner struct {
	plan     Plan
	path     string
	problems Problems
}

func (b *planner) addf(field, format string, args ...any) {
	path := b.path
	if field != "" {
		path += "." + field
	}
	b.problems = append(b.problems, Problem{Path: path, Message: fmt.Sprintf(format, args...)})
}

func (b *planner) checkInput(input []int) bool {
	if len(input) != 1 && len(input) != 3 {
		b.addf("input", "%v has %d sizes: give [features] or [channels, height, width]", input, len(input))
		return false
	}
	for i, d := range input {
		if !b.inRange(fmt.Sprintf("input[%d]", i), d, maxDimension) {
			return false
		}
	}
	if Volume(input) > maxActivations {
		b.addf("input", "%v has %d values: at most %d", input, Volume(input), maxActivations)
		return false
	}
	return true
}

func (b *planner) inRange(field string, v, limit int) bool {
	if v >= 1 && v <= limit {
		return true
	}
	b.addf(field, "%d: give 1 to %d", v, limit)
	return false
}

// stage checks one layer. ok is false when its output shape cannot be known.
func (b *planner) stage(l Layer, in []int, known bool) (s Stage, ok bool) {
	s = Stage{Layer: l, In: in, Out: in}
	kinds := 0
	for _, set := range []bool{l.Dense != nil, l.Conv2D != nil, l.Pool != nil, l.Dropout != nil, l.Flatten != nil} {
		if set {
			kinds++
		}
	}
	if kinds != 1 {
		b.addf("", "%d kinds of layer in one: give exactly one of dense, conv2d, pool, dropout, flatten", kinds)
		return s, false
	}
	before := len(b.problems)
	switch {
	case l.Dense != nil:
		b.dense(&s, known)
	case l.Conv2D != nil:
		b.conv(&s, known)
	case l.Pool != nil:
		b.pool(&s, known)
	case l.Dropout != nil:
		if !(l.Dropout.Rate >= 0 && l.Dropout.Rate < 1) {
			b.addf("dropout.rate", "%v: give 0 or more and less than 1", l.Dropout.Rate)
		}
		return s, true
	case l.Flatten != nil && known:
		s.Out = []int{Volume(in)}
	}
	return s, len(b.problems) == before
}

func (b *planner) dense(s *Stage, known bool) {
	d := s.Layer.Dense
	b.activation("dense.activation", d.Activation)
	if !b.inRange("dense.units", d.Units, maxDimension) || !known {
		return
	}
	if len(s.In) != 1 {
		b.addf("dense", "the input has shape %v: put {\"flatten\": {}} before it", s.In)
		return
	}
	s.Out = []int{d.Units}
	b.parameters(s, s.In[0]*d.Units, d.Units)
}

func (b *planner) conv(s *Stage, known bool) {
	c := s.Layer.Conv2D
	b.activation("conv2d.activation", c.Activation)
	ok := b.inRange("conv2d.filters", c.Filters, 1<<14)
	ok = b.inRange("conv2d.kernel", c.Kernel, 1<<10) && ok
	ok = b.inRange("conv2d.stride", orDefault(c.Stride, 1), 1<<10) && ok
	if c.Padding != "" && c.Padding != "same" && c.Padding != "valid" {
		b.addf("conv2d.padding", "%q: give \"same\" or \"valid\"", c.Padding)
		ok = false
	}
	if !ok || !known || !b.image("conv2d", s.In) {
		return
	}
	height, top := window(s.In[1], c.Kernel, orDefault(c.Stride, 1), c.Padding == "same")
	width, left := window(s.In[2], c.Kernel, orDefault(c.Stride, 1), c.Padding == "same")
	if height < 1 || width < 1 {
		b.addf("conv2d.kernel", "%d is greater than the input's %d by %d: make it smaller or pad \"same\"",
			c.Kernel, s.In[1], s.In[2])
		return
	}
	s.Out, s.PadTop, s.PadLeft = []int{c.Filters, height, width}, top, left
	if Volume(s.Out) > maxActivations {
		b.addf("conv2d.filters", "%d make %d outputs a row: at most %d", c.Filters, Volume(s.Out), maxActivations)
		return
	}
	b.parameters(s, c.Filters*s.In[0]*c.Kernel*c.Kernel, c.Filters)
}

func (b *planner) pool(s *Stage, known bool) {
	p := s.Layer.Pool
	if p.Kind != "max" && p.Kind != "average" {
		b.addf("pool.kind", "%q: give \"max\" or \"average\"", p.Kind)
	}
	ok := b.inRange("pool.size", p.Size, 1<<10)
	ok = ok && b.inRange("pool.stride", orDefault(p.Stride, p.Size), 1<<10)
	if !ok || !known || !b.image("pool", s.In) {
		return
	}
	height, _ := window(s.In[1], p.Size, orDefault(p.Stride, p.Size), false)
	width, _ := window(s.In[2], p.Size, orDefault(p.Stride, p.Size), false)
	if height < 1 || width < 1 {
		b.addf("pool.size", "%d is greater than the input's %d by %d", p.Size, s.In[1], s.In[2])
		return
	}
	s.Out = []int{s.In[0], height, width}
}

func (b *planner) image(field string, in []int) bool {
	if len(in) == 3 {
		return true
	}
	b.addf(field, "the input has shape %v: it must be [channels, height, width]", in)
	return false
}

func (b *planner) activation(field, name string) {
	switch name {
	case "", None, ReLU, Tanh, Sigmoid:
	default:
		b.addf(field, "%q: give relu, tanh, sigmoid or none", name)
	}
}

func (b *planner) parameters(s *Stage, weights, bias int) {
	at := b.plan.Parameters
	if weights > MaxParameters || at+weights+bias > MaxParameters {
		b.addf("", "the network has more than %d parameters from this layer on", MaxParameters)
		return
	}
	s.Weights = Range{at, at + weights}
	s.Bias = Range{at + weights, at + weights + bias}
	b.plan.Parameters = s.Bias.To
}

func (b *planner) checkLossName(loss string) bool {
	switch loss {
	case CrossEntropy, BinaryCrossEntropy, MeanSquaredError:
		return true
	}
	b.addf("loss", "%q: give %s, %s or %s", loss, CrossEntropy, BinaryCrossEntropy, MeanSquaredError)
	return false
}

func (b *planner) checkLoss(loss string) {
	if !b.checkLossName(loss) {
		return
	}
	switch outputs := b.plan.Outputs; {
	case b.plan.Parameters == 0:
		b.addf("layers", "nothing to train: add a dense or conv2d layer")
	case loss == CrossEntropy && outputs < 2:
		b.addf("loss", "cross_entropy needs one output a class, the last layer has %d: use binary_cross_entropy or more units", outputs)
	case loss != CrossEntropy && outputs != 1:
		b.addf("loss", "%s needs one output, the last layer has %d", loss, outputs)
	}
}

// window returns how many places a kernel has along one side, and the zeros before it.
func window(in, kernel, stride int, same bool) (out, before int) {
	if !same {
		if in < kernel {
			return 0, 0
		}
		return (in-kernel)/stride + 1, 0
	}
	out = (in + stride - 1) / stride
	return out, max((out-1)*stride+kernel-in, 0) / 2
}

func orDefault(v, fallback int) int {
	if v == 0 {
		return fallback
	}
	return v
}

// StrideOf returns the layer's stride with its default filled in.
func (l Layer) StrideOf() int {
	switch {
	case l.Conv2D != nil:
		return orDefault(l.Conv2D.Stride, 1)
	case l.Pool != nil:
		return orDefault(l.Pool.Stride, l.Pool.Size)
	}
	return 1
}

// ActivationOf returns the layer's activation, None where it has none.
func (l Layer) ActivationOf() string {
	name := ""
	switch {
	case l.Dense != nil:
		name = l.Dense.Activation
	case l.Conv2D != nil:
		name = l.Conv2D.Activation
	}
	if name == "" {
		return None
	}
	return name
}
