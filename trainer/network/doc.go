// Package network computes: it builds a planned network as a Gorgonia graph, once, and
// runs it forward and backward on float32. It is the only user of Gorgonia.
//
// Weights and gradients live in one flat arena each, laid out by spec.Plan. The graph's
// weight nodes and its gradient operations stand on slices of those arenas, so that
// nothing is copied between a step and the wire. Every random number is a function of
// seeds that the caller passes in.
package network
