package training

import (
	"encoding/json"
	"path"
	"regexp"
	"strings"

	"github.com/clary-ml/clary/cluster"
)

// Script is a program of the user's own source, run as SageMaker's script mode runs it:
// hyperparameters come as arguments and SM_ variables, requirements are installed.
type Script struct {
	// Entry is the file to run, relative to the source: .py with Python, .sh with bash,
	// any other as a program.
	Entry string `json:"entry"`
	// Source is the s3:// address of a .tar.gz of the code.
	Source string `json:"source"`
	// Requirements is the text of a requirements.txt; each node installs it once.
	Requirements string `json:"requirements,omitempty"`
	// Python is the interpreter on the node; "python3" if empty.
	Python string `json:"python,omitempty"`
	// Arguments stand before those that come of hyperparameters.
	Arguments []string          `json:"arguments,omitempty"`
	Env       map[string]string `json:"env,omitempty"`
}

func (s Script) validate(p *cluster.Problems) {
	switch {
	case s.Entry == "":
		p.Add("script.entry", "is missing: name the file to run, like train.py")
	case path.IsAbs(s.Entry) || path.Clean(s.Entry) != s.Entry || s.Entry == ".." || strings.HasPrefix(s.Entry, "../"):
		p.Add("script.entry", "%q is not a path inside the source, like train.py", cluster.Clip(s.Entry))
	}
	if s.Source == "" {
		p.Add("script.source", "is missing: say where the code is, as s3://bucket/code.tar.gz, or let clary train --script pack it")
	} else {
		checkAddress(p, "script.source", s.Source)
	}
}

// command runs the entry. Hyperparameters are added on the node, which knows how
// SageMaker's toolkit would.
func (s Script) command() []string {
	var command []string
	switch path.Ext(s.Entry) {
	case ".py":
		command = []string{s.interpreter(), s.Entry}
	case ".sh":
		command = []string{"bash", s.Entry}
	default:
		command = []string{"./" + s.Entry}
	}
	return append(command, s.Arguments...)
}

// interpreter is what the node finds in PATH: in an environment of its own python3 is the
// environment's.
func (s Script) interpreter() string {
	if s.Python == "" || s.Requirements != "" {
		return "python3"
	}
	return s.Python
}

func (s Script) python() *cluster.Python {
	if s.Requirements == "" {
		return nil
	}
	return &cluster.Python{Interpreter: s.Python, Requirements: s.Requirements}
}

// hyperparameterName is what SageMaker takes.
var hyperparameterName = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,256}$`)

// maxHyperparameters is SageMaker's bound.
const maxHyperparameters = 100

func (s Spec) validateHyperparameters(p *cluster.Problems) {
	if len(s.Hyperparameters) > maxHyperparameters {
		p.Add("hyperparameters", "%d: at most %d", len(s.Hyperparameters), maxHyperparameters)
	}
	for _, name := range sortedKeys(s.Hyperparameters) {
		if !hyperparameterName.MatchString(name) {
			p.Add("hyperparameters", "%q is no name: takes 1 to 256 of a-z A-Z 0-9 _ . -", cluster.Clip(name))
		}
	}
}

// hyperparameters are the values as texts: a JSON text as it is, all else as JSON. A
// script's are JSON throughout, as SageMaker's SDK writes them.
func (s Spec) hyperparameters() map[string]string {
	if len(s.Hyperparameters) == 0 {
		return nil
	}
	texts := map[string]string{}
	for name, value := range s.Hyperparameters {
		texts[name] = string(value)
		var text string
		if s.Script == nil && json.Unmarshal(value, &text) == nil {
			texts[name] = text
		}
	}
	return texts
}
