package tuning

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/spec"
	"github.com/clary-ml/clary/tuner/expr"
	"github.com/clary-ml/clary/tuner/space"
	"github.com/clary-ml/clary/workload/training"
)

// template makes the training jobs of trials.
type template struct {
	text       []byte      // of the training spec, in JSON
	parameters []Parameter // in the order of the file
	hyper      bool        // parameters without a path are hyperparameters
	track      *training.Track
}

func newTemplate(s Spec) (template, error) {
	text, err := json.Marshal(s.Trial)
	if err != nil {
		return template{}, fault.New(fault.Internal, "write the template: %w", err)
	}
	t := s.Trial
	return template{
		text: text, parameters: s.Space.Parameters, hyper: t.Program != nil || t.Script != nil || t.Image != "", track: s.track(),
	}, nil
}

// keptNotes is how many points of a curve are kept for people.
const keptNotes = 32

// track has a trial's job keep the points that its stopper judges; without one, some for
// people to see.
func (s Spec) track() *training.Track {
	if len(s.Objectives) == 0 || s.Objectives[0].Name == "" {
		return nil // a mistake that is told elsewhere
	}
	track := &training.Track{Metric: s.Objectives[0].Name, ByStep: s.bySteps() == stepStep}
	f := s.fidelity()
	if stopper, problems := s.Stopper.make(f); len(problems) == 0 && stopper != nil {
		track.Steps = stopper.rungs
		return track
	}
	for i := range keptNotes {
		step := math.Ceil(f.Max * float64(i+1) / keptNotes)
		if n := len(track.Steps); step > 0 && (n == 0 || step > track.Steps[n-1]) {
			track.Steps = append(track.Steps, step)
		}
	}
	return track
}

// fill puts values into the template, and where its checkpoints come from and the folder below
// its output that is the trial's own, unless those are "".
// The problems' fields are those of the template.
func (t template) fill(values map[string]expr.Value, restore, folder string) ([]byte, cluster.Problems) {
	var p cluster.Problems
	var doc map[string]any
	decoder := json.NewDecoder(bytes.NewReader(t.text))
	decoder.UseNumber() // what is not a parameter stays as it was written
	if err := decoder.Decode(&doc); err != nil {
		p.Add("", "%s", err)
		return nil, p
	}
	t.fillTexts(doc, values)
	if t.track != nil {
		doc["track"] = t.track
	}
	if restore != "" {
		doc["restore"] = restore
	}
	if output, _ := doc["output"].(string); output != "" && folder != "" {
		doc["output"] = strings.TrimRight(output, "/") + "/" + folder + "/"
	}
	for _, parameter := range t.parameters {
		value, active := values[parameter.Name]
		if !active {
			continue
		}
		path := parameter.Path
		if path == "" && t.hyper {
			set(doc, []step{{key: "hyperparameters"}, {key: parameter.Name}}, value)
			continue
		}
		if path == "" {
			path = parameter.Name
		}
		steps, err := parsePath(path)
		if err == nil {
			err = set(doc, steps, value)
		}
		if err != nil {
			p.Add(path, "%s (the path of parameter %q)", err, cluster.Clip(parameter.Name))
		}
	}
	if len(p) > 0 {
		return nil, p
	}
	filled, err := json.Marshal(doc)
	if err != nil {
		p.Add("", "%s", err)
		return nil, p
	}
	_, problems := training.Parse(filled)
	return filled, problems
}

// textFields are those whose texts may name parameters as ${name}.
var textFields = [][]string{
	{"program", "command"}, {"program", "env"}, {"script", "arguments"}, {"script", "env"}, {"entrypoint"},
}

// fillTexts puts values in place of ${name}. Other names are left: they may be a shell's.
func (t template) fillTexts(doc map[string]any, values map[string]expr.Value) {
	var pairs []string
	for _, parameter := range t.parameters {
		if value, active := values[parameter.Name]; active {
			pairs = append(pairs, "${"+parameter.Name+"}", value.String())
		}
	}
	replacer := strings.NewReplacer(pairs...)
	for _, field := range textFields {
		var at any = doc
		for _, key := range field {
			object, _ := at.(map[string]any)
			at = object[key]
		}
		switch texts := at.(type) {
		case []any:
			for i := range texts {
				if text, is := texts[i].(string); is {
					texts[i] = replacer.Replace(text)
				}
			}
		case map[string]any:
			for key := range texts {
				if text, is := texts[key].(string); is {
					texts[key] = replacer.Replace(text)
				}
			}
		}
	}
}

// step is one part of a path: a key, or an index if that is not negative and key is "".
type step struct {
	key   string
	index int
}

// parsePath reads a path like network.layers[0].dense.units.
func parsePath(path string) ([]step, error) {
	var steps []step
	for part := range strings.SplitSeq(path, ".") {
		key, rest, _ := strings.Cut(part, "[")
		if key == "" {
			return nil, fault.New(fault.Invalid, "is no path: write it like optimizer.adam.rate or network.layers[0].dense.units")
		}
		steps = append(steps, step{key: key})
		for rest != "" {
			number, after, closed := strings.Cut(rest, "]")
			index, err := strconv.Atoi(number)
			if err != nil || !closed || index < 0 || after != "" && after[0] != '[' {
				return nil, fault.New(fault.Invalid, "is no path: an index is a whole number in brackets, as in layers[0]")
			}
			steps = append(steps, step{index: index})
			rest = strings.TrimPrefix(after, "[")
		}
	}
	return steps, nil
}

