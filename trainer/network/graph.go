package network

import (
	"errors"
	"fmt"
	"math"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/spec"
)

// Graph is a network built for a fixed number of rows. It is not safe for use by two
// goroutines, and shares no tensor with any other graph.
type Graph struct {
	// Weights is the arena that the next run reads.
	Weights []float32
	// Gradient is the arena that Step fills; nil in a graph built by Inference.
	Gradient []float32

	plan    spec.Plan
	rows    int
	machine gorgonia.VM
	output  *gorgonia.Node
	cost    *gorgonia.Node
	input   []float32
	labels  []float32
	shares  []float32
	masks   []mask
}

// mask is a dropout layer's input and its rate.
type mask struct {
	values []float32
	rate   float64
}

// Training builds a graph with gradients and dropout.
func Training(plan spec.Plan, rows int, b BLAS) (*Graph, error) { return build(plan, rows, b, true) }

// Inference builds a graph that only computes outputs; dropout does nothing in it.
func Inference(plan spec.Plan, rows int, b BLAS) (*Graph, error) { return build(plan, rows, b, false) }

func build(plan spec.Plan, rows int, b BLAS, train bool) (*Graph, error) {
	if rows < 1 || rows > spec.MaxBatch {
		return nil, fault.New(fault.Invalid, "a graph of %d rows: give 1 to %d", rows, spec.MaxBatch)
	}
	width := spec.Volume(plan.Input)
	g := &Graph{plan: plan, rows: rows, Weights: make([]float32, plan.Parameters), input: make([]float32, rows*width)}
	if train {
		g.Gradient = make([]float32, plan.Parameters)
		g.labels, g.shares = make([]float32, rows), make([]float32, rows)
	}
	c := &chain{builder: builder{graph: gorgonia.NewGraph(), blas: b, rows: rows}, g: g}
	c.at = c.input("input", g.input, append([]int{rows}, plan.Input...)...)
	for i, s := range plan.Stages {
		if err := c.stage(i, s, train); err != nil {
			return nil, fmt.Errorf("layer %d: %w", i, err)
		}
	}
	g.output = c.at
	if train {
		if err := c.backward(); err != nil {
			return nil, err
		}
	}
	g.machine = gorgonia.NewTapeMachine(c.graph)
	return g, nil
}

// chain adds layer after layer to a graph.
type chain struct {
	builder
	g      *Graph
	at     *gorgonia.Node
	params gorgonia.Nodes
}

func (c *chain) stage(i int, s spec.Stage, train bool) (err error) {
	switch l := s.Layer; {
	case l.Dense != nil:
		w := c.parameter(fmt.Sprintf("w%d", i), s.Weights, spec.Volume(s.In), l.Dense.Units)
		bias := c.parameter(fmt.Sprintf("b%d", i), s.Bias, l.Dense.Units)
		c.at, err = c.dense(c.at, l.Dense.Units, w, bias, len(c.params) > 2)
	case l.Conv2D != nil:
		w := c.parameter(fmt.Sprintf("w%d", i), s.Weights, s.Out[0], s.In[0], l.Conv2D.Kernel, l.Conv2D.Kernel)
		bias := c.parameter(fmt.Sprintf("b%d", i), s.Bias, s.Out[0])
		c.at, err = c.conv(c.at, s, w, bias, len(c.params) > 2)
	case l.Pool != nil:
		c.at, err = c.pool(c.at, s)
	case l.Dropout != nil && train && l.Dropout.Rate > 0:
		m := mask{make([]float32, c.at.Shape().TotalSize()), l.Dropout.Rate}
		c.g.masks = append(c.g.masks, m)
		c.at, err = c.dropout(c.at, c.input(fmt.Sprintf("mask%d", i), m.values, c.at.Shape()...))
	}
	// Flatten is nothing here: a dense layer takes its input as flat rows anyway.
	if name := s.Layer.ActivationOf(); err == nil && name != spec.None {
		c.at, err = c.activation(c.at, name)
	}
	return err
}

