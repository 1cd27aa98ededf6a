package spec

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"strings"

	"github.com/clary-ml/clary/internal/fault"
)

// Problem is one mistake: where, and what would be right.
type Problem struct {
	// Path is the field's place, such as network.layers[2].conv2d.kernel.
	Path string `json:"path"`
	// Message says the value, and what to give instead.
	Message string `json:"message"`
}

// String returns "path: message".
func (p Problem) String() string { return p.Path + ": " + p.Message }

// Problems is every mistake of a spec. None is no mistake.
type Problems []Problem

// Error returns one line for each mistake.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Err returns nil if there is no problem, else an error of kind Invalid that lists all.
func (ps Problems) Err() error {
	if len(ps) == 0 {
		return nil
	}
	return fault.New(fault.Invalid, "%w", ps)
}

const (
	maxEpochs = 1_000_000
	// MaxBatch bounds the rows of one step over all workers.
	MaxBatch = 1 << 16
)

// Validate returns every mistake in the run's description.
func (t Training) Validate() Problems {
	_, problems := t.Network.Plan()
	add := func(path, format string, args ...any) {
		problems = append(problems, Problem{path, fmt.Sprintf(format, args...)})
	}
	t.Optimizer.validate(add)
	t.Data.validate(add, t.Network.Loss)
	if t.Epochs < 1 || t.Epochs > maxEpochs {
		add("epochs", "%d: give 1 to %d", t.Epochs, maxEpochs)
	}
	if t.Batch < 1 || t.Batch > MaxBatch {
		add("batch", "%d: give 1 to %d", t.Batch, MaxBatch)
	}
	if t.CheckpointEvery < 0 {
		add("checkpoint_every", "%d: give a number of epochs, 1 or more", t.CheckpointEvery)
	}
	if !within(t.TargetAccuracy, 0, 1) {
		add("target_accuracy", "%v: give 0 (never) to 1", t.TargetAccuracy)
	}
	if t.TargetAccuracy > 0 && t.Network.Loss == MeanSquaredError {
		add("target_accuracy", "a network with loss mse has no accuracy: remove it")
	}
	if n := len(t.Data.Classes); n > 0 && len(problems) == 0 {
		plan, _ := t.Network.Plan()
		if want := max(plan.Outputs, 2); n != want {
			add("data.classes", "%d names for %d classes: give one name for each", n, want)
		}
	}
	return problems
}

func within(v, low, high float64) bool { return v >= low && v <= high }

func (o Optimizer) validate(add func(path, format string, args ...any)) {
	kinds := 0
	rate := func(path string, v float64) {
		kinds++
		if !(v > 0) || v > 1e3 {
			add(path+".rate", "%v: give a learning rate above 0 and at most 1000", v)
		}
	}
	share := func(path string, v float64) {
		if !(v >= 0 && v < 1) {
			add(path, "%v: give 0 (the default) or more and less than 1", v)
		}
	}
	if s := o.SGD; s != nil {
		rate("optimizer.sgd", s.Rate)
	}
	if m := o.Momentum; m != nil {
		rate("optimizer.momentum", m.Rate)
		share("optimizer.momentum.momentum", m.Momentum)
	}
	if a := o.Adam; a != nil {
		rate("optimizer.adam", a.Rate)
		share("optimizer.adam.beta1", a.Beta1)
		share("optimizer.adam.beta2", a.Beta2)
		share("optimizer.adam.epsilon", a.Epsilon)
	}
	if kinds != 1 {
		add("optimizer", "%d given: give exactly one of sgd, momentum, adam", kinds)
	}
}

func (d Data) validate(add func(path, format string, args ...any), loss string) {
	switch d.Format {
	case FormatCSV:
		if d.Label.Named() && !d.Header {
			add("data.label", "%q is a name, and without \"header\": true no column has one: give first, last or a number", d.Label)
		}
		if d.Label.number && d.Label.index < 0 {
			add("data.label", "%d: columns count from 0", d.Label.index)
		}
	case FormatIDX:
		if d.Label != (Column{}) || d.Header || len(d.Classes) > 0 {
			add("data", "label, header and classes are for csv: remove them")
		}
	default:
		add("data.format", "%q: give csv or idx", d.Format)
	}
	if d.Scale != 0 && (!(math.Abs(d.Scale) >= 1e-30) || math.IsInf(d.Scale, 0)) {
		add("data.scale", "%v: give what features are divided by, such as 255", d.Scale)
	}
	if !(d.ValidationFraction >= 0 && d.ValidationFraction < 1) {
		add("data.validation_fraction", "%v: give 0 or more and less than 1", d.ValidationFraction)
	}
	if len(d.Classes) > 0 && loss == MeanSquaredError {
		add("data.classes", "a network with loss mse has no classes: remove them")
	}
	seen := map[string]bool{}
	for i, c := range d.Classes {
		if c == "" || seen[c] {
			add(fmt.Sprintf("data.classes[%d]", i), "%q: give each class a name of its own", c)
		}
		seen[c] = true
	}
}

// Digest identifies what decides the weights: a checkpoint of another digest cannot be
// resumed. How long to train and how often to save are left out, so that a finished run
// can be continued with more epochs. With 0 workers it is of a run whatever their number, as
// checkpoints are; those who take part at one time agree on it.
func (t Training) Digest(workers int) string {
	t.Epochs, t.CheckpointEvery, t.TargetAccuracy = 0, 0, 0
	body, err := json.Marshal(struct {
		Training Training
		Workers  int
	}{t, workers})
	if err != nil {
		// Only a NaN cannot be written, and Validate refuses those.
		body = fmt.Appendf(nil, "%+v %d", t, workers)
	}
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:16])
}

// Slots is how many values the optimiser keeps for each parameter.
func (o Optimizer) Slots() int {
	switch {
	case o.Adam != nil:
		return 2
	case o.Momentum != nil:
		return 1
	}
	return 0
}

// Footprint estimates the memory in bytes of one worker that computes on so many rows a
// step, without its data, and of all servers together.
func (t Training) Footprint(plan Plan, rows, workers int) (worker, servers int64) {
	activations := int64(Volume(plan.Input))
	for _, s := range plan.Stages {
		out := int64(Volume(s.Out))
		activations += 2 * out
		if s.Layer.ActivationOf() != None {
			activations += 2 * out
		}
		if s.Layer.Dropout != nil {
			activations += out
		}
	}
	p := int64(plan.Parameters)
	worker = 4 * (activations*int64(rows) + 3*p)
	servers = 4 * p * int64(2+t.Optimizer.Slots()+workers)
	return worker, servers
}