// set puts a value at a path. Objects on the way are made where they are missing: whether
// they may be there is for the template's own rules to say.
func set(doc map[string]any, steps []step, value expr.Value) error {
	var at any = doc
	walked := ""
	for i, s := range steps {
		last := i == len(steps)-1
		if s.key == "" {
			list, is := at.([]any)
			if !is || s.index >= len(list) {
				return fault.New(fault.Invalid, "is not there: %s has %d elements", walked, len(list))
			}
			walked += fmt.Sprintf("[%d]", s.index)
			if last {
				list[s.index] = value
			}
			at = list[s.index]
			continue
		}
		object, is := at.(map[string]any)
		if !is {
			return fault.New(fault.Invalid, "is not there: %s has no fields", walked)
		}
		walked = strings.TrimPrefix(walked+"."+s.key, ".")
		if last {
			object[s.key] = value
			return nil
		}
		if object[s.key] == nil {
			if steps[i+1].key == "" {
				return fault.New(fault.Invalid, "is not there: %s is no list", walked)
			}
			object[s.key] = map[string]any{}
		}
		at = object[s.key]
	}
	return nil
}

// maxCorners bounds how many configurations are tried before a sweep is accepted.
const (
	maxCorners = 1000
	maxLevels  = 64 // of one parameter
)

// checkTemplate tries the template at the corners of the space, and looks for the metrics.
func (s Spec) checkTemplate(compiled *space.Space) cluster.Problems {
	var p cluster.Problems
	t, err := newTemplate(s)
	if err != nil {
		p.Add("trial", "%s", err)
		return p
	}
	t.checkTexts(&p)
	s.checkMetrics(&p)
	said := map[string]bool{} // one mistake of each field will do
	for _, config := range corners(compiled) {
		values := compiled.Values(config)
		_, problems := t.fill(values, "", "")
		for _, problem := range problems {
			if said[problem.Field] {
				continue
			}
			said[problem.Field] = true
			var found cluster.Problems
			found.Add(problem.Field, "%s (with %s)", problem.Text, describe(values))
			p.Under("trial", found)
		}
	}
	return p
}

// checkTexts refuses texts that name a parameter which is not always there.
func (t template) checkTexts(p *cluster.Problems) {
	for i, parameter := range t.parameters {
		if parameter.When != nil && bytes.Contains(t.text, []byte("${"+parameter.Name+"}")) {
			p.Add(fmt.Sprintf("space.parameters[%d].when", i), "%q stands in the trial's texts as ${%s}, and is not always there: make it a hyperparameter, or drop the condition",
				cluster.Clip(parameter.Name), cluster.Clip(parameter.Name))
		}
	}
}

// checkMetrics refuses metrics that a declared network does not have. What a program says
// is not known.
func (s Spec) checkMetrics(p *cluster.Problems) {
	t := s.Trial
	if t.Program != nil || t.Script != nil || t.Image != "" {
		return
	}
	known := []string{"train_loss"}
	validated := t.Data.ValidationFraction > 0 || t.Inputs["validation"].URI != ""
	quality := "accuracy"
	if t.Network.Loss == spec.MeanSquaredError {
		quality = "rmse"
	} else {
		known = append(known, "train_accuracy")
	}
	if validated {
		known = append(known, "validation_loss", "validation_"+quality)
	}
	check := func(field, name string) {
		if slices.Contains(known, name) {
			return
		}
		remedy := ""
		if !validated {
			remedy = "; there are no validation rows: set data.validation_fraction or inputs.validation"
		}
		p.Add(field, "%q is no metric of this network: it has %s%s", cluster.Clip(name), strings.Join(known, ", "), remedy)
	}
	for i, o := range s.Objectives {
		check(fmt.Sprintf("objectives[%d].name", i), o.Name)
	}
	for i, l := range s.Limits {
		check(fmt.Sprintf("limits[%d].name", i), l.Name)
	}
}

// corners are configurations at the edges of a space: its start, all parameters at either
// end, and each at each of its values while the others are at an end.
func corners(s *space.Space) []space.Config {
	dims := s.Dims()
	seen := map[string]bool{}
	var found []space.Config
	add := func(c space.Config) {
		if key := c.Key(); !seen[key] && s.Admits(c) && len(found) < maxCorners {
			seen[key] = true
			found = append(found, c)
		}
	}
	add(s.Start())
	for _, end := range []float64{0, 1} {
		x := make([]float64, len(dims))
		for i := range x {
			x[i] = dims[i].Snap(end)
		}
		add(s.Decode(x))
		for i, d := range dims {
			kept := x[i]
			x[i] = dims[i].Snap(1 - end)
			add(s.Decode(x))
			for level := range min(d.Levels, maxLevels) {
				x[i] = d.At(level)
				add(s.Decode(x))
			}
			x[i] = kept
		}
	}
	return found
}

// describe reads like "a = 1, b = relu".
func describe(values map[string]expr.Value) string {
	var parts []string
	for name, value := range values {
		parts = append(parts, cluster.Clip(name)+" = "+cluster.Clip(value.String()))
	}
	slices.Sort(parts)
	if len(parts) > 8 {
		parts = append(parts[:8], "…")
	}
	return strings.Join(parts, ", ")
}
