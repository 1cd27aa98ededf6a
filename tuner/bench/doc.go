// Package bench measures samplers on problems whose answers are known: tables of real
// training runs, the BBOB functions, and a function with a fidelity. One Play is one search
// of one seed; it is a function of its arguments, workers and their durations included.
package bench
