package network

import (
	"math"

	"gorgonia.org/gorgonia"

	"github.com/clary-ml/clary/trainer/spec"
)

// loss is the weighted sum of the rows' losses. A row's weight is one over the rows of
// the whole step, or 0 for a row that only fills up the batch: so the gradients of all
// workers add up to the gradient of the mean.
func (b *builder) loss(name string, output, labels, weights *gorgonia.Node) (*gorgonia.Node, error) {
	rows, width := b.rows, output.Shape().TotalSize()/b.rows
	k := &kernel{name: name, differentiable: []bool{true, false, false}}
	k.run = func(out []float32, a [][]float32) {
		sum := 0.0
		for r := range rows {
			if w := a[2][r]; w != 0 {
				sum += float64(w) * RowLoss(name, a[0][r*width:(r+1)*width], a[1][r])
			}
		}
		out[0] = float32(sum)
	}
	k.diff = func(n gorgonia.Nodes, _, grad *gorgonia.Node) (gorgonia.Nodes, error) {
		g, err := b.apply(&kernel{name: name + " gradient", shape: output.Shape(), run: func(out []float32, a [][]float32) {
			for r := range rows {
				rowGradient(name, out[r*width:(r+1)*width], a[0][r*width:(r+1)*width], a[1][r], a[2][r]*a[3][0])
			}
		}}, nil, n[0], n[1], n[2], grad)
		return gorgonia.Nodes{g, nil, nil}, err
	}
	return b.apply(k, nil, output, labels, weights)
}

// RowLoss is the loss of one row's outputs. Cross entropy is taken from the plain
// outputs by log-sum-exp, and binary cross entropy likewise, so that neither overflows.
func RowLoss(name string, output []float32, label float32) float64 {
	switch name {
	case spec.CrossEntropy:
		return logSumExp(output) - float64(output[int(label)])
	case spec.BinaryCrossEntropy:
		z := float64(output[0])
		return math.Max(z, 0) - z*float64(label) + math.Log1p(math.Exp(-math.Abs(z)))
	default:
		d := float64(output[0]) - float64(label)
		return d * d
	}
}

func rowGradient(name string, out, output []float32, label, weight float32) {
	if weight == 0 {
		clear(out)
		return
	}
	switch name {
	case spec.CrossEntropy:
		total := logSumExp(output)
		for i, v := range output {
			// Below 1e-30 a probability is taken for 0: products with it would be
			// subnormal, which slows a step down several times.
			if d := float64(v) - total; d > leastLog {
				out[i] = weight * float32(math.Exp(d))
			} else {
				out[i] = 0
			}
		}
		out[int(label)] -= weight
	case spec.BinaryCrossEntropy:
		out[0] = weight * (float32(sigmoid(float64(output[0]))) - label)
	default:
		out[0] = weight * 2 * (output[0] - label)
	}
}

// leastLog is the logarithm of 1e-30.
const leastLog = -69

func logSumExp(output []float32) float64 {
	top := math.Inf(-1)
	for _, v := range output {
		top = math.Max(top, float64(v))
	}
	sum := 0.0
	for _, v := range output {
		sum += math.Exp(float64(v) - top)
	}
	return top + math.Log(sum)
}

// Class is the class that one row's outputs speak for; of equals, the first.
func Class(loss string, output []float32) int {
	if loss == spec.BinaryCrossEntropy {
		if output[0] > 0 {
			return 1
		}
		return 0
	}
	best := 0
	for i, v := range output {
		if v > output[best] {
			best = i
		}
	}
	return best
}

// Probabilities turns one row's outputs into a probability for each class; for a
// regression there is none.
func Probabilities(loss string, output []float32) []float64 {
	switch loss {
	case spec.CrossEntropy:
		p, total := make([]float64, len(output)), logSumExp(output)
		for i, v := range output {
			p[i] = math.Exp(float64(v) - total)
		}
		return p
	case spec.BinaryCrossEntropy:
		p := sigmoid(float64(output[0]))
		return []float64{1 - p, p}
	}
	return nil
}
