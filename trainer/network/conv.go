package network

import (
	"math"

	"gonum.org/v1/gonum/blas"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/clary-ml/clary/trainer/spec"
)

// geometry is a window moving over [channels, height, width].
type geometry struct {
	channels, height, width int
	kernel, stride          int
	top, left               int
	outH, outW              int
}

func geometryOf(s spec.Stage, kernel int) geometry {
	return geometry{
		channels: s.In[0], height: s.In[1], width: s.In[2], kernel: kernel, stride: s.Layer.StrideOf(),
		top: s.PadTop, left: s.PadLeft, outH: s.Out[1], outW: s.Out[2],
	}
}

func (g geometry) image() int  { return g.channels * g.height * g.width }
func (g geometry) places() int { return g.outH * g.outW }

// patch is the number of values under the window in all channels.
func (g geometry) patch() int { return g.channels * g.kernel * g.kernel }

// span returns the output columns whose window column kx lies inside the image.
func (g geometry) span(kx int) (from, to int) {
	for from < g.outW && from*g.stride-g.left+kx < 0 {
		from++
	}
	to = g.outW
	for to > from && (to-1)*g.stride-g.left+kx >= g.width {
		to--
	}
	return from, to
}

// unroll writes one image as a matrix [patch, places], so that a convolution becomes a
// product of matrices (Chellapilla, Puri, Simard: High Performance Convolutional Neural
// Networks for Document Processing, 2006, section 2).
func (g geometry) unroll(columns, image []float32) {
	at := 0
	for c := range g.channels {
		for ky := range g.kernel {
			for kx := range g.kernel {
				from, to := g.span(kx)
				for oy := range g.outH {
					row := columns[at : at+g.outW]
					at += g.outW
					y := oy*g.stride - g.top + ky
					if y < 0 || y >= g.height {
						clear(row)
						continue
					}
					clear(row[:from])
					clear(row[to:])
					line := image[(c*g.height+y)*g.width : (c*g.height+y+1)*g.width]
					for ox := from; ox < to; ox++ {
						row[ox] = line[ox*g.stride-g.left+kx]
					}
				}
			}
		}
	}
}

// roll adds a matrix [patch, places] back to the image, the transpose of unroll.
func (g geometry) roll(image, columns []float32) {
	at := 0
	for c := range g.channels {
		for ky := range g.kernel {
			for kx := range g.kernel {
				from, to := g.span(kx)
				for oy := range g.outH {
					row := columns[at : at+g.outW]
					at += g.outW
					y := oy*g.stride - g.top + ky
					if y < 0 || y >= g.height {
						continue
					}
					line := image[(c*g.height+y)*g.width : (c*g.height+y+1)*g.width]
					for ox := from; ox < to; ox++ {
						line[ox*g.stride-g.left+kx] += row[ox]
					}
				}
			}
		}
	}
}

// conv is a convolution, image by image: w [filters, patch] times the unrolled image.
func (b *builder) conv(x *gorgonia.Node, s spec.Stage, w, bias parameter, inputGrad bool) (*gorgonia.Node, error) {
	g := geometryOf(s, s.Layer.Conv2D.Kernel)
	filters, patch, places, rows, gemm := s.Out[0], g.patch(), g.places(), b.rows, b.blas
	columns := make([]float32, patch*places)
	k := &kernel{name: "conv2d", shape: append(tensor.Shape{rows}, s.Out...), differentiable: []bool{inputGrad, true, true}}
	k.run = func(out []float32, a [][]float32) {
		for r := range rows {
			g.convolve(gemm, out[r*filters*places:(r+1)*filters*places], a[0][r*g.image():(r+1)*g.image()], a[1], a[2][:filters], columns)
		}
	}
	k.diff = func(n gorgonia.Nodes, _, grad *gorgonia.Node) (gorgonia.Nodes, error) {
		return b.convGradients(n, grad, g, filters, w, bias, inputGrad)
	}
	return b.apply(k, nil, x, w.node, bias.node)
}

