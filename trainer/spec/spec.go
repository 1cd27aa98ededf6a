package spec

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// Training is one whole run.
type Training struct {
	Network   Network   `json:"network"`
	Optimizer Optimizer `json:"optimizer"`
	Data      Data      `json:"data"`
	// Epochs is how often every training row is seen.
	Epochs int `json:"epochs"`
	// Batch is the number of rows of one step, over all workers together.
	Batch int `json:"batch"`
	// Seed decides initial weights, order of rows, dropout and the validation split.
	Seed int64 `json:"seed,omitempty"`
	// CheckpointEvery is the number of epochs between checkpoints; 0 means 1.
	CheckpointEvery int `json:"checkpoint_every,omitempty"`
	// TargetAccuracy ends the run early once validation accuracy reaches it; 0 never does.
	TargetAccuracy float64 `json:"target_accuracy,omitempty"`
}

// Network is a chain of layers with a loss at its end.
type Network struct {
	// Input is the shape of one row: [features] or [channels, height, width].
	Input  []int   `json:"input"`
	Layers []Layer `json:"layers"`
	Loss   string  `json:"loss"`
}

// The losses. Each takes the last layer's plain output: the softmax of cross entropy and
// the sigmoid of binary cross entropy are part of the loss.
const (
	CrossEntropy       = "cross_entropy"
	BinaryCrossEntropy = "binary_cross_entropy"
	MeanSquaredError   = "mse"
)

// Layer is exactly one of its fields.
type Layer struct {
	Dense   *Dense   `json:"dense,omitempty"`
	Conv2D  *Conv2D  `json:"conv2d,omitempty"`
	Pool    *Pool    `json:"pool,omitempty"`
	Dropout *Dropout `json:"dropout,omitempty"`
	Flatten *Flatten `json:"flatten,omitempty"`
}

// Dense is a fully connected layer over a flat input.
type Dense struct {
	Units      int    `json:"units"`
	Activation string `json:"activation,omitempty"`
}

// Conv2D is a convolution over [channels, height, width] with a square kernel.
type Conv2D struct {
	Filters int `json:"filters"`
	Kernel  int `json:"kernel"`
	// Stride is the step of the kernel; 0 means 1.
	Stride int `json:"stride,omitempty"`
	// Padding is "valid" (none, the default) or "same" (output = ceil(input / stride)).
	Padding    string `json:"padding,omitempty"`
	Activation string `json:"activation,omitempty"`
}

// Pool takes the greatest ("max") or the mean ("average") of each square window.
type Pool struct {
	Kind string `json:"kind"`
	Size int    `json:"size"`
	// Stride is the step of the window; 0 means Size.
	Stride int `json:"stride,omitempty"`
}

// Dropout zeroes this share of its inputs while training and scales the rest up, so
// that nothing needs scaling afterwards.
type Dropout struct {
	Rate float64 `json:"rate"`
}

// Flatten turns [channels, height, width] into one flat row.
type Flatten struct{}

// The activations; the empty string is None.
const (
	None    = "none"
	ReLU    = "relu"
	Tanh    = "tanh"
	Sigmoid = "sigmoid"
)

// Optimizer is exactly one of its fields.
type Optimizer struct {
	SGD      *SGD      `json:"sgd,omitempty"`
	Momentum *Momentum `json:"momentum,omitempty"`
	Adam     *Adam     `json:"adam,omitempty"`
}

// SGD is plain gradient descent.
type SGD struct {
	Rate float64 `json:"rate"`
}

// Momentum is gradient descent with a running sum of gradients.
type Momentum struct {
	Rate float64 `json:"rate"`
	// Momentum is the share of the running sum kept at each step; 0 means 0.9.
	Momentum float64 `json:"momentum,omitempty"`
}

// Adam is Kingma and Ba's method (ICLR 2015, algorithm 1).
type Adam struct {
	Rate float64 `json:"rate"`
	// Beta1, Beta2 and Epsilon are as in the paper; 0 means 0.9, 0.999 and 1e-8.
	Beta1   float64 `json:"beta1,omitempty"`
	Beta2   float64 `json:"beta2,omitempty"`
	Epsilon float64 `json:"epsilon,omitempty"`
}

// The data formats; each may be compressed by gzip, which is recognised by its content.
const (
	FormatCSV = "csv"
	FormatIDX = "idx"
)

// Data says how files become rows.
type Data struct {
	Format string `json:"format"`
	// Label is the CSV column of the label: "last" (the default), "first", a number
	// from 0, or a name where Header is set. An idx channel has a file of labels instead.
	Label Column `json:"label,omitzero"`
	// Header means that each CSV file starts with a line of column names.
	Header bool `json:"header,omitempty"`
	// Scale divides every feature; 0 means 1.
	Scale float64 `json:"scale,omitempty"`
	// Classes names the classes where CSV labels are words; their order is the class number.
	Classes []string `json:"classes,omitempty"`
	// ValidationFraction of the training rows is held out, chosen by the seed, unless
	// the run is given validation files of their own.
	ValidationFraction float64 `json:"validation_fraction,omitempty"`
}

// Column names a CSV column by place or by name. Its zero value is the last one.
type Column struct {
	name   string
	index  int
	number bool
}

// ColumnNamed is "first", "last" or the column of that name.
func ColumnNamed(name string) Column { return Column{name: name} }

// ColumnNumber is the column with that number, from 0.
func ColumnNumber(i int) Column { return Column{index: i, number: true} }

// Resolve returns the number of the column in rows of so many columns; header is nil
// where the file has none.
func (c Column) Resolve(columns int, header []string) (int, error) {
	switch {
	case c.number && (c.index < 0 || c.index >= columns):
		return 0, fmt.Errorf("label column %d: a row has columns 0 to %d", c.index, columns-1)
	case c.number:
		return c.index, nil
	case c.name == "" || c.name == "last":
		return columns - 1, nil
	case c.name == "first":
		return 0, nil
	}
	for i, name := range header {
		if name == c.name {
			return i, nil
		}
	}
	return 0, fmt.Errorf("label column %q is not among the header's columns %q", c.name, header)
}

// Named reports whether only a header can tell the column's place.
func (c Column) Named() bool {
	return !c.number && c.name != "" && c.name != "first" && c.name != "last"
}

// String returns the column as it is written in a spec.
func (c Column) String() string {
	switch {
	case c.number:
		return strconv.Itoa(c.index)
	case c.name == "":
		return "last"
	}
	return c.name
}

// MarshalJSON writes a number or a string.
func (c Column) MarshalJSON() ([]byte, error) {
	if c.number {
		return json.Marshal(c.index)
	}
	return json.Marshal(c.String())
}

// UnmarshalJSON reads a number or a string.
func (c *Column) UnmarshalJSON(data []byte) error {
	var index int
	if json.Unmarshal(data, &index) == nil {
		*c = ColumnNumber(index)
		return nil
	}
	var name string
	if err := json.Unmarshal(data, &name); err != nil {
		return fmt.Errorf("a label column is a number or a string, not %s", data)
	}
	*c = ColumnNamed(name)
	return nil
}

// Run is what a task of a training reads: the training, and how many take part in it.
type Run struct {
	Training
	// Workers and Servers are counts; 0 means 1.
	Workers int `json:"workers,omitempty"`
	Servers int `json:"servers,omitempty"`
	// Elastic says that other numbers of workers may have done a part of it: who begins in its middle
	// looks into the checkpoint.
	Elastic bool `json:"elastic,omitempty"`
}
