// Package transform is the kind of job that scores in bulk: objects of the store go through a
// model's server, record by record, and for each one with an answer comes out.
package transform

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/quantity"
	"github.com/clary-ml/clary/internal/strictjson"
	"github.com/clary-ml/clary/serving/batch"
	"github.com/clary-ml/clary/serving/batch/record"
	"github.com/clary-ml/clary/workload/hosting"
)

// Spec is what a transform job asks for: a model and its server, what to read, how to send it, and
// where the answers go.
type Spec struct {
	// Server answers for the model. On a node servers with a port of their own run one after the other,
	// each job's driver beside its own; so there is one instance.
	hosting.Server

	// Input is an s3:// address, or an object that says more. Output is the s3:// prefix for
	// KEY.out of each object KEY below it.
	Input  Input  `json:"input"`
	Output string `json:"output"`

	// Split cuts objects into records: line, record_io or tf_record; by default each object is one.
	Split record.Split `json:"split,omitempty"`
	// Assemble says what stands between the answers: line or none; by default line for objects that
	// are split by line.
	Assemble batch.Assembly `json:"assemble,omitempty"`
	// ContentType is that of the input, Accept of the output; that of the input by default.
	ContentType string `json:"content_type,omitempty"`
	Accept      string `json:"accept,omitempty"`
	// Join is input for outputs that have the record before its prediction.
	Join string `json:"join,omitempty"`
	// InputFilter is a JSONPath of what is sent of each record, OutputFilter of what is kept of each
	// answer, which with join has the record too.
	InputFilter  string `json:"input_filter,omitempty"`
	OutputFilter string `json:"output_filter,omitempty"`

	// Strategy is single for one record a request, or multi for as many as MaxPayload lets; MaxConcurrent
	// is how many requests an instance has at a time. What is not said is asked of the server, and else is
	// multi, 6 MiB and 1.
	Strategy      batch.Strategy `json:"strategy,omitempty"`
	MaxPayload    quantity.Bytes `json:"max_payload,omitzero"`
	MaxConcurrent int            `json:"max_concurrent,omitempty"`
	// InvocationTimeout is how long an answer may take; 0 means a minute. InvocationRetries are how
	// often a request is sent again that has no good answer; 3 if it is left out.
	InvocationTimeout quantity.Duration `json:"invocation_timeout,omitzero"`
	InvocationRetries *int              `json:"invocation_retries,omitempty"`
	// Instances are how many servers share the objects, each whole; 0 means 1.
	Instances int32 `json:"instances,omitempty"`
}

// JoinInput is the only join.
const JoinInput = "input"

// InputFields say where the objects are and how they are read.
type InputFields struct {
	// URI is the s3:// address of an object, a prefix or a manifest.
	URI string `json:"uri"`
	// Mode is fast_file for objects that are fetched as they are read; by default they are fetched
	// before the transform begins.
	Mode cluster.InputMode `json:"mode,omitempty"`
	// Type is manifest; by default all objects below the address.
	Type cluster.InputType `json:"type,omitempty"`
	// Gzip decompresses the objects on the way.
	Gzip bool `json:"gzip,omitempty"`
}

// Input is InputFields, or in JSON the address alone.
type Input InputFields

// UnmarshalJSON takes a text or an object.
func (i *Input) UnmarshalJSON(text []byte) error {
	if json.Unmarshal(text, &i.URI) == nil {
		return nil
	}
	var fields InputFields
	if problems := strictjson.Decode(text, &fields); len(problems) > 0 {
		return fault.New(fault.Invalid, "takes an s3:// address, or an object with one as uri: %w", problems.Err())
	}
	*i = Input(fields)
	return nil
}

// MarshalJSON writes what is an address alone as such.
func (i Input) MarshalJSON() ([]byte, error) {
	if (i == Input{URI: i.URI}) {
		return json.Marshal(i.URI)
	}
	return json.Marshal(InputFields(i))
}

