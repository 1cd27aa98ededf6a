package processing

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/trainer/steps"
	"github.com/clary-ml/clary/workload/training"
)

// What a task of ready-made steps gets where the user names nothing: batches are worked on at once,
// one on each core, and what is learned of all columns is held beside them.
const (
	stepsCores  = 2000 // thousandths
	stepsMemory = 2 << 30
)

// ready reports whether there are steps to do that need no code.
func (s Spec) ready() bool { return s.Steps != nil || s.Profile }

// stepsRole is the task that does them: the node's own clary.
func (s Spec) stepsRole() (cluster.Role, error) {
	named := s.Resources
	if named.Cores == 0 {
		named.Cores = stepsCores
	}
	if named.Memory == 0 {
		named.Memory = stepsMemory
	}
	task := steps.Task{
		Plan: s.Steps, Profile: s.Profile, Inputs: map[string]string{}, Workers: max(1, int(named.Cores)/1000),
	}
	for name := range s.Inputs {
		task.Inputs[name] = s.input(name).Folder
	}
	for name := range s.Outputs {
		task.Output = s.export(name).Folder
	}
	text, err := json.Marshal(task)
	if err != nil {
		return cluster.Role{}, fmt.Errorf("write the steps: %w", err)
	}
	t := s.training()
	t.Resources, t.Program = named, &training.Program{Command: []string{"clary", "steps"}}
	roles, err := t.Roles()
	if err != nil {
		return cluster.Role{}, err
	}
	roles[0].Program.Clary, roles[0].Program.Spec = true, text
	return roles[0], nil
}

func (s Spec) validateSteps(p *cluster.Problems) {
	if s.Steps != nil {
		if err := s.Steps.Validate(); err != nil {
			for line := range strings.SplitSeq(err.Error(), "\n") {
				field, text, _ := strings.Cut(line, ": ")
				p.Add("steps."+field, "%s", text)
			}
		}
		for i, step := range s.Steps.Steps {
			if step.Join == nil || step.Join.With == "" {
				continue
			}
			if _, given := s.Inputs[step.Join.With]; !given {
				p.Add(fmt.Sprintf("steps.steps[%d].join.with", i), "there is no input %q: name the table in inputs", cluster.Clip(step.Join.With))
			}
		}
	}
	if _, given := s.Inputs[steps.MainInput]; !given {
		p.Add("inputs."+steps.MainInput, "is missing: name the table that the steps are for")
	}
	if len(s.Outputs) != 1 {
		p.Add("outputs", "%d: steps write to exactly one", len(s.Outputs))
	}
	if s.Instances > 1 {
		p.Add("instances", "%d: steps run on one, since they learn from all rows", s.Instances)
	}
	for _, other := range []struct {
		field string
		set   bool
	}{
		{"program", s.Program != nil},
		{"script", s.Script != nil},
		{"image", s.Image != ""},
		{"entrypoint", len(s.Entrypoint) > 0},
		{"framework", s.Framework != ""},
		{"cluster", s.Cluster != ""},
		{"metrics", len(s.Metrics) > 0},
		{"secrets", len(s.Secrets) > 0},
	} {
		if other.set {
			p.Add(other.field, "is for code of your own, and there are ready-made steps: remove one of the two")
		}
	}
	if len(*p) == 0 { // the rest is as for a program
		t := s.training()
		t.Program = &training.Program{Command: []string{"clary"}}
		p.Under("", t.Validate())
	}
}
