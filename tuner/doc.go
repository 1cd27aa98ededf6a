// Package tuner holds the nouns of a search: the Problem, the History of what was tried and
// what came of it, and the Sampler that proposes what to try next.
//
// Everything here and below is a function of its arguments. There is no clock, no I/O and
// no goroutine; random numbers come from the Problem's seed and the number of the trial. So
// the same seed and the same results in the same order give the same suggestions, on any
// machine, at any speed, and after a restart from what was stored.
package tuner
