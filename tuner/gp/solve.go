package gp

import "gonum.org/v1/gonum/blas/blas64"

// Solves by a lower triangle of rows stride apart, in place. They go along rows, where blas64.Dot
// and blas64.Axpy are vectorized: at a few hundred rows several times as fast as blas64.Trsv.

// forward makes b triangle⁻¹ b.
func forward(triangle []float64, stride int, b []float64) {
	for i := range b {
		row := triangle[i*stride : i*stride+i+1]
		b[i] = (b[i] - blas64.Dot(vector(row[:i]), vector(b[:i]))) / row[i]
	}
}

// backward makes b triangle⁻ᵀ b.
func backward(triangle []float64, stride int, b []float64) {
	for i := len(b) - 1; i >= 0; i-- {
		row := triangle[i*stride : i*stride+i+1]
		b[i] /= row[i]
		blas64.Axpy(-b[i], vector(row[:i]), vector(b[:i]))
	}
}

func vector(data []float64) blas64.Vector {
	return blas64.Vector{N: len(data), Data: data, Inc: 1}
}
