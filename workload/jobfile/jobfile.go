// Package jobfile reads what people write to submit a job, in YAML or JSON, into the
// noun. Every mistake is found at once and told with its line, its field and what would
// be right: unknown fields, keys that are there twice, wrong types, and, where the
// kind's check is given, whatever is wrong in the spec.
package jobfile

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/quantity"
	"github.com/clary-ml/clary/internal/strictjson"
)

// MaxSize is the largest job file, in bytes.
const MaxSize = 2 << 20

// File is what a job file holds.
type File struct {
	Name       string            `json:"name,omitempty" jsonschema:"description=Identity of the job: 1 to 63 of a-z 0-9 and '-'. One is made up if it is left out."`
	Kind       string            `json:"kind,omitempty" jsonschema:"description=What sort of job it is,default=training"`
	Queue      string            `json:"queue,omitempty" jsonschema:"description=Where it waits for its turn,default=default"`
	Priority   int32             `json:"priority,omitempty" jsonschema:"description=Higher goes first within the queue,minimum=-1000,maximum=1000"`
	Labels     map[string]string `json:"labels,omitempty" jsonschema:"description=The submitter's own words for finding the job again"`
	MaxRuntime quantity.Duration `json:"max_runtime,omitzero" jsonschema:"description=From its start to its end; then it is stopped and has failed"`
	Retries    int32             `json:"retries,omitempty" jsonschema:"description=Restarts after a task failed; lost nodes do not count,minimum=0,maximum=1000"`
	Backoff    quantity.Duration `json:"backoff,omitzero" jsonschema:"description=Wait before the first restart; doubles each time up to 10 minutes"`
	RetryOnly  []int32           `json:"retry_only,omitempty" jsonschema:"description=Exit codes that are tried again; all others are not. Left out: all are"`
	RetryNever []int32           `json:"retry_never,omitempty" jsonschema:"description=Exit codes that are not tried again"`
	Register   string            `json:"register,omitempty" jsonschema:"description=Model in the registry that what it makes becomes a version of"`
	Hold       bool              `json:"hold,omitempty" jsonschema:"description=Wait until it is released by hand"`
	// Preemptible is true if it is left out.
	Preemptible *bool           `json:"preemptible,omitempty" jsonschema:"description=false keeps it from making room for others while it runs,default=true"`
	Spec        json.RawMessage `json:"spec" jsonschema:"description=What to do; its fields are the kind's"`
}

// Kind is what a job file needs to know of a kind of job.
type Kind struct {
	Check func(spec []byte) cluster.Problems // finds the mistakes in a spec
	Spec  any                                // a zero value of the spec's type, for the schema
}

// Mistake is one thing wrong in a job file.
type Mistake struct {
	Line int // from 1; 0 if it is unknown
	cluster.Problem
}

// Mistakes are all that is wrong in a job file.
type Mistakes []Mistake

// Error lists the mistakes, a line each.
func (m Mistakes) Error() string {
	lines := make([]string, len(m))
	for i, mistake := range m {
		lines[i] = mistake.String()
		if mistake.Line > 0 {
			lines[i] = fmt.Sprintf("line %d: %s", mistake.Line, mistake.Problem)
		}
	}
	return strings.Join(lines, "\n")
}

// Parse reads a job file. The error, if any, is Mistakes.
func Parse(data []byte, kinds map[cluster.Kind]Kind) (cluster.Job, error) {
	if len(data) > MaxSize {
		return cluster.Job{}, single("the file has %d bytes: at most %d", len(data), MaxSize)
	}
	if strings.TrimSpace(string(data)) == "" {
		return cluster.Job{}, single("the file is empty: it takes at least a spec, see `clary schema`")
	}
	text, lines, err := toJSON(data)
	if err != nil {
		return cluster.Job{}, err
	}
	var file File
	problems := strictjson.Decode(text, &file)
	if problems == nil {
		problems = file.check(kinds)
	} else {
		problems = append(problems, checkSpecAlone(text, kinds)...)
	}
	if problems != nil {
		return cluster.Job{}, locate(problems, lines)
	}
	return file.Job(), nil
}

// Decode reads a file of fields, YAML or JSON, that is not a job, into v, a pointer to a struct.
// The error, if any, is Mistakes.
func Decode(data []byte, v any) error {
	if len(data) > MaxSize {
		return single("the file has %d bytes: at most %d", len(data), MaxSize)
	}
	text, lines, err := toJSON(data)
	if err != nil {
		return err
	}
	if problems := strictjson.Decode(text, v); problems != nil {
		return locate(problems, lines)
	}
	return nil
}

