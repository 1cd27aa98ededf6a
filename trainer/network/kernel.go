package network

import (
	"fmt"
	"hash"
	"hash/fnv"

	"github.com/chewxy/hm"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/clary-ml/clary/internal/fault"
)

// kernel is one operation of the graph, as Gorgonia sees it. It writes into a buffer of
// its own, made once, so that a step allocates next to nothing; Gorgonia's own
// operations allocate their results anew each time.
//
// A kernel with a nil shape gives a scalar.
type kernel struct {
	name  string
	id    int // tells apart kernels of one graph: Gorgonia merges nodes of equal hash
	in    []tensor.Shape
	shape tensor.Shape
	value *tensor.Dense // on out
	out   []float32
	run   func(out []float32, in [][]float32)
	args  [][]float32

	// differentiable says with regard to which inputs; diff gives those gradients.
	differentiable []bool
	diff           func(in gorgonia.Nodes, output, grad *gorgonia.Node) (gorgonia.Nodes, error)
}

var _ gorgonia.SDOp = (*kernel)(nil)

func (k *kernel) Arity() int { return len(k.in) }

func (k *kernel) Type() hm.Type {
	types := make([]hm.Type, 0, len(k.in)+1)
	for _, s := range k.in {
		types = append(types, typeOf(s))
	}
	return hm.NewFnType(append(types, typeOf(k.shape))...)
}

func typeOf(s tensor.Shape) hm.Type {
	if len(s) == 0 {
		return tensor.Float32
	}
	return gorgonia.TensorType{Dims: len(s), Of: tensor.Float32}
}

func (k *kernel) InferShape(...gorgonia.DimSizer) (tensor.Shape, error) {
	if k.shape == nil {
		return tensor.ScalarShape(), nil
	}
	return k.shape, nil
}

// Do runs the kernel. The result is only good until the next run.
func (k *kernel) Do(values ...gorgonia.Value) (gorgonia.Value, error) {
	for i, v := range values {
		switch data := v.Data().(type) {
		case []float32:
			k.args[i] = data
		case float32:
			k.args[i] = []float32{data}
		default:
			return nil, fault.New(fault.Internal, "%s: input %d is a %T", k.name, i, data)
		}
	}
	k.run(k.out, k.args)
	if k.value == nil {
		return gorgonia.NewF32(k.out[0]), nil
	}
	return k.value, nil
}

func (k *kernel) ReturnsPtr() bool      { return true }
func (k *kernel) CallsExtern() bool     { return false }
func (k *kernel) OverwritesInput() int  { return -1 }
func (k *kernel) WriteHash(h hash.Hash) { fmt.Fprintf(h, "clary %s %d", k.name, k.id) }
func (k *kernel) String() string        { return fmt.Sprintf("%s#%d", k.name, k.id) }

func (k *kernel) Hashcode() uint32 {
	h := fnv.New32a()
	k.WriteHash(h)
	return h.Sum32()
}

func (k *kernel) DiffWRT(int) []bool {
	if k.differentiable == nil {
		return make([]bool, len(k.in))
	}
	return k.differentiable
}

func (k *kernel) SymDiff(in gorgonia.Nodes, output, grad *gorgonia.Node) (gorgonia.Nodes, error) {
	return k.diff(in, output, grad)
}

// builder makes the nodes of one graph.
type builder struct {
	graph *gorgonia.ExprGraph
	blas  BLAS
	rows  int
	ids   int
}

// apply adds a kernel to the graph. out is where it writes; nil gives it a buffer.
func (b *builder) apply(k *kernel, out []float32, inputs ...*gorgonia.Node) (*gorgonia.Node, error) {
	b.ids++
	k.id = b.ids
	for _, n := range inputs {
		k.in = append(k.in, n.Shape())
	}
	k.args = make([][]float32, len(inputs))
	if k.shape == nil {
		k.out = make([]float32, 1)
	} else {
		if out == nil {
			out = make([]float32, k.shape.TotalSize())
		}
		k.out = out
		k.value = tensor.New(tensor.WithShape(k.shape...), tensor.WithBacking(out))
	}
	n, err := gorgonia.ApplyOp(k, inputs...)
	if err != nil {
		return nil, fault.New(fault.Internal, "build %s: %w", k.name, err)
	}
	return n, nil
}

// input adds a node whose value stands on data.
func (b *builder) input(name string, data []float32, shape ...int) *gorgonia.Node {
	t := tensor.New(tensor.WithShape(shape...), tensor.WithBacking(data))
	return gorgonia.NewTensor(b.graph, tensor.Float32, len(shape),
		gorgonia.WithShape(shape...), gorgonia.WithName(name), gorgonia.WithValue(t))
}
