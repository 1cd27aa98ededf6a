// Package space says what a search may try: parameters with their ranges, scales and
// choices, the tree of conditions between them, and constraints over several of them.
//
// A Spec is what people write, with json tags; Compile checks it and makes a Space, which
// never changes. A Config is one point of a Space, a number per parameter. Encode and
// Decode lead to and from the unit cube that samplers work in: one dimension for each
// parameter that is free, with a mask of those that are active.
//
// The parameters of a Space stand in an order of its own (parents before children, then by
// name), so that the order in a Spec changes nothing that a sampler sees.
package space