// Job is the noun that the file describes.
func (f File) Job() cluster.Job {
	return cluster.Job{
		Name: f.Name, Kind: f.kind(), Queue: f.Queue, Priority: f.Priority, Labels: f.Labels,
		MaxRuntime: f.MaxRuntime.Std(), Held: f.Hold, Spec: f.Spec, Register: f.Register,
		NonPreemptible: f.Preemptible != nil && !*f.Preemptible,
		Retry:          cluster.Retry{Limit: f.Retries, Backoff: f.Backoff.Std(), Only: f.RetryOnly, Never: f.RetryNever},
	}
}

// FromJob is the file that would submit the job again.
func FromJob(job cluster.Job) File {
	var preemptible *bool
	if job.NonPreemptible {
		preemptible = new(bool)
	}
	return File{
		Preemptible: preemptible,
		Name:        job.Name, Kind: string(job.Kind), Queue: job.Queue, Priority: job.Priority, Labels: job.Labels,
		MaxRuntime: quantity.Duration(job.MaxRuntime), Retries: job.Retry.Limit,
		Backoff: quantity.Duration(job.Retry.Backoff), RetryOnly: job.Retry.Only, RetryNever: job.Retry.Never, Hold: job.Held, Spec: job.Spec, Register: job.Register,
	}
}

func (f File) kind() cluster.Kind {
	if f.Kind == "" {
		return cluster.KindTraining
	}
	return cluster.Kind(f.Kind)
}

// check finds what is wrong though every field has the right type. What a submission
// may leave open stands in for itself, so that the noun's own rules can be asked.
func (f File) check(kinds map[cluster.Kind]Kind) cluster.Problems {
	job := f.Job()
	job.Owner, job.State = "owner", cluster.JobQueued
	if job.Name == "" {
		job.Name = "name"
	}
	if job.Queue == "" {
		job.Queue = cluster.DefaultQueue
	}
	p := job.Validate()
	kind, known := kinds[job.Kind]
	switch {
	case !known:
		names := kindNames(kinds)
		p.Add("kind", "%q is unknown%s: there is %s", cluster.Clip(f.Kind), meant(strictjson.Nearest(f.Kind, names)), strings.Join(names, ", "))
	case len(f.Spec) == 0:
		p.Add("spec", "is missing: it says what to do, see `clary schema %s`", job.Kind)
	case kind.Check != nil:
		p.Under("spec", kind.Check(f.Spec))
	}
	return p
}

// checkSpecAlone finds what is wrong in the spec of a file that has mistakes elsewhere,
// so that all are told at once.
func checkSpecAlone(text []byte, kinds map[cluster.Kind]Kind) cluster.Problems {
	var p cluster.Problems
	var file struct {
		Kind string          `json:"kind"`
		Spec json.RawMessage `json:"spec"`
	}
	if json.Unmarshal(text, &file) != nil || len(file.Spec) == 0 {
		return nil
	}
	if kind := kinds[File{Kind: file.Kind}.kind()]; kind.Check != nil {
		p.Under("spec", kind.Check(file.Spec))
	}
	return p
}

func meant(nearest string) string {
	if nearest == "" {
		return ""
	}
	return fmt.Sprintf(", perhaps %q is meant", nearest)
}

func kindNames(kinds map[cluster.Kind]Kind) []string {
	var names []string
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		names = append(names, string(kind))
	}
	return names
}

func single(format string, args ...any) Mistakes {
	return Mistakes{{Problem: cluster.Problem{Text: fmt.Sprintf(format, args...)}}}
}

// locate gives each problem the line of its field, or of the nearest one around it
// that stands in the file.
func locate(problems cluster.Problems, lines map[string]int) Mistakes {
	var mistakes Mistakes
	for _, problem := range problems {
		field, line := problem.Field, 0
		for {
			if line = lines[field]; line != 0 || field == "" {
				break
			}
			field = field[:max(strings.LastIndexAny(field, ".["), 0)]
		}
		mistakes = append(mistakes, Mistake{Line: line, Problem: problem})
	}
	slices.SortStableFunc(mistakes, func(a, b Mistake) int { return a.Line - b.Line })
	return mistakes
}