func (c *chain) parameter(name string, at spec.Range, shape ...int) parameter {
	p := parameter{node: c.input(name, c.g.Weights[at.From:at.To:at.To], shape...)}
	if c.g.Gradient != nil {
		p.gradient = c.g.Gradient[at.From:at.To:at.To]
	}
	c.params = append(c.params, p.node)
	return p
}

// backward adds the loss and the gradients. The seed of the gradient is a node of this
// graph: gorgonia.Grad would use one that all graphs share.
func (c *chain) backward() (err error) {
	labels := c.input("labels", c.g.labels, c.rows)
	shares := c.input("shares", c.g.shares, c.rows)
	if c.g.cost, err = c.loss(c.g.plan.Loss, c.at, labels, shares); err != nil {
		return err
	}
	one := gorgonia.NewScalar(c.graph, tensor.Float32, gorgonia.WithName("one"), gorgonia.WithValue(float32(1)))
	_, err = gorgonia.Backpropagate(gorgonia.Nodes{c.g.cost}, gorgonia.Nodes{one}, c.params)
	if err != nil {
		return fault.New(fault.Internal, "derive the network: %w", err)
	}
	return nil
}

// Rows is how many rows a run takes at most.
func (g *Graph) Rows() int { return g.rows }

// Batch is what one step computes on.
type Batch struct {
	// Features are row-major; there may be fewer rows than the graph has room for.
	Features, Labels []float32
	// Share is the weight of each row: one over the rows of all workers in this step.
	Share float64
	// Mask seeds the dropout of this step.
	Mask Key
}

// Step runs forward and backward. It fills Gradient and returns the sum of the rows'
// losses, not weighted, and how many rows were classified right.
func (g *Graph) Step(b Batch) (loss float64, correct int, err error) {
	n := len(b.Labels)
	if g.Gradient == nil || n > g.rows || len(b.Features)*g.rows != n*len(g.input) {
		return 0, 0, fault.New(fault.Internal, "a step of %d values and %d rows in a graph of %d rows", len(b.Features), n, g.rows)
	}
	clear(g.input[copy(g.input, b.Features):])
	clear(g.labels[copy(g.labels, b.Labels):])
	fill(g.shares[:n], float32(b.Share))
	clear(g.shares[n:])
	for i, m := range g.masks {
		b.Mask.Layer = i
		b.Mask.fill(m)
	}
	if err := g.run(); err != nil {
		return 0, 0, err
	}
	out := g.outputs()
	for i, label := range b.Labels {
		row := out[i*g.plan.Outputs : (i+1)*g.plan.Outputs]
		loss += RowLoss(g.plan.Loss, row, label)
		if g.plan.Loss != spec.MeanSquaredError && Class(g.plan.Loss, row) == int(label) {
			correct++
		}
	}
	if math.IsNaN(loss) || math.IsInf(loss, 0) {
		return loss, correct, fault.New(fault.Invalid, "the loss is %v: the training diverged; give a smaller optimizer rate or scale the data", loss)
	}
	return loss, correct, nil
}

// Forward computes the outputs of as many rows as there are. The answer is good until
// the next run.
func (g *Graph) Forward(features []float32) ([]float32, error) {
	width := len(g.input) / g.rows
	if len(features) > len(g.input) || len(features)%width != 0 {
		return nil, fault.New(fault.Internal, "%d values for a graph of %d rows of %d", len(features), g.rows, width)
	}
	clear(g.input[copy(g.input, features):])
	if err := g.run(); err != nil {
		return nil, err
	}
	return g.outputs()[:len(features)/width*g.plan.Outputs], nil
}

func (g *Graph) run() error {
	g.machine.Reset()
	if err := g.machine.RunAll(); err != nil {
		return fault.New(fault.Internal, "run the network: %w", err)
	}
	return nil
}

func (g *Graph) outputs() []float32 { return g.output.Value().Data().([]float32) }

// Close frees the machine.
func (g *Graph) Close() error {
	if err := g.machine.Close(); err != nil {
		return errors.Join(fault.New(fault.Internal, "close the network's machine"), err)
	}
	return nil
}
