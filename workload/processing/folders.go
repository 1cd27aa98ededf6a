package processing

import (
	"encoding/json"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/strictjson"
)

// Root is where a task with a view of its own finds its inputs and leaves its outputs.
const Root = base + cluster.ProcessingFolder

const base = "/opt/ml/"

// Names of an input and an output that, when they are the only ones, have the folder of all.
const (
	OnlyInput  = "input"
	OnlyOutput = "output"
)

// InputFields say where data is and how it is given to the instances.
type InputFields struct {
	// URI is the s3:// address of an object, a prefix or a manifest.
	URI string `json:"uri"`
	// Path is the folder for it below /opt/ml/processing; by default /opt/ml/processing/input/NAME, and
	// /opt/ml/processing/input for the only one if its name is input.
	Path string `json:"path,omitempty"`
	// Mode is fast_file for files that are fetched as they are read; by default they are fetched
	// before the program starts.
	Mode cluster.InputMode `json:"mode,omitempty"`
	// Type is manifest; by default all objects below the address.
	Type cluster.InputType `json:"type,omitempty"`
	// Sharded gives each instance its share of the objects, and not all of them.
	Sharded bool `json:"sharded,omitempty"`
	// Gzip decompresses the objects on the way.
	Gzip bool `json:"gzip,omitempty"`
}

// Input is InputFields, or in JSON the address alone.
type Input InputFields

// UnmarshalJSON takes a text or an object.
func (i *Input) UnmarshalJSON(text []byte) error {
	return either(text, &i.URI, func(fields *InputFields) { *i = Input(*fields) })
}

// MarshalJSON writes what is an address alone as such.
func (i Input) MarshalJSON() ([]byte, error) {
	if (i == Input{URI: i.URI}) {
		return json.Marshal(i.URI)
	}
	return json.Marshal(InputFields(i))
}

// OutputFields say what is kept of what the instances write, and where.
type OutputFields struct {
	// URI is the s3:// prefix for the files, each as an object; without one they are kept with the
	// job alone.
	URI string `json:"uri,omitempty"`
	// Path is the folder with the files below /opt/ml/processing; by default /opt/ml/processing/output/NAME, and
	// /opt/ml/processing/output for the only one if its name is output.
	Path string `json:"path,omitempty"`
	// Continuous brings each file to its address as soon as it is whole. By default that is done
	// when all instances have succeeded.
	Continuous bool `json:"continuous,omitempty"`
}

// Output is OutputFields, or in JSON the address alone.
type Output OutputFields

// UnmarshalJSON takes a text or an object.
func (o *Output) UnmarshalJSON(text []byte) error {
	return either(text, &o.URI, func(fields *OutputFields) { *o = Output(*fields) })
}

// MarshalJSON writes what is an address alone as such.
func (o Output) MarshalJSON() ([]byte, error) {
	if o.URI != "" && (o == Output{URI: o.URI}) {
		return json.Marshal(o.URI)
	}
	return json.Marshal(OutputFields(o))
}

func either[F any](text []byte, address *string, take func(*F)) error {
	if json.Unmarshal(text, address) == nil {
		return nil
	}
	var fields F
	if problems := strictjson.Decode(text, &fields); len(problems) > 0 {
		return fault.New(fault.Invalid, "takes an s3:// address, or an object with one as uri: %w", problems.Err())
	}
	take(&fields)
	return nil
}

func (s Spec) input(name string) cluster.Input {
	input := s.Inputs[name]
	folder := folderOf(input.Path, OnlyInput, name, len(s.Inputs))
	return cluster.Input{
		Channel: name, Folder: folder, URI: input.URI, Mode: input.Mode, Type: input.Type, Sharded: input.Sharded, Gzip: input.Gzip,
	}
}

func (s Spec) export(name string) cluster.Export {
	output := s.Outputs[name]
	return cluster.Export{
		Name: name, Folder: folderOf(output.Path, OnlyOutput, name, len(s.Outputs)), To: output.URI, Continuous: output.Continuous,
	}
}

// folderOf is a folder below the contract's base: the path that was given, or one of the names
// that it has by default.
func folderOf(given, only, name string, count int) string {
	switch {
	case given != "":
		return strings.TrimPrefix(strings.TrimRight(given, "/"), base)
	case name == only && count == 1:
		return path.Join(cluster.ProcessingFolder, only)
	}
	return path.Join(cluster.ProcessingFolder, only, name)
}

func absolute(folder string) string { return base + folder }

func (s Spec) validateInputs(p *cluster.Problems) {
	for _, name := range slices.Sorted(maps.Keys(s.Inputs)) {
		field, input := "inputs."+cluster.Clip(name), s.input(name)
		p.Under(field, input.CheckChannel())
		cluster.CheckInputAddress(p, field+".uri", input.URI)
		checkPath(p, field+".path", s.Inputs[name].Path)
		switch {
		case input.Mode == cluster.InputPipe:
			p.Add(field+".mode", "%q is for training: a processing job reads files, fetched before it starts or with fast_file", input.Mode)
		case input.Type == cluster.InputAugmentedManifest:
			p.Add(field+".type", "%q is for training, which reads pipes: use manifest", input.Type)
		default:
			p.Under(field, input.CheckMode())
		}
	}
}

func (s Spec) validateOutputs(p *cluster.Problems) {
	for _, name := range slices.Sorted(maps.Keys(s.Outputs)) {
		field, output := "outputs."+cluster.Clip(name), s.Outputs[name]
		if output.URI != "" {
			cluster.CheckTarget(p, field+".uri", output.URI)
		}
		checkPath(p, field+".path", output.Path)
		for _, problem := range s.export(name).Validate() {
			if problem.Field == "name" || problem.Field == "continuous" {
				p.Add(field+"."+problem.Field, "%s", problem.Text)
			}
		}
	}
	s.validateAddresses(p)
}

// validateAddresses refuses addresses that lie in one another: an output's files would replace
// another's, and what is removed of one could be of the other.
func (s Spec) validateAddresses(p *cluster.Problems) {
	names := slices.Sorted(maps.Keys(s.Outputs))
	for i, a := range names {
		for _, b := range names[i+1:] {
			one, other := s.Outputs[a].URI, s.Outputs[b].URI
			if one == "" || other == "" {
				continue
			}
			field, beside := "outputs."+cluster.Clip(b)+".uri", "outputs."+cluster.Clip(a)+".uri"
			switch first, second := whole(one), whole(other); {
			case first == second:
				p.Add(field, "%q is that of %s too: each takes a prefix of its own", cluster.Clip(other), beside)
			case strings.HasPrefix(first, second), strings.HasPrefix(second, first):
				p.Add(field, "%q and %q of %s lie in one another: each takes a prefix of its own", cluster.Clip(other), cluster.Clip(one), beside)
			}
		}
	}
}

// whole is an s3:// prefix as files are put below it: without empty parts, and with a slash at its end.
func whole(uri string) string { return path.Clean(strings.TrimPrefix(uri, "s3://")) + "/" }

func checkPath(p *cluster.Problems, field, given string) {
	clean := strings.TrimRight(given, "/")
	if given == "" || path.Clean(clean) == clean && strings.HasPrefix(clean, Root+"/") && !strings.ContainsRune(clean, 0) && len(clean) <= 1000 {
		return
	}
	p.Add(field, "%q is not a folder below %s, like %s/data", cluster.Clip(given), Root, Root)
}
