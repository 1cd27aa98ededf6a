// Package spec says what a training run is: the network, its loss and optimiser, the
// data's layout and how long to train. It imports no numeric library, so that a
// submission can be checked, and its memory estimated, wherever it arrives.
//
// Validate reports every mistake at once, each with the path of the field; Plan infers
// the shapes through the layers and lays the parameters out in one flat arena.
package spec