// Bounds and defaults.
const (
	MaxInstances = 1024
	maxTries     = 100

	defaultTimeout = time.Minute
	defaultTries   = 3
	longest        = time.Hour
)

// Parse reads a spec and reports every mistake in it; the spec is only good without any.
func Parse(data []byte) (Spec, cluster.Problems) {
	var s Spec
	if problems := strictjson.Decode(data, &s); len(problems) > 0 {
		return Spec{}, problems
	}
	return s, s.Validate()
}

// Validate reports every mistake, each with the path of its field.
func (s Spec) Validate() cluster.Problems {
	var p cluster.Problems
	if s.Own() && s.Model == "" {
		p.Add("model", "is missing: name a model that Clary serves, or an image, a program or a script that is a server")
	}
	p.Under("", s.Server.Validate(s.instances()))
	checkAddress(&p, "input.uri", s.Input.URI)
	cluster.CheckTarget(&p, "output", s.Output)
	switch {
	case s.Input.Mode == cluster.InputPipe:
		p.Add("input.mode", "%q is for training: objects are files, fetched before or with fast_file", s.Input.Mode)
	case s.Input.Type == cluster.InputAugmentedManifest:
		p.Add("input.type", "%q is for training: use manifest", s.Input.Type)
	default:
		p.Under("input", s.data().CheckMode())
	}
	if s.Join != "" && s.Join != JoinInput {
		p.Add("join", "%q is unknown: input, or nothing", cluster.Clip(s.Join))
	}
	s.validateSending(&p)
	if len(p) > 0 {
		return p
	}
	// What is left are the limits that every gang has: they are checked on the gang.
	roles, err := s.Roles()
	if err != nil {
		p.Add("", "%s", err)
		return p
	}
	return cluster.Gang{Job: "job", Name: "main", Queue: cluster.DefaultQueue, Attempt: 1, Roles: roles}.Validate()
}

func (s Spec) validateSending(p *cluster.Problems) {
	for _, err := range []error{s.shape().Validate(), s.limits().Validate()} {
		if err != nil {
			field, text, _ := strings.Cut(err.Error(), ": ")
			p.Add(field, "%s", text)
		}
	}
	if s.Instances < 0 || s.Instances > MaxInstances {
		p.Add("instances", "%d is out of range: from 1 to %d", s.Instances, MaxInstances)
	}
	if s.Port > 0 && s.instances() > 1 {
		p.Add("port", "%d is for one instance: two servers on a node would both want it; use 1 instance, or a server that listens at SAGEMAKER_BIND_TO_PORT", s.Port)
	}
	if tries := s.tries(); tries < 0 || tries > maxTries {
		p.Add("invocation_retries", "%d is out of range: from 0 to %d", tries, maxTries)
	}
	if d := s.InvocationTimeout; d != 0 && (d.Std() < time.Second || d.Std() > longest) {
		p.Add("invocation_timeout", "%s is out of range: from 1s to %s", d.Std(), longest)
	}
}

func (s Spec) shape() batch.Shape {
	return batch.Shape{
		Split: s.Split, Assemble: s.Assemble, ContentType: s.ContentType, Accept: s.Accept, Join: s.Join == JoinInput,
		InputFilter: s.InputFilter, OutputFilter: s.OutputFilter,
	}
}

func (s Spec) limits() batch.Limits {
	return batch.Limits{Concurrent: s.MaxConcurrent, Strategy: s.Strategy, Payload: int64(s.MaxPayload)}
}

func (s Spec) tries() int {
	if s.InvocationRetries == nil {
		return defaultTries
	}
	return *s.InvocationRetries
}

func checkAddress(p *cluster.Problems, field, uri string) {
	rest, isS3 := strings.CutPrefix(uri, "s3://")
	if bucket, _, _ := strings.Cut(rest, "/"); !isS3 || bucket == "" {
		p.Add(field, "%q is not s3://bucket/key", cluster.Clip(uri))
	}
}