func (b *builder) convGradients(n gorgonia.Nodes, grad *gorgonia.Node, g geometry, filters int, w, bias parameter, inputGrad bool) (gorgonia.Nodes, error) {
	patch, places, rows, gemm := g.patch(), g.places(), b.rows, b.blas
	columns := make([]float32, patch*places)
	gw, err := b.apply(&kernel{name: "conv2d weights gradient", shape: n[1].Shape(), run: func(out []float32, a [][]float32) {
		clear(out)
		for r := range rows {
			g.unroll(columns, a[0][r*g.image():(r+1)*g.image()])
			gemm.Sgemm(blas.NoTrans, blas.Trans, filters, patch, places, 1, a[1][r*filters*places:], places, columns, places, 1, out, patch)
		}
	}}, w.gradient, n[0], grad)
	if err != nil {
		return nil, err
	}
	gb, err := b.apply(&kernel{name: "conv2d bias gradient", shape: n[2].Shape(), run: func(out []float32, a [][]float32) {
		clear(out)
		for i := range rows * filters {
			var sum float32
			for _, v := range a[0][i*places : (i+1)*places] {
				sum += v
			}
			out[i%filters] += sum
		}
	}}, bias.gradient, grad)
	if err != nil || !inputGrad {
		return gorgonia.Nodes{nil, gw, gb}, err
	}
	gx, err := b.apply(&kernel{name: "conv2d input gradient", shape: n[0].Shape(), run: func(out []float32, a [][]float32) {
		clear(out)
		for r := range rows {
			gemm.Sgemm(blas.Trans, blas.NoTrans, patch, places, filters, 1, a[1], patch, a[0][r*filters*places:], places, 0, columns, places)
			g.roll(out[r*g.image():(r+1)*g.image()], columns)
		}
	}}, nil, grad, n[1])
	return gorgonia.Nodes{gx, gw, gb}, err
}

func fill(s []float32, v float32) {
	for i := range s {
		s[i] = v
	}
}

// pool takes the greatest or the mean of each window. Of equal values the first counts
// as the greatest, forward and backward.
func (b *builder) pool(x *gorgonia.Node, s spec.Stage) (*gorgonia.Node, error) {
	g := geometryOf(s, s.Layer.Pool.Size)
	mean, planes := s.Layer.Pool.Kind == "average", b.rows*g.channels
	k := &kernel{name: s.Layer.Pool.Kind + " pool", shape: append(tensor.Shape{b.rows}, s.Out...), differentiable: []bool{true}}
	k.run = func(out []float32, a [][]float32) { g.pool(out, a[0], mean) }
	k.diff = func(n gorgonia.Nodes, _, grad *gorgonia.Node) (gorgonia.Nodes, error) {
		gx, err := b.apply(&kernel{name: k.name + " gradient", shape: x.Shape(), run: func(out []float32, a [][]float32) {
			clear(out)
			for p := range planes {
				at := p * g.height * g.width
				plane, to := a[0][at:at+g.height*g.width], out[at:at+g.height*g.width]
				for i := range g.places() {
					if v := a[1][p*g.places()+i]; mean {
						g.spread(to, i, v)
					} else {
						to[g.greatest(plane, i)] += v
					}
				}
			}
		}}, nil, n[0], grad)
		return gorgonia.Nodes{gx}, err
	}
	return b.apply(k, nil, x)
}

// corner is the index of the upper left value under the window at a place.
func (g geometry) corner(place int) int {
	return place/g.outW*g.stride*g.width + place%g.outW*g.stride
}

func (g geometry) greatest(plane []float32, place int) int {
	best, value := g.corner(place), float32(math.Inf(-1))
	for ky := range g.kernel {
		at := g.corner(place) + ky*g.width
		for kx, v := range plane[at : at+g.kernel] {
			if v > value {
				best, value = at+kx, v
			}
		}
	}
	return best
}

func (g geometry) mean(plane []float32, place int) float32 {
	var sum float32
	for ky := range g.kernel {
		at := g.corner(place) + ky*g.width
		for _, v := range plane[at : at+g.kernel] {
			sum += v
		}
	}
	return sum / float32(g.kernel*g.kernel)
}

func (g geometry) spread(plane []float32, place int, v float32) {
	v /= float32(g.kernel * g.kernel)
	for ky := range g.kernel {
		at := g.corner(place) + ky*g.width
		for kx := range g.kernel {
			plane[at+kx] += v
		}
	}
}
